package progress

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// Of each eight worlds one has a controller that cuts the partition now and then, as a restore does, and in one the partition mirrors
// another cluster's, whose elections lose records: there the leader finds out, and has the controller cut. All that is random about this
// comes from a source of its own, so that the other worlds are as they would be without it.

// worldOfCuts is what a world has for cuts.
type worldOfCuts struct {
	cutRNG  *rand.Rand // nil: there are no cuts
	mirrors bool
	source  *source
}

// nodeOfCuts is what a node knows of the cuts of its log.
type nodeOfCuts struct {
	isWaiting bool          // it tries to make a cut again later
	cutIn     record.Epoch  // the leader epoch in which it has made one last
	cutTo     record.Offset // the end of its log then
	shown     record.Offset // its high watermark as it was told to others in this life
	unable    *Leader       // it is to lead, and cannot cut its log; nil: it can
}

func (w *world) beginCuts(seed uint64) {
	w.mirrors = seed%8 == 5
	if !w.mirrors && seed%8 != 7 {
		return
	}
	w.cutRNG = rand.New(rand.NewPCG(seed, 0xc07))
	if w.mirrors {
		w.source = &source{w: w, log: memlog.New(false), epoch: 1, readIn: map[record.Epoch]int32{}}
	}
}

func (w *world) cutChance(p float64) bool { return w.cutRNG != nil && w.cutRNG.Float64() < p }

func (w *world) cutRandom(below time.Duration) time.Duration {
	return time.Duration(w.cutRNG.Int64N(int64(below)))
}

// stageCuts has the controller cut now and then, or the leader mirror.
func (w *world) stageCuts() {
	switch {
	case w.mirrors:
		w.after(w.cutRandom(20*ms), w.mirror)
	case w.cutRNG != nil:
		w.after(200*ms+w.cutRandom(400*ms), w.cut)
	}
}

// cut has the controller cut the partition somewhere, mostly a little below what is committed.
func (w *world) cut() {
	if w.healing || w.now > faultsEnd-200*ms {
		return
	}
	w.after(150*ms+w.cutRandom(500*ms), w.cut)
	end := len(w.check.committed)
	to := max(end-w.cutRNG.IntN(12), 0)
	switch w.cutRNG.IntN(8) {
	case 0:
		to = w.cutRNG.IntN(end + 1)
	case 1:
		to = end + w.cutRNG.IntN(5)
	}
	w.ctl.cut(record.Offset(to))
}

// cut has all replicas end their logs at an offset, in a new leader epoch.
func (c *controller) cut(to record.Offset) {
	if c.now.cuts == nil {
		c.now.cuts = &meta.PartitionMirror{State: meta.PartitionMirrors}
	}
	next := c.now.cuts.WithCut(int64(to))
	c.now.cuts = next
	c.now.leaderEpoch++
	c.now.PartitionEpoch++
	c.w.seen["cut"]++
	c.w.check.cut(to, record.Epoch(c.now.leaderEpoch))
	c.w.note("controller: cut %d at %d", next.LastCut().Number, to)
	c.write("cut")
}

// obey has the log make the cuts of an image that it has not made. It returns false as long as that is not done: the replica does nothing
// in the leader epoch meanwhile.
func (n *node) obey(img *image) bool {
	w := n.w
	cut, ok := img.cuts.PendingCut(n.log.CutNumber())
	if !ok {
		n.unable = nil
		return true
	}
	n.leader, n.pending = nil, nil
	if n.follower != nil {
		n.follower.MustCut()
	}
	if n.isDamaged && w.healing && img.leader == n.id && len(img.ISR) == 1 {
		w.note("the log of %d is mended", n.id) // nobody can take its place, and nobody can fetch from it
		n.isDamaged = false
	}
	if n.isDamaged || n.readOnly || n.isFull() || w.cutChance(0.4) {
		n.obeyLater(img)
		return false
	}
	if record.Offset(cut.Offset) < n.log.Start() {
		w.seen["cut below a start"]++
	}
	if cut.Number > n.log.CutNumber()+1 {
		w.seen["cut that a replica had missed"]++
	}
	end := n.log.End()
	n.must(n.log.Cut(cut.Number, record.Offset(cut.Offset)))
	w.note("%d makes cut %d at %d: its log ends at %d, and ended at %d", n.id, cut.Number, cut.Offset, n.log.End(), end)
	w.seen["cut made"]++
	n.cutIn, n.cutTo, n.unable = record.Epoch(img.leaderEpoch), n.log.End(), nil
	if n.follower != nil {
		n.follower.WasCut(w.now, n.ends(), n.log.EpochAt(n.log.End()-1))
	}
	return true
}

// obeyLater has the node try once more to make a cut. If it is to lead, and its log cannot be cut, it gives up.
func (n *node) obeyLater(img *image) {
	w := n.w
	w.seen["cut made late"]++
	if img.leader == n.id && (n.isDamaged || n.readOnly || n.isFull()) {
		if n.unable == nil || n.unable.Epoch() != record.Epoch(img.leaderEpoch) {
			w.seen["leader that cannot cut"]++
			n.follower = nil
			n.unable = NewUnreadable(w.now, Config{ID: n.id, Lag: lagLimit, Retry: retryPause}, record.Epoch(img.leaderEpoch), img.Assignment, img.brokers)
		} else {
			n.unable.BrokersChanged(w.now, img.brokers)
			n.unable.Assigned(w.now, img.Assignment)
		}
	} else {
		n.unable = nil
	}
	if n.isWaiting {
		return
	}
	n.isWaiting = true
	n.later(w.cutRandom(120*ms), func() {
		n.isWaiting = false
		n.followAgain()
		n.act()
	})
}

// followAgain has a node that waits for a cut try to make it.
func (n *node) followAgain() {
	if n.w.cutRNG == nil || !n.active || n.applied == 0 {
		return
	}
	img := n.w.ctl.images[n.applied-1]
	if _, ok := img.cuts.PendingCut(n.log.CutNumber()); ok {
		n.follow(img)
	}
}

// appendEarly has the leader of an epoch in which its log was cut append before it has a machine, as one does that opens its log at the
// first append.
func (n *node) appendEarly(epoch record.Epoch) {
	w := n.w
	if n.cutIn != epoch || n.readOnly || n.isDamaged || n.isFull() || !w.cutChance(0.5) {
		return
	}
	w.seen["append before the machine"]++
	if w.mirrors {
		n.must(n.log.AppendAt(n.log.End(), w.source.read(n, 1+w.cutRNG.IntN(3))...))
	} else {
		for range 1 + w.cutRNG.IntN(3) {
			w.nextValue++
			n.must(n.log.Append(epoch, w.nextValue))
		}
	}
	if w.cutChance(0.5) {
		n.log.CommitTo(n.log.End())
	}
}

// source is the partition of another cluster that is mirrored, as far as it is committed there.
type source struct {
	w      *world
	log    *memlog.Log
	epoch  record.Epoch
	readIn map[record.Epoch]int32 // by epoch: the node that has read records of it last
}

// produce has records come at the source. Now and then another leader is elected there, sometimes one that lacks committed records.
func (s *source) produce() {
	w := s.w
	if w.cutChance(0.08) {
		s.epoch++
		if w.cutChance(0.5) {
			to := max(s.log.End()-record.Offset(w.cutRNG.IntN(15)), 0)
			w.note("source: loses the records from %d on, of %d", to, s.log.End())
			must(w, s.log.Truncate(to))
		}
	}
	for range 1 + w.cutRNG.IntN(3) {
		w.nextValue++
		must(w, s.log.Append(s.epoch, w.nextValue))
	}
}

func must(w *world, err error) {
	if err != nil {
		w.check.fail("source: %v", err)
	}
}

// read returns records of the source that follow a node's log; none if the logs have parted.
func (s *source) read(n *node, most int) []memlog.Entry {
	if verdict, _ := s.compare(n); verdict != Served {
		return nil
	}
	es, err := s.log.Read(n.log.End(), most)
	must(s.w, err)
	for _, e := range es {
		if was, ok := s.readIn[e.Epoch]; ok && was != n.id {
			s.w.seen["epoch of the source from two leaders"]++
		}
		s.readIn[e.Epoch] = n.id
	}
	return es
}

// compare compares a node's log with the source's, as a fetch by a consumer does.
func (s *source) compare(n *node) (Verdict, Tail) {
	end, last := n.log.End(), n.log.EpochAt(n.log.End()-1)
	var tail Tail
	tail.Epoch, tail.End = s.log.EpochEnd(last)
	return Compare(end, last, Ends{Start: s.log.Start(), End: s.log.End()}, tail), tail
}

// mirror has a node that believes to lead fetch from the source, or have the controller cut what the source has lost.
func (w *world) mirror() {
	if w.healing {
		return
	}
	w.after(w.cutRandom(16*ms), w.mirror)
	ls := w.leaders()
	if len(ls) == 0 {
		return
	}
	n := ls[w.cutRNG.IntN(len(ls))]
	if n.readOnly || n.isDamaged {
		return
	}
	if n.isFull() {
		n.leader.LogChanged(w.now, LogRefuses)
		n.act()
		return
	}
	verdict, tail := w.source.compare(n)
	if verdict == Served {
		es := w.source.read(n, 1+w.cutRNG.IntN(4))
		w.note("%d mirrors %d records from %d on", n.id, len(es), n.log.End())
		n.must(n.log.AppendAt(n.log.End(), es...))
		if w.cutChance(0.05) {
			n.must(n.log.SetStart(n.log.Start() + (n.leader.HighWatermark()-n.log.Start())/2))
		}
		n.leader.Moved(w.now, n.ends())
		n.act()
		return
	}
	to := w.source.log.End()
	if verdict == Diverged {
		_, own := n.log.EpochEnd(tail.Epoch)
		if to = tail.End; own >= 0 {
			to = min(to, own)
		}
	}
	epoch := n.leader.Epoch()
	n.send(theController, "cut", func() {
		if w.ctl.now.leader == n.id && record.Epoch(w.ctl.now.leaderEpoch) == epoch {
			w.seen["cut by a mirror"]++
			w.ctl.cut(to)
		}
	})
}

// pastCut is a cut, and the leader epoch from which on it counts.
type pastCut struct {
	to    record.Offset
	epoch record.Epoch
}

// cut takes a cut: what was committed beyond it is not any more, whoever does not know that yet.
func (c *checker) cut(to record.Offset, epoch record.Epoch) {
	c.cuts = append(c.cuts, pastCut{to, epoch})
	c.committed = slices.Clip(c.committed[:min(int(to), len(c.committed))])
	c.trimmed = min(c.trimmed, to)
	for e := range c.shown {
		c.shown[e] = min(c.shown[e], to)
	}
}

// limitIn is the offset from which on nothing counts that happens in a leader epoch, since it was cut in a later one.
func (c *checker) limitIn(epoch record.Epoch) record.Offset {
	limit := record.Offset(math.MaxInt64)
	for _, cut := range c.cuts {
		if cut.epoch > epoch {
			limit = min(limit, cut.to)
		}
	}
	return limit
}

// limitOf is the offset from which on nothing counts that a node's log has, since it has not made a cut.
func (c *checker) limitOf(n *node) record.Offset {
	if cut, ok := c.w.ctl.now.cuts.PendingCut(n.log.CutNumber()); ok {
		return record.Offset(cut.Offset)
	}
	return math.MaxInt64
}

// checkTails proves that a log keeps what each of its cuts has taken, and has made each once.
func (c *checker) checkTails(n *node) {
	tails := n.log.Tails()
	isAscending := slices.IsSortedFunc(tails, func(a, b memlog.Tail) int { return cmp.Compare(a.Number, b.Number) })
	if !isAscending || len(tails) > 0 && tails[len(tails)-1].Number > n.log.CutNumber() {
		c.fail("node %d has made cut %d and has the tails %+v", n.id, n.log.CutNumber(), tails)
	}
}
