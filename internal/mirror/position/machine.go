package position

import (
	"errors"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/mirror/names"
	"github.com/leatstream/leat/internal/record"
)

const (
	defaultMaxBytes = 256 << 20
	// maxInflated bounds the decompressed size of a batch: more than a coordinator writes at once.
	maxInflated = 256 << 20
)

// ErrNewer is the error of a record that a later version of Kafka has written.
var ErrNewer = commit.ErrNewer

// Config says what a Machine follows.
type Config struct {
	Groups   *names.Filter // the groups, by their names
	MaxBytes int64         // of memory for all that is known, about; 0: 256 MiB
	// AheadMillis is the State.AheadMillis of the machine that has followed the same source before; 0: there was none. Old records do not show that a clock is ahead.
	AheadMillis int64
}

// Machine knows the positions of a source's groups. It is fed in one of two ways:
//
//	SetPartitions, Read, CaughtUp   the records of __consumer_offsets, partition by partition; Restart begins one anew
//	Polled, PolledAll               the answers to OffsetFetch and ListGroups
type Machine struct {
	groups     *names.Filter
	table      table
	open       map[openKey]*transaction
	pending    map[pendingPlace]int // how many open transactions have an offset for a place
	partitions []partition
	polled     int64               // when the last complete round of polls began; 0: there was none
	changed    map[string]struct{} // groups that are to be decided on
	deleted    deletions
	// deletedBytes is what the deletions have of the memory.
	deletedBytes int64
	absent       map[string]*absences // of positions here that the source does not have, by group
	absentees    int                  // how many positions these are
	ahead        int64                // ms by which the source's clock is ahead of the one here, at least
	unreadable   int64                // records that were left out
}

// partition is a partition of the source's __consumer_offsets.
type partition struct {
	next    record.Offset // of the record that is expected
	isReady bool          // all that the log had was read once
	asOf    int64         // the log had nothing more at that time, if isReady
}

// New makes a machine that knows nothing.
func New(c Config) *Machine {
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	return &Machine{
		groups: c.Groups, table: newTable(c.MaxBytes), open: map[openKey]*transaction{}, pending: map[pendingPlace]int{},
		changed: map[string]struct{}{}, deleted: deletions{}, absent: map[string]*absences{}, ahead: c.AheadMillis,
	}
}

// SetPartitions says how many partitions the source's __consumer_offsets has. There may be more later, never fewer; other methods take the numbers of these only.
func (m *Machine) SetPartitions(n int) {
	for len(m.partitions) < n {
		m.partitions = append(m.partitions, partition{})
	}
}

// Restart forgets all that one partition had. It is read from its start from now on: for the first time, or since its log was cut and has other records now.
func (m *Machine) Restart(number int32) {
	m.partitions[number] = partition{}
	m.absent, m.absentees = map[string]*absences{}, 0
	m.forgetDeletions(func(_ string, _ Place, n int32) bool { return n == number })
	for _, g := range m.table.groups {
		if g.home == number {
			m.noteChange(g.name)
			m.table.removeGroup(g)
		}
	}
	for k, t := range m.open {
		if k.partition == number {
			m.forgetTransaction(k, t)
		}
	}
}

// Read applies a batch of one partition whose checksum is right. Batches come in the order of the log, and records that were read already are left out. now is when the batch came.
// It fails with ErrFull, or with the error of a record that a later version of Kafka has written (ErrNewer): then positions cannot be followed by records. It fails with an error of
// package record if the batch itself cannot be read. All before the record in question is applied.
func (m *Machine) Read(number int32, b record.Batch, now int64) error {
	p := &m.partitions[number]
	if b.NextOffset() <= p.next {
		return nil
	}
	if b.Control() {
		if end, err := record.ReadMarker(b); err == nil { // other control records do not end transactions
			m.endTransaction(openKey{number, b.ProducerID()}, b.ProducerEpoch(), end.Commit)
		}
		p.next = b.NextOffset()
		return nil
	}
	var r record.Reader
	defer r.Close()
	for r.Reset(b, maxInflated); r.Next(); {
		if r.Record.Offset < p.next {
			continue
		}
		if err := m.apply(number, b, &r.Record, now); err != nil {
			return err
		}
		p.next = r.Record.Offset + 1
	}
	if r.Err() == nil {
		p.next = b.NextOffset()
	}
	return r.Err()
}

// apply applies one record. Only those of offsets count. A tombstone of a group does not: its offsets have tombstones of their own if they are deleted, and have none if the
// group goes over to another protocol (KIP-848) and keeps them.
func (m *Machine) apply(number int32, b record.Batch, r *record.Record, now int64) error {
	k, ok := m.decodeKey(r.Key)
	if !ok || k.Kind != commit.OffsetKind || !m.groups.Has(string(k.Group)) {
		return nil
	}
	at := Place{string(k.Topic), k.Partition}
	if r.Value == nil {
		m.deletePosition(number, string(k.Group), at)
		return nil
	}
	o, ok, err := m.decodeOffset(r.Value)
	if !ok {
		return err
	}
	if o.Time > now {
		m.ahead = max(m.ahead, o.Time-now)
	}
	p := Position{Offset: o.At, Epoch: o.Epoch, Metadata: o.Metadata, TopicID: o.Topic, SourceTime: o.Time}
	if b.Transactional() {
		return m.addPending(openKey{number, b.ProducerID()}, b.ProducerEpoch(), pendingPlace{string(k.Group), at}, pendingOffset{r.Offset, p})
	}
	return m.setPosition(number, string(k.Group), at, r.Offset, p)
}

// decodeKey decodes a key, and counts one that breaks the format. Kinds that this version does not know are no fault.
func (m *Machine) decodeKey(b []byte) (k commit.Key, ok bool) {
	k, err := commit.DecodeKey(b)
	if err != nil && !errors.Is(err, commit.ErrUnknownKind) {
		m.unreadable++
	}
	return k, err == nil
}

// decodeOffset decodes a value, and counts one that breaks the format. The error is commit.ErrNewer.
func (m *Machine) decodeOffset(b []byte) (o commit.Offset, ok bool, err error) {
	o, err = commit.Decode(b)
	if err != nil && !errors.Is(err, commit.ErrNewer) {
		m.unreadable++
		return o, false, nil
	}
	return o, err == nil, err
}

// setPosition stores a position that is committed at the source, if there is room for it.
func (m *Machine) setPosition(number int32, name string, at Place, written record.Offset, p Position) error {
	if err := m.table.checkRoom(mostGrowth(name, at.Topic, &p)); err != nil {
		return err
	}
	m.storePosition(number, name, at, written, p)
	return nil
}

// storePosition stores a position that is committed at the source, unless a later record has set it. There must be room for it.
func (m *Machine) storePosition(number int32, name string, at Place, written record.Offset, p Position) {
	g := m.findHome(number, name, p.SourceTime)
	if g == nil {
		if m.table.groups[name] != nil {
			return
		}
		g = m.table.addGroup(name, number)
	}
	if old := m.table.find(g, at); old != nil && old.written > written {
		return
	}
	g.latest = max(g.latest, p.SourceTime)
	m.forgetDeletion(name, at)
	if m.table.set(g, at.Topic, stored{at.Partition, written, p}) {
		m.noteChange(name)
	}
}

// findHome finds a group for a commit that a partition has. A group's records are in one partition. If more partitions were added to __consumer_offsets, a group may have old records in another one, which its
// coordinator does not read any more: the partition with the latest commit is its home. nil: there is no such group, or the partition is not its home.
func (m *Machine) findHome(number int32, name string, sourceTime int64) *group {
	g := m.table.groups[name]
	if g == nil || g.home == number {
		return g
	}
	if sourceTime <= g.latest {
		return nil
	}
	m.table.clearGroup(g)
	m.noteDeletion(name)
	g.home, g.latest = number, sourceTime
	return g
}

// deletePosition forgets a position, and those of transactions that are open.
func (m *Machine) deletePosition(number int32, name string, at Place) {
	m.dropPending(number, pendingPlace{name, at})
	g := m.table.groups[name]
	if g != nil && g.home != number {
		return
	}
	if g != nil {
		m.table.remove(g, at)
	}
	if isKept := m.keepDeletion(number, name, at); isKept || g != nil { // else nothing follows from it, and endless names would be noted
		m.noteDeletion(name)
	}
}

// CaughtUp says that a partition had no more records than were read at a time: when a fetch was sent that came back empty, or whose answer ends at the high watermark.
func (m *Machine) CaughtUp(number int32, at int64) {
	p := &m.partitions[number]
	p.isReady, p.asOf = true, max(p.asOf, at)
}

// IsComplete tells whether all that the source has is known, so that a group that is not known does not have a position there.
func (m *Machine) IsComplete() bool {
	if len(m.partitions) == 0 {
		return m.polled > 0
	}
	return !slices.ContainsFunc(m.partitions, func(p partition) bool { return !p.isReady })
}

// AsOf is the time of which everything is known that the source had then; false: not all was read once.
func (m *Machine) AsOf() (at int64, ok bool) {
	if !m.IsComplete() {
		return 0, false
	}
	if len(m.partitions) == 0 {
		return m.polled, true
	}
	at = m.partitions[0].asOf
	for i := range m.partitions {
		at = min(at, m.partitions[i].asOf)
	}
	return at, true
}

// isKnown tells whether the positions of a group are those that the source has, so that one that is not there is not there at the source.
func (m *Machine) isKnown(name string) bool {
	g := m.table.groups[name]
	if g == nil {
		return m.IsComplete()
	}
	return g.home == noHome || m.partitions[g.home].isReady
}

func (m *Machine) noteChange(name string) { m.changed[name] = struct{}{} }

// Revisit has a group be decided on again, since what was decided could not be done.
func (m *Machine) Revisit(name string) { m.noteChange(name) }

// TakeChanged returns groups that are to be decided on since their positions have changed, or since a deletion was put off, the first limit of them by their names. Each is returned once for each change. In
// addition all groups are to be decided on from time to time, those that have positions here and those of Groups: what others do here makes no change at the source.
func (m *Machine) TakeChanged(now int64, limit int) []string {
	for name, a := range m.absent {
		if a.again <= now {
			m.noteChange(name)
			a.again = now + deletionAgain
		}
	}
	var list []string
	for name := range m.changed {
		if m.isKnown(name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	list = list[:min(len(list), limit)]
	for _, name := range list {
		delete(m.changed, name)
	}
	return list
}

// Groups lists the groups that have positions at the source, in the order of their names.
func (m *Machine) Groups() []string { return slices.Sorted(maps.Keys(m.table.groups)) }

// Positions lists the positions of a group at the source, in the order of their places.
func (m *Machine) Positions(name string) []Placed {
	if g := m.table.groups[name]; g != nil {
		return g.list()
	}
	return nil
}

// AheadMillis is State.AheadMillis.
func (m *Machine) AheadMillis() int64 { return m.ahead }

// State is what a person may want to know of a machine.
type State struct {
	Groups, Positions int
	Transactions      int   // that are open at the source and have positions of groups
	Deletions         int   // of positions at the source, that are to be followed or were not looked at yet
	Bytes             int64 // of memory, about
	Unreadable        int64 // records that were left out, since they break the format
	AheadMillis       int64 // by which the source's clock is ahead of the one here, at least
	Loading           int   // partitions of __consumer_offsets that were not read up to their ends yet
}

// State is the machine's state.
func (m *Machine) State() State {
	s := State{
		Groups: len(m.table.groups), Positions: m.table.count, Transactions: len(m.open), Deletions: m.deleted.count(), Bytes: m.table.bytes,
		Unreadable: m.unreadable, AheadMillis: m.ahead,
	}
	for i := range m.partitions {
		if !m.partitions[i].isReady {
			s.Loading++
		}
	}
	return s
}
