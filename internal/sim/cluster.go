package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// cluster is a cluster of nodes with its clients. All of it happens in events, one at a time, and
// every choice is drawn from one source, so that a seed is a history.
type cluster struct {
	seed    uint64
	plan    plan
	rng     *rand.Rand
	now     time.Duration
	queue   eventQueue
	events  int
	faults  int
	healing bool
	// clocksAgree is the time until which sessions may be longer on one node than on another.
	clocksAgree time.Duration
	history     history
	seen        Coverage

	net     network
	quorum  *metaQuorum
	nodes   []*node // by id - 1
	truth   *truth
	admin   admin
	copied  *disk // an old copy of a node's directory; nil: none
	copier  copier
	clients []client
	nextID  uint64
	values  uint32          // producer ids that were given
	strict  map[uint32]bool // the producers whose records are committed once, in order
	txns    *transactions   // nil: a cluster without

	err       error
	concerned int16 // the partition of which err speaks; 0: none
}

// client is a client that runs until the cluster is healed.
type client interface {
	start()
	// isDone tells whether nothing that it has asked for is missing. It is asked after all faults.
	isDone() error
}

// Result is the outcome of a seed.
type Result struct {
	Seed   uint64
	Events int
	Faults int
	Digest uint64 // of all that happened
	Seen   Coverage
	Err    error // the promise that was broken, or nil

	history   *history
	concerned int16
	names     []string
}

// WriteHistory writes the last events of the partition of which Err speaks.
func (r *Result) WriteHistory(w io.Writer, last int) error {
	return r.history.write(w, r.concerned, last, r.names)
}

// Run runs the cluster of a seed: through its faults, until it has healed.
func Run(seed uint64) *Result { return runCluster(newCluster(seed, drawPlan)) }

// RunTransactions runs a cluster with transactions: its coordinators, the leaders of its partitions, producers
// and pipelines, through their faults, until all has healed.
func RunTransactions(seed uint64) *Result { return runCluster(newCluster(seed, drawTransactionalPlan)) }

func runCluster(c *cluster) *Result {
	seed := c.seed
	err := c.run()
	if err != nil {
		err = fmt.Errorf("seed %d, event %d, at %v: %w", seed, c.events, c.now, err)
	}
	return &Result{
		Seed: seed, Events: c.events, Faults: c.faults, Digest: c.history.digest, Seen: c.seen, Err: err,
		history: &c.history, concerned: c.concerned, names: c.truth.names,
	}
}

func newCluster(seed uint64, draw func(rng *rand.Rand) plan) *cluster {
	c := &cluster{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x1ea7)), seen: Coverage{}, strict: map[uint32]bool{}}
	c.plan = draw(c.rng)
	c.net = newNetwork(c)
	c.truth = newTruth(c)
	c.quorum = newQuorum(c)
	for id := range int32(c.plan.nodes) {
		c.nodes = append(c.nodes, newNode(c, id+1))
	}
	c.note(note{what: "%d nodes, of which %d vote", a: int64(c.plan.nodes), b: int64(len(c.quorum.voters))})
	for _, n := range c.nodes {
		c.after(c.plan.joins[n.id-1], n.start)
	}
	c.quorum.begin()
	c.admin = newAdmin(c)
	c.after(c.random(20*ms), c.admin.act)
	if c.plan.isTransactional {
		c.txns = newTransactions(c)
		c.addTransactionalClients()
		c.after(400*ms, c.injectFault)
		return c
	}
	c.addClients()
	c.after(400*ms, c.injectFault)
	c.after(300*ms, c.copyDisk)
	c.beginCopying()
	return c
}

// run lets the cluster go on until it has healed, or a check fails.
func (c *cluster) run() error {
	for !c.queue.isEmpty() && c.now < healingEnd {
		e := c.queue.takeFirst()
		c.now = e.at
		if !c.healing && c.now >= faultsEnd {
			c.heal()
		}
		e.do()
		c.events++
		c.truth.checkDirty()
		if c.err != nil {
			return c.err
		}
		if c.healing && c.events%64 == 0 && c.now > faultsEnd+500*ms && c.isHealed() == nil {
			break
		}
	}
	if err := c.isHealed(); err != nil {
		return fmt.Errorf("it has not healed: %w", err)
	}
	if c.txns != nil {
		c.txns.checkEnd()
	}
	return c.err
}

// heal ends all faults.
func (c *cluster) heal() {
	c.note(note{what: "all faults end"})
	c.healing = true
	c.net.heal()
	for _, n := range c.nodes {
		n.disk.slowUntil, n.disk.hungUntil, n.stalledUntil, n.lagUntil = 0, 0, 0, 0
		n.clock.setRate(c.now, 1000)
		if !n.up {
			n.start()
		}
	}
}

func (c *cluster) note(n note) {
	n.at = c.now
	c.history.add(n)
}

// saw counts that something happened.
func (c *cluster) saw(what string) { c.seen[what]++ }

// fail ends the cluster with the first promise that was broken. part is 0 if it is no partition's.
func (c *cluster) fail(part int16, format string, args ...any) {
	if c.err != nil {
		return
	}
	c.err, c.concerned = fmt.Errorf(format, args...), part
	if part > 0 {
		c.err = fmt.Errorf("%s: %w", c.truth.names[part-1], c.err)
	}
	c.note(note{what: "FAILURE", part: part, text: c.err.Error()})
}

// must fails for an error that nothing can cause.
func (c *cluster) must(err error) {
	if err != nil {
		c.fail(0, "BUG: %w", err)
	}
}

func (c *cluster) after(d time.Duration, do func()) { c.queue.add(c.now+max(d, 0), do) }

func (c *cluster) random(below time.Duration) time.Duration {
	return time.Duration(c.rng.Int64N(int64(below)))
}

func (c *cluster) chance(p float64) bool { return c.rng.Float64() < p }

func (c *cluster) node(id int32) *node { return c.nodes[id-1] }

// anyNode is a random node that is up, or nil.
func (c *cluster) anyNode() *node {
	first := c.rng.IntN(len(c.nodes))
	for i := range c.nodes {
		if n := c.nodes[(first+i)%len(c.nodes)]; n.up {
			return n
		}
	}
	return nil
}

// newUUID draws an id that is not there yet. It does not take random numbers, so that a seed's
// choices do not depend on how many ids there are.
func (c *cluster) newUUID() meta.UUID {
	c.nextID++
	d := mix(mix(1, c.seed), c.nextID)
	var u meta.UUID
	for i := range 8 {
		u[i], u[15-i] = byte(c.nextID>>(8*i)), byte(d>>(8*i))
	}
	return u
}
