package position_test

import (
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// entry is what a batch of the modelled __consumer_offsets has: a commit, a tombstone or a marker.
type entry struct {
	at       record.Offset
	true     int64 // when it was written, by the clock that is never wrong
	group    string
	place    position.Place
	id       [16]byte // of the topic, in a commit
	offset   record.Offset
	isGone   bool // a tombstone
	producer int64
	epoch    int16 // of the producer
	isMarker bool
	commits  bool // the marker
	isOfGone bool // the topic was deleted
}

// offsetsLog is one partition of __consumer_offsets.
type offsetsLog struct {
	written history
	kept    history // what compaction has left of it, which readers get
	end     record.Offset
}

func (l *offsetsLog) append(e entry) {
	e.at = l.end
	l.written, l.kept = append(l.written, e), append(l.kept, e)
	l.end++
}

// cut removes the last entries, as an unclean election of a leader does. What compaction has removed does not come back.
func (l *offsetsLog) cut(to record.Offset) {
	l.kept = slices.DeleteFunc(l.kept, func(e entry) bool { return e.at >= to })
	l.written, l.end = slices.Clone(l.kept), to
}

// history is entries of one log, in order.
type history []entry

// isCommitted tells whether an entry counts: it is of no transaction, or of one that a marker has committed. The first marker after it decides.
func (h history) isCommitted(e *entry) bool {
	if e.producer == 0 {
		return true
	}
	for i := range h {
		if m := &h[i]; m.isMarker && m.at > e.at && m.producer == e.producer {
			return m.commits
		}
	}
	return false
}

func (h history) isEnded(e *entry) bool {
	return e.producer == 0 || slices.ContainsFunc(h, func(m entry) bool { return m.isMarker && m.at > e.at && m.producer == e.producer })
}

// findEnd finds when a commit began to count.
func (h history) findEnd(e *entry) int64 {
	for i := range h {
		if m := &h[i]; m.isMarker && m.at > e.at && m.producer == e.producer && e.producer != 0 {
			return m.true
		}
	}
	return e.true
}

// find is the rule of what a group's position is: the commit with the highest offset that counts and that no tombstone follows; nil: there is none.
func (h history) find(group string, place position.Place) (last *entry) {
	for i := range h {
		e := &h[i]
		switch {
		case e.isMarker || e.group != group || e.place != place:
		case e.isGone:
			last = nil
		case h.isCommitted(e):
			last = e
		}
	}
	return last
}

// isOpen tells whether a transaction that is open has a commit for a position.
func (h history) isOpen(group string, place position.Place) bool {
	return slices.ContainsFunc(h, func(e entry) bool {
		return !e.isMarker && !e.isGone && e.group == group && e.place == place && !h.isEnded(&e)
	})
}

// findTombstone finds the last one of a position; nil: it has none.
func (h history) findTombstone(group string, place position.Place) (last *entry) {
	for i := range h {
		if e := &h[i]; e.isGone && e.group == group && e.place == place {
			last = e
		}
	}
	return last
}

// compact removes what a cleaner may remove: commits that a later record of the same place makes useless. A record of a transaction that is open stays, and so do tombstones and markers.
func (l *offsetsLog) compact() {
	l.kept = slices.DeleteFunc(l.kept, func(e entry) bool {
		if e.isMarker || e.isGone || !l.written.isEnded(&e) {
			return false
		}
		return slices.ContainsFunc(l.written, func(o entry) bool {
			return !o.isMarker && o.at > e.at && o.group == e.group && o.place == e.place && (o.isGone || l.written.isCommitted(&o))
		})
	})
}

// batch is an entry as Kafka has it on its disk. skew is by how much its clock is ahead.
func (e *entry) batch(skew int64) record.Batch {
	if e.isMarker {
		b, err := record.BuildMarker(e.true+skew, e.producer, e.epoch, record.Marker{Commit: e.commits})
		if err != nil {
			panic(err)
		}
		b.SetBaseOffset(e.at)
		return b
	}
	var bu record.Builder
	if e.producer != 0 {
		bu.Transactional = true
		bu.SetProducer(e.producer, e.epoch, 0)
	}
	var value []byte
	if !e.isGone {
		o := commit.Offset{At: e.offset, Epoch: epochOf(e.offset), Time: e.true + skew, Expires: commit.NoExpiry, Topic: e.id, Metadata: fmt.Sprint(e.offset)}
		value = o.AppendTo(nil)
	}
	bu.Append(e.true+skew, commit.AppendKey(nil, e.group, e.place.Topic, e.place.Partition), value)
	b, err := bu.Build()
	if err != nil {
		panic(err)
	}
	b.SetBaseOffset(e.at)
	return slices.Clone(b)
}

func epochOf(offset record.Offset) record.Epoch { return record.Epoch(offset / 10) }

// placed is the position of an entry.
func (e *entry) placed() position.Placed {
	return position.Placed{Place: e.place, Position: position.Position{Offset: e.offset, Epoch: epochOf(e.offset), Metadata: fmt.Sprint(e.offset), TopicID: e.id}}
}

// openTransactions are the epochs of the producers whose transactions have commits in the log.
func (h history) openTransactions() map[int64]int16 {
	all := map[int64]int16{}
	for i := range h {
		if e := &h[i]; !e.isMarker && !h.isEnded(e) {
			all[e.producer] = e.epoch
		}
	}
	return all
}
