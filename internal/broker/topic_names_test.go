package broker

import (
	"fmt"
	"slices"
	"testing"
)

// TestTopicNamesAreSortedOnce proves that the pages of a list of all topics share one sorted list of
// their names, and that they are dropped when their image is not the newest one.
func TestTopicNamesAreSortedOnce(t *testing.T) {
	g := newRig(t)
	for i := range 30 {
		g.topic(fmt.Sprint("t", i), 1)
	}
	m := g.image.Load()
	var n topicNames
	first := n.sortedNames(m)
	if len(first) != m.NumTopics() || !slices.IsSorted(first) {
		t.Fatalf("%q", first)
	}
	if again := n.sortedNames(m); &again[0] != &first[0] {
		t.Error("the names were sorted again for the same image")
	}
	g.topic("another", 1)
	if next := n.sortedNames(g.image.Load()); len(next) != len(first)+1 {
		t.Errorf("%q after a change", next)
	}
	n.dropUnused(g.image.Load())
	if n.names == nil {
		t.Error("the names of the newest image were dropped")
	}
	n.dropUnused(m)
	if n.names != nil {
		t.Error("the names of an older image are kept")
	}
}
