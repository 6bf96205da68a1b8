// Package memory counts the bytes that groups keep in memory. A Budget bounds all groups
// that a node coordinates; an Account counts those of one machine.
//
// A Budget may be used by any number of goroutines; an Account is guarded by the lock of
// its machine.
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

// Budget is the memory that the groups of a Service may take on this node. More than
// the limit may be used, since applying a record must never fail.
type Budget struct {
	log    *slog.Logger
	limit  int64
	used   atomic.Int64
	warned atomic.Int64 // when it was last logged that the budget is full, in Unix ns; 0 before
}

// NewBudget makes a budget; a limit of 0 means Max.
func NewBudget(log *slog.Logger, limit int64) *Budget {
	if limit <= 0 {
		limit = Max
	}
	return &Budget{log: log, limit: limit}
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

// warnFull logs that the budget is full, once in fullEvery.
func (b *Budget) warnFull(now time.Time, group string, n int64) {
	last := b.warned.Load()
	if last != 0 && now.UnixNano()-last < int64(fullEvery) || !b.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	const shown = 100 // bytes of a group's name
	b.log.Warn("the memory for consumer groups is full: requests that need more of it are refused; look for groups with too many members, offsets or too much metadata, or raise leat.group.memory.bytes",
		slog.String("group", group[:min(len(group), shown)]), slog.Int64("needed", n),
		slog.Int64("used", b.used.Load()), slog.Int64("limit", b.limit))
}

// Account has the bytes of one machine. While the machine loads they do not count in
// the budget, since a load that fails is thrown away. They count from JoinBudget to
// LeaveBudget. The lock of the machine guards it.
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

// Take takes n bytes if there is room for them, and tells whether there was. A negative
// n gives bytes back, for which there is always room.
func (a *Account) Take(n int64) bool {
	switch {
	case n <= 0:
		a.Add(n)
		return true
	case !a.joined: // a load must not fail: its records were acknowledged
		a.held += n
		return true
	case !a.total.takeIfFree(n):
		return false
	}
	a.held += n
	return true
}

// Room is about how many bytes Take would take.
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

// LeaveBudget ends the counting of the account's bytes in the budget.
func (a *Account) LeaveBudget() {
	if a.joined {
		a.joined = false
		a.total.used.Add(-a.held)
	}
}

// Reserve is Take for a group; it logs that there is no room.
func (a *Account) Reserve(now time.Time, group string, n int64) bool {
	if a.Take(n) {
		return true
	}
	a.WarnFull(now, group, n)
	return false
}

// WarnFull logs that the budget has no room for n bytes of a group, now and then.
func (a *Account) WarnFull(now time.Time, group string, n int64) { a.total.warnFull(now, group, n) }

// Held is how many bytes the account has.
func (a *Account) Held() int64 { return a.held }

// Free is how many bytes may still be taken.
func (b *Budget) Free() int64 { return b.limit - b.used.Load() }

// Used is how many bytes all accounts have that joined the budget.
func (b *Budget) Used() int64 { return b.used.Load() }
