package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// Handlers serve the commands of other nodes and of administrators.
func (c *Controller) Handlers() []peer.Handler {
	return []peer.Handler{
		keepSealingKey(c).handler(c), rotateSealingKey(c).handler(c),
		c.register().handler(c), c.heartbeat().handler(c), c.admit().handler(c), c.producerIDs().handler(c), c.ensureTopics().handler(c),
		c.makeToken().handler(c), c.revokeToken().handler(c), c.listTokens().handler(c), c.removeNode().handler(c), c.finalize().handler(c),
		showAuthority(c).handler(c), setAuthority(c).handler(c), showSecured(c).handler(c), changeSecuring(c).handler(c), showSecuring(c).handler(c), secure(c).handler(c), noteCertificate().handler(c), changeLinks(c).handler(c),
		serveLinks(c).handler(c), showLinks(c).handler(c), askPositions(c).handler(c), askEnds(c).handler(c), serveTails(c).handler(c), showTails(c).handler(c), c.forward(),
	}
}

// checkSelf refuses a command of a node about another one.
func checkSelf(from *peer.Identity, id int32) error {
	if !from.IsNode(id) {
		return fmt.Errorf("%w: it names node %d", peer.ErrNotAllowed, id)
	}
	return nil
}

func (c *Controller) register() *command[controller.Registration, int64] {
	return &command[controller.Registration, int64]{
		key: peer.NodeRegister, from: peer.Nodes,
		check: func(from *peer.Identity, g *controller.Registration) error {
			if credential.Incarnation(g.Broker.Incarnation) != from.Incarnation {
				return fmt.Errorf("%w: it registers another process than its own", peer.ErrNotAllowed)
			}
			return checkSelf(from, g.Broker.ID)
		},
		decide: func(ctx context.Context, g *controller.Registration, isOwn bool) (int64, *controller.Error, error) {
			if isOwn { // the lock on the data directory has seen every earlier process of this node end
				c.cfg.Local.ProcessEnded(c.cfg.Now(), g.Broker.ID)
			}
			epoch, refused, err := c.cfg.Local.RegisterBroker(ctx, c.cfg.Now(), g)
			if refused != nil && refused.Kind == controller.DuplicateBroker && c.hasMoved(ctx, &g.Broker) {
				c.cfg.Local.PeerRefused(c.cfg.Now(), g.Broker.ID)
				return c.cfg.Local.RegisterBroker(ctx, c.cfg.Now(), g)
			}
			return epoch, refused, err
		},
	}
}

// probeTime is how long the port of a registered process may take to refuse a connection.
const probeTime = time.Second

// hasMoved tells whether a process has another address than the registered one of its node, where the port
// refuses connections. The connection of this node to that node says nothing: it may lead to the new address already.
func (c *Controller) hasMoved(ctx context.Context, b *meta.Broker) bool {
	m := c.cfg.Image()
	registered := m.Brokers[b.ID]
	if registered == nil || controller.IsInPlace(registered, b) {
		return false
	}
	address := addressOf(m, registered)
	if address == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return errors.Is(c.cfg.Links.Probe(ctx, address), peer.ErrDialRefused)
}

// RegisterBroker registers this node. A second time it returns the same epoch.
func (c *Controller) RegisterBroker(ctx context.Context, g *controller.Registration) (epoch int64, refused *controller.Error, err error) {
	return c.register().run(ctx, c, g)
}

func (c *Controller) heartbeat() *command[controller.Beat, controller.BeatAnswer] {
	return &command[controller.Beat, controller.BeatAnswer]{
		key: peer.NodeHeartbeat, from: peer.Nodes,
		check: func(from *peer.Identity, beat *controller.Beat) error { return checkSelf(from, beat.ID) },
		decide: func(ctx context.Context, beat *controller.Beat, isOwn bool) (controller.BeatAnswer, *controller.Error, error) {
			counts, unreached := *beat, ""
			if !isOwn {
				var may bool
				may, unreached = c.reaches.mayServe(ctx, beat)
				counts.Caught = beat.Caught && may
			}
			answer, refused, err := c.cfg.Local.Heartbeat(ctx, c.cfg.Now(), &counts)
			if answer.Clock = time.Now().UnixMilli(); answer.Fenced {
				answer.Unreached = unreached
			}
			return answer, refused, err
		},
	}
}

// Heartbeat tells that this node is alive. A heartbeat that is brought twice is as one.
func (c *Controller) Heartbeat(ctx context.Context, beat *controller.Beat) (controller.BeatAnswer, *controller.Error, error) {
	return c.heartbeat().run(ctx, c, beat)
}

func (c *Controller) admit() *command[controller.Admission, int32] {
	return &command[controller.Admission, int32]{
		key: peer.NodeAdmit, from: peer.Nodes, isShown: true,
		decide: func(ctx context.Context, a *controller.Admission, _ bool) (int32, *controller.Error, error) {
			id, err := c.cfg.Local.AdmitNode(ctx, time.Now(), a)
			return id, nil, err
		},
	}
}

// AdmitNode lets a node in that has proven to have a token and a key, and returns its id. A second time
// it returns the same id. A refusal is an error of package credential.
func (c *Controller) AdmitNode(ctx context.Context, a *controller.Admission) (id int32, err error) {
	id, _, err = c.admit().run(ctx, c, a)
	return id, err
}

// maxIDBlock is how many producer ids a node may ask for at a time: those that it gets are given to nobody else.
const maxIDBlock = 1 << 20

// idBlock asks for producer ids.
type idBlock struct {
	Count int64 `json:"count"`
}

func (c *Controller) producerIDs() *command[idBlock, int64] {
	return &command[idBlock, int64]{
		key: peer.ProducerIDs, from: peer.Nodes, isForClients: true,
		check: func(_ *peer.Identity, q *idBlock) error {
			if q.Count > maxIDBlock {
				return fmt.Errorf("%w: %d producer ids", errRequest, q.Count)
			}
			return nil
		},
		decide: func(ctx context.Context, q *idBlock, _ bool) (int64, *controller.Error, error) {
			first, err := c.cfg.Local.AllocateProducerIDs(ctx, q.Count)
			return first, nil, err
		},
	}
}

// AllocateProducerIDs reserves a block of n producer ids that nobody else gets, and returns the first. If
// an answer is lost, the ids in it are given to nobody.
func (c *Controller) AllocateProducerIDs(ctx context.Context, n int64) (first int64, err error) {
	first, _, err = c.producerIDs().run(ctx, c, &idBlock{n})
	return first, err
}

// topicNames are the topics that are to be there.
type topicNames struct {
	Names []string `json:"names"`
}

func (c *Controller) ensureTopics() *command[topicNames, map[string]*controller.Error] {
	return &command[topicNames, map[string]*controller.Error]{
		key: peer.TopicsEnsure, from: peer.Nodes, isForClients: true, isShown: true,
		decide: func(ctx context.Context, q *topicNames, _ bool) (map[string]*controller.Error, *controller.Error, error) {
			refused, err := c.cfg.Local.EnsureTopics(ctx, q.Names)
			return refused, nil, err
		},
	}
}

// EnsureTopics makes those of the topics that are missing, with the defaults. It returns why some could
// not be made. What it has done is in the image of this node. It is for clients: any number of calls may be
// under way.
func (c *Controller) EnsureTopics(ctx context.Context, names []string) (refused map[string]*controller.Error, err error) {
	return c.wishes.ensure(ctx, names)
}

// askForTopics asks the active controller for those of the topics that this node does not know by now.
func (c *Controller) askForTopics(ctx context.Context, names []string) (refused map[string]*controller.Error, err error) {
	m := c.cfg.Image()
	missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return m.Topic(name) != nil })
	if len(missing) == 0 {
		return nil, nil
	}
	refused, _, err = c.ensureTopics().run(ctx, c, &topicNames{missing})
	return refused, err
}

// EnsureTopic makes a topic that is missing.
func (c *Controller) EnsureTopic(ctx context.Context, name string) error {
	if c.cfg.Image().Topic(name) != nil {
		return nil
	}
	refused, err := c.EnsureTopics(ctx, []string{name})
	if err == nil && refused[name] != nil {
		err = refused[name]
	}
	if err != nil {
		return fmt.Errorf("making topic %s: %w", name, err)
	}
	return nil
}

func (c *Controller) makeToken() *command[credential.Verifier, none] {
	return &command[credential.Verifier, none]{
		key: peer.TokenMake, from: peer.Nodes | peer.Administrators, isShown: true,
		about: func(v *credential.Verifier) string { return fmt.Sprint(v.ID) },
		decide: func(ctx context.Context, v *credential.Verifier, _ bool) (a none, refused *controller.Error, err error) {
			refused, err = c.cfg.Local.MakeToken(ctx, time.Now(), v)
			if known := c.cfg.Image().Tokens[v.ID]; err == nil && refused != nil && isSameToken(known, v) {
				refused = nil // the answer to the first attempt was lost
			}
			return a, refused, err
		},
	}
}

func isSameToken(known *meta.Token, v *credential.Verifier) bool {
	return known != nil && known.Key == v.Key && known.Acceptor == v.Acceptor
}

// MakeToken keeps what nodes need to know a new join token by.
func (c *Controller) MakeToken(ctx context.Context, v *credential.Verifier) (refused *controller.Error, err error) {
	_, refused, err = c.makeToken().run(ctx, c, v)
	return refused, err
}

// tokenName names a token.
type tokenName struct {
	ID credential.TokenID `json:"id"`
}

func (c *Controller) revokeToken() *command[tokenName, none] {
	return &command[tokenName, none]{
		key: peer.TokenRevoke, from: peer.Nodes | peer.Administrators, isShown: true,
		about: func(q *tokenName) string { return fmt.Sprint(q.ID) },
		decide: func(ctx context.Context, q *tokenName, _ bool) (a none, refused *controller.Error, err error) {
			refused, err = c.cfg.Local.RevokeToken(ctx, q.ID)
			return a, refused, err
		},
	}
}

// RevokeToken has a token let no node in any more. It may be called twice.
func (c *Controller) RevokeToken(ctx context.Context, id credential.TokenID) (refused *controller.Error, err error) {
	_, refused, err = c.revokeToken().run(ctx, c, &tokenName{id})
	return refused, err
}

func (c *Controller) listTokens() *command[none, []controller.ListedToken] {
	return &command[none, []controller.ListedToken]{
		key: peer.TokenList, from: peer.Nodes | peer.Administrators,
		decide: func(context.Context, *none, bool) (tokens []controller.ListedToken, refused *controller.Error, err error) {
			return controller.Admissions{Image: c.cfg.Image()}.ListTokens(), nil, nil
		},
	}
}

// removal asks that a node be removed.
type removal struct {
	ID    int32 `json:"id"`
	Force bool  `json:"force"`
}

func (c *Controller) removeNode() *command[removal, none] {
	return &command[removal, none]{
		key: peer.NodeRemove, from: peer.Nodes | peer.Administrators, isShown: true,
		about: func(q *removal) string { return strconv.Itoa(int(q.ID)) },
		decide: func(ctx context.Context, q *removal, _ bool) (a none, refused *controller.Error, err error) {
			refused, err = c.cfg.Local.RemoveNode(ctx, c.cfg.Now(), &controller.Removal{ID: q.ID, Voters: c.cfg.Quorum.voters(), Force: q.Force})
			return a, refused, err
		},
	}
}

// RemoveNode removes a node for good. It may be called twice.
func (c *Controller) RemoveNode(ctx context.Context, id int32, force bool) (refused *controller.Error, err error) {
	_, refused, err = c.removeNode().run(ctx, c, &removal{id, force})
	return refused, err
}

// featureLevel asks for a level of a feature.
type featureLevel struct {
	Feature string `json:"feature"`
	Level   int16  `json:"level"`
}

func (c *Controller) finalize() *command[featureLevel, none] {
	return &command[featureLevel, none]{
		key: peer.Finalize, from: peer.Nodes | peer.Administrators, isShown: true,
		about: func(q *featureLevel) string { return fmt.Sprintf("%s %d", q.Feature, q.Level) },
		decide: func(ctx context.Context, q *featureLevel, _ bool) (a none, refused *controller.Error, err error) {
			refused, err = c.cfg.Local.Finalize(ctx, q.Feature, q.Level)
			return a, refused, err
		},
	}
}

// Finalize finalizes a feature's level. It may be called twice.
func (c *Controller) Finalize(ctx context.Context, feature string, level int16) (refused *controller.Error, err error) {
	_, refused, err = c.finalize().run(ctx, c, &featureLevel{feature, level})
	return refused, err
}
