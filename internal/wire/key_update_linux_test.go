//go:build linux && !portable

package wire

import (
	"errors"
	"io"
	"os"
	"testing"
)

// TestUnreadKeyUpdates proves that a client which asks for changes of the server's keys, with data between them, and has the server say nothing
// else, makes it keep 1 KiB at most: it is not served any further.
func TestUnreadKeyUpdates(t *testing.T) {
	useTLS(t)
	_, addr := start(t, Config{}, &funcs{serve: echo})
	k := dialKeyChanger(t, addr)
	for _, b := range frame(0, 0, 3, "x") { // the answer to the request would come behind those to all changes
		for range 16 {
			k.queueKeyUpdate(true)
		}
		k.queue(23, []byte{b})
	}
	k.flush()
	// Tickets of the handshake may come, and nothing else does.
	n, err := io.Copy(io.Discard, k.nc)
	if n > 4<<10 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes were sent: %v", n, err)
	}
}
