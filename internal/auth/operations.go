package auth

import (
	"slices"

	"github.com/leatstream/leat/internal/meta"
)

// operationsOn are the operations that some request needs on a type of resources. Kafka's tools have the same, without deleting on the cluster, which its broker
// asks for as ours does (DeleteTopics).
var operationsOn = map[meta.ResourceType][]meta.Operation{
	meta.TopicResource:           {meta.Read, meta.Write, meta.Create, meta.DeleteOperation, meta.Alter, meta.Describe, meta.DescribeConfigs, meta.AlterConfigs},
	meta.GroupResource:           {meta.Read, meta.DeleteOperation, meta.Describe, meta.DescribeConfigs, meta.AlterConfigs},
	meta.ClusterResource:         {meta.Create, meta.DeleteOperation, meta.Alter, meta.Describe, meta.ClusterAction, meta.DescribeConfigs, meta.AlterConfigs, meta.IdempotentWrite},
	meta.TransactionalIDResource: {meta.Write, meta.Describe, meta.TwoPhaseCommit},
	meta.DelegationTokenResource: {meta.Describe},
	meta.UserResource:            {meta.CreateTokens, meta.DescribeTokens},
}

// OperationsOn returns the operations that can count on a type of resources, beside meta.AllOperations.
func OperationsOn(t meta.ResourceType) []meta.Operation { return slices.Clone(operationsOn[t]) }
