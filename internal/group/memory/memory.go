// Package memory counts the bytes that groups and transactional ids keep in memory. A Budget bounds the
// bytes of all that a node coordinates, one those of the members of groups, one those of their
// offsets and one those of transactional ids; an Account counts those of one machine.
//
// Any number of goroutines may use a Budget. The lock of its machine guards an Account.
package memory

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Max is the default limit of a Budget. It counts the names, ids, protocols and
// assignments of members, the topics that they consume, and committed offsets.
const Max = 256 << 20

// fullEvery is how often, at most, a full budget is logged.
const fullEvery = 10 * time.Second

// Budget is the memory that all groups, or all transactional ids, of a node may take. The limit may be
// exceeded by records that are applied, since applying them must never fail.
type Budget struct {
	log    *slog.Logger
	ofIDs  bool // it is that of transactional ids
	limit  int64
	used   atomic.Int64
	warned atomic.Int64 // when it was last logged that the budget is full, in Unix ns; 0 before
}

// membersShare is the part of a limit that members may take: the answer to a leader is as large as all
// members of its group, while offsets make no large answers.
const membersShare = 8

// NewBudgets makes the budgets of members and of offsets, which share a limit; 0 means Max.
func NewBudgets(log *slog.Logger, limit int64) (members, offsets *Budget) {
	if limit <= 0 {
		limit = Max
	}
	return NewBudget(log, limit/membersShare), NewBudget(log, limit-limit/membersShare)
}

const (
	groupsFull = "the memory for consumer groups is full: requests that need more of it are refused; look for groups with too many members, offsets or too much metadata, or raise leat.group.memory.bytes"
	idsFull    = "the memory for transactional ids is full: producers that need more of it are refused; look for applications that make a new transactional.id each time that they start, or lower transactional.id.expiration.ms"
)

// NewBudget makes a budget for groups; a limit of 0 means Max.
func NewBudget(log *slog.Logger, limit int64) *Budget { return newBudget(log, limit, false) }

// NewTransactionBudget makes a budget for transactional ids; a limit of 0 means Max.
func NewTransactionBudget(log *slog.Logger, limit int64) *Budget { return newBudget(log, limit, true) }

func newBudget(log *slog.Logger, limit int64, ofIDs bool) *Budget {
	if limit <= 0 {
		limit = Max
	}
	return &Budget{log: log, ofIDs: ofIDs, limit: limit}
}

// takeIfFree takes n bytes if so many are free.
func (b *Budget) takeIfFree(n int64) bool {
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

// warnFull logs that the budget is full, once in fullEvery. name is that of a group or a transactional id.
func (b *Budget) warnFull(now time.Time, name string, n int64) {
	last := b.warned.Load()
	if last != 0 && now.UnixNano()-last < int64(fullEvery) || !b.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	const shown = 100 // bytes of a name
	attrs := []any{
		slog.String("name", name[:min(len(name), shown)]), slog.Int64("needed", n),
		slog.Int64("used", b.used.Load()), slog.Int64("limit", b.limit),
	}
	if b.ofIDs {
		b.log.Warn(idsFull, attrs...)
		return
	}
	b.log.Warn(groupsFull, attrs...)
}

// Account counts the bytes of one machine. They are part of the budget from JoinBudget to
// LeaveBudget. While the machine loads, they are not, since a load that fails is thrown away. The
// lock of the machine guards the account.
type Account struct {
	total  *Budget
	held   int64
	joined bool // held is counted in total.used
}

// NewAccount makes the account of a machine that begins to load.
func NewAccount(total *Budget) *Account { return &Account{total: total} }

// Add takes n bytes, whether there is room or not; a negative n gives bytes back.
func (a *Account) Add(n int64) {
	a.held += n
	if a.joined {
		a.total.used.Add(n)
	}
}

// Take takes n bytes if there is room for them, and tells whether there was. A negative n gives
// bytes back, which always succeeds.
func (a *Account) Take(n int64) bool {
	switch {
	case n <= 0:
		a.Add(n)
		return true
	case !a.joined: // a load must not fail, since its records were acknowledged
		a.held += n
		return true
	case !a.total.takeIfFree(n):
		return false
	}
	a.held += n
	return true
}

// Room is about how many bytes Take can take.
func (a *Account) Room() int64 {
	if !a.joined {
		return a.total.Free() - a.held
	}
	return a.total.Free()
}

// JoinBudget counts the bytes of a machine that was loaded in the budget.
func (a *Account) JoinBudget() {
	if !a.joined {
		a.joined = true
		a.total.used.Add(a.held)
	}
}

// LeaveBudget removes the account's bytes from the budget.
func (a *Account) LeaveBudget() {
	if a.joined {
		a.joined = false
		a.total.used.Add(-a.held)
	}
}

// Reserve takes n bytes for a group or a transactional id if there is room for them, as Take does. If
// there is none, it logs that the budget is full.
func (a *Account) Reserve(now time.Time, name string, n int64) bool {
	if a.Take(n) {
		return true
	}
	a.WarnFull(now, name, n)
	return false
}

// WarnFull logs that the budget has no room for n bytes of a group or a transactional id. It does so
// at most once in fullEvery.
func (a *Account) WarnFull(now time.Time, name string, n int64) { a.total.warnFull(now, name, n) }

// Held is how many bytes the account has.
func (a *Account) Held() int64 { return a.held }

// Free is how many bytes may still be taken.
func (b *Budget) Free() int64 { return b.limit - b.used.Load() }

// Used is how many bytes the accounts that joined the budget have together.
func (b *Budget) Used() int64 { return b.used.Load() }
