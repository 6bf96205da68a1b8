package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// tailRig is a TailServer that has tails as a test says, and keeps what it was asked.
type tailRig struct {
	node int32

	mu    sync.Mutex // guards all
	tails []TailStatus
	data  []byte
	asked []TailRequest
	uncut []UncutReplica
	fails error // of reading and discarding

	hold   chan struct{} // nil: nothing waits; else reads wait until it is closed
	inside atomic.Int32  // reads that wait
	most   atomic.Int32
}

func (r *tailRig) ListTails(q *TailRequest, most int) (list []TailStatus, hasMore bool, problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, *q)
	for _, t := range r.tails {
		isWanted := (q.Topic == "" || t.Topic == q.Topic) && (q.Partition == nil || t.Partition == *q.Partition)
		if !isWanted || q.After != nil && t.compare(q.After) <= 0 {
			continue
		}
		if len(list) == most {
			return list, true, nil
		}
		list = append(list, t)
	}
	return list, false, []string{strings.Repeat("x", 2*mostReason)}
}

func (r *tailRig) ReadTail(q *TailRequest, dst []byte) (int, error) {
	if r.hold != nil {
		r.most.Store(max(r.most.Load(), r.inside.Add(1)))
		<-r.hold
		r.inside.Add(-1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, *q)
	if r.fails != nil {
		return 0, r.fails
	}
	return copy(dst, r.data[q.From:]), nil
}

func (r *tailRig) DiscardTail(q *TailRequest) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, *q)
	if r.fails != nil {
		return false, r.fails
	}
	n := len(r.tails)
	r.tails = slices.DeleteFunc(r.tails, func(t TailStatus) bool {
		return t.TopicID == q.TopicID && t.Partition == *q.Partition && t.Cut == q.Cut
	})
	return len(r.tails) < n, nil
}

func (r *tailRig) ListUncut() []UncutReplica { return slices.Clone(r.uncut) }

// startTailed starts members whose nodes have a tailRig each, and a link with the mirrors a and b.
func startTailed(t *testing.T, count int) (all []*member, rigs []*tailRig) {
	t.Helper()
	w := newWorld(t)
	all = w.startMembers(count, 1, nil)
	for _, m := range all {
		r := &tailRig{node: m.id}
		rigs = append(rigs, r)
		m.ctl.cfg.Tails = r
	}
	makeMirrors(t, all[0], north(), 2, "b", "a")
	for _, m := range all {
		eventually(t, "the mirrors are known", func() bool { return m.meta.image.Load().Topic("a") != nil && m.meta.image.Load().Topic("b") != nil })
	}
	return all, rigs
}

// tailed is a tail of a partition.
func tailed(m *meta.Image, topic string, partition, cut int32) TailStatus {
	return TailStatus{TailPlace: TailPlace{PartitionPlace{topic, partition}, cut}, TopicID: m.Topic(topic).ID, Node: 99, First: 10, Last: 19, Bytes: 1000, KeptMs: 5}
}

// mustServe asks a node, which must answer.
func mustServe(t *testing.T, a Administrator, q *TailRequest) TailAnswer {
	t.Helper()
	got, refused, err := a.ServeTails(t.Context(), q)
	if refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	return got
}

// TestTailsOfAllNodes proves that the node that is asked lists what all nodes have kept, in the order of topics, partitions, cuts and nodes, once each; that a page never parts the tails of a cut,
// and that the pages together have all; and that problems, and replicas that cannot be cut, are told with their nodes.
func TestTailsOfAllNodes(t *testing.T) {
	all, rigs := startTailed(t, 3)
	img := all[0].meta.image.Load()
	want := 0
	for i, r := range rigs {
		for _, topic := range []string{"a", "b"} {
			for cut := range int32(700) {
				if i == 2 && cut%3 > 0 {
					continue // it was behind
				}
				r.tails = append(r.tails, tailed(img, topic, int32(i%2), cut+1))
				want++
			}
		}
	}
	rigs[1].uncut = []UncutReplica{{PartitionPlace: PartitionPlace{"b", 1}, Problem: "no room"}, {PartitionPlace: PartitionPlace{"a", 0}, Node: 77, Problem: strings.Repeat("y", 5000)}}
	ask := administratorOf(t, all[1])
	var got []TailStatus
	pages := 0
	for q := (TailRequest{Verb: TailList}); ; pages++ {
		a := mustServe(t, ask, &q)
		if len(a.Silent) > 0 || len(a.Tails) == 0 || len(a.Tails) > mostTails {
			t.Fatalf("page %d has %d tails, silent are %v", pages, len(a.Tails), a.Silent)
		}
		if pages == 0 && (len(a.Uncut) != 2 || a.Uncut[0].Topic != "a" || a.Uncut[0].Node != all[1].id || len(a.Uncut[0].Problem) > mostReason+3 || a.Uncut[1].Problem != "no room") {
			t.Errorf("%+v", a.Uncut)
		}
		got = append(got, a.Tails...)
		if !a.HasMore {
			if len(a.Problems) != 3 || a.Problems[2].Node != all[2].id || len(a.Problems[2].Text) > mostReason+3 {
				t.Errorf("%+v", a.Problems)
			}
			break
		}
		q.After = &a.Tails[len(a.Tails)-1].TailPlace
	}
	if len(got) != want || pages < 3 {
		t.Errorf("%d pages have %d tails, want %d", pages+1, len(got), want)
	}
	for i := 1; i < len(got); i++ {
		if by := got[i-1].compare(&got[i].TailPlace); by > 0 || by == 0 && got[i-1].Node >= got[i].Node {
			t.Fatalf("%+v comes before %+v", got[i-1], got[i])
		}
	}
	one := int32(1)
	if a := mustServe(t, ask, &TailRequest{Verb: TailList, Topic: "b", Partition: &one}); len(a.Tails) != 700 || a.Tails[0].Topic != "b" || a.Tails[0].Partition != 1 || len(a.Uncut) != 1 {
		t.Errorf("%d tails of b 1, uncut %+v", len(a.Tails), a.Uncut)
	}
	d, refused, err := ask.ServeLinks(t.Context(), &LinkRequest{Verb: LinkDescribe, Name: "north"})
	if refused != nil || err != nil || d.Tails.Tails == 0 || d.Tails.Bytes != 1000*int64(d.Tails.Tails) || len(d.Uncut) != 2 {
		t.Errorf("the link is described with %+v and %+v: %v, %v", d.Tails, d.Uncut, refused, err)
	}
	if d, _, _ := ask.ServeLinks(t.Context(), &LinkRequest{Verb: LinkDescribe, Name: "north", Topics: []string{"a"}}); len(d.Uncut) != 1 || d.Uncut[0].Topic != "a" {
		t.Errorf("topic a is described with %+v", d.Uncut)
	}
}

// TestTailIsReadByPages proves that a tail is read from the node that has it, whichever node is asked, by pages of a bound size; and that why it cannot be read comes back as a sentence.
func TestTailIsReadByPages(t *testing.T) {
	all, rigs := startTailed(t, 2)
	zero, id := int32(0), all[0].meta.image.Load().Topic("a").ID
	rigs[1].data = bytes.Repeat([]byte("0123456789"), MostTailBytes/8)
	q := TailRequest{Verb: TailRead, Topic: "a", TopicID: id, Partition: &zero, Cut: 3, Node: all[1].id, KeptMs: 7, Bytes: int64(len(rigs[1].data))}
	for _, m := range all {
		ask := administratorOf(t, m)
		var got []byte
		for q.From = 0; ; q.From = int64(len(got)) {
			a := mustServe(t, ask, &q)
			if len(a.Data) > MostTailBytes {
				t.Errorf("a page has %d bytes", len(a.Data))
			}
			if len(a.Data) == 0 {
				break
			}
			got = append(got, a.Data...)
		}
		if !bytes.Equal(got, rigs[1].data) {
			t.Errorf("%d bytes are read, want %d", len(got), len(rigs[1].data))
		}
	}
	if last := rigs[1].asked[0]; last.KeptMs != 7 || last.TopicID != id || last.Cut != 3 || len(rigs[0].asked) > 0 {
		t.Errorf("%+v", last)
	}
	ask := administratorOf(t, all[0])
	rigs[1].fails = errors.New("the file ends early")
	for what, c := range map[string]struct {
		change func(q *TailRequest)
		says   string
	}{
		"a tail that cannot be read":   {func(*TailRequest) {}, "Node 2 cannot read what cut 3 has taken from a 0: the file ends early"},
		"a node that is not there":     {func(q *TailRequest) { q.Node = 9 }, "no node 9"},
		"no partition":                 {func(q *TailRequest) { q.Partition = nil }, "Name one partition"},
		"a negative partition":         {func(q *TailRequest) { q.Partition = new(int32(-1)) }, "negative"},
		"no cut":                       {func(q *TailRequest) { q.Cut = 0 }, "Name one partition, and a cut"},
		"a place before the beginning": {func(q *TailRequest) { q.From = -1 }, "Name one partition"},
		"an earlier topic of the name": {func(q *TailRequest) { q.TopicID[0]++ }, "no topic a any more"},
		"a topic that is not there":    {func(q *TailRequest) { q.Topic = "c" }, "no topic c"},
		"another verb":                 {func(q *TailRequest) { q.Verb = "steal" }, "does not know"},
		"a long name":                  {func(q *TailRequest) { q.Topic = strings.Repeat("x", 300) }, "more than 249 bytes"},
		"a mirror to write to":         {func(q *TailRequest) { q.Verb, q.Into = TailList, "b" }, "mirrors one of another cluster"},
		"no topic to write to":         {func(q *TailRequest) { q.Verb, q.Into = TailList, "c" }, "no topic c"},
	} {
		q := q
		q.From = 0
		c.change(&q)
		if _, refused, err := ask.ServeTails(t.Context(), &q); refused == nil || err != nil || !strings.Contains(refused.Message, c.says) {
			t.Errorf("%s: %v, %v", what, refused, err)
		}
	}
}

// TestTailIsDiscardedByAllNodes proves that all nodes discard the tail of a cut, and tell whether they had one; that a second time nothing is left to do; and that the nodes which could not, or did not
// answer, are named.
func TestTailIsDiscardedByAllNodes(t *testing.T) {
	all, rigs := startTailed(t, 3)
	img := all[0].meta.image.Load()
	zero := int32(0)
	for _, r := range rigs[:2] {
		r.tails = []TailStatus{tailed(img, "a", 0, 1), tailed(img, "a", 0, 2), tailed(img, "a", 1, 1), tailed(img, "b", 0, 1)}
	}
	ask := administratorOf(t, all[0])
	q := &TailRequest{Verb: TailDiscard, Topic: "a", TopicID: img.Topic("a").ID, Partition: &zero, Cut: 1}
	if a := mustServe(t, ask, q); !slices.Equal(a.Discarded, []int32{1, 2}) || !slices.Equal(a.HadNone, []int32{3}) || len(a.Silent)+len(a.Problems) > 0 {
		t.Errorf("%+v", a)
	}
	if len(rigs[0].tails) != 3 || len(rigs[1].tails) != 3 {
		t.Errorf("%+v", rigs[0].tails)
	}
	if a := mustServe(t, ask, q); len(a.Discarded) > 0 || !slices.Equal(a.HadNone, []int32{1, 2, 3}) {
		t.Errorf("the second time: %+v", a)
	}
	q.Cut = 2
	rigs[1].fails = errors.New("its disk is read-only")
	all[2].kill()
	a := mustServe(t, ask, q)
	if !slices.Equal(a.Discarded, []int32{1}) || len(a.Problems) != 1 || a.Problems[0] != (TailProblem{2, "its disk is read-only"}) || len(a.Silent) != 1 || a.Silent[0].Node != 3 {
		t.Errorf("with nodes that cannot: %+v", a)
	}
	if a := mustServe(t, ask, &TailRequest{Verb: TailList}); len(a.Tails) != 5 || len(a.Silent) != 1 {
		t.Errorf("%+v", a)
	}
}

// TestTailReadsAreFew proves that a node has only a few pages of tails in memory at a time, however many are asked for, of administrators and of nodes; and that all are answered in the end.
func TestTailReadsAreFew(t *testing.T) {
	all, rigs := startTailed(t, 2)
	zero := int32(0)
	rigs[1].data, rigs[1].hold = []byte("page"), make(chan struct{})
	q := &TailRequest{Verb: TailRead, Topic: "a", TopicID: all[0].meta.image.Load().Topic("a").ID, Partition: &zero, Cut: 1, Node: all[1].id, Bytes: 4}
	results := make(chan error, 12)
	for i := range cap(results) {
		ask := administratorOf(t, all[i%2])
		go func() {
			for {
				a, refused, err := ask.ServeTails(context.WithoutCancel(t.Context()), q)
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err == nil && (refused != nil || string(a.Data) != "page") {
					err = errors.New(fmt.Sprint(refused, string(a.Data)))
				}
				results <- err
				return
			}
		}()
	}
	eventually(t, "as many are read as may be", func() bool { return rigs[1].inside.Load() == 2*maxTailRequests })
	close(rigs[1].hold)
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := rigs[1].most.Load(); n > 2*maxTailRequests {
		t.Errorf("%d pages were in memory", n)
	}
}

// TestTailRequestsAreRecorded proves that the audit log has who reads and discards records, once for each tail, and not who only lists them.
func TestTailRequestsAreRecorded(t *testing.T) {
	all, rigs := startTailed(t, 1)
	img, zero := all[0].meta.image.Load(), int32(0)
	rigs[0].data = make([]byte, 2*MostTailBytes)
	var mu sync.Mutex // guards given
	var given []string
	all[0].ctl.cfg.Record = func(g *Given) {
		mu.Lock()
		defer mu.Unlock()
		given = append(given, g.About)
	}
	ask := administratorOf(t, all[0])
	q := TailRequest{Verb: TailList, Topic: "a", TopicID: img.Topic("a").ID, Partition: &zero, Cut: 3, Node: all[0].id, Bytes: int64(len(rigs[0].data))}
	mustServe(t, ask, &q)
	q.Verb = TailRead
	mustServe(t, ask, &q)
	q.From = MostTailBytes
	mustServe(t, ask, &q)
	q.Verb, q.From = TailDiscard, 0
	mustServe(t, ask, &q)
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"read a 0 cut 3 of node 1", "discard a 0 cut 3"}; !slices.Equal(given, want) {
		t.Errorf("recorded are %q, want %q", given, want)
	}
}
