package credential

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
)

// dialState is how far a Dialler is. The package doc draws the changes.
type dialState uint8

const (
	dialNew     dialState = iota // nothing was sent
	dialGreeted                  // the hello was sent
	dialProving                  // the acceptor is proven, and the proof was sent
	dialDone                     // the verdict accepted this end
	dialFailed                   // for good
)

// Target is the node that a dialler wants to reach.
type Target struct {
	Nodes  Nodes // whom it may meet
	NodeID int32 // whom it wants to meet, or AnyNode
	// Shown is the voucher of that node, if it has dialled this one.
	Shown Voucher
	// IsLasting tells that the metadata never forget the node, so that this end may sign to know it.
	IsLasting bool
}

// Join is what a node needs that is not in the cluster yet.
type Join struct {
	Token     Token
	Versions  Range
	Key       NodeKey // of the joiner
	Directory DirectoryID
	NodeID    int32 // the one that it wants, or AnyNode
}

// Dialler is the end of a handshake that opened the connection. It belongs to one goroutine.
type Dialler struct {
	state  dialState
	random io.Reader
	hello  hello
	key    NodeKey
	self   Self   // of a node
	token  *Token // of a joiner or an agent
	target Target // of the others

	channel Channel

	private    *ecdh.PrivateKey // of the share
	challenge  challenge
	transcript transcript
	keys       sessionKeys
}

// DialAsNode makes the dialler of a process that runs a node.
func DialAsNode(self Self, incarnation Incarnation, target Target, random io.Reader) *Dialler {
	d := dialByKey(self, target, random)
	d.hello.kind, d.hello.incarnation, d.self = KindNode, incarnation, self
	return d
}

// DialAsAdministrator makes the dialler of a verb that holds a node's data directory.
func DialAsAdministrator(self Self, target Target, random io.Reader) *Dialler {
	d := dialByKey(self, target, random)
	d.hello.kind = KindAdministrator
	return d
}

// DialAsJoiner makes the dialler of a node that is not in the cluster yet.
func DialAsJoiner(join Join, random io.Reader) *Dialler {
	return &Dialler{random: random, key: join.Key, token: &join.Token, hello: hello{
		versions: join.Versions, kind: KindJoiner, cluster: join.Token.cluster,
		node: join.NodeID, token: join.Token.id, key: join.Key.Public(), directory: join.Directory,
	}}
}

// DialAsAgent makes the dialler of an agent of a link. A token that a node joins with is not known where one for an agent is looked for.
func DialAsAgent(token Token, versions Range, key NodeKey, random io.Reader) *Dialler {
	return &Dialler{random: random, key: key, token: &token, hello: hello{
		versions: versions, kind: KindAgent, cluster: token.cluster, node: AnyNode, token: token.id, key: key.Public(),
	}}
}

func dialByKey(self Self, target Target, random io.Reader) *Dialler {
	return &Dialler{random: random, key: self.Key, target: target, hello: hello{
		versions: self.Versions, cluster: self.Cluster, epoch: self.Epoch, node: self.NodeID,
	}}
}

// UseChannel says which connection the handshake runs over. It is called before Hello; without it the connection has no TLS.
func (d *Dialler) UseChannel(c Channel) { d.channel = c }

// Hello makes the first message.
func (d *Dialler) Hello() ([]byte, error) {
	if err := d.leave(dialNew); err != nil {
		return nil, err
	}
	if d.channel.MustBind || d.token != nil && d.token.needsTLS {
		if err := d.requireBinding(); err != nil {
			return nil, err
		}
	}
	private, err := drawShare(d.random)
	if err != nil {
		return nil, err
	}
	d.private, d.hello.share = private, [32]byte(private.PublicKey().Bytes())
	b := d.hello.encode()
	d.transcript = d.transcript.add("hello", b)
	d.state = dialGreeted
	return b, nil
}

// Prove checks the acceptor's answer to the hello, and makes the proof of this end. Nothing is
// proven to an acceptor that has not proven itself.
func (d *Dialler) Prove(message []byte) ([]byte, error) {
	if err := d.leave(dialGreeted); err != nil {
		return nil, err
	}
	if isRefusal(message) {
		return nil, d.readRefusal(message)
	}
	c, err := parseChallenge(message, d.hello.kind)
	if err != nil {
		return nil, fmt.Errorf("the challenge: %w", err)
	}
	d.challenge = c
	t := d.transcript.bind(&d.channel, c.version).add("challenge", message[:challengeBodyLen])
	if err := d.checkAcceptor(t); err != nil {
		if errors.Is(err, ErrStranger) && c.version >= channelVersion {
			err = fmt.Errorf("%w; or something on the way ends TLS, or adds it: nodes must reach each other without that", err)
		}
		return nil, err
	}
	if c.version >= channelVersion && !d.channel.isBindable() {
		return nil, fmt.Errorf("%w: allow TLS 1.3 on both ends (ssl.enabled.protocols)", ErrUnbound)
	}
	t = t.add("proof of the acceptor", message[challengeBodyLen:])
	var p proof
	signed := t
	if hasNote(d.hello.kind, c.version) {
		p.addresses, p.epoch, p.shown = cutProtocols(d.self.Addresses, c.version), d.self.Epoch, d.target.Shown
		if d.self.Position != nil && d.target.IsLasting {
			p.known = d.self.Position().Known // asked after Nodes, which do not know more than that
		}
		v := p.voucher(t, c.key)
		signed = v.signed()
	}
	p.signature = d.key.sign(roleDialler, signed)
	if d.token != nil {
		p.token = d.token.signingKey().sign(roleToken, t)
	}
	b := p.encode(d.hello.kind, c.version)
	d.transcript = t.add("proof of the dialler", b)
	if d.keys, err = agreeOnKeys(d.private, c.share, d.transcript); err != nil {
		return nil, err
	}
	d.state = dialProving
	return b, nil
}

// checkAcceptor returns an error unless the challenge is from a member of the cluster that this end
// may talk to.
func (d *Dialler) checkAcceptor(t transcript) error {
	c := &d.challenge
	if d.token != nil {
		if !t.isAuthentic(d.token.acceptorKey(), roleAcceptor, c.mac) || !c.key.isSigned(roleAcceptor, t, c.signature) {
			return fmt.Errorf("%w that the token is for; or the cluster has forgotten the token, since it has ended or was revoked: make a new one with %s", ErrStranger, d.hello.kind.maker())
		}
		return d.checkAgreement()
	}
	m, known := d.target.Nodes.FindNode(c.node)
	switch {
	case d.target.NodeID != AnyNode && c.node != d.target.NodeID:
		return fmt.Errorf("%w: node %d instead of node %d", ErrWrongNode, c.node, d.target.NodeID)
	case d.hello.kind == KindNode && c.node == d.hello.node:
		return fmt.Errorf("%w: it says that it is node %d, as this one", ErrWrongNode, c.node)
	case !known || m.Removed:
		return fmt.Errorf("node %d answered: %w, or it was removed", c.node, ErrUnknownNode)
	case c.key != m.Key || !m.Key.isSigned(roleAcceptor, t, c.signature):
		return fmt.Errorf("%w as node %d", ErrStranger, c.node)
	case c.epoch > d.hello.epoch:
		return ErrDiallerBehind
	case c.epoch < d.hello.epoch:
		return ErrAcceptorBehind
	}
	return d.checkAgreement()
}

// checkAgreement returns an error unless the acceptor chose the version that both ends must choose.
// It is called for acceptors that are proven, so it finds faulty ones; the proofs find relays that
// change the versions.
func (d *Dialler) checkAgreement() error {
	version, ok := d.hello.versions.agree(d.challenge.versions)
	if !ok || version != d.challenge.version {
		return fmt.Errorf("%w: the other node chose version %d of %v, and this one speaks %v", ErrVersion, d.challenge.version, d.challenge.versions, d.hello.versions)
	}
	return nil
}

// Finish reads the acceptor's last message.
func (d *Dialler) Finish(message []byte) (Session, Welcome, error) {
	if err := d.leave(dialProving); err != nil {
		return Session{}, Welcome{}, err
	}
	if isRefusal(message) {
		err := d.readRefusal(message)
		if d.hello.kind == KindNode && errors.Is(err, ErrRefused) { // it is proven to be the node
			err = fmt.Errorf("%w; node %d answered: unless this node has just joined, the metadata there are older, as in a data directory that was restored from a copy", err, d.challenge.node)
		}
		return Session{}, Welcome{}, err
	}
	v, err := parseVerdict(message)
	if err != nil {
		return Session{}, Welcome{}, fmt.Errorf("the verdict: %w", err)
	}
	t := d.transcript.add("verdict", message[:len(message)-macLen])
	wanted := d.hello.node
	switch {
	case !t.isAuthentic(d.keys.verdict, roleVerdict, v.mac):
		return Session{}, Welcome{}, fmt.Errorf("the verdict: %w", ErrStranger)
	case v.reason != reasonNone:
		return Session{}, Welcome{}, v.reason.err()
	case wanted != AnyNode && v.welcome.NodeID != wanted:
		return Session{}, Welcome{}, fmt.Errorf("%w: it gives node id %d instead of %d", ErrMalformed, v.welcome.NodeID, wanted)
	}
	d.state = dialDone
	c := &d.challenge
	return Session{ID: d.keys.id, Version: c.version, IsBound: d.channel.isBound(c.version), Epoch: c.epoch, Peer: Peer{Kind: KindNode, Key: c.key, NodeID: c.node}}, v.welcome, nil
}

// maker is the command that makes a token for a kind of dialler.
func (k Kind) maker() string {
	if k == KindAgent {
		return "leat link agent-token"
	}
	return "leat cluster token"
}

// readRefusal returns the error that a refusal stands for.
func (d *Dialler) readRefusal(message []byte) error {
	f, err := parseRefusal(message)
	if err != nil {
		return fmt.Errorf("the refusal: %w", err)
	}
	err = f.reason.err()
	switch {
	case f.reason == reasonVersion && f.versions.Max < channelVersion && d.hello.versions.Min >= channelVersion:
		return fmt.Errorf("%w: the other one speaks %v, which does not protect a connection whose certificate this end does not check, or a token that needs TLS; upgrade it, or set ssl.truststore.location here",
			err, f.versions)
	case f.reason == reasonVersion:
		return fmt.Errorf("%w: the other one speaks %v, and this one %v; run the same release on both, or two that follow each other",
			err, f.versions, d.hello.versions)
	case f.reason == reasonForeign && d.token != nil:
		return fmt.Errorf("%w than the token, which is for %v", err, d.hello.cluster)
	case f.reason == reasonForeign:
		return fmt.Errorf("%w than this node, which belongs to %v", err, d.hello.cluster)
	}
	return err
}

// leave leaves the state that a call belongs to. The call has failed unless it enters another one.
func (d *Dialler) leave(state dialState) error {
	was := d.state
	d.state = dialFailed
	if was != state {
		return ErrOrder
	}
	return nil
}
