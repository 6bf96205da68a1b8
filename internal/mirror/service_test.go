package mirror_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// TestTopicsAreMirrored proves that partitions of several brokers have the source's batches byte by byte, as they are and as they come, with one commit for many.
func TestTopicsAreMirrored(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 5, 1)
		for i := range 5 {
			r.source.produce("orders", i, 10, 100)
		}
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 5)
		for n := range 50 {
			r.source.produce("orders", n%5, 1+n%7, 50)
		}
		r.awaitCopies("orders", 5)
		for i := range int32(5) {
			if s := r.status("orders", i); s.Lag.Records != 0 || !s.Lag.IsKnown || s.Source != "orders" || s.Link != linkID || s.LastContact.IsZero() {
				r.Errorf("%+v", s)
			}
		}
		if r.commits == 0 || r.commits > 60 {
			r.Errorf("%d commits", r.commits)
		}
	})
}

// awaitCopies waits until partitions of a topic have what the source has, and mirror.
func (r *rig) awaitCopies(name string, partitions int32) {
	r.Helper()
	r.await("all of "+name+" is here", func() bool {
		for i := range partitions {
			if !r.isCopy(name, i) || r.status(name, i).State != progress.Mirroring {
				return false
			}
		}
		return true
	})
}

func (r *rig) awaitState(name string, partition int32, state progress.State) mirror.PartitionStatus {
	r.Helper()
	r.await(fmt.Sprint(name, "-", partition, " is ", state), func() bool { return r.status(name, partition).State == state })
	return r.status(name, partition)
}

// TestPartitionsShareFetches proves that all partitions of a broker that have nothing to read share one long poll, so that an idle link costs two requests a second for each broker.
func TestPartitionsShareFetches(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 40, 1)
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 40)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.source.takeFetches()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		fetches := r.source.takeFetches()
		if n := len(fetches); n < 30 || n > 45 {
			r.Errorf("%d fetches in 10 s", n)
		}
		for _, f := range fetches {
			if len(f.names) != 20 || f.wait != 500 {
				r.Fatalf("a fetch of %d partitions that waits %d ms", len(f.names), f.wait)
			}
		}
	})
}

// TestBackfillHasFetchesOfItsOwn proves that a partition that is far behind does not delay one that is at its end: they are read by different fetches, and the first one's have no long poll.
func TestBackfillHasFetchesOfItsOwn(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("old", 1, 1)
		r.source.create("new", 1, 2)
		for range 60 {
			r.source.produce("old", 0, 1, 900_000)
		}
		r.link()
		r.mirror("old")
		r.mirror("new")
		r.awaitCopies("old", 1)
		backfills := 0
		for _, f := range r.source.takeFetches() {
			if f.wait == 0 && slices.Contains(f.names, "old-0") && f.maxBytes > 1<<20 {
				backfills++
			}
			if f.wait == 0 && slices.Contains(f.names, "new-0") {
				r.Error("the one without a lag is part of the backfill")
			}
		}
		if backfills == 0 {
			r.Error("there was no fetch of the backfill")
		}
	})
}

// TestMemoryIsBounded proves that the answers under way never ask for more than the budget has, over all partitions and brokers, and that everything is read all the same.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := budget.New(budget.Config{Mirror: 1 << 20})
		r := newRig(t, func(c *mirror.Config) { c.Memory = work })
		r.source.create("orders", 8, 1)
		for i := range 8 {
			for range 40 {
				r.source.produce("orders", i, 1, 100_000)
			}
		}
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 8)
		if peak := work.TakePeak(budget.Mirror); peak == 0 || peak > 1<<20 {
			t.Errorf("%d bytes were held", peak)
		}
		for _, f := range r.source.takeFetches() {
			if int64(f.maxBytes) > work.Most(budget.Mirror)/4 {
				t.Fatalf("a fetch asks for %d bytes", f.maxBytes)
			}
		}
	})
}

// TestThrottle proves that a throttled link reads at its rate, that the tip does not wait for the backfill, and that the rate changes while the link works.
func TestThrottle(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("old", 1, 1)
		r.source.create("new", 1, 2)
		for range 200 {
			r.source.produce("old", 0, 1, 100_000)
		}
		r.link(meta.LinkSetting{Key: "throttle.bytes.per.second", Value: "1000000"})
		r.mirror("new")
		r.awaitCopies("new", 1)
		began := time.Now()
		r.mirror("old")
		time.Sleep(5 * time.Second)
		for range 20 {
			r.source.produce("new", 0, 1, 100)
			before := time.Now()
			r.await("the tip is here", func() bool { return r.isCopy("new", 0) })
			if d := time.Since(before); d > 1500*time.Millisecond {
				r.Errorf("the tip took %v", d)
			}
		}
		synctest.Wait()
		seconds, have := time.Since(began).Seconds(), float64(len(r.log("old", 0).bytes()))
		if most := 1e6*seconds + 2e6; have > most || have < most/2 {
			r.Errorf("%.0f bytes in %.0f s", have, seconds)
		}
		fast := "100000000"
		r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Settings: map[string]*string{"throttle.bytes.per.second": &fast}}})
		began = time.Now()
		r.awaitCopies("old", 1)
		if d := time.Since(began); d > 5*time.Second {
			r.Errorf("the rest took %v", d)
		}
	})
}

// TestBackfillLeavesTheDiskToClients proves that few bytes of the backfill wait for the disk while clients wait for it, and many while none does.
func TestBackfillLeavesTheDiskToClients(t *testing.T) {
	for _, busy := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var clients atomic.Int64
			r := newRig(t, func(c *mirror.Config) {
				c.CountCommits = func() int64 {
					if busy {
						return clients.Add(1)
					}
					return 0
				}
			})
			r.commitTime, r.byteTime = 2*time.Millisecond, 20*time.Nanosecond
			r.source.create("old", 4, 1)
			for i := range 4 {
				for range 100 {
					r.source.produce("old", i, 1, 300_000)
				}
			}
			r.link()
			r.mirror("old")
			r.awaitCopies("old", 4)
			if r.mostUnsynced > 4<<20 == busy {
				t.Errorf("clients wait: %v, and %d bytes of the backfill wait for the disk", busy, r.mostUnsynced)
			}
		})
	}
}

// TestPauses proves that nothing is read while a topic, or the link, is paused, and that the mirror goes on then.
func TestPauses(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.create("other", 1, 2)
		r.link()
		topic := r.mirror("orders")
		r.mirror("other")
		r.awaitCopies("orders", 1)
		pause := func(kind controller.LinksKind) {
			r.must(&controller.LinksChange{Kind: kind, Topics: []controller.MirrorTopic{{ID: topic.ID}}})
		}
		pause(controller.PauseMirrors)
		r.awaitState("orders", 0, progress.Paused)
		r.source.produce("orders", 0, 1, 10)
		r.source.produce("other", 0, 1, 10)
		r.awaitCopies("other", 1)
		time.Sleep(time.Minute)
		if synctest.Wait(); len(r.log("orders", 0).bytes()) > 0 {
			r.Error("a paused topic is read")
		}
		pause(controller.ResumeMirrors)
		r.awaitCopies("orders", 1)
		setPaused := func(is bool) {
			r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Paused: &is}})
		}
		setPaused(true)
		r.awaitState("other", 0, progress.Paused)
		time.Sleep(time.Second)
		synctest.Wait()
		r.source.takeFetches()
		r.source.mu.Lock()
		conns := len(r.source.conns)
		r.source.mu.Unlock()
		if conns > 0 {
			r.Errorf("a paused link has %d connections", conns)
		}
		r.source.produce("other", 0, 1, 10)
		time.Sleep(time.Minute)
		if synctest.Wait(); len(r.source.takeFetches()) > 0 {
			r.Error("a paused link reads")
		}
		setPaused(false)
		r.awaitCopies("other", 1)
		r.awaitCopies("orders", 1)
	})
}

// TestSettingsChangeLive proves that a link whose addresses are wrong mirrors soon after they were changed, without a restart, and says before why it does not.
func TestSettingsChangeLive(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 2, 1)
		r.source.produce("orders", 0, 3, 10)
		r.must(&controller.LinksChange{Kind: controller.CreateLink, Link: &meta.Link{
			ID: linkID, Name: "north", Source: "there", Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: "nowhere:1"}},
		}})
		r.mirror("orders")
		if s := r.awaitState("orders", 0, progress.Waiting); !strings.Contains(s.Reason, "nobody is at nowhere:1") || s.RetryIn <= 0 {
			r.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		set := func(key, value string) {
			r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Settings: map[string]*string{key: &value}}})
		}
		set("bootstrap.servers", "b1:9092")
		began := time.Now()
		r.awaitCopies("orders", 2)
		if d := time.Since(began); d > 3*time.Second {
			r.Errorf("it took %v", d)
		}
		set("no.such", "setting")
		r.await("the reason is known", func() bool { return strings.Contains(r.status("orders", 0).Reason, `no setting "no.such"`) })
		r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Settings: map[string]*string{"no.such": nil}}})
		r.source.produce("orders", 1, 3, 10)
		r.awaitCopies("orders", 2)
	})
}

// TestOtherClusterIsNotRead proves that nothing is read of a cluster that is not the link's source.
func TestOtherClusterIsNotRead(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.id = "elsewhere"
		r.source.create("orders", 1, 1)
		r.source.produce("orders", 0, 1, 10)
		r.link()
		r.mirror("orders")
		if s := r.awaitState("orders", 0, progress.Waiting); !strings.Contains(s.Reason, `it is "elsewhere", and the source is "there"`) {
			r.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		if synctest.Wait(); len(r.source.takeFetches()) > 0 {
			r.Error("it is read")
		}
	})
}

// TestLeadersMove proves that a partition is read by the node that leads it, and by no other one.
func TestLeadersMove(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 2, 1)
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 2)
		r.lead("orders", 0, 2)
		r.await("one is led", func() bool { return len(r.service.Status(linkID)) == 1 })
		r.source.produce("orders", 0, 1, 10)
		r.source.produce("orders", 1, 1, 10)
		r.await("the other one is here", func() bool { return r.isCopy("orders", 1) })
		time.Sleep(10 * time.Second)
		if synctest.Wait(); len(r.log("orders", 0).bytes()) > 0 {
			r.Error("the node reads it that does not lead it")
		}
		r.lead("orders", 0, 1)
		r.awaitCopies("orders", 2)
	})
}

// TestTopicsAreMadeAgain proves that an answer which is under way while a topic here is deleted, and made again under its name, comes into no log.
func TestTopicsAreMadeAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.link()
		old := r.mirror("orders")
		r.awaitCopies("orders", 1)
		held := make(chan struct{})
		r.source.change(func() { r.source.held = held })
		r.source.produce("orders", 0, 5, 10)
		synctest.Wait()
		oldLog := r.log("orders", 0)
		r.apply(meta.Append(nil, meta.TopicDeleted{ID: old.ID}))
		r.source.create("orders", 1, 2)
		r.source.produce("orders", 0, 2, 30)
		r.mirror("orders")
		synctest.Wait()
		r.source.change(func() { r.source.held = nil })
		close(held)
		r.awaitCopies("orders", 1)
		if len(oldLog.bytes()) > 0 || r.log("orders", 0) == oldLog {
			r.Error("the topic that was deleted has records")
		}
	})
}

// TestLinkIsRemoved proves that a link that is removed, after its topics, leaves no connection.
func TestLinkIsRemoved(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 3, 1)
		r.link()
		topic := r.mirror("orders")
		r.awaitCopies("orders", 3)
		r.apply(meta.Append(meta.Append(nil, meta.TopicDeleted{ID: topic.ID}), meta.LinkRemoved{ID: linkID}))
		time.Sleep(time.Second)
		synctest.Wait()
		r.source.mu.Lock()
		defer r.source.mu.Unlock()
		if len(r.source.conns) > 0 || len(r.service.Status(linkID)) > 0 {
			r.Errorf("%d connections are left", len(r.source.conns))
		}
	})
}

// TestBrokersComeAndGo proves that partitions follow their leaders at the source from broker to broker, and that all go on when a source that was gone is back.
func TestBrokersComeAndGo(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 4, 1)
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 4)
		r.source.stop(1)
		for _, i := range []int{0, 2} {
			r.source.elect("orders", i, 2, 0)
		}
		for i := range 4 {
			r.source.produce("orders", i, 2, 10)
		}
		r.awaitCopies("orders", 4)
		r.source.stop(2)
		if s := r.awaitState("orders", 3, progress.Waiting); s.Reason == "" {
			r.Errorf("%+v", s)
		}
		time.Sleep(5 * time.Minute)
		r.source.restart(1)
		r.source.restart(2)
		for i := range 4 {
			r.source.elect("orders", i, int32(i)%2+1, 2)
			r.source.produce("orders", i, 2, 10)
		}
		began := time.Now()
		r.awaitCopies("orders", 4)
		if d := time.Since(began); d > 15*time.Second {
			r.Errorf("it took %v", d)
		}
	})
}

// TestRecordsAreCut proves that records which the source has lost by an unclean election are cut here, by a decision of the metadata, and that the mirror then goes on.
func TestRecordsAreCut(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		for range 4 {
			r.source.produce("orders", 0, 5, 10)
		}
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 1)
		r.source.elect("orders", 0, 2, 10)
		for range 3 {
			r.source.produce("orders", 0, 4, 20)
		}
		r.awaitCopies("orders", 1)
		p := r.image.Load().Topic("orders").Partitions[0]
		if !slices.Equal(p.Mirror.Cuts, []meta.Cut{{Number: 1, Offset: 10}}) || p.LeaderEpoch < 2 {
			r.Errorf("%+v, %+v", p, p.Mirror)
		}
	})
}

// TestEpochsAreRaised proves that the leader epoch here is raised before batches of a higher epoch of the source are appended.
func TestEpochsAreRaised(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.change(func() {
			p := r.source.topics["orders"].partitions[0]
			p.epoch, p.epochStart = 4321, map[int32]int64{4321: 0}
		})
		r.source.produce("orders", 0, 5, 10)
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 1)
		if p := r.image.Load().Topic("orders").Partitions[0]; p.LeaderEpoch != 5000 {
			r.Errorf("the leader epoch is %d", p.LeaderEpoch)
		}
	})
}

// TestGaps proves that a mirror stops if the source has deleted records that are not here, says which, and goes on when a person accepts that; and that the log's start follows the source's.
func TestGaps(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 2, 1)
		for range 6 {
			r.source.produce("orders", 0, 5, 10)
			r.source.produce("orders", 1, 5, 10)
		}
		r.link()
		topic := r.mirror("orders")
		r.awaitCopies("orders", 2)
		r.source.trim("orders", 0, 10)
		r.awaitCopies("orders", 2)
		r.await("the start follows", func() bool { return r.status("orders", 0).Log.Start == 10 })
		isPaused := true
		r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Paused: &isPaused}})
		for range 4 {
			r.source.produce("orders", 0, 5, 10)
		}
		r.source.trim("orders", 0, 40)
		isPaused = false
		r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Paused: &isPaused}})
		s := r.awaitState("orders", 0, progress.Gap)
		if s.Range != (progress.Range{From: 30, To: 40}) || s.Reason == "" {
			r.Errorf("%+v", s)
		}
		r.source.produce("orders", 1, 1, 10)
		r.await("the other partition goes on", func() bool { return r.isCopy("orders", 1) })
		r.must(&controller.LinksChange{Kind: controller.SetMirrorStates, Partitions: []controller.MirrorPartition{{
			Topic: topic.ID, LeaderEpoch: controller.NoLeaderEpoch, State: meta.PartitionMirrors, Gap: meta.OffsetRange{Start: 30, End: 40},
		}}})
		r.source.produce("orders", 0, 1, 10)
		r.awaitCopies("orders", 2)
		if s := r.status("orders", 0); s.Log.Start != 40 || s.Log.End != 51 {
			r.Errorf("%+v", s.Log)
		}
	})
}

// TestSourceTopicIsDeleted proves that a topic that is gone at the source, or is another one of its name, stops with a state that says so, and keeps its records.
func TestSourceTopicIsDeleted(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.produce("orders", 0, 5, 10)
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 1)
		had := r.log("orders", 0).bytes()
		r.source.change(func() { delete(r.source.topics, "orders") })
		r.awaitState("orders", 0, progress.SourceDeleted)
		r.source.create("orders", 1, 2)
		r.source.produce("orders", 0, 9, 10)
		r.awaitState("orders", 0, progress.SourceRecreated)
		if string(r.log("orders", 0).bytes()) != string(had) {
			r.Error("the records have changed")
		}
		if p := r.image.Load().Topic("orders").Partitions[0].Mirror; p.State != meta.PartitionRecreated {
			r.Errorf("%+v", p)
		}
		topic := r.image.Load().Topic("orders")
		r.must(&controller.LinksChange{Kind: controller.SetMirrorStates, Partitions: []controller.MirrorPartition{{Topic: topic.ID, LeaderEpoch: controller.NoLeaderEpoch, State: meta.PartitionEmptying}}})
		r.awaitCopies("orders", 1)
	})
}

// TestTombstonesAreNoted proves that a new leader of a compacted topic knows that no tombstone was missed, and stops if nobody has read for longer than the source keeps them.
func TestTombstonesAreNoted(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("table", 1, 1)
		r.source.produce("table", 0, 5, 10)
		r.link()
		r.mirror("table")
		res := config.Resource{Type: config.Topic, Name: "table"}
		r.apply(meta.Append(meta.Append(nil, meta.ConfigSet{Resource: res, Key: "cleanup.policy", Value: "compact"}), meta.ConfigSet{Resource: res, Key: "delete.retention.ms", Value: "3600000"}))
		r.awaitCopies("table", 1)
		for range 6 {
			time.Sleep(40 * time.Minute)
			r.source.produce("table", 0, 5, 10)
			r.lead("table", 0, 2)
			time.Sleep(10 * time.Second)
			r.lead("table", 0, 1)
			r.awaitCopies("table", 1)
		}
		r.lead("table", 0, 2)
		time.Sleep(2 * time.Hour)
		r.source.produce("table", 0, 5, 10)
		r.lead("table", 0, 1)
		if s := r.awaitState("table", 0, progress.TombstonesLost); s.Range.IsEmpty() {
			r.Errorf("%+v", s)
		}
		if p := r.image.Load().Topic("table").Partitions[0].Mirror; p.State != meta.PartitionTombstonesLost || p.TombstonesSince == 0 {
			r.Errorf("%+v", p)
		}
	})
}

// TestTroubleHere proves that a log that takes no records, and a controller that decides nothing, stop nothing but what they concern, and that it goes on when they are well.
func TestTroubleHere(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 2, 1)
		r.source.produce("orders", 0, 1, 10)
		r.source.produce("orders", 1, 1, 10)
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 2)
		r.log("orders", 0).set(func(l *memLog) { l.refuses = errFull })
		r.source.produce("orders", 0, 1, 10)
		r.source.produce("orders", 1, 1, 10)
		if s := r.awaitState("orders", 0, progress.Waiting); !strings.Contains(s.Reason, "the disk is full") {
			r.Errorf("%+v", s)
		}
		r.await("the other one goes on", func() bool { return r.isCopy("orders", 1) })
		r.log("orders", 0).set(func(l *memLog) { l.refuses = nil })
		r.awaitCopies("orders", 2)
		r.mu.Lock()
		r.refusing = errFull
		r.mu.Unlock()
		r.source.elect("orders", 0, 2, 1)
		r.source.produce("orders", 1, 1, 10)
		r.await("the other one goes on without a controller", func() bool { return r.isCopy("orders", 1) })
		r.await("the reason is known", func() bool { return strings.Contains(r.status("orders", 0).Reason, "the disk is full") })
		r.mu.Lock()
		r.refusing = nil
		r.mu.Unlock()
		r.source.produce("orders", 0, 1, 10)
		r.awaitCopies("orders", 2)
	})
}

// TestOpeningIsTriedAgain proves that a log which cannot be opened is tried again, and that people are told.
func TestOpeningIsTriedAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.produce("orders", 0, 1, 10)
		r.link()
		topic := r.mirror("orders")
		log, _ := r.logOf(mirror.PartitionID{Topic: topic.ID}).(*memLog)
		log.set(func(l *memLog) { l.refuses = errFull })
		r.lead("orders", 0, 1)
		if s := r.awaitState("orders", 0, progress.Waiting); !strings.Contains(s.Reason, "the disk is full") {
			r.Errorf("%+v", s)
		}
		log.set(func(l *memLog) { l.refuses = nil })
		r.awaitCopies("orders", 1)
	})
}

// TestOldSources proves that a source whose fetches do not compare epochs, and name topics, is mirrored, also after a change of its leader and of the leader here.
func TestOldSources(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.fetchMax = 11
		r.source.create("orders", 1, 1)
		for range 3 {
			r.source.produce("orders", 0, 5, 10)
		}
		r.link()
		r.mirror("orders")
		r.awaitCopies("orders", 1)
		r.source.elect("orders", 0, 2, 10)
		r.source.produce("orders", 0, 5, 20)
		r.awaitCopies("orders", 1)
		r.lead("orders", 0, 2)
		time.Sleep(time.Minute)
		r.source.produce("orders", 0, 5, 30)
		r.lead("orders", 0, 1)
		r.awaitCopies("orders", 1)
	})
}

// TestStarts proves that a mirror begins where its link says, and that its log begins there, too.
func TestStarts(t *testing.T) {
	for start, want := range map[string]record.Offset{"latest": 15, "earliest": 0, "a time": 10} {
		t.Run(start, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.source.create("orders", 1, 1)
				for i := range 3 {
					if i == 2 && start == "a time" {
						start = time.Now().UTC().Format(time.RFC3339)
					}
					r.source.produce("orders", 0, 5, 10)
					time.Sleep(time.Hour)
				}
				r.link(meta.LinkSetting{Key: "start", Value: start})
				r.mirror("orders")
				r.await("it mirrors", func() bool {
					return r.status("orders", 0).State == progress.Mirroring && r.image.Load().Topic("orders").Partitions[0].Mirror.Begin.IsDecided
				})
				r.source.produce("orders", 0, 1, 10)
				r.await("the new record is here", func() bool { return r.status("orders", 0).Log.End == 16 })
				if s := r.status("orders", 0); s.Log.Start != want {
					r.Errorf("%+v", s.Log)
				}
			})
		})
	}
}
