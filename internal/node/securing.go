package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
	"github.com/leatstream/leat/internal/weblogin"
	"github.com/leatstream/leat/internal/wire"
)

// securing secures this node with its cluster, which was plain, while both run. meta.SecuringState has the states of the cluster. The steps of the node on
// which somebody has run leat secure:
//
//	the sealing key is durable --> the authority and meta.Securing are in the metadata --> what every node does
//	--> first-login.properties --> the super user, and meta.Securing.HasUser
//
// and those of every node, that one too:
//
//	waiting --meta.Securing is there--> the sealing key is durable, of a node that has it --> node.secured is durable
//	--> the certificate is durable --> TLS is taken beside plain connections --> meta.Securing.Ready has the node
//	--> other nodes reach it with TLS alone
//	--meta.SecuringFinished--> plain connections end, and no more are taken
//
// A step that was made is not made again: what was killed between two steps, or does not run, goes on with the next one when it runs. leat secure can be
// run again, on any node, and does what is missing. Only a key that was made, and is not the one in the metadata, must be moved away by hand: it
// may be another cluster's. One that the same process has made, since two nodes have begun at once, is discarded by the node.
//
// A node asks for the sealing key as itself, and only over TLS whose handshake is bound to it, so that nobody stands between: nodes that have the key take
// TLS on the same port already, while other connections between nodes are still plain.
//
// All is read from the image at the moment in which it counts, so that there is no state here that could differ: rules for what ACLs decide, sharing for
// which connections are taken. The goroutine of encryption.watch makes the steps.
type securing struct {
	n       *Node
	kept    atomic.Pointer[secured] // node.secured of a node that was plain; nil: there is none yet
	problem atomic.Pointer[string]  // why the next step cannot be made; nil: it can
	poked   chan struct{}           // of size 1: has the steps be looked at now

	beginning chan struct{}              // of size 1: has an element while somebody begins
	made      atomic.Pointer[sealing.ID] // the sealing key that this process has made in a file of its own; nil: none

	takesTLS   atomic.Bool // there is a certificate, and shared listeners use it
	authorizer atomic.Pointer[namedAuthorizer]
	logins     []*broker.Login // of the listeners that may be shared
	cannotLog  error           // why one of these cannot have a login

	plain  plainClients
	denied wouldDeny

	// These fields belong to the goroutine of the start, and then to that of encryption.watch.
	hadCertificate bool           // when the node started
	reached        map[int32]bool // nodes that are reached with TLS
	page           pageState
	ended          int       // how often plain connections were ended
	told           time.Time // when the log had a problem
}

// namedAuthorizer is an authorizer with the super user for whom it was made.
type namedAuthorizer struct {
	super string
	by    *auth.Authorizer
}

// pageState is what the pages of HTTP were told last.
type pageState uint8

const (
	pagesUntold pageState = iota
	pagesOpen
	pagesClosed
)

// askKeyTime is how long another node may take to give the sealing key, and stepTime how long the controller may take for a step.
const (
	askKeyTime = 5 * time.Second
	stepTime   = 5 * time.Second
	// tellEvery is how often the log has why a step cannot be made.
	tellEvery = time.Minute
)

func newSecuring(n *Node) *securing {
	return &securing{n: n, poked: make(chan struct{}, 1), beginning: make(chan struct{}, 1), reached: map[int32]bool{}}
}

// takeKept takes what an earlier run of the node has kept. It changes nothing on the disk.
func (s *securing) takeKept() (err error) {
	n, kept := s.n, s.n.secured
	n.secured, n.cfg.Secure = nil, false // it is secured in this way
	if n.cfg.SealingKey != "" {          // the file may have been moved
		if kept.keyFile, err = keyFileOf(&n.cfg); err != nil {
			return err
		}
	}
	if err := checkOpening(n.cfg.Settings); err != nil {
		return err
	}
	if _, err := kept.readRing(n.fs); err != nil {
		return err
	}
	_, err = readFile(n.fs, path.Join(n.cfg.Data, certificateFile))
	s.hadCertificate = err == nil
	s.kept.Store(kept)
	return nil
}

// keep has the node be one that is secured while it runs.
func (s *securing) keep(kept *secured) error {
	if err := kept.write(s.n.fs, s.n.cfg.Data); err != nil {
		return err
	}
	s.kept.Store(kept)
	return nil
}

// openCertificates has a node that had a certificate use it from its start on.
func (s *securing) openCertificates() error {
	if s.kept.Load() == nil || !s.hadCertificate {
		return nil
	}
	return s.showCertificate()
}

// prepareLogin prepares how clients of a listener log in that may be shared.
func (s *securing) prepareLogin(listener string, tokens *auth.Tokens) {
	l, err := s.n.static.Login(listener)
	if err != nil {
		s.cannotLog = err
		return
	}
	mechanisms, err := mechanismsOf(&l, s.n.users, tokens)
	if err != nil {
		s.cannotLog = err
		return
	}
	s.logins = append(s.logins, broker.NewLogin(broker.LoginConfig{
		Listener: listener, Mechanisms: mechanisms, MaxFrame: l.MaxFrame, Delay: l.Delay, MaxLifetime: l.MaxLifetime,
	}))
}

// rules are what decides what clients may do now.
func (s *securing) rules() broker.Rules {
	g := s.n.image.Load().Securing()
	if g == nil {
		return broker.Rules{}
	}
	mode := broker.Open
	switch g.State {
	case meta.SecuringFinished:
		mode = broker.Enforced
	case meta.SecuringObserved:
		mode = broker.Observed
	case meta.SecuringOpen:
	}
	return broker.Rules{Authorizer: s.authorizerOf(g), Mode: mode}
}

// authorizerOf is the authorizer for the super user of a Securing, who never changes.
func (s *securing) authorizerOf(g *meta.Securing) *auth.Authorizer {
	if a := s.authorizer.Load(); a != nil {
		return a.by
	}
	by, err := auth.New(auth.Config{Image: s.n.image.Load, SuperUsers: []auth.Principal{auth.User(g.Super)}})
	if err != nil {
		panic("BUG: an authorizer cannot be made: " + err.Error()) // it only fails without an image
	}
	s.authorizer.CompareAndSwap(nil, &namedAuthorizer{g.Super, by})
	return s.authorizer.Load().by
}

// sharing says which connections the plain listeners take now.
func (s *securing) sharing() wire.Sharing {
	g := s.n.image.Load().Securing()
	switch {
	case g != nil && g.State == meta.SecuringFinished:
		return wire.TLSOnly
	case s.takesTLS.Load(): // also at a start, before the metadata are there
		return wire.PlainAndTLS
	}
	return wire.PlainOnly
}

// isFinished tells whether the cluster was secured while it ran.
func (s *securing) isFinished() bool {
	g := s.n.image.Load().Securing()
	return g != nil && g.State == meta.SecuringFinished
}

// poke has the steps be looked at now.
func (s *securing) poke() {
	select {
	case s.poked <- struct{}{}:
	default: // they are
	}
}

// advance makes the steps that are due.
func (s *securing) advance(ctx context.Context) {
	g := s.n.image.Load().Securing()
	s.tellPages(g)
	if g == nil {
		return
	}
	s.plain.begin() // rules has an authorizer since g is there, so that clients are noted
	s.tellProblem(s.becomeReady(ctx, g))
	s.moveLinks()
	if g.State == meta.SecuringFinished {
		s.endPlain()
	}
}

// becomeReady makes what is missing until the node takes TLS, and the cluster knows that.
func (s *securing) becomeReady(ctx context.Context, g *meta.Securing) error {
	n := s.n
	if s.kept.Load() == nil {
		if err := s.obtainKey(ctx, g); err != nil {
			return err
		}
	}
	if !s.takesTLS.Load() {
		if err := s.showCertificate(); err != nil {
			return err
		}
		noteAddresses(n)
		n.loggers.loggerOf(rootLogger).Info("this node takes connections with TLS beside plain ones from now on, since its cluster is secured while it runs")
	}
	if self := n.image.Load().Brokers[n.id.nodeID]; self == nil || g.IsReady(self) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	refused, err := n.peers.commands.ChangeSecuring(ctx, &controller.SecuringChange{Step: controller.ReadyForSecuring, Node: n.id.nodeID})
	if refused != nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("the cluster was not told that this node takes TLS: %w", err)
	}
	return nil
}

// checkSettings refuses to secure a node whose settings would open it again, or that has security of its own.
func (s *securing) checkSettings() error {
	n := s.n
	if n.authorizer != nil {
		return fmt.Errorf("%w: this node has an authorizer already (authorizer.class.name): only a cluster that is plain is secured in this way", ErrConfig)
	}
	if s.cannotLog != nil {
		return s.cannotLog
	}
	return checkOpening(n.cfg.Settings)
}

// obtainKey makes the sealing key and node.secured durable: of the file that is there, or else of another node.
func (s *securing) obtainKey(ctx context.Context, g *meta.Securing) error {
	n := s.n
	if err := s.checkSettings(); err != nil {
		return err
	}
	file, err := keyFileOf(&n.cfg)
	if err != nil {
		return err
	}
	ring, err := readRing(n.fs, file)
	switch {
	case err == nil && s.isUnused(ring, g):
		err = s.discard(file)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		err = keyFileError(file, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		var given *sealing.Ring
		if given, err = s.askForKey(ctx, g); err == nil {
			ring, err = prepareRing(n.fs, file, func() *sealing.Ring { return given })
		}
	}
	if err != nil {
		return err
	}
	needed := s.neededKey(g)
	if !ring.Has(needed) {
		return fmt.Errorf("%s is not the sealing key of this cluster, or lacks one of its lines: move it away, or name another file with --sealing-key", file)
	}
	return s.keep(&secured{keyFile: file, keyID: needed, super: g.Super, whileRunning: true})
}

// isUnused tells whether this process has made a key for a cluster that another node has come to secure first, so that it seals nothing.
func (s *securing) isUnused(ring *sealing.Ring, g *meta.Securing) bool {
	made := s.made.Load()
	return made != nil && slices.Equal(ring.IDs(), []sealing.ID{*made}) && g.KeyID != *made && s.neededKey(g) != *made
}

// discard removes a file of a key that seals nothing, and makes that durable. After that it is as if there had been none.
func (s *securing) discard(file string) error {
	err := s.n.fs.Remove(file)
	if err == nil {
		err = syncIdentity(s.n.fs, path.Dir(file))
	}
	if err != nil {
		return keyFileError(file, err)
	}
	s.made.Store(nil)
	s.n.loggers.loggerOf(rootLogger).Info("the sealing key that this node has made is discarded: another node has begun to secure the cluster before, and this one seals nothing", "file", file)
	return fs.ErrNotExist
}

// neededKey is the id of the sealing key that a node must have: that of the beginning, unless another one has taken its place (sealingKeys).
func (s *securing) neededKey(g *meta.Securing) sealing.ID {
	if a := s.n.image.Load().Authority(); a != nil {
		if id, err := sealing.KeyOf(a.SealedKey); err == nil {
			return id
		}
	}
	return g.KeyID
}

// askForKey asks the nodes that have the sealing key for it, over TLS, until one of them gives it.
func (s *securing) askForKey(ctx context.Context, g *meta.Securing) (*sealing.Ring, error) {
	n, m := s.n, s.n.image.Load()
	failed := errors.New("no node that has the sealing key can be reached")
	for id, b := range m.Brokers {
		host, port := b.Address()
		if id == n.id.nodeID || host == "" || !g.IsReady(b) {
			continue
		}
		address := withProtocol(config.SASLSSL, net.JoinHostPort(host, strconv.Itoa(int(port))))
		d := credential.DialAsNode(n.peers.self, n.peers.incarnation, credential.Target{Nodes: n.peers.directory, NodeID: id}, rand.Reader)
		within, cancel := context.WithTimeout(ctx, askKeyTime)
		told, err := askOne(within, address, d, n.encryption.dialPeer)
		cancel()
		if err == nil && !told.IsSecured {
			err = errors.New("it does not tell it")
		}
		if err == nil {
			var ring *sealing.Ring
			if ring, err = sealing.ParseRing(told.Keys); err == nil && ring.Has(s.neededKey(g)) {
				return ring, nil
			}
		}
		failed = errors.Join(failed, fmt.Errorf("node %d: %w", id, err))
	}
	return nil, failed
}

// join has a node that joins be secured with the others, before it has its identity.
func (s *securing) join(id identity, told *cluster.SecuredCluster) error {
	n := s.n
	ring, err := sealing.ParseRing(told.Keys)
	if err != nil || told.Authority == nil {
		return errors.Join(errors.New("the cluster is secured, and did not tell all that this node needs"), err)
	}
	if err := checkOpening(n.cfg.Settings); err != nil {
		return err
	}
	file, err := keyFileOf(&n.cfg)
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
	if err := s.keep(&secured{keyFile: file, keyID: ring.Newest(), super: told.SuperUser, whileRunning: true}); err != nil {
		return err
	}
	n.id = id // for the certificate
	if err := newCertificates(n, s.kept.Load()).refresh(told.Authority, time.Now()); err != nil {
		return fmt.Errorf("cannot make the certificate of this node: %w", err)
	}
	s.hadCertificate = true
	return nil
}

// showCertificate makes the certificate if it is needed, and has the listeners show it.
func (s *securing) showCertificate() error {
	n := s.n
	n.encryption.own = newCertificates(n, s.kept.Load())
	if err := refreshOwn(n); err != nil {
		return err
	}
	if err := n.encryption.loadShared(n.static.With(ownCertificates(n)), pathOf(n, trustedFile)); err != nil {
		return fmt.Errorf("cannot use the certificate of this node: %w", err)
	}
	s.takesTLS.Store(true)
	return nil
}

// moveLinks ends connections to nodes that have come to be reached with TLS: the next ones have it.
func (s *securing) moveLinks() {
	m := s.n.image.Load()
	moved := map[int32]bool{}
	for id, b := range m.Brokers {
		if id == s.n.id.nodeID || len(b.Listeners) == 0 || s.reached[id] || m.PeerSecurity(b) == meta.Plaintext {
			continue
		}
		moved[id], s.reached[id] = true, true
	}
	if len(moved) > 0 {
		s.n.peers.links.Retain(func(id int32) bool { return !moved[id] })
	}
}

// endPlain ends the plain connections that are left: first so that answers are still sent, and at the next step at once.
func (s *securing) endPlain() {
	if n := s.n.wire.EndPlain(s.ended > 0); n > 0 && s.ended == 0 {
		s.n.loggers.loggerOf(rootLogger).Info("connections without TLS are ended, since the cluster is secured", "connections", n)
	}
	s.ended++
}

// tellPages has the pages of HTTP ask for a login once ACLs decide.
func (s *securing) tellPages(g *meta.Securing) {
	n, now := s.n, pagesOpen
	if g != nil && g.State == meta.SecuringFinished {
		now = pagesClosed
	}
	if n.admin == nil || n.secured != nil || s.page == now {
		return
	}
	if s.page = now; now == pagesOpen {
		n.admin.login.Store(nil)
		return
	}
	settings, err := n.static.HTTPLogin(true)
	login := &weblogin.Login{} // which shows nothing
	if err == nil {
		login, err = newHTTPLogin(n, &settings, s.authorizerOf(g))
	}
	if err != nil {
		n.loggers.loggerOf(rootLogger).Warn("the pages of HTTP cannot ask for a login, and are closed", "err", err)
		login = &weblogin.Login{}
	}
	login.Record(n.audit)
	n.admin.login.Store(login)
}

// tellProblem keeps why the next step cannot be made, and logs it once a minute.
func (s *securing) tellProblem(err error) {
	if err == nil {
		s.problem.Store(nil)
		return
	}
	text := err.Error()
	if s.problem.Store(&text); time.Since(s.told) > tellEvery {
		s.told = time.Now()
		s.n.loggers.loggerOf(rootLogger).Warn("this node cannot be secured with its cluster yet; it is tried again until it can", "err", err)
	}
}
