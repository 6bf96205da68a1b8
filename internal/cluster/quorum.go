package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
)

// These are the forms of the quorum's messages between nodes. Numbers are big-endian. Package quorum
// has the forms of a message, of entries and of a part.
//
//	QuorumMessages     (size u32 | message), once or more; not answered
//	PullMetadata       observer's raft id u64 | from u64 | last u64       -> status u8 | entries
//	                   from version 2 of the protocol on the last entry's term u64 follows
//	MetadataSnapshot   member's raft id u64 | index u64 | offset u64      -> status u8 | part
const (
	// frameSize is the size of a frame of several messages. A frame with one may be larger.
	frameSize = 256 << 10
	// pollTime is how long a node lets another one wait for entries before it tells it that there are
	// none. A node that has lost its leader says so then, and is left.
	pollTime = 2 * time.Second
	// answerTime is how long the other node may take beyond that.
	answerTime = 10 * time.Second
	// connectTime is how long a connection may take, until another node is tried.
	connectTime = 3 * time.Second
	// maxEntries bounds the answer to a pull, and maxPart that for a part of a snapshot.
	maxEntries = peer.MaxRequest
	maxPart    = 4 << 20

	pullSize     = 4 * 8
	pullSizeOld  = 3 * 8
	termsVersion = 2 // the first version of the protocol in which pulls have the term
	partSize     = 3 * 8
)

var (
	errUnknownID = errors.New("no node is known that has this id of raft")
	errAlone     = errors.New("no other node is known")
)

// QuorumConfig is what a Quorum works with.
type QuorumConfig struct {
	NodeID int32
	Links  *peer.Links
	// Others lists the other nodes of the cluster, as far as they are known.
	Others func() []int32
	// NodeOf finds the node that has a raft id in the metadata.
	NodeOf func(raftID uint64) (node int32, ok bool)
}

// Quorum carries the messages of the metadata quorum: it is the quorum.Transport of this node, and
// serves those of others.
type Quorum struct {
	cfg   QuorumConfig
	names names
	work  *worker

	node atomic.Pointer[quorum.Node] // nil before Attach

	mu     sync.Mutex
	source int32              // guarded by mu: the node that has answered the last pull, or is to be asked next
	closed map[int32]struct{} // guarded by mu: nodes that have closed a connection, and did not accept one since
}

// maxPulls is how many requests of other nodes wait for entries at a time.
const maxPulls = 256

// NewQuorum makes the transport of this node's quorum.Node. The requests that it serves end with the
// context, or with Close.
func NewQuorum(ctx context.Context, cfg QuorumConfig) *Quorum {
	return &Quorum{
		cfg: cfg, names: names{inMetadata: cfg.NodeOf}, work: newWorker(ctx, maxPulls),
		source: -1, closed: map[int32]struct{}{},
	}
}

// Attach gives the Quorum the node for which it carries messages.
func (q *Quorum) Attach(n *quorum.Node) { q.node.Store(n) }

// Close answers all requests that wait, and refuses later ones.
func (q *Quorum) Close() { q.work.close() }

// NodeOf finds the node that has a raft id.
func (q *Quorum) NodeOf(raftID uint64) (node int32, ok bool) { return q.names.find(raftID) }

// Leader is the node that leads the quorum, as far as this one knows; -1: it does not. It may be this one,
// which may not have applied all that it needs to decide yet.
func (q *Quorum) Leader() int32 {
	n := q.node.Load()
	if n == nil {
		return -1
	}
	s := n.Status()
	switch s.LeaderRaftID {
	case 0:
		return -1
	case s.RaftID:
		return q.cfg.NodeID
	}
	if node, ok := q.names.find(s.LeaderRaftID); ok {
		return node
	}
	return -1
}

// Position is how far this node has the metadata log. Nodes that are no members have no say in the metadata.
func (q *Quorum) Position() credential.Position {
	n := q.node.Load()
	if n == nil {
		return credential.Position{}
	}
	s := n.Status()
	p := credential.Position{Known: s.Commit, Applied: s.Applied}
	if s.Role != quorum.Observer {
		p.Last = s.Last
	}
	return p
}

// anyOther is one of the other nodes, another one for each number; -1: there is none.
func (q *Quorum) anyOther(number int) int32 {
	list, _ := q.sources()
	if len(list) == 0 {
		return -1
	}
	return list[number%len(list)]
}

// voters lists the nodes that vote, as far as they are known.
func (q *Quorum) voters() (nodes []int32) {
	n := q.node.Load()
	if n == nil {
		return nil
	}
	s := n.Status()
	for _, id := range s.Members.Voters {
		node, ok := q.names.find(id)
		if id == s.RaftID {
			node, ok = q.cfg.NodeID, true
		}
		if ok {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// parcel has messages for one node.
type parcel struct {
	node int32
	ids  []uint64 // of the receivers
	body []byte
}

// Send sends messages, several in one frame. It implements quorum.Transport.
func (q *Quorum) Send(messages []quorum.Message) {
	var parcels []*parcel
	for i := range messages {
		m := &messages[i]
		node, ok := q.names.find(m.To)
		if !ok {
			q.reportUnreachable(m.To)
			continue
		}
		at := slices.IndexFunc(parcels, func(p *parcel) bool { return p.node == node })
		if at >= 0 && len(parcels[at].body)+len(m.Data) > frameSize {
			q.sendParcel(parcels[at])
			parcels = slices.Delete(parcels, at, at+1)
			at = -1
		}
		if at < 0 {
			at = len(parcels)
			parcels = append(parcels, &parcel{node: node})
		}
		p := parcels[at]
		p.ids = append(p.ids, m.To)
		p.body = append(binary.BigEndian.AppendUint32(p.body, uint32(len(m.Data))), m.Data...)
	}
	for _, p := range parcels {
		q.sendParcel(p)
	}
}

func (q *Quorum) sendParcel(p *parcel) {
	c, ok := q.cfg.Links.TryGet(p.node, peer.Quorum)
	if ok && c.Send(peer.QuorumMessages, p.body) == nil {
		return
	}
	for _, id := range p.ids {
		q.reportUnreachable(id)
	}
}

func (q *Quorum) reportUnreachable(raftID uint64) {
	if n := q.node.Load(); n != nil {
		n.ReportUnreachable(raftID)
	}
}

// Notify takes what the Links tell of connections. A node that has closed a connection, and whose port
// is refused after that, is dead: its process has ended.
func (q *Quorum) Notify(e peer.Event) {
	n := q.node.Load()
	if n == nil {
		return
	}
	if isDead := q.noteEvent(e); isDead {
		for _, id := range q.idsOf(n, e.Node) {
			n.ReportDead(id)
		}
	}
	if e.Purpose == peer.Quorum && e.Kind != peer.Connected {
		for _, id := range q.idsOf(n, e.Node) {
			n.ReportUnreachable(id)
		}
	}
}

// noteEvent notes whether the node of an event has closed a connection, and tells whether it is dead.
func (q *Quorum) noteEvent(e peer.Event) (isDead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch e.Kind {
	case peer.Connected:
		delete(q.closed, e.Node)
	case peer.PeerClosed:
		q.closed[e.Node] = struct{}{}
	case peer.DialRefused:
		_, isDead = q.closed[e.Node]
		delete(q.closed, e.Node)
	case peer.Lost, peer.DialFailed:
	}
	return isDead
}

// idsOf lists the raft ids with which a node is a member.
func (q *Quorum) idsOf(n *quorum.Node, node int32) (ids []uint64) {
	members := n.Status().Members
	for _, id := range slices.Concat(members.Voters, members.Learners) {
		if owner, ok := q.names.find(id); ok && owner == node {
			ids = append(ids, id)
		}
	}
	return ids
}

// ReadCommitted asks another node for entries, and again as long as it has none. Who asks after an
// error gets those of the next node. It implements quorum.Transport.
func (q *Quorum) ReadCommitted(ctx context.Context, p quorum.Pull) ([]byte, error) {
	node, err := q.chooseSource()
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, pullSize)
	for _, n := range []uint64{p.Observer, p.From, p.Last, p.LastTerm} {
		body = binary.BigEndian.AppendUint64(body, n)
	}
	for {
		entries, err := q.call(ctx, node, peer.PullMetadata, body, maxEntries)
		if err == nil {
			return entries, nil
		}
		if !errors.Is(err, errNothing) {
			q.leaveSource(node)
			return nil, err
		}
	}
}

// ReadSnapshot asks a member for a part of its snapshot. It implements quorum.Transport.
func (q *Quorum) ReadSnapshot(ctx context.Context, p quorum.Part) ([]byte, error) {
	node, ok := q.names.find(p.Of)
	if !ok { // a node without metadata has heard of the snapshot from the one that it pulls from, which says so if the snapshot is another's
		q.mu.Lock()
		node = q.source
		q.mu.Unlock()
	}
	if node < 0 {
		return nil, fmt.Errorf("%w: %016x", errUnknownID, p.Of)
	}
	body := make([]byte, 0, partSize)
	for _, n := range []uint64{p.Of, p.Index, uint64(p.Offset)} {
		body = binary.BigEndian.AppendUint64(body, n)
	}
	return q.call(ctx, node, peer.MetadataSnapshot, body, maxPart)
}

// call calls another node on the connection for the metadata.
func (q *Quorum) call(ctx context.Context, node int32, key int16, body []byte, most int) ([]byte, error) {
	early, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	c, err := q.cfg.Links.Get(early, node, peer.Metadata)
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", node, err)
	}
	if key == peer.PullMetadata && c.Session().Version < termsVersion {
		body = body[:pullSizeOld]
	}
	late, cancel := context.WithTimeout(ctx, pollTime+answerTime)
	defer cancel()
	answer, err := c.CallInto(late, key, body, nil, most)
	if err == nil {
		answer, err = splitAnswer(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("%s of node %d: %w", peer.NameOf(key), node, err)
	}
	return answer, nil
}

// chooseSource chooses the node to pull from: the one that answered last, if it is still known. At first
// any member is as good as another.
func (q *Quorum) chooseSource() (int32, error) {
	list, members := q.sources()
	if len(list) == 0 {
		return 0, errAlone
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Contains(list, q.source) {
		q.source = list[rand.N(cmp.Or(members, len(list)))]
	}
	return q.source, nil
}

// leaveSource has the next pull go to another node than the one that has failed.
func (q *Quorum) leaveSource(failed int32) {
	list, _ := q.sources()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.source == failed && len(list) > 0 {
		q.source = list[(slices.Index(list, failed)+1)%len(list)]
	}
}

// sources lists the nodes that may have entries. The first ones are those that are known to be members,
// since others do not wait for entries.
func (q *Quorum) sources() (list []int32, members int) {
	others := slices.Sorted(slices.Values(q.cfg.Others()))
	if n := q.node.Load(); n != nil {
		s := n.Status()
		for _, id := range slices.Concat(s.Members.Voters, s.Members.Learners) {
			if node, ok := q.names.find(id); ok && id != s.RaftID && slices.Contains(others, node) && !slices.Contains(list, node) {
				list = append(list, node)
			}
		}
	}
	members = len(list)
	for _, node := range others {
		if !slices.Contains(list, node) {
			list = append(list, node)
		}
	}
	return list, members
}
