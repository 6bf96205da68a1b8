package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/storage"
)

// TestCompactedTopic proves that a node compacts a topic of which clients ask for that, with the settings of the broker
// and of the topic, that a client which reads it from the start finds the latest value of each key, also after a
// restart, and that records without a key are refused.
func TestCompactedTopic(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := Config{Data: dir, Settings: map[string]string{"log.cleaner.backoff.ms": "100"}}
	n := start(t, cfg)
	ctx := deadline(t)
	cl := client(t, n, kgo.ProducerBatchCompression(kgo.NoCompression()))
	configs := map[string]*string{"cleanup.policy": new("compact"), "segment.bytes": new("1048576"), "min.cleanable.dirty.ratio": new("0.1")}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, configs, "table"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "table", Value: []byte("without a key")}).FirstErr(); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("a record without a key: %v", err)
	}
	const keys, records = 50, 6000
	for i := range records {
		cl.Produce(ctx, &kgo.Record{Topic: "table", Key: fmt.Append(nil, "key", i%keys), Value: fmt.Append(nil, i, " ", strings.Repeat("x", 1000))}, nil)
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for storage.CompactionStats(n.store).Rounds == 0 {
		if time.Sleep(20 * time.Millisecond); ctx.Err() != nil {
			t.Fatalf("nothing was compacted: %+v", storage.CompactionStats(n.store))
		}
	}
	_, page := get(t, n, "/compaction?topic=table")
	if lines := strings.Split(strings.TrimSpace(page), "\n"); len(lines) != 2 || !strings.Contains(lines[1], "table-0") || !strings.Contains(lines[1], " ago ") {
		t.Errorf("/compaction: %s", page)
	}
	if _, page := get(t, n, "/compaction?topic=tab"); !strings.Contains(page, "no replica") {
		t.Errorf("/compaction of another topic: %s", page)
	}
	for _, want := range []string{"leat_compaction_failed_bytes 0", "leat_compaction_logs_without_room 0", "leat_compaction_max_delay_seconds 0"} {
		if _, body := get(t, n, "/metrics"); !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("/metrics has no %q", want)
		}
	}
	for range 2 {
		waiting := deadline(t)
		// The first round may come before all records have. Then another one follows it.
		for left := records; left > records*3/4; {
			var latest map[string]string
			if latest, left = readTable(t, n, records); waiting.Err() != nil {
				t.Fatalf("%d of %d records are left: %+v", left, records, storage.CompactionStats(n.store))
			}
			for i := range keys {
				if got, want := latest[fmt.Sprint("key", i)], fmt.Sprint(records-keys+i); got != want {
					t.Fatalf("key%d has %s, want %s", i, got, want)
				}
			}
		}
		stop(t, n)
		n = start(t, cfg)
	}
}

// readTable reads the topic from its start up to an offset, and returns the number in the latest value of each key, and
// how many records there are.
func readTable(t *testing.T, n *Node, end int64) (latest map[string]string, count int) {
	t.Helper()
	reader := client(t, n, kgo.ConsumeTopics("table"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer reader.Close()
	latest = map[string]string{}
	for next := int64(0); next < end; {
		f := reader.PollFetches(deadline(t))
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		f.EachRecord(func(r *kgo.Record) {
			if r.Offset < next {
				t.Errorf("offset %d after %d", r.Offset, next)
			}
			number, _, _ := strings.Cut(string(r.Value), " ")
			latest[string(r.Key)], next = number, r.Offset+1
			count++
		})
	}
	return latest, count
}
