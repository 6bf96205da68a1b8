package progress

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// batch is a batch that the source has written. Two logs that have the same one have all batches before it in common.
type batch struct {
	Batch

	raw         []byte
	topic       *topic
	prev        *batch // the one before it, when it was written
	committedAt time.Duration
	lostAt      time.Duration // by an unclean election; 0: never
	backAt      time.Duration // by another one; 0: never
	isRemoved   bool          // by compaction
	root        *batch        // what compaction has made it of; itself: it was written so
}

// epochStart is an entry of a log's list of epochs.
type epochStart struct {
	epoch record.Epoch
	start record.Offset
}

// replica is one of the source's.
type replica struct {
	id     int32
	up     bool
	log    []*batch
	start  record.Offset
	epochs []epochStart
	hw     record.Offset
	// leader and epoch are what the replica believes.
	leader int32
	epoch  record.Epoch
	knows  *topic // the topic that it knows to be there; nil: none
	// badUntil is the time up to which its disk gives wrong bytes, and oldUntil that up to which it sends the format of long ago.
	badUntil, oldUntil time.Duration
	isolated           time.Duration // up to when it hears nothing of the others, and is heard by the outside only
	isOld              bool          // it does not compare epochs, though others do
}

// topic is one incarnation of the topic.
type topic struct {
	id      TopicID
	number  int
	epoch   record.Epoch
	leader  int32
	isr     []int32
	highest record.Offset // the highest start that a leader has had
	unclean int           // how many unclean elections it has had
	lostIn  record.Epoch  // the epoch in which it lost records without an election, and nothing is written; NoEpoch: none
}

// cluster is the source.
type cluster struct {
	w        *world
	replicas []*replica
	topic    *topic // nil: it is deleted
	goneAt   time.Duration
	// saidGone tells that a broker has said that the topic is not there, though it was.
	saidGone bool
	// spoiledAt is when a broker has last sent wrong bytes.
	spoiledAt time.Duration
	last      *topic // the last one that there was
	made      int
	value     uint64
	batches   map[batchKey]*batch
}

type batchKey struct {
	base record.Offset
	crc  uint32
}

func newCluster(w *world) *cluster {
	c := &cluster{w: w, batches: map[batchKey]*batch{}}
	for id := range int32(3) {
		c.replicas = append(c.replicas, &replica{id: id, up: true, isOld: w.chance(0.05)})
	}
	c.makeTopic()
	return c
}

// makeTopic makes the topic, at once known to all of its brokers that are up, or soon.
func (c *cluster) makeTopic() {
	c.made++
	t := &topic{number: c.made, leader: int32(c.w.rng.IntN(3)), isr: []int32{0, 1, 2}, lostIn: record.NoEpoch}
	if c.w.kind.hasIDs {
		t.id[0], t.id[15] = 1, byte(c.made)
	}
	if c.w.chance(0.3) {
		t.epoch = record.Epoch(c.w.rng.IntN(4))
	}
	c.topic, c.last = t, t
	c.w.note("source: topic %d, leader %d in epoch %d", t.number, t.leader, t.epoch)
	for _, r := range c.replicas {
		c.tell(r)
	}
}

// tell has a broker learn who leads, after a while.
func (c *cluster) tell(r *replica) {
	t := c.topic
	if t == nil {
		return
	}
	leader, epoch := t.leader, t.epoch
	d := c.w.random(5 * ms)
	if !c.w.healing && r.id != leader && c.w.chance(0.3) {
		d += c.w.random(100 * ms)
	}
	c.w.after(d, func() {
		if c.topic != t || r.knows == t && r.leader >= 0 && r.epoch >= epoch || !r.up || r.isolated > c.w.now {
			return
		}
		if r.knows != t {
			r.log, r.start, r.epochs, r.hw, r.knows = nil, 0, nil, 0, t
		}
		r.leader, r.epoch = leader, epoch
		if leader == r.id {
			c.lead(r)
		}
	})
}

func (c *cluster) lead(r *replica) {
	if c.w.kind.beginsEpochs {
		r.beginEpoch(r.epoch)
	}
	c.topic.highest = max(c.topic.highest, r.start)
}

func (r *replica) end() record.Offset {
	if n := len(r.log); n > 0 {
		return max(r.start, r.log[n-1].Next)
	}
	return r.start
}

func (r *replica) beginEpoch(e record.Epoch) {
	if n := len(r.epochs); n == 0 || r.epochs[n-1].epoch < e {
		r.epochs = append(r.epochs, epochStart{e, r.end()})
	}
}

// leads is the replica that leads, by what the cluster knows; nil: none that is up and knows it.
func (c *cluster) leads() *replica {
	t := c.topic
	if t == nil {
		return nil
	}
	r := c.replicas[t.leader]
	if !r.up || r.knows != t || r.leader != r.id || r.epoch != t.epoch {
		return nil
	}
	return r
}

// tick replicates, advances the high watermark, and has brokers learn of what they missed.
func (c *cluster) tick() {
	w := c.w
	w.after(5*ms+w.random(10*ms), c.tick)
	for _, r := range c.replicas {
		if t := c.topic; r.up && t != nil && (r.knows != t || r.leader < 0 || r.epoch != t.epoch) && w.chance(0.1) {
			c.tell(r)
		}
		if r.up && c.topic == nil && r.knows != nil && w.chance(0.2) {
			r.knows = nil
		}
	}
	l := c.leads()
	if l == nil {
		return
	}
	t := c.topic
	for _, r := range c.replicas {
		isMember := slices.Contains(t.isr, r.id)
		switch {
		case r == l || !r.up || r.knows != t || r.epoch != t.epoch || r.isolated > w.now || l.isolated > w.now:
		case isMember || w.chance(0.05) || w.healing:
			c.follow(r, l)
			if r.end() == l.end() && r.start <= l.start && !isMember {
				t.isr = append(t.isr, r.id)
			}
		}
	}
	low := l.end()
	for _, id := range t.isr {
		r := c.replicas[id]
		if r.knows != t || r != l && (r.epoch != t.epoch || !r.up || r.isolated > w.now || l.isolated > w.now) {
			return
		}
		low = min(low, r.end())
	}
	if low > l.hw && w.chance(0.8) {
		l.hw = low
	}
	for _, b := range l.log {
		if b.Next <= l.hw && b.root.committedAt == Never {
			b.root.committedAt = w.now
		}
	}
}

// follow has a replica copy some batches of the leader, after it has cut what the leader does not have.
func (c *cluster) follow(r, l *replica) {
	n := 0
	i := slices.IndexFunc(r.log, func(b *batch) bool { return b.Next > l.start })
	k := slices.IndexFunc(l.log, func(b *batch) bool { return len(r.log) == 0 || i >= 0 && b.root == r.log[i].root })
	if i >= 0 && k >= 0 {
		for i+n < len(r.log) && k+n < len(l.log) && r.log[i+n].root == l.log[k+n].root {
			n++
		}
		r.cut(i + n)
	} else {
		r.log, r.epochs, r.start = nil, nil, l.start
		if k = slices.IndexFunc(l.log, func(b *batch) bool { return b.Next > l.start }); k < 0 {
			k = len(l.log)
		}
	}
	for _, b := range l.log[min(k+n, len(l.log)):min(k+n+1+c.w.rng.IntN(4), len(l.log))] {
		if b.root.isRemoved {
			continue
		}
		r.log = append(r.log, b)
		if n := len(r.epochs); n == 0 || r.epochs[n-1].epoch < b.Epoch {
			r.epochs = append(r.epochs, epochStart{b.Epoch, b.Base})
		}
	}
	if len(r.log) == 0 {
		r.start = l.start
	}
	r.start = max(r.start, min(l.start, r.end()))
	r.hw = max(r.start, min(l.hw, r.end()))
}

// cut keeps the first batches of a log.
func (r *replica) cut(n int) {
	r.log = r.log[:n:n]
	end := r.end()
	r.hw = min(r.hw, end)
	for k := len(r.epochs); k > 0 && r.epochs[k-1].start >= end; k = len(r.epochs) {
		r.epochs = r.epochs[:k-1]
	}
}

// produce has producers write to the leader.
func (c *cluster) produce() {
	w := c.w
	if w.healing && w.now > faultsEnd+time.Second {
		return
	}
	w.after(w.random(20*ms), c.produce)
	if l := c.leads(); l != nil && c.topic.lostIn != c.topic.epoch {
		c.write(l)
	}
}

// write appends a batch. Every one has other records, so that no two have the same checksum.
func (c *cluster) write(l *replica) {
	var bu record.Builder
	for range 1 + c.w.rng.IntN(3) {
		c.value++
		bu.Append(int64(c.w.now/ms), nil, binary.BigEndian.AppendUint64(nil, c.value))
	}
	raw, err := bu.Build()
	if err != nil {
		c.w.check.fail("the source: %v", err)
		return
	}
	raw.SetBaseOffset(l.end())
	raw.SetLeaderEpoch(l.epoch)
	b := &batch{Batch: BatchOf(raw), raw: slices.Clone(raw), topic: c.topic, committedAt: Never}
	b.root = b
	if n := len(l.log); n > 0 {
		b.prev = l.log[n-1].root
	}
	c.add(b)
	l.beginEpoch(l.epoch)
	l.log = append(l.log, b)
}

func (c *cluster) add(b *batch) {
	k := batchKey{b.Base, b.CRC}
	if c.batches[k] != nil {
		c.w.check.fail("the source: two batches have the same checksum at offset %d", b.Base)
	}
	c.batches[k] = b
}

// compact has the leader's log lose some batches, and others some of their records, except the last ones.
func (c *cluster) compact(l *replica) {
	for i := range max(0, len(l.log)-4) {
		b := l.log[i]
		if b.Next > l.hw || b.root.committedAt == Never || !c.w.chance(0.2) {
			continue
		}
		if c.w.chance(0.5) {
			b.root.isRemoved = true
			continue
		}
		var bu record.Builder
		for range b.Next - b.Base {
			c.value++
			bu.Append(b.MaxTimestamp, nil, binary.BigEndian.AppendUint64(nil, c.value))
		}
		raw, err := bu.Build()
		if err != nil {
			c.w.check.fail("the source: %v", err)
			return
		}
		raw.SetBaseOffset(b.Base)
		raw.SetLeaderEpoch(b.Epoch)
		to := &batch{Batch: BatchOf(raw), raw: slices.Clone(raw), topic: b.topic, root: b.root}
		c.add(to)
		l.log[i] = to
	}
	for _, r := range c.replicas {
		r.log = slices.DeleteFunc(slices.Clone(r.log), func(b *batch) bool { return b.root.isRemoved && r.knows == l.knows })
	}
	c.w.seen["compaction"]++
}

// elect has another replica lead. An unclean election loses what that one does not have.
func (c *cluster) elect(isClean bool) {
	t := c.topic
	if t == nil {
		return
	}
	choice := t.isr
	if !isClean {
		choice = []int32{0, 1, 2}
	}
	choice = slices.DeleteFunc(slices.Clone(choice), func(id int32) bool {
		return id == t.leader && c.w.chance(0.8) || !c.replicas[id].up || c.replicas[id].knows != t
	})
	if len(choice) == 0 {
		return
	}
	was, to := c.replicas[t.leader], c.replicas[choice[c.w.rng.IntN(len(choice))]]
	t.leader, t.epoch = to.id, t.epoch+1
	if c.w.chance(0.1) {
		t.epoch += record.Epoch(c.w.rng.IntN(1500))
	}
	if slices.Contains(t.isr, to.id) {
		c.w.seen["clean election"]++
	} else {
		t.isr = []int32{to.id}
		t.unclean++
		c.markLost(to)
	}
	c.w.note("source: %d leads in epoch %d up to %d, was %d up to %d; in sync %v", to.id, t.epoch, to.end(), was.id, was.end(), t.isr)
	for _, r := range c.replicas {
		c.tell(r)
	}
}

// markLost notes which batches are gone, and which are back.
func (c *cluster) markLost(to *replica) {
	lost := 0
	for _, b := range c.batches {
		if b.topic != c.topic || b.root != b {
			continue
		}
		if slices.ContainsFunc(to.log, func(o *batch) bool { return o.root == b }) {
			if b.lostAt > 0 {
				b.backAt = c.w.now
			}
		} else if b.Next > to.start && !b.isRemoved {
			b.lostAt, b.backAt = max(1, c.w.now), 0
			if b.committedAt != Never {
				lost++
			}
		}
	}
	c.w.seen["unclean election"]++
	if lost > 0 {
		c.w.seen["unclean election that loses committed records"]++
	}
}

// lag has a replica fall out of the in-sync set, and stand still.
func (c *cluster) lag() {
	t := c.topic
	if t == nil || len(t.isr) < 2 {
		return
	}
	t.isr = slices.DeleteFunc(slices.Clone(t.isr), func(id int32) bool { return id != t.leader && c.w.chance(0.6) })
}

// fault stages a fault of the source.
func (c *cluster) fault() {
	w, l := c.w, c.leads()
	switch w.rng.IntN(13) {
	case 12:
		c.isolate()
	case 0, 1:
		c.elect(true)
	case 2, 3:
		c.lag()
	case 4:
		if w.chance(0.7) {
			c.elect(false)
		}
	case 5, 6:
		if l != nil {
			c.deleteRecords(l)
		}
	case 7:
		if !w.calm && w.chance(0.15) {
			c.deleteTopic()
		}
	case 8:
		r := c.replicas[w.rng.IntN(3)]
		r.up = false
		w.after(w.random(600*ms), func() { c.restart(r) })
		w.note("source: %d is down", r.id)
	case 9:
		if l != nil && w.kind.isCompacted {
			c.compact(l)
		}
	case 10:
		r := c.replicas[w.rng.IntN(3)]
		if w.chance(0.5) {
			r.badUntil = w.now + w.random(900*ms)
		} else if !w.calm {
			r.oldUntil = w.now + w.random(900*ms)
		}
		w.note("source: %d sends bad bytes", r.id)
	case 11:
		if l != nil && !w.calm && w.chance(0.1) {
			c.goBack(l)
		} else if !w.kind.hasIDs && c.topic != nil && w.chance(0.1) {
			c.upgrade()
		}
	}
}

// deleteRecords moves the leader's start, as retention or a client does.
func (c *cluster) deleteRecords(l *replica) {
	to := l.start + (l.hw-l.start)*record.Offset(c.w.rng.IntN(101))/100
	if c.w.chance(0.5) {
		to = l.start + (l.hw-l.start)/3
	}
	l.start = max(l.start, to)
	for len(l.log) > 0 && l.log[0].Next <= l.start && (len(l.log) > 1 || c.w.chance(0.5)) {
		l.log = l.log[1:]
	}
	l.trimEpochs()
	c.topic.highest = max(c.topic.highest, l.start)
	c.w.note("source: deleted below %d of %d", l.start, l.end())
	c.w.seen["retention"]++
}

// trimEpochs drops the epochs whose records are deleted.
func (r *replica) trimEpochs() {
	for len(r.epochs) > 1 && r.epochs[1].start <= r.start {
		r.epochs = r.epochs[1:]
	}
	if len(r.epochs) > 0 {
		r.epochs[0].start = max(r.epochs[0].start, r.start)
	}
}

// deleteTopic deletes the topic. There may be another one after a while.
func (c *cluster) deleteTopic() {
	if c.topic == nil {
		return
	}
	c.topic, c.goneAt = nil, c.w.now
	c.w.note("source: the topic is deleted")
	c.w.seen["topic deleted"]++
	for _, r := range c.replicas {
		c.w.after(c.w.random(150*ms), func() {
			if c.topic == nil {
				r.knows = nil
			}
		})
	}
	if c.w.chance(0.7) {
		c.w.after(deletionTime+c.w.random(900*ms), func() {
			if c.topic == nil {
				c.w.seen["topic made again"]++
				c.makeTopic()
			}
		})
	}
}

// goBack has the leader lose its last records without an election.
func (c *cluster) goBack(l *replica) {
	n := len(l.log)
	if n < 4 {
		return
	}
	c.topic.lostIn = c.topic.epoch
	for _, r := range c.replicas {
		if r == l {
			gone := r.log[n-3:]
			r.cut(n - 3)
			for _, b := range gone {
				b.root.lostAt = max(1, c.w.now)
			}
		} else {
			r.leader = -1
		}
	}
	c.topic.isr = []int32{l.id}
	c.w.note("source: %d goes back to %d", l.id, l.end())
	c.w.seen["source goes back"]++
}

// upgrade has the source's topics have ids from now on.
func (c *cluster) upgrade() {
	c.w.kind.hasIDs = true
	c.topic.id[0], c.topic.id[15] = 1, byte(c.topic.number)
	c.w.note("source: topics have ids now")
	c.w.seen["source upgraded"]++
}

func (c *cluster) heal() {
	for _, r := range c.replicas {
		r.badUntil, r.oldUntil, r.isolated = 0, 0, 0
		c.restart(r)
	}
}

// restart starts a broker that was down: it knows nobody who leads until it is told.
func (c *cluster) restart(r *replica) {
	if !r.up {
		r.up, r.leader = true, -1
		c.tell(r)
	}
}

// isolate has a broker be cut off from the others, though not from the outside. Others of the in-sync set take over what it leads.
func (c *cluster) isolate() {
	r := c.replicas[c.w.rng.IntN(3)]
	if c.topic == nil || slices.ContainsFunc(c.replicas, func(o *replica) bool { return o.isolated > c.w.now }) {
		return
	}
	if c.topic.leader != r.id && c.w.chance(0.7) {
		r = c.replicas[c.topic.leader]
	}
	d := c.w.random(time.Second)
	r.isolated = c.w.now + d
	c.w.note("source: %d is cut off", r.id)
	c.w.seen["broker cut off"]++
	if c.topic.leader == r.id {
		c.elect(true)
	}
	if c.topic.leader != r.id && len(c.topic.isr) > 1 {
		c.topic.isr = slices.DeleteFunc(slices.Clone(c.topic.isr), func(id int32) bool { return id == r.id })
	}
	c.w.after(d, func() { c.tell(r) })
}

// describe is a broker's answer to FindTopic.
func (c *cluster) describe(r *replica) *Description {
	t := r.knows
	switch {
	case t == nil:
		if c.topic != nil {
			c.saidGone = true
		}
		return &Description{Trouble: Trouble{Kind: TopicGone}}
	case r.leader < 0 || !c.replicas[r.leader].up:
		return &Description{Trouble: Trouble{Kind: LeaderUnknown}, Topic: t.id}
	}
	return &Description{Topic: t.id, Leader: r.leader, LeaderEpoch: r.epoch, Broker: r.id}
}

// serve tells whether a broker serves a request.
func (c *cluster) serve(r *replica, a *Action, isFetch bool) Trouble {
	t := r.knows
	switch {
	case t == nil, t.id != a.Topic && a.Topic != TopicID{}:
		return Trouble{Kind: TopicGone}
	case r.epoch != a.LeaderEpoch && a.LeaderEpoch != record.NoEpoch, r.leader != r.id && (!isFetch || !c.w.kind.hasNear || !c.isNear(r)):
		return Trouble{Kind: LeaderUnknown}
	}
	return Trouble{}
}

// isNear tells whether readers are sent to a replica.
func (*cluster) isNear(r *replica) bool { return r.id == 2 }

// epochEnd is a broker's answer for an epoch.
func (c *cluster) epochEnd(r *replica, e record.Epoch) Tail {
	n := len(r.epochs)
	switch {
	case n == 0 || e > r.epochs[n-1].epoch:
		return Tail{record.NoEpoch, -1}
	case e < r.epochs[0].epoch && c.w.kind.knowsLower:
		return Tail{e, r.epochs[0].start}
	case e < r.epochs[0].epoch:
		return Tail{record.NoEpoch, -1}
	}
	for i := n - 1; ; i-- {
		if r.epochs[i].epoch > e {
			continue
		}
		if i == n-1 {
			return Tail{r.epochs[i].epoch, r.end()}
		}
		return Tail{r.epochs[i].epoch, r.epochs[i+1].start}
	}
}

// fetch is a broker's answer to Fetch.
func (c *cluster) fetch(r *replica, a *Action) *Answer {
	if t := c.serve(r, a, true); t.Kind != NoTrouble {
		return &Answer{Trouble: t, Nearer: -1}
	}
	ans := &Answer{Compared: c.w.kind.compares && !r.isOld, Start: r.start, HighWatermark: r.hw, Stable: r.hw, Nearer: -1}
	if ans.Compared && a.LastEpoch != record.NoEpoch {
		d := c.epochEnd(r, a.LastEpoch)
		switch {
		case d.Epoch == record.NoEpoch:
			return &Answer{Trouble: Trouble{Kind: OutOfRange}, Nearer: -1}
		case d.Epoch < a.LastEpoch || d.End < a.Offset:
			ans.Diverged = &d
			return ans
		}
	}
	if a.Offset < r.start || a.Offset > r.end() {
		return &Answer{Trouble: Trouble{Kind: OutOfRange}, Nearer: -1}
	}
	near := c.replicas[2]
	if c.w.kind.hasNear && !a.NoRack && r != near && near.knows == r.knows && near.up && near.end() >= a.Offset && near.start <= a.Offset {
		ans.Nearer = near.id
		return ans
	}
	n := 0
	for _, b := range r.log {
		if b.Next <= a.Offset || n >= 5 || b.Next > r.hw && (!c.w.kind.sendsMore || n == 0) {
			continue
		}
		n++
		ans.Raw = append(ans.Raw, c.spoil(r, b)...)
	}
	if n > 0 && c.w.chance(0.3) && len(r.log) > 0 {
		ans.Raw = append(ans.Raw, r.log[0].raw[:20]...) // the last one is cut
	}
	return ans
}

// spoil is a batch as a broker sends it.
func (c *cluster) spoil(r *replica, b *batch) []byte {
	raw := slices.Clone(b.raw)
	switch {
	case c.w.now < r.badUntil && c.w.chance(0.5):
		raw[len(raw)-1] ^= 1
		c.spoiledAt = c.w.now
		c.w.seen["bad bytes"]++
	case c.w.now < r.oldUntil:
		raw[16] = 1
		c.w.seen["old format"]++
	}
	return raw
}

// reread is a broker's answer to Reread.
func (c *cluster) reread(r *replica, a *Action) (Batch, Trouble) {
	if t := c.serve(r, a, false); t.Kind != NoTrouble {
		return Batch{}, t
	}
	if a.Offset < r.start || a.Offset > r.end() {
		return Batch{}, Trouble{Kind: OutOfRange}
	}
	for _, b := range r.log {
		if b.Next > a.Offset && b.Next <= r.hw {
			return b.Batch, Trouble{}
		}
	}
	return Batch{}, Trouble{}
}

// findRange is a broker's answer to FindRange.
func (c *cluster) findRange(r *replica, a *Action) (SourceRange, Trouble) {
	if t := c.serve(r, a, false); t.Kind != NoTrouble {
		return SourceRange{}, t
	}
	if n := len(r.epochs); c.w.kind.asksEpochs && n > 0 && r.epochs[n-1].epoch == r.epoch && r.hw < r.epochs[n-1].start {
		return SourceRange{}, Trouble{Refused, "the offset is not available yet"}
	}
	return SourceRange{r.start, r.hw}, Trouble{}
}

// findBegin is a broker's answer to FindBegin.
func (c *cluster) findBegin(r *replica, a *Action) (record.Offset, Trouble) {
	if t := c.serve(r, a, false); t.Kind != NoTrouble {
		return -1, t
	}
	for _, b := range r.log {
		if b.MaxTimestamp >= a.Time && b.Next <= r.hw {
			return max(b.Base, r.start), Trouble{}
		}
	}
	return -1, Trouble{}
}
