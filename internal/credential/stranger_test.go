package credential_test

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/leatstream/leat/internal/credential"
)

// stranger is a dialler that was written from the package doc, with nothing of the package but its
// values. It shows that the doc is whole, and it can lie in every field.
type stranger struct {
	kind        credential.Kind
	epoch       byte
	share       [32]byte
	node        int32
	incarnation credential.Incarnation
	token       credential.TokenID
	tokenSeed   []byte
	key         credential.NodeKey   // signs
	claimed     credential.PublicKey // is in the hello of a joiner
	version     byte
	channel     []byte // that it signs, from version 3 on
}

func newStranger(w *world) *stranger {
	key := w.makeKey()
	return &stranger{key: key, claimed: key.Public(), share: [32]byte{9}, epoch: 1, version: 1} // nine is the base point
}

func (s *stranger) hello() []byte {
	b := []byte{1, 1, 0, 1, 0, s.version, byte(s.kind)}
	b = append(append(b, here[:]...), 0, 0, 0, s.epoch)
	b = append(b, s.share[:]...)
	if s.kind == credential.KindJoiner {
		b = append(append(append(b, s.token[:]...), s.claimed[:]...), make([]byte, 16)...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(s.node))
	if s.kind == credential.KindNode {
		b = append(b, s.incarnation[:]...)
	}
	return b
}

// attack does the handshake without a look at the acceptor's proof, and returns the acceptor's error.
func (s *stranger) attack(a *credential.Acceptor) error {
	hello := s.hello()
	challenge, err := a.Challenge(hello)
	if err != nil {
		return err
	}
	t := addTo(make([]byte, 32), "hello", hello)
	if s.version >= 3 {
		t = addTo(t, "channel", s.channel)
	}
	t = addTo(t, "challenge", challenge[:80])
	t = addTo(t, "proof of the acceptor", challenge[80:])
	proof := append([]byte{3, 1}, ed25519.Sign(privateOf(s.key), append([]byte("leat peer dialler 1\x00"), t...))...)
	if s.kind == credential.KindJoiner {
		proof = append(proof, ed25519.Sign(ed25519.NewKeyFromSeed(s.tokenSeed), append([]byte("leat peer token 1\x00"), t...))...)
	}
	_, _, err = a.Verify(proof, now)
	return err
}

// impostor is an acceptor that was written from the package doc. It is node 2 of the world, and can
// lie in every field.
type impostor struct {
	node    int32
	claimed credential.PublicKey
	key     credential.NodeKey // signs
	mac     [32]byte           // the acceptor key of a token
	version byte
	given   byte // the node id in the welcome
}

func newImpostor(w *world) *impostor {
	return &impostor{node: 2, claimed: w.keys[2].Public(), key: w.keys[2], mac: w.tokens[w.token.ID()].Acceptor, version: 1, given: 1}
}

// answer does the handshake without a look at the dialler's proof, and returns the dialler's error
// and session.
func (i *impostor) answer(d *credential.Dialler) (credential.Session, error) {
	hello, err := d.Hello()
	if err != nil {
		return credential.Session{}, err
	}
	const shareAt = 27
	private, _ := ecdh.X25519().NewPrivateKey(append([]byte{5}, make([]byte, 31)...))
	body := append([]byte{2, 1}, hello[2:6]...) // the versions of the dialler
	body = append(body, 0, i.version, 0, 0, 0, 1)
	body = binary.BigEndian.AppendUint32(body, uint32(i.node))
	body = append(append(body, i.claimed[:]...), private.PublicKey().Bytes()...)
	t := addTo(make([]byte, 32), "hello", hello)
	if i.version >= 3 {
		t = addTo(t, "channel", nil) // there is no TLS
	}
	t = addTo(t, "challenge", body)
	signed := append([]byte("leat peer acceptor 1\x00"), t...)
	proofs := ed25519.Sign(privateOf(i.key), signed)
	if credential.Kind(hello[6]) == credential.KindJoiner {
		proofs = append(proofs, makeMAC(i.mac[:], signed)...)
	}
	proof, err := d.Prove(append(body, proofs...))
	if err != nil {
		return credential.Session{}, err
	}
	t = addTo(addTo(t, "proof of the acceptor", proofs), "proof of the dialler", proof)
	share, _ := ecdh.X25519().NewPublicKey(hello[shareAt : shareAt+32])
	secret, _ := private.ECDH(share)
	key, _ := hkdf.Key(sha256.New, secret, t, "leat peer verdict key 1", 32)
	verdict := []byte{4, 1, 0, 0, 0, 0, i.given, 0, 0, 0, 0}
	session, _, err := d.Finish(append(verdict, makeMAC(key, append([]byte("leat peer verdict 1\x00"), addTo(t, "verdict", verdict)...))...))
	return session, err
}

func makeMAC(key, b []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(b)
	return mac.Sum(nil)
}

func addTo(t []byte, name string, part []byte) []byte {
	b := append(append([]byte{}, t...), byte(len(name)))
	b = binary.BigEndian.AppendUint32(append(b, name...), uint32(len(part)))
	sum := sha256.Sum256(append(b, part...))
	return sum[:]
}

// privateOf reads the private key out of the text of a node.key.
func privateOf(key credential.NodeKey) ed25519.PrivateKey {
	_, rest, _ := strings.Cut(string(key.Encode()), "private=")
	seed, _, _ := strings.Cut(rest, "\n")
	b, _ := base64.RawURLEncoding.DecodeString(seed)
	return ed25519.NewKeyFromSeed(b)
}

// seedOf derives the seed of the key that a joiner signs with, from the text of a token.
func seedOf(token credential.Token) []byte {
	b, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token.Text(), "leat1."))
	seed, _ := hkdf.Key(sha256.New, b[24:40], b[:24], "leat token joiner 1", 32)
	return seed
}
