package workload

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/client"
)

// The mechanisms of a login. ByDelegation is SCRAM-SHA-256 with a delegation token.
const (
	ByPlain      = "PLAIN"
	BySHA256     = "SCRAM-SHA-256"
	BySHA512     = "SCRAM-SHA-512"
	ByOAuth      = "OAUTHBEARER"
	ByDelegation = "delegation token"
)

// loginer logs in by one mechanism. It computes what depends on the password only once, so that it costs less than the broker that it measures.
// Several goroutines may use it.
type loginer struct {
	mechanism string // by the name of SASL
	message   string // of a mechanism with one message
	scram     *scramClient
}

func newLoginer(mechanism string, s *Secured) (*loginer, error) {
	switch mechanism {
	case ByPlain:
		return &loginer{mechanism: mechanism, message: "\x00" + s.User + "\x00" + s.Password}, nil
	case ByOAuth:
		return &loginer{mechanism: mechanism, message: "n,,\x01auth=Bearer " + s.JWT + "\x01\x01"}, nil
	case BySHA256:
		return &loginer{mechanism: mechanism, scram: &scramClient{hash: sha256.New, user: s.User, password: s.Password}}, nil
	case BySHA512:
		return &loginer{mechanism: mechanism, scram: &scramClient{hash: sha512.New, user: s.User, password: s.Password}}, nil
	case ByDelegation:
		return &loginer{mechanism: BySHA256, scram: &scramClient{hash: sha256.New, user: s.TokenID, password: s.TokenHMAC, isToken: true}}, nil
	}
	return nil, fmt.Errorf("%q is no mechanism", mechanism)
}

// logIn logs in on a connection.
func (l *loginer) logIn(ctx context.Context, c *client.Conn) error {
	hello := kmsg.NewPtrSASLHandshakeRequest()
	hello.Version, hello.Mechanism = 1, l.mechanism
	answer, err := c.Exchange(ctx, client.Encode(hello), hello)
	if err != nil {
		return err
	}
	if resp, _ := answer.(*kmsg.SASLHandshakeResponse); resp.ErrorCode != 0 {
		return kerr.ErrorForCode(resp.ErrorCode)
	}
	if l.scram == nil {
		told, err := authenticate(ctx, c, l.message)
		if err == nil && told != "" { // OAUTHBEARER says so what is wrong, before the login fails (RFC 7628)
			err = fmt.Errorf("the token is refused: %s", told)
		}
		return err
	}
	return l.scram.logIn(func(message string) (string, error) { return authenticate(ctx, c, message) })
}

// authenticate sends one message of a login, and returns the answer to it.
func authenticate(ctx context.Context, c *client.Conn, message string) (string, error) {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.Version, req.SASLAuthBytes = 2, []byte(message)
	answer, err := c.Exchange(ctx, client.Encode(req), req)
	if err != nil {
		return "", err
	}
	resp, _ := answer.(*kmsg.SASLAuthenticateResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		if resp.ErrorMessage != nil {
			err = fmt.Errorf("%w: %s", err, *resp.ErrorMessage)
		}
		return "", err
	}
	return string(resp.SASLAuthBytes), nil
}

// scramClient is a client of SCRAM (RFC 5802) whose user and password need no escapes.
type scramClient struct {
	hash           func() hash.Hash
	user, password string
	isToken        bool

	keys sync.Map // what was computed of the password, by the salt and the iterations as the server writes them: string to *scramKeys
}

// scramKeys are the keys of a password.
type scramKeys struct{ client, stored, server []byte }

var errScram = errors.New("the server's message of SCRAM is not as it should be")

// logIn logs in by exchange, which sends a message and returns the answer.
func (s *scramClient) logIn(exchange func(string) (string, error)) error {
	var random [18]byte
	_, _ = rand.Read(random[:]) // it never fails
	nonce := base64.RawStdEncoding.EncodeToString(random[:])
	bare := "n=" + s.user + ",r=" + nonce
	if s.isToken {
		bare += ",tokenauth=true"
	}
	first, err := exchange("n,," + bare)
	if err != nil {
		return err
	}
	parts := strings.Split(first, ",")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r="+nonce) {
		return errScram
	}
	keys, err := s.keysOf(parts[1], parts[2])
	if err != nil {
		return err
	}
	covered := "c=biws," + parts[0]
	signed := bare + "," + first + "," + covered
	proof := s.sign(keys.stored, signed)
	subtle.XORBytes(proof, proof, keys.client)
	last, err := exchange(covered + ",p=" + base64.StdEncoding.EncodeToString(proof))
	if err != nil {
		return err
	}
	if last != "v="+base64.StdEncoding.EncodeToString(s.sign(keys.server, signed)) {
		return errScram
	}
	return nil
}

// keysOf computes the keys of the password, as the server says.
func (s *scramClient) keysOf(salt, iterations string) (*scramKeys, error) {
	known, ok := s.keys.Load(salt + iterations)
	if keys, _ := known.(*scramKeys); ok {
		return keys, nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(salt, "s="))
	n, wrong := strconv.Atoi(strings.TrimPrefix(iterations, "i="))
	const most = 100_000
	if err = errors.Join(err, wrong); err != nil || n < 1 || n > most {
		return nil, errors.Join(errScram, err)
	}
	salted, err := pbkdf2.Key(s.hash, s.password, raw, n, s.hash().Size())
	if err != nil {
		return nil, err
	}
	keys := &scramKeys{client: s.sign(salted, "Client Key"), server: s.sign(salted, "Server Key")}
	h := s.hash()
	h.Write(keys.client)
	keys.stored = h.Sum(nil)
	s.keys.Store(salt+iterations, keys)
	return keys, nil
}

func (s *scramClient) sign(key []byte, text string) []byte {
	h := hmac.New(s.hash, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
