package broker

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// Fetch, key 1, versions 4 to 18.
//
// 4: isolation level. 5: log start offset. 7: incremental sessions (KIP-227). 9:
// leader epoch (KIP-320). 10: zstd. 11: rack and preferred replica (KIP-392). 12:
// flexible, diverging epoch (KIP-595). 13: topic ids (KIP-516). 15: replica state
// (KIP-903). 16: current leader and endpoints (KIP-951). 17, 18: for followers.
//
// The first batch of the first partition that has any is given whole, however
// small the limits are; the others only as far as they fit (KIP-74). A request that
// finds less than it asks for is parked: it watches all its partitions, and whoever
// moves one of their high watermarks far enough reads again and sends the answer. Where
// the node watches as many as it may, a request is asleep until its time is over: it is
// never answered at once for that, or its client would ask again and again.
//
// No node may fetch as a follower yet, so a replica id is refused.

// readCommitted is the isolation level of readers of committed transactions.
const readCommitted = 1

func isolationOf(level int8) replica.Isolation {
	if level == readCommitted {
		return replica.ReadCommitted
	}
	return replica.ReadUncommitted
}

// fetch is the state of one Fetch request; pooled. While it is parked it belongs
// to whoever fires its poll.
type fetch struct {
	b       *Broker
	s       *session
	r       *wire.Request
	version int16

	fetchRequest
	topics    []fetchTopic
	names     []byte // the newest chunk of the topics' names
	nameBytes int    // of all chunks
	parts     []fetchPart
	readings  []reading // one for each partition while it is read; none of many while it is parked
	forgotten []forgotten

	work   budget.Reservation // until it is parked or answered
	parked budget.Reservation // while it is parked, and until it is answered then

	open  *fetchSession // of an incremental fetch
	moved bool          // a partition is led by another node

	poll     replica.Poll
	timer    *time.Timer
	deadline time.Time

	// What it holds of the node's bounds while it is parked.
	watched int            // partitions that it watches
	asleep  *wire.Response // nil: it is not asleep

	before, after *fetch // in the session's list, guarded by its mu
}

func newFetch(b *Broker) *fetch {
	f := &fetch{b: b}
	f.poll.Owner = f
	return f
}

// A request that may be for more than fewPartitions reserves fetchMemory for each. At least
// leastWanted bytes of it name a partition.
const (
	leastWanted     = 16
	fetchMemory     = 512 // of a partition: its state, its part of the answer, and a chunk
	fetchPartMemory = 64  // of its state while it waits
	// fetchTopicMemory is what a topic takes beside its name.
	fetchTopicMemory = 40
	parkedMemory     = 512 + keptReadings*64 // of a parked request without its partitions
	keptReadings     = 32                    // what was found in so many partitions has its memory also while it is parked
)

func (s *session) fetch(r *wire.Request) error {
	s.Flush() // what this connection has produced before, it may read

	f, _ := s.b.fetches.Get().(*fetch)
	f.s, f.r, f.version = s, r, r.Version
	long, err := f.reserve()
	if err != nil {
		f.recycle()
		return err
	}
	if long { // nothing of what follows waits but for its turn
		s.b.cfg.Work.Enter(budget.Data)
		defer s.b.cfg.Work.Leave()
	}
	if !f.decode(r.Body) {
		f.recycle()
		return wire.ErrMalformed
	}
	if f.replica >= 0 {
		f.refuseAll(kerr.TopicAuthorizationFailed.Code)
		return nil
	}
	if code := f.join(); code != none {
		f.parts = f.parts[:0]
		f.sendAnswer(code, 0)
		return nil
	}
	f.maxBytes = max(0, min(f.maxBytes, int32(min(s.b.cfg.FetchMaxBytes, 1<<31-1))))
	f.minBytes = min(f.minBytes, f.maxBytes)
	f.deadline = time.Time{}
	f.readOrPark(long)
	return nil
}

// reserve reserves memory where the request, or its session, may name many partitions, and
// tells whether that is so. A request that continues no session has the session's id 0.
func (f *fetch) reserve() (long bool, err error) {
	n := len(f.r.Body) / leastWanted
	if f.version >= 7 {
		n += f.b.cache.sizeOf(sessionIDOf(f.r.Body, f.version))
	}
	if n <= fewPartitions {
		return false, nil
	}
	f.work, err = f.s.reserve(fetchMemory * int64(n))
	return true, err
}

// refuseAll answers every partition with the same code.
func (f *fetch) refuseAll(code int16) {
	f.beginReading()
	for i := range f.parts {
		f.parts[i].setError(code)
	}
	f.sendAnswer(none, 0)
}

// readOrPark reads, and answers or parks. The caller owns the fetch.
//
//	reading --nothing there--> watching --woken, or its time is over--> reading
//	   |
//	   |------nothing there, and no room to watch--> asleep --its time is over--> answered
//	   |
//	   `------something, or nobody waits--> answered
//
// long tells that the caller has a processor for long work, and passes it on.
func (f *fetch) readOrPark(long bool) {
	finished := false
	defer func() {
		if !finished { // a bug: nobody answers it any more
			f.work.Release()
			f.parked.Release()
		}
	}()
	f.readUntilParked(long)
	finished = true
}

func (f *fetch) readUntilParked(long bool) {
	for {
		bytes, ready := f.readPartitions(long)
		if ready || bytes >= int(f.minBytes) || f.maxWait <= 0 || f.timeIsOver() {
			f.answerNow()
			return
		}
		switch f.s.admitFetch(f, int64(f.minBytes)-int64(bytes)) {
		case mayNotWait:
			f.answerNow()
			return
		case mayWatch:
			f.releaseChunks()
			if f.watchPartitions() {
				return
			}
		case maySleep:
			if bytes == 0 {
				f.sleepUntilOver()
			} else {
				f.s.dismissFetch(f)
				f.answerNow()
			}
			return
		}
	}
}

// timeIsOver tells whether the time to wait is up.
func (f *fetch) timeIsOver() bool {
	return !f.deadline.IsZero() && !time.Now().Before(f.deadline)
}

// watchPartitions waits for as many bytes as are missing. It returns false where they are there by
// now; the caller owns the fetch then, and only then.
func (f *fetch) watchPartitions() bool {
	for i := range f.parts {
		if q := &f.parts[i]; q.part != nil {
			f.poll.Watch(q.part, q.found.HighWatermark)
		}
	}
	f.endReading()
	return f.armPoll()
}

// sleepUntilOver waits for nothing but the end of the client's time, with no memory but the
// answer's, which tells what there is now: nothing. What comes meanwhile is found by the
// client's next request. Where that answer is too large to be kept it goes out at once.
func (f *fetch) sleepUntilOver() {
	code, id := f.updateSession()
	resp := f.buildAnswer(code, id)
	f.forgetPartitions()
	n := int64(len(resp.B))
	var ok bool
	if code == none {
		f.parked, ok = f.b.cfg.Work.TryReserve(budget.Parked, parkedMemory+int64(cap(resp.B)))
	}
	if !ok {
		f.s.dismissFetch(f)
		f.send(resp)
		return
	}
	f.work.Release()
	f.b.asleep.Add(n)
	f.asleep = resp
	if !f.armPoll() {
		f.sendAsleep()
	}
}

// sendAsleep ends a sleep.
func (f *fetch) sendAsleep() {
	f.b.asleep.Add(-int64(len(f.asleep.B)))
	f.send(f.asleep)
}

// armPoll arms the poll and its timer. It returns false where the wait is over already; the
// caller owns the fetch then, and only then.
func (f *fetch) armPoll() bool {
	if f.deadline.IsZero() {
		f.deadline = time.Now().Add(time.Duration(f.maxWait) * time.Millisecond)
	}
	if wait := time.Until(f.deadline); f.timer == nil {
		f.timer = time.AfterFunc(wait, f.expire)
	} else {
		f.timer.Reset(wait)
	}
	if f.poll.Park() {
		return true
	}
	f.disarm()
	return false
}

// expire is the timer's. It may come late, when the fetch is another request's: only who
// has fired the poll may look at it.
func (f *fetch) expire() {
	if f.poll.Expire() {
		f.Wake()
	}
}

func (f *fetch) disarm() {
	f.timer.Stop()
	f.s.dismissFetch(f)
}

// Wake goes on with a parked fetch whose poll the caller has fired. One of many partitions
// takes its turn elsewhere: the caller may have others to wake, and records to commit.
func (f *fetch) Wake() {
	defer f.r.Conn.Contain()
	if len(f.parts) > fewPartitions {
		f.b.done.Go(f.resumeLong)
		return
	}
	f.disarm()
	if f.asleep != nil {
		f.sendAsleep()
		return
	}
	f.readOrPark(false)
}

func (f *fetch) resumeLong() {
	defer f.r.Conn.Contain()
	f.b.cfg.Work.Enter(budget.Data)
	defer f.b.cfg.Work.Leave()
	f.disarm()
	f.readOrPark(true)
}

// beginReading makes room for what is found in the partitions.
func (f *fetch) beginReading() {
	if len(f.readings) == len(f.parts) {
		return
	}
	f.readings = slices.Grow(f.readings[:0], len(f.parts))[:len(f.parts)]
	for i := range f.parts {
		f.parts[i].reading = &f.readings[i]
	}
}

// endReading forgets what was found, and the memory of many.
func (f *fetch) endReading() {
	for i := range f.parts {
		f.parts[i].reading = nil
	}
	clear(f.readings)
	if f.readings = f.readings[:0]; cap(f.readings) > keptReadings {
		f.readings = nil
	}
}

// readPartitions reads all partitions. ready tells that the answer should not wait: a
// partition failed, or there is none to wait for.
func (f *fetch) readPartitions(long bool) (bytes int, ready bool) {
	f.beginReading()
	left, whole, known, isolation := int(f.maxBytes), true, false, isolationOf(f.isolation)
	for i := range f.parts {
		if long && i%stretch == stretch-1 {
			f.b.cfg.Work.Pass(budget.Data)
		}
		q := &f.parts[i]
		known = f.resolvePartition(q) || known
		if q.part == nil || q.code != none {
			ready = ready || q.part != nil
			continue
		}
		err := q.readPartition(left, whole, isolation)
		if errors.Is(err, replica.ErrBusy) && bytes > 0 { // the next request will find it, as where there is no room in this answer
			err = q.readPartition(0, false, isolation)
		}
		if err != nil {
			q.setError(codeOf(err))
			ready = true
		}
		if q.chunkSize > 0 {
			bytes += q.chunkSize
			left = max(0, left-q.chunkSize)
			whole = false
		}
		ready = ready || q.found.DivergingEnd >= 0
		f.moved = f.moved || q.code == notLeader
	}
	return bytes, ready || !known
}

// resolvePartition finds a partition, anew where the one found before is gone, and clears
// what was read from it. It returns false for one that does not exist here.
func (f *fetch) resolvePartition(q *fetchPart) bool {
	q.code, q.skip, q.chunkSize, q.found = none, false, 0, replica.Nothing()
	if q.part != nil && !q.part.Gone() {
		return true
	}
	var code int16
	q.part, code = f.b.find(q.topic.name, q.topic.id, q.index, f.version >= 13)
	if q.part == nil {
		q.setError(code)
	}
	return q.part != nil
}

// find finds a partition by its topic's id or name, or says why it is not here.
func (b *Broker) find(name []byte, id [16]byte, n int32, byID bool) (*replica.Partition, int16) {
	var t *replica.Topic
	if byID {
		t = b.cfg.Set.TopicByID(id)
	} else {
		t = b.cfg.Set.Topic(name)
	}
	if t == nil {
		return nil, b.missing(name, id, byID)
	}
	if p := t.Partition(n); p != nil {
		return p, none
	}
	if n >= 0 && int(n) < t.NumPartitions() {
		return nil, notLeader
	}
	return nil, kerr.UnknownTopicOrPartition.Code
}

// missing says why this node has nothing of a topic.
func (b *Broker) missing(name []byte, id [16]byte, byID bool) int16 {
	image := b.cfg.Image()
	switch {
	case byID && image.TopicByID(id) == nil:
		return kerr.UnknownTopicID.Code
	case !byID && image.TopicBytes(name) == nil:
		return kerr.UnknownTopicOrPartition.Code
	}
	return notLeader
}

// setError makes the partition's answer an error.
func (q *fetchPart) setError(code int16) {
	q.releaseChunk()
	q.code, q.skip, q.found = code, false, replica.Nothing()
}

// readPartition reads one partition: at most left bytes of it, but for its first batch
// where whole is set.
func (q *fetchPart) readPartition(left int, whole bool, i replica.Isolation) (err error) {
	query := replica.Query{
		Epoch: q.epoch, LastEpoch: q.lastFetchedEpoch, Offset: q.offset,
		Isolation: i, MaxBytes: max(0, min(int(q.maxBytes), left)), Whole: whole,
	}
	err = q.part.Read(&query, &q.found)
	if q.found.Chunk.Exists() {
		q.chunkSize = q.found.Chunk.Len()
	}
	return err
}

func (q *fetchPart) releaseChunk() {
	if q.reading == nil {
		return
	}
	if q.found.Chunk.Exists() {
		q.found.Chunk.Release()
		q.found.Chunk = replica.Chunk{}
	}
	q.chunkSize = 0
}

func (f *fetch) releaseChunks() {
	for i := range f.parts {
		f.parts[i].releaseChunk()
	}
}

// answerNow answers with what was read.
func (f *fetch) answerNow() {
	f.sendAnswer(f.updateSession())
}

// updateSession brings the fetch session up to date. It returns the answer's code, and the
// session's id.
func (f *fetch) updateSession() (code int16, session int32) {
	switch {
	case f.open != nil:
		if code := f.open.answered(f); code != none {
			f.releaseChunks()
			f.parts = f.parts[:0]
			return code, 0
		}
		return none, f.open.id
	case f.version >= 7 && f.epoch == initialEpoch:
		return none, f.b.cache.create(f)
	}
	return none, 0
}

func (f *fetch) sendAnswer(code int16, session int32) {
	f.send(f.buildAnswer(code, session))
}

// buildAnswer makes the answer of what was read.
func (f *fetch) buildAnswer(code int16, session int32) *wire.Response {
	resp := f.r.Begin()
	bytes := 0
	for i := range f.parts {
		bytes += f.parts[i].chunkSize
	}
	f.b.stats.bytesOut.Add(int64(bytes))
	f.encode(resp, code, session)
	return resp
}

// send sends the answer, which holds what it needs of the request's memory until it was sent.
func (f *fetch) send(resp *wire.Response) {
	r := f.r
	memory := f.work
	if memory.Bytes() == 0 {
		memory, f.parked = f.parked, budget.Reservation{}
	}
	f.work = budget.Reservation{}
	f.recycle()
	memory.Shrink(resp.Memory())
	r.Hold(&memory)
	r.Send(resp)
}

// recycle gives the state back, without what refers to other memory.
func (f *fetch) recycle() {
	f.forgetPartitions()
	f.work.Release()
	f.parked.Release()
	f.s, f.r, f.open, f.moved, f.asleep = nil, nil, nil, false, nil
	f.b.fetches.Put(f)
}

// forgetPartitions forgets the partitions.
func (f *fetch) forgetPartitions() {
	f.releaseChunks()
	f.endReading()
	clear(f.parts)
	clear(f.forgotten)
	clear(f.topics)
	f.parts, f.forgotten, f.topics, f.names = f.parts[:0], f.forgotten[:0], f.topics[:0], f.names[:0]
	if cap(f.parts) > keepParts || cap(f.topics) > keepParts || cap(f.forgotten) > keepParts {
		f.parts, f.forgotten, f.topics, f.names = nil, nil, nil, nil
	}
	f.nameBytes = cap(f.names)
}
