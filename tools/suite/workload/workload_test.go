package workload

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
)

// fake starts a broker of another project.
func fake(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, Options) {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.SleepOutOfOrder())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	o := Defaults()
	o.Brokers, o.Topic, o.Duration = c.ListenAddrs(), "bench", time.Minute
	return c, o
}

// makeTopic makes the topic of the options.
func makeTopic(t *testing.T, o *Options) {
	t.Helper()
	if err := bench.MakeTopic(t.Context(), &o.Options); err != nil {
		t.Fatal(err)
	}
}

// countRecords is how many records there are in the topic.
func countRecords(t *testing.T, o *Options) int64 {
	t.Helper()
	n, err := CountRecords(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestIdle proves that as many connections are open as are asked for.
func TestIdle(t *testing.T) {
	_, o := fake(t)
	o.Connections, o.Duration = 50, time.Millisecond
	r, err := Idle(t.Context(), o)
	if err != nil || r.Requests != 50 {
		t.Fatal(r, err)
	}
}

// TestSpreadSteps proves that each step sends as many records as it says, and that one record of the
// first pass is in every partition.
func TestSpreadSteps(t *testing.T) {
	_, o := fake(t)
	o.Partitions, o.Connections, o.Batch, o.Size, o.Duration = 23, 2, 1, 10, 20*time.Millisecond
	makeTopic(t, &o)
	r, err := Spread(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Step(SpreadFirst); s == nil || s.Records != 23 || s.Requests != 23 {
		t.Errorf("%+v", s)
	}
	if s := r.Step(SpreadMany); s == nil || s.Requests == 0 || s.Records < 11*s.Requests || s.Records > 12*s.Requests {
		t.Errorf("%+v", s)
	}
	if s := r.Step(SpreadOne); s == nil || s.Records == 0 || len(r.Steps) != 4 {
		t.Errorf("%+v", r)
	}
	if err := Verify(t.Context(), &o, Proof{Records: r.Records}); err != nil {
		t.Error(err)
	}
	first, next, err := findBounds(t.Context(), &o)
	if err != nil || slices.Min(next) < 1 || slices.Max(first) > 0 {
		t.Errorf("records from %v to %v, %v", first, next, err)
	}
}

// TestCreate proves that every partition takes a record in both goes, that a
// broker that refuses so many in one request is asked in smaller ones, and that
// nothing is left.
func TestCreate(t *testing.T) {
	cluster, o := fake(t)
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
	for _, again := range []string{"", CreateAgain} {
		made, written := r.Step(CreateAnswer+again), r.Step(CreateWritable+again)
		if made.Requests != 3 || written.Records != 3100 || written.Seconds < made.Seconds {
			t.Errorf("%+v, %+v", made, written)
		}
	}
	if refused != 2 {
		t.Errorf("%d requests were refused", refused)
	}
	o.Topic, o.Partitions = "bench-0", 0
	if _, err := Consume(t.Context(), o); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("a topic is left: %v", err)
	}
}

// TestGroups proves that a group has all its members in one generation at the end
// of each step, and that every commit of the timed run has arrived.
func TestGroups(t *testing.T) {
	_, o := fake(t, kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	o.Members, o.Groups, o.Interval, o.Duration, o.Size, o.Partitions = 10, 7, 10*time.Millisecond, 50*time.Millisecond, 10, 2
	makeTopic(t, &o)
	r, err := Groups(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Step(GroupsJoin); s == nil || s.Requests < 20 {
		t.Errorf("%+v", s)
	}
	if s := r.Step(GroupsLeave); s == nil || s.Requests < 18 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{GroupsCommit, GroupsProduce} {
		if s := r.Step(name); s == nil || s.Requests != 35 || s.Ack.Count != 35 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if got := countRecords(t, &o); got != 35 {
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
	_, o := fake(t)
	o.Partitions, o.Records, o.Size, o.Passes, o.Duration = 2, 1600, 10, 0, 100*time.Millisecond
	makeTopic(t, &o)
	r, err := loadAndRest(t.Context(), o, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	fill, produced, consumed := r.Step(LoadFill), r.Step(LoadProduce), r.Step(LoadConsume)
	if got := countRecords(t, &o); fill.Records != 1600 || produced.Records == 0 || consumed.Records == 0 || got != fill.Records+produced.Records {
		t.Errorf("%d arrived: %+v", got, r)
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

// TestColdElsewhere proves that nothing is made where the data directory is not there.
func TestColdElsewhere(t *testing.T) {
	_, o := fake(t)
	o.Records, o.Data = 1600, filepath.Join(t.TempDir(), "nope")
	if _, err := Cold(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if topics, err := kadm.NewClient(cl).ListTopics(t.Context()); err != nil || len(topics) > 0 {
		t.Errorf("%v, %v", topics.Names(), err)
	}
}

// TestCallCounts proves that the output of perf and strace is read right.
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

// TestRetryUntil proves that an action that fails for a reason that passes is done again,
// less and less often, until the deadline, and any other is not.
func TestRetryUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, tries := time.Now(), 0
		err := retryUntil(t.Context(), began.Add(time.Minute), func() error {
			if tries++; tries < 100 {
				return kerr.NotLeaderForPartition
			}
			return nil
		})
		if took := time.Since(began); err != nil || tries != 100 || took < 100*retrySlowly/2 || took > 100*retrySlowly {
			t.Errorf("%v after %d tries in %s", err, tries, took)
		}
		err = retryUntil(t.Context(), time.Now().Add(time.Second), func() error { return kerr.NotLeaderForPartition })
		if !errors.Is(err, errNoTime) || !errors.Is(err, kerr.NotLeaderForPartition) {
			t.Error(err)
		}
		tries = 0
		err = retryUntil(t.Context(), time.Now().Add(time.Second), func() error { tries++; return bench.ErrShort })
		if !errors.Is(err, bench.ErrShort) || tries != 1 {
			t.Errorf("%v after %d tries", err, tries)
		}
	})
}
