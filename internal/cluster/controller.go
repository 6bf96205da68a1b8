package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

const (
	// firstPause is the pause after an attempt that failed; it doubles each time, up to longPause.
	firstPause = 10 * time.Millisecond
	longPause  = 250 * time.Millisecond
	// lookEvery is how often is looked whether another node has become the active controller while
	// one is asked that may be gone.
	lookEvery = 100 * time.Millisecond
	// appliedTime is how long an answer waits until this node has applied what it tells of.
	appliedTime = 5 * time.Second
	// maxCommand bounds a command and its answer.
	maxCommand = 1 << 20
	// maxCommands is how many commands of other nodes are served at a time, and how many that clients have
	// caused.
	maxCommands = 256
)

var (
	errNoController = fmt.Errorf("no active controller is known: %w", quorum.ErrNotLeader)
	errOtherLeader  = errors.New("another node has become the active controller")
)

// ControllerConfig is what a Controller works with.
type ControllerConfig struct {
	Links  *peer.Links
	Quorum *Quorum                // knows who leads
	Local  *controller.Controller // of this node; it decides if this node leads
	Image  func() *meta.Image
	// SealingKeys are the sealing keys of this node, if it is secured; nil: it has none.
	SealingKeys SealingKeeper
	// Now is the time of the controller on this node.
	Now func() time.Duration
	// ServeClient serves a request of another node's client, as if the client had asked this node, if this
	// node is the active controller. It must answer r, with Carried's methods, or return an error:
	// quorum.ErrNotLeader if this node is not. nil: there are no clients.
	ServeClient func(ctx context.Context, q *wire.Carried, r *wire.Request) error
	// Secured is what a new node needs to become one of this cluster, if it is secured; nil: it is not.
	Secured func() (SecuredCluster, error)
	// Securing secures the cluster while it runs; nil: nothing does.
	Securing SecuringServer
	// Linking does what a node does about links; nil: nothing does.
	Linking LinkServer
	// Positions does what a node does for the positions that links follow; nil: nothing does.
	Positions PositionServer
	// Tails has what cuts have taken from this node's replicas; nil: nothing has it.
	Tails TailServer
	// Record is told of each command that a holder of a node's data directory has given to this node; nil: nobody is.
	Record func(g *Given)
	Logger *slog.Logger
}

// Given is a command of somebody who holds a node's data directory, and how it ended.
type Given struct {
	From    int32  // the node of the directory
	Address string // of the client
	Key     int16  // which command
	About   string // a token's id, the number of a node, a feature and its level, or what was done with certificates
	Refused *controller.Error
	Err     error
}

// Controller is the active controller of the cluster, on whatever node it is. A call on the node that
// leads the quorum is decided there. Any other one is sent to that node, again and again until it is
// answered or the context ends: the leader may change, and connections may break. So a command may be
// decided twice; commands say what that does.
//
// Clients may cause any number of commands (command.isForClients). Those have a connection, which forwarded
// requests have too, and a worker of their own, so that they never keep nodes' own commands waiting:
// without heartbeats a node is fenced.
type Controller struct {
	cfg      ControllerConfig
	work     *worker // of nodes' own commands
	clients  *worker // of commands that clients have caused
	forwards *worker // of clients' requests
	tails    tailWorkers
	wishes   *topicWishes
	reaches  *reaches
}

// NewController makes the Controller of a node. The commands of other nodes that it serves end with the
// context, or with Close.
func NewController(ctx context.Context, cfg ControllerConfig) *Controller {
	c := &Controller{
		cfg: cfg, work: newWorker(ctx, maxCommands), clients: newWorker(ctx, maxCommands), forwards: newWorker(ctx, maxForwards),
		tails: newTailWorkers(ctx),
	}
	c.wishes = newTopicWishes(ctx, c.askForTopics)
	c.reaches = newReaches(ctx, c)
	return c
}

// Close answers all commands of other nodes that wait, and refuses later ones. It also ends what this node
// asks for its clients.
func (c *Controller) Close() {
	c.wishes.close()
	c.reaches.close()
	c.work.close()
	c.clients.close()
	c.forwards.close()
	c.tails.close()
}

// Notify takes what the Links tell of connections, so that the active controller soon knows of the end
// of a node's process.
func (c *Controller) Notify(e peer.Event) {
	switch e.Kind {
	case peer.PeerClosed:
		c.cfg.Local.PeerClosed(c.cfg.Now(), e.Node)
	case peer.DialRefused:
		c.cfg.Local.PeerRefused(c.cfg.Now(), e.Node)
	case peer.Connected, peer.Lost, peer.DialFailed:
	}
}

// KeepLinks has this node, if it is the active controller, keep connections to all nodes, by which it
// notices their end. It is called at intervals.
func (c *Controller) KeepLinks() {
	if c.cfg.Quorum.Leader() != c.cfg.Quorum.cfg.NodeID {
		return
	}
	for id := range c.cfg.Image().Brokers {
		if id != c.cfg.Quorum.cfg.NodeID {
			c.cfg.Links.TryGet(id, peer.Commands)
		}
	}
}

// repeat makes attempts at a command until one of them is answered, or the context ends. here decides it
// on this node, and there asks another one.
func (c *Controller) repeat(ctx context.Context, here func(ctx context.Context) error, there func(ctx context.Context, node int32) error) error {
	q := c.cfg.Quorum
	hint, others := int32(-1), 0
	for pause := firstPause; ; {
		node, isHint := hint, hint >= 0
		if hint = -1; !isHint {
			node = q.Leader()
		}
		if node < 0 { // whoever is asked may know
			node = q.anyOther(others)
			others++
		}
		err := errNoController
		switch {
		case node == q.cfg.NodeID:
			err = here(ctx)
		case node >= 0:
			err = c.askOne(ctx, node, there)
		}
		if !isPassing(err) {
			return err
		}
		var elsewhere *notLeaderError
		if errors.As(err, &elsewhere) && !isHint {
			if hint = elsewhere.leader; hint >= 0 && hint != node {
				continue
			}
		}
		if !awaitPause(ctx, pause/2+rand.N(pause)) {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		pause = min(2*pause, longPause)
	}
}

// unansweredError says that a node has not answered a command, which it may have decided or not.
type unansweredError struct {
	node int32
	err  error
}

func (e *unansweredError) Error() string {
	return fmt.Sprintf("node %d has not answered: %v", e.node, e.err)
}

func (e *unansweredError) Unwrap() error { return e.err }

// isPassing tells whether another attempt may have another result.
func isPassing(err error) bool {
	var unanswered *unansweredError
	return errors.Is(err, quorum.ErrNotLeader) || errors.Is(err, ErrBusy) || errors.Is(err, errStopping) || errors.As(err, &unanswered)
}

// askOne asks a node, and gives up when another one has become the active controller.
func (c *Controller) askOne(ctx context.Context, node int32, ask func(ctx context.Context, node int32) error) error {
	own, cancel := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel(nil)
	before := c.cfg.Quorum.Leader()
	looking.Go(func() {
		for awaitPause(own, lookEvery) {
			if leader := c.cfg.Quorum.Leader(); leader >= 0 && leader != node && leader != before {
				cancel(errOtherLeader)
			}
		}
	})
	err := ask(own, node)
	if err != nil && ctx.Err() == nil && own.Err() != nil {
		return &unansweredError{node, context.Cause(own)}
	}
	return err
}

// request is what is sent to another node.
type request struct {
	purpose peer.Purpose
	key     int16
	body    []byte
	most    int // bytes of the answer
}

// call sends a command to a node, and returns the body of its answer.
func (c *Controller) call(ctx context.Context, node int32, p peer.Purpose, key int16, body []byte) ([]byte, error) {
	return c.callFor(ctx, node, &request{purpose: p, key: key, body: body, most: maxCommand})
}

func (c *Controller) callFor(ctx context.Context, node int32, q *request) ([]byte, error) {
	conn, err := c.cfg.Links.Get(ctx, node, q.purpose)
	if err != nil {
		return nil, &unansweredError{node, err}
	}
	return callOn(ctx, conn, node, q)
}

func callOn(ctx context.Context, conn *peer.Conn, node int32, q *request) ([]byte, error) {
	answer, err := conn.CallInto(ctx, q.key, q.body, nil, q.most)
	switch {
	case errors.Is(err, peer.ErrTooLarge):
		return nil, err
	case err != nil:
		return nil, &unansweredError{node, err}
	}
	return splitAnswer(answer)
}

// applied is the entry of the metadata log that this node has applied.
func (c *Controller) applied() uint64 {
	if n := c.cfg.Quorum.node.Load(); n != nil {
		return n.Applied()
	}
	return 0
}

// awaitApplied waits until this node has applied what the active controller has applied, so that who
// has asked this node finds it here. If that takes too long, the caller goes on all the same.
func (c *Controller) awaitApplied(ctx context.Context, index uint64) {
	n := c.cfg.Quorum.node.Load()
	if n == nil || n.Applied() >= index {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, appliedTime)
	defer cancel()
	if err := n.AwaitApplied(ctx, index); err != nil {
		c.cfg.Logger.Warn("a command was carried out, and this node does not show that yet", "applied", n.Applied(), "entry", index, "err", err)
	}
}

// awaitPause waits for a time. It returns false when the context ends before.
func awaitPause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
