package position_test

import (
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// decide has the machine decide on groups, and checks and applies each step.
func (w *world) decide(groups []string) error {
	var list []position.Mirror
	for _, mirror := range w.mirrors {
		list = append(list, *mirror)
	}
	mirrors := position.NewMirrors(list)
	for _, name := range groups {
		d := w.m.Decide(w.now, w.groupHere(name), mirrors)
		for _, s := range d.Steps {
			w.say("link: %v", s)
			if err := w.checkStep(&s); err != nil {
				return fmt.Errorf("%v %w", s, err)
			}
			w.apply(&s)
		}
		for _, held := range d.Held {
			w.note("held: " + held.Why.String())
		}
		if w.hasAbsent(name) {
			w.note("deletion put off")
		}
		if again := w.m.Decide(w.now, w.groupHere(name), mirrors); len(again.Steps) > 0 {
			return fmt.Errorf("the steps are applied, and there are more: %v", again.Steps)
		}
	}
	return nil
}

// hasAbsent tells whether a group without members here has a position of the link that the source does not have.
func (w *world) hasAbsent(group string) bool {
	for at, p := range w.here[group] {
		if there := sourceOf(at); p.IsOurs && !w.active[group] && w.known[group] != nil && w.known[group][there] == nil && w.mirrors[there.Topic] != nil {
			return true
		}
	}
	return false
}

func (w *world) groupHere(name string) *position.Group {
	g := &position.Group{Name: name, IsActive: w.active[name]}
	for _, p := range w.here[name] {
		g.Positions = append(g.Positions, p)
	}
	return g
}

func (w *world) apply(s *position.Step) {
	if s.Deletes {
		w.note("step: delete")
		delete(w.here[s.Group], s.Place)
		return
	}
	w.note("step: commit")
	w.here[s.Group][s.Place] = position.Here{Placed: position.Placed{Place: s.Place, Position: s.Position}, Time: w.now, IsOurs: true}
}

// wasDeleted tells whether a position was deleted before its topic was. A poll may see only that it is not there, and not that it was committed again in between.
func (w *world) wasDeleted(group string, place position.Place) bool {
	return slices.ContainsFunc(w.logs[logOf(group)].written, func(e entry) bool { return e.isGone && !e.isOfGone && e.group == group && e.place == place })
}

// lastBefore is the offset after the last record that a log had when the machine began to read it.
func (w *world) lastBefore(i int) (next record.Offset) {
	for _, e := range w.logs[i].kept {
		if e.at < w.begin[i] {
			next = e.at + 1
		}
	}
	return next
}

// sourceOf is the place at the source of a place here.
func sourceOf(at position.Place) position.Place {
	for topic, name := range nameHere {
		if name == at.Topic {
			return position.Place{Topic: topic, Partition: at.Partition}
		}
	}
	panic("no topic of the source is " + at.Topic)
}

// checkStep checks that a step breaks no rule.
func (w *world) checkStep(s *position.Step) error {
	there := sourceOf(s.Place)
	e, o := w.known[s.Group][there], w.here[s.Group][s.Place]
	_, ok := w.here[s.Group][s.Place]
	mirror := w.mirrors[there.Topic]
	if e != nil && e.id != mirror.ID && e.id != [16]byte{} {
		e = nil // of another topic
	}
	switch {
	case s.Group == "left-out":
		return fmt.Errorf("is for a group that is left out")
	case w.active[s.Group]:
		return fmt.Errorf("is for a group with members")
	case !w.polls && !w.isCut[logOf(s.Group)] && w.next[logOf(s.Group)] < w.lastBefore(logOf(s.Group)):
		return fmt.Errorf("is decided before the log was read that there was")
	case s.Deletes:
		tombstone := w.read[logOf(s.Group)].findTombstone(s.Group, there)
		if w.polls {
			tombstone = w.logs[logOf(s.Group)].written.findTombstone(s.Group, there)
		}
		switch {
		case e != nil:
			return fmt.Errorf("is for a position that the source has: %+v", e)
		case !ok || !o.IsOurs:
			return fmt.Errorf("is for a position that the link has not made")
		case tombstone == nil && !w.polls:
			return fmt.Errorf("is for a position that the source has lost")
		case tombstone != nil && tombstone.isOfGone && (!w.polls || !w.wasDeleted(s.Group, there)):
			return fmt.Errorf("is for a topic that the source has deleted")
		}
	case e == nil || s.Offset != e.offset || s.Epoch != epochOf(e.offset) || s.Metadata != fmt.Sprint(e.offset):
		return fmt.Errorf("is not the source's position %+v", e)
	case ok && !o.IsOurs:
		w.note("over a commit here")
		made := e.true
		if w.polls { // it is seen when its transaction ends
			made = w.logs[logOf(s.Group)].written.findEnd(e)
		}
		if made <= o.Time && (w.skew <= 0 || w.polls || w.arrived[*e] <= o.Time) {
			return fmt.Errorf("is over a later commit here, of %d; that of the source was made at %d and came at %d", o.Time, made, w.arrived[*e])
		}
	}
	return nil
}

// checkSettled checks each position when nothing happens any more.
func (w *world) checkSettled() error {
	for _, group := range modelGroups[:3] {
		for topic, name := range nameHere {
			mirror := w.mirrors[topic]
			for number := range int32(2) {
				at := position.Place{Topic: name, Partition: number}
				o, ok := w.here[group][at]
				if mirror == nil {
					if ok && o.IsOurs {
						w.note("kept for a deleted topic")
					}
					continue
				}
				e := w.logs[logOf(group)].written.find(group, position.Place{Topic: topic, Partition: number})
				if e != nil && e.id != mirror.ID && e.id != [16]byte{} {
					e = nil
				}
				isOthers := ok && !o.IsOurs
				isLost := w.logs[logOf(group)].written.findTombstone(group, position.Place{Topic: topic, Partition: number}) == nil
				switch {
				case e == nil && ok && isLost && !w.polls:
					w.note("kept after a loss")
				case e == nil && (!ok || isOthers):
				case e != nil && ok && o.Offset == e.offset:
				case e != nil && isOthers && (w.polls || e.true+w.skew-w.m.State().AheadMillis <= o.Time):
				default:
					return fmt.Errorf("in the end %s has %+v at %v here, and at the source %+v", group, o, at, e)
				}
			}
		}
	}
	if all := w.m.Groups(); slices.Contains(all, "left-out") {
		return fmt.Errorf("the machine knows a group that is left out")
	}
	return nil
}
