package group

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// Topic is the name of the topic that has the records of groups and offsets.
const Topic = "__consumer_offsets"

// Config configures a Service.
type Config struct {
	Logger *slog.Logger
	// Settings returns the present configs; nil means Kafka's defaults. It is called once
	// a second at most, since it costs more than a commit.
	Settings func() Settings
	// Partitions returns how many partitions Topic has, or 0 if the topic does not exist.
	Partitions func() int32
	// NewID makes the random part of a member id; nil makes UUIDs.
	NewID func() string
	// Memory is how many bytes all groups may keep; 0 means memory.Max.
	Memory int64
	// HasSession tells whether the active controller has heard from this node so lately that it
	// cannot have given the node's partitions to others for its silence; nil: that is always so. Offsets
	// are not answered without, see package coord.
	HasSession func() bool
	// Forks tells from which offset on clients of this cluster have written a partition that was a mirror, and was promoted; nil: none was. A position that a link has made beyond that is of records
	// which never came here: those that are there now are others, and the group has not seen them.
	Forks func(topic string, partition int32) (begin record.Offset, ok bool)
}

// Client is the client that sent a request.
type Client = classic.Client

// DefaultSettings are Kafka's.
func DefaultSettings() Settings {
	return Settings{
		MinSession: 6 * time.Second, MaxSession: 30 * time.Minute, InitialDelay: 3 * time.Second,
		MaxSize: 1<<31 - 1, MaxMetadata: 4096,
		Retention: 7 * 24 * time.Hour, RetentionScan: 10 * time.Minute, CommitTimeout: 5 * time.Second,
	}
}

// Service coordinates the groups whose partitions this node leads. Its methods run on
// the caller's goroutine and never wait. reply is called exactly once, by the caller's
// goroutine or later by another, with no lock held; it must not block. Responses have
// no version.
type Service struct {
	cfg     Config
	rt      *coord.Runtime[*Machine]
	members *memory.Budget
	offsets *memory.Budget

	work sync.WaitGroup // for deleteTopicOffsets

	mu            sync.Mutex
	deletedTopics goneTopics    // deleted topics whose offsets are still to be deleted; guarded by mu
	deleting      bool          // deleteTopicOffsets runs; guarded by mu
	closed        bool          // guarded by mu
	ending        chan struct{} // closed when closed is set
}

// New makes a service that leads nothing yet.
func New(cfg Config) *Service {
	if cfg.Settings == nil {
		cfg.Settings = DefaultSettings
	}
	if cfg.NewID == nil {
		cfg.NewID = newUUID
	}
	if cfg.HasSession == nil {
		cfg.HasSession = func() bool { return true }
	}
	cfg.Settings = (&settingsCache{compute: cfg.Settings}).load
	members, offsets := memory.NewBudgets(cfg.Logger, cfg.Memory)
	return &Service{cfg: cfg, members: members, offsets: offsets, ending: make(chan struct{}), rt: coord.New(coord.Config[*Machine]{
		Logger:       cfg.Logger,
		ReplyTimeout: func() time.Duration { return cfg.Settings().CommitTimeout },
		New: func(_ int32, t *coord.Timers) *Machine {
			m := NewMachine(t, members, offsets, cfg.Settings, cfg.NewID)
			m.forks = cfg.Forks
			return m
		},
	})}
}

// keepSettings is for how long computed settings are used.
const keepSettings = time.Second

// settingsCache keeps settings for keepSettings, since computing them is costly.
type settingsCache struct {
	compute func() Settings
	last    atomic.Pointer[cachedSettings]
}

type cachedSettings struct {
	Settings
	until time.Time
}

func (m *settingsCache) load() Settings {
	now := time.Now()
	if r := m.last.Load(); r != nil && now.Before(r.until) {
		return r.Settings
	}
	r := &cachedSettings{Settings: m.compute(), until: now.Add(keepSettings)}
	m.last.Store(r)
	return r.Settings
}

// newUUID makes a random UUID of version 4, as Kafka has in member ids.
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // it never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// StartLeading gives the service a partition of Topic that this node now leads.
func (sv *Service) StartLeading(partition int32, e record.Epoch, log coord.Log) {
	sv.rt.StartLeading(partition, e, log)
}

// StopLeading takes a partition from the service.
func (sv *Service) StopLeading(partition int32) { sv.rt.StopLeading(partition) }

// MemoryUsed is about how many bytes all groups that are coordinated here keep.
func (sv *Service) MemoryUsed() int64 { return sv.members.Used() + sv.offsets.Used() }

// Close stops leading everything.
func (sv *Service) Close() {
	sv.mu.Lock()
	if !sv.closed {
		sv.closed = true
		close(sv.ending)
	}
	sv.mu.Unlock()
	sv.rt.Close()
	sv.work.Wait()
}

// TopicDeleted deletes the offsets that groups have committed for a deleted topic, in
// the background; those of partitions that are being loaded when they are loaded. A crash or a
// failover may leave some of them. These are never given to a later topic of the same name, whose
// id differs, and expire.
func (sv *Service) TopicDeleted(topic string, id [16]byte) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.closed {
		return
	}
	if sv.deletedTopics == nil {
		sv.deletedTopics = goneTopics{}
	}
	sv.deletedTopics[topic] = append(sv.deletedTopics[topic], id)
	if !sv.deleting {
		sv.deleting = true
		sv.work.Go(sv.deleteTopicOffsets)
	}
}

// retryDeleting is the pause after which partitions that are being loaded are looked at again.
const retryDeleting = time.Second

// maxGoneTopics is how many names of deleted topics wait at most for a partition that is being loaded.
const maxGoneTopics = 10_000

// deleteTopicOffsets deletes offsets until no deleted topic is left.
func (sv *Service) deleteTopicOffsets() {
	var later map[int32]goneTopics // by partition: it is being loaded
	for {
		gone := sv.takeDeletedTopics(len(later) > 0)
		if gone == nil && len(later) == 0 {
			return
		}
		if later = sv.deleteOffsetsOf(gone, later); len(later) == 0 {
			continue
		}
		select {
		case <-time.After(retryDeleting):
		case <-sv.ending:
			return
		}
	}
}

// deleteOffsetsOf deletes the offsets of deleted topics; earlier are those that wait for single
// partitions. It returns the topics that wait for partitions from now on.
func (sv *Service) deleteOffsetsOf(gone goneTopics, earlier map[int32]goneTopics) (later map[int32]goneTopics) {
	for _, p := range sv.rt.Partitions() {
		topics := gone.and(earlier[p])
		if len(topics) == 0 {
			continue
		}
		err := sv.deleteOffsetsIn(p, topics)
		if errors.Is(err, coord.ErrLoading) && len(topics) <= maxGoneTopics {
			if later == nil {
				later = map[int32]goneTopics{}
			}
			later[p] = topics
		}
	}
	return later
}

// deleteOffsetsIn deletes the offsets that the groups of a partition have for deleted topics.
func (sv *Service) deleteOffsetsIn(p int32, gone goneTopics) (err error) {
	for more := true; more && err == nil; {
		failed := false
		err = sv.rt.Do(p, func(m *Machine, s *coord.Step) {
			s.Else(func(error) { failed = true })
			more = m.TopicsDeleted(s, gone)
		})
		more = more && !failed
	}
	return err
}

// takeDeletedTopics returns the deleted topics that have come, or nil. If nothing waits, deleting
// is false then.
func (sv *Service) takeDeletedTopics(waits bool) goneTopics {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	gone := sv.deletedTopics
	sv.deletedTopics = nil
	sv.deleting = waits || gone != nil
	return gone
}

// runOnGroup runs op on the machine of a group. If the code is not 0, op did not run.
func (sv *Service) runOnGroup(group string, op func(m *Machine, s *coord.Step)) int16 {
	n := sv.cfg.Partitions()
	if n <= 0 {
		return notCoordinator
	}
	return codeOf(sv.rt.Do(coord.PartitionOf(group, n), op))
}

// Join handles JoinGroup.
func (sv *Service) Join(c Client, req *kmsg.JoinGroupRequest, reply func(*kmsg.JoinGroupResponse)) {
	set := sv.cfg.Settings()
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	var code int16
	switch {
	case req.Group == "":
		code = invalidGroupID
	case session < set.MinSession || session > set.MaxSession:
		code = invalidSessionTimeout
	case !classic.Recordable(req.Protocols):
		code = invalidRequest
	default:
		code = sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) { m.Join(s, c, req, reply) })
	}
	if code != 0 {
		reply(classic.JoinFailure(req.MemberID, code))
	}
}

// JoinPostponed is the answer to a JoinGroup whose own answer cannot be kept now, since clients
// do not read theirs. Its code has every client ask again after a pause.
func JoinPostponed(memberID string) *kmsg.JoinGroupResponse {
	return classic.JoinFailure(memberID, loadInProgress)
}

// SyncPostponed is the same for a SyncGroup. Its code is the only one for which every client joins
// again without leaving the group.
func SyncPostponed() *kmsg.SyncGroupResponse { return classic.SyncFailure(rebalanceInProgress) }

// Sync handles SyncGroup.
func (sv *Service) Sync(req *kmsg.SyncGroupRequest, reply func(*kmsg.SyncGroupResponse)) {
	var code int16
	switch {
	case req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil):
		code = inconsistentGroupProtocol
	case req.Group == "":
		code = invalidGroupID
	default:
		code = sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) { m.Sync(s, req, reply) })
	}
	switch code {
	case 0:
	case loadInProgress: // the rebalance that it belongs to is lost, and most clients take this code for fatal here
		reply(SyncPostponed())
	default:
		reply(classic.SyncFailure(code))
	}
}

// Heartbeat handles Heartbeat. While the coordinator loads it answers without an error,
// since sessions begin only after the load. An answer that a member may stay waits for no
// record, so that members keep their sessions while the log is slow.
func (sv *Service) Heartbeat(req *kmsg.HeartbeatRequest, reply func(*kmsg.HeartbeatResponse)) {
	resp := kmsg.NewPtrHeartbeatResponse()
	if req.Group == "" {
		resp.ErrorCode = invalidGroupID
		reply(resp)
		return
	}
	code := sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) {
		resp.ErrorCode = m.Heartbeat(s, req)
		s.Reply(func(err error) {
			if err != nil {
				resp.ErrorCode = codeOf(err)
			}
			reply(resp)
		})
	})
	if code != 0 {
		if code != loadInProgress {
			resp.ErrorCode = code
		}
		reply(resp)
	}
}

// Leave handles LeaveGroup. Before version 3 a request has one member, and the code of
// the answer is the member's.
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
	code := sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) {
		resp.Members = m.Leave(s, req)
		s.Reply(func(err error) {
			if err != nil {
				fail(codeOf(err))
				return
			}
			if req.Version < 3 {
				resp.ErrorCode = resp.Members[0].ErrorCode
			}
			reply(resp)
		})
	})
	if code != 0 {
		fail(code)
	}
}

// OffsetCommit is a request to commit offsets with the function that takes its answer.
// In every version of the request the topics have their names and, if they are known,
// their ids; the broker has checked that they exist.
type OffsetCommit struct {
	Req   *kmsg.OffsetCommitRequest
	Reply func(*kmsg.OffsetCommitResponse)

	partition int32
	resp      *kmsg.OffsetCommitResponse
	code      int16
}

// Commit handles several OffsetCommits, all that came with one read of a connection.
// Those of one partition are decided in one step and become one batch, since no commit
// depends on the records of another (BenchmarkCommits). The caller must make the
// pending commit of the log, and may do so after more appends. The list belongs to the
// Service from here on.
func (sv *Service) Commit(list []OffsetCommit) (pending coord.PendingCommit) {
	n := sv.cfg.Partitions()
	for i := range list {
		c := &list[i]
		c.resp = kmsg.NewPtrOffsetCommitResponse()
		if n > 0 {
			c.partition = coord.PartitionOf(c.Req.Group, n)
		} else {
			c.sendAnswer(notCoordinator)
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
			taken, o := sv.commitSome(run)
			run = run[taken:]
			if o.Exists() {
				pending = o
			}
		}
		list = list[to:]
	}
	return pending
}

// commitSome handles the first commits of a list, as many as fit into one batch, in one
// step. All of the list have the same partition. It returns how many it has handled.
func (sv *Service) commitSome(run []OffsetCommit) (taken int, pending coord.PendingCommit) {
	pending, err := sv.rt.Stage(run[0].partition, func(m *Machine, s *coord.Step) {
		for taken < len(run) && (taken == 0 || len(s.Buffer())+recordsSize(run[taken].Req) <= maxBatchBytes) {
			c := &run[taken]
			c.resp.Topics, c.code = m.Commit(s, c.Req)
			taken++
		}
		together := run[:taken]
		s.Reply(func(err error) {
			for i := range together {
				together[i].sendAnswer(codeOr(err, together[i].code))
			}
		})
	})
	if err != nil {
		for i := range run {
			run[i].sendAnswer(codeOf(err))
		}
		return len(run), coord.PendingCommit{}
	}
	return taken, pending
}

func (c *OffsetCommit) sendAnswer(code int16) {
	if code != 0 {
		failCommit(c.Req, c.resp, code)
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

// CommitInTransaction handles TxnOffsetCommit, whose fields are those of a commit, for a producer whose transaction has the
// group, as the transaction's coordinator has said. check tells, in the order of the partition's records, why that does not count any more; nil: nobody was asked.
func (sv *Service) CommitInTransaction(by coord.Producer, req *kmsg.OffsetCommitRequest, check func() error, reply func(*kmsg.OffsetCommitResponse)) {
	resp := kmsg.NewPtrOffsetCommitResponse()
	fail := func(code int16) {
		failCommit(req, resp, code)
		reply(resp)
	}
	code := invalidGroupID
	if req.Group != "" {
		code = sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) {
			var refused int16
			resp.Topics, refused = m.CommitInTransaction(s, by, req)
			if check != nil {
				if err := check(); err != nil {
					s.Refuse(err)
				}
			}
			s.Reply(func(err error) {
				if code := codeOr(err, refused); code != 0 {
					fail(code)
					return
				}
				reply(resp)
			})
		})
	}
	if code != 0 {
		fail(code)
	}
}

// EndTransaction writes the marker that ends a transaction into a partition of Topic. reply is called with nil when the marker
// is committed. The caller must make the pending commit of the log, and may do so after more markers.
func (sv *Service) EndTransaction(partition int32, end coord.Marker, reply func(error)) coord.PendingCommit {
	pending, err := sv.rt.Stage(partition, func(_ *Machine, s *coord.Step) {
		s.PutMarker(end)
		s.Reply(reply)
	})
	if err != nil {
		reply(err)
	}
	return pending
}

// Fetch answers the groups of an OffsetFetch, in order, each with its own code. A node without a
// session refuses them, since another coordinator may have acknowledged later offsets. stable is RequireStable of the request:
// partitions for which a transaction is open get a code of their own.
func (sv *Service) Fetch(groups []kmsg.OffsetFetchRequestGroup, stable bool, reply func([]kmsg.OffsetFetchResponseGroup)) {
	out := newGather(len(groups), reply)
	hasSession := sv.cfg.HasSession() // before the offsets are read
	for i := range groups {
		req := &groups[i]
		resp := kmsg.NewOffsetFetchResponseGroup()
		resp.Group = req.Group
		code := notCoordinator
		if hasSession {
			code = sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) {
				resp = m.Fetch(s, req, stable)
				s.Reply(func(err error) {
					if err != nil {
						resp.Topics, resp.ErrorCode = nil, fetchCodeOf(err)
					}
					out.setPart(i, resp)
				})
			})
		}
		if code != 0 {
			resp.ErrorCode = code
			out.setPart(i, resp)
		}
	}
}

// fetchCodeOf is the code of an OffsetFetch for an error of the coordinator's log. Consumers before
// Kafka 4 end at COORDINATOR_NOT_AVAILABLE here, and ask again at COORDINATOR_LOAD_IN_PROGRESS.
func fetchCodeOf(err error) int16 {
	if c := codeOf(err); c != coordinatorNotAvailable {
		return c
	}
	return loadInProgress
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
	code := sv.runOnGroup(req.Group, func(m *Machine, s *coord.Step) {
		resp.Topics, resp.ErrorCode = m.DeleteOffsets(s, req)
		s.Reply(func(err error) {
			if err != nil {
				fail(codeOf(err))
				return
			}
			reply(resp)
		})
	})
	if code != 0 {
		fail(code)
	}
}

// Describe answers the groups of a DescribeGroups, in order.
func (sv *Service) Describe(ids []string, version int16, reply func([]kmsg.DescribeGroupsResponseGroup)) {
	out := newGather(len(ids), reply)
	for i, id := range ids {
		resp := kmsg.NewDescribeGroupsResponseGroup()
		resp.Group = id
		code := sv.runOnGroup(id, func(m *Machine, s *coord.Step) {
			resp = m.Describe(s, id, version)
			s.Reply(func(err error) {
				if err != nil {
					resp = kmsg.NewDescribeGroupsResponseGroup()
					resp.Group, resp.ErrorCode = id, codeOf(err)
				}
				out.setPart(i, resp)
			})
		})
		if code != 0 {
			resp.ErrorCode = code
			out.setPart(i, resp)
		}
	}
}

// List answers ListGroups with the groups of all partitions that this node leads. If
// one of them has a code that is not 0, the first such code is the answer's.
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
				if p.code = codeOf(err); p.code == notCoordinator {
					p = part{}
				}
				out.setPart(i, p)
			})
		})
		if err != nil {
			if p.code = codeOf(err); p.code == notCoordinator {
				p = part{}
			}
			out.setPart(i, p)
		}
	}
}

// maxLoggedName is how much of a group's name a log line has, in bytes.
const maxLoggedName = 249

// Delete answers the groups of a DeleteGroups, in order.
func (sv *Service) Delete(ids []string, reply func([]kmsg.DeleteGroupsResponseGroup)) {
	out := newGather(len(ids), reply)
	for i, id := range ids {
		set := func(c int16) {
			if c == 0 {
				sv.cfg.Logger.Info("a group was deleted", "group", id[:min(len(id), maxLoggedName)])
			}
			resp := kmsg.NewDeleteGroupsResponseGroup()
			resp.Group, resp.ErrorCode = id, c
			out.setPart(i, resp)
		}
		code := sv.runOnGroup(id, func(m *Machine, s *coord.Step) {
			c := m.Delete(s, id)
			s.Reply(func(err error) { set(codeOr(err, c)) })
		})
		if code != 0 {
			set(code)
		}
	}
}

// gather collects the parts of an answer, which come in any order, and calls done with
// all of them after the last one.
type gather[T any] struct {
	mu    sync.Mutex
	parts []T // guarded by mu
	left  int // how many parts are missing; guarded by mu
	done  func([]T)
}

// newGather makes a gather of n parts. It calls done at once if n is 0.
func newGather[T any](n int, done func([]T)) *gather[T] {
	if n == 0 {
		done([]T{})
	}
	return &gather[T]{parts: make([]T, n), left: n, done: done}
}

// setPart stores a part, and calls done after the last one.
func (g *gather[T]) setPart(i int, part T) {
	if g.storePart(i, part) {
		g.done(g.parts)
	}
}

func (g *gather[T]) storePart(i int, part T) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parts[i] = part
	g.left--
	return g.left == 0
}
