package controller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// noon is when the tests of tokens begin.
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// keyOf is a public key that only the test knows.
func keyOf(n byte) credential.PublicKey { return credential.PublicKey{n, 31: 1} }

func tokenOf(n byte, expires time.Time) *credential.Verifier {
	return &credential.Verifier{ID: credential.TokenID{n}, Key: keyOf(100 + n), Acceptor: [32]byte{n}, Expires: expires}
}

// newMembers is a cluster of the latest level with nodes that were admitted and are active.
func newMembers(t *testing.T, ids ...int32) (*cluster, *Controller) {
	t.Helper()
	c := newCluster(t, nil)
	ctl := c.controller()
	if err := ctl.Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		refused, err := ctl.AdmitSelf(t.Context(), meta.NodeAdmitted{ID: id, Key: keyOf(byte(id)), Directory: meta.UUID{byte(id)}})
		if err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		join(t, ctl, id)
	}
	return c, ctl
}

// TestListenersAreBounded proves that a node is refused that registers addresses which no other could use.
func TestListenersAreBounded(t *testing.T) {
	_, ctl := newMembers(t, 1)
	for name, listeners := range map[string][]meta.Listener{
		"a long host":    {{Name: "PLAINTEXT", Host: strings.Repeat("a", 254), Port: 9092}},
		"a long name":    {{Name: strings.Repeat("A", 250), Host: "a", Port: 9092}},
		"many listeners": make([]meta.Listener, 65),
	} {
		g := Registration{Broker: meta.Broker{ID: 2, Incarnation: meta.UUID{9}, Directory: meta.UUID{2}, Listeners: listeners}}
		if _, refused, err := ctl.RegisterBroker(t.Context(), 0, &g); err != nil || refused == nil || refused.Kind != InvalidRegistration {
			t.Errorf("%s: %v, %v", name, refused, err)
		}
	}
}

// TestTokensEnd proves that a token lets nodes in until it ends or is revoked, that its holder is
// told so for a day, and that tokens are then forgotten, so that there is a bound of them.
func TestTokensEnd(t *testing.T) {
	c, ctl := newMembers(t, 1)
	makeToken := func(now time.Time, v *credential.Verifier) *Error {
		t.Helper()
		refused, err := ctl.MakeToken(t.Context(), now, v)
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}
	admit := func(now time.Time, token byte, want error) {
		t.Helper()
		before := len(c.Image().Nodes)
		a := Admission{Token: credential.TokenID{token}, Key: credential.PublicKey{token, byte(before), 7}, NodeID: credential.AnyNode}
		if _, err := ctl.AdmitNode(t.Context(), now, &a); !errors.Is(err, want) || (len(c.Image().Nodes) == before) != (want != nil) {
			t.Errorf("token %d at %v: %v, %d nodes after %d", token, now, err, len(c.Image().Nodes), before)
		}
	}
	hour := noon.Add(time.Hour)
	for i, v := range []*credential.Verifier{tokenOf(1, noon), tokenOf(1, noon.Add(-time.Hour)), tokenOf(1, noon.Add(maxTokenLife+time.Minute))} {
		if e := makeToken(noon, v); e == nil || e.Kind != InvalidRequest {
			t.Errorf("end %d: %v", i, e)
		}
	}
	for n := byte(1); n <= 2; n++ {
		if e := makeToken(noon, tokenOf(n, hour)); e != nil {
			t.Fatal(e)
		}
	}
	if e := makeToken(noon, tokenOf(1, hour)); e == nil || e.Kind != InvalidRequest {
		t.Errorf("a second token of one id: %v", e)
	}
	admit(noon, 1, nil)
	admit(hour.Add(-time.Second), 2, nil)
	for range 2 {
		if refused, err := ctl.RevokeToken(t.Context(), credential.TokenID{2}); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
	}
	if refused, err := ctl.RevokeToken(t.Context(), credential.TokenID{9}); err != nil || refused == nil || refused.Kind != UnknownToken {
		t.Errorf("revoking a token that is not there: %v, %v", refused, err)
	}
	admit(noon, 2, credential.ErrTokenRevoked)
	admit(hour, 1, credential.ErrTokenExpired)
	admit(noon, 9, credential.ErrUnknownToken)
	day := hour.Add(tokenKept)
	if e := makeToken(day, tokenOf(3, day.Add(time.Hour))); e != nil || len(c.Image().Tokens) != 3 {
		t.Errorf("a day later: %v, %d tokens", e, len(c.Image().Tokens))
	}
	if e := makeToken(day.Add(time.Second), tokenOf(4, day.Add(time.Hour))); e != nil || len(c.Image().Tokens) != 2 {
		t.Errorf("more than a day later: %v, %d tokens", e, len(c.Image().Tokens))
	}
	admit(noon, 1, credential.ErrUnknownToken)
	for i := uint32(2); i < maxTokens; i++ {
		v := tokenOf(5, day.Add(time.Hour))
		binary.BigEndian.PutUint32(v.ID[4:], i)
		if e := makeToken(day, v); e != nil {
			t.Fatal(e)
		}
	}
	if e := makeToken(day, tokenOf(6, day.Add(time.Hour))); e == nil || e.Kind != PolicyViolation {
		t.Errorf("one token too many: %v", e)
	}
}

// TestAdmissionsAreForgotten proves that a node which was admitted and never registers is forgotten a day after the
// end of its token, so that others can join a cluster that was full of such; that one which has registered stays,
// also when it was unregistered since; and that nobody is forgotten at a level that cannot tell them apart.
func TestAdmissionsAreForgotten(t *testing.T) {
	c, ctl := newMembers(t, 1)
	hour := noon.Add(time.Hour)
	if refused, err := ctl.MakeToken(t.Context(), noon, tokenOf(1, hour)); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	admit := func(n int) (int32, error) {
		a := Admission{Token: credential.TokenID{1}, NodeID: credential.AnyNode}
		binary.BigEndian.PutUint32(a.Key[:], uint32(n)<<8)
		return ctl.AdmitNode(t.Context(), noon, &a)
	}
	for n := 2; n <= 5; n++ {
		if id, err := admit(n); err != nil || id != int32(n) {
			t.Fatal(id, err)
		}
	}
	var more []byte
	for n := int32(6); n <= maxNodes; n++ {
		more = meta.Append(more, meta.NodeAdmitted{ID: n, Key: credential.PublicKey{byte(n), byte(n >> 8), 9}, Ends: c.Image().Nodes[5].Ends})
	}
	c.change(t, more)
	if _, err := admit(maxNodes + 1); !errors.Is(err, credential.ErrUnavailable) {
		t.Errorf("one node too many: %v", err)
	}
	join(t, ctl, 2)
	join(t, ctl, 3)
	if refused, err := ctl.UnregisterBroker(t.Context(), 3); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	maintain := func(now time.Time, want int) {
		t.Helper()
		if err := ctl.Maintain(t.Context(), 0, Upkeep{Clock: now}); err != nil {
			t.Fatal(err)
		}
		if n := len(c.Image().Nodes); n != want {
			t.Errorf("%d nodes at %v, want %d", n, now, want)
		}
	}
	maintain(time.Time{}, maxNodes)
	maintain(hour.Add(tokenKept), maxNodes)
	maintain(hour.Add(tokenKept+time.Millisecond), 3)
	if id, err := admit(maxNodes + 1); err != nil || id != 4 {
		t.Errorf("a node that comes then: %d, %v", id, err)
	}
	old := newCluster(t, nil)
	low := old.controller()
	old.change(t, meta.Append(nil, meta.LevelSet{Level: meta.LevelCluster}))
	if refused, err := low.MakeToken(t.Context(), noon, tokenOf(1, hour)); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if _, err := low.AdmitNode(t.Context(), noon, &Admission{Token: credential.TokenID{1}, Key: keyOf(1), NodeID: 1}); err != nil {
		t.Fatal(err)
	}
	if err := low.Maintain(t.Context(), 0, Upkeep{Clock: noon.AddDate(1, 0, 0)}); err != nil || len(old.Image().Nodes) != 1 {
		t.Errorf("at level %d: %d nodes, %v", old.Image().Level(), len(old.Image().Nodes), err)
	}
}

// TestUnseenNodesGoWithTheirToken proves that a node which was admitted and has never registered, so that nobody sees it, is a member no more when the token is revoked by which it was
// admitted, also at the second time, and when any node is removed; that nodes which have registered stay, and those of other tokens when a token is revoked.
func TestUnseenNodesGoWithTheirToken(t *testing.T) {
	c, ctl := newMembers(t, 1, 2)
	for n := byte(1); n <= 2; n++ {
		if refused, err := ctl.MakeToken(t.Context(), noon, tokenOf(n, noon.Add(time.Duration(n)*time.Hour))); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
	}
	admit := func(token, key byte) int32 {
		t.Helper()
		id, err := ctl.AdmitNode(t.Context(), noon, &Admission{Token: credential.TokenID{token}, Key: keyOf(key), Directory: meta.UUID{key}, NodeID: credential.AnyNode})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	isMember := func(id int32) bool {
		n := c.Image().Nodes[id]
		return n != nil && !n.Removed
	}
	seen, unseen, other := admit(1, 10), admit(1, 11), admit(2, 12)
	join(t, ctl, seen)
	revoke := func() {
		t.Helper()
		if refused, err := ctl.RevokeToken(t.Context(), credential.TokenID{1}); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
	}
	revoke()
	if !isMember(seen) || isMember(unseen) || !isMember(other) {
		t.Errorf("after a token was revoked: %v", c.Image().Nodes)
	}
	revoke()
	if refused, err := ctl.RemoveNode(t.Context(), 0, &Removal{ID: seen, Force: true}); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if isMember(seen) || isMember(other) || !isMember(1) || !isMember(2) {
		t.Errorf("after a node was removed: %v", c.Image().Nodes)
	}
	if _, err := ctl.AdmitNode(t.Context(), noon, &Admission{Token: credential.TokenID{1}, Key: keyOf(11), NodeID: credential.AnyNode}); !errors.Is(err, credential.ErrTokenRevoked) {
		t.Errorf("the same key again: %v", err)
	}
}

// TestNodesAreAdmittedOnce proves that a node gets the id that it wants or a new one, the same one
// when it asks again, and never one that another node has or had; and that a removed node and a
// node that comes with another key stay out.
func TestNodesAreAdmittedOnce(t *testing.T) {
	c, ctl := newMembers(t, 1, 5)
	join(t, ctl, 8) // registered without a key, as in a cluster of an earlier version
	if refused, err := ctl.MakeToken(t.Context(), noon, tokenOf(1, noon.Add(time.Hour))); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	for i, s := range []struct {
		key    byte
		wanted int32
		id     int32
		err    error
	}{
		{20, credential.AnyNode, 9, nil},
		{20, credential.AnyNode, 9, nil},
		{20, 30, 9, nil}, // the dialler compares
		{21, 7, 7, nil},
		{22, 7, 0, credential.ErrNodeIDTaken},
		{22, 1, 0, credential.ErrNodeIDTaken},
		{22, 8, 0, credential.ErrNodeIDTaken},
		{22, -2, 0, credential.ErrNodeIDTaken},
		{22, math.MaxInt32, math.MaxInt32, nil},
		{23, credential.AnyNode, 2, nil},
		{5, credential.AnyNode, 5, nil}, // its own key
	} {
		a := Admission{Token: credential.TokenID{1}, Key: keyOf(s.key), Directory: meta.UUID{s.key}, NodeID: s.wanted}
		id, err := ctl.AdmitNode(t.Context(), noon, &a)
		if id != s.id || !errors.Is(err, s.err) {
			t.Errorf("step %d: node %d, %v", i, id, err)
		}
		if n := c.Image().Nodes[s.id]; err == nil && (n == nil || n.Key != keyOf(s.key)) {
			t.Errorf("step %d: the metadata have %+v", i, n)
		}
	}
	if refused, err := ctl.RemoveNode(t.Context(), 0, &Removal{ID: 5}); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	removed := Admission{Token: credential.TokenID{1}, Key: keyOf(5), NodeID: credential.AnyNode}
	if _, err := ctl.AdmitNode(t.Context(), noon, &removed); !errors.Is(err, credential.ErrNodeRemoved) {
		t.Errorf("a removed node: %v", err)
	}
	if _, err := tryToJoin(t.Context(), ctl, 5); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("the registration of a removed node: %v", err)
	}
	for _, n := range []meta.NodeAdmitted{{ID: 1, Key: keyOf(9)}, {ID: 5, Key: keyOf(5)}} {
		if refused, err := ctl.AdmitSelf(t.Context(), n); err != nil || refused == nil || refused.Kind != InvalidRegistration {
			t.Errorf("node %d by itself with key %v: %v, %v", n.ID, n.Key, refused, err)
		}
	}
}

// TestLevelIsNeededForNodes proves that a cluster of the first level keeps no tokens and no keys,
// and has a node go on without.
func TestLevelIsNeededForNodes(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	if refused, err := ctl.MakeToken(t.Context(), noon, tokenOf(1, noon.Add(time.Hour))); err != nil || refused == nil || refused.Kind != UnsupportedFeature {
		t.Errorf("a token: %v, %v", refused, err)
	}
	if refused, err := ctl.AdmitSelf(t.Context(), meta.NodeAdmitted{ID: 1, Key: keyOf(1)}); err != nil || refused != nil || len(c.Image().Nodes) != 0 {
		t.Errorf("a node: %v, %v, %d nodes", refused, err, len(c.Image().Nodes))
	}
}

// TestRemovalsAreChecked proves that the last node is never removed, and that a node which is
// running and votes, or has the only copy of records, is removed by force only; that a removal
// revokes the tokens, takes the node's part in all partitions, and is done once; and that one
// which was cut off after any of its parts is completed.
func TestRemovalsAreChecked(t *testing.T) {
	c, ctl := newMembers(t, 1, 2, 3)
	remove := func(a Removal) *Error {
		t.Helper()
		refused, err := ctl.RemoveNode(t.Context(), 0, &a)
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}
	assigned := func(name string, replicas ...int32) NewTopic {
		return NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1, Assignments: []Assignment{{Replicas: replicas}}}
	}
	made, err := ctl.CreateTopics(t.Context(), []NewTopic{assigned("shared", 2, 1), assigned("only", 2), assigned("other", 3, 1)}, false)
	if err != nil || made[0].Err != nil || made[1].Err != nil || made[2].Err != nil {
		t.Fatal(made, err)
	}
	if refused, err := ctl.MakeToken(t.Context(), noon, tokenOf(1, noon.Add(time.Hour))); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	voters := []int32{1, 2, 3}
	if e := remove(Removal{ID: 9}); e == nil || e.Kind != BrokerNotRegistered {
		t.Errorf("a node that is not there: %v", e)
	}
	if e := remove(Removal{ID: 2, Voters: voters}); e == nil || e.Kind != PolicyViolation || !strings.Contains(e.Message, "votes") {
		t.Errorf("a voter that is running: %v", e)
	}
	if e := remove(Removal{ID: 2}); e == nil || e.Kind != PolicyViolation || !strings.Contains(e.Message, "partition only-0, and of 1 in all") {
		t.Errorf("a node with the only copy: %v", e)
	}
	ctl.ProcessEnded(0, 3)
	if e := remove(Removal{ID: 3, Voters: voters}); e != nil {
		t.Errorf("a voter that has ended: %v", e)
	}
	if e := remove(Removal{ID: 2, Voters: voters, Force: true}); e != nil {
		t.Errorf("by force: %v", e)
	}
	m := c.Image()
	if n := m.Nodes[2]; !n.Removed || n.Key != keyOf(2) || m.Brokers[2] != nil || !m.Tokens[credential.TokenID{1}].Revoked {
		t.Errorf("after the removal: %+v, broker %+v, token %+v", n, m.Brokers[2], m.Tokens[credential.TokenID{1}])
	}
	for name, leader := range map[string]int32{"shared": 1, "only": -1, "other": 1} {
		if p := m.Topic(name).Partitions[0]; p.Leader != leader {
			t.Errorf("%s is led by %d", name, p.Leader)
		}
	}
	before := c.log
	if e := remove(Removal{ID: 2}); e != nil || c.log != before {
		t.Errorf("once more: %v", e)
	}
	if e := remove(Removal{ID: 1, Force: true}); e == nil || e.Kind != PolicyViolation {
		t.Errorf("the last node: %v", e)
	}
}

// TestRemovalGoesOn proves that another controller completes a removal after any of its parts, also
// where the node could not be removed any more without force.
func TestRemovalGoesOn(t *testing.T) {
	c, ctl := newMembers(t, 1, 2)
	var topics []NewTopic
	for i := range 20 {
		topics = append(topics, NewTopic{Name: fmt.Sprint("t", i), Partitions: -1, ReplicationFactor: -1, Assignments: []Assignment{{Replicas: []int32{2, 1}}}})
	}
	if made, err := ctl.CreateTopics(t.Context(), topics, false); err != nil || made[19].Err != nil {
		t.Fatal(made, err)
	}
	m, parts := c.Image(), 0
	for more := true; more; parts++ {
		r := Rules{Image: m, Static: c.static, Limit: 100}
		a := Removal{ID: 2, Voters: []int32{1, 2, 3}}
		d, refused := r.RemoveNode(&a, parts > 0)
		if refused != nil {
			t.Fatal(refused)
		}
		next, _, err := meta.Apply(m, d.Records)
		if err != nil {
			t.Fatal(err)
		}
		if !next.Nodes[2].Removed {
			t.Error("the node still has its key after the first part")
		}
		m, more = next, d.More
	}
	if parts < 3 || m.Brokers[2] != nil {
		t.Errorf("%d parts, and the broker is %+v", parts, m.Brokers[2])
	}
}

// TestOnlyVoterStays proves that not even force removes the only node that keeps the metadata: nothing could be
// decided any more, and no node would start again.
func TestOnlyVoterStays(t *testing.T) {
	_, ctl := newMembers(t, 1, 2)
	refused, err := ctl.RemoveNode(t.Context(), 0, &Removal{ID: 1, Voters: []int32{1}, Force: true})
	if err != nil || refused == nil || refused.Kind != PolicyViolation {
		t.Errorf("the only voter was removed: %v, %v", refused, err)
	}
}
