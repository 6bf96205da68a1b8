package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// memSink is a log in memory that can fail and hang.
type memSink struct {
	mu    sync.Mutex
	lines [][]byte
	err   error
	again bool          // it stores lines, and then fails with err
	hang  chan struct{} // nil: it does not
}

func (m *memSink) Append(_ context.Context, lines [][]byte) error {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil || m.again {
		for _, l := range lines {
			m.lines = append(m.lines, bytes.Clone(l))
		}
	}
	return m.err
}

func (*memSink) Close() error { return nil }

func (m *memSink) set(change func(m *memSink)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *memSink) all() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([][]byte(nil), m.lines...)
}

// rig is a node's audit log over several starts.
type rig struct {
	sink   memSink
	note   []byte
	noteMu sync.Mutex
	starts int
	log    bytes.Buffer
}

func (g *rig) config(change func(c *TrailConfig)) TrailConfig {
	g.starts++
	c := TrailConfig{
		Name: "test", Sink: &g.sink, Cluster: "c", Node: 1, Start: fmt.Sprintf("start%d", g.starts), Logger: slog.New(slog.NewTextHandler(&g.log, nil)),
		Load: func() ([]byte, error) {
			g.noteMu.Lock()
			defer g.noteMu.Unlock()
			return bytes.Clone(g.note), nil
		},
		Save: func(b []byte) error {
			g.noteMu.Lock()
			defer g.noteMu.Unlock()
			g.note = bytes.Clone(b)
			return nil
		},
	}
	if change != nil {
		change(&c)
	}
	return c
}

var allKinds = []Kind{Logins, Denials, Changes, Reads, Writes}

func (g *rig) start(t *testing.T, change func(c *TrailConfig)) (*Recorder, *Trail) {
	t.Helper()
	trail := NewTrail(g.config(change))
	return NewRecorder(t.Context(), Config{Kinds: allKinds}, trail), trail
}

func created(name string) Event {
	return Event{Type: TopicCreated, Who: Who{Principal: "User:alice", Address: "10.0.0.1:1234"}, ResourceType: "topic", Resource: name, Result: Allowed}
}

func denied(user, topic string) Event {
	return Event{Type: Denied, Who: Who{Principal: "User:" + user, Address: "10.0.0.1:1234"}, Operation: "READ", ResourceType: "topic", Resource: topic, Result: Refused}
}

// end closes a recorder in virtual time.
func end(t *testing.T, r *Recorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r.Close(ctx)
}

// verify checks lines, and returns the report of node 1 and all faults.
func verify(t *testing.T, lines [][]byte, anchors ...Place) (Report, []string) {
	t.Helper()
	v := NewVerifier(anchors...)
	for i, l := range lines {
		if err := v.Add(l, fmt.Sprint("line ", i)); err != nil {
			t.Fatal(err)
		}
	}
	var faults []string
	var of Report
	for _, r := range v.Reports() {
		for _, f := range r.Faults {
			faults = append(faults, f.At+": "+f.Text)
		}
		if r.Source != "" {
			of = r
		}
	}
	return of, faults
}

func typesOf(t *testing.T, lines [][]byte) (types []Type) {
	t.Helper()
	for _, b := range lines {
		l, err := ParseLine(b)
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, l.Type)
	}
	return types
}

// TestEventsAreCloudEvents proves that an event has the attributes that CloudEvents 1.0 demands, and says who did what.
func TestEventsAreCloudEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r, _ := g.start(t, nil)
		r.Record(Event{
			Type: TopicDeleted, Who: Who{"User:alice", "10.0.0.1:99", "OUT", "tool"}, API: "DeleteTopics", ResourceType: "topic", Resource: "orders",
			Result: Failed, Code: 3, Error: "UNKNOWN_TOPIC_OR_PARTITION", Details: []Detail{{"id", "x"}},
		})
		end(t, r)
		var m map[string]any
		if err := json.Unmarshal(g.sink.all()[1], &m); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{
			"specversion": "1.0", "id": "1.start1.2", "source": "/clusters/c/nodes/1", "type": "leat.topic.deleted", "subject": "topic/orders",
			"datacontenttype": "application/json", "sequence": "2", "start": "start1",
		} {
			if m[key] != want {
				t.Errorf("%s is %v, want %s", key, m[key], want)
			}
		}
		data, _ := m["data"].(map[string]any)
		for key, want := range map[string]any{
			"principal": "User:alice", "address": "10.0.0.1:99", "listener": "OUT", "clientId": "tool", "api": "DeleteTopics", "resource": "orders",
			"result": "failed", "errorCode": 3.0, "error": "UNKNOWN_TOPIC_OR_PARTITION", "node": 1.0,
		} {
			if data[key] != want {
				t.Errorf("data.%s is %v, want %v", key, data[key], want)
			}
		}
		if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(m["time"])); err != nil {
			t.Error(err)
		}
	})
}

// TestRestarts proves that the chain goes on over restarts: clean ones, those of a killed node at each moment between the note and the
// append, and those of nodes that were killed again before they could note anything.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		for i := range 3 {
			r, _ := g.start(t, nil)
			r.Record(created(fmt.Sprint("clean", i)))
			end(t, r)
		}
		errKilled := errors.New("killed")
		kill := func(change func(c *TrailConfig), fail func(m *memSink)) {
			r, trail := g.start(t, change)
			r.Record(created("before"))
			synctest.Wait()
			time.Sleep(time.Second)
			g.sink.set(fail)
			r.Record(created("killed"))
			time.Sleep(time.Second)
			synctest.Wait()
			trail.cfg.Save = func([]byte) error { return errKilled } // nothing is written any more
			trail.cancel()
			<-trail.ended
			close(r.stop)
			r.done.Wait()
			g.sink.set(func(m *memSink) { m.err, m.again = nil, false })
		}
		kill(nil, func(m *memSink) { m.err = errKilled })                // noted, not appended
		kill(nil, func(m *memSink) { m.err, m.again = errKilled, true }) // appended, perhaps several times, and no answer
		kill(nil, func(*memSink) {})                                     // appended, and the next note is missing
		for range 2 {                                                    // the Started line is appended, and never noted
			kill(func(c *TrailConfig) { c.Save = func([]byte) error { return errKilled } }, func(*memSink) {})
		}
		r, _ := g.start(t, nil)
		r.Record(created("after"))
		end(t, r)
		report, faults := verify(t, g.sink.all())
		if len(faults) > 0 {
			t.Errorf("faults of a log that nobody has changed: %q", faults)
		}
		if report.Starts != 9 || report.CutAt != 0 || report.Repeated == 0 {
			t.Errorf("%+v, want 9 starts, all of them, and a repeated line", report)
		}
	})
}

// makeLog is a log of three starts with several events each.
func makeLog(t *testing.T) [][]byte {
	t.Helper()
	g := &rig{}
	for i := range 3 {
		r, _ := g.start(t, nil)
		for j := range 5 {
			r.Record(created(fmt.Sprintf("topic-%d-%d", i, j)))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		end(t, r)
	}
	return g.sink.all()
}

// TestTampering proves that each kind of change of a log is found, with a sentence that says where, and that a log whose beginning was cut is fine.
func TestTampering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := makeLog(t)
		if _, faults := verify(t, log); len(faults) > 0 {
			t.Fatalf("faults of a log that nobody has changed: %q", faults)
		}
		each := len(log) / 3 // Started, 5 events, an anchor
		chain := NewChain("c", 1, "start2")
		forged := chain.Append(&Event{Type: TopicCreated, Time: time.Now()})
		cut := func(from, to int) func([][]byte) [][]byte {
			return func(l [][]byte) [][]byte { return append(append([][]byte{}, l[:from]...), l[to:]...) }
		}
		change := func(at int, from, to string) func([][]byte) [][]byte {
			return func(l [][]byte) [][]byte {
				l[at] = bytes.Replace(l[at], []byte(from), []byte(to), 1)
				return l
			}
		}
		for name, c := range map[string]struct {
			tamper func([][]byte) [][]byte
			want   string
		}{
			"event changed":  {change(3, "User:alice", "User:mallo"), "was changed"},
			"event removed":  {cut(3, 4), "event 4 is missing"},
			"events removed": {cut(2, 5), "events 3 to 5 are missing"},
			"order changed":  {func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, "missing before this one"},
			"event added": {func(l [][]byte) [][]byte {
				return append(append(append([][]byte{}, l[:each+3]...), forged), l[each+3:]...)
			}, "order"},
			"end of a start removed":  {cut(each-2, each), "of the start before are missing"},
			"end of a start changed":  {change(each-1, `"events":`, `"events":1`), "the last one of the start before, was changed"},
			"whole start removed":     {cut(each, 2*each), "all events of at least one start"},
			"beginning of start gone": {cut(each, each+1), "event 1 of this start of the node is missing"},
			"two of a start gone":     {cut(each, each+2), "events 1 to 2 of this start"},
			"start forgets":           {change(each, `"previous":{`, `"nothing":{`), "does not name the events before"},
			"start lies":              {change(each, `"written":{"sequence":`, `"written":{"sequence":1`), ""},
			"not JSON":                {func(l [][]byte) [][]byte { l[4] = []byte("hello"); return l }, "not an event"},
			"starts in another order": {func(l [][]byte) [][]byte {
				return append(append(append([][]byte{}, l[:each]...), l[2*each:]...), l[each:2*each]...)
			}, "at least one start"},
		} {
			copied := make([][]byte, len(log))
			for i := range log {
				copied[i] = bytes.Clone(log[i])
			}
			_, faults := verify(t, c.tamper(copied))
			if len(faults) == 0 {
				t.Errorf("%s: nothing was found", name)
			} else if !strings.Contains(strings.Join(faults, "\n"), c.want) {
				t.Errorf("%s: %q, want %q", name, faults, c.want)
			}
		}
		for at := range log { // retention deletes a beginning
			report, faults := verify(t, log[at:])
			if len(faults) > 0 || at > 0 && report.CutAt == 0 {
				t.Errorf("without the first %d lines: %q, %+v", at, faults, report)
			}
		}
	})
}

// TestAnchors proves that the newest lines, which nothing in the log vouches for, are checked by the anchor in the node's log.
func TestAnchors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r, _ := g.start(t, nil)
		r.Record(created("a"))
		r.Record(created("b"))
		end(t, r)
		log := g.sink.all()
		report, _ := verify(t, log)
		if !strings.Contains(g.log.String(), "the audit log has an anchor") || !strings.Contains(g.log.String(), report.Head.Hash) {
			t.Fatalf("the node's log has no anchor: %s", &g.log)
		}
		if _, faults := verify(t, log, report.Head); len(faults) > 0 {
			t.Errorf("%q", faults)
		}
		if _, faults := verify(t, log[:len(log)-2]); len(faults) > 0 {
			t.Errorf("the newest events are missing, which only the anchor shows: %q", faults)
		}
		if _, faults := verify(t, log[:len(log)-2], report.Head); len(faults) != 1 || !strings.Contains(faults[0], "which the anchor names, is not in the log") {
			t.Errorf("%q, want that the anchor is missing", faults)
		}
	})
}

// TestFloods proves that events that are the same are summed up, and that the memory for that is bounded whatever comes.
func TestFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r, _ := g.start(t, nil)
		const many = 50_000
		for range many {
			r.Record(denied("alice", "secret"))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		var count int64
		events := 0
		for _, b := range g.sink.all()[1:] {
			l, err := ParseLine(b)
			if err != nil {
				t.Fatal(err)
			}
			if l.Type == Denied {
				events++
				count += max(l.Data.Count, 1)
			}
		}
		if events != 2 || count != many {
			t.Errorf("%d events with a sum of %d, want 2 with %d", events, count, many)
		}
		for i := range many {
			r.Record(denied("alice", fmt.Sprint("topic", i)))
			r.Record(Event{Type: LoginFailed, Who: Who{Address: fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)}, Result: Refused})
		}
		if n, most := len(r.repeats.of), mostRepeats[denials]+mostRepeats[failedLogins]; n > most+8 {
			t.Errorf("%d different events are kept, above %d", n, most)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := len(r.repeats.of) + len(r.repeats.owned) + r.repeats.apart; n != 0 || r.repeats.kept != [classes]int{} {
			t.Errorf("%d different events are kept for ever, %v", n, r.repeats.kept)
		}
		end(t, r)
		total := int64(0)
		for _, b := range g.sink.all() {
			l, _ := ParseLine(b)
			if l.Type == Denied && l.Data.Resource != "secret" || l.Type == LoginFailed || l.Type == Lost {
				total += max(l.Data.Count, 1)
			}
		}
		if total != 2*many {
			t.Errorf("%d of %d are in the log, summed up, or counted as lost", total, 2*many)
		}
		if _, faults := verify(t, g.sink.all()); len(faults) > 0 {
			t.Errorf("%q", faults)
		}
	})
}

// TestFloodsHideNothing proves that somebody who fails to log in under many names hides neither his login that succeeds then, nor what others do; and
// that a user who tries what is denied hides neither what others try nor his own logins.
func TestFloodsHideNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r, _ := g.start(t, nil)
		const many = 20_000
		failed := func(address, name string) {
			r.Record(Event{Type: LoginFailed, Who: Who{Address: address + ":1"}, ResourceType: "user", Resource: name, Result: Refused})
		}
		for i := range many {
			failed(fmt.Sprintf("[2001:db8::%x]", i%7), fmt.Sprint("name", i))
			r.Record(denied("mallory", fmt.Sprint("topic", i)))
		}
		failed("192.0.2.1", "root")
		r.Record(Event{Type: LoginSucceeded, Who: Who{Principal: "User:admin", Address: "[2001:db8::1]:1"}, Result: Allowed})
		r.Record(denied("bob", "secret"))
		r.Record(Event{Type: LoginSucceeded, Who: Who{Principal: "User:mallory", Address: "10.0.0.1:1"}, Result: Allowed})
		r.Record(Event{Type: ACLCreated, Who: Who{Principal: "User:mallory", Address: "10.0.0.1:1"}, Result: Failed, Resource: "payroll"})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		found := map[string]int{}
		sums := map[string]int64{}
		for _, b := range g.sink.all() {
			l, err := ParseLine(b)
			if err != nil {
				t.Fatal(err)
			}
			found[fmt.Sprint(l.Type, " ", l.Data.Principal, " ", l.Data.Resource)]++
			if l.Data.Resource == "" && l.Data.Count > 0 {
				host, _, _ := strings.Cut(l.Data.Address, "::")
				sums[fmt.Sprint(l.Type, " ", l.Data.Principal, " ", host)] += l.Data.Count
			}
		}
		for _, want := range []string{
			"leat.login.failed  root", "leat.login.succeeded User:admin ", "leat.access.denied User:bob secret",
			"leat.login.succeeded User:mallory ", "leat.acl.created User:mallory payroll",
		} {
			if found[want] != 1 {
				t.Errorf("%q is there %d times", want, found[want])
			}
		}
		for of, want := range map[string]int64{
			"leat.login.failed  [2001:db8": many - mostOfOwner, "leat.access.denied User:mallory 10.0.0.1:1234": many - mostOfOwner,
		} {
			if sums[of] != want {
				t.Errorf("%d were counted together by %q, want %d: %v", sums[of], of, want, sums)
			}
		}
		end(t, r)
	})
}

// TestFailedLoginsDoNotFillTheDisk proves that a network whose clients fail to log in for hours, under names that change or that stay the same, has no more
// events in the log than it may, that all are counted, and that it gets its events back when it was quiet for some hours.
func TestFailedLoginsDoNotFillTheDisk(t *testing.T) {
	for name, names := range map[string]int{"names that change": 1 << 30, "names that stay": 200} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &rig{}
				r, _ := g.start(t, nil)
				n := 0
				fail := func(times int) {
					for range times {
						r.Record(Event{Type: LoginFailed, Who: Who{Address: "[2001:db8::1]:1"}, ResourceType: "user", Resource: fmt.Sprint("name", n%names), Result: Refused})
						n++
					}
				}
				const hours, aMinute = 6, 400
				for range hours * 60 {
					fail(aMinute)
					time.Sleep(time.Minute)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				count := func() (events int, failures int64) {
					for _, b := range g.sink.all() {
						if l, _ := ParseLine(b); l.Type == LoginFailed {
							events++
							failures += max(l.Data.Count, 1)
						}
					}
					return events, failures
				}
				// One sum a minute of those that are counted together comes on top.
				if events, failures := count(); events > mostOfOwner+hours*(mostFailedAnHour+60)+60 || failures != int64(n) {
					t.Errorf("%d events, which stand for %d failed logins of %d", events, failures, n)
				}
				time.Sleep(3 * time.Hour)
				if len(r.repeats.known) != 0 || len(r.repeats.of) != 0 || r.repeats.apart != 0 {
					t.Errorf("%d allowances and %d events are kept for ever", len(r.repeats.known), len(r.repeats.of))
				}
				before, _ := count()
				names, n = 1<<30, 1<<20
				fail(mostOfOwner)
				time.Sleep(time.Second)
				synctest.Wait()
				if events, _ := count(); events != before+mostOfOwner {
					t.Errorf("after some quiet hours %d events are told apart", events-before)
				}
				end(t, r)
			})
		})
	}
}

// TestQueueIsFull proves that a sink that hangs, or fails, delays nobody and keeps no more memory than the queue has; that what was lost is counted by
// type; that changes have room of their own; and that all goes on when the sink does.
func TestQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		hang := make(chan struct{})
		g.sink.set(func(m *memSink) { m.hang = hang })
		r, trail := g.start(t, func(c *TrailConfig) { c.QueueEvents = 100 })
		for i := range 1000 {
			r.Record(denied("alice", fmt.Sprint("topic", i)))
		}
		if s := trail.stats(); s.Queued != 75 || s.Lost != mostOfOwner-75 {
			t.Errorf("%+v, want 75 in the queue and the others of the first %d lost", s, mostOfOwner)
		}
		for i := range 50 {
			r.Record(created(fmt.Sprint("topic", i)))
		}
		if s := trail.stats(); s.Queued != 100 || s.Lost != mostOfOwner-50 {
			t.Errorf("%+v, want 100 in the queue and 25 more lost", s)
		}
		g.sink.set(func(m *memSink) { m.hang, m.err = nil, errors.New("no space") })
		close(hang)
		time.Sleep(time.Minute)
		if s := trail.stats(); !s.Failing {
			t.Error("the trail does not say that it fails")
		}
		if n := strings.Count(g.log.String(), "cannot be written"); n != 1 {
			t.Errorf("the log says %d times that the audit log cannot be written", n)
		}
		g.sink.set(func(m *memSink) { m.err = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		var lost *Line
		for _, b := range g.sink.all() {
			if l, _ := ParseLine(b); l.Type == Lost {
				lost = l
			}
		}
		if lost == nil || lost.Data.Count != 950 || lost.Data.Details[string(Denied)] != "925" || lost.Data.Details[string(TopicCreated)] != "25" {
			t.Errorf("%+v, want 925 denials and 25 topics", lost)
		}
		end(t, r)
		if s := trail.stats(); s.Failing || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
		if report, faults := verify(t, g.sink.all()); len(faults) > 0 || report.Lost != 950 {
			t.Errorf("%q, %+v", faults, report)
		}
	})
}

// TestCloseDoesNotHang proves that a sink that never answers does not keep a node from its stop, and that the next start tells what was lost.
func TestCloseDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r, _ := g.start(t, nil)
		time.Sleep(time.Second)
		g.sink.set(func(m *memSink) { m.err = errors.New("away") })
		r.Record(created("a"))
		r.Record(created("b"))
		began := time.Now()
		end(t, r)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the end took %v", took)
		}
		g.sink.set(func(m *memSink) { m.err = nil })
		r, _ = g.start(t, nil)
		end(t, r)
		lines := g.sink.all()
		last, err := ParseLine(lines[len(lines)-1])
		if err != nil || last.Type != Started || last.Data.Details["lostWhenStopped"] != "2" {
			t.Errorf("%s, want that two events were lost", lines[len(lines)-1])
		}
		if _, faults := verify(t, lines); len(faults) > 0 {
			t.Errorf("%q", faults)
		}

		hang := make(chan struct{})
		g.sink.set(func(m *memSink) { m.hang = hang })
		r, trail := g.start(t, nil)
		began = time.Now()
		end(t, r)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the end took %v", took)
		}
		close(hang)
		<-trail.ended
	})
}

// TestHostileTexts proves that whatever a client puts into names makes one line of valid JSON and of bounded length, and that long names
// stay different.
func TestHostileTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r, _ := g.start(t, nil)
		long := strings.Repeat("ä\x00\n\"<", 6000)
		hostile := []string{
			"a\nb", "a\r\x00\x1b[31m", "\xff\xfe", "a\u2028b\u202e", `","principal":"User:root`, long, long + "x", strings.Repeat("\xff", 32<<10), "",
		}
		for _, s := range hostile {
			e := Event{
				Type: GroupDeleted, Who: Who{s, s, s, s}, API: s, Operation: s, ResourceType: "group", Resource: s, Result: Allowed, Error: s, Reason: s,
			}
			for range 1000 {
				e.Details = append(e.Details, Detail{s, s})
			}
			r.Record(e)
		}
		end(t, r)
		lines := g.sink.all()
		seen := map[string]bool{}
		for _, b := range lines {
			l, err := ParseLine(b)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.ContainsAny(b, "\n\r\x00\x1b") || !utf8.Valid(b) || len(b) > MostLine/2 {
				t.Errorf("a line of %d bytes, with raw control characters or without valid UTF-8", len(b))
			}
			if l.Type == GroupDeleted {
				if seen[l.Data.Resource] {
					t.Errorf("%q is not told from another one", l.Data.Resource)
				}
				seen[l.Data.Resource] = true
				if l.Data.Principal == "User:root" {
					t.Error("a name has become a principal")
				}
			}
		}
		if len(seen) != len(hostile) {
			t.Errorf("%d of %d events", len(seen), len(hostile))
		}
		if _, faults := verify(t, lines); len(faults) > 0 {
			t.Errorf("%q", faults)
		}
	})
}

// TestExcluded proves that only changes of an excluded principal are recorded, and only the kinds that are wanted of others.
func TestExcluded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &rig{}
		r := NewRecorder(t.Context(), Config{Kinds: []Kind{Denials, Changes}, Excluded: []string{"User:probe"}}, NewTrail(g.config(nil)))
		r.Record(denied("probe", "x"))
		r.Record(denied("alice", "x"))
		e := created("y")
		e.Principal = "User:probe"
		r.Record(e)
		r.Record(Event{Type: LoginSucceeded, Result: Allowed})
		end(t, r)
		if got, want := fmt.Sprint(typesOf(t, g.sink.all())), fmt.Sprint([]Type{Started, Denied, TopicCreated, Anchor}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		var none *Recorder
		none.Record(created("z"))
		none.Close(t.Context())
		if none.Records(Changes) || none.Stats() != nil {
			t.Error("a nil Recorder records")
		}
	})
}

// FuzzVerifier proves that no log makes the verifier panic, or keep more than it may, and that a line that it takes is one that an encoder makes again.
func FuzzVerifier(f *testing.F) {
	c := NewChain("c", 1, "s1")
	a := c.Begin(time.Unix(1, 0), nil, "")
	b := c.Append(&Event{Type: TopicCreated, Time: time.Unix(2, 0), ResourceType: "topic", Resource: "x"})
	p := Head{Previous: Previous{Start: "s1", Confirmed: c.Place(), Written: c.Place()}, Left: 1}
	next := NewChain("c", 1, "s2").Begin(time.Unix(3, 0), &p, "")
	f.Add(bytes.Join([][]byte{a, b, next}, []byte("\n")))
	f.Add(bytes.Join([][]byte{b, a, a, []byte("{}"), []byte(`{"sequence":"18446744073709551615"}`)}, []byte("\n")))
	f.Fuzz(func(t *testing.T, log []byte) {
		v := NewVerifier()
		n := int64(0)
		for line := range bytes.SplitSeq(log, []byte("\n")) {
			if l, err := ParseLine(line); err == nil {
				if again, err := ParseLine(l.encode()); err != nil || again.ID != l.ID || again.Sequence != l.Sequence {
					t.Fatalf("%+v is read as %+v, %v", l, again, err)
				}
			}
			if err := v.Add(line, "x"); err != nil {
				return
			}
			n++
		}
		seen := int64(0)
		for _, r := range v.Reports() {
			seen += r.Events + r.Repeated
			if r.Source == "" {
				seen += r.FaultCount
			}
			if len(r.Faults) > mostFaults {
				t.Fatalf("%d faults", len(r.Faults))
			}
		}
		if seen != n {
			t.Fatalf("%d lines of %d were counted", seen, n)
		}
	})
}

// BenchmarkDenied is what a denial costs that is one of many.
func BenchmarkDenied(b *testing.B) {
	g := &rig{}
	r := NewRecorder(b.Context(), Config{Kinds: allKinds}, NewTrail(g.config(nil)))
	defer r.Close(b.Context())
	e := denied("alice", "secret")
	b.ReportAllocs()
	for b.Loop() {
		r.Record(e)
	}
}

// TestTypesAreListed proves that Types has each type that there is.
func TestTypesAreListed(t *testing.T) {
	source, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Type = "(leat\.[a-z.]+)"`).FindAllStringSubmatch(string(source), -1)
	for _, f := range found {
		if !slices.Contains(Types(), Type(f[1])) {
			t.Errorf("%s is not listed", f[1])
		}
	}
	if len(found) < 30 || len(found) != len(Types()) {
		t.Errorf("%d types, %d are listed", len(found), len(Types()))
	}
}
