package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

// A request that changes the metadata is decided by the active controller, on whatever node that is. The
// node that the client has asked serves it, if it is the active controller itself. If not, it sends the
// request there (Cluster.Forward), where the same handler serves it, and passes on the answer:
//
//	asked node                                         the active controller's node
//	session.Serve -> decideRequest -> forwardRequest -> ServeForwarded -> a handler, with a decision
//
// Handlers are given a decision, which says what they may do where they run. One that finds out that this
// node is not the active controller returns that error and has answered nothing, so that another node
// can be asked. If none has decided in time, the handler runs with a decision in which every command
// fails: so that answer, too, has the form that the handler gives it.

// Cluster is how this node reaches the active controller. A cluster.Controller is one.
type Cluster interface {
	// Leader is the node of the active controller, as far as this node knows; -1: it does not.
	Leader() int32
	// Forward has the active controller serve a client's request, and returns the body of the answer when
	// the image of this node shows what was done. If this node is the active controller, it calls here
	// and returns nil; here returns quorum.ErrNotLeader, and has answered nothing, if it is not.
	Forward(ctx context.Context, q *wire.Carried, here func(ctx context.Context) error) (answer []byte, err error)
	// EnsureTopics has the active controller make those of the topics that are missing.
	EnsureTopics(ctx context.Context, names []string) (refused map[string]*controller.Error, err error)
	// Positions are how far the nodes have told that they have the metadata. They are empty unless this
	// node is the active controller.
	Positions() map[int32]controller.Position
}

// commands are what the active controller decides. A controller.Controller decides them.
type commands interface {
	metadataCommands
	securityCommands
}

// metadataCommands are about topics, configs and the cluster.
type metadataCommands interface {
	CreateTopics(ctx context.Context, topics []controller.NewTopic, validateOnly bool) ([]controller.CreatedTopic, error)
	DeleteTopics(ctx context.Context, ids []meta.UUID) ([]*controller.Error, error)
	CreatePartitions(ctx context.Context, asked []controller.MorePartitions, validateOnly bool) ([]*controller.Error, error)
	AlterConfigs(ctx context.Context, asked []controller.ConfigChanges, validateOnly bool) ([]*controller.Error, error)
	ElectLeaders(ctx context.Context, asked []controller.Partition, unclean bool) ([]controller.ElectionResult, error)
	AlterReassignments(ctx context.Context, asked []controller.Reassignment, allowFactorChange bool) ([]*controller.Error, error)
	Finalize(ctx context.Context, feature string, level int16) (*controller.Error, error)
	UnregisterBroker(ctx context.Context, id int32) (*controller.Error, error)
}

// securityCommands are about users and what they may do.
type securityCommands interface {
	CreateACLs(ctx context.Context, acls []meta.ACL) ([]*controller.Error, error)
	DeleteACLs(ctx context.Context, filters []auth.Filter) ([]controller.DeletedACLs, error)
	AlterCredentials(ctx context.Context, gone []meta.CredentialOwner, set []controller.NewCredential) ([]controller.CredentialChange, error)
	AlterQuotas(ctx context.Context, asked []controller.QuotaChange, validateOnly bool) ([]*controller.Error, error)
}

// failure are commands that all fail.
type failure struct{ err error }

func (f failure) CreateTopics(context.Context, []controller.NewTopic, bool) ([]controller.CreatedTopic, error) {
	return nil, f.err
}

func (f failure) DeleteTopics(context.Context, []meta.UUID) ([]*controller.Error, error) {
	return nil, f.err
}

func (f failure) CreatePartitions(context.Context, []controller.MorePartitions, bool) ([]*controller.Error, error) {
	return nil, f.err
}

func (f failure) AlterConfigs(context.Context, []controller.ConfigChanges, bool) ([]*controller.Error, error) {
	return nil, f.err
}

func (f failure) ElectLeaders(context.Context, []controller.Partition, bool) ([]controller.ElectionResult, error) {
	return nil, f.err
}

func (f failure) AlterReassignments(context.Context, []controller.Reassignment, bool) ([]*controller.Error, error) {
	return nil, f.err
}

func (f failure) Finalize(context.Context, string, int16) (*controller.Error, error) {
	return nil, f.err
}

func (f failure) UnregisterBroker(context.Context, int32) (*controller.Error, error) {
	return nil, f.err
}

func (f failure) CreateACLs(context.Context, []meta.ACL) ([]*controller.Error, error) {
	return nil, f.err
}

func (f failure) DeleteACLs(context.Context, []auth.Filter) ([]controller.DeletedACLs, error) {
	return nil, f.err
}

func (f failure) AlterCredentials(context.Context, []meta.CredentialOwner, []controller.NewCredential) ([]controller.CredentialChange, error) {
	return nil, f.err
}

func (f failure) AlterQuotas(context.Context, []controller.QuotaChange, bool) ([]*controller.Error, error) {
	return nil, f.err
}

// decision is how a handler has its request decided.
type decision struct {
	commands

	// by is what the client may do.
	by access
	// tokens are the commands about delegation tokens, and asker is who asks for them.
	tokens tokenCommands
	asker  tokenAsker
	// changes is its quota of changes of partitions; nil: it has none.
	changes *mutations
	// within returns a context that ends after a time, and before that when nobody waits for the
	// answer any more.
	within func(d time.Duration) (context.Context, context.CancelFunc)
	// canMove tells that another node is asked if this one is not the active controller.
	canMove bool
	// isForwarded tells that the node which the client has asked has judged what concerns that node.
	isForwarded bool
	// addressOf is the address at which the client reaches a node.
	addressOf func(n *meta.Broker) (host string, port int32)
}

// newDecision makes the decision of a request of this node's client by this node's controller.
func (b *Broker) newDecision(ctx context.Context, r *wire.Request, by access) *decision {
	conn := r.Conn
	return &decision{
		addressOf: func(n *meta.Broker) (host string, port int32) { return b.addressOf(n, conn) },
		commands:  b.cfg.Controller,
		tokens:    b.cfg.Delegations,
		by:        by,
		within: func(t time.Duration) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, max(0, t))
		},
	}
}

// withTimeout returns a context that ends after a command's time-out, or when the node stops.
func (d *decision) withTimeout(timeoutMillis int32) (context.Context, context.CancelFunc) {
	return d.within(config.Millis(int64(timeoutMillis)))
}

// isElsewhere tells whether a command has failed because this node is not the active controller, or
// stops, and another one can be asked. Then the handler returns the error in place of an answer.
func (d *decision) isElsewhere(failed error) bool {
	return d.canMove && errors.Is(failed, quorum.ErrNotLeader) || d.isForwarded && errors.Is(failed, context.Canceled)
}

// decideRequest serves a client's request that the active controller decides.
func (b *Broker) decideRequest(s *session, a *api, r *wire.Request, req kmsg.Request) error {
	if a.screen != nil {
		if refused := a.screen(s, req); refused != nil {
			r.Reply(refused)
			return nil
		}
	}
	d := b.newDecision(b.cfg.Context(), r, s.access())
	d.asker = tokenAskerOf(s)
	d.limitChanges(b, r, s.principal, s.isPeer())
	if b.cfg.Cluster == nil {
		return a.decide(d, r, req)
	}
	if b.controllerID() == b.cfg.NodeID {
		d.canMove = true
		if err := a.decide(d, r, req); !errors.Is(err, quorum.ErrNotLeader) {
			return err
		}
	}
	return b.forwardRequest(s, a, r, req)
}

// ServeForwarded serves a request of another node's client, which that node has sent here. It answers r, or
// returns an error: quorum.ErrNotLeader if this node is not the active controller.
func (b *Broker) ServeForwarded(ctx context.Context, q *wire.Carried, r *wire.Request) error {
	a := b.findAPI(q.Key)
	switch {
	case b.closed.Load():
		return quorum.ErrNotLeader
	case a == nil || a.decide == nil:
		return ErrUnsupported
	case q.Version < a.min || q.Version > a.max:
		return fmt.Errorf("%w: versions %d to %d are served", ErrUnsupported, a.min, a.max)
	}
	req, memory, err := r.DecodeCarried()
	defer memory.Release()
	if err == nil {
		by := b.accessOfCarried(q)
		if !a.mayServe(&by) { // the other node has asked its own ACLs before
			r.Reply(refuseOfCluster(req))
			return nil
		}
		d := b.newDecision(ctx, r, by)
		d.canMove, d.isForwarded = true, true
		d.asker = tokenAsker{principalOf(q), q.MayHaveToken, len(q.Groups) > 0}
		d.limitChanges(b, r, principalOf(q), q.IsPeer)
		d.addressOf = func(n *meta.Broker) (host string, port int32) { return n.AddressFor(q.Listener) }
		err = a.decide(d, r, req)
	}
	if err != nil && !errors.Is(err, quorum.ErrNotLeader) && ctx.Err() == nil {
		b.cfg.Logger.Warn("cannot serve the request of another node's client", "api", a.name, "version", q.Version, "client", q.ClientID, "address", q.Address, "err", err)
	}
	return err
}

const (
	// mostForwarded is how long the active controller may take for a client's request, whatever time-out
	// that has. It is Kafka's bound.
	mostForwarded = time.Minute
	// mostWaiting is how many requests may wait for the active controller at a time. They hold memory,
	// and while there is none they wait for long.
	mostWaiting = 512
)

// forwardRequest has the active controller serve a client's request, and passes on the answer.
func (b *Broker) forwardRequest(s *session, a *api, r *wire.Request, req kmsg.Request) error {
	by := s.access()
	p := a.partOf(&by, req)
	if p.rest == nil {
		return a.decide(b.newDecision(b.cfg.Context(), r, by), r, req)
	}
	p.rest.SetVersion(r.Version)
	if n := b.forwarding.Add(1); n > mostWaiting {
		b.forwarding.Add(-1)
		return b.failRequest(s, a, r, req, context.DeadlineExceeded)
	}
	defer b.forwarding.Add(-1)
	most := b.answerMemory(p.rest)
	if most > b.cfg.Work.Most(peerAnswers) {
		return b.failRequest(s, a, r, req, fmt.Errorf("%w: the answer may have %d bytes", errLargeAnswer, most))
	}
	memory, err := r.Reserve(peerAnswers, most)
	if err != nil {
		return err
	}
	defer memory.Release()
	ctx, cancel := context.WithTimeout(b.cfg.Context(), min(mostForwarded, b.timeOf(req)))
	defer cancel()
	here := func(ctx context.Context) error {
		memory.Release() // the handler reserves what it needs
		d := b.newDecision(ctx, r, by)
		d.asker = tokenAskerOf(s)
		d.canMove = true
		d.limitChanges(b, r, s.principal, s.isPeer())
		return a.decide(d, r, req)
	}
	answer, err := b.cfg.Cluster.Forward(ctx, &wire.Carried{
		Principal: s.principal.String(), Groups: s.groups, IsPeer: s.isPeer(), MayHaveToken: tokenAskerOf(s).isAllowed,
		Key: r.Key, Version: r.Version, ClientID: r.ClientID, Address: r.Conn.RemoteAddr().String(), Listener: r.Conn.ListenerName(), Most: int(most), Body: p.rest.AppendTo(nil),
	}, here)
	switch {
	case err == nil && answer == nil:
		return nil
	case err == nil:
		b.throttleForwarded(r, p.rest.ResponseKind(), answer)
		return p.passOn(r, answer, &memory)
	}
	memory.Release()
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		err = context.DeadlineExceeded
	case errors.Is(err, peer.ErrTooLarge):
		err = fmt.Errorf("%w: %w", errLargeRequest, err)
	case errors.Is(err, quorum.ErrNotLeader):
	default:
		return err // as if it were served here, the connection ends
	}
	return b.failRequest(s, a, r, req, err)
}

// failRequest answers a request for which no active controller has decided.
func (b *Broker) failRequest(s *session, a *api, r *wire.Request, req kmsg.Request, err error) error {
	d := b.newDecision(b.cfg.Context(), r, s.access())
	d.asker = tokenAskerOf(s)
	d.commands, d.tokens = failure{err}, failedTokens{err}
	return a.decide(d, r, req)
}

// serverTimeShare is the share of request.timeout.ms that a client waits for what the active controller
// does for this node: clients have the same time-out, and must be there to hear of a failure.
const serverTimeShare = 2

// ensureTopics has the active controller make topics that an image lacks, with the defaults, for a client. It returns why
// some could not be made. Clients ask for a topic that can never be made again and again, so names that
// collide are refused here.
func (b *Broker) ensureTopics(s *session, r *wire.Request, m *meta.Image, names []string) (map[string]unmade, error) {
	counted := countedTopics{b: b, s: s, r: r, refused: map[string]unmade{}}
	isCounted := !s.isPeer() && b.mutationsOf(s.principal, r.ClientID, true) != nil
	var countedNames []string
	wanted := make([]string, 0, len(names))
	b.inTurns(len(names), func(i int) {
		err := controller.CheckCollision(m, names[i])
		switch {
		case err != nil:
			counted.noteError(names[i], err)
		case isCounted && !meta.InternalTopic(names[i]):
			countedNames = append(countedNames, names[i])
		default:
			wanted = append(wanted, names[i])
		}
	})
	ensure, share := b.cfg.Controller.EnsureTopics, time.Duration(1)
	if b.cfg.Cluster != nil {
		ensure, share = b.cfg.Cluster.EnsureTopics, serverTimeShare
	}
	ctx, cancel := b.withinServerTime(share)
	defer cancel()
	if err := counted.ensure(ctx, m, countedNames); err != nil || len(wanted) == 0 {
		return counted.refused, err
	}
	others, err := ensure(ctx, wanted)
	for name, e := range others {
		counted.noteError(name, e)
	}
	return counted.refused, err
}

// withinServerTime returns a context that ends after a share of request.timeout.ms.
func (b *Broker) withinServerTime(share time.Duration) (context.Context, context.CancelFunc) {
	most := 30 * time.Second // Kafka's default
	if b.cfg.Static != nil {
		most = meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout
	}
	return context.WithTimeout(b.cfg.Context(), most/share)
}

// describedWithin is how long the leader of the quorum is asked for its description.
const describedWithin = 3 * time.Second

// timeOf is how long a client waits for the answer to its request.
func (b *Broker) timeOf(req kmsg.Request) time.Duration {
	if _, ok := req.(*kmsg.DescribeQuorumRequest); ok {
		return describedWithin
	}
	if t, ok := req.(kmsg.TimeoutRequest); ok {
		return config.Millis(int64(t.Timeout()))
	}
	return meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout
}
