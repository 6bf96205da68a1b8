package broker

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// manyTopics makes a rig with so many topics of one partition.
func manyTopics(t *testing.T, n int) *rig {
	t.Helper()
	g := newAdminRig(t, nil)
	g.apply(topicRecords(n)...)
	return g
}

// topicRecords make so many topics of one partition.
func topicRecords(n int) (recs []meta.Record) {
	for i := range n {
		id := meta.NewUUID()
		parts := []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}
		recs = append(recs, meta.TopicCreated{ID: id, Name: "topic-with-a-long-name-" + strconv.Itoa(i)}, meta.PartitionsSet{Topic: id, Partitions: parts})
	}
	return recs
}

// TestLongListsAreEncodedAsShortOnes proves for all versions that an answer which is encoded
// one element at a time has the same bytes as one that is encoded at once, in whatever pieces
// it is read.
func TestLongListsAreEncodedAsShortOnes(t *testing.T) {
	g := manyTopics(t, 200)
	m := g.image.Load()
	d := topicDescriber{view: clientView{m.Brokers, m.Brokers}, operations: true}
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
			whole.Topics = append(whole.Topics, d.describeListed(&d.list[i]))
		}
		whole.SetVersion(v)
		want := whole.AppendTo(nil)
		whole.Topics = nil
		empty := whole.AppendTo(nil)
		e := newElements(list{n: len(d.list), answerWith: d.answerWith}, whole, v, nil)
		size := e.measureElements()
		head := empty[:len(empty)-e.tail-countLen(e.flexible)]
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
// in one answer, with documentation and synonyms, and that the broker never has the whole of
// it in memory.
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
	// The answers after it are complete.
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

// TestUnsentAnswersHoldMemory proves that large answers of each kind hold work memory while
// they cannot be sent, here since an earlier request of the connection waits, and that they
// give it back when the connection is gone.
func TestUnsentAnswersHoldMemory(t *testing.T) {
	const topic = "topic-with-a-long-name-0"
	g := manyTopics(t, 2000)
	requests := longRequests(topic)
	for name, req := range requests {
		t.Run(name, func(t *testing.T) {
			held := func() int64 {
				return g.work.Usage(budget.Command).Used + g.work.Usage(budget.Data).Used + g.work.Usage(budget.Unsent).Used
			}
			c := dial(t, g.addr)
			served := g.broker.Stats().Requests["ApiVersions"]
			c.send(withMaxWait(get(topic, 0, 0), 600_000, 1), req, at(0, kmsg.NewPtrApiVersionsRequest()))
			eventually(t, "all were served", func() bool { return g.broker.Stats().Requests["ApiVersions"] > served })
			if n := held(); n < 16<<10 {
				t.Errorf("%d bytes are held", n)
			}
			_ = c.c.Close()
			eventually(t, "all memory is back", func() bool { return held() == 0 })
		})
	}
}

// TestStateFitsWhatIsReserved proves that the memory that is reserved for the partitions of a
// request is about the memory that they take.
func TestStateFitsWhatIsReserved(t *testing.T) {
	if n := unsafe.Sizeof(fetchPart{}); n > fetchPartMemory {
		t.Errorf("a partition of a fetch takes %d bytes", n)
	}
	if n := unsafe.Sizeof(fetchTopic{}); n > fetchTopicMemory {
		t.Errorf("a topic of a fetch takes %d bytes", n)
	}
	if n := unsafe.Sizeof(producePart{}); n+64 > producePartMemory { // and its part of an answer
		t.Errorf("a partition of a produce request takes %d bytes", n)
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

// TestLongWorkTakesTurns proves that requests which are large, or have a long answer, wait
// for a processor in each of their parts, and that small ones are served meanwhile.
func TestLongWorkTakesTurns(t *testing.T) {
	g := manyTopics(t, 100)
	const named = "topic-with-a-long-name-0"
	for name, req := range longRequests(named) {
		t.Run(name, func(t *testing.T) {
			c, other := dial(t, g.addr), dial(t, g.addr)
			g.work.Enter(budget.Codec)
			c.send(req)
			eventually(t, "it waits for a processor", func() bool { return g.work.WaitingTurns() > 0 })
			if p := produced(t, ask[*kmsg.ProduceResponse](other, put(named, 0, -1, batch(t, "value")))); p.ErrorCode != 0 {
				t.Errorf("code %d", p.ErrorCode)
			}
			g.work.Leave()
			c.receive(req)
		})
	}
}

// TestLongOffsetFetchTakesTurns proves that a request for the offsets of many partitions waits
// for a processor.
func TestLongOffsetFetchTakesTurns(t *testing.T) {
	g := newGroupRig(t)
	g.topic("events", 1)
	req := kmsg.NewPtrOffsetFetchRequest()
	group, topic := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroupTopic()
	group.Group, topic.Topic = "nobody", "events"
	for i := range int32(2 * stretch) {
		topic.Partitions = append(topic.Partitions, i, i)
	}
	group.Topics = append(group.Topics, topic)
	req.Groups = append(req.Groups, group)
	c, other := dial(t, g.addr), dial(t, g.addr)
	awaitCoordinator(&side{t: t, addr: g.addr, group: "nobody", clients: map[string]*client{}})
	g.work.Enter(budget.Codec)
	c.send(at(8, req))
	eventually(t, "it waits for a processor", func() bool { return g.work.WaitingTurns() > 0 })
	if p := produced(t, ask[*kmsg.ProduceResponse](other, put("events", 0, -1, batch(t, "value")))); p.ErrorCode != 0 {
		t.Errorf("code %d", p.ErrorCode)
	}
	g.work.Leave()
	resp, _ := c.receive(req).(*kmsg.OffsetFetchResponse)
	if got := len(resp.Groups[0].Topics[0].Partitions); got != 2*stretch {
		t.Errorf("%d partitions are answered", got)
	}
}

// TestLongWorkPassesItsProcessorOn proves that long work passes its processor on after each
// stretch, and goes on when others have had it.
func TestLongWorkPassesItsProcessorOn(t *testing.T) {
	b := &Broker{cfg: Config{Work: budget.New(budget.Config{Processors: 1})}}
	var step, passed int
	var other sync.WaitGroup
	b.inTurns(3*stretch, func(i int) {
		step = i
		if i == stretch/2 {
			other.Go(func() {
				b.cfg.Work.Enter(budget.Command)
				passed = step
				b.cfg.Work.Leave()
			})
			eventually(t, "another one waits", func() bool { return b.cfg.Work.WaitingTurns() == 1 })
		}
	})
	other.Wait()
	if passed != stretch-1 || step != 3*stretch-1 {
		t.Errorf("the other one had its turn after step %d, and the work ended with %d", passed, step)
	}
}

// longRequests are requests that take long, each for another reason.
func longRequests(topic string) map[string]kmsg.Request {
	fetch := get(topic, 0, 0)
	fetch.MaxWaitMillis = 0
	for i := range int32(2 * fewPartitions) {
		wantPart(fetch, topic, i, 0)
	}
	names := kmsg.NewPtrListOffsetsRequest()
	names.ReplicaID = -1
	names.Topics = append(names.Topics, kmsg.NewListOffsetsRequestTopic())
	names.Topics[0].Topic = topic
	for i := range int32(4096) {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, -1
		names.Topics[0].Partitions = append(names.Topics[0].Partitions, p)
	}
	produce := put("none", 0, -1, nil)
	for i := range int32(2 * fewPartitions) {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition = i
		produce.Topics[0].Partitions = append(produce.Topics[0].Partitions, p)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.ValidateOnly, create.TimeoutMillis = true, 60_000
	for i := range stretch {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "new"+strconv.Itoa(i), 1, 1
		create.Topics = append(create.Topics, rt)
	}
	return map[string]kmsg.Request{
		"Fetch": at(11, fetch), "ListOffsets": at(7, names), "Produce": at(9, produce),
		"Metadata": at(12, kmsg.NewPtrMetadataRequest()), "CreateTopics": at(7, create),
	}
}
