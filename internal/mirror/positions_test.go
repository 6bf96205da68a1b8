package mirror_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// withGroups runs a test on the node of the active controller, with groups here, a topic orders of six partitions that is mirrored, and a source that has records of groups.
func withGroups(t *testing.T, change func(c *mirror.Config), test func(g *groupsHere), settings ...meta.LinkSetting) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newGroupsHere()
		g.rig = newRig(t, func(c *mirror.Config) {
			c.IsController, c.Groups = func() bool { return true }, g.door()
			if change != nil {
				change(c)
			}
		})
		g.source.create("orders", 6, 1)
		g.source.create("__consumer_offsets", 3, 2)
		g.link(append(settings, meta.LinkSetting{Key: "topics", Value: "orders,late"})...)
		g.await("the topic is made", func() bool { return len(g.names()) == 1 })
		test(g)
	})
}

// awaitAt waits until a group here is at some positions.
func (g *groupsHere) awaitAt(group, want string) {
	g.Helper()
	defer func() {
		if g.Failed() {
			g.Logf("the group is at %s, and the task: %+v, %+v", g.text(group), g.task("positions"), g.task("positions").Positions)
		}
	}()
	g.await(group+" is at "+want, func() bool { return g.text(group) == want })
}

// TestPositionsAreTailed proves that commits of groups are here within a second, those of transactions when their markers come, and that resets and deletions are followed.
func TestPositionsAreTailed(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		g.await("they are tailed", func() bool {
			st := g.task("positions")
			return st.Positions != nil && st.Positions.Mode == mirror.PositionsTailed && !st.Last.IsZero()
		})
		for _, offset := range []record.Offset{10, 20, 5} {
			began := time.Now()
			g.source.commit("billing", "orders", 1, offset)
			g.awaitAt("billing", fmt.Sprintf("orders-1:%d", offset))
			if d := time.Since(began); d > time.Second {
				g.Errorf("it was here after %v", d)
			}
		}
		at := position.Place{Topic: "orders", Partition: 2}
		inTransaction := func(partition int) {
			bu := &record.Builder{Transactional: true}
			bu.SetProducer(7, 0, 0)
			g.source.append(partition, bu, "copy", at, &commit.Offset{At: 33, Epoch: record.NoEpoch, Time: time.Now().UnixMilli(), Expires: commit.NoExpiry})
		}
		inTransaction(1)
		g.await("it is open", func() bool { return g.task("positions").Positions.Open == 1 })
		if got := g.text("copy"); got != "-" {
			g.Error(got)
		}
		g.source.change(func() {
			p := g.source.topics["__consumer_offsets"].partitions[1]
			b, err := record.BuildMarker(time.Now().UnixMilli(), 7, 0, record.Marker{Commit: true})
			if err != nil {
				g.Fatal(err)
			}
			b.SetBaseOffset(record.Offset(p.high))
			p.batches = append(p.batches, b)
			p.high++
		})
		g.awaitAt("copy", "orders-2:33")
		g.source.commit("billing", "other", 0, 8) // which is not mirrored
		g.source.forget("billing", "orders", 1)
		began := time.Now()
		g.awaitAt("billing", "-")
		if d := time.Since(began); d < 10*time.Second || d > 20*time.Second {
			g.Errorf("it was deleted after %v", d)
		}
		if st := g.task("positions"); st.State != mirror.TaskRunning || st.Reason != "" || time.Since(st.Last) > 2*time.Second || st.Positions.Positions != 2 || st.Positions.Groups != 2 {
			g.Errorf("%+v, %+v", st, st.Positions)
		}
	})
}

// TestPositionsAreReadAnew proves that the records are read from their start again where the source has lost some of them, and when the leader is another one of a source that cannot compare epochs.
func TestPositionsAreReadAnew(t *testing.T) {
	for _, fetchMax := range []int16{13, 11} {
		withGroups(t, nil, func(g *groupsHere) {
			anew := func(change func()) { // while nobody can be asked
				g.source.stop(1)
				g.source.stop(2)
				g.source.change(change)
				time.Sleep(time.Second)
				g.source.restart(1)
				g.source.restart(2)
			}
			anew(func() { g.source.fetchMax = fetchMax })
			g.source.commit("billing", "orders", 0, 10)
			g.source.commit("billing", "orders", 0, 20)
			g.awaitAt("billing", "orders-0:20")
			g.source.elect("__consumer_offsets", 0, 2, 1)
			g.source.commit("other", "orders", 0, 7)
			g.awaitAt("other", "orders-0:7")
			g.awaitAt("billing", "orders-0:10")
			g.source.stop(1)
			g.source.commit("billing", "orders", 0, 30)
			g.awaitAt("billing", "orders-0:30")
			g.source.restart(1)
			g.source.stop(1)
			g.source.stop(2)
			g.source.create("__consumer_offsets", 3, 99) // another one, whose log looks like that of before
			g.source.change(func() {
				p := g.source.topics["__consumer_offsets"].partitions[0]
				p.leader, p.epoch, p.epochStart = 2, 1, map[int32]int64{1: 0}
			})
			for _, name := range []string{"first", "billing", "a", "b", "c"} {
				g.source.commit(name, "orders", 0, 40)
			}
			g.source.restart(1)
			g.source.restart(2)
			g.awaitAt("first", "orders-0:40")
			g.awaitAt("billing", "orders-0:40")
		})
	}
}

// TestPositionsArePolled proves that positions are polled where the records may not be read, and that this is shown; that a group which is hidden from the link is not taken for one that was deleted; and that
// they are tailed once the right is there.
func TestPositionsArePolled(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		at := position.Place{Topic: "orders", Partition: 3}
		g.source.change(func() {
			g.source.groups.deniesRecords = true
			g.source.groups.positions = map[string]map[position.Place]int64{"billing": {at: 10}, "secret": {at: 11}, "gone": {at: 12}, "unseen": {at: 13}}
		})
		g.await("they are polled", func() bool {
			st := g.task("positions")
			return st.Positions != nil && st.Positions.Mode == mirror.PositionsPolled && strings.Contains(st.Positions.Why, "may not read __consumer_offsets")
		})
		g.awaitAt("billing", "orders-3:10")
		g.awaitAt("secret", "orders-3:11")
		g.awaitAt("gone", "orders-3:12")
		g.awaitAt("unseen", "orders-3:13")
		began := time.Now()
		g.source.change(func() { g.source.groups.positions["billing"][at] = 4 })
		g.awaitAt("billing", "orders-3:4")
		if d := time.Since(began); d > 6*time.Second {
			g.Errorf("it was here after %v", d)
		}
		g.source.change(func() {
			g.source.groups.hidden = map[string]bool{"secret": true}
			delete(g.source.groups.positions, "gone")
		})
		g.awaitAt("gone", "-")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := g.text("secret"); got != "orders-3:11" {
			g.Errorf("the group that is hidden is at %s", got)
		}
		if st := g.task("positions"); st.State != mirror.TaskWaiting || !strings.Contains(st.Reason, "may not see the positions of 1 group of the source") {
			g.Errorf("%+v", st)
		}
		rack := "r"
		g.source.change(func() { delete(g.source.groups.positions, "unseen") })
		g.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Settings: map[string]*string{"client.rack": &rack}}})
		g.awaitAt("unseen", "-") // which the next machine has never seen
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := g.text("secret"); got != "orders-3:11" {
			g.Errorf("the group that is hidden is at %s after all was asked for anew", got)
		}
		g.source.change(func() { g.source.groups.deniesRecords = false })
		g.source.commit("billing", "orders", 3, 50)
		g.awaitAt("billing", "orders-3:50")
		g.await("they are tailed", func() bool {
			st := g.task("positions")
			return st.Positions.Mode == mirror.PositionsTailed && st.State == mirror.TaskRunning
		})
		if got := g.text("secret"); got != "orders-3:11" {
			g.Errorf("the group without records is at %s", got)
		}
		g.source.change(func() { g.source.groups.deniesRecords = true })
		g.await("they are polled again", func() bool { return g.task("positions").Positions.Mode == mirror.PositionsPolled })
	})
}

// TestPositionsWithoutRecords proves that a source that has no groups yet is tailed soon after it has the first one.
func TestPositionsWithoutRecords(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		g.source.change(func() { delete(g.source.topics, "__consumer_offsets") })
		g.await("they are polled", func() bool {
			p := g.task("positions").Positions
			return p != nil && p.Mode == mirror.PositionsPolled && strings.Contains(p.Why, "shows no __consumer_offsets")
		})
		g.source.create("__consumer_offsets", 3, 2)
		began := time.Now()
		g.source.commit("billing", "orders", 0, 3)
		g.awaitAt("billing", "orders-0:3")
		if d := time.Since(began); d > 7*time.Second {
			g.Errorf("it was here after %v", d)
		}
	})
}

// TestPositionsOfNewerSources proves that positions are polled where the source's records are of a later version than this one knows.
func TestPositionsOfNewerSources(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		g.source.change(func() {
			g.source.groups.positions = map[string]map[position.Place]int64{"billing": {{Topic: "orders"}: 10}}
			p := g.source.topics["__consumer_offsets"].partitions[2]
			bu := record.Builder{}
			bu.Append(0, commit.AppendKey(nil, "billing", "orders", 0), []byte{0, 99})
			b, err := bu.Build()
			if err != nil {
				g.Fatal(err)
			}
			p.batches, p.high = append(p.batches, b), 1
		})
		g.awaitAt("billing", "orders-0:10")
		g.await("it is told", func() bool {
			p := g.task("positions").Positions
			return p.Mode == mirror.PositionsPolled && strings.Contains(p.Why, "this version of Leat does not know")
		})
	})
}

// TestPositionsAreLeftAlone proves that a group with members here, and one that has committed here later, is left alone, and why; and that the source is followed again when its commits are later.
func TestPositionsAreLeftAlone(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		at := position.Place{Topic: "orders"}
		g.set(func(g *groupsHere) { g.active["billing"] = true })
		g.source.commit("billing", "orders", 0, 10)
		held := func(why string) func() bool {
			return func() bool {
				p := g.task("positions").Positions
				return p != nil && p.Held[why] == 1 && len(p.Held) == 1
			}
		}
		g.await("it is active", held("the group has members here"))
		time.Sleep(time.Second)
		g.set(func(g *groupsHere) {
			g.setLocked("billing", at, 5, false)
			delete(g.active, "billing")
		})
		g.await("it was committed here", held("it was committed here later than at the source"))
		if got := g.text("billing"); got != "orders-0:5" {
			g.Error(got)
		}
		time.Sleep(time.Second)
		g.source.commit("billing", "orders", 0, 12)
		g.awaitAt("billing", "orders-0:12")
		g.await("nothing is held", func() bool { return len(g.task("positions").Positions.Held) == 0 })
		g.set(func(g *groupsHere) { delete(g.positions, "billing") }) // a person has deleted the group here
		g.awaitAt("billing", "orders-0:12")
	})
}

// TestAheadIsKept proves that a source's clock that is ahead is noted durably before anything is decided by it, without new connections, and that the next machine knows it: the commits of before do not show it.
func TestAheadIsKept(t *testing.T) {
	var isController atomic.Bool
	isController.Store(true)
	withGroups(t, func(c *mirror.Config) { c.IsController = isController.Load }, func(g *groupsHere) {
		ahead := func() string {
			text, _ := g.image.Load().Links().Find(linkID).Setting(mirror.AheadSetting)
			return text
		}
		g.source.commit("first", "orders", 0, 1)
		g.awaitAt("first", "orders-0:1")
		if got := ahead(); got != "" {
			g.Errorf("the source's clock is right, and noted is %q", got)
		}
		g.source.mu.Lock()
		dialled := len(g.source.dialled)
		g.source.mu.Unlock()
		late := func(offset record.Offset) {
			o := &commit.Offset{At: offset, Epoch: record.NoEpoch, Time: time.Now().Add(29_500 * time.Millisecond).UnixMilli(), Expires: commit.NoExpiry}
			g.source.append(0, &record.Builder{}, "billing", position.Place{Topic: "orders"}, o)
		}
		late(10)
		g.awaitAt("billing", "orders-0:10")
		g.source.mu.Lock()
		if got := ahead(); got != "30000" || len(g.source.dialled) != dialled {
			g.Errorf("noted is %q, and %d connections were made", got, len(g.source.dialled)-dialled)
		}
		g.source.mu.Unlock()
		isController.Store(false)
		time.Sleep(time.Minute)
		late(20)
		time.Sleep(5 * time.Second)
		g.set(func(g *groupsHere) { g.setLocked("billing", position.Place{Topic: "orders"}, 15, false) }) // later than that in truth
		time.Sleep(time.Minute)                                                                           // so that no record is of the future
		isController.Store(true)
		g.await("it is left alone", func() bool {
			p := g.task("positions").Positions
			return p != nil && p.Held["it was committed here later than at the source"] == 1
		})
		if got := g.text("billing"); got != "orders-0:15" {
			g.Error(got)
		}
		late(30) // which is later, too, for a clock that is 30 s ahead
		g.awaitAt("billing", "orders-0:30")
	})
}

// TestManyPositions proves that the positions of many groups are brought here in messages of bounded size, that none of them is written again when all is read anew, and that a coordinator that is away is waited
// for, while the others go on.
func TestManyPositions(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		const groups = 3000
		name := func(i int) string { return strings.Repeat("g", 1+i%2) + fmt.Sprintf("%04d", i) }
		g.set(func(g *groupsHere) { g.away[2] = errors.New("it is away") })
		for i := range groups {
			g.source.commit(name(i), "orders", int32(i%6), record.Offset(i+1))
		}
		for k := range 6 { // more than one page
			g.source.commit("wide", "orders", int32(k), 77)
		}
		for i := range 150 { // more than a message in bytes
			o := &commit.Offset{At: 1, Epoch: record.NoEpoch, Metadata: strings.Repeat("m", 4000), Time: time.Now().UnixMilli(), Expires: commit.NoExpiry}
			g.source.append(1, &record.Builder{}, fmt.Sprintf("large%03d", i), position.Place{Topic: "orders"}, o)
		}
		const all = groups + 1 + 150
		count := func() (n int) {
			g.set(func(g *groupsHere) { n = len(g.positions) })
			return n
		}
		g.await("half of them are here", func() bool { return count() == all-groups/2 })
		g.await("it is told", func() bool { return strings.Contains(g.task("positions").Reason, "waited for a coordinator here") })
		g.set(func(g *groupsHere) { delete(g.away, 2) })
		g.await("all are here", func() bool { return count() == all })
		g.awaitAt("wide", "orders-0:77 orders-1:77 orders-2:77 orders-3:77 orders-4:77 orders-5:77")
		if n := len(g.takeChanges()); n != all+5 {
			g.Errorf("%d changes were made", n)
		}
		rack := "r"
		began := time.Now()
		g.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Settings: map[string]*string{"client.rack": &rack}}})
		g.await("all is read again", func() bool {
			st := g.task("positions")
			return st.Positions != nil && st.Positions.Groups == all && st.Last.After(began)
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if list := g.takeChanges(); len(list) != 0 {
			g.Errorf("%d changes were made again, of which the first is %+v", len(list), list[0])
		}
	})
}

// TestPositionsHaveBoundedMemory proves that positions which take too much memory are not followed, and that this is said, with what to do.
func TestPositionsHaveBoundedMemory(t *testing.T) {
	withGroups(t, func(c *mirror.Config) { c.PositionBytes = 1 << 20 }, func(g *groupsHere) {
		for i := range 2000 {
			g.source.commit(strings.Repeat("g", 500)+fmt.Sprint(i), "orders", 0, 1)
		}
		g.await("it is said", func() bool {
			st := g.task("positions")
			return st.State == mirror.TaskWaiting && strings.Contains(st.Reason, "have it follow fewer groups")
		})
		g.takeFetchesOf("__consumer_offsets")
		time.Sleep(5 * time.Minute)
		if n := g.takeFetchesOf("__consumer_offsets"); n > 40 {
			g.Errorf("the records were read by %d fetches though they have no room", n)
		}
	})
}

// takeFetchesOf counts the fetches for a topic since the last call.
func (g *groupsHere) takeFetchesOf(topic string) (n int) {
	for _, f := range g.source.takeFetches() {
		if len(f.names) > 0 && strings.HasPrefix(f.names[0], topic) {
			n++
		}
	}
	return n
}

// TestPositionsStay proves that positions which would expire here are confirmed while the source has them, and only these.
func TestPositionsStay(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		g.source.commit("billing", "orders", 0, 10)
		g.awaitAt("billing", "orders-0:10")
		g.takeChanges()
		g.set(func(g *groupsHere) {
			for _, name := range []string{"billing", "lost"} {
				g.setLocked(name, position.Place{Topic: "orders"}, 10, true)
				p := g.positions[name][position.Place{Topic: "orders"}]
				p.IsAging = true
				g.positions[name][position.Place{Topic: "orders"}] = p
			}
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if list := g.takeChanges(); len(list) != 1 || list[0].Kind != position.Confirms || list[0].Group != "billing" || list[0].Partition != 0 {
			g.Errorf("%+v", list)
		}
		if got := g.text("lost"); got != "orders-0:10" {
			g.Errorf("what the source has lost is at %s", got)
		}
	})
}

// TestPositionsAreChosen proves that only the groups are followed which the link is for, and none with positions=off, which is shown.
func TestPositionsAreChosen(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		for _, name := range []string{"a", "b-1", "b-2", "c"} {
			g.source.commit(name, "orders", 0, 1)
		}
		for name, want := range map[string]string{"a": "orders-0:1", "b-1": "orders-0:1"} {
			g.awaitAt(name, want)
		}
		time.Sleep(time.Minute)
		if got := g.text("b-2") + g.text("c"); got != "--" {
			g.Error(got)
		}
		off := "off"
		g.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Settings: map[string]*string{"positions": &off}}})
		g.await("it is off", func() bool {
			p := g.task("positions").Positions
			return p != nil && p.Mode == mirror.PositionsOff
		})
		g.source.commit("a", "orders", 0, 2)
		time.Sleep(2 * time.Minute)
		if got := g.text("a"); got != "orders-0:1" {
			g.Error(got)
		}
	}, meta.LinkSetting{Key: "groups", Value: "a,b-*"}, meta.LinkSetting{Key: "groups.exclude", Value: "b-2"})
	for _, s := range []meta.LinkSetting{{Key: "positions", Value: "maybe"}, {Key: "groups", Value: "a*b"}, {Key: "groups.exclude", Value: "re:("}, {Key: mirror.AheadSetting, Value: "-1"}} {
		if _, err := mirror.ParseSettings([]meta.LinkSetting{{Key: "bootstrap.servers", Value: "n:1"}, s}, nil); err == nil || !strings.Contains(err.Error(), s.Key) {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// TestPositionsAreChecked proves that a check says how positions would be followed, and what to do if they could not.
func TestPositionsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(c *fakeCluster)
		settings []meta.LinkSetting
		want     string
	}{
		"tailed":    {func(*fakeCluster) {}, nil, "their positions are here within a second"},
		"no right":  {func(c *fakeCluster) { c.groups.deniesRecords = true }, nil, "polled every 5 s, since the login lacks READ of __consumer_offsets: 0 groups may be seen"},
		"no groups": {func(c *fakeCluster) { delete(c.topics, "__consumer_offsets") }, nil, "as long as the source shows no __consumer_offsets"},
		"neither":   {func(c *fakeCluster) { c.groups.deniesRecords, c.groups.deniesLists = true, true }, nil, "cannot be followed: Listing the groups of the source: GROUP_AUTHORIZATION_FAILED"},
		"off":       {func(*fakeCluster) {}, []meta.LinkSetting{{Key: "positions", Value: "off"}}, "do not follow the source, as positions says"},
	} {
		withGroups(t, nil, func(g *groupsHere) {
			g.source.change(func() { c.change(g.source) })
			l := &meta.Link{Name: "north", Settings: append([]meta.LinkSetting{{Key: "bootstrap.servers", Value: "b1:9092"}, {Key: "topics", Value: "orders"}}, c.settings...)}
			found := g.service.Check(g.Context(), l, nil)
			text := strings.Join(found.Steps, "\n")
			for _, w := range found.Warnings {
				text += "\n" + w.Text
			}
			if len(found.Problems) > 0 || !strings.Contains(text, c.want) {
				g.Errorf("%s: no %q in\n%s\n%+v", name, c.want, text, found.Problems)
			}
		})
	}
}

// TestPositionsOfNewMirrors proves that positions that were there before their topic was mirrored are here as soon as it is, and those of new partitions when these are.
func TestPositionsOfNewMirrors(t *testing.T) {
	withGroups(t, nil, func(g *groupsHere) {
		g.source.commit("billing", "late", 0, 10)
		g.source.commit("billing", "late", 2, 12)
		g.source.commit("billing", "orders", 0, 3)
		g.awaitAt("billing", "orders-0:3")
		g.source.create("late", 1, 7)
		began := time.Now()
		g.awaitAt("billing", "late-0:10 orders-0:3")
		g.source.grow("late", 3)
		g.awaitAt("billing", "late-0:10 late-2:12 orders-0:3")
		if d := time.Since(began); d > 12*time.Second {
			g.Errorf("they were here after %v", d)
		}
	})
}
