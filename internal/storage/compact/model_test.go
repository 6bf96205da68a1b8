package compact

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// modelRecord is a record as it was written, and whether it should be there.
type modelRecord struct {
	rec

	there bool
}

// modelTxn is a transaction.
type modelTxn struct {
	producer int64
	first    record.Offset
	marker   record.Offset // -1: it is open
	aborted  bool
}

// modelBatch is a batch as it was written, and what should be left of it.
type modelBatch struct {
	base, last record.Offset
	producer   int64 // 0: none
	seq        int32
	control    bool
	txn        *modelTxn // nil: none
	records    []modelRecord
	horizon    int64 // 0: none
	there      bool
}

// modelSegment is a segment of the log under test.
type modelSegment struct {
	base  record.Offset
	data  []byte
	index []Aborted
}

// logModel is a log that is compacted, and the naive model of it, which knows all records that were ever written.
type logModel struct {
	first     record.Offset // the first dirty offset of the present round
	t         *rapid.T
	now       int64
	retention int64
	end       record.Offset
	cleaned   record.Offset
	segments  []modelSegment // the last one is active
	batches   []*modelBatch
	open      map[int64]*modelTxn
	txns      []*modelTxn
	seqs      map[int64]int32
	known     map[int64]bool // the producers that the log knows
}

// consumer reads the log from its start, at read_committed.
type consumer struct {
	began int64
	next  record.Offset
	state map[string]string
}

func newLogModel(t *rapid.T) *logModel {
	return &logModel{
		t: t, now: 1000, retention: int64(rapid.IntRange(0, 60).Draw(t, "retention")), cleaned: NoRound,
		segments: []modelSegment{{}}, open: map[int64]*modelTxn{}, seqs: map[int64]int32{}, known: map[int64]bool{},
	}
}

// TestRoundsAgainstAModel writes logs with transactions, tombstones and producers, compacts them in many rounds with
// maps of several sizes while they grow, and compares all that is left with a naive model after each round.
// Consumers that read meanwhile, and need less than delete.retention.ms, must end with the true state.
func TestRoundsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLogModel(t)
		var readers []*consumer
		for range rapid.IntRange(2, 8).Draw(t, "steps") {
			for range rapid.IntRange(1, 12).Draw(t, "batches") {
				l.write()
			}
			l.segments = append(l.segments, modelSegment{base: l.end})
			readers = append(readers, &consumer{began: l.now, state: map[string]string{}})
			for _, c := range readers {
				l.read(c, rapid.IntRange(0, 20).Draw(t, "read"))
			}
			l.now += int64(rapid.IntRange(0, 40).Draw(t, "ms"))
			l.compact(rapid.SampledFrom([]int64{MinMapBytes, 1 << 20}).Draw(t, "map"))
			l.checkInTime(readers)
		}
	})
}

// checkInTime proves that each consumer that is in time ends with the true state if it reads the rest now.
func (l *logModel) checkInTime(readers []*consumer) {
	for _, c := range readers {
		if l.now >= c.began+l.retention {
			continue
		}
		rest := &consumer{next: c.next, state: maps.Clone(c.state)}
		if l.read(rest, 1<<30); !maps.Equal(rest.state, l.replay()) {
			l.t.Fatalf("a consumer that began at %d has %v at %d, and not %v", c.began, rest.state, l.now, l.replay())
		}
	}
}

// write appends a batch, and a marker now and then.
func (l *logModel) write() {
	t := l.t
	producer := int64(rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(t, "producer")) // 2 and 3 are transactional
	if txn := l.open[producer]; txn != nil && rapid.Bool().Draw(t, "end") {
		txn.marker, txn.aborted = l.end, rapid.Bool().Draw(t, "abort")
		l.append(makeMarker(t, l.end, producer, !txn.aborted), &modelBatch{control: true, txn: txn, producer: producer})
		if txn.aborted {
			s := &l.segments[len(l.segments)-1]
			s.index = append(s.index, Aborted{Producer: producer, First: txn.first, Last: txn.marker, LastStable: l.stable()})
		}
		delete(l.open, producer)
		return
	}
	m := &modelBatch{producer: producer, seq: l.seqs[producer]}
	if producer >= 2 {
		if l.open[producer] == nil {
			l.open[producer] = &modelTxn{producer: producer, first: l.end, marker: -1}
			l.txns = append(l.txns, l.open[producer])
		}
		m.txn = l.open[producer]
	}
	s := shape{
		codec: record.Codec(rapid.IntRange(0, 4).Draw(t, "codec")), producer: producer, seq: m.seq, transactional: m.txn != nil,
		appendTime: rapid.SampledFrom([]int64{0, 0, 4321}).Draw(t, "append time"),
	}
	var recs []rec
	for range rapid.IntRange(1, 5).Draw(t, "records") {
		key := fmt.Sprintf("k%d", rapid.IntRange(0, 80).Draw(t, "key"))
		if key == "k0" {
			key = "-"
		}
		value := "-"
		if rapid.IntRange(0, 2).Draw(t, "tombstone") > 0 {
			value = fmt.Sprintf("v%d", l.end+record.Offset(len(recs)))
		}
		r := of(key, value)
		r.ms = int64(rapid.IntRange(-1, 3000).Draw(t, "ms"))
		recs = append(recs, r)
	}
	l.append(makeBatch(t, l.end, s, recs...), m)
	if producer > 0 {
		l.seqs[producer] = m.seq + int32(len(recs))
		l.known[producer] = rapid.IntRange(0, 9).Draw(t, "known") > 0
	}
}

func (l *logModel) append(b record.Batch, m *modelBatch) {
	m.base, m.last, m.there = b.BaseOffset(), b.LastOffset(), true
	for _, r := range readBatch(l.t, b) {
		m.records = append(m.records, modelRecord{r, true})
	}
	l.batches = append(l.batches, m)
	s := &l.segments[len(l.segments)-1]
	s.data = append(s.data, b...)
	l.end = b.NextOffset()
}

// stable is the last stable offset.
func (l *logModel) stable() record.Offset {
	at := l.end
	for _, txn := range l.open {
		at = min(at, txn.first)
	}
	return at
}

// plan is the log as a plan sees it.
func (l *logModel) plan() *Log {
	p := &Log{End: l.end, LastStable: l.stable(), HighWatermark: l.end, Cleaned: l.cleaned, Config: Config{
		DirtyRatio: 0, SegmentBytes: 2000, IndexBytes: 1 << 20,
	}}
	for _, s := range l.segments {
		p.Segments = append(p.Segments, Segment{Base: s.base, Bytes: int64(len(s.data))})
	}
	return p
}

// aborted is what the indexes of all segments have for the offsets from one on and below another one.
func (l *logModel) aborted(from, to record.Offset) []Aborted {
	var out []Aborted
	for _, s := range l.segments {
		for _, a := range s.index {
			if a.Last >= from && a.First < to {
				out = append(out, a)
			}
		}
	}
	return out
}

// compact makes a round, twice: the second one must change nothing.
func (l *logModel) compact(mapBytes int64) {
	t := l.t
	plan := l.plan()
	r := plan.PlanRound(l.now)
	if r.Dirty == 0 {
		return
	}
	m, err := NewMap(mapBytes)
	if err != nil {
		t.Fatal(err)
	}
	x := NewIndexer(m, r.First, l.aborted(r.First, r.Upper))
	full := false
	for _, s := range l.segments {
		for _, b := range splitBatches(t, s.data) {
			if b.NextOffset() <= r.First || b.BaseOffset() >= r.Upper || full {
				continue
			}
			if full, err = x.AddBatch(t.Context(), nil, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	x.Finish(r.Upper)
	if m.End() <= r.First && r.Upper > r.First || m.End() > r.Upper || !full && m.End() != r.Upper {
		t.Fatalf("the map ends at %d; the dirty part is from %d to %d", m.End(), r.First, r.Upper)
	}
	producers := l.producers()
	l.first = r.First
	want := l.expect(r.First, m.End(), r.Upper, producers)
	l.rewrite(plan, m, r.Upper, producers, want)
	l.check(r.Upper)
	before := l.allBytes()
	l.rewriteAgain(m, r.Upper, producers)
	if !bytes.Equal(before, l.allBytes()) {
		t.Fatal("the same round changes the log again")
	}
	l.cleaned = m.End()
}

func (l *logModel) allBytes() []byte {
	var all []byte
	for _, s := range l.segments {
		all = append(all, s.data...)
	}
	return all
}

// producers is what the log knows of its producers.
func (l *logModel) producers() map[int64]LastOfProducer {
	out := map[int64]LastOfProducer{}
	for _, b := range l.batches {
		if !b.control && l.known[b.producer] && b.producer > 0 {
			out[b.producer] = LastOfProducer{Data: b.last}
		}
	}
	return out
}

// rewrite makes new segments of the groups. want has the transactions whose entries must be left.
func (l *logModel) rewrite(plan *Log, m *Map, upper record.Offset, producers map[int64]LastOfProducer, want []Aborted) {
	t := l.t
	f := NewFilter(Rules{Map: m, First: l.first, Upper: upper, Now: l.now, Retention: l.retention, Producers: producers})
	var segments []modelSegment
	var index []Aborted
	n := 0
	for _, group := range plan.GroupSegments(m.End()) {
		next := modelSegment{base: group[0].Base}
		for range group {
			s := l.segments[n]
			n++
			f.AddAborted(l.aborted(s.base, l.segments[n].base))
			for _, b := range splitBatches(t, s.data) {
				v, err := f.Judge(t.Context(), nil, b)
				if err != nil {
					t.Fatal(err)
				}
				if next.data, err = f.AppendTo(t.Context(), nil, next.data, b, &v); err != nil {
					t.Fatal(err)
				}
			}
		}
		next.index = f.TakeAborted()
		index = append(index, next.index...)
		segments = append(segments, next)
	}
	want = slices.DeleteFunc(want, func(a Aborted) bool { return a.Last >= l.segments[n].base })
	less := func(a, b Aborted) int { return cmp.Compare(a.Last, b.Last) }
	if slices.SortFunc(want, less); !slices.IsSortedFunc(index, less) || !slices.EqualFunc(index, want, func(a, b Aborted) bool {
		return a.Producer == b.Producer && a.First == b.First && a.Last == b.Last
	}) {
		t.Fatalf("the index has %v, and should have %v", index, want)
	}
	l.segments = append(segments, l.segments[n:]...)
}

// rewriteAgain judges the clean segments once more by the same rules. No second plan is made, since the model
// would have to make the round of the markers, too: their transactions were read until now.
func (l *logModel) rewriteAgain(m *Map, upper record.Offset, producers map[int64]LastOfProducer) {
	t := l.t
	f := NewFilter(Rules{Map: m, First: l.first, Upper: upper, Now: l.now, Retention: l.retention, Producers: producers, Aborted: l.aborted(0, upper)})
	for i := range l.segments[:len(l.segments)-1] {
		s := &l.segments[i]
		if s.base >= m.End() {
			break
		}
		var again []byte
		for _, b := range splitBatches(t, s.data) {
			v, err := f.Judge(t.Context(), nil, b)
			if err != nil {
				t.Fatal(err)
			}
			horizon, ok := b.DeleteHorizon()
			if b.Control() || ok && horizon <= l.now { // a marker may get its horizon now; with a retention of 0 tombstones go
				again = append(again, b...)
				continue
			}
			if v.Action == Change || v.Action == Drop {
				t.Fatalf("batch %d-%d is changed by the same rules again: %+v", b.BaseOffset(), b.LastOffset(), v)
			}
			if again, err = f.AppendTo(t.Context(), nil, again, b, &v); err != nil {
				t.Fatal(err)
			}
		}
		s.data = again
	}
}

// expect makes the round in the model: the dirty part is from first on and below upper, and the map ends at end. It returns
// the aborted transactions below upper of which a batch was read.
func (l *logModel) expect(first, end, upper record.Offset, producers map[int64]LastOfProducer) (read []Aborted) {
	latest := map[string]record.Offset{}
	for _, b := range l.batches {
		for _, r := range b.records {
			if b.there && r.there && !b.control && r.key != nil && r.offset >= first && r.offset < end && (b.txn == nil || !b.txn.aborted) {
				latest[string(r.key)] = r.offset
			}
		}
	}
	limit := upper // the segments from here on are not rewritten
	for _, s := range l.segments {
		if s.base >= end {
			limit = min(limit, s.base)
		}
	}
	readTxns := map[*modelTxn]bool{}
	for _, b := range l.batches {
		if !b.there || b.base >= limit {
			continue
		}
		if b.control {
			l.expectMarker(b, readTxns[b.txn], upper)
			continue
		}
		readTxns[b.txn] = true
		l.expectBatch(b, end, upper, latest, producers)
	}
	for _, txn := range l.txns {
		if txn.aborted && readTxns[txn] {
			read = append(read, Aborted{Producer: txn.producer, First: txn.first, Last: txn.marker})
		}
	}
	return read
}

func (l *logModel) expectMarker(b *modelBatch, read bool, upper record.Offset) {
	switch {
	case read || len(b.records) == 0 || !b.records[0].there:
		if len(b.records) > 0 && !b.records[0].there {
			b.there = b.last+1 == upper
		}
	case b.horizon == 0:
		b.horizon = l.now + l.retention
	case b.horizon <= l.now:
		b.records[0].there = false
		b.horizon = 0
		b.there = b.last+1 == upper
	}
}

func (l *logModel) expectBatch(b *modelBatch, end, upper record.Offset, latest map[string]record.Offset, producers map[int64]LastOfProducer) {
	tombstones, early, left := false, false, 0
	for i := range b.records {
		r := &b.records[i]
		if !r.there {
			continue
		}
		if b.txn != nil && b.txn.aborted {
			r.there = false
		} else if r.offset < end {
			at, ok := latest[string(r.key)]
			expired := r.value == nil && b.horizon != 0 && b.horizon <= l.now
			r.there = r.key != nil && (!ok || at == r.offset) && !expired
		}
		if r.there {
			left++
			tombstones = tombstones || r.value == nil && r.offset < end
			early = early || r.value == nil && r.offset >= end
		}
	}
	if b.horizon == 0 && tombstones && !early {
		b.horizon = l.now + l.retention
	}
	if left == 0 {
		b.horizon = 0
		last, ok := producers[b.producer]
		b.there = b.last+1 == upper || ok && last.Data == b.last
	}
}

// check compares the log with the model.
func (l *logModel) check(upper record.Offset) {
	t := l.t
	var want []*modelBatch
	for _, b := range l.batches {
		if b.there {
			want = append(want, b)
		}
	}
	got := splitBatches(t, l.allBytes())
	if len(got) != len(want) {
		t.Fatalf("%d batches are left, and should be %d: %q", len(got), len(want), show(t, got))
	}
	sawEnd := false
	for i, b := range got {
		w := want[i]
		var recs []rec
		for _, r := range w.records {
			if r.there {
				recs = append(recs, r.rec)
			}
		}
		left := readBatch(t, b)
		if !slices.EqualFunc(left, recs, sameRecord) {
			t.Fatalf("batch %d-%d has %v, and should have %v", w.base, w.last, left, recs)
		}
		horizon, _ := b.DeleteHorizon()
		producer := w.producer
		if producer == 0 {
			producer = record.NoProducer
		}
		if b.BaseOffset() != w.base || b.LastOffset() != w.last || horizon != w.horizon || b.ProducerID() != producer ||
			b.Control() != w.control || b.Transactional() != (w.txn != nil) || b.LeaderEpoch() != 3 {
			t.Fatalf("batch %d-%d with horizon %d is %d-%d, horizon %d: %x", w.base, w.last, w.horizon, b.BaseOffset(), b.LastOffset(), horizon, b[:record.HeaderLen])
		}
		if !w.control && w.producer > 0 && b.BaseSequence() != w.seq {
			t.Fatalf("batch %d-%d has sequence %d, not %d", w.base, w.last, b.BaseSequence(), w.seq)
		}
		sawEnd = sawEnd || b.NextOffset() == upper
	}
	if !sawEnd {
		t.Fatalf("no batch ends at %d, where the round ends", upper)
	}
	c := &consumer{state: map[string]string{}}
	if l.read(c, 1<<30); !maps.Equal(c.state, l.replay()) {
		t.Fatalf("the log says %v, and was written as %v", c.state, l.replay())
	}
}

// read has a consumer read some batches, up to the last stable offset.
func (l *logModel) read(c *consumer, batches int) {
	for _, b := range splitBatches(l.t, l.allBytes()) {
		if batches == 0 || b.BaseOffset() >= l.stable() {
			return
		}
		if b.NextOffset() <= c.next {
			continue
		}
		batches--
		c.next = b.NextOffset()
		if b.Control() || b.Transactional() && l.isAborted(b) {
			continue
		}
		for _, r := range readBatch(l.t, b) {
			apply(c.state, r)
		}
	}
}

// isAborted tells by the indexes whether a batch belongs to an aborted transaction.
func (l *logModel) isAborted(b record.Batch) bool {
	return slices.ContainsFunc(l.aborted(b.BaseOffset(), b.NextOffset()), func(a Aborted) bool { return a.Producer == b.ProducerID() })
}

// replay is the true state: all that was ever written below the last stable offset.
func (l *logModel) replay() map[string]string {
	state := map[string]string{}
	for _, b := range l.batches {
		if b.control || b.base >= l.stable() || b.txn != nil && b.txn.aborted {
			continue
		}
		for _, r := range b.records {
			apply(state, r.rec)
		}
	}
	return state
}

func apply(state map[string]string, r rec) {
	switch {
	case r.key == nil:
	case r.value == nil:
		delete(state, string(r.key))
	default:
		state[string(r.key)] = string(r.value)
	}
}
