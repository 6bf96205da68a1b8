package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// DescribeTransactions, key 65, version 0 (KIP-664).
//
// An id that is named many times and has a producer is described once, so that a small request does not have a huge answer.

// describedTransactionMemory is about how much memory an id takes in an answer besides what the node keeps of it: one
// that nobody has takes that, too.
const describedTransactionMemory = 256

func (b *Broker) describeTransactions(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeTransactionsRequest)
	memory := b.txnAnswerMemory()
	for _, id := range req.TransactionalIDs {
		memory += describedTransactionMemory + 3*int64(len(id))
	}
	held, err := b.reserveAnswer(r, memory)
	if err != nil {
		return err
	}
	ids := dropRepeated(slices.Clone(req.TransactionalIDs))
	b.cfg.Txns.Describe(ids, containPanics(r, func(states []kmsg.DescribeTransactionsResponseTransactionState) {
		defer held.Release()
		resp := kmsg.NewPtrDescribeTransactionsResponse()
		resp.TransactionStates = repeatUnknown(req.TransactionalIDs, states)
		b.replyHeld(r, resp, &held)
	}))
	return nil
}

// repeatUnknown has the states of ids that are not known as often as they were asked for, and in that order, as Kafka does.
func repeatUnknown(asked []string, states []kmsg.DescribeTransactionsResponseTransactionState) []kmsg.DescribeTransactionsResponseTransactionState {
	if len(asked) == len(states) {
		return states
	}
	byID := make(map[string]*kmsg.DescribeTransactionsResponseTransactionState, len(states))
	for i := range states {
		byID[states[i].TransactionalID] = &states[i]
	}
	var list []kmsg.DescribeTransactionsResponseTransactionState
	for _, id := range asked {
		state := byID[id]
		if state == nil {
			continue
		}
		if list = append(list, *state); state.ErrorCode == none {
			delete(byID, id)
		}
	}
	return list
}
