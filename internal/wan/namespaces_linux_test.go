package wan_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/leatstream/leat/internal/wan"
)

// TestNothingIsLeftAfterAPanic proves that the processes in sites end also if the test's process does without closing its network. Namespaces, devices and listeners have no other owner than these.
func TestNothingIsLeftAfterAPanic(t *testing.T) {
	for _, kind := range []wan.Kind{wan.Namespaces, wan.Proxies} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			makeNetwork(t, wan.Config{Sites: []string{"a"}, Kind: kind}) // else the test is skipped
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "WAN_TEST_JOB=panic "+strconv.Itoa(int(kind)))
			var said bytes.Buffer
			cmd.Stderr = &said
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ready := make([]byte, len("ready\n"))
			if _, err := io.ReadFull(out, ready); err != nil {
				t.Fatalf("%v: %s", err, &said)
			}
			in.Write([]byte("now\n"))
			rest, err := io.ReadAll(out) // which ends when no process has the other end any more
			if len(rest) > 0 || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
			if err := cmd.Wait(); err == nil || !bytes.Contains(said.Bytes(), []byte("as it was told to")) {
				t.Errorf("it ended by %v: %s", err, &said)
			}
		})
	}
}

// TestGrandchildrenEndWithTheNetwork proves that all processes in a site end when its network is closed, also those that were started by others.
func TestGrandchildrenEndWithTheNetwork(t *testing.T) {
	n := makeNetwork(t, wan.Config{Sites: []string{"a"}, Kind: wan.Namespaces})
	j := startJob(t, n.Site("a"), "parent", n.Site("a").At(0))
	j.await("ready")
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if j.out.Scan() || j.out.Err() != nil { // the end comes when no process has the other end any more
		t.Errorf("%q, %v", j.out.Text(), j.out.Err())
	}
}

// TestNamespacesEndWithTheNetwork proves that nothing has the namespace of a site any more when its network is closed.
func TestNamespacesEndWithTheNetwork(t *testing.T) {
	n := makeNetwork(t, wan.Config{Sites: []string{"a"}, Kind: wan.Namespaces})
	j := startJob(t, n.Site("a"), "namespace", "")
	j.await("ready")
	j.out.Scan()
	name := j.out.Text()
	if len(holders(t, name)) == 0 {
		t.Fatalf("nothing has the namespace %q", name)
	}
	l, err := n.Site("a").Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if left := holders(t, name); len(left) > 0 {
		t.Errorf("%v have the namespace %s", left, name)
	}
}

// holders are the threads of all processes, and files of this one, that have a namespace.
func holders(t *testing.T, name string) (links []string) {
	t.Helper()
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/self/fd/*"} {
		all, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range all {
			if to, err := os.Readlink(link); err == nil && to == name {
				links = append(links, link)
			}
		}
	}
	return links
}

// TestTheProcessIsInASite proves that a process is in the site that is called so, without any means of the package: its connections take the path. It needs namespaces, which a process
// without root's rights does not get: there are proxies instead, through which only the package's own connections go.
func TestTheProcessIsInASite(t *testing.T) {
	makeNetwork(t, wan.Config{Sites: []string{"a"}, Kind: wan.Namespaces}) // else the test is skipped
	for job, want := range map[string]string{"here": "got hello\nnamespaces, by the path: true\n", "powerless": "got hello\nproxies, by the path: false\n"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WAN_TEST_JOB="+job)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if job == "powerless" {
			cmd.SysProcAttr = nil // another network namespace has no loopback device that is up
		}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %v: %s", job, err, out)
		}
	}
}

// becomePowerless gives up the rights of root for good.
func becomePowerless() {
	if err := syscall.Setuid(65534); err != nil {
		panic(err)
	}
}
