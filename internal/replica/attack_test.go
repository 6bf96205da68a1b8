package replica

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// TestAttackTrimTriedAgain: DeleteRecords fails since neither the journal nor the checkpoint can be
// written (no descriptors); tried again it is answered with success and nothing is written, since
// the start in memory has moved. After a kill the records are back.
func TestAttackTrimTriedAgain(t *testing.T) {
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
		return // it says that it could not
	}
	w2 := newWorldOn(t, crashed, "data")
	w2.apply(meta.TopicCreated{ID: id, Name: "a"}, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
	if start := w2.set.Partition("a", 0).Start(); start < at {
		t.Fatalf("DeleteRecords answered %d, after a kill the log starts at %d", at, start)
	}
}
