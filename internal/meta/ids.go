package meta

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
)

// UUID is a topic id, a broker's incarnation, or the id of a delegation token. The zero value stands for "no id".
type UUID [16]byte

// A producer id contains the tag of the cluster that gave it, so that batches which are
// copied unchanged from one cluster to another never meet a producer with the same id
// there:
//
//	bit 63    62 .. 43              42 .. 0
//	0         the cluster's tag     counter
//
// The tag is 20 bits, drawn at random when the cluster is made, and never zero:
// Apache Kafka counts from 0, so its ids never collide with ours either. The
// counter lasts for 8.8 * 10^12 producers.
const (
	tagBits     = 20
	counterBits = 63 - tagBits

	// MaxTag is the largest tag of a cluster; the smallest is 1.
	MaxTag = 1<<tagBits - 1
	// MaxProducers is how many producer ids a cluster can give.
	MaxProducers = int64(1) << counterBits
)

// ProducerID is the n-th producer id of the cluster with this tag.
func ProducerID(tag uint32, n int64) int64 { return int64(tag)<<counterBits | n }

// NewClusterID draws an id for a cluster, of the form that Kafka gives them, and
// its tag.
func NewClusterID() (id string, tag uint32) {
	for {
		u := NewUUID()
		if tag = binary.BigEndian.Uint32(u[:]) & MaxTag; tag != 0 {
			u = NewUUID() // so that the tag tells nothing about the id
			return u.String(), tag
		}
	}
}

// NewUUID draws a topic id as Kafka does: it has version 4, and its text never begins
// with a dash, which tools would take for an option.
func NewUUID() UUID {
	for {
		var u UUID
		_, _ = rand.Read(u[:]) // never fails, as its documentation promises
		u[6] = u[6]&0x0f | 0x40
		u[8] = u[8]&0x3f | 0x80
		if u.String()[0] != '-' {
			return u
		}
	}
}

// String is the id as Kafka writes it: 22 characters of URL-safe base64.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// ParseUUID reads what String writes.
func ParseUUID(s string) (u UUID, ok bool) {
	if base64.RawURLEncoding.DecodedLen(len(s)) != len(u) {
		return UUID{}, false
	}
	n, err := base64.RawURLEncoding.Decode(u[:], []byte(s))
	if err != nil || n != len(u) {
		return UUID{}, false
	}
	return u, true
}

// shards is how many maps the topics are spread over; a power of two.
const shards = 256

// shardOfName spreads names over the shards by their FNV-1a hash. Names that collide
// (see Colliding) are in the same shard. The hash has no random seed, since an image
// shares its shards with the next one.
func shardOfName[S string | []byte](name S) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(dotToUnderscore(name[i]))) * 16777619
	}
	return int((h ^ h>>16) % shards)
}

func dotToUnderscore(c byte) byte {
	if c == '.' {
		return '_'
	}
	return c
}
