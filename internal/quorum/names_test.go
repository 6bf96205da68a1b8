package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// verifyCuts checks that the acknowledged lines are there after a kill, and after power cuts at
// this moment and after the kill.
func verifyCuts(t *testing.T, disk *vfs.Mem, lines []string, acked int) {
	t.Helper()
	killed := disk.KillClone(nil)
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for _, from := range []*vfs.Mem{disk, killed} {
			if err := verify(from.Crash(rng), lines, acked); err != nil {
				t.Fatalf("after a power cut: %v", err)
			}
		}
	}
	if err := verify(killed, lines, acked); err != nil {
		t.Fatalf("after a kill: %v", err)
	}
}

// TestErrorsAfterAFileIsNamed proves that an error between the rename that names a new log file
// and its first frame is a fault, even if it says that there is no space, and that a restart,
// with or without a power cut, has all acknowledged lines and loses no later one.
func TestErrorsAfterAFileIsNamed(t *testing.T) {
	for _, bad := range []vfs.Op{vfs.OpSyncDir, vfs.OpOpen, vfs.OpClose} {
		for _, cause := range []error{vfs.ErrNoSpace, vfs.ErrNoHandles, errors.New("medium error")} {
			t.Run(fmt.Sprintf("%v %v", bad, cause), func(t *testing.T) {
				var mu sync.Mutex
				armed, named := false, false
				disk := newFS()
				fs := vfs.NewFaulty(disk, func(op vfs.Op, path string) error {
					mu.Lock()
					defer mu.Unlock()
					if !armed {
						return nil
					}
					if op == vfs.OpRename && strings.HasSuffix(path, "/"+spareName) {
						named = true
					}
					if op == bad && named {
						armed = false
						return cause
					}
					return nil
				})
				n, _ := start(t, fs)
				propose(t, n, count(0, 3)...)
				mu.Lock()
				armed = true
				mu.Unlock()
				// A large proposal needs a new file.
				if err := put(t.Context(), n, []byte(strings.Repeat("x", 1800))); !errors.Is(err, ErrFaulted) || n.Status().State != Faulted {
					t.Errorf("%v, and the node is %v", err, n.Status().State)
				}
				acked := 3
				for put(t.Context(), n, fmt.Appendf(nil, "line %d", acked)) == nil && acked < 6 {
					acked++
				}
				closeNode(n)
				verifyCuts(t, disk, count(0, 7), acked)
				// The directory goes on to be used, and then the power is cut.
				again, _ := start(t, disk)
				propose(t, again, count(acked, 20)...)
				for seed := range uint64(20) {
					if err := verify(disk.Crash(rand.New(rand.NewPCG(seed, 2))), count(0, 21), 20); err != nil {
						t.Fatalf("after a restart and a power cut: %v", err)
					}
				}
			})
		}
	}
}

// TestFirstStartWithoutNames proves that a first start whose sync of a directory fails does not
// mislead the next one, which makes the names again, even if the failed start could not remove
// anything.
func TestFirstStartWithoutNames(t *testing.T) {
	for fail := 1; fail <= 2; fail++ {
		for _, removes := range []bool{true, false} {
			disk := newFS()
			syncs, failed := 0, false
			fs := vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
				if op == vfs.OpSyncDir {
					if syncs++; syncs == fail {
						failed = true
						return errors.New("medium error")
					}
				}
				if op == vfs.OpRemove && failed && !removes {
					return errors.New("medium error")
				}
				return nil
			})
			if n, err := openTuned(config(fs, &machine{}), small); err == nil {
				closeNode(n)
				t.Fatal("the start did not fail")
			}
			removes = true
			n, _ := start(t, fs)
			propose(t, n, count(0, 5)...)
			verifyCuts(t, disk, count(0, 6), 5)
		}
	}
}

// TestStaleName proves that a start accepts the old name of a log file that an earlier one has taken
// back, if the sync of the directory failed then, so that the name is there again after a power
// cut: for an empty file, and for a file that the log has begun since; and that no line is lost.
func TestStaleName(t *testing.T) {
	for lines := 4; lines < 12; lines++ {
		disk := newFS()
		var mu sync.Mutex
		var bad vfs.Op
		named, armed := false, false
		fs := vfs.NewFaulty(disk, func(op vfs.Op, path string) error {
			mu.Lock()
			defer mu.Unlock()
			named = named || op == vfs.OpRename && strings.HasSuffix(path, spareName)
			if armed && op == bad && (named || bad == vfs.OpSyncDir) {
				armed = false
				return errors.New("medium error")
			}
			return nil
		})
		arm := func(op vfs.Op) {
			mu.Lock()
			defer mu.Unlock()
			bad, named, armed = op, false, true
		}
		n, _ := start(t, fs)
		propose(t, n, count(0, 3)...)
		arm(vfs.OpOpen) // of the file that is begun for a large proposal
		if err := put(t.Context(), n, []byte(strings.Repeat("x", 1800))); !errors.Is(err, ErrFaulted) {
			t.Fatal(err)
		}
		closeNode(n)
		arm(vfs.OpSyncDir)
		if n, err := openTuned(config(fs, &machine{}), small); err == nil {
			closeNode(n)
			t.Fatal("the start did not fail")
		}
		n, _ = start(t, fs)
		propose(t, n, count(3, lines)...)
		verifyCuts(t, disk, count(0, lines+1), lines)
	}
}

// slowSnapshot is a disk on which the first snapshot waits before it gets its name, until goOn is
// closed.
type slowSnapshot struct {
	disk    *vfs.Mem
	entered atomic.Bool
	goOn    chan struct{}
	fail    func(op vfs.Op, path string) error // asked for all other calls, once the snapshot waits
}

func (s *slowSnapshot) hook(op vfs.Op, path string) error {
	if op == vfs.OpRename && strings.HasSuffix(path, snapshotSuffix+tmpSuffix) && !s.entered.Swap(true) {
		<-s.goOn
		return nil
	}
	if !s.entered.Load() {
		return nil
	}
	return s.fail(op, path)
}

// proposeUntilWaiting proposes lines until the snapshot, of all lines that were acknowledged, waits.
func (s *slowSnapshot) proposeUntilWaiting(t *testing.T, n *Node) (acked int) {
	t.Helper()
	for ; !s.entered.Load(); acked++ {
		propose(t, n, count(acked, acked+1)...)
		synctest.Wait()
	}
	return acked
}

// TestSnapshotAfterAFault proves that a snapshot that ends after a fault drops nothing: the first
// frame of a new file could not be written, and older files have all frames.
func TestSnapshotAfterAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var named atomic.Bool
		s := &slowSnapshot{disk: newFS(), goOn: make(chan struct{}), fail: func(op vfs.Op, path string) error {
			switch {
			case op == vfs.OpRename && strings.HasSuffix(path, "/"+spareName):
				named.Store(true)
			case op == vfs.OpWrite && strings.HasSuffix(path, logSuffix) && named.Load():
				return errors.New("medium error")
			}
			return nil
		}}
		n, _ := start(t, vfs.NewFaulty(s.disk, s.hook))
		acked := s.proposeUntilWaiting(t, n)
		before := logFiles(s.disk)
		if err := put(t.Context(), n, []byte(strings.Repeat("x", 1500))); !errors.Is(err, ErrFaulted) {
			t.Fatal(err)
		}
		close(s.goOn)
		synctest.Wait()
		if after := logFiles(s.disk); len(after) != len(before)+1 {
			t.Errorf("the files %v became %v", before, after)
		}
		closeNode(n)
		verifyCuts(t, s.disk, count(0, acked+1), acked)
	})
}

func logFiles(fs vfs.FS) (names []string) {
	infos, _ := fs.ReadDir("data/meta")
	for _, i := range infos {
		if strings.HasSuffix(i.Name, logSuffix) {
			names = append(names, i.Name)
		}
	}
	return names
}

// TestSnapshotKeepsAFrame proves that a snapshot that ends when the newest file has no frame yet
// keeps the file before it, or gives it one. The newest one was begun for a proposal that was refused then.
func TestSnapshotKeepsAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSnapshot{disk: newFS(), goOn: make(chan struct{}), fail: func(vfs.Op, string) error { return nil }}
		n, _ := start(t, vfs.NewFaulty(s.disk, s.hook))
		acked := s.proposeUntilWaiting(t, n)
		if err := n.Propose(t.Context(), 999, []byte(strings.Repeat("x", 1500))); !errors.Is(err, ErrNotLeader) {
			t.Fatal(err)
		}
		close(s.goOn)
		synctest.Wait()
		if files := logFiles(s.disk); len(files) != 1 {
			t.Errorf("the files are %v, want one with the commit index", files)
		}
		verifyCuts(t, s.disk, count(0, acked+1), acked)
	})
	n, fs := startFollower(t)
	n.loop.stepBatch([]*pb.Message{{ // its entry is written together with its commit index
		Type: pb.MsgApp.Enum(), From: new(uint64(5)), To: new(n.loop.self), Term: new(uint64(3)), Index: new(uint64(4)), LogTerm: new(uint64(3)),
		Commit: new(uint64(5)), Entries: []*pb.Entry{entryOf(5, 3, "a")},
	}})
	if err := n.loop.log.beginFile(0); err != nil {
		t.Fatal(err)
	}
	noteNewSnapshot(t, n.loop)
	if files := logFiles(fs); len(files) != 2 {
		t.Errorf("the files are %v, want one with frames and one without", files)
	}
}

// TestSnapshotBesideAnEmptyFile proves that a start accepts a snapshot beside a newest log file
// that has no frame, or only the beginning of one, and goes on in that file.
func TestSnapshotBesideAnEmptyFile(t *testing.T) {
	for _, torn := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &slowSnapshot{disk: newFS(), goOn: make(chan struct{}), fail: func(vfs.Op, string) error { return nil }}
			n, _ := start(t, vfs.NewFaulty(s.disk, s.hook))
			acked := s.proposeUntilWaiting(t, n)
			if err := n.Propose(t.Context(), 999, []byte(strings.Repeat("x", 1500))); !errors.Is(err, ErrNotLeader) {
				t.Fatal(err)
			}
			before := s.disk.KillClone(nil)
			close(s.goOn)
			closeNode(n)
			files := logFiles(s.disk)
			copyFile(t, before, s.disk, "data/meta/"+files[len(files)-1]) // else it has the commit index
			for _, name := range files[:len(files)-1] {
				_ = s.disk.Remove("data/meta/" + name)
			}
			if torn {
				write(t, s.disk, "data/meta/"+files[len(files)-1], []byte("torn"), fileHead)
			}
			_ = s.disk.SyncDir("data/meta")
			verifyCuts(t, s.disk, count(0, acked+1), acked)
			again, m := start(t, s.disk)
			propose(t, again, count(acked, 100)...)
			closeNode(again)
			if got := m.state(); !slices.Equal(got, count(0, 100)) {
				t.Errorf("%q", got)
			}
			if err := verify(s.disk, count(0, 101), 100); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailedSyncOfASnapshotsName proves that a failed sync of the directory for a snapshot is a
// fault, since it may have lost the name of a log file, too; that one which has not begun is none;
// and that a restart keeps the older snapshot, which is needed after a power cut.
func TestFailedSyncOfASnapshotsName(t *testing.T) {
	for _, cause := range []error{errors.New("medium error"), vfs.ErrNoSpace, vfs.ErrNoHandles} {
		t.Run(cause.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var named, failed atomic.Bool
				var snapshots atomic.Int32
				disk := newFS()
				fs := vfs.NewFaulty(disk, func(op vfs.Op, path string) error {
					switch {
					case op == vfs.OpRename:
						if strings.HasSuffix(path, snapshotSuffix+tmpSuffix) {
							named.Store(snapshots.Add(1) == 2)
						}
					case op == vfs.OpSyncDir && named.Load() && !failed.Swap(true):
						return cause
					}
					return nil
				})
				n, _ := start(t, fs)
				acked := 0
				for ; !failed.Load(); acked++ {
					propose(t, n, count(acked, acked+1)...)
					synctest.Wait()
				}
				want := Faulted
				if errors.Is(cause, vfs.ErrNoHandles) {
					want = Serving
				}
				if got := n.Status().State; got != want {
					t.Errorf("the node is %v, want %v", got, want)
				}
				for put(t.Context(), n, fmt.Appendf(nil, "line %d", acked)) == nil && acked < 500 {
					acked++
				}
				closeNode(n)
				verifyCuts(t, disk, count(0, acked+1), acked)
				again, _ := start(t, disk)
				closeNode(again)
				verifyCuts(t, disk, count(0, acked+1), acked)
			})
		})
	}
}

// TestNamesAreSyncedOneAfterTheOther proves that the log never syncs its directory twice at the
// same time: then the kernel could report a failure to one caller that concerns the other's names.
func TestNamesAreSyncedOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, rotating := make(chan struct{}), make(chan struct{})
		var under, dirs atomic.Int32
		s := &slowSnapshot{disk: newFS(), goOn: make(chan struct{})}
		s.fail = func(op vfs.Op, _ string) error {
			if op != vfs.OpSyncDir {
				return nil
			}
			if now := under.Add(1); now > 1 {
				t.Errorf("%d syncs of the directory are under way", now)
			}
			if dirs.Add(1) == 1 {
				close(rotating)
				<-release
			}
			under.Add(-1)
			return nil
		}
		n, _ := start(t, vfs.NewFaulty(s.disk, s.hook))
		s.proposeUntilWaiting(t, n)
		done := make(chan error, 1)
		go func() { done <- put(t.Context(), n, []byte(strings.Repeat("x", 1500))) }()
		<-rotating
		close(s.goOn)
		synctest.Wait() // the snapshot is written while the directory is being synced
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if dirs.Load() != 2 {
			t.Errorf("%d syncs of the directory, want one for the file and one for the snapshot", dirs.Load())
		}
	})
}

// TestRemovedFileComesBack proves that a start accepts an old log file that was removed, and that
// a power cut has brought back because a sync of the directory had failed, if the snapshot has all
// its entries; and that it misses no file which has later entries.
func TestRemovedFileComesBack(t *testing.T) {
	disk := newFS()
	n, _ := start(t, disk)
	propose(t, n, count(0, 20)...)
	old := disk.KillClone(nil)
	propose(t, n, count(20, 150)...)
	awaitSnapshot(disk)
	closeNode(n)
	cfg := config(disk, &machine{})
	cfg.SnapshotBytes = 1 << 30 // no later snapshot: the later files are needed
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, n, count(150, 250)...)
	closeNode(n)
	copyFile(t, old, disk, "data/meta/"+logFiles(old)[0])
	if err := verify(disk.KillClone(nil), count(0, 251), 250); err != nil {
		t.Error(err)
	}
	files := logFiles(disk)
	refused := 0
	for _, name := range files[1 : len(files)-1] {
		without := disk.KillClone(nil)
		_ = without.Remove("data/meta/" + name)
		err := verify(without, count(0, 251), 250)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v", name, err)
		}
		if err != nil {
			refused++
		}
	}
	if refused < len(files)-3 {
		t.Errorf("without one of %v, %d starts were refused", files, refused)
	}
	// An empty file does not show which entries are missing before it.
	for _, name := range files[1:] {
		_ = disk.Remove("data/meta/" + name)
	}
	write(t, disk, "data/meta/"+fileName(9999, logSuffix), append(newFileHead(), make([]byte, 2048)...), 0)
	if err := verify(disk, count(0, 251), 250); !errors.Is(err, ErrDamaged) {
		t.Errorf("with an empty file only: %v", err)
	}
}

func copyFile(t *testing.T, from, to vfs.FS, name string) {
	t.Helper()
	f, err := from.Open(name, vfs.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := readAll(f)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, name, b, 0)
}

// TestFileThatWasTooSmall proves that a file which was begun, got no frame, and was then too small for a
// larger proposal, is replaced as a whole: a snapshot must not remove the file that has its name.
func TestFileThatWasTooSmall(t *testing.T) {
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, count(0, 3)...)
	closeNode(n)
	l, found, err := openLog(config(fs, &machine{}), small)
	if err != nil {
		t.Fatal(err)
	}
	last := found.lastIndex()
	for _, room := range []int64{1000, 5000} { // for proposals that raft then refuses
		if err := l.ensureRoom(room); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.saveFrame([]*pb.Entry{{Index: new(last + 1), Term: new(found.state.GetTerm()), Data: wrapProposal(found.state.GetTerm(), []byte("line 3"))}}); err != nil {
		t.Fatal(err)
	}
	if err := l.dropReplaced(last); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat("data/meta/" + fileName(l.number-1, logSuffix)); err != nil {
		t.Errorf("the file of the last frame: %v", err)
	}
}
