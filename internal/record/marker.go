package record

import "fmt"

// Marker is the record of a control batch that ends a transaction. Its key is
//
//	0  version 2: 0
//	2  type 2: 0 abort, 1 commit
//
// and its value
//
//	0  version 2: 0
//	2  epoch of the transaction's coordinator 4
//
// both in big endian. Later versions may add bytes to either.
type Marker struct {
	Commit           bool  // the transaction is committed; else it is aborted
	CoordinatorEpoch int32 // of the coordinator that has decided; a lower one than the last is out of date
}

const (
	markerKeyLen   = 2 + 2
	markerValueLen = 2 + 4

	typeAbort  = 0
	typeCommit = 1
)

// MaxMarkerLen is more than a batch with a marker has: one that is longer is none.
const MaxMarkerLen = 1 << 10

// BuildMarker makes the control batch that ends a producer's transaction. ms is its timestamp.
func BuildMarker(ms, producer int64, epoch int16, m Marker) (Batch, error) {
	key := be.AppendUint16(make([]byte, 0, markerKeyLen), 0)
	value := be.AppendUint16(make([]byte, 0, markerValueLen), 0)
	kind := uint16(typeAbort)
	if m.Commit {
		kind = typeCommit
	}
	bu := Builder{Transactional: true, Control: true, LeaderEpoch: NoEpoch}
	bu.SetProducer(producer, epoch, NoSequence)
	bu.Append(ms, be.AppendUint16(key, kind), be.AppendUint32(value, uint32(m.CoordinatorEpoch)))
	return bu.Build()
}

// ReadMarker reads the marker of a control batch. The error is ErrInvalid if it has none: it has no
// record, as after compaction, or one of another type.
func ReadMarker(b Batch) (Marker, error) {
	if len(b) < HeaderLen || len(b) > MaxMarkerLen || !b.Control() || b.Codec() != None || b.Count() != 1 {
		return Marker{}, fmt.Errorf("%w: it has no marker of a transaction", ErrInvalid)
	}
	r := Reader{batch: b, data: b.recordBytes(), n: 1}
	if !r.Next() {
		return Marker{}, fmt.Errorf("%w: its marker: %w", ErrInvalid, r.Err())
	}
	key, value := r.Record.Key, r.Record.Value
	if len(key) < markerKeyLen || len(value) < markerValueLen || int16(be.Uint16(key)) < 0 || int16(be.Uint16(value)) < 0 {
		return Marker{}, fmt.Errorf("%w: its marker has a key of %d bytes and a value of %d", ErrInvalid, len(key), len(value))
	}
	kind := be.Uint16(key[2:])
	if kind != typeAbort && kind != typeCommit {
		return Marker{}, fmt.Errorf("%w: its control record has type %d, which ends no transaction", ErrInvalid, kind)
	}
	return Marker{Commit: kind == typeCommit, CoordinatorEpoch: int32(be.Uint32(value[2:]))}, nil
}
