package quota

import (
	"sync"
	"sync/atomic"
)

const (
	// sensorCost is about how much memory a sensor takes besides its names.
	sensorCost = 768
	// defaultSensorBytes is the memory of the sensors of one kind.
	defaultSensorBytes = 8 << 20
	// expireAtOnce is how many sensors one call of expire looks at.
	expireAtOnce = 1024
	// candidates is how many sensors are compared to find one to evict.
	candidates = 8
)

// sensor measures what is used of one kind, by those that are measured together.
type sensor struct {
	mu      sync.Mutex
	rate    rate   // guarded by mu
	bucket  bucket // in place of rate for mutations; guarded by mu
	dropped bool   // it is in no list any more, and whoever has it must find another one; guarded by mu

	emptyAt atomic.Int64 // ms: when it will have nothing to remember, if it is not used

	// The list that has it guards the fields below.
	key        sensorKey
	prev, next *sensor
}

// sensors are the sensors of one kind. The list has them in the order in which they were last looked at.
type sensors struct {
	mu    sync.Mutex
	most  int64                 // bytes
	bytes int64                 // guarded by mu
	byKey map[sensorKey]*sensor // guarded by mu
	list  sensor                // the list's root: next is its first element; guarded by mu
}

func newSensors(most int64) *sensors {
	l := &sensors{most: most, byKey: map[sensorKey]*sensor{}}
	l.list.prev, l.list.next = &l.list, &l.list
	return l
}

func costOf(key sensorKey) int64 { return sensorCost + int64(len(key.user)+len(key.client)) }

// find returns the sensor of a key, which it makes if there is none.
func (l *sensors) find(key sensorKey) *sensor {
	var evicted []*sensor
	l.mu.Lock()
	s := l.byKey[key]
	if s == nil {
		for l.bytes+costOf(key) > l.most && l.list.next != &l.list {
			evicted = append(evicted, l.evictLocked())
		}
		s = &sensor{key: key}
		l.byKey[key] = s
		l.bytes += costOf(key)
		l.pushLocked(s)
	}
	l.mu.Unlock()
	dropAll(evicted)
	return s
}

// evictLocked takes a sensor out of the list: of those that were looked at before all others, the one that has the least to
// remember. The others are looked at again later.
func (l *sensors) evictLocked() *sensor {
	evicted := l.list.next
	for range min(candidates, len(l.byKey)) {
		s := l.list.next
		if s.emptyAt.Load() < evicted.emptyAt.Load() {
			evicted = s
		}
		l.unlinkLocked(s)
		l.pushLocked(s)
	}
	l.removeLocked(evicted)
	return evicted
}

// expire drops sensors that have nothing to remember. Each call looks at some of them.
func (l *sensors) expire(now int64) {
	var empty []*sensor
	l.mu.Lock()
	for range min(expireAtOnce, len(l.byKey)) {
		s := l.list.next
		if s.emptyAt.Load() <= now {
			l.removeLocked(s)
			empty = append(empty, s)
			continue
		}
		l.unlinkLocked(s)
		l.pushLocked(s)
	}
	l.mu.Unlock()
	dropAll(empty)
}

// dropAll tells those that have the sensors that they are in no list any more.
func dropAll(list []*sensor) {
	for _, s := range list {
		s.mu.Lock()
		s.dropped = true
		s.mu.Unlock()
	}
}

func (l *sensors) pushLocked(s *sensor) {
	s.prev, s.next = l.list.prev, &l.list
	s.prev.next, l.list.prev = s, s
}

func (*sensors) unlinkLocked(s *sensor) { s.prev.next, s.next.prev = s.next, s.prev }

func (l *sensors) removeLocked(s *sensor) {
	l.unlinkLocked(s)
	delete(l.byKey, s.key)
	l.bytes -= costOf(s.key)
}

func (l *sensors) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byKey)
}
