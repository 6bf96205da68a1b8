package node

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
)

// TestMemoryIsReturned proves that memory is returned to the system if some checks have seen no
// collection and the heap holds much more than after the last return, whatever the traffic.
func TestMemoryIsReturned(t *testing.T) {
	const mebi = 1 << 20
	var h heapWatch
	h.noteReturn(heapUse{held: 20 * mebi, collections: 5})
	for i, step := range []struct {
		use  heapUse
		want bool
	}{
		{heapUse{21 * mebi, 5}, false},
		{heapUse{22 * mebi, 5}, false},
		{heapUse{22 * mebi, 5}, false},
		{heapUse{22 * mebi, 5}, false}, // calm, and there is little to return
		{heapUse{500 * mebi, 9}, false},
		{heapUse{500 * mebi, 14}, false}, // busy
		{heapUse{480 * mebi, 20}, false},
		{heapUse{480 * mebi, 20}, false},
		{heapUse{480 * mebi, 20}, false},
		{heapUse{480 * mebi, 20}, true}, // the burst is over
	} {
		if got := h.noteUse(step.use); got != step.want {
			t.Fatalf("look %d: %v", i, got)
		}
	}
	h.noteReturn(heapUse{held: 100 * mebi, collections: 21})
	for i := range 10 {
		if h.noteUse(heapUse{100 * mebi, 21}) {
			t.Errorf("look %d: it returned memory that is in use", i)
		}
	}
	h.noteUse(heapUse{30 * mebi, 22}) // what was in use has gone
	for range calmChecks - 1 {
		h.noteUse(heapUse{60 * mebi, 22})
	}
	if !h.noteUse(heapUse{60 * mebi, 22}) {
		t.Error("it keeps what came since it held least")
	}
}

// TestReadHeap proves that the heap's use is read, and grows with the memory that is held.
func TestReadHeap(t *testing.T) {
	before := readHeap()
	block := make([]byte, 64<<20)
	after := readHeap()
	if d := after.held - before.held; before.held <= 0 || d < int64(len(block))/2 {
		t.Errorf("%d bytes are held with %d more than before, when there were %d", after.held, len(block), before.held)
	}
	returnMemory()
	if u := readHeap(); u.collections <= after.collections {
		t.Errorf("%d collections, %d before", u.collections, after.collections)
	}
	block[0] = 1
}

// TestWorkMemory proves that the budget is that of the setting, and without one depends on the
// available memory.
func TestWorkMemory(t *testing.T) {
	sum := func(b *budget.Budget) (n int64) {
		for c := budget.Peer; c <= budget.Codec; c++ {
			n += b.Usage(c).Limit
		}
		return n
	}
	if got := sum(budget.New(budget.Config{Bytes: 160 << 20})); got != 160<<20 {
		t.Errorf("160 MiB were set, the classes have %d", got)
	}
	if got := sum(budget.New(budget.Config{Bytes: sizesFor(64<<20, &config.Server{MaxRequestBytes: 100 << 20}).work})); got != budget.MinBytes {
		t.Errorf("in 64 MiB the classes have %d", got)
	}
	const mebi = 1 << 20
	for _, c := range []struct {
		available                int64
		s                        config.Server
		requests, groups, frames int64
	}{
		{12 << 30, config.Server{MaxRequestBytes: 100 * mebi}, 140 * mebi, 256 * mebi, 100 * mebi},
		{256 * mebi, config.Server{MaxRequestBytes: 100 * mebi}, 28 * mebi, 64 * mebi, 21 * mebi},
		{64 * mebi, config.Server{MaxRequestBytes: 100 * mebi}, 16 * mebi, 16 * mebi, 11 * mebi},
		{12 << 30, config.Server{MaxRequestBytes: 1 * mebi}, 64 * mebi, 256 * mebi, 1 * mebi},
		{256 * mebi, config.Server{MaxRequestBytes: mebi, RequestMemory: 99 * mebi, Groups: config.Groups{Memory: mebi}}, 99 * mebi, mebi, mebi},
	} {
		z := sizesFor(c.available, &c.s)
		if z.requests != c.requests || z.groups != c.groups || z.requests/4*3 < c.frames {
			t.Errorf("%d: %+v", c.available, z)
		}
	}
	small := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:         524288 kB\nMemFree: 1 kB\n")}}
	if got := availableMemory(small); got > 256<<20 {
		t.Errorf("of a machine of 512 MiB %d bytes are available", got)
	}
}

// TestRequestsHaveOneBound proves that everything that requests hold, from the bytes of the next one
// to answers that nobody reads, has the bound that docs/configs.md names; and that the collector's
// limit lies above it by the slack, and by no more than the slack or half of the rest, also
// where all classes of work are full.
func TestRequestsHaveOneBound(t *testing.T) {
	const mebi = 1 << 20
	for available := int64(64 * mebi); available <= 1<<40; available += available / 7 {
		z := sizesFor(available, &config.Server{MaxRequestBytes: 100 * mebi})
		b := budget.New(budget.Config{Bytes: z.work, Parked: z.parked})
		byClass := int64(0)
		for c := budget.Peer; c <= budget.Codec; c++ {
			byClass += b.Usage(c).Limit
		}
		extra := b.Usage(budget.Parked).Limit + b.Usage(budget.Unsent).Limit
		if byClass > z.work {
			t.Errorf("%d MiB: the classes of work have %d, all of work has %d", available/mebi, byClass, z.work)
		}
		if all := z.requests + z.peers + z.work + extra; all > max(available/2, 72*mebi) {
			t.Errorf("%d MiB: requests may hold %d MiB", available/mebi, all/mebi)
		}
		for _, rest := range []int64{10 * mebi, 500 * mebi} {
			live := rest + z.requests + z.peers + z.work + extra
			limit := z.heapLimit(live, z.requests+z.peers+z.work)
			slack := min(maxSlack, available/requestShare)
			if above := limit - live; above < slack || above > max(slack, (rest+extra)/2) {
				t.Errorf("%d MiB: with all classes full and %d MiB besides, the collector's limit is %d MiB above the live memory", available/mebi, rest/mebi, above/mebi)
			}
		}
	}
}

// TestPartitionsFollowMemory proves that the number of partitions of a cluster has a bound that
// the available memory gives, and that the controller of a node with little memory knows it.
func TestPartitionsFollowMemory(t *testing.T) {
	for _, c := range []struct {
		available int64
		want      int
	}{
		{1 << 40, 1_000_000},
		{4 << 30, 524_288}, // a quarter of it, 2 KB each
		{192 << 20, 24_576},
		{8 << 20, 10_000},
	} {
		if got := sizesFor(c.available, &config.Server{MaxRequestBytes: 100 << 20}).partitions; got != c.want {
			t.Errorf("%d bytes are available: %d partitions, want %d", c.available, got, c.want)
		}
	}
	limit := debug.SetMemoryLimit(32 << 20)
	n := start(t, Config{Data: t.TempDir()})
	debug.SetMemoryLimit(limit)
	topic := func(n int32) []controller.NewTopic {
		return []controller.NewTopic{{Name: fmt.Sprint("t", n), Partitions: n, ReplicationFactor: 1}}
	}
	if made, err := n.controller.CreateTopics(t.Context(), topic(1), false); err != nil || made[0].Err != nil {
		t.Fatal(made, err)
	}
	if made, err := n.controller.CreateTopics(t.Context(), topic(10_000), true); err != nil || made[0].Err == nil {
		t.Errorf("one more than 10,000 partitions: %+v, %v", made, err)
	}
}

// TestSharesFitIn proves that all uses of memory together get no more than there is, however
// much, from what a container of 256 MiB leaves to the process.
func TestSharesFitIn(t *testing.T) {
	for available := int64(192 << 20); available <= 1<<38; available += available / 7 {
		z := sizesFor(available, &config.Server{MaxRequestBytes: 100 << 20})
		z.work = budget.DefaultBytes(available, 2) // more processors come with more memory
		z.shareCleaner()
		unsent := budget.New(budget.Config{Bytes: z.work}).Usage(budget.Unsent).Limit
		sum := z.requests + z.peers + z.work + unsent + z.parked + z.groups + z.producers + z.sessions + z.mirrors + z.cleaner + int64(z.partitions)*partitionBytes
		if sum > available {
			t.Errorf("%d MiB are available, and %d shared out: %+v", available>>20, sum>>20, z)
		}
	}
}

// TestConnectionsFollowMemory proves that the number of clients' connections follows from the
// available memory, also where the process may have a million files open, and that a node with very
// little memory still has a thousand.
func TestConnectionsFollowMemory(t *testing.T) {
	for available, want := range map[int64]int{16 << 20: 1000, 256 << 20: 6553, 12 << 30: 314572, math.MaxInt64: math.MaxInt32} {
		if got := sizesFor(available, &config.Server{MaxRequestBytes: 100 << 20}).connections; got != want {
			t.Errorf("with %d bytes there may be %d connections, want %d", available, got, want)
		}
	}
	text, err := os.ReadFile("../../docs/configs.md")
	if err != nil || !strings.Contains(string(text), "at least 1,000:\n6,500 with 256 MiB, 300,000 with 12 GiB") {
		t.Errorf("docs/configs.md does not say so: %v", err)
	}
}

// TestHeapLimit proves that the collector's limit is the live memory without requests and all
// that requests may take, and that it always has the slack.
func TestHeapLimit(t *testing.T) {
	const mebi = 1 << 20
	z := sizes{available: 12 << 30, requests: 140 * mebi, work: 96 * mebi}
	for _, c := range []struct{ live, held, want int64 }{
		{50 * mebi, 0, (50 + 140 + 96 + 48) * mebi},
		{250 * mebi, 200 * mebi, (50 + 140 + 96 + 48) * mebi}, // requests hold most of it
		{30 * mebi, 200 * mebi, (140 + 96 + 48) * mebi},       // not used yet
		{1000 * mebi, 0, (1500 + 140 + 96) * mebi},            // many partitions
	} {
		got := z.heapLimit(c.live, c.held)
		if got != c.want || got < c.live+maxSlack {
			t.Errorf("%d live, %d held: %d, want %d", c.live, c.held, got, c.want)
		}
	}
	if live := readLive(); live <= 0 || live > 1<<40 {
		t.Errorf("%d are live", live)
	}
}
