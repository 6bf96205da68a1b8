package replica

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/vfs"
)

// spy records the operations on the directories of a topic's partitions.
type spy struct {
	mu   sync.Mutex
	seen []string
	hook func(op vfs.Op, path string)
}

func (s *spy) judge(op vfs.Op, path string) error {
	if strings.Contains(path, "events-") {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, fmt.Sprint(op, " ", path))
		if s.hook != nil {
			s.hook(op, path)
		}
	}
	return nil
}

func (s *spy) forgetSeen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}

// onOneNode are n partitions that node 1 has alone.
func onOneNode(n int) []meta.Partition {
	parts := make([]meta.Partition, n)
	for i := range parts {
		parts[i] = meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}
	}
	return parts
}

// TestApplyOpensNoLog proves that a change of the metadata reads no log: neither when a topic
// gets one more partition, nor when leaders, epochs and in-sync sets change.
func TestApplyOpensNoLog(t *testing.T) {
	fs, dir := vfs.NewMem(), "data"
	w := newWorldOn(t, fs, dir)
	id := meta.NewUUID()
	create := []meta.Record{meta.TopicCreated{ID: id, Name: "events"}, meta.PartitionsSet{Topic: id, Partitions: onOneNode(20)}}
	w.apply(create...)
	for i := range int32(20) {
		if _, err := w.add(w.set.Partition("events", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	w.close()

	watcher := &spy{}
	w = newWorldOn(t, vfs.NewFaulty(fs, watcher.judge), dir)
	watcher.forgetSeen()
	w.apply(create...)
	w.apply(meta.PartitionsSet{Topic: id, First: 20, Partitions: onOneNode(1)})
	w.apply(meta.PartitionChanged{Topic: id, Partition: 3, ISR: []int32{1}, Leader: 1, PartitionEpoch: 1})
	w.apply(meta.PartitionChanged{Topic: id, Partition: 3, ISR: []int32{1}, Leader: 2, LeaderEpoch: 1, PartitionEpoch: 2})
	w.apply(meta.PartitionChanged{Topic: id, Partition: 3, ISR: []int32{1}, Leader: 1, LeaderEpoch: 2, PartitionEpoch: 3})
	if len(watcher.seen) > 0 {
		t.Errorf("%d operations on logs: %q", len(watcher.seen), watcher.seen[:min(5, len(watcher.seen))])
	}
	if hw := w.set.Partition("events", 3).HighWatermark(); hw != 1 || len(watcher.seen) == 0 {
		t.Errorf("high watermark %d after %d operations", hw, len(watcher.seen))
	}
}

// TestApplyLeavesOthersAlone proves that a change of the metadata touches only the partitions
// that it names: the others stay as they are, with their waiters.
func TestApplyLeavesOthersAlone(t *testing.T) {
	w := newWorld(t)
	id := w.topic("events", 1, 1, 1)
	topic := w.set.Topic([]byte("events"))
	before := *topic.parts.Load()
	leads := topic.Partition(1).Leadership()
	w.apply(meta.PartitionChanged{Topic: id, Partition: 2, ISR: []int32{1}, Leader: 1, LeaderEpoch: 5, PartitionEpoch: 1},
		meta.PartitionsSet{Topic: id, First: 3, Partitions: onOneNode(1)})
	if topic.Partition(1) != before[1] || topic.Partition(1).Leadership() != leads {
		t.Error("a partition that did not change was touched")
	}
	if e := topic.Partition(2).Leadership().Epoch; topic.Partition(2) != before[2] || e != 5 {
		t.Errorf("the changed partition is in epoch %d", e)
	}
	if topic.NumPartitions() != 4 || topic.Partition(3) == nil {
		t.Error("the new partition is not there")
	}
}

// TestDeleteAndCreateInOneStep proves that if one change of the metadata deletes a topic and
// creates another of the same name, the new one is found only after the old one's directories
// are renamed, so that nothing is written into directories that are about to be deleted.
func TestDeleteAndCreateInOneStep(t *testing.T) {
	watcher := &spy{}
	w := newWorldOn(t, vfs.NewFaulty(vfs.NewMem(), watcher.judge), "data")
	const n = 5
	old, again := meta.NewUUID(), meta.NewUUID()
	w.apply(meta.TopicCreated{ID: old, Name: "events"}, meta.PartitionsSet{Topic: old, Partitions: onOneNode(n)})
	for i := range int32(n) {
		if _, err := w.add(w.set.Partition("events", i), "old"); err != nil {
			t.Fatal(err)
		}
	}
	renamed := 0
	watcher.hook = func(op vfs.Op, path string) {
		if op != vfs.OpRename || strings.Count(path, "/") != 1 { // not a directory
			return
		}
		if renamed++; w.set.Topic([]byte("events")) != nil || w.set.TopicByID(again) != nil {
			t.Errorf("%s loses its name while a topic of that name is found", path)
		}
	}
	w.apply(meta.TopicDeleted{ID: old}, meta.TopicCreated{ID: again, Name: "events"}, meta.PartitionsSet{Topic: again, Partitions: onOneNode(n)})
	if renamed < n {
		t.Fatalf("%d directories have lost their names", renamed)
	}
	for i := range int32(n) {
		p := w.set.TopicByID(again).Partition(i)
		if o, err := w.add(p, "new"); err != nil || o != 0 || p.HighWatermark() != 1 {
			t.Errorf("partition %d: offset %d, high watermark %d, %v", i, o, p.HighWatermark(), err)
		}
	}
}

// BenchmarkApply gives a topic one more partition, or changes one of its partitions. The topic
// has 2,000 partitions, whose logs have not been opened since the start. Half of the time is
// that of the image.
func BenchmarkApply(b *testing.B) {
	const n = 2000
	fs := vfs.NewMem()
	id := meta.NewUUID()
	create := []meta.Record{meta.TopicCreated{ID: id, Name: "events"}, meta.PartitionsSet{Topic: id, Partitions: onOneNode(n)}}
	w := newWorldOn(b, fs, "data")
	w.apply(create...)
	for i := range int32(n) {
		if _, err := w.add(w.set.Partition("events", i), "x"); err != nil {
			b.Fatal(err)
		}
	}
	w.close()
	for name, step := range map[string]meta.Record{
		"more":   meta.PartitionsSet{Topic: id, First: n, Partitions: onOneNode(1)},
		"change": meta.PartitionChanged{Topic: id, Partition: 7, ISR: []int32{1}, Leader: 1, PartitionEpoch: 1},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorldOn(b, fs, "data")
			w.apply(create...)
			before := w.image
			b.ReportAllocs()
			for b.Loop() {
				w.image = before
				w.apply(step)
			}
			b.StopTimer()
			w.close()
		})
	}
}
