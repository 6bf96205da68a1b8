package position

// Polled takes the answer to an OffsetFetch for all positions of a group (without those of open transactions, as the source answers unless it is asked for stable ones). began is when it was asked. It
// fails with ErrFull. When a commit was made is not told: it counts as made when the poll before began, after which it was made.
func (m *Machine) Polled(name string, began int64, list []Placed) error {
	if !m.groups.Has(name) {
		return nil
	}
	g, since := m.table.groups[name], m.polled
	if g != nil {
		since = g.asOf
	}
	isThere := make(map[Place]struct{}, len(list))
	for _, p := range list {
		if p.Offset < 0 { // none is committed
			continue
		}
		if err := m.table.checkRoom(mostGrowth(name, p.Topic, &p.Position)); err != nil {
			return err
		}
		if g == nil {
			g = m.table.addGroup(name, noHome)
		}
		p.SourceTime = since
		if old := m.table.find(g, p.Place); old != nil && old.isSame(p.Position) && old.TopicID == p.TopicID {
			p.SourceTime = old.SourceTime
		}
		if m.table.set(g, p.Topic, stored{partition: p.Partition, Position: p.Position}) {
			m.noteChange(name)
		}
		isThere[p.Place] = struct{}{}
	}
	if g == nil {
		return nil
	}
	g.asOf = began
	for _, p := range g.list() {
		if _, ok := isThere[p.Place]; !ok {
			m.table.remove(g, p.Place)
			m.noteDeletion(name)
		}
	}
	return nil
}

// PolledAll ends a round of polls that began at a time: all groups of the source were listed then, by all of its brokers, and each that is followed was polled after that. Others are gone.
func (m *Machine) PolledAll(began int64, listed []string) {
	isThere := make(map[string]struct{}, len(listed))
	for _, name := range listed {
		isThere[name] = struct{}{}
	}
	for name, g := range m.table.groups {
		if _, ok := isThere[name]; !ok {
			m.table.removeGroup(g)
			m.noteDeletion(name)
		}
	}
	m.polled = began
}
