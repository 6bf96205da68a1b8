package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/leatstream/leat/internal/meta"
)

// issuer makes tokens that nodes with its settings accept.
type issuer struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	keys string // the file with its public key
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: string(jose.ES256), Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key, keys: filepath.Join(t.TempDir(), "keys.json")}
	if err := os.WriteFile(i.keys, set, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// settings have a node accept the issuer's tokens.
func (i *issuer) settings() map[string]string {
	return map[string]string{
		"sasl.enabled.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.jwks.endpoint.url": "file://" + i.keys, "sasl.oauthbearer.expected.audience": "leat",
		"sasl.oauthbearer.expected.issuer": "https://issuer.example", "super.users": "User:root;Group:ops",
	}
}

// token is a token of a user that is in groups.
func (i *issuer) token(user string, groups ...string) string {
	i.t.Helper()
	return i.sign(map[string]any{
		"iss": "https://issuer.example", "aud": "leat", "sub": user, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "groups": groups,
	})
}

// sign is a token that makes claims.
func (i *issuer) sign(claims map[string]any) string {
	i.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "one"))
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// logIn has a client log in with a token.
func (i *issuer) logIn(user string, groups ...string) kgo.Opt {
	return kgo.SASL(oauth.Auth{Token: i.token(user, groups...)}.AsMechanism())
}

// changeRole grants or revokes a role by a request to one node, whether it is the active controller or not.
func changeRole(ctx context.Context, t *testing.T, at *kgo.Broker, role meta.ACL, revoke bool) {
	t.Helper()
	var code int16
	if revoke {
		req := kmsg.NewPtrDeleteACLsRequest()
		req.Filters = []kmsg.DeleteACLsRequestFilter{{
			Principal: &role.Principal, Host: &role.Host, ResourceName: &role.Name, ResourceType: kmsg.ACLResourceType(role.Resource),
			ResourcePatternType: kmsg.ACLResourcePatternType(role.Pattern), Operation: kmsg.ACLOperation(role.Operation), PermissionType: kmsg.ACLPermissionTypeAllow,
		}}
		resp, err := req.RequestWith(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		code = resp.Results[0].ErrorCode
	} else {
		req := kmsg.NewPtrCreateACLsRequest()
		req.Creations = []kmsg.CreateACLsRequestCreation{{
			Principal: role.Principal, Host: role.Host, ResourceName: role.Name, ResourceType: kmsg.ACLResourceType(role.Resource),
			ResourcePatternType: kmsg.ACLResourcePatternType(role.Pattern), Operation: kmsg.ACLOperation(role.Operation), PermissionType: kmsg.ACLPermissionTypeAllow,
		}}
		resp, err := req.RequestWith(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		code = resp.Results[0].ErrorCode
	}
	if err := kerr.ErrorForCode(code); err != nil {
		t.Fatal(err)
	}
}

// topicCode is the code for a topic of which a node is asked.
func topicCode(ctx context.Context, at *kgo.Broker, topic string) int16 {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	resp, err := req.RequestWith(ctx, at)
	if err != nil || len(resp.Topics) != 1 {
		return -1
	}
	return resp.Topics[0].ErrorCode
}

// makeTopic has a node make a topic, and returns the code for it.
func makeTopic(ctx context.Context, t *testing.T, at *kgo.Broker, topic string) int16 {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 3}}
	req.TimeoutMillis = 10_000
	resp, err := req.RequestWith(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].ErrorCode
}

// TestRolesOfGroups proves on a cluster of three nodes whose clients log in by OAUTHBEARER that a role which was granted to a group by way of one
// node counts on all others, for those whose token says that they are in the group, and for nobody else; that a request which a node sends on to the active
// controller is judged by the client's groups, too; that a role is taken back at once on open connections; and that a group may be a super user.
func TestRolesOfGroups(t *testing.T) {
	i := newIssuer(t)
	m := &machines{t: t, logins: i.settings()}
	m.begin(3)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	root, ops := m.client(i.logIn("root")), m.client(i.logIn("olga", "staff", "ops"))
	alice, bob := m.client(i.logIn("alice", "team-a", "team-b")), m.client(i.logIn("bob", "team-b"))
	nodes := []int{1, 2, 3}
	for _, node := range nodes { // three replicas need three nodes that serve
		eventually(t, "a node makes topics for super users", func() bool {
			return makeTopic(ctx, t, root.Broker(node), fmt.Sprint("ready-", node)) == 0
		})
	}
	for n, topic := range []string{"pay-1", "other"} {
		if code := makeTopic(ctx, t, []*kgo.Client{root, ops}[n].Broker(1), topic); code != 0 {
			t.Fatalf("%s: code %d", topic, code)
		}
	}
	refused := kerr.TopicAuthorizationFailed.Code
	role := meta.ACL{
		Principal: "Group:team-a", Host: meta.AnyHost, Resource: meta.TopicResource, Pattern: meta.PrefixedPattern, Name: "pay-", Operation: meta.AdminRole, Permission: meta.Allow,
	}
	for n, node := range nodes {
		for _, other := range nodes {
			if code := topicCode(ctx, alice.Broker(other), "pay-1"); code != refused {
				t.Errorf("before a role is granted, node %d says %d", other, code)
			}
		}
		changeRole(ctx, t, root.Broker(node), role, false)
		for _, other := range nodes {
			eventually(t, fmt.Sprintf("the role that node %d was asked for counts on node %d", node, other), func() bool {
				return topicCode(ctx, alice.Broker(other), "pay-1") == 0
			})
			if code := topicCode(ctx, bob.Broker(other), "pay-1"); code != refused {
				t.Errorf("node %d says %d to somebody in another group", other, code)
			}
			if code := topicCode(ctx, alice.Broker(other), "other"); code != refused {
				t.Errorf("node %d says %d for a topic without the prefix", other, code)
			}
			topic := fmt.Sprintf("pay-%d-%d", n, other)
			if code := makeTopic(ctx, t, alice.Broker(other), topic); code != 0 {
				t.Errorf("node %d does not let the group make %s: %d", other, topic, code)
			}
			if code := makeTopic(ctx, t, bob.Broker(other), topic+"-b"); code != refused {
				t.Errorf("node %d lets another group make a topic: %d", other, code)
			}
		}
		if err := alice.ProduceSync(ctx, &kgo.Record{Topic: "pay-1", Value: []byte("x")}).FirstErr(); err != nil {
			t.Errorf("a member of the group cannot write: %v", err)
		}
		changeRole(ctx, t, root.Broker(node), role, true)
		for _, other := range nodes {
			eventually(t, "the role is taken back", func() bool { return topicCode(ctx, alice.Broker(other), "pay-1") == refused })
		}
		if err := alice.ProduceSync(ctx, &kgo.Record{Topic: "pay-1", Value: []byte("x")}).FirstErr(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("a role is taken back, and its client writes on: %v", err)
		}
	}
}

// TestMembersOfGroupsGetNoTokens proves that nobody leaves a group by a delegation token, which has none: what ACLs deny to the group would be allowed. It does not
// matter which node is asked.
func TestMembersOfGroupsGetNoTokens(t *testing.T) {
	i := newIssuer(t)
	settings := i.settings()
	settings["delegation.token.secret.key"] = "a key of this test alone"
	m := &machines{t: t, logins: settings}
	m.begin(2)
	ctx := deadline(t)
	create := func(node int, user string, groups ...string) int16 {
		t.Helper()
		var code int16
		eventually(t, "a node answers", func() bool {
			resp, err := kmsg.NewPtrCreateDelegationTokenRequest().RequestWith(ctx, m.client(i.logIn(user, groups...)).Broker(node))
			if err != nil {
				return false
			}
			code = resp.ErrorCode
			return true
		})
		return code
	}
	for node := range 2 {
		if code := create(node+1, "alice", "interns"); code != kerr.DelegationTokenRequestNotAllowed.Code {
			t.Errorf("node %d answers a member of a group with %d", node+1, code)
		}
		if code := create(node+1, "bob"); code != 0 {
			t.Errorf("node %d answers a user in no group with %d", node+1, code)
		}
	}
}

// TestTokenLogins proves on a node that clients log in by OAUTHBEARER as whom their token names, until the token ends, and that no other token lets
// anybody in.
func TestTokenLogins(t *testing.T) {
	i := newIssuer(t)
	m := &machines{t: t, logins: i.settings()}
	m.begin(1)
	ctx := deadline(t)
	tryAs := func(mechanism kgo.Opt) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(m.ports...), mechanism, kgo.RequestRetries(0))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		const anything = 1
		req := &kmsg.DescribeACLsRequest{ResourceType: anything, ResourcePatternType: anything, Operation: anything, PermissionType: anything}
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	}
	describe := func(user string, groups ...string) error { return tryAs(i.logIn(user, groups...)) }
	if err := describe("root"); err != nil {
		t.Errorf("a super user: %v", err)
	}
	if err := describe("alice"); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Errorf("a user: %v", err)
	}
	if err := describe("alice", "ops"); err != nil {
		t.Errorf("a user in a group of super users: %v", err)
	}
	isRefused := func(err error) bool { return err != nil && strings.Contains(err.Error(), "oauth") } // the client's words for it
	if err := tryAs(newIssuer(t).logIn("root")); !isRefused(err) {
		t.Errorf("a token of another issuer: %v", err)
	}
	if err := tryAs(kgo.SASL(oauth.Auth{Token: "x.y.z"}.AsMechanism())); !isRefused(err) {
		t.Errorf("no token: %v", err)
	}
}
