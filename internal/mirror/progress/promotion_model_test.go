package progress

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// The world of the model of promotions: a source with some partitions and a coordinator's log, producers of both versions of transactions, and two nodes that mirror the partitions, each with a clock of
// its own. The source is lost at some moment. Then the nodes decide what is open, and the truth tells whether they may.

// entry is a record or a marker of a partition, or a record of the coordinator's log.
type entry struct {
	txn      *txn
	epoch    int16
	isMarker bool
	kind     logKind
}

type logKind uint8

const (
	ongoing logKind = iota + 1
	prepared
	completed
)

// txn is a transaction, as it really is.
type txn struct {
	producer   int64
	epoch      int16 // of its records
	marker     int16
	ownEpoch   bool
	isDecided  bool
	commit     bool
	partitions []int
}

// writer is a producer and its coordinator.
type writer struct {
	id       int64
	epoch    int16
	ownEpoch bool
	now      *txn
	toMark   []int // the partitions that still get a marker
	idleTo   time.Duration
}

// tail is a log of the source, and how far a node has copied it.
type tail struct {
	all   []entry
	high  int // the high watermark
	reads []*reading
}

// reading is a node's copy of a log.
type reading struct {
	node  *site
	of    *tail
	end   int
	seen  []time.Duration // when each entry was here, by the node's clock
	fresh freshness
}

// site is a node that mirrors.
type site struct {
	skew time.Duration
	log  *reading
	has  map[int]*reading
}

type txnWorld struct {
	rng     *rand.Rand
	now     time.Duration
	events  []event
	seq     uint64
	parts   []*tail
	log     *tail
	writers []*writer
	sites   []*site
	isLost  bool
	// isQuiet tells that before the source is lost nobody writes for so long that the mirrors have all, and no marker goes out.
	isQuiet, hasStopped bool
	readsIt             bool // the coordinator's log may be read
	seen                coverage
}

func (w *txnWorld) after(d time.Duration, do func()) {
	w.seq++
	w.events = append(w.events, event{w.now + d, w.seq, do})
}

func (w *txnWorld) random(below time.Duration) time.Duration {
	return 1 + time.Duration(w.rng.Int64N(int64(below)))
}

func (w *txnWorld) chance(p float64) bool { return w.rng.Float64() < p }

func newTxnWorld(seed uint64, seen coverage) *txnWorld {
	w := &txnWorld{rng: rand.New(rand.NewPCG(seed, 0x7a11)), log: &tail{}, seen: seen}
	w.readsIt, w.isQuiet = w.chance(0.7), w.chance(0.2)
	for range 2 + w.rng.IntN(3) {
		w.parts = append(w.parts, &tail{})
	}
	for id := range int64(1 + w.rng.IntN(3)) {
		w.writers = append(w.writers, &writer{id: id, epoch: int16(w.rng.IntN(3)), ownEpoch: w.chance(0.5)})
	}
	for range 2 {
		s := &site{skew: w.random(100 * time.Hour), has: map[int]*reading{}}
		s.log = w.copyLog(s, w.log)
		w.sites = append(w.sites, s)
	}
	for i, p := range w.parts {
		s := w.sites[i%2]
		s.has[i] = w.copyLog(s, p)
	}
	for _, one := range w.writers {
		w.after(w.random(5*ms), func() { w.write(one) })
	}
	return w
}

func (w *txnWorld) copyLog(s *site, of *tail) *reading {
	r := &reading{node: s, of: of}
	r.fresh.forget()
	of.reads = append(of.reads, r)
	w.after(w.random(5*ms), func() { w.read(r) })
	return r
}

// read has a node read a log on: the request arrives after a while, and the answer, too.
func (w *txnWorld) read(r *reading) {
	asked := w.now + r.node.skew
	w.after(w.random(4*ms), func() {
		if w.isLost {
			return
		}
		if r.of.high < len(r.of.all) {
			r.of.high += 1 + w.rng.IntN(len(r.of.all)-r.of.high)
		}
		to, high := min(r.of.high, r.end+1+w.rng.IntN(4)), r.of.high
		w.after(w.random(4*ms), func() {
			now := w.now + r.node.skew
			r.fresh.take(asked, record.Offset(high), record.Offset(r.end))
			for ; r.end < to; r.end++ {
				r.seen = append(r.seen, now)
			}
			r.fresh.stored(now, record.Offset(r.end), 1, 1)
			r.fresh.confirm(Later)
			pause := 3 * ms
			if w.chance(0.1) {
				pause = 40 * ms // the mirror of one partition falls behind
			}
			w.after(w.random(pause), func() { w.read(r) })
		})
	})
}

// write is one step of a producer, or of its coordinator.
func (w *txnWorld) write(p *writer) {
	if w.hasStopped {
		return
	}
	w.after(w.random(4*ms), func() { w.write(p) })
	t := p.now
	switch {
	case w.now < p.idleTo:
	case len(p.toMark) > 0:
		k := w.rng.IntN(len(p.toMark))
		at := w.parts[p.toMark[k]]
		p.toMark = slices.Delete(p.toMark, k, k+1)
		at.all = append(at.all, entry{t, t.marker, true, 0})
		at.high = max(at.high, len(at.all)*w.rng.IntN(2))
		if w.chance(0.3) {
			p.idleTo = w.now + w.random(60*ms)
		}
		if len(p.toMark) == 0 {
			for _, i := range t.partitions {
				w.parts[i].high = len(w.parts[i].all) // markers are committed before the coordinator notes them
			}
			w.log.all = append(w.log.all, entry{t, t.marker, false, completed})
			p.now = nil
		}
	case t == nil:
		if !p.ownEpoch && w.chance(0.05) {
			p.ownEpoch = true // the source and the client were upgraded
			w.seen["upgrade"]++
		}
		p.now = &txn{producer: p.id, epoch: p.epoch, ownEpoch: p.ownEpoch}
	case len(t.partitions) > 0 && w.chance(0.3):
		w.decide(p)
	default:
		i := w.rng.IntN(len(w.parts))
		if !slices.Contains(t.partitions, i) {
			t.partitions = append(t.partitions, i)
			w.log.all = append(w.log.all, entry{t, t.epoch, false, ongoing})
			w.log.high = len(w.log.all) // the coordinator answers when that is committed
		}
		w.parts[i].all = append(w.parts[i].all, entry{t, t.epoch, false, 0})
	}
}

// decide ends a transaction, once all of its records are committed.
func (w *txnWorld) decide(p *writer) {
	t := p.now
	t.commit = w.chance(0.6)
	if t.commit {
		for _, i := range t.partitions {
			w.parts[i].high = len(w.parts[i].all) // else the producer would not commit
		}
	}
	t.marker = t.epoch
	if t.ownEpoch || !t.commit && w.chance(0.3) { // the latter is a fence
		t.marker++
		p.epoch++
	}
	t.isDecided = true
	w.log.all = append(w.log.all, entry{t, t.marker, false, prepared})
	w.log.high = len(w.log.all)
	p.toMark = slices.Clone(t.partitions)
	if w.chance(0.5) {
		p.idleTo = w.now + w.random(100*ms) // the markers go out late
	}
}

// run lets the world go on until the source is lost, and the answers that were under way have come.
func (w *txnWorld) run() {
	stopAt := 20*ms + w.random(200*ms)
	lostAt := stopAt
	if w.isQuiet {
		lostAt += 400 * ms
	}
	for len(w.events) > 0 {
		k := 0
		for i := range w.events {
			if e := &w.events[i]; e.at < w.events[k].at || e.at == w.events[k].at && e.seq < w.events[k].seq {
				k = i
			}
		}
		e := w.events[k]
		w.events = slices.Delete(w.events, k, k+1)
		if w.now = e.at; w.now > lostAt {
			w.isLost = true
		}
		if w.now > lostAt+10*ms {
			return
		}
		w.hasStopped = w.now > stopAt
		e.do()
	}
}

// nameOf is the name of a partition.
func nameOf(i int) Partition { return Partition{"t", int32(i)} }

func namesOf(partitions []int) (names []Partition) {
	for _, i := range partitions {
		names = append(names, nameOf(i))
	}
	return names
}

// evidence is what a node has read of the coordinator's log.
func (w *txnWorld) evidence(s *site) *Evidence {
	e := &Evidence{AsOf: Never}
	if !w.readsIt {
		return e
	}
	e.AsOf = s.log.fresh.asOf
	state := map[int64]Ongoing{}
	var order []int64
	for i, one := range s.log.of.all[:s.log.end] {
		t, seen := one.txn, s.log.seen[i]
		switch one.kind {
		case ongoing:
			if _, ok := state[t.producer]; !ok {
				order = append(order, t.producer)
			}
			o := state[t.producer]
			if o.Epoch != t.epoch || len(o.Partitions) == 0 {
				o = Ongoing{Producer: t.producer, Epoch: t.epoch}
			}
			o.Partitions = namesOf(t.partitions)[:min(len(t.partitions), len(o.Partitions)+1)]
			state[t.producer] = o
		case prepared:
			delete(state, t.producer)
			order = slices.DeleteFunc(order, func(id int64) bool { return id == t.producer })
			e.Decisions = append(e.Decisions, Decision{t.producer, one.epoch, t.commit, t.ownEpoch, namesOf(t.partitions), int64(i), seen, Never})
		case completed:
			for k := len(e.Decisions) - 1; k >= 0; k-- {
				if e.Decisions[k].Producer == t.producer {
					e.Decisions[k].Completed = seen
					break
				}
			}
		}
	}
	for _, id := range order {
		e.Ongoing = append(e.Ongoing, state[id])
	}
	return e
}

// holdings are what a node has of its partitions.
func (w *txnWorld) holdings(s *site) (all []Holding, open map[Partition]map[int64]*txn) {
	open = map[Partition]map[int64]*txn{}
	for i := range w.parts {
		r := s.has[i]
		if r == nil {
			continue
		}
		h := Holding{Partition: nameOf(i), AsOf: r.fresh.confirmed}
		now, first := map[int64]*txn{}, map[int64]int{}
		for k, one := range r.of.all[:r.end] {
			id := one.txn.producer
			switch {
			case one.isMarker:
				delete(now, id)
				if one.txn.commit {
					h.Committed = append(h.Committed, Committed{id, one.epoch, r.seen[k]})
				}
			case now[id] == nil:
				now[id], first[id] = one.txn, k
			}
		}
		for id := range int64(3) {
			if t := now[id]; t != nil {
				_, by := w.heldAt(r, first[id])
				h.Open = append(h.Open, Open{id, t.epoch, record.Offset(first[id]), by})
			}
		}
		open[h.Partition] = now
		all = append(all, h)
	}
	return all, open
}

// told are the markers of another node's partitions of which it has told a node in time.
func (w *txnWorld) told(s, other *site) (all []Committed) {
	holdings, _ := w.holdings(other)
	for _, h := range holdings {
		for _, c := range h.Committed {
			if at := c.Seen - other.skew + w.random(10*ms); at < w.now {
				c.Seen = at + s.skew
				all = append(all, c)
			}
		}
	}
	return all
}

func (*txnWorld) heldAt(r *reading, o int) (asOf, by time.Duration) {
	m := &Mirror{fresh: r.fresh}
	return m.HeldAt(record.Offset(o))
}

// hasAll tells whether a mirror has all records of a transaction in its partition.
func (w *txnWorld) hasAll(i int, t *txn) bool {
	r := w.sites[i%2].has[i]
	return !slices.ContainsFunc(r.of.all[r.end:], func(e entry) bool { return e.txn == t && !e.isMarker })
}

// check promotes, in one step or two, and compares what was decided with the truth.
func (w *txnWorld) check() error {
	var claims []Claim
	open := map[Partition]map[int64]*txn{}
	for i, s := range w.sites {
		h, o := w.holdings(s)
		e := w.evidence(s)
		e.Markers = w.told(s, w.sites[1-i])
		claims = append(claims, Examine(e, h)...)
		maps.Copy(open, o)
	}
	var made []Resolution
	if !w.isQuiet && w.chance(0.5) { // one partition first, when less was known
		first := slices.Clone(claims)
		for i := range first {
			if c := &first[i]; c.First >= 0 && w.chance(0.3) {
				c.Verdict, c.Partitions, c.IsVisible = Undecided, nil, false
			}
		}
		made = slices.DeleteFunc(Resolve(nil, first), func(r Resolution) bool { return r.Partition.Number > 0 })
		w.seen["promotion in two steps"]++
	}
	all := Resolve(made, claims)
	if !slices.Equal(all[:len(made)], made) || !slices.Equal(Resolve(all, claims), all) {
		return fmt.Errorf("decisions change: %+v, %+v", made, all)
	}
	decided := map[Partition]map[int64]Resolution{}
	for _, r := range all {
		if decided[r.Partition] == nil {
			decided[r.Partition] = map[int64]Resolution{}
		}
		if was, ok := decided[r.Partition][r.Producer]; ok && was.First >= 0 && r.First >= 0 {
			return fmt.Errorf("two decisions: %+v and %+v", was, r)
		}
		if r.First >= 0 || decided[r.Partition][r.Producer].First < 0 || decided[r.Partition][r.Producer] == (Resolution{}) {
			decided[r.Partition][r.Producer] = r
		}
		w.seen[fmt.Sprintf("outcome %d", r.Outcome)]++
	}
	for p, byProducer := range open {
		for id, t := range byProducer {
			if err := w.checkOpen(p, id, t, decided[p][id], all); err != nil {
				return fmt.Errorf("%v: %w; claims %+v", p, err, claims)
			}
		}
	}
	return nil
}

// checkOpen compares what was decided about open records with the truth.
func (w *txnWorld) checkOpen(p Partition, id int64, t *txn, r Resolution, all []Resolution) error {
	switch {
	case r.Producer != id || r.First < 0:
		return fmt.Errorf("producer %d has open records, and nothing is decided: %+v", id, r)
	case r.Commit && (!t.isDecided || !t.commit):
		return fmt.Errorf("%+v is committed, and the source has not committed it: %+v", *t, r)
	case r.Commit && !w.hasAll(int(p.Number), t):
		return fmt.Errorf("%+v is committed, and records are missing: %+v", *t, r)
	case r.Commit && r.MarkerEpoch != t.marker:
		return fmt.Errorf("%+v is committed with the marker's epoch %d", *t, r.MarkerEpoch)
	case !r.Commit && t.isDecided && t.commit && !r.Outcome.IsListed():
		return fmt.Errorf("%+v was committed, is aborted here, and is not listed: %+v", *t, r)
	case !r.Commit && w.isQuiet && w.readsIt && t.isDecided && t.commit:
		return fmt.Errorf("%+v was committed, all of it is here, and it is aborted: %+v", *t, r)
	case !r.Commit || !w.readsIt:
		return nil
	}
	isListed := slices.ContainsFunc(all, func(o Resolution) bool { return o.Producer == id && o.Epoch == t.epoch && o.Outcome.IsListed() })
	for _, i := range t.partitions {
		if !w.hasAll(i, t) && !isListed {
			return fmt.Errorf("%+v is committed, partition %d lacks records of it, and it is not listed", *t, i)
		}
	}
	return nil
}

// TestModelOfPromotions proves that a promotion commits only what the source has committed and what is complete, leaves nothing open, and lists what it aborts though it was committed, or may have been.
func TestModelOfPromotions(t *testing.T) {
	from, to := uint64(0), uint64(number(t, "LEAT_TEST_SEEDS", 300))
	if one := number(t, "LEAT_TEST_SEED", -1); one >= 0 {
		from, to = uint64(one), uint64(one)+1
	}
	seen := coverage{}
	for seed := from; seed < to; seed++ {
		w := newTxnWorld(seed, seen)
		w.run()
		if err := w.check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Log(seen)
	if to-from < 300 {
		return
	}
	for _, what := range []string{"upgrade", "promotion in two steps", "outcome 0", "outcome 1", "outcome 2", "outcome 3", "outcome 4", "outcome 5"} {
		if seen[what] == 0 {
			t.Errorf("in %d histories there was no %q", to-from, what)
		}
	}
}
