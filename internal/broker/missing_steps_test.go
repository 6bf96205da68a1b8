package broker

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// dataDirectory stands for the data directory of the node that is asked.
const dataDirectory = "the data directory"

// unlikeKafka are our answers that differ from Kafka's on purpose in this series: we refuse
// settings that would have no effect, and know only our own levels of features.
func unlikeKafka() map[string]string {
	better := map[string]string{}
	better["a quota twice: AlterClientQuotas v1"] = `{"Entries":[{"Entity":[{"Name":"twice","Type":"user"}],"ErrorCode":42,"ErrorMessage":"Duplicate quota key producer_byte_rate"}]}`
	better["a quota of a user at an address: AlterClientQuotas v1"] = `{"Entries":[{"Entity":[{"Name":"127.0.0.1","Type":"ip"},
{"Name":"a","Type":"user"}],"ErrorCode":42,"ErrorMessage":"Invalid quota entity combination, IP entity should not be combined with User or ClientId"}]}`
	feature := func(name string, level int, why string) string {
		return fmt.Sprintf(`{"ErrorCode":95,"ErrorMessage":"The update failed for all features since the following feature had an error: Invalid update version %d for feature %s. Local controller 1 %s"}`, level, name, why)
	}
	const only = "only supports versions 30-30"
	for v := range 3 {
		for name, level := range map[string]int{"a level too high": 99, "down without saying so": 29, "down": 29, "up by a downgrade": 99} {
			better[fmt.Sprintf("%s: UpdateFeatures v%d", name, v)] = feature("metadata.version", level, only)
		}
	}
	better["a feature twice: UpdateFeatures v1"] = feature("metadata.version", 99, only)
	better["groups of Kafka 4: UpdateFeatures v1"] = feature("group.version", 1, "does not support this feature.")
	return better
}

// missingFeatureSteps are requests to a node that has no authorizer, no quotas, no transactions
// and no other nodes. Later steps use what earlier ones have created.
func missingFeatureSteps() []step {
	s := []step{one("topics", createTopics(7, false, topicOf("with.one", 1, 1), topicOf("with.three", 3, 1)))}
	s = append(s, securitySteps()...)
	s = append(s, userSteps()...)
	s = append(s, quotaSteps()...)
	s = append(s, reassignmentSteps()...)
	s = append(s, electionSteps()...)
	s = append(s, directorySteps()...)
	s = append(s, featureSteps()...)
	s = append(s, transactionSteps()...)
	return append(s, unknownTransactionSteps()...)
}

func securitySteps() []step {
	var s []step
	for v := int16(1); v <= 3; v++ {
		create := at(v, kmsg.NewPtrCreateACLsRequest())
		for _, name := range []string{"a", ""} {
			c := kmsg.NewCreateACLsRequestCreation()
			c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Principal = kmsg.ACLResourceTypeTopic, name, kmsg.ACLResourcePatternTypeLiteral, "User:a"
			c.Host, c.Operation, c.PermissionType = "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
			create.Creations = append(create.Creations, c)
		}
		remove := at(v, kmsg.NewPtrDeleteACLsRequest())
		for range 2 {
			f := kmsg.NewDeleteACLsRequestFilter()
			f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
			remove.Filters = append(remove.Filters, f)
		}
		s = append(s,
			one("acls", at(v, kmsg.NewPtrDescribeACLsRequest(), func(r *kmsg.DescribeACLsRequest) {
				r.ResourceType, r.ResourcePatternType, r.Operation, r.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
			})),
			one("create acls", create), one("delete acls", remove),
			one("create no acls", at(v, kmsg.NewPtrCreateACLsRequest())), one("delete no acls", at(v, kmsg.NewPtrDeleteACLsRequest())),
		)
	}
	for v := range int16(2) {
		s = append(s, one("handshake", at(v, kmsg.NewPtrSASLHandshakeRequest(), func(r *kmsg.SASLHandshakeRequest) { r.Mechanism = "PLAIN" })))
	}
	for v := range int16(3) {
		s = append(s, one("authenticate", at(v, kmsg.NewPtrSASLAuthenticateRequest(), func(r *kmsg.SASLAuthenticateRequest) { r.SASLAuthBytes = []byte("\x00a\x00b") })))
	}
	for v := int16(1); v <= 3; v++ {
		s = append(s, one("create a token", at(v, kmsg.NewPtrCreateDelegationTokenRequest(), func(r *kmsg.CreateDelegationTokenRequest) { r.MaxLifetimeMillis = -1 })),
			one("create a token for somebody", at(v, kmsg.NewPtrCreateDelegationTokenRequest(), func(r *kmsg.CreateDelegationTokenRequest) {
				r.OwnerPrincipalType, r.OwnerPrincipalName = new("User"), new("a")
			})), one("tokens", at(v, kmsg.NewPtrDescribeDelegationTokenRequest())))
	}
	for v := int16(1); v <= 2; v++ {
		s = append(s, one("renew a token", at(v, kmsg.NewPtrRenewDelegationTokenRequest(), func(r *kmsg.RenewDelegationTokenRequest) { r.HMAC = []byte("x") })),
			one("expire a token", at(v, kmsg.NewPtrExpireDelegationTokenRequest(), func(r *kmsg.ExpireDelegationTokenRequest) { r.HMAC = []byte("x") })))
	}
	return s
}

func userSteps() []step {
	describe := func(names ...string) *kmsg.DescribeUserSCRAMCredentialsRequest {
		req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		for _, n := range names {
			req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: n})
		}
		return req
	}
	type deletion = kmsg.AlterUserSCRAMCredentialsRequestDeletion
	type upsertion = kmsg.AlterUserSCRAMCredentialsRequestUpsertion
	alterUsers := func(d []deletion, u []upsertion) kmsg.Request {
		req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		req.Deletions, req.Upsertions = d, u
		return req
	}
	salt := []byte("0123456789abcdef")
	good := upsertion{Name: "made", Mechanism: 1, Iterations: 4096, Salt: salt, SaltedPassword: salt}
	few, many, unknown, nobody := good, good, good, good
	few.Name, few.Iterations = "few", 10
	many.Name, many.Iterations = "many", 20_000
	unknown.Name, unknown.Mechanism = "unknown", 7
	nobody.Name = ""
	return []step{
		one("users", describe()), one("unknown users", describe("a", "b")), one("user twice", describe("a", "a", "b", "a")), one("nameless user", describe("")),
		one("delete users", alterUsers([]deletion{{Name: "a", Mechanism: 1}, {Name: "b", Mechanism: 9}, {Name: "", Mechanism: 1}, {Name: "c", Mechanism: 2}, {Name: "c", Mechanism: 2}}, nil)),
		one("bad users", alterUsers(nil, []upsertion{few, many, unknown, nobody})),
		one("delete and make a user", alterUsers([]deletion{{Name: "made", Mechanism: 1}}, []upsertion{good})),
		one("make a user twice", alterUsers(nil, []upsertion{good, good, few})),
		one("make a user", alterUsers(nil, []upsertion{good})),
		one("alter no users", alterUsers(nil, nil)),
	}
}

func quotaSteps() []step {
	type component = kmsg.DescribeClientQuotasRequestComponent
	describe := func(v int16, strict bool, list ...component) kmsg.Request {
		return at(v, kmsg.NewPtrDescribeClientQuotasRequest(), func(r *kmsg.DescribeClientQuotasRequest) { r.Components, r.Strict = list, strict })
	}
	exact := func(kind, name string) component { return component{EntityType: kind, MatchType: 0, Match: &name} }
	var s []step
	for v := range int16(2) {
		s = append(s, one("quotas", describe(v, false)), one("quotas of a user", describe(v, true, exact("user", "a"), component{EntityType: "client-id", MatchType: 1})))
	}
	s = append(s,
		one("quotas of all", describe(1, false, component{EntityType: "ip", MatchType: 2})),
		one("quotas of no kind", describe(1, false, exact("", "a"))), one("quotas of a kind twice", describe(1, false, exact("user", "a"), component{EntityType: "user", MatchType: 2})),
		one("quotas of nonsense", describe(1, false, exact("nonsense", "a"))),
		one("quotas without a name", describe(1, false, component{EntityType: "user"})),
		one("quotas of the default with a name", describe(1, false, component{EntityType: "user", MatchType: 1, Match: new("a")})),
		one("quotas of any with a name", describe(1, false, component{EntityType: "user", MatchType: 2, Match: new("a")})),
		one("quotas with an unknown match", describe(1, false, component{EntityType: "user", MatchType: 5})),
		one("quotas of a user at an address", describe(1, false, exact("ip", "127.0.0.1"), exact("user", "a"))),
		one("quotas of an address of a client", describe(1, false, component{EntityType: "client-id", MatchType: 2}, exact("ip", "127.0.0.1"))),
	)
	type entity = kmsg.AlterClientQuotasRequestEntryEntity
	type op = kmsg.AlterClientQuotasRequestEntryOp
	type entry = kmsg.AlterClientQuotasRequestEntry
	change := func(v int16, validate bool, list ...entry) kmsg.Request {
		return at(v, kmsg.NewPtrAlterClientQuotasRequest(), func(r *kmsg.AlterClientQuotasRequest) { r.Entries, r.ValidateOnly = list, validate })
	}
	of := func(kind, name string, ops ...op) entry {
		return entry{Entity: []entity{{Type: kind, Name: &name}}, Ops: ops}
	}
	rate := op{Key: "producer_byte_rate", Value: 1000}
	remove := op{Key: "producer_byte_rate", Remove: true}
	for v := range int16(2) {
		s = append(s, one("remove a quota", change(v, false, of("user", "a", remove))), one("set a quota", change(v, false, of("user", "a", rate))))
	}
	return append(s,
		one("validate a quota", change(1, true, of("user", "v", rate))),
		one("bad quotas", change(1, false, of("user", "k", op{Key: "nonsense", Value: 1}), of("user", "n", op{Key: "producer_byte_rate"}), of("user", "f", op{Key: "producer_byte_rate", Value: 1.5}),
			of("ip", "127.0.0.1", rate), of("user", "", rate), of("nonsense", "a", rate), entry{Ops: []op{rate}})),
		one("a quota of a user at an address", change(1, false, entry{Entity: []entity{{Type: "user", Name: new("a")}, {Type: "ip", Name: new("127.0.0.1")}}, Ops: []op{rate}})),
		one("a quota of little", change(1, false, of("user", "p", op{Key: "request_percentage", Value: 1e-9}))), one("a quota twice", change(1, false, of("user", "twice", rate, rate))),
		one("remove an unknown quota", change(1, false, of("user", "u", op{Key: "nonsense", Remove: true}))),
		one("change no quotas", change(1, false)),
	)
}

// assignment is a request for the replicas of a topic's partitions from 0 on; nil cancels.
func assignment(version int16, topic string, replicas ...[]int32) *kmsg.AlterPartitionAssignmentsRequest {
	req := at(version, kmsg.NewPtrAlterPartitionAssignmentsRequest())
	t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	t.Topic = topic
	for i, r := range replicas {
		t.Partitions = append(t.Partitions, kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: int32(i), Replicas: r})
	}
	req.Topics = append(req.Topics, t)
	return req
}

func reassignmentSteps() []step {
	var s []step
	for v := range int16(2) {
		s = append(s,
			one("the same replicas", assignment(v, "with.three", []int32{1}, []int32{1})),
			one("cancel", assignment(v, "with.three", nil)),
			one("unknown brokers", assignment(v, "with.three", []int32{9}, []int32{1, 9}, []int32{9, 8})),
			one("a broker twice", assignment(v, "with.three", []int32{1, 1})),
			one("no brokers", assignment(v, "with.three", []int32{})),
			one("negative brokers", assignment(v, "with.three", []int32{-1})),
			one("unknown partitions", assignment(v, "with.one", []int32{1}, []int32{1}, nil)),
			one("assign an unknown topic", assignment(v, "nowhere", []int32{1}, nil)),
		)
	}
	fixed := assignment(1, "with.three", []int32{1}, []int32{1, 9})
	fixed.AllowReplicationFactorChange = false
	twice := assignment(1, "with.one", []int32{1})
	twice.Topics = append(twice.Topics, twice.Topics[0])
	list := func(topics ...string) kmsg.Request {
		req := kmsg.NewPtrListPartitionReassignmentsRequest()
		req.Topics = nil
		for _, name := range topics {
			t := kmsg.NewListPartitionReassignmentsRequestTopic()
			t.Topic, t.Partitions = name, []int32{0, 9}
			req.Topics = append(req.Topics, t)
		}
		return req
	}
	return append(s, one("as many replicas as before", fixed), one("assign twice", twice), one("assign nothing", at(1, kmsg.NewPtrAlterPartitionAssignmentsRequest())),
		one("reassignments", list()), one("reassignments of a topic", list("with.one", "nowhere")))
}

func electionSteps() []step {
	election := func(version int16, kind int8, topic string, partitions ...int32) kmsg.Request {
		return at(version, kmsg.NewPtrElectLeadersRequest(), func(r *kmsg.ElectLeadersRequest) {
			r.ElectionType, r.TimeoutMillis = kind, 10_000
			if topic != "" {
				r.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: topic, Partitions: partitions}}
			}
		})
	}
	var s []step
	for v := range int16(3) {
		for kind := range int8(2) {
			if v == 0 && kind > 0 {
				continue
			}
			s = append(s, one(fmt.Sprintf("elect %d", kind), election(v, kind, "with.three", 0, 2, 3, -1)), one(fmt.Sprintf("elect %d nowhere", kind), election(v, kind, "nowhere", 0)),
				one(fmt.Sprintf("elect %d all", kind), election(v, kind, "")))
		}
	}
	none := kmsg.NewPtrElectLeadersRequest()
	none.Topics = []kmsg.ElectLeadersRequestTopic{}
	return append(s, one("elect nonsense", election(2, 7, "with.three", 0)), one("elect nonsense in 1", election(1, 7, "with.three", 0)), one("elect none", at(2, none)))
}

func directorySteps() []step {
	move := func(v int16, dirs ...string) kmsg.Request {
		return at(v, kmsg.NewPtrAlterReplicaLogDirsRequest(), func(r *kmsg.AlterReplicaLogDirsRequest) {
			for _, dir := range dirs {
				r.Dirs = append(r.Dirs, kmsg.AlterReplicaLogDirsRequestDir{Dir: dir, Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{
					{Topic: "with.three", Partitions: []int32{0, 2}},
					{Topic: "with.one", Partitions: []int32{0, 7}},
					{Topic: "nowhere", Partitions: []int32{0}},
					{Topic: strings.Repeat("n", 230), Partitions: []int32{0}},
				}})
			}
		})
	}
	var s []step
	for v := int16(1); v <= 2; v++ {
		s = append(s, one("move to where it is", move(v, dataDirectory)), one("move elsewhere", move(v, "/no/such/directory")),
			one("move to a relative directory", move(v, "data")), one("move nothing", move(v)))
	}
	return s
}

func featureSteps() []step {
	type update = kmsg.UpdateFeaturesRequestFeatureUpdate
	features := func(v int16, validate bool, list ...update) kmsg.Request {
		return at(v, kmsg.NewPtrUpdateFeaturesRequest(), func(r *kmsg.UpdateFeaturesRequest) {
			r.FeatureUpdates, r.ValidateOnly, r.TimeoutMillis = list, validate, 10_000
		})
	}
	level := func(name string, n int16, kind int8) update {
		return update{Feature: name, MaxVersionLevel: n, UpgradeType: kind, AllowDowngrade: kind > 1}
	}
	var s []step
	for v := range int16(3) {
		s = append(s,
			one("the same level", features(v, false, level("metadata.version", 30, 1))), one("an unknown feature", features(v, false, level("nonsense", 1, 1))),
			one("an unknown feature at 0", features(v, false, level("nonsense", 0, 1))),
			one("a negative level", features(v, false, level("metadata.version", -1, 1))), one("a level too high", features(v, false, level("metadata.version", 99, 1))),
			one("down without saying so", features(v, false, level("metadata.version", 29, 1))), one("down", features(v, false, level("metadata.version", 29, 2))),
			one("up by a downgrade", features(v, false, level("metadata.version", 99, 2))), one("no kind of change", features(v, false, level("metadata.version", 30, 0))),
			one("an unknown kind of change", features(v, false, level("metadata.version", 30, 9))),
			one("features of which one is bad", features(v, false, level("metadata.version", 30, 1), level("nonsense", 1, 1))),
			one("no features", features(v, false)),
		)
	}
	for v := int16(1); v <= 2; v++ {
		s = append(s, one("validate the same level", features(v, true, level("metadata.version", 30, 1))), one("validate an unknown feature", features(v, true, level("nonsense", 1, 1))))
	}
	s = append(s, one("a feature twice", features(1, true, level("metadata.version", 30, 1), level("metadata.version", 99, 1))),
		one("groups of Kafka 4", features(1, true, level("group.version", 1, 1))))
	for _, id := range []int32{9, -1} {
		req := kmsg.NewPtrUnregisterBrokerRequest()
		req.BrokerID = id
		s = append(s, one(fmt.Sprint("unregister ", id), req))
	}
	return s
}

func transactionSteps() []step {
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"a", "b", "a"}
	list := func(v int16, states ...string) *kmsg.ListTransactionsRequest {
		return at(v, kmsg.NewPtrListTransactionsRequest(), func(r *kmsg.ListTransactionsRequest) { r.StateFilters = states })
	}
	pattern := func(p string) kmsg.Request {
		r := list(2)
		r.TransactionalIDPattern = &p
		return r
	}
	var s []step
	for v := range int16(3) {
		s = append(s, one("transactions", list(v)), one("transactions in states", list(v, "Ongoing", "nonsense", "ongoing", "Empty", "PrepareEpochFence", "nonsense", "")))
	}
	return append(s, one("transactions by a pattern", pattern("a.*")), one("transactions by a bad pattern", pattern("(")), one("transactions by an empty pattern", pattern("")),
		one("describe transactions", describe), one("describe no transactions", kmsg.NewPtrDescribeTransactionsRequest()))
}

// unknownTransactionSteps are requests of a producer whose transactional id is unknown.
func unknownTransactionSteps() []step {
	topics := []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "with.one", Partitions: []int32{0}}}
	var s []step
	for v := range int16(6) {
		add := at(v, kmsg.NewPtrAddPartitionsToTxnRequest())
		if add.TransactionalID, add.ProducerID, add.Topics = "a", 7, topics; v >= 4 {
			add.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{{TransactionalID: "a", ProducerID: 7, Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "with.one", Partitions: []int32{0, 1}}}}}
		}
		commit := at(v, kmsg.NewPtrTxnOffsetCommitRequest())
		commit.TransactionalID, commit.Group, commit.ProducerID = "a", "g", 7
		commit.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "with.one", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 0, Offset: 3, LeaderEpoch: -1}, {Partition: 9, Offset: 3, LeaderEpoch: -1}}}, {Topic: "nowhere", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 3}}}}
		s = append(s, one("add partitions", add), one("commit offsets", commit),
			one("end", at(v, &kmsg.EndTxnRequest{TransactionalID: "a", ProducerID: 7, Commit: true})))
		if v < 5 {
			s = append(s, one("add offsets", at(v, &kmsg.AddOffsetsToTxnRequest{TransactionalID: "a", ProducerID: 7, Group: "g"})))
		}
	}
	return s
}
