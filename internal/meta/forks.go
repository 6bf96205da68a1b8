package meta

import (
	"fmt"
	"strconv"
	"strings"
)

// MirrorForksConfig is a config of a topic that was promoted, which nobody can set and who does not ask for it by its name is not told of: for each partition, with commas between them, where this cluster began to write it by itself (MirrorFork).
// By it the cluster from which the topic was mirrored finds out up to where both logs may be the same, and mirrors it in turn.
const MirrorForksConfig = "leat.mirror.forks"

// MaxForks is of how many partitions forks are read.
const MaxForks = 100_000

// MirrorFork is where a cluster began to write a partition by itself that it had mirrored: from Offset on, in leader epochs from Epoch on. Below that it has the records of a topic of the cluster From, and no others.
type MirrorFork struct {
	From   string // a cluster id; "": the partition was never mirrored, or what is below is not what that cluster has
	Topic  UUID   // the id of the topic there: one that was made again under its name is another one
	Epoch  int32
	Offset int64
}

// ForkOf is from which offset on clients of this cluster have written a partition that it has mirrored and promoted; ok is false for one that was not.
func ForkOf(m *Image, topic string, partition int32) (begin int64, ok bool) {
	t := m.Topic(topic)
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) {
		return 0, false
	}
	r := t.Partitions[partition].Mirror
	if r == nil || r.State != PartitionPromoted || len(r.Lineages) == 0 {
		return 0, false
	}
	own := r.Lineages[len(r.Lineages)-1]
	return own.Start, own.Cluster == m.ClusterID
}

// FormatForks lists the forks of a topic that this cluster has promoted; "": it has not.
func FormatForks(m *Image, t *Topic) string {
	if t.Mirror == nil || t.Mirror.State != MirrorPromoted {
		return ""
	}
	var b strings.Builder
	for i := range t.Partitions {
		if i > 0 {
			b.WriteByte(',')
		}
		r := t.Partitions[i].Mirror
		if r == nil || len(r.Lineages) == 0 {
			b.WriteByte('-')
			continue
		}
		n := len(r.Lineages)
		own := r.Lineages[n-1] // one that began at the start of the log has taken the place of those before it
		// If the one before is this cluster's, too, the partition was to mirror and never did: what is here is not what the source has.
		if own.Cluster != m.ClusterID || n > 1 && r.Lineages[n-2].Cluster == m.ClusterID {
			b.WriteByte('-')
			continue
		}
		fmt.Fprintf(&b, "%s@%s@%d@%d", t.Mirror.Path[len(t.Mirror.Path)-1], t.Mirror.TopicID, own.Epoch, own.Start)
	}
	return b.String()
}

// ParseForks reads what FormatForks has written, by number of the partitions.
func ParseForks(text string) ([]MirrorFork, error) {
	var all []MirrorFork
	for one := range strings.SplitSeq(text, ",") {
		if one == "-" {
			all = append(all, MirrorFork{})
			continue
		}
		var f MirrorFork
		fields := strings.Split(one, "@")
		if len(fields) != 4 || len(all) == MaxForks {
			return nil, fmt.Errorf("%.100q is no fork of a partition, or one too many", one)
		}
		topic, ok := ParseUUID(fields[1])
		e, err := strconv.ParseInt(fields[2], 10, 32)
		if err == nil {
			f.Offset, err = strconv.ParseInt(fields[3], 10, 64)
		}
		if f.From, f.Topic, f.Epoch = fields[0], topic, int32(e); err != nil || !ok || !isClusterID(f.From) || e < 0 || f.Offset < 0 {
			return nil, fmt.Errorf("%.100q is no fork of a partition", one)
		}
		all = append(all, f)
	}
	return all, nil
}
