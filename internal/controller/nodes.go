package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// Limits of nodes and tokens.
const (
	maxNodes  = 10_000 // that were ever admitted
	maxTokens = 1_000  // that are kept
	// maxTokenLife is how long a token can be used at most.
	maxTokenLife = 30 * 24 * time.Hour
	// tokenKept is how long a token is kept after its end, so that its holder is told that it has
	// ended; and how long after that a node is expected that it has let in.
	tokenKept = 24 * time.Hour
)

// Admissions decide, on one image, who may become a node of the cluster. Like Rules they are pure.
type Admissions struct{ Image *meta.Image }

// MakeToken keeps what nodes need to know a new join token by.
func (c *Controller) MakeToken(ctx context.Context, now time.Time, token *credential.Verifier) (refused *Error, err error) {
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) (records []byte) {
		records, refused = Admissions{m}.MakeToken(now, token)
		return records
	})
	if err != nil {
		return nil, err
	}
	return refused, nil
}

// MakeToken decides a new token, and forgets those that have ended long ago.
func (r Admissions) MakeToken(now time.Time, token *credential.Verifier) (records []byte, err *Error) {
	life := token.Expires.Sub(now)
	switch {
	case r.Image.Level() < meta.LevelCluster:
		return nil, refuse(UnsupportedFeature, "A join token needs level %d of %s, and this cluster has level %d: raise the level first, when all nodes run a version that knows it.",
			meta.LevelCluster, meta.LevelFeature, r.Image.Level())
	case r.Image.Tokens[token.ID] != nil:
		return nil, refuse(InvalidRequest, "There is a join token %v already.", token.ID)
	case life <= 0 || life > maxTokenLife:
		return nil, refuse(InvalidRequest, "A join token can be used for up to %v, and this one for %v.", maxTokenLife, life)
	}
	kept := len(r.Image.Tokens)
	for _, id := range slices.SortedFunc(maps.Keys(r.Image.Tokens), compareTokens) {
		if now.Sub(time.UnixMilli(r.Image.Tokens[id].Expires)) > tokenKept {
			records = meta.Append(records, meta.TokenForgotten{ID: id})
			kept--
		}
	}
	if kept >= maxTokens {
		return nil, refuse(PolicyViolation, "There are %d join tokens, as many as a cluster keeps: use one of them, or wait until a day after the end of one.", kept)
	}
	made := meta.TokenMade{ID: token.ID, Key: token.Key, Acceptor: token.Acceptor, Expires: token.Expires.UnixMilli()}
	return meta.Append(records, made), nil
}

func compareTokens(a, b credential.TokenID) int { return slices.Compare(a[:], b[:]) }

// RevokeToken has a token let no node in any more, and takes back the admissions of nodes by it that have never registered: somebody who has stolen the
// token may have had himself admitted, and be seen by nobody.
func (c *Controller) RevokeToken(ctx context.Context, id credential.TokenID) (refused *Error, err error) {
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) (records []byte) {
		t := m.Tokens[id]
		if refused = nil; t == nil {
			refused = refuse(UnknownToken, "There is no join token %v.", id)
		}
		if t == nil {
			return nil
		}
		if !t.Revoked {
			records = meta.Append(nil, meta.TokenRevoked{ID: id})
		}
		return append(records, Admissions{m}.forgetUnseen(func(n *meta.Node) bool { return n.Ends == max(1, t.Expires) })...)
	})
	if err != nil {
		return nil, err
	}
	return refused, nil
}

// ListedToken is what may be told of a join token.
type ListedToken struct {
	ID      credential.TokenID `json:"id"`
	Expires int64              `json:"expires"` // ms
	Revoked bool               `json:"revoked"`
}

// ListTokens lists the join tokens that are kept, those that end last first.
func (r Admissions) ListTokens() []ListedToken {
	tokens := make([]ListedToken, 0, len(r.Image.Tokens))
	for _, t := range r.Image.Tokens {
		tokens = append(tokens, ListedToken{t.ID, t.Expires, t.Revoked})
	}
	slices.SortFunc(tokens, func(a, b ListedToken) int {
		return cmp.Or(cmp.Compare(b.Expires, a.Expires), compareTokens(a.ID, b.ID))
	})
	return tokens
}

// Admission asks that the holder of a key become a node of the cluster.
type Admission struct {
	Token     credential.TokenID
	Key       credential.PublicKey
	Directory meta.UUID
	NodeID    int32 // that it wants, or credential.AnyNode
}

// AdmitNode lets a node in that has proven to have a token and a key, and returns its id. A
// refusal is one of the errors of package credential, by which the node is told. It is decided
// anew here, since the acceptor's metadata may have been behind.
func (c *Controller) AdmitNode(ctx context.Context, now time.Time, a *Admission) (id int32, err error) {
	var refused error
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) (records []byte) {
		records, id, refused = Admissions{m}.AdmitNode(now, a)
		return records
	})
	if err == nil {
		err = refused
	}
	return id, err
}

// AdmitNode decides an admission. A member's key gets the id that it has, since the answer to its
// first admission may have been lost.
func (r Admissions) AdmitNode(now time.Time, a *Admission) (records []byte, id int32, err error) {
	if n := r.findKey(a.Key); n != nil {
		if n.Removed {
			return nil, 0, fmt.Errorf("node %d: %w", n.ID, credential.ErrNodeRemoved)
		}
		return nil, n.ID, nil
	}
	t := r.Image.Tokens[a.Token]
	switch {
	case t == nil:
		return nil, 0, fmt.Errorf("token %v: %w", a.Token, credential.ErrUnknownToken)
	case t.Revoked:
		return nil, 0, fmt.Errorf("token %v: %w", a.Token, credential.ErrTokenRevoked)
	case !now.Before(time.UnixMilli(t.Expires)):
		return nil, 0, fmt.Errorf("token %v: %w", a.Token, credential.ErrTokenExpired)
	case len(r.Image.Nodes) >= maxNodes:
		return nil, 0, fmt.Errorf("%w: it has had %d nodes, as many as a cluster can have", credential.ErrUnavailable, len(r.Image.Nodes))
	}
	id = a.NodeID
	if id == credential.AnyNode {
		id = r.nextNodeID()
	}
	if id < 0 || r.isNodeIDTaken(id) {
		return nil, 0, fmt.Errorf("node id %d: %w", id, credential.ErrNodeIDTaken)
	}
	made := meta.NodeAdmitted{ID: id, Key: a.Key, Directory: a.Directory}
	if r.Image.Level() >= meta.LevelAdmission {
		made.Ends = max(1, t.Expires)
	}
	return meta.Append(nil, made), id, nil
}

// ForgetNodes takes back the admissions of nodes that have not registered until tokenKept after the end of their
// token: they would be members whom nobody sees. Who joins after all needs another token.
func (r Admissions) ForgetNodes(now time.Time) (records []byte) {
	return r.forgetUnseen(func(n *meta.Node) bool { return now.Sub(time.UnixMilli(n.Ends)) > tokenKept })
}

// forgetUnseen takes back the admissions of some of the nodes that have never registered.
func (r Admissions) forgetUnseen(isOne func(n *meta.Node) bool) (records []byte) {
	for _, id := range slices.Sorted(maps.Keys(r.Image.Nodes)) {
		if n := r.Image.Nodes[id]; !n.Removed && n.Ends != 0 && isOne(n) {
			records = meta.Append(records, meta.NodeForgotten{ID: id})
		}
	}
	return records
}

// findKey returns the node that has a key, or had it until it was removed; or nil.
func (r Admissions) findKey(key credential.PublicKey) *meta.Node {
	for _, n := range r.Image.Nodes {
		if n.Key == key {
			return n
		}
	}
	return nil
}

// isNodeIDTaken tells whether a node has an id, or had it: ids are not given again.
func (r Admissions) isNodeIDTaken(id int32) bool {
	return r.Image.Nodes[id] != nil || r.Image.Brokers[id] != nil
}

// nextNodeID is an id that no node has or had: the one after the largest, if there is one.
func (r Admissions) nextNodeID() int32 {
	last := int32(0)
	for id := range r.Image.Nodes {
		last = max(last, id)
	}
	for id := range r.Image.Brokers {
		last = max(last, id)
	}
	if last < math.MaxInt32 {
		return last + 1
	}
	free := int32(1)
	for r.isNodeIDTaken(free) {
		free++
	}
	return free
}

// AdmitSelf lets in the node that runs this controller, which needs no token: it began the cluster,
// or was in it before nodes had keys. Below meta.LevelCluster it does nothing.
func (c *Controller) AdmitSelf(ctx context.Context, n meta.NodeAdmitted) (refused *Error, err error) {
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) []byte {
		refused = nil
		switch known := m.Nodes[n.ID]; {
		case known == nil && m.Level() >= meta.LevelCluster:
			return meta.Append(nil, n)
		case known != nil && known.Removed:
			refused = refuse(InvalidRegistration, "Node %d was removed from the cluster, and its id is not given again.", n.ID)
		case known != nil && known.Key != n.Key:
			refused = refuse(InvalidRegistration, "The cluster knows node %d by the key %v, and not by %v.", n.ID, known.Key, n.Key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return refused, nil
}

// Removal asks that a node be removed for good.
type Removal struct {
	ID     int32
	Voters []int32 // of the metadata quorum
	// Force removes the node although it is running and votes, or has records that no other node
	// has.
	Force bool
}

// RemoveNode removes a node for good: its key is worth nothing from then on, its id is not given
// again, and all join tokens are revoked, since the node knows what members know of them. The admissions of nodes that have never
// registered are taken back, since whoever holds the directory of a member can have had others admitted. Its
// replicas stay assigned to it, as by UnregisterBroker.
func (c *Controller) RemoveNode(ctx context.Context, now time.Duration, a *Removal) (refused *Error, err error) {
	alive := false
	err = c.update(now, func(l *Liveness) {
		if b := c.cfg.Image().Brokers[a.ID]; b != nil {
			alive = l.IsAlive(now, a.ID, b.Epoch, false)
		}
	})
	if err != nil {
		return nil, err
	}
	return c.runParts(ctx, ofCluster, func(r *Rules) (Part, *Error) { return r.RemoveNode(a, alive) })
}

// RemoveNode decides a removal, and goes on with one that has begun. alive tells that the node is
// heard from. The node loses its key in the first part.
func (r *Rules) RemoveNode(a *Removal, alive bool) (d Part, err *Error) {
	n, b := r.Image.Nodes[a.ID], r.Image.Brokers[a.ID]
	if n != nil && n.Removed && b == nil {
		return Part{}, nil
	}
	if n == nil || !n.Removed {
		if err := r.checkRemoval(a, alive); err != nil {
			return Part{}, err
		}
	}
	d = r.newPart()
	if n != nil && !n.Removed {
		others := Admissions{r.Image}.forgetUnseen(func(n *meta.Node) bool { return n.ID != a.ID })
		d.add(append(meta.Append(nil, meta.NodeRemoved{ID: a.ID}), others...))
	}
	if b != nil {
		r.unregister(&d, a.ID)
	}
	return d, nil
}

func (r *Rules) checkRemoval(a *Removal, alive bool) *Error {
	if !(Admissions{r.Image}).isNodeIDTaken(a.ID) {
		return refuse(BrokerNotRegistered, "There is no node %d.", a.ID)
	}
	others := 0
	for id := range r.Image.Brokers {
		if id != a.ID {
			others++
		}
	}
	if others == 0 {
		return refuse(PolicyViolation, "Node %d is the only one of the cluster.", a.ID)
	}
	if len(a.Voters) == 1 && a.Voters[0] == a.ID { // no force helps then: nothing could be decided any more, and no node would start again
		return refuse(PolicyViolation, "Node %d alone votes on the metadata of the cluster, and nothing could be decided without it: add nodes until there are three, and others vote, too.", a.ID)
	}
	if a.Force {
		return nil
	}
	if alive && slices.Contains(a.Voters, a.ID) {
		return refuse(PolicyViolation, "Node %d is running and votes on the metadata: stop it first, or ask for its removal by force.", a.ID)
	}
	if t, i, count := r.findOnlyCopies(a.ID); count > 0 {
		return refuse(PolicyViolation, "Node %d alone has all records of partition %s-%d, and of %d in all: move its replicas first, "+
			"or ask for its removal by force, which loses records.", a.ID, t, i, count)
	}
	return nil
}

// findOnlyCopies counts the partitions of which a node alone is known to have all records, and
// returns one of them.
func (r *Rules) findOnlyCopies(id int32) (topic string, number int32, count int) {
	isOnly := func(p *meta.Partition) bool {
		holders := slices.Concat(p.ISR, p.Eligible)
		if len(holders) == 0 {
			holders = p.LastEligible
		}
		if len(p.Replicas) == 1 {
			holders = p.Replicas
		}
		return slices.Contains(holders, id) && len(without(holders, id)) == 0
	}
	for _, t := range r.concerned(isOnly) {
		for i := range t.Partitions {
			if !isOnly(&t.Partitions[i]) {
				continue
			}
			if count++; count == 1 {
				topic, number = t.Name, int32(i)
			}
		}
	}
	return topic, number, count
}
