package broker

import (
	"io"
	"net"
	"runtime"
	"testing"
	"weak"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// TestUnreadAnswersKeepNoImage proves that an answer which its client does not read does not keep
// the metadata of the time at which it was made: so clients that do not read, each an answer of
// another time, do not add up to many copies of the metadata.
func TestUnreadAnswersKeepNoImage(t *testing.T) {
	const topics = 5000
	g := manyTopics(t, topics)
	named := at(12, kmsg.NewPtrMetadataRequest())
	for topic := range g.image.Load().Topics() {
		q := kmsg.NewMetadataRequestTopic()
		q.Topic = &topic.Name
		named.Topics = append(named.Topics, q)
	}
	created := at(7, kmsg.NewPtrCreateTopicsRequest())
	created.ValidateOnly, created.TimeoutMillis = true, 60_000
	for range topics {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "new-"+meta.NewUUID().String(), 1, 1
		created.Topics = append(created.Topics, rt)
	}
	for _, req := range []kmsg.Request{named, at(12, kmsg.NewPtrMetadataRequest()), describeAll(g), created, at(2, kmsg.NewPtrElectLeadersRequest())} {
		c := dial(t, g.addr)
		if err := c.c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		c.send(req)
		if _, err := io.ReadFull(c.c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		old := weak.Make(g.image.Load())
		g.topic("changed-"+meta.NewUUID().String(), 1)
		g.broker.all.dropUnused(g.image.Load()) // as it is once a second
		runtime.GC()
		if old.Value() != nil {
			t.Errorf("the unread answer to %s keeps the image", kmsg.NameForKey(req.Key()))
		}
		_ = c.c.Close()
	}
}
