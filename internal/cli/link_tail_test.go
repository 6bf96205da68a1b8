package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// tailFake is a node that has tails.
type tailFake struct {
	*linkFake
	answer cluster.TailAnswer // to a list
	data   map[int32][]byte   // of the tails, by node
	page   int
	asked  []cluster.TailRequest
	// change changes an answer; nil: nothing does.
	change func(q *cluster.TailRequest, a *cluster.TailAnswer) (*controller.Error, error)
}

func newTailFake(tails ...cluster.TailStatus) *tailFake {
	f := &tailFake{linkFake: answerLinks(cluster.LinkAnswer{}), data: map[int32][]byte{}, page: 100}
	f.answer.Tails = tails
	f.node.tails = func(_ context.Context, q *cluster.TailRequest) (a cluster.TailAnswer, refused *controller.Error, err error) {
		f.asked = append(f.asked, *q)
		switch q.Verb {
		case cluster.TailList:
			a = f.answer
		case cluster.TailRead:
			b := f.data[q.Node]
			a.Data = b[q.From:min(int(q.From)+f.page, len(b))]
		case cluster.TailDiscard:
			for _, t := range f.answer.Tails {
				a.Discarded = append(a.Discarded, t.Node)
			}
		}
		if f.change != nil {
			refused, err = f.change(q, &a)
		}
		return a, refused, err
	}
	return f
}

// tailOf makes the tail of cut 3 of orders 0 that a node has of batches.
func (f *tailFake) add(node int32, batches ...record.Batch) {
	var all []byte
	for _, b := range batches {
		all = append(all, b...)
	}
	f.data[node] = all
	f.answer.Tails = append(f.answer.Tails, cluster.TailStatus{
		TailPlace: cluster.TailPlace{PartitionPlace: cluster.PartitionPlace{Topic: "orders", Partition: 0}, Cut: 3}, TopicID: meta.UUID{7}, Node: node,
		First: int64(batches[0].BaseOffset()), Last: int64(batches[len(batches)-1].LastOffset()), FirstEpoch: 4, LastEpoch: 5, KeptMs: 1_780_000_000_000, Bytes: int64(len(all)),
	})
}

// lostBatch makes a batch of records, with the key k and a header, at an offset. producer is of a transaction; -1: there is none.
func lostBatch(t *testing.T, at record.Offset, producer int64, values ...string) record.Batch {
	t.Helper()
	var b record.Builder
	for i, v := range values {
		b.Append(1_700_000_000_000+int64(i), []byte("k"), []byte(v), record.Header{Key: []byte("h"), Value: []byte("x")})
	}
	if producer >= 0 {
		b.Transactional = true
		b.SetProducer(producer, 0, 0)
	}
	made, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	made = slices.Clone(made)
	made.SetBaseOffset(at)
	return made
}

// lostMarker makes the marker of a transaction.
func lostMarker(t *testing.T, at record.Offset, producer int64, commit bool) record.Batch {
	t.Helper()
	b, err := record.BuildMarker(1_700_000_000_000, producer, 0, record.Marker{Commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	b.SetBaseOffset(at)
	return b
}

// lostBatches are batches with transactions of all kinds, of which some go on over others.
func lostBatches(t *testing.T) []record.Batch {
	t.Helper()
	return []record.Batch{
		lostMarker(t, 9, 5, false), // of a transaction whose records were not cut
		lostBatch(t, 10, -1, "a", "b"),
		lostBatch(t, 12, 1, "aborted 1"),
		lostBatch(t, 13, 2, "committed 1"),
		lostBatch(t, 14, 1, "aborted 2"),
		lostMarker(t, 15, 1, false),
		lostBatch(t, 16, 1, "committed 2"),
		lostMarker(t, 17, 2, true),
		lostMarker(t, 18, 1, true),
		lostBatch(t, 20, 3, "undecided"), // behind a gap
		lostBatch(t, 21, 1, "aborted 3"),
		lostMarker(t, 22, 1, false),
		lostBatch(t, 23, -1, strings.Repeat("long ", 100)),
	}
}

// TestTailExport proves that a tail is exported as it was: as JSON with the states of its transactions and without markers, and byte by byte; whatever the size of the pages, to the standard output
// and to files, which are not overwritten; and that of several nodes the one with the most records is taken, or the one that is named.
func TestTailExport(t *testing.T) {
	batches := lostBatches(t)
	for _, page := range []int{1, 61, 100, 1 << 20} {
		f := newTailFake()
		f.page = page
		f.add(2, batches[1:5]...)
		f.add(1, batches...)
		var got []string
		for line := range strings.Lines(f.expect(t, exitOK, "tail export orders 0 --cut 3", "exported 9 records", "offsets 9 to 23", "as node 1 has kept")) {
			var r struct {
				Topic, Key, Value, Transaction, Timestamp string
				Offset                                    int64
				Headers                                   []struct{ Key, Value string }
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Key != "k" || r.Topic != "orders" || len(r.Headers) != 1 || r.Headers[0].Value != "x" || !strings.HasPrefix(r.Timestamp, "2023-11-14T22:13:20.00") {
				t.Fatalf("%s: %v", line, err)
			}
			got = append(got, fmt.Sprint(r.Offset, " ", r.Value, "/", r.Transaction))
		}
		want := []string{"10 a/", "11 b/", "12 aborted 1/aborted", "13 committed 1/committed", "14 aborted 2/aborted", "16 committed 2/committed", "20 undecided/undecided", "21 aborted 3/aborted", "23 " + strings.Repeat("long ", 100) + "/"}
		if !slices.Equal(got, want) {
			t.Errorf("by pages of %d bytes: %q", page, got)
		}
		dir := t.TempDir()
		f.expect(t, exitOK, "tail export orders 0 --cut 3 --as log --to "+dir, "00000000000000000009.log", "exported 9 records")
		b, err := os.ReadFile(filepath.Join(dir, "00000000000000000009.log"))
		if err != nil || string(b) != string(f.data[1]) {
			t.Errorf("by pages of %d bytes, %d are exported, want %d: %v", page, len(b), len(f.data[1]), err)
		}
		f.expect(t, exitFailed, "tail export orders 0 --cut 3 --to "+filepath.Join(dir, "00000000000000000009.log"), "left as it is")
		if now, _ := os.ReadFile(filepath.Join(dir, "00000000000000000009.log")); string(now) != string(b) {
			t.Error("a file was overwritten")
		}
		f.expect(t, exitOK, "tail export orders 0 --cut 3 --node 2 --to "+dir, "orders-0-cut-3.json", "as node 2 has kept", "node 1 has kept the offsets 9 to 23", "see also --node 1")
		if list, _ := os.ReadDir(dir); len(list) != 2 {
			t.Errorf("%v", list)
		}
	}
	f := newTailFake()
	f.add(1, batches[:6]...)
	f.add(4, batches[7:]...)
	f.answer.Silent = []cluster.SilentNode{{Node: 5, Problem: "it does not answer"}}
	f.expect(t, exitOK, "tail export orders 0 --cut 3", "node 4 has kept", "node 5 has not answered (it does not answer), and may have kept more")
	f.expect(t, exitNotFound, "tail export orders 0 --cut 3 --node 9", "node 9 has kept nothing of cut 3 of orders 0: name one of 1 or 4")
	f.expect(t, exitNotFound, "tail export orders 0 --cut 4", "nothing is kept of cut 4 of orders 0, only of cut 3; node 5 has not answered, and may have kept something")
}

// TestTailIsDamaged proves that nothing is written of a tail which is not what it is to be, whatever a node sends, and that the person is told of what is wrong, and that another node may have it whole.
func TestTailIsDamaged(t *testing.T) {
	batches := lostBatches(t)
	flip := func(at int, bits byte) func(f *tailFake) {
		return func(f *tailFake) { f.data[1][at] ^= bits }
	}
	for what, c := range map[string]struct {
		do   func(f *tailFake)
		says string
	}{
		"another value":                {flip(len(batches[0])+70, 1), "corrupt"},
		"a length that is negative":    {flip(8, 0x80), "what is to be a batch has"},
		"a length beyond the end":      {flip(8, 0x40), "what is to be a batch has"},
		"no length":                    {flip(11, batches[0][11]), "what is to be a batch has"},
		"another format":               {flip(16, 1), "what is to be a batch has"},
		"an offset before the first":   {func(f *tailFake) { record.Batch(f.data[1]).SetBaseOffset(3) }, "a batch has the offsets 3 to 3"},
		"an offset beyond the last":    {func(f *tailFake) { record.Batch(f.data[1]).SetBaseOffset(99) }, "a batch has the offsets 99 to 99"},
		"a negative offset":            {flip(0, 0x80), "a batch has the offsets"},
		"offsets that go back":         {func(f *tailFake) { record.Batch(f.data[1][len(batches[0]):]).SetBaseOffset(8) }, "a batch has the offsets 8 to 9, behind 9"},
		"it ends early":                {func(f *tailFake) { f.data[1] = f.data[1][:300] }, "it has 300 bytes, and is to have"},
		"less than it says":            {func(f *tailFake) { f.answer.Tails[0].Last += 5 }, "it ends before offset 24"},
		"less than a header":           {func(f *tailFake) { f.answer.Tails[0].Bytes = 20 }, "it has more than 20 bytes"},
		"more than was asked for":      {func(f *tailFake) { f.answer.Tails[0].Bytes -= 3; f.page = 1 << 20 }, "it has more than"},
		"a batch that is cut short":    {func(f *tailFake) { f.answer.Tails[0].Bytes -= 3; f.data[1] = f.data[1][:len(f.data[1])-3] }, "what is to be a batch has"},
		"bytes behind the last record": {func(f *tailFake) { f.answer.Tails[0].Bytes += 10; f.data[1] = append(f.data[1], make([]byte, 10)...) }, "it has"},
	} {
		f := newTailFake()
		f.add(1, slices.Clone(batches)...)
		c.do(f)
		dir := t.TempDir()
		for _, line := range []string{"export orders 0 --cut 3 --to ", "export orders 0 --cut 3 --as log --to "} {
			code, out, errs := f.run(t, strings.Fields("tail "+line+dir)...)
			if code != exitFailed || !strings.Contains(errs, c.says) || !strings.Contains(errs, "another node may have it whole") {
				t.Errorf("%s: %s ends with %d: %s%s", what, line, code, out, errs)
			}
		}
		if list, _ := os.ReadDir(dir); len(list) != 0 {
			t.Errorf("%s: %v is left", what, list)
		}
	}
}

// TestTailTransactionsAreBounded proves that a client keeps no more of a tail's transactions than it says.
func TestTailTransactionsAreBounded(t *testing.T) {
	txns := &transactions{spans: map[int64][]txnSpan{}, open: map[int64]record.Offset{}, count: mostTransactions}
	if err := txns.add(lostBatch(t, 5, 1, "x")); err == nil || !strings.Contains(err.Error(), "--as log") {
		t.Error(err)
	}
}

// TestTailList proves what is shown of tails, for people and for programs, page by page; of replicas that cannot be cut; and of nodes that do not answer.
func TestTailList(t *testing.T) {
	f := newTailFake()
	f.add(1, lostBatches(t)...)
	f.add(2, lostBatches(t)[:6]...)
	f.answer.Tails[1].HasMoved, f.answer.Tails[1].LastEpoch = true, 4
	f.expect(t, exitOK, "tail list", "TOPIC", "orders", "2026-05-28 20:26:40 UTC", "4-5", "the partition is on other nodes now")
	f.answer.Uncut = []cluster.UncutReplica{{PartitionPlace: cluster.PartitionPlace{Topic: "web", Partition: 4}, Node: 3, Problem: "the disk is full"}}
	f.answer.Problems = []cluster.TailProblem{{Node: 2, Text: "web 1: a manifest cannot be read"}}
	f.answer.Silent = []cluster.SilentNode{{Node: 5, Problem: "it does not answer"}}
	f.expect(t, exitOK, "tail list orders 0", "the replica of web 4 on node 3 cannot be cut, and neither leads nor follows until it can: the disk is full", "free some space there",
		"node 2: web 1: a manifest cannot be read", "node 5 has not told what it has kept (it does not answer)")
	if q := f.asked[len(f.asked)-1]; q.Topic != "orders" || q.Partition == nil || *q.Partition != 0 {
		t.Errorf("%+v", q)
	}
	var l keptTails
	if _, out, _ := f.run(t, "tail", "list", "-o", "json"); json.Unmarshal([]byte(out), &l) != nil || len(l.Tails) != 2 || l.Tails[0].Last != 23 || l.Tails[0].Bytes != int64(len(f.data[1])) || !l.Tails[1].HasMoved ||
		len(l.Uncut) != 1 || len(l.Problems) != 1 || len(l.Silent) != 1 {
		t.Errorf("%s", out)
	}
	newTailFake().expect(t, exitOK, "tail list", "nothing is kept")

	f = newTailFake()
	f.change = func(q *cluster.TailRequest, a *cluster.TailAnswer) (*controller.Error, error) {
		from := int32(0)
		if q.After != nil {
			from = q.After.Cut
		}
		a.HasMore = from < 4
		a.Tails = []cluster.TailStatus{{TailPlace: cluster.TailPlace{PartitionPlace: cluster.PartitionPlace{Topic: "orders"}, Cut: from + 1}}}
		return nil, nil
	}
	if _, out, _ := f.run(t, "tail", "list", "-o", "json"); json.Unmarshal([]byte(out), &l) != nil || len(l.Tails) != 5 || l.Tails[4].Cut != 5 {
		t.Errorf("%s", out)
	}
	f.change = func(_ *cluster.TailRequest, a *cluster.TailAnswer) (*controller.Error, error) {
		a.HasMore, a.Tails = true, []cluster.TailStatus{{TailPlace: cluster.TailPlace{PartitionPlace: cluster.PartitionPlace{Topic: "orders"}, Cut: 1}}}
		return nil, nil
	}
	f.expect(t, exitFailed, "tail list", "lists the same again and again")
	busy := 2
	f.change = func(*cluster.TailRequest, *cluster.TailAnswer) (*controller.Error, error) {
		if busy--; busy >= 0 {
			return nil, cluster.ErrBusy
		}
		return nil, nil
	}
	f.expect(t, exitOK, "tail list", "nothing is kept")
	f.change = func(*cluster.TailRequest, *cluster.TailAnswer) (*controller.Error, error) {
		return &controller.Error{Kind: controller.UnknownTopic, Message: "There is no topic x."}, nil
	}
	f.expect(t, exitNotFound, "tail list x", "There is no topic x: \"leat topic list\"")
}

// TestTailDescribed proves that the verb that describes a link says what is kept of its topics, and which replicas cannot be cut.
func TestTailDescribed(t *testing.T) {
	f := answerLinks(cluster.LinkAnswer{
		Links: []cluster.LinkStatus{{Name: "north"}}, Tails: cluster.TailSum{Tails: 3, Bytes: 5 << 20},
		Uncut: []cluster.UncutReplica{{PartitionPlace: cluster.PartitionPlace{Topic: "web", Partition: 4}, Node: 3, Problem: "the disk is full"}},
	})
	out := f.expect(t, exitOK, "describe north", "the replica of web 4 on node 3 cannot be cut", "of records that cuts have taken are kept, by all replicas together", `"leat link tail list" shows them`)
	if !strings.Contains(out, "5") {
		t.Error(out)
	}
	var d describedLink
	if out := f.expect(t, exitOK, "describe north -o json"); json.Unmarshal([]byte(out), &d) != nil || d.Tails.Tails != 3 || len(d.Uncut) != 1 {
		t.Errorf("%s", out)
	}
}

// TestTailDiscard proves that nothing is discarded unless that is meant; that what would be lost is said first; that a second time is no error; and that nodes which did not answer, or could not, are named.
func TestTailDiscard(t *testing.T) {
	discards := func(f *tailFake) (n int) {
		for _, q := range f.asked {
			if q.Verb == cluster.TailDiscard {
				n++
				if q.Topic != "orders" || q.TopicID != (meta.UUID{7}) || *q.Partition != 0 || q.Cut != 3 {
					t.Errorf("%+v", q)
				}
			}
		}
		return n
	}
	f := newTailFake()
	f.add(1, lostBatches(t)...)
	f.add(2, lostBatches(t)[:6]...)
	f.expect(t, exitOK, "tail discard orders 0 --cut 3", "node 1 has kept", "the offsets 9 to 23", "node 2 has kept", "--yes discards it for good")
	if discards(f) != 0 {
		t.Error("it was discarded, and that was not meant")
	}
	f.expect(t, exitOK, "tail discard orders 0 --cut 3 --yes", "discarded cut 3 of orders 0 on nodes 1 and 2")
	if discards(f) != 1 {
		t.Error("it was not discarded once")
	}
	f.change = func(q *cluster.TailRequest, a *cluster.TailAnswer) (*controller.Error, error) {
		if q.Verb == cluster.TailDiscard {
			*a = cluster.TailAnswer{Discarded: []int32{1}, Silent: []cluster.SilentNode{{Node: 2, Problem: "x"}}, Problems: []cluster.TailProblem{{Node: 4, Text: "its disk is read-only"}}}
		}
		return nil, nil
	}
	f.expect(t, exitFailed, "tail discard orders 0 --cut 3 --yes", "discarded cut 3 of orders 0 on node 1\n", "node 4 has not discarded cut 3 of orders 0: its disk is read-only", "node 2 has not answered, and may keep cut 3 of orders 0: run this again")
	var d discardedTails
	if _, out, _ := f.run(t, strings.Fields("tail discard orders 0 --cut 3 --yes -o json")...); json.Unmarshal([]byte(out), &d) != nil || d.Done || len(d.Kept) != 2 || len(d.Silent) != 1 {
		t.Errorf("%s", out)
	}
	f.change = func(q *cluster.TailRequest, _ *cluster.TailAnswer) (*controller.Error, error) {
		if q.Verb == cluster.TailDiscard {
			return nil, errors.New("the connection is lost")
		}
		return nil, nil
	}
	f.expect(t, exitFailed, "tail discard orders 0 --cut 3 --yes", "which may be done on some nodes: the connection is lost")
	f = newTailFake()
	f.expect(t, exitOK, "tail discard orders 0 --cut 3 --yes", "there is nothing to discard")
	f.expect(t, exitNotFound, "tail discard orders 0 --cut 3", "nothing is kept of cut 3")
	f.answer.Silent = []cluster.SilentNode{{Node: 2, Problem: "x"}}
	f.expect(t, exitNotFound, "tail discard orders 0 --cut 3 --yes", "node 2 has not answered, and may have kept something")
	for line, says := range map[string]string{
		"tail discard orders 0":                 "name a cut with --cut: \"leat link tail list orders 0\"",
		"tail export orders x --cut 3":          "x is not a partition",
		"tail export orders 0 --cut 3 --as csv": "write json or log",
		"tail replay orders 0 --cut 3":          "with --into",
		"tail replay orders --cut 3 --into a":   "1 argument was given",
		"tail list orders -- -1":                "-1 is not a partition",
		"tail list a 1 2":                       "3 arguments were given",
		"tail restore":                          `"restore" is not a verb of "leat link tail"`,
	} {
		if code, _, errs := f.run(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, says) {
			t.Errorf("leat link %s ends with %d: %s\nwant %s", line, code, errs, says)
		}
	}
}

// TestTailReplay proves that the records of a tail are written into a topic in their order, with headers that say where they were, and without those of transactions that were not committed unless all are
// asked for; that where it stopped is told, and that it goes on from there; and that nothing is written of a tail that is damaged.
func TestTailReplay(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "kept", "all"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := newTailFake()
	f.add(1, lostBatches(t)...)
	f.node.clients = c.ListenAddrs()
	read := func(topic string, n int) (all []string) {
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topic))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic); err != nil || countOffsets(ends) != int64(n) {
			t.Fatalf("%s has %d records, want %d: %v", topic, countOffsets(ends), n, err)
		}
		for {
			if len(all) >= n {
				return all
			}
			fetches := cl.PollFetches(t.Context())
			for _, r := range fetches.Records() {
				h := map[string]string{}
				for _, x := range r.Headers {
					h[x.Key] += string(x.Value)
				}
				if string(r.Key) != "k" || h["h"] != "x" || h["leat.tail.topic"] != "orders" || h["leat.tail.partition"] != "0" || !strings.HasPrefix(h["leat.tail.timestamp"], "170000000000") || time.Since(r.Timestamp) > time.Hour {
					t.Errorf("%s has %v", r.Value, h)
				}
				all = append(all, h["leat.tail.offset"]+h["leat.tail.transaction"])
			}
		}
	}
	f.data[1][len(f.data[1])-1] ^= 1
	f.expect(t, exitFailed, "tail replay orders 0 --cut 3 --into kept", "is damaged")
	f.data[1][len(f.data[1])-1] ^= 1
	refuse := true
	c.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !refuse {
			return nil, nil, false
		}
		resp := q.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range q.(*kmsg.ProduceRequest).Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.PolicyViolation.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	f.expect(t, exitFailed, "tail replay orders 0 --cut 3 --into kept", "has stopped before offset 10: go on with --from 10", "mirrors one of another cluster, so nobody can write to it here")
	refuse = false
	f.expect(t, exitOK, "tail replay orders 0 --cut 3 --into kept --from 11", "wrote 4 records of cut 3 of orders 0 into kept", "left out 4 records")
	if got := read("kept", 4); !slices.Equal(got, []string{"11", "13", "16", "23"}) {
		t.Errorf("written are %q", got)
	}
	var r tailReplay
	if out := f.expect(t, exitOK, "tail replay orders 0 --cut 3 --into all --all -o json"); json.Unmarshal([]byte(out), &r) != nil || !r.Done || r.Written != 9 || r.LeftOut != 0 || r.Next != nil {
		t.Errorf("%s", out)
	}
	if got := read("all", 9); !slices.Equal(got, []string{"10", "11", "12aborted", "13", "14aborted", "16", "20undecided", "21aborted", "23"}) {
		t.Errorf("written are %q", got)
	}
	passes := 0 // over the tail: nothing is written in the first one
	f.change = func(q *cluster.TailRequest, _ *cluster.TailAnswer) (*controller.Error, error) {
		if q.Into == "orders" {
			return &controller.Error{Kind: controller.InvalidRequest, Message: "The topic orders mirrors one of another cluster."}, nil
		}
		if q.Verb == cluster.TailRead && q.From == 0 {
			passes++
		}
		if q.Verb == cluster.TailRead && passes == 2 && q.From >= 700 {
			return nil, errors.New("the connection is lost")
		}
		return nil, nil
	}
	f.expect(t, exitFailed, "tail replay orders 0 --cut 3 --into orders", "The topic orders mirrors one of another cluster")
	r = tailReplay{}
	_, out, errs := f.run(t, strings.Fields("tail replay orders 0 --cut 3 --into kept -o json")...)
	if json.Unmarshal([]byte(out), &r) != nil || r.Done || r.Written == 0 || r.Next == nil || !strings.Contains(errs, fmt.Sprintf("go on with --from %d: the connection is lost", *r.Next)) {
		t.Errorf("%s%s", out, errs)
	}
	passes = 3
	f.expect(t, exitOK, fmt.Sprint("tail replay orders 0 --cut 3 --into kept --from ", *r.Next), "wrote")
	if got := read("kept", 9)[4:]; !slices.Equal(got, []string{"10", "11", "13", "16", "23"}) {
		t.Errorf("written are %q", got)
	}
}

// countOffsets counts the records of a topic.
func countOffsets(ends kadm.ListedOffsets) (n int64) {
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}
