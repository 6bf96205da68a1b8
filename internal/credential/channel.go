package credential

import (
	"fmt"
	"strings"
)

// channelVersion is the first version of the protocol whose proofs are bound to the connection beneath them, and whose addresses have
// protocols.
const channelVersion = 3

// ExporterSize is how many bytes Channel.Exporter has.
const ExporterSize = 32

// Channel is the connection beneath a handshake, as one end sees it. The zero value is one without TLS.
type Channel struct {
	TLS bool
	// Exporter is the value of tls-exporter (RFC 9266): the two ends of a connection with TLS have the same one, and no other
	// connection has it. Nil: it cannot be had, as in TLS 1.2 without the extended master secret (RFC 7627).
	Exporter []byte
	// MustBind has a dialler refuse an acceptor that does not bind its proof to the connection: this end does not know by other
	// means who is at the other end of TLS.
	MustBind bool
}

// isBindable tells whether proofs can be bound to the connection. To one without TLS they are bound as to all of its kind.
func (c *Channel) isBindable() bool { return !c.TLS || len(c.Exporter) == ExporterSize }

// bind adds the connection to the transcript, in the versions of the protocol that do so.
func (t transcript) bind(c *Channel, version uint16) transcript {
	if version < channelVersion {
		return t
	}
	return t.add("channel", c.Exporter)
}

// isBound tells whether the proofs of a session hold for one connection with TLS only.
func (c *Channel) isBound(version uint16) bool { return c.TLS && version >= channelVersion }

// cutProtocols returns addresses as nodes of a version of the protocol know them: those from before channelVersion know no protocols.
func cutProtocols(addresses []string, version uint16) []string {
	if version >= channelVersion || addresses == nil {
		return addresses
	}
	cut := make([]string, len(addresses))
	for i, a := range addresses {
		if _, rest, ok := strings.Cut(a, "://"); ok {
			a = rest
		}
		cut[i] = a
	}
	return cut
}

// requireBinding raises the lowest version that a dialler speaks, so that the proofs are bound to the connection. It returns an error if
// that cannot be.
func (d *Dialler) requireBinding() error {
	switch v := &d.hello.versions; {
	case !d.channel.TLS:
		return fmt.Errorf("%w: it has no TLS", ErrUnbound)
	case !d.channel.isBindable():
		return fmt.Errorf("%w: allow TLS 1.3 on both ends (ssl.enabled.protocols)", ErrUnbound)
	default:
		v.Min = max(v.Min, channelVersion)
		if !v.isValid() {
			return fmt.Errorf("%w: this end speaks version %d of the protocol between nodes at most", ErrUnbound, v.Max)
		}
	}
	return nil
}
