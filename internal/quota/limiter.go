package quota

import (
	"math"
	"sync/atomic"
	"time"
)

// Config is how use is measured. A zero value stands for Kafka's default.
type Config struct {
	Windows         Windows // quota.window.num, 11, of quota.window.size.seconds, 1
	MutationWindows Windows // controller.quota.window.num and .size.seconds: the same
	SensorBytes     int64   // the memory of the sensors of one kind, 8 MiB
	// Now is the clock; nil: the time since the limiter was made.
	Now func() time.Duration
}

func (w *Windows) setDefaults() {
	if w.Number <= 0 {
		w.Number = 11
	}
	if w.Millis <= 0 {
		w.Millis = 1000
	}
}

func (c *Config) setDefaults() {
	c.Windows.setDefaults()
	c.MutationWindows.setDefaults()
	if c.SensorBytes <= 0 {
		c.SensorBytes = defaultSensorBytes
	}
	if c.Now == nil {
		began := time.Now()
		c.Now = func() time.Duration { return time.Since(began) }
	}
}

// Limiter measures the use of a node, and holds it against the quotas of the moment.
type Limiter struct {
	cfg   Config
	table atomic.Pointer[Table] // nil: there is no quota of users or client ids
	// The sensors that a client id has a part in are apart from the others, so that no number of client ids, which clients
	// choose, takes the place of those of users.
	ofUsers, ofClients [Kinds]*sensors
	stats              [Kinds]counters
}

// counters are the totals of a kind.
type counters struct {
	used      atomic.Int64 // in parts of its unit: see partsOf
	throttled atomic.Int64 // answers
	millis    atomic.Int64 // for which those were throttled
}

// partsOf is how many parts of a kind's unit are counted: thousandths, and for requests, which take some microseconds, nanoseconds.
func partsOf(k Kind) float64 {
	if k == Request {
		return 1e7 // a second is 100 percent
	}
	return 1000
}

// Stats are the totals of a kind, of what has a quota.
type Stats struct {
	Used            float64 // in the kind's unit
	Throttled       int64   // how often clients were throttled
	ThrottleSeconds float64
	Sensors         int // now
}

// New makes a limiter that has no quotas yet.
func New(cfg Config) *Limiter {
	cfg.setDefaults()
	l := &Limiter{cfg: cfg}
	for k := range Kinds {
		l.ofUsers[k], l.ofClients[k] = newSensors(cfg.SensorBytes), newSensors(cfg.SensorBytes)
	}
	return l
}

// SetTable has another table count from now on. What was measured stays.
func (l *Limiter) SetTable(t *Table) {
	if !t.hasOfClient {
		t = nil
	}
	l.table.Store(t)
}

// IsActive tells whether there is a quota of any user or client id.
func (l *Limiter) IsActive() bool { return l.table.Load() != nil }

// Has tells whether there is a quota of a kind.
func (l *Limiter) Has(k Kind) bool {
	t := l.table.Load()
	return t != nil && len(t.kinds[k]) > 0
}

// Now is the time on the limiter's clock, in ms.
func (l *Limiter) Now() int64 { return l.Clock().Milliseconds() }

// Clock is the time on the limiter's clock.
func (l *Limiter) Clock() time.Duration { return l.cfg.Now() }

// Owner is a user with a client id, and the quotas that it has by one table.
type Owner struct {
	user, client string
	table        *Table
	uses         [Kinds]use
}

// use is an owner's use of one kind.
type use struct {
	key    sensorKey
	limit  float64
	sensor atomic.Pointer[sensor] // nil: it is not known yet
}

// Owner returns the owner for a user with a client id: last, if it is that one by the present table. It is nil if there are
// no quotas.
func (l *Limiter) Owner(last *Owner, user, client string) *Owner {
	t := l.table.Load()
	if t == nil {
		return nil
	}
	if last != nil && last.table == t && last.client == client && last.user == user {
		return last
	}
	o := &Owner{user: user, client: client, table: t}
	for k := range o.uses {
		o.uses[k].key, o.uses[k].limit = t.kinds[k].find(user, client)
	}
	return o
}

// HasQuota tells whether the owner's use of a kind is limited.
func (o *Owner) HasQuota(k Kind) bool { return o != nil && o.uses[k].limit < none }

// Use adds a use of bytes of requests, or of processor time, and returns for how many ms the owner is to be throttled, until its use a second
// is within its quota. The owner may be nil, and have the quotas of an earlier table.
func (l *Limiter) Use(o *Owner, k Kind, value float64, now int64) (millis int64) {
	u := l.presentUse(o, k)
	if u == nil {
		return 0
	}
	s := l.lockSensor(u, k)
	s.rate.add(l.cfg.Windows, value, now)
	millis = s.rate.throttle(l.cfg.Windows, u.limit, now)
	s.emptyAt.Store(now + l.cfg.Windows.span())
	s.mu.Unlock()
	if k == Request { // the percentage is of what passes anyway
		millis = min(millis, l.cfg.Windows.Millis)
	}
	l.stats[k].used.Add(int64(value * partsOf(k)))
	return millis
}

// UseFetch is Use for an answer with records, which is only sent if the owner is within its quota with it. If it is not, the
// answer is refused, and does not count. One that alone is more than MostFetch is sent when nothing else counts, since it
// would be refused for ever, and throttles then.
func (l *Limiter) UseFetch(o *Owner, bytes float64, now int64) (millis int64, refused bool) {
	u := l.presentUse(o, Fetch)
	if u == nil {
		return 0, false
	}
	w := l.cfg.Windows
	s := l.lockSensor(u, Fetch)
	before, _ := s.rate.measure(w, now)
	s.rate.add(w, bytes, now)
	millis = s.rate.throttle(w, u.limit, now)
	if refused = millis > 0 && (before > 0 || bytes <= float64(l.MostFetch(o))); refused {
		s.rate.add(w, -bytes, now)
	}
	s.emptyAt.Store(now + w.span())
	s.mu.Unlock()
	if !refused {
		l.stats[Fetch].used.Add(int64(bytes * partsOf(Fetch)))
	}
	return millis, refused
}

// Mutate adds partitions that are created or deleted. A strict quota admits none when it is used up, and Mutate returns
// after how many ms it admits some; a permissive one admits all, and the owner is throttled for so long. 0: they are within the quota.
func (l *Limiter) Mutate(o *Owner, partitions int, strict bool, now int64) (millis int64) {
	u := l.presentUse(o, Mutation)
	if u == nil {
		return 0
	}
	w := l.cfg.MutationWindows
	s := l.lockSensor(u, Mutation)
	defer s.mu.Unlock()
	if strict {
		millis = s.bucket.throttle(w, u.limit, now)
	}
	if millis == 0 {
		s.bucket.take(w, u.limit, float64(partitions), now)
		l.stats[Mutation].used.Add(int64(partitions) * int64(partsOf(Mutation)))
	}
	if !strict {
		millis = s.bucket.throttle(w, u.limit, now)
	}
	s.emptyAt.Store(now + s.bucket.untilFull(w, u.limit, now))
	return millis
}

// MostFetch is how many bytes one answer may have without being throttled for them alone. A reader that asks for more would
// be throttled whenever it asks.
func (l *Limiter) MostFetch(o *Owner) int64 {
	u := l.presentUse(o, Fetch)
	if u == nil {
		return math.MaxInt64
	}
	return int64(min(u.limit*float64(l.cfg.Windows.Number-1)*(float64(l.cfg.Windows.Millis)/1000), math.MaxInt32))
}

// presentUse is an owner's use by the present table; nil: it has no quota.
func (l *Limiter) presentUse(o *Owner, k Kind) *use {
	if o == nil {
		return nil
	}
	if o = l.Owner(o, o.user, o.client); !o.HasQuota(k) {
		return nil
	}
	return &o.uses[k]
}

// lockSensor returns the sensor of a use, locked.
func (l *Limiter) lockSensor(u *use, k Kind) *sensor {
	list := l.ofClients[k]
	if u.key.client == "" {
		list = l.ofUsers[k]
	}
	for {
		s := u.sensor.Load()
		if s == nil {
			s = list.find(u.key)
			u.sensor.Store(s)
		}
		s.mu.Lock()
		if !s.dropped {
			return s
		}
		s.mu.Unlock()
		u.sensor.CompareAndSwap(s, nil)
	}
}

// NoteThrottled counts that a client was throttled because of a kind.
func (l *Limiter) NoteThrottled(k Kind, millis int64) {
	l.stats[k].throttled.Add(1)
	l.stats[k].millis.Add(millis)
}

// Expire drops sensors that have nothing to remember. It is to be called every second or so.
func (l *Limiter) Expire(now int64) {
	for k := range Kinds {
		l.ofUsers[k].expire(now)
		l.ofClients[k].expire(now)
	}
}

// Stats returns the totals of a kind.
func (l *Limiter) Stats(k Kind) Stats {
	c := &l.stats[k]
	return Stats{
		Used: float64(c.used.Load()) / partsOf(k), Throttled: c.throttled.Load(), ThrottleSeconds: float64(c.millis.Load()) / 1000,
		Sensors: l.ofUsers[k].count() + l.ofClients[k].count(),
	}
}
