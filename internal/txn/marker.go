package txn

import (
	"time"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// Decision is a decided transaction, with the partitions that lack their marker. Whoever takes it writes
// each marker by the leader of its partition, and reports each result to ReportMarkers. A decision is
// sent again with what is left after a pause, if partitions are to be asked again or results
// are lost, and by the next coordinator. A partition whose marker of the same decision is still under way must be
// left out then: a marker with the epoch of the records (Version 0) that comes late, when the
// producer has begun its next transaction, would end that one.
type Decision struct {
	TransactionalID string
	Offset          record.Offset // tells decisions of one id apart: the offset after its record
	ProducerID      int64
	ProducerEpoch   int16 // the epoch of the markers
	// CoordinatorEpoch fences the markers of a coordinator that was replaced.
	CoordinatorEpoch record.Epoch
	Commit           bool
	// Version is 2 if the markers' epoch is above that of the transaction's records (except at the
	// epoch 32767, which no producer gets), and 0 if it is the same.
	Version    int16
	Partitions []TopicPartitions
}

// Outcome is what has become of a marker.
type Outcome uint8

const (
	// MarkerWritten says that the marker is committed, also if it was before.
	MarkerWritten Outcome = iota
	// PartitionGone says that metadata that are newer than the decision do not have the partition. No
	// marker is needed.
	PartitionGone
	// AskAgain says that the attempt is over, and the marker may not be written: no leader, too few replicas, no
	// connection.
	AskAgain
	// CoordinatorFenced says that the partition has a marker of a later coordinator, or the producer has a
	// higher epoch there. This node may be the coordinator no more; if it is, it asks again after a
	// long pause.
	CoordinatorFenced
)

// MarkerResult is the result of one partition.
type MarkerResult struct {
	Topic     string
	Partition int32
	Outcome   Outcome
}

const (
	// markerWait is how long a decision waits for results before it is sent again.
	markerWait = 10 * time.Second
	// The pause before partitions are asked again doubles from the first to the longest.
	firstMarkerPause = 20 * time.Millisecond
	lastMarkerPause  = 1280 * time.Millisecond
	// recordPause is the pause after which a record is tried again that could not be appended.
	recordPause = time.Second
)

// ReportMarkers takes results of a decision, given by its id and offset. Results may come late,
// twice, in any order and in any number of calls; those of other decisions than the id's present
// one change nothing. When all partitions have their marker the transaction is complete.
func (m *Machine) ReportMarkers(s *coord.Step, id string, decision record.Offset, results []MarkerResult) {
	t := m.ids[id]
	if t == nil || !t.isEnding() || t.end != decision {
		return
	}
	again := false
	before := t.partitions.size()
	for _, r := range results {
		switch r.Outcome {
		case MarkerWritten, PartitionGone:
			t.partitions = t.partitions.dropPartition(r.Topic, r.Partition)
		case AskAgain:
			again = again || t.partitions.has(r.Topic, r.Partition)
		case CoordinatorFenced: // the timer is set to ask after a long pause
		}
	}
	m.memory.Add(t.partitions.size() - before)
	switch {
	case len(t.partitions) == 0:
		m.putCompletion(s, t)
	case again:
		m.askAgain(s, t)
	}
}

// askAgain has the decision sent again after a pause.
func (m *Machine) askAgain(s *coord.Step, t *transaction) {
	at := s.Now.Add(min(firstMarkerPause<<min(t.pauses, 10), lastMarkerPause))
	if t.timer.IsSet() && !at.Before(t.timer.At()) {
		return
	}
	t.pauses++
	m.timers.Set(&t.timer, at)
}

// pursueEnd goes on with a transaction that is decided: it sends the decision or, if no partition lacks
// its marker, completes the transaction.
func (m *Machine) pursueEnd(s *coord.Step, t *transaction) {
	if !t.isEnding() {
		return
	}
	if len(t.partitions) == 0 {
		m.putCompletion(s, t)
		return
	}
	m.timers.Set(&t.timer, s.Now.Add(markerWait))
	d := t.decision(s)
	s.After(t.end)
	s.Reply(func(err error) {
		if err == nil { // otherwise the timer tries again, or the next coordinator
			m.cfg.Send(d)
		}
	})
}

// decision is that of a transaction which is decided, with the partitions that lack their marker.
func (t *transaction) decision(s *coord.Step) Decision {
	return Decision{
		TransactionalID: t.id, Offset: t.end, ProducerID: t.producer, ProducerEpoch: t.epoch, CoordinatorEpoch: s.Epoch(),
		Commit: t.status == prepareCommit, Version: t.version, Partitions: t.partitions.copyLists(),
	}
}

// findDecision is the decision of an id with an offset as it is now, if it is the present one.
func (m *Machine) findDecision(s *coord.Step, id string, offset record.Offset) (Decision, bool) {
	t := m.ids[id]
	if t == nil || !t.isEnding() || t.end != offset {
		return Decision{}, false
	}
	return t.decision(s), true
}

// putCompletion records that all partitions have their marker. The timer tries again if that fails.
func (m *Machine) putCompletion(s *coord.Step, t *transaction) {
	m.timers.Set(&t.timer, s.Now.Add(recordPause))
	next := t.completed(s.Now.UnixMilli())
	putState(s, t.id, &next)
}

// deadline is when the transaction times out. It is reckoned from now, so that a clock that jumps does not
// put it off. The clock of a coordinator before may have been ahead of this one's, too.
func (t *transaction) deadline(now time.Time) time.Time {
	timeout := int64(max(t.timeout, 0))
	passed := min(max(now.UnixMilli()-max(t.start, 0), 0), timeout)
	return now.Add(time.Duration(timeout-passed) * time.Millisecond)
}

// abortTimedOut aborts a transaction that has taken too long. The timer tries again if that fails.
func (m *Machine) abortTimedOut(s *coord.Step, t *transaction) {
	m.timers.Set(&t.timer, s.Now.Add(recordPause))
	if m.fence(s, t, "it has taken longer than its time-out") == 0 {
		m.cfg.Counts.timedOut.Add(1)
	}
}

// fence aborts the transaction with a higher epoch, once, so that its producer cannot go on, and logs why. The
// code is not 0 if that is not possible now.
func (m *Machine) fence(s *coord.Step, t *transaction, why string) int16 {
	next, code := m.nextProducer(t)
	if code == 0 {
		a := abortion{id: t.id, producer: t.producer, epoch: t.epoch, start: t.start, timeout: t.timeout, why: why}
		st := t.prepared(false, bumpEpoch, next, s.Now.UnixMilli())
		putState(s, t.id, &st)
		m.cfg.Abortions.noteAfter(s, a)
	}
	return code
}

// nextProducer is the producer id that follows if the epochs of the present one are exhausted, else
// noProducer. The code is not 0 if none can be had now.
func (m *Machine) nextProducer(t *transaction) (int64, int16) {
	if !t.isExhausted() {
		return noProducer, 0
	}
	id, ok := m.cfg.IDs.Take()
	if !ok {
		return noProducer, loadInProgress
	}
	return id, 0
}
