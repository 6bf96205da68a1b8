package position_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/mirror/names"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

const now = int64(1_800_000_000_000)

var orders = position.Place{Topic: "orders", Partition: 3}

func filter(tb testing.TB, include, exclude string) *names.Filter {
	tb.Helper()
	f, err := names.ParseFilter(include, exclude)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// reader feeds a machine with one partition of __consumer_offsets.
type reader struct {
	t      testing.TB
	m      *position.Machine
	number int32
	next   record.Offset
}

func newReader(tb testing.TB, c position.Config) *reader {
	tb.Helper()
	if c.Groups == nil {
		c.Groups = filter(tb, "*", "")
	}
	m := position.New(c)
	m.SetPartitions(1)
	return &reader{t: tb, m: m}
}

// give gives the machine a record as a batch of its own.
func (r *reader) give(producer int64, epoch int16, key, value []byte) error {
	r.t.Helper()
	var bu record.Builder
	if producer >= 0 {
		bu.Transactional = true
		bu.SetProducer(producer, epoch, 0)
	}
	bu.Append(now, key, value)
	b, err := bu.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	b.SetBaseOffset(r.next)
	r.next++
	return r.m.Read(r.number, b, now)
}

// commit commits offset for a group at a place, at a time, in the transaction of a producer unless that is negative.
func (r *reader) commit(producer int64, epoch int16, group string, at position.Place, offset record.Offset, ms int64) {
	r.t.Helper()
	o := commit.Offset{At: offset, Epoch: 1, Time: ms, Expires: commit.NoExpiry}
	if err := r.give(producer, epoch, commit.AppendKey(nil, group, at.Topic, at.Partition), o.AppendTo(nil)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) end(producer int64, epoch int16, isCommit bool) {
	r.t.Helper()
	b, err := record.BuildMarker(now, producer, epoch, record.Marker{Commit: isCommit})
	if err != nil {
		r.t.Fatal(err)
	}
	b.SetBaseOffset(r.next)
	r.next++
	if err := r.m.Read(r.number, b, now); err != nil {
		r.t.Fatal(err)
	}
}

// offset is the position of a group at orders, or -1.
func (r *reader) offset(group string) record.Offset {
	for _, p := range r.m.Positions(group) {
		if p.Place == orders {
			return p.Offset
		}
	}
	return -1
}

// TestGroupsAreChosen proves that only groups that the patterns choose are known, so that others take no memory.
func TestGroupsAreChosen(t *testing.T) {
	r := newReader(t, position.Config{Groups: filter(t, "app-*,re:^etl", "app-test*")})
	for _, group := range []string{"app-1", "etl", "app-test", "x"} {
		r.commit(-1, 0, group, orders, 5, now)
		r.commit(7, 0, group, orders, 6, now)
	}
	if got := r.m.Groups(); !slices.Equal(got, []string{"app-1", "etl"}) {
		t.Error(got)
	}
	if open := r.m.ListOpen(); len(open) != 1 || !slices.Equal(open[0].Groups, []string{"app-1", "etl"}) {
		t.Errorf("%+v", open)
	}
}

// TestTransactions proves the rules of epochs, which no history of a Kafka that works can show: a marker of an older epoch ends nothing, and a record of a later epoch shows that the marker of the
// earlier one was missed, so that its offsets must not count.
func TestTransactions(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *reader)
		want record.Offset
	}{
		{"its own epoch", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.end(1, 4, true) }, 9},
		{"the next epoch", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.end(1, 5, true) }, 9},
		{"an older marker", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.end(1, 3, true) }, -1},
		{"another producer", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.end(2, 4, true) }, -1},
		{"a missed marker", func(r *reader) {
			r.commit(1, 4, "g", orders, 9, now)
			r.commit(1, 5, "g", position.Place{Topic: "web"}, 2, now)
			r.end(1, 5, true)
		}, -1},
		{"a record of an older epoch", func(r *reader) {
			r.commit(1, 5, "g", orders, 9, now)
			r.commit(1, 4, "g", orders, 8, now)
			r.end(1, 5, true)
		}, 9},
		{"a later offset of the same transaction", func(r *reader) {
			r.commit(1, 4, "g", orders, 9, now)
			r.commit(1, 4, "g", orders, 3, now)
			r.end(1, 4, true)
		}, 3},
		{"an abort", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.end(1, 4, false); r.end(1, 4, true) }, -1},
		{"settled as committed", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.m.Settle(1, 4, true) }, 9},
		{"settled as aborted", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.m.Settle(1, 4, false); r.end(1, 4, true) }, -1},
		{"another epoch is settled", func(r *reader) { r.commit(1, 4, "g", orders, 9, now); r.m.Settle(1, 5, true) }, -1},
		{"a marker that is read twice", func(r *reader) {
			r.commit(1, 4, "g", orders, 9, now)
			r.end(1, 4, true)
			r.commit(1, 4, "g", orders, 3, now)
			r.next = 1
			r.end(1, 4, true)
		}, 9},
	} {
		r := newReader(t, position.Config{})
		c.do(r)
		if got := r.offset("g"); got != c.want {
			t.Errorf("%s: the position is %d, want %d", c.name, got, c.want)
		}
	}
}

// TestOpenTransactionsAreListed proves that a person can see which producers keep positions back, and since when.
func TestOpenTransactionsAreListed(t *testing.T) {
	r := newReader(t, position.Config{})
	r.commit(2, 0, "b", orders, 1, now-50)
	r.commit(2, 0, "a", orders, 1, now)
	r.commit(1, 7, "a", orders, 1, now)
	want := []position.Open{{Producer: 1, Epoch: 7, SinceSource: now, Groups: []string{"a"}}, {Producer: 2, SinceSource: now - 50, Groups: []string{"a", "b"}}}
	if diff := cmp.Diff(want, r.m.ListOpen()); diff != "" {
		t.Error(diff)
	}
}

// TestRecordsThatDoNotCount proves what is left out: groups' own records, also their tombstones; kinds of records of later versions; and what cannot be read, which is counted.
func TestRecordsThatDoNotCount(t *testing.T) {
	r := newReader(t, position.Config{})
	r.commit(-1, 0, "g", orders, 5, now)
	key := commit.AppendKey(nil, "g", orders.Topic, orders.Partition)
	for _, c := range []struct {
		name       string
		key, value []byte
		unreadable int64
	}{
		{"the tombstone of a classic group", []byte("\x00\x02\x00\x01g"), nil, 0},
		{"the tombstone of a group of KIP-848", []byte("\x00\x03\x00\x01g"), nil, 0},
		{"a kind of record that there is not", []byte("\x00\x63what"), []byte{1}, 0},
		{"a key that is cut short", key[:len(key)-1], []byte{0, 3}, 1},
		{"no key", nil, []byte{0, 3}, 2},
		{"a value that is cut short", key, []byte{0, 3, 1}, 3},
		{"a value of a negative version", key, []byte{0xff, 0xff}, 4},
	} {
		if err := r.give(-1, 0, c.key, c.value); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if n := r.m.State().Unreadable; n != c.unreadable || r.offset("g") != 5 {
			t.Errorf("%s: %d are unreadable, the position is %d", c.name, n, r.offset("g"))
		}
	}
	if err := r.give(-1, 0, key, append([]byte{0, 5}, make([]byte, 60)...)); !errors.Is(err, commit.ErrNewer) {
		t.Errorf("a value of version 5: %v", err)
	}
}

// TestBatchesAreReadOnce proves that batches that were read before are left out, also a part of one, and that a batch that cannot be read says so.
func TestBatchesAreReadOnce(t *testing.T) {
	r := newReader(t, position.Config{})
	build := func(offsets ...record.Offset) record.Batch {
		bu := record.Builder{Codec: record.Zstd}
		for _, o := range offsets {
			v := commit.Offset{At: o, Time: now, Expires: commit.NoExpiry}
			bu.Append(now, commit.AppendKey(nil, "g", orders.Topic, orders.Partition), v.AppendTo(nil))
		}
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(b)
	}
	first, second := build(1, 2, 3), build(7, 8)
	second.SetBaseOffset(2) // it begins at the last record of the first one
	for _, step := range []struct {
		b    record.Batch
		want record.Offset
	}{{first, 3}, {second, 8}, {first, 8}, {second, 8}} {
		if err := r.m.Read(0, step.b, now); err != nil || r.offset("g") != step.want {
			t.Fatalf("the position is %d, want %d: %v", r.offset("g"), step.want, err)
		}
	}
	gone := func(at record.Offset) record.Batch {
		var bu record.Builder
		bu.Append(now, commit.AppendKey(nil, "g", orders.Topic, orders.Partition), nil)
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		b.SetBaseOffset(at)
		return slices.Clone(b)
	}
	third := build(5)
	third.SetBaseOffset(5)
	for _, b := range []record.Batch{gone(4), third, gone(4)} { // a tombstone that comes again must not delete what is behind it
		if err := r.m.Read(0, b, now); err != nil {
			t.Fatal(err)
		}
	}
	if r.offset("g") != 5 {
		t.Errorf("a tombstone was read twice, and the position is %d", r.offset("g"))
	}
	bu := record.Builder{}
	other := commit.Offset{At: 1, Time: now, Expires: commit.NoExpiry}
	bu.Append(now, commit.AppendKey(nil, "g", orders.Topic, orders.Partition), nil)
	bu.Append(now, commit.AppendKey(nil, "other", orders.Topic, orders.Partition), other.AppendTo(nil))
	fourth, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	fourth.SetBaseOffset(5) // its tombstone is at an offset that was read
	if err := r.m.Read(0, fourth, now); err != nil || r.offset("g") != 5 || r.offset("other") != 1 {
		t.Errorf("the positions are %d and %d: %v", r.offset("g"), r.offset("other"), err)
	}
	bad := build(9, 10)
	bad.SetBaseOffset(7)
	bad[len(bad)-3] ^= 0xff
	if err := r.m.Read(0, bad, now); err == nil {
		t.Error("a batch that cannot be read is taken")
	}
}

// TestMemoryIsBounded proves that a machine takes no more memory than it may and says what to do, that it goes on when there is room again, and that a transaction whose offsets were
// taken is committed whole.
func TestMemoryIsBounded(t *testing.T) {
	const most = 1 << 20
	r := newReader(t, position.Config{MaxBytes: most})
	fill := func(producer int64) (n int) {
		for ; ; n++ {
			o := commit.Offset{At: record.Offset(n), Time: now, Expires: commit.NoExpiry, Metadata: strings.Repeat("m", 100)}
			err := r.give(producer, 0, commit.AppendKey(nil, fmt.Sprint("group-", n), fmt.Sprint("topic-", n), 1), o.AppendTo(nil))
			if err == nil && n < most {
				continue
			}
			if !errors.Is(err, position.ErrFull) || !strings.Contains(err.Error(), "1 MiB; have it follow fewer groups") {
				t.Fatal(n, err)
			}
			return n
		}
	}
	n := fill(5)
	if s := r.m.State(); n < 100 || s.Bytes > most {
		t.Fatalf("%d offsets, %+v", n, s)
	}
	r.next--
	r.end(5, 0, true)
	if s := r.m.State(); s.Positions != n || s.Groups != n || s.Transactions != 0 || s.Bytes > most {
		t.Fatalf("%d offsets were taken, and there are %+v", n, s)
	}
	if more := fill(-1); more <= n || r.m.State().Bytes > most {
		t.Errorf("%d offsets without a transaction, %+v", more, r.m.State())
	}
	r.next--
	for i := range r.m.State().Positions {
		if err := r.give(-1, 0, commit.AppendKey(nil, fmt.Sprint("group-", i), fmt.Sprint("topic-", i), 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.m.State(); s.Positions != 0 || s.Deletions < 100 || s.Bytes > most/8 {
		t.Errorf("all is deleted, and there is %+v", s)
	}
	r.m.CaughtUp(0, now)
	for _, name := range r.m.TakeChanged(now, 1e6) {
		r.m.Decide(now, &position.Group{Name: name}, position.NewMirrors(nil))
	}
	if s := r.m.State(); s.Deletions != 0 || s.Bytes != 0 {
		t.Errorf("nothing of it is here, and there is %+v", s)
	}
}

// TestPollsAreBounded proves that positions that are polled take no more memory than they may.
func TestPollsAreBounded(t *testing.T) {
	m := position.New(position.Config{Groups: filter(t, "*", ""), MaxBytes: 4096})
	var list []position.Placed
	for n := range int32(100) {
		list = append(list, position.Placed{Place: position.Place{Topic: "orders", Partition: n}})
	}
	if err := m.Polled("g", now, list); !errors.Is(err, position.ErrFull) || m.State().Bytes > 4096 {
		t.Error(err, m.State())
	}
}

// TestHomeOfAGroup proves that old records of a group in another partition of __consumer_offsets do not count, in whatever order the partitions are read: partitions were added, and the group's
// coordinator reads the new one.
func TestHomeOfAGroup(t *testing.T) {
	web := position.Place{Topic: "web"}
	for _, order := range [][]int32{{0, 1}, {1, 0}} {
		r := newReader(t, position.Config{})
		r.m.SetPartitions(2)
		for _, number := range order {
			r.number, r.next = number, 0
			if number == 0 {
				r.commit(-1, 0, "g", orders, 50, now-900)
				r.commit(-1, 0, "g", web, 50, now-800)
				continue
			}
			r.commit(-1, 0, "g", orders, 7, now-100)
			r.commit(-1, 0, "g", orders, 8, now)
		}
		r.number, r.next = 0, 10
		if err := r.give(-1, 0, commit.AppendKey(nil, "g", orders.Topic, orders.Partition), nil); err != nil { // offsets expire there
			t.Fatal(err)
		}
		if all := r.m.Positions("g"); len(all) != 1 || r.offset("g") != 8 {
			t.Errorf("read in the order %v: %+v", order, all)
		}
	}
}

// TestAsOf proves that the age of what is known is that of the partition that was read last, or of the last complete round of polls.
func TestAsOf(t *testing.T) {
	m := position.New(position.Config{Groups: filter(t, "*", "")})
	m.SetPartitions(2)
	m.CaughtUp(0, 100)
	if at, ok := m.AsOf(); ok {
		t.Error("one of two partitions was read, and all is known as of", at)
	}
	m.CaughtUp(1, 90)
	m.CaughtUp(0, 200)
	m.CaughtUp(0, 150) // it came late
	if at, ok := m.AsOf(); !ok || at != 90 || m.State().Loading != 0 {
		t.Error(at, ok)
	}
	m.CaughtUp(1, 300)
	if at, ok := m.AsOf(); !ok || at != 200 {
		t.Error(at, ok)
	}
	m.Restart(1)
	if at, ok := m.AsOf(); ok || m.IsComplete() || m.State().Loading != 1 {
		t.Error("a partition is read anew, and all is known as of", at)
	}
	m = position.New(position.Config{Groups: filter(t, "*", "")})
	if err := m.Polled("g", 100, []position.Placed{{Place: orders, Position: position.Position{Offset: 1}}, {Place: position.Place{Topic: "none"}, Position: position.Position{Offset: -1}}}); err != nil {
		t.Fatal(err)
	}
	if at, ok := m.AsOf(); ok || len(m.Positions("g")) != 1 {
		t.Error("no round of polls is complete, and all is known as of", at)
	}
	if m.PolledAll(95, []string{"g"}); len(m.Groups()) != 1 {
		t.Error(m.Groups())
	}
	if at, ok := m.AsOf(); !ok || at != 95 {
		t.Error(at, ok)
	}
}

// TestTakeChanged proves that each change is returned once, by so many groups at a time, only of logs that were read, and again if it could not be done.
func TestTakeChanged(t *testing.T) {
	r := newReader(t, position.Config{})
	r.m.SetPartitions(2)
	for _, group := range []string{"c", "a", "b"} {
		r.commit(-1, 0, group, orders, 5, now)
	}
	if got := r.m.TakeChanged(now, 10); len(got) != 0 {
		t.Error("before the log was read:", got)
	}
	r.m.CaughtUp(0, now)
	for _, want := range [][]string{{"a", "b"}, {"c"}, {}} {
		if got := r.m.TakeChanged(now, 2); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	r.commit(-1, 0, "b", orders, 5, now) // the same again
	r.m.Revisit("c")
	if got := r.m.TakeChanged(now, 10); !slices.Equal(got, []string{"c"}) {
		t.Error(got)
	}
	r.commit(-1, 0, "b", orders, 6, now)
	if got := r.m.TakeChanged(now, 10); !slices.Equal(got, []string{"b"}) {
		t.Error(got)
	}
}

// TestDecide proves each rule of what is committed and deleted here.
func TestDecide(t *testing.T) {
	id, other := [16]byte{1}, [16]byte{2}
	const there, here = 1000, 2000 // times of commits
	const none, gone = -1, -2
	ours := func(offset record.Offset) *position.Here {
		return &position.Here{Placed: position.Placed{Position: position.Position{Offset: offset, Epoch: 1}}, Time: here, IsOurs: true}
	}
	theirs := func(offset record.Offset, ms int64) *position.Here {
		o := ours(offset)
		o.IsOurs, o.Time = false, ms
		return o
	}
	for _, c := range []struct {
		name     string
		offset   record.Offset // at the source; none, or gone by a tombstone
		id       [16]byte      // of its topic
		here     *position.Here
		isActive bool
		want     string // the step, or why there is none
	}{
		{"nothing here", 5, id, nil, false, "commit 5"},
		{"nothing here, and the source tells no id", 5, [16]byte{}, nil, false, "commit 5"},
		{"nothing here, of another topic", 5, other, nil, false, position.OtherTopic.String()},
		{"nothing here, with members", 5, id, nil, true, position.ActiveHere.String()},
		{"the same", 5, id, ours(5), false, ""},
		{"the same, with members", 5, id, ours(5), true, ""},
		{"the same, of somebody else", 5, id, theirs(5, here), false, ""},
		{"forward", 6, id, ours(5), false, "commit 6"},
		{"forward, with members", 6, id, ours(5), true, position.ActiveHere.String()},
		{"back", 2, id, ours(5), false, "commit 2"},
		{"committed here later", 6, id, theirs(5, there+1), false, position.CommittedHere.String()},
		{"committed here at the same time", 6, id, theirs(5, there), false, position.CommittedHere.String()},
		{"committed here earlier", 6, id, theirs(5, there-1), false, "commit 6"},
		{"committed here earlier, and back", 4, id, theirs(5, there-1), false, "commit 4"},
		{"committed here earlier, with members", 6, id, theirs(5, there-1), true, position.ActiveHere.String()},
		{"deleted", gone, id, ours(5), false, "delete"},
		{"deleted, with members", gone, id, ours(5), true, position.ActiveHere.String()},
		{"deleted, and committed by somebody else", gone, id, theirs(5, here), false, ""},
		{"lost", none, id, ours(5), false, position.NotDeleted.String()},
		{"never there", none, id, theirs(5, here), false, ""},
	} {
		r := newReader(t, position.Config{})
		if c.offset >= 0 {
			o := commit.Offset{At: c.offset, Epoch: 1, Time: there, Expires: commit.NoExpiry, Topic: c.id}
			if err := r.give(-1, 0, commit.AppendKey(nil, "g", "orders", 3), o.AppendTo(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if c.offset == gone {
			if err := r.give(-1, 0, commit.AppendKey(nil, "g", "orders", 3), nil); err != nil {
				t.Fatal(err)
			}
		}
		r.m.CaughtUp(0, now)
		g := &position.Group{Name: "g", IsActive: c.isActive}
		if c.here != nil {
			c.here.Place = position.Place{Topic: "eu.orders", Partition: 3}
			g.Positions = append(g.Positions, *c.here)
		}
		mirror := position.Mirror{Topic: "orders", ID: id, Here: "eu.orders", SeenAt: now}
		d := r.m.Decide(now, g, position.NewMirrors([]position.Mirror{mirror}))
		if len(d.Steps) > 0 && d.Steps[0].Deletes {
			t.Errorf("%s: it is deleted before the topic was seen again", c.name)
		}
		mirror.SeenAt = now + 10_000
		d = r.m.Decide(now+11_000, g, position.NewMirrors([]position.Mirror{mirror}))
		var got []string
		for _, s := range d.Steps {
			if s.Group != "g" || s.Topic != "eu.orders" || s.Partition != 3 || s.SourceTime != there && !s.Deletes {
				t.Errorf("%s: %+v", c.name, s)
			}
			if s.Deletes {
				got = append(got, "delete")
			} else {
				got = append(got, fmt.Sprint("commit ", s.Offset))
			}
		}
		for _, held := range d.Held {
			got = append(got, held.Why.String())
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestDeletionsAreForgotten proves that a deletion is kept for as long as there is something to delete here, and no longer.
func TestDeletionsAreForgotten(t *testing.T) {
	r := newReader(t, position.Config{})
	key := commit.AppendKey(nil, "g", orders.Topic, orders.Partition)
	here := position.Here{Placed: position.Placed{Place: orders}, IsOurs: true}
	mirrors := position.NewMirrors([]position.Mirror{{Topic: orders.Topic, Here: orders.Topic}})
	decide := func(list ...position.Here) func() {
		return func() { r.m.Decide(now, &position.Group{Name: "g", Positions: list}, mirrors) }
	}
	gone := func() {
		if err := r.give(-1, 0, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	others := here
	others.IsOurs = false
	r.m.CaughtUp(0, now)
	for i, step := range []struct {
		do   func()
		want int
	}{
		{gone, 1}, {gone, 1}, {func() { r.commit(-1, 0, "g", orders, 5, now) }, 0}, {gone, 1}, {decide(here), 1}, {decide(), 0}, {gone, 1}, {decide(others), 0}, {gone, 1}, {func() { r.m.Restart(0) }, 0},
	} {
		if step.do(); r.m.State().Deletions != step.want {
			t.Errorf("step %d: %d deletions are kept, want %d", i, r.m.State().Deletions, step.want)
		}
	}
}

// TestWhatIsNotMirrored proves that nothing is decided for groups that are not chosen, and for topics that are no mirrors: of a topic that was promoted the positions are those of this cluster.
func TestWhatIsNotMirrored(t *testing.T) {
	r := newReader(t, position.Config{Groups: filter(t, "g", "")})
	r.commit(-1, 0, "g", orders, 5, now)
	r.m.CaughtUp(0, now)
	here := position.Here{Placed: position.Placed{Place: orders, Position: position.Position{Offset: 1}}, IsOurs: true}
	for _, name := range []string{"g", "other"} {
		for _, mirrors := range [][]position.Mirror{nil, {{Topic: "web", Here: "web", SeenAt: now + 1e6}}} {
			d := r.m.Decide(now+1e6, &position.Group{Name: name, Positions: []position.Here{here}}, position.NewMirrors(mirrors))
			if len(d.Steps)+len(d.Held) > 0 {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
}

// TestSteps proves that steps are in the order of their places, and are sentences.
func TestSteps(t *testing.T) {
	r := newReader(t, position.Config{})
	for _, at := range []position.Place{{Topic: "b"}, {Topic: "a", Partition: 1}, {Topic: "a"}} {
		r.commit(-1, 0, "g", at, 5, now)
	}
	r.m.CaughtUp(0, now)
	d := r.m.Decide(now, &position.Group{Name: "g"}, position.NewMirrors([]position.Mirror{{Topic: "a", Here: "a"}, {Topic: "b", Here: "x.b"}}))
	var got []string
	for _, s := range append(d.Steps, position.Step{Group: "g", Place: orders, Deletes: true}) {
		got = append(got, s.String())
	}
	want := []string{`Commit 5 for group "g" in a-0.`, `Commit 5 for group "g" in a-1.`, `Commit 5 for group "g" in x.b-0.`, `Delete the position of group "g" in orders-3.`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWithin proves what a client is told of a position while the mirror has less than the group has read.
func TestWithin(t *testing.T) {
	e := position.Extent{End: 100, LastEpoch: 6, LeaderEpoch: 1000}
	for _, c := range []struct {
		name   string
		p      position.Position
		extent position.Extent
		want   position.Position
		beyond record.Offset
	}{
		{"inside", position.Position{Offset: 7, Epoch: 6, Metadata: "m"}, e, position.Position{Offset: 7, Epoch: 6, Metadata: "m"}, 0},
		{"at the end", position.Position{Offset: 100, Epoch: 6, Metadata: "m"}, e, position.Position{Offset: 100, Epoch: 6, Metadata: "m"}, 0},
		{"beyond", position.Position{Offset: 130, Epoch: 7, Metadata: "m"}, e, position.Position{Offset: 100, Epoch: 6}, 30},
		{"beyond an empty mirror", position.Position{Offset: 3, Epoch: 7}, position.Extent{LastEpoch: record.NoEpoch, LeaderEpoch: 5}, position.Position{Epoch: record.NoEpoch}, 3},
		{"an epoch that clients do not know yet", position.Position{Offset: 7, Epoch: 1001, Metadata: "m"}, e, position.Position{Offset: 7, Epoch: record.NoEpoch, Metadata: "m"}, 0},
		{"no epoch", position.Position{Offset: 7, Epoch: record.NoEpoch}, e, position.Position{Offset: 7, Epoch: record.NoEpoch}, 0},
	} {
		got, beyond := c.p.Within(c.extent)
		if got != c.want || beyond != c.beyond {
			t.Errorf("%s: %+v and %d beyond, want %+v and %d", c.name, got, beyond, c.want, c.beyond)
		}
	}
}

// FuzzRead proves that no records harm a machine, and that it keeps to its bound.
func FuzzRead(f *testing.F) {
	o := commit.Offset{At: 7, Epoch: 3, Time: 5, Expires: commit.NoExpiry, Topic: [16]byte{1}, Metadata: "m"}
	f.Add(commit.AppendKey(nil, "g", "orders", 3), o.AppendTo(nil), int64(-1), int16(0), true)
	f.Add(commit.AppendKey(nil, "g", "orders", 3), o.AppendTo(nil), int64(4), int16(1), true)
	f.Add([]byte("\x00\x02\x00\x01g"), []byte(nil), int64(4), int16(1), false)
	f.Fuzz(func(t *testing.T, key, value []byte, producer int64, epoch int16, isCommit bool) {
		r := newReader(t, position.Config{MaxBytes: 8192})
		if producer < 0 || epoch < 0 {
			producer, epoch = -1, 0
		}
		for range 3 {
			err := r.give(producer, epoch, key, value)
			if err != nil && !errors.Is(err, position.ErrFull) && !errors.Is(err, commit.ErrNewer) {
				t.Fatal(err)
			}
			if producer >= 0 {
				r.end(producer, epoch, isCommit)
			}
		}
		r.m.CaughtUp(0, now)
		mirrors := position.NewMirrors([]position.Mirror{{Topic: "orders", Here: "orders", SeenAt: now}})
		for _, name := range r.m.TakeChanged(now, 10) {
			r.m.Decide(now, &position.Group{Name: name}, mirrors)
		}
		if s := r.m.State(); s.Bytes < 0 || s.Bytes > 8192 {
			t.Fatalf("%+v", s)
		}
	})
}
