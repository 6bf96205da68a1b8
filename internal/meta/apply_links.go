package meta

import (
	"fmt"
	"slices"
)

func setLink(s *step, l Link) error {
	if err := s.requireLevel(LevelLinks); err != nil {
		return err
	}
	if err := l.Check(); err != nil {
		return err
	}
	old := s.m.links.Find(l.ID)
	switch {
	case l.Source == s.m.ClusterID:
		return fmt.Errorf("the source of link %q is this cluster", l.Name)
	case old != nil && old.Source != l.Source && old.Source != "":
		return fmt.Errorf("link %q goes from source %s to %s", l.Name, old.Source, l.Source)
	case old == nil && s.m.links.Len() >= MaxLinks:
		return fmt.Errorf("link %q is one too many", l.Name)
	}
	next := &Links{list: s.m.links.without(l.ID)}
	at, found := next.search(l.Name)
	if found {
		return fmt.Errorf("there are two links %q", l.Name)
	}
	next.list = slices.Insert(next.list, at, &l)
	s.m.links = next
	s.delta.noteLink(l.ID, old, &l)
	return nil
}

// removeLink removes a link, and takes it from the topics that it has mirrored and that were promoted. The ACLs and quotas that it has made stay, and are not its own any more.
func removeLink(s *step, id UUID) error {
	if err := s.requireLevel(LevelLinks); err != nil {
		return err
	}
	old := s.m.links.Find(id)
	if old == nil {
		return fmt.Errorf("link %s is removed, and is not there", id)
	}
	var promoted []UUID
	for t := range s.m.Mirrors(id) {
		if t.Mirror.State != MirrorPromoted {
			return fmt.Errorf("link %q is removed, and topic %q mirrors by it", old.Name, t.Name)
		}
		promoted = append(promoted, t.ID)
	}
	for _, topic := range promoted {
		o := s.copyTopic(topic)
		next := *o.topic.Mirror
		next.Link = UUID{}
		o.topic.Mirror = &next
		s.noteTopic(topic, o.before, o.topic)
	}
	if s.m.links = (&Links{list: s.m.links.without(id)}); s.m.links.Len() == 0 {
		s.m.links = nil
	}
	dropAccess(s, id)
	s.delta.noteLink(id, old, nil)
	return nil
}

// setMirror sets what a topic mirrors, or ends that it has mirrored one.
func setMirror(s *step, r MirrorSet) error {
	if err := s.requireLevel(LevelLinks); err != nil {
		return err
	}
	o := s.copyTopic(r.Topic)
	if o == nil {
		return fmt.Errorf("a mirror of topic %s, which is not there", r.Topic)
	}
	if r.Mirror == nil {
		return endMirror(s, o.topic)
	}
	if err := r.Mirror.Check(); err != nil {
		return fmt.Errorf("topic %q: %w", o.topic.Name, err)
	}
	if slices.Contains(r.Mirror.Path, s.m.ClusterID) {
		return fmt.Errorf("topic %q mirrors itself over %q", o.topic.Name, r.Mirror.Path)
	}
	if id := r.Mirror.Link; id != (UUID{}) {
		l := s.m.links.Find(id)
		if l == nil {
			return fmt.Errorf("topic %q mirrors by link %s, which is not there", o.topic.Name, id)
		}
		if from := r.Mirror.Path[len(r.Mirror.Path)-1]; from != l.Source {
			return fmt.Errorf("topic %q mirrors from %q by link %q, whose source is %q", o.topic.Name, from, l.Name, l.Source)
		}
	}
	if i := slices.IndexFunc(o.topic.Partitions, func(p Partition) bool { return p.IsMirror() }); i >= 0 && r.Mirror.State == MirrorPromoted {
		return fmt.Errorf("topic %q was promoted, and partition %d mirrors", o.topic.Name, i)
	}
	o.topic.Mirror = r.Mirror
	s.noteTopic(r.Topic, o.before, o.topic)
	followMirror(s, o.topic)
	return nil
}

// followMirror has the partitions follow the state of their topic: all that mirror are to be promoted, or those that were promoted mirror again. One record for the topic is
// enough, however many partitions it has.
func followMirror(s *step, t *Topic) {
	next := PartitionMirrors
	if t.Mirror.State >= MirrorPromoting {
		next = PartitionPromoting
	}
	isOther := func(p Partition) bool { return p.Mirror != nil && !p.Mirror.fits(t.Mirror) }
	if !slices.ContainsFunc(t.Partitions, isOther) {
		return
	}
	t = s.copyPartitions(t.ID)
	for i := range t.Partitions {
		if !isOther(t.Partitions[i]) {
			continue
		}
		p := *t.Partitions[i].Mirror
		if p.State == PartitionRestoring { // what the last lineage has never came here
			p.Lineages = slices.Clone(p.Lineages[:len(p.Lineages)-1])
		}
		p.State, p.Reason = next, ""
		if next == PartitionMirrors {
			p.IsDecided, p.Decisions, p.Parting = false, nil, nil
		}
		t.Partitions[i].Mirror = &p
	}
}

// endMirror makes an ordinary topic of one that has mirrored. A topic with cuts keeps them, since a replica that was away must still obey them.
func endMirror(s *step, t *Topic) error {
	if t.Mirror == nil {
		return fmt.Errorf("topic %q has no mirror to end", t.Name)
	}
	t = s.copyPartitions(t.ID)
	for i := range t.Partitions {
		if p := t.Partitions[i].Mirror; p != nil && len(p.Cuts) > 0 {
			return fmt.Errorf("topic %q: partition %d has cuts, and is to forget them", t.Name, i)
		}
		t.Partitions[i].Mirror = nil
	}
	t.Mirror = nil
	return nil
}

// setPartitionMirror sets how far a partition mirrors. A cut comes after the record that raises the partition's leader epoch, in one entry: so no replica
// serves in an epoch in which another one has cut its log already.
func setPartitionMirror(s *step, r PartitionMirrorSet) error {
	if err := s.requireLevel(LevelLinks); err != nil {
		return err
	}
	t := s.copyPartitions(r.Topic)
	if t == nil || int(r.Partition) >= len(t.Partitions) {
		return fmt.Errorf("a mirror of partition %d of topic %s, which is not there", r.Partition, r.Topic)
	}
	if t.Mirror == nil {
		return fmt.Errorf("topic %q mirrors nothing, and partition %d is to mirror", t.Name, r.Partition)
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("topic %q: partition %d: %w", t.Name, r.Partition, err)
	}
	if !r.fits(t.Mirror) {
		return fmt.Errorf("topic %q is in state %d, and partition %d goes to state %d", t.Name, t.Mirror.State, r.Partition, r.State)
	}
	p := &t.Partitions[r.Partition]
	if p.Mirror != nil && p.Mirror.IsDecided && !p.Mirror.hasDecisionsOf(&r.PartitionMirror) {
		return fmt.Errorf("topic %q: it is decided how the transactions of partition %d end, and that would change", t.Name, r.Partition)
	}
	had, has := p.Mirror.LastCut(), r.LastCut()
	if has.Number < had.Number || has.Number == had.Number && has != had {
		return fmt.Errorf("topic %q: partition %d goes from cut %+v to %+v", t.Name, r.Partition, had, has)
	}
	if before := s.topics[r.Topic].before; has.Number > had.Number && before != nil && int(r.Partition) < len(before.Partitions) {
		if p.LeaderEpoch <= before.Partitions[r.Partition].LeaderEpoch {
			return fmt.Errorf("topic %q: partition %d is cut in leader epoch %d, in which it may have been served", t.Name, r.Partition, p.LeaderEpoch)
		}
	}
	p.Mirror = &r.PartitionMirror
	return nil
}
