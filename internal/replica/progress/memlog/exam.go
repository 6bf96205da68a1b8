package memlog

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

// Writing is what a replica changes in its log. The methods do what those of storage.Log of the
// same names do.
type Writing interface {
	Append(epoch record.Epoch, values ...uint64) error
	AppendAt(at record.Offset, entries ...Entry) error
	BeginEpoch(e record.Epoch) error
	Truncate(to record.Offset) error
	Cut(number int32, to record.Offset) error
	SetStart(to record.Offset) error
	SetHighWatermark(o record.Offset)
	Commit()
}

// Reading is what a replica asks its log.
type Reading interface {
	Start() record.Offset
	End() record.Offset
	Committed() record.Offset
	HighWatermark() record.Offset
	CutNumber() int32
	EpochEnd(e record.Epoch) (record.Epoch, record.Offset)
	EpochAt(o record.Offset) record.Epoch
	Read(from record.Offset, n int) ([]Entry, error)
}

// Examined is a log that Exam and RunScript examine.
type Examined interface {
	Writing
	Reading
	// Configure sets whether records are committed before they are durable, from the next append on.
	Configure(pageCache bool)
	// Clear drops all records and has the log begin at an offset. The log keeps the number of its last cut.
	Clear(start record.Offset) error
	// Restart ends the log's node in order, and starts it again.
	Restart()
	// Lose has the log's node crash at once, so that of the records that are not durable any
	// number of the last ones may be lost, and start again.
	Lose(rng *rand.Rand)
}

// Exam proves that an empty log does what Log does, over many random operations, restarts and crashes.
// The error says which operation had another result.
func Exam(log Examined, seed uint64, operations int) error {
	x := newExam(log, seed)
	for i := range operations {
		did, err := x.doNext()
		if err == nil {
			err = x.compare()
		}
		if err != nil {
			return fmt.Errorf("seed %d, operation %d, %s: %w", seed, i, did, err)
		}
	}
	return nil
}

// exam is an exam that is under way.
type exam struct {
	rng   *rand.Rand
	log   Examined
	model *Log
	value uint64
	// epoch is the last epoch that was used, and ended the last one that may have begun without
	// records before a crash: it is not known whether the log still knows it.
	epoch, ended record.Epoch
}

func newExam(log Examined, seed uint64) *exam {
	return &exam{rng: rand.New(rand.NewPCG(seed, 0xe8a)), log: log, model: New(false), ended: record.NoEpoch}
}

// doNext does one operation with the log and the model.
func (x *exam) doNext() (string, error) {
	m := x.model
	within := m.Start() + record.Offset(x.rng.IntN(int(m.End()-m.Start())+1))
	switch x.rng.IntN(31) {
	case 0, 1, 2, 3, 4, 5:
		values := x.values()
		return fmt.Sprintf("append %d in epoch %d", len(values), x.epoch),
			sameError(x.log.Append(x.epoch, values...), m.Append(x.epoch, values...))
	case 6, 7, 8, 9:
		var entries []Entry
		at, last := m.End(), m.EpochAt(m.End()-1)
		if at == m.Start() {
			last = m.before
		}
		x.epoch += record.Epoch(x.rng.IntN(2))
		for _, v := range x.values() { // also of an earlier epoch than one that has begun without records
			last = max(last, x.epoch-record.Epoch(x.rng.IntN(3)), 0)
			entries = append(entries, Entry{last, v})
		}
		return fmt.Sprintf("append %v at %d", entries, at), sameError(x.log.AppendAt(at, entries...), m.AppendAt(at, entries...))
	case 10, 11:
		x.epoch += 1 + record.Epoch(x.rng.IntN(2))
		return fmt.Sprintf("begin epoch %d", x.epoch), sameError(x.log.BeginEpoch(x.epoch), m.BeginEpoch(x.epoch))
	case 12, 13, 14, 15, 16:
		x.log.Commit()
		m.Commit()
		return "commit", nil
	case 17, 18, 19:
		to := max(within, m.End()-4) // a short cut more often than a long one
		return fmt.Sprintf("truncate to %d", to), x.truncate(to)
	case 20, 21:
		return x.moveStart(min(within, m.Start()+3))
	case 22, 23:
		hw := max(m.HighWatermark(), min(within, m.Committed()))
		x.log.SetHighWatermark(hw)
		m.SetHighWatermark(hw)
		return fmt.Sprintf("high watermark %d", hw), nil
	case 24:
		pageCache := x.rng.IntN(2) == 0
		x.log.Configure(pageCache)
		m.Configure(pageCache)
		return fmt.Sprintf("page cache %v", pageCache), nil
	case 25:
		if x.rng.IntN(3) > 0 {
			return "nothing", nil
		}
		to := m.End() + record.Offset(x.rng.IntN(5))
		return fmt.Sprintf("begin anew at %d", to), x.clear(to)
	case 26:
		return "restart", x.restart()
	case 30:
		return x.cut()
	default:
		return "crash", x.crash()
	}
}

func (x *exam) values() []uint64 {
	values := make([]uint64, 1+x.rng.IntN(3))
	for i := range values {
		x.value++
		values[i] = x.value
	}
	return values
}

func (x *exam) truncate(to record.Offset) error {
	x.ended = record.NoEpoch
	return sameError(x.log.Truncate(to), x.model.Truncate(to))
}

// cut cuts the log somewhere, also below its start and beyond its end, and sometimes by a number that it has.
func (x *exam) cut() (string, error) {
	m := x.model
	number := max(m.CutNumber()+int32(x.rng.IntN(3)), 1)
	to := max(m.End()-record.Offset(x.rng.IntN(8)), 0)
	if x.rng.IntN(4) == 0 {
		to = record.Offset(x.rng.IntN(int(m.End()) + 3))
	}
	x.ended = record.NoEpoch
	return fmt.Sprintf("cut %d to %d", number, to), sameError(x.log.Cut(number, to), m.Cut(number, to))
}

func (x *exam) clear(to record.Offset) error {
	x.ended = record.NoEpoch
	if err := sameError(x.log.Clear(to), x.model.Clear(to)); err != nil {
		return err
	}
	return x.takeHighWatermark(to)
}

// moveStart moves the start, after it has made the records below it durable.
func (x *exam) moveStart(to record.Offset) (string, error) {
	if !x.model.PageCache() {
		x.log.Commit()
		x.model.Commit()
	}
	return fmt.Sprintf("start at %d", to), sameError(x.log.SetStart(to), x.model.SetStart(to))
}

// restart restarts the log's node in order.
func (x *exam) restart() error {
	m := x.model
	x.ended = max(x.ended, m.begun)
	x.log.Restart()
	m.Restart()
	return x.takeHighWatermark(m.HighWatermark())
}

// crash crashes the log, and the model so that it keeps as many records.
func (x *exam) crash() error {
	m := x.model
	x.ended = max(x.ended, m.begun)
	x.log.Lose(x.rng)
	end := x.log.End()
	if end < m.Durable() || end > m.End() {
		return fmt.Errorf("it ends at %d, %d was durable and %d was its end", end, m.Durable(), m.End())
	}
	most := m.HighWatermark()
	m.Crash(int(end - m.Durable()))
	return x.takeHighWatermark(most)
}

// takeHighWatermark takes the high watermark that the log has after a restart, or when it has begun anew.
// How old it may be is not examined.
func (x *exam) takeHighWatermark(most record.Offset) error {
	m, hw := x.model, x.log.HighWatermark()
	if hw > max(most, m.Start()) || hw > m.End() {
		return fmt.Errorf("its high watermark is %d, it was %d and the end is %d", hw, most, m.End())
	}
	m.SetHighWatermark(hw)
	return nil
}

// compare compares all that can be asked.
func (x *exam) compare() error {
	m, l := x.model, x.log
	committed := l.Committed()
	if committed > m.Committed() && committed <= m.End() {
		m.CommitTo(committed) // a log may commit earlier than it was asked to
	}
	got := []record.Offset{l.Start(), l.End(), committed, l.HighWatermark()}
	want := []record.Offset{m.Start(), m.End(), m.Committed(), m.HighWatermark()}
	if !slices.Equal(got, want) {
		return fmt.Errorf("start, end, committed end and high watermark are %v, want %v", got, want)
	}
	if l.CutNumber() != m.CutNumber() {
		return fmt.Errorf("the number of its last cut is %d, want %d", l.CutNumber(), m.CutNumber())
	}
	es, err := l.Read(m.Start(), len(m.entries))
	if err != nil || !slices.Equal(es, m.entries) {
		return fmt.Errorf("it has %v, want %v: %w", es, m.entries, err)
	}
	for o := range m.End() {
		if e := l.EpochAt(o); o >= m.Start() && e != m.EpochAt(o) {
			return fmt.Errorf("the epoch at %d is %d, want %d", o, e, m.EpochAt(o))
		}
	}
	return x.compareTails()
}

// compareTails compares where epochs end.
func (x *exam) compareTails() error {
	m := x.model
	last := m.lastEpoch()
	for e := range last + 2 {
		if len(m.entries) == 0 || e > last && x.ended >= e {
			continue // what is left of an epoch without records is not examined
		}
		gotEpoch, gotEnd := x.log.EpochEnd(e)
		if wantEpoch, wantEnd := m.EpochEnd(e); gotEpoch != wantEpoch || gotEnd != wantEnd {
			return fmt.Errorf("epoch %d ends with %d at %d, want %d at %d", e, gotEpoch, gotEnd, wantEpoch, wantEnd)
		}
	}
	return nil
}

func sameError(got, want error) error {
	if (got == nil) != (want == nil) {
		return fmt.Errorf("the error is %w, want %w", got, want)
	}
	return nil
}

// Lose is Crash with a random number of records that stay.
func (l *Log) Lose(rng *rand.Rand) { l.Crash(rng.IntN(int(l.end()-l.durable) + 1)) }

// Restart ends the log in order and opens it again. An epoch without records is forgotten.
func (l *Log) Restart() {
	l.Close()
	l.Crash(0)
}
