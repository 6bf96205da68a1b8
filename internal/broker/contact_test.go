package broker

import (
	"errors"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// TestNodeThatIsCutOffSendsClientsAway proves what a node answers that others may have replaced without its knowledge: it
// leads no partition of which others have replicas, names no leader in its place, ends the waits of producers, and
// closes the connections of clients that ask for leaders and coordinators. After a while clients may read again, and see
// what it knows. The only replica of a partition serves all the time.
func TestNodeThatIsCutOffSendsClientsAway(t *testing.T) {
	r := newReplicated(t, []string{"a", "b"})
	r.topic("t")
	only := meta.NewUUID()
	r.write(meta.TopicCreated{ID: only, Name: "only"}, meta.PartitionsSet{Topic: only, Partitions: []meta.Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
	node := r.brokers[0]
	c := dial(t, node.addr)
	produce := func(when, topic string, acks, want int16) {
		t.Helper()
		p := produced(t, ask[*kmsg.ProduceResponse](c, at(12, put(topic, 0, acks, batch(t, "x")))))
		if p.ErrorCode != want || want == notLeader && p.CurrentLeader.LeaderID >= 0 {
			t.Errorf("%s, produce to %s: %+v, want the code %d", when, topic, p, want)
		}
	}
	fetch := func(when, topic string, want int16) {
		t.Helper()
		req := at(16, get(topic, 0, 0))
		req.Topics[0].TopicID = r.image.Load().Topic(topic).ID
		if f := fetched(t, ask[*kmsg.FetchResponse](c, req)); f.ErrorCode != want || want == notLeader && f.CurrentLeader.LeaderID >= 0 {
			t.Errorf("%s, fetch of %s: %+v, want the code %d", when, topic, f, want)
		}
	}
	look := func() kmsg.Request { return at(12, &kmsg.MetadataRequest{}) }
	find := func() kmsg.Request {
		return at(4, &kmsg.FindCoordinatorRequest{CoordinatorKeys: []string{"g"}})
	}
	produce("in contact", "t", -1, none)
	fetch("in contact", "t", none)

	r.brokers[1].cutOff.Store(true) // so that nothing is committed
	waits := dial(t, node.addr)
	long := at(12, put("t", 0, -1, batch(t, "y")))
	long.TimeoutMillis = 600_000
	waits.send(long)
	node.contact.Store(uint32(CutOff))
	if p := produced(t, waits.receive(long).(*kmsg.ProduceResponse)); p.ErrorCode != notLeader {
		t.Errorf("a producer that has waited is told %+v", p)
	}
	produce("cut off", "t", -1, notLeader)
	produce("cut off", "t", 1, notLeader)
	fetch("cut off", "t", notLeader)
	produce("cut off", "only", -1, none)
	fetch("cut off", "only", none)
	for _, req := range []kmsg.Request{look(), find()} {
		asks := dial(t, node.addr)
		asks.send(req)
		if b, err := asks.frame(); !errors.Is(err, syscall.ECONNRESET) { // see wire.ErrElsewhere
			t.Errorf("the connection of a client that asks %T is not reset: %x, %v", req, b, err)
		}
	}

	node.contact.Store(uint32(CutOffForLong))
	produce("cut off for long", "t", -1, notLeader)
	fetch("cut off for long", "t", none)
	if resp := ask[*kmsg.MetadataResponse](c, look()); len(resp.Brokers) != 2 {
		t.Errorf("cut off for long, it shows %+v", resp.Brokers)
	}
	node.contact.Store(uint32(InContact))
	r.brokers[1].cutOff.Store(false)
	produce("in contact again", "t", -1, none)
}
