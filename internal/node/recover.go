package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// A recovery from a lost majority makes one node the whole cluster. It has these steps, and after an end between them the
// next recovery does both again:
//
//	the identity has a new epoch -> the metadata log goes on from a state that this node keeps alone
//
// The epoch is first, since a node that keeps the metadata alone must not talk to those that kept them before. A node with
// the new epoch and the old metadata only waits for others in vain.

// epochCounterBits is where the count of recoveries begins in an epoch. The bits below it are random, so that the epochs
// of two nodes differ that were both made the whole cluster, by mistake.
const epochCounterBits = 24

// What a recovery adds to numbers of which the lost nodes may have given more than this node knows.
const (
	leaderEpochsSkipped = 1 << 16
	producerIDsSkipped  = int64(1) << 32
)

// reachTime is how long a recovery tries to reach the other nodes.
const reachTime = 3 * time.Second

// Errors of a recovery.
var (
	// ErrNotNeeded is returned if the node is the whole cluster already.
	ErrNotNeeded = errors.New("the node is the only one of its cluster, and there is nothing to recover from: start it with leat up")
	// ErrStillRunning is returned if another node of the cluster answers.
	ErrStillRunning = errors.New("another node of the cluster still runs")
)

// Recovery is what a cluster has when it is recovered from a lost majority by one of its nodes.
type Recovery struct {
	ClusterID string
	NodeID    int32
	Entry     uint64  // the newest of the metadata log that the node has
	Uncertain int     // entries at the log's end that the lost nodes may not have agreed to; they count
	Removed   []int32 // the other nodes

	Leads  []controller.Partition // that the node will lead: it has all records, as far as it knows
	Behind []controller.Partition // of which it has a replica that may lack records: they stay without a leader
	Lost   []controller.Partition // of which it has no replica
}

// RecoverCluster makes the node of a data directory the whole cluster, if most of the cluster's voters are lost for good.
// All other nodes are removed, and join again with new data directories; those that come back with their old ones are
// refused. Without isMeant nothing is changed. The node must not run, and no other one may.
func RecoverCluster(ctx context.Context, cfg Config, isMeant bool) (Recovery, error) {
	return recoverOn(ctx, cfg, vfs.OS{}, isMeant)
}

func recoverOn(ctx context.Context, cfg Config, fsys vfs.FS, isMeant bool) (r Recovery, err error) {
	dir, err := filepath.Abs(cfg.Data)
	if err != nil {
		return Recovery{}, fmt.Errorf("%w %s: %w", ErrDirectory, cfg.Data, err)
	}
	dir = filepath.ToSlash(dir)
	if _, err := fsys.Stat(path.Join(dir, identityFile)); errors.Is(err, fs.ErrNotExist) {
		return Recovery{}, fmt.Errorf("%w %s: it has no %s", ErrNoNode, dir, identityFile)
	}
	lock, err := lockDirectory(fsys, dir)
	if err != nil {
		return Recovery{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	id, err := loadIdentity(fsys, dir, nil, "")
	if err != nil {
		return Recovery{}, err
	}
	static, err := config.NewStatic(id.nodeID, cfg.Settings)
	if err != nil {
		return Recovery{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	to := slog.DiscardHandler
	if cfg.Logger != nil {
		to = cfg.Logger.Handler()
	}
	log := newLoggers(to, slog.LevelWarn).loggerOf("quorum")
	used, err := storage.CheckVersion(fsys, dir, log)
	if err != nil {
		return Recovery{}, fmt.Errorf("cannot open the logs in %s: %w", dir, err)
	}
	img := meta.Empty()
	err = quorum.Recover(quorum.Config{
		ID: id.nodeID, Dir: path.Join(dir, quorumDir), FS: fsys, Logger: log,
		Capture: func() func() []byte { return func() []byte { return nil } },
		Apply: func(u quorum.Update) error {
			next, _, err := applyUpdate(img, &u)
			if err == nil {
				img = next
			}
			return err
		},
	}, func(f quorum.Found) ([]byte, error) {
		if err := storage.CheckMetadata(dir, used, f.Last); err != nil {
			return nil, err
		}
		if err := checkRecovery(&id, img, f.IsAlone); err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
		}
		if err := checkNobodyRuns(ctx, &id, img); err != nil {
			return nil, err
		}
		after, err := leaveAlone(&controller.Rules{Image: img, Static: static}, id.nodeID)
		if err != nil {
			return nil, err
		}
		if r, err = describeRecovery(after, static, id.nodeID); err != nil {
			return nil, err
		}
		if after, err = dropLostReplicas(after, r.Leads, id.nodeID); err != nil {
			return nil, err
		}
		r.Entry, r.Uncertain, r.Removed = f.Last, f.Uncertain, listOtherNodes(img, id.nodeID)
		if !isMeant {
			return nil, nil
		}
		return meta.Encode(after), raiseEpoch(fsys, dir, &id)
	})
	if err == nil && isMeant {
		err = noteRecovery(fsys, dir, &r)
	}
	if err != nil {
		return Recovery{}, err
	}
	return r, nil
}

// quorumName is the name that messages between members of the metadata quorum have, which differs after each recovery.
func quorumName(id identity) string {
	if id.epoch == firstEpoch {
		return id.clusterID
	}
	return fmt.Sprintf("%s@%d", id.clusterID, id.epoch)
}

// checkRecovery returns an error unless the node is one of several of a cluster, by the metadata that it has.
func checkRecovery(id *identity, img *meta.Image, isAlone bool) error {
	self := img.Nodes[id.nodeID]
	switch {
	case img.ClusterID == "":
		return errors.New("it has no metadata of its cluster yet; recover the cluster by another node")
	case img.ClusterID != id.clusterID:
		return fmt.Errorf("it belongs to cluster %s, but its metadata is of cluster %s; the directories of two clusters were mixed: put the files of one of them back where they were", id.clusterID, img.ClusterID)
	case isAlone && len(listOtherNodes(img, id.nodeID)) == 0:
		return ErrNotNeeded
	case self == nil || img.Brokers[id.nodeID] == nil:
		return fmt.Errorf("the metadata in it do not have node %d yet; recover the cluster by another node", id.nodeID)
	case self.Removed:
		return fmt.Errorf("node %d: %w", id.nodeID, credential.ErrNodeRemoved)
	case self.Key != id.public:
		return fmt.Errorf("its cluster knows node %d by the key %v, and not by %v; restore it from a backup", id.nodeID, self.Key, id.public)
	}
	return nil
}

// listOtherNodes lists the nodes of a cluster but for one.
func listOtherNodes(img *meta.Image, id int32) (others []int32) {
	for other, n := range img.Nodes {
		if other != id && !n.Removed {
			others = append(others, other)
		}
	}
	for other := range img.Brokers { // also one that is from before nodes had keys, or whose removal has not ended
		if other != id && !slices.Contains(others, other) {
			others = append(others, other)
		}
	}
	slices.Sort(others)
	return others
}

// checkNobodyRuns returns an error if one of the other nodes answers. It would go on as a node of the cluster that was,
// with clients that do not know the difference; and if most of them run, nothing was lost.
func checkNobodyRuns(ctx context.Context, id *identity, img *meta.Image) error {
	cluster, err := credential.ParseClusterID(id.clusterID)
	if err != nil {
		return fmt.Errorf("%s: %w", identityFile, err)
	}
	self := credential.Self{Versions: peerVersions, Cluster: cluster, Epoch: id.epoch, NodeID: id.nodeID, Key: id.key}
	nodes := directory{image: func() *meta.Image { return img }}
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	dials, answers := 0, make(chan error)
	for _, other := range listOtherNodes(img, id.nodeID) {
		for _, address := range addressesOf(img, other) {
			dials++
			go func() { // which ends with ctx, and is waited for
				dialler := credential.DialAsNode(self, credential.Incarnation(meta.NewUUID()), credential.Target{Nodes: nodes, NodeID: other}, rand.Reader)
				conn, err := peer.Dial(ctx, address, dialler, dialUnverified(bindIfBoth))
				if err == nil {
					conn.Close()
				}
				answers <- judgeAnswer(other, address, err)
			}()
		}
	}
	var found error
	for range dials {
		found = errors.Join(found, <-answers)
	}
	return found
}

// judgeAnswer returns an error if the result of a dial says that a node runs, or that this one does not belong to its
// cluster any more.
func judgeAnswer(node int32, address string, err error) error {
	switch {
	case err == nil, errors.Is(err, credential.ErrAcceptorBehind):
		return fmt.Errorf("%w: node %d on %s; if most of the voters can run, start them, and nothing is lost; else stop it, and join with a new data directory afterwards",
			ErrStillRunning, node, address)
	case errors.Is(err, credential.ErrDiallerBehind), errors.Is(err, credential.ErrNodeRemoved):
		return fmt.Errorf("node %d on %s says: %w", node, address, err)
	default:
		return nil
	}
}

// leaveAlone returns the metadata without all nodes but one. Epochs of leaders and producer ids skip those that the lost
// nodes may have given without this node's knowledge.
func leaveAlone(r *controller.Rules, id int32) (*meta.Image, error) {
	for _, other := range listOtherNodes(r.Image, id) {
		err := decideParts(r, func() (controller.Part, error) {
			d, refused := r.RemoveNode(&controller.Removal{ID: other, Force: true}, false)
			if refused != nil {
				return d, fmt.Errorf("removing node %d: %w", other, refused)
			}
			return d, nil
		})
		if err != nil {
			return nil, err
		}
	}
	entry := meta.Append(nil, meta.ProducerIDsGiven{Next: min(r.Image.NextProducerID()+producerIDsSkipped, meta.MaxProducers)})
	for _, t := range listTopics(r.Image) {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			entry = meta.Append(entry, meta.PartitionChanged{
				Topic: t.ID, Partition: int32(i), ISR: p.ISR, Leader: p.Leader, Eligible: p.Eligible, LastEligible: p.LastEligible,
				LeaderEpoch: addWithin(p.LeaderEpoch, leaderEpochsSkipped), PartitionEpoch: p.PartitionEpoch + 1,
			})
		}
	}
	after, _, err := meta.Apply(r.Image, entry)
	return after, err
}

// addWithin adds to an epoch as much as leaves room for as many of the same steps again.
func addWithin(epoch, n int32) int32 {
	if epoch > 1<<30 {
		return epoch + 1
	}
	return epoch + n
}

// decideParts makes a decision part by part, each on the image that the part before it leaves.
func decideParts(r *controller.Rules, decide func() (controller.Part, error)) error {
	for {
		d, err := decide()
		if err != nil {
			return err
		}
		if len(d.Records) > 0 {
			if r.Image, _, err = meta.Apply(r.Image, d.Records); err != nil {
				return err
			}
		}
		if !d.More {
			return nil
		}
	}
}

// describeRecovery tells what a node will lead that has been left alone, once it runs.
func describeRecovery(img *meta.Image, static *config.Static, id int32) (Recovery, error) {
	r := Recovery{ClusterID: img.ClusterID, NodeID: id}
	rules := &controller.Rules{Image: img, Static: static}
	if b := img.Brokers[id]; b.State != meta.BrokerActive {
		active, _, err := meta.Apply(img, meta.Append(nil, meta.BrokerChanged{ID: id, Epoch: b.Epoch, State: meta.BrokerActive}))
		if err != nil {
			return Recovery{}, err
		}
		rules.Image = active
	}
	if err := decideParts(rules, func() (controller.Part, error) { return rules.ElectMissing(), nil }); err != nil {
		return Recovery{}, err
	}
	for _, t := range listTopics(rules.Image) {
		for i := range t.Partitions {
			at, p := controller.Partition{Topic: t.Name, Number: int32(i)}, &t.Partitions[i]
			switch {
			case p.Leader == id:
				r.Leads = append(r.Leads, at)
			case slices.Contains(p.Replicas, id):
				r.Behind = append(r.Behind, at)
			default:
				r.Lost = append(r.Lost, at)
			}
		}
	}
	return r, nil
}

// dropLostReplicas leaves the partitions that a node leads with its replica alone, of topics that follow the size of the
// cluster. So they have enough replicas in sync at once, and get others again as nodes join. Of topics whose replicas
// somebody has chosen, he chooses others.
func dropLostReplicas(img *meta.Image, led []controller.Partition, id int32) (*meta.Image, error) {
	only := func(ids []int32) []int32 {
		return slices.DeleteFunc(slices.Clone(ids), func(other int32) bool { return other != id })
	}
	var entry []byte
	for _, at := range led {
		t := img.Topic(at.Topic)
		if p := t.Partitions[at.Number]; t.Follows {
			p.Replicas, p.ISR, p.Eligible, p.LastEligible = []int32{id}, only(p.ISR), only(p.Eligible), only(p.LastEligible)
			p.Adding, p.Removing = nil, nil
			p.PartitionEpoch++
			entry = meta.Append(entry, meta.PartitionsSet{Topic: t.ID, First: at.Number, Partitions: []meta.Partition{p}})
		}
	}
	after, _, err := meta.Apply(img, entry)
	return after, err
}

// listTopics lists all topics by their names.
func listTopics(img *meta.Image) []*meta.Topic {
	return slices.SortedFunc(img.Topics(), func(a, b *meta.Topic) int { return cmp.Compare(a.Name, b.Name) })
}

// raiseEpoch gives the identity of a directory the next epoch of its cluster.
func raiseEpoch(fsys vfs.FS, dir string, id *identity) error {
	count := id.epoch>>epochCounterBits + 1
	if count > 1<<(32-epochCounterBits)-1 {
		return fmt.Errorf("%w %s: its cluster was recovered %d times, as often as is possible", ErrDirectory, dir, count-1)
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, as its documentation promises
	epoch := count<<epochCounterBits | binary.BigEndian.Uint32(b[:])>>(32-epochCounterBits)
	name := path.Join(dir, identityFile)
	text, err := readFile(fsys, name)
	if err == nil {
		err = writeFile(fsys, name, setProperty(text, epochProperty, fmt.Sprint(epoch)), vfs.Fresh)
	}
	if err == nil {
		err = syncIdentity(fsys, dir)
	}
	if err != nil {
		return fmt.Errorf("%w %s: cannot write to it: %w", ErrDirectory, dir, err)
	}
	return nil
}

// setProperty sets a property in the text of an identity's file.
func setProperty(text []byte, name, value string) (b []byte) {
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(name+"=")) {
			b = append(b, bytes.TrimSuffix(line, []byte("\n"))...)
			b = append(b, '\n')
		}
	}
	return fmt.Appendf(b, "%s=%s\n", name, value)
}
