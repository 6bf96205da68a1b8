package position

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

// ErrFull is returned if the positions of the groups that a link follows take more memory than they may.
var ErrFull = errors.New("the positions take too much memory")

// About how much memory each of these takes, with the allocator's part and without the characters of names and metadata.
const (
	storedBytes      = 128
	topicEntryBytes  = 96 // a topic of a group
	topicNameBytes   = 128
	groupBytes       = 448
	pendingBytes     = 320 // an offset of an open transaction, without that of the position that it may become
	transactionBytes = 160
	deletionBytes    = 320 // a deletion that is to be followed
)

// table has the positions of groups.
type table struct {
	groups map[string]*group
	names  map[string]*topicName
	count  int   // of positions
	bytes  int64 // of memory, with those of pending offsets
	limit  int64
}

// group is a group of the source that has positions.
type group struct {
	name   string
	home   int32 // the partition of __consumer_offsets that has its records, or noHome
	latest int64 // the largest SourceTime of a record, by which its home is known: see Machine.findHome
	asOf   int64 // if it is polled: when the last poll of it began
	topics map[*topicName][]stored
}

// noHome is the home of a group whose positions are polled.
const noHome = -1

// topicName is the name of a topic, which all groups share.
type topicName struct {
	text   string
	groups int // how many have positions of it
}

// stored is a position of a group, in a list that is ordered by partitions.
type stored struct {
	partition int32
	written   record.Offset // of its record in __consumer_offsets
	Position
}

func newTable(limit int64) table {
	return table{groups: map[string]*group{}, names: map[string]*topicName{}, limit: limit}
}

// checkRoom returns ErrFull if so many bytes more would be too many.
func (t *table) checkRoom(more int64) error {
	if t.bytes+more > t.limit {
		return fmt.Errorf("%w: those of the groups that the link follows need more than %d MiB; have it follow fewer groups", ErrFull, t.limit>>20)
	}
	return nil
}

// mostGrowth is the most bytes that another position takes.
func mostGrowth(group, topic string, p *Position) int64 {
	return int64(groupBytes + len(group) + topicEntryBytes + topicNameBytes + len(topic) + storedBytes + len(p.Metadata))
}

func (t *table) addGroup(name string, home int32) *group {
	g := &group{name: name, home: home, topics: map[*topicName][]stored{}}
	t.groups[name] = g
	t.bytes += int64(groupBytes + len(name))
	return g
}

// removeGroup forgets a group and its positions.
func (t *table) removeGroup(g *group) {
	t.clearGroup(g)
	delete(t.groups, g.name)
	t.bytes -= int64(groupBytes + len(g.name))
}

// clearGroup forgets the positions of a group.
func (t *table) clearGroup(g *group) {
	for n := range g.topics {
		for i := range g.topics[n] {
			t.bytes -= int64(storedBytes + len(g.topics[n][i].Metadata))
		}
		t.count -= len(g.topics[n])
		t.removeTopic(g, n)
	}
}

func (t *table) removeTopic(g *group, n *topicName) {
	delete(g.topics, n)
	t.bytes -= topicEntryBytes
	if n.groups--; n.groups == 0 {
		delete(t.names, n.text)
		t.bytes -= int64(topicNameBytes + len(n.text))
	}
}

func search(list []stored, partition int32) (int, bool) {
	return slices.BinarySearchFunc(list, partition, func(s stored, p int32) int { return cmp.Compare(s.partition, p) })
}

// find finds the position of a group at a place; nil: there is none.
func (t *table) find(g *group, at Place) *stored {
	list := g.topics[t.names[at.Topic]]
	if i, ok := search(list, at.Partition); ok {
		return &list[i]
	}
	return nil
}

// set stores a position of a group, and tells whether that is another one for a consumer, or of another topic or time.
func (t *table) set(g *group, topic string, s stored) (isNew bool) {
	n := t.names[topic]
	if n == nil {
		n = &topicName{text: topic}
		t.names[topic] = n
		t.bytes += int64(topicNameBytes + len(topic))
	}
	list, ok := g.topics[n]
	if !ok {
		n.groups++
		t.bytes += topicEntryBytes
	}
	i, found := search(list, s.partition)
	if found {
		isNew = list[i].Position != s.Position
		t.bytes += int64(len(s.Metadata) - len(list[i].Metadata))
		list[i] = s
		return isNew
	}
	t.count++
	t.bytes += int64(storedBytes + len(s.Metadata))
	g.topics[n] = slices.Insert(list, i, s)
	return true
}

// remove forgets the position of a group at a place, if there is one, and the group after its last one.
func (t *table) remove(g *group, at Place) {
	n := t.names[at.Topic]
	list := g.topics[n]
	i, ok := search(list, at.Partition)
	if !ok {
		return
	}
	t.count--
	t.bytes -= int64(storedBytes + len(list[i].Metadata))
	if g.topics[n] = slices.Delete(list, i, i+1); len(list) == 1 {
		t.removeTopic(g, n)
	}
	if len(g.topics) == 0 {
		t.removeGroup(g)
	}
}

// list lists the positions of a group in the order of their places.
func (g *group) list() []Placed {
	var all []Placed
	for n := range g.topics {
		for i := range g.topics[n] {
			s := &g.topics[n][i]
			all = append(all, Placed{Place{n.text, s.partition}, s.Position})
		}
	}
	slices.SortFunc(all, func(a, b Placed) int { return comparePlaces(a.Place, b.Place) })
	return all
}

// Placed is a position and its place.
type Placed struct {
	Place
	Position
}
