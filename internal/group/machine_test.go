package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// recorded is the state that must be the same after a failover: groups that are empty or
// stable, and the offsets of every group.
type recorded struct {
	Group   []byte // as its record says it
	Offsets map[string]offset
}

func (m *Machine) recorded() map[string]recorded {
	out := map[string]recorded{}
	for id, g := range m.groups {
		var r recorded
		for topic, list := range g.offsets.topics {
			for i := range list {
				if r.Offsets == nil {
					r.Offsets = map[string]offset{}
				}
				r.Offsets[fmt.Sprint(topic.text, "/", list[i].partition)] = list[i].toOffset()
			}
		}
		if state := g.classic.State(); state == "Empty" || state == "Stable" {
			v := g.classic.Record()
			v.CurrentStateTimestamp = 0 // a group that could not be recorded at once has another one
			r.Group = v.AppendTo(nil)
		}
		if g.classic.IsEmpty() && g.classic.ProtocolType() == "" && len(r.Offsets) == 0 {
			continue // an empty simple group may be there or not: nobody can tell
		}
		out[id] = r
	}
	return out
}

// held counts the bytes that the machine should be charged for, group by group.
func (m *Machine) held() (n int64, err error) {
	users := map[*topicName]int{}
	for _, g := range m.groups {
		took, err := g.classic.Check()
		if err != nil {
			return 0, err
		}
		n += groupBytes + took
		for topic, list := range g.offsets.topics {
			users[topic]++
			n += topicEntryBytes
			for i := range list {
				n += list[i].size()
			}
		}
		for at, list := range g.pending {
			for i := range list {
				n += pendingSize(g.id, at.topic, len(list[i].offset.Metadata))
				if _, ok := m.open[list[i].producer].places[pendingPlace{g.id, at}]; !ok {
					return 0, fmt.Errorf("producer %d has no transaction with %v", list[i].producer, at)
				}
			}
		}
	}
	n += int64(len(m.open)) * transactionBytes
	for topic, n := range users {
		if topic.groups != n || m.names.byText[topic.text] != topic {
			return 0, fmt.Errorf("%d groups have offsets of %s, not %d", n, topic.text, topic.groups)
		}
	}
	for text := range m.names.byText {
		n += nameSize(len(text))
	}
	if len(users) != len(m.names.byText) {
		return 0, fmt.Errorf("%d topics have offsets, not %d", len(users), len(m.names.byText))
	}
	return n, nil
}

// check fails the test if the machine's tables and counts contradict each other.
func (m *Machine) check(fatalf func(string, ...any)) {
	n, err := m.held()
	if err != nil {
		fatalf("%v", err)
	}
	if n != m.members.Held()+m.memory.Held() {
		fatalf("the groups take %d bytes; the account holds %d", n, m.members.Held()+m.memory.Held())
	}
}

// crowd drives a world with clients that do anything, and counts answers.
type crowd struct {
	*world
	rt    *rapid.T
	ids   []string // member ids that were given out
	asked int
	heard int
}

func (c *crowd) id() string {
	return rapid.SampledFrom(append([]string{"", "nobody"}, c.ids...)).Draw(c.rt, "id")
}

func (c *crowd) instance() *string {
	return rapid.SampledFrom([]*string{nil, nil, new(string("i")), new(string("j"))}).Draw(c.rt, "instance")
}

func (c *crowd) generation() int32 {
	if g := c.m.groups["g"]; g != nil && rapid.IntRange(0, 4).Draw(c.rt, "right") > 0 {
		return g.classic.Record().Generation
	}
	return rapid.Int32Range(-1, 3).Draw(c.rt, "generation")
}

func (c *crowd) joins() {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version = rapid.Int16Range(0, 9).Draw(c.rt, "version")
	req.Group, req.MemberID, req.InstanceID, req.ProtocolType = "g", c.id(), c.instance(), "consumer"
	req.SessionTimeoutMillis = rapid.Int32Range(6000, 20000).Draw(c.rt, "session")
	req.RebalanceTimeoutMillis = rapid.Int32Range(1000, 30000).Draw(c.rt, "rebalance")
	for _, p := range rapid.SampledFrom([]string{"x", "x y", "y x", "y", "y y"}).Draw(c.rt, "protocols") {
		if p != ' ' {
			meta := metadata(rapid.SampledFrom([]string{"t", "t+u"}).Draw(c.rt, "topics"))
			req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: string(p), Metadata: meta})
		}
	}
	c.asked++
	c.step(func(s *coord.Step) {
		c.m.Join(s, Client{ID: "c", Host: "/h"}, req, func(r *kmsg.JoinGroupResponse) {
			c.heard++
			if r.MemberID != "" && !slices.Contains(c.ids, r.MemberID) {
				c.ids = append(c.ids, r.MemberID)
			}
		})
	})
}

func (c *crowd) syncs() {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = "g", c.id(), c.instance(), c.generation()
	for _, id := range c.ids {
		req.GroupAssignment = append(req.GroupAssignment,
			kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte("for " + id)})
	}
	c.asked++
	c.step(func(s *coord.Step) { c.m.Sync(s, req, func(*kmsg.SyncGroupResponse) { c.heard++ }) })
}

// act lets somebody do something.
func (c *crowd) act() {
	c.fail = nil
	if rapid.IntRange(0, 9).Draw(c.rt, "full") == 0 {
		c.fail = replica.ErrDiskFull
	}
	id := c.id()
	switch rapid.IntRange(0, 9).Draw(c.rt, "action") {
	case 0, 1, 2:
		c.joins()
	case 3, 4:
		c.syncs()
	case 5:
		c.beat(args{"id": id, "gen": fmt.Sprint(c.generation())}, nil)
	case 6:
		c.commit(args{"id": id, "gen": fmt.Sprint(c.generation())}, []string{"t/0=1", "u/1=2@3"})
	case 7:
		c.leave(args{"id": id}, nil)
	case 8:
		c.pass(time.Duration(rapid.IntRange(1, 20).Draw(c.rt, "seconds")) * time.Second)
	case 9:
		if rapid.Bool().Draw(c.rt, "offsets") {
			c.dropOffsets(nil, []string{"t/0"})
		} else {
			c.delete(nil, nil)
		}
	}
}

// TestReloadGivesTheSameState proves, for any sequence of right and wrong requests, some
// of whose appends fail, that the machine's tables and counts are right, that every
// request is answered exactly once, and that another machine which reads the log has the
// recorded state.
func TestReloadGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := &crowd{world: newWorld(t), rt: rt}
		c.set.InitialDelay = time.Second
		c.set.MaxSize = 4
		c.room(rapid.SampledFrom([]int64{memory.Max, 5000, 3000, 2000}).Draw(rt, "memory"))
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			c.act()
			c.m.check(rt.Fatalf)
		}
		c.fail = nil
		c.pass(2 * time.Second) // a group that has become empty and could not be recorded is by now
		live := c.m.recorded()
		c.unload(nil, nil)
		if c.asked != c.heard {
			rt.Fatalf("%d requests, %d answers", c.asked, c.heard)
		}
		if n := c.total.Used() - c.taken; n != 0 {
			rt.Fatalf("%d bytes are held after the end", n)
		}
		c.reload(nil, nil)
		c.m.check(rt.Fatalf)
		again := c.m.recorded()
		for id, r := range live {
			if r.Group == nil { // it is in between: only offsets are recorded
				live[id], again[id] = recorded{Offsets: r.Offsets}, recorded{Offsets: again[id].Offsets}
			}
		}
		if diff := cmp.Diff(live, again); diff != "" {
			rt.Fatalf("(-live +reloaded):\n%s", diff)
		}
	})
}

// TestManyOffsets proves that a group with more offsets than one batch takes can be
// deleted, forgotten with its topic, and expire.
func TestManyOffsets(t *testing.T) {
	const n = 3*maxBatchOffsets + 5
	ways := map[string]func(w *world){
		"delete": func(w *world) { w.delete(nil, nil) },
		"expire": func(w *world) { w.pass(2 * w.set.Retention) },
		"topic": func(w *world) {
			for more := true; more; {
				w.step(func(s *coord.Step) { more = w.m.TopicsDeleted(s, goneTopics{"t": {{}}}) })
			}
			w.delete(nil, nil)
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Group = "g"
			req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t"}}
			for i := range int32(n) {
				p := kmsg.NewOffsetCommitRequestTopicPartition()
				p.Partition = i
				req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
			}
			w.step(func(s *coord.Step) { w.m.Commit(s, req) })
			if got := len(w.m.groups["g"].offsets.ofTopic("t")); got != n {
				t.Fatalf("%d offsets", got)
			}
			way(w)
			if len(w.m.groups) > 0 {
				t.Errorf("%d offsets are left", len(w.m.groups["g"].offsets.ofTopic("t")))
			}
			if len(w.log) != 2*n+1 {
				t.Errorf("%d records", len(w.log))
			}
		})
	}
}

// TestCommitTooLarge proves that a small request cannot make records that are too large.
func TestCommitTooLarge(t *testing.T) {
	w := newWorld(t)
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = strings.Repeat("g", 30_000)
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: make([]kmsg.OffsetCommitRequestTopicPartition, 1000)}}
	w.step(func(s *coord.Step) {
		if _, c := w.m.Commit(s, req); c != invalidCommitOffsetSize || len(s.Records()) > 0 {
			t.Errorf("%s, %d records", name(c), len(s.Records()))
		}
	})
}

// TestPendingMembersAreBounded proves that clients which ask for ids and never use
// them do not fill the memory.
func TestPendingMembersAreBounded(t *testing.T) {
	const manyIDs = 10_000
	w := newWorld(t)
	codes := map[int16]int{}
	for range manyIDs + 10 {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.ProtocolType, req.SessionTimeoutMillis = 9, "g", "consumer", 10_000
		req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
		w.step(func(s *coord.Step) {
			w.m.Join(s, Client{ID: "c"}, req, func(r *kmsg.JoinGroupResponse) { codes[r.ErrorCode]++ })
		})
	}
	if codes[memberIDRequired] != manyIDs || codes[groupMaxSizeReached] != 10 {
		t.Errorf("answers: %v", codes)
	}
	w.pass(11 * time.Second)
	if n := w.total.Used(); n != groupBytes+classic.Size("g") {
		t.Errorf("%d bytes are held when the ids are forgotten", n)
	}
}

// TestNoRebalanceTimeoutDoesNotSpin proves that the timer of a group does not fire again
// and again at the same moment if its static members have a rebalance timeout of 0 and
// none of them can lead.
func TestNoRebalanceTimeoutDoesNotSpin(t *testing.T) {
	w := newWorld(t)
	w.set.InitialDelay = 0
	ids := map[string]string{}
	join := func(instance string, rebalance int32) {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.ProtocolType, req.SessionTimeoutMillis = 5, "g", "consumer", 10_000
		req.RebalanceTimeoutMillis, req.InstanceID = rebalance, &instance
		req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
		w.step(func(s *coord.Step) {
			w.m.Join(s, Client{ID: "c"}, req, func(r *kmsg.JoinGroupResponse) { ids[instance] = r.MemberID })
		})
	}
	join("a", 60_000)
	join("b", 60_000)
	fired := 0
	fire := func() {
		for t := w.tm.Due(w.now); t != nil && fired < 100; t = w.tm.Due(w.now) {
			fired++
			w.step(t.Fire)
		}
	}
	fire()
	if len(ids) != 2 {
		t.Fatalf("joined: %v", ids)
	}
	for _, instance := range []string{"b", "a"} {
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version, req.Group, req.MemberID, req.Generation = 3, "g", ids[instance], 1
		w.step(func(s *coord.Step) { w.m.Sync(s, req, func(*kmsg.SyncGroupResponse) {}) })
	}
	join("a", 0) // both are restarted: nothing else changes in the group
	join("b", 0)
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Version, leave.Group = 3, "g"
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: ids["a"]}}
	w.step(func(s *coord.Step) { w.m.Leave(s, leave) })
	fired = 0
	fire()
	if g := w.m.groups["g"].classic; fired >= 100 || g.State() != "PreparingRebalance" || len(g.Record().Members) != 1 {
		t.Fatalf("%d timers fired; the group is %v with %d members", fired, g.State(), len(g.Record().Members))
	}
	w.now = w.now.Add(11 * time.Second)
	fire()
	if g := w.m.groups["g"].classic; !g.IsEmpty() {
		t.Errorf("the group is %v after its last member's session", g.State())
	}
}

// TestRecordsOfNewerVersions proves that a value of an unknown version is refused with
// ErrNewer, while records of unknown kinds are skipped, as in Kafka.
func TestRecordsOfNewerVersions(t *testing.T) {
	offsetKey := commit.AppendKey(nil, "g", "t", 0)
	groupKey := append(binary.BigEndian.AppendUint16(nil, classic.Key), 0, 1, 'g')
	value := func(version uint16) []byte {
		return append(binary.BigEndian.AppendUint16(nil, version), make([]byte, 100)...)
	}
	for name, c := range map[string]struct {
		r     coord.Record
		newer bool
	}{
		"an offset":    {coord.Record{Key: offsetKey, Value: value(5)}, true},
		"a group":      {coord.Record{Key: groupKey, Value: value(5)}, true},
		"another kind": {coord.Record{Key: value(99), Value: value(0)}, false},
	} {
		err := emptyMachine().Apply(coord.NewStep(time.UnixMilli(0)), c.r)
		if err == nil || errors.Is(err, coord.ErrNewer) != c.newer {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRecord proves that no record can harm a machine: neither its key nor its value.
func FuzzRecord(f *testing.F) {
	o := offset{At: 1, Epoch: 2, Time: 3, Expires: noExpiry, Topic: [16]byte{1}, Metadata: "m"}
	f.Add(commit.AppendKey(nil, "g", "t", 0), o.AppendTo(nil))
	f.Add([]byte("\x00\x02\x00\x01g"), (&kmsg.GroupMetadataValue{
		Version: 3, ProtocolType: consumerType, Protocol: new(string("range")), Leader: new(string("a")),
		Members: []kmsg.GroupMetadataValueMember{{MemberID: "a", Subscription: metadata("t")}},
	}).AppendTo(nil))
	f.Add([]byte{0, 3}, []byte{})
	f.Fuzz(func(_ *testing.T, key, value []byte) {
		m := emptyMachine()
		s := coord.NewStep(time.UnixMilli(0))
		if err := m.Apply(s, coord.Record{Key: key, Value: value}); err != nil {
			return
		}
		m.Loaded(s)
		m.Fetch(s, &kmsg.OffsetFetchRequestGroup{Group: "g"}, false)
		m.Describe(s, "g", 6)
		m.expireOffsets(s)
	})
}

// Codes that only the kinds of groups answer.
const (
	memberIDRequired    int16 = 79
	groupMaxSizeReached int16 = 81
)

// TestLargeGroupIsDeletedInBatches proves that a group whose deletions take several
// batches by their bytes is deleted, whatever its name and the number of its offsets.
func TestLargeGroupIsDeletedInBatches(t *testing.T) {
	now := time.Now()
	for name, partitions := range map[string]int32{strings.Repeat("g", 30_000): 60, "g": 25_000} {
		m := newTestMachine(DefaultSettings, newUUID)
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.Generation, req.Version, req.RetentionTimeMillis = name, -1, 8, -1
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = "a topic with a name that fills a batch before ten thousand offsets do: " + strings.Repeat("t", 100)
		for p := range partitions {
			q := kmsg.NewOffsetCommitRequestTopicPartition()
			q.Partition, q.Offset = p, 5
			topic.Partitions = append(topic.Partitions, q)
		}
		req.Topics = append(req.Topics, topic)
		s := coord.NewStep(now)
		if _, code := m.Commit(s, req); code != 0 {
			t.Fatal(code)
		}
		end := s.Run(m, 0, nil)
		s = coord.NewStep(now)
		if code := m.Delete(s, name); code != 0 {
			t.Fatal(code)
		}
		if next := s.Run(m, end, nil); next <= end+record.Offset(partitions) {
			t.Errorf("%d records delete %d offsets and their group", next-end, partitions)
		}
		if len(m.groups) != 0 {
			t.Errorf("%d groups are left", len(m.groups))
		}
	}
}
