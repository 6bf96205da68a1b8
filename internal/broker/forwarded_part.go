package broker

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// The answer to a request that another node serves is in this node's memory as a whole, from the moment
// in which it comes until the client has read it. So its memory is reserved before the request is sent,
// for the largest answer that the request can have; the other node is told how much that is.

// peerAnswers is the class of the memory for answers of the active controller.
const peerAnswers = budget.Data

var (
	// errLargeRequest refuses a request that is too large to be sent to another node.
	errLargeRequest = errors.New("the request is too large to be sent on to the active controller: ask for less at a time, or ask the active controller's node")
	// errLargeAnswer refuses a request whose answer might have no room in this node's memory.
	errLargeAnswer = errors.New("the answer may be larger than this node has memory for: ask for less at a time, or ask the active controller's node")
)

// forwardedPart is the part of a client's request that the active controller decides.
type forwardedPart struct {
	rest kmsg.Request // nil: there is none
	// merge makes the answer to the client of the one to rest; nil: they are the same.
	merge func(answer kmsg.Response) kmsg.Response
}

func (a *api) partOf(by *access, req kmsg.Request) forwardedPart {
	if a.split == nil {
		return forwardedPart{rest: req}
	}
	return a.split(by, req)
}

// passOn answers a client with the answer of the active controller.
func (p forwardedPart) passOn(r *wire.Request, answer []byte, memory *budget.Reservation) error {
	if p.merge == nil && r.Note == nil {
		sendHeld(r, answer, memory)
		return nil
	}
	resp := p.rest.ResponseKind()
	resp.SetVersion(r.Version)
	if err := resp.ReadFrom(answer); err != nil {
		return err
	}
	if p.merge == nil {
		r.TellNote(resp)
		sendHeld(r, answer, memory)
		return nil
	}
	r.Reply(p.merge(resp))
	return nil
}

// answerMemory is how many bytes the answer to a request may have. Texts may be in it several times: in
// messages, too.
func (b *Broker) answerMemory(kreq kmsg.Request) int64 {
	const fixed = 1 << 10
	var size missing.Memory
	switch req := kreq.(type) {
	case *kmsg.CreateTopicsRequest:
		size = b.sizeOfNewTopics(req)
	case *kmsg.DeleteTopicsRequest:
		for i := range req.TopicNames {
			size.Add(2, len(req.TopicNames[i]))
		}
		for i := range req.Topics {
			size.Add(2, 0)
			if name := req.Topics[i].Topic; name != nil {
				size.Add(0, len(*name))
			}
		}
	case *kmsg.CreatePartitionsRequest:
		for i := range req.Topics {
			size.Add(2, len(req.Topics[i].Topic))
		}
	case *kmsg.AlterConfigsRequest:
		for i := range req.Resources {
			size.Add(2, len(req.Resources[i].ResourceName))
			for j := range req.Resources[i].Configs {
				c := &req.Resources[i].Configs[j]
				addConfig(&size, c.Name, c.Value)
			}
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		for i := range req.Resources {
			size.Add(2, len(req.Resources[i].ResourceName))
			for j := range req.Resources[i].Configs {
				c := &req.Resources[i].Configs[j]
				addConfig(&size, c.Name, c.Value)
			}
		}
	case *kmsg.CreateACLsRequest:
		size = sizeOfNewACLs(req)
	case *kmsg.DeleteACLsRequest:
		size = b.sizeOfDeletedACLs(req)
	case *kmsg.AlterUserSCRAMCredentialsRequest:
		size = sizeOfUsers(req)
	case *kmsg.CreateDelegationTokenRequest:
		size = sizeOfNewToken(req)
	case *kmsg.ElectLeadersRequest:
		if size = sizeOfElections(req); req.Topics == nil {
			size = sizeOfAllElections(b.cfg.Image(), req.ElectionType)
		}
	case *kmsg.AlterPartitionAssignmentsRequest:
		size = sizeOfReassignments(req)
	case *kmsg.DescribeQuorumRequest:
		const replica = 256
		size = sizeOfQuorumTopics(req)
		size += missing.Memory(replica * len(b.cfg.Image().Nodes))
		size += missing.Memory(replica * len(b.cfg.Image().Brokers))
	case *kmsg.UpdateFeaturesRequest:
		size = sizeOfFeatures(req)
	}
	return fixed + int64(size)
}

// addConfig counts a config that a request sets, about which the answer may have a message, or a note.
func addConfig(size *missing.Memory, name string, value *string) {
	size.Add(1, len(name))
	if value != nil {
		size.Add(0, len(*value))
	}
}

func (b *Broker) sizeOfNewTopics(req *kmsg.CreateTopicsRequest) (size missing.Memory) {
	for i := range req.Topics {
		t := &req.Topics[i]
		size.Add(2, len(t.Topic))
		for j := range t.Configs {
			addConfig(&size, t.Configs[j].Name, t.Configs[j].Value)
		}
	}
	if req.Version >= 5 {
		view := b.cfg.Image().View(b.cfg.Static)
		entries := view.TopicEntries(nil)
		all := 0
		for i := range entries {
			const around, more = 8, 16 // the other fields, and how much longer the value is on another node
			all += around + more + len(entries[i].Def.Name) + len(entries[i].Value)
		}
		size += missing.Memory(all * len(req.Topics))
	}
	return size
}

// sizeOfAllElections is sizeOfElections for all partitions that need it.
func sizeOfAllElections(m *meta.Image, kind int8) (size missing.Memory) {
	const topic, election = 16, 160
	for t := range m.Topics() {
		size += missing.Memory(topic + len(t.Name))
		for i := range t.Partitions {
			if !hasElected(&t.Partitions[i], kind) {
				size += election
			}
		}
	}
	return size
}
