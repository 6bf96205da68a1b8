package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// askEvery is how often an agent asks the source for its brokers, and askAgain after which time it does so at once for an address that it does not know.
	askEvery = time.Minute
	askAgain = 2 * time.Second
	askTime  = 15 * time.Second
	// mostBrokers is how many brokers of a source an agent knows.
	mostBrokers = 10_000
)

// Reach says which addresses an agent dials. No node can make it another.
type Reach struct {
	brokers func(ctx context.Context) ([]string, error) // nil: there is nobody to ask
	log     *slog.Logger
	asking  chan struct{} // of size 1; filled while the source is asked

	mu    sync.Mutex      // guards the fields below
	fixed map[string]bool // that are named
	named map[string]bool // that the source has named
	asked time.Time       // when it was asked last
	err   error           // why it has not answered then
}

// NewReach allows the addresses of a list, and those that the source names; nil: it is not asked.
func NewReach(list []string, brokers func(ctx context.Context) ([]string, error), log *slog.Logger) *Reach {
	r := &Reach{brokers: brokers, log: log, asking: make(chan struct{}, 1), fixed: map[string]bool{}}
	for _, address := range list {
		r.fixed[strings.ToLower(address)] = true
	}
	return r
}

// Allow returns an error unless an address may be dialled. An address that is not known has the source be asked again, though not often.
func (r *Reach) Allow(ctx context.Context, address string) error {
	if r.has(address) {
		return nil
	}
	if r.brokers != nil && r.age() >= askAgain {
		r.ask(ctx)
	}
	if r.has(address) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := "the source names no brokers"
	switch all := slices.Sorted(maps.Keys(r.named)); {
	case r.brokers == nil:
		known = "the agent does not ask the source for its brokers"
	case r.err != nil && len(all) == 0:
		known = fmt.Sprintf("the source has not named its brokers: %v", r.err)
	case len(all) > 0:
		known = "the source names " + strings.Join(all[:min(len(all), 5)], ", ")
	}
	return fmt.Errorf("%s is none of the brokers that it may dial (%s): to allow it, start the agent with --allow %s", address, known, address)
}

func (r *Reach) has(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	address = strings.ToLower(address)
	return r.fixed[address] || r.named[address]
}

func (r *Reach) age() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.asked)
}

// ask asks the source for its brokers. While it does not answer, those that it has named before are allowed.
func (r *Reach) ask(ctx context.Context) {
	began := time.Now()
	select {
	case r.asking <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-r.asking }()
	r.mu.Lock()
	isNew := r.asked.After(began)
	r.mu.Unlock()
	if isNew { // somebody has asked meanwhile
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	list, err := r.brokers(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.err
	r.asked, r.err = time.Now(), err
	if err != nil {
		if was == nil {
			r.log.Warn("the source does not name its brokers; those that it has named are dialled on, and it is asked again", "err", err)
		}
		return
	}
	named := map[string]bool{}
	for _, address := range list[:min(len(list), mostBrokers)] {
		named[strings.ToLower(address)] = true
	}
	if !maps.Equal(named, r.named) {
		r.log.Info("these brokers of the source are dialled", "brokers", slices.Sorted(maps.Keys(named)))
	}
	r.named = named
}

// run asks the source from time to time.
func (r *Reach) run(ctx context.Context) {
	if r.brokers == nil {
		return
	}
	t := time.NewTicker(askEvery)
	defer t.Stop()
	for {
		r.ask(ctx)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
