package missing

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslHandshake, key 17, versions 0 to 1. SaslAuthenticate, key 36, versions 0 to 2.
//
// Clients cannot log in on a listener without security: both requests are refused, and the
// connection stays open, as in Kafka.

func saslHandshake(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.ErrorCode = kerr.IllegalSaslState.Code
	return fixedAnswer(resp)
}

func saslAuthenticate(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	resp.ErrorCode = kerr.IllegalSaslState.Code
	resp.ErrorMessage = new("SaslAuthenticate request received after successful authentication")
	return fixedAnswer(resp)
}
