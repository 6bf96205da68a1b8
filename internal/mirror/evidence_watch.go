package mirror

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/txn/entry"
)

// watchEvery is how often brokers of a source are asked who leads what is read here. What a leader has said counts for transactions when another broker has known it later: see progress.Mirror.HeldAt.
const watchEvery = time.Second

// mostReadings is how many partitions of its coordinators a source may have whose records are read: each takes a reading of its own. Apache Kafka has 50 unless it is told otherwise.
const mostReadings = 1000

// readings read the coordinators' log of a link's source.
type readings struct {
	mu       sync.Mutex   // guards the fields below
	list     []*partition // by number; nil: it is not read, since this node leads nothing of the link, or there is none
	isClosed bool         // the link was removed: nothing is read any more
}

// watch asks the source's brokers in turn who leads the partitions that this node mirrors, and has the coordinators' log be read while it leads any.
type watch struct {
	s      *session
	turn   int // which broker is asked next
	first  []int32
	byName map[string][]*partition
}

// run watches until the session ends.
func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		w.look(ctx)
		sleep(ctx, max(watchEvery, min(time.Since(began)*roundShare, configsEvery)))
	}
}

// look asks one broker about all partitions.
func (w *watch) look(ctx context.Context) {
	l := w.s.s.linkOf(w.s.link.ID)
	if l == nil {
		return
	}
	own := l.s.partitionsOf(l.id)
	if len(own) == 0 && !l.s.hasEnded(l.id) {
		l.endReadings(false)
		return
	}
	w.byName = map[string][]*partition{}
	for _, p := range own {
		if o := p.newest.Load(); o != nil && !o.mirror.IsEndOfSource() {
			w.byName[o.of.Topic] = append(w.byName[o.of.Topic], p)
			p.noteHeld()
		}
	}
	w.byName[entry.Topic] = append(w.byName[entry.Topic], l.listReadings()...)
	for names := range slices.Chunk(slices.Sorted(maps.Keys(w.byName)), mostTopics) {
		asked := w.s.s.now()
		c, broker, err := w.ask(ctx, names)
		if err != nil {
			continue // who mirrors finds out by itself
		}
		for i := range c.Topics {
			w.tell(l, &c.Topics[i], &progress.Description{Broker: broker, IsOnly: len(c.Brokers) == 1, Asked: asked})
		}
	}
	w.turn++
}

// ask asks the broker whose turn it is. The first time it is not known who there is.
func (w *watch) ask(ctx context.Context, names []string) (c *source.Cluster, broker int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client, err := w.s.client(ctx)
	if err != nil {
		return nil, -1, err
	}
	if len(w.first) == 0 {
		if c, err = client.Describe(ctx, []string{}); err != nil {
			return nil, -1, err
		}
		w.noteBrokers(c)
	}
	if len(w.first) == 0 {
		return nil, -1, errSessionEnded
	}
	broker = w.first[w.turn%len(w.first)]
	if c, err = client.DescribeBy(ctx, broker, names); err == nil {
		err = w.s.checkCluster(c)
	}
	if err != nil {
		w.first, w.turn = nil, w.turn+1
		return nil, -1, err
	}
	w.noteBrokers(c)
	return c, broker, nil
}

func (w *watch) noteBrokers(c *source.Cluster) {
	w.first = w.first[:0]
	for i := range c.Brokers {
		w.first = append(w.first, c.Brokers[i].ID)
	}
	slices.Sort(w.first)
}

// tell tells partitions what a broker knows of their topic. What it does not know is no matter: they ask the source themselves.
func (w *watch) tell(l *link, t *source.Topic, d *progress.Description) {
	if t.Name == entry.Topic && t.Err == nil && len(t.Partitions) <= mostReadings {
		l.read(len(t.Partitions))
	}
	for _, p := range w.byName[t.Name] {
		of, trouble := describePartition(t, p.id.Number)
		if trouble.Kind != progress.NoTrouble {
			continue
		}
		of.Broker, of.IsOnly, of.Asked = d.Broker, d.IsOnly, d.Asked
		p.described(&of)
	}
}

// described tells the machine what a broker of the source knows of the partition.
func (p *partition) described(d *progress.Description) {
	p.mu.Lock()
	p.machine.Described(p.s.now(), 0, d)
	p.drive()
	isAppended := p.takeAppended()
	p.mu.Unlock()
	if isAppended {
		p.s.commits.want()
	}
}

// linkOf is a link by its id; nil: it was removed.
func (s *Service) linkOf(id meta.UUID) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[id]
}

// read has all partitions of the coordinators' log be read, of which there are so many.
func (l *link) read(partitions int) {
	l.readings.mu.Lock()
	defer l.readings.mu.Unlock()
	for n := len(l.readings.list); n < partitions && !l.readings.isClosed; n++ {
		l.readings.list = append(l.readings.list, newReading(l, int32(n)))
	}
}

func (l *link) listReadings() []*partition {
	l.readings.mu.Lock()
	defer l.readings.mu.Unlock()
	return slices.Clone(l.readings.list)
}

// endReadings ends the reading of the coordinators' log, and forgets what was read; with isLast for good.
func (l *link) endReadings(isLast bool) {
	l.readings.mu.Lock()
	list := l.readings.list
	l.readings.isClosed = l.readings.isClosed || isLast
	l.readings.list = nil
	l.readings.mu.Unlock()
	for _, p := range list {
		p.newest.Store(nil)
		l.s.turns.add(p)
		l.evidence.forgetPartition(p.id.Number)
	}
}

// readAsOf is a time at which the source's coordinators had written nothing that was not read here; Never: none is known.
func (l *link) readAsOf() time.Duration {
	list := l.listReadings()
	asOf := progress.Never
	for i, p := range list {
		if at := p.reading.asOf(); i == 0 || at < asOf {
			asOf = at
		}
	}
	return asOf
}
