package cluster

import (
	"context"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
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

// askAny asks the node at the other end of a connection, whichever it is.
func askAny[Q any](ctx context.Context, conn *peer.Conn, k *command[Q, none], q *Q) (*controller.Error, error) {
	_, refused, err := askFor(ctx, conn, k, q)
	return refused, err
}

// askFor is askAny for a command that has an answer.
func askFor[Q, A any](ctx context.Context, conn *peer.Conn, k *command[Q, A], q *Q) (a A, refused *controller.Error, err error) {
	body, err := k.encode(q)
	if err != nil {
		return a, nil, err
	}
	answer, err := callOn(ctx, conn, conn.Session().Peer.NodeID, &request{key: k.key, body: body, most: maxCommand})
	if err != nil {
		return a, nil, err
	}
	o, err := k.decodeOutcome(answer)
	return o.Answer, o.Refused, err
}
