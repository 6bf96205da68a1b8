package controller

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// MirrorTopic asks for a change of a topic that mirrors, or for a new one.
type MirrorTopic struct {
	ID meta.UUID `json:"id"` // of a topic that is there
	// Partitions is how many there are to be, of CreateMirrors and ExtendMirrors: as many as the source has.
	Partitions int32 `json:"partitions"`

	// Forks are, of RestoreMirrors, where the source has begun to write the partitions by itself.
	Forks []meta.MirrorFork `json:"forks,omitempty"`

	// These are of CreateMirrors; Mirror also of RestoreMirrors.
	Name              string            `json:"name,omitempty"`
	ReplicationFactor int16             `json:"replicationFactor"` // -1: the default
	Configs           map[string]string `json:"configs,omitempty"`
	Mirror            *meta.Mirror      `json:"mirror,omitempty"` // its state is not looked at
}

// changeTopics decides as many of the topics as fit into one part, each on the image after those before it.
func (l Links) changeTopics(q *LinksChange, from int) (d Part, results []*Error) {
	d = l.newPart()
	rules := *l.Rules
	l.Rules = &rules
	total := 0
	for i := range q.Topics {
		total += int(max(q.Topics[i].Partitions, 0))
	}
	for i := range q.Topics[from:] {
		var records []byte
		refused := refuse(PolicyViolation, "Excessively large number of partitions per request.")
		if total <= MaxNewPartitions {
			records, refused = l.changeTopic(q.Kind, &q.Topics[from+i])
		}
		after, _, err := meta.Apply(rules.Image, records)
		if err != nil {
			records, refused = nil, refuse(InvalidRequest, "The metadata cannot have that: %v.", err)
		}
		if !d.add(records) {
			break
		}
		rules.Image = after
		results = append(results, refused)
	}
	return d, results
}

func (l Links) changeTopic(kind LinksKind, a *MirrorTopic) (records []byte, refused *Error) {
	if kind == CreateMirrors {
		return l.createMirror(a)
	}
	if kind == RestoreMirrors {
		return l.restoreMirror(a)
	}
	t := l.Image.TopicByID(a.ID)
	switch {
	case t == nil:
		return nil, refuse(UnknownTopicID, "")
	case t.Mirror == nil:
		return nil, refuse(InvalidRequest, "The topic %s mirrors nothing.", t.Name)
	case kind == PromoteMirrors && t.Mirror.State >= meta.MirrorPromoting:
		return nil, nil
	case t.Mirror.State >= meta.MirrorPromoting:
		return nil, refuse(PolicyViolation, "The topic %s was promoted, or is just being promoted.", t.Name)
	}
	switch kind {
	case ExtendMirrors:
		return l.extendMirror(t, a)
	case PauseMirrors:
		return setMirrorState(t, meta.MirrorPaused), nil
	case PromoteMirrors:
		return setMirrorState(t, meta.MirrorPromoting), nil
	default:
		return setMirrorState(t, meta.MirrorActive), nil
	}
}

func setMirrorState(t *meta.Topic, s meta.MirrorState) (record []byte) {
	if t.Mirror.State == s {
		return nil
	}
	next := *t.Mirror
	next.State = s
	return meta.Append(nil, meta.MirrorSet{Topic: t.ID, Mirror: &next})
}

// createMirror makes a topic that mirrors. It has what any new topic has, and from its first record on it mirrors, so that no client has ever written to it.
func (l Links) createMirror(a *MirrorTopic) (records []byte, refused *Error) {
	if a.Mirror == nil {
		return nil, refuse(InvalidRequest, "There is no topic of the source to mirror as %s.", a.Name)
	}
	link, refused := l.checkSource(a)
	if refused != nil {
		return nil, refused
	}
	if t := l.Image.Topic(a.Name); t != nil {
		if t.IsMirror() && t.Mirror.Link == a.Mirror.Link && t.Mirror.Topic == a.Mirror.Topic && t.Mirror.TopicID == a.Mirror.TopicID {
			return nil, nil
		}
		return nil, refuse(TopicExists, "There is a topic %s already, which does not mirror %s by the link %q: give the mirror another name, or delete that topic.", a.Name, a.Mirror.Topic, link.Name)
	}
	d := topicsDecision{m: l.Image, static: l.Static, newID: l.NewID, maxPartitions: l.MaxPartitions}
	asked, made := NewTopic{Name: a.Name, Partitions: a.Partitions, ReplicationFactor: a.ReplicationFactor, Configs: map[string]*string{}}, CreatedTopic{}
	for key, value := range a.Configs {
		asked.Configs[key] = &value
	}
	if a.Partitions < 1 { // the default is of no use: the source says how many there are
		return nil, refuse(InvalidPartitions, "A mirror of %s with %d partitions.", a.Mirror.Topic, a.Partitions)
	}
	if refused = d.decideTopic(&asked, &made); refused != nil {
		return nil, refused
	}
	mirror := *a.Mirror
	mirror.State = meta.MirrorActive
	records = meta.Append(d.records, meta.MirrorSet{Topic: made.ID, Mirror: &mirror})
	return appendNewMirrors(records, made.ID, &mirror, 0, int(made.Partitions)), nil
}

// checkSource refuses a mirror that cannot be: one without its link, or of a topic that comes from here.
func (l Links) checkSource(a *MirrorTopic) (link *meta.Link, refused *Error) {
	link = l.Image.Links().Find(a.Mirror.Link)
	switch {
	case link == nil:
		return nil, refuse(UnknownLink, "There is no link of the id %s.", a.Mirror.Link)
	case slices.Contains(a.Mirror.Path, l.Image.ClusterID):
		return nil, refuse(PolicyViolation, "The topic %s comes from this cluster, over %s: it is not mirrored back to it.", a.Mirror.Topic, strings.Join(a.Mirror.Path, ", "))
	case meta.InternalTopic(a.Name):
		return nil, refuse(PolicyViolation, "The topic %s is the cluster's own: it cannot mirror one.", a.Name)
	}
	return link, nil
}

// extendMirror adds the partitions that a topic lacks.
func (l Links) extendMirror(t *meta.Topic, a *MirrorTopic) (records []byte, refused *Error) {
	have := len(t.Partitions)
	more := int(a.Partitions) - have
	if more <= 0 {
		return nil, nil
	}
	if l.Image.NumPartitions()+more > l.MaxPartitions {
		return nil, refusePartitions(l.MaxPartitions)
	}
	parts, refused := placeMore(l.Image, t, more)
	if refused != nil {
		return nil, refused
	}
	records = meta.Append(nil, meta.PartitionsSet{Topic: t.ID, First: int32(have), Partitions: parts})
	return appendNewMirrors(records, t.ID, t.Mirror, have, more), nil
}

// appendNewMirrors appends the records by which new partitions mirror. All that they will have is of the cluster in which the topic begins.
func appendNewMirrors(records []byte, topic meta.UUID, m *meta.Mirror, first, count int) []byte {
	if len(m.Path) == 0 { // it is refused when the records are applied
		return records
	}
	begin := meta.PartitionMirror{State: meta.PartitionMirrors, Lineages: []meta.Lineage{{Cluster: m.Path[0]}}}
	for i := range count {
		records = meta.Append(records, meta.PartitionMirrorSet{Topic: topic, Partition: int32(first + i), PartitionMirror: begin})
	}
	return records
}
