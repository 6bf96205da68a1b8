package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
)

// TestQuorumOverSockets proves that three nodes form a quorum over sockets: two join as observers, pull
// what was there before, become voters and replicate; that the quorum survives the end of its leader,
// soon, since the others notice it; and that the ended node catches up when it starts again.
func TestQuorumOverSockets(t *testing.T) {
	w := newWorld(t)
	nodes := []*node{w.start(1, nil, options{founds: true})}
	w.register(nodes[0])
	if err := nodes[0].propose("first"); err != nil {
		t.Fatal(err)
	}
	for id := int32(2); id <= 3; id++ {
		n := w.start(id, nil, options{})
		eventually(t, "a new observer has what was there", func() bool { return n.text.has("first") })
		w.register(n)
		nodes = append(nodes, n)
	}
	promote(t, nodes[0], nodes...)
	lead := leader(t, nodes...)
	if err := lead.propose("second"); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "all have it", func() bool { return n.text.has("second") })
	}
	lead.kill()
	var rest []*node
	for _, n := range nodes {
		if n != lead {
			rest = append(rest, n)
		}
	}
	next := leader(t, rest...)
	if err := next.propose("third"); err != nil {
		t.Fatal(err)
	}
	again := w.start(lead.id, lead.disk, options{})
	eventually(t, "the node that was killed has it", func() bool { return again.text.has("third") })
	if got := strings.Join(again.text.lines(), " "); got != "first second third" {
		t.Error(got)
	}
}

// TestObserverPulls proves that an observer follows a quorum of three, that it goes on with another
// member when the one that it pulls from ends, and that it gets a snapshot in parts if the entries are
// not there any more.
func TestObserverPulls(t *testing.T) {
	w := newWorld(t)
	nodes := []*node{w.start(1, nil, options{founds: true})}
	w.register(nodes[0])
	for id := int32(2); id <= 3; id++ {
		nodes = append(nodes, w.start(id, nil, options{}))
		w.register(nodes[id-1])
	}
	promote(t, nodes[0], nodes...)
	lead := leader(t, nodes...)
	large := strings.Repeat("x", 60<<10)
	for i := range 40 { // more than two parts of a snapshot
		if err := lead.propose(fmt.Sprint(i, large)); err != nil {
			t.Fatal(err)
		}
	}
	o := w.start(4, nil, options{})
	eventually(t, "the observer has all", func() bool { return o.text.has("39" + large) })
	if s := o.quorum.Status(); s.Role != quorum.Observer {
		t.Error(s.Role)
	}
	source, err := o.transport.chooseSource()
	if err != nil {
		t.Fatal(err)
	}
	nodes[source-1].kill()
	rest := append(append([]*node(nil), nodes[:source-1]...), nodes[source:]...)
	eventually(t, "the rest goes on", func() bool { return leader(t, rest...).propose("after") == nil })
	eventually(t, "the observer follows another member", func() bool { return o.text.has("after") })
}

// TestNodeThatIsBehind proves that a voter whose metadata do not have the others' ids of raft, since it was
// down when they joined, is led by them all the same: it learns the ids from who sends with them. Without
// them it could not answer its leader.
func TestNodeThatIsBehind(t *testing.T) {
	w := newWorld(t)
	nodes := []*node{w.start(1, nil, options{founds: true})}
	w.register(nodes[0])
	for id := int32(2); id <= 3; id++ {
		nodes = append(nodes, w.start(id, nil, options{}))
		w.register(nodes[id-1])
	}
	promote(t, nodes[0], nodes...)
	nodes[0].kill()
	if err := leader(t, nodes[1:]...).propose("line"); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.behind = 1
	w.mu.Unlock()
	again := w.start(1, nodes[0].disk, options{})
	eventually(t, "it has what was proposed while it was down", func() bool { return again.text.has("line") })
	lead := leader(t, again, nodes[1], nodes[2])
	if err := lead.propose("more"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it follows", func() bool { return again.text.has("more") })
}

// TestOnlyNodesReachTheQuorum proves that no message of the quorum is served to those who have not
// proven to be nodes, that a node cannot speak for another one, and that frames which no node sends end
// the connection.
func TestOnlyNodesReachTheQuorum(t *testing.T) {
	w := newWorld(t)
	n := w.start(1, nil, options{founds: true})
	w.register(n)
	w.addKey(2)
	w.addKey(3)
	const ofTwo = 0x22
	w.raftIDs[ofTwo] = 2
	for _, h := range n.transport.Handlers() {
		c := rawConn(t, n.listener.Addr().String())
		c.Write(frame(h.Key, make([]byte, pullSize)))
		if !isClosedWithout(c) {
			t.Errorf("%s is served to anybody", peer.NameOf(h.Key))
		}
	}
	links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: func(to int32) (peer.Target, error) { return w.find(3, to) }})
	defer links.Close()
	pull := func(observer uint64) []byte {
		b := binary.BigEndian.AppendUint64(nil, observer)
		return append(b, make([]byte, 24)...)
	}
	message := func(from uint64) []byte { // version, cluster, type, flags, to, from
		m := append([]byte{1, 1, 'c', 0, 0}, make([]byte, 8)...)
		m = binary.LittleEndian.AppendUint64(m, from)
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...)
	}
	for name, c := range map[string]struct {
		key  int16
		body []byte
	}{
		"a pull for another node":    {peer.PullMetadata, pull(ofTwo)},
		"a pull that is too short":   {peer.PullMetadata, pull(ofTwo)[1:]},
		"a message of another node":  {peer.QuorumMessages, message(ofTwo)},
		"a message that is cut":      {peer.QuorumMessages, message(0x33)[:7]},
		"a size that is cut":         {peer.QuorumMessages, []byte{0, 0}},
		"a request for a part, long": {peer.MetadataSnapshot, make([]byte, partSize+1)},
	} {
		conn, err := links.Get(t.Context(), 1, peer.Commands)
		if err != nil {
			t.Fatal(err)
		}
		if peer.IsOneWay(c.key) {
			err = conn.Send(c.key, c.body)
		} else {
			_, err = conn.Call(t.Context(), c.key, c.body)
			if !errors.Is(err, peer.ErrClosedByPeer) {
				t.Errorf("%s: %v", name, err)
			}
		}
		select {
		case <-conn.Done():
		case <-t.Context().Done():
			t.Errorf("%s does not end the connection: %v", name, err)
		}
	}
	conn, err := links.Get(t.Context(), 1, peer.Commands)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(peer.QuorumMessages, message(0x33)); err != nil {
		t.Error(err)
	}
	answer, err := conn.Call(t.Context(), peer.PullMetadata, pull(0x33))
	if err == nil {
		_, err = splitAnswer(answer)
	}
	if err != nil {
		t.Error("a pull of a node:", err)
	}
	answer, err = conn.Call(t.Context(), peer.MetadataSnapshot, make([]byte, partSize))
	if err == nil {
		_, err = splitAnswer(answer)
	}
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), errOtherRaft.Error()) {
		t.Error("a part of another one's snapshot:", err)
	}
}

// TestTooManyPulls proves that a node refuses pulls beyond its bound, and serves others when those have
// ended, and that Close answers those that wait.
func TestTooManyPulls(t *testing.T) {
	w := newWorld(t)
	n := w.start(1, nil, options{founds: true})
	w.register(n)
	w.addKey(2)
	n.transport.work.most = 2
	links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: func(to int32) (peer.Target, error) { return w.find(2, to) }})
	defer links.Close()
	body := binary.BigEndian.AppendUint64(nil, 0x22)
	body = binary.BigEndian.AppendUint64(body, n.quorum.Status().Commit+1)
	body = append(body, make([]byte, 16)...)
	pulls := make(chan error, 3)
	for i := range 3 {
		conn, err := links.Get(t.Context(), 1, peer.Fetcher(i))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			answer, err := conn.Call(t.Context(), peer.PullMetadata, body)
			if err == nil {
				_, err = splitAnswer(answer)
			}
			pulls <- err
		}()
		if i < 2 {
			eventually(t, "the pull waits", func() bool {
				n.transport.work.mu.Lock()
				defer n.transport.work.mu.Unlock()
				return n.transport.work.count == i+1
			})
		}
	}
	if err := <-pulls; !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	n.transport.Close()
	for range 2 {
		if err := <-pulls; !errors.Is(err, errNothing) {
			t.Error(err)
		}
	}
}

// TestPullOfACutOffMember proves that a member which has lost its leader does not keep an observer
// waiting.
func TestPullOfACutOffMember(t *testing.T) {
	w := newWorld(t)
	nodes := []*node{w.start(1, nil, options{founds: true})}
	w.register(nodes[0])
	for id := int32(2); id <= 3; id++ {
		nodes = append(nodes, w.start(id, nil, options{}))
		w.register(nodes[id-1])
	}
	promote(t, nodes[0], nodes...)
	nodes[1].kill()
	nodes[2].kill()
	eventually(t, "the member that is left leads no more", func() bool { return nodes[0].quorum.Status().LeaderRaftID == 0 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := awaitEntries(ctx, nodes[0].quorum, quorum.Pull{Observer: 0x44, From: nodes[0].quorum.Status().Commit + 1})
	if !errors.Is(err, quorum.ErrNotMember) {
		t.Error(err)
	}
}
