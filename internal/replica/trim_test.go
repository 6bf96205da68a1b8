package replica

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// TestRepeatedTrimIsDurable proves that a DeleteRecords which is sent again, after it has failed
// since neither the journal nor the checkpoint could be written, fails again or is durable. The
// start in memory has moved by then, which alone would be lost with a kill.
func TestRepeatedTrimIsDurable(t *testing.T) {
	mem := vfs.NewMem()
	var sick atomic.Bool
	fs := vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if sick.Load() && (op == vfs.OpOpen && strings.Contains(name, "checkpoint-") ||
			(op == vfs.OpOpen || op == vfs.OpWrite) && strings.Contains(name, "/journal/")) {
			return vfs.ErrNoHandles
		}
		return nil
	})
	w := newWorldOn(t, fs, "data")
	id := w.topic("a", 1)
	p := w.set.Partition("a", 0)
	for range 5 {
		var bu record.Builder
		bu.Append(1_700_000_000_000, nil, []byte("v"))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendBatch(b, 0); err != nil {
			t.Fatal(err)
		}
		p.Commit()
	}
	for p.HighWatermark() < 5 {
		p.Commit()
	}
	sick.Store(true)
	if at, err := p.Trim(3); err == nil {
		t.Fatalf("the first try succeeded (%d): the test proves nothing", at)
	}
	at, err := p.Trim(3)
	crashed := mem.KillClone(nil)
	sick.Store(false)
	if err != nil {
		return // the client knows that it failed
	}
	w2 := newWorldOn(t, crashed, "data")
	w2.apply(meta.TopicCreated{ID: id, Name: "a"}, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
	if start := w2.set.Partition("a", 0).Start(); start < at {
		t.Fatalf("DeleteRecords answered %d, after a kill the log starts at %d", at, start)
	}
}

// TestTrimBelowRetentionIsDurable proves that a DeleteRecords below a start that retention has
// moved, which it does in memory only, is durable, and that the client is told of no higher start: the
// records are not back after a kill.
func TestTrimBelowRetentionIsDurable(t *testing.T) { synctest.Test(t, trimBelowRetention) }

func trimBelowRetention(t *testing.T) {
	mem := vfs.NewMem()
	store, err := storage.Open(storage.Config{FS: mem, Dir: "data", CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	static, err := config.NewStatic(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, image: meta.Empty(), store: store, set: NewSet(Config{NodeID: 1, Store: store, Static: static})}
	t.Cleanup(func() { w.set.Close(); _ = store.Close() })
	id := w.topic("a", 1)
	res := config.Resource{Type: config.Topic, Name: "a"}
	settings := []meta.Record{
		meta.ConfigSet{Resource: res, Key: "segment.bytes", Value: "1048576"},
		meta.ConfigSet{Resource: res, Key: "retention.bytes", Value: "1048576"},
	}
	w.apply(settings...)
	p := w.set.Partition("a", 0)
	moved := false
	for i := 0; i < 200 && !moved; i++ {
		var bu record.Builder
		bu.Append(1_700_000_000_000, nil, make([]byte, 100_000))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendBatch(b, 0); err != nil {
			t.Fatal(err)
		}
		p.Commit()
		synctest.Wait() // retention looks after a roll
		moved = p.Start() > 3
	}
	if !moved {
		t.Fatal("retention did nothing: the test proves nothing")
	}
	at, err := p.Trim(3)
	crashed := mem.KillClone(nil)
	if err != nil {
		t.Fatal(err)
	}
	w2 := newWorldOn(t, crashed, "data")
	w2.apply(append([]meta.Record{meta.TopicCreated{ID: id, Name: "a"}, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}}}, settings...)...)
	if start := w2.set.Partition("a", 0).Start(); at < 3 || start < at {
		t.Fatalf("DeleteRecords to 3 answered %d, after a kill the log starts at %d", at, start)
	}
}

// TestFollowersStartIsDurable proves that a follower tells its leader of no start that a power cut takes back:
// retention has moved it in memory, while the follower still led.
func TestFollowersStartIsDurable(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.configure("t", "segment.bytes", "1048576")
		c.configure("t", "retention.bytes", "1048576")
		p := c.node(1).replica("t")
		for i := 0; i < 100 && p.Start() == 0; i++ {
			c.mustProduce("t", strings.Repeat("x", 100_000)+strconv.Itoa(i))
			synctest.Wait() // retention looks after a roll
		}
		start := p.Start()
		if sure, err := storage.DurableStart(p.log.Load()); err != nil || start == 0 || sure >= start {
			t.Fatalf("the start is %d, durable %d, %v: the test proves nothing", start, sure, err)
		}
		c.moveTo("t", 2)
		c.awaitLeader("t", 2)
		next := c.node(2).replica("t")
		if _, err := next.Trim(start); err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		next.AwaitTrim(start, time.Minute, func(err error) { end <- err })
		if err := <-end; err != nil || next.LowWatermark() < start {
			t.Fatalf("%v, the low watermark is %d", err, next.LowWatermark())
		}
		c.node(1).crash(rand.New(rand.NewPCG(1, 1)))
		c.cut(1, 2, true)
		c.node(1).start()
		c.eventually("node 1 follows", func() bool { return c.node(1).replica("t") != nil })
		if got := c.node(1).replica("t").Start(); got < start {
			t.Errorf("clients were told that the records below %d are deleted, and after a power cut the replica begins at %d", start, got)
		}
	})
}

// TestJoinsWithoutDeletedRecords proves that a replica which was down during a DeleteRecords joins the in-sync
// set only when it has deleted the records, too, durably, and serves no reader before.
func TestJoinsWithoutDeletedRecords(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.mustProduce("t", numbers("a", 6)...)
		c.awaitEqual("t", numbers("a", 6)...)
		c.node(3).stop()
		c.fence(3)
		p := c.node(1).replica("t")
		if _, err := p.Trim(4); err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		p.AwaitTrim(4, time.Minute, func(err error) { end <- err })
		if err := <-end; err != nil {
			t.Fatal(err)
		}
		c.node(3).start()
		c.node(3).setHook(func(op vfs.Op, path string) error { // no start can be made durable
			if op == vfs.OpOpen && strings.Contains(path, "checkpoint-") ||
				(op == vfs.OpOpen || op == vfs.OpWrite) && strings.Contains(path, "/journal/") {
				return vfs.ErrNoHandles
			}
			return nil
		})
		c.work.Go(func() {
			time.Sleep(5 * time.Second)
			c.node(3).setHook(nil)
		})
		had := 0
		c.eventually("node 3 is in sync", func() bool {
			p := c.node(3).replica("t")
			if p == nil {
				return false
			}
			sure, err := storage.DurableStart(p.log.Load())
			if err != nil {
				t.Fatal(err)
			}
			f := Nothing()
			err = p.Read(&Query{Epoch: record.NoEpoch, LastEpoch: record.NoEpoch, Offset: 6, MaxBytes: 1 << 20, AnyReplica: true}, &f)
			isIn := slices.Contains(c.partition("t").ISR, 3)
			if sure >= 4 {
				return isIn && err == nil
			}
			had++
			if isIn || err == nil {
				t.Errorf("it has the deleted records, in sync %v, a reader: %v", isIn, err)
			}
			return isIn
		})
		if had < 10 {
			t.Errorf("it had the records at %d looks only: the test proves nothing", had)
		}
	})
}

// TestTrimWaitsForEnoughInSync proves that a client is not told that records are deleted while fewer replicas
// than min.insync.replicas are in sync: one that is away has them, and may be elected.
func TestTrimWaitsForEnoughInSync(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.threeReplicas()
		c.configure("t", "min.insync.replicas", "2")
		c.mustProduce("t", numbers("a", 6)...)
		c.awaitEqual("t", numbers("a", 6)...)
		for _, id := range []int32{2, 3} {
			c.node(id).stop()
			c.fence(id)
		}
		p := c.node(1).replica("t")
		if _, err := p.Trim(4); err != nil {
			t.Fatal(err)
		}
		timedOut, reached := make(chan error, 1), make(chan error, 1)
		p.AwaitTrim(4, 5*time.Second, func(err error) { timedOut <- err })
		p.AwaitTrim(4, 0, func(err error) { reached <- err })
		if err := <-timedOut; !errors.Is(err, ErrTimedOut) || p.LowWatermark() != -1 {
			t.Errorf("%v, the low watermark is %d", err, p.LowWatermark())
		}
		c.node(2).start()
		err := <-reached
		if other := c.node(2).replica("t"); err != nil || p.LowWatermark() != 4 || other == nil || other.Start() != 4 {
			t.Errorf("the answer comes before the other replica has deleted the records, or never: %v", err)
		}
	})
}
