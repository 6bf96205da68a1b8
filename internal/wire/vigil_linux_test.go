//go:build linux && !portable

package wire

import "testing"

// TestVigil proves that a vigil is kept while requests come, is kept again later,
// and ends when nothing comes; that it ends with the server is what goleak sees.
func TestVigil(t *testing.T) {
	s, addr := start(t, Config{}, &funcs{serve: echo})
	c := dial(t, addr)
	ask := func() {
		c.send(frame(3, 1, 7, "x"))
		c.receive()
	}
	ask()
	if s.vigil.kept.Load() {
		t.Error("one request is enough")
	}
	for range 2 {
		eventually(t, "a vigil is kept", func() bool { ask(); return s.vigil.kept.Load() })
		eventually(t, "it has ended", func() bool { return !s.vigil.kept.Load() })
	}
	eventually(t, "a vigil is kept when the server stops", func() bool { ask(); return s.vigil.kept.Load() })
}
