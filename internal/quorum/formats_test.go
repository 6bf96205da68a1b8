package quorum

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/leatstream/leat/internal/vfs"
)

// contents reads all files of the directory.
func contents(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	infos, err := fs.ReadDir("data/meta")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, i := range infos {
		f, err := fs.Open("data/meta/"+i.Name, vfs.ReadOnly)
		if err != nil {
			t.Fatal(err)
		}
		b, err := readAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		all[i.Name] = string(b)
	}
	return all
}

// newest finds the name of the newest file with a suffix.
func newest(t *testing.T, fs vfs.FS, suffix string) (name string) {
	t.Helper()
	for n := range contents(t, fs) {
		if strings.HasSuffix(n, suffix) {
			name = max(name, n)
		}
	}
	if name == "" {
		t.Fatalf("no file with the suffix %s", suffix)
	}
	return name
}

// TestRefusedStartChangesNothing proves that a start refuses a directory to which a newer
// version has written with a message that says what to do, and that it changes no byte of the
// directory, even if an earlier start was interrupted and has left unfinished files.
func TestRefusedStartChangesNothing(t *testing.T) {
	for name, spoil := range map[string]func(fs *vfs.Mem){
		"log": func(fs *vfs.Mem) {
			b := append([]byte(fileMagic), formatVersion+1)
			b = append(b, make([]byte, fileHead-4-len(b))...)
			write(t, fs, "data/meta/"+newest(t, fs, logSuffix), binary.LittleEndian.AppendUint32(b, checksum(b)), 0)
		},
		"snapshot": func(fs *vfs.Mem) {
			name := newest(t, fs, snapshotSuffix)
			b := []byte(contents(t, fs)[name])
			b[len(snapshotMagic)] = formatVersion + 1
			binary.LittleEndian.PutUint32(b[snapshotHead-4:], checksum(b[:snapshotHead-4], b[snapshotHead:]))
			write(t, fs, "data/meta/"+name, b, 0)
		},
		"entry": func(fs *vfs.Mem) {
			craft(t, fs, &pb.Entry{Type: pb.EntryNormal.Enum(), Data: append([]byte{entryVersion + 1}, "of a newer version"...)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := newFS()
			n, _ := start(t, fs)
			propose(t, n, count(0, 400)...)
			closeNode(n)
			spoil(fs)
			write(t, fs, "data/meta/"+fileName(2, snapshotSuffix), []byte("an older snapshot that was not removed"), 0)
			write(t, fs, "data/meta/"+spareName+tmpSuffix, []byte("a file that was not finished"), 0)
			before := contents(t, fs)
			for range 2 {
				n, err := openTuned(config(fs, &machine{}), small)
				if err == nil {
					closeNode(n)
				}
				if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "start that one") {
					t.Errorf("the start says %v", err)
				}
				if diff := cmp.Diff(before, contents(t, fs)); diff != "" {
					t.Errorf("the refused start changed the directory (%d bytes of difference)", len(diff))
				}
			}
		})
	}
}

// TestFlippedVersions proves that a flipped bit in the version of a snapshot is reported as
// damage, not as another version, for which the advice would be wrong.
func TestFlippedVersions(t *testing.T) {
	s := snapshot{boot: boot{1, &pb.ConfState{}}}
	for bit := range 8 {
		b := s.encodeHead()
		b[len(snapshotMagic)] ^= 1 << bit
		if _, err := parseSnapshot(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
}

// TestSpareOfAnotherVersion proves that a spare file which another version has made is not
// used, since a file's head must have the format of its frames.
func TestSpareOfAnotherVersion(t *testing.T) {
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, "line")
	awaitSpare(fs)
	closeNode(n)
	want := n.Applied()
	b := []byte(contents(t, fs)[spareName])
	b[len(fileMagic)] = formatVersion + 1
	binary.LittleEndian.PutUint32(b[fileHead-4:], checksum(b[:fileHead-4]))
	write(t, fs, "data/meta/"+spareName, b, 0)
	for range 2 {
		n, m := start(t, fs)
		if n.Applied() < want {
			t.Fatalf("%d entries of %d", n.Applied(), want)
		}
		propose(t, n, count(0, 40)...) // several files
		if got := m.state(); got[len(got)-1] != "line 39" {
			t.Errorf("the last line is %q", got[len(got)-1])
		}
		want = n.Applied()
		closeNode(n)
	}
}

// TestSnapshotFormat proves that a snapshot has the bytes that it had when its format was
// promised, and that they are read correctly.
func TestSnapshotFormat(t *testing.T) {
	for _, c := range []struct {
		want snapshot
		hex  string
	}{
		{snapshot{
			at: position{index: 7, term: 8}, raftID: 9, data: []byte("data"),
			boot: boot{nodeID: 1, conf: &pb.ConfState{
				Voters: []uint64{9}, Learners: []uint64{10}, VotersOutgoing: []uint64{11}, LearnersNext: []uint64{12}, AutoLeave: new(true),
			}},
		}, "6c656174736e617002b2eb4806070000000000000008000000000000000900000000000000010000000100090000000000000001000a0000000000000001000b0000000000000001000c000000000000000164617461"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(append(c.want.encodeHead(), c.want.data...)); got != c.hex {
			t.Errorf("it is written as %s, and was %s", got, c.hex)
		}
		got, err := parseSnapshot(b)
		if err != nil || got.at != c.want.at || got.raftID != c.want.raftID || got.nodeID != c.want.nodeID ||
			string(got.data) != string(c.want.data) || !proto.Equal(got.conf, c.want.conf) {
			t.Errorf("it is read as %+v: %v", got, err)
		}
	}
}
