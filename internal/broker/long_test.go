package broker

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// manyTopics makes a rig with so many topics of one partition.
func manyTopics(t *testing.T, n int) *rig {
	t.Helper()
	g := newAdminRig(t, nil)
	var recs []meta.Record
	for i := range n {
		id := meta.NewUUID()
		parts := []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}
		recs = append(recs, meta.TopicCreated{ID: id, Name: "topic-with-a-long-name-" + strconv.Itoa(i)}, meta.PartitionsSet{Topic: id, Partitions: parts})
	}
	g.apply(recs...)
	return g
}

// TestListsAreEncodedAsAWhole proves for all versions that an answer which is
// encoded piece by piece has the bytes of one that is encoded at once, however it
// is read.
func TestListsAreEncodedAsAWhole(t *testing.T) {
	g := manyTopics(t, 200)
	m := g.image.Load()
	d := topicDescriber{m: m, operations: true}
	whole := kmsg.NewPtrMetadataResponse()
	whole.ClusterID, whole.AuthorizedOperations, whole.ErrorCode = &m.ClusterID, 5, 7
	whole.Brokers = append(whole.Brokers, kmsg.MetadataResponseBroker{NodeID: 1, Host: "here", Port: 5})
	for topic := range m.Topics() {
		d.list = append(d.list, describedTopic{topic: topic})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for v := range whole.MaxVersion() + 1 {
		whole.Topics = nil
		for i := range d.list {
			whole.Topics = append(whole.Topics, d.described(&d.list[i]))
		}
		whole.SetVersion(v)
		want := whole.AppendTo(nil)
		whole.Topics = nil
		empty := whole.AppendTo(nil)
		e := elements{list: list{n: len(d.list), with: d.answer}, at: -1, version: v, flexible: whole.IsFlexible()}
		e.learn()
		size := e.measure()
		head := empty[:len(empty)-e.tail-e.countLen()]
		got := appendLen(bytes.Clone(head), e.flexible, e.n)
		for off := int64(0); off < size; {
			p := make([]byte, min(size-off, 1+rnd.Int64N(3000)))
			n, err := e.ReadAt(p, off)
			if n < len(p) || err != nil {
				t.Fatalf("v%d: %d of %d bytes at %d: %v", v, n, len(p), off, err)
			}
			got = append(got, p...)
			if off += int64(n); rnd.IntN(4) == 0 {
				back := min(off, rnd.Int64N(500)) // the socket took less than was read
				off, got = off-back, got[:int64(len(got))-back]
			}
		}
		if n, err := e.ReadAt(make([]byte, 10), size-5); n != 5 || !errors.Is(err, io.EOF) {
			t.Errorf("v%d: at the end %d bytes, %v", v, n, err)
		}
		if got = append(got, empty[len(empty)-e.tail:]...); !bytes.Equal(got, want) {
			t.Errorf("v%d: %d bytes differ from %d", v, len(got), len(want))
		}
	}
}

// TestAllConfigsOfManyTopics proves that all configs of 10,000 topics are described
// in one answer, with documentation and synonyms, and that the broker never holds
// it whole. It was refused beyond 64 MB, and took ten times that in memory.
func TestAllConfigsOfManyTopics(t *testing.T) {
	const topics = 10_000
	g := manyTopics(t, topics)
	c := dial(t, g.addr)
	c.send(describeAll(g))
	var size [4]byte
	if _, err := io.ReadFull(c.c, size[:]); err != nil {
		t.Fatal(err)
	}
	var most, left uint64 = 0, uint64(be.Uint32(size[:]))
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	before, length := mem.HeapAlloc, left
	for piece := make([]byte, 1<<20); left > 0; {
		n, err := c.c.Read(piece[:min(left, uint64(len(piece)))])
		if err != nil {
			t.Fatal(err)
		}
		if left -= uint64(n); left%(16<<20) < uint64(n) {
			runtime.GC()
			runtime.ReadMemStats(&mem)
			most = max(most, mem.HeapAlloc)
		}
	}
	if length < 60<<20 {
		t.Errorf("the answer has %d bytes: it shows nothing", length)
	}
	if most > before+32<<20 {
		t.Errorf("an answer of %d MiB took %d MiB of memory", length>>20, (most-before)>>20)
	}
	// What comes next is in order.
	if m := ask[*kmsg.MetadataResponse](c, at(12, kmsg.NewPtrMetadataRequest())); len(m.Topics) != topics {
		t.Errorf("%d topics", len(m.Topics))
	}
}

// TestManyTopicsAtOnce proves that 10,000 topics are made, listed and described by
// one request each, with what they have.
func TestManyTopicsAtOnce(t *testing.T) {
	const topics = 10_000
	g := newAdminRig(t, nil)
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 60_000
	for i := range topics {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "t"+strconv.Itoa(i), 1, 1
		req.Topics = append(req.Topics, rt)
	}
	c := dial(t, g.addr)
	resp := ask[*kmsg.CreateTopicsResponse](c, at(7, req))
	for i, rt := range resp.Topics {
		if rt.ErrorCode != 0 || rt.Topic != "t"+strconv.Itoa(i) || len(rt.Configs) != len(config.Defs(config.Topic)) {
			t.Fatalf("topic %d: %s, code %d, %d configs", i, rt.Topic, rt.ErrorCode, len(rt.Configs))
		}
	}
	if len(resp.Topics) != topics {
		t.Fatalf("%d topics were made", len(resp.Topics))
	}
	all := kmsg.NewPtrMetadataRequest()
	listed := ask[*kmsg.MetadataResponse](c, at(12, all)).Topics
	for _, rt := range resp.Topics {
		q := kmsg.NewMetadataRequestTopic()
		q.Topic = new(rt.Topic)
		all.Topics = append(all.Topics, q)
	}
	named := ask[*kmsg.MetadataResponse](c, at(12, all)).Topics
	byName := make(map[string]kmsg.MetadataResponseTopic)
	for _, rt := range listed {
		byName[*rt.Topic] = rt
	}
	if len(listed) != topics || len(named) != topics {
		t.Fatalf("%d topics are listed, %d described", len(listed), len(named))
	}
	for i, rt := range named {
		if !reflect.DeepEqual(byName[resp.Topics[i].Topic], rt) || rt.TopicID != resp.Topics[i].TopicID {
			t.Fatalf("topic %d: %+v, and in the list %+v", i, rt, byName[resp.Topics[i].Topic])
		}
	}
}

// TestUnreadAnswerIsGivenUp proves that the client which has not read its answer for
// longest loses its connection when others wait for the memory that it holds, and
// that they are served then.
func TestUnreadAnswerIsGivenUp(t *testing.T) {
	g := manyTopics(t, 3000)
	req := describeAll(g)
	whole := g.answerLen(t, req)
	for g.work.Usage(budget.Data).Used > 0 {
		runtime.Gosched() // until all of it was sent
	}
	var unread []*client
	for u := g.work.Usage(budget.Data); u.Waiting == 0; u = g.work.Usage(budget.Data) {
		c := dial(t, g.addr)
		c.send(req)
		if unread = append(unread, c); len(unread) == 1 {
			if _, err := io.ReadFull(c.c, make([]byte, 4)); err != nil { // the first one's answer has begun
				t.Fatal(err)
			}
			continue
		}
		for before := u.Used; u.Used <= before && u.Waiting == 0; u = g.work.Usage(budget.Data) {
			runtime.Gosched() // until it holds memory, or waits for it
		}
	}
	last := unread[len(unread)-1]
	for range unreadFor - 1 {
		g.broker.unsent.relieve(1)
	}
	g.broker.unsent.relieve(0) // nobody waited any more: it begins anew
	for range unreadFor - 1 {
		g.broker.unsent.relieve(1)
	}
	if u := g.work.Usage(budget.Data); u.Waiting != 1 {
		t.Fatalf("%+v", u)
	}
	g.broker.unsent.relieve(1)
	if _, err := io.ReadFull(last.c, make([]byte, 4)); err != nil {
		t.Errorf("who waited is not served: %v", err)
	}
	if n, _ := io.CopyN(io.Discard, unread[0].c, whole); n >= whole {
		t.Errorf("the one that did not read got all %d bytes", n)
	}
}

// describeAll asks for all configs of all topics, with documentation and synonyms.
func describeAll(g *rig) *kmsg.DescribeConfigsRequest {
	req := described(4, true, int8(config.Topic), "")
	req.IncludeDocumentation = true
	req.Resources = nil
	for topic := range g.image.Load().Topics() {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(config.Topic), topic.Name
		req.Resources = append(req.Resources, r)
	}
	return req
}

// answerLen reads an answer and returns its length.
func (g *rig) answerLen(t *testing.T, req kmsg.Request) int64 {
	t.Helper()
	c := dial(t, g.addr)
	c.send(req)
	var size [4]byte
	if _, err := io.ReadFull(c.c, size[:]); err != nil {
		t.Fatal(err)
	}
	n := int64(be.Uint32(size[:]))
	if _, err := io.CopyN(io.Discard, c.c, n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLongWorkTakesTurns proves that requests which are large wait for a processor, and
// that small ones are served meanwhile.
func TestLongWorkTakesTurns(t *testing.T) {
	g := newRig(t)
	g.topic("topic-0", 1)
	large := get("topic-0", 0, 0)
	large.MaxWaitMillis = 0
	for i := range int32(bigFetch / 16) {
		wantPart(large, "topic-0", i, 0)
	}
	names := kmsg.NewPtrListOffsetsRequest()
	names.ReplicaID = -1
	names.Topics = append(names.Topics, kmsg.NewListOffsetsRequestTopic())
	names.Topics[0].Topic = "topic-0"
	for i := range int32(4096) {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, -1
		names.Topics[0].Partitions = append(names.Topics[0].Partitions, p)
	}
	for _, req := range []kmsg.Request{at(11, large), at(7, names)} {
		g.work.Enter(budget.Codec)
		c, other := dial(t, g.addr), dial(t, g.addr)
		c.send(req)
		for g.work.WaitingTurns() == 0 { // it is on its way
			runtime.Gosched()
		}
		if p := produced(t, ask[*kmsg.ProduceResponse](other, put("topic-0", 0, -1, batch(t, "value")))); p.ErrorCode != 0 {
			t.Errorf("%T: code %d", req, p.ErrorCode)
		}
		g.work.Leave()
		c.receive(req)
	}
}
