package sim

import (
	"math/rand/v2"
	"strconv"
	"time"

	groups "github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/txn"
)

// plan is what a seed decides before the cluster starts.
type plan struct {
	nodes   int
	voters  []int32
	joins   []time.Duration // when each node starts for the first time
	loss    float64         // of messages
	doubles float64
	limit   int           // bytes of the records of one entry of the metadata log; 0: as in production
	faults  time.Duration // between two faults, at most
	topics  []topicPlan

	isTransactional bool
	addWait         time.Duration // add.partitions.to.txn.retry.backoff.max.ms
}

// topicPlan is a topic that the administrator makes.
type topicPlan struct {
	name       string
	partitions int32
	factor     int16 // -1: it follows the size of the cluster
	minISR     int   // 0: not set
	pageCache  bool
	unclean    bool
	turns      bool // pageCache changes
	producers  int
}

// offsetsTopic is the topic of the committed offsets. It has one partition.
const offsetsTopic = "offsets"

// aloneTopic is a topic that has one replica, wherever the administrator moves it.
const aloneTopic = "alone"

func drawPlan(rng *rand.Rand) plan {
	p := plan{
		nodes:   3 + 2*rng.IntN(2),
		loss:    []float64{0, 0.005, 0.03}[rng.IntN(3)],
		doubles: []float64{0, 0.03}[rng.IntN(2)],
		limit:   []int{0, 0, 120, 400}[rng.IntN(4)],
		faults:  []time.Duration{100 * ms, 200 * ms, 400 * ms}[rng.IntN(3)],
	}
	for id := range int32(p.nodes) {
		if id < 3 || rng.IntN(2) == 0 {
			p.voters = append(p.voters, id+1)
		}
		p.joins = append(p.joins, time.Duration(rng.IntN(30))*ms)
	}
	if len(p.voters) == 4 {
		p.voters = p.voters[:3]
	}
	if rng.IntN(3) == 0 { // a cluster that grows
		p.joins[p.nodes-1] += time.Duration(rng.IntN(1500)) * ms
	}
	p.topics = []topicPlan{
		{name: "durable", partitions: 1 + rng.Int32N(2), factor: 3, minISR: rng.IntN(4), producers: 2},
		{name: offsetsTopic, partitions: 1, factor: 3, minISR: 2},
	}
	others := []topicPlan{
		{name: "cached", partitions: 1, factor: 3, minISR: 2, pageCache: true, producers: 1},
		{name: "turning", partitions: 1, factor: 3, minISR: 1 + rng.IntN(2), pageCache: rng.IntN(2) == 0, turns: true, producers: 1},
		{name: "unclean", partitions: 1, factor: 2 + int16(rng.IntN(2)), minISR: 1 + rng.IntN(2), unclean: true, producers: 1},
		{name: "following", partitions: 1, factor: -1, producers: 1},
		{name: aloneTopic, partitions: 1, factor: 1, producers: 1},
	}
	rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	p.topics = append(p.topics, others[:2]...)
	return p
}

// Topics of a cluster with transactions, besides those of the coordinators.
const (
	inputTopic  = "input"  // of ordinary producers, read by pipelines
	outputTopic = "output" // of transactions
)

// drawTransactionalPlan draws the plan of a cluster with transactions. All its topics have three replicas on disk.
func drawTransactionalPlan(rng *rand.Rand) plan {
	p := drawPlan(rng)
	p.isTransactional = true
	p.faults = []time.Duration{200 * ms, 500 * ms, 1000 * ms}[rng.IntN(3)]
	p.addWait = []time.Duration{-1, 10 * ms, 100 * ms}[rng.IntN(3)]
	p.topics = []topicPlan{
		{name: inputTopic, partitions: 1 + rng.Int32N(2), factor: 3, minISR: 2},
		{name: outputTopic, partitions: 1 + rng.Int32N(3), factor: 3, minISR: 2},
		{name: txn.Topic, partitions: 1 + rng.Int32N(2), factor: 3, minISR: 2},
		{name: groups.Topic, partitions: 1, factor: 3, minISR: 2},
	}
	return p
}

// configs are the configs with which a topic is made.
func (t *topicPlan) configs() map[string]*string {
	set := map[string]*string{}
	if t.minISR > 0 {
		set[minISRKey] = new(strconv.Itoa(t.minISR))
	}
	if t.pageCache {
		set[flushKey] = new(pageCacheFlush)
	}
	if t.unclean {
		set[uncleanKey] = new("true")
	}
	return set
}

// These are the configs that matter here.
const (
	minISRKey      = "min.insync.replicas"
	flushKey       = "flush.messages"
	uncleanKey     = "unclean.leader.election.enable"
	pageCacheFlush = "1000"
)
