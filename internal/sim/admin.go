package sim

import (
	"slices"
	"strconv"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// admin is an administrator. It makes the topics, and then changes the cluster while there are faults.
type admin struct {
	c *cluster
}

func newAdmin(c *cluster) admin { return admin{c: c} }

// act does the next thing.
func (a *admin) act() {
	c := a.c
	c.after(30*ms+c.random(150*ms), a.act)
	if a.createMissing() {
		return
	}
	if c.healing {
		a.rescue()
		return
	}
	part := c.truth.parts[c.rng.IntN(len(c.truth.parts))]
	switch c.rng.IntN(13) {
	case 0, 1:
		a.reassign(part)
	case 2:
		a.removeAndAdd(part)
	case 3:
		a.cancel(part)
	case 4:
		a.electPreferred(part)
	case 5, 6:
		a.changeMinISR(part)
	case 7:
		a.turn()
	case 8:
		a.allowUnclean()
	case 9, 10:
		a.trim(part)
	case 11:
		a.moveAway()
	case 12:
		a.unregister()
	}
}

// send runs a command on the node that leads, as far as somebody knows. It may never come, or come
// twice.
func (a *admin) send(what string, decide func(r *controller.Rules) (controller.Part, *controller.Error)) {
	c := a.c
	n := c.anyNode()
	if n == nil || n.member.hint == 0 {
		return
	}
	to := n.member.hint
	c.net.send(anAdmin, to, what, func() {
		if d := c.node(to).decider(); d != nil {
			d.run(&command{decide: decide, end: func(refused *controller.Error, err error) {
				if refused == nil && err == nil {
					c.saw(what)
				}
			}})
		}
	})
}

// createMissing makes the first topic that is not there, if there is one.
func (a *admin) createMissing() bool {
	c := a.c
	for i := range c.plan.topics {
		t := &c.plan.topics[i]
		if c.truth.image.Topic(t.name) != nil {
			continue
		}
		active := 0
		for _, b := range c.truth.image.Brokers {
			if b.State == meta.BrokerActive {
				active++
			}
		}
		if active < 2 && c.now < 400*ms {
			return true
		}
		a.send("topic created", func(r *controller.Rules) (controller.Part, *controller.Error) {
			return a.decideTopic(r, t), nil
		})
		return true
	}
	return false
}

// decideTopic makes a topic.
func (a *admin) decideTopic(r *controller.Rules, t *topicPlan) controller.Part {
	records, _ := r.CreateTopics([]controller.NewTopic{{
		Name: t.name, Partitions: t.partitions, ReplicationFactor: t.factor, Configs: t.configs(),
	}}, a.c.newUUID, 1000)
	return controller.Part{Records: records}
}

// reassign asks for other replicas of a partition.
func (a *admin) reassign(p *partition) {
	c := a.c
	var ids []int32
	for _, n := range c.nodes {
		if c.truth.image.Brokers[n.id] != nil {
			ids = append(ids, n.id)
		}
	}
	c.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	size := min(len(ids), 2+c.rng.IntN(3))
	if c.chance(0.1) || p.name == aloneTopic {
		size = 1
	}
	a.sendReassignment(p, ids[:size])
}

func (a *admin) sendReassignment(p *partition, replicas []int32) {
	asked := []controller.Reassignment{{Partition: controller.Partition{Topic: p.name, Number: p.number}, Replicas: replicas}}
	a.send("reassignment asked for", func(r *controller.Rules) (controller.Part, *controller.Error) {
		return firstRefusal(r.AlterReassignments(asked, true))
	})
}

// removeAndAdd removes a replica, and adds it again soon after.
func (a *admin) removeAndAdd(p *partition) {
	before := slices.Clone(p.now().Replicas)
	if len(before) < 3 {
		return
	}
	i := a.c.rng.IntN(len(before))
	a.sendReassignment(p, slices.Concat(before[:i], before[i+1:]))
	a.c.after(5*ms+a.c.random(60*ms), func() { a.sendReassignment(p, before) })
}

func firstRefusal(d controller.Part, refused []*controller.Error) (controller.Part, *controller.Error) {
	return d, refused[0]
}

func (a *admin) cancel(p *partition) {
	asked := []controller.Reassignment{{Partition: controller.Partition{Topic: p.name, Number: p.number}}}
	a.send("reassignment cancelled", func(r *controller.Rules) (controller.Part, *controller.Error) {
		return firstRefusal(r.AlterReassignments(asked, true))
	})
}

func (a *admin) electPreferred(p *partition) {
	a.send("preferred leader elected", func(r *controller.Rules) (controller.Part, *controller.Error) {
		d, results := r.ElectLeaders([]controller.Partition{{Topic: p.name, Number: p.number}}, false)
		return d, results[0].Err
	})
}

// setConfig sets a topic's config; "" removes it.
func (a *admin) setConfig(topic, what, key, value string) {
	change := controller.ConfigChange{Op: controller.Set, Key: key, Value: value}
	if value == "" {
		change.Op = controller.Delete
	}
	asked := []controller.ConfigChanges{{Resource: config.Resource{Type: config.Topic, Name: topic}, Changes: []controller.ConfigChange{change}}}
	a.send(what, func(r *controller.Rules) (controller.Part, *controller.Error) {
		return firstRefusal(r.AlterConfigs(asked))
	})
}

// changeMinISR changes min.insync.replicas of a partition's topic. With one, a page cache promises
// nothing.
func (a *admin) changeMinISR(p *partition) {
	if p.isOffsets() || p.name == "cached" || a.c.txns != nil {
		return
	}
	value := ""
	if n := a.c.rng.IntN(4); n > 0 {
		value = strconv.Itoa(n)
	}
	a.setConfig(p.name, "min.insync.replicas changed", minISRKey, value)
}

// turn makes a topic durable that was not, or the other way round.
func (a *admin) turn() {
	for i := range a.c.plan.topics {
		if t := &a.c.plan.topics[i]; t.turns {
			t.pageCache = !t.pageCache
			value, what := "", "topic became durable"
			if t.pageCache {
				value, what = pageCacheFlush, "topic became page-cached"
			}
			a.setConfig(t.name, what, flushKey, value)
		}
	}
}

// allowUnclean changes whether the leader of a topic may be elected uncleanly.
func (a *admin) allowUnclean() {
	c := a.c
	for i := range c.plan.topics {
		t := &c.plan.topics[i]
		if p := c.truth.find(t.name, 0); p != nil && t.name == "unclean" {
			t.unclean = !t.unclean
			p.forcedUntil = c.now + session*4
			a.setConfig(t.name, "unclean.leader.election.enable changed", uncleanKey, strconv.FormatBool(t.unclean))
		}
	}
}

// trim deletes some of a partition's records, as retention does.
func (a *admin) trim(p *partition) {
	c := a.c
	if p.isOffsets() || c.txns != nil {
		return
	}
	to := c.guessLeader(p)
	if to == 0 {
		return
	}
	share := record.Offset(1 + c.rng.IntN(2))
	c.net.send(anAdmin, to, "delete records", func() {
		if r := c.node(to).replica(p); r != nil && r.leader != nil {
			r.trim(r.log.Start() + (r.leader.HighWatermark()-r.log.Start())/share)
			c.node(to).act()
		}
	})
}

// moveAway gives the replicas of a node to others.
func (a *admin) moveAway() {
	c := a.c
	id := c.nodes[c.rng.IntN(len(c.nodes))].id
	if !c.chance(0.3) {
		return
	}
	a.send("replicas moved away", func(r *controller.Rules) (controller.Part, *controller.Error) {
		d := r.MoveReplicas(id, controller.ReplicaMoves{Most: 2})
		d.More = false
		return d, nil
	})
}

// unregister removes a broker that is down, as an administrator does whose node will not come back; and
// then it does. The metadata forget which records it has.
func (a *admin) unregister() {
	c := a.c
	n := c.nodes[c.rng.IntN(len(c.nodes))]
	if n.up || c.chance(0.5) || c.chance(0.8) && !c.survivesLoss(n, func(*partition) bool { return true }) {
		return
	}
	a.send("broker unregistered", func(r *controller.Rules) (controller.Part, *controller.Error) {
		if n.up {
			return controller.Part{}, &controller.Error{Kind: controller.InvalidRequest}
		}
		d, refused := r.UnregisterBroker(n.id)
		if refused == nil {
			c.truth.noteUnregistering(n.id)
		}
		return d, refused
	})
}

// rescue elects a leader for each partition of which nobody is known to have the records. The only replica
// of a partition needs no help.
func (a *admin) rescue() {
	c := a.c
	if c.now < faultsEnd+700*ms {
		return
	}
	for _, p := range c.truth.parts {
		mp := p.now()
		if mp.Leader >= 0 || len(membersOf(mp)) > 0 || len(mp.LastEligible) > 0 || len(mp.Replicas) == 1 {
			continue
		}
		p.forcedUntil = c.now + session*4
		a.send("unclean election asked for", func(r *controller.Rules) (controller.Part, *controller.Error) {
			d, results := r.ElectLeaders([]controller.Partition{{Topic: p.name, Number: p.number}}, true)
			return d, results[0].Err
		})
	}
}
