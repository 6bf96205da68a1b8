package mirror

import (
	"context"
	"errors"

	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

// errNoBatch says that a broker sends no whole batch where one is to be read again.
var errNoBatch = errors.New("the source sends no whole batch")

// answerAsks answers questions about offsets and epochs, those of one kind for all partitions at once.
func (p *pool) answerAsks(ctx context.Context) {
	for {
		wants, ok := p.asks.take(ctx, mostTopics)
		if !ok {
			return
		}
		byKind := map[progress.ActionKind][]want{}
		byTime := map[int64][]want{}
		for _, w := range wants {
			if w.a.Kind == progress.FindBegin {
				byTime[w.a.Time] = append(byTime[w.a.Time], w)
			} else {
				byKind[w.a.Kind] = append(byKind[w.a.Kind], w)
			}
		}
		p.askAll(ctx, byKind[progress.FindEpoch], p.findEpochs)
		p.askAll(ctx, byKind[progress.FindRange], p.findRanges)
		p.askAll(ctx, byKind[progress.Reread], p.reread)
		for _, list := range byTime {
			p.askAll(ctx, list, p.findBegins)
		}
	}
}

// askAll asks one question for some partitions, and gives them the answers. An error is the answer to all.
func (p *pool) askAll(session context.Context, wants []want, ask func(ctx context.Context, c *source.Client, wants []want) ([]reply, error)) {
	if len(wants) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(session, askTime)
	defer cancel()
	var replies []reply
	c, err := p.s.main.Load(), errSessionEnded // a broker is known, so somebody has asked for the topic
	if c != nil {
		replies, err = ask(ctx, c, wants)
	}
	p.s.counts.countRequest(session, err)
	for i := range wants {
		r := &reply{}
		if err != nil {
			r.trouble = lost(orEnded(session, err))
		} else {
			r = &replies[i]
		}
		wants[i].p.answer(&wants[i].a, r)
	}
}

func (p *pool) findEpochs(ctx context.Context, c *source.Client, wants []want) ([]reply, error) {
	q := make([]source.Epoch, len(wants))
	for i := range wants {
		a := &wants[i].a
		q[i] = source.Epoch{Place: wants[i].place, Leader: int32(a.LeaderEpoch), Epoch: int32(a.Epoch)}
	}
	found, err := c.FindEpochEnds(ctx, p.broker, q)
	if err != nil {
		return nil, err
	}
	replies := make([]reply, len(wants))
	for i := range found {
		replies[i] = reply{trouble: sourceTrouble(found[i].Err), tail: progress.Tail{Epoch: epochOf(found[i].Epoch), End: record.Offset(found[i].Offset)}}
	}
	return replies, nil
}

// findOffsets finds offsets of all partitions at a time.
func (p *pool) findOffsets(ctx context.Context, c *source.Client, wants []want, at int64) ([]source.Found, error) {
	places, epochs := make([]source.Place, len(wants)), make([]int32, len(wants))
	for i := range wants {
		places[i], epochs[i] = wants[i].place, int32(wants[i].a.LeaderEpoch)
	}
	return c.FindOffsets(ctx, p.broker, places, epochs, at)
}

func (p *pool) findRanges(ctx context.Context, c *source.Client, wants []want) ([]reply, error) {
	starts, err := p.findOffsets(ctx, c, wants, source.Earliest)
	if err != nil {
		return nil, err
	}
	ends, err := p.findOffsets(ctx, c, wants, source.Latest)
	if err != nil {
		return nil, err
	}
	replies := make([]reply, len(wants))
	for i := range replies {
		r := &replies[i]
		r.limits = progress.SourceRange{Start: record.Offset(starts[i].Offset), HighWatermark: record.Offset(ends[i].Offset)}
		if r.trouble = sourceTrouble(starts[i].Err); starts[i].Err == nil {
			r.trouble = sourceTrouble(ends[i].Err)
		}
	}
	return replies, nil
}

func (p *pool) findBegins(ctx context.Context, c *source.Client, wants []want) ([]reply, error) {
	found, err := p.findOffsets(ctx, c, wants, wants[0].a.Time)
	if err != nil {
		return nil, err
	}
	replies := make([]reply, len(wants))
	for i := range found {
		replies[i] = reply{trouble: sourceTrouble(found[i].Err), offset: record.Offset(found[i].Offset)}
	}
	return replies, nil
}

// reread reads one batch of each partition. The connection is not that of a lane, so that no long poll is before it.
func (p *pool) reread(ctx context.Context, c *source.Client, wants []want) ([]reply, error) {
	f, err := c.Fetch(ctx, p.broker, positionsOf(wants, 1), source.Bounds{MaxBytes: tipBytes, MinBytes: 1})
	if err != nil {
		return nil, err
	}
	replies := make([]reply, len(wants))
	for i := range f.Batches {
		r, b := &replies[i], &f.Batches[i]
		if r.trouble = sourceTrouble(b.Err); b.Err != nil || len(b.Raw) == 0 {
			continue
		}
		batch, _, err := record.Next(b.Raw)
		if err == nil {
			err = batch.Verify()
		}
		if err != nil {
			r.trouble = lost(errors.Join(errNoBatch, err))
			continue
		}
		r.batch = progress.BatchOf(batch)
	}
	return replies, nil
}
