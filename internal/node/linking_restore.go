package node

import (
	"context"
	"slices"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
)

// restore has topics here mirror those of the source that have taken over from them. With a problem nothing is changed.
func (r *linkRequest) restore(ctx context.Context) (*controller.Error, error) {
	if r.q.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.q.Within)
		defer cancel()
	}
	plan, err := r.l.service.Load().PlanRestore(ctx, r.link, r.q.Topics)
	if err != nil {
		r.a.Problems = append(r.a.Problems, cluster.LinkProblem{About: "the source", Text: "The source cannot be asked what it has taken over: " + err.Error() + ".", Do: "leat link doctor " + r.link.Name})
		return nil, nil
	}
	r.a.Source = r.link.Source
	for _, t := range plan.Names {
		r.a.Topics = append(r.a.Topics, cluster.LinkTopic{Source: t.Source, Name: t.Here, Partitions: t.Partitions})
	}
	r.a.Warnings = append(r.a.Warnings, problemsOf(plan.Warnings)...)
	if r.a.Problems = append(r.a.Problems, problemsOf(plan.Problems)...); len(r.a.Problems) > 0 || len(plan.Topics) == 0 {
		return nil, nil
	}
	for some := range slices.Chunk(plan.Topics, controller.MaxLinkItems) {
		if refused, err := r.change(ctx, &controller.LinksChange{Kind: controller.RestoreMirrors, Topics: some}); refused != nil || err != nil {
			return refused, err
		}
	}
	return nil, nil
}
