package admin

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TestJoinTransactions proves which of the transactions that leaders know hang: those in partitions where no coordinator is going to
// end them, also if it knows their producer; and that each is listed once, with what both sides tell of it.
func TestJoinTransactions(t *testing.T) {
	place := func(topic string, partition int32, producer, start int64) (openTransaction, kadm.DescribedProducer) {
		return openTransaction{topic, partition, producer, start}, kadm.DescribedProducer{
			Topic: topic, Partition: partition, ProducerID: producer, ProducerEpoch: 3, CurrentTxnStartOffset: start, LastTimestamp: 1000 + start, CoordinatorEpoch: 5,
		}
	}
	open := map[openTransaction]kadm.DescribedProducer{}
	for _, p := range []struct {
		topic           string
		partition       int32
		producer, start int64
	}{{"a", 0, 1, 10}, {"a", 1, 1, 11}, {"a", 0, 2, 12}, {"b", 0, 2, 13}, {"b", 0, 3, 14}, {"b", 1, 4, 15}} {
		o, d := place(p.topic, p.partition, p.producer, p.start)
		open[o] = d
	}
	in := func(topic string, partitions ...int32) kadm.TopicsSet {
		s := kadm.TopicsSet{}
		s.Add(topic, partitions...)
		return s
	}
	known := []kadm.DescribedTransaction{
		{TxnID: "whole", ProducerID: 1, ProducerEpoch: 3, State: "Ongoing", StartTimestamp: 500, TimeoutMillis: 60, Coordinator: 9, Topics: in("a", 0, 1, 7)},
		{TxnID: "part", ProducerID: 2, ProducerEpoch: 4, State: "PrepareAbort", StartTimestamp: 400, Topics: in("b", 0)},
		{TxnID: "done", ProducerID: 3, State: "CompleteCommit", Topics: in("b", 0)}, // it lists its last partitions, as Kafka may
	}
	hanging := subtractKnown(open, known)
	all := joinTransactions(open, known, hanging)
	slices.SortFunc(all, compareTransactions)
	type line struct {
		id, state string
		producer  int64
		since     int64
		starts    []int64
	}
	var got []line
	for _, x := range all {
		l := line{id: x.ID, state: x.State, producer: x.Producer, since: x.Since}
		for _, p := range x.Partitions {
			l.starts = append(l.starts, p.Start)
		}
		got = append(got, l)
	}
	want := []line{
		{"part", "PrepareAbort", 2, 400, []int64{13}},
		{"whole", "Ongoing", 1, 500, []int64{10, 11, -1}}, // nothing was written into one partition
		{"part", Hanging, 2, 1012, []int64{12}},
		{"done", Hanging, 3, 1014, []int64{14}},
		{"", Hanging, 4, 1015, []int64{15}},
	}
	if !slices.EqualFunc(got, want, func(a, b line) bool {
		return a.id == b.id && a.state == b.state && a.producer == b.producer && a.since == b.since && slices.Equal(a.starts, b.starts)
	}) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
	if x := all[2]; x.Epoch != 3 || x.Partitions[0].CoordinatorEpoch != 5 {
		t.Errorf("the marker that ends it needs other epochs than %+v", x)
	}
}
