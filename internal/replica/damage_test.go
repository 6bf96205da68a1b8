package replica

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/vfs"
)

// flipBits changes a byte in the middle of the first segment of a node's replica of t.
func (m *member) flipBits() {
	m.mu.Lock()
	disk := m.disk
	m.mu.Unlock()
	f, err := disk.Open("data/t-0/00000000000000000000.log", vfs.Existing)
	if err != nil {
		m.c.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 50_000); err != nil {
		m.c.t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], 50_000); err != nil {
		m.c.t.Fatal(err)
	}
}

// runScrubbed runs a test on three nodes that check their logs for damage, with a topic of a few closed segments.
func runScrubbed(t *testing.T, minISR string, test func(c *cluster, want []string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.scrub = 1 << 30
		defer c.close()
		for _, m := range c.nodes {
			m.start()
		}
		c.threeReplicas()
		c.configure("t", "segment.bytes", "1048576")
		c.configure("t", "min.insync.replicas", minISR)
		value := strings.Repeat("x", 200_000)
		var want []string
		for i := range 12 {
			want = append(want, fmt.Sprint(i, value))
		}
		c.mustProduce("t", want...)
		c.awaitEqual("t", want...)
		test(c, want)
	})
}

// TestDamagedReplicaIsRebuilt proves that a replica with a damaged closed segment, that of a follower or of the leader, is rebuilt from
// another one after the scrub has found the damage, also where the in-sync set is too small to commit without it; that clients go on; and
// that all of its records are the others' afterwards.
func TestDamagedReplicaIsRebuilt(t *testing.T) {
	for _, minISR := range []string{"1", "2", "3"} {
		for _, id := range []int32{1, 3} {
			t.Run(fmt.Sprintf("node %d, min ISR %s", id, minISR), func(t *testing.T) {
				runScrubbed(t, minISR, func(c *cluster, want []string) {
					m := c.node(id)
					before := m.replica("t").log.Load()
					m.flipBits()
					for range 5 {
						if time.Sleep(time.Minute); before.IsDamaged() {
							break
						}
					}
					if !before.IsDamaged() {
						t.Fatal("the scrub has found nothing")
					}
					c.eventually("another log takes its place", func() bool { return m.replica("t").log.Load() != before })
					c.awaitEqual("t", want...)
					if got := m.values("t"); !slices.Equal(got, want) || m.replica("t").Fault() != nil {
						t.Errorf("the replica has %d records, %v", len(got), m.replica("t").Fault())
					}
					c.mustProduceSoon("t", "after")
					c.awaitEqual("t", append(want, "after")...)
				})
			})
		}
	}
}

// TestLastCopyIsNotRebuilt proves that a damaged replica is not deleted while no other one is in sync: it goes on to serve what can be read.
func TestLastCopyIsNotRebuilt(t *testing.T) {
	runScrubbed(t, "1", func(c *cluster, want []string) {
		for _, id := range []int32{2, 3} {
			c.node(id).stop()
			c.fence(id)
		}
		c.mustProduce("t", "last")
		m := c.node(1)
		before := m.replica("t").log.Load()
		m.flipBits()
		time.Sleep(5 * time.Minute)
		if !before.IsDamaged() {
			t.Fatal("the scrub has found nothing")
		}
		if p := c.partition("t"); m.replica("t").log.Load() != before || p.Leader != 1 {
			t.Errorf("node %d leads, the log is another one: %v", p.Leader, m.replica("t").log.Load() != before)
		}
		c.node(2).start() // it lacks the last record, which node 1 still has
		c.awaitLeader("t", 2)
		c.node(3).start()
		c.awaitEqual("t", append(want, "last")...)
		if m.replica("t").log.Load() == before {
			t.Error("the replica is not rebuilt after others have its records")
		}
	})
}

// TestReplacedDiskIsRebuiltUnderAThrottle proves that a node whose disk was replaced by an empty one gets all records of its replicas again, no
// faster than the throttle says that is set by Kafka's configs, for followers or for leaders, while the others commit without it.
func TestReplacedDiskIsRebuiltUnderAThrottle(t *testing.T) {
	const rate, span = 50_000, 5 * time.Second
	for _, side := range []string{"follower", "leader"} {
		t.Run(side, func(t *testing.T) {
			runCluster(t, 3, func(c *cluster) {
				c.threeReplicas()
				c.configure("t", side+".replication.throttled.replicas", "*")
				c.configureBrokers(side+".replication.throttled.rate", fmt.Sprint(rate))
				var want []string
				for i := range 100 {
					want = append(want, fmt.Sprint(i, strings.Repeat("x", 10_000)))
				}
				c.mustProduce("t", want...)
				c.awaitEqual("t", want...)
				three := c.node(3)
				three.kill()
				three.mu.Lock()
				three.disk, three.directory, three.epoch = vfs.NewMem(), meta.NewUUID(), 0
				three.mu.Unlock()
				type arrival struct {
					at    time.Duration
					bytes int
				}
				var mu sync.Mutex
				var arrivals []arrival
				began := time.Now()
				c.setMeddle(func(_, to int32, what any) error {
					if a, ok := what.(*FetchAnswer); ok && to == 3 {
						mu.Lock()
						defer mu.Unlock()
						arrivals = append(arrivals, arrival{time.Since(began), len(a.Buffer)})
					}
					return nil
				})
				three.start()
				c.mustProduce("t", "meanwhile")
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("a record waited %v for the node", took)
				}
				c.awaitEqual("t", append(want, "meanwhile")...)
				window := three.present().set.replication.Load().QuotaWindow
				most := int(rate*(span+window).Seconds()) + 2*20_000 // an answer is paid off after it was sent
				mu.Lock()
				defer mu.Unlock()
				all := 0
				for i, first := range arrivals {
					sum := 0
					for _, a := range arrivals[i:] {
						if a.at < first.at+span {
							sum += a.bytes
						}
					}
					if sum > most {
						t.Errorf("from %v on %d bytes came within %v, of at most %d", first.at, sum, span, most)
					}
					all += first.bytes
				}
				if all < 1_000_000 {
					t.Errorf("only %d bytes came", all)
				}
			}, "replica.fetch.max.bytes", "20000")
		})
	}
}
