package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/vfs"
)

// loseRecords has a site that mirrors lose what its source has of orders behind an offset: the source's directory is replaced by an older copy.
func loseRecords(t *testing.T, there, here *site) {
	t.Helper()
	there.stop(0)
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(there.dirs[0])); err != nil {
		t.Fatal(err)
	}
	there.start(0, Config{})
	there.produce("orders", 40)
	here.awaitMirrored(there, "orders")
	there.stop(0)
	there.dirs[0] = older
	stop(t, start(t, Config{Data: older})) // where nobody finds it: a start more, so that its leader epoch is not that of the records that are lost
	there.start(0, Config{})
	there.produce("orders", 7)
}

// administratorOf connects to a node as who holds its data directory.
func administratorOf(t *testing.T, m *machines, i int) cluster.Administrator {
	t.Helper()
	h, err := ReadHolder(m.dirs[i])
	if err != nil {
		t.Fatal(err)
	}
	conn, err := h.Dial(deadline(t), m.ports[i])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return cluster.Administrator{Conn: conn}
}

// listKept lists the tails of all nodes, as the node i tells of them.
func listKept(t *testing.T, m *machines, i int) cluster.TailAnswer {
	t.Helper()
	a, refused, err := administratorOf(t, m, i).ServeTails(deadline(t), &cluster.TailRequest{Verb: cluster.TailList})
	if refused != nil || err != nil || a.HasMore || len(a.Silent) > 0 {
		t.Fatalf("%+v, %v, %v", a, refused, err)
	}
	return a
}

// metric is the value of a metric of a node without labels; -1: there is none.
func metric(t *testing.T, n *Node, name string) float64 {
	t.Helper()
	all, err := n.newRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return -1
}

// countTailDirs counts the directories with tails of a node.
func countTailDirs(t *testing.T, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*-tails*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// TestTailsOfNodes proves, with three nodes that mirror a topic, that each keeps what a cut takes from its replicas and counts it; that a node which cannot keep it says so on its pages and to who asks about
// the link or the tails, and cuts when it can; that what is kept stays over restarts, and on nodes from which the partitions have moved, while they run and while they are down; that it is
// discarded on all nodes; and that it goes with its topic, on all of them.
func TestTailsOfNodes(t *testing.T) {
	var isFull atomic.Bool
	full := vfs.NewFaulty(vfs.OS{}, func(op vfs.Op, name string) error {
		if isFull.Load() && op.Changes() && strings.Contains(name, "-tails") {
			return vfs.ErrNoSpace
		}
		return nil
	})
	there, m := newSite(t, 1), &machines{t: t, files: map[int]vfs.FS{2: full}}
	m.begin(3)
	here := &site{m}
	there.create("orders", 2, nil)
	there.produce("orders", 5)
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	for _, n := range m.nodes {
		if metric(t, n, "leat_mirror_cuts_total") != 0 || metric(t, n, "leat_mirror_tails") != 0 || metric(t, n, "leat_mirror_tail_bytes") != 0 || metric(t, n, "leat_mirror_replicas_uncut") != 0 {
			t.Error("cuts are counted, and there was none")
		}
	}
	isFull.Store(true)
	loseRecords(t, there, here)
	last := m.nodes[2]
	eventually(t, "a node cannot cut", func() bool { return metric(t, last, "leat_mirror_replicas_uncut") == 2 })
	if said := strings.Join(last.checkHealth().degraded, "\n"); !strings.Contains(said, "2 replicas cannot be cut, and neither leads nor follows until it can") || !strings.Contains(said, "orders 1 (") || !strings.Contains(said, "discard tails") {
		t.Errorf("/readyz says %q", said)
	}
	eventually(t, "the others have cut", func() bool { return len(listKept(t, m, 0).Tails) == 4 })
	if a := listKept(t, m, 1); len(a.Uncut) != 2 || a.Uncut[0].Node != last.id.nodeID || a.Uncut[0].Topic != "orders" || !strings.Contains(a.Uncut[0].Problem, "discard tails") {
		t.Errorf("%+v", a.Uncut)
	}
	d, refused, err := administratorOf(t, m, 0).ServeLinks(deadline(t), &cluster.LinkRequest{Verb: cluster.LinkDescribe, Name: "north"})
	if refused != nil || err != nil || len(d.Uncut) != 2 || d.Tails.Tails != 4 || d.Tails.Bytes == 0 {
		t.Errorf("%+v, %+v, %v, %v", d.Uncut, d.Tails, refused, err)
	}
	isFull.Store(false)
	eventually(t, "all have cut", func() bool { return len(listKept(t, m, 0).Tails) == 6 })
	here.awaitMirrored(there, "orders")
	kept := listKept(t, m, 0)
	var read [][]byte
	for i := range kept.Tails {
		of := &kept.Tails[i]
		if of.Topic != "orders" || of.Cut != 1 || of.Last < of.First || of.HasMoved || of.Bytes == 0 {
			t.Errorf("%+v", of)
		}
		a, refused, err := administratorOf(t, m, 0).ServeTails(deadline(t), &cluster.TailRequest{
			Verb: cluster.TailRead, Topic: of.Topic, TopicID: of.TopicID, Partition: &of.Partition, Cut: of.Cut, Node: of.Node, KeptMs: of.KeptMs, Bytes: of.Bytes,
		})
		if refused != nil || err != nil || int64(len(a.Data)) != of.Bytes {
			t.Errorf("%d bytes of %+v: %v, %v", len(a.Data), of, refused, err)
		}
		read = append(read, a.Data)
	}
	for i, b := range read {
		if !slices.Equal(b, read[i/3*3]) {
			t.Errorf("node %d has kept other bytes of partition %d", kept.Tails[i].Node, kept.Tails[i].Partition)
		}
	}
	for _, n := range m.nodes {
		if metric(t, n, "leat_mirror_cuts_total") != 2 || metric(t, n, "leat_mirror_tails") != 2 || metric(t, n, "leat_mirror_tail_bytes") != float64(len(read[0])+len(read[3])) || metric(t, n, "leat_mirror_replicas_uncut") != 0 {
			t.Errorf("node %d counts %v cuts, %v tails of %v bytes", n.id.nodeID, metric(t, n, "leat_mirror_cuts_total"), metric(t, n, "leat_mirror_tails"), metric(t, n, "leat_mirror_tail_bytes"))
		}
	}

	m.stop(2) // the partitions move away from it while it is down
	adm := kadm.NewClient(m.client())
	var to kadm.AlterPartitionAssignmentsReq
	to.Assign("orders", 0, []int32{1})
	to.Assign("orders", 1, []int32{1})
	if resp, err := adm.AlterPartitionAssignments(deadline(t), to); err != nil || resp.Error() != nil {
		t.Fatal(resp, err)
	}
	eventually(t, "the partitions have moved", func() bool {
		return !slices.ContainsFunc([]int32{0, 1}, func(p int32) bool { return m.nodes[1].set.Partition("orders", p) != nil })
	})
	m.start(2, Config{})
	eventually(t, "the directories of the replicas are gone", func() bool {
		_, err := os.Stat(filepath.Join(m.dirs[2], "orders-0"))
		return os.IsNotExist(err)
	})
	for i := range 3 {
		moved := 0
		for _, of := range listKept(t, m, i).Tails {
			if of.HasMoved != (of.Node != 1) {
				t.Errorf("%+v", of)
			}
			moved++
		}
		if moved != 6 {
			t.Errorf("node %d lists %d tails", i+1, moved)
		}
	}
	zero := int32(0)
	a, refused, err := administratorOf(t, m, 1).ServeTails(deadline(t), &cluster.TailRequest{Verb: cluster.TailDiscard, Topic: "orders", TopicID: kept.Tails[0].TopicID, Partition: &zero, Cut: 1})
	if refused != nil || err != nil || !slices.Equal(a.Discarded, []int32{1, 2, 3}) {
		t.Errorf("%+v, %v, %v", a, refused, err)
	}
	if left := listKept(t, m, 0).Tails; len(left) != 3 || left[0].Partition != 1 {
		t.Errorf("%+v", left)
	}
	if n := metric(t, m.nodes[2], "leat_mirror_tails"); n != 1 {
		t.Errorf("%v tails are counted", n)
	}
	if _, err := adm.DeleteTopics(deadline(t), "orders"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		eventually(t, "nothing is kept of a deleted topic", func() bool { return countTailDirs(t, m.dirs[i]) == 0 })
		if tails, _, err := replica.CountTails(m.nodes[i].set); tails != 0 || err != nil {
			t.Errorf("node %d counts %d tails: %v", i+1, tails, err)
		}
	}
}
