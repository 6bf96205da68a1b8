package credential

import (
	"encoding/binary"
	"fmt"
)

// notesVersion is the first version of the protocol in which a node's proof has a note.
const notesVersion = 2

// Limits of a note, so that a proof with a note and a voucher is within MaxMessage.
const (
	maxNoteAddresses = 4
)

// Position is how far a node has the metadata log.
type Position struct {
	// Known is the index of an entry that the node knows to be committed, and has on its disk with all before it; 0: none.
	// Its log never ends before that again, while its data directory is in use.
	Known uint64
	// Applied is the index of the entry up to which Self.Knows answers.
	Applied uint64
	// Last is the index of the last entry on its disk; 0: it is not to be judged, since the node has no say in the metadata.
	Last uint64
}

// Note is what a node tells of itself with its proof, from version 2 of the protocol on.
type Note struct {
	Addresses []string // at which other nodes reach it now, as Contact has them
	Voucher   Voucher
}

// Voucher is a node's signature under what it knew in one handshake as a dialler: the metadata log up to an entry, and, by that,
// the key of the node that it dialled. Who was dialled keeps it, and shows it when it dials that node. A node has an older copy of its data
// directory if its log ends before an entry that it has signed itself, or has that entry and the metadata do not know the key. Nobody
// else can make a voucher, so it may be shown by somebody whom the node does not know, who joined after the copy was made. The zero
// value is none.
type Voucher struct {
	before    transcript // of the handshake, before the position
	epoch     uint32     // of the cluster
	known     uint64
	key       PublicKey // of who was dialled
	signature [64]byte
}

// Known is the index of the entry that the node has signed to have; 0: there is no voucher.
func (v *Voucher) Known() uint64 { return v.known }

// position is the part that is signed.
func (v *Voucher) position() []byte {
	return append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, v.epoch), v.known), v.key[:]...)
}

// signed is the transcript that the dialler signs.
func (v *Voucher) signed() transcript { return v.before.add("position", v.position()) }

// WentBackError is returned to an acceptor that was shown its own voucher for more than it has.
type WentBackError struct {
	Known uint64 // the entry that it had
	Last  uint64 // the entry with which its log ends; at least Known: other entries are in it, in which Key was not admitted
	Key   PublicKey
}

func (e *WentBackError) Error() string {
	what := fmt.Sprintf("its log ends with entry %d", e.Last)
	if e.Last >= e.Known {
		what = fmt.Sprintf("that it knows the node with the key %v, which is not in its metadata", e.Key)
	}
	return fmt.Sprintf("this node has signed that it has the metadata log up to entry %d, and %s: its data directory is older than that, as one that was restored from a copy; "+
		"a copy is no backup of a node of a cluster: have the others remove this node (leat cluster remove), and join with an empty directory; "+
		"or, if they are lost for good, make this one the cluster with leat cluster recover", e.Known, what)
}

// judge returns an error if a voucher is this node's own, and shows that its log went back.
func (s *Self) judge(v *Voucher) error {
	if v.known == 0 || v.epoch != s.Epoch || s.Position == nil || !s.Key.Public().isSigned(roleDialler, v.signed(), v.signature) {
		return nil
	}
	p := s.Position() // it is asked after the voucher was read, so it is not older
	if p.Last > 0 && (p.Last < v.known || p.Applied >= v.known && !s.Knows(v.key)) {
		return &WentBackError{v.known, p.Last, v.key}
	}
	return nil
}

// appendAddresses appends the addresses of a note. Those that do not fit are left out.
func appendAddresses(b []byte, addresses []string) []byte {
	fit := make([]string, 0, maxNoteAddresses)
	for _, a := range addresses {
		if len(a) <= maxAddress && len(fit) < maxNoteAddresses {
			fit = append(fit, a)
		}
	}
	b = append(b, byte(len(fit)))
	for _, a := range fit {
		b = append(append(b, byte(len(a))), a...)
	}
	return b
}

func (r *reader) readAddresses(most int) (addresses []string) {
	count := int(r.readByte())
	r.require(count <= most)
	for range count {
		n := int(r.readByte())
		if r.require(n <= len(r.rest)); r.failed {
			break
		}
		addresses = append(addresses, string(r.rest[:n]))
		r.rest = r.rest[n:]
	}
	return addresses
}

func (r *reader) readUint64() uint64 {
	var b [8]byte
	r.readInto(b[:])
	return binary.BigEndian.Uint64(b[:])
}

func (v *Voucher) encode(b []byte) []byte {
	b = append(b, v.before[:]...)
	b = append(b, v.position()...)
	return append(b, v.signature[:]...)
}

func (r *reader) readVoucher() (v Voucher) {
	r.readInto(v.before[:])
	v.epoch, v.known = r.readUint32(), r.readUint64()
	r.readInto(v.key[:])
	r.readInto(v.signature[:])
	return v
}
