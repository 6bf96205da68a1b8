package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// SecuringStep is a step by which a plain cluster is secured while it runs. Each may be asked for twice.
type SecuringStep string

// The steps, in the order in which they are made: see meta.SecuringState.
const (
	// BeginSecuring makes the authority, whose key is sealed, and names the super user.
	BeginSecuring SecuringStep = "begin"
	// ReadyForSecuring says that a node takes connections with TLS.
	ReadyForSecuring SecuringStep = "ready"
	// MakeSuperUser sets the credentials of the super user.
	MakeSuperUser SecuringStep = "user"
	// ObserveSecuring has nodes note what ACLs would deny, and OpenSecuring ends that.
	ObserveSecuring SecuringStep = "observe"
	OpenSecuring    SecuringStep = "open"
	// FinishSecuring has nodes take connections with TLS only, and ACLs decide.
	FinishSecuring SecuringStep = "finish"
)

// SecuringChange asks for a step.
type SecuringChange struct {
	Step        SecuringStep           `json:"step"`
	Authority   *meta.Authority        `json:"authority,omitempty"` // of BeginSecuring, and its sealing key
	KeyID       [8]byte                `json:"keyId"`
	Super       string                 `json:"super,omitempty"`
	Node        int32                  `json:"node"`                  // of ReadyForSecuring
	Credentials []meta.ScramCredential `json:"credentials,omitempty"` // of MakeSuperUser
}

// Format prints the step alone, whatever the verb.
func (q SecuringChange) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "securing: %s", q.Step) }

// ChangeSecuring makes a step.
func ChangeSecuring(ctx context.Context, c *Controller, q *SecuringChange) (refused *Error, err error) {
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) (records []byte) {
		records, refused = changeSecuring(m, q)
		return records
	})
	if err != nil {
		return nil, err
	}
	return refused, nil
}

func changeSecuring(m *meta.Image, q *SecuringChange) (records []byte, refused *Error) {
	now := m.Securing()
	if q.Step == BeginSecuring {
		return beginSecuring(m, q)
	}
	if now == nil {
		return nil, refuse(InvalidRequest, "Nobody has begun to secure this cluster: run \"leat secure\" first.")
	}
	next := *now
	switch q.Step {
	case ReadyForSecuring:
		if m.Brokers[q.Node] == nil {
			return nil, refuse(BrokerNotRegistered, "Node %d is not registered.", q.Node)
		}
		next = now.WithReady(q.Node)
	case MakeSuperUser:
		if now.HasUser {
			return nil, nil
		}
		records, next.HasUser = appendSecret(nil, m), true
		for _, c := range q.Credentials {
			if c.User != now.Super {
				return nil, refuse(InvalidRequest, "The super user is %q, and not %q.", now.Super, c.User)
			}
			records = meta.Append(records, meta.CredentialSet{ScramCredential: c})
		}
	case ObserveSecuring, OpenSecuring:
		if now.State == meta.SecuringFinished {
			return nil, refuse(PolicyViolation, "This cluster is secured, and ACLs decide: what they deny is in the audit log (leat audit list).")
		}
		if next.State = meta.SecuringOpen; q.Step == ObserveSecuring {
			next.State = meta.SecuringObserved
		}
	case FinishSecuring:
		if refused := checkFinish(m); refused != nil {
			return nil, refused
		}
		if now.State != meta.SecuringFinished {
			records = revokeAllTokens(m)
		}
		next.State = meta.SecuringFinished
	default:
		return nil, refuse(InvalidRequest, "There is no step %q of securing.", q.Step)
	}
	if isSame := next.State == now.State && next.HasUser == now.HasUser && len(next.Ready) == len(now.Ready); isSame {
		return nil, nil
	}
	return meta.Append(records, meta.SecuringSet{Securing: next}), nil
}

// revokeAllTokens revokes the join tokens, and takes back the admissions of nodes that have never registered. A token of before may let a node join over a
// connection without TLS (it does not say otherwise), was handed around while nobody needed a login, and would bring whoever has read it the sealing key.
func revokeAllTokens(m *meta.Image) (records []byte) {
	for _, id := range slices.SortedFunc(maps.Keys(m.Tokens), compareTokens) {
		if !m.Tokens[id].Revoked {
			records = meta.Append(records, meta.TokenRevoked{ID: id})
		}
	}
	return append(records, Admissions{m}.forgetUnseen(func(*meta.Node) bool { return true })...)
}

// beginSecuring decides BeginSecuring.
func beginSecuring(m *meta.Image, q *SecuringChange) (records []byte, refused *Error) {
	if now := m.Securing(); now != nil {
		return nil, nil // somebody has begun: the asker finds who is the super user in the metadata
	}
	if refused = CheckSecuring(m, q.Super); refused != nil {
		return nil, refused
	}
	if q.Authority == nil {
		return nil, refuse(InvalidRequest, "There is no certificate authority to begin with.")
	}
	records = meta.Append(nil, meta.AuthoritySet{Authority: *q.Authority})
	records = meta.Append(records, meta.SecuringSet{Securing: meta.Securing{State: meta.SecuringOpen, KeyID: q.KeyID, Super: q.Super}})
	if _, _, err := meta.Apply(m, records); err != nil {
		return nil, refuse(InvalidRequest, "The cluster cannot be secured by that: %v", err)
	}
	return records, nil
}

// CheckSecuring refuses to secure a cluster, as far as an image of it says, of which nobody has begun that.
func CheckSecuring(m *meta.Image, super string) *Error {
	if m.Authority() != nil {
		return refuse(PolicyViolation, "This cluster was secured at its first start.")
	}
	if refused := checkLevel(m, meta.LevelSecuring, "Securing a cluster that runs"); refused != nil {
		return refused
	}
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		for _, l := range m.Brokers[id].Listeners {
			if l.Security != meta.Plaintext {
				return refuse(PolicyViolation, "Listener %s of node %d has TLS or asks for a login already: only a cluster that is plain is secured in this way. See docs/security.md for what else there is.", l.Name, id)
			}
		}
	}
	for owner := range m.Credentials().ByOwner {
		if owner.User == super {
			return refuse(DuplicateResource, "There is a user %q already, and nobody knows who made it while the cluster was open: name another one for the administrator with --admin NAME, or delete that user.", super)
		}
	}
	return nil
}

// checkLevel refuses what needs a level of the metadata that the cluster does not have, and says what to do.
func checkLevel(m *meta.Image, level int16, what string) *Error {
	if older := olderNodes(m, level); len(older) > 0 {
		return refuse(UnsupportedFeature, "%s needs level %d of %s, which an earlier version of Leat does not know: upgrade %s first, and then raise the level with \"leat cluster finalize\".",
			what, level, meta.LevelFeature, nodesText(older))
	}
	if m.Level() < level {
		return refuse(UnsupportedFeature, "%s needs level %d of %s, and this cluster has level %d: all nodes run a version that knows it, so raise the level with \"leat cluster finalize\".",
			what, level, meta.LevelFeature, m.Level())
	}
	return nil
}

// olderNodes are the nodes whose version does not know a level.
func olderNodes(m *meta.Image, level int16) (ids []int32) {
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		knows := slices.ContainsFunc(m.Brokers[id].Features, func(f meta.FeatureRange) bool { return f.Name == meta.LevelFeature && f.Max >= level })
		if !knows {
			ids = append(ids, id)
		}
	}
	return ids
}

// checkFinish refuses the last step while it would lock somebody out.
func checkFinish(m *meta.Image) *Error {
	now := m.Securing()
	if !now.HasUser {
		return refuse(PolicyViolation, "The administrator %q was not made yet: run \"leat secure\" again.", now.Super)
	}
	var waiting []int32
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		if !now.IsReady(m.Brokers[id]) {
			waiting = append(waiting, id)
		}
	}
	if len(waiting) > 0 {
		return refuse(PolicyViolation, "Not all nodes take connections with TLS yet: start %s, and look at \"leat secure --status\", or remove a node that is gone with \"leat cluster remove\".", nodesText(waiting))
	}
	return nil
}

// nodesText names nodes.
func nodesText(ids []int32) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = fmt.Sprintf("node %d", id)
	}
	return strings.Join(list, ", ")
}
