package controller

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

var update = flag.Bool("update", false, "write what the scripts' commands answer into the scripts")

// cluster is a quorum of one in memory.
type cluster struct {
	mu     sync.Mutex
	image  *meta.Image // guarded by mu
	static *config.Static
	log    int // proposals
	size   int // bytes of the largest one
	fail   error
	term   uint64 // guarded by mu
	away   bool   // another one leads; guarded by mu
}

func newCluster(tb testing.TB, static map[string]string) *cluster {
	tb.Helper()
	s, err := config.NewStatic(0, static)
	if err != nil {
		tb.Fatal(err)
	}
	return &cluster{image: meta.Empty(), static: s}
}

func (c *cluster) Image() *meta.Image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.image
}

// applied is the number of proposals.
func (c *cluster) applied() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(c.log)
}

// leading is false while another one leads.
func (c *cluster) leading() (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term, !c.away
}

func (c *cluster) propose(_ context.Context, term uint64, records []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	if c.away || term != c.term {
		return quorum.ErrNotLeader
	}
	m, _, err := meta.Apply(c.image, records)
	if err == nil {
		c.image = m
		c.log++
		c.size = max(c.size, len(records))
	}
	return err
}

func (c *cluster) controller() *Controller {
	return New(Config{Image: c.Image, Leading: c.leading, Propose: c.propose, Static: c.static, Applied: c.applied})
}

// TestScripts runs the scripts in testdata: a command, "----", and what it answers.
// They prove what is decided, in which words a request is refused, and that what is
// refused or only validated changes nothing.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := script{t: t, c: newCluster(t, map[string]string{"num.partitions": "2"})}
	ids := byte(0)
	s.ctl = New(Config{Image: s.c.Image, Leading: s.c.leading, Propose: s.c.propose, Static: s.c.static, Applied: s.c.applied, NewID: func() meta.UUID {
		ids++
		return meta.UUID{1, 15: ids}
	}})
	var got bytes.Buffer
	in := bufio.NewScanner(bytes.NewReader(b))
	for in.Scan() {
		line := in.Text()
		fmt.Fprintln(&got, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for in.Scan() && in.Text() != "" { // the recorded answer
		}
		fmt.Fprintf(&got, "----\n%s\n", s.run(line))
	}
	want := string(b)
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got.String(), "\n")); d != "" {
		t.Error(d)
	}
}

type script struct {
	t   *testing.T
	c   *cluster
	ctl *Controller
	now time.Duration
}

// run runs one command; its answer ends with a line break for each line.
func (s *script) run(line string) string {
	f := strings.Fields(line)
	validate := slices.Contains(f, "validate")
	f = slices.DeleteFunc(f, func(w string) bool { return w == "validate" })
	before := meta.Encode(s.c.Image())
	var out strings.Builder
	switch f[0] {
	case "brokers":
		for _, id := range f[1:] {
			epoch, err := tryToJoin(s.t.Context(), s.ctl, number(s.t, id))
			fmt.Fprintf(&out, "%s: epoch %d %v\n", id, epoch, err)
		}
	case "create":
		s.create(&out, f[1:], validate)
	case "delete":
		s.delete(&out, f[1:])
	case "partitions":
		s.partitions(&out, f[1:], validate)
	case "alter", "replace":
		s.alter(&out, f, validate)
	case "show":
		for _, name := range f[1:] {
			s.show(&out, name)
		}
	default:
		s.runCluster(&out, f)
	}
	if (validate || strings.Contains(out.String(), "refused")) && !bytes.Equal(before, meta.Encode(s.c.Image())) &&
		!strings.Contains(out.String(), "made") && !strings.Contains(out.String(), fmt.Sprintf("refused (%d)", NewLeaderElected)) {
		s.t.Errorf("%s: changed the cluster", line)
	}
	return out.String()
}

// create takes name[,name] [partitions=n] [rf=n] [assign=p:r+r,p:r] [key=value].
func (s *script) create(out *strings.Builder, f []string, validate bool) {
	var list []NewTopic
	for name := range strings.SplitSeq(f[0], ",") {
		n := NewTopic{Name: strings.ReplaceAll(name, "~", " "), Partitions: -1, ReplicationFactor: -1, Configs: map[string]*string{}}
		for _, kv := range f[1:] {
			k, v, ok := strings.Cut(kv, "=")
			switch {
			case k == "partitions":
				n.Partitions = number(s.t, v)
			case k == "rf":
				n.ReplicationFactor = int16(number(s.t, v))
			case k == "assign":
				for a := range strings.SplitSeq(v, ",") {
					p, r, _ := strings.Cut(a, ":")
					n.Assignments = append(n.Assignments, Assignment{number(s.t, p), replicas(s.t, r)})
				}
			case ok:
				n.Configs[k] = &v
			default:
				n.Configs[k] = nil
			}
		}
		list = append(list, n)
	}
	results, err := s.ctl.CreateTopics(s.t.Context(), list, validate)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			fmt.Fprintf(out, "%s: refused (%d): %s\n", r.Name, r.Err.Kind, r.Err.Message)
			continue
		}
		fmt.Fprintf(out, "%s: made, %d partitions of %d replicas\n", r.Name, r.Partitions, r.ReplicationFactor)
		if made := s.c.Image().Topic(r.Name); !validate && made.ID != r.ID {
			s.t.Errorf("%s has the id %v, the answer says %v", r.Name, made.ID, r.ID)
		}
	}
}

func (s *script) delete(out *strings.Builder, names []string) {
	ids := make([]meta.UUID, len(names))
	for i, n := range names {
		if t := s.c.Image().Topic(n); t != nil {
			ids[i] = t.ID
		}
	}
	errs, err := s.ctl.DeleteTopics(s.t.Context(), ids)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, e := range errs {
		fmt.Fprintf(out, "%s: %s\n", names[i], outcome(e))
	}
}

// partitions takes name count [r+r,r+r].
func (s *script) partitions(out *strings.Builder, f []string, validate bool) {
	ask := MorePartitions{Topic: f[0], Count: number(s.t, f[1])}
	if len(f) > 2 {
		ask.Assignments = [][]int32{}
		for r := range strings.SplitSeq(f[2], ",") {
			ask.Assignments = append(ask.Assignments, replicas(s.t, r))
		}
	}
	errs, err := s.ctl.CreatePartitions(s.t.Context(), []MorePartitions{ask}, validate)
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(out, "%s: %s\n", f[0], outcome(errs[0]))
}

// alter takes alter|replace topic|broker|group|metrics name, and key=value, key (to
// unset it), key+=value or key-=value.
func (s *script) alter(out *strings.Builder, f []string, validate bool) {
	types := map[string]config.ResourceType{
		"topic": config.Topic, "broker": config.Broker, "group": config.Group,
		"metrics": config.ClientMetrics, "logger": config.BrokerLogger,
	}
	a := ConfigChanges{Resource: config.Resource{Type: types[f[1]], Name: strings.Trim(f[2], `"`)}, Replace: f[0] == "replace"}
	for _, kv := range f[3:] {
		k, v, ok := strings.Cut(kv, "=")
		ch := ConfigChange{Op: Set, Key: k, Value: v}
		switch {
		case !ok:
			ch.Op = Delete
		case strings.HasSuffix(k, "+"):
			ch.Op, ch.Key = Append, k[:len(k)-1]
		case strings.HasSuffix(k, "-"):
			ch.Op, ch.Key = Subtract, k[:len(k)-1]
		case strings.HasSuffix(k, "?"):
			ch.Op, ch.Key = 9, k[:len(k)-1]
		}
		a.Changes = append(a.Changes, ch)
	}
	errs, err := s.ctl.AlterConfigs(s.t.Context(), []ConfigChanges{a}, validate)
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintln(out, outcome(errs[0]))
	set := s.c.Image().Overrides(a.Resource)
	for _, k := range slices.Sorted(mapKeys(set)) {
		fmt.Fprintf(out, "%s=%s\n", k, set[k])
	}
}

func (s *script) show(out *strings.Builder, name string) {
	t := s.c.Image().Topic(name)
	if t == nil {
		fmt.Fprintf(out, "%s: none\n", name)
		return
	}
	for i, p := range t.Partitions {
		fmt.Fprintf(out, "%s-%d: leader %d of %v, in sync %v\n", name, i, p.Leader, p.Replicas, p.ISR)
	}
}

func outcome(e *Error) string {
	if e == nil {
		return "ok"
	}
	return fmt.Sprintf("refused (%d): %s", e.Kind, e.Message)
}

func number(t *testing.T, s string) int32 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func replicas(t *testing.T, s string) []int32 {
	t.Helper()
	var list []int32
	for r := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '+' }) {
		list = append(list, number(t, r))
	}
	return list
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestBootstrapOnce proves that a cluster is made once and keeps its id and tag.
func TestBootstrapOnce(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	for range 2 {
		if err := ctl.Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil {
			t.Fatal(err)
		}
	}
	if m := c.Image(); m.ClusterID != "MkU3OEVBNTcwNTJENDM2Qk" || m.Tag == 0 || c.log != 1 {
		t.Errorf("cluster %q, tag %d, %d proposals", m.ClusterID, m.Tag, c.log)
	}
}

// TestMinInSyncIsTheClusters proves that min.insync.replicas of the node that makes a cluster becomes the
// cluster's, so that all nodes count by it, and that the one of another node counts nowhere: a leader that
// counts by a lower number than the controller would acknowledge records that eligible leaders lack.
func TestMinInSyncIsTheClusters(t *testing.T) {
	c := newCluster(t, map[string]string{"min.insync.replicas": "3"})
	ctl := c.controller()
	if err := ctl.Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil {
		t.Fatal(err)
	}
	for id := range int32(3) {
		join(t, ctl, id)
	}
	if made, err := ctl.CreateTopics(t.Context(), []NewTopic{{Name: "t", Partitions: 1, ReplicationFactor: 3}}, false); err != nil || made[0].Err != nil {
		t.Fatal(made, err)
	}
	for node, own := range []map[string]string{{"min.insync.replicas": "3"}, {"min.insync.replicas": "1"}, nil} {
		static, err := config.NewStatic(int32(node), own)
		if err != nil {
			t.Fatal(err)
		}
		r := Rules{Image: c.Image(), Static: static}
		topic := r.Image.Topic("t")
		if got := r.minISR(topic, &topic.Partitions[0]); got != 3 {
			t.Errorf("node %d counts by %d", node, got)
		}
		if says := slices.ContainsFunc(static.Warnings(), func(s string) bool { return strings.Contains(s, "leat config set --cluster min.insync.replicas=") }); says != (own != nil) {
			t.Errorf("node %d warns: %q", node, static.Warnings())
		}
	}
}

// TestProducerIDsAreGivenOnce proves that blocks taken concurrently do not overlap,
// carry the cluster's tag, and end where the counter does.
func TestProducerIDsAreGivenOnce(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	if err := ctl.Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil {
		t.Fatal(err)
	}
	const blocks, size = 16, 1000
	firsts := make([]int64, blocks)
	var wg sync.WaitGroup
	for i := range blocks {
		wg.Go(func() {
			var err error
			if firsts[i], err = ctl.AllocateProducerIDs(t.Context(), size); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	slices.Sort(firsts)
	for i, first := range firsts {
		if want := meta.ProducerID(c.Image().Tag, int64(i)*size); first != want {
			t.Errorf("block %d begins at %d, want %d", i, first, want)
		}
	}
	if _, err := ctl.AllocateProducerIDs(t.Context(), meta.MaxProducers); !errors.Is(err, ErrNoProducerIDs) {
		t.Errorf("more ids than there are: %v", err)
	}
}

// TestTurnEndsWithContext proves that a command which waits for another one gives up when
// its context ends, and that the caller gets the error of a failed proposal.
func TestTurnEndsWithContext(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	<-ctl.turn // as if another command ran
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ctl.AllocateProducerIDs(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a command that waits: %v", err)
	}
	ctl.turn <- struct{}{}
	c.fail = errors.New("no quorum")
	if _, err := ctl.CreateTopics(t.Context(), []NewTopic{{Name: "t", Partitions: 1, ReplicationFactor: 1}}, false); err != nil {
		t.Errorf("a refused item is not a failed command: %v", err)
	}
	if _, err := ctl.AllocateProducerIDs(t.Context(), 1); !errors.Is(err, c.fail) {
		t.Errorf("a failed proposal: %v", err)
	}
}

// TestTenThousandPartitions proves that a request as large as is allowed is one
// proposal, and that a larger one is refused.
func TestTenThousandPartitions(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	join(t, ctl, 0)
	before := c.log
	list := make([]NewTopic, 10)
	for i := range list {
		list[i] = NewTopic{Name: fmt.Sprint("t", i), Partitions: 1000, ReplicationFactor: -1}
	}
	results, err := ctl.CreateTopics(t.Context(), list, false)
	if err != nil || c.Image().NumPartitions() != 10_000 || c.log != before+1 {
		t.Fatalf("%d partitions in %d proposals: %v", c.Image().NumPartitions(), c.log-before, err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	results, err = ctl.CreateTopics(t.Context(), []NewTopic{{Name: "u", Partitions: 10_001, ReplicationFactor: 1}}, false)
	if err != nil || results[0].Err == nil || results[0].Err.Kind != PolicyViolation {
		t.Errorf("one partition too many: %+v, %v", results, err)
	}
}

// BenchmarkCreateTopic makes topics one by one in a cluster that has ten thousand.
func BenchmarkCreateTopic(b *testing.B) {
	c := newCluster(b, nil)
	ctl := c.controller()
	join(b, ctl, 0)
	topic := func(i int) []NewTopic {
		return []NewTopic{{Name: fmt.Sprint("topic.", i), Partitions: 1, ReplicationFactor: 1}}
	}
	n := 0
	for ; n < 10_000; n++ {
		_, _ = ctl.CreateTopics(b.Context(), topic(n), false)
	}
	b.ReportAllocs()
	for b.Loop() {
		if r, err := ctl.CreateTopics(b.Context(), topic(n), false); err != nil || r[0].Err != nil {
			b.Fatal(err, r)
		}
		n++
	}
}

// TestLimits proves that clients cannot make the cluster keep an unlimited amount: values,
// names, and the number of groups with configs are bounded.
func TestLimits(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	join(t, ctl, 0)
	long := strings.Repeat("0:1,", maxConfigValue/4) + "0:1"
	made, err := ctl.CreateTopics(t.Context(), []NewTopic{
		{Name: "t", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"leader.replication.throttled.replicas": &long}},
	}, false)
	if err != nil || made[0].Err == nil || made[0].Err.Kind != InvalidConfig {
		t.Errorf("a long value: %+v, %v", made, err)
	}
	group := func(name string) ConfigChanges {
		return ConfigChanges{
			Resource: config.Resource{Type: config.Group, Name: name},
			Changes:  []ConfigChange{{Set, "share.isolation.level", "read_committed"}},
		}
	}
	many := make([]ConfigChanges, maxConfiguredResources+1)
	for i := range many {
		many[i] = group(fmt.Sprint("g", i))
	}
	errs, err := ctl.AlterConfigs(t.Context(), many, false)
	if err != nil || slices.ContainsFunc(errs[:maxConfiguredResources], func(e *Error) bool { return e != nil }) || errs[maxConfiguredResources] == nil {
		t.Fatal(err, errs[0], errs[maxConfiguredResources])
	}
	errs, err = ctl.AlterConfigs(t.Context(), []ConfigChanges{group("another"), group("g1"), group(strings.Repeat("g", maxResourceName+1))}, false)
	if err != nil || errs[0] == nil || errs[0].Kind != PolicyViolation || errs[1] != nil || errs[2] == nil || errs[2].Kind != InvalidRequest {
		t.Errorf("past the limit: %v, %v", errs, err)
	}
}

// TestPartitionsAreBounded proves that a cluster gets no more partitions than the controller's
// limit, by new topics or more partitions, and that the refusal says what to do.
func TestPartitionsAreBounded(t *testing.T) {
	c := newCluster(t, nil)
	ctl := New(Config{Image: c.Image, Leading: c.leading, Propose: c.propose, Static: c.static, MaxPartitions: 10})
	join(t, ctl, 0)
	refused := func(e *Error) bool {
		return e != nil && e.Kind == PolicyViolation && strings.Contains(e.Message, "at most 10 partitions") && strings.Contains(e.Message, "delete topics")
	}
	topic := func(name string, n int32) NewTopic { return NewTopic{Name: name, Partitions: n, ReplicationFactor: 1} }
	made, err := ctl.CreateTopics(t.Context(), []NewTopic{topic("a", 6), topic("b", 5), topic("c", 3)}, false)
	if err != nil || made[0].Err != nil || !refused(made[1].Err) || made[2].Err != nil {
		t.Fatalf("topics: %+v, %v", made, err)
	}
	errs, err := ctl.CreatePartitions(t.Context(), []MorePartitions{{Topic: "c", Count: 5}}, false)
	if err != nil || !refused(errs[0]) {
		t.Errorf("too many more partitions: %v, %v", errs, err)
	}
	errs, err = ctl.CreatePartitions(t.Context(), []MorePartitions{{Topic: "c", Count: 4}}, false)
	if err != nil || errs[0] != nil || c.Image().NumPartitions() != 10 {
		t.Errorf("as many as possible: %v, %v, %d partitions", errs, err, c.Image().NumPartitions())
	}
}

// TestMorePartitionsAreBounded proves that a request for more partitions of many topics has no more of them
// placed than one request may make, however many topics it names: nothing else is decided meanwhile.
func TestMorePartitionsAreBounded(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	join(t, ctl, 0)
	const topics = 300
	var made []NewTopic
	var asked []MorePartitions
	for i := range topics {
		name := fmt.Sprint("t", i)
		made = append(made, NewTopic{Name: name, Partitions: 1, ReplicationFactor: 1})
		asked = append(asked, MorePartitions{Topic: name, Count: MaxNewPartitions})
	}
	if _, err := ctl.CreateTopics(t.Context(), made, false); err != nil || c.Image().NumTopics() != topics {
		t.Fatal(c.Image().NumTopics(), err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	errs, err := ctl.CreatePartitions(t.Context(), asked, true)
	runtime.ReadMemStats(&after)
	if err != nil || errs[0] != nil {
		t.Fatal(errs[0], err)
	}
	for i, e := range errs[1:] {
		if e == nil || e.Kind != PolicyViolation {
			t.Fatalf("topic %d: %v", i+1, e)
		}
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("it has allocated %d MiB", got>>20)
	}
}

// TestInternalTopicsBeyondTheLimit proves that the topics of the coordinators can be made where a
// cluster has all the partitions that it may have, with as many partitions as they have by themselves
// and no more; nothing else gets beyond the limit by that.
func TestInternalTopicsBeyondTheLimit(t *testing.T) {
	c := newCluster(t, nil)
	ctl := New(Config{Image: c.Image, Leading: c.leading, Propose: c.propose, Static: c.static, MaxPartitions: 10})
	join(t, ctl, 0)
	topic := func(name string, n int32) NewTopic { return NewTopic{Name: name, Partitions: n, ReplicationFactor: 1} }
	create := func(topics ...NewTopic) (made []CreatedTopic) {
		t.Helper()
		made, err := ctl.CreateTopics(t.Context(), topics, false)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	if made := create(topic("full", 10)); made[0].Err != nil {
		t.Fatal(made[0].Err)
	}
	own := Auto(c.Image(), c.static, "__consumer_offsets").Partitions
	if made := create(topic("__consumer_offsets", own+1)); made[0].Err == nil || made[0].Err.Kind != PolicyViolation {
		t.Errorf("more partitions than it has by itself: %+v", made)
	}
	for _, name := range []string{"__consumer_offsets", "__transaction_state", "__share_group_state"} {
		if err := ctl.EnsureTopic(t.Context(), name); err != nil {
			t.Error(err)
		}
		if got := c.Image().Topic(name); got == nil || int32(len(got.Partitions)) != Auto(c.Image(), c.static, name).Partitions {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if made := create(topic("another", 1)); made[0].Err == nil || made[0].Err.Kind != PolicyViolation {
		t.Errorf("another topic: %+v", made)
	}
	errs, err := ctl.CreatePartitions(t.Context(), []MorePartitions{{Topic: "full", Count: 11}}, false)
	if err != nil || errs[0] == nil {
		t.Errorf("more partitions: %v, %v", errs, err)
	}
}

// TestConfigBytesAreBounded proves that all configs of a cluster together have a bound in bytes,
// which holds within a request, too; that configs can be made smaller and removed at the bound,
// and that there is room again then; and that the topics of the coordinators can be made.
func TestConfigBytesAreBounded(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	join(t, ctl, 0)
	change := func(name string, op Op, size int) ConfigChanges {
		return ConfigChanges{
			Resource: config.Resource{Type: config.ClientMetrics, Name: name},
			Changes:  []ConfigChange{{op, "metrics", strings.Repeat("m", size)}},
		}
	}
	refused := func(e *Error) bool {
		return e != nil && e.Kind == PolicyViolation && strings.Contains(e.Message, "at most 32 MiB") && strings.Contains(e.Message, "remove")
	}
	const many = maxConfigBytes/60_000 + 1
	var asked []ConfigChanges
	for i := range many {
		asked = append(asked, change(fmt.Sprint("s", i), Set, 60_000))
	}
	errs, err := ctl.AlterConfigs(t.Context(), asked, false)
	if err != nil || errs[0] != nil || !refused(errs[many-1]) || c.Image().ConfigBytes() > maxConfigBytes {
		t.Fatalf("%v, %v, %v, %d bytes", err, errs[0], errs[many-1], c.Image().ConfigBytes())
	}
	value := strings.Repeat("0:1,", 15_000) + "0:1"
	topics := []NewTopic{{Name: "t", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"leader.replication.throttled.replicas": &value}}}
	made, err := ctl.CreateTopics(t.Context(), topics, false)
	if err != nil || !refused(made[0].Err) {
		t.Errorf("a topic with configs: %+v, %v", made[0].Err, err)
	}
	if err := ctl.EnsureTopic(t.Context(), "__consumer_offsets"); err != nil {
		t.Error(err)
	}
	errs, err = ctl.AlterConfigs(t.Context(), []ConfigChanges{
		change("s0", Delete, 0), change("s1", Set, 10), change("new", Set, 60_000), change(strings.Repeat("n", maxMetricsName+1), Set, 1),
	}, false)
	if err != nil || errs[0] != nil || errs[1] != nil || errs[2] != nil || errs[3] == nil || errs[3].Kind != InvalidRequest {
		t.Errorf("fewer bytes, the same again, a long name: %v, %v", errs, err)
	}
}

// TestGivenUpCommandKeepsItsTurn proves that a proposed command whose caller has given up
// still holds back the next one, which must be decided on an image that knows the first.
// Otherwise a topic could be deleted twice, and no node could apply such a metadata log,
// or start with it.
func TestGivenUpCommandKeepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		var slow atomic.Bool
		var proposals atomic.Int32
		commit := make(chan struct{})
		ctl := New(Config{Image: c.Image, Static: c.static, Leading: c.leading, Propose: func(ctx context.Context, term uint64, records []byte) error {
			proposals.Add(1)
			done := make(chan error, 1)
			go func() {
				if slow.Load() {
					<-commit
				}
				done <- c.propose(ctx, term, records)
			}()
			select {
			case err := <-done:
				return err
			case <-ctx.Done(): // as the quorum does
				return ctx.Err()
			}
		}})
		if err := ctl.Bootstrap(t.Context(), "AAAAAAAAAAAAAAAAAAAAAA"); err != nil {
			t.Fatal(err)
		}
		join(t, ctl, 0)
		made, err := ctl.CreateTopics(t.Context(), []NewTopic{{Name: "t", Partitions: 1, ReplicationFactor: 1}}, false)
		if err != nil || made[0].Err != nil {
			t.Fatal(err, made[0].Err)
		}
		ids := []meta.UUID{c.Image().Topic("t").ID}

		slow.Store(true)
		patience, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := ctl.DeleteTopics(patience, ids); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the first: %v, want context.DeadlineExceeded", err)
		}
		before := proposals.Load()
		second := make(chan *Error, 1)
		go func() {
			errs, err := ctl.DeleteTopics(t.Context(), ids)
			if err != nil {
				t.Error(err)
			}
			second <- errs[0]
		}()
		synctest.Wait()
		if n := proposals.Load(); n != before {
			t.Errorf("%d proposals before the first was committed", n-before)
		}
		close(commit)
		if e := <-second; e == nil || e.Kind != UnknownTopicID {
			t.Errorf("the second: %v, want UnknownTopicID", e)
		}
	})
}
