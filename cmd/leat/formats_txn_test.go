//go:build unix

package main_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// movedTopic is the topic into which the writer of directories writes transactions.
const movedTopic = "moved"

// openID is the transactional id whose transaction the writer leaves open. Its time is over when the directory is opened.
const openID = "left-open"

// transactionsSight is what a client sees of transactions when none is open any more.
type transactionsSight struct {
	Committed []string          // records of movedTopic that readers of committed records get
	All       []string          // those that other readers get
	IDs       map[string]string // the state and the producer id of each transactional id
	Offsets   []string          // of the group whose offsets were committed in transactions
}

// lookAtTransactions waits until no transaction is open.
func lookAtTransactions(t *testing.T, p *process) *transactionsSight {
	t.Helper()
	adm := kadm.NewClient(p.client(t))
	eventually(t, "no transaction is open", func() bool {
		open, err := adm.ListTransactions(t.Context(), nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort"})
		return err == nil && len(open) == 0
	})
	described, err := adm.DescribeTransactions(t.Context(), "move-1", "move-2", openID)
	if err != nil {
		t.Fatal(err)
	}
	s := &transactionsSight{IDs: map[string]string{}}
	for _, d := range described.Sorted() {
		if d.Err != nil {
			t.Fatal(d.TxnID, d.Err)
		}
		s.IDs[d.TxnID] = d.State + " by producer " + strconv.FormatInt(d.ProducerID, 10)
	}
	s.Committed, s.All = readMoved(t, p, kgo.ReadCommitted()), readMoved(t, p, kgo.ReadUncommitted())
	s.Offsets = lookAtGroup(t, p.client(t), "movers").Offsets
	return s
}

// readMoved reads the records of movedTopic to its end.
func readMoved(t *testing.T, p *process, level kgo.IsolationLevel) (records []string) {
	t.Helper()
	ends, err := kadm.NewClient(p.client(t)).ListEndOffsets(t.Context(), movedTopic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(movedTopic, 0)
	from := map[string]map[int32]kgo.Offset{movedTopic: {0: kgo.NewOffset().At(0)}}
	cl := p.client(t, kgo.ConsumePartitions(from), kgo.FetchMaxWait(50*time.Millisecond), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	defer cl.Close()
	for at := int64(0); at < end.Offset; { // the last offset is that of a marker
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if at = r.Offset + 1; !r.Attrs.IsControl() {
				records = append(records, show(r))
			}
		})
	}
	return records
}

// transact writes records in a transaction with a group's offset, and ends it, or leaves it open.
func (w *writer) transact(cl *kgo.Client, records int, end *kgo.TransactionEndTry) {
	w.t.Helper()
	w.must(cl.BeginTransaction())
	w.produce(cl, movedTopic, 0, records, 0)
	if end != nil {
		w.must(cl.EndTransaction(w.t.Context(), *end))
	}
}

// transactions writes transactions that were committed and aborted, by two producers, with a group's offsets in some of them, and leaves
// one open.
func (w *writer) transactions() {
	w.t.Helper()
	w.create(movedTopic, 1, "segment.bytes=1048576")
	commit, abort := kgo.TryCommit, kgo.TryAbort
	client := func(id string, opts ...kgo.Opt) *kgo.Client {
		return w.p.client(w.t, append(opts, kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	}
	one, two := client("move-1"), client("move-2")
	w.transact(one, 3, &commit)
	w.transact(two, 2, nil)
	w.transact(one, 2, &abort)
	w.must(two.EndTransaction(w.t.Context(), kgo.TryCommit))
	w.produce(w.cl, movedTopic, 0, 2, 0) // records without a transaction between them
	w.transact(one, 20, &abort)

	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(w.p.addr), kgo.TransactionalID("move-2"), kgo.ConsumerGroup("movers"), kgo.ConsumeTopics("codecs"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	w.must(err)
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		fetches := s.PollRecords(w.t.Context(), 3)
		w.must(fetches.Err())
		w.must(s.Begin())
		w.produce(s.Client(), movedTopic, 0, fetches.NumRecords(), 0)
		if done, err := s.End(w.t.Context(), end); err != nil || done != bool(end) {
			w.t.Fatal(done, err)
		}
	}
	s.Close()
	w.transact(client(openID, kgo.TransactionTimeout(time.Minute)), 2, nil)
}

// seenOnceEnded is what is seen of the transactions when the one that is open has timed out.
func (w *writer) seenOnceEnded() *transactionsSight {
	w.t.Helper()
	adm := kadm.NewClient(w.cl)
	described, err := adm.DescribeTransactions(w.t.Context(), openID)
	w.must(err)
	if d := described[openID]; d.State != "Ongoing" {
		w.t.Fatalf("%+v", d)
	}
	s := &transactionsSight{IDs: map[string]string{openID: "CompleteAbort by producer " + strconv.FormatInt(described[openID].ProducerID, 10)}}
	others, err := adm.DescribeTransactions(w.t.Context(), "move-1", "move-2")
	w.must(err)
	for _, d := range others.Sorted() {
		s.IDs[d.TxnID] = d.State + " by producer " + strconv.FormatInt(d.ProducerID, 10)
	}
	// The open transaction is the last one, so that other readers have seen everything, and those of committed records all but it.
	stable, err := adm.ListCommittedOffsets(w.t.Context(), movedTopic)
	w.must(err)
	ends, err := adm.ListEndOffsets(w.t.Context(), movedTopic)
	w.must(err)
	lso, _ := stable.Lookup(movedTopic, 0)
	end, _ := ends.Lookup(movedTopic, 0)
	if end.Offset-lso.Offset != 2 {
		w.t.Fatalf("the last stable offset is %d, and the end %d", lso.Offset, end.Offset)
	}
	read := func(level kgo.IsolationLevel, until int64) (records []string) {
		from := map[string]map[int32]kgo.Offset{movedTopic: {0: kgo.NewOffset().At(0)}}
		cl := w.p.client(w.t, kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
		defer cl.Close()
		for at := int64(0); at < until; {
			fetches := cl.PollFetches(w.t.Context())
			w.must(fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				if at = r.Offset + 1; !r.Attrs.IsControl() {
					records = append(records, show(r))
				}
			})
		}
		return records
	}
	s.Committed, s.All = read(kgo.ReadCommitted(), lso.Offset), read(kgo.ReadUncommitted(), end.Offset)
	s.Offsets = lookAtGroup(w.t, w.cl, "movers").Offsets
	return s
}

// goOnWithTransactions proves that producers go on under their transactional ids, also that of the transaction that was left open.
func goOnWithTransactions(t *testing.T, p *process, was *transactionsSight) {
	t.Helper()
	for id := range was.IDs {
		cl := p.client(t, kgo.TransactionalID(id))
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: movedTopic, Value: []byte("later")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
	}
	now := readMoved(t, p, kgo.ReadCommitted())
	if diff := cmp.Diff(was.Committed, now[:min(len(was.Committed), len(now))]); diff != "" || len(now) != len(was.Committed)+len(was.IDs) {
		t.Errorf("after %d transactions more there are %d committed records, %d before: (-was +is)\n%s", len(was.IDs), len(now), len(was.Committed), diff)
	}
	if slices.Equal(was.Committed, was.All) {
		t.Error("no transaction was aborted")
	}
}
