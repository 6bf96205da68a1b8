package broker

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
)

// offsetsRig is a group rig with a coordinator of transactions, whose groups are loaded, and which has admitted transactions.
func offsetsRig(t *testing.T, co *txnCoordinator) (*rig, *client) {
	t.Helper()
	g := newGroupRig(t)
	g.broker.cfg.Transactions = co
	g.topic("events", 2)
	c := dial(t, g.addr)
	find := at(4, kmsg.NewPtrFindCoordinatorRequest())
	find.CoordinatorKeys = []string{"g"}
	ask[*kmsg.FindCoordinatorResponse](c, find)
	if p := produceOne(c, putTxn(12, "warm", "events", 1, txnBatch(t, 1, 0, 0, "x"))); p.ErrorCode != none {
		t.Fatal(p)
	}
	eventually(t, "the coordinator has loaded", func() bool {
		return ask[*kmsg.TxnOffsetCommitResponse](c, sendOffsets(5, "load", 99, 0, 1)).Topics[0].Partitions[0].ErrorCode == none
	})
	return g, c
}

// sendOffsets is a TxnOffsetCommit of one offset for the group g.
func sendOffsets(version int16, id string, producer int64, epoch int16, offset int64) *kmsg.TxnOffsetCommitRequest {
	req := at(version, kmsg.NewPtrTxnOffsetCommitRequest())
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = id, "g", producer, epoch
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset, p.LeaderEpoch = offset, -1
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{p}}}
	return req
}

// TestTxnOffsetCommit proves that offsets of a transaction are kept only if the coordinator has the group's partition in the
// transaction, that version 5 adds it, and that they are the group's after the marker of a commit, and
// never after that of an abort; the answer names partitions that do not exist.
func TestTxnOffsetCommit(t *testing.T) {
	co := newTxnCoordinator()
	g, c := offsetsRig(t, co)
	offsets := TopicPartition{group.Topic, coord.PartitionOf("g", 50)}
	code := func(req *kmsg.TxnOffsetCommitRequest) int16 {
		t.Helper()
		return ask[*kmsg.TxnOffsetCommitResponse](c, req).Topics[0].Partitions[0].ErrorCode
	}
	fetched := func(stable bool) (int64, int16) {
		req := at(8, kmsg.NewPtrOffsetFetchRequest())
		req.RequireStable = stable
		req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "events", Partitions: []int32{0}}}}}
		p := ask[*kmsg.OffsetFetchResponse](c, req).Groups[0].Topics[0].Partitions[0]
		return p.Offset, p.ErrorCode
	}
	if codes := g.writeMarkers(marker(99, 1, 0, false, 2, offsets)); !slices.Equal(codes, []int16{none}) {
		t.Fatal(codes)
	}
	for v, want := range map[int16]*kerr.Error{0: kerr.InvalidTxnState, 3: kerr.InvalidTxnState, 4: kerr.TransactionAbortable} {
		if got := code(sendOffsets(v, "app", 7, 0, 5)); got != want.Code {
			t.Errorf("version %d, not part of the transaction: %d", v, got)
		}
	}
	co.add("app", offsets.Topic, offsets.Partition)
	asked := co.numAsked()
	for i := range int64(2) {
		if got := code(sendOffsets(3, "app", 7, 0, 5+i)); got != none {
			t.Errorf("part of the transaction: %d", got)
		}
	}
	if co.numAsked() != asked+1 {
		t.Error("the coordinator was asked again about an open transaction")
	}
	if at, _ := fetched(false); at != -1 {
		t.Errorf("an open transaction has committed %d", at)
	}
	if _, code := fetched(true); code != kerr.UnstableOffsetCommit.Code {
		t.Errorf("an open transaction is stable: %d", code)
	}
	if codes := g.writeMarkers(marker(7, 0, 0, true, 0, co.takeEnd("app")...)); !slices.Equal(codes, []int16{none}) {
		t.Fatal(codes)
	}
	if at, code := fetched(true); at != 6 || code != none {
		t.Errorf("committed: %d, code %d", at, code)
	}
	if got := code(sendOffsets(5, "app", 7, 1, 9)); got != none {
		t.Errorf("version 5: %d", got)
	}
	list := co.takeEnd("app")
	if !slices.Equal(list, []TopicPartition{offsets}) {
		t.Errorf("version 5 has added %v", list)
	}
	// A marker of the transaction before that comes late ends nothing.
	if codes := g.writeMarkers(marker(7, 1, 0, true, 2, list...)); !slices.Equal(codes, []int16{kerr.InvalidProducerEpoch.Code}) {
		t.Errorf("a late marker: %v", codes)
	}
	if codes := g.writeMarkers(marker(7, 2, 0, false, 2, list...)); !slices.Equal(codes, []int16{none}) {
		t.Fatal(codes)
	}
	if at, _ := fetched(true); at != 6 {
		t.Errorf("after an abort: %d", at)
	}
	if got := code(sendOffsets(5, "app", 7, 1, 10)); got != kerr.InvalidProducerEpoch.Code {
		t.Errorf("an old epoch: %d", got)
	}
	bad := sendOffsets(5, "app", 7, 2, 11)
	more := bad.Topics[0].Partitions[0]
	more.Partition = 9
	bad.Topics[0].Partitions = append(bad.Topics[0].Partitions, more)
	bad.Topics = append(bad.Topics, kmsg.TxnOffsetCommitRequestTopic{Topic: "nowhere", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{more}})
	resp := ask[*kmsg.TxnOffsetCommitResponse](c, bad)
	var codes []int16
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			codes = append(codes, p.ErrorCode)
		}
	}
	if unknown := kerr.UnknownTopicOrPartition.Code; !slices.Equal(codes, []int16{none, unknown, unknown}) {
		t.Errorf("partitions that do not exist: %v", codes)
	}
	byID := at(6, sendOffsets(6, "app", 7, 2, 12))
	byID.Topics[0].Topic, byID.Topics[0].TopicID = "", g.image.Load().Topic("events").ID
	byID.Topics[0].Partitions = append(byID.Topics[0].Partitions, more)
	byID.Topics = append(byID.Topics, kmsg.TxnOffsetCommitRequestTopic{TopicID: [16]byte{0xee}, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{more}})
	resp = ask[*kmsg.TxnOffsetCommitResponse](c, byID)
	if n := len(resp.Topics); n != 2 || resp.Topics[0].TopicID != byID.Topics[0].TopicID || resp.Topics[1].TopicID != byID.Topics[1].TopicID ||
		resp.Topics[0].Partitions[0].ErrorCode != none || resp.Topics[0].Partitions[1].ErrorCode != kerr.UnknownTopicOrPartition.Code ||
		resp.Topics[1].Partitions[0].ErrorCode != kerr.UnknownTopicID.Code {
		t.Errorf("by topic id: %+v", resp.Topics)
	}
	for version, want := range map[int16]*kerr.Error{5: kerr.IllegalGeneration, 6: kerr.GroupIDNotFound} {
		req := sendOffsets(version, "app", 7, 2, 13)
		req.Group, req.Generation, req.MemberID = "not there", 3, "m"
		req.Topics[0].TopicID = g.image.Load().Topic("events").ID
		co.add("app", group.Topic, coord.PartitionOf(req.Group, 50))
		eventually(t, "the coordinator has loaded", func() bool { return code(req) == want.Code })
	}
	for _, answer := range []struct {
		from    *kerr.Error
		version int16
		want    *kerr.Error
	}{
		{kerr.ProducerFenced, 5, kerr.InvalidProducerEpoch},
		{kerr.NetworkException, 5, kerr.CoordinatorLoadInProgress},
		{kerr.NetworkException, 1, kerr.CoordinatorNotAvailable},
		{kerr.ConcurrentTransactions, 5, kerr.ConcurrentTransactions},
	} {
		co.setAnswer(answer.from.Code)
		if got := code(sendOffsets(answer.version, "new", 8, 0, 5)); got != answer.want.Code {
			t.Errorf("%s, version %d: %d", answer.from.Message, answer.version, got)
		}
	}
}
