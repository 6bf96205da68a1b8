package replica

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// failWrites has a node's disk refuse all syncs, and all writes of records.
func (m *member) failWrites() {
	m.setHook(func(op vfs.Op, path string) error {
		if op == vfs.OpSync || op == vfs.OpWrite && strings.HasSuffix(path, ".log") {
			return syscall.EIO
		}
		return nil
	})
}

// mend cuts the power of a node whose disk has failed, and starts it with a disk that works.
func (c *cluster) mend(id int32) {
	m := c.node(id)
	m.crash(rand.New(rand.NewPCG(1, uint64(id))))
	m.setHook(nil)
	c.fence(id)
	m.start()
}

// TestFaultedLeaderGivesUp proves that a leader whose log cannot be written any more gives up its
// leadership, whether a producer meets the fault or nobody does; that producers go on with another leader,
// which has all that was acknowledged; and that the node comes back as a follower when it is mended.
func TestFaultedLeaderGivesUp(t *testing.T) {
	for name, acks := range map[string]Acks{"a producer waits": AcksAll, "nobody waits": AcksNone} {
		t.Run(name, func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.mustProduce("t", "a", "b")
				c.awaitEqual("t", "a", "b")
				c.node(1).failWrites()
				end := c.node(1).send("t", oneRecord(t, "lost"), acks)
				c.eventually("another node leads", func() bool {
					m := c.leader("t")
					return m != nil && m.id != 1 && c.partition("t").Leader == m.id
				})
				if acks == AcksAll {
					if a := <-end; a.err == nil {
						t.Error("a record that is on no disk of the leader is acknowledged")
					}
				}
				if err := c.node(1).replica("t").Fault(); err == nil {
					t.Error("its log has no fault: the test proves nothing")
				}
				if p := c.partition("t"); slices.Contains(p.ISR, 1) || slices.Contains(p.Eligible, 1) {
					t.Errorf("it is in sync or eligible: %v, %v", p.ISR, p.Eligible)
				}
				c.mustProduceSoon("t", "c")
				c.mend(1)
				c.eventually("equal replicas", func() bool { return c.isEqual("t") })
				got := slices.DeleteFunc(c.leader("t").values("t"), func(v string) bool { return v == "lost" }) // followers may have it
				if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
					t.Errorf("the records are %q, want %q", got, want)
				}
			})
		})
	}
}

// TestFaultedLeaderStaysWhileAlone proves that a leader whose log cannot be written goes on to serve readers
// while no other replica is in sync, lets one that comes back catch up, and then gives up.
func TestFaultedLeaderStaysWhileAlone(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.configure("t", "min.insync.replicas", "1")
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		for _, id := range []int32{2, 3} {
			c.node(id).stop()
			c.fence(id)
		}
		c.mustProduce("t", "b")
		c.node(1).failWrites()
		if a := c.produce("t", "refused", AcksAll); a.err == nil {
			t.Error("a record that cannot be stored is acknowledged")
		}
		c.node(1).present().set.Expire(c.node(1).present().set.Now())
		p := c.node(1).replica("t")
		if err := p.Fault(); err == nil {
			t.Fatal("its log has no fault: the test proves nothing")
		}
		if err := p.CheckLeader(record.NoEpoch); err != nil {
			t.Fatal(err)
		}
		f := Nothing()
		if err := p.Read(&Query{Epoch: record.NoEpoch, LastEpoch: record.NoEpoch, MaxBytes: 1 << 20, Whole: true}, &f); err != nil || f.HighWatermark != 2 {
			t.Errorf("a reader finds %+v, %v", f, err)
		}
		if f.Chunk.Exists() {
			f.Chunk.Release()
		}
		if a := c.produce("t", "refused", AcksAll); !errors.Is(a.err, ErrFaulted) {
			t.Errorf("a record that cannot be stored: %v", a.err)
		}
		c.node(2).start()
		c.awaitLeader("t", 2)
		c.mustProduceSoon("t", "c")
		c.mend(1)
		c.node(3).start()
		c.eventually("equal replicas", func() bool { return c.isEqual("t") })
		got := slices.DeleteFunc(c.leader("t").values("t"), func(v string) bool { return v == "refused" })
		if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
			t.Errorf("the records are %q, want %q", got, want)
		}
	})
}

// TestReplacedDirectory proves that a follower which comes back at once with an empty disk, before anybody has
// missed it, leaves the in-sync set: what is acknowledged meanwhile does not count on it, and it is in sync
// again when it has everything. So all survives that the other node is lost then.
func TestReplacedDirectory(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.configure("t", "min.insync.replicas", "2")
		c.mustProduce("t", numbers("a", 5)...)
		c.awaitEqual("t", numbers("a", 5)...)
		c.node(2).stop()
		c.fence(2)
		three := c.node(3)
		three.kill()
		three.mu.Lock()
		three.disk, three.directory, three.epoch = vfs.NewMem(), meta.NewUUID(), 0
		three.mu.Unlock()
		c.cut(1, 3, true)
		three.start()
		if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1}) || slices.Contains(p.Eligible, 3) {
			t.Fatalf("in sync are %v, eligible %v", p.ISR, p.Eligible)
		}
		if a := c.produce("t", "refused", AcksAll); a.err == nil {
			t.Error("one disk is left, and a record is acknowledged")
		}
		c.cut(1, 3, false)
		c.eventually("node 3 is in sync", func() bool { return slices.Equal(c.partition("t").ISR, []int32{1, 3}) })
		c.mustProduce("t", "b")
		c.node(1).stop()
		c.fence(1)
		c.awaitLeader("t", 3)
		got := slices.DeleteFunc(three.values("t"), func(v string) bool { return v == "refused" }) // it may be there
		if want := append(numbers("a", 5), "b"); !slices.Equal(got, want) {
			t.Errorf("the records are %q, want %q", got, want)
		}
	})
}

// TestTopicIsMadeAgainUnderAFetch proves that a fetch which waits at the leader while its topic is deleted and made again
// with the same name, in one step of the metadata or in two, holds nothing up: the new topic's records are
// replicated and none of the old one's is left.
func TestTopicIsMadeAgainUnderAFetch(t *testing.T) {
	for name, steps := range map[string]int{"in one step": 1, "in two steps": 2} {
		t.Run(name, func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.mustProduce("t", numbers("old", 5)...)
				c.awaitEqual("t", numbers("old", 5)...)
				for range 3 {
					time.Sleep(100 * time.Millisecond) // the fetches wait
					img, _ := c.snapshot()
					gone, id := meta.TopicDeleted{ID: img.Topic("t").ID}, meta.NewUUID()
					made := []meta.Record{meta.TopicCreated{ID: id, Name: "t"}, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{
						{Replicas: []int32{2, 3, 1}, ISR: []int32{2, 3, 1}, Leader: 2, LeaderEpoch: 0},
					}}}
					if steps == 1 {
						c.write(append([]meta.Record{gone}, made...)...)
					} else {
						c.write(gone)
						time.Sleep(time.Millisecond)
						c.write(made...)
					}
					c.eventually("the new leader", func() bool {
						m := c.leader("t")
						return m != nil && m.id == 2 && m.replica("t").Topic().ID == id
					})
					c.mustProduce("t", "new1", "new2")
					c.awaitEqual("t", "new1", "new2")
				}
			})
		})
	}
}
