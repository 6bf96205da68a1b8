package bench

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// TestLoad proves that as much arrives as the filling and the producing step say,
// and that records are consumed meanwhile.
func TestLoad(t *testing.T) {
	_, o := fake(t, 1)
	o.Partitions, o.Records, o.Size, o.Passes, o.Duration = 2, 1600, 10, 0, 100*time.Millisecond
	r, err := loadAndRest(t.Context(), o, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	fill, produced, consumed := r.Step(loadFill), r.Step(loadProduce), r.Step(loadConsume)
	if got := ends(t, &o); fill.Records != 1600 || produced.Records == 0 || consumed.Records == 0 || got != fill.Records+produced.Records {
		t.Errorf("%d arrived: %s", got, r.Text())
	}
}

// TestFilesOf proves that a topic's files are found and no others, in the way in
// which Leat and in that in which Kafka has them.
func TestFilesOf(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for name, wanted := range map[string]bool{
		"old-0/0.log": true, "old-12/5.log": true, "data/old-3/0.log": true,
		"older-0/0.log": false, "old-0/0.index": false, "old/0.log": false, "quorum/old-.txt": false,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if wanted {
			want = append(want, path)
		}
	}
	slices.Sort(want)
	got, err := filesOf(dir, "old")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := filesOf(dir, "new"); err == nil || !strings.Contains(err.Error(), "no files of topic new") {
		t.Error(err)
	}
}

// TestCallCounts proves that what perf and strace write is read right.
func TestCallCounts(t *testing.T) {
	perf := "# started on Sat\n\n123456,,raw_syscalls:sys_enter,1000,100.00,,\n"
	if n, err := perfCalls(perf); n != 123456 || err != nil {
		t.Error(n, err)
	}
	strace := "% time     seconds  usecs/call     calls    errors syscall\n" +
		" 97.05    0.012  12   1000   1 futex\n" +
		"100.00    0.013  12      1077        2 total\n"
	if n, err := straceCalls(strace); n != 1077 || err != nil {
		t.Error(n, err)
	}
	for _, count := range []func(string) (int64, error){perfCalls, straceCalls} {
		if _, err := count("nothing\n"); err == nil {
			t.Error("nothing was counted as something")
		}
	}
	if _, err := perfCalls("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"); err == nil {
		t.Error("what was not counted was counted")
	}
}
