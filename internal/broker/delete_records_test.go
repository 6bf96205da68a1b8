package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestDeleteRecordsAndPolicies proves that records can be deleted unless the topic is compacted only, as in Apache Kafka (it
// was read there: Partition.deleteRecordsOnLeader of 4.3.1).
func TestDeleteRecordsAndPolicies(t *testing.T) {
	g := newRig(t)
	c := dial(t, g.addr)
	for _, x := range []struct {
		topic, policy string
		code          int16
		start         int64
	}{
		{"compacted", "compact", kerr.PolicyViolation.Code, -1},
		{"both", "compact,delete", 0, 1},
		{"plain", "delete", 0, 1},
		{"kept", "", 0, 1},
	} {
		g.topic(x.topic, 1, "cleanup.policy", x.policy)
		ask[*kmsg.ProduceResponse](c, put(x.topic, 0, -1, batchOf(t, time.Now().UnixMilli())))
		got := ask[*kmsg.DeleteRecordsResponse](c, deleteRecords(x.topic, 0, 1)).Topics[0].Partitions[0]
		if got.ErrorCode != x.code || got.LowWatermark != x.start {
			t.Errorf("cleanup.policy=%s: %+v", x.policy, got)
		}
	}
}
