package storage

import (
	"bytes"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// put makes a file of a fresh file system.
func put(tb testing.TB, mem *vfs.Mem, name string, b []byte) {
	tb.Helper()
	f, err := mem.Open(name, vfs.Fresh)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// FuzzSegment proves that recovery of any bytes as a segment keeps whole batches
// only, and that the log works then.
func FuzzSegment(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(batch(f, 0, 3, 20)))
	f.Add(append([]byte(batch(f, 0, 3, 20)), batch(f, 0, 3, 20)[:70]...))
	beyond := batch(f, 0, 3, 20)
	beyond.SetBaseOffset(3472328296227680304)
	f.Add([]byte(beyond))
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("data/topic-0"); err != nil {
			t.Fatal(err)
		}
		id := testID(0)
		put(t, mem, "data/topic-0/"+metadataFile, encodeMetadata(id.Topic))
		put(t, mem, "data/topic-0/"+segment.FileName(0, segment.LogSuffix), b)
		s := openStore(t, testConfig(mem, "data"))
		l := testLog(s, 0, testOptions())
		if it := appendOne(t, l, batch(t, 0, 1, 10)); it.Err != nil {
			t.Fatal(it.Err)
		}
		s.Commit()
		readAllWith(t, l, 0, 1000, l.hasGaps) // no checksum covers a base offset, and a log without a checkpoint may have gaps, if it knows of them
	})
}

// FuzzIndexes proves that any bytes as index files lead to the same records.
func FuzzIndexes(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(bytes.Repeat([]byte{0, 0, 0, 1, 0, 0, 0, 0}, 9), []byte("garbage!garbage!garbage!"))
	f.Fuzz(func(t *testing.T, offs, times []byte) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := openStore(t, cfg)
		o := testOptions()
		o.SegmentBytes, o.IndexInterval = 2000, 100
		l := testLog(s, 0, o)
		for i := range 30 {
			mustAppend(t, l, batch(t, i, 1, 100))
		}
		s.Commit()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, g := range l.segments() {
			put(t, mem, g.Path(segment.IndexSuffix), offs)
			put(t, mem, g.Path(segment.TimeSuffix), times)
		}
		s = openStore(t, cfg)
		l = testLog(s, 0, o)
		expectValues(t, l, 30)
		for o := range record.Offset(30) {
			if c, err := l.Read(o, 30, 1); err != nil || c == nil {
				t.Fatalf("read at %d: %v", o, err)
			} else {
				c.Release()
			}
		}
		mustAppend(t, l, batch(t, 30, 1, 100))
	})
}

// FuzzJournal proves that a start with any bytes in the journal's files works.
func FuzzJournal(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0xff}, uint16(40))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := openStore(t, cfg)
		for i := range 3 {
			mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 1, 100))
		}
		s.Commit()
		mem = mem.KillClone(nil)
		ring, err := mem.Open("data/journal/0000.ring", vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ring.WriteAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
		if err := ring.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.FS, cfg.BootID = mem, "another"
		s = openStore(t, cfg)
		for i := range 3 {
			l := testLog(s, i, testOptions())
			mustAppend(t, l, batch(t, 0, 1, 100))
			s.Commit()
			readAll(t, l, 0, 1000)
		}
	})
}
