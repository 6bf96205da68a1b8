package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestLongestGap proves that a gap counts that began before the fault and ended after it, and that one before
// the fault does not.
func TestLongestGap(t *testing.T) {
	begin := time.Now()
	at := func(ms ...int) (times []time.Time) {
		for _, n := range ms {
			times = append(times, begin.Add(time.Duration(n)*time.Millisecond))
		}
		return times
	}
	for want, test := range map[time.Duration]struct {
		times []time.Time
		from  int
	}{
		70 * time.Millisecond: {at(0, 500, 510, 580, 590), 515},
		10 * time.Millisecond: {at(0, 500, 510), 505},
		0:                     {at(0, 500, 510), 510},
		90 * time.Millisecond: {at(0, 10, 50, 140, 200), 20},
	} {
		if got := longestGap(test.times, at(test.from)[0]); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	if got := longestGap(nil, begin); got != 0 {
		t.Error(got)
	}
}

// TestJavaLines proves which lines of Apache Kafka's producer are acknowledgements, and that its words to
// people are kept.
func TestJavaLines(t *testing.T) {
	j := &java{}
	j.read(strings.NewReader(`{"timestamp":1,"name":"startup_complete"}
{"timestamp":2,"key":null,"value":"0","offset":0,"topic":"t","partition":0,"name":"producer_send_success"}
{"timestamp":3,"name":"producer_send_error","exception":"class org.apache.kafka.common.errors.TimeoutException"}
usage: verifiable-producer
{"timestamp":4,"name":"producer_send_success","key":null,"value":"1"}
`))
	if got := len(j.times()); got != 2 {
		t.Errorf("%d acknowledgements", got)
	}
	if j.failed.text != "usage: verifiable-producer " {
		t.Errorf("%q", j.failed.text)
	}
}

// TestHealth proves that a cluster is healthy only with all its brokers, a leader of each partition, and all
// replicas in sync; and which node leads the most partitions.
func TestHealth(t *testing.T) {
	name := "t"
	made := func() *view {
		v := &view{brokers: map[int32]string{1: "a", 2: "b"}, topics: []kmsg.MetadataResponseTopic{{Topic: &name}}}
		for p, leader := range []int32{1, 2, 2} {
			v.topics[0].Partitions = append(v.topics[0].Partitions, kmsg.MetadataResponseTopicPartition{
				Partition: int32(p), Leader: leader, Replicas: []int32{1, 2}, ISR: []int32{2, 1},
			})
		}
		return v
	}
	if err := made().checkHealth(2); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(v *view){
		"1 brokers of 2":             func(v *view) { delete(v.brokers, 1) },
		"t-1 has leader -1":          func(v *view) { v.topics[0].Partitions[1].Leader = -1 },
		"t-2 has leader 2, and in s": func(v *view) { v.topics[0].Partitions[2].ErrorCode = 5 },
		"in sync are 1 of 2":         func(v *view) { v.topics[0].Partitions[0].ISR = []int32{1} },
	} {
		v := made()
		spoil(v)
		if err := v.checkHealth(2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if node, led := made().busiest([]string{"a", "b"}); node != 1 || len(led) != 2 || led[1] != (one{"t", 2}) {
		t.Errorf("node %d leads %v", node, led)
	}
	if got := made().leaderOf(); got != "a" {
		t.Error(got)
	}
	if made().ledWithout("a") || !made().ledWithout("c") {
		t.Error("the leaders' nodes are not told apart")
	}
}
