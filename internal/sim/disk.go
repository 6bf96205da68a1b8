package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// clock is a node's clock. It never goes back, but it may jump, and run fast or slow.
type clock struct {
	at, shows time.Duration // the time at which it shows something
	rate      int64         // in thousandths
}

func (k *clock) read(now time.Duration) time.Duration {
	return k.shows + time.Duration(int64(now-k.at)*k.rate/1000)
}

func (k *clock) setRate(now time.Duration, rate int64) {
	k.shows = k.read(now)
	k.at, k.rate = now, rate
}

// disk is a node's data directory. It outlives the node's process.
type disk struct {
	n         *node
	directory meta.UUID
	recorded  int64 // the epoch of the registration that is noted in the directory
	// generation is the number that is noted in the directory; see copier.
	generation int64
	clean      bool        // the last process has written everything before it ended
	metadata   uint64      // the index up to which the metadata log is known to be committed
	cached     []meta.UUID // topics of which the process has committed records before they were on disk
	logs       []*diskLog
	slowUntil  time.Duration
	hungUntil  time.Duration

	syncing    bool
	nextLazily time.Duration // when the page cache is written next
}

func newDisk(n *node) *disk { return &disk{n: n, directory: n.c.newUUID()} }

// diskLog is the log of one replica.
type diskLog struct {
	*memlog.Log
	part      *partition
	target    record.Offset // the end of what the sync that is under way covers
	producers producers
	txns      *logTransactions // up to where they were asked for; nil: not at all

	// These belong to the checks.
	verified record.Offset // the records below it are those that were committed
	agreed   record.Epoch  // the last leader's epoch in which the log was found to be the leader's
	highest  record.Offset // the high watermark when it was looked at last
	life     int           // of the node at that time
}

// log returns a partition's log. It makes an empty one if there is none.
func (d *disk) log(p *partition) *diskLog {
	for len(d.logs) < int(p.index) {
		d.logs = append(d.logs, nil)
	}
	l := d.logs[p.index-1]
	if l == nil {
		l = &diskLog{Log: memlog.New(false), part: p, agreed: record.NoEpoch, producers: newProducers()}
		d.logs[p.index-1] = l
	}
	return l
}

// find returns a partition's log, or nil.
func (d *disk) find(p *partition) *diskLog {
	if len(d.logs) < int(p.index) {
		return nil
	}
	return d.logs[p.index-1]
}

func (d *disk) remove(p *partition) {
	if d.find(p) != nil {
		d.logs[p.index-1] = nil
		p.touch()
	}
}

// each iterates over the logs.
func (d *disk) each(yield func(l *diskLog) bool) {
	for _, l := range d.logs {
		if l != nil && !yield(l) {
			return
		}
	}
}

// clone copies the directory, as a backup does.
func (d *disk) clone() *disk {
	c := *d
	c.logs = slices.Clone(d.logs)
	for i, l := range c.logs {
		if l != nil {
			k := *l
			k.Log = l.Clone()
			k.producers, k.txns = l.producers.clone(), nil
			c.logs[i] = &k
		}
	}
	c.syncing = false
	return &c
}

// losePower has the directory be a copy of one that was in use: it has what was on disk.
func (d *disk) losePower() {
	for l := range d.each {
		l.Crash(0)
		l.rebuildProducers()
		l.verified, l.highest, l.target = min(l.verified, l.End(), l.part.end()), 0, 0
	}
}

// drawDelay draws how long a small write takes.
func (d *disk) drawDelay() time.Duration {
	c := d.n.c
	delay := c.random(3 * ms)
	if c.now < d.slowUntil {
		delay += c.random(200 * ms)
	}
	if c.now < d.hungUntil {
		delay += d.hungUntil - c.now
	}
	return delay
}

// sync has the disk write what the logs have in memory, all of them together. Another sync follows
// if more was appended meanwhile.
func (d *disk) sync() {
	c := d.n.c
	if d.syncing {
		return
	}
	lazily := c.now >= d.nextLazily
	some := false
	for l := range d.each {
		l.target = 0
		if l.Durable() < l.End() && (lazily || !l.PageCache()) {
			l.target, some = l.End(), true
		}
	}
	if !some {
		return
	}
	if lazily {
		d.nextLazily = c.now + 400*ms + c.random(800*ms)
	}
	d.syncing = true
	d.n.later(ms+d.drawDelay(), func() { d.endSync() })
}

// endSync is delayed again if the disk has hung meanwhile.
func (d *disk) endSync() {
	n := d.n
	if n.c.now < d.hungUntil {
		n.later(d.hungUntil-n.c.now, d.endSync)
		return
	}
	d.syncing = false
	for l := range d.each {
		if l.target == 0 {
			continue
		}
		l.CommitTo(l.target)
		l.target = 0
		l.part.touch()
		if r := n.replica(l.part); r != nil {
			r.noteEnds()
		}
	}
	d.endCaching()
	n.act()
}

// crash ends the process without an orderly end. If the power is cut, records that are not on disk
// are lost.
func (d *disk) crash(powerCut bool) {
	c := d.n.c
	d.syncing = false
	for l := range d.each {
		before, committed := l.End(), l.Committed()
		keep := int(before - l.Durable())
		if powerCut {
			keep = min(keep, max(0, c.rng.IntN(6)-3))
		}
		l.Crash(keep)
		l.target = 0
		if l.End() < before {
			c.note(note{what: "loses the records from %d to %d", node: d.n.id, part: l.part.index, a: int64(l.End()), b: int64(before)})
			c.saw("crash that loses records")
			l.rebuildProducers()
			l.verified = min(l.verified, l.End())
		}
		if l.End() < committed || d.hasCached(l.part) { // nobody can tell what was in a page cache
			l.part.noteLoss(d.n.id)
		}
		l.part.touch()
	}
	if powerCut {
		d.metadata -= min(d.metadata, uint64(c.rng.IntN(4)))
	}
}

// noteCached notes durably, before an append in page-cache mode, that committed records of the topic may
// not be on disk, as storage/lastrun does.
func (d *disk) noteCached(topic meta.UUID) {
	if !slices.Contains(d.cached, topic) {
		d.cached = append(slices.Clip(d.cached), topic)
	}
}

// endCaching takes back the notes of topics whose logs are all durable, as storage/lastrun does.
func (d *disk) endCaching() {
	isCached := func(topic meta.UUID) bool {
		for l := range d.each {
			if l.part.topic == topic && (l.PageCache() || l.Durable() < l.End()) {
				return true
			}
		}
		return false
	}
	for _, topic := range d.cached {
		if !isCached(topic) {
			d.cached = slices.DeleteFunc(slices.Clone(d.cached), func(other meta.UUID) bool { return other == topic })
			d.n.c.saw("topic counts as durable again")
			return // the next one at the next sync
		}
	}
}

// hasCached tells whether an unclean end of the process ends a replica's place.
func (d *disk) hasCached(p *partition) bool {
	_, durable, _ := d.n.c.truth.settings(d.n.c.truth.image, d.n.c.truth.image.TopicByID(p.topic))
	return !durable || slices.Contains(d.cached, p.topic)
}

// record notes durably the epoch of a registration. From here on the directory says nothing of the
// process before.
func (d *disk) record(epoch int64) {
	if epoch > d.recorded {
		d.recorded, d.cached = epoch, nil
	}
}

// appendAsLeader appends a record as the leader in an epoch.
func (l *diskLog) appendAsLeader(e record.Epoch, pageCache bool, value uint64) error {
	l.Configure(pageCache)
	l.producers.note(value, l.End())
	return l.Append(e, value)
}

// appendAsFollower appends a leader's records.
func (l *diskLog) appendAsFollower(at record.Offset, pageCache bool, entries []memlog.Entry) error {
	l.Configure(pageCache)
	if err := l.AppendAt(at, entries...); err != nil {
		return err
	}
	for i, e := range entries {
		l.producers.note(e.Value, at+record.Offset(i))
	}
	return nil
}

// cut truncates the log.
func (l *diskLog) cut(to record.Offset) error {
	if err := l.Truncate(to); err != nil {
		return err
	}
	l.target, l.verified = min(l.target, to), min(l.verified, to)
	l.rebuildProducers()
	return nil
}

// beginAnew drops all records.
func (l *diskLog) beginAnew(start record.Offset) error {
	if err := l.Clear(start); err != nil {
		return err
	}
	l.target, l.verified = 0, start
	l.producers, l.txns = newProducers(), nil
	return nil
}

// moveStart deletes the records before an offset. The log goes on knowing their producers.
func (l *diskLog) moveStart(to record.Offset) error {
	for o := l.Start(); o < to; o++ {
		if e, ok := l.EntryAt(o); ok {
			l.producers.base.note(e.Value, o)
		}
	}
	return l.SetStart(to)
}

func (l *diskLog) rebuildProducers() {
	p := producers{base: l.producers.base, state: maps.Clone(l.producers.base)}
	for o := l.Start(); o < l.End(); o++ {
		e, _ := l.EntryAt(o)
		p.note(e.Value, o)
	}
	l.producers, l.txns = p, nil
}

// producers are the last sequences of a log's producers, as storage keeps them.
type producers struct {
	state sequences
	base  sequences // at the log's start
}

func newProducers() producers { return producers{sequences{}, sequences{}} }

func (p *producers) note(value uint64, at record.Offset) { p.state.note(value, at) }

func (p *producers) clone() producers { return producers{maps.Clone(p.state), maps.Clone(p.base)} }

// sequences has the last sequence of each producer, and the offset of its record.
type sequences map[uint32]lastSequence

type lastSequence struct {
	sequence uint32
	offset   record.Offset
}

func (s sequences) note(value uint64, at record.Offset) {
	s[producerOf(value)] = lastSequence{sequenceOf(value), at}
}

// A record's value names its producer and the sequence that this has given it.
func valueOf(producer, sequence uint32) uint64 { return uint64(producer)<<32 | uint64(sequence) }

func producerOf(value uint64) uint32 { return uint32(value >> 32) }

func sequenceOf(value uint64) uint32 { return uint32(value) }
