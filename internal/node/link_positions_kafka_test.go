package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/mirror/source"
)

// TestPositionsOfKafka proves, with an Apache Kafka as the source, that a consumer here goes on where its group was there, that positions of transactions wait for their markers, that resets and deletions are
// followed, also after Kafka was killed, that a poll finds the same, and that Kafka's own tool reads the records that are written here for all that.
func TestPositionsOfKafka(t *testing.T) {
	k := newKafka(t, 1)
	here := newSite(t, 1)
	cl := k.client()
	admin := kadm.NewClient(cl)
	if _, err := admin.CreateTopic(deadline(t), 2, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	k.produce("orders", 2, 100)
	here.linkTo(k.ports, nil)
	here.awaitMirroredFromKafka(k, "orders")
	first := consumeSome(t, k.client, "billing", "orders", 120)
	here.awaitCommitted("billing", committed(t, cl, "billing"))
	here.awaitMode("tailed")
	rest := consumeSome(t, here.client, "billing", "orders", 80)
	seen := map[string]bool{}
	for _, r := range append(first, rest...) {
		seen[r] = true
	}
	if len(seen) != 200 {
		t.Errorf("the consumers have read %d records there and %d here, of which %d are different ones", len(first), len(rest), len(seen))
	}
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(k.ports...), kgo.TransactionalID("copier"), kgo.ConsumerGroup("copy"), kgo.ConsumeTopics("orders"), kgo.DefaultProduceTopic("copies"),
		kgo.AllowAutoTopicCreation(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	copySome(t, s, 30, kgo.TryCommit)
	there := ""
	await := func(was string) { // the markers come after the answer
		t.Helper()
		k.await("the transaction has its marker", func() bool {
			there = committed(t, cl, "copy")
			return there != was
		})
	}
	await("-")
	here.awaitCommitted("copy", there)
	copySome(t, s, 30, kgo.TryAbort)
	setPosition(t, cl, "audit", at("orders", 0, 70, "by hand"))
	setPosition(t, cl, "audit", at("orders", 1, 50, ""))
	here.awaitCommitted("audit", "orders-0:70 by hand orders-1:50")
	if got := committed(t, here.client(), "copy"); got != there {
		t.Errorf("after an abort the group is at %s, and not at %s", got, there)
	}
	copySome(t, s, 100, kgo.TryCommit)
	s.Close()
	await(there)
	here.awaitCommitted("copy", there)
	k.kill(0)
	k.start(0)
	k.await("Kafka answers", func() bool { return cl.Ping(t.Context()) == nil })
	k.await("the group is reset", func() bool {
		of := kadm.Offsets{}
		of.Add(at("orders", 0, 10, ""))
		return admin.CommitAllOffsets(t.Context(), "audit", of) == nil
	})
	here.awaitCommitted("audit", "orders-0:10 orders-1:50")
	if r, err := admin.DeleteOffsets(deadline(t), "audit", kadm.TopicsSet{"orders": {1: {}}}); err != nil || r.Error() != nil {
		t.Fatal(r, err)
	}
	if _, err := admin.DeleteGroup(deadline(t), "copy"); err != nil {
		t.Fatal(err)
	}
	here.awaitCommitted("audit", "orders-0:10")
	here.awaitCommitted("copy", "-")
	k.comparePolls()
	here.stop(0)
	out := k.dump(here.dirs[0], group.Topic)
	for _, want := range []string{`"group":"billing","topic":"orders"`, `"group":"audit","topic":"orders","partition":0`, `"version":"4"`, `"metadata":"by hand"`} {
		if !strings.Contains(out, want) {
			t.Errorf("Kafka's tool does not find %s:\n%.20000s", want, out)
		}
	}
}

// comparePolls proves that a poll finds the groups of Kafka, and the positions that Kafka tells of them, and none of a group that is not there.
func (k *kafkaSite) comparePolls() {
	k.t.Helper()
	c, err := source.New(deadline(k.t), &source.Config{Brokers: k.ports})
	if err != nil {
		k.t.Fatal(err)
	}
	defer c.Close()
	groups, err := c.ListGroups(deadline(k.t))
	if slices.Sort(groups); err != nil || !slices.Equal(groups, []string{"audit", "billing"}) {
		k.t.Errorf("%q, %v", groups, err)
	}
	found, err := c.FetchPositions(deadline(k.t), []string{"audit", "billing", "absent"})
	if err != nil {
		k.t.Fatal(err)
	}
	cl := k.client()
	for i := range found {
		var all []string
		for _, p := range found[i].Positions {
			all = append(all, fmt.Sprintf("%s-%d:%d", p.Topic, p.Partition, p.Offset))
		}
		if slices.Sort(all); len(all) == 0 {
			all = []string{"-"}
		}
		if want := committed(k.t, cl, found[i].Group); found[i].Err != nil || strings.Join(all, " ") != want {
			k.t.Errorf("%+v, want %s", found[i], want)
		}
	}
}

// copySome has a consumer and producer of a session take part of a transaction with so many records.
func copySome(t *testing.T, s *kgo.GroupTransactSession, count int, end kgo.TransactionEndTry) {
	t.Helper()
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < count; {
		fs := s.PollRecords(deadline(t), count-n)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		n += fs.NumRecords()
		fs.EachRecord(func(r *kgo.Record) { s.Produce(deadline(t), &kgo.Record{Value: r.Value}, nil) })
	}
	if _, err := s.End(deadline(t), end); err != nil {
		t.Fatal(err)
	}
}

// dump is what Kafka's tool finds of groups' records in a data directory of a node.
func (k *kafkaSite) dump(dir, topic string) string {
	k.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", topic+"-*", "*.log"))
	if more, e := filepath.Glob(filepath.Join(dir, topic+"-*", "*.log")); e == nil {
		files = append(files, more...)
	}
	if err != nil || len(files) == 0 {
		k.t.Fatal(files, err)
	}
	var some []string
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			k.t.Fatal(err)
		}
		if strings.Contains(string(b), "orders") {
			name := filepath.Join(k.t.TempDir(), fmt.Sprint(i), "00000000000000000000.log") // the tool wants such a name, and finds an index beside it
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				k.t.Fatal(err)
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				k.t.Fatal(err)
			}
			some = append(some, name)
		}
	}
	out, err := k.java("org.apache.kafka.tools.DumpLogSegments", "--offsets-decoder", "--files", strings.Join(some, ",")).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
