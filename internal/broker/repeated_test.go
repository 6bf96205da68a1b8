package broker

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestRepeatedPartitionsAreAnsweredOnce proves that a small request which names a partition
// many times does not have a large answer.
func TestRepeatedPartitionsAreAnsweredOnce(t *testing.T) {
	g := newAdminRig(t, nil)
	g.topic("t", 2)
	c := dial(t, g.addr)
	partitions := []int32{1, 0, 1, 1, 0, 7, 7}

	producers := kmsg.NewPtrDescribeProducersRequest()
	dirs := kmsg.NewPtrDescribeLogDirsRequest()
	for range 2 {
		producers.Topics = append(producers.Topics, kmsg.DescribeProducersRequestTopic{Topic: "t", Partitions: partitions})
		dirs.Topics = append(dirs.Topics, kmsg.DescribeLogDirsRequestTopic{Topic: "t", Partitions: partitions})
	}
	described := 0
	for _, topic := range ask[*kmsg.DescribeProducersResponse](c, producers).Topics {
		described += len(topic.Partitions)
	}
	if described != 3 {
		t.Errorf("the producers of %d partitions are described, of which one does not exist", described)
	}
	dirs.Version = 4
	described = 0
	for _, topic := range ask[*kmsg.DescribeLogDirsResponse](c, dirs).Dirs[0].Topics {
		described += len(topic.Partitions)
	}
	if described != 2 {
		t.Errorf("the sizes of %d partitions are described", described)
	}
}

// TestPatternIsNotCompiled proves that a short pattern which stands for a long program is
// refused without making that program.
func TestPatternIsNotCompiled(t *testing.T) {
	g := newAdminRig(t, nil)
	c := dial(t, g.addr)
	req := kmsg.NewPtrListTransactionsRequest()
	req.Version = 2
	for pattern, code := range map[string]int16{
		"(?:" + strings.Repeat("x", 900) + "){1000}": 128, // INVALID_REGULAR_EXPRESSION
		"(": 128,
	} {
		req.TransactionalIDPattern = &pattern
		var got int16
		allocated := testing.AllocsPerRun(1, func() { got = ask[*kmsg.ListTransactionsResponse](c, req).ErrorCode })
		if got != code || allocated > 10_000 {
			t.Errorf("%.20q: code %d, %.0f allocations", pattern, got, allocated)
		}
	}
}
