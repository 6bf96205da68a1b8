package group

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// Topic is the name of the topic that holds groups and offsets.
const Topic = "__consumer_offsets"

// Config says how a Service works.
type Config struct {
	Logger *slog.Logger
	// Settings are the configs as they are now; nil means Kafka's defaults. It is
	// asked once a second at most, since computing them costs more than a commit.
	Settings func() Settings
	// Partitions is how many partitions Topic has; 0: the topic is not there yet.
	Partitions func() int32
	// NewID makes the random part of a member id; nil means a UUID.
	NewID func() string
	// Memory is how many bytes all groups may keep; 0 means memory.Max.
	Memory int64
}

// Client is whose request it is.
type Client = classic.Client

// DefaultSettings are Kafka's.
func DefaultSettings() Settings {
	return Settings{
		MinSession: 6 * time.Second, MaxSession: 30 * time.Minute, InitialDelay: 3 * time.Second,
		MaxSize: 1<<31 - 1, MaxMetadata: 4096,
		Retention: 7 * 24 * time.Hour, RetentionScan: 10 * time.Minute, CommitTimeout: 5 * time.Second,
	}
}

// Service coordinates the groups whose partitions this node leads. Its methods run
// on the caller's goroutine and never wait: an answer that has to is given later, by
// whoever completes it. reply is called exactly once, with no lock held; it must not
// block. Responses carry no version.
type Service struct {
	cfg    Config
	rt     *coord.Runtime[*Machine]
	memory *memory.Budget

	work sync.WaitGroup // the goroutine that forgets topics

	mu     sync.Mutex
	gone   map[string][16]byte // deleted topics that are not forgotten yet; guarded by mu
	busy   bool                // a goroutine forgets topics; guarded by mu
	closed bool                // guarded by mu
}

// New makes a service that leads nothing yet.
func New(cfg Config) *Service {
	if cfg.Settings == nil {
		cfg.Settings = DefaultSettings
	}
	if cfg.NewID == nil {
		cfg.NewID = newUUID
	}
	cfg.Settings = (&memo{ask: cfg.Settings}).get
	total := memory.NewBudget(cfg.Logger, cfg.Memory)
	return &Service{cfg: cfg, memory: total, rt: coord.New(coord.Config[*Machine]{
		Logger:   cfg.Logger,
		ReplyTimeout: func() time.Duration { return cfg.Settings().CommitTimeout },
		New: func(_ int32, t *coord.Timers) *Machine {
			return newMachine(t, total, cfg.Settings, cfg.NewID)
		},
	})}
}

// keepSettings is for how long settings are taken to be the same.
const keepSettings = time.Second

// memo remembers settings for a while.
type memo struct {
	ask  func() Settings
	last atomic.Pointer[remembered]
}

type remembered struct {
	Settings
	until time.Time
}

func (m *memo) get() Settings {
	now := time.Now()
	if r := m.last.Load(); r != nil && now.Before(r.until) {
		return r.Settings
	}
	r := &remembered{Settings: m.ask(), until: now.Add(keepSettings)}
	m.last.Store(r)
	return r.Settings
}

// newUUID is a random UUID (version 4), as Kafka puts into member ids.
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // it never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// StartLeading gives the service a partition of Topic that this node leads now.
func (sv *Service) StartLeading(partition int32, e record.Epoch, log coord.Log) {
	sv.rt.StartLeading(partition, e, log)
}

// StopLeading takes a partition away.
func (sv *Service) StopLeading(partition int32) { sv.rt.StopLeading(partition) }

// MemoryUsed is about how many bytes all groups that are coordinated here keep.
func (sv *Service) MemoryUsed() int64 { return sv.memory.Used() }

// Close stops leading everything.
func (sv *Service) Close() {
	sv.mu.Lock()
	sv.closed = true
	sv.mu.Unlock()
	sv.rt.Close()
	sv.work.Wait()
}

// TopicDeleted has the offsets deleted that groups have committed for a topic, in
// the background. What a crash or a failover leaves over is never given to readers
// of a later topic of that name, and ends with the retention.
func (sv *Service) TopicDeleted(topic string, id [16]byte) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.closed {
		return
	}
	if sv.gone == nil {
		sv.gone = map[string][16]byte{}
	}
	sv.gone[topic] = id
	if !sv.busy {
		sv.busy = true
		sv.work.Go(sv.forgetTopics)
	}
}

// forgetTopics works until no deleted topic is left.
func (sv *Service) forgetTopics() {
	for {
		gone := sv.takeGone()
		if gone == nil {
			return
		}
		for _, p := range sv.rt.Partitions() {
			for more := true; more; {
				failed := false
				err := sv.rt.Do(p, func(m *Machine, s *coord.Step) {
					s.Else(func(error) { failed = true })
					more = m.TopicsDeleted(s, gone)
				})
				more = more && !failed && err == nil
			}
		}
	}
}

func (sv *Service) takeGone() map[string][16]byte {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	gone := sv.gone
	sv.gone = nil
	sv.busy = gone != nil
	return gone
}

// PartitionOf is the partition of Topic that a group belongs to: Java's hash of its
// name (over UTF-16, whatever characters it has), made positive, modulo n.
func PartitionOf(group string, n int32) int32 {
	var h int32
	for _, r := range group {
		if r1, r2 := utf16.EncodeRune(r); r1 != '\uFFFD' {
			h = 31*h + r1
			r = r2
		}
		h = 31*h + r
	}
	if h == -1<<31 {
		return 0
	}
	if h < 0 {
		h = -h
	}
	return h % n
}

// do runs op on the machine of a group. The code is not 0 where it did not run.
func (sv *Service) do(group string, op func(m *Machine, s *coord.Step)) int16 {
	n := sv.cfg.Partitions()
	if n <= 0 {
		return notCoordinator
	}
	return code(sv.rt.Do(PartitionOf(group, n), op))
}

// Join handles JoinGroup.
func (sv *Service) Join(c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse)) {
	set := sv.cfg.Settings()
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	var fault int16
	switch {
	case req.Group == "":
		fault = invalidGroupID
	case session < set.MinSession || session > set.MaxSession:
		fault = invalidSessionTimeout
	case !classic.Recordable(req.Protocols):
		fault = invalidRequest
	default:
		fault = sv.do(req.Group, func(m *Machine, s *coord.Step) { m.Join(s, c, req, reply) })
	}
	if fault != 0 {
		reply(classic.JoinFailure(req.MemberID, fault))
	}
}

// Sync handles SyncGroup.
func (sv *Service) Sync(req *kmsg.SyncGroupRequest, reply func(*kmsg.SyncGroupResponse)) {
	var fault int16
	switch {
	case req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil):
		fault = inconsistentGroupProtocol
	case req.Group == "":
		fault = invalidGroupID
	default:
		fault = sv.do(req.Group, func(m *Machine, s *coord.Step) { m.Sync(s, req, reply) })
	}
	if fault != 0 {
		reply(classic.SyncFailure(fault))
	}
}

// Heartbeat handles Heartbeat. While the coordinator loads, members are told that
// all is well: their sessions begin when it is done.
func (sv *Service) Heartbeat(req *kmsg.HeartbeatRequest, reply func(*kmsg.HeartbeatResponse)) {
	resp := kmsg.NewPtrHeartbeatResponse()
	if req.Group == "" {
		resp.ErrorCode = invalidGroupID
		reply(resp)
		return
	}
	fault := sv.do(req.Group, func(m *Machine, s *coord.Step) {
		resp.ErrorCode = m.Heartbeat(s, req)
		s.Reply(func(err error) {
			if err != nil {
				resp.ErrorCode = code(err)
			}
			reply(resp)
		})
	})
	if fault != 0 {
		if fault != loadInProgress {
			resp.ErrorCode = fault
		}
		reply(resp)
	}
}

// Leave handles LeaveGroup. Before version 3 it is about one member, whose code is
// the answer's.
func (sv *Service) Leave(req *kmsg.LeaveGroupRequest, reply func(*kmsg.LeaveGroupResponse)) {
	resp := kmsg.NewPtrLeaveGroupResponse()
	fail := func(c int16) {
		resp.ErrorCode, resp.Members = c, nil
		reply(resp)
	}
	if req.Group == "" {
		fail(invalidGroupID)
		return
	}
	if req.Version < 3 {
		req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: req.MemberID}}
	}
	fault := sv.do(req.Group, func(m *Machine, s *coord.Step) {
		resp.Members = m.Leave(s, req)
		s.Reply(func(err error) {
			if err != nil {
				fail(code(err))
				return
			}
			if req.Version < 3 {
				resp.ErrorCode = resp.Members[0].ErrorCode
			}
			reply(resp)
		})
	})
	if fault != 0 {
		fail(fault)
	}
}

// OffsetCommit is a request to commit offsets, and where its answer goes. The topics
// have their names and, where they are known, their ids, whatever the version; the
// broker has seen to it that they exist.
type OffsetCommit struct {
	Req   *kmsg.OffsetCommitRequest
	Reply func(*kmsg.OffsetCommitResponse)

	partition int32
	resp      *kmsg.OffsetCommitResponse
	fault     int16
}

// Commit handles OffsetCommits: all that one read of a connection brought. Those of
// one partition are decided in one step and become one batch, since no commit rests
// on what another one records (BenchmarkCommits: a third of the time of one after
// the other). The commit of the log is left to the caller, who may have more to commit: he
// is handed what he owes. The list is the Service's from here on.
func (sv *Service) Commit(list []OffsetCommit) (owed coord.PendingCommit) {
	n := sv.cfg.Partitions()
	for i := range list {
		c := &list[i]
		c.resp = kmsg.NewPtrOffsetCommitResponse()
		if n > 0 {
			c.partition = PartitionOf(c.Req.Group, n)
		} else {
			c.answer(notCoordinator)
		}
	}
	if n <= 0 {
		return coord.PendingCommit{}
	}
	if len(list) > 1 {
		slices.SortStableFunc(list, func(a, b OffsetCommit) int { return int(a.partition - b.partition) })
	}
	for len(list) > 0 {
		to := 1
		for to < len(list) && list[to].partition == list[0].partition {
			to++
		}
		for run := list[:to]; len(run) > 0; {
			taken, o := sv.commitRun(run)
			run = run[taken:]
			if o.Exists() {
				owed = o
			}
		}
		list = list[to:]
	}
	return owed
}

// maxTogether bounds the batch of several commits, in bytes.
const maxTogether = 256 << 10

// commitRun commits the first few of a list of one partition, in one step, and tells
// how many those were.
func (sv *Service) commitRun(run []OffsetCommit) (taken int, owed coord.PendingCommit) {
	owed, err := sv.rt.Stage(run[0].partition, func(m *Machine, s *coord.Step) {
		for taken < len(run) && (taken == 0 || len(s.Buffer())+sizeOf(run[taken].Req) <= maxTogether) {
			c := &run[taken]
			c.resp.Topics, c.fault = m.Commit(s, c.Req)
			taken++
		}
		together := run[:taken]
		s.Reply(func(err error) {
			for i := range together {
				together[i].answer(codeOr(err, together[i].fault))
			}
		})
	})
	if err != nil {
		for i := range run {
			run[i].answer(code(err))
		}
		return len(run), coord.PendingCommit{}
	}
	return taken, owed
}

func (c *OffsetCommit) answer(fault int16) {
	if fault != 0 {
		failCommit(c.Req, c.resp, fault)
	}
	c.Reply(c.resp)
}

// failCommit gives all partitions the same code.
func failCommit(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, c int16) {
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		resp.Topics[i].Topic, resp.Topics[i].TopicID = t.Topic, t.TopicID
		resp.Topics[i].Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			resp.Topics[i].Partitions[j].Partition = t.Partitions[j].Partition
			resp.Topics[i].Partitions[j].ErrorCode = c
		}
	}
}

// Fetch answers OffsetFetch's groups, in order, each with its own code.
func (sv *Service) Fetch(groups []kmsg.OffsetFetchRequestGroup, reply func([]kmsg.OffsetFetchResponseGroup)) {
	out := newGather(len(groups), reply)
	for i := range groups {
		req := &groups[i]
		resp := kmsg.NewOffsetFetchResponseGroup()
		resp.Group = req.Group
		fault := sv.do(req.Group, func(m *Machine, s *coord.Step) {
			resp = m.Fetch(s, req)
			s.Reply(func(err error) {
				if err != nil {
					resp.Topics, resp.ErrorCode = nil, code(err)
				}
				out.set(i, resp)
			})
		})
		if fault != 0 {
			resp.ErrorCode = fault
			out.set(i, resp)
		}
	}
}

// DeleteOffsets handles OffsetDelete.
func (sv *Service) DeleteOffsets(req *kmsg.OffsetDeleteRequest, reply func(*kmsg.OffsetDeleteResponse)) {
	resp := kmsg.NewPtrOffsetDeleteResponse()
	fail := func(c int16) {
		resp.Topics, resp.ErrorCode = nil, c
		reply(resp)
	}
	if req.Group == "" {
		fail(invalidGroupID)
		return
	}
	fault := sv.do(req.Group, func(m *Machine, s *coord.Step) {
		resp.Topics, resp.ErrorCode = m.DeleteOffsets(s, req)
		s.Reply(func(err error) {
			if err != nil {
				fail(code(err))
				return
			}
			reply(resp)
		})
	})
	if fault != 0 {
		fail(fault)
	}
}

// Describe answers DescribeGroups' groups, in order.
func (sv *Service) Describe(ids []string, version int16, reply func([]kmsg.DescribeGroupsResponseGroup)) {
	out := newGather(len(ids), reply)
	for i, id := range ids {
		resp := kmsg.NewDescribeGroupsResponseGroup()
		resp.Group = id
		fault := sv.do(id, func(m *Machine, s *coord.Step) {
			resp = m.Describe(s, id, version)
			s.Reply(func(err error) {
				if err != nil {
					resp = kmsg.NewDescribeGroupsResponseGroup()
					resp.Group, resp.ErrorCode = id, code(err)
				}
				out.set(i, resp)
			})
		})
		if fault != 0 {
			resp.ErrorCode = fault
			out.set(i, resp)
		}
	}
}

// List answers ListGroups with the groups of all partitions that this node leads.
// The first code that is not 0, if any, is the answer's.
func (sv *Service) List(req *kmsg.ListGroupsRequest, reply func(*kmsg.ListGroupsResponse)) {
	type part struct {
		groups []kmsg.ListGroupsResponseGroup
		code   int16
	}
	partitions := sv.rt.Partitions()
	out := newGather(len(partitions), func(parts []part) {
		resp := kmsg.NewPtrListGroupsResponse()
		for _, p := range parts {
			if p.code != 0 {
				resp.ErrorCode, resp.Groups = p.code, nil
				break
			}
			resp.Groups = append(resp.Groups, p.groups...)
		}
		reply(resp)
	})
	for i, n := range partitions {
		var p part
		err := sv.rt.Do(n, func(m *Machine, s *coord.Step) {
			p.groups = m.List(s, req.StatesFilter, req.TypesFilter)
			s.Reply(func(err error) {
				// A partition that has moved away is listed by its new leader.
				if p.code = code(err); p.code == notCoordinator {
					p = part{}
				}
				out.set(i, p)
			})
		})
		if err != nil {
			if p.code = code(err); p.code == notCoordinator {
				p = part{}
			}
			out.set(i, p)
		}
	}
}

// Delete answers DeleteGroups' groups, in order.
func (sv *Service) Delete(ids []string, reply func([]kmsg.DeleteGroupsResponseGroup)) {
	out := newGather(len(ids), reply)
	for i, id := range ids {
		set := func(c int16) {
			resp := kmsg.NewDeleteGroupsResponseGroup()
			resp.Group, resp.ErrorCode = id, c
			out.set(i, resp)
		}
		fault := sv.do(id, func(m *Machine, s *coord.Step) {
			c := m.Delete(s, id)
			s.Reply(func(err error) { set(codeOr(err, c)) })
		})
		if fault != 0 {
			set(fault)
		}
	}
}

// gather collects the parts of an answer that come in any order.
type gather[T any] struct {
	mu    sync.Mutex
	parts []T
	left  int
	done  func([]T)
}

// newGather calls done at once where there is nothing to wait for.
func newGather[T any](n int, done func([]T)) *gather[T] {
	if n == 0 {
		done([]T{})
	}
	return &gather[T]{parts: make([]T, n), left: n, done: done}
}

func (g *gather[T]) set(i int, part T) {
	if g.put(i, part) {
		g.done(g.parts)
	}
}

func (g *gather[T]) put(i int, part T) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parts[i] = part
	g.left--
	return g.left == 0
}
