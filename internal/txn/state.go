package txn

import "math"

// status is where a transactional id is between its transactions; the package doc draws it. The
// values are those of Kafka's records.
type status int8

const (
	empty          status = iota // it has a producer, which has begun no transaction
	ongoing                      // partitions are part of a transaction
	prepareCommit                // the transaction is committed, and partitions lack their marker
	prepareAbort                 // the transaction is aborted, and partitions lack their marker
	completeCommit               // all partitions have the marker of the last transaction
	completeAbort                // all partitions have the marker of the last transaction
)

// statusNames are Kafka's names. The last two are never recorded: an id is dead when it is gone, and
// fencing is one step.
func statusNames() []string {
	return []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}
}

func (st status) String() string { return statusNames()[st] }

const (
	noProducer int64 = -1
	noEpoch    int16 = -1
	// exhausted is the last epoch that a producer gets. The one above it is for fencing that producer.
	exhausted int16 = math.MaxInt16 - 1
)

// Versions of the transaction protocol (transaction.version).
const (
	sameEpoch int16 = 0 // a producer keeps its epoch; markers have the epoch of the records
	bumpEpoch int16 = 2 // each transaction ends with a higher epoch, which its markers have (KIP-890)
)

// state is the recorded part of a transactional id. Its methods change nothing: they return
// the next state.
type state struct {
	producer   int64
	epoch      int16
	previous   int64 // the producer id before the last change; mostly the same
	next       int64 // the producer id once the transaction has ended; noProducer: the same
	last       int16 // the epoch before this one, with which the producer may ask again for what it has got; or noEpoch
	status     status
	version    int16 // how the transaction ends, or has ended: sameEpoch or bumpEpoch
	timeout    int32 // ms
	start      int64 // when the transaction began, ms; -1 before the first one
	updated    int64 // when this was recorded, ms
	partitions partitionSet
}

// newState is that of a new transactional id.
func newState(producer int64, timeout int32, now int64) state {
	return state{
		producer: producer, previous: producer, next: noProducer, last: noEpoch,
		timeout: timeout, start: -1, updated: now,
	}
}

// isEnding tells whether the transaction is decided and partitions lack their marker, or the record
// of its end is missing.
func (st *state) isEnding() bool { return st.status == prepareCommit || st.status == prepareAbort }

// isIdle tells whether there is no transaction.
func (st *state) isIdle() bool {
	return st.status == empty || st.status == completeCommit || st.status == completeAbort
}

// isExhausted tells whether the producer needs another producer id instead of a higher epoch.
func (st *state) isExhausted() bool { return st.epoch >= exhausted }

// reset is st without a transaction, for a producer that begins anew.
func (st *state) reset(timeout int32, now int64) state {
	next := *st
	next.previous, next.status, next.partitions = st.producer, empty, nil
	next.timeout, next.start, next.updated = timeout, -1, now
	return next
}

// bumped has the next epoch. last is the epoch for which the producer may ask again, or noEpoch.
func (st *state) bumped(last int16, timeout int32, now int64) state {
	next := st.reset(timeout, now)
	next.epoch, next.last = st.epoch+1, last
	return next
}

// rotated has another producer id.
func (st *state) rotated(producer int64, last int16, timeout int32, now int64) state {
	next := st.reset(timeout, now)
	next.producer, next.epoch, next.last = producer, 0, last
	return next
}

// extended has all of these partitions in the transaction, which begins if there is none. Its
// producer uses the epoch, so it has heard of it and need not ask for it again.
func (st *state) extended(all partitionSet, version int16, now int64) state {
	next := *st
	if st.status != ongoing {
		next.start = now
	}
	next.previous, next.last = st.producer, noEpoch
	next.status, next.version, next.updated, next.partitions = ongoing, version, now, all
	return next
}

// prepared is decided. With bumpEpoch the epoch rises, which fences the producer; follows is then the
// producer id that follows if the epochs are exhausted.
func (st *state) prepared(commit bool, version int16, follows, now int64) state {
	next := *st
	if st.isIdle() { // it is aborted before it began
		next.start, next.partitions = now, nil
	}
	next.previous, next.status = st.producer, prepareAbort
	if commit {
		next.status = prepareCommit
	}
	if version == bumpEpoch {
		next.last = st.epoch
		if st.epoch < math.MaxInt16 { // it is there only if another version has recorded it
			next.epoch = st.epoch + 1
		}
	}
	next.version, next.next, next.updated = version, follows, now
	return next
}

// completed has ended.
func (st *state) completed(now int64) state {
	next := *st
	next.previous, next.updated, next.partitions = st.producer, now, nil
	if st.next != noProducer {
		next.producer, next.epoch, next.next = st.next, 0, noProducer
	}
	next.status = completeAbort
	if st.status == prepareCommit {
		next.status = completeCommit
	}
	return next
}

// endedWith tells whether the last transaction was ended by a producer that had this id and epoch. A
// producer that has lost the answer asks again with them.
func (st *state) endedWith(producer int64, epoch int16) bool {
	if st.version != bumpEpoch || st.status != completeCommit && st.status != completeAbort {
		return false
	}
	if st.producer == producer {
		return epoch == st.last && epoch == st.epoch-1
	}
	return st.previous == producer && epoch == exhausted && st.epoch == 0
}
