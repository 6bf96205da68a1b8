package controller

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// Limits of the credentials that a cluster keeps.
const (
	maxCredentials = 100_000
	maxSalt        = 1 << 10 // bytes

	lastAdministratorText = "No user of super.users could log in any more, so that nobody could administer the cluster and no node would start: make another one of them first, or name another user in super.users on all nodes."
)

// NewCredential gives a user a SCRAM credential, which is made of a salted password.
type NewCredential struct {
	Owner        meta.CredentialOwner
	Salt, Salted []byte
	Iterations   int32
}

// CredentialChange is the outcome for one user.
type CredentialChange struct {
	User string
	Err  *Error // nil: all that was asked for the user was done
}

// AlterCredentials removes credentials and sets others. Of a user at most one can be altered at a time, as in Kafka, but a removal may name all by
// auth.EveryMechanism, so that all go or none. The outcomes have each user once, in the order of the request.
//
// With the last credential of a user the delegation tokens go by which the user could still log in, and before it if they are many: whoever
// is given the name next must not have them.
func (c *Controller) AlterCredentials(ctx context.Context, gone []meta.CredentialOwner, set []NewCredential) (outcomes []CredentialChange, err error) {
	_, err = c.runParts(ctx, ofClients, func(r *Rules) (d Part, _ *Error) {
		if d.Records, outcomes = alterCredentials(r.Image, gone, set); len(gone) == 0 {
			return d, nil
		}
		if losesAdministrators(c.cfg.CanAdminister, r.Image, d.Records) {
			d.Records = nil
			for i := range outcomes {
				if outcomes[i].Err == nil {
					outcomes[i].Err = refuse(PolicyViolation, lastAdministratorText)
				}
			}
			return d, nil
		}
		tokens := tokensOfLeaving(r.Image, gone, outcomes)
		if d.More = len(tokens) > maxEndedRemoved; d.More {
			d.Records, tokens = nil, tokens[:maxEndedRemoved]
		}
		for _, id := range tokens {
			d.Records = meta.Append(d.Records, meta.DelegationTokenRemoved{ID: id})
		}
		return d, nil
	})
	return outcomes, err
}

// losesAdministrators tells whether, by an answer of Config.CanAdminister, nobody could administer the cluster after a change, and no node would start any more, and somebody can now.
func losesAdministrators(can func(m *meta.Image) bool, m *meta.Image, records []byte) bool {
	if can == nil || len(records) == 0 || !can(m) {
		return false
	}
	after, _, err := meta.Apply(m, records)
	return err == nil && !can(after)
}

// tokensOfLeaving are the delegation tokens of users who lose their last credential, in order: those that they own, and those that they have asked
// for, whose secrets they know.
func tokensOfLeaving(m *meta.Image, gone []meta.CredentialOwner, outcomes []CredentialChange) (ids []meta.UUID) {
	refused := map[string]bool{}
	for _, o := range outcomes {
		refused[o.User] = o.Err != nil
	}
	leaving := map[string]bool{}
	for _, owner := range gone {
		if !refused[owner.User] && countCredentials(m, owner.User) == len(namedBy(m, owner)) {
			leaving[auth.User(owner.User).String()] = true
		}
	}
	if len(leaving) == 0 {
		return nil
	}
	for t := range m.DelegationTokens().All() {
		if leaving[t.Owner] || leaving[t.Requester] {
			ids = append(ids, t.ID)
		}
	}
	slices.SortFunc(ids, func(a, b meta.UUID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

func countCredentials(m *meta.Image, user string) (n int) {
	for _, mechanism := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		if m.Credentials().ByOwner[meta.CredentialOwner{User: user, Mechanism: mechanism}] != nil {
			n++
		}
	}
	return n
}

// credentialsDecision decides changes of credentials.
type credentialsDecision struct {
	image    *meta.Image
	left     int // how many more credentials there may be
	outcomes []CredentialChange
	records  [][]byte       // by outcome; nil: nothing changes
	places   map[string]int // of users in outcomes
}

// alterCredentials decides which credentials change.
func alterCredentials(m *meta.Image, gone []meta.CredentialOwner, set []NewCredential) (records []byte, outcomes []CredentialChange) {
	d := credentialsDecision{image: m, left: maxCredentials - len(m.Credentials().ByOwner), places: map[string]int{}}
	for _, owner := range gone {
		if d.isFirst(owner.User) {
			named := namedBy(m, owner)
			d.decide(d.checkGone(owner, len(named)), named...)
		}
	}
	for i := range set {
		n := &set[i]
		if !d.isFirst(n.Owner.User) {
			continue
		}
		if err := d.checkNew(n); err != nil {
			d.decide(err)
		} else {
			d.decide(nil, meta.CredentialSet{ScramCredential: auth.CredentialOf(n.Owner, n.Salt, n.Salted, n.Iterations)})
		}
	}
	for _, rec := range d.records {
		records = append(records, rec...)
	}
	if len(records) > 0 && len(set) > 0 {
		records = append(appendSecret(nil, m), records...)
	}
	return records, d.outcomes
}

// appendSecret appends the record of the secret that credentials need, if there is none yet.
func appendSecret(b []byte, m *meta.Image) []byte {
	if m.Credentials().Secret != ([32]byte{}) {
		return b
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return meta.Append(b, meta.SecretSet(secret))
}

// MakeFirstUser sets the credentials of a user, if the cluster has never had any.
func MakeFirstUser(ctx context.Context, c *Controller, credentials []meta.ScramCredential) (made bool, err error) {
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) (b []byte) {
		if made = m.Credentials().Secret == ([32]byte{}) && len(m.Credentials().ByOwner) == 0 && m.Level() >= meta.LevelSecurity; !made {
			return nil
		}
		b = appendSecret(nil, m)
		for _, c := range credentials {
			b = meta.Append(b, meta.CredentialSet{ScramCredential: c})
		}
		return b
	})
	return made && err == nil, err
}

// isFirst adds an outcome for a user, and tells that the request has not named it before. A second change of a user whose
// first one was good refuses both.
func (d *credentialsDecision) isFirst(user string) bool {
	place, again := d.places[user]
	if !again {
		d.places[user] = len(d.outcomes)
		d.outcomes, d.records = append(d.outcomes, CredentialChange{User: user}), append(d.records, nil)
		return true
	}
	if d.outcomes[place].Err == nil {
		d.outcomes[place].Err = refuse(DuplicateResource, "A user credential cannot be altered twice in the same request")
		d.records[place] = nil
	}
	return false
}

// decide decides the change of the user that was added last.
func (d *credentialsDecision) decide(refused *Error, records ...meta.Record) {
	last := len(d.outcomes) - 1
	if d.outcomes[last].Err = refused; refused != nil {
		return
	}
	for _, rec := range records {
		d.records[last] = meta.Append(d.records[last], rec)
	}
}

// namedBy are the removals of the credentials that a deletion names and that there are.
func namedBy(m *meta.Image, owner meta.CredentialOwner) (list []meta.Record) {
	for _, mechanism := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		of := meta.CredentialOwner{User: owner.User, Mechanism: mechanism}
		if (owner.Mechanism == mechanism || owner.Mechanism == auth.EveryMechanism) && m.Credentials().ByOwner[of] != nil {
			list = append(list, meta.CredentialUnset{CredentialOwner: of})
		}
	}
	return list
}

func checkOwner(owner meta.CredentialOwner) *Error {
	switch {
	case owner.User == "":
		return refuse(UnacceptableCredential, "Username must not be empty")
	case owner.Mechanism.KeyBytes() == 0:
		return refuse(UnsupportedMechanism, "Unknown SCRAM mechanism")
	}
	return nil
}

func (*credentialsDecision) checkGone(owner meta.CredentialOwner, named int) *Error {
	if err := checkOwner(owner); err != nil && (owner.User == "" || owner.Mechanism != auth.EveryMechanism) {
		return err
	}
	if named == 0 {
		return refuse(UnknownCredential, "Attempt to delete a user credential that does not exist")
	}
	return nil
}

func (d *credentialsDecision) checkNew(n *NewCredential) *Error {
	err := checkOwner(n.Owner)
	switch {
	case err != nil:
		return err
	case n.Iterations < auth.MinIterations:
		return refuse(UnacceptableCredential, "Too few iterations")
	case n.Iterations > auth.MaxIterations:
		return refuse(UnacceptableCredential, "Too many iterations")
	case len(n.Owner.User) > auth.LongestName:
		return refuse(UnacceptableCredential, "A user name has at most %d bytes.", auth.LongestName)
	case strings.ContainsRune(n.Owner.User, 0): // no mechanism can carry it
		return refuse(UnacceptableCredential, "A user name has no zero byte.")
	case len(n.Salt) == 0 || len(n.Salt) > maxSalt || len(n.Salted) == 0 || len(n.Salted) > maxSalt:
		return refuse(UnacceptableCredential, "A salt and a salted password have from 1 to %d bytes.", maxSalt)
	case d.image.Level() < meta.LevelSecurity:
		return refuse(UnsupportedFeature, aclsNeedLevelText)
	case d.image.Credentials().ByOwner[n.Owner] != nil:
		return nil
	}
	if d.left--; d.left < 0 {
		return refuse(PolicyViolation, "A cluster has at most %d credentials: remove those that are not used.", maxCredentials)
	}
	return nil
}
