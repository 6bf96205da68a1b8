package peer

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// FormatAddress is the text of an address with the protocol of the listener there, as nodes tell it to each other.
func FormatAddress(p config.Protocol, host string, port int32) string {
	return p.String() + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// SplitAddress takes an address apart. isKnown is false if its text has no protocol, or one that is not known here: versions from before
// addresses had one tell host and port only.
func SplitAddress(address string) (hostPort string, p config.Protocol, isKnown bool) {
	name, rest, ok := strings.Cut(address, "://")
	if !ok {
		return address, config.Plaintext, false
	}
	p, isKnown = config.ParseProtocol(name)
	return rest, p, isKnown
}

// dialPlain opens a connection without TLS.
func dialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	hostPort, _, _ := SplitAddress(address)
	return new(net.Dialer).DialContext(ctx, network, hostPort)
}
