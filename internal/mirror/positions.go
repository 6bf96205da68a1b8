package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/mirror/source"
)

const (
	// positionsTick is how often it is looked whether there is something to do for positions, if nothing has come from the source.
	positionsTick = 200 * time.Millisecond
	// positionsAgain is the pause after the source could not be asked, or a change of a group here has failed, and tailAgain that before it is tried again to read the source's records if the right was refused.
	positionsAgain = time.Second
	tailAgain      = time.Minute
	// compareEvery is how often all groups are compared with those here: what clients do here makes no change at the source. A comparison takes one part in compareShare of the time at most.
	compareEvery = 30 * time.Second
	compareShare = 10
	// mostPositionBytes is the default of Config.PositionBytes.
	mostPositionBytes int64 = 256 << 20
	// aheadStep is in which steps it is kept by how much the source's clock is ahead.
	aheadStep = time.Second
)

// Groups reaches the consumer groups of this cluster.
type Groups struct {
	// Coordinator finds the node that coordinates a group; -1: none does now.
	Coordinator func(name string) int32
	// Coordinators finds all of them. isComplete tells that there is one for each group; no nodes then: there are no groups yet.
	Coordinators func() (nodes []int32, isComplete bool)
	// Prepare makes what is needed so that there can be groups.
	Prepare func(ctx context.Context) error
	// Ask asks a node about the groups that it coordinates, and has it change them; nil: positions are not followed.
	Ask func(ctx context.Context, node int32, q *position.Question) (*position.Answer, error)
}

// FollowsPositions tells whether positions of groups in a topic are those of the source of a link.
func FollowsPositions(t *meta.Topic, link meta.UUID) bool {
	return t.Mirror != nil && t.Mirror.Link == link && (t.Mirror.State == meta.MirrorActive || t.Mirror.State == meta.MirrorPaused)
}

// positions is the task of a link that has the positions of groups here follow those of the source. It runs on the node of the active controller:
//
//	source: __consumer_offsets --tail--> position.Machine --changed groups--> look at them here --Decide--> changes --> coordinators here
//	        or OffsetFetch     --poll-------^                                                                    (if nothing has changed there since)
//
// tail or poll feed the machine, and decide empties it. All have goroutines of their own.
type positions struct {
	s *session
	t *tasks

	client     *source.Client
	wake       chan struct{} // of size 1; filled: the machine may have changed groups
	mirrors    *position.Mirrors
	here       map[string]mirrorHere // the topics of mirrors, by their names here
	image      *meta.Image           // of which mirrors and here are, at mirroredAt
	mirroredAt time.Time
	comparedAt time.Time     // when all groups were compared last
	pause      time.Duration // until the next comparison

	mu      sync.Mutex // guards the fields below
	machine *position.Machine
	mode    PositionsMode
	tailAt  time.Time           // before that it is not tried to read the records, for noTail
	noTail  string              // why positions are polled
	trouble error               // why nothing is heard from the source now; nil: something is
	unasked map[string]struct{} // groups that could not be polled, so that nothing is decided on them
	ours    map[string]struct{} // groups here that had positions of the link at the last comparison
	again   map[string]int64    // groups whose changes have failed, and when they are tried again
	held    map[string]heldGroup
	// asOf is the time of which all that the source had then is here, in ms; 0: there is none.
	asOf int64
}

// mirrorHere is what of a mirror matters to its positions.
type mirrorHere struct {
	id         meta.UUID
	source     string
	partitions int
}

// heldGroup has how many positions of a group stay as they are, by the reason.
type heldGroup map[position.Why]int

func newPositions(s *session, t *tasks) *positions {
	return &positions{s: s, t: t, wake: make(chan struct{}, 1)}
}

// run follows positions while this node is that of the active controller, until the session ends.
func (p *positions) run(ctx context.Context) {
	if p.s.s.cfg.Groups.Ask == nil {
		return
	}
	for ctx.Err() == nil {
		switch {
		case !p.s.s.cfg.IsController():
		case p.s.set.Groups == nil:
			p.t.set(&TaskStatus{Link: p.s.link.ID, Task: positionsTask, State: TaskRunning, Last: time.Now(), Positions: &PositionsStatus{Mode: PositionsOff}})
		default:
			p.follow(ctx)
		}
		pause := positionsAgain
		if p.isFull() {
			pause = tailAgain
		}
		sleep(ctx, pause)
	}
}

// follow follows positions by one machine, until it has to begin anew.
func (p *positions) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := p.s.connectAs(ctx, "") // the leaders are read, which tell the high watermark
	if err == nil {
		defer client.Close()
		p.client = client
	}
	p.begin()
	var topic *source.Topic
	if err == nil {
		topic, err = p.findRecords(ctx)
	}
	if err != nil {
		p.note(ctx, err)
		p.report()
		return
	}
	var feeding sync.WaitGroup
	defer feeding.Wait()
	defer cancel()
	feeding.Go(func() {
		defer cancel()
		feed := p.poll
		if topic != nil {
			feed = func(ctx context.Context) error { return p.tail(ctx, topic) }
		}
		p.note(ctx, feed(ctx))
	})
	p.decide(ctx)
	p.report()
}

// begin makes a new machine.
func (p *positions) begin() {
	most := cmp.Or(p.s.s.cfg.PositionBytes, mostPositionBytes) / int64(max(p.s.s.cfg.Image().Links().Len(), 1))
	p.mirrors, p.here, p.image = position.NewMirrors(nil), nil, nil
	p.mu.Lock()
	defer p.mu.Unlock()
	p.machine = position.New(position.Config{Groups: p.s.set.Groups, MaxBytes: most, AheadMillis: p.keptAhead()})
	p.unasked, p.ours, p.again, p.held = map[string]struct{}{}, map[string]struct{}{}, map[string]int64{}, map[string]heldGroup{}
	p.comparedAt = time.Time{}
}

// isFull tells whether the positions had no room, so that to begin anew would only read all of them again.
func (p *positions) isFull() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Is(p.trouble, position.ErrFull)
}

// note notes why nothing is heard from the source; nil: something is.
func (p *positions) note(ctx context.Context, err error) {
	if ctx.Err() != nil && err != nil {
		return
	}
	if errors.Is(err, errTailed) {
		err = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = err
}

// keptAhead is by how many ms the source's clock is known to have been ahead.
func (p *positions) keptAhead() int64 {
	l := p.s.s.cfg.Image().Links().Find(p.s.link.ID)
	if l == nil {
		return 0
	}
	text, _ := l.Setting(AheadSetting)
	n, _ := strconv.ParseInt(text, 10, 64)
	return max(n, 0)
}

// keepAhead makes durable by how much the source's clock is ahead, before anything is decided by it: old records do not show it to the next machine.
func (p *positions) keepAhead(ctx context.Context) error {
	p.mu.Lock()
	ahead := p.machine.AheadMillis()
	p.mu.Unlock()
	if ahead <= p.keptAhead() {
		return nil
	}
	step := aheadStep.Milliseconds()
	text := strconv.FormatInt((ahead+step-1)/step*step, 10)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	results, refused, err := p.s.s.cfg.ChangeLinks(ctx, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: p.s.link.ID, Change: &controller.LinkChange{Settings: map[string]*string{AheadSetting: &text}}})
	for _, r := range results {
		if r != nil && refused == nil {
			refused = r
		}
	}
	if err == nil && refused != nil {
		err = refused
	}
	return err
}

// isOnlyAhead tells whether two versions of a link differ in AheadSetting at most, which no connection depends on.
func isOnlyAhead(a, b *meta.Link) bool {
	if a == nil || b == nil || a.Name != b.Name || a.Source != b.Source || a.Paused != b.Paused || string(a.Secret) != string(b.Secret) {
		return false
	}
	of := func(l *meta.Link) map[string]string {
		set := map[string]string{}
		for _, s := range l.Settings {
			if s.Key != AheadSetting {
				set[s.Key] = s.Value
			}
		}
		return set
	}
	return maps.Equal(of(a), of(b))
}

// offsetsTopic has the records of groups at the source.
const offsetsTopic = "__consumer_offsets"

// findRecords finds the source's records of positions; nil: they cannot be read, for noTail, so that positions are polled.
func (p *positions) findRecords(ctx context.Context) (*source.Topic, error) {
	p.mu.Lock()
	isEarly := time.Now().Before(p.tailAt)
	p.mu.Unlock()
	if isEarly {
		return nil, nil //nolint:nilnil // the reason is in noTail
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cluster, err := p.client.Describe(ctx, []string{offsetsTopic})
	if err == nil {
		err = p.s.checkCluster(cluster)
	}
	if err != nil {
		return nil, err
	}
	if len(cluster.Topics) != 1 {
		return nil, errors.New("the source has not answered for its " + offsetsTopic)
	}
	t := &cluster.Topics[0]
	switch {
	case source.IsDenied(t.Err):
		p.refuseTail(tailAgain, "the link may not read "+offsetsTopic+" of the source")
		return nil, nil //nolint:nilnil // as above
	case t.Err != nil || len(t.Partitions) == 0: // it comes with the first group
		p.refuseTail(0, "the source shows no "+offsetsTopic)
		return nil, nil //nolint:nilnil // as above
	}
	if err := p.tryTail(ctx, t); source.IsDenied(err) {
		p.refuseTail(tailAgain, "the link may not read "+offsetsTopic+" of the source")
		return nil, nil //nolint:nilnil // as above
	}
	return t, nil
}

// refuseTail has positions be polled.
func (p *positions) refuseTail(pause time.Duration, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuseTailLocked(pause, why)
}

func (p *positions) refuseTailLocked(pause time.Duration, why string) {
	p.tailAt, p.noTail = time.Now().Add(pause), why
}

// tryTail reads nothing of a partition that has a leader, and returns why not.
func (p *positions) tryTail(ctx context.Context, t *source.Topic) error {
	for i := range t.Partitions {
		if t.Partitions[i].Leader < 0 {
			continue
		}
		at := source.Position{Place: source.Place{Topic: t.Name, ID: t.ID, Number: int32(i)}, Leader: -1, LastEpoch: -1, MaxBytes: 1}
		f, err := p.client.Fetch(ctx, t.Partitions[i].Leader, []source.Position{at}, source.Bounds{MaxBytes: 1})
		if err != nil {
			return err
		}
		return f.Batches[0].Err
	}
	return nil
}

// PositionsMode is how the positions of groups are followed.
type PositionsMode string

// The modes.
const (
	PositionsTailed PositionsMode = "tailed" // by the records of the source's groups
	PositionsPolled PositionsMode = "polled" // by asking for them
	PositionsOff    PositionsMode = "off"
)

// PositionsStatus is how the task does that follows positions.
type PositionsStatus struct {
	Mode      PositionsMode
	Why       string // it is polled
	Groups    int    // of the source that the link follows, and that have positions
	Positions int    // of those
	Open      int    // transactions of the source that are open and have positions
	Loading   int    // partitions of the source's records that were not read up to their ends yet
	Ahead     time.Duration
	Held      map[string]int // how many positions stay as they are here although the source has others, by the reason
}

// report tells how the task does.
func (p *positions) report() {
	if !p.s.s.cfg.IsController() {
		return
	}
	p.mu.Lock()
	of := p.machine.State()
	st := &PositionsStatus{
		Mode: p.mode, Groups: of.Groups, Positions: of.Positions, Open: of.Transactions, Loading: of.Loading, Ahead: time.Duration(of.AheadMillis) * time.Millisecond, Held: map[string]int{},
	}
	if p.mode == PositionsPolled {
		st.Why = p.noTail
	}
	for _, g := range p.held {
		for why, n := range g {
			st.Held[why.String()] += n
		}
	}
	status := &TaskStatus{Link: p.s.link.ID, Task: positionsTask, State: TaskRunning, Positions: st}
	if p.asOf > 0 {
		status.Last = time.UnixMilli(p.asOf)
	}
	switch {
	case p.trouble != nil:
		status.State, status.Reason = TaskWaiting, reasonOf(p.trouble)
	case len(p.again) > 0:
		status.Reason = countOf(len(p.again), "group") + " waited for a coordinator here, and will be tried again."
	case of.Unreadable > 0:
		status.Reason = fmt.Sprintf("%d records of the source were left out, since they break the format.", of.Unreadable)
	}
	p.mu.Unlock()
	p.t.set(status)
}
