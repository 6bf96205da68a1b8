package missing

import (
	"regexp/syntax"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeTransactions, key 65, version 0, and ListTransactions, key 66, versions 0 to 2
// (KIP-664).
//
// 1: a filter by age (KIP-994). 2: a filter by a pattern (KIP-1152). There are no
// transactions yet.

func describeTransactions(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.DescribeTransactionsRequest)
	var size Memory
	for _, id := range req.TransactionalIDs {
		size.Add(1, len(id))
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrDescribeTransactionsResponse()
		resp.TransactionStates = make([]kmsg.DescribeTransactionsResponseTransactionState, len(req.TransactionalIDs))
		for i, id := range req.TransactionalIDs {
			pass()
			rx := &resp.TransactionStates[i]
			rx.TransactionalID, rx.ErrorCode = id, kerr.TransactionalIDNotFound.Code
		}
		return resp
	}}
}

// maxPattern bounds the length of the pattern for transactional ids, which is parsed.
const maxPattern = 1 << 10

func listTransactions(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.ListTransactionsRequest)
	states := []string{"Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Empty", "Dead", "PrepareEpochFence"}
	var size Memory
	for _, s := range req.StateFilters {
		size.Add(2, len(s))
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrListTransactionsResponse()
		if p := req.TransactionalIDPattern; p != nil {
			if len(*p) > maxPattern || !isPattern(*p) {
				resp.ErrorCode = kerr.InvalidRegularExpression.Code
				return resp
			}
		}
		for _, s := range slices.Compact(slices.Sorted(slices.Values(req.StateFilters))) {
			pass()
			if !slices.Contains(states, s) {
				resp.UnknownStateFilters = append(resp.UnknownStateFilters, s)
			}
		}
		return resp
	}}
}

// isPattern parses a pattern and does not compile it: a short pattern of repeats compiles
// into a very long program.
func isPattern(s string) bool {
	_, err := syntax.Parse(s, syntax.Perl)
	return err == nil
}
