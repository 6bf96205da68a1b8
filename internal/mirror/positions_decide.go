package mirror

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/mirror/source"
)

// mostDecided is how many groups are taken from the machine at a time.
const mostDecided = 20 * position.MaxAsked

// seenTopic is a topic as a source has last told of it.
type seenTopic struct {
	id source.TopicID
	at int64 // when it was asked, in ms
}

// noteSeen notes which topics the source had when it was asked for all of them.
func (s *session) noteSeen(topics []source.Topic, asked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range topics {
		if t := &topics[i]; t.Err == nil {
			s.seen[t.Name] = seenTopic{t.ID, asked.UnixMilli()}
		} else {
			delete(s.seen, t.Name)
		}
	}
}

// decide has the groups here follow what the machine knows, until the context ends or another node is that of the active controller.
func (p *positions) decide(ctx context.Context) {
	timer := time.NewTicker(positionsTick)
	defer timer.Stop()
	reported := time.Time{}
	for p.s.s.cfg.IsController() {
		p.followMirrors()
		if err := p.keepAhead(ctx); err != nil {
			p.note(ctx, err)
			sleep(ctx, positionsAgain)
		} else if p.decideChanged(ctx); time.Since(p.comparedAt) >= max(compareEvery, p.pause) {
			p.compareAll(ctx)
		}
		if time.Since(reported) >= positionsAgain/2 {
			reported = time.Now()
			p.report()
		}
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// followMirrors takes which topics mirror by the link now. If these are others, all groups are compared anew.
func (p *positions) followMirrors() {
	img := p.s.s.cfg.Image()
	if img == p.image && time.Since(p.mirroredAt) < positionsAgain {
		return
	}
	p.image, p.mirroredAt = img, time.Now()
	here, list := map[string]mirrorHere{}, []position.Mirror{}
	p.s.mu.Lock()
	for t := range img.Mirrors(p.s.link.ID) {
		if !FollowsPositions(t, p.s.link.ID) {
			continue
		}
		here[t.Name] = mirrorHere{id: t.ID, source: t.Mirror.Topic, partitions: len(t.Partitions)}
		m := position.Mirror{Topic: t.Mirror.Topic, ID: [16]byte(t.Mirror.TopicID), Here: t.Name}
		if seen, ok := p.s.seen[m.Topic]; ok && (m.ID == [16]byte{} || m.ID == seen.id) {
			m.SeenAt = seen.at
		}
		list = append(list, m)
	}
	p.s.mu.Unlock()
	p.mirrors = position.NewMirrors(list)
	if !maps.Equal(p.here, here) {
		p.here = here
		p.comparedAt = time.Time{}
	}
}

// compareAll has all groups be decided on: those that the source has, and those that have positions of the link here.
func (p *positions) compareAll(ctx context.Context) {
	began := time.Now()
	ours, err := p.listOurs(ctx)
	if err != nil { // a coordinator does not answer now: the groups that it has are compared later
		p.comparedAt, p.pause = began.Add(positionsAgain-compareEvery), 0
	} else {
		p.comparedAt = began
	}
	p.mu.Lock()
	if err == nil {
		p.ours = ours
	}
	for name := range ours {
		p.machine.Revisit(name)
	}
	for _, name := range p.machine.Groups() {
		p.machine.Revisit(name)
	}
	p.mu.Unlock()
	p.decideChanged(ctx)
	if err == nil {
		p.pause = time.Since(began) * compareShare
	}
}

// listOurs lists the groups here that have positions of the link.
func (p *positions) listOurs(ctx context.Context) (map[string]struct{}, error) {
	all := map[string]struct{}{}
	nodes, isComplete := p.s.s.cfg.Groups.Coordinators()
	if !isComplete {
		return nil, errNoCoordinator
	}
	for _, node := range nodes {
		q := &position.Question{Link: p.s.link.ID, Lists: true}
		for {
			a, err := p.ask(ctx, node, q)
			if err == nil && a.Problem != "" {
				err = errors.New(a.Problem)
			}
			if err != nil {
				return nil, err
			}
			for _, name := range a.Listed {
				if p.s.set.Groups.Has(string(name)) {
					all[string(name)] = struct{}{}
				}
			}
			if !a.IsMore || len(a.Listed) == 0 {
				break
			}
			q.AfterGroup = a.Listed[len(a.Listed)-1]
		}
	}
	return all, nil
}

// errNoCoordinator says that a part of the groups here has no coordinator now.
var errNoCoordinator = errors.New("some groups have no coordinator here now")

func (p *positions) ask(ctx context.Context, node int32, q *position.Question) (*position.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return p.s.s.cfg.Groups.Ask(ctx, node, q)
}

// decideChanged decides on the groups whose positions have changed, and carries that out.
func (p *positions) decideChanged(ctx context.Context) {
	p.mu.Lock()
	asOf, isWhole := p.machine.AsOf()
	p.mu.Unlock()
	for ctx.Err() == nil {
		now := time.Now().UnixMilli()
		p.mu.Lock()
		for name, at := range p.again {
			if at <= now {
				delete(p.again, name)
				p.machine.Revisit(name)
			}
		}
		names := p.machine.TakeChanged(now, mostDecided)
		names = slices.DeleteFunc(names, func(name string) bool {
			_, isHidden := p.unasked[name]
			return isHidden
		})
		p.mu.Unlock()
		if len(names) == 0 {
			break
		}
		if len(p.here) == 0 { // they are compared when there are mirrors
			continue
		}
		for some := range slices.Chunk(names, position.MaxAsked) {
			p.decideOn(ctx, some)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if isWhole && len(p.again) == 0 && ctx.Err() == nil {
		p.asOf = max(p.asOf, asOf)
	}
}

// decideOn decides on some groups, and has the coordinators here carry it out.
func (p *positions) decideOn(ctx context.Context, names []string) {
	told := p.look(ctx, names)
	var changes []position.Change
	now := time.Now().UnixMilli()
	p.mu.Lock()
	for _, name := range names {
		g := told[name]
		if g == nil {
			p.again[name] = now + positionsAgain.Milliseconds()
			continue
		}
		changes = append(changes, p.decideGroup(now, g)...)
	}
	p.mu.Unlock()
	if len(changes) > 0 {
		p.carryOut(ctx, changes)
	}
}

// decideGroup decides on one group. The caller has p.mu.
func (p *positions) decideGroup(now int64, g *position.ToldGroup) (changes []position.Change) {
	here := &position.Group{Name: string(g.Name), IsActive: g.IsActive}
	was := make(map[position.Place]*position.Stored, len(g.Positions))
	isAging := false
	for i := range g.Positions {
		of := &g.Positions[i]
		here.Positions = append(here.Positions, of.Here())
		was[position.Place{Topic: of.Topic, Partition: of.Partition}] = &of.Stored
		isAging = isAging || of.IsAging && of.IsOurs
	}
	d := p.machine.Decide(now, here, p.mirrors)
	if delete(p.held, here.Name); len(d.Held) > 0 {
		held := heldGroup{}
		for _, h := range d.Held {
			held[h.Why]++
		}
		p.held[here.Name] = held
	}
	for i := range d.Steps {
		s := &d.Steps[i]
		if int(s.Partition) >= p.here[s.Topic].partitions { // it comes with the partition
			continue
		}
		c := position.Change{Group: g.Name, Topic: s.Topic, Partition: s.Partition, Was: was[s.Place]}
		if s.Deletes {
			c.Kind = position.Deletes
		} else {
			c.Offset, c.Epoch, c.Metadata = s.Offset, s.Epoch, position.Text(s.Metadata)
		}
		changes = append(changes, c)
	}
	if isAging {
		changes = append(changes, p.confirm(g)...)
	}
	return changes
}

// confirm has those positions of a group stay that would expire, as the source has them. The caller has p.mu.
func (p *positions) confirm(g *position.ToldGroup) (changes []position.Change) {
	isThere := map[position.Place]bool{}
	for _, of := range p.machine.Positions(string(g.Name)) {
		isThere[of.Place] = true
	}
	for i := range g.Positions {
		of := &g.Positions[i]
		if of.IsAging && of.IsOurs && isThere[position.Place{Topic: p.here[of.Topic].source, Partition: of.Partition}] {
			changes = append(changes, position.Change{Group: g.Name, Topic: of.Topic, Partition: of.Partition, Kind: position.Confirms, Was: &of.Stored})
		}
	}
	return changes
}

// byCoordinator parts things by the node that coordinates their groups here. Those that have none are left out.
func byCoordinator[T any](p *positions, list []T, group func(*T) string) map[int32][]T {
	parts := map[int32][]T{}
	for i := range list {
		if node := p.s.s.cfg.Groups.Coordinator(group(&list[i])); node >= 0 {
			parts[node] = append(parts[node], list[i])
		}
	}
	return parts
}

// look asks the coordinators here for groups. Those that are not known now are left out.
func (p *positions) look(ctx context.Context, names []string) map[string]*position.ToldGroup {
	told := make(map[string]*position.ToldGroup, len(names))
	if nodes, isComplete := p.s.s.cfg.Groups.Coordinators(); len(nodes) == 0 && isComplete {
		for _, name := range names { // there are no groups yet
			told[name] = &position.ToldGroup{Name: position.Text(name)}
		}
		return told
	}
	var mu sync.Mutex // guards told
	var asking sync.WaitGroup
	for node, some := range byCoordinator(p, names, func(name *string) string { return *name }) {
		asking.Go(func() {
			p.lookAt(ctx, node, some, func(g *position.ToldGroup) {
				mu.Lock()
				defer mu.Unlock()
				told[string(g.Name)] = g
			})
		})
	}
	asking.Wait()
	return told
}

// lookAt asks one coordinator for groups, page by page.
func (p *positions) lookAt(ctx context.Context, node int32, names []string, take func(*position.ToldGroup)) {
	for len(names) > 0 {
		q := &position.Question{Link: p.s.link.ID}
		for _, name := range names {
			q.Groups = append(q.Groups, position.Text(name))
		}
		a, err := p.ask(ctx, node, q)
		if err != nil || len(a.Groups) == 0 {
			return
		}
		for i := range a.Groups[:min(len(a.Groups), len(names))] {
			g := &a.Groups[i]
			if g.Problem == "" && p.lookFurther(ctx, node, g) {
				take(g)
			}
		}
		names = names[min(len(a.Groups), len(names)):]
	}
}

// lookFurther asks for the positions of a group that an answer had no room for; false: they are not known now.
func (p *positions) lookFurther(ctx context.Context, node int32, g *position.ToldGroup) bool {
	for g.IsMore {
		last := &g.Positions[len(g.Positions)-1]
		q := &position.Question{Link: p.s.link.ID, Groups: []position.Text{g.Name}, AfterTopic: last.Topic, AfterPartition: last.Partition}
		a, err := p.ask(ctx, node, q)
		if err != nil || len(a.Groups) != 1 || a.Groups[0].Problem != "" || len(a.Groups[0].Positions) == 0 {
			return false
		}
		g.Positions, g.IsMore, g.IsActive = append(g.Positions, a.Groups[0].Positions...), a.Groups[0].IsMore, g.IsActive || a.Groups[0].IsActive
	}
	return true
}

// carryOut has the coordinators here make changes. The groups of those that were not made are decided on again.
func (p *positions) carryOut(ctx context.Context, changes []position.Change) {
	now := time.Now().UnixMilli()
	repeat := func(some []position.Change, after time.Duration) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range some {
			p.again[string(some[i].Group)] = now + after.Milliseconds()
		}
	}
	if err := p.s.s.cfg.Groups.Prepare(ctx); err != nil {
		repeat(changes, positionsAgain)
		return
	}
	parts := byCoordinator(p, changes, func(c *position.Change) string { return string(c.Group) })
	for i := range changes {
		if p.s.s.cfg.Groups.Coordinator(string(changes[i].Group)) < 0 {
			repeat(changes[i:i+1], positionsAgain)
		}
	}
	var working sync.WaitGroup
	for node, list := range parts {
		working.Go(func() {
			for len(list) > 0 && ctx.Err() == nil {
				some := firstChanges(list)
				list = list[len(some):]
				a, err := p.ask(ctx, node, &position.Question{Link: p.s.link.ID, Changes: some})
				if err != nil || len(a.Outcomes) != len(some) {
					repeat(some, positionsAgain)
					continue
				}
				for i, o := range a.Outcomes {
					switch o {
					case position.Done, position.WasActive: // the next comparison finds what is left to do
					case position.WasChanged:
						repeat(some[i:i+1], positionsTick)
					default: // also if the coordinator does not know yet that the topic mirrors
						repeat(some[i:i+1], positionsAgain)
					}
				}
			}
		})
	}
	working.Wait()
}

// firstChanges are as many changes as go into a message.
func firstChanges(list []position.Change) []position.Change {
	size := 0
	for i := range list {
		if size += list[i].Size(); i == position.MaxChanges || i > 0 && size > position.MaxMessage {
			return list[:i]
		}
	}
	return list
}
