package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// txnSteps are the requests that TestTransactionAnswersAreKafkas plays: the flows of transactions of the first and of the second
// version, with the requests of tools in between, and then what is refused.
func txnSteps(tb testing.TB) []txnStep {
	tb.Helper()
	var s []txnStep
	for v := range int16(6) {
		s = append(s, formerFlow(tb, v)...)
	}
	s = append(s, newerFlow(tb)...)
	s = append(s, refusedInits()...)
	s = append(s, refusedAdditions()...)
	s = append(s, refusedOffsets()...)
	s = append(s, refusedWrites(tb)...)
	s = append(s, refusedEnds()...)
	s = append(s, askedByLeaders()...)
	s = append(s, writtenMarkers(tb)...)
	return append(s, lists()...)
}

// fixed is a step that depends on no other.
func fixed(name string, req kmsg.Request) txnStep {
	return txnStep{name, func(*txnTalk) kmsg.Request { return req }}
}

func initTxn(version int16, id string) txnStep {
	return fixed("init", at(version, initProducer(version, &id, -1, -1), func(r *kmsg.InitProducerIDRequest) { r.TransactionTimeoutMillis = 60_000 }))
}

// initAgain has a producer ask for a new epoch: it names its own epoch, or one that differs by so much.
func initAgain(name string, version int16, id string, off int16) txnStep {
	return txnStep{name, func(k *txnTalk) kmsg.Request {
		p := k.producers[id]
		req := initProducer(version, &id, p.id, p.epoch+off)
		req.TransactionTimeoutMillis = 60_000
		return req
	}}
}

type topicParts = kmsg.AddPartitionsToTxnRequestTopic

// addParts adds partitions to the transaction of a producer, whose epoch differs by so much.
func addParts(name string, version int16, id string, off int16, topics ...topicParts) txnStep {
	return txnStep{name, func(k *txnTalk) kmsg.Request {
		p := k.producers[id]
		req := at(version, kmsg.NewPtrAddPartitionsToTxnRequest())
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Topics = id, p.id, p.epoch+off, topics
		return req
	}}
}

func addOffsets(name string, version int16, id string, off int16, group string) txnStep {
	return txnStep{name, func(k *txnTalk) kmsg.Request {
		p := k.producers[id]
		return at(version, &kmsg.AddOffsetsToTxnRequest{TransactionalID: id, ProducerID: p.id, ProducerEpoch: p.epoch + off, Group: group})
	}}
}

// commitOffset commits an offset of the topic "from" in a transaction, for a group without members.
func commitOffset(name string, version int16, id string, off int16, group string, change ...func(*kmsg.TxnOffsetCommitRequest)) txnStep {
	return txnStep{name, func(k *txnTalk) kmsg.Request {
		p := k.producers[id]
		req := at(version, kmsg.NewPtrTxnOffsetCommitRequest())
		req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = id, group, p.id, p.epoch+off
		req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "from", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1, Metadata: new("m")}}}}
		for _, f := range change {
			f(req)
		}
		return req
	}}
}

func endTxn(name string, version int16, id string, off int16, commit bool) txnStep {
	return txnStep{name, func(k *txnTalk) kmsg.Request {
		p := k.producers[id]
		return at(version, &kmsg.EndTxnRequest{TransactionalID: id, ProducerID: p.id, ProducerEpoch: p.epoch + off, Commit: commit})
	}}
}

// writeTxn writes a record into a partition of the topic "to".
//
//nolint:revive // an argument for each field of the request
func writeTxn(tb testing.TB, name string, version int16, id string, off int16, partition, seq int32) txnStep {
	tb.Helper()
	return txnStep{name, func(k *txnTalk) kmsg.Request {
		p := k.producers[id]
		return putTxn(version, id, "to", partition, txnBatch(tb, p.id, p.epoch+off, seq, "v"))
	}}
}

func describeTxns(name string, ids ...string) txnStep {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = ids
	return fixed(name, req)
}

func describeProducersOf(name, topic string, partitions ...int32) txnStep {
	req := kmsg.NewPtrDescribeProducersRequest()
	req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: partitions}}
	return fixed(name, req)
}

// readTxns reads a partition from an offset as a consumer of committed records, or of all.
func readTxns(name, topic string, partition int32, offset int64, committed bool) txnStep {
	req := get(topic, partition, offset)
	if committed {
		req.IsolationLevel = 1
	}
	return fixed(name, req)
}

func committedEnd(topic string, partition int32) txnStep {
	req := listOffset(topic, 7, partition, -1, -1)
	req.IsolationLevel = 1
	return fixed("the end of what is committed", req)
}

// offsetsOf asks for the committed offset of the topic "from".
func offsetsOf(group string, stable bool) txnStep {
	req := at(8, kmsg.NewPtrOffsetFetchRequest())
	req.RequireStable = stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.Topics = group, []kmsg.OffsetFetchRequestGroupTopic{{Topic: "from", Partitions: []int32{0}}}
	req.Groups = append(req.Groups, g)
	return fixed(fmt.Sprintf("offsets, stable %v", stable), req)
}

// formerFlow is a transaction as clients before Kafka 4 make it, by a version of each request, and its end twice.
func formerFlow(tb testing.TB, v int16) []txnStep {
	tb.Helper()
	id, group, commit := fmt.Sprintf("former-%d", v), fmt.Sprintf("former-group-%d", v), v%2 == 0
	both := topicParts{Topic: "to", Partitions: []int32{0, 1}}
	end := min(v, 4)
	return []txnStep{
		initTxn(v, id),
		describeTxns("before", id),
		endTxn("end without a transaction", end, id, 0, commit),
		addParts("add partitions", min(v, 3), id, 0, both),
		addParts("add partitions again", min(v, 3), id, 0, both),
		writeTxn(tb, "write", 8+min(v, 3), id, 0, 0, 0),
		writeTxn(tb, "write more", 8+min(v, 3), id, 0, 0, 1),
		addOffsets("add offsets", min(v, 4), id, 0, group),
		commitOffset("commit offsets", min(v, 4), id, 0, group),
		describeTxns("meanwhile", id),
		describeProducersOf("meanwhile", "to", 0, 1),
		readTxns("meanwhile", "to", 0, int64(3*v), true),
		committedEnd("to", 0),
		offsetsOf(group, false), offsetsOf(group, true),
		endTxn("end", end, id, 0, commit),
		describeTxns("after", id),
		endTxn("end again", end, id, 0, commit),
		endTxn("end otherwise", end, id, 0, !commit),
		describeProducersOf("after", "to", 0, 1),
		readTxns("after", "to", 0, int64(3*v), true), readTxns("all after", "to", 1, int64(v), false),
		committedEnd("to", 0),
		offsetsOf(group, true),
	}
}

// newerFlow are transactions by the second version (KIP-890): leaders and the groups' coordinators add partitions, and the epoch
// rises with each transaction.
func newerFlow(tb testing.TB) []txnStep {
	tb.Helper()
	id := "newer"
	var s []txnStep
	for i, commit := range []bool{true, false} {
		group := fmt.Sprintf("newer-group-%d", i)
		s = append(s,
			initTxn(5, id),
			writeTxn(tb, "write", 12, id, 0, 1, 0),
			commitOffset("commit offsets", 5, id, 0, group),
			describeTxns("meanwhile", id), describeProducersOf("meanwhile", "to", 1), offsetsOf(group, true),
			endTxn("end", 5, id, 0, commit),
			describeTxns("after", id),
			endTxn("end again", 5, id, -1, commit), endTxn("end otherwise", 5, id, -1, !commit),
			writeTxn(tb, "write with the epoch before", 12, id, -1, 1, 1),
			describeProducersOf("after", "to", 1), offsetsOf(group, true), committedEnd("to", 1),
			endTxn("end without a transaction", 5, id, 0, commit), endTxn("end without a transaction again", 5, id, 0, false),
			describeTxns("after nothing", id),
		)
	}
	return append(s, readTxns("after", "to", 1, 6, true))
}

func refusedInits() []txnStep {
	var s []txnStep
	for v := range int16(6) {
		for _, timeout := range []int32{0, -1, 900_001} {
			s = append(s, fixed(fmt.Sprintf("init with time-out %d", timeout), at(v, initProducer(v, new("refused"), -1, -1), func(r *kmsg.InitProducerIDRequest) { r.TransactionTimeoutMillis = timeout })))
		}
		s = append(s, fixed("init without an id", at(v, initProducer(v, new(""), -1, -1))))
	}
	for v := int16(3); v < 6; v++ {
		id := fmt.Sprintf("again-%d", v)
		s = append(s,
			fixed("init with an id only", initProducer(v, &id, 5, -1)), fixed("init with an epoch only", initProducer(v, &id, -1, 5)),
			fixed("init of an unknown one with an epoch", initProducer(v, &id, 5, 5)),
			initTxn(v, id),
			fixed("init with another's id", initProducer(v, &id, 1<<40, 0)),
			initAgain("init again", v, id, 0), initAgain("init again, the answer was lost", v, id, -1),
			initAgain("init of the future", v, id, 1), initAgain("init of the past", v, id, -2),
			addParts("add partitions", 3, id, 0, topicParts{Topic: "to", Partitions: []int32{0}}),
			initAgain("init in a transaction", v, id, 0), describeTxns("after", id),
			initTxn(v, id), initAgain("init of the one before", v, id, -1), describeTxns("after", id),
		)
	}
	return s
}

func refusedAdditions() []txnStep {
	var s []txnStep
	for v := range int16(4) {
		id := fmt.Sprintf("add-%d", v)
		one := topicParts{Topic: "to", Partitions: []int32{0}}
		s = append(s,
			addParts("add for an unknown one", v, id, 0, one), addOffsets("add offsets for an unknown one", v, id, 0, "g"),
			initTxn(v, id),
			addParts("add with a higher epoch", v, id, 1, one), addOffsets("add offsets with a higher epoch", v, id, 1, "g"),
			addParts("add what is not there", v, id, 0, topicParts{Topic: "to", Partitions: []int32{0, 7, -1}}, topicParts{Topic: "nowhere", Partitions: []int32{0}}),
			addParts("add nothing", v, id, 0), addParts("add no partitions", v, id, 0, topicParts{Topic: "to"}),
			describeTxns("after", id),
			addParts("add twice in a request", v, id, 0, one, one), addOffsets("add offsets of no group", v, id, 0, ""), addOffsets("add offsets", v, id, 0, "g"),
			addOffsets("add offsets again", v, id, 0, "g"),
			describeTxns("after", id),
			endTxn("end", v, id, 0, false), describeTxns("at the end", id),
			initTxn(v, id),
			addParts("add with the epoch before", v, id, -1, one), addOffsets("add offsets with the epoch before", v, id, -1, "g"),
		)
	}
	return append(s, addOffsets("add offsets for an unknown one", 4, "add-4", 0, "g"), initTxn(5, "add-4"), addOffsets("add offsets with a higher epoch", 4, "add-4", 1, "g"))
}

func refusedOffsets() []txnStep {
	var s []txnStep
	for v := range int16(6) {
		id := fmt.Sprintf("offsets-%d", v)
		s = append(s, commitOffset("commit offsets for an unknown one", v, id, 0, "g"), initTxn(min(v, 5), id))
		if v < 5 {
			s = append(s, commitOffset("commit offsets without adding them", v, id, 0, "g"))
		}
		s = append(s,
			addOffsets("add offsets", min(v, 4), id, 0, id+"-group"),
			commitOffset("commit offsets with a higher epoch", v, id, 1, id+"-group"),
			commitOffset("commit offsets of what is not there", v, id, 0, id+"-group", func(r *kmsg.TxnOffsetCommitRequest) {
				r.Topics[0].Partitions = append(r.Topics[0].Partitions, kmsg.TxnOffsetCommitRequestTopicPartition{Partition: 9, Offset: 3, LeaderEpoch: -1})
				r.Topics = append(r.Topics, kmsg.TxnOffsetCommitRequestTopic{Topic: "nowhere", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}})
			}),
			commitOffset("commit no offsets", v, id, 0, id+"-group", func(r *kmsg.TxnOffsetCommitRequest) { r.Topics = nil }),
			commitOffset("commit offsets with much metadata", v, id, 0, id+"-group", func(r *kmsg.TxnOffsetCommitRequest) {
				r.Topics[0].Partitions[0].Metadata = new(string(make([]byte, 5000)))
			}),
		)
		if v >= 3 {
			s = append(s,
				commitOffset("commit offsets of a member that nobody knows", v, id, 0, id+"-group", func(r *kmsg.TxnOffsetCommitRequest) { r.MemberID, r.Generation = "nobody", 1 }),
				commitOffset("commit offsets of a generation without a member", v, id, 0, id+"-group", func(r *kmsg.TxnOffsetCommitRequest) { r.Generation = 1 }),
				commitOffset("commit offsets of a member with a name", v, id, 0, id+"-group", func(r *kmsg.TxnOffsetCommitRequest) {
					r.MemberID, r.Generation, r.InstanceID = "nobody", 1, new("somebody")
				}))
		}
		s = append(s, offsetsOf(id+"-group", false), endTxn("end", min(v, 5), id, 0, true), describeTxns("after", id), offsetsOf(id+"-group", false))
	}
	return s
}

func refusedWrites(tb testing.TB) []txnStep {
	tb.Helper()
	id := "writes"
	var s []txnStep
	for _, v := range []int16{7, 11, 12} {
		s = append(s,
			initTxn(5, id),
			txnStep{"write without the transactional id", func(k *txnTalk) kmsg.Request {
				return at(v, put("to", 0, -1, txnBatch(tb, k.producers[id].id, k.producers[id].epoch, 0, "v")))
			}},
			writeTxn(tb, "write with a higher epoch", v, id, 1, 0, 0))
		if v < 12 {
			s = append(s, writeTxn(tb, "write without adding the partition", v, id, 0, 0, 0), addParts("add", 3, id, 0, topicParts{Topic: "to", Partitions: []int32{0}}))
		}
		s = append(s,
			writeTxn(tb, "write a sequence in the middle", v, id, 0, 0, 5),
			writeTxn(tb, "write", v, id, 0, 0, 0),
			writeTxn(tb, "write with a gap", v, id, 0, 0, 7),
			writeTxn(tb, "write again", v, id, 0, 0, 0),
			txnStep{"write no transaction's records with its producer", func(k *txnTalk) kmsg.Request {
				return at(v, put("to", 0, -1, producerBatch(tb, false, k.producers[id].id, k.producers[id].epoch, 1, "v")))
			}},
			writeTxn(tb, "write with the epoch before", v, id, -1, 0, 1),
			endTxn("end", 5, id, 0, false), describeTxns("after", id),
		)
	}
	return append(s, committedEnd("to", 0))
}

func refusedEnds() []txnStep {
	var s []txnStep
	for v := range int16(6) {
		id := fmt.Sprintf("ends-%d", v)
		s = append(s,
			endTxn("end of an unknown one", v, id, 0, true),
			initTxn(min(v, 5), id),
			addParts("add", 3, id, 0, topicParts{Topic: "to", Partitions: []int32{0}}),
			endTxn("end with a higher epoch", v, id, 1, true), endTxn("end with the epoch before", v, id, -1, true),
			txnStep{"end with another's id", func(*txnTalk) kmsg.Request {
				return at(v, &kmsg.EndTxnRequest{TransactionalID: id, ProducerID: 1 << 40, ProducerEpoch: 0})
			}},
			fixed("end without a transactional id", at(v, &kmsg.EndTxnRequest{ProducerID: 5})),
			endTxn("end", v, id, 0, true), describeTxns("after", id),
		)
	}
	return s
}

// askedByLeaders are the requests by which leaders and the groups' coordinators ask for transactions, many at once.
func askedByLeaders() []txnStep {
	type one = kmsg.AddPartitionsToTxnRequestTransaction
	named := func(parts ...int32) []kmsg.AddPartitionsToTxnRequestTransactionTopic {
		return []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "to", Partitions: parts}}
	}
	ask := func(name string, v int16, list func(k *txnTalk) []one) txnStep {
		return txnStep{name, func(k *txnTalk) kmsg.Request {
			return at(v, kmsg.NewPtrAddPartitionsToTxnRequest(), func(r *kmsg.AddPartitionsToTxnRequest) { r.Transactions = list(k) })
		}}
	}
	var s []txnStep
	for v := int16(4); v < 6; v++ {
		id, other := fmt.Sprintf("asked-%d", v), fmt.Sprintf("other-%d", v)
		of := func(k *txnTalk, id string, off int16, verify bool, parts ...int32) one {
			return one{TransactionalID: id, ProducerID: k.producers[id].id, ProducerEpoch: k.producers[id].epoch + off, VerifyOnly: verify, Topics: named(parts...)}
		}
		s = append(s,
			initTxn(v, id), initTxn(v, other),
			ask("verify without a transaction", v, func(k *txnTalk) []one { return []one{of(k, id, 0, true, 0)} }),
			ask("add", v, func(k *txnTalk) []one { return []one{of(k, id, 0, false, 0)} }),
			ask("verify", v, func(k *txnTalk) []one { return []one{of(k, id, 0, true, 0, 1)} }),
			ask("many", v, func(k *txnTalk) []one {
				return []one{of(k, id, 0, true, 0), of(k, other, 0, false, 0, 1), {TransactionalID: "unknown", ProducerID: 5, Topics: named(0)}}
			}),
			ask("what is not there", v, func(k *txnTalk) []one { return []one{of(k, id, 0, false, 1, 9)} }),
			ask("verify with a higher epoch", v, func(k *txnTalk) []one { return []one{of(k, id, 1, true, 0)} }),
			ask("verify with the epoch before", v, func(k *txnTalk) []one { return []one{of(k, id, -1, true, 0)} }),
			ask("nobody", v, func(*txnTalk) []one { return nil }),
			describeTxns("after", id, other),
			endTxn("end", 4, id, 0, true), endTxn("end the other", 4, other, 0, false), describeTxns("at the end", id, other),
		)
	}
	return s
}

// writtenMarkers are markers that come from elsewhere than from the coordinator on this node.
func writtenMarkers(tb testing.TB) []txnStep {
	tb.Helper()
	write := func(name string, version int16, id string, off int16, coordinator int32, txnVersion int8, parts ...int32) txnStep {
		return txnStep{name, func(k *txnTalk) kmsg.Request {
			p := k.producers[id]
			if id == "" {
				p = txnProducer{id: 1 << 41}
			}
			return at(version, kmsg.NewPtrWriteTxnMarkersRequest(), func(r *kmsg.WriteTxnMarkersRequest) {
				r.Markers = []kmsg.WriteTxnMarkersRequestMarker{{
					ProducerID: p.id, ProducerEpoch: p.epoch + off, CoordinatorEpoch: coordinator, TransactionVersion: txnVersion,
					Topics: []kmsg.WriteTxnMarkersRequestMarkerTopic{{Topic: "to", Partitions: parts}},
				}}
			})
		}}
	}
	var s []txnStep
	for v := int16(1); v < 3; v++ {
		id := fmt.Sprintf("marked-%d", v)
		s = append(s,
			initTxn(4, id), addParts("add", 3, id, 0, topicParts{Topic: "to", Partitions: []int32{0}}), writeTxn(tb, "write", 11, id, 0, 0, 0),
			write("mark what is not there", v, id, 0, 0, 0, 9), write("mark for an older coordinator", v, id, 0, -2, 0, 0),
			write("mark with the epoch before", v, id, -1, 0, 0, 0),
			describeProducersOf("meanwhile", "to", 0),
			write("mark", v, id, 0, 0, 0, 0), write("mark again", v, id, 0, 0, 0, 0),
			describeProducersOf("after", "to", 0), committedEnd("to", 0),
			write("mark of a producer that nobody knows", v, "", 0, 0, 0, 1),
			endTxn("end", 4, id, 0, false), describeTxns("after", id), initTxn(4, id), describeTxns("after", id),
		)
	}
	s = append(s,
		initTxn(5, "marked"), writeTxn(tb, "write", 12, "marked", 0, 1, 0),
		write("mark with the same epoch by the second version", 2, "marked", 0, 0, 2, 1), write("mark by the second version", 2, "marked", 1, 0, 2, 1),
		describeProducersOf("after", "to", 1), committedEnd("to", 1),
		// The coordinator on this node could not end this transaction any more.
		write("mark for a later coordinator", 2, "marked", 1, 5, 2, 1), write("mark for a coordinator before", 2, "marked", 2, 4, 2, 1),
		describeProducersOf("after a later coordinator", "to", 1),
	)
	return s
}

// lists are the requests of tools that look for transactions.
func lists() []txnStep {
	list := func(name string, v int16, change func(k *txnTalk, r *kmsg.ListTransactionsRequest)) txnStep {
		return txnStep{name, func(k *txnTalk) kmsg.Request {
			return at(v, kmsg.NewPtrListTransactionsRequest(), func(r *kmsg.ListTransactionsRequest) { change(k, r) })
		}}
	}
	var s []txnStep
	for v := range int16(3) {
		s = append(s,
			list("all", v, func(*txnTalk, *kmsg.ListTransactionsRequest) {}),
			list("open", v, func(_ *txnTalk, r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"Ongoing"} }),
			list("in states", v, func(_ *txnTalk, r *kmsg.ListTransactionsRequest) {
				r.StateFilters = []string{"CompleteCommit", "Empty", "nonsense"}
			}),
			list("of a producer", v, func(k *txnTalk, r *kmsg.ListTransactionsRequest) {
				r.ProducerIDFilters = []int64{k.producers["newer"].id, 1 << 40}
			}),
			list("of a producer in a state", v, func(k *txnTalk, r *kmsg.ListTransactionsRequest) {
				r.ProducerIDFilters, r.StateFilters = []int64{k.producers["newer"].id}, []string{"Ongoing"}
			}),
		)
		if v > 0 {
			for _, ms := range []int64{-5, 0, 3_600_000} {
				s = append(s, list(fmt.Sprintf("open for %d ms", ms), v, func(_ *txnTalk, r *kmsg.ListTransactionsRequest) { r.DurationFilterMillis = ms }))
			}
		}
	}
	for _, pattern := range []string{"newer", "former-.", ".*-3", "[", "(?i)NEWER"} {
		s = append(s, list("matching "+pattern, 2, func(_ *txnTalk, r *kmsg.ListTransactionsRequest) { r.TransactionalIDPattern = &pattern }))
	}
	return append(s,
		describeTxns("unknown ones", "nobody", "", "newer", "nobody"),
		describeProducersOf("what is not there", "to", 9, -1), describeProducersOf("a topic that is not there", "nowhere", 0), describeProducersOf("no partitions", "to"),
	)
}
