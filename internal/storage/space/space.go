// Package space keeps the file system from filling up. A Space refuses appends while a reserve
// is still free, so that a checkpoint, a recovery and a deletion always have room. It counts
// the appended bytes and asks the file system for free space only now and then, not for each
// append. Any goroutine may call anything here.
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

// ErrFull says that an append would use the reserve; nothing was stored.
var ErrFull = errors.New("disk full")

// defaultReserve is the default reserve in bytes; a file system of less than 16 times as much
// reserves a 16th of itself.
const defaultReserve = 128 << 20

// Space is the free space of one file system.
type Space struct {
	fs      vfs.FS
	dir     string
	reserve int64
	log     *slog.Logger
	left    atomic.Int64 // bytes that appends may use until the next look

	mu     sync.Mutex
	looked time.Time // guarded by mu: when the file system was last asked
	tight  bool      // guarded by mu: it had less than lookEvery bytes beyond the reserve then
	full   bool      // guarded by mu: appends were refused, and no look has found room since
	warned time.Time // guarded by mu: when "the disk is full" was last logged
	owes   bool      // guarded by mu: after that log line, "there is room again" is to be logged
}

// A quota, or a lack of inodes, refuses appends although bytes are free. So looks that find
// room may come between two refusals: stayFull keeps the state full for a while then, and
// warnPause bounds how often it is logged.
const (
	lookEvery = 64 << 20               // appended bytes after which the file system is asked again
	lookPause = 100 * time.Millisecond // between two looks while little space is free
	warnPause = time.Minute            // between two log lines that the disk is full
	stayFull  = 2 * time.Second        // how long IsFull is true after a refusal, at least
	roomAgain = 16 << 20               // free bytes beyond the reserve, or as many as the reserve, that end the state full
)

// New makes the Space of the file system with dir and asks it for the first time. reserve is the
// number of bytes that appends leave free; 0: the default.
func New(fs vfs.FS, dir string, reserve int64, log *slog.Logger) *Space {
	s := &Space{fs: fs, dir: dir, reserve: reserve, log: log}
	s.Look()
	return s
}

// Look asks the file system how much is free. Until the next look, appends may use at most
// lookEvery bytes.
func (s *Space) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = time.Now()
	avail, total, err := s.fs.Free(s.dir)
	if err != nil {
		s.tight = false
		s.left.Store(lookEvery) // unknown: a write fails if there is no space
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

// becomeFull notes a refusal. It logs the first one after there was room, but not more often
// than once in warnPause.
func (s *Space) becomeFull() {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.full
	s.full = true
	if was || time.Since(s.warned) < warnPause {
		return
	}
	s.warned, s.owes = time.Now(), true
	avail, _, _ := s.fs.Free(s.dir)
	s.log.Error("the disk is full: records are refused until there is room; free some space or delete topics",
		"dir", s.dir, "free", avail)
}

// Take counts the n bytes of an append, or refuses it with ErrFull.
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
	s.becomeFull()
	return fmt.Errorf("%w: the rest of the file system is reserved; free some space or delete topics", ErrFull)
}

// NoteRefusal is called when the file system has refused a call for lack of space.
func (s *Space) NoteRefusal() {
	s.Look()
	s.becomeFull()
}

// IsFull tells whether appends are refused. It looks again after stayFull, so that it finds
// room even if there are no appends.
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

// HasRoomFor tells whether there is room for n bytes that are not essential.
func (s *Space) HasRoomFor(n int64) bool {
	avail, total, err := s.fs.Free(s.dir)
	return err == nil && avail > n+2*max(s.reserve, min(defaultReserve, total/16))
}
