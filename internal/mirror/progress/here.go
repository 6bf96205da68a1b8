package progress

import "github.com/leatstream/leat/internal/record"

// here is what is known of this side: what the metadata say, and the local log.
type here struct {
	isLeading  bool
	assignment Assignment
	log        Log
	reader     Reader
	// skipTo is where the mirror goes on behind a loss that was accepted, or where it begins; it counts if it is beyond the log's end.
	skipTo record.Offset
	// isOvertaken tells that the source has deleted all that is here, and begins where it ends.
	isOvertaken bool
}

// isRunning tells whether the partition is to be mirrored, or at least to be watched.
func (h *here) isRunning() bool {
	s := h.assignment.Durable.State
	return h.isLeading && !h.assignment.IsPaused && s != Promoting && s != Promoted
}

// isHalted tells whether the metadata say that the partition has stopped. Then nothing here is changed, until they say that it mirrors.
func (h *here) isHalted() bool { return h.assignment.Durable.State != Mirroring }

// hasNoID tells whether the topic has no id by which it could be told from another one of the same name.
func (h *here) hasNoID() bool { return h.assignment.Durable.Topic == TopicID{} }

// isEmpty tells whether the log has had no record since it began at its start.
func (h *here) isEmpty() bool { return h.log.LastEpoch == record.NoEpoch }

// isBlind tells whether there is nothing that could be compared with the source: it has deleted all that is here.
func (h *here) isBlind() bool { return h.isEmpty() || h.isOvertaken || h.skipTo > h.log.End }

// position is the offset from which on records are missing.
func (h *here) position() record.Offset {
	o := max(h.log.End, h.skipTo)
	if h.isEmpty() {
		o = max(o, h.assignment.Durable.Begin)
	}
	return o
}

// accepted is the last loss that was accepted. A state that is none keeps it: the log may not have gone on behind the loss yet, and nobody is to be asked for the same one again.
func (h *here) accepted() Range {
	if d := &h.assignment.Durable; d.State != Gap && d.State != TombstonesLost {
		return d.Range
	}
	return Range{}
}

// isLossAccepted tells whether it is accepted that the records of a range are lost.
func (h *here) isLossAccepted(r Range) bool {
	a := h.accepted()
	return a.From <= r.From && r.To <= a.To
}

// epochEnd is the last epoch of the log that is not above e, and its end.
func (h *here) epochEnd(e record.Epoch) Tail {
	switch {
	case e == record.NoEpoch || h.isEmpty():
		return Tail{Epoch: record.NoEpoch}
	case e >= h.log.LastEpoch:
		return Tail{h.log.LastEpoch, h.log.End}
	}
	return h.reader.EpochEnd(e)
}

// declare is the request for a durable state.
func (h *here) declare(d Durable) Action {
	return Action{Kind: Declare, Durable: d, Was: h.assignment.Durable}
}
