package storage

import (
	"fmt"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// flipBitIn flips bits of one byte of a file.
func flipBitIn(tb testing.TB, fs vfs.FS, path string, at int64, bits byte) {
	tb.Helper()
	f, err := fs.Open(path, vfs.Existing)
	if err != nil {
		tb.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, at); err == nil {
		b[0] ^= bits
		_, err = f.WriteAt(b, at)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// TestChangedBaseOffsetIsFound proves that no read begins with a batch whose base offset has changed on disk, which no checksum covers, and
// that an opening neither takes such an offset for a gap nor cuts what is behind it: the log has all records, since the journal has them, or a
// fault. The last batch of a log of which neither the journal nor a checkpoint has anything is the one that is not told from a gap or a torn end.
func TestChangedBaseOffsetIsFound(t *testing.T) {
	const batches = 6
	for _, c := range []struct{ isInJournal, isCheckpointed, areSegments bool }{
		{true, false, false}, {true, true, false}, {false, false, false}, {false, true, false}, {false, false, true}, {false, true, true},
	} {
		for changed := range batches {
			for _, bits := range []byte{1, 1 << 3} {
				t.Run(fmt.Sprintf("%+v, batch %d, bits %d", c, changed, bits), func(t *testing.T) {
					mem := vfs.NewMem()
					cfg := testConfig(mem, "data")
					if cfg.SyncAlone = 1; c.isInJournal {
						cfg.SyncAlone = 1 << 30
					}
					o := testOptions()
					if c.areSegments {
						o.SegmentBytes = 1024
					}
					s := quietStore(t, cfg)
					l := testLog(s, 0, o)
					type place struct {
						file string
						pos  int64
					}
					var places []place
					for i := range batches {
						b := batch(t, i, 1, 300)
						mustAppend(t, l, b)
						s.Commit()
						g := l.activeSegment()
						places = append(places, place{g.Path(segment.LogSuffix), g.Size() - int64(len(b))})
					}
					if c.areSegments && len(l.segments()) != 3 {
						t.Fatalf("%d segments", len(l.segments()))
					}
					if c.isCheckpointed {
						s.keeper.checkpointNow()
					}
					mem = mem.KillClone(nil)
					flipBitIn(t, mem, places[changed].file, places[changed].pos+7, bits)
					cfg.FS = mem
					s = quietStore(t, cfg)
					l = testLog(s, 0, o)
					end, err := l.End()
					if err != nil {
						t.Fatal(err)
					}
					next := record.Offset(0)
					for next < end {
						chunk, err := l.Read(next, end, 1)
						if err != nil || chunk == nil {
							break
						}
						b := make([]byte, chunk.Len())
						_, err = chunk.ReadAt(b, 0)
						chunk.Release()
						if err != nil {
							t.Fatal(err)
						}
						if base := record.Batch(b).BaseOffset(); base != next {
							if isLast := changed == batches-1 && !c.isInJournal && !c.isCheckpointed; !isLast {
								t.Errorf("a read of offset %d begins with offset %d", next, base)
							}
							return
						}
						next++
					}
					isLast := changed == batches-1 && !c.isInJournal && !c.isCheckpointed
					if next != batches && l.Fault() == nil && !isLast {
						t.Errorf("%d of %d records can be read, the log ends at %d, and it has no fault", next, batches, end)
					}
					if next < record.Offset(changed) {
						t.Errorf("%d records can be read before the changed one, which is number %d", next, changed)
					}
				})
			}
		}
	}
}

// TestLostSectorIsTornEnd proves that a power cut which loses the sector with the base offset of a batch that was not acknowledged, but neither
// the rest of the batch nor those behind it, leaves a torn end and no damage.
func TestLostSectorIsTornEnd(t *testing.T) {
	for lost := int64(1); lost <= 16; lost++ { // bytes of the batch in that sector
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := quietStore(t, cfg)
		l := testLog(s, 0, testOptions())
		first := batch(t, 0, 1, 300)
		if n := (sector - lost - int64(len(first))%sector + sector) % sector; n > 0 {
			first = batch(t, 0, 1, 300+int(n))
		}
		mustAppend(t, l, first)
		s.Commit()
		g := l.activeSegment()
		at := g.Size()
		if got := sector - at%sector; got != lost {
			t.Fatalf("a batch of %d bytes leaves %d of its sector, want %d", at, got, lost)
		}
		mustAppend(t, l, batch(t, 1, 1, 300))
		mustAppend(t, l, batch(t, 2, 1, 300))
		mem = mem.KillClone(nil)
		f, err := mem.Open(g.Path(segment.LogSuffix), vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = f.WriteAt(make([]byte, lost), at); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.FS = mem
		s = quietStore(t, cfg)
		l = testLog(s, 0, testOptions())
		// While all of the base offset's bytes that are not zero are in the next sector, the batch is whole.
		want := record.Offset(1)
		if lost < 8 {
			want = 3
		}
		if end, err := l.End(); err != nil || end != want || l.Fault() != nil {
			t.Errorf("%d bytes lost: the log ends at %d, want %d: %v, %v", lost, end, want, err, l.Fault())
		}
	}
}
