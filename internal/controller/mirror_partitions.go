package controller

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// NoLeaderEpoch is the leader epoch of a MirrorPartition for which a person asks, and not the partition's leader.
const NoLeaderEpoch int32 = -1

// epochStep is in which steps leader epochs are raised above those of a source, so that this is rare.
const epochStep = 1000

// MirrorPartition asks for a change of a partition that mirrors.
type MirrorPartition struct {
	Topic  meta.UUID `json:"topic"`
	Number int32     `json:"number"`
	// LeaderEpoch is the one in which who asks leads the partition: what an earlier leader asks for is refused. RaiseEpochs does not look at it.
	LeaderEpoch int32 `json:"leaderEpoch"`

	// These are of SetMirrorStates. A reason that is too long is cut off. A person has the partition leave out a gap by PartitionMirrors with that very Gap.
	State  meta.PartitionMirrorState `json:"state,omitempty"`
	Reason string                    `json:"reason,omitempty"`
	Gap    meta.OffsetRange          `json:"gap"`
	// Begin says where the partition begins to mirror, and TombstonesSince is as in meta.PartitionMirror; nil and 0: they stay as they are.
	Begin           *meta.MirrorBegin `json:"begin,omitempty"`
	TombstonesSince int64             `json:"tombstonesSince,omitempty"`
	// Was is what who asks takes the State, Gap and Begin to be. If they are others by now, the change is refused: it comes late. Nil: it does not matter.
	Was *meta.PartitionMirror `json:"was,omitempty"`

	Cut   meta.Cut `json:"cut"`   // of CutMirrors: its number is the next one
	Epoch int32    `json:"epoch"` // of RaiseEpochs: the leader epoch is not to be below
	// End is, of DecidePromotions, the offset at which the log ended when nothing of the source came any more: from there on this cluster writes. Of FinishPromotions it is the offset at
	// which the log of the leader ends, behind its markers.
	End       int64                 `json:"end"`
	Decisions []meta.MirrorDecision `json:"decisions,omitempty"` // of DecidePromotions
	// Parting is, of FinishPromotions, what the leader knew of the source when the promotion began; nil: nothing.
	Parting *meta.Parting `json:"parting,omitempty"`
}

// mirrorDecision decides the partitions of one change.
type mirrorDecision struct {
	*Rules

	kind LinksKind
	link meta.UUID // of DecidePromotions
	seen map[partitionID]bool
	left map[meta.UUID]int // how many partitions are not promoted yet, of topics that are
}

// changeMirrorPartitions decides as many of the partitions as fit into one part.
func changeMirrorPartitions(r *Rules, q *LinksChange, from int) (d Part, results []*Error, refused *Error) {
	d = r.newPart()
	if q.Kind == DecidePromotions {
		if refused := checkDecided(r.Image, q); refused != nil {
			return Part{}, nil, refused
		}
	}
	m := mirrorDecision{Rules: r, kind: q.Kind, link: q.LinkID, seen: map[partitionID]bool{}, left: map[meta.UUID]int{}}
	for i := range q.Partitions[from:] {
		a := &q.Partitions[from+i]
		records, refused := m.decide(a)
		if !d.add(records) {
			break
		}
		m.note(a, records)
		results = append(results, refused)
	}
	return d, results, nil
}

// DecidedSum is a sum of the partitions of a link of which it is decided how the transactions end that were open. Who decides more has seen these decisions, so that all of a transaction ends in one way.
func DecidedSum(m *meta.Image, link meta.UUID) (sum uint64) {
	for t := range m.Mirrors(link) {
		for i := range t.Partitions {
			if p := t.Partitions[i].Mirror; p != nil && p.IsDecided {
				sum += DecidedPart(t.ID, int32(i))
			}
		}
	}
	return sum
}

// DecidedPart is the part of one partition in a DecidedSum.
func DecidedPart(topic meta.UUID, number int32) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint32(topic[:], uint32(number)))
	return h.Sum64()
}

// checkDecided refuses decisions of somebody who has not seen all that is decided of the link. What the change itself has decided, in an earlier part or when it was asked for before, is known to him.
func checkDecided(m *meta.Image, q *LinksChange) *Error {
	own, seen := uint64(0), map[partitionID]bool{}
	for i := range q.Partitions {
		a := &q.Partitions[i]
		t, id := m.TopicByID(a.Topic), partitionID{a.Topic, a.Number}
		if t == nil || a.Number < 0 || int(a.Number) >= len(t.Partitions) || seen[id] {
			continue
		}
		seen[id] = true
		if p := t.Partitions[a.Number].Mirror; p != nil && p.IsDecided && slices.Equal(p.Decisions, a.Decisions) {
			own += DecidedPart(a.Topic, a.Number)
		}
	}
	if now := DecidedSum(m, q.LinkID); now != q.Decided && now != q.Decided+own {
		return refuse(InvalidUpdate, "How transactions of the link end is decided for other partitions by now.")
	}
	return nil
}

// note notes that a partition is changed by this part.
func (m *mirrorDecision) note(a *MirrorPartition, records []byte) {
	m.seen[partitionID{a.Topic, a.Number}] = true
	if m.kind == FinishPromotions && records != nil {
		m.left[a.Topic]--
	}
}

func (m *mirrorDecision) decide(a *MirrorPartition) (records []byte, refused *Error) {
	t := m.Image.TopicByID(a.Topic)
	switch {
	case t == nil:
		return nil, refuse(UnknownTopicID, "")
	case a.Number < 0 || int(a.Number) >= len(t.Partitions):
		return nil, refuse(UnknownPartition, "")
	case m.seen[partitionID{a.Topic, a.Number}]:
		return nil, refuse(InvalidRequest, "The partition is in the request more than once.")
	case t.Partitions[a.Number].Mirror == nil:
		return nil, refuse(InvalidRequest, "Partition %d of the topic %s mirrors nothing.", a.Number, t.Name)
	}
	switch m.kind {
	case SetMirrorStates:
		return setPartitionState(t, a)
	case CutMirrors:
		return m.cutMirror(t, a)
	case RaiseEpochs:
		return m.raiseEpoch(t, a)
	case DecidePromotions:
		return m.decidePromotion(t, a)
	default:
		return m.finishPromotion(t, a)
	}
}

// checkLeads refuses what another than the present leader asks for.
func (a *MirrorPartition) checkLeads(p *meta.Partition) *Error {
	switch {
	case a.LeaderEpoch > p.LeaderEpoch:
		return refuse(NotController, "")
	case a.LeaderEpoch < p.LeaderEpoch:
		return refuse(FencedLeaderEpoch, "")
	}
	return nil
}

// checkMirrors refuses a change of a partition whose topic was promoted since, or is just being promoted.
func checkMirrors(t *meta.Topic, p *meta.Partition) *Error {
	if p.Mirror.State >= meta.PartitionPromoting {
		return refuse(InvalidUpdate, "The topic %s was promoted, or is just being promoted.", t.Name)
	}
	return nil
}

// appendMirror appends the record of how far a partition mirrors, unless it cannot be so.
func (a *MirrorPartition) appendMirror(records []byte, next *meta.PartitionMirror) ([]byte, *Error) {
	if err := next.Check(); err != nil {
		return nil, refuse(InvalidRequest, "The metadata cannot have that: %v.", err)
	}
	return meta.Append(records, meta.PartitionMirrorSet{Topic: a.Topic, Partition: a.Number, PartitionMirror: *next}), nil
}

func setPartitionState(t *meta.Topic, a *MirrorPartition) (records []byte, refused *Error) {
	p := &t.Partitions[a.Number]
	next := *p.Mirror
	next.State, next.Reason, next.Gap = a.State, a.Reason, a.Gap
	if a.Begin != nil {
		next.Begin = *a.Begin
	}
	if a.TombstonesSince != 0 {
		next.TombstonesSince = a.TombstonesSince
	}
	if len(next.Reason) > meta.MaxMirrorReason {
		next.Reason = strings.ToValidUTF8(next.Reason[:meta.MaxMirrorReason], "")
	}
	if next.Equal(p.Mirror) {
		return nil, nil
	}
	if refused := checkMirrors(t, p); refused != nil {
		return nil, refused
	}
	switch {
	case a.State >= meta.PartitionPromoting:
		return nil, refuse(InvalidRequest, "Partition %d of the topic %s is promoted with its topic.", a.Number, t.Name)
	case a.State == meta.PartitionRestoring:
		return nil, refuse(InvalidRequest, "Partition %d of the topic %s is restored with its topic.", a.Number, t.Name)
	case p.Mirror.State == meta.PartitionRestoring && a.State != meta.PartitionEmptying:
		return nil, refuse(InvalidUpdate, "Partition %d of the topic %s is to be cut first where its log and that of the source part.", a.Number, t.Name)
	}
	if a.LeaderEpoch == NoLeaderEpoch {
		isLoss := p.Mirror.State == meta.PartitionGap || p.Mirror.State == meta.PartitionTombstonesLost
		if isLoss && a.State != meta.PartitionEmptying && a.Gap != p.Mirror.Gap {
			return nil, refuse(InvalidUpdate, "The gap of partition %d of the topic %s is not from offset %d to %d any more, but from %d to %d.", a.Number, t.Name, a.Gap.Start, a.Gap.End, p.Mirror.Gap.Start, p.Mirror.Gap.End)
		}
	} else if refused := a.checkLeads(p); refused != nil {
		return nil, refused
	}
	if w := a.Was; w != nil && (w.State != p.Mirror.State || w.Gap != p.Mirror.Gap || w.Begin != p.Mirror.Begin) {
		return nil, refuse(InvalidUpdate, "Partition %d of the topic %s is not in the state any more in which it was.", a.Number, t.Name)
	}
	return a.appendMirror(nil, &next)
}

// cutMirror sets a cut in a new leader epoch: no leader of that epoch has served what is beyond it. The partition then mirrors again from the cut on, and finds out anew whether
// there is a gap. One that is emptied stays in that state, until its leader has seen that it is empty.
func (m *mirrorDecision) cutMirror(t *meta.Topic, a *MirrorPartition) (records []byte, refused *Error) {
	p := &t.Partitions[a.Number]
	last := p.Mirror.LastCut()
	if last == a.Cut && a.Cut.Number > 0 {
		return nil, nil
	}
	if refused := checkMirrors(t, p); refused != nil {
		return nil, refused
	}
	if refused := a.checkLeads(p); refused != nil {
		return nil, refused
	}
	if last.Number == math.MaxInt32 || a.Cut.Number != last.Number+1 {
		return nil, refuse(InvalidUpdate, "Partition %d of the topic %s was cut %d times, and cut %d is not the next one.", a.Number, t.Name, last.Number, a.Cut.Number)
	}
	next := p.Mirror.WithCut(a.Cut.Offset)
	if p.Mirror.State == meta.PartitionRestoring { // they are those of the source, which has what comes behind the cut
		next.Lineages = p.Mirror.Lineages
	}
	if next.State != meta.PartitionEmptying {
		next.State, next.Reason, next.Gap = meta.PartitionMirrors, "", meta.OffsetRange{}
	}
	records, _, refused = m.raise(t, a.Number, p.LeaderEpoch+1)
	if refused != nil {
		return nil, refused
	}
	return a.appendMirror(records, next)
}

// raiseEpoch raises a leader epoch to the next multiple of epochStep.
func (m *mirrorDecision) raiseEpoch(t *meta.Topic, a *MirrorPartition) (records []byte, refused *Error) {
	p := &t.Partitions[a.Number]
	if p.LeaderEpoch >= a.Epoch {
		return nil, nil
	}
	if !p.IsMirror() {
		return nil, refuse(InvalidUpdate, "Partition %d of the topic %s was promoted.", a.Number, t.Name)
	}
	least := (int64(a.Epoch) + epochStep - 1) / epochStep * epochStep
	records, _, refused = m.raise(t, a.Number, int32(min(least, math.MaxInt32)))
	return records, refused
}

// raise raises a leader epoch, and returns what it is then. The last ones are never given: nobody could lead after them.
func (m *mirrorDecision) raise(t *meta.Topic, number, epoch int32) (record []byte, raised int32, refused *Error) {
	c := m.newChange(t, number)
	if epoch <= c.old.LeaderEpoch || epoch >= math.MaxInt32-1 {
		return nil, 0, refuse(PolicyViolation, "Partition %d of the topic %s has no leader epochs left: it has %d, and the source comes near %d.", number, t.Name, c.old.LeaderEpoch, math.MaxInt32)
	}
	c.next.LeaderEpoch, c.renew = epoch, true
	record = c.finish()
	return record, c.next.LeaderEpoch, nil
}

// decidePromotion sets how the transactions end that are open in a partition which is promoted, once. The markers come in a new leader epoch, which is above all epochs of the source; what is written
// in it is this cluster's.
func (m *mirrorDecision) decidePromotion(t *meta.Topic, a *MirrorPartition) (records []byte, refused *Error) {
	p := &t.Partitions[a.Number]
	switch {
	case t.Mirror.Link != m.link:
		return nil, refuse(InvalidRequest, "The topic %s does not mirror by the link %s.", t.Name, m.link)
	case p.Mirror.IsDecided:
		return nil, nil
	case p.Mirror.State != meta.PartitionPromoting:
		return nil, refuse(InvalidUpdate, "The topic %s is not being promoted.", t.Name)
	}
	if refused := a.checkLeads(p); refused != nil {
		return nil, refused
	}
	records, epoch, refused := m.raise(t, a.Number, p.LeaderEpoch+1)
	if refused != nil {
		return nil, refused
	}
	next := p.Mirror.WithLineage(meta.Lineage{Cluster: m.Image.ClusterID, Epoch: epoch, Start: a.End})
	next.IsDecided, next.Decisions = true, a.Decisions
	return a.appendMirror(records, next)
}

// finishPromotion makes an ordinary partition of one in which all transactions have ended that were open. Clients write to it in a new leader epoch.
func (m *mirrorDecision) finishPromotion(t *meta.Topic, a *MirrorPartition) (records []byte, refused *Error) {
	p := &t.Partitions[a.Number]
	switch {
	case p.Mirror.State == meta.PartitionPromoted:
		return nil, nil
	case p.Mirror.State != meta.PartitionPromoting:
		return nil, refuse(InvalidUpdate, "The topic %s is not being promoted.", t.Name)
	case !p.Mirror.IsDecided:
		return nil, refuse(InvalidUpdate, "It is not decided how the transactions of partition %d of the topic %s end.", a.Number, t.Name)
	}
	if refused := a.checkLeads(p); refused != nil {
		return nil, refused
	}
	records, _, refused = m.raise(t, a.Number, p.LeaderEpoch+1)
	if refused != nil {
		return nil, refused
	}
	next := *p.Mirror
	next.State, next.Reason, next.Parting = meta.PartitionPromoted, "", a.Parting
	if records, refused = a.appendMirror(records, &next); refused != nil {
		return nil, refused
	}
	if m.countLeft(t) == 1 {
		records = append(records, setMirrorState(t, meta.MirrorPromoted)...)
	}
	return records, nil
}

// countLeft is how many partitions of a topic are not promoted before the one that is decided.
func (m *mirrorDecision) countLeft(t *meta.Topic) int {
	left, isCounted := m.left[t.ID]
	if !isCounted {
		for i := range t.Partitions {
			if t.Partitions[i].IsMirror() {
				left++
			}
		}
		m.left[t.ID] = left
	}
	return left
}
