package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// snapshot copies a node's disk while the node runs, as a snapshot of its machine does.
func (m *member) snapshot() *vfs.Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.disk.Crash(rand.New(rand.NewPCG(1, 2)))
}

// putBack kills a node, and starts it with another disk before anybody has missed it. The registration that is noted on the disk is
// that of the run which has ended.
func (m *member) putBack(disk *vfs.Mem) {
	m.kill()
	m.mu.Lock()
	m.disk = disk
	m.mu.Unlock()
	m.start()
}

// TestPutBackReplicaLeaves proves that a follower whose disk was put back from a copy of the same run leaves the in-sync set at once, and is not
// eligible either, though it is too small without it; and that it is in sync when it has fetched what it lacked.
func TestPutBackReplicaLeaves(t *testing.T) {
	for _, minISR := range []string{"1", "3"} {
		t.Run("min ISR "+minISR, func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.configure("t", "min.insync.replicas", minISR)
				c.mustProduce("t", "a")
				c.awaitEqual("t", "a")
				old := c.node(3).snapshot()
				c.mustProduce("t", "b", "c")
				c.awaitEqual("t", "a", "b", "c")
				c.setMeddle(func(_, to int32, what any) error {
					if a, ok := what.(*FetchAnswer); ok && to == 3 && len(a.Buffer) > 0 {
						return errCut // it gets nothing of what it lacks
					}
					return nil
				})
				c.node(3).putBack(old)
				if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1, 2, 3}) {
					t.Fatalf("it does not keep its place over the start: in sync are %v", p.ISR)
				}
				c.within(2*time.Second, "that it leaves", func() {
					c.eventually("it is not in sync", func() bool { return slices.Equal(c.partition("t").ISR, []int32{1, 2}) })
				})
				if p := c.partition("t"); len(p.Eligible) > 0 {
					t.Errorf("eligible are %v", p.Eligible)
				}
				c.setMeddle(nil)
				c.awaitEqual("t", "a", "b", "c")
				c.eventually("it is in sync again", func() bool { return len(c.partition("t").ISR) == 3 })
				c.mustProduce("t", "d")
				c.awaitEqual("t", "a", "b", "c", "d")
			})
		})
	}
}

// TestPutBackLeaderGivesUp proves that a node whose disk was put back from a copy of the same run, and which is elected before anybody has
// looked at its log, gives up the partition to one that has the records: none that was acknowledged is lost, also where the new leader
// has appended others in their places.
func TestPutBackLeaderGivesUp(t *testing.T) {
	for _, appends := range []bool{false, true} {
		t.Run(fmt.Sprintf("it appends %v", appends), func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.mustProduce("t", "a")
				c.awaitEqual("t", "a")
				old := c.node(3).snapshot()
				want := append([]string{"a"}, numbers("", 10)...)
				c.mustProduce("t", want[1:]...)
				c.awaitEqual("t", want...)
				c.cut(1, 3, true)
				c.cut(2, 3, true)
				c.node(3).putBack(old)
				c.moveTo("t", 3)
				c.awaitLeader("t", 3)
				if appends {
					if a := <-c.node(3).send("t", oneRecord(t, "in the place of another"), AcksLeader); a.err != nil {
						t.Fatal(a.err)
					}
				}
				c.cut(1, 3, false)
				c.cut(2, 3, false)
				c.within(5*time.Second, "that it gives up", func() {
					c.eventually("another node leads", func() bool { return c.partition("t").Leader != 3 })
				})
				c.mustProduceSoon("t", "after")
				c.awaitEqual("t", append(want, "after")...)
			})
		})
	}
}

// TestUncleanElectionLosesRecords proves that followers go on to cut what an unclean election has lost, though they know it to be committed.
func TestUncleanElectionLosesRecords(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		c.node(3).stop()
		c.fence(3)
		c.mustProduce("t", "b")
		c.eventually("both have it", func() bool {
			return slices.Equal(c.node(1).values("t"), []string{"a", "b"}) && slices.Equal(c.node(2).values("t"), []string{"a", "b"})
		})
		for _, id := range []int32{1, 2} {
			c.node(id).stop()
			c.fence(id)
		}
		c.configure("t", "unclean.leader.election.enable", "true")
		c.node(3).start()
		c.awaitLeader("t", 3)
		for _, id := range []int32{1, 2} {
			c.node(id).start()
		}
		c.awaitEqual("t", "a")
	})
}
