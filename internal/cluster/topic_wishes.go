package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/controller"
)

const (
	// maxWishes is how many names of topics wait to be asked for, about: a name waits for one round of the
	// active controller, and for wishTime if there is none.
	maxWishes = 10_000
	// wishesAtOnce is how many topics are asked for at a time: they and the answer must fit into a message
	// between nodes.
	wishesAtOnce = 1000
	// wishTime is how long the active controller is asked for a round of topics. Clients wait as long, unless
	// request.timeout.ms says otherwise.
	wishTime = 15 * time.Second
)

// errManyWishes is returned for topics that are not asked for, since too many others wait.
var errManyWishes = errors.New("too many topics wait to be made")

// topicWishes are the topics that are to be made for clients of this node, which may be thousands at a
// time and may want the same topic, or one that can never be made. So the node asks the active controller
// for one round of them at a time, and for each name once in it:
//
//	add --> names --askRounds--> one round --answer--> topicWish.done
type topicWishes struct {
	ask     func(names []string) (refused map[string]*controller.Error, err error)
	cancel  context.CancelFunc // ends what is asked
	running sync.WaitGroup     // of askRounds; added to with mu held, while not closed

	mu       sync.Mutex            // guards the fields below
	names    []string              // that are in no round yet, the oldest first
	byName   map[string]*topicWish // of names
	isAsking bool                  // askRounds runs
	closed   bool
}

// topicWish is a topic that is to be made. Several clients may wait for it.
type topicWish struct {
	done    chan struct{} // closed when the fields below do not change any more
	refused *controller.Error
	err     error
}

// newTopicWishes asks by ask, until the context ends or close is called.
func newTopicWishes(ctx context.Context, ask func(ctx context.Context, names []string) (map[string]*controller.Error, error)) *topicWishes {
	ctx, cancel := context.WithCancel(ctx)
	return &topicWishes{cancel: cancel, byName: map[string]*topicWish{}, ask: func(names []string) (map[string]*controller.Error, error) {
		ctx, cancel := context.WithTimeout(ctx, wishTime)
		defer cancel()
		return ask(ctx, names)
	}}
}

// ensure waits until the topics were made, and returns why some were not.
func (w *topicWishes) ensure(ctx context.Context, names []string) (map[string]*controller.Error, error) {
	refused := map[string]*controller.Error{}
	for part := range slices.Chunk(names, wishesAtOnce) {
		wishes, err := w.add(part)
		if err != nil {
			return refused, err
		}
		for i, wish := range wishes {
			select {
			case <-wish.done:
			case <-ctx.Done():
				return refused, ctx.Err()
			}
			switch {
			case wish.err != nil:
				return refused, wish.err
			case wish.refused != nil:
				refused[part[i]] = wish.refused
			}
		}
	}
	return refused, nil
}

// add has topics asked for in one of the next rounds.
func (w *topicWishes) add(names []string) ([]*topicWish, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return nil, errStopping
	case len(w.names) >= maxWishes:
		return nil, errManyWishes
	}
	wishes := make([]*topicWish, len(names))
	for i, name := range names {
		wish := w.byName[name]
		if wish == nil {
			wish = &topicWish{done: make(chan struct{})}
			w.names, w.byName[name] = append(w.names, name), wish
		}
		wishes[i] = wish
	}
	if !w.isAsking && len(w.names) > 0 {
		w.isAsking = true
		w.running.Go(w.askRounds)
	}
	return wishes, nil
}

// askRounds asks for one round of topics after another, until none is left.
func (w *topicWishes) askRounds() {
	for {
		names, wishes := w.takeRound()
		if len(names) == 0 {
			return
		}
		refused, err := w.ask(names)
		for i, wish := range wishes {
			wish.refused, wish.err = refused[names[i]], err
			close(wish.done)
		}
	}
}

// takeRound takes the topics of the next round; none: the caller is to end.
func (w *topicWishes) takeRound() (names []string, wishes []*topicWish) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.names), wishesAtOnce)
	names = slices.Clone(w.names[:n])
	w.names = slices.Delete(w.names, 0, n)
	for _, name := range names {
		wishes = append(wishes, w.byName[name])
		delete(w.byName, name)
	}
	w.isAsking = n > 0
	return names, wishes
}

// close refuses all wishes, and later ones.
func (w *topicWishes) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.running.Wait()
}
