package broker

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// grantRole grants a role on topics to a principal.
func (g *rig) grantRole(role meta.Operation, principal string, pattern meta.PatternType, name string) {
	g.t.Helper()
	g.apply(meta.ACLSet{ACL: meta.ACL{
		Principal: principal, Host: meta.AnyHost, Resource: meta.TopicResource, Pattern: pattern, Name: name, Operation: role, Permission: meta.Allow,
	}})
}

// TestPermissionsAreOperations proves that auth.OperationsOn has the operations that requests need, and no others but those that Kafka has for what is not served.
func TestPermissionsAreOperations(t *testing.T) {
	needed := map[right]bool{}
	note := func(op meta.Operation, on meta.ResourceType) {
		if whole, isPart := auth.PartOf(op); isPart {
			op = whole
		}
		if !slices.Contains(auth.OperationsOn(on), op) {
			t.Errorf("%s on %s is needed, and not among the operations", auth.OperationName(op), auth.ResourceName(on))
		}
		needed[right{op, on}] = true
	}
	for _, p := range apiPermissions() {
		if p.cluster != 0 {
			note(p.cluster, meta.ClusterResource)
		}
		for _, r := range p.each {
			note(r.op, r.on)
		}
	}
	needed[right{meta.TwoPhaseCommit, meta.TransactionalIDResource}] = true // not served
	for on := meta.TopicResource; on <= meta.UserResource; on++ {
		for _, op := range auth.OperationsOn(on) {
			if !needed[right{op, on}] {
				t.Errorf("%s on %s is needed by no request", auth.OperationName(op), auth.ResourceName(on))
			}
		}
	}
}

// TestRolesMayCallAPIs proves which requests of a walk through all APIs each role is refused, granted for all topics and for a prefix: an operator
// neither reads nor writes records, and changes neither users nor what they may do; an admin for all topics may do all that is not for nodes.
func TestRolesMayCallAPIs(t *testing.T) {
	// These change what others need, and are asked last.
	last := []string{"delete offsets", "delete groups", "delete topics", "delete acls"}
	// refusedBy are the requests that someone with a role is refused, in whole or in part.
	refusedBy := func(t *testing.T, role meta.Operation, pattern meta.PatternType, name string) []string {
		t.Helper()
		g := newSecuredRig(t)
		g.allow(meta.AllOperations, meta.TransactionalIDResource, meta.AnyName)
		initTransactional(t, dial(t, g.addr), hiddenGroup)
		g.revokeAll()
		g.grantRole(role, meta.AnyPrincipal, pattern, name)
		requests := walk(t, hiddenTopic, hiddenGroup)
		steps := append(slices.DeleteFunc(sortedKeys(requests), func(s string) bool { return slices.Contains(last, s) }), last...)
		var refused []string
		for _, step := range steps {
			req := requests[step]
			versions := versionsOf(g.broker.findAPI(req.Key()), step)
			req.SetVersion(versions[len(versions)-1])
			if refusals.MatchString(plain(t, ask[kmsg.Response](dial(t, g.addr), req))) {
				refused = append(refused, step)
			}
		}
		slices.Sort(refused)
		return refused
	}
	giveRights := []string{"alter users", "create acls", "delete acls"}
	f := func(role meta.Operation, pattern meta.PatternType, name, want string) {
		t.Helper()
		got := refusedBy(t, role, pattern, name)
		if d := cmp.Diff(strings.Split(want, ", "), got); d != "" {
			t.Errorf("%s on %s is refused %s (-want +got)\n%s", auth.OperationName(role), name, strings.Join(got, ", "), d)
		}
		if role == meta.AdminRole && pattern == meta.LiteralPattern {
			return
		}
		for _, step := range giveRights {
			if !slices.Contains(got, step) {
				t.Errorf("%s on %s may %s", auth.OperationName(role), name, step)
			}
		}
	}
	// Topics and groups of the walk begin with "secret" and "group". Changes of configs, and the like, name nodes beside topics.
	f(meta.ReaderRole, meta.LiteralPattern, "*", "add offsets, add partitions, add partitions of many, add voter, alter configs, alter quotas, alter users, change configs, commit in a transaction, "+
		"configs, create acls, create topics, delete acls, delete groups, delete offsets, delete topics, describe acls, elect, end transaction, features, find "+
		"transaction, log dirs, markers, more partitions, move replicas, produce, produce in a transaction, producer id, quorum, quotas, reassign, "+
		"reassignments, remove voter, resources, transactional id, transactions, trim, unregister, users")
	f(meta.WriterRole, meta.LiteralPattern, "*", "add offsets, add partitions of many, add voter, alter configs, alter quotas, alter users, change configs, commit, commit in a transaction, configs, "+
		"consumer groups, create acls, create topics, delete acls, delete groups, delete offsets, delete topics, describe acls, describe groups, elect, "+
		"features, fetch, fetch offset, fetch offsets, find group, heartbeat, join, leave, log dirs, markers, more partitions, move replicas, producers, "+
		"quorum, quotas, reassign, reassignments, remove voter, resources, share groups, streams groups, sync, trim, unregister, users")
	f(meta.OperatorRole, meta.LiteralPattern, "*", "add offsets, add partitions, add partitions of many, add voter, alter configs, alter users, change configs, commit in a transaction, create acls, "+
		"create topics, delete acls, delete groups, delete offsets, delete topics, end transaction, features, fetch, markers, more partitions, produce, produce "+
		"in a transaction, producer id, remove voter, transactional id, trim, unregister")
	f(meta.OperatorRole, meta.PrefixedPattern, "secret", "add offsets, add partitions, add partitions of many, add voter, alter configs, alter quotas, alter users, change configs, commit, commit in a "+
		"transaction, configs, consumer groups, create acls, create topics, delete acls, delete groups, delete offsets, delete topics, describe acls, describe "+
		"groups, elect, end transaction, features, fetch, fetch offset, fetch offsets, find group, find transaction, heartbeat, join, leave, log dirs, markers, "+
		"more partitions, move replicas, produce, produce in a transaction, producer id, quorum, quotas, reassign, reassignments, remove voter, resources, "+
		"share groups, streams groups, sync, transactional id, transactions, trim, unregister, users")
	f(meta.AdminRole, meta.PrefixedPattern, "secret", "add offsets, add partitions, add partitions of many, add voter, alter configs, alter quotas, alter users, change configs, commit, commit in a "+
		"transaction, configs, consumer groups, create acls, delete acls, delete groups, delete offsets, describe acls, describe groups, elect, end "+
		"transaction, features, fetch offset, fetch offsets, find group, find transaction, heartbeat, join, leave, log dirs, markers, move replicas, produce in "+
		"a transaction, quorum, quotas, reassign, reassignments, remove voter, resources, share groups, streams groups, sync, transactional id, transactions, "+
		"unregister, users")
	f(meta.AdminRole, meta.LiteralPattern, "*", "add partitions of many")
}

// TestRolesAreSeen proves that the operations which a client is told are those of its role, that lists have what the role may see, that a role is taken
// back at once on open connections, and that Kafka's requests about all ACLs neither show nor delete roles.
func TestRolesAreSeen(t *testing.T) {
	g := newSecuredRig(t, func(c *auth.Config) { c.SuperUsers = []auth.Principal{auth.Anonymous()} })
	root := dial(t, g.addr)
	grant := kmsg.NewPtrCreateACLsRequest()
	grant.Version = 3
	grant.Creations = []kmsg.CreateACLsRequestCreation{{
		ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: "secret", ResourcePatternType: kmsg.ACLResourcePatternTypePrefixed, Principal: "Group:team", Host: "*",
		Operation: kmsg.ACLOperation(meta.OperatorRole), PermissionType: kmsg.ACLPermissionTypeAllow,
	}}
	if r := ask[*kmsg.CreateACLsResponse](root, grant).Results[0]; r.ErrorCode != none {
		t.Fatalf("%+v", r)
	}
	by := g.broker.accessOf(g.broker.rules(), auth.User("alice"), []string{"team"}, "10.0.0.1")
	other := g.broker.accessOf(g.broker.rules(), auth.User("alice"), nil, "10.0.0.1")
	const all = 1<<16 - 1
	if got := by.operations(all, meta.TopicResource, hiddenTopic); got != 1<<meta.Describe|1<<meta.DescribeConfigs|1<<meta.AlterConfigs {
		t.Errorf("operations on a topic: %b", got)
	}
	if by.operations(all, meta.TopicResource, "public") != 0 || other.operations(all, meta.TopicResource, hiddenTopic) != 0 {
		t.Error("operations on another topic, or of somebody else")
	}
	if !by.mayTopic(auth.CommitOffsets, hiddenTopic) || by.mayTopic(meta.Read, hiddenTopic) {
		t.Error("an operator sets offsets and reads nothing")
	}
	describe := &kmsg.DescribeACLsRequest{Version: 3, ResourceType: 1, ResourcePatternType: 1, Operation: 1, PermissionType: 1}
	erase := &kmsg.DeleteACLsRequest{Version: 3, Filters: []kmsg.DeleteACLsRequestFilter{{ResourceType: 1, ResourcePatternType: 1, Operation: 1, PermissionType: 1}}}
	if r := ask[*kmsg.DescribeACLsResponse](root, describe); r.ErrorCode != none || len(r.Resources) != 0 {
		t.Errorf("all ACLs: %+v", r)
	}
	if r := ask[*kmsg.DeleteACLsResponse](root, erase).Results[0]; r.ErrorCode != none || len(r.MatchingACLs) != 0 {
		t.Errorf("all ACLs are deleted: %+v", r)
	}
	describe.Operation, erase.Filters[0].Operation = kmsg.ACLOperation(meta.AnyRole), kmsg.ACLOperation(meta.AnyRole)
	if r := ask[*kmsg.DescribeACLsResponse](root, describe); len(r.Resources) != 1 || r.Resources[0].ACLs[0].Operation != kmsg.ACLOperation(meta.OperatorRole) {
		t.Errorf("all roles: %+v", r)
	}
	if r := ask[*kmsg.DeleteACLsResponse](root, erase).Results[0]; len(r.MatchingACLs) != 1 || r.MatchingACLs[0].Principal != "Group:team" {
		t.Errorf("all roles are deleted: %+v", r)
	}
	if by.mayTopic(meta.Describe, hiddenTopic) {
		t.Error("a role counts that was taken back")
	}
}

// groupMechanism logs a client in as "alice", in the groups that it names itself.
type groupMechanism struct{}

func (groupMechanism) Name() string         { return "GROUPS" }
func (groupMechanism) Start() auth.Exchange { return groupMechanism{} }
func (groupMechanism) Step(_ context.Context, message []byte) ([]byte, *auth.Login, error) {
	return []byte{}, &auth.Login{Principal: auth.User(aliceName), Groups: strings.Fields(string(message)), Lifetime: time.Hour}, nil
}

// TestGroupsAreThoseOfTheLastLogin proves that what a client may do by its groups is decided by the groups of its last login on the connection.
func TestGroupsAreThoseOfTheLastLogin(t *testing.T) {
	g := newRig(t, func(c *Config) {
		c.Logins = []*Login{NewLogin(LoginConfig{Mechanisms: []auth.Mechanism{groupMechanism{}}})}
		var err error
		if c.Authorizer, err = auth.New(auth.Config{Image: c.Image}); err != nil {
			t.Fatal(err)
		}
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel})
	g.topic("orders", 1)
	g.grantRole(meta.ReaderRole, "Group:readers", meta.PrefixedPattern, "ord")
	c := dial(t, g.addr)
	f := func(groups string, want int16) {
		t.Helper()
		if r := ask[*kmsg.SASLHandshakeResponse](c, handshake(1, "GROUPS")); r.ErrorCode != none {
			t.Fatalf("%+v", r)
		}
		if r := ask[*kmsg.SASLAuthenticateResponse](c, authenticate(2, groups)); r.ErrorCode != none {
			t.Fatalf("%+v", r)
		}
		if r := ask[*kmsg.FetchResponse](c, get("orders", 0, 0)); r.Topics[0].Partitions[0].ErrorCode != want {
			t.Errorf("in the groups %q: %+v", groups, r)
		}
	}
	f("others", 29)
	waitFor(t, leastAgain+100*time.Millisecond)
	f("others readers", none)
	waitFor(t, leastAgain+100*time.Millisecond)
	f("others", 29)
}
