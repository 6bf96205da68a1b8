package cluster

import (
	"context"
	"fmt"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/record"
)

// PositionServer is what a node does for the positions of consumer groups that links have here follow those of their sources. Package node implements it; nil in ControllerConfig.Positions: nothing does.
// All methods may be called concurrently.
type PositionServer interface {
	// ServePositions answers a link about the groups that this node coordinates.
	ServePositions(ctx context.Context, q *position.Question) (*position.Answer, error)
	// ListEnds tells up to where partitions have records, those that this node leads and that mirror. It asks nobody.
	ListEnds(places []MirrorPlace) []MirrorEnd
}

// MirrorPlace is a partition of a topic here.
type MirrorPlace struct {
	Topic  meta.UUID `json:"topic"`
	Number int32     `json:"number"`
}

// MirrorEnd is up to where a partition has records.
type MirrorEnd struct {
	position.Extent

	IsKnown bool `json:"isKnown"` // this node leads it
}

func askPositions(c *Controller) *command[position.Question, *position.Answer] {
	return &command[position.Question, *position.Answer]{
		key: peer.LinkPositions, from: peer.Nodes, isForClients: true,
		decide: func(ctx context.Context, q *position.Question, _ bool) (*position.Answer, *controller.Error, error) {
			if c.cfg.Positions == nil || len(q.Groups) > position.MaxAsked || len(q.Changes) > position.MaxChanges {
				return nil, nil, fmt.Errorf("%w: positions of groups", errRequest)
			}
			a, err := c.cfg.Positions.ServePositions(ctx, q)
			return a, nil, err
		},
	}
}

// AskPositions asks a node about the groups that it coordinates, and has it change positions. A question whose answer is lost may have been carried out; asked again, its changes find the positions changed.
func AskPositions(ctx context.Context, c *Controller, node int32, q *position.Question) (*position.Answer, error) {
	return askNode(ctx, c, node, askPositions(c), q)
}

// mirrorPlaces are the partitions whose ends are asked for.
type mirrorPlaces struct {
	Places []MirrorPlace `json:"places"`
}

// MaxMirrorPlaces is of how many partitions the ends are asked for at once.
const MaxMirrorPlaces = 5_000

func askEnds(c *Controller) *command[mirrorPlaces, []MirrorEnd] {
	return &command[mirrorPlaces, []MirrorEnd]{
		key: peer.MirrorEnds, from: peer.Nodes, isForClients: true,
		decide: func(_ context.Context, q *mirrorPlaces, _ bool) ([]MirrorEnd, *controller.Error, error) {
			if c.cfg.Positions == nil || len(q.Places) > MaxMirrorPlaces {
				return nil, nil, fmt.Errorf("%w: ends of mirrors", errRequest)
			}
			return c.cfg.Positions.ListEnds(q.Places), nil, nil
		},
	}
}

// AskEnds asks a node up to where partitions that it leads have records, in the order of the places.
func AskEnds(ctx context.Context, c *Controller, node int32, places []MirrorPlace) ([]MirrorEnd, error) {
	ends, err := askNode(ctx, c, node, askEnds(c), &mirrorPlaces{places})
	if err == nil && len(ends) != len(places) {
		err = errAnswer
	}
	for i := range ends {
		if ends[i].End < 0 || ends[i].LastEpoch < record.NoEpoch {
			return nil, errAnswer
		}
	}
	return ends, err
}

// askNode asks one node, which may be this one.
func askNode[Q, A any](ctx context.Context, c *Controller, node int32, k *command[Q, A], q *Q) (a A, err error) {
	if node == c.cfg.Quorum.cfg.NodeID {
		a, _, err = k.decide(ctx, q, true)
		return a, err
	}
	body, err := k.encode(q)
	if err != nil {
		return a, err
	}
	answer, err := c.call(ctx, node, k.purpose(), k.key, body)
	if err != nil {
		return a, err
	}
	o, err := k.decodeOutcome(answer)
	return o.Answer, err
}
