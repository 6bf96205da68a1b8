//go:build unix

package main_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// verb is a client verb of the binary that is running.
type verb struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *output
	err   *output
	done  chan struct{} // closed when it has ended
}

// runVerb starts a client verb against the broker at addr.
func runVerb(t *testing.T, addr string, args ...string) *verb {
	t.Helper()
	v := &verb{cmd: exec.Command(leat, args...), out: &output{}, err: &output{}, done: make(chan struct{})}
	v.cmd.Env = append(os.Environ(), "LEAT_BOOTSTRAP="+addr)
	v.cmd.Stdout, v.cmd.Stderr = v.out, v.err
	var err error
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(v.done)
		_ = v.cmd.Wait() // exitCode tells
	}()
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill() // an error means that it has ended already
		<-v.done
		if t.Failed() {
			t.Logf("leat %s said:\n%s%s", strings.Join(args, " "), v.out, v.err)
		}
	})
	return v
}

// write writes text to the verb's input.
func (v *verb) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(v.stdin, text); err != nil {
		t.Fatal(err)
	}
}

func (v *verb) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := v.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// await waits until the verb has ended, and returns its exit code.
func (v *verb) await(t *testing.T) int {
	t.Helper()
	select {
	case <-v.done:
	case <-time.After(readyLimit):
		t.Fatalf("leat %s has not ended within %v", strings.Join(v.cmd.Args[1:], " "), readyLimit)
	}
	return v.cmd.ProcessState.ExitCode()
}

// expect waits for the end of the verb, and compares its exit code and error message.
func (v *verb) expect(t *testing.T, code int, says ...string) {
	t.Helper()
	got := v.await(t)
	for _, s := range says {
		if !strings.Contains(v.err.String(), s) {
			t.Errorf("it does not say %q:\n%s", s, v.err)
		}
	}
	if got != code {
		t.Errorf("exit code %d, want %d:\n%s", got, code, v.err)
	}
}

// do runs a client verb to its end, which must be successful, and returns its output.
func do(t *testing.T, addr, stdin string, args ...string) string {
	t.Helper()
	v := runVerb(t, addr, args...)
	v.write(t, stdin)
	if err := v.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := v.await(t); code != 0 {
		t.Fatalf("leat %s: exit code %d: %s", strings.Join(args, " "), code, v.err)
	}
	return v.out.String()
}

// blackHole accepts connections and requests, and never answers. asked is closed when the first
// request has come.
func blackHole(t *testing.T) (addr string, asked <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan struct{})
	var once sync.Once
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				for {
					if _, err := c.Read(make([]byte, 1000)); err != nil {
						return // the client is gone
					}
					once.Do(func() { close(came) })
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // this ends the first loop
		open.Wait()
	})
	return l.Addr().String(), came
}

// clientVerbs are all verbs that ask a broker.
var clientVerbs = []string{
	"produce t", "consume t", "consume t --group g", "consume t --exit",
	"bench produce", "bench consume", "bench consume --topic t", "bench latency",
	"topic list", "topic describe t", "topic create t", "topic delete t", "topic alter t --set retention.ms=1",
	"topic add-partitions t 3", "topic trim t --before 1",
	"group list", "group describe g", "group delete g", "group reset g --to start --topic t",
	"config get --topic t", "config set --topic t retention.ms=1", "config unset --topic t retention.ms", "cluster",
}

// TestTimeout proves that no client verb waits longer for a broker than --timeout says, and that
// the error names the address and the cause.
func TestTimeout(t *testing.T) {
	t.Parallel()
	nobody := freeAddr(t)
	hole, _ := blackHole(t)
	for _, args := range clientVerbs {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			fields := strings.Fields(args)
			v := runVerb(t, nobody, append(fields, "--timeout", "300s")...) // longer than the test waits
			v.expect(t, 4, nobody, "connection refused", "leat up")
			v = runVerb(t, hole, append(fields, "--timeout", "300ms")...)
			v.expect(t, 4, hole, "no answer")
		})
	}
}

// TestInterrupt proves that Ctrl-C ends every client verb at once, even if its broker does not
// answer.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, args := range clientVerbs {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			hole, asked := blackHole(t)
			v := runVerb(t, hole, append(strings.Fields(args), "--timeout", "300s")...)
			select {
			case <-asked:
			case <-time.After(readyLimit):
				t.Fatal("nothing was asked")
			}
			v.signal(t, os.Interrupt)
			v.expect(t, 1, "leat: interrupted\n")
		})
	}
}

// freeze stops a process, which answers nothing until it is killed.
func (p *process) freeze() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// awaitRecords waits until topic t holds these records.
func awaitRecords(t *testing.T, addr, want string) {
	t.Helper()
	eventually(t, "the records are written", func() bool { return do(t, addr, "", "consume", "t", "--from", "start", "--exit") == want })
}

// TestProduceLosesBroker proves that a producer whose broker dies says so, tries for the time that
// it was told, and then says how many records it knows to be written.
func TestProduceLosesBroker(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		how  func(*process) error
		seen string
	}{
		"killed": {func(p *process) error { p.kill(); return nil }, "connection refused"},
		"frozen": {(*process).freeze, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := up(t, t.TempDir())
			do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
			v := runVerb(t, p.addr, "produce", "t", "--timeout", "3s")
			v.write(t, "one\ntwo\n")
			awaitRecords(t, p.addr, "one\ntwo\n")
			if err := end.how(p); err != nil {
				t.Fatal(err)
			}
			v.write(t, "three\n")
			v.expect(t, 4, "no answer for 3s from "+p.addr, end.seen, "; 2 records were acknowledged, 1 record was not\n")
		})
	}
}

// TestProduceBrokerReturns proves that a producer goes on if its broker comes back in time, and
// that it reports both the loss and the return.
func TestProduceBrokerReturns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := up(t, dir)
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	v := runVerb(t, p.addr, "produce", "t", "--timeout", "300s")
	v.write(t, "one\n")
	awaitRecords(t, p.addr, "one\n")
	p.kill()
	v.write(t, "two\n")
	eventually(t, "the loss is said", func() bool {
		return strings.Contains(v.err.String(), "leat: no answer from "+p.addr+" (connection ")
	})
	p = upAt(t, dir, p.addr)
	eventually(t, "the return is said", func() bool {
		return strings.Contains(v.err.String(), "leat: there is an answer from "+p.addr+" again\n")
	})
	if err := v.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	v.expect(t, 0)
	if got := do(t, p.addr, "", "consume", "t", "--from", "start", "--exit"); got != "one\ntwo\n" {
		t.Errorf("written: %q", got)
	}
}

// TestProduceInterrupted proves that Ctrl-C ends a producer at once whose broker is lost, and that
// it says which records are not written.
func TestProduceInterrupted(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	v := runVerb(t, p.addr, "produce", "t", "--timeout", "300s")
	v.write(t, "one\n")
	awaitRecords(t, p.addr, "one\n")
	p.kill()
	v.write(t, "two\n")
	eventually(t, "the loss is said", func() bool { return strings.Contains(v.err.String(), "no answer from") })
	v.signal(t, os.Interrupt)
	v.expect(t, 1, "leat: interrupted; 1 record was acknowledged, 1 record was not\n")
}

// TestConsumeLosesBroker proves that a consumer, alone or in a group, reports when its broker is
// gone and when it is back. It ends when it has heard nothing for the time that was set.
func TestConsumeLosesBroker(t *testing.T) {
	t.Parallel()
	for name, group := range map[string][]string{"alone": {}, "in a group": {"--group", "g"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := up(t, dir)
			do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
			do(t, p.addr, "one\n", "produce", "t")
			v := runVerb(t, p.addr, append(group, "consume", "t", "--from", "start", "--timeout", "6s")...)
			eventually(t, "it reads", func() bool { return v.out.String() == "one\n" })
			p.kill()
			lost := "leat: no answer from " + p.addr + " (connection "
			eventually(t, "the loss is said", func() bool { return strings.Contains(v.err.String(), lost) })
			p = upAt(t, dir, p.addr)
			eventually(t, "the return is said", func() bool {
				return strings.Contains(v.err.String(), "leat: there is an answer from "+p.addr+" again\n")
			})
			do(t, p.addr, "two\n", "produce", "t")
			eventually(t, "it reads on", func() bool { return v.out.String() == "one\ntwo\n" })
			p.kill()
			v.expect(t, 4, "leat: no answer for 6s from "+p.addr+" (connection refused)\n")
		})
	}
}

// TestConsumeInterrupted proves that Ctrl-C ends a consumer at once if its broker is gone, or if
// nobody reads its output.
func TestConsumeInterrupted(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	do(t, p.addr, strings.Repeat(strings.Repeat("x", 100)+"\n", 5000), "produce", "t")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stuck := exec.Command(leat, "consume", "t", "--from", "start", "-b", p.addr)
	stuck.Stdout = w
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil { // it is writing now, and never comes to the end
		t.Fatal(err)
	}
	group := runVerb(t, p.addr, "consume", "t", "--from", "start", "--group", "g", "--timeout", "300s")
	eventually(t, "the member reads", func() bool { return len(group.out.String()) > 0 })
	p.kill()
	eventually(t, "the loss is said", func() bool { return strings.Contains(group.err.String(), "no answer from") })
	group.signal(t, os.Interrupt)
	group.await(t)
	if err := stuck.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stuck.Wait() }()
	select {
	case <-ended:
	case <-time.After(readyLimit):
		_ = stuck.Process.Kill()
		<-ended
		t.Error("a consumer whose output nobody reads does not end")
	}
}

// TestLargeRecord proves that a producer sends any record that its topic takes. A record that the
// topic does not take is refused with a sentence that names the limit and how to raise it.
func TestLargeRecord(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	large := strings.Repeat("0123456789", 500_000)
	v := runVerb(t, p.addr, "produce", "t", "--whole")
	v.write(t, large)
	if err := v.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	const raise = "leat config set --topic t max.message.bytes=6291456"
	v.expect(t, 1, "a record of 5,000,000 bytes is too large for topic t, whose max.message.bytes is 1,048,588", raise, "; no record was acknowledged, 1 record was not\n")
	do(t, p.addr, "", strings.Fields(raise)[1:]...)
	do(t, p.addr, large, "produce", "t", "--whole")
	if got := do(t, p.addr, "", "consume", "t", "--from", "start", "--exit"); got != large+"\n" {
		t.Errorf("%d bytes came back", len(got))
	}
}

// TestBadLine proves that a line that cannot be read ends the producer with the number of records
// before it that were written, and that these were written.
func TestBadLine(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	v := runVerb(t, p.addr, "produce", "t", "-k", ":", "-H", "a=1", "-H", "a=2")
	v.write(t, strings.Repeat("k:v\n", 1000)+"keyless\nk:v\n")
	v.expect(t, 1, `leat: standard input, line 1001: it has no key separator ":"; before it 1,000 records were acknowledged`+"\n")
	if got := do(t, p.addr, "", "consume", "t", "--from", "start", "--exit", "--format", `%h\n`); got != strings.Repeat("a=1,a=2\n", 1000) {
		t.Errorf("%d lines, from %.20q", strings.Count(got, "\n"), got)
	}
}

// TestBenchLosesBroker proves that a run ends soon with code 4 if its broker dies or stops
// answering, and that it says which topics it leaves behind.
func TestBenchLosesBroker(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"produce", "consume", "latency"} {
		args := []string{"bench", kind, "--duration", "300s", "--timeout", "1s"}
		if kind == "consume" {
			args = append(args, "--passes", "0", "--records", "1000")
		}
		for name, end := range map[string]struct {
			how  func(*process) error
			says string
		}{
			"killed": {func(p *process) error { p.kill(); return nil }, "lost the broker on "},
			"frozen": {(*process).freeze, "no answer for 1s from "},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				p := up(t, t.TempDir())
				v := runVerb(t, p.addr, args...)
				eventually(t, "it works", func() bool {
					list := do(t, p.addr, "", "topic", "list")
					return strings.Contains(list, "leat-bench-") && !strings.Contains(list, " 0 B")
				})
				if err := end.how(p); err != nil {
					t.Fatal(err)
				}
				v.expect(t, 4, end.says+p.addr, "leat-bench-"+kind, "left behind")
			})
		}
	}
}

// TestBenchInterrupted proves that Ctrl-C ends a run, and that the run deletes its topic.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	v := runVerb(t, p.addr, "bench", "produce", "--duration", "300s")
	eventually(t, "it works", func() bool { return strings.Contains(do(t, p.addr, "", "topic", "list"), "leat-bench-produce") })
	v.signal(t, os.Interrupt)
	v.expect(t, 1, "leat: interrupted\n")
	if got := do(t, p.addr, "", "topic", "list"); strings.Contains(got, "leat-bench") {
		t.Errorf("left behind:\n%s", got)
	}
}

// TestBenchSparesTopics proves that bench writes no records into a topic that it did not make, and
// that unknown verbs of bench do nothing.
func TestBenchSparesTopics(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "3")
	for _, args := range []string{"bench prod", "bench cold --data /nope", "bench produce --topic t --records 16", "bench latency --topic t --duration 100ms"} {
		runVerb(t, p.addr, strings.Fields(args)...).expect(t, 2, "leat: ")
	}
	do(t, p.addr, "", "bench", "produce", "--records", "160", "--partitions", "3")
	do(t, p.addr, "", "bench", "produce", "--records", "160", "--partitions", "5")
	if got := do(t, p.addr, "", "topic", "list", "-o", "json"); strings.Contains(got, "leat-bench") {
		t.Errorf("left behind: %s", got)
	}
	if got := do(t, p.addr, "", "consume", "t", "--from", "start", "--exit"); got != "" {
		t.Errorf("junk was written: %.100q", got)
	}
}

// TestGroupHint proves that a member says so while it waits for its group to let it in.
func TestGroupHint(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "one\n", "topic", "create", "t", "--partitions", "1")
	do(t, p.addr, "one\n", "produce", "t")
	v := runVerb(t, p.addr, "consume", "t", "--group", "g", "--count", "1")
	v.expect(t, 0, "leat: waiting for group g to assign partitions")
	quick := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=0")
	do(t, quick.addr, "one\n", "topic", "create", "t", "--partitions", "1")
	do(t, quick.addr, "one\n", "produce", "t")
	v = runVerb(t, quick.addr, "consume", "t", "--group", "g", "--count", "1")
	v.expect(t, 0)
	if v.err.String() != "" {
		t.Errorf("a group that lets us in at once: %s", v.err)
	}
}

// TestConsumeWaitsNoLonger proves that a consumer that is told to end, and for which no records
// come, ends after the time that was set even if its broker answers.
func TestConsumeWaitsNoLonger(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=60000", "--set", "group.max.session.timeout.ms=70000")
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	do(t, p.addr, "one\n", "produce", "t")
	v := runVerb(t, p.addr, "consume", "t", "--group", "g", "--exit", "--timeout", "2s")
	v.expect(t, 4, "group g has assigned no partitions to us for 2s: it waits for members that may still come")
}
