package segment

import (
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// TestCursorsAreBounded proves that readers which never go on leave a bounded number of
// cursors, and that those which were used last are kept.
func TestCursorsAreBounded(t *testing.T) {
	var s cursors
	g := &Segment{}
	for i := range 3 * maxCursors {
		s.putCursor(&cursor{key: cursorKey{g, record.Offset(i)}})
		s.putCursor(&cursor{key: cursorKey{g, record.Offset(i)}, pos: 1}) // another reader at the same place
	}
	if len(s.byKey) != maxCursors {
		t.Fatalf("%d are kept, not %d", len(s.byKey), maxCursors)
	}
	for i := 2 * maxCursors; i < 3*maxCursors; i++ {
		if c := s.takeCursor(cursorKey{g, record.Offset(i)}); c == nil || c.pos != 0 {
			t.Fatalf("the one at %d: %v", i, c)
		}
	}
	if len(s.byKey) != 0 {
		t.Errorf("%d are left", len(s.byKey))
	}
}
