package controller

import (
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// TestLiveness proves each arrow of the drawing: what a session's state is told by, who is to
// be fenced, and when another incarnation of the node is refused.
func TestLiveness(t *testing.T) {
	const timeout = 9 * time.Second
	m := imageOf(t, meta.Broker{ID: 1, Epoch: 5, State: meta.BrokerActive}, meta.Broker{ID: 2, Epoch: 6, State: meta.BrokerActive})
	heard := func(l *Liveness, now time.Duration) { l.Heard(now, 1, 5, 0) }
	closes := func(l *Liveness, _ time.Duration) { l.ConnectionClosed(1) }
	refuses := func(l *Liveness, _ time.Duration) { l.DialRefused(1) }
	fenced := func(l *Liveness, now time.Duration) { l.ToFence(now); l.Fenced(1, 5) }
	stopped := func(l *Liveness, _ time.Duration) { l.Stopped(1, 5) }
	waits := func(*Liveness, time.Duration) {}
	type event = func(*Liveness, time.Duration)
	for _, c := range []struct {
		why                 string
		events              []event // one second after another
		wait                time.Duration
		fence               bool
		alive, aliveInPlace bool
	}{
		{"not heard yet", nil, 0, false, true, false},
		{"a whole timeout at the start of a term", nil, timeout - 1, false, true, false},
		{"never heard", nil, timeout, true, false, false},
		{"heard", []event{heard}, timeout - 1, false, true, true},
		{"silent", []event{heard}, timeout, true, false, false},
		{"an earlier registration is heard", []event{heard, func(l *Liveness, now time.Duration) { l.Heard(now, 1, 4, 0) }}, timeout - 1, true, false, false},
		{"closed", []event{heard, closes}, 0, false, true, false},
		{"closed and refused", []event{heard, closes, refuses}, 0, true, false, false},
		{"refused, and the connection stays", []event{heard, refuses}, 0, false, true, true},
		{"refused before it was heard", []event{refuses}, 0, true, false, false},
		{"refused before it was heard, and heard", []event{refuses, heard}, 0, false, true, true},
		{"closed and heard again", []event{heard, closes, heard, refuses}, 0, false, true, true},
		{"gone and heard again", []event{heard, closes, refuses, heard}, 0, false, true, true},
		{"fenced", []event{heard, closes, refuses, fenced}, 0, false, false, false},
		{"fenced and active all the same", []event{heard, closes, refuses, fenced}, timeout, true, false, false},
		{"fenced only if it is gone", []event{heard, fenced}, 0, false, true, true},
		{"fenced and heard again", []event{heard, closes, refuses, fenced, heard}, 0, false, true, true},
		{"stopped", []event{heard, stopped}, 0, false, false, false},
		{"stopped and active all the same", []event{heard, stopped}, timeout, true, false, false},
		{"nothing happens", []event{heard, waits}, 0, false, true, true},
	} {
		l := NewLiveness(0, timeout, m, 0)
		var now time.Duration
		for _, e := range c.events {
			now += time.Second
			e(l, now)
		}
		now += c.wait
		l.Follow(now, m)
		var want []Registered
		if c.fence {
			want = []Registered{{1, 5}}
		}
		if got := l.IsAlive(now, 1, 5, false); got != c.alive {
			t.Errorf("%s: alive %v", c.why, got)
		}
		if got := l.IsAlive(now, 1, 5, true); got != c.aliveInPlace {
			t.Errorf("%s: alive %v, for one in its place", c.why, got)
		}
		l.Heard(now, 2, 6, 0)
		if got := l.ToFence(now); !slices.Equal(got, want) {
			t.Errorf("%s: to fence %v", c.why, got)
		}
	}
}

// TestCopyIsNotBelieved proves that a process with the data directory of a registered node takes its place at once at the same
// address; and that one at another address, which may have a copy of the directory, waits until the port of the
// registered one refuses, or until nothing was heard of that for the session's timeout.
func TestCopyIsNotBelieved(t *testing.T) {
	const timeout = 9 * time.Second
	at := func(host string, directory byte) meta.Broker {
		return meta.Broker{ID: 1, Epoch: 5, State: meta.BrokerActive, Directory: meta.UUID{directory}, Listeners: []meta.Listener{{Name: "a", Host: host, Port: 9092}}}
	}
	registered := at("one", 1)
	m := imageOf(t, meta.Broker{ID: 1, Epoch: 5, State: meta.BrokerActive}, meta.Broker{ID: 2, Epoch: 6, State: meta.BrokerActive})
	for _, c := range []struct {
		why   string
		b     meta.Broker
		now   time.Duration
		event func(l *Liveness)
		alive bool
	}{
		{"a restart", at("one", 1), 0, func(*Liveness) {}, false},
		{"another directory", at("one", 2), 0, func(*Liveness) {}, true},
		{"a copy beside its original", at("two", 1), timeout - 1, func(*Liveness) {}, true},
		{"a copy, and the original was heard once", at("two", 1), 0, func(l *Liveness) { l.Heard(0, 1, 5, 0); l.ConnectionClosed(1) }, true},
		{"the original's port refuses", at("two", 1), 0, func(l *Liveness) { l.DialRefused(1) }, false},
		{"the original's connection is closed, and its port refuses", at("two", 1), 0, func(l *Liveness) { l.Heard(0, 1, 5, 0); l.ConnectionClosed(1); l.DialRefused(1) }, false},
		{"the original has stopped", at("two", 1), 0, func(l *Liveness) { l.Stopped(1, 5) }, false},
		{"the original is silent", at("two", 1), timeout, func(*Liveness) {}, false},
	} {
		l := NewLiveness(0, timeout, m, 0)
		c.event(l)
		if got := l.IsAlive(c.now, 1, 5, IsInPlace(&registered, &c.b)); got != c.alive {
			t.Errorf("%s: alive %v", c.why, got)
		}
	}
}

// TestOnlyNodeIsHeard proves that a node which is the only one need not be heard, and has a whole
// session timeout from the moment at which another one is registered.
func TestOnlyNodeIsHeard(t *testing.T) {
	const timeout = 9 * time.Second
	one := meta.Broker{ID: 1, Epoch: 5, State: meta.BrokerActive}
	l := NewLiveness(0, timeout, imageOf(t, one), 0)
	l.Follow(time.Hour, imageOf(t, one))
	if list := l.ToFence(time.Hour); list != nil {
		t.Errorf("alone: to fence %v", list)
	}
	two := imageOf(t, one, meta.Broker{ID: 2, Epoch: 6})
	l.Follow(time.Hour, two)
	for i, now := range []time.Duration{time.Hour + timeout - 1, time.Hour + timeout} {
		l.Follow(now, two)
		l.Heard(now, 2, 6, 0)
		if list := l.ToFence(now); len(list) != i {
			t.Errorf("%v after the second one came: to fence %v", now-time.Hour, list)
		}
	}
}

func imageOf(t *testing.T, brokers ...meta.Broker) *meta.Image {
	t.Helper()
	var b []byte
	for _, r := range brokers {
		b = meta.Append(b, meta.BrokerRegistered{Broker: r})
	}
	m, _, err := meta.Apply(meta.Empty(), b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSessionsFollowRegistrations proves that a registration begins a session of its own, and
// that the session of a node that was removed ends.
func TestSessionsFollowRegistrations(t *testing.T) {
	l := NewLiveness(0, time.Second, imageOf(t, meta.Broker{ID: 1, Epoch: 1}, meta.Broker{ID: 2, Epoch: 2}), 0)
	l.Heard(0, 1, 1, 7)
	l.Follow(time.Hour, imageOf(t, meta.Broker{ID: 1, Epoch: 3}))
	if l.session(1, 1) != nil || l.session(2, 2) != nil || l.session(1, 3) == nil {
		t.Errorf("%v", l.sessions)
	}
	if list := l.ToFence(time.Hour); list != nil {
		t.Errorf("%v", list)
	}
	l.Follow(time.Hour, imageOf(t, meta.Broker{ID: 2, Epoch: 2})) // an image from before
	if l.session(1, 3) == nil {
		t.Error("an earlier image ends a session")
	}
}

// TestMayStop proves that a node which is shutting down may end when all active nodes have
// applied that it leads nothing, those that are gone aside.
func TestMayStop(t *testing.T) {
	m := imageOf(t, meta.Broker{ID: 1, Epoch: 1, State: meta.BrokerLeaving}, meta.Broker{ID: 2, Epoch: 2, State: meta.BrokerActive},
		meta.Broker{ID: 3, Epoch: 3, State: meta.BrokerActive}, meta.Broker{ID: 4, Epoch: 4})
	l := NewLiveness(0, time.Second, m, 0)
	l.Heard(0, 2, 2, 10)
	l.Heard(0, 3, 3, 8)
	if l.MayStop(1, 1, m) {
		t.Error("it still leads")
	}
	l.Moved(1, 1, 9)
	l.Moved(1, 1, 99) // only the first time counts
	if l.MayStop(1, 1, m) {
		t.Error("node 3 has not heard of it")
	}
	l.Heard(0, 3, 3, 9)
	if !l.MayStop(1, 1, m) {
		t.Error("all have heard of it")
	}
	l.Heard(0, 3, 3, 8) // an older message
	if !l.MayStop(1, 1, m) {
		t.Error("what was applied stays applied")
	}
	l = NewLiveness(0, time.Second, m, 0)
	l.Heard(0, 2, 2, 10)
	l.Heard(0, 3, 3, 8)
	l.Moved(1, 1, 9)
	l.ConnectionClosed(3)
	l.DialRefused(3)
	if !l.MayStop(1, 1, m) {
		t.Error("node 3 is gone")
	}
	if l.MayStop(1, 7, m) {
		t.Error("a registration that is not there")
	}
}
