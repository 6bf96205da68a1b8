package cluster

import (
	"context"
	"fmt"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// SecuredCluster is what a node needs to become one of a secured cluster. It has a secret, which is only sent over a connection with TLS at whose ends there are
// two nodes that have proven to each other who they are, with nobody in between.
type SecuredCluster struct {
	IsSecured bool            `json:"isSecured"`
	Keys      []byte          `json:"keys,omitempty"` // the sealing keys
	SuperUser string          `json:"superUser,omitempty"`
	Authority *meta.Authority `json:"authority,omitempty"`
	// WhileRunning tells that the cluster was plain, and is secured while it runs, or was. Then all nodes have the same names of listeners as before.
	WhileRunning bool `json:"whileRunning,omitempty"`
	MayBePlain   bool `json:"mayBePlain,omitempty"` // nodes take connections without TLS, too, so far
}

// Format prints whether the cluster is secured, whatever the verb.
func (s SecuredCluster) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "secured: %t", s.IsSecured)
}

// securedQuestion asks whether a cluster is secured, and for what a new node needs.
type securedQuestion struct {
	isBound bool // the connection is such that secrets may be sent
}

func showSecured(c *Controller) *command[securedQuestion, SecuredCluster] {
	return &command[securedQuestion, SecuredCluster]{
		key: peer.SecuredShow, from: peer.Nodes,
		check: func(from *peer.Identity, q *securedQuestion) error {
			q.isBound = from.IsBound
			return nil
		},
		decide: func(_ context.Context, q *securedQuestion, _ bool) (s SecuredCluster, refused *controller.Error, err error) {
			if c.cfg.Secured == nil {
				return s, nil, nil
			}
			s, err = c.cfg.Secured()
			if err == nil && s.MayBePlain && !q.isBound {
				return SecuredCluster{}, nil, nil // the node comes in as it is, and asks again with TLS
			}
			if err == nil && s.IsSecured && !q.isBound {
				return SecuredCluster{}, &controller.Error{Kind: controller.PolicyViolation, Message: unboundText}, nil
			}
			return s, nil, err
		},
	}
}

// unboundText says why the sealing key is not sent.
const unboundText = "This cluster is secured, and somebody between the two nodes could read the sealing key, so that it is not sent: join by a listener with TLS, with nothing on the way that ends it."

// AskSecured asks the node at the other end of a connection whether the cluster is secured. It is for a node that has just been admitted.
func AskSecured(ctx context.Context, conn *peer.Conn) (s SecuredCluster, refused *controller.Error, err error) {
	return askFor(ctx, conn, showSecured(new(Controller)), &securedQuestion{})
}

// SealingKeeper keeps the sealing keys of a node. No request and no answer of it has a key: nodes take them from each other by AskSecured, over a
// connection that nobody can read.
type SealingKeeper interface {
	// Keep does what another node wishes. A refusal says what is to be done about it.
	Keep(ctx context.Context, w *SealingWish) (refused *controller.Error, err error)
	// Rotate begins to replace the cluster's sealing key, or goes on with that, or finishes it.
	Rotate(ctx context.Context, finishes bool) (keys SealingKeys, refused *controller.Error, err error)
}

// SealingWish asks a node to have a sealing key from now on.
type SealingWish struct {
	Key  string `json:"key"`  // its id
	From int32  `json:"from"` // the node that has it, and asks
	Only bool   `json:"only"` // and no other key: all secrets in the metadata are sealed by it
}

// SealingKeys say how far the sealing key of a cluster has been replaced.
type SealingKeys struct {
	Key      string      `json:"key"`      // the id of the key that is to seal, or does
	Finished bool        `json:"finished"` // it seals, and no node has another one
	Nodes    []SealingOf `json:"nodes"`    // by their ids
}

// SealingOf says whether a node has the key.
type SealingOf struct {
	Node    int32  `json:"node"`
	Has     bool   `json:"has"`
	Problem string `json:"problem,omitempty"` // why it does not have the key, or has others, too
}

func errNoSealingKeys() *controller.Error {
	return &controller.Error{Kind: controller.PolicyViolation, Message: "This node has no sealing keys."}
}

func keepSealingKey(c *Controller) *command[SealingWish, struct{}] {
	return &command[SealingWish, struct{}]{
		key: peer.SealingKeep, from: peer.Nodes,
		check: func(from *peer.Identity, w *SealingWish) error {
			if !from.IsNode(w.From) {
				return fmt.Errorf("%w: it names node %d", peer.ErrNotAllowed, w.From)
			}
			return nil
		},
		decide: func(ctx context.Context, w *SealingWish, _ bool) (a struct{}, refused *controller.Error, err error) {
			if c.cfg.SealingKeys == nil {
				return a, errNoSealingKeys(), nil
			}
			refused, err = c.cfg.SealingKeys.Keep(ctx, w)
			return a, refused, err
		},
	}
}

// KeepSealingKey has another node do what the controller's node wishes.
func KeepSealingKey(ctx context.Context, c *Controller, node int32, w *SealingWish) (refused *controller.Error, err error) {
	conn, err := c.cfg.Links.Get(ctx, node, peer.Commands)
	if err != nil {
		return nil, err
	}
	_, refused, err = askFor(ctx, conn, keepSealingKey(c), w)
	return refused, err
}

// AskSecuredOf asks another node of a secured cluster for what the controller's node needs.
func AskSecuredOf(ctx context.Context, c *Controller, node int32) (s SecuredCluster, refused *controller.Error, err error) {
	conn, err := c.cfg.Links.Get(ctx, node, peer.Commands)
	if err != nil {
		return s, nil, err
	}
	return AskSecured(ctx, conn)
}

// sealingRotation asks a node to replace the sealing key of its cluster.
type sealingRotation struct {
	Finishes bool `json:"finishes"`
}

func rotateSealingKey(c *Controller) *command[sealingRotation, SealingKeys] {
	return &command[sealingRotation, SealingKeys]{
		key: peer.SealingRotate, from: peer.Administrators, isLocal: true,
		about: func(q *sealingRotation) string {
			if q.Finishes {
				return AuthorityFinished
			}
			return AuthorityBegun
		},
		decide: func(ctx context.Context, q *sealingRotation, _ bool) (SealingKeys, *controller.Error, error) {
			if c.cfg.SealingKeys == nil {
				return SealingKeys{}, errNoSealingKeys(), nil
			}
			return c.cfg.SealingKeys.Rotate(ctx, q.Finishes)
		},
	}
}
