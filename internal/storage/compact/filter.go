package compact

import (
	"context"
	"errors"
	"math"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
)

// LastOfProducer is the last that a log knows of a producer.
type LastOfProducer struct {
	Data  record.Offset // of its last record, or of its last one below the round's Upper; negative if there is none, only a marker
	Epoch int16
}

// Rules are what a round needs to judge batches.
type Rules struct {
	Map       *Map                     // filled by an Indexer
	First     record.Offset            // the round's First
	Upper     record.Offset            // the round's Upper: the batch that ends there stays
	Now       int64                    // ms
	Retention int64                    // ms, delete.retention.ms
	Aborted   []Aborted                // the aborted transactions of all segments of the round; more may come by AddAborted
	Producers map[int64]LastOfProducer // that the log knows
}

// Action is what becomes of a batch.
type Action int8

// The actions.
const (
	Drop   Action = iota // it goes
	Copy                 // it stays, byte for byte
	Empty                // it stays without its records
	Change               // it stays with a part of its records, or with a delete horizon
)

// A batch that compresses well may be many times larger when it is compressed again, without the records that go:
// the producer's codec may look back further than this one's. So the new batches of a segment may have at most half as many
// bytes again as the old ones, and a few more, and no batch more than that number more than it had.
const mostGrowth = 4 << 20

// Verdict is what a Filter has decided about a batch.
type Verdict struct {
	Action  Action
	Records int // that stay

	bytes   int64 // of the records that stay, decompressed
	horizon int64 // of the new batch, or NoTimestamp
}

// Memory is an upper bound of the batch that AppendTo makes of b. Whoever bounds memory
// reserves it before.
func (v *Verdict) Memory(b record.Batch) int64 {
	switch v.Action {
	case Copy:
		return int64(len(b))
	case Empty:
		return record.HeaderLen
	case Change:
		// A record's timestamp delta may grow by nine bytes and its length by one, if the delete
		// horizon becomes the base. Then to.Memory adds what data that cannot be compressed grow by.
		to := record.Target{Codec: b.Codec(), Records: v.bytes + 10*int64(v.Records)}
		return to.Memory()
	default:
		return 0
	}
}

// Stats counts what a Filter has judged.
type Stats struct {
	Batches, BytesIn int64
	Records          int64 // read
	Kept             int64 // records that stay
	Keyless          int64 // records that went since they have no key
	Whole            int64 // batches that keep all records, since they cannot be compressed again in bounded memory
}

// Filter judges the batches of a round, in the order of their offsets, from the log's first segment on.
type Filter struct {
	rules Rules
	txns  transactions
	next  record.Offset // no batch may begin below it
	end   record.Offset // the batch that ends there stays; 0: none does
	stats Stats
	batch judgement
	// in and out are the bytes of the segment's batches so far, before and after.
	in, out int64
	// keepsTombstones is true after a batch that has kept records which should have gone: a tombstone above it may be what
	// deletes them.
	keepsTombstones bool
	ahead           lookahead
}

// judgement is what was found out about the batch that is being judged.
type judgement struct {
	keep       []uint64 // bit i: record i stays
	read, kept int
	bytes      int64 // of the records that stay
	expired    bool  // the batch's delete horizon has passed
	tombstones bool  // some that stay are below the Map's end
	early      bool  // some that stay are not
}

// NewFilter begins a round.
func NewFilter(rules Rules) *Filter {
	return &Filter{rules: rules, txns: newTransactions(rules.Aborted)}
}

// AddAborted adds aborted transactions before the first batch of them is judged. Those that the
// Filter has already change nothing, so that the lists of segments may overlap.
func (f *Filter) AddAborted(list []Aborted) { f.txns.addAborted(list) }

// KeepEnd has the batch stay that ends at an offset, if only without its records, so that a segment ends where
// the next one begins. It stands for one batch at a time, and begins a segment.
func (f *Filter) KeepEnd(end record.Offset) { f.end, f.in, f.out = end, 0, 0 }

// TakeAborted returns the aborted transactions of which batches are left, by the offset of their marker:
// those whose markers were judged since the last call. They are the index of the new segment.
func (f *Filter) TakeAborted() []Aborted {
	left := f.txns.left
	f.txns.left = nil
	return left
}

// Stats are the counts so far.
func (f *Filter) Stats() Stats { return f.stats }

// Judge decides about the next batch. It may wait for memory and a processor of the budget. The errors
// are those of Batch.Verify and record.VisitKeys, record.ErrInvalid for batches that are not in
// order, and ErrTransactions; after an error the round is over.
func (f *Filter) Judge(ctx context.Context, work *budget.Budget, b record.Batch) (Verdict, error) {
	var err error
	if f.next, err = checkBatch(b, f.next); err != nil {
		return Verdict{}, err
	}
	f.stats.Batches++
	f.stats.BytesIn += int64(len(b))
	f.stats.Records += int64(b.Count())
	var v Verdict
	if b.Control() {
		v, err = f.judgeMarker(b)
	} else {
		v, err = f.judgeRecords(ctx, work, b)
	}
	if err != nil {
		return Verdict{}, err
	}
	if v.Action == Drop && f.isNeeded(b) {
		v.Action = Empty
	}
	f.stats.Kept += int64(v.Records)
	return v, nil
}

// AppendTo appends to dst what is left of b, the batch that was judged last. It may wait for memory and a
// processor of the budget. A batch that would grow too much, or for which there is never enough memory, is copied with all
// its records (the verdict becomes Copy), and no tombstone above it goes in this round. The other errors are those of
// record.Rewrite.AppendTo; dst is returned unchanged with them.
func (f *Filter) AppendTo(ctx context.Context, work *budget.Budget, dst []byte, b record.Batch, v *Verdict) ([]byte, error) {
	at := len(dst)
	f.in += int64(len(b))
	if v.Action == Change {
		how := record.Rewrite{Keep: f.batch.keeps, Horizon: v.horizon, MaxBytes: min(v.Memory(b), f.mostBytes(b))}
		again, err := how.AppendTo(ctx, work, dst, b)
		switch {
		case errors.Is(err, record.ErrTooLarge):
			f.keepWhole(b, v)
		case err != nil:
			return dst, err
		default:
			dst = again
		}
	}
	switch v.Action {
	case Copy:
		dst = append(dst, b...)
	case Empty:
		dst = record.AppendEmpty(dst, b)
	case Drop, Change:
	}
	f.out += int64(len(dst) - at)
	return dst, nil
}

// mostBytes is how many bytes the batch may have that is made of b.
func (f *Filter) mostBytes(b record.Batch) int64 {
	return max(record.HeaderLen, min(int64(len(b)), f.in+f.in/2-f.out)+mostGrowth)
}

// keepWhole has a batch stay as it is, although some of its records should go.
func (f *Filter) keepWhole(b record.Batch, v *Verdict) {
	f.stats.Kept += int64(b.Count()) - int64(v.Records)
	f.stats.Whole++
	f.keepsTombstones = true
	*v = Verdict{Action: Copy, Records: int(b.Count())}
}

// isNeeded tells whether a batch stays even if no record of it does.
func (f *Filter) isNeeded(b record.Batch) bool {
	if next := b.NextOffset(); next == f.rules.Upper || next == f.end {
		return true
	}
	last, ok := f.rules.Producers[b.ProducerID()]
	if !ok || b.ProducerID() < 0 {
		return false
	}
	if last.Data >= 0 {
		return b.LastOffset() == last.Data
	}
	return b.Control() && b.ProducerEpoch() == last.Epoch
}

// judgeMarker decides about a control batch.
func (f *Filter) judgeMarker(b record.Batch) (Verdict, error) {
	empty, err := f.txns.noteMarker(b)
	if err != nil {
		return Verdict{}, err
	}
	horizon, ok := b.DeleteHorizon()
	switch {
	case b.Count() <= 0, empty && ok && horizon <= f.rules.Now:
		return Verdict{}, nil
	case empty && !ok:
		f.batch.begin(false)
		for range b.Count() {
			f.batch.note(true, 0)
		}
		return Verdict{Action: Change, Records: f.batch.kept, bytes: int64(len(b)), horizon: f.newHorizon()}, nil
	default:
		return Verdict{Action: Copy, Records: int(b.Count())}, nil
	}
}

// judgeRecords decides about a batch with records.
func (f *Filter) judgeRecords(ctx context.Context, work *budget.Budget, b record.Batch) (Verdict, error) {
	if f.txns.noteBatch(b) {
		return Verdict{}, nil
	}
	horizon, ok := b.DeleteHorizon()
	f.batch.begin(ok && horizon <= f.rules.Now && !f.keepsTombstones)
	f.rules.Map.hasher.forget()
	f.ahead.records = f.ahead.records[:0]
	if err := record.VisitKeys(ctx, work, b, f); err != nil {
		return Verdict{}, err
	}
	f.noteRecords()
	// A tombstone whose older records have not gone yet waits for the round that drops them. One that an earlier round has left
	// without a horizon stays, since this one drops no older record of its key.
	isNew := !ok && f.batch.tombstones && !f.batch.early && !f.keepsTombstones && b.LastOffset() >= f.rules.First
	v := Verdict{Action: Change, Records: f.batch.kept, bytes: f.batch.bytes, horizon: record.NoTimestamp}
	switch {
	case f.batch.kept == 0:
		v.Action = Drop
	case f.batch.kept == f.batch.read && !isNew:
		v.Action = Copy
	case isNew:
		v.horizon = f.newHorizon()
	case ok:
		v.horizon = horizon
	}
	return v, nil
}

// newHorizon is the delete horizon of batches that get one in this round.
func (f *Filter) newHorizon() int64 {
	if f.rules.Retention > math.MaxInt64-f.rules.Now {
		return math.MaxInt64
	}
	return f.rules.Now + f.rules.Retention
}

// WriteKey takes the next bytes of a key.
func (f *Filter) WriteKey(part []byte) { f.rules.Map.hasher.write(part) }

// VisitRecord takes the next record of the batch that is being judged.
func (f *Filter) VisitRecord(o record.Outline) bool {
	if isFull := f.ahead.add(o, f.rules.Map.hasher.sum()); isFull {
		f.noteRecords()
	}
	return true
}

// noteRecords decides about the records that were looked ahead.
func (f *Filter) noteRecords() {
	f.ahead.touch(f.rules.Map)
	for i := range f.ahead.records {
		r := &f.ahead.records[i]
		keep := f.keepsRecord(&r.Outline, r.key)
		f.batch.note(keep, r.Size)
		if keep && !r.HasValue {
			if r.Offset < f.rules.Map.End() {
				f.batch.tombstones = true
			} else {
				f.batch.early = true
			}
		}
	}
	f.ahead.records = f.ahead.records[:0]
}

func (f *Filter) keepsRecord(o *record.Outline, key sum) bool {
	if o.Offset >= f.rules.Map.End() {
		return true
	}
	if !o.HasKey {
		f.stats.Keyless++
		return false
	}
	if latest, ok := f.rules.Map.latestSum(key); ok && o.Offset < latest {
		return false
	}
	return o.HasValue || !f.batch.expired
}

func (j *judgement) begin(expired bool) {
	*j = judgement{keep: j.keep[:0], expired: expired}
}

// note adds the next record.
func (j *judgement) note(keep bool, size int64) {
	if j.read%64 == 0 {
		j.keep = append(j.keep, 0)
	}
	if keep {
		j.keep[j.read/64] |= 1 << (j.read % 64)
		j.kept++
		j.bytes += size
	}
	j.read++
}

// keeps tells whether record i stays.
func (j *judgement) keeps(i int) bool {
	return i < j.read && j.keep[i/64]&(1<<(i%64)) != 0
}
