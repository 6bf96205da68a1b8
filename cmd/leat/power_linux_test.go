package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a mounted ext4 file system in a file, whose power can be cut. A cut loses everything that
// the file system has not written to the file.
type disk struct {
	image string
	dir   string // the directory on which it is mounted
}

const diskPrefix = "leat-power-" // followed by the id of the process that made it

// newDisk makes and mounts a disk until the test ends. Its size is in MiB.
func newDisk(t *testing.T, mib int64) *disk {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil || os.Geteuid() != 0 {
		t.Skip("a file system whose power can be cut needs root and loop devices")
	}
	skip := t.Skipf
	if os.Getenv("LEAT_TEST_REQUIRE_ALL") == "1" {
		skip = t.Fatalf
	}
	removeDisksOfTheDead(t)
	box, err := os.MkdirTemp("", diskPrefix+strconv.Itoa(os.Getpid())+"-") //nolint:usetesting // a later test must know it by its name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(box); err != nil {
			t.Error(err)
		}
	})
	d := &disk{filepath.Join(box, "image"), filepath.Join(box, "mounted")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, mib<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		skip("mkfs.ext4 is missing, which is in the package e2fsprogs: %v", err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", d.image).CombinedOutput(); err != nil {
		skip("mkfs.ext4: %v\n%s", err, out)
	}
	if err := d.mount(); err != nil {
		skip("an ext4 in a file cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.dir, 0); err != nil && !errors.Is(err, syscall.EINVAL) { // the disk may not be mounted
			t.Errorf("unmount: %v", err)
			_ = syscall.Unmount(d.dir, syscall.MNT_DETACH)
		}
	})
	return d
}

// mount mounts the disk. Its loop device goes when it is unmounted.
func (d *disk) mount() error {
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// free is how many bytes are free on the disk.
func (d *disk) free() int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return -1
	}
	return int64(s.Bavail) * s.Bsize
}

// A file system that is shut down in one of these ways writes nothing any more, not even the bytes
// that it has in memory. In the first way it still writes its own journal.
const (
	shutdownLogFlush   = 1
	shutdownNoLogFlush = 2
)

// cut cuts the power: from now on the file system fails with input/output errors.
func (d *disk) cut(t *testing.T, how uint32) {
	t.Helper()
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	f, err := os.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		t.Fatalf("the file system cannot be shut down: %v", errno)
	}
}

// again brings the disk back after a cut, as a start of the machine does. Nobody may have a file
// open there. A process with mounts of its own that began meanwhile, such as "ip netns exec", keeps the file
// system that was shut down, which is then mounted again: so again waits until it is gone.
func (d *disk) again(t *testing.T) {
	t.Helper()
	eventually(t, "the disk is back", func() bool {
		if err := syscall.Unmount(d.dir, 0); err != nil {
			t.Fatalf("unmount: %v", err)
		}
		if err := d.mount(); err != nil {
			t.Fatal(err)
		}
		probe := filepath.Join(d.dir, "probe")
		err := errors.Join(os.WriteFile(probe, nil, 0o600), os.Remove(probe))
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// removeDisksOfTheDead removes the nodes and disks of earlier tests that could not clean up.
func removeDisksOfTheDead(t *testing.T) {
	t.Helper()
	boxes, err := filepath.Glob(filepath.Join(os.TempDir(), diskPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range boxes {
		id, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(box), diskPrefix), "-")
		pid, err := strconv.Atoi(id)
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		killNodesOn(box)
		_ = syscall.Unmount(filepath.Join(box, "mounted"), syscall.MNT_DETACH) // an error means that it was not mounted
		if err := os.RemoveAll(box); err != nil {
			t.Logf("left by an earlier test: %v", err)
		}
	}
}

// killNodesOn kills the processes whose data directory lies below box.
func killNodesOn(box string) {
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range commands {
		b, err := os.ReadFile(c)
		if err != nil || !bytes.Contains(b, []byte("\x00--data\x00"+box+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(c))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// awaitStopped waits until every thread of a process that was sent SIGSTOP stands still: none is
// within a call of the system any more.
func awaitStopped(t *testing.T, p *process) {
	t.Helper()
	eventually(t, "the node stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("the threads of the node are not known: %v", err)
		}
		for _, stat := range threads {
			b, err := os.ReadFile(stat)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // the thread has ended
			}
			if err != nil {
				t.Fatal(err)
			}
			// The state follows the name, which may have spaces and brackets.
			if _, state, ok := strings.Cut(string(b[bytes.LastIndexByte(b, ')'):]), " "); !ok || state[0] != 'T' {
				return false
			}
		}
		return true
	})
}

// TestPowerCut proves the meaning of acknowledgements on a real file system. Its power is cut under
// load while the node stands still. Some nodes are killed then, and some go on for a moment on a
// failing disk. Then the node starts again under the same kernel.
//
// No sync may be under way when a node that goes on loses its disk: ext4 tells such a sync that it
// succeeded, and its bytes are lost (6.18: of 603 files that were synced without pause until their
// file system was shut down, 38 lacked bytes of a sync that had returned no error; none when the
// syncs had ended before). A node never lives to see that when its power is cut. Every record that was promised is there once, no
// offset is used again, and records that consumers saw are the same. Of the records that rest on
// the page cache, a prefix without gaps is left.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 2048)
	seed, rounds := seedAndRounds(t, 3)
	rng := rand.New(rand.NewPCG(seed, 2))
	data, addr := filepath.Join(d.dir, "data"), freeAddr(t)
	p := upAt(t, data, addr)
	l := startLoad(t, p, true)
	for round := range rounds {
		l.beginLife(t, rng)
		l.awaitSure(t, 200+rng.IntN(2000))
		still, how := rng.IntN(2) == 0, uint32(shutdownNoLogFlush)
		if rng.IntN(4) == 0 {
			how = shutdownLogFlush
		}
		l.dying.Store(true)
		signal(t, p, syscall.SIGSTOP)
		if !still {
			awaitStopped(t, p)
		}
		d.cut(t, how)
		if !still {
			signal(t, p, syscall.SIGCONT)
			// The test waits for nothing here: how long a node goes on without its disk varies.
			time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond)
		}
		p.kill()
		l.endLife(t)
		d.again(t)
		l.inspect(t, data, rng, true)
		if t.Failed() {
			t.Fatalf("round %d of seed %d: the node was killed without going on: %v, way of the cut: %d; %v", round+1, seed, still, how, l.book)
		}
		p = upAt(t, data, addr)
	}
	l.finish(t, p)
	p.stop(t)
	p = up(t, data)
	l.compare(t, p, false)
	p.stop(t)
	t.Log(l.book)
}
