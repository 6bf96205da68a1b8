package quorum

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// TestSnapshotFlippedBits proves that a snapshot with any changed byte is refused.
func TestSnapshotFlippedBits(t *testing.T) {
	conf := &pb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}, VotersOutgoing: []uint64{1}, LearnersNext: []uint64{4}, AutoLeave: new(true)}
	s := snapshot{at: position{7, 3}, raftID: 9, boot: boot{1, conf}, data: []byte("the state")}
	whole := append(s.encodeHead(), s.data...)
	got, err := parseSnapshot(whole)
	if err != nil || got.at != s.at || got.raftID != 9 || got.nodeID != 1 || got.conf.Equivalent(conf) != nil || string(got.data) != string(s.data) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range whole {
		for bit := range 8 {
			bad := slices.Clone(whole)
			bad[i] ^= 1 << bit
			if _, err := parseSnapshot(bad); err == nil {
				t.Errorf("byte %d, bit %d", i, bit)
			}
		}
		if _, err := parseSnapshot(whole[:i]); err == nil {
			t.Errorf("cut at %d", i)
		}
	}
}

// FuzzScanFrames proves that no bytes make the reader of log files panic, and that the frames
// which it accepts are written again with the same bytes.
func FuzzScanFrames(f *testing.F) {
	fs := newFS()
	m := &machine{}
	n, err := openTuned(config(fs, m), small)
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range count(0, 20) {
		_ = put(context.Background(), n, []byte(l))
	}
	closeNode(n)
	file, _ := fs.Open("data/meta/"+fileName(1, logSuffix), vfs.ReadOnly)
	b, _ := readAll(file)
	f.Add(b, uint64(1))
	f.Add(b[:100], uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, first uint64) {
		var again []byte
		x, err := scanFrames(b, first, 0, func(at, size int64, h frameHeader, r *records) error {
			body, _, err := joinBody(b, at, h)
			if err != nil {
				t.Fatal(err)
			}
			if len(again) == 0 {
				again = newFileHead()
			}
			if again = appendFrame(again, at, h.number, h.raftID, body); !bytes.Equal(again, b[:at+size]) {
				t.Fatalf("the frame at %d changes by being written", at)
			}
			for _, e := range r.entries {
				if p := parseEntry(appendEntry(nil, e)[recordHead:]); p.GetIndex() != e.GetIndex() {
					t.Fatal("an entry changes by being written")
				}
			}
			return nil
		})
		if err == nil && (x.end < int64(len(again)) || x.next < first) {
			t.Fatalf("%+v", x)
		}
	})
}

// FuzzParseRecords proves that no records make their decoder panic.
func FuzzParseRecords(f *testing.F) {
	f.Add(appendBoot(nil, &boot{1, &pb.ConfState{Voters: []uint64{1}}}))
	f.Add([]byte{kindEntry, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRecords(b); err == nil && len(b) > 0 && r.boot == nil && r.state == nil && r.entries == nil {
			t.Fatal("bytes were accepted and became nothing")
		}
	})
}

// FuzzSnapshot proves that no bytes make the reader of snapshots panic.
func FuzzSnapshot(f *testing.F) {
	s := snapshot{at: position{7, 3}, raftID: 1, boot: boot{1, &pb.ConfState{Voters: []uint64{1}}}, data: []byte("x")}
	f.Add(append(s.encodeHead(), s.data...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSnapshot(b)
		if err == nil && string(append(s.encodeHead(), s.data...)) != string(b) {
			t.Fatal("a snapshot changes by being written")
		}
	})
}

// twoFrames makes a file with two frames, the second of which has a body of n bytes, and
// returns the offsets at which that one begins and ends. The bytes of the body are random, or
// all zero.
func twoFrames(rng *rand.Rand, n int, zeros bool) (b []byte, at, end int64) {
	entry := func(index uint64, data []byte) []byte {
		return appendEntry(nil, &pb.Entry{Term: new(uint64(1)), Index: &index, Type: pb.EntryNormal.Enum(), Data: data})
	}
	b = appendFrame(newFileHead(), fileHead, 1, 77, entry(2, make([]byte, rng.IntN(600))))
	at = int64(len(b))
	data := make([]byte, n)
	for i := range data {
		if !zeros {
			data[i] = byte(rng.Uint32())
		}
	}
	b = appendFrame(b, at, 2, 77, entry(3, data))
	end = int64(len(b))
	return append(b, make([]byte, 4096)...), at, end
}

// scanned counts the frames of a file and the bytes that a torn write has left.
func scanned(b []byte) (frames int, torn int64, err error) {
	x, err := scanFrames(b, 1, 77, func(int64, int64, frameHeader, *records) error {
		frames++
		return nil
	})
	return frames, x.torn, err
}

// TestFrameLengths proves that a frame has the length that is calculated before it is written,
// at any offset, and that it is read back.
func TestFrameLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for n := range 2500 {
		b, at, end := twoFrames(rng, n, n%2 == 0)
		body := n + entryHead
		if end-at != frameLen(at, body) || end-at > frameSpace(int64(body)) || end%frameAlign != 0 {
			t.Fatalf("%d bytes at %d: %d long, %d expected, at most %d", n, at, end-at, frameLen(at, body), frameSpace(int64(body)))
		}
		if frames, torn, err := scanned(b); frames != 2 || torn != 0 || err != nil {
			t.Fatalf("%d bytes at %d: %d frames, %d torn, %v", n, at, frames, torn, err)
		}
	}
}

// TestTornWrites proves that a write of which any sectors are missing, or that was cut at any
// byte, is recognised as torn, whatever bytes it had, and that an interrupted wipe of it is too.
func TestTornWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for round := range 3000 {
		b, at, end := twoFrames(rng, rng.IntN(3000), round%3 == 0)
		whole := slices.Clone(b)
		missing := 0
		if round%2 == 0 { // power: sector by sector
			for s := at &^ (sector - 1); s < end; s += sector {
				if rng.IntN(2) == 0 {
					clear(b[max(s, at):min(s+sector, end)])
					missing++
				}
			}
		} else { // killed: a beginning of it
			clear(b[at+rng.Int64N(end-at) : end])
			missing++
		}
		frames, torn, err := scanned(b)
		if missing == 0 {
			if frames != 2 || err != nil {
				t.Fatal("a whole write is not read")
			}
			continue
		}
		if frames != 1 || err != nil {
			t.Fatalf("round %d: %d frames, %v", round, frames, err)
		}
		if torn == 0 {
			continue // nothing of it is left
		}
		// The wipe: both of its writes, cut at any byte.
		first, second := slices.Clone(b), slices.Clone(b)
		clear(first[at+frameHead-1 : at+frameHead-1+rng.Int64N(torn+1)])
		clear(second[at+frameHead-1 : at+max(torn, frameHead)])
		clear(second[at : at+rng.Int64N(frameHead)])
		for i, w := range [][]byte{first, second} {
			if frames, _, err := scanned(w); frames != 1 || err != nil {
				t.Fatalf("round %d, cut in write %d of the wipe: %d frames, %v", round, i, frames, err)
			}
		}
		// The same with a frame behind it is damage.
		more := appendFrame(slices.Clone(b[:end]), end, 3, 77, []byte{kindState, 0, 0, 0, 0})
		if _, _, err := scanned(append(more, whole[end+4000:]...)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("round %d: a missing frame with one behind it: %v", round, err)
		}
	}
}

// TestFlippedBitsOfFrames proves that any flipped bit of a file's head and of its frames is
// found, also in the frame that was written last, and in one that has only zeros.
func TestFlippedBitsOfFrames(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for _, n := range []int{1, 40, 500, 1500} {
		for _, zeros := range []bool{false, true} {
			b, _, end := twoFrames(rng, n, zeros)
			for i := range end {
				for bit := range 8 {
					b[i] ^= 1 << bit
					if _, _, err := scanned(b); err == nil {
						t.Fatalf("%d bytes (zeros: %v): bit %d of byte %d of %d is not missed", n, zeros, bit, i, end)
					}
					b[i] ^= 1 << bit
				}
			}
		}
	}
}

// TestFormats proves that a file of another format is refused with a message that says what to
// do.
func TestFormats(t *testing.T) {
	for version, want := range map[byte]error{formatVersion - 1: ErrOlder, formatVersion + 1: ErrNewer} {
		b := newFileHead()
		b[len(fileMagic)] = version
		binary.LittleEndian.PutUint32(b[fileHead-4:], checksum(b[:fileHead-4]))
		if _, _, err := scanned(b); !errors.Is(err, want) {
			t.Errorf("log format %d: %v", version, err)
		}
		s := snapshot{boot: boot{1, &pb.ConfState{}}}
		b = s.encodeHead()
		b[len(snapshotMagic)] = version
		binary.LittleEndian.PutUint32(b[snapshotHead-4:], checksum(b[:snapshotHead-4], b[snapshotHead:]))
		if _, err := parseSnapshot(b); !errors.Is(err, want) {
			t.Errorf("snapshot format %d: %v", version, err)
		}
	}
	if _, _, err := unwrapProposal(append([]byte{entryVersion + 1}, "a proposal of a newer version"...)); !errors.Is(err, ErrNewer) {
		t.Errorf("entry: %v", err)
	}
}
