package broker

import (
	"encoding/binary"
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// maxFetchPartitions bounds the partitions of one Fetch request, including those to forget,
// and those of a fetch session.
const maxFetchPartitions = 100_000

// fetchTopic names a topic of a Fetch request, or of a fetch session.
type fetchTopic struct {
	name []byte    // versions up to 12
	id   meta.UUID // later versions
}

// fetchWant is a client's request for one partition.
type fetchWant struct {
	topic            *fetchTopic
	index            int32
	epoch            record.Epoch // the leader epoch that the client knows
	offset           record.Offset
	lastFetchedEpoch record.Epoch
	maxBytes         int32
}

// fetchPart is a partition of a Fetch request and its part of the answer.
type fetchPart struct {
	fetchWant
	cached *cachedPart // its entry in the fetch session; nil: there is none
	part   *replica.Partition
	code   int16
	skip   bool // left out of the answer, since it is as in the session's last answer

	*readResult // nil while the request is parked
}

// readResult is the result of reading a partition.
type readResult struct {
	found     replica.Found
	chunkSize int // bytes of found.Chunk, also when that was given to the answer
}

// fetchRequest has the fields of a Fetch request besides its topics.
type fetchRequest struct {
	replica            int32
	maxWait            int32 // ms
	minBytes, maxBytes int32
	isolation          int8
	sessionID, epoch   int32
}

// fetchLists are the lists of a Fetch request.
type fetchLists struct {
	topics    []fetchTopic
	names     []byte // the newest chunk of the topics' names
	nameBytes int    // the size of all chunks of names
	parts     []fetchPart
	forgotten []forgotten
}

// dropForgotten empties the list of partitions to forget, whose names are in the receive buffer.
func (f *fetchLists) dropForgotten() {
	clear(f.forgotten)
	if f.forgotten = f.forgotten[:0]; cap(f.forgotten) > keepResults {
		f.forgotten = nil
	}
}

// trimLists frees the memory of empty lists that are longer than keep. The topics' names go with
// the topics.
func (f *fetchLists) trimLists(keep int) {
	if len(f.parts) == 0 && cap(f.parts) > keep {
		f.parts = nil
	}
	if len(f.topics) > 0 {
		return
	}
	if cap(f.topics) > keep {
		f.topics = nil
	}
	if f.names = f.names[:0]; cap(f.names) > maxNameChunk {
		f.names = nil
	}
	f.nameBytes = cap(f.names)
}

// decodeBody decodes the body of versions 4 to 18, and returns whether the whole of it has
// the right shape. It copies names, since a parked fetch outlives the receive buffer.
func (f *fetch) decodeBody(body []byte) bool {
	v := f.version
	flexible := v >= 12
	r := reader{b: body}
	f.replica = -1
	if v < 15 {
		f.replica = r.readInt32()
	}
	f.maxWait, f.minBytes, f.maxBytes = r.readInt32(), r.readInt32(), r.readInt32()
	f.isolation = r.readInt8()
	f.sessionID, f.epoch = 0, finalEpoch
	if v >= 7 {
		f.sessionID, f.epoch = r.readInt32(), r.readInt32()
	}
	f.decodeTopics(&r, flexible)
	if v >= 7 {
		f.decodeForgotten(&r, flexible)
	}
	f.rackName = nil
	if v >= 11 {
		f.rackName = r.readName(flexible)
	}
	r.readTags(flexible, func(tag int, field reader) {
		if tag == 1 && v >= 15 {
			f.replica = field.readInt32()
			r.bad = r.bad || field.bad
		}
	})
	return r.isValid() && len(f.parts)+len(f.forgotten) <= maxFetchPartitions
}

// sessionIDOf is the id of the session that a request of version 7 or later continues, or 0
// if it continues none.
func sessionIDOf(body []byte, version int16) int32 {
	r := reader{b: body}
	if version < 15 {
		r.readInt32() // the replica
	}
	r.readRaw(4 + 4 + 4 + 1)
	return r.readInt32()
}

func (f *fetch) decodeTopics(r *reader, flexible bool) {
	v := f.version
	least := 16 // of a partition
	for _, since := range [...]struct{ version, bytes int }{{5, 8}, {9, 4}, {12, 5}} {
		if int(v) >= since.version {
			least += since.bytes
		}
	}
	n := r.readCount(flexible, f.leastTopic(flexible))
	if n > maxFetchPartitions {
		r.setBad()
		return
	}
	f.growTopics(n)
	for ; n > 0 && !r.bad; n-- {
		t := f.decodeTopic(r, flexible)
		n := r.readCount(flexible, least)
		f.parts = slices.Grow(f.parts, min(n, maxFetchPartitions)) // no more than needed: a parked fetch keeps the list
		for ; n > 0 && !r.bad; n-- {
			if len(f.parts) == maxFetchPartitions {
				r.setBad()
				return
			}
			w := fetchWant{topic: t, index: r.readInt32(), epoch: record.NoEpoch, lastFetchedEpoch: record.NoEpoch}
			if v >= 9 {
				w.epoch = record.Epoch(r.readInt32())
			}
			w.offset = record.Offset(r.readInt64())
			if v >= 12 {
				w.lastFetchedEpoch = record.Epoch(r.readInt32())
			}
			if v >= 5 {
				r.readInt64() // a follower's log start
			}
			w.maxBytes = r.readInt32()
			r.readTags(flexible, nil)
			f.parts = append(f.parts, fetchPart{fetchWant: w})
		}
		r.readTags(flexible, nil)
	}
}

// leastTopic is the least size in bytes of a topic in the request.
func (f *fetch) leastTopic(flexible bool) int {
	switch {
	case f.version >= 13:
		return 18
	case flexible:
		return 3
	}
	return 6
}

func (f *fetch) decodeTopic(r *reader, flexible bool) *fetchTopic {
	var t fetchTopic
	if f.version >= 13 {
		t.id = r.readUUID()
	} else {
		t.name = f.copyName(r.readName(flexible))
	}
	f.topics = append(f.topics, t)
	return &f.topics[len(f.topics)-1]
}

// growTopics makes room for n topics. The list must not move while a request is decoded,
// since its partitions point into it.
func (f *fetchLists) growTopics(n int) {
	if cap(f.topics)-len(f.topics) < n {
		f.topics = make([]fetchTopic, 0, n)
	}
}

// copyName copies a topic's name into the newest chunk, or into a new one if that is full. A
// chunk never moves, since names point into it.
func (f *fetchLists) copyName(name []byte) []byte {
	at := len(f.names)
	if at+len(name) > cap(f.names) {
		size := max(len(name), min(2*cap(f.names), maxNameChunk))
		f.names, at = make([]byte, 0, size), 0
		f.nameBytes += size
	}
	f.names = append(f.names, name...)
	return f.names[at:len(f.names):len(f.names)]
}

// maxNameChunk is the size in bytes of a chunk in which a fetch keeps many names.
const maxNameChunk = 4096

func (f *fetch) decodeForgotten(r *reader, flexible bool) {
	for n := r.readCount(flexible, f.leastTopic(flexible)); n > 0 && !r.bad; n-- {
		var t fetchTopic
		if f.version >= 13 {
			t.id = r.readUUID()
		} else {
			t.name = r.readName(flexible)
		}
		for n := r.readCount(flexible, 4); n > 0 && !r.bad; n-- {
			if len(f.forgotten) == maxFetchPartitions {
				r.setBad()
				return
			}
			f.forgotten = append(f.forgotten, forgotten{topic: t, index: r.readInt32()})
		}
		r.readTags(flexible, nil)
	}
}

// forgotten is a partition that a client removes from its session. The topic's name aliases
// the body.
type forgotten struct {
	topic fetchTopic
	index int32
}

// encodeAnswer encodes the answer: the partitions that are not skipped, in the order of the
// list. Neighbours of the same topic are one element of the answer.
func (f *fetch) encodeAnswer(resp *wire.Response, code int16, session int32) {
	flexible := f.version >= 12
	resp.B = be.AppendUint32(resp.B, uint32(f.throttle))
	if f.version >= 7 {
		resp.B = be.AppendUint16(resp.B, uint16(code))
		resp.B = be.AppendUint32(resp.B, uint32(session))
	}
	groups := 0
	for i := f.nextShown(0); i < len(f.parts); groups++ {
		i, _ = f.endOfTopic(i)
	}
	resp.B = appendLen(resp.B, flexible, groups)
	for i := f.nextShown(0); i < len(f.parts); {
		end, n := f.endOfTopic(i)
		t := f.parts[i].topic
		if f.version >= 13 {
			resp.B = append(resp.B, t.id[:]...)
		} else {
			resp.B = appendString(resp.B, flexible, t.name)
		}
		resp.B = appendLen(resp.B, flexible, n)
		for ; i < end; i++ {
			if !f.parts[i].skip {
				f.encodePart(resp, &f.parts[i], flexible)
			}
		}
		resp.B = appendTags(resp.B, flexible)
	}
	if flexible {
		resp.B = f.b.appendEndpoints(resp.B, f.r, f.leaders)
	}
}

// nextShown is the index of the first partition from i on that is not skipped.
func (f *fetch) nextShown(i int) int {
	for i < len(f.parts) && f.parts[i].skip {
		i++
	}
	return i
}

// endOfTopic returns the index after the neighbours of partition i that have the same topic,
// and how many of those are not skipped.
func (f *fetch) endOfTopic(i int) (end, n int) {
	t := f.parts[i].topic
	for ; i < len(f.parts); i = f.nextShown(i + 1) {
		if q := f.parts[i].topic; q != t && (f.version >= 13 && q.id != t.id || f.version < 13 && string(q.name) != string(t.name)) {
			break
		}
		n++
	}
	return i, n
}

func (f *fetch) encodePart(resp *wire.Response, q *fetchPart, flexible bool) {
	b := be.AppendUint32(resp.B, uint32(q.index))
	b = be.AppendUint16(b, uint16(q.code))
	b = be.AppendUint64(b, uint64(q.found.HighWatermark))
	b = be.AppendUint64(b, uint64(q.found.LastStable))
	if f.version >= 5 {
		b = be.AppendUint64(b, uint64(q.found.Start))
	}
	// The list of aborted transactions is there for readers of committed ones and null for
	// others, except that Kafka sends an empty one for a partition that it has not found.
	switch {
	case f.isolation == readCommitted && q.code == none || q.part == nil:
		var aborted []replica.Aborted
		if q.found.Aborted != nil {
			aborted, q.found.Aborted = *q.found.Aborted, nil
		}
		b = appendLen(b, flexible, len(aborted))
		for _, a := range aborted {
			b = be.AppendUint64(b, uint64(a.Producer))
			b = be.AppendUint64(b, uint64(a.First))
			b = appendTags(b, flexible)
		}
	case flexible:
		b = append(b, 0)
	default:
		b = append(b, 0xff, 0xff, 0xff, 0xff)
	}
	if f.version >= 11 {
		b = be.AppendUint32(b, uint32(q.found.Preferred))
	}
	b = appendLen(b, flexible, q.chunkSize)
	resp.B = b
	if c := q.found.Chunk; c.Exists() {
		q.found.Chunk = replica.Chunk{} // the response releases it
		resp.Attach(c)
	}
	if flexible {
		resp.B = f.appendPartTags(resp.B, q)
	}
}

func (f *fetch) appendPartTags(b []byte, q *fetchPart) []byte {
	diverges := q.found.DivergingEnd >= 0
	leader := currentLeader{-1, record.NoEpoch}
	if f.version >= leadersInFetch && (q.code == notLeader || q.code == fencedEpoch) {
		leader = f.b.findLeader(q.part, q.topic.name, q.topic.id, q.index)
		f.leaders.add(leader)
	}
	n := byte(0)
	if diverges {
		n++
	}
	if leader.epoch != record.NoEpoch {
		n++
	}
	b = append(b, n)
	if diverges {
		b = append(b, 0)
		b = binary.AppendUvarint(b, 13)
		b = be.AppendUint32(b, uint32(q.found.DivergingEpoch))
		b = be.AppendUint64(b, uint64(q.found.DivergingEnd))
		b = append(b, 0)
	}
	if leader.epoch != record.NoEpoch {
		b = leader.appendField(b, 1)
	}
	return b
}
