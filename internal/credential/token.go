package credential

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	tokenName     = "leat"
	plainToken    = 1               // the version of a token with which a node may join without TLS
	tlsToken      = 2               // the version of one that needs TLS
	tokenLen      = 16 + 8 + 16 + 4 // cluster id, token id, secret, checksum
	tokenSumLen   = 4
	flagNeedsTLS  = 1 // flags of a token of version 2, its first byte
	flagAgent     = 2
	tokenSumLabel = "leat token checksum 1"
)

// TokenID is the id of a token. It is not a secret.
type TokenID [8]byte

func (i TokenID) String() string { return hex.EncodeToString(i[:]) }

// Verifier is what the metadata keeps of a token: enough to recognise a joiner that has it, and to
// be recognised by the joiner, and not enough to join.
type Verifier struct {
	ID       TokenID
	Key      PublicKey // of the joiner's signature
	Acceptor [32]byte  // the key of the acceptor's MAC: known to members only
	Expires  time.Time
	Revoked  bool
	// Holder is, of a token for an agent, the key of the agent that has used it first: it alone can use it from then on, with no end. Zero: none has.
	Holder PublicKey
}

// checkHolder returns an error if an agent with a key cannot use the token.
func (v Verifier) checkHolder(key PublicKey, now time.Time) error {
	switch {
	case v.Holder == key:
		return nil
	case v.Holder != PublicKey{}:
		return ErrTokenUsed
	case !now.Before(v.Expires):
		return ErrAgentTokenExpired
	}
	return nil
}

// checkUsable returns an error if the token has ended or was revoked.
func (v Verifier) checkUsable(now time.Time) error {
	switch {
	case v.Revoked:
		return ErrTokenRevoked
	case !now.Before(v.Expires):
		return ErrTokenExpired
	}
	return nil
}

// Token lets its holder join a cluster, or be the agent of a link (ForAgent). It is printed without its secret; Text has it.
type Token struct {
	cluster  ClusterID
	id       TokenID
	secret   [16]byte
	needsTLS bool // it must not be used over a connection that the proof is not bound to
	isAgent  bool // it is for an agent of a link, and lets nobody join
}

// NewToken makes a token of random bytes.
func NewToken(cluster ClusterID, random io.Reader) (Token, error) {
	t := Token{cluster: cluster}
	var b [8 + 16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Token{}, fmt.Errorf("making a join token: %w", err)
	}
	copy(t.id[:], b[:8])
	copy(t.secret[:], b[8:])
	return t, nil
}

// ParseToken reads the text of a token. Space around it does not matter. No error has a part of the
// text in it.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Token{}, fmt.Errorf("%w: it is empty", ErrNotToken)
	}
	if strings.HasPrefix("leat1.", text) || strings.HasPrefix("leat2.", text) {
		return Token{}, fmt.Errorf("%w: only its first %d characters are there", ErrTokenTruncated, len(text))
	}
	start, body, _ := strings.Cut(text, ".")
	number, ok := strings.CutPrefix(start, tokenName)
	version, err := strconv.ParseUint(number, 10, 16)
	switch {
	case !ok || err != nil || start != tokenName+strconv.FormatUint(version, 10):
		return Token{}, fmt.Errorf("%w: a token begins with %s%d. or %s%d. and is printed by leat cluster token", ErrNotToken, tokenName, plainToken, tokenName, tlsToken)
	case version > tlsToken:
		return Token{}, fmt.Errorf("%w: its version is %d, and this leat reads %d; join with the release that the cluster runs", ErrTokenVersion, version, tlsToken)
	case version < plainToken:
		return Token{}, fmt.Errorf("%w: its version is %d, and this leat reads %d; make a new one with leat cluster token", ErrTokenVersion, version, tlsToken)
	}
	return parseTokenBody(len(start)+1, body, version == tlsToken)
}

// parseTokenBody reads the part of a token behind the dot. before is how many characters come before it.
func parseTokenBody(before int, body string, hasFlags bool) (Token, error) {
	length, at := tokenLen, 0
	if hasFlags {
		length, at = 1+tokenLen, 1
	}
	textLen := base64.RawURLEncoding.EncodedLen(length)
	b, err := decodeText(body)
	switch {
	case strings.ContainsAny(body, " \t\r\n"):
		return Token{}, fmt.Errorf("%w: there is a space or a line break in it", ErrTokenDamaged)
	case len(body) < textLen:
		return Token{}, fmt.Errorf("%w: %d of its %d characters are missing", ErrTokenTruncated, textLen-len(body), before+textLen)
	case len(body) > textLen:
		return Token{}, fmt.Errorf("%w: it has %d characters too many", ErrTokenDamaged, len(body)-textLen)
	case err != nil:
		return Token{}, fmt.Errorf("%w: it has characters that no token has", ErrTokenDamaged)
	}
	end := length - tokenSumLen
	switch sum := sumToken(b[:end]); {
	case sum != [tokenSumLen]byte(b[end:]):
		return Token{}, fmt.Errorf("%w: a character of it was changed; copy it again", ErrTokenDamaged)
	case hasFlags && (b[0] == 0 || b[0]&^(flagNeedsTLS|flagAgent) != 0):
		return Token{}, fmt.Errorf("%w: it asks for something that this leat does not know; join with the release that the cluster runs", ErrTokenVersion)
	}
	flags := byte(0)
	if hasFlags {
		flags = b[0]
	}
	b = b[at:]
	return Token{
		cluster: ClusterID(b[:16]), id: TokenID(b[16:24]), secret: [16]byte(b[24:40]), needsTLS: flags&flagNeedsTLS != 0, isAgent: flags&flagAgent != 0,
	}, nil
}

// Text is the token as it is given to a joiner. It holds the secret.
func (t Token) Text() string {
	b, version := make([]byte, 0, 1+tokenLen), plainToken
	flags := byte(0)
	if t.needsTLS {
		flags |= flagNeedsTLS
	}
	if t.isAgent {
		flags |= flagAgent
	}
	if flags != 0 {
		b, version = append(b, flags), tlsToken
	}
	b = append(append(append(b, t.cluster[:]...), t.id[:]...), t.secret[:]...)
	sum := sumToken(b)
	return tokenName + strconv.Itoa(version) + "." + base64.RawURLEncoding.EncodeToString(append(b, sum[:]...))
}

// WithTLS is the same token, with which a node joins only over a connection with TLS that its proof is bound to. The nodes of the
// cluster know both by the same Verifier. Versions of leat from before such tokens refuse it.
func (t Token) WithTLS() Token {
	t.needsTLS = true
	return t
}

// NeedsTLS tells whether a node joins with the token only over TLS.
func (t Token) NeedsTLS() bool { return t.needsTLS }

// ForAgent is the same token for an agent of a link. It does not let a node join.
func (t Token) ForAgent() Token {
	t.isAgent = true
	return t
}

// IsForAgent tells whether the token is for an agent of a link.
func (t Token) IsForAgent() bool { return t.isAgent }

// ID is the token's id.
func (t Token) ID() TokenID { return t.id }

// Cluster is the cluster that the token is for.
func (t Token) Cluster() ClusterID { return t.cluster }

// CheckCluster returns an error if the token is for another cluster than the one that a data
// directory belongs to.
func (t Token) CheckCluster(own ClusterID) error {
	if t.cluster != own {
		return fmt.Errorf("%w than the token: its cluster is %v, and the token's is %v", ErrForeignCluster, own, t.cluster)
	}
	return nil
}

// Verifier makes what the metadata keeps of the token.
func (t Token) Verifier(expires time.Time) Verifier {
	return Verifier{ID: t.id, Key: t.signingKey().Public(), Acceptor: t.acceptorKey(), Expires: expires}
}

// Format prints the ids, whatever the verb: the secret gets into no log by accident.
func (t Token) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "token %s of cluster %s", t.id, t.cluster) // fmt.State keeps no error
}

// signingKey derives the key that a joiner signs with.
func (t Token) signingKey() NodeKey {
	seed := t.derive("leat token joiner 1")
	return NodeKey{ed25519.NewKeyFromSeed(seed[:])}
}

// acceptorKey derives the key of the MAC that an acceptor makes.
func (t Token) acceptorKey() [32]byte { return t.derive("leat token acceptor 1") }

func (t Token) derive(purpose string) [32]byte {
	return deriveKey(t.secret[:], append(t.cluster[:], t.id[:]...), purpose)
}

// sumToken makes the checksum that finds typing errors. It protects nothing.
func sumToken(b []byte) [tokenSumLen]byte {
	sum := sha256.Sum256(append([]byte(tokenSumLabel), b...))
	return [tokenSumLen]byte(sum[:])
}
