package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/node"
)

// TestNumbers proves how figures are written.
func TestNumbers(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f(formatNumber(0), "0")
	f(formatNumber(999), "999")
	f(formatNumber(1000), "1,000")
	f(formatNumber(-1234567), "-1,234,567")
	f(formatSize(0), "0 B")
	f(formatSize(999), "999 B")
	f(formatSize(1000), "1.00 kB")
	f(formatSize(12345), "12.3 kB")
	f(formatSize(999499), "999 kB")
	f(formatSize(999500), "1.00 MB")
	f(formatSize(5e18), "5000 PB")
	f(formatDuration(1234*time.Nanosecond), "1µs")
	f(formatDuration(1234567*time.Nanosecond), "1.23ms")
	f(formatDuration(12345678900*time.Nanosecond), "12.35s")
	f(formatCount(1, "member"), "1 member")
	f(formatCount(2000, "member"), "2,000 members")
}

// TestColumns proves that columns line up, whatever is in them.
func TestColumns(t *testing.T) {
	c := columns{head: []string{"NAME", ">SIZE", "WHERE"}}
	c.addRow("groß", "1", "")
	c.addRow("x", "1,000", "here")
	want := "NAME   SIZE  WHERE\n" + "groß      1\n" + "x     1,000  here\n"
	if got := c.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestNamesAreOneLine proves that a cell is shown as it is, except that it neither breaks its line nor controls a
// terminal: names of groups and clients are chosen by others.
func TestNamesAreOneLine(t *testing.T) {
	c := columns{head: []string{"GROUP", ">LAG"}}
	c.addRow(">é", "1")
	c.addRow("a\x1b[31m\n\tb\u009b\xff", "2")
	want := "GROUP                         LAG\n" + ">é                              1\n" + `a\x1b[31m\x0a\x09b\u009b\xff    2` + "\n"
	if got := c.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestEmptyFlags proves that each flag of each verb refuses an empty value, except those for which it means something:
// in a script it is mostly a variable that is not set.
func TestEmptyFlags(t *testing.T) {
	a := new(app)
	seen := 0
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			visit(c)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			other := a.newRoot() // a flag keeps its value, so each gets verbs of its own
			path := strings.Fields(cmd.CommandPath())[1:]
			of, _, err := other.Find(path)
			if err != nil {
				t.Fatal(err)
			}
			if err = of.ParseFlags([]string{"--" + f.Name + "="}); err == nil {
				err = refuseEmpty(of, nil)
			}
			if allowed := slices.Contains(flagsWithEmptyValues, f.Name); allowed == (err != nil) {
				t.Errorf("leat %s --%s '': %v", strings.Join(path, " "), f.Name, err)
			}
			seen++
		})
	}
	visit(a.newRoot())
	if seen < 60 {
		t.Errorf("only %d flags were found", seen)
	}
}

// TestUpNamesVariables proves that the help of up names a variable for each of its flags, and that the node reads it.
func TestUpNamesVariables(t *testing.T) {
	cmd := new(app).newUp()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "LEAT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		switch f.Name {
		case "nodes", untilEOF:
			return // of one run, not of a node
		case "set":
			name = "LEAT_SET_<NAME>"
		default:
			if src := node.FromEnv([]string{name + "=x"}); len(src.Warnings) > 0 {
				t.Error(src.Warnings)
			}
		}
		if !strings.Contains(cmd.Long, name) {
			t.Errorf("the help does not name %s", name)
		}
	})
}

// TestLatencies proves that a quantile is never below the true one and above it by
// an eighth at most, and that what came before counts no more.
func TestLatencies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var l latencies
		l.addLatency(time.Hour)
		before := l.copyCounts()
		ns := rapid.SliceOfN(rapid.Int64Range(latencySteps, int64(time.Hour)), 1, 50).Draw(rt, "ns")
		var largest int64
		for _, n := range ns {
			l.addLatency(time.Duration(n))
			largest = max(largest, n)
		}
		after := l.copyCounts()
		got := findQuantile(&before, &after, 1-1e-9)
		if int64(got) <= largest || float64(got) > float64(largest)*1.125+1 {
			rt.Fatalf("the largest of %v is said to be %d", ns, got)
		}
		if half := findQuantile(&before, &after, 0.5); half > got {
			rt.Fatalf("p50 %v above the largest %v", half, got)
		}
	})
	var none [64 * latencySteps]int64
	if got := findQuantile(&none, &none, 0.5); got != 0 {
		t.Errorf("nothing came, but p50 is %v", got)
	}
}

// TestView proves that a picture shows the figures, fits the terminal, and that the
// next one takes exactly its place.
func TestView(t *testing.T) {
	var out strings.Builder
	v := demoView{out: &out, addr: "127.0.0.1:9092", program: "leat"}
	f := flow{recordsIn: 2000, recordsOut: 1999, bytesIn: 5e5, bytesOut: 5e5, totalIn: 12345, totalOut: 12340, lag: 5, p50: 700 * time.Microsecond, p99: 3 * time.Millisecond}
	if err := v.drawPicture(f, 80, 24); err != nil {
		t.Fatal(err)
	}
	first := out.String()
	for _, want := range []string{"2,000", "1,999", "500 kB", "12,345", "12,340", "700µs", "3ms", "127.0.0.1:9092", demoTopic} {
		if !strings.Contains(first, want) {
			t.Errorf("there is no %s in\n%s", want, first)
		}
	}
	lines := strings.Count(first, "\n")
	out.Reset()
	if err := v.drawPicture(f, 80, 24); err != nil {
		t.Fatal(err)
	}
	up := fmt.Sprintf("\x1b[%dA", lines)
	if !strings.HasPrefix(out.String(), up) || strings.Count(out.String(), "\n") != lines {
		t.Errorf("the second picture of %d lines begins with %q", lines, out.String()[:10])
	}
}

// TestProgramName proves that the demo shows commands that work where it was started.
func TestProgramName(t *testing.T) {
	for arg, want := range map[string]string{
		"leat": "leat", "./bin/leat": "./bin/leat", "/home/you/go/bin/leat": "/home/you/go/bin/leat",
		"/tmp/go-build1234/b001/exe/leat": "go run ./cmd/leat", "/home/you/.cache/go-build/ab/abcd-d/leat": "go run ./cmd/leat",
	} {
		if got := programName(arg); got != want {
			t.Errorf("the program that is started as %s is called %s, want %s", arg, got, want)
		}
	}
	v := demoView{addr: "127.0.0.1:9092", program: "go run ./cmd/leat"}
	if got := v.commandText(40); got != "go run ./cmd/leat consume web-access \\\n    --bootstrap 127.0.0.1:9092" {
		t.Errorf("on a narrow terminal it is %q", got)
	}
}

// TestClosedPipe proves that a reader of the output that goes away is no failure, that what failed beside it is one,
// and that a broken connection to a broker is not taken for it.
func TestClosedPipe(t *testing.T) {
	gone := &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
	broken := &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
	missing := notFoundf("topic t does not exist")
	for _, tc := range []struct {
		err  error
		code int
	}{
		{gone, exitOK},
		{fmt.Errorf("showing: %w", gone), exitOK},
		{errors.Join(gone, nil), exitOK},
		{errors.Join(nil, errors.Join(gone)), exitOK},
		{errors.Join(missing, gone), exitNotFound},
		{errors.Join(gone, errors.New("committing")), exitFailed},
		{broken, exitFailed},
		{answerError("topic t", broken, ""), exitFailed},
	} {
		var said strings.Builder
		a := &app{err: &said, running: true}
		if code := a.reportEnd(nil, tc.err); code != tc.code || (code == exitOK) != (said.Len() == 0) {
			t.Errorf("%v: exit code %d, want %d; it says %q", tc.err, code, tc.code, said.String())
		}
	}
}

// TestBetween proves that rates are per second and the lag is what is left to read.
func TestBetween(t *testing.T) {
	start := time.Unix(0, 0)
	a := demoSample{at: start, produced: 10, consumed: 10}
	b := demoSample{at: start.Add(2 * time.Second), produced: 110, producedBytes: 1000, consumed: 60, consumedBytes: 500}
	f := flowBetween(&a, &b)
	if f.recordsIn != 50 || f.recordsOut != 25 || f.bytesIn != 500 || f.bytesOut != 250 || f.lag != 50 || f.totalIn != 110 {
		t.Errorf("%+v", f)
	}
	if f := flowBetween(&a, &a); math.IsNaN(f.recordsIn) || f.recordsIn != 0 {
		t.Errorf("no time passed: %+v", f)
	}
}

// TestAccessLog proves that the log in the program is whole.
func TestAccessLog(t *testing.T) {
	lines, err := unpackAccessLog()
	if err != nil || len(lines) != 10_000 {
		t.Fatal(len(lines), err)
	}
	for i, l := range lines {
		if len(l.client) < 7 || !strings.HasPrefix(string(l.text), string(l.client)+" ") || strings.ContainsAny(string(l.text), "\n") {
			t.Fatalf("line %d: %q of %q", i, l.text, l.client)
		}
	}
}

// TestLocalNode proves that the demo's own node serves a client, and stops.
func TestLocalNode(t *testing.T) {
	addr, stop, err := startLocalNode(t.Context(), nodeOptions{data: t.TempDir() + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut strings.Builder
	if code := Main(t.Context(), []string{"cluster", "--bootstrap", addr}, nil, &out, &errOut); code != exitOK {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), addr) {
		t.Errorf("%s is not in\n%s", addr, out.String())
	}
}

// TestListenAddsUp proves that several --listen flags and several addresses in one
// are all served, and that they replace what the environment names.
func TestListenAddsUp(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		cmd := new(app).newUp()
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		cfg, err := readSettings(cmd, []string{"LEAT_LISTEN=:1"})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(cfg.Listen, " "); got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
	}
	f(":1")
	f(":9092", "--listen", ":9092")
	f("a:1 b:2", "--listen", "a:1", "--listen", "b:2")
	f("a:1 b:2 c:3", "--listen", "a:1,b:2", "--listen=c:3")
	cmd := new(app).newUp()
	if err := cmd.ParseFlags([]string{"--listen", ":9092", "--listen", "nonsense"}); err != nil {
		t.Fatal(err)
	}
	if _, err := readSettings(cmd, nil); err == nil || !strings.Contains(err.Error(), "--listen :9092 --listen nonsense") {
		t.Errorf("a bad address among good ones: %v", err)
	}
}

// TestLogShowsUnits proves that durations in the log have their units in both forms.
func TestLogShowsUnits(t *testing.T) {
	for format, want := range map[string]string{"json": `"took":"1.5s"`, "text": "took=1.5s"} {
		var b strings.Builder
		newLogger(&b, format).Info("done", "took", 1500*time.Millisecond)
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: %s", format, b.String())
		}
	}
}
