package sim

import (
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// maxTries is how often a command is decided at most, as in package controller.
const maxTries = 3

// activeController runs commands on the node that leads the quorum, as controller.Controller does:
// one decision at a time, each on the image that the one before it leaves; the records of those that
// come while a proposal is under way are the next proposal. Rules and Liveness decide.
type activeController struct {
	n            *node
	term         uint64
	live         *controller.Liveness
	nextUpkeep   time.Duration
	inFlight     *metaBatch
	open         *metaBatch
	image        *meta.Image // after both batches; nil: the node's
	underUpkeep  bool        // a command of the upkeep is under way
	underFencing bool        // a command that fences a node is under way
}

// metaBatch has the records of some commands.
type metaBatch struct {
	records [][]byte // of each command
	ended   []func(err error, wasProposed bool)
}

// command is a command that is under way. decide may be called several times.
type command struct {
	decide func(r *controller.Rules) (controller.Part, *controller.Error)
	end    func(refused *controller.Error, err error)
	tries  int
}

// beginControl makes the node's controller of the term, if the node leads.
func (n *node) beginControl() {
	term, ok := n.member.leading()
	if !ok {
		return
	}
	a := &activeController{n: n, term: term, live: controller.NewLiveness(n.now(), session, n.image, n.member.applied)}
	n.control = a
	n.c.saw("controller began")
	if n.image.ClusterID == "" {
		a.run(&command{decide: makeCluster, end: func(*controller.Error, error) {}})
	}
}

// makeCluster makes the cluster, as controller.Bootstrap does, at the latest level of the metadata.
func makeCluster(r *controller.Rules) (d controller.Part, _ *controller.Error) {
	if r.Image.ClusterID == "" {
		d.Records = meta.Append(nil, meta.ClusterCreated{ID: "a-simulated-cluster", Tag: 1})
		d.Records = meta.Append(d.Records, meta.FeatureSet{Name: meta.LevelFeature, Level: meta.LatestLevel})
	}
	return d, nil
}

func (a *activeController) isOver() bool { return a.n.control != a }

// followImage takes a new image of the node.
func (a *activeController) followImage() { a.live.Follow(a.n.now(), a.n.image) }

func (a *activeController) rules(m *meta.Image) *controller.Rules {
	return &controller.Rules{Image: m, Static: a.n.static, Limit: a.n.c.plan.limit}
}

// newest is the image on which the next command is decided.
func (a *activeController) newest() *meta.Image {
	if a.image != nil {
		return a.image
	}
	return a.n.image
}

// run runs a command, part by part.
func (a *activeController) run(cmd *command) {
	if a.isOver() {
		cmd.end(nil, errNotLeader)
		return
	}
	m := a.newest()
	d, refused := cmd.decide(a.rules(m))
	own := len(d.Records) > 0
	ended := func(err error, wasProposed bool) {
		switch {
		case err == nil && refused == nil && d.More:
			a.n.c.saw("command in parts")
			a.run(cmd)
		case err == nil:
			cmd.end(refused, nil)
		case own && wasProposed || cmd.tries == maxTries || a.isOver():
			cmd.end(nil, err)
		default:
			cmd.tries++
			a.run(cmd)
		}
	}
	if !own {
		a.awaitNewest(ended)
		return
	}
	next, _, err := meta.Apply(m, d.Records)
	if err != nil {
		a.n.c.fail(0, "a decision does not fit its image: %w", err)
		return
	}
	a.image = next
	a.enlist(d.Records, ended)
}

// awaitNewest has a command that changes nothing wait for the commands on whose records it was
// decided.
func (a *activeController) awaitNewest(ended func(err error, wasProposed bool)) {
	switch {
	case a.open != nil:
		a.open.ended = append(a.open.ended, ended)
	case a.inFlight != nil:
		a.inFlight.ended = append(a.inFlight.ended, ended)
	default:
		ended(nil, true)
	}
}

// enlist adds a command's records to the next proposal.
func (a *activeController) enlist(records []byte, ended func(err error, wasProposed bool)) {
	if a.inFlight == nil {
		a.inFlight = &metaBatch{[][]byte{records}, []func(error, bool){ended}}
		a.propose()
		return
	}
	if a.open == nil {
		a.open = &metaBatch{}
	}
	a.open.records = append(a.open.records, records)
	a.open.ended = append(a.open.ended, ended)
}

// propose proposes the batch in flight and then, one after another, those that were filled meanwhile.
func (a *activeController) propose() {
	b := a.inFlight
	a.n.c.quorum.propose(a.n, a.term, b.records, func(err error) {
		next := a.open
		a.open, a.inFlight = nil, nil
		var dropped *metaBatch
		if err != nil {
			dropped, next = next, nil
		}
		if next == nil {
			a.image = nil
		}
		if a.inFlight = next; next != nil {
			a.propose()
		}
		b.end(err, true)
		if dropped != nil {
			dropped.end(err, false)
		}
	})
}

func (b *metaBatch) end(err error, wasProposed bool) {
	for _, ended := range b.ended {
		ended(err, wasProposed)
	}
}

// register runs a node's registration.
func (a *activeController) register(g *controller.Registration, end func(epoch int64, refused *controller.Error, err error)) {
	c, id := a.n.c, g.Broker.ID
	old := a.n.image.Brokers[id]
	alive := false
	if old != nil && id == a.n.id && g.Broker.Incarnation == a.n.incarnation { // this node knows that its earlier process has ended
		a.live.Stopped(id, old.Epoch)
	}
	if old != nil {
		alive = a.live.IsAlive(a.n.now(), id, old.Epoch, controller.IsInPlace(old, &g.Broker))
	}
	var epoch int64
	a.run(&command{decide: func(r *controller.Rules) (controller.Part, *controller.Error) {
		b := r.Image.Brokers[id]
		another := b != nil && (old == nil || b.Epoch != old.Epoch)
		d, e, refused := r.RegisterBroker(g, alive || another)
		if epoch = e; refused == nil {
			c.truth.checkRegistration(g, r.Image, d.Records)
		}
		return d, refused
	}, end: func(refused *controller.Error, err error) { end(epoch, refused, err) }})
}

// heartbeat runs a node's heartbeat: it may end the fencing, or let the node end.
func (a *activeController) heartbeat(b *controller.Beat, end func(controller.BeatAnswer, *controller.Error, error)) {
	counts := a.live.TakeBeat(a.n.now(), b)
	b = &counts
	unfences := false
	a.run(&command{decide: func(r *controller.Rules) (d controller.Part, refused *controller.Error) {
		if unfences { // the parts after the first
			return r.UnfenceBroker(b.ID, b.Epoch)
		}
		d, refused = r.Heartbeat(b)
		unfences = d.More && r.Image.Brokers[b.ID].State == meta.BrokerFenced
		return d, refused
	}, end: func(refused *controller.Error, err error) {
		if refused != nil || err != nil || a.isOver() {
			end(controller.BeatAnswer{}, refused, err)
			return
		}
		a.answerBeat(b, func(answer controller.BeatAnswer, refused *controller.Error, err error) {
			if refused == nil && err == nil {
				err = a.n.c.quorum.confirm(a.n, a.term)
			}
			end(answer, refused, err)
		})
	}})
}

// answerBeat answers a heartbeat whose records are applied.
func (a *activeController) answerBeat(b *controller.Beat, end func(controller.BeatAnswer, *controller.Error, error)) {
	known := a.n.image.Brokers[b.ID]
	if known == nil || known.Epoch != b.Epoch {
		end(controller.BeatAnswer{}, &controller.Error{Kind: controller.StaleBrokerEpoch}, nil)
		return
	}
	answer := controller.BeatAnswer{Fenced: known.State == meta.BrokerFenced, Leaving: known.State == meta.BrokerLeaving}
	answer.MayStop = b.WantsStop && answer.Fenced
	if answer.Leaving {
		a.live.Moved(b.ID, b.Epoch, a.n.member.applied)
		answer.MayStop = a.live.MayStop(b.ID, b.Epoch, a.n.image)
	}
	if !answer.MayStop {
		end(answer, nil, nil)
		return
	}
	answer.Fenced, answer.Leaving = true, false
	a.fence(b.Registered, func(refused *controller.Error, err error) {
		if refused == nil && err == nil {
			a.live.Stopped(b.ID, b.Epoch)
			a.n.c.truth.mayStop[b.ID] = b.Epoch
			end(answer, nil, nil)
			return
		}
		end(controller.BeatAnswer{}, refused, err)
	})
}

func (a *activeController) fence(b controller.Registered, end func(*controller.Error, error)) {
	a.run(&command{decide: func(r *controller.Rules) (controller.Part, *controller.Error) {
		d, refused := r.FenceBroker(b.ID, b.Epoch)
		if len(d.Records) > 0 {
			a.n.c.truth.fencing[b.ID] = true
		}
		return d, refused
	}, end: end})
}

// alterPartition runs a leader's proposal. The verdict is a word for the coverage.
func (a *activeController) alterPartition(broker int32, epoch int64, change *controller.InSyncChange, end func(verdict string)) {
	var result controller.InSyncResult
	a.run(&command{decide: func(r *controller.Rules) (controller.Part, *controller.Error) {
		d, results, refused := r.AlterPartitions(broker, epoch, []controller.InSyncChange{*change})
		if refused == nil {
			result = results[0]
		}
		return d, refused
	}, end: func(refused *controller.Error, err error) {
		switch {
		case err != nil:
			end("of unknown outcome")
		case refused != nil:
			end("of a stale broker")
		case result.Err == nil:
			end("accepted")
		default:
			end(refusalNames[result.Err.Kind])
		}
	}})
}

// refusalNames are the refusals of a proposal, for the coverage.
var refusalNames = map[controller.Kind]string{
	controller.NotController: "from the future", controller.FencedLeaderEpoch: "of a fenced leader", controller.InvalidUpdate: "at an old partition epoch",
	controller.IneligibleReplica: "with an ineligible replica", controller.NewLeaderElected: "accepted, with another leader",
	controller.InvalidRequest: "of another's partition", controller.UnknownTopicID: "of no topic", controller.UnknownPartition: "of no partition",
}

// alterLate runs a copy of a proposal that comes late, if the node is the active controller by then.
func (n *node) alterLate(broker int32, epoch int64, change *controller.InSyncChange) {
	if a := n.c.activeController(); a != nil {
		a.alterPartition(broker, epoch, change, func(verdict string) { n.c.saw("late proposal " + verdict) })
	}
}

// activeController is the controller that leads now, or nil.
func (c *cluster) activeController() *activeController {
	if c.quorum.leader == 0 || !c.quorum.isLeaderUp() {
		return nil
	}
	return c.node(c.quorum.leader).decider()
}

// tick fences the nodes that are gone, and does the upkeep.
func (a *activeController) tick() {
	now := a.n.now()
	list := a.live.ToFence(now)
	if len(list) > 0 && !a.underFencing {
		a.underFencing = true
		b := list[0]
		a.fence(b, func(refused *controller.Error, err error) {
			a.underFencing = false
			if err == nil && !a.isOver() {
				a.live.Fenced(b.ID, b.Epoch)
				if refused == nil {
					a.n.c.saw("fenced by silence")
				}
			}
		})
	}
	if now >= a.nextUpkeep && !a.underUpkeep {
		a.nextUpkeep = now + maintainEvery
		a.underUpkeep = true
		a.maintain(0)
	}
}

// maintain makes the changes that nobody asks for, one after another, as controller.Maintain does.
func (a *activeController) maintain(step int) {
	steps := []func(r *controller.Rules) controller.Part{
		func(r *controller.Rules) controller.Part { return r.ElectMissing() },
		func(r *controller.Rules) controller.Part {
			d := r.BalanceLeaders(2)
			d.More = false
			return d
		},
		func(r *controller.Rules) controller.Part { return r.FollowCluster(controller.ReplicaMoves{Most: 2}) },
	}
	if step == len(steps) || a.isOver() {
		a.underUpkeep = false
		return
	}
	a.run(&command{decide: func(r *controller.Rules) (controller.Part, *controller.Error) {
		return steps[step](r), nil
	}, end: func(_ *controller.Error, err error) {
		if err != nil {
			a.underUpkeep = false
			return
		}
		a.maintain(step + 1)
	}})
}

// reportDeath tells the active controller what it sees of a process that was killed: its connection
// is closed, and its port refuses another one.
func (c *cluster) reportDeath(id int32) {
	if c.chance(0.4) {
		return
	}
	c.after(c.random(20*ms), func() {
		if a := c.activeController(); a != nil && a.n.id != id {
			a.live.ConnectionClosed(id)
			c.saw("connection closed")
			c.after(c.random(20*ms), func() {
				if !a.isOver() && !c.node(id).up {
					a.live.DialRefused(id)
				}
			})
		}
	})
}
