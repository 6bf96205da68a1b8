package node

import (
	"strings"
	"testing"
	"time"

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
	there.produce("orders", 10)
	here.link(there, nil)
	for _, topic := range []string{"orders", "web", "logs"} {
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
	here.refuses(promote(), "web-0", "It is WAITING: ")
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

// TestLackIsExplained proves which partitions are taken to have all that the source had when a promotion was asked for, and what is said of the others.
func TestLackIsExplained(t *testing.T) {
	const since = 2 * time.Second
	for want, p := range map[string]cluster.PartitionStatus{
		"": {State: "MIRRORING", Lag: cluster.Lag{RPO: time.Second}},
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
