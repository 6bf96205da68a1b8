// Package budget decides who may hold how much work memory, and who waits. Work
// memory is all that a request makes the node hold beyond the request's own bytes:
// decoded structures, answers under construction, decoders and encoders, and the
// state of answers that wait.
//
// A Budget is the node's one pot. It is parted between Classes, and no class can
// take the part of another one, so that a flood of one kind of work leaves the
// other kinds alone. A Reservation is a piece of work's share of its class. It is
// for all that the work may need, is made once, before the work begins, and may
// shrink but never grow.
//
//	         Reserve                       Release
//	asked ------------> held ----------------------------> gone
//	  |                  ^  \___ Shrink: holds less ___/
//	  | no room          | its turn
//	  +----> waiting ----+
//	            |  the context ends
//	            +--------------------> refused
//
// Work that could never fit is refused at once (ErrTooLarge). All other work that
// does not fit waits, first come first served. Small work (at most a sixteenth of
// its class) has a line of its own and a quarter that large work cannot take; while
// large work waits, small work has only that quarter, so neither starves the other.
// Work that takes long counts as large whatever it needs (ReserveLarge).
//
// No deadlock is possible by construction: the classes are ordered, and who holds
// a reservation may ask for one of a later class only. The holder of a
// reservation of the last class, Codec, waits for nothing but its turn on a
// processor, and who has that waits for nothing at all. Parked comes last, but nobody waits
// for it (TryReserve): work for which it has no room goes on without being parked.
//
// Processors are shared likewise: at most half of them run codecs, decode large
// commands or encode long answers at a time (Enter), and long work passes its
// processor on after each stretch (Pass), so that a batch that decompresses to a
// gigabyte does not hold up one of a kilobyte, and a hundred clients that ask for all
// topics do not hold up those that produce.
//
// Everything here may be called by any goroutine. Each class has one mutex and the
// processors have one; none of them is held while another one is taken.
package budget

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Class is a kind of work. Who holds a reservation may wait for one of a later
// class only.
type Class uint8

// The classes, in the order in which they may be held together.
const (
	Peer    Class = iota // requests of other nodes of the cluster
	Command              // clients' commands: metadata, topics, configs, groups
	Data                 // requests for records: produce, fetch and look-ups
	Batch                // whole batches of records, beside those that a request brought
	Codec                // decompressing and compressing of records
	Parked               // requests that wait for records to come; it has bytes of its own

	classes = int(Parked) + 1
)

// String is the class's name in metrics.
func (c Class) String() string {
	return [classes]string{"peer", "command", "data", "batch", "codec", "parked"}[c]
}

// sixteenths is the part of Config.Bytes that the class has.
func (c Class) sixteenths() int64 {
	return [classes]int64{Peer: 1, Command: 3, Data: 2, Batch: 3, Codec: 7}[c]
}

// MinBytes is the least that DefaultBytes gives. With less, a zstd frame with the
// window of 8 MiB that every decoder must accept would not fit.
const MinBytes = 32 << 20

// What DefaultBytes gives at most: codecs need so much more with each processor.
const (
	availableShare = 6 // of the memory that the process may use, one in so many
	mostBytes      = 64 << 20
	perProcessor   = 16 << 20
)

// DefaultBytes is the budget of a process that may use so much memory in all, on so
// many processors.
func DefaultBytes(available int64, processors int) int64 {
	return min(max(available/availableShare, MinBytes), mostBytes+perProcessor*int64(processors))
}

// MostParkedBytes is the most that DefaultParkedBytes gives: enough for a million partitions
// that are watched, in the three quarters that may be watched.
const MostParkedBytes = 144 << 20

// DefaultParkedBytes is how much the requests that wait for records may hold in a process that
// may use so much memory in all. They can sleep with less (see broker), where other work has
// to wait.
func DefaultParkedBytes(available int64) int64 {
	return min(available/8, MostParkedBytes)
}

// defaultBytes is the budget where nothing is known of the machine.
const defaultBytes = mostBytes + 2*perProcessor

// ErrTooLarge is returned for work that needs more memory than its class ever has.
var ErrTooLarge = errors.New("more work memory is needed than leat.work.memory.bytes allows")

// Config is what a budget is made from; zero means the default.
type Config struct {
	Bytes      int64 // of all classes but Parked together; 96 MiB
	Parked     int64 // bytes of the class Parked; 144 MiB
	Processors int   // that may run work of length at a time; half of the machine's, at least one
}

// Budget is the work memory of a node. The nil Budget has no limits: it is for
// programs that are not nodes.
type Budget struct {
	parts      [classes]part
	processors processors
}

// New makes a budget of which nothing is held.
func New(cfg Config) *Budget {
	if cfg.Bytes <= 0 {
		cfg.Bytes = defaultBytes
	}
	if cfg.Parked <= 0 {
		cfg.Parked = MostParkedBytes
	}
	if cfg.Processors <= 0 {
		cfg.Processors = max(1, min(runtime.GOMAXPROCS(0), runtime.NumCPU())/2)
	}
	b := new(Budget)
	for c := range b.parts {
		b.parts[c].setLimit(cfg.Bytes / 16 * Class(c).sixteenths())
	}
	b.parts[Parked].setLimit(cfg.Parked)
	b.processors.free = cfg.Processors
	return b
}

// Reservation is work memory that a piece of work holds. The zero value holds
// nothing. It belongs to one goroutine at a time and must not be copied while it is
// held, but for handing it over.
type Reservation struct {
	part  *part
	bytes int64
	large bool
}

// Reserve waits until n bytes of the class are free for the caller. The errors are
// ErrTooLarge, where that will never be, and the context's. It allocates only
// where it has to wait.
func (b *Budget) Reserve(ctx context.Context, c Class, n int64) (Reservation, error) {
	return b.reserve(ctx, c, n, false)
}

// ReserveLarge is Reserve for work that counts as large whatever it needs, since it
// takes long: small work must not wait for it.
func (b *Budget) ReserveLarge(ctx context.Context, c Class, n int64) (Reservation, error) {
	return b.reserve(ctx, c, n, true)
}

func (b *Budget) reserve(ctx context.Context, c Class, n int64, long bool) (Reservation, error) {
	if b == nil || n <= 0 {
		return Reservation{}, nil
	}
	p := &b.parts[c]
	large, err := p.size(c, n)
	if err != nil {
		return Reservation{}, err
	}
	large = large || long
	if w := p.take(large, n); w != nil {
		select {
		case <-w.granted:
		case <-ctx.Done():
			p.abandon(w)
			return Reservation{}, ctx.Err()
		}
	}
	return Reservation{p, n, large}, nil
}

// TryReserve reserves n bytes where they are free now and nobody waits for them.
// It is for work that can do with less, or can do something else first.
func (b *Budget) TryReserve(c Class, n int64) (r Reservation, ok bool) {
	return b.tryReserve(c, n, false)
}

// TryReserveLarge is TryReserve for work that counts as large whatever it needs, so that it
// leaves a quarter of the class to other work.
func (b *Budget) TryReserveLarge(c Class, n int64) (r Reservation, ok bool) {
	return b.tryReserve(c, n, true)
}

func (b *Budget) tryReserve(c Class, n int64, long bool) (r Reservation, ok bool) {
	if b == nil || n <= 0 {
		return Reservation{}, true
	}
	p := &b.parts[c]
	large, err := p.size(c, n)
	large = large || long
	if err != nil || !p.tryTake(large, n) {
		return Reservation{}, false
	}
	return Reservation{p, n, large}, true
}

// Bytes is how much is held.
func (r *Reservation) Bytes() int64 { return r.bytes }

// Shrink keeps n bytes of the reservation and gives the others back. It does
// nothing where no more than n are held.
func (r *Reservation) Shrink(n int64) {
	if n = max(n, 0); r.part != nil && n < r.bytes {
		r.part.give(r.large, r.bytes-n)
		r.bytes = n
	}
}

// Release gives everything back. A second call does nothing.
func (r *Reservation) Release() {
	if r.part != nil {
		r.part.give(r.large, r.bytes)
		*r = Reservation{}
	}
}

// Most is the largest reservation that the class can ever grant.
func (b *Budget) Most(c Class) int64 {
	if b == nil {
		return 1<<63 - 1
	}
	return b.parts[c].forLarge
}

// Usage is the state of a class at one moment.
type Usage struct {
	Limit   int64 // bytes of the class
	Used    int64 // bytes that are held
	Waiting int   // pieces of work that wait
}

// Usage tells what is held of a class.
func (b *Budget) Usage(c Class) Usage {
	if b == nil {
		return Usage{}
	}
	return b.parts[c].usage()
}

func tooLarge(c Class, n, most int64) error {
	return fmt.Errorf("%w: %d bytes of the class %q, which can give %d to one request", ErrTooLarge, n, c, most)
}
