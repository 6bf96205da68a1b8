package broker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// newWholeRig makes a rig that serves all APIs, with so much work memory.
func newWholeRig(t *testing.T, work int64) *rig {
	t.Helper()
	static, err := config.NewStatic(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var g *rig
	settings := group.DefaultSettings()
	settings.InitialDelay = 0
	groups := group.New(group.Config{Logger: slog.New(slog.DiscardHandler), Settings: func() group.Settings { return settings }, Partitions: func() int32 {
		if topic := g.image.Load().Topic(group.Topic); topic != nil {
			return int32(len(topic.Partitions))
		}
		return 0
	}})
	g = newRigWith(t, work, func(c *Config) {
		c.Static, c.LogDir, c.Groups = static, "/data", groups
		c.LogLevels = func() map[string]slog.Level { return map[string]slog.Level{"root": slog.LevelInfo} }
		c.SetLogLevel = func(string, *slog.Level) {}
		c.Quorum = func() quorum.Status { return quorum.Status{Leader: 1, Term: 1, Voters: []int32{1}} }
		c.EnsureTopic = func(context.Context, string) error { return nil }
		c.Controller = controller.New(controller.Config{Image: c.Image, Static: static, Leading: alwaysLeads, Propose: func(_ context.Context, _ uint64, b []byte) error {
			img, d, err := meta.Apply(c.Image(), b)
			if err == nil {
				g.image.Store(img)
				g.set.Apply(d, img)
			}
			return err
		}})
	})
	t.Cleanup(groups.Close)
	g.topic(group.Topic, 10)
	for i := range int32(10) {
		groups.StartLeading(i, 0, g.set.Partition(group.Topic, i))
	}
	return g
}

// hostile fills requests so that they cost a node as much as their length allows.
type hostile struct {
	name   string
	outer  int                              // elements of the outermost arrays; 0: as many as fit
	inner  int                              // elements of the arrays in those
	text   func(field string, i int) string // string number i of the request
	number func(i int) int32                // partition number i
	id     func(i int) [16]byte             // topic id number i

	strings, numbers int
}

func (h *hostile) fill(v reflect.Value, field string, depth, outer int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.IsExported() && f.Name != "Version" && f.Name != "UnknownTags" {
				h.fill(v.Field(i), f.Name, depth, outer)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		n := outer
		switch {
		case depth > 1:
			n = min(h.inner, 2)
		case depth == 1:
			n = h.inner
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			h.fill(v.Index(i), field, depth+1, outer)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		h.fill(v.Elem(), field, depth, outer)
	case reflect.String:
		v.SetString(h.text(field, h.strings))
		h.strings++
	case reflect.Array:
		v.Set(reflect.ValueOf(h.id(h.strings)).Convert(v.Type()))
		h.strings++
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		h.fillNumber(v, field)
	default:
	}
}

// fillNumber sets the numbers on which it depends how a request is served.
func (h *hostile) fillNumber(v reflect.Value, field string) {
	switch field {
	case "ResourceType", "ResourceTypes":
		v.SetInt(int64(config.Topic))
	case "Partition", "Partitions":
		v.SetInt(int64(h.number(h.numbers)))
		h.numbers++
	case "ResponsePartitionLimit":
		v.SetInt(math.MaxInt16)
	case "NumPartitions", "ReplicationFactor", "Acks":
		v.SetInt(-1)
	case "SessionTimeoutMillis", "RebalanceTimeoutMillis", "TimeoutMillis":
		v.SetInt(10_000)
	case "Replica", "ReplicaID", "ProducerID", "ProducerEpoch":
		v.SetInt(-1)
	}
}

// request makes a request of at most so many bytes.
func (h *hostile) request(key, version int16, most int) kmsg.Request {
	for outer := most / (4 + len(h.text("", 0))); ; outer = outer * 3 / 4 {
		if h.outer > 0 {
			outer = min(outer, h.outer)
		}
		req := kmsg.RequestForKey(key)
		req.SetVersion(version)
		h.strings, h.numbers = 0, 0
		h.fill(reflect.ValueOf(req).Elem(), "", 0, outer)
		if n := len(req.AppendTo(nil)); n <= most || outer <= 1 {
			return req
		}
	}
}

// hostiles are all kinds of requests; wide is the id of a topic with this name.
func hostiles(wide [16]byte) []hostile {
	known := func(field string, _ int) string {
		if strings.HasPrefix(field, "Group") {
			return "group"
		}
		return "wide"
	}
	unknown := func(_ string, i int) string { return fmt.Sprintf("no-%d", i) }
	long := func(n int) func(string, int) string {
		return func(_ string, i int) string { return fmt.Sprintf("%06d", i) + strings.Repeat("x", n-6) }
	}
	zero, counted := func(int) int32 { return 0 }, func(i int) int32 { return int32(i) }
	theID, noID := func(int) [16]byte { return wide }, func(int) (id [16]byte) { return id }
	newID := func(i int) (id [16]byte) { be.PutUint32(id[:], uint32(i)+1); return id }
	return []hostile{ // the first ones are also in the short test
		{name: "empty names", inner: 0, text: func(string, int) string { return "" }, number: counted, id: noID},
		{name: "unknown names", inner: 1, text: unknown, number: counted, id: noID},
		{name: "unknown names with many parts", outer: 20, inner: 2000, text: unknown, number: counted, id: newID},
		{name: "known names repeated", inner: 1, text: known, number: zero, id: noID},
		{name: "known ids repeated", inner: 1, text: func(string, int) string { return "" }, number: zero, id: theID},
		{name: "known names with many parts", outer: 20, inner: 2000, text: known, number: counted, id: noID},
		{name: "unknown ids", inner: 1, text: func(string, int) string { return "" }, number: counted, id: newID},
		{name: "names of 249 letters", inner: 2, text: long(249), number: counted, id: noID},
		{name: "names of 30,000 letters", inner: 4, text: long(30_000), number: counted, id: noID},
		{name: "one name of 250 letters with many parts", outer: 1, inner: 20_000, text: long(250), number: counted, id: noID},
	}
}

// spareMemory is what a request may take besides its reservation: small things that are bounded by
// their number, and the test's own.
const spareMemory = 1 << 20

// liveHeap is the memory that is in use after a collection.
func liveHeap() int64 {
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return int64(live[0].Value.Uint64())
}

// takePeak is the most work memory that was reserved at a time since the last call.
func (g *rig) takePeak() (n int64) {
	for c := budget.Peer; c <= budget.Unsent; c++ {
		n += g.work.TakePeak(c)
	}
	return n
}

// exchange sends a frame on a connection of its own and reads the answer, and tells how long that
// is, or -1 if the connection was closed instead.
func (g *rig) exchange(t *testing.T, frame, piece []byte) (answer int64) {
	t.Helper()
	c := dial(t, g.addr)
	defer func() { _ = c.c.Close() }()
	if _, err := c.c.Write(frame); err != nil {
		t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return -1
	}
	answer = int64(be.Uint32(head[:]))
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(c.c, answer)}, piece)
	if n < answer {
		t.Fatalf("%d of %d bytes: %v", n, answer, err)
	}
	return answer
}

// measureAllocated is how much memory a request has allocated and how much was reserved for it.
func (g *rig) measureAllocated(t *testing.T, frame, piece []byte) (allocated, reserved, answer int64) {
	t.Helper()
	var before, after runtime.MemStats
	g.takePeak()
	runtime.ReadMemStats(&before)
	answer = g.exchange(t, frame, piece)
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc), g.takePeak(), answer
}

// measureHeld is the most memory that was in use at a time while a request was served, without
// what it has added to the node's state, which has bounds of its own. Collections are frequent.
func (g *rig) measureHeld(t *testing.T, frame, piece []byte) int64 {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	before := liveHeap()
	var most int64
	var sampling sync.WaitGroup
	stop := make(chan struct{})
	sampling.Go(func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for {
			metrics.Read(live)
			most = max(most, int64(live[0].Value.Uint64()))
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	g.exchange(t, frame, piece)
	close(stop)
	sampling.Wait()
	return most - max(before, liveHeap())
}

// stopTheWorld has each collection stop the program, so that nothing which is garbage counts as
// live because it was allocated meanwhile. It can be set only when a process starts.
const stopTheWorld = "GODEBUG=gcstoptheworld=1"

// TestNoAnswerTakesMoreThanIsReserved proves for each API that the node serves that no request
// takes more memory while it is served than was reserved for it, whatever it names.
func TestNoAnswerTakesMoreThanIsReserved(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own, and a quarter of an hour")
	}
	if !slices.Contains(os.Environ(), stopTheWorld) {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		again := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.short="+strconv.FormatBool(testing.Short())) //nolint:gosec // it is this program
		again.Env = append(os.Environ(), stopTheWorld)
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	g := newWholeRig(t, 1<<30)
	kinds, body := hostiles(g.topic("wide", 2000)), 128<<10
	served := 0
	for key, a := range g.broker.apis {
		if a == nil {
			continue
		}
		served++
		versions := []int16{a.max, a.min}
		if a.min == a.max || testing.Short() {
			versions = versions[:1]
		}
		if testing.Short() {
			kinds = kinds[:3]
		}
		for _, version := range versions {
			for i := range kinds {
				g.checkReserved(t, a, kinds[i].request(int16(key), version, body), kinds[i].name)
			}
		}
	}
	if served < 50 {
		t.Errorf("only %d APIs are served here", served)
	}
	g.apply(topicRecords(20_000)...)
	for _, req := range askForAll() {
		a := g.broker.apis[req.Key()]
		req.SetVersion(a.max)
		g.checkReserved(t, a, req, "everything there is")
	}
	parts := kmsg.NewPtrDescribeQuorumRequest()
	parts.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "x", Partitions: make([]kmsg.DescribeQuorumRequestTopicPartition, 400_000)}}
	a := g.broker.apis[parts.Key()]
	parts.SetVersion(a.max)
	g.checkReserved(t, a, parts, "one topic with 400,000 partitions")
}

// askForAll are requests that name nothing, and have answers about all topics.
func askForAll() []kmsg.Request {
	page := kmsg.NewPtrDescribeTopicPartitionsRequest()
	page.ResponsePartitionLimit = math.MaxInt16
	return []kmsg.Request{
		kmsg.NewPtrMetadataRequest(), kmsg.NewPtrDescribeLogDirsRequest(), kmsg.NewPtrElectLeadersRequest(),
		kmsg.NewPtrListConfigResourcesRequest(), page,
	}
}

// checkReserved reports a request that takes more memory than is reserved for it.
func (g *rig) checkReserved(t *testing.T, a *api, req kmsg.Request, kind string) {
	t.Helper()
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
	spare, piece := spareMemory+int64(2*len(frame)), make([]byte, 64<<10)
	allocated, reserved, answer := g.measureAllocated(t, frame, piece)
	if allocated <= reserved+spare {
		return // however much of it was garbage
	}
	held := int64(math.MaxInt64)
	for range 8 { // pools that are filled meanwhile would count as well, and what other goroutines do on a busy machine
		if held = min(held, g.measureHeld(t, frame, piece)); held <= reserved+spare {
			return
		}
	}
	t.Errorf("%s v%d, %s: a request of %d bytes with an answer of %d takes %d bytes, and %d are reserved",
		a.name, req.GetVersion(), kind, len(frame), answer, held, reserved)
}
