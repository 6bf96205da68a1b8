package progress

import (
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/record"
)

// inbox has what was read, and is to be done with the local log because of it. All of it was read in the present local leadership, and after every cut.
type inbox struct {
	ready        []byte        // batches that follow the local log, one behind the other
	highest      record.Epoch  // of them
	base         record.Offset // of the first one
	end          record.Offset // of the last one
	isEmpty      bool          // the source has had nothing at the position
	trimTo       record.Offset // the source's start
	isOutOfRange bool          // the source does not have the position
	bad          int           // how often in a row what was read could not be appended
	// hasJustBegun tells that it was decided in this leadership where the mirror begins, and that nothing was read since.
	hasJustBegun bool
}

// stop is why no more batches of an answer are taken.
type stop struct {
	reason  string       // the next one is at fault
	isNewer bool         // it is of a later epoch than the source's leader: there is a newer one (KAFKA-18723)
	raise   record.Epoch // it is of this epoch, which is later than the local leader's; NoEpoch: it is not
}

// fill takes the first batches of an answer that follow the local log. leader is the leader epoch of the source. Nothing is taken from beyond the high watermark: it may go again.
func (i *inbox) fill(h *here, a *Answer, leader record.Epoch) (n int, why stop) {
	at, epoch := h.position(), h.log.LastEpoch
	skipped, size := 0, 0
	why.raise = record.NoEpoch
	for rest := a.Raw; len(rest) > 0; {
		b, next, err := record.Next(rest)
		if err != nil {
			if n == 0 || !errors.Is(err, record.ErrShort) { // the last one may be cut
				why.reason = fmt.Sprintf("the batch at offset %d: %v", at, err)
			}
			break
		}
		rest = next
		if n == 0 && b.NextOffset() <= at {
			skipped += len(b)
			continue
		}
		from := at
		if n == 0 {
			from = firstBase(h, a)
		}
		if why.reason = check(b, from, epoch); why.reason != "" || b.NextOffset() > a.HighWatermark {
			break
		}
		e := b.LeaderEpoch()
		if why.isNewer = leader != record.NoEpoch && e > leader; why.isNewer {
			break
		}
		if e > h.assignment.Epoch {
			why.raise = e
			break
		}
		if n == 0 {
			i.base = b.BaseOffset()
		}
		n, size, at, epoch = n+1, size+len(b), b.NextOffset(), e
	}
	i.ready, i.highest, i.end = a.Raw[skipped:skipped+size:skipped+size], epoch, at
	return n, why
}

// drain takes out the batches that were appended, up to an offset, and returns how many bytes they have. If the log has not gained any, those that are left would only be tried again.
func (i *inbox) drain(to, gained record.Offset) (size int) {
	for size < len(i.ready) {
		b, _, err := record.Next(i.ready[size:])
		if err != nil || b.NextOffset() > to {
			break
		}
		size += len(b)
	}
	if i.ready, i.bad = i.ready[size:], 0; gained <= 0 || len(i.ready) == 0 {
		i.ready = nil
		return size
	}
	i.base = record.Batch(i.ready).BaseOffset()
	return size
}

// firstBase is the lowest offset at which the next batch may begin: the local log's end, unless there are no records here, or the source has deleted all of them, perhaps up to the middle of that batch.
func firstBase(h *here, a *Answer) record.Offset {
	if a.Start >= h.log.End || h.isEmpty() {
		return 0
	}
	return h.log.End
}

// check says why a batch cannot be appended at an offset, after a batch of an epoch; "": it can.
func check(b record.Batch, from record.Offset, epoch record.Epoch) string {
	if err := b.Verify(); err != nil {
		return fmt.Sprintf("the batch at offset %d: %v", b.BaseOffset(), err)
	}
	switch {
	case b.BaseOffset() < from || b.NextOffset() <= b.BaseOffset():
		return fmt.Sprintf("the batch at offset %d, which ends at %d, does not follow the offset %d", b.BaseOffset(), b.NextOffset(), from)
	case b.LeaderEpoch() < epoch:
		return fmt.Sprintf("the batch at offset %d is of epoch %d, and the one before it of epoch %d", b.BaseOffset(), b.LeaderEpoch(), epoch)
	}
	return ""
}

// store appends the batches that were read. Behind a loss that was accepted, and where the mirror begins, the local log is first moved there. It is also emptied before a batch that begins below its
// end: the source has deleted all that is here.
func (i *inbox) store(h *here) Action {
	switch to := min(i.base, h.position()); {
	case to > h.log.End:
		return Action{Kind: Skip, Offset: to}
	case i.base < h.log.End && !h.isEmpty():
		return Action{Kind: Skip, Offset: h.log.End}
	}
	return Action{Kind: Append, Raw: i.ready}
}
