package replica

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

const mirrorSeeds = 60

// TestMirroringUnderFaults proves, over many seeds, that the replicas of a partition that mirrors become equal to the source in the end, that
// readers see only what the source had at an offset, and that each tail has what the source had there, while all happens to the nodes that
// happens to those of TestReplicationUnderFaults, and the source elects leaders that lack what it had committed: then the leader of the
// mirror has the controller cut. LEAT_TEST_SEEDS is how many, and LEAT_TEST_SEED runs one.
func TestMirroringUnderFaults(t *testing.T) {
	from, to := 0, mirrorSeeds
	if testing.Short() {
		to = mirrorSeeds / 10
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEEDS")); err == nil {
		to = n
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEED")); err == nil {
		from, to = n, n+1
	}
	total := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newMirrorChaos(t, uint64(seed))
				x.run()
				for what, n := range x.counts {
					total[what] += n
				}
			})
		})
	}
	t.Log(total)
	if to-from < mirrorSeeds {
		return
	}
	for _, what := range []string{
		"mirrored", "cut", "tail", "source lost records", "epoch of the source from two leaders", "power cut", "kill", "failing disk", "full disk",
		"leader moved", "reassignment", "read", "read from a follower", "fenced",
	} {
		if total[what] == 0 {
			t.Errorf("in %d seeds there was no %q", to-from, what)
		}
	}
}

// mirrorChaos is a chaos whose partition mirrors a source.
type mirrorChaos struct {
	*chaos

	source sync.Mutex
	log    *memlog.Log                       // guarded by source: what is committed there
	epoch  record.Epoch                      // guarded by source
	number uint64                            // guarded by source: of the last record
	had    map[record.Offset]map[string]bool // guarded by source: the values that it ever had at an offset
	readIn map[record.Epoch]int32            // guarded by source: the node that has read records of an epoch last
}

func newMirrorChaos(t *testing.T, seed uint64) *mirrorChaos {
	t.Helper()
	x := &mirrorChaos{
		chaos: newChaos(t, seed), log: memlog.New(false), epoch: 1, had: map[record.Offset]map[string]bool{}, readIn: map[record.Epoch]int32{},
	}
	x.c.becomeMirror("t")
	x.c.raiseEpoch("t", 1000)
	return x
}

func (x *mirrorChaos) run() {
	c := x.c
	defer c.close()
	c.setMeddle(x.meddle)
	c.mu.Lock()
	c.comesLate = x.comesLate
	c.mu.Unlock()
	var clients, others sync.WaitGroup
	clients.Go(x.write)
	others.Go(x.mirror)
	others.Go(x.readMirror)
	others.Go(x.control)
	pauses := x.throw("pauses")
	for began := time.Now(); time.Since(began) < chaosTime; time.Sleep(20*time.Millisecond + pauses.random(150*time.Millisecond)) {
		x.stage(pauses.pick(15))
	}
	x.heal()
	x.cleared.Store(true)
	clients.Wait()
	c.eventually("equal replicas", func() bool { return c.isEqual("t") && x.isEqualToSource() })
	x.over.Store(true)
	others.Wait()
	x.verifyTails()
	if x.t.Failed() {
		x.t.Log(x.c.describe(), strings.Join(x.c.trace, "\n"))
	}
}

// write has records come at the source, and now and then another leader there, which may lack some.
func (x *mirrorChaos) write() {
	d := x.throw("source")
	for !x.cleared.Load() {
		time.Sleep(d.random(30 * time.Millisecond))
		x.writeOnce(d)
	}
}

func (x *mirrorChaos) writeOnce(d *dice) {
	x.source.Lock()
	defer x.source.Unlock()
	if d.pick(15) == 0 {
		x.epoch++
		if d.pick(2) == 0 {
			x.count("source lost records")
			to := max(x.log.End()-record.Offset(d.pick(25)), 0)
			x.c.note("the source loses what it has from %d on, of %d", to, x.log.End())
			if err := x.log.Truncate(to); err != nil {
				x.t.Error(err)
			}
		}
	}
	for range 1 + d.pick(3) {
		x.number++
		at := x.log.End()
		if x.had[at] == nil {
			x.had[at] = map[string]bool{}
		}
		x.had[at][fmt.Sprint(x.number)] = true
		if err := x.log.Append(x.epoch, x.number); err != nil {
			x.t.Error(err)
		}
	}
}

// hadAt tells whether the source ever had a value at an offset.
func (x *mirrorChaos) hadAt(o record.Offset, value string) bool {
	x.source.Lock()
	defer x.source.Unlock()
	return x.had[o][value]
}

// mirror has nodes that believe to lead fetch from the source, until all is over.
func (x *mirrorChaos) mirror() {
	d := x.throw("mirror")
	for !x.over.Load() {
		time.Sleep(d.random(20 * time.Millisecond))
		m := x.c.nodes[d.pick(len(x.c.nodes))]
		p := m.replica("t")
		if p == nil || p.CheckLeader(record.NoEpoch) != nil {
			continue
		}
		x.mirrorBy(m, p, 1+d.pick(5))
	}
}

// mirrorBy has a node that believes to lead fetch some records.
func (x *mirrorChaos) mirrorBy(m *member, p *Partition, most int) {
	life, l := m.present(), p.Leadership()
	end, err := p.End()
	if err != nil || life == nil || !l.mirrors() { // it may not know yet that the topic mirrors
		return
	}
	own := progress.Tail{Epoch: record.NoEpoch, End: -1}
	last := p.log.Load().EpochAt(end - 1)
	x.source.Lock()
	var tail progress.Tail
	tail.Epoch, tail.End = x.log.EpochEnd(last)
	verdict := progress.Compare(end, last, progress.Ends{Start: x.log.Start(), End: x.log.End()}, tail)
	var records []mirrored
	if verdict == progress.Served {
		entries, err := x.log.Read(end, most)
		if err != nil {
			x.t.Error(err)
		}
		for _, e := range entries {
			records = append(records, mirrored{e.Epoch, fmt.Sprint(e.Value)})
			if was, ok := x.readIn[e.Epoch]; ok && was != m.id {
				x.count("epoch of the source from two leaders")
			}
			x.readIn[e.Epoch] = m.id
		}
	}
	to := x.log.End()
	x.source.Unlock()
	if verdict == progress.Served {
		err := p.AppendMirror(l, mirroredBatches(x.t, end, records...))
		p.Commit()
		if err == nil {
			x.count("mirrored")
		}
		if errors.Is(err, ErrOffsetOutOfRange) || errors.Is(err, ErrEpochAhead) || errors.Is(err, ErrNotMirroring) {
			x.t.Errorf("node %d in epoch %d at %d: %v", m.id, l.Epoch, end, err)
		}
		return
	}
	if verdict == progress.Diverged {
		if own.Epoch, own.End, err = p.log.Load().EpochEnd(tail.Epoch); err != nil {
			return
		}
		if to = tail.End; own.End >= 0 {
			to = min(to, own.End)
		}
	}
	if x.c.isCut(m.id, controllerID) || life.dead.Load() || p.Leadership() != l {
		return
	}
	if x.c.changeMirrorIn("t", l.Epoch, func(r *meta.PartitionMirror) { *r = *r.WithCut(int64(to)) }) {
		x.count("cut")
	}
}

// readMirror has readers read from any node until all is over. What they see, the source had.
func (x *mirrorChaos) readMirror() {
	d := x.throw("reader")
	for !x.over.Load() {
		time.Sleep(d.random(20 * time.Millisecond))
		m, at := x.c.nodes[d.pick(len(x.c.nodes))], d.pick(1000)
		p := m.replica("t")
		if p == nil {
			continue
		}
		lead, err := p.checkEpoch(record.NoEpoch, true)
		if err != nil {
			continue
		}
		q := Query{Epoch: lead.Epoch, LastEpoch: record.NoEpoch, Offset: p.Start(), MaxBytes: 1 << 20, AnyReplica: true}
		if hw := record.Offset(p.hw.Load()); hw > q.Offset {
			q.Offset += (hw - q.Offset) * record.Offset(at) / 1000
		}
		found := Nothing()
		err = p.Read(&q, &found)
		if !found.Chunk.Exists() {
			continue
		}
		b := make([]byte, found.Chunk.Len())
		_, _ = found.Chunk.ReadAt(b, 0)
		found.Chunk.Release()
		if err != nil {
			continue
		}
		what := "read from a follower"
		if lead.Leader == m.id {
			what = "read"
		}
		x.count(what)
		x.compareWithSource(fmt.Sprintf("a reader of node %d in epoch %d", m.id, lead.Epoch), b)
	}
}

// compareWithSource compares batches with all that the source ever had.
func (x *mirrorChaos) compareWithSource(who string, b []byte) {
	for len(b) > 0 {
		one, rest, err := record.Next(b)
		if err != nil {
			return // the last one is cut short
		}
		var r record.Reader
		for r.Reset(one, 1<<20); r.Next(); {
			if v := string(r.Record.Value); !x.hadAt(r.Record.Offset, v) {
				x.t.Errorf("%s sees %q at offset %d, which the source never had there", who, v, r.Record.Offset)
			}
		}
		r.Close()
		b = rest
	}
}

// isEqualToSource tells whether the leader has what the source has, with its epochs.
func (x *mirrorChaos) isEqualToSource() bool {
	m := x.c.leader("t")
	if m == nil {
		return false
	}
	x.source.Lock()
	defer x.source.Unlock()
	p := m.replica("t")
	start := p.Start()
	entries, err := x.log.Read(start, int(x.log.End()-start))
	if err != nil {
		return false
	}
	var values []string
	var epochs []record.Epoch
	for _, e := range entries {
		values, epochs = append(values, fmt.Sprint(e.Value)), append(epochs, e.Epoch)
	}
	return slices.Equal(m.values("t"), values) && slices.Equal(m.epochsOf("t"), epochs)
}

// verifyTails compares all tails with what the source had.
func (x *mirrorChaos) verifyTails() {
	for _, m := range x.c.nodes {
		p := m.replica("t")
		if p == nil {
			continue
		}
		for cut, values := range m.tailsOf("t") {
			x.count("tail")
			list, err := Tails(p)
			if err != nil {
				x.t.Fatal(err)
			}
			tail := list[slices.IndexFunc(list, func(t Tail) bool { return t.Number == cut })]
			for i, v := range values { // there are no gaps
				if o := tail.First + record.Offset(i); !x.hadAt(o, v) {
					x.t.Errorf("node %d has kept %q of offset %d in the tail of cut %d, which the source never had there", m.id, v, o, cut)
				}
			}
			if int(tail.Last-tail.First)+1 != len(values) {
				x.t.Errorf("node %d has kept %d records in the tail %+v", m.id, len(values), tail)
			}
		}
	}
}
