package storage

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// space keeps the file system from filling up: appends stop while the reserve is
// still free, so that a checkpoint, a recovery and a deletion always have room. It
// counts free bytes down as they are written and looks at the file system now and
// then, not once an append.
type space struct {
	fs      vfs.FS
	dir     string
	reserve int64
	log     *slog.Logger
	left    atomic.Int64 // bytes that appends may still take, as far as is known

	mu     sync.Mutex
	looked time.Time // guarded by mu: when the file system was last asked
	tight  bool      // guarded by mu: there was less than lookEvery then
	full   bool      // guarded by mu: appends were refused, and the operator was told
	told   time.Time // guarded by mu: when
}

const (
	lookEvery = 64 << 20               // bytes appended until the file system is asked again
	lookPause = 100 * time.Millisecond // between two looks while it is full
	tellPause = time.Minute            // between two times that the operator is told: a quota or missing inodes refuse where bytes are free
	roomAgain = 16 << 20               // free beyond the reserve, or as much as that: then there is room again
)

func (s *space) init(fs vfs.FS, dir string, reserve int64, log *slog.Logger) {
	s.fs, s.dir, s.reserve, s.log = fs, dir, reserve, log
	s.look()
}

// look asks the file system. Between looks at most lookEvery bytes are let through.
func (s *space) look() {
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
		s.log.Info("there is room on the disk again", "dir", s.dir, "free", avail)
	}
}

// tell has the operator know: once until there is room again, and once in tellPause.
func (s *space) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full || time.Since(s.told) < tellPause {
		return
	}
	s.full, s.told = true, time.Now()
	avail, _, _ := s.fs.Free(s.dir)
	s.log.Error("the disk is full: records are refused until there is room; free some space or delete topics",
		"dir", s.dir, "free", avail)
}

// take lets an append of n bytes through, or returns ErrDiskFull.
func (s *space) take(n int64) error {
	if s.left.Add(-n) >= 0 {
		return nil
	}
	s.mu.Lock()
	look := !s.tight || time.Since(s.looked) >= lookPause
	s.mu.Unlock()
	if look {
		s.look()
		if s.left.Add(-n) >= 0 {
			return nil
		}
	}
	s.left.Add(n)
	s.tell()
	return fmt.Errorf("%w: the rest of the file system is reserved; free some space or delete topics", ErrDiskFull)
}

// check looks again where an error says that the disk is full.
func (s *space) check(err error) {
	if isFull(err) {
		s.look()
		s.tell()
	}
}

// isFull tells whether appends are refused.
func (s *space) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// hasRoomFor tells whether n bytes may be taken for something that can be done without.
func (s *space) hasRoomFor(n int64) bool {
	avail, total, err := s.fs.Free(s.dir)
	return err == nil && avail > n+2*max(s.reserve, min(defaultReserve, total/16))
}
