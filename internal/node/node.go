// Package node builds, starts, reconciles and stops a node: the only package that
// knows everybody. Node is a running one, Config what it is started with; settings,
// identity and the HTTP face are here too, since nobody else reads files, flags or
// the environment.
//
// A Node's methods may be used by any goroutine. The image of the metadata is
// written by the quorum's applier alone, in apply, and so is all that follows it: see
// follower.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// Node is a running node.
type Node struct {
	cfg     Config
	loggers *loggers
	fs      vfs.FS
	boot    string // id of the kernel's run
	id      identity
	static  *config.Static

	descriptors descriptors // who may have how many
	addresses   addresses

	incarnation meta.UUID // of this start

	ctx    context.Context //nolint:containedctx // the node's own life: handlers that wait do so under it
	cancel context.CancelFunc
	failed chan error // the first failure that the node cannot outlive; buffered

	sizes    sizes
	work     *budget.Budget // of all memory that requests take beyond their own bytes
	image    atomic.Pointer[meta.Image]
	built    atomic.Bool // what follows below is there, for the applier too
	follower follower    // the applier's
	deleted  deletedTopics

	lock       io.Closer
	listeners  []listener
	quorum     *quorum.Node
	store      *storage.Store
	set        *replica.Set
	controller *controller.Controller
	groups     *group.Service
	broker     *broker.Broker
	wire       *wire.Server
	admin      *admin
	serving    sync.WaitGroup
	stopping   sync.Once
}

// Start starts a node and returns when it serves. ctx is for the start alone.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	return startOn(ctx, cfg, vfs.OS{}, vfs.BootID())
}

// startOn starts a node on a file system; boot names the run of the kernel that
// caches it.
func startOn(ctx context.Context, cfg Config, fsys vfs.FS, boot string) (*Node, error) {
	n := &Node{cfg: cfg, fs: fsys, boot: boot, failed: make(chan error, 1), incarnation: meta.NewUUID()}
	to := slog.DiscardHandler
	if cfg.Logger != nil {
		to = cfg.Logger.Handler()
	}
	n.loggers = newLoggers(to, cfg.LogLevel)
	n.image.Store(meta.Empty())
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.start(ctx); err != nil {
		// What was opened is closed again; the failure is what matters.
		return nil, errors.Join(err, n.Stop(ctx))
	}
	return n, nil
}

// start is the order in which a node comes up: first what may be refused, then
// what is durable, then what serves. Stop is the list backwards.
func (n *Node) start(ctx context.Context) error {
	if err := n.planDescriptors(); err != nil {
		return err
	}
	dir, err := filepath.Abs(n.cfg.Data)
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrDirectory, n.cfg.Data, err)
	}
	n.cfg.Data = filepath.ToSlash(dir)
	if n.addresses, err = planAddresses(&n.cfg); err != nil {
		return err
	}
	if err := n.listen(ctx); err != nil {
		return err
	}
	if n.lock, err = lockDirectory(n.fs, n.cfg.Data); err != nil {
		return err
	}
	if n.id, err = loadIdentity(n.fs, n.cfg.Data, n.cfg.ID); err != nil {
		return err
	}
	if n.static, err = config.NewStatic(n.id.nodeID, n.cfg.Settings); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	n.static = n.static.With(n.ownConfigs())
	for _, w := range slices.Concat(n.cfg.Warnings, n.static.Warnings()) {
		n.loggers.logger(rootLogger).Warn("a setting changes nothing", "why", w)
	}
	n.sizes = sizesFor(availableMemory(os.DirFS("/")), n.server())
	n.work = budget.New(budget.Config{Bytes: n.sizes.work, Parked: n.sizes.parked})
	if err := n.openEngine(); err != nil {
		return err
	}
	epoch, err := n.register(ctx)
	if err != nil {
		return err
	}
	if err := n.openBroker(); err != nil {
		return err
	}
	if err := n.activate(ctx, epoch); err != nil {
		return err
	}
	if n.admin, err = openAdmin(ctx, n.cfg.HTTP, n.descriptors.http, n.registry(), n.health); err != nil {
		return err
	}
	for i := range n.listeners {
		n.serving.Go(func() { n.serve(&n.listeners[i].Listener) })
	}
	n.serving.Go(n.settle)
	if n.cfg.KeepMonitorAwake {
		n.serving.Go(n.keepMonitorAwake)
	}
	if n.admin != nil {
		n.admin.ready.Store(true)
	}
	return nil
}

// openEngine replays the metadata and recovers the logs.
func (n *Node) openEngine() error {
	// The metadata log is written as soon as it is open: a directory that is refused stays as
	// it is, however often the start is tried.
	used, err := storage.CheckVersion(n.fs, n.cfg.Data, n.loggers.logger("storage"))
	if err != nil {
		return fmt.Errorf("cannot open the logs in %s: %w", n.cfg.Data, err)
	}
	q, err := quorum.Open(quorum.Config{
		ID: n.id.nodeID, Dir: path.Join(n.cfg.Data, quorumDir), FS: n.fs, Logger: n.loggers.logger("quorum"),
		Apply: n.apply, Capture: n.capture,
		CheckEnd: func(last uint64) error { return storage.CheckMetadata(n.cfg.Data, used, last) },
	})
	if err != nil {
		return fmt.Errorf("cannot open the metadata log: %w", err)
	}
	n.quorum = q
	n.serving.Go(n.watchQuorum)
	img := n.image.Load()
	if img.ClusterID != "" && img.ClusterID != n.id.clusterID {
		return fmt.Errorf("%w %s: it belongs to cluster %s, but its metadata is of cluster %s; the directories of two clusters were mixed: restore one from a backup",
			ErrDirectory, n.cfg.Data, n.id.clusterID, img.ClusterID)
	}
	cfg := n.storageConfig()
	cfg.Metadata = n.quorum.Applied()
	n.store, err = storage.Open(cfg)
	if err != nil {
		return fmt.Errorf("cannot open the logs in %s: %w", n.cfg.Data, err)
	}
	n.set = replica.NewSet(replica.Config{NodeID: n.id.nodeID, Store: n.store, Static: n.static})
	n.groups = group.New(group.Config{
		Logger:     n.loggers.logger("group"),
		Settings:   n.groupSettings,
		Partitions: n.offsetsPartitions,
		Memory:     n.sizes.groups,
	})
	n.controller = controller.New(controller.Config{
		Image: n.image.Load, Leading: n.quorum.Leading, Propose: n.quorum.Propose, Static: n.static,
	})
	return nil
}

// capture notes the image and returns what encodes it; an image never changes.
func (n *Node) capture() (encode func() []byte) {
	img := n.image.Load()
	return func() []byte { return meta.Encode(img) }
}

// watchQuorum ends the node when its quorum has ended: it would not hear of any change.
func (n *Node) watchQuorum() {
	select {
	case <-n.quorum.Done():
		n.fail(fmt.Errorf("the node cannot follow the metadata any more: %w", n.quorum.Err()))
	case <-n.ctx.Done():
	}
}

// register makes the cluster known at its first start, and at each start this node,
// under a new incarnation and fenced: it leads nothing yet.
func (n *Node) register(ctx context.Context) (epoch int64, err error) {
	if err := n.controller.Bootstrap(ctx, n.id.clusterID); err != nil {
		return 0, fmt.Errorf("cannot write the cluster's first metadata: %w", err)
	}
	epoch, err = n.controller.Register(ctx, meta.Broker{
		ID: n.id.nodeID, Incarnation: n.incarnation, State: meta.BrokerFenced, Rack: n.cfg.Rack,
		Listeners: n.addresses.registration(n.listeners),
		Features:  broker.SupportedFeatures(),
	})
	if err != nil {
		return 0, fmt.Errorf("cannot register this node in its cluster: %w", err)
	}
	return epoch, nil
}

// activate ends the fencing, when all is built and before the first client is served:
// it gives the partitions that this node leads a new leader epoch. When it returns, all
// that is on this node follows the image.
func (n *Node) activate(ctx context.Context, epoch int64) error {
	n.built.Store(true)
	if err := n.controller.Unfence(ctx, n.id.nodeID, epoch); err != nil {
		return fmt.Errorf("cannot become active in the cluster: %w", err)
	}
	n.store.Sweep(func(id storage.LogID) bool { return n.image.Load().TopicByID(id.Topic) != nil }, n.deleted.has)
	return nil
}

func (n *Node) openBroker() error {
	b, err := broker.New(n.brokerConfig())
	if err != nil {
		return err
	}
	n.broker = b
	n.wire = wire.NewServer(n.wireConfig(), b)
	return nil
}

// plaintext is Kafka's name of a listener without encryption.
const plaintext = "PLAINTEXT"

// serve accepts connections until the listener is closed.
func (n *Node) serve(l *wire.Listener) {
	if err := n.wire.Serve(l); err != nil && n.ctx.Err() == nil {
		n.fail(fmt.Errorf("cannot accept connections on %s any more: %w", l.Addr(), err))
	}
}

// fail notes a failure that the node cannot outlive; the first one counts.
func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// Failed delivers a failure after which the node must be stopped.
func (n *Node) Failed() <-chan error { return n.failed }

// Info tells where the node can be reached.
func (n *Node) Info() Info {
	info := Info{Data: n.cfg.Data, ClusterID: n.id.clusterID, LoopbackOnly: true}
	for _, l := range n.listeners {
		info.Addresses = append(info.Addresses, l.Addr().String())
		a, ok := l.Addr().(*net.TCPAddr)
		info.LoopbackOnly = info.LoopbackOnly && ok && a.IP.IsLoopback()
	}
	if n.admin != nil {
		info.HTTP = n.admin.addr
	}
	return info
}

// Stop stops the node: no new requests, the answers that are due while ctx lasts,
// then everything durable. A second call does nothing; a node whose start failed
// closes what it had opened.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	n.stopping.Do(func() { err = n.stop(ctx) })
	return err
}

// closeGrace is how long the metadata log may take to close where the time of a stop is
// over: clients may have used it up, and the log takes a moment unless its disk hangs.
const closeGrace = 3 * time.Second

func (n *Node) closeQuorum(ctx context.Context) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
		defer cancel()
	}
	return n.quorum.Close(ctx)
}

func (n *Node) stop(ctx context.Context) error {
	if n.admin != nil {
		n.admin.ready.Store(false)
	}
	n.cancel()
	var errs []error
	for _, l := range n.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.groups != nil {
		n.groups.Close()
	}
	if n.broker != nil {
		n.broker.Drain()
	}
	if n.wire != nil {
		errs = append(errs, n.wire.Shutdown(ctx))
	}
	n.serving.Wait()
	if n.broker != nil {
		n.broker.Close()
	}
	if n.quorum != nil {
		errs = append(errs, n.closeQuorum(ctx))
	}
	if n.set != nil {
		n.set.Close()
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	errs = append(errs, n.admin.close(ctx))
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
