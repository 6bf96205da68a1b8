package cluster

import (
	"context"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// Administrator gives commands over a connection to any node, which passes them on to the active
// controller. It is for verbs that have proven to hold a node's data directory.
type Administrator struct{ Conn *peer.Conn }

// MakeToken keeps what nodes need to know a new join token by.
func (a Administrator) MakeToken(ctx context.Context, v *credential.Verifier) (refused *controller.Error, err error) {
	return askAny(ctx, a.Conn, new(Controller).makeToken(), v)
}

// RevokeToken has a token let no node in any more.
func (a Administrator) RevokeToken(ctx context.Context, id credential.TokenID) (refused *controller.Error, err error) {
	return askAny(ctx, a.Conn, new(Controller).revokeToken(), &tokenName{id})
}

// ListTokens lists the join tokens that the cluster keeps, also those that let no node in any more.
func (a Administrator) ListTokens(ctx context.Context) ([]controller.ListedToken, error) {
	tokens, _, err := askFor(ctx, a.Conn, new(Controller).listTokens(), &none{})
	return tokens, err
}

// RemoveNode removes a node for good.
func (a Administrator) RemoveNode(ctx context.Context, id int32, force bool) (refused *controller.Error, err error) {
	return askAny(ctx, a.Conn, new(Controller).removeNode(), &removal{id, force})
}

// Finalize finalizes a feature's level.
func (a Administrator) Finalize(ctx context.Context, feature string, level int16) (refused *controller.Error, err error) {
	return askAny(ctx, a.Conn, new(Controller).finalize(), &featureLevel{feature, level})
}

// Authority shows the certificate authority; nil: the cluster is not secured. Its key is sealed.
func (a Administrator) Authority(ctx context.Context) (*meta.Authority, error) {
	shown, _, err := askFor(ctx, a.Conn, showAuthority(new(Controller)), &none{})
	return shown, err
}

// SetAuthority replaces the certificate authority, if it is still that of before.
func (a Administrator) SetAuthority(ctx context.Context, before, next *meta.Authority) (refused *controller.Error, err error) {
	return askAny(ctx, a.Conn, setAuthority(new(Controller)), &authorityChange{before, next})
}

// RotateSealingKey has the node at the other end of the connection, and no other one, replace the sealing key of the cluster: begin, or finish.
func (a Administrator) RotateSealingKey(ctx context.Context, finishes bool) (keys SealingKeys, refused *controller.Error, err error) {
	return askFor(ctx, a.Conn, rotateSealingKey(new(Controller)), &sealingRotation{finishes})
}
