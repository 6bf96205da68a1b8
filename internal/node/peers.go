package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// peers is how this node reaches the others, and how it lets them in. Its parts are made by prepare and
// open, and stay the same after that.
type peers struct {
	self        credential.Self
	incarnation credential.Incarnation
	directory   directory
	image       func() *meta.Image
	fail        func(error) // notes a failure after which the node must be stopped
	links       *peer.Links
	metadata    *cluster.Quorum
	commands    *cluster.Controller
	replicas    *cluster.Replicas
	door        *peer.Door
	agents      peer.Handler // serves the agents of links
	isOpen      atomic.Bool  // all of it is set
	isRemoved   atomic.Bool  // another node has said that this one was removed, or that the cluster was recovered without it
	gate        gate
	hosts       memberHosts
	notes       notes
	isCutOff    func() bool // no controller has heard of this node lately
	// noteAdmitted is told of each node that joins by this one; nil: nobody is.
	noteAdmitted func(id int32, token credential.TokenID)
	join         []string // addresses of members that this start was given
	log          *slog.Logger

	mu     sync.Mutex
	silent map[int32]struct{} // guarded by mu: nodes of which the log says that they cannot be reached

	inter config.Protocol // of this node's listener for other nodes
}

// peersConfig is what a node tells of itself to reach others.
type peersConfig struct {
	inter config.Protocol // of the listener for other nodes, whose address is in addresses

	id          identity
	incarnation meta.UUID
	members     []credential.Contact // that it has met when it joined
	join        []string             // addresses of members that this start was given
	addresses   []string             // at which other nodes reach this one
	isCutOff    func() bool
	// noteAdmitted is told of each node that joins by this one.
	noteAdmitted func(id int32, token credential.TokenID)
	image        func() *meta.Image
	fail         func(error)
	dial         peer.DialFunc
	log          *slog.Logger
}

// prepare makes what the metadata need to reach other nodes.
func (p *peers) prepare(ctx context.Context, cfg *peersConfig) error {
	own, err := credential.ParseClusterID(cfg.id.clusterID)
	if err != nil {
		return fmt.Errorf("%s: %w", identityFile, err)
	}
	p.self = credential.Self{Versions: peerVersions, Cluster: own, Epoch: cfg.id.epoch, NodeID: cfg.id.nodeID, Key: cfg.id.key, Addresses: cfg.addresses}
	p.gate = newGate(ctx)
	p.incarnation, p.fail = credential.Incarnation(cfg.incarnation), cfg.fail
	p.noteAdmitted = cfg.noteAdmitted
	p.log, p.silent = cfg.log, map[int32]struct{}{}
	p.join, p.isCutOff = cfg.join, cfg.isCutOff
	p.image, p.directory = cfg.image, directory{cfg.image, cfg.members}
	p.inter = cfg.inter
	p.hosts = memberHosts{self: cfg.id.nodeID, image: cfg.image, changed: make(chan struct{}, 1), resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	p.links = peer.NewLinks(ctx, peer.LinksConfig{Find: p.findPeer, Notify: p.noteEvent, Dial: cfg.dial})
	p.metadata = cluster.NewQuorum(ctx, cluster.QuorumConfig{NodeID: cfg.id.nodeID, Links: p.links, Others: p.listOthers, NodeOf: p.findRaftID})
	p.self.Position, p.self.Knows = p.metadata.Position, p.directory.knowsKey
	return nil
}

// open makes what other nodes reach here, of a node whose metadata and controller are open. cfg lacks
// what peers have themselves.
func (p *peers) open(ctx context.Context, cfg cluster.ControllerConfig, brokerEpoch func() int64) (err error) {
	cfg.Links, cfg.Quorum, cfg.Image = p.links, p.metadata, p.image
	p.commands = cluster.NewController(ctx, cfg)
	p.replicas = cluster.NewReplicas(ctx, cluster.ReplicasConfig{
		NodeID: p.self.NodeID, Links: p.links, Controller: p.commands, BrokerEpoch: brokerEpoch,
	})
	p.door, err = peer.NewDoor(peer.DoorConfig{
		Self: func() credential.Self { return p.self }, Directory: p.directory, Admit: p.admit,
		WentBack: func(err *credential.WentBackError) { p.fail(fmt.Errorf("another node shows: %w", err)) },
		Handlers: slices.Concat(p.metadata.Handlers(), p.commands.Handlers(), p.replicas.Handlers(), []peer.Handler{p.agents}),
	})
	p.isOpen.Store(true)
	return err
}

// close ends what is under way with other nodes.
func (p *peers) close() {
	if p.replicas != nil {
		p.replicas.Close()
	}
	if p.links != nil {
		p.metadata.Close()
		p.links.Close()
	}
}

// isAlone tells whether no other node is known to belong to the cluster.
func (p *peers) isAlone() bool { return len(p.listOthers()) == 0 }

// listOthers lists the other nodes of the cluster, as far as this one knows them.
func (p *peers) listOthers() (nodes []int32) {
	img := p.image()
	for id, node := range img.Nodes {
		if id != p.self.NodeID && !node.Removed {
			nodes = append(nodes, id)
		}
	}
	if len(img.Nodes) > 0 {
		return nodes
	}
	for _, c := range p.directory.members {
		if c.NodeID != p.self.NodeID {
			nodes = append(nodes, c.NodeID)
		}
	}
	return nodes
}

// isMember tells whether a node belongs to the cluster.
func (p *peers) isMember(id int32) bool {
	m, ok := p.directory.FindNode(id)
	return ok && !m.Removed
}

// findRaftID finds the node that has one of raft's ids.
func (p *peers) findRaftID(raftID uint64) (node int32, ok bool) {
	for id, b := range p.image().Brokers {
		if b.RaftID == raftID && raftID != 0 {
			return id, true
		}
	}
	return 0, false
}

// findPeer returns how to reach another node.
func (p *peers) findPeer(id int32) (peer.Target, error) {
	if !p.isMember(id) {
		return peer.Target{}, fmt.Errorf("node %d: %w", id, credential.ErrUnknownNode)
	}
	t := peer.Target{
		Addresses: addressesOf(p.image(), id),
		Dialler: func() *credential.Dialler {
			return credential.DialAsNode(p.self, p.incarnation, credential.Target{Nodes: p.directory, NodeID: id, Shown: p.notes.voucher(id), IsLasting: p.image().Brokers[id] != nil}, rand.Reader)
		},
	}
	if c := p.directory.findMet(id); c != nil { // what it has registered may be a name that this machine does not know
		for _, address := range c.Addresses {
			if address, ok := keepTLS(addressesOf(p.image(), id), address); ok {
				t.Addresses = addTarget(t.Addresses, nil, address)
			}
		}
	}
	for _, address := range p.notes.addresses(id, registrationOf(p.image(), id)) { // it has moved, or is a copy: the registered one comes first
		if p.image().Securing() != nil { // it may have told that before it took TLS
			var ok bool
			if address, ok = keepTLS(addressesOf(p.image(), id), address); !ok {
				continue
			}
		}
		t.Others = addTarget(t.Others, t.Addresses, address)
	}
	if p.isCutOff() { // the others may have registered other addresses, or wait for enough nodes to do so
		for _, address := range p.join {
			if _, _, isKnown := peer.SplitAddress(address); !isKnown && p.inter.UsesTLS() { // else it may be another node's, whose protocol is known
				address = withProtocol(p.inter, address)
			}
			t.Others = addTarget(t.Others, t.Addresses, address)
		}
		if p.inter.UsesTLS() || p.image().Securing() != nil { // all may have got TLS at the same ports while they were stopped, or this node was cut off
			for _, address := range addressesOf(p.image(), id) {
				hostPort, _, _ := peer.SplitAddress(address)
				t.Others = addTarget(t.Others, t.Addresses, withProtocol(config.SASLSSL, hostPort))
			}
		}
	}
	if len(t.Addresses)+len(t.Others) == 0 {
		return peer.Target{}, fmt.Errorf("node %d has not told its address yet", id)
	}
	return t, nil
}

// addTarget adds an address to a list, unless that or another list has it. One that says no protocol is that of a node from before they were
// told, and adds nothing to one that says it. Two protocols with TLS are dialled alike.
func addTarget(list, other []string, address string) []string {
	hostPort, protocol, isKnown := peer.SplitAddress(address)
	isThere := func(has string) bool {
		h, p, known := peer.SplitAddress(has)
		return h == hostPort && (!isKnown || known && p.UsesTLS() == protocol.UsesTLS())
	}
	if slices.ContainsFunc(list, isThere) || slices.ContainsFunc(other, isThere) {
		return list
	}
	return append(list, address)
}

// keepTLS returns an address that was told long ago as it may be dialled now. If the node has registered one with TLS since, somebody who
// stops TLS on the way must not have it dialled without: then an address without TLS is none any more, and one that says no protocol has it.
func keepTLS(registered []string, address string) (now string, ok bool) {
	hasTLS := slices.ContainsFunc(registered, func(has string) bool {
		_, p, _ := peer.SplitAddress(has)
		return p.UsesTLS()
	})
	switch hostPort, protocol, isKnown := peer.SplitAddress(address); {
	case !hasTLS || protocol.UsesTLS():
		return address, true
	case isKnown:
		return "", false
	default:
		return withProtocol(config.SSL, hostPort), true
	}
}

// registrationOf is the epoch of a node's registration; 0: it has none.
func registrationOf(img *meta.Image, id int32) int64 {
	if b := img.Brokers[id]; b != nil {
		return b.Epoch
	}
	return 0
}

// describeTargets says at which addresses this node looks for the others.
func (p *peers) describeTargets() string {
	var list []string
	others := p.listOthers()
	slices.Sort(others)
	for _, id := range others {
		t, err := p.findPeer(id)
		if err != nil {
			list = append(list, err.Error())
			continue
		}
		p.mu.Lock()
		_, isSilent := p.silent[id]
		p.mu.Unlock()
		text := fmt.Sprintf("node %d at %s", id, strings.Join(slices.Concat(t.Addresses, t.Others), ", "))
		if isSilent {
			text += " (cannot be reached)"
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

// addressesOf lists the addresses at which other nodes reach a registered one, with their protocols.
func addressesOf(img *meta.Image, id int32) []string {
	b := img.Brokers[id]
	if b == nil {
		return nil
	}
	host, port := b.Address()
	if host == "" {
		return nil
	}
	return []string{peer.FormatAddress(config.Protocol(img.PeerSecurity(b)), host, port)}
}

// admit lets a proven peer in. A joiner gets its id from the active controller.
func (p *peers) admit(ctx context.Context, from credential.Peer) (credential.Welcome, error) {
	id := from.NodeID
	if from.Kind == credential.KindNode {
		p.notes.keep(id, registrationOf(p.image(), id), from.Note)
		p.links.Hurry(id)
	}
	if from.Kind == credential.KindAgent {
		return p.admitAgent(ctx, from)
	}
	if from.Kind == credential.KindJoiner {
		var err error
		id, err = p.commands.AdmitNode(ctx, &controller.Admission{Token: from.Token, Key: from.Key, Directory: meta.UUID(from.Directory), NodeID: from.NodeID})
		if err != nil {
			return credential.Welcome{}, err
		}
		if p.noteAdmitted != nil {
			p.noteAdmitted(id, from.Token)
		}
	}
	img := p.image()
	return credential.Welcome{NodeID: id, Level: img.Level(), Members: contactsOf(img)}, nil
}

// contactsOf lists the members of a cluster that can be reached.
func contactsOf(img *meta.Image) (list []credential.Contact) {
	for _, id := range slices.Sorted(maps.Keys(img.Nodes)) {
		if addresses := addressesOf(img, id); len(addresses) > 0 && !img.Nodes[id].Removed {
			list = append(list, credential.Contact{NodeID: id, Key: img.Nodes[id].Key, Addresses: addresses})
		}
	}
	return credential.FitMembers(list)
}

// noteEvent takes what happens to connections to other nodes.
func (p *peers) noteEvent(e peer.Event) {
	p.metadata.Notify(e)
	if p.isOpen.Load() {
		p.commands.Notify(e)
	}
	// A node whose cluster was recovered without it must end, too: with others like it, it could go on as the cluster
	// that was before, and serve clients who mean the other one. The one that says so has proven itself.
	if errors.Is(e.Err, credential.ErrNodeRemoved) || errors.Is(e.Err, credential.ErrDiallerBehind) {
		p.isRemoved.Store(true)
		p.fail(fmt.Errorf("node %d says: %w", e.Node, e.Err))
		return
	}
	p.tellReach(e)
}

// tellReach logs when another node cannot be reached, and when it can be again.
func (p *peers) tellReach(e peer.Event) {
	isDown := e.Kind == peer.DialRefused || e.Kind == peer.DialFailed
	if !isDown && e.Kind != peer.Connected || errors.Is(e.Err, context.Canceled) {
		return
	}
	p.mu.Lock()
	_, wasDown := p.silent[e.Node]
	if isDown {
		p.silent[e.Node] = struct{}{}
	} else {
		delete(p.silent, e.Node)
	}
	p.mu.Unlock()
	switch {
	case isDown && !wasDown:
		p.log.Warn("another node cannot be reached; it is tried again until it can", "node", e.Node, "err", e.Err)
	case wasDown && !isDown:
		p.log.Info("another node can be reached again", "node", e.Node)
	}
}

func (p *peers) activeController() int32 { return p.metadata.Leader() }

func (p *peers) keepLinks() { p.commands.KeepLinks() }

func (p *peers) followMembers() {
	p.hosts.noteChange()
	p.links.Retain(p.isMember)
	p.retainPeers()
}

// retainPeers ends the connections of those that the metadata do not let in any more.
func (p *peers) retainPeers() {
	p.door.Retain(func(c credential.Peer) bool {
		if c.Kind == credential.KindAgent {
			return p.isHolder(&c)
		}
		return c.Kind == credential.KindJoiner || p.isMember(c.NodeID)
	})
}

// errStarting ends the connection of a client that comes long before the node serves.
var errStarting = fmt.Errorf("the node is starting and does not serve clients yet: %w", wire.ErrElsewhere)

// gateTime is how long a client's first request waits for a node that is starting. Some clients give up for good when
// a connection is closed before its first answer; after this time a client does better to ask another node.
const gateTime = 5 * time.Second

// gate lets only other nodes in until it is opened: a node may need the others to become able to serve. Requests of
// clients wait meanwhile.
type gate struct {
	wire.Handler
	opened chan struct{}   // closed by open
	ended  <-chan struct{} // closed when the node stops
}

func newGate(ctx context.Context) gate {
	return gate{opened: make(chan struct{}), ended: ctx.Done()}
}

func (g *gate) open() { close(g.opened) }

func (g *gate) isOpen() bool {
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

// await waits until the gate is open, and returns false if it was not in time.
func (g *gate) await() bool {
	late := time.NewTimer(gateTime)
	defer late.Stop()
	select {
	case <-g.opened:
		return true
	case <-g.ended:
	case <-late.C:
	}
	return false
}

// Open begins the session of a connection.
func (g *gate) Open(c *wire.Conn) wire.Session { //nolint:ireturn // it is of wire.Handler
	s := g.Handler.Open(c)
	if g.isOpen() {
		return s
	}
	return &gatedSession{s, g}
}

// gatedSession is the session of a connection that came before the gate was open.
type gatedSession struct {
	wire.Session
	gate *gate
}

// Serve serves a request.
func (s *gatedSession) Serve(r *wire.Request) error {
	if !peer.IsPrivate(r.Key) && !s.gate.isOpen() && !s.gate.await() {
		return errStarting
	}
	return s.Session.Serve(r)
}
