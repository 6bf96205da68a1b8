package storage

import (
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
)

// modelCuts is a test's knowledge of the cuts of one log.
type modelCuts struct {
	cutNumber    int32       // of the last cut that was made
	cut          *modelCut   // that was begun and is not made; nil: there is none
	tails        []modelTail // that must be there
	discarding   int32       // the cut whose tail may be gone; 0: none is
	areTailsGone bool        // nothing is known of them
	// sureSent is how many of the producer's first batches the log need not know: when it was cut, they were not among its last ones.
	sureSent int
}

// modelCut is a cut that is to be made.
type modelCut struct {
	number int32
	to     record.Offset
	end    record.Offset // where the log ends when it was made
	tail   *modelTail    // what is kept of the log as it was when it had all of that last; nil: nothing lay beyond
	// committed and sure are those of the log then. A crash may take the records beyond them from the log, before they are kept.
	committed, sure record.Offset
	mayLackTail     bool
	sent            int // batches of the producer, before the cut
}

// modelTail is what a tail must have.
type modelTail struct {
	number  int32
	from    record.Offset // all records from here on are in it
	records []int64       // by offset, of the log before the cut
	epochs  []record.Epoch
	gone    map[record.Offset]bool
}

func (c *modelCuts) clone() modelCuts {
	d := *c
	d.tails = slices.Clone(c.tails)
	if c.cut != nil {
		one := *c.cut
		d.cut = &one
	}
	return d
}

// stepCuts goes on with a cut that was begun, or does one random thing with cuts. It returns false if there is nothing to do.
func (w *world) stepCuts(i int) bool {
	m := w.model[i]
	switch p := w.rng.IntN(100); {
	case m.cut != nil:
		w.makeCut(i)
	case p < 8:
		w.beginCut(i)
	case p < 10:
		w.discardTail(i)
	case p < 12:
		w.cutAgain(i)
	default:
		return false
	}
	return true
}

// pickMirrorEpoch is the epoch in which batches are appended as a mirror does. After a cut it may be lower than those that were cut.
func (w *world) pickMirrorEpoch(m *modelLog) record.Epoch {
	if !w.cuts || len(m.epochs) == 0 {
		return w.epoch
	}
	last := m.epochs[len(m.epochs)-1]
	return last + record.Epoch(w.rng.IntN(int(max(w.epoch-last, 0))+1))
}

// beginCut begins a cut of the i-th log somewhere: among its records, beyond its end, or below its start.
func (w *world) beginCut(i int) {
	m, l := w.model[i], w.logs[i]
	if !w.letLeave(i) {
		return
	}
	start, err := l.Start()
	if err != nil || start > m.written || l.Fault() != nil {
		return
	}
	to := start + record.Offset(w.rng.Int64N(int64(m.written-start)+3))
	switch w.rng.IntN(6) {
	case 0:
		to = record.Offset(w.rng.Int64N(int64(start) + 1))
	case 1, 2:
		to = max(to, m.committed-5)
	}
	end := w.endOfCut(m, l, start, to)
	w.mu.Lock()
	m.cut = &modelCut{number: m.cutNumber + 1 + int32(w.rng.IntN(3)), to: to, end: end, sent: len(m.sent)}
	w.mu.Unlock()
	w.makeCut(i)
}

// endOfCut is where a log ends that is cut at an offset: a batch goes as a whole.
func (w *world) endOfCut(m *modelLog, l *Log, start, to record.Offset) record.Offset {
	end := min(to, m.written)
	for end > start && end < m.written && m.records[end] != noRecord && sameBatch(w.tb, l, end) {
		end--
	}
	return end
}

// replaceCut replaces the cut of the i-th log that was to be made by a later one at a lower offset, as the metadata may have it when a node comes
// back. What the log has lost by the earlier one stays kept.
func (w *world) replaceCut(i int) {
	m, l, c := w.model[i], w.logs[i], w.model[i].cut
	start, err := l.Start()
	number, failed := l.CutNumber()
	if err != nil || failed != nil || l.Fault() != nil || number >= c.number {
		return // it was made
	}
	end, _ := l.End()
	to := record.Offset(w.rng.Int64N(int64(c.to) + 1))
	cutEnd := w.endOfCut(m, l, start, to)
	isKept := hasTail(l, c.number)
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.tail != nil && end <= c.end {
		if !isKept && !c.mayLackTail {
			w.tb.Errorf("log %d, which ends at %d, lacks the tail of cut %d", i, end, c.number)
		}
		if isKept {
			m.tails = append(m.tails, *c.tail)
		}
	}
	m.cut = &modelCut{number: c.number + 1, to: to, end: cutEnd, sent: c.sent}
}

// makeCut makes the cut that was begun of the i-th log.
func (w *world) makeCut(i int) {
	m, l, c := w.model[i], w.logs[i], w.model[i].cut
	start, err := l.Start()
	if err != nil || l.Fault() != nil {
		if !w.sick {
			w.tb.Fatalf("log %d cannot be cut: %v, %v", i, err, l.Fault())
		}
		return
	}
	end, _ := l.End()
	w.mu.Lock()
	if from := max(start, c.end); end > from && (c.to < end) {
		c.committed, c.sure, c.mayLackTail = m.committed, m.sure, false
		c.tail = &modelTail{number: c.number, from: from, records: slices.Clone(m.records[:end]), epochs: slices.Clone(m.epochs[:end]), gone: maps.Clone(m.gone)}
	}
	m.committed, m.sure, m.highKept, m.cutting = min(m.committed, c.end), min(m.sure, c.end), min(m.highKept, c.end), c.end
	if c.to < start {
		m.asked = max(m.asked, start)
		m.start, m.acked = min(m.start, c.to), min(m.acked, c.to)
	}
	w.mu.Unlock()
	if err := l.Cut(c.number, c.to); err != nil {
		if !w.sick {
			w.tb.Fatalf("log %d: Cut(%d, %d): %v", i, c.number, c.to, err)
		}
		return
	}
	w.endCut(i, start)
}

// endCut takes that the cut was made of the i-th log, which began at an offset before.
func (w *world) endCut(i int, start record.Offset) {
	m, l := w.model[i], w.logs[i]
	end, err := l.End()
	if err != nil {
		w.tb.Fatal(err)
	}
	c := m.cut
	isKept := c.tail != nil && (!c.mayLackTail || hasTail(l, c.number))
	w.mu.Lock()
	if end > max(c.end, min(start, c.to)) && c.to < m.written && (c.to >= start && end > max(c.to, start)) {
		w.tb.Errorf("log %d was cut to %d and ends at %d", i, c.to, end)
	}
	if c.to < start {
		if end != c.to {
			w.tb.Errorf("log %d was cut to %d, below its start at %d, and ends at %d", i, c.to, start, end)
		}
		m.cutAt(end)
		m.start, m.acked, m.asked, m.committed, m.sure = end, end, end, end, end
		m.txns, m.sent = nil, nil
	} else {
		m.cutAt(min(end, record.Offset(len(m.records))))
	}
	if isKept {
		m.tails = append(m.tails, *c.tail)
	}
	m.sureSent = min(max(m.sureSent, c.sent-producer.KeptBatches), len(m.sent))
	m.cutNumber, m.cut, m.cutting = c.number, nil, -1
	w.mu.Unlock()
	w.compareTails(i, m, l)
	if m.compacts && c.sent-len(m.sent) >= producer.KeptBatches { // a log does not know what a producer had sent before, if its batches have gone
		w.recreate(i, false)
	}
}

// cutAgain makes cuts of the i-th log whose numbers it has, which do nothing.
func (w *world) cutAgain(i int) {
	m, l := w.model[i], w.logs[i]
	end, err := l.End()
	if err != nil || m.cutNumber == 0 {
		return
	}
	if err := l.Cut(m.cutNumber-int32(w.rng.IntN(2)), 0); err != nil && !w.sick {
		w.tb.Fatalf("log %d: a cut that it has made: %v", i, err)
	}
	if now, err := l.End(); err == nil && now != end {
		w.tb.Fatalf("log %d ended at %d, and ends at %d after cut %d once more", i, end, now, m.cutNumber)
	}
}

// discardTail discards a tail of the i-th log.
func (w *world) discardTail(i int) {
	m, l := w.model[i], w.logs[i]
	if len(m.tails) == 0 {
		return
	}
	k := w.rng.IntN(len(m.tails))
	w.mu.Lock()
	m.discarding = m.tails[k].number
	w.mu.Unlock()
	err := DiscardTail(l, m.discarding)
	if err != nil && !w.sick {
		w.tb.Fatalf("log %d: discarding the tail of cut %d: %v", i, m.discarding, err)
	}
	if err == nil || errors.Is(err, ErrNoTail) {
		w.mu.Lock()
		m.tails, m.discarding = slices.Delete(slices.Clone(m.tails), k, k+1), 0
		w.mu.Unlock()
	}
}

// compareTails compares the number of a log's last cut, and its tails, with the model.
func (w *world) compareTails(i int, m *modelLog, l *Log) {
	if !w.cuts || m.areTailsGone || m.deleted != nil { // of a deleted log that has nothing, too, a crash may undo the deletion
		return
	}
	number, err := l.CutNumber()
	if err != nil && w.sick {
		return
	}
	isMade := m.cut != nil && number == m.cut.number // a crash came before that was told
	if err != nil || number != m.cutNumber && !isMade {
		w.tb.Fatalf("log %d has the number %d, want %d (%+v): %v", i, number, m.cutNumber, m.cut, err)
	}
	if end, _ := l.End(); isMade && end > m.cut.end {
		w.tb.Fatalf("log %d has the number %d and ends at %d", i, number, end)
	}
	list, err := Tails(l)
	if err != nil && w.sick {
		return
	}
	if err != nil {
		w.tb.Fatalf("log %d: %v", i, err)
	}
	want := m.tails
	if isMade && m.cut.tail != nil && (!m.cut.mayLackTail || hasTail(l, number)) {
		want = append(slices.Clone(want), *m.cut.tail)
	}
	for k := range want {
		at := slices.IndexFunc(list, func(t Tail) bool { return t.Number == want[k].number })
		if at < 0 && want[k].number == m.discarding {
			continue
		}
		if at < 0 {
			w.tb.Fatalf("log %d lacks the tail of cut %d: %+v", i, want[k].number, list)
		}
		w.compareTail(i, l, &want[k], &list[at])
		list = slices.Delete(list, at, at+1)
	}
	if len(list) > 0 {
		w.tb.Fatalf("log %d has the tails %+v, which it should not have", i, list)
	}
}

// hasTail tells whether a log has a tail of a cut.
func hasTail(l *Log, number int32) bool {
	list, _ := listTails(l.s, l.id)
	return slices.ContainsFunc(list, func(t Tail) bool { return t.Number == number })
}

// survive takes that a crash came while a cut was to be made: what was not committed for sure may be neither in the log nor in the tail.
func (c *modelCut) survive(end ending) {
	if c == nil || c.tail == nil {
		return
	}
	kept := c.sure
	if end == killed {
		kept = c.committed
	}
	for kept > c.tail.from && (c.tail.records[kept-1] == noRecord || c.tail.gone[kept-1]) {
		kept--
	}
	c.mayLackTail = c.mayLackTail || kept <= c.tail.from
}

func (w *world) compareTail(i int, l *Log, m *modelTail, tail *Tail) {
	r, err := OpenTail(l, m.number)
	if err != nil {
		if !w.sick {
			w.tb.Fatalf("log %d: the tail of cut %d: %v", i, m.number, err)
		}
		return
	}
	defer r.Close()
	seen, next := map[record.Offset]bool{}, tail.First
	for {
		b, err := r.Next(w.tb.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if !w.sick {
				w.tb.Fatalf("log %d: the tail of cut %d: %v", i, m.number, err)
			}
			return
		}
		if b.BaseOffset() < next || int(b.NextOffset()) > len(m.records) {
			w.tb.Fatalf("log %d: the tail of cut %d has the offsets %d to %d behind %d, and there were %d", i, m.number, b.BaseOffset(), b.LastOffset(), next, len(m.records))
		}
		for o, v := range w.numbersOf(b) {
			if seen[o] = true; m.records[o] != v || m.epochs[o] != b.LeaderEpoch() {
				w.tb.Fatalf("log %d: the tail of cut %d has record %d of epoch %d at %d, which was %d of epoch %d", i, m.number, v, b.LeaderEpoch(), o, m.records[o], m.epochs[o])
			}
		}
		next = b.NextOffset()
	}
	if next != tail.Last+1 {
		w.tb.Fatalf("log %d: the tail of cut %d ends at %d, and says at %d", i, m.number, next, tail.Last+1)
	}
	for o := m.from; int(o) < len(m.records); o++ {
		if m.records[o] != noRecord && !m.gone[o] && !seen[o] {
			w.tb.Fatalf("log %d: the tail of cut %d, from %d to %d, lacks record %d at %d", i, m.number, tail.First, tail.Last, m.records[o], o)
		}
	}
}

// retry sends the producer's last batches again: they must be known.
func (w *world) retry(i int, m *modelLog) {
	for _, x := range m.remembered() {
		if x.base < m.start {
			continue // it may have been forgotten with its records
		}
		it := appendOne(w.tb, w.logs[i], append(record.Batch(nil), x.b...))
		if it.Err != nil || !it.Dup || it.Base != x.base {
			w.tb.Fatalf("log %d: a retry of the batch at %d got %d, dup %v, err %v", i, x.base, it.Base, it.Dup, it.Err)
		}
	}
}
