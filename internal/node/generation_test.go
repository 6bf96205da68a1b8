package node

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/storage"
)

// TestGenerationsFollowWrites proves that the data directory gets another generation when records were written to it, at most one in
// generationEvery, and none while nothing is written.
func TestGenerationsFollowWrites(t *testing.T) {
	n := start(t, Config{Data: t.TempDir()})
	cl := client(t, n, kgo.AllowAutoTopicCreation())
	write := func() {
		t.Helper()
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	write()
	for _, step := range []struct {
		what   string
		writes bool
		at     time.Duration
		want   int64
	}{
		{"after the first record", false, generationEvery, 1},
		{"idle", false, 3 * generationEvery, 1},
		{"written to since", true, 4 * generationEvery, 2},
		{"written to too soon", true, 5*generationEvery - 1, 2},
		{"a moment later", false, 5 * generationEvery, 3},
		{"idle again", false, 9 * generationEvery, 3},
	} {
		if step.writes {
			write()
		}
		n.generations.want(step.at, storage.CountRounds(n.store)) // upkeep does so only where there are other nodes
		eventually(t, step.what, func() bool { return len(n.generations.wanted) == 0 })
		eventually(t, step.what, func() bool { return n.lastRun.Generation() >= step.want })
		if got := n.lastRun.Generation(); got != step.want {
			t.Errorf("%s: generation %d, want %d", step.what, got, step.want)
		}
	}
}
