package node

import (
	"sync"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/storage"
)

// deletedTopics are the topics that records of the metadata log have deleted, of those that
// this node replays at its start. Only their directories are deleted; other directories of
// unknown topics are set aside. It is safe for concurrent use.
type deletedTopics struct {
	mu  sync.Mutex
	ids map[meta.UUID]struct{} // guarded by mu
}

func (d *deletedTopics) addTopics(ids []meta.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = map[meta.UUID]struct{}{}
	}
	for _, id := range ids {
		d.ids[id] = struct{}{}
	}
}

// containsLog tells whether a log belongs to one of these topics.
func (d *deletedTopics) containsLog(id storage.LogID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.ids[id.Topic]
	return ok
}
