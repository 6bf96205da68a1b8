package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// startVerb starts the binary with its output into out, and with its temporary files in temporary.
func startVerb(t *testing.T, out *os.File, temporary string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	cmd, said := exec.Command(leat, args...), &output{}
	cmd.Stdout, cmd.Stderr = out, said
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, said
}

// fillTopic makes a topic of one partition with n records, "1" to n, which take more room than a pipe has.
func fillTopic(t *testing.T, p *process, topic string, n int) {
	t.Helper()
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "%d\n", i+1)
	}
	tryVerb(t, t.TempDir(), "", "topic create "+topic+" --partitions 1 --bootstrap "+p.addr).expect(t, 0)
	tryVerb(t, t.TempDir(), lines.String(), "produce "+topic+" --bootstrap "+p.addr).expect(t, 0)
}

// TestConsumeCommitsOnlyWhatIsWritten proves that the offsets of records that could not be written are not committed,
// so that the group's next reader gets them: into a full disk, and into a pipe whose reader is gone. The latter is no
// failure.
func TestConsumeCommitsOnlyWhatIsWritten(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=0")
	const records = 20000
	fillTopic(t, p, "t", records)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	defer closed.Close()
	for group, tc := range map[string]struct {
		out  *os.File
		code int
		says string
	}{
		"full":   {full, 1, "leat: write /dev/stdout: no space left on device\n"},
		"closed": {closed, 0, ""},
	} {
		cmd, said := startVerb(t, tc.out, t.TempDir(), "consume", "t", "--group", group, "--exit", "--bootstrap", p.addr)
		_ = cmd.Wait() // the exit code says more
		if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(said.String(), tc.says) || strings.Contains(said.String(), "broken pipe") {
			t.Errorf("%s: exit code %d, want %d; it says %q", group, code, tc.code, said)
		}
		list := tryVerb(t, t.TempDir(), "", "group list -o json --bootstrap "+p.addr)
		if strings.Contains(list.stdout, `"Stable"`) {
			t.Errorf("%s: the member is still in its group:\n%s", group, list.stdout)
		}
		next := tryVerb(t, t.TempDir(), "", "consume t --exit --bootstrap "+p.addr+" --group "+group)
		if got := strings.Count(next.stdout, "\n"); got != records {
			t.Errorf("%s: the next reader of the group gets %d records, want %d", group, got, records)
		}
	}
}

// TestReaderGoesAway proves that a verb whose reader goes away, as head does, ends well: a member leaves its group, and
// the demo deletes its data.
func TestReaderGoesAway(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=0")
	fillTopic(t, p, "t", 20000)
	for _, args := range [][]string{
		{"consume", "t", "--group", "g", "--exit", "--bootstrap", p.addr},
		{"consume", "t", "--from", "start", "--exit", "--bootstrap", p.addr},
		{"demo"},
	} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		temporary := t.TempDir()
		cmd, said := startVerb(t, writer, temporary, args...)
		_ = writer.Close()
		if _, err := bufio.NewReaderSize(reader, 16).ReadString('\n'); err != nil {
			t.Fatalf("leat %q: %v, %s", args, err, said)
		}
		_ = reader.Close()
		if err := cmd.Wait(); err != nil || strings.Contains(said.String(), "pipe") {
			t.Errorf("leat %q: %v, %s", args, err, said)
		}
		if left, _ := filepath.Glob(filepath.Join(temporary, "*")); len(left) > 0 {
			t.Errorf("leat %q leaves %q", args, left)
		}
	}
	if list := tryVerb(t, t.TempDir(), "", "group list -o json --bootstrap "+p.addr); !strings.Contains(list.stdout, `"Empty"`) {
		t.Errorf("the member is still in its group:\n%s", list.stdout)
	}
}

// TestTerminalCloses proves that SIGHUP ends the binary as Ctrl-C does: a node stops in order, a member leaves its
// group, the demo deletes its data. A second SIGHUP changes nothing, and under nohup the signal does nothing.
func TestTerminalCloses(t *testing.T) {
	t.Parallel()
	handled := make(chan os.Signal, 1)
	ossignal.Notify(handled, syscall.SIGHUP) // or the processes below ignore the signal if the test runs under nohup
	defer ossignal.Stop(handled)
	p := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=0")
	fillTopic(t, p, "t", 10)
	temporary := t.TempDir()
	for _, args := range [][]string{{"consume", "t", "--group", "g", "--bootstrap", p.addr}, {"demo"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd, said := startVerb(t, writer, temporary, args...)
		_ = writer.Close()
		if _, err := bufio.NewReaderSize(reader, 16).ReadString('\n'); err != nil {
			t.Fatalf("leat %q: %v, %s", args, err, said)
		}
		hangUp(t, cmd)
		hangUp(t, cmd)
		if err := cmd.Wait(); err != nil {
			t.Errorf("leat %q: %v, %s", args, err, said)
		}
		_ = reader.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(temporary, "*")); len(left) > 0 {
		t.Errorf("the demo leaves %q", left)
	}
	if list := tryVerb(t, t.TempDir(), "", "group list -o json --bootstrap "+p.addr); !strings.Contains(list.stdout, `"Empty"`) {
		t.Errorf("the member is still in its group:\n%s", list.stdout)
	}
	hangUp(t, p.cmd)
	p.awaitEnd(t)
	if p.err != nil || !strings.Contains(p.out.String(), "the node has stopped") {
		t.Errorf("the node ends by SIGHUP: %v\n%s", p.err, p.out)
	}

	addr, dir := freeAddr(t), t.TempDir()
	q := &process{addr: addr, cmd: exec.Command("nohup", leat, "up", "--data", dir, "--listen", addr, "--http", "off")}
	q.start(t, dir)
	q.awaitReady(t)
	hangUp(t, q.cmd)
	tryVerb(t, t.TempDir(), "", "topic list --bootstrap "+addr).expect(t, 0)
	q.stop(t)
}

// hangUp sends SIGHUP to a process. It may have ended by an earlier one.
func hangUp(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	_ = cmd.Process.Signal(syscall.SIGHUP)
}

// TestMemberThatDoesNotAnswer proves that a reader which its group does not let in, since another member does not
// answer, ends with the exit code of docs/commands.md for that.
func TestMemberThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=0")
	fillTopic(t, p, "t", 10)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cmd, said := startVerb(t, writer, t.TempDir(), "consume", "t", "--group", "g", "--bootstrap", p.addr)
	_ = writer.Close()
	if _, err := bufio.NewReader(reader).ReadString('\n'); err != nil {
		t.Fatalf("%v, %s", err, said)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r := tryVerb(t, t.TempDir(), "", "consume t --group g --exit --timeout 2s --bootstrap "+p.addr)
	r.expect(t, 4)
	if want := `group g has assigned no partitions to us for 2s: it waits for members that may still come, or that do not answer; "leat group describe g" shows them`; !strings.Contains(r.stderr, want) {
		t.Errorf("it says %q, want %q", r.stderr, want)
	}
}
