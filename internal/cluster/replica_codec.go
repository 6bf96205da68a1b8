package cluster

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// These are the forms of what replicas say to each other. Numbers are big-endian. A list is its length
// u32 and its elements, of which each has the same size. A message to a leader or to the controller names
// up to replica.MaxNamed partitions in a list.
//
//	ReplicaFetch   replica i32 | broker epoch i64 | session u64 | number u32
//	               max wait in ms u32 | min bytes u32 | max bytes u32 | partition bytes u32
//	               forgotten: list of partition
//	               fetches: list of partition | epoch i32 | assigned i32 | offset i64 | last epoch i32 | start i64 | durable i64
//	               reports: list of report
//	               disk is full u8 | troubles: list of place in fetches u32 | cannot store u8 | is damaged u8
//	  -> status u8 | session u64
//	               answers: list of partition | verdict u8 | diverging epoch i32 | diverging end i64 | high watermark i64
//	                                | start i64 | end i64 | from u32 | to u32
//	               records of all partitions, up to the end; from and to are places in them
//	DurableEnds    replica i32 | broker epoch i64 | list of report; not answered
//	AlterInSync    broker i32 | broker epoch i64 | list of change, of which the size is not fixed
//	               | leaders' troubles: list of place in changes u32 | gives up u8 | successor i32 | damaged: list of broker i32
//	  -> status u8
//
// An end is -1, and an epoch, if there is none. What is behind the reports, and behind the changes, is left out unless
// it says something: nodes of the first version that had clusters do not know it.
//
//	partition = topic id 16 bytes | number i32
//	report    = partition | epoch i32 | assigned i32 | durable i64
//	change    = partition | epoch i32 | partition epoch i32 | list of broker i32 | broker epoch i64
const (
	partitionSize = 16 + 4
	fetchSize     = partitionSize + 4 + 4 + 8 + 4 + 8 + 8
	troubleSize   = 4 + 1 + 1
	reportSize    = partitionSize + 4 + 4 + 8
	answerSize    = partitionSize + 1 + 4 + 4*8 + 4 + 4
	changeSize    = partitionSize + 4 + 4 + 4
	yieldSize     = 4 + 1 + 4 + 4
	memberSize    = 4 + 8

	// lastVerdict is the last of the verdicts, progress.Rebuild.
	lastVerdict = 7
)

func appendPartition(b []byte, id replica.PartitionID) []byte {
	return binary.BigEndian.AppendUint32(append(b, id.Topic[:]...), uint32(id.Partition))
}

// readPartition reads the id of a partition.
func (r *reader) readPartition() (id replica.PartitionID) {
	copy(id.Topic[:], r.cut(len(id.Topic)))
	id.Partition = r.readInt32()
	r.failed = r.failed || id.Partition < 0
	return id
}

func appendOffset(b []byte, o record.Offset) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(o))
}

// readOffset reads an offset, which is not negative.
func (r *reader) readOffset() record.Offset {
	o := record.Offset(r.readInt64())
	r.failed = r.failed || o < 0
	return o
}

// readEnd reads an offset, or -1 for none.
func (r *reader) readEnd() record.Offset {
	o := record.Offset(r.readInt64())
	r.failed = r.failed || o < -1
	return o
}

func appendEpoch(b []byte, e record.Epoch) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(e))
}

// readEpoch reads a leader epoch, or record.NoEpoch.
func (r *reader) readEpoch() record.Epoch {
	e := record.Epoch(r.readInt32())
	r.failed = r.failed || e < record.NoEpoch
	return e
}

func appendFlag(b []byte, is bool) []byte {
	if is {
		return append(b, 1)
	}
	return append(b, 0)
}

// readFlag reads a byte that is 0 or 1.
func (r *reader) readFlag() bool {
	b := r.readByte()
	r.failed = r.failed || b > 1
	return b == 1
}

func appendBound(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(max(0, min(n, math.MaxInt32))))
}

// readBound reads a number of bytes or of milliseconds.
func (r *reader) readBound() int { return int(min(r.readUint32(), math.MaxInt32)) }

// encodeFetch encodes a follower's request.
func encodeFetch(q *replica.FetchRequest) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(q.Replica))
	b = binary.BigEndian.AppendUint64(b, uint64(q.BrokerEpoch))
	b = binary.BigEndian.AppendUint64(b, q.Session)
	b = binary.BigEndian.AppendUint32(b, q.Number)
	b = appendBound(b, int(q.MaxWait.Milliseconds()))
	b = appendBound(appendBound(appendBound(b, q.MinBytes), q.MaxBytes), q.PartitionBytes)
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.Forgotten)))
	for _, id := range q.Forgotten {
		b = appendPartition(b, id)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.Partitions)))
	for i := range q.Partitions {
		p := &q.Partitions[i]
		b = appendEpoch(appendPartition(b, p.ID), p.Epoch)
		b = binary.BigEndian.AppendUint32(b, uint32(p.Assigned))
		b = appendEpoch(appendOffset(b, p.Offset), p.LastEpoch)
		b = appendOffset(appendOffset(b, p.Start), p.Durable)
	}
	return appendTroubles(appendReports(b, q.Reports), q)
}

// appendTroubles appends what is wrong with a follower's disk and logs, if anything is.
func appendTroubles(b []byte, q *replica.FetchRequest) []byte {
	var places []int
	for i := range q.Partitions {
		if p := &q.Partitions[i]; p.CannotStore || p.IsDamaged {
			places = append(places, i)
		}
	}
	if !q.IsFull && len(places) == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint32(appendFlag(b, q.IsFull), uint32(len(places)))
	for _, i := range places {
		p := &q.Partitions[i]
		b = appendFlag(appendFlag(binary.BigEndian.AppendUint32(b, uint32(i)), p.CannotStore), p.IsDamaged)
	}
	return b
}

// readTroubles reads what appendTroubles has appended, if it has.
func (r *reader) readTroubles(q *replica.FetchRequest) {
	if len(r.b) == 0 {
		return
	}
	q.IsFull = r.readFlag()
	for range r.readCount(troubleSize) {
		place, cannotStore, isDamaged := r.readUint32(), r.readFlag(), r.readFlag()
		if r.failed = r.failed || uint64(place) >= uint64(len(q.Partitions)); r.failed {
			return
		}
		q.Partitions[place].CannotStore, q.Partitions[place].IsDamaged = cannotStore, isDamaged
	}
}

// readNamed reads how many partitions of a kind a message names.
func (r *reader) readNamed(size int) int {
	n := r.readCount(size)
	r.failed = r.failed || n > replica.MaxNamed
	if r.failed {
		return 0
	}
	return n
}

// decodeFetch decodes a follower's request. It aliases nothing.
func decodeFetch(b []byte) (*replica.FetchRequest, error) {
	r := &reader{b: b}
	q := &replica.FetchRequest{Replica: r.readInt32(), BrokerEpoch: r.readInt64(), Session: r.readUint64(), Number: r.readUint32()}
	q.MaxWait = time.Duration(r.readBound()) * time.Millisecond
	q.MinBytes, q.MaxBytes, q.PartitionBytes = r.readBound(), r.readBound(), r.readBound()
	for range r.readNamed(partitionSize) {
		q.Forgotten = append(q.Forgotten, r.readPartition())
	}
	n := r.readNamed(fetchSize)
	if n > 0 {
		q.Partitions = make([]replica.PartitionFetch, 0, n)
	}
	for range n {
		q.Partitions = append(q.Partitions, replica.PartitionFetch{
			ID: r.readPartition(), Epoch: r.readEpoch(), Assigned: r.readInt32(),
			Offset: r.readOffset(), LastEpoch: r.readEpoch(), Start: r.readOffset(), Durable: r.readOffset(),
		})
	}
	q.Reports = r.readReports()
	r.readTroubles(q)
	if err := r.checkEnd(); err != nil {
		return nil, err
	}
	return q, nil
}

// checkEnd returns an error unless all was read, and nothing is left.
func (r *reader) checkEnd() error {
	if r.failed || len(r.b) > 0 {
		return fmt.Errorf("%w: a number in it is missing or wrong, or there is more behind it", errRequest)
	}
	return nil
}

func appendReports(b []byte, reports []replica.PartitionReport) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(reports)))
	for i := range reports {
		p := &reports[i]
		b = appendEpoch(appendPartition(b, p.ID), p.Epoch)
		b = appendOffset(binary.BigEndian.AppendUint32(b, uint32(p.Assigned)), p.Durable)
	}
	return b
}

func (r *reader) readReports() (reports []replica.PartitionReport) {
	for range r.readNamed(reportSize) {
		reports = append(reports, replica.PartitionReport{ID: r.readPartition(), Epoch: r.readEpoch(), Assigned: r.readInt32(), Durable: r.readOffset()})
	}
	return reports
}

// encodeDurable encodes a message of durable ends.
func encodeDurable(q *replica.Reports) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(q.Replica))
	return appendReports(binary.BigEndian.AppendUint64(b, uint64(q.BrokerEpoch)), q.Partitions)
}

func decodeDurable(b []byte) (*replica.Reports, error) {
	r := &reader{b: b}
	q := &replica.Reports{Replica: r.readInt32(), BrokerEpoch: r.readInt64(), Partitions: r.readReports()}
	if err := r.checkEnd(); err != nil {
		return nil, err
	}
	return q, nil
}

// appendAnswer appends the head of a leader's answer. The records follow it.
func appendAnswer(b []byte, a *replica.FetchAnswer) []byte {
	b = binary.BigEndian.AppendUint64(b, a.Session)
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.Partitions)))
	for i := range a.Partitions {
		p := &a.Partitions[i]
		b = append(appendPartition(b, p.ID), byte(p.Verdict))
		b = appendOffset(appendEpoch(b, p.DivergingEpoch), p.DivergingEnd)
		b = appendOffset(appendOffset(appendOffset(b, p.HighWatermark), p.Start), p.End)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(p.From)), uint32(p.To))
	}
	return b
}

// decodeAnswer decodes a leader's answer into a, whose memory for partitions it uses. The records stay
// where they are.
func decodeAnswer(b []byte, a *replica.FetchAnswer) error {
	r := &reader{b: b}
	a.Session = r.readUint64()
	n := r.readCount(answerSize)
	a.Partitions = a.Partitions[:0]
	for range n {
		a.Partitions = append(a.Partitions, replica.PartitionAnswer{
			ID: r.readPartition(), Verdict: replica.Verdict(r.readByte()), DivergingEpoch: r.readEpoch(), DivergingEnd: r.readEnd(),
			HighWatermark: r.readOffset(), Start: r.readOffset(), End: r.readOffset(), From: r.readBound(), To: r.readBound(),
		})
	}
	a.Buffer = r.b
	for i := range a.Partitions {
		p := &a.Partitions[i]
		r.failed = r.failed || p.Verdict > lastVerdict || p.From > p.To || p.To > len(a.Buffer)
	}
	if r.failed {
		return fmt.Errorf("%w: a number in it is missing or wrong", errAnswer)
	}
	return nil
}

// proposals are a leader's proposals for in-sync sets.
type proposals struct {
	broker      int32
	brokerEpoch int64
	changes     []replica.InSyncChange
}

func (q *proposals) encode() []byte {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(q.broker)), uint64(q.brokerEpoch))
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.changes)))
	for i := range q.changes {
		c := &q.changes[i]
		b = appendEpoch(appendPartition(b, c.ID), c.Epoch)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(c.PartitionEpoch)), uint32(len(c.ISR)))
		for _, m := range c.ISR {
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, uint32(m.ID)), uint64(m.BrokerEpoch))
		}
	}
	return q.appendYields(b)
}

// appendYields appends of which partitions the leader gives up its place, and which replicas are damaged, if there are any.
func (q *proposals) appendYields(b []byte) []byte {
	var places []int
	for i := range q.changes {
		if c := &q.changes[i]; c.GivesUp || len(c.Damaged) > 0 {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(places)))
	for _, i := range places {
		c := &q.changes[i]
		b = appendFlag(binary.BigEndian.AppendUint32(b, uint32(i)), c.GivesUp)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(c.Successor)), uint32(len(c.Damaged)))
		for _, id := range c.Damaged {
			b = binary.BigEndian.AppendUint32(b, uint32(id))
		}
	}
	return b
}

// readYields reads what appendYields has appended, if it has.
func (r *reader) readYields(q *proposals) {
	if len(r.b) == 0 {
		return
	}
	for range r.readCount(yieldSize) {
		place := r.readUint32()
		if r.failed = r.failed || uint64(place) >= uint64(len(q.changes)); r.failed {
			return
		}
		c := &q.changes[place]
		c.GivesUp, c.Successor, c.Damaged = r.readFlag(), r.readInt32(), nil
		for range r.readCount(4) {
			c.Damaged = append(c.Damaged, r.readInt32())
		}
	}
}

func decodeProposals(b []byte) (*proposals, error) {
	r := &reader{b: b}
	q := &proposals{broker: r.readInt32(), brokerEpoch: r.readInt64()}
	for range r.readNamed(changeSize) {
		c := replica.InSyncChange{
			ID: r.readPartition(), Epoch: r.readEpoch(), PartitionEpoch: r.readInt32(),
		}
		for range r.readCount(memberSize) {
			c.ISR = append(c.ISR, replica.InSyncMember{ID: r.readInt32(), BrokerEpoch: r.readInt64()})
		}
		q.changes = append(q.changes, c)
	}
	r.readYields(q)
	if err := r.checkEnd(); err != nil {
		return nil, err
	}
	return q, nil
}
