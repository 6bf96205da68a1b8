package storage

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestCloseBesideTruncate proves that a truncation which is under way when the store is closed
// comes to its end: it holds its log, for which Close waits, and waits itself for a round that
// is handed to a loop.
func TestCloseBesideTruncate(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	reached, release := make(chan struct{}), make(chan struct{})
	s, err := openDir(testConfig(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if op == vfs.OpWrite && strings.HasSuffix(path, ".ring") && armed.Swap(false) {
			close(reached)
			<-release
		}
		return nil
	}), "data"))
	if err != nil {
		t.Fatal(err)
	}
	s.commit.start() // but not the keeper, which may be the one that waits for the truncation
	first, cut := testLog(s, 1, testOptions()), testLog(s, 2, testOptions())
	mustAppend(t, cut, batch(t, 0, 1, 10))
	mustAppend(t, cut, batch(t, 1, 1, 10))
	s.Commit()

	armed.Store(true)
	truncated, closed := make(chan error, 1), make(chan error, 1)
	go func() { truncated <- cut.Truncate(1) }()
	<-reached
	s.Commit() // the truncation's round is to be followed by another one
	go func() { closed <- s.Close() }()
	for { // logs are closed in the order of their ids: the next one is that which is truncated
		if _, err := first.End(); errors.Is(err, ErrClosed) {
			break
		}
		runtime.Gosched()
	}
	close(release)
	for _, end := range []chan error{truncated, closed} {
		select {
		case err := <-end:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("neither the truncation nor Close came to its end")
		}
	}
	if end := cut.end.Next; end != 1 {
		t.Errorf("the log ends at %d", end)
	}
}
