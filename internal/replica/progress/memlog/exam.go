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
	EpochEnd(e record.Epoch) (record.Epoch, record.Offset)
	EpochAt(o record.Offset) record.Epoch
	Read(from record.Offset, n int) ([]Entry, error)
}

// Examined is a log that Exam examines. Its records are committed when they are durable.
type Examined interface {
	Writing
	Reading
	// Lose has the log's node crash at once, so that of the records that are not durable any
	// number of the last ones may be lost, and start again.
	Lose(rng *rand.Rand)
}

// Exam proves that an empty log does what Log does, over many random operations and crashes.
// The error says which operation had another result.
func Exam(log Examined, seed uint64, operations int) error {
	x := &exam{rng: rand.New(rand.NewPCG(seed, 0xe8a)), log: log, model: New(false), ended: record.NoEpoch}
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

// doNext does one operation with the log and the model.
func (x *exam) doNext() (string, error) {
	m := x.model
	within := m.Start() + record.Offset(x.rng.IntN(int(m.End()-m.Start())+1))
	switch x.rng.IntN(12) {
	case 0, 1, 2:
		values := x.values()
		return fmt.Sprintf("append %d in epoch %d", len(values), x.epoch),
			sameError(x.log.Append(x.epoch, values...), m.Append(x.epoch, values...))
	case 3, 4:
		var entries []Entry
		for _, v := range x.values() {
			x.epoch += record.Epoch(x.rng.IntN(2))
			entries = append(entries, Entry{max(x.epoch, m.lastEpoch()), v})
		}
		at := m.End()
		return fmt.Sprintf("append %v at %d", entries, at), sameError(x.log.AppendAt(at, entries...), m.AppendAt(at, entries...))
	case 5:
		x.epoch += 1 + record.Epoch(x.rng.IntN(2))
		return fmt.Sprintf("begin epoch %d", x.epoch), sameError(x.log.BeginEpoch(x.epoch), m.BeginEpoch(x.epoch))
	case 6, 7:
		x.log.Commit()
		m.Commit()
		return "commit", nil
	case 8:
		to := max(within, m.End()-4) // a short cut more often than a long one
		x.ended = record.NoEpoch
		return fmt.Sprintf("truncate to %d", to), sameError(x.log.Truncate(to), m.Truncate(to))
	case 9:
		to := min(within, m.Start()+3)
		x.log.Commit() // a start is not moved beyond what is durable
		m.Commit()
		return fmt.Sprintf("start at %d", to), sameError(x.log.SetStart(to), m.SetStart(to))
	case 10:
		hw := max(m.HighWatermark(), min(within, m.Committed()))
		x.log.SetHighWatermark(hw)
		m.SetHighWatermark(hw)
		return fmt.Sprintf("high watermark %d", hw), nil
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

// crash crashes the log, and the model so that it keeps as many records.
func (x *exam) crash() error {
	m := x.model
	x.ended = m.begun
	x.log.Lose(x.rng)
	end, hw := x.log.End(), x.log.HighWatermark()
	if end < m.Durable() || end > m.End() {
		return fmt.Errorf("it ends at %d, %d was durable and %d was its end", end, m.Durable(), m.End())
	}
	if hw > max(m.HighWatermark(), m.Start()) || hw > end {
		return fmt.Errorf("its high watermark is %d, it was %d and the end is %d", hw, m.HighWatermark(), end)
	}
	m.Crash(int(end - m.Durable()))
	m.SetHighWatermark(hw) // how old it may be is not examined
	return nil
}

// compare compares all that can be asked.
func (x *exam) compare() error {
	m, l := x.model, x.log
	committed := l.Committed()
	if committed > m.durable && committed <= m.End() {
		m.durable = committed // a log may commit earlier than it was asked to
	}
	got := []record.Offset{l.Start(), l.End(), committed, l.HighWatermark()}
	want := []record.Offset{m.Start(), m.End(), m.Committed(), m.HighWatermark()}
	if !slices.Equal(got, want) {
		return fmt.Errorf("start, end, committed end and high watermark are %v, want %v", got, want)
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
	last := m.lastEpoch()
	for e := range last + 2 {
		if len(m.entries) == 0 || e > last && x.ended >= e {
			continue // what is left of an epoch without records is not examined
		}
		gotEpoch, gotEnd := l.EpochEnd(e)
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
func (l *Log) Lose(rng *rand.Rand) { l.Crash(rng.IntN(len(l.entries) + 1)) }
