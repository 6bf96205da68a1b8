package storage

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// TestReadersOfAFileThatIsCut proves that what reads a log, and finds in its file that a truncation has cut it and is not
// over, does not take that for damage, and that a compaction goes on with its next round.
func TestReadersOfAFileThatIsCut(t *testing.T) {
	disk, _, end := dirtyLog(t, 1)
	for name, use := range map[string]func(s *Store, l *Log, at Position){
		"read": func(_ *Store, l *Log, at Position) {
			if c, err := l.Read(at.Next, end, 1000); err == nil {
				c.Release()
				t.Error("a record that is cut is read")
			}
		},
		"scrub":      func(s *Store, _ *Log, _ Position) { s.scrub(1 << 30) },
		"compaction": func(s *Store, l *Log, _ Position) { s.cleaner.compactOne(t.Context(), l, time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			mem := disk.KillClone(nil)
			var armed atomic.Bool
			var l *Log
			var cutting string // the file that is cut; set while the user waits
			isCut, goOn, truncated := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				switch {
				case !strings.HasSuffix(path, segment.LogSuffix):
				case op == vfs.OpRead && path == cutting && armed.CompareAndSwap(true, false):
					go func() { truncated <- l.Truncate(end / 2) }()
					<-isCut
				case op == vfs.OpSync && path == cutting:
					close(isCut)
					<-goOn
				}
				return nil
			}), "data"))
			s.commit.start()
			l = testLog(s, 0, compactedOptions())
			mustEnd(t, l) // it is open
			at, err := findCut(l, end/2)
			if err != nil {
				t.Fatal(err)
			}
			s.keeper.checkpointNow()
			cutting = at.Segment.Path(segment.LogSuffix)
			armed.Store(true)
			used := make(chan struct{})
			go func() {
				defer close(used)
				use(s, l, at)
			}()
			if name == "compaction" { // it waits for the truncation before it judges what it has read
				select {
				case <-isCut:
				case <-used:
				}
			} else {
				<-used
			}
			close(goOn)
			<-used
			if armed.Load() {
				t.Fatal("nothing was read: the test has lost its sense")
			}
			if err := <-truncated; err != nil {
				t.Fatal(err)
			}
			if err := l.Fault(); err != nil {
				t.Error(err)
			}
			if err := UncleanableError(l); err != nil {
				t.Error(err)
			}
			if got := mustEnd(t, l); got != at.Next {
				t.Errorf("the log ends at %d, and was cut at %d", got, at.Next)
			}
		})
	}
}
