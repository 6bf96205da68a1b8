// Package node starts a node of all the engine's packages, has them follow the cluster's
// metadata, and stops it. It also reads the settings, from flags, the environment and a
// file, keeps the identity in the data directory, and serves health, metrics and profiles
// over HTTP.
//
// Node is a running node, and Config is what it is started with. A Node's methods may be
// called by any goroutine. Only the goroutine of the quorum that calls apply changes the
// image of the metadata, and everything that follows it: see followState.
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

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/storage/lastrun"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// Node is a running node.
type Node struct {
	cfg     Config
	loggers *loggers
	fs      vfs.FS
	boot    string // identifies the run of the kernel, which changes when the machine starts
	id      identity
	static  *config.Static
	clientRules

	descriptors descriptors
	addresses   addresses

	membership
	peers peers

	ctx    context.Context //nolint:containedctx // ends when the node stops; handlers wait under it
	cancel context.CancelFunc
	failure

	sizes sizes
	budgets
	image atomic.Pointer[meta.Image]
	follower

	lock io.Closer
	entrances
	quorum     *quorum.Node
	store      *storage.Store
	set        *replica.Set
	controller *controller.Controller
	coordinators
	broker   *broker.Broker
	wire     *wire.Server
	admin    *admin
	serving  sync.WaitGroup
	stopping sync.Once
}

// clientRules say who clients are, what they may do, and how much.
type clientRules struct {
	security
	quotas quotas
	audit  *audit.Recorder // nil: what they do is not recorded
}

// failure is the first failure after which a node must be stopped.
type failure struct {
	failed  chan error      // of size 1; has it until somebody takes it
	failing context.Context //nolint:containedctx // ends with it; a start waits under it
	fail    context.CancelFunc
}

// Start starts a node and returns when it serves. ctx is for the start alone.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	return startOn(ctx, cfg, vfs.OS{}, vfs.BootID())
}

// startOn starts a node on a file system; boot identifies the run of the kernel that caches
// it.
func startOn(ctx context.Context, cfg Config, fsys vfs.FS, boot string) (*Node, error) {
	n := &Node{
		cfg: cfg, fs: fsys, boot: boot, failure: failure{failed: make(chan error, 1)},
		membership: membership{incarnation: meta.NewUUID(), began: time.Now(), nodesChanged: make(chan struct{}, 1), generations: generations{wanted: make(chan struct{}, 1)}, votersWanted: make(chan struct{}, 1)},
	}
	to := slog.DiscardHandler
	if cfg.Logger != nil {
		to = cfg.Logger.Handler()
	}
	n.loggers = newLoggers(to, cfg.LogLevel)
	n.securing = newSecuring(n)
	n.image.Store(meta.Empty())
	n.keys.n, n.linking.n, n.linking.tails.n = n, n, n
	openAgents(n)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.failing, n.fail = context.WithCancel(n.ctx)
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.stop(ctx)) // which closes everything that was opened
	}
	info := n.Info()
	level := slog.LevelInfo
	if cfg.Announced {
		level = slog.LevelDebug
	}
	n.loggers.loggerOf(rootLogger).Log(ctx, level, "the node has started", "node", n.id.nodeID, "cluster", info.ClusterID, "addresses", info.Addresses, "data", info.Data)
	return n, nil
}

// start starts the node in an order that leaves the data directory untouched if an address
// or a setting is refused, and accepts clients only when the logs are recovered. stop does
// the same backwards.
func (n *Node) start(ctx context.Context) error {
	var err error
	if n.descriptors, err = planDescriptors(n.loggers.loggerOf("wire")); err != nil {
		return err
	}
	dir, err := filepath.Abs(n.cfg.Data)
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrDirectory, n.cfg.Data, err)
	}
	n.cfg.Data = filepath.ToSlash(dir)
	own, err := openEntrances(ctx, n)
	if err != nil {
		return err
	}
	if err := inspectDirectory(n.fs, n.cfg.Data); err != nil {
		return fmt.Errorf("%w %s: %w", ErrDirectory, n.cfg.Data, err)
	}
	if err = n.openHTTP(ctx); err != nil {
		return err
	}
	if n.lock, err = lockDirectory(n.fs, n.cfg.Data); err != nil {
		return err
	}
	if err = beginSecured(n); err != nil {
		return err
	}
	if n.id, err = prepareIdentity(ctx, n.fs, &n.cfg, joining{
		own, n.encryption.dialPeer, n.loggers.loggerOf(rootLogger),
		func(ctx context.Context, j *joined) error { return secureJoiner(ctx, n, j) },
	}); err != nil {
		return err
	}
	n.serving.Go(func() { watchJoined(n) })
	if n.static, err = config.NewStatic(n.id.nodeID, n.cfg.Settings); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	n.static = n.static.With(n.ownConfigs())
	for _, w := range slices.Concat(n.cfg.Warnings, n.static.Warnings(), n.addresses.warnings(n.static)) {
		n.loggers.loggerOf(rootLogger).Warn("a setting has no effect", "why", w)
	}
	if err = prepareSecurity(n); err != nil {
		return err
	}
	if err = prepareHTTPLogin(n); err != nil {
		return err
	}
	if n.admin != nil && n.admin.elsewhere != "" {
		n.loggers.loggerOf(rootLogger).Warn("health and metrics are on another address than usual until the next start; --http HOST:PORT sets one that stays",
			"address", n.admin.addr, "why", n.admin.elsewhere)
	}
	n.sizes = sizesFor(availableMemory(os.DirFS("/")), n.serverSettings())
	n.producers = storage.NewProducerBudget(n.sizes.producers)
	n.work = budget.New(budget.Config{Bytes: n.sizes.work, Parked: n.sizes.parked, Mirror: n.sizes.mirrors})
	if err := n.openEngine(); err != nil {
		return err
	}
	if err := openCertificates(n); err != nil {
		return err
	}
	if err := n.openBroker(); err != nil {
		return err
	}
	if err := n.becomeActive(ctx); err != nil {
		return err
	}
	n.serving.Go(n.manageMemory)
	n.serving.Go(func() { n.encryption.watch(n.ctx, n.static, n.securing.advance, n.securing.poked) })
	if n.cfg.KeepMonitorAwake {
		n.serving.Go(n.keepMonitorAwake)
	}
	if n.admin != nil {
		n.admin.setReady(n.newRegistry(), compactionPage{n.store})
	}
	return nil
}

// openEntrances listens on all addresses, with the keys and certificates that are there, and returns with what the node is to be registered.
func openEntrances(ctx context.Context, n *Node) (own []meta.Listener, err error) {
	if err := planSecured(n); err != nil {
		return nil, err
	}
	if n.addresses, err = planAddresses(&n.cfg); err != nil {
		return nil, err
	}
	if err := n.openListeners(ctx); err != nil {
		return nil, err
	}
	own = n.addresses.listenersToRegister(n.listeners)
	n.encryption, err = prepareEncryption(&n.cfg, own, n.image.Load, n.loggers.loggerOf(rootLogger))
	return own, err
}

// becomeActive has the cluster take this node in, and serves clients from then on. The nodes of a cluster
// that all start can agree on nothing before they reach each other, so others are served at once.
func (n *Node) becomeActive(ctx context.Context) error {
	early := !n.peers.isAlone()
	if early {
		serveListeners(n)
	}
	if err := n.register(ctx); err != nil {
		return err
	}
	if err := n.activate(ctx); err != nil {
		return err
	}
	if err := errors.Join(checkSuperUsers(n), checkIsSecured(n)); err != nil {
		return err
	}
	dropOldLogin(ctx, n)
	warnOfBootstrapUser(ctx, n)
	sweepLogs(n)
	beginUpkeep(n)
	noteAddresses(n)
	n.peers.gate.open()
	if !early {
		serveListeners(n)
	}
	return nil
}

// sweepLogs has the store deal with directories that belong to no replica of this node. The node must be active:
// then its image has everything that was decided before this start.
func sweepLogs(n *Node) {
	hasMoved := func(id storage.LogID) bool { return isReplicaElsewhere(n.image.Load(), id, n.id.nodeID) }
	n.store.Sweep(func(id storage.LogID) bool { return n.image.Load().TopicByID(id.Topic) != nil && !hasMoved(id) }, n.deleted.containsLog, hasMoved)
}

// openEngine replays the metadata and recovers the logs.
func (n *Node) openEngine() error {
	// Opening the metadata log writes to it, so the version of the storage is checked first:
	// a directory that is refused must stay as it is, however often the start is tried.
	used, err := storage.CheckVersion(n.fs, n.cfg.Data, n.loggers.loggerOf("storage"))
	if err != nil {
		return fmt.Errorf("cannot open the logs in %s: %w", n.cfg.Data, err)
	}
	if err := preparePeers(n); err != nil {
		return fmt.Errorf("%w %s: %w", ErrDirectory, n.cfg.Data, err)
	}
	end := uint64(0)
	q, err := quorum.Open(quorum.Config{
		Transport: n.peers.metadata, Cluster: quorumName(n.id), Join: n.id.joined,
		ID: n.id.nodeID, Dir: path.Join(n.cfg.Data, quorumDir), FS: n.fs, Logger: n.loggers.loggerOf("quorum"),
		Apply: n.apply, Capture: n.captureImage,
		CheckEnd: func(last uint64) error {
			end = last
			return storage.CheckMetadata(n.cfg.Data, used, last)
		},
	})
	if err != nil {
		return fmt.Errorf("cannot open the metadata log: %w", err)
	}
	n.quorum = q
	n.peers.metadata.Attach(q)
	n.serving.Go(n.watchQuorum)
	img := n.image.Load()
	if img.ClusterID != "" && img.ClusterID != n.id.clusterID {
		return fmt.Errorf("%w %s: it belongs to cluster %s, but its metadata is of cluster %s; the directories of two clusters were mixed: put the files of one of them back where they were",
			ErrDirectory, n.cfg.Data, n.id.clusterID, img.ClusterID)
	}
	n.lastRun = lastrun.Open(n.fs, n.cfg.Data, n.loggers.loggerOf("storage"))
	cfg := n.storageConfig()
	cfg.Metadata, cfg.Run = end, n.lastRun
	n.store, err = storage.Open(cfg)
	if err != nil {
		return fmt.Errorf("cannot open the logs in %s: %w", n.cfg.Data, err)
	}
	n.controller = controller.New(controller.Config{
		Image: n.image.Load, Leading: n.quorum.Leading, Propose: n.quorum.Propose, Static: n.static,
		MaxPartitions: n.sizes.partitions, Applied: n.quorum.Applied, ConfirmLeading: n.quorum.ConfirmLeading,
		CanAdminister: func(m *meta.Image) bool { return canAdminister(n, m) },
	})
	n.delegation.commands = controller.NewDelegations(n.controller, n.delegation.controllerConfig())
	if err := n.peers.open(n.ctx, cluster.ControllerConfig{
		Local: n.controller, Now: n.clock, Logger: n.loggers.loggerOf("cluster"), SealingKeys: &n.keys,
		ServeClient: func(ctx context.Context, q *wire.Carried, r *wire.Request) error {
			return n.broker.ServeForwarded(ctx, q, r)
		},
		Secured: func() (cluster.SecuredCluster, error) { return tellSecured(n) }, Securing: n.securing, Linking: &n.linking, Positions: linkPositions{n}, Tails: &n.linking.tails,
		Record: func(g *cluster.Given) { recordCommand(n, g) },
	}, n.brokerEpoch.Load); err != nil {
		return err
	}
	n.set = replica.NewSet(replica.Config{
		NodeID: n.id.nodeID, Store: n.store, Static: n.static, Transport: n.peers.replicas, Logger: n.loggers.loggerOf("replica"),
	})
	n.peers.replicas.Attach(n.set)
	n.groups = group.New(group.Config{
		Logger:     n.loggers.loggerOf("group"),
		Settings:   n.groupSettings,
		Partitions: n.offsetsPartitions,
		Memory:     n.sizes.groups,
		HasSession: func() bool { return hasSession(n) },
		Forks: func(topic string, partition int32) (record.Offset, bool) {
			begin, ok := meta.ForkOf(n.image.Load(), topic, partition)
			return record.Offset(begin), ok
		},
	})
	openTransactions(n)
	openLinks(n)
	n.registrar, n.applied, n.nodeLinks = n.peers.commands, n.quorum.Applied, &n.peers
	n.lostMetadata = func() bool { return hasLostMetadata(n.quorum) }
	return nil
}

// preparePeers makes what the metadata need to reach other nodes.
func preparePeers(n *Node) (err error) {
	cfg := peersConfig{
		id: n.id, incarnation: n.incarnation, image: n.image.Load, join: n.cfg.Join, fail: n.noteFailure, dial: n.encryption.dialPeer, log: n.loggers.loggerOf("cluster"),
		isCutOff:     func() bool { return int64(n.clock()) >= n.sessionEnds.Load() },
		noteAdmitted: func(id int32, token credential.TokenID) { recordAdmission(n, id, token) },
	}
	if own := registeredListeners(n); len(own) > 0 {
		cfg.inter = config.Protocol(own[0].Security)
		cfg.addresses = []string{peer.FormatAddress(cfg.inter, own[0].Host, own[0].Port)}
	}
	if n.id.joined {
		if cfg.members, err = readMembers(n.fs, n.cfg.Data); err != nil {
			return err
		}
	}
	return n.peers.prepare(n.ctx, &cfg)
}

// captureImage returns a function that encodes the present image, which never changes.
func (n *Node) captureImage() (encode func() []byte) {
	img := n.image.Load()
	return func() []byte { return meta.Encode(img) }
}

// watchQuorum reports the end of the quorum, after which the node would learn of no change.
func (n *Node) watchQuorum() {
	select {
	case <-n.quorum.Done():
		n.noteFailure(fmt.Errorf("the node cannot follow the metadata any more: %w", nameNode(n.quorum.Err(), n.peers.metadata.NodeOf)))
	case <-n.ctx.Done():
	}
}

// watchJoined ends the node if it was started with --join of another cluster's nodes. The start does not wait for that: the nodes of
// a cluster that all start are found later, and a list may name this node.
func watchJoined(n *Node) {
	if err := checkJoinedNodes(n.ctx, &n.cfg, n.id, n.encryption.dialPeer); err != nil {
		n.noteFailure(err)
	}
}

// nameNode adds to an error of the quorum which node it speaks of.
func nameNode(err error, nodeOf func(raftID uint64) (node int32, ok bool)) error {
	var back *quorum.WentBackError
	if errors.As(err, &back) && back.Last == 0 {
		if id, ok := nodeOf(back.Of); ok {
			return fmt.Errorf("%w (raft's id %016x is node %d's)", err, back.Of, id)
		}
	}
	return err
}

func (n *Node) openBroker() error {
	if err := openAudit(n); err != nil {
		return err
	}
	n.quotas = newQuotas(n)
	setConnectionRates(n)
	b, err := broker.New(n.brokerConfig())
	if err != nil {
		return err
	}
	n.broker = b
	n.peers.gate.Handler = b
	n.wire = wire.NewServer(n.wireConfig(), &n.peers.gate)
	return nil
}

func serveListeners(n *Node) {
	n.serving.Go(func() { n.peers.hosts.run(n.ctx) })
	for i := range n.listeners {
		n.serving.Go(func() { n.serveListener(&n.listeners[i].Listener) })
	}
}

// serveListener accepts and serves connections until the listener is closed.
func (n *Node) serveListener(l *wire.Listener) {
	if err := n.wire.Serve(l); err != nil && n.ctx.Err() == nil {
		n.noteFailure(fmt.Errorf("cannot accept connections on %s any more: %w", l.Addr(), err))
	}
}

// noteFailure notes a failure after which the node must be stopped. Only the first one is
// kept.
func (n *Node) noteFailure(err error) {
	select {
	case n.failed <- err:
	default:
	}
	n.fail()
}

// Failed delivers a failure after which the node must be stopped.
func (n *Node) Failed() <-chan error { return n.failed }

// Info tells where the node can be reached.
func (n *Node) Info() Info {
	info := Info{Data: n.cfg.Data, ClusterID: n.id.clusterID, LoopbackOnly: true, Secured: securedInfo(n)}
	for _, l := range n.listeners {
		info.Addresses = append(info.Addresses, l.Addr().String())
		a, ok := l.Addr().(*net.TCPAddr)
		info.LoopbackOnly = info.LoopbackOnly && ok && a.IP.IsLoopback()
	}
	if n.admin != nil {
		info.HTTP, info.HTTPElsewhere = n.admin.addr, n.admin.elsewhere
		info.HTTPEncrypted = n.admin.isExposed && (n.secured != nil || n.securing.isFinished())
	}
	return info
}

// Stop stops the node: it accepts no more requests, sends the answers that are due until ctx
// ends, and then closes the logs. A second call does nothing.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	n.stopping.Do(func() {
		log := n.loggers.loggerOf(rootLogger)
		log.Info("the node is stopping")
		if err = n.stop(ctx); err == nil {
			log.Info("the node has stopped")
		}
	})
	return err
}

// closeGrace is how long the metadata log may take to close if the context of a stop has
// ended: clients may have used up its time, and the log closes at once unless the disk hangs.
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
	flushAudit(ctx, n.audit.Flush)
	leaveCluster(ctx, n)
	flushAudit(ctx, n.audit.Flush) // what came meanwhile
	n.cancel()
	var errs []error
	for _, l := range n.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	n.linking.close()
	if n.groups != nil {
		n.groups.Close()
	}
	n.closeTransactions()
	if n.broker != nil {
		n.broker.Drain()
	}
	if n.wire != nil {
		errs = append(errs, n.wire.Shutdown(ctx))
	}
	n.serving.Wait()
	flushAudit(ctx, n.audit.Close)
	if n.peers.commands != nil { // they use the broker
		n.peers.commands.Close()
	}
	if n.broker != nil {
		n.broker.Close()
	}
	if n.quorum != nil {
		errs = append(errs, n.closeQuorum(ctx))
	}
	if n.set != nil {
		n.set.Close()
	}
	n.peers.close()
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	errs = append(errs, n.admin.close(ctx))
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
