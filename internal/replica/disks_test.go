package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// brokenDisks are ways in which a disk takes no records. Each returns what mends it.
var brokenDisks = map[string]func(c *cluster, m *member) (mend func()){
	"full": func(_ *cluster, m *member) func() {
		m.setFree(0)
		return func() { m.setFree(1 << 40) }
	},
	"it refuses writes": func(_ *cluster, m *member) func() {
		m.setHook(func(op vfs.Op, path string) error {
			if op == vfs.OpWrite && strings.HasSuffix(path, ".log") {
				return syscall.EIO
			}
			return nil
		})
		return func() { m.setHook(nil) }
	},
	"its syncs fail": func(c *cluster, m *member) func() {
		m.setHook(func(op vfs.Op, path string) error {
			if op == vfs.OpSync && !strings.HasSuffix(path, "sync-failed") {
				return syscall.EIO
			}
			return nil
		})
		return func() { c.mend(m.id) }
	},
	"vanished": func(c *cluster, m *member) func() {
		m.setHook(func(vfs.Op, string) error { return syscall.EIO })
		return func() { c.mend(m.id) }
	},
}

// within runs a step and fails if that took longer than a time of the bubble.
func (c *cluster) within(limit time.Duration, what string, step func()) {
	c.t.Helper()
	began := time.Now()
	step()
	if took := time.Since(began); took > limit {
		c.t.Errorf("%s took %v, of at most %v", what, took, limit)
	}
}

// TestFollowerOnABrokenDisk proves that a follower which cannot store leaves the in-sync set at once, so that producers with acks=all
// do not wait for it; and that it is in sync again, by itself, when its disk is mended.
func TestFollowerOnABrokenDisk(t *testing.T) {
	for name, breakDisk := range brokenDisks {
		t.Run(name, func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.mustProduce("t", "a")
				c.awaitEqual("t", "a")
				mend := breakDisk(c, c.node(3))
				c.within(2*time.Second, "a record with acks=all", func() { c.mustProduce("t", "b") })
				if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1, 2}) || p.LeaderEpoch != 0 {
					t.Fatalf("in sync are %v, in leader epoch %d", p.ISR, p.LeaderEpoch)
				}
				for i := range 20 {
					c.within(time.Second, "a record with acks=all", func() { c.mustProduce("t", fmt.Sprint(i)) })
				}
				if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1, 2}) || p.PartitionEpoch > 3 {
					t.Errorf("in sync are %v, after %d changes", p.ISR, p.PartitionEpoch)
				}
				mend()
				c.awaitEqual("t", append([]string{"a", "b"}, numbers("", 20)...)...)
			})
		})
	}
}

// TestFollowerCannotOpenItsLog proves the same of a follower that cannot open its log after a start.
func TestFollowerCannotOpenItsLog(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		c.node(3).stop()
		c.node(3).setHook(refuseToOpenT)
		c.node(3).start() // before anybody has missed it, so that it is in sync
		c.within(3*time.Second, "a record with acks=all", func() { c.mustProduce("t", "b") })
		if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1, 2}) {
			t.Fatalf("in sync are %v", p.ISR)
		}
		c.node(3).setHook(nil)
		c.awaitEqual("t", "a", "b")
	})
}

// refuseToOpenT refuses to open the files of the topic t.
func refuseToOpenT(op vfs.Op, path string) error {
	if strings.Contains(path, "/t-0") && (op == vfs.OpOpen || op == vfs.OpReadDir) {
		return syscall.EACCES
	}
	return nil
}

// TestFullLeaderGivesUp proves that a leader whose disk is full gives up its place to another one, that it stays in sync until
// it refuses its first record as a follower, and that it comes back when there is room.
func TestFullLeaderGivesUp(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", "a")
		c.awaitEqual("t", "a")
		c.node(1).setFree(0)
		if a := c.produce("t", "refused", AcksAll); !errors.Is(a.err, ErrDiskFull) {
			t.Fatalf("a record for which there is no room: %v", a.err)
		}
		c.within(5*time.Second, "another leader", func() {
			c.eventually("another node leads", func() bool { return c.partition("t").Leader != 1 })
		})
		if p := c.partition("t"); !slices.Equal(p.ISR, []int32{1, 2, 3}) {
			t.Errorf("in sync are %v", p.ISR)
		}
		c.awaitLeader("t", c.partition("t").Leader)
		c.within(2*time.Second, "a record with acks=all", func() { c.mustProduce("t", "b") })
		if p := c.partition("t"); !slices.Equal(p.ISR, []int32{2, 3}) || p.LeaderEpoch != 1 {
			t.Errorf("in sync are %v, in leader epoch %d", p.ISR, p.LeaderEpoch)
		}
		c.node(1).setFree(1 << 40)
		c.awaitEqual("t", "a", "b")
	})
}

// TestAllDisksAreFull proves that nobody gives up while no other node has room: producers are told that the disk is full; and that
// all goes on by itself when there is room again.
func TestAllDisksAreFull(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.topic("u", 2, 3, 1)
		c.awaitLeader("u", 2)
		c.mustProduce("t", "a")
		c.mustProduce("u", "a")
		c.awaitEqual("t", "a")
		for _, m := range c.nodes {
			m.setFree(0)
		}
		refused := 0
		for range 60 {
			for _, topic := range []string{"t", "u"} {
				m := c.leader(topic)
				if m == nil {
					continue
				}
				switch a := <-m.send(topic, oneRecord(t, "refused"), AcksLeader); {
				case errors.Is(a.err, ErrDiskFull):
					refused++
				case a.err == nil:
					t.Errorf("%s: a record for which there is no room is acknowledged", topic)
				}
			}
			time.Sleep(time.Second)
		}
		if refused < 100 {
			t.Errorf("only %d of 120 records were refused as on a full disk", refused)
		}
		for _, topic := range []string{"t", "u"} {
			if p := c.partition(topic); p.LeaderEpoch > 4 {
				t.Errorf("%s: in a minute it came to leader epoch %d", topic, p.LeaderEpoch)
			}
		}
		for _, m := range c.nodes {
			m.setFree(1 << 40)
		}
		time.Sleep(3 * time.Second)
		c.mustProduceSoon("t", "b")
		c.mustProduceSoon("u", "b")
		c.awaitEqual("t", "a", "b")
		c.awaitEqual("u", "a", "b")
	})
}

// TestGivesUpToNobodyDead proves that a leader on a broken disk does not give its place to a member of the in-sync set that has just died, and
// is not fenced yet.
func TestGivesUpToNobodyDead(t *testing.T) {
	for _, name := range []string{"full", "its syncs fail"} {
		t.Run(name, func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.mustProduce("t", "a")
				c.awaitEqual("t", "a")
				c.node(2).kill()
				brokenDisks[name](c, c.node(1))
				if a := c.produce("t", "refused", AcksLeader); a.err == nil {
					t.Fatal("a record that cannot be stored is acknowledged")
				}
				c.eventually("another node leads", func() bool { return c.partition("t").Leader != 1 })
				if p := c.partition("t"); p.Leader != 3 || p.LeaderEpoch != 1 {
					t.Errorf("node %d leads in epoch %d", p.Leader, p.LeaderEpoch)
				}
			})
		})
	}
}

// TestLeaderCannotOpenItsLog proves that a leader which cannot open its log gives up its place, though no producer has met that, and that
// it is a replica as others when it can.
func TestLeaderCannotOpenItsLog(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.node(1).setHook(refuseToOpenT)
		c.topic("t", 1, 2, 3)
		c.eventually("another node leads", func() bool { return c.partition("t").Leader != 1 })
		c.awaitLeader("t", c.partition("t").Leader)
		c.within(3*time.Second, "a record with acks=all", func() { c.mustProduce("t", "a") })
		c.node(1).setHook(nil)
		c.awaitEqual("t", "a")
	})
}
