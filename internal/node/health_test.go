package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/vfs"
)

// startMem runs a node on a file system in memory until the test ends.
func startMem(t *testing.T, fs vfs.FS) *Node {
	t.Helper()
	return startMemWith(t, fs, nil)
}

// startMemWith runs a node with settings of its own.
func startMemWith(t *testing.T, fs vfs.FS, settings map[string]string) *Node {
	t.Helper()
	n, err := startOn(t.Context(), Config{
		Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Settings: settings,
	}, fs, "boot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n
}

// get sends a GET to the HTTP port of a node.
func get(t *testing.T, n *Node, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, "http://"+n.Info().HTTP+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	cl := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := cl.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// expectDegraded checks that the node is alive and ready, that /readyz has the sentence ("":
// that it has none), and that /metrics has the metrics.
func expectDegraded(t *testing.T, n *Node, sentence string, metrics ...string) {
	t.Helper()
	if status, body := get(t, n, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	status, body := get(t, n, "/readyz")
	switch {
	case status != http.StatusOK:
		t.Errorf("/readyz: %d %s", status, body)
	case sentence == "" && body != "ready\n":
		t.Errorf("/readyz: %s", body)
	case !strings.Contains(body, sentence):
		t.Errorf("/readyz does not say %q: %s", sentence, body)
	}
	_, body = get(t, n, "/metrics")
	for _, m := range metrics {
		if !strings.Contains(body, "\n"+m+"\n") {
			t.Errorf("/metrics does not have %s:\n%s", m, strings.Join(regexp.MustCompile("(?m)^leat_.*(fault|stray|full|free).*$").FindAllString(body, -1), "\n"))
		}
	}
}

func createTopic(ctx context.Context, t *testing.T, n *Node, topic string) *kgo.Client {
	t.Helper()
	cl := client(t, n, kgo.DefaultProduceTopic(topic), kgo.RecordRetries(0), kgo.DisableIdempotentWrite())
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	return cl
}

// TestFullDiskShows proves that /readyz and the metrics show a full disk while the node stays
// ready, and that they stop to do so once there is room, even if no client produces.
func TestFullDiskShows(t *testing.T) {
	mem := vfs.NewMem()
	n := startMem(t, mem)
	ctx := deadline(t)
	cl := createTopic(ctx, t, n, "t")
	expectDegraded(t, n, "", "leat_disk_full 0")
	mem.SetFree(1000)
	for cl.ProduceSync(ctx, &kgo.Record{Value: make([]byte, 500_000)}).FirstErr() == nil && ctx.Err() == nil { // what was known to be free before
	}
	expectDegraded(t, n, "the disk is full", "leat_disk_full 1")
	mem.SetFree(1 << 40)
	for ctx.Err() == nil {
		if _, body := get(t, n, "/readyz"); body == "ready\n" {
			break
		}
	}
	expectDegraded(t, n, "", "leat_disk_full 0")
}

// TestTaintedLogShows proves that /readyz and the metrics show a log whose sync has failed, and
// a journal that cannot be written, while the node stays ready.
func TestTaintedLogShows(t *testing.T) {
	var broken atomic.Bool
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, name string) error {
		if broken.Load() && op == vfs.OpSync && (strings.Contains(name, "/t-0/") || strings.Contains(name, "/journal/")) {
			return errors.New("medium error")
		}
		return nil
	})
	n := startMem(t, fs)
	t.Cleanup(func() { broken.Store(false) })
	ctx := deadline(t)
	cl := createTopic(ctx, t, n, "t")
	other := createTopic(ctx, t, n, "u")
	if err := cl.ProduceSync(ctx, &kgo.Record{Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	expectDegraded(t, n, "", `leat_logs_faulted{reason="tainted"} 0`, "leat_journal_damaged 0")
	broken.Store(true)
	// Records for the other topic go into the journal also where a checkpoint has met the log of t first.
	for ctx.Err() == nil && (len(n.store.Faults()) == 0 || n.store.Damage() == nil) {
		_ = cl.ProduceSync(ctx, &kgo.Record{Value: []byte("v")}) // it fails when the sync does
		_ = other.ProduceSync(ctx, &kgo.Record{Value: []byte("v")})
	}
	expectDegraded(t, n, "1 log is read-only: t-0 (", `leat_logs_faulted{reason="tainted"} 1`, `leat_logs_faulted{reason="damage"} 0`, "leat_journal_damaged 1")
	expectDegraded(t, n, "the journal cannot be written")
}

// TestDamageAndStraysShow proves that /readyz and the metrics show a damaged log and a
// directory of an unknown topic, and that the directory is kept.
func TestDamageAndStraysShow(t *testing.T) {
	mem := vfs.NewMem()
	n := startMem(t, mem)
	ctx := deadline(t)
	cl := createTopic(ctx, t, n, "t")
	for range 3 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Value: []byte("some value")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	stop(t, n)
	write := func(name string, mode vfs.Mode, b []byte, off int64) {
		t.Helper()
		f, err := mem.Open(name, mode)
		if err == nil {
			_, err = f.WriteAt(b, off)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write("/data/t-0/00000000000000000000.log", vfs.Existing, []byte{0xff}, 70) // in the first batch's record
	if err := mem.MkdirAll("/data/ghost-0"); err != nil {
		t.Fatal(err)
	}
	write("/data/ghost-0/partition.metadata", vfs.Create, []byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABQ"), 0)
	n = startMem(t, mem)
	adm := kadm.NewClient(client(t, n))
	if _, err := adm.ListOffsetsAfterMilli(ctx, time.Now().Add(-time.Hour).UnixMilli(), "t"); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil && n.store.Strays() == 0 { // it is looked for in the background
		if _, err := adm.ListTopics(ctx); err != nil {
			t.Fatal(err)
		}
	}
	expectDegraded(t, n, "1 log is read-only: t-0 (", `leat_logs_faulted{reason="damage"} 1`, "leat_directories_set_aside 1")
	expectDegraded(t, n, "1 directory of a topic that the metadata do not know was set aside; its name ends")
	infos, err := mem.ReadDir("/data")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(infos, func(i vfs.Info) bool {
		ok, _ := path.Match("ghost-0.*.00000000000000000000000000000005.0-stray", i.Name)
		return ok
	}) {
		t.Errorf("the directory is not there: %v", infos)
	}
}

// TestMetadataIndexesShow proves that the checkpoints follow the metadata, and that the metrics
// show up to which index.
func TestMetadataIndexesShow(t *testing.T) {
	n := startMem(t, vfs.NewMem())
	ctx := deadline(t)
	createTopic(ctx, t, n, "t")
	for ctx.Err() == nil && n.store.RememberedMetadata() < n.quorum.Status().Applied {
		if _, err := kadm.NewClient(client(t, n)).ListTopics(ctx); err != nil {
			t.Fatal(err)
		}
	}
	_, body := get(t, n, "/metrics")
	var values []string
	for _, m := range regexp.MustCompile(`(?m)^leat_metadata_(?:applied|remembered)_index (\d+)$`).FindAllStringSubmatch(body, -1) {
		values = append(values, m[1])
	}
	if len(values) != 2 || values[0] != values[1] || values[0] == "0" {
		t.Errorf("applied and remembered: %v", values)
	}
}

// TestMetricsAreDocumented proves that docs/monitoring.md names every metric of a node, and
// no other, and that the numbers on that page are those of the code.
func TestMetricsAreDocumented(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	n, address := startTLS(t, a.settings(map[string]string{"leat.audit.destinations": "topic"}), io.Discard)
	if _, err := kadm.NewClient(tlsClient(t, address, a.config())).CreateTopic(deadline(t), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	_, body := get(t, n, "/metrics")
	names := func(re, text string) []string {
		var all []string
		for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	b, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	there, told := names(`(?m)^# TYPE (leat_\w+)`, body), names("`(leat_[a-z_]+)", string(b))
	told = slices.DeleteFunc(told, func(name string) bool { return strings.HasPrefix(name, "leat_link_") }) // a node without links has none: see TestLinkMetrics
	if !slices.Equal(there, told) {
		t.Errorf("there are %q,\nand docs/monitoring.md names %q", there, told)
	}
	for _, want := range []string{fmt.Sprintf("a limit below %d", minDescriptors), fmt.Sprintf("fewer than %d,%03d connections", fewConnections/1000, fewConnections%1000)} {
		if !strings.Contains(string(b), want) {
			t.Errorf("docs/monitoring.md does not say %q", want)
		}
	}
}

// TestStartBesideManyStrays proves that a start makes the same few calls of the file system
// with one directory that was set aside as with thousands, even if these are to be removed: it
// reads none of them.
func TestStartBesideManyStrays(t *testing.T) {
	opsOf := func(strays int) (all, inside int64) {
		mem := vfs.NewMem()
		stop(t, startMem(t, mem))
		ghost := []byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABQ")
		for i := range strays {
			if err := mem.MkdirAll(fmt.Sprintf("/data/old-%d.1700000000000.00000000000000000000000000000007.%d-stray", i, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := mem.MkdirAll("/data/zzz-0"); err != nil { // the last one that the node looks at
			t.Fatal(err)
		}
		f, err := mem.Open("/data/zzz-0/partition.metadata", vfs.Create)
		if err == nil {
			_, err = f.WriteAt(ghost, 0)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		var total, withStrays atomic.Int64
		fs := vfs.NewFaulty(mem, func(_ vfs.Op, name string) error {
			total.Add(1)
			if strings.Contains(name, "/old-") {
				withStrays.Add(1)
			}
			return nil
		})
		n := startMemWith(t, fs, map[string]string{"leat.stray.retention.ms": "60000"})
		ctx := deadline(t)
		adm := kadm.NewClient(client(t, n))
		for ctx.Err() == nil && n.store.Strays() <= strays { // until it has looked at all directories
			if _, err := adm.ListTopics(ctx); err != nil {
				t.Fatal(err)
			}
		}
		expectDegraded(t, n, fmt.Sprintf("%d directories of topics", strays+1), fmt.Sprintf("leat_directories_set_aside %d", strays+1))
		return total.Load(), withStrays.Load()
	}
	few, _ := opsOf(1)
	many, inside := opsOf(5000)
	if inside > 0 {
		t.Errorf("%d calls of the file system were made for directories that were set aside", inside)
	}
	if many > few+500 { // checkpoints run beside it
		t.Errorf("a start beside 5000 directories that were set aside made %d calls of the file system, and %d beside one", many, few)
	}
}

// TestLostCheckpointsShow proves that a node whose checkpoint files are both damaged starts
// with all records, and that /readyz shows which checks are lost.
func TestLostCheckpointsShow(t *testing.T) {
	mem := vfs.NewMem()
	n := startMem(t, mem)
	ctx := deadline(t)
	cl := createTopic(ctx, t, n, "t")
	if err := cl.ProduceSync(ctx, &kgo.Record{Value: []byte("some value")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	stop(t, n)
	for _, name := range []string{"/data/checkpoint-a", "/data/checkpoint-b"} {
		f, err := mem.Open(name, vfs.Existing)
		if err == nil {
			_, err = f.WriteAt([]byte{0xff, 0xff}, 40)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	n = startMem(t, mem)
	expectDegraded(t, n, "both checkpoint files are damaged", "leat_journal_damaged 1", `leat_logs_faulted{reason="damage"} 0`)
	ends, err := kadm.NewClient(client(t, n)).ListEndOffsets(ctx, "t")
	if end, _ := ends.Lookup("t", 0); err != nil || end.Offset != 1 {
		t.Errorf("the topic ends at %d, %v", end.Offset, err)
	}
}

// TestMissingFileShows proves that /readyz and the metrics show a segment's file that was
// removed while the node was down, before its partition is used.
func TestMissingFileShows(t *testing.T) {
	mem := vfs.NewMem()
	n := startMem(t, mem)
	ctx := deadline(t)
	cl := createTopic(ctx, t, n, "t")
	if err := cl.ProduceSync(ctx, &kgo.Record{Value: []byte("some value")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	stop(t, n)
	if err := mem.Remove("/data/t-0/00000000000000000000.log"); err != nil {
		t.Fatal(err)
	}
	n = startMem(t, mem)
	adm := kadm.NewClient(client(t, n))
	for ctx.Err() == nil && len(n.store.Faults()) == 0 { // it is looked for in the background
		if _, err := adm.ListTopics(ctx); err != nil {
			t.Fatal(err)
		}
	}
	expectDegraded(t, n, "1 log is read-only: t-0 (", `leat_logs_faulted{reason="damage"} 1`, `leat_logs_faulted{reason="tainted"} 0`)
}
