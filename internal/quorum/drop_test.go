package quorum

import (
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// noteNewSnapshot makes a snapshot of all that is committed, as the loop does.
func noteNewSnapshot(t *testing.T, l *loop) {
	t.Helper()
	l.askSnapshot()
	if err := l.applyPending(); err != nil {
		t.Fatal(err)
	}
	l.writeSnapshot(<-l.applier.captured)
	l.noteSnapshot(<-l.written)
}

// TestDropKeepsTheNewestSnapshot proves that a start goes back to no older snapshot if the process was
// killed when the files with the entries between the two were gone, and the older snapshot was not.
// The newest file has only a term, with the commit index that was known then.
func TestDropKeepsTheNewestSnapshot(t *testing.T) {
	n, fs := startFollower(t)
	l := n.loop
	entries := []*pb.Entry{entryOf(5, 3, "a"), entryOf(6, 3, "acknowledged")}
	l.stepBatch([]*pb.Message{{
		Type: pb.MsgApp.Enum(), From: new(uint64(5)), To: new(l.self), Term: new(uint64(3)), Index: new(uint64(4)), LogTerm: new(uint64(3)),
		Commit: new(uint64(4)), Entries: entries,
	}})
	// The next leader's entries do not follow, but they need a new file, which gets the new term.
	l.stepBatch([]*pb.Message{{
		Type: pb.MsgApp.Enum(), From: new(uint64(6)), To: new(l.self), Term: new(uint64(9)), Index: new(uint64(20)), LogTerm: new(uint64(9)),
		Commit: new(uint64(4)), Entries: []*pb.Entry{entryOf(21, 9, strings.Repeat("x", 1000))},
	}})
	answer := &pulled{member: 6, term: 9, commit: 6, conf: l.conf, prev: position{4, 3}, entries: entries}
	l.handle(func() error { return l.notePulled(encodePulled(n.cfg.Cluster, answer), nil) })
	if len(l.log.files) != 2 || l.log.saved.GetCommit() != 4 || l.committed.index != 6 {
		t.Fatalf("%d files say that %d is committed, and %d is", len(l.log.files), l.log.saved.GetCommit(), l.committed.index)
	}
	before := fs.KillClone(nil)
	noteNewSnapshot(t, l)
	if len(l.log.files) != 1 {
		t.Fatalf("%d files are left", len(l.log.files))
	}
	after := fs.KillClone(nil)
	copyFile(t, before, after, l.log.pathOf(fileName(4, snapshotSuffix)))
	again, found, err := openLog(config(after, &machine{}), small)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if found.lastIndex() != 6 || found.state.GetCommit() != 6 {
		t.Errorf("the log ends with entry %d, and %d is committed", found.lastIndex(), found.state.GetCommit())
	}
}

// TestDropWithoutCommit proves that nothing is dropped if the commit index cannot be written first: a full
// disk only leaves the log as long as it is, and after another error the node is read-only.
func TestDropWithoutCommit(t *testing.T) {
	for _, c := range []struct {
		err  error
		want State
	}{{vfs.ErrNoSpace, Serving}, {errors.New("medium error"), Faulted}} {
		n, fs := startFollower(t)
		l := n.loop
		l.stepBatch([]*pb.Message{{
			Type: pb.MsgApp.Enum(), From: new(uint64(5)), To: new(l.self), Term: new(uint64(3)), Index: new(uint64(4)), LogTerm: new(uint64(3)),
			Commit: new(uint64(4)), Entries: []*pb.Entry{entryOf(5, 3, "a")},
		}})
		l.stepBatch([]*pb.Message{{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(5)), To: new(l.self), Term: new(uint64(3)), Commit: new(uint64(5))}})
		if err := l.log.beginFile(0); err != nil {
			t.Fatal(err)
		}
		f := vfs.NewFaulty(fs, func(op vfs.Op, name string) error {
			if op == vfs.OpWrite && strings.HasSuffix(name, logSuffix) {
				return c.err
			}
			return nil
		})
		file, err := f.Open(l.log.pathOf(fileName(l.log.number, logSuffix)), vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		kept := l.log.f
		l.log.f = file
		noteNewSnapshot(t, l)
		if len(l.log.files) != 2 || l.state != c.want {
			t.Errorf("%v: %d files, the node is %v", c.err, len(l.log.files), l.state)
		}
		if _, err := readSnapshot(fs, l.log.dir, 4); err != nil {
			t.Errorf("%v: the older snapshot is gone: %v", c.err, err)
		}
		if err := kept.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
