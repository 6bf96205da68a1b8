package node

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/tunnel"
	"github.com/leatstream/leat/internal/peer"
)

// behindName is the address that a source behind a NAT advertises, which no node of another cluster can dial.
const behindName = "broker-1.behind.invalid:9092"

// behindSite is a cluster of one node behind a NAT. Its clients reach it, and who is beside it reaches it at the address that it advertises.
type behindSite struct {
	*site

	hidden string // where behindName leads
}

// newBehind starts it. The test's own clients have a listener of their own.
func newBehind(t *testing.T) *behindSite {
	t.Helper()
	m := newCluster(t, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hidden := l.Addr().String()
	l.Close()
	m.stop(0)
	n, err := Start(t.Context(), Config{
		Data: m.dirs[0], Listen: []string{m.ports[0], "BEHIND=PLAINTEXT://" + hidden}, Advertise: []string{"BEHIND=" + behindName}, HTTP: "off",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("machine", "behind"), Settings: map[string]string{"group.initial.rebalance.delay.ms": "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.nodes[0] = n
	t.Cleanup(func() { m.stop(0) })
	return &behindSite{&site{m}, hidden}
}

// dial is how an agent beside the source reaches brokers.
func (s *behindSite) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address != behindName {
		return nil, fmt.Errorf("%s is not here", address)
	}
	return new(net.Dialer).DialContext(ctx, network, s.hidden)
}

// linkByAgent makes a link whose source is reached by agents.
func (s *site) linkByAgent() {
	s.t.Helper()
	s.mustServe(&cluster.LinkRequest{Verb: cluster.LinkCreate, Name: "north", Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: behindName}, {Key: "topics", Value: "*"}, {Key: "via", Value: "agent"}}})
}

func (s *site) serveLink(q *cluster.LinkRequest) (cluster.LinkAnswer, *controller.Error, error) {
	return s.any().linking.ServeLink(s.t.Context(), q)
}

func (s *site) mustServe(q *cluster.LinkRequest) {
	s.t.Helper()
	if a, refused, err := s.serveLink(q); err != nil || refused != nil || len(a.Problems) > 0 || !a.Changed {
		s.t.Fatalf("%s: %+v, %v, %v", q.Verb, a, refused, err)
	}
}

// agentToken makes a token as the verb does.
func (s *site) agentToken(link string, life time.Duration) credential.Token {
	s.t.Helper()
	token, err := credential.NewToken(s.any().peers.self.Cluster, rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	token = token.ForAgent()
	v := token.Verifier(time.Now().Add(life))
	s.mustServe(&cluster.LinkRequest{Verb: cluster.LinkAgentToken, Name: link, Agent: &meta.LinkAgent{Token: v.ID, Key: v.Key, Acceptor: v.Acceptor, Expires: v.Expires.UnixMilli()}})
	return token
}

// testAgent is an agent that runs.
type testAgent struct {
	cancel context.CancelFunc
	ended  chan error
}

// runAgent runs an agent, until the test ends or it is killed.
func runAgent(t *testing.T, to *site, at *behindSite, token credential.Token, key credential.NodeKey, name string) *testAgent {
	t.Helper()
	return runAgentWith(t, &tunnel.AgentConfig{
		Token: token, Key: key, Versions: peerVersions, Name: name, Nodes: to.ports, DialBroker: at.dial,
		Reach:  tunnel.NewReach([]string{behindName}, nil, slog.New(slog.DiscardHandler)),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("agent", name),
	})
}

func runAgentWith(t *testing.T, cfg *tunnel.AgentConfig) *testAgent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &testAgent{cancel: cancel, ended: make(chan error, 1)}
	go func() { a.ended <- tunnel.Run(ctx, cfg) }()
	t.Cleanup(a.kill)
	return a
}

func (a *testAgent) kill() {
	a.cancel()
	if a.ended != nil {
		<-a.ended
		a.ended = nil
	}
}

// await waits until the agent gives up.
func (a *testAgent) await(t *testing.T) (err error) {
	t.Helper()
	select {
	case err = <-a.ended:
		a.ended = nil
	case <-time.After(patience):
		t.Fatal("the agent goes on")
	}
	return err
}

func newKey(t *testing.T) credential.NodeKey {
	t.Helper()
	k, err := credential.NewNodeKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// agents are those that are connected, over all nodes, as name@node.
func (s *site) agents() (list []string) {
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		for _, a := range n.linking.ListAgents() {
			list = append(list, fmt.Sprintf("%s@%d", a.Name, a.Node))
		}
	}
	slices.Sort(list)
	return list
}

func (s *site) awaitAgents(want int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d agents are connected", want), func() bool { return len(s.agents()) == want })
}

// TestMirrorByAgents proves with a cluster of three that mirrors a source which it cannot dial: the link is made before anybody can ask the source, and learns who that is; all nodes reach the
// source by one agent, which was told one node only; mirroring goes on when the agent was killed and comes back, also with an end to its token, when a second one takes over, and when nodes are killed; and the agent of a token that was revoked is let go.
func TestMirrorByAgents(t *testing.T) {
	there, here := newBehind(t), newSite(t, 3)
	there.create("orders", 6, nil)
	there.produceAll("orders")
	here.linkByAgent()
	if l := here.any().image.Load().Links().FindName("north"); l.Source != "" {
		t.Errorf("the source is %s, and nobody can have asked it", l.Source)
	}
	token, key := here.agentToken("north", time.Hour), newKey(t)
	one := &site{&machines{t: t, ports: here.ports[:1]}}
	first := runAgent(t, one, there, token, key, "first")
	here.awaitMirrored(there.site, "orders")
	here.awaitAgents(3)
	if l := here.any().image.Load().Links().FindName("north"); l.Source != there.any().id.clusterID {
		t.Errorf("the source is %q", l.Source)
	}
	if tag, _ := here.any().image.Load().Links().FindName("north").Setting(mirror.TagSetting); tag != fmt.Sprint(there.any().image.Load().Tag) {
		t.Errorf("the tag of the source is %q", tag)
	}
	eventually(t, "each node leads some", func() bool {
		return !slices.ContainsFunc(here.nodes, func(n *Node) bool { return len(n.linking.ListMirrors(n.image.Load().Links().All()[0].ID)) == 0 })
	})

	first.kill()
	here.awaitAgents(0)
	there.produceAll("orders")
	first = runAgent(t, one, there, token, key, "first")
	here.awaitMirrored(there.site, "orders")

	for i := range here.nodes {
		here.stop(i)
		there.produce("orders", 10)
		here.awaitMirrored(there.site, "orders")
		here.start(i, Config{})
	}
	here.awaitAgents(3)

	second := runAgent(t, here, there, here.agentToken("north", time.Hour), newKey(t), "second")
	here.awaitAgents(6)
	first.kill()
	here.awaitAgents(3)
	there.produceAll("orders")
	here.awaitMirrored(there.site, "orders")

	id := here.any().linking.ListAgents()[0].Token
	a := here.any().image.Load().Links().All()[0].Agents
	i := slices.IndexFunc(a, func(a meta.LinkAgent) bool { return a.Token.String() == id })
	here.mustServe(&cluster.LinkRequest{Verb: cluster.LinkAgentRevoke, Name: "north", Token: a[i].Token})
	here.awaitAgents(0)
	there.produce("orders", 10)
	link := here.any().image.Load().Links().All()[0].ID
	eventually(t, "the mirror waits for an agent", func() bool {
		return slices.ContainsFunc(here.any().linking.ListMirrors(link), func(s cluster.PartitionStatus) bool { return strings.Contains(s.Reason, "no agent of the link") })
	})
	second.kill()
	runAgent(t, one, there, token, key, "first")
	here.awaitMirrored(there.site, "orders")
}

// TestTokensOfAgentsAreRefused proves which tokens let no agent in: a wrong one, one that was used by another agent, one that has ended, one that was revoked, and one of another kind; and that an agent is refused
// by a link's own token what belongs to others.
func TestTokensOfAgentsAreRefused(t *testing.T) {
	here := newSite(t, 1)
	here.linkByAgent()
	connect := func(token credential.Token, key credential.NodeKey) error {
		c, err := peer.Dial(t.Context(), here.ports[0], credential.DialAsAgent(token, peerVersions, key, rand.Reader), nil)
		if err == nil {
			c.Close()
		}
		return err
	}
	used, holder := here.agentToken("north", time.Hour), newKey(t)
	if err := connect(used, holder); err != nil {
		t.Fatal(err)
	}
	wrong, err := credential.NewToken(here.any().peers.self.Cluster, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	revoked := here.agentToken("north", time.Hour)
	here.mustServe(&cluster.LinkRequest{Verb: cluster.LinkAgentRevoke, Name: "north", Token: revoked.ID()})
	joins, err := credential.ParseToken(here.makeToken(0))
	if err != nil {
		t.Fatal(err)
	}
	ended := here.agentToken("north", time.Millisecond)
	for _, c := range []struct {
		name  string
		token credential.Token
		key   credential.NodeKey
		want  error
	}{
		{"its holder's", used, holder, nil},
		{"another agent's", used, newKey(t), credential.ErrTokenUsed},
		{"a wrong one", wrong.ForAgent(), newKey(t), credential.ErrStranger},
		{"one that was revoked", revoked, newKey(t), credential.ErrStranger},
		{"a join token", joins, newKey(t), credential.ErrStranger},
		{"one that has ended", ended, newKey(t), credential.ErrAgentTokenExpired},
	} {
		if err := connect(c.token, c.key); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	a := runAgentWith(t, &tunnel.AgentConfig{
		Token: used, Key: newKey(t), Versions: peerVersions, Nodes: here.ports, Reach: tunnel.NewReach(nil, nil, slog.New(slog.DiscardHandler)), Logger: slog.New(slog.DiscardHandler),
	})
	if err := a.await(t); !errors.Is(err, credential.ErrTokenUsed) {
		t.Errorf("an agent with another one's token ends with %v", err)
	}
	join := credential.Join{Token: used, Versions: peerVersions, Key: newKey(t), NodeID: credential.AnyNode}
	if _, err := peer.Dial(t.Context(), here.ports[0], credential.DialAsJoiner(join, rand.Reader), nil); !errors.Is(err, credential.ErrStranger) {
		t.Errorf("a node joins with the token of an agent: %v", err)
	}
	c, err := peer.Dial(t.Context(), here.ports[0], credential.DialAsAgent(used, peerVersions, holder, rand.Reader), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Call(t.Context(), peer.LinksShow, []byte("{}")); !errors.Is(err, peer.ErrClosedByPeer) {
		t.Errorf("an agent is told of links: %v", err)
	}
	if c, err = peer.Dial(t.Context(), here.ports[0], credential.DialAsAgent(used, peerVersions, holder, rand.Reader), nil); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Request(t.Context(), kmsg.NewPtrMetadataRequest()); !errors.Is(err, peer.ErrClosedByPeer) {
		t.Errorf("an agent asks for metadata as clients do: %v", err)
	}
}

// TestAgentsDialOnlyWhatTheyMay proves that a node of the cluster that mirrors reaches no address by an agent but the source's own, and that people are told of an address that is refused.
func TestAgentsDialOnlyWhatTheyMay(t *testing.T) {
	there, here := newBehind(t), newSite(t, 1)
	here.linkByAgent()
	var dialled atomic.Int64
	secret, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	runAgentWith(t, &tunnel.AgentConfig{
		Token: here.agentToken("north", time.Hour), Key: newKey(t), Versions: peerVersions, Name: "a", Nodes: here.ports,
		DialBroker: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		Reach: tunnel.NewReach(nil, func(context.Context) ([]string, error) { return []string{there.hidden}, nil }, slog.New(slog.DiscardHandler)), Logger: slog.New(slog.DiscardHandler),
	})
	here.awaitAgents(1)
	n := here.any()
	link := n.image.Load().Links().All()[0].ID
	if c, err := n.linking.hub.Dial(t.Context(), link, secret.Addr().String()); !errors.Is(err, tunnel.ErrRefused) || !strings.Contains(err.Error(), "--allow "+secret.Addr().String()) {
		t.Errorf("another service beside the source: %v, %v", c, err)
	}
	if dialled.Load() != 0 {
		t.Error("it was dialled")
	}
	if list := n.linking.ListAgents(); len(list) != 1 || !strings.Contains(list[0].Problem, secret.Addr().String()) || list[0].ProblemAt.IsZero() {
		t.Errorf("people are told of %+v", list)
	}
	a, refused, err := here.serveLink(&cluster.LinkRequest{Verb: cluster.LinkCheck, Name: "north"})
	if err != nil || refused != nil || len(a.Steps) == 0 || !strings.HasPrefix(a.Steps[0], "the agent a is connected to node 1, from 127.0.0.1:") {
		t.Errorf("a check says %+v, %v, %v", a, refused, err)
	}
	if !slices.ContainsFunc(a.Problems, func(p cluster.LinkProblem) bool {
		return strings.Contains(p.Text, behindName+" is none of the brokers")
	}) {
		t.Errorf("a check finds the problems %+v", a.Problems)
	}
	c, err := n.linking.hub.Dial(t.Context(), link, there.hidden)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := n.linking.hub.Dial(t.Context(), meta.UUID{1}, there.hidden); !errors.Is(err, tunnel.ErrNoAgent) {
		t.Errorf("another link: %v", err)
	}
}

// TestAgentsOfASecuredCluster proves that an agent of a secured cluster speaks TLS with its nodes, whose certificates are checked if it has the authority's; that the token is of no use without TLS, nor with the certificate of another authority; and that it is when the address
// says no protocol.
func TestAgentsOfASecuredCluster(t *testing.T) {
	n := startSecured(t, securedConfig(t.TempDir()))
	here := &site{&machines{t: t, nodes: []*Node{n}, ports: n.Info().Addresses[:1]}}
	here.linkByAgent()
	token := here.agentToken("north", time.Hour).WithTLS()
	key, address := newKey(t), n.Info().Secured.Address
	connect := func(protocol string, roots *x509.CertPool) error {
		c, err := peer.Dial(t.Context(), protocol+"://"+address, credential.DialAsAgent(token, AgentVersions(), key, rand.Reader), DialForAgent(roots))
		if err == nil {
			if !c.Session().IsBound {
				t.Error("the proofs are not bound to the connection")
			}
			c.Close()
		}
		return err
	}
	own := trusting(t, n.Info().Secured).RootCAs
	other := trusting(t, startSecured(t, securedConfig(t.TempDir())).Info().Secured).RootCAs
	if err := errors.Join(connect("SSL", nil), connect("SASL_SSL", own)); err != nil {
		t.Error(err)
	}
	if err := connect("PLAINTEXT", nil); !errors.Is(err, credential.ErrUnbound) {
		t.Errorf("without TLS: %v", err)
	}
	if err := connect("SSL", other); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with another authority: %v", err)
	}
}
