package sim

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/leatstream/leat/internal/coord"
	groups "github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn"
)

// transactions are the transactions of a cluster, as its clients see them.
type transactions struct {
	c        *cluster
	contents []*content
	nextID   int64 // producer id
	attempts []*attempt
	clients  []*txnClient
	newest   map[string]*txnClient // by transactional id
	readers  []*committedReader
	// isVoid says that more was lost than the promises cover.
	isVoid bool
}

// attempt is a transaction as its client sees it.
type attempt struct {
	k       *txnClient
	number  int
	values  []*txnValue
	offset  int64 // that the group is to have; -1: none is sent
	outcome attemptOutcome

	// These belong to the checks.
	isDecided bool
	committed bool
}

type attemptOutcome uint8

const (
	unknownOutcome attemptOutcome = iota
	toldCommitted
	toldAborted
)

// txnValue is a record of an attempt.
type txnValue struct {
	t      *attempt
	number int // in the attempt
	part   *partition
	source uint64 // the record of the input that it is made of; 0: none
	// patience is how often its client writes it again before it aborts, while what it has sent may still be on its way.
	patience int
	acked    bool
	at       record.Offset // where it is; unplaced: nowhere yet
}

// unplaced is the offset of a value that no log has.
const unplaced record.Offset = -1

func (v *txnValue) String() string {
	return fmt.Sprintf("value %d of transaction %d of %s", v.number, v.t.number, v.t.k.name)
}

func newTransactions(c *cluster) *transactions {
	return &transactions{c: c, nextID: 100, newest: map[string]*txnClient{}}
}

// stateOf is the partition that has the records of a transactional id, or nil.
func (x *transactions) stateOf(id string) *partition {
	t := x.c.truth.image.Topic(txn.Topic)
	if t == nil {
		return nil
	}
	return x.c.truth.find(txn.Topic, coord.PartitionOf(id, int32(len(t.Partitions))))
}

// offsets is the partition of the groups' offsets, or nil.
func (x *transactions) offsets() *partition { return x.c.truth.find(groups.Topic, 0) }

// groupOf is the group of a pipeline.
func groupOf(id string) string { return "group of " + id }

// Take takes a producer id. Sometimes none is left for a moment.
func (x *transactions) Take() (int64, bool) {
	if !x.c.healing && x.c.chance(0.02) {
		return 0, false
	}
	x.nextID++
	return x.nextID, true
}

// newMachine makes the machine of a coordinator's partition.
func (s *machineShard) newMachine() coord.Machine { //nolint:ireturn // it is of groups or of transactions
	r := s.r
	c, n := r.n.c, r.n
	quiet := slog.New(slog.DiscardHandler)
	if r.part.name == groups.Topic {
		members, offsets := memory.NewBudgets(quiet, 0)
		return groups.NewMachine(s.timers, members, offsets, groups.DefaultSettings, func() string { return "member" })
	}
	settings := txn.Settings{MaxTimeout: time.Minute, AddWait: c.plan.addWait}
	return txn.New(txn.Config{
		Settings: func() txn.Settings { return settings }, IDs: c.txns, Counts: &s.counts,
		Memory: memory.NewTransactionBudget(quiet, 0),
		Send: func(d txn.Decision) {
			n.c.note(note{what: "decides", node: n.id, part: r.part.index, text: fmt.Sprintf("%+v", d)})
			n.markers.send(r.part, d)
		},
	}, s.timers)
}

// isCoordinators tells whether a partition has the records of a coordinator's machine.
func (p *partition) isCoordinators() bool {
	return p.c.txns != nil && (p.name == groups.Topic || p.name == txn.Topic)
}

// describeRecord names a record of a coordinator.
func describeRecord(ct *content) string {
	if ct.batch != nil {
		return fmt.Sprintf("an offset of %d/%d", ct.batch.ProducerID(), ct.batch.ProducerEpoch())
	}
	return txn.Describe(ct.record)
}

// noteVoid takes that more was lost than the promises cover.
func (x *transactions) noteVoid() {
	if !x.isVoid {
		x.isVoid = true
		x.c.saw("no promise of transactions")
	}
}

// addTransactionalClients adds the clients of a cluster with transactions.
func (c *cluster) addTransactionalClients() {
	for number := range c.plan.topics[0].partitions {
		c.clients = append(c.clients,
			&producer{c: c, topic: inputTopic, number: number, acksAll: true, idempotent: true},
			&supervisor{c: c, id: fmt.Sprintf("pipeline-%d", number), input: number})
	}
	for _, id := range []string{"x", "y", "z"}[:2+c.rng.IntN(2)] {
		c.clients = append(c.clients, &supervisor{c: c, id: id, input: noInput})
	}
	for number := range c.plan.topics[1].partitions {
		for _, followers := range []bool{false, true} {
			k := &committedReader{c: c, number: number, followers: followers}
			c.clients, c.txns.readers = append(c.clients, k), append(c.txns.readers, k)
		}
	}
	for _, k := range c.clients {
		k.start()
	}
}
