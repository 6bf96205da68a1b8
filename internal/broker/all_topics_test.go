package broker

import (
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
)

// TestAllTopicsAreShared proves that clients who ask for all topics share one encoding, that
// it is that of the newest image, and that its memory goes back when nobody asks any more.
func TestAllTopicsAreShared(t *testing.T) {
	const topics = 1000
	g := manyTopics(t, topics)
	req := at(12, kmsg.NewPtrMetadataRequest())
	count := func(c *client, want int) {
		if n := len(ask[*kmsg.MetadataResponse](c, req).Topics); n != want {
			t.Errorf("%d topics, and there are %d", n, want)
		}
	}
	var clients []*client
	for range 20 {
		clients = append(clients, dial(t, g.addr))
	}
	g.work.Enter(budget.Codec) // nobody can encode anything
	for _, c := range clients {
		c.send(req)
	}
	eventually(t, "all of them wait", func() bool { return g.broker.Stats().Requests["Metadata"] == int64(len(clients)) })
	if n := g.work.WaitingTurns(); n > 1 {
		t.Errorf("%d of them want to encode it", n)
	}
	g.work.Leave()
	for _, c := range clients {
		if n := len(c.receive(req).(*kmsg.MetadataResponse).Topics); n != topics {
			t.Errorf("%d topics", n)
		}
	}
	one := g.work.Usage(budget.Data).Used
	if one == 0 || one > boundTopics(g.image.Load()) {
		t.Errorf("%d bytes are held for one encoding", one)
	}
	id := meta.NewUUID()
	g.apply(meta.TopicCreated{ID: id, Name: "new"}, meta.PartitionsSet{Topic: id})
	count(clients[0], topics+1)
	g.broker.all.dropUnused(g.image.Load()) // somebody has asked for it
	if n := g.work.Usage(budget.Data).Used; n == 0 || n > boundTopics(g.image.Load()) {
		t.Errorf("%d bytes are held, for the newest image alone", n)
	}
	var wg sync.WaitGroup
	for i, c := range clients { // while it is forgotten all the time
		wg.Go(func() {
			for range 20 {
				count(c, topics+1)
				if i == 0 {
					g.broker.all.dropUnused(nil)
				}
			}
		})
	}
	wg.Wait()
	g.broker.all.dropUnused(g.image.Load())
	g.broker.all.dropUnused(g.image.Load())
	eventually(t, "the memory is back", func() bool { return g.work.Usage(budget.Data).Used == 0 })
}

// TestUnsentTopicsKeepTheirMemory proves that the encoding of an old image holds its memory
// until the last answer that has it is sent, or its connection is closed.
func TestUnsentTopicsKeepTheirMemory(t *testing.T) {
	g := manyTopics(t, 1000)
	c := dial(t, g.addr)
	c.send(withMaxWait(get("topic-with-a-long-name-0", 0, 0), 600_000, 1), at(12, kmsg.NewPtrMetadataRequest()), at(0, kmsg.NewPtrApiVersionsRequest()))
	eventually(t, "all were served", func() bool { return g.broker.Stats().Requests["ApiVersions"] == 1 })
	g.broker.all.dropUnused(nil)
	if g.work.Usage(budget.Data).Used == 0 {
		t.Error("an answer is to be sent whose memory is not counted")
	}
	_ = c.c.Close()
	eventually(t, "the memory is back", func() bool { return g.work.Usage(budget.Data).Used == 0 })
}
