package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// outcomes records how waits end.
type outcomes []error

func (o *outcomes) Complete(slot int32, err error) { (*o)[slot] = err }

var errPending = errors.New("it still waits")

// TestExpireEndsOverdueWaits proves that each wait ends at its deadline and not before it, on
// any partition, with or without earlier waits, and that Expire looks only at partitions that
// have waiters.
func TestExpireEndsOverdueWaits(t *testing.T) {
	w := newWorld(t)
	w.topic("t", 1, 1, 1)
	ends := outcomes{errPending, errPending, errPending, errPending}
	waiters := make([]Waiter, len(ends))
	wait := func(slot, partition int32, deadline time.Duration) {
		waiters[slot] = Waiter{Owner: &ends, Slot: slot, Acks: AcksAll, Deadline: deadline}
		w.set.Partition("t", partition).Wait(&waiters[slot], 1)
	}
	check := func(now time.Duration, partitions int, want ...error) {
		t.Helper()
		w.set.Expire(now)
		for i := range want {
			if !errors.Is(ends[i], want[i]) {
				t.Errorf("at %d wait %d: %v, want %v", now, i, ends[i], want[i])
			}
		}
		if n := len(w.set.waiting); n != partitions {
			t.Errorf("at %d %d partitions are looked at, want %d", now, n, partitions)
		}
	}
	check(1, 0)
	wait(0, 0, 10)
	wait(1, 0, 20)
	wait(2, 2, 10)
	check(5, 2, errPending, errPending, errPending)
	check(10, 1, ErrTimedOut, errPending, ErrTimedOut)
	wait(3, 2, 30)
	check(20, 1, ErrTimedOut, ErrTimedOut, ErrTimedOut, errPending)
	if _, err := w.add(w.set.Partition("t", 2), "v"); err != nil {
		t.Fatal(err)
	}
	w.store.Commit()
	check(21, 0, ErrTimedOut, ErrTimedOut, ErrTimedOut, nil)
}

// BenchmarkExpire measures the work of each second on a node with ten thousand partitions that
// have no waiters.
func BenchmarkExpire(b *testing.B) {
	w := newWorld(b)
	id := meta.NewUUID()
	w.apply(meta.TopicCreated{ID: id, Name: "t"}, meta.PartitionsSet{Topic: id, Partitions: onOneNode(10_000)})
	b.ReportAllocs()
	for now := time.Duration(1); b.Loop(); now++ {
		w.set.Expire(now)
	}
}
