package broker

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/txn"
	"github.com/leatstream/leat/internal/wire"
)

// goldenDenied holds what Apache Kafka 4.3.1 with the StandardAuthorizer answered to a client without permissions.
const goldenDenied = "testdata/kafka-4.3.1-denied.txt"

// The names of what a client without permissions asks for. hiddenTopic exists, and absentTopic does not; their names
// have the same length.
const (
	hiddenTopic, absentTopic = "secret-1", "absent-2"
	hiddenGroup, absentGroup = "group-1", "group-2"
)

// newSecuredRig starts a broker with an authorizer, topics, a group with an offset, and coordinators.
func newSecuredRig(t *testing.T, change ...func(*auth.Config)) *rig {
	t.Helper()
	return newSecuredRigWith(t, func(*Config) {}, change...)
}

// newSecuredRigWith is newSecuredRig with a broker's config that is changed before it serves.
func newSecuredRigWith(t *testing.T, more func(*Config), change ...func(*auth.Config)) *rig {
	t.Helper()
	var g *rig
	var groups *group.Service
	var txns *txn.Service
	g = newAdminRig(t, nil, func(c *Config) {
		cfg := auth.Config{Image: c.Image}
		for _, f := range change {
			f(&cfg)
		}
		var err error
		if c.Authorizer, err = auth.New(cfg); err != nil {
			t.Fatal(err)
		}
		groups = group.New(group.Config{Logger: c.Logger, Partitions: func() int32 { return 1 }})
		t.Cleanup(groups.Close)
		c.Groups = groups
		txns = newTxns(t, c, func(string) int32 { return 0 })
		c.Txns = txns
		more(c)
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel})
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{
		ID: 1, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "127.0.0.1", Port: 9092}}, Rack: "r0", Epoch: 1, Features: SupportedFeatures(),
	}})
	g.topic(group.Topic, 1)
	g.topic(txn.Topic, 1)
	groups.StartLeading(0, 0, g.set.Partition(group.Topic, 0))
	txns.StartLeading(0, 0, g.set.Partition(txn.Topic, 0))
	g.topic(hiddenTopic, 1)
	g.allow(meta.AllOperations, meta.GroupResource, hiddenGroup)
	g.allow(meta.AllOperations, meta.TopicResource, hiddenTopic)
	commitFirst(t, dial(t, g.addr))
	if resp := ask[*kmsg.ProduceResponse](dial(t, g.addr), put(hiddenTopic, 0, -1, batch(t, "a secret"))); resp.Topics[0].Partitions[0].ErrorCode != none {
		t.Fatalf("%+v", resp)
	}
	g.revokeAll()
	return g
}

// commitFirst makes the group with an offset.
func commitFirst(t *testing.T, c *client) {
	t.Helper()
	commit := at(8, kmsg.NewPtrOffsetCommitRequest())
	commit.Group, commit.Generation = hiddenGroup, -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: hiddenTopic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	for deadline := time.Now().Add(30 * time.Second); ; {
		code := ask[*kmsg.OffsetCommitResponse](c, commit).Topics[0].Partitions[0].ErrorCode
		if code == none {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the group has no offset: code %d", code)
		}
	}
}

// allow lets everybody do something with a resource.
func (g *rig) allow(op meta.Operation, on meta.ResourceType, name string) {
	g.t.Helper()
	g.apply(meta.ACLSet{ACL: meta.ACL{
		Principal: meta.AnyPrincipal, Host: meta.AnyHost, Resource: on, Pattern: meta.LiteralPattern, Name: name, Operation: op, Permission: meta.Allow,
	}})
}

// revokeAll removes all ACLs.
func (g *rig) revokeAll() {
	g.t.Helper()
	for a := range g.image.Load().ACLs().All() {
		g.apply(meta.ACLUnset{ACL: a})
	}
}

// walk are requests of all APIs for a topic, a group, a transactional id of the group's name and a user, by a name for each.
// Each has its newest version.
func walk(tb testing.TB, topic, name string) map[string]kmsg.Request {
	tb.Helper()
	offsets := []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 5}}}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation, commit.Topics = name, -1, offsets
	txnCommit := kmsg.NewPtrTxnOffsetCommitRequest()
	txnCommit.TransactionalID, txnCommit.Group, txnCommit.Generation = name, name, -1
	txnCommit.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 5}}}}
	fetchAll := kmsg.NewPtrOffsetFetchRequest()
	fetchAll.Group, fetchAll.Groups = name, []kmsg.OffsetFetchRequestGroup{{Group: name, MemberEpoch: -1}}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics, metadata.AllowAutoTopicCreation = []kmsg.MetadataRequestTopic{{Topic: &topic}}, true
	metadata.IncludeClusterAuthorizedOperations, metadata.IncludeTopicAuthorizedOperations = true, true
	all := kmsg.NewPtrMetadataRequest()
	all.IncludeTopicAuthorizedOperations = true
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}
	erase := kmsg.NewPtrDeleteTopicsRequest()
	erase.TopicNames, erase.Topics = []string{topic}, []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey, find.CoordinatorKeys = name, []string{name}
	findTxn := kmsg.NewPtrFindCoordinatorRequest()
	findTxn.CoordinatorType, findTxn.CoordinatorKey, findTxn.CoordinatorKeys = 1, name, []string{name}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType, join.SessionTimeoutMillis = name, "consumer", 30_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 0}}}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID, leave.Members = name, "m", []kmsg.LeaveGroupRequestMember{{MemberID: "m"}}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.ProtocolType, sync.Protocol = name, "m", new("consumer"), new("range")
	adding := kmsg.NewPtrAddPartitionsToTxnRequest()
	adding.TransactionalID, adding.Topics = name, []kmsg.AddPartitionsToTxnRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	addingMany := kmsg.NewPtrAddPartitionsToTxnRequest()
	addingMany.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{{TransactionalID: name, Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: topic, Partitions: []int32{0}}}}}
	markers := kmsg.NewPtrWriteTxnMarkersRequest()
	markers.Markers = []kmsg.WriteTxnMarkersRequestMarker{{ProducerID: 5, Topics: []kmsg.WriteTxnMarkersRequestMarkerTopic{{Topic: topic, Partitions: []int32{0}}}}}
	configsOf := []kmsg.DescribeConfigsRequestResource{
		{ResourceType: 2, ResourceName: topic},
		{ResourceType: 4, ResourceName: "1"},
		{ResourceType: 4, ResourceName: ""},
		{ResourceType: 8, ResourceName: "1"},
		{ResourceType: 16, ResourceName: name},
		{ResourceType: 32, ResourceName: name},
	}
	alter := kmsg.NewPtrAlterConfigsRequest()
	change := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, r := range configsOf {
		key, value := "retention.ms", "5"
		switch int8(r.ResourceType) {
		case 4:
			key, value = "log.cleaner.threads", "1"
		case 8:
			key, value = "root", "INFO"
		case 16:
			key, value = "interval.ms", "100"
		case 32:
			key, value = "consumer.session.timeout.ms", "45000"
		}
		if r.ResourceType != 8 { // the older API does not know loggers
			alter.Resources = append(alter.Resources, kmsg.AlterConfigsRequestResource{
				ResourceType: r.ResourceType, ResourceName: r.ResourceName, Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: key, Value: &value}},
			})
		}
		change.Resources = append(change.Resources, kmsg.IncrementalAlterConfigsRequestResource{
			ResourceType: r.ResourceType, ResourceName: r.ResourceName, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: key, Value: &value}},
		})
	}
	cluster := kmsg.NewPtrDescribeClusterRequest()
	cluster.IncludeClusterAuthorizedOperations = true
	describeGroups := kmsg.NewPtrDescribeGroupsRequest()
	describeGroups.Groups, describeGroups.IncludeAuthorizedOperations = []string{name}, true
	elect := kmsg.NewPtrElectLeadersRequest()
	elect.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	features := kmsg.NewPtrUpdateFeaturesRequest()
	features.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "group.version", MaxVersionLevel: 1, UpgradeType: 1}}
	quota := kmsg.NewPtrAlterClientQuotasRequest()
	quota.Entries = []kmsg.AlterClientQuotasRequestEntry{{Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: &name}}}}
	dirs := kmsg.NewPtrAlterReplicaLogDirsRequest()
	dirs.Dirs = []kmsg.AlterReplicaLogDirsRequestDir{{Dir: "/d", Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: topic, Partitions: []int32{0}}}}}
	epoch := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epoch.ReplicaID = -1
	epoch.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1}}}}
	list := kmsg.NewPtrListOffsetsRequest()
	list.ReplicaID = -1
	list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -1, CurrentLeaderEpoch: -1}}}}
	trim := kmsg.NewPtrDeleteRecordsRequest()
	trim.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: 0}}}}
	forget := kmsg.NewPtrOffsetDeleteRequest()
	forget.Group = name
	forget.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}
	acl := kmsg.CreateACLsRequestCreation{
		ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: topic, ResourcePatternType: kmsg.ACLResourcePatternTypeLiteral, Principal: "User:ANONYMOUS",
		Host: "*", Operation: kmsg.ACLOperationAll, PermissionType: kmsg.ACLPermissionTypeAllow,
	}
	filter := kmsg.DeleteACLsRequestFilter{
		ResourceType: kmsg.ACLResourceTypeAny, ResourcePatternType: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny, PermissionType: kmsg.ACLPermissionTypeAny,
	}
	transactional := put(topic, 0, -1, transactionalBatch(tb))
	transactional.TransactionID = &name
	initTxn := initProducer(5, &name, -1, -1)
	initTxn.TransactionTimeoutMillis = 60_000
	newest := func(req kmsg.Request) kmsg.Request { return req }
	return map[string]kmsg.Request{
		"produce": put(topic, 0, -1, batch(tb, "v")), "produce in a transaction": transactional,
		"fetch": get(topic, 0, 0), "offsets": list, "metadata": metadata, "all metadata": all,
		"commit": commit, "fetch offset": oneOffset(name, topic), "fetch offsets": fetchAll, "find group": find, "find transaction": findTxn,
		"join": join, "heartbeat": &kmsg.HeartbeatRequest{Group: name, MemberID: "m"}, "leave": leave, "sync": sync,
		"describe groups": describeGroups, "list groups": newest(kmsg.NewPtrListGroupsRequest()),
		"create topics": create, "delete topics": erase, "trim": trim, "producer id": initProducer(5, nil, -1, -1), "transactional id": initTxn,
		"epochs": epoch, "add partitions": adding, "add partitions of many": addingMany,
		"add offsets": &kmsg.AddOffsetsToTxnRequest{TransactionalID: name, Group: name}, "end transaction": &kmsg.EndTxnRequest{TransactionalID: name},
		"markers": markers, "commit in a transaction": txnCommit,
		"describe acls": &kmsg.DescribeACLsRequest{ResourceType: filter.ResourceType, ResourcePatternType: filter.ResourcePatternType, Operation: filter.Operation, PermissionType: filter.PermissionType},
		"create acls":   &kmsg.CreateACLsRequest{Creations: []kmsg.CreateACLsRequestCreation{acl}}, "delete acls": &kmsg.DeleteACLsRequest{Filters: []kmsg.DeleteACLsRequestFilter{filter}},
		"configs": &kmsg.DescribeConfigsRequest{Resources: configsOf}, "alter configs": alter, "change configs": change,
		"move replicas": dirs, "log dirs": kmsg.NewPtrDescribeLogDirsRequest(),
		"more partitions": &kmsg.CreatePartitionsRequest{Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: topic, Count: 5}}, TimeoutMillis: 1000},
		"delete groups":   &kmsg.DeleteGroupsRequest{Groups: []string{name}}, "elect": elect,
		"reassign":      &kmsg.AlterPartitionAssignmentsRequest{Topics: []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Replicas: []int32{1}}}}}, TimeoutMillis: 1000},
		"reassignments": &kmsg.ListPartitionReassignmentsRequest{TimeoutMillis: 1000}, "delete offsets": forget,
		"quotas": kmsg.NewPtrDescribeClientQuotasRequest(), "alter quotas": quota,
		"users": &kmsg.DescribeUserSCRAMCredentialsRequest{Users: []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: name}}},
		"alter users": &kmsg.AlterUserSCRAMCredentialsRequest{
			Deletions:  []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: name, Mechanism: 1}},
			Upsertions: []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: "new", Mechanism: 1, Iterations: 4096, Salt: []byte("salt"), SaltedPassword: []byte("salted")}},
		},
		"quorum":   &kmsg.DescribeQuorumRequest{Topics: []kmsg.DescribeQuorumRequestTopic{{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}},
		"features": features, "cluster": cluster,
		"producers":    &kmsg.DescribeProducersRequest{Topics: []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: []int32{0}}}},
		"unregister":   &kmsg.UnregisterBrokerRequest{BrokerID: 99},
		"transactions": &kmsg.DescribeTransactionsRequest{TransactionalIDs: []string{name}}, "list transactions": kmsg.NewPtrListTransactionsRequest(),
		"consumer groups": &kmsg.ConsumerGroupDescribeRequest{Groups: []string{name}}, "share groups": &kmsg.ShareGroupDescribeRequest{GroupIDs: []string{name}},
		"streams groups": &kmsg.StreamsGroupDescribeRequest{Groups: []string{name}},
		"resources":      kmsg.NewPtrListConfigResourcesRequest(),
		"partitions":     &kmsg.DescribeTopicPartitionsRequest{Topics: []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}}, ResponsePartitionLimit: 100},
		"all partitions": &kmsg.DescribeTopicPartitionsRequest{ResponsePartitionLimit: 100},
		"add voter":      kmsg.NewPtrAddRaftVoterRequest(), "remove voter": kmsg.NewPtrRemoveRaftVoterRequest(),
		"token":       &kmsg.CreateDelegationTokenRequest{OwnerPrincipalType: new("User"), OwnerPrincipalName: &name},
		"renew token": &kmsg.RenewDelegationTokenRequest{HMAC: []byte(name)}, "expire token": &kmsg.ExpireDelegationTokenRequest{HMAC: []byte(name)},
		"tokens": &kmsg.DescribeDelegationTokenRequest{Owners: []kmsg.DescribeDelegationTokenRequestOwner{{PrincipalType: "User", PrincipalName: name}}},
	}
}

// oneOffset asks for the offset of one partition.
func oneOffset(name, topic string) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.Topics = name, []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: name, MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{0}}}}}
	return req
}

// transactionalBatch is a batch of a transaction.
func transactionalBatch(tb testing.TB) []byte {
	tb.Helper()
	return producerBatch(tb, true, 5, 0, 0, "v")
}

// versionsOf are the versions of a request that a walk goes through: all that are served, but those that name topics by ids,
// which a client without permissions does not know, and those that Kafka 4.3.1 lacks.
func versionsOf(a *api, name string) (versions []int16) {
	first, last := a.min, a.max
	switch name {
	case "produce", "produce in a transaction", "fetch":
		last = min(last, 12)
	case "commit", "fetch offset":
		last = min(last, 9)
	case "delete groups":
		last = min(last, 2)
	case "streams groups":
		last = min(last, 0)
	case "commit in a transaction":
		last = min(last, 5)
	case "add partitions":
		last = 3
	case "add partitions of many":
		first = 4
	case "all metadata":
		first = 1 // version 0 asks for all topics by an empty list
	case "fetch offsets":
		first = 2 // version 1 cannot ask for all
	}
	for v := first; v <= last; v++ {
		versions = append(versions, v)
	}
	return versions
}

// walkTranscript sends the requests of a walk in all versions, and returns a line for each answer.
func walkTranscript(t *testing.T, b *Broker, addr, topic, name string) []string {
	t.Helper()
	requests := walk(t, topic, name)
	var lines []string
	for _, step := range sortedKeys(requests) {
		req := requests[step]
		for _, v := range versionsOf(b.findAPI(req.Key()), step) {
			req.SetVersion(v)
			line := fmt.Sprintf("%s: %s v%d: ", step, kmsg.NameForKey(req.Key()), v)
			c := dial(t, addr)
			if step == "all metadata" && v < 1 {
				continue
			}
			c.send(req)
			if b, err := c.frame(); err != nil {
				line += closed
			} else {
				resp := req.ResponseKind()
				if resp.IsFlexible() {
					b = b[1:]
				}
				if err := resp.ReadFrom(b); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				line += strings.ReplaceAll(plain(t, resp), "\n", "")
			}
			line = kafkasDump.ReplaceAllString(line, "Cluster authorization failed.")
			lines = append(lines, strings.NewReplacer(topic, "TOPIC", name, "NAME").Replace(line))
		}
	}
	return lines
}

// kafkasDump is the text by which Kafka tells which operation on the cluster a client may not do. Ours is the code's.
var kafkasDump = regexp.MustCompile(`Request Request\([^"]*permission\.`)

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestDeniedClientsLearnNothing proves that a client without permissions gets the same answer, in each version of each API, whether the
// topic, the group and the transactional id that it names exist or not; that no answer has what it may not know; that nothing
// has changed; and that the answers are those of Apache Kafka 4.3.1. With LEAT_TEST_KAFKA_DENIED and LEAT_TEST_KAFKA_ADMIN, the addresses
// of a Kafka's listeners without and with a login (PLAIN, admin, admin-secret), it proves too that the record is Kafka's.
func TestDeniedClientsLearnNothing(t *testing.T) {
	g := newSecuredRig(t)
	before := meta.Encode(g.image.Load())
	hidden := walkTranscript(t, g.broker, g.addr, hiddenTopic, hiddenGroup)
	absent := walkTranscript(t, g.broker, g.addr, absentTopic, absentGroup)
	if d := cmp.Diff(absent, hidden); d != "" {
		t.Errorf("the answers tell what exists (-absent +hidden): %s", d)
	}
	for _, line := range hidden {
		if strings.Contains(line, "secret") || strings.Contains(line, "__consumer") {
			t.Errorf("an answer tells of something: %s", line)
		}
	}
	if after := meta.Encode(g.image.Load()); string(after) != string(before) {
		t.Error("a client without permissions has changed the metadata")
	}
	seen := map[int16]bool{}
	for _, req := range walk(t, hiddenTopic, hiddenGroup) {
		seen[req.Key()] = true
	}
	for key, needs := range apiPermissions() {
		if !needs.open && !seen[key] {
			t.Errorf("no request of %s is in the walk", kmsg.NameForKey(key))
		}
	}
	compareDenied(t, g, hidden)
}

// compareDenied compares a transcript with Kafka's.
func compareDenied(t *testing.T, g *rig, ours []string) {
	t.Helper()
	record, err := os.ReadFile(goldenDenied)
	if err != nil && !*recordKafka {
		t.Fatal(err)
	}
	if addr := os.Getenv("LEAT_TEST_KAFKA_DENIED"); addr != "" {
		prepareKafka(t, os.Getenv("LEAT_TEST_KAFKA_ADMIN"))
		theirs := strings.Join(walkTranscript(t, g.broker, addr, hiddenTopic, hiddenGroup), "\n") + "\n"
		if *recordKafka {
			if err := os.WriteFile(goldenDenied, []byte(theirs), 0o644); err != nil {
				t.Fatal(err)
			}
			record = []byte(theirs)
		}
		if d := cmp.Diff(strings.Split(string(record), "\n"), strings.Split(theirs, "\n")); d != "" {
			t.Errorf("Kafka answers otherwise than recorded: %s", d)
		}
	}
	theirs := strings.Split(strings.TrimSpace(string(record)), "\n")
	if len(theirs) != len(ours) {
		t.Fatalf("%d answers are recorded, and the walk has %d: record them again", len(theirs), len(ours))
	}
	for i := range ours {
		step, _, _ := strings.Cut(ours[i], ":")
		why := unlikeKafkaWhenDenied()[step]
		if same := ours[i] == theirs[i]; !same && why == "" {
			t.Errorf("(-kafka +ours)\n- %s\n+ %s", theirs[i], ours[i])
		}
	}
}

// unlikeKafkaWhenDenied has the reasons why answers differ on purpose.
func unlikeKafkaWhenDenied() map[string]string {
	return map[string]string{
		"change configs": "Kafka has no message for a logger.",
	}
}

// prepareKafka makes the topic and the group on a Kafka.
func prepareKafka(t *testing.T, addr string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MaxVersions(kversion.V3_5_0()), // topics by name
		kgo.SASL(saslplain.Auth{User: "admin", Pass: "admin-secret"}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: hiddenTopic, NumPartitions: 1, ReplicationFactor: 1}}
	if _, err := create.RequestWith(ctx, cl); err != nil {
		t.Fatal(err)
	}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = hiddenGroup, -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: hiddenTopic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	for {
		resp, err := commit.RequestWith(ctx, cl)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Topics) == 1 && resp.Topics[0].Partitions[0].ErrorCode == none {
			return
		}
	}
}

// refusals are the codes by which a client is told that it may not do something.
var refusals = regexp.MustCompile(`"(Config)?ErrorCode":(29|30|31|53)\b`)

// TestPermissionsAreWhatAPIsNeed proves for each API that a client which has the permissions of its row in the table is not refused, and that
// one which has all others is. So the table says what the handlers ask for.
func TestPermissionsAreWhatAPIsNeed(t *testing.T) {
	g := newSecuredRig(t)
	g.allow(meta.AllOperations, meta.TransactionalIDResource, meta.AnyName)
	initTransactional(t, dial(t, g.addr), hiddenGroup)
	g.revokeAll()
	requests := walk(t, hiddenTopic, hiddenGroup)
	steps := sortedKeys(requests)
	// What removes something that others need comes last.
	last := []string{"delete offsets", "delete groups", "delete topics", "delete acls"}
	steps = append(slices.DeleteFunc(steps, func(s string) bool { return slices.Contains(last, s) }), last...)
	types := []meta.ResourceType{meta.TopicResource, meta.GroupResource, meta.ClusterResource, meta.TransactionalIDResource, meta.DelegationTokenResource, meta.UserResource}
	answer := func(step string) string {
		req := requests[step]
		versions := versionsOf(g.broker.findAPI(req.Key()), step)
		req.SetVersion(versions[len(versions)-1])
		return plain(t, ask[kmsg.Response](dial(t, g.addr), req))
	}
	for _, step := range steps {
		key := requests[step].Key()
		if key >= 38 && key <= 41 { // for clients that have logged in: see TestTokenPermissions
			continue
		}
		needs := apiPermissions()[key]
		rows := needs.each
		if needs.cluster != 0 {
			rows = append(rows, right{needs.cluster, meta.ClusterResource})
		}
		rows = slices.Clone(rows)
		for i := range rows {
			rows[i].op, _ = auth.PartOf(rows[i].op) // an ACL allows and denies a part with the whole
		}
		g.revokeAll()
		for _, typ := range types {
			g.allow(meta.AllOperations, typ, meta.AnyName)
		}
		for _, r := range rows {
			g.apply(meta.ACLSet{ACL: meta.ACL{
				Principal: meta.AnyPrincipal, Host: meta.AnyHost, Resource: r.on, Pattern: meta.LiteralPattern, Name: meta.AnyName, Operation: r.op, Permission: meta.Deny,
			}})
		}
		without := answer(step)
		g.revokeAll()
		for _, r := range rows {
			g.allow(r.op, r.on, meta.AnyName)
		}
		with := answer(step)
		if refusals.MatchString(with) {
			t.Errorf("%s: refused with its permissions: %s", step, with)
		}
		if with == without {
			t.Errorf("%s: the permissions of its row change nothing: %s", step, with)
		}
	}
}

// TestClientsSeeWhatTheyMay proves that answers about all topics, groups and offsets have only those that the client may
// describe, and that the operations which the client is told are those that it may do.
func TestClientsSeeWhatTheyMay(t *testing.T) {
	g := newSecuredRig(t)
	g.topic("public", 1)
	g.topic("public-2", 1)
	g.allow(meta.Read, meta.TopicResource, "public")
	g.allow(meta.Write, meta.TopicResource, "public")
	g.allow(meta.Describe, meta.GroupResource, hiddenGroup)
	c := dial(t, g.addr)
	all := at(12, kmsg.NewPtrMetadataRequest())
	all.IncludeTopicAuthorizedOperations = true
	topics := ask[*kmsg.MetadataResponse](c, all).Topics
	if len(topics) != 1 || *topics[0].Topic != "public" || topics[0].AuthorizedOperations != 1<<3|1<<4|1<<8 {
		t.Errorf("all topics: %+v", topics)
	}
	pages := at(0, kmsg.NewPtrDescribeTopicPartitionsRequest())
	pages.ResponsePartitionLimit = 100
	if got := ask[*kmsg.DescribeTopicPartitionsResponse](c, pages).Topics; len(got) != 1 || *got[0].Topic != "public" || got[0].AuthorizedOperations != 1<<3|1<<4|1<<8 {
		t.Errorf("all topics by page: %+v", got)
	}
	fetch := at(9, kmsg.NewPtrOffsetFetchRequest())
	fetch.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "other", MemberEpoch: -1}, {Group: hiddenGroup, MemberEpoch: -1}}
	groups := ask[*kmsg.OffsetFetchResponse](c, fetch).Groups
	if len(groups) != 2 || groups[0].Group != "other" || groups[0].ErrorCode != 30 || groups[1].ErrorCode != none || len(groups[1].Topics) != 0 {
		t.Errorf("offsets of topics that the client may not see: %+v", groups)
	}
	g.allow(meta.Describe, meta.TopicResource, hiddenTopic)
	if groups = ask[*kmsg.OffsetFetchResponse](c, fetch).Groups; len(groups[1].Topics) != 1 || groups[1].Topics[0].Partitions[0].Offset != 1 {
		t.Errorf("offsets that the client may see: %+v", groups)
	}
	if list := ask[*kmsg.ListGroupsResponse](c, at(4, kmsg.NewPtrListGroupsRequest())).Groups; len(list) != 1 || list[0].Group != hiddenGroup {
		t.Errorf("groups: %+v", list)
	}
	described := at(5, kmsg.NewPtrDescribeGroupsRequest())
	described.Groups, described.IncludeAuthorizedOperations = []string{hiddenGroup}, true
	if got := ask[*kmsg.DescribeGroupsResponse](c, described).Groups[0].AuthorizedOperations; got != 1<<8 {
		t.Errorf("operations on the group: %b", got)
	}
	// A fetch of a topic that may be read is served beside one that may not, and a revoked permission counts at once.
	both := get("public", 0, 0)
	wantPart(both, hiddenTopic, 0, 0)
	codes := func() (codes []int16) {
		for _, topic := range ask[*kmsg.FetchResponse](c, both).Topics {
			codes = append(codes, topic.Partitions[0].ErrorCode)
			if topic.Partitions[0].ErrorCode != none && len(topic.Partitions[0].RecordBatches) > 0 {
				t.Error("records that the client may not read")
			}
		}
		return codes
	}
	if got := codes(); !slices.Equal(got, []int16{none, 29}) {
		t.Errorf("codes of a fetch: %v", got)
	}
	g.revokeAll()
	if got := codes(); !slices.Equal(got, []int16{29, 29}) {
		t.Errorf("codes of a fetch after the permissions were revoked: %v", got)
	}
}

// TestFetchSessionsAreAuthorised proves that each request of a fetch session is served by what the client may read at that moment, and that
// a client which continues the session of another one gets no records.
func TestFetchSessionsAreAuthorised(t *testing.T) {
	g := newSecuredRig(t)
	g.allow(meta.Read, meta.TopicResource, hiddenTopic)
	c := dial(t, g.addr)
	begin := get(hiddenTopic, 0, 0)
	begin.SessionEpoch = 0
	first := ask[*kmsg.FetchResponse](c, begin)
	if first.SessionID == 0 || len(first.Topics[0].Partitions[0].RecordBatches) == 0 {
		t.Fatalf("%+v", first)
	}
	g.revokeAll()
	next := get(hiddenTopic, 0, 0)
	next.Topics, next.SessionID, next.SessionEpoch = nil, first.SessionID, 1
	second := ask[*kmsg.FetchResponse](c, next)
	if len(second.Topics) != 1 || second.Topics[0].Partitions[0].ErrorCode != 29 || len(second.Topics[0].Partitions[0].RecordBatches) != 0 {
		t.Errorf("%+v", second)
	}
	g.allow(meta.Read, meta.TopicResource, hiddenTopic)
	next.SessionEpoch = 2
	if third := ask[*kmsg.FetchResponse](c, next); len(third.Topics) != 1 || len(third.Topics[0].Partitions[0].RecordBatches) == 0 {
		t.Errorf("%+v", third)
	}
}

// operationText names an operation, and the one that it is a part of.
func operationText(op meta.Operation) string {
	if whole, ok := auth.PartOf(op); ok {
		return auth.OperationName(whole) + " (or its part " + auth.OperationName(op) + ")"
	}
	return auth.OperationName(op)
}

const securityPage = "../../docs/security.md"

// TestPermissionsAreDocumented proves that docs/security.md has the table of permissions. With -write it writes the table there.
func TestPermissionsAreDocumented(t *testing.T) {
	var table strings.Builder
	all := apiPermissions()
	keys := make([]int16, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		needs := all[key]
		var rights []string
		for _, r := range needs.each {
			rights = append(rights, operationText(r.op)+" on "+strings.ToLower(auth.ResourceName(r.on)))
		}
		text := strings.Join(rights, ", ")
		switch {
		case needs.cluster != 0:
			text = operationText(needs.cluster) + " on cluster, for the request as a whole"
		case needs.open:
			text = "nothing"
		}
		fmt.Fprintf(&table, "| %d | %s | %s |\n", key, kmsg.NameForKey(key), text)
	}
	page, err := os.ReadFile(securityPage)
	if err != nil {
		t.Fatal(err)
	}
	const head, end = "|---|---|---|\n", "\n\n<!-- end of the table of permissions -->"
	before, rest, ok := strings.Cut(string(page), "| key | API | needs |\n"+head)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatal("the page has no place for the table")
	}
	want := before + "| key | API | needs |\n" + head + strings.TrimSuffix(table.String(), "\n") + end + after
	if *writeProtocol {
		if err := os.WriteFile(securityPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if d := cmp.Diff(string(page), want); d != "" {
		t.Errorf("run: go test ./internal/broker -run TestPermissionsAreDocumented -write\n%s", d)
	}
}

// TestClientsOfOtherNodesAreAuthorised proves that a request which another node has sent on is judged by the principal and the address that
// this node tells of its client, that a client of which it tells none is anonymous, and that only a node may do everything.
func TestClientsOfOtherNodesAreAuthorised(t *testing.T) {
	g := newSecuredRig(t, func(c *auth.Config) { c.SuperUsers = []auth.Principal{auth.User("root")} })
	g.apply(meta.ACLSet{ACL: meta.ACL{
		Principal: "User:alice", Host: "10.0.0.1", Resource: meta.TopicResource, Pattern: meta.LiteralPattern, Name: "t", Operation: meta.Create, Permission: meta.Allow,
	}})
	f := func(q wire.Carried, want bool) {
		t.Helper()
		if by := g.broker.accessOfCarried(&q); by.mayTopic(meta.Create, "t") != want {
			t.Errorf("%+v: %v", q, !want)
		}
	}
	f(wire.Carried{Principal: "User:alice", Address: "10.0.0.1:5"}, true)
	f(wire.Carried{Principal: "User:alice", Address: "10.0.0.2:5"}, false)
	f(wire.Carried{Principal: "User:bob", Address: "10.0.0.1:5"}, false)
	f(wire.Carried{Principal: "User:root", Address: "10.0.0.1:5"}, true)
	f(wire.Carried{Address: "10.0.0.1:5"}, false)
	f(wire.Carried{Principal: "alice", Address: "10.0.0.1:5"}, false)
	f(wire.Carried{IsPeer: true}, true)
	g.apply(meta.ACLSet{ACL: meta.ACL{
		Principal: "Group:team", Host: meta.AnyHost, Resource: meta.TopicResource, Pattern: meta.LiteralPattern, Name: "t", Operation: meta.AdminRole, Permission: meta.Allow,
	}})
	f(wire.Carried{Principal: "User:bob", Groups: []string{"team"}, Address: "10.0.0.1:5"}, true)
	f(wire.Carried{Principal: "User:bob", Groups: []string{"other"}, Address: "10.0.0.1:5"}, false)
	f(wire.Carried{Principal: "User:bob", Address: "10.0.0.1:5"}, false)
	g.allow(meta.Create, meta.TopicResource, "t")
	f(wire.Carried{}, true)
}
