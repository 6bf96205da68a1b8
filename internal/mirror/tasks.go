package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/source"
)

const (
	// topicsEvery is how often the topics of a source are compared with those here: new partitions are here within twice that. A source with so many topics that a comparison takes long is asked less
	// often: a comparison takes one part in roundShare of the time at most. configsEvery is how often their configs are compared, and topics at least.
	topicsEvery  = 2 * time.Second
	roundShare   = 4
	configsEvery = 30 * time.Second
	// mostConfigs is for how many topics one request asks for configs.
	mostConfigs = 200
	// mostWarnings is how many warnings the reason of a task has, mostNotes how many notes a task has, and mostDifferences how many configs that differ, of each fate.
	mostWarnings    = 3
	mostNotes       = 50
	mostDifferences = 100
)

// TaskState is what a task does.
type TaskState string

// These are the states.
const (
	TaskRunning TaskState = "RUNNING"
	TaskWaiting TaskState = "WAITING" // the last round has failed, and is tried again
	TaskPaused  TaskState = "PAUSED"
)

// TaskStatus is how a task of a link does, which runs on the node of the active controller.
type TaskStatus struct {
	Link   meta.UUID
	Task   string // topics, configs, positions, acls, quotas
	State  TaskState
	Reason string    // why it waits, or what a person ought to know
	Last   time.Time // when a round of it was last well; zero: none was yet. Of positions: of when all that the source had then is here
	// Positions tells more of the task for positions; nil: it is another one.
	Positions *PositionsStatus
	Notes     []string // all that a person ought to know, in sentences, up to mostNotes
	// Differences are, of the configs, those of mirrors that are not as at the source: those that are kept so, and those that were put back since this node runs the task.
	Differences []Difference
}

// Difference is a config of a mirror that is not as at the source, or was not.
type Difference struct {
	follow.Difference
	At time.Time // when it was last seen to be so
}

// tasks are the tasks of a link.
type tasks struct {
	mu      sync.Mutex // guards the fields below
	status  []TaskStatus
	putBack []Difference // the last ones, in the order of their times
}

// The names of the tasks.
const (
	topicsTask    = "topics"
	configsTask   = "configs"
	positionsTask = "positions"
	aclsTask      = "acls"
	quotasTask    = "quotas"
)

// run does the tasks of a link while this node is that of the active controller, until the session ends.
func (t *tasks) run(ctx context.Context, s *session) {
	r := round{s: s, t: t}
	configsAt, accessAt := time.Time{}, time.Time{}
	for ctx.Err() == nil {
		if !s.s.cfg.IsController() {
			t.clear()
			configsAt, accessAt = time.Time{}, time.Time{}
			sleep(ctx, topicsEvery)
			continue
		}
		began := time.Now()
		err := r.findSource(ctx)
		if err == nil {
			err = r.compareTopics(ctx)
		}
		pause := max(topicsEvery, min(time.Since(began)*roundShare, configsEvery))
		r.note(ctx, topicsTask, err)
		if err == nil && time.Since(configsAt) >= configsEvery {
			configsAt = time.Now()
			r.note(ctx, configsTask, r.compareConfigs(ctx))
		}
		if err == nil && (r.hasMade || time.Since(accessAt) >= accessEvery) {
			accessAt, r.hasMade = time.Now(), false
			r.compareAccess(ctx)
		}
		sleep(ctx, pause)
	}
}

// pause takes that the tasks do not run: the link is paused, or cannot be used.
func (t *tasks) pause(isPaused bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.status {
		st := &t.status[i]
		st.State, st.Reason = TaskPaused, ""
		if !isPaused && err != nil {
			st.State, st.Reason = TaskWaiting, reasonOf(err)
		}
	}
}

// clear takes that the tasks run on another node.
func (t *tasks) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status, t.putBack = nil, nil
}

// drop takes that a task is not run.
func (t *tasks) drop(task string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status = slices.DeleteFunc(t.status, func(st TaskStatus) bool { return st.Task == task })
}

// notePutBack notes configs that were put back.
func (t *tasks) notePutBack(list []Difference) []Difference {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.putBack = append(t.putBack, list...)
	t.putBack = slices.Clone(t.putBack[max(0, len(t.putBack)-mostDifferences):])
	return t.putBack
}

// set sets the status of one task.
func (t *tasks) set(st *TaskStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.status, func(o TaskStatus) bool { return o.Task == st.Task })
	if i < 0 {
		t.status = append(t.status, *st)
		return
	}
	if st.Last.IsZero() { // it has failed, and what was known is not outdated by that
		st.Last, st.Differences = t.status[i].Last, t.status[i].Differences
	}
	t.status[i] = *st
}

func (t *tasks) list() []TaskStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.status)
}

// Tasks tells of the tasks of links that run on this node.
func (s *Service) Tasks() (all []TaskStatus) {
	if !s.cfg.IsController() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.links {
		all = append(all, l.tasks.list()...)
	}
	return all
}

// round is a round of the tasks. It belongs to one goroutine.
type round struct {
	s        *session
	t        *tasks
	warnings []string
	// made has the configs of mirrors that were as at the source when they were compared last, by topic here, so that a person is told who has changed one.
	made map[string]map[string]string
	// hasMade tells that topics were made since ACLs were compared last, and differences are the configs that are not as at the source, of those of which a round has learned.
	hasMade     bool
	differences []Difference
}

// note notes how a task has ended.
func (r *round) note(ctx context.Context, task string, err error) {
	if ctx.Err() != nil {
		return
	}
	r.s.counts.countRequest(ctx, err)
	st := &TaskStatus{Link: r.s.link.ID, Task: task, State: TaskRunning, Last: time.Now()}
	st.Notes = slices.Clone(r.warnings)
	if n := len(st.Notes); n > mostNotes {
		st.Notes = append(st.Notes[:mostNotes], fmt.Sprintf("There are more of them, %d.", n-mostNotes))
	}
	if task == configsTask && err == nil {
		st.Differences = r.differences
	}
	if n := len(r.warnings); n > mostWarnings {
		r.warnings = append(r.warnings[:mostWarnings], fmt.Sprintf("There are more warnings, %d.", n-mostWarnings))
	}
	st.Reason = strings.Join(r.warnings, " ")
	if err != nil {
		st.State, st.Reason, st.Last = TaskWaiting, reasonOf(err), time.Time{}
	}
	r.t.set(st)
	r.warnings = nil
}

func (r *round) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// errSourceFound has the tasks begin anew, with a link that knows its source.
var errSourceFound = errors.New("the link has just learned which cluster its source is")

// findSource has a link that was made before its source could be asked know which cluster that is.
func (r *round) findSource(ctx context.Context) error {
	if r.s.link.Source != "" {
		return nil
	}
	cluster, err := r.s.askCluster(ctx, nil)
	if err != nil {
		return err
	}
	if cluster.ID == "" {
		return errors.New("the source does not tell its cluster id, without which cycles of links cannot be found")
	}
	found, err := r.findTag(ctx, cluster)
	if err != nil {
		return err
	}
	img := r.image()
	if _, err = follow.CheckClusters(follow.Cluster{ID: img.ClusterID, Tag: img.Tag}, found, otherSources(img, r.s.link.ID)); err != nil {
		return err
	}
	change := &controller.LinkChange{Source: found.ID}
	if found.Tag != 0 {
		change.Settings = map[string]*string{TagSetting: new(strconv.FormatUint(uint64(found.Tag), 10))}
	}
	_, refused, err := r.s.s.cfg.ChangeLinks(ctx, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: r.s.link.ID, Change: change})
	if err == nil && refused != nil {
		err = refused
	}
	if err == nil {
		err = errSourceFound
	}
	return err
}

// findTag finds the tag of a source, if it tells it.
func (r *round) findTag(ctx context.Context, cluster *source.Cluster) (found follow.Cluster, err error) {
	found = follow.Cluster{Name: r.s.link.Name, ID: cluster.ID}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client, err := r.s.client(ctx)
	if err != nil {
		return found, err
	}
	if tag, err := client.ClusterTag(ctx, anyTopic(cluster)); err == nil { // who does not tell it may be linked all the same
		found.Tag = tag
	}
	return found, nil
}

// compareTopics makes the topics here that the source has and the link is for, and adds partitions to those that it has more of.
func (r *round) compareTopics(ctx context.Context) error {
	began := time.Now()
	cluster, err := r.s.askCluster(ctx, nil)
	if err != nil {
		return err
	}
	r.s.noteSeen(cluster.Topics, began)
	p := planTopics(r.image(), r.s.link, r.s.set, cluster.Topics, nil)
	var found map[string]source.Configs
	if slices.ContainsFunc(p.Steps, func(s follow.TopicStep) bool { return s.IsNew }) {
		if found, err = r.findConfigs(ctx, p.Steps); err != nil {
			return err
		}
		paths := map[string][]string{}
		for name, c := range found {
			paths[name] = pathOf(r.s.link.Source, c.Values)
		}
		p = planTopics(r.image(), r.s.link, r.s.set, cluster.Topics, paths)
	}
	r.warnings = p.Warnings
	var made, grown []controller.MirrorTopic
	for i := range p.Steps {
		step := &p.Steps[i]
		if t := r.image().Topic(step.Here); !step.IsNew && t != nil {
			grown = append(grown, controller.MirrorTopic{ID: t.ID, Partitions: step.Partitions})
		} else if !step.IsNew { // it was deleted since
			continue
		} else if c := found[step.Source]; c.Err != nil {
			r.warn("Topic %s is not mirrored, since its configs cannot be read at the source: %v.", step.Source, c.Err)
		} else {
			made = append(made, r.newMirror(step, c.Values))
		}
	}
	if err := r.change(ctx, controller.ExtendMirrors, grown); err != nil {
		return err
	}
	r.hasMade = r.hasMade || len(made) > 0
	return r.change(ctx, controller.CreateMirrors, made)
}

func (r *round) image() *meta.Image { return r.s.s.cfg.Image() }

// newMirror asks for a new mirror, with the configs that it has from the source.
func (r *round) newMirror(step *follow.TopicStep, values map[string]source.Value) controller.MirrorTopic {
	t := controller.MirrorTopic{
		Name: step.Here, Partitions: step.Partitions, ReplicationFactor: -1, Configs: map[string]string{},
		Mirror: &meta.Mirror{Link: r.s.link.ID, Topic: step.Source, TopicID: step.ID, Path: step.Path},
	}
	p := follow.Configs(step.Here, r.s.set.Owned, sourceConfigs(values), localConfigs(r.image(), r.s.s.cfg.Static, step.Here), nil)
	for i := range p.Steps {
		maps.Copy(t.Configs, p.Steps[i].Set)
	}
	return t
}

// findConfigs finds the configs of topics that are to be mirrored.
func (r *round) findConfigs(ctx context.Context, steps []follow.TopicStep) (map[string]source.Configs, error) {
	all := map[string]source.Configs{}
	var names []string
	for i := range steps {
		if steps[i].IsNew {
			names = append(names, steps[i].Source)
		}
	}
	for some := range slices.Chunk(names, mostConfigs) {
		found, err := r.describeConfigs(ctx, some)
		if err != nil {
			return nil, err
		}
		for i := range found {
			all[found[i].Topic] = found[i]
		}
	}
	return all, nil
}

func (r *round) describeConfigs(ctx context.Context, topics []string) ([]source.Configs, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := r.s.client(ctx)
	if err != nil {
		return nil, err
	}
	return c.DescribeConfigs(ctx, topics)
}

// change has the controller change topics, some at a time. What it refuses of one topic is a warning.
func (r *round) change(ctx context.Context, kind controller.LinksKind, topics []controller.MirrorTopic) error {
	for len(topics) > 0 {
		n, partitions := 0, 0
		for n < min(len(topics), controller.MaxLinkItems) && (n == 0 || partitions+int(topics[n].Partitions) <= controller.MaxNewPartitions) {
			partitions += int(topics[n].Partitions)
			n++
		}
		results, refused, err := r.s.s.cfg.ChangeLinks(ctx, &controller.LinksChange{Kind: kind, Topics: topics[:n]})
		if err == nil && refused != nil {
			err = refused
		}
		if err != nil {
			return err
		}
		for i, e := range results {
			if e != nil {
				name := topics[i].Name
				if t := r.s.s.cfg.Image().TopicByID(topics[i].ID); t != nil {
					name = t.Name
				}
				r.warn("Topic %s: %v", name, e)
			}
		}
		topics = topics[n:]
	}
	return nil
}

// compareConfigs gives topics here the configs that they have from the source.
func (r *round) compareConfigs(ctx context.Context) error {
	here := mirroredBy(r.image(), r.s.link.ID)
	var kept, putBack []Difference
	r.differences = nil
	for names := range slices.Chunk(slices.Sorted(maps.Keys(here)), mostConfigs) {
		found, err := r.describeConfigs(ctx, names)
		if err != nil {
			return err
		}
		if err := r.alterConfigs(ctx, found, here); err != nil {
			return err
		}
	}
	for _, d := range r.differences {
		if d.Fate == follow.PutBack {
			putBack = append(putBack, d)
		} else if len(kept) < mostDifferences {
			kept = append(kept, d)
		}
	}
	r.s.counts.putBack.Add(int64(len(putBack)))
	r.differences = append(kept, r.t.notePutBack(putBack)...)
	return nil
}

func (r *round) alterConfigs(ctx context.Context, found []source.Configs, here map[string]*meta.Topic) error {
	var changes []controller.ConfigChanges
	for i := range found {
		c, t := &found[i], here[found[i].Topic]
		switch {
		case c.Err != nil && source.IsTopicGone(c.Err): // its partitions tell of that
			continue
		case c.Err != nil:
			r.warn("The configs of topic %s cannot be read at the source: %v.", c.Topic, c.Err)
			continue
		}
		theirs, ours := sourceConfigs(c.Values), localConfigs(r.image(), r.s.s.cfg.Static, t.Name)
		p := follow.Configs(t.Name, r.s.set.Owned, theirs, ours, r.made[t.Name])
		r.warnings = append(r.warnings, p.Warnings...)
		for _, d := range p.Differences {
			r.differences = append(r.differences, Difference{d, time.Now()})
		}
		for k := range p.Steps {
			changes = append(changes, changesOf(&p.Steps[k]))
		}
		r.noteMade(t.Name, theirs, p.Steps)
	}
	if len(changes) == 0 {
		return nil
	}
	results, err := r.s.s.cfg.AlterConfigs(ctx, changes)
	if err != nil {
		return err
	}
	for i, e := range results {
		if e != nil {
			r.warn("The configs of topic %s: %v", changes[i].Resource.Name, e)
		}
	}
	return nil
}

// noteMade notes which configs of a mirror are as at the source after some steps.
func (r *round) noteMade(topic string, theirs map[string]follow.Value, steps []follow.ConfigStep) {
	if r.made == nil {
		r.made = map[string]map[string]string{}
	}
	made := map[string]string{}
	set := r.image().Overrides(config.Resource{Type: config.Topic, Name: topic})
	for key, v := range theirs {
		if _, isSet := set[key]; isSet && r.s.set.Owned.Has(key) {
			made[key] = v.Text
		}
	}
	for i := range steps {
		maps.Copy(made, steps[i].Set)
		for _, key := range steps[i].Unset {
			delete(made, key)
		}
	}
	r.made[topic] = made
}
