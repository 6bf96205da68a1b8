package storage

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// TestConcurrent proves (under -race) that appenders, readers, commits, retention,
// checkpoints and deletions go on at the same time, that every commit is reported,
// and that readers see each log without a gap.
func TestConcurrent(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		t.Run(name, func(t *testing.T) { concurrent(t, fs, name) })
	}
}

func concurrent(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	cfg := testConfig(fs, t.TempDir())
	if name == "mem" {
		cfg.Dir = "data"
	}
	cfg.CheckpointEvery, cfg.RetentionEvery = 2*time.Millisecond, 3*time.Millisecond
	logs, batches := 6, 100
	if name == "os" {
		cfg.CheckpointEvery, batches = 50*time.Millisecond, 30
	}
	s := openStore(t, cfg)
	var writers, readers sync.WaitGroup
	var stop atomic.Bool
	for i := range logs {
		o := testOptions()
		o.SegmentBytes = 20_000
		if i == 1 {
			o.RetentionBytes = 30_000
		}
		if i == 2 {
			o.FlushMessages = 1 << 40
		}
		moved := make(chan struct{}, 1)
		l := s.Log(testID(i), "topic", o, func(*Log) {
			select {
			case moved <- struct{}{}:
			default:
			}
		})
		writers.Go(func() {
			for n := range batches {
				items := []Item{{Batch: produced(t, 1, 0, int32(3*n), 3)}, {Batch: batch(t, n, 1, 300)}}
				l.Append(1, items)
				for _, it := range items {
					if it.Err != nil {
						t.Errorf("log %d: %v", i, it.Err)
						return
					}
				}
				s.Commit()
				for c, _ := l.Committed(); c < items[1].Next; c, _ = l.Committed() {
					select {
					case <-moved:
					case <-time.After(20 * time.Second):
						t.Errorf("log %d: no commit was reported", i)
						return
					}
				}
			}
		})
		readers.Go(func() { follow(t, l, &stop) })
	}
	readers.Go(func() { // topics come and go beside that
		for n := 0; !stop.Load(); n++ {
			id := testID(1000)
			id.Topic[0], id.Topic[1], id.Topic[2] = byte(n), byte(n>>8), byte(n>>16)
			l := s.Log(id, "other", testOptions(), func(*Log) {})
			if it := appendOne(t, l, batch(t, 0, 1, 10)); it.Err != nil {
				t.Error(it.Err)
			}
			s.Commit()
			s.Delete(id)
			if _, err := l.End(); !errors.Is(err, ErrClosed) {
				t.Errorf("a deleted log: %v", err)
			}
		}
	})
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	for i := range logs {
		l := testLog(s, i, testOptions())
		if end, err := l.End(); err != nil || int(end) != 4*batches {
			t.Errorf("log %d ends at %d, %v", i, end, err)
		}
		start, _ := l.Start()
		readAll(t, l, start, 5000)
	}
}

// follow reads a log as it grows.
func follow(t *testing.T, l *Log, stop *atomic.Bool) {
	t.Helper()
	next := record.Offset(0)
	for done := false; !done; {
		done = stop.Load()
		end, err := l.Committed()
		if err != nil {
			t.Error(err)
			return
		}
		c, err := l.Read(next, end, 3000)
		if errors.Is(err, ErrOffsetOutOfRange) {
			next, _ = l.Start()
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		if c == nil {
			runtime.Gosched()
			continue
		}
		done = false
		b := make([]byte, c.Len())
		if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		c.Release()
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if errors.Is(err, record.ErrShort) {
				break
			}
			if err == nil {
				err = one.Verify()
			}
			if err != nil || one.BaseOffset() > next {
				t.Errorf("at %d: batch %d, %v", next, one.BaseOffset(), err)
				return
			}
			next, b = one.NextOffset(), rest
		}
	}
}
