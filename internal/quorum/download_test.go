package quorum

import (
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// TestTwoSnapshotsOfOneEntry proves that a snapshot which this node makes is whole, though one of the same
// entry that was fetched is being written.
func TestTwoSnapshotsOfOneEntry(t *testing.T) {
	n, fs := startFollower(t)
	l := n.loop
	l.stepBatch([]*pb.Message{{
		Type: pb.MsgApp.Enum(), From: new(uint64(5)), To: new(l.self), Term: new(uint64(3)), Index: new(uint64(4)), LogTerm: new(uint64(3)),
		Commit: new(uint64(5)), Entries: []*pb.Entry{entryOf(5, 3, "a")},
	}})
	fetched := &snapshot{at: position{5, 3}, boot: boot{nodeID: 5, conf: l.conf}, data: []byte("state\na")}
	var isNaming bool
	writes, goOn := make(chan struct{}), make(chan struct{})
	l.log.fs = vfs.NewFaulty(fs, func(op vfs.Op, _ string) error {
		switch {
		case op == vfs.OpRename && !isNaming: // this node's own is on disk, and gets its name
			isNaming = true
			l.download = &download{of: 5, index: 5, file: append(fetched.encodeHead(), fetched.data...)}
			l.storeDownload()
			<-writes
		case op == vfs.OpWrite && isNaming:
			close(writes)
			<-goOn
		}
		return nil
	})
	l.askSnapshot()
	if err := l.applyPending(); err != nil {
		t.Fatal(err)
	}
	l.writeSnapshot(<-l.applier.captured)
	own := <-l.written
	if own.err != nil {
		t.Errorf("its own: %v", own.err)
	}
	if _, err := readSnapshot(fs.KillClone(nil), l.log.dir, 5); err != nil {
		t.Errorf("killed now: %v", err)
	}
	close(goOn)
	if err := <-l.stored; err != nil {
		t.Errorf("the fetched one: %v", err)
	}
	if _, err := readSnapshot(fs, l.log.dir, 5); err != nil {
		t.Error(err)
	}
}

// TestLoopEndsWhileASnapshotIsNamed proves that a loop which ends since the name of a fetched snapshot cannot be made durable does end: nobody stores anything any more.
func TestLoopEndsWhileASnapshotIsNamed(t *testing.T) {
	n, fs := startFollower(t)
	l := n.loop
	fetched := &snapshot{at: position{5, 3}, boot: boot{nodeID: 5, conf: l.conf}, data: []byte("state\na")}
	l.download = &download{of: 5, index: 5, file: append(fetched.encodeHead(), fetched.data...)}
	l.storeDownload()
	stored := <-l.stored
	if stored != nil {
		t.Fatal(stored)
	}
	l.log.fs = vfs.NewFaulty(fs, func(op vfs.Op, _ string) error {
		if op == vfs.OpSyncDir {
			return errors.New("the disk is gone")
		}
		return nil
	})
	err := l.noteStored(stored)
	if err == nil {
		t.Fatal("the name is durable")
	}
	go l.applier.applyJobs()
	ended := make(chan struct{})
	go func() {
		l.endLoop(err)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the loop does not end")
	}
}
