package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen is the text that a person sees on a terminal. It knows the part of ECMA-48 that the
// program uses, and keeps lines that left it at the top. It is safe for concurrent use.
type screen struct {
	mu            sync.Mutex
	columns, rows int
	cells         [][]rune
	x, y          int
	isFull        bool     // the last column is written: the next character begins a line
	gone          []string // lines above the first one
	raw           []byte   // all that was written
	unread        []byte   // the end of raw: a sequence or a character that is not complete yet
}

func newScreen(columns, rows int) *screen {
	s := &screen{columns: columns, rows: rows}
	for range rows {
		s.cells = append(s.cells, blank(columns))
	}
	return s
}

func blank(columns int) []rune { return slices.Repeat([]rune{' '}, columns) }

// resize cuts off the text that does not fit any more, as xterm does. That text does not come back.
func (s *screen) resize(columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.y >= rows {
		s.scrollLocked()
		s.y--
	}
	for i, line := range s.cells {
		s.cells[i] = append(line, blank(columns)...)[:columns]
	}
	for len(s.cells) < rows {
		s.cells = append(s.cells, blank(columns))
	}
	s.cells, s.gone = s.cells[:rows], nil
	s.columns, s.rows, s.x, s.isFull = columns, rows, min(s.x, columns-1), false
}

func (s *screen) scrollLocked() {
	s.gone = append(s.gone, strings.TrimRight(string(s.cells[0]), " "))
	s.cells = append(s.cells[1:], blank(s.columns))
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = append(s.raw, p...)
	s.unread = append(s.unread, p...)
	for len(s.unread) > 0 {
		n := s.takeLocked(s.unread)
		if n == 0 {
			break
		}
		s.unread = s.unread[n:]
	}
	return len(p), nil
}

// takeLocked obeys one character or sequence, and returns its length. It returns 0 if it is not
// complete.
func (s *screen) takeLocked(b []byte) int {
	if b[0] == '\x1b' {
		end := slices.IndexFunc(b[1:], func(c byte) bool { return c >= 0x40 && c != '[' })
		if end < 0 {
			return 0
		}
		s.obeyLocked(string(b[1:end+1]), b[end+1])
		return end + 2
	}
	if !utf8.FullRune(b) {
		return 0
	}
	c, n := utf8.DecodeRune(b)
	switch {
	case c == '\r':
		s.x, s.isFull = 0, false
	case c == '\n':
		s.downLocked()
	case c == '\b':
		s.x, s.isFull = max(0, s.x-1), false
	case c >= ' ':
		if s.isFull {
			s.x = 0
			s.downLocked()
		}
		s.cells[s.y][s.x] = c
		s.isFull = s.x == s.columns-1
		s.x = min(s.x+1, s.columns-1)
	}
	return n
}

func (s *screen) downLocked() {
	s.isFull = false
	if s.y == s.rows-1 {
		s.scrollLocked()
	} else {
		s.y++
	}
}

// obeyLocked moves the cursor or clears cells. Colours and modes do not matter here.
func (s *screen) obeyLocked(arguments string, verb byte) {
	n, _ := strconv.Atoi(strings.TrimPrefix(arguments, "["))
	switch verb {
	case 'A':
		s.y, s.isFull = max(0, s.y-max(1, n)), false
	case 'H':
		s.x, s.y, s.isFull = 0, 0, false
	case 'K':
		copy(s.cells[s.y][s.x:], blank(s.columns))
	case 'J':
		from, y := s.x, s.y
		if n == 2 {
			from, y = 0, 0
		}
		copy(s.cells[y][from:], blank(s.columns))
		for y++; y < s.rows; y++ {
			s.cells[y] = blank(s.columns)
		}
	}
}

// lines are the lines on the screen, after those that have scrolled away, and without blank lines
// at the end.
func (s *screen) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.gone)
	for _, line := range s.cells {
		all = append(all, strings.TrimRight(string(line), " "))
	}
	for len(all) > 0 && all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

func (s *screen) String() string { return strings.Join(s.lines(), "\n") }

// written is everything that was sent to the terminal.
func (s *screen) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.raw)
}

// terminal is a pseudo-terminal with its screen.
type terminal struct {
	*screen
	person  *os.File // the person's side, to which the test types
	program *os.File // the side that programs have as their terminal
	drawn   sync.WaitGroup
}

func newTerminal(t *testing.T, columns, rows int) *terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var unlock error
	err = raw.Control(func(fd uintptr) {
		number, unlock = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		if unlock == nil {
			unlock = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
	})
	if err != nil || unlock != nil {
		t.Fatal(err, unlock)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	tt := &terminal{screen: newScreen(columns, rows), person: person, program: program}
	tt.setSize(t, columns, rows)
	tt.drawn.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := person.Read(b)
			if n > 0 {
				_, _ = tt.Write(b[:n])
			}
			if err != nil {
				return // the terminal is closed
			}
		}
	})
	t.Cleanup(func() {
		_ = program.Close()
		_ = person.Close()
		tt.drawn.Wait()
		if t.Failed() {
			t.Logf("the terminal shows\n%s\n(%q)", tt.screen, tt.written()[max(0, len(tt.written())-2000):])
		}
	})
	return tt
}

func (tt *terminal) setSize(t *testing.T, columns, rows int) {
	t.Helper()
	tt.resize(columns, rows)
	if err := unix.IoctlSetWinsize(int(tt.program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
}

func (tt *terminal) typeText(t *testing.T, text string) {
	t.Helper()
	if _, err := tt.person.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// run starts the binary in a terminal, which is its input, too.
func (tt *terminal) run(t *testing.T, args ...string) *process {
	t.Helper()
	return tt.runWith(t, nil, args...)
}

// runWith is run with more variables of the environment.
func (tt *terminal) runWith(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(leat, args...)
	cmd.Env = append(append(os.Environ(), "TERM=xterm-256color"), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tt.program, tt.program, tt.program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, out: &output{}, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// redraws is how often a picture was drawn over an earlier one.
func (tt *terminal) redraws() int { return strings.Count(tt.written(), "\x1b[J") }

// TestDemoFitsTerminal proves that the demo shows one picture in terminals of any size, and that it
// shows the whole address to connect to. The picture follows when the terminal is resized.
func TestDemoFitsTerminal(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, tt *terminal, addr string) {
		t.Helper()
		before := tt.redraws()
		eventually(t, "some pictures are drawn", func() bool { return tt.redraws() >= before+4 })
		eventually(t, "one whole picture stands there", func() bool {
			shown := tt.String()
			return strings.Count(shown, "leat demo") == 1 && strings.Contains(shown, addr) && strings.Contains(shown, "Ctrl-C ends it.")
		})
		if lines := len(tt.lines()); lines > tt.rows {
			t.Errorf("%d lines on a terminal of %d", lines, tt.rows)
		}
	}
	for _, size := range [][2]int{{100, 24}, {40, 10}, {30, 6}} {
		t.Run(fmt.Sprintf("%d x %d", size[0], size[1]), func(t *testing.T) {
			t.Parallel()
			tt := newTerminal(t, size[0], size[1])
			addr := freeAddr(t)
			_, port, _ := strings.Cut(addr, ":")
			p := tt.run(t, "demo", "--port", port)
			if size[1] >= 10 {
				check(t, tt, addr)
			}
			if size[0] == 100 {
				if shown := tt.String(); !strings.Contains(shown, "bytes/s") || !strings.Contains(shown, "╭") {
					t.Errorf("there is no table:\n%s", shown)
				}
				for _, to := range [][2]int{{40, 10}, {70, 30}, {61, 12}} {
					tt.setSize(t, to[0], to[1])
					check(t, tt, addr)
				}
			}
			before := tt.redraws()
			eventually(t, "more pictures are drawn", func() bool { return tt.redraws() >= before+4 })
			if n := strings.Count(tt.String(), "leat demo"); n > 1 {
				t.Errorf("%d pictures", n)
			}
			tt.typeText(t, "\x03")
			p.awaitEnd(t)
		})
	}
}

// TestDemoDirectory proves that the demo leaves nothing behind unless it is told to, and serves on
// the port that it is given.
func TestDemoDirectory(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		temporary := t.TempDir()
		addr := freeAddr(t)
		_, port, _ := strings.Cut(addr, ":")
		args := []string{"demo", "--for", "1s", "--port", port}
		if keep {
			args = append(args, "--keep")
		}
		cmd := exec.Command(leat, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err, stderr.String())
		}
		if !strings.Contains(string(out), addr) {
			t.Errorf("it does not name %s:\n%s", addr, out)
		}
		left, err := os.ReadDir(temporary)
		if err != nil {
			t.Fatal(err)
		}
		if keep != (len(left) == 1) || keep != strings.Contains(string(out), "leat up --data "+temporary) {
			t.Errorf("keep %v: left %v, said\n%s", keep, left, out)
		}
	}
	taken := up(t, t.TempDir())
	_, port, _ := strings.Cut(taken.addr, ":")
	v := runVerb(t, taken.addr, "demo", "--port", port)
	v.expect(t, 1, "leat: starting a node: port "+port+" is taken by another program: name another with --port\n")
}

// TestProduceWhileTyping proves that nothing is drawn over the line that a person types.
func TestProduceWhileTyping(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	tt := newTerminal(t, 60, 10)
	v := tt.run(t, "produce", "t", "-b", p.addr)
	tt.typeText(t, "one\n")
	awaitRecords(t, p.addr, "one\n")
	tt.typeText(t, "half")
	do(t, p.addr, "", "bench", "latency", "--duration", "100ms") // this takes more than a second
	if got := tt.String(); got != "one\nhalf" {
		t.Errorf("the terminal shows %q", got)
	}
	tt.typeText(t, " and half\n\x04")
	v.awaitEnd(t)
	eventually(t, "the sum is shown", func() bool { return strings.Contains(tt.String(), "one\nhalf and half\nproduced 2 records, ") })
}

// TestMeterFitsTerminal proves that the progress of a transfer stays on one line of a narrow
// terminal.
func TestMeterFitsTerminal(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	tt := newTerminal(t, 30, 10)
	cmd := exec.Command(leat, "produce", "t", "-b", p.addr)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.Stderr = tt.program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte("one\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the meter is drawn some times", func() bool { return strings.Count(tt.written(), "\x1b[K") >= 3 })
	if lines := tt.lines(); len(lines) != 1 || !strings.HasPrefix(lines[0], "produced 1 record, ") {
		t.Errorf("the terminal shows %q", lines)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestConsumeOnTerminal proves that the bytes of records cannot control a terminal, and that a pipe
// gets them unchanged.
func TestConsumeOnTerminal(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	const evil = "a\x1b[31mred\x07\tb \u009b2J \u202etxt.exe \xff\x7f é"
	do(t, p.addr, evil, "produce", "t", "--whole", "--key", "k\x1bc")
	if got := do(t, p.addr, "", "consume", "t", "--from", "start", "--exit"); got != evil+"\n" {
		t.Errorf("piped: %q", got)
	}
	for _, tc := range []struct{ args, want string }{
		{"--format=\x1b[1m%k\x1b[m %v|", "\x1b[1mk\\x1bc\x1b[m a\\x1b[31mred\\x07\tb \\u009b2J \\u202etxt.exe \\xff\\x7f é|"},
		{"--output=json", `"key":"k\u001bc"`},
	} {
		tt := newTerminal(t, 200, 10)
		v := tt.run(t, "consume", "t", "--from", "start", "--exit", "-b", p.addr, tc.args)
		v.awaitEnd(t)
		eventually(t, "the record is shown", func() bool { return strings.Contains(tt.written(), tc.want) })
		if got := tt.written(); strings.ContainsAny(got, "\x07\u009b\u202e\x7f") {
			t.Errorf("%s sends %q", tc.args, got)
		}
	}
}

// TestNamesOnTerminal proves that the name of a group, which anybody who may connect chooses, controls no terminal:
// not in a table, nor in a list of names, an error or a hint. A script gets the name as it is.
func TestNamesOnTerminal(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--set", "group.initial.rebalance.delay.ms=1500")
	do(t, p.addr, "", "topic", "create", "t", "--partitions", "1")
	do(t, p.addr, "x\n", "produce", "t")
	const evil, shown = "a\x1b[31mred\x07 \u009b2J", `a\x1b[31mred\x07 \u009b2J`
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"consume", "t", "--exit", "--group", evil}, "waiting for group " + shown},
		{[]string{"group", "list"}, shown + "  classic"},
		{[]string{"group", "list", "--quiet"}, shown + "\r\n"},
		{[]string{"group", "list", "--quiet", "-o", "json"}, `"a\u001b[31mred\u0007 \u009b2J"`},
		{[]string{"group", "export", "--all-groups"}, "t,0,"},
		{[]string{"group", "describe", evil}, "group " + shown + ": Empty"},
		{[]string{"group", "describe", evil + "K"}, "did you mean " + shown + "?"},
		{[]string{"group", "delete", evil}, "deleted group " + shown},
	} {
		if tc.args[1] == "delete" {
			if got := do(t, p.addr, "", "group", "list", "--quiet"); got != evil+"\n" {
				t.Errorf("piped: %q", got)
			}
		}
		tt := newTerminal(t, 250, 10)
		tt.run(t, append(tc.args, "-b", p.addr)...).awaitEnd(t)
		eventually(t, strings.Join(tc.args[:2], " ")+" shows the name", func() bool { return strings.Contains(tt.written(), tc.want) })
		if got := tt.written(); strings.ContainsAny(strings.ReplaceAll(got, "\x1b[K", ""), "\x1b\x07\u009b") {
			t.Errorf("%q sends %q", tc.args, got)
		}
	}
}

// TestSecondInterrupt proves that a second Ctrl-C ends a verb at once that has work to finish after
// the first one.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	hole, asked := blackHole(t)
	v := runVerb(t, hole, "consume", "t", "--timeout", "300s")
	select {
	case <-asked:
	case <-time.After(readyLimit):
		t.Fatal("nothing was asked")
	}
	eventually(t, "it has ended", func() bool {
		v.signal(t, os.Interrupt)
		select {
		case <-v.done:
			return true
		default:
			return false
		}
	})
	if status, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		t.Errorf("it ended by itself: %v", v.cmd.ProcessState)
	}
}
