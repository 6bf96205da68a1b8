package progress

import (
	"fmt"

	"github.com/leatstream/leat/internal/record"
)

// comparison compares the records here with those of the source, by questions for epochs and single batches. It proves that they are the same where no fetch does, since the source does not compare
// epochs or the topic has no id; and it finds the offset at which they part.
type comparison struct {
	proof proof
	stage stage
	epoch record.Epoch  // of asking
	at    record.Offset // of confirming; of measuring: where the source's records of earlier epochs end, or -1
	// specimen is the batch here that the source is asked for, of epochsFit and of confirming. If the source's compaction has removed it, the one before it is taken.
	specimen Batch
	tries    int // how often it was
}

// maxSpecimens bounds how many batches are looked for that the source's compaction has removed.
const maxSpecimens = 16

// proof says whether the records here are known to be those of the source.
type proof uint8

const (
	unproven  proof = iota
	epochsFit       // the source has the epoch of the last record, up to that record at least
	unopposed       // and it has deleted the last batch, so that there is nothing more to compare
	proven          // and it has the same last batch
)

// stage is how far the search is for the offset at which the log here and that of the source part.
type stage uint8

const (
	notSearching stage = iota
	asking             // the source is asked for the end of an epoch
	measuring          // the source is asked for the limits of its log, since it knows no epoch that is here
	confirming         // the last batch before the offset is read again: the topic has no id, and may be another one
)

// finding is what a comparison has found.
type finding struct {
	kind   findingKind
	at     record.Offset // of parts
	reason string
}

type findingKind uint8

const (
	open      findingKind = iota // nothing yet: there is a next question, or there was nothing to find
	parts                        // the logs part at an offset
	agrees                       // they do not part
	overtaken                    // the source has deleted all that is here
	other                        // the source's topic is another one
	useless                      // the answer is of no use
)

// isNeeded tells whether nothing may be appended before the records here were compared.
func (c *comparison) isNeeded(h *here, isOld bool) bool {
	return c.proof < unopposed && !h.isBlind() && (h.hasNoID() || isOld)
}

// doubt has the records of a topic without an id be compared again if it was not read for too long: it may be another one by now.
func (c *comparison) doubt(h *here, isTooLong bool) {
	if h.hasNoID() && isTooLong {
		c.proof = unproven
	}
}

// prove is the next question of a proof: for the end of the last epoch, and then for the last batch.
func (c *comparison) prove(h *here) Action {
	if c.proof == unproven {
		return Action{Kind: FindEpoch, Epoch: h.log.LastEpoch}
	}
	return Action{Kind: Reread, Offset: c.specimen.Base}
}

// fit takes that the source has the last epoch, up to the last record at least.
func (c *comparison) fit(h *here) {
	c.proof, c.specimen, c.tries = epochsFit, h.log.Last, 0
	if c.specimen.IsNone() {
		c.proof = unopposed
	}
}

// ask has the source be asked for the end of an epoch that is here.
func (c *comparison) ask(e record.Epoch) { c.proof, c.stage, c.epoch = unproven, asking, e }

// search is the next question of a search.
func (c *comparison) search() Action {
	switch c.stage {
	case asking:
		return Action{Kind: FindEpoch, Epoch: c.epoch}
	case measuring:
		return Action{Kind: FindRange}
	default:
		return Action{Kind: Reread, Offset: c.specimen.Base}
	}
}

// part takes the source's answer for an epoch: the last epoch that is not above it, and its end. Of the epochs that are known on both sides, the highest one ends on one side where the logs part
// (KIP-279): records of one epoch are the same as far as both have them. Until there is such an epoch, lower and lower ones are asked for.
func (c *comparison) part(h *here, asked record.Epoch, found Tail) finding {
	c.proof, c.stage = unproven, notSearching
	own := h.epochEnd(found.Epoch)
	if found.Epoch == record.NoEpoch {
		own = h.epochEnd(asked - 1) // the source knows later epochs neither, or none at all
	}
	switch {
	case found.Epoch > asked:
		return finding{useless, 0, fmt.Sprintf("the source answers with epoch %d for epoch %d", found.Epoch, asked)}
	case own.Epoch == record.NoEpoch:
		c.stage, c.at = measuring, -1
		if found.Epoch != record.NoEpoch {
			c.at = found.End
		}
	case own.Epoch == found.Epoch:
		return c.meet(h, min(own.End, found.End))
	default:
		c.ask(own.Epoch)
	}
	return finding{}
}

// partAll deals with a source that knows no epoch that is here, and does not begin beyond the end. It may begin there. Else all that it has is to be copied, unless its earlier epochs show that what
// was deleted here was the same there.
func (c *comparison) partAll(h *here, r SourceRange) finding {
	at := r.Start
	if c.at >= 0 {
		at = min(h.log.Start, c.at)
	}
	c.stage = notSearching
	switch {
	case h.log.End == r.Start, at >= h.log.End:
		return finding{kind: overtaken}
	case h.hasNoID():
		return finding{other, 0, "the source has no epoch of the records here"}
	}
	return c.meet(h, at)
}

// meet takes the offset at which the logs part. If the topic has no id, the last batch before it must be the source's, or it is another topic.
func (c *comparison) meet(h *here, at record.Offset) finding {
	switch {
	case at >= h.log.End:
		return finding{agrees, 0, "the source does not serve what follows the records here, though it has them"}
	case !h.hasNoID():
		return finding{kind: parts, at: at}
	}
	b := h.reader.BatchBefore(at)
	if b.IsNone() {
		return finding{other, 0, "the source has none of the records here"}
	}
	c.stage, c.at, c.specimen, c.tries = confirming, at, b, 0
	return finding{}
}

// match takes the batch that the source has at the place of the specimen. Compaction may have changed or removed it, unless the topic was gone in between. isDeleted: the source's start is beyond it.
func (c *comparison) match(h *here, b *Batch, isDeleted, wasGone bool) finding {
	own := c.specimen
	isCompacted := h.assignment.Settings.IsCompacted && !wasGone
	switch {
	case isDeleted && (wasGone || c.stage == confirming) && h.hasNoID():
		return finding{other, 0, fmt.Sprintf("the source does not have the batch at offset %d, by which it could be told from another topic", own.Base)}
	case isDeleted:
		c.proof = unopposed
		return finding{}
	case isCompacted && b.Base > own.Base && c.stepBack(h):
		return finding{}
	case !own.isSame(b, isCompacted) && (!isCompacted || b.Base <= own.Base):
		return finding{other, 0, fmt.Sprintf("the source has another batch at offset %d", own.Base)}
	case c.stage == confirming:
		c.stage = notSearching
		return finding{kind: parts, at: c.at}
	}
	c.proof = proven
	return finding{}
}

// stepBack takes the batch before as the specimen; false: there is none.
func (c *comparison) stepBack(h *here) bool {
	b := h.reader.BatchBefore(c.specimen.Base)
	if b.IsNone() || c.tries == maxSpecimens {
		return false
	}
	c.specimen, c.tries = b, c.tries+1
	return true
}
