package credential

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// acceptState is how far an Acceptor is. The package doc draws the changes.
type acceptState uint8

const (
	acceptNew         acceptState = iota // nothing came
	acceptChallenging                    // the challenge was sent
	acceptProven                         // the dialler is proven; the caller decides
	acceptDone                           // the verdict was sent
	acceptFailed                         // for good
)

// Acceptor is the end of a handshake that was dialled. It belongs to one goroutine.
type Acceptor struct {
	state     acceptState
	self      Self
	directory Directory
	random    io.Reader
	channel   Channel

	hello      hello
	private    *ecdh.PrivateKey // of the share
	version    uint16
	peer       Peer // once it is proven
	transcript transcript
	keys       sessionKeys
}

// NewAcceptor makes the acceptor of one connection.
func NewAcceptor(self Self, directory Directory, random io.Reader) *Acceptor {
	return &Acceptor{self: self, directory: directory, random: random}
}

// UseChannel says which connection the handshake runs over. It is called before Challenge; without it the connection has no TLS.
func (a *Acceptor) UseChannel(c Channel) { a.channel = c }

// Challenge reads a hello and answers it. A reply is to be sent also if there is an error, which is
// for this end's log and ends the handshake.
func (a *Acceptor) Challenge(message []byte) (reply []byte, err error) {
	if err := a.leave(acceptNew); err != nil {
		return nil, err
	}
	h, err := parseHello(message)
	if errors.Is(err, ErrVersion) {
		return a.refuse(reasonVersion), err
	}
	if err != nil {
		return a.refuse(reasonMalformed), fmt.Errorf("the hello: %w", err)
	}
	a.hello = h
	version, ok := a.self.Versions.agree(h.versions)
	if !ok {
		return a.refuse(reasonVersion), fmt.Errorf("%w: the other node speaks %v, and this one %v", ErrVersion, h.versions, a.self.Versions)
	}
	if h.cluster != a.self.Cluster {
		return a.refuse(reasonForeign), fmt.Errorf("a %v dialled: %w", h.kind, ErrForeignCluster)
	}
	if version >= channelVersion && !a.channel.isBindable() {
		return a.refuse(reasonUnproven), fmt.Errorf("%w: allow TLS 1.3 on both ends (ssl.enabled.protocols)", ErrUnbound)
	}
	a.version = version
	acceptorKey, err := a.findAcceptorKey()
	if err != nil {
		return nil, err
	}
	if a.private, err = drawShare(a.random); err != nil {
		return nil, err
	}
	c := challenge{
		versions: a.self.Versions, version: version, epoch: a.self.Epoch, node: a.self.NodeID,
		key: a.self.Key.Public(), share: [32]byte(a.private.PublicKey().Bytes()),
	}
	t := transcript{}.add("hello", message).bind(&a.channel, version).add("challenge", c.encodeBody())
	c.signature, c.mac = a.self.Key.sign(roleAcceptor, t), t.authenticate(acceptorKey, roleAcceptor)
	reply = c.encode(h.kind)
	a.transcript = t.add("proof of the acceptor", reply[challengeBodyLen:])
	a.state = acceptChallenging
	return reply, nil
}

// findAcceptorKey returns the token's key for the acceptor's MAC. For an unknown token this is a key
// that nobody knows. That is drawn in any case, so that both cases do the same.
func (a *Acceptor) findAcceptorKey() (key [32]byte, err error) {
	if _, err := io.ReadFull(a.random, key[:]); err != nil {
		return key, fmt.Errorf("drawing a key: %w", err)
	}
	if v, known := a.findToken(); known {
		key = v.Acceptor
	}
	return key, nil
}

// findToken finds the token of the hello. A token of another kind than the dialler is not known.
func (a *Acceptor) findToken() (Verifier, bool) {
	switch a.hello.kind { //nolint:exhaustive // the others have none
	case KindJoiner:
		return a.directory.FindToken(a.hello.token)
	case KindAgent:
		return a.directory.FindAgentToken(a.hello.token)
	}
	return Verifier{}, false
}

// Verify reads the dialler's proof. If the dialler is proven and nothing that this end knows speaks
// against it, Verify returns who it is; the caller then calls Accept or Refuse. Otherwise it returns an
// error, which is for this end's log, and the reply, which is to be sent and may say less. A WentBackError says that this end
// must not go on.
func (a *Acceptor) Verify(message []byte, now time.Time) (peer Peer, reply []byte, err error) {
	if err := a.leave(acceptChallenging); err != nil {
		return Peer{}, nil, err
	}
	p, err := parseProof(message, a.hello.kind, a.version)
	if err != nil {
		return Peer{}, a.refuse(reasonMalformed), fmt.Errorf("the proof: %w", err)
	}
	if err := a.self.judge(&p.shown); err != nil { // whoever shows it
		return Peer{}, a.refuse(reasonUnproven), err
	}
	peer, judgement, err := a.identify(&p, now)
	if err != nil {
		return Peer{}, a.refuse(reasonUnproven), err
	}
	a.transcript = a.transcript.add("proof of the dialler", message)
	if a.keys, err = agreeOnKeys(a.private, a.hello.share, a.transcript); err != nil {
		return Peer{}, a.refuse(reasonMalformed), err
	}
	if judgement != nil {
		reply, err := a.encodeVerdict(&verdict{reason: findReason(judgement)})
		return Peer{}, reply, errors.Join(judgement, err)
	}
	a.peer, a.state = peer, acceptProven
	return peer, nil, nil
}

// identify checks the signatures. An error says that the dialler is not proven, the judgement why
// it is not accepted although it is.
func (a *Acceptor) identify(p *proof, now time.Time) (peer Peer, judgement, err error) {
	h := &a.hello
	if h.kind.hasToken() {
		v, known := a.findToken()
		if !known {
			v.Key = a.self.Key.Public() // for the same work as with a known token
		}
		hasToken, hasKey := v.Key.isSigned(roleToken, a.transcript, p.token), h.key.isSigned(roleDialler, a.transcript, p.signature)
		switch {
		case !known:
			return Peer{}, nil, fmt.Errorf("token %v: %w", h.token, ErrUnknownToken)
		case !hasToken || !hasKey:
			return Peer{}, nil, fmt.Errorf("token %v: %w", h.token, ErrWrongProof)
		}
		peer = Peer{Kind: h.kind, Key: h.key, NodeID: h.node, Token: h.token, Directory: h.directory}
		if h.kind == KindAgent {
			return peer, v.checkHolder(h.key, now), nil
		}
		return peer, a.judgeJoiner(v, now), nil
	}
	m, known := a.directory.FindNode(h.node)
	if !known {
		m.Key = a.self.Key.Public() // for the same work as with a known node
	}
	signed, note := a.transcript, (*Note)(nil)
	if hasNote(h.kind, a.version) {
		note = &Note{p.addresses, p.voucher(a.transcript, a.self.Key.Public())}
		signed = note.Voucher.signed()
	}
	hasKey := m.Key.isSigned(roleDialler, signed, p.signature)
	switch {
	case !known:
		return Peer{}, nil, fmt.Errorf("node %d: %w", h.node, ErrUnknownNode)
	case !hasKey:
		return Peer{}, nil, fmt.Errorf("node %d: %w", h.node, ErrWrongProof)
	}
	peer = Peer{Kind: h.kind, Key: m.Key, NodeID: h.node, Incarnation: h.incarnation, Note: note}
	return peer, a.judgeNode(m), nil
}

// judgeJoiner returns an error if a joiner that has the token cannot be let in.
func (a *Acceptor) judgeJoiner(v Verifier, now time.Time) error {
	if err := v.checkUsable(now); err != nil {
		return err
	}
	if a.hello.node == AnyNode {
		return nil
	}
	// A joiner whose key is the member's has joined before and did not get the answer.
	if m, known := a.directory.FindNode(a.hello.node); known && (m.Removed || m.Key != a.hello.key) {
		return fmt.Errorf("node id %d: %w", a.hello.node, ErrNodeIDTaken)
	}
	return nil
}

// judgeNode returns an error if the holder of a node's key cannot be let in.
func (a *Acceptor) judgeNode(m Member) error {
	h := &a.hello
	another := m.Living != Incarnation{} && m.Living != h.incarnation || h.node == a.self.NodeID
	switch {
	case m.Removed:
		return fmt.Errorf("node %d: %w", h.node, ErrNodeRemoved)
	case h.epoch < a.self.Epoch:
		return fmt.Errorf("node %d: %w", h.node, ErrDiallerBehind)
	case h.epoch > a.self.Epoch:
		return fmt.Errorf("node %d: %w", h.node, ErrAcceptorBehind)
	case h.kind == KindNode && another:
		return fmt.Errorf("node %d: %w", h.node, ErrNodeAlive)
	}
	return nil
}

// Accept makes the message that lets the dialler in. The caller has decided it, and for a joiner
// the cluster has.
func (a *Acceptor) Accept(w Welcome) (reply []byte, s Session, err error) {
	if err := a.leave(acceptProven); err != nil {
		return nil, Session{}, err
	}
	if wanted := a.peer.NodeID; wanted != AnyNode && w.NodeID != wanted {
		return nil, Session{}, fmt.Errorf("%w: a welcome of node %d instead of %d", ErrMalformed, w.NodeID, wanted)
	}
	w.Members = slices.Clone(w.Members)
	for i := range w.Members {
		w.Members[i].Addresses = cutProtocols(w.Members[i].Addresses, a.version)
	}
	if reply, err = a.encodeVerdict(&verdict{welcome: w}); err != nil {
		return nil, Session{}, err
	}
	a.peer.NodeID, a.state = w.NodeID, acceptDone
	return reply, Session{ID: a.keys.id, Version: a.version, IsBound: a.channel.isBound(a.version), Epoch: a.self.Epoch, Peer: a.peer}, nil
}

// Refuse makes the message that tells a proven dialler why it is not let in.
func (a *Acceptor) Refuse(why error) (reply []byte, err error) {
	if err := a.leave(acceptProven); err != nil {
		return nil, err
	}
	a.state = acceptDone
	return a.encodeVerdict(&verdict{reason: findReason(why)})
}

func (a *Acceptor) encodeVerdict(v *verdict) ([]byte, error) {
	b, err := v.encodeBody()
	if err != nil {
		return nil, err
	}
	mac := a.transcript.add("verdict", b).authenticate(a.keys.verdict, roleVerdict)
	return append(b, mac[:]...), nil
}

// refuse makes the message to a dialler that has not proven itself.
func (a *Acceptor) refuse(r reason) []byte {
	f := refusal{reason: r, versions: a.self.Versions}
	return f.encode()
}

// leave leaves the state that a call belongs to. The call has failed unless it enters another one.
func (a *Acceptor) leave(state acceptState) error {
	was := a.state
	a.state = acceptFailed
	if was != state {
		return ErrOrder
	}
	return nil
}
