package meta

import (
	"bytes"
	"errors"
	"testing"
)

// TestSecuring proves that Securing is that of the last record, that a snapshot keeps it, that an image never changes, that it never goes back, and
// which nodes are reached with TLS.
func TestSecuring(t *testing.T) {
	m, _, err := Apply(Empty(), AppendLevel(nil, LevelFeature, LatestLevel))
	if err != nil {
		t.Fatal(err)
	}
	open := Securing{State: SecuringOpen, KeyID: [8]byte{1}, Super: "admin"}
	if _, _, err := Apply(m, Append(nil, SecuringSet{open})); !errors.Is(err, ErrCorrupt) {
		t.Errorf("without an authority: %v", err)
	}
	entry := Append(nil, AuthoritySet{Authority{Number: 1, Round: 1, Certificates: [][]byte{{1}}, SealedKey: []byte{2}}})
	for id := int32(1); id <= 3; id++ {
		l := Listener{Name: "PLAINTEXT", Host: "h", Port: 9092}
		if id == 3 {
			l.Security = SASLSSL
		}
		entry = Append(entry, BrokerRegistered{Broker{ID: id, Epoch: int64(id), Listeners: []Listener{l}}})
	}
	if m, _, err = Apply(m, entry); err != nil {
		t.Fatal(err)
	}
	none := m
	observed := open
	observed.State, observed.HasUser = SecuringObserved, true
	finished := observed.WithReady(2)
	finished.State = SecuringFinished
	for _, g := range []Securing{open, open.WithReady(2), observed.WithReady(2), finished} {
		before := m
		var delta *Delta
		if m, delta, err = Apply(m, Append(nil, SecuringSet{g})); err != nil {
			t.Fatal(err)
		}
		again, _, err := Apply(Empty(), Encode(m))
		if err != nil || !delta.Security || !m.Securing().equal(&g) || !again.Securing().equal(&g) || !bytes.Equal(Encode(m), Encode(again)) {
			t.Fatalf("%+v, and in a snapshot %+v: %v", m.Securing(), again.Securing(), err)
		}
		if before.Securing() == m.Securing() || !Diff(before, m).Security || Diff(m, again).Security {
			t.Errorf("the image before has it, too, or a difference is wrong: %+v", before.Securing())
		}
	}
	for id, want := range map[int32]SecurityProtocol{1: Plaintext, 2: SASLSSL, 3: SASLSSL} {
		if got := m.PeerSecurity(m.Brokers[id]); got != want || m.Securing().IsReady(m.Brokers[id]) != (want == SASLSSL) {
			t.Errorf("node %d is reached by %d", id, got)
		}
		if got := none.PeerSecurity(m.Brokers[id]); got != m.Brokers[id].Listeners[0].Security {
			t.Errorf("node %d of a plain cluster is reached by %d", id, got)
		}
	}
	changed := func(change func(g *Securing)) Securing {
		g := finished
		change(&g)
		return g
	}
	for name, g := range map[string]Securing{
		"an earlier state": changed(func(g *Securing) { g.State = SecuringObserved }), "no user": changed(func(g *Securing) { g.HasUser = false }),
		"another key": changed(func(g *Securing) { g.KeyID[0]++ }), "no super user": changed(func(g *Securing) { g.Super = "" }),
		"no state": changed(func(g *Securing) { g.State = 0 }), "an unknown state": changed(func(g *Securing) { g.State = SecuringFinished + 1 }),
		"nodes in no order": changed(func(g *Securing) { g.Ready = []int32{2, 1} }),
	} {
		if _, _, err := Apply(m, Append(nil, SecuringSet{g})); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
