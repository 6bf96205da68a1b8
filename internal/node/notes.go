package node

import (
	"sync"

	"github.com/leatstream/leat/internal/credential"
)

// notes are what other nodes have told with their proofs. A node forgets them when it ends.
type notes struct {
	mu sync.Mutex
	of map[int32]note // guarded by mu; of nodes that have proven themselves
}

type note struct {
	addresses  []string           // at which the node says that it listens
	registered int64              // the epoch of its registration when it said so; 0: there was none
	voucher    credential.Voucher // the one for the most entries
}

// keep keeps what a node has told, whose registration has an epoch; 0: there is none.
func (s *notes) keep(id int32, registered int64, told *credential.Note) {
	if told == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.of[id]
	if n.addresses, n.registered = told.Addresses, registered; told.Voucher.Known() >= n.voucher.Known() {
		n.voucher = told.Voucher
	}
	if s.of == nil {
		s.of = map[int32]note{}
	}
	s.of[id] = n
}

// addresses are those at which a node said that it listens, unless it was registered since: then the metadata have them.
func (s *notes) addresses(id int32, registered int64) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.of[id]; n.registered == registered {
		return n.addresses
	}
	return nil
}

// voucher is a node's signature under how far it had the metadata log; the zero value: there is none.
func (s *notes) voucher(id int32) credential.Voucher {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[id].voucher
}
