package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// TestTopicsAreAskedForInRounds proves that a node asks for one round of topics at a time, however many
// clients want some, and for each name once in it; and that each client is told of its own topics.
func TestTopicsAreAskedForInRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds, answer := make(chan []string), make(chan error)
		w := newTopicWishes(t.Context(), func(_ context.Context, names []string) (map[string]*controller.Error, error) {
			rounds <- names
			return map[string]*controller.Error{"a.b": {Kind: controller.InvalidTopic}}, <-answer
		})
		var refused, failed, made atomic.Int32
		var clients sync.WaitGroup
		want := func(names ...string) {
			clients.Go(func() {
				switch got, err := w.ensure(t.Context(), names); {
				case err != nil:
					failed.Add(1)
				case len(got) == 1 && got["a.b"] != nil:
					refused.Add(1)
				case len(got) == 0:
					made.Add(1)
				}
			})
		}
		want("first")
		if names := <-rounds; len(names) != 1 {
			t.Fatal(names)
		}
		for i := range 2500 {
			want("a.b", fmt.Sprint("t", i%10))
		}
		for i := range wishesAtOnce {
			want(fmt.Sprint("u", i))
		}
		synctest.Wait()
		answer <- nil
		asked := map[string]int{}
		for _, count := range []int{wishesAtOnce, 11} {
			names := <-rounds
			for _, name := range names {
				asked[name]++
			}
			if len(names) != count {
				t.Errorf("%d names are asked for at once, and %d were expected", len(names), count)
			}
			answer <- nil
		}
		clients.Wait()
		if len(asked) != wishesAtOnce+11 || refused.Load() != 2500 || made.Load() != wishesAtOnce+1 || failed.Load() != 0 {
			t.Errorf("%d names were asked for; %d clients are refused, %d served, %d failed", len(asked), refused.Load(), made.Load(), failed.Load())
		}
		want("last")
		<-rounds
		answer <- errStopping
		clients.Wait()
		if failed.Load() != 1 {
			t.Error("a failure is not told")
		}
		w.close()
	})
}

// TestTopicsWaitWithinBounds proves that the names that wait are bounded while no controller answers, that
// who has waited long enough is told so, and that all are refused at the end.
func TestTopicsWaitWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTopicWishes(t.Context(), func(ctx context.Context, _ []string) (map[string]*controller.Error, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var late, many int
		var mu sync.Mutex
		var clients sync.WaitGroup
		for i := range 2 * maxWishes / 10 {
			clients.Go(func() {
				names := make([]string, 10)
				for j := range names {
					names[j] = fmt.Sprintf("%d-%d", i, j)
				}
				_, err := w.ensure(ctx, names)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					late++
				case errors.Is(err, errManyWishes):
					many++
				}
			})
		}
		clients.Wait()
		if most := maxWishes/10 + wishesAtOnce/10; late > most || late+many != 2*maxWishes/10 {
			t.Errorf("%d clients have waited, %d were refused", late, many)
		}
		w.close()
		if _, err := w.ensure(t.Context(), []string{"x"}); !errors.Is(err, errStopping) {
			t.Error(err)
		}
	})
}

// TestClientsLeaveTheWayFree proves that a controller which is flooded by what clients of other nodes have
// caused answers the heartbeats, registrations and proposals of these nodes: they wait neither for a place,
// nor behind such a command on a connection.
func TestClientsLeaveTheWayFree(t *testing.T) {
	w := newWorld(t)
	replicas := map[int32]*Replicas{}
	all := w.startMembers(2, 1, func(m *member, ctx context.Context) []peer.Handler {
		r := NewReplicas(ctx, ReplicasConfig{NodeID: m.id, Links: m.links, Controller: m.ctl, BrokerEpoch: m.epoch.Load})
		m.closers = append(m.closers, r.Close)
		replicas[m.id] = r
		return r.Handlers()
	})
	lead, asked := all[0], all[1]
	over := make(chan struct{})
	defer close(over)
	began := make(chan struct{}, maxForwards)
	lead.serveClient = func(ctx context.Context, _ *wire.Carried, _ *wire.Request) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ended atomic.Int32
	var flood sync.WaitGroup
	defer flood.Wait()
	defer cancel()
	for range maxForwards {
		flood.Go(func() {
			_, _ = asked.ctl.Forward(ctx, &wire.Carried{}, nil)
			ended.Add(1)
		})
	}
	for range maxForwards {
		<-began
	}
	for lead.ctl.clients.start(func() { <-over }) {
	}
	flood.Go(func() { _, _ = asked.ctl.EnsureTopics(ctx, []string{"t"}) })
	flood.Go(func() { _, _ = asked.ctl.AllocateProducerIDs(ctx, 1) })
	for range 3 {
		if answer, refused, err := asked.beat(t.Context()); err != nil || refused != nil || answer.Fenced {
			t.Errorf("a heartbeat: %+v, %v, %v", answer, refused, err)
		}
	}
	if _, refused, err := asked.ctl.RegisterBroker(t.Context(), registrationOf(asked)); refused != nil || err != nil {
		t.Error("a registration:", refused, err)
	}
	if err := replicas[asked.id].AlterInSync(t.Context(), nil); err != nil {
		t.Error("a proposal:", err)
	}
	if lead.ctl.clients.start(func() {}) || lead.ctl.forwards.start(func() {}) || ended.Load() > 0 {
		t.Error("the flood has ended before the test")
	}
}
