package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Hanging is the state of a transaction that is open in partitions although no coordinator is going to end it there.
// It is no state of Kafka's coordinators.
const Hanging = "Hanging"

// Transaction is an open transaction: one that a coordinator knows, or one that hangs in partitions.
type Transaction struct {
	ID          string `json:"transactional_id,omitempty"` // "": no coordinator knows the producer
	State       string `json:"state"`                      // of the coordinator, or Hanging
	Producer    int64  `json:"producer_id"`
	Epoch       int16  `json:"producer_epoch"`
	Coordinator int32  `json:"coordinator"` // -1: none
	// Since is when the transaction began, as its coordinator says, or, if it hangs, when the producer wrote last; ms, -1: not known.
	Since         int64 `json:"since"`
	TimeoutMillis int32 `json:"timeout_ms"` // -1: not known
	// Partitions are those that wait for the end of the transaction.
	Partitions []OpenPartition `json:"partitions"`
}

// OpenPartition is a partition in which a transaction is open.
type OpenPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// Start is the offset of the first record of the transaction; -1: it has none there, or that is not known.
	Start            int64 `json:"start"`
	LastWrite        int64 `json:"last_write"` // when the producer wrote last, ms; -1: not known
	CoordinatorEpoch int32 `json:"coordinator_epoch"`
	// HoldsBack tells that this transaction is the oldest one of the partition: the last stable offset is its first record.
	HoldsBack bool `json:"holds_back"`
	// Behind is how many offsets are between the last stable offset and the high watermark; -1: not known.
	Behind int64 `json:"behind"`
}

// IsOpen tells whether partitions wait for the end of the transaction.
func (t *Transaction) IsOpen() bool { return t.State == Hanging || isOpen(t.State) }

const (
	// partitionsTogether is of how many partitions producers are asked for by one request to each leader.
	partitionsTogether = 500
	// idsTogether is of how many transactional ids transactions are asked for at a time.
	idsTogether = 1000
)

// openStates are the states of transactions that are not complete.
func openStates() []string { return []string{"Ongoing", "PrepareCommit", "PrepareAbort"} }

// isOpen tells whether a state is one of a transaction that is not complete.
func isOpen(state string) bool { return slices.Contains(openStates(), state) }

// openTransaction is what a partition's leader knows of an open transaction.
type openTransaction struct {
	topic     string
	partition int32
	producer  int64
	start     int64
}

// FindTransactions lists all open transactions, the oldest one first. Of topics, if there are any, only those in their partitions count.
// silent is about what was not told, such as the transactions of a coordinator that does not answer; err says that nothing was.
func FindTransactions(ctx context.Context, cl *kgo.Client, topics []string) (found []Transaction, silent, err error) {
	if served, err := servesAPI(ctx, cl, kmsg.ListTransactions.Int16()); err != nil || !served {
		return nil, nil, cmp.Or(err, ErrNotServed)
	}
	f := finder{adm: kadm.NewClient(cl)}
	sets, err := f.findPartitions(ctx, topics)
	if err != nil {
		return nil, nil, err
	}
	// The leaders are asked before the coordinators: a transaction that begins meanwhile is only known to its coordinator. One that
	// ends meanwhile looks as if it hangs, so those that do are looked at again.
	open, err := f.describeProducers(ctx, sets)
	if err != nil {
		return nil, nil, err
	}
	known, err := f.describeKnown(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	hanging := subtractKnown(open, known)
	if len(hanging) > 0 {
		if hanging, err = f.confirmHanging(ctx, hanging); err != nil {
			return nil, nil, err
		}
	}
	found = joinTransactions(open, known, hanging)
	if len(topics) > 0 {
		found = slices.DeleteFunc(found, func(t Transaction) bool {
			return !slices.ContainsFunc(t.Partitions, func(p OpenPartition) bool { return slices.Contains(topics, p.Topic) })
		})
	}
	f.addStableOffsets(ctx, found, open)
	slices.SortFunc(found, compareTransactions)
	return found, errors.Join(f.silent...), nil
}

// compareTransactions has the oldest one first, and those of which the age is not known last.
func compareTransactions(a, b Transaction) int {
	age := func(t *Transaction) int64 {
		if t.Since < 0 {
			return math.MaxInt64
		}
		return t.Since
	}
	return cmp.Or(cmp.Compare(age(&a), age(&b)), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Producer, b.Producer))
}

// finder asks all nodes for transactions, and notes who did not answer.
type finder struct {
	adm    *kadm.Client
	silent []error
}

// note keeps what some nodes did not tell. It fails if none told anything.
func (f *finder) note(doing string, err error) error {
	var shards *kadm.ShardErrors
	switch {
	case err == nil:
		return nil
	case errors.As(err, &shards) && !shards.AllFailed:
		for _, s := range shards.Errs {
			f.silent = append(f.silent, fmt.Errorf("%s: node %d: %w", doing, s.Broker.NodeID, s.Err))
		}
		return nil
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// findPartitions lists the partitions that have a leader, of the topics, or of all if there are none, in parts that fit into a request.
func (f *finder) findPartitions(ctx context.Context, topics []string) (sets []kadm.TopicsSet, err error) {
	details, err := f.adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("asking for topics: %w", err)
	}
	count := 0
	for _, t := range details.Sorted() {
		if t.Err != nil {
			return nil, &RefusedError{Of: "topic " + t.Topic, Err: t.Err}
		}
		for _, p := range t.Partitions.Sorted() {
			if p.Leader < 0 {
				continue // nobody knows its transactions, and nobody reads it
			}
			if count%partitionsTogether == 0 {
				sets = append(sets, kadm.TopicsSet{})
			}
			count++
			sets[len(sets)-1].Add(t.Topic, p.Partition)
		}
	}
	return sets, nil
}

// describeProducers asks the leaders of partitions for the transactions that are open there.
func (f *finder) describeProducers(ctx context.Context, sets []kadm.TopicsSet) (open map[openTransaction]kadm.DescribedProducer, err error) {
	open = map[openTransaction]kadm.DescribedProducer{}
	for _, set := range sets {
		described, err := f.adm.DescribeProducers(ctx, set)
		if err := f.note("asking for the producers of partitions", err); err != nil {
			return nil, err
		}
		described.EachPartition(func(p kadm.DescribedProducersPartition) {
			if p.Err != nil && !errors.Is(p.Err, kerr.UnknownTopicOrPartition) {
				f.silent = append(f.silent, &RefusedError{Of: fmt.Sprintf("the producers of topic %s, partition %d", p.Topic, p.Partition), Err: p.Err, Message: p.ErrMessage})
			}
			for _, d := range p.ActiveProducers {
				if d.CurrentTxnStartOffset >= 0 {
					open[openTransaction{d.Topic, d.Partition, d.ProducerID, d.CurrentTxnStartOffset}] = d
				}
			}
		})
	}
	return open, nil
}

// describeKnown asks the coordinators for the open transactions that they know, or for those of producers in any state.
func (f *finder) describeKnown(ctx context.Context, producers []int64) (known []kadm.DescribedTransaction, err error) {
	states := openStates()
	if len(producers) > 0 {
		states = nil
	}
	listed, err := f.adm.ListTransactions(ctx, producers, states)
	if err := f.note("asking for transactions", err); err != nil {
		return nil, err
	}
	return f.describeIDs(ctx, listed.TransactionalIDs())
}

// describeIDs asks the coordinators for the transactions of ids. It leaves out those that do not exist any more.
func (f *finder) describeIDs(ctx context.Context, ids []string) (known []kadm.DescribedTransaction, err error) {
	for some := range slices.Chunk(ids, idsTogether) {
		described, err := f.adm.DescribeTransactions(ctx, some...)
		if err := f.note("asking for transactions", err); err != nil {
			return nil, err
		}
		for _, d := range described.Sorted() {
			switch {
			case errors.Is(d.Err, kerr.TransactionalIDNotFound):
			case d.Err != nil:
				f.silent = append(f.silent, &RefusedError{Of: "transactional id " + d.TxnID, Err: d.Err})
			default:
				known = append(known, d)
			}
		}
	}
	return known, nil
}

// subtractKnown lists the transactions that are open in partitions where no coordinator is going to end them.
func subtractKnown(open map[openTransaction]kadm.DescribedProducer, known []kadm.DescribedTransaction) (hanging map[openTransaction]string) {
	ending, ids := map[openTransaction]bool{}, map[int64]string{}
	for _, k := range known {
		ids[k.ProducerID] = k.TxnID
		k.Topics.Each(func(topic string, partition int32) {
			ending[openTransaction{topic: topic, partition: partition, producer: k.ProducerID}] = isOpen(k.State)
		})
	}
	hanging = map[openTransaction]string{}
	for o := range open {
		if !ending[openTransaction{topic: o.topic, partition: o.partition, producer: o.producer}] {
			hanging[o] = ids[o.producer]
		}
	}
	return hanging
}

// confirmHanging looks again at transactions that seem to hang: those of them hang that are still open, and that the coordinators,
// who were asked before, do not know. The ids are those that their producers have, if any has.
func (f *finder) confirmHanging(ctx context.Context, seem map[openTransaction]string) (hanging map[openTransaction]string, err error) {
	var producers []int64
	set := kadm.TopicsSet{}
	for o := range seem {
		producers = append(producers, o.producer)
		set.Add(o.topic, o.partition)
	}
	slices.Sort(producers)
	known, err := f.describeKnown(ctx, slices.Compact(producers))
	if err != nil {
		return nil, err
	}
	open, err := f.describeProducers(ctx, []kadm.TopicsSet{set})
	if err != nil {
		return nil, err
	}
	hanging = subtractKnown(open, known)
	maps.DeleteFunc(hanging, func(o openTransaction, _ string) bool {
		_, seemed := seem[o]
		return !seemed
	})
	return hanging, nil
}

// joinTransactions makes the list of what the coordinators know, of what leaders know of the same, and of what hangs.
func joinTransactions(open map[openTransaction]kadm.DescribedProducer, known []kadm.DescribedTransaction, hanging map[openTransaction]string) (all []Transaction) {
	byPlace := map[openTransaction]kadm.DescribedProducer{}
	for o, d := range open {
		if _, hangs := hanging[o]; !hangs {
			byPlace[openTransaction{topic: o.topic, partition: o.partition, producer: o.producer}] = d
		}
	}
	for _, k := range known {
		if isOpen(k.State) {
			all = append(all, newTransaction(&k, byPlace))
		}
	}
	at := map[int64]int{}
	for _, o := range slices.SortedFunc(maps.Keys(hanging), compareOpen) {
		d := open[o]
		i, ok := at[o.producer]
		if !ok {
			i, at[o.producer] = len(all), len(all)
			all = append(all, Transaction{
				ID: hanging[o], State: Hanging, Producer: o.producer, Epoch: d.ProducerEpoch, Coordinator: unknown, Since: unknown, TimeoutMillis: unknown,
			})
		}
		t := &all[i]
		t.Since = max(t.Since, d.LastTimestamp)
		t.Partitions = append(t.Partitions, newOpenPartition(&d))
	}
	return all
}

// newTransaction makes a transaction that a coordinator knows.
func newTransaction(k *kadm.DescribedTransaction, byPlace map[openTransaction]kadm.DescribedProducer) Transaction {
	t := Transaction{
		ID: k.TxnID, State: k.State, Producer: k.ProducerID, Epoch: k.ProducerEpoch, Coordinator: k.Coordinator,
		Since: k.StartTimestamp, TimeoutMillis: k.TimeoutMillis, Partitions: []OpenPartition{},
	}
	for _, list := range k.Topics.Sorted() {
		for _, n := range list.Partitions {
			p := OpenPartition{Topic: list.Topic, Partition: n, Start: unknown, LastWrite: unknown, CoordinatorEpoch: unknown, Behind: unknown}
			if d, ok := byPlace[openTransaction{topic: list.Topic, partition: n, producer: k.ProducerID}]; ok {
				p = newOpenPartition(&d)
			}
			t.Partitions = append(t.Partitions, p)
		}
	}
	return t
}

func newOpenPartition(d *kadm.DescribedProducer) OpenPartition {
	return OpenPartition{
		Topic: d.Topic, Partition: d.Partition, Start: d.CurrentTxnStartOffset, LastWrite: d.LastTimestamp,
		CoordinatorEpoch: d.CoordinatorEpoch, Behind: unknown,
	}
}

func compareOpen(a, b openTransaction) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition), cmp.Compare(a.producer, b.producer), cmp.Compare(a.start, b.start))
}

// addStableOffsets notes which transactions hold the last stable offset of a partition back, and by how much. It is left out where
// the leaders do not tell it.
func (f *finder) addStableOffsets(ctx context.Context, all []Transaction, open map[openTransaction]kadm.DescribedProducer) {
	type place struct {
		topic     string
		partition int32
	}
	first := map[place]int64{}
	for o := range open {
		at := place{o.topic, o.partition}
		if start, ok := first[at]; !ok || o.start < start {
			first[at] = o.start
		}
	}
	topics := map[string]bool{}
	for i := range all {
		for _, p := range all[i].Partitions {
			if p.Start >= 0 {
				topics[p.Topic] = true
			}
		}
	}
	if len(topics) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(topics))
	stable, err1 := f.adm.ListCommittedOffsets(ctx, names...)
	ends, err2 := f.adm.ListEndOffsets(ctx, names...)
	if err := cmp.Or(f.note("asking for stable offsets", err1), f.note("asking for the ends of partitions", err2)); err != nil {
		f.silent = append(f.silent, err)
	}
	for i := range all {
		for j := range all[i].Partitions {
			p := &all[i].Partitions[j]
			p.HoldsBack = p.Start >= 0 && first[place{p.Topic, p.Partition}] == p.Start
			lso, ok := stable.Lookup(p.Topic, p.Partition)
			end, ok2 := ends.Lookup(p.Topic, p.Partition)
			if p.HoldsBack && ok && ok2 && lso.Err == nil && end.Err == nil {
				p.Behind = max(0, end.Offset-lso.Offset)
			}
		}
	}
}

// DescribeTransactions asks for the transactions of transactional ids, in any state, with what the leaders of their partitions
// know. Ids that no coordinator knows are left out.
func DescribeTransactions(ctx context.Context, cl *kgo.Client, ids []string) (found []Transaction, silent, err error) {
	if served, err := servesAPI(ctx, cl, kmsg.DescribeTransactions.Int16()); err != nil || !served {
		return nil, nil, cmp.Or(err, ErrNotServed)
	}
	f := finder{adm: kadm.NewClient(cl)}
	if exists, err := f.hasTransactionsTopic(ctx); err != nil || !exists { // asking for a coordinator would make it
		return nil, nil, err
	}
	known, err := f.describeIDs(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	set := kadm.TopicsSet{}
	for _, k := range known {
		set.Merge(k.Topics)
	}
	open := map[openTransaction]kadm.DescribedProducer{}
	if len(set) > 0 {
		if open, err = f.describeProducers(ctx, []kadm.TopicsSet{set}); err != nil {
			return nil, nil, err
		}
	}
	byPlace := map[openTransaction]kadm.DescribedProducer{}
	for o, d := range open {
		byPlace[openTransaction{topic: o.topic, partition: o.partition, producer: o.producer}] = d
	}
	for _, id := range ids {
		i := slices.IndexFunc(known, func(k kadm.DescribedTransaction) bool { return k.TxnID == id })
		if i < 0 {
			continue
		}
		t := newTransaction(&known[i], byPlace)
		if !isOpen(t.State) {
			t.Since = unknown // it is the start of the last one
		}
		found = append(found, t)
	}
	f.addStableOffsets(ctx, found, open)
	return found, errors.Join(f.silent...), nil
}

// hasTransactionsTopic tells whether there is the topic in which coordinators keep transactions, as there is once a producer
// has used a transactional id.
func (f *finder) hasTransactionsTopic(ctx context.Context) (bool, error) {
	const name = "__transaction_state"
	md, err := f.adm.Metadata(ctx, name)
	if err != nil {
		return false, err
	}
	return !errors.Is(md.Topics[name].Err, kerr.UnknownTopicOrPartition), nil
}

// abortPause is how long to wait before a coordinator is asked again whether a transaction has ended.
const abortPause = 100 * time.Millisecond

// AbortTransaction fences the producer of a transactional id, so that it can neither write nor commit any more, and waits until its
// transaction is aborted everywhere. The timeout is the one that the id keeps.
func AbortTransaction(ctx context.Context, cl *kgo.Client, id string, timeoutMillis int32) error {
	for {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, timeoutMillis
		req.ProducerID, req.ProducerEpoch = unknown, unknown // it fences whatever there is
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return fmt.Errorf("aborting the transaction of %s: %w", id, err)
		}
		err = kerr.ErrorForCode(resp.ErrorCode)
		if err == nil {
			return nil
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) && !kerr.IsRetriable(err) {
			return &RefusedError{Of: "transactional id " + id, Err: err}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(abortPause):
		}
	}
}

// AbortHanging has the leader of a partition abort a transaction that hangs there, as kafka-transactions.sh abort does.
func AbortHanging(ctx context.Context, cl *kgo.Client, t *Transaction, p *OpenPartition) error {
	of := fmt.Sprintf("topic %s, partition %d", p.Topic, p.Partition)
	set := kadm.TopicsSet{}
	set.Add(p.Topic, p.Partition)
	res, err := kadm.NewClient(cl).WriteTxnMarkers(ctx, kadm.TxnMarkers{
		ProducerID: t.Producer, ProducerEpoch: t.Epoch, CoordinatorEpoch: max(0, p.CoordinatorEpoch), Topics: set,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", of, err)
	}
	answer, ok := res[t.Producer].Topics[p.Topic].Partitions[p.Partition]
	if !ok {
		return fmt.Errorf("%s: the answer does not name the partition", of)
	}
	if answer.Err != nil {
		return &RefusedError{Of: of, Err: answer.Err}
	}
	return nil
}
