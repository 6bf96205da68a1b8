package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// SaslHandshake, key 17, versions 0 to 1. SaslAuthenticate, key 36, versions 0 to 2.
//
// Nobody logs in on a listener without security: both are refused, and the connection
// stays, as in Kafka.

func (*Broker) saslHandshake(_ *session, r *wire.Request, _ kmsg.Request) error {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.ErrorCode = kerr.IllegalSaslState.Code
	r.Reply(resp)
	return nil
}

func (*Broker) saslAuthenticate(_ *session, r *wire.Request, _ kmsg.Request) error {
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	resp.ErrorCode = kerr.IllegalSaslState.Code
	resp.ErrorMessage = new("SaslAuthenticate request received after successful authentication")
	r.Reply(resp)
	return nil
}
