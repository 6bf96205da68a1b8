package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// checkAnyIndexes puts index files beside a segment's batches and proves that its records
// are still the same: while it is closed, while it is active, and after further appends.
func (s *subject) checkAnyIndexes(what string, mem *vfs.Mem, offsets, times []byte) {
	s.t.Helper()
	lay := func() {
		s.reopen()
		put(s.t, mem, s.g.Path(segment.IndexSuffix), offsets)
		put(s.t, mem, s.g.Path(segment.TimeSuffix), times)
	}
	lay()
	s.check(what+", closed", false)
	s.reopen()
	s.check(what+", closed, again", false)
	lay()
	if err := s.g.Activate(s.interval); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	s.check(what+", activated", true)
	keep := len(s.batches)
	s.append(1 + s.rng.IntN(5))
	s.close()
	s.reopen()
	s.check(what+", grown and closed", false)
	must(s.t, s.truncate(keep))
}

// closedSubject is a closed segment of n batches, with the contents of its index files.
func closedSubject(tb testing.TB, mem *vfs.Mem, rng *rand.Rand, n int) (s *subject, offsets, times []byte) {
	tb.Helper()
	s = newSubject(tb, newFiles(tb, mem, 4), rng, 0)
	s.append(n)
	s.close()
	return s, contents(tb, mem, s.g.Path(segment.IndexSuffix)), contents(tb, mem, s.g.Path(segment.TimeSuffix))
}

// TestIndexesCutShort proves that index files which end too early, each at another entry,
// as after a power cut, lead to the same answers. So they lead to the same largest
// timestamp, by which records are deleted.
func TestIndexesCutShort(t *testing.T) {
	for seed := range uint64(3) {
		mem := vfs.NewMem()
		s, offsets, times := closedSubject(t, mem, seeded(seed), 25)
		for i := 0; i <= len(offsets); i += 1 + s.rng.IntN(12) {
			for k := 0; k <= len(times); k += 1 + s.rng.IntN(40) {
				s.checkAnyIndexes(fmt.Sprintf("seed %d: %d of %d and %d of %d bytes", seed, i, len(offsets), k, len(times)),
					mem, offsets[:i], times[:k])
			}
		}
	}
}

// mangle damages an index file as a disk, a crash or a wrong copy may do.
func mangle(rng *rand.Rand, own, other []byte) (what string, b []byte) {
	b = bytes.Clone(own)
	switch rng.IntN(7) {
	case 0:
		return "missing", nil
	case 1:
		return "untouched", b
	case 2:
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return "garbage", b
	case 3:
		if len(b) > 0 {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		return "a flipped bit", b
	case 4:
		return "followed by garbage", append(b, []byte("and some bytes that nobody wrote, of more than one entry")...)
	case 5:
		return "of another segment", other
	default:
		return "followed by those of another one", append(b, other...)
	}
}

// TestIndexesMangled proves that index files may have any contents.
func TestIndexesMangled(t *testing.T) {
	for seed := range uint64(40) {
		rng := seeded(seed)
		_, otherOffsets, otherTimes := closedSubject(t, vfs.NewMem(), rng, 1+rng.IntN(40))
		mem := vfs.NewMem()
		s, offsets, times := closedSubject(t, mem, rng, 1+rng.IntN(40))
		whatOffsets, newOffsets := mangle(rng, offsets, otherOffsets)
		whatTimes, newTimes := mangle(rng, times, otherTimes)
		s.checkAnyIndexes(fmt.Sprintf("seed %d: offsets %s, times %s", seed, whatOffsets, whatTimes), mem, newOffsets, newTimes)
		if seed%5 == 0 {
			s.checkAnyIndexes(fmt.Sprintf("seed %d: swapped", seed), mem, times, offsets)
		}
	}
}

// TestIndexesOfLostBatches proves that entries of batches that a power cut has taken do no
// harm, although the batches that came later in their place have other timestamps at the
// same offsets.
func TestIndexesOfLostBatches(t *testing.T) {
	for seed := range uint64(30) {
		rng := seeded(seed)
		mem := vfs.NewMem()
		s, offsets, times := closedSubject(t, mem, rng, 20+rng.IntN(30))
		keep := rng.IntN(len(s.batches))
		must(t, s.truncate(keep))
		put(t, mem, s.g.Path(segment.IndexSuffix), offsets)
		put(t, mem, s.g.Path(segment.TimeSuffix), times)
		must(t, s.g.Activate(s.interval))
		s.check(fmt.Sprintf("seed %d: activated", seed), true)
		s.append(1 + rng.IntN(30))
		s.check(fmt.Sprintf("seed %d: appended", seed), true)
		s.close()
		s.reopen()
		s.check(fmt.Sprintf("seed %d: closed", seed), false)
		n := contents(t, mem, s.g.Path(segment.TimeSuffix))
		if len(n)%12 != 0 {
			t.Fatalf("seed %d: a time index of %d bytes", seed, len(n))
		}
	}
}

// TestSealedIndexesEndWithTheirEntries proves that a sealed segment's index files have its
// entries and no others, whatever files of these names had before.
func TestSealedIndexesEndWithTheirEntries(t *testing.T) {
	mem := vfs.NewMem()
	rng := seeded(1)
	s := newSubject(t, newFiles(t, mem, 4), rng, 0)
	for _, suffix := range []string{segment.IndexSuffix, segment.TimeSuffix} {
		put(t, mem, s.g.Path(suffix), bytes.Repeat([]byte{7}, 10_000))
	}
	s.clock = rising
	s.append(60)
	offsets, _ := s.g.IndexEntries()
	must(t, s.g.Seal())
	_, times := s.g.IndexEntries()
	if n := len(contents(t, mem, s.g.Path(segment.IndexSuffix))); offsets == 0 || n != 8*offsets {
		t.Errorf("%d entries lie in %d bytes", offsets, n)
	}
	if n := len(contents(t, mem, s.g.Path(segment.TimeSuffix))); times == 0 || n != 12*times {
		t.Errorf("%d time entries lie in %d bytes", times, n)
	}
}

// TestRightIndexesStay proves that no look-up builds right indexes again, not even one
// beyond the segment's end.
func TestRightIndexesStay(t *testing.T) {
	renames := 0
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, _ string) error {
		if op == vfs.OpRename {
			renames++
		}
		return nil
	})
	s := newSubject(t, newFiles(t, fs, 4), seeded(2), 0)
	s.clock = rising
	s.append(60)
	s.check("active", true)
	s.close()
	s.check("closed", false)
	s.reopen()
	s.check("reopened", false)
	if _, err := s.g.Locate(s.next); !errors.Is(err, io.EOF) {
		t.Errorf("beyond the end: %v", err)
	}
	if renames != 0 {
		t.Errorf("index files were replaced %d times", renames)
	}
}

// TestIndexesThatCannotBeWritten proves that appends and reads go on if no index file can
// be written, that a seal returns the error, and that it succeeds once they can be written.
func TestIndexesThatCannotBeWritten(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpWrite, vfs.OpTruncate} {
		broken := true
		mem := vfs.NewMem()
		fs := vfs.NewFaulty(mem, func(o vfs.Op, path string) error {
			if broken && o == op && !strings.HasSuffix(path, segment.LogSuffix) {
				return vfs.ErrNoSpace
			}
			return nil
		})
		s := newSubject(t, newFiles(t, fs, 4), seeded(3), 0)
		s.interval = 1 // an entry for each batch: more of them than memory keeps
		for range 12 {
			s.append(50)
			if op != vfs.OpOpen { // without that nobody can read the index either
				s.read("while no index can be written", s.base, s.next, 1000)
			}
		}
		if err := s.g.Seal(); !errors.Is(err, vfs.ErrNoSpace) {
			t.Errorf("%s: a seal whose indexes could not be written: %v", op, err)
		}
		broken = false
		s.close()
		s.coarse = true
		s.check("at last", false)
	}
}
