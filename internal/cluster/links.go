package cluster

import (
	"context"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/peer"
)

func changeLinks(c *Controller) *command[controller.LinksChange, []*controller.Error] {
	return &command[controller.LinksChange, []*controller.Error]{
		key: peer.LinksChange, from: peer.Nodes, isShown: true,
		decide: func(ctx context.Context, q *controller.LinksChange, _ bool) ([]*controller.Error, *controller.Error, error) {
			return controller.ChangeLinks(ctx, c.cfg.Local, q)
		},
	}
}

// ChangeLinks has the active controller change a link, or topics and partitions that mirror by one: see controller.ChangeLinks. A change that travels has a
// mebibyte at most. What it has done is in the image of this node.
func ChangeLinks(ctx context.Context, c *Controller, q *controller.LinksChange) (results []*controller.Error, refused *controller.Error, err error) {
	return changeLinks(c).run(ctx, c, q)
}
