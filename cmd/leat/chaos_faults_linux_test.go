package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leatstream/leat/internal/wan"
)

// chaosFault breaks something, and mends it again.
type chaosFault struct {
	name    string
	isShort bool // it belongs to the short form
	run     func(t *testing.T, c *campaign)
}

// chaosFaults are the faults of a campaign, in the order of its first round.
func chaosFaults() []chaosFault {
	var faults []chaosFault
	for i, name := range []string{"one node", "a leader", "the controller", "the group's coordinator"} {
		pick := []func(t *testing.T, c *campaign) *machine{pickAny, pickLeader, pickController, pickCoordinator}[i]
		add := func(what string, isShort bool, run func(t *testing.T, c *campaign, m *machine)) {
			faults = append(faults, chaosFault{fmt.Sprintf(what, name), isShort, func(t *testing.T, c *campaign) {
				t.Helper()
				run(t, c, pick(t, c))
			}})
		}
		add("kill -9 of %s", i == 1 || i == 2, killOne)
		add("kill -9 and start at once of %s", false, killAndStart)
		add("power cut of %s", i == 1, cutPowerOfOne)
		add("SIGSTOP and SIGCONT of %s", i == 2, standStill)
		add("orderly restart of %s", false, restartOne)
		add("cut of %s from the other nodes", false, cutFromNodes)
		add("cut of %s from everybody", false, cutFromAll)
		add("nobody hears %s", false, cutOutgoing)
		add("%s hears nobody", false, cutIncoming)
		add("flapping network of %s", false, flap)
		add("full disk of %s", false, fillDisk)
		add("vanished disk of %s", false, loseDisk)
		add("failing disk of %s", false, failSyncs)
		add("slow disk of %s", false, slowSyncs)
	}
	coordinator := func(what string, isShort bool, run func(t *testing.T, c *campaign, m *machine)) {
		faults = append(faults, chaosFault{fmt.Sprintf(what, "the transactions' coordinator"), isShort, func(t *testing.T, c *campaign) {
			t.Helper()
			run(t, c, pickTxnCoordinator(t, c))
		}})
	}
	coordinator("kill -9 of %s", true, killOne)
	coordinator("kill -9 and start at once of %s", false, killAndStart)
	coordinator("power cut of %s", false, cutPowerOfOne)
	coordinator("SIGSTOP and SIGCONT of %s", false, standStill)
	coordinator("orderly restart of %s", false, restartOne)
	coordinator("cut of %s from the other nodes", false, cutFromNodes)
	coordinator("cut of %s from everybody", false, cutFromAll)
	return append(
		faults,
		chaosFault{"two nodes do not hear each other", false, cutPair},
		chaosFault{"lossy network", false, loseOnAll},
		chaosFault{"slow network", false, delayAll},
		chaosFault{"kill -9 of one node after the other", false, killInTurn},
		chaosFault{"rolling restart", true, restartInTurn},
		chaosFault{"orderly stop of all nodes", false, stopAll},
		chaosFault{"no node hears another", false, cutAll},
		chaosFault{"kill -9 of a majority", false, killMajority},
		chaosFault{"kill -9 of a node while it starts, many times", false, killStarting},
		chaosFault{"many faults at the same time", false, letMonkeyIn},
		chaosFault{"kill -9 of all nodes", false, killAll},
		chaosFault{"power cut of all nodes", true, cutPowerOfAll},
	)
}

func pickAny(_ *testing.T, c *campaign) *machine { return c.machines[c.rng.IntN(len(c.machines))] }

func pickLeader(t *testing.T, c *campaign) *machine {
	t.Helper()
	return c.leaderOf(t, "sequences", int32(c.rng.IntN(6)))
}

func pickController(t *testing.T, c *campaign) *machine {
	t.Helper()
	return c.controller(t)
}

func pickCoordinator(t *testing.T, c *campaign) *machine {
	t.Helper()
	return c.coordinator(t)
}

func killOne(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	killMachines(m)
	c.awaitProgress(t, "with "+m.String()+" killed")
	c.restart(t, m)
}

func killAndStart(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	killMachines(m)
	c.restart(t, m)
}

func cutPowerOfOne(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	c.cutPower(t, shutdownNoLogFlush, m)
	c.awaitProgress(t, "with "+m.String()+" without power")
	c.restart(t, m)
}

func standStill(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	signal(t, m.p, syscall.SIGSTOP)
	defer signal(t, m.p, syscall.SIGCONT)
	c.lastAtLeast(t, c.stop, "with "+m.String()+" standing still")
}

func restartOne(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	m.p.stop(t)
	c.awaitProgress(t, "with "+m.String()+" stopped")
	c.restart(t, m)
}

func cutFromNodes(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	defer c.network.Mend()
	c.network.SetBetween(m.site, c.nodeSites(), wan.Settings{Cut: true})
	c.lastAtLeast(t, c.pause, "with "+m.String()+" cut off")
}

func cutFromAll(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	defer c.network.Mend()
	c.network.SetBetween(m.site, c.network.Sites(), wan.Settings{Cut: true})
	c.lastAtLeast(t, c.pause, "with "+m.String()+" cut off")
}

func cutOutgoing(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	defer c.network.Mend()
	for _, other := range c.others(m) {
		c.network.Set(m.site, other.site, wan.Settings{Cut: true})
	}
	c.lastAtLeast(t, c.pause, "while nobody hears "+m.String())
}

func cutIncoming(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	defer c.network.Mend()
	for _, other := range c.others(m) {
		c.network.Set(other.site, m.site, wan.Settings{Cut: true})
	}
	c.lastAtLeast(t, c.pause, "while "+m.String()+" hears nobody")
}

// flap cuts a node off and lets it in again, for times around those in which nodes take each other for dead.
func flap(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	defer c.network.Mend()
	for until := time.Now().Add(2 * c.pause); time.Now().Before(until); {
		c.network.SetBetween(m.site, c.nodeSites(), wan.Settings{Cut: true})
		pause(t.Context(), time.Duration(c.rng.IntN(4000))*time.Millisecond)
		c.network.SetBetween(m.site, c.nodeSites(), wan.Settings{})
		pause(t.Context(), time.Duration(c.rng.IntN(2000))*time.Millisecond)
	}
}

func cutPair(t *testing.T, c *campaign) {
	t.Helper()
	defer c.network.Mend()
	m := c.controller(t)
	others := c.others(m)
	other := others[c.rng.IntN(len(others))]
	c.network.SetBetween(m.site, []*wan.Site{other.site}, wan.Settings{Cut: true})
	c.lastAtLeast(t, c.pause, fmt.Sprintf("while %v and %v do not hear each other", m, other))
}

func loseOnAll(t *testing.T, c *campaign) {
	t.Helper()
	defer c.network.Mend()
	c.setBetweenNodes(wan.Settings{Loss: 0.05})
	c.lastAtLeast(t, c.pause, "in a lossy network")
}

func delayAll(t *testing.T, c *campaign) {
	t.Helper()
	defer c.network.Mend()
	c.setBetweenNodes(wan.Settings{Delay: 60 * time.Millisecond})
	c.lastAtLeast(t, c.pause, "in a slow network")
}

// cutAll cuts all nodes from each other. None of them can go on until the cut ends.
func cutAll(t *testing.T, c *campaign) {
	t.Helper()
	defer c.network.Mend()
	c.setBetweenNodes(wan.Settings{Cut: true})
	pause(t.Context(), c.pause)
}

func killInTurn(t *testing.T, c *campaign) {
	t.Helper()
	for _, m := range c.machines {
		killMachines(m)
		c.restart(t, m)
	}
}

func restartInTurn(t *testing.T, c *campaign) {
	t.Helper()
	for _, m := range c.machines {
		m.p.stop(t)
		c.restart(t, m)
		c.awaitHealed(t)
	}
}

func stopAll(t *testing.T, c *campaign) {
	t.Helper()
	for _, m := range c.machines {
		signal(t, m.p, syscall.SIGTERM)
	}
	for _, m := range c.machines {
		m.p.awaitEnd(t)
	}
	c.restart(t, c.machines...)
}

func killAll(t *testing.T, c *campaign) {
	t.Helper()
	killMachines(c.machines...)
	c.restart(t, c.machines...)
}

func cutPowerOfAll(t *testing.T, c *campaign) {
	t.Helper()
	c.cutPower(t, shutdownNoLogFlush, c.machines...)
	c.restart(t, c.machines...)
}

func killMajority(t *testing.T, c *campaign) {
	t.Helper()
	most := slices.Clone(c.machines)
	c.rng.Shuffle(len(most), func(i, j int) { most[i], most[j] = most[j], most[i] })
	most = most[:len(most)/2+1]
	killMachines(most...)
	pause(t.Context(), c.pause/2)
	c.restart(t, most...)
}

func killStarting(t *testing.T, c *campaign) {
	t.Helper()
	m := pickAny(t, c)
	for range 10 {
		killMachines(m)
		c.launch(t, m)
		pause(t.Context(), time.Duration(c.rng.IntN(700))*time.Millisecond)
	}
	killMachines(m)
	c.restart(t, m)
}

// letMonkeyIn breaks whatever is whole and mends whatever is broken, at random, and mends everything in the
// end. Most of the time several things are broken, so nobody asks for progress.
func letMonkeyIn(t *testing.T, c *campaign) {
	t.Helper()
	down, still := map[*machine]bool{}, map[*machine]bool{}
	for until := time.Now().Add(3 * c.pause); time.Now().Before(until); pause(t.Context(), time.Duration(c.rng.IntN(1000))*time.Millisecond) {
		m := pickAny(t, c)
		switch action := c.rng.IntN(8); {
		case down[m]:
			c.launch(t, m)
			delete(down, m)
		case still[m]:
			signal(t, m.p, syscall.SIGCONT)
			delete(still, m)
		case action == 0:
			killMachines(m)
			down[m] = true
		case action == 1:
			c.cutPower(t, shutdownNoLogFlush, m)
			down[m] = true
		case action == 2:
			signal(t, m.p, syscall.SIGSTOP)
			still[m] = true
		case action == 3:
			signal(t, m.p, syscall.SIGTERM)
			m.p.awaitEnd(t)
			down[m] = true
		case action < 6:
			other := pickAny(t, c)
			c.network.Set(m.site, other.site, wan.Settings{Cut: true})
		default:
			c.network.Mend()
		}
	}
	c.network.Mend()
	for m := range still {
		signal(t, m.p, syscall.SIGCONT)
	}
	for m := range down {
		c.launch(t, m)
	}
	for _, m := range c.machines {
		m.p.awaitReady(t)
	}
}

// fillDisk leaves no room on a node's disk for a while. Other nodes then lead its partitions.
func fillDisk(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	name := filepath.Join(m.disk.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(os.Remove(name), unix.Syncfs(int(f.Fd())), f.Close()); err != nil { // a power cut would bring it back
			t.Error(err)
		}
	}()
	var end int64
	for size := int64(256 << 20); size >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, end, size); {
		case err == nil:
			end += size
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case !errors.Is(err, syscall.EINTR):
			t.Fatal(err)
		}
	}
	c.lastAtLeast(t, c.pause, "with the disk of "+m.String()+" full")
}

// loseDisk takes a node's disk away while it runs: all calls fail from then on.
func loseDisk(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	signal(t, m.p, syscall.SIGSTOP)
	awaitStopped(t, m.p) // no sync may be under way: see TestPowerCut
	m.disk.cut(t, shutdownNoLogFlush)
	signal(t, m.p, syscall.SIGCONT)
	c.lastAtLeast(t, c.pause, "with "+m.String()+" without its disk")
	killMachines(m)
	m.disk.again(t)
	c.restart(t, m)
}

// failSyncs lets some syncs of a node fail, until it is killed.
func failSyncs(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	stop := trace(t, m, "fdatasync,fsync,sync_file_range:error=EIO:when=20+40")
	c.lastAtLeast(t, c.pause, "with the syncs of "+m.String()+" failing")
	stop()
	killMachines(m)
	c.restart(t, m)
}

// slowSyncs lets every sync of a node take longer.
func slowSyncs(t *testing.T, c *campaign, m *machine) {
	t.Helper()
	stop := trace(t, m, "fdatasync,fsync,sync_file_range:delay_enter=300ms")
	defer stop()
	c.lastAtLeast(t, c.pause, "with a slow disk of "+m.String())
}

// trace changes what some calls of a node do, until the function that it returns is called.
func trace(t *testing.T, m *machine, inject string) (stop func()) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatalf("strace is missing: %v", err)
	}
	log := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-qq", "-o", log, "-e", "inject="+inject, "-e", "signal=none", "-p", fmt.Sprint(m.p.cmd.Process.Pid))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it lets the node go on without it
		_ = cmd.Wait()
		if info, err := os.Stat(log); err != nil || info.Size() == 0 {
			t.Errorf("strace has met no call of %v: %v", m, err)
		}
	}
}
