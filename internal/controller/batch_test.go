package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// gate is a quorum that holds proposals back until the test lets them pass.
type gate struct {
	*cluster
	shut    atomic.Bool
	pass    chan error // what becomes of the proposal that is held; nil: it is made
	batches [][]byte   // proposed while shut; written by one proposal at a time
}

func newGate(t *testing.T) (*gate, *Controller) {
	t.Helper()
	g := &gate{cluster: newCluster(t, nil), pass: make(chan error)}
	ctl := New(Config{Image: g.Image, Static: g.static, Leading: g.leading, Propose: g.propose})
	join(t, ctl, 0)
	g.shut.Store(true)
	return g, ctl
}

func (g *gate) propose(ctx context.Context, term uint64, records []byte) error {
	if g.shut.Load() {
		g.batches = append(g.batches, records)
		if err := <-g.pass; err != nil {
			return err
		}
	}
	return g.cluster.propose(ctx, term, records)
}

// command is a command under way.
type command struct {
	answered atomic.Bool
	err      error
	refused  *Error
}

// create begins to make a topic, and returns when the command waits for a commit.
func create(ctx context.Context, ctl *Controller, name string) *command {
	k := &command{}
	go func() {
		made, err := ctl.CreateTopics(ctx, []NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)
		if k.err = err; err == nil {
			k.refused = made[0].Err
		}
		k.answered.Store(true)
	}()
	synctest.Wait()
	return k
}

func remove(ctx context.Context, ctl *Controller, id meta.UUID) *command {
	k := &command{}
	go func() {
		errs, err := ctl.DeleteTopics(ctx, []meta.UUID{id})
		if k.err = err; err == nil {
			k.refused = errs[0]
		}
		k.answered.Store(true)
	}()
	synctest.Wait()
	return k
}

func (k *command) check(t *testing.T, what string, err error, kind Kind) {
	t.Helper()
	switch {
	case !k.answered.Load():
		t.Errorf("%s: no answer", what)
	case !errors.Is(k.err, err) || err == nil && k.err != nil:
		t.Errorf("%s: %v, want %v", what, k.err, err)
	case (k.refused != nil) != (kind != 0) || k.refused != nil && k.refused.Kind != kind:
		t.Errorf("%s: refused %v, want kind %d", what, k.refused, kind)
	}
}

// TestWaitingCommandsShareAProposal proves that commands which come while a proposal is
// under way are proposed together when it has ended, and that each is decided on the
// image after those before it. No command is answered, or refused, before the records
// that its answer depends on are committed.
func TestWaitingCommandsShareAProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		first := create(t.Context(), ctl, "first")
		commands := []*command{
			create(t.Context(), ctl, "a"), create(t.Context(), ctl, "b"),
			create(t.Context(), ctl, "a"), create(t.Context(), ctl, "first"),
		}
		for i, k := range append(commands, first) {
			if k.answered.Load() {
				t.Errorf("command %d was answered before anything was committed", i)
			}
		}
		g.pass <- nil
		synctest.Wait()
		first.check(t, "the first", nil, 0)
		for i, k := range commands {
			if k.answered.Load() {
				t.Errorf("command %d was answered before its batch was committed", i)
			}
		}
		g.pass <- nil
		synctest.Wait()
		for i, kind := range []Kind{0, 0, TopicExists, TopicExists} {
			commands[i].check(t, fmt.Sprint("command ", i), nil, kind)
		}
		if len(g.batches) != 2 || g.Image().NumTopics() != 3 {
			t.Errorf("%d proposals made %d topics", len(g.batches), g.Image().NumTopics())
		}
	})
}

// TestGivenUpCommandStaysInItsBatch proves that a command is carried out even if its
// caller gives up while it waits to be proposed, and that later decisions know of it.
func TestGivenUpCommandStaysInItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		made := create(t.Context(), ctl, "t")
		g.pass <- nil
		synctest.Wait()
		made.check(t, "the topic", nil, 0)
		id := g.Image().Topic("t").ID

		other := create(t.Context(), ctl, "other")
		patience, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone := remove(patience, ctl, id)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		gone.check(t, "who gave up", context.DeadlineExceeded, 0)
		again := remove(t.Context(), ctl, id)
		g.pass <- nil
		g.pass <- nil
		synctest.Wait()
		other.check(t, "another command", nil, 0)
		again.check(t, "the same once more", nil, UnknownTopicID)
		if g.Image().Topic("t") != nil {
			t.Error("what was given up was not made")
		}
	})
}

// TestFailedProposalIsForgotten proves that a failed proposal fails only its own
// commands: those that were decided on top of it are decided again, on the present image.
func TestFailedProposalIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		full := errors.New("the disk is full")
		first := create(t.Context(), ctl, "t")
		same := create(t.Context(), ctl, "t")
		other := create(t.Context(), ctl, "u")
		g.pass <- full
		synctest.Wait()
		first.check(t, "the first", full, 0)
		for !same.answered.Load() || !other.answered.Load() {
			g.pass <- nil
			synctest.Wait()
		}
		same.check(t, "one that was refused because of it", nil, 0)
		other.check(t, "another one", nil, 0)
		if g.Image().NumTopics() != 2 {
			t.Errorf("%d topics", g.Image().NumTopics())
		}
	})
}

// TestFailuresWithoutEnd proves that a command is not decided again for ever if every
// proposal before its own fails.
func TestFailuresWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		full := errors.New("the disk is full")
		commands := make([]*command, 8)
		for i := range commands {
			commands[i] = create(t.Context(), ctl, fmt.Sprint("t", i))
		}
		waits := func(k *command) bool { return !k.answered.Load() }
		for slices.ContainsFunc(commands, waits) {
			g.pass <- full
			synctest.Wait()
		}
		for i, k := range commands {
			k.check(t, fmt.Sprint("command ", i), full, 0)
		}
	})
}

// TestLargeCommandsAreProposedApart proves that commands which wait do not make a proposal
// that is too large.
func TestLargeCommandsAreProposedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		long := strings.Repeat("0:1,", maxConfigValue/4-1) + "0:1"
		large := func(name string) *command {
			k := &command{}
			go func() {
				topics := make([]NewTopic, 6)
				for i := range topics {
					topics[i] = NewTopic{
						Name: fmt.Sprint(name, i), Partitions: 1, ReplicationFactor: 1,
						Configs: map[string]*string{"leader.replication.throttled.replicas": &long},
					}
				}
				made, err := ctl.CreateTopics(t.Context(), topics, false)
				if k.err = err; err == nil {
					k.refused = made[0].Err
				}
				k.answered.Store(true)
			}()
			synctest.Wait()
			return k
		}
		first := create(t.Context(), ctl, "first")
		var commands []*command
		for i := range 8 {
			commands = append(commands, large(fmt.Sprint("large", i, "-")))
		}
		g.shut.Store(false)
		g.pass <- nil
		synctest.Wait()
		first.check(t, "the first", nil, 0)
		for i, k := range commands {
			k.check(t, fmt.Sprint("command ", i), nil, 0)
		}
		if want := 1 + 6*len(commands); g.Image().NumTopics() != want {
			t.Errorf("%d topics, want %d", g.Image().NumTopics(), want)
		}
		// Two of them fit into one proposal.
		if n := g.log - 2; n < len(commands)/2 || n > len(commands) {
			t.Errorf("%d proposals for %d large commands", n, len(commands))
		}
	})
}

// TestConcurrentCommands proves, for commands that run at the same time, that every entry
// fits the image before it, that only one caller is told that it has made a topic, and
// that every other change is of a caller that gave up or was told of a failure.
func TestConcurrentCommands(t *testing.T) {
	c := newCluster(t, nil)
	lost := errors.New("lost")
	ctl := New(Config{Image: c.Image, Static: c.static, Leading: c.leading, Propose: func(ctx context.Context, term uint64, records []byte) error {
		if rand.IntN(4) == 0 {
			return lost
		}
		err := c.propose(ctx, term, records)
		if err != nil {
			t.Error(err)
		}
		return err
	}})
	for registered := false; !registered; {
		_, err := tryToJoin(t.Context(), ctl, 0)
		registered = err == nil
	}
	const workers, rounds, names = 8, 200, 3
	var made, deleted, unsure atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					go cancel()
				}
				name := fmt.Sprint("t", rand.IntN(names))
				if topic := c.Image().Topic(name); topic == nil {
					got, err := ctl.CreateTopics(ctx, []NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)
					count(t, &made, &unsure, err, lost, err == nil && got[0].Err == nil)
				} else {
					errs, err := ctl.DeleteTopics(ctx, []meta.UUID{topic.ID})
					count(t, &deleted, &unsure, err, lost, err == nil && errs[0] == nil)
				}
				cancel()
			}
		})
	}
	all.Wait()
	for last := false; !last; { // when it is made, so is what was given up
		_, err := ctl.AllocateProducerIDs(t.Context(), 1)
		last = err == nil
	}
	if diff := made.Load() - deleted.Load() - int64(c.Image().NumTopics()); diff > unsure.Load() || -diff > unsure.Load() {
		t.Errorf("%d topics were made, %d deleted, %d are there; %d are not known", made.Load(), deleted.Load(), c.Image().NumTopics(), unsure.Load())
	}
}

// count counts a command that did something, or may have.
func count(t *testing.T, done, unsure *atomic.Int64, err, lost error, did bool) {
	t.Helper()
	switch {
	case did:
		done.Add(1)
	case errors.Is(err, context.Canceled):
		unsure.Add(1)
	case err != nil && !errors.Is(err, lost):
		t.Error(err)
	}
}

// BenchmarkConcurrentCreates makes topics from 16 goroutines. Proposals cost nearly
// nothing, so that it measures the decisions.
func BenchmarkConcurrentCreates(b *testing.B) {
	c := newCluster(b, nil)
	ctl := c.controller()
	join(b, ctl, 0)
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			name := fmt.Sprint("topic.", n.Add(1))
			if r, err := ctl.CreateTopics(b.Context(), []NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false); err != nil || r[0].Err != nil {
				b.Fatal(err, r)
			}
		}
	})
}
