package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/tunnel"
	"github.com/leatstream/leat/internal/peer"
)

// openAgents makes what has the agents of links that connect to this node.
func openAgents(n *Node) {
	n.linking.hub = tunnel.NewHub(tunnel.HubConfig{
		Logger: n.loggers.loggerOf("mirror"), Nodes: func(listener string) []tunnel.Node { return nodesForAgents(n.image.Load(), listener) },
		Find: func(token credential.TokenID) (meta.UUID, bool) {
			l, _ := n.image.Load().Links().FindAgent(token)
			if l == nil {
				return meta.UUID{}, false
			}
			return l.ID, true
		},
	})
	n.peers.agents = n.linking.hub.Handler()
}

// nodesForAgents lists the nodes as an agent reaches them that has come to a listener: by those of the same name, as clients do, and else by those for other nodes.
func nodesForAgents(img *meta.Image, listener string) (list []tunnel.Node) {
	for _, id := range slices.Sorted(maps.Keys(img.Brokers)) {
		b := img.Brokers[id]
		n := tunnel.Node{ID: id, Addresses: addressesOf(img, id)}
		if i := slices.IndexFunc(b.Listeners, func(l meta.Listener) bool { return l.Name == listener }); i > 0 {
			l := &b.Listeners[i]
			n.Addresses = []string{peer.FormatAddress(config.Protocol(l.Security), l.Host, l.Port)}
		}
		if b.State != meta.BrokerFenced && len(n.Addresses) > 0 {
			list = append(list, n)
		}
	}
	return list
}

// admitAgent lets an agent in that has proven to have the token of a link. The first one that uses a token becomes its holder.
func (p *peers) admitAgent(ctx context.Context, from credential.Peer) (credential.Welcome, error) {
	img := p.image()
	w := credential.Welcome{NodeID: p.self.NodeID, Level: img.Level()}
	l, a := img.Links().FindAgent(from.Token)
	switch {
	case l == nil:
		return w, credential.ErrTokenRevoked
	case a.IsUsed():
		return w, nil // the handshake has compared the holder
	}
	_, refused, err := cluster.ChangeLinks(ctx, p.commands, &controller.LinksChange{
		Kind: controller.ChangeLink, LinkID: l.ID, Change: &controller.LinkChange{Agent: &controller.AgentChange{Used: &controller.AgentUse{Token: from.Token, Holder: from.Key}}},
	})
	switch {
	case err != nil:
		return w, err
	case refused != nil && refused.Kind == controller.DuplicateResource:
		return w, credential.ErrTokenUsed
	case refused != nil && (refused.Kind == controller.UnknownToken || refused.Kind == controller.UnknownLink):
		return w, credential.ErrTokenRevoked
	case refused != nil:
		return w, errors.New(refused.Message)
	}
	return w, nil
}

// DialForAgent opens connections of an agent of a link to nodes, at addresses with a protocol. With TLS it checks their certificates if there are roots; without them, the proofs
// of both ends must be bound to the connection, which shows that there is nobody between them.
func DialForAgent(roots *x509.CertPool) peer.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		address, protocol, _ := peer.SplitAddress(address)
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil || !protocol.UsesTLS() {
			return nc, err
		}
		cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
		if roots == nil {
			cfg.InsecureSkipVerify = true //nolint:gosec // see above
		}
		return beginTLS(ctx, nc, cfg, address)
	}
}

// AgentVersions are the versions of the protocol between nodes that an agent of this binary speaks.
func AgentVersions() credential.Range { return peerVersions }

// isHolder tells whether an agent that has proven itself is still the one of its token.
func (p *peers) isHolder(from *credential.Peer) bool {
	_, a := p.image().Links().FindAgent(from.Token)
	return a != nil && (!a.IsUsed() || a.Holder == from.Key)
}

// ListAgents is that of cluster.LinkServer.
func (l *linking) ListAgents() (list []cluster.AgentStatus) {
	for _, k := range l.n.image.Load().Links().All() {
		for _, a := range l.hub.Status(k.ID) {
			list = append(list, cluster.AgentStatus{
				Link: k.ID, Token: a.Token.String(), Name: a.Name, Node: l.n.id.nodeID, Remote: a.Remote, Since: a.Since.UTC(), Streams: a.Streams, Problem: a.Problem, ProblemAt: a.ProblemAt.UTC(),
			})
		}
	}
	return list
}

// tellAgents puts into the answer which agents of a link are connected to this node, and what they have not reached.
func (r *linkRequest) tellAgents(link *meta.Link) {
	if !link.IsViaAgent() {
		return
	}
	for _, a := range r.l.hub.Status(link.ID) {
		r.a.Steps = append(r.a.Steps, fmt.Sprintf("the agent %s is connected to node %d, from %s, since %s", a.Name, r.l.n.id.nodeID, a.Remote, a.Since.UTC().Format("2006-01-02 15:04:05 MST")))
		if a.Problem != "" {
			r.a.Warnings = append(r.a.Warnings, cluster.LinkProblem{About: "agent " + a.Name, Text: fmt.Sprintf("At %s it has not reached %s.", a.ProblemAt.UTC().Format("15:04:05 MST"), a.Problem)})
		}
	}
}

// makeAgentToken has the link know a token.
func (r *linkRequest) makeAgentToken(ctx context.Context) (*controller.Error, error) {
	if !r.link.IsViaAgent() {
		return refuseLink(controller.PolicyViolation, "The nodes dial the source of the link %s themselves: have agents carry its connections first, by \"leat link alter %s --via agent\".", r.link.Name, r.link.Name), nil
	}
	return r.change(ctx, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: r.link.ID, Change: &controller.LinkChange{
		Agent: &controller.AgentChange{Made: r.q.Agent, Now: time.Now().UnixMilli()},
	}})
}

// revokeAgentToken has the link forget a token. The connections of its agent end with it.
func (r *linkRequest) revokeAgentToken(ctx context.Context) (*controller.Error, error) {
	if r.link.FindAgent(r.q.Token) == nil {
		return refuseLink(controller.UnknownToken, "The link %s has no token %s for an agent.", r.link.Name, r.q.Token), nil
	}
	return r.change(ctx, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: r.link.ID, Change: &controller.LinkChange{Agent: &controller.AgentChange{Revoked: &r.q.Token}}})
}
