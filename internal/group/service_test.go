package group

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/record"
)

// memLog is a coord.Log in memory. Its high watermark follows its end at a Commit, unless
// it is held back.
type memLog struct {
	mu      sync.Mutex
	batches []record.Batch
	end, hw record.Offset
	held    bool
	discard bool // keep nothing, for benchmarks
	waits   []func(error)
}

func (l *memLog) AppendMarker(b record.Batch, e record.Epoch, _ int16) (record.Offset, error) {
	return l.AppendBatch(b, e)
}

func (l *memLog) AppendBatch(b record.Batch, e record.Epoch) (record.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.SetBaseOffset(l.end)
	b.SetLeaderEpoch(e)
	l.end = b.NextOffset()
	if !l.discard {
		l.batches = append(l.batches, bytes.Clone(b))
	}
	return l.end, nil
}

func (l *memLog) Commit() {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if !held {
		l.commit()
	}
}

func (l *memLog) Await(_ record.Epoch, off record.Offset, _ time.Duration, fn func(error)) {
	l.mu.Lock()
	if l.hw >= off {
		l.mu.Unlock()
		fn(nil)
		return
	}
	defer l.mu.Unlock()
	l.waits = append(l.waits, fn)
}

// commit moves the high watermark, and ends the waits for it in order.
func (l *memLog) commit() {
	l.mu.Lock()
	l.held, l.hw = false, l.end
	due := l.waits
	l.waits = nil
	l.mu.Unlock()
	for _, fn := range due {
		fn(nil)
	}
}

func (l *memLog) ReadBatches(off, _ record.Offset, _ int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		if b.NextOffset() > off {
			return b, nil
		}
	}
	return nil, nil
}

func (l *memLog) IsCommitted(_ record.Epoch, off record.Offset) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return off <= l.hw
}

func (l *memLog) End() (record.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end, nil
}

func (*memLog) Start() record.Offset { return 0 }

const testPartitions = 3

// commitOne commits as a connection does that has brought one request.
func commitOne(sv *Service, req *kmsg.OffsetCommitRequest, reply func(*kmsg.OffsetCommitResponse)) {
	sv.Commit([]OffsetCommit{{Req: req, Reply: reply}}).Commit()
}

// newService makes a service that leads all partitions, with a log for each.
func newService(tb testing.TB) (*Service, []*memLog) {
	tb.Helper()
	sv := New(Config{
		Logger:     slog.New(slog.DiscardHandler),
		Settings:   func() Settings { s := DefaultSettings(); s.InitialDelay = time.Second; return s },
		Partitions: func() int32 { return testPartitions },
	})
	tb.Cleanup(sv.Close)
	logs := make([]*memLog, testPartitions)
	for i := range logs {
		logs[i] = &memLog{}
		sv.StartLeading(int32(i), 1, logs[i])
	}
	return sv, logs
}

// client is a member driven by hand.
type client struct {
	t    *testing.T
	sv   *Service
	name string
	id   string
	gen  int32
}

func (c *client) join(reply func(*kmsg.JoinGroupResponse)) {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = 9, "g", c.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 60_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: metadata("t")}}
	c.sv.Join(Client{ID: c.name, Host: "/127.0.0.1"}, req, func(r *kmsg.JoinGroupResponse) {
		c.id, c.gen = r.MemberID, r.Generation
		reply(r)
	})
}

func (c *client) sync(assign map[string]string) (got string) {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 4, "g", c.id, c.gen
	for id, what := range assign {
		req.GroupAssignment = append(req.GroupAssignment,
			kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte(what)})
	}
	got = "no answer"
	c.sv.Sync(req, func(r *kmsg.SyncGroupResponse) { got = name(r.ErrorCode) + " " + string(r.MemberAssignment) })
	return got
}

func (c *client) beat() (code int16) {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = "g", c.id, c.gen
	code = -2
	c.sv.Heartbeat(req, func(r *kmsg.HeartbeatResponse) { code = r.ErrorCode })
	return code
}

func commitRequest(group, member string, gen int32, offset int64) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 9, group, member, gen
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = offset
	req.Topics = []kmsg.OffsetCommitRequestTopic{{
		Topic: "t", TopicID: [16]byte{7}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p},
	}}
	return req
}

func (sv *Service) fetchOne(group string) (got string) {
	got = "no answer"
	sv.Fetch([]kmsg.OffsetFetchRequestGroup{{Group: group}}, false, func(r []kmsg.OffsetFetchResponseGroup) {
		got = name(r[0].ErrorCode)
		for _, t := range r[0].Topics {
			for _, p := range t.Partitions {
				got += fmt.Sprint(" ", t.Topic, "/", p.Partition, "=", p.Offset)
			}
		}
	})
	return got
}

// TestTakeOver proves that two members share a group, that one takes over when the
// other one dies, and that it finds the other one's committed offset.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, _ := newService(t)
		a, b := &client{t: t, sv: sv, name: "a"}, &client{t: t, sv: sv, name: "b"}
		joined := 0
		both := func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode == 0 {
				joined++
			}
		}
		for _, c := range []*client{a, b} {
			c.join(both) // gets its id
			c.join(both)
		}
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if joined != 2 || a.gen != 1 || b.gen != 1 {
			t.Fatalf("%d joined, in generations %d and %d", joined, a.gen, b.gen)
		}
		if got := a.sync(map[string]string{a.id: "A", b.id: "B"}); got != "ok A" {
			t.Fatalf("a syncs: %s", got)
		}
		if got := b.sync(nil); got != "ok B" {
			t.Fatalf("b syncs: %s", got)
		}
		commitOne(a.sv, commitRequest("g", a.id, 1, 42), func(r *kmsg.OffsetCommitResponse) {
			if c := r.Topics[0].Partitions[0].ErrorCode; c != 0 {
				t.Errorf("commit: %s", name(c))
			}
		})
		for range 5 { // a dies
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if c := b.beat(); c == rebalanceInProgress {
				b.join(both)
				break
			}
		}
		if b.gen != 2 {
			t.Fatalf("b is in generation %d", b.gen)
		}
		if got := b.sync(map[string]string{b.id: "all"}); got != "ok all" {
			t.Fatalf("b syncs: %s", got)
		}
		if got := sv.fetchOne("g"); got != "ok t/0=42" {
			t.Errorf("offsets: %s", got)
		}
		sv.Close()
	})
}

// TestFetchWaitsForTheCommitItSaw proves that no answer has an offset that a failover
// could take back, and that other groups do not wait for it.
func TestFetchWaitsForTheCommitItSaw(t *testing.T) {
	sv, logs := newService(t)
	log := logs[coord.PartitionOf("g", testPartitions)]
	other := "h"
	for coord.PartitionOf(other, testPartitions) != coord.PartitionOf("g", testPartitions) {
		other += "h"
	}
	done := 0
	commitOne(sv, commitRequest(other, "", -1, 1), func(*kmsg.OffsetCommitResponse) { done++ })
	log.mu.Lock()
	log.held = true
	log.mu.Unlock()
	commitOne(sv, commitRequest("g", "", -1, 5), func(*kmsg.OffsetCommitResponse) { done++ })
	got := "no answer"
	sv.Fetch([]kmsg.OffsetFetchRequestGroup{{Group: "g"}, {Group: other}}, false, func(r []kmsg.OffsetFetchResponseGroup) {
		got = fmt.Sprint(r[0].Topics[0].Partitions[0].Offset, " ", r[1].Topics[0].Partitions[0].Offset)
	})
	if got != "no answer" || done != 1 {
		t.Errorf("fetched %s, %d commits answered before the commit was durable", got, done)
	}
	if got := sv.fetchOne(other); got != "ok t/0=1" {
		t.Errorf("the other group: %s", got)
	}
	log.commit()
	if got != "5 1" || done != 2 {
		t.Errorf("fetched %s, %d commits answered", got, done)
	}
}

// TestHeartbeatDoesNotWait proves that a member's heartbeat is answered while the log is
// slow. The answer has nothing that could be lost, and a member that waits for it too
// long leaves the group.
func TestHeartbeatDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, logs := newService(t)
		c := &client{t: t, sv: sv, name: "a"}
		c.join(func(*kmsg.JoinGroupResponse) {}) // gets its id
		c.join(func(*kmsg.JoinGroupResponse) {})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := c.sync(map[string]string{c.id: "A"}); got != "ok A" {
			t.Fatalf("sync: %s", got)
		}
		log := logs[coord.PartitionOf("g", testPartitions)]
		log.mu.Lock()
		log.held = true
		log.mu.Unlock()
		committed := false
		commitOne(sv, commitRequest("g", c.id, c.gen, 5), func(*kmsg.OffsetCommitResponse) { committed = true })
		if got := c.beat(); got != 0 || committed {
			t.Errorf("heartbeat: %d; the commit is answered: %v", got, committed)
		}
		log.commit()
		if !committed {
			t.Error("the commit is not answered")
		}
		sv.Close()
	})
}

// TestNotCoordinator proves the answers of a node for a partition that it does not lead.
func TestNotCoordinator(t *testing.T) {
	sv, _ := newService(t)
	for i := range testPartitions {
		sv.StopLeading(int32(i))
	}
	want := name(notCoordinator)
	c := &client{t: t, sv: sv, name: "a"}
	c.join(func(r *kmsg.JoinGroupResponse) {
		if name(r.ErrorCode) != want {
			t.Errorf("join: %s", name(r.ErrorCode))
		}
	})
	if got := c.sync(nil); got != want+" " {
		t.Errorf("sync: %s", got)
	}
	if got := name(c.beat()); got != want {
		t.Errorf("heartbeat: %s", got)
	}
	if got := sv.fetchOne("g"); got != want {
		t.Errorf("fetch: %s", got)
	}
	commitOne(sv, commitRequest("g", "", -1, 1), func(r *kmsg.OffsetCommitResponse) {
		if got := name(r.Topics[0].Partitions[0].ErrorCode); got != want {
			t.Errorf("commit: %s", got)
		}
	})
	sv.Describe([]string{"g"}, 6, func(r []kmsg.DescribeGroupsResponseGroup) {
		if name(r[0].ErrorCode) != want {
			t.Errorf("describe: %s", name(r[0].ErrorCode))
		}
	})
	sv.List(kmsg.NewPtrListGroupsRequest(), func(r *kmsg.ListGroupsResponse) {
		if r.ErrorCode != 0 || len(r.Groups) != 0 {
			t.Errorf("list: %s, %d groups", name(r.ErrorCode), len(r.Groups))
		}
	})
	sv.Delete([]string{"g"}, func(r []kmsg.DeleteGroupsResponseGroup) {
		if name(r[0].ErrorCode) != want {
			t.Errorf("delete: %s", name(r[0].ErrorCode))
		}
	})
}

// TestTopicDeleted proves that the offsets of a deleted topic are deleted from all groups,
// except those of a new topic with the same name, and that no failover brings them back.
func TestTopicDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, logs := newService(t)
		var groups []string
		for i := range 20 {
			groups = append(groups, fmt.Sprint("group-", i))
			commitOne(sv, commitRequest(groups[i], "", -1, int64(i)), func(*kmsg.OffsetCommitResponse) {})
		}
		again := commitRequest("later", "", -1, 99)
		again.Topics[0].TopicID = [16]byte{8}
		commitOne(sv, again, func(*kmsg.OffsetCommitResponse) {})
		sv.TopicDeleted("t", [16]byte{7})
		sv.TopicDeleted("u", [16]byte{9})
		synctest.Wait()
		for _, reload := range []bool{false, true} {
			if reload {
				for i, l := range logs {
					sv.StopLeading(int32(i))
					sv.StartLeading(int32(i), 2, l)
				}
				synctest.Wait()
			}
			for _, g := range groups {
				if got := sv.fetchOne(g); got != "ok" {
					t.Errorf("%s: %s", g, got)
				}
			}
			if got := sv.fetchOne("later"); got != "ok t/0=99" {
				t.Errorf("later: %s", got)
			}
		}
		sv.Close()
	})
}

// TestTopicsOfOneNameDeletedAtOnce proves that the offsets of two topics of one name are
// deleted although the second one was made and deleted before those of the first one were.
func TestTopicsOfOneNameDeletedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, _ := newService(t)
		const names = 100
		commit := func(group string, topic int, id byte) {
			req := commitRequest(group, "", -1, 1)
			req.Topics[0].Topic, req.Topics[0].TopicID = fmt.Sprint("t", topic), [16]byte{id}
			commitOne(sv, req, func(*kmsg.OffsetCommitResponse) {})
		}
		for i := range names {
			commit(fmt.Sprint("first-", i), i, 7)
			commit(fmt.Sprint("second-", i), i, 8)
			commit(fmt.Sprint("third-", i), i, 9)
		}
		for i := range names {
			for id := byte(7); id < 9; id++ {
				sv.TopicDeleted(fmt.Sprint("t", i), [16]byte{id})
			}
		}
		synctest.Wait()
		for i := range names {
			for _, g := range []string{"first-", "second-"} {
				if got := sv.fetchOne(fmt.Sprint(g, i)); got != "ok" {
					t.Fatalf("a group still has the offset of a deleted topic: %s", got)
				}
			}
			if got := sv.fetchOne(fmt.Sprint("third-", i)); got != fmt.Sprintf("ok t%d/0=1", i) {
				t.Fatalf("a group's offset of a topic that exists: %s", got)
			}
		}
		sv.Close()
	})
}

// TestList proves that groups of all partitions are listed, and the filters.
func TestList(t *testing.T) {
	sv, _ := newService(t)
	for i := range 10 {
		commitOne(sv, commitRequest(fmt.Sprint("g", i), "", -1, 1), func(*kmsg.OffsetCommitResponse) {})
	}
	f := func(states, types []string, want int) {
		t.Helper()
		req := kmsg.NewPtrListGroupsRequest()
		req.StatesFilter, req.TypesFilter = states, types
		sv.List(req, func(r *kmsg.ListGroupsResponse) {
			if len(r.Groups) != want || r.ErrorCode != 0 {
				t.Errorf("states %q, types %q: %d groups, %s", states, types, len(r.Groups), name(r.ErrorCode))
			}
		})
	}
	f(nil, nil, 10)
	f([]string{"empty"}, []string{"Classic"}, 10)
	f([]string{"Stable", " Empty "}, nil, 10)
	f([]string{"Stable"}, nil, 0)
	f(nil, []string{"consumer"}, 0)
}

// TestRefusals proves which requests are refused before any machine is asked.
func TestRefusals(t *testing.T) {
	sv, _ := newService(t)
	join := func(change func(*kmsg.JoinGroupRequest), want int16) {
		t.Helper()
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.SessionTimeoutMillis, req.ProtocolType = 9, "g", 10_000, "consumer"
		change(req)
		sv.Join(Client{}, req, func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode != want {
				t.Errorf("join: %s, want %s", name(r.ErrorCode), name(want))
			}
		})
	}
	join(func(r *kmsg.JoinGroupRequest) { r.Group = "" }, invalidGroupID)
	join(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 10 }, invalidSessionTimeout)
	join(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 << 30 }, invalidSessionTimeout)
	join(func(*kmsg.JoinGroupRequest) {}, inconsistentGroupProtocol)
	sv.List(kmsg.NewPtrListGroupsRequest(), func(r *kmsg.ListGroupsResponse) {
		if len(r.Groups) != 0 {
			t.Error("a refused member made a group")
		}
	})
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group = 5, "g"
	sv.Sync(sync, func(r *kmsg.SyncGroupResponse) {
		if r.ErrorCode != inconsistentGroupProtocol {
			t.Errorf("sync without a protocol: %s", name(r.ErrorCode))
		}
	})
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Version, leave.Group, leave.MemberID = 2, "g", "x"
	sv.Leave(leave, func(r *kmsg.LeaveGroupResponse) {
		if r.ErrorCode != unknownMemberID {
			t.Errorf("leave: %s", name(r.ErrorCode))
		}
	})
}

// TestSettings proves that settings are computed once for a while, and that a change of
// them is seen after that.
func TestSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, set := 0, Settings{MaxSize: 1}
		m := settingsCache{compute: func() Settings { asked++; return set }}
		for range 100 {
			m.load()
		}
		set.MaxSize = 2
		if got := m.load(); asked != 1 || got.MaxSize != 1 {
			t.Errorf("asked %d times, max size %d", asked, got.MaxSize)
		}
		time.Sleep(keepSettings)
		if got := m.load(); asked != 2 || got.MaxSize != 2 {
			t.Errorf("asked %d times, max size %d", asked, got.MaxSize)
		}
	})
}

// TestMemberIDs proves that the random part of a member id is a UUID of version 4.
func TestMemberIDs(t *testing.T) {
	a, b := newUUID(), newUUID()
	if a == b || len(a) != 36 || a[14] != '4' || !slices.Contains([]byte("89ab"), a[19]) {
		t.Errorf("%s %s", a, b)
	}
}

// TestHundredMembers proves that a hundred members form a group with one rebalance, and
// that one more follows when a member leaves.
func TestHundredMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, _ := newService(t)
		members := make([]*client, 100)
		joined := 0
		reply := func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode == 0 {
				joined++
			}
		}
		for i := range members {
			members[i] = &client{t: t, sv: sv, name: fmt.Sprint("m", i)}
			members[i].join(reply)
			members[i].join(reply)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if joined != 100 {
			t.Fatalf("%d joined", joined)
		}
		assign := map[string]string{}
		for _, m := range members {
			assign[m.id] = m.name
		}
		for _, m := range members {
			if got := m.sync(assign); got != "ok "+m.name {
				t.Fatalf("%s: %s", m.name, got)
			}
		}
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group, req.MemberID = 2, "g", members[7].id
		sv.Leave(req, func(*kmsg.LeaveGroupResponse) {})
		joined = 0
		for i, m := range members {
			if i != 7 {
				m.join(reply)
			}
		}
		if joined != 99 || members[0].gen != 2 {
			t.Errorf("%d joined, generation %d", joined, members[0].gen)
		}
		sv.Close()
	})
}

// TestDecodedTopicsAreKept proves that an answer has the names and ids of the request's
// topics, and no offsets of an earlier topic with the same name.
func TestDecodedTopicsAreKept(t *testing.T) {
	sv, _ := newService(t)
	commitOne(sv, commitRequest("g", "", -1, 3), func(r *kmsg.OffsetCommitResponse) {
		if r.Topics[0].Topic != "t" || r.Topics[0].TopicID != [16]byte{7} {
			t.Errorf("commit names %q %v", r.Topics[0].Topic, r.Topics[0].TopicID)
		}
	})
	f := func(id [16]byte, want int64) {
		t.Helper()
		req := []kmsg.OffsetFetchRequestGroup{{Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{
			{Topic: "t", TopicID: id, Partitions: []int32{0}},
		}}}
		sv.Fetch(req, false, func(r []kmsg.OffsetFetchResponseGroup) {
			got := r[0].Topics[0]
			if diff := cmp.Diff(id, got.TopicID); diff != "" || got.Partitions[0].Offset != want {
				t.Errorf("id %v: %+v", id, got)
			}
		})
	}
	f([16]byte{7}, 3)
	f([16]byte{}, 3)
	f([16]byte{8}, -1)
}

// TestCommitsTogether proves that the commits of one read which have the same partition
// share a batch, that each gets its own answer, that the caller gets a pending commit, and
// that no answer comes before that was made.
func TestCommitsTogether(t *testing.T) {
	sv, logs := newService(t)
	for _, l := range logs {
		l.held = true
	}
	const n = 40
	var got [n]string
	answers := 0
	list := make([]OffsetCommit, n)
	for i := range list {
		req := commitRequest(fmt.Sprint("g", i), "", -1, int64(i))
		if i == 7 {
			req.Generation = 3 // of a group that has none
		}
		list[i] = OffsetCommit{Req: req, Reply: func(r *kmsg.OffsetCommitResponse) {
			answers++
			got[i] = fmt.Sprint(r.Topics[0].Topic, " ", name(r.Topics[0].Partitions[0].ErrorCode))
		}}
	}
	if !sv.Commit(list).Exists() {
		t.Error("the caller is not told to have the storage commit")
	}
	if answers != 0 {
		t.Errorf("%d answers before the high watermark moved", answers)
	}
	for i, l := range logs {
		if len(l.batches) != 1 {
			t.Errorf("partition %d has %d batches", i, len(l.batches))
		}
		l.commit()
	}
	for i := range got {
		want, offset := "t ok", fmt.Sprint("ok t/0=", i)
		if i == 7 {
			want, offset = "t GROUP_ID_NOT_FOUND", "ok"
		}
		if got[i] != want {
			t.Errorf("commit %d: %q, want %q", i, got[i], want)
		}
		if o := sv.fetchOne(fmt.Sprint("g", i)); o != offset {
			t.Errorf("group %d: %s, want %s", i, o, offset)
		}
	}
	if sv.Commit(nil).Exists() {
		t.Error("nothing is owed a commit")
	}
}

// TestCommitsTooLargeTogether proves that commits which would make too large a batch
// together are not refused, but make several.
func TestCommitsTooLargeTogether(t *testing.T) {
	sv, logs := newService(t)
	list := make([]OffsetCommit, 3)
	metadata := strings.Repeat("m", 4096)
	for i := range list {
		req := commitRequest("g", "", -1, int64(i))
		p := req.Topics[0].Partitions[0]
		p.Metadata = &metadata
		for n := range int32(maxBatchBytes / 4096 / 2) {
			p.Partition = n + 1
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
		}
		list[i] = OffsetCommit{Req: req, Reply: func(r *kmsg.OffsetCommitResponse) {
			for _, p := range r.Topics[0].Partitions {
				if p.ErrorCode != 0 {
					t.Errorf("partition %d: %s", p.Partition, name(p.ErrorCode))
				}
			}
		}}
	}
	sv.Commit(list)
	if n := len(logs[coord.PartitionOf("g", testPartitions)].batches); n != len(list) {
		t.Errorf("%d batches", n)
	}
}

// BenchmarkCommits measures a commit among 64 that one read brought, together and
// one after the other, with a log that does nothing.
func BenchmarkCommits(b *testing.B) {
	const n = 64
	reqs := make([]*kmsg.OffsetCommitRequest, n)
	for i := range reqs {
		reqs[i] = commitRequest(fmt.Sprint("g", i), "", -1, 1)
	}
	reply := func(*kmsg.OffsetCommitResponse) {}
	bench := func(b *testing.B, commit func(sv *Service)) {
		b.Helper()
		sv, logs := newService(b)
		for _, l := range logs {
			l.discard = true
		}
		b.ReportAllocs()
		for b.Loop() {
			commit(sv)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/commit")
	}
	b.Run("together", func(b *testing.B) {
		bench(b, func(sv *Service) {
			list := make([]OffsetCommit, n)
			for i, req := range reqs {
				list[i] = OffsetCommit{Req: req, Reply: reply}
			}
			sv.Commit(list)
		})
	})
	b.Run("single", func(b *testing.B) {
		bench(b, func(sv *Service) {
			for _, req := range reqs {
				commitOne(sv, req, reply)
			}
		})
	})
}

// BenchmarkService measures a commit of one partition and a heartbeat, with a log
// that does nothing.
func BenchmarkService(b *testing.B) {
	prepare := func(b *testing.B) *Service {
		b.Helper()
		sv, logs := newService(b)
		for _, l := range logs {
			l.discard = true
		}
		return sv
	}
	b.Run("commit", func(b *testing.B) {
		sv, req := prepare(b), commitRequest("g", "", -1, 1)
		reply := func(*kmsg.OffsetCommitResponse) {}
		b.ReportAllocs()
		for b.Loop() {
			commitOne(sv, req, reply)
		}
	})
	b.Run("heartbeat", func(b *testing.B) {
		sv, req := prepare(b), kmsg.NewPtrHeartbeatRequest()
		commitOne(sv, commitRequest("g", "", -1, 1), func(*kmsg.OffsetCommitResponse) {})
		req.Group, req.MemberID = "g", "m"
		v := kmsg.NewGroupMetadataValue()
		v.Version, v.Generation, v.Leader, req.Generation = 3, 1, &req.MemberID, 1
		v.Members = []kmsg.GroupMetadataValueMember{{MemberID: "m", SessionTimeoutMillis: 3_600_000}}
		err := sv.rt.Do(coord.PartitionOf("g", testPartitions), func(_ *Machine, s *coord.Step) { classic.Put(s, "g", &v) })
		if err != nil {
			b.Fatal(err)
		}
		reply := func(r *kmsg.HeartbeatResponse) {
			if r.ErrorCode != 0 {
				b.Fatal(name(r.ErrorCode))
			}
		}
		b.ReportAllocs()
		for b.Loop() {
			sv.Heartbeat(req, reply)
		}
	})
}
