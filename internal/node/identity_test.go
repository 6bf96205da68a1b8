package node

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/vfs"
)

// sameKey compares keys, whose secret part no other package sees.
func sameKey(a, b credential.NodeKey) bool { return bytes.Equal(a.Encode(), b.Encode()) }

const deepDir = "srv/leat/data"

// identify does what a start does first.
func identify(fsys vfs.FS) (identity, error) {
	lock, err := lockDirectory(fsys, deepDir)
	if err != nil {
		return identity{}, err
	}
	id, err := loadIdentity(fsys, deepDir, nil, "")
	return id, errors.Join(err, lock.Close())
}

// openQuorum does what a start does next.
func openQuorum(t *testing.T, fsys vfs.FS, id identity) {
	t.Helper()
	q, err := quorum.Open(quorum.Config{
		ID: id.nodeID, Dir: path.Join(deepDir, quorumDir), FS: fsys, Logger: slog.New(slog.DiscardHandler),
		Apply: func(quorum.Update) error { return nil }, Capture: func() func() []byte { return func() []byte { return nil } },
	})
	if err == nil {
		err = q.Close(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestIdentityIsOnDiskFirst proves that a start goes on to write metadata only when the identity
// is on the disk, with all names on the way to it: also where the process that made it was
// killed at any call, and a power cut at any call of the next start follows.
func TestIdentityIsOnDiskFirst(t *testing.T) {
	for at := 1; ; at++ {
		mem, calls := vfs.NewMem(), 0
		var killed *vfs.Mem
		_, err := identify(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if op.Changes() && killed == nil {
				if calls++; calls == at {
					killed = mem.KillClone(nil)
				}
			}
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		if killed == nil && at < 8 {
			t.Errorf("an identity was made in %d calls", at-1)
		}
		if killed == nil {
			return
		}
		startWithPowerCuts(t, killed)
	}
}

// startWithPowerCuts begins a start and cuts the power at each call of it.
func startWithPowerCuts(t *testing.T, disk *vfs.Mem) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	var want *identity
	var cuts []*vfs.Mem
	watched := vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
		for range 4 {
			if op.Changes() && want != nil {
				cuts = append(cuts, disk.Crash(rng))
			}
		}
		return nil
	})
	id, err := identify(watched)
	if err != nil {
		t.Fatal(err)
	}
	want = &id
	openQuorum(t, watched, id)
	for i, after := range cuts {
		got, err := identify(after)
		if err != nil {
			t.Fatalf("power cut %d: %v", i, err)
		}
		if diff := cmp.Diff(*want, got, cmp.AllowUnexported(identity{}), cmp.Comparer(sameKey)); diff != "" {
			t.Fatalf("power cut %d: the node has another identity: %s", i, diff)
		}
	}
}

// TestIdentityAfterAFailedSync proves that a first start whose sync of the data directory failed
// does not mislead the next one: a later sync does not make the names durable that were lost.
func TestIdentityAfterAFailedSync(t *testing.T) {
	mem, failed := vfs.NewMem(), false
	fsys := vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if op == vfs.OpSyncDir && name == deepDir && !failed {
			failed = true
			return errors.New("medium error")
		}
		return nil
	})
	if _, err := identify(fsys); !errors.Is(err, ErrDirectory) {
		t.Fatalf("the first start: %v", err)
	}
	startWithPowerCuts(t, mem)
}

// oldDisk has the identity of a directory that an earlier version has made.
func oldDisk(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	if _, err := identify(mem); err != nil {
		t.Fatal(err)
	}
	old := "version=1\nleat.format=2\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\nnode.id=7\n"
	if err := errors.Join(writeFile(mem, path.Join(deepDir, identityFile), []byte(old), vfs.Fresh), mem.SyncDir(deepDir)); err != nil {
		t.Fatal(err)
	}
	return mem
}

// TestOldDirectoryGetsAnID proves that a directory which an earlier version has made gets an id and a
// key once, that both are on the disk before they are used, and that all else of the identity stays.
func TestOldDirectoryGetsAnID(t *testing.T) {
	mem := oldDisk(t)
	id, err := identify(mem)
	if err != nil || id.clusterID != "AAAAAAAAAAAAAAAAAAAAAA" || id.nodeID != 7 || id.directory == (meta.UUID{}) {
		t.Fatalf("%+v, %v", id, err)
	}
	again, err := identify(mem)
	if err != nil || again.directory != id.directory || again.nodeID != 7 || !sameKey(again.key, id.key) || id.key.Public() != id.public {
		t.Errorf("%+v at the first start, and %+v at the second one, %v", id, again, err)
	}
	startWithPowerCuts(t, oldDisk(t))
}

// TestOldDirectoryAfterAFailedSync proves that an id whose name may not be on the disk is not used at
// the next start either.
func TestOldDirectoryAfterAFailedSync(t *testing.T) {
	mem, failed := oldDisk(t), false
	fsys := vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if op == vfs.OpSyncDir && name == deepDir && !failed {
			failed = true
			return errors.New("medium error")
		}
		return nil
	})
	if _, err := identify(fsys); !errors.Is(err, ErrDirectory) {
		t.Fatalf("the first start: %v", err)
	}
	b, err := readFile(mem, path.Join(deepDir, identityFile))
	if err != nil || strings.Contains(string(b), directoryProperty) {
		t.Errorf("the identity is %q, %v", b, err)
	}
	startWithPowerCuts(t, mem)
}
