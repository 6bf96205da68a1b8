package position

// maxDeletionShare is which part of the memory deletions may take, as a divisor. One that has no room is not followed: the position here expires as those of groups that nobody uses.
const maxDeletionShare = 8

// deletions are positions that have a tombstone at the source and no commit behind it, with the partition of __consumer_offsets, by group. They are kept until the group is decided on, since only then it is known
// whether there is anything to delete here. That a position is not there is no reason to delete the one here: an unclean election of the source's may have lost it, and a group that begins anew here
// would leave records out.
type deletions map[string]map[Place]int32

func (d deletions) count() (n int) {
	for _, places := range d {
		n += len(places)
	}
	return n
}

func deletionSize(name string, at Place) int64 {
	return int64(deletionBytes + len(name) + len(at.Topic))
}

// keepDeletion notes a tombstone, if there is room.
func (m *Machine) keepDeletion(number int32, name string, at Place) (isKept bool) {
	places := m.deleted[name]
	if _, ok := places[at]; ok {
		places[at] = number
		return true
	}
	size := deletionSize(name, at)
	if m.deletedBytes+size > m.table.limit/maxDeletionShare || m.table.checkRoom(size) != nil {
		return false
	}
	if places == nil {
		places = map[Place]int32{}
		m.deleted[name] = places
	}
	places[at] = number
	m.deletedBytes += size
	m.table.bytes += size
	return true
}

// forgetDeletion forgets the tombstone of a position, if there was one.
func (m *Machine) forgetDeletion(name string, at Place) {
	places := m.deleted[name]
	if _, ok := places[at]; !ok {
		return
	}
	m.deletedBytes -= deletionSize(name, at)
	m.table.bytes -= deletionSize(name, at)
	if delete(places, at); len(places) == 0 {
		delete(m.deleted, name)
	}
}

// forgetDeletions forgets tombstones that are chosen.
func (m *Machine) forgetDeletions(isChosen func(name string, at Place, number int32) bool) {
	for name, places := range m.deleted {
		for at, number := range places {
			if isChosen(name, at, number) {
				m.forgetDeletion(name, at)
			}
		}
	}
}

// wasDeleted tells whether the source says that a position was deleted. A poll says only that it is not there.
func (m *Machine) wasDeleted(name string, at Place) bool {
	_, ok := m.deleted[name][at]
	return ok || len(m.partitions) == 0
}

// pruneDeletions forgets the tombstones of a group for positions that the link does not have here.
func (m *Machine) pruneDeletions(here *Group, mirrors *Mirrors) {
	if len(m.deleted[here.Name]) == 0 {
		return
	}
	isOurs := map[Place]struct{}{} // by the names at the source
	for i := range here.Positions {
		if mirror := mirrors.byName[here.Positions[i].Topic]; mirror != nil && here.Positions[i].IsOurs {
			isOurs[Place{mirror.Topic, here.Positions[i].Partition}] = struct{}{}
		}
	}
	for at := range m.deleted[here.Name] {
		if _, ok := isOurs[at]; !ok {
			m.forgetDeletion(here.Name, at)
		}
	}
}
