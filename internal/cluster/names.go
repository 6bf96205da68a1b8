package cluster

import "sync"

// maxHeard is how many raft ids a node remembers that the metadata do not have.
const maxHeard = 1 << 10

// names finds the nodes that have raft's ids. Most are in the metadata. A node that is behind does not
// have the newest ones yet, and could not even answer the leader that sends it the metadata; so it also
// remembers which node has sent messages with which id.
type names struct {
	inMetadata func(raftID uint64) (node int32, ok bool)

	mu    sync.Mutex
	heard map[uint64]int32 // guarded by mu
}

// find finds the node that has a raft id.
func (n *names) find(raftID uint64) (node int32, ok bool) {
	if node, ok = n.inMetadata(raftID); ok {
		return node, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	node, ok = n.heard[raftID]
	return node, ok
}

// note notes that a node has sent something with a raft id. It returns false if the id is another
// node's, by the metadata.
func (n *names) note(raftID uint64, node int32) (isOwn bool) {
	if owner, ok := n.inMetadata(raftID); ok {
		return owner == node
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.heard == nil {
		n.heard = map[uint64]int32{}
	}
	if _, ok := n.heard[raftID]; !ok && len(n.heard) >= maxHeard {
		for other := range n.heard { // any: ids are drawn once for a directory, so there are few
			delete(n.heard, other)
			break
		}
	}
	n.heard[raftID] = node
	return true
}
