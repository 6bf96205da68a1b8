package txn

import (
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// Describe answers DescribeTransactions for one id. While a transaction ends, the partitions are
// those that lack their marker.
func (m *Machine) Describe(s *coord.Step, id string) kmsg.DescribeTransactionsResponseTransactionState {
	resp := kmsg.NewDescribeTransactionsResponseTransactionState()
	resp.TransactionalID = id
	if id == "" {
		resp.ErrorCode = invalidRequest
		return resp
	}
	t := m.find(s, id)
	if t == nil {
		resp.ErrorCode = transactionalIDNotFound
		return resp
	}
	resp.State, resp.ProducerID, resp.ProducerEpoch = t.status.String(), t.producer, t.epoch
	resp.TimeoutMillis, resp.StartTimestamp = t.timeout, t.start
	for _, p := range t.partitions.copyLists() {
		resp.Topics = append(resp.Topics, kmsg.DescribeTransactionsResponseTransactionStateTopic{Topic: p.Topic, Partitions: p.Partitions})
	}
	return resp
}

// Filter says which transactions ListTransactions lists. It does not change.
type Filter struct {
	producers map[int64]struct{}
	states    []bool // by status; nil: all
	duration  int64  // ms; below 0: any
	pattern   *regexp.Regexp
}

// NewFilter makes the filter of a ListTransactions, versions 0 to 2. unknown are those of its states that do
// not exist. The pattern has the syntax of RE2 and must match all of an id.
func NewFilter(req *kmsg.ListTransactionsRequest) (f *Filter, unknown []string, code int16) {
	f = &Filter{duration: -1}
	if req.Version >= 1 {
		f.duration = req.DurationFilterMillis
	}
	if len(req.ProducerIDFilters) > 0 {
		f.producers = make(map[int64]struct{}, len(req.ProducerIDFilters))
		for _, id := range req.ProducerIDFilters {
			f.producers[id] = struct{}{}
		}
	}
	if len(req.StateFilters) > 0 {
		f.states = make([]bool, len(statusNames()))
		for _, name := range req.StateFilters {
			i := slices.Index(statusNames(), name)
			if i < 0 {
				unknown = append(unknown, name)
				continue
			}
			f.states[i] = true
		}
	}
	if req.Version >= 2 && req.TransactionalIDPattern != nil && *req.TransactionalIDPattern != "" {
		if len(*req.TransactionalIDPattern) > maxPatternBytes {
			return nil, nil, invalidRegularExpression
		}
		if _, err := regexp.Compile(*req.TransactionalIDPattern); err != nil { // it might close the parenthesis below
			return nil, nil, invalidRegularExpression
		}
		var err error
		if f.pattern, err = regexp.Compile("^(?:" + *req.TransactionalIDPattern + ")$"); err != nil {
			return nil, nil, invalidRegularExpression
		}
	}
	return f, unknown, 0
}

// List answers ListTransactions for the ids of the machine. The pattern of the filter is left to
// KeepMatching, since it takes long.
func (m *Machine) List(s *coord.Step, f *Filter) []kmsg.ListTransactionsResponseTransactionState {
	s.After(m.last)
	now := s.Now.UnixMilli()
	var list []kmsg.ListTransactionsResponseTransactionState
	for id, t := range m.ids {
		if !f.wants(t, now) {
			continue
		}
		list = append(list, kmsg.ListTransactionsResponseTransactionState{
			TransactionalID: id, ProducerID: t.producer, TransactionState: t.status.String(),
		})
	}
	return list
}

// wants tells whether the filter lets a transaction through, apart from its pattern. As in Kafka, an
// id without a transaction counts as one that has run since 1970.
func (f *Filter) wants(t *transaction, now int64) bool {
	if _, ok := f.producers[t.producer]; f.producers != nil && !ok {
		return false
	}
	if f.states != nil && !f.states[t.status] {
		return false
	}
	return f.duration < 0 || now-t.start > f.duration
}

// KeepMatching removes from a list the ids that do not match the filter's pattern. It is to be called with
// no lock held.
func (f *Filter) KeepMatching(list []kmsg.ListTransactionsResponseTransactionState) []kmsg.ListTransactionsResponseTransactionState {
	if f.pattern == nil {
		return list
	}
	return slices.DeleteFunc(list, func(x kmsg.ListTransactionsResponseTransactionState) bool {
		return !f.pattern.MatchString(x.TransactionalID)
	})
}
