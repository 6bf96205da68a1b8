package compact

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// TestAgainstKafka compacts logs in several rounds here and with Apache Kafka's own cleaner, and compares all fields of
// all batches and records. It needs java, and Kafka in KAFKA_HOME.
func TestAgainstKafka(t *testing.T) {
	home := os.Getenv("KAFKA_HOME")
	if _, err := exec.LookPath("java"); err != nil || home == "" {
		t.Skip("it needs java, and Apache Kafka in KAFKA_HOME")
	}
	const logs, retention = 25, 100
	dir, want := t.TempDir(), map[string]string{}
	for seed := range logs {
		var uppers []record.Offset
		l := rapid.Custom(func(t *rapid.T) *logModel {
			l := newLogModel(t)
			uppers = nil
			for range rapid.IntRange(2, 5).Draw(t, "segments") {
				for range rapid.IntRange(1, 30).Draw(t, "batches") {
					l.write()
				}
				l.segments = append(l.segments, modelSegment{base: l.end})
				uppers = append(uppers, l.end)
			}
			for len(l.open) > 0 { // so that all is stable
				l.write()
			}
			return l
		}).Example(seed)
		name := filepath.Join(dir, fmt.Sprintf("t-%d", seed))
		want[name] = writeAndCompact(t, l, name, uppers, retention)
	}
	//nolint:gosec // the test's own program
	out, err := exec.CommandContext(t.Context(), "java", "-cp", filepath.Join(home, "libs", "*"), "testdata/CleanLogs.java", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, here := range want {
		there, err := os.ReadFile(filepath.Join(name, "left"))
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		a, b := strings.Split(here, "\n"), strings.Split(string(there), "\n")
		only := func(a, b []string) []string {
			return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return slices.Contains(b, line) })
		}
		if !slices.Equal(a, b) {
			t.Errorf("%s: only Leat has\n%s\nand only Kafka\n%s", name, strings.Join(only(a, b), "\n"), strings.Join(only(b, a), "\n"))
		}
	}
}

// writeAndCompact writes the segments of a log and the rounds to make into a directory, makes these rounds, and tells
// of the batches that are left below the last upper offset.
func writeAndCompact(t *testing.T, l *logModel, dir string, uppers []record.Offset, retention int64) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var batches []record.Batch
	var aborted []Aborted
	for _, s := range l.segments {
		write(fmt.Sprintf("%020d.log", s.base), s.data)
		batches = append(batches, splitBatches(t, s.data)...)
		aborted = append(aborted, s.index...)
	}
	producers := map[int64]LastOfProducer{}
	for _, b := range batches {
		if b.ProducerID() >= 0 && !b.Control() {
			producers[b.ProducerID()] = LastOfProducer{Data: b.LastOffset()}
		}
	}
	var rounds strings.Builder
	c := round{mapBytes: 1 << 20, now: 5000, retention: retention, aborted: aborted, producers: producers}
	var left []record.Batch
	for _, c.upper = range uppers {
		for len(batches) > 0 && batches[0].BaseOffset() < c.upper {
			left, batches = append(left, batches[0]), batches[1:]
		}
		left, _ = c.run(t, left...)
		fmt.Fprintf(&rounds, "%d %d\n", c.upper, c.now)
		c.first, c.now = c.upper, c.now+retention*2/3
	}
	write("rounds", []byte(rounds.String()))
	var out strings.Builder
	for _, b := range left {
		horizon, ok := b.DeleteHorizon()
		if !ok {
			horizon = -1
		}
		fmt.Fprintf(&out, "%d %d count=%d codec=%d time=%v horizon=%d max=%d producer=%d/%d/%d txn=%v control=%v epoch=%d",
			b.BaseOffset(), b.LastOffset(), b.Count(), b.Codec(), b.TimestampType(), horizon, b.MaxTimestamp(), b.ProducerID(),
			b.ProducerEpoch(), b.BaseSequence(), b.Transactional(), b.Control(), b.LeaderEpoch())
		for _, r := range readBatch(t, b) {
			fmt.Fprintf(&out, " [%d %d %s %s]", r.offset, r.ms, showHex(r.key), showHex(r.value))
		}
		out.WriteString("\n")
	}
	return out.String()
}

func showHex(b []byte) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("x%x", b)
}
