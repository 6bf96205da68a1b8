package broker

import (
	"regexp/syntax"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/txn"
	"github.com/leatstream/leat/internal/wire"
)

// ListTransactions, key 66, versions 0 to 2 (KIP-664). It lists those that this node coordinates.
//
// 1: a filter by age (KIP-994). 2: a filter by a pattern (KIP-1152).
//
// A pattern that would be long when its repeats are written out is refused like one that is not valid, and so is one with
// which a long id would take long to match.

const (
	// maxPatternSize is how many steps a pattern may have when its repeats are written out.
	maxPatternSize = 5_000
	// maxMatchCost bounds the steps of a pattern times the bytes of an id, since nothing else has the processor until they are
	// matched: each is worth up to 50 ns.
	maxMatchCost = 1_000_000
	// passCost is that after which other work has its turn.
	passCost = 20_000
)

func (b *Broker) listTransactions(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListTransactionsRequest)
	memory := elementMemory + b.cfg.Txns.MemoryUsed() // of the list; its answer is encoded as it is sent
	for _, name := range req.StateFilters {
		memory += 2 * (describedTransactionMemory + 4*int64(len(name)))
	}
	held, err := b.reserveAnswer(r, memory)
	if err != nil {
		return err
	}
	resp := kmsg.NewPtrListTransactionsResponse()
	var filter *txn.Filter
	steps := patternSteps(req.TransactionalIDPattern)
	if resp.ErrorCode = kerr.InvalidRegularExpression.Code; steps <= maxPatternSize {
		req.StateFilters = dropRepeated(req.StateFilters)
		filter, resp.UnknownStateFilters, resp.ErrorCode = txn.NewFilter(req)
	}
	if resp.ErrorCode != none {
		b.replyHeld(r, resp, &held)
		return nil
	}
	by := s.sharedAccess()
	quiet := by.quietly()
	// Who calls back may be the one that commits records of others, and must not wait for a processor.
	b.done.Go(func() {
		defer r.Conn.Contain()
		defer held.Release()
		listed := make(chan []kmsg.ListTransactionsResponseTransactionState, 1)
		b.cfg.Txns.List(filter, func(list []kmsg.ListTransactionsResponseTransactionState, code int16) {
			resp.ErrorCode = code
			listed <- list
		})
		list := <-listed
		list = slices.DeleteFunc(list, func(t kmsg.ListTransactionsResponseTransactionState) bool {
			return !quiet.mayTransaction(meta.Describe, t.TransactionalID)
		})
		list, isMatched := b.matchTransactions(filter, list, steps)
		if !isMatched {
			resp.ErrorCode = kerr.InvalidRegularExpression.Code
		}
		b.replyTransactions(r, resp, list, &held)
	})
	return nil
}

// replyTransactions sends a list of transactions, which is encoded one by one.
func (b *Broker) replyTransactions(r *wire.Request, whole *kmsg.ListTransactionsResponse, states []kmsg.ListTransactionsResponseTransactionState, held *budget.Reservation) {
	err := b.replyListHeld(r, whole, list{n: len(states), answerWith: func(i int) kmsg.Response {
		one := kmsg.NewPtrListTransactionsResponse()
		if i >= 0 {
			one.TransactionStates = states[i : i+1]
		}
		return one
	}}, held)
	if err != nil { // more than any answer may have
		whole.ErrorCode = kerr.UnknownServerError.Code
		r.Reply(whole)
	}
}

// matchTransactions removes from a list the ids that do not match the filter's pattern of so many steps, in turns with all
// other long work. It returns false for none if it would take too long for one of them.
func (b *Broker) matchTransactions(f *txn.Filter, list []kmsg.ListTransactionsResponseTransactionState, steps int) (kept []kmsg.ListTransactionsResponseTransactionState, ok bool) {
	if steps == 0 {
		return list, true
	}
	b.cfg.Work.Enter(budget.Command)
	defer b.cfg.Work.Leave()
	kept = list[:0]
	for cost := 0; len(list) > 0; list = list[1:] {
		one := steps * len(list[0].TransactionalID)
		if one > maxMatchCost {
			return nil, false
		}
		if cost += one; cost > passCost {
			b.cfg.Work.Pass(budget.Command)
			cost = one
		}
		kept = append(kept, f.KeepMatching(list[:1])...)
	}
	return kept, true
}

// patternSteps is about how many steps a pattern has when its repeats are written out; 0: there is none. One that is not valid
// is left to others.
func patternSteps(pattern *string) int {
	if pattern == nil || *pattern == "" {
		return 0
	}
	re, err := syntax.Parse(*pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	return sizeOfPattern(re)
}

// sizeOfPattern is about how many steps a pattern has.
func sizeOfPattern(re *syntax.Regexp) int {
	size := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		size += sizeOfPattern(sub)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(1, re.Min, re.Max)
	}
	return min(size, maxPatternSize+1)
}
