package group

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// movingLog is the log of a partition whose leader changes. The records that are not committed when it
// does may be lost.
type movingLog struct {
	mu      sync.Mutex
	rng     *rand.Rand     // guarded by mu
	batches []record.Batch // guarded by mu, as all below
	end, hw record.Offset
	leader  *place
}

// place is a node's view of a movingLog, and its coordinator. A node that was replaced without
// knowing it goes on with a log of its own, of which nothing is committed.
type place struct {
	log   *movingLog
	epoch record.Epoch
	sv    *Service
	died  chan struct{}

	// These are guarded by log.mu.
	replaced bool
	told     bool          // that it was replaced
	end, hw  record.Offset // if it was replaced
	waits    []*placeWait
}

type placeWait struct {
	off record.Offset
	fn  func(error)
}

func (p *place) AppendMarker(b record.Batch, e record.Epoch, _ int16) (record.Offset, error) {
	return p.AppendBatch(b, e)
}

func (p *place) AppendBatch(b record.Batch, e record.Epoch) (record.Offset, error) {
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.told || e != p.epoch {
		return -1, replica.ErrNotLeader
	}
	b.SetLeaderEpoch(e)
	if p.replaced {
		b.SetBaseOffset(p.end)
		p.end = b.NextOffset()
		return p.end, nil
	}
	b.SetBaseOffset(l.end)
	l.batches, l.end = append(l.batches, bytes.Clone(b)), b.NextOffset()
	return l.end, nil
}

// Commit commits what is there after a while.
func (p *place) Commit() {
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.end
	time.AfterFunc(time.Duration(l.rng.IntN(int(50*time.Millisecond))), func() {
		l.mu.Lock()
		if p.replaced {
			l.mu.Unlock()
			return
		}
		l.hw = max(l.hw, to)
		due := p.takeWaitsLocked(func(w *placeWait) bool { return w.off <= l.hw })
		l.mu.Unlock()
		for _, w := range due {
			w.fn(nil)
		}
	})
}

func (p *place) takeWaitsLocked(isDue func(*placeWait) bool) (due []*placeWait) {
	p.waits = slices.DeleteFunc(p.waits, func(w *placeWait) bool {
		if isDue(w) {
			due = append(due, w)
			return true
		}
		return false
	})
	return due
}

func (p *place) highWatermarkLocked() record.Offset {
	if p.replaced {
		return p.hw
	}
	return p.log.hw
}

func (p *place) Await(_ record.Epoch, off record.Offset, limit time.Duration, fn func(error)) {
	l := p.log
	l.mu.Lock()
	done := p.told || off <= p.highWatermarkLocked()
	var err error
	if p.told {
		err = replica.ErrNotLeader
	}
	if done {
		l.mu.Unlock()
		fn(err)
		return
	}
	w := &placeWait{off, fn}
	p.waits = append(p.waits, w)
	l.mu.Unlock()
	if limit > 0 {
		time.AfterFunc(limit, func() { p.endWaits(func(o *placeWait) bool { return o == w }, replica.ErrTimedOut) })
	}
}

func (p *place) endWaits(isDue func(*placeWait) bool, err error) {
	p.log.mu.Lock()
	due := p.takeWaitsLocked(isDue)
	p.log.mu.Unlock()
	for _, w := range due {
		w.fn(err)
	}
}

func (p *place) IsCommitted(e record.Epoch, off record.Offset) bool {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return !p.told && e == p.epoch && off <= p.highWatermarkLocked()
}

func (p *place) ReadBatches(off, _ record.Offset, _ int) ([]byte, error) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	for _, b := range p.log.batches {
		if b.NextOffset() > off {
			return b, nil
		}
	}
	return nil, nil
}

func (p *place) End() (record.Offset, error) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.end, nil
}

func (*place) Start() record.Offset { return 0 }

// hasSession tells what a node may believe that is not replaced.
func (p *place) hasSession() bool {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return !p.replaced
}

// fail makes another node the coordinator. The one before dies, or learns of it later. The next one has
// the committed records, and some of the others.
func (l *movingLog) fail(next *place, dies bool) {
	l.mu.Lock()
	old := l.leader
	if old != nil {
		old.replaced, old.end, old.hw = true, l.end, l.hw
		keep := l.hw + record.Offset(l.rng.Int64N(int64(l.end-l.hw)+1))
		l.batches = slices.DeleteFunc(l.batches, func(b record.Batch) bool { return b.NextOffset() > max(l.hw, keep) })
		l.end = 0
		if n := len(l.batches); n > 0 {
			l.end = l.batches[n-1].NextOffset()
		}
		next.epoch = old.epoch + 1
	}
	l.leader = next
	delay := time.Duration(l.rng.IntN(int(12 * time.Second)))
	l.mu.Unlock()
	if dies {
		close(old.died)
	}
	if old != nil {
		time.AfterFunc(delay, func() {
			l.mu.Lock()
			old.told = true
			l.mu.Unlock()
			old.endWaits(func(*placeWait) bool { return true }, replica.ErrNotLeader)
			old.sv.StopLeading(0)
		})
	}
	next.sv.StartLeading(0, next.epoch, next)
	next.Commit() // which the followers do
}

func newPlace(l *movingLog) *place {
	p := &place{log: l, died: make(chan struct{})}
	p.sv = New(Config{
		Logger:     slog.New(slog.DiscardHandler),
		Settings:   func() Settings { s := DefaultSettings(); s.InitialDelay = 500 * time.Millisecond; return s },
		Partitions: func() int32 { return 1 },
		HasSession: p.hasSession,
	})
	return p
}

// consumer is a member of the group g that retries as clients do.
type consumer struct {
	w        *failovers
	name     string
	instance *string // of a static member

	id        string
	gen       int32
	assigned  string
	stableGen atomic.Int32
}

// failovers is a group whose coordinator moves.
type failovers struct {
	t    *testing.T
	log  *movingLog
	over atomic.Bool

	mu    sync.Mutex
	rng   *rand.Rand             // guarded by mu
	began map[int32]record.Epoch // guarded by mu: the coordinator that began a generation, by its number
	acked map[string]int64       // guarded by mu: offsets by topic
}

func (w *failovers) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// call makes a request of a node and waits for its answer; ok is false if the node has died.
func call[T any](p *place, ask func(reply func(T))) (got T, ok bool) {
	end := make(chan T, 1)
	select {
	case <-p.died:
		return got, false
	default:
	}
	ask(func(r T) { end <- r })
	select {
	case got = <-end:
		return got, true
	case <-p.died:
		return got, false
	}
}

func (w *failovers) coordinator() *place {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return w.log.leader
}

// run joins the group and stays in it until all is over. at is the coordinator that the client believes
// in, until that says that it is none or dies.
func (k *consumer) run() {
	at := k.w.coordinator()
	for !k.w.over.Load() {
		code := k.join(at)
		if code == 0 {
			code = k.sync(at)
		}
		for code == 0 && !k.w.over.Load() {
			code = k.stay(at)
		}
		k.stableGen.Store(-1)
		switch code {
		case 0, rebalanceInProgress, illegalGeneration, memberIDRequired:
		case unknownMemberID:
			k.id = ""
		case loadInProgress:
			time.Sleep(100 * time.Millisecond)
		case notCoordinator, coordinatorNotAvailable, lostConnection:
			time.Sleep(100 * time.Millisecond)
			at = k.w.coordinator()
		default:
			k.w.t.Errorf("%s is told %s, at which clients give up", k.name, name(code))
			return
		}
	}
}

// lostConnection is a code of the test's own.
const lostConnection int16 = -100

func (k *consumer) join(at *place) int16 {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = 9, "g", k.id, k.instance, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 20_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: metadata("t")}}
	r, ok := call(at, func(reply func(*kmsg.JoinGroupResponse)) {
		at.sv.Join(Client{ID: k.name, Host: "/127.0.0.1"}, req, reply)
	})
	if !ok {
		return lostConnection
	}
	if r.ErrorCode == memberIDRequired {
		k.id = r.MemberID
	}
	if r.ErrorCode != 0 {
		return r.ErrorCode
	}
	if r.Generation < k.gen {
		k.w.t.Errorf("%s is in generation %d after %d", k.name, r.Generation, k.gen)
	}
	k.id, k.gen, k.assigned = r.MemberID, r.Generation, ""
	if len(r.Members) > 0 && !r.SkipAssignment {
		k.w.noteBeginning(r.Generation, at.epoch)
		var ids []string
		for _, mb := range r.Members {
			ids = append(ids, mb.MemberID)
		}
		k.assigned = strings.Join(ids, " ") // it leads
	}
	return 0
}

// noteBeginning notes who has begun a generation: nobody else may give it that number.
func (w *failovers) noteBeginning(gen int32, e record.Epoch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if other, ok := w.began[gen]; ok && other != e {
		w.t.Errorf("generation %d begins in epoch %d, and has begun in epoch %d", gen, e, other)
	}
	w.began[gen] = e
}

func (k *consumer) sync(at *place) int16 {
	if k.w.pick(4) == 0 {
		time.Sleep(time.Duration(k.w.pick(int(time.Second)))) // so that a failover comes in between
	}
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 4, "g", k.id, k.instance, k.gen
	for i, id := range strings.Fields(k.assigned) {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: fmt.Append(nil, "topic-", i)})
	}
	r, ok := call(at, func(reply func(*kmsg.SyncGroupResponse)) { at.sv.Sync(req, reply) })
	if !ok {
		return lostConnection
	}
	if r.ErrorCode == 0 {
		k.assigned = string(r.MemberAssignment)
		k.stableGen.Store(k.gen)
	}
	return r.ErrorCode
}

// stay commits an offset, asks for it, and sends a heartbeat.
func (k *consumer) stay(at *place) int16 {
	time.Sleep(time.Duration(k.w.pick(int(2 * time.Second))))
	k.w.mu.Lock()
	before := k.w.acked[k.assigned]
	k.w.mu.Unlock()
	f, ok := call(at, func(reply func([]kmsg.OffsetFetchResponseGroup)) {
		at.sv.Fetch([]kmsg.OffsetFetchRequestGroup{{Group: "g"}}, false, reply)
	})
	switch {
	case !ok:
		return lostConnection
	case f[0].ErrorCode != 0:
		return f[0].ErrorCode
	}
	have := int64(0)
	for _, topic := range f[0].Topics {
		if topic.Topic == k.assigned {
			have = topic.Partitions[0].Offset
		}
	}
	if have < before {
		k.w.t.Errorf("%s reads the offset %d of %s in epoch %d, and %d was acknowledged", k.name, have, k.assigned, at.epoch, before)
	}
	req := commitRequest("g", k.id, k.gen, have+1)
	req.InstanceID, req.Topics[0].Topic = k.instance, k.assigned
	c, ok := call(at, func(reply func(*kmsg.OffsetCommitResponse)) { commitOne(at.sv, req, reply) })
	if !ok {
		return lostConnection
	}
	if code := c.Topics[0].Partitions[0].ErrorCode; code != 0 {
		return code
	}
	k.w.mu.Lock()
	k.w.acked[k.assigned] = max(k.w.acked[k.assigned], have+1)
	k.w.mu.Unlock()
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.InstanceID, beat.Generation = "g", k.id, k.instance, k.gen
	b, ok := call(at, func(reply func(*kmsg.HeartbeatResponse)) { at.sv.Heartbeat(beat, reply) })
	if !ok {
		return lostConnection
	}
	return b.ErrorCode
}

// TestGroupsUnderFailovers proves, over many seeds, that a group whose coordinator dies or is replaced
// at any moment, also within a rebalance and without knowing it, ends with all members in one
// generation, each with an assignment of its own; that no member meets a code at which clients give
// up; that the numbers of generations never go back nor come twice; and that no offset that is read is
// behind one that was acknowledged. LEAT_TEST_SEEDS is how many.
func TestGroupsUnderFailovers(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runFailovers(t, uint64(seed)) })
		})
	}
}

func runFailovers(t *testing.T, seed uint64) {
	t.Helper()
	w := &failovers{
		t: t, log: &movingLog{rng: rand.New(rand.NewPCG(seed, 1))}, rng: rand.New(rand.NewPCG(seed, 2)),
		began: map[int32]record.Epoch{}, acked: map[string]int64{},
	}
	places := []*place{newPlace(w.log)}
	w.log.fail(places[0], false)
	var clients sync.WaitGroup
	list := make([]*consumer, 2+seed%3)
	for i := range list {
		list[i] = &consumer{w: w, name: fmt.Sprint("c", i)}
		if i == 0 && seed%2 == 0 {
			list[i].instance = new("static")
		}
		clients.Go(list[i].run)
	}
	for range 10 {
		time.Sleep(time.Duration(w.pick(int(6 * time.Second))))
		p := newPlace(w.log)
		places = append(places, p)
		w.log.fail(p, w.pick(2) == 0)
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	given := map[string]bool{}
	for _, k := range list {
		given[k.assigned] = true
		if gen := k.stableGen.Load(); gen < 0 || gen != list[0].gen {
			t.Errorf("%s is in generation %d, and %s in %d", k.name, gen, list[0].name, list[0].gen)
		}
	}
	if len(given) != len(list) || given[""] {
		t.Errorf("the members have %v", given)
	}
	w.over.Store(true)
	clients.Wait()
	for _, p := range places {
		p.sv.Close()
	}
	time.Sleep(time.Minute) // until all timers have run
}

// TestStaticMemberComesBackToTheNextCoordinator proves that a static member whose process starts again
// while the coordinator fails gets its assignment again, without a rebalance, and that its session, which
// begins anew at the load, gives it the time for that.
func TestStaticMemberComesBackToTheNextCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &failovers{t: t, log: &movingLog{rng: rand.New(rand.NewPCG(1, 1))}, rng: rand.New(rand.NewPCG(1, 2)), began: map[int32]record.Epoch{}, acked: map[string]int64{}}
		first, next := newPlace(w.log), newPlace(w.log)
		w.log.fail(first, false)
		a, b := &consumer{w: w, name: "a", instance: new("a")}, &consumer{w: w, name: "b", instance: new("b")}
		var joined sync.WaitGroup
		for _, k := range []*consumer{a, b} {
			joined.Go(func() {
				if code := k.join(first); code != 0 {
					t.Errorf("join: %s", name(code))
				}
				if code := k.sync(first); code != 0 {
					t.Errorf("sync: %s", name(code))
				}
			})
		}
		joined.Wait()
		had, gen := a.assigned, a.gen
		time.Sleep(8 * time.Second) // most of the session of 10 s
		w.log.fail(next, true)
		time.Sleep(8 * time.Second)
		if code := b.stay(next); code != 0 {
			t.Errorf("b: %s", name(code))
		}
		again := &consumer{w: w, name: "a", instance: new("a")}
		if code := again.join(next); code != 0 || again.gen != gen {
			t.Fatalf("join: %s, generation %d", name(code), again.gen)
		}
		again.assigned = ""
		if code := again.sync(next); code != 0 || again.assigned != had || had == "" {
			t.Errorf("sync: %s, %q, and had %q", name(code), again.assigned, had)
		}
		if code := b.stay(next); code != 0 {
			t.Errorf("b: %s", name(code))
		}
		first.sv.Close()
		next.sv.Close()
		time.Sleep(time.Minute)
	})
}

// TestSessionIsNeededForOffsets proves that a node without a session answers no offsets, goes on with all that
// proves itself by its commit, and that its clients look for another coordinator.
func TestSessionIsNeededForOffsets(t *testing.T) {
	has := true
	sv := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, HasSession: func() bool { return has }})
	defer sv.Close()
	sv.StartLeading(0, 1, &memLog{})
	commit := func() (code int16) {
		commitOne(sv, commitRequest("g", "", -1, 5), func(r *kmsg.OffsetCommitResponse) { code = r.Topics[0].Partitions[0].ErrorCode })
		return code
	}
	if code := commit(); code != 0 {
		t.Fatal(name(code))
	}
	has = false
	if got := sv.fetchOne("g"); got != name(notCoordinator) {
		t.Errorf("without a session: %s", got)
	}
	if code := commit(); code != 0 {
		t.Errorf("a commit without a session: %s", name(code))
	}
	has = true
	if got := sv.fetchOne("g"); got != "ok t/0=5" {
		t.Errorf("with a session: %s", got)
	}
}

// loadingService is a service whose partitions are not loaded before open is called, and those have
// an offset of the topic t for the group g.
func loadingService(t *testing.T) (sv *Service, open func()) {
	t.Helper()
	before, logs := newService(t)
	commitOne(before, commitRequest("g", "", -1, 5), func(*kmsg.OffsetCommitResponse) {})
	before.Close()
	sv = New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return testPartitions }})
	t.Cleanup(sv.Close)
	for i, l := range logs {
		l.hw, l.held = 0, true
		sv.StartLeading(int32(i), 2, l)
	}
	synctest.Wait()
	return sv, func() {
		for _, l := range logs {
			l.commit()
		}
		synctest.Wait()
	}
}

// TestAnswersWhileLoading proves that each request during a load has a code at which clients of all kinds
// ask again, and that an offset whose commit takes too long has one, too.
func TestAnswersWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, open := loadingService(t)
		c := &client{t: t, sv: sv, name: "a", id: "a-1"}
		c.join(func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode != loadInProgress {
				t.Errorf("join: %s", name(r.ErrorCode))
			}
		})
		if got := c.sync(nil); got != name(rebalanceInProgress)+" " {
			t.Errorf("sync: %s", got)
		}
		if code := c.beat(); code != 0 {
			t.Errorf("heartbeat: %s", name(code))
		}
		if got := sv.fetchOne("g"); got != name(loadInProgress) {
			t.Errorf("fetch: %s", got)
		}
		commitOne(sv, commitRequest("g", "", -1, 6), func(r *kmsg.OffsetCommitResponse) {
			if code := r.Topics[0].Partitions[0].ErrorCode; code != loadInProgress {
				t.Errorf("commit: %s", name(code))
			}
		})
		sv.Delete([]string{"g"}, func(r []kmsg.DeleteGroupsResponseGroup) {
			if r[0].ErrorCode != loadInProgress {
				t.Errorf("delete: %s", name(r[0].ErrorCode))
			}
		})
		open()
		if got := sv.fetchOne("g"); got != "ok t/0=5" {
			t.Errorf("after the load: %s", got)
		}
		if code := fetchCodeOf(replica.ErrTimedOut); code != loadInProgress {
			t.Errorf("an offset that is not committed in time: %s", name(code))
		}
		if code := fetchCodeOf(replica.ErrNotLeader); code != notCoordinator {
			t.Errorf("an offset of another leader: %s", name(code))
		}
		sv.Close()
	})
}

// TestTopicDeletedWhileLoading proves that the offsets of a topic that is deleted while a partition is
// loaded are deleted afterwards, and that a service can be closed while such a topic waits.
func TestTopicDeletedWhileLoading(t *testing.T) {
	for _, isClosed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sv, open := loadingService(t)
			sv.TopicDeleted("u", [16]byte{9})
			sv.TopicDeleted("t", [16]byte{7})
			time.Sleep(3 * retryDeleting)
			sv.TopicDeleted("v", [16]byte{9})
			if !isClosed {
				open()
				time.Sleep(2 * retryDeleting)
				synctest.Wait()
				if got := sv.fetchOne("g"); got != "ok" {
					t.Errorf("after the load: %s", got)
				}
			}
			sv.Close()
		})
	}
}

// TestExpelledMembersAreToldOfWhatIsCommitted proves that a heartbeat is told that its sender is no member,
// or not in this generation, only when that is committed: another coordinator may know the member.
func TestExpelledMembersAreToldOfWhatIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, logs := newService(t)
		log := logs[coord.PartitionOf("g", testPartitions)]
		hold := func() {
			log.mu.Lock()
			defer log.mu.Unlock()
			log.held = true
		}
		c := &client{t: t, sv: sv, name: "a"}
		c.join(func(*kmsg.JoinGroupResponse) {}) // gets its id
		c.join(func(*kmsg.JoinGroupResponse) {})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := c.sync(map[string]string{c.id: "A"}); got != "ok A" {
			t.Fatalf("sync: %s", got)
		}
		for _, change := range []func(){
			func() {
				req := kmsg.NewPtrLeaveGroupRequest()
				req.Group, req.MemberID = "g", c.id
				sv.Leave(req, func(*kmsg.LeaveGroupResponse) {})
			},
			func() { sv.Delete([]string{"g"}, func([]kmsg.DeleteGroupsResponseGroup) {}) },
		} {
			hold()
			change()
			code := int16(-2)
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.MemberID, req.Generation = "g", c.id, c.gen
			sv.Heartbeat(req, func(r *kmsg.HeartbeatResponse) { code = r.ErrorCode })
			if code != -2 {
				t.Errorf("it is told %s before that is committed", name(code))
			}
			if log.commit(); code != unknownMemberID {
				t.Errorf("it is told %s", name(code))
			}
		}
		sv.Close()
	})
}

var _ coord.Log = (*place)(nil)
