package group

import (
	"bytes"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// MaxMemory is how many bytes the groups that a node coordinates may keep there, unless
// a Config says otherwise: their members' names, ids, protocols and assignments, the
// topics that they consume, and the offsets that they have committed.
const MaxMemory = 256 << 20

// maxMemberBytes bounds one member's protocols: with more the group could not be
// recorded.
const maxMemberBytes = coord.MaxBatch

// About what the machine keeps beside the bytes that clients send.
const (
	memberCost   = 512 // a member: its struct, timer and places in the group's tables
	pendingCost  = 256 // an id that was given out
	protocolCost = 128 // a protocol of a member, and its place in the group's count
	topicCost    = 64  // a topic that is consumed
	groupCost    = 896 // a group: its struct, tables and timers
)

func groupSize(id string) int64 { return int64(groupCost + len(id)) }

// fullEvery is how often it is said that members are refused.
const fullEvery = 10 * time.Second

// budget is the memory that groups may take on this node. All machines of a
// Service share it. What is recorded is always taken, so that it may be overdrawn.
// Safe for concurrent use.
type budget struct {
	log    *slog.Logger
	limit  int64
	used   atomic.Int64
	warned atomic.Int64 // ns; when it was last said that it is full; 0: never
}

func newBudget(log *slog.Logger, limit int64) *budget {
	if limit <= 0 {
		limit = MaxMemory
	}
	return &budget{log: log, limit: limit}
}

// take takes n bytes where there is room for them.
func (b *budget) take(n int64) bool {
	for {
		used := b.used.Load()
		if n > b.limit-used {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// refused says now and then that there is no room.
func (b *budget) refused(now time.Time, group string, n int64) {
	last := b.warned.Load()
	if last != 0 && now.UnixNano()-last < int64(fullEvery) || !b.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	const shown = 100 // bytes of a group's name
	b.log.Warn("the memory for consumer groups is full: what would need more of it is refused; look for groups with too many members, offsets or too much metadata, or raise leat.group.memory.bytes",
		slog.String("group", group[:min(len(group), shown)]), slog.Int64("needed", n),
		slog.Int64("used", b.used.Load()), slog.Int64("limit", b.limit))
}

// account is one machine's part of the budget. A machine that still loads may never
// be opened, or be thrown away: it counts on its own and joins the budget when it is
// loaded. Guarded as its machine is.
type account struct {
	total *budget
	held  int64
	open  bool // held is part of what the budget has given
}

// add takes n bytes, or gives them back, whether there is room or not.
func (a *account) add(n int64) {
	a.held += n
	if a.open {
		a.total.used.Add(n)
	}
}

// take takes n more bytes where there is room. Giving back always works.
func (a *account) take(n int64) bool {
	switch {
	case n <= 0:
		a.add(n)
		return true
	case !a.open: // what is loaded was acknowledged
		a.held += n
		return true
	case !a.total.take(n):
		return false
	}
	a.held += n
	return true
}

// room is about how much may be taken.
func (a *account) room() int64 {
	if !a.open {
		return a.total.limit - a.total.used.Load() - a.held
	}
	return a.total.limit - a.total.used.Load()
}

// enter makes what a loaded machine holds part of the budget.
func (a *account) enter() {
	if !a.open {
		a.open = true
		a.total.used.Add(a.held)
	}
}

// leave gives everything back.
func (a *account) leave() {
	if a.open {
		a.open = false
		a.total.used.Add(-a.held)
	}
}

// reserve takes n more bytes for a group, or says that there is no room.
func (m *Machine) reserve(s *coord.Step, group string, n int64) bool {
	if m.memory.take(n) {
		return true
	}
	m.memory.total.refused(s.Now, group, n)
	return false
}

// charge takes ahead what a member will take with this id and these protocols, or
// says that there is no room; nothing has changed then.
func (m *Machine) charge(s *coord.Step, mb *member, id string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	n := mb.sizeWith(id, protocols) - mb.charged
	if !m.reserve(s, mb.group.id, n) {
		return false
	}
	mb.charged += n
	return true
}

// settle makes the account hold what the member takes now.
func (m *Machine) settle(mb *member) {
	n := mb.size()
	m.memory.add(n - mb.charged)
	mb.charged = n
}

// refund gives back what a member took.
func (m *Machine) refund(mb *member) {
	m.memory.add(-mb.charged)
	mb.charged = 0
}

// size is about how many bytes the member takes.
func (mb *member) size() int64 {
	return mb.sizeWith(mb.id, mb.protocols)
}

// sizeWith is the member's size if it had another id and other protocols.
func (mb *member) sizeWith(id string, protocols []kmsg.JoinGroupRequestProtocol) int64 {
	n := memberCost + len(id) + len(deref(mb.instance)) + len(mb.clientID) + len(mb.clientHost) + len(mb.assignment)
	return int64(n) + protocolsSize(protocols)
}

func protocolsSize(protocols []kmsg.JoinGroupRequestProtocol) (n int64) {
	for i := range protocols {
		n += int64(protocolCost + len(protocols[i].Name) + len(protocols[i].Metadata))
	}
	return n
}

func topicSize(topic []byte) int64 { return int64(topicCost + len(topic)) }

// own copies protocols: what a request decodes to keeps all of its buffer.
func own(protocols []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	kept := make([]kmsg.JoinGroupRequestProtocol, len(protocols))
	for i, p := range protocols {
		kept[i] = kmsg.JoinGroupRequestProtocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)}
	}
	return kept
}
