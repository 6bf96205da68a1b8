package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// NodeSecuring says how far a node is, while its cluster is secured as it runs.
type NodeSecuring struct {
	Node    int32  `json:"node"`
	Ready   bool   `json:"ready"`             // it takes connections with TLS
	Problem string `json:"problem,omitempty"` // why it is not ready, or does not answer
	Answers bool   `json:"answers"`           // it could be asked; else the rest is not known
	// Since is when the node began to note what follows; zero: it has not, since it does not know yet that its cluster is secured. A node that is
	// started again begins anew. At is its time now.
	Since time.Time `json:"since,omitzero"`
	At    time.Time `json:"at,omitzero"`
	// Plain are the clients that are connected to it without TLS, and those that have come so, of which it has heard last. There were Forgotten more.
	Plain     []PlainClient `json:"plain"`
	Forgotten int64         `json:"forgotten"`
	// Denied is what ACLs would have denied. There was Uncounted more, for which there was no room.
	Denied    []WouldDeny `json:"denied"`
	Uncounted int64       `json:"uncounted"`
}

// PlainClient is a client that has come without TLS.
type PlainClient struct {
	ClientID string `json:"clientId"`
	Host     string `json:"host"`
	// Last is when it has sent a request last; zero: it is connected, and has sent none since the node notes that. Then its ClientID is not known.
	Last time.Time `json:"last,omitzero"`
	Open int       `json:"open"` // its connections that are open
}

// WouldDeny is what ACLs would have denied to a client.
type WouldDeny struct {
	Principal    string    `json:"principal"`
	Operation    string    `json:"operation"` // in Kafka's words
	ResourceType string    `json:"resourceType"`
	Resource     string    `json:"resource"`
	Count        int64     `json:"count"`
	Last         time.Time `json:"last"`
}

// SecureVerb is what the holder of a data directory asks a node for.
type SecureVerb string

// The verbs.
const (
	SecureBegin  SecureVerb = "begin"
	SecureStatus SecureVerb = "status"
	SecureFinish SecureVerb = "finish"
	// SecureSuggest asks for what ACLs would have denied on any node.
	SecureSuggest SecureVerb = "suggest"
)

// SecureRequest asks the node to secure its cluster while it runs.
type SecureRequest struct {
	Verb    SecureVerb    `json:"verb"`
	User    string        `json:"user,omitempty"` // of SecureBegin: the name of the administrator
	Observe *bool         `json:"observe"`        // of SecureBegin: whether to note what ACLs would deny; nil: as it is
	Within  time.Duration `json:"within"`         // of SecureBegin: how long it may wait for the nodes, in ns
	Quiet   time.Duration `json:"quiet"`          // of SecureFinish: for how long nobody must have come without TLS, in ns
	Force   bool          `json:"force"`          // of SecureFinish: whoever comes without TLS
}

// SecuredOtherwise says how a cluster came to be secured that leat secure has nothing to do with.
type SecuredOtherwise string

// How it came to be.
const (
	NotOtherwise SecuredOtherwise = ""
	AtFirstStart SecuredOtherwise = "first start" // by leat up --secure
	ByHand       SecuredOtherwise = "by hand"     // listeners that have TLS or ask for a login, or an authorizer
)

// ListenerSecurity is the security protocol of a listener of a node.
type ListenerSecurity struct {
	Node     int32  `json:"node"`
	Listener string `json:"listener"`
	Protocol string `json:"protocol"`
}

// SecureAnswer says how far securing is. It has no secret.
type SecureAnswer struct {
	State meta.SecuringState `json:"state"` // 0: nobody has begun
	// Otherwise says that the cluster has other security; then Listeners are those of its nodes, and HasACLs tells whether ACLs decide on the node
	// that was asked.
	Otherwise SecuredOtherwise   `json:"otherwise,omitempty"`
	Listeners []ListenerSecurity `json:"listeners,omitempty"`
	HasACLs   bool               `json:"hasAcls,omitempty"`

	User    string `json:"user"`
	HasUser bool   `json:"hasUser"`
	// HasLogin tells that the file with the first login in the data directory of the node that was asked has the password of the user.
	HasLogin bool           `json:"hasLogin"`
	Address  string         `json:"address"` // at which clients reach the node that was asked
	Nodes    []NodeSecuring `json:"nodes"`   // without Denied
	// Denied is, of SecureSuggest, what ACLs would have denied on all nodes together. There was Uncounted more.
	Denied    []WouldDeny `json:"denied"`
	Uncounted int64       `json:"uncounted"`
}

// SecuringServer is what a node does to secure its cluster while it runs.
type SecuringServer interface {
	// Show says how far this node is.
	Show() NodeSecuring
	// Serve serves a request of the holder of its data directory.
	Serve(ctx context.Context, q *SecureRequest) (SecureAnswer, *controller.Error, error)
}

func changeSecuring(c *Controller) *command[controller.SecuringChange, none] {
	return &command[controller.SecuringChange, none]{
		key: peer.SecuringChange, from: peer.Nodes, isShown: true,
		check: func(from *peer.Identity, q *controller.SecuringChange) error {
			if q.Step == controller.ReadyForSecuring {
				return checkSelf(from, q.Node)
			}
			return nil
		},
		decide: func(ctx context.Context, q *controller.SecuringChange, _ bool) (none, *controller.Error, error) {
			refused, err := controller.ChangeSecuring(ctx, c.cfg.Local, q)
			return none{}, refused, err
		},
	}
}

// ChangeSecuring has the active controller make a step of securing.
func (c *Controller) ChangeSecuring(ctx context.Context, q *controller.SecuringChange) (refused *controller.Error, err error) {
	_, refused, err = changeSecuring(c).run(ctx, c, q)
	return refused, err
}

func showSecuring(c *Controller) *command[none, NodeSecuring] {
	return &command[none, NodeSecuring]{
		key: peer.SecuringShow, from: peer.Nodes,
		decide: func(context.Context, *none, bool) (s NodeSecuring, refused *controller.Error, err error) {
			if c.cfg.Securing != nil {
				s = c.cfg.Securing.Show()
			}
			return s, nil, nil
		},
	}
}

// ShowSecuring asks another node how far it is.
func ShowSecuring(ctx context.Context, c *Controller, node int32) (s NodeSecuring, err error) {
	k := showSecuring(c)
	body, err := k.encode(&none{})
	if err != nil {
		return s, err
	}
	answer, err := c.call(ctx, node, k.purpose(), k.key, body)
	if err != nil {
		return s, err
	}
	o, err := k.decodeOutcome(answer)
	return o.Answer, err
}

func secure(c *Controller) *command[SecureRequest, SecureAnswer] {
	return &command[SecureRequest, SecureAnswer]{
		key: peer.Secure, from: peer.Administrators, isLocal: true,
		about: func(q *SecureRequest) string { return string(q.Verb) },
		decide: func(ctx context.Context, q *SecureRequest, _ bool) (a SecureAnswer, refused *controller.Error, err error) {
			if c.cfg.Securing == nil {
				return a, nil, fmt.Errorf("%w: securing", errRequest)
			}
			return c.cfg.Securing.Serve(ctx, q)
		},
	}
}

// Secure has the node secure its cluster while it runs, or say how far that is.
func (a Administrator) Secure(ctx context.Context, q *SecureRequest) (s SecureAnswer, refused *controller.Error, err error) {
	return askFor(ctx, a.Conn, secure(new(Controller)), q)
}
