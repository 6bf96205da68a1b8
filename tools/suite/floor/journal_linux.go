package main

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	block     = 4096 // of direct writes
	entryHead = 8    // of a batch in the journal: its partition and its length
)

// journal makes the batches of all partitions durable by one write: into a ring of
// blocks that were written before, so that no sync has to make space, and around the
// page cache, which has them for the partitions' files already. Those are synced
// in the background each time half of the ring was used.
type journal struct {
	fd   int
	size int64
	sync func() error // the partitions' files

	mu    sync.Mutex
	round []byte // what the next write takes, at the start of a block
	added int64  // bytes

	writing sync.Mutex
	written int64       // as added, when the last write began; this and what follows is guarded by writing
	spare   []byte      // the other round
	at      int64       // where the next write goes
	half    int64       // bytes since the last checkpoint began
	check   chan error  // has the result of the last one
	zero    [block]byte // fills a round's last block
}

// newJournal makes one of so many MiB.
func newJournal(name string, mebibytes int64, sync func() error) (*journal, error) {
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT|unix.O_DSYNC, 0o640)
	if err != nil {
		return nil, err
	}
	j := &journal{fd: fd, size: mebibytes << 20, sync: sync, check: make(chan error, 1)}
	j.check <- nil
	zero := aligned(1 << 20)[:1<<20]
	for at := int64(0); at < j.size; at += int64(len(zero)) {
		if _, err := unix.Pwrite(fd, zero, at); err != nil {
			return nil, err
		}
	}
	j.round, j.spare = aligned(1<<20), aligned(1<<20)
	return j, nil
}

// aligned makes an empty slice that begins at the start of a block.
func aligned(n int) []byte {
	b := make([]byte, n+block)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (block - 1)
	return b[skip : skip : skip+n]
}

// add puts batches of a partition into the coming round.
func (j *journal) add(partition int32, batches []unix.Iovec) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range batches {
		b := unsafe.Slice(batches[i].Base, batches[i].Len)
		if need := len(j.round) + entryHead + len(b) + block; need > cap(j.round) {
			j.round = append(aligned(2*need), j.round...)
		}
		j.round = be.AppendUint32(be.AppendUint32(j.round, uint32(partition)), uint32(len(b)))
		j.round = append(j.round, b...)
		j.added += int64(len(b))
	}
}

// commit returns when all that was added before is durable: whoever holds the lock
// writes for all.
func (j *journal) commit() error {
	j.mu.Lock()
	want := j.added
	j.mu.Unlock()
	j.writing.Lock()
	defer j.writing.Unlock()
	if j.written >= want {
		return nil
	}
	j.mu.Lock()
	now, b := j.added, j.round
	j.round = j.spare[:0]
	j.mu.Unlock()
	j.spare = b
	b = append(b, j.zero[:-len(b)&(block-1)]...)
	if int64(len(b)) > j.size/2 {
		return errors.New("the journal is too small")
	}
	if left := j.size - j.at; int64(len(b)) > left {
		j.at = 0
		j.half += left
	}
	if j.half += int64(len(b)); j.half > j.size/2 {
		if err := <-j.check; err != nil { // what is overwritten next must be in the files
			return err
		}
		j.half = int64(len(b))
		go func() { j.check <- j.sync() }()
	}
	if _, err := unix.Pwrite(j.fd, b, j.at); err != nil {
		return err
	}
	j.at += int64(len(b))
	j.written = now
	return nil
}
