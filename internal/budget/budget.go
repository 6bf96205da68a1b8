// Package budget bounds the work memory of a node, the processors that long work uses, and those that strangers can use (Turns).
// Work memory is all that a request makes the node hold beyond the request's own bytes:
// decoded structures, answers under construction, decoders and encoders, and the state of
// requests that wait.
//
// A Budget is all work memory of the node. It is divided between Classes, and no class can
// use the part of another one, so that a flood of one kind of work does not stop the other
// kinds. A Reservation is the memory of one piece of work, which is part of its class. It is
// made once, before the work begins, for all that the work may need, and may shrink but never
// grow.
//
//	       Reserve                      Release
//	new ------------> held --------------------------> released
//	  |                ^  \__ Shrink: holds less __/
//	  | no room        | its turn
//	  +---> waiting ---+
//	           |  the context ends
//	           +--------------------> refused
//
// Work that can never fit is refused at once (ErrTooLarge). Other work that does not fit
// waits, and is served in the order in which it came. Small work, which needs at most a
// sixteenth of its class, has a queue of its own and a quarter of the class that large work
// cannot use. While large work waits, small work can use only that quarter, so neither starves
// the other. Work that takes long counts as large even if it needs little (ReserveLarge).
//
// There is no deadlock, since the classes are ordered: work that holds a reservation may wait
// only for one of a later class. Work that holds a reservation of the class Codec waits only
// for a processor, and work that has a processor waits for nothing. Parked and Unsent come last,
// and no work waits for them (TryReserve): a request for which Parked has no room is not
// parked, and an answer for which Unsent has no room keeps the memory with which it was made,
// or is not sent. So a client that does not read takes memory from work only where Unsent is
// full.
//
// At most half of the processors run codecs, decode large commands or encode long answers at
// a time (Enter). Long work passes its processor on after each stretch (Pass), so that a batch
// that decompresses to a gigabyte does not hold up one of a kilobyte, and a hundred clients
// that ask for all topics do not hold up producers.
//
// Any goroutine may call anything here; a Reservation belongs to one goroutine at a time. Each
// class has one mutex and the processors have one; none is held while another one is taken.
package budget

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Class is a kind of work. Work that holds a reservation may wait only for one of a later
// class.
type Class uint8

// These are the classes, in the order in which one piece of work may reserve them.
const (
	Peer    Class = iota // requests of other nodes of the cluster
	Command              // clients' commands: metadata, topics, configs, groups
	Data                 // requests for records: produce, fetch and look-ups
	Batch                // whole batches of records, other than those in the bytes of a request
	Codec                // compression and decompression of records
	Mirror               // answers of other clusters whose topics are mirrored; its bytes are not part of Config.Bytes
	Parked               // requests that wait for records; its bytes are not part of Config.Bytes
	Unsent               // answers that are ready, until they were sent; it comes on top of Config.Bytes

	classes = int(Unsent) + 1
)

// String is the class's name in metrics.
func (c Class) String() string {
	return [classes]string{"peer", "command", "data", "batch", "codec", "mirror", "parked", "unsent"}[c]
}

// inSixteenths is how much the class has in sixteenths of Config.Bytes. Those of all classes
// but Unsent make up the whole.
func (c Class) inSixteenths() int64 {
	return [classes]int64{Peer: 1, Command: 3, Data: 2, Batch: 3, Codec: 7, Unsent: 2}[c]
}

// MinBytes is the lowest result of DefaultBytes. With less, a zstd frame with the window of
// 8 MiB that every decoder must accept would not fit.
const MinBytes = 32 << 20

// DefaultBytes gives a part of the available memory, up to mostBytes and perProcessor for
// each processor, since more codecs run on more processors.
const (
	availableShare = 6 // one sixth
	mostBytes      = 64 << 20
	perProcessor   = 16 << 20
)

// DefaultBytes is the default of Config.Bytes for a process that may use the available bytes
// of memory in all, on a number of processors.
func DefaultBytes(available int64, processors int) int64 {
	return min(max(available/availableShare, MinBytes), mostBytes+perProcessor*int64(processors))
}

// MostParkedBytes is the highest result of DefaultParkedBytes. Its seven eighths that large
// work may hold are enough to watch a million partitions, each of a topic of its own.
const MostParkedBytes = 172 << 20

// DefaultParkedBytes is the default of Config.Parked for a process that may use the available
// bytes of memory in all.
func DefaultParkedBytes(available int64) int64 {
	return min(available/10, MostParkedBytes)
}

// MostMirrorBytes is the highest result of DefaultMirrorBytes: several answers of 16 MiB, which keep a line busy whose round trip is long.
const (
	MostMirrorBytes    = 128 << 20
	leastMirrorBytes   = 8 << 20
	mirrorShare        = 32
	defaultMirrorBytes = 64 << 20
)

// DefaultMirrorBytes is the default of Config.Mirror for a process that may use the available bytes of memory in all.
func DefaultMirrorBytes(available int64) int64 {
	return min(max(available/mirrorShare, leastMirrorBytes), MostMirrorBytes)
}

// defaultBytes is the budget if nothing is known of the machine.
const defaultBytes = mostBytes + 2*perProcessor

// ErrTooLarge is returned for work that needs more memory than its class ever has.
var ErrTooLarge = errors.New("more work memory is needed than leat.work.memory.bytes allows")

// Config is the input of New; zero means the default.
type Config struct {
	Bytes      int64 // of all classes but Mirror, Parked and Unsent together; 96 MiB
	Parked     int64 // bytes of the class Parked; 172 MiB
	Mirror     int64 // bytes of the class Mirror; 64 MiB
	Processors int   // that may run long work at a time; half of the machine's, at least one
}

// Budget is the work memory of a node. The nil Budget has no limits: it is for
// programs that are not nodes.
type Budget struct {
	parts      [classes]part
	processors processors
}

// New makes a budget that is all free.
func New(cfg Config) *Budget {
	if cfg.Bytes <= 0 {
		cfg.Bytes = defaultBytes
	}
	if cfg.Parked <= 0 {
		cfg.Parked = MostParkedBytes
	}
	if cfg.Mirror <= 0 {
		cfg.Mirror = defaultMirrorBytes
	}
	if cfg.Processors <= 0 {
		cfg.Processors = max(1, min(runtime.GOMAXPROCS(0), runtime.NumCPU())/2)
	}
	b := new(Budget)
	for c := range b.parts {
		b.parts[c].setLimit(cfg.Bytes/16*Class(c).inSixteenths(), keptShare)
	}
	b.parts[Parked].setLimit(cfg.Parked, parkedShare)
	b.parts[Mirror].setLimit(cfg.Mirror, keptShare)
	b.processors.free = cfg.Processors
	return b
}

// Reservation is work memory that a piece of work holds. The zero value holds nothing. It
// belongs to one goroutine at a time. It may be copied only to hand it over: the original must
// not be used after that.
type Reservation struct {
	part  *part
	bytes int64
	large bool
}

// Reserve reserves n bytes of the class, and waits until they are free for the caller. The
// errors are ErrTooLarge, if they never will be, and the context's. It allocates only if it
// must wait.
func (b *Budget) Reserve(ctx context.Context, c Class, n int64) (Reservation, error) {
	return b.reserveOrWait(ctx, c, n, false)
}

// ReserveLarge is Reserve for work that takes long and therefore counts as large even if it
// needs little, so that small work does not wait for it.
func (b *Budget) ReserveLarge(ctx context.Context, c Class, n int64) (Reservation, error) {
	return b.reserveOrWait(ctx, c, n, true)
}

func (b *Budget) reserveOrWait(ctx context.Context, c Class, n int64, long bool) (Reservation, error) {
	if b == nil || n <= 0 {
		return Reservation{}, nil
	}
	p := &b.parts[c]
	large, err := p.isLarge(c, n)
	if err != nil {
		return Reservation{}, err
	}
	large = large || long
	if w := p.takeOrQueue(large, n); w != nil {
		select {
		case <-w.granted:
		case <-ctx.Done():
			p.abandonWait(w)
			return Reservation{}, ctx.Err()
		}
	}
	return Reservation{p, n, large}, nil
}

// TryReserve reserves n bytes if they are free now and no other work waits for them. It is for
// work that can go on with less memory, or can do something else first.
func (b *Budget) TryReserve(c Class, n int64) (r Reservation, ok bool) {
	return b.tryReserve(c, n, false)
}

// TryReserveLarge is TryReserve for work that counts as large even if it needs little, so that
// a quarter of the class, or an eighth of Parked, is left to other work.
func (b *Budget) TryReserveLarge(c Class, n int64) (r Reservation, ok bool) {
	return b.tryReserve(c, n, true)
}

func (b *Budget) tryReserve(c Class, n int64, long bool) (r Reservation, ok bool) {
	if b == nil || n <= 0 {
		return Reservation{}, true
	}
	p := &b.parts[c]
	large, err := p.isLarge(c, n)
	large = large || long
	if err != nil || !p.tryTake(large, n) {
		return Reservation{}, false
	}
	return Reservation{p, n, large}, true
}

// Bytes is the number of bytes that are held.
func (r *Reservation) Bytes() int64 { return r.bytes }

// Shrink keeps n bytes of the reservation and gives the others back. It does nothing if at
// most n are held.
func (r *Reservation) Shrink(n int64) {
	if n = max(n, 0); r.part != nil && n < r.bytes {
		r.part.giveBack(r.large, r.bytes-n)
		r.bytes = n
	}
}

// Release gives everything back. A second call does nothing.
func (r *Reservation) Release() {
	if r.part != nil {
		r.part.giveBack(r.large, r.bytes)
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

// Usage is how much of a class is held now.
func (b *Budget) Usage(c Class) Usage {
	if b == nil {
		return Usage{}
	}
	return b.parts[c].measureUsage()
}

// TakePeak is the most bytes of a class that were held at a time since the last call.
func (b *Budget) TakePeak(c Class) int64 {
	if b == nil {
		return 0
	}
	return b.parts[c].takePeak()
}

func tooLargeError(c Class, n, most int64) error {
	return fmt.Errorf("%w: %d bytes of the class %q, which can give %d to one request", ErrTooLarge, n, c, most)
}
