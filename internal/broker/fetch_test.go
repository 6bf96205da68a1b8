package broker

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// withMaxWait lets a fetch wait for so many milliseconds and bytes.
func withMaxWait(req *kmsg.FetchRequest, ms, minBytes int32) *kmsg.FetchRequest {
	req.MaxWaitMillis, req.MinBytes = ms, minBytes
	return req
}

// eventually waits until ok returns true.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not so: %s", what)
		}
	}
}

// awaitParked waits until so many fetches wait in the broker.
func (g *rig) awaitParked(n int) {
	g.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		got := 0
		g.broker.mu.Lock()
		for s := range g.broker.sessions {
			s.mu.Lock()
			for f := s.parked; f != nil; f = f.after {
				got++
			}
			s.mu.Unlock()
		}
		g.broker.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%d fetches are parked, want %d", got, n)
		}
	}
}

// TestLongPollIsWokenByAppend proves that a parked fetch is answered by the append to
// one of its partitions, also in the page-cache mode.
func TestLongPollIsWokenByAppend(t *testing.T) {
	for _, flush := range []string{"1", "100000"} {
		g := newRig(t)
		g.topic("events", 3, "flush.messages", flush)
		reader, writer := dial(t, g.addr), dial(t, g.addr)
		req := withMaxWait(get("events", 0, 0), 600_000, 1)
		wantPart(req, "events", 1, 0)
		wantPart(req, "events", 2, 0)
		reader.send(req)
		g.awaitParked(1)
		ask[*kmsg.ProduceResponse](writer, put("events", 1, 1, batch(t, "hello")))
		resp, _ := reader.receive(req).(*kmsg.FetchResponse)
		if got := values(t, resp.Topics[0].Partitions[1].RecordBatches); !slices.Equal(got, []string{"hello"}) {
			t.Fatalf("read %q", got)
		}
		g.awaitParked(0)
	}
}

// TestLongPollWaitsForMinBytes proves that a fetch that asks for many bytes is not
// answered by the first few, but by the append that makes them enough.
func TestLongPollWaitsForMinBytes(t *testing.T) {
	g := newRig(t)
	g.topic("events", 2)
	reader, writer := dial(t, g.addr), dial(t, g.addr)
	b := batch(t, "0123456789")
	req := withMaxWait(get("events", 0, 0), 600_000, int32(3*len(b)))
	wantPart(req, "events", 1, 0)
	reader.send(req)
	g.awaitParked(1)
	for i := range 3 {
		g.awaitParked(1)
		ask[*kmsg.ProduceResponse](writer, put("events", int32(i%2), -1, b))
	}
	resp, _ := reader.receive(req).(*kmsg.FetchResponse)
	n := 0
	for _, p := range resp.Topics[0].Partitions {
		n += len(p.RecordBatches)
	}
	if n != 3*len(b) {
		t.Fatalf("read %d bytes, want %d", n, 3*len(b))
	}
}

// TestLongPollEnds proves that a parked fetch is answered empty when its time is over,
// when the broker drains, and when its partition is deleted; and that a closed
// connection leaves none behind.
func TestLongPollEnds(t *testing.T) {
	g := newRig(t)
	id := g.topic("events", 1)
	c := dial(t, g.addr)
	if p := fetched(t, ask[*kmsg.FetchResponse](c, withMaxWait(get("events", 0, 0), 20, 1))); p.ErrorCode != 0 || len(p.RecordBatches) != 0 {
		t.Errorf("after its time: %+v", p)
	}
	gone := dial(t, g.addr)
	gone.send(withMaxWait(get("events", 0, 0), 600_000, 1))
	g.awaitParked(1)
	_ = gone.c.Close()
	g.awaitParked(0)

	req := withMaxWait(get("events", 0, 0), 600_000, 1)
	c.send(req)
	g.awaitParked(1)
	g.apply(meta.TopicDeleted{ID: id})
	if p := fetched(t, c.receive(req).(*kmsg.FetchResponse)); p.ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("after its topic was deleted: %+v", p)
	}
	g.topic("other", 1)
	req = withMaxWait(get("other", 0, 0), 600_000, 1)
	c.send(req)
	g.awaitParked(1)
	g.broker.Drain()
	if p := fetched(t, c.receive(req).(*kmsg.FetchResponse)); p.ErrorCode != 0 {
		t.Errorf("after draining: %+v", p)
	}
	if p := fetched(t, ask[*kmsg.FetchResponse](c, req)); p.ErrorCode != 0 {
		t.Errorf("a fetch of a drained broker: %+v", p)
	}
}

// TestParkedFetchDoesNotHoldBackProduce proves that a connection's later requests are
// served while its fetch waits, and that their answers come after it, in order.
func TestParkedFetchDoesNotHoldBackProduce(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	fetch, produce := withMaxWait(get("events", 0, 0), 600_000, 1), put("events", 0, -1, batch(t, "x"))
	c.send(fetch, produce)
	if p := fetched(t, c.receive(fetch).(*kmsg.FetchResponse)); len(values(t, p.RecordBatches)) != 1 {
		t.Fatalf("the fetch got %+v", p)
	}
	if p := produced(t, c.receive(produce).(*kmsg.ProduceResponse)); p.ErrorCode != 0 {
		t.Fatalf("the produce got %+v", p)
	}
	// The other way round a connection reads what it has written.
	fetch = get("events", 0, 1)
	c.send(produce, fetch)
	c.receive(produce)
	if p := fetched(t, c.receive(fetch).(*kmsg.FetchResponse)); len(values(t, p.RecordBatches)) != 1 {
		t.Fatalf("the fetch got %+v", p)
	}
}

// TestFetchLimits proves KIP-74: the first batch is sent whole however small the limits are,
// further ones if they fit, a partition's own limit is kept, and when the limit of the request
// is reached later partitions are answered without records.
func TestFetchLimits(t *testing.T) {
	g := newRig(t)
	g.topic("events", 3)
	c := dial(t, g.addr)
	b := batch(t, string(make([]byte, 1000)))
	for part := range int32(3) {
		for range 4 {
			ask[*kmsg.ProduceResponse](c, put("events", part, -1, b))
		}
	}
	cases := []struct {
		name           string
		max, partition int32
		want           [3]int // whole batches
	}{
		{"one byte", 1, 1, [3]int{1, 0, 0}},
		{"one batch and a half", int32(len(b) * 3 / 2), 1 << 20, [3]int{1, 0, 0}},
		{"six batches", int32(len(b) * 6), 1 << 20, [3]int{4, 2, 0}},
		{"two batches a partition", 1 << 20, int32(len(b) * 2), [3]int{2, 2, 2}},
		{"half a batch a partition", 1 << 20, int32(len(b) / 2), [3]int{1, 0, 0}},
		{"everything", 1 << 20, 1 << 20, [3]int{4, 4, 4}},
	}
	for _, tc := range cases {
		req := get("events", 0, 0)
		wantPart(req, "events", 1, 0)
		wantPart(req, "events", 2, 0)
		req.MaxBytes = tc.max
		for i := range req.Topics[0].Partitions {
			req.Topics[0].Partitions[i].PartitionMaxBytes = tc.partition
		}
		resp := ask[*kmsg.FetchResponse](c, req)
		var got [3]int
		for i, p := range resp.Topics[0].Partitions {
			got[i] = len(p.RecordBatches) / len(b)
		}
		if got != tc.want {
			t.Errorf("%s: %v batches, want %v", tc.name, got, tc.want)
		}
	}
}

// TestFetchInsideABatch proves that an offset in the middle of a batch brings the
// whole batch.
func TestFetchInsideABatch(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "a", "b", "c")))
	p := fetched(t, ask[*kmsg.FetchResponse](c, get("events", 0, 2)))
	if got := values(t, p.RecordBatches); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("read %q", got)
	}
}

// TestFollowersAreRefused proves that a fetch with a replica id is refused.
func TestFollowersAreRefused(t *testing.T) {
	g := newRig(t)
	id := g.topic("events", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "secret")))
	old := get("events", 0, 0)
	old.ReplicaID = 2
	late := at(17, get("events", 0, 0))
	late.Topics[0].TopicID, late.ReplicaState.ID = id, 2
	for _, req := range []*kmsg.FetchRequest{old, late} {
		if p := fetched(t, ask[*kmsg.FetchResponse](c, req)); p.ErrorCode != kerr.TopicAuthorizationFailed.Code || len(p.RecordBatches) > 0 {
			t.Errorf("version %d: %+v", req.Version, p)
		}
	}
}

// sessionClient speaks the client's half of KIP-227.
type sessionClient struct {
	*client
	id, epoch int32
}

// fetch sends the changes and returns the answer's partitions as "number:values" or
// "number!code".
func (c *sessionClient) fetch(req *kmsg.FetchRequest) ([]string, int16) {
	c.t.Helper()
	req.SessionID, req.SessionEpoch = c.id, c.epoch
	resp := ask[*kmsg.FetchResponse](c.client, req)
	c.id, c.epoch = resp.SessionID, c.epoch+1
	var out []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			s := fmt.Sprintf("%d:%v", p.Partition, values(c.t, p.RecordBatches))
			if p.ErrorCode != 0 {
				s = fmt.Sprintf("%d!%d", p.Partition, p.ErrorCode)
			}
			out = append(out, s)
		}
	}
	return out, resp.ErrorCode
}

func changes() *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 12, 0, 1, 1<<20
	return req
}

func forget(req *kmsg.FetchRequest, topic string, partition int32) *kmsg.FetchRequest {
	f := kmsg.NewFetchRequestForgottenTopic()
	f.Topic, f.Partitions = topic, []int32{partition}
	req.ForgottenTopics = append(req.ForgottenTopics, f)
	return req
}

// TestFetchSession proves KIP-227: an answer has only partitions that have changed; records
// that the client has not moved past are sent again; forgotten partitions are not answered;
// errors are answered each time; and a session without partitions is closed.
func TestFetchSession(t *testing.T) {
	g := newRig(t)
	g.topic("events", 3)
	driveSession(t, g.addr, "events")
	if n := g.broker.Stats().FetchSessions; n != 0 {
		t.Errorf("%d sessions are kept", n)
	}
}

// TestFetchSessionIsKafkas proves that Kafka passes TestFetchSession, too.
func TestFetchSessionIsKafkas(t *testing.T) {
	addr := kafka(t)
	topic := fmt.Sprintf("session-%d", time.Now().UnixNano())
	createOnKafka(t, dial(t, addr), topic, 3, nil)
	driveSession(t, addr, topic)
}

func driveSession(t *testing.T, addr, topic string) {
	t.Helper()
	w := dial(t, addr)
	c := &sessionClient{client: dial(t, addr)}
	expect := func(what string, req *kmsg.FetchRequest, want ...string) {
		t.Helper()
		got, code := c.fetch(req)
		if code != 0 || !slices.Equal(got, want) {
			t.Fatalf("%s: code %d, %q, want %q", what, code, got, want)
		}
	}
	full := changes()
	for p := range int32(3) {
		wantPart(full, topic, p, 0)
	}
	expect("the full fetch", full, "0:[]", "1:[]", "2:[]")
	if c.id == 0 {
		t.Fatal("no session was made")
	}
	expect("nothing changed", changes())
	ask[*kmsg.ProduceResponse](w, put(topic, 1, -1, batch(t, "a")))
	expect("one changed", changes(), "1:[a]")
	ask[*kmsg.ProduceResponse](w, put(topic, 0, -1, batch(t, "b")))
	expect("it is told again, behind the others", changes(), "0:[b]", "1:[a]")
	taken := changes()
	wantPart(taken, topic, 0, 1)
	wantPart(taken, topic, 1, 1)
	expect("taken", taken)
	bad := changes()
	wantPart(bad, topic, 9, 0)
	expect("an unknown partition", bad, "9!3")
	expect("is told again", changes(), "9!3")
	expect("until forgotten", forget(changes(), topic, 9))
	beyond := changes()
	wantPart(beyond, topic, 0, 99)
	expect("an offset out of range", beyond, "0!1")
	expect("is told again", changes(), "0!1")
	mended := changes()
	wantPart(mended, topic, 0, 1)
	expect("and its end, once", mended, "0:[]")
	expect("nothing changed since", changes())
	ask[*kmsg.ProduceResponse](w, put(topic, 2, -1, batch(t, "c")))
	expect("a forgotten one is silent", forget(changes(), topic, 2))
	ask[*kmsg.ProduceResponse](w, put(topic, 1, -1, batch(t, "d")))
	expect("the others go on", changes(), "1:[d]")
	back := changes()
	wantPart(back, topic, 2, 0)
	expect("it is back, behind the others", back, "1:[d]", "2:[c]")
	ask[*kmsg.DeleteRecordsResponse](w, deleteRecords(topic, 0, 1))
	gone := changes()
	wantPart(gone, topic, 1, 2)
	wantPart(gone, topic, 2, 1)
	expect("a new start is told", gone, "0:[]")
	expect("all forgotten", forget(forget(forget(changes(), topic, 0), topic, 1), topic, 2))
	if c.id != 0 {
		t.Errorf("an empty session is kept as %d", c.id)
	}
}

// TestFetchSessionErrors proves the codes for unknown sessions, wrong epochs and a
// change between names and ids, and that a full fetch replaces the session.
func TestFetchSessionErrors(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := &sessionClient{client: dial(t, g.addr)}
	full := func() *kmsg.FetchRequest {
		req := changes()
		wantPart(req, "events", 0, 0)
		return req
	}
	begin := func() (id int32) {
		c.id, c.epoch = 0, 0
		if _, code := c.fetch(full()); code != 0 || c.id == 0 {
			t.Fatalf("begin: code %d, id %d", code, c.id)
		}
		return c.id
	}
	first := begin()
	cases := []struct {
		name      string
		id, epoch int32
		version   int16
		want      *kerr.Error
	}{
		{"an old epoch", first, 5, 12, kerr.InvalidFetchSessionEpoch},
		{"another session", first + 1, 1, 12, kerr.FetchSessionIDNotFound},
		{"topic ids in a session of names", first, 1, 13, kerr.FetchSessionTopicIDError},
		{"none", 0, 1, 12, kerr.FetchSessionIDNotFound},
	}
	for _, tc := range cases {
		c.id, c.epoch = tc.id, tc.epoch
		if got, code := c.fetch(at(tc.version, changes())); code != tc.want.Code || len(got) != 0 || c.id != 0 {
			t.Errorf("%s: code %d, %v, id %d", tc.name, code, got, c.id)
		}
	}
	c.id, c.epoch = first, 0
	if _, code := c.fetch(full()); code != 0 || c.id == first || c.id == 0 {
		t.Errorf("a full fetch with an id: code %d, id %d", code, c.id)
	}
	if n := g.broker.Stats().FetchSessions; n != 1 {
		t.Errorf("%d sessions, want the new one only", n)
	}
	c.epoch = finalEpoch
	if _, code := c.fetch(full()); code != 0 || c.id != 0 || g.broker.Stats().FetchSessions != 0 {
		t.Errorf("the final epoch: code %d, id %d", code, c.id)
	}
}

// TestFetchSessionsAreBounded proves that a full cache creates no more sessions, except that
// it evicts one that was not used for two minutes, or, for a larger one, one that was created
// two minutes ago.
func TestFetchSessionsAreBounded(t *testing.T) {
	c := newFetchSessions(2, MostFetchSessionBytes)
	begin := func(parts int) int32 {
		f := &fetch{version: 12}
		f.growTopics(1)
		f.topics = append(f.topics, fetchTopic{name: []byte("events")})
		for i := range parts {
			f.parts = append(f.parts, fetchPart{fetchWant: fetchWant{topic: &f.topics[0], index: int32(i)}})
		}
		f.beginReading()
		return c.createSession(f)
	}
	a, b := begin(2), begin(5)
	if a == 0 || b == 0 || a == b {
		t.Fatalf("ids %d and %d", a, b)
	}
	if id := begin(9); id != 0 {
		t.Fatal("a young session gave way")
	}
	old := time.Now().Add(-evictAfter - time.Second)
	c.byID[a].created, c.byID[b].created = old, old
	if id := begin(2); id != 0 {
		t.Fatal("a session gave way to one that is not larger")
	}
	d := begin(3)
	if d == 0 || c.find(a) != nil || c.find(b) == nil {
		t.Fatal("not the smallest one gave way")
	}
	c.byID[b].used = old
	if e := begin(1); e == 0 || c.find(b) != nil || c.find(d) == nil {
		t.Fatal("an unused session did not give way")
	}
	if c.count() != 2 {
		t.Fatalf("%d sessions", c.count())
	}
}

// TestFetchSessionsAreBoundedByPartitions proves that all sessions together never have more
// partitions than the bound, neither when one is created nor when one grows.
func TestFetchSessionsAreBoundedByPartitions(t *testing.T) {
	c := newFetchSessions(10, MostFetchSessionBytes)
	begin := func(parts int) int32 {
		f := &fetch{version: 12}
		f.growTopics(1)
		f.topics = append(f.topics, fetchTopic{name: []byte("events")})
		f.parts = make([]fetchPart, parts)
		for i := range f.parts {
			f.parts[i].fetchWant = fetchWant{topic: &f.topics[0], index: int32(i)}
		}
		f.beginReading()
		return c.createSession(f)
	}
	c.parts = c.maxParts - 10 // as if others had them
	a := begin(8)
	if a == 0 || begin(3) != 0 {
		t.Fatal("the bound does not hold when a session begins")
	}
	s := c.find(a)
	c.noteUse(s, 10)
	if c.find(a) == nil {
		t.Fatal("a session within the bound was removed")
	}
	c.noteUse(s, 11)
	if c.find(a) != nil || c.parts != c.maxParts-10 {
		t.Fatalf("the bound does not hold when a session grows: %d", c.parts)
	}
}

// TestNamesCountInFetchSessions proves that sessions are bounded also if clients name few
// topics by long names that no topic has.
func TestNamesCountInFetchSessions(t *testing.T) {
	c := newFetchSessions(10_000, MostFetchSessionBytes)
	begin := func(name []byte) int32 {
		f := &fetch{version: 12}
		f.growTopics(1)
		f.topics = append(f.topics, fetchTopic{name: name})
		f.parts = []fetchPart{{fetchWant: fetchWant{topic: &f.topics[0]}}}
		f.beginReading()
		return c.createSession(f)
	}
	long := make([]byte, 1<<20)
	kept := 0
	for begin(long) != 0 {
		kept++
	}
	if most := MostFetchSessionBytes / len(long); kept > most {
		t.Fatalf("%d sessions with a megabyte each are kept, at most %d fit", kept, most)
	}
	f := &fetch{version: 12, fetchLists: fetchLists{forgotten: []forgotten{{topic: fetchTopic{name: long}}}}}
	f.epoch = 1
	if code, size := c.newest.applyRequest(f); code != none || size != 0 || c.newest.nameBytes != 0 {
		t.Errorf("a session without its topic: code %d, size %d, %d bytes of names", code, size, c.newest.nameBytes)
	}
}

// TestParkedFetchesAreBounded proves that the parked fetches of a connection are bounded: those
// above the bound do not wait, and all are answered in order.
func TestParkedFetchesAreBounded(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	req := withMaxWait(get("events", 0, 0), 600_000, 1)
	for range maxParkedFetches + 20 {
		c.send(req)
	}
	g.awaitParked(maxParkedFetches)
	eventually(t, "the fetches above the bound are read", func() bool {
		return g.stats.Requests(req.Key()) == maxParkedFetches+20
	})
	if n := g.broker.watched.Load(); n != maxParkedFetches {
		t.Errorf("%d partitions are waited for", n)
	}
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("events", 0, -1, batch(t, "x")))
	for i := range maxParkedFetches + 20 {
		got := len(values(t, fetched(t, c.receive(req).(*kmsg.FetchResponse)).RecordBatches))
		if want := min(1, max(0, maxParkedFetches-i)); got != want {
			t.Fatalf("answer %d has %d records", i, got)
		}
	}
	g.awaitParked(0)
	if n := g.broker.watched.Load(); n != 0 {
		t.Errorf("%d partitions are waited for when nobody waits", n)
	}
}

// parkInSession begins a session with a partition that exists and some that do not, and parks a
// fetch in it. It returns the client, whose session has the epoch after that fetch.
func parkInSession(t *testing.T, g *rig) (c *sessionClient, parked *kmsg.FetchRequest) {
	t.Helper()
	c = &sessionClient{client: dial(t, g.addr)}
	full := changes()
	wantPart(full, "events", 0, 0)
	for i := range 50 {
		wantPart(full, fmt.Sprint(strings.Repeat("none", 50), i), 0, 0)
	}
	if _, code := c.fetch(full); code != 0 || c.id == 0 {
		t.Fatalf("code %d, session %d", code, c.id)
	}
	parked = withMaxWait(forget(changes(), strings.Repeat("none", 50)+"0", 0), 600_000, 1)
	parked.SessionID, parked.SessionEpoch = c.id, c.epoch
	c.send(parked)
	g.awaitParked(1)
	c.epoch++
	return c, parked
}

// TestParkedFetchKeepsNoSession proves that a fetch which waits keeps nothing of its session,
// nor of its request, alive: not when the session is removed, and not when it goes on without
// the fetch and forgets partitions. The fetch is told so when its wait is over.
func TestParkedFetchKeepsNoSession(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(c *sessionClient, other *client)
		want  *kerr.Error
	}{
		"removed": {func(c *sessionClient, other *client) {
			end := changes()
			end.SessionID, end.SessionEpoch = c.id, finalEpoch
			ask[*kmsg.FetchResponse](other, end)
		}, kerr.FetchSessionIDNotFound},
		"gone on": {func(c *sessionClient, other *client) {
			next := changes()
			for i := range 50 {
				forget(next, fmt.Sprint(strings.Repeat("none", 50), i), 0)
			}
			next.SessionID, next.SessionEpoch = c.id, c.epoch
			ask[*kmsg.FetchResponse](other, next)
		}, kerr.InvalidFetchSessionEpoch},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.topic("events", 1)
			s, parked := parkInSession(t, g)
			last := weak.Make(g.broker.cache.newest.last)
			topic := weak.Make(last.Value().key.topic)
			c.leave(s, dial(t, g.addr))
			eventually(t, "the partition's memory is free", func() bool {
				runtime.GC()
				return last.Value() == nil && topic.Value() == nil
			})
			g.broker.mu.Lock()
			for s := range g.broker.sessions {
				s.mu.Lock()
				for f := s.parked; f != nil; f = f.after {
					if cap(f.forgotten) > 0 && f.forgotten[:1][0].topic.name != nil || f.open != nil || len(f.parts) > 0 {
						t.Error("the fetch keeps parts of its request, or of its session")
					}
				}
				s.mu.Unlock()
			}
			g.broker.mu.Unlock()
			ask[*kmsg.ProduceResponse](dial(t, g.addr), put("events", 0, 1, batch(t, "x")))
			if resp, _ := s.receive(parked).(*kmsg.FetchResponse); resp.ErrorCode != c.want.Code || len(resp.Topics) != 0 {
				t.Errorf("code %d, %d topics", resp.ErrorCode, len(resp.Topics))
			}
		})
	}
}

// TestParkedFetchGoesOnInSession proves that a fetch which has waited in a session answers as the
// session's next one, and that it reserves no memory for what belongs to the session.
func TestParkedFetchGoesOnInSession(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c, parked := parkInSession(t, g)
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("events", 0, 1, batch(t, "x")))
	resp, _ := c.receive(parked).(*kmsg.FetchResponse)
	if resp.ErrorCode != 0 || resp.SessionID != c.id {
		t.Fatalf("code %d, session %d", resp.ErrorCode, resp.SessionID)
	}
	found := 0
	for _, rt := range resp.Topics {
		if rt.Topic == "events" {
			found += len(values(t, rt.Partitions[0].RecordBatches))
		}
	}
	if found != 1 {
		t.Errorf("%d records", found)
	}
	taken := changes()
	wantPart(taken, "events", 0, 1)
	if _, code := c.fetch(taken); code != 0 {
		t.Errorf("the next fetch: code %d", code)
	}
}

// TestFetchSessionsNeverPassTheirBound proves that sessions which are created at the same time
// have room for all of them together.
func TestFetchSessionsNeverPassTheirBound(t *testing.T) {
	c := newFetchSessions(1000, 20*sessionPartitionMemory)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				f := &fetch{version: 12, fetchLists: fetchLists{topics: []fetchTopic{{name: []byte("events")}}, parts: make([]fetchPart, 15)}}
				for i := range f.parts {
					f.parts[i].fetchWant = fetchWant{topic: &f.topics[0], index: int32(i)}
				}
				f.beginReading()
				id := c.createSession(f)
				c.mu.Lock()
				if c.parts > c.maxParts {
					t.Errorf("sessions of %d partitions, at most %d fit", c.parts, c.maxParts)
				}
				c.mu.Unlock()
				if id != 0 {
					c.removeSession(id)
				}
			}
		})
	}
	group.Wait()
}

// TestPooledFetchKeepsNoLongNames proves that the state of an answered fetch keeps no long names.
func TestPooledFetchKeepsNoLongNames(t *testing.T) {
	f := newFetch(&Broker{})
	f.topics = append(f.topics, fetchTopic{name: f.copyName(make([]byte, maxNameChunk+1))})
	f.forgetPartitions(keepParts)
	if f.names != nil || f.nameBytes != 0 {
		t.Errorf("%d bytes of names are kept", cap(f.names))
	}
}
