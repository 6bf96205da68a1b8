package node

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// ask asks a node about its link, as the holder of its directory does.
func (s *site) ask(q cluster.LinkRequest) cluster.LinkAnswer {
	s.t.Helper()
	q.Name, q.Within = "north", time.Minute
	a, refused, err := s.any().linking.ServeLink(s.t.Context(), &q)
	if err != nil || refused != nil {
		s.t.Fatal(refused, err)
	}
	return a
}

// isPromoting tells whether the promotion of a topic has begun.
func (s *site) isPromoting(topic string) bool {
	return s.any().image.Load().Topic(topic).Mirror.State >= meta.MirrorPromoting
}

// refuses proves that a request finds a problem, and begins no promotion.
func (s *site) refuses(q cluster.LinkRequest, about, text string) {
	s.t.Helper()
	before := s.any().image.Load()
	a := s.ask(q)
	if len(a.Problems) == 0 || a.Changed || a.Problems[0].About != about || !strings.Contains(a.Problems[0].Text, text) || !strings.HasSuffix(a.Problems[0].Text, ".") {
		s.t.Errorf("%+v: %+v, want %s", q, a, text)
	}
	for _, topic := range []string{"orders", "web"} {
		if before.Topic(topic).Mirror.State != s.any().image.Load().Topic(topic).Mirror.State {
			s.t.Errorf("%+v has changed %s", q, topic)
		}
	}
}

// TestPromotionsAreChecked proves that a promotion begins only when all that the source had is here and the source says so, and a failover only when the source is silent to all nodes, or by force; that what has begun is not begun
// again; and that other topics of the link are left as they are.
func TestPromotionsAreChecked(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 2)
	there.create("orders", 3, nil)
	there.create("web", 1, nil)
	there.create("logs", 1, nil)
	there.create("t", 1, nil)
	there.produce("orders", 10)
	here.link(there, nil)
	for _, topic := range []string{"orders", "web", "logs", "t"} {
		here.awaitMirrored(there, topic)
	}
	promote := func(topics ...string) cluster.LinkRequest {
		return cluster.LinkRequest{Verb: cluster.LinkPromote, Topics: topics}
	}
	failover := func(topics ...string) cluster.LinkRequest {
		return cluster.LinkRequest{Verb: cluster.LinkFailover, Topics: topics}
	}
	here.refuses(failover("orders"), "source", "The source answers at ")
	here.ask(cluster.LinkRequest{Verb: cluster.LinkPause, Topics: []string{"orders"}})
	here.refuses(promote("web", "orders"), "orders-0", "It is PAUSED.")
	here.ask(cluster.LinkRequest{Verb: cluster.LinkResume, Topics: []string{"orders"}})
	newWireProducer(t, there.any(), "open", true).write(0, 0, "open")
	here.awaitMirrored(there, "t")
	here.refuses(promote("t"), "t-0", "Transactions are open in it, 1, which would be aborted here")
	dry := promote("orders")
	dry.DryRun = true
	eventually(t, "orders could be promoted", func() bool { return here.ask(dry).Changed })
	if here.isPromoting("orders") {
		t.Fatal("a dry run begins a promotion")
	}
	eventually(t, "the promotion of orders begins", func() bool { return here.ask(promote("orders")).Changed })
	if !here.isPromoting("orders") || here.isPromoting("web") || here.isPromoting("logs") {
		t.Error("the wrong topics are promoted")
	}
	if a := here.ask(promote("orders")); a.Changed || len(a.Problems) > 0 {
		t.Errorf("said again: %+v", a)
	}
	forced := failover("logs")
	forced.Force, forced.DryRun = true, true
	if a := here.ask(forced); !a.Changed || here.isPromoting("logs") {
		t.Errorf("a dry run by force: %+v", a)
	}
	forced.DryRun = false
	if a := here.ask(forced); !a.Changed || !here.isPromoting("logs") {
		t.Errorf("by force: %+v", a)
	}
	there.stop(0)
	eventually(t, "the source is away", func() bool {
		a := here.ask(promote("web"))
		return len(a.Problems) == 1 && strings.HasPrefix(a.Problems[0].Text, "It is WAITING: ")
	})
	here.refuses(promote(), "t-0", "It is WAITING: ")
	if a := here.ask(failover()); !a.Changed || !here.isPromoting("web") || !strings.Contains(a.Steps[0], "the source does not answer: Nobody answers at ") {
		t.Errorf("the source is gone: %+v", a)
	}
	if a := here.ask(failover()); a.Changed || len(a.Problems) > 0 {
		t.Errorf("said again: %+v", a)
	}
	if _, refused, err := here.any().linking.ServeLink(t.Context(), &cluster.LinkRequest{Verb: cluster.LinkFailover, Name: "north", Topics: []string{"other"}}); err != nil || refused == nil {
		t.Error("a topic that does not mirror", refused, err)
	}
}

// describe tells how the partitions of a topic do.
func (s *site) describe(topic string) []cluster.PartitionStatus {
	s.t.Helper()
	n := s.any()
	list, _, err := cluster.DescribeMirrors(s.t.Context(), n.peers.commands, n.image.Load().Links().FindName("north"), []string{topic})
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// TestFailoverTellsWhatIsLost proves that after a failover from a source that was killed while mirrors were behind, it is told exactly where each of them ended and how far the source had got, that clients read what was there
// and write behind it; that a partition whose leader is gone, too, is said to have lost nobody knows what; and that a transaction of which nobody knows how it ended is listed.
func TestFailoverTellsWhatIsLost(t *testing.T) {
	const partitions, records, size = 4, 30, 100_000
	there, here := newSite(t, 1), newSite(t, 2)
	there.create("t", 1, nil)
	there.create("orders", partitions, nil)
	here.link(there, map[string]string{"throttle.bytes.per.second": "1000000"})
	newWireProducer(t, there.any(), "open", true).write(0, 0, "open")
	here.awaitMirrored(there, "t")
	here.awaitMirrored(there, "orders")
	in := func(p int) *meta.Partition { return &here.any().image.Load().Topic("orders").Partitions[p] }
	eventually(t, "all replicas are in sync", func() bool {
		return !slices.ContainsFunc(here.any().image.Load().Topic("orders").Partitions, func(p meta.Partition) bool { return len(p.ISR) < 2 })
	})
	random := rand.NewChaCha8([32]byte{1})
	cl := there.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(900_000))
	for n := range partitions * records {
		value := make([]byte, size)
		_, _ = random.Read(value)
		cl.Produce(deadline(t), &kgo.Record{Topic: "orders", Partition: int32(n % partitions), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all know how far the source has got", func() bool {
		return !slices.ContainsFunc(here.describe("orders"), func(p cluster.PartitionStatus) bool { return p.SourceEnd != records })
	})
	here.ask(cluster.LinkRequest{Verb: cluster.LinkPause}) // else a slow test would see all of it here
	there.stop(0)
	self := here.nodes[0].id.nodeID
	var stays [partitions]bool
	for p := range partitions {
		stays[p] = in(p).Leader == self
	}
	here.stop(1)
	eventually(t, "the other node leads all", func() bool {
		return !slices.ContainsFunc(here.describe("orders"), func(p cluster.PartitionStatus) bool { return p.Node != self || p.End < 0 })
	})
	var ends [partitions]int64
	for p, s := range here.describe("orders") {
		if ends[p] = s.End; s.End >= records {
			t.Fatalf("nothing is missing: %+v", s)
		}
	}
	if a := here.ask(cluster.LinkRequest{Verb: cluster.LinkFailover}); !a.Changed || len(a.Problems) > 0 {
		t.Fatalf("%+v", a)
	}
	here.awaitPromoted("orders")
	here.awaitPromoted("t")
	for p, s := range here.describe("orders") {
		r := s.Parting
		if r == nil || r.End != ends[p] || r.Start != ends[p] {
			t.Fatalf("partition %d ended at %d: %+v", p, ends[p], r)
		}
		isKnown := r.SourceEnd == records && r.Records == records-ends[p] && !r.Contact.IsZero() && !r.AsOf.IsZero() && !r.AsOf.After(r.Contact) && r.State == "MIRRORING" &&
			(r.Bytes > r.Records*size/2 && r.Bytes < r.Records*size*2 || r.Bytes == -1 && ends[p] == 0)
		isUnknown := r.SourceEnd == -1 && r.Records == -1 && r.Bytes == -1 && r.Contact.IsZero() && r.AsOf.IsZero()
		if stays[p] && !isKnown || !stays[p] && !isUnknown || r.Begun.IsZero() {
			t.Errorf("partition %d ended at %d, and its leader has stayed is %v: %+v", p, ends[p], stays[p], r)
		}
		after := &kgo.Record{Topic: "orders", Partition: int32(p), Value: []byte("after")}
		if err := here.client(kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(deadline(t), after).FirstErr(); err != nil || after.Offset != ends[p] {
			t.Errorf("partition %d ended at %d, and the next record is at %d: %v", p, ends[p], after.Offset, err)
		}
	}
	if !slices.Contains(stays[:], true) || !slices.Contains(stays[:], false) {
		t.Errorf("who has led: %v", stays)
	}
	open := here.describe("t")[0].Parting
	if want := []cluster.PartedTransaction{{Producer: open.Transactions[0].Producer, Outcome: "ABORTED_UNDECIDED"}}; !slices.Equal(open.Transactions, want) {
		t.Errorf("%+v", open.Transactions)
	}
}

// TestLackIsExplained proves which partitions are taken to have all that the source had when a promotion was asked for, and what is said of the others.
func TestLackIsExplained(t *testing.T) {
	const since = 2 * time.Second
	for want, p := range map[string]cluster.PartitionStatus{
		"": {State: "MIRRORING", Lag: cluster.Lag{RPO: time.Second}},
		"It is not known whether transactions are open in it.":                                 {State: "MIRRORING", Lag: cluster.Lag{RPO: time.Second}, Open: -1},
		"It had all 3s ago, at most, and the source has not said since whether there is more.": {State: "MIRRORING", Lag: cluster.Lag{RPO: 3 * time.Second}},
		"It lacks 7 records, which end at offset 17; 1s ago, at most, it had all.":             {State: "MIRRORING", SourceEnd: 17, Lag: cluster.Lag{Records: 7, RPO: time.Second}},
		"It is not known yet how far it is behind the source.":                                 {State: "MIRRORING", Lag: cluster.Lag{RPO: -1}},
		"It is FAILED: a wrong checksum.":                                                      {State: "FAILED", Reason: "a wrong checksum."},
		"It is UNKNOWN.":                                                                       {State: "UNKNOWN", Lag: cluster.UnknownLag()},
	} {
		if got := explainLack(&p, since); got != want {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
}

// TestSourceIsHeardElsewhere proves that a source is taken to answer if the contact of any node moves on, and not if it is only told with another clock, or if another node has told before.
func TestSourceIsHeardElsewhere(t *testing.T) {
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	status := func(partition, node int32, contact time.Time) cluster.PartitionStatus {
		return cluster.PartitionStatus{PartitionPlace: cluster.PartitionPlace{Topic: "t", Partition: partition}, Node: node, LastContact: contact}
	}
	before := []cluster.PartitionStatus{status(0, 1, at), status(1, 2, at), status(2, 1, time.Time{}), status(3, 1, time.Time{})}
	if p := findHeard(before, []cluster.PartitionStatus{status(0, 1, at.Add(heardAgain-1)), status(1, 1, at.Add(time.Hour)), status(2, 1, time.Time{}), status(4, 1, at)}); p != nil {
		t.Errorf("%+v", p)
	}
	for _, p := range []cluster.PartitionStatus{status(1, 2, at.Add(heardAgain)), status(3, 1, at)} {
		if got := findHeard(before, []cluster.PartitionStatus{status(0, 1, at), p}); got == nil || got.Partition != p.Partition {
			t.Errorf("%+v: %+v", p, got)
		}
	}
}
