package local

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/node"
)

// tokenLife is how long the token is good that lets the nodes of a new cluster in.
const tokenLife = 10 * time.Minute

// makeToken makes a join token as the holder of the directory of a node that runs.
func makeToken(ctx context.Context, of *Node) (t credential.Token, err error) {
	h, err := node.ReadHolder(of.Dir)
	if err != nil {
		return t, err
	}
	if t, err = credential.NewToken(h.Cluster, rand.Reader); err != nil {
		return t, err
	}
	v := t.Verifier(time.Now().Add(tokenLife))
	err = command(ctx, &h, of.Address, func(a cluster.Administrator) (*controller.Error, error) {
		if w := a.Conn.Welcome(); h.IsReachedWithTLS(&w) {
			t = t.WithTLS()
		}
		return a.MakeToken(ctx, &v)
	})
	return t, err
}

// revokeToken has a token let nobody in any more.
func revokeToken(ctx context.Context, of *Node, id credential.TokenID) error {
	h, err := node.ReadHolder(of.Dir)
	if err != nil {
		return err
	}
	return command(ctx, &h, of.Address, func(a cluster.Administrator) (*controller.Error, error) { return a.RevokeToken(ctx, id) })
}

// command gives a command to a node.
func command(ctx context.Context, h *node.Holder, address string, give func(a cluster.Administrator) (*controller.Error, error)) error {
	conn, err := h.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	refused, err := give(cluster.Administrator{Conn: conn})
	if refused != nil {
		return refused
	}
	return err
}
