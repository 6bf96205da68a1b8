package controller

import (
	"context"

	"github.com/leatstream/leat/internal/meta"
)

// SetAuthority replaces the certificate authority of the cluster by the next one, or makes the first one; before is what it was when the next one
// was made, and nil if there was none. If it has changed since, nothing is done, unless it is the next one already.
func SetAuthority(ctx context.Context, c *Controller, before, next *meta.Authority) (refused *Error, err error) {
	err = c.runCommand(ctx, ofCluster, func(m *meta.Image) (records []byte) {
		records, refused = setAuthority(m, before, next)
		return records
	})
	if err != nil {
		return nil, err
	}
	return refused, nil
}

func setAuthority(m *meta.Image, before, next *meta.Authority) (records []byte, refused *Error) {
	now := m.Authority()
	switch {
	case m.Level() < meta.LevelIdentity:
		return nil, refuse(UnsupportedFeature, "A certificate authority needs level %d of %s, and this cluster has level %d: raise the level first, when all nodes run a version that knows it.",
			meta.LevelIdentity, meta.LevelFeature, m.Level())
	case isSameRound(now, next): // it was asked for twice
		return nil, nil
	case !isSameRound(now, before):
		return nil, refuse(InvalidRequest, "The certificate authority has changed in the meantime: try again.")
	}
	records = meta.Append(nil, meta.AuthoritySet{Authority: *next})
	if _, _, err := meta.Apply(m, records); err != nil {
		return nil, refuse(InvalidRequest, "It is no certificate authority: %v", err)
	}
	return records, nil
}

// isSameRound tells whether two states of the authority are the same. Each change has another round, and of two that are made at the same time only one counts.
func isSameRound(a, b *meta.Authority) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Number == b.Number && a.Round == b.Round && string(a.SealedKey) == string(b.SealedKey)
}
