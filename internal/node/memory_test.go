package node

import (
	"testing"
	"testing/fstest"

	"github.com/leatstream/leat/internal/budget"
)

// TestHeapDecides proves when memory is returned to the system: when the heap has
// not been collected for some looks and holds much more than after the last time,
// whatever goes over the network.
func TestHeapDecides(t *testing.T) {
	const mebi = 1 << 20
	var h heap
	h.settled(heapUse{held: 20 * mebi, collections: 5})
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
		if got := h.look(step.use); got != step.want {
			t.Fatalf("look %d: %v", i, got)
		}
	}
	h.settled(heapUse{held: 100 * mebi, collections: 21})
	for i := range 10 {
		if h.look(heapUse{100 * mebi, 21}) {
			t.Errorf("look %d: it returned memory that is in use", i)
		}
	}
	h.look(heapUse{30 * mebi, 22}) // what was in use has gone
	for range calmLooks - 1 {
		h.look(heapUse{60 * mebi, 22})
	}
	if !h.look(heapUse{60 * mebi, 22}) {
		t.Error("it keeps what came since it held least")
	}
}

// TestReadHeap proves that the heap's figures are read and count what is held.
func TestReadHeap(t *testing.T) {
	before := readHeap()
	block := make([]byte, 64<<20)
	after := readHeap()
	if d := after.held - before.held; before.held <= 0 || d < int64(len(block))/2 {
		t.Errorf("%d bytes are held with %d more than before, when there were %d", after.held, len(block), before.held)
	}
	giveBack()
	if u := readHeap(); u.collections <= after.collections {
		t.Errorf("%d collections, %d before", u.collections, after.collections)
	}
	block[0] = 1
}

// TestWorkMemory proves that the budget is as the setting says, and without one
// follows the memory that there is.
func TestWorkMemory(t *testing.T) {
	sum := func(b *budget.Budget) (n int64) {
		for c := budget.Peer; c <= budget.Codec; c++ {
			n += b.Usage(c).Limit
		}
		return n
	}
	if got := sum(newBudget(160 << 20)); got != 160<<20 {
		t.Errorf("160 MiB were set, the classes have %d", got)
	}
	if got := sum(newBudget(0)); got < budget.MinBytes {
		t.Errorf("by default the classes have %d", got)
	}
	small := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:         524288 kB\nMemFree: 1 kB\n")}}
	if got := availableMemory(small); got > 256<<20 {
		t.Errorf("of a machine of 512 MiB %d bytes are available", got)
	}
}
