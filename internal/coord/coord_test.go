package coord

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// words is a machine that keeps words: the key of a record is one, its value the
// number of times it was said.
type words struct {
	timers *Timers
	said   map[string]int
	at     map[string]record.Offset
	loaded bool
	parked []func(error)
	gate   chan struct{} // if not nil, Apply waits for it
}

var errNotAWord = errors.New("not a word")

func (w *words) Apply(s *Step, r Record) error {
	if w.gate != nil {
		<-w.gate
	}
	if len(r.Key) == 0 {
		return errNotAWord
	}
	if string(r.Key) == "newer" {
		return fmt.Errorf("a word of another language: %w", ErrNewer)
	}
	if r.Value == nil {
		delete(w.said, string(r.Key))
		return nil
	}
	w.said[string(r.Key)] = int(r.Value[0])
	w.at[string(r.Key)] = s.Next()
	return nil
}

func (w *words) Loaded(*Step) { w.loaded = true }

func (w *words) Unload(s *Step) {
	for _, p := range w.parked {
		s.Reply(func(error) { p(ErrNotLeading) })
	}
}

// say records that a word was said once more, and replies with the number.
func (w *words) say(s *Step, word string, reply func(int, error)) {
	n := w.said[word] + 1
	b := append(s.Buffer(), word...)
	key := len(b)
	s.PutBuffer(append(b, byte(n)), key)
	s.Reply(func(err error) { reply(n, err) })
}

// read replies with how often a word was said, once the word's last record is committed.
func (w *words) read(s *Step, word string, reply func(int, error)) {
	n := w.said[word]
	s.After(w.at[word])
	s.Reply(func(err error) { reply(n, err) })
}

func newRuntime(tb testing.TB, change ...func(*words)) *Runtime[*words] {
	tb.Helper()
	r := New(Config[*words]{
		Logger: slog.New(slog.DiscardHandler),
		New: func(_ int32, ts *Timers) *words {
			w := &words{timers: ts, said: map[string]int{}, at: map[string]record.Offset{}}
			for _, c := range change {
				c(w)
			}
			return w
		},
	})
	tb.Cleanup(r.Close)
	return r
}

// heard collects replies.
type heard struct {
	mu sync.Mutex
	s  []string
}

func (h *heard) reply(who string) func(int, error) {
	return func(n int, err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.s = append(h.s, fmt.Sprint(who, " ", n, " ", err))
	}
}

func (h *heard) want(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if diff := cmp.Diff(want, h.s); diff != "" {
		t.Errorf("replies (-want +got):\n%s", diff)
	}
	h.s = nil
}

func do(t *testing.T, r *Runtime[*words], op func(w *words, s *Step)) {
	t.Helper()
	if err := r.Do(0, op); err != nil {
		t.Fatal(err)
	}
}

// TestRepliesWaitForTheHighWatermark proves that a write's reply is released when
// its record is committed, that a read waits behind the write that it saw, and that
// a read which saw only committed records does not wait.
func TestRepliesWaitForTheHighWatermark(t *testing.T) {
	l, r, h := &twin{}, newRuntime(t), &heard{}
	r.StartLeading(0, 1, l)
	do(t, r, func(w *words, s *Step) { w.say(s, "old", h.reply("old")) })
	h.want(t, "old 1 <nil>")

	l.set(func() { l.held = true })
	do(t, r, func(w *words, s *Step) { w.say(s, "new", h.reply("write")) })
	do(t, r, func(w *words, s *Step) { w.read(s, "new", h.reply("read")) })
	do(t, r, func(w *words, s *Step) { w.read(s, "old", h.reply("read old")) })
	h.want(t, "read old 1 <nil>")
	l.commit(2)
	h.want(t, "write 1 <nil>", "read 1 <nil>")
}

// TestRepliesAreLostWithLeadership proves that replies which wait for a commit get an
// error when the node stops leading, and that nothing is served afterwards.
func TestRepliesAreLostWithLeadership(t *testing.T) {
	l, r, h := &twin{held: true}, newRuntime(t), &heard{}
	r.StartLeading(0, 1, l)
	do(t, r, func(w *words, s *Step) { w.say(s, "x", h.reply("write")) })
	do(t, r, func(w *words, _ *Step) {
		w.parked = append(w.parked, func(err error) { h.reply("parked")(0, err) })
	})
	h.want(t)
	r.StopLeading(0)
	h.want(t, "parked 0 "+ErrNotLeading.Error())
	l.lose(ErrNotLeading)
	h.want(t, "write 1 "+ErrNotLeading.Error())
	if err := r.Do(0, nil); !errors.Is(err, ErrNotLeading) {
		t.Errorf("Do after StopLeading: %v", err)
	}
}

// TestFailedAppend proves that records which could not be appended change nothing,
// that Else runs and Then does not, and that the shard goes on.
func TestFailedAppend(t *testing.T) {
	l, r, h := &twin{}, newRuntime(t), &heard{}
	r.StartLeading(0, 1, l)
	full := errors.New("full")
	l.set(func() { l.fail = full })
	do(t, r, func(w *words, s *Step) {
		w.say(s, "x", h.reply("write"))
		s.Then(func() { t.Error("Then ran though nothing was appended") })
		s.Else(func(err error) { s.Reply(func(error) { h.reply("else")(0, err) }) })
	})
	h.want(t, "write 1 full", "else 0 full")
	l.set(func() { l.fail = nil })
	do(t, r, func(w *words, s *Step) { w.say(s, "x", h.reply("again")) })
	h.want(t, "again 1 <nil>")
}

// TestTooLarge proves that records which are too large together are refused before
// they are appended.
func TestTooLarge(t *testing.T) {
	l, r := &twin{}, newRuntime(t)
	r.StartLeading(0, 1, l)
	var got error
	do(t, r, func(_ *words, s *Step) {
		s.Put([]byte("large"), make([]byte, MaxBatch))
		s.Reply(func(err error) { got = err })
	})
	if !errors.Is(got, ErrTooLarge) || l.appends != 0 {
		t.Errorf("%v, %d appends", got, l.appends)
	}
}

// TestThen proves that Then runs after Apply, and that the records which it puts are
// appended and applied before any reply.
func TestThen(t *testing.T) {
	l, r, h := &twin{}, newRuntime(t), &heard{}
	r.StartLeading(0, 1, l)
	do(t, r, func(w *words, s *Step) {
		w.say(s, "x", h.reply("first"))
		s.Then(func() {
			if w.said["x"] != 1 {
				t.Error("Then ran before Apply")
			}
			w.say(s, "x", h.reply("second"))
			s.Then(func() { w.read(s, "x", h.reply("third")) })
		})
	})
	h.want(t, "first 1 <nil>", "second 2 <nil>", "third 2 <nil>")
	if l.appends != 2 {
		t.Errorf("%d batches were appended", l.appends)
	}
}

// TestLoading proves that a partition with records is served only when it has read them,
// in the background, and that it has their state then.
func TestLoading(t *testing.T) {
	l, r, h := &twin{}, newRuntime(t), &heard{}
	r.StartLeading(0, 1, l)
	for range 20 {
		do(t, r, func(w *words, s *Step) { w.say(s, "x", h.reply("x")) })
	}
	r.StopLeading(0)

	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := newRuntime(t, func(w *words) { w.gate = gate })
		r.StartLeading(0, 2, l)
		if err := r.Do(0, nil); !errors.Is(err, ErrLoading) {
			t.Errorf("Do while loading: %v", err)
		}
		close(gate)
		synctest.Wait()
		got := 0
		do(t, r, func(w *words, s *Step) {
			if !w.loaded {
				t.Error("Loaded was not called")
			}
			got = w.said["x"]
			w.say(s, "x", func(int, error) {})
		})
		if got != 20 {
			t.Errorf("x was said %d times", got)
		}
		if e := l.batches[len(l.batches)-1].LeaderEpoch(); e != 2 {
			t.Errorf("appended in epoch %d", e)
		}
		r.Close()
	})
}

// TestStopWhileLoading proves that a load ends when the node stops leading.
func TestStopWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &twin{}
		r := newRuntime(t)
		r.StartLeading(0, 1, l)
		do(t, r, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
		r.StopLeading(0)
		l.set(func() { l.unread = errors.New("bad disk") })
		r.StartLeading(0, 2, l)
		time.Sleep(time.Minute)
		if err := r.Do(0, nil); !errors.Is(err, ErrLoading) {
			t.Errorf("Do though the log cannot be read: %v", err)
		}
		r.Close() // returns: the loader has gone
	})
}

// TestLoadRetries proves that a log that could not be read is read again, from an
// empty machine.
func TestLoadRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &twin{}
		r := newRuntime(t)
		r.StartLeading(0, 1, l)
		do(t, r, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
		r.StopLeading(0)
		l.set(func() { l.unread = errors.New("bad disk") })
		r.StartLeading(0, 2, l)
		time.Sleep(firstRetry / 2)
		l.set(func() { l.unread = nil })
		time.Sleep(firstRetry)
		synctest.Wait()
		do(t, r, func(w *words, _ *Step) {
			if w.said["x"] != 1 {
				t.Errorf("x was said %d times", w.said["x"])
			}
		})
		r.Close()
	})
}

// TestUnknownRecords proves that records which the machine does not understand are
// skipped, that the others count, and that one line tells of all of them.
func TestUnknownRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &twin{}
		for range 100 {
			var bu record.Builder
			bu.Append(1, []byte("a"), []byte{1})
			bu.Append(1, nil, []byte{1})
			bu.Append(1, []byte("b"), []byte{1})
			b, err := bu.Build()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.AppendBatch(b, 0); err != nil {
				t.Fatal(err)
			}
		}
		l.Commit()
		var log bytes.Buffer
		r := newRuntime(t)
		r.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		r.StartLeading(0, 1, l)
		synctest.Wait()
		do(t, r, func(w *words, _ *Step) {
			if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, w.said); diff != "" {
				t.Error(diff)
			}
		})
		said := log.String()
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, "partition=0 records=100 first=1") {
			t.Errorf("it was logged:\n%s", said)
		}
		r.Close()
	})
}

// TestNewerRecordsAreNotLeftOut proves that a partition is not served if it has a record
// of a newer version that must not be skipped, and that the log says what to do.
func TestNewerRecordsAreNotLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &twin{}
		var bu record.Builder
		for _, word := range []string{"a", "newer", "b"} {
			bu.Append(1, []byte(word), []byte{1})
		}
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AppendBatch(b, 0); err != nil {
			t.Fatal(err)
		}
		l.Commit()
		var log bytes.Buffer
		r := newRuntime(t)
		r.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		r.StartLeading(0, 1, l)
		time.Sleep(time.Minute)
		if err := r.Do(0, nil); !errors.Is(err, ErrLoading) {
			t.Errorf("Do: %v", err)
		}
		r.Close()
		for _, want := range []string{"partition=0", "offset 1", "newer version of leat; start that version"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("it was logged without %q:\n%s", want, log.String())
			}
		}
	})
}

// TestNothingIsServedBeforeItIsCommitted proves that a new leader has loaded all records
// that a former one may have acknowledged before it answers, although its own replica
// knows only a lower high watermark.
func TestNothingIsServedBeforeItIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, h := &twin{}, &heard{}
		old := newRuntime(t)
		old.StartLeading(0, 1, l)
		for range 3 {
			do(t, old, func(w *words, s *Step) { w.say(s, "a", h.reply("write")) })
		}
		h.want(t, "write 1 <nil>", "write 2 <nil>", "write 3 <nil>")
		old.StopLeading(0)
		l.set(func() { l.hw, l.held = 1, true })
		r := newRuntime(t)
		r.StartLeading(0, 2, l)
		for hw := range record.Offset(3) {
			l.commit(hw)
			synctest.Wait()
			if err := r.Do(0, nil); !errors.Is(err, ErrLoading) {
				t.Errorf("Do with the high watermark at %d of 3: %v", hw, err)
			}
		}
		l.commit(3)
		synctest.Wait()
		do(t, r, func(w *words, s *Step) { w.read(s, "a", h.reply("read")) })
		h.want(t, "read 3 <nil>")
		old.Close()
		r.Close()
	})
}

// TestCommitThatFailsIsAwaitedAgain proves that a shard which could not wait for the
// high watermark, since its log had failed, says so and loads again; and that it says nothing if this
// node leads no longer.
func TestCommitThatFailsIsAwaitedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &twin{}, newRuntime(t)
		var log bytes.Buffer
		r.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		r.StartLeading(0, 1, l)
		do(t, r, func(w *words, s *Step) { w.say(s, "a", func(int, error) {}) })
		r.StopLeading(0)
		l.set(func() { l.hw, l.held = 0, true })
		r.StartLeading(0, 2, l)
		synctest.Wait()
		l.lose(errors.New("no leader"))
		r.StopLeading(0)
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("it was logged that another node leads: %s", log.String())
		}
		r.StartLeading(0, 3, l)
		synctest.Wait()
		l.lose(errors.New("bad disk"))
		time.Sleep(firstRetry + time.Millisecond)
		if synctest.Wait(); !strings.Contains(log.String(), "bad disk") {
			t.Errorf("it was not logged: %s", log.String())
		}
		if err := r.Do(0, nil); !errors.Is(err, ErrLoading) {
			t.Errorf("Do though nothing is committed: %v", err)
		}
		l.commit(1)
		synctest.Wait()
		do(t, r, func(w *words, _ *Step) {
			if w.said["a"] != 1 {
				t.Errorf("a was said %d times", w.said["a"])
			}
		})
		r.Close()
	})
}

// TestTooFewInSyncAfterTheLoad proves that a shard whose records are committed becomes active without
// another load, although its wait for that was refused since too few replicas are in sync by now.
func TestTooFewInSyncAfterTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, machines := &twin{}, 0
		r := newRuntime(t, func(*words) { machines++ })
		r.StartLeading(0, 1, l)
		do(t, r, func(w *words, s *Step) { w.say(s, "a", func(int, error) {}) })
		r.StopLeading(0)
		l.set(func() { l.hw, l.held = 0, true })
		r.StartLeading(0, 2, l)
		synctest.Wait()
		l.set(func() { l.hw = 1 })
		l.lose(errors.New("too few in sync"))
		synctest.Wait()
		do(t, r, func(w *words, _ *Step) {
			if w.said["a"] != 1 {
				t.Errorf("a was said %d times", w.said["a"])
			}
		})
		if machines != 2 {
			t.Errorf("%d machines were made", machines)
		}
		r.Close()
	})
}

// TestClaimsNeedTheLeader proves that an answer which says that there is no record needs the leader of
// the log as any other one does, and that an answer which claims nothing does not.
func TestClaimsNeedTheLeader(t *testing.T) {
	l, r, h := &twin{}, newRuntime(t), &heard{}
	r.StartLeading(0, 1, l)
	do(t, r, func(w *words, s *Step) { w.read(s, "a", h.reply("read")) })
	h.want(t, "read 0 <nil>")
	l.set(func() { l.gone = true })
	do(t, r, func(w *words, s *Step) { w.read(s, "a", h.reply("read")) })
	do(t, r, func(_ *words, s *Step) { s.Reply(func(err error) { h.reply("heartbeat")(0, err) }) })
	h.want(t, "read 0 "+ErrNotLeading.Error(), "heartbeat 0 <nil>")
}

// TestTransactionsAreNotLeftOut proves that a partition is not served if it has a batch of a
// transaction, which only a newer version writes, and that one of an idempotent producer is no obstacle.
func TestTransactionsAreNotLeftOut(t *testing.T) {
	for _, c := range []struct {
		transactional bool
		want          error
	}{{false, nil}, {true, ErrLoading}} {
		synctest.Test(t, func(t *testing.T) {
			l, r := &twin{}, newRuntime(t)
			bu := record.Builder{Transactional: c.transactional}
			bu.SetProducer(7, 0, 0)
			bu.Append(1, []byte("a"), []byte{1})
			b, err := bu.Build()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.AppendBatch(b, 0); err != nil {
				t.Fatal(err)
			}
			l.Commit()
			r.StartLeading(0, 1, l)
			time.Sleep(time.Minute)
			if err := r.Do(0, func(*words, *Step) {}); !errors.Is(err, c.want) {
				t.Errorf("transactional %v: %v", c.transactional, err)
			}
			r.Close()
		})
	}
}

// TestTimersWaitAfterAPause proves that after a time in which the process did not run, no deadline has
// come before its owner had the rest of its time.
func TestTimersWaitAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuntime(t)
		r.StartLeading(0, 1, &twin{})
		began := time.Now()
		var fired []string
		do(t, r, func(w *words, s *Step) {
			for _, in := range []time.Duration{-30 * time.Second, -29 * time.Second, 10 * time.Second} {
				w.timers.Set(&Timer{Fire: func(*Step) {
					fired = append(fired, fmt.Sprint(in, " at ", time.Since(began)))
				}}, s.Now.Add(in)) // as if it had been set before a pause
			}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{"-30s at 0s", "-29s at 1s", "10s at 40s"}, fired); diff != "" {
			t.Error(diff)
		}
		r.Close()
	})
}

// TestNewEpoch proves that a node which stays the leader goes on without a load in the
// next epoch, and that it loads if another leader may have been in between: after an
// epoch that it did not lead, or if the log has records of somebody else.
func TestNewEpoch(t *testing.T) {
	for _, c := range []struct {
		name    string
		epoch   record.Epoch
		foreign bool // somebody else appends in epoch 2
		loads   bool
	}{
		{"told again", 1, false, false},
		{"the next epoch", 2, false, false},
		{"an epoch was skipped", 3, false, true},
		{"an epoch was another's", 3, true, true},
		{"the next epoch, and another one has appended", 2, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, machines := &twin{}, 0
				r := newRuntime(t, func(*words) { machines++ })
				r.StartLeading(0, 1, l)
				do(t, r, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
				want := 1
				if c.foreign {
					other := newRuntime(t)
					other.StartLeading(0, 2, l)
					synctest.Wait()
					do(t, other, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
					other.Close()
					want = 2
				}
				r.StartLeading(0, c.epoch, l)
				synctest.Wait()
				do(t, r, func(w *words, s *Step) {
					if w.said["x"] != want {
						t.Errorf("x was said %d times, want %d", w.said["x"], want)
					}
					w.say(s, "x", func(int, error) {})
				})
				if e := l.batches[len(l.batches)-1].LeaderEpoch(); e != c.epoch {
					t.Errorf("appended in epoch %d", e)
				}
				if (machines == 2) != c.loads {
					t.Errorf("%d machines were made", machines)
				}
				r.Close()
			})
		})
	}
}

// TestLoadInOldEpochIsReplaced proves that a shard which is still loading when a new epoch
// begins loads again, since it does not know at which offset the new epoch began.
func TestLoadInOldEpochIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &twin{}, newRuntime(t)
		r.StartLeading(0, 1, l)
		do(t, r, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
		r.StopLeading(0)
		l.set(func() { l.held, l.hw = true, 0 })
		r.StartLeading(0, 2, l)
		synctest.Wait()
		r.StartLeading(0, 3, l)
		l.commit(1)
		synctest.Wait()
		do(t, r, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
		if e := l.batches[1].LeaderEpoch(); e != 3 {
			t.Errorf("appended in epoch %d", e)
		}
		r.Close()
	})
}

// TestReplyTimeout proves that a reply does not wait for the high watermark for ever.
func TestReplyTimeout(t *testing.T) {
	l, h := &twin{held: true}, &heard{}
	r := newRuntime(t)
	r.cfg.ReplyTimeout = func() time.Duration { return 5 * time.Second }
	r.StartLeading(0, 1, l)
	do(t, r, func(w *words, s *Step) { w.say(s, "x", h.reply("write")) })
	slow := errors.New("timed out")
	l.pass(4*time.Second, slow)
	h.want(t)
	l.pass(5*time.Second, slow)
	h.want(t, "write 1 timed out")
	do(t, r, func(w *words, s *Step) { w.say(s, "x", h.reply("again")) })
	l.commit(2)
	h.want(t, "again 2 <nil>")
}

// TestStartLeadingAfterClose proves that a StartLeading which comes after Close starts no
// shard, since nobody would stop it.
func TestStartLeadingAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &twin{}
		r := newRuntime(t)
		r.StartLeading(0, 1, l)
		do(t, r, func(w *words, s *Step) { w.say(s, "x", func(int, error) {}) })
		r.Close()
		r.StartLeading(0, 2, l)
		if p := r.Partitions(); len(p) != 0 {
			t.Errorf("partitions %v are led", p)
		}
		if err := r.Do(0, nil); !errors.Is(err, ErrNotLeading) {
			t.Errorf("Do: %v", err)
		}
	}) // which fails where a goroutine is left
}

// TestTimers proves that timers fire at their deadlines, as steps whose records are
// appended, also when a deadline was moved away or brought nearer meanwhile.
func TestTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &twin{}, newRuntime(t)
		r.StartLeading(0, 1, l)
		start := time.Now()
		var mu sync.Mutex
		var fired []string // guarded by mu: replies run without the shard's mutex
		timers := map[string]*Timer{}
		set := func(name string, in time.Duration) {
			do(t, r, func(w *words, s *Step) {
				if timers[name] == nil {
					timers[name] = &Timer{Fire: func(s *Step) {
						w.say(s, name, func(int, error) {
							mu.Lock()
							defer mu.Unlock()
							fired = append(fired, fmt.Sprint(name, " ", time.Since(start)))
						})
					}}
				}
				w.timers.Set(timers[name], s.Now.Add(in))
			})
		}
		set("a", 10*time.Second)
		set("b", 20*time.Second)
		set("c", 30*time.Second)
		time.Sleep(5 * time.Second)
		set("a", 10*time.Second) // moved away
		set("c", time.Second)    // brought nearer
		do(t, r, func(w *words, _ *Step) { w.timers.Stop(timers["b"]) })
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if diff := cmp.Diff([]string{"c 6s", "a 15s"}, fired); diff != "" {
			t.Error(diff)
		}
		mu.Unlock()
		set("d", time.Second)
		r.StopLeading(0)
		time.Sleep(time.Minute)
		mu.Lock()
		if len(fired) != 2 {
			t.Errorf("a timer fired after StopLeading: %v", fired)
		}
		mu.Unlock()
		r.Close()
	})
}

// TestManyTimers proves that timers which are due together all fire, and that one
// hold of the mutex does not have to do them all.
func TestManyTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuntime(t)
		r.StartLeading(0, 1, &twin{})
		n := 0
		do(t, r, func(w *words, s *Step) {
			for range 10 * maxTimersFired {
				w.timers.Set(&Timer{Fire: func(*Step) { n++ }}, s.Now.Add(time.Second))
			}
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n != 10*maxTimersFired {
			t.Errorf("%d timers fired", n)
		}
		r.Close()
	})
}

// TestTimerHeap proves, for any sequence of Set and Stop, that Due yields the timers
// that are set, by deadline.
func TestTimerHeap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ts Timers
		timers := make([]*Timer, 20)
		for i := range timers {
			timers[i] = &Timer{}
		}
		want := map[*Timer]time.Time{}
		for range rapid.IntRange(0, 200).Draw(t, "operations") {
			tm := timers[rapid.IntRange(0, len(timers)-1).Draw(t, "timer")]
			if rapid.IntRange(0, 3).Draw(t, "stop") == 0 {
				ts.Stop(tm)
				delete(want, tm)
				continue
			}
			at := time.Unix(rapid.Int64Range(0, 30).Draw(t, "at"), 0)
			ts.Set(tm, at)
			want[tm] = at
		}
		last := time.Time{}
		for len(want) > 0 {
			at, ok := ts.Next()
			if !ok || at.Before(last) || !at.Equal(slices.MinFunc(slices.Collect(maps.Values(want)), time.Time.Compare)) {
				t.Fatalf("next is %v, %v; last was %v", at, ok, last)
			}
			if ts.Due(at.Add(-1)) != nil {
				t.Fatal("a timer was due before its deadline")
			}
			tm := ts.Due(at)
			if tm == nil || tm.IsSet() || !want[tm].Equal(at) {
				t.Fatalf("due at %v is %+v", at, tm)
			}
			delete(want, tm)
			last = at
		}
		if _, ok := ts.Next(); ok {
			t.Fatal("a timer is left")
		}
	})
}

// TestReloadGivesTheSameState proves, for any sequence of steps with any outcome of their
// appends, that the log makes the state of the live machine when it is applied to an
// empty one.
func TestReloadGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l, r := &twin{}, newRuntime(t)
		r.StartLeading(0, 1, l)
		for range rapid.IntRange(0, 50).Draw(rt, "steps") {
			fail := rapid.IntRange(0, 4).Draw(rt, "fail") == 0
			l.set(func() {
				if l.fail = nil; fail {
					l.fail = errors.New("full")
				}
			})
			said := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 4).Draw(rt, "words")
			do(t, r, func(w *words, s *Step) {
				for _, word := range said {
					w.say(s, word, func(int, error) {})
				}
			})
		}
		state := func(r *Runtime[*words]) (said map[string]int) {
			do(t, r, func(w *words, _ *Step) { said = maps.Clone(w.said) })
			return said
		}
		live := state(r)
		again := newRuntime(t)
		again.StartLeading(0, 2, l)
		again.loaders.Wait()
		if diff := cmp.Diff(live, state(again)); diff != "" {
			rt.Fatal(diff)
		}
	})
}

// BenchmarkDo measures a step that appends one record and one that reads.
func BenchmarkDo(b *testing.B) {
	nop := func(int, error) {}
	bench := func(b *testing.B, op func(w *words, s *Step)) {
		b.Helper()
		r := newRuntime(b)
		r.StartLeading(0, 1, &nullLog{})
		b.ReportAllocs()
		for b.Loop() {
			if err := r.Do(0, op); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("write", func(b *testing.B) { bench(b, func(w *words, s *Step) { w.say(s, "word", nop) }) })
	b.Run("read", func(b *testing.B) { bench(b, func(w *words, s *Step) { w.read(s, "word", nop) }) })
}

// nullLog commits everything and keeps nothing.
type nullLog struct{ end record.Offset }

func (l *nullLog) AppendMarker(b record.Batch, e record.Epoch, _ int16) (record.Offset, error) {
	return l.AppendBatch(b, e)
}

func (l *nullLog) AppendBatch(b record.Batch, _ record.Epoch) (record.Offset, error) {
	l.end += record.Offset(b.Count())
	return l.end, nil
}
func (*nullLog) Commit()                                                                {}
func (*nullLog) Await(_ record.Epoch, _ record.Offset, _ time.Duration, fn func(error)) { fn(nil) }
func (*nullLog) ReadBatches(_, _ record.Offset, _ int) ([]byte, error)                  { return nil, nil }

func (l *nullLog) IsCommitted(_ record.Epoch, off record.Offset) bool { return off <= l.end }

func (l *nullLog) End() (record.Offset, error) { return l.end, nil }
func (*nullLog) Start() record.Offset          { return 0 }

// slowLog is a nullLog on which nothing is committed yet.
type slowLog struct {
	nullLog

	waits []func(error)
}

func (*slowLog) IsCommitted(_ record.Epoch, off record.Offset) bool { return off == 0 }
func (l *slowLog) Await(_ record.Epoch, _ record.Offset, _ time.Duration, fn func(error)) {
	l.waits = append(l.waits, fn)
}

// TestLargeRecordsAreNotKept proves that neither a step that waits for its commit nor its shard
// keeps the memory of large records.
func TestLargeRecordsAreNotKept(t *testing.T) {
	const shards, size, most = 8, MaxBatch / 2, 1 << 20
	r, h := newRuntime(t), &heard{}
	logs := make([]slowLog, shards)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range logs {
		r.StartLeading(int32(i), 1, &logs[i])
		err := r.Do(int32(i), func(_ *words, s *Step) {
			b := append(s.Buffer(), "word"...)
			s.PutBuffer(append(b, make([]byte, size)...), len(b))
			s.Reply(func(err error) { h.reply("large")(i, err) })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > most {
		t.Errorf("%d bytes are kept for %d steps that wait", n, shards)
	}
	h.want(t)
	for i := range logs {
		for _, fn := range logs[i].waits {
			fn(nil)
		}
	}
	h.want(t, "large 0 <nil>", "large 1 <nil>", "large 2 <nil>", "large 3 <nil>", "large 4 <nil>", "large 5 <nil>", "large 6 <nil>", "large 7 <nil>")
}

// TestTooManyRecordsAreNotKept proves that a step keeps no more than MaxBatch of records that it
// cannot append.
func TestTooManyRecordsAreNotKept(t *testing.T) {
	l, r := &twin{}, newRuntime(t)
	r.StartLeading(0, 1, l)
	var got error
	most := 0
	do(t, r, func(_ *words, s *Step) {
		for range 64 {
			b := append(s.Buffer(), "word"...)
			s.PutBuffer(append(b, make([]byte, MaxBatch/16)...), len(b))
			most = max(most, len(s.Buffer()))
		}
		s.Reply(func(err error) { got = err })
	})
	if !errors.Is(got, ErrTooLarge) || l.appends != 0 || most > MaxBatch {
		t.Errorf("%v, %d appends, %d bytes kept", got, l.appends, most)
	}
}
