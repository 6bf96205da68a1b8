package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

const (
	// connectTime is how long a connection to a source may take, and askTime an answer that does not wait for records.
	connectTime = 15 * time.Second
	askTime     = 20 * time.Second
	// mostTopics is how many topics one request asks for.
	mostTopics = 1000
	// openLinkAgain is the pause after the settings of a link could not be used: a sealing key may still come.
	openLinkAgain = 5 * time.Second
)

// want is a partition that wants something of a source.
type want struct {
	p     *partition
	a     progress.Action
	place source.Place
}

// session is the connections of a link with its present settings. When these change, it ends, and another one begins.
type session struct {
	s    *Service
	link *meta.Link
	set  *Settings
	rate *throttle
	// counts are the link's, over all of its sessions.
	counts *linkCounts

	topics queue[want] // partitions whose topics are to be described
	main   atomic.Pointer[source.Client]
	bulk   chan struct{} // has a place for each fetch of the backfill that may be under way

	// start starts a goroutine that ends with the session.
	start  func(run func(ctx context.Context))
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	pools map[int32]*pool
	ended bool
	seen  map[string]seenTopic // topics of the source, by their names there, as the task for topics has seen them last
}

// openSession begins a session. No connection is made yet.
func openSession(ctx context.Context, l *link, conf *meta.Link) (*session, error) {
	set, err := l.s.settingsOf(conf)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		s: l.s, link: conf, set: set, rate: &l.rate, counts: &l.counts, topics: makeQueue[want](), bulk: make(chan struct{}, mostBackfills), cancel: cancel, pools: map[int32]*pool{},
		seen: map[string]seenTopic{},
	}
	s.start = func(run func(ctx context.Context)) { s.work.Go(func() { run(ctx) }) }
	s.start(s.describeTopics)
	return s, nil
}

// close ends the session, and tells those who wait.
func (s *session) close() {
	s.mu.Lock()
	s.ended = true
	pools := s.pools
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	left := s.topics.end(errSessionEnded)
	for _, p := range pools {
		left = append(left, p.end()...)
	}
	for i := range left {
		w := &left[i]
		w.p.answer(&w.a, &reply{trouble: lost(errSessionEnded)})
	}
	if c := s.main.Swap(nil); c != nil {
		c.Close()
	}
}

// pool is the pool of a broker of the source.
func (s *session) pool(broker int32) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[broker]
	switch {
	case s.ended:
		return nil, errSessionEnded
	case p == nil:
		p = newPool(s, broker)
		s.pools[broker] = p
	}
	return p, nil
}

// connect makes a client, and finds out whether it reaches the right cluster.
func (s *session) connect(ctx context.Context) (*source.Client, error) {
	return s.connectAs(ctx, s.set.rack)
}

// connectAs is connect for one that reads as if it were in a rack; "": from the leaders.
func (s *session) connectAs(ctx context.Context, rack string) (*source.Client, error) {
	c, err := s.set.sourceConfig(s.s.clientID())
	if err != nil {
		return nil, err
	}
	c.Dial, c.Dialled, c.Rack = s.s.dialer(s.link, s.set), s.counts.countDial, rack
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	client, err := source.New(ctx, c)
	if err != nil {
		return nil, err
	}
	cluster, err := client.Describe(ctx, []string{})
	if err == nil {
		err = s.checkCluster(cluster)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// errOtherCluster says that a link's addresses lead to another cluster than before.
var errOtherCluster = errors.New("the addresses of the link lead to another cluster")

func (s *session) checkCluster(c *source.Cluster) error {
	if c.ID != s.link.Source && s.link.Source != "" { // that of a link by agents is not known at first
		return fmt.Errorf("%w: it is %q, and the source is %q", errOtherCluster, c.ID, s.link.Source)
	}
	return nil
}

// client is the client for all but records, which is made when it is needed first. One goroutine at a time calls it: that of describeTopics, or of tasks.
func (s *session) client(ctx context.Context) (*source.Client, error) {
	if c := s.main.Load(); c != nil {
		return c, nil
	}
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if !s.main.CompareAndSwap(nil, c) { // the other one was faster
		c.Close()
		c = s.main.Load()
	}
	return c, nil
}

// describeTopics answers what partitions ask about their topics, for many at once.
func (s *session) describeTopics(ctx context.Context) {
	for {
		wants, ok := s.topics.take(ctx, mostWants)
		if !ok {
			return
		}
		names, byName := []string{}, map[string][]*want{}
		for i := range wants {
			name := wants[i].place.Topic
			if byName[name] == nil {
				names = append(names, name)
			}
			byName[name] = append(byName[name], &wants[i])
		}
		for len(names) > 0 {
			n := min(len(names), mostTopics)
			s.describe(ctx, names[:n], byName)
			names = names[n:]
		}
	}
}

func (s *session) describe(ctx context.Context, names []string, wants map[string][]*want) {
	cluster, err := s.askCluster(ctx, names)
	s.counts.countRequest(ctx, err)
	found := map[string]*source.Topic{}
	if err == nil {
		for i := range cluster.Topics {
			found[cluster.Topics[i].Name] = &cluster.Topics[i]
		}
	}
	for _, name := range names {
		for _, w := range wants[name] {
			r := &reply{}
			switch t := found[name]; {
			case err != nil:
				r.trouble = lost(orEnded(ctx, err))
			case t == nil:
				r.trouble = progress.Trouble{Kind: progress.Lost, Reason: "the source has not answered for the topic"}
			default:
				r.description, r.trouble = describePartition(t, w.place.Number)
			}
			w.p.answer(&w.a, r)
		}
	}
}

// askCluster describes topics of the right cluster.
func (s *session) askCluster(ctx context.Context, names []string) (*source.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	cluster, err := client.Describe(ctx, names)
	if err == nil {
		err = s.checkCluster(cluster)
	}
	return cluster, err
}

// describePartition is what a topic says of one of its partitions.
func describePartition(t *source.Topic, number int32) (d progress.Description, trouble progress.Trouble) {
	if trouble = sourceTrouble(t.Err); trouble.Kind != progress.NoTrouble {
		return d, trouble
	}
	if int(number) >= len(t.Partitions) {
		return d, progress.Trouble{Kind: progress.TopicGone}
	}
	p := &t.Partitions[number]
	if p.Leader < 0 {
		return d, progress.Trouble{Kind: progress.LeaderUnknown}
	}
	return progress.Description{Topic: progress.TopicID(t.ID), Leader: p.Leader, LeaderEpoch: epochOf(p.LeaderEpoch)}, progress.Trouble{}
}

// epochOf is an epoch of a source, which has -1 for none.
func epochOf(e int32) record.Epoch {
	if e < 0 {
		return record.NoEpoch
	}
	return record.Epoch(e)
}

// link is a link of which this node has partitions, or whose tasks it runs.
type link struct {
	s       *Service
	id      meta.UUID
	rate    throttle
	newest  atomic.Pointer[meta.Link]
	changed chan struct{} // of size 1; filled: newest is another one
	counts  linkCounts
	cancel  context.CancelFunc

	session atomic.Pointer[session] // nil: the link is paused, or cannot be used
	problem atomic.Pointer[error]   // why it cannot be used
	tasks   tasks

	evidence   *evidence
	readings   readings
	promotions chan struct{} // of size 1; filled: a topic is to be promoted
}

// run keeps a session with the present settings, until the link is removed.
func (l *link) run(ctx context.Context) {
	for {
		conf := l.newest.Load()
		var s *session
		var err error
		if !conf.Paused {
			s, err = openSession(ctx, l, conf)
		}
		l.problem.Store(&err)
		if s != nil {
			l.session.Store(s)
			s.start(func(ctx context.Context) { l.tasks.run(ctx, s) })
			s.start(newPositions(s, &l.tasks).run)
			s.start((&watch{s: s}).run)
			l.s.beginAnew(l)
		} else {
			l.tasks.pause(conf.Paused, err)
		}
		if err != nil {
			l.s.cfg.Logger.Warn("a link cannot be used", "link", conf.Name, "err", err)
		}
		l.awaitChange(ctx, err != nil)
		if s != nil {
			l.session.Store(nil)
			s.close()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// awaitChange waits until the link is another one, or is to be tried again.
func (l *link) awaitChange(ctx context.Context, again bool) {
	var retry <-chan time.Time
	if again {
		t := time.NewTimer(openLinkAgain)
		defer t.Stop()
		retry = t.C
	}
	select {
	case <-l.changed:
	case <-retry:
	case <-ctx.Done():
	}
}

// explain says why there is no session.
func (l *link) explain() error {
	if err := l.problem.Load(); err != nil && *err != nil {
		return *err
	}
	return errSessionEnded
}
