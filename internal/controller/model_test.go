package controller

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// TestModel runs random commands on random clusters: nodes crash, lose their disks and what
// was in the page cache, come back, are fenced and removed; leaders propose in-sync sets,
// some of them late; administrators reassign replicas, elect leaders and change configs; topics
// mirror those of another cluster, are cut, promoted and deleted; and
// controllers fail between two parts of a command. After each entry of the metadata log it
// checks the invariants of the image, that the entry is not too large, that a leader
// which is elected without permission to lose records has all committed ones, that a cut comes
// with a raised leader epoch, and that nothing but what was asked for changes what a topic or a partition mirrors.
// In the end, when all nodes are back, each partition that still has a trusted replica, or one only, has a leader.
func TestModel(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(250) {
		w := newModelWorld(t, seed, seen)
		for i := 0; i < 250 && !t.Failed(); i++ {
			w.step()
		}
		if !t.Failed() {
			w.heal()
		}
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(w.notes, "\n"))
			return
		}
	}
	for _, what := range []string{
		"clean election", "election of an eligible replica", "election of the last leader", "election of the only replica", "only replica led on", "unclean election", "no leader",
		"in-sync set grew", "in-sync set shrank", "proposal refused", "leader gives up", "late proposal accepted", "kept its place", "lost its place",
		"directory replaced", "copy of the same run", "registration refused", "reassignment began", "reassignment ended", "reassignment cancelled",
		"following topic grew", "replica moved", "node stopped", "node removed", "parts", "controller failed between parts",
		"eligible cleared by a config",
		"mirrors: made", "mirrors: cut", "mirrors: epoch raised", "mirrors: decided", "mirrors: decided by who has not seen all", "mirrors: promoted", "mirrors: refused", "mirrors: parts", "mirrors: late change", "mirrors: link removed", "mirrors: topic deleted",
	} {
		if seen[what] == 0 {
			t.Errorf("it never happened: %s", what)
		}
	}
}

// modelLog is a replica's log: numbers of records, of which some are on disk.
type modelLog struct {
	records []int
	durable int
}

func (l *modelLog) cut(n int) {
	l.records = l.records[:min(n, len(l.records))]
	l.durable = min(l.durable, len(l.records))
}

// common is how many records two logs have in common.
func common(a, b []int) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// modelPartition is the truth about a partition.
type modelPartition struct {
	logs       map[int32]*modelLog
	committed  []int
	epochStart int
	joining    []int32 // proposed at the present partition epoch
}

type modelNode struct {
	id        int32
	up        bool
	clean     bool // its last run ended in order
	directory meta.UUID
	process   byte
	epoch     int64 // of its registration
	recorded  int64 // the epoch that its directory has recorded
	served    int64 // the epoch in which it was active last
	// generation is the one that its directory has noted, as the metadata know since its last heartbeat.
	generation int64
}

type modelProposal struct {
	node   int32
	epoch  int64
	change InSyncChange
}

type modelWorld struct {
	t         *testing.T
	rng       *rand.Rand
	m         *meta.Image
	static    *config.Static
	limit     int
	nodes     []*modelNode
	parts     map[partitionID]*modelPartition
	proposals []modelProposal
	mirrors   map[meta.UUID]*modelMirror // by the ids of their topics
	late      []*LinksChange             // that were asked for, and have not come yet
	next      int                        // record or id
	losing    int32                      // the node that is just being registered or removed
	seen      map[string]int
	notes     []string
}

func newModelWorld(t *testing.T, seed uint64, seen map[string]int) *modelWorld {
	t.Helper()
	static, err := config.NewStatic(0, map[string]string{})
	if err != nil {
		t.Fatal(err)
	}
	w := &modelWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 13)), m: meta.Empty(), static: static,
		parts: map[partitionID]*modelPartition{}, mirrors: map[meta.UUID]*modelMirror{}, seen: seen,
	}
	w.limit = 60 + w.rng.IntN(400)
	w.apply("create", meta.Append(meta.Append(nil, meta.ClusterCreated{ID: "here", Tag: 1}), meta.LevelSet{Level: meta.LatestLevel}), nil)
	for i := range 3 + w.rng.IntN(3) {
		n := &modelNode{id: int32(i) + 1}
		w.nodes = append(w.nodes, n)
		if i == 0 || w.chance(0.5) { // the others join later
			w.start(n)
			w.beat(n)
		}
	}
	w.createTopic()
	return w
}

func (w *modelWorld) rules() *Rules { return &Rules{Image: w.m, Static: w.static, Limit: w.limit} }

func (w *modelWorld) chance(p float64) bool { return w.rng.Float64() < p }

func (w *modelWorld) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

func (w *modelWorld) fail(format string, args ...any) {
	w.t.Errorf(format, args...)
	w.note("FAILED: "+format, args...)
}

func (w *modelWorld) node(id int32) *modelNode { return w.nodes[id-1] }

// parts runs a command part by part. It returns false if the controller failed in between, or
// the command was refused.
func (w *modelWorld) run(what string, trusted map[partitionID][]int32, decide func(r *Rules) (Part, *Error)) bool {
	for first := true; ; first = false {
		d, err := decide(w.rules())
		if err != nil {
			return false
		}
		w.apply(what, d.Records, trusted)
		if w.t.Failed() || !d.More {
			return !w.t.Failed()
		}
		if first {
			w.seen["parts"]++
		}
		if w.chance(0.1) {
			w.seen["controller failed between parts"]++
			return false
		}
	}
}

// apply applies records. trusted are replicas that are believed, by partition, because their
// leader proposes them.
func (w *modelWorld) apply(what string, records []byte, trusted map[partitionID][]int32) {
	if len(records) == 0 {
		return
	}
	isWhole := what == "create" || what == "config" || strings.HasPrefix(what, "mirrors") // it has several records that stay together
	if w.limit > 0 && len(records) > w.limit && countRecords(records) > 1 && !isWhole {
		w.fail("%s: %d bytes in a part of %d", what, len(records), w.limit)
	}
	next, delta, err := meta.Apply(w.m, records)
	if err != nil {
		w.fail("%s: %v", what, err)
		return
	}
	again, _, err := meta.Apply(meta.Empty(), meta.Encode(next))
	if err != nil || string(meta.Encode(again)) != string(meta.Encode(next)) {
		w.fail("%s: the image does not survive a snapshot: %v", what, err)
	}
	prev := w.m
	w.m = next
	w.note("%s: %d bytes", what, len(records))
	for _, c := range delta.Topics {
		if c.New == nil {
			for i := range c.Old.Partitions {
				delete(w.parts, partitionID{c.Old.ID, int32(i)})
			}
			continue
		}
		for i := range c.New.Partitions {
			w.checkCut(what, c, int32(i))
			w.checkChange(what, prev, c, int32(i), trusted)
		}
	}
	for t := range w.m.Topics() {
		for i := range t.Partitions {
			w.checkPartition(what, t, int32(i))
		}
	}
}

func countRecords(b []byte) int {
	n := 0
	for len(b) > 0 {
		at := 2
		size := int(b[at]) & 0x7f
		if b[at] > 0x7f {
			at++
			size |= int(b[at]) << 7
		}
		b = b[at+1+size:]
		n++
	}
	return n
}

// checkPartition checks the invariants of a partition.
func (w *modelWorld) checkPartition(what string, t *meta.Topic, number int32) {
	p, r := &t.Partitions[number], w.rules()
	bad := ""
	switch {
	case p.Leader >= 0 && !slices.Contains(p.ISR, p.Leader):
		bad = "the leader is not in sync"
	case p.Leader >= 0 && w.m.Brokers[p.Leader] == nil:
		bad = "a broker leads that is not registered"
	case p.Leader >= 0 && len(p.Replicas) > 1 && w.m.Brokers[p.Leader].State == meta.BrokerFenced:
		bad = "a fenced broker leads"
	case !containsAll(p.Replicas, p.ISR), !containsAll(p.Replicas, p.Eligible), !containsAll(p.Replicas, p.LastEligible):
		bad = "a member has no replica"
	case slices.ContainsFunc(p.Eligible, func(id int32) bool { return slices.Contains(p.ISR, id) }):
		bad = "an eligible replica is in sync"
	case len(p.Eligible) > 0 && len(p.ISR) >= r.minISR(t, p):
		bad = "a replica is eligible though records can be committed"
	case !containsAll(p.Replicas, p.Adding), !containsAll(p.Replicas, p.Removing), len(p.Replicas) == len(p.Adding):
		bad = "a reassignment of other replicas"
	case p.Leader >= 0 && len(p.LastEligible) > 0:
		bad = "there is a leader and a last leader"
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(p.Replicas)))
	if bad == "" && (len(sorted) != len(p.Replicas) || len(p.Replicas) == 0) {
		bad = "replicas are there twice"
	}
	if bad != "" {
		w.fail("%s: %s-%d: %s: %+v", what, t.Name, number, bad, *p)
	}
}

// checkChange checks a change of a partition, and takes it over into the truth.
func (w *modelWorld) checkChange(what string, prev *meta.Image, c meta.TopicChange, number int32, trusted map[partitionID][]int32) {
	id := partitionID{c.New.ID, number}
	p := &c.New.Partitions[number]
	truth := w.parts[id]
	if c.Old == nil || int(number) >= len(c.Old.Partitions) {
		truth = &modelPartition{logs: map[int32]*modelLog{}}
		w.parts[id] = truth
		for _, r := range p.Replicas {
			truth.logs[r] = &modelLog{}
		}
		return
	}
	old := &c.Old.Partitions[number]
	if old.PartitionEpoch == p.PartitionEpoch {
		return
	}
	w.note("  %s-%d: %+v", c.New.Name, number, *p)
	truth.joining = nil
	if p.PartitionEpoch < old.PartitionEpoch || p.LeaderEpoch < old.LeaderEpoch || p.Leader != old.Leader && p.LeaderEpoch == old.LeaderEpoch {
		w.fail("%s: %s-%d goes from %+v to %+v", what, c.New.Name, number, *old, *p)
	}
	for _, r := range p.Replicas {
		if truth.logs[r] == nil {
			truth.logs[r] = &modelLog{}
		}
	}
	maps.DeleteFunc(truth.logs, func(r int32, _ *modelLog) bool { return !slices.Contains(p.Replicas, r) })
	w.countChange(old, p)
	if p.Leader < 0 || p.LeaderEpoch == old.LeaderEpoch {
		return
	}
	records := truth.logs[p.Leader].records
	missing := common(truth.committed, records) < len(truth.committed)
	settings := meta.TopicSettings(prev, w.static, prev.TopicByID(c.New.ID))
	switch {
	case p.Leader == old.Leader && strings.HasPrefix(what, "mirrors"): // the epoch was raised
	case p.Leader == old.Leader: // it is active again
		w.seen["only replica led on"]++
	case slices.Contains(old.ISR, p.Leader), slices.Contains(trusted[id], p.Leader):
		w.seen["clean election"]++
	case slices.Contains(old.Eligible, p.Leader):
		w.seen["election of an eligible replica"]++
	case slices.Equal(old.LastEligible, []int32{p.Leader}) && len(without(old.ISR, w.losing)) == 0 && len(without(old.Eligible, w.losing)) == 0:
		w.seen["election of the last leader"]++
		truth.committed = truth.committed[:common(truth.committed, records)]
		missing = false
	case slices.Equal(old.Replicas, []int32{p.Leader}):
		w.seen["election of the only replica"]++
		truth.committed = truth.committed[:common(truth.committed, records)]
		missing = false
	case settings.UncleanElection || what == "elect uncleanly":
		w.seen["unclean election"]++
		truth.committed = truth.committed[:common(truth.committed, records)]
		missing = false
	default:
		w.fail("%s: %s-%d: %d was elected of %+v", what, c.New.Name, number, p.Leader, *old)
	}
	if missing {
		w.fail("%s: %s-%d: the new leader %d has %v, committed are %v; before: %+v", what, c.New.Name, number, p.Leader, records, truth.committed, *old)
	}
	truth.epochStart = len(records)
}

func (w *modelWorld) countChange(old, p *meta.Partition) {
	if p.Leader < 0 && old.Leader >= 0 {
		w.seen["no leader"]++
	}
	if isReassigned(old) && !isReassigned(p) {
		w.seen["reassignment ended"]++
	}
	if !isReassigned(old) && isReassigned(p) {
		w.seen["reassignment began"]++
	}
	if len(p.ISR) > len(old.ISR) {
		w.seen["in-sync set grew"]++
	}
	if len(p.ISR) < len(old.ISR) {
		w.seen["in-sync set shrank"]++
	}
}

// pick returns a random partition and the truth about it, or nil.
func (w *modelWorld) pick() (t *meta.Topic, number int32, truth *modelPartition) {
	topics := w.rules().concerned(func(*meta.Partition) bool { return true })
	if len(topics) == 0 {
		return nil, 0, nil
	}
	t = topics[w.rng.IntN(len(topics))]
	number = int32(w.rng.IntN(len(t.Partitions)))
	return t, number, w.parts[partitionID{t.ID, number}]
}

// pickLed is pick for a partition whose leader serves, or nil.
func (w *modelWorld) pickLed() (t *meta.Topic, number int32, truth *modelPartition) {
	t, number, truth = w.pick()
	if t == nil || t.Partitions[number].Leader < 0 || !w.serves(t.Partitions[number].Leader) {
		return nil, 0, nil
	}
	return t, number, truth
}

func (w *modelWorld) isDurable(t *meta.Topic) bool { return w.rules().settings(t).FlushMessages == 1 }

// serves tells whether a node is up in its present registration.
func (w *modelWorld) serves(id int32) bool {
	n, b := w.node(id), w.m.Brokers[id]
	return n.up && b != nil && b.Epoch == n.epoch
}

func (w *modelWorld) step() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	defer w.checkMirrors()
	switch w.rng.IntN(40) {
	case 0, 1, 2, 3:
		w.write()
	case 4, 5, 6, 7, 8:
		w.fetch()
	case 9, 10, 11:
		w.commit()
	case 12, 13, 14:
		w.propose()
	case 15:
		w.deliver()
	case 16:
		n.up, n.clean = false, false
		w.note("node %d crashes", n.id)
	case 17, 18:
		w.start(n)
	case 19, 20, 21:
		w.beat(n)
	case 22:
		w.fence(n)
	case 23:
		w.stop(n)
	case 24:
		w.reassign()
	case 25:
		w.elect()
	case 26:
		w.maintain()
	case 27:
		w.changeConfig()
	case 28:
		w.sync()
	case 29:
		w.remove(n)
	case 30:
		if w.chance(0.2) {
			w.createTopic()
		}
	case 31:
		w.move(n)
	default:
		w.stepLinks()
	}
}

func (w *modelWorld) write() {
	t, i, truth := w.pickLed()
	if t == nil {
		return
	}
	p := &t.Partitions[i]
	w.next++
	log := truth.logs[p.Leader]
	log.records = append(slices.Clip(log.records), w.next)
	if w.isDurable(t) {
		log.durable = len(log.records)
	}
}

func (w *modelWorld) fetch() {
	t, i, truth := w.pickLed()
	if t == nil {
		return
	}
	p := &t.Partitions[i]
	f := p.Replicas[w.rng.IntN(len(p.Replicas))]
	if f == p.Leader || !w.serves(f) {
		return
	}
	log, leader := truth.logs[f], truth.logs[p.Leader].records
	log.cut(common(log.records, leader))
	to := len(leader)
	if w.chance(0.3) {
		to = len(log.records) + w.rng.IntN(to-len(log.records)+1)
	}
	log.records = slices.Clone(leader[:to])
	if w.isDurable(t) {
		log.durable = len(log.records)
	}
}

func (w *modelWorld) sync() {
	for _, truth := range w.parts {
		for id, log := range truth.logs {
			if w.node(id).up {
				log.durable = len(log.records)
			}
		}
	}
}

// commit moves the high watermark of a partition as the leader does: over the in-sync set and
// those that were proposed for it.
func (w *modelWorld) commit() {
	t, i, truth := w.pickLed()
	if t == nil || len(t.Partitions[i].ISR) < w.rules().minISR(t, &t.Partitions[i]) {
		return
	}
	p := &t.Partitions[i]
	records := truth.logs[p.Leader].records
	end := len(records)
	for _, id := range slices.Concat(p.ISR, truth.joining) {
		log := truth.logs[id]
		if w.isDurable(t) {
			end = min(end, log.durable)
		}
		end = min(end, common(log.records, records))
	}
	if end > len(truth.committed) {
		truth.committed = slices.Clone(records[:end])
	}
}

// propose has a leader propose an in-sync set, and delivers the proposal now or later.
func (w *modelWorld) propose() {
	t, i, truth := w.pickLed()
	if t == nil {
		return
	}
	p := &t.Partitions[i]
	records := truth.logs[p.Leader].records
	change := InSyncChange{Topic: t.ID, Partition: i, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
	var joining []int32
	for _, id := range p.Replicas {
		log, inSync := truth.logs[id], slices.Contains(p.ISR, id)
		end := common(log.records, records)
		if w.isDurable(t) {
			end = min(end, log.durable)
		}
		joins := !inSync && w.serves(id) && end >= max(len(truth.committed), truth.epochStart)
		if inSync && (id == p.Leader || w.chance(0.8)) || joins {
			change.ISR = append(change.ISR, Member{id, w.node(id).epoch})
		}
		if joins {
			joining = append(joining, id)
		}
	}
	others := slices.DeleteFunc(slices.Clone(change.ISR), func(m Member) bool { return m.ID == p.Leader })
	if len(others) > 0 && w.chance(0.05) { // it cannot write its log
		change.ISR = others
		w.seen["leader gives up"]++
	}
	truth.joining = append(truth.joining, joining...)
	w.proposals = append(w.proposals, modelProposal{p.Leader, w.node(p.Leader).epoch, change})
	if w.chance(0.5) {
		w.deliver()
	}
}

func (w *modelWorld) deliver() {
	if len(w.proposals) == 0 {
		return
	}
	i := w.rng.IntN(len(w.proposals))
	p := w.proposals[i]
	if i < len(w.proposals)-1 {
		defer func() { w.seen["late proposal accepted"]++ }()
	}
	if w.chance(0.8) {
		w.proposals = slices.Delete(w.proposals, i, i+1)
	}
	id := partitionID{p.change.Topic, p.change.Partition}
	var ids []int32
	for _, m := range p.change.ISR {
		ids = append(ids, m.ID)
	}
	before := w.m
	defer func() { w.checkProposal(before, id, ids) }()
	w.run("in-sync set", map[partitionID][]int32{id: ids}, func(r *Rules) (Part, *Error) {
		d, results, err := r.AlterPartitions(p.node, p.epoch, []InSyncChange{p.change})
		if err != nil || results[0].Err != nil && results[0].Err.Kind != NewLeaderElected {
			w.seen["proposal refused"]++
		} else if len(d.Records) == 0 {
			w.fail("a proposal is accepted, and changes nothing: %+v", p.change)
		}
		return d, err
	})
}

// checkProposal checks that members of an in-sync set that was accepted are active and have all
// committed records, and that the partition epoch has risen.
func (w *modelWorld) checkProposal(before *meta.Image, id partitionID, accepted []int32) {
	if w.m == before {
		return
	}
	old, p := before.TopicByID(id.topic).Partitions[id.number], w.m.TopicByID(id.topic).Partitions[id.number]
	truth := w.parts[id]
	for _, member := range p.ISR {
		records := truth.logs[member].records
		isNew := !slices.Contains(old.ISR, member)
		if !w.rules().isActive(member) || isNew && common(records, truth.committed) < len(truth.committed) {
			w.fail("%d joins %v with %v, committed are %v", member, accepted, records, truth.committed)
		}
	}
	if p.PartitionEpoch <= old.PartitionEpoch {
		w.fail("%v is accepted, and the partition epoch stays", accepted)
	}
}

// start starts a node that is down: perhaps on another disk, or on one that was restored from
// an old copy, and without what was in the page cache.
func (w *modelWorld) start(n *modelNode) {
	if n.up {
		w.registerTwice(n)
		return
	}
	n.process++
	g := Registration{PreviousEpoch: n.recorded, Generation: n.generation, Clean: n.clean, Broker: meta.Broker{
		ID: n.id, Incarnation: meta.UUID{byte(n.id), n.process}, Rack: fmt.Sprint(n.id % 2), Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()},
	}}
	intact := false
	switch {
	case n.directory == meta.UUID{} || w.chance(0.1):
		w.next++
		n.directory = meta.UUID{1, byte(w.next), byte(w.next >> 8), byte(n.id)}
		n.recorded, g.PreviousEpoch = 0, 0
		n.generation, g.Generation = 0, 0
		w.cutLogs(n, func(*modelLog) int { return 0 })
		w.seen["directory replaced"]++
	case w.chance(0.05) && n.recorded > 0:
		n.recorded--
		g.PreviousEpoch = n.recorded
		w.cutLogs(n, func(l *modelLog) int { return w.rng.IntN(len(l.records) + 1) })
	case w.chance(0.05) && w.knowsGeneration(n):
		n.generation--
		g.Generation, g.Clean = n.generation, w.chance(0.5)
		w.cutLogs(n, func(l *modelLog) int { return w.rng.IntN(len(l.records) + 1) })
		w.seen["copy of the same run"]++
	case n.clean:
		intact = true
	default:
		intact = true
		for id, truth := range w.parts {
			if l := truth.logs[n.id]; l != nil && l.durable < len(l.records) && w.isDurable(w.m.TopicByID(id.topic)) {
				g.Unsynced = append(g.Unsynced, id.topic)
			}
		}
		w.cutLogs(n, func(l *modelLog) int { return l.durable + w.rng.IntN(len(l.records)-l.durable+1) })
	}
	g.Broker.Directory = n.directory
	before, mustKeep := w.places(n.id), w.placesKept(n, &g, intact)
	n.up, n.clean = w.register(n, &g), false
	if n.up && w.places(n.id) < mustKeep {
		w.fail("%d has lost nothing in %d partitions, and keeps %d places", n.id, mustKeep, w.places(n.id))
	}
	switch after := w.places(n.id); {
	case before == 0 || !n.up:
	case before == after:
		w.seen["kept its place"]++
	default:
		w.seen["lost its place"]++
	}
	if w.chance(0.5) { // proposals that were made for the life before
		w.beat(n)
		for range w.proposals {
			w.deliver()
		}
	}
}

// knowsGeneration tells whether the metadata have the generation of a node's directory, so that a copy from before is known by it.
func (w *modelWorld) knowsGeneration(n *modelNode) bool {
	b := w.m.Brokers[n.id]
	return b != nil && b.Directory == n.directory && b.Generation > 0 && b.Generation == n.generation
}

func (w *modelWorld) register(n *modelNode, g *Registration) bool {
	w.losing = n.id
	defer func() { w.losing = noBroker }()
	return w.run(fmt.Sprintf("register %d, clean %v, previous %d", n.id, g.Clean, g.PreviousEpoch), nil, func(r *Rules) (Part, *Error) {
		d, epoch, err := r.RegisterBroker(g, false)
		if err != nil {
			w.fail("registration of %d: %v", n.id, err)
		}
		n.epoch = epoch
		return d, err
	})
}

// placesKept counts the places that a node must keep: it comes back with its own disk, and has
// lost nothing of these partitions.
func (w *modelWorld) placesKept(n *modelNode, g *Registration, intact bool) int {
	if b := w.m.Brokers[n.id]; !intact || b == nil || b.Directory != n.directory || n.recorded < n.served || n.generation < b.Generation {
		return 0
	}
	count := 0
	for t := range w.m.Topics() {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			durable := w.isDurable(t) && !slices.Contains(g.Unsynced, t.ID)
			stays := !slices.Contains(p.Removing, n.id) // else the registration may end the reassignment
			if stays && (durable || g.Clean) && (slices.Contains(p.ISR, n.id) || slices.Contains(p.Eligible, n.id)) {
				count++
			}
		}
	}
	return count
}

// places counts the in-sync and eligible sets in which a broker is.
func (w *modelWorld) places(id int32) int {
	n := 0
	for t := range w.m.Topics() {
		for i := range t.Partitions {
			if slices.Contains(t.Partitions[i].ISR, id) || slices.Contains(t.Partitions[i].Eligible, id) {
				n++
			}
		}
	}
	return n
}

// registerTwice tries to register a second incarnation of a living node.
func (w *modelWorld) registerTwice(n *modelNode) {
	b := w.m.Brokers[n.id]
	if b == nil || b.Epoch != n.epoch {
		return
	}
	g := Registration{Broker: *b}
	g.Broker.Incarnation = meta.UUID{99}
	if _, _, err := w.rules().RegisterBroker(&g, true); err == nil || err.Kind != DuplicateBroker {
		w.fail("a second incarnation of %d: %v", n.id, err)
	}
	w.seen["registration refused"]++
}

func (w *modelWorld) cutLogs(n *modelNode, to func(*modelLog) int) {
	topics := w.rules().concerned(func(*meta.Partition) bool { return true })
	for _, t := range topics {
		for i := range t.Partitions {
			truth := w.parts[partitionID{t.ID, int32(i)}]
			if l := truth.logs[n.id]; l != nil {
				l.cut(to(l))
				l.durable = len(l.records)
				if len(t.Partitions[i].Replicas) == 1 { // nobody else has them
					truth.committed = truth.committed[:common(truth.committed, l.records)]
				}
			}
		}
	}
}

func (w *modelWorld) reassign() {
	t, i, _ := w.pick()
	if t == nil {
		return
	}
	a := Reassignment{Partition: Partition{t.Name, i}}
	if !isReassigned(&t.Partitions[i]) || w.chance(0.6) {
		ids := slices.Sorted(maps.Keys(w.m.Brokers))
		if len(ids) == 0 {
			return
		}
		w.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		a.Replicas = ids[:1+w.rng.IntN(min(3, len(ids)))]
	}
	w.run(fmt.Sprintf("reassign %s-%d to %v", t.Name, i, a.Replicas), nil, func(r *Rules) (Part, *Error) {
		d, results := r.AlterReassignments([]Reassignment{a}, true)
		if len(results) == 1 && results[0] == nil && a.Replicas == nil {
			w.seen["reassignment cancelled"]++
		}
		return d, nil
	})
}

func (w *modelWorld) elect() {
	t, i, _ := w.pick()
	if t == nil {
		return
	}
	unclean := w.chance(0.2)
	what := "elect"
	if unclean {
		what = "elect uncleanly"
	}
	w.run(what, nil, func(r *Rules) (Part, *Error) {
		d, _ := r.ElectLeaders([]Partition{{t.Name, i}}, unclean)
		return d, nil
	})
}

func (w *modelWorld) maintain() {
	w.run("elect missing", nil, func(r *Rules) (Part, *Error) {
		return r.ElectMissing(), nil
	})
	w.run("balance", nil, func(r *Rules) (Part, *Error) {
		d := r.BalanceLeaders(2)
		d.More = false
		return d, nil
	})
	w.run("follow", nil, func(r *Rules) (Part, *Error) {
		d := r.FollowCluster(ReplicaMoves{Most: 2})
		if len(d.Records) > 0 {
			w.seen["following topic grew"]++
		}
		return d, nil
	})
}

func (w *modelWorld) move(n *modelNode) {
	w.run("move", nil, func(r *Rules) (Part, *Error) {
		d := r.MoveReplicas(n.id, ReplicaMoves{Most: 2, Room: func(id int32) bool { return id != 2 }})
		if len(d.Records) > 0 {
			w.seen["replica moved"]++
		}
		return d, nil
	})
}

func (w *modelWorld) changeConfig() {
	t, _, _ := w.pick()
	if t == nil {
		return
	}
	change := ConfigChange{Op: Set, Key: "min.insync.replicas", Value: fmt.Sprint(1 + w.rng.IntN(3))}
	switch w.rng.IntN(6) {
	case 0:
		change.Op = Delete
	case 1:
		change = ConfigChange{Op: Set, Key: "flush.messages", Value: fmt.Sprint(1 + 999*w.rng.IntN(2))}
	case 2:
		change = ConfigChange{Op: Set, Key: "unclean.leader.election.enable", Value: fmt.Sprint(w.chance(0.3))}
	}
	a := []ConfigChanges{{Resource: config.Resource{Type: config.Topic, Name: t.Name}, Changes: []ConfigChange{change}}}
	if change.Key == "min.insync.replicas" && w.chance(0.2) {
		a[0].Resource = config.Resource{Type: config.Broker}
	}
	w.run("config", nil, func(r *Rules) (Part, *Error) {
		records, errs := decideAlterConfigs(r.Image, r.Static, a)
		if errs[0] != nil {
			return Part{}, errs[0]
		}
		d := clearEligible(r, records)
		if len(d.Records) != len(records) {
			w.seen["eligible cleared by a config"]++
		}
		return d, nil
	})
}

func (w *modelWorld) createTopic() { w.createTopicOf(fmt.Sprint("t", w.next)) }

func (w *modelWorld) createTopicOf(name string) {
	topic := NewTopic{Name: name, Partitions: int32(1 + w.rng.IntN(6)), ReplicationFactor: int16(w.rng.IntN(4)), Configs: map[string]*string{}}
	if topic.ReplicationFactor == 0 {
		topic.ReplicationFactor = -1
	}
	if w.chance(0.4) {
		pageCache := "1000"
		topic.Configs["flush.messages"] = &pageCache
	}
	w.next++
	d := topicsDecision{m: w.m, static: w.static, maxPartitions: 100, newID: func() meta.UUID {
		return meta.UUID{7, byte(w.next), byte(w.next >> 8), 15: byte(w.next)}
	}}
	w.apply("create", d.decideTopics([]NewTopic{topic}), nil)
}

func (w *modelWorld) remove(n *modelNode) {
	if n.up || w.m.Brokers[n.id] == nil || w.chance(0.7) {
		return
	}
	w.losing = n.id
	defer func() { w.losing = noBroker }()
	if w.run(fmt.Sprint("remove ", n.id), nil, func(r *Rules) (Part, *Error) { return r.UnregisterBroker(n.id) }) {
		w.seen["node removed"]++
	}
}

// heal brings all nodes back, without any loss, and checks that whatever can have a leader
// has one.
func (w *modelWorld) heal() {
	for i := 0; i < 40 && !w.t.Failed(); i++ { // controllers fail, too
		for _, n := range w.nodes {
			if b := w.m.Brokers[n.id]; !n.up || b == nil || b.Epoch != n.epoch || b.State == meta.BrokerLeaving {
				n.up, n.clean = false, true
				for _, truth := range w.parts {
					if l := truth.logs[n.id]; l != nil {
						l.durable = len(l.records)
					}
				}
				n.process++
				n.up = w.register(n, &Registration{PreviousEpoch: n.recorded, Generation: n.generation, Clean: true, Broker: meta.Broker{
					ID: n.id, Incarnation: meta.UUID{byte(n.id), n.process}, Directory: n.directory, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()},
				}})
			}
			w.beat(n)
		}
		w.maintain()
	}
	for t := range w.m.Topics() {
		for i, p := range t.Partitions {
			if p.Leader < 0 && (len(p.Replicas) == 1 || len(p.ISR)+len(p.Eligible)+len(p.LastEligible) > 0) {
				w.fail("all nodes are back, and %s-%d has no leader: %+v", t.Name, i, p)
			}
		}
	}
}
