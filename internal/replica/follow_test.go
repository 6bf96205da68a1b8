package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// numbers are n values with a prefix.
func numbers(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(prefix, i))
	}
	return list
}

// threeReplicas makes a topic on three nodes, of which node 1 leads, and waits for the leader.
func (c *cluster) threeReplicas() {
	c.t.Helper()
	c.topic("t", 1, 2, 3)
	c.awaitLeader("t", 1)
}

func (c *cluster) awaitLeader(topic string, id int32) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("node %d leads", id), func() bool {
		m := c.leader(topic)
		return m != nil && m.id == id && c.partition(topic).Leader == id
	})
}

// TestFollowersCatchUp proves that followers have all records of their leader, know that they are
// committed, and are in sync; that acks=all waits for their disks; and that a follower that was down
// comes back.
func TestFollowersCatchUp(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", numbers("a", 5)...)
		c.awaitEqual("t", numbers("a", 5)...)

		c.node(3).stop()
		c.fence(3)
		c.mustProduce("t", numbers("b", 5)...)
		if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1, 2}) {
			t.Fatalf("in sync are %v", p.ISR)
		}
		c.node(3).start()
		c.awaitEqual("t", append(numbers("a", 5), numbers("b", 5)...)...)
	})
}

// TestOnlyDisksCommit proves that records which a follower has fetched are not committed before its
// disk has them.
func TestOnlyDisksCommit(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.topic("t", 1, 2)
		c.configure("t", "min.insync.replicas", "2")
		c.mustProduceSoon("t", "a")
		c.awaitEqual("t", "a")
		c.node(2).setHook(func(op vfs.Op, path string) error {
			if op == vfs.OpSync || op == vfs.OpWrite && strings.Contains(path, "journal") {
				return syscall.EIO
			}
			return nil
		})
		end := c.leader("t").send("t", oneRecord(t, "b"), AcksAll)
		c.eventually("the follower has it", func() bool { e, _ := c.node(2).replica("t").End(); return e == 2 })
		time.Sleep(time.Second)
		if len(end) > 0 || c.leader("t").replica("t").HighWatermark() != 1 {
			t.Fatalf("it is committed although the follower's disk does not have it\n%s", c.describe())
		}
		c.node(2).setHook(nil)
		c.node(2).crash(rand.New(rand.NewPCG(1, 4)))
		c.fence(2)
		c.node(2).start()
		if a := <-end; a.err != nil {
			t.Fatal(a.err)
		}
		c.awaitEqual("t", "a", "b")
	})
}

// mustProduceSoon is mustProduce for a topic that was made a moment ago.
func (c *cluster) mustProduceSoon(topic string, values ...string) {
	c.t.Helper()
	c.eventually("a leader", func() bool { return c.leader(topic) != nil })
	c.mustProduce(topic, values...)
}

// TestDivergenceIsCutOff proves that the records which a leader has appended alone, and which were
// never committed, are gone from its log after another one has led, and that those of the new leader
// are there.
func TestDivergenceIsCutOff(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.isolate(1, true)
		old := c.node(1)
		for _, v := range numbers("lost", 3) {
			if a := <-old.send("t", oneRecord(t, v), AcksLeader); a.err != nil {
				t.Fatal(a.err)
			}
		}
		waits := old.send("t", oneRecord(t, "lost, too"), AcksAll)
		c.fence(1)
		c.awaitLeader("t", 2)
		c.mustProduce("t", "b", "c")
		c.isolate(1, false)
		c.unfence(1)
		if a := <-waits; !errors.Is(a.err, ErrNotLeader) {
			t.Errorf("a producer of the old leader is told %v", a.err)
		}
		c.awaitEqual("t", "a", "b", "c")
		c.prefer("t") // the old leader leads again, in a third epoch
		c.awaitLeader("t", 1)
		c.mustProduce("t", "d")
		c.awaitEqual("t", "a", "b", "c", "d")
	})
}

// TestFollowersOwnEpochsGo proves that a follower cuts off records of an epoch that the leader does not
// have, even below the leader's end (KIP-279).
func TestFollowersOwnEpochsGo(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.isolate(1, true)
		for _, v := range numbers("lost", 2) {
			<-c.node(1).send("t", oneRecord(t, v), AcksLeader)
		}
		c.fence(1)
		c.awaitLeader("t", 2)
		c.mustProduce("t", numbers("b", 6)...) // further than the old leader's end
		c.isolate(1, false)
		c.unfence(1)
		c.awaitEqual("t", append([]string{"a"}, numbers("b", 6)...)...)
	})
}

// TestPowerCuts proves that acknowledged records survive the power cuts of a follower, of the leader,
// and of all nodes at once.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(5) {
		runCluster(t, 3, func(c *cluster) {
			rng := rand.New(rand.NewPCG(seed, 1))
			c.threeReplicas()
			c.mustProduce("t", numbers("a", 3)...)
			c.node(2).crash(rng)
			c.fence(2)
			c.mustProduce("t", numbers("b", 3)...)
			c.node(2).start()
			c.awaitEqual("t", append(numbers("a", 3), numbers("b", 3)...)...)

			<-c.node(1).send("t", oneRecord(t, "perhaps"), AcksLeader)
			c.node(1).crash(rng)
			c.fence(1)
			c.eventually("another leader", func() bool { m := c.leader("t"); return m != nil && m.id != 1 })
			c.mustProduce("t", numbers("c", 3)...)
			c.node(1).start()
			c.eventually("equal replicas", func() bool { return c.isEqual("t") })
			want := slices.Concat(numbers("a", 3), numbers("b", 3), numbers("c", 3))
			got := slices.DeleteFunc(c.leader("t").values("t"), func(v string) bool { return v == "perhaps" })
			if !slices.Equal(got, want) {
				t.Fatalf("the records are %q", got)
			}

			for _, m := range c.nodes {
				m.crash(rng)
			}
			for _, m := range c.nodes {
				m.start()
			}
			c.eventually("equal replicas", func() bool { return c.isEqual("t") })
			if got := slices.DeleteFunc(c.leader("t").values("t"), func(v string) bool { return v == "perhaps" }); !slices.Equal(got, want) {
				t.Fatalf("after the power cut of all, the records are %q", got)
			}
			c.mustProduce("t", "d")
		})
	}
}

// TestLostAndLateMessages proves that records are replicated and committed although requests, answers,
// reports and proposals are lost or late.
func TestLostAndLateMessages(t *testing.T) {
	for seed := range uint64(10) {
		runCluster(t, 3, func(c *cluster) {
			rng := rand.New(rand.NewPCG(seed, 2))
			c.threeReplicas()
			mu := make(chan struct{}, 1)
			c.setMeddle(func(_, _ int32, what any) error {
				mu <- struct{}{}
				loses, late := rng.IntN(4) == 0, time.Duration(rng.IntN(30))*time.Millisecond
				<-mu
				if _, ok := what.(metadata); ok {
					loses = false
				}
				time.Sleep(late)
				if loses {
					return errCut
				}
				return nil
			})
			want := numbers("a", 20)
			c.mustProduce("t", want...)
			c.setMeddle(nil)
			c.awaitEqual("t", want...)
		})
	}
}

// TestLostReportIsRepeated proves that a durable end reaches the leader although the report of it was
// lost, while nothing else happens.
func TestLostReportIsRepeated(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.topic("t", 1, 2)
		c.configure("t", "min.insync.replicas", "2")
		c.mustProduceSoon("t", "a")
		c.awaitEqual("t", "a")
		var lost atomic.Int32
		c.setMeddle(func(_, _ int32, what any) error {
			if _, ok := what.(*Reports); ok {
				lost.Add(1)
				return errCut
			}
			return nil
		})
		began := time.Now()
		c.mustProduce("t", "b")
		if took := time.Since(began); took > 600*time.Millisecond {
			t.Errorf("it took %v, longer than one long poll", took)
		}
		if lost.Load() == 0 {
			t.Error("no report was lost: the test proves nothing")
		}
	})
}

// TestInSyncSet proves that a follower which is behind for replica.lag.time.max.ms leaves the in-sync
// set, that acks=all then is refused or goes on as min.insync.replicas says, and that it joins again
// when it has caught up.
func TestInSyncSet(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		c.cut(1, 3, true)
		time.Sleep(time.Minute)
		if p := c.partition("t"); len(p.ISR) != 3 {
			t.Fatalf("a follower that lacks nothing has left: %v", p.ISR)
		}
		began := time.Now()
		c.mustProduce("t", "b") // waits until the silent one has left
		if took := time.Since(began); took < 10*time.Second || took > 13*time.Second || len(c.partition("t").ISR) != 2 {
			t.Errorf("committed after %v, in sync are %v", took, c.partition("t").ISR)
		}
		c.cut(1, 2, true)
		waits := c.leader("t").send("t", oneRecord(t, "c"), AcksAll)
		c.eventually("the leader is alone", func() bool { return len(c.partition("t").ISR) == 1 })
		if a := c.produce("t", "refused", AcksAll); !errors.Is(a.err, ErrNotEnoughReplicas) {
			t.Errorf("alone, acks=all: %v", a.err)
		}
		if len(waits) > 0 {
			t.Errorf("it was answered although only the leader has it: %v", (<-waits).err)
		}
		if a := c.produce("t", "d", AcksLeader); a.err != nil {
			t.Errorf("alone, acks=1: %v", a.err)
		}
		c.cut(1, 2, false)
		c.cut(1, 3, false)
		if a := <-waits; a.err != nil {
			t.Errorf("the record from before: %v", a.err)
		}
		c.awaitEqual("t", "a", "b", "c", "d")
	}, "replica.lag.time.max.ms", "10000")
}

// TestNotEnoughAfterAppend proves that a producer is told if records with acks=all are committed while
// fewer replicas are in sync than min.insync.replicas asks for.
func TestNotEnoughAfterAppend(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.topic("t", 1, 2)
		c.mustProduceSoon("t", "a")
		c.awaitEqual("t", "a")
		p := c.leader("t").replica("t")
		m := c.leader("t")
		if a := <-m.send("t", oneRecord(t, "b"), AcksAll); a.err != nil {
			t.Fatal(a.err)
		}
		c.fence(2)
		c.configure("t", "min.insync.replicas", "2")
		c.eventually("too few are in sync", func() bool { return p.checkInSync() != nil })
		end := make(chan error, 1) // of records that were committed before
		p.Await(p.lead.Load().Epoch, 2, 0, func(err error) { end <- err })
		if err := <-end; !errors.Is(err, ErrNotEnoughAfterAppend) {
			t.Errorf("the producer is told %v", err)
		}
	})
}

// TestTopicIsMadeAgain proves that followers of a topic that was deleted and made again under the same
// name, while a fetch was under way, have the records of the new one only.
func TestTopicIsMadeAgain(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		for round := range 5 {
			c.topic("t", 1, 2, 3)
			c.eventually("the new topic's leader", func() bool {
				m := c.leader("t")
				img, _ := c.snapshot()
				return m != nil && m.replica("t").Topic().ID == img.Topic("t").ID
			})
			want := numbers(fmt.Sprint("round ", round, ": "), 4)
			c.mustProduce("t", want...)
			if round%2 == 0 {
				c.awaitEqual("t", want...)
			}
			if round < 4 {
				img, _ := c.snapshot()
				c.write(meta.TopicDeleted{ID: img.Topic("t").ID})
			} else {
				c.awaitEqual("t", want...)
			}
		}
	})
}

// TestReassignment proves that a partition moves to other nodes and back with its records, while
// records come, and that a node that gets it back does not take records of its earlier replica for
// those of the partition.
func TestReassignment(t *testing.T) {
	runCluster(t, 4, func(c *cluster) {
		c.threeReplicas()
		var want []string
		sent := 0
		add := func(n int) {
			t.Helper()
			for range n {
				sent++
				if a := c.produce("t", fmt.Sprint(sent), AcksAll); a.err == nil {
					want = append(want, fmt.Sprint(sent))
				}
			}
		}
		add(5)
		for _, replicas := range [][]int32{{4, 2, 3}, {1, 4, 2}, {1, 2, 3}} {
			c.reassign("t", replicas...)
			add(3)
			c.eventually("the reassignment has ended", func() bool {
				p := c.partition("t")
				return len(p.Adding)+len(p.Removing) == 0 && slices.Equal(p.Replicas, replicas)
			})
			c.eventually("a leader", func() bool { m := c.leader("t"); return m != nil && m.id == c.partition("t").Leader })
			add(3)
			c.eventually("equal replicas", func() bool { return c.isEqual("t") })
			got := slices.DeleteFunc(c.leader("t").values("t"), func(v string) bool { return !slices.Contains(want, v) }) // perhaps there is more
			if !slices.Equal(got, want) {
				t.Fatalf("the records are %q, want %q", got, want)
			}
		}
		if len(want) < 20 {
			t.Errorf("only %d records were acknowledged", len(want))
		}
	})
}

// TestBeginsAnew proves that a follower whose next records the leader has deleted drops its own ones,
// and begins at the leader's start.
func TestBeginsAnew(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", numbers("a", 4)...)
		c.awaitEqual("t", numbers("a", 4)...)
		c.node(3).stop()
		c.fence(3)
		c.mustProduce("t", numbers("b", 6)...)
		if start, err := c.leader("t").replica("t").Trim(7); err != nil || start != 7 {
			t.Fatal(start, err)
		}
		c.node(3).start()
		c.awaitEqual("t", "b3", "b4", "b5")
		if start := c.node(3).replica("t").Start(); start != 7 {
			t.Errorf("it begins at %d", start)
		}
		c.mustProduce("t", "c")
		c.awaitEqual("t", "b3", "b4", "b5", "c")
	})
}

// TestDeleteRecords proves that the low watermark is the lowest start of the live replicas, that it is
// waited for, and that starts of followers are durable when it is reached.
func TestDeleteRecords(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", numbers("a", 6)...)
		c.awaitEqual("t", numbers("a", 6)...)
		c.cut(1, 3, true)
		p := c.leader("t").replica("t")
		if _, err := p.Trim(7); !errors.Is(err, ErrOffsetOutOfRange) {
			t.Errorf("beyond the high watermark: %v", err)
		}
		start, err := p.Trim(4)
		if err != nil || start != 4 {
			t.Fatal(start, err)
		}
		timedOut, reached := make(chan error, 1), make(chan error, 1)
		p.AwaitTrim(4, 5*time.Second, func(err error) { timedOut <- err })
		p.AwaitTrim(4, 0, func(err error) { reached <- err })
		if err := <-timedOut; !errors.Is(err, ErrTimedOut) || p.LowWatermark() != 0 {
			t.Errorf("one replica does not hear of it: %v, the low watermark is %d", err, p.LowWatermark())
		}
		c.cut(1, 3, false)
		if err := <-reached; err != nil || p.LowWatermark() != 4 {
			t.Errorf("%v, the low watermark is %d", err, p.LowWatermark())
		}
		c.node(3).crash(rand.New(rand.NewPCG(1, 1)))
		c.node(2).kill()
		c.fence(2)
		c.fence(3)
		if low := c.leader("t").replica("t").LowWatermark(); low != 4 {
			t.Errorf("without the others the low watermark is %d", low)
		}
		c.node(2).start()
		c.node(3).start()
		c.awaitEqual("t", "a4", "a5")
	})
}

// TestRetentionIsTheLeaders proves that followers delete nothing by themselves, however old their
// records are, and take the start to which retention has moved the leader's.
func TestRetentionIsTheLeaders(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.topic("t", 1, 2)
		c.configure("t", "retention.ms", "600000")
		c.eventually("a leader", func() bool { return c.leader("t") != nil })
		c.mustProduce("t", numbers("a", 3)...) // their timestamps are 1, so they are too old at once
		c.awaitEqual("t", numbers("a", 3)...)
		c.cut(1, 2, true)
		time.Sleep(6 * time.Minute)
		if start := c.leader("t").replica("t").Start(); start != 3 {
			t.Fatalf("the leader's start is %d: retention did nothing", start)
		}
		if start := c.node(2).replica("t").Start(); start != 0 {
			t.Errorf("the follower has moved its start to %d", start)
		}
		c.cut(1, 2, false)
		c.eventually("the follower has the leader's start", func() bool { return c.node(2).replica("t").Start() == 3 })
	})
}

// TestRetentionWaitsForTheHighWatermark proves that retention deletes nothing that is not committed,
// even where nothing ever was.
func TestRetentionWaitsForTheHighWatermark(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.topic("t", 1, 2)
		c.configure("t", "retention.ms", "60000")
		c.configure("t", "min.insync.replicas", "2")
		c.eventually("a leader", func() bool { return c.leader("t") != nil })
		c.cut(1, 2, true)
		if a := c.produce("t", "a", AcksLeader); a.err != nil {
			t.Fatal(a.err)
		}
		time.Sleep(11 * time.Minute)
		if p := c.leader("t").replica("t"); p.Start() != 0 || p.hw.Load() != 0 {
			t.Errorf("the start is %d, the high watermark %d", p.Start(), p.hw.Load())
		}
	})
}

// TestNotReadableYet proves that a new leader tells readers of no high watermark, and coordinators that
// nothing is committed, before it has reached the start of its epoch (KIP-207).
func TestNotReadableYet(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a", "b")
		c.awaitEqual("t", "a", "b")
		// Node 2 has a record of which it does not know that it is committed, and leads without the others.
		c.cut(1, 3, true)
		waits := c.node(1).send("t", oneRecord(t, "c"), AcksAll)
		c.eventually("node 2 has it", func() bool { e, _ := c.node(2).replica("t").End(); return e == 3 })
		c.cut(2, 3, true)
		c.cut(1, 2, true)
		c.fence(1)
		c.awaitLeader("t", 2)
		p := c.node(2).replica("t")
		e := p.lead.Load().Epoch
		var f Found
		_, endErr := p.FindEnd(e, ReadUncommitted)
		_, _, epochErr := p.EpochEnd(e, e)
		_, trimErr := p.Trim(-1)
		for what, err := range map[string]error{
			"read": p.Read(&Query{Epoch: e, LastEpoch: record.NoEpoch, MaxBytes: 1000}, &f), "the end": endErr, "the end of an epoch": epochErr, "a deletion": trimErr,
		} {
			if !errors.Is(err, ErrOffsetNotAvailable) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if p.IsCommitted(e, 3) {
			t.Error("a coordinator is told that all is committed")
		}
		if at, err := p.FindStart(e); err != nil || at.Offset != 0 {
			t.Errorf("the start: %+v, %v", at, err)
		}
		c.cut(2, 3, false)
		c.eventually("it is readable", func() bool { at, err := p.FindEnd(e, ReadUncommitted); return err == nil && at.Offset == 3 })
		if !p.IsCommitted(e, 3) || p.IsCommitted(e-1, 3) {
			t.Error("a coordinator is told of another epoch")
		}
		<-waits
	})
}

// TestReadFromFollower proves that a reader may read from a follower, up to the follower's high
// watermark and no further, and that a leader sends readers to the replica in their rack if the
// cluster is configured for that (KIP-392).
func TestReadFromFollower(t *testing.T) {
	test := func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a", "b")
		c.awaitEqual("t", "a", "b")
		leader, follower := c.node(1).replica("t"), c.node(2).replica("t")
		e := follower.lead.Load().Epoch
		read := func(p *Partition, rack string, at record.Offset, anyReplica bool) (Found, error) {
			f := Nothing()
			err := p.Read(&Query{Epoch: e, LastEpoch: record.NoEpoch, Offset: at, MaxBytes: 1 << 20, Rack: rack, AnyReplica: anyReplica}, &f)
			if f.Chunk.Exists() {
				defer f.Chunk.Release()
			}
			return f, err
		}
		if f, err := read(follower, "", 1, true); err != nil || !f.Chunk.Exists() || f.HighWatermark != 2 {
			t.Errorf("from the follower: %+v, %v", f, err)
		}
		if _, err := read(follower, "", 1, false); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a reader that knows only leaders: %v", err)
		}
		if _, err := follower.FindEnd(e, ReadUncommitted); !errors.Is(err, ErrNotLeader) {
			t.Errorf("the end of a follower: %v", err)
		}
		rackAware := c.settings["replica.selector.class"] != ""
		for rack, want := range map[string]int32{"": -1, "east": -1, "west": 2, "south": -1} {
			if !rackAware {
				want = -1
			}
			if f, err := read(leader, rack, 1, true); err != nil || f.Preferred != want || f.Chunk.Exists() != (want < 0) {
				t.Errorf("a reader in %q: %+v, %v", rack, f, err)
			}
		}
		if known := c.node(1).present().set.FindRack([]byte("west")); (known == "west") != rackAware {
			t.Errorf("the rack is known as %q", known)
		}
		if !rackAware {
			return
		}
		// A follower that does not have the offset yet is no place to read it.
		c.cut(1, 2, true)
		c.fence(2)
		c.mustProduce("t", "c")
		if f, err := read(leader, "west", 2, true); err != nil || f.Preferred >= 0 {
			t.Errorf("a reader in the rack of a node that is behind: %+v, %v", f, err)
		}
		c.cut(1, 2, false)
		// Records that the follower does not know to be committed are not shown.
		c.configure("t", "min.insync.replicas", "3")
		c.unfence(2)
		c.awaitEqual("t", "a", "b", "c")
		c.cut(1, 3, true)
		c.leader("t").send("t", oneRecord(t, "d"), AcksLeader)
		c.eventually("the follower has it", func() bool { end, _ := follower.End(); return end == 4 })
		if f, err := read(follower, "", 3, true); err != nil || f.Chunk.Exists() || f.HighWatermark != 3 {
			t.Errorf("a record that is not committed: %+v, %v", f, err)
		}
		var woken wakes
		poll := Poll{Owner: &woken}
		poll.Begin(1, 1)
		poll.Watch(follower, 3)
		if !poll.Park() {
			t.Fatal("a poll of a follower does not wait")
		}
		c.cut(1, 3, false)
		c.eventually("the poll is woken", func() bool { return woken.n.Load() == 1 })
		poll.End()
	}
	racks := func(test func(c *cluster)) func(c *cluster) {
		return func(c *cluster) {
			for i, rack := range []string{"east", "west", "north"} {
				m := c.nodes[i]
				m.stop()
				m.rack = rack
				m.start()
			}
			test(c)
		}
	}
	runCluster(t, 3, racks(test))
	runCluster(t, 3, racks(test), "replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector")
}

// TestThrottles proves that replicas which are throttled, as followers or as the leader's, are copied
// at the rate that is set while they are behind, that others are not held up, and that a replica in
// sync is not throttled (KIP-73).
func TestThrottles(t *testing.T) {
	for _, side := range []string{"follower", "leader"} {
		runCluster(t, 2, func(c *cluster) {
			c.topic("slow", 1, 2)
			c.topic("fast", 1, 2)
			c.eventually("leaders", func() bool { return c.leader("slow") != nil && c.leader("fast") != nil })
			c.configure("slow", side+".replication.throttled.replicas", "0:1,0:2")
			c.configureBrokers(side+".replication.throttled.rate", "50000")
			value := strings.Repeat("x", 1000)
			c.mustProduce("slow", value)
			c.awaitEqual("slow", value)
			c.node(2).stop()
			c.fence(2)
			var want []string
			for range 500 {
				want = append(want, value)
			}
			c.mustProduce("slow", want...)
			c.mustProduce("fast", want...)
			began := time.Now()
			c.node(2).start()
			c.eventually("the fast one is there", func() bool { return c.isEqual("fast") })
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s: the one that is not throttled took %v", side, took)
			}
			c.eventually("the slow one is there", func() bool { return c.isEqual("slow") })
			// 500 records have about 535 KB; the first MiB comes at once, but for the leader's side the
			// first answer is as large as a partition's part may be.
			if took := time.Since(began); took < 8*time.Second || took > 20*time.Second {
				t.Errorf("%s: the throttled one took %v", side, took)
			}
			began = time.Now()
			for range 100 { // 107 KB
				c.mustProduce("slow", value)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s: in sync, it is throttled: %v", side, took)
			}
		}, "replica.fetch.max.bytes", "20000")
	}
}

// TestFullDiskAtFollower proves that a follower whose disk is full leaves the in-sync set, has no gap
// in its log, and goes on when there is room.
func TestFullDiskAtFollower(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		c.node(3).setFree(1 << 16)
		var want []string
		value := strings.Repeat("x", 20_000)
		for i := range 20 {
			want = append(want, fmt.Sprint(i, value))
		}
		c.mustProduce("t", want...)
		c.eventually("it has left", func() bool { return len(c.partition("t").ISR) == 2 })
		c.node(3).setFree(1 << 30)
		c.awaitEqual("t", append([]string{"a"}, want...)...)
	}, "replica.lag.time.max.ms", "5000")
}

// TestFaultedDiskAtFollower proves that a follower whose disk has failed leaves the in-sync set, and
// that the others go on.
func TestFaultedDiskAtFollower(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		c.node(3).failWrites()
		c.mustProduce("t", "b")
		c.eventually("it has left", func() bool { return slices.Equal(c.partition("t").ISR, []int32{1, 2}) })
		if err := c.node(3).replica("t").Fault(); err == nil {
			t.Error("its log has no fault: the test proves nothing")
		}
		c.mustProduce("t", "c")
		c.mend(3)
		c.awaitEqual("t", "a", "b", "c")
	}, "replica.lag.time.max.ms", "5000")
}

// TestDamagedRecordsAreNotStored proves that a follower checks what it is sent before it stores a byte,
// and fetches it again.
func TestDamagedRecordsAreNotStored(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.topic("t", 1, 2)
		c.mustProduceSoon("t", "a")
		c.awaitEqual("t", "a")
		var damaged atomic.Int32
		c.setMeddle(func(_, _ int32, what any) error {
			if a, ok := what.(*FetchAnswer); ok && len(a.Buffer) > 0 && damaged.Add(1) <= 3 {
				a.Buffer[len(a.Buffer)-2]++
			}
			return nil
		})
		c.mustProduce("t", "b")
		if damaged.Load() < 3 {
			t.Error("too few answers were damaged: the test proves nothing")
		}
		c.awaitEqual("t", "a", "b")
	})
}

// TestProducersSurviveFailover proves that a new leader knows the sequences of idempotent producers: a
// batch that is sent again is found to be a duplicate, with the offset that it got the first time.
func TestProducersSurviveFailover(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		batch := func(seq int32, value string) record.Batch {
			var b record.Builder
			b.SetProducer(7, 0, seq)
			b.Append(1, nil, []byte(value))
			out, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			return append(record.Batch(nil), out...)
		}
		send := func(seq int32, value string) ack {
			return <-c.leader("t").send("t", batch(seq, value), AcksAll)
		}
		for i := range int32(3) {
			if a := send(i, fmt.Sprint(i)); a.err != nil || a.base != record.Offset(i) {
				t.Fatal(a)
			}
		}
		c.isolate(1, true)
		c.fence(1)
		c.awaitLeader("t", 2)
		for i := range int32(3) {
			if a := send(i, fmt.Sprint(i)); a.err != nil || a.base != record.Offset(i) {
				t.Errorf("batch %d, sent again: %+v", i, a)
			}
		}
		if a := send(5, "5"); !errors.Is(a.err, ErrOutOfOrderSequence) {
			t.Errorf("a gap: %+v", a)
		}
		if a := send(3, "3"); a.err != nil || a.base != 3 {
			t.Errorf("the next one: %+v", a)
		}
		c.isolate(1, false)
		c.unfence(1)
		c.awaitEqual("t", "0", "1", "2", "3")
	})
}
