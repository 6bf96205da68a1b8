package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// countedSession counts the requests that it gets.
type countedSession struct {
	wire.Session
	served int
}

func (s *countedSession) Serve(*wire.Request) error {
	s.served++
	return nil
}

// TestGateKeepsClientsWaiting proves that a client's request that comes while the node starts is served when the
// node does, that it is refused if that takes long or the node stops, and that other nodes do not wait.
func TestGateKeepsClientsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		g := newGate(ctx)
		served := &countedSession{}
		s := &gatedSession{served, &g}
		if err := s.Serve(&wire.Request{Key: peer.PullMetadata}); err != nil || served.served != 1 {
			t.Error("another node waits:", err)
		}
		if err := s.Serve(&wire.Request{Key: 18}); !errors.Is(err, errStarting) || served.served != 1 {
			t.Error("a client has waited for ever:", err)
		}
		time.AfterFunc(gateTime/2, g.open)
		if err := s.Serve(&wire.Request{Key: 18}); err != nil || served.served != 2 {
			t.Error("it is refused, though the node serves by now:", err)
		}
		g = newGate(ctx)
		time.AfterFunc(gateTime/2, stop)
		began := time.Now()
		if err := s.Serve(&wire.Request{Key: 18}); !errors.Is(err, errStarting) || time.Since(began) != gateTime/2 {
			t.Error("it waits for a node that stops:", err, time.Since(began))
		}
	})
}
