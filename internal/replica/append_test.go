package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// told records the outcomes of batches.
type told struct {
	outcomes map[int32]Outcome
	order    []int32
}

func (o *told) Appended(slot int32, out Outcome) {
	if o.outcomes == nil {
		o.outcomes = map[int32]Outcome{}
	}
	o.outcomes[slot] = out
	o.order = append(o.order, slot)
}

// TestAppendsToSeveralPartitions proves that batches for several partitions, added in any
// order, are appended to each partition in the order in which they were added, that each owner
// is told its own outcome, and that one commit ends all waits.
func TestAppendsToSeveralPartitions(t *testing.T) {
	w := newWorld(t)
	w.topic("events", 1, 1, 2)
	w.topic("away", 1)
	gone := w.set.Partition("away", 0)
	w.apply(meta.TopicDeleted{ID: gone.Topic().ID})
	a, b := w.set.Partition("events", 0), w.set.Partition("events", 1)
	appends, o := Appends{Set: w.set}, told{}
	for i, p := range []*Partition{b, a, gone, b, a, b} {
		appends.Add(p, oneRecord(t, fmt.Sprint(i)), AcksAll, &o, int32(i))
	}
	appends.Write()
	for slot, want := range []record.Offset{0, 0, -1, 1, 1, 2} {
		out := o.outcomes[int32(slot)]
		if want < 0 {
			if !errors.Is(out.Err, ErrNotLeader) {
				t.Errorf("batch %d, of a deleted partition: %v", slot, out.Err)
			}
			continue
		}
		if out.Err != nil || out.Base != want || out.Next != want+1 {
			t.Errorf("batch %d: %+v, want offset %d", slot, out, want)
		}
	}
	var c called
	waits := []Waiter{{Owner: &c, Slot: 1, Acks: AcksAll}, {Owner: &c, Slot: 2, Acks: AcksLeader}}
	a.Wait(&waits[0], 2)
	b.Wait(&waits[1], 3)
	if len(c.slots) > 0 {
		t.Errorf("waits %v ended before the commit", c.slots)
	}
	appends.Commit()
	slices.Sort(c.slots)
	if !slices.Equal(c.slots, []int32{1, 2}) || a.HighWatermark() != 2 || b.HighWatermark() != 3 {
		t.Errorf("after the commit: waits %v %v, high watermarks %d and %d", c.slots, c.errs, a.HighWatermark(), b.HighWatermark())
	}
}

// TestAddPanicsBeforeTheCommit proves that no batch can be added before the written ones are
// committed, so that an appender cannot forget the commit.
func TestAddPanicsBeforeTheCommit(t *testing.T) {
	w := newWorld(t)
	w.topic("events", 1)
	p := w.set.Partition("events", 0)
	appends, o := Appends{Set: w.set}, told{}
	add := func() (bug any) {
		defer func() { bug = recover() }()
		appends.Add(p, oneRecord(t, "x"), AcksNone, &o, 0)
		return nil
	}
	if bug := add(); bug != nil {
		t.Fatal(bug)
	}
	appends.Write()
	if bug := fmt.Sprint(add()); !strings.HasPrefix(bug, "BUG: ") {
		t.Errorf("a batch was taken before the commit: %s", bug)
	}
	appends.Commit()
	if bug := add(); bug != nil {
		t.Error(bug)
	}
	appends.Drop()
}

// TestDropUsesNoBytes proves that Drop does not store the collected batches, that it commits
// the written ones, and that it reads the bytes of neither.
func TestDropUsesNoBytes(t *testing.T) {
	w := newWorld(t)
	w.topic("events", 1)
	p := w.set.Partition("events", 0)
	appends, o := Appends{Set: w.set}, told{}
	written, collected := oneRecord(t, "written"), oneRecord(t, "collected")
	appends.Add(p, written, AcksAll, &o, 0)
	appends.Write()
	clear(written) // another connection may use the memory by now
	appends.Drop()
	appends.Add(p, collected, AcksAll, &o, 1)
	clear(collected)
	appends.Drop()
	if hw := p.HighWatermark(); hw != 1 || !slices.Equal(o.order, []int32{0}) {
		t.Fatalf("high watermark %d, told of %v", hw, o.order)
	}
	b, err := p.ReadBatches(0, 1, 1<<20)
	if err != nil || !strings.Contains(string(b), "written") {
		t.Errorf("stored: %q, %v", b, err)
	}
	if _, err := w.add(p, "next"); err != nil || p.HighWatermark() != 2 {
		t.Errorf("high watermark %d, %v", p.HighWatermark(), err)
	}
}
