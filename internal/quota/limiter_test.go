package quota

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestThrottleTime proves that a client is throttled for as long as its use a second needs to fall to its quota, over the
// windows and no other time, and that what was taken back does not count.
func TestThrottleTime(t *testing.T) {
	w := newWorld(Config{})
	if w.IsActive() || w.Owner(nil, "u", "c") != nil || w.use("u", "c", Produce, 1e9, 0) != 0 {
		t.Fatal("there is a quota")
	}
	w.change(entityOf("", "c"), meta.ProducerByteRate, 500)
	now := int64(77)
	for range 10 { // ten whole windows with 400 bytes each
		if ms := w.use("u", "c", Produce, 400, now); ms != 0 {
			t.Fatalf("throttled for %d ms below the quota", ms)
		}
		now += 1000
	}
	// 6,300 bytes in 10.5 s are 600 a second, which takes 12.6 s at 500.
	now += 500
	if ms := w.use("u", "c", Produce, 2300, now); ms != 2100 {
		t.Errorf("throttled for %d ms, not 2100", ms)
	}
	if ms := w.use("u", "other", Produce, 1e9, now); ms != 0 {
		t.Errorf("a client without a quota is throttled for %d ms", ms)
	}
	if ms := w.use("u", "c", Fetch, 1e9, now); ms != 0 {
		t.Errorf("throttled for %d ms by the quota of another kind", ms)
	}
	if ms := w.use("u", "c", Produce, 0, now+11_000); ms != 0 {
		t.Errorf("after all windows, throttled for %d ms", ms)
	}

	w.change(entityOf("", "c"), meta.ConsumerByteRate, 1000)
	o := w.Owner(nil, "u", "c")
	if most := w.MostFetch(o); most != 10_000 {
		t.Errorf("an answer has at most %d bytes", most)
	}
	for _, c := range []struct {
		bytes, after int64
		waits        int64
		refused      bool
	}{
		{6000, 0, 0, false},
		{6000, 1, 1999, true},
		{6000, 0, 1999, true},
		{4000, 0, 0, false},
		{20, 0, 19, true},
		{20_000, 20_000, 10_000, false},
		{1, 0, 10_001, true}, // an answer that is larger than all windows have room for
	} {
		now += c.after
		if ms, refused := w.UseFetch(o, float64(c.bytes), now); ms != c.waits || refused != c.refused {
			t.Errorf("%d bytes: throttled for %d ms, refused %v", c.bytes, ms, refused)
		}
	}
	if used := w.Stats(Fetch).Used; used != 30_000 {
		t.Errorf("%v bytes count", used)
	}
	if used := w.Stats(Produce).Used; used != 6300 {
		t.Errorf("%v bytes count", used)
	}
}

// TestRequestTimeIsBounded proves that a quota of processor time throttles for at most one window.
func TestRequestTimeIsBounded(t *testing.T) {
	w := newWorld(Config{})
	w.change(entityOf("u", ""), meta.RequestPercentage, 1)
	if ms := w.use("u", "a", Request, 10_000, 0); ms != 1000 {
		t.Errorf("throttled for %d ms", ms)
	}
}

// TestMutations proves that a strict quota admits requests until its tokens are gone, one beyond them, and then none until
// there are tokens again; and that a permissive one admits all and throttles.
func TestMutations(t *testing.T) {
	w := newWorld(Config{MutationWindows: Windows{Number: 10, Millis: 1000}})
	w.change(entityOf("u", ""), meta.ControllerMutationRate, 2) // 20 tokens
	o := w.Owner(nil, "u", "c")
	now := int64(5)
	for i, c := range []struct {
		partitions   int
		strict       bool
		after, waits int64
	}{
		{15, true, 0, 0},
		{15, true, 0, 0}, // 10 are missing now
		{1, true, 0, 5000},
		{1, true, 2000, 3000},
		{2, false, 0, 4000},
		{1, true, 3999, 1},
		{1, true, 1, 0},
		{0, false, 0, 500},
		{1, true, 1_000_000, 0},
		{19, true, 0, 0},
		{1, true, 0, 0},
		{1, true, 0, 500},
	} {
		now += c.after
		if ms := w.Mutate(o, c.partitions, c.strict, now); ms != c.waits {
			t.Errorf("step %d: throttled for %d ms, not %d", i, ms, c.waits)
		}
	}
}

// TestChangesCountAtOnce proves that a changed quota counts for what was measured before, also for an owner of the table before.
func TestChangesCountAtOnce(t *testing.T) {
	w := newWorld(Config{})
	w.change(entityOf("u", ""), meta.ProducerByteRate, 1000)
	o := w.Owner(nil, "u", "c")
	if w.Owner(o, "u", "c") != o || w.Owner(o, "u", "d") == o || w.Owner(o, "v", "c") == o {
		t.Error("an owner is not the one that it was, or is another")
	}
	if ms := w.Use(o, Produce, 10_000, 0); ms != 0 {
		t.Errorf("throttled for %d ms", ms)
	}
	w.change(entityOf("u", ""), meta.ProducerByteRate, 500)
	if ms := w.Use(o, Produce, 0, 0); ms != 10_000 {
		t.Errorf("throttled for %d ms, not 10000", ms)
	}
	w.change(entityOf("u", ""), meta.ProducerByteRate, 0)
	if ms := w.Use(o, Produce, 1e9, 0); ms != 0 || w.IsActive() || w.Has(Produce) {
		t.Errorf("without a quota, throttled for %d ms", ms)
	}
}

// TestManyClientIDs proves that a flood of client ids takes a bounded amount of memory, that it does not have a user's use
// forgotten, nor that of a client which goes on, and that sensors which have nothing to remember are dropped.
func TestManyClientIDs(t *testing.T) {
	const bytes = 1 << 20
	w := newWorld(Config{SensorBytes: bytes})
	w.change(entityOf("", "*"), meta.ProducerByteRate, 1000)
	w.change(entityOf("u", ""), meta.ProducerByteRate, 1000)
	if ms := w.use("u", "x", Produce, 10_000, 0); ms != 0 {
		t.Fatal(ms)
	}
	busy := w.Owner(nil, "a", "busy")
	before := heapBytes()
	for i := range 1_000_000 {
		w.use("a", fmt.Sprintf("client %d", i), Produce, 100, 0)
		if i%100 == 0 {
			w.Use(busy, Produce, 1, int64(1+i/10_000)) // later than the others, so it has more to remember
		}
	}
	if n := w.Stats(Produce).Sensors; n > bytes/sensorCost+1 || n < bytes/sensorCost/2 {
		t.Errorf("there are %d sensors", n)
	}
	if grown := heapBytes() - before; grown > 2*bytes {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if ms := w.use("u", "y", Produce, 1000, 100); ms == 0 {
		t.Error("what the user has used is forgotten")
	}
	if ms := w.Use(busy, Produce, 1000, 100); ms == 0 {
		t.Error("what the client that goes on has used is forgotten")
	}
	for range 3 {
		w.Expire(60_000)
	}
	if n := w.Stats(Produce).Sensors; n != 0 {
		t.Errorf("%d sensors are left that have nothing to remember", n)
	}
	if ms := w.Use(busy, Produce, 11_000, 60_000); ms != 1000 || w.Stats(Produce).Sensors != 1 {
		t.Errorf("throttled for %d ms", ms)
	}
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestTogether proves, under the race detector, that owners can use a limiter together while quotas change and sensors are
// evicted, and that nothing is lost of what they use.
func TestTogether(t *testing.T) {
	w := newWorld(Config{})
	w.change(entityOf("", "*"), meta.ProducerByteRate, 1e12)
	tables := []*Table{NewTable(&w.set), NewTable(&w.set)}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			var o *Owner
			for i := range 2000 {
				o = w.Owner(o, "u", fmt.Sprint(i/100))
				w.Use(o, Produce, 1, int64(i))
				if g == 0 && i%50 == 0 {
					w.SetTable(tables[i/50%2])
					w.Expire(-1)
				}
			}
		})
	}
	all.Wait()
	if used := w.Stats(Produce).Used; used != 8000 {
		t.Errorf("%v were used", used)
	}
	if n := w.Stats(Produce).Sensors; n != 20 {
		t.Errorf("%d sensors", n)
	}
}

// TestPrecedence proves which quota counts for a client, and what is measured together.
func TestPrecedence(t *testing.T) {
	all := []meta.QuotaEntity{
		entityOf("u", "c"), entityOf("u", "*"), entityOf("u", ""), entityOf("*", "c"),
		entityOf("*", "*"), entityOf("*", ""), entityOf("", "c"), entityOf("", "*"),
	}
	keys := []sensorKey{{"u", "c"}, {"u", "c"}, {"u", ""}, {"u", "c"}, {"u", "c"}, {"u", ""}, {"", "c"}, {"", "c"}}
	for first := range all {
		l := limits{entityOf("v", "d"): 100}
		for i := first; i < len(all); i++ {
			l[all[i]] = float64(i + 1)
		}
		if key, limit := l.find("u", "c"); key != keys[first] || limit != float64(first+1) {
			t.Errorf("with the quotas from %d on: %v has %v", first+1, key, limit)
		}
	}
	if _, limit := (limits{entityOf("v", "d"): 100}).find("u", "c"); !math.IsInf(limit, 1) {
		t.Errorf("without a quota: %v", limit)
	}
	if _, limit := (limits{entityOf("", "*"): 100}).find("u", ""); !math.IsInf(limit, 1) {
		t.Errorf("without a client id: %v", limit)
	}
}

// BenchmarkUse measures what a use costs that is within its quota, by an owner that remembers its sensor.
func BenchmarkUse(b *testing.B) {
	w := newWorld(Config{})
	w.change(entityOf("u", ""), meta.ProducerByteRate, 1e12)
	o := w.Owner(nil, "u", "c")
	now := int64(0)
	for b.Loop() {
		o = w.Owner(o, "u", "c")
		w.Use(o, Produce, 100, now)
		now++
	}
}
