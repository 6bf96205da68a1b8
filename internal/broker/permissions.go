package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// right is an operation on a kind of resource.
type right struct {
	op meta.Operation
	on meta.ResourceType
}

// permissions are what an API needs, as in Apache Kafka.
type permissions struct {
	// cluster is an operation on the cluster without which the whole request is refused, before it is looked at; 0: none.
	cluster meta.Operation
	// each are the permissions for what a request names. The API's handler asks for them.
	each []right
	// open tells that the API needs none of these.
	open bool
}

// apiPermissions are the permissions by API. With an authorizer an API that is not here is served to nobody.
// docs/security.md has the same table.
func apiPermissions() map[int16]permissions {
	topic := func(op meta.Operation) right { return right{op, meta.TopicResource} }
	group := func(op meta.Operation) right { return right{op, meta.GroupResource} }
	txn := func(op meta.Operation) right { return right{op, meta.TransactionalIDResource} }
	cluster := func(op meta.Operation) right { return right{op, meta.ClusterResource} }
	user := func(op meta.Operation) right { return right{op, meta.UserResource} }
	token := func(op meta.Operation) right { return right{op, meta.DelegationTokenResource} }
	each := func(all ...right) permissions { return permissions{each: all} }
	whole := func(op meta.Operation) permissions { return permissions{cluster: op} }
	return map[int16]permissions{
		0:  each(topic(meta.Write), txn(meta.Write)),                                                      // Produce
		1:  each(topic(meta.Read)),                                                                        // Fetch
		2:  each(topic(meta.Describe)),                                                                    // ListOffsets
		3:  each(topic(meta.Describe), topic(meta.Create), cluster(meta.Create), cluster(meta.Describe)),  // Metadata
		8:  each(group(meta.Read), topic(auth.CommitOffsets)),                                             // OffsetCommit
		9:  each(group(meta.Describe), topic(meta.Describe)),                                              // OffsetFetch
		10: each(group(meta.Describe), txn(meta.Describe)),                                                // FindCoordinator
		11: each(group(meta.Read)),                                                                        // JoinGroup
		12: each(group(meta.Read)),                                                                        // Heartbeat
		13: each(group(meta.Read)),                                                                        // LeaveGroup
		14: each(group(meta.Read)),                                                                        // SyncGroup
		15: each(group(meta.Describe)),                                                                    // DescribeGroups
		16: each(cluster(meta.Describe), group(meta.Describe)),                                            // ListGroups
		17: {open: true},                                                                                  // SaslHandshake
		18: {open: true},                                                                                  // ApiVersions
		19: each(cluster(meta.Create), topic(meta.Create), topic(meta.DescribeConfigs)),                   // CreateTopics
		20: each(cluster(meta.DeleteOperation), topic(meta.DeleteOperation), topic(meta.Describe)),        // DeleteTopics
		21: each(topic(meta.DeleteOperation)),                                                             // DeleteRecords
		22: each(txn(meta.Write), cluster(meta.IdempotentWrite), topic(meta.Write)),                       // InitProducerId
		23: each(cluster(meta.ClusterAction), topic(meta.Describe)),                                       // OffsetForLeaderEpoch
		24: each(cluster(meta.ClusterAction), txn(meta.Write), topic(meta.Write)),                         // AddPartitionsToTxn
		25: each(txn(meta.Write), group(meta.Read)),                                                       // AddOffsetsToTxn
		26: each(txn(meta.Write)),                                                                         // EndTxn
		27: each(cluster(meta.Alter), cluster(meta.ClusterAction)),                                        // WriteTxnMarkers
		28: each(txn(meta.Write), group(meta.Read), topic(meta.Read)),                                     // TxnOffsetCommit
		29: whole(meta.Describe),                                                                          // DescribeAcls
		30: whole(meta.Alter),                                                                             // CreateAcls
		31: whole(meta.Alter),                                                                             // DeleteAcls
		32: each(cluster(meta.DescribeConfigs), topic(meta.DescribeConfigs), group(meta.DescribeConfigs)), // DescribeConfigs
		33: each(cluster(meta.AlterConfigs), topic(meta.AlterConfigs), group(meta.AlterConfigs)),          // AlterConfigs
		34: whole(auth.Reassign),                                                                          // AlterReplicaLogDirs
		35: whole(meta.Describe),                                                                          // DescribeLogDirs
		36: {open: true},                                                                                  // SaslAuthenticate
		37: each(topic(meta.Alter)),                                                                       // CreatePartitions
		38: each(user(meta.CreateTokens)), 39: {open: true}, 40: {open: true},                             // delegation tokens of others
		41: each(token(meta.Describe), user(meta.DescribeTokens)),                                // DescribeDelegationToken: those of others
		42: each(group(meta.DeleteOperation)),                                                    // DeleteGroups
		43: whole(auth.Reassign),                                                                 // ElectLeaders
		44: each(cluster(meta.AlterConfigs), topic(meta.AlterConfigs), group(meta.AlterConfigs)), // IncrementalAlterConfigs
		45: whole(auth.Reassign),                                                                 // AlterPartitionReassignments
		46: whole(meta.Describe),                                                                 // ListPartitionReassignments
		47: each(group(meta.DeleteOperation), topic(meta.Read)),                                  // OffsetDelete
		48: whole(meta.DescribeConfigs),                                                          // DescribeClientQuotas
		49: whole(auth.AlterQuotas),                                                              // AlterClientQuotas
		50: whole(meta.Describe),                                                                 // DescribeUserScramCredentials
		51: whole(meta.Alter),                                                                    // AlterUserScramCredentials
		55: whole(meta.Describe),                                                                 // DescribeQuorum
		57: whole(meta.Alter),                                                                    // UpdateFeatures
		60: each(cluster(meta.Describe)),                                                         // DescribeCluster: only for the operations
		61: each(topic(auth.DescribeProducers)),                                                  // DescribeProducers
		64: whole(meta.Alter),                                                                    // UnregisterBroker
		65: each(txn(meta.Describe), topic(meta.Describe)),                                       // DescribeTransactions
		66: each(txn(meta.Describe)),                                                             // ListTransactions
		69: each(group(meta.Describe)),                                                           // ConsumerGroupDescribe
		74: whole(meta.DescribeConfigs),                                                          // ListConfigResources
		75: each(topic(meta.Describe)),                                                           // DescribeTopicPartitions
		77: each(group(meta.Describe)),                                                           // ShareGroupDescribe
		80: whole(meta.Alter),                                                                    // AddRaftVoter
		81: whole(meta.Alter),                                                                    // RemoveRaftVoter
		89: each(group(meta.Describe)),                                                           // StreamsGroupDescribe
	}
}

// mayServe tells whether a client may use an API at all. If not, the request is refused as a whole.
func (a *api) mayServe(by *access) bool {
	if by.watch != nil && guardsSecurity(a.key) {
		return by.watch.mayChangeSecurity(by.audit, a.needs.cluster)
	}
	return a.needs.cluster == 0 || by.mayCluster(a.needs.cluster)
}

// refuseOfCluster is the answer to a request that needs an operation on the cluster which the client may not do. It has
// the form that Kafka gives it, which says nothing about what the request names.
func refuseOfCluster(kreq kmsg.Request) kmsg.Response {
	e := kerr.ClusterAuthorizationFailed
	code, message := e.Code, &e.Description
	switch req := kreq.(type) {
	case *kmsg.AlterReplicaLogDirsRequest:
		return refuseLogDirs(req, code)
	case *kmsg.DescribeLogDirsRequest:
		return &kmsg.DescribeLogDirsResponse{ErrorCode: code}
	case *kmsg.ElectLeadersRequest:
		resp := &kmsg.ElectLeadersResponse{ErrorCode: code}
		for i := range req.Topics {
			rt := kmsg.ElectLeadersResponseTopic{Topic: req.Topics[i].Topic}
			for _, n := range req.Topics[i].Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.ElectLeadersResponseTopicPartition{Partition: n, ErrorCode: code, ErrorMessage: message})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	case *kmsg.AlterPartitionAssignmentsRequest:
		resp := &kmsg.AlterPartitionAssignmentsResponse{AllowReplicationFactorChange: true, ErrorCode: code, ErrorMessage: message}
		for i := range req.Topics {
			rt := kmsg.AlterPartitionAssignmentsResponseTopic{Topic: req.Topics[i].Topic}
			for j := range req.Topics[i].Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.AlterPartitionAssignmentsResponseTopicPartition{
					Partition: req.Topics[i].Partitions[j].Partition, ErrorCode: code, ErrorMessage: message,
				})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	case *kmsg.ListPartitionReassignmentsRequest:
		return &kmsg.ListPartitionReassignmentsResponse{ErrorCode: code, ErrorMessage: message}
	case *kmsg.DescribeClientQuotasRequest:
		return &kmsg.DescribeClientQuotasResponse{ErrorCode: code}
	case *kmsg.AlterClientQuotasRequest:
		return refuseQuotas(req, e)
	case *kmsg.DescribeQuorumRequest:
		return &kmsg.DescribeQuorumResponse{ErrorCode: code, ErrorMessage: message}
	case *kmsg.UpdateFeaturesRequest:
		return &kmsg.UpdateFeaturesResponse{ErrorCode: code, ErrorMessage: message}
	case *kmsg.UnregisterBrokerRequest:
		return &kmsg.UnregisterBrokerResponse{ErrorCode: code, ErrorMessage: message}
	case *kmsg.ListConfigResourcesRequest:
		return &kmsg.ListConfigResourcesResponse{ErrorCode: code}
	case *kmsg.AddRaftVoterRequest:
		return &kmsg.AddRaftVoterResponse{ErrorCode: code, ErrorMessage: message}
	case *kmsg.RemoveRaftVoterRequest:
		return &kmsg.RemoveRaftVoterResponse{ErrorCode: code, ErrorMessage: message}
	}
	return refuseSecurity(kreq, code, message)
}

// refuseSecurity is refuseOfCluster for requests about users and ACLs.
func refuseSecurity(kreq kmsg.Request, code int16, message *string) kmsg.Response {
	switch req := kreq.(type) {
	case *kmsg.CreateACLsRequest:
		resp := kmsg.NewPtrCreateACLsResponse()
		resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
		for i := range resp.Results {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = code, message
		}
		return resp
	case *kmsg.DeleteACLsRequest:
		resp := kmsg.NewPtrDeleteACLsResponse()
		resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
		for i := range resp.Results {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = code, message
		}
		return resp
	case *kmsg.DescribeACLsRequest:
		return &kmsg.DescribeACLsResponse{ErrorCode: code, ErrorMessage: message}
	case *kmsg.DescribeUserSCRAMCredentialsRequest:
		resp := &kmsg.DescribeUserSCRAMCredentialsResponse{ErrorCode: code}
		for range req.Users {
			resp.Results = append(resp.Results, kmsg.DescribeUserSCRAMCredentialsResponseResult{ErrorCode: code})
		}
		return resp
	case *kmsg.AlterUserSCRAMCredentialsRequest:
		resp := kmsg.NewPtrAlterUserSCRAMCredentialsResponse()
		for _, user := range usersOf(req) {
			resp.Results = append(resp.Results, kmsg.AlterUserSCRAMCredentialsResponseResult{User: user, ErrorCode: code, ErrorMessage: message})
		}
		return resp
	}
	panic("BUG: an API needs an operation on the cluster, and has no answer without it: " + kmsg.NameForKey(kreq.Key()))
}

// refuseLogDirs refuses to move replicas.
func refuseLogDirs(req *kmsg.AlterReplicaLogDirsRequest, code int16) kmsg.Response {
	resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
	for i := range req.Dirs {
		for j := range req.Dirs[i].Topics {
			t := &req.Dirs[i].Topics[j]
			rt := kmsg.AlterReplicaLogDirsResponseTopic{Topic: t.Topic}
			for _, n := range t.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.AlterReplicaLogDirsResponseTopicPartition{Partition: n, ErrorCode: code})
			}
			resp.Topics = append(resp.Topics, rt)
		}
	}
	return resp
}

// refuseQuotas refuses to change quotas.
func refuseQuotas(req *kmsg.AlterClientQuotasRequest, e *kerr.Error) kmsg.Response {
	resp := kmsg.NewPtrAlterClientQuotasResponse()
	for i := range req.Entries {
		re := kmsg.AlterClientQuotasResponseEntry{ErrorCode: e.Code, ErrorMessage: &e.Description}
		for _, of := range req.Entries[i].Entity {
			re.Entity = append(re.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: of.Type, Name: of.Name})
		}
		resp.Entries = append(resp.Entries, re)
	}
	return resp
}

// usersOf are the users that a request names, each once.
func usersOf(req *kmsg.AlterUserSCRAMCredentialsRequest) []string {
	names := make([]string, 0, len(req.Deletions)+len(req.Upsertions))
	for i := range req.Deletions {
		names = append(names, req.Deletions[i].Name)
	}
	for i := range req.Upsertions {
		names = append(names, req.Upsertions[i].Name)
	}
	return dropRepeated(names)
}
