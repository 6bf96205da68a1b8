package credential

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	keyVersion   = 1 // of the text of a NodeKey
	maxKeyFile   = 4 << 10
	publicPrefix = "ed25519:"
)

// PublicKey is what other nodes know a node by.
type PublicKey [ed25519.PublicKeySize]byte

// ParsePublicKey reads the text that String writes.
func ParsePublicKey(text string) (PublicKey, error) {
	body, ok := strings.CutPrefix(text, publicPrefix)
	b, err := decodeText(body)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("%w: it must be %q and 43 characters", ErrPublicKey, publicPrefix)
	}
	return PublicKey(b), nil
}

func (k PublicKey) String() string { return publicPrefix + base64.RawURLEncoding.EncodeToString(k[:]) }

// isSigned tells whether the owner of the key signed the transcript in a role.
func (k PublicKey) isSigned(role string, t transcript, signature [ed25519.SignatureSize]byte) bool {
	return ed25519.Verify(k[:], t.label(role), signature[:])
}

// NodeKey is the private key of a node, which only its data directory has. It is printed without
// the secret part.
type NodeKey struct{ private ed25519.PrivateKey }

// NewNodeKey makes a key of random bytes.
func NewNodeKey(random io.Reader) (NodeKey, error) {
	var seed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return NodeKey{}, fmt.Errorf("making a node's key: %w", err)
	}
	return NodeKey{ed25519.NewKeyFromSeed(seed[:])}, nil
}

// ParseNodeKey reads the text that Encode writes.
func ParseNodeKey(text []byte) (NodeKey, error) {
	if len(text) > maxKeyFile {
		return NodeKey{}, fmt.Errorf("%w: it has %d bytes", ErrKeyFile, len(text))
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if _, twice := fields[name]; !ok || twice {
			return NodeKey{}, fmt.Errorf("%w: a line is not a setting, or is there twice; restore it from a backup", ErrKeyFile)
		}
		fields[name] = value
	}
	version, err := strconv.Atoi(fields["version"])
	if err != nil || version < keyVersion {
		return NodeKey{}, fmt.Errorf("%w: it has no version that leat writes; restore it from a backup", ErrKeyFile)
	}
	if version > keyVersion {
		return NodeKey{}, fmt.Errorf("%w that this leat reads: it has version %d, which a newer leat wrote, and this one reads %d", ErrKeyFile, version, keyVersion)
	}
	seed, err := decodeText(fields["private"])
	if err != nil || len(seed) != ed25519.SeedSize || len(fields) != 3 {
		return NodeKey{}, fmt.Errorf("%w: it is damaged; restore it from a backup", ErrKeyFile)
	}
	key := NodeKey{ed25519.NewKeyFromSeed(seed)}
	if fields["public"] != key.Public().String() {
		return NodeKey{}, fmt.Errorf("%w: its two halves are not of one key, so it is damaged; restore it from a backup", ErrKeyFile)
	}
	return key, nil
}

// Encode writes the key as the text of a file. It holds the secret.
func (k NodeKey) Encode() []byte {
	return fmt.Appendf(nil, "# The key of a Leat node. A reader of this file can act as the node.\nversion=%d\nprivate=%s\npublic=%s\n",
		keyVersion, base64.RawURLEncoding.EncodeToString(k.private.Seed()), k.Public())
}

// Public is the key's public half.
func (k NodeKey) Public() PublicKey { return PublicKey(k.private[ed25519.SeedSize:]) }

// Format prints the public half, whatever the verb: the secret gets into no log by accident.
func (k NodeKey) Format(f fmt.State, _ rune) {
	text := "no key"
	if k.private != nil {
		text = k.Public().String()
	}
	_, _ = io.WriteString(f, text) // fmt.State keeps no error
}

func (k NodeKey) sign(role string, t transcript) (signature [ed25519.SignatureSize]byte) {
	return [ed25519.SignatureSize]byte(ed25519.Sign(k.private, t.label(role)))
}
