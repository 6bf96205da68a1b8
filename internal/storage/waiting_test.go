package storage

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// rivals are two logs of one name, of which the older one waits for room, and some other logs that
// wait, too.
type rivals struct {
	t          *testing.T
	s          *Store
	old, young LogID
	deletes    bool  // the older one is deleted before the younger one is made
	refusal    error // of writes to logs; nil: they succeed
	taken      bool  // the younger one was made
}

const otherLogs = 8

func rivalOptions() Options {
	o := testOptions()
	o.SegmentBytes = minSegmentBytes // one batch in each
	return o
}

func (r *rivals) log(id LogID, topic string) *Log {
	return r.s.Log(id, topic, rivalOptions(), func(*Log) {})
}

func (r *rivals) appendOne(id LogID, topic string, number int) {
	r.t.Helper()
	mustAppend(r.t, r.log(id, topic), batch(r.t, number, 1, 900))
	r.s.Commit()
}

func (r *rivals) expect(id LogID, want string) {
	r.t.Helper()
	l := r.log(id, "topic")
	if got := fmt.Sprint(values(r.t, readAll(r.t, l, 0, 1<<20))); got != want || l.Fault() != nil {
		r.t.Errorf("log %x has %s, want %s; %v", id.Topic[:1], got, want, l.Fault())
	}
}

// hook has the disk be full, and later the younger log be made when the first of the other logs
// is written, between two records of the older one.
func (r *rivals) hook(op vfs.Op, path string) error {
	switch {
	case op != vfs.OpWrite || !strings.HasPrefix(path, "data/topic") && !strings.HasPrefix(path, "data/other"):
	case r.refusal != nil:
		return r.refusal
	case !r.taken && strings.HasPrefix(path, "data/other"):
		r.takeName()
	}
	return nil
}

// takeName has the younger log take the name, unless the call under way happens to hold the lock
// of that name: then the next one is as good.
func (r *rivals) takeName() {
	mu := &r.s.dirs.locks[maphash.String(r.s.dirs.seed, "topic-0")%uint64(len(r.s.dirs.locks))]
	if !mu.TryLock() {
		return
	}
	mu.Unlock()
	r.taken = true
	if r.deletes {
		r.log(r.old, "topic") // the metadata had it when the node started
		r.s.Delete(r.old)
	}
	r.appendOne(r.young, "topic", 100)
	r.appendOne(r.young, "topic", 101)
}

// TestWaitingRecordsStayInTheirDirectory proves that a recovery which found the disk full, and goes
// on while the store is in use, writes no record of a log into the directory of another log that
// has taken its name meanwhile, be it that the log was deleted, or that the metadata do not have
// it; and that the records of a log that was not deleted are all there later. A try that fails for
// another reason says so.
func TestWaitingRecordsStayInTheirDirectory(t *testing.T) {
	for _, deletes := range []bool{true, false} {
		t.Run(fmt.Sprintf("deleted %v", deletes), func(t *testing.T) {
			r := &rivals{t: t, old: testID(0), young: testID(0), deletes: deletes, refusal: vfs.ErrNoSpace}
			r.young.Topic[0]++
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			r.s = quietStore(t, cfg)
			r.appendOne(r.old, "topic", 0)
			for i := 1; i <= otherLogs; i++ {
				r.appendOne(testID(i), "other", i)
			}
			r.appendOne(r.old, "topic", 1)
			r.appendOne(r.old, "topic", 2)

			mem = mem.KillClone(nil)
			for i := range 1 + otherLogs {
				name := dirName("other", int32(i))
				if i == 0 {
					name = dirName("topic", 0)
				}
				if err := mem.Remove("data/" + name); err != nil { // a power cut took it
					t.Fatal(err)
				}
			}
			var log said
			cfg.FS, cfg.Logger = vfs.NewFaulty(mem, r.hook), slog.New(slog.NewTextHandler(&log, nil))
			r.s = quietStore(t, cfg)
			if !r.s.hasWaiting() {
				t.Fatal("no log waits: the test proves nothing")
			}
			r.refusal = errBadDisk
			r.s.recoverWaiting()
			if !r.s.hasWaiting() || !strings.Contains(log.String(), errBadDisk.Error()) {
				t.Errorf("nobody hears why the logs still wait: %s", log.String())
			}
			r.refusal = nil
			r.s.recoverWaiting()
			if !r.taken || r.s.hasWaiting() {
				t.Fatalf("the name was taken: %v; logs wait: %v", r.taken, r.s.hasWaiting())
			}
			r.expect(r.young, "[100 101]")
			cfg.FS = mem.KillClone(nil)
			r.s = quietStore(t, cfg)
			r.expect(r.young, "[100 101]")
			if !deletes {
				r.s.Delete(r.young)
				r.expect(r.old, "[0 1 2]")
			}
		})
	}
}

// TestRecoveryDoesNotBringADeletedTopicBack proves that nothing comes back of a topic that was
// deleted while the node was down, although its log waits for room when the node hears of that, and
// there is room later: neither its directory, nor a fault, nor a directory that is set aside and
// reported.
func TestRecoveryDoesNotBringADeletedTopicBack(t *testing.T) {
	for name, checkpointed := range map[string]bool{"no point": false, "with a point": true} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			r := &rivals{t: t, s: quietStore(t, cfg), old: testID(0), young: testID(0)}
			r.young.Topic[0]++
			r.appendOne(r.old, "topic", 0)
			if checkpointed {
				r.s.keeper.checkpointNow()
			}
			r.appendOne(r.old, "topic", 1)
			mem = mem.KillClone(nil)
			if err := mem.Remove("data/topic-0/00000000000000000001.log"); err != nil { // a power cut took it
				t.Fatal(err)
			}
			r.refusal, r.taken = vfs.ErrNoSpace, true
			cfg.FS = vfs.NewFaulty(mem, r.hook)
			r.s = quietStore(t, cfg)
			if !r.s.hasWaiting() {
				t.Fatal("no log waits: the test proves nothing")
			}
			r.s.sweepDirs(&sweep{isKnown: isNone, isDeleted: isFirst})
			for range 5 {
				r.s.keeper.checkpointNow()
				r.s.keeper.removeDue(time.Now())
			}
			r.refusal = nil
			r.s.recoverWaiting()
			if _, err := mem.Stat("data/topic-0"); err == nil || r.s.hasWaiting() {
				t.Errorf("the deleted topic's directory is back: %v; logs wait: %v", err == nil, r.s.hasWaiting())
			}
			if f := r.s.faults.get(r.old); f != nil {
				t.Errorf("a fault of the deleted topic: %v", f.err)
			}
			r.appendOne(r.young, "topic", 7)
			r.expect(r.young, "[7]")
			if n := r.s.Strays(); n > 0 {
				t.Errorf("%d directories of the deleted topic are set aside", n)
			}
		})
	}
}

// TestNoDirectoryIsMadeForALeavingLog proves that no caller makes the directory of a log while
// something is left of a deleted log of the same identity.
func TestNoDirectoryIsMadeForALeavingLog(t *testing.T) {
	mem := vfs.NewMem()
	r := &rivals{t: t, s: quietStore(t, testConfig(mem, "data")), old: testID(0)}
	r.appendOne(r.old, "topic", 0)
	r.s.Delete(r.old)
	unlock := r.s.dirs.lockName("topic-0")
	err := r.s.dirs.makeDirLocked("topic-0", r.old)
	unlock()
	if _, gone := mem.Stat("data/topic-0"); !errors.Is(err, ErrBusy) || gone == nil {
		t.Errorf("a directory of a log that is leaving was made: %v", err)
	}
}

// TestWaitingLogKeepsItsStart proves that records which were deleted stay deleted when a power cut
// took the log's directory, the disk is too full to make it again, and the metadata do not know the
// log for a while.
func TestWaitingLogKeepsItsStart(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	if err := l.SetStart(2); err != nil {
		t.Fatal(err)
	}
	cut := mem.KillClone(nil)
	infos, err := cut.ReadDir("data/topic-0")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if err := cut.Remove("data/topic-0/" + i.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := cut.Remove("data/topic-0"); err != nil {
		t.Fatal(err)
	}
	full := true
	s = quietStore(t, testConfig(vfs.NewFaulty(cut, func(_ vfs.Op, path string) error {
		if full && strings.HasPrefix(path, "data/topic-0") {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data"))
	if !s.hasWaiting() {
		t.Fatal("no log waits for room: the test proves nothing")
	}
	none := func(LogID) bool { return false }
	s.sweepDirs(&sweep{isKnown: none, isDeleted: none})
	full = false
	s.recoverWaiting()
	l = testLog(s, 0, testOptions())
	start, err := l.Start()
	if err != nil || start != 2 {
		t.Fatalf("the log starts at %d, %v", start, err)
	}
	if got := values(t, readAll(t, l, start, 1<<20)); fmt.Sprint(got) != "[2 3 4]" {
		t.Errorf("its records are %v", got)
	}
}
