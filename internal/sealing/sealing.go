// Package sealing encrypts secrets that a cluster keeps in its metadata, under keys that are kept elsewhere: who has a node's
// data directory alone cannot read them.
//
// A Ring has the keys, and is the text of a file:
//
//	# The sealing key of a cluster of Leat: ...
//	leat-sealing-key-1:1f0a...:<32 bytes of base64>
//
// The key on the last line seals. All of them open, so that a secret which an older one has sealed can still be read, and one that a key has
// sealed which is to take the place of the last one. A sealed secret has these bytes:
//
//	1 byte    the version of the form, 1
//	8 bytes   the id of the key
//	12 bytes  the nonce, random
//	n bytes   the secret, encrypted with AES-256-GCM
//	16 bytes  its tag
//
// The purpose of a secret and the id of its cluster are authenticated with it, so that a secret cannot be put in the place of another one.
// A Ring never changes, and any goroutine may use it.
package sealing

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// MaxKeys is how many keys a ring has at most.
	MaxKeys = 16
	// MaxFile is how many bytes the text of a ring has at most.
	MaxFile = 64 << 10
	// Overhead is how many bytes a sealed secret has more than the secret.
	Overhead = 1 + idBytes + nonceBytes + tagBytes

	version    = 1
	keyBytes   = 32
	idBytes    = 8
	nonceBytes = 12
	tagBytes   = 16
	linePrefix = "leat-sealing-key-1"
)

var (
	// ErrRing says that the text of a ring is damaged, or is something else.
	ErrRing = errors.New("no sealing key")
	// ErrUnknownKey says that a secret was sealed by a key that the ring does not have.
	ErrUnknownKey = errors.New("sealed by another sealing key")
	// ErrDamaged says that sealed bytes are no secret of that purpose and cluster, or are damaged.
	ErrDamaged = errors.New("the sealed secret is damaged, or is of another cluster or purpose")
)

// ID names a key. It follows from the key, and tells nothing of it.
type ID [idBytes]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String writes.
func ParseID(text string) (id ID, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != idBytes {
		return id, fmt.Errorf("%q is no id of a sealing key", text)
	}
	return ID(b), nil
}

// key is a key with its id.
type key struct {
	id     ID
	secret [keyBytes]byte
}

func makeKey(secret [keyBytes]byte) key {
	sum := sha256.Sum256(append([]byte("leat sealing key id 1\x00"), secret[:]...))
	return key{ID(sum[:idBytes]), secret}
}

// Purpose says what a secret is, for what, and of which cluster. No two kinds of secrets have the same Kind.
type Purpose struct {
	Kind    string // such as "authority"
	Cluster string // the cluster's id
}

// bind is what is authenticated with a secret of the purpose.
func (p Purpose) bind() []byte {
	b := []byte("leat sealed secret 1\x00")
	for _, part := range []string{p.Kind, p.Cluster} {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	return b
}

// Ring is the keys of a cluster. The last one seals. It has at least one.
type Ring struct{ keys []key }

// NewRing makes a ring with one new key.
func NewRing() *Ring {
	var secret [keyBytes]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return &Ring{[]key{makeKey(secret)}}
}

// Format prints the ids of the keys alone, whatever the verb.
func (r *Ring) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "sealing keys ", r.IDs()) }

// IDs are the ids of the keys; that of the key that seals comes last.
func (r *Ring) IDs() (ids []ID) {
	for _, k := range r.keys {
		ids = append(ids, k.id)
	}
	return ids
}

// Newest is the id of the key that seals.
func (r *Ring) Newest() ID { return r.keys[len(r.keys)-1].id }

// Has tells whether the ring has a key.
func (r *Ring) Has(id ID) bool { return slices.Contains(r.IDs(), id) }

// Rotate is the ring with one more new key, which seals from now on.
func (r *Ring) Rotate() (*Ring, error) {
	if len(r.keys) >= MaxKeys {
		return nil, fmt.Errorf("there are %d sealing keys, as many as a cluster keeps: remove the lines of the oldest", MaxKeys)
	}
	return &Ring{append(slices.Clone(r.keys), NewRing().keys...)}, nil
}

// Prepare is the ring with one more new key, which opens and does not seal yet.
func (r *Ring) Prepare() (*Ring, ID, error) {
	next := NewRing()
	all, err := r.Merge(&Ring{append(next.keys, r.keys...)})
	return all, next.Newest(), err
}

// Merge is the ring with all keys of another one; the last key of that seals then. If the ring has them all, it stays as it is.
func (r *Ring) Merge(other *Ring) (*Ring, error) {
	if !slices.ContainsFunc(other.keys, func(k key) bool { return !r.Has(k.id) }) {
		return r, nil
	}
	all := slices.DeleteFunc(slices.Clone(r.keys), func(k key) bool { return other.Has(k.id) })
	if all = append(all, other.keys...); len(all) > MaxKeys {
		return nil, fmt.Errorf("there would be more than %d sealing keys, as many as a cluster keeps: remove the lines of the oldest", MaxKeys)
	}
	return &Ring{all}, nil
}

// SealBy is the ring whose key of an id, which it has, seals.
func (r *Ring) SealBy(id ID) *Ring {
	all := slices.DeleteFunc(slices.Clone(r.keys), func(k key) bool { return k.id == id })
	return &Ring{append(all, r.only(id))}
}

// Only is the ring that has no other key than that of an id, which it has.
func (r *Ring) Only(id ID) *Ring { return &Ring{[]key{r.only(id)}} }

func (r *Ring) only(id ID) key {
	at := slices.Index(r.IDs(), id)
	if at < 0 {
		panic(fmt.Sprintf("BUG: there is no sealing key %v among %v", id, r.IDs()))
	}
	return r.keys[at]
}

// fileHead begins the text of a ring.
const fileHead = `# The sealing key of a cluster of Leat. Who has it and the data directory of a node can make certificates of the cluster's authority, and
# read the secrets that the cluster keeps. Back it up, apart from the data directory: without it these secrets are lost.
# If there are several keys, the last one seals.
`

// Encode is the text of the ring's file.
func (r *Ring) Encode() []byte {
	b := []byte(fileHead)
	for _, k := range r.keys {
		b = fmt.Appendf(b, "%s:%v:%s\n", linePrefix, k.id, base64.StdEncoding.EncodeToString(k.secret[:]))
	}
	return b
}

// ParseRing reads what Encode writes. No error has a part of a key.
func ParseRing(text []byte) (*Ring, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrRing, MaxFile)
	}
	r := &Ring{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		trimmed := strings.TrimSpace(string(line))
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		k, err := parseKey(trimmed)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d %w", ErrRing, number, err)
		}
		if r.Has(k.id) {
			return nil, fmt.Errorf("%w: line %d has a key again that an earlier line has", ErrRing, number)
		}
		if r.keys = append(r.keys, k); len(r.keys) > MaxKeys {
			return nil, fmt.Errorf("%w: it has more than %d keys", ErrRing, MaxKeys)
		}
	}
	if len(r.keys) == 0 {
		return nil, fmt.Errorf("%w: it has no line that begins with %s", ErrRing, linePrefix)
	}
	return r, nil
}

func parseKey(line string) (key, error) {
	parts := strings.Split(line, ":")
	if len(parts) != 3 || parts[0] != linePrefix {
		return key{}, fmt.Errorf("does not begin with %s, or has not three parts", linePrefix)
	}
	id, err := ParseID(parts[1])
	if err != nil {
		return key{}, errors.New("has no id of a key")
	}
	b, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(b) != keyBytes {
		return key{}, errors.New("has no key of 32 bytes")
	}
	k := makeKey([keyBytes]byte(b))
	if k.id != id {
		return key{}, fmt.Errorf("is damaged: its key is not %v, as it says", id)
	}
	return k, nil
}

// Seal encrypts a secret with the newest key.
func (r *Ring) Seal(p Purpose, secret []byte) ([]byte, error) {
	return r.sealWith(rand.Reader, p, secret)
}

func (r *Ring) sealWith(random io.Reader, p Purpose, secret []byte) ([]byte, error) {
	k := r.keys[len(r.keys)-1]
	b := append([]byte{version}, k.id[:]...)
	nonce := make([]byte, nonceBytes)
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, err
	}
	gcm, err := newGCM(&k)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(append(b, nonce...), nonce, secret, p.bind()), nil
}

// Open decrypts a secret that was sealed for a purpose. Its errors wrap ErrUnknownKey or ErrDamaged.
func (r *Ring) Open(p Purpose, sealed []byte) ([]byte, error) {
	id, err := KeyOf(sealed)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(r.keys, func(k key) bool { return k.id == id })
	if at < 0 {
		return nil, fmt.Errorf("%w: it needs %v, and there is %v", ErrUnknownKey, id, r.IDs())
	}
	gcm, err := newGCM(&r.keys[at])
	if err != nil {
		return nil, err
	}
	rest := sealed[1+idBytes:]
	secret, err := gcm.Open(nil, rest[:nonceBytes], rest[nonceBytes:], p.bind())
	if err != nil {
		return nil, ErrDamaged
	}
	return secret, nil
}

// KeyOf is the id of the key by which a secret was sealed.
func KeyOf(sealed []byte) (id ID, err error) {
	if len(sealed) < Overhead || sealed[0] != version {
		return id, ErrDamaged
	}
	return ID(sealed[1 : 1+idBytes]), nil
}

func newGCM(k *key) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.secret[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
