package broker

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
)

// recorded is an audit log in memory.
type recorded struct {
	t    testing.TB
	to   *audit.Recorder
	seen int

	mu    sync.Mutex
	lines []*audit.Line
	text  strings.Builder
}

func (m *recorded) Append(_ context.Context, lines [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range lines {
		l, err := audit.ParseLine(b)
		if err != nil {
			m.t.Error(err)
			continue
		}
		m.text.Write(b)
		m.lines = append(m.lines, l)
	}
	return nil
}

func (*recorded) Close() error { return nil }

// newRecorded makes an audit log of all kinds.
func newRecorded(tb testing.TB) *recorded {
	tb.Helper()
	m := &recorded{t: tb}
	m.to = audit.NewRecorder(context.Background(), audit.Config{Kinds: []audit.Kind{audit.Logins, audit.Denials, audit.Changes, audit.Reads, audit.Writes}}, audit.NewTrail(audit.TrailConfig{
		Name: "test", Sink: m, Cluster: "c", Node: 1, Start: "s", Logger: slog.New(slog.DiscardHandler),
		Load: func() ([]byte, error) { return nil, nil }, Save: func([]byte) error { return nil },
	}))
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		m.to.Close(ctx)
	})
	return m
}

// next are the events since the last call, as "type subject result operation".
func (m *recorded) next() (list []string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m.to.Flush(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lines[m.seen:] {
		if l.Type != audit.Started && l.Type != audit.Anchor {
			list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(string(l.Type), "leat."), l.Subject, l.Data.Result, l.Data.Operation)))
		}
	}
	m.seen = len(m.lines)
	return list
}

func (m *recorded) want(what string, events ...string) {
	m.t.Helper()
	got := m.next()
	slices.Sort(got)
	slices.Sort(events)
	if !slices.Equal(got, events) {
		m.t.Errorf("%s: recorded %q, want %q", what, got, events)
	}
}

// TestDenialsAreRecorded proves that what is refused to a client is recorded, once, with what it has asked for; that lists which leave out what it may
// not see are not; and that what it may do leaves no trace but for the use of topics.
func TestDenialsAreRecorded(t *testing.T) {
	m := newRecorded(t)
	var groups *group.Service
	g := newAdminRig(t, nil, func(c *Config) {
		c.Audit = m.to
		c.Authorizer, _ = auth.New(auth.Config{Image: c.Image})
		groups = group.New(group.Config{Logger: c.Logger, Partitions: func() int32 { return 1 }})
		t.Cleanup(groups.Close)
		c.Groups = groups
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel})
	g.topic(group.Topic, 1)
	groups.StartLeading(0, 0, g.set.Partition(group.Topic, 0))
	g.topic("secret", 1)
	g.topic("open", 1)
	g.allow(meta.Read, meta.TopicResource, "open")
	g.allow(meta.Write, meta.TopicResource, "open")
	c := dial(t, g.addr)
	m.want("before anything")
	steps := []auditStep{
		{"produce", put("secret", 0, -1, batch(t, "x")), []string{"access.denied topic/secret denied WRITE"}},
		{"fetch", get("secret", 0, 0), []string{"access.denied topic/secret denied READ"}},
		{"all topics", at(12, kmsg.NewPtrMetadataRequest()), nil},
		{"a topic", namedMetadata("secret"), []string{"access.denied topic/secret denied DESCRIBE"}},
		{"a topic that is not", namedMetadata("absent"), []string{"access.denied topic/absent denied DESCRIBE"}},
		{"all groups", at(4, kmsg.NewPtrListGroupsRequest()), nil},
		{"ACLs", describeAllACLs(), []string{"access.denied cluster/kafka-cluster denied DESCRIBE"}},
		{"new topic", newTopicRequest("mine"), []string{"access.denied topic/mine denied CREATE"}},
		{"deleted topic", deleteTopicRequest("secret"), []string{"access.denied topic/secret denied DESCRIBE"}},
		{"deleted topic that it sees", deleteTopicRequest("open"), []string{"access.denied topic/open denied DELETE"}},
		{"deleted group", deleteGroupRequest("g"), []string{"access.denied group/g denied DELETE"}},
		{"allowed write", put("open", 0, -1, batch(t, "x")), []string{"topic.written topic/open allowed WRITE"}},
		{"allowed write again", put("open", 0, -1, batch(t, "x")), nil},
		{"allowed read", get("open", 0, 0), []string{"topic.read topic/open allowed READ"}},
		{"allowed read again", get("open", 0, 0), nil},
	}
	for _, s := range steps {
		ask[kmsg.Response](c, s.req)
		m.want(s.name, s.events...)
	}
	for range 50 { // the first one was recorded above
		ask[kmsg.Response](c, put("secret", 0, -1, batch(t, "x")))
	}
	m.want("a flood", "access.denied topic/secret denied WRITE", "access.denied topic/secret denied WRITE") // the first one, and the sum of the others
	last := m.lines[len(m.lines)-1]
	if last.Type == audit.Anchor {
		last = m.lines[len(m.lines)-2]
	}
	if last.Data.Count != 49 || last.Data.Principal != "User:ANONYMOUS" || last.Data.API != "Produce" || !strings.HasPrefix(last.Data.Address, "127.0.0.1:") {
		t.Errorf("%+v, want 49 of ANONYMOUS", last.Data)
	}
}

func namedMetadata(topic string) *kmsg.MetadataRequest {
	req := at(12, kmsg.NewPtrMetadataRequest())
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	return req
}

func describeAllACLs() *kmsg.DescribeACLsRequest {
	req := at(3, kmsg.NewPtrDescribeACLsRequest())
	req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	return req
}

func newTopicRequest(name string) *kmsg.CreateTopicsRequest {
	req := at(7, kmsg.NewPtrCreateTopicsRequest())
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: new("1000")}}
	req.Topics = append(req.Topics, topic)
	return req
}

func deleteTopicRequest(name string) *kmsg.DeleteTopicsRequest {
	req := at(6, kmsg.NewPtrDeleteTopicsRequest())
	req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
	return req
}

func deleteGroupRequest(name string) *kmsg.DeleteGroupsRequest {
	req := at(2, kmsg.NewPtrDeleteGroupsRequest())
	req.Groups = []string{name}
	return req
}

func commitRequest(offset int64) *kmsg.OffsetCommitRequest {
	req := at(8, kmsg.NewPtrOffsetCommitRequest())
	req.Group, req.Generation = "g", -1
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: offset, LeaderEpoch: -1}}}}
	return req
}

func configRequest(t kmsg.ConfigResourceType, name string, configs ...string) *kmsg.IncrementalAlterConfigsRequest {
	req := at(1, kmsg.NewPtrIncrementalAlterConfigsRequest())
	r := kmsg.IncrementalAlterConfigsRequestResource{ResourceType: t, ResourceName: name}
	for i := 0; i < len(configs); i += 2 {
		r.Configs = append(r.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: configs[i], Value: &configs[i+1]})
	}
	req.Resources = append(req.Resources, r)
	return req
}

// auditStep is a request, and what is to be recorded of it.
type auditStep struct {
	name   string
	req    kmsg.Request
	events []string
}

// planted are secrets that requests of TestChangesAreRecorded carry. No event has one.
const planted = "Pl4nted"

// changeSteps are changes of all kinds, and what is to be recorded of them.
func changeSteps(tb testing.TB) []auditStep {
	tb.Helper()
	validate := newTopicRequest("checked")
	validate.ValidateOnly = true
	more := at(3, kmsg.NewPtrCreatePartitionsRequest())
	more.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "t", Count: 3}}
	replace := at(2, kmsg.NewPtrAlterConfigsRequest())
	replace.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "t", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: new("5000")}}}}
	trim := at(2, kmsg.NewPtrDeleteRecordsRequest())
	trim.TimeoutMillis = 1000
	trim.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "t", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: 1}}}}
	acl := at(3, kmsg.NewPtrCreateACLsRequest())
	acl.Creations = []kmsg.CreateACLsRequestCreation{{
		ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: "t", ResourcePatternType: kmsg.ACLResourcePatternTypeLiteral, Principal: "User:alice", Host: "*",
		Operation: kmsg.ACLOperationRead, PermissionType: kmsg.ACLPermissionTypeAllow,
	}}
	noACL := at(3, kmsg.NewPtrDeleteACLsRequest())
	noACL.Filters = []kmsg.DeleteACLsRequestFilter{{ResourceType: kmsg.ACLResourceTypeTopic, ResourcePatternType: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny, PermissionType: kmsg.ACLPermissionTypeAny}}
	user := at(0, kmsg.NewPtrAlterUserSCRAMCredentialsRequest())
	user.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: "alice", Mechanism: 1, Iterations: 4096, Salt: []byte(planted), SaltedPassword: []byte(strings.Repeat(planted, 5)[:32])}}
	noUser := at(0, kmsg.NewPtrAlterUserSCRAMCredentialsRequest())
	noUser.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "alice", Mechanism: 1}}
	other := at(0, kmsg.NewPtrAlterUserSCRAMCredentialsRequest())
	other.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: "alice", Mechanism: 2, Iterations: 4096, Salt: []byte(planted), SaltedPassword: []byte(strings.Repeat(planted, 11)[:64])}}
	none := at(0, kmsg.NewPtrAlterUserSCRAMCredentialsRequest())
	none.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "alice", Mechanism: int8(auth.EveryMechanism)}}
	role := at(3, kmsg.NewPtrCreateACLsRequest())
	role.Creations = []kmsg.CreateACLsRequestCreation{{
		ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: "t", ResourcePatternType: kmsg.ACLResourcePatternTypeLiteral, Principal: "User:alice", Host: "*",
		Operation: kmsg.ACLOperation(meta.ReaderRole), PermissionType: kmsg.ACLPermissionTypeAllow,
	}}
	noRole := at(3, kmsg.NewPtrDeleteACLsRequest())
	noRole.Filters = []kmsg.DeleteACLsRequestFilter{{
		ResourceType: kmsg.ACLResourceTypeTopic, ResourcePatternType: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperation(meta.ReaderRole), PermissionType: kmsg.ACLPermissionTypeAny,
	}}
	quota := at(1, kmsg.NewPtrAlterClientQuotasRequest())
	quota.Entries = []kmsg.AlterClientQuotasRequestEntry{{
		Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: new("alice")}}, Ops: []kmsg.AlterClientQuotasRequestEntryOp{{Key: "producer_byte_rate", Value: 1000}},
	}}
	move := at(1, kmsg.NewPtrAlterPartitionAssignmentsRequest())
	move.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: "t", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: 0, Replicas: []int32{77}}}}}
	elect := at(2, kmsg.NewPtrElectLeadersRequest())
	elect.TimeoutMillis = 1000
	elect.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "t", Partitions: []int32{0}}}
	feature := at(2, kmsg.NewPtrUpdateFeaturesRequest())
	feature.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "no.such", MaxVersionLevel: 1, UpgradeType: 1}}
	gone := at(0, kmsg.NewPtrUnregisterBrokerRequest())
	gone.BrokerID = 77
	drop := at(0, kmsg.NewPtrOffsetDeleteRequest())
	drop.Group, drop.Topics = "g", []kmsg.OffsetDeleteRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}
	return []auditStep{
		{"create", newTopicRequest("t"), []string{"topic.created topic/t allowed"}},
		{"create again", newTopicRequest("t"), []string{"topic.created topic/t failed"}},
		{"validate", validate, nil},
		{"audit topic", newTopicRequest(meta.AuditTopic), []string{"topic.created topic/" + meta.AuditTopic + " failed"}},
		{"partitions", more, []string{"partitions.created topic/t allowed"}},
		{"records", put("t", 0, -1, batch(tb, "x")), []string{"topic.written topic/t allowed WRITE"}},
		{"trim", trim, []string{"records.deleted topic/t allowed"}},
		{"configs", configRequest(kmsg.ConfigResourceTypeTopic, "t", "retention.ms", "7000"), []string{"config.changed topic/t allowed"}},
		{"secret config", configRequest(kmsg.ConfigResourceTypeBroker, "1", "listener.name.x.ssl.key.password", planted, "no.such.config", planted), []string{"config.changed node/1 failed"}},
		{"logger", configRequest(kmsg.ConfigResourceTypeBrokerLogger, "1", "root", "DEBUG"), []string{"config.changed broker_logger/1 allowed"}},
		{"all configs", replace, []string{"config.changed topic/t allowed"}},
		{"ACL", acl, []string{"acl.created topic/t allowed"}},
		{"no ACL", noACL, []string{"acl.deleted topic/t allowed"}},
		{"role", role, []string{"role.granted topic/t allowed"}},
		{"no role", noRole, []string{"role.revoked topic/t allowed"}},
		{"user", user, []string{"user.created user/alice allowed"}},
		{"user again", user, []string{"user.changed user/alice allowed"}},
		{"user by another mechanism", other, []string{"user.changed user/alice allowed"}},
		{"user without a mechanism", noUser, []string{"user.changed user/alice allowed"}},
		{"no user", none, []string{"user.deleted user/alice allowed"}},
		{"no user again", none, []string{"user.deleted user/alice failed"}},
		{"quota", quota, []string{"quota.changed quota/user alice allowed"}},
		{"reassignment", move, []string{"reassignment.changed topic/t failed"}},
		{"election", elect, []string{"leader.elected topic/t failed"}},
		{"feature", feature, []string{"feature.changed feature/no.such failed"}},
		{"unregister", gone, []string{"broker.unregistered node/77 failed"}},
		{"offset", commitRequest(5), []string{"offsets.set group/g allowed"}},
		{"offset forwards", commitRequest(6), nil},
		{"offset backwards", commitRequest(3), []string{"offsets.set group/g allowed"}},
		{"offset deleted", drop, []string{"offsets.deleted group/g allowed"}},
		{"group", deleteGroupRequest("g"), []string{"group.deleted group/g allowed"}},
		{"delete", deleteTopicRequest("t"), []string{"topic.deleted topic/t allowed"}},
		{"question", at(12, kmsg.NewPtrMetadataRequest()), nil},
	}
}

// TestChangesAreRecorded proves that each change is recorded, once, with how it ended, and that no event has a secret.
func TestChangesAreRecorded(t *testing.T) {
	m := newRecorded(t)
	var groups *group.Service
	g := newAdminRig(t, nil, func(c *Config) {
		c.Audit = m.to
		c.Authorizer, _ = auth.New(auth.Config{Image: c.Image, SuperUsers: []auth.Principal{auth.Anonymous()}})
		groups = group.New(group.Config{Logger: c.Logger, Partitions: func() int32 { return 1 }})
		t.Cleanup(groups.Close)
		c.Groups = groups
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel})
	g.topic(group.Topic, 1)
	groups.StartLeading(0, 0, g.set.Partition(group.Topic, 0))
	c := dial(t, g.addr)
	for _, s := range changeSteps(t) {
		ask[kmsg.Response](c, s.req)
		m.want(s.name, s.events...)
	}
	text := m.text.String()
	for _, want := range []string{`"config.retention.ms":"7000"`, `"partitions":"3"`, "below 1", `"mechanisms":"SCRAM-SHA-256"`, `"producer_byte_rate":"1000"`, `"principal":"User:alice"`, `"(hidden)"`, "0 to 3"} {
		if !strings.Contains(text, want) {
			t.Errorf("no event has %s", want)
		}
	}
	if strings.Contains(text, planted) {
		t.Error("an event has a secret")
	}
	steps := changeSteps(t)
	for _, a := range g.broker.apis { // an API that comes must be recorded, too
		if a != nil && isChange(a) && a.key != writeTxnMarkersKey && (a.key < 38 || a.key > 40) && !slices.ContainsFunc(steps, func(s auditStep) bool { return s.req.Key() == a.key }) {
			t.Errorf("%s changes something, and no step shows what is recorded of it", a.name)
		}
	}
}

// TestTokensAreRecorded proves that delegation tokens which are created, renewed and expired are recorded, by whom and of whom, as are those that are
// refused; that questions about them are not; and that no event has what makes a token.
func TestTokensAreRecorded(t *testing.T) {
	m := newRecorded(t)
	g := newTokenRig(t, tokenSecret, func(c *Config) { c.Audit = m.to })
	as := func(user string) *client {
		c := dial(t, g.addr)
		c.logInAs(byPassword(user))
		m.want("the login of "+user, "login.succeeded  allowed")
		return c
	}
	alice, dave := as("alice"), as("dave")
	made := ask[*kmsg.CreateDelegationTokenResponse](alice, newToken(3, tokenRenewers("User:bob")))
	m.want("a token", "delegation.token.created delegation_token/"+made.TokenID+" allowed")
	ask[*kmsg.DescribeDelegationTokenResponse](alice, describeTokensOf(3))
	m.want("a question")
	ask[*kmsg.CreateDelegationTokenResponse](dave, newToken(3, tokenOwner("User", "alice")))
	m.want("a token of somebody", "access.denied user/User:alice denied CREATE_TOKENS")
	ask[*kmsg.CreateDelegationTokenResponse](dave, newToken(3, tokenRenewers("Group:bob")))
	m.want("a renewer who is no user", "delegation.token.created delegation_token failed")
	ask[*kmsg.RenewDelegationTokenResponse](alice, renewal(2, made.HMAC, 1000))
	m.want("a renewal", "delegation.token.renewed delegation_token allowed")
	ask[*kmsg.RenewDelegationTokenResponse](dave, renewal(2, made.HMAC, 1000))
	m.want("a renewal by somebody", "delegation.token.renewed delegation_token failed")
	ask[*kmsg.ExpireDelegationTokenResponse](dave, expiry(2, made.HMAC, -1))
	m.want("an end by somebody", "delegation.token.expired delegation_token failed")
	ask[*kmsg.ExpireDelegationTokenResponse](alice, expiry(2, made.HMAC, -1))
	m.want("an end", "delegation.token.expired delegation_token allowed")
	text := m.text.String()
	for _, want := range []string{
		`"type":"leat.delegation.token.created"`, `"owner":"User:alice"`, fmt.Sprintf(`"expiresMs":"%d"`, made.ExpiryTimestamp), `"error":"INVALID_PRINCIPAL_TYPE"`, `"error":"DELEGATION_TOKEN_OWNER_MISMATCH"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no event has %s", want)
		}
	}
	for _, secret := range []string{base64.StdEncoding.EncodeToString(made.HMAC), fmt.Sprintf("%x", made.HMAC), string(made.HMAC), "-secret"} {
		if strings.Contains(text, secret) {
			t.Errorf("an event has a secret: %s", text)
		}
	}
}

// TestManyChanges proves that a request with very many changes has a bounded number of events, of which the last one says that there were more.
func TestManyChanges(t *testing.T) {
	req, resp := kmsg.NewPtrDeleteGroupsRequest(), kmsg.NewPtrDeleteGroupsResponse()
	for i := range mostChanges + 500 {
		resp.Groups = append(resp.Groups, kmsg.DeleteGroupsResponseGroup{Group: fmt.Sprint("g", i)})
	}
	c := changeEvents{isSecret: configIsSecret, left: mostChanges}
	c.addAnswer(req, resp)
	c.addAnswer(req, resp)
	if len(c.list) != mostChanges+1 || !strings.Contains(c.list[mostChanges].Reason, "the others are not listed") {
		t.Errorf("%d events, the last one %+v", len(c.list), c.list[len(c.list)-1])
	}
}

// TestAuditTopicIsProtected proves that no client makes, writes, trims or deletes the audit log, whatever it may do.
func TestAuditTopicIsProtected(t *testing.T) {
	g := newAdminRig(t, nil)
	g.apply(meta.LevelSet{Level: meta.LatestLevel})
	c := dial(t, g.addr)
	if resp := ask[*kmsg.CreateTopicsResponse](c, newTopicRequest(meta.AuditTopic)); resp.Topics[0].ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("%+v", resp)
	}
	g.topic(meta.AuditTopic, 1)
	trim := at(2, kmsg.NewPtrDeleteRecordsRequest())
	trim.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: meta.AuditTopic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
	write := put(meta.AuditTopic, 0, -1, batch(t, "x"))
	if resp := ask[*kmsg.ProduceResponse](c, write); resp.Topics[0].Partitions[0].ErrorCode != kerr.InvalidTopicException.Code {
		t.Errorf("%+v", resp)
	}
	tool := dial(t, g.addr)
	tool.id = adminClientID
	if resp := ask[*kmsg.ProduceResponse](tool, write); resp.Topics[0].Partitions[0].ErrorCode != kerr.InvalidTopicException.Code {
		t.Errorf("%+v, for a client with the name of Kafka's tools", resp)
	}
	if resp := ask[*kmsg.DeleteRecordsResponse](c, trim); resp.Topics[0].Partitions[0].ErrorCode != kerr.InvalidTopicException.Code {
		t.Errorf("%+v", resp)
	}
	if resp := ask[*kmsg.DeleteTopicsResponse](c, deleteTopicRequest(meta.AuditTopic)); resp.Topics[0].ErrorCode != kerr.InvalidTopicException.Code || g.image.Load().Topic(meta.AuditTopic) == nil {
		t.Errorf("%+v", resp)
	}
}

// TestAuditCostsNoAllocation proves that a check that is allowed costs no allocation, also where uses are recorded.
func TestAuditCostsNoAllocation(t *testing.T) {
	m := newRecorded(t)
	g := newRig(t, func(c *Config) {
		c.Audit = m.to
		c.Authorizer, _ = auth.New(auth.Config{Image: c.Image})
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel})
	g.topic("t", 1)
	g.allow(meta.Write, meta.TopicResource, "t")
	by := g.broker.accessOf(g.broker.rules(), auth.Anonymous(), nil, "10.0.0.1")
	by.audit = &auditor{to: m.to, api: g.broker.apis[produceKey]}
	name := []byte("t")
	if n := testing.AllocsPerRun(100, func() {
		if !by.mayTopicBytes(meta.Write, name) {
			t.Fatal("it is denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAuditedProduce measures what a produce request costs whose use of its topic is recorded, beside one that is not.
func BenchmarkAuditedProduce(b *testing.B) {
	for _, isOn := range []bool{false, true} {
		b.Run(fmt.Sprint("audit=", isOn), func(b *testing.B) {
			g := newRig(b, func(c *Config) {
				c.Authorizer, _ = auth.New(auth.Config{Image: c.Image})
				if isOn {
					c.Audit = newRecorded(b).to
				}
			})
			g.apply(meta.LevelSet{Level: meta.LatestLevel})
			g.topic("t", 1, "flush.messages", "100000", "retention.bytes", "1048576")
			g.allow(meta.Write, meta.TopicResource, "t")
			reqs := make([]kmsg.Request, 64)
			for i := range reqs {
				reqs[i] = put("t", 0, 1, batch(b, string(make([]byte, 100))))
			}
			g.serve(b, reqs...)
		})
	}
}
