package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/leatstream/leat/internal/meta"
)

// The bounds of the iterations with which a password is made a key. They are Kafka's.
const (
	MinIterations     = 4096
	MaxIterations     = 16384
	DefaultIterations = 8192
)

// LongestName is how many bytes the name of a user has at most.
const LongestName = 512

// ScramName is a mechanism's name; "": there is no such mechanism.
func ScramName(m meta.ScramMechanism) string {
	switch m {
	case meta.ScramSHA256:
		return "SCRAM-SHA-256"
	case meta.ScramSHA512:
		return "SCRAM-SHA-512"
	}
	return ""
}

func hashOf(m meta.ScramMechanism) func() hash.Hash {
	if m == meta.ScramSHA512 {
		return sha512.New
	}
	return sha256.New
}

// Users are those who log in with a password: the users that have SCRAM credentials. Any goroutine may use them.
type Users struct {
	image func() *meta.Image

	models atomic.Pointer[models]
	checks passwordChecks
}

// NewUsers makes the users of the newest image. All nodes of a cluster answer alike for users that do not exist, before and after
// a start, since the secret of the cluster's credentials makes their salts.
func NewUsers(image func() *meta.Image) *Users {
	u := &Users{image: image}
	u.checks.init()
	return u
}

// models are credentials that exist, by mechanism. A user that does not exist is given the form of one of them.
type models struct {
	of          *meta.Credentials
	byMechanism map[meta.ScramMechanism][]*meta.ScramCredential
}

// find finds a user's credential. If there is none, it returns one that looks like those of the others, and whose
// password nobody has.
func (u *Users) find(name string, m meta.ScramMechanism) (c *meta.ScramCredential, exists bool) {
	all := u.image().Credentials()
	standIn := u.makeStandIn(all, name, m) // also for users that exist, so that it takes the same time
	if c := all.ByOwner[meta.CredentialOwner{User: name, Mechanism: m}]; c != nil {
		return c, true
	}
	return standIn, false
}

// CredentialMark is a mark of the password of a user: another one when it was changed, or when the user was deleted and made again. exists is false if
// there is no such user.
func (u *Users) CredentialMark(name string) (mark [sha256.Size]byte, exists bool) {
	h := sha256.New()
	all := u.image().Credentials()
	for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		if c := all.ByOwner[meta.CredentialOwner{User: name, Mechanism: m}]; c != nil {
			exists = true
			_, _ = fmt.Fprintf(h, "%d %x %x %d\n", m, c.Salt, c.StoredKey, c.Iterations) // it never fails
		}
	}
	h.Sum(mark[:0])
	return mark, exists
}

func (u *Users) makeStandIn(all *meta.Credentials, name string, m meta.ScramMechanism) *meta.ScramCredential {
	seed := u.deriveBytes(name, m, 0)
	model := u.modelsOf(all).choose(m, binary.BigEndian.Uint64(seed))
	c := &meta.ScramCredential{CredentialOwner: meta.CredentialOwner{User: name, Mechanism: m}, Iterations: model.Iterations}
	for i := byte(1); len(c.Salt) < len(model.Salt); i++ {
		c.Salt = append(c.Salt, u.deriveBytes(name, m, i)...)
	}
	c.Salt = c.Salt[:len(model.Salt)]
	if isBase36(model.Salt) {
		for i := range c.Salt {
			c.Salt[i] = base36[int(c.Salt[i])%len(base36)]
		}
	}
	n := m.KeyBytes()
	keys := append(u.deriveBytes(name, m, 254), u.deriveBytes(name, m, 255)...)
	c.StoredKey, c.ServerKey = keys[:n:n], keys[:n:n]
	return c
}

// deriveBytes derives bytes of a name that nobody can derive who does not have the secret.
func (u *Users) deriveBytes(name string, m meta.ScramMechanism, part byte) []byte {
	secret := u.image().Credentials().Secret // zero until there is a first credential, for which a salt could be told from others
	h := hmac.New(sha256.New, secret[:])
	_, _ = h.Write(append([]byte{byte(m), part}, name...)) // it never fails
	return h.Sum(nil)
}

// Kafka's tools make salts of these characters.
const base36 = "0123456789abcdefghijklmnopqrstuvwxyz"

func isBase36(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return !strings.ContainsRune(base36, rune(c)) })
}

func (u *Users) modelsOf(all *meta.Credentials) *models {
	known := u.models.Load()
	if known != nil && known.of == all {
		return known
	}
	known = &models{of: all, byMechanism: map[meta.ScramMechanism][]*meta.ScramCredential{}}
	for _, c := range all.ByOwner {
		known.byMechanism[c.Mechanism] = append(known.byMechanism[c.Mechanism], c)
	}
	for _, list := range known.byMechanism { // in the same order on all nodes
		slices.SortFunc(list, func(a, b *meta.ScramCredential) int { return strings.Compare(a.User, b.User) })
	}
	u.models.Store(known)
	return known
}

func (s *models) choose(m meta.ScramMechanism, seed uint64) *meta.ScramCredential {
	list := s.byMechanism[m]
	if len(list) == 0 {
		return &meta.ScramCredential{Salt: make([]byte, saltBytes), Iterations: DefaultIterations}
	}
	return list[seed%uint64(len(list))]
}

// saltBytes is the length of the salts that NewCredential makes.
const saltBytes = 26

// mechanismOf is the mechanism of the credential against which a user's password is checked. A user that does not exist
// has that of one that does.
func (u *Users) mechanismOf(name string) meta.ScramMechanism {
	all := u.image().Credentials()
	for _, m := range []meta.ScramMechanism{meta.ScramSHA512, meta.ScramSHA256} {
		if all.ByOwner[meta.CredentialOwner{User: name, Mechanism: m}] != nil {
			return m
		}
	}
	by := u.modelsOf(all).byMechanism
	seed := binary.BigEndian.Uint64(u.deriveBytes(name, 0, 0))
	if n := uint64(len(by[meta.ScramSHA256])); n > 0 && seed%(n+uint64(len(by[meta.ScramSHA512]))) < n {
		return meta.ScramSHA256
	}
	return meta.ScramSHA512
}

// SaltPassword makes the key that AlterUserScramCredentials has in place of a password.
func SaltPassword(m meta.ScramMechanism, password string, salt []byte, iterations int32) ([]byte, error) {
	return pbkdf2.Key(hashOf(m), password, salt, int(iterations), m.KeyBytes())
}

// deriveKeys makes what a credential keeps of a salted password.
func deriveKeys(m meta.ScramMechanism, salted []byte) (stored, server []byte) {
	return digest(m, sign(m, salted, "Client Key")), sign(m, salted, "Server Key")
}

// CredentialOf is the credential of a salted password, whose values must be valid.
func CredentialOf(owner meta.CredentialOwner, salt, salted []byte, iterations int32) meta.ScramCredential {
	stored, server := deriveKeys(owner.Mechanism, salted)
	return meta.ScramCredential{CredentialOwner: owner, Salt: salt, StoredKey: stored, ServerKey: server, Iterations: iterations}
}

// NewCredential makes the credential of a password.
func NewCredential(owner meta.CredentialOwner, password string, iterations int32) (meta.ScramCredential, error) {
	switch {
	case owner.Mechanism.KeyBytes() == 0:
		return meta.ScramCredential{}, fmt.Errorf("there is no SCRAM mechanism %d", owner.Mechanism)
	case owner.User == "" || password == "":
		return meta.ScramCredential{}, errors.New("a user needs a name and a password")
	}
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // it never fails
	for i := range salt {
		salt[i] = base36[int(salt[i])%len(base36)]
	}
	salted, err := SaltPassword(owner.Mechanism, password, salt, iterations)
	if err != nil {
		return meta.ScramCredential{}, err
	}
	return CredentialOf(owner, salt, salted, iterations), nil
}
