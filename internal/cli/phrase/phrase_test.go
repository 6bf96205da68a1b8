package phrase

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestNearest proves which names are proposed for one that does not exist.
func TestNearest(t *testing.T) {
	known := []string{"topic", "group", "config", "cluster", "consume", "produce", "up"}
	for name, want := range map[string]string{
		"tpoic": "topic", "topics": "topic", "prod": "produce", "con": "config consume", "gruop": "group", "Topic": "topic",
		"x": "", "pu": "up", "": "", "frobnicate": "", "clutser": "cluster",
	} {
		if got := strings.Join(Nearest(name, known), " "); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if got := Nearest("retention", []string{"retention.ms", "retention.bytes", "local.retention.ms", "delete.retention.ms"}); !slices.Equal(got, []string{"retention.ms", "retention.bytes"}) {
		t.Errorf("the beginning of two names proposes %q", got)
	}
	if got := DidYouMean("a", []string{"b", "c"}); got != ": did you mean b or c?" {
		t.Errorf("%q", got)
	}
}

// TestEditDistance proves that it is a distance: none from a word to itself, the same both
// ways, and never more than writing the longer word anew.
func TestEditDistance(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.StringMatching(`[abc]{0,6}`)
		a, b := word.Draw(rt, "a"), word.Draw(rt, "b")
		d := editDistance(a, b)
		if editDistance(a, a) != 0 || d != editDistance(b, a) || d > max(len(a), len(b)) || (d == 0) != (a == b) {
			rt.Fatalf("from %q to %q it is %d", a, b, d)
		}
	})
}

// TestWrapText proves that paragraphs which are too wide are filled anew, word by word, and
// that others and examples stay as they are.
func TestWrapText(t *testing.T) {
	got := Wrap("one two three four\nfive\n\nshort\nlines\n\n  an example that is long", 10)
	if want := "one two\nthree four\nfive\n\nshort\nlines\n\n  an example that is long"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
