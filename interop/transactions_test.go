package interop

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// frequentTimeouts has the coordinator look for transactions past their time-out twice a second; Kafka and Leat
	// else do it every ten seconds.
	frequentTimeouts = "transaction.abort.timed.out.transaction.cleanup.interval.ms=500"

	longTxnMS  = 60_000 // a transaction's time-out that no test reaches
	shortTxnMS = 2000   // one that ends a transaction which the client leaves open
)

// Error codes by which a client is told that its transaction is not its own any more.
const (
	invalidProducerEpoch = 47
	invalidTxnState      = 48
	producerFenced       = 90
)

// formerJava is Java's client from before the second version of transactions: it enters each partition into a
// transaction by a request of its own, and keeps its epoch from one transaction to the next.
var formerJava = contender{name: "kafka-clients-2.8", kits: []*kit{&formerJavaKit, &formerDriverKit}, driver: formerJavaDriver, can: abilities{noLogins: []string{byToken}}}

// TestTransactions proves that a client's transactions are whole or not there at all, for its own consumers and for
// others, that the newest producer with a transactional id ends what a former one has left, and that records are
// moved from one topic into another exactly once although a process is killed meanwhile.
func TestTransactions(t *testing.T) {
	for _, c := range append(slices.Clone(contenders), formerJava) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.can.noTransactions {
				t.Skip("it hands even aborted records and markers to its users, whichever broker it reads from")
			}
			for _, k := range c.kits {
				k.have(t)
			}
			s := transactor{c: c, b: shared(t, quick, frequentTimeouts)}
			s.first, s.second = start(t, c.name+" first", c.driver(t)), start(t, c.name+" second", c.driver(t))
			t.Run("ends", s.ends)
			t.Run("zombie", s.zombie)
			t.Run("timeout", s.timeout)
			if !c.can.noTxnOffsets {
				t.Run("move", s.move)
			}
		})
	}
}

// transactor is a contender with two processes that make transactions.
type transactor struct {
	c             contender
	b             *broker
	first, second *driver
}

func (s transactor) open(t *testing.T, d *driver, id string, timeoutMS int) {
	t.Helper()
	d.must(t, request{Op: "txn_open", Addr: s.b.addr, Txn: id, TxnMS: timeoutMS})
}

// write makes a transaction of values and leaves it open.
func (s transactor) write(t *testing.T, d *driver, topic string, values map[int32][]string) {
	t.Helper()
	d.must(t, request{Op: "txn_begin"})
	s.send(t, d, topic, values)
}

func (transactor) send(t *testing.T, d *driver, topic string, values map[int32][]string) {
	t.Helper()
	for p, v := range values {
		d.must(t, request{Op: "txn_send", Topic: topic, Partition: p, Values: v})
	}
}

// reads proves that the client and another one read these values, and no others before or between them.
func (s transactor) reads(t *testing.T, topic string, partition int32, committed bool, want []string) {
	t.Helper()
	q := request{Op: "consume", Addr: s.b.addr, Topic: topic, Partition: partition, Committed: committed, Count: len(want), WaitMS: 30_000}
	for name, consume := range map[string]func(request){
		"franz-go": func(q request) {
			if _, err := (&franz{}).consume(q); err != nil {
				t.Fatal(err)
			}
		},
		s.c.name: func(q request) { s.first.must(t, q) },
	} {
		q.File = filepath.Join(t.TempDir(), "consumed")
		consume(q)
		records, err := readRecords(q.File)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range records {
			got = append(got, string(r.Value))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s reads partition %d (only committed: %v):\n%q\nwant\n%q", name, partition, committed, got, want)
		}
	}
}

// ends proves that a consumer of committed records sees all of a transaction that was committed in several partitions,
// and nothing of one that was aborted, and that another consumer sees both.
func (s transactor) ends(t *testing.T) {
	topic := topicName(s.c, "ends")
	partitions := int32(2)
	if s.c.can.onePartition {
		partitions = 1
	}
	createTopic(t, s.b, topic, partitions, nil)
	s.open(t, s.first, topic, longTxnMS)
	all, committed := map[int32][]string{}, map[int32][]string{}
	for round, end := range []string{"txn_commit", "txn_abort", "txn_abort", "txn_commit", "txn_commit"} {
		values := map[int32][]string{}
		for p := range partitions {
			for i := range 3 {
				values[p] = append(values[p], fmt.Sprintf("%d: %d after %s", p, i, end))
			}
			all[p] = append(all[p], values[p]...)
			if end == "txn_commit" {
				committed[p] = append(committed[p], values[p]...)
			}
		}
		s.write(t, s.first, topic, values)
		s.awaitWritten(t, topic, int64(len(all[0])+round)) // with a marker for each round before
		s.first.must(t, request{Op: end})
	}
	for p := range partitions {
		s.reads(t, topic, p, true, committed[p])
		s.reads(t, topic, p, false, all[p])
	}
}

// awaitWritten returns when partition 0 ends at an offset: kcat does not wait until its records are written.
func (s transactor) awaitWritten(t *testing.T, topic string, end int64) {
	t.Helper()
	adm := admin(t, s.b)
	eventually(t, time.Minute, fmt.Sprintf("%s ends at %d", topic, end), func() bool {
		offsets, err := adm.ListEndOffsets(t.Context(), topic)
		o, ok := offsets.Lookup(topic, 0)
		return err == nil && ok && o.Offset == end
	})
}

// zombie proves that a producer whose transactional id another process has taken over cannot commit, and that nothing
// of its transaction is read.
func (s transactor) zombie(t *testing.T) {
	topic := topicName(s.c, "zombie")
	createTopic(t, s.b, topic, 1, nil)
	s.open(t, s.first, topic, longTxnMS)
	s.write(t, s.first, topic, map[int32][]string{0: {"of the zombie"}})
	s.awaitWritten(t, topic, 1)
	s.open(t, s.second, topic, longTxnMS)
	s.write(t, s.second, topic, map[int32][]string{0: {"of the second"}})
	s.awaitWritten(t, topic, 3) // behind the marker that ended the zombie's
	refused(t, s.first, request{Op: "txn_commit"}, append(s.c.can.fenced, invalidProducerEpoch, producerFenced)...)
	s.second.must(t, request{Op: "txn_commit"})
	s.reads(t, topic, 0, true, []string{"of the second"})
	s.reads(t, topic, 0, false, []string{"of the zombie", "of the second"})
}

// timeout proves that the coordinator aborts a transaction past its time-out, that the client is told when it commits,
// and that its transactional id serves again.
func (s transactor) timeout(t *testing.T) {
	topic := topicName(s.c, "timeout")
	createTopic(t, s.b, topic, 1, nil)
	s.open(t, s.first, topic, shortTxnMS)
	s.write(t, s.first, topic, map[int32][]string{0: {"too late"}})
	adm := admin(t, s.b)
	offset := func(list func(context.Context, ...string) (kadm.ListedOffsets, error)) int64 {
		offsets, err := list(t.Context(), topic)
		o, ok := offsets.Lookup(topic, 0)
		if err != nil || !ok || o.Err != nil {
			return -1
		}
		return o.Offset
	}
	s.awaitWritten(t, topic, 1)
	eventually(t, time.Minute, "the coordinator ends the transaction", func() bool {
		return offset(adm.ListCommittedOffsets) == 2 // the record and the marker
	})
	refused(t, s.first, request{Op: "txn_commit"}, append(s.c.can.fenced, invalidProducerEpoch, invalidTxnState, producerFenced)...)
	s.open(t, s.first, topic, longTxnMS)
	s.write(t, s.first, topic, map[int32][]string{0: {"in time"}})
	s.first.must(t, request{Op: "txn_commit"})
	s.reads(t, topic, 0, true, []string{"in time"})
	s.reads(t, topic, 0, false, []string{"too late", "in time"})
}

// move proves that records which one process moves from one topic into another, with their offsets in the same
// transactions, arrive exactly once although that process is killed in mid-transaction and another continues.
func (s transactor) move(t *testing.T) {
	from, to := topicName(s.c, "from"), topicName(s.c, "to")
	const partitions, half = 2, 20
	for _, topic := range []string{from, to} {
		createTopic(t, s.b, topic, partitions, nil)
	}
	group := to
	s.feed(t, from, 0, half)
	s.open(t, s.second, group, longTxnMS)
	join := request{Op: "join", Addr: s.b.addr, Group: group, Topic: from, Committed: true, SessionMS: int(sessionTimeout.Milliseconds())}
	s.second.must(t, join)
	for moved := 0; moved < partitions*half; {
		moved += s.moveSome(t, s.second, to)
		s.second.must(t, request{Op: "txn_commit"})
	}
	s.feed(t, from, half, 2*half)
	s.moveSome(t, s.second, to)
	s.second.kill() // its transaction is open
	adm := admin(t, s.b)
	for p := range int32(partitions) {
		if at, ok := fetchCommitted(t, adm, group, from, p); !ok || at != half {
			t.Errorf("offset %d of partition %d is committed (%v), want %d", at, p, ok, half)
		}
	}
	s.open(t, s.first, group, longTxnMS)
	s.first.must(t, join)
	for moved := 0; moved < partitions*half; {
		moved += s.moveSome(t, s.first, to)
		s.first.must(t, request{Op: "txn_commit"})
	}
	for p := range int32(partitions) {
		var want []string
		for i := range 2 * half {
			want = append(want, fmt.Sprintf("moved %d-%d", p, i))
		}
		s.reads(t, to, p, true, want)
		if at, _ := fetchCommitted(t, adm, group, from, p); at != 2*half {
			t.Errorf("offset %d of partition %d is committed at the end, want %d", at, p, 2*half)
		}
	}
}

// feed writes records into all partitions of a topic.
func (s transactor) feed(t *testing.T, topic string, first, end int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.b.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var all []*kgo.Record
	for i := first; i < end; i++ {
		for p := range int32(2) {
			all = append(all, &kgo.Record{Partition: p, Value: fmt.Appendf(nil, "%d-%d", p, i)})
		}
	}
	if err := cl.ProduceSync(t.Context(), all...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// moveSome makes a transaction of what the member is given next, with the offsets, and leaves it open. It returns how
// many records that are.
func (s transactor) moveSome(t *testing.T, d *driver, to string) int {
	t.Helper()
	var given []groupRecord
	eventually(t, takeoverLimit, "the member is given records", func() bool {
		given = d.must(t, request{Op: "poll", WaitMS: pollWaitMS}).Records
		return len(given) > 0
	})
	values := map[int32][]string{}
	for _, r := range given {
		values[r.Partition] = append(values[r.Partition], "moved "+r.Value)
	}
	s.write(t, d, to, values)
	d.must(t, request{Op: "txn_offsets"})
	return len(given)
}
