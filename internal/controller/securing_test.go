package controller

import (
	"strings"
	"testing"

	cred "github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// securedRig is a plain cluster of two nodes, to which the steps of securing are applied.
type securedRig struct {
	*testing.T

	m *meta.Image
}

func (s *securedRig) apply(records []byte) {
	s.Helper()
	var err error
	if s.m, _, err = meta.Apply(s.m, records); err != nil {
		s.Fatal(err)
	}
}

func brokerOfLevel(id int32, level int16, security meta.SecurityProtocol) meta.BrokerRegistered {
	return meta.BrokerRegistered{Broker: meta.Broker{
		ID: id, Epoch: int64(id), Features: []meta.FeatureRange{{Name: meta.LevelFeature, Max: level}},
		Listeners: []meta.Listener{{Name: "PLAINTEXT", Host: "h", Port: 9092, Security: security}},
	}}
}

func newSecuredRig(t *testing.T, level int16) *securedRig {
	t.Helper()
	s := &securedRig{t, meta.Empty()}
	s.apply(meta.AppendLevel(nil, meta.LevelFeature, level))
	s.apply(meta.Append(meta.Append(nil, brokerOfLevel(1, meta.LevelSecuring, 0)), brokerOfLevel(2, meta.LevelSecuring, 0)))
	return s
}

func beginning() *SecuringChange {
	return &SecuringChange{
		Step: BeginSecuring, KeyID: [8]byte{1}, Super: "admin",
		Authority: &meta.Authority{Number: 1, Round: 1, Certificates: [][]byte{{1}}, SealedKey: []byte{2}},
	}
}

// TestSecuringBeginsOnce proves that a plain cluster begins to be secured once, and that one is refused in which that could not be carried through, with a
// sentence that says what to do.
func TestSecuringBeginsOnce(t *testing.T) {
	owned := meta.ScramCredential{CredentialOwner: meta.CredentialOwner{User: "admin", Mechanism: meta.ScramSHA256}, Salt: []byte{1}, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32), Iterations: 4096}
	for want, change := range map[string]func(s *securedRig){
		"":                             func(*securedRig) {},
		"upgrade node 2":               func(s *securedRig) { s.apply(meta.Append(nil, brokerOfLevel(2, meta.LevelIdentity, 0))) },
		"leat cluster finalize":        func(s *securedRig) { *s = *newSecuredRig(s.T, meta.LevelIdentity) },
		"Listener PLAINTEXT of node 2": func(s *securedRig) { s.apply(meta.Append(nil, brokerOfLevel(2, meta.LevelSecuring, meta.SSL))) },
		"--admin NAME": func(s *securedRig) {
			s.apply(meta.Append(meta.Append(nil, meta.SecretSet([32]byte{1})), meta.CredentialSet{ScramCredential: owned}))
		},
		"secured at its first start": func(s *securedRig) {
			s.apply(meta.Append(nil, meta.AuthoritySet{Authority: *beginning().Authority}))
		},
	} {
		s := newSecuredRig(t, meta.LevelSecuring)
		change(s)
		records, refused := changeSecuring(s.m, beginning())
		if (refused == nil) != (want == "") || refused != nil && !strings.Contains(refused.Message, want) || (records == nil) != (want != "") {
			t.Errorf("%q: %v", want, refused)
			continue
		}
		if want != "" {
			continue
		}
		s.apply(records)
		other := beginning()
		other.KeyID, other.Super = [8]byte{9}, "other"
		if records, refused := changeSecuring(s.m, other); records != nil || refused != nil || s.m.Securing().Super != "admin" {
			t.Errorf("again: %v, %+v", refused, s.m.Securing())
		}
	}
}

// TestSecuringSteps proves that each step is done once, however often it is asked for, and that the last one waits for all nodes and for the user.
func TestSecuringSteps(t *testing.T) {
	s := newSecuredRig(t, meta.LevelSecuring)
	credential := func(user string) []meta.ScramCredential {
		return []meta.ScramCredential{{CredentialOwner: meta.CredentialOwner{User: user, Mechanism: meta.ScramSHA256}, Salt: []byte{1}, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32), Iterations: 4096}}
	}
	if _, refused := changeSecuring(s.m, &SecuringChange{Step: FinishSecuring}); refused == nil || !strings.Contains(refused.Message, "leat secure") {
		t.Errorf("before the beginning: %v", refused)
	}
	before, after := cred.TokenID{1}, cred.TokenID{2}
	makeToken := func(id cred.TokenID) {
		s.apply(meta.Append(nil, meta.TokenMade{ID: id, Expires: 1 << 50}))
	}
	makeToken(before)
	for i, c := range []struct {
		q       SecuringChange
		refused string // ""; it is done
	}{
		{*beginning(), ""},
		{SecuringChange{Step: FinishSecuring}, "leat secure"},
		{SecuringChange{Step: MakeSuperUser, Credentials: credential("mallory")}, "mallory"},
		{SecuringChange{Step: MakeSuperUser, Credentials: credential("admin")}, ""},
		{SecuringChange{Step: FinishSecuring}, "node 1, node 2"},
		{SecuringChange{Step: ReadyForSecuring, Node: 2}, ""},
		{SecuringChange{Step: ReadyForSecuring, Node: 7}, "not registered"},
		{SecuringChange{Step: FinishSecuring}, "start node 1,"},
		{SecuringChange{Step: ObserveSecuring}, ""},
		{SecuringChange{Step: OpenSecuring}, ""},
		{SecuringChange{Step: ReadyForSecuring, Node: 1}, ""},
		{SecuringChange{Step: FinishSecuring}, ""},
		{SecuringChange{Step: ObserveSecuring}, "ACLs decide"},
		{SecuringChange{Step: "dance"}, "no step"},
	} {
		records, refused := changeSecuring(s.m, &c.q)
		if (refused == nil) != (c.refused == "") || refused != nil && !strings.Contains(refused.Message, c.refused) || (records == nil) != (c.refused != "") {
			t.Fatalf("step %d, %v: %v", i, c.q, refused)
		}
		s.apply(records)
		if isFinished := s.m.Securing().State == meta.SecuringFinished; s.m.Tokens[before].Revoked != isFinished {
			t.Errorf("step %d, %v: the join token of before is revoked: %t", i, c.q, !isFinished)
		} else if isFinished && s.m.Tokens[after] == nil {
			makeToken(after)
		}
		if again, _ := changeSecuring(s.m, &c.q); again != nil {
			t.Errorf("step %d, %v, is done twice", i, c.q)
		}
	}
	if s.m.Tokens[after].Revoked {
		t.Error("a join token that was made after the end is revoked")
	}
	if g := s.m.Securing(); g.State != meta.SecuringFinished || !g.HasUser || len(g.Ready) != 2 || s.m.Credentials().ByOwner[meta.CredentialOwner{User: "admin", Mechanism: meta.ScramSHA256}] == nil {
		t.Errorf("%+v", g)
	}
}
