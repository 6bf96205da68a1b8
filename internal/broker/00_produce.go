package broker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// Produce, key 0, versions 3 to 13. Versions 0 to 2 are advertised, since old
// librdkafka asks for them, and refused as Kafka 4 does (KAFKA-18659).
//
// 3: record batches of format 2, transactional id. 5: log start offset. 7: zstd
// (KIP-110). 8: errors of single records (KIP-467). 9: flexible. 10: current leader
// and endpoints (KIP-951). 11: TRANSACTION_ABORTABLE. 12: transactions of version 2
// (KIP-890; see held). 13: topic ids (KIP-516).
//
// The shape of a whole request is checked before any of its batches is stored. The
// batches are appended at the session's flush, together with those of other requests
// that the same read has brought. The answer is encoded at the flush too, since the
// topics' names are in the receive buffer, which is reused afterwards. So a request that
// waits has its answer ready, in which only error codes may still change, and the leaders that are named beside
// them. acks=1 waits
// for this node's own commit, acks=all for that of all in-sync replicas: either way a
// record that was acknowledged is on the leader's disk.

// The acknowledgements that a producer can ask for.
const (
	acksAll  = -1
	acksNone = 0
	acksOne  = 1
)

// produceAdvertisedMin is the lowest version of Produce that ApiVersions advertises.
const produceAdvertisedMin = 0

// adminClientID is the client id that may write to internal topics, as in Kafka.
const adminClientID = "__admin_client"

// A request for which more than heavyBytes of records were decompressed is flushed before
// the next request of the same read is served.
const heavyBytes = 4 << 20

// keepParts is the number of partitions, or topics, for which a pooled state keeps memory.
const keepParts = 1024

// A request that names up to fewPartitions topics and partitions is decoded at once. In one
// that names more they are counted first, so that their memory can be reserved.
const fewPartitions = 1024

// produce is the state of one Produce request; pooled.
type produce struct {
	b       *Broker
	r       *wire.Request
	resp    *wire.Response
	version int16

	acks          int16
	timeoutMS     int32
	deadline      time.Duration // of acks=all, on the Set's clock; 0: none
	txnID         []byte        // the transactional id; aliases the body
	lacksTxnID    bool          // it has transactional batches, and no transactional id that its client may use
	transactional bool          // it has transactional batches
	leaders       namedLeaders  // that the answer names
	end           int           // the position in the answer behind its last field without a tag
	hasMoved      atomic.Bool   // a partition has got another leader while it waited
	topics        []produceTopic
	parts         []producePart
	rules         record.Rules  // of checkBatch; a field, since a local variable would escape
	target        record.Target // of recompress; a field, since a local variable would escape
	decompressed  int64         // bytes of records that were decompressed to check them

	memory budget.Reservation // of its state and its answer, if it has many partitions

	throttle int64 // ms for which its client is throttled because of its bytes

	bytes  int64 // of the batches that were stored, as they were sent
	stored int64 // their number of records

	openWaits atomic.Int32 // partitions that it waits for, and 1 until answerOrWait has gone through all
}

func (s *session) produce(r *wire.Request) error {
	p, _ := s.b.produces.Get().(*produce)
	p.r, p.version = r, r.Version
	if err := s.decodeProduce(p); err != nil {
		p.recycle()
		return err
	}
	if p.acks == acksAll {
		p.deadline = s.b.cfg.Set.Now() + time.Duration(max(p.timeoutMS, 1))*time.Millisecond
	}
	by := s.access()
	if p.transactional && !p.lacksTxnID {
		p.lacksTxnID = !by.mayTransaction(meta.Write, string(p.txnID))
	}
	p.checkPartitions(&by)
	if s.b.cfg.Quotas != nil {
		s.chargeProduce(p)
	}
	if s.hold(p) {
		return nil
	}
	s.collect(p)
	heavy := p.decompressed > heavyBytes
	if s.pendingWeight += len(p.parts) + requestWeight; s.pendingWeight > maxPendingWeight || heavy {
		s.Flush()
	}
	if heavy { // the next requests may take as long, and the client should not wait for them
		s.conn.Uncork()
	}
	return nil
}

// decodeProduce decodes a request. If it names many partitions, it first waits for their
// memory, and then decodes in turns with other long work.
func (s *session) decodeProduce(p *produce) error {
	work := s.b.cfg.Work
	n, ok := p.decodeBody(p.r.Body(), fewPartitions)
	if !ok {
		return wire.ErrMalformed
	}
	if n <= fewPartitions {
		return nil
	}
	var err error
	if p.memory, err = s.reserveMemory(p.r, producePartMemory*int64(n)); err != nil {
		return err
	}
	work.Enter(budget.Command)
	defer work.Leave()
	p.parts, p.topics = make([]producePart, 0, n-len(p.topics)), nil
	p.decodeBody(p.r.Body(), n)
	return nil
}

// checkPartitions refuses the partitions for which checkPartition returns an error.
func (p *produce) checkPartitions(by *access) {
	topic, contact := 0, p.b.contact()
	for i := range p.topics {
		p.topics[i].denied = !p.lacksTxnID && !p.mayWrite(by, &p.topics[i])
	}
	p.b.inTurns(len(p.parts), func(i int) {
		for p.topics[topic].end <= i {
			topic++
		}
		q := &p.parts[i]
		err := p.checkPartition(q, &p.topics[topic])
		if err == nil {
			err = checkContact(q.part, contact, true)
		}
		if err != nil {
			p.refusePartition(q, err)
		}
	})
}

// mayWrite tells whether the client may write to a topic. An id that no topic has is left to findPartition.
func (p *produce) mayWrite(by *access, t *produceTopic) bool {
	switch {
	case by.isUnwatched():
		return true
	case p.version < idsInProduce:
		return by.mayTopicBytes(meta.Write, t.name)
	}
	known := p.b.cfg.Image().TopicByID(t.id)
	return known == nil || by.mayTopic(meta.Write, known.Name)
}

// idsInProduce is the version from which on topics are named by their ids.
const idsInProduce = 13

// replicaAcks are the request's acks, which checkPartition has found valid.
func (p *produce) replicaAcks() replica.Acks {
	switch p.acks {
	case acksAll:
		return replica.AcksAll
	case acksOne:
		return replica.AcksLeader
	}
	return replica.AcksNone
}

// checkPartition finds a partition, and checks all that can be checked without reading its
// records.
func (p *produce) checkPartition(q *producePart, t *produceTopic) error {
	q.base, q.time, q.start = -1, -1, -1
	switch {
	case p.lacksTxnID:
		return kerr.TransactionalIDAuthorizationFailed
	case t.denied:
		return kerr.TopicAuthorizationFailed
	case p.acks != acksAll && p.acks != acksNone && p.acks != acksOne:
		return kerr.InvalidRequiredAcks
	}
	var code int16
	if q.part, code = p.b.findPartition(t.name, t.id, q.index, p.version >= 13); q.part == nil {
		return kerr.ErrorForCode(code)
	}
	if err := checkOneBatch(q.records, p.version); err != nil {
		return err
	}
	set := q.part.Topic().Settings()
	if set.Internal && !p.mayWriteInternal(q) {
		return kerr.InvalidTopicException
	}
	return q.part.CheckLeader(record.NoEpoch)
}

// mayWriteInternal tells whether the client may write to an internal topic: as in Kafka, whoever has the name of its tools. Only nodes
// write to the audit log.
func (p *produce) mayWriteInternal(q *producePart) bool {
	if q.part.Topic().Name == meta.AuditTopic {
		return p.r.Conn.IsProven()
	}
	return p.r.ClientID == adminClientID
}

// checkOneBatch returns an error unless the records of a partition are exactly one whole
// batch of format 2, as Kafka demands. If a part of a second batch follows, both are
// refused; Kafka would store the first one without a word about the second.
func checkOneBatch(b []byte, version int16) error {
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

// explainedError is a code together with the message that Kafka sends with it.
type explainedError struct {
	code    *kerr.Error
	message string
}

func (e *explainedError) Error() string { return e.message }

func (e *explainedError) Unwrap() error { return e.code }

// checkBatch checks the batch and its records against the topic's settings, and sets
// q.batch to it, with the timestamps that are to be stored.
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
		q.batch.SetMaxTimestamp(q.batch.MaxTimestamp()) // makes the type CreateTime: Kafka accepts such a batch and ignores its type
	}
	found, err := q.batch.CheckRecords(p.b.cfg.Context(), p.b.cfg.Work, rules)
	if err != nil {
		return err
	}
	p.target.Records = found.Bytes
	if q.batch.Codec() != record.None {
		p.decompressed += found.Bytes
	}
	if set.LogAppendTime {
		q.batch.SetLogAppendTime(now)
		q.time = now
	} else {
		q.batch.SetMaxTimestamp(found.MaxTimestamp)
	}
	return nil
}

// recompress replaces a checked batch whose codec is not its topic's by one that has the
// topic's. The new batch takes work memory until it is written. If there is not enough, the
// batches that were collected before are written first, so that none holds memory while this
// one waits.
func (c *collected) recompress(p *produce, q *producePart) error {
	set, to := q.part.Topic().Settings(), &p.target
	if set.Codec == replica.KeepCompression || set.Codec == q.batch.Codec() {
		return nil
	}
	to.Codec, to.Level, to.MaxBytes = set.Codec, set.Level, set.MaxMessageBytes
	work, ctx := c.b.cfg.Work, c.b.cfg.Context()
	need := min(to.Memory(), work.Most(budget.Batch)) // with the largest reservation it is the only large one
	held, ok := work.TryReserve(budget.Batch, need)
	if !ok {
		c.writeAppends()
		c.appends.Commit()
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
	c.recompressed = append(c.recompressed, held)
	return nil
}

// refusePartition notes why a partition's batch is not stored. As in Kafka, the answer has
// the log's start if the error is one of those that Kafka's log itself finds.
func (*produce) refusePartition(q *producePart, err error) {
	q.code = codeOf(err)
	q.base, q.time, q.start = -1, -1, -1
	isFoundByLog := errors.Is(err, replica.ErrTransactionState) // the coordinator may have found the same
	switch q.code {
	case kerr.InvalidRecord.Code, kerr.InvalidTimestamp.Code, kerr.UnsupportedCompressionType.Code,
		kerr.OutOfOrderSequenceNumber.Code, kerr.InvalidProducerEpoch.Code:
		isFoundByLog = true
	}
	if isFoundByLog && q.batch != nil {
		q.start = q.part.Start()
	}
	if e, ok := errors.AsType[*explainedError](err); ok {
		q.message = e.message
	}
	if errors.Is(err, budget.ErrTooLarge) {
		q.message = err.Error()
	}
	if bad, ok := errors.AsType[*record.RejectedError](err); ok {
		if errors.Is(err, record.ErrInvalid) { // a key is missing; Kafka names the partition
			for i := range bad.Records {
				bad.Records[i].Reason += fmt.Sprintf(" in topic partition %s-%d", q.part.Topic().Name, q.index)
			}
		}
		q.message, q.badRecs = bad.Error(), bad.Records
	}
}

// Appended notes the outcome of the append of a partition's batch.
func (p *produce) Appended(slot int32, o replica.Outcome) {
	q := &p.parts[slot]
	if o.Err != nil {
		p.refusePartition(q, o.Err)
		return
	}
	q.base, q.next, q.start = o.Base, o.Next, o.Start
	q.waiter.Epoch = o.Epoch
	if o.Dup {
		q.time = o.Time
		return
	}
	p.bytes += int64(len(q.records))
	p.stored += int64(q.batch.Count())
}

// answerOrWait encodes the answer to a request whose batches were written. It is sent when no
// partition waits any more, which may be at once. From then on nothing refers to the receive
// buffer.
func (p *produce) answerOrWait() {
	if p.acks == acksNone {
		p.finishSilent()
		return
	}
	p.throttle = max(p.throttle, int64(settleCharge(p.r)))
	p.resp = p.r.Begin()
	p.encodeAnswer(p.resp)
	clear(p.topics)
	p.shrinkState()
	p.openWaits.Store(1)
	for i := range p.parts {
		q := &p.parts[i]
		q.records, q.batch = nil, nil
		if q.code != none {
			continue
		}
		p.openWaits.Add(1)
		q.waiter = replica.Waiter{Owner: p, Slot: int32(i), Epoch: q.waiter.Epoch, Acks: p.replicaAcks(), Deadline: p.deadline}
		q.part.Wait(&q.waiter, q.next)
	}
	p.Complete(-1, nil)
}

// shrinkState reduces the state of a request that names many partitions to those that wait.
// The answer holds the memory of that state.
func (p *produce) shrinkState() {
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

// Complete ends the wait of one partition (-1: the one that answerOrWait counts for itself).
// The last call sends the answer. Until then each may only write its own error code into it.
func (p *produce) Complete(slot int32, err error) {
	defer p.r.Conn.Contain()
	if err != nil {
		code := codeOf(err)
		be.PutUint16(p.resp.B[p.parts[slot].at:], uint16(code))
		if code == notLeader {
			p.hasMoved.Store(true)
		}
	}
	if p.openWaits.Add(-1) == 0 {
		p.sendAnswer()
	}
}

func (p *produce) sendAnswer() {
	r, resp := p.r, p.resp
	if p.version >= leadersInProduce && p.hasMoved.Load() {
		resp.B = p.nameNewLeaders(resp.B)
	}
	p.recycle()
	r.Send(resp)
}

// finishSilent ends a request with acks=0. If it has failed, it closes the connection, which
// is the only way to tell the client.
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

// recycle puts the state into the pool, without references to receive buffers and
// partitions, which the pool must not keep alive.
func (p *produce) recycle() {
	clear(p.topics)
	clear(p.parts)
	p.topics, p.parts = p.topics[:0], p.parts[:0]
	if cap(p.parts) > keepParts || cap(p.topics) > keepParts {
		p.topics, p.parts = nil, nil
	}
	p.r, p.resp, p.leaders, p.txnID, p.lacksTxnID, p.transactional = nil, nil, p.leaders[:0], nil, false, false
	p.hasMoved.Store(false)
	p.decompressed = 0
	p.memory.Release()
	p.deadline, p.throttle, p.bytes, p.stored = 0, 0, 0, 0
	p.b.produces.Put(p)
}
