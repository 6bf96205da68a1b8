package cli

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/leatstream/leat/internal/config"
)

// The mechanisms PLAIN and OAUTHBEARER send the password or the token as it is. Kafka's clients do so without TLS, too, when they are told to; here
// a user must say that it is meant, except on a loopback address, where nobody is on the way.

// readableError says that a password or a token would be sent so that everybody on the way could read it.
type readableError struct {
	address string
	access  *access
}

func (e *readableError) Error() string {
	secret := "password"
	if e.access.name == config.MechanismOAuth {
		secret = "token"
	}
	return fmt.Sprintf("%s sends the %s as it is, and %s is reached without TLS, so that everybody on the way could read it: log in over TLS (%s), by SCRAM (%s), or allow it with --allow-plain-text-password",
		e.access.name, secret, e.address, e.access.settingOf("--ca FILE or --tls", "security.protocol=SASL_SSL"), e.access.settingOf("--mechanism SCRAM-SHA-512", "sasl.mechanism=SCRAM-SHA-512"))
}

// checkReadable refuses addresses to which the client would send a password, or a token, that others can read.
func (c *access) checkReadable(addresses []string) error {
	if !c.isReadable {
		return nil
	}
	for _, address := range addresses {
		if !isLoopback(address) {
			return usagef("%v", &readableError{address, c})
		}
	}
	return nil
}

// isLoopback tells whether an address, whose port may be left out, is one of this machine alone.
func isLoopback(address string) bool {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// localMechanism logs in on loopback addresses only. Brokers tell clients addresses that nobody has seen before.
type localMechanism struct {
	sasl.Mechanism

	access *access
}

// Authenticate begins a login.
func (m localMechanism) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) { //nolint:ireturn // of sasl.Mechanism
	if !isLoopback(host) {
		return nil, nil, &readableError{host, m.access}
	}
	return m.Mechanism.Authenticate(ctx, host)
}
