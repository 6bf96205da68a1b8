package replica

import (
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
// moved, which it does in memory only, is durable: the records are not back after a kill.
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
	if start := w2.set.Partition("a", 0).Start(); start < 3 {
		t.Fatalf("DeleteRecords to 3 answered %d, after a kill the log starts at %d", at, start)
	}
}
