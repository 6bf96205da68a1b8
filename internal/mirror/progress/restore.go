package progress

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// findFork looks for the offset up to which the log here, which clients of this cluster have written, is the same as that of the source, which has mirrored it and was then promoted. It is the search for where logs part (KIP-279),
// among the epochs from before the fork alone: after it both clusters have counted on by themselves, so that equal epochs prove nothing.
func findFork(m *Mirror) {
	switch last := m.epochEnd(m.assignment.Durable.Fork.Epoch - 1); {
	case m.isEmpty():
		m.ask(Action{Kind: Cut, Offset: min(m.log.End, m.assignment.Durable.Fork.Offset)}) // below its start it begins anew there
	case last.Epoch == record.NoEpoch:
		copyAnew(m, "nothing is here any more from before the source took over")
		m.begin(m.want, 0)
	default:
		m.comparison.ask(last.Epoch)
		m.begin(m.comparison.search(), toPart)
	}
}

// partAtFork takes the source's answer for an epoch. Of its log only what lies below the fork counts.
func partAtFork(m *Mirror, now time.Duration, asked record.Epoch, found Tail) {
	fork := m.assignment.Durable.Fork.Offset
	if found.Epoch == record.NoEpoch { // it has deleted all up to this epoch, so that nothing contradicts what is here of it; later ones, which are here, it never had
		m.comparison.stage = notSearching
		m.want = Action{Kind: Cut, Offset: min(m.epochEnd(asked).End, fork)}
		return
	}
	found.End = min(found.End, fork)
	f := m.comparison.part(&m.here, asked, found)
	switch {
	case m.comparison.stage == measuring:
		m.comparison.stage = notSearching
		copyAnew(m, "the source has none of the records here")
	case f.kind == parts:
		m.want = Action{Kind: Cut, Offset: f.at}
	case f.kind == agrees: // nothing is to be cut, and a cut says all the same that the partition mirrors from now on
		m.want = Action{Kind: Cut, Offset: m.log.End}
	case f.kind != open:
		m.fail(now, f.reason)
	}
}

// copyAnew has all records here be dropped, and kept aside, and those of the source be copied from its start.
func copyAnew(m *Mirror, reason string) {
	d := m.assignment.Durable
	d.State, d.Reason, d.Range, d.Fork = Cutting, reason, Range{}, Fork{}
	m.want = m.declare(d)
}
