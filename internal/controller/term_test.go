package controller

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// change has another leader make an entry in the next term, after which this node leads
// again in the one after that.
func (c *cluster) change(t *testing.T, records []byte) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	m, _, err := meta.Apply(c.image, records)
	if err != nil {
		t.Fatal(err)
	}
	c.image, c.term = m, c.term+2
}

// TestDecisionOfAnEarlierTermIsNotProposed proves that a decision fails if another leader
// has had a term in between, since it may not fit that leader's entries, and that commands
// which were decided on top of it are decided again in the new term.
func TestDecisionOfAnEarlierTermIsNotProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		g.shut.Store(false)
		create(t.Context(), ctl, "shared").check(t, "before", nil, 0)
		id := g.Image().Topic("shared").ID
		g.shut.Store(true)

		flying := remove(t.Context(), ctl, id)                   // decided, and on its way
		open := create(t.Context(), ctl, "after")                // decided on what that leaves
		g.change(t, meta.Append(nil, meta.TopicDeleted{ID: id})) // another leader deletes it first
		g.pass <- nil
		synctest.Wait()
		flying.check(t, "the delete", quorum.ErrNotLeader, 0)
		if m := g.Image(); m.NumTopics() != 0 {
			t.Errorf("%d topics", m.NumTopics())
		}
		g.pass <- nil // the create again, decided in the new term
		synctest.Wait()
		open.check(t, "the create", nil, 0)

		g.shut.Store(false)
		remove(t.Context(), ctl, id).check(t, "in the new term", nil, UnknownTopicID)
	})
}

// TestBatchKeepsItsTerm proves that commands which were decided while a proposal was under
// way are proposed for the term of their decision, even if that proposal was committed
// and another leader has had a term since.
func TestBatchKeepsItsTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil)
		var id meta.UUID
		hold := make(chan struct{})
		close(hold)
		held := false
		ctl := New(Config{Image: c.Image, Static: c.static, Leading: c.leading, Propose: func(ctx context.Context, term uint64, records []byte) error {
			<-hold
			err := c.propose(ctx, term, records)
			if held {
				held = false
				c.change(t, meta.Append(nil, meta.TopicDeleted{ID: id}))
			}
			return err
		}})
		join(t, ctl, 0)
		create(t.Context(), ctl, "shared").check(t, "before", nil, 0)
		id = c.Image().Topic("shared").ID
		hold, held = make(chan struct{}), true
		flying := create(t.Context(), ctl, "flying")
		open := remove(t.Context(), ctl, id)
		close(hold)
		synctest.Wait()
		flying.check(t, "made in the old term", nil, 0)
		open.check(t, "decided in the old term", quorum.ErrNotLeader, 0)
		remove(t.Context(), ctl, id).check(t, "decided in the new term", nil, UnknownTopicID)
	})
}

// TestNothingIsDecidedWithoutOffice proves that a node which does not lead, or has not
// applied all entries of earlier terms, decides nothing. It does not even answer a command
// that would change nothing, since the answer could be out of date.
func TestNothingIsDecidedWithoutOffice(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	c.away = true
	decided := false
	err := ctl.runCommand(t.Context(), ofCluster, func(*meta.Image) []byte {
		decided = true
		return nil
	})
	if !errors.Is(err, quorum.ErrNotLeader) || decided {
		t.Errorf("decided: %v, %v", decided, err)
	}
	c.away = false
	if err := ctl.Bootstrap(context.Background(), "AAAAAAAAAAAAAAAAAAAAAA"); err != nil {
		t.Errorf("in office: %v", err)
	}
}

// TestCoordinatorTopicsKeepTheirPartitions proves that no partition is added to a
// topic in which a coordinator finds its state by the number of partitions.
func TestCoordinatorTopicsKeepTheirPartitions(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	join(t, ctl, 0)
	for _, name := range []string{"__consumer_offsets", "__transaction_state", "__share_group_state"} {
		if err := ctl.EnsureTopic(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		have := len(c.Image().Topic(name).Partitions)
		for _, validateOnly := range []bool{true, false} {
			errs, err := ctl.CreatePartitions(t.Context(), []MorePartitions{{Topic: name, Count: int32(have) + 1}}, validateOnly)
			if err != nil || errs[0] == nil || errs[0].Kind != InvalidPartitions || errs[0].Message == "" {
				t.Errorf("%s: %v, %v", name, errs, err)
			}
		}
		if got := len(c.Image().Topic(name).Partitions); got != have {
			t.Errorf("%s has %d partitions instead of %d", name, got, have)
		}
	}
}

// TestActiveBrokersComeFirst proves that a broker that leaves gets no replica that the cluster
// places; that a fenced one gets one only if the active ones are too few, and is not in sync
// then; and that neither leads a partition that a client has placed on it.
func TestActiveBrokersComeFirst(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	for id := range int32(3) {
		beat := Beat{Registered: Registered{id, join(t, ctl, id)}, WantsFence: id == 0, WantsStop: id == 2}
		if _, refused, err := ctl.Heartbeat(t.Context(), 0, &beat); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
	}
	for id, state := range []meta.BrokerState{meta.BrokerFenced, meta.BrokerActive, meta.BrokerLeaving} {
		if got := c.Image().Brokers[int32(id)].State; got != state {
			t.Fatalf("broker %d has state %d", id, got)
		}
	}
	on := func(replicas ...int32) []Assignment { return []Assignment{{Partition: 0, Replicas: replicas}} }
	made, err := ctl.CreateTopics(t.Context(), []NewTopic{
		{Name: "placed", Partitions: 3, ReplicationFactor: 1},
		{Name: "wide", Partitions: 1, ReplicationFactor: 2},
		{Name: "chosen", Partitions: -1, ReplicationFactor: -1, Assignments: on(0, 1, 2)},
		{Name: "nobody", Partitions: -1, ReplicationFactor: -1, Assignments: on(0, 2)},
		{Name: "wider", Partitions: 1, ReplicationFactor: 3},
	}, false)
	if err != nil || made[0].Err != nil || made[1].Err != nil || made[4].Err == nil || made[4].Err.Kind != InvalidReplicationFactor ||
		made[2].Err != nil || made[3].Err == nil || made[3].Err.Kind != InvalidAssignment {
		t.Fatal(made, err)
	}
	m := c.Image()
	for i, p := range m.Topic("placed").Partitions {
		if len(p.Replicas) != 1 || p.Leader != 1 {
			t.Errorf("partition %d: %+v", i, p)
		}
	}
	if p := m.Topic("wide").Partitions[0]; !slices.Equal(p.Replicas, []int32{1, 0}) || !slices.Equal(p.ISR, []int32{1}) || p.Leader != 1 {
		t.Errorf("%+v", p)
	}
	if p := m.Topic("chosen").Partitions[0]; len(p.Replicas) != 3 || len(p.ISR) != 1 || p.Leader != 1 {
		t.Errorf("%+v", p)
	}
	if errs, err := ctl.CreatePartitions(t.Context(), []MorePartitions{{Topic: "chosen", Count: 2}}, false); err != nil || errs[0] == nil {
		t.Errorf("three replicas on one active broker: %v, %v", errs, err)
	}
	if errs, err := ctl.CreatePartitions(t.Context(), []MorePartitions{{Topic: "placed", Count: 5}}, false); err != nil || errs[0] != nil {
		t.Errorf("%v, %v", errs, err)
	}
}

// TestInternalTopicsFollow proves that the coordinators' topics follow the size of the cluster,
// with the min.insync.replicas that belong to it, unless a setting has chosen a number; and that
// topics of a cluster of the first level do not.
func TestInternalTopicsFollow(t *testing.T) {
	const name = "__transaction_state"
	for _, c := range []struct {
		static  map[string]string
		level   int16
		follows bool
		minISR  string
	}{
		{nil, meta.LevelCluster, true, ""},
		{nil, meta.LevelFirst, false, "1"},
		{map[string]string{"transaction.state.log.min.isr": "2"}, meta.LevelCluster, true, "2"},
		{map[string]string{"transaction.state.log.replication.factor": "2"}, meta.LevelCluster, false, "1"},
	} {
		w := newCluster(t, c.static)
		ctl := w.controller()
		if refused, err := ctl.Finalize(t.Context(), meta.LevelFeature, c.level); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		for id := range int32(2) {
			join(t, ctl, id)
		}
		if err := ctl.EnsureTopic(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		m := w.Image()
		topic := m.Topic(name)
		set := m.Overrides(config.Resource{Type: config.Topic, Name: name})["min.insync.replicas"]
		if topic.Follows != c.follows || set != c.minISR || len(topic.Partitions[0].Replicas) != 2 {
			t.Errorf("%v at level %d: follows %v, min.insync.replicas %q, %+v", c.static, c.level, topic.Follows, set, topic.Partitions[0])
		}
	}
}

// TestCoordinatorsTopicsAreDurable proves that the broker's settings by which topics keep acknowledged records
// in the page cache leave the coordinators' topics alone, which may have such settings of their own.
func TestCoordinatorsTopicsAreDurable(t *testing.T) {
	for _, static := range []map[string]string{
		{"log.flush.interval.messages": "1000"}, {"log.flush.interval.ms": "5000"}, {"log.flush.scheduler.interval.ms": "5000"},
	} {
		c := newCluster(t, static)
		ctl := c.controller()
		join(t, ctl, 0)
		for name, durable := range map[string]bool{"__consumer_offsets": true, "__transaction_state": true, "__share_group_state": true, "ordinary": false} {
			if err := ctl.EnsureTopic(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			m := c.Image()
			if got := meta.TopicSettings(m, c.static, m.Topic(name)).FlushMessages; (got == 1) != durable {
				t.Errorf("%v: %s has flush.messages %d", static, name, got)
			}
			if set := m.Overrides(config.Resource{Type: config.Topic, Name: name})["flush.messages"]; set != "" {
				t.Errorf("%s has flush.messages %s of its own, which topics of earlier versions do not have", name, set)
			}
			change := ConfigChanges{Resource: config.Resource{Type: config.Topic, Name: name}, Changes: []ConfigChange{{Op: Set, Key: "flush.messages", Value: "7"}}}
			if _, err := ctl.AlterConfigs(t.Context(), []ConfigChanges{change}, false); err != nil {
				t.Fatal(err)
			}
			m = c.Image()
			if got := meta.TopicSettings(m, c.static, m.Topic(name)).FlushMessages; got != 7 {
				t.Errorf("%v: %s has flush.messages %d, and 7 of its own", static, name, got)
			}
		}
	}
}

// TestNewClusterHasTheLatestLevel proves that a cluster begins with the latest level, and that
// one which is there keeps its own.
func TestNewClusterHasTheLatestLevel(t *testing.T) {
	c := newCluster(t, nil)
	if err := c.controller().Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil || c.Image().Level() != meta.LatestLevel {
		t.Errorf("level %d, %v", c.Image().Level(), err)
	}
	old := newCluster(t, nil)
	m, _, err := meta.Apply(old.image, meta.Append(nil, meta.ClusterCreated{ID: "MkU3OEVBNTcwNTJENDM2Qk", Tag: 1}))
	if err != nil {
		t.Fatal(err)
	}
	old.image = m
	if err := old.controller().Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil || old.Image().Level() != meta.LevelFirst {
		t.Errorf("level %d, %v", old.Image().Level(), err)
	}
}
