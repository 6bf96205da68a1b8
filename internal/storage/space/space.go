// Package space keeps the file system from filling up: Space refuses appends while a reserve
// is still free, so that a checkpoint, a recovery and a deletion always have room. It counts
// free bytes down as they are written and asks the file system now and then, not once an
// append. It is safe for concurrent use.
package space

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// ErrFull is returned for an append that would use the reserved space; nothing was stored.
var ErrFull = errors.New("disk full")

// defaultReserve is the number of bytes that are reserved where nobody says; on a small file
// system it is a 16th.
const defaultReserve = 128 << 20

// Space is the free space of one file system.
type Space struct {
	fs      vfs.FS
	dir     string
	reserve int64
	log     *slog.Logger
	left    atomic.Int64 // bytes that appends may still take, as far as is known

	mu     sync.Mutex
	looked time.Time // guarded by mu: when the file system was last asked
	tight  bool      // guarded by mu: there was less than lookEvery then
	full   bool      // guarded by mu: appends were refused
	told   time.Time // guarded by mu: when the operator was told so
	owes   bool      // guarded by mu: the operator is still to be told that there is room again
}

const (
	lookEvery = 64 << 20               // bytes appended until the file system is asked again
	lookPause = 100 * time.Millisecond // between two looks while it is full
	tellPause = time.Minute            // between two times that the operator is told: a quota or missing inodes refuse where bytes are free
	stayFull  = 2 * time.Second        // after a refusal, even where bytes are free: a quota or missing inodes show for as long as somebody appends
	roomAgain = 16 << 20               // free beyond the reserve, or as much as that: then there is room again
)

// New asks a file system for the first time. reserve is the number of bytes below dir that
// appends leave free; 0: as is usual.
func New(fs vfs.FS, dir string, reserve int64, log *slog.Logger) *Space {
	s := &Space{fs: fs, dir: dir, reserve: reserve, log: log}
	s.Look()
	return s
}

// Look asks the file system. Between looks at most lookEvery bytes are let through.
func (s *Space) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = time.Now()
	avail, total, err := s.fs.Free(s.dir)
	if err != nil {
		s.tight = false
		s.left.Store(lookEvery) // it cannot say: a write that fails will
		return
	}
	reserve := s.reserve
	if reserve <= 0 {
		reserve = min(defaultReserve, total/16)
	}
	s.tight = avail-reserve < lookEvery
	s.left.Store(min(avail-reserve, lookEvery))
	if s.full && avail-reserve >= min(roomAgain, reserve) {
		s.full = false
		if s.owes {
			s.owes = false
			s.log.Info("there is room on the disk again", "dir", s.dir, "free", avail)
		}
	}
}

// tell has the operator know: once until there is room again, and once in tellPause.
func (s *Space) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.full
	s.full = true
	if was || time.Since(s.told) < tellPause {
		return
	}
	s.told, s.owes = time.Now(), true
	avail, _, _ := s.fs.Free(s.dir)
	s.log.Error("the disk is full: records are refused until there is room; free some space or delete topics",
		"dir", s.dir, "free", avail)
}

// Take lets an append of n bytes through, or returns ErrFull.
func (s *Space) Take(n int64) error {
	if s.left.Add(-n) >= 0 {
		return nil
	}
	s.mu.Lock()
	look := !s.tight || time.Since(s.looked) >= lookPause
	s.mu.Unlock()
	if look {
		s.Look()
		if s.left.Add(-n) >= 0 {
			return nil
		}
	}
	s.left.Add(n)
	s.tell()
	return fmt.Errorf("%w: the rest of the file system is reserved; free some space or delete topics", ErrFull)
}

// NoteRefusal looks again after a call of the file system was refused for want of room.
func (s *Space) NoteRefusal() {
	s.Look()
	s.tell()
}

// IsFull tells whether appends are refused. Room that was made while nobody appends is found
// here.
func (s *Space) IsFull() bool {
	s.mu.Lock()
	again := s.full && time.Since(s.looked) >= stayFull
	s.mu.Unlock()
	if again {
		s.Look()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// HasRoomFor tells whether n bytes may be taken for something that can be done without.
func (s *Space) HasRoomFor(n int64) bool {
	avail, total, err := s.fs.Free(s.dir)
	return err == nil && avail > n+2*max(s.reserve, min(defaultReserve, total/16))
}
