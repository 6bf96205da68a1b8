package credential

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// The roles of proofs. A zero byte ends them where they are used, so that none begins as another one.
const (
	roleAcceptor = "leat peer acceptor 1"
	roleDialler  = "leat peer dialler 1"
	roleToken    = "leat peer token 1"
	roleVerdict  = "leat peer verdict 1"
)

// transcript is the hash of all that was sent so far, in order.
type transcript [sha256.Size]byte

// add returns the transcript with one more part. The name and the length bound the part, so that
// no other division of the same bytes has the same hash.
func (t transcript) add(name string, part []byte) transcript {
	b := append(t[:], byte(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return sha256.Sum256(append(b, part...))
}

// label returns the bytes that are signed or authenticated in a role.
func (t transcript) label(role string) []byte { return append(append([]byte(role), 0), t[:]...) }

// authenticate makes a MAC in a role.
func (t transcript) authenticate(key [32]byte, role string) [32]byte {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(t.label(role))
	return [32]byte(mac.Sum(nil))
}

// isAuthentic compares a MAC in constant time.
func (t transcript) isAuthentic(key [32]byte, role string, mac [32]byte) bool {
	want := t.authenticate(key, role)
	return hmac.Equal(want[:], mac[:])
}

// deriveKey derives 32 bytes for one purpose.
func deriveKey(secret, salt []byte, purpose string) [32]byte {
	b, err := hkdf.Key(sha256.New, secret, salt, purpose, 32)
	if err != nil {
		panic("BUG: deriving a key of a legal length: " + err.Error())
	}
	return [32]byte(b)
}
