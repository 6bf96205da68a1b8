package node

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestHTTPClientsCannotStay proves that no client of the HTTP port can hold its
// connection for ever: not by sending nothing, nor by not reading.
func TestHTTPClientsCannotStay(t *testing.T) {
	a, err := openAdmin(t.Context(), "127.0.0.1:0", prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if s := a.server; s.ReadHeaderTimeout <= 0 || s.IdleTimeout <= 0 || s.WriteTimeout <= 0 {
		t.Errorf("unbounded: header %v, idle %v, write %v", s.ReadHeaderTimeout, s.IdleTimeout, s.WriteTimeout)
	}
	if err := a.close(t.Context()); err != nil {
		t.Error(err)
	}
}
