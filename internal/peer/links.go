package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/credential"
)

const (
	firstPause = 50 * time.Millisecond // after a failed dial; it doubles each time
	longPause  = 2 * time.Second       // the longest one, but for the jitter
	// steadyTime is how long a connection must have lived so that the next dial is not made later
	// because of the failures before it.
	steadyTime = 5 * time.Second
)

// Purpose is what a connection is for. Each has a connection of its own, so that a large or late
// answer for one is never before a message of another.
type Purpose int16

// The purposes of connections.
const (
	Quorum   Purpose              = iota // messages of the metadata quorum
	Commands                             // calls that are answered soon
	Metadata                             // pulls of the metadata log and its snapshots, which may wait long
	Clients                              // requests of clients for the active controller, which may wait and be large
	Markers                              // markers of the coordinators of transactions, which may wait for replicas
	Audit                                // events of the audit log, which may wait for replicas
	checks                               // the first one of the questions of leaders to those coordinators
	fetchers = checks + maxChecks        // the first one of a fetcher
)

// maxChecks is how many connections there may be for questions to the coordinators of transactions.
const maxChecks = 16

// Check is the purpose of one of a leader's connections to coordinators of transactions.
func Check(i int) Purpose {
	if i < 0 || i >= maxChecks {
		panic("BUG: a connection for checks beyond the last one")
	}
	return checks + Purpose(i)
}

// Fetcher is the purpose of one of a follower's connections to a leader.
func Fetcher(i int) Purpose { return fetchers + Purpose(i) }

func (p Purpose) String() string {
	switch {
	case p == Quorum:
		return "quorum"
	case p == Commands:
		return "commands"
	case p == Metadata:
		return "metadata"
	case p == Clients:
		return "clients"
	case p == Markers:
		return "markers"
	case p == Audit:
		return "audit"
	case p < fetchers:
		return fmt.Sprintf("checks %d", p-checks)
	default:
		return fmt.Sprintf("fetcher %d", p-fetchers)
	}
}

// Target is how to reach a node now.
type Target struct {
	Addresses []string                   // host and port, in the order in which they are tried
	Dialler   func() *credential.Dialler // makes the dialler of one handshake with the node
	// Others are addresses at which any node of the cluster may be. They are tried last, and do not count for DialRefused.
	Others []string
}

// EventKind says what has happened to a connection.
type EventKind uint8

// The kinds of events.
const (
	Connected   EventKind = iota // both ends are proven
	PeerClosed                   // the other end has closed the connection
	Lost                         // the connection has ended in another way
	DialRefused                  // nobody listens at any of the node's addresses
	DialFailed                   // the node could not be reached, or was refused, in another way
)

func (k EventKind) String() string {
	return [...]string{"connected", "closed by the other node", "lost", "dial refused", "dial failed"}[k]
}

// Event is something that has happened to a connection to a node.
type Event struct {
	Node    int32
	Purpose Purpose
	Kind    EventKind
	Err     error // why; nil: it is connected
}

// LinksConfig is what Links work with.
type LinksConfig struct {
	// Find returns how to reach a node now: the newest metadata. It fails for one that is not a member.
	Find func(node int32) (Target, error)
	// Notify gets the events, those of one node and purpose one after another. It must not wait; nil:
	// nobody wants them.
	Notify func(e Event)
	// Dial opens a connection; nil: a net.Dialer does.
	Dial DialFunc
}

// Links keeps connections to nodes. The first use of a node and purpose makes a link, which dials at
// once, and again whenever its connection has ended, until the node is dropped:
//
//	dialling --ok--> connected --ended--> dialling, at once if the connection was steady
//	   '---failed--> pausing ---------->
type Links struct {
	cfg     LinksConfig
	start   func(k *link) // starts the goroutine of a link
	cancel  context.CancelFunc
	running sync.WaitGroup // of the links; added to with mu held, while not closed

	mu     sync.Mutex // guards the fields below
	links  map[linkKey]*link
	closed bool
}

type linkKey struct {
	node    int32
	purpose Purpose
}

// link is the connection to a node for a purpose, and what becomes of it.
type link struct {
	key   linkKey
	end   context.CancelFunc // ends its goroutine
	hurry chan struct{}      // size 1: its node is there, so the present pause is to end
	early time.Time          // when that has ended a pause last; its goroutine's

	mu      sync.Mutex // guards the fields below
	conn    *Conn      // nil: it is not connected
	attempt *attempt   // the present dial, or the next one; after the end the last one
}

// attempt is one dial. Its result does not change when done is closed.
type attempt struct {
	done chan struct{}
	conn *Conn
	err  error
}

// NewLinks makes the links of a node. They end with the context, or with Close.
func NewLinks(ctx context.Context, cfg LinksConfig) *Links {
	n := &Links{cfg: cfg, links: map[linkKey]*link{}}
	if n.cfg.Notify == nil {
		n.cfg.Notify = func(Event) {}
	}
	ctx, n.cancel = context.WithCancel(ctx)
	n.start = func(k *link) {
		own, end := context.WithCancel(ctx)
		k.end = end
		n.running.Go(func() {
			defer end()
			n.maintain(own, k)
		})
	}
	return n
}

// Get returns the connection to a node for a purpose. If there is none, it waits for the result of
// the present dial, or of the next one.
func (n *Links) Get(ctx context.Context, node int32, p Purpose) (*Conn, error) {
	k, err := n.findLink(linkKey{node, p})
	if err != nil {
		return nil, err
	}
	c, next := k.current()
	if c != nil {
		return c, nil
	}
	select {
	case <-next.done:
		return next.conn, next.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TryGet returns the connection to a node for a purpose, if there is one now. If not, one is being
// made.
func (n *Links) TryGet(node int32, p Purpose) (c *Conn, ok bool) {
	k, err := n.findLink(linkKey{node, p})
	if err != nil {
		return nil, false
	}
	c, _ = k.current()
	return c, c != nil
}

// Probe opens a connection to an address, and closes it. The error is ErrDialRefused if nobody listens there.
func (n *Links) Probe(ctx context.Context, address string) error {
	dial := n.cfg.Dial
	if dial == nil {
		dial = dialPlain
	}
	c, err := dial(ctx, "tcp", address)
	if err != nil {
		return classify(err)
	}
	return c.Close()
}

// Reach connects to a node at one address, proves that it is the one, and closes the connection.
func (n *Links) Reach(ctx context.Context, node int32, address string) error {
	target, err := n.cfg.Find(node)
	if err != nil {
		return err
	}
	c, err := Dial(ctx, address, target.Dialler(), n.cfg.Dial)
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// Retain drops the links to all nodes but those that are wanted.
func (n *Links) Retain(wanted func(node int32) bool) {
	n.mu.Lock()
	keys := make([]linkKey, 0, len(n.links))
	for key := range n.links {
		keys = append(keys, key)
	}
	n.mu.Unlock()
	for _, key := range keys {
		if !wanted(key.node) {
			n.dropLink(key)
		}
	}
}

// Hurry has the links to a node that wait for their next dial make it now: the node has just been heard
// of, so it is there.
func (n *Links) Hurry(node int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, k := range n.links {
		if key.node != node {
			continue
		}
		select {
		case k.hurry <- struct{}{}:
		default: // it was told already
		}
	}
}

// Close ends all links and their connections, and waits for them.
func (n *Links) Close() {
	n.mu.Lock()
	n.closed, n.links = true, nil
	n.mu.Unlock()
	n.cancel()
	n.running.Wait()
}

// findLink returns a link, which it makes if the node is a member.
func (n *Links) findLink(key linkKey) (*link, error) {
	n.mu.Lock()
	k, closed := n.links[key], n.closed
	n.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if k != nil {
		return k, nil
	}
	if _, err := n.cfg.Find(key.node); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch k := n.links[key]; {
	case n.closed:
		return nil, ErrClosed
	case k != nil:
		return k, nil
	}
	k = &link{key: key, hurry: make(chan struct{}, 1), attempt: newAttempt()}
	n.links[key] = k
	n.start(k)
	return k, nil
}

func (n *Links) dropLink(key linkKey) {
	n.mu.Lock()
	k := n.links[key]
	delete(n.links, key)
	n.mu.Unlock()
	if k != nil {
		k.end()
	}
}

// maintain is the goroutine of a link.
func (n *Links) maintain(ctx context.Context, k *link) {
	pause := firstPause
	for ctx.Err() == nil {
		c, kind, err := n.dial(ctx, k.key.node)
		n.notify(ctx, k, kind, err)
		k.finishAttempt(c, err)
		if c != nil && n.awaitEnd(ctx, k, c) {
			pause = firstPause
			continue
		}
		if k.awaitPause(ctx, pause/2+rand.N(pause)) {
			pause = min(2*pause, longPause)
		} else {
			pause = firstPause
		}
	}
	k.finish()
}

// awaitEnd waits until a connection has ended, and closes it when the context ends. It returns
// whether the connection was steady.
func (n *Links) awaitEnd(ctx context.Context, k *link, c *Conn) (steady bool) {
	began := time.Now()
	select {
	case <-c.Done():
	case <-ctx.Done():
	}
	c.Close()
	k.forgetConn()
	kind, err := Lost, c.Err()
	if errors.Is(err, ErrClosedByPeer) {
		kind = PeerClosed
	}
	n.notify(ctx, k, kind, err)
	return time.Since(began) >= steadyTime
}

// dial tries the addresses of a node. At others, the handshake tells whether it is there.
func (n *Links) dial(ctx context.Context, node int32) (*Conn, EventKind, error) {
	target, err := n.cfg.Find(node)
	if err != nil {
		return nil, DialFailed, err
	}
	if len(target.Addresses)+len(target.Others) == 0 {
		return nil, DialFailed, fmt.Errorf("%w of node %d", errNoAddress, node)
	}
	kind := DialRefused
	var errs []error
	for _, address := range target.Addresses {
		c, err := Dial(ctx, address, target.Dialler(), n.cfg.Dial)
		if err == nil {
			return c, Connected, nil
		}
		if !errors.Is(err, ErrDialRefused) {
			kind = DialFailed
		}
		errs = append(errs, err)
	}
	if len(target.Addresses) == 0 {
		kind = DialFailed
	}
	for _, address := range target.Others {
		c, err := Dial(ctx, address, target.Dialler(), n.cfg.Dial)
		if err == nil {
			return c, Connected, nil
		}
		if !errors.Is(err, credential.ErrWrongNode) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%w of node %d, and it is at none of those of other nodes", errNoAddress, node))
	}
	return nil, kind, errors.Join(errs...)
}

// errNoAddress is returned for a node that has registered no listener.
var errNoAddress = errors.New("there is no address")

// notify tells of an event, unless this end has ended the link.
func (n *Links) notify(ctx context.Context, k *link, kind EventKind, err error) {
	if ctx.Err() == nil {
		n.cfg.Notify(Event{Node: k.key.node, Purpose: k.key.purpose, Kind: kind, Err: err})
	}
}

// awaitPause waits for some time, or until the context ends. It returns false if the pause was ended
// early, since the node is there. That happens once in longPause: two nodes whose connections end at once
// would otherwise make each other dial in a hot loop.
func (k *link) awaitPause(ctx context.Context, d time.Duration) (whole bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-ctx.Done():
			return true
		case <-k.hurry:
			if now := time.Now(); now.Sub(k.early) >= longPause {
				k.early = now
				return false
			}
		}
	}
}

func newAttempt() *attempt { return &attempt{done: make(chan struct{})} }

// current returns the connection, or nil and the attempt whose result comes next.
func (k *link) current() (*Conn, *attempt) {
	k.mu.Lock()
	c, next := k.conn, k.attempt
	k.mu.Unlock()
	if c != nil && c.Err() == nil {
		return c, nil
	}
	return nil, next
}

// finishAttempt has the result of the present attempt. The next one begins later.
func (k *link) finishAttempt(c *Conn, err error) {
	k.mu.Lock()
	a := k.attempt
	a.conn, a.err = c, err
	k.conn, k.attempt = c, newAttempt()
	k.mu.Unlock()
	close(a.done)
}

func (k *link) forgetConn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conn = nil
}

// finish ends the link: there is no next attempt.
func (k *link) finish() {
	k.mu.Lock()
	k.conn, k.attempt.err = nil, ErrClosed
	k.mu.Unlock()
	close(k.attempt.done)
}
