package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/sealing"
)

// askSecuredTime is how long the nodes of a cluster may take to say whether it is secured.
const askSecuredTime = 15 * time.Second

// boundVersion is the first version of the protocol between nodes in which a node can ask. Nodes of earlier versions are in no secured cluster, since
// they do not know the level of the metadata.
const boundVersion = 3

// secureJoiner makes a node that was admitted to a secured cluster one that is secured, too: it gets the sealing key, and makes its certificate. It is
// called before the node's identity is there, so that a kill in between has the join begin anew.
func secureJoiner(ctx context.Context, n *Node, j *joined) error {
	s, err := askSecured(ctx, j, n.encryption.dialPeer)
	switch {
	case err != nil:
		return fmt.Errorf("cannot learn whether the cluster is secured: %w", err)
	case s.IsSecured && s.MayBePlain && n.cfg.Secure:
		return fmt.Errorf("%w: --secure, and the cluster takes connections without TLS until somebody has run \"leat secure --finish\": do that first, or leave --secure out, and this node is secured with the others", ErrConfig)
	case s.IsSecured && s.WhileRunning:
		if err := becomeShared(n); err != nil {
			return err
		}
		return n.securing.join(j.id, &s)
	case s.IsSecured:
		return takeSecured(n, j.id, &s)
	case n.cfg.Secure:
		return fmt.Errorf("%w: --secure, and the cluster is not secured: leave --secure out, or join another cluster", ErrConfig)
	}
	if p := n.addresses.protected[n.addresses.names[0]]; j.needsTLS && !p.UsesTLS() {
		return fmt.Errorf("%w: the nodes of the cluster talk to each other with TLS, as the join token says, and the listener of this node for other nodes has the protocol %v: give it one with SSL or SASL_SSL, such as --listen OUT=SSL://:9093, and a key (ssl.keystore.location)",
			ErrConfig, p)
	}
	return nil
}

// takeSecured writes what the cluster has given.
func takeSecured(n *Node, id identity, s *cluster.SecuredCluster) error {
	ring, err := sealing.ParseRing(s.Keys)
	if err != nil || s.Authority == nil {
		return errors.Join(errors.New("the cluster is secured, and did not tell all that this node needs"), err)
	}
	var file string
	if n.secured != nil { // an earlier try was killed
		file = n.secured.keyFile
	} else if file, err = keyFileOf(&n.cfg); err == nil {
		err = becomeSecured(n, s.SuperUser) // it refuses settings before anything is written
	}
	if err != nil {
		return err
	}
	kept, err := prepareRing(n.fs, file, func() *sealing.Ring { return ring })
	if err != nil {
		return err
	}
	if !kept.Has(ring.Newest()) {
		return fmt.Errorf("%w: %s is the sealing key of another cluster, or lacks the newest key of this one: name another file with --sealing-key", ErrConfig, file)
	}
	if err := keepSecured(n, &secured{keyFile: file, keyID: ring.Newest(), super: s.SuperUser}); err != nil {
		return err
	}
	n.id = id // for the certificate
	if err := newCertificates(n, n.secured).refresh(s.Authority, time.Now()); err != nil {
		return fmt.Errorf("cannot make the certificate of this node: %w", err)
	}
	n.encryption, err = prepareEncryption(&n.cfg, n.addresses.listenersToRegister(n.listeners), n.image.Load, n.loggers.loggerOf(rootLogger))
	return err
}

// becomeSecured has the settings and the listeners be those of a secured node.
func becomeSecured(n *Node, super string) (err error) {
	n.secured = &secured{super: super}
	defer func() { n.secured = nil }() // keepSecured comes later
	if err := applySecured(n); err != nil {
		return err
	}
	if n.addresses, err = planAddresses(&n.cfg); err != nil {
		return err
	}
	reopenListeners(n)
	return nil
}

// becomeShared has a node that was to be secured at its first start have the settings and the listeners of one that is secured with its cluster: there
// they have the names that those of the other nodes had when these were plain. See securing.
func becomeShared(n *Node) (err error) {
	if !n.cfg.Secure {
		return nil
	}
	n.cfg.Secure, n.cfg.Settings = false, n.cfg.given
	if n.addresses, err = planAddresses(&n.cfg); err != nil {
		return err
	}
	reopenListeners(n)
	n.encryption, err = prepareEncryption(&n.cfg, n.addresses.listenersToRegister(n.listeners), n.image.Load, n.loggers.loggerOf(rootLogger))
	return err
}

// askSecured asks the members, one after the other and again, until one of them answers.
func askSecured(ctx context.Context, j *joined, dial peer.DialFunc) (s cluster.SecuredCluster, err error) {
	ctx, cancel := context.WithTimeout(ctx, askSecuredTime)
	defer cancel()
	id, members := &j.id, j.members
	own, err := credential.ParseClusterID(id.clusterID)
	if err != nil {
		return s, err
	}
	self := credential.Self{Versions: peerVersions, Cluster: own, Epoch: id.epoch, NodeID: id.nodeID, Key: id.key}
	for {
		var failed error
		for _, m := range members {
			d := func() *credential.Dialler {
				return credential.DialAsNode(self, credential.Incarnation{}, credential.Target{Nodes: contacts(members), NodeID: m.NodeID}, rand.Reader)
			}
			for _, address := range m.Addresses {
				if s, err = askOne(ctx, address, d(), dial); err == nil || errors.Is(err, errNotTold) {
					return s, err
				}
				failed = errors.Join(failed, err)
			}
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			return s, failed
		}
	}
}

// errNotTold says that a node will not tell what a new node needs.
var errNotTold = errors.New("the node that was asked refuses")

// askOne asks the node at an address.
func askOne(ctx context.Context, address string, d *credential.Dialler, dial peer.DialFunc) (s cluster.SecuredCluster, err error) {
	conn, err := peer.Dial(ctx, address, d, dial)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	if conn.Session().Version < boundVersion {
		return s, nil
	}
	s, refused, err := cluster.AskSecured(ctx, conn)
	if refused != nil {
		err = fmt.Errorf("%w: %s", errNotTold, refused.Message)
	}
	return s, err
}

// contacts find members by their ids.
type contacts []credential.Contact

// FindNode finds a member.
func (c contacts) FindNode(id int32) (credential.Member, bool) {
	for i := range c {
		if c[i].NodeID == id {
			return credential.Member{Key: c[i].Key}, true
		}
	}
	return credential.Member{}, false
}

// tellSecured is what a new node of the cluster needs of this one.
func tellSecured(n *Node) (s cluster.SecuredCluster, err error) {
	a := n.image.Load().Authority()
	of, running := n.secured, n.image.Load().Securing()
	if running != nil {
		of = n.securing.kept.Load()
	}
	if of == nil || a == nil {
		return s, nil
	}
	ring, err := of.readRing(n.fs)
	if err != nil {
		n.loggers.loggerOf(rootLogger).Warn("a new node cannot be given the sealing key", "err", err)
		return s, errors.New("this node cannot read its sealing key; its log says why")
	}
	return cluster.SecuredCluster{
		IsSecured: true, Keys: ring.Encode(), SuperUser: of.super, Authority: a,
		WhileRunning: running != nil, MayBePlain: running != nil && running.State != meta.SecuringFinished,
	}, nil
}

// reopenListeners gives the open listeners the names and protocols of the addresses, which have changed since they were opened: the node has joined
// a secured cluster. None of them serves yet.
func reopenListeners(n *Node) {
	for i := range n.listeners {
		l := &n.listeners[i]
		*l = protectListener(n, l.Listener.Listener, n.addresses.nameEndpoint(l.endpoint))
	}
}
