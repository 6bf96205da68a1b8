package storage

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/lastrun"
	"github.com/leatstream/leat/internal/vfs"
)

// topicLog is the only log of a topic, durable or page-cached.
func topicLog(s *Store, topic byte, cached bool) *Log {
	o := testOptions()
	if cached {
		o.FlushMessages = 1 << 40
	}
	return s.Log(LogID{Topic: [16]byte{topic}}, "topic"+string(rune('a'+topic)), o, func(*Log) {})
}

// notedStore is a quiet store that notes how its run goes.
func notedStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	cfg.Run = lastrun.Open(cfg.FS, cfg.Dir, slog.New(slog.DiscardHandler))
	return quietStore(t, cfg)
}

// TestLastRunIsTold proves that a start knows under which registration the directory was used last,
// whether everything was on disk at the end, and which topics were page-cached if not; and that a
// start which does not register leaves that as it was.
func TestLastRunIsTold(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	check := func(when string, want lastrun.Run) *Store {
		t.Helper()
		s := notedStore(t, cfg)
		if diff := cmp.Diff(want, s.cfg.Run.Last()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", when, diff)
		}
		return s
	}
	begin := func(s *Store, epoch int64) *Store {
		t.Helper()
		if err := s.cfg.Run.Begin(epoch); err != nil {
			t.Fatal(err)
		}
		return s
	}
	stop := func(s *Store) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := begin(check("a new directory", lastrun.Run{}), 7)
	mustAppend(t, topicLog(s, 1, false), batch(t, 0, 1, 10))
	mustAppend(t, topicLog(s, 2, true), batch(t, 0, 1, 10))
	s.Commit()
	stop(s)
	stop(check("a clean stop", lastrun.Run{Epoch: 7, Clean: true, Unsynced: [][16]byte{{2}}}))
	s = begin(check("a start that did not register", lastrun.Run{Epoch: 7, Clean: true, Unsynced: [][16]byte{{2}}}), 8)
	mustAppend(t, topicLog(s, 1, false), batch(t, 1, 1, 10))
	mem = mem.KillClone(nil)
	cfg.FS = mem
	s = begin(check("a kill without a page-cached topic", lastrun.Run{Epoch: 8}), 9)
	mustAppend(t, topicLog(s, 2, true), batch(t, 1, 1, 10))
	mustAppend(t, topicLog(s, 2, true), batch(t, 2, 1, 10))
	mustAppend(t, topicLog(s, 3, true), batch(t, 0, 1, 10))
	begin(s, 10) // the node registers again
	mustAppend(t, topicLog(s, 4, true), batch(t, 0, 1, 10))
	cfg.FS = mem.KillClone(nil)
	check("a kill", lastrun.Run{Epoch: 10, Unsynced: [][16]byte{{2}, {3}, {4}}})
	cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 1)))
	cfg.BootID = "another boot"
	check("a power cut", lastrun.Run{Epoch: 10, Unsynced: [][16]byte{{2}, {3}, {4}}})
}

// commits is the disk after a power cut, and what was committed before.
type commits struct {
	disk            *vfs.Mem
	durable, cached record.Offset
}

// TestLostTopicsAreNoted proves that a power cut at any call takes committed records only from a
// topic that is told as unsynced then, and never where the run counts as clean: also where the
// topic has become durable since, and where it was only read in this run.
func TestLostTopicsAreNoted(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	mem := vfs.NewMem()
	var now commits
	var cuts []commits
	var mu sync.Mutex // a close writes files of several logs at the same time
	watch := func(mem *vfs.Mem) vfs.FS {
		return vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if op.Changes() {
				mu.Lock()
				defer mu.Unlock()
				c := now
				c.disk = mem.Crash(rng)
				cuts = append(cuts, c)
			}
			return nil
		})
	}
	cfg := testConfig(watch(mem), "data")
	// open begins a run. The page-cached topic may become durable before its first record.
	open := func(epoch int64, becomes bool) (s *Store, durable, cached *Log) {
		t.Helper()
		s = notedStore(t, cfg)
		now.cached = 0 // the registration has told what the run before may have lost
		err := s.cfg.Run.Begin(epoch)
		if err != nil {
			t.Fatal(err)
		}
		durable, cached = topicLog(s, 1, false), topicLog(s, 2, true)
		if becomes {
			if now.cached, err = cached.Committed(); err != nil || now.cached == 0 {
				t.Fatal(now.cached, err)
			}
			cached.Configure(testOptions())
		}
		return s, durable, cached
	}
	step := func(l *Log, committed *record.Offset, first int) {
		t.Helper()
		mustAppend(t, l, batch(t, first, 1, 100))
		l.s.Commit()
		end, err := l.Committed()
		if err != nil {
			t.Fatal(err)
		}
		*committed = end
	}
	_, first, second := open(1, false)
	for i := range 3 {
		step(first, &now.durable, i)
		step(second, &now.cached, i)
	}
	// A kill leaves records in the page cache, and the next run does not write to that topic.
	mem = mem.KillClone(nil)
	cfg.FS = watch(mem)
	s, durable, cached := open(2, true)
	step(durable, &now.durable, 3)
	// Now the last run of all, which ends in order.
	step(cached, &now.cached, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cuts = append(cuts, commits{mem.Crash(rng), now.durable, now.cached})
	lost := 0
	for i, c := range cuts {
		cfg := testConfig(c.disk, "data")
		cfg.BootID = "another boot"
		s := notedStore(t, cfg)
		last := s.cfg.Run.Last()
		for topic, committed := range map[byte]record.Offset{1: c.durable, 2: c.cached} {
			end, err := topicLog(s, topic, false).End()
			if err != nil {
				t.Fatal(err)
			}
			if end >= committed {
				continue
			}
			lost++
			if told := last.Epoch == 0 || slices.Contains(last.Unsynced, [16]byte{topic}); last.Clean || !told || topic == 1 {
				t.Errorf("cut %d of %d: topic %d ends at %d after %d were committed, and %+v is told", i, len(cuts), topic, end, committed, last)
			}
		}
	}
	if last := notedStore(t, testConfig(cuts[len(cuts)-1].disk, "data")).cfg.Run.Last(); !last.Clean || last.Epoch != 2 {
		t.Errorf("the clean end is told as %+v", last)
	}
	if lost < 3 {
		t.Errorf("%d of %d power cuts have lost something: this proves little", lost, len(cuts))
	}
}

// TestTopicIsDurableAgain proves that a topic which was page-cached for a while does not count as unsynced any more when all of its
// logs are durable, by an append or without one, and that none of them loses a committed record by a power cut from then on. It counts
// again as soon as one of them is page-cached again.
func TestTopicIsDurableAgain(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := notedStore(t, cfg)
	if err := s.cfg.Run.Begin(3); err != nil {
		t.Fatal(err)
	}
	cached := testOptions()
	cached.FlushMessages = 1 << 40
	log := func(s *Store, topic byte, partition int32) *Log {
		return s.Log(LogID{Topic: [16]byte{topic}, Partition: partition}, "topic"+string(rune('a'+topic)), cached, func(*Log) {})
	}
	logs := []*Log{log(s, 1, 0), log(s, 1, 1), log(s, 2, 0), log(s, 3, 0)}
	for _, l := range logs {
		mustAppend(t, l, batch(t, 0, 1, 10))
	}
	check := func(when string, want ...byte) {
		t.Helper()
		s.keeper.checkpointNow()
		for _, told := range []struct {
			by  string
			mem *vfs.Mem
		}{{"kill", mem.KillClone(nil)}, {"power cut", mem.Crash(rand.New(rand.NewPCG(1, 1)))}} {
			cfg := testConfig(told.mem, "data")
			cfg.BootID = "another boot"
			after := notedStore(t, cfg)
			var got []byte
			for _, topic := range after.cfg.Run.Last().Unsynced {
				got = append(got, topic[0])
			}
			if !slices.Equal(got, want) || after.cfg.Run.Last().Epoch != 3 {
				t.Errorf("%s, %s: %v count as unsynced, want %v", when, told.by, got, want)
			}
			for _, l := range logs {
				before, err := l.Committed()
				if err != nil {
					t.Fatal(err)
				}
				if end, err := log(after, l.id.Topic[0], l.id.Partition).End(); err != nil || end < before && !slices.Contains(got, l.id.Topic[0]) {
					t.Errorf("%s, %s: %s ends at %d after %d were committed, %v", when, told.by, l.name, end, before, err)
				}
			}
		}
	}
	check("all are page-cached", 1, 2, 3)
	logs[0].Configure(testOptions())
	mustAppend(t, logs[0], batch(t, 1, 1, 10))
	s.Commit()
	check("the first one of two is durable", 1, 2, 3)
	logs[1].Configure(testOptions())
	check("the second one is durable without an append", 2, 3)
	mustAppend(t, logs[1], batch(t, 1, 1, 10))
	s.Commit()
	s.Delete(logs[3].id)
	logs = logs[:3]
	check("one is deleted", 2)
	logs[1].Configure(*cached.withDefaults())
	mustAppend(t, logs[1], batch(t, 2, 1, 10))
	check("one is page-cached again", 2, 1)
	logs[1].Configure(testOptions())
	logs[1].Configure(*cached.withDefaults())
	mustAppend(t, logs[1], batch(t, 3, 1, 10))
	check("it is page-cached, after it was to be durable for a moment", 2, 1)
}

// TestRefusedNoteRefusesRecords proves that no record is committed to a page-cached log as long as
// the directory has no note of it, and that the note is written at the next append.
func TestRefusedNoteRefusesRecords(t *testing.T) {
	fails := false
	mem := vfs.NewMem()
	s := notedStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if fails && op == vfs.OpSync && strings.HasSuffix(path, "last-run") {
			return errors.New("medium error")
		}
		return nil
	}), "data"))
	if err := s.cfg.Run.Begin(3); err != nil {
		t.Fatal(err)
	}
	l := topicLog(s, 1, true)
	fails = true
	if it := appendOne(t, l, batch(t, 0, 1, 10)); it.Err == nil {
		t.Error("a record is accepted without a note")
	}
	if end, err := l.Committed(); end != 0 || err != nil || l.Fault() != nil {
		t.Errorf("%d records are committed, %v, fault %v", end, err, l.Fault())
	}
	fails = false
	mustAppend(t, l, batch(t, 0, 1, 10))
	after := notedStore(t, testConfig(mem.Crash(rand.New(rand.NewPCG(1, 1))), "data"))
	if last := after.cfg.Run.Last(); !slices.Contains(last.Unsynced, [16]byte{1}) {
		t.Errorf("it is told: %+v", last)
	}
}
