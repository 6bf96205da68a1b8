package missing

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// AddPartitionsToTxn, key 24, versions 0 to 5. AddOffsetsToTxn, key 25, versions 0 to 4.
// EndTxn, key 26, versions 0 to 5. TxnOffsetCommit, key 28, versions 0 to 5.
//
// There are no transactions yet. Since InitProducerId refuses transactional ids, each one
// in these requests is unknown, for which the code is INVALID_PRODUCER_ID_MAPPING, as in
// Kafka. Nothing is written.
//
// From version 4 on, AddPartitionsToTxn is for brokers, and has many transactions (KIP-890).

// countPartitions is the number of a topic's partitions, or 0 if there is no such topic.
func countPartitions(m *meta.Image, topic string) int {
	if t := m.Topic(topic); t != nil {
		return len(t.Partitions)
	}
	return 0
}

// codesOf are the codes for a topic's partitions: UNKNOWN_TOPIC_OR_PARTITION for those that
// do not exist, and known for the others.
func codesOf(m *meta.Image, topic string, partitions []int32, known int16, pass func()) []kmsg.AddPartitionsToTxnResponseTopicPartition {
	n := countPartitions(m, topic)
	list := make([]kmsg.AddPartitionsToTxnResponseTopicPartition, len(partitions))
	for i, p := range partitions {
		pass()
		if list[i].Partition, list[i].ErrorCode = p, known; p < 0 || int(p) >= n {
			list[i].ErrorCode = kerr.UnknownTopicOrPartition.Code
		}
	}
	return list
}

// codeOfExisting is the code for the partitions that exist: OPERATION_NOT_ATTEMPTED if the
// request also names one that does not exist, else that of the unknown transactional id.
func codeOfExisting(m *meta.Image, topics []kmsg.AddPartitionsToTxnRequestTopic) int16 {
	for i := range topics {
		n := countPartitions(m, topics[i].Topic)
		if slices.ContainsFunc(topics[i].Partitions, func(p int32) bool { return p < 0 || int(p) >= n }) {
			return kerr.OperationNotAttempted.Code
		}
	}
	return kerr.InvalidProducerIDMapping.Code
}

func addPartitionsToTxn(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.AddPartitionsToTxnRequest)
	var size Memory
	for i := range req.Topics {
		size.addCodes(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	for i := range req.Transactions {
		x := &req.Transactions[i]
		size.Add(1, len(x.TransactionalID))
		for j := range x.Topics {
			size.addCodes(x.Topics[j].Topic, len(x.Topics[j].Partitions))
		}
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		m := n.Image
		resp := kmsg.NewPtrAddPartitionsToTxnResponse()
		code := codeOfExisting(m, req.Topics)
		for i := range req.Topics {
			pass()
			t := &req.Topics[i]
			resp.Topics = append(resp.Topics, kmsg.AddPartitionsToTxnResponseTopic{Topic: t.Topic, Partitions: codesOf(m, t.Topic, t.Partitions, code, pass)})
		}
		for i := range req.Transactions {
			pass()
			resp.Transactions = append(resp.Transactions, answerTransaction(m, &req.Transactions[i], pass))
		}
		return resp
	}}
}

func answerTransaction(m *meta.Image, x *kmsg.AddPartitionsToTxnRequestTransaction, pass func()) kmsg.AddPartitionsToTxnResponseTransaction {
	topics := make([]kmsg.AddPartitionsToTxnRequestTopic, len(x.Topics))
	for i := range x.Topics {
		topics[i].Topic, topics[i].Partitions = x.Topics[i].Topic, x.Topics[i].Partitions
	}
	code := codeOfExisting(m, topics)
	rx := kmsg.AddPartitionsToTxnResponseTransaction{TransactionalID: x.TransactionalID}
	for i := range topics {
		rt := kmsg.AddPartitionsToTxnResponseTransactionTopic{Topic: topics[i].Topic}
		for _, p := range codesOf(m, topics[i].Topic, topics[i].Partitions, code, pass) {
			rt.Partitions = append(rt.Partitions, kmsg.AddPartitionsToTxnResponseTransactionTopicPartition(p))
		}
		rx.Topics = append(rx.Topics, rt)
	}
	return rx
}

func addOffsetsToTxn(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrAddOffsetsToTxnResponse()
	resp.ErrorCode = kerr.InvalidProducerIDMapping.Code
	return fixedAnswer(resp)
}

func endTxn(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrEndTxnResponse()
	resp.ErrorCode = kerr.InvalidProducerIDMapping.Code
	return fixedAnswer(resp)
}

func txnOffsetCommit(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.TxnOffsetCommitRequest)
	var size Memory
	for i := range req.Topics {
		size.addCodes(req.Topics[i].Topic, len(req.Topics[i].Partitions))
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		m := n.Image
		resp := kmsg.NewPtrTxnOffsetCommitResponse()
		for i := range req.Topics {
			pass()
			t := &req.Topics[i]
			n := countPartitions(m, t.Topic)
			rt := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic, Partitions: make([]kmsg.TxnOffsetCommitResponseTopicPartition, len(t.Partitions))}
			for j := range t.Partitions {
				pass()
				rp, p := &rt.Partitions[j], t.Partitions[j].Partition
				if rp.Partition, rp.ErrorCode = p, kerr.InvalidProducerIDMapping.Code; p < 0 || int(p) >= n {
					rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
				}
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}}
}
