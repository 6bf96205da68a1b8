package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestClientsEndHangingTransactions proves that an administrator without a proof, as Kafka's tools are, ends a transaction that
// hangs in a partition, in each version; and that the answer names each partition that has failed.
func TestClientsEndHangingTransactions(t *testing.T) {
	for _, version := range []int16{1, 2} {
		co := newTxnCoordinator()
		g := txnRig(t, co)
		g.topic("events", 1)
		c := dial(t, g.addr)
		co.add("app", "events", 0)
		produceOne(c, putTxn(9, "app", "events", 0, txnBatch(t, 7, 3, 0, "open")))
		if p := ask[*kmsg.FetchResponse](c, committed("events", 0, 0)).Topics[0].Partitions[0]; p.LastStableOffset != 0 {
			t.Fatalf("an open transaction leaves the last stable offset at %d", p.LastStableOffset)
		}
		resp := ask[*kmsg.WriteTxnMarkersResponse](c, at(version, marker(7, 3, 0, false, 0, TopicPartition{"events", 0}, TopicPartition{"missing", 4})))
		if len(resp.Markers) != 1 || resp.Markers[0].ProducerID != 7 || len(resp.Markers[0].Topics) != 2 {
			t.Fatalf("version %d: %+v", version, resp)
		}
		done, failed := resp.Markers[0].Topics[0], resp.Markers[0].Topics[1]
		if done.Topic != "events" || done.Partitions[0].ErrorCode != none || failed.Topic != "missing" || failed.Partitions[0].Partition != 4 ||
			failed.Partitions[0].ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("version %d: %+v", version, resp)
		}
		p := ask[*kmsg.FetchResponse](c, committed("events", 0, 0)).Topics[0].Partitions[0]
		if p.LastStableOffset != 2 || len(p.AbortedTransactions) != 1 || len(readCommittedOf(t, &p)) != 0 {
			t.Errorf("version %d: the last stable offset is %d, aborted are %+v", version, p.LastStableOffset, p.AbortedTransactions)
		}
	}
}
