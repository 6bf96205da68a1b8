package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/leatstream/leat/internal/cluster"
)

// typeOnTerminal makes a terminal on which a person has typed something. What it shows goes nowhere.
func typeOnTerminal(t *testing.T, text string) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	ask := func(request uintptr, number *int32) {
		t.Helper()
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(number))); errno != 0 {
			t.Fatal(errno)
		}
	}
	var unlocked, number int32
	ask(syscall.TIOCSPTLCK, &unlocked)
	ask(syscall.TIOCGPTN, &number)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	if _, err := master.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return terminal
}

// TestPromotionsAreConfirmed proves that a person is shown what would be lost and is asked before anything is changed, that only "yes" has it go on, and that nobody is asked for what is refused or changes nothing.
func TestPromotionsAreConfirmed(t *testing.T) {
	const ctrlD = "\x04"
	for typed, isMeant := range map[string]bool{"yes\n": true, " yes \n": true, "y\n": false, "no\nyes\n": false, "\n": false, ctrlD: false} {
		f := newPromotionFake()
		f.in = typeOnTerminal(t, typed)
		code, out, errs := f.run(t, "failover", "north")
		want := []string{}
		if isMeant {
			want = []string{"failover all"}
		}
		if got := f.changes(); !slices.Equal(got, want) || (code == exitOK) != isMeant || strings.Contains(out, "promoted 2 topics") != isMeant {
			t.Errorf("%q: it ends with %d, and asks for %q:\n%s%s", typed, code, got, out, errs)
		}
		risk, question := strings.Index(errs, "what a failover now would lose"), strings.Index(errs, "It cannot be undone: orders and web of link north will follow the source no more")
		if risk < 0 || question < risk {
			t.Errorf("%q: %s", typed, errs)
		}
		if !isMeant && !strings.Contains(errs, "leat: it was not confirmed, and nothing was changed\n") {
			t.Errorf("%q: %s", typed, errs)
		}
	}
	refused := newPromotionFake()
	refused.in, refused.problems = typeOnTerminal(t, "yes\n"), []cluster.LinkProblem{{About: "source", Text: "The source answers at n:1."}}
	_, _, errs := refused.run(t, "failover", "north")
	if got := refused.changes(); len(got) > 0 || strings.Contains(errs, "Type yes") {
		t.Errorf("%q: %s", got, errs)
	}
	for p := range refused.states {
		refused.states[p] = "PROMOTED"
	}
	if code, _, errs := refused.run(t, "failover", "north"); code != exitOK || strings.Contains(errs, "Type yes") {
		t.Errorf("done before: %d, %s", code, errs)
	}
}
