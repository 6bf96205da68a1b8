package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// promote begins the promotion of a topic.
func (s *site) promote(topic string) {
	s.t.Helper()
	n := s.any()
	results, refused, err := cluster.ChangeLinks(s.t.Context(), n.peers.commands, &controller.LinksChange{
		Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: n.image.Load().Topic(topic).ID}},
	})
	if err != nil || refused != nil || results[0] != nil {
		s.t.Fatal(results, refused, err)
	}
}

// awaitPromoted waits until all partitions of a topic are ordinary ones.
func (s *site) awaitPromoted(topic string) {
	s.t.Helper()
	eventually(s.t, topic+" is promoted", func() bool { return s.any().image.Load().Topic(topic).Mirror.State == meta.MirrorPromoted })
}

// awaitClaims waits until the nodes here have so many claims about open transactions of a topic with a verdict, the number of a progress.Verdict.
func (s *site) awaitClaims(topic string, count int, verdict uint8) {
	s.t.Helper()
	s.awaitClaimsOf(topic, count, verdict, true)
}

// awaitClosedClaims is awaitClaims for transactions that are committed and complete, and not open in the partition any more: they are known from the coordinators' log.
func (s *site) awaitClosedClaims(topic string, count int) {
	s.t.Helper()
	s.awaitClaimsOf(topic, count, 2, false)
}

func (s *site) awaitClaimsOf(topic string, count int, verdict uint8, isOpen bool) {
	s.t.Helper()
	link := s.any().image.Load().Links().All()[0].ID
	question, err := json.Marshal(map[string]any{"link": link})
	if err != nil {
		s.t.Fatal(err)
	}
	last := ""
	defer func() {
		if s.t.Failed() {
			s.t.Log(last)
			s.logMirrors()
		}
	}()
	eventually(s.t, fmt.Sprintf("there are %d claims with verdict %d", count, verdict), func() bool {
		n := 0
		last = ""
		for _, node := range s.nodes {
			if node == nil {
				continue
			}
			raw, err := node.linking.AnswerClaims(question)
			var a struct {
				Partitions []struct {
					Topic  string
					Claims []struct {
						First   int64
						Verdict uint8
					}
				}
			}
			if last += string(raw) + "\n"; err != nil || json.Unmarshal(raw, &a) != nil {
				return false
			}
			for _, p := range a.Partitions {
				for _, c := range p.Claims {
					if p.Topic == topic && (c.First >= 0) == isOpen && c.Verdict == verdict {
						n++
					}
				}
			}
		}
		return n == count
	})
}

// valuesOf are the values that a reader of committed records sees in a topic, without markers, after what is there is all stable.
func (s *site) valuesOf(topic string) (values []string) {
	s.t.Helper()
	for p := range s.partitions(topic) {
		eventually(s.t, "all is stable", func() bool {
			ends, err := kadm.NewClient(s.client()).ListCommittedOffsets(deadline(s.t), topic)
			if err != nil {
				return false
			}
			_, high := s.limits(topic, p)
			end, ok := ends.Lookup(topic, int32(p))
			return ok && end.Err == nil && end.Offset == high
		})
	}
	for _, one := range consumeCommitted(s.t, s, topic) {
		if f := strings.Fields(one); f[len(f)-1] == "false" {
			values = append(values, f[len(f)-2])
		}
	}
	slices.Sort(values)
	return values
}

// countMarkers counts the markers that a partition has, from an offset on.
func (s *site) countMarkers(topic string, partition int32, from int64) (commits, aborts int) {
	s.t.Helper()
	cl := s.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}), kgo.KeepControlRecords())
	defer cl.Close()
	_, high := s.limits(topic, int(partition))
	for at := from; at < high; {
		fs := cl.PollFetches(deadline(s.t))
		if err := fs.Err(); err != nil {
			s.t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			at = r.Offset + 1
			if r.Attrs.IsControl() && len(r.Key) == 4 && r.Key[3] == 1 {
				commits++
			} else if r.Attrs.IsControl() {
				aborts++
			}
		})
	}
	return commits, aborts
}

// TestPromotionCommitsWhatWasAnswered proves that a transaction whose commit was answered is committed by a promotion after the source is gone, though no marker of it had gone out: the leaders at the source could not write any,
// since too few of their replicas were in sync. The mirror's followers, and clients that write and read, go on.
func TestPromotionCommitsWhatWasAnswered(t *testing.T) {
	there, here := newSite(t, 3), newSite(t, 1)
	there.create("t", 2, nil)
	here.link(there, nil)
	w := there.client(kgo.TransactionalID("committed"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := w.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := w.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("a")}, &kgo.Record{Topic: "t", Partition: 1, Value: []byte("b")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	here.awaitMirrored(there, "t")
	followers := map[int32]int{0: 0, 1: 0, 2: 0}
	for _, p := range there.any().image.Load().Topic("t").Partitions {
		followers[p.Leader]++
	}
	away := 0
	for i, n := range there.nodes {
		if followers[n.id.nodeID] == 0 {
			away = i
		}
	}
	there.stop(away)
	number := "3"
	if _, err := kadm.NewClient(there.client()).AlterTopicConfigs(deadline(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "min.insync.replicas", Value: &number}}, "t"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica is out of sync", func() bool {
		return !slices.ContainsFunc(there.any().image.Load().Topic("t").Partitions, func(p meta.Partition) bool { return len(p.ISR) > 2 })
	})
	if err := w.EndTransaction(deadline(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	here.awaitClaims("t", 2, 2)
	for i := range there.nodes {
		there.stop(i)
	}
	if commits, aborts := here.countMarkers("t", 0, 0); commits+aborts > 0 {
		t.Fatalf("before the promotion there are %d markers", commits+aborts)
	}
	here.promote("t")
	here.awaitPromoted("t")
	for p := range int32(2) {
		if commits, aborts := here.countMarkers("t", p, 0); commits != 1 || aborts != 0 {
			t.Errorf("partition %d has %d commits, %d aborts", p, commits, aborts)
		}
	}
	if err := here.client(kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("c")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := here.valuesOf("t"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("readers see %v", got)
	}
}

// TestPromotionOfOldClients proves that of older clients, who use an epoch for many transactions, a promotion aborts what is open, though a transaction with the same epoch was committed before it; that one that was
// committed stays so; and that idempotent producers go on, whose retries are recognised.
func TestPromotionOfOldClients(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 1)
	there.create("t", 2, nil)
	here.link(there, nil)
	w := newWireProducer(t, there.any(), "older", false)
	epoch := w.has.ProducerEpoch
	w.write(0, 0, "first")
	w.mustEnd(true)
	w.write(0, 1, "open")
	if w.has.ProducerEpoch != epoch {
		t.Fatalf("the epoch is %d after %d", w.has.ProducerEpoch, epoch)
	}
	idempotent := idempotentProducer{t: t}
	idempotent.init(there)
	first := idempotent.send(there, 0, "one")
	here.awaitMirrored(there, "t")
	here.awaitClaims("t", 1, 0)
	there.stop(0)
	here.promote("t")
	here.awaitPromoted("t")
	if again := idempotent.send(here, 0, "one"); again != first {
		t.Errorf("the retry is at offset %d, and not at %d", again, first)
	}
	idempotent.send(here, 1, "two")
	if got := here.valuesOf("t"); !slices.Equal(got, []string{"first", "one", "two"}) {
		t.Errorf("readers see %v", got)
	}
	if commits, aborts := here.countMarkers("t", 0, 0); commits != 1 || aborts != 1 {
		t.Errorf("%d commits, %d aborts", commits, aborts)
	}
	if d := here.any().image.Load().Topic("t").Partitions[0].Mirror.Decisions; len(d) != 1 || d[0].Commit || d[0].Producer != w.has.ProducerID || d[0].Epoch != epoch {
		t.Errorf("decided is %+v", d)
	}
}

// idempotentProducer is a producer without transactions, whose batches a test numbers.
type idempotentProducer struct {
	t  *testing.T
	id int64
}

func (p *idempotentProducer) init(s *site) {
	p.t.Helper()
	r, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(deadline(p.t), s.client())
	if err != nil || r.ErrorCode != 0 {
		p.t.Fatal(err, kerr.ErrorForCode(r.ErrorCode))
	}
	p.id = r.ProducerID
}

// send writes a value into partition 1 of a site.
func (p *idempotentProducer) send(s *site, sequence int32, value string) int64 {
	p.t.Helper()
	b := record.Builder{LeaderEpoch: record.NoEpoch}
	b.SetProducer(p.id, 0, sequence)
	b.Append(1, nil, []byte(value))
	batch, err := b.Build()
	if err != nil {
		p.t.Fatal(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "t"
	one := kmsg.NewProduceRequestTopicPartition()
	one.Partition, one.Records = 1, batch
	topic.Partitions = append(topic.Partitions, one)
	req.Topics = append(req.Topics, topic)
	r, err := req.RequestWith(deadline(p.t), s.client(kgo.MaxVersions(versionsOf(true))))
	if err != nil {
		p.t.Fatal(err)
	}
	if got := r.Topics[0].Partitions[0]; got.ErrorCode != 0 {
		p.t.Fatalf("%s: %v", value, kerr.ErrorForCode(got.ErrorCode))
	}
	return r.Topics[0].Partitions[0].BaseOffset
}

// TestPromotionOutlivesNodes proves that a promotion which is decided goes on when its leader is gone before it could write a marker, that the decision stays, that the marker is there once, on all replicas, and that nothing of
// the source comes any more, which is there still.
func TestPromotionOutlivesNodes(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("t", 1, nil)
	here.link(there, nil)
	w := newWireProducer(t, there.any(), "open", true)
	w.write(0, 0, "open")
	here.awaitMirrored(there, "t")
	in := func() *meta.Partition { return &here.any().image.Load().Topic("t").Partitions[0] }
	eventually(t, "all replicas are in sync", func() bool { return len(in().ISR) == 3 })
	number := "3"
	if _, err := kadm.NewClient(here.client()).AlterTopicConfigs(deadline(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "min.insync.replicas", Value: &number}}, "t"); err != nil {
		t.Fatal(err)
	}
	index := func(isLeader bool) int {
		return slices.IndexFunc(here.nodes, func(n *Node) bool { return n != nil && (n.id.nodeID == in().Leader) == isLeader })
	}
	follower := index(false)
	here.stop(follower)
	eventually(t, "a replica is out of sync", func() bool { return len(in().ISR) == 2 })
	here.promote("t")
	eventually(t, "it is decided", func() bool { return in().Mirror.IsDecided })
	decided := slices.Clone(in().Mirror.Decisions)
	w.write(0, 1, "late")
	leader := index(true)
	here.stop(leader)
	here.start(follower, Config{})
	eventually(t, "another node leads", func() bool {
		n := here.nodes[follower].image.Load()
		l := n.Topic("t").Partitions[0].Leader
		return l >= 0 && here.nodes[follower].id.nodeID == l || l >= 0 && slices.ContainsFunc(here.nodes, func(n *Node) bool { return n != nil && n.id.nodeID == l })
	})
	if p := in(); p.Mirror.State != meta.PartitionPromoting {
		t.Errorf("two of three replicas are in sync, and it is %+v", p.Mirror)
	}
	here.start(leader, Config{})
	here.awaitPromoted("t")
	if got := in().Mirror.Decisions; len(got) != 1 || !slices.Equal(got, decided) {
		t.Errorf("decided is %+v, and was %+v", got, decided)
	}
	if commits, aborts := here.countMarkers("t", 0, 0); commits != 0 || aborts != 1 {
		t.Errorf("%d commits, %d aborts", commits, aborts)
	}
	if err := here.client().ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("after")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := here.valuesOf("t"); !slices.Equal(got, []string{"after"}) {
		t.Errorf("readers see %v", got)
	}
	eventually(t, "all replicas are in sync again", func() bool { return len(in().ISR) == 3 })
	for i := range here.nodes {
		here.stop(i)
	}
	for _, dir := range here.dirs[1:] {
		if a, b := segmentsOf(t, here.dirs[0], "t", 0), segmentsOf(t, dir, "t", 0); !slices.Equal(a, b) {
			t.Errorf("a replica has %d bytes, another one %d others", len(a), len(b))
		}
	}
}
