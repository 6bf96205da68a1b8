package main_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A campaign runs in a process that has a network of its own, which ends with it. Each node has a
// network of its own again, with one device that ends in the campaign: all packets between nodes, and between
// nodes and clients, go through its hands.

// enterChaos runs the test again in a process with a network of its own, and returns false when
// that has ended. In that process it returns true.
func enterChaos(t *testing.T) bool {
	t.Helper()
	const inside = "LEAT_CHAOS_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	skip := t.Skipf
	if os.Getenv("LEAT_TEST_REQUIRE_ALL") == "1" {
		skip = t.Fatalf
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		t.Skip("networks of nodes need root and /dev/net/tun")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip("%s is missing, which is in the packages iproute2 and util-linux: %v", tool, err)
		}
	}
	args := []string{"-test.run=^" + t.Name() + "$"}
	for _, name := range []string{"test.v", "test.timeout", "test.artifacts", "test.outputdir"} {
		args = append(args, fmt.Sprintf("-%s=%s", name, flag.Lookup(name).Value))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		skip("a process with a network of its own cannot be started: %v", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-t.Context().Done():
			_ = cmd.Process.Kill()
		case <-ended:
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Errorf("in its own network: %v", err)
	}
	return false
}

// path is the way of packets from one place to another.
type path struct {
	mu    sync.Mutex
	state pathState     // guarded by mu
	queue chan inFlight // of a slow path
}

// pathState says how well a path works; zero: without fault.
type pathState struct {
	cut   bool
	loss  float64       // the share of packets that are lost
	delay time.Duration // of each packet
}

type inFlight struct {
	packet []byte
	due    time.Time
}

// chaosNetwork connects the places of a campaign: place 0 is the clients', the others are the nodes' by their
// numbers.
type chaosNetwork struct {
	devices []*os.File
	paths   [][]*path // from, to
	closed  atomic.Bool
	done    chan struct{}
	running sync.WaitGroup
}

const (
	chaosMTU   = 9000
	chaosQueue = 1000 // packets of a slow path that are under way
)

// addrOf is the address of a place.
func addrOf(place int) string {
	if place == 0 {
		return "10.77.0.254"
	}
	return fmt.Sprintf("10.77.0.%d", place)
}

const namespacePrefix = "leat-chaos-" // followed by the id of the process that made it

func namespaceOf(place int) string {
	return fmt.Sprintf("%s%d-%d", namespacePrefix, os.Getpid(), place)
}

// removeNamespacesOfTheDead removes what earlier campaigns could not clean up.
func removeNamespacesOfTheDead(t *testing.T) {
	t.Helper()
	names, err := filepath.Glob("/run/netns/" + namespacePrefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		id, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), namespacePrefix), "-")
		if pid, err := strconv.Atoi(id); err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		if out, err := exec.Command("ip", "netns", "delete", filepath.Base(name)).CombinedOutput(); err != nil {
			t.Logf("left by an earlier test: %v: %s", err, out)
		}
	}
}

// newChaosNetwork connects the clients and so many nodes.
func newChaosNetwork(t *testing.T, nodes int) *chaosNetwork {
	t.Helper()
	n := &chaosNetwork{done: make(chan struct{})}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	removeNamespacesOfTheDead(t)
	run("link", "set", "lo", "up")
	for place := range nodes + 1 {
		name := fmt.Sprintf("leat%d", place)
		device, err := openTUN(name)
		if err != nil {
			t.Fatal(err)
		}
		n.devices = append(n.devices, device)
		var in []string
		if place > 0 {
			run("netns", "add", namespaceOf(place))
			t.Cleanup(func() { run("netns", "delete", namespaceOf(place)) })
			run("link", "set", name, "netns", namespaceOf(place))
			in = []string{"-n", namespaceOf(place)}
			run(append(in, "link", "set", "lo", "up")...)
		}
		run(append(in, "addr", "add", addrOf(place)+"/24", "dev", name)...)
		run(append(in, "link", "set", name, "mtu", fmt.Sprint(chaosMTU), "txqueuelen", "1000", "up")...)
	}
	for range n.devices {
		var paths []*path
		for range n.devices {
			paths = append(paths, &path{queue: make(chan inFlight, chaosQueue)})
		}
		n.paths = append(n.paths, paths)
	}
	for from := range n.devices {
		n.running.Go(func() { n.carry(from, t.Errorf) })
		for to := range n.devices {
			n.running.Go(func() { n.deliver(n.paths[from][to], to) })
		}
	}
	t.Cleanup(func() {
		n.closed.Store(true)
		close(n.done)
		for _, d := range n.devices {
			d.Close()
		}
		n.running.Wait()
	})
	return n
}

// openTUN makes a device whose packets are read and written here.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], name)
	req.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
		unix.Close(fd)
		return nil, errno
	}
	return os.NewFile(uintptr(fd), name), nil
}

// carry takes the packets of one place to the others.
func (n *chaosNetwork) carry(from int, complain func(format string, args ...any)) {
	buf := make([]byte, chaosMTU+100)
	for {
		size, err := n.devices[from].Read(buf)
		if n.closed.Load() {
			return
		}
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				complain("packets of place %d: %v", from, err)
			}
			return
		}
		if size < 20 || buf[0]>>4 != 4 { // what is not IPv4 is the kernel looking for neighbours
			continue
		}
		to := int(buf[19])
		if to == 254 {
			to = 0
		}
		if to >= len(n.devices) || to == from {
			continue
		}
		p := n.paths[from][to]
		p.mu.Lock()
		state := p.state
		p.mu.Unlock()
		switch {
		case state.cut || state.loss > 0 && rand.Float64() < state.loss:
		case state.delay > 0 || len(p.queue) > 0:
			select {
			case p.queue <- inFlight{append([]byte(nil), buf[:size]...), time.Now().Add(state.delay)}:
			default: // lost, as in any full queue
			}
		default:
			_, _ = n.devices[to].Write(buf[:size]) // a packet that is not taken is lost
		}
	}
}

// deliver hands on the packets of a slow path when they are due.
func (n *chaosNetwork) deliver(p *path, to int) {
	for {
		select {
		case f := <-p.queue:
			time.Sleep(time.Until(f.due))
			_, _ = n.devices[to].Write(f.packet)
		case <-n.done:
			return
		}
	}
}

// set changes the path from one place to another.
func (n *chaosNetwork) set(from, to int, state pathState) {
	p := n.paths[from][to]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

// setBetween changes the paths between places, both ways.
func (n *chaosNetwork) setBetween(a int, others []int, state pathState) {
	for _, b := range others {
		if b != a {
			n.set(a, b, state)
			n.set(b, a, state)
		}
	}
}

// places are all places from the first one on.
func (n *chaosNetwork) places(first int) (places []int) {
	for place := first; place < len(n.devices); place++ {
		places = append(places, place)
	}
	return places
}

// mend makes all paths work without fault.
func (n *chaosNetwork) mend() {
	for _, place := range n.places(0) {
		n.setBetween(place, n.places(0), pathState{})
	}
}
