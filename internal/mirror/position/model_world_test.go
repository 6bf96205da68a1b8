package position_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/leatstream/leat/internal/mirror/names"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

var (
	modelGroups = []string{"g0", "g1", "g2", "left-out"}
	modelTopics = []string{"a", "b", "c"}
	nameHere    = map[string]string{"a": "x.a", "b": "b"} // c is not mirrored
)

// staleMillis is for how long a broker of the source may tell of a topic that is deleted.
const staleMillis = 3000

// sourceTopic is a topic of the source, or one that it has had.
type sourceTopic struct {
	id        [16]byte
	deletedAt int64 // 0: it is there
}

// world is two clusters and the link between them.
type world struct {
	rnd   *rand.Rand
	trace bytes.Buffer
	seen  map[string]int
	now   int64 // by the clock here, which is right
	skew  int64 // by how much the source's clock is ahead
	polls bool  // the link polls
	isOld bool  // the source has no topic ids

	logs    [2]offsetsLog
	topics  map[string]*sourceTopic
	lastID  byte
	lastTxn int64
	open    map[int64]int16 // the epochs of producers with open transactions; a producer writes to log id % 2
	idle    map[int64]int16 // of those without
	later   []func()        // tombstones of deleted topics that are to be written

	here   map[string]map[position.Place]position.Here // by group
	active map[string]bool

	m       *position.Machine
	groups  *names.Filter
	read    [2]history       // what the machine was given
	next    [2]record.Offset // what it is given next
	begin   [2]record.Offset // the end of the log when the machine began to read it
	isCut   [2]bool          // the log was cut since it was read
	known   map[string]map[position.Place]*entry
	arrived map[entry]int64 // when a commit came for the first time
	mirrors map[string]*position.Mirror
}

func newWorld(seed uint64, seen map[string]int) *world {
	groups, err := names.ParseFilter("g*", "")
	if err != nil {
		panic(err)
	}
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 1)), seen: seen, now: 1_000_000, topics: map[string]*sourceTopic{}, open: map[int64]int16{}, idle: map[int64]int16{},
		here: map[string]map[position.Place]position.Here{}, active: map[string]bool{}, groups: groups, arrived: map[entry]int64{}, mirrors: map[string]*position.Mirror{},
	}
	w.skew, w.polls, w.isOld = []int64{0, 0, 4000, -4000}[w.rnd.IntN(4)], w.rnd.IntN(4) == 0, w.rnd.IntN(4) == 0
	for _, topic := range modelTopics {
		w.makeTopic(topic)
		if nameHere[topic] != "" {
			w.mirrors[topic] = &position.Mirror{Topic: topic, ID: w.topics[topic].id, Here: nameHere[topic]}
		}
	}
	for _, group := range modelGroups {
		w.here[group] = map[position.Place]position.Here{}
	}
	w.restart(0)
	return w
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(&w.trace, "%d: %s\n", w.now, fmt.Sprintf(format, args...))
}

func (w *world) note(what string) { w.seen[what]++ }

func (w *world) run() error {
	for range 150 {
		w.now += w.rnd.Int64N(400)
		if w.rnd.IntN(20) == 0 {
			w.now += w.rnd.Int64N(20_000)
		}
		if err := w.step(); err != nil {
			return err
		}
	}
	return w.settle()
}

// step is one event.
func (w *world) step() error {
	switch n := w.rnd.IntN(20); {
	case n < 9:
		w.changeSource()
	case n < 12:
		w.changeHere()
	case n < 15:
		return w.feed(w.rnd.IntN(3) == 0)
	case n < 18:
		return w.decide(w.m.TakeChanged(w.now, 1+w.rnd.IntN(3)))
	case n == 18:
		w.askForTopics()
	case w.rnd.IntN(4) == 0:
		w.note("restart")
		w.restart(w.m.State().AheadMillis)
	default:
		return w.decide(modelGroups)
	}
	return nil
}

func logOf(group string) int {
	if group == "g1" {
		return 1
	}
	return 0
}

func pick[T any](w *world, list []T) T { return list[w.rnd.IntN(len(list))] }

// anyPlace is a place of the topics that the source has; false: it has none.
func (w *world) anyPlace() (position.Place, bool) {
	var all []string
	for _, topic := range modelTopics {
		if w.topics[topic].deletedAt == 0 {
			all = append(all, topic)
		}
	}
	if len(all) == 0 {
		return position.Place{}, false
	}
	return position.Place{Topic: pick(w, all), Partition: int32(w.rnd.IntN(2))}, true
}

func (w *world) makeTopic(topic string) {
	w.lastID++
	w.topics[topic] = &sourceTopic{id: [16]byte{w.lastID}}
	if w.isOld {
		w.topics[topic].id = [16]byte{}
	}
}

// write writes an entry into the log of a group.
func (w *world) write(e entry) {
	l := &w.logs[logOf(e.group)]
	if e.isMarker {
		l = &w.logs[e.producer%2]
	}
	e.true = w.now
	w.say("source: %d: %+v", l.end, e)
	l.append(e)
}

func (w *world) changeSource() {
	group := pick(w, modelGroups)
	l := &w.logs[logOf(group)]
	place, ok := w.anyPlace()
	if !ok {
		place.Topic = modelTopics[0]
	}
	topic := w.topics[place.Topic]
	switch n := w.rnd.IntN(30); {
	case n < 10 && ok:
		e := entry{group: group, place: place, id: topic.id, offset: record.Offset(w.rnd.IntN(60))}
		if old := l.written.find(group, place); old != nil && old.offset > e.offset {
			w.note("reset")
		}
		w.note("commit")
		w.write(e)
	case n < 12:
		w.note("begin")
		w.beginTransaction()
	case n < 18 && ok:
		w.send(place)
	case n < 22:
		w.end()
	case n < 24:
		if l.written.find(group, place) != nil || l.written.isOpen(group, place) {
			w.note("delete position")
			w.write(entry{group: group, place: place, isGone: true})
		}
	case n == 24:
		w.note("delete group")
		w.deletePositions(func(g string, _ position.Place) bool { return g == group }, false)
	case n == 25 && ok:
		w.note("delete topic")
		w.deleteTopic(place.Topic)
	case n == 26 && !w.isOld:
		for _, name := range modelTopics {
			if w.topics[name].deletedAt > 0 {
				w.note("make topic")
				w.say("source: topic %s is made again", name)
				w.makeTopic(name)
			}
		}
	case n == 27:
		w.note("compact")
		w.say("source: compacts")
		w.logs[w.rnd.IntN(2)].compact()
	case n == 28 && !w.polls: // a poll cannot tell a log that was cut from a new commit
		w.cut()
	default:
		if len(w.later) > 0 {
			w.later[0]()
			w.later = w.later[1:]
		}
	}
}

func (w *world) beginTransaction() {
	if len(w.idle) > 0 && w.rnd.IntN(2) == 0 {
		producer := pick(w, slices.Sorted(maps.Keys(w.idle)))
		w.open[producer] = w.idle[producer]
		delete(w.idle, producer)
		return
	}
	w.lastTxn++
	w.open[w.lastTxn] = 0
}

func (w *world) send(place position.Place) {
	if len(w.open) == 0 {
		return
	}
	producer := pick(w, slices.Sorted(maps.Keys(w.open)))
	group := []string{"g0", "g1"}[producer%2]
	w.note("send")
	e := entry{group: group, place: place, offset: record.Offset(w.rnd.IntN(60)), producer: producer, epoch: w.open[producer]}
	if w.rnd.IntN(2) == 0 { // Kafka 4.3 writes no id in transactions
		e.id = w.topics[place.Topic].id
	}
	w.write(e)
}

// end ends a transaction, with the epoch of its records or the next one.
func (w *world) end() {
	if len(w.open) == 0 {
		return
	}
	producer := pick(w, slices.Sorted(maps.Keys(w.open)))
	epoch := w.open[producer] + int16(w.rnd.IntN(2))
	delete(w.open, producer)
	w.idle[producer] = epoch
	e := entry{isMarker: true, producer: producer, epoch: epoch, commits: w.rnd.IntN(2) == 0}
	w.note(map[bool]string{true: "end: commit", false: "end: abort"}[e.commits])
	w.write(e)
}

// deletePositions writes tombstones for the positions that are chosen, and for those of open transactions.
func (w *world) deletePositions(isChosen func(string, position.Place) bool, isOfGone bool) {
	for _, group := range modelGroups {
		h := w.logs[logOf(group)].written
		for _, topic := range modelTopics {
			for number := range int32(2) {
				place := position.Place{Topic: topic, Partition: number}
				if isChosen(group, place) && (h.find(group, place) != nil || h.isOpen(group, place)) {
					w.write(entry{group: group, place: place, isGone: true, isOfGone: isOfGone})
				}
			}
		}
	}
}

// deleteTopic deletes a topic. Its offsets are deleted later, by the coordinators: those that are not known to be of a later topic.
func (w *world) deleteTopic(name string) {
	w.say("source: topic %s is deleted", name)
	topic := w.topics[name]
	topic.deletedAt = w.now
	w.later = append(w.later, func() {
		w.deletePositions(func(group string, place position.Place) bool {
			e := w.logs[logOf(group)].written.find(group, place)
			return place.Topic == name && (e == nil || e.id == topic.id || e.id == [16]byte{})
		}, true)
	})
}

// cut has the log lose its last entries.
func (w *world) cut() {
	i := w.rnd.IntN(2)
	l := &w.logs[i]
	to := max(0, l.end-record.Offset(1+w.rnd.IntN(3)))
	w.note("cut")
	w.say("source: log %d is cut at %d", i, to)
	l.cut(to)
	w.isCut[i] = true
	open := l.written.openTransactions()
	for producer := range w.open {
		if int(producer%2) == i {
			w.idle[producer] = w.open[producer]
			delete(w.open, producer)
		}
	}
	for producer, epoch := range open {
		w.open[producer] = epoch
		delete(w.idle, producer)
	}
}

func (w *world) changeHere() {
	group := pick(w, modelGroups)
	at := position.Place{Topic: nameHere[pick(w, []string{"a", "b"})], Partition: int32(w.rnd.IntN(2))}
	p, ok := w.here[group][at]
	switch n := w.rnd.IntN(10); {
	case w.active[group] && n < 4:
		w.note("leave here")
		w.say("here: %s has no members", group)
		w.active[group] = false
	case n < 2:
		w.note("join here")
		w.say("here: %s has members", group)
		w.active[group] = true
	case n < 5:
		offset := record.Offset(w.rnd.IntN(60))
		w.note("commit here")
		w.say("here: %s commits %v = %d", group, at, offset)
		w.here[group][at] = position.Here{
			Placed: position.Placed{Place: at, Position: position.Position{Offset: offset, Epoch: epochOf(offset), Metadata: fmt.Sprint(offset)}}, Time: w.now,
		}
	case n == 5 && ok:
		w.note(map[bool]string{true: "expire here", false: "delete here"}[p.IsOurs])
		w.say("here: %s in %v is deleted", group, at)
		delete(w.here[group], at)
	}
}

// restart makes a new machine, which knows nothing.
func (w *world) restart(ahead int64) {
	w.say("link: restarts")
	w.m = position.New(position.Config{Groups: w.groups, AheadMillis: ahead})
	w.read, w.next, w.isCut = [2]history{}, [2]record.Offset{}, [2]bool{}
	w.begin = [2]record.Offset{w.logs[0].end, w.logs[1].end}
	w.known = map[string]map[position.Place]*entry{}
	if !w.polls {
		w.m.SetPartitions(2)
	}
}

// feed gives the machine some records, or all, or the answers to polls.
func (w *world) feed(all bool) error {
	if w.polls {
		return w.poll(all)
	}
	for i := range w.logs {
		l := &w.logs[i]
		if w.isCut[i] {
			w.m.Restart(int32(i))
			w.read[i], w.next[i], w.begin[i], w.isCut[i] = nil, 0, l.end, false
		}
		for _, e := range l.kept {
			if e.at < w.next[i] {
				continue
			}
			if !all && w.rnd.IntN(6) == 0 {
				break
			}
			if err := w.m.Read(int32(i), e.batch(w.skew), w.now); err != nil {
				return err
			}
			if _, ok := w.arrived[e]; !ok {
				w.arrived[e] = w.now
			}
			w.read[i], w.next[i] = append(w.read[i], e), e.at+1
		}
		if w.next[i] == l.end || len(l.kept) == 0 || l.kept[len(l.kept)-1].at < w.next[i] {
			w.m.CaughtUp(int32(i), w.now)
		}
	}
	for _, group := range modelGroups {
		w.known[group] = findAll(w.read[logOf(group)], group)
	}
	return w.compare()
}

// poll has the machine know all groups, or one.
func (w *world) poll(all bool) error {
	w.note("poll")
	var listed []string
	for _, group := range modelGroups {
		if !all && w.rnd.IntN(3) > 0 {
			continue
		}
		found := findAll(w.logs[logOf(group)].written, group)
		if w.known[group] = found; all && len(found) == 0 {
			continue // the source does not list it
		}
		var list []position.Placed
		for _, e := range found {
			list = append(list, e.placed())
		}
		if err := w.m.Polled(group, w.now, list); err != nil {
			return err
		}
		if len(found) > 0 {
			listed = append(listed, group)
		}
	}
	if all {
		w.m.PolledAll(w.now, listed)
	}
	return w.compare()
}

// findAll finds all positions of a group.
func findAll(h history, group string) map[position.Place]*entry {
	all := map[position.Place]*entry{}
	for _, topic := range modelTopics {
		for number := range int32(2) {
			place := position.Place{Topic: topic, Partition: number}
			if e := h.find(group, place); e != nil {
				all[place] = new(*e)
			}
		}
	}
	return all
}

// compare checks that the machine knows what the log says, as far as it was read, and counts no memory for what is gone.
func (w *world) compare() error {
	if s := w.m.State(); s.Bytes < 0 || (s.Bytes == 0) != (s.Groups+s.Transactions+s.Deletions == 0) {
		return fmt.Errorf("the machine counts %d bytes: %+v", s.Bytes, s)
	}
	for _, group := range modelGroups {
		want := w.known[group]
		if group == "left-out" {
			want = nil
		}
		got := w.m.Positions(group)
		if len(got) != len(want) {
			return fmt.Errorf("%s has the positions %v, want %d", group, got, len(want))
		}
		for _, p := range got {
			if e := want[p.Place]; e == nil || p.Offset != e.offset || p.Epoch != epochOf(e.offset) || p.Metadata != fmt.Sprint(e.offset) || p.TopicID != e.id {
				return fmt.Errorf("%s has the position %v, want %+v", group, p, e)
			}
		}
	}
	return nil
}

// askForTopics asks the source for the topics that are mirrored. Its answer may be as old as staleMillis.
func (w *world) askForTopics() {
	asOf := w.now - w.rnd.Int64N(staleMillis)
	for _, name := range slices.Sorted(maps.Keys(w.mirrors)) {
		mirror, topic := w.mirrors[name], w.topics[name]
		switch {
		case topic.id != mirror.ID, topic.deletedAt > 0 && topic.deletedAt <= asOf:
			w.say("link: topic %s is gone", name)
			delete(w.mirrors, name)
		default:
			mirror.SeenAt = w.now
		}
	}
}

// settle has nothing happen any more but what the link does, and checks that the positions are those of the source.
func (w *world) settle() error {
	w.say("nothing happens any more")
	clear(w.active)
	for _, write := range w.later {
		write()
	}
	for n := range 40 {
		w.now += 1000
		w.askForTopics()
		if err := w.feed(true); err != nil {
			return err
		}
		groups := w.m.TakeChanged(w.now, 100)
		if n%10 == 0 {
			groups = modelGroups
		}
		if err := w.decide(groups); err != nil {
			return err
		}
	}
	return w.checkSettled()
}
