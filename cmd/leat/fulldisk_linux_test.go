package main_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// smallDisk mounts a small file system for the test; its size is in MiB.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// free returns how many bytes are left on a file system.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill uses all the space that is left on a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size >= 512; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(block[:size])
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// onDisk is a node on a small disk, with the records that it acknowledged.
type onDisk struct {
	*process
	acked map[string]int // number of acknowledged records, by topic
}

// produceUntilFull writes records until the node refuses one, and returns the error.
func (n *onDisk) produceUntilFull(t *testing.T, topic string) error {
	t.Helper()
	cl := n.client(t, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordRetries(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	value := make([]byte, 200_000)
	for range 10_000 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: value}).FirstErr(); err != nil {
			return err
		}
		n.acked[topic]++
	}
	t.Fatalf("two gigabytes fitted on the disk")
	return nil
}

// end stops the node. On a full disk the node may be unable to note that it ended cleanly; its exit
// status says so then.
func (n *onDisk) end(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	n.awaitEnd(t)
	if n.err != nil {
		t.Logf("ended on a full disk: %v", n.err)
	}
}

// check proves that every record that was acknowledged is there.
func (n *onDisk) check(t *testing.T, topic string) {
	t.Helper()
	if got := len(readAll(t, n.process, topic, n.acked[topic])); got != n.acked[topic] {
		t.Errorf("%s: %d records, %d were acknowledged", topic, got, n.acked[topic])
	}
}

// TestFullDisk proves that a full disk stops writes only. They are refused with an error after
// which clients try again, before the file system is full. Reads and deletions go on. A node starts
// on a disk without free space, after a clean stop and after kill -9, and takes writes again by
// itself when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 256)
	data := filepath.Join(disk, "data")
	n := &onDisk{up(t, data), map[string]int{}}
	adm := kadm.NewClient(n.client(t))
	for _, topic := range []string{"kept", "dropped"} {
		if _, err := adm.CreateTopic(t.Context(), 1, 1, map[string]*string{"segment.bytes": new("8388608")}, topic); err != nil {
			t.Fatal(err)
		}
	}
	cl := n.client(t, kgo.DefaultProduceTopic("kept"))
	for range 20 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 100_000)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		n.acked["kept"]++
	}
	err := n.produceUntilFull(t, "dropped")
	if !kerr.IsRetriable(err) {
		t.Errorf("refused with %v, want an error after which clients try again", err)
	}
	if left := free(t, disk); left == 0 {
		t.Error("the file system is full: nothing was reserved")
	}
	t.Logf("refused with %v, %d MiB left", err, free(t, disk)>>20)
	n.check(t, "kept")
	n.check(t, "dropped")

	// Another program takes the rest.
	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	n.end(t)
	for _, end := range []string{"stop", "kill"} {
		n.process = up(t, data)
		n.check(t, "kept")
		n.check(t, "dropped")
		if err := n.produceUntilFull(t, "kept"); !kerr.IsRetriable(err) {
			t.Errorf("on a full disk refused with %v, want an error after which clients try again", err)
		}
		if end == "stop" {
			n.end(t)
		} else {
			n.kill()
		}
	}
	n.process = up(t, data)

	// Deleting a topic makes room, and the node notices it.
	adm = kadm.NewClient(n.client(t))
	before := free(t, disk)
	if _, err := adm.DeleteRecords(t.Context(), kadm.Offsets{"dropped": {0: {Topic: "dropped", At: int64(n.acked["dropped"] / 2)}}}); err != nil {
		t.Errorf("delete records on a full disk: %v", err)
	}
	if _, err := adm.DeleteTopic(t.Context(), "dropped"); err != nil {
		t.Fatalf("delete a topic on a full disk: %v", err)
	}
	eventually(t, "the deleted topic's space is free", func() bool { return free(t, disk) > before+100<<20 })
	ctx, cancel := context.WithTimeout(t.Context(), readyLimit)
	defer cancel()
	cl = n.client(t, kgo.DefaultProduceTopic("kept"), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))
	for range 20 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Value: make([]byte, 100_000)}).FirstErr(); err != nil {
			t.Fatalf("there is room again, but: %v", err)
		}
		n.acked["kept"]++
	}
	n.check(t, "kept")
	n.stop(t)
	if err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(filepath.Dir(path)) == "dropped-0" {
			t.Errorf("the deleted topic's %s is still there", path)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestProduceOnFullDisk proves that a producer reports the broker's answer on a full disk and how
// many records are written, and that it goes on when there is room again.
func TestProduceOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 256)
	p := up(t, filepath.Join(disk, "data"))
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	do(t, p.addr, "", "topic", "create", "filler", "--partitions", "1")
	do(t, p.addr, "one\n", "produce", "t")
	if err := (&onDisk{p, map[string]int{}}).produceUntilFull(t, "filler"); !kerr.IsRetriable(err) {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 500_000) + "\n"
	refused := "leat: topic t: the broker refuses records: KAFKA_STORAGE_ERROR, its disk is full"
	v := runVerb(t, p.addr, "produce", "t", "--timeout", "4s")
	v.write(t, line+line)
	v.expect(t, 1, refused, ", for 4s; no record was acknowledged, 2 records were not\n")
	v = runVerb(t, p.addr, "produce", "t", "--timeout", "300s")
	v.write(t, line)
	eventually(t, "the refusal is said", func() bool { return strings.Contains(v.err.String(), refused) })
	do(t, p.addr, "", "topic", "delete", "filler")
	if err := v.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	v.expect(t, 0)
	if got := do(t, p.addr, "", "consume", "t", "--from", "start", "--exit"); got != "one\n"+line {
		t.Errorf("%d bytes are written", len(got))
	}
}
