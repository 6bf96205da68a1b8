package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// mirrored is a record of the source, and its epoch there.
type mirrored struct {
	epoch record.Epoch
	value string
}

// mirroredBatches are records from an offset on as the source sends them, each in a batch of its own.
func mirroredBatches(tb testing.TB, at record.Offset, records ...mirrored) (all []byte) {
	tb.Helper()
	for i, r := range records {
		b := oneRecord(tb, r.value)
		b.SetBaseOffset(at + record.Offset(i))
		b.SetLeaderEpoch(r.epoch)
		all = append(all, b...)
	}
	return all
}

// becomeMirror has the controller make a mirror of a topic.
func (c *cluster) becomeMirror(topic string) {
	link := meta.Link{ID: meta.UUID{1}, Name: "north", Source: "the-source"}
	img, _ := c.snapshot()
	id := img.Topic(topic).ID
	c.write(meta.FeatureSet{Name: meta.LevelFeature, Level: meta.LevelLinks})
	c.write(meta.LinkSet{Link: link}, meta.MirrorSet{Topic: id, Mirror: &meta.Mirror{
		Link: link.ID, Topic: topic, Path: []string{link.Source}, State: meta.MirrorActive,
	}})
	c.changeMirror(topic, func(m *meta.PartitionMirror) { m.State = meta.PartitionMirrors })
}

// mirror makes a topic with one partition that mirrors, whose replicas are on the given nodes. The first one leads.
func (c *cluster) mirror(topic string, replicas ...int32) {
	c.topic(topic, replicas...)
	c.becomeMirror(topic)
}

// changeMirror has the controller change what the partition of a topic mirrors, in a new leader epoch.
func (c *cluster) changeMirror(topic string, change func(m *meta.PartitionMirror)) {
	c.changeMirrorIn(topic, -1, change)
}

// changeMirrorIn is changeMirror if a leader epoch is the present one; -1: whatever that is.
func (c *cluster) changeMirrorIn(topic string, epoch record.Epoch, change func(m *meta.PartitionMirror)) (isChanged bool) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		t := r.Image.Topic(topic)
		p := t.Partitions[0]
		if epoch >= 0 && p.LeaderEpoch != int32(epoch) {
			return nil, false
		}
		isChanged = true
		var m meta.PartitionMirror
		if p.Mirror != nil {
			m = *p.Mirror
		}
		change(&m)
		entry := followState(t, m.State)
		return meta.Append(meta.Append(entry, meta.PartitionChanged{
			Topic: t.ID, ISR: p.ISR, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch + 1, PartitionEpoch: p.PartitionEpoch + 1,
			Eligible: p.Eligible, LastEligible: p.LastEligible,
		}), meta.PartitionMirrorSet{Topic: t.ID, PartitionMirror: m}), false
	})
	return isChanged
}

// followState has a topic be in a state in which its only partition can come to its own.
func followState(t *meta.Topic, of meta.PartitionMirrorState) []byte {
	m := *t.Mirror
	switch isPromoted := of == meta.PartitionPromoting || of == meta.PartitionPromoted; {
	case isPromoted && m.State == meta.MirrorActive:
		m.State = meta.MirrorPromoting
	case !isPromoted && m.State != meta.MirrorActive:
		m.State = meta.MirrorActive
	default:
		return nil
	}
	return meta.Append(nil, meta.MirrorSet{Topic: t.ID, Mirror: &m})
}

// cutAt has the controller cut the partition of a topic.
func (c *cluster) cutAt(topic string, to record.Offset) {
	c.changeMirror(topic, func(m *meta.PartitionMirror) { *m = *m.WithCut(int64(to)) })
}

// raiseEpoch has the controller raise the leader epoch of a topic's partition.
func (c *cluster) raiseEpoch(topic string, to int32) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		t := r.Image.Topic(topic)
		p := t.Partitions[0]
		return meta.Append(nil, meta.PartitionChanged{
			Topic: t.ID, ISR: p.ISR, Leader: p.Leader, LeaderEpoch: to, PartitionEpoch: p.PartitionEpoch + 1,
			Eligible: p.Eligible, LastEligible: p.LastEligible,
		}), false
	})
}

// mirrorTo has the leader of a topic append records of the source at its end, in the newest leadership that it knows, and commit them.
func (c *cluster) mirrorTo(topic string, records ...mirrored) error {
	c.t.Helper()
	m := c.leader(topic)
	if m == nil {
		return ErrNotLeader
	}
	return m.mirrorTo(topic, records...)
}

func (m *member) mirrorTo(topic string, records ...mirrored) error {
	p := m.replica(topic)
	if p == nil {
		return ErrNotLeader
	}
	l := p.Leadership()
	end, err := p.End()
	if err == nil {
		err = p.AppendMirror(l, mirroredBatches(m.c.t, end, records...))
	}
	p.Commit()
	return err
}

func (c *cluster) mustMirror(topic string, records ...mirrored) {
	c.t.Helper()
	if err := c.mirrorTo(topic, records...); err != nil {
		c.t.Fatalf("%v: %v\n%s", records, err, c.describe())
	}
}

// in are records of one epoch.
func in(e record.Epoch, values ...string) (list []mirrored) {
	for _, v := range values {
		list = append(list, mirrored{e, v})
	}
	return list
}

// epochsOf lists the epochs that the log of a node's replica has for its records.
func (m *member) epochsOf(topic string) (list []record.Epoch) {
	p := m.replica(topic)
	end, err := p.End()
	if err != nil {
		m.c.t.Fatal(err)
	}
	for o := p.Start(); o < end; o++ {
		list = append(list, p.log.Load().EpochAt(o))
	}
	return list
}

// tailsOf reads the values in the tails of a node's replica, by cut.
func (m *member) tailsOf(topic string) map[int32][]string {
	m.c.t.Helper()
	list, err := Tails(m.replica(topic))
	if err != nil {
		m.c.t.Fatal(err)
	}
	found := map[int32][]string{}
	for _, tail := range list {
		r, err := OpenTail(m.replica(topic), tail.Number)
		if err != nil {
			m.c.t.Fatal(err)
		}
		for {
			b, err := r.Next(m.c.t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				m.c.t.Fatal(err)
			}
			var records record.Reader
			for records.Reset(b, 1<<20); records.Next(); {
				found[tail.Number] = append(found[tail.Number], string(records.Record.Value))
			}
			records.Close()
		}
		r.Close()
	}
	return found
}

// awaitNewestLeader waits until a leader in the newest leader epoch of a topic serves.
func (c *cluster) awaitNewestLeader(topic string) *member {
	c.t.Helper()
	var m *member
	c.eventually("a leader", func() bool {
		m = c.leader(topic)
		return m != nil && int32(m.replica(topic).Leadership().Epoch) == c.partition(topic).LeaderEpoch
	})
	return m
}

// TestMirror proves that the leader of a partition that mirrors appends batches as they are, with offsets and epochs of the source, and
// followers store the same; that it refuses what clients write, and what the source cannot have sent; and that its own epoch is not in the log.
func TestMirror(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.topic("ordinary", 1, 2, 3)
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		c.mustMirror("t", append(in(3, "a", "b"), in(5, "c")...)...)
		c.awaitEqual("t", "a", "b", "c")
		for _, m := range c.nodes {
			if got := m.epochsOf("t"); !slices.Equal(got, []record.Epoch{3, 3, 5}) {
				t.Errorf("node %d has the epochs %v", m.id, got)
			}
		}
		p := c.leader("t").replica("t")
		if e, end, err := p.EpochEnd(record.NoEpoch, 3); e != 3 || end != 2 || err != nil {
			t.Errorf("epoch 3 ends with %d at %d: %v", e, end, err)
		}
		if e, end, err := p.EpochEnd(record.NoEpoch, 9); e != 5 || end != 3 || err != nil {
			t.Errorf("an epoch that the source has not begun ends with %d at %d: %v", e, end, err)
		}
		if at, err := p.FindEnd(record.NoEpoch, ReadUncommitted); at.Epoch != 5 || at.Offset != 3 || err != nil {
			t.Errorf("the end is at %+v: %v", at, err)
		}
		l := p.Leadership()
		refuses := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		refuses("a client's batch", c.produce("t", "x", AcksAll).err, ErrMirrors)
		_, err := p.AppendBatch(oneRecord(t, "x"), l.Epoch)
		refuses("a coordinator's batch", err, ErrMirrors)
		errs := make(chan []error, 1)
		c.leader("t").present().set.WriteMarkers([]Marker{{Partition: p, Producer: 1}}, func(e []error) { errs <- e })
		refuses("a marker", (<-errs)[0], ErrMirrors)
		_, err = p.Trim(1)
		refuses("a deletion of records", err, ErrMirrors)
		refuses("an epoch above that of the leader", p.AppendMirror(l, mirroredBatches(t, 3, in(1001, "x")...)), ErrEpochAhead)
		if err := p.AppendMirror(l, mirroredBatches(t, 3, in(4, "x")...)); err == nil || !strings.Contains(err.Error(), "follows one of 5") {
			t.Errorf("an epoch that goes back: %v", err)
		}
		refuses("an offset that goes back", p.AppendMirror(l, mirroredBatches(t, 2, in(5, "x")...)), ErrOffsetOutOfRange)
		whole := mirroredBatches(t, 3, in(5, "x", "y")...)
		refuses("a batch that is cut short", p.AppendMirror(l, whole[:len(whole)-1]), record.ErrCorrupt)
		old := bytes.Clone(whole)
		old[16] = 1
		refuses("a batch of an older format", p.AppendMirror(l, old), record.ErrMagic)
		refuses("a leadership that has ended", p.AppendMirror(&Leadership{Leader: 1, Epoch: l.Epoch - 1}, whole), ErrNotLeader)
		refuses("a follower", c.node(2).replica("t").AppendMirror(l, whole), ErrNotLeader)
		o := c.leader("ordinary").replica("ordinary")
		refuses("an ordinary partition", o.AppendMirror(o.Leadership(), whole), ErrNotMirroring)
		c.awaitEqual("t", "a", "b", "c")
		if err := p.AppendMirror(l, mirroredBatches(t, 7, in(1000, "after a gap")...)); err != nil {
			t.Fatal(err)
		}
		p.Commit()
		c.awaitEqual("t", "a", "b", "c", "after a gap")
		if end, err := c.node(3).replica("t").End(); end != 8 || err != nil {
			t.Errorf("a follower ends at %d: %v", end, err)
		}
	})
}

// TestMirrorStart proves that a mirror can begin where the source does, and that its records go with the source's.
func TestMirrorStart(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		p := c.awaitNewestLeader("t").replica("t")
		const begin = 5 << 32
		if err := StartMirrorAt(p, p.Leadership(), begin); err != nil {
			t.Fatal(err)
		}
		c.mustMirror("t", in(3, "a", "b", "c")...)
		c.awaitEqual("t", "a", "b", "c")
		for _, to := range []record.Offset{begin + 1, begin} { // the second one is there
			if err := StartMirrorAt(p, p.Leadership(), to); err != nil {
				t.Fatal(err)
			}
		}
		c.eventually("the start moves", func() bool {
			return !slices.ContainsFunc(c.nodes, func(m *member) bool { return m.replica("t").Start() != begin+1 })
		})
		if err := StartMirrorAt(p, p.Leadership(), begin+9); !errors.Is(err, ErrOffsetOutOfRange) {
			t.Errorf("beyond its end: %v", err)
		}
		if err := StartMirrorAt(p, &Leadership{}, begin+2); !errors.Is(err, ErrNotLeader) {
			t.Errorf("in another leadership: %v", err)
		}
	})
}

// TestTwoLeadersMirror proves that two leaders, one after the other, may append records of one epoch of the source, that what the first
// one has beyond that goes where it is of a later epoch than the second one knows, and that no epoch of a leader is in the log.
func TestTwoLeadersMirror(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(3, "a", "b")...)
		c.awaitEqual("t", "a", "b")
		c.isolate(1, true)
		if err := c.node(1).mirrorTo("t", append(in(3, "c"), in(4, "d", "e")...)...); err != nil {
			t.Fatal(err)
		}
		c.moveTo("t", 2)
		c.eventually("another leader", func() bool { return c.node(2).replica("t").CheckLeader(record.NoEpoch) == nil })
		if err := c.node(2).mirrorTo("t", in(3, "c")...); err != nil {
			t.Fatal(err)
		}
		if err := c.node(1).mirrorTo("t", in(4, "f")...); err != nil { // it does not know yet
			t.Fatal(err)
		}
		c.isolate(1, false)
		c.awaitEqual("t", "a", "b", "c")
		c.mustMirror("t", in(4, "d")...)
		c.awaitEqual("t", "a", "b", "c", "d")
		for _, m := range c.nodes {
			if got := m.epochsOf("t"); !slices.Equal(got, []record.Epoch{3, 3, 3, 4}) {
				t.Errorf("node %d has the epochs %v", m.id, got)
			}
		}
	})
}

// TestCutOfReplicas proves that a leader and its followers make a cut below the high watermark before they do anything in its leader
// epoch, that what waits for records beyond it ends, that the high watermark begins at the cut or below, and that all have kept what is gone.
func TestCutOfReplicas(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		m := c.awaitNewestLeader("t")
		c.mustMirror("t", in(3, "a", "b", "c", "d")...)
		c.awaitEqual("t", "a", "b", "c", "d")
		p := m.replica("t")
		acked, woken := make(chan error, 1), make(chan struct{}, 1)
		p.Await(p.Leadership().Epoch, 9, 0, func(err error) { acked <- err })
		poll := Poll{Owner: wakeFunc(func() { woken <- struct{}{} })}
		poll.Begin(1, 1)
		poll.Watch(p, p.HighWatermark())
		if !poll.Park() {
			t.Fatal("a poll does not wait")
		}
		c.cutAt("t", 2)
		if err := <-acked; !errors.Is(err, ErrNotLeader) {
			t.Errorf("a wait beyond the cut ends with %v", err)
		}
		<-woken
		poll.End()
		c.awaitNewestLeader("t")
		if hw := p.hw.Load(); hw > 2 {
			t.Errorf("the high watermark begins at %d", hw)
		}
		c.awaitEqual("t", "a", "b")
		c.mustMirror("t", append(in(3, "C"), in(5, "D")...)...) // of the epoch of what is gone, too
		c.awaitEqual("t", "a", "b", "C", "D")
		for _, m := range c.nodes {
			if got := fmt.Sprint(m.tailsOf("t")); got != "map[1:[c d]]" {
				t.Errorf("node %d has kept %s", m.id, got)
			}
		}
		found := Nothing()
		q := Query{Epoch: record.NoEpoch, LastEpoch: 3, Offset: 4, MaxBytes: 1 << 20}
		if err := p.Read(&q, &found); err != nil || found.DivergingEpoch != 3 || found.DivergingEnd != 3 {
			t.Errorf("a reader of what is gone is told of epoch %d, which ends at %d: %v", found.DivergingEpoch, found.DivergingEnd, err)
		}
		tails, _, err := CountTails(m.present().set)
		if tails != 1 || err != nil {
			t.Errorf("%d tails: %v", tails, err)
		}
		if err := DiscardTail(p, 1); err != nil || len(m.tailsOf("t")) != 0 {
			t.Errorf("discarded: %v", err)
		}
	})
}

// wakeFunc makes a function a Waker.
type wakeFunc func()

func (f wakeFunc) Wake() { f() }

// TestCutWhileAway proves that a replica which was away makes the cuts that it has missed, the lowest of them, before it fetches, also
// where its log has records that are committed by now at the same offsets, and that it makes them once: a restart and another leader change nothing.
func TestCutWhileAway(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(3, "a", "b", "c", "d", "e")...)
		c.awaitEqual("t", "a", "b", "c", "d", "e")
		c.node(3).stop()
		c.fence(3)
		c.cutAt("t", 2)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(5, "C", "D", "E", "F")...)
		c.eventually("committed by two", func() bool { return c.leader("t").replica("t").HighWatermark() == 6 })
		c.cutAt("t", 5)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(6, "G")...)
		c.node(3).start()
		want := []string{"a", "b", "C", "D", "E", "G"}
		c.awaitEqual("t", want...)
		if got := fmt.Sprint(c.node(3).tailsOf("t")); got != "map[2:[c d e]]" {
			t.Errorf("the one that was away has kept %s", got)
		}
		if got := fmt.Sprint(c.node(2).tailsOf("t")); got != "map[1:[c d e] 2:[F]]" {
			t.Errorf("another one has kept %s", got)
		}
		for id := int32(1); id <= 3; id++ {
			c.node(id).crash(rand.New(rand.NewPCG(uint64(id), 1)))
			c.fence(id)
			c.node(id).start()
			c.eventually("all in sync", func() bool { return len(c.partition("t").ISR) == 3 })
		}
		for _, id := range []int32{3, 2, 1} {
			c.moveTo("t", id)
			c.awaitNewestLeader("t")
			c.awaitEqual("t", want...)
		}
		for _, m := range c.nodes {
			if n, err := m.replica("t").log.Load().CutNumber(); n != 2 || err != nil {
				t.Errorf("node %d has made cut %d: %v", m.id, n, err)
			}
		}
	})
}

// TestCutOfANewReplica proves that a replica which is new, or whose disk is empty, follows a partition that was cut, keeps what is appended
// after the cut, and can lead.
func TestCutOfANewReplica(t *testing.T) {
	runCluster(t, 4, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(3, "a", "b", "c", "d")...)
		c.awaitEqual("t", "a", "b", "c", "d")
		c.cutAt("t", 1)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(4, "B", "C", "D")...)
		want := []string{"a", "B", "C", "D"}
		c.awaitEqual("t", want...)
		c.reassign("t", 1, 2, 4)
		c.eventually("it is moved", func() bool { p := c.partition("t"); return len(p.Adding) == 0 && len(p.Replicas) == 3 })
		c.awaitEqual("t", want...)
		two := c.node(2)
		two.stop()
		c.fence(2)
		two.mu.Lock()
		two.disk, two.directory = vfs.NewMem(), meta.NewUUID()
		two.mu.Unlock()
		two.start()
		c.awaitEqual("t", want...)
		for _, id := range []int32{4, 2} {
			c.moveTo("t", id)
			c.awaitNewestLeader("t")
			c.awaitEqual("t", want...)
			if n, err := c.node(id).replica("t").log.Load().CutNumber(); n != 1 || err != nil || len(c.node(id).tailsOf("t")) > 0 {
				t.Errorf("node %d has made cut %d, with tails: %v", id, n, err)
			}
		}
	})
}

// TestReplicaThatBeginsAnewIsCutOnce proves that a replica whose log makes place for another one, since its leader has no records that follow
// its own, keeps what cuts have taken, and that no cut of before takes anything from the new log.
func TestReplicaThatBeginsAnewIsCutOnce(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(3, "a", "b", "c", "d")...)
		c.awaitEqual("t", "a", "b", "c", "d")
		c.cutAt("t", 2)
		c.awaitNewestLeader("t")
		c.awaitEqual("t", "a", "b")
		c.node(3).stop()
		c.fence(3)
		c.mustMirror("t", in(4, "C", "D", "E")...)
		p := c.awaitNewestLeader("t").replica("t")
		c.eventually("it is committed", func() bool { return p.HighWatermark() == 5 })
		if err := StartMirrorAt(p, p.Leadership(), 4); err != nil {
			t.Fatal(err)
		}
		c.node(3).start()
		c.eventually("all in sync", func() bool { return c.isEqual("t") })
		if start := c.node(3).replica("t").Start(); start != 4 {
			t.Errorf("it begins at %d", start)
		}
		c.moveTo("t", 3)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(4, "F")...)
		c.awaitEqual("t", "E", "F")
		three := c.node(3)
		if n, err := three.replica("t").log.Load().CutNumber(); n != 1 || err != nil || fmt.Sprint(three.tailsOf("t")) != "map[1:[c d]]" {
			t.Errorf("it has made cut %d, and has kept %v: %v", n, three.tailsOf("t"), err)
		}
	})
}

// TestEndsOfBeforeACut proves that the ends of a log which were read before a cut are not taken for those of the log after it.
func TestEndsOfBeforeACut(t *testing.T) {
	runCluster(t, 1, func(c *cluster) {
		c.mirror("t", 1)
		c.raiseEpoch("t", 1000)
		p := c.awaitNewestLeader("t").replica("t")
		c.mustMirror("t", in(3, "a", "b", "c")...)
		c.awaitEqual("t", "a", "b", "c")
		seen, err := readLogEnds(p)
		if err != nil {
			t.Fatal(err)
		}
		c.cutAt("t", 1)
		c.awaitNewestLeader("t")
		if _, ok := p.lockLeadership(&seen); ok {
			p.mu.Unlock()
			t.Errorf("%+v is taken for the ends of a log that was cut", seen.ends)
		}
		c.awaitEqual("t", "a")
	})
}

// TestCutBelowTheStartOfReplicas proves that replicas whose logs begin beyond a cut go on from the cut.
func TestCutBelowTheStartOfReplicas(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		p := c.awaitNewestLeader("t").replica("t")
		c.mustMirror("t", in(3, "a", "b", "c", "d", "e")...)
		c.awaitEqual("t", "a", "b", "c", "d", "e")
		if err := StartMirrorAt(p, p.Leadership(), 4); err != nil {
			t.Fatal(err)
		}
		c.eventually("the start moves", func() bool {
			return !slices.ContainsFunc(c.nodes, func(m *member) bool { return m.replica("t").Start() != 4 })
		})
		c.cutAt("t", 2)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(4, "C", "D")...)
		c.awaitEqual("t", "C", "D")
		for _, m := range c.nodes {
			if start := m.replica("t").Start(); start != 2 {
				t.Errorf("node %d begins at %d", m.id, start)
			}
			if got := fmt.Sprint(m.tailsOf("t")); got != "map[1:[e]]" {
				t.Errorf("node %d has kept %s", m.id, got)
			}
		}
	})
}

// TestCutWithoutRoom proves that a leader which has no room to keep what a cut takes gives up its place, says what is to be done, and
// follows once there is room.
func TestCutWithoutRoom(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		for i := range 40 {
			c.mustMirror("t", in(3, fmt.Sprint(i, strings.Repeat("x", 4000)))...)
		}
		c.eventually("equal replicas", func() bool { return c.isEqual("t") })
		c.cutAt("t", 39) // so that the next cut does not wait for a checkpoint
		c.eventually("equal replicas", func() bool { return c.isEqual("t") })
		one := c.node(1)
		one.setFree(20_000)
		c.cutAt("t", 1)
		c.eventually("another leader", func() bool { p := c.partition("t"); return p.Leader == 2 || p.Leader == 3 })
		if err := CutError(one.replica("t")); !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "free some space, or discard tails") {
			t.Errorf("it cannot cut: %v", err)
		}
		if end, err := one.replica("t").End(); end != 39 || err != nil {
			t.Errorf("its log ends at %d: %v", end, err)
		}
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(4, "after")...)
		one.setFree(1 << 40)
		c.eventually("equal replicas", func() bool { return c.isEqual("t") })
		if err := CutError(one.replica("t")); err != nil {
			t.Errorf("in the end: %v", err)
		}
		if got := one.tailsOf("t"); len(got[2]) != 38 {
			t.Errorf("it has kept %d records", len(got[2]))
		}
	})
}

// TestPromotion proves that a partition which is promoted takes what clients write in a leader epoch of its own, that it mirrors no more,
// and that retention is its own again; and that a restore, which has it mirror once more, cuts what clients have written.
func TestPromotion(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 1000)
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(3, "a", "b")...)
		c.awaitEqual("t", "a", "b")
		c.changeMirror("t", func(m *meta.PartitionMirror) { m.State = meta.PartitionPromoting })
		p := c.awaitNewestLeader("t").replica("t")
		if err := c.produce("t", "x", AcksAll).err; !errors.Is(err, ErrMirrors) {
			t.Errorf("a client's batch while it is promoted: %v", err)
		}
		if err := c.mirrorTo("t", in(4, "c")...); !errors.Is(err, ErrNotMirroring) {
			t.Errorf("a batch of the source while it is promoted: %v", err)
		}
		c.changeMirror("t", func(m *meta.PartitionMirror) { m.IsDecided = true })
		c.awaitNewestLeader("t")
		if err := c.produce("t", "x", AcksAll).err; !errors.Is(err, ErrMirrors) {
			t.Errorf("a client's batch while it is promoted: %v", err)
		}
		c.changeMirror("t", func(m *meta.PartitionMirror) { m.State = meta.PartitionPromoted })
		c.awaitNewestLeader("t")
		c.mustProduce("t", "c", "d", "e")
		c.awaitEqual("t", "a", "b", "c", "d", "e")
		if err := c.mirrorTo("t", in(4, "f")...); !errors.Is(err, ErrNotMirroring) {
			t.Errorf("it mirrors on: %v", err)
		}
		epoch := p.Leadership().Epoch
		for _, m := range c.nodes {
			if got := m.epochsOf("t"); !slices.Equal(got, []record.Epoch{3, 3, epoch, epoch, epoch}) {
				t.Errorf("node %d has the epochs %v", m.id, got)
			}
		}
		if _, err := p.Trim(1); err != nil {
			t.Errorf("a deletion of records: %v", err)
		}
		c.changeMirror("t", func(m *meta.PartitionMirror) { *m = *m.WithCut(2); m.State, m.IsDecided = meta.PartitionMirrors, false })
		c.awaitNewestLeader("t")
		c.mustMirror("t", in(5, "D")...)
		c.awaitEqual("t", "b", "D")
		for _, m := range c.nodes {
			if got := fmt.Sprint(m.tailsOf("t")); got != "map[1:[c d e]]" {
				t.Errorf("node %d has kept %s", m.id, got)
			}
		}
	})
}

// TestUncutFollowerIsNotServed proves that a leader which has not made a cut serves no follower, and that a follower which has not made it
// asks for nothing: the disks of both are slow when the cut comes.
func TestUncutFollowerIsNotServed(t *testing.T) {
	for _, slow := range []int32{1, 2} {
		runCluster(t, 2, func(c *cluster) {
			c.mirror("t", 1, 2)
			c.raiseEpoch("t", 1000)
			c.awaitNewestLeader("t")
			c.mustMirror("t", in(3, "a", "b", "c")...)
			c.awaitEqual("t", "a", "b", "c")
			hold := make(chan struct{})
			c.node(slow).setHook(func(op vfs.Op, path string) error {
				if op == vfs.OpMkdir && strings.Contains(path, "-tails") {
					<-hold
				}
				return nil
			})
			c.cutAt("t", 1)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if slow == 1 {
				c.expectUncutLeader()
			} else {
				c.expectUncutFollower()
			}
			close(hold)
			want := []string{"a", "B"}[:slow]
			c.awaitEqual("t", want...)
		})
	}
}

// expectUncutLeader proves that node 1, which is to lead and has not made a cut, serves nobody.
func (c *cluster) expectUncutLeader() {
	c.t.Helper()
	epoch := record.Epoch(c.partition("t").LeaderEpoch)
	if err := c.node(1).replica("t").CheckLeader(record.NoEpoch); !errors.Is(err, ErrNotLeader) {
		c.t.Errorf("a leader that is not cut: %v", err)
	}
	q := c.node(2).replica("t")
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.following.heard == epoch {
		c.t.Errorf("it has served its follower: %+v", q.following.machine)
	}
}

// expectUncutFollower proves that node 2, which has not made a cut, does not fetch, so that what its leader appends is not committed.
func (c *cluster) expectUncutFollower() {
	c.t.Helper()
	c.mustMirror("t", in(4, "B")...)
	time.Sleep(time.Second)
	p := c.node(1).replica("t")
	if hw := p.HighWatermark(); hw > 1 {
		c.t.Errorf("with a follower that is not cut the high watermark is %d", hw)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, _, ok := p.leading.machine.FollowerEnds(2); ok {
		c.t.Error("a follower that is not cut has fetched")
	}
}
