package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// keeper is a member with replicas.
type keeper struct {
	*member
	replicas *Replicas
	set      *replica.Set
}

// addReplicas gives a member a store and a Set. It follows the metadata from follow on.
func (k *keeper) addReplicas(ctx context.Context, m *member) []peer.Handler {
	k.member = m
	m.work = budget.New(budget.Config{Bytes: budget.MinBytes, Processors: 1})
	static, err := config.NewStatic(m.id, nil)
	if err != nil {
		m.w.t.Fatal(err)
	}
	store, err := storage.Open(storage.Config{FS: m.disk, Dir: "data", Logger: m.w.log, Scrub: -1, Reserve: 1 << 16, Journal: 1 << 20})
	if err != nil {
		m.w.t.Fatal(err)
	}
	k.replicas = NewReplicas(ctx, ReplicasConfig{NodeID: m.id, Links: m.links, Controller: m.ctl, BrokerEpoch: m.epoch.Load})
	k.set = replica.NewSet(replica.Config{NodeID: m.id, Store: store, Static: static, Transport: k.replicas, Logger: m.w.log.With("node", m.id)})
	k.replicas.Attach(k.set)
	stop := make(chan struct{})
	ticking := make(chan struct{})
	go func() {
		defer close(ticking)
		for t := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-t.C:
				k.set.Expire(k.set.Now())
			case <-stop:
				t.Stop()
				return
			}
		}
	}()
	m.closers = append(m.closers, func() {
		if err := store.Close(); err != nil {
			m.w.t.Error(err)
		}
		if u := m.work.Usage(budget.Peer); u.Used != 0 || u.Waiting != 0 {
			m.w.t.Errorf("work memory for the requests of other nodes at the end of node %d: %+v", m.id, u)
		}
	}, k.set.Close, func() {
		m.meta.setFollow(func(*meta.Delta, *meta.Image) {})
		close(stop)
		<-ticking
	}, k.replicas.Close)
	return k.replicas.Handlers()
}

// startKeeper starts a member with replicas on a disk; nil: a new one.
func (w *world) startKeeper(id int32, disk *vfs.Mem) *keeper {
	w.t.Helper()
	k := new(keeper)
	m := w.startMember(id, disk, options{founds: id == 1}, func(m *member, ctx context.Context) []peer.Handler { return k.addReplicas(ctx, m) })
	if id == 1 && disk == nil {
		if err := m.local.Bootstrap(context.Background(), "AAAAAAAAAAAAAAAAAAAAAA"); err != nil {
			w.t.Fatal(err)
		}
	}
	m.join()
	m.meta.setFollow(k.set.Apply)
	return k
}

// makeTopic has the active controller make a topic.
func (k *keeper) makeTopic(topic controller.NewTopic) {
	k.w.t.Helper()
	made, err := k.local.CreateTopics(context.Background(), []controller.NewTopic{topic}, false)
	if err == nil && made[0].Err != nil {
		err = made[0].Err
	}
	if err != nil {
		k.w.t.Fatal(err)
	}
}

// append appends a record to a partition that this node leads. The channel gets the end of the wait for
// all replicas that are in sync.
func (k *keeper) append(topic string, partition int32, value []byte) (<-chan error, error) {
	p := k.set.Partition(topic, partition)
	if p == nil {
		return nil, errors.New("the partition is not here")
	}
	var b record.Builder
	b.Append(1, nil, value)
	batch, err := b.Build()
	if err != nil {
		return nil, err
	}
	epoch := p.Leadership().Epoch
	next, err := p.AppendBatch(batch, epoch)
	if err != nil {
		return nil, err
	}
	end := make(chan error, 1)
	p.Commit()
	p.Await(epoch, next, time.Minute, func(err error) { end <- err })
	return end, nil
}

// mustAppend appends values, and waits until they are committed.
func (k *keeper) mustAppend(topic string, partition int32, values ...[]byte) {
	k.w.t.Helper()
	var ends []<-chan error
	for _, v := range values {
		end, err := k.append(topic, partition, v)
		if err != nil {
			k.w.t.Fatal(err)
		}
		ends = append(ends, end)
	}
	for _, end := range ends {
		if err := <-end; err != nil {
			k.w.t.Fatal(err)
		}
	}
}

// values are the values of the records that a node's replica has.
func (k *keeper) values(topic string, partition int32) (list [][]byte) {
	p := k.set.Partition(topic, partition)
	if p == nil {
		return nil
	}
	end, err := p.End()
	if err != nil {
		return nil
	}
	for off := record.Offset(0); off < end; {
		b, err := p.ReadBatches(off, end, 1<<20)
		if err != nil || len(b) == 0 {
			return nil
		}
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				k.w.t.Fatal(err)
			}
			var r record.Reader
			for r.Reset(one, 64<<20); r.Next(); {
				list = append(list, bytes.Clone(r.Record.Value))
			}
			r.Close()
			off, b = one.NextOffset(), rest
		}
	}
	return list
}

// TestReplicasOverSockets proves that Sets replicate over sockets: what is committed is on all three
// nodes, in small records and in one that is larger than a fetch asks for; when a follower's node ends it
// leaves the in-sync set, and commits go on; and when it is back it catches up and joins again.
func TestReplicasOverSockets(t *testing.T) {
	w := newWorld(t)
	all := []*keeper{w.startKeeper(1, nil)}
	for id := int32(2); id <= 3; id++ {
		all = append(all, w.startKeeper(id, nil))
	}
	lead, three := all[0], all[2]
	lead.makeTopic(controller.NewTopic{Name: "t", Partitions: -1, ReplicationFactor: -1, Assignments: []controller.Assignment{
		{Partition: 0, Replicas: []int32{1, 2, 3}}, {Partition: 1, Replicas: []int32{2, 3, 1}},
	}, Configs: map[string]*string{"min.insync.replicas": new("2"), "max.message.bytes": new("30000000")}})
	partition := func(n int) *meta.Partition { return &lead.meta.image.Load().Topic("t").Partitions[n] }
	eventually(t, "the leaders are there", func() bool {
		a, b := all[0].set.Partition("t", 0), all[1].set.Partition("t", 1)
		return a != nil && b != nil && a.Leadership().Leader == 1 && b.Leadership().Leader == 2
	})
	large := make([]byte, 24<<20)
	for i := range large { // so that it is not compressed
		large[i] = byte(rand.Uint32())
	}
	var want [2][][]byte
	for n := range want {
		for i := range 100 {
			want[n] = append(want[n], fmt.Appendf(nil, "%d of %d", i, n))
		}
		want[n] = append(want[n], large)
		all[n].mustAppend("t", int32(n), want[n]...)
	}
	isEqual := func(k *keeper) bool {
		for n := range want {
			if !slices.EqualFunc(k.values("t", int32(n)), want[n], bytes.Equal) {
				return false
			}
		}
		return true
	}
	for _, k := range all {
		if !isEqual(k) { // it is committed, so nobody has to wait
			t.Errorf("node %d does not have what is committed", k.id)
		}
	}
	if lead.work.TakePeak(budget.Peer) == 0 {
		t.Error("the requests of followers have reserved no memory")
	}
	lead.ctl.KeepLinks()
	lead.links.Get(t.Context(), 3, peer.Commands)
	three.beat(t.Context())
	three.kill()
	eventually(t, "node 3 is fenced", func() bool {
		if err := lead.local.Tick(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		return !slices.Contains(partition(0).ISR, 3) && !slices.Contains(partition(1).ISR, 3)
	})
	for n := range want {
		more := []byte("while it was down")
		want[n] = append(want[n], more)
		all[n].mustAppend("t", int32(n), more)
	}
	three = w.startKeeper(3, three.disk)
	eventually(t, "node 3 is in sync again", func() bool { return slices.Contains(partition(0).ISR, 3) && slices.Contains(partition(1).ISR, 3) })
	if !isEqual(three) {
		t.Error("node 3 is in sync and does not have all")
	}
}

// TestFetchesThatWait proves that a leader's connection is read while a fetch on it waits: another session
// of the same follower ends the wait. It proves too that Close answers fetches that wait, and that a node
// that has ended them refuses others.
func TestFetchesThatWait(t *testing.T) {
	w := newWorld(t)
	one, two := w.startKeeper(1, nil), w.startKeeper(2, nil)
	fetch := &replica.FetchRequest{Replica: 2, BrokerEpoch: two.epoch.Load(), MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1, PartitionBytes: 1}
	conn, err := two.links.Get(t.Context(), 1, peer.Fetcher(forRecords))
	if err != nil {
		t.Fatal(err)
	}
	begin := func() <-chan error {
		end := make(chan error, 1)
		go func() {
			answer, err := conn.Call(t.Context(), peer.ReplicaFetch, encodeFetch(fetch))
			if err == nil {
				_, err = splitAnswer(answer)
			}
			end <- err
		}()
		return end
	}
	first := begin()
	eventually(t, "the fetch waits", func() bool {
		one.replicas.work.mu.Lock()
		defer one.replicas.work.mu.Unlock()
		return one.replicas.work.count == 1
	})
	second := begin()
	if err := <-first; !errors.Is(err, replica.ErrSessionLost) {
		t.Error("the first fetch:", err)
	}
	one.replicas.Close()
	if err := <-second; err != nil {
		t.Error("the second fetch:", err)
	}
	if _, err := two.replicas.Fetch(t.Context(), 1, fetch); !errors.Is(err, ErrBusy) {
		t.Error("after the end:", err)
	}
}

// endless is a section of an answer, of zeros.
type endless int

func (endless) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func (e endless) Len() int { return int(e) }

func (endless) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

func (endless) Release() {}

// TestAnswersAreBounded proves that a follower takes an answer with as many bytes as it has asked for and one
// batch, and no larger one, whatever the leader announces.
func TestAnswersAreBounded(t *testing.T) {
	q := &replica.FetchRequest{Replica: 1, MaxBytes: 1 << 20}
	plain := largestAnswer(q)
	if plain < 101<<20 || plain > 102<<20 {
		t.Errorf("%d bytes for 1 MiB", plain)
	}
	q.LargestBatch = 200 << 20
	if got := largestAnswer(q); got != plain+100<<20 {
		t.Errorf("%d bytes where a batch of 200 MiB is allowed", got)
	}
	q.LargestBatch = 0
	w := newWorld(t)
	one := w.startKeeper(1, nil)
	w.startMember(2, nil, options{}, func(*member, context.Context) []peer.Handler {
		return []peer.Handler{{Key: peer.ReplicaFetch, From: peer.Nodes, Serve: func(_ *peer.Identity, r *wire.Request) error {
			p := r.Begin()
			p.B = append(p.B, byte(statusDone))
			p.Attach(endless(plain))
			r.Send(p)
			return nil
		}}}
	})
	if _, err := one.replicas.Fetch(t.Context(), 2, q); !errors.Is(err, peer.ErrTooLarge) {
		t.Error(err)
	}
}

// TestReplicasSpeakForThemselves proves that nobody without proof is served, that a node cannot fetch,
// report or propose for another one, and that what cannot be read ends the connection.
func TestReplicasSpeakForThemselves(t *testing.T) {
	w := newWorld(t)
	one := w.startKeeper(1, nil)
	for _, h := range one.replicas.Handlers() {
		c := rawConn(t, one.listener.Addr().String())
		c.Write(frame(h.Key, encodeDurable(&replica.Reports{Replica: 1})))
		if !isClosedWithout(c) {
			t.Errorf("%s is served to anybody", peer.NameOf(h.Key))
		}
	}
	w.addKey(2)
	links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: func(to int32) (peer.Target, error) { return w.find(2, to) }})
	defer links.Close()
	for name, c := range map[string]struct {
		key  int16
		body []byte
	}{
		"a fetch for another node":     {peer.ReplicaFetch, encodeFetch(&replica.FetchRequest{Replica: 1})},
		"reports for another node":     {peer.DurableEnds, encodeDurable(&replica.Reports{Replica: 1})},
		"proposals for another node":   {peer.AlterInSync, (&proposals{broker: 1}).encode()},
		"a fetch that is cut":          {peer.ReplicaFetch, encodeFetch(&replica.FetchRequest{Replica: 2})[1:]},
		"reports with more behind":     {peer.DurableEnds, append(encodeDurable(&replica.Reports{Replica: 2}), 0)},
		"proposals that promise more":  {peer.AlterInSync, binary.BigEndian.AppendUint32((&proposals{broker: 2}).encode()[:12], 1<<31)},
		"a fetch with negative ends":   {peer.ReplicaFetch, encodeFetch(&replica.FetchRequest{Replica: 2, Partitions: []replica.PartitionFetch{{Offset: -1}}})},
		"a fetch of too many":          {peer.ReplicaFetch, encodeFetch(&replica.FetchRequest{Replica: 2, Partitions: make([]replica.PartitionFetch, replica.MaxNamed+1)})},
		"too many proposals":           {peer.AlterInSync, (&proposals{broker: 2, changes: make([]replica.InSyncChange, replica.MaxNamed+1)}).encode()},
		"a fetch of partition minus 1": {peer.ReplicaFetch, encodeFetch(&replica.FetchRequest{Replica: 2, Forgotten: []replica.PartitionID{{Partition: -1}}})},
	} {
		conn, err := links.Get(t.Context(), 1, peer.Commands)
		if err != nil {
			t.Fatal(err)
		}
		if peer.IsOneWay(c.key) {
			err = conn.Send(c.key, c.body)
		} else if _, err := conn.Call(t.Context(), c.key, c.body); !errors.Is(err, peer.ErrClosedByPeer) {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-conn.Done():
		case <-t.Context().Done():
			t.Errorf("%s does not end the connection: %v", name, err)
		}
	}
}

// TestProposalsFindTheController proves that a leader's proposal is decided by the active controller, from
// a node that is no member of the quorum and from one that is, and by the next controller after the
// active one has ended.
func TestProposalsFindTheController(t *testing.T) {
	w := newWorld(t)
	ends := map[int32]*Replicas{}
	all := w.startMembers(4, 3, func(m *member, ctx context.Context) []peer.Handler {
		r := NewReplicas(ctx, ReplicasConfig{NodeID: m.id, Links: m.links, Controller: m.ctl, BrokerEpoch: m.epoch.Load})
		ends[m.id] = r
		m.closers = append(m.closers, r.Close)
		return r.Handlers()
	})
	lead := leading(t, all)
	var assigned []controller.Assignment
	rest := without(all, lead)
	for i, m := range rest { // each leads a partition, which the controller's node follows
		assigned = append(assigned, controller.Assignment{Partition: int32(i), Replicas: []int32{m.id, lead.id}})
	}
	made, err := lead.local.CreateTopics(t.Context(), []controller.NewTopic{{Name: "t", Partitions: -1, ReplicationFactor: -1, Assignments: assigned}}, false)
	if err != nil || made[0].Err != nil {
		t.Fatal(err, made[0].Err)
	}
	// propose has a member propose itself alone, and tells whether the metadata have that afterwards.
	alive := all
	propose := func(m *member, number int) bool {
		topic := m.meta.image.Load().Topic("t")
		if topic == nil {
			return false
		}
		p := &topic.Partitions[number]
		if err := ends[m.id].AlterInSync(t.Context(), []replica.InSyncChange{{
			ID: replica.PartitionID{Topic: topic.ID, Partition: int32(number)}, Epoch: record.Epoch(p.LeaderEpoch), PartitionEpoch: p.PartitionEpoch,
			ISR: []replica.InSyncMember{{ID: m.id, BrokerEpoch: m.epoch.Load()}},
		}}); err != nil {
			return false
		}
		now := &leading(t, alive).meta.image.Load().Topic("t").Partitions[number]
		return now.PartitionEpoch > p.PartitionEpoch && slices.Equal(now.ISR, []int32{m.id})
	}
	proposeAll := func() {
		t.Helper()
		for i, m := range rest {
			eventually(t, fmt.Sprintf("a proposal of node %d is accepted", m.id), func() bool { return propose(m, i) })
		}
	}
	proposeAll()
	lead.kill()
	alive = rest
	proposeAll()
}

// TestReportsOvertakeFetches proves that the report of a durable end reaches the leader, and commits, while
// a fetch of the same follower waits there for a minute: the fetch ends since the high watermark has moved.
func TestReportsOvertakeFetches(t *testing.T) {
	w := newWorld(t)
	one := w.startKeeper(1, nil)
	var two *Replicas
	follower := w.startMember(2, nil, options{}, func(m *member, ctx context.Context) []peer.Handler {
		two = NewReplicas(ctx, ReplicasConfig{NodeID: m.id, Links: m.links, Controller: m.ctl, BrokerEpoch: m.epoch.Load})
		m.closers = append(m.closers, two.Close)
		return two.Handlers()
	})
	follower.join()
	one.makeTopic(controller.NewTopic{Name: "t", Partitions: -1, ReplicationFactor: -1, Assignments: []controller.Assignment{{Replicas: []int32{1, 2}}}})
	eventually(t, "the leader is there", func() bool { p := one.set.Partition("t", 0); return p != nil && p.CheckLeader(record.NoEpoch) == nil })
	p := one.set.Partition("t", 0)
	id := replica.PartitionID{Topic: p.Topic().ID}
	session, number := uint64(0), uint32(0)
	fetch := func(offset record.Offset, last record.Epoch) (*replica.PartitionAnswer, error) {
		l := p.Leadership()
		a, err := two.Fetch(t.Context(), 1, &replica.FetchRequest{
			Replica: 2, BrokerEpoch: follower.epoch.Load(), Session: session, Number: number, MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1 << 20, PartitionBytes: 1 << 20,
			Partitions: []replica.PartitionFetch{{ID: id, Epoch: l.Epoch, Assigned: l.PartitionEpoch, Offset: offset, LastEpoch: last}},
		})
		if err != nil {
			return nil, err
		}
		defer a.Release()
		session, number = a.Session, number+1
		if len(a.Partitions) != 1 || a.Partitions[0].Verdict != progress.Served {
			return nil, fmt.Errorf("the answer is %+v", a.Partitions)
		}
		return &a.Partitions[0], nil
	}
	if _, err := fetch(0, record.NoEpoch); err != nil { // the first fetch of an epoch is answered at once
		t.Fatal(err)
	}
	committed, err := one.append("t", 0, []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	epoch := p.Leadership().Epoch
	if a, err := fetch(0, record.NoEpoch); err != nil || a.To == a.From {
		t.Fatal(a, err)
	}
	parked := make(chan error, 1)
	go func() {
		a, err := fetch(1, epoch)
		if err == nil && a.HighWatermark != 1 {
			err = fmt.Errorf("the fetch ends with the high watermark %d", a.HighWatermark)
		}
		parked <- err
	}()
	eventually(t, "the fetch waits", func() bool {
		one.replicas.work.mu.Lock()
		defer one.replicas.work.mu.Unlock()
		return one.replicas.work.count == 1
	})
	report := &replica.Reports{Replica: 2, BrokerEpoch: follower.epoch.Load(), Partitions: []replica.PartitionReport{
		{ID: id, Epoch: epoch, Assigned: p.Leadership().PartitionEpoch, Durable: 1},
	}}
	if err := two.Report(t.Context(), 1, report); err != nil {
		t.Fatal(err)
	}
	if err := <-committed; err != nil {
		t.Error("the record is not committed:", err)
	}
	if err := <-parked; err != nil {
		t.Error(err)
	}
}

// TestProposalsAreRefused proves that the refusal of proposals is told.
func TestProposalsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.startKeeper(1, nil)
	two := w.startKeeper(2, nil)
	two.epoch.Add(1)
	err := two.replicas.AlterInSync(t.Context(), []replica.InSyncChange{{ID: replica.PartitionID{Topic: [16]byte{1}}}})
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "Expected broker epoch") {
		t.Error(err)
	}
}

// fullFetch is a request with all that one can have.
func fullFetch() *replica.FetchRequest {
	id := func(n byte) replica.PartitionID { return replica.PartitionID{Topic: [16]byte{n}, Partition: int32(n)} }
	return &replica.FetchRequest{
		Replica: 1, BrokerEpoch: 2, Session: 1 << 63, Number: 4, IsFull: true, MaxWait: 500 * time.Millisecond, MinBytes: 5, MaxBytes: 6, PartitionBytes: 7,
		Forgotten: []replica.PartitionID{id(8), id(9)},
		Partitions: []replica.PartitionFetch{
			{ID: id(10), Epoch: 11, Assigned: 12, Offset: 13, LastEpoch: record.NoEpoch, Start: 14, Durable: 15},
			{ID: id(16), Epoch: 17, Assigned: 18, Offset: 19, LastEpoch: 20, Start: 21, Durable: 22, CannotStore: true, IsDamaged: true},
		},
		Reports: []replica.PartitionReport{{ID: id(23), Epoch: 24, Assigned: 25, Durable: 26}},
	}
}

func fullAnswer() *replica.FetchAnswer {
	return &replica.FetchAnswer{
		Session: 1 << 63,
		Partitions: []replica.PartitionAnswer{
			{ID: replica.PartitionID{Topic: [16]byte{1}, Partition: 2}, Verdict: progress.Served, HighWatermark: 5, Start: 6, End: 7, To: 3},
			{Verdict: progress.Diverged, DivergingEpoch: 3, DivergingEnd: 4, From: 3, To: 3},
			{Verdict: progress.Unavailable, DivergingEpoch: record.NoEpoch, DivergingEnd: -1, From: 3, To: 7},
		},
		Buffer: []byte("records"),
	}
}

func fullProposals() *proposals {
	return &proposals{1, 2, []replica.InSyncChange{
		{ID: replica.PartitionID{Topic: [16]byte{3}, Partition: 4}, Epoch: 5, PartitionEpoch: 6, ISR: []replica.InSyncMember{{ID: 7, BrokerEpoch: 8}, {ID: 9}}},
		{Epoch: 10, GivesUp: true, Successor: 11, Damaged: []int32{12, 13}},
	}}
}

// TestReplicaCodec proves that messages are decoded as they were encoded, and that one of which a byte is
// missing or too many is refused. The last verdict is the one that the codec takes for it.
func TestReplicaCodec(t *testing.T) {
	if progress.Rebuild != lastVerdict {
		t.Errorf("the last verdict is %d, and the codec reads up to %d", progress.Rebuild, lastVerdict)
	}
	sound := fullFetch()
	sound.IsFull, sound.Partitions[1].CannotStore, sound.Partitions[1].IsDamaged = false, false, false
	checkCodec(t, fullFetch(), encodeFetch(fullFetch()), len(encodeFetch(sound)), decodeFetch)
	reports := &replica.Reports{Replica: 1, BrokerEpoch: 2, Partitions: fullFetch().Reports}
	checkCodec(t, reports, encodeDurable(reports), -1, decodeDurable)
	keeps := fullProposals()
	keeps.changes[1].GivesUp, keeps.changes[1].Damaged = false, nil
	checkCodec(t, fullProposals(), fullProposals().encode(), len(keeps.encode()), decodeProposals, cmp.AllowUnexported(proposals{}))
	want := fullAnswer()
	b := append(appendAnswer(nil, want), want.Buffer...)
	got := &replica.FetchAnswer{Partitions: make([]replica.PartitionAnswer, 10)}
	if err := decodeAnswer(b, got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for i := range b {
		if err := decodeAnswer(b[:i], got); !errors.Is(err, errAnswer) {
			t.Errorf("an answer that is cut at %d: %v", i, err)
		}
	}
	for name, p := range map[string]replica.PartitionAnswer{
		"an unknown verdict":    {Verdict: lastVerdict + 1},
		"a negative watermark":  {HighWatermark: -1},
		"records that end late": {To: 8},
		"from after to":         {From: 2, To: 1},
	} {
		a := fullAnswer()
		a.Partitions[1] = p
		if err := decodeAnswer(append(appendAnswer(nil, a), a.Buffer...), got); !errors.Is(err, errAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// checkCodec checks a message, of which the part from optional on may be missing.
func checkCodec[T any](t *testing.T, want *T, b []byte, optional int, decode func(b []byte) (*T, error), opts ...cmp.Option) {
	t.Helper()
	got, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, append(opts, cmpopts.EquateEmpty())...); d != "" {
		t.Error(d)
	}
	for i := range b {
		if got, err := decode(b[:i]); i != optional && !errors.Is(err, errRequest) || i == optional && err != nil {
			t.Errorf("cut at %d: %+v, %v", i, got, err)
		}
	}
	if _, err := decode(append(b, 0)); !errors.Is(err, errRequest) {
		t.Errorf("a byte more: %v", err)
	}
}

// TestMemoryOfAnswers proves that the memory of an answer is used again for the next one of the same
// leader, that a large one is given up when only small answers come, and that nobody has it twice.
func TestMemoryOfAnswers(t *testing.T) {
	var m fetchMemory
	first := m.take(1)
	first.buffer = make([]byte, 1<<20)
	other := m.take(1)
	if other == first || m.take(2) == first {
		t.Fatal("an answer that is in use is used again")
	}
	m.put(1, first)
	for i := range fewAnswers {
		a := m.take(1)
		if a != first || cap(a.buffer) == 0 {
			t.Fatalf("after %d small answers the memory is gone", i)
		}
		a.buffer = a.buffer[:10]
		m.put(1, a)
	}
	if a := m.take(1); a != first || a.buffer != nil {
		t.Errorf("after %d small answers %d bytes are kept", fewAnswers, cap(a.buffer))
	}
}

// FuzzReplicaCodec proves that no bytes make the decoders panic or take much memory, and that what they
// read is the same when it is encoded and read again.
func FuzzReplicaCodec(f *testing.F) {
	f.Add(encodeFetch(fullFetch()))
	f.Add(encodeDurable(&replica.Reports{Replica: 1, Partitions: fullFetch().Reports}))
	f.Add(fullProposals().encode())
	f.Add(append(appendAnswer(nil, fullAnswer()), fullAnswer().Buffer...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeFetch(b); err == nil {
			again, err := decodeFetch(encodeFetch(q))
			if d := cmp.Diff(q, again); err != nil || d != "" {
				t.Error(err, d)
			}
		}
		if q, err := decodeDurable(b); err == nil {
			again, err := decodeDurable(encodeDurable(q))
			if d := cmp.Diff(q, again); err != nil || d != "" {
				t.Error(err, d)
			}
		}
		if q, err := decodeProposals(b); err == nil {
			again, err := decodeProposals(q.encode())
			if d := cmp.Diff(q, again, cmp.AllowUnexported(proposals{})); err != nil || d != "" {
				t.Error(err, d)
			}
		}
		var a, again replica.FetchAnswer
		if err := decodeAnswer(b, &a); err == nil {
			err := decodeAnswer(append(appendAnswer(nil, &a), a.Buffer...), &again)
			if d := cmp.Diff(a, again); err != nil || d != "" {
				t.Error(err, d)
			}
		}
	})
}
