package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// proposeRecords proposes in the term in which the node leads.
func proposeRecords(t *testing.T, n *Node, records []byte) error {
	t.Helper()
	term, ok := n.quorum.Leading()
	if !ok {
		t.Fatal("the node does not lead its quorum")
	}
	return n.quorum.Propose(t.Context(), term, records)
}

func topicRecords(name string) []byte {
	id := meta.NewUUID()
	r := meta.Append(nil, meta.TopicCreated{ID: id, Name: name})
	return meta.Append(r, meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
}

// startFails returns the error of a start, and fails the test if there is none.
func startFails(t *testing.T, dir string) error {
	t.Helper()
	n, err := Start(t.Context(), Config{Data: dir, Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
	if err == nil {
		stop(t, n)
		t.Fatal("it starts")
	}
	return err
}

// TestUnknownRecordStopsTheNode proves that a record of the metadata which this version cannot
// read, or a level of the metadata that it does not know, is not acknowledged and ends the node with a
// sentence, and that a later start is refused because of it and changes nothing.
func TestUnknownRecordStopsTheNode(t *testing.T) {
	body := bytes.Repeat([]byte{7}, 100)
	kind := binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, 99), 1), uint64(len(body)))
	for name, newer := range map[string][]byte{
		"record": append(kind, body...),
		"level":  meta.Append(nil, meta.LevelSet{Level: meta.LatestLevel + 1}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			n := start(t, Config{Data: dir})
			if err := proposeRecords(t, n, topicRecords("before")); err != nil {
				t.Fatal(err)
			}
			if err := proposeRecords(t, n, newer); !errors.Is(err, quorum.ErrNotApplied) || !errors.Is(err, meta.ErrNewer) {
				t.Fatalf("its proposer: %v", err)
			}
			failure := <-n.Failed()
			for _, want := range []string{"cannot follow the metadata", "entry", "newer version of leat"} {
				if !strings.Contains(failure.Error(), want) {
					t.Errorf("%q does not say %q", failure, want)
				}
			}
			if n.checkHealth().unready == nil {
				t.Error("the node calls itself healthy")
			}
			if _, err := n.controller.CreateTopics(t.Context(), []controller.NewTopic{{Name: "after", Partitions: 1, ReplicationFactor: 1}}, false); err == nil {
				t.Error("a command after it succeeds")
			}
			stop(t, n)
			before := contents(t, dir)
			for range 2 {
				if err := startFails(t, dir); !errors.Is(err, meta.ErrNewer) {
					t.Errorf("a later start: %v", err)
				}
				if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
					t.Errorf("the refused start changed files: %s", diff)
				}
			}
		})
	}
}

// TestDamagedMetadataDeletesNothing proves that a start is refused if one bit of the last
// acknowledged entry is flipped, and that it leaves the topics' directories alone.
func TestDamagedMetadataDeletesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, Config{Data: dir})
	ctx := deadline(t)
	cl := client(t, n)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "precious"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "precious", Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	stop(t, n)
	logs, _ := filepath.Glob(filepath.Join(dir, quorumDir, "*.log"))
	name := logs[len(logs)-1]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(bytes.TrimRight(b, "\x00"))-3] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	err = startFails(t, dir)
	for _, want := range []string{filepath.Base(name), "byte", "restore the whole data directory", "leat cluster remove"} {
		if !errors.Is(err, quorum.ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "precious-0")); err != nil {
		t.Error(err)
	}
}

// TestOldMetadataIsRefused proves that a start with an older copy of the quorum's directory is
// refused, and that topics which were created after the copy keep their directories.
func TestOldMetadataIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	stop(t, start(t, Config{Data: dir}))
	older := filepath.Join(t.TempDir(), "quorum")
	if err := os.CopyFS(older, os.DirFS(filepath.Join(dir, quorumDir))); err != nil {
		t.Fatal(err)
	}
	n := start(t, Config{Data: dir})
	cl := client(t, n)
	if _, err := kadm.NewClient(cl).CreateTopic(deadline(t), 1, 1, nil, "precious"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "precious", Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	stop(t, n)
	if err := os.RemoveAll(filepath.Join(dir, quorumDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, quorumDir), os.DirFS(older)); err != nil {
		t.Fatal(err)
	}
	if err := startFails(t, dir); !errors.Is(err, storage.ErrMetadataBehind) || !strings.Contains(err.Error(), "newest copy") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "precious-0", "00000000000000000000.log")); err != nil {
		t.Error(err)
	}
}

// TestLostIdentityIsNotReplaced proves that a used directory which has lost its identity gets
// no new one, and that its key stays as it is; and that a first start which was interrupted
// after it has written the key can be repeated.
func TestLostIdentityIsNotReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	stop(t, start(t, Config{Data: dir}))
	before, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		if err := startFails(t, dir); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), identityFile+" is missing") {
			t.Errorf("%s: %v", what, err)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, keyFile)); !bytes.Equal(before, after) {
			t.Errorf("%s: the key has changed", what)
		}
	}
	check("metadata and logs")
	if err := os.RemoveAll(filepath.Join(dir, quorumDir)); err != nil {
		t.Fatal(err)
	}
	check("the store's files")
	for _, name := range []string{"checkpoint-*", "points-*", "journal", "sync-failed", "last-run", "log-start-offset-checkpoint", addressesFile} {
		found, _ := filepath.Glob(filepath.Join(dir, name))
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "topic-0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "topic-0", "partition.metadata"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("a partition's directory")
	if err := os.RemoveAll(filepath.Join(dir, "topic-0")); err != nil {
		t.Fatal(err)
	}
	stop(t, start(t, Config{Data: dir}))
	if after, _ := os.ReadFile(filepath.Join(dir, keyFile)); !bytes.Equal(before, after) {
		t.Error("a first start that was cut short: the key has changed")
	}
}

// TestFaultedMetadataLogShows proves that /readyz, the metrics and the log show a failed write
// of the metadata log, while clients are still served.
func TestFaultedMetadataLogShows(t *testing.T) {
	var broken atomic.Bool
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, name string) error {
		if broken.Load() && op == vfs.OpSync && strings.Contains(name, "/"+quorumDir+"/") {
			return errors.New("medium error")
		}
		return nil
	})
	var mu sync.Mutex
	var text strings.Builder
	n, err := startOn(t.Context(), Config{
		Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &text}, nil)),
	}, fs, "boot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	ctx := deadline(t)
	adm := kadm.NewClient(client(t, n))
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "before"); err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Info().HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, body := get("/readyz"); status != http.StatusOK {
		t.Fatalf("before: %d %s", status, body)
	}
	broken.Store(true)
	if _, err := n.controller.CreateTopics(ctx, []controller.NewTopic{{Name: "after", Partitions: 1, ReplicationFactor: 1}}, false); !errors.Is(err, quorum.ErrFaulted) {
		t.Errorf("a command: %v", err)
	}
	if status, body := get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "metadata log cannot be written") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if _, body := get("/metrics"); !strings.Contains(body, "leat_metadata_log_faulted 1") {
		t.Error("/metrics does not have leat_metadata_log_faulted 1")
	}
	mu.Lock()
	if !strings.Contains(text.String(), "the metadata log cannot be written") {
		t.Errorf("the log does not tell:\n%s", text.String())
	}
	mu.Unlock()
	if topics, err := adm.ListTopics(ctx); err != nil || !topics.Has("before") {
		t.Errorf("clients are not served on: %v, %v", topics, err)
	}
	http.DefaultClient.CloseIdleConnections()
	broken.Store(false)
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// TestStopWithoutTime proves that a stop whose context has ended before it begins still closes
// the metadata log, so that the directory can be used again at once.
func TestStopWithoutTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, Config{Data: dir})
	if err := proposeRecords(t, n, topicRecords("t")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = n.Stop(ctx) // clients and the HTTP port may complain
	if s := n.quorum.Status(); s.State != quorum.Ended {
		t.Errorf("the quorum is %v", s.State)
	}
	if again := start(t, Config{Data: dir}); again.image.Load().Topic("t") == nil {
		t.Error("the topic is gone")
	}
}

// TestNoChangeIsLostBeforeFollowing proves that changes which are applied before the node
// follows the metadata have no effect until then, and that none of them is lost.
func TestNoChangeIsLostBeforeFollowing(t *testing.T) {
	n := start(t, Config{Data: filepath.Join(t.TempDir(), "data")})
	ctx := t.Context()
	// The node is set back to the state of replaying, while no change is applied.
	n.followState = replaying
	n.built.Store(false)
	n.incarnation = meta.NewUUID()
	do := func(records []byte) {
		t.Helper()
		if err := proposeRecords(t, n, records); err != nil {
			t.Fatal(err)
		}
	}
	do(topicRecords("replayed"))
	id := meta.NewUUID() // led by another node: its start changes nothing of it
	do(meta.Append(meta.Append(nil, meta.TopicCreated{ID: id, Name: "of another leader"}),
		meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{2, 1}, ISR: []int32{2}, Leader: 2}}}))
	before := n.brokerEpoch.Load()
	if err := n.register(ctx); err != nil {
		t.Fatal(err)
	}
	do(topicRecords("registered"))
	n.built.Store(true)
	do(topicRecords("built"))
	if err := n.controller.EnsureTopic(ctx, group.Topic); err == nil {
		t.Error("a fenced node gets replicas")
	}
	for _, name := range []string{"replayed", "registered", "built"} {
		if n.set.Partition(name, 0) != nil {
			t.Errorf("%s is followed by a node that is fenced", name)
		}
	}
	stale := controller.Beat{Registered: controller.Registered{ID: 1, Epoch: before}, Caught: true}
	if _, refused, err := n.registrar.Heartbeat(ctx, &stale); err != nil || refused == nil || refused.Kind != controller.StaleBrokerEpoch {
		t.Errorf("another registration: %v, %v", refused, err)
	}
	if err := n.activate(ctx); err != nil {
		t.Fatal(err)
	}
	do(topicRecords("active"))
	if n.set.Partition("of another leader", 0) == nil {
		t.Error("a replica whose leader is another node is not followed")
	}
	for _, name := range []string{"replayed", "registered", "built", "active"} {
		p := n.set.Partition(name, 0)
		if p == nil {
			t.Errorf("%s is not followed", name)
			continue
		}
		want := int32(1)
		if name == "active" {
			want = 0
		}
		if l := p.Leadership(); int32(l.Epoch) != want {
			t.Errorf("%s has leader epoch %d, want %d", name, l.Epoch, want)
		}
	}
}

// TestLostTailIsDetected proves the promise of KIP-320: if a power cut loses the tail of a topic
// that is not synced with each message, a client that has read it can tell by the end of the
// leader epoch in which it did.
func TestLostTailIsDetected(t *testing.T) {
	cfg := Config{Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler)}
	disk := vfs.NewMem()
	n, err := startOn(t.Context(), cfg, disk, "before")
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	cl := client(t, n)
	many := "1000000"
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, map[string]*string{"flush.messages": &many}, "cached"); err != nil {
		t.Fatal(err)
	}
	const records = 200
	for i := range records {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "cached", Value: fmt.Appendf(nil, "value %d of a topic in the page cache", i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	lost := 0
	for seed := range uint64(20) {
		after := disk.Crash(rand.New(rand.NewPCG(seed, 9)))
		again, err := startOn(t.Context(), cfg, after, "after")
		if err != nil {
			t.Fatal(err)
		}
		cl := client(t, again)
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "cached", Value: []byte("after")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		end, current := epochEnd(ctx, t, cl)
		if current != 1 {
			t.Fatalf("seed %d: leader epoch %d", seed, current)
		}
		if end < records {
			lost++
		}
		if got, err := kadm.NewClient(cl).ListEndOffsets(ctx, "cached"); err != nil || got["cached"][0].Offset != end+1 {
			t.Errorf("seed %d: epoch 0 ends at %d, and the log with one more record at %d, %v", seed, end, got["cached"][0].Offset, err)
		}
		cl.Close()
		stop(t, again)
	}
	stop(t, n)
	if lost < 5 {
		t.Errorf("%d of 20 power cuts have lost something: this proves little", lost)
	}
}

// epochEnd returns the end of leader epoch 0, and the current leader epoch.
func epochEnd(ctx context.Context, t *testing.T, cl *kgo.Client) (end int64, current int32) {
	t.Helper()
	topics, err := kadm.NewClient(cl).ListTopics(ctx, "cached")
	if err != nil {
		t.Fatal(err)
	}
	current = topics["cached"].Partitions[0].LeaderEpoch
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = "cached"
	rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	rp.CurrentLeaderEpoch, rp.LeaderEpoch = current, 0
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		resp, _ := shard.Resp.(*kmsg.OffsetForLeaderEpochResponse)
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.LeaderEpoch != 0 {
			t.Fatalf("%+v", p)
		}
		end = p.EndOffset
	}
	return end, current
}

// TestAddedPartitionOpensNoOtherLog proves that adding a partition opens no log of the others,
// of which there may be thousands.
func TestAddedPartitionOpensNoOtherLog(t *testing.T) {
	cfg := Config{Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler)}
	var watched atomic.Bool
	var opened atomic.Int64
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, name string) error {
		if watched.Load() && op == vfs.OpOpen && strings.Contains(name, "/wide-") {
			opened.Add(1)
		}
		return nil
	})
	const parts = 300
	for life := range 2 {
		n, err := startOn(t.Context(), cfg, fs, "boot")
		if err != nil {
			t.Fatal(err)
		}
		ctx := deadline(t)
		if life == 1 {
			watched.Store(true)
			before := n.set.Partition("wide", 0).Leadership()
			errs, err := n.controller.CreatePartitions(ctx, []controller.MorePartitions{{Topic: "wide", Count: parts + 1}}, false)
			if err != nil || errs[0] != nil {
				t.Fatal(err, errs)
			}
			if n.set.Partition("wide", parts) == nil || n.set.Partition("wide", 0).Leadership() != before {
				t.Error("the new partition is missing, or an old one was touched")
			}
			if got := opened.Load(); got > 8 {
				t.Errorf("%d files of the topic were opened", got)
			}
			watched.Store(false)
			stop(t, n)
			return
		}
		cl := client(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if _, err := kadm.NewClient(cl).CreateTopic(ctx, parts, 1, nil, "wide"); err != nil {
			t.Fatal(err)
		}
		for i := range int32(parts) {
			cl.Produce(ctx, &kgo.Record{Topic: "wide", Partition: i, Value: []byte("v")}, nil)
		}
		if err := cl.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		cl.Close()
		stop(t, n)
	}
}

// TestOffsetsTopicCannotGrow proves that no partition can be added to the topic of the groups'
// offsets: groups would then look for theirs in another partition.
func TestOffsetsTopicCannotGrow(t *testing.T) {
	n := start(t, Config{Data: filepath.Join(t.TempDir(), "data")})
	ctx := deadline(t)
	adm := kadm.NewClient(client(t, n))
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	var offsets kadm.Offsets
	offsets.AddOffset("t", 0, 42, -1)
	if err := adm.CommitAllOffsets(ctx, "g", offsets); err != nil {
		t.Fatal(err)
	}
	got, err := adm.CreatePartitions(ctx, 1, group.Topic)
	if err != nil {
		t.Fatal(err)
	}
	if r := got[group.Topic]; r.Err == nil || !strings.Contains(r.ErrMessage, "cannot be increased") {
		t.Errorf("%v: %s", r.Err, r.ErrMessage)
	}
	r, err := adm.FetchOffsets(ctx, "g")
	if o, ok := r.Lookup("t", 0); err != nil || !ok || o.At != 42 {
		t.Errorf("offset %v, %v", o, err)
	}
}

// BenchmarkRestart measures a start after thousands of topics were created one at a time.
func BenchmarkRestart(b *testing.B) {
	const topics = 80_000
	cfg := Config{Data: b.TempDir(), Listen: []string{"127.0.0.1:0"}, HTTP: "off"}
	begin := func() *Node {
		n, err := Start(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	n := begin()
	term, _ := n.quorum.Leading()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < topics; i += 64 {
				if err := n.quorum.Propose(b.Context(), term, topicRecords(fmt.Sprintf("topic-%d", i))); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_ = n.Stop(b.Context())
	for b.Loop() {
		n = begin()
		b.StopTimer()
		_ = n.Stop(b.Context())
		b.StartTimer()
	}
}
