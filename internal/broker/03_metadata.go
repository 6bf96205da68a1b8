package broker

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// Metadata, key 3, versions 0 to 13.
//
// 1: null asks for all topics, an empty list for none. 4: the client says whether
// unknown topics are to be created (KIP-361 on the client's side). 5: offline
// replicas. 7: leader epochs (KIP-320). 8: authorised operations (KIP-430). 10 and
// 12: topic ids (KIP-516). 13: an error of the whole answer (KIP-1102).
//
// Brokers that are fenced, or lack the listener by which the client asks, are left out: see clientView. In
// version 0 replicas on them are left out, too, since its clients look up each replica.
//
// A node that is cut off answers nobody for a while: see Contact.
//
// This node's address in the answer is the one to which the client has connected, unless
// another one was set. A topic that the request creates is in its answer; Kafka answers
// with an error first and has the client ask again.

func (b *Broker) metadata(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.MetadataRequest)
	if b.contact() == CutOff {
		return errSentAway
	}
	if code := checkMetadata(r.Version, req); code != none {
		r.Reply(refuseMetadata(req, code))
		return nil
	}
	m := b.cfg.Image()
	all := req.Topics == nil || r.Version == 0 && len(req.Topics) == 0
	by := s.access()
	var codes map[string]int16
	if !all && (r.Version < 4 || req.AllowAutoTopicCreation) {
		m, codes = b.autoCreate(s, r, &by, m, req)
	}
	resp := kmsg.NewPtrMetadataResponse()
	view := s.view(m)
	for _, id := range slices.Sorted(maps.Keys(view.shown)) {
		node := view.shown[id]
		n := kmsg.NewMetadataResponseBroker()
		n.NodeID = id
		n.Host, n.Port = s.addressOf(node)
		if node.Rack != "" {
			n.Rack = &node.Rack
		}
		resp.Brokers = append(resp.Brokers, n)
	}
	resp.ClusterID = &m.ClusterID
	resp.ControllerID = b.controllerOf(&view)
	if r.Version >= 8 && r.Version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = by.clusterOperations()
	}
	d := topicDescriber{by: by.shared(), view: view, version: r.Version, operations: r.Version >= 8 && req.IncludeTopicAuthorizedOperations, codes: codes}
	if all && by.isAll() && b.all.isShared(m) {
		return b.all.replyAll(r, resp, m, topicsForm{r.Version, d.operations, s.conn.ListenerName()})
	}
	if all {
		d.list = listTopics(m)
		if !by.isAll() { // the client is not told which others there are
			quiet := by.quietly()
			d.list = slices.DeleteFunc(d.list, func(t describedTopic) bool { return !quiet.mayTopic(meta.Describe, t.topic.Name) })
		}
	} else {
		d.listNamed(m, req.Topics)
		d.denyTopics(&by)
	}
	return b.replyList(r, resp, list{n: len(d.list), memory: d.memory(), answerWith: d.answerWith})
}

// These are about how much memory a topic of an answer and each of its partitions keep until
// the answer is sent. They are the metadata's, but those may have others by then.
const (
	topicMemory     = 256
	partitionMemory = 224
)

// checkMetadata returns the code that refuses a whole request, or none. Before version 12
// topics cannot be asked for by id, and in no version with neither an id nor a name.
func checkMetadata(version int16, req *kmsg.MetadataRequest) int16 {
	for i := range req.Topics {
		t := &req.Topics[i]
		unnamed, byID := t.Topic == nil, t.TopicID != [16]byte{}
		if version < 12 && (unnamed || byID) || unnamed && !byID {
			return kerr.InvalidRequest.Code
		}
	}
	return none
}

func refuseMetadata(req *kmsg.MetadataRequest, code int16) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	resp.ControllerID = -1
	for i := range req.Topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = req.Topics[i].Topic, req.Topics[i].TopicID, code
		if t.Topic == nil {
			t.Topic = new(string)
		}
		resp.Topics = append(resp.Topics, t)
	}
	resp.ErrorCode = code
	return resp
}

// controllerID is the node of the active controller, as far as this node knows; -1: it does not.
func (b *Broker) controllerID() int32 {
	if b.cfg.Cluster != nil {
		return b.cfg.Cluster.Leader()
	}
	return b.cfg.Quorum().Leader
}

// autoCreate creates the topics that a request names and that do not exist, if that is
// allowed. It returns the image that has them, and the codes of those that it could not create.
func (b *Broker) autoCreate(s *session, r *wire.Request, by *access, m *meta.Image, req *kmsg.MetadataRequest) (*meta.Image, map[string]int16) {
	var missing []string
	seen := map[string]bool{}
	for i := range req.Topics {
		t := &req.Topics[i]
		if t.TopicID != [16]byte{} {
			return m, nil // as in Kafka, names do not count beside ids
		}
		if t.Topic == nil || m.Topic(*t.Topic) != nil || seen[*t.Topic] || controller.CheckTopicName(*t.Topic) != nil {
			continue
		}
		seen[*t.Topic] = true
		missing = append(missing, *t.Topic)
	}
	quiet := by.quietly() // what is denied is told, and recorded, when the topics are described
	missing = slices.DeleteFunc(missing, func(name string) bool { return !quiet.mayTopic(meta.Describe, name) })
	if len(missing) == 0 {
		return m, nil
	}
	server := meta.ServerSettings(m, b.cfg.Static)
	if !server.AutoCreateTopics {
		return m, nil
	}
	denied := map[string]int16{}
	if !by.isEnoughOnCluster(auth.InsteadOf(3)) {
		missing = slices.DeleteFunc(missing, func(name string) bool {
			if by.mayTopic(meta.Create, name) {
				return false
			}
			denied[name] = kerr.TopicAuthorizationFailed.Code
			return true
		})
	}
	if len(missing) == 0 {
		return m, denied
	}
	refused, err := b.ensureTopics(s, r, m, missing)
	if err != nil {
		b.cfg.Logger.Warn("cannot create topics that a client asked for", "err", err)
	}
	codes := denied
	isTold := false
	for name, e := range refused {
		if e.code == kerr.ThrottlingQuotaExceeded.Code {
			continue // the client is told that there is no such topic, and asks again
		}
		codes[name] = e.code
		if !isTold { // one line, since a client may ask for thousands
			isTold = true
			b.cfg.Logger.Warn("cannot create topics that a client asked for", "topics", len(refused), "one", name, "err", e.message)
		}
	}
	next := b.cfg.Image()
	by.audit.noteAutoCreated(missing, func(name string) bool { return err == nil && refused[name] == (unmade{}) && next.Topic(name) != nil })
	return next, codes
}

// topicDescriber describes the topics of an answer. It describes a topic the same way each
// time, as list.answerWith must.
//
// An answer that is not read keeps the describer. So it has no image, which would keep all
// topics of that time, but only the topics of the answer, which the answer's memory counts.
type topicDescriber struct {
	by         access // on any goroutine
	view       clientView
	version    int16
	operations bool             // authorised operations are asked for
	codes      map[string]int16 // of topics that could not be created
	list       []describedTopic
}

// describedTopic is a topic of an answer: one that exists, or the name or the id of one that
// does not.
type describedTopic struct {
	topic *meta.Topic
	name  *string
	id    meta.UUID
	// isDenied tells that the client may not know whether it exists. The answer has what the client has named.
	isDenied bool
}

// memory is about how much memory the topics of the answer keep until it is sent.
func (d *topicDescriber) memory() (n int64) {
	for i := range d.list {
		t := &d.list[i]
		n += topicMemory
		switch {
		case t.topic != nil:
			n += int64(len(t.topic.Name)) + partitionMemory*int64(len(t.topic.Partitions))
		case t.name != nil:
			n += int64(len(*t.name))
		}
	}
	return n
}

// answerWith is the answer with topic i alone, or with none for -1.
func (d *topicDescriber) answerWith(i int) kmsg.Response {
	resp := kmsg.NewPtrMetadataResponse()
	if i >= 0 {
		resp.Topics = []kmsg.MetadataResponseTopic{d.describeListed(&d.list[i])}
	}
	return resp
}

// listNamed lists the topics that a client has named, each of them once. If any has an id,
// those that have only a name are left out, as in Kafka.
func (d *topicDescriber) listNamed(m *meta.Image, topics []kmsg.MetadataRequestTopic) {
	byID := slices.ContainsFunc(topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != [16]byte{} })
	d.list = make([]describedTopic, 0, len(topics))
	names := make(map[string]struct{}, len(topics))
	ids := make(map[meta.UUID]struct{})
	for i := range topics {
		t := &topics[i]
		switch {
		case byID && t.TopicID != [16]byte{}:
			if _, twice := ids[t.TopicID]; twice {
				continue
			}
			ids[t.TopicID] = struct{}{}
			d.list = append(d.list, describedTopic{topic: m.TopicByID(t.TopicID), id: t.TopicID})
		case !byID && t.Topic != nil:
			if _, twice := names[*t.Topic]; twice {
				continue
			}
			names[*t.Topic] = struct{}{}
			d.list = append(d.list, describedTopic{topic: m.Topic(*t.Topic), name: t.Topic})
		}
	}
}

// denyTopics finds the topics of the list that the client may not describe. One whose id no topic has is unknown to
// everybody.
func (d *topicDescriber) denyTopics(by *access) {
	if by.isAll() && !by.watch.isNoting() {
		return
	}
	for i := range d.list {
		t := &d.list[i]
		switch {
		case t.name != nil:
			t.isDenied = !by.mayTopic(meta.Describe, *t.name)
		case t.topic != nil:
			t.isDenied = !by.mayTopic(meta.Describe, t.topic.Name)
		}
		if t.isDenied {
			t.topic = nil
		}
	}
}

func (d *topicDescriber) describeListed(t *describedTopic) kmsg.MetadataResponseTopic {
	switch {
	case t.isDenied:
		denied := kmsg.NewMetadataResponseTopic()
		denied.Topic, denied.TopicID, denied.ErrorCode = t.name, t.id, kerr.TopicAuthorizationFailed.Code
		return denied
	case t.topic != nil:
		return d.describeTopic(t.topic)
	case t.name != nil:
		return d.describeMissing(*t.name)
	}
	missing := kmsg.NewMetadataResponseTopic()
	missing.TopicID, missing.ErrorCode = t.id, kerr.UnknownTopicID.Code
	return missing
}

func (d *topicDescriber) describeMissing(name string) kmsg.MetadataResponseTopic {
	missing := kmsg.NewMetadataResponseTopic()
	missing.Topic, missing.IsInternal = &name, meta.InternalTopic(name)
	missing.ErrorCode = kerr.UnknownTopicOrPartition.Code
	if controller.CheckTopicName(name) != nil {
		missing.ErrorCode = kerr.InvalidTopicException.Code
	} else if code, ok := d.codes[name]; ok {
		missing.ErrorCode = code
	}
	if d.operations && missing.ErrorCode != kerr.TopicAuthorizationFailed.Code {
		missing.AuthorizedOperations = d.by.operations(topicOperations, meta.TopicResource, name)
	}
	return missing
}

func (d *topicDescriber) describeTopic(t *meta.Topic) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal = &t.Name, t.ID, t.Internal()
	if d.operations {
		rt.AuthorizedOperations = d.by.operations(topicOperations, meta.TopicResource, t.Name)
	}
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		p, rp := &t.Partitions[i], &rt.Partitions[i]
		rp.Partition, rp.Leader, rp.LeaderEpoch = int32(i), p.Leader, p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = p.Replicas, p.ISR, d.view.hidden(p.Replicas)
		if d.version == 0 && d.leaveOutHidden(rp) {
			rp.ErrorCode = kerr.ReplicaNotAvailable.Code
		}
		if d.view.shown[p.Leader] == nil {
			rp.Leader, rp.ErrorCode = -1, d.view.leaderCode(p.Leader, d.version)
		}
	}
	return rt
}

// leaveOutHidden leaves out the replicas whose brokers are not shown, and tells whether there are any.
func (d *topicDescriber) leaveOutHidden(p *kmsg.MetadataResponseTopicPartition) bool {
	isHidden := func(id int32) bool { return d.view.shown[id] == nil }
	if !slices.ContainsFunc(p.Replicas, isHidden) && !slices.ContainsFunc(p.ISR, isHidden) {
		return false
	}
	p.Replicas = slices.DeleteFunc(slices.Clone(p.Replicas), isHidden)
	p.ISR = slices.DeleteFunc(slices.Clone(p.ISR), isHidden)
	return true
}
