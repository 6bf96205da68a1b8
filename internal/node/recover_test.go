package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/vfs"
)

// recover does what an operator does who has only the directory of one node left.
func (m *machines) recover(i int, isMeant bool) (Recovery, error) {
	m.t.Helper()
	return RecoverCluster(m.t.Context(), Config{Data: m.dirs[i], Logger: slog.New(slog.NewTextHandler(m.t.Output(), nil))}, isMeant)
}

// TestRecoverCluster proves that a cluster of which two of three voters are lost goes on with the node that is left: it
// has all acknowledged records of the partitions that it has, says which ones are lost, and takes new nodes in. A node that comes
// back with its old directory is refused with a sentence and ends. Nothing is changed while another node runs, or
// where the recovery was not meant.
func TestRecoverCluster(t *testing.T) {
	m := newCluster(t, 3)
	eventually(t, "all nodes vote", func() bool { return len(m.nodes[2].quorum.Status().Members.Voters) == 3 })
	cl := m.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	adm := kadm.NewClient(cl)
	made, err := adm.CreateTopics(deadline(t), 3, -1, nil, "t", "lost")
	if err != nil || made["t"].Err != nil || made["lost"].Err != nil {
		t.Fatal(made, err)
	}
	var away kadm.AlterPartitionAssignmentsReq
	for p := range int32(3) {
		away.Assign("lost", p, []int32{2, 3})
	}
	if resp, err := adm.AlterPartitionAssignments(deadline(t), away); err != nil || resp.Error() != nil {
		t.Fatal(resp, err)
	}
	for i := range int32(30) {
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Partition: i % 3, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	epochs := map[int32]int32{}
	eventually(t, "node 1 shows the replicas where they should be", func() bool {
		img := m.nodes[0].image.Load()
		for i, p := range img.Topic("t").Partitions {
			epochs[int32(i)] = p.LeaderEpoch
		}
		return inSync(img, "t", 3) && slices.Equal(img.Topic("lost").Partitions[0].Replicas, []int32{2, 3})
	})
	first := m.nodes[0].image.Load().NextProducerID()
	cl.Close()

	m.stop(0)
	if _, err := m.recover(0, true); !errors.Is(err, ErrStillRunning) {
		t.Fatalf("while the others run: %v", err)
	}
	m.start(0, Config{})
	eventually(t, "node 1 is in sync again", func() bool { return inSync(m.nodes[0].image.Load(), "t", 3) })
	for _, i := range []int{2, 1, 0} { // the last one is alone in sync
		m.stop(i)
	}
	before := listTree(t, m.dirs[0])
	planned, err := m.recover(0, false)
	if err != nil {
		t.Fatal(err)
	}
	if after := listTree(t, m.dirs[0]); !slices.Equal(after, before) {
		t.Errorf("a recovery that is not meant has changed %v to %v", before, after)
	}
	done, err := m.recover(0, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(planned, done); diff != "" {
		t.Errorf("the plan and the result differ (-plan +result):\n%s", diff)
	}
	at := func(topic string) []controller.Partition {
		return []controller.Partition{{Topic: topic}, {Topic: topic, Number: 1}, {Topic: topic, Number: 2}}
	}
	if !slices.Equal(done.Removed, []int32{2, 3}) || done.NodeID != 1 || !cmp.Equal(done.Lost, at("lost")) || !cmp.Equal(done.Leads, at("t")) || done.Behind != nil {
		t.Errorf("it says %+v", done)
	}
	if _, err := m.recover(0, true); !errors.Is(err, ErrNotNeeded) {
		t.Errorf("a second recovery: %v", err)
	}

	alone := m.start(0, Config{})
	cl = m.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := map[string]bool{}
	for len(seen) < 30 {
		f := cl.PollFetches(deadline(t))
		if err := f.Err(); err != nil {
			t.Fatalf("after %d records: %v", len(seen), err)
		}
		f.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	img := alone.image.Load()
	for i, p := range img.Topic("t").Partitions {
		if p.LeaderEpoch < epochs[int32(i)]+leaderEpochsSkipped {
			t.Errorf("partition %d has leader epoch %d, and had %d before", i, p.LeaderEpoch, epochs[int32(i)])
		}
	}
	if next := img.NextProducerID(); next < first+producerIDsSkipped {
		t.Errorf("producer ids go on with %d, and %d was the next one before", next, first)
	}

	old, err := m.tryStart(2, Config{})
	if err == nil {
		select {
		case err = <-old.Failed():
		case <-time.After(time.Minute):
		}
		m.stop(2)
	}
	if !errors.Is(err, credential.ErrDiallerBehind) || !strings.Contains(err.Error(), "the cluster was recovered without this node's data") {
		t.Errorf("a node that comes back: %v", err)
	}

	token := m.makeToken(0)
	for i := 1; i < 3; i++ {
		m.dirs[i] = t.TempDir()
		m.start(i, Config{Join: m.ports[:1], Token: token})
	}
	eventually(t, "three nodes vote again, and have the records", func() bool {
		return len(alone.quorum.Status().Members.Voters) == 3 && inSync(alone.image.Load(), "t", 3)
	})
	if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("after")}).FirstErr(); err != nil {
		t.Error(err)
	}
	m.stop(1) // a node that has joined starts again by its own identity, which has the epoch
	m.start(1, Config{})
}

// TestRecoverWasInterrupted proves that a node starts neither as it was nor as the whole cluster if the power was cut
// within a recovery, and that another recovery makes it whole.
func TestRecoverWasInterrupted(t *testing.T) {
	disk, id := vfs.NewMem(), int32(1)
	cfg := Config{Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	n, err := startOn(t.Context(), cfg, disk, "boot")
	if err != nil {
		t.Fatal(err)
	}
	refused, err := n.controller.AdmitSelf(t.Context(), meta.NodeAdmitted{ID: 2, Key: credential.PublicKey{2}, Directory: meta.UUID{2}})
	if refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	stop(t, n)
	changes, isCut := 0, 0
	for cutAt := 1; ; cutAt++ {
		changes = 0
		copied := disk.KillClone(nil)
		var left *vfs.Mem
		faulty := vfs.NewFaulty(copied, func(op vfs.Op, _ string) error {
			if !op.Changes() || left != nil {
				return nil
			}
			if changes++; changes == cutAt {
				left = copied.KillClone(nil)
				return errors.New("the power is cut")
			}
			return nil
		})
		_, err := recoverOn(t.Context(), cfg, faulty, true)
		if left == nil { // there are no more changes
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		text, err := readFile(left, "/data/"+identityFile)
		if err != nil {
			t.Fatal(err)
		}
		found, err := parseIdentity(text)
		if err != nil {
			t.Fatal(err)
		}
		if found.epoch != firstEpoch {
			isCut++
		}
		if _, err := recoverOn(t.Context(), cfg, left, true); err != nil && !errors.Is(err, ErrNotNeeded) {
			t.Errorf("cut at change %d, the next recovery says %v", cutAt, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		again, err := startOn(ctx, cfg, left, "boot")
		if cancel(); err != nil {
			t.Fatalf("cut at change %d: %v", cutAt, err)
		}
		if again.id.epoch == firstEpoch || len(again.peers.listOthers()) > 0 || again.id.nodeID != id {
			t.Errorf("cut at change %d: epoch %d, others %v", cutAt, again.id.epoch, again.peers.listOthers())
		}
		stop(t, again)
	}
	if isCut < 2 {
		t.Errorf("%d cuts came after the identity was written: this proves little", isCut)
	}
}

// TestRecoveryIsDescribed proves which partitions a node leads that is left alone: those in whose in-sync or
// eligible replicas it is; those where it is neither only if an unclean election is allowed; and that the partitions which it
// leads have no other replicas then, of topics that follow the size of the cluster.
func TestRecoveryIsDescribed(t *testing.T) {
	entry := meta.AppendLevel(nil, meta.LevelFeature, meta.LevelCluster)
	for id := range int32(3) {
		entry = meta.Append(entry, meta.NodeAdmitted{ID: id + 1, Key: credential.PublicKey{byte(id + 1)}})
		entry = meta.Append(entry, meta.BrokerRegistered{Broker: meta.Broker{ID: id + 1, Epoch: int64(id) + 1, State: meta.BrokerActive}})
	}
	add := func(id byte, name string, p meta.Partition) {
		p.PartitionEpoch, p.LeaderEpoch = 1, 7
		entry = meta.Append(entry, meta.TopicCreated{ID: meta.UUID{id}, Name: name, Follows: strings.HasPrefix(name, "follows")})
		entry = meta.Append(entry, meta.PartitionsSet{Topic: meta.UUID{id}, Partitions: []meta.Partition{p}})
	}
	all := []int32{1, 2, 3}
	add(1, "insync", meta.Partition{Replicas: all, ISR: all, Leader: 2})
	add(2, "eligible", meta.Partition{Replicas: all, ISR: []int32{2}, Eligible: []int32{1}, Leader: 2})
	add(3, "behind", meta.Partition{Replicas: all, ISR: []int32{2, 3}, Leader: 2})
	add(4, "unclean", meta.Partition{Replicas: all, ISR: []int32{2, 3}, Leader: 2})
	add(6, "follows", meta.Partition{Replicas: all, ISR: []int32{1, 3}, Adding: []int32{2}, Leader: 3})
	add(7, "followsbehind", meta.Partition{Replicas: all, ISR: []int32{2, 3}, Leader: 3})
	add(5, "elsewhere", meta.Partition{Replicas: []int32{2, 3}, ISR: []int32{2, 3}, Leader: 3})
	entry = meta.Append(entry, meta.ConfigSet{Resource: config.Resource{Type: config.Topic, Name: "unclean"}, Key: "unclean.leader.election.enable", Value: "true"})
	static, err := config.NewStatic(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []meta.BrokerState{meta.BrokerActive, meta.BrokerFenced, meta.BrokerLeaving} {
		img, _, err := meta.Apply(meta.Empty(), entry)
		if err == nil && state != meta.BrokerActive {
			img, _, err = meta.Apply(img, meta.Append(nil, meta.BrokerChanged{ID: 1, Epoch: 1, State: state}))
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := leaveAlone(&controller.Rules{Image: img, Static: static, Limit: 100}, 1) // each removal has several parts
		if err != nil {
			t.Fatal(err)
		}
		got, err := describeRecovery(after, static, 1)
		if err != nil {
			t.Fatal(err)
		}
		of := func(names ...string) (list []controller.Partition) {
			for _, name := range names {
				list = append(list, controller.Partition{Topic: name})
			}
			return list
		}
		want := Recovery{NodeID: 1, Leads: of("eligible", "follows", "insync", "unclean"), Behind: of("behind", "followsbehind"), Lost: of("elsewhere")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("a node that was %v (-want +got):\n%s", state, diff)
		}
		if after, err = dropLostReplicas(after, got.Leads, 1); err != nil {
			t.Fatal(err)
		}
		for name, replicas := range map[string][]int32{"follows": {1}, "followsbehind": all, "insync": all} {
			if p := after.Topic(name).Partitions[0]; !slices.Equal(p.Replicas, replicas) || len(p.Adding) > 0 && name == "follows" {
				t.Errorf("%s has the replicas %v, adding %v", name, p.Replicas, p.Adding)
			}
		}
		for _, topic := range listTopics(after) {
			if p := topic.Partitions[0]; p.LeaderEpoch < 7+leaderEpochsSkipped {
				t.Errorf("%s has leader epoch %d", topic.Name, p.LeaderEpoch)
			}
		}
		if len(listOtherNodes(after, 1)) > 0 || !after.Nodes[2].Removed || !after.Nodes[3].Removed {
			t.Errorf("other nodes: %v", listOtherNodes(after, 1))
		}
	}
}

// TestRecoverIsRefused proves that a directory by which no cluster can be recovered is refused with a sentence.
func TestRecoverIsRefused(t *testing.T) {
	try := func(dir string) error {
		_, err := RecoverCluster(t.Context(), Config{Data: dir}, true)
		return err
	}
	dir := t.TempDir()
	if err := try(filepath.Join(dir, "missing")); !errors.Is(err, ErrNoNode) {
		t.Errorf("of a missing directory it says %v", err)
	}
	if err := try(dir); !errors.Is(err, ErrNoNode) {
		t.Errorf("of an empty directory it says %v", err)
	}
	n := start(t, Config{Data: dir})
	if err := try(dir); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), "another leat is running in it") {
		t.Errorf("of the directory of a node that runs it says %v", err)
	}
	stop(t, n)
	if err := try(dir); !errors.Is(err, ErrNotNeeded) {
		t.Errorf("of the only node it says %v", err)
	}
}

// TestRaiseEpoch proves that each recovery gives a directory a higher epoch, and two directories of one cluster different
// ones; that nothing else changes in its identity; and that there is an end to it.
func TestRaiseEpoch(t *testing.T) {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	id, err := loadIdentity(disk, "d", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]bool{id.epoch: true}
	for range 255 {
		if err := raiseEpoch(disk, "d", &id); err != nil {
			t.Fatal(err)
		}
		next, err := loadIdentity(disk, "d", nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if next.epoch <= id.epoch || seen[next.epoch] {
			t.Fatalf("epoch %d after %d", next.epoch, id.epoch)
		}
		if quorumName(next) == quorumName(id) {
			t.Fatal("messages of both epochs have the same name")
		}
		seen[next.epoch] = true
		if id.epoch = next.epoch; !reflect.DeepEqual(id, next) {
			t.Fatalf("%+v has become %+v", id, next)
		}
	}
	if err := raiseEpoch(disk, "d", &id); err == nil || !strings.Contains(err.Error(), "255 times") {
		t.Errorf("after so many recoveries it says %v", err)
	}
}
