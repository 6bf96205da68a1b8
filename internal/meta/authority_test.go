package meta

import "testing"

// TestAuthority proves that the certificate authority is the one of the last record, that a snapshot keeps it, that an image never changes, and that
// no record takes it back or lacks a part.
func TestAuthority(t *testing.T) {
	at := func(number, round uint32) Authority {
		return Authority{Number: number, Round: round, Certificates: [][]byte{{byte(number)}}, SealedKey: []byte{byte(round)}}
	}
	m := secured(t)
	none := m
	for _, a := range []Authority{at(1, 1), at(1, 2), at(2, 3)} {
		before := m
		var delta *Delta
		if m, delta = applyStep(t, m, Append(nil, AuthoritySet{a})); !delta.Security || !m.Authority().equal(&a) {
			t.Fatalf("%+v", m.Authority())
		}
		if before.Authority() == m.Authority() || !Diff(before, m).Security {
			t.Errorf("the image before has it, too, or a difference is wrong: %+v", before.Authority())
		}
	}
	if none.Authority() != nil {
		t.Error("the first image has an authority")
	}
	long := at(3, 9)
	long.Cross = make([]byte, maxAuthorityBytes+1)
	many := at(3, 9)
	many.Certificates = [][]byte{{1}, {2}, {3}, {4}, {5}}
	empty := at(3, 9)
	empty.Certificates = append(empty.Certificates, nil)
	open := at(3, 9)
	open.SealedKey = nil
	older, sameRound, olderRound, noNumber, noRound := at(1, 9), at(2, 3), at(3, 2), at(0, 9), at(3, 0)
	for _, a := range []Authority{older, sameRound, olderRound, noNumber, noRound, long, many, empty, open, {}} {
		checkRefused(t, m, AuthoritySet{a})
	}
}
