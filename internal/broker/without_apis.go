package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/wire"
)

// withoutAPIs are those of features that a node serves without having any of them:
// security, quotas, moves of replicas and transactions. Tools ask for them on every
// cluster, and Kafka answers them on every cluster.
func withoutAPIs(b *Broker) []api {
	if b.cfg.Controller == nil {
		return nil
	}
	return []api{
		{key: 17, name: "SaslHandshake", min: 0, max: 1, serve: b.saslHandshake},
		{key: 24, name: "AddPartitionsToTxn", min: 0, max: 5, serve: b.addPartitionsToTxn},
		{key: 25, name: "AddOffsetsToTxn", min: 0, max: 4, serve: b.addOffsetsToTxn},
		{key: 26, name: "EndTxn", min: 0, max: 5, serve: b.endTxn},
		{key: 28, name: "TxnOffsetCommit", min: 0, max: 5, serve: b.txnOffsetCommit},
		{key: 29, name: "DescribeAcls", min: 1, max: 3, serve: b.describeACLs},
		{key: 30, name: "CreateAcls", min: 1, max: 3, serve: b.createACLs},
		{key: 31, name: "DeleteAcls", min: 1, max: 3, serve: b.deleteACLs},
		{key: 34, name: "AlterReplicaLogDirs", min: 1, max: 2, serve: b.alterReplicaLogDirs},
		{key: 36, name: "SaslAuthenticate", min: 0, max: 2, serve: b.saslAuthenticate},
		{key: 38, name: "CreateDelegationToken", min: 1, max: 3, serve: b.createDelegationToken},
		{key: 39, name: "RenewDelegationToken", min: 1, max: 2, serve: b.renewDelegationToken},
		{key: 40, name: "ExpireDelegationToken", min: 1, max: 2, serve: b.expireDelegationToken},
		{key: 41, name: "DescribeDelegationToken", min: 1, max: 3, serve: b.describeDelegationToken},
		{key: 43, name: "ElectLeaders", min: 0, max: 2, serve: b.electLeaders},
		{key: 45, name: "AlterPartitionReassignments", min: 0, max: 1, serve: b.alterPartitionReassignments},
		{key: 46, name: "ListPartitionReassignments", min: 0, max: 0, serve: b.listPartitionReassignments},
		{key: 48, name: "DescribeClientQuotas", min: 0, max: 1, serve: b.describeClientQuotas},
		{key: 49, name: "AlterClientQuotas", min: 0, max: 1, serve: b.alterClientQuotas},
		{key: 50, name: "DescribeUserScramCredentials", min: 0, max: 0, serve: b.describeUserScramCredentials},
		{key: 51, name: "AlterUserScramCredentials", min: 0, max: 0, serve: b.alterUserScramCredentials},
		{key: 57, name: "UpdateFeatures", min: 0, max: 2, serve: b.updateFeatures},
		{key: 64, name: "UnregisterBroker", min: 0, max: 0, serve: b.unregisterBroker},
		{key: 65, name: "DescribeTransactions", min: 0, max: 0, serve: b.describeTransactions},
		{key: 66, name: "ListTransactions", min: 0, max: 2, serve: b.listTransactions},
	}
}

// elementMemoryEach is about what an element of an answer takes, as a structure and as
// bytes, without its text; text counts textMemory times: in the structure and in a buffer
// that grows.
const (
	elementMemoryEach = 192
	textMemory        = 4
)

// answerSize is about how much memory an answer takes that has an element for each of
// what the request names.
type answerSize int64

// add counts elements that have so many bytes of text in all.
func (a *answerSize) add(elements, text int) {
	*a += answerSize(elementMemoryEach*int64(elements) + textMemory*int64(text))
}

// addPartitions counts a topic and its partitions, each of which may get a message that
// names the topic.
func (a *answerSize) addPartitions(topic string, partitions int) {
	const messageText = 96
	a.add(1, len(topic))
	*a += answerSize(int64(partitions) * (elementMemoryEach + textMemory*int64(len(topic)+messageText)))
}

// addCodes counts a topic and its partitions, each of which gets a code only.
func (a *answerSize) addCodes(topic string, partitions int) {
	const codeMemory = 64
	a.add(1, len(topic))
	*a += answerSize(codeMemory * int64(partitions))
}

// replySized reserves the memory of an answer, builds it when it has a processor, and
// sends it. An answer that never fits costs the connection, like a body that never does.
func (b *Broker) replySized(r *wire.Request, size answerSize, build func() kmsg.Response) error {
	held, err := b.cfg.Work.Reserve(b.cfg.Context(), budget.Data, int64(size))
	if err != nil {
		return err
	}
	defer held.Release()
	b.replyHeld(r, b.buildInTurn(build), &held)
	return nil
}

func (b *Broker) buildInTurn(build func() kmsg.Response) kmsg.Response {
	b.cfg.Work.Enter(budget.Command)
	defer b.cfg.Work.Leave()
	return build()
}
