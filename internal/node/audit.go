package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	// headSuffix ends the names of the notes about the audit log in the data directory: audit-topic.head, audit-file.head.
	headSuffix = ".head"
	// recoveredFile says that the cluster was recovered from a lost majority by this node, until the audit log has that.
	recoveredFile = "cluster.recovered"
)

// openAudit begins to record who did what, as the settings say. It must be called before clients or other nodes are served.
func openAudit(n *Node) error {
	a, err := n.static.Audit(n.authorizer != nil || n.securing.kept.Load() != nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if !a.IsOn() {
		return nil
	}
	var trails []*audit.Trail
	if a.Topic {
		trails = append(trails, newTrail(n, "topic", &auditTopic{n: n}))
	}
	if a.File {
		trails = append(trails, newTrail(n, "file", audit.NewFile(audit.FileConfig{FS: n.fs, Path: filepath.ToSlash(a.Path), Bytes: a.FileBytes, Files: a.Files})))
	}
	cfg := audit.Config{Excluded: a.Excluded, Interval: a.Interval, UseInterval: a.UseInterval}
	for _, k := range a.Events {
		cfg.Kinds = append(cfg.Kinds, audit.Kind(k))
	}
	n.audit = audit.NewRecorder(n.ctx, cfg, trails...)
	if n.admin != nil {
		n.admin.login.Load().Record(n.audit)
	}
	if a.Topic && n.authorizer == nil && n.securing.kept.Load() == nil {
		n.loggers.loggerOf(auditLogger).Warn("the audit log is not protected", "why", "no ACLs decide who may read the topic "+meta.AuditTopic)
	}
	return tellOfRecovery(n)
}

// auditLogger is the name of the logger of the audit log.
const auditLogger = "audit"

func newTrail(n *Node, name string, to audit.Sink) *audit.Trail {
	head := path.Join(n.cfg.Data, "audit-"+name+headSuffix)
	start := n.incarnation
	return audit.NewTrail(audit.TrailConfig{
		Name: name, Sink: to, Cluster: n.id.clusterID, Node: n.id.nodeID, Start: start.String(), Logger: n.loggers.loggerOf(auditLogger),
		Load: func() ([]byte, error) {
			b, err := readFile(n.fs, head)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return b, err
		},
		Save: func(note []byte) error { return writeFile(n.fs, head, note, vfs.Fresh) },
	})
}

// auditTopic is the topic of the audit log as a Sink: the node appends to the partition if it leads it, and sends the events to the node that
// does otherwise, by a Produce request on a connection between nodes. A node of an earlier version knows the topic as any other, and
// takes them, too.
type auditTopic struct {
	n       *Node
	builder record.Builder
}

// Bounds of the time that an append may take.
const (
	auditTopicTime  = 10 * time.Second // to make the topic
	auditAppendTime = 15 * time.Second
)

// Append appends events as one batch, and waits until all in-sync replicas have it.
func (t *auditTopic) Append(ctx context.Context, lines [][]byte) error {
	place, err := t.findPartition(ctx)
	if err != nil {
		return err
	}
	t.builder.Reset()
	t.builder.Codec = record.Zstd
	now := time.Now().UnixMilli()
	for _, l := range lines {
		t.builder.Append(now, auditKey(l), l)
	}
	batch, err := t.builder.Build()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, auditAppendTime)
	defer cancel()
	if place.Leader == t.n.id.nodeID {
		return t.appendHere(ctx, batch)
	}
	return t.appendThere(ctx, place.Leader, batch)
}

// auditKey is the key of an event's record: its id, which no other one has, so that the topic may be compacted by mistake.
func auditKey(line []byte) []byte {
	var l struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return nil
	}
	return []byte(l.ID)
}

// findPartition finds the partition of the events, and makes the topic if there is none.
func (t *auditTopic) findPartition(ctx context.Context) (*meta.Partition, error) {
	topic := t.n.image.Load().Topic(meta.AuditTopic)
	if topic == nil {
		within, cancel := context.WithTimeout(ctx, auditTopicTime)
		defer cancel()
		if err := t.n.peers.commands.EnsureTopic(within, meta.AuditTopic); err != nil {
			return nil, err
		}
		if topic = t.n.image.Load().Topic(meta.AuditTopic); topic == nil {
			return nil, errors.New("the topic " + meta.AuditTopic + " was made, and this node has not heard of it yet")
		}
	}
	p := &topic.Partitions[0]
	if p.Leader < 0 {
		return nil, errors.New("no node leads the topic " + meta.AuditTopic)
	}
	return p, nil
}

// appendHere appends a batch to this node's replica.
func (t *auditTopic) appendHere(ctx context.Context, batch record.Batch) error {
	p := t.n.set.Partition(meta.AuditTopic, 0)
	if p == nil {
		return replica.ErrNotLeader
	}
	epoch := p.Leadership().Epoch
	next, err := p.AppendBatch(batch, epoch)
	p.Commit()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	p.Await(epoch, next, auditAppendTime, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// appendThere has another node append a batch.
func (t *auditTopic) appendThere(ctx context.Context, node int32, batch record.Batch) error {
	const version = 7 // all nodes know it, and it needs no topic id
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, -1, int32(auditAppendTime.Milliseconds())
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: meta.AuditTopic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch}}}}
	resp, err := cluster.AppendAudit(ctx, t.n.peers.links, node, req)
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("node %d has not answered for the partition", node)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		return fmt.Errorf("node %d: %w", node, err)
	}
	return nil
}

// Close does nothing: the topic belongs to others.
func (*auditTopic) Close() error { return nil }

// changesNothing tells whether a command only asks.
func changesNothing(g *cluster.Given) bool {
	return g.Key == peer.Secure && (g.About == string(cluster.SecureStatus) || g.About == string(cluster.SecureSuggest))
}

// recordCommand records a command of somebody who holds a data directory.
func recordCommand(n *Node, g *cluster.Given) {
	if changesNothing(g) {
		return
	}
	e := audit.Event{API: peer.NameOf(g.Key), Result: audit.Allowed, Resource: g.About}
	e.Principal, e.Address = fmt.Sprintf("Directory:node %d", g.From), g.Address
	switch g.Key {
	case peer.TokenMake:
		e.Type, e.ResourceType = audit.JoinTokenMade, "join_token"
	case peer.TokenRevoke:
		e.Type, e.ResourceType = audit.JoinTokenRevoked, "join_token"
	case peer.NodeRemove:
		e.Type, e.ResourceType = audit.NodeRemoved, "node"
	case peer.Secure:
		e.Type, e.ResourceType, e.Resource, e.Details = audit.ClusterSecured, "cluster", n.id.clusterID, []audit.Detail{{Key: "step", Value: g.About}}
	case peer.Finalize:
		e.Type, e.ResourceType = audit.FeatureChanged, "feature"
		feature, level, _ := strings.Cut(g.About, " ")
		e.Resource, e.Details = feature, []audit.Detail{{Key: "level", Value: level}}
	case peer.CertificateNote, peer.AuthoritySet, peer.SealingRotate:
		describeCertificates(&e, g, n.id.clusterID)
	case peer.LinksServe:
		describeLink(&e, g)
	case peer.TailsServe:
		e.Type, e.ResourceType = audit.AdministrationServed, "tail"
	default:
		e.Type = audit.AdministrationServed
	}
	switch {
	case g.Refused != nil:
		e.Result, e.Reason = audit.Failed, g.Refused.Error()
	case g.Err != nil:
		e.Result, e.Reason = audit.Failed, g.Err.Error()
	}
	n.audit.Record(e)
}

// describeCertificates describes a command about certificates, the authority that issues them, or the key by which that is sealed.
func describeCertificates(e *audit.Event, g *cluster.Given, clusterID string) {
	what, more, _ := strings.Cut(g.About, " ")
	e.ResourceType, e.Resource, e.Details = "cluster", clusterID, []audit.Detail{{Key: "step", Value: what}}
	switch {
	case g.Key == peer.CertificateNote:
		ends, name, _ := strings.Cut(more, " ")
		e.Type, e.ResourceType, e.Resource, e.Details = audit.CertificateIssued, "certificate", name, []audit.Detail{{Key: "serial", Value: what}, {Key: "ends", Value: ends}}
	case g.Key == peer.SealingRotate:
		e.Type = audit.SealingKeyReplaced
	case what == cluster.NodesRenewed:
		e.Type, e.Details = audit.CertificatesRenewed, nil
	default:
		e.Type, e.Details = audit.AuthorityReplaced, append(e.Details, audit.Detail{Key: "authority", Value: more})
	}
}

// describeLink describes a change of a link. The command says the verb, the link, and the topic and partitions if it is about some.
func describeLink(e *audit.Event, g *cluster.Given) {
	verb, rest, _ := strings.Cut(g.About, " ")
	name, more, _ := strings.Cut(rest, " ")
	e.ResourceType, e.Resource, e.Details = "link", name, []audit.Detail{{Key: "step", Value: verb}}
	if more != "" {
		e.Details = append(e.Details, audit.Detail{Key: "of", Value: more})
	}
	switch cluster.LinkVerb(verb) {
	case cluster.LinkCreate:
		e.Type = audit.LinkCreated
	case cluster.LinkDelete:
		e.Type = audit.LinkDeleted
	default:
		e.Type = audit.LinkChanged
	}
}

// recordAdmission records that a node has joined by this one.
func recordAdmission(n *Node, id int32, token credential.TokenID) {
	e := audit.Event{
		Type: audit.NodeAdmitted, API: "AdmitNode", ResourceType: "node", Resource: strconv.Itoa(int(id)), Result: audit.Allowed,
		Details: []audit.Detail{{Key: "joinToken", Value: token.String()}},
	}
	n.audit.Record(e)
}

// recordFirstUser records that this node has made the first user of the cluster.
func recordFirstUser(n *Node, name string) {
	e := audit.Event{Type: audit.UserCreated, API: "--bootstrap-user", ResourceType: "user", Resource: name, Result: audit.Allowed}
	e.Principal = fmt.Sprintf("Directory:node %d", n.id.nodeID)
	n.audit.Record(e)
}

// noteRecovery notes for the audit log that this node was made the whole cluster. It is told at the next start of the node.
func noteRecovery(fsys vfs.FS, dir string, r *Recovery) error {
	text := fmt.Sprintf("%s %d %v\n", time.Now().UTC().Format(time.RFC3339), r.Entry, r.Removed)
	return writeFile(fsys, path.Join(dir, recoveredFile), []byte(text), vfs.Fresh)
}

// tellOfRecovery records what noteRecovery has noted.
func tellOfRecovery(n *Node) error {
	name := path.Join(n.cfg.Data, recoveredFile)
	b, err := readFile(n.fs, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", recoveredFile, err)
	}
	e := audit.Event{
		Type: audit.ClusterRecovered, API: "leat cluster recover", ResourceType: "cluster", Resource: n.id.clusterID, Result: audit.Allowed,
		Details: []audit.Detail{{Key: "whenEntryRemoved", Value: strings.TrimSpace(string(b))}},
	}
	e.Principal = fmt.Sprintf("Directory:node %d", n.id.nodeID)
	n.audit.Record(e)
	return n.fs.Remove(name)
}

// flushAudit has events written, for a little while, when the node is about to leave.
func flushAudit(ctx context.Context, end func(ctx context.Context)) {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	end(ctx)
}
