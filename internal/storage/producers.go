package storage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

// keptBatches is how many of a producer's last batches are known, so that a retry
// of one of them is told from a new one: as many as a client may have in flight.
const keptBatches = 5

// producedBatch is one of a producer's last batches.
type producedBatch struct {
	lastOffset record.Offset
	ms         int64 // its largest timestamp
	lastSeq    int32
	delta      int32 // its last offset less its first
	appendTime bool  // ms is the broker's time
}

func (p *producedBatch) firstSeq() int32 {
	return int32((int64(p.lastSeq) - int64(p.delta)) & math.MaxInt32)
}

// producer is what a log knows of one idempotent producer. No pointers: a log may
// know very many.
type producer struct {
	id      int64
	seen    int64 // ms, when it last appended or was recovered; it expires by that
	epoch   int16
	n       int8 // batches known
	batches [keptBatches]producedBatch
}

func (p *producer) last() *producedBatch { return &p.batches[p.n-1] }

// producers are a log's idempotent producers: for each the rules of Kafka's
// sequence numbers, by which a retried batch is stored once. Guarded by Log.mu.
type producers struct {
	at      map[int64]int32 // an id's place in list
	list    []producer
	changed bool // since the last snapshot
	undo    []undo
	swept   int64 // ms, when expired ones were last looked for
}

// undo is what a producer was before an append that may yet fail.
type undo struct {
	was   producer
	fresh bool // it was not known
}

// errDuplicate is returned by check for a batch that is stored already.
var errDuplicate = errors.New("duplicate batch")

// check judges a batch that a client sends: nil where it may be appended,
// errDuplicate with the earlier one where it is one of the last batches again.
func (ps *producers) check(b record.Batch) (producedBatch, error) {
	at, ok := ps.at[b.ProducerID()]
	if !ok {
		return producedBatch{}, nil // its records may all have been deleted: any sequence is right
	}
	p := &ps.list[at]
	epoch, first, last := b.ProducerEpoch(), b.BaseSequence(), b.LastSequence()
	switch {
	case epoch < p.epoch:
		return producedBatch{}, fmt.Errorf("%w: producer %d came with epoch %d after %d", ErrProducerFenced, p.id, epoch, p.epoch)
	case b.Control():
		return producedBatch{}, nil
	case epoch > p.epoch && first != 0:
		return producedBatch{}, fmt.Errorf("%w: producer %d began its epoch %d with sequence %d", ErrOutOfOrderSequence, p.id, epoch, first)
	case epoch > p.epoch || p.n == 0:
		return producedBatch{}, nil
	}
	for _, known := range p.batches[:p.n] {
		if known.lastSeq == last && known.firstSeq() == first {
			return known, errDuplicate
		}
	}
	if want := record.AddSequence(p.last().lastSeq, 1); first != want {
		return producedBatch{}, fmt.Errorf("%w: producer %d sent %d after %d", ErrOutOfOrderSequence, p.id, first, p.last().lastSeq)
	}
	return producedBatch{}, nil
}

// apply takes a batch that was or is about to be appended. It can be undone until settle.
func (ps *producers) apply(b record.Batch, now int64) {
	id := b.ProducerID()
	at, ok := ps.at[id]
	if !ok {
		if ps.at == nil {
			ps.at = map[int64]int32{}
		}
		at = int32(len(ps.list))
		ps.at[id] = at
		ps.list = append(ps.list, producer{id: id, epoch: b.ProducerEpoch()})
	}
	p := &ps.list[at]
	ps.undo = append(ps.undo, undo{*p, !ok})
	ps.changed = true
	p.seen = now
	if e := b.ProducerEpoch(); e != p.epoch {
		p.epoch, p.n = e, 0
	}
	if !b.Control() {
		p.push(producedBatch{
			lastOffset: b.LastOffset(), ms: b.MaxTimestamp(),
			lastSeq: b.LastSequence(), delta: b.LastOffsetDelta(),
			appendTime: b.TimestampType() == record.LogAppendTime,
		})
	}
}

func (p *producer) push(b producedBatch) {
	if p.n == keptBatches {
		copy(p.batches[:], p.batches[1:])
		p.n--
	}
	p.batches[p.n] = b
	p.n++
}

// settle makes what was applied final.
func (ps *producers) settle() { ps.undo = ps.undo[:0] }

// revert takes back what was applied since the last settle.
func (ps *producers) revert() {
	for _, u := range slices.Backward(ps.undo) {
		if u.fresh {
			ps.list = ps.list[:len(ps.list)-1]
			delete(ps.at, u.was.id)
		} else {
			ps.list[ps.at[u.was.id]] = u.was
		}
	}
	ps.settle()
}

// sweepEvery is how often, in ms, expired producers are looked for.
const sweepEvery = 60_000

// expire forgets producers that were not seen for a time.
func (ps *producers) expire(now, after int64) {
	if after <= 0 || now-ps.swept < min(sweepEvery, after) {
		return
	}
	ps.swept = now
	kept := ps.list[:0]
	for _, p := range ps.list {
		if now-p.seen >= after {
			delete(ps.at, p.id)
			ps.changed = true
			continue
		}
		ps.at[p.id] = int32(len(kept))
		kept = append(kept, p)
	}
	ps.list = kept
}

// The snapshot file is Kafka's: version, a checksum of what follows it, and one
// entry for each producer. Kafka's holds a producer's last batch only; ours has up
// to five entries for one, oldest first, of which a reader that keeps one a
// producer keeps the newest.
const (
	snapshotVersion  = 1
	snapshotHead     = 2 + 4 + 4
	snapshotEntryLen = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8

	noCoordinatorEpoch = -1
	noTransaction      = -1
)

// errSnapshot is returned for bytes that are no producer snapshot.
var errSnapshot = errors.New("not a producer snapshot")

// encode is the snapshot file's content.
func (ps *producers) encode() []byte {
	b := make([]byte, snapshotHead, snapshotHead+len(ps.list)*2*snapshotEntryLen)
	n := uint32(0)
	for i := range ps.list {
		p := &ps.list[i]
		for k := range max(p.n, 1) {
			batch := producedBatch{lastOffset: -1, ms: p.seen, lastSeq: record.NoSequence}
			if p.n > 0 {
				batch = p.batches[k]
			}
			b = be.AppendUint64(b, uint64(p.id))
			b = be.AppendUint16(b, uint16(p.epoch))
			b = be.AppendUint32(b, uint32(batch.lastSeq))
			b = be.AppendUint64(b, uint64(batch.lastOffset))
			b = be.AppendUint32(b, uint32(batch.delta))
			b = be.AppendUint64(b, uint64(batch.ms))
			coordinator, transaction := int32(noCoordinatorEpoch), int64(noTransaction)
			b = be.AppendUint32(b, uint32(coordinator))
			b = be.AppendUint64(b, uint64(transaction))
			n++
		}
	}
	be.PutUint16(b, snapshotVersion)
	be.PutUint32(b[6:], n)
	be.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
	return b
}

// decode takes a snapshot file's content; now is when its producers count as seen.
func (ps *producers) decode(b []byte, now int64) error {
	*ps = producers{}
	switch {
	case len(b) < snapshotHead || be.Uint16(b) != snapshotVersion:
		return fmt.Errorf("%w: unknown version", errSnapshot)
	case be.Uint32(b[2:]) != crc32.Checksum(b[6:], castagnoli):
		return fmt.Errorf("%w: its checksum is wrong", errSnapshot)
	case int64(len(b)-snapshotHead) != int64(be.Uint32(b[6:]))*snapshotEntryLen:
		return fmt.Errorf("%w: its length is wrong", errSnapshot)
	}
	ps.at = map[int64]int32{}
	for b = b[snapshotHead:]; len(b) > 0; b = b[snapshotEntryLen:] {
		id, epoch := int64(be.Uint64(b)), int16(be.Uint16(b[8:]))
		at, ok := ps.at[id]
		if !ok {
			at = int32(len(ps.list))
			ps.at[id] = at
			ps.list = append(ps.list, producer{id: id, epoch: epoch, seen: now})
		}
		p := &ps.list[at]
		if p.epoch != epoch {
			p.epoch, p.n = epoch, 0
		}
		batch := producedBatch{
			lastSeq: int32(be.Uint32(b[10:])), lastOffset: record.Offset(be.Uint64(b[14:])),
			delta: int32(be.Uint32(b[22:])), ms: int64(be.Uint64(b[26:])),
		}
		if batch.lastSeq >= 0 && batch.delta >= 0 {
			p.push(batch)
		}
	}
	return nil
}

// Producer is one idempotent producer's state in a log.
type Producer struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastTime     int64 // ms
	LastOffset   record.Offset
}

// export is the list for DescribeProducers.
func (ps *producers) export() []Producer {
	list := make([]Producer, 0, len(ps.list))
	for i := range ps.list {
		p := &ps.list[i]
		out := Producer{ID: p.id, Epoch: p.epoch, LastSequence: record.NoSequence, LastTime: p.seen, LastOffset: -1}
		if p.n > 0 {
			last := p.last()
			out.LastSequence, out.LastTime, out.LastOffset = last.lastSeq, last.ms, last.lastOffset
		}
		list = append(list, out)
	}
	return list
}
