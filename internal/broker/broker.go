// Package broker answers Kafka's APIs, one file per API: authorise, find, call,
// translate errors into codes. Nothing below it knows an error code, but for the
// coordinators' results.
//
// Broker is the wire.Handler with the table of APIs; a session is one connection.
// Produce and Fetch are decoded and encoded by hand and go through the session:
// what one read brought is collected, appended with one write a partition, and
// committed together. All else is decoded by kmsg and served after that.
//
// A session's methods run on its connection's goroutine; a parked produce or fetch
// belongs to whoever completes it. Locks: Broker.mu, session.mu, fetchSession.mu
// and fetchSessions.mu are each the only one held.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// Config hands the broker what it needs; zero limits mean their default.
type Config struct {
	NodeID int32
	Logger *slog.Logger
	Image  func() *meta.Image // the newest image; never nil
	Set    *replica.Set
	// Context returns what handlers wait under; it ends when the node stops.
	Context func() context.Context
	// ProducerIDs reserves a block of producer ids that nobody else gets.
	ProducerIDs func(ctx context.Context) (first, count int64, err error)
	// Groups coordinates consumer groups; nil: their APIs are not served.
	Groups *group.Service
	// EnsureOffsetsTopic makes the topic that holds groups and offsets, and returns
	// when it is there.
	EnsureOffsetsTopic func(ctx context.Context) error
	// Controller decides changes of topics and configs; nil: the APIs of topics,
	// configs and the cluster are not served. With it Static and Quorum must be set.
	Controller *controller.Controller
	Static     *config.Static       // this node's own settings
	Quorum     func() quorum.Status // the metadata quorum as this node sees it
	LogDir     string               // the data directory, for people
	// LogLevels are the levels of this node's loggers by name, one of them "root";
	// SetLogLevel changes one, nil gives it the root's. nil: there are none.
	LogLevels   func() map[string]slog.Level
	SetLogLevel func(name string, level *slog.Level)
	// Advertised tells whether the clients of a listener are told the address that this node
	// has registered for it; the others are told the one to which they came. nil: none are.
	Advertised func(listener string) bool

	// Work is the memory on which requests draw; nil: no bounds.
	Work *budget.Budget

	FetchMaxBytes int // fetch.max.bytes, 55 MiB
	FetchSessions int // max.incremental.fetch.session.cache.slots, 1000; negative: none
}

// Defaults of the limits, and how often parked produce requests are looked at for
// their time-outs.
const (
	defaultFetchMaxBytes = 55 << 20
	defaultFetchSessions = 1000
	expireEvery          = time.Second
)

// Broker is a wire.Handler.
type Broker struct {
	cfg   Config
	apis  [256]*api // by key
	ids   producerIDs
	cache *fetchSessions
	stats counters

	all               *allTopics
	produces, fetches sync.Pool    // states of requests
	watched           atomic.Int64 // partitions that parked fetches watch
	asleep            atomic.Int64 // bytes of the answers of fetches that are asleep

	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu
	closed   atomic.Bool           // fetches do not wait any more
}

// api is one row of the table of APIs; ApiVersions is read off it.
type api struct {
	key      int16
	name     string
	min, max int16 // versions served
	// Exactly one of the two is set. raw decodes the body itself and runs before
	// the appends collected so far are flushed (Produce, Fetch). serve gets the
	// decoded request after a Flush and an Uncork; it may block, and it must see to
	// it that r is answered, now or later.
	raw   func(s *session, r *wire.Request) error
	serve func(s *session, r *wire.Request, req kmsg.Request) error
}

// counters are what the broker counts as it serves.
type counters struct {
	bytesIn, recordsIn, bytesOut atomic.Int64
	requests                     [256]atomic.Int64 // by key
}

// Stats is what a broker has done since it was built.
type Stats struct {
	BytesIn   int64 // record batches appended, as they were sent
	RecordsIn int64
	BytesOut  int64 // record batches sent to readers
	// Requests counts requests by API name.
	Requests map[string]int64
	// FetchSessions is the number of incremental fetch sessions now.
	FetchSessions int
}

// New builds a broker from what it needs.
func New(cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, cache: newFetchSessions(cfg.FetchSessions),
		ids:  producerIDs{turn: make(chan struct{}, 1)},
		stop: make(chan struct{}), sessions: map[*session]struct{}{},
	}
	b.all = newAllTopics(b)
	b.produces.New = func() any { return &produce{b: b} }
	b.fetches.New = func() any { return newFetch(b) }
	for _, list := range [][]api{coreAPIs(), groupAPIs(b), adminAPIs(b), missingAPIs(b)} {
		if err := b.register(list); err != nil {
			return nil, err
		}
	}
	b.done.Go(b.expire)
	return b, nil
}

func (c *Config) validate() error {
	if c.Logger == nil || c.Image == nil || c.Set == nil || c.Context == nil || c.ProducerIDs == nil {
		return errors.New("broker: Logger, Image, Set, Context and ProducerIDs must be set")
	}
	if c.FetchMaxBytes == 0 {
		c.FetchMaxBytes = defaultFetchMaxBytes
	}
	if c.FetchSessions == 0 {
		c.FetchSessions = defaultFetchSessions
	}
	return nil
}

// coreAPIs are those of records, offsets and producers.
func coreAPIs() []api {
	return []api{
		{key: 0, name: "Produce", min: 3, max: 13, raw: (*session).produce},
		{key: 1, name: "Fetch", min: 4, max: 18, raw: (*session).fetch},
		{key: 2, name: "ListOffsets", min: 1, max: 11, serve: (*session).listOffsets},
		{key: 18, name: "ApiVersions", min: 0, max: 4, raw: (*session).apiVersions},
		{key: 21, name: "DeleteRecords", min: 0, max: 2, serve: (*session).deleteRecords},
		{key: 22, name: "InitProducerId", min: 0, max: 5, serve: (*session).initProducerID},
		{key: 23, name: "OffsetForLeaderEpoch", min: 2, max: 4, serve: (*session).offsetForLeaderEpoch},
		{key: 61, name: "DescribeProducers", min: 0, max: 0, serve: (*session).describeProducers},
	}
}

func (b *Broker) register(list []api) error {
	for i := range list {
		a := &list[i]
		switch {
		case a.key < 0 || int(a.key) >= len(b.apis):
			return fmt.Errorf("broker: API %s has the key %d", a.name, a.key)
		case b.apis[a.key] != nil:
			return fmt.Errorf("broker: %s and %s both have the key %d", b.apis[a.key].name, a.name, a.key)
		case a.min > a.max || (a.raw == nil) == (a.serve == nil):
			return fmt.Errorf("broker: API %s needs versions and exactly one handler", a.name)
		}
		b.apis[a.key] = a
	}
	return nil
}

// Open begins a connection's session.
func (b *Broker) Open(c *wire.Conn) wire.Session { //nolint:ireturn // wire.Handler asks for it
	s := &session{b: b, conn: c, appends: replica.Appends{Set: b.cfg.Set}}
	b.mu.Lock()
	b.sessions[s] = struct{}{}
	b.mu.Unlock()
	return s
}

func (b *Broker) forget(s *session) {
	b.mu.Lock()
	delete(b.sessions, s)
	b.mu.Unlock()
}

// Drain answers all parked fetches with what there is, and makes later ones not
// wait: a node that stops need not sit out its clients' long polls.
func (b *Broker) Drain() {
	b.closed.Store(true)
	b.mu.Lock()
	open := make([]*session, 0, len(b.sessions))
	for s := range b.sessions {
		open = append(open, s)
	}
	b.mu.Unlock()
	for _, s := range open {
		s.wakeFetches()
	}
}

// Close drains and stops what runs in the background. Connections are the
// server's to close.
func (b *Broker) Close() {
	b.Drain()
	close(b.stop)
	b.done.Wait()
	b.all.forget(nil)
}

// expire ends produce requests that have waited longer than their clients allow, or
// for a log that has failed, and forgets encoded topics.
func (b *Broker) expire() {
	t := time.NewTicker(expireEvery)
	defer t.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-t.C:
			b.cfg.Set.Expire(b.cfg.Set.Now())
			b.all.forget(b.cfg.Image())
		}
	}
}

// Stats tells what the broker has done.
func (b *Broker) Stats() Stats {
	st := Stats{
		BytesIn: b.stats.bytesIn.Load(), RecordsIn: b.stats.recordsIn.Load(), BytesOut: b.stats.bytesOut.Load(),
		Requests: map[string]int64{}, FetchSessions: b.cache.len(),
	}
	for key, a := range b.apis {
		if a != nil {
			st.Requests[a.name] = b.stats.requests[key].Load()
		}
	}
	return st
}
