package broker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// Produce, key 0, versions 3 to 13. Versions 0 to 2 are advertised, since old
// librdkafka asks for them, and refused as Kafka 4 does (KAFKA-18659).
//
// 3: record batches of format 2, transactional id. 5: log start offset. 7: zstd
// (KIP-110). 8: errors of single records (KIP-467). 9: flexible. 10: current leader
// and endpoints (KIP-951). 12: transactions of version 2 (KIP-890; no transactions
// here yet). 13: topic ids (KIP-516).
//
// A request is checked whole before any of it is stored. Its partitions are then
// appended at the session's flush, together with those of other requests that the
// same read brought. The answer is encoded there, while names still stand in the
// receive buffer; what is parked is a finished answer of which only error codes may yet
// change. acks=1 waits for this node's own commit, acks=all for that of all in-sync
// replicas: either way a record that was acknowledged is on the leader's disk.

// The acknowledgements that a producer can ask for.
const (
	acksAll  = -1
	acksNone = 0
	acksOne  = 1
)

// produceAdvertisedMin is the lowest version of Produce that ApiVersions tells.
const produceAdvertisedMin = 0

// adminClientID is the client id that may write to internal topics, as in Kafka.
const adminClientID = "__admin_client"

// heavyBytes of records that were decompressed for one request are answered before
// the next request of the same read is looked at.
const heavyBytes = 4 << 20

// What a pooled state may keep of its memory.
const keepParts = 1024

// fewPartitions and topics of a request are decoded as they come. A request of more is counted
// first, and reserves the memory of its state.
const fewPartitions = 1024

// produce is the state of one Produce request; pooled.
type produce struct {
	b       *Broker
	r       *wire.Request
	resp    *wire.Response
	version int16

	acks      int16
	timeoutMS int32
	deadline  time.Duration // of acks=all, on the Set's clock; 0: none
	unnamed   bool          // it has transactional batches and no transactional id
	moved     bool          // a partition is led by another node
	topics    []produceTopic
	parts     []producePart
	rules     record.Rules  // scratch: on the stack it would escape
	target    record.Target // likewise
	inflated  int64         // bytes of compressed records that were looked at

	memory budget.Reservation // of its state and its answer, where it has many partitions

	bytes, stored int64 // of the batches that were stored, as they were sent, and their records

	waits atomic.Int32 // waits that have not ended, and one for the flush
}

func (s *session) produce(r *wire.Request) error {
	p, _ := s.b.produces.Get().(*produce)
	p.r, p.version = r, r.Version
	if err := s.decodeProduce(p); err != nil {
		p.recycle()
		return err
	}
	now := time.Now().UnixMilli()
	if p.acks == acksAll {
		p.deadline = s.b.cfg.Set.Now() + time.Duration(max(p.timeoutMS, 1))*time.Millisecond
	}
	s.queue = append(s.queue, p)
	p.checkPartitions()
	for j := range p.parts {
		q := &p.parts[j]
		if q.code != none {
			continue
		}
		err := p.checkBatch(q, now)
		if err == nil {
			err = s.encode(p, q)
		}
		if err != nil {
			p.refuse(q, err)
			continue
		}
		s.appends.Add(q.part, q.batch, p.acknowledgement(), p, int32(j))
	}
	heavy := p.inflated > heavyBytes
	if s.held += len(p.parts) + requestWeight; s.held > maxHeld || heavy {
		s.Flush()
	}
	if heavy { // others of the same read may take as long, and the client may be gone
		s.conn.Uncork()
	}
	return nil
}

// decodeProduce decodes a request. One that names many partitions does so, in turns with other
// long work, when there is memory for all of them.
func (s *session) decodeProduce(p *produce) error {
	work := s.b.cfg.Work
	n, ok := p.decode(p.r.Body, fewPartitions)
	if !ok {
		return wire.ErrMalformed
	}
	if n <= fewPartitions {
		return nil
	}
	var err error
	if p.memory, err = s.reserve(producePartMemory * int64(n)); err != nil {
		return err
	}
	work.Enter(budget.Command)
	defer work.Leave()
	p.parts, p.topics = make([]producePart, 0, n-len(p.topics)), nil
	p.decode(p.r.Body, n)
	return nil
}

// checkPartitions judges all partitions by what can be known without a look at their records.
func (p *produce) checkPartitions() {
	topic := 0
	p.b.inTurns(len(p.parts), func(i int) {
		for p.topics[topic].end <= i {
			topic++
		}
		q := &p.parts[i]
		if err := p.check(q, &p.topics[topic]); err != nil {
			p.refuse(q, err)
		}
	})
}

// acknowledgement is what acks asks for; check has seen to it that it is one of three.
func (p *produce) acknowledgement() replica.Acks {
	switch p.acks {
	case acksAll:
		return replica.AcksAll
	case acksOne:
		return replica.AcksLeader
	}
	return replica.AcksNone
}

// check judges one partition's data but for its records.
func (p *produce) check(q *producePart, t *produceTopic) error {
	q.base, q.time, q.start = -1, -1, -1
	switch {
	case p.acks != acksAll && p.acks != acksNone && p.acks != acksOne:
		return kerr.InvalidRequiredAcks
	case p.unnamed:
		return kerr.TransactionalIDAuthorizationFailed
	}
	var code int16
	if q.part, code = p.b.find(t.name, t.id, q.index, p.version >= 13); q.part == nil {
		return kerr.ErrorForCode(code)
	}
	if err := oneBatch(q.records, p.version); err != nil {
		return err
	}
	set := q.part.Topic().Settings()
	if set.Internal && p.r.ClientID != adminClientID {
		return kerr.InvalidTopicException
	}
	if err := q.part.CheckLeader(record.NoEpoch); err != nil {
		return err
	}
	if record.Batch(q.records).Transactional() {
		return kerr.InvalidTxnState // there are no transactions yet, so none can be open
	}
	return nil
}

// oneBatch holds the records of a request against Kafka's rule: exactly one batch
// of format 2, and all of it. A second batch cut short is refused with the first;
// Kafka stores the first and says nothing.
func oneBatch(b []byte, version int16) error {
	batch, rest, err := record.Next(b)
	switch {
	case errors.Is(err, record.ErrMagic) && record.Batch(b).Magic() > record.Magic:
		return &explainedError{kerr.CorruptMessage, fmt.Sprintf("Invalid magic found in record: %d", record.Batch(b).Magic())}
	case errors.Is(err, record.ErrMagic), errors.Is(err, record.ErrShort), err == nil && len(rest) > 0:
		return kerr.InvalidRecord
	case err != nil:
		return kerr.CorruptMessage
	case version < 7 && batch.Codec() == record.Zstd:
		return kerr.UnsupportedCompressionType
	}
	return nil
}

// explainedError is a code with a message for the client, where Kafka sends one.
type explainedError struct {
	code    *kerr.Error
	message string
}

func (e *explainedError) Error() string { return e.message }

func (e *explainedError) Unwrap() error { return e.code }

// checkBatch checks the batch and its records against the topic's settings, and
// turns it into what is stored: q.batch.
func (p *produce) checkBatch(q *producePart, now int64) error {
	set := q.part.Topic().Settings()
	q.batch = record.Batch(q.records)
	rules := &p.rules
	*rules = record.Rules{
		MaxBytes: set.MaxMessageBytes, MaxDecompressed: int64(set.MaxDecompressedBytes),
		Now: now, Before: set.Before, After: set.After, NeedKey: set.Compact,
	}
	if set.LogAppendTime {
		rules.TimestampType = record.LogAppendTime
	}
	if err := q.batch.Check(rules); err != nil {
		return err
	}
	if int64(len(q.batch)) > set.SegmentBytes {
		return kerr.RecordListTooLarge
	}
	if q.batch.TimestampType() == record.LogAppendTime && !set.LogAppendTime && q.batch.MaxTimestamp() != record.NoTimestamp {
		q.batch.SetMaxTimestamp(q.batch.MaxTimestamp()) // Kafka takes it there, and no notice of it
	}
	found, err := q.batch.CheckRecords(p.b.cfg.Context(), p.b.cfg.Work, rules)
	if err != nil {
		return err
	}
	p.target.Records = found.Bytes
	if q.batch.Codec() != record.None {
		p.inflated += found.Bytes
	}
	if set.LogAppendTime {
		q.batch.SetLogAppendTime(now)
		q.time = now
	} else {
		q.batch.SetMaxTimestamp(found.MaxTimestamp)
	}
	return nil
}

// encode compresses the records of a batch that was checked as its topic wants them.
// The new batch takes work memory until it is written. Where that is short, the
// batches collected so far are written first, so that nothing is held while it waits.
func (s *session) encode(p *produce, q *producePart) error {
	set, to := q.part.Topic().Settings(), &p.target
	if set.Codec == replica.KeepCompression || set.Codec == q.batch.Codec() {
		return nil
	}
	to.Codec, to.Level, to.MaxBytes = set.Codec, set.Level, set.MaxMessageBytes
	work, ctx := s.b.cfg.Work, s.b.cfg.Context()
	need := min(to.Memory(), work.Most(budget.Batch)) // the topic allows it: a larger one is the only large one
	held, ok := work.TryReserve(budget.Batch, need)
	if !ok {
		s.writeAppends()
		s.appends.Commit()
		var err error
		if held, err = work.Reserve(ctx, budget.Batch, need); err != nil {
			return err
		}
	}
	batch, err := q.batch.Recompress(ctx, work, to)
	if err != nil {
		held.Release()
		return err
	}
	q.batch = batch
	held.Shrink(int64(cap(batch)))
	s.encoded = append(s.encoded, held)
	return nil
}

// refuse notes why a partition's data are not stored. The answer tells the log's
// start, as Kafka's does, where the log itself would refuse such data.
func (p *produce) refuse(q *producePart, err error) {
	q.code = codeOf(err)
	q.base, q.time, q.start = -1, -1, -1
	switch q.code {
	case kerr.InvalidRecord.Code, kerr.InvalidTimestamp.Code, kerr.UnsupportedCompressionType.Code,
		kerr.OutOfOrderSequenceNumber.Code, kerr.InvalidProducerEpoch.Code:
		if q.batch != nil {
			q.start = q.part.Start()
		}
	case notLeader:
		p.moved = true
	}
	if e, ok := errors.AsType[*explainedError](err); ok {
		q.message = e.message
	}
	if errors.Is(err, budget.ErrTooLarge) {
		q.message = err.Error()
	}
	if bad, ok := errors.AsType[*record.RejectedError](err); ok {
		if errors.Is(err, record.ErrInvalid) { // a key is missing; Kafka tells where
			for i := range bad.Records {
				bad.Records[i].Reason += fmt.Sprintf(" in topic partition %s-%d", q.part.Topic().Name, q.index)
			}
		}
		q.message, q.badRecs = bad.Error(), bad.Records
	}
}

// Appended notes what became of a partition's batch when it was appended.
func (p *produce) Appended(slot int32, o replica.Outcome) {
	q := &p.parts[slot]
	if o.Err != nil {
		p.refuse(q, o.Err)
		return
	}
	q.base, q.next, q.start = o.Base, o.Next, o.Start
	if o.Dup {
		q.time = o.Time
		return
	}
	p.bytes += int64(len(q.records))
	p.stored += int64(q.batch.Count())
}

// answerOrWait answers a request whose batches were written, or leaves it to the last of the
// partitions that it waits for. From then on nothing refers to the receive buffer.
func (p *produce) answerOrWait() {
	if p.acks == acksNone {
		p.finishSilent()
		return
	}
	p.resp = p.r.Begin()
	p.encode(p.resp)
	clear(p.topics)
	p.shrink()
	p.waits.Store(1)
	for i := range p.parts {
		q := &p.parts[i]
		q.records, q.batch = nil, nil
		if q.code != none {
			continue
		}
		p.waits.Add(1)
		q.waiter = replica.Waiter{Owner: p, Slot: int32(i), Acks: p.acknowledgement(), Deadline: p.deadline}
		q.part.Wait(&q.waiter, q.next)
	}
	p.Complete(-1, nil)
}

// shrink gives back the state of a request that names many partitions, but for those that it
// waits for. The answer holds the memory of what is left.
func (p *produce) shrink() {
	if p.memory.Bytes() == 0 {
		return
	}
	wait := 0
	for i := range p.parts {
		if p.parts[i].code == none {
			wait++
		}
	}
	parts := make([]producePart, 0, wait)
	for i := range p.parts {
		if p.parts[i].code == none {
			parts = append(parts, p.parts[i])
		}
	}
	p.topics, p.parts = nil, parts
	p.memory.Shrink(producePartMemory*int64(wait) + int64(cap(p.resp.B)))
	p.r.Hold(&p.memory)
}

// Complete ends the wait of one partition (-1: the flush's own); the last one
// sends the answer. Each may only touch its own error code in it.
func (p *produce) Complete(slot int32, err error) {
	defer p.r.Conn.Contain()
	if err != nil {
		be.PutUint16(p.resp.B[p.parts[slot].at:], uint16(codeOf(err)))
	}
	if p.waits.Add(-1) == 0 {
		p.send()
	}
}

func (p *produce) send() {
	r, resp := p.r, p.resp
	p.recycle()
	r.Send(resp)
}

// finishSilent ends a request with acks=0. A failed one closes the connection,
// which is the only way to tell.
func (p *produce) finishSilent() {
	r := p.r
	code := int16(none)
	for i := range p.parts {
		if p.parts[i].code != none {
			code = p.parts[i].code
		}
	}
	p.recycle()
	if code != none {
		r.Conn.Close(fmt.Errorf("%w: %w", ErrNoAnswer, kerr.ErrorForCode(code)))
	}
	r.NoReply()
}

// recycle gives the state back. What refers to other memory is dropped, so that the
// pool keeps neither receive buffers nor partitions alive.
func (p *produce) recycle() {
	clear(p.topics)
	clear(p.parts)
	p.topics, p.parts = p.topics[:0], p.parts[:0]
	if cap(p.parts) > keepParts || cap(p.topics) > keepParts {
		p.topics, p.parts = nil, nil
	}
	p.r, p.resp, p.moved, p.unnamed = nil, nil, false, false
	p.inflated = 0
	p.memory.Release()
	p.deadline, p.bytes, p.stored = 0, 0, 0
	p.b.produces.Put(p)
}
