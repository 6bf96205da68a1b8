package interop

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// names numbers topics and groups, so that none is used twice in a run.
var names atomic.Int64

const (
	// sessionTimeout is the least that Kafka's group.min.session.timeout.ms allows.
	sessionTimeout = 6 * time.Second
	// takeoverLimit is long enough for the session timeout, two rebalances and a busy machine.
	takeoverLimit = 60 * time.Second
	pollWaitMS    = 300
)

// feed writes numbered records into both partitions of topic until the test
// ends, so that who owns a partition is seen by who receives its records.
func feed(t *testing.T, b *broker, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; t.Context().Err() == nil; i++ {
			for p := range int32(2) {
				cl.Produce(t.Context(), &kgo.Record{Partition: p, Value: []byte(strconv.Itoa(i))}, nil)
			}
			select {
			case <-tick.C:
			case <-t.Context().Done():
			}
		}
	}()
	t.Cleanup(func() {
		<-done // the test's context ends before this
		cl.Close()
	})
}

// member is a consumer in its own process and what it has received.
type member struct {
	*driver
	newest []groupRecord // of the last poll
}

func (m *member) poll(t *testing.T) {
	t.Helper()
	m.newest = m.must(t, request{Op: "poll", WaitMS: pollWaitMS}).Records
	for i, r := range m.newest {
		// The feeder wrote the record's offset into it.
		if r.Value != strconv.FormatInt(r.Offset, 10) {
			t.Fatalf("record %d of partition %d at offset %d is %q", i, r.Partition, r.Offset, r.Value)
		}
	}
}

// only returns the one partition of which the last poll brought records.
func (m *member) only() (int32, bool) {
	if len(m.newest) == 0 {
		return 0, false
	}
	p := m.newest[0].Partition
	for _, r := range m.newest {
		if r.Partition != p {
			return 0, false
		}
	}
	return p, true
}

// takeover proves that two members share a topic's partitions, that a
// killed one loses its partition, and that the other continues it exactly at
// the committed offset: nothing is skipped and nothing committed comes again.
func (s scenario) takeover(t *testing.T) {
	t.Parallel()
	c, b := s.c, s.b
	topic, group := topicName(c, "group"), fmt.Sprintf("%s.%d", c.name, names.Add(1))
	createTopic(t, b, topic, 2, nil)
	feed(t, b, topic)
	joined := func(name string) *member {
		m := &member{driver: start(t, c.name+" "+name, c.driver(t))}
		m.must(t, request{Op: "join", Addr: b.addr, Group: group, Topic: topic, SessionMS: int(sessionTimeout.Milliseconds())})
		return m
	}
	first := joined("first")
	eventually(t, takeoverLimit, "the first member receives from both partitions", func() bool {
		first.poll(t)
		_, one := first.only()
		return len(first.newest) > 0 && !one
	})
	second := joined("second")
	var mine, other int32 // the first member's partition, and the second's
	rounds := 0
	eventually(t, takeoverLimit, "each member receives from one partition", func() bool {
		first.poll(t)
		second.poll(t)
		p, ok := first.only()
		q, ok2 := second.only()
		if !ok || !ok2 || p == q {
			rounds = 0
		} else if rounds == 0 || p != mine {
			mine, other, rounds = p, q, 1
		} else {
			rounds++
		}
		return rounds == 3
	})
	var committed int64
	if c.can.noCommit {
		adm := admin(t, b)
		start := first.newest[len(first.newest)-1].Offset
		eventually(t, takeoverLimit, "the first member commits by itself", func() bool {
			first.poll(t)
			o, ok := fetchCommitted(t, adm, group, topic, mine)
			return ok && o > start
		})
	} else {
		committed = first.must(t, request{Op: "commit", Topic: topic, Partition: mine}).Offset
		second.must(t, request{Op: "commit", Topic: topic, Partition: other})
		// What it received since must come again to the other.
		received := 0
		eventually(t, takeoverLimit, "the first member receives more", func() bool {
			first.poll(t)
			received += len(first.newest)
			return received >= 5
		})
	}
	first.kill()
	died := time.Now()
	stored, ok := fetchCommitted(t, admin(t, b), group, topic, mine)
	if !c.can.noCommit && (!ok || stored != committed) {
		t.Fatalf("the broker has offset %d (%v), the member committed %d", stored, ok, committed)
	}
	next := int64(-1)
	eventually(t, takeoverLimit, "the second member takes over", func() bool {
		second.poll(t)
		for _, r := range second.newest {
			if r.Partition != mine {
				continue
			}
			if next == -1 {
				next = stored
			}
			if r.Offset != next {
				t.Fatalf("taken over at offset %d, want %d (committed: %d)", r.Offset, next, stored)
			}
			next++
		}
		return next >= stored+20
	})
	t.Logf("taken over at %d, %v after the kill", stored, time.Since(died).Round(100*time.Millisecond))
}

// fetchCommitted returns what the group has committed for a partition.
func fetchCommitted(t *testing.T, adm *kadm.Client, group, topic string, partition int32) (int64, bool) {
	t.Helper()
	offsets, err := adm.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	o, ok := offsets.Lookup(topic, partition)
	return o.At, ok && o.Err == nil
}
