package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
)

// TestTokens proves that frames are handed on as they are while tokens are expected, also in the same read as the request before and
// the one after, and that their answers have no header; and that a token may not be larger than a frame.
func TestTokens(t *testing.T) {
	var log logLines
	_, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: func(r *Request) error {
		if r.Key != TokenKey {
			r.ExpectTokens(true)
			r.Conn.SetMaxFrame(1 << 10)
			return echo(r)
		}
		r.ExpectTokens(string(r.Body()) != "last")
		return echo(r)
	}})
	tokenOf := func(s string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
	}
	c := dial(t, addr)
	c.send(append(append(append(frame(17, 0, 7, "request"), tokenOf("x")...), tokenOf("last")...), frame(17, 0, 8, "another")...))
	if id, body := c.receive(); id != 7 || body != "request" {
		t.Errorf("the answer to the request: %d, %q", id, body)
	}
	for _, want := range []string{"x", "last"} {
		got := make([]byte, 4+len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != string(tokenOf(want)) {
			t.Fatalf("the answer to %q: %q, %v", want, got, err)
		}
	}
	if id, body := c.receive(); id != 8 || body != "another" {
		t.Errorf("the answer to the request after the tokens: %d, %q", id, body)
	}
	c.send(tokenOf(strings.Repeat("x", 2<<10)))
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	eventually(t, "the size is refused", func() bool { return strings.Contains(log.String(), "sasl.server.max.receive.size") })
}
