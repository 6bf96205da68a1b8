package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// keptTails serves what cuts have taken from the replicas of a node: a cluster.TailServer.
type keptTails struct {
	n   *Node
	set atomic.Pointer[replica.Set] // nil: not built yet
}

// errNotBuilt says that the node has not started yet.
var errNotBuilt = errors.New("the node has not started yet")

// ListTails is that of cluster.TailServer.
func (k *keptTails) ListTails(q *cluster.TailRequest, most int) (list []cluster.TailStatus, hasMore bool, problems []string) {
	type tailed struct {
		place cluster.PartitionPlace
		id    replica.PartitionID
		topic *meta.Topic
	}
	set, img := k.set.Load(), k.n.image.Load()
	if set == nil {
		return nil, false, []string{errNotBuilt.Error()}
	}
	var all []tailed
	for _, id := range replica.TailedPartitions(set) {
		t := img.TopicByID(id.Topic)
		isWanted := t != nil && (q.Topic == "" || t.Name == q.Topic) && (q.Partition == nil || *q.Partition == id.Partition)
		if isWanted && (q.After == nil || t.Name > q.After.Topic || t.Name == q.After.Topic && id.Partition >= q.After.Partition) {
			all = append(all, tailed{cluster.PartitionPlace{Topic: t.Name, Partition: id.Partition}, id, t})
		}
	}
	slices.SortFunc(all, func(a, b tailed) int {
		if by := strings.Compare(a.place.Topic, b.place.Topic); by != 0 {
			return by
		}
		return int(a.place.Partition) - int(b.place.Partition)
	})
	for i := range all {
		found, err := replica.TailsOf(set, all[i].id)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s %d: %v", all[i].place.Topic, all[i].place.Partition, err))
		}
		hasMoved := isReplicaElsewhere(img, all[i].id, k.n.id.nodeID)
		for _, t := range found {
			if q.After != nil && all[i].place == q.After.PartitionPlace && t.Number <= q.After.Cut {
				continue
			}
			if len(list) == most {
				return list, true, problems
			}
			list = append(list, cluster.TailStatus{
				TailPlace: cluster.TailPlace{PartitionPlace: all[i].place, Cut: t.Number}, TopicID: all[i].topic.ID, Node: k.n.id.nodeID, HasMoved: hasMoved,
				First: int64(t.First), Last: int64(t.Last), End: int64(t.End), FirstEpoch: int32(t.FirstEpoch), LastEpoch: int32(t.LastEpoch), KeptMs: t.Time, Bytes: t.Bytes,
			})
		}
	}
	return list, false, problems
}

// ReadTail is that of cluster.TailServer.
func (k *keptTails) ReadTail(q *cluster.TailRequest, dst []byte) (int, error) {
	set := k.set.Load()
	if set == nil {
		return 0, errNotBuilt
	}
	return replica.ReadTail(set, tailedPartition(q), &replica.Tail{Number: q.Cut, Time: q.KeptMs, Bytes: q.Bytes}, q.From, dst)
}

// DiscardTail is that of cluster.TailServer.
func (k *keptTails) DiscardTail(q *cluster.TailRequest) (wasThere bool, err error) {
	set := k.set.Load()
	if set == nil {
		return false, errNotBuilt
	}
	err = replica.DiscardTailOf(set, tailedPartition(q), q.Cut)
	if errors.Is(err, replica.ErrNoTail) {
		return false, nil
	}
	return err == nil, err
}

// tailedPartition is the partition of a request about one tail.
func tailedPartition(q *cluster.TailRequest) replica.PartitionID {
	return record.LogID{Topic: q.TopicID, Partition: *q.Partition}
}

// ListUncut is that of cluster.TailServer.
func (k *keptTails) ListUncut() (list []cluster.UncutReplica) {
	set := k.set.Load()
	if set == nil {
		return nil
	}
	for _, r := range replica.ListUncut(set) {
		list = append(list, cluster.UncutReplica{PartitionPlace: cluster.PartitionPlace{Topic: r.Topic, Partition: r.ID.Partition}, Node: k.n.id.nodeID, Problem: r.Err.Error()})
	}
	return list
}

// describeUncut says which replicas cannot make the cuts of the metadata, and why; "": all can.
func describeUncut(s *replica.Set) string {
	list := replica.ListUncut(s)
	if len(list) == 0 {
		return ""
	}
	slices.SortFunc(list, func(a, b replica.UncutReplica) int {
		if by := strings.Compare(a.Topic, b.Topic); by != 0 {
			return by
		}
		return int(a.ID.Partition) - int(b.ID.Partition)
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%s be cut, and neither leads nor follows until it can: ", formatCount(len(list), "replica cannot", "replicas cannot"))
	for i := range list {
		switch {
		case i == maxFaultsNamed:
			fmt.Fprintf(&b, "; and %d more", len(list)-i)
			return b.String()
		case i > 0:
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s %d (%v)", list[i].Topic, list[i].ID.Partition, list[i].Err)
	}
	return b.String()
}

// tailMetrics are the metrics of cuts.
type tailMetrics struct {
	cutsMade, tails, tailBytes, uncut *prometheus.Desc
}

func newTailMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) tailMetrics {
	return tailMetrics{
		cutsMade:  desc("mirror_cuts_total", "Cuts that have taken records from mirroring replicas of this node since it was started."),
		tails:     desc("mirror_tails", "Cuts whose records this node keeps until somebody discards them."),
		tailBytes: desc("mirror_tail_bytes", "Bytes of those records."),
		uncut:     desc("mirror_replicas_uncut", "Replicas of this node that cannot make a cut, and neither lead nor follow until they can; the node's log says why."),
	}
}

// collectTails sends the metrics of cuts. Those of tails are left out if they cannot be counted.
func (m *tailMetrics) collectTails(s *replica.Set, value func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string)) {
	value(m.cutsMade, prometheus.CounterValue, replica.CountCuts(s))
	value(m.uncut, prometheus.GaugeValue, int64(len(replica.ListUncut(s))))
	if tails, bytes, err := replica.CountTails(s); err == nil {
		value(m.tails, prometheus.GaugeValue, int64(tails))
		value(m.tailBytes, prometheus.GaugeValue, bytes)
	}
}
