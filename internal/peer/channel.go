package peer

import (
	"crypto/tls"
	"net"

	"github.com/leatstream/leat/internal/credential"
)

// exporterLabel is the label of tls-exporter (RFC 9266).
const exporterLabel = "EXPORTER-Channel-Binding"

// Unverified is a connection with TLS of which this end has not checked the certificate that it was shown. Dial goes on with it only if
// both ends bind their proofs to the connection, which shows that there is nobody between them.
type Unverified struct{ *tls.Conn }

// takeChannel returns what a connection that was dialled tells the handshake, and the connection itself.
func takeChannel(nc net.Conn) (net.Conn, credential.Channel) {
	must := false
	if u, ok := nc.(Unverified); ok {
		nc, must = u.Conn, true
	}
	encrypted, ok := nc.(*tls.Conn)
	if !ok {
		return nc, credential.Channel{}
	}
	state := encrypted.ConnectionState()
	c := channelOf(&state)
	c.MustBind = must
	return nc, c
}

// channelOf is what the handshake needs to know of a connection; nil: it has no TLS.
func channelOf(state *tls.ConnectionState) credential.Channel {
	if state == nil {
		return credential.Channel{}
	}
	// The context is empty, not missing: in TLS 1.2 that differs. It fails where the value would not be of one connection only.
	value, err := state.ExportKeyingMaterial(exporterLabel, []byte{}, credential.ExporterSize)
	if err != nil {
		return credential.Channel{TLS: true}
	}
	return credential.Channel{TLS: true, Exporter: value}
}
