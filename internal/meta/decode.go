package meta

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/leatstream/leat/internal/config"
)

// reader takes fields off a record's body. After the first field that is not
// there it is bad, and every further field is zero.
type reader struct {
	b     []byte
	bad   bool
	newer bool    // there is something that a newer version wrote
	ids   []int32 // one piece of memory for many short lists
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint(lo, hi int64) int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || v < lo || v > hi {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 { return int32(r.varint(math.MinInt32, math.MaxInt32)) }

func (r *reader) int16() int16 { return int16(r.varint(math.MinInt16, math.MaxInt16)) }

func (r *reader) int64() int64 { return r.varint(math.MinInt64, math.MaxInt64) }

// index is a number that counts something: not negative.
func (r *reader) index() int32 {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.bad = true
		return 0
	}
	return int32(v)
}

// count is how many things follow, each of which takes a byte or more.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

// bounded is a count that is at most limit.
func (r *reader) bounded(limit int) int {
	n := r.count()
	if n > limit {
		r.b, r.bad = nil, true
		return 0
	}
	return n
}

func (r *reader) text() string {
	n := r.count()
	if n > maxText {
		r.b, r.bad = nil, true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) uuid() (id UUID) {
	if len(r.b) < len(id) {
		r.b, r.bad = nil, true
		return UUID{}
	}
	r.b = r.b[copy(id[:], r.b):]
	return id
}

func (r *reader) state() BrokerState {
	s := r.uvarint()
	if s > uint64(BrokerLeaving) {
		r.newer = true
		return 0
	}
	return BrokerState(s)
}

func (r *reader) resource() config.Resource {
	t := r.uvarint()
	if t > math.MaxInt8 {
		r.bad = true
	}
	return config.Resource{Type: config.ResourceType(t), Name: r.text()}
}

func (r *reader) list() []int32 {
	n := r.count()
	if n == 0 {
		return nil
	}
	if n > cap(r.ids)-len(r.ids) {
		r.ids = make([]int32, 0, max(n, 64))
	}
	from := len(r.ids)
	for range n {
		r.ids = append(r.ids, r.int32())
	}
	return r.ids[from:len(r.ids):len(r.ids)]
}

// optional is a list of a body's end, where the empty ones are left out.
func (r *reader) optional() []int32 {
	if len(r.b) == 0 {
		return nil
	}
	return r.list()
}

// sized reads one element of a list, which stands there with its length.
func (r *reader) sized(read func(*reader)) {
	n := r.count()
	element := reader{b: r.b[:n], ids: r.ids}
	read(&element)
	r.bad = r.bad || element.bad
	r.newer = r.newer || element.newer || len(element.b) > 0
	r.b, r.ids = r.b[n:], element.ids
}

func (r *reader) partition() Partition {
	p := Partition{Replicas: r.list(), ISR: r.list()}
	p.Leader, p.LeaderEpoch, p.PartitionEpoch = r.int32(), r.int32(), r.int32()
	p.Adding, p.Removing, p.Eligible, p.LastEligible = r.optional(), r.optional(), r.optional(), r.optional()
	return p
}

func (r *reader) partitionChanged() PartitionChanged {
	c := PartitionChanged{Topic: r.uuid(), Partition: r.index(), ISR: r.list()}
	c.Leader, c.LeaderEpoch, c.PartitionEpoch = r.int32(), r.int32(), r.int32()
	c.Eligible, c.LastEligible = r.optional(), r.optional()
	return c
}

func (r *reader) broker() Broker {
	b := Broker{ID: r.int32(), Epoch: r.int64(), Incarnation: r.uuid(), State: r.state(), Rack: r.text()}
	if n := r.bounded(maxListeners); n > 0 {
		b.Listeners = make([]Listener, n)
		for i := range b.Listeners {
			r.sized(func(r *reader) {
				b.Listeners[i] = Listener{
					Name: r.text(), Host: r.text(), Port: r.index(), Security: SecurityProtocol(r.int16()),
				}
			})
		}
	}
	if n := r.bounded(maxFeatures); n > 0 {
		b.Features = make([]FeatureRange, n)
		for i := range b.Features {
			r.sized(func(r *reader) { b.Features[i] = FeatureRange{Name: r.text(), Min: r.int16(), Max: r.int16()} })
		}
	}
	return b
}

// each hands the records of an entry to do, one after another, until one fails.
func each(entry []byte, do func(Record) error) error {
	var ids []int32 // memory for the lists of replicas
	for len(entry) > 0 {
		head := reader{b: entry}
		tag, written := head.uvarint(), head.uvarint()
		n := head.count()
		if head.bad {
			return fmt.Errorf("%w: an entry is cut short", ErrCorrupt)
		}
		if tag == 0 {
			return fmt.Errorf("%w: a record without a tag", ErrCorrupt)
		}
		if written < version {
			return fmt.Errorf("%w (record %d)", ErrOlder, tag)
		}
		if tag > lastTag || written > version {
			return fmt.Errorf("%w (record %d, version %d)", ErrNewer, tag, written)
		}
		r := reader{b: head.b[:n], ids: ids}
		if err := r.record(tag, do); err != nil {
			return fmt.Errorf("record %d: %w", tag, err)
		}
		ids, entry = r.ids, head.b[n:]
	}
	return nil
}

// record reads a record's body and hands the record to do.
func (r *reader) record(tag uint64, do func(Record) error) error {
	var rec Record
	switch tag {
	case tagClusterCreated:
		rec = ClusterCreated{ID: r.text(), Tag: uint32(r.index())}
	case tagBrokerRegistered:
		rec = BrokerRegistered{r.broker()}
	case tagBrokerUnregistered:
		rec = BrokerUnregistered{ID: r.int32()}
	case tagBrokerEpochGiven:
		rec = BrokerEpochGiven{Epoch: r.int64()}
	case tagBrokerChanged:
		rec = BrokerChanged{ID: r.int32(), Epoch: r.int64(), State: r.state()}
	case tagTopicCreated:
		rec = TopicCreated{ID: r.uuid(), Name: r.text()}
	case tagPartitionsSet:
		rec = r.partitionsSet()
	case tagPartitionChanged:
		rec = r.partitionChanged()
	case tagTopicDeleted:
		rec = TopicDeleted{ID: r.uuid()}
	case tagConfigSet:
		rec = ConfigSet{Resource: r.resource(), Key: r.text(), Value: r.text()}
	case tagConfigUnset:
		rec = ConfigUnset{Resource: r.resource(), Key: r.text()}
	case tagProducerIDsGiven:
		rec = ProducerIDsGiven{Next: r.int64()}
	case tagFeatureSet:
		rec = FeatureSet{Name: r.text(), Level: int16(r.varint(0, math.MaxInt16))}
	case tagFeaturesChanged:
		rec = FeaturesChanged{Epoch: r.uvarint()}
	default:
		panic(fmt.Sprintf("BUG: record %d has a tag and no reader", tag))
	}
	switch {
	case r.bad:
		return fmt.Errorf("%w: it is cut short, or a number is out of range", ErrCorrupt)
	case r.newer || len(r.b) > 0:
		return fmt.Errorf("%w (an unknown field)", ErrNewer)
	}
	if err := do(rec); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

func (r *reader) partitionsSet() PartitionsSet {
	s := PartitionsSet{Topic: r.uuid(), First: r.index()}
	n := r.count()
	if n > maxRun || n > len(r.b)/minPartition {
		r.bad = true
		return s
	}
	s.Partitions = make([]Partition, n)
	for i := range s.Partitions {
		r.sized(func(r *reader) { s.Partitions[i] = r.partition() })
	}
	return s
}
