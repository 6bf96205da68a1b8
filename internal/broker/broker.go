// Package broker answers the requests of Kafka's protocol, one file for each API. A
// handler finds the topics and partitions that a request names, calls the packages
// below, and turns their errors into Kafka's codes. Of those packages only the
// coordinators know error codes.
//
// Broker is the wire.Handler with the table of APIs; a session is one connection.
// Produce and Fetch are decoded and encoded by hand. The batches of all Produce
// requests that one read of the connection has brought are collected in the session,
// appended with one write for each partition, and committed together; a request that must wait
// for the coordinator of its transaction is held apart from them. Requests of the
// other APIs are decoded by kmsg, and served when the batches before them are appended.
//
// A Broker may be used by any goroutine. A session's methods run on its connection's
// goroutine. A produce or fetch that waits belongs to the goroutine that ends its wait.
// No goroutine holds more than one of Broker.mu, session.mu, heldRequests.mu, fetchSession.mu
// and fetchSessions.mu.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/txn"
	"github.com/leatstream/leat/internal/wire"
)

// Config is what a Broker works with. A limit of 0 stands for its default.
type Config struct {
	NodeID int32
	Logger *slog.Logger
	Image  func() *meta.Image // the newest image; never nil
	Set    *replica.Set
	// Context returns the context under which handlers wait. It ends when the node stops.
	Context func() context.Context
	// ProducerIDs reserves a block of producer ids that no other node gets.
	ProducerIDs func(ctx context.Context) (first, count int64, err error)
	// Groups coordinates consumer groups; nil: their APIs are not served.
	Groups       *group.Service
	Coordination // what coordinators on this node need of others
	// Transactions reaches the coordinators of transactions; nil: there are none, and no partition is part of one.
	Transactions Transactions
	// Txns coordinates the transactions of which this node leads the partition of txn.Topic; nil: there are none.
	Txns *txn.Service
	// Controller decides changes of topics and configs, if this node is the active controller; nil: the
	// APIs of topics, configs and the cluster are not served. With it Static and Quorum must be set.
	Controller *controller.Controller
	// Contact tells whether the active controller has heard from this node; nil: it has.
	Contact func() Contact
	// Cluster reaches the active controller on other nodes; nil: this node is the only one.
	Cluster Cluster
	Static  *config.Static       // this node's own settings
	Quorum  func() quorum.Status // the metadata quorum as this node sees it
	LogDir  string               // the data directory, as clients are shown it
	// LogLevels returns the levels of this node's loggers by name, one of which is "root".
	// SetLogLevel sets one; with nil it gives the logger the root's level. Both are nil if
	// the node has no loggers.
	LogLevels   func() map[string]slog.Level
	SetLogLevel func(name string, level *slog.Level)
	Naming      Naming // of this node, for its clients

	Permissions // what clients may do
	// Quotas bound how much they may do; nil: nothing does.
	Quotas *quota.Limiter
	// Audit records who did what; nil: nothing does.
	Audit *audit.Recorder
	// NameRules returns what makes the names of a listener's users of their certificates; nil: the whole subject is the name.
	NameRules func(listener string) *auth.NameRules
	// Logins are the listeners whose clients must log in.
	Logins []*Login
	// Delegations decide delegation tokens, with the Controller; nil: there are none.
	Delegations *controller.Delegations

	// Peers lets other nodes in; nil: requests that only nodes may send are unknown.
	Peers *peer.Door

	// Work is the memory for requests and their answers; nil: it is not bounded.
	Work *budget.Budget

	FetchMaxBytes int // fetch.max.bytes, 55 MiB
	FetchSessions int // max.incremental.fetch.session.cache.slots, 1000; negative: none
	// FetchSessionBytes is the memory for all incremental fetch sessions; 0: MostFetchSessionBytes.
	FetchSessionBytes int64
}

// Coordination is what the coordinators of a node need of other nodes.
type Coordination struct {
	// EnsureTopic creates the topic of a kind of coordinators if there is none, and returns when it exists.
	EnsureTopic func(ctx context.Context, name string) error
	// MirrorEnds tells up to where partitions that mirror have records, in their order, whichever nodes lead them. It asks others only for those that others lead. known tells whose end is known; nil:
	// nothing mirrors.
	MirrorEnds func(ctx context.Context, places []MirrorPlace) (ends []position.Extent, known []bool)
}

// Permissions say what decides what clients may do. The functions may be called by any goroutine.
type Permissions struct {
	// Authorizer decides; nil: everybody may do everything.
	Authorizer *auth.Authorizer
	// Rules are what decides in its place, if that changes while the node runs; nil: it does not. With it NotePlain and NoteWouldDeny must be set.
	Rules func() Rules
	// NotePlain is told of clients that come without TLS, while the Rules have an authorizer.
	NotePlain func(clientID, host string)
	// NoteWouldDeny is told of what the authorizer would deny, while it only looks on.
	NoteWouldDeny func(principal string, op meta.Operation, t meta.ResourceType, name string)
}

// Naming says what clients are told of the address of the node that they have connected to. A function that is nil says no.
type Naming struct {
	// Advertised tells whether the clients of a listener are told the address that this node
	// has registered for it. Others are told the address to which they have connected, with TLS by its name.
	Advertised func(listener string) bool
	// Certified returns the name that a client is told in place of an address which the certificate of the listener
	// does not have, if the client has named no server in its handshake; "" if there is none.
	Certified func(listener string, address net.IP) string
}

// The defaults of the limits.
const (
	defaultFetchMaxBytes = 55 << 20
	defaultFetchSessions = 1000
)

// expireEvery is how often waiting produce requests are searched for overdue ones.
const expireEvery = time.Second

// Broker is a wire.Handler.
type Broker struct {
	cfg   Config
	apis  [256]*api // by key
	ids   producerIDs
	cache *fetchSessions
	names topicNames
	stats counters

	all               *allTopics
	produces, fetches sync.Pool    // of *produce and *fetch
	watched           atomic.Int64 // partitions that parked fetches watch
	asleep            atomic.Int64 // bytes of the answers of fetches that are asleep
	forwarding        atomic.Int64 // requests that wait for the active controller on another node

	electingAll chan struct{} // has an element while a request elects the leaders of all partitions

	stop chan struct{}  // closed by Close
	done sync.WaitGroup // the broker's goroutines

	mu       sync.Mutex
	sessions map[*session]struct{} // of the open connections; guarded by mu
	closed   atomic.Bool           // set by Drain; from then on no fetch waits
}

// api is one row of the table of APIs. The answer to ApiVersions is made of the table.
type api struct {
	key      int16
	name     string
	min, max int16 // versions served
	// from are the identities that may use it; 0: anybody may. It is unknown to all others.
	from peer.Kinds
	// needs are the permissions that a client needs.
	needs permissions
	// Exactly one of raw, serve and decide is set. raw decodes the body itself, and runs while
	// the batches of earlier requests may be collected and not appended yet. serve gets
	// the decoded request when those are appended and their answers are sent. It may
	// block, and must have r answered, before it returns or later.
	raw   func(s *session, r *wire.Request) error
	serve func(s *session, r *wire.Request, req kmsg.Request) error
	// decide is serve for requests that only the active controller decides. It answers before it returns,
	// or answers nothing and returns an error. It may be called again after that.
	decide func(d *decision, r *wire.Request, req kmsg.Request) error
	// screen answers such a request of this node's client where that needs no decision; it returns nil where it does. screen may be nil.
	screen func(s *session, req kmsg.Request) kmsg.Response
	// split finds what of such a request is sent to another node; nil: all of it.
	split func(by *access, req kmsg.Request) forwardedPart
}

// counters are the running totals that Stats reports.
type counters struct {
	bytesIn, recordsIn, bytesOut atomic.Int64
	requests                     [256]atomic.Int64 // by key
}

// Stats counts a broker's work since it was built.
type Stats struct {
	BytesIn   int64 // of the record batches that were appended, as their producers sent them
	RecordsIn int64
	BytesOut  int64 // of the record batches that were sent to readers
	// Requests counts requests by API name.
	Requests map[string]int64
	// FetchSessions is the number of incremental fetch sessions now.
	FetchSessions int
	Logins        []LoginStats
}

// New builds a broker. Close ends it.
func New(cfg Config) (*Broker, error) {
	if err := cfg.checkAndSetDefaults(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, cache: newFetchSessions(cfg.FetchSessions, cfg.FetchSessionBytes),
		ids:         producerIDs{turn: make(chan struct{}, 1)},
		electingAll: make(chan struct{}, 1),
		stop:        make(chan struct{}), sessions: map[*session]struct{}{},
	}
	b.all = newAllTopics(b)
	b.produces.New = func() any { return &produce{b: b} }
	b.fetches.New = func() any { return newFetch(b) }
	for _, list := range [][]api{coreAPIs(), groupAPIs(b), txnAPIs(b), adminAPIs(b), missingAPIs(b)} {
		if err := b.registerAPIs(list); err != nil {
			return nil, err
		}
	}
	b.done.Go(b.expireEverySecond)
	return b, nil
}

func (c *Config) checkAndSetDefaults() error {
	if c.Logger == nil || c.Image == nil || c.Set == nil || c.Context == nil || c.ProducerIDs == nil {
		return errors.New("broker: Logger, Image, Set, Context and ProducerIDs must be set")
	}
	if c.Delegations == nil && c.Controller != nil {
		c.Delegations = controller.NewDelegations(c.Controller, controller.DelegationConfig{})
	}
	if c.FetchMaxBytes == 0 {
		c.FetchMaxBytes = defaultFetchMaxBytes
	}
	if c.FetchSessions == 0 {
		c.FetchSessions = defaultFetchSessions
	}
	if c.FetchSessionBytes == 0 {
		c.FetchSessionBytes = MostFetchSessionBytes
	}
	return nil
}

// coreAPIs are the APIs of records, offsets and producers, and of logins.
func coreAPIs() []api {
	return append(loginAPIs(), []api{
		{key: 0, name: "Produce", min: 3, max: 13, raw: (*session).produce},
		{key: 1, name: "Fetch", min: 4, max: 18, raw: (*session).fetch},
		{key: 2, name: "ListOffsets", min: 1, max: 11, serve: (*session).listOffsets},
		{key: 18, name: "ApiVersions", min: 0, max: 5, raw: (*session).apiVersions},
		{key: 21, name: "DeleteRecords", min: 0, max: 2, serve: (*session).deleteRecords},
		{key: 22, name: "InitProducerId", min: 0, max: 5, serve: (*session).initProducerID},
		{key: 23, name: "OffsetForLeaderEpoch", min: 2, max: 4, serve: (*session).offsetForLeaderEpoch},
		{key: 27, name: "WriteTxnMarkers", min: 1, max: 2, serve: (*session).writeTxnMarkers},
		{key: 61, name: "DescribeProducers", min: 0, max: 0, serve: (*session).describeProducers},
	}...)
}

func (b *Broker) registerAPIs(list []api) error {
	known := apiPermissions()
	for i := range list {
		a := &list[i]
		switch {
		case a.key < 0 || int(a.key) >= len(b.apis):
			return fmt.Errorf("broker: API %s has the key %d", a.name, a.key)
		case b.apis[a.key] != nil:
			return fmt.Errorf("broker: %s and %s both have the key %d", b.apis[a.key].name, a.name, a.key)
		case a.min > a.max || countHandlers(a) != 1:
			return fmt.Errorf("broker: API %s needs versions and exactly one handler", a.name)
		}
		a.from = interBroker()[a.key]
		needs, ok := known[a.key]
		if !ok && a.from == 0 {
			return fmt.Errorf("broker: API %s is not in the table of permissions", a.name)
		}
		a.needs = needs
		b.apis[a.key] = a
	}
	return nil
}

func countHandlers(a *api) (n int) {
	for _, isSet := range [...]bool{a.raw != nil, a.serve != nil, a.decide != nil} {
		if isSet {
			n++
		}
	}
	return n
}

// Open begins a connection's session.
func (b *Broker) Open(c *wire.Conn) wire.Session { //nolint:ireturn // wire.Handler asks for it
	s := &session{conn: c, collected: collected{b: b, appends: replica.Appends{Set: b.cfg.Set}}}
	openAudit(s)
	s.logIn(auth.Anonymous())
	s.logInByCertificate()
	for _, l := range b.cfg.Logins {
		if l.Listener == c.ListenerName() && !wire.IsPlain(c) {
			beginLogin(s, l)
		}
	}
	if c.AsksForLogin() && s.gate == nil { // nobody gets in by a mistake of the wiring
		beginLogin(s, NewLogin(LoginConfig{Listener: c.ListenerName()}))
	}
	b.mu.Lock()
	b.sessions[s] = struct{}{}
	b.mu.Unlock()
	return s
}

func (b *Broker) removeSession(s *session) {
	b.mu.Lock()
	delete(b.sessions, s)
	b.mu.Unlock()
}

// Drain answers all fetches that wait, and has later ones answered at once, so that a
// node that stops need not wait for its clients' long polls to end.
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

// Close drains the broker and stops its goroutines. It does not close connections,
// which the server does.
func (b *Broker) Close() {
	b.Drain()
	close(b.stop)
	b.done.Wait()
	b.all.dropUnused(nil)
}

// expireEverySecond ends the waits of produce requests that are overdue, or whose log has
// failed, or for replicas that may have another leader, and drops encodings of all topics that are no longer used, until the broker closes.
func (b *Broker) expireEverySecond() {
	t := time.NewTicker(expireEvery)
	defer t.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-t.C:
			b.cfg.Set.Expire(b.cfg.Set.Now())
			if b.contact() != InContact {
				b.cfg.Set.EndWaits()
			}
			b.all.dropUnused(b.cfg.Image())
			b.names.dropUnused(b.cfg.Image())
			if l := b.cfg.Quotas; l != nil {
				l.Expire(l.Now())
			}
		}
	}
}

// Stats returns the present counts.
func (b *Broker) Stats() Stats {
	st := Stats{
		BytesIn: b.stats.bytesIn.Load(), RecordsIn: b.stats.recordsIn.Load(), BytesOut: b.stats.bytesOut.Load(),
		Requests: map[string]int64{}, FetchSessions: b.cache.count(),
	}
	for key, a := range b.apis {
		if a != nil {
			st.Requests[a.name] = b.stats.requests[key].Load()
		}
	}
	for _, l := range b.cfg.Logins {
		st.Logins = append(st.Logins, l.stats()...)
	}
	return st
}
