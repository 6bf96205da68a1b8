//go:build unix

package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// loadTopic is a topic of a load. Its era is odd while the meaning of its acknowledgements may be
// changing, and even while it holds: it rises before and after each change, under its book's mutex.
type loadTopic struct {
	name       string
	partitions int32
	padding    int // bytes of the largest record
	configs    map[string]string
	era        atomic.Int64
	replaced   bool // it is deleted and made again; it may be missing while its era is odd
	id         kadm.TopicID
}

// loadTopics has one topic of each kind that storage treats differently.
func loadTopics() []*loadTopic {
	topics := []*loadTopic{
		{name: "durable", partitions: 2, padding: 1000},
		{name: "rolled", partitions: 2, padding: 20_000, configs: map[string]string{"segment.bytes": "1048576"}},
		{name: "retained", partitions: 1, padding: 20_000, configs: map[string]string{"segment.bytes": "1048576", "retention.bytes": strconv.Itoa(retained)}},
		{name: "cached", partitions: 2, padding: 1000, configs: map[string]string{"flush.messages": "1000"}},
		{name: "switched", partitions: 2, padding: 1000, configs: map[string]string{"flush.messages": "1"}},
		{name: "replaced", partitions: 2, padding: 1000, replaced: true},
	}
	topics[3].era.Store(1) // its acknowledgements never promise to survive a power cut
	return topics
}

// retained is how many bytes a partition of the topic with that name keeps.
const retained = 3 << 20

// sure tells whether the topic always promises as much as durable topics do.
func (lt *loadTopic) sure() bool {
	return lt.name == "durable" || lt.name == "rolled" || lt.name == "retained"
}

// load is a set of real clients. They write, read and administrate while their node dies and comes
// back on the same address, again and again.
type load struct {
	*book
	addr    string
	clients []*kgo.Client
	stop    context.CancelFunc
	writers sync.WaitGroup

	dying    atomic.Bool // the node is about to die: calls may fail
	stopLife context.CancelFunc
	life     sync.WaitGroup // the administrators of one life of the node
}

// startLoad makes the topics on a node, and begins to write to them and to read them. power says
// that the load will meet power cuts and not only kills.
func startLoad(t *testing.T, p *process, power bool) *load {
	t.Helper()
	l := &load{book: newBook(power), addr: p.addr}
	adm := kadm.NewClient(p.client(t))
	for _, topic := range l.topics {
		if topic.replaced {
			topic.era.Store(1) // replace makes this topic
		} else {
			l.create(t.Context(), t, adm, topic)
		}
	}
	steady, paged, replaced := l.topics[:3], l.topics[3:5], l.topics[5:]
	all, one := kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RequiredAcks(kgo.LeaderAck())
	plain, stop := kgo.DisableIdempotentWrite(), kgo.StopProducerOnDataLossDetected()
	pagedOpts := []kgo.Opt{all}
	if !power {
		pagedOpts = append(pagedOpts, stop)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.stop = cancel
	l.addWriter(ctx, t, 0, steady, all, stop)
	l.addWriter(ctx, t, 1, paged, pagedOpts...)
	l.addWriter(ctx, t, 2, l.topics[:5], all, plain)
	l.addWriter(ctx, t, 3, l.topics[:5], one, plain)
	// The client names topics by their names, which stay the same when the topics are made again.
	l.addWriter(ctx, t, 4, replaced, all, plain, kgo.MaxVersions(kversion.V2_7_0()))
	l.addReader(ctx, t, l.topics[:5])
	t.Cleanup(func() { // a failed test leaves them running, with a dead node
		cancel()
		if l.stopLife != nil {
			l.stopLife()
		}
		for _, cl := range l.clients {
			cl.Close()
		}
		l.life.Wait()
		l.writers.Wait()
	})
	return l
}

func (l *load) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(l.addr), kgo.RetryTimeout(time.Minute), kgo.AlwaysRetryEOF(),
		kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }), kgo.MetadataMinAge(10 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// addWriter adds a client that writes. The clients with the numbers 0 and 1 are idempotent.
func (l *load) addWriter(ctx context.Context, t *testing.T, number int64, topics []*loadTopic, opts ...kgo.Opt) {
	t.Helper()
	cl := l.client(t, append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(100),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.UnknownTopicRetries(-1))...)
	l.clients = append(l.clients, cl)
	l.writers.Go(func() {
		for seq := int64(0); ctx.Err() == nil; seq++ {
			topic := topics[seq%int64(len(topics))]
			l.produce(ctx, cl, recordID{number, seq}, topic, int32(seq/int64(len(topics)))%topic.partitions)
			if seq%20 == 0 { // otherwise the topics of the page cache would fill the disk while the others wait for it
				pause(ctx, 5*time.Millisecond)
			}
		}
	})
}

// produce sends one record, whose answer goes to the book.
func (l *load) produce(ctx context.Context, cl *kgo.Client, id recordID, topic *loadTopic, partition int32) {
	era := topic.era.Load()
	// ctx does not cancel a record that was sent, so that it gets its answer. The client bounds how
	// many are under way, and waits at the bound.
	cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: topic.name, Partition: partition, Value: id.value(topic)},
		func(r *kgo.Record, err error) { l.answered(topic, id, era, r, err) })
}

// addReader adds a client that reads all topics from their start on, and notes the records.
func (l *load) addReader(ctx context.Context, t *testing.T, topics []*loadTopic) {
	t.Helper()
	var names []string
	for _, topic := range topics {
		names = append(names, topic.name)
	}
	cl := l.client(t, kgo.ConsumeTopics(names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	l.writers.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachPartition(l.saw)
		}
	})
}

// beginLife lets administrators change topics until endLife. The node must have started.
func (l *load) beginLife(t *testing.T, rng *rand.Rand) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l.stopLife = cancel
	l.dying.Store(false)
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.addr), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(cl)
	var admins sync.WaitGroup
	admins.Go(func() { l.switchModes(ctx, t, adm, l.topics[4]) })
	admins.Go(func() { l.replace(ctx, t, adm, l.topics[5], rand.New(rand.NewPCG(rng.Uint64(), 0))) })
	l.life.Go(func() {
		admins.Wait()
		cl.Close()
	})
}

// endLife waits until no answer of the dead node is under way.
func (l *load) endLife(t *testing.T) {
	t.Helper()
	l.stopLife()
	l.life.Wait()
	for before := -1; before != l.countAnswers(); { // answers may still be on their way
		before = l.countAnswers()
		time.Sleep(10 * time.Millisecond)
	}
	l.mu.Lock()
	l.lives++
	l.mu.Unlock()
}

// try reports the error of an administrator's call if the node was well. It returns false if there
// was an error.
func (l *load) try(ctx context.Context, t *testing.T, err error) bool {
	t.Helper()
	if err != nil && ctx.Err() == nil && !l.dying.Load() {
		t.Errorf("an administrator's call failed: %v", err)
	}
	return err == nil && ctx.Err() == nil
}

// pause waits for d, or until ctx ends. The test waits for nothing here: how long a state lasts
// varies.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// switchModes switches a topic between the modes of durability until ctx ends.
func (l *load) switchModes(ctx context.Context, t *testing.T, adm *kadm.Client, topic *loadTopic) {
	t.Helper()
	alter := func(value string) bool {
		resp, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "flush.messages", Value: &value}}, topic.name)
		if err == nil {
			err = resp[0].Err
		}
		return l.try(ctx, t, err)
	}
	for {
		if topic.era.Load()%2 == 1 {
			if !alter("1") {
				return
			}
			l.nextEra(topic, false)
		}
		pause(ctx, 70*time.Millisecond)
		l.nextEra(topic, false)
		if !alter("1000") {
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// replace deletes a topic and makes it again until ctx ends.
func (l *load) replace(ctx context.Context, t *testing.T, adm *kadm.Client, topic *loadTopic, rng *rand.Rand) {
	t.Helper()
	for {
		if topic.era.Load()%2 == 1 {
			resp, err := adm.DeleteTopic(ctx, topic.name)
			if err == nil {
				err = resp.Err
			}
			if !errors.Is(err, kerr.UnknownTopicOrPartition) && !l.try(ctx, t, err) {
				return
			}
			if !l.create(ctx, t, adm, topic) {
				return
			}
			l.nextEra(topic, false)
		}
		pause(ctx, time.Duration(20+rng.IntN(300))*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		l.nextEra(topic, true)
	}
}

func (l *load) create(ctx context.Context, t *testing.T, adm *kadm.Client, topic *loadTopic) bool {
	t.Helper()
	configs := map[string]*string{}
	for k, v := range topic.configs {
		configs[k] = &v
	}
	resp, err := adm.CreateTopic(ctx, topic.partitions, 1, configs, topic.name)
	if err == nil {
		err = resp.Err
	}
	topic.id = resp.ID
	return l.try(ctx, t, err)
}

// awaitSure waits until so many more records are sure to survive a power cut.
func (l *load) awaitSure(t *testing.T, n int) {
	t.Helper()
	before := l.countSure()
	eventually(t, "records are acknowledged", func() bool { return l.countSure() >= before+n || t.Failed() })
}

// probe writes a record to each partition with a client of its own, and notes it in the book.
func (l *load) probe(t *testing.T, p *process) {
	t.Helper()
	cl := p.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), readyLimit)
	defer cancel()
	for _, topic := range l.topics {
		if topic.replaced && topic.era.Load()%2 == 1 {
			continue
		}
		for partition := range topic.partitions {
			l.probes++
			l.produce(ctx, cl, recordID{9, l.probes}, topic, partition)
		}
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatalf("the node came back and takes no records: %v", err)
	}
}

// finish ends the load on a node that has started, and compares everything with the book.
func (l *load) finish(t *testing.T, p *process) {
	t.Helper()
	l.awaitSure(t, 300)
	l.stop()
	l.clients[4].Close() // its topic may be missing, and then its records would wait
	l.writers.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, cl := range l.clients[:4] {
		if err := cl.Flush(ctx); err != nil {
			t.Errorf("flush after the last start: %v", err)
		}
	}
	l.compare(t, p, false)
	l.probe(t, p)
}

// seedAndRounds is the seed and the number of rounds of a test of random moments, which the
// environment may set.
func seedAndRounds(t *testing.T, rounds int) (seed uint64, n int) {
	t.Helper()
	seed = rand.Uint64()
	var err error
	if s := os.Getenv("LEAT_TEST_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("LEAT_TEST_ROUNDS"); s != "" {
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LEAT_TEST_SEED=%d LEAT_TEST_ROUNDS=%d", seed, rounds)
	return seed, rounds
}

// TestKillUnderLoad proves that the end of the process loses nothing, whatever it was doing:
// writing to topics of each mode of durability, switching between the modes, rolling and dropping
// segments, or deleting topics and making them again. Some processes stand still for a while before
// they are killed, and some continue after that.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopped=%v", stopped), func(t *testing.T) {
			t.Parallel()
			seed, rounds := seedAndRounds(t, 3)
			rng := rand.New(rand.NewPCG(seed, 1))
			dir, addr := t.TempDir(), freeAddr(t)
			p := upAt(t, dir, addr)
			l := startLoad(t, p, false)
			for round := range rounds {
				l.beginLife(t, rng)
				l.awaitSure(t, 200+rng.IntN(2000))
				if stopped {
					signal(t, p, syscall.SIGSTOP)
					// The test waits for nothing here: clients are to meet a node that does not
					// answer.
					time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
					if rng.IntN(2) == 0 {
						signal(t, p, syscall.SIGCONT)
						l.awaitSure(t, rng.IntN(500))
					}
				}
				l.dying.Store(true)
				p.kill()
				l.endLife(t)
				l.inspect(t, dir, rng, false)
				if t.Failed() {
					t.Fatalf("round %d of seed %d", round+1, seed)
				}
				p = upAt(t, dir, addr)
			}
			l.finish(t, p)
			p.stop(t)
			p = up(t, dir)
			l.compare(t, p, false)
			p.stop(t)
			t.Log(l.book)
		})
	}
}

func signal(t *testing.T, p *process, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// inspect starts a node after a power cut or a kill, on an address that the load does not know, and
// compares its records with the book. After it has written some more records it ends the node in
// one of two ways, and checks that none of those is lost.
func (l *load) inspect(t *testing.T, dir string, rng *rand.Rand, power bool) {
	t.Helper()
	p := up(t, dir)
	l.compare(t, p, power)
	if t.Failed() {
		return
	}
	l.probe(t, p)
	l.compare(t, p, false)
	if rng.IntN(2) == 0 {
		p.kill()
	} else {
		p.stop(t)
	}
	p = up(t, dir)
	l.compare(t, p, false)
	p.stop(t)
}
