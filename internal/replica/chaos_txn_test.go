package replica

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

const chaosTxnSeeds = 40

// TestTransactionsUnderFaults proves, over many seeds, that readers of committed records, on any node, see each record of a
// committed transaction and none of an aborted one, while nodes lose their power, leaders move and all else of
// TestReplicationUnderFaults happens; that no acknowledged record of a committed transaction is lost; and that no
// transaction is open in the end. The coordinator is the test: it never fails, and sends each marker until
// it is written. LEAT_TEST_SEEDS and LEAT_TEST_SEED are as there.
func TestTransactionsUnderFaults(t *testing.T) {
	from, to := 0, chaosTxnSeeds
	if testing.Short() {
		to = chaosTxnSeeds / 5
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEEDS")); err == nil {
		to = n
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SEED")); err == nil {
		from, to = n, n+1
	}
	total := map[string]int{}
	for seed := from; seed < to; seed++ {
		if seed%4 == 1 { // its topic may lose records
			continue
		}
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &txnChaos{chaos: newChaos(t, uint64(seed)), decided: map[string]bool{}, kept: map[string]record.Offset{}}
				x.run()
				for what, n := range x.counts {
					total[what] += n
				}
			})
		})
	}
	t.Log(total)
	if to-from < chaosTxnSeeds {
		return
	}
	for _, what := range []string{"committed", "aborted", "sent again", "marker again", "held back", "saw aborted records", "read", "read from a follower", "power cut", "leader moved"} {
		if total[what] == 0 {
			t.Errorf("in %d seeds there was no %q", to-from, what)
		}
	}
}

// txnChaos is chaos with transactions.
type txnChaos struct {
	*chaos
	decided map[string]bool          // guarded by mu: transactions that have ended, and whether they are committed
	kept    map[string]record.Offset // guarded by mu: where acknowledged values of transactions are
	reads   []txnReading             // guarded by mu
}

// txnReading is what a reader of committed records saw of a part of the log.
type txnReading struct {
	node     int32
	from, to record.Offset
	visible  map[record.Offset]string
}

func (x *txnChaos) run() {
	c := x.c
	defer c.close()
	c.setMeddle(x.meddle)
	c.mu.Lock()
	c.comesLate = x.comesLate
	c.mu.Unlock()
	var clients, others sync.WaitGroup
	for id := range chaosProducers {
		clients.Go(func() { x.transact(id) })
	}
	others.Go(x.readCommitted)
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

// transact runs one transaction of a producer after the other. Each has an epoch of its own.
func (x *txnChaos) transact(id int) {
	d := x.throw("producer", id)
	for epoch := int16(0); !x.cleared.Load(); epoch++ {
		name := fmt.Sprint(id, ":", epoch)
		commit := d.pick(3) > 0
		seq := int32(0)
		for range 1 + d.pick(3) {
			var values []string
			for i := range int32(1 + d.pick(3)) {
				values = append(values, fmt.Sprint(name, ":", seq+i))
			}
			if !x.sendUntilKept(d, producerAt{int64(id) + 1, epoch, seq}, values) {
				commit = false
				break
			}
			seq += int32(len(values))
			time.Sleep(d.random(20 * time.Millisecond))
		}
		x.mu.Lock()
		x.decided[name] = commit
		x.counts[map[bool]string{true: "committed", false: "aborted"}[commit]]++
		x.mu.Unlock()
		for try := 0; !x.sendMarker(int64(id)+1, epoch+1, commit); try++ {
			x.count("marker again")
			time.Sleep(5*time.Millisecond + d.random(20*time.Millisecond))
			if try > 20_000 {
				x.t.Errorf("the marker of %s cannot be written\n%s", name, x.c.describe())
				return
			}
		}
	}
}

// sendUntilKept sends a batch until it is acknowledged. It returns false if the producer must give the transaction up.
func (x *txnChaos) sendUntilKept(d *dice, at producerAt, values []string) bool {
	for try := range 20_000 {
		if try > 0 {
			x.count("sent again")
			time.Sleep(5*time.Millisecond + d.random(20*time.Millisecond))
		}
		base, err := x.sendInTransaction(at, values)
		switch {
		case err == nil:
			x.mu.Lock()
			for i, v := range values {
				x.kept[v] = base + record.Offset(i)
			}
			x.mu.Unlock()
			x.c.note("acknowledged %q at %d", values, base)
			return true
		case errors.Is(err, ErrOutOfOrderSequence): // all records of the producer were deleted meanwhile
			x.count("given up")
			return false
		case errors.Is(err, ErrProducerFenced), errors.Is(err, ErrTransactionState):
			x.t.Errorf("producer %d, epoch %d at %d: %v\n%s", at.id, at.epoch, at.seq, err, x.c.describe())
			return false
		}
	}
	x.t.Errorf("producer %d, epoch %d at %d cannot send\n%s", at.id, at.epoch, at.seq, x.c.describe())
	return false
}

// sendInTransaction does what a broker does with a batch of a transaction.
func (x *txnChaos) sendInTransaction(at producerAt, values []string) (record.Offset, error) {
	b := record.Builder{Transactional: true, LeaderEpoch: record.NoEpoch}
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
	p := m.replica("t")
	if p == nil {
		return -1, ErrNotLeader
	}
	v := BeginVerification(p, at.id, at.epoch, at.seq, 2)
	if v != nil {
		time.Sleep(x.others.random(3 * time.Millisecond)) // the coordinator's answer takes its time
		v.Confirm()
		defer v.End()
	}
	select {
	case a := <-m.send("t", append(record.Batch(nil), out...), AcksAll):
		if errors.Is(a.err, ErrTransactionState) && (v == nil || v.IsMoved() || m.replica("t") != p) {
			return -1, ErrNotLeader
		}
		return a.base, a.err
	case <-time.After(2 * time.Second): // a node that is cut off never answers
		return -1, ErrTimedOut
	}
}

// sendMarker writes a marker once, and tells whether it is committed.
func (x *txnChaos) sendMarker(producer int64, epoch int16, commit bool) bool {
	m := x.c.leader("t")
	if m == nil {
		return false
	}
	l, p := m.present(), m.replica("t")
	if p == nil {
		return false
	}
	done := make(chan error, 1)
	l.set.WriteMarkers([]Marker{{Partition: p, Producer: producer, Epoch: epoch, Version: 2, Marker: record.Marker{Commit: commit}}}, func(errs []error) {
		err := errs[0]
		if err == nil && l.dead.Load() {
			err = errCut
		}
		done <- err
	})
	select {
	case err := <-done:
		if errors.Is(err, ErrProducerFenced) {
			x.t.Errorf("the marker of producer %d, epoch %d: %v", producer, epoch, err)
			return true
		}
		return err == nil
	case <-time.After(2 * time.Second):
		return false
	}
}

// readCommitted has readers of committed records read from any node until all is over.
func (x *txnChaos) readCommitted() {
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
		q := Query{Epoch: lead.Epoch, LastEpoch: record.NoEpoch, Offset: p.Start(), MaxBytes: 1 << 20, AnyReplica: true, Isolation: ReadCommitted}
		if hw := record.Offset(p.hw.Load()); hw > q.Offset {
			q.Offset += (hw - q.Offset) * record.Offset(at) / 1000
		}
		f := Nothing()
		err = p.Read(&q, &f)
		var b []byte
		if f.Chunk.Exists() {
			b = make([]byte, f.Chunk.Len())
			_, _ = f.Chunk.ReadAt(b, 0)
			f.Chunk.Release()
		}
		if err != nil || l.dead.Load() {
			continue
		}
		if lead.Leader == m.id {
			x.count("read")
		} else {
			x.count("read from a follower")
		}
		if f.LastStable < f.HighWatermark {
			x.count("held back")
		}
		if f.Aborted != nil {
			x.count("saw aborted records")
		}
		r := showCommitted(b, q.Offset, f.Aborted)
		r.node = m.id
		if r.to > r.from && r.to > f.LastStable {
			x.t.Errorf("node %d shows records up to %d beyond the last stable offset %d", m.id, r.to, f.LastStable)
		}
		x.mu.Lock()
		x.reads = append(x.reads, r)
		x.mu.Unlock()
	}
}

// showCommitted is what Kafka's clients show of batches that a reader of committed records has fetched from an offset on.
func showCommitted(b []byte, from record.Offset, list *[]Aborted) txnReading {
	var aborted []Aborted
	if list != nil {
		aborted = *list
	}
	r := txnReading{from: from, to: from, visible: map[record.Offset]string{}}
	skipped := map[int64]bool{}
	for len(b) > 0 {
		one, rest, err := record.Next(b)
		if err != nil {
			break // the last one is cut short
		}
		b = rest
		for len(aborted) > 0 && aborted[0].First <= one.LastOffset() {
			skipped[aborted[0].Producer] = true
			aborted = aborted[1:]
		}
		r.to = one.NextOffset()
		if one.Control() {
			delete(skipped, one.ProducerID()) // a marker that commits ends no transaction that was aborted
			continue
		}
		if skipped[one.ProducerID()] {
			continue
		}
		var records record.Reader
		for records.Reset(one, 1<<20); records.Next(); {
			if records.Record.Offset >= from {
				r.visible[records.Record.Offset] = string(records.Record.Value)
			}
		}
		records.Close()
	}
	return r
}

// verify compares what readers saw with what was decided.
func (x *txnChaos) verify() {
	p := x.c.leader("t").replica("t")
	start := p.Start()
	end, err := p.End()
	if err != nil {
		x.t.Fatal(err)
	}
	if stable, err := storage.StableEnd(p.log.Load(), p.HighWatermark()); err != nil || stable != end {
		x.t.Errorf("the last stable offset is %d of %d: %v", stable, end, err)
	}
	all := map[record.Offset]string{} // those of committed transactions
	places := map[string]record.Offset{}
	for off := start; off < end; {
		b, err := p.ReadBatches(off, end, 1<<20)
		if err != nil || len(b) == 0 {
			x.t.Fatal(off, end, err)
		}
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				x.t.Fatal(err)
			}
			off, b = one.NextOffset(), rest
			if one.Control() {
				continue
			}
			var r record.Reader
			for r.Reset(one, 1<<20); r.Next(); {
				if r.Record.Offset < start { // the start may lie within a batch
					continue
				}
				v := string(r.Record.Value)
				if was, again := places[v]; again {
					x.t.Errorf("%q is at offset %d and at %d", v, was, r.Record.Offset)
				}
				places[v] = r.Record.Offset
				if x.decided[v[:strings.LastIndexByte(v, ':')]] {
					all[r.Record.Offset] = v
				}
			}
			r.Close()
		}
	}
	for v, at := range x.kept {
		if got, ok := places[v]; at >= start && (!ok || got != at) {
			x.t.Errorf("%q was acknowledged at offset %d and is not there, but at %d", v, at, got)
		}
	}
	f := Nothing()
	if err := p.Read(&Query{Epoch: record.NoEpoch, LastEpoch: record.NoEpoch, Offset: start, MaxBytes: 1 << 30, Isolation: ReadCommitted}, &f); err != nil {
		x.t.Fatal(err)
	}
	if f.Chunk.Exists() {
		b := make([]byte, f.Chunk.Len())
		_, _ = f.Chunk.ReadAt(b, 0)
		f.Chunk.Release()
		x.reads = append(x.reads, showCommitted(b, start, f.Aborted))
	}
	for _, r := range x.reads {
		want := maps.Clone(all)
		maps.DeleteFunc(want, func(o record.Offset, _ string) bool { return o < r.from || o >= r.to })
		maps.DeleteFunc(r.visible, func(o record.Offset, _ string) bool { return o < start })
		if !maps.Equal(want, r.visible) {
			x.t.Errorf("a reader of node %d saw of offsets %d to %d: %v, committed are %v", r.node, r.from, r.to, sortedValues(r.visible), sortedValues(want))
		}
	}
	if len(x.decided) == 0 || len(x.reads) == 0 {
		x.t.Error("nothing has happened")
	}
	if x.t.Failed() {
		x.t.Log(x.c.describe(), strings.Join(x.c.trace, "\n"))
	}
}

func sortedValues(m map[record.Offset]string) (list []string) {
	for _, o := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprint(o, "=", m[o]))
	}
	return list
}
