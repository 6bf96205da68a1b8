package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// site is one node that is a cluster of its own, and keeps its directory and its port.
type site struct {
	*machines
}

func newSite(t *testing.T, nodes int) *site {
	t.Helper()
	return &site{newCluster(t, nodes)}
}

// link makes a link from another site, as an administrator does.
func (s *site) link(from *site, settings map[string]string) {
	s.t.Helper()
	s.linkTo(from.ports, settings)
}

func (s *site) linkTo(addresses []string, settings map[string]string) {
	s.t.Helper()
	set := map[string]string{"bootstrap.servers": strings.Join(addresses, ","), "topics": "*"}
	maps.Copy(set, settings)
	q := &cluster.LinkRequest{Verb: cluster.LinkCreate, Name: "north"}
	for k, v := range set {
		q.Settings = append(q.Settings, meta.LinkSetting{Key: k, Value: v})
	}
	slices.SortFunc(q.Settings, func(a, b meta.LinkSetting) int { return strings.Compare(a.Key, b.Key) })
	a, refused, err := s.any().linking.ServeLink(s.t.Context(), q)
	if err != nil || refused != nil || len(a.Problems) > 0 || !a.Changed {
		s.t.Fatalf("%+v, %v, %v", a, refused, err)
	}
}

// any is a node that runs.
func (s *site) any() *Node {
	s.t.Helper()
	i := slices.IndexFunc(s.nodes, func(n *Node) bool { return n != nil })
	if i < 0 {
		s.t.Fatal("no node runs")
	}
	return s.nodes[i]
}

// create makes a topic.
func (s *site) create(topic string, partitions int32, configs map[string]string) {
	s.t.Helper()
	set := map[string]*string{}
	for k, v := range configs {
		set[k] = &v
	}
	if _, err := kadm.NewClient(s.client()).CreateTopic(s.t.Context(), partitions, int16(min(len(s.nodes), 3)), set, topic); err != nil {
		s.t.Fatal(err)
	}
}

// produceAll writes batches of all kinds.
func (s *site) produceAll(topic string) {
	s.t.Helper()
	produceAll(s.t, s.client, topic, s.partitions(topic))
}

// produceAll writes batches of all kinds: of several codecs, of idempotent producers, of transactions that end in either way, and their markers.
func produceAll(t *testing.T, client func(opts ...kgo.Opt) *kgo.Client, topic string, partitions int) {
	t.Helper()
	ctx := deadline(t)
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.ZstdCompression(), kgo.Lz4Compression(), kgo.SnappyCompression()} {
		cl := client(kgo.ProducerBatchCompression(codec), kgo.TransactionalID(fmt.Sprintf("%s-%d", topic, i)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for n := range 4 {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			for k := range 60 {
				cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(k % partitions), Key: fmt.Append(nil, "k", k%7), Value: bytes.Repeat([]byte{byte('a' + n)}, 100+k)}, nil)
			}
			if err := cl.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(n%2 == 0)); err != nil {
				t.Fatal(err)
			}
		}
		cl.Close()
	}
	produce(t, client, topic, partitions, 20)
}

// produce writes some records into each partition.
func (s *site) produce(topic string, records int) {
	s.t.Helper()
	produce(s.t, s.client, topic, s.partitions(topic), records)
}

// produce writes some records into each partition.
func produce(t *testing.T, client func(opts ...kgo.Opt) *kgo.Client, topic string, partitions, records int) {
	t.Helper()
	cl := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for p := range partitions {
		for k := range records {
			cl.Produce(deadline(t), &kgo.Record{Topic: topic, Partition: int32(p), Key: fmt.Append(nil, "k", k), Value: fmt.Append(nil, "record ", k)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	if err := cl.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
	cl.Close()
}

// partitions is how many partitions a topic has.
func (s *site) partitions(topic string) int {
	s.t.Helper()
	t := s.any().image.Load().Topic(topic)
	if t == nil {
		return 0
	}
	return len(t.Partitions)
}

// limits are the start and the high watermark of a partition, as its leader has them; -1: there is none.
func (s *site) limits(topic string, partition int) (start, high int64) {
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		if p := n.set.Partition(topic, int32(partition)); p != nil && p.Leadership().Leader == n.id.nodeID {
			return int64(p.Start()), int64(p.HighWatermark())
		}
	}
	return -1, -1
}

// awaitMirrored waits until a topic here has all partitions of that of another site, with their starts and high watermarks.
func (s *site) awaitMirrored(from *site, topic string) {
	s.t.Helper()
	s.awaitMirroredAs(from, topic, topic)
}

func (s *site) awaitMirroredAs(from *site, topic, here string) {
	s.t.Helper()
	last := ""
	defer func() {
		if s.t.Failed() {
			s.t.Log(last)
			s.logMirrors()
		}
	}()
	eventually(s.t, here+" is mirrored", func() bool {
		n := from.partitions(topic)
		if last = fmt.Sprintf("%d of %d partitions", s.partitions(here), n); n == 0 || s.partitions(here) != n {
			return false
		}
		for p := range n {
			wantStart, wantHigh := from.limits(topic, p)
			start, high := s.limits(here, p)
			if last = fmt.Sprintf("partition %d: %d to %d, want %d to %d", p, start, high, wantStart, wantHigh); start != wantStart || high != wantHigh || high < 0 {
				return false
			}
		}
		return true
	})
}

// logMirrors logs how the partitions of all nodes do.
func (s *site) logMirrors() {
	for i, n := range s.nodes {
		if n == nil {
			continue
		}
		for _, l := range n.image.Load().Links().All() {
			for _, st := range n.linking.ListMirrors(l.ID) {
				s.t.Logf("machine %d: %s-%d %s %s, %+v", i, st.Topic, st.Partition, st.State, st.Reason, st)
			}
		}
		s.t.Logf("machine %d: %+v", i, n.linking.ListTasks())
	}
}

// segmentsOf are the bytes of the segments of a partition in a directory, one behind the other, without the room that was made for more.
func segmentsOf(t *testing.T, dir, topic string, partition int) (all []byte) {
	t.Helper()
	want := fmt.Sprintf("%s-%d", topic, partition)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(filepath.Dir(path)) == want && filepath.Ext(path) == ".log" {
			var b []byte
			b, err = os.ReadFile(path)
			all = append(all, bytes.TrimRight(b, "\x00")...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// compareSegments proves that all replicas of a topic here have the bytes of the source's.
func (s *site) compareSegments(from *site, topic, here string, partitions int) {
	s.t.Helper()
	for p := range partitions {
		want := segmentsOf(s.t, from.dirs[0], topic, p)
		for i, dir := range s.dirs {
			if got := segmentsOf(s.t, dir, here, p); len(want) == 0 || !bytes.Equal(got, want) {
				s.t.Errorf("machine %d: partition %d of %s has %d bytes, and the source has %d others", i, p, here, len(got), len(want))
			}
		}
	}
}

// TestMirrorIsEqual proves, with a node that mirrors another one, that the segments of mirrored topics are equal byte by byte, that clients read them as at the source, that the high watermark and the log's start
// follow, that partitions and configs come with them, and that clients cannot write to them.
func TestMirrorIsEqual(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 1)
	there.create("orders", 3, map[string]string{"retention.ms": "123456789"})
	there.create("table", 1, map[string]string{"cleanup.policy": "compact"})
	there.produceAll("orders")
	there.produce("table", 50)
	here.link(there, map[string]string{"prefix": "north."})
	here.awaitMirroredAs(there, "orders", "north.orders")
	here.awaitMirroredAs(there, "table", "north.table")
	here.compareSegments(there, "orders", "north.orders", 3)
	here.compareSegments(there, "table", "north.table", 1)
	there.produceAll("orders")
	here.awaitMirroredAs(there, "orders", "north.orders")
	here.compareSegments(there, "orders", "north.orders", 3)

	n := here.any()
	configs := func(topic string) map[string]string {
		return n.image.Load().Overrides(config.Resource{Type: config.Topic, Name: topic})
	}
	if got := configs("north.orders")["retention.ms"] + configs("north.table")["cleanup.policy"]; got != "123456789compact" {
		t.Errorf("the configs are %q", got)
	}
	if a, b := consumeCommitted(t, there, "orders"), consumeCommitted(t, here, "north.orders"); len(a) == 0 || !slices.Equal(a, b) {
		t.Errorf("clients read %d records there, and %d others here", len(a), len(b))
	}
	if err := here.client().ProduceSync(deadline(t), &kgo.Record{Topic: "north.orders", Value: []byte("x")}).FirstErr(); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("a record of a client: %v", err)
	}
	admin := kadm.NewClient(there.client())
	if _, err := admin.DeleteRecords(deadline(t), kadm.Offsets{"orders": {1: {Topic: "orders", Partition: 1, At: 100}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreatePartitions(deadline(t), 2, "orders"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there are more partitions", func() bool { return here.partitions("north.orders") == 5 })
	there.produce("orders", 10)
	here.awaitMirroredAs(there, "orders", "north.orders")
	if start, _ := here.limits("north.orders", 1); start != 100 {
		t.Errorf("the start is %d", start)
	}
}

// consumeCommitted reads what a consumer of committed records sees of a topic.
func consumeCommitted(t *testing.T, s *site, topic string) (all []string) {
	t.Helper()
	want := int64(0)
	for p := range s.partitions(topic) {
		_, high := s.limits(topic, p)
		want += high
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := s.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	defer cl.Close()
	ends := map[int32]int64{}
	for {
		sum := int64(0)
		for _, e := range ends {
			sum += e
		}
		if sum == want {
			break
		}
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			ends[r.Partition] = r.Offset + 1
			all = append(all, fmt.Sprintf("%d %d %d %s %s %v", r.Partition, r.Offset, r.LeaderEpoch, r.Key, r.Value, r.Attrs.IsControl()))
		})
	}
	slices.Sort(all)
	return all
}

// TestMirrorSurvivesRestarts proves that a mirror goes on from where it was after a restart of the node here, and of the one there, and that it does when a source that was gone is back.
func TestMirrorSurvivesRestarts(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 1)
	there.create("orders", 2, nil)
	there.produceAll("orders")
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	here.stop(0)
	there.produceAll("orders")
	here.start(0, Config{})
	here.awaitMirrored(there, "orders")
	there.stop(0)
	id := here.any().image.Load().Links().All()[0].ID
	eventually(t, "the mirror waits", func() bool {
		list := here.any().linking.ListMirrors(id)
		return len(list) == 2 && !slices.ContainsFunc(list, func(s cluster.PartitionStatus) bool { return s.State != "WAITING" || s.Reason == "" })
	})
	there.start(0, Config{})
	there.produce("orders", 10)
	here.awaitMirrored(there, "orders")
	here.stop(0)
	there.stop(0)
	here.compareSegments(there, "orders", "orders", 2)
}

// TestMirrorInACluster proves that all three replicas of mirrored partitions have the source's bytes, whichever node leads them, while their leaders stop and come back.
func TestMirrorInACluster(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("orders", 6, nil)
	there.produceAll("orders")
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	eventually(t, "each node leads some", func() bool {
		return !slices.ContainsFunc(here.nodes, func(n *Node) bool { return len(n.linking.ListMirrors(n.image.Load().Links().All()[0].ID)) == 0 })
	})
	for i := range here.nodes {
		here.stop(i)
		there.produceAll("orders")
		here.awaitMirrored(there, "orders")
		here.start(i, Config{})
	}
	there.produceAll("orders")
	here.awaitMirrored(there, "orders")
	eventually(t, "all replicas are in sync", func() bool {
		for _, p := range here.any().image.Load().Topic("orders").Partitions {
			if len(p.ISR) != 3 {
				return false
			}
		}
		return true
	})
	for i := range here.nodes {
		here.stop(i)
	}
	there.stop(0)
	here.compareSegments(there, "orders", "orders", 6)
}

// TestMirrorIsCut proves that all replicas of a mirror cut what the source has lost, though it was committed here, and then have what the source has: its directory was put back from an older copy.
func TestMirrorIsCut(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("orders", 2, nil)
	there.produceAll("orders")
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	there.stop(0)
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(there.dirs[0])); err != nil {
		t.Fatal(err)
	}
	there.start(0, Config{})
	there.produceAll("orders")
	here.awaitMirrored(there, "orders")
	there.stop(0)
	there.dirs[0] = older
	stop(t, start(t, Config{Data: older})) // where nobody finds it: a start more, so that its leader epoch is not that of the records that are lost
	there.start(0, Config{})
	there.produce("orders", 7)
	here.awaitMirrored(there, "orders")
	for _, p := range here.any().image.Load().Topic("orders").Partitions {
		if len(p.Mirror.Cuts) != 1 {
			t.Errorf("%+v", p.Mirror)
		}
	}
	eventually(t, "all replicas are in sync", func() bool {
		for _, p := range here.any().image.Load().Topic("orders").Partitions {
			if len(p.ISR) != 3 {
				return false
			}
		}
		return true
	})
	for i := range here.nodes {
		here.stop(i)
	}
	there.stop(0)
	here.compareSegments(there, "orders", "orders", 2)
}

// TestMirrorLeavesOutAGap proves that a mirror stops where the source has deleted what is not here, and goes on behind it on all replicas when a person accepts the loss; and that a topic which begins
// at its end begins there here, too.
func TestMirrorLeavesOutAGap(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("orders", 1, nil)
	there.produce("orders", 100)
	here.link(there, map[string]string{"rename": "late=from-the-end"})
	here.awaitMirrored(there, "orders")
	ask := func(verb cluster.LinkVerb, topics ...string) {
		t.Helper()
		a, refused, err := here.any().linking.ServeLink(deadline(t), &cluster.LinkRequest{Verb: verb, Name: "north", Topics: topics})
		if refused != nil || err != nil || !a.Changed {
			t.Fatalf("%+v, %v, %v", a, refused, err)
		}
	}
	ask(cluster.LinkPause)
	there.produce("orders", 100)
	there.create("late", 1, nil)
	there.produce("late", 70)
	admin := kadm.NewClient(there.client())
	if _, err := admin.DeleteRecords(deadline(t), kadm.Offsets{
		"orders": {0: {Topic: "orders", Partition: 0, At: 150}}, "late": {0: {Topic: "late", Partition: 0, At: 60}},
	}); err != nil {
		t.Fatal(err)
	}
	ask(cluster.LinkResume)
	var gap cluster.PartitionStatus
	eventually(t, "there is a gap", func() bool {
		for _, n := range here.nodes {
			for _, s := range n.linking.ListMirrors(n.image.Load().Links().All()[0].ID) {
				if s.Topic == "orders" && s.State == "GAP" {
					gap = s
				}
			}
		}
		return gap.State != ""
	})
	if gap.From != 100 || gap.To != 150 || gap.Reason == "" {
		t.Errorf("%+v", gap)
	}
	here.awaitMirroredAs(there, "late", "from-the-end")
	here.compareSegments(there, "late", "from-the-end", 1)
	ask(cluster.LinkSkip, "orders")
	here.awaitMirrored(there, "orders")
	there.produce("orders", 10)
	here.awaitMirrored(there, "orders")
	eventually(t, "all replicas have all", func() bool {
		for _, n := range here.nodes {
			if p := n.set.Partition("orders", 0); p == nil || p.Start() != 150 || p.HighWatermark() != 210 {
				return false
			}
		}
		return true
	})
	for i := range here.nodes {
		here.stop(i)
		there.produce("orders", 10)
		here.awaitMirrored(there, "orders")
		here.start(i, Config{})
	}
}

// TestMirrorsOfMirrors proves that a mirror can be mirrored in turn, byte by byte, that each cluster tells over which others a topic has come, and that no link brings it back to one of them.
func TestMirrorsOfMirrors(t *testing.T) {
	first, second, third := newSite(t, 1), newSite(t, 1), newSite(t, 1)
	first.create("orders", 2, nil)
	first.produceAll("orders")
	second.link(first, nil)
	second.awaitMirrored(first, "orders")
	third.link(second, map[string]string{"prefix": "x."})
	third.awaitMirroredAs(first, "orders", "x.orders")
	third.compareSegments(first, "orders", "x.orders", 2)
	ids := []string{first.any().id.clusterID, second.any().id.clusterID}
	if got := third.any().image.Load().Topic("x.orders").Mirror.Path; !slices.Equal(got, ids) {
		t.Errorf("the path is %q, and not %q", got, ids)
	}
	first.link(third, map[string]string{"topics": "x.*"})
	eventually(t, "the cycle is seen", func() bool {
		for _, s := range first.any().linking.ListTasks() {
			if strings.Contains(s.Reason, "comes from this cluster") {
				return true
			}
		}
		return false
	})
	if first.any().image.Load().Topic("x.orders") != nil {
		t.Error("the topic comes back")
	}
	a, refused, err := third.any().linking.ServeLink(t.Context(), &cluster.LinkRequest{Verb: cluster.LinkCreate, Name: "self", Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: third.ports[0]}}})
	if err != nil || refused != nil || len(a.Problems) != 1 || !strings.Contains(a.Problems[0].Text, "this cluster itself") {
		t.Errorf("%+v, %v, %v", a, refused, err)
	}
}
