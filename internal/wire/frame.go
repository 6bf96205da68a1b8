package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	lengthSize = 4 // bytes of the length in front of each frame

	apiVersions = 18 // the API whose answers have the oldest header, and whose unknown versions get an answer

	maxClientID   = 1 << 10 // bytes of a client id that are kept; real ones are shorter
	maxHeaderTags = 64      // Kafka's requests have none

	// TokenKey is the key of a request that is a token of a login: see Request.ExpectTokens. No request of Kafka's has it.
	TokenKey int16 = math.MinInt16
)

// errForeign closes a connection whose first bytes belong to another protocol.
var errForeign = errors.New("not the Kafka protocol")

// errFrameSize closes a connection that announces a frame of a size that is not
// accepted.
var errFrameSize = errors.New("bad frame size")

// header is the part of a request that stands before its body.
type header struct {
	key, version  int16
	correlationID int32
	clientID      []byte
}

// parseHeader parses a request's header and returns the body behind it.
func (g *guard) parseHeader(frame []byte) (h header, body []byte, err error) {
	if len(frame) < 10 {
		return h, nil, fmt.Errorf("%w: a frame of %d bytes has no room for a header", ErrMalformed, len(frame))
	}
	h.key = int16(binary.BigEndian.Uint16(frame))
	h.version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.correlationID = int32(binary.BigEndian.Uint32(frame[4:]))
	n := int(int16(binary.BigEndian.Uint16(frame[8:])))
	frame = frame[10:]
	if n > len(frame) {
		return h, nil, fmt.Errorf("%w: a client id of %d bytes in a frame with %d", ErrMalformed, n, len(frame))
	}
	if n > 0 {
		h.clientID, frame = frame[:min(n, maxClientID)], frame[n:]
	}
	if !g.isFlexible(h.key, h.version) {
		return h, frame, nil
	}
	body, ok := skipTags(frame)
	switch {
	case ok:
	case h.key == apiVersions && !g.knowsVersion(h.key, h.version):
		body = nil // a newer version; the answer lists the known ones
	default:
		return h, nil, fmt.Errorf("%w: the tagged fields of its header do not fit", ErrMalformed)
	}
	return h, body, nil
}

// skipTags skips the tagged fields of a header.
func skipTags(b []byte) (rest []byte, ok bool) {
	w := walker{b: b}
	count := w.readUvarint()
	if count > maxHeaderTags {
		return nil, false
	}
	for ; count > 0; count-- {
		w.readUvarint()
		w.skipBytes(w.readUvarint())
	}
	return w.b, w.err == nil
}

// describeBadSize says why the size of the frame at the beginning of b is not accepted.
func describeBadSize(b []byte, limit int) error {
	n := int32(binary.BigEndian.Uint32(b))
	if what := nameForeignProtocol(b); what != "" && (n <= 0 || int(n) > limit) {
		return fmt.Errorf("%w: this looks like %s", errForeign, what)
	}
	if n <= 0 {
		return fmt.Errorf("%w: its size is %d", errFrameSize, n)
	}
	return fmt.Errorf("%w: its size is %d, and the limit is %d (socket.request.max.bytes, or the part of queued.max.request.bytes that one request may take; before a login sasl.server.max.receive.size)", errFrameSize, n, limit)
}

// nameForeignProtocol names the protocol that these first bytes belong to, if any.
func nameForeignProtocol(b []byte) string {
	if b[0] == 0x16 && b[1] == 0x03 {
		return "a TLS handshake, and this port does not speak TLS"
	}
	for verb := range strings.FieldsSeq("GET HEAD POST PUT DELETE OPTIONS PATCH CONNECT TRACE PRI") {
		if n := min(len(verb), 4); string(b[:n]) == verb[:n] && (len(verb) >= 4 || b[3] == ' ') {
			return "HTTP, and this port speaks the Kafka protocol"
		}
	}
	if string(b[:4]) == "SSH-" {
		return "SSH"
	}
	return ""
}

// nameOfKey is the name of an API.
func nameOfKey(key int16) string {
	if key == TokenKey {
		return "token of a login"
	}
	if name := kmsg.NameForKey(key); name != "Unknown" {
		return name
	}
	return "API key " + strconv.Itoa(int(key))
}
