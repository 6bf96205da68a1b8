package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	// mostRecent is how many lines of a start a Verifier knows again when they come twice: more than a batch has.
	mostRecent = 1024
	// mostChains and mostStarts bound the nodes of a log and the starts that are remembered of each.
	mostChains = 10_000
	mostStarts = 1000
	// mostFaults bounds the faults that a report lists. All are counted.
	mostFaults = 100
)

// ErrManyChains says that a log names more nodes than any cluster has.
var ErrManyChains = errors.New("the log names more nodes than a cluster can have")

// Fault is something in a log that is not as a node has written it.
type Fault struct {
	At   string `json:"at"` // the place of the line at which it shows
	Text string `json:"text"`
}

// Report is what a Verifier has found of one node.
type Report struct {
	Source     string    `json:"source"`
	Node       int32     `json:"node"`
	Events     int64     `json:"events"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	Starts     int64     `json:"starts"`     // that begin in the log
	Repeated   int64     `json:"repeated"`   // lines that came again as they were
	Lost       int64     `json:"lost"`       // events of which the node itself says that it had no room for them
	CutAt      uint64    `json:"cutAt"`      // the sequence of the first line, if the log has not the node's beginning; else 0
	Head       Place     `json:"head"`       // the last line
	Start      string    `json:"start"`      // of the last line
	FaultCount int64     `json:"faultCount"` // of all
	Faults     []Fault   `json:"faults"`     // the first ones
}

// Verifier checks the lines of a log, one after another, in the log's order.
type Verifier struct {
	chains  map[string]*checkedChain
	foreign Report // what is no line of a node
	anchors []Place
}

// checkedChain is what a Verifier knows of a node.
type checkedChain struct {
	Report

	hash     Hash
	previous *Previous // what the present start has named
	starts   map[string]bool
	recent   []recentLine // by the sequence, modulo mostRecent
}

type recentLine struct {
	start string
	seq   uint64
	hash  Hash
}

// NewVerifier makes a Verifier. Each of the anchors, which nodes have logged, must be in the log.
func NewVerifier(anchors ...Place) *Verifier {
	return &Verifier{chains: map[string]*checkedChain{}, anchors: slices.Clone(anchors)}
}

// Add checks the next line. at is its place, for messages. The error is ErrManyChains.
func (v *Verifier) Add(b []byte, at string) error {
	l, err := ParseLine(b)
	if err != nil {
		v.foreign.addFault(at, "this is "+err.Error()+": it was changed, or somebody else has written it")
		return nil //nolint:nilerr // it is a fault of the log
	}
	c := v.chains[l.Source]
	hash := Hash(sha256.Sum256(b))
	v.anchors = slices.DeleteFunc(v.anchors, func(p Place) bool { return p.Sequence == l.Sequence && p.Hash == hash.String() })
	if c == nil {
		if len(v.chains) >= mostChains {
			return ErrManyChains
		}
		c = &checkedChain{Report: Report{Source: l.Source, Node: l.Data.Node, First: l.Time}, starts: map[string]bool{}}
		v.chains[l.Source] = c
		c.beginLog(l)
		c.take(l, hash)
		return nil
	}
	if c.isRepeated(l, hash) {
		c.Repeated++
		return nil
	}
	if text := c.judge(l); text != "" {
		c.addFault(at, text)
	}
	c.take(l, hash)
	return nil
}

func (r *Report) addFault(at, text string) {
	r.FaultCount++
	if len(r.Faults) < mostFaults {
		r.Faults = append(r.Faults, Fault{at, text})
	}
}

// beginLog looks at the first line of a node in the log.
func (c *checkedChain) beginLog(l *Line) {
	if l.Sequence > 1 || l.Type != Started || l.Data.Previous != nil {
		c.CutAt = l.Sequence
	}
}

// take makes a line the last one.
func (c *checkedChain) take(l *Line, hash Hash) {
	if l.Start != c.Start {
		if len(c.starts) >= mostStarts {
			clear(c.starts)
		}
		c.starts[l.Start] = true
		c.previous = nil
	}
	if l.Type == Started && l.Sequence == 1 {
		c.Starts++
		c.previous = l.Data.Previous
	}
	if l.Type == Lost {
		c.Lost += l.Data.Count
	}
	c.Events++
	c.Last, c.Start, c.hash = l.Time, l.Start, hash
	c.Head = Place{l.Sequence, hash.String()}
	r := recentLine{l.Start, l.Sequence, hash}
	if i := int(l.Sequence % mostRecent); i < len(c.recent) {
		c.recent[i] = r
	} else {
		for len(c.recent) < i {
			c.recent = append(c.recent, recentLine{})
		}
		c.recent = append(c.recent, r)
	}
}

// isRepeated tells whether a line is one that came not long before, as it was.
func (c *checkedChain) isRepeated(l *Line, hash Hash) bool {
	i := int(l.Sequence % mostRecent)
	return i < len(c.recent) && c.recent[i] == recentLine{l.Start, l.Sequence, hash}
}

// judge says why a line cannot follow the last one; "": it can.
func (c *checkedChain) judge(l *Line) string {
	if l.Start != c.Start {
		return c.judgeStart(l)
	}
	last := c.Head.Sequence
	switch {
	case l.Sequence == last+1 && l.PreviousHash == c.hash.String():
		return ""
	case l.Sequence == last+1:
		return fmt.Sprintf("event %d says that the one before it has the hash %.12s..., and that has %.12s...: event %d was changed, or this one was", l.Sequence, l.PreviousHash, c.hash, last)
	case l.Sequence > last+2:
		return fmt.Sprintf("events %d to %d are missing before this one, which is event %d", last+1, l.Sequence-1, l.Sequence)
	case l.Sequence > last:
		return fmt.Sprintf("event %d is missing before this one, which is event %d", last+1, l.Sequence)
	case l.Sequence == last:
		return fmt.Sprintf("this is another event %d than the one before: it was changed or added", l.Sequence)
	}
	return fmt.Sprintf("event %d comes after event %d: events were put into another order, or this one was added or changed", l.Sequence, last)
}

// judgeStart is judge for a line of another start.
func (c *checkedChain) judgeStart(l *Line) string {
	p := l.Data.Previous
	switch {
	case c.starts[l.Start]:
		return fmt.Sprintf("event %d of an earlier start comes after the beginning of a later one: events were put into another order, or it was added", l.Sequence)
	case l.Sequence > 2:
		return fmt.Sprintf("events 1 to %d of this start of the node are missing", l.Sequence-1)
	case l.Sequence == 2:
		return "event 1 of this start of the node is missing"
	case l.Type != Started:
		return "the first event of this start of the node does not say that it has started: it was changed or added"
	case p == nil:
		return "the node has begun a new chain here, which does not name the events before: its note of them was lost, or it was removed to hide that events are missing"
	case p.Written.Hash != l.PreviousHash:
		return "the first event of this start contradicts itself about the event before it: it was changed"
	case p.Start != c.Start:
		if c.Head.Sequence == 1 && c.previous != nil && *c.previous == *p {
			return "" // the start between was killed before it could note anything
		}
		return "all events of at least one start of the node are missing before this one"
	}
	return c.judgeEnd(p)
}

// judgeEnd compares the last line of a start with what the node has noted of it.
func (c *checkedChain) judgeEnd(p *Previous) string {
	last := c.Head
	switch {
	case last.Sequence < p.Confirmed.Sequence:
		return fmt.Sprintf("events %d to %d of the start before are missing", last.Sequence+1, p.Confirmed.Sequence)
	case last.Sequence > p.Written.Sequence:
		return fmt.Sprintf("the start before had %d events, and the log has %d: events were added", p.Written.Sequence, last.Sequence)
	case last.Sequence == p.Confirmed.Sequence && last.Hash != p.Confirmed.Hash, last.Sequence == p.Written.Sequence && last.Hash != p.Written.Hash:
		return fmt.Sprintf("event %d, the last one of the start before, was changed", last.Sequence)
	}
	return ""
}

// Reports are what was found, by node. A report without a source has what no node has written, and the anchors that are missing.
func (v *Verifier) Reports() (list []Report) {
	for _, source := range slices.Sorted(maps.Keys(v.chains)) {
		list = append(list, v.chains[source].Report)
	}
	foreign := v.foreign
	foreign.Faults = slices.Clone(foreign.Faults)
	for _, p := range v.anchors {
		foreign.addFault("the end", fmt.Sprintf("event %d with the hash %.12s..., which the anchor names, is not in the log: it was removed or changed, or is older than the log", p.Sequence, p.Hash))
	}
	if foreign.FaultCount > 0 {
		list = append(list, foreign)
	}
	return list
}
