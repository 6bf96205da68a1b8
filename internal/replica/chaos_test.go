package replica

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	chaosSeeds     = 100
	chaosProducers = 3
	chaosTime      = 3 * time.Second        // of the faults
	chaosSession   = 200 * time.Millisecond // a node that is silent for so long is fenced
)

// TestReplicationUnderFaults proves, over many seeds, that no acknowledged record is lost, doubled or
// moved, that readers never see two records at one offset nor a leader whose high watermark falls, that no
// leader has records of which a client was told that they are deleted, and
// that the replicas become equal in the end, while nodes lose their power, processes are killed, disks
// fail and are full, the network is cut one way, messages are lost, late and come twice, leaders move,
// and the partition moves between nodes. Of every four seeds one has a topic in the page cache, which may lose
// records, but only if all nodes that had them have ended (losses). LEAT_TEST_SEEDS is how many, and
// LEAT_TEST_SEED runs one.
//
// A seed fixes which faults are tried, when, and what each producer and link draws. It does not fix which of two
// goroutines comes first that run at the same instant of the bubble's time, nor the order of maps and of ready
// channels in the code under test: Go draws these. So a seed that failed may need several tries.
func TestReplicationUnderFaults(t *testing.T) {
	from, to := 0, chaosSeeds
	if testing.Short() {
		to = chaosSeeds / 10
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEEDS")); err == nil {
		to = n
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEED")); err == nil {
		from, to = n, n+1
	}
	total := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newChaos(t, uint64(seed))
				x.run()
				for what, n := range x.counts {
					total[what] += n
				}
			})
		})
	}
	t.Log(total)
	if to-from < chaosSeeds {
		return
	}
	for _, what := range []string{
		"acknowledged", "sent again", "power cut", "kill", "failing disk", "full disk", "cut", "lost", "late", "leader moved", "reassignment",
		"deletion", "deletion answered", "min.insync.replicas changed", "page cache lost", "read", "read from a follower", "not readable yet", "fenced", "refused: too few in sync",
	} {
		if total[what] == 0 {
			t.Errorf("in %d seeds there was no %q", to-from, what)
		}
	}
}

// chaos is a cluster with producers and readers, to which faults happen.
type chaos struct {
	t       *testing.T
	c       *cluster
	seed    uint64
	over    atomic.Bool // the faults have ended
	cleared atomic.Bool // producers and readers are to end
	unheard map[int32]time.Duration

	staged int                // the number of faults so far
	links  map[[2]int32]*dice // of messages; complete before the nodes start
	others dice

	mu     sync.Mutex
	counts map[string]int                 // guarded by mu
	acked  map[string]record.Offset       // guarded by mu: where acknowledged values are
	seen   map[record.Offset]string       // guarded by mu: what readers saw
	shown  map[record.Epoch]record.Offset // guarded by mu: the highest high watermark that leaders showed
	trim   record.Offset                  // guarded by mu: the highest start that was asked for
	told   deletion                       // guarded by mu: the highest start of which a client was told
	losses losses                         // guarded by mu
	sent   [chaosProducers]int            // the number of each producer's batches; its own until it ends
	broken map[int32]bool                 // nodes whose disk has failed: only a power cut mends it
}

func newChaos(t *testing.T, seed uint64, change ...func(c *cluster)) *chaos {
	t.Helper()
	x := &chaos{
		t: t, seed: seed, counts: map[string]int{}, acked: map[string]record.Offset{}, links: map[[2]int32]*dice{},
		seen: map[record.Offset]string{}, shown: map[record.Epoch]record.Offset{}, broken: map[int32]bool{}, unheard: map[int32]time.Duration{},
	}
	x.others.rng = x.throw("others").rng
	for from := range int32(4) {
		for to := range int32(4) {
			x.links[[2]int32{from, to}] = x.throw("link", from, to)
		}
	}
	x.c = newCluster(t, 3, "replica.lag.time.max.ms", "400", "replica.fetch.backoff.ms", "50")
	for _, do := range change {
		do(x.c)
	}
	for _, m := range x.c.nodes {
		m.start()
	}
	replicas := [][]int32{{1, 2, 3}, {1, 2, 3}, {1, 2, 3}, {1, 2}}[seed%4]
	x.c.topic("t", replicas...)
	x.c.configure("t", "min.insync.replicas", []string{"2", "2", "1", "1"}[seed%4])
	if x.losses.isPossible = seed%4 == 1 && !x.c.coordinates; x.losses.isPossible {
		x.c.configure("t", "flush.messages", "1000000")
	}
	return x
}

// dice is a source of random numbers.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

// throw makes the dice of somebody, who draws the same numbers each time that the seed runs.
func (x *chaos) throw(who ...any) *dice {
	h := fnv.New64a()
	fmt.Fprint(h, who...)
	return &dice{rng: rand.New(rand.NewPCG(x.seed, h.Sum64()))}
}

// pick is a random number below n.
func (d *dice) pick(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *dice) random(below time.Duration) time.Duration { return time.Duration(d.pick(int(below))) }

// pick and random draw for those who have no dice of their own.
func (x *chaos) pick(n int) int { return x.others.pick(n) }

func (x *chaos) random(below time.Duration) time.Duration { return x.others.random(below) }

func (x *chaos) count(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts[what]++
}

func (x *chaos) run() {
	c := x.c
	defer c.close()
	c.setMeddle(x.meddle)
	c.mu.Lock()
	c.comesLate = x.comesLate
	c.mu.Unlock()
	var clients, others sync.WaitGroup
	for id := range chaosProducers {
		clients.Go(func() { x.produce(id) })
	}
	others.Go(x.read)
	others.Go(x.control)
	pauses := x.throw("pauses")
	for began := time.Now(); time.Since(began) < chaosTime; time.Sleep(20*time.Millisecond + pauses.random(150*time.Millisecond)) {
		x.stage(pauses.pick(15))
	}
	x.heal()
	x.cleared.Store(true)
	clients.Wait()
	c.eventually("equal replicas", func() bool { return c.isEqual("t") })
	x.over.Store(true)
	others.Wait()
	x.verify()
}

// heal ends all faults.
func (x *chaos) heal() {
	c := x.c
	c.setMeddle(nil)
	c.mu.Lock()
	clear(c.cuts)
	c.comesLate = nil
	c.mu.Unlock()
	for _, m := range c.nodes {
		m.setHook(nil)
		m.setFree(1 << 40)
		if p := m.replica("t"); x.broken[m.id] || p != nil && p.Fault() != nil { // a full disk may have left one, too
			x.noteEnd(m)
			m.crash(rand.New(rand.NewPCG(uint64(m.id), 9)))
			delete(x.broken, m.id)
		}
		m.start()
	}
}

// meddle loses and delays messages.
func (x *chaos) meddle(from, to int32, what any) error {
	d := x.links[[2]int32{from, to}]
	time.Sleep(d.random(3 * time.Millisecond))
	switch _, isMetadata := what.(metadata); {
	case isMetadata:
		time.Sleep(d.random(20 * time.Millisecond))
	case d.pick(40) == 0:
		x.count("lost")
		return errCut
	case d.pick(60) == 0:
		x.count("late")
		time.Sleep(d.random(400 * time.Millisecond))
	}
	return nil
}

// comesLate has every other lost message come later.
func (x *chaos) comesLate() (time.Duration, bool) {
	return x.random(600 * time.Millisecond), x.pick(2) == 0
}

// control is the controller's liveness: it fences nodes that it does not hear from, and unfences those
// that it hears from again. It elects leaders where there are none.
func (x *chaos) control() {
	for !x.over.Load() {
		time.Sleep(20 * time.Millisecond)
		for _, m := range x.c.nodes {
			if m.present() == nil || x.c.isCut(m.id, controllerID) {
				if x.unheard[m.id] += 20 * time.Millisecond; x.unheard[m.id] == chaosSession {
					x.count("fenced")
					x.c.fence(m.id)
				}
				continue
			}
			x.unheard[m.id] = 0
			x.c.unfence(m.id)
		}
		x.c.decide(func(r *controller.Rules) ([]byte, bool) {
			d := r.ElectMissing()
			return d.Records, d.More
		})
	}
}

// isCut tells whether a node is cut off from another one.
func (c *cluster) isCut(from, to int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts[[2]int32{from, to}]
}

// stage stages a fault of one of 15 kinds; the last two are nothing for the topic of a coordinator.
func (x *chaos) stage(kind int) {
	c := x.c
	x.staged++
	d := x.throw("fault", x.staged) // so that what it draws changes no later fault
	m, hitsLeader := c.nodes[d.pick(len(c.nodes))], d.pick(3) == 0
	if l := c.leader("t"); l != nil && hitsLeader {
		m = l // which matters most
	}
	switch kind {
	case 0, 1, 2:
		x.powerCut(m, d)
	case 3:
		if !x.broken[m.id] && m.present() != nil {
			x.count("kill")
			x.noteEnd(m)
			m.kill()
			x.startLater(m, d)
		}
	case 4:
		if d.pick(3) == 0 {
			x.count("power cut of all")
			for _, m := range c.nodes {
				x.powerCut(m, d)
			}
		}
	case 5, 6, 7:
		other := int32(d.pick(len(c.nodes) + 1))
		x.count("cut")
		x.cutFor(m.id, other, d.random(500*time.Millisecond))
	case 8:
		if m.present() != nil && !x.broken[m.id] {
			x.count("failing disk")
			x.noteEnd(m)
			x.broken[m.id] = true
			m.setHook(func(op vfs.Op, _ string) error {
				if op == vfs.OpSync && d.pick(2) == 0 || op == vfs.OpWrite && d.pick(20) == 0 {
					return syscall.EIO
				}
				return nil
			})
		}
	case 9:
		x.count("full disk")
		m.setFree(int64(d.pick(1 << 17)))
		x.c.work.Go(func() {
			time.Sleep(d.random(time.Second))
			m.setFree(1 << 40)
		})
	case 10, 11:
		x.moveLeader(d)
	case 12:
		x.reassign(d)
	case 13:
		x.deleteRecords()
	case 14:
		if !x.losses.isPossible { // with one in sync, a page cache promises nothing
			x.count("min.insync.replicas changed")
			c.configure("t", "min.insync.replicas", strconv.Itoa(1+d.pick(2)))
		}
	}
}

func (x *chaos) powerCut(m *member, d *dice) {
	if m.present() == nil {
		return
	}
	x.count("power cut")
	x.noteEnd(m)
	m.crash(rand.New(rand.NewPCG(uint64(d.pick(1<<30)), 1)))
	m.setHook(nil)
	delete(x.broken, m.id)
	x.startLater(m, d)
}

// startLater starts a node after a while.
func (x *chaos) startLater(m *member, d *dice) {
	after := d.random(600 * time.Millisecond)
	x.c.work.Go(func() {
		time.Sleep(after)
		if !x.over.Load() {
			m.start()
		}
	})
}

// cutFor cuts the network from one node to another, one way, for a time.
func (x *chaos) cutFor(from, to int32, d time.Duration) {
	set := func(isCut bool) {
		x.c.mu.Lock()
		defer x.c.mu.Unlock()
		x.c.cuts[[2]int32{from, to}] = isCut
	}
	set(true)
	x.c.work.Go(func() {
		time.Sleep(d)
		set(false)
	})
}

// moveLeader makes a member of the in-sync set the first replica's successor, as an operator does who
// moves leaders.
func (x *chaos) moveLeader(d *dice) {
	at := d.pick(3)
	x.c.decide(func(r *controller.Rules) ([]byte, bool) {
		t := r.Image.Topic("t")
		p := t.Partitions[0]
		to := p.ISR[at%max(1, len(p.ISR)):]
		if len(to) == 0 || to[0] == p.Leader || r.Image.Brokers[to[0]].State != meta.BrokerActive {
			return nil, false
		}
		x.count("leader moved")
		return meta.Append(nil, meta.PartitionChanged{
			Topic: t.ID, ISR: p.ISR, Leader: to[0], LeaderEpoch: p.LeaderEpoch + 1, PartitionEpoch: p.PartitionEpoch + 1,
			Eligible: p.Eligible, LastEligible: p.LastEligible,
		}), false
	})
}

func (x *chaos) reassign(d *dice) {
	target := [][]int32{{1, 2}, {2, 3}, {3, 1}, {1, 2, 3}, {2, 3, 1}}[d.pick(5)]
	x.c.decide(func(r *controller.Rules) ([]byte, bool) {
		d, errs := r.AlterReassignments([]controller.Reassignment{{Partition: controller.Partition{Topic: "t"}, Replicas: target}}, true)
		if errs[0] == nil {
			x.count("reassignment")
		}
		return d.Records, false
	})
}

func (x *chaos) deleteRecords() {
	m := x.c.leader("t")
	if m == nil {
		return
	}
	p := m.replica("t")
	if p == nil {
		return
	}
	to, epoch := p.Start()+(record.Offset(p.hw.Load())-p.Start())/4, p.Leadership().Epoch
	x.mu.Lock()
	x.trim = max(x.trim, to)
	era := x.losses.era
	x.mu.Unlock()
	start, err := p.Trim(to)
	if err != nil {
		return
	}
	x.count("deletion")
	life := m.present()
	p.AwaitTrim(start, time.Second, func(err error) {
		if err == nil && life != nil && !life.dead.Load() {
			x.noteDeletion(era, deletion{epoch, start})
		}
	})
}

// produce sends one batch after the other, each until it is acknowledged.
func (x *chaos) produce(id int) {
	d := x.throw("producer", id)
	epoch, seq, number := int16(0), int32(0), 0
	for !x.cleared.Load() {
		var values []string
		for i := range 1 + d.pick(3) {
			values = append(values, fmt.Sprint(id, ":", number+i))
		}
		x.sent[id] = number + len(values)
		for try := 0; ; try++ {
			if try > 0 {
				x.count("sent again")
				time.Sleep(5*time.Millisecond + d.random(20*time.Millisecond))
			}
			era := x.era()
			base, err := x.sendBatch(producerAt{int64(id) + 1, epoch, seq}, values)
			if err == nil {
				x.note(era, values, base)
				break
			}
			switch {
			case errors.Is(err, ErrOutOfOrderSequence) && x.era() > 0: // earlier batches are lost, as a client may be told
				epoch, seq = epoch+1, 0
			case errors.Is(err, ErrOutOfOrderSequence), errors.Is(err, ErrProducerFenced):
				x.t.Errorf("producer %d at %d: %v\n%s", id, seq, err, x.c.describe())
				return
			case errors.Is(err, ErrNotEnoughReplicas):
				x.count("refused: too few in sync")
			}
			if try > 20_000 {
				x.t.Errorf("producer %d at %d: %v\n%s", id, seq, err, x.c.describe())
				return
			}
		}
		seq, number = seq+int32(len(values)), number+len(values)
		time.Sleep(d.random(20 * time.Millisecond))
	}
}

// producerAt is an idempotent producer, and the sequence of its next record.
type producerAt struct {
	id    int64
	epoch int16
	seq   int32
}

func (x *chaos) sendBatch(at producerAt, values []string) (record.Offset, error) {
	var b record.Builder
	b.SetProducer(at.id, at.epoch, at.seq)
	for _, v := range values {
		b.Append(1, nil, []byte(v))
	}
	out, err := b.Build()
	if err != nil {
		return -1, err
	}
	m := x.c.leader("t")
	if m == nil {
		return -1, ErrNotLeader
	}
	select {
	case a := <-m.send("t", append(record.Batch(nil), out...), AcksAll):
		return a.base, a.err
	case <-time.After(2 * time.Second): // a node that is cut off never answers
		return -1, ErrTimedOut
	}
}

// note notes acknowledged values, which were sent in an era of losses or later.
func (x *chaos) note(era int, values []string, base record.Offset) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts["acknowledged"] += len(values)
	for i, v := range values {
		if era < x.losses.era { // perhaps it was acknowledged before the loss
			x.losses.excuse(v)
			continue
		}
		x.acked[v] = base + record.Offset(i)
	}
	x.c.note("acknowledged %q at %d", values, base)
}

// read has readers read from any node until all is over.
func (x *chaos) read() {
	d := x.throw("reader")
	for !x.over.Load() {
		time.Sleep(d.random(20 * time.Millisecond))
		m, at := x.c.nodes[d.pick(len(x.c.nodes))], d.pick(1000)
		l, p := m.present(), m.replica("t")
		if p == nil {
			continue
		}
		lead, err := p.checkEpoch(record.NoEpoch, true)
		if err != nil {
			continue
		}
		x.mu.Lock()
		r := reading{p: p, at: lead, found: Nothing(), era: x.losses.era, told: x.told}
		x.mu.Unlock()
		q := Query{Epoch: lead.Epoch, LastEpoch: record.NoEpoch, Offset: p.Start(), MaxBytes: 1 << 20, AnyReplica: true}
		if hw := record.Offset(p.hw.Load()); hw > q.Offset {
			q.Offset += (hw - q.Offset) * record.Offset(at) / 1000
		}
		err = p.Read(&q, &r.found)
		if errors.Is(err, ErrOffsetNotAvailable) {
			x.count("not readable yet")
		}
		if err != nil || l.dead.Load() {
			if r.found.Chunk.Exists() {
				r.found.Chunk.Release()
			}
			continue
		}
		x.noteRead(&r)
	}
}

// reading is what a reader sees, and what was known before he looked.
type reading struct {
	p     *Partition
	at    *Leadership
	found Found
	era   int
	told  deletion
}

// noteRead compares what a reader sees with what others saw.
func (x *chaos) noteRead(r *reading) {
	p, at, f := r.p, r.at, &r.found
	var b []byte
	if f.Chunk.Exists() {
		b = make([]byte, f.Chunk.Len())
		_, _ = f.Chunk.ReadAt(b, 0)
		f.Chunk.Release()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.losses.isPast(r) {
		return
	}
	if at.Leader == p.host.cfg.NodeID {
		x.counts["read"]++
		if at.Epoch >= r.told.epoch && f.Start < r.told.start {
			x.t.Errorf("the leader of epoch %d begins at %d, and in epoch %d a client was told that all below %d is deleted", at.Epoch, f.Start, r.told.epoch, r.told.start)
		}
		for e, seen := range x.shown {
			if e <= at.Epoch && f.HighWatermark < seen {
				x.t.Errorf("the leader of epoch %d shows the high watermark %d, that of epoch %d showed %d", at.Epoch, f.HighWatermark, e, seen)
			}
		}
		x.shown[at.Epoch] = max(x.shown[at.Epoch], f.HighWatermark)
	} else {
		x.counts["read from a follower"]++
	}
	for len(b) > 0 {
		one, rest, err := record.Next(b)
		if err != nil {
			break // the last one is cut short
		}
		var r record.Reader
		for r.Reset(one, 1<<20); r.Next(); {
			o, v := r.Record.Offset, string(r.Record.Value)
			if was, ok := x.seen[o]; ok && was != v {
				x.t.Errorf("at offset %d a reader of node %d saw %q, another one %q", o, p.host.cfg.NodeID, v, was)
			}
			x.seen[o] = v
		}
		r.Close()
		b = rest
	}
}

// verify compares what there is in the end with what was promised.
func (x *chaos) verify() {
	m := x.c.leader("t")
	p := m.replica("t")
	start := p.Start()
	if start > x.trim {
		x.t.Errorf("the log begins at %d, deletions were to %d at most", start, x.trim)
	}
	if start < x.told.start {
		x.t.Errorf("the log begins at %d, and a client was told that all below %d is deleted", start, x.told.start)
	}
	values := m.values("t")
	next := map[string]int{}
	for i, v := range values {
		id, n, _ := strings.Cut(v, ":")
		number, err := strconv.Atoi(n)
		if err != nil {
			x.t.Fatalf("there is a record %q", v)
		}
		if was, ok := next[id]; ok && was != number && !x.losses.areExcused(id, was, number) {
			x.t.Errorf("at offset %d there is %q, but %s:%d should follow", start+record.Offset(i), v, id, was)
		}
		next[id] = number + 1
	}
	for v, at := range x.acked {
		if at >= start && (int(at-start) >= len(values) || values[at-start] != v) {
			x.t.Errorf("%q was acknowledged at offset %d and is not there", v, at)
		}
	}
	for o, v := range x.seen {
		if o >= start && (int(o-start) >= len(values) || values[o-start] != v) {
			x.t.Errorf("%q was read at offset %d and is not there", v, o)
		}
	}
	for id := range chaosProducers {
		if n, ok := next[strconv.Itoa(id)]; ok && n != x.sent[id] && !x.losses.areExcused(strconv.Itoa(id), n, x.sent[id]) {
			x.t.Errorf("producer %d has sent %d records, there are %d", id, x.sent[id], n)
		}
	}
	if len(x.acked) == 0 && x.losses.era == 0 || slices.Max(x.sent[:]) == 0 {
		x.t.Error("nothing was acknowledged")
	}
	if x.t.Failed() {
		x.t.Log(x.c.describe(), strings.Join(x.c.trace, "\n"))
	}
}
