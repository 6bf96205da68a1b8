package mirror

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn/entry"
)

// coordinated is a batch of the coordinators' log with one state of a transactional id; nil: a tombstone.
func coordinated(t *testing.T, id string, v *kmsg.TxnMetadataValue) record.Batch {
	t.Helper()
	var value []byte
	if v != nil {
		value = v.AppendTo(nil)
	}
	bu := record.Builder{}
	bu.Append(1, (&kmsg.TxnMetadataKey{TransactionalID: id}).AppendTo(nil), value)
	b, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func stateOfID(producer int64, epoch int16, state kmsg.TransactionState, partitions int) *kmsg.TxnMetadataValue {
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.ProducerID, v.ProducerEpoch, v.State = 1, producer, epoch, state
	t := kmsg.TxnMetadataValueTopic{Topic: "t"}
	for n := range partitions {
		t.Partitions = append(t.Partitions, int32(n))
	}
	v.Topics = []kmsg.TxnMetadataValueTopic{t}
	return &v
}

// asTheyAre names all partitions as they are.
func asTheyAre(topics []entry.Partitions) (list []progress.Partition) {
	for _, t := range topics {
		for _, n := range t.Partitions {
			list = append(list, progress.Partition{Topic: t.Topic, Number: n})
		}
	}
	return list
}

// TestEvidenceIsBounded proves that what is kept of a source's transactions stays within its bounds, however many there are, and that an id is forgotten altogether: never is a decision kept without what came after it.
func TestEvidenceIsBounded(t *testing.T) {
	e := newEvidence()
	ids := 3 * mostEvidence / (4*1000 + idBytes)
	for i := range ids {
		id := fmt.Sprint("id", i)
		e.read(0, coordinated(t, id, stateOfID(int64(i), 4, txnPrepared, 1)), 1)
		e.read(0, coordinated(t, id, stateOfID(int64(i), 4, txnBegun, 1000)), 2)
	}
	decisions, ongoing := e.list(asTheyAre)
	if e.bytes > mostEvidence || len(ongoing) != len(decisions) || len(ongoing) < ids/5 || len(ongoing) > ids/2 {
		t.Errorf("%d bytes, %d decisions, %d go on, of %d", e.bytes, len(decisions), len(ongoing), ids)
	}
	if last := ongoing[0].Producer; last != int64(ids-1) {
		t.Errorf("the last one is %d of %d", last, ids)
	}
	for i := range 3 * mostDecisions {
		e.read(1, coordinated(t, "one", stateOfID(-int64(i)-1, 4, txnPrepared, 1)), 3)
	}
	count := 0
	decisions, _ = e.list(asTheyAre)
	for _, d := range decisions {
		if d.Producer < 0 {
			count++
		}
	}
	if count != mostDecisions {
		t.Errorf("%d decisions of one id", count)
	}
	_, ongoing = e.list(asTheyAre)
	e.read(1, coordinated(t, "one", nil), 4)
	e.read(0, coordinated(t, fmt.Sprint("id", ids-1), stateOfID(5, 4, txnBegun, mostCited+1)), 5)
	if _, now := e.list(asTheyAre); len(now) != len(ongoing)-1 {
		t.Errorf("%d go on, and %d before", len(now), len(ongoing))
	}
	e.forgetPartition(0)
	if decisions, ongoing = e.list(asTheyAre); len(decisions)+len(ongoing) > 0 || e.bytes != 0 || e.used.Len() != 0 {
		t.Errorf("%d decisions, %d go on, %d bytes", len(decisions), len(ongoing), e.bytes)
	}
}

const (
	txnBegun    = kmsg.TransactionStateOngoing
	txnPrepared = kmsg.TransactionStatePrepareCommit
)

// TestEvidenceFollowsTransactions proves what each state of a transaction adds to the evidence: a decision is of the records before it, and is complete when all markers are written, and a transaction that goes on is no
// decision.
func TestEvidenceFollowsTransactions(t *testing.T) {
	e := newEvidence()
	expect := func(what string, decisions, ongoing int, completed bool) {
		t.Helper()
		d, o := e.list(asTheyAre)
		if len(d) != decisions || len(o) != ongoing || decisions > 0 && (d[decisions-1].Completed != progress.Never) != completed {
			t.Errorf("%s: %+v, %+v", what, d, o)
		}
	}
	for i, c := range []struct {
		state     kmsg.TransactionState
		decisions int
		ongoing   int
		completed bool
	}{
		{kmsg.TransactionStateEmpty, 0, 0, false},
		{kmsg.TransactionStateOngoing, 0, 1, false},
		{kmsg.TransactionStatePrepareCommit, 1, 0, false},
		{kmsg.TransactionStateCompleteCommit, 1, 0, true},
		{kmsg.TransactionStateOngoing, 1, 1, true},
		{kmsg.TransactionStatePrepareAbort, 2, 0, false},
		{kmsg.TransactionStateEmpty, 2, 0, false},
		{99, 0, 0, false},
		{kmsg.TransactionStateCompleteCommit, 0, 0, false},
	} {
		e.read(0, coordinated(t, "id", stateOfID(7, 4, c.state, 2)), 1)
		expect(fmt.Sprint(i, " ", c.state), c.decisions, c.ongoing, c.completed)
	}
	v := stateOfID(7, 5, kmsg.TransactionStatePrepareCommit, 1)
	v.ClientTransactionVersion = 2
	e.read(0, coordinated(t, "id", v), 8)
	if d, _ := e.list(asTheyAre); len(d) != 1 || !d[0].OwnEpoch || !d[0].Commit || d[0].MarkerEpoch != 5 || d[0].Seen != 8 || d[0].Partitions[0] != (progress.Partition{Topic: "t"}) {
		t.Errorf("%+v", d)
	}
}
