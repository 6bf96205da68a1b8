package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// TestManyPartitionsChangeInParts proves that a node with so many partitions that their changes
// do not fit into one entry is fenced and comes back in entries of a bounded size.
func TestManyPartitionsChangeInParts(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	for id := range int32(2) {
		join(t, ctl, id)
	}
	const topics = 5
	for i := range topics {
		made, err := ctl.CreateTopics(t.Context(), []NewTopic{{Name: fmt.Sprint("t", i), Partitions: MaxNewPartitions, ReplicationFactor: 2}}, false)
		if err != nil || made[0].Err != nil {
			t.Fatal(made, err)
		}
	}
	leads := func() (counts [3]int) {
		for topic := range c.Image().Topics() {
			for i := range topic.Partitions {
				counts[topic.Partitions[i].Leader+1]++
			}
		}
		return counts
	}
	all := topics * MaxNewPartitions
	before := c.log
	c.size = 0
	ctl.PeerClosed(0, 1)
	ctl.PeerRefused(0, 1)
	if err := ctl.Tick(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if n := leads(); n != [3]int{0, all, 0} || c.Image().Brokers[1].State != meta.BrokerFenced {
		t.Errorf("leaders %v, broker %+v", n, c.Image().Brokers[1])
	}
	if parts := c.log - before; parts < 2 || c.size > maxBatch {
		t.Errorf("%d entries, of %d bytes at most", parts, c.size)
	}

	// Now nobody is left, and then both come back.
	before = c.log
	if refused, err := ctl.FenceBroker(t.Context(), 0, c.Image().Brokers[0].Epoch); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if n := leads(); n != [3]int{all, 0, 0} {
		t.Errorf("leaders %v", n)
	}
	beat := Beat{Registered: Registered{0, c.Image().Brokers[0].Epoch}, Caught: true}
	if a, refused, err := ctl.Heartbeat(t.Context(), 2*time.Second, &beat); err != nil || refused != nil || a.Fenced {
		t.Fatal(a, refused, err)
	}
	if n := leads(); n != [3]int{0, all, 0} {
		t.Errorf("leaders %v", n)
	}
	if parts := c.log - before; parts < 4 || c.size > maxBatch {
		t.Errorf("%d entries, of %d bytes at most", parts, c.size)
	}
}

// TestOnlyTheActiveControllerJudges proves that a controller that does not lead fences nobody
// and answers no heartbeat.
func TestOnlyTheActiveControllerJudges(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	g := Registration{Broker: meta.Broker{ID: 1, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()}}}
	epoch, refused, err := ctl.RegisterBroker(t.Context(), 0, &g)
	if err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	c.away = true
	if _, _, err := ctl.RegisterBroker(t.Context(), 0, &g); err == nil {
		t.Error("it registers")
	}
	if _, _, err := ctl.Heartbeat(t.Context(), 0, &Beat{Registered: Registered{1, epoch}, Caught: true}); err == nil {
		t.Error("it takes a heartbeat")
	}
	if err := ctl.Tick(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
	if c.log != 1 || c.Image().Brokers[1].State != meta.BrokerFenced {
		t.Errorf("%d proposals", c.log)
	}
}

// TestHeartbeatNeedsTheVoters proves that a controller answers a heartbeat only after most voters have confirmed that it leads,
// since it may have stood still while another one was active.
func TestHeartbeatNeedsTheVoters(t *testing.T) {
	c := newCluster(t, nil)
	var alone error
	asked := 0
	ctl := New(Config{Image: c.Image, Leading: c.leading, Propose: c.propose, Static: c.static, Applied: c.applied, ConfirmLeading: func(context.Context) error {
		asked++
		return alone
	}})
	g := Registration{Broker: meta.Broker{ID: 1, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()}}}
	epoch, refused, err := ctl.RegisterBroker(t.Context(), 0, &g)
	if err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	beat := Beat{Registered: Registered{1, epoch}, Caught: true}
	if a, refused, err := ctl.Heartbeat(t.Context(), 0, &beat); err != nil || refused != nil || a.Fenced || asked != 1 {
		t.Errorf("%+v, %v, %v, asked %d times", a, refused, err, asked)
	}
	alone = errors.New("nobody answers")
	if a, refused, err := ctl.Heartbeat(t.Context(), 0, &beat); !errors.Is(err, alone) || refused != nil {
		t.Errorf("%+v, %v, %v", a, refused, err)
	}
}

// TestFirstLevelWritesNothingNew proves that a cluster whose level was not raised has no record
// and no field that the first release could not read, whatever is asked of it.
func TestFirstLevelWritesNothingNew(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	for _, process := range []byte{1, 2} {
		g := Registration{Clean: true, Broker: meta.Broker{
			Directory: meta.UUID{7}, Incarnation: meta.UUID{process}, RecordedEpoch: 9, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()},
		}}
		ctl.ProcessEnded(0, 0)
		epoch, refused, err := ctl.RegisterBroker(t.Context(), 0, &g)
		if err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		beat := Beat{Caught: true, Registered: Registered{Epoch: epoch}}
		if a, refused, err := ctl.Heartbeat(t.Context(), 0, &beat); err != nil || refused != nil || a.Fenced {
			t.Fatal(a, refused, err)
		}
		if _, err := ctl.CreateTopics(t.Context(), []NewTopic{{Name: fmt.Sprint("t", process), Partitions: -1, ReplicationFactor: -1}}, false); err != nil {
			t.Fatal(err)
		}
	}
	if errs, err := ctl.AlterReassignments(t.Context(), []Reassignment{{Partition{"t1", 0}, []int32{0}}}, true); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	if err := ctl.Maintain(t.Context(), 0, Upkeep{Elections: 9, Moves: 9}); err != nil {
		t.Fatal(err)
	}
	m := c.Image()
	if b := m.Brokers[0]; b.State != meta.BrokerActive || b.Epoch != 2 || b.Directory != (meta.UUID{}) || b.RecordedEpoch != 0 {
		t.Errorf("%+v", b)
	}
	for topic := range m.Topics() {
		if topic.Follows || topic.Partitions[0].Leader != 0 {
			t.Errorf("%+v", topic)
		}
	}
	if m.NumTopics() != 2 {
		t.Errorf("%d topics", m.NumTopics())
	}
}

// BenchmarkFenceBroker decides and applies the fencing of one of three brokers that have ten
// thousand partitions.
func BenchmarkFenceBroker(b *testing.B) {
	c := newCluster(b, nil)
	ctl := c.controller()
	for id := range int32(3) {
		join(b, ctl, id)
	}
	if made, err := ctl.CreateTopics(b.Context(), []NewTopic{{Name: "t", Partitions: MaxNewPartitions, ReplicationFactor: 3}}, false); err != nil || made[0].Err != nil {
		b.Fatal(made, err)
	}
	r := Rules{Image: c.Image(), Static: c.static}
	for b.Loop() {
		d, err := r.FenceBroker(1, r.Image.Brokers[1].Epoch)
		if err != nil || d.More {
			b.Fatal(err, d.More)
		}
		if _, _, err := meta.Apply(r.Image, d.Records); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLeavingBrokersAreElectedNowhere proves that a broker that began to leave between two parts of its unfencing gets no partition by the later ones.
func TestLeavingBrokersAreElectedNowhere(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	join(t, ctl, 0)
	made, err := ctl.CreateTopics(t.Context(), []NewTopic{{Name: "t", Partitions: 1, ReplicationFactor: 1}}, false)
	if err != nil || made[0].Err != nil {
		t.Fatal(made, err)
	}
	epoch := c.Image().Brokers[0].Epoch
	if refused, err := ctl.FenceBroker(t.Context(), 0, epoch); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	for state, want := range map[meta.BrokerState]bool{meta.BrokerFenced: true, meta.BrokerActive: true, meta.BrokerLeaving: false} {
		m, _, err := meta.Apply(c.Image(), meta.Append(nil, meta.BrokerChanged{ID: 0, Epoch: epoch, State: state}))
		if err != nil {
			t.Fatal(err)
		}
		r := Rules{Image: m, Static: c.static}
		d, refused := r.UnfenceBroker(0, epoch)
		if refused != nil {
			t.Fatal(refused)
		}
		if m, _, err = meta.Apply(m, d.Records); err != nil {
			t.Fatal(err)
		}
		if leads := m.Topic("t").Partitions[0].Leader == 0; leads != want {
			t.Errorf("in state %d: it leads: %v", state, leads)
		}
	}
}
