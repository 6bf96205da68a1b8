package mirror

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

const (
	// pollEvery is how often positions are polled. A source with so many groups that a round takes long is polled less often: a round takes one part in pollShare of the time at most.
	pollEvery = 5 * time.Second
	pollShare = 2
	// polledGroups is of how many groups one request asks for the positions.
	polledGroups = 100
)

// errTailed says that the records of the source's groups can be read from now on.
var errTailed = errors.New("the records of the source's groups can be read now")

// poll asks for the positions of all groups again and again, until the context ends or their records can be read.
func (p *positions) poll(ctx context.Context) error {
	p.mu.Lock()
	p.mode = PositionsPolled
	p.mu.Unlock()
	for {
		began := time.Now()
		err := p.pollOnce(ctx, began)
		if errors.Is(err, position.ErrFull) {
			return err
		}
		p.note(ctx, err)
		fill(p.wake)
		sleep(ctx, max(pollEvery, min(time.Since(began)*pollShare, tailAgain)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if topic, err := p.findRecords(ctx); err == nil && topic != nil {
			return errTailed
		}
	}
}

// pollOnce polls all groups that the source lists, and those that had positions there, or have some here of the link: one that is not listed any more may be gone, or hidden from the link.
func (p *positions) pollOnce(ctx context.Context, began time.Time) error {
	asking, cancel := context.WithTimeout(ctx, askTime)
	listed, err := p.client.ListGroups(asking)
	cancel()
	if err != nil {
		return err
	}
	names := map[string]struct{}{}
	for _, name := range listed {
		if p.s.set.Groups.Has(name) {
			names[name] = struct{}{}
		}
	}
	p.mu.Lock()
	for _, name := range p.machine.Groups() {
		names[name] = struct{}{}
	}
	maps.Copy(names, p.ours)
	p.mu.Unlock()
	unasked := map[string]struct{}{}
	var denied error
	for some := range slices.Chunk(slices.Sorted(maps.Keys(names)), polledGroups) {
		if err := p.pollGroups(ctx, some, unasked); source.IsDenied(err) {
			denied = err
		} else if err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unasked = unasked
	p.machine.PolledAll(began.UnixMilli(), slices.Collect(maps.Keys(names)))
	if denied != nil {
		return deniedGroupsError{denied, len(unasked)}
	}
	return nil
}

// deniedGroupsError says that some groups are hidden from the link.
type deniedGroupsError struct {
	err   error
	count int
}

func (e deniedGroupsError) Error() string {
	return "the link may not see the positions of " + countOf(e.count, "group") + " of the source: " + e.err.Error()
}

func (e deniedGroupsError) Unwrap() error { return e.err }

// pollGroups polls some groups. Those that are hidden from the link are added to unasked; the error says so, or that the round is not complete.
func (p *positions) pollGroups(ctx context.Context, names []string, unasked map[string]struct{}) (failed error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	began := time.Now().UnixMilli()
	found, err := p.client.FetchPositions(ctx, names)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range found {
		g := &found[i]
		switch {
		case source.IsDenied(g.Err):
			unasked[g.Group] = struct{}{}
			if failed == nil {
				failed = g.Err
			}
			continue
		case g.Err != nil:
			return g.Err
		}
		list := make([]position.Placed, len(g.Positions))
		for k := range g.Positions {
			of := &g.Positions[k]
			list[k] = position.Placed{
				Place: position.Place{Topic: of.Topic, Partition: of.Partition}, Position: position.Position{Offset: record.Offset(of.Offset), Epoch: epochOf(of.Epoch), Metadata: of.Metadata},
			}
		}
		if err := p.machine.Polled(g.Group, began, list); err != nil {
			return err
		}
	}
	return failed
}
