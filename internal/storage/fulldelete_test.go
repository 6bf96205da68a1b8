package storage

import (
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestFullDiskEndsTheDelayOfDeletedFiles proves that a full disk removes the files of deleted segments at
// once, which otherwise stay for the topic's file.delete.delay.ms.
func TestFullDiskEndsTheDelayOfDeletedFiles(t *testing.T) {
	mem, o := logOfSegments(t)
	o.FileDeleteDelay = time.Hour
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, o)
	if err := l.SetStart(20); err != nil {
		t.Fatal(err)
	}
	deleted := func() (n int) {
		infos, err := mem.ReadDir("data/topic-0")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			if strings.HasSuffix(i.Name, ".log.deleted") {
				n++
			}
		}
		return n
	}
	work := func() {
		for range 5 {
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now())
		}
	}
	work()
	before := deleted()
	if before == 0 {
		t.Fatal("no segment waits for the end of its delay")
	}
	mem.SetFree(0)
	s.noteRefusal(vfs.ErrNoSpace)
	if wait := s.keeper.untilNext(); wait > 0 {
		t.Errorf("the keeper waits for %v", wait)
	}
	work()
	if left := deleted(); left > 0 {
		t.Errorf("%d of %d files are there on the full disk", left, before)
	}
	if wait := s.keeper.untilNext(); wait == 0 {
		t.Error("the keeper does not rest")
	}
	if start, err := l.Start(); err != nil || start != 20 || len(s.Faults()) > 0 {
		t.Errorf("the log begins at %d, %v", start, err)
	}
}
