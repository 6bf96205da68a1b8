package node

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestRoomForReplicas proves from which room on a node takes no replicas that nobody has asked for, and that its operator
// is told once.
func TestRoomForReplicas(t *testing.T) {
	var w roomWatch
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, step := range []struct {
		avail, total int64
		err          error
		want         bool
		lines        int // that were written so far
	}{
		{100, 1000, nil, false, 0},
		{99, 1000, nil, true, 1},
		{98, 1000, nil, true, 1},
		{500, 1000, nil, false, 2},
		{keptRoom, 1 << 50, nil, false, 2}, // a large disk
		{keptRoom - 1, 1 << 50, nil, true, 3},
		{0, 0, errors.New("it does not tell"), false, 4},
	} {
		got := w.look(log, func() (int64, int64, error) { return step.avail, step.total, step.err })
		if lines := strings.Count(out.String(), "\n"); got != step.want || lines != step.lines {
			t.Errorf("%d of %d, %v: short %v, and %d lines:\n%s", step.avail, step.total, step.err, got, lines, out.String())
		}
	}
}
