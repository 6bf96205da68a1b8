package aside

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// TestAsideNamesFit proves that names of directories that were moved aside are never too long,
// and that their log can be read from them.
func TestAsideNamesFit(t *testing.T) {
	for _, n := range []int{1, 100, 200, 249} {
		id := record.LogID{Topic: [16]byte{1, 2, 3}, Partition: 2147483647}
		dir := strings.Repeat("y", n) + "-2147483647"
		deleted, stray := DeletedName(dir, id), StrayName(dir, id, 1_700_000_000_000)
		if got, ok := ParseDeleted(deleted); !ok || got != id || len(deleted) > maxName {
			t.Errorf("%s (%d): %v %v", deleted, len(deleted), got, ok)
		}
		if got, since, ok := ParseStray(stray); !ok || got != id || since != 1_700_000_000_000 || len(stray) > maxName {
			t.Errorf("%s (%d): %v %d %v", stray, len(stray), got, since, ok)
		}
		if _, _, ok := ParseStray(deleted); ok {
			t.Errorf("%s is taken for one that is kept", deleted)
		}
		tails, deletedTails := TailsName(dir, id), DeletedTailsName(TailsName(dir, id))
		if got, ok := ParseTails(tails); !ok || got != id || len(tails) > maxName || IsDeletedTails(tails) {
			t.Errorf("%s (%d): %v %v", tails, len(tails), got, ok)
		}
		if _, ok := ParseTails(deletedTails); ok || !IsDeletedTails(deletedTails) || len(deletedTails) > maxName {
			t.Errorf("%s is taken for one that is kept", deletedTails)
		}
		for _, name := range []string{tails, deletedTails} {
			if _, ok := ParseDeleted(name); ok {
				t.Errorf("%s is taken for that of a deleted log", name)
			}
		}
		if _, ok := ParseTails(deleted); ok || IsDeletedTails(deleted) {
			t.Errorf("%s is taken for one of tails", deleted)
		}
	}
}

// TestLastStrayIsTakenBack proves that Take returns the last of several directories that were set
// aside for a log, once. There are several only if somebody has copied one by hand.
func TestLastStrayIsTakenBack(t *testing.T) {
	var st Strays
	id, other := record.LogID{Topic: [16]byte{1}, Partition: 1}, record.LogID{Topic: [16]byte{1}, Partition: 2}
	for _, since := range []int64{5, 9, 7} {
		st.Add(StrayName("topic-1", id, since), id, since)
	}
	st.Add(StrayName("topic-2", other, 8), other, 8)
	st.Add(StrayName("topic-2", other, 8), other, 8) // the same one
	if st.Len() != 4 || !st.Has(id) {
		t.Fatalf("%d are known", st.Len())
	}
	for i, d := range st.List(id) {
		if want := []int64{5, 7, 9}[i]; d.Since != want {
			t.Errorf("the %dth listed one is %+v, want the one since %d", i, d, want)
		}
	}
	if got := st.List(id); len(got) != 3 {
		t.Errorf("%d directories of the log are listed", len(got))
	}
	for _, want := range []int64{9, 7, 5} {
		if got, ok := st.Take(id); !ok || got.Since != want || !strings.Contains(got.Name, fmt.Sprintf(".%d.", want)) {
			t.Errorf("%+v was taken, want the one since %d", got, want)
		}
	}
	if got, ok := st.Take(id); ok || st.Has(id) || st.Len() != 1 {
		t.Errorf("%+v is left", got)
	}
}
