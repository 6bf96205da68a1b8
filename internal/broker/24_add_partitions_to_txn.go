package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

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

func (b *Broker) addPartitionsToTxn(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AddPartitionsToTxnRequest)
	transactions := req.Transactions
	if r.Version < 4 {
		transactions = []kmsg.AddPartitionsToTxnRequestTransaction{*txn.SingleTransaction(req)}
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
