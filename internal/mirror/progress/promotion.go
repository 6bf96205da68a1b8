package progress

import (
	"math"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Partition names a mirrored partition by its topic here.
type Partition struct {
	Topic  string
	Number int32
}

// Open is a transaction that is open in a mirrored partition.
type Open struct {
	Producer   int64
	Epoch      int16         // of its records
	First      record.Offset // of its records
	MirroredBy time.Duration // when its first record was here at the latest: Mirror.HeldAt of First
}

// Holding is what one partition that this node leads has. All times of holdings and of evidence are those of one clock, that of this node, since they are compared with each other. No time that is
// in a record counts: nobody's clock is that of another one.
type Holding struct {
	Partition Partition
	AsOf      time.Duration // the mirror has all that the source had committed at that time: Mirror.HeldAt; Never: nothing is known
	Open      []Open
	Committed []Committed // the commit markers in the log, at least those that came last for each producer
}

// Committed is a commit marker.
type Committed struct {
	Producer    int64
	MarkerEpoch int16
	Seen        time.Duration // when this node had it, or had been told of it
}

// Decision is the end of a transaction as the source's coordinator has written it into its log: a prepared or completed commit or abort.
type Decision struct {
	Producer    int64
	MarkerEpoch int16 // of the markers
	Commit      bool
	// OwnEpoch tells that it is a transaction of version 2 (KIP-890), whose producer takes a new epoch for each transaction: the records have the one before MarkerEpoch. Older clients use one epoch
	// for many transactions, so that it proves nothing of the next one, or of the one before.
	OwnEpoch   bool
	Partitions []Partition // those of the link that it wrote to
	At         int64       // its offset in the coordinator's log, which tells it from others of the same epoch
	Seen       time.Duration
	Completed  time.Duration // when this node had read that all markers are written; Never: it has not
}

// Ongoing is a transaction that the coordinator's log has as not decided.
type Ongoing struct {
	Producer   int64
	Epoch      int16
	Partitions []Partition
}

// Evidence is what this node knows of the source's transactions.
type Evidence struct {
	// AsOf is a time at which the source's coordinators had written nothing that was not read here; Never: none is known, or their log may not be read.
	AsOf      time.Duration
	Decisions []Decision // those of one producer in the order of the coordinator's log
	Ongoing   []Ongoing
	Markers   []Committed // of partitions that other nodes lead, as far as they have told
}

// Verdict is what one partition's mirror says about one transaction.
type Verdict uint8

// These are the verdicts.
const (
	Undecided Verdict = iota // nothing proves how the transaction ended to which the records belong
	Aborted                  // the source has aborted it
	Complete                 // the source has committed it, and the mirror has all of its records in this partition
	Lacking                  // the source has committed it, and the mirror may lack records of it in this partition
)

// Claim is what one partition says about one transaction.
type Claim struct {
	Partition   Partition
	Producer    int64
	Epoch       int16         // of its records
	MarkerEpoch int16         // of the marker that ends it here
	First       record.Offset // of its records that are open; -1: none are
	Verdict     Verdict
	IsVisible   bool // a mirror has its commit marker, so that readers may have read it
	// Partitions are those that the transaction wrote to, if the evidence tells, and At tells its decision from others of the same epoch.
	Partitions []Partition
	At         int64
}

// cite notes the decision that a claim is about.
func (c *Claim) cite(d *Decision) {
	c.Partitions = d.Partitions
	if !d.OwnEpoch {
		c.At = d.At
	}
}

// Examine says for each transaction that is open in one of this node's partitions, and for each that the source has committed but may be missing in one, what the evidence proves.
//
// A transaction that the source has decided to commit is complete in a partition whose mirror has all below a leader's high watermark that was asked for after the decision was known here: all of its
// records were committed before the decision. A marker in the partition itself would come later, and is not needed.
func Examine(e *Evidence, holdings []Holding) []Claim {
	x := examination{e: e, decisions: map[int64][]*Decision{}, ongoing: map[int64][]*Ongoing{}, markers: map[markerKey]time.Duration{}}
	for i := range e.Decisions {
		d := &e.Decisions[i]
		x.decisions[d.Producer] = append(x.decisions[d.Producer], d)
	}
	for i := range e.Ongoing {
		o := &e.Ongoing[i]
		x.ongoing[o.Producer] = append(x.ongoing[o.Producer], o)
	}
	x.addMarkers(e.Markers)
	for i := range holdings {
		x.addMarkers(holdings[i].Committed)
	}
	var claims []Claim
	byName := map[Partition]*Holding{}
	for i := range holdings {
		h := &holdings[i]
		byName[h.Partition] = h
		for k := range h.Open {
			claims = append(claims, x.judge(h, &h.Open[k]))
		}
	}
	last := map[producerPart]*Decision{}
	for i := range e.Decisions {
		d := &e.Decisions[i]
		for _, p := range d.Partitions {
			last[producerPart{d.Producer, p}] = d
		}
	}
	for i := range e.Decisions {
		d := &e.Decisions[i]
		for _, p := range d.Partitions {
			h, isLast := byName[p], last[producerPart{d.Producer, p}] == d
			if h != nil && d.Commit && (isLast || !d.isOver(h)) {
				claims = appendClosed(claims, h, d)
			}
		}
	}
	return claims
}

// producerPart is a producer in a partition.
type producerPart struct {
	producer  int64
	partition Partition
}

// markerKey names a marker of a producer.
type markerKey struct {
	producer int64
	marker   int16
}

// examination is the evidence, by producer.
type examination struct {
	e         *Evidence
	decisions map[int64][]*Decision
	ongoing   map[int64][]*Ongoing
	markers   map[markerKey]time.Duration // of commits: when the first one was seen
}

func (x *examination) addMarkers(all []Committed) {
	for _, c := range all {
		k := markerKey{c.Producer, c.MarkerEpoch}
		if seen, ok := x.markers[k]; !ok || c.Seen < seen {
			x.markers[k] = c.Seen
		}
	}
}

// judge says what is proven about the records that a partition has of an open transaction.
func (x *examination) judge(h *Holding, o *Open) Claim {
	c := Claim{Partition: h.Partition, Producer: o.Producer, Epoch: o.Epoch, MarkerEpoch: BumpEpoch(o.Epoch), First: o.First}
	last := x.lastDecision(h, o)
	switch {
	case last != nil && last.OwnEpoch || last == nil && x.isCommittedElsewhere(o):
		commit, seen := true, x.markers[markerKey{o.Producer, BumpEpoch(o.Epoch)}]
		if last != nil {
			commit, seen = last.Commit, last.Seen
			c.cite(last)
		}
		c.Verdict, c.IsVisible = verdict(commit, seen < h.AsOf), x.isCommittedElsewhere(o)
	case last != nil && x.isOf(h, o, last):
		c.MarkerEpoch = last.MarkerEpoch
		c.cite(last)
		c.Verdict = verdict(last.Commit, last.Seen < h.AsOf)
	}
	return c
}

// verdict is that of a partition which has, or may lack, what preceded a decision. A partition that may lack some may also have records of an earlier transaction of the same epoch, which had another end.
func verdict(commit, isComplete bool) Verdict {
	switch {
	case commit && isComplete:
		return Complete
	case commit:
		return Lacking
	case isComplete:
		return Aborted
	}
	return Undecided
}

// lastDecision is the last decision that can be that of an open transaction; nil: there is none.
func (x *examination) lastDecision(h *Holding, o *Open) *Decision {
	for _, d := range slices.Backward(x.decisions[o.Producer]) {
		if d.closes(o.Epoch) && slices.Contains(d.Partitions, h.Partition) {
			return d
		}
	}
	return nil
}

// closes tells whether a decision can be that of a transaction whose records have an epoch. One that fences a producer aborts those of the epochs before it.
func (d *Decision) closes(epoch int16) bool {
	switch {
	case d.OwnEpoch:
		return d.MarkerEpoch == BumpEpoch(epoch)
	case d.Commit:
		return d.MarkerEpoch == epoch
	}
	return d.MarkerEpoch == epoch || d.MarkerEpoch == BumpEpoch(epoch)
}

// isCommittedElsewhere tells whether some partition has the commit marker of a transaction of version 2. A commit marker with the epoch of the records themselves is that of an older client: it may
// be that of any of its transactions.
func (x *examination) isCommittedElsewhere(o *Open) bool {
	_, ok := x.markers[markerKey{o.Producer, BumpEpoch(o.Epoch)}]
	return ok && BumpEpoch(o.Epoch) > o.Epoch
}

// isOf tells whether open records are of the transaction that a decision of an older client ended, and not of a later one with the same epoch. Of a later one the coordinator had written that it goes on
// in this partition, before it had records here; so that has been read if the log of the coordinator was read up to a time at which the records were here. And if all markers of the decision are
// in the mirror, what is open came later.
func (x *examination) isOf(h *Holding, o *Open, d *Decision) bool {
	if d.isOver(h) || o.MirroredBy >= x.e.AsOf {
		return false
	}
	return !slices.ContainsFunc(x.ongoing[o.Producer], func(later *Ongoing) bool { return slices.Contains(later.Partitions, h.Partition) })
}

// isOver tells whether a partition's mirror has the marker of a decision, since it has all that the source had committed when all markers were written.
func (d *Decision) isOver(h *Holding) bool { return d.Completed != Never && d.Completed < h.AsOf }

// appendClosed appends a claim about a transaction that the source has committed, if the partition has nothing open of it: it may have all of it, with its marker, or nothing at all yet.
func appendClosed(claims []Claim, h *Holding, d *Decision) []Claim {
	if slices.ContainsFunc(h.Open, func(o Open) bool { return o.Producer == d.Producer && d.closes(o.Epoch) }) {
		return claims
	}
	c := Claim{Partition: h.Partition, Producer: d.Producer, Epoch: d.MarkerEpoch, MarkerEpoch: d.MarkerEpoch, First: -1, Verdict: Lacking, IsVisible: d.isOver(h)}
	c.cite(d)
	if d.OwnEpoch {
		c.Epoch--
	}
	c.IsVisible = c.IsVisible || slices.ContainsFunc(h.Committed, func(m Committed) bool { return m.Producer == d.Producer && m.MarkerEpoch == d.MarkerEpoch })
	if d.Seen < h.AsOf || c.IsVisible && d.OwnEpoch {
		c.Verdict = Complete
	}
	return append(claims, c)
}

// BumpEpoch is the epoch after a producer's epoch; the last one has none.
func BumpEpoch(e int16) int16 {
	if e == math.MaxInt16 {
		return e
	}
	return e + 1
}

// Outcome says how a transaction ends at a promotion. All but the first two are to be listed.
type Outcome uint8

// These are the outcomes.
const (
	CommitWhole    Outcome = iota // committed, as at the source
	AbortWhole                    // aborted, as at the source
	CommitByMarker                // committed, since the mirror of another partition has its marker; nobody here knows to which partitions it wrote, so that others may lack records of it
	AbortUndecided                // aborted; nobody here knows whether the source has committed it
	AbortLacking                  // aborted everywhere; the source has committed it, but records may be missing
	Torn                          // committed in some partitions, and in others aborted, or missing
)

// IsListed tells whether people are to be told of the transaction.
func (o Outcome) IsListed() bool { return o > AbortWhole }

// Resolution is the decision about one transaction in one partition.
type Resolution struct {
	Partition   Partition
	Producer    int64
	Epoch       int16
	MarkerEpoch int16
	First       record.Offset // -1: nothing is open, and no marker is to be written
	Commit      bool
	Outcome     Outcome
}

// transaction names a transaction. For older clients it may name several, one after the other.
type transaction struct {
	producer int64
	epoch    int16
}

// consensus is what all partitions say about one transaction.
type consensus struct {
	isCommitted bool // at the source
	isWhole     bool // in no partition here may records be missing
	isCited     bool // it is known to which partitions it wrote
	isVisible   bool // readers here may have read it as committed
	isAborted   bool // an earlier step has aborted it
}

// Resolve decides the transactions of a link, from the claims of all nodes about all of its partitions, also of those that are not promoted now. The result has what made has, and one resolution for each further
// claim that is open or listed. made are the decisions that are durable already, of this promotion or of an earlier one of the link: they stay, and others follow them, whatever the claims say by now.
//
// A transaction that the source has committed is committed if no partition may lack records of it; one whose node does not know of the decision may. Else it is aborted everywhere, unless readers may have read it as committed: then the partitions that
// have all of it commit it, and it is torn.
func Resolve(made []Resolution, claims []Claim) []Resolution {
	all := map[transaction]*consensus{}
	of := func(producer int64, epoch int16) *consensus {
		k := transaction{producer, epoch}
		if all[k] == nil {
			all[k] = &consensus{isWhole: true}
		}
		return all[k]
	}
	type part struct {
		transaction
		partition Partition
		at        int64
	}
	isMade, isClaimed := map[part]bool{}, map[part]bool{}
	for _, r := range made {
		isMade[part{transaction{r.Producer, r.Epoch}, r.Partition, 0}] = true
		if r.First >= 0 {
			s := of(r.Producer, r.Epoch)
			s.isVisible, s.isAborted = s.isVisible || r.Commit, s.isAborted || !r.Commit
		}
	}
	for i := range claims {
		c := &claims[i]
		s := of(c.Producer, c.Epoch)
		s.isVisible = s.isVisible || c.IsVisible
		s.isCommitted = s.isCommitted || c.Verdict == Complete || c.Verdict == Lacking
		s.isWhole = s.isWhole && c.Verdict == Complete
		isClaimed[part{transaction{c.Producer, c.Epoch}, c.Partition, c.At}] = true
	}
	for i := range claims {
		c := &claims[i]
		s := of(c.Producer, c.Epoch)
		s.isCited = s.isCited || len(c.Partitions) > 0
		for _, p := range c.Partitions {
			s.isWhole = s.isWhole && isClaimed[part{transaction{c.Producer, c.Epoch}, p, c.At}]
		}
	}
	result := slices.Clone(made)
	for i := range claims {
		c := &claims[i]
		if isMade[part{transaction{c.Producer, c.Epoch}, c.Partition, 0}] {
			continue
		}
		if r := of(c.Producer, c.Epoch).resolve(c); r.First >= 0 || r.Outcome.IsListed() {
			result = append(result, r)
		}
	}
	return result
}

// resolve decides a transaction in the partition of a claim.
func (s *consensus) resolve(c *Claim) Resolution {
	r := Resolution{c.Partition, c.Producer, c.Epoch, c.MarkerEpoch, c.First, false, AbortUndecided}
	switch {
	case c.Verdict == Aborted:
		r.Outcome = AbortWhole
	case !s.isCommitted && !s.isVisible: // nobody knows
	case s.isWhole && !s.isAborted:
		if r.Commit, r.Outcome = true, CommitWhole; !s.isCited {
			r.Outcome = CommitByMarker
		}
	case s.isVisible && c.Verdict == Complete && !s.isAborted:
		r.Commit, r.Outcome = true, Torn
	case s.isVisible:
		r.Outcome = Torn
	case c.Verdict != Undecided:
		r.Outcome = AbortLacking
	}
	if !r.Commit {
		r.MarkerEpoch = BumpEpoch(c.Epoch)
	}
	return r
}
