package credential

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// FuzzMessage proves that no bytes make a decoder panic, and that a message that is read is written
// as the same bytes.
func FuzzMessage(f *testing.F) {
	versions := Range{Min: 1, Max: 2}
	for _, kind := range []Kind{KindNode, KindAdministrator, KindJoiner} {
		f.Add(byte(kind), (&hello{versions: versions, kind: kind}).encode())
		f.Add(byte(kind), (&challenge{versions: versions}).encode(kind))
		f.Add(byte(kind), (&proof{}).encode(kind, 1))
		f.Add(byte(kind), (&proof{addresses: []string{"a:1", ""}, epoch: 1, known: 7, shown: Voucher{known: 9}}).encode(kind, 2))
	}
	body, err := (&verdict{welcome: Welcome{NodeID: 1, Members: []Contact{{NodeID: 1, Addresses: []string{"a:1", ""}}, {}}}}).encodeBody()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(0), append(body, make([]byte, macLen)...))
	f.Add(byte(0), append([]byte{4, 1, 18}, make([]byte, macLen)...))
	f.Add(byte(0), (&refusal{reason: reasonVersion, versions: versions}).encode())
	f.Fuzz(func(t *testing.T, k byte, b []byte) {
		kind := Kind(k)
		read := 0
		check := func(err error, encode func() []byte) {
			if err != nil {
				return
			}
			if again := encode(); !bytes.Equal(again, b) {
				t.Errorf("%x is read and written as %x", b, again)
			}
			read++
		}
		h, err := parseHello(b)
		check(err, h.encode)
		c, err := parseChallenge(b, kind)
		check(err, func() []byte { return c.encode(kind) })
		for version := uint16(1); version <= 2 && (version == 1 || kind == KindNode); version++ { // other kinds have one form
			p, err := parseProof(b, kind, version)
			check(err, func() []byte { return p.encode(kind, version) })
		}
		v, err := parseVerdict(b)
		check(err, func() []byte {
			body, err := v.encodeBody()
			if err != nil {
				t.Fatal(err)
			}
			return append(body, v.mac[:]...)
		})
		r, err := parseRefusal(b)
		check(err, r.encode)
		if read > 1 {
			t.Errorf("%x is read as two kinds of messages", b)
		}
	})
}

// TestMessagesAreBounded proves that the counts in a verdict are not believed, and that each
// decoder refuses a message that is cut or has more bytes.
func TestMessagesAreBounded(t *testing.T) {
	many := append([]byte{4, 1, 0, 0, 0, 0, 1, 0, 7, 0xff, 0xff}, make([]byte, 500<<10)...)
	if allocated := testing.AllocsPerRun(10, func() {
		if _, err := parseVerdict(many); err == nil {
			t.Error("65535 members are read")
		}
	}); allocated > 20 {
		t.Errorf("a count of 65535 members allocates %v times", allocated)
	}
	whole := (&hello{versions: Range{Min: 1, Max: 1}, kind: KindJoiner, node: AnyNode}).encode()
	if _, err := parseHello(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := parseHello(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes are read", n, len(whole))
		}
	}
	if _, err := parseHello(append(whole, 0)); err == nil {
		t.Error("a hello with one byte more is read")
	}
	if _, err := parseVerdict(make([]byte, MaxVerdict+1)); err == nil {
		t.Error("a verdict above the limit is read")
	}
}

// TestFieldsAreJudged proves that fields with values that no end sends are refused.
func TestFieldsAreJudged(t *testing.T) {
	for name, h := range map[string]hello{
		"version 0":               {versions: Range{Min: 0, Max: 1}, kind: KindNode},
		"a range that runs back":  {versions: Range{Min: 2, Max: 1}, kind: KindNode},
		"an unknown kind":         {versions: Range{Min: 1, Max: 1}, kind: 5},
		"no kind":                 {versions: Range{Min: 1, Max: 1}},
		"a node without id":       {versions: Range{Min: 1, Max: 1}, kind: KindNode, node: AnyNode},
		"a joiner that wants -2":  {versions: Range{Min: 1, Max: 1}, kind: KindJoiner, node: -2},
		"an administrator of -1":  {versions: Range{Min: 1, Max: 1}, kind: KindAdministrator, node: -1},
		"an unknown kind without": {versions: Range{Min: 1, Max: 1}, kind: 255, node: AnyNode},
	} {
		if _, err := parseHello(h.encode()); err == nil {
			t.Errorf("a hello with %s is read", name)
		}
	}
	if _, err := parseChallenge((&challenge{versions: Range{Min: 1, Max: 1}, node: -1}).encode(KindNode), KindNode); err == nil {
		t.Error("a challenge of node -1 is read")
	}
	for _, code := range []reason{reasonNone, 16, 30} {
		if _, err := parseRefusal((&refusal{reason: code, versions: Range{Min: 1, Max: 1}}).encode()); err == nil {
			t.Errorf("a refusal with code %d is read", code)
		}
	}
	if _, err := parseVerdict(append([]byte{4, 1, byte(reasonUnproven)}, make([]byte, macLen)...)); err == nil {
		t.Error("a verdict with the code of a refusal is read")
	}
}

// TestAnyMembersFit proves that a welcome can be made whatever addresses the members of a cluster have, and
// however many they are, and that it has those for which there is room.
func TestAnyMembersFit(t *testing.T) {
	long := strings.Repeat("a", maxAddress+1)
	members := []Contact{
		{NodeID: 1, Addresses: []string{long, "a:1"}}, {NodeID: 2, Addresses: []string{long}}, {NodeID: 3, Addresses: slices.Repeat([]string{"c:1"}, maxAddresses+1)},
	}
	for id := range int32(maxMembers) {
		members = append(members, Contact{NodeID: 10 + id, Addresses: []string{"d:1"}})
	}
	v := verdict{welcome: Welcome{NodeID: 1, Members: FitMembers(members)}}
	b, err := v.encodeBody()
	if err != nil {
		t.Fatal(err)
	}
	back, err := parseVerdict(append(b, make([]byte, macLen)...))
	if err != nil {
		t.Fatal(err)
	}
	got := back.welcome.Members
	if len(got) != maxMembers || !slices.Equal(got[0].Addresses, []string{"a:1"}) || got[1].NodeID != 3 || len(got[1].Addresses) != maxAddresses {
		t.Errorf("%d members, the first are %+v, %+v", len(got), got[0], got[1])
	}
	if len(members[0].Addresses) != 2 {
		t.Error("the members that were given have changed")
	}
}

// TestReasonsAreKept proves that the codes stand for the same errors as ever.
func TestReasonsAreKept(t *testing.T) {
	want := map[reason]error{
		1: ErrMalformed, 2: ErrVersion, 3: ErrForeignCluster, 4: ErrRefused, 16: ErrTokenExpired, 17: ErrTokenRevoked, 18: ErrNodeRemoved,
		19: ErrNodeAlive, 20: ErrNodeIDTaken, 21: ErrDiallerBehind, 22: ErrAcceptorBehind, 23: ErrTokenUsed, 24: ErrAgentTokenExpired, 30: ErrUnavailable, 99: ErrUnavailable,
	}
	for code, err := range want {
		if code.err() != err { //nolint:errorlint // the very error, not one that wraps it
			t.Errorf("code %d is %v", code, code.err())
		}
		if code.needsProof() && code < 99 && findReason(err) != code {
			t.Errorf("%v has code %d", err, findReason(err))
		}
	}
	if len(reasons) != len(want)-1 {
		t.Errorf("there are %d codes", len(reasons))
	}
}
