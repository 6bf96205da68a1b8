package node

import (
	"slices"
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

// isReplicaElsewhere tells whether a partition has replicas on other nodes and none on this one: a reassignment
// has removed the replica of this node, which may have been down at that time.
func isReplicaElsewhere(img *meta.Image, id storage.LogID, node int32) bool {
	t := img.TopicByID(id.Topic)
	return t != nil && int(id.Partition) < len(t.Partitions) && !slices.Contains(t.Partitions[id.Partition].Replicas, node)
}
