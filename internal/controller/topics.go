package controller

import (
	"context"
	"math"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// Limits of one request and of the cluster.
const (
	// MaxNewPartitions is how many partitions one request may make, as in Kafka.
	MaxNewPartitions = 10_000
	// MaxPartitions is how many partitions a cluster may have, however much memory there is.
	MaxPartitions = 1_000_000
	maxTopicName  = 249
)

// Assignment is the replicas of one partition, chosen by the client.
type Assignment struct {
	Partition int32
	Replicas  []int32
}

// NewTopic asks for a topic. Partitions and ReplicationFactor are -1 for the default;
// they must be -1 if there are Assignments.
type NewTopic struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Assignments       []Assignment
	Configs           map[string]*string // nil values are refused
	// Follows tells that nobody has chosen the ReplicationFactor, so that it rises with the
	// cluster. It is not needed if ReplicationFactor is -1.
	Follows bool
}

// CreatedTopic is the result of a NewTopic.
type CreatedTopic struct {
	Name              string
	ID                meta.UUID
	Partitions        int32
	ReplicationFactor int16
	Configs           map[string]string // set on the topic
	Err               *Error            // nil if it was made
}

// CreateTopics makes topics, each one wholly or not at all. With validateOnly it only
// tells what it would do. No name may be there twice.
func (c *Controller) CreateTopics(ctx context.Context, topics []NewTopic, validateOnly bool) ([]CreatedTopic, error) {
	return Limited{Controller: c}.CreateTopics(ctx, topics, validateOnly)
}

// CreateTopics decides the topics of one request. newID draws their ids, and maxPartitions is how
// many partitions the cluster may have.
func (r *Rules) CreateTopics(topics []NewTopic, newID func() meta.UUID, maxPartitions int) (records []byte, results []CreatedTopic) {
	d := topicsDecision{m: r.Image, static: r.Static, newID: newID, maxPartitions: maxPartitions}
	records = d.decideTopics(topics)
	return records, d.results
}

// topicsDecision decides the topics of one request.
type topicsDecision struct {
	m             *meta.Image
	static        *config.Static
	newID         func() meta.UUID
	maxPartitions int                                       // of the cluster
	permit        func(topic string, partitions int) *Error // nil: all are permitted
	records       []byte
	newPartitions int // partitions
	newBytes      int // of configs
	results       []CreatedTopic
}

func (d *topicsDecision) decideTopics(topics []NewTopic) []byte {
	total := 0
	for i := range topics {
		total += max(int(topics[i].Partitions), len(topics[i].Assignments), 1)
	}
	for i := range topics {
		t := &topics[i]
		r := CreatedTopic{Name: t.Name, Partitions: -1, ReplicationFactor: -1}
		if total > MaxNewPartitions {
			r.Err = refuse(PolicyViolation, "Excessively large number of partitions per request.")
		} else {
			r.Err = d.decideTopic(t, &r)
		}
		d.results = append(d.results, r)
	}
	return d.records
}

// decideTopic decides one topic. It adds the topic's records, or refuses it.
func (d *topicsDecision) decideTopic(t *NewTopic, r *CreatedTopic) *Error {
	if err := CheckTopicName(t.Name); err != nil {
		return err
	}
	if err := CheckCollision(d.m, t.Name); err != nil {
		return err
	}
	if d.m.Topic(t.Name) != nil {
		return refuse(TopicExists, "Topic '%s' already exists.", t.Name)
	}
	set, err := d.checkTopicConfigs(t.Configs)
	if err != nil {
		return err
	}
	parts, err := d.placePartitions(t)
	if err != nil {
		return err
	}
	if d.m.NumPartitions()+d.newPartitions+len(parts) > d.maxPartitions && !d.mayExceed(t.Name, len(parts)) {
		return refusePartitions(d.maxPartitions)
	}
	resource := config.Resource{Type: config.Topic, Name: t.Name}
	size := meta.ConfigBytes(resource, set)
	if size > 0 && d.m.ConfigBytes()+d.newBytes+size > maxConfigBytes && !meta.InternalTopic(t.Name) { // groups need theirs
		return refuseConfigBytes()
	}
	if d.permit != nil {
		if err := d.permit(t.Name, len(parts)); err != nil {
			return err
		}
	}
	d.newBytes += size
	r.ID, r.Configs = d.newID(), set
	r.Partitions, r.ReplicationFactor = int32(len(parts)), int16(len(parts[0].Replicas))
	d.newPartitions += len(parts)
	d.records = meta.Append(d.records, meta.TopicCreated{ID: r.ID, Name: t.Name, Follows: d.follows(t) && d.m.Level() >= meta.LevelCluster})
	d.records = meta.Append(d.records, meta.PartitionsSet{Topic: r.ID, Partitions: parts})
	d.records = appendConfigs(d.records, resource, nil, set)
	return nil
}

// mayExceed tells whether a topic may be made although the cluster has all partitions that it may
// have. The topics of the coordinators may, with no more partitions than they get by themselves:
// without them no group could be joined.
func (d *topicsDecision) mayExceed(name string, partitions int) bool {
	return meta.InternalTopic(name) && partitions <= int(Auto(d.m, d.static, name).Partitions)
}

// refusePartitions is the refusal of partitions beyond the limit, which says what to do.
func refusePartitions(limit int) *Error {
	if limit < MaxPartitions {
		return refuse(PolicyViolation, "There is memory for at most %d partitions in this cluster: delete topics that are not used, "+
			"ask for fewer partitions, or give the node more memory and start it again.", limit)
	}
	return refuse(PolicyViolation, "A cluster has at most %d partitions: delete topics that are not used, or ask for fewer.", limit)
}

func (d *topicsDecision) checkTopicConfigs(asked map[string]*string) (map[string]string, *Error) {
	set := make(map[string]string, len(asked))
	for k, v := range asked {
		if v == nil {
			return nil, refuse(InvalidConfig, "Null value not supported for topic configs: %s", k)
		}
		set[k] = *v
	}
	if err := checkConfigs(d.m, d.static, config.Topic, set); err != nil {
		return nil, configRefusal(err)
	}
	return set, nil
}

func (d *topicsDecision) placePartitions(t *NewTopic) ([]meta.Partition, *Error) {
	if len(t.Assignments) > 0 {
		return d.takeAssignments(t)
	}
	if t.ReplicationFactor < -1 || t.ReplicationFactor == 0 {
		return nil, refuse(InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if t.Partitions < -1 || t.Partitions == 0 {
		return nil, refuse(InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	count, factor := t.Partitions, t.ReplicationFactor
	if count == -1 || factor == -1 {
		s := meta.ServerSettings(d.m, d.static)
		if count == -1 {
			count = s.NumPartitions
		}
		if factor == -1 {
			factor = s.ReplicationFactor
		}
	}
	if int(count) > MaxNewPartitions { // num.partitions may be anything
		return nil, refuse(PolicyViolation, "Excessively large number of partitions per request.")
	}
	if d.follows(t) { // nodes that are leaving come back, and the number rises then
		factor = max(1, min(factor, int16(min(len(place.Brokers(d.m)), math.MaxInt16))))
	}
	return placeReplicas(d.m, nil, d.m.NumPartitions()+d.newPartitions, int(count), factor)
}

// follows tells whether nobody has chosen the number of a topic's replicas: neither the client
// nor a setting.
func (d *topicsDecision) follows(t *NewTopic) bool {
	if len(t.Assignments) > 0 {
		return false
	}
	return t.Follows || t.ReplicationFactor == -1 && !meta.ServerSettings(d.m, d.static).FactorSet
}

// takeAssignments makes the partitions of a topic whose replicas the client chose.
func (d *topicsDecision) takeAssignments(t *NewTopic) ([]meta.Partition, *Error) {
	if t.ReplicationFactor != -1 {
		return nil, refuse(InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if t.Partitions != -1 {
		return nil, refuse(InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	byNumber := make(map[int32]meta.Partition, len(t.Assignments))
	factor := 0
	for _, a := range t.Assignments {
		if _, twice := byNumber[a.Partition]; twice {
			return nil, refuse(InvalidAssignment, "Found multiple manual partition assignments for partition %d", a.Partition)
		}
		p, err := checkAssignment(d.m, a.Replicas, factor)
		if err != nil {
			return nil, err
		}
		byNumber[a.Partition], factor = p, len(a.Replicas)
	}
	parts := make([]meta.Partition, len(byNumber))
	for i := range parts {
		p, ok := byNumber[int32(i)]
		if !ok {
			return nil, refuse(InvalidAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		parts[i] = p
	}
	return parts, nil
}

// DeleteTopics deletes topics by id. The errors are in the order of the ids; nil means
// that the topic was deleted.
func (c *Controller) DeleteTopics(ctx context.Context, ids []meta.UUID) ([]*Error, error) {
	return Limited{Controller: c}.DeleteTopics(ctx, ids)
}

func decideDeleteTopics(m *meta.Image, ids []meta.UUID, permit func(id meta.UUID, partitions int) *Error) ([]byte, []*Error) {
	var records []byte
	results := make([]*Error, len(ids))
	seen := make(map[meta.UUID]bool, len(ids))
	for i, id := range ids {
		t := m.TopicByID(id)
		if t == nil || seen[id] {
			results[i] = refuse(UnknownTopicID, "")
			continue
		}
		seen[id] = true
		if t.Name == meta.AuditTopic {
			results[i] = refuse(InvalidTopic, "The topic %s records who did what, and cannot be deleted; its retention.ms says how long it keeps that.", t.Name)
			continue
		}
		if results[i] = permit(id, len(t.Partitions)); results[i] != nil {
			continue
		}
		records = meta.Append(records, meta.TopicDeleted{ID: id})
	}
	return records, results
}

// MorePartitions asks that a topic have Count partitions. Assignments are the replicas
// of the new ones, in order; if it is nil the controller chooses them.
type MorePartitions struct {
	Topic       string
	Count       int32
	Assignments [][]int32
}

// CreatePartitions adds partitions to topics. The errors are in the order of the
// requests; nil means that the partitions were added. No topic may be there twice.
func (c *Controller) CreatePartitions(ctx context.Context, asked []MorePartitions, validateOnly bool) ([]*Error, error) {
	return Limited{Controller: c}.CreatePartitions(ctx, asked, validateOnly)
}

func decideCreatePartitions(m *meta.Image, maxPartitions int, asked []MorePartitions, permit func(topic string, partitions int) *Error) ([]byte, []*Error) {
	var records []byte
	results := make([]*Error, len(asked))
	total := 0 // partitions that were placed, which is the work of the request: also of topics that are refused then
	for i := range asked {
		a := &asked[i]
		t := m.Topic(a.Topic)
		parts, err := placeMorePartitions(m, t, a, MaxNewPartitions-total)
		total += len(parts)
		if err == nil && m.NumPartitions()+total > maxPartitions {
			err = refusePartitions(maxPartitions)
		}
		if err == nil {
			err = permit(a.Topic, len(parts))
		}
		if results[i] = err; err != nil {
			continue
		}
		records = meta.Append(records, meta.PartitionsSet{Topic: t.ID, First: int32(len(t.Partitions)), Partitions: parts})
	}
	return records, results
}

// placeMorePartitions makes the partitions that are added to one topic, if those are at most so many.
func placeMorePartitions(m *meta.Image, t *meta.Topic, a *MorePartitions, most int) ([]meta.Partition, *Error) {
	if t == nil {
		return nil, refuse(UnknownTopic, "")
	}
	if t.Internal() {
		return nil, refuse(InvalidPartitions, "The partitions of %s cannot be increased: its records are found by the number of "+
			"partitions, and would be lost.", t.Name)
	}
	if t.IsMirror() {
		return nil, refuse(PolicyViolation, "The topic %s mirrors one of another cluster, and gets as many partitions as that one: add them there, or promote the topic first (\"leat link promote\").", t.Name)
	}
	have := len(t.Partitions)
	more := int(a.Count) - have
	switch {
	case more == 0:
		return nil, refuse(InvalidPartitions, "Topic already has %d partition(s).", have)
	case more < 0:
		return nil, refuse(InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Name, have, a.Count)
	case a.Assignments != nil && len(a.Assignments) != more:
		return nil, refuse(InvalidAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.",
			more, len(a.Assignments))
	case more > most:
		return nil, refuse(PolicyViolation, "Excessively large number of partitions per request.")
	}
	if a.Assignments == nil {
		return placeMore(m, t, more)
	}
	parts := make([]meta.Partition, more)
	for i := range parts {
		p, err := checkAssignment(m, a.Assignments[i], place.Factor(&t.Partitions[0]))
		if err != nil {
			return nil, err
		}
		parts[i] = p
	}
	return parts, nil
}

// CheckCollision returns why a topic cannot have this name beside those that are there, or nil if it can:
// '.' and '_' count as the same, since metrics cannot tell them apart.
func CheckCollision(m *meta.Image, name string) *Error {
	if other := m.Colliding(name); other != nil {
		return refuse(InvalidTopic, "Topic '%s' collides with existing topic: %s", name, other.Name)
	}
	return nil
}

// CheckTopicName returns why a topic cannot have this name, in Kafka's words, or nil if
// it can.
func CheckTopicName(name string) *Error {
	switch {
	case name == "":
		return refuse(InvalidTopic, "Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return refuse(InvalidTopic, "Topic name is invalid: '%s' is not allowed", name)
	case len(name) > maxTopicName:
		return refuse(InvalidTopic, "Topic name is invalid: the length of '%s' is longer than the max allowed length %d", name, maxTopicName)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '.' && c != '_' && c != '-' {
			return refuse(InvalidTopic, "Topic name is invalid: '%s' contains one or more characters other than "+
				"ASCII alphanumerics, '.', '_' and '-'", name)
		}
	}
	return nil
}
