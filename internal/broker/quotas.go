package broker

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/wire"
)

// Quotas bound what this node does for a user or a client id: bytes of Produce requests, bytes of Fetch answers, time for requests
// (KIP-13, KIP-55, KIP-124); and, on the active controller's node, how many partitions are created and deleted (KIP-599).
// The answer to a client that is above a quota tells for how long, and its connection is muted for as long (KIP-219):
//
//	produce   counted when the request is decoded, whatever its acks; it is stored and answered all the same
//	fetch     counted when the answer is ready; one above the quota is not sent, and does not count: it is empty
//	time      that the goroutine of a request takes for it until it is answered or parked (charge), without acks=0, and
//	          without what waits for the disk or for the active controller
//	changes   a strict quota refuses them (versions that know THROTTLING_QUOTA_EXCEEDED), a permissive one counts them
//
// Other nodes, and clients that hold the data directory of one, have no quotas.

// ownerOf is whose quotas a request of the connection counts for; nil: nobody's.
func (s *session) ownerOf(r *wire.Request) *quota.Owner {
	l := s.b.cfg.Quotas
	if l == nil || !l.IsActive() || s.isPeer() {
		return nil
	}
	s.owner = l.Owner(s.owner, s.principal.Name, r.ClientID)
	return s.owner
}

// throttle mutes a connection because of a quota.
func (b *Broker) throttle(c *wire.Conn, k quota.Kind, millis int64) {
	c.Mute(time.Duration(millis) * time.Millisecond)
	b.cfg.Quotas.NoteThrottled(k, millis)
}

// charge is the time that a request takes, as its client's quota of it counts.
type charge struct {
	b     *Broker
	conn  *wire.Conn
	owner *quota.Owner
	began time.Duration // on the clock of quotas

	mu      sync.Mutex
	settled bool  // guarded by mu
	until   int64 // ms on the clock of quotas: when the throttle ends; guarded by mu
}

// serveCharged serves a request, and charges its client for the time that it takes.
func (s *session) serveCharged(a *api, r *wire.Request) error {
	owner := s.ownerOf(r)
	if !owner.HasQuota(quota.Request) || a.key == writeTxnMarkersKey {
		return s.serveAPI(a, r)
	}
	if a.key != 0 {
		s.Flush() // what it waits for belongs to earlier requests
	}
	c := &charge{b: s.b, conn: s.conn, owner: owner, began: s.b.cfg.Quotas.Clock()}
	r.Charge = c
	err := s.serveAPI(a, r)
	c.Settle()
	return err
}

const writeTxnMarkersKey = 27

// Settle charges the time so far, and mutes the connection if its client is above the quota, at the first call. It returns
// for how many ms the client is throttled from now on.
func (c *charge) Settle() int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled && c.until == 0 { // a look at the clock costs a good part of a small request
		return 0
	}
	l := c.b.cfg.Quotas
	clock := l.Clock()
	now := clock.Milliseconds()
	if !c.settled {
		c.settled = true
		const percentOfSecond = 100
		if millis := l.Use(c.owner, quota.Request, percentOfSecond*(clock-c.began).Seconds(), now); millis > 0 {
			c.until = now + millis
			c.b.throttle(c.conn, quota.Request, millis)
		}
	}
	return int32(max(0, c.until-now))
}

// exempt has the request cost nothing.
func (c *charge) exempt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = true
}

// settleCharge settles the charge of a request, if it has one.
func settleCharge(r *wire.Request) int32 {
	if r.Charge == nil {
		return 0
	}
	return r.Charge.Settle()
}

// requestSize is how many bytes a request has, with its header.
func requestSize(r *wire.Request, isFlexible bool) int {
	n := 2 + 2 + 4 + 2 + len(r.ClientID) + r.BodySize()
	if isFlexible {
		n++
	}
	return n
}

// chargeProduce counts the bytes of a Produce request, and notes for how long its client is throttled.
func (s *session) chargeProduce(p *produce) {
	owner := s.ownerOf(p.r)
	if owner == nil {
		return
	}
	c, isCharged := p.r.Charge.(*charge)
	if isCharged && p.acks == acksNone { // as in Kafka
		c.exempt()
	}
	if !owner.HasQuota(quota.Produce) {
		return
	}
	l := s.b.cfg.Quotas
	var now int64
	if isCharged { // saves a look at the clock
		now = c.began.Milliseconds()
	} else {
		now = l.Now()
	}
	if p.throttle = l.Use(owner, quota.Produce, float64(requestSize(p.r, p.version >= 9)), now); p.throttle > 0 {
		s.b.throttle(s.conn, quota.Produce, p.throttle)
	}
}

// limitFetch has a Fetch request ask for no more than its client's quota allows in all windows: more would be throttled
// whenever it is asked for.
func (s *session) limitFetch(f *fetch) {
	if f.owner = s.ownerOf(f.r); f.owner.HasQuota(quota.Fetch) {
		f.maxBytes = int32(min(int64(f.maxBytes), s.b.cfg.Quotas.MostFetch(f.owner)))
	}
}

// These are about how many bytes an answer has besides the records, itself and for each partition.
const (
	fetchAnswerBytes = 24
	fetchPartBytes   = 48
)

// isThrottled tells whether a fetch's client is above a quota, so that its answer has to be empty. If not, the answer counts.
func isThrottled(f *fetch) bool {
	if f.owner == nil {
		return false
	}
	if f.throttle = int64(settleCharge(f.r)); f.throttle > 0 {
		return true
	}
	if !f.owner.HasQuota(quota.Fetch) {
		return false
	}
	size := fetchAnswerBytes
	for i := range f.parts {
		size += fetchPartBytes + f.parts[i].chunkSize
	}
	l := f.b.cfg.Quotas
	millis, refused := l.UseFetch(f.owner, float64(size), l.Now())
	if f.throttle = millis; millis > 0 {
		f.b.throttle(f.r.Conn, quota.Fetch, millis)
	}
	return refused
}

// mutations is a client's quota of changes of partitions, as one request uses it.
type mutations struct {
	l      *quota.Limiter
	owner  *quota.Owner
	strict bool
	until  int64 // ms on the clock of quotas: when the throttle ends
}

// permit is a controller.Permit.
func (m *mutations) permit(partitions int) bool {
	now := m.l.Now()
	millis := m.l.Mutate(m.owner, partitions, m.strict, now)
	if millis > 0 {
		m.until = now + millis
	}
	return millis == 0 || !m.strict
}

// strictFrom are the versions from which on clients know THROTTLING_QUOTA_EXCEEDED.
func strictFrom() map[int16]int16 {
	const createTopics, deleteTopics, createPartitions = 19, 20, 37
	return map[int16]int16{createTopics: 6, deleteTopics: 5, createPartitions: 3}
}

// mutationsOf is the quota of changes of a user for a request; nil: it has none.
func (b *Broker) mutationsOf(p auth.Principal, clientID string, strict bool) *mutations {
	l := b.cfg.Quotas
	if l == nil || !l.Has(quota.Mutation) {
		return nil
	}
	owner := l.Owner(nil, p.Name, clientID)
	if !owner.HasQuota(quota.Mutation) {
		return nil
	}
	return &mutations{l: l, owner: owner, strict: strict}
}

// limitChanges has the decision hold changes of partitions against the quota of the client.
func (d *decision) limitChanges(b *Broker, r *wire.Request, p auth.Principal, isPeer bool) {
	from, isLimited := strictFrom()[r.Key]
	if !isLimited || isPeer {
		return
	}
	if d.changes = b.mutationsOf(p, r.ClientID, r.Version >= from); d.changes != nil {
		d.commands = controller.Limited{Controller: b.cfg.Controller, Permit: d.changes.permit}
	}
}

// throttled is for how many ms a client whose changes are above its quota is throttled. Its connection is muted, if it is a
// connection of this node.
func (b *Broker) throttled(d *decision, r *wire.Request) int32 {
	if d.changes == nil {
		return 0
	}
	millis := d.changes.until - b.cfg.Quotas.Now()
	if millis <= 0 {
		return 0
	}
	if !d.isForwarded {
		b.throttle(r.Conn, quota.Mutation, millis)
	}
	return int32(millis)
}

// throttleForwarded has the answer of the active controller's node tell the client its throttle time, which is the longer one of that node's
// and of this one, and mutes the connection. The answers of all requests that are forwarded and have a throttle time begin with it.
func (b *Broker) throttleForwarded(r *wire.Request, kind kmsg.Response, answer []byte) {
	if _, ok := kind.(kmsg.ThrottleResponse); !ok || b.cfg.Quotas == nil || len(answer) < 4 {
		return
	}
	own, there := settleCharge(r), int32(be.Uint32(answer))
	if there > 0 {
		b.throttle(r.Conn, quota.Mutation, int64(there))
	}
	if own > there {
		be.PutUint32(answer, uint32(own))
	}
}
