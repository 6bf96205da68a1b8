package node

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/vfs"
)

// cut is the disk after a power cut before one of its changes.
type cut struct {
	disk  *vfs.Mem
	acked int // records acknowledged before
}

// TestFirstStartPowerCut proves that a power cut before any change of the disk
// during the very first start, the first topic and the first records leaves a
// directory that starts, and that has every record which was acknowledged.
func TestFirstStartPowerCut(t *testing.T) {
	cfg := Config{Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler)}
	rng := rand.New(rand.NewPCG(1, 2))
	disk := vfs.NewMem()
	var mu sync.Mutex
	var cuts []cut // guarded by mu
	acked := 0     // guarded by mu
	const most = 400
	watch := vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Changes() && len(cuts) < most {
			cuts = append(cuts, cut{disk.Crash(rng), acked})
		}
		return nil
	})
	n, err := startOn(t.Context(), cfg, watch, "before")
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	cl := client(t, n)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 2, 1, nil, "first"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "first", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		acked++
		mu.Unlock()
	}
	cl.Close()
	stop(t, n)
	if len(cuts) < 20 {
		t.Fatalf("only %d changes of the disk were seen", len(cuts))
	}
	for i, c := range cuts {
		n, err := startOn(t.Context(), cfg, c.disk, "after")
		if err != nil {
			t.Errorf("cut %d of %d: it does not start: %v", i, len(cuts), err)
			continue
		}
		if c.acked > 0 {
			cl := client(t, n)
			ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, "first")
			if err != nil {
				t.Fatal(err)
			}
			var records int64
			ends.Each(func(o kadm.ListedOffset) { records += o.Offset })
			if records < int64(c.acked) {
				t.Errorf("cut %d of %d: %d records are left of %d that were acknowledged", i, len(cuts), records, c.acked)
			}
			cl.Close()
		}
		stop(t, n)
	}
	t.Logf("%d power cuts", len(cuts))
}
