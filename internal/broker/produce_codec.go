package broker

import (
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

const (
	// maxProducePartitions bounds the topics and partitions of one Produce request. Seven
	// bytes of a request name a partition, which then takes producePartMemory.
	maxProducePartitions = 100_000
	// producePartMemory is the size of a partition's state, with its part of the answer.
	producePartMemory = 320
)

// produceTopic is a topic of a Produce request.
type produceTopic struct {
	name []byte    // versions up to 12; aliases the body
	id   meta.UUID // later versions
	end  int       // the index after its last partition in produce.parts
	// denied tells that the client may not write to it.
	denied bool
}

// producePart is a partition of a Produce request and its part of the answer.
type producePart struct {
	index   int32
	records []byte       // as they were sent; alias the body
	batch   record.Batch // to be stored; set by checkBatch

	part   *replica.Partition
	waiter replica.Waiter
	next   record.Offset // after the batch's last record
	at     int32         // the position of its error code in the answer
	tags   int32         // the position of its tagged fields there

	// The fields of the answer.
	code    int16
	base    record.Offset // of the first record
	time    int64         // when it was appended, in ms; -1: the records have the producer's times
	start   record.Offset // of the log
	message string        // empty: null
	badRecs []record.Rejected
}

// decodeBody decodes the body of versions 3 to 13. It returns the number of topics and
// partitions, of which it keeps no more than room, and whether the whole body has the right
// shape. Names and records alias the body.
func (p *produce) decodeBody(body []byte, room int) (count int, ok bool) {
	p.topics, p.parts = p.topics[:0], p.parts[:0]
	flexible := p.version >= 9
	r := reader{b: body}
	txnID, noTransaction := r.readString(flexible)
	p.txnID = txnID
	p.acks = r.readInt16()
	p.timeoutMS = r.readInt32()
	least := 6 // bytes of a topic: the lengths of its name and of its array
	if p.version >= 13 {
		least = 18
	} else if flexible {
		least = 3
	}
	for n := r.readCount(flexible, least); n > 0 && !r.bad; n-- {
		var t produceTopic
		if p.version >= 13 {
			t.id = r.readUUID()
		} else {
			t.name = r.readName(flexible)
		}
		for n := r.readCount(flexible, 5); n > 0 && !r.bad; n-- {
			index := r.readInt32()
			b := r.readBytes(flexible)
			if count++; count <= room {
				p.parts = append(p.parts, producePart{index: index, records: b})
			}
			if len(b) >= record.HeaderLen && record.Batch(b).Magic() == record.Magic && record.Batch(b).Transactional() {
				p.transactional, p.lacksTxnID = true, p.lacksTxnID || noTransaction
			}
			r.readTags(flexible, nil)
		}
		r.readTags(flexible, nil)
		t.end = len(p.parts)
		if count++; count <= room {
			p.topics = append(p.topics, t)
		}
	}
	r.readTags(flexible, nil)
	return count, r.isValid() && count <= maxProducePartitions
}

// encodeAnswer encodes the answer, and notes the position of each partition's error code.
func (p *produce) encodeAnswer(resp *wire.Response) {
	flexible := p.version >= 9
	many := len(p.parts) > stretch
	if many {
		p.b.cfg.Work.Enter(budget.Command)
		defer p.b.cfg.Work.Leave()
	}
	b := appendLen(resp.B, flexible, len(p.topics))
	from := 0
	for i := range p.topics {
		t := &p.topics[i]
		if p.version >= 13 {
			b = append(b, t.id[:]...)
		} else {
			b = appendString(b, flexible, t.name)
		}
		b = appendLen(b, flexible, t.end-from)
		for j := from; j < t.end; j++ {
			if many && j%stretch == 0 {
				p.b.cfg.Work.Pass(budget.Command)
			}
			b = p.encodePart(b, t, &p.parts[j], flexible)
		}
		b = appendTags(b, flexible)
		from = t.end
	}
	b = be.AppendUint32(b, uint32(p.throttle))
	p.end = len(b)
	if flexible {
		b = p.b.appendEndpoints(b, p.r, p.leaders)
	}
	resp.B = b
}

func (p *produce) encodePart(b []byte, t *produceTopic, q *producePart, flexible bool) []byte {
	b = be.AppendUint32(b, uint32(q.index))
	q.at = int32(len(b))
	b = be.AppendUint16(b, uint16(q.code))
	b = be.AppendUint64(b, uint64(q.base))
	b = be.AppendUint64(b, uint64(q.time))
	if p.version >= 5 {
		b = be.AppendUint64(b, uint64(q.start))
	}
	if p.version >= 8 {
		b = appendLen(b, flexible, len(q.badRecs))
		for _, e := range q.badRecs {
			b = be.AppendUint32(b, uint32(e.Index))
			b = appendText(b, flexible, e.Reason)
			b = appendTags(b, flexible)
		}
		b = appendText(b, flexible, q.message)
	}
	if !flexible {
		return b
	}
	q.tags = int32(len(b))
	if p.version >= leadersInProduce && q.code == notLeader {
		if l := p.b.findLeader(q.part, t.name, t.id, q.index); l.epoch != record.NoEpoch {
			p.leaders.add(l)
			return l.appendField(append(b, 1), 0)
		}
	}
	return append(b, 0)
}

// nameNewLeaders names, in an answer that has waited, the leaders of the partitions that this node led when the
// records were written, and leads no more.
func (p *produce) nameNewLeaders(b []byte) []byte {
	const field = 16 // bytes about, by which the answer grows for each partition
	named := make([]byte, 0, len(b)+field*len(p.parts))
	from := 0
	for i := range p.parts {
		q := &p.parts[i]
		if int16(be.Uint16(b[q.at:])) != notLeader || b[q.tags] != 0 {
			continue
		}
		if l := p.b.findLeader(q.part, nil, meta.UUID{}, q.index); l.epoch != record.NoEpoch {
			p.leaders.add(l)
			named = l.appendField(append(append(named, b[from:q.tags]...), 1), 0)
			from = int(q.tags) + 1
		}
	}
	return p.b.appendEndpoints(append(named, b[from:p.end]...), p.r, p.leaders)
}
