package progress

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// forkWorld is two logs: one of the old site, which is to mirror again, and one of the site that had mirrored it and was promoted.
type forkWorld struct {
	rng        *rand.Rand
	here       localLog
	there      localLog
	fork       Fork
	knowsLower bool
	next       byte // tells records from others
}

// add adds records of an epoch to logs. Their checksums are those of nobody else.
func (w *forkWorld) add(epoch record.Epoch, count int, logs ...*localLog) {
	for range count {
		w.next++
		for _, l := range logs {
			l.append(&batch{Batch: Batch{Base: l.end, Next: l.end + 1, Epoch: epoch, CRC: uint32(w.next)}})
		}
	}
}

func newForkWorld(seed uint64) *forkWorld {
	w := &forkWorld{rng: rand.New(rand.NewPCG(seed, 0xf02c)), knowsLower: seed%2 == 0}
	epoch := record.Epoch(w.rng.IntN(3))
	for range w.rng.IntN(4) {
		w.add(epoch, w.rng.IntN(4), &w.here, &w.there)
		epoch += 1 + record.Epoch(w.rng.IntN(2))
	}
	// What was not mirrored, or what an unclean election here has lost behind the mirror's back.
	if w.rng.IntN(3) == 0 {
		w.add(epoch, 1+w.rng.IntN(3), &w.there)
		epoch += 1 + record.Epoch(w.rng.IntN(2))
	}
	w.fork = Fork{max(epoch, w.there.lastEpoch()+1) + record.Epoch(w.rng.IntN(3)), w.there.end}
	for range w.rng.IntN(4) { // the old site goes on: its epochs may get to those of the other one, and beyond
		w.add(epoch, w.rng.IntN(4), &w.here)
		epoch += 1 + record.Epoch(w.rng.IntN(3))
	}
	epoch = w.fork.Epoch
	for range w.rng.IntN(4) {
		w.add(epoch, w.rng.IntN(4), &w.there)
		epoch += 1 + record.Epoch(w.rng.IntN(3))
	}
	for _, l := range []*localLog{&w.here, &w.there} { // retention
		if w.rng.IntN(4) == 0 && l.end > l.start {
			l.trim(l.start + record.Offset(w.rng.IntN(int(l.end-l.start))))
		}
	}
	return w
}

// same is up to where both logs have the same records, from the later one of their starts on; and at most up to the fork.
func (w *forkWorld) same() record.Offset {
	at := max(w.here.start, w.there.start)
	for at < min(w.here.end, w.there.end) && w.here.BatchBefore(at+1) == w.there.BatchBefore(at+1) {
		at++
	}
	return at
}

// TestModelOfForks proves that an old site which mirrors the one that took over cuts its log where the two part, not below, and never leaves a record that the other one has not, whatever epochs both have used since.
func TestModelOfForks(t *testing.T) {
	from, to := uint64(0), uint64(number(t, "LEAT_TEST_SEEDS", 5000))
	if one := number(t, "LEAT_TEST_SEED", -1); one >= 0 {
		from, to = uint64(one), uint64(one)+1
	}
	seen := coverage{}
	for seed := from; seed < to; seed++ {
		w := newForkWorld(seed)
		m := New(&Config{})
		now := time.Hour
		a := Assignment{Epoch: 1000, Settings: Settings{Start: Earliest}, Durable: Durable{State: Restoring, HasBegun: true, Topic: theTopic, Fork: w.fork}}
		m.Lead(now, a, w.here.state(), Age{-1, -1}, &w.here)
		for steps := 0; ; steps++ {
			if steps > 100 {
				t.Fatalf("seed %d: it does not end: %+v", seed, m.Status(now))
			}
			now += time.Minute
			q, ok := m.Next(now)
			if !ok {
				t.Fatalf("seed %d: nothing is to be done: %+v", seed, m.Status(now))
			}
			if q.Kind == FindTopic {
				m.Described(now, q.ID, &Description{Topic: theTopic, Leader: 1, LeaderEpoch: max(w.there.lastEpoch(), w.fork.Epoch), Broker: 2, Asked: now})
				continue
			}
			if q.Kind == FindEpoch {
				if q.Epoch >= w.fork.Epoch {
					t.Fatalf("seed %d: epoch %d is asked for, and the source has counted by itself from %d on", seed, q.Epoch, w.fork.Epoch)
				}
				found := w.there.EpochEnd(q.Epoch)
				if found.Epoch == record.NoEpoch && w.knowsLower {
					found = Tail{q.Epoch, w.there.start}
				}
				m.EpochFound(now, q.ID, found, Trouble{})
				continue
			}
			seen[w.end(t, seed, &q)]++
			break
		}
	}
	t.Log(seen)
	if to-from < 5000 {
		return
	}
	for _, what := range []string{"copied anew", "nothing is cut", "cut at the fork", "cut below the fork", "equal epochs beyond the fork"} {
		if seen[what] == 0 {
			t.Errorf("in %d histories there was no %q", to-from, what)
		}
	}
}

// end checks how a search ends.
func (w *forkWorld) end(t *testing.T, seed uint64, q *Action) string {
	t.Helper()
	same, seen := min(w.same(), w.fork.Offset), max(w.here.start, w.there.start)
	switch {
	case q.Kind == Declare && q.Durable.State == Cutting && q.Durable.Fork == (Fork{}):
		if same > seen {
			t.Fatalf("seed %d: all is copied anew, and both have the same up to offset %d", seed, same)
		}
		return "copied anew"
	case q.Kind != Cut:
		t.Fatalf("seed %d: it ends with %+v", seed, q)
	case q.Offset > w.fork.Offset:
		t.Fatalf("seed %d: it cuts at %d, and the fork is at %d", seed, q.Offset, w.fork.Offset)
	case same > seen && q.Offset != same, seen < min(w.here.end, w.there.end) && q.Offset > max(same, w.here.start):
		t.Fatalf("seed %d: it cuts at %d, and both have the same up to %d (fork %+v)", seed, q.Offset, same, w.fork)
	case q.Offset >= w.here.end:
		return "nothing is cut"
	case q.Offset < w.fork.Offset:
		return "cut below the fork"
	case w.here.lastEpoch() >= w.fork.Epoch && w.there.EpochEnd(w.here.lastEpoch()).Epoch == w.here.lastEpoch():
		return "equal epochs beyond the fork"
	}
	return "cut at the fork"
}
