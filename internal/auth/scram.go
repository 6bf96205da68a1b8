package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// SCRAM, as Kafka serves it (RFC 5802, RFC 7677; without channel binding):
//
//	client first   n,[a=authorization id],[m=...,]n=user name,r=nonce{,extension}
//	server first   r=both nonces,s=salt,i=iterations
//	client final   c=the header of the first message,r=both nonces{,extension},p=proof
//	server final   v=server's signature
//
// A user that does not exist is answered like one that does, with a salt that is always the same for the name. So
// neither the answers nor their time tell who exists: the proof is verified against keys that nobody has.
//
// With the extension tokenauth=true the user name is the id of a delegation token, and the password that of the token (KIP-48); see
// Tokens. An unknown extension is skipped, as in Kafka.

// NewScram makes SCRAM-SHA-256 or SCRAM-SHA-512. tokens may be nil: then nobody logs in with a delegation token.
func NewScram(m meta.ScramMechanism, users *Users, tokens *Tokens) *Scram {
	return &Scram{mechanism: m, users: users, tokens: tokens}
}

// Scram is a Mechanism: SCRAM-SHA-256 or SCRAM-SHA-512.
type Scram struct {
	mechanism meta.ScramMechanism
	users     *Users
	tokens    *Tokens // nil: there are none
}

// EveryMechanism stands for both in a request that removes credentials, so that a user keeps all or loses all. Kafka, whose requests alter one credential
// of a user, refuses the number as an unknown mechanism.
const EveryMechanism meta.ScramMechanism = 100

// Name is the mechanism's name.
func (s *Scram) Name() string { return ScramName(s.mechanism) }

// Start begins a login.
func (s *Scram) Start() Exchange { return &scramExchange{Scram: s} } //nolint:ireturn // of Mechanism

const (
	// longestName bounds names and passwords, and longestNonce the nonce of a client.
	longestName  = LongestName
	longestNonce = 1 << 10
	// nonceBytes is the length of the server's part of a nonce, before it is text.
	nonceBytes = 24
	// longestMessage bounds what a client can have the node keep between its two messages. With the longest names and nonce a message has
	// about half of it.
	longestMessage = 4 << 10
)

var (
	errScramForm  = errors.New("the message has not the form of SCRAM")
	errScramNonce = errors.New("the nonce is another one")
	errScramProof = errors.New("the proof is wrong, or there is no such user")
	errScramEnded = errors.New("the exchange has ended")
	errTokens     = errors.New("delegation tokens are off: delegation.token.secret.key is not set on this node")
)

// scramState is how far an exchange is.
type scramState uint8

const (
	awaitFirst scramState = iota
	awaitFinal
	ended
)

type scramExchange struct {
	*Scram

	state      scramState
	user       string
	byToken    bool                  // user is the id of a delegation token
	credential *meta.ScramCredential // of the user, or one that stands in for it; of a token the salt and the iterations only
	exists     bool
	nonce      string // both parts
	header     string // of the client's first message
	first      string // the first messages of both, as the proof covers them
}

// Step takes the client's next message.
func (e *scramExchange) Step(ctx context.Context, message []byte) ([]byte, *Login, error) {
	state := e.state
	e.state = ended // also after an error
	if len(message) > longestMessage {
		return nil, nil, errScramForm
	}
	switch state {
	case awaitFirst:
		answer, err := e.takeFirst(string(message))
		if err != nil {
			return nil, nil, err
		}
		e.state = awaitFinal
		return answer, nil, nil
	case awaitFinal:
		return e.takeFinal(ctx, string(message))
	case ended:
	}
	return nil, nil, errScramEnded
}

// clientFirst is a client's first message.
type clientFirst struct {
	header        string // with its commas
	authorization string
	user          string
	nonce         string
	bare          string // without the header
	byToken       bool
}

func parseClientFirst(message string) (f clientFirst, err error) {
	rest, ok := strings.CutPrefix(message, "n,")
	if !ok {
		return f, errScramForm
	}
	who, bare, ok := strings.Cut(rest, ",")
	if !ok {
		return f, errScramForm
	}
	f.header, f.bare = message[:len(message)-len(bare)], bare
	if who != "" {
		name, ok := strings.CutPrefix(who, "a=")
		if f.authorization, err = unescapeName(name); err != nil || !ok {
			return f, errScramForm
		}
	}
	parts := strings.Split(bare, ",")
	if len(parts) > 0 && strings.HasPrefix(parts[0], "m=") {
		parts = parts[1:]
	}
	if len(parts) < 2 {
		return f, errScramForm
	}
	name, isName := strings.CutPrefix(parts[0], "n=")
	nonce, isNonce := strings.CutPrefix(parts[1], "r=")
	if f.user, err = unescapeName(name); err != nil || !isName || !isNonce || !isPrintable(nonce) || len(nonce) > longestNonce {
		return f, errScramForm
	}
	f.nonce = nonce
	for _, extension := range parts[2:] {
		key, value, ok := strings.Cut(extension, "=")
		if !ok || key == "" || value == "" {
			return f, errScramForm
		}
		f.byToken = f.byToken || key == "tokenauth" && strings.EqualFold(value, "true")
	}
	return f, nil
}

// unescapeName reads a name in which =2C stands for a comma and =3D for an equals sign.
func unescapeName(s string) (string, error) {
	if s == "" || len(s) > longestName || strings.ContainsRune(s, 0) {
		return "", errScramForm
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "=")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		switch {
		case strings.HasPrefix(after, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(after, "3D"):
			b.WriteByte('=')
		default:
			return "", errScramForm
		}
		s = after[2:]
	}
}

// isPrintable tells whether a nonce has printable ASCII characters only. It has no commas, since they end it.
func isPrintable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e })
}

func (e *scramExchange) takeFirst(message string) ([]byte, error) {
	f, err := parseClientFirst(message)
	if err != nil {
		return nil, err
	}
	if f.byToken && e.tokens == nil {
		return nil, errTokens
	}
	if f.authorization != "" && f.authorization != f.user {
		return nil, &RefusedError{"Authentication failed: Client requested an authorization id that is different from username"}
	}
	if e.byToken = f.byToken; f.byToken {
		e.credential = e.tokens.begin(f.user, e.mechanism)
	} else {
		e.credential, e.exists = e.users.find(f.user, e.mechanism)
	}
	var own [nonceBytes]byte
	_, _ = rand.Read(own[:]) // it never fails
	// They are copied, so that the message is not kept for them.
	e.user, e.header, e.nonce = strings.Clone(f.user), strings.Clone(f.header), f.nonce+base64.RawStdEncoding.EncodeToString(own[:])
	answer := "r=" + e.nonce + ",s=" + base64.StdEncoding.EncodeToString(e.credential.Salt) + ",i=" + strconv.Itoa(int(e.credential.Iterations))
	e.first = f.bare + "," + answer
	return []byte(answer), nil
}

func (e *scramExchange) takeFinal(ctx context.Context, message string) ([]byte, *Login, error) {
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return nil, nil, errScramForm
	}
	covered, text := message[:at], message[at+len(",p="):]
	parts := strings.Split(covered, ",")
	if len(parts) < 2 || parts[0] != "c="+base64.StdEncoding.EncodeToString([]byte(e.header)) {
		return nil, nil, errScramForm
	}
	// It need only end with both parts: librdkafka before 2.6.1 has its own part twice. Apache Kafka 4.3 refuses that. The proof covers whatever it is.
	if nonce, ok := strings.CutPrefix(parts[1], "r="); !ok || !strings.HasSuffix(nonce, e.nonce) {
		return nil, nil, errScramNonce
	}
	proof, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(proof) != e.mechanism.KeyBytes() {
		return nil, nil, errScramForm
	}
	signed := e.first + "," + covered
	proves := func(c *meta.ScramCredential) bool { return isProof(c, signed, proof) }
	credential, login := e.credential, &Login{Principal: User(e.user), Credential: e.credential}
	if e.byToken {
		if credential, login, err = e.tokens.verify(ctx, e.credential, time.Now(), proves); err != nil {
			return nil, nil, err
		}
	} else if isProven, isCurrent := proves(credential), e.users.image().HasCredential(credential); !isProven || !e.exists || !isCurrent { // the client may have waited for long
		return nil, nil, errScramProof
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(sign(e.mechanism, credential.ServerKey, signed))), login, nil
}

// isProof tells whether a client's proof is that of a credential.
func isProof(c *meta.ScramCredential, signed string, proof []byte) bool {
	clientKey := make([]byte, len(proof))
	subtle.XORBytes(clientKey, proof, sign(c.Mechanism, c.StoredKey, signed))
	return subtle.ConstantTimeCompare(digest(c.Mechanism, clientKey), c.StoredKey) == 1
}

// sign is a mechanism's HMAC.
func sign(m meta.ScramMechanism, key []byte, text string) []byte {
	h := hmac.New(hashOf(m), key)
	_, _ = h.Write([]byte(text)) // it never fails
	return h.Sum(nil)
}

func digest(m meta.ScramMechanism, b []byte) []byte {
	h := hashOf(m)()
	_, _ = h.Write(b) // it never fails
	return h.Sum(nil)
}
