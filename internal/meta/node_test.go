package meta

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/credential"
)

// applyRecords applies records one after another.
func applyRecords(t *testing.T, m *Image, records ...Record) *Image {
	t.Helper()
	for _, r := range records {
		next, d, err := Apply(m, Append(nil, r))
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if want := Diff(m, next).Nodes; d.Nodes != want {
			t.Errorf("%+v: the delta says %v of nodes and tokens, want %v", r, d.Nodes, want)
		}
		m = next
	}
	return m
}

// TestNodesAndTokensAreKept proves that nodes and tokens are in the image and survive a snapshot;
// that the removal of a node keeps its key and revokes all tokens that there are, and none that is
// made later; and that earlier images stay as they were.
func TestNodesAndTokensAreKept(t *testing.T) {
	one, two := credential.PublicKey{1}, credential.PublicKey{2}
	token := func(id byte) TokenMade {
		return TokenMade{ID: credential.TokenID{id}, Key: credential.PublicKey{id, 1}, Acceptor: [32]byte{id, 2}, Expires: 1_800_000_000_000}
	}
	before := applyRecords(t, Empty(), LevelSet{Level: LevelCluster},
		NodeAdmitted{ID: 1, Key: one, Directory: UUID{1}}, NodeAdmitted{ID: 2, Key: two, Directory: UUID{2}},
		token(1), token(2), token(3), TokenRevoked{ID: credential.TokenID{2}}, TokenForgotten{ID: credential.TokenID{3}})
	after := applyRecords(t, before, NodeRemoved{ID: 2}, token(4))
	again, _, err := Apply(Empty(), Encode(after))
	if err != nil || !bytes.Equal(Encode(again), Encode(after)) {
		t.Fatalf("the snapshot is another image: %v", err)
	}
	type seen struct{ Removed, Revoked []bool }
	look := func(m *Image) (s seen) {
		for id, key := range map[int32]credential.PublicKey{1: one, 2: two} {
			if n := m.Nodes[id]; n == nil || n.ID != id || n.Key != key || n.Directory != (UUID{byte(id)}) {
				t.Errorf("node %d is %+v", id, n)
			}
		}
		s.Removed = []bool{m.Nodes[1].Removed, m.Nodes[2].Removed}
		for id := range byte(5) {
			if tok := m.Tokens[credential.TokenID{id}]; tok != nil {
				s.Revoked = append(s.Revoked, tok.Revoked)
			}
		}
		return s
	}
	if diff := cmp.Diff(seen{[]bool{false, false}, []bool{false, true}}, look(before)); diff != "" {
		t.Errorf("before the removal: (-want +got)\n%s", diff)
	}
	for _, m := range []*Image{after, again} {
		if diff := cmp.Diff(seen{[]bool{false, true}, []bool{true, true, false}}, look(m)); diff != "" {
			t.Errorf("after the removal: (-want +got)\n%s", diff)
		}
	}
	want := credential.Verifier{ID: credential.TokenID{4}, Key: credential.PublicKey{4, 1}, Acceptor: [32]byte{4, 2}, Expires: time.UnixMilli(1_800_000_000_000)}
	if diff := cmp.Diff(want, again.Tokens[credential.TokenID{4}].Verifier()); diff != "" {
		t.Errorf("the token: (-want +got)\n%s", diff)
	}
}

// TestNodesAreRefused proves that no id and no key is given to a second node, not even when the
// first one was removed, and that records about nodes and tokens must fit the image.
func TestNodesAreRefused(t *testing.T) {
	m := applyRecords(t, Empty(), LevelSet{Level: LevelCluster},
		NodeAdmitted{ID: 1, Key: credential.PublicKey{1}}, NodeAdmitted{ID: 2, Key: credential.PublicKey{2}}, NodeRemoved{ID: 2},
		TokenMade{ID: credential.TokenID{1}, Expires: 1})
	for _, r := range []Record{
		NodeAdmitted{ID: 1, Key: credential.PublicKey{3}},
		NodeAdmitted{ID: 1, Key: credential.PublicKey{1}},
		NodeAdmitted{ID: 2, Key: credential.PublicKey{3}},
		NodeAdmitted{ID: 3, Key: credential.PublicKey{1}},
		NodeAdmitted{ID: 3, Key: credential.PublicKey{2}},
		NodeAdmitted{ID: -1, Key: credential.PublicKey{3}},
		NodeAdmitted{ID: 3},
		NodeRemoved{ID: 2},
		NodeRemoved{ID: 3},
		TokenMade{ID: credential.TokenID{1}, Expires: 2},
		TokenMade{ID: credential.TokenID{2}, Expires: -1},
		TokenRevoked{ID: credential.TokenID{2}},
		TokenForgotten{ID: credential.TokenID{2}},
	} {
		if got, d, err := Apply(m, Append(nil, r)); !errors.Is(err, ErrCorrupt) || got != m || d != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestAdmissionsEnd proves that an admission which ends survives a snapshot, and can be forgotten, with its id;
// that it does not end any more once its node is registered, also when that is unregistered later; and that
// neither is written below its level, where an older version could not read it.
func TestAdmissionsEnd(t *testing.T) {
	admitted := func(id int32) NodeAdmitted {
		return NodeAdmitted{ID: id, Key: credential.PublicKey{byte(id)}, Directory: UUID{byte(id)}, Ends: 1_800_000_000_000}
	}
	low := applyRecords(t, Empty(), LevelSet{Level: LevelCluster}, NodeAdmitted{ID: 9, Key: credential.PublicKey{9}})
	for _, r := range []Record{admitted(1), NodeForgotten{ID: 9}} {
		if _, _, err := Apply(low, Append(nil, r)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%T at level %d: %v", r, low.Level(), err)
		}
	}
	m := applyRecords(t, low, LevelSet{Level: LevelAdmission}, admitted(1), admitted(2), admitted(3), BrokerRegistered{Broker{ID: 2, Epoch: 1}})
	again, _, err := Apply(Empty(), Encode(m))
	if err != nil || !bytes.Equal(Encode(again), Encode(m)) {
		t.Fatalf("the snapshot is another image: %v", err)
	}
	for id, ends := range map[int32]int64{1: admitted(1).Ends, 2: 0, 3: admitted(3).Ends, 9: 0} {
		if again.Nodes[id].Ends != ends || m.Nodes[id].Ends != ends {
			t.Errorf("node %d: %+v, and after a snapshot %+v", id, m.Nodes[id], again.Nodes[id])
		}
	}
	m = applyRecords(t, m, BrokerUnregistered{ID: 2}, NodeRemoved{ID: 3})
	for id := range int32(10) {
		next, d, err := Apply(m, Append(nil, NodeForgotten{ID: id}))
		if forgets := err == nil && next.Nodes[id] == nil && d.Nodes; forgets != (id == 1) {
			t.Errorf("node %d is forgotten: %v, %v", id, forgets, err)
		}
	}
	m = applyRecords(t, m, NodeForgotten{ID: 1}, admitted(1))
	if m.Nodes[1] == nil || m.Nodes[1].Ends == 0 {
		t.Errorf("the id of a forgotten node: %+v", m.Nodes[1])
	}
}
