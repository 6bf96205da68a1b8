package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/replica"
)

// linkAs makes a link of a name from another site.
func (s *site) linkAs(name string, from *site) {
	s.t.Helper()
	a, refused, err := s.any().linking.ServeLink(s.t.Context(), &cluster.LinkRequest{Verb: cluster.LinkCreate, Name: name, Settings: []meta.LinkSetting{
		{Key: "bootstrap.servers", Value: strings.Join(from.ports, ",")}, {Key: "topics", Value: "*"},
	}})
	if err != nil || refused != nil || len(a.Problems) > 0 || !a.Changed {
		s.t.Fatalf("%+v, %v, %v", a, refused, err)
	}
}

// askLink asks a node for something of a link, which must not be refused.
func (s *site) askLink(q *cluster.LinkRequest) cluster.LinkAnswer {
	s.t.Helper()
	a, refused, err := s.any().linking.ServeLink(deadline(s.t), q)
	if refused != nil || err != nil {
		s.t.Fatalf("%s: %+v, %v, %v", q.Verb, a, refused, err)
	}
	return a
}

// awaitReplicas waits until all replicas of a topic are in sync.
func (s *site) awaitReplicas(topic string) {
	s.t.Helper()
	eventually(s.t, "all replicas of "+topic+" are in sync", func() bool {
		return !slices.ContainsFunc(s.any().image.Load().Topic(topic).Partitions, func(p meta.Partition) bool { return len(p.ISR) != len(s.nodes) })
	})
}

// promote makes an ordinary topic of a mirror.
func promote(t *testing.T, s *site, topic string) {
	t.Helper()
	results, refused, err := cluster.ChangeLinks(deadline(t), s.any().peers.commands, &controller.LinksChange{Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: s.any().image.Load().Topic(topic).ID}}})
	if err != nil || refused != nil || results[0] != nil {
		t.Fatal(results, refused, err)
	}
	eventually(t, "the topic is promoted", func() bool { return !s.any().image.Load().Topic(topic).IsMirror() })
}

// TestRestore proves that the old site of a failover becomes a mirror of the new one: what was written there and never mirrored is cut in all replicas, also in one that was away, and kept; the rest is not copied again; clients cannot write
// there any more; and the bytes of both are the same. It does so twice, forth and back, so that each site was once the old one.
func TestRestore(t *testing.T) {
	a, b := newSite(t, 3), newSite(t, 1)
	a.create("orders", 2, nil)
	a.produceAll("orders")
	b.linkAs("north", a)
	b.awaitMirrored(a, "orders")
	b.askLink(&cluster.LinkRequest{Verb: cluster.LinkPause, Name: "north"})
	begin := func(id string) *kgo.Client {
		cl := a.client(kgo.TransactionalID(id))
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "orders", Value: []byte(id)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return cl
	}
	commits, aborts := begin("commits"), begin("aborts")
	a.produce("orders", 11) // the tail
	_, fork := b.limits("orders", 0)
	_, lost := a.limits("orders", 0)
	if lost < fork+11 {
		t.Fatalf("the mirror ends at %d, and the source at %d", fork, lost)
	}
	promote(t, b, "orders")
	b.produce("orders", 30)

	a.linkAs("south", b)
	dry := a.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "south", DryRun: true})
	if len(dry.Topics) != 1 || dry.Topics[0] != (cluster.LinkTopic{Source: "orders", Name: "orders", Partitions: 2}) || a.any().image.Load().Topic("orders").IsMirror() {
		t.Fatalf("a dry run: %+v", dry)
	}
	absent := a.any().image.Load().Topic("orders").Partitions[0].Replicas[2] - 1
	a.stop(int(absent))
	for range 2 { // the second time there is nothing left to do
		if got := a.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "south"}); len(got.Problems) > 0 {
			t.Fatalf("%+v", got)
		}
	}
	a.awaitMirrored(b, "orders")
	a.start(int(absent), Config{})
	b.produce("orders", 7)
	a.awaitMirrored(b, "orders")
	a.awaitReplicas("orders")
	for i, n := range a.nodes {
		tails, err := replica.Tails(n.set.Partition("orders", 0))
		if err != nil || len(tails) != 1 {
			t.Errorf("machine %d has kept %+v, %v", i, tails, err)
		}
	}
	if err := a.client().ProduceSync(deadline(t), &kgo.Record{Topic: "orders", Value: []byte("x")}).FirstErr(); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("a record of a client at the old site: %v", err)
	}
	if err := commits.EndTransaction(deadline(t), kgo.TryCommit); err == nil {
		t.Error("a transaction is committed at the old site that nobody will ever read")
	}
	if err := aborts.EndTransaction(deadline(t), kgo.TryAbort); err != nil {
		t.Errorf("a transaction cannot be aborted at the old site: %v", err)
	}
	eventually(t, "the transactions have ended", func() bool {
		found, err := kadm.NewClient(a.client()).DescribeTransactions(deadline(t), "aborts")
		return err == nil && found["aborts"].State == "CompleteAbort"
	})
	if x, y := consumeCommitted(t, b, "orders"), consumeCommitted(t, a, "orders"); len(x) == 0 || !slices.Equal(x, y) {
		t.Errorf("clients read %d records at the new site, and %d others at the old one", len(x), len(y))
	}

	a.askLink(&cluster.LinkRequest{Verb: cluster.LinkPause, Name: "south"})
	b.produce("orders", 5)
	promote(t, a, "orders")
	a.produceAll("orders")
	if got := b.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "north", Topics: []string{"orders"}}); len(got.Problems) > 0 || !got.Changed {
		t.Fatalf("%+v", got)
	}
	b.askLink(&cluster.LinkRequest{Verb: cluster.LinkResume, Name: "north"})
	b.awaitMirrored(a, "orders")
	a.produce("orders", 3)
	b.awaitMirrored(a, "orders")
	for i := range a.nodes {
		a.stop(i)
	}
	b.stop(0)
	b.compareSegments(a, "orders", "orders", 2)
}

// TestPositionsAfterAPromotion proves that a group which was ahead of a mirror at the source reads, after a promotion, all that clients write here, from the first record on.
func TestPositionsAfterAPromotion(t *testing.T) {
	a, b := newSite(t, 1), newSite(t, 1)
	a.create("orders", 1, nil)
	a.produce("orders", 20)
	b.linkAs("north", a)
	b.awaitMirrored(a, "orders")
	b.askLink(&cluster.LinkRequest{Verb: cluster.LinkPause, Name: "north", Topics: []string{"orders"}})
	a.produce("orders", 11)
	offsets := make(kadm.Offsets)
	offsets.AddOffset("orders", 0, 31, -1)
	if err := kadm.NewClient(a.client()).CommitAllOffsets(deadline(t), "billing", offsets); err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(b.client())
	at := func() int64 {
		found, err := admin.FetchOffsets(deadline(t), "billing")
		if o, ok := found.Lookup("orders", 0); err == nil && ok {
			return o.At
		}
		return -1
	}
	eventually(t, "the position is here, within the mirror", func() bool { return at() == 20 })
	promote(t, b, "orders")
	b.produce("orders", 15)
	if got := at(); got != 20 {
		t.Errorf("the group goes on at %d, and the records from 20 on are new to it", got)
	}
}

// TestRestoreIsRefused proves that a topic which the other cluster has not taken over, or does not have, is not restored, with the reason, and is as it was.
func TestRestoreIsRefused(t *testing.T) {
	a, b := newSite(t, 1), newSite(t, 1)
	for _, s := range []*site{a, b} {
		s.create("orders", 1, nil)
		s.produce("orders", 10)
	}
	a.create("alone", 1, nil)
	a.linkAs("south", b)
	got := a.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "south", Topics: []string{"orders", "alone"}})
	if text := fmt.Sprint(got.Problems); len(got.Problems) != 2 || !strings.Contains(text, "has not taken over from a mirror") || !strings.Contains(text, "alone is not in both clusters") {
		t.Errorf("%+v", got.Problems)
	}
	if got := a.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "south"}); got.Changed || len(got.Problems) > 0 || len(got.Topics) > 0 {
		t.Errorf("without names: %+v", got)
	}
	a.produce("orders", 3)

	// A topic that was made again under the name of the one that was mirrored is another one, though its offsets and epochs look the same.
	a.create("again", 1, nil)
	a.produce("again", 10)
	b.linkAs("north", a)
	b.awaitMirrored(a, "again")
	promote(t, b, "again")
	if _, err := kadm.NewClient(a.client()).DeleteTopic(deadline(t), "again"); err != nil {
		t.Fatal(err)
	}
	a.create("again", 1, nil)
	a.produce("again", 5)
	got = a.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "south", Topics: []string{"again"}})
	if text := fmt.Sprint(got.Problems); got.Changed || !strings.Contains(text, "this one was made later") {
		t.Errorf("a topic that was made again: %+v", got)
	}
	got = a.askLink(&cluster.LinkRequest{Verb: cluster.LinkRestore, Name: "south"})
	if text := fmt.Sprint(got.Warnings); got.Changed || len(got.Problems) > 0 || !strings.Contains(text, "this one was made later") {
		t.Errorf("without names: %+v", got)
	}
}
