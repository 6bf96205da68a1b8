package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// lostCheckpoints opens a directory in which both checkpoint files are damaged. It returns the
// store, and what it logged.
func lostCheckpoints(t *testing.T, mem *vfs.Mem, also ...string) (*Store, *said) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	for _, name := range append([]string{"data/checkpoint-a", "data/checkpoint-b"}, also...) {
		flipAt(t, mem, name, 40, rng)
	}
	var out said
	cfg := testConfig(mem, "data")
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	return quietStore(t, cfg), &out
}

// TestBothCheckpointsLost proves that every acknowledged record is there although both checkpoint
// files are damaged, even a record that only the journal has. It also proves that the operator is
// told what was lost and what to do, with a points file and without one.
func TestBothCheckpointsLost(t *testing.T) {
	for seed := range uint64(20) {
		for _, points := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %v", seed, points), func(t *testing.T) {
				mem := vfs.NewMem()
				cfg := testConfig(mem, "data")
				s := quietStore(t, cfg)
				o := testOptions()
				o.SegmentBytes = 3000
				n := 0
				write := func(times int) {
					for range times {
						for i := range 3 {
							mustAppend(t, testLog(s, i, o), batch(t, n, 1, 300))
						}
						n++
						s.Commit()
						if n%7 == 0 {
							s.keeper.checkpointNow()
						}
					}
				}
				write(20)
				if points {
					s.NoteMetadata(17)
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = quietStore(t, cfg)
				}
				write(20)
				mem = mem.Crash(rand.New(rand.NewPCG(seed, 4)))
				s, out := lostCheckpoints(t, mem)
				for _, want := range []string{"level=ERROR", "checkpoint files are damaged", "DeleteRecords", "high watermarks", "metadata"} {
					if !strings.Contains(out.String(), want) {
						t.Errorf("the log does not say %q: %s", want, out)
					}
				}
				if err := s.Damage(); err == nil || !strings.Contains(err.Error(), "checkpoint files") {
					t.Errorf("it is not reported: %v", err)
				}
				for i := range 3 {
					expectValues(t, testLog(s, i, o), n)
				}
				write(5)
				mem = mem.Crash(rand.New(rand.NewPCG(seed, 5)))
				s = quietStore(t, testConfig(mem, "data"))
				if err := s.Damage(); err != nil {
					t.Errorf("the next start: %v", err)
				}
				for i := range 3 {
					expectValues(t, testLog(s, i, o), n)
					mustAppend(t, testLog(s, i, o), batch(t, n, 1, 300))
				}
				if points {
					refused := testConfig(mem.KillClone(nil), "data")
					refused.Metadata = 16
					if _, err := openDir(refused); !errors.Is(err, ErrMetadataBehind) {
						t.Errorf("older metadata than the points file knows of: %v", err)
					}
				}
			})
		}
	}
}

// TestCheckpointsLostAndNamesToo proves that no record is lost if both checkpoint files are damaged
// and a power cut took the name of a new log's first segment, but not that of the second one: the
// journal makes the file again.
func TestCheckpointsLostAndNamesToo(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	for range 2 {
		s.keeper.checkpointNow()
	}
	o := testOptions()
	o.SegmentBytes = 1500
	l := testLog(s, 0, o)
	for i := range 10 {
		mustAppend(t, l, batch(t, i, 1, 300))
		s.Commit()
	}
	mem = mem.KillClone(nil)
	if err := mem.Remove(segmentFile(0)); err != nil {
		t.Fatal(err)
	}
	s, _ = lostCheckpoints(t, mem)
	expectValues(t, testLog(s, 0, o), 10)
}

// TestBothPointsFilesLost proves that no record is lost if both points files are damaged, which
// have the points of logs that did not change lately. The loss is reported once, and no log with a
// hole is cut.
func TestBothPointsFilesLost(t *testing.T) {
	mem, o := logOfSegments(t)
	if err := mem.Remove("data/topic-0/" + segment.FileName(middle(t, mem), segment.LogSuffix)); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // all points are written twice, so that the log is in no checkpoint file
		s := quietStore(t, testConfig(mem, "data"))
		mustAppend(t, testLog(s, 1, o), batch(t, i, 1, 100))
		s.Commit()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for _, name := range []string{"data/points-a", "data/points-b"} {
		flipAt(t, mem, name, 40, rng)
	}
	for start := range 3 {
		var out said
		cfg := testConfig(mem, "data")
		cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		s := quietStore(t, cfg)
		if got := errors.Is(s.Damage(), errPointsLost) && strings.Contains(out.String(), "level=ERROR"); got != (start == 0) {
			t.Errorf("start %d: it says %v: %s", start, s.Damage(), out.String())
		}
		if start == 0 { // the process is killed before the log was used
			mem = mem.KillClone(nil)
			continue
		}
		l := testLog(s, 0, o)
		if _, err := l.End(); err != nil {
			t.Fatal(err)
		}
		expectLoss(t, s, l)
		if got := len(segmentsOn(t, mem)); got < 4 {
			t.Errorf("%d segments are left", got)
		}
		expectValues(t, testLog(s, 1, o), 2)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBothCheckpointsRot proves that no acknowledged record is lost or changed if both checkpoint
// files rot, and that none is reported to be lost. The logs have met truncations, gaps, deletions,
// and new logs of the same name before. Deleted records may be back. Seeds in which a
// checkpoint was under way prove nothing; most others must.
func TestBothCheckpointsRot(t *testing.T) {
	t.Parallel()
	seeds, run, skipped := sampled(150), uint64(0), uint64(0)
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			w := aged(t, seed)
			w.ending = ending(seed % 3)
			w.fall()
			if newestCheckpoint(t, w.fallen) == "" {
				skipped++
				t.Skip("a checkpoint was under way")
			}
			run++
			for _, name := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
				flipAt(t, w.fallen, name, 12+w.rng.Int64N(68), w.rng)
			}
			s := quietStore(t, testConfig(w.fallen, "data"))
			if err := s.Damage(); !errors.Is(err, errCheckpointsLost) || errors.Is(err, errJournalDamaged) {
				t.Errorf("it says %v", err)
			}
			for i, m := range w.expected {
				if w.ending != killed {
					m.committed = m.sure
				}
				w.checkWithoutPoint(i, m, s)
			}
			if err := errors.Join(s.Close(), w.s.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if run+skipped == seeds && run < seeds-seeds/4 {
		t.Errorf("both checkpoint files were whole before they rotted for %d seeds of %d", run, seeds)
	}
}

// checkWithoutPoint compares a log whose point was lost with the records that it must hold. After a
// power cut the log may have a hole behind all that was acknowledged; it is read-only then.
func (w *world) checkWithoutPoint(i int, m *modelLog, s *Store) {
	l := s.Log(m.id, m.topic, m.options(), func(*Log) {})
	start, err := l.Start()
	if err != nil {
		w.tb.Fatalf("log %d: %v", i, err)
	}
	end, _ := l.End()
	least := m.committed
	for least > m.start && m.records[least-1] == noRecord {
		least-- // no file tells of a gap at the end
	}
	if start > max(m.start, m.asked) || end < least || int(end) > len(m.records) {
		w.tb.Fatalf("log %d goes from %d to %d, want from %d to %d or more; %v", i, start, end, m.start, least, l.Fault())
	}
	if l.Fault() != nil {
		if w.ending == killed {
			w.tb.Fatalf("log %d: %v", i, l.Fault())
		}
		end = least
	}
	w.compare(i, m, l, max(start, m.start), end)
}

// TestFirstStartIsNoDamage proves that no damage is reported if the power went during the first
// start, before there was a checkpoint.
func TestFirstStartIsNoDamage(t *testing.T) {
	var clones []*vfs.Mem
	mem := vfs.NewMem()
	seed := uint64(0)
	s := quietStore(t, testConfig(vfs.NewFaulty(mem, func(vfs.Op, string) error {
		for range 5 {
			seed++
			clones = append(clones, mem.Crash(rand.New(rand.NewPCG(seed, 6))))
		}
		return nil
	}), "data"))
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	s.keeper.checkpointNow()
	for i, c := range clones {
		var out said
		cfg := testConfig(c, "data")
		cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		s := quietStore(t, cfg)
		if strings.Contains(out.String(), "ERROR") || s.Damage() != nil {
			t.Errorf("moment %d: %v: %s", i, s.Damage(), out.String())
		}
	}
}

// TestUsedDirectoryIsNoFirstStart proves that a directory in which a node has run, and which has neither checkpoints nor
// a journal any more, is reported as damaged: its logs are empty, and whoever believed that nothing was lost would
// remove what other replicas have.
func TestUsedDirectoryIsNoFirstStart(t *testing.T) {
	mem := vfs.NewMem()
	s := notedStore(t, testConfig(mem, "data"))
	if err := s.cfg.Run.Begin(3); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	infos, err := mem.ReadDir("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.Name == "last-run" {
			continue
		}
		if i.Dir {
			files, err := mem.ReadDir("data/" + i.Name)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if err := mem.Remove("data/" + i.Name + "/" + f.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := mem.Remove("data/" + i.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := notedStore(t, testConfig(mem, "data")).Damage(); !errors.Is(err, errCheckpointsLost) {
		t.Errorf("the store says %v", err)
	}
}

// TestNothingIsCutAwayAfterCheckpointsWereLost proves that a log keeps its files if its point was
// lost and a part of its middle is missing, and that it is reported as damaged, in this start and
// in later ones. Without a point nothing tells that the rest was not acknowledged.
func TestNothingIsCutAwayAfterCheckpointsWereLost(t *testing.T) {
	for name, harm := range map[string]func(mem *vfs.Mem, file string) error{
		"missing": func(mem *vfs.Mem, file string) error { return mem.Remove(file) },
		"short":   func(mem *vfs.Mem, file string) error { return truncate(mem, file, 1000) },
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(name, later), func(t *testing.T) {
				mem, o := logOfSegments(t)
				if err := harm(mem, "data/topic-0/"+segment.FileName(middle(t, mem), segment.LogSuffix)); err != nil {
					t.Fatal(err)
				}
				s, _ := lostCheckpoints(t, mem, "data/points-a", "data/points-b")
				if later { // a later start comes before the log is used
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = quietStore(t, testConfig(mem, "data"))
				}
				l := testLog(s, 0, o)
				before, err := mem.ReadDir("data/topic-0")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := l.End(); err != nil {
					t.Fatal(err)
				}
				expectLoss(t, s, l)
				s.keeper.checkpointNow()
				s.keeper.doDueWork()
				if after, err := mem.ReadDir("data/topic-0"); err != nil || fmt.Sprint(before) != fmt.Sprint(after) {
					t.Errorf("the files were %v and are %v, %v", before, after, err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// logOfSegments makes a directory with a log of several segments and stops cleanly. The journal has
// none of its records.
func logOfSegments(t *testing.T) (*vfs.Mem, Options) {
	t.Helper()
	mem := vfs.NewMem()
	o := testOptions()
	o.SegmentBytes = 3000
	cfg := testConfig(mem, "data")
	cfg.SyncAlone = 1
	s := quietStore(t, cfg)
	l := testLog(s, 0, o)
	for i := range 40 {
		mustAppend(t, l, batch(t, i, 1, 300))
		s.Commit()
	}
	s.keeper.checkpointNow()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data/points-a", "data/points-b"} { // both points files must exist
		if f, err := mem.Open(name, vfs.Create); err == nil {
			size, _ := f.Size()
			if size == 0 {
				_, err = f.WriteAt(make([]byte, 100), 0)
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return mem, o
}

// segmentsOn lists the segments of the first test log that are on disk.
func segmentsOn(t *testing.T, mem *vfs.Mem) (bases []record.Offset) {
	t.Helper()
	infos, err := mem.ReadDir("data/topic-0")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
			bases = append(bases, base)
		}
	}
	if len(bases) < 4 {
		t.Fatalf("only %d segments", len(bases))
	}
	return bases
}

// middle is a segment in the middle of the first test log.
func middle(t *testing.T, mem *vfs.Mem) record.Offset {
	t.Helper()
	return segmentsOn(t, mem)[2]
}

func truncate(mem *vfs.Mem, file string, size int64) error {
	f, err := mem.Open(file, vfs.Existing)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// expectLoss checks that a log is reported as damaged.
func expectLoss(t *testing.T, s *Store, l *Log) {
	t.Helper()
	faults := s.Faults()
	if len(faults) != 1 || faults[0].Kind != LogDamaged || !strings.Contains(faults[0].Err.Error(), "put back") {
		t.Errorf("the faults are %v", faults)
	}
	if it := appendOne(t, l, batch(t, 0, 1, 100)); !errors.Is(it.Err, ErrFaulted) {
		t.Errorf("an append: %v", it.Err)
	}
}

// TestLostPointForgetsItsHighWatermark proves that a log whose point was lost does not take its high
// watermark from an older file: the log was truncated since, and the old one covers records that came
// in the place of others, and that no other replica may have.
func TestLostPointForgetsItsHighWatermark(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, testOptions())
	for i := range 100 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	l.SetHighWatermark(100)
	if err := s.Close(); err != nil { // the points file has that
		t.Fatal(err)
	}
	s = quietStore(t, testConfig(mem, "data"))
	l = testLog(s, 0, testOptions())
	if err := l.Truncate(50); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		mustAppend(t, l, batch(t, 1000+i, 1, 100))
	}
	s.Commit()
	l.SetHighWatermark(50)
	s.keeper.checkpointNow()
	s.keeper.checkpointNow()
	s, _ = lostCheckpoints(t, mem.KillClone(nil))
	l = testLog(s, 0, testOptions())
	end, err := l.End()
	if high, _ := l.HighWatermark(); err != nil || end != 80 || high > 50 {
		t.Errorf("the log ends at %d with high watermark %d, which was 50: %v", end, high, err)
	}
}
