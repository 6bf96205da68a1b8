package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/txn"
	"github.com/leatstream/leat/internal/wire"
)

// AddPartitionsToTxn, key 24, versions 0 to 5 (KIP-98).
//
// 2: PRODUCER_FENCED. 3: flexible. 4: from the leaders of partitions, for many transactions, which are perhaps only
// looked for (KIP-890). 5: TRANSACTION_ABORTABLE.
//
// If a partition does not exist, none of its transaction's is added, and the others are OPERATION_NOT_ATTEMPTED.

// partitionCodeMemory is about how much memory a partition with a code takes in an answer, as a structure and in
// encoded form, and topicCodesMemory that of its topic without the characters.
const (
	partitionCodeMemory = 64
	topicCodesMemory    = 192
)

func (b *Broker) addPartitionsToTxn(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AddPartitionsToTxnRequest)
	by := s.access()
	transactions := req.Transactions
	if r.Version < 4 {
		transactions = []kmsg.AddPartitionsToTxnRequestTransaction{*txn.SingleTransaction(req)}
		if denied := b.refuseAdding(&by, &transactions[0]); denied != nil {
			r.Reply(denied)
			return nil
		}
	} else if !by.mayCluster(meta.ClusterAction) { // leaders of partitions send these versions
		resp := kmsg.NewPtrAddPartitionsToTxnResponse()
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		r.Reply(resp)
		return nil
	}
	memory := int64(0)
	for i := range transactions {
		x := &transactions[i]
		memory += topicCodesMemory + int64(len(x.TransactionalID))
		for j := range x.Topics {
			memory += topicCodesMemory + 4*int64(len(x.Topics[j].Topic)) + partitionCodeMemory*int64(len(x.Topics[j].Partitions))
		}
	}
	held, err := b.reserveAnswer(r, memory)
	if err != nil {
		return err
	}
	b.cfg.Txns.AddPartitions(r.Version, transactions, containPanics(r, func(answers []kmsg.AddPartitionsToTxnResponseTransaction) {
		defer held.Release()
		resp := kmsg.NewPtrAddPartitionsToTxnResponse()
		if r.Version < 4 {
			resp.Topics = txn.SingleAnswer(&answers[0])
		} else {
			resp.Transactions = answers
		}
		b.replyHeld(r, resp, &held)
	}))
	return nil
}

// refuseAdding refuses a transaction that the client may not use, or one with a topic that it may not write to; nil: it may all
// of that. As for partitions that do not exist, no partition is added then.
func (b *Broker) refuseAdding(by *access, x *kmsg.AddPartitionsToTxnRequestTransaction) *kmsg.AddPartitionsToTxnResponse {
	mayUse := by.mayTransaction(meta.Write, x.TransactionalID)
	isDenied := func(topic string) bool { return meta.InternalTopic(topic) || !by.mayTopic(meta.Write, topic) }
	if by.watch.isNoting() { // all of them are looked at
		for i := range x.Topics {
			isDenied(x.Topics[i].Topic)
		}
	}
	if by.by == nil || mayUse && !slices.ContainsFunc(x.Topics, func(t kmsg.AddPartitionsToTxnRequestTransactionTopic) bool { return isDenied(t.Topic) }) {
		return nil
	}
	resp, image := kmsg.NewPtrAddPartitionsToTxnResponse(), b.cfg.Image()
	for i := range x.Topics {
		t := &x.Topics[i]
		rt := kmsg.AddPartitionsToTxnResponseTopic{Topic: t.Topic}
		for _, n := range t.Partitions {
			code := kerr.OperationNotAttempted.Code
			switch known := image.Topic(t.Topic); {
			case !mayUse:
				code = kerr.TransactionalIDAuthorizationFailed.Code
			case isDenied(t.Topic):
				code = kerr.TopicAuthorizationFailed.Code
			case known == nil || n < 0 || int(n) >= len(known.Partitions):
				code = kerr.UnknownTopicOrPartition.Code
			}
			rt.Partitions = append(rt.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: n, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
