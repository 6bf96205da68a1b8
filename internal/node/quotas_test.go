package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/quota"
)

// plainConn is a connection of a client that does not wait by itself when it is throttled.
type plainConn struct {
	net.Conn

	t    *testing.T
	sent int32
}

// send sends a request, and reads no answer.
func (c *plainConn) send(req kmsg.Request) {
	c.t.Helper()
	c.sent++
	if _, err := c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("app")).AppendRequest(nil, req, c.sent)); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request of a flexible version, and returns its answer.
func (c *plainConn) ask(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	c.send(req)
	_ = c.SetReadDeadline(time.Now().Add(patience)) // it never fails
	head := make([]byte, 4)
	_, err := io.ReadFull(c, head)
	body := make([]byte, binary.BigEndian.Uint32(head))
	if err == nil {
		_, err = io.ReadFull(c, body)
	}
	resp := req.ResponseKind()
	if err == nil {
		resp.SetVersion(req.GetVersion())
		err = resp.ReadFrom(body[5:]) // behind the correlation id and no tags
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// makeTopic asks for a topic, and returns the throttle time and the error of the code.
func (c *plainConn) makeTopic(name string, partitions int32) (millis int32, err error) {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, 20_000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	req.Topics = append(req.Topics, topic)
	resp, _ := c.ask(req).(*kmsg.CreateTopicsResponse)
	return resp.ThrottleMillis, kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// TestForwardedRequestThrottles proves that a client whose request was sent on to the active controller's node, which throttles it, is throttled on its own
// connection, by the node that it has asked: the connection is muted there for the time that the client is told, while other connections, and the node that has
// decided, serve; and that topics which a Metadata request makes by way of another node count.
func TestForwardedRequestThrottles(t *testing.T) {
	m := newCluster(t, 3)
	cl := m.client()
	eventually(t, "the nodes know the active controller", func() bool { return m.nodes[1].peers.metadata.Leader() == 1 && m.nodes[2].peers.metadata.Leader() == 1 })
	user := []kadm.ClientQuotaEntityComponent{{Type: "user", Name: new("ANONYMOUS")}}
	set, err := kadm.NewClient(cl).AlterClientQuotas(deadline(t), []kadm.AlterClientQuotaEntry{{Entity: user, Ops: []kadm.AlterClientQuotaOp{{Key: "controller_mutation_rate", Value: 1}}}})
	if err != nil || set[0].Err != nil {
		t.Fatal(set, err)
	}
	eventually(t, "all nodes have the quota", func() bool {
		for _, n := range m.nodes {
			if len(n.image.Load().Quotas().ByEntity) == 0 {
				return false
			}
		}
		return true
	})
	dial := func(i int) *plainConn {
		t.Helper()
		nc, err := net.Dial("tcp", m.ports[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return &plainConn{Conn: nc, t: t}
	}
	muted := func(i int) int64 { return int64(m.nodes[i].wire.Stats().Muted()) }
	first := dial(1)
	named := func(name string) *kmsg.MetadataRequest {
		req := kmsg.NewPtrMetadataRequest()
		req.Version, req.AllowAutoTopicCreation = 12, true
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
		return req
	}
	created := func(name string) error {
		resp, _ := dial(2).ask(named(name)).(*kmsg.MetadataResponse)
		return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err := created("auto"); err != nil {
		t.Errorf("a topic within the quota: %v", err)
	}
	if millis, err := first.makeTopic("large", 200); err != nil || millis != 0 { // more than the quota has left, which is admitted once
		t.Fatalf("%v, throttled for %d ms", err, millis)
	}
	auto := float64(len(m.nodes[2].image.Load().Topic("auto").Partitions))
	for i, want := range []float64{200 + auto, 0, 0} { // the active controller's node measures
		if got := m.nodes[i].quotas.clients.Stats(quota.Mutation).Used; got != want {
			t.Errorf("node %d counts %v changes, want %v", i+1, got, want)
		}
	}
	if n := muted(0) + muted(1) + muted(2); n != 0 {
		t.Errorf("%d connections are muted", n)
	}
	millis, err := first.makeTopic("refused", 1)
	if !errors.Is(err, kerr.ThrottlingQuotaExceeded) || millis < 100_000 {
		t.Fatalf("%v, throttled for %d ms", err, millis)
	}
	first.send(named("large")) // nobody reads it
	eventually(t, "the connection is muted by the node that it has asked, alone", func() bool { return muted(1) == 1 && muted(0) == 0 && muted(2) == 0 })
	if millis, err := dial(1).makeTopic("refused", 1); err == nil || millis < 100_000 {
		t.Errorf("another connection of the client: %v, throttled for %d ms", err, millis)
	}
	if err := created("refused"); !errors.Is(err, kerr.UnknownTopicOrPartition) || m.nodes[0].image.Load().Topic("refused") != nil {
		t.Errorf("a topic above the quota: %v", err)
	}
	for i := range 3 {
		resp, _ := dial(i).ask(named("large")).(*kmsg.MetadataResponse)
		if n := len(resp.Topics[0].Partitions); n != 200 || resp.ThrottleMillis != 0 {
			t.Errorf("node %d shows %s", i+1, fmt.Sprint(n, " partitions, throttled for ", resp.ThrottleMillis))
		}
	}
}
