package node

import (
	"sync"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/storage"
)

// deletedTopics are the topics that records of the metadata log deleted while this node
// read it at its start. Their directories may go; any other that the metadata do not know
// is kept. Safe for concurrent use.
type deletedTopics struct {
	mu  sync.Mutex
	ids map[meta.UUID]struct{} // guarded by mu
}

func (d *deletedTopics) add(ids []meta.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = map[meta.UUID]struct{}{}
	}
	for _, id := range ids {
		d.ids[id] = struct{}{}
	}
}

// has tells whether a log is of such a topic.
func (d *deletedTopics) has(id storage.LogID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.ids[id.Topic]
	return ok
}
