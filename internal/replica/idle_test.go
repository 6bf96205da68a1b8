package replica

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// manyTopics makes topics of 1,000 partitions each, on nodes 1 and 2, which node 1 leads.
func (c *cluster) manyTopics(topics int) {
	var recs []meta.Record
	for i := range topics {
		id := meta.NewUUID()
		parts := make([]meta.Partition, 1000)
		for n := range parts {
			parts[n] = meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1}
		}
		recs = append(recs, meta.TopicCreated{ID: id, Name: fmt.Sprint("many-", i)}, meta.PartitionsSet{Topic: id, Partitions: parts})
	}
	c.write(recs...)
}

// TestIdlePartitionsCostNothing proves that a fetcher with many idle partitions sends requests that name
// none of them, which are answered with none of them, no more often than replica.fetch.wait.max.ms says;
// and that records of one partition concern that one only.
func TestIdlePartitionsCostNothing(t *testing.T) {
	runCluster(t, 2, func(c *cluster) {
		c.manyTopics(3)
		var requests, asked, answered atomic.Int64
		c.setMeddle(func(_, _ int32, what any) error {
			switch m := what.(type) {
			case *FetchRequest:
				requests.Add(1)
				asked.Add(int64(len(m.Partitions) + len(m.Reports)))
				if n := len(m.Partitions); n > maxAsked {
					t.Errorf("a request names %d partitions", n)
				}
			case *FetchAnswer:
				answered.Add(int64(len(m.Partitions)))
			}
			return nil
		})
		c.eventually("all partitions are followed", func() bool { return answered.Load() >= 3000 })
		time.Sleep(2 * time.Second)
		count := func(during func()) (r, q, a int64) {
			r, q, a = requests.Load(), asked.Load(), answered.Load()
			during()
			return requests.Load() - r, asked.Load() - q, answered.Load() - a
		}
		if r, q, a := count(func() { time.Sleep(10 * time.Second) }); r > 21 || r < 15 || q+a != 0 {
			t.Errorf("idle for ten seconds: %d requests name %d partitions, the answers %d", r, q, a)
		}
		r, q, a := count(func() {
			if end := <-c.node(1).send("many-0", oneRecord(t, "x"), AcksAll); end.err != nil {
				t.Error(end.err)
			}
			time.Sleep(time.Second)
		})
		if r > 6 || q > 4 || a > 4 || a == 0 {
			t.Errorf("for one record %d requests name %d partitions, the answers %d", r, q, a)
		}
	})
}

// BenchmarkIdleFollower measures a request of a node that follows ten thousand idle partitions, with its
// answer, on both sides.
func BenchmarkIdleFollower(b *testing.B) {
	c := newCluster(b, 1)
	defer c.close()
	c.nodes[0].start()
	c.manyTopics(10)
	set := c.nodes[0].present().set
	for set.TopicByID(c.anyTopic()) == nil {
		time.Sleep(time.Millisecond)
	}
	r := &FetchRequest{Replica: 2, MaxBytes: 1 << 20, PartitionBytes: 1 << 20, MinBytes: 1}
	for p := range set.Partitions() {
		r.Partitions = append(r.Partitions, PartitionFetch{ID: p.id, LastEpoch: record.NoEpoch})
	}
	serve := func() {
		a, err := set.ServeFetch(context.Background(), r)
		if err != nil {
			b.Fatal(err)
		}
		a.Release()
		r.Session, r.Number = a.Session, r.Number+1
	}
	all := r.Partitions
	serve()
	for i := 0; i < len(all); i += MaxAnswered { // what was answered is asked again, and stands then
		r.Partitions = all[i:min(i+MaxAnswered, len(all))]
		serve()
	}
	r.Partitions = nil
	b.ReportAllocs()
	for b.Loop() {
		serve()
	}
}

// anyTopic is the id of some topic in the newest image.
func (c *cluster) anyTopic() meta.UUID {
	img, _ := c.snapshot()
	for t := range img.Topics() {
		return t.ID
	}
	return meta.UUID{}
}
