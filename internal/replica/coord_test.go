package replica

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// keeper is a machine that keeps a number for each name, as a coordinator keeps committed offsets.
type keeper struct {
	numbers map[string]kept
	last    record.Offset // the end of the last record
}

type kept struct {
	number uint64
	end    record.Offset // of the record that has it
}

func (k *keeper) Apply(s *coord.Step, r coord.Record) error {
	k.numbers[string(r.Key)] = kept{binary.BigEndian.Uint64(r.Value), s.Next()}
	k.last = s.Next()
	return nil
}

func (*keeper) Loaded(*coord.Step) {}
func (*keeper) Unload(*coord.Step) {}

// keeperTimeout is for how long an answer of a coordinator waits.
const keeperTimeout = time.Second

func newCoordinators(log slog.Handler) *coord.Runtime[*keeper] {
	return coord.New(coord.Config[*keeper]{
		Logger:       slog.New(log),
		New:          func(int32, *coord.Timers) *keeper { return &keeper{numbers: map[string]kept{}} },
		ReplyTimeout: func() time.Duration { return keeperTimeout },
	})
}

// changeCoordinator starts or stops the coordinator on the topic t, as package node does.
func (l *life) changeCoordinator() {
	p := l.set.Partition("t", 0)
	switch {
	case l.coord == nil:
	case p != nil && p.Leadership().Leader == l.m.id:
		l.coord.StartLeading(0, p.Leadership().Epoch, p)
	default:
		l.coord.StopLeading(0)
	}
}

// answer is the answer of a coordinator.
type answer struct {
	number uint64
	err    error
}

// ask has a node's coordinator do something, and returns the channel on which its answer comes.
func (m *member) ask(op func(k *keeper, s *coord.Step, reply func(uint64, error))) <-chan answer {
	end := make(chan answer, 1)
	l := m.present()
	if l == nil {
		end <- answer{err: errCut}
		return end
	}
	err := l.coord.Do(0, func(k *keeper, s *coord.Step) {
		op(k, s, func(n uint64, err error) {
			if l.dead.Load() {
				err = errCut
			}
			end <- answer{n, err}
		})
	})
	if err != nil {
		end <- answer{err: err}
	}
	return end
}

// commit commits a number for a name on a node's coordinator.
func (m *member) commit(name string, n uint64) <-chan answer {
	return m.ask(func(_ *keeper, s *coord.Step, reply func(uint64, error)) {
		s.Put([]byte(name), binary.BigEndian.AppendUint64(nil, n))
		s.Reply(func(err error) { reply(n, err) })
	})
}

// fetch asks a node's coordinator for the number of a name.
func (m *member) fetch(name string) <-chan answer {
	return m.ask(func(k *keeper, s *coord.Step, reply func(uint64, error)) {
		have, ok := k.numbers[name]
		if !ok {
			have.end = k.last
		}
		s.After(have.end)
		s.Reply(func(err error) { reply(have.number, err) })
	})
}

// runCoordinators runs a test on three nodes that coordinate on the topic t, which node 1 leads.
func runCoordinators(t *testing.T, test func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.coordinates = true
		defer c.close()
		for _, m := range c.nodes {
			m.start()
		}
		c.topic("t", 1, 2, 3)
		c.eventually("the first coordinator", func() bool { return (<-c.node(1).commit("a", 1)).err == nil })
		test(c)
	})
}

// isPending tells whether an answer has not come, after some time.
func isPending(a <-chan answer) bool {
	time.Sleep(keeperTimeout / 4)
	synctest.Wait()
	return len(a) == 0
}

// mustFetch asks until it is answered, and returns the number. Nothing but that the node loads, or does
// not lead yet, may keep it from answering.
func (c *cluster) mustFetch(m *member, name string) uint64 {
	c.t.Helper()
	var got answer
	c.eventually("an answer", func() bool {
		got = <-m.fetch(name)
		if got.err != nil && !errors.Is(got.err, coord.ErrLoading) && !errors.Is(got.err, coord.ErrNotLeading) {
			c.t.Fatal(got.err)
		}
		return got.err == nil
	})
	return got.number
}

// TestCoordinatorDiesBeforeTheCommit proves that a coordinator which is killed between an append and
// its commit has not acknowledged it; that the next one has all that was acknowledged, although its
// own high watermark may be behind that, and answers nothing before the end of its log is committed.
func TestCoordinatorDiesBeforeTheCommit(t *testing.T) {
	runCoordinators(t, func(c *cluster) {
		for n := range uint64(20) {
			if a := <-c.node(1).commit("a", n+2); a.err != nil {
				t.Fatal(a.err)
			}
		}
		// All that says that a follower has the next record is lost, so nobody calls it committed.
		end, err := c.node(1).replica("t").End()
		if err != nil {
			t.Fatal(err)
		}
		c.setMeddle(func(_, _ int32, what any) error {
			switch r := what.(type) {
			case *Reports:
				return errCut
			case *FetchRequest:
				if len(r.Reports) > 0 || slices.ContainsFunc(r.Partitions, func(p PartitionFetch) bool { return p.Offset > end }) {
					return errCut
				}
			}
			return nil
		})
		pending := c.node(1).commit("b", 7)
		if !isPending(pending) {
			t.Fatalf("it is answered without the followers: %v", <-pending)
		}
		for _, m := range c.nodes[1:] {
			if got, err := m.replica("t").End(); err != nil || got != end+1 {
				t.Fatalf("node %d ends at %d, %v", m.id, got, err)
			}
		}
		c.node(1).kill()
		if a := <-pending; a.err == nil {
			t.Error("it is acknowledged after the death of its coordinator")
		}
		// The next leader does not hear from the other follower, so it can commit nothing at first.
		c.cut(2, 3, true)
		c.setMeddle(nil)
		c.fence(1)
		c.eventually("another leader", func() bool { return c.leader("t") != nil })
		next := c.leader("t")
		for range 10 {
			if a := <-next.fetch("a"); !errors.Is(a.err, coord.ErrLoading) {
				t.Errorf("answered before the end of its log is committed: %v", a)
			}
			time.Sleep(keeperTimeout / 10)
		}
		c.cut(2, 3, false)
		if got := c.mustFetch(next, "a"); got != 21 {
			t.Errorf("%d is read, 21 was acknowledged", got)
		}
		if got := c.mustFetch(next, "b"); got != 7 {
			t.Errorf("%d is read, and both replicas that are left have 7", got)
		}
	})
}

// TestTwoCoordinators proves that a coordinator which was replaced and does not know it acknowledges
// nothing, that its commits are not found later, and that it says so when it learns of the next one.
func TestTwoCoordinators(t *testing.T) {
	runCoordinators(t, func(c *cluster) {
		c.isolate(1, true)
		old := c.node(1)
		first := old.commit("a", 100)
		c.fence(1)
		c.eventually("another leader", func() bool { m := c.leader("t"); return m != nil && m != old })
		next := c.leader("t")
		if got := c.mustFetch(next, "a"); got != 1 {
			t.Fatalf("%d is read", got)
		}
		if a := <-next.commit("a", 2); a.err != nil {
			t.Fatal(a.err)
		}
		second := old.commit("a", 101)
		for what, a := range map[string]<-chan answer{"before the next one": first, "after it": second} {
			if got := <-a; got.err == nil {
				t.Errorf("the old coordinator acknowledges what was committed %s", what)
			}
		}
		if a := <-old.fetch("a"); a.err == nil {
			t.Errorf("the old coordinator answers %d, which is not committed", a.number)
		}
		c.isolate(1, false)
		c.eventually("the old one has heard", func() bool { return errors.Is((<-old.commit("a", 102)).err, coord.ErrNotLeading) })
		c.unfence(1)
		c.eventually("equal replicas", func() bool { return c.isEqual("t") })
		if got := c.mustFetch(next, "a"); got != 2 {
			t.Errorf("%d is read in the end", got)
		}
		c.prefer("t") // the old one leads again: it has to load
		c.eventually("the old leader leads", func() bool { return c.leader("t") == old })
		if got := c.mustFetch(old, "a"); got != 2 {
			t.Errorf("%d is read of the old one", got)
		}
	})
}

// TestNextCoordinatorWaitsForTheOneBefore proves that a coordinator acknowledges nothing while the one
// before it is in sync and does not know of it, so that what that one answers is never old.
func TestNextCoordinatorWaitsForTheOneBefore(t *testing.T) {
	runCoordinators(t, func(c *cluster) {
		c.setMeddle(func(_, to int32, what any) error {
			if _, ok := what.(metadata); ok && to == 1 {
				return errCut
			}
			return nil
		})
		old := c.node(1)
		c.moveLeader("t", 2)
		next := c.node(2)
		c.eventually("the next leader", func() bool { return c.leader("t") == next })
		for range 10 {
			if a := <-next.commit("a", 2); a.err == nil {
				t.Fatal("it is acknowledged, and the coordinator before does not know of it")
			}
			if a := <-old.fetch("a"); a.err != nil || a.number != 1 {
				t.Fatalf("the coordinator before answers %v", a)
			}
			if a := <-old.commit("b", 1); a.err == nil {
				t.Fatal("the coordinator before acknowledges a commit")
			}
			time.Sleep(keeperTimeout)
		}
		c.setMeddle(nil)
		if got := c.mustFetch(next, "a"); got != 1 && got != 2 { // a commit that was not acknowledged may be found
			t.Errorf("%d is read", got)
		}
		if a := <-next.commit("a", 3); a.err != nil {
			t.Error(a.err)
		}
	})
}

// moveLeader makes a member of the in-sync set of a topic's partition the leader.
func (c *cluster) moveLeader(topic string, to int32) {
	img, _ := c.snapshot()
	t := img.Topic(topic)
	p := t.Partitions[0]
	c.write(meta.PartitionChanged{
		Topic: t.ID, ISR: p.ISR, Leader: to, LeaderEpoch: p.LeaderEpoch + 1, PartitionEpoch: p.PartitionEpoch + 1,
		Eligible: p.Eligible, LastEligible: p.LastEligible,
	})
}

// TestCoordinatorNeedsEnoughInSync proves that a coordinator commits nothing while too few replicas are
// in sync for acks=all, goes on to answer what is committed, and commits again when there are enough.
func TestCoordinatorNeedsEnoughInSync(t *testing.T) {
	runCoordinators(t, func(c *cluster) {
		c.node(2).kill()
		c.node(3).kill()
		c.fence(2)
		c.fence(3)
		one := c.node(1)
		c.eventually("the leader alone in sync", func() bool {
			p := one.replica("t")
			return p != nil && len(p.Leadership().ISR) == 1
		})
		if a := <-one.commit("a", 2); !errors.Is(a.err, ErrNotEnoughReplicas) {
			t.Errorf("a commit with one of three in sync: %v", a)
		}
		if a := <-one.fetch("a"); a.err != nil || a.number != 1 {
			t.Errorf("answered: %v", a)
		}
		c.node(2).start()
		c.eventually("a commit", func() bool { return (<-one.commit("a", 3)).err == nil })
	})
}

// TestFaultedCoordinatorAnswersNothing proves that a coordinator whose log cannot be written answers nothing
// from then on while others are in sync, since they take over before it hears of it; and that one that is
// alone in sync goes on to answer.
func TestFaultedCoordinatorAnswersNothing(t *testing.T) {
	for _, isAlone := range []bool{false, true} {
		runCoordinators(t, func(c *cluster) {
			old := c.node(1)
			if isAlone {
				for _, id := range []int32{2, 3} {
					c.node(id).kill()
					c.fence(id)
				}
				c.eventually("the leader alone in sync", func() bool { return len(old.replica("t").Leadership().ISR) == 1 })
				c.configure("t", "min.insync.replicas", "1")
				c.eventually("a commit of one", func() bool { return (<-old.commit("b", 1)).err == nil })
			}
			c.setMeddle(func(_, to int32, what any) error {
				if _, ok := what.(metadata); ok && to == 1 {
					return errCut
				}
				return nil
			})
			old.failWrites()
			if a := <-old.commit("a", 9); a.err == nil {
				t.Fatal("a commit that is on no disk is acknowledged")
			}
			if isAlone {
				if a := <-old.fetch("b"); a.err != nil || a.number != 1 {
					t.Errorf("alone: %v", a)
				}
				return
			}
			c.eventually("another leader", func() bool { m := c.leader("t"); return m != nil && m != old })
			next := c.leader("t")
			c.eventually("a commit at the next one", func() bool { return (<-next.commit("a", 20)).err == nil })
			if a := <-old.fetch("a"); !errors.Is(a.err, ErrFaulted) {
				t.Errorf("the faulted one answers %v", a)
			}
		})
	}
}

// TestCoordinatorsUnderFaults proves, over many seeds, that a number which is read is never below one that
// was acknowledged or read before, and never above what was sent, while nodes lose their power, disks fail,
// the network is cut, messages are lost and late, leaders move, and the partition moves between nodes. The
// exceptions are as documented in package coord: a node that is not in sync any more, and does not know
// it, may answer an older one; it may not if it was fenced, which its session tells.
func TestCoordinatorsUnderFaults(t *testing.T) {
	from, to := 0, chaosSeeds/2
	if testing.Short() {
		to = chaosSeeds / 20
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEEDS")); err == nil {
		to = n
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEED")); err == nil {
		from, to = n, n+1
	}
	total := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newChaos(t, uint64(seed), func(c *cluster) { c.coordinates = true })
				x.runCommitters()
				for what, n := range x.counts {
					total[what] += n
				}
			})
		})
	}
	t.Log(total)
	if to-from < chaosSeeds/2 {
		return
	}
	for _, what := range []string{"number acknowledged", "number read", "loading", "asked of a leader that was replaced", "leader moved", "reassignment", "power cut", "fenced"} {
		if total[what] == 0 {
			t.Errorf("in %d seeds there was no %q", to-from, what)
		}
	}
}

// runCommitters is run with clients of the coordinators in the place of producers and readers.
func (x *chaos) runCommitters() {
	c := x.c
	defer c.close()
	c.setMeddle(x.meddle)
	c.mu.Lock()
	c.comesLate = x.comesLate
	c.mu.Unlock()
	var clients, others sync.WaitGroup
	list := make([]*committer, chaosProducers)
	for i := range list {
		list[i] = &committer{x: x, name: strconv.Itoa(i)}
		clients.Go(list[i].run)
	}
	others.Go(x.control)
	for began := time.Now(); time.Since(began) < chaosTime; time.Sleep(20*time.Millisecond + x.random(150*time.Millisecond)) {
		x.stage(x.pick(13)) // the records of a coordinator are not deleted
	}
	x.heal()
	x.cleared.Store(true)
	clients.Wait()
	for _, k := range list {
		c.eventually("a last answer", func() bool { m := c.leader("t"); return m != nil && k.ask(m, false) })
	}
	x.over.Store(true)
	others.Wait()
}

// committer commits growing numbers for a name, and asks for them.
type committer struct {
	x           *chaos
	name        string
	sent, known uint64 // the highest that was sent, and the highest that was acknowledged or read
}

func (k *committer) run() {
	for x := k.x; !x.cleared.Load(); time.Sleep(time.Millisecond + x.random(30*time.Millisecond)) {
		m := x.c.nodes[x.pick(len(x.c.nodes))]
		if l := x.c.leader("t"); l != nil && x.pick(3) > 0 {
			m = l
		}
		k.ask(m, x.pick(2) == 0)
	}
}

// ask makes a request, and tells whether it was answered.
func (k *committer) ask(m *member, commits bool) bool {
	x := k.x
	img, _ := x.c.snapshot()
	p := &img.Topic("t").Partitions[0]
	if b := img.Brokers[m.id]; !commits && b != nil && b.State == meta.BrokerFenced {
		return false // it has lost its session
	}
	if r := m.replica("t"); r != nil && r.CheckLeader(record.NoEpoch) == nil && p.Leader != m.id {
		x.count("asked of a leader that was replaced")
	}
	var end <-chan answer
	if commits {
		k.sent++
		end = m.commit(k.name, k.sent)
	} else {
		end = m.fetch(k.name)
	}
	var got answer
	select {
	case got = <-end:
	case <-time.After(3 * keeperTimeout): // of a node that has died
		return false
	}
	switch {
	case errors.Is(got.err, coord.ErrLoading):
		x.count("loading")
	case got.err != nil:
	case commits:
		x.count("number acknowledged")
	default:
		x.count("number read")
	}
	if got.err != nil {
		return false
	}
	if got.number < k.known {
		x.count("old number read")
		if slices.Contains(p.ISR, m.id) {
			x.t.Errorf("node %d, which is in sync, answers %d, and %d was known", m.id, got.number, k.known)
		}
		return true
	}
	if got.number > k.sent {
		x.t.Errorf("node %d answers %d, and %d was sent", m.id, got.number, k.sent)
	}
	k.known = got.number
	return true
}
