package broker

// adminAPIs are the APIs of topics, configs and the cluster.
func adminAPIs(b *Broker) []api {
	if b.cfg.Controller == nil {
		return nil
	}
	return []api{
		{key: 3, name: "Metadata", min: 0, max: 13, serve: b.metadata},
		{key: 19, name: "CreateTopics", min: 2, max: 7, decide: b.createTopics},
		{key: 20, name: "DeleteTopics", min: 1, max: 6, decide: b.deleteTopics},
		{key: 29, name: "DescribeAcls", min: 1, max: 3, serve: b.describeACLs},
		{key: 30, name: "CreateAcls", min: 1, max: 3, decide: b.createACLs},
		{key: 31, name: "DeleteAcls", min: 1, max: 3, decide: b.deleteACLs},
		{key: 32, name: "DescribeConfigs", min: 1, max: 4, serve: b.describeConfigs},
		{key: 33, name: "AlterConfigs", min: 0, max: 2, decide: b.alterConfigs, split: b.splitAlterConfigs},
		{key: 35, name: "DescribeLogDirs", min: 1, max: 5, serve: b.describeLogDirs},
		{key: 37, name: "CreatePartitions", min: 0, max: 3, decide: b.createPartitions},
		{key: 38, name: "CreateDelegationToken", min: 1, max: 3, decide: b.createToken, screen: screenNewToken},
		{key: 39, name: "RenewDelegationToken", min: 1, max: 2, decide: b.renewToken, screen: screenRenewal},
		{key: 40, name: "ExpireDelegationToken", min: 1, max: 2, decide: b.expireToken, screen: screenExpiry},
		{key: 41, name: "DescribeDelegationToken", min: 1, max: 3, serve: b.describeTokens},
		{key: 43, name: "ElectLeaders", min: 0, max: 2, decide: b.electLeaders},
		{key: 44, name: "IncrementalAlterConfigs", min: 0, max: 1, decide: b.incrementalAlterConfigs, split: b.splitIncremental},
		{key: 45, name: "AlterPartitionReassignments", min: 0, max: 1, decide: b.alterPartitionReassignments},
		{key: 46, name: "ListPartitionReassignments", min: 0, max: 0, serve: b.listPartitionReassignments},
		{key: 48, name: "DescribeClientQuotas", min: 0, max: 1, serve: b.describeQuotas},
		{key: 49, name: "AlterClientQuotas", min: 0, max: 1, decide: b.alterQuotas},
		{key: 50, name: "DescribeUserScramCredentials", min: 0, max: 0, serve: b.describeCredentials},
		{key: 51, name: "AlterUserScramCredentials", min: 0, max: 0, decide: b.alterCredentials},
		{key: 55, name: "DescribeQuorum", min: 0, max: 2, decide: b.describeQuorum},
		{key: 57, name: "UpdateFeatures", min: 0, max: 2, decide: b.updateFeatures},
		{key: 60, name: "DescribeCluster", min: 0, max: 2, serve: b.describeCluster},
		{key: 64, name: "UnregisterBroker", min: 0, max: 0, decide: b.unregisterBroker},
		{key: 74, name: "ListConfigResources", min: 0, max: 1, serve: b.listConfigResources},
		{key: 75, name: "DescribeTopicPartitions", min: 0, max: 0, serve: b.describeTopicPartitions},
	}
}
