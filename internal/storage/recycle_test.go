package storage

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// takeovers counts how often a dropped segment's file became another one's.
func takeovers(n *atomic.Int64) vfs.Hook {
	return func(op vfs.Op, path string) error {
		if op == vfs.OpRename && strings.HasSuffix(path, logSuffix+deletedSuffix) {
			n.Add(1)
		}
		return nil
	}
}

func steadyOptions() Options {
	o := testOptions()
	o.SegmentBytes, o.RetentionBytes, o.FileDeleteDelay = 32<<10, 64<<10, time.Hour
	return o
}

// TestSteady proves that a log at its retention by size stays at it without waiting
// for the round of retention, in the files that it has, and keeps what it must keep,
// also over a kill at any of many moments.
func TestSteady(t *testing.T) {
	var taken atomic.Int64
	mem := vfs.NewMem()
	cfg := testConfig(nil, "data")
	for round := range 20 {
		cfg.FS = vfs.NewFaulty(mem, takeovers(&taken))
		s, err := open(cfg) // no background: steps are made here
		if err != nil {
			t.Fatal(err)
		}
		s.background = func(fn func()) { fn() }
		l := testLog(s, 0, steadyOptions())
		begin, err := l.End()
		if err != nil || int(begin) != 101*round {
			t.Fatalf("round %d begins at %d: %v", round, begin, err)
		}
		for i := range 101 {
			mustAppend(t, l, batch(t, int(begin)+i, 1, 3000))
			s.Commit()
			s.keeper.step()
			s.keeper.checkpointNow()
		}
		start, _ := l.Start()
		for i, v := range values(t, readAll(t, l, start, 10_000)) {
			if v != int(start)+i {
				t.Fatalf("record %d is %d", int(start)+i, v)
			}
		}
		if kept := int64(101*(round+1)-int(start)) * 3000; kept < 64<<10 || kept > 160<<10 {
			t.Errorf("round %d: %d bytes were kept", round, kept)
		}
		if s.scrub(unpaced); l.Fault() != nil {
			t.Fatal(l.Fault())
		}
		fallen := mem.KillClone(nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		mem = fallen
	}
	if n := taken.Load(); n < 100 {
		t.Errorf("%d files were taken over", n)
	}
}

// TestSteadyReader proves that a file from which somebody still reads is not taken over.
func TestSteadyReader(t *testing.T) {
	var taken atomic.Int64
	s := openStore(t, testConfig(vfs.NewFaulty(vfs.NewMem(), takeovers(&taken)), "data"))
	l := testLog(s, 0, steadyOptions())
	first := append(record.Batch(nil), batch(t, 0, 1, 30_000)...)
	mustAppend(t, l, first)
	s.Commit()
	c, err := l.Read(0, 1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		mustAppend(t, l, batch(t, 1+i, 1, 30_000))
		s.Commit()
		if err := l.SetStart(record.Offset(1 + i)); err != nil {
			t.Fatal(err)
		}
		s.keeper.checkpointNow()
	}
	got := make([]byte, c.Len())
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got[record.HeaderLen:], first[record.HeaderLen:]) {
		t.Errorf("the reader's bytes have changed, or err %v", err)
	}
	c.Release()
	if taken.Load() == 0 {
		t.Error("no file was taken over at all")
	}
}

// TestSteadySent proves that a file that sendfile was given is not taken over, that
// sendfile is given none that a steady log makes, and that those are taken over
// however often they are read.
func TestSteadySent(t *testing.T) {
	s := openStore(t, testConfig(vfs.OS{}, t.TempDir()))
	o := steadyOptions()
	o.FlushMessages = 2 // what was appended can be read
	l := testLog(s, 0, o)
	const kept, segments = 2, 7 // those made before there was anything to be taken over; in all
	var files [segments]os.FileInfo
	for i := range files {
		at := record.Offset(i)
		mustAppend(t, l, batch(t, i, 1, 30_000))
		c, err := l.Read(at, at+1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, sent := c.Fd(); sent != (i < kept) {
			t.Errorf("sendfile may have the file of segment %d: %v", i, sent)
		}
		got := make([]byte, c.Len())
		if _, err := c.ReadAt(got, 0); err != nil || record.Batch(got).BaseOffset() != at {
			t.Fatalf("offset %d is read as %d: %v", at, record.Batch(got).BaseOffset(), err)
		}
		c.Release()
		if files[i], err = os.Stat(l.segments()[len(l.segments())-1].path(logSuffix)); err != nil {
			t.Fatal(err)
		}
		for j := range i { // a file is dropped when the next one has begun
			if took, want := os.SameFile(files[j], files[i]), (i-j)%2 == 0 && j >= kept; took != want {
				t.Errorf("segment %d is in the file of segment %d: %v, expected %v", i, j, took, want)
			}
		}
		if err := l.SetStart(at); err != nil {
			t.Fatal(err)
		}
		s.keeper.checkpointNow()
	}
}

// TestSteadyAtOnce proves that a log which drops many segments between two checkpoints,
// and whose files are to be removed at once, takes nearly all of them over, with their
// indexes, though readers have been everywhere.
func TestSteadyAtOnce(t *testing.T) {
	var logs, indexes atomic.Int64
	s, err := open(testConfig(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if op == vfs.OpRename && strings.HasSuffix(path, timeSuffix+deletedSuffix) {
			indexes.Add(1)
		}
		return takeovers(&logs)(op, path)
	}), "data"))
	if err != nil {
		t.Fatal(err)
	}
	s.background = func(fn func()) { fn() } // steps are made here
	o := steadyOptions()
	o.RetentionBytes, o.FileDeleteDelay = 20*o.SegmentBytes, 0
	o.IndexInterval = 4000 // so that each segment has indexes
	l := testLog(s, 0, o)
	n := 0
	fill := func(segments int) {
		for range 10 * segments { // of 3,000 bytes and more: ten fill one
			mustAppend(t, l, batch(t, n, 1, 3000))
			n++
		}
		s.Commit()
	}
	fill(26) // the last of them find the log at its size
	for _, g := range l.segments() {
		if g.usage.send() {
			t.Fatalf("sendfile may have the file of segment %d", g.base)
		}
	}
	for round := range 6 {
		s.keeper.step()          // drops what is too much
		s.keeper.checkpointNow() // renames it
		s.keeper.step()          // removes what is due
		if round == 1 {
			logs.Store(0)
			indexes.Store(0)
		}
		fill(10)
	}
	if n := logs.Load(); n < 45 {
		t.Errorf("%d of 50 files were taken over", n)
	}
	if n := indexes.Load(); n < 45 {
		t.Errorf("%d of 50 indexes were taken over", n)
	}
	start, _ := l.Start()
	for i, v := range values(t, readAll(t, l, start, 10_000)) {
		if v != int(start)+i {
			t.Fatalf("record %d is %d", int(start)+i, v)
		}
	}
	for o := start; o < record.Offset(n); o += 7 { // by the indexes, where they serve
		for _, g := range l.segments() {
			if o < g.base || o >= g.next {
				continue
			}
			if sp, err := l.locate(g, o); err != nil || sp.base != o {
				t.Fatalf("offset %d is found at %d: %v", o, sp.base, err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSegmentThatCannotBegin proves that a file which could not be made ready for a
// segment is gone: the segment before it goes on, and a start after a kill finds
// all of its records and no damage.
func TestSegmentThatCannotBegin(t *testing.T) {
	broken := errors.New("input/output error")
	for _, c := range []struct {
		op          vfs.Op
		preallocate bool
	}{{vfs.OpWrite, false}, {vfs.OpOpen, false}, {vfs.OpAllocate, true}} {
		t.Run(c.op.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			var next string // the file that fails
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if op == c.op && next != "" && strings.HasSuffix(path, next) {
					return broken
				}
				return nil
			}), "data")
			s, err := open(cfg) // no background: steps are made here
			if err != nil {
				t.Fatal(err)
			}
			s.background = func(fn func()) { fn() }
			o := steadyOptions()
			o.Preallocate = c.preallocate
			l := testLog(s, 0, o)
			n := 0
			for ; n < 60; n++ {
				mustAppend(t, l, batch(t, n, 1, 3000))
				s.Commit()
				s.keeper.step()
				s.keeper.checkpointNow()
			}
			if len(l.spares) == 0 && !c.preallocate {
				t.Fatal("there is no file to take over")
			}
			for ; ; n++ {
				next = fileName(record.Offset(n), logSuffix)
				if it := appendOne(t, l, batch(t, n, 1, 3000)); it.Err != nil {
					break
				}
			}
			mustAppend(t, l, batch(t, n, 1, 10)) // this one fits into the segment before
			next = ""
			for range 20 {
				n++
				mustAppend(t, l, batch(t, n, 1, 3000))
			}
			s.Commit()
			s.keeper.checkpointNow()
			cfg.FS = mem.KillClone(nil)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, cfg)
			l = testLog(s, 0, o)
			start, err := l.Start()
			if err != nil {
				t.Fatal(err)
			}
			got := values(t, readAll(t, l, start, 10_000))
			if len(got) != n+1-int(start) || got[len(got)-1] != n {
				t.Errorf("%d records from %d on, the last of them %d, want up to %d", len(got), start, got[len(got)-1], n)
			}
			if s.scrub(unpaced); l.Fault() != nil {
				t.Error(l.Fault())
			}
		})
	}
}

// TestSteadyForged proves that bytes of a file's earlier life are not taken for
// records, not even where a client made them a whole batch with the right offset.
func TestSteadyForged(t *testing.T) {
	const at, size = 5000, 30_000
	mem := vfs.NewMem()
	var taken atomic.Int64
	cfg := testConfig(vfs.NewFaulty(mem, takeovers(&taken)), "data")
	s := openStore(t, cfg)
	l := testLog(s, 0, steadyOptions())
	forged := append(record.Batch(nil), batch(t, 666, 1, 100)...)
	forged.SetBaseOffset(3)
	forged.SetLeaderEpoch(1)
	hull := len(batch(t, 0, 1, size)) - size - 1 // what stands before a value of that size; a byte follows it
	value := make([]byte, size)
	copy(value[at-hull:], forged)
	var bu record.Builder
	bu.Append(1_700_000_000_000, nil, value)
	old, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old[at:at+len(forged)], forged) {
		t.Fatal("the forged batch is not where it should be")
	}
	mustAppend(t, l, old)
	mustAppend(t, l, batch(t, 1, 1, size)) // another segment
	s.Commit()
	if err := l.SetStart(1); err != nil {
		t.Fatal(err)
	}
	s.keeper.checkpointNow()
	last := batch(t, 2, 1, 8)
	for n := at - len(last); len(last) != at; n += at - len(last) {
		last = batch(t, 2, 1, n)
	}
	mustAppend(t, l, last)
	s.Commit()
	if taken.Load() != 1 {
		t.Fatalf("%d files were taken over", taken.Load())
	}
	cfg.FS = mem.KillClone(nil)
	s = openStore(t, cfg)
	l = testLog(s, 0, steadyOptions())
	if end, err := l.End(); end != 3 || err != nil {
		t.Errorf("after a kill the log ends at %d: %v", end, err)
	}
}

// BenchmarkAppendSteady appends 16 KiB batches, 32 at a time, in the page-cache mode
// to a log that grows for ever and to one at its retention.
func BenchmarkAppendSteady(b *testing.B) {
	for _, steady := range []bool{false, true} {
		name := "grows"
		if steady {
			name = "steady"
		}
		b.Run(name, func(b *testing.B) {
			s := benchStore(b)
			o := testOptions()
			o.FlushMessages, o.SegmentBytes, o.FileDeleteDelay = 1<<40, 32<<20, time.Minute
			if steady {
				o.RetentionBytes = 256 << 20
			}
			l := testLog(s, 0, o)
			items := make([]Item, 32)
			for i := range items {
				items[i].Batch = append(record.Batch(nil), batch(b, 0, 16, 1000)...)
			}
			for range 1000 {
				l.Append(1, items)
			}
			b.SetBytes(int64(len(items) * len(items[0].Batch)))
			b.ReportAllocs()
			for b.Loop() {
				l.Append(1, items)
			}
			if items[0].Err != nil {
				b.Fatal(items[0].Err)
			}
		})
	}
}
