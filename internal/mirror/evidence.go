package mirror

import (
	"container/list"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn/entry"
)

const (
	// mostEvidence is how many bytes, about, are kept of the transactions of a source. Beyond that the transactional ids are forgotten that were not used for the longest time.
	mostEvidence = 16 << 20
	// mostDecisions is how many decisions are kept of a transactional id: the last ones. A mirror that is further behind lacks records of them in any case.
	mostDecisions = 32
	// mostCited is to how many partitions a transaction may have written of which anything is kept.
	mostCited = 10_000
	// These are what an id, a decision and a topic of it take, about, and maxEntries how large the records of a batch may be, decompressed.
	idBytes, decisionBytes, topicBytes = 200, 100, 40
	maxEntries                         = 64 << 20
)

// evidence is what this node has read of the transactions of a link's source, in its coordinators' logs. What is forgotten of a transactional id is forgotten altogether: a decision alone, without what came after it, could
// be taken for that of a later transaction.
type evidence struct {
	mu    sync.Mutex // guards the fields below
	ids   map[transactional]*list.Element
	used  list.List // of *knownID: the one that was read last is the first one
	bytes int
}

// transactional is a transactional id, and the partition of the coordinators' log that has it.
type transactional struct {
	partition int32
	id        string
}

// knownID is what is known of a transactional id.
type knownID struct {
	transactional

	decisions []sourceDecision // the oldest first
	ongoing   *entry.Transaction
	bytes     int
}

// sourceDecision is a decision, with the partitions by their topics at the source.
type sourceDecision struct {
	progress.Decision

	topics []entry.Partitions
}

func newEvidence() *evidence { return &evidence{ids: map[transactional]*list.Element{}} }

// read reads a batch of the coordinators' log, at a time. What cannot be read of an id is as if it had ended long ago.
func (e *evidence) read(partition int32, b record.Batch, now time.Duration) {
	if b.Control() {
		return
	}
	var r record.Reader
	defer r.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for r.Reset(b, maxEntries); r.Next(); {
		id, err := entry.DecodeKey(r.Record.Key)
		if err != nil {
			continue
		}
		of := transactional{partition, id}
		t, err := entry.Decode(r.Record.Value, nil)
		if err != nil || citations(t.Topics) > mostCited { // a tombstone, too, cannot be decoded
			e.forgetLocked(of)
			continue
		}
		e.takeLocked(of, &t, int64(r.Record.Offset), now)
	}
	if r.Err() != nil { // nobody knows of which ids records were missed
		e.forgetPartitionLocked(partition)
	}
}

// citations is how many partitions a list has, and topics: those without partitions take time and memory, too.
func citations(topics []entry.Partitions) (n int) {
	for i := range topics {
		n += 1 + len(topics[i].Partitions)
	}
	return n
}

// takeLocked takes what a record says of an id. mu is held.
func (e *evidence) takeLocked(of transactional, t *entry.Transaction, at int64, now time.Duration) {
	element := e.ids[of]
	if element == nil {
		element = e.used.PushFront(&knownID{transactional: of})
		e.ids[of] = element
	}
	e.used.MoveToFront(element)
	k := knownOf(element)
	k.ongoing = nil
	switch t.Status {
	case entry.Ongoing:
		k.ongoing = t
	case entry.PrepareCommit, entry.PrepareAbort:
		k.decisions = append(k.decisions, sourceDecision{progress.Decision{
			Producer: t.Producer, MarkerEpoch: t.Epoch, Commit: t.Status == entry.PrepareCommit, OwnEpoch: t.Version >= 2, At: at, Seen: now, Completed: progress.Never,
		}, t.Topics})
		if n := len(k.decisions) - mostDecisions; n > 0 {
			k.decisions = append([]sourceDecision(nil), k.decisions[n:]...)
		}
	case entry.CompleteCommit, entry.CompleteAbort:
		if n := len(k.decisions); n > 0 && k.decisions[n-1].Completed == progress.Never {
			k.decisions[n-1].Completed = now
		}
	case entry.Empty:
	default: // it is of a later version
		e.forgetLocked(of)
		return
	}
	e.bytes -= k.bytes
	k.bytes = k.size()
	e.bytes += k.bytes
	for e.bytes > mostEvidence && e.used.Len() > 0 {
		e.forgetLocked(knownOf(e.used.Back()).transactional)
	}
}

func knownOf(e *list.Element) *knownID {
	k, _ := e.Value.(*knownID)
	return k
}

// size is how many bytes are kept of an id, about.
func (k *knownID) size() int {
	n := idBytes + len(k.id)
	add := func(topics []entry.Partitions) {
		n += decisionBytes + 4*citations(topics)
		for i := range topics {
			n += topicBytes + len(topics[i].Topic)
		}
	}
	for i := range k.decisions {
		add(k.decisions[i].topics)
	}
	if k.ongoing != nil {
		add(k.ongoing.Topics)
	}
	return n
}

// forgetLocked forgets an id. mu is held.
func (e *evidence) forgetLocked(of transactional) {
	if element := e.ids[of]; element != nil {
		e.bytes -= knownOf(element).bytes
		e.used.Remove(element)
		delete(e.ids, of)
	}
}

// forgetPartition forgets all ids of a partition of the coordinators' log.
func (e *evidence) forgetPartition(partition int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forgetPartitionLocked(partition)
}

// forgetPartitionLocked is forgetPartition. mu is held.
func (e *evidence) forgetPartitionLocked(partition int32) {
	for of := range e.ids {
		if of.partition == partition {
			e.forgetLocked(of)
		}
	}
}

// list lists what is known, for the partitions that namesOf names; those that it does not name are not the link's.
func (e *evidence) list(namesOf func(topics []entry.Partitions) []progress.Partition) (decisions []progress.Decision, ongoing []progress.Ongoing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for element := e.used.Front(); element != nil; element = element.Next() {
		k := knownOf(element)
		for i := range k.decisions {
			d := k.decisions[i].Decision
			if d.Partitions = namesOf(k.decisions[i].topics); len(d.Partitions) > 0 {
				decisions = append(decisions, d)
			}
		}
		if o := k.ongoing; o != nil {
			if names := namesOf(o.Topics); len(names) > 0 {
				ongoing = append(ongoing, progress.Ongoing{Producer: o.Producer, Epoch: o.Epoch, Partitions: names})
			}
		}
	}
	return decisions, ongoing
}
