package txn

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// offsetsTopic is the name of the topic that has the offsets of groups.
const offsetsTopic = "__consumer_offsets"

// firstBatched is the version of AddPartitionsToTxn from which on a request has many transactions, comes
// from the leaders of partitions, and is for producers whose epoch rises with each transaction (KIP-890).
const firstBatched = 4

// SingleTransaction is the transaction of an AddPartitionsToTxn of version 0 to 3. Later versions list
// them.
func SingleTransaction(req *kmsg.AddPartitionsToTxnRequest) *kmsg.AddPartitionsToTxnRequestTransaction {
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch = req.TransactionalID, req.ProducerID, req.ProducerEpoch
	for _, t := range req.Topics {
		x.Topics = append(x.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	return &x
}

// SingleAnswer is the answer for that transaction as version 0 to 3 have it.
func SingleAnswer(x *kmsg.AddPartitionsToTxnResponseTransaction) []kmsg.AddPartitionsToTxnResponseTopic {
	topics := make([]kmsg.AddPartitionsToTxnResponseTopic, len(x.Topics))
	for i, t := range x.Topics {
		topics[i].Topic = t.Topic
		topics[i].Partitions = make([]kmsg.AddPartitionsToTxnResponseTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			topics[i].Partitions[j] = kmsg.AddPartitionsToTxnResponseTopicPartition(p)
		}
	}
	return topics
}

// AddPartitions handles one transaction of an AddPartitionsToTxn, versions 0 to 5: it makes
// partitions, which must exist, part of the transaction, and begins the transaction if there is none. If the one before
// has not ended yet, it waits for that for a while. With VerifyOnly it only says which partitions are part of
// the transaction.
func (m *Machine) AddPartitions(s *coord.Step, version int16, x *kmsg.AddPartitionsToTxnRequestTransaction, reply func(*kmsg.AddPartitionsToTxnResponseTransaction)) {
	const knowsFenced = 2 // the version from which on clients know PRODUCER_FENCED
	p := producerEpoch{x.ProducerID, x.ProducerEpoch}
	answer := func(s *coord.Step, has partitionSet, code int16) {
		s.Reply(func(err error) {
			reply(answerAdd(x, has, codeForVersion(codeOr(err, code), version, knowsFenced)))
		})
	}
	asked, ok := askedPartitions(x)
	switch {
	case !ok:
		answer(s, nil, transactionAbortable)
	case x.VerifyOnly:
		has, code := m.verify(s, x.TransactionalID, p, asked)
		m.countRefusal(code)
		answer(s, has, code)
	default:
		flow := sameEpoch
		if version >= firstBatched {
			flow = bumpEpoch
		}
		m.addOrWait(s, x.TransactionalID, p, asked, flow, func(s *coord.Step, code int16) { answer(s, asked, code) })
	}
}

// addOrWait decides a request to add partitions, now or when the transaction before has ended.
func (m *Machine) addOrWait(s *coord.Step, id string, p producerEpoch, asked partitionSet, flow int16, answer func(s *coord.Step, code int16)) {
	decide := func(s *coord.Step, code int16) {
		if code == 0 {
			code = m.decideAdd(s, id, p, asked, flow)
		}
		m.countRefusal(code)
		answer(s, code)
	}
	if !m.waitForEnd(s, id, p, decide) {
		decide(s, 0)
	}
}

// askedPartitions is the set of the partitions that a request has. It is not ok if there are more names and
// numbers than any transaction may have: to sort them would take the shard's mutex for long.
func askedPartitions(x *kmsg.AddPartitionsToTxnRequestTransaction) (set partitionSet, ok bool) {
	n := len(x.Topics)
	for i := range x.Topics {
		n += len(x.Topics[i].Partitions)
	}
	if n > 2*maxPartitions {
		return nil, false
	}
	list := make([]TopicPartitions, len(x.Topics))
	for i := range x.Topics {
		list[i] = TopicPartitions{x.Topics[i].Topic, x.Topics[i].Partitions}
	}
	return makeSet(list), true
}

// answerAdd is the answer for a transaction. If the code is 0, partitions that are not part of the
// transaction have one of their own.
func answerAdd(x *kmsg.AddPartitionsToTxnRequestTransaction, has partitionSet, code int16) *kmsg.AddPartitionsToTxnResponseTransaction {
	resp := kmsg.NewAddPartitionsToTxnResponseTransaction()
	resp.TransactionalID = x.TransactionalID
	resp.Topics = make([]kmsg.AddPartitionsToTxnResponseTransactionTopic, len(x.Topics))
	for i, t := range x.Topics {
		resp.Topics[i].Topic = t.Topic
		resp.Topics[i].Partitions = make([]kmsg.AddPartitionsToTxnResponseTransactionTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			out := &resp.Topics[i].Partitions[j]
			out.Partition, out.ErrorCode = p, code
			if code == 0 && !has.has(t.Topic, p) {
				out.ErrorCode = transactionAbortable
			}
		}
	}
	return &resp
}

// AddOffsets handles AddOffsetsToTxn, versions 0 to 4: it makes the partition of the group's offsets part
// of the transaction.
func (m *Machine) AddOffsets(s *coord.Step, req *kmsg.AddOffsetsToTxnRequest, partition int32, reply func(*kmsg.AddOffsetsToTxnResponse)) {
	const knowsFenced = 2 // the version from which on clients know PRODUCER_FENCED
	set := partitionSet{{offsetsTopic, []int32{partition}}}
	m.addOrWait(s, req.TransactionalID, producerEpoch{req.ProducerID, req.ProducerEpoch}, set, sameEpoch, func(s *coord.Step, code int16) {
		s.Reply(func(err error) {
			resp := kmsg.NewPtrAddOffsetsToTxnResponse()
			resp.ErrorCode = codeForVersion(codeOr(err, code), req.Version, knowsFenced)
			reply(resp)
		})
	})
}

// decideAdd makes partitions part of a transaction.
func (m *Machine) decideAdd(s *coord.Step, id string, p producerEpoch, more partitionSet, version int16) int16 {
	if id == "" {
		return invalidRequest
	}
	t := m.find(s, id)
	switch {
	case t == nil:
		return invalidProducerIDMapping
	case t.isEnding(): // first: the producer may have been told of a producer id that follows when the end is complete
		return concurrentTransactions
	case t.producer != p.id:
		return invalidProducerIDMapping
	case t.epoch != p.epoch:
		return producerFenced
	case t.partitions.hasAll(more):
		return 0
	}
	all := t.partitions.union(more)
	if all.isTooLarge() {
		return transactionAbortable
	}
	if !m.hasRoom(s, id, all.size()-t.partitions.size()) {
		return coordinatorNotAvailable
	}
	next := t.extended(all, version, s.Now.UnixMilli())
	putState(s, id, &next)
	return 0
}

// verify finds which partitions are part of a producer's transaction (KIP-890). A leader takes the first
// records of a transaction only if its partition is.
func (m *Machine) verify(s *coord.Step, id string, p producerEpoch, asked partitionSet) (partitionSet, int16) {
	if id == "" {
		return nil, invalidRequest
	}
	t := m.find(s, id)
	switch {
	case t == nil, t.producer != p.id:
		return nil, invalidProducerIDMapping
	case t.epoch != p.epoch:
		return nil, producerFenced
	case t.isEnding():
		return nil, concurrentTransactions
	}
	var has []TopicPartitions
	for _, x := range asked {
		for _, n := range x.Partitions {
			if t.partitions.has(x.Topic, n) {
				has = append(has, TopicPartitions{x.Topic, []int32{n}})
			}
		}
	}
	return makeSet(has), 0
}
