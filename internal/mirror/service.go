package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// turnWorkers is how many partitions have their turns at a time: they open logs, and move their starts.
const turnWorkers = 4

// Config is what a Service works with.
type Config struct {
	NodeID int32
	Logger *slog.Logger // nil: nothing is logged
	Image  func() *meta.Image
	Static *config.Static // the node's own settings, below those of topics
	// ChangeLinks has the active controller change something, on whatever node it is: see controller.ChangeLinks.
	ChangeLinks func(ctx context.Context, q *controller.LinksChange) (results []*controller.Error, refused *controller.Error, err error)
	// AlterConfigs changes configs on the node of the active controller, and IsController tells whether this node is that one: then it runs the tasks of links.
	AlterConfigs func(ctx context.Context, q []controller.ConfigChanges) ([]*controller.Error, error)
	IsController func() bool
	// Partition is the log of a partition that this node leads; nil: there is none any more.
	Partition func(id PartitionID) Log
	// Transactions are those of such a log.
	Transactions func(id PartitionID) Transactions
	// AskNode asks the Service of a node, this one or another, by its AnswerClaims.
	AskNode func(ctx context.Context, node int32, question json.RawMessage) (answer json.RawMessage, err error)
	// Commit makes durable what was appended to any log.
	Commit func()
	// CountCommits counts the commits for which clients have waited; nil: there are no clients.
	CountCommits func() int64
	// OpenSecret opens the secret of a link.
	OpenSecret func(sealed []byte) ([]byte, error)
	// Dial dials brokers of sources; nil: a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Memory bounds the answers of sources that are held, by its class Mirror; nil: nothing does.
	Memory *budget.Budget
}

// Service is the mirroring of a node. It must be closed.
type Service struct {
	cfg      Config
	began    time.Time
	machines progress.Config
	commits  *committer
	timers   timers
	turns    turns
	decider  decider
	pace     *pace
	markers  atomic.Int64 // commit markers that are kept of all partitions: see mostMarkers

	start  func(run func(ctx context.Context)) context.CancelFunc
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	closed bool
	links  map[meta.UUID]*link
	ended  map[PartitionID]ended              // those that were led here when nothing of the source came into them any more
	topics map[meta.UUID]map[int32]*partition // those that this node leads and that mirror
}

// New makes a Service that mirrors nothing until Apply tells it of links and topics.
func New(ctx context.Context, cfg *Config) *Service {
	s := &Service{
		cfg: *cfg, began: time.Now(), machines: progress.Config{Jitter: rand.Float64}, commits: newCommitter(cfg.Commit), turns: turns{queue: makeQueue[*partition]()},
		links: map[meta.UUID]*link{}, ended: map[PartitionID]ended{}, topics: map[meta.UUID]map[int32]*partition{},
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s.timers = timers{clock: s.now, wake: make(chan struct{}, 1)}
	if s.cfg.CountCommits == nil {
		s.cfg.CountCommits = func() int64 { return 0 }
	}
	s.pace = newPace(s.now, s.cfg.CountCommits)
	s.decider = decider{queue: makeQueue[decision](), ask: cfg.ChangeLinks}
	ctx, s.cancel = context.WithCancel(ctx)
	s.start = func(run func(ctx context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		s.work.Go(func() { run(ctx) })
		return cancel
	}
	s.start(s.commits.run)
	s.start(func(ctx context.Context) { s.timers.run(ctx, s.turns.add) })
	s.start(s.decider.run)
	for range turnWorkers {
		s.start(s.turns.run)
	}
	return s
}

// Close ends all mirroring. The logs belong to others.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true // no link is begun any more
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
}

// now is the time of the machines. It does not follow changes of the wall clock.
func (s *Service) now() time.Duration { return time.Since(s.began) }

// clientID is how a source sees this node.
func (s *Service) clientID() string {
	return fmt.Sprintf("leat-link-%s-%d", s.cfg.Image().ClusterID, s.cfg.NodeID)
}

// settingsOf reads the settings of a link, with its secret.
func (s *Service) settingsOf(l *meta.Link) (*Settings, error) {
	var secrets []byte
	if len(l.Secret) > 0 {
		var err error
		if secrets, err = s.cfg.OpenSecret(l.Secret); err != nil {
			return nil, fmt.Errorf("the secret of the link cannot be read: %w", err)
		}
	}
	return ParseSettings(l.Settings, secrets)
}

// Apply follows a change of the metadata. It does not wait for anything.
func (s *Service) Apply(d *meta.Delta, img *meta.Image) {
	for id, ch := range d.Links {
		s.followLink(id, ch.New)
	}
	touched := map[meta.UUID]bool{}
	for id, ch := range d.Topics {
		touched[id] = true
		s.followTopic(id, ch.New, img)
	}
	again := func(t *meta.Topic) {
		if t != nil && t.Mirror != nil && !touched[t.ID] {
			touched[t.ID] = true
			s.followTopic(t.ID, t, img)
		}
	}
	all := false
	for r := range d.Configs {
		if r.Type == config.Topic {
			again(img.Topic(r.Name))
		}
		all = all || r.Type == config.Broker && img.Links().Len() > 0
	}
	if all || len(d.Links) > 0 {
		for t := range img.Topics() {
			again(t)
		}
	}
	if len(d.Links) > 0 || len(d.Topics) > 0 {
		s.setRates(img)
	}
}

// followLink takes what a link is now; nil: it was removed.
func (s *Service) followLink(id meta.UUID, now *meta.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[id]
	switch {
	case now == nil && l != nil:
		l.cancel()
		l.endReadings(true)
		delete(s.links, id)
	case now == nil || s.closed:
	case l == nil:
		l = &link{s: s, id: id, changed: make(chan struct{}, 1), evidence: newEvidence(), promotions: make(chan struct{}, 1)}
		l.newest.Store(now)
		l.cancel = s.start(func(ctx context.Context) {
			s.work.Go(func() { (&promoter{l: l, since: map[PartitionID]time.Duration{}}).run(ctx) })
			l.run(ctx)
		})
		s.links[id] = l
	default:
		l.newest.Store(now)
		fill(l.changed)
	}
}

// followTopic has the partitions of a topic follow the metadata; t is nil if it was deleted.
func (s *Service) followTopic(id meta.UUID, t *meta.Topic, img *meta.Image) {
	if t == nil || t.Mirror == nil {
		s.dropTopic(id)
		return
	}
	s.mu.Lock()
	l := s.links[t.Mirror.Link]
	s.mu.Unlock()
	if l != nil && t.Mirror.State == meta.MirrorPromoting {
		fill(l.promotions)
	}
	conf := img.Links().Find(t.Mirror.Link)
	var settings *progress.Settings
	for i := range t.Partitions {
		mp := &t.Partitions[i]
		pid := PartitionID{id, int32(i)}
		if mp.Leader != s.cfg.NodeID || !mp.IsMirror() || l == nil || conf == nil {
			s.drop(pid)
			continue
		}
		if settings == nil {
			settings = s.topicSettings(t, conf, img)
		}
		s.follow(pid, &order{
			epoch: record.Epoch(mp.LeaderEpoch), topic: t.Name, of: t.Mirror, mirror: mp.Mirror, isPaused: conf.Paused || t.Mirror.State == meta.MirrorPaused, settings: *settings, link: l,
		})
	}
}

// topicSettings are those of a topic that matter to the machines of its partitions.
func (s *Service) topicSettings(t *meta.Topic, conf *meta.Link, img *meta.Image) *progress.Settings {
	c, p := meta.TopicSettings(img, s.cfg.Static, t), policyOf(conf.Settings)
	return &progress.Settings{Start: p.start, AcceptLoss: p.acceptLoss, IsCompacted: c.Compact, KeepTombstones: c.Compaction.DeleteRetention}
}

// follow has a partition follow an order.
func (s *Service) follow(id PartitionID, o *order) {
	s.mu.Lock()
	of := s.topics[id.Topic]
	if of == nil {
		of = map[int32]*partition{}
		s.topics[id.Topic] = of
	}
	p := of[id.Number]
	if p == nil {
		p = newPartition(s, id)
		of[id.Number] = p
	}
	s.mu.Unlock()
	if was := p.newest.Load(); was == nil || *was != *o {
		p.newest.Store(o)
		s.turns.add(p)
	}
}

// drop takes that this node does not lead a partition, or that it does not mirror.
func (s *Service) drop(id PartitionID) {
	s.mu.Lock()
	of := s.topics[id.Topic]
	p := of[id.Number]
	if delete(of, id.Number); len(of) == 0 {
		delete(s.topics, id.Topic)
	}
	s.mu.Unlock()
	if p != nil {
		p.newest.Store(nil)
		s.turns.add(p)
	}
}

// dropTopic drops all partitions of a topic.
func (s *Service) dropTopic(id meta.UUID) {
	s.mu.Lock()
	of := s.topics[id]
	delete(s.topics, id)
	s.mu.Unlock()
	for _, p := range of {
		p.newest.Store(nil)
		s.turns.add(p)
	}
}

// partitionsOf lists the partitions of a link that this node leads.
func (s *Service) partitionsOf(link meta.UUID) (list []*partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.topics {
		for _, p := range of {
			if o := p.newest.Load(); o != nil && o.link.id == link {
				list = append(list, p)
			}
		}
	}
	return list
}

// beginAnew has all partitions of a link ask the source at once, by its new connections.
func (s *Service) beginAnew(l *link) {
	for _, p := range append(s.partitionsOf(l.id), l.listReadings()...) {
		p.anew.Store(true)
		s.turns.add(p)
	}
}

// setRates gives each throttled link the part of its rate that belongs to this node: as many of its partitions as it leads.
func (s *Service) setRates(img *meta.Image) {
	for _, conf := range img.Links().All() {
		s.mu.Lock()
		l := s.links[conf.ID]
		s.mu.Unlock()
		if l == nil {
			continue
		}
		rate := policyOf(conf.Settings).throttle
		if rate == 0 {
			l.rate.setRate(s.now(), 0)
			continue
		}
		own, all := 0, 0
		for t := range img.Mirrors(conf.ID) {
			for i := range t.Partitions {
				if !t.Partitions[i].IsMirror() {
					continue
				}
				all++
				if t.Partitions[i].Leader == s.cfg.NodeID {
					own++
				}
			}
		}
		if own > 0 {
			l.rate.setRate(s.now(), max(float64(rate)*float64(own)/float64(all), leastThrottle))
		}
	}
}

// Status tells how the partitions of a link do that this node leads, in no order.
func (s *Service) Status(link meta.UUID) (list []PartitionStatus) {
	for _, p := range s.partitionsOf(link) {
		if st, ok := p.status(); ok {
			st.Parting, st.Open = p.parting(), -1
			if st.State == progress.Mirroring {
				st.Open = p.countOpen()
			}
			list = append(list, st)
		}
	}
	return list
}

// turns gives partitions their turns. A partition has one at a time.
type turns struct {
	queue queue[*partition]
	mu    sync.Mutex // guards partition.isDue of all partitions
}

// add gives a partition a turn, soon.
func (t *turns) add(p *partition) {
	t.mu.Lock()
	isDue := p.isDue
	p.isDue = true
	t.mu.Unlock()
	if !isDue {
		_ = t.queue.add(p) // it is only refused when the Service is closed
	}
}

func (t *turns) run(ctx context.Context) {
	for {
		list, ok := t.queue.take(ctx, 1)
		if !ok {
			return
		}
		t.mu.Lock()
		list[0].isDue = false
		t.mu.Unlock()
		list[0].turn()
	}
}
