package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/place"
)

// drain is the task of cluster drain.
type drain struct {
	node   int32
	atOnce int // partitions whose replicas are on their way at a time
	dryRun bool
}

// drainedNode is the output of cluster drain.
type drainedNode struct {
	Node   int32           `json:"node"`
	Moved  int             `json:"moved"` // replicas that other nodes have now
	Kept   int             `json:"kept"`  // replicas that no other node may have
	Alone  int             `json:"alone"` // those of kept without another one in sync: a drain fails until there is one
	Moves  []plannedChange `json:"moves,omitempty"`
	DryRun bool            `json:"dry_run,omitempty"` // nothing was moved
}

// plannedChange is a partition that gets other replicas.
type plannedChange struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	From      []int32 `json:"from"`
	To        []int32 `json:"to"`
}

const (
	// A node gets replicas if a tenth of its disk is free, or so many bytes, as from the cluster itself.
	keptShare = 10
	keptBytes = 32 << 30
	// tellEvery is how often a verb says how far it has come.
	tellEvery = 5 * time.Second
)

func (a *app) newClusterDrain() *cobra.Command {
	d := drain{atOnce: 8}
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move all replicas and leaders away from a node, so that it can be removed", Args: cobra.ExactArgs(1),
		Long: `Give the replicas of a node to other nodes, a few partitions at a time, and have others lead. It ends when the
node has none that another node may have: one that is active, has no replica of the partition, and has a
tenth of its disk free, or 32 GiB. Then "leat cluster remove" loses nothing. It fails if the node alone has all
records of a partition after that.

It can be interrupted: what is on its way goes on, and the same command goes on with the rest. A new topic may
still get replicas on the node, so stop the node soon after. To take a drain back, do nothing: the node goes
on to serve, and gets replicas of new topics.`,
		Example: `  leat cluster drain 3 --dry-run
  leat cluster drain 3 --at-once 2`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 32)
			if err != nil || id < 0 {
				return usagef("%s is not the id of a node: \"leat cluster\" shows the ids", args[0])
			}
			if d.atOnce < 1 {
				return usagef("--at-once %d: give at least 1", d.atOnce)
			}
			d.node = int32(id)
			return a.drainNode(cmd.Context(), &d)
		},
	}
	cmd.ValidArgsFunction = a.completeBrokers(1)
	cmd.Flags().IntVar(&d.atOnce, "at-once", d.atOnce, "how many partitions may be on their way at a time")
	cmd.Flags().BoolVar(&d.dryRun, "dry-run", false, "only show which replicas would go where")
	return cmd
}

// drainNode looks at the cluster again and again, and moves what it may, until there is nothing left to move.
func (a *app) drainNode(ctx context.Context, d *drain) error {
	held, total, told := -1, 0, time.Now()
	for {
		var plan *drainPlan
		err := a.withClient(ctx, func(ctx context.Context, cl *kgo.Client) error {
			v, err := d.look(ctx, cl)
			if err != nil {
				return err
			}
			plan = d.plan(v)
			if d.dryRun {
				return nil
			}
			return plan.carryOut(ctx, kadm.NewClient(cl))
		})
		if err != nil {
			return err
		}
		left := plan.left()
		total = max(total, left)
		if held < 0 {
			held = plan.held
		}
		switch {
		case d.dryRun:
			return a.showDrained(&drainedNode{Node: d.node, Kept: len(plan.kept), Alone: len(plan.alone), Moves: plan.everyMove, DryRun: true})
		case left == 0 && len(plan.stuck) > 0:
			return fmt.Errorf("%s of node %d, such as %s, cannot be moved: no other replica is in sync, and the node that has the records does not serve",
				formatCount(len(plan.stuck), "partition"), d.node, plan.stuck[0])
		case left == 0 && len(plan.alone) > 0:
			return fmt.Errorf("do not stop node %d: it alone has all records of %s, such as %s, and no other node serves, has room and has no replica yet; "+
				"\"leat cluster\" shows what is missing, and this verb goes on from here", d.node, formatCount(len(plan.alone), "partition"), plan.alone[0])
		case left == 0:
			return a.showDrained(&drainedNode{Node: d.node, Moved: max(0, held-plan.held), Kept: len(plan.kept)})
		case time.Since(told) >= tellEvery:
			told = time.Now()
			a.tellPerson(fmt.Sprintf("%s of %s left, %s on the way", formatNumber(int64(left)), formatCount(total, "partition"), formatNumber(int64(plan.moving+len(plan.moves)))))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// drainView is what a drain has to know of the cluster.
type drainView struct {
	others     []place.Broker // that may get replicas
	load       place.Load
	serves     bool // the node that is drained
	partitions []kadm.PartitionDetail
	under      kadm.ListPartitionReassignmentsResponses
}

// look asks for the cluster.
func (d *drain) look(ctx context.Context, cl *kgo.Client) (*drainView, error) {
	c, err := admin.DescribeCluster(ctx, cl)
	if err != nil {
		return nil, err
	}
	v := &drainView{load: place.Load{}}
	isKnown := false
	for i := range c.Brokers {
		n := &c.Brokers[i]
		serves := n.State == admin.Active && n.Err() == nil
		if n.ID == d.node {
			isKnown, v.serves = true, serves
			continue
		}
		hasRoom := n.DiskTotal < 0 || n.DiskUsable >= min(n.DiskTotal/keptShare, keptBytes)
		v.others = append(v.others, place.Broker{ID: n.ID, Rack: n.Rack, Active: serves && hasRoom})
	}
	if !isKnown {
		return nil, notFoundf("there is no node %d: \"leat cluster\" shows the nodes", d.node)
	}
	if len(v.others) == 0 {
		return nil, fmt.Errorf("node %d is the only one of the cluster", d.node)
	}
	if isOnlyVoter(c, d.node) {
		return nil, fmt.Errorf("do not stop node %d: it is the only one that votes on the metadata, so that the cluster ends without it; "+
			"it can be drained and removed once three nodes vote, which they do as soon as there are three (leat.quorum.voters)", d.node)
	}
	adm := kadm.NewClient(cl)
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for topics: %w", err)
	}
	for _, t := range topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			v.partitions = append(v.partitions, p)
			for _, id := range p.Replicas {
				v.load[id]++
			}
		}
	}
	if v.under, err = adm.ListPartitionReassignments(ctx, nil); err != nil {
		return nil, fmt.Errorf("asking for reassignments: %w", err)
	}
	return v, nil
}

// isOnlyVoter tells whether no other node than this one votes on the metadata.
func isOnlyVoter(c *admin.Cluster, node int32) bool {
	votes := false
	for _, n := range slices.Concat(c.Brokers, c.Others) {
		switch isVoter := n.Role == "leader" || n.Role == "voter"; {
		case isVoter && n.ID == node:
			votes = true
		case isVoter:
			return false
		}
	}
	return votes
}

// drainPlan is the next step of a drain.
type drainPlan struct {
	moves     []plannedChange // to begin now
	everyMove []plannedChange // also those for which there is no room now
	moving    int             // partitions that are leaving the node already, or are reassigned by somebody else
	elect     kadm.TopicsSet  // partitions that the node leads although another replica is preferred, and in sync
	held      int             // partitions of which the node has a replica
	kept      []string        // partitions of which no other node may have the replica
	stuck     []string        // those of which nobody has the records but the node, which does not serve
	alone     []string        // those of kept whose only replica in sync is that of the node
}

// left is how many partitions are to be moved, or get another leader.
func (p *drainPlan) left() int {
	elections := 0
	for _, partitions := range p.elect {
		elections += len(partitions)
	}
	return len(p.everyMove) + p.moving + elections
}

// plan chooses the next moves.
func (d *drain) plan(v *drainView) *drainPlan {
	plan := &drainPlan{elect: kadm.TopicsSet{}}
	room := d.atOnce
	for i := range v.partitions {
		p := &v.partitions[i]
		if !slices.Contains(p.Replicas, d.node) {
			continue
		}
		plan.held++
		replicas := p.Replicas
		if u, ok := v.under[p.Topic][p.Partition]; ok {
			if !v.isInVain(&u) || !slices.Contains(u.RemovingReplicas, d.node) {
				plan.moving++
				room--
				continue
			}
			replicas = slices.DeleteFunc(slices.Clone(replicas), func(id int32) bool { return slices.Contains(u.AddingReplicas, id) })
		}
		target, ok := d.choose(v, p, replicas, plan)
		if !ok {
			continue
		}
		for _, id := range target {
			if !slices.Contains(p.Replicas, id) {
				v.load[id]++
			}
		}
		change := plannedChange{p.Topic, p.Partition, p.Replicas, target}
		plan.everyMove = append(plan.everyMove, change)
		if room > 0 {
			room--
			plan.moves = append(plan.moves, change)
		}
	}
	return plan
}

// isInVain tells whether a reassignment cannot end: a node that is to get a replica does not serve.
func (v *drainView) isInVain(u *kadm.ListPartitionReassignmentsResponse) bool {
	return slices.ContainsFunc(u.AddingReplicas, func(id int32) bool {
		return !slices.ContainsFunc(v.others, func(b place.Broker) bool { return b.ID == id && b.Active })
	})
}

// choose chooses the replicas that a partition is to have: with another node in the place of the drained one or, if none may be, with
// that one as the last that is preferred as the leader. It is not ok if nothing is to be changed; the plan says then what else is to be
// done.
func (d *drain) choose(v *drainView, p *kadm.PartitionDetail, replicas []int32, plan *drainPlan) (target []int32, ok bool) {
	name := fmt.Sprintf("%s-%d", p.Topic, p.Partition)
	isInSync := func(id int32) bool { return id != d.node && slices.Contains(p.ISR, id) }
	if !v.serves && !slices.ContainsFunc(replicas, isInSync) {
		plan.stuck = append(plan.stuck, name)
		return nil, false
	}
	if target, ok = place.Replace(v.others, v.load, replicas, d.node); ok {
		return target, true
	}
	plan.kept = append(plan.kept, name)
	first := slices.IndexFunc(replicas, isInSync)
	switch {
	case first < 0:
		plan.alone = append(plan.alone, name)
		return nil, false
	case p.Leader != d.node && replicas[0] != d.node:
		return nil, false // another one leads
	case isInSync(replicas[0]):
		plan.elect.Add(p.Topic, p.Partition)
		return nil, false
	}
	target = []int32{replicas[first]}
	for _, id := range replicas {
		if id != replicas[first] && id != d.node {
			target = append(target, id)
		}
	}
	return append(target, d.node), true
}

// carryOut begins the moves and the elections.
func (p *drainPlan) carryOut(ctx context.Context, adm *kadm.Client) error {
	var failed []error
	if len(p.moves) > 0 {
		var req kadm.AlterPartitionAssignmentsReq
		for _, m := range p.moves {
			req.Assign(m.Topic, m.Partition, m.To)
		}
		resp, err := adm.AlterPartitionAssignments(ctx, req)
		if err != nil {
			return fmt.Errorf("moving replicas: %w", err)
		}
		for _, r := range resp.Sorted() {
			if r.Err != nil && !errors.Is(r.Err, kerr.UnknownTopicOrPartition) { // it was deleted meanwhile
				failed = append(failed, answerError(fmt.Sprintf("topic %s, partition %d", r.Topic, r.Partition), r.Err, r.ErrMessage))
			}
		}
	}
	if len(p.elect) > 0 {
		resp, err := adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, p.elect)
		if err != nil {
			return cmp.Or(errors.Join(failed...), fmt.Errorf("electing leaders: %w", err))
		}
		for topic, partitions := range resp {
			for n, r := range partitions {
				if r.Err != nil && !errors.Is(r.Err, kerr.ElectionNotNeeded) && !errors.Is(r.Err, kerr.UnknownTopicOrPartition) && !errors.Is(r.Err, kerr.PreferredLeaderNotAvailable) {
					failed = append(failed, answerError(fmt.Sprintf("topic %s, partition %d", topic, n), r.Err, r.ErrMessage))
				}
			}
		}
	}
	return errors.Join(failed...)
}

// showDrained shows the end of a drain, or what it would do.
func (a *app) showDrained(n *drainedNode) error {
	return a.show(n, func() string {
		text := ""
		if n.DryRun && len(n.Moves) > 0 {
			t := columns{head: []string{"TOPIC", ">PARTITION", "REPLICAS", "WOULD BE"}}
			for _, m := range n.Moves {
				t.addRow(m.Topic, strconv.Itoa(int(m.Partition)), formatIDs(m.From), formatIDs(m.To))
			}
			text = t.String()
		} else if n.DryRun {
			text = fmt.Sprintf("nothing would be moved away from node %d\n", n.Node)
		}
		if n.Kept > 0 {
			text += fmt.Sprintf("node %d keeps replicas of %s: each other node has one already, does not serve, or has little room\n", n.Node, formatCount(n.Kept, "partition"))
		}
		if n.Alone > 0 {
			text += fmt.Sprintf("node %d alone has all records of %s: do not stop it\n", n.Node, formatCount(n.Alone, "partition"))
		}
		if !n.DryRun {
			text += fmt.Sprintf("node %d is drained (%s moved): stop it, and remove it with \"leat cluster remove %d\"\n", n.Node, formatCount(n.Moved, "partition"), n.Node)
		}
		return text
	})
}
