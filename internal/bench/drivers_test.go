package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestSpreadSteps proves that each step sends what it says, and that one record of the
// first pass is in every partition.
func TestSpreadSteps(t *testing.T) {
	_, o := fake(t, 1)
	o.Partitions, o.Connections, o.Batch, o.Size, o.Duration = 23, 2, 1, 10, 20*time.Millisecond
	r, err := Spread(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Step(spreadFirst); s == nil || s.Records != 23 || s.Requests != 23 {
		t.Errorf("%+v", s)
	}
	if s := r.Step(spreadMany); s == nil || s.Requests == 0 || s.Records < 11*s.Requests || s.Records > 12*s.Requests {
		t.Errorf("%+v", s)
	}
	if got := ends(t, &o); got != r.Records || len(r.Steps) != 4 {
		t.Errorf("%d arrived of %d; %s", got, r.Records, r.Text())
	}
	readBack(t, &o, r.Records)
	if _, err := Spread(t.Context(), o); err == nil {
		t.Error("a first pass over partitions that have records")
	}
}

// TestCreate proves that every partition takes a record in both goes, that a
// broker that refuses so many in one request is asked in smaller ones, and that
// nothing is left.
func TestCreate(t *testing.T) {
	cluster, o := fake(t, 1)
	refused := 0
	cluster.ControlKey(kmsg.CreateTopics.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		create := req.(*kmsg.CreateTopicsRequest)
		if len(create.Topics) < 3 {
			return nil, nil, false
		}
		refused++
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, topic := range create.Topics {
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic, rt.ErrorCode = topic.Topic, kerr.PolicyViolation.Code
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	o.Partitions, o.Size = 3100, 10
	r, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []string{"", createAgain} {
		made, written := r.Step(createAnswer+again), r.Step(createWritable+again)
		if made.Requests != 3 || written.Records != 3100 || written.Seconds < made.Seconds {
			t.Errorf("%+v, %+v", made, written)
		}
	}
	if refused != 2 {
		t.Errorf("%d requests were refused", refused)
	}
	o.Topic, o.Partitions = "bench-0", 0
	if _, err := Consume(t.Context(), o); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a topic is left: %v", err)
	}
}

// TestGroups proves that a group has all its members in one generation at the end
// of each step, and that every commit of the timed run has arrived.
func TestGroups(t *testing.T) {
	_, o := fake(t, 1, kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	o.Members, o.Groups, o.Interval, o.Duration, o.Size, o.Partitions = 10, 7, 10*time.Millisecond, 50*time.Millisecond, 10, 2
	r, err := Groups(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Step(groupsJoin); s == nil || s.Requests < 20 {
		t.Errorf("%+v", s)
	}
	if s := r.Step(groupsLeave); s == nil || s.Requests < 18 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{groupsCommit, groupsProduce} {
		if s := r.Step(name); s == nil || s.Requests != 35 || s.Ack.Count != 35 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if got := ends(t, &o); got != 35 {
		t.Errorf("%d small requests arrived", got)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	groups, err := kadm.NewClient(cl).ListGroups(t.Context())
	if err != nil || len(groups) != 8 {
		t.Errorf("%d groups, %v", len(groups), err)
	}
}
