package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/wire"
)

// DoorConfig is what a node decides by whom it lets in, and what it serves to them.
type DoorConfig struct {
	Self      func() credential.Self // this node as it is now
	Directory credential.Directory   // the newest metadata
	// Admit decides whether a peer that has proven itself is let in. It may take long, and must end
	// when the context does, which ends with the connection. The peer is told an error of
	// credential's that a verdict can have, and credential.ErrUnavailable in place of others.
	Admit func(ctx context.Context, p credential.Peer) (credential.Welcome, error)
	// WentBack is told that somebody has shown that this node's metadata went back, after which it must not go on; nil: nobody
	// wants to know. It must not wait.
	WentBack func(err *credential.WentBackError)
	Handlers []Handler
	Now      func() time.Time // nil: time.Now
	Random   io.Reader        // nil: the system's
}

// Handler serves the requests with a private key.
type Handler struct {
	Key  int16
	From Kinds // who may send them
	// Serve gets a request as wire.Session.Serve does, on the connection's goroutine. It must have it
	// answered, then or later, unless the key is one way. An error ends the connection.
	Serve func(id *Identity, r *wire.Request) error
}

// Door lets peers in.
type Door struct {
	cfg      DoorConfig
	handlers [LastKey - FirstKey + 1]*Handler

	mu     sync.Mutex
	proven map[*Session]credential.Peer // of the open connections, also before Admit has decided; guarded by mu
}

// NewDoor makes the door of a node.
func NewDoor(cfg DoorConfig) (*Door, error) {
	if cfg.Self == nil || cfg.Directory == nil || cfg.Admit == nil {
		return nil, errors.New("peer: Self, Directory and Admit must be set")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	d := &Door{cfg: cfg, proven: map[*Session]credential.Peer{}}
	for i := range cfg.Handlers {
		h := &cfg.Handlers[i]
		switch {
		case !isKnown(h.Key) || isHandshake(h.Key):
			return nil, fmt.Errorf("peer: no handler can have the key of %s", NameOf(h.Key))
		case d.handlers[h.Key-FirstKey] != nil:
			return nil, fmt.Errorf("peer: two handlers for %s", NameOf(h.Key))
		case h.From == 0 || h.Serve == nil:
			return nil, fmt.Errorf("peer: the handler for %s needs kinds and Serve", NameOf(h.Key))
		}
		d.handlers[h.Key-FirstKey] = h
	}
	return d, nil
}

// Retain ends the connections of all peers but those that are wanted. A node is not wanted any more
// when it was removed from the cluster. Its connection ends even if Admit is deciding by metadata
// from before that.
func (d *Door) Retain(wanted func(p credential.Peer) bool) {
	d.mu.Lock()
	proven := maps.Clone(d.proven)
	d.mu.Unlock()
	for s, p := range proven {
		if !wanted(p) {
			s.conn.Close(fmt.Errorf("%w any more: %v %d", ErrNotAdmitted, p.Kind, p.NodeID))
		}
	}
}

// noteProven notes who is at the other end of a session.
func (d *Door) noteProven(s *Session, p credential.Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proven[s] = p
}

func (d *Door) forgetSession(s *Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.proven, s)
}
