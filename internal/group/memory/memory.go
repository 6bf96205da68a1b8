// Package memory counts what groups keep in memory. A Budget is what all groups that a
// node coordinates may keep, an Account one machine's part of it.
//
// A Budget is safe for concurrent use; an Account is guarded as its machine is.
package memory

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Max is how many bytes the groups that a node coordinates may keep there, unless
// a Config says otherwise: their members' names, ids, protocols and assignments, the
// topics that they consume, and the offsets that they have committed.
const Max = 256 << 20

// fullEvery is how often it is said that something is refused.
const fullEvery = 10 * time.Second

// Budget is the memory that groups may take on this node. All machines of a
// Service share it. What is recorded is always taken, so that it may be overdrawn.
// Safe for concurrent use.
type Budget struct {
	log    *slog.Logger
	limit  int64
	used   atomic.Int64
	warned atomic.Int64 // ns; when it was last said that it is full; 0: never
}

// NewBudget makes a budget; a limit of 0 means Max.
func NewBudget(log *slog.Logger, limit int64) *Budget {
	if limit <= 0 {
		limit = Max
	}
	return &Budget{log: log, limit: limit}
}

// take takes n bytes where there is room for them.
func (b *Budget) take(n int64) bool {
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
func (b *Budget) refused(now time.Time, group string, n int64) {
	last := b.warned.Load()
	if last != 0 && now.UnixNano()-last < int64(fullEvery) || !b.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	const shown = 100 // bytes of a group's name
	b.log.Warn("the memory for consumer groups is full: what would need more of it is refused; look for groups with too many members, offsets or too much metadata, or raise leat.group.memory.bytes",
		slog.String("group", group[:min(len(group), shown)]), slog.Int64("needed", n),
		slog.Int64("used", b.used.Load()), slog.Int64("limit", b.limit))
}

// Account is one machine's part of the budget. A machine that still loads may never
// be opened, or be thrown away: it counts on its own and joins the budget when it is
// loaded. Guarded as its machine is.
type Account struct {
	total *Budget
	held  int64
	open  bool // held is part of what the budget has given
}

// NewAccount opens an account of a machine that still loads.
func NewAccount(total *Budget) *Account { return &Account{total: total} }

// Add takes n bytes, or gives them back, whether there is room or not.
func (a *Account) Add(n int64) {
	a.held += n
	if a.open {
		a.total.used.Add(n)
	}
}

// Take takes n more bytes where there is room. Giving back always works.
func (a *Account) Take(n int64) bool {
	switch {
	case n <= 0:
		a.Add(n)
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

// Room is about how much may be taken.
func (a *Account) Room() int64 {
	if !a.open {
		return a.total.Free() - a.held
	}
	return a.total.Free()
}

// Enter makes what a loaded machine holds part of the budget.
func (a *Account) Enter() {
	if !a.open {
		a.open = true
		a.total.used.Add(a.held)
	}
}

// Leave gives everything back.
func (a *Account) Leave() {
	if a.open {
		a.open = false
		a.total.used.Add(-a.held)
	}
}

// Reserve takes n more bytes for a group, or says that there is no room.
func (a *Account) Reserve(now time.Time, group string, n int64) bool {
	if a.Take(n) {
		return true
	}
	a.Refuse(now, group, n)
	return false
}

// Refuse says now and then that there is no room.
func (a *Account) Refuse(now time.Time, group string, n int64) { a.total.refused(now, group, n) }

// Held is how many bytes the account holds.
func (a *Account) Held() int64 { return a.held }

// Free is how many bytes may still be taken.
func (b *Budget) Free() int64 { return b.limit - b.used.Load() }

// Used is how many bytes all accounts hold.
func (b *Budget) Used() int64 { return b.used.Load() }
