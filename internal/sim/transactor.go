package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn"
)

// noInput is the input of clients that are no pipelines.
const noInput int32 = -1

// supervisor has a client with a transactional id run at all times: it starts another one when that is fenced or
// dies, and sometimes while it still lives.
type supervisor struct {
	c     *cluster
	id    string
	input int32
}

func (s *supervisor) start() {
	s.c.after(s.c.random(300*ms), s.startClient)
	s.c.after(s.c.random(2*time.Second), s.startRival)
}

// startClient starts the next client. Others with the transactional id may still be there.
func (s *supervisor) startClient() {
	c, x := s.c, s.c.txns
	k := &txnClient{
		c: c, s: s, id: s.id, name: fmt.Sprintf("%s.%d", s.id, len(x.clients)), bumps: c.rng.IntN(3) > 0,
		timeout: 250*ms + time.Duration(c.rng.IntN(4))*400*ms, sequences: map[*partition]int32{}, fetched: noOffset,
	}
	x.clients, x.newest[s.id] = append(x.clients, k), k
	c.note(note{what: "starts", text: fmt.Sprintf("client %s, its epoch rises: %v", k.name, k.bumps)})
	k.initialise(noProducer)
}

// startRival starts a client while another one may live.
func (s *supervisor) startRival() {
	if s.c.healing {
		return
	}
	s.c.after(500*ms+s.c.random(3*time.Second), s.startRival)
	s.c.saw("rival started")
	s.startClient()
}

// isDone tells whether the newest client has nothing left to do.
func (s *supervisor) isDone() error {
	k := s.c.txns.newest[s.id]
	if s.c.txns.isVoid {
		return nil
	}
	if k == nil || !k.isIdle || s.input != noInput && record.Offset(k.fetched) < k.input().end() { // the input may have grown since it was idle
		return fmt.Errorf("the newest client of %s is not done", s.id)
	}
	return nil
}

// producerEpoch is a producer id with an epoch.
type producerEpoch = coord.Producer

var noProducer = producerEpoch{ID: -1, Epoch: -1}

// noOffset is the offset of a pipeline that does not know the one of its group.
const noOffset int64 = -1

// txnClient is a client that gets an epoch, and runs one transaction after the other until it dies, or is told
// that it is fenced. A pipeline makes records of those of the input, and sends its offset in the same transaction.
type txnClient struct {
	c       *cluster
	s       *supervisor
	id      string
	name    string
	bumps   bool // its epoch rises with each transaction
	timeout time.Duration

	has       producerEpoch
	dead      bool
	isIdle    bool
	sequences map[*partition]int32 // the next ones
	added     []*partition         // the partitions that it has added to its transaction
	needsInit bool                 // sequences may be missing: it needs another epoch
	fetched   int64                // the offset of a pipeline's group
	t         *attempt
}

// reply is an answer to a client.
type reply struct {
	code   int16
	has    producerEpoch
	offset int64
}

// ask sends a request to the leader of a partition. then gets the answer, or noAnswer, unless the client is dead. A
// request that must not come twice does not come either when the client has given it up: its connection is closed.
func (k *txnClient) ask(p *partition, what string, mayComeTwice bool, handle func(at *node, answer func(reply)), then func(reply)) {
	c := k.c
	isOpen, came := true, false
	end := func(a reply) {
		if !isOpen {
			return
		}
		isOpen = false
		c.saw(what + ": " + nameOfCode(a.code))
		if !k.dead {
			then(a)
		}
	}
	c.after(answerTimeout+c.random(50*ms), func() { end(reply{code: noAnswer}) })
	to := int32(0)
	if p != nil {
		to = c.guessLeader(p)
	}
	if to == 0 {
		return
	}
	deliver := func() {
		if (came || !isOpen) && !mayComeTwice {
			return
		}
		if came || !isOpen {
			c.saw("late or doubled: " + what)
		}
		came = true
		at := c.node(to)
		handle(at, func(a reply) {
			c.note(note{what: "answers", node: to, text: fmt.Sprintf("%s to %s: %s", what, k.name, nameOfCode(a.code))})
			c.net.send(to, firstClient, "answer: "+what, func() { end(a) })
		})
		at.act()
	}
	c.net.send(firstClient, to, what, deliver)
	if mayComeTwice && !c.healing && c.chance(0.06) {
		c.after(c.random(time.Second), func() { c.net.send(firstClient, to, what, deliver) })
	}
}

// askCoordinator asks the coordinator of its transactions.
func (k *txnClient) askCoordinator(what string, mayComeTwice bool, op func(m *txn.Machine, s *coord.Step, answer func(reply)), then func(reply)) {
	k.ask(k.c.txns.stateOf(k.id), what, mayComeTwice, func(at *node, answer func(reply)) {
		at.coordinate(k.id, func(code int16) { answer(reply{code: code}) }, func(m *txn.Machine, s *coord.Step, inOrder func(code int16)) {
			op(m, s, func(a reply) {
				if a.code != none {
					inOrder(a.code)
					return
				}
				answer(a)
			})
		})
	}, then)
}

// later goes on after a pause, unless the client is dead by then. Some pauses are long: others take it for dead.
func (k *txnClient) later(do func()) {
	c := k.c
	pause := ms + c.random(10*ms)
	if !c.healing && c.chance(0.03) {
		pause += c.random(900 * ms)
		c.saw("slow client")
	}
	c.after(pause, func() {
		switch {
		case k.dead:
		case !c.healing && c.chance(0.004):
			k.die("dies")
		default:
			do()
		}
	})
}

// die ends the client. If there is no newer one, another one follows.
func (k *txnClient) die(why string) {
	c := k.c
	c.note(note{what: "client", text: k.name + " " + why})
	k.dead = true
	if c.txns.newest[k.id] == k {
		c.after(c.random(100*ms), func() {
			if c.txns.newest[k.id] == k {
				k.s.startClient()
			}
		})
	}
}

// isRetriable tells whether a client asks again that has this code.
func isRetriable(code int16) bool {
	return slices.Contains([]int16{noAnswer, loadInProgress, unavailable, notCoordinator, concurrent, notLeaderCode, notEnoughReplicas, notEnoughAfterwards, unstableOffset}, code)
}

// initialise gets an epoch; has is what the client says that it has.
func (k *txnClient) initialise(has producerEpoch) {
	k.askCoordinator("init", false, func(m *txn.Machine, s *coord.Step, answer func(reply)) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &k.id, int32(k.timeout/ms)
		req.ProducerID, req.ProducerEpoch = has.ID, has.Epoch
		m.InitProducerID(s, req, func(r *kmsg.InitProducerIDResponse) {
			answer(reply{code: r.ErrorCode, has: producerEpoch{ID: r.ProducerID, Epoch: r.ProducerEpoch}})
		})
	}, func(a reply) {
		switch {
		case a.code == none:
			k.has, k.needsInit, k.fetched = a.has, false, noOffset
			clear(k.sequences)
			k.later(k.begin)
		case isRetriable(a.code):
			k.later(func() { k.initialise(has) })
		default:
			k.die("is refused an epoch: " + nameOfCode(a.code))
		}
	})
}

// begin begins the next transaction.
func (k *txnClient) begin() {
	k.added = nil
	if k.s.input != noInput {
		k.beginPipeline()
		return
	}
	if k.c.healing {
		k.isIdle = true
		return
	}
	k.newAttempt()
	for range 1 + k.c.rng.IntN(5) {
		k.newValue(0)
	}
	k.produce()
}

func (k *txnClient) newAttempt() {
	x := k.c.txns
	k.t = &attempt{k: k, number: len(x.attempts), offset: noOffset}
	x.attempts = append(x.attempts, k.t)
}

// newValue adds a value to the transaction. source is the record of the input that it is made of.
func (k *txnClient) newValue(source uint64) {
	c := k.c
	number := c.rng.Int32N(c.plan.topics[1].partitions)
	k.t.values = append(k.t.values, &txnValue{t: k.t, number: len(k.t.values), part: c.truth.find(outputTopic, number), source: source, patience: c.rng.IntN(12), at: unplaced})
}

// produce writes all values of the transaction, those of each partition one after the other, and goes on when all
// are written, or one is refused.
func (k *txnClient) produce() {
	ways := map[*partition][]*txnValue{}
	var order []*partition
	for _, v := range k.t.values {
		if v.part == nil { // the topic is not there yet
			k.c.after(50*ms, k.begin)
			return
		}
		if len(ways[v.part]) == 0 {
			order = append(order, v.part)
		}
		ways[v.part] = append(ways[v.part], v)
	}
	left, refused := len(order), none
	for _, p := range order {
		k.writeAll(p, ways[p], func(code int16) {
			if refused == none {
				refused = code
			}
			if left--; left == 0 {
				k.wrote(refused)
			}
		})
	}
}

// writeAll writes values to a partition, one after the other.
func (k *txnClient) writeAll(p *partition, values []*txnValue, done func(code int16)) {
	if len(values) == 0 {
		done(none)
		return
	}
	k.write(values[0], 0, func(code int16) {
		if code != none {
			done(code)
			return
		}
		k.writeAll(p, values[1:], done)
	})
}

// write writes a value. A client of the older flow adds the partition first.
func (k *txnClient) write(v *txnValue, attempts int, done func(code int16)) {
	if !k.bumps && !slices.Contains(k.added, v.part) {
		k.add(v, func(code int16) {
			if code != none {
				done(code)
				return
			}
			k.write(v, attempts, done)
		})
		return
	}
	w := &txnWrite{id: k.id, by: k.has, sequence: k.sequences[v.part], bumps: k.bumps, value: v}
	k.ask(v.part, "produce in a transaction", true, func(at *node, answer func(reply)) {
		at.takeTransactional(v.part, w, func(code int16) { answer(reply{code: code}) })
	}, func(a reply) {
		switch {
		case isRetriable(a.code) && attempts < v.patience:
			k.later(func() { k.write(v, attempts+1, done) })
		case isRetriable(a.code):
			done(abortable)
		default:
			if a.code == none {
				v.acked = true
				k.sequences[v.part]++
			}
			k.later(func() { done(a.code) })
		}
	})
}

// add makes a partition part of the transaction.
func (k *txnClient) add(v *txnValue, done func(code int16)) {
	by := k.has
	k.askCoordinator("add", false, func(m *txn.Machine, s *coord.Step, answer func(reply)) {
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 3, k.id, by.ID, by.Epoch
		req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: outputTopic, Partitions: []int32{v.part.number}}}
		m.AddPartitions(s, 3, txn.SingleTransaction(req), func(r *kmsg.AddPartitionsToTxnResponseTransaction) {
			answer(reply{code: txn.SingleAnswer(r)[0].Partitions[0].ErrorCode})
		})
	}, func(a reply) {
		switch {
		case a.code == none:
			k.added = append(k.added, v.part)
			done(none)
		case isRetriable(a.code):
			k.later(func() { k.add(v, done) })
		default:
			done(a.code)
		}
	})
}

// wrote goes on when all values are written, or one is refused.
func (k *txnClient) wrote(refused int16) {
	switch refused {
	case none:
		if k.t.offset != noOffset {
			k.sendOffset()
			return
		}
		k.end(k.c.healing || k.c.chance(0.75))
	case abortable, wrongState, outOfOrderCode:
		k.needsInit = true
		k.later(func() { k.end(false) })
	default:
		k.needsInit = true
		k.lostEpoch(refused)
	}
}

// lostEpoch is what a client does that is told that its epoch is old. It may have timed out, and then can abort to be
// sure, or ask for its next epoch.
func (k *txnClient) lostEpoch(code int16) {
	switch {
	case code == unknownProducerID || k.c.chance(0.3):
		k.die("gives up: " + nameOfCode(code))
	case k.bumps:
		k.later(func() { k.end(false) })
	default:
		k.later(func() { k.initialise(k.has) })
	}
}

// end commits or aborts the transaction.
func (k *txnClient) end(commit bool) {
	t, by := k.t, k.has
	what := "commit"
	if !commit {
		what = "abort"
	}
	k.askCoordinator(what, k.bumps, func(m *txn.Machine, s *coord.Step, answer func(reply)) {
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.Commit = 4, k.id, commit
		if k.bumps {
			req.Version = 5
		}
		req.ProducerID, req.ProducerEpoch = by.ID, by.Epoch
		m.EndTxn(s, req, func(r *kmsg.EndTxnResponse) {
			answer(reply{code: r.ErrorCode, has: producerEpoch{ID: r.ProducerID, Epoch: r.ProducerEpoch}})
		})
	}, func(a reply) {
		switch {
		case a.code == none:
			t.outcome = toldAborted
			if commit {
				t.outcome = toldCommitted
			}
			k.ended(commit, a.has)
		case isRetriable(a.code):
			k.later(func() { k.end(commit) })
		case a.code == wrongState && commit:
			t.outcome = toldAborted
			k.later(func() {
				if k.bumps {
					k.end(false)
				} else {
					k.initialise(k.has)
				}
			})
		default:
			k.lostEpoch(a.code)
		}
	})
}

// ended goes on after a transaction.
func (k *txnClient) ended(commit bool, next producerEpoch) {
	if k.bumps {
		k.has = next
		clear(k.sequences)
		k.needsInit = false
	}
	if commit && k.t.offset != noOffset {
		k.fetched = k.t.offset
	} else {
		k.fetched = noOffset
	}
	if k.needsInit || k.c.chance(0.05) {
		k.later(func() { k.initialise(k.has) })
		return
	}
	k.later(k.begin)
}
