package credential

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Limits of messages. What has no proof may not make this end hold much.
const (
	MaxMessage = 4 << 10 // bytes of a hello, challenge, proof or refusal
	MaxVerdict = 1 << 20 // bytes of a verdict

	maxMembers   = 256
	maxAddresses = 8
	maxAddress   = 255 // bytes
)

// messageType is the first byte of a message.
type messageType byte

const (
	typeHello     messageType = 1
	typeChallenge messageType = 2
	typeProof     messageType = 3
	typeVerdict   messageType = 4
	typeRefusal   messageType = 5
)

const messageFormat = 1 // the second byte

const (
	macLen           = 32
	challengeBodyLen = 2 + 6 + 4 + 4 + 32 + 32 // the part before the proofs
)

// hello opens the handshake. Which fields it has depends on its kind.
type hello struct {
	versions Range
	kind     Kind
	cluster  ClusterID
	epoch    uint32
	share    [32]byte

	node        int32 // of a joiner: the one that it wants, or AnyNode; of an agent AnyNode
	incarnation Incarnation
	token       TokenID
	key         PublicKey
	directory   DirectoryID
}

func (h *hello) encode() []byte {
	b := []byte{byte(typeHello), messageFormat}
	b = appendRange(b, h.versions)
	b = append(b, byte(h.kind))
	b = append(b, h.cluster[:]...)
	b = binary.BigEndian.AppendUint32(b, h.epoch)
	b = append(b, h.share[:]...)
	if h.kind.hasToken() {
		b = append(append(append(b, h.token[:]...), h.key[:]...), h.directory[:]...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(h.node))
	if h.kind == KindNode {
		b = append(b, h.incarnation[:]...)
	}
	return b
}

func parseHello(b []byte) (hello, error) {
	r := openMessage(b, typeHello, MaxMessage)
	h := hello{versions: r.readRange(), kind: Kind(r.readByte())}
	r.readInto(h.cluster[:])
	h.epoch = r.readUint32()
	r.readInto(h.share[:])
	if h.kind.hasToken() {
		r.readInto(h.token[:])
		r.readInto(h.key[:])
		r.readInto(h.directory[:])
	}
	h.node = int32(r.readUint32())
	if h.kind == KindNode {
		r.readInto(h.incarnation[:])
	}
	r.require(h.kind >= KindNode && h.kind <= KindAgent)
	r.require(h.node >= 0 || h.kind.hasToken() && h.node == AnyNode)
	return h, r.finish()
}

// challenge answers a hello. It has a MAC if the dialler has a token.
type challenge struct {
	versions Range
	version  uint16
	epoch    uint32
	node     int32
	key      PublicKey
	share    [32]byte

	signature [64]byte
	mac       [macLen]byte
}

// encodeBody encodes the part that the proofs are over.
func (c *challenge) encodeBody() []byte {
	b := []byte{byte(typeChallenge), messageFormat}
	b = appendRange(b, c.versions)
	b = binary.BigEndian.AppendUint16(b, c.version)
	b = binary.BigEndian.AppendUint32(b, c.epoch)
	b = binary.BigEndian.AppendUint32(b, uint32(c.node))
	b = append(b, c.key[:]...)
	return append(b, c.share[:]...)
}

func (c *challenge) encode(kind Kind) []byte {
	b := append(c.encodeBody(), c.signature[:]...)
	if kind.hasToken() {
		b = append(b, c.mac[:]...)
	}
	return b
}

func parseChallenge(b []byte, kind Kind) (challenge, error) {
	r := openMessage(b, typeChallenge, MaxMessage)
	c := challenge{versions: r.readRange(), version: r.readUint16(), epoch: r.readUint32(), node: int32(r.readUint32())}
	r.readInto(c.key[:])
	r.readInto(c.share[:])
	r.readInto(c.signature[:])
	if kind.hasToken() {
		r.readInto(c.mac[:])
	}
	r.require(c.node >= 0)
	return c, r.finish()
}

// proof is the dialler's. It has two signatures if the dialler has a token.
type proof struct {
	signature [64]byte // by the node's key
	token     [64]byte // by the token's key

	// Of a node, from notesVersion on. All but shown is signed.
	addresses []string
	epoch     uint32
	known     uint64
	shown     Voucher // the acceptor's own, if the dialler has one
}

// hasNote tells whether a proof has a note.
func hasNote(kind Kind, version uint16) bool { return kind == KindNode && version >= notesVersion }

func (p *proof) encode(kind Kind, version uint16) []byte {
	b := append([]byte{byte(typeProof), messageFormat}, p.signature[:]...)
	if kind.hasToken() {
		b = append(b, p.token[:]...)
	}
	if hasNote(kind, version) {
		b = appendAddresses(b, p.addresses)
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, p.epoch), p.known)
		b = p.shown.encode(b)
	}
	return b
}

func parseProof(b []byte, kind Kind, version uint16) (proof, error) {
	r := openMessage(b, typeProof, MaxMessage)
	var p proof
	r.readInto(p.signature[:])
	if kind.hasToken() {
		r.readInto(p.token[:])
	}
	if hasNote(kind, version) {
		p.addresses = r.readAddresses(maxNoteAddresses)
		p.epoch, p.known = r.readUint32(), r.readUint64()
		p.shown = r.readVoucher()
	}
	return p, r.finish()
}

// voucher is what a proof with a note makes for an acceptor, after a transcript.
func (p *proof) voucher(t transcript, acceptor PublicKey) Voucher {
	return Voucher{before: t.add("addresses", appendAddresses(nil, p.addresses)), epoch: p.epoch, known: p.known, key: acceptor, signature: p.signature}
}

// verdict ends the handshake with a dialler that has proven itself.
type verdict struct {
	reason  reason
	welcome Welcome // if the reason is none
	mac     [macLen]byte
}

// FitMembers returns those members, and those of their addresses, for which a Welcome has room, so that what one
// node has registered keeps no other from being let in.
func FitMembers(members []Contact) []Contact {
	fit := make([]Contact, 0, min(len(members), maxMembers))
	for _, m := range members {
		m.Addresses = slices.DeleteFunc(slices.Clone(m.Addresses), func(a string) bool { return len(a) > maxAddress })
		m.Addresses = m.Addresses[:min(len(m.Addresses), maxAddresses)]
		if m.NodeID >= 0 && len(m.Addresses) > 0 && len(fit) < maxMembers {
			fit = append(fit, m)
		}
	}
	return fit
}

// encodeBody encodes the part that the MAC is over.
func (v *verdict) encodeBody() ([]byte, error) {
	b := []byte{byte(typeVerdict), messageFormat, byte(v.reason)}
	if v.reason != reasonNone {
		return b, nil
	}
	w := &v.welcome
	if w.NodeID < 0 || len(w.Members) > maxMembers {
		return nil, fmt.Errorf("%w: a welcome of node %d to %d members", ErrMalformed, w.NodeID, len(w.Members))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(w.NodeID))
	b = binary.BigEndian.AppendUint16(b, uint16(w.Level))
	b = binary.BigEndian.AppendUint16(b, uint16(len(w.Members)))
	for _, m := range w.Members {
		tooLong := func(a string) bool { return len(a) > maxAddress }
		if m.NodeID < 0 || len(m.Addresses) > maxAddresses || slices.ContainsFunc(m.Addresses, tooLong) {
			return nil, fmt.Errorf("%w: the addresses of node %d are too many or too long", ErrMalformed, m.NodeID)
		}
		b = binary.BigEndian.AppendUint32(b, uint32(m.NodeID))
		b = append(append(b, m.Key[:]...), byte(len(m.Addresses)))
		for _, a := range m.Addresses {
			b = append(append(b, byte(len(a))), a...)
		}
	}
	return b, nil
}

func parseVerdict(b []byte) (verdict, error) {
	r := openMessage(b, typeVerdict, MaxVerdict)
	v := verdict{reason: reason(r.readByte())}
	if v.reason == reasonNone {
		v.welcome.NodeID = int32(r.readUint32())
		v.welcome.Level = int16(r.readUint16())
		count := int(r.readUint16())
		r.require(count <= maxMembers && v.welcome.NodeID >= 0)
		for range count {
			v.welcome.Members = append(v.welcome.Members, r.readContact())
			if r.failed {
				break
			}
		}
	}
	r.require(v.reason == reasonNone || v.reason.needsProof())
	r.readInto(v.mac[:])
	return v, r.finish()
}

// refusal ends the handshake with a dialler that has not proven itself.
type refusal struct {
	reason   reason
	versions Range // of the acceptor
}

func (f *refusal) encode() []byte {
	return appendRange([]byte{byte(typeRefusal), messageFormat, byte(f.reason)}, f.versions)
}

func parseRefusal(b []byte) (refusal, error) {
	r := openMessage(b, typeRefusal, MaxMessage)
	f := refusal{reason: reason(r.readByte()), versions: r.readRange()}
	r.require(f.reason != reasonNone && !f.reason.needsProof())
	return f, r.finish()
}

// isRefusal tells whether a message is to be read as a refusal.
func isRefusal(b []byte) bool { return len(b) > 0 && messageType(b[0]) == typeRefusal }

// reader takes a message apart. After a failure it reads zeros, and finish returns the error.
type reader struct {
	rest   []byte
	failed bool
	newer  bool // the format is one of a newer binary
}

// openMessage checks the length before anything is read or copied, then the type and the format.
func openMessage(b []byte, want messageType, limit int) *reader {
	r := &reader{rest: b, failed: len(b) > limit}
	r.require(messageType(r.readByte()) == want)
	format := r.readByte()
	r.newer = !r.failed && format > messageFormat
	r.require(format == messageFormat)
	return r
}

// require makes the message malformed unless the condition holds.
func (r *reader) require(ok bool) { r.failed = r.failed || !ok }

func (r *reader) readInto(dst []byte) {
	if r.require(len(r.rest) >= len(dst)); r.failed {
		clear(dst)
		return
	}
	r.rest = r.rest[copy(dst, r.rest):]
}

func (r *reader) readByte() byte {
	var b [1]byte
	r.readInto(b[:])
	return b[0]
}

func (r *reader) readUint16() uint16 {
	var b [2]byte
	r.readInto(b[:])
	return binary.BigEndian.Uint16(b[:])
}

func (r *reader) readUint32() uint32 {
	var b [4]byte
	r.readInto(b[:])
	return binary.BigEndian.Uint32(b[:])
}

func (r *reader) readRange() Range {
	v := Range{Min: r.readUint16(), Max: r.readUint16()}
	r.require(v.isValid())
	return v
}

func (r *reader) readContact() Contact {
	c := Contact{NodeID: int32(r.readUint32())}
	r.readInto(c.Key[:])
	r.require(c.NodeID >= 0)
	c.Addresses = r.readAddresses(maxAddresses)
	return c
}

// finish returns an error unless the whole message was read and nothing was wrong with it.
func (r *reader) finish() error {
	switch {
	case r.newer:
		return fmt.Errorf("%w: the message has the format of a newer leat", ErrVersion)
	case r.failed || len(r.rest) > 0:
		return ErrMalformed
	}
	return nil
}

func appendRange(b []byte, r Range) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, r.Min), r.Max)
}
