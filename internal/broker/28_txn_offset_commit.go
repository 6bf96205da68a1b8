package broker

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// TxnOffsetCommit, key 28, versions 0 to 6.
//
// 2: leader epochs. 3: the member and its generation (KIP-447); flexible. 4: TRANSACTION_ABORTABLE. 5: the
// group's partition of the offsets becomes part of the transaction (KIP-890). 6: topics by id, and GROUP_ID_NOT_FOUND for a
// generation of a group that does not exist (KIP-1319).
//
// If that partition does not have the producer's transaction open, the transaction's coordinator is asked first whether it
// is part of it, as for batches of a transaction. Offsets of topics or partitions that do not exist are refused here.

const (
	// offsetsKnowLoading is the version from which on clients know COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296).
	offsetsKnowLoading = 2
	// offsetsKnowAbortable is the version from which on clients know TRANSACTION_ABORTABLE.
	offsetsKnowAbortable = 4
	// offsetsAddPartition is the version from which on a request makes the partition part of the transaction.
	offsetsAddPartition = 5
	// offsetsByTopicID is the version from which on topics are named by their ids.
	offsetsByTopicID = 6
)

// txnOffsets is a TxnOffsetCommit request.
type txnOffsets struct {
	b       *Broker
	r       *wire.Request
	req     *kmsg.TxnOffsetCommitRequest
	commit  *kmsg.OffsetCommitRequest // of the topics and partitions that exist
	refused map[string]kmsg.OffsetCommitResponseTopic
	check   *replica.Verification // nil: none was needed
}

func (b *Broker) txnOffsetCommit(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.TxnOffsetCommitRequest)
	x := &txnOffsets{b: b, r: r, req: req, refused: map[string]kmsg.OffsetCommitResponseTopic{}}
	by := s.access()
	switch {
	case !by.mayTransaction(meta.Write, req.TransactionalID):
		r.Reply(refuseTxnCommits(req, kerr.TransactionalIDAuthorizationFailed.Code))
		return nil
	case !by.mayGroup(meta.Read, req.Group):
		r.Reply(refuseTxnCommits(req, kerr.GroupAuthorizationFailed.Code))
		return nil
	}
	x.makeCommit(&by)
	if len(x.commit.Topics) == 0 {
		x.reply(kmsg.NewPtrOffsetCommitResponse())
		return nil
	}
	p, number := b.findOffsetsPartition(req.Group)
	if p == nil || req.Group == "" || replica.HasTransaction(p, req.ProducerID, req.ProducerEpoch) {
		x.run() // the groups' service finds what is wrong
		return nil
	}
	b.done.Go(func() { x.runVerified(p, number) }) // the connection need not wait for the coordinator
	return nil
}

// findOffsetsPartition finds the partition that has the offsets of a group; nil: it is not here.
func (b *Broker) findOffsetsPartition(name string) (*replica.Partition, int32) {
	t := b.cfg.Image().Topic(group.Topic)
	if t == nil || len(t.Partitions) == 0 {
		return nil, -1
	}
	n := coord.PartitionOf(name, int32(len(t.Partitions)))
	return b.cfg.Set.Partition(group.Topic, n), n
}

// makeCommit makes the commit of the topics and partitions that exist.
func (x *txnOffsets) makeCommit(by *access) {
	req, image := x.req, x.b.cfg.Image()
	c := kmsg.NewPtrOffsetCommitRequest()
	c.Group, c.Generation, c.MemberID, c.InstanceID = req.Group, req.Generation, req.MemberID, req.InstanceID
	if x.r.Version >= offsetsByTopicID {
		c.Version = c.MaxVersion() // it knows the same codes
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		ct := kmsg.NewOffsetCommitRequestTopic()
		ct.Topic, ct.TopicID = t.Topic, t.TopicID
		topic, missing := completeTopicName(image, &ct.Topic, &ct.TopicID, x.r.Version >= offsetsByTopicID)
		if topic != nil {
			missing = kerr.UnknownTopicOrPartition.Code
		}
		if isUnknownID := topic == nil && x.r.Version >= offsetsByTopicID; !isUnknownID && !by.mayTopic(meta.Read, ct.Topic) {
			topic, missing = nil, kerr.TopicAuthorizationFailed.Code
			ct.Topic, ct.TopicID = t.Topic, t.TopicID
		}
		var bad []kmsg.OffsetCommitResponseTopicPartition
		for j := range t.Partitions {
			q := &t.Partitions[j]
			if topic == nil || q.Partition < 0 || int(q.Partition) >= len(topic.Partitions) {
				bad = append(bad, kmsg.OffsetCommitResponseTopicPartition{Partition: q.Partition, ErrorCode: missing})
				continue
			}
			cp := kmsg.NewOffsetCommitRequestTopicPartition()
			cp.Partition, cp.Offset, cp.LeaderEpoch, cp.Metadata = q.Partition, q.Offset, q.LeaderEpoch, q.Metadata
			ct.Partitions = append(ct.Partitions, cp)
		}
		if len(bad) > 0 {
			addRefused(x.refused, &ct, bad)
		}
		if len(ct.Partitions) > 0 {
			c.Topics = append(c.Topics, ct)
		}
	}
	x.commit = c
}

// refuseTxnCommits answers all partitions of a request with a code.
func refuseTxnCommits(req *kmsg.TxnOffsetCommitRequest, code int16) *kmsg.TxnOffsetCommitResponse {
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	for i := range req.Topics {
		rt := kmsg.TxnOffsetCommitResponseTopic{Topic: req.Topics[i].Topic, TopicID: req.Topics[i].TopicID}
		for j := range req.Topics[i].Partitions {
			rt.Partitions = append(rt.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: req.Topics[i].Partitions[j].Partition, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// run has the group's coordinator keep the offsets until the transaction ends.
func (x *txnOffsets) run() {
	by := coord.Producer{ID: x.req.ProducerID, Epoch: x.req.ProducerEpoch}
	var check func() error
	if v := x.check; v != nil {
		check = func() error {
			if v.IsEnded() { // offsets have no sequence: late ones would count for the next transaction of the same epoch
				return replica.ErrTransactionState
			}
			return nil
		}
	}
	x.b.cfg.Groups.CommitInTransaction(by, x.commit, check, containPanics(x.r, x.reply))
}

// runVerified asks the transaction's coordinator before.
func (x *txnOffsets) runVerified(p *replica.Partition, number int32) {
	defer x.r.Conn.Contain()
	req, version, txnVersion := x.req, x.r.Version, int16(0)
	if version >= offsetsAddPartition {
		txnVersion = 2
	}
	if v := replica.BeginVerification(p, req.ProducerID, req.ProducerEpoch, record.NoSequence, txnVersion); v != nil {
		defer v.End()
		code := x.b.askTransaction(VerifyRequest{
			TransactionalID: req.TransactionalID, ProducerID: req.ProducerID, ProducerEpoch: req.ProducerEpoch,
			Add: version >= offsetsAddPartition, Partitions: []TopicPartition{{group.Topic, number}}, Limit: longestAsk,
		})[0]
		if code != none {
			x.refuse(unverifiedOffsetsCode(code, version))
			return
		}
		v.Confirm()
		x.check = v
	}
	x.b.awaitAdmission(longestAsk)
	x.run()
}

// unverifiedOffsetsCode is the code of the answer if the transaction's coordinator has answered with a code.
func unverifiedOffsetsCode(code, version int16) int16 {
	switch {
	case code == kerr.ProducerFenced.Code:
		return kerr.InvalidProducerEpoch.Code
	case code == kerr.TransactionAbortable.Code && version < offsetsKnowAbortable:
		return kerr.InvalidTxnState.Code
	case code == kerr.NetworkException.Code: // clients do not expect it
		return kerr.CoordinatorLoadInProgress.Code
	}
	return code
}

// refuse answers all partitions that exist with a code.
func (x *txnOffsets) refuse(code int16) {
	resp := kmsg.NewPtrOffsetCommitResponse()
	for i := range x.commit.Topics {
		t := &x.commit.Topics[i]
		rt := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
		for j := range t.Partitions {
			rt.Partitions = append(rt.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: t.Partitions[j].Partition, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	x.reply(resp)
}

// reply answers with the coordinator's answer and the partitions that were refused here.
func (x *txnOffsets) reply(commit *kmsg.OffsetCommitResponse) {
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	add := func(t *kmsg.OffsetCommitResponseTopic, more []kmsg.OffsetCommitResponseTopicPartition) {
		rt := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
		for _, p := range slices.Concat(t.Partitions, more) {
			if p.ErrorCode == kerr.CoordinatorLoadInProgress.Code && x.r.Version < offsetsKnowLoading {
				p.ErrorCode = kerr.CoordinatorNotAvailable.Code
			}
			if p.ErrorCode == kerr.InvalidTxnState.Code && x.check != nil && x.check.IsMoved() {
				p.ErrorCode = kerr.NotCoordinator.Code // the client looks for it, and tries again
			}
			rt.Partitions = append(rt.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: p.ErrorCode})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	for i := range commit.Topics {
		t := &commit.Topics[i]
		key := topicKey(t.Topic, t.TopicID)
		add(t, x.refused[key].Partitions)
		delete(x.refused, key)
	}
	for _, key := range slices.Sorted(maps.Keys(x.refused)) {
		t := x.refused[key]
		add(&t, nil)
	}
	x.r.Reply(resp)
}
