package node

import (
	"context"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/place"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/wire"
)

// serverSettings are the present settings of this broker.
func (n *Node) serverSettings() *config.Server { return meta.ServerSettings(n.image.Load(), n.static) }

func (n *Node) storageConfig() storage.Config {
	s := n.serverSettings()
	c := storage.Config{
		FS: n.fs, Dir: path.Clean(n.cfg.Data), Logger: n.loggers.loggerOf("storage"), BootID: n.boot,
		Work:           n.work,
		Producers:      n.producers,
		OpenFiles:      n.descriptors.logs,
		RetentionEvery: s.Storage.RetentionCheck,
		StrayRetention: s.Storage.StrayRetention,
		Journal:        s.Storage.JournalBytes, Scrub: s.Storage.ScrubRate,
		Cleaner: cleanerConfig(n),
	}
	if c.Scrub == 0 {
		c.Scrub = -1 // for storage 0 stands for the default
	}
	return c
}

// cleanerConfig says how logs are compacted now.
func cleanerConfig(n *Node) storage.CleanerConfig {
	c := &n.serverSettings().Storage.Cleaner
	return storage.CleanerConfig{
		Off: !c.Enabled, MapBytes: min(max(c.MapBytes, 1), n.sizes.cleaner),
		BytesPerSecond: c.BytesPerSecond, Backoff: max(c.Backoff, leastBackoff),
	}
}

// leastBackoff is the shortest pause of compaction that looks at all logs, whatever log.cleaner.backoff.ms says.
const leastBackoff = 100 * time.Millisecond

func (n *Node) wireConfig() wire.Config {
	s := n.serverSettings()
	return wire.Config{
		Logger:        n.loggers.loggerOf("wire"),
		MaxFrame:      s.MaxRequestBytes,
		Limits:        n.connectionLimits(),
		MaxConns:      n.descriptors.connections,
		MemoryConns:   n.sizes.connections,
		IdleTimeout:   s.MaxIdle,
		RequestMemory: n.sizes.requests,
		Peers:         limitPeers(&n.descriptors, &n.sizes, &n.peers),
		Congestion:    s.Congestion, LocalCongestion: s.LocalCongestion,
		Work:  n.work,
		Admit: n.quotas.admitConnection,
	}
}

// limitPeers says what a server keeps for other nodes. They are expected in a cluster of several.
func limitPeers(d *descriptors, z *sizes, p *peers) wire.Peers {
	return wire.Peers{
		Handshake: peer.Handshake(),
		Expected:  func() bool { return !p.isAlone() },
		IsMember:  p.hosts.isMember,
		Conns:     d.peers, Waiting: d.waiting,
		Memory: z.peers,
	}
}

// connectionLimits are the present limits for connections of clients.
func (n *Node) connectionLimits() wire.Limits {
	s := n.serverSettings()
	return wire.Limits{Conns: s.MaxConnections, ConnsPerIP: s.MaxConnectionsPerIP, IPs: s.MaxConnectionsOfIP}
}

func (n *Node) brokerConfig() broker.Config {
	s := n.serverSettings()
	cfg := broker.Config{
		NodeID: n.id.nodeID, Logger: n.loggers.loggerOf("broker"), Image: n.image.Load, Set: n.set,
		Context:     func() context.Context { return n.ctx },
		ProducerIDs: n.producerIDs,
		Controller:  n.controller, Cluster: n.peers.commands, Groups: n.groups, Quorum: func() quorum.Status { return quorumStatus(n) }, Static: n.static,
		Peers:       n.peers.door,
		Permissions: broker.Permissions{Authorizer: n.authorizer}, Logins: n.logins, Delegations: n.delegation.commands,
		Quotas:       n.quotas.clients,
		Audit:        n.audit,
		NameRules:    n.encryption.nameRules,
		Coordination: broker.Coordination{EnsureTopic: n.peers.commands.EnsureTopic, MirrorEnds: linkPositions{n}.mirrorEnds},
		Txns:         n.txns, Transactions: checks{n.checker},
		Work:      n.work,
		Naming:    broker.Naming{Advertised: n.addresses.isAdvertised, Certified: n.encryption.certifiedName},
		Contact:   func() broker.Contact { return contactOf(n) },
		LogDir:    filepath.FromSlash(n.cfg.Data),
		LogLevels: n.loggers.effectiveLevels, SetLogLevel: n.loggers.setLevel,
		FetchMaxBytes: s.FetchMaxBytes,
		FetchSessions: s.FetchSessions, FetchSessionBytes: n.sizes.sessions,
	}
	if n.authorizer == nil {
		cfg.Logins = append(cfg.Logins, n.securing.logins...)
		cfg.Rules, cfg.NotePlain, cfg.NoteWouldDeny = n.securing.rules, n.securing.plain.note, n.securing.denied.note
	}
	return cfg
}

// quorumStatus is the metadata quorum as a node sees it, with its leader and its voters by the ids of their
// nodes, and with how many voters the cluster is to have. The quorum itself knows the id of its own node only.
func quorumStatus(n *Node) quorum.Status {
	s := n.quorum.Status()
	if id, ok := n.peers.findRaftID(s.LeaderRaftID); ok {
		s.Leader = id
	}
	voters := slices.Clone(s.Voters)
	for _, raftID := range s.Members.Voters {
		if id, ok := n.peers.findRaftID(raftID); ok && !slices.Contains(voters, id) {
			voters = append(voters, id)
		}
	}
	slices.Sort(voters)
	s.Voters, s.Wanted = voters, place.WantedVoters(len(n.image.Load().Brokers), n.serverSettings().Voters)
	return s
}

// producerIDBlock is the number of producer ids that are reserved at a time.
const producerIDBlock = 1000

func (n *Node) producerIDs(ctx context.Context) (first, count int64, err error) {
	first, err = n.peers.commands.AllocateProducerIDs(ctx, producerIDBlock)
	return first, producerIDBlock, err
}

func (n *Node) groupSettings() group.Settings {
	g := &n.serverSettings().Groups
	return group.Settings{
		MinSession: g.MinSession, MaxSession: g.MaxSession, InitialDelay: g.InitialDelay,
		MaxSize: g.MaxSize, MaxMetadata: g.MaxOffsetMetadata,
		Retention: g.OffsetsRetention, RetentionScan: g.OffsetsRetentionCheck, CommitTimeout: g.OffsetsCommitTimeout,
	}
}
