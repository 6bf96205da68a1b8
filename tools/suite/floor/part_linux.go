package main

import (
	"errors"
	"os"
	"slices"
	"sort"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Places in a record batch.
const (
	atCRC        = 17
	atAttributes = 21
	atCount      = 57
	batchHead    = 61
)

// part is a partition: a file of batches and where they are in it.
type part struct {
	cfg  *config
	name string

	mu    sync.Mutex
	fd    int
	pos   int64 // where the next batch goes
	next  int64 // offset
	spans []span
	wrote int64     // bytes
	idle  []*waiter // fetches that found nothing

	syncing sync.Mutex
	synced  int64 // as wrote, when the last sync began; guarded by syncing
}

// span is a batch in the file.
type span struct{ base, next, pos, size int64 }

func (p *part) open() error {
	fd, err := unix.Open(p.name, unix.O_CREAT|unix.O_RDWR|unix.O_TRUNC|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return err
	}
	if p.cfg.allocate {
		if err := unix.Fallocate(fd, 0, 0, p.cfg.ring<<20); err != nil {
			return err
		}
	}
	p.fd = fd
	return nil
}

func (p *part) remove() error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil
	}
	err := errors.Join(unix.Close(p.fd), os.Remove(p.name))
	p.fd, p.spans = -1, nil
	return err
}

// take gives a batch its offset.
func (p *part) take(batch []byte) (base int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	base = p.next
	p.next += int64(be.Uint32(batch[atCount:]))
	be.PutUint64(batch, uint64(base))
	return base
}

// append writes batches, in one call.
func (p *part) append(batches []unix.Iovec) error {
	if p.cfg.store == "discard" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var total int64
	for i := range batches {
		total += int64(batches[i].Len)
	}
	if p.cfg.ring > 0 && p.pos+total > p.cfg.ring<<20 {
		p.pos, p.spans = 0, p.spans[:0]
		if !p.cfg.recycle {
			if err := errors.Join(unix.Close(p.fd), os.Remove(p.name), p.open()); err != nil {
				return err
			}
		}
	}
	// By hand: unix.Pwritev makes a new list of what is in ours.
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, uintptr(p.fd), uintptr(unsafe.Pointer(&batches[0])), uintptr(len(batches)), uintptr(p.pos), 0, 0)
	if errno != 0 {
		return errno
	}
	if int64(n) != total {
		return unix.ENOSPC
	}
	for i := range batches {
		b := unsafe.Slice(batches[i].Base, batches[i].Len)
		base := int64(be.Uint64(b))
		p.spans = append(p.spans, span{base, base + int64(be.Uint32(b[atCount:])), p.pos, int64(len(b))})
		p.pos += int64(len(b))
	}
	p.wrote += total
	return nil
}

// wake answers the fetches that wait for what was appended.
func (p *part) wake() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, w := range idle {
		w.answer()
	}
}

// commit makes what was written so far durable: whoever holds the lock syncs for
// all who wrote before.
func (p *part) commit() error {
	p.mu.Lock()
	want := p.wrote
	p.mu.Unlock()
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.synced >= want {
		return nil
	}
	p.mu.Lock()
	now, fd := p.wrote, p.fd
	p.mu.Unlock()
	if fd < 0 {
		return nil // it was deleted
	}
	if err := unix.Fdatasync(fd); err != nil {
		return err
	}
	p.synced = now
	return nil
}

// stretch is a part of the file, and the offset at which the partition ends.
type stretch struct {
	fd            int
	at, size, end int64
}

// find gives the stretch of the file from an offset on, whole batches of at most
// limit bytes, or one that is larger; its size is 0 where there is none. Then w,
// if there is one, is answered by the next append.
func (p *part) find(off, limit int64, w *waiter) stretch {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stretchLocked(off, limit)
	if s.size == 0 && w != nil {
		p.idle = append(p.idle, w)
	}
	return s
}

// forget tells whether the waiter was still there; if so it is the caller's.
func (p *part) forget(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.idle, w)
	if i < 0 {
		return false
	}
	p.idle = slices.Delete(p.idle, i, i+1)
	return true
}

func (p *part) stretchLocked(off, limit int64) (s stretch) {
	s.fd = p.fd
	if len(p.spans) > 0 {
		s.end = p.spans[len(p.spans)-1].next
	}
	i := sort.Search(len(p.spans), func(i int) bool { return p.spans[i].next > off })
	if i == len(p.spans) {
		return s
	}
	s.at, s.size = p.spans[i].pos, p.spans[i].size
	j := sort.Search(len(p.spans), func(k int) bool { return p.spans[k].pos+p.spans[k].size > s.at+limit }) - 1
	if j > i {
		s.size = p.spans[j].pos + p.spans[j].size - s.at
	}
	return s
}

// offset is the first one that can be read (when is -2), or the next.
func (p *part) offset(when int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if when == -2 && len(p.spans) > 0 {
		return p.spans[0].base
	}
	return p.next
}
