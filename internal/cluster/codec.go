package cluster

import "encoding/binary"

// reader reads numbers from the beginning of bytes, big-endian. After the first one that is not there all
// are 0, and failed is set.
type reader struct {
	b      []byte
	failed bool
}

// cut cuts n bytes off; nil: they are not there.
func (r *reader) cut(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) readByte() byte {
	if b := r.cut(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) readUint16() int {
	if b := r.cut(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) readUint32() uint32 {
	if b := r.cut(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) readInt32() int32 { return int32(r.readUint32()) }

func (r *reader) readUint64() uint64 {
	if b := r.cut(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) readInt64() int64 { return int64(r.readUint64()) }

// readCount reads how many elements follow, of which each has so many bytes at least. There cannot be
// more than the bytes are enough for.
func (r *reader) readCount(size int) int {
	n := r.readUint32()
	if uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.failed = true
	}
	if r.failed {
		return 0
	}
	return int(n)
}
