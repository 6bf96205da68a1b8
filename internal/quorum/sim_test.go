package quorum

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/leatstream/leat/internal/vfs"
)

// The simulation runs the loops of several nodes, with their cores, observers and logs, from one
// queue of events: messages, ticks, proposals, changes of the members, and faults. A seed decides
// everything, so a seed that fails is replayed with LEAT_QUORUM_SEED.
//
// Time is counted in hundredths of a second. Faults stop at the end, and then all must heal.
const (
	simTick  = 10
	simSteps = 3000
	simHeal  = 3000
)

// TestSimulation proves, with many seeds, that clusters of three and five nodes lose no acknowledged
// proposal and reorder none, that the states of all nodes are equal at equal entries, that each
// term has one leader at most, that there are never two voters, and that all heals, under power
// cuts and kills at any write, failing and hung disks, lost disks, lossy, slow and one-way networks
// and changes of the members.
func TestSimulation(t *testing.T) {
	seeds, first := uint64(150), uint64(0)
	if testing.Short() {
		seeds = 60
	}
	if one := os.Getenv("LEAT_QUORUM_SEED"); one != "" {
		seed, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = seed, 1
	}
	if n := os.Getenv("LEAT_QUORUM_SEEDS"); n != "" {
		seeds, _ = strconv.ParseUint(n, 10, 64)
	}
	seen := map[string]int{}
	for seed := first; seed < first+seeds; seed++ {
		s := newSim(t, seed)
		if err := s.run(); err != nil {
			t.Fatalf("seed %d, at %d: %v", seed, s.now, err)
		}
		for what, n := range s.seen {
			seen[what] += n
		}
	}
	t.Log(seeds, "seeds:", seen)
	if seeds < 10 {
		return
	}
	for _, what := range []string{
		"power cut", "kill", "cut in a write", "disk fault", "hung disk", "disk lost", "one-way cut", "partition", "acknowledged", "leader",
		"change of the voters", "transfer", "snapshot of another node", "replaced entries", "observer to learner", "learner to voter", "member to observer",
		"five voters", "lost proposal", "dead leader reported",
	} {
		if seen[what] == 0 {
			t.Errorf("never seen: %s", what)
		}
	}
}

// TestSimulationReplays proves that a seed does the same things each time.
func TestSimulationReplays(t *testing.T) {
	for seed := range uint64(3) {
		var traces [2]uint64
		for i := range traces {
			s := newSim(t, seed)
			if err := s.run(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			traces[i] = s.trace
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d has two traces", seed)
		}
	}
}

type simEvent struct {
	at, seq int
	do      func()
}

type simulation struct {
	rng    *rand.Rand
	now    int
	seq    int
	queue  []simEvent
	nodes  []*simNode
	calm   bool // no more faults
	errs   []error
	trace  uint64
	seen   map[string]int
	cut    map[[2]int]bool // one way
	loss   float64
	delay  int
	target []int           // the nodes that are to be voters
	gone   map[uint64]bool // raft's ids of lost disks

	entries map[uint64]Entry // by index, as the first node that applied it has it
	states  map[uint64]uint64
	leaders map[uint64]uint64 // by term
	acked   []*simProposal
	asked   []*simProposal
	lines   int
}

type simProposal struct {
	*proposal
	line string
	to   *Node
}

type simNode struct {
	s         *simulation
	id        int
	disk      *vfs.Mem
	node      *Node // nil: it does not run
	state     *simState
	hungUntil int
	startAt   int
	changesTo int // of the disk, before the power is cut; 0: it is not
	left      *vfs.Mem
	hasFailed bool
	acks      int
	fault     int // changes of the disk until one fails; 0: none does
	role      Role
	wasUp     bool
	isLost    bool    // it never comes back
	change    *waiter // of the last change of the voters that it has begun; nil: there is none
	onChanged func()  // is called when that change is complete; nil: nothing is
}

// simState is the state machine of one life of a node.
type simState struct {
	s     *simulation
	lines []string
	last  uint64
}

func newSim(t *testing.T, seed uint64) *simulation {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	s := &simulation{
		rng: rand.New(rand.NewPCG(seed, 13)), seen: map[string]int{}, cut: map[[2]int]bool{}, delay: 3, gone: map[uint64]bool{},
		entries: map[uint64]Entry{}, states: map[uint64]uint64{}, leaders: map[uint64]uint64{}, target: []int{0},
	}
	for i := range 3 + 2*int(seed%2) {
		s.nodes = append(s.nodes, &simNode{s: s, id: i, disk: newFS()})
	}
	return s
}

func (s *simulation) fail(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

func (s *simulation) saw(what string) {
	s.seen[what]++
	s.note(what)
}

// note adds to the trace of what has happened.
func (s *simulation) note(args ...any) {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, s.trace, s.now, args)
	s.trace = h.Sum64()
}

func (s *simulation) after(delay int, do func()) {
	s.seq++
	s.queue = append(s.queue, simEvent{s.now + max(delay, 1), s.seq, do})
}

func (s *simulation) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			if os.Getenv("LEAT_QUORUM_SEED") != "" {
				panic(r)
			}
		}
	}()
	for ; s.now < simSteps+simHeal; s.now++ {
		if s.now == simSteps {
			s.heal()
		}
		s.step()
		if len(s.errs) > 0 {
			return errors.Join(s.errs...)
		}
		if s.now > simSteps+200 && s.now%50 == 0 && s.isHealed() {
			return s.checkEnd()
		}
	}
	return s.checkEnd()
}

func (s *simulation) step() {
	var due []simEvent
	s.queue = slices.DeleteFunc(s.queue, func(e simEvent) bool {
		if e.at <= s.now {
			due = append(due, e)
		}
		return e.at <= s.now
	})
	slices.SortFunc(due, func(a, b simEvent) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
	for _, e := range due {
		e.do()
	}
	for _, n := range s.nodes {
		if n.node == nil && s.now >= n.startAt && (n.id == 0 || s.now > 20) {
			n.start()
		}
		if n.isUp() && (s.now+3*n.id)%simTick == 0 {
			if n.node.loop.needsTicks() {
				n.node.loop.tick()
			}
			n.afterEvent()
		}
		n.poll()
	}
	s.propose()
	if s.now%20 == 0 {
		s.changeMembers()
	}
	if !s.calm {
		s.injectFaults()
	}
	s.checkAnswers()
}

func (n *simNode) isUp() bool { return n.node != nil && n.s.now >= n.hungUntil }

func (n *simNode) start() {
	s := n.s
	n.state, n.hasFailed = &simState{s: s}, false
	state := n.state
	fs := vfs.NewFaulty(n.disk, n.hook)
	cfg := Config{
		ID: int32(n.id), Dir: "data/meta", FS: fs, Logger: slog.New(slog.DiscardHandler), SnapshotBytes: 4096,
		Apply: state.apply, Capture: state.capture, Transport: simTransport{}, Cluster: "sim", Join: n.id != 0,
	}
	if path := os.Getenv("LEAT_QUORUM_LOG"); path != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(&simWriter{n}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if n.id == 0 && n.wasUp {
		cfg.Join = true // a lost disk must not found another cluster
	}
	node, err := prepareNode(cfg, small)
	if n.left != nil {
		n.restartLater()
		return
	}
	if err != nil {
		if n.hasFailed {
			n.disk = n.disk.KillClone(nil)
			n.restartLater()
			return
		}
		s.fail("node %d does not start: %w", n.id, err)
		return
	}
	n.node, n.wasUp = node, true
	l := node.loop
	l.spawn = func(f func()) { f() }
	l.log.spawn = l.spawn
	l.requests = requests{
		send: func(m []*pb.Message) {
			n.checkOnDisk(m)
			s.send(n, encodeMessages("sim", m))
		},
		pull:  func(p Pull) { s.pull(n, p) },
		fetch: func(p Part) { s.fetch(n, p) },
	}
	n.role = node.Status().Role
	s.note("start", n.id, l.self, l.committed)
	n.afterEvent()
}

type simWriter struct{ n *simNode }

func (w *simWriter) Write(b []byte) (int, error) {
	return fmt.Fprintf(os.Stderr, "%d node %d: %s", w.n.s.now, w.n.id, b[34:])
}

type simTransport struct{}

func (simTransport) Send([]Message)                                      {}
func (simTransport) ReadCommitted(context.Context, Pull) ([]byte, error) { return nil, io.EOF }
func (simTransport) ReadSnapshot(context.Context, Part) ([]byte, error)  { return nil, io.EOF }

var errMedium = errors.New("medium error")

// hook cuts the power, or fails, at a change of the disk.
func (n *simNode) hook(op vfs.Op, name string) error {
	if n.left != nil {
		return errPower
	}
	if !op.Changes() {
		return nil
	}
	if os.Getenv("LEAT_QUORUM_LOG") != "" {
		fmt.Fprintln(os.Stderr, n.s.now, "node", n.id, "disk", op, name, n.fault, n.changesTo)
	}
	if n.fault > 0 {
		if n.fault--; n.fault == 0 && (op == vfs.OpWrite || op == vfs.OpSync || op == vfs.OpSyncDir) {
			n.s.saw("disk fault")
			n.hasFailed = true
			return errMedium
		}
	}
	if n.changesTo > 0 {
		if n.changesTo--; n.changesTo == 0 {
			n.s.saw("cut in a write")
			n.left = n.disk.Crash(n.s.rng)
			if n.s.rng.IntN(2) == 0 { // nobody but the others knows what this node has said last
				n.s.after(1+n.s.rng.IntN(20), n.s.cutLeader)
			}
			return errPower
		}
	}
	return nil
}

// restartLater ends a node's life, and begins another one after a while.
func (n *simNode) restartLater() {
	if n.left != nil {
		n.disk = n.left
	}
	n.s.checkAnswers() // some were answered before the end
	n.s.asked = slices.DeleteFunc(n.s.asked, func(p *simProposal) bool { return p.to == n.node })
	if n.node != nil && n.s.rng.IntN(2) == 0 { // connections to it are refused
		dead := n.node.loop.self
		for _, other := range n.s.nodes {
			n.s.after(n.s.rng.IntN(5), func() { other.forget(dead) })
		}
	}
	n.node, n.left, n.changesTo, n.fault, n.hungUntil = nil, nil, 0, 0, 0
	n.startAt = n.s.now + 1 + n.s.rng.IntN(300)
}

func (n *simNode) forget(dead uint64) {
	if !n.isUp() || n.node.loop.core == nil {
		return
	}
	if c := n.node.loop.core; c.leader == dead && !c.leads {
		n.s.saw("dead leader reported")
	}
	n.node.loop.handle(func() error { n.node.loop.core.forget(dead); return nil })
	n.afterEvent()
}

// afterEvent does what the loop's goroutine does after each event, and checks the node.
func (n *simNode) afterEvent() {
	if n.node == nil {
		return
	}
	l := n.node.loop
	if l.state != Ended && n.left == nil {
		l.afterEvent()
		if n.s.rng.IntN(3) == 0 {
			n.applyPending()
		}
	}
	if n.left != nil {
		n.restartLater()
		return
	}
	n.check()
	if n.onChanged != nil && n.change != nil && len(n.change.done) > 0 {
		if err := <-n.change.done; err == nil {
			n.onChanged()
		}
		n.change = nil
	}
}

func (n *simNode) applyPending() {
	l := n.node.loop
	if l.pending.isEmpty() {
		return
	}
	if err := l.applyPending(); err != nil {
		n.s.fail("node %d cannot apply: %w", n.id, err)
	}
}

// poll passes the results of what runs beside the loop to it.
func (n *simNode) poll() {
	if !n.isUp() || n.s.rng.IntN(4) > 0 {
		return
	}
	l := n.node.loop
	if l.state == Faulted || l.state == Ended {
		return
	}
	n.applyPending()
	switch { // a select would choose at random
	case len(l.applier.captured) > 0:
		l.writeSnapshot(<-l.applier.captured)
	case len(l.written) > 0:
		l.noteSnapshot(<-l.written)
	case len(l.stored) > 0:
		l.handle(func() error { return l.noteStored(<-l.stored) })
	case len(n.node.wantSnapshot) > 0:
		<-n.node.wantSnapshot
		l.askSnapshotFor()
	case len(n.node.messages) > 0: // they came while the disk hung
		l.stepBatch(gatherMessages(<-n.node.messages, n.node.messages))
	default:
		return
	}
	n.afterEvent()
}

// check checks what must be true of a node at any time.
func (n *simNode) check() {
	l, s := n.node.loop, n.s
	if l.state == Ended {
		s.fail("node %d has ended: %v", n.id, n.node.err)
		return
	}
	if len(l.conf.GetVoters()) == 2 || len(l.conf.GetVotersOutgoing()) == 2 {
		s.fail("node %d knows the voters %v", n.id, l.conf)
	}
	if l.core != nil && l.core.leads {
		if other, ok := s.leaders[l.core.term]; ok && other != l.self {
			s.fail("term %d has the leaders %x and %x", l.core.term, other, l.self)
		} else if !ok {
			s.leaders[l.core.term] = l.self
			s.saw("leader")
		}
	}
	if len(l.conf.GetVoters()) == 5 {
		s.seen["five voters"]++
	}
	if role := n.node.Status().Role; role != n.role {
		if n.role == Observer || role != Observer {
			s.saw(fmt.Sprintf("%v to %v", n.role, role))
		} else {
			s.saw("member to observer")
		}
		n.role = role
	}
}

func (m *simState) apply(u Update) error {
	if u.Snapshot != nil {
		head, rest, _ := strings.Cut(string(u.Snapshot), "\n")
		m.last, _ = strconv.ParseUint(head, 10, 64)
		m.lines = nil
		if rest != "" {
			m.lines = strings.Split(rest, "\n")
		}
		m.check()
	}
	for _, e := range u.Entries {
		if e.Index <= m.last {
			m.s.fail("entry %d is applied after entry %d", e.Index, m.last)
		}
		if have, ok := m.s.entries[e.Index]; ok && (have.Term != e.Term || string(have.Data) != string(e.Data)) {
			m.s.fail("entry %d is %q of term %d, and %q of term %d elsewhere", e.Index, e.Data, e.Term, have.Data, have.Term)
		}
		m.s.entries[e.Index] = e
		m.last = e.Index
		m.lines = append(m.lines, string(e.Data))
		m.check()
	}
	return nil
}

// check compares the state with that of other nodes after the same entry.
func (m *simState) check() {
	h := fnv.New64a()
	for _, l := range m.lines {
		_, _ = h.Write([]byte(l))
	}
	if have, ok := m.s.states[m.last]; ok && have != h.Sum64() {
		m.s.fail("the state after entry %d is another one on another node", m.last)
	}
	m.s.states[m.last] = h.Sum64()
}

func (m *simState) capture() func() []byte {
	text := fmt.Sprintf("%d\n%s", m.last, strings.Join(m.lines, "\n"))
	return func() []byte { return []byte(text) }
}

// leaderNode returns a node that may propose, if there is one.
func (s *simulation) leaderNode() *simNode {
	var leaders []*simNode
	for _, n := range s.nodes {
		if n.isUp() {
			if _, ok := n.node.Leading(); ok && n.node.loop.state != Faulted {
				leaders = append(leaders, n)
			}
		}
	}
	if len(leaders) == 0 {
		return nil
	}
	return leaders[s.rng.IntN(len(leaders))]
}

func (s *simulation) propose() {
	if s.rng.IntN(6) > 0 || s.calm && s.now > simSteps+100 {
		return
	}
	n := s.leaderNode()
	if n == nil {
		return
	}
	term, _ := n.node.Leading()
	var batch []*proposal
	for range 1 + s.rng.IntN(3) {
		s.lines++
		line := fmt.Sprintf("%d-%s", s.lines, strings.Repeat("x", s.rng.IntN(60)))
		p := &simProposal{&proposal{term: term, data: wrapProposal(term, []byte(line)), done: make(chan error, 1)}, line, n.node}
		batch = append(batch, p.proposal)
		s.asked = append(s.asked, p)
	}
	n.node.loop.proposeBatch(batch)
	n.afterEvent()
}

// checkAnswers notes the proposals that are answered.
func (s *simulation) checkAnswers() {
	s.asked = slices.DeleteFunc(s.asked, func(p *simProposal) bool {
		select {
		case err := <-p.done:
			if err == nil {
				s.seen["acknowledged"]++
				s.acked = append(s.acked, p)
				if e := s.entries[p.index]; string(e.Data) != p.line {
					s.fail("%q is acknowledged as entry %d, which is %q", p.line, p.index, e.Data)
				}
			} else {
				s.seen["lost proposal"]++
			}
			return true
		default:
			return false
		}
	})
}

// changeMembers does what an active controller does: it makes the target's nodes learners, and then
// voters.
func (s *simulation) changeMembers() {
	if !s.calm && s.now%400 == 0 {
		size := []int{1, 3, len(s.nodes), 3}[(s.now/400)%4]
		s.target = s.rng.Perm(len(s.nodes))[:size]
		s.note("target", s.target)
	}
	n := s.leaderNode()
	if n == nil {
		return
	}
	l := n.node.loop
	var want Members
	var to uint64 // another voter that may lead
	ready := true
	for _, id := range s.target {
		other := s.nodes[id]
		if other.node == nil {
			ready = false
			continue
		}
		self := other.node.loop.self
		want.Voters = append(want.Voters, self)
		isVoter := slices.Contains(l.conf.GetVoters(), self)
		if isVoter {
			to = self
		} else if !slices.Contains(l.conf.GetLearners(), self) {
			ready = false
		}
	}
	term, _ := n.node.Leading()
	if !ready {
		var learners []uint64
		for _, v := range want.Voters {
			if !slices.Contains(l.conf.GetVoters(), v) {
				learners = append(learners, v)
			}
		}
		want = Members{Voters: l.conf.GetVoters(), Learners: learners}
	} else if !slices.Contains(want.Voters, l.self) {
		if to != 0 && s.rng.IntN(2) == 0 {
			w := &waiter{done: make(chan error, 1)}
			l.handle(func() error { return ignore(l.core.startMove(to, w)) })
			s.saw("transfer")
			n.afterEvent()
			return
		}
		want.Learners, want.Voters = nil, slices.Concat(want.Voters, []uint64{l.self})
		if len(want.Voters)%2 == 0 {
			want.Voters = want.Voters[1:]
		}
	}
	w := &waiter{done: make(chan error, 1)}
	if l.hasOthers() && s.rng.IntN(10) == 0 {
		s.askForTwo(n)
		return
	}
	l.handle(func() error {
		before := l.conf
		err := l.core.startChange(term, want, w)
		s.note("change", err)
		if err == nil && !slices.Equal(slices.Sorted(slices.Values(want.Voters)), slices.Sorted(slices.Values(before.GetVoters()))) {
			s.saw("change of the voters")
			n.change = w
		}
		return nil
	})
	n.afterEvent()
}

// askForTwo asks for two voters, which is refused.
func (s *simulation) askForTwo(n *simNode) {
	l := n.node.loop
	all := slices.DeleteFunc(slices.Concat(l.conf.GetVoters(), l.conf.GetLearners()), func(id uint64) bool { return id == l.self })
	if len(all) == 0 {
		return
	}
	term, _ := n.node.Leading()
	l.handle(func() error {
		w := &waiter{done: make(chan error, 1)}
		if err := l.core.startChange(term, Members{Voters: []uint64{l.self, all[0]}}, w); err == nil {
			s.fail("two voters are accepted")
		}
		return nil
	})
	n.afterEvent()
}

func ignore(error) error { return nil }

func (s *simulation) injectFaults() {
	if s.rng.IntN(50) > 0 {
		return
	}
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	switch s.rng.IntN(9) {
	case 0, 1:
		if n.node != nil {
			s.saw("power cut")
			s.cutElection()
			n.left = n.disk.Crash(s.rng)
			n.restartLater()
		}
	case 2:
		if n.node != nil {
			s.saw("kill")
			n.left = n.disk.KillClone(nil)
			n.restartLater()
		}
	case 3:
		n.changesTo = 1 + s.rng.IntN([]int{3, 40}[s.rng.IntN(2)])
	case 4:
		if s.rng.IntN(2) == 0 {
			n.fault = 1 + s.rng.IntN(40)
		} else if n.node != nil {
			s.saw("hung disk")
			n.hungUntil = s.now + s.rng.IntN(500)
		}
	case 5:
		s.saw("one-way cut")
		s.cutFor([2]int{n.id, s.rng.IntN(len(s.nodes))})
	case 6:
		s.saw("partition")
		for _, other := range s.nodes {
			if s.rng.IntN(2) == 0 {
				s.cutFor([2]int{n.id, other.id})
				s.cutFor([2]int{other.id, n.id})
			}
		}
	case 7:
		s.loss = []float64{0, 0, 0.05, 0.3}[s.rng.IntN(4)]
		s.delay = []int{2, 5, 30}[s.rng.IntN(3)]
	case 8:
		s.loseDisk(n)
	}
	if n.node != nil && n.node.loop.state == Faulted { // somebody restarts it
		n.left = n.disk.KillClone(nil)
		n.restartLater()
	}
}

// cutLeader cuts the leader's power for a while.
func (s *simulation) cutLeader() {
	n := s.leaderNode()
	if n == nil || s.calm {
		return
	}
	s.saw("power cut")
	n.left = n.disk.Crash(s.rng)
	n.restartLater()
	n.startAt = s.now + 300 + s.rng.IntN(300)
	if s.rng.IntN(2) == 0 {
		clear(s.cut)
	}
}

// cutElection cuts the power of some nodes in the writes that follow, such as those of an election.
func (s *simulation) cutElection() {
	if s.rng.IntN(2) == 0 {
		return
	}
	for _, n := range s.nodes {
		if s.rng.IntN(2) == 0 {
			n.changesTo = 1 + s.rng.IntN(5)
		}
	}
}

func (s *simulation) cutFor(pair [2]int) {
	s.cut[pair] = true
	s.after(50+s.rng.IntN(400), func() { delete(s.cut, pair) })
}

// loseDisk replaces a node's disk by an empty one, if a majority of the voters keeps theirs. The
// quorum bears one loss until the lost member is replaced.
func (s *simulation) loseDisk(n *simNode) {
	if !n.wasUp || n.node == nil {
		return
	}
	leader := s.leaderNode()
	self := n.node.loop.self
	for _, other := range s.nodes {
		if other != n && other.node == nil {
			return // it may know members that nobody else does
		}
		if other.node == nil {
			continue
		}
		c := other.node.loop.conf
		for gone := range s.gone {
			if names(c, gone) {
				return
			}
		}
		if names(c, self) && (len(c.GetVoters()) < 3 || isJoint(c)) {
			return
		}
	}
	if leader == nil || leader == n || leader.node.loop.lastConf > leader.node.loop.committed.index {
		return
	}
	s.saw("disk lost")
	s.gone[self] = true
	n.left = newFS()
	n.restartLater()
}

// heal ends all faults.
func (s *simulation) heal() {
	s.calm, s.loss, s.delay = true, 0, 3
	clear(s.cut)
	for _, n := range s.nodes {
		n.changesTo, n.fault, n.hungUntil, n.startAt = 0, 0, 0, s.now
		if n.node != nil && n.node.loop.state == Faulted {
			n.left = n.disk.KillClone(nil)
			n.restartLater()
			n.startAt = s.now
		}
	}
	s.target = s.rng.Perm(len(s.nodes))[:3]
}

// isHealed tells whether the target's nodes are the voters and all nodes are up to date.
func (s *simulation) isHealed() bool {
	n := s.leaderNode()
	if n == nil || len(s.asked) > 0 {
		return false
	}
	l := n.node.loop
	if isJoint(l.conf) || len(l.conf.GetVoters()) != 3 || len(l.conf.GetLearners()) > 0 {
		return false
	}
	for _, id := range s.target {
		if !slices.Contains(l.conf.GetVoters(), s.nodes[id].node.loop.self) {
			return false
		}
	}
	for _, other := range s.nodes {
		if other.node == nil || other.node.Applied() != l.committed.index || other.node.loop.conf.Equivalent(l.conf) != nil {
			return false
		}
	}
	return true
}

func (s *simulation) checkEnd() error {
	if !s.isHealed() {
		var text []string
		for _, n := range s.nodes {
			if n.node == nil {
				text = append(text, fmt.Sprintf("%d is down", n.id))
				continue
			}
			l := n.node.loop
			st := n.node.Status()
			text = append(text, fmt.Sprintf("%d (%x) %v %v, leads %v in term %d, committed %d, applied %d, voters %x, learners %x, downloads %v, pulling %v",
				n.id, l.self, st.Role, l.state, l.core != nil && l.core.leads, st.Term, l.committed, st.Applied, l.conf.GetVoters(), l.conf.GetLearners(), l.download != nil, l.pulling))
		}
		return fmt.Errorf("it does not heal, target %v, %d asked:\n%s", s.target, len(s.asked), strings.Join(text, "\n"))
	}
	for _, n := range s.nodes {
		have := map[string]bool{}
		for _, line := range n.state.lines {
			if have[line] {
				return fmt.Errorf("node %d has %q twice", n.id, line)
			}
			have[line] = true
		}
		for _, p := range s.acked {
			if !have[p.line] {
				return fmt.Errorf("node %d has lost %q, entry %d of term %d", n.id, p.line, p.index, p.term)
			}
		}
	}
	s.note(slices.Sorted(maps.Keys(s.entries)))
	return nil
}
