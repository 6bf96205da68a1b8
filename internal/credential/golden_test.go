package credential_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/credential"
)

// TestFormatsAreKept proves that all texts and messages have the bytes that they had when the format was
// made: the random bytes are the same each time. A change of a format needs a new version of it, and
// a new file beside the old one. LEAT_TEST_GOLDEN=write writes the file.
func TestFormatsAreKept(t *testing.T) {
	w := newWorld(t)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\ntoken %s\n", w.keys[1].Encode(), w.token.Text())
	v := w.tokens[w.token.ID()]
	fmt.Fprintf(&b, "verifier %v %v %x\n", v.ID, v.Key, v.Acceptor)
	node, joiner := w.dial(1, 2), credential.DialAsJoiner(w.join(), w.random)
	administrator := credential.DialAsAdministrator(w.self(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
	show := func(name string, o *outcome) {
		fmt.Fprintf(&b, "\n%s\n", name)
		for i, m := range [][]byte{o.hello, o.challenge, o.proof, o.verdict, o.acceptor.ID[:]} {
			fmt.Fprintf(&b, "%s %x\n", []string{"hello", "challenge", "proof", "verdict", "session"}[i], m)
		}
	}
	show("node", shake(node, w.accept(2), w, 1, nil))
	show("administrator", shake(administrator, w.accept(2), w, 1, nil))
	show("joiner", shake(joiner, w.accept(2), w, 5, nil))
	w.nodes[1] = credential.Member{Key: w.keys[1].Public(), Removed: true}
	show("removed", shake(w.dial(1, 2), w.accept(2), w, 1, nil))
	refusal, _ := w.accept(2).Challenge(nil)
	fmt.Fprintf(&b, "\nrefusal %x\n", refusal)

	checkFile(t, "testdata/formats-1.txt", &b)
}

// TestNotesAreKept proves the same of the proofs of version 2, which have notes.
func TestNotesAreKept(t *testing.T) {
	w := newWorld(t)
	var b strings.Builder
	var shown credential.Voucher
	for _, name := range []string{"without a voucher", "with a voucher"} {
		o := shake(w.dialWithNote(1, 2, 7, shown), w.acceptNote(2, 9), w, 1, nil)
		if o.acceptError != nil {
			t.Fatal(o.acceptError)
		}
		shown = o.peer.Note.Voucher
		fmt.Fprintf(&b, "%s\nproof %x\nsession %x\n", name, o.proof, o.acceptor.ID)
	}
	checkFile(t, "testdata/formats-2.txt", &b)
}

// checkFile compares a text with that in a file, or writes the file.
func checkFile(t *testing.T, file string, b *strings.Builder) {
	t.Helper()
	if os.Getenv("LEAT_TEST_GOLDEN") == "write" {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(b.String(), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != line {
			t.Errorf("line %d was\n%s\nand now is\n%s", i+1, line, got[min(i, len(got)-1)])
		}
	}
}
