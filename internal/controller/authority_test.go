package controller

import (
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestSetAuthority proves that of two changes of the certificate authority which were made at the same time only one counts, that one which was asked
// for twice is done once, and that nothing is written below the level that has authorities.
func TestSetAuthority(t *testing.T) {
	at := func(round uint32, key byte) *meta.Authority {
		return &meta.Authority{Number: 1, Round: round, Certificates: [][]byte{{1}}, SealedKey: []byte{key}}
	}
	m, _, err := meta.Apply(meta.Empty(), meta.AppendLevel(nil, meta.LevelFeature, meta.LevelIdentity-1))
	if err != nil {
		t.Fatal(err)
	}
	if records, refused := setAuthority(m, nil, at(1, 1)); records != nil || refused == nil || refused.Kind != UnsupportedFeature {
		t.Errorf("below the level: %v", refused)
	}
	if m, _, err = meta.Apply(m, meta.AppendLevel(nil, meta.LevelFeature, meta.LevelIdentity)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		before, next *meta.Authority
		changes      bool
		isRefused    bool
	}{
		{"the first", nil, at(1, 1), true, false},
		{"the same again", nil, at(1, 1), false, false},
		{"another first one", nil, at(1, 2), false, true},
		{"the next", at(1, 1), at(2, 1), true, false},
		{"of an older one", at(1, 1), at(3, 1), false, true},
		{"one that goes back", at(2, 1), at(1, 1), false, true},
		{"one without a certificate", at(2, 1), &meta.Authority{Number: 2, Round: 3, SealedKey: []byte{1}}, false, true},
		{"the next but one", at(2, 1), at(3, 9), true, false},
	} {
		records, refused := setAuthority(m, c.before, c.next)
		if (records != nil) != c.changes || (refused != nil) != c.isRefused {
			t.Errorf("%s: %d bytes, %v", c.name, len(records), refused)
		}
		if m, _, err = meta.Apply(m, records); err != nil {
			t.Fatal(err)
		}
	}
	if m.Authority().Round != 3 {
		t.Errorf("it is round %d", m.Authority().Round)
	}
}
