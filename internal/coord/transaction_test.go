package coord

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// diary is a machine that writes down what it was told of transactions.
type diary struct{ lines []string }

func (d *diary) Apply(s *Step, r Record) error {
	by, ok := s.Producer()
	d.lines = append(d.lines, fmt.Sprintf("%d %s %v %v", s.Next(), r.Key, ok, by))
	return nil
}

func (d *diary) EndTransaction(s *Step, m Marker) {
	d.lines = append(d.lines, fmt.Sprintf("%d %v commit %v by %d", s.Next(), m.Producer, m.Commit, m.CoordinatorEpoch))
}

func (*diary) Loaded(*Step) {}
func (*diary) Unload(*Step) {}

func newDiary(t *testing.T, log *twin, epoch record.Epoch) *Runtime[*diary] {
	t.Helper()
	rt := New(Config[*diary]{Logger: slog.New(slog.DiscardHandler), New: func(int32, *Timers) *diary { return new(diary) }})
	rt.StartLeading(0, epoch, log)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := rt.Do(0, func(*diary, *Step) {})
		if err == nil {
			return rt
		}
		if !errors.Is(err, ErrLoading) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestTransactions proves that records of a producer's transaction and the markers that end it reach the machine in their
// order, with their producers, and at a load as when they were appended.
func TestTransactions(t *testing.T) {
	log := &twin{}
	rt := newDiary(t, log, 3)
	replies := 0
	reply := func(err error) {
		if err != nil {
			t.Error(err)
		}
		replies++
	}
	a, b := Producer{ID: 5, Epoch: 2}, Producer{ID: 6}
	put := func(by *Producer, keys ...string) {
		err := rt.Do(0, func(_ *diary, s *Step) {
			if by != nil {
				s.SetProducer(*by)
			}
			for _, k := range keys {
				s.Put([]byte(k), nil)
			}
			s.Reply(reply)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	end := func(m Marker) {
		if err := rt.Do(0, func(_ *diary, s *Step) { s.PutMarker(m); s.Reply(reply) }); err != nil {
			t.Fatal(err)
		}
	}
	put(&a, "x", "y")
	put(nil, "plain")
	put(&b, "z")
	end(Marker{Producer: a, Marker: record.Marker{Commit: true, CoordinatorEpoch: 9}})
	end(Marker{Producer: b})
	put(nil, "last")
	want := []string{
		"1 x true {5 2}", "2 y true {5 2}", "3 plain false {0 0}", "4 z true {6 0}",
		"5 {5 2} commit true by 9", "6 {6 0} commit false by 0", "7 last false {0 0}",
	}
	lines := func(rt *Runtime[*diary]) (got []string) {
		if err := rt.Do(0, func(d *diary, _ *Step) { got = slices.Clone(d.lines) }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := lines(rt); !slices.Equal(got, want) || replies != 6 {
		t.Errorf("%d replies, %q", replies, got)
	}
	rt.Close()
	again := newDiary(t, log, 4)
	defer again.Close()
	if got := lines(again); !slices.Equal(got, want) {
		t.Errorf("after a load: %q", got)
	}
}

// TestMarkerThatIsNotAppended proves that a marker which the log refuses changes nothing, and is told of.
func TestMarkerThatIsNotAppended(t *testing.T) {
	log := &twin{}
	rt := newDiary(t, log, 3)
	defer rt.Close()
	log.mu.Lock()
	log.fail = errors.New("the disk is full")
	log.mu.Unlock()
	var told error
	if err := rt.Do(0, func(_ *diary, s *Step) { s.PutMarker(Marker{}); s.Reply(func(err error) { told = err }) }); err != nil {
		t.Fatal(err)
	}
	log.mu.Lock()
	log.fail = nil
	log.mu.Unlock()
	if err := rt.Do(0, func(d *diary, s *Step) {
		if s.Put([]byte("k"), nil); told == nil || len(d.lines) > 0 {
			t.Errorf("told %v, and the machine %q", told, d.lines)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := rt.Do(0, func(d *diary, _ *Step) {
		if !slices.Equal(d.lines, []string{"1 k false {0 0}"}) {
			t.Errorf("%q", d.lines)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
