package capped

import (
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// removed is the highest version of an API that a broker does not have.
const removed int16 = -1

// Versions has the highest version of APIs by their keys. An API that is not in it is not capped; one of version -1 does not exist.
type Versions map[int16]int16

// Kafka returns the versions that a release of Apache Kafka has, of all APIs.
func Kafka(release *kversion.Versions) Versions {
	v := Versions{}
	for key := range int16(kmsg.MaxKey + 1) {
		highest, ok := release.LookupMaxKeyVersion(key)
		if !ok {
			highest = removed
		}
		v[key] = highest
	}
	return v
}

// Redpanda returns the versions that Redpanda 24.3 has, of all APIs: src/v/kafka/server/handlers of its repository. So it cannot compare the epoch of the last record that was read, and has no ids of topics.
func Redpanda() Versions {
	v := Versions{}
	for key := range int16(kmsg.MaxKey + 1) {
		v[key] = removed
	}
	for key, highest := range map[kmsg.Key]int16{
		kmsg.Produce: 7, kmsg.Fetch: 11, kmsg.ListOffsets: 4, kmsg.Metadata: 8, kmsg.OffsetCommit: 8, kmsg.OffsetFetch: 7, kmsg.FindCoordinator: 3, kmsg.JoinGroup: 6,
		kmsg.Heartbeat: 4, kmsg.LeaveGroup: 4, kmsg.SyncGroup: 4, kmsg.DescribeGroups: 5, kmsg.ListGroups: 4, kmsg.SASLHandshake: 1, kmsg.ApiVersions: 3,
		kmsg.CreateTopics: 6, kmsg.DeleteTopics: 5, kmsg.DeleteRecords: 2, kmsg.InitProducerID: 3, kmsg.OffsetForLeaderEpoch: 4, kmsg.AddPartitionsToTxn: 3,
		kmsg.AddOffsetsToTxn: 1, kmsg.EndTxn: 3, kmsg.TxnOffsetCommit: 3, kmsg.DescribeACLs: 2, kmsg.CreateACLs: 2, kmsg.DeleteACLs: 2, kmsg.DescribeConfigs: 4,
		kmsg.AlterConfigs: 2, kmsg.DescribeLogDirs: 2, kmsg.SASLAuthenticate: 2, kmsg.CreatePartitions: 3, kmsg.DeleteGroups: 2, kmsg.IncrementalAlterConfigs: 1,
		kmsg.AlterPartitionAssignments: 0, kmsg.ListPartitionReassignments: 0, kmsg.OffsetDelete: 0, kmsg.DescribeClientQuotas: 1, kmsg.AlterClientQuotas: 1,
		kmsg.DescribeProducers: 0, kmsg.DescribeTransactions: 0, kmsg.ListTransactions: 0,
	} {
		v[key.Int16()] = highest
	}
	return v
}

// highest is the highest version of an API that clients may use, of those up to one that the broker has.
func (v Versions) highest(key, broker int16) int16 {
	if limit, ok := v[key]; ok && limit < broker {
		broker = limit
	}
	if answer := rewritten(key); answer != nil && answer.MaxVersion() < broker { // a later one could not be read here
		broker = answer.MaxVersion()
	}
	return broker
}
