package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
)

const (
	// watchTime is for how long a node watches whether partitions become complete, or whether the source is heard of, before it says that it is not so.
	watchTime = 3 * time.Second
	// lookAgain is the pause between two looks.
	lookAgain = 200 * time.Millisecond
	// heardAgain is by how much a node's last contact must have moved on for it to be a new one: the time of one contact is told anew each time, with the clock as it is then.
	heardAgain = time.Second
)

// promote begins the promotion of topics that still mirror, if nothing speaks against it.
func (r *linkRequest) promote(ctx context.Context) (*controller.Error, error) {
	topics, refused := r.mirroring()
	if refused != nil || len(topics) == 0 {
		return refused, nil
	}
	if r.q.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.q.Within)
		defer cancel()
	}
	var err error
	switch {
	case r.q.Verb == cluster.LinkPromote:
		err = r.checkComplete(ctx, topics)
	case !r.q.Force:
		err = r.checkGone(ctx)
	}
	if err != nil || len(r.a.Problems) > 0 {
		return nil, err
	}
	for some := range slices.Chunk(topics, controller.MaxLinkItems) {
		c := &controller.LinksChange{Kind: controller.PromoteMirrors}
		for _, t := range some {
			c.Topics = append(c.Topics, controller.MirrorTopic{ID: t.ID})
		}
		if refused, err := r.change(ctx, c); refused != nil || err != nil {
			return refused, err
		}
	}
	return nil, nil
}

// mirroring are the topics of a request, or all of the link, whose promotion has not begun.
func (r *linkRequest) mirroring() (list []*meta.Topic, refused *controller.Error) {
	if len(r.q.Topics) > 0 {
		list, refused = r.topicsOf()
	} else {
		list = slices.Collect(r.l.n.image.Load().Mirrors(r.link.ID))
		slices.SortFunc(list, func(a, b *meta.Topic) int { return strings.Compare(a.Name, b.Name) })
	}
	return slices.DeleteFunc(list, func(t *meta.Topic) bool { return t.Mirror.State >= meta.MirrorPromoting }), refused
}

// look tells how the partitions of topics do; without any, all of the link.
func (r *linkRequest) look(ctx context.Context, topics []*meta.Topic) (list []cluster.PartitionStatus, err error) {
	var names []string
	for _, t := range topics {
		names = append(names, t.Name)
	}
	list, r.a.Silent, err = cluster.DescribeMirrors(ctx, r.l.n.peers.commands, r.link, names)
	return list, err
}

// checkComplete makes a problem of each partition that lacks anything which the source had when the check began. It waits for those that are about to be complete: the source is asked all the time, and the newest answer may have
// been asked for before.
func (r *linkRequest) checkComplete(ctx context.Context, topics []*meta.Topic) error {
	began := time.Now()
	for {
		since := time.Since(began) // what is known as of a moment within this time span is new
		list, err := r.look(ctx, topics)
		if err != nil {
			return err
		}
		lacking := slices.DeleteFunc(list, func(p cluster.PartitionStatus) bool { return explainLack(&p, since) == "" })
		if len(lacking) == 0 {
			r.a.Steps = append(r.a.Steps, "all that the source had committed when this was asked for is here")
			return nil
		}
		if since >= watchTime || !slices.ContainsFunc(lacking, func(p cluster.PartitionStatus) bool { return isOnItsWay(p.State) }) {
			for i := range lacking {
				p := &lacking[i]
				r.a.Problems = append(r.a.Problems, cluster.LinkProblem{About: fmt.Sprintf("%s-%d", p.Topic, p.Partition), Text: explainLack(p, since)})
			}
			return nil
		}
		if err := pauseFor(ctx, lookAgain); err != nil {
			return err
		}
	}
}

// isOnItsWay tells whether a partition in a state may soon mirror all, without a person.
func isOnItsWay(state string) bool {
	return slices.Contains([]string{progress.Mirroring.String(), progress.Preparing.String(), progress.Cutting.String(), progress.Idle.String()}, state)
}

// explainLack says why a partition is not known to have all that the source had committed at some moment within a time span; "": it has all.
func explainLack(p *cluster.PartitionStatus, since time.Duration) string {
	switch {
	case p.State != progress.Mirroring.String() && p.Reason != "":
		return fmt.Sprintf("It is %s: %s.", p.State, strings.TrimSuffix(p.Reason, "."))
	case p.State != progress.Mirroring.String():
		return fmt.Sprintf("It is %s.", p.State)
	case p.Lag.Records < 0 || p.Lag.RPO < 0:
		return "It is not known yet how far it is behind the source."
	case p.Lag.Records > 0:
		return fmt.Sprintf("It lacks %d records, which end at offset %d; %s ago, at most, it had all.", p.Lag.Records, p.SourceEnd, p.Lag.RPO.Round(time.Millisecond))
	case p.Lag.RPO > since:
		return fmt.Sprintf("It had all %s ago, at most, and the source has not said since whether there is more.", p.Lag.RPO.Round(time.Millisecond))
	case p.Open < 0:
		return "It is not known whether transactions are open in it."
	case p.Open > 0:
		return fmt.Sprintf("Transactions are open in it, %d, which would be aborted here, however they end at the source: end them there (\"leat txn list\"), or wait for their timeouts.", p.Open)
	}
	return ""
}

// pauseFor waits.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// checkGone makes a problem of a source that answers: to this node at one of the link's addresses, or to a node that mirrors.
func (r *linkRequest) checkGone(ctx context.Context) error {
	var secrets []byte
	if len(r.link.Secret) > 0 {
		var err error
		if secrets, err = r.l.openSecret(r.link.Secret); err != nil {
			r.a.Problems = append(r.a.Problems, cluster.LinkProblem{About: "source", Text: fmt.Sprintf("It cannot be found out whether the source is gone, since the link's login cannot be read: %v.", err)})
			return nil
		}
	}
	before, err := r.look(ctx, nil)
	if err != nil {
		return err
	}
	looked := time.Now()
	answer, err := r.l.service.Load().Probe(ctx, r.link, secrets)
	switch {
	case err != nil:
		r.a.Problems = append(r.a.Problems, cluster.LinkProblem{About: "source", Text: fmt.Sprintf("It cannot be found out whether the source is gone: %v.", err)})
		return nil
	case answer.Answers:
		r.a.Problems = append(r.a.Problems, cluster.LinkProblem{About: "source", Text: answer.Text})
		return nil
	}
	if err := pauseFor(ctx, watchTime-time.Since(looked)); err != nil {
		return err
	}
	after, err := r.look(ctx, nil)
	if err != nil {
		return err
	}
	if p := findHeard(before, after); p != nil {
		r.a.Problems = append(r.a.Problems, cluster.LinkProblem{About: "source", Text: fmt.Sprintf("Node %d hears from the source, about %s-%d, although this node does not. %s", p.Node, p.Topic, p.Partition, answer.Text)})
		return nil
	}
	r.a.Steps = append(r.a.Steps, "the source does not answer: "+strings.TrimSuffix(answer.Text, "."))
	return nil
}

// findHeard finds a partition whose leader has heard from the source between two looks; nil: there is none.
func findHeard(before, after []cluster.PartitionStatus) *cluster.PartitionStatus {
	was := map[cluster.PartitionPlace]*cluster.PartitionStatus{}
	for i := range before {
		was[before[i].PartitionPlace] = &before[i]
	}
	for i := range after {
		p := &after[i]
		if w := was[p.PartitionPlace]; w != nil && w.Node == p.Node && !p.LastContact.IsZero() && p.LastContact.Sub(w.LastContact) >= heardAgain {
			return p
		}
	}
	return nil
}
