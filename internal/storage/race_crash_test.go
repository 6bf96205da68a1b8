package storage

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	crowdLogs     = 3    // logs of a crowd
	crowdAppends  = 300  // calls of Append in each log
	crowdBatches  = 8    // batches of a call, at most
	crowdCrashes  = 3    // moments at which the disk's state is kept, chosen in two ways
	crowdCalls    = 3000 // calls that change the disk, about
	crowdSoon     = 40   // calls from a half-shown append to a crash, at most
	crowdDistance = 50   // records that a log keeps below its end, where somebody moves its start
)

// crowd is a store in which everything goes on at the same time, beside what the disk would have
// if it had ended at some call.
type crowd struct {
	t     *testing.T
	mem   *vfs.Mem
	s     *Store
	opts  Options
	kills bool        // the process is killed; else the power is cut
	rolls bool        // segments are small
	over  atomic.Bool // the appends have not begun, or have ended

	mu      sync.Mutex
	rng     *rand.Rand   // guarded by mu
	calls   int          // guarded by mu: calls that changed the disk
	crashes map[int]bool // guarded by mu: before which of them it is kept
	soon    int          // guarded by mu: how many of those were chosen for a half-shown append
	ends    []crowdEnd   // guarded by mu
}

// crowdEnd is what a crash leaves, and what must be there.
type crowdEnd struct {
	disk  *vfs.Mem
	acked [crowdLogs]int64 // records that were acknowledged
	start [crowdLogs]int64 // starts that were durable
}

// TestCrashInRace proves, over many seeds, that nothing that was acknowledged is lost, no offset is
// given twice, and nothing is taken for damage, when appends, commits, checkpoints, retention,
// changes of the settings, and the bound of all producers go on at the same time, and the process
// is killed or the power is cut at any call. Which states are met depends on the scheduler, too: a seed
// that failed may need several tries.
func TestCrashInRace(t *testing.T) {
	from, to := seeds(t)
	if to-from > 1 {
		to = from + max((to-from)/10, 1) // each takes as long as ten of TestCrash
	}
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { runCrowd(t, uint64(seed)) })
	}
}

func runCrowd(t *testing.T, seed uint64) {
	t.Helper()
	c := &crowd{t: t, mem: vfs.NewMem(), rng: rand.New(rand.NewPCG(seed, 7)), crashes: map[int]bool{}}
	c.kills, c.rolls = seed%2 == 0, seed%4 >= 2
	c.over.Store(true)
	for range crowdCrashes {
		c.crashes[1+c.rng.IntN(crowdCalls)] = true
	}
	cfg := testConfig(vfs.NewFaulty(c.mem, c.beforeCall), "data")
	cfg.Producers = NewProducerBudget(40 * producer.EntryBytes)
	c.s = openStore(t, cfg)
	c.opts = testOptions()
	c.opts.IndexInterval = 1
	c.opts.SegmentBytes = c.pickSegmentBytes()
	for i := range crowdLogs {
		testLog(c.s, i, c.opts)
	}
	c.over.Store(false)
	var logs, others sync.WaitGroup
	for i := range crowdLogs {
		logs.Go(func() { c.appendAll(i) })
	}
	others.Go(func() {
		for !c.over.Load() {
			c.s.keeper.urgent.Store(c.pick(4) > 0) // it rests seldom
			c.s.keeper.checkpointNow()
		}
	})
	others.Go(func() {
		for !c.over.Load() {
			c.disturb()
			runtime.Gosched()
		}
	})
	logs.Wait()
	c.over.Store(true)
	others.Wait()
	c.keepEnd()
	if err := c.s.Close(); err != nil {
		t.Error(err)
	}
	for i := range c.ends {
		c.verify(&c.ends[i])
	}
}

// beforeCall is called before each call of the file system.
func (c *crowd) beforeCall(op vfs.Op, path string) error {
	if !op.Changes() || c.over.Load() {
		return nil
	}
	isHalfShown := op == vfs.OpWrite && strings.HasSuffix(path, ".index")
	c.mu.Lock()
	c.calls++
	isCrash := c.crashes[c.calls]
	if isHalfShown && c.soon < crowdCrashes {
		c.soon++
		c.crashes[c.calls+1+c.rng.IntN(crowdSoon)] = true
	}
	c.mu.Unlock()
	if isCrash {
		c.keepEnd()
	}
	if isHalfShown { // the segment shows the batch; others get a chance to look before the log does
		for range 20 {
			runtime.Gosched()
		}
	}
	return nil
}

// pickSegmentBytes is segment.bytes for some time. An append is half-shown for long when it writes to the index,
// which takes 512 batches in one segment.
func (c *crowd) pickSegmentBytes() int64 {
	if c.rolls {
		return int64(2000 + c.pick(60_000))
	}
	return int64(200_000 + c.pick(200_000))
}

// keepEnd keeps what the disk would have if all ended now.
func (c *crowd) keepEnd() {
	var end crowdEnd
	for i := range crowdLogs { // before the disk's state is taken
		l := testLog(c.s, i, c.opts)
		end.acked[i], end.start[i] = l.commitTo.Load(), l.sureStart.Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kills {
		end.disk = c.mem.KillClone(nil)
	} else {
		end.disk = c.mem.Crash(c.rng)
	}
	c.ends = append(c.ends, end)
}

// pick is a random number below n.
func (c *crowd) pick(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// appendAll appends batches of one record to a log, each with its offset as its value. The half of
// them are of idempotent producers.
func (c *crowd) appendAll(log int) {
	l := testLog(c.s, log, c.opts)
	n, seq := 0, map[int64]int32{}
	for range crowdAppends {
		var items []Item
		for range 1 + c.pick(crowdBatches) {
			id := int64(c.pick(30))
			items = append(items, Item{Batch: numbered(c.t, id, seq[id], n, 20+n%200)})
			seq[id]++
			n++
		}
		l.Append(1, items)
		for _, it := range items {
			if it.Err != nil || it.Dup {
				c.t.Errorf("log %d: an append failed: %v, duplicate %v", log, it.Err, it.Dup)
				return
			}
		}
		if c.pick(3) > 0 {
			c.s.Commit()
		}
	}
}

// numbered is a batch of one record with a number. If its producer's id is even it is an idempotent one.
func numbered(tb testing.TB, id int64, seq int32, n, size int) record.Batch {
	tb.Helper()
	var bu record.Builder
	if id%2 == 0 {
		bu.SetProducer(id, 0, seq)
	}
	value := make([]byte, size)
	binary.BigEndian.PutUint64(value, uint64(n))
	bu.Append(1_700_000_000_000, nil, value)
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// disturb does one of the things that go on beside appends and checkpoints.
func (c *crowd) disturb() {
	l := testLog(c.s, c.pick(crowdLogs), c.opts)
	switch o := *l.options(); c.pick(6) {
	case 0:
		if c.kills { // a power cut may take what a page-cached log has acknowledged
			o.FlushMessages = []int64{1, 1000, 3}[c.pick(3)]
			l.Configure(o)
		}
	case 1:
		if end := l.commitTo.Load(); end > crowdDistance {
			if err := l.SetStart(record.Offset(end - crowdDistance)); err != nil {
				c.t.Errorf("the start could not be moved: %v", err)
			}
		}
	case 2:
		c.s.producers.boundAll(time.Now())
	case 3:
		o.SegmentBytes = c.pickSegmentBytes()
		l.Configure(o)
	case 4:
		o.RetentionBytes = []int64{-1, 10_000, 30_000}[c.pick(3)]
		l.Configure(o)
		c.s.retain(time.Now())
	case 5:
		c.s.scrub(unpaced)
	}
}

// verify opens a store with what a crash has left.
func (c *crowd) verify(end *crowdEnd) {
	s := openStore(c.t, testConfig(end.disk, "data"))
	for i := range crowdLogs {
		l := testLog(s, i, c.opts)
		next, err := l.End()
		start, _ := l.Start()
		if err != nil || int64(next) < end.acked[i] || int64(start) < end.start[i] || l.Fault() != nil || l.hasGaps {
			c.t.Errorf("killed %v: log %d had %d..%d for sure, and has %d..%d: %v, %v, gaps %v", c.kills, i, end.start[i], end.acked[i], start, next, err, l.Fault(), l.hasGaps)
			continue
		}
		for k, v := range values(c.t, readAll(c.t, l, start, 1<<20)) {
			if v != int(start)+k {
				c.t.Errorf("killed %v: log %d has record %d at offset %d", c.kills, i, v, int(start)+k)
				break
			}
		}
		if it := mustAppend(c.t, l, batch(c.t, int(next), 1, 10)); it.Base != next {
			c.t.Errorf("log %d ends at %d, and the next record got %d", i, next, it.Base)
		}
	}
	s.Commit()
	s.keeper.checkpointNow()
	s.scrub(unpaced)
	for i := range crowdLogs {
		if err := testLog(s, i, c.opts).Fault(); err != nil {
			c.t.Errorf("killed %v: log %d: %v", c.kills, i, err)
		}
	}
	if err := s.Close(); err != nil {
		c.t.Error(err)
	}
}
