package broker

import (
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeLogDirs, key 35, versions 1 to 5.
//
// 4: the size and the free space of the disk (KIP-827). 5: cordoned directories
// (KIP-1066). A node has one data directory, and there are no future replicas.

func (b *Broker) describeLogDirs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeLogDirsRequest)
	m := b.cfg.Image()
	held, err := b.reserveAnswer(r, logDirMemory*int64(m.NumPartitions()))
	if err != nil {
		return err
	}
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = b.cfg.LogDir
	dir.UsableBytes, dir.TotalBytes = b.cfg.Set.DiskSpace()
	dir.Topics = b.listSizes(m, b.askedPartitions(m, req.Topics), req.Topics == nil)
	resp := kmsg.NewPtrDescribeLogDirsResponse()
	resp.Dirs = append(resp.Dirs, dir)
	b.replyHeld(r, resp, &held)
	return nil
}

// listSizes describes the asked partitions, or all, in turns with other long work.
func (b *Broker) listSizes(m *meta.Image, asked iter.Seq2[*meta.Topic, []int32], all bool) (list []kmsg.DescribeLogDirsResponseDirTopic) {
	b.cfg.Work.Enter(budget.Command)
	defer b.cfg.Work.Leave()
	l := sizeLister{b: b}
	if all {
		for t := range m.Topics() {
			list = l.appendSizes(list, t, countTo(len(t.Partitions)))
		}
	}
	for t, partitions := range asked {
		list = l.appendSizes(list, t, slices.Values(partitions))
	}
	return list
}

// askedPartitions are the partitions that exist of those that are asked for, each once, so that
// a small request does not have a huge answer. Topics are in the order in which they are asked for.
func (b *Broker) askedPartitions(m *meta.Image, asked []kmsg.DescribeLogDirsRequestTopic) iter.Seq2[*meta.Topic, []int32] {
	type found struct {
		topic      *meta.Topic
		seen       []bool // by partition
		partitions []int32
	}
	var order []*found
	topics := map[*meta.Topic]*found{}
	for i := range asked {
		t := m.Topic(asked[i].Topic)
		if t == nil {
			continue
		}
		f := topics[t]
		if f == nil {
			f = &found{topic: t, seen: make([]bool, len(t.Partitions))}
			topics[t] = f
			order = append(order, f)
		}
		b.inTurns(len(asked[i].Partitions), func(j int) {
			if n := asked[i].Partitions[j]; n >= 0 && int(n) < len(f.seen) && !f.seen[n] {
				f.seen[n] = true
				f.partitions = append(f.partitions, n)
			}
		})
	}
	return func(yield func(*meta.Topic, []int32) bool) {
		for _, f := range order {
			if !yield(f.topic, f.partitions) {
				return
			}
		}
	}
}

// logDirMemory is about how much memory a partition takes in an answer, as a structure and
// in encoded form, with its share of its topic's.
const logDirMemory = 192

// countTo yields 0 to n-1.
func countTo(n int) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for i := range int32(n) {
			if !yield(i) {
				return
			}
		}
	}
}

// sizeLister measures partitions while it has a processor.
type sizeLister struct {
	b    *Broker
	seen int // partitions so far
}

// measureSize measures a partition. It passes the processor on after each stretch, and before each
// partition whose log is not open, since that takes calls of the system.
func (l *sizeLister) measureSize(t *meta.Topic, n int32) int64 {
	var p *replica.Partition
	if found := l.b.cfg.Set.TopicByID(t.ID); found != nil {
		p = found.Partition(n)
	}
	if l.seen++; l.seen%stretch == 0 || p != nil && !p.IsOpen() {
		l.b.cfg.Work.Pass(budget.Command)
	}
	if p == nil {
		return 0
	}
	return l.b.cfg.Set.SizeOf(p)
}

// appendSizes appends a topic with those of the asked partitions that this node has, unless
// it has none of them.
func (l *sizeLister) appendSizes(
	list []kmsg.DescribeLogDirsResponseDirTopic, t *meta.Topic, asked iter.Seq[int32],
) []kmsg.DescribeLogDirsResponseDirTopic {
	rt := kmsg.NewDescribeLogDirsResponseDirTopic()
	rt.Topic = t.Name
	for n := range asked {
		if n < 0 || int(n) >= len(t.Partitions) || !slices.Contains(t.Partitions[n].Replicas, l.b.cfg.NodeID) {
			continue
		}
		rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		rp.Partition, rp.Size = n, l.measureSize(t, n)
		rt.Partitions = append(rt.Partitions, rp)
	}
	if len(rt.Partitions) == 0 {
		return list
	}
	return append(list, rt)
}
