package broker

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// Fetch, key 1, versions 4 to 18.
//
// 4: isolation level. 5: log start offset. 7: incremental sessions (KIP-227). 9:
// leader epoch (KIP-320). 10: zstd. 11: rack and preferred replica (KIP-392). 12:
// flexible, diverging epoch (KIP-595). 13: topic ids (KIP-516). 15: replica state
// (KIP-903). 16: current leader and endpoints (KIP-951). 17, 18: for followers. From 11 on a follower
// serves readers, too, and with replica.selector.class a leader sends a reader to the replica in its
// rack.
//
// The first batch of the first partition that has any is sent whole, however small the
// limits are; further batches only if they fit (KIP-74). A request that finds less than
// its minimum is parked: it watches all its partitions, and the goroutine that raises
// their high watermarks far enough reads again and sends the answer. If there is no
// memory for one more fetch that watches, the request sleeps until its time is over. An
// empty answer at once would only have the client ask again and again.
//
// A request with a replica id is refused, unless the connection has proven to be that node's.

// readCommitted is the isolation level of readers of committed transactions.
const readCommitted = 1

func isolationOf(level int8) replica.Isolation {
	if level == readCommitted {
		return replica.ReadCommitted
	}
	return replica.ReadUncommitted
}

// fetch is the state of one Fetch request; pooled. One goroutine owns it at a time: that
// which serves it, and, once it is parked, that which fires its poll. While it is parked it
// refers neither to the receive buffer nor to a fetch session, so that it keeps no memory
// alive that is counted as free.
type fetch struct {
	b       *Broker
	s       *session
	r       *wire.Request
	version int16

	fetchRequest
	fetchLists
	by       access       // what the client may read; when the request was parked, for any goroutine
	hasSlept bool         // it was parked: its client may have been logged out meanwhile
	rackName []byte       // in the receive buffer; only until rack is found
	rack     string       // the reader's rack, if it may be sent to a replica there; "": it may not
	results  []readResult // one for each partition, from beginReading to endReading

	work   budget.Reservation // of a request that may name many partitions, until it is parked or answered
	parked budget.Reservation // of a request that was parked, until it is answered

	open    *fetchSession // the session that the request continues; nil: none
	leaders namedLeaders  // that the answer names

	owner    *quota.Owner // whose quotas it counts for; nil: nobody's
	throttle int64        // ms for which its client is throttled

	poll     replica.Poll
	timer    *time.Timer
	deadline time.Time

	waiting int            // the number of its partitions when it was parked
	watched int            // its partitions that Broker.watched counts
	asleep  *wire.Response // the answer of a fetch that sleeps; nil: it does not

	before, after *fetch // its neighbours in session.parked, guarded by session.mu
}

func newFetch(b *Broker) *fetch {
	f := &fetch{b: b}
	f.poll.Owner = f
	return f
}

// A request that may name more than fewPartitions reserves fetchMemory for each of them. A
// partition takes at least minWantBytes of the request.
const (
	minWantBytes     = 16
	fetchMemory      = 512                  // of a partition: its state, its part of the answer, and a chunk
	fetchPartMemory  = 64                   // of a partition's state while the request is parked
	fetchTopicMemory = 40                   // of a topic without its name
	parkedMemory     = 512 + keepResults*64 // of a parked request without its partitions and topics
	keepResults      = 32                   // the length of lists whose memory a parked request keeps uncounted
)

func (s *session) fetch(r *wire.Request) error {
	s.Flush() // a fetch must see the batches that the connection has produced before it

	f, _ := s.b.fetches.Get().(*fetch)
	f.s, f.r, f.version = s, r, r.Version
	f.by = s.access()
	long, err := f.reserveMemory()
	if err != nil {
		f.recycle()
		return err
	}
	if long { // the work below waits for nothing except its turn
		s.b.cfg.Work.Enter(budget.Data)
		defer s.b.cfg.Work.Leave()
	}
	if !f.decodeBody(r.Body()) {
		f.recycle()
		return wire.ErrMalformed
	}
	f.rack, f.rackName = s.b.cfg.Set.FindRack(f.rackName), nil
	// A node reads what clients do, until the partition knows it as a follower.
	if f.replica >= 0 && !s.isNode(f.replica) {
		f.refuseAll(kerr.TopicAuthorizationFailed.Code)
		return nil
	}
	if code := f.joinSession(); code != none {
		f.parts = f.parts[:0]
		f.sendAnswer(code, 0)
		return nil
	}
	f.maxBytes = max(0, min(f.maxBytes, int32(min(s.b.cfg.FetchMaxBytes, 1<<31-1))))
	if s.b.cfg.Quotas != nil {
		s.limitFetch(f)
	}
	f.minBytes = min(f.minBytes, f.maxBytes)
	f.deadline = time.Time{}
	f.readOrPark(long)
	return nil
}

// reserveMemory tells whether the request, or the session that it continues, may name many
// partitions, and reserves their memory then.
func (f *fetch) reserveMemory() (long bool, err error) {
	n := len(f.r.Body()) / minWantBytes
	if f.version >= 7 {
		n += f.b.cache.sizeOf(sessionIDOf(f.r.Body(), f.version))
	}
	if n <= fewPartitions {
		return false, nil
	}
	f.work, err = f.s.reserveMemory(f.r, fetchMemory*int64(n))
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

// readOrPark reads all partitions, and answers the request or parks it. The caller owns the
// fetch, and has given it away when readOrPark returns.
//
//	reading --too few bytes--> watching --enough bytes, or its time is over--> reading
//	   |
//	   |------no bytes, and no memory to watch--> asleep --its time is over--> answered
//	   |
//	   `------enough bytes, or the request may not wait--> answered
//
// long tells that the caller has a processor for long work, which this passes on in turns.
func (f *fetch) readOrPark(long bool) {
	finished := false
	defer func() {
		if !finished { // it has panicked, and is never answered
			f.work.Release()
			f.parked.Release()
		}
	}()
	f.readUntilParked(long)
	finished = true
}

func (f *fetch) readUntilParked(long bool) {
	for {
		if code := f.rejoinSession(); code != none {
			f.sendAnswer(code, 0)
			return
		}
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

// timeIsOver tells whether the request has waited as long as it may.
func (f *fetch) timeIsOver() bool {
	return !f.deadline.IsZero() && !time.Now().Before(f.deadline)
}

// watchPartitions parks the fetch until the missing bytes are appended. It returns false if
// they are there already; only then the caller still owns the fetch.
func (f *fetch) watchPartitions() bool {
	for i := range f.parts {
		if q := &f.parts[i]; q.part != nil {
			if isolationOf(f.isolation) == replica.ReadCommitted {
				f.poll.WatchCommitted(q.part, q.found.HighWatermark, q.found.LastStable)
			} else {
				f.poll.Watch(q.part, q.found.HighWatermark)
			}
		}
	}
	f.endReading()
	f.waiting = len(f.parts)
	f.leaveSession()
	return f.armPoll()
}

// sleepUntilOver encodes the answer, which has no records, and sends it when the request's
// time is over. It needs no memory meanwhile except the answer's. The client's next request
// finds the records that are appended until then. If there is no memory to keep the answer,
// it is sent at once.
func (f *fetch) sleepUntilOver() {
	code, id := f.updateSession()
	resp := f.buildAnswer(code, id)
	f.forgetPartitions(keepResults)
	f.waiting = 0
	n := int64(len(resp.B))
	var ok bool
	if code == none {
		f.parked, ok = f.b.cfg.Work.TryReserve(budget.Parked, parkedMemory+int64(cap(resp.B)))
	}
	if !ok {
		f.s.dismissFetch(f)
		f.sendResponse(resp)
		return
	}
	f.work.Release()
	f.b.asleep.Add(n)
	f.asleep = resp
	if !f.armPoll() {
		f.sendAsleep()
	}
}

// sendAsleep sends the answer of a fetch that has slept.
func (f *fetch) sendAsleep() {
	f.b.asleep.Add(-int64(len(f.asleep.B)))
	f.sendResponse(f.asleep)
}

// armPoll arms the poll and its timer. It returns false if the wait is over already; only
// then the caller still owns the fetch.
func (f *fetch) armPoll() bool {
	f.by, f.hasSlept = f.by.shared(), true
	if f.deadline.IsZero() {
		f.deadline = time.Now().Add(time.Duration(f.maxWait) * time.Millisecond)
	}
	if wait := time.Until(f.deadline); f.timer == nil {
		f.timer = time.AfterFunc(wait, f.endWait)
	} else {
		f.timer.Reset(wait)
	}
	if f.poll.Park() {
		return true
	}
	f.disarmPoll()
	return false
}

// endWait is called by the timer. The wait may be over by then and the state in use for
// another request, so it may only touch the fetch if it has fired the poll.
func (f *fetch) endWait() {
	if f.poll.Expire() {
		f.Wake()
	}
}

func (f *fetch) disarmPoll() {
	f.timer.Stop()
	f.s.dismissFetch(f)
}

// Wake serves a parked fetch, whose poll the caller has fired, to its end or until it is
// parked again. If it has many partitions, another goroutine does so: the caller may have
// other fetches to wake, and records to commit.
func (f *fetch) Wake() {
	defer f.r.Conn.Contain()
	if f.waiting > fewPartitions {
		f.b.done.Go(f.resumeLong)
		return
	}
	f.disarmPoll()
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
	f.disarmPoll()
	f.readOrPark(true)
}

// beginReading gives each partition a result.
func (f *fetch) beginReading() {
	if len(f.results) == len(f.parts) {
		return
	}
	f.results = slices.Grow(f.results[:0], len(f.parts))[:len(f.parts)]
	for i := range f.parts {
		f.parts[i].readResult = &f.results[i]
	}
}

// endReading takes the results away from the partitions, and frees their memory if they are
// many.
func (f *fetch) endReading() {
	for i := range f.parts {
		f.parts[i].readResult = nil
	}
	clear(f.results)
	if f.results = f.results[:0]; cap(f.results) > keepResults {
		f.results = nil
	}
}

// readPartitions reads all partitions. ready tells that the answer must not wait: reading a
// partition has failed, or none of the partitions exists here.
func (f *fetch) readPartitions(long bool) (bytes int, ready bool) {
	f.beginReading()
	left, whole, known := int(f.maxBytes), true, false
	contact := f.b.contact()
	if f.replica >= 0 { // another node, which knows by the epochs who leads
		contact = InContact
	}
	var topic *fetchTopic
	allowed, isLoggedIn := true, !f.hasSlept || f.by.isLoggedIn(f.b.cfg.Image())
	for i := range f.parts {
		if long && i%stretch == stretch-1 {
			f.b.cfg.Work.Pass(budget.Data)
		}
		q := &f.parts[i]
		if q.topic != topic {
			topic, allowed = q.topic, isLoggedIn && f.by.mayRead(f.b, q.topic, f.version >= idsInFetch)
		}
		if !allowed {
			q.part, q.found = nil, replica.Nothing()
			q.setError(kerr.TopicAuthorizationFailed.Code)
			continue
		}
		known = f.resolvePartition(q) || known
		if q.part == nil || q.code != none {
			ready = ready || q.part != nil
			continue
		}
		if err := checkContact(q.part, contact, false); err != nil {
			q.setError(codeOf(err))
			ready = true
			continue
		}
		if long && !q.part.IsOpen() {
			f.b.openWithoutTurn(q.part)
		}
		err := f.readPartition(q, left, whole)
		if errors.Is(err, replica.ErrBusy) && bytes > 0 { // answered without records, as if the limit were reached
			err = f.readPartition(q, 0, false)
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
		ready = ready || q.found.DivergingEnd >= 0 || q.found.Preferred >= 0
	}
	return bytes, ready || !known
}

// mayRead tells whether the client may read a topic. An id that no topic has is left to findPartition.
func (a *access) mayRead(b *Broker, t *fetchTopic, byID bool) bool {
	switch {
	case a.isUnwatched():
		return true
	case byID:
		known := b.cfg.Image().TopicByID(t.id)
		return known == nil || a.mayTopic(meta.Read, known.Name)
	case a.memory != nil || a.by == nil:
		return a.mayTopicBytes(meta.Read, t.name)
	}
	return a.mayTopic(meta.Read, string(t.name))
}

// idsInFetch is the version from which on topics are named by their ids.
const idsInFetch = 13

// openWithoutTurn opens a partition's log, which may take long, while others have the caller's
// processor.
func (b *Broker) openWithoutTurn(p *replica.Partition) {
	b.cfg.Work.Leave()
	defer b.cfg.Work.Enter(budget.Data)
	p.HighWatermark()
}

// resolvePartition clears a partition's result, and finds the partition unless it was found
// before and still exists. It returns false for one that does not exist here.
func (f *fetch) resolvePartition(q *fetchPart) bool {
	q.code, q.skip, q.chunkSize, q.found = none, false, 0, replica.Nothing()
	if q.part != nil && !q.part.Gone() {
		return true
	}
	var code int16
	q.part, code = f.b.findPartition(q.topic.name, q.topic.id, q.index, f.version >= 13)
	if q.part == nil {
		q.setError(code)
	}
	return q.part != nil
}

// findPartition finds a partition by its topic's id or name, or returns the code of the
// answer if it is not here.
func (b *Broker) findPartition(name []byte, id [16]byte, n int32, byID bool) (*replica.Partition, int16) {
	var t *replica.Topic
	if byID {
		t = b.cfg.Set.TopicByID(id)
	} else {
		t = b.cfg.Set.Topic(name)
	}
	if t == nil {
		return nil, b.missingCode(name, id, n, byID)
	}
	if p := t.Partition(n); p != nil {
		return p, none
	}
	if n >= 0 && int(n) < t.NumPartitions() {
		return nil, notLeader
	}
	return nil, kerr.UnknownTopicOrPartition.Code
}

// missingCode is the code for partition n of a topic of which this node has none.
func (b *Broker) missingCode(name []byte, id [16]byte, n int32, byID bool) int16 {
	var t *meta.Topic
	if image := b.cfg.Image(); byID {
		t = image.TopicByID(id)
	} else {
		t = image.TopicBytes(name)
	}
	switch {
	case t == nil && byID:
		return kerr.UnknownTopicID.Code
	case t == nil || n < 0 || int(n) >= len(t.Partitions):
		return kerr.UnknownTopicOrPartition.Code
	}
	return notLeader
}

// setError sets the partition's code, and drops its result.
func (q *fetchPart) setError(code int16) {
	q.releaseChunk()
	q.code, q.skip, q.found = code, false, replica.Nothing()
}

// readPartition reads at most left bytes of one partition. With whole it reads the first batch
// even if that is larger.
func (f *fetch) readPartition(q *fetchPart, left int, whole bool) (err error) {
	query := replica.Query{
		Epoch: q.epoch, LastEpoch: q.lastFetchedEpoch, Offset: q.offset, Rack: f.rack, AnyReplica: f.version >= 11,
		Isolation: isolationOf(f.isolation), MaxBytes: max(0, min(int(q.maxBytes), left)), Whole: whole,
	}
	err = q.part.Read(&query, &q.found)
	if q.found.Chunk.Exists() {
		q.chunkSize = q.found.Chunk.Len()
	}
	return err
}

func (q *fetchPart) releaseChunk() {
	if q.readResult == nil {
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

// answerNow sends an answer with the batches that were read, or an empty one if the client is throttled.
func (f *fetch) answerNow() {
	if isThrottled(f) {
		f.releaseChunks()
		f.parts = f.parts[:0]
		f.sendAnswer(keepSession(f))
		return
	}
	f.sendAnswer(f.updateSession())
}

// keepSession returns what updateSession does, and changes nothing: the next request of the session finds the same news.
func keepSession(f *fetch) (code int16, session int32) {
	if f.open == nil {
		return none, 0
	}
	if !f.open.isAt(nextEpoch(f.epoch)) {
		return kerr.InvalidFetchSessionEpoch.Code, 0
	}
	return none, f.open.id
}

// updateSession records the answer in the fetch session, or creates one if the request begins
// a session. It returns the answer's code, and the session's id.
func (f *fetch) updateSession() (code int16, session int32) {
	switch {
	case f.open != nil:
		if code := f.open.applyAnswer(f); code != none {
			f.releaseChunks()
			f.parts = f.parts[:0]
			return code, 0
		}
		return none, f.open.id
	case f.version >= 7 && f.epoch == initialEpoch:
		return none, f.b.cache.createSession(f)
	}
	return none, 0
}

func (f *fetch) sendAnswer(code int16, session int32) {
	f.sendResponse(f.buildAnswer(code, session))
}

// buildAnswer encodes an answer with the batches that were read.
func (f *fetch) buildAnswer(code int16, session int32) *wire.Response {
	resp := f.r.Begin()
	bytes := 0
	for i := range f.parts {
		bytes += f.parts[i].chunkSize
	}
	f.b.stats.bytesOut.Add(int64(bytes))
	f.throttle = max(f.throttle, int64(settleCharge(f.r)))
	f.encodeAnswer(resp, code, session)
	return resp
}

// sendResponse sends the answer and recycles the fetch. The answer takes as much of the
// request's reservation as it needs, and holds it until it is sent.
func (f *fetch) sendResponse(resp *wire.Response) {
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

// recycle puts the state into the pool, without references to other memory.
func (f *fetch) recycle() {
	f.forgetPartitions(keepParts)
	f.work.Release()
	f.parked.Release()
	f.s, f.r, f.leaders, f.asleep, f.by, f.hasSlept = nil, nil, f.leaders[:0], nil, access{}, false
	f.owner, f.throttle = nil, 0
	f.b.fetches.Put(f)
}

// forgetPartitions clears the lists of partitions and leaves the session, and frees the memory
// of lists that are longer than keep.
func (f *fetch) forgetPartitions(keep int) {
	f.releaseChunks()
	f.endReading()
	f.dropForgotten()
	clear(f.parts)
	clear(f.topics)
	f.parts, f.topics, f.open = f.parts[:0], f.topics[:0], nil
	f.trimLists(keep)
}
