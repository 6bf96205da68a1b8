package position

import (
	"fmt"
	"slices"
)

const (
	// deletionGrace is how long after a deletion at the source the topic must have been seen there, in ms. When a topic is deleted, its offsets are, too, and a broker may tell of the topic for a moment.
	deletionGrace = 10_000
	// deletionAgain is when a group with positions that the source does not have is decided on again, in ms: when the source was asked for its topics after the grace.
	deletionAgain = deletionGrace + 3_000
	// maxAbsent is of how many positions the machine notes that the source does not have them. Deletions beyond that wait for a place.
	maxAbsent = 100_000
)

// Mirror is a topic here that mirrors one of the source now. One that is promoted, or is about to be, is none: its groups' positions are of this cluster.
type Mirror struct {
	Topic string   // its name at the source
	ID    [16]byte // its id there; zero: it has none
	Here  string   // its name here
	// SeenAt is when the source was last asked for the topic and had it, with that id. Positions of a topic that the source has no more stay here, as the topic does.
	SeenAt int64
}

// Mirrors are all topics that a link mirrors.
type Mirrors struct{ bySource, byName map[string]*Mirror }

// NewMirrors makes the set of some mirrors.
func NewMirrors(list []Mirror) *Mirrors {
	m := &Mirrors{bySource: map[string]*Mirror{}, byName: map[string]*Mirror{}}
	for i := range list {
		one := list[i]
		m.bySource[one.Topic], m.byName[one.Here] = &one, &one
	}
	return m
}

// Group is a group here.
type Group struct {
	Name     string
	IsActive bool // it has members
	// Positions are those that it has in topics that the link mirrors; others are not looked at.
	Positions []Here
}

// Here is a position of a group here. Its TopicID and SourceTime do not count.
type Here struct {
	Placed       // by the name that the topic has here
	Time   int64 // of the commit
	// IsOurs says that this link has made it, or that it is of the time before a restore, which has given the topic to the link with all that was committed for it.
	IsOurs bool
}

// Step is something to do with a position of a group here.
type Step struct {
	Group    string
	Place    // by the name that the topic has here
	Deletes  bool
	Position // to commit, unless the position is to be deleted
}

// String is the step as a sentence.
func (s Step) String() string {
	if s.Deletes {
		return fmt.Sprintf("Delete the position of group %q in %s-%d.", s.Group, s.Topic, s.Partition)
	}
	return fmt.Sprintf("Commit %d for group %q in %s-%d.", s.Offset, s.Group, s.Topic, s.Partition)
}

// Why says why a position stays as it is here although the source has another one.
type Why uint8

// The reasons.
const (
	ActiveHere    Why = iota + 1 // the group has members here
	CommittedHere                // somebody has committed it here later
	OtherTopic                   // the position is of another topic of that name
	NotDeleted                   // the source has none, and its log does not say that it was deleted: it may be lost
)

// String is the reason as the end of a sentence.
func (w Why) String() string {
	switch w {
	case ActiveHere:
		return "the group has members here"
	case CommittedHere:
		return "it was committed here later than at the source"
	case OtherTopic:
		return "at the source it is one of another topic of that name"
	case NotDeleted:
		return "the source has none, and does not say that it was deleted"
	default:
		return fmt.Sprintf("reason %d", uint8(w))
	}
}

// Held is a position that stays as it is here although the source has another one, or none.
type Held struct {
	Place // by the name that the topic has here
	Why   Why
}

// Decision is what is to be done for one group.
type Decision struct {
	Steps []Step // in the order of their places
	Held  []Held // in the order of their places
}

// absences are the positions of a group here that the source does not have. They are forgotten when a position of the group is deleted at the source: a deletion must not be taken for an earlier one.
type absences struct {
	since map[Place]int64 // when that was first seen, by the names here
	again int64           // when the group is to be decided on again
}

// Decide decides what is to be done for a group. Applying the steps and deciding again gives no steps.
func (m *Machine) Decide(now int64, here *Group, mirrors *Mirrors) Decision {
	var d Decision
	if !m.groups.Has(here.Name) || !m.isKnown(here.Name) {
		return d
	}
	theirs := map[Place]Position{} // by the names here
	if g := m.table.groups[here.Name]; g != nil {
		for _, p := range g.list() {
			if mirror := mirrors.bySource[p.Topic]; mirror != nil {
				at := Place{mirror.Here, p.Partition}
				if isOther(p.TopicID, mirror.ID) {
					d.Held = append(d.Held, Held{at, OtherTopic})
					continue
				}
				theirs[at] = p.Position
			}
		}
	}
	ours := map[Place]*Here{}
	for i := range here.Positions {
		ours[here.Positions[i].Place] = &here.Positions[i]
	}
	for at, p := range theirs {
		switch o := ours[at]; {
		case o != nil && o.isSame(p):
		case here.IsActive:
			d.Held = append(d.Held, Held{at, ActiveHere})
		case o == nil || o.IsOurs || m.isLater(&p, o):
			d.Steps = append(d.Steps, Step{Group: here.Name, Place: at, Position: p})
		default:
			d.Held = append(d.Held, Held{at, CommittedHere})
		}
	}
	m.decideDeletions(now, here, theirs, mirrors, &d)
	slices.SortFunc(d.Steps, func(a, b Step) int { return comparePlaces(a.Place, b.Place) })
	slices.SortFunc(d.Held, func(a, b Held) int { return comparePlaces(a.Place, b.Place) })
	return d
}

// isOther tells whether two ids are of two topics. A zero one may be of any.
func isOther(a, b [16]byte) bool {
	return a != b && a != [16]byte{} && b != [16]byte{}
}

// isLater tells whether the source has a later commit than somebody here. A clock of the source that is ahead must not make it so.
func (m *Machine) isLater(theirs *Position, o *Here) bool {
	return theirs.SourceTime > 0 && theirs.SourceTime-m.ahead > o.Time
}

// decideDeletions adds the deletions of positions that the link has made and that the source has no more.
func (m *Machine) decideDeletions(now int64, here *Group, theirs map[Place]Position, mirrors *Mirrors, d *Decision) {
	before := m.absent[here.Name]
	next := absences{since: map[Place]int64{}, again: now + deletionAgain}
	for i := range here.Positions {
		o := &here.Positions[i]
		mirror := mirrors.byName[o.Topic]
		if _, ok := theirs[o.Place]; ok || mirror == nil || !o.IsOurs {
			continue
		}
		since := now
		if before != nil {
			if at, ok := before.since[o.Place]; ok {
				since = at
			}
		}
		next.since[o.Place] = since
		switch {
		case here.IsActive:
			d.Held = append(d.Held, Held{o.Place, ActiveHere})
		case !m.wasDeleted(here.Name, Place{mirror.Topic, o.Partition}):
			d.Held = append(d.Held, Held{o.Place, NotDeleted})
		case mirror.SeenAt >= since+deletionGrace:
			d.Steps = append(d.Steps, Step{Group: here.Name, Place: o.Place, Deletes: true})
		}
	}
	m.pruneDeletions(here, mirrors)
	m.forgetAbsences(here.Name)
	if n := len(next.since); n > 0 && m.absentees+n <= maxAbsent {
		m.absent[here.Name] = &next
		m.absentees += n
	}
}

func (m *Machine) forgetAbsences(name string) {
	if a := m.absent[name]; a != nil {
		m.absentees -= len(a.since)
		delete(m.absent, name)
	}
}

// noteDeletion notes that the source has deleted a position of a group.
func (m *Machine) noteDeletion(name string) {
	m.forgetAbsences(name)
	m.noteChange(name)
}
