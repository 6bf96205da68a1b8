package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeTransactions, key 65, version 0 (KIP-664).
//
// An id that is named many times and has a producer is described once, so that a small request does not have a huge answer.

// describedTransactionMemory is about how much memory an id takes in an answer besides what the node keeps of it: one
// that nobody has takes that, too.
const describedTransactionMemory = 256

func (b *Broker) describeTransactions(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeTransactionsRequest)
	memory := elementMemory + b.cfg.Txns.MemoryUsed() // of the states; the answer is encoded as it is sent
	for _, id := range req.TransactionalIDs {
		memory += describedTransactionMemory + 3*int64(len(id))
	}
	held, err := b.reserveAnswer(r, memory)
	if err != nil {
		return err
	}
	by := s.sharedAccess()
	quiet := by.quietly()
	ids, denied := by.splitTransactions(dropRepeated(slices.Clone(req.TransactionalIDs)))
	// Who calls back may be the one that commits records of others, and must not wait for a processor.
	b.done.Go(func() {
		defer r.Conn.Contain()
		defer held.Release()
		described := make(chan []kmsg.DescribeTransactionsResponseTransactionState, 1)
		b.cfg.Txns.Describe(ids, func(states []kmsg.DescribeTransactionsResponseTransactionState) { described <- states })
		states := <-described
		for i := range states {
			states[i].Topics = slices.DeleteFunc(states[i].Topics, func(t kmsg.DescribeTransactionsResponseTransactionStateTopic) bool {
				return !quiet.mayTopic(meta.Describe, t.Topic)
			})
		}
		states = repeatUnknown(req.TransactionalIDs, append(states, denied...))
		resp := kmsg.NewPtrDescribeTransactionsResponse()
		err := b.replyListHeld(r, resp, list{n: len(states), answerWith: func(i int) kmsg.Response {
			one := kmsg.NewPtrDescribeTransactionsResponse()
			if i >= 0 {
				one.TransactionStates = states[i : i+1]
			}
			return one
		}}, &held)
		if err != nil { // more than any answer may have
			for i := range states {
				states[i].Topics, states[i].ErrorCode = nil, kerr.UnknownServerError.Code
			}
			resp.TransactionStates = states
			r.Reply(resp)
		}
	})
	return nil
}

// splitTransactions parts ids into those that the client may describe, and the answers for the others.
func (a *access) splitTransactions(ids []string) (allowed []string, denied []kmsg.DescribeTransactionsResponseTransactionState) {
	if a.by == nil && !a.watch.isNoting() {
		return ids, nil
	}
	for _, id := range ids {
		if a.mayTransaction(meta.Describe, id) {
			allowed = append(allowed, id)
			continue
		}
		state := kmsg.NewDescribeTransactionsResponseTransactionState()
		state.TransactionalID, state.ErrorCode = id, kerr.TransactionalIDAuthorizationFailed.Code
		denied = append(denied, state)
	}
	return allowed, denied
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
