package credential

import (
	"crypto/ecdh"
	"fmt"
	"io"
)

// sessionKeys is what the two ends of a handshake derive, and nobody else can.
type sessionKeys struct {
	id      [32]byte
	verdict [32]byte // the key of the verdict's MAC
}

// drawShare draws the private half of a share, which is used in one handshake only.
func drawShare(random io.Reader) (*ecdh.PrivateKey, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("drawing a share: %w", err)
	}
	return ecdh.X25519().NewPrivateKey(b[:])
}

// agreeOnKeys derives the keys from this end's private half, the other end's share and all that was
// sent. It refuses a share that would make the result known to all.
func agreeOnKeys(private *ecdh.PrivateKey, share [32]byte, t transcript) (sessionKeys, error) {
	public, err := ecdh.X25519().NewPublicKey(share[:])
	if err != nil {
		return sessionKeys{}, fmt.Errorf("%w: the share: %w", ErrMalformed, err)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return sessionKeys{}, fmt.Errorf("%w: the share: %w", ErrMalformed, err)
	}
	return sessionKeys{
		id:      deriveKey(secret, t[:], "leat peer session id 1"),
		verdict: deriveKey(secret, t[:], "leat peer verdict key 1"),
	}, nil
}
