package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DeleteTopics, key 20, versions 1 to 6.
//
// 5: error messages. 6: topics by id (KIP-516), either by name or by id.

func (b *Broker) deleteTopics(by *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteTopicsRequest)
	d := deletion{by: &by.by, m: b.cfg.Image(), resp: kmsg.NewPtrDeleteTopicsResponse()}
	if !meta.ServerSettings(d.m, b.cfg.Static).DeleteTopics {
		d.refuseAll(r.Version, req)
		r.Reply(d.resp)
		return nil
	}
	for i := range req.TopicNames {
		d.addTopic(&req.TopicNames[i], meta.UUID{})
	}
	for i := range req.Topics {
		d.addTopic(req.Topics[i].Topic, req.Topics[i].TopicID)
	}
	d.resolveTopics()
	ctx, cancel := by.withTimeout(req.TimeoutMillis)
	defer cancel()
	errs, err := by.DeleteTopics(ctx, d.ids)
	if by.isElsewhere(err) {
		return err
	}
	for i, id := range d.ids {
		if err != nil {
			code, message := outcomeOf(nil, err)
			d.addAnswer(d.refs[i].name, d.refs[i].id, code, message)
			continue
		}
		code, message := outcomeOf(errs[i], nil)
		d.addAnswer(&d.names[i], id, code, message)
	}
	d.resp.ThrottleMillis = b.throttled(by, r)
	r.Reply(d.resp)
	return nil
}

// deletion is a request to delete topics, and its answer.
type deletion struct {
	by     *access
	m      *meta.Image
	resp   *kmsg.DeleteTopicsResponse
	asked  []topicRef        // the topics of the request in its order, each of them once
	byName map[string]int    // how often each name is asked for
	byID   map[meta.UUID]int // how often each id is asked for

	// The topics to delete, in lists of equal length.
	ids   []meta.UUID
	names []string
	refs  []topicRef
}

// chooseTopic adds a topic to those that are to be deleted.
func (d *deletion) chooseTopic(t *meta.Topic, ref topicRef) {
	d.ids, d.names, d.refs = append(d.ids, t.ID), append(d.names, t.Name), append(d.refs, ref)
}

// topicRef is a topic as a request names it: by its name, or, if that is nil, by its id.
type topicRef struct {
	name *string
	id   meta.UUID
}

func (d *deletion) addAnswer(name *string, id meta.UUID, code int16, message *string) {
	rt := kmsg.NewDeleteTopicsResponseTopic()
	rt.Topic, rt.TopicID, rt.ErrorCode, rt.ErrorMessage = name, id, code, message
	d.resp.Topics = append(d.resp.Topics, rt)
}

func (d *deletion) refuseTopic(name *string, id meta.UUID, e *kerr.Error, message string) {
	if message == "" {
		message = e.Description
	}
	d.addAnswer(name, id, e.Code, &message)
}

func (d *deletion) refuseAll(version int16, req *kmsg.DeleteTopicsRequest) {
	e, message := kerr.TopicDeletionDisabled, ""
	if version < 3 {
		e, message = kerr.InvalidRequest, "Topic deletion is disabled."
	}
	for i := range req.TopicNames {
		d.refuseTopic(&req.TopicNames[i], meta.UUID{}, e, message)
	}
	for i := range req.Topics {
		d.refuseTopic(req.Topics[i].Topic, req.Topics[i].TopicID, e, message)
	}
}

func (d *deletion) addTopic(name *string, id meta.UUID) {
	switch {
	case name == nil && id == meta.UUID{}:
		d.refuseTopic(nil, id, kerr.InvalidRequest, "Neither topic name nor id were specified.")
		return
	case name != nil && id != meta.UUID{}:
		d.refuseTopic(name, id, kerr.InvalidRequest, "You may not specify both topic name and topic id.")
		return
	}
	if d.byName == nil {
		d.byName, d.byID = map[string]int{}, map[meta.UUID]int{}
	}
	var times int
	if name != nil {
		times = d.byName[*name] + 1
		d.byName[*name] = times
	} else {
		times = d.byID[id] + 1
		d.byID[id] = times
	}
	if times == 1 {
		d.asked = append(d.asked, topicRef{name, id})
	}
}

// describable is the name of a topic of which the client may know; nil: it may not.
func (d *deletion) describable(name string) *string {
	if d.by.mayTopic(meta.Describe, name) {
		return &name
	}
	return nil
}

// refuseDenied refuses a topic that the client may not delete.
func (d *deletion) refuseDenied(name *string, id meta.UUID) {
	d.refuseTopic(name, id, kerr.TopicAuthorizationFailed, deniedText(kerr.TopicAuthorizationFailed))
}

// resolveTopics chooses the topics that can be deleted, and answers for the others.
func (d *deletion) resolveTopics() {
	chosen := map[meta.UUID]bool{}
	mayAll := d.by.isEnoughOnCluster(auth.InsteadOf(20))
	for _, ref := range d.asked {
		if ref.name != nil {
			continue
		}
		t := d.m.TopicByID(ref.id)
		switch {
		case d.byID[ref.id] > 1:
			d.refuseTopic(nil, ref.id, kerr.InvalidRequest, "Duplicate topic id.")
		case t == nil:
			d.refuseTopic(nil, ref.id, kerr.UnknownTopicID, "")
		case !mayAll && !d.by.mayTopic(meta.DeleteOperation, t.Name):
			var name *string
			if d.by.quietly().mayTopic(meta.Describe, t.Name) {
				name = &t.Name
			}
			d.refuseDenied(name, ref.id)
		default:
			chosen[ref.id] = true
		}
	}
	both := map[meta.UUID]bool{}
	for _, ref := range d.asked {
		if ref.name == nil {
			continue
		}
		t := d.m.Topic(*ref.name)
		switch {
		case d.byName[*ref.name] > 1:
			d.refuseTopic(ref.name, meta.UUID{}, kerr.InvalidRequest, "Duplicate topic name.")
		case !mayAll && d.describable(*ref.name) == nil:
			d.refuseDenied(ref.name, meta.UUID{})
		case t == nil:
			d.refuseTopic(ref.name, meta.UUID{}, kerr.UnknownTopicOrPartition, "")
		case !mayAll && !d.by.mayTopic(meta.DeleteOperation, *ref.name):
			d.refuseDenied(ref.name, meta.UUID{})
		case chosen[t.ID] || d.byID[t.ID] > 1:
			both[t.ID] = true
			d.refuseTopic(ref.name, t.ID, kerr.InvalidRequest, "The provided topic name maps to an ID that was already supplied.")
		default:
			d.chooseTopic(t, ref)
		}
	}
	for id := range chosen {
		if !both[id] {
			d.chooseTopic(d.m.TopicByID(id), topicRef{id: id})
		}
	}
}
