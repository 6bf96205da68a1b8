package source

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// NewLogin makes a login by one of Kafka's mechanisms that have a user and a password: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
func NewLogin(mechanism, user, password string) (sasl.Mechanism, error) { //nolint:ireturn // it is one of several
	switch mechanism {
	case "PLAIN":
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("a link cannot log in by %.40q, but by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512", mechanism)
}
