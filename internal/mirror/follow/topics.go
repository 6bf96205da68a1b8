package follow

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/mirror/names"
)

// maxPath is over how many clusters a topic may come.
const maxPath = 16

// TopicRules say which topics of a source a link mirrors.
type TopicRules struct {
	Topics *names.Filter
	Names  *names.Mapping
	Here   string // the id of this cluster
	Source string // the id of the source
}

// SourceTopic is a topic of the source.
type SourceTopic struct {
	Name       string
	ID         [16]byte // zero: the source has no topic ids
	Partitions int32
	IsInternal bool     // as the source says
	Path       []string // if it mirrors another topic: the ids of the clusters from where that comes to this source, which is the last one
	Err        error    // why nothing is known of it
}

// LocalTopic is a topic here.
type LocalTopic struct {
	Name       string
	Partitions int32
	Of         *Origin // nil: it mirrors nothing, and never has
}

// Origin is what a topic here mirrors, or has mirrored.
type Origin struct {
	Link       string // the name of the link; "": it is gone
	IsOurs     bool   // it is the link in question
	Topic      string // the name at the source
	ID         [16]byte
	IsPromoted bool
}

// TopicStep makes a mirror, or adds partitions to one.
type TopicStep struct {
	IsNew      bool
	Source     string // the topic's name there
	ID         [16]byte
	Here       string
	Partitions int32    // how many there are then
	Path       []string // of a new one: the ids of the clusters from where it comes to the source
}

// String is the step as a sentence.
func (s TopicStep) String() string {
	if s.IsNew {
		return fmt.Sprintf("Make topic %s here, with %d partitions, as a mirror of %s.", s.Here, s.Partitions, s.Source)
	}
	return fmt.Sprintf("Give topic %s %d partitions, as %s has.", s.Here, s.Partitions, s.Source)
}

// topicPlanner compares the topics of two clusters.
type topicPlanner struct {
	Plan[TopicStep]
	rules  *TopicRules
	here   map[string]*LocalTopic // by name
	alike  map[string]string      // names here by how metrics show them
	wanted map[string][]string    // topics of the source by how metrics show their names here

	own, streams, unknown []string // topics of the source that are left out
}

// Topics plans which mirrors are made, and which get more partitions. source are all topics that the link may see, and here are those of this cluster.
func Topics(r *TopicRules, source []SourceTopic, here []LocalTopic) Plan[TopicStep] {
	p := topicPlanner{rules: r, here: map[string]*LocalTopic{}, alike: map[string]string{}, wanted: map[string][]string{}}
	for i := range here {
		p.here[here[i].Name] = &here[i]
		p.alike[nameInMetrics(here[i].Name)] = here[i].Name
	}
	source = slices.SortedFunc(slices.Values(source), func(a, b SourceTopic) int { return strings.Compare(a.Name, b.Name) })
	var chosen []*SourceTopic
	for i := range source {
		if t := &source[i]; p.choose(t) {
			chosen = append(chosen, t)
			as := nameInMetrics(r.Names.Here(t.Name))
			p.wanted[as] = append(p.wanted[as], t.Name)
		}
	}
	for _, t := range chosen {
		p.planTopic(t)
	}
	p.warnOf(p.own, "is not mirrored, since the source keeps its own state there", "are not mirrored, since the source keeps its own state there")
	p.warnOf(p.streams, "is not mirrored, since an application of Kafka Streams keeps its own state there; name it to mirror it all the same",
		"are not mirrored, since applications of Kafka Streams keep their own state there; name them to mirror them all the same")
	p.warnOf(p.unknown, "is not mirrored, since the source tells nothing of it", "are not mirrored, since the source tells nothing of them")
	p.warnOfCollisions()
	p.warnOfOthers(source)
	return p.Plan
}

// nameInMetrics is how metrics show a topic's name: two topics must not be shown by one.
func nameInMetrics(topic string) string { return strings.ReplaceAll(topic, ".", "_") }

// choose tells whether a topic of the source is to be mirrored, as far as its name says.
func (p *topicPlanner) choose(t *SourceTopic) bool {
	switch isNamed := p.rules.Topics.HasLiterally(t.Name); {
	case !p.rules.Topics.Has(t.Name):
		return false
	case t.IsInternal || isOwn(t.Name) || strings.HasPrefix(t.Name, "__") && !isNamed:
		p.own = append(p.own, t.Name)
		return false
	case isOfStreams(t.Name) && !isNamed:
		p.streams = append(p.streams, t.Name)
		return false
	case t.Err != nil:
		p.unknown = append(p.unknown, t.Name)
		return false
	}
	return true
}

// isOwn tells whether a cluster keeps its own state in a topic, so that no link may mirror it.
func isOwn(topic string) bool {
	switch topic {
	case "__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata", "__remote_log_metadata":
		return true
	}
	return strings.HasPrefix(topic, "__leat_")
}

// isOfStreams tells whether an application of Kafka Streams has made a topic for its own state. The names are those of its internal topics.
func isOfStreams(topic string) bool {
	return strings.HasSuffix(topic, "-changelog") || strings.HasSuffix(topic, "-repartition") ||
		strings.HasSuffix(topic, "-topic") && strings.Contains(topic, "-KTABLE-FK-JOIN-SUBSCRIPTION-")
}

// planTopic plans a topic that is chosen.
func (p *topicPlanner) planTopic(t *SourceTopic) {
	name := p.rules.Names.Here(t.Name)
	local := p.here[name]
	switch other, isAlike := p.alike[nameInMetrics(name)]; {
	case local != nil && local.Of != nil && local.Of.IsOurs && local.Of.Topic == t.Name:
		p.planMirror(t, local)
	case len(p.wanted[nameInMetrics(name)]) > 1: // warnOfCollisions tells of it
	case names.CheckTopic(name) != nil:
		p.warn("Topic %s is not mirrored: %v.", t.Name, names.CheckTopic(name))
	case local != nil:
		p.warn("Topic %s is not mirrored, since there is a topic %s here that %s.", t.Name, name, local.describe())
	case isAlike:
		p.warn("Topic %s is not mirrored, since there is a topic %s here, and metrics would show %s by the same name.", t.Name, other, name)
	default:
		p.planNew(t, name)
	}
}

// describe tells what a topic is that is no mirror of the one in question.
func (t *LocalTopic) describe() string {
	switch {
	case t.Of == nil:
		return "mirrors nothing"
	case t.Of.IsPromoted:
		return "was promoted"
	case t.Of.IsOurs:
		return "mirrors " + t.Of.Topic
	default:
		return "mirrors " + t.Of.Topic + " by link " + t.Of.Link
	}
}

// planMirror compares a mirror with its topic. Whether the topic is another one now is found by those who read its partitions.
func (p *topicPlanner) planMirror(t *SourceTopic, local *LocalTopic) {
	isOther := t.ID != local.Of.ID && t.ID != [16]byte{} && local.Of.ID != [16]byte{}
	switch {
	case local.Of.IsPromoted || isOther:
	case t.Partitions > local.Partitions:
		p.Steps = append(p.Steps, TopicStep{Source: t.Name, ID: t.ID, Here: local.Name, Partitions: t.Partitions})
	case t.Partitions < local.Partitions:
		p.warn("Topic %s has %d partitions here and only %d at the source: it may have been made again there.", local.Name, local.Partitions, t.Partitions)
	}
}

// planNew plans a new mirror, unless it would come back to a cluster where it was.
func (p *topicPlanner) planNew(t *SourceTopic, name string) {
	path := t.Path
	if len(path) == 0 {
		path = []string{p.rules.Source}
	}
	switch {
	case slices.Contains(path, p.rules.Here):
		p.warn("Topic %s is not mirrored, since it comes from this cluster: over %s.", t.Name, strings.Join(path, ", "))
	case len(path) >= maxPath:
		p.warn("Topic %s is not mirrored, since it comes over %d clusters already.", t.Name, len(path))
	case t.Partitions < 1:
		p.warn("Topic %s is not mirrored, since the source tells of no partition.", t.Name)
	default:
		p.Steps = append(p.Steps, TopicStep{IsNew: true, Source: t.Name, ID: t.ID, Here: name, Partitions: t.Partitions, Path: slices.Clone(path)})
	}
}

// warnOfCollisions tells of topics of the source that would have one name here.
func (p *topicPlanner) warnOfCollisions() {
	for _, as := range slices.Sorted(maps.Keys(p.wanted)) {
		topics := p.wanted[as]
		if len(topics) < 2 {
			continue
		}
		isMirrored := func(topic string) bool {
			local := p.here[p.rules.Names.Here(topic)]
			return local != nil && local.Of != nil && local.Of.IsOurs && local.Of.Topic == topic
		}
		if left := slices.DeleteFunc(slices.Clone(topics), isMirrored); len(left) > 0 {
			p.warn("%s would have one name here, %s, or names that metrics cannot tell apart, so no mirror is made of %s: rename one of them.", listNames(topics), p.rules.Names.Here(topics[0]), listNames(left))
		}
	}
}

// warnOfOthers tells of names that match nothing, and of mirrors that are not chosen any more.
func (p *topicPlanner) warnOfOthers(source []SourceTopic) {
	isThere := func(name string) bool {
		_, found := slices.BinarySearchFunc(source, name, func(t SourceTopic, name string) int { return cmp.Compare(t.Name, name) })
		return found
	}
	var missing, gone, left []string
	for _, name := range p.rules.Topics.Names() {
		if !isThere(name) {
			missing = append(missing, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.here)) {
		of := p.here[name].Of
		switch {
		case of == nil || !of.IsOurs || of.IsPromoted:
		case !isThere(of.Topic):
			gone = append(gone, name)
		case !p.rules.Topics.Has(of.Topic):
			left = append(left, name)
		}
	}
	p.warnOf(missing, "is named, and the source has no such topic, or does not let the link see it", "are named, and the source has no such topics, or does not let the link see them")
	p.warnOf(gone, "has no topic at the source any more, and stays as it is", "have no topics at the source any more, and stay as they are")
	p.warnOf(left, "is mirrored, and the link's patterns do not choose it any more: promote it (\"leat link promote\"), or delete it", "are mirrored, and the link's patterns do not choose them any more: promote them (\"leat link promote\"), or delete them")
}
