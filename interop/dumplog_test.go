package interop

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDumpLog proves that the files on disk are Kafka's: kafka-dump-log reads
// the segments, indexes and producer snapshots of a broker that was killed and
// restarted on the way, and finds every record and no mistake.
func TestDumpLog(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	b := ownBroker(t, quick)
	topic := "dumped"
	createTopic(t, b, topic, 1, map[string]*string{"segment.bytes": new("1048576"), "index.interval.bytes": new("4096")})
	written := 0
	write := func(codec string, idempotent bool) {
		t.Helper()
		records := sample(uint64(written), abilities{}, true)
		q := request{Addr: b.addr, Topic: topic, Codec: codec, Acks: "all", Idempotent: idempotent, File: writeRecords(t, records)}
		if _, err := (&franz{}).produce(q); err != nil {
			t.Fatal(err)
		}
		written += len(records)
	}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		write(codec, true)
		write(codec, false)
	}
	box := tools(t, b.addr)
	t.Run("while it runs", func(t *testing.T) { checkDump(t, box, b, topic, written) })
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	t.Run("stopped", func(t *testing.T) { checkDump(t, box, b, topic, written) })
}

var countLine = regexp.MustCompile(`(?m)^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .*isvalid: true$`)

func checkDump(t *testing.T, box toolbox, b *broker, topic string, written int) {
	t.Helper()
	segments := b.segments(t, topic, ".log")
	if len(segments) < 3 {
		t.Fatalf("segments of %s: %v, want several", topic, segments)
	}
	out := dump(t, box, segments, "--deep-iteration", "--print-data-log")
	records := strings.Count(out, "| offset: ")
	if records != written {
		t.Errorf("%d records in the segments, want %d", records, written)
	}
	batches := strings.Count(out, "baseOffset: ")
	if valid := len(countLine.FindAllString(out, -1)); valid != batches || batches == 0 {
		t.Errorf("%d of %d batches are valid", valid, batches)
	}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		contains(t, out, "compresscodec: "+codec)
	}
	for _, ext := range []string{".index", ".timeindex"} {
		files := b.segments(t, topic, ext)
		if len(files) < 3 {
			t.Errorf("%s files: %v, want one a segment", ext, files)
		}
		dump(t, box, files)
	}
	dump(t, box, b.segments(t, topic, ".index"), "--index-sanity-check")
	if snapshots := b.segments(t, topic, ".snapshot"); len(snapshots) > 0 {
		contains(t, dump(t, box, snapshots), "producerId: ")
	}
}

// complaints matches what kafka-dump-log says of files that are not in order.
// Of each segment but the first it also says that "-1 is followed by" its
// first offset: it forgets that a segment may begin anywhere.
var complaints = regexp.MustCompile(`(?i)mismatch|corrupt|exception|not valid|isvalid: false|found timestamp|out of order|could not find|  \d+ is followed by|stopped at byte`)

// dump runs kafka-dump-log on the files and fails the test when it complains.
func dump(t *testing.T, box toolbox, files []string, args ...string) string {
	t.Helper()
	out, exit := box.run(t, dumpTool, "", append([]string{"--files", strings.Join(files, ",")}, args...)...)
	if complaint := complaints.FindString(out); exit != 0 || complaint != "" {
		at := max(0, strings.Index(out, complaint)-500)
		t.Errorf("dump of %s %v: exit status %d, %q\n%.3000s", filepath.Base(files[0]), args, exit, complaint, out[at:])
	}
	return out
}

// TestDumpLogAfterKill proves the same of files that kill -9 left and a
// restart repaired.
func TestDumpLogAfterKill(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	b := ownBroker(t, quick)
	topic := "killed"
	createTopic(t, b, topic, 1, map[string]*string{"segment.bytes": new("1048576")})
	written := 0
	for round := range 3 {
		records := sample(uint64(round), abilities{}, true)
		q := request{Addr: b.addr, Topic: topic, Codec: "none", Acks: "all", Idempotent: true, File: writeRecords(t, records)}
		if _, err := (&franz{}).produce(q); err != nil {
			t.Fatal(fmt.Errorf("round %d: %w", round, err))
		}
		written += len(records)
		b.restart(t)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	box := tools(t, b.addr)
	out := dump(t, box, b.segments(t, topic, ".log"), "--deep-iteration", "--print-data-log")
	if records := strings.Count(out, "| offset: "); records != written {
		t.Errorf("%d records in the segments, want %d", records, written)
	}
	dump(t, box, b.segments(t, topic, ".index"))
	dump(t, box, b.segments(t, topic, ".timeindex"))
}
