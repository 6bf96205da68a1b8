package quota

import (
	"net/netip"
	"sync"
)

// mostAdmissionWait is how long a connection waits at most until it is served: clients give up after about so long.
const mostAdmissionWait = 30_000 // ms

// ConnectionConfig is how connections are measured.
type ConnectionConfig struct {
	Windows     Windows
	SensorBytes int64 // the memory of the sensors of addresses, 8 MiB
}

// ConnectionLimiter holds connections that come against the quotas of the node, of listeners and of addresses. A connection
// that comes too soon after others waits for its turn, in the order in which they have come to its listener. Kafka keeps it
// waiting in the listener's queue, and accepts it then. Here it is accepted, so that it does not keep others waiting that are
// not limited, as those of the cluster's nodes; and is not served before its turn. One that is against the quota of its
// address is closed after its time, as in Kafka.
type ConnectionLimiter struct {
	windows Windows

	mu        sync.Mutex
	table     *Table             // guarded by mu
	node      stream             // guarded by mu
	listeners map[string]*stream // guarded by mu
	addresses *sensors           // has a lock of its own, which is never held together with mu
	stats     ConnectionStats    // guarded by mu
}

// stream are connections that have one limit.
type stream struct {
	rate  rate
	limit float64 // a second
	free  int64   // ms: when the last connection to have come has its turn
}

// ConnectionLimits are the limits that are no quotas; 0: none.
type ConnectionLimits struct {
	Node      float64            // max.connection.creation.rate
	Listeners map[string]float64 // the same, of a listener
}

// ConnectionStats are totals.
type ConnectionStats struct {
	Throttled       int64 // connections that have waited for their turn
	Closed          int64 // connections against the quota of their address, or for which the wait would have been too long
	ThrottleSeconds float64
}

// Admission is what happens to a connection.
type Admission struct {
	WaitMillis int64 // until it is served, or closed
	Limit      string
	Refused    bool // it is closed then
}

// NewConnectionLimiter makes a limiter without limits.
func NewConnectionLimiter(cfg ConnectionConfig) *ConnectionLimiter {
	cfg.Windows.setDefaults()
	if cfg.SensorBytes <= 0 {
		cfg.SensorBytes = defaultSensorBytes
	}
	return &ConnectionLimiter{
		windows: cfg.Windows, node: stream{limit: none}, listeners: map[string]*stream{}, addresses: newSensors(cfg.SensorBytes),
	}
}

// SetTable has the quotas of another table count from now on.
func (c *ConnectionLimiter) SetTable(t *Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table = t
}

// SetLimits has other limits count from now on.
func (c *ConnectionLimiter) SetLimits(l ConnectionLimits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node.limit = limitOr(l.Node)
	for name, s := range c.listeners {
		s.limit = limitOr(l.Listeners[name])
	}
	for name, limit := range l.Listeners {
		if c.listeners[name] == nil {
			c.listeners[name] = &stream{limit: limitOr(limit)}
		}
	}
}

func limitOr(limit float64) float64 {
	if limit <= 0 {
		return none
	}
	return limit
}

// Admit decides what happens to a connection that comes to a listener.
func (c *ConnectionLimiter) Admit(listener string, ip netip.Addr, now int64) Admission {
	c.mu.Lock()
	l := c.listeners[listener]
	if l == nil {
		l = &stream{limit: none}
		c.listeners[listener] = l
	}
	ofAddress := c.table.connectionLimit(ip.Unmap())
	if c.node.limit == none && l.limit == none && ofAddress == none {
		c.mu.Unlock()
		return Admission{}
	}
	turn := max(now, l.free)
	wait := max(c.node.addOne(c.windows, turn), l.addOne(c.windows, turn))
	if turn+wait-now > mostAdmissionWait {
		c.takeBackLocked(l, turn)
		c.stats.Closed++
		c.mu.Unlock()
		return Admission{Refused: true, Limit: "max.connection.creation.rate"}
	}
	l.free = turn + wait
	turn = l.free
	if turn > now {
		c.stats.Throttled++
		c.stats.ThrottleSeconds += float64(turn-now) / 1000
	}
	c.mu.Unlock()
	if ofAddress == none {
		return Admission{WaitMillis: turn - now}
	}
	return c.admitAddress(l, ip, ofAddress, turn, now)
}

// admitAddress holds a connection against the quota of its address.
func (c *ConnectionLimiter) admitAddress(l *stream, ip netip.Addr, limit float64, turn, now int64) Admission {
	millis := c.useAddress(ip, limit, turn)
	if millis == 0 {
		return Admission{WaitMillis: turn - now}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takeBackLocked(l, turn)
	c.stats.Closed++
	c.stats.ThrottleSeconds += float64(millis) / 1000
	return Admission{WaitMillis: turn + millis - now, Limit: "the quota connection_creation_rate of its address", Refused: true}
}

// useAddress adds a connection of an address, and returns for how many ms it is throttled; then it does not count.
func (c *ConnectionLimiter) useAddress(ip netip.Addr, limit float64, now int64) (millis int64) {
	key := sensorKey{client: ip.Unmap().String()}
	s := c.addresses.find(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate.add(c.windows, 1, now)
	if millis = min(s.rate.throttle(c.windows, limit, now), c.windows.Millis); millis > 0 {
		s.rate.add(c.windows, -1, now)
	}
	s.emptyAt.Store(now + c.windows.span())
	return millis
}

func (c *ConnectionLimiter) takeBackLocked(l *stream, now int64) {
	c.node.rate.add(c.windows, -1, now)
	l.rate.add(c.windows, -1, now)
}

// addOne adds a connection, and returns how long it waits for its turn: at most a window.
func (s *stream) addOne(w Windows, now int64) int64 {
	s.rate.add(w, 1, now)
	if s.limit == none {
		return 0
	}
	return min(s.rate.throttle(w, s.limit, now), w.Millis)
}

// Expire drops sensors that have nothing to remember.
func (c *ConnectionLimiter) Expire(now int64) { c.addresses.expire(now) }

// Stats returns the totals.
func (c *ConnectionLimiter) Stats() ConnectionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}
