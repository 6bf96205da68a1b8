package broker

import (
	"regexp/syntax"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/txn"
	"github.com/leatstream/leat/internal/wire"
)

// ListTransactions, key 66, versions 0 to 2 (KIP-664). It lists those that this node coordinates.
//
// 1: a filter by age (KIP-994). 2: a filter by a pattern (KIP-1152).
//
// A pattern that would be long when its repeats are written out is refused like one that is not valid.

// maxPatternSize is how many steps a pattern may have when its repeats are written out.
const maxPatternSize = 5_000

func (b *Broker) listTransactions(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListTransactionsRequest)
	memory := b.txnAnswerMemory()
	for _, name := range req.StateFilters {
		memory += 2 * (describedTransactionMemory + 4*int64(len(name)))
	}
	held, err := b.reserveAnswer(r, memory)
	if err != nil {
		return err
	}
	resp := kmsg.NewPtrListTransactionsResponse()
	var filter *txn.Filter
	if resp.ErrorCode = kerr.InvalidRegularExpression.Code; isShortPattern(req.TransactionalIDPattern) {
		req.StateFilters = dropRepeated(req.StateFilters)
		filter, resp.UnknownStateFilters, resp.ErrorCode = txn.NewFilter(req)
	}
	if resp.ErrorCode != none {
		b.replyHeld(r, resp, &held)
		return nil
	}
	b.cfg.Txns.List(filter, func(list []kmsg.ListTransactionsResponseTransactionState, code int16) {
		defer r.Conn.Contain()
		defer held.Release()
		resp.TransactionStates, resp.ErrorCode = b.matchTransactions(filter, list), code
		b.replyHeld(r, resp, &held)
	})
	return nil
}

// isShortPattern tells whether a pattern does not need much memory and time. One that is not valid is left to others.
func isShortPattern(pattern *string) bool {
	if pattern == nil {
		return true
	}
	re, err := syntax.Parse(*pattern, syntax.Perl)
	return err != nil || sizeOfPattern(re) <= maxPatternSize
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
