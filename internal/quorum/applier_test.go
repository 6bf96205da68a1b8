package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/leatstream/leat/internal/vfs"
)

// TestPoison proves that an entry which cannot be applied ends the node and does not count as
// applied: its proposer and all later ones get the error, no later entry is applied, no
// snapshot is made after it, and no later start skips it.
func TestPoison(t *testing.T) {
	fs := newFS()
	m := &machine{}
	cfg := config(fs, m)
	cfg.SnapshotBytes = 1
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(n) })
	propose(t, n, "before")
	before := n.Applied()
	if err := put(t.Context(), n, []byte("poison")); !errors.Is(err, ErrNotApplied) || !strings.Contains(err.Error(), "is poison") {
		t.Fatalf("its proposer: %v", err)
	}
	<-n.Done()
	if err := n.Err(); !errors.Is(err, ErrNotApplied) {
		t.Errorf("the node ended: %v", err)
	}
	if err := n.Propose(t.Context(), n.Status().Term, []byte("after")); !errors.Is(err, ErrNotApplied) {
		t.Errorf("a later proposer: %v", err)
	}
	if s := n.Status(); s.State != Ended || n.Applied() != before {
		t.Errorf("%+v, applied %d, then %d", s, before, n.Applied())
	}
	for range 3 {
		again := &machine{}
		cfg.Apply, cfg.Capture = again.apply, again.capture
		if n, err := openTuned(cfg, small); !errors.Is(err, ErrNotApplied) || !strings.Contains(err.Error(), fmt.Sprintf("entry %d is poison", before+1)) {
			if err == nil {
				closeNode(n)
			}
			t.Fatalf("a later start: %v", err)
		}
	}
}

// TestPoisonAmongOthers proves that no proposal is acknowledged which waits together with one
// that cannot be applied, and comes after it.
func TestPoisonAmongOthers(t *testing.T) {
	held := make(chan struct{})
	entered := make(chan struct{}, 10)
	m := &machine{}
	cfg := config(newFS(), m)
	cfg.Apply = func(u Update) error {
		entered <- struct{}{}
		<-held
		return m.apply(u)
	}
	close(held) // for the start
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(n) })
	term, _ := n.Leading()
	held = make(chan struct{})
	answers := make(map[string]chan error)
	for i, line := range []string{"first", "poison", "third", "fourth"} {
		answers[line] = make(chan error, 1)
		go func() { answers[line] <- n.Propose(t.Context(), term, []byte(line)) }()
		for commit := n.Status().Applied + uint64(i) + 1; n.Status().Commit < commit; {
			runtime.Gosched()
		}
		if i == 0 {
			<-entered
		}
	}
	close(held)
	if err := <-answers["first"]; err != nil {
		t.Errorf("before it: %v", err)
	}
	for _, line := range []string{"poison", "third", "fourth"} {
		if err := <-answers[line]; !errors.Is(err, ErrNotApplied) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if diff := cmp.Diff([]string{"first"}, m.state()); diff != "" {
		t.Error(diff)
	}
}

// TestSlowApply proves that the loop orders proposals and makes them durable while an update
// is applied, and that all entries which come meanwhile are applied as one update.
func TestSlowApply(t *testing.T) {
	var hold sync.Mutex
	m := &machine{}
	cfg := config(newFS(), m)
	cfg.Apply = func(u Update) error {
		hold.Lock()
		defer hold.Unlock()
		return m.apply(u)
	}
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(n) })
	propose(t, n, "start")
	applied := n.Applied()
	hold.Lock()
	const waiting = 30
	errs := make(chan error, waiting)
	for i := range uint64(waiting) {
		go func() { errs <- put(t.Context(), n, fmt.Appendf(nil, "line %d", i)) }()
		for n.Status().Commit < applied+i+1 {
			runtime.Gosched()
		}
	}
	if n.Applied() != applied {
		t.Errorf("applied %d, then %d", applied, n.Applied())
	}
	hold.Unlock()
	for range waiting {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(append([]string{"start"}, count(0, waiting)...), m.state()); diff != "" {
		t.Error(diff)
	}
	if len(m.calls) > 3 { // start, the one that was held, all others
		t.Errorf("%d updates", len(m.calls))
	}
}

// TestAwaitApplied proves that who waits for an entry goes on when it is applied, not before, and that
// nobody waits for ever: neither for one that never comes, nor on a node that has ended.
func TestAwaitApplied(t *testing.T) {
	var hold sync.Mutex
	m := &machine{}
	cfg := config(newFS(), m)
	cfg.Apply = func(u Update) error {
		hold.Lock()
		defer hold.Unlock()
		return m.apply(u)
	}
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, n, "start")
	if err := n.AwaitApplied(t.Context(), n.Applied()); err != nil {
		t.Error("an entry that is applied:", err)
	}
	next := n.Applied() + 1
	hold.Lock()
	proposed, awaited := make(chan error, 1), make(chan error, 1)
	go func() { proposed <- put(t.Context(), n, []byte("slow")) }()
	go func() { awaited <- n.AwaitApplied(t.Context(), next) }()
	for n.Status().Commit < next {
		runtime.Gosched()
	}
	select {
	case err := <-awaited:
		t.Error("it is committed and not applied:", err)
	default:
	}
	hold.Unlock()
	if err := errors.Join(<-proposed, <-awaited); err != nil {
		t.Error(err)
	}
	if got := m.state(); got[len(got)-1] != "slow" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { awaited <- n.AwaitApplied(ctx, next+1) }()
	cancel()
	if err := <-awaited; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() { awaited <- n.AwaitApplied(t.Context(), next+1) }()
	if err := closeNode(n); err != nil {
		t.Error(err)
	}
	if err := <-awaited; !errors.Is(err, ErrNotLeader) {
		t.Error("after the end:", err)
	}
}

// TestSlowSnapshot proves that proposals are ordered, applied and acknowledged while a
// snapshot is encoded, and that the snapshot has the state at its capture.
func TestSlowSnapshot(t *testing.T) {
	fs := newFS()
	held, entered := make(chan struct{}), make(chan struct{}, 10)
	m := &machine{}
	cfg := config(fs, m)
	cfg.Capture = func() func() []byte {
		encode := m.capture()
		return func() []byte {
			entered <- struct{}{}
			<-held
			return encode()
		}
	}
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, n, count(0, 100)...) // far more than SnapshotBytes
	<-entered
	propose(t, n, count(100, 200)...)
	close(held)
	closeNode(n)
	n, again := start(t, fs)
	if diff := cmp.Diff(count(0, 200), again.state()); diff != "" {
		t.Error(diff)
	}
	if len(again.calls) != 1 || again.calls[0].Snapshot == nil || len(again.calls[0].Entries) < 100 {
		t.Errorf("%d updates, %d entries after the snapshot", len(again.calls), len(again.calls[0].Entries))
	}
	closeNode(n)
}

// TestReplayIsOneUpdate proves that a start passes all entries that it replays to Apply as one
// update: if they were applied singly, thousands of topics would take seconds.
func TestReplayIsOneUpdate(t *testing.T) {
	fs := newFS()
	m := &machine{}
	cfg := config(fs, m)
	cfg.SnapshotBytes = 1 << 30
	n, err := openTuned(cfg, defaultTuning)
	if err != nil {
		t.Fatal(err)
	}
	lines := count(0, 5000)
	propose(t, n, lines...)
	closeNode(n)
	_, again := start(t, fs)
	if len(again.calls) != 1 || !slices.Equal(again.state(), lines) {
		t.Errorf("%d updates, %d lines", len(again.calls), len(again.state()))
	}
}

// TestTerms proves that a proposal of another term is refused before it becomes an
// entry, and that one of the term that Leading returns is accepted.
func TestTerms(t *testing.T) {
	fs := newFS()
	for life := range 3 {
		n, m := start(t, fs)
		term, ok := n.Leading()
		if !ok || term != n.Status().Term {
			t.Fatalf("leads in term %d (%v): %+v", term, ok, n.Status())
		}
		commit := n.Status().Commit
		for _, other := range []uint64{0, term - 1, term + 1} {
			if err := n.Propose(t.Context(), other, []byte("stale")); !errors.Is(err, ErrNotLeader) {
				t.Errorf("life %d, term %d: %v", life, other, err)
			}
		}
		if n.Status().Commit != commit || len(m.state()) != life {
			t.Errorf("life %d: entries up to %d, then %d: %q", life, commit, n.Status().Commit, m.state())
		}
		if err := n.Propose(t.Context(), term, []byte("current")); err != nil {
			t.Error(err)
		}
		closeNode(n)
		if _, ok := n.Leading(); ok {
			t.Error("a closed node leads")
		}
	}
}

// craft appends entries to the log of a node that does not run, as another leader may
// have made them.
func craft(t *testing.T, fs vfs.FS, entries ...*pb.Entry) {
	t.Helper()
	l, found, err := openLog(config(fs, &machine{}), small)
	if err != nil {
		t.Fatal(err)
	}
	at := found.base.index + uint64(len(found.entries))
	for i, e := range entries {
		e.Index, e.Term = new(at+uint64(i)+1), new(found.state.GetTerm())
	}
	if _, err := l.saveFrame(entries); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
}

// TestEntryOfAnotherTermChangesNothing proves that an entry that was decided in another term
// than its own changes nothing, in this start and each later one, and is logged.
func TestEntryOfAnotherTermChangesNothing(t *testing.T) {
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, "before")
	term := n.Status().Term
	closeNode(n)
	craft(t, fs,
		&pb.Entry{Type: pb.EntryNormal.Enum(), Data: wrapProposal(term+7, []byte("misfit"))},
		&pb.Entry{Type: pb.EntryNormal.Enum(), Data: wrapProposal(term, []byte("after"))})
	for range 2 {
		var text strings.Builder
		m := &machine{}
		cfg := config(fs, m)
		cfg.Logger = slog.New(slog.NewTextHandler(&text, nil))
		n, err := openTuned(cfg, small)
		if err != nil {
			t.Fatal(err)
		}
		closeNode(n)
		if diff := cmp.Diff([]string{"before", "after"}, m.state()); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(text.String(), "it changes nothing") {
			t.Errorf("it was not logged:\n%s", text.String())
		}
	}
}

// TestUnknownEntriesRefuseTheStart proves that an entry of an unknown form refuses the start
// with a message that says so.
func TestUnknownEntriesRefuseTheStart(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"newer", append([]byte{entryVersion + 1}, "a proposal of another version"...), ErrNewer},
		{"short", []byte{entryVersion}, ErrDamaged},
	} {
		fs := newFS()
		n, _ := start(t, fs)
		closeNode(n)
		craft(t, fs, &pb.Entry{Type: pb.EntryNormal.Enum(), Data: c.data})
		n, err := openTuned(config(fs, &machine{}), small)
		if err == nil {
			closeNode(n)
		}
		if !errors.Is(err, c.want) || !errors.Is(err, ErrNotApplied) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestMembers proves that committed changes of the members are applied; that those which raft
// cannot apply change nothing; that the next snapshot has all members and its data; and that a
// quorum with a second voter is refused.
func TestMembers(t *testing.T) {
	change := func(typ pb.ConfChangeType, id uint64) *pb.Entry {
		b, err := proto.Marshal(&pb.ConfChange{Type: typ.Enum(), NodeId: &id})
		if err != nil {
			t.Fatal(err)
		}
		return &pb.Entry{Type: pb.EntryConfChange.Enum(), Data: b}
	}
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, "before")
	self := n.loop.log.raftID
	closeNode(n)
	craft(t, fs, change(pb.ConfChangeAddLearnerNode, 77), change(pb.ConfChangeRemoveNode, self))
	for range 3 {
		n, m := start(t, fs)
		propose(t, n, "more")
		awaitSnapshot(fs) // the first life makes one, since the members have changed
		closeNode(n)
		if c := n.loop.conf; !slices.Equal(c.GetVoters(), []uint64{self}) || !slices.Equal(c.GetLearners(), []uint64{77}) {
			t.Fatalf("members: %v", c)
		}
		if got := m.state(); got[0] != "before" || got[len(got)-1] != "more" {
			t.Fatalf("%q", got)
		}
	}
	n, _ = start(t, fs)
	closeNode(n)
	if s, err := readSnapshot(fs, "data/meta", n.loop.snapshot.index); err != nil || !slices.Equal(s.conf.GetLearners(), []uint64{77}) ||
		!strings.HasPrefix(string(s.data), "before\nmore") {
		t.Fatalf("the snapshot: %v, %v", s, err)
	}
	craft(t, fs, change(pb.ConfChangeAddNode, 78))
	if _, err := openTuned(config(fs, &machine{}), small); !errors.Is(err, ErrNewer) {
		t.Errorf("two voters: %v", err)
	}
}

// TestRaftIDs proves that each data directory has an id of its own in raft, which it keeps,
// and which does not depend on the node's id.
func TestRaftIDs(t *testing.T) {
	ids := map[uint64]bool{}
	for range 20 {
		fs := newFS()
		var kept uint64
		for range 3 {
			n, _ := start(t, fs)
			propose(t, n, count(0, 60)...) // several files, and a snapshot
			closeNode(n)
			if id := n.loop.log.raftID; id <= 1<<32 || kept != 0 && id != kept {
				t.Fatalf("id %d, before that %d", id, kept)
			}
			kept = n.loop.log.raftID
		}
		ids[kept] = true
	}
	if len(ids) != 20 {
		t.Errorf("%d ids for 20 directories", len(ids))
	}
}

// TestVoteIsOnDiskFirst proves that a term and a vote are on disk, in a frame of their own,
// before any entry of that term.
func TestVoteIsOnDiskFirst(t *testing.T) {
	fs := newFS()
	for range 3 {
		n, _ := start(t, fs)
		propose(t, n, "x")
		closeNode(n)
	}
	f, _ := fs.Open("data/meta/"+fileName(1, logSuffix), vfs.ReadOnly)
	b, _ := readAll(f)
	var term, voted uint64
	_, err := scanFrames(b, 1, 0, func(_, _ int64, h frameHeader, r *records) error {
		switch {
		case r.state == nil:
		case r.state.GetVote() == h.raftID:
			voted = r.state.GetTerm()
		case r.state.GetVote() != 0 || r.state.GetTerm() <= term: // else a start has raised the term
			t.Errorf("frame %d: a vote for %d in term %d", h.number, r.state.GetVote(), r.state.GetTerm())
		}
		for _, e := range r.entries {
			if e.GetTerm() > term && r.state != nil && r.state.GetTerm() > term {
				t.Errorf("frame %d has the vote of term %d and an entry of it", h.number, term)
			}
			if term = e.GetTerm(); voted < term {
				t.Errorf("frame %d has an entry of term %d, and the last vote was in term %d", h.number, term, voted)
			}
		}
		return nil
	})
	if err != nil || term < 3 {
		t.Errorf("term %d, %v", term, err)
	}
}

// TestCloseHonoursItsDeadline proves that Close returns at its deadline if the disk hangs.
func TestCloseHonoursItsDeadline(t *testing.T) {
	fs, disk := newHangingFS()
	n, _ := start(t, fs)
	disk.hang.Store(true)
	go func() { _ = put(t.Context(), n, []byte("x")) }()
	<-disk.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	close(disk.goOn)
	if err := closeNode(n); err != nil {
		t.Error(err)
	}
}

// BenchmarkReplay measures a start with a log of many small entries, without the time of Apply.
func BenchmarkReplay(b *testing.B) {
	cfg := config(newFS(), &machine{})
	cfg.SnapshotBytes = 1 << 30
	cfg.Apply = func(Update) error { return nil }
	n, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 80_000 / 64 {
				_ = put(b.Context(), n, make([]byte, 60))
			}
		})
	}
	wg.Wait()
	closeNode(n)
	for b.Loop() {
		n, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		closeNode(n)
	}
}
