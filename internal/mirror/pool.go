package mirror

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

const (
	// mostWants is how many partitions share a request.
	mostWants = 10_000
	// mostFilled is how many partitions a request of the backfill has at most: as many as it gets records of, about.
	mostFilled = 4
	// backfillLines is by how many connections the backfill is read from one broker, since Linux lets a connection have 3 MiB under way unless it is told otherwise; and lanesOfLine how many fetches are
	// under way on each: while one answer is on its way, the broker has the next request already, so that a line with a long round trip is never idle. mostBackfills is how many are under way for a link.
	backfillLines = 4
	lanesOfLine   = 2
	mostBackfills = 16
	// tipBytes and backfillBytes are how many bytes an answer has at most, if there is so much memory, and partitionBytes how many of one partition at the tip.
	tipBytes       = 8 << 20
	backfillBytes  = 16 << 20
	partitionBytes = 1 << 20
	// tipWait is how long a source may wait for records.
	tipWait = 500 * time.Millisecond
	// lanePause is the pause after a fetch that has failed.
	lanePause = 50 * time.Millisecond
)

// pool reads for all partitions that want something of one broker of a source.
type pool struct {
	s        *session
	broker   int32
	tip      queue[want] // fetches of partitions at the ends of their logs
	backfill queue[want] // of those that are behind
	asks     queue[want] // questions about offsets and epochs
}

func newPool(s *session, broker int32) *pool {
	p := &pool{s: s, broker: broker, tip: makeQueue[want](), backfill: makeQueue[want](), asks: makeQueue[want]()}
	s.start((&lane{pool: p, line: newLine(s), queue: &p.tip, most: mostWants, isTip: true}).run)
	for range backfillLines {
		line := newLine(s)
		for range lanesOfLine {
			s.start((&lane{pool: p, line: line, queue: &p.backfill, most: mostFilled}).run)
		}
	}
	s.start(p.answerAsks)
	return p
}

// end ends the queues, and returns those who wait in them.
func (p *pool) end() []want {
	left := p.tip.end(errSessionEnded)
	left = append(left, p.backfill.end(errSessionEnded)...)
	return append(left, p.asks.end(errSessionEnded)...)
}

// line is a client for fetches alone, with connections of its own: a broker answers the requests of a connection one after another.
type line struct {
	client atomic.Pointer[source.Client]
	turn   chan struct{} // of size 1; filled while somebody connects
}

// newLine makes a line that connects when it is used first, and ends with the session.
func newLine(s *session) *line {
	l := &line{turn: make(chan struct{}, 1)}
	s.start(func(ctx context.Context) {
		<-ctx.Done()
		l.turn <- struct{}{} // nobody connects any more
		if c := l.client.Load(); c != nil {
			c.Close()
		}
	})
	return l
}

// connect returns the client, and makes it if there is none.
func (l *line) connect(ctx context.Context, s *session) (*source.Client, error) {
	if c := l.client.Load(); c != nil {
		return c, nil
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := l.client.Load(); c != nil || ctx.Err() != nil {
		return c, ctx.Err()
	}
	c, err := s.connect(ctx)
	if err == nil {
		l.client.Store(c)
	}
	return c, err
}

// lane has one fetch at a time under way. It belongs to its goroutine.
type lane struct {
	*pool

	line   *line
	queue  *queue[want]
	most   int
	isTip  bool
	commit uint64 // of what the last answer has appended
}

func (l *lane) run(ctx context.Context) {
	for {
		most := l.most
		if !l.isTip { // all lanes get some
			most = min(l.queue.count()/(backfillLines*lanesOfLine)+1, most)
		}
		wants, ok := l.queue.take(ctx, most)
		if !ok {
			return
		}
		if err := l.fetch(ctx, wants); err != nil {
			l.s.counts.countRequest(ctx, err)
			err = orEnded(ctx, err)
			for i := range wants {
				wants[i].p.answer(&wants[i].a, &reply{trouble: lost(err)})
			}
			l.recover(ctx)
		}
	}
}

// recover has the next fetch find the broker where it is by then.
func (l *lane) recover(ctx context.Context) {
	sleep(ctx, lanePause)
	if c := l.line.client.Load(); c != nil {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		_, _ = c.Describe(ctx, []string{}) // for the addresses of brokers; who cannot be asked is met by the next fetch
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// fetch reads for partitions, and gives them what has come. An error is of all of them.
func (l *lane) fetch(ctx context.Context, wants []want) error {
	s := l.s.s
	if !l.isTip {
		select {
		case l.s.bulk <- struct{}{}:
			defer func() { <-l.s.bulk }()
		case <-ctx.Done():
			return errSessionEnded
		}
	}
	if err := l.s.rate.wait(ctx, s.now, l.isTip); err != nil {
		return errSessionEnded
	}
	bytes := l.s.rate.bound(l.bytes())
	memory, err := l.reserve(ctx, bytes)
	if err != nil {
		return err
	}
	defer memory.Release()
	client, err := l.line.connect(ctx, l.s)
	if err != nil {
		return err
	}
	answerBy, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	f, err := client.Fetch(answerBy, l.broker, positionsOf(wants, l.share(bytes, len(wants))), l.bounds(bytes))
	if err != nil {
		return err
	}
	s.commits.await(ctx, l.commit) // so that no more than two answers wait for the disk
	l.giveOut(ctx, wants, f)
	return nil
}

// giveOut gives partitions what has come.
func (l *lane) giveOut(ctx context.Context, wants []want, f *source.Fetched) {
	s, size, isAppended := l.s.s, 0, false
	for i := range f.Batches {
		w, b := &wants[i], &f.Batches[i]
		size += len(b.Raw)
		r := replyOf(b, f.ComparesEpochs())
		if l.isTip || len(b.Raw) == 0 {
			isAppended = w.p.take(&w.a, r) || isAppended
			continue
		}
		end := s.pace.begin(ctx)
		isMore := w.p.takePaced(&w.a, r)
		end()
		for l.commit = s.commits.want(); isMore; l.commit = s.commits.want() {
			end = s.pace.begin(ctx)
			isMore = w.p.appendMore()
			end()
		}
	}
	if isAppended {
		l.commit = s.commits.want()
	}
	l.s.rate.spend(s.now(), size)
}

// bytes is how many bytes an answer may have, so that some answers are under way at a time.
func (l *lane) bytes() int64 {
	most := l.s.s.cfg.Memory.Most(budget.Mirror)
	if l.isTip {
		return min(tipBytes, most/16)
	}
	return min(backfillBytes, most/8)
}

// reserve reserves memory. The tip does not wait for the backfill.
func (l *lane) reserve(ctx context.Context, bytes int64) (budget.Reservation, error) {
	if l.isTip {
		return l.s.s.cfg.Memory.Reserve(ctx, budget.Mirror, bytes)
	}
	return l.s.s.cfg.Memory.ReserveLarge(ctx, budget.Mirror, bytes)
}

// share is how many bytes an answer may have of one partition.
func (l *lane) share(bytes int64, partitions int) int64 {
	if l.isTip {
		return min(bytes, partitionBytes)
	}
	return max(bytes/int64(min(partitions, mostFilled)), 1)
}

func (l *lane) bounds(bytes int64) source.Bounds {
	b := source.Bounds{MaxBytes: int32(bytes), MinBytes: 1}
	if l.isTip {
		b.Wait = tipWait
	}
	return b
}

func positionsOf(wants []want, bytes int64) []source.Position {
	list := make([]source.Position, len(wants))
	for i := range wants {
		a := &wants[i].a
		list[i] = source.Position{Place: wants[i].place, Offset: int64(a.Offset), Leader: int32(a.LeaderEpoch), LastEpoch: int32(a.LastEpoch), MaxBytes: int32(bytes)}
	}
	return list
}

// replyOf is what an answer to a fetch has of one partition.
func replyOf(b *source.Batches, compares bool) *reply {
	a := &progress.Answer{
		Trouble: sourceTrouble(b.Err), Compared: compares, Start: record.Offset(b.Start), HighWatermark: record.Offset(b.HighWatermark), Stable: record.Offset(b.Stable), Nearer: b.Nearer, Raw: b.Raw,
	}
	if d := b.Diverged; d != nil {
		a.Diverged = &progress.Tail{Epoch: epochOf(d.Epoch), End: record.Offset(d.End)}
	}
	return &reply{fetched: a}
}
