package meta

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
)

// ScramMechanism is a SCRAM mechanism, by Kafka's number.
type ScramMechanism int8

// The mechanisms.
const (
	ScramSHA256 ScramMechanism = 1
	ScramSHA512 ScramMechanism = 2
)

// KeyBytes is the length of a mechanism's keys; 0: there is no such mechanism.
func (m ScramMechanism) KeyBytes() int {
	switch m {
	case ScramSHA256:
		return 32
	case ScramSHA512:
		return 64
	}
	return 0
}

// CredentialOwner names a credential: a user has at most one for each mechanism.
type CredentialOwner struct {
	User      string
	Mechanism ScramMechanism
}

// ScramCredential proves a user's password, and does not tell it (RFC 5802). It never changes. Who has StoredKey
// and listens to one login can log in as the user, so it is shown to nobody.
type ScramCredential struct {
	CredentialOwner

	Salt, StoredKey, ServerKey []byte
	Iterations                 int32
}

// HasCredential tells whether the image has a credential as it is, and neither another one in its place nor none.
func (m *Image) HasCredential(c *ScramCredential) bool {
	now := m.credentials.ByOwner[c.CredentialOwner]
	return now == c || now != nil && now.equal(c)
}

func (c *ScramCredential) equal(o *ScramCredential) bool {
	return c.CredentialOwner == o.CredentialOwner && c.Iterations == o.Iterations &&
		bytes.Equal(c.Salt, o.Salt) && bytes.Equal(c.StoredKey, o.StoredKey) && bytes.Equal(c.ServerKey, o.ServerKey)
}

// Credentials are the SCRAM credentials of all users. They never change, so that an equal pointer means equal
// credentials.
type Credentials struct {
	ByOwner map[CredentialOwner]*ScramCredential
	// Secret is what all nodes derive the salts of users from that do not exist, so that nobody can tell them from others.
	// It is made with the first credential, and stays the same; zero: there has been none.
	Secret [32]byte
}

// secretOwner is the owner in the record of Credentials.Secret. No user has a name with a zero byte, since neither SCRAM nor
// PLAIN can carry it.
func secretOwner() CredentialOwner { return CredentialOwner{"\x00secret", ScramSHA256} }

func (c *Credentials) equal(o *Credentials) bool {
	return c.Secret == o.Secret && maps.EqualFunc(c.ByOwner, o.ByOwner, (*ScramCredential).equal)
}

// sorted lists the credentials by users and mechanisms.
func (c *Credentials) sorted() []*ScramCredential {
	return slices.SortedFunc(maps.Values(c.ByOwner), func(a, b *ScramCredential) int {
		return cmp.Or(strings.Compare(a.User, b.User), cmp.Compare(a.Mechanism, b.Mechanism))
	})
}
