package mirror

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

const (
	// openAgain is the pause after a log could not be opened, or has not made its cuts yet.
	openAgain = 100 * time.Millisecond
	// mostActions is how many things a partition does in a row before others have their turns.
	mostActions = 1000
	// behindBytes is from how many bytes on a partition belongs to the backfill, and not to the tip.
	behindBytes = 1 << 20
	// notedShare is in which part of the time that the source keeps tombstones the metadata are told that all are here, and noteAgain the shortest time between two tries.
	notedShare = 8
	noteAgain  = 5 * time.Second
)

// PartitionID names a partition here. A topic that is made again under its name has another one.
type PartitionID struct {
	Topic  meta.UUID
	Number int32
}

// order is what the metadata say of a partition that this node leads. It never changes.
type order struct {
	epoch    record.Epoch
	topic    string // its name here
	of       *meta.Mirror
	mirror   *meta.PartitionMirror
	isPaused bool
	settings progress.Settings
	link     *link
}

func (o *order) assignment() progress.Assignment {
	return progress.Assignment{Epoch: o.epoch, IsPaused: o.isPaused, Durable: durableOf(o.mirror), Settings: o.settings}
}

// partition runs the machine of one partition that this node leads.
type partition struct {
	s  *Service
	id PartitionID

	newest atomic.Pointer[order] // what the metadata say now; nil: this node does not lead it any more
	anew   atomic.Bool           // the link has other connections: what is under way is given up

	timer timer // guarded by timers.mu
	isDue bool  // guarded by turns.mu

	mu       sync.Mutex // guards the fields below; held while the machine is called, and while the log is read and written
	at       *order     // by which the machine leads; nil: it does not
	log      Log        // nil: it does not lead
	known    progress.Log
	machine  *progress.Mirror
	change   progress.Action // of the log, which a turn is to make; NoAction: none
	unopened error           // why the log could not be opened
	notedAt  time.Duration   // when the metadata were last told of tombstones
	appended bool            // something was appended since takeAppended was called
	// While isPaced what was read is appended in pieces, and held has the append of those that are left: somebody calls appendMore.
	isPaced bool
	held    progress.Action
	parted  *meta.Parting // while it is being promoted: what was known of the source then

	reading   *reading // of a partition of the coordinators' log of a source; nil: it is one that mirrors. Set once
	promotion promotion
}

// newPartition makes a partition that waits for its first turn.
func newPartition(s *Service, id PartitionID) *partition {
	return &partition{s: s, id: id, machine: progress.New(&s.machines), notedAt: progress.Never}
}

// turn follows the metadata, and does what is to be done.
func (p *partition) turn() {
	p.mu.Lock()
	p.follow()
	if a := p.change; a.Kind != progress.NoAction {
		p.change = progress.Action{}
		p.changeLog(&a)
	}
	p.drive()
	p.promote()
	isAppended := p.takeAppended()
	p.mu.Unlock()
	if isAppended {
		p.s.commits.want()
	}
}

// takeAppended tells whether something was appended since the last call. mu is held.
func (p *partition) takeAppended() bool {
	is := p.appended
	p.appended = false
	return is
}

// follow has the machine know what the metadata say. mu is held.
func (p *partition) follow() {
	o, was, isAnew := p.newest.Load(), p.at, p.anew.Swap(false)
	switch {
	case o == nil:
		p.resign()
	case was == nil || was.epoch != o.epoch || was.link != o.link:
		p.lead(o)
	case isAnew:
		p.at, p.change, p.held = o, progress.Action{}, progress.Action{}
		st := p.machine.Status(p.s.now())
		p.machine.Lead(p.s.now(), o.assignment(), p.known, progress.Age{Held: -1, Tombstones: st.Tombstones}, p.log)
	case was != o:
		p.at = o
		p.machine.Assigned(o.assignment())
	}
	p.followPromotion(was)
}

func (p *partition) resign() {
	p.machine.Resign()
	p.promotion.begin(p.s)
	p.at, p.log, p.change, p.held, p.unopened = nil, nil, progress.Action{}, progress.Action{}, nil
	p.s.timers.set(p, 0, false)
}

// lead begins to lead in a leader epoch. If the log cannot be opened now, it is tried again.
func (p *partition) lead(o *order) {
	log := p.log
	switch {
	case log != nil:
	case p.reading != nil:
		log = p.reading
	default:
		log = p.s.cfg.Partition(p.id)
	}
	if log == nil { // the replica is gone, and the metadata soon say so
		p.resign()
		return
	}
	known, err := log.Open(o.epoch, o.mirror.LastCut().Number)
	if err != nil {
		p.resign()
		p.unopened = err
		p.s.timers.set(p, p.s.now()+openAgain, true)
		return
	}
	p.at, p.log, p.known, p.unopened, p.change, p.held = o, log, known, nil, progress.Action{}, progress.Action{}
	p.promotion.begin(p.s)
	p.machine.Lead(p.s.now(), o.assignment(), known, progress.Age{Held: -1, Tombstones: sinceTime(o.mirror.TombstonesSince)}, log)
}

// sinceTime is the time since one in ms since 1970; negative: it is not known.
func sinceTime(ms int64) time.Duration {
	if ms == 0 {
		return -1
	}
	return max(0, time.Since(time.UnixMilli(ms)))
}

// drive does what the machine asks for, until it waits for something. mu is held.
func (p *partition) drive() { p.driveOn(false) }

// driveOn is drive; isAppended tells that a piece of a paced answer was appended already.
func (p *partition) driveOn(isAppended bool) {
	if p.at == nil || p.at.mirror.IsEndOfSource() { // then promote has the timer
		return
	}
	for done := 0; ; done++ {
		if done == mostActions { // which is only so if something is wrong
			p.s.timers.set(p, p.s.now()+openAgain, true)
			return
		}
		a, ok := p.machine.Next(p.s.now())
		if !ok {
			break
		}
		switch a.Kind {
		case progress.Append:
			if p.isPaced && isAppended {
				p.held = a
				continue
			}
			isAppended = true
			p.changeLog(&a)
		case progress.Skip:
			p.changeLog(&a)
		case progress.Trim:
			p.change = a // which waits for the disk: not on the goroutine that reads for others
			p.s.turns.add(p)
		case progress.Raise, progress.Cut, progress.Declare:
			if p.reading != nil {
				p.reading.decide(&a)
				continue
			}
			p.s.decider.add(decision{p: p, a: a, cut: p.at.mirror.LastCut().Number + 1})
		default:
			if err := p.ask(&a); err != nil {
				p.tellLost(&a, err)
			}
		}
	}
	p.noteTombstones()
	at, ok := p.machine.WakeAt()
	p.s.timers.set(p, at, ok)
}

// ask has the source be asked. mu is held.
func (p *partition) ask(a *progress.Action) error {
	s := p.at.link.session.Load()
	if s == nil {
		return p.at.link.explain()
	}
	w := want{p: p, a: *a, place: source.Place{Topic: p.at.of.Topic, ID: source.TopicID(a.Topic), Number: p.id.Number}}
	if a.Kind == progress.FindTopic {
		return s.topics.add(w)
	}
	pool, err := s.pool(a.Broker)
	switch {
	case err != nil:
		return err
	case a.Kind != progress.Fetch:
		return pool.asks.add(w)
	case p.machine.Status(p.s.now()).Lag.Bytes > behindBytes:
		return pool.backfill.add(w)
	default:
		return pool.tip.add(w)
	}
}

// changeLog makes a change of the log. mu is held.
func (p *partition) changeLog(a *progress.Action) {
	if p.log == nil {
		return
	}
	var err error
	switch a.Kind {
	case progress.Append:
		err = p.appendPiece(a)
	case progress.Trim:
		err = p.log.Trim(a.Local, a.Offset)
	default:
		err = p.log.Skip(a.Local, a.Offset)
	}
	if known, e := p.log.State(); e == nil {
		p.known = known
	} else if err == nil {
		err = e
	}
	p.machine.LogChanged(p.s.now(), a.ID, p.known, logTrouble(err))
}

// appendPiece appends the first batches of an append. The machine asks for the others then. mu is held.
func (p *partition) appendPiece(a *progress.Action) error {
	raw, records, err := cutPiece(a.Raw)
	if err != nil {
		return err
	}
	p.appended = p.reading == nil // also if it fails: it may have appended some
	if err := p.log.Append(a.Local, raw); err != nil {
		return err
	}
	p.promotion.noteMarkers(p.s, raw)
	c := &p.at.link.counts
	c.bytes.Add(int64(len(raw)))
	c.records.Add(records)
	if p.isPaced {
		p.log.OnCommit(p.s.pace.add(int64(len(raw))))
	}
	return nil
}

// cutPiece cuts the first batches off some, of at most pieceBytes, but at least one, and counts their records.
func cutPiece(batches []byte) (piece []byte, records int64, err error) {
	n := 0
	for n < len(batches) {
		b, _, err := record.Next(batches[n:])
		if err != nil {
			return nil, 0, err
		}
		if n > 0 && n+len(b) > pieceBytes {
			break
		}
		n, records = n+len(b), records+int64(b.Count())
	}
	return batches[:n], records, nil
}

// takePaced is take for an answer of which a part is appended, and the rest by appendMore, as long as that returns true for isMore.
func (p *partition) takePaced(a *progress.Action, r *reply) (isMore bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isPaced = true
	p.tell(a, r)
	p.drive()
	return p.endPiece()
}

// appendMore appends the next piece of what takePaced has taken.
func (p *partition) appendMore() (isMore bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.held
	if p.held = (progress.Action{}); a.Kind == progress.Append {
		p.isPaced = true
		p.changeLog(&a)
		p.driveOn(true)
	}
	return p.endPiece()
}

// endPiece tells whether there are more pieces. mu is held.
func (p *partition) endPiece() (isMore bool) {
	p.isPaced, p.appended = false, false // who calls asks for a commit in any case
	return p.held.Kind == progress.Append
}

// tellLost tells the machine that a question is not answered. mu is held.
func (p *partition) tellLost(a *progress.Action, err error) { p.tell(a, &reply{trouble: lost(err)}) }

// reply is what came of a question to the source. What belongs to other kinds of questions is not looked at.
type reply struct {
	trouble     progress.Trouble
	fetched     *progress.Answer
	description progress.Description
	tail        progress.Tail
	limits      progress.SourceRange
	offset      record.Offset
	batch       progress.Batch
}

// tell tells the machine the answer to a question. mu is held.
func (p *partition) tell(a *progress.Action, r *reply) {
	m, now := p.machine, p.s.now()
	switch a.Kind {
	case progress.FindTopic:
		r.description.Trouble = r.trouble
		m.Described(now, a.ID, &r.description)
	case progress.Fetch:
		if r.fetched == nil {
			r.fetched = &progress.Answer{Trouble: r.trouble, Nearer: -1}
		}
		m.Fetched(now, a.ID, r.fetched)
	case progress.FindEpoch:
		m.EpochFound(now, a.ID, r.tail, r.trouble)
	case progress.Reread:
		m.Reread(now, a.ID, r.batch, r.trouble)
	case progress.FindRange:
		m.RangeFound(now, a.ID, r.limits, r.trouble)
	case progress.FindBegin:
		m.BeginFound(now, a.ID, r.offset, r.trouble)
	default:
	}
}

// take takes the answer to a question, goes on, and tells whether something was appended.
func (p *partition) take(a *progress.Action, r *reply) (isAppended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(a, r)
	p.drive()
	return p.takeAppended()
}

// answer takes the answer to a question that has no records.
func (p *partition) answer(a *progress.Action, r *reply) {
	if p.take(a, r) {
		p.s.commits.want()
	}
}

// decided takes the controller's answer.
func (p *partition) decided(a *progress.Action, t progress.Trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.at; o != nil && a.Kind == progress.Cut && t.Kind == progress.NoTrouble {
		o.link.counts.cuts.Add(1)
	}
	p.machine.Decided(p.s.now(), a.ID, t)
	p.drive()
}

// noteTombstones tells the metadata from time to time since when no tombstone of the source was missed, so that the next leader knows. mu is held.
func (p *partition) noteTombstones() {
	o, now := p.at, p.s.now()
	keep := o.settings.KeepTombstones
	if !o.settings.IsCompacted || keep <= 0 || o.mirror.State != meta.PartitionMirrors || !o.mirror.Begin.IsDecided || p.notedAt != progress.Never && now-p.notedAt < max(noteAgain, keep/notedShare/2) {
		return
	}
	st := p.machine.Status(now)
	since := time.Now().Add(-st.Tombstones)
	if st.State != progress.Mirroring || st.Tombstones < 0 || o.mirror.TombstonesSince > 0 && since.Sub(time.UnixMilli(o.mirror.TombstonesSince)) < keep/notedShare {
		return
	}
	p.notedAt = now
	d := durableOf(o.mirror)
	p.s.decider.add(decision{p: p, a: progress.Action{Kind: progress.Declare, Local: o.epoch, Durable: d, Was: d}, since: since.UnixMilli()})
}

// PartitionStatus is how a partition does that this node leads.
type PartitionStatus struct {
	PartitionID
	Link   meta.UUID
	Topic  string // its name here
	Source string // the topic's name at the source
	progress.Status
	// LastContact is when the source last answered for the partition; zero: it has not.
	LastContact time.Time
	RetryIn     time.Duration // with Waiting
	Open        int           // with Mirroring: how many transactions are open in the log here; -1: not known
	Parting     *meta.Parting // with Promoting: what was known of the source when that began; nil: the log cannot be used now
}

// status tells how the partition does; ok is false if this node does not lead it any more.
func (p *partition) status() (s PartitionStatus, ok bool) {
	o := p.newest.Load()
	if o == nil {
		return s, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.s.now()
	s = PartitionStatus{PartitionID: p.id, Link: o.of.Link, Topic: o.topic, Source: o.of.Topic, Status: p.machine.Status(now)}
	if p.at == nil {
		s.State, s.Reason = progress.Preparing, "the log is being opened"
		if p.unopened != nil {
			s.State, s.Reason = progress.Waiting, "the log here cannot be used: "+p.unopened.Error()
		}
	}
	if c := s.Status.Source.Contact; c != progress.Never {
		s.LastContact = time.Now().Add(c - now)
	}
	if s.State == progress.Waiting {
		s.RetryIn = max(0, s.RetryAt-now)
	}
	return s, true
}

// mirrorPartition is what a change that the controller is asked for has of the partition.
func (p *partition) mirrorPartition(epoch record.Epoch) controller.MirrorPartition {
	return controller.MirrorPartition{Topic: p.id.Topic, Number: p.id.Number, LeaderEpoch: int32(epoch)}
}
