package mirror_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

// fakeCluster is a source of some brokers that speaks the protocol, with logs in memory. Its brokers are at b1:9092 and so on.
type fakeCluster struct {
	t  *testing.T
	id string
	// fetchMax is the highest version of Fetch.
	fetchMax int16

	mu      sync.Mutex // guards the fields below
	topics  map[string]*fakeTopic
	down    map[int32]bool
	brokers int32
	conns   map[net.Conn]int32
	fetches []fakeFetch   // that were asked for
	changed chan struct{} // closed when something has changed
	ended   chan struct{} // closed at the end of the test
	denies  map[int16]bool
	dialled []string
	// unreachable is an address that nobody is at, as seen from here; brokers are at b1.here:9092 and so on, too.
	unreachable string
	ahead       time.Duration // of its clock
	held        chan struct{} // not nil: answers to fetches wait until it is closed
	groups      fakeSourceGroups
	fakeAccess
}

type fakeTopic struct {
	id         [16]byte
	partitions []*fakePartition
	configs    map[string]string
}

type fakePartition struct {
	leader     int32
	epoch      int32
	start      int64
	high       int64
	batches    []record.Batch
	epochStart map[int32]int64
}

// fakeFetch is a fetch that was asked for.
type fakeFetch struct {
	broker   int32
	names    []string // of partitions
	maxBytes int32
	wait     int32
}

func newFakeCluster(t *testing.T, brokers int32) *fakeCluster {
	t.Helper()
	c := &fakeCluster{
		t: t, id: "there", fetchMax: 13, brokers: brokers, topics: map[string]*fakeTopic{}, down: map[int32]bool{}, conns: map[net.Conn]int32{},
		changed: make(chan struct{}), ended: make(chan struct{}), denies: map[int16]bool{},
	}
	t.Cleanup(func() { close(c.ended) })
	return c
}

// change changes the cluster.
func (c *fakeCluster) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	close(c.changed)
	c.changed = make(chan struct{})
}

// create makes a topic, whose partitions are led by the brokers in turn.
func (c *fakeCluster) create(name string, partitions int, id byte) {
	c.change(func() {
		t := &fakeTopic{id: [16]byte{9, 15: id}, configs: map[string]string{}}
		c.topics[name] = t
		for i := range partitions {
			t.partitions = append(t.partitions, &fakePartition{leader: int32(i)%c.brokers + 1, epochStart: map[int32]int64{0: 0}})
		}
	})
}

func (c *fakeCluster) grow(name string, partitions int) {
	c.change(func() {
		t := c.topics[name]
		for i := len(t.partitions); i < partitions; i++ {
			t.partitions = append(t.partitions, &fakePartition{leader: int32(i)%c.brokers + 1, epochStart: map[int32]int64{0: 0}})
		}
	})
}

// produce appends a batch of so many records, each of so many bytes.
func (c *fakeCluster) produce(name string, partition, records, size int) {
	c.t.Helper()
	c.change(func() {
		p := c.topics[name].partitions[partition]
		bu := record.Builder{LeaderEpoch: record.Epoch(p.epoch)}
		for range records {
			bu.Append(time.Now().UnixMilli(), nil, make([]byte, size))
		}
		b, err := bu.Build()
		if err != nil {
			c.t.Error(err)
			return
		}
		b = slices.Clone(b)
		b.SetBaseOffset(record.Offset(p.high))
		p.batches = append(p.batches, b)
		p.high += int64(records)
	})
}

// elect has another broker lead, in the next epoch, with a log that ends at an offset.
func (c *fakeCluster) elect(name string, partition int, leader int32, end int64) {
	c.change(func() {
		p := c.topics[name].partitions[partition]
		p.leader, p.epoch = leader, p.epoch+1
		p.batches = slices.DeleteFunc(p.batches, func(b record.Batch) bool { return int64(b.NextOffset()) > end })
		p.high, p.epochStart[p.epoch] = end, end
	})
}

// trim deletes what is below an offset.
func (c *fakeCluster) trim(name string, partition int, to int64) {
	c.change(func() {
		p := c.topics[name].partitions[partition]
		p.start = to
		p.batches = slices.DeleteFunc(p.batches, func(b record.Batch) bool { return int64(b.NextOffset()) <= to })
	})
}

// stop has a broker break its connections and take no more.
func (c *fakeCluster) stop(broker int32) {
	c.change(func() {
		c.down[broker] = true
		for conn, b := range c.conns {
			if b == broker {
				_ = conn.Close()
			}
		}
	})
}

func (c *fakeCluster) restart(broker int32) { c.change(func() { delete(c.down, broker) }) }

// takeFetches returns the fetches that were asked for since the last call.
func (c *fakeCluster) takeFetches() []fakeFetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.fetches
	c.fetches = nil
	return list
}

// dial dials a broker.
func (c *fakeCluster) dial(ctx context.Context, _, address string) (net.Conn, error) {
	var broker int32
	if _, err := fmt.Sscanf(strings.Replace(address, ".here", "", 1), "b%d:9092", &broker); err != nil || address == c.unreachable {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("nobody is at %s", address)}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialled = append(c.dialled, address)
	if c.down[broker] || broker > c.brokers {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%s refuses the connection", address)}
	}
	near, far := net.Pipe()
	c.conns[far] = broker
	go c.serve(far, broker)
	return near, nil
}

// serve answers the requests of a connection, one after another.
func (c *fakeCluster) serve(conn net.Conn, broker int32) {
	defer func() {
		_ = conn.Close()
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
	}()
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		key, version := int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
		answer := frame[4:8:8]
		rest := frame[8:]
		if n := int16(binary.BigEndian.Uint16(rest)); n >= 0 {
			rest = rest[2+n:]
		}
		q := kmsg.RequestForKey(key)
		q.SetVersion(version)
		if q.IsFlexible() {
			rest = rest[1:] // there are no tags
			if key != 18 {
				answer = append(answer, 0)
			}
		}
		if err := q.ReadFrom(rest); err != nil {
			c.t.Errorf("a request %d of version %d: %v", key, version, err)
			return
		}
		r := c.answer(broker, q)
		if r == nil {
			return
		}
		r.SetVersion(version)
		body := r.AppendTo(answer)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
			return
		}
	}
}

func (c *fakeCluster) answer(broker int32, q kmsg.Request) kmsg.Response {
	if f, ok := q.(*kmsg.FetchRequest); ok {
		return c.fetch(broker, f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch q := q.(type) {
	case *kmsg.ApiVersionsRequest:
		r := kmsg.NewPtrApiVersionsResponse()
		for _, k := range [][2]int16{{0, 9}, {1, c.fetchMax}, {2, 7}, {3, 12}, {9, 8}, {10, 4}, {16, 4}, {18, 3}, {23, 4}, {29, 3}, {32, 4}, {48, 1}, {55, 1}} {
			r.ApiKeys = append(r.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k[0], MaxVersion: k[1]})
		}
		return r
	case *kmsg.MetadataRequest:
		return c.describe(q)
	case *kmsg.ListOffsetsRequest:
		return c.listOffsets(broker, q)
	case *kmsg.OffsetForLeaderEpochRequest:
		return c.findEpochs(broker, q)
	case *kmsg.DescribeConfigsRequest:
		return c.describeConfigs(q)
	case *kmsg.DescribeACLsRequest:
		return c.describeACLs(q)
	case *kmsg.DescribeClientQuotasRequest:
		return c.describeQuotas()
	case *kmsg.DescribeQuorumRequest:
		return c.describeQuorum()
	case *kmsg.FindCoordinatorRequest:
		return c.groups.find(q)
	case *kmsg.ListGroupsRequest:
		return c.groups.list(broker)
	case *kmsg.OffsetFetchRequest:
		return c.groups.fetch(q)
	}
	c.t.Errorf("the request %T", q)
	return nil
}

func (c *fakeCluster) describe(q *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	r := kmsg.NewPtrMetadataResponse()
	r.ClusterID, r.ControllerID = &c.id, 1
	for b := int32(1); b <= c.brokers; b++ {
		if !c.down[b] {
			r.Brokers = append(r.Brokers, kmsg.MetadataResponseBroker{NodeID: b, Host: fmt.Sprint("b", b), Port: 9092})
		}
	}
	var names []string
	if q.Topics == nil {
		for name := range c.topics {
			names = append(names, name)
		}
	}
	for _, t := range q.Topics {
		names = append(names, *t.Topic)
	}
	for _, name := range names {
		rt := kmsg.NewMetadataResponseTopic()
		rt.Topic = &name
		t := c.topics[name]
		if t == nil {
			rt.ErrorCode = kerr.UnknownTopicOrPartition.Code
			r.Topics = append(r.Topics, rt)
			continue
		}
		rt.TopicID, rt.IsInternal = t.id, strings.HasPrefix(name, "__consumer")
		for i, p := range t.partitions {
			rp := kmsg.NewMetadataResponseTopicPartition()
			rp.Partition, rp.Leader, rp.LeaderEpoch, rp.Replicas = int32(i), p.leader, p.epoch, []int32{p.leader}
			if c.down[p.leader] {
				rp.Leader, rp.ErrorCode = -1, kerr.LeaderNotAvailable.Code
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r
}

// find finds a partition of which a broker is asked, or the code of why it does not answer.
func (c *fakeCluster) find(broker int32, name string, id [16]byte, partition, epoch int32) (*fakePartition, int16) {
	t := c.topics[name]
	if id != [16]byte{} {
		for _, o := range c.topics {
			if o.id == id {
				t = o
			}
		}
		if t == nil || t.id != id {
			return nil, kerr.UnknownTopicID.Code
		}
	}
	if t == nil || int(partition) >= len(t.partitions) {
		return nil, kerr.UnknownTopicOrPartition.Code
	}
	p := t.partitions[partition]
	switch {
	case p.leader != broker:
		return nil, kerr.NotLeaderForPartition.Code
	case epoch >= 0 && epoch < p.epoch:
		return nil, kerr.FencedLeaderEpoch.Code
	case epoch > p.epoch:
		return nil, kerr.UnknownLeaderEpoch.Code
	}
	return p, 0
}

func (c *fakeCluster) listOffsets(broker int32, q *kmsg.ListOffsetsRequest) *kmsg.ListOffsetsResponse {
	r := kmsg.NewPtrListOffsetsResponse()
	for i := range q.Topics {
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = q.Topics[i].Topic
		for _, a := range q.Topics[i].Partitions {
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition = a.Partition
			p, code := c.find(broker, rt.Topic, [16]byte{}, a.Partition, a.CurrentLeaderEpoch)
			rp.ErrorCode = code
			switch {
			case p == nil:
			case a.Timestamp == -1:
				rp.Offset = p.high
			case a.Timestamp == -2:
				rp.Offset = p.start
			default:
				rp.Offset = -1
				for _, b := range p.batches {
					if b.MaxTimestamp() >= a.Timestamp {
						rp.Offset = int64(b.BaseOffset())
						break
					}
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r
}

// epochEnd is the highest epoch of a log that is not above one, and its end.
func (p *fakePartition) epochEnd(epoch int32) (int32, int64) {
	for e := epoch; e >= 0; e-- {
		if _, ok := p.epochStart[e]; !ok {
			continue
		}
		end := p.high
		for o, at := range p.epochStart {
			if o > e {
				end = min(end, at)
			}
		}
		return e, end
	}
	return -1, -1
}

func (c *fakeCluster) findEpochs(broker int32, q *kmsg.OffsetForLeaderEpochRequest) *kmsg.OffsetForLeaderEpochResponse {
	r := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for i := range q.Topics {
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = q.Topics[i].Topic
		for _, a := range q.Topics[i].Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition = a.Partition
			p, code := c.find(broker, rt.Topic, [16]byte{}, a.Partition, a.CurrentLeaderEpoch)
			if rp.ErrorCode = code; p != nil {
				rp.LeaderEpoch, rp.EndOffset = p.epochEnd(a.LeaderEpoch)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r
}

func (c *fakeCluster) describeConfigs(q *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsResponse {
	r := kmsg.NewPtrDescribeConfigsResponse()
	for i := range q.Resources {
		rr := kmsg.NewDescribeConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = q.Resources[i].ResourceType, q.Resources[i].ResourceName
		t := c.topics[rr.ResourceName]
		switch {
		case t == nil:
			rr.ErrorCode = kerr.UnknownTopicOrPartition.Code
		case c.denies[32]:
			rr.ErrorCode = kerr.TopicAuthorizationFailed.Code
		default:
			for k, v := range t.configs {
				one := kmsg.NewDescribeConfigsResponseResourceConfig()
				one.Name, one.Value, one.Source = k, &v, kmsg.ConfigSourceDynamicTopicConfig
				rr.Configs = append(rr.Configs, one)
			}
		}
		r.Resources = append(r.Resources, rr)
	}
	return r
}

// describeQuorum tells the time, which is ahead, unless the login may not ask.
func (c *fakeCluster) describeQuorum() *kmsg.DescribeQuorumResponse {
	r := kmsg.NewPtrDescribeQuorumResponse()
	if c.denies[55] {
		r.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return r
	}
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.LeaderID = 2
	for id := range int32(3) {
		v := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		v.ReplicaID = id
		if id == p.LeaderID {
			v.LastCaughtUpTimestamp = time.Now().Add(c.ahead).UnixMilli()
		}
		p.CurrentVoters = append(p.CurrentVoters, v)
	}
	r.Topics = []kmsg.DescribeQuorumResponseTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumResponseTopicPartition{p}}}
	return r
}

// fetch answers a fetch once there is something, or the time is over.
func (c *fakeCluster) fetch(broker int32, q *kmsg.FetchRequest) kmsg.Response {
	wait := time.NewTimer(time.Duration(q.MaxWaitMillis) * time.Millisecond)
	defer wait.Stop()
	isNoted := false
	for {
		c.mu.Lock()
		if !isNoted {
			c.noteFetch(broker, q)
			isNoted = true
		}
		r, size := c.read(broker, q)
		changed, held := c.changed, c.held
		c.mu.Unlock()
		isDue := size > 0 || q.MaxWaitMillis == 0
		if !isDue {
			select {
			case <-changed:
				continue
			case <-wait.C:
			case <-c.ended:
				return nil
			}
		}
		if held != nil {
			select {
			case <-held:
			case <-c.ended:
				return nil
			}
		}
		return r
	}
}

func (c *fakeCluster) noteFetch(broker int32, q *kmsg.FetchRequest) {
	f := fakeFetch{broker: broker, maxBytes: q.MaxBytes, wait: q.MaxWaitMillis}
	for i := range q.Topics {
		name := q.Topics[i].Topic
		for n, t := range c.topics {
			if t.id == q.Topics[i].TopicID {
				name = n
			}
		}
		for _, p := range q.Topics[i].Partitions {
			f.names = append(f.names, fmt.Sprint(name, "-", p.Partition))
		}
	}
	c.fetches = append(c.fetches, f)
}

// read reads what there is, and returns how much is worth an answer: an error, too.
func (c *fakeCluster) read(broker int32, q *kmsg.FetchRequest) (r *kmsg.FetchResponse, size int) {
	r = kmsg.NewPtrFetchResponse()
	for i := range q.Topics {
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = q.Topics[i].Topic, q.Topics[i].TopicID
		for k := range q.Topics[i].Partitions {
			a := &q.Topics[i].Partitions[k]
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition = a.Partition
			t := c.topicOf(rt.Topic, rt.TopicID)
			p, code := c.find(broker, rt.Topic, rt.TopicID, a.Partition, a.CurrentLeaderEpoch)
			if c.denies[1] || c.groups.deniesRecords && t != nil && t == c.topics["__consumer_offsets"] {
				p, code = nil, kerr.TopicAuthorizationFailed.Code
			}
			if p != nil {
				code = p.read(a, &rp, q.Version, int(q.MaxBytes)-size)
			}
			if rp.ErrorCode = code; code != 0 || rp.DivergingEpoch.Epoch >= 0 {
				size++
			}
			size += len(rp.RecordBatches)
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r, size
}

func (p *fakePartition) read(a *kmsg.FetchRequestTopicPartition, rp *kmsg.FetchResponseTopicPartition, version int16, most int) (code int16) {
	rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset, rp.RecordBatches = p.high, p.high, p.start, []byte{}
	if version >= 12 && a.LastFetchedEpoch >= 0 {
		if e, end := p.epochEnd(a.LastFetchedEpoch); e < a.LastFetchedEpoch || end < a.FetchOffset {
			rp.DivergingEpoch.Epoch, rp.DivergingEpoch.EndOffset = e, end
			return 0
		}
	}
	if a.FetchOffset < p.start || a.FetchOffset > p.high {
		return kerr.OffsetOutOfRange.Code
	}
	for _, b := range p.batches {
		n := len(rp.RecordBatches)
		if int64(b.NextOffset()) <= a.FetchOffset {
			continue
		}
		if n+len(b) > min(int(a.PartitionMaxBytes), most) && (n > 0 || most <= 0) {
			break
		}
		rp.RecordBatches = append(rp.RecordBatches, b...)
	}
	return 0
}

// bytesOf are all batches of a partition.
func (c *fakeCluster) bytesOf(name string, partition int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []byte
	for _, b := range c.topics[name].partitions[partition].batches {
		all = append(all, b...)
	}
	return all
}

var errFull = errors.New("the disk is full")
