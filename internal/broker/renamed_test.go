package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// TestIDsAreJudgedByTheirNames proves that a topic's id gives no more than its name does, alone, in a fetch session that began with
// another topic, and after a topic was deleted and another one has its name.
func TestIDsAreJudgedByTheirNames(t *testing.T) {
	g := newSecuredRig(t)
	mine := g.topic("mine", 1)
	g.allow(meta.Read, meta.TopicResource, "mine")
	hidden := g.image.Load().Topic(hiddenTopic).ID
	c := dial(t, g.addr)
	by := func(session, epoch int32, id meta.UUID) kmsg.FetchResponseTopicPartition {
		t.Helper()
		req := at(17, get("", 0, 0))
		req.Topics[0].TopicID, req.SessionID, req.SessionEpoch = id, session, epoch
		resp := ask[*kmsg.FetchResponse](c, req)
		if len(resp.Topics) != 1 || resp.Topics[0].TopicID != id {
			t.Fatalf("%+v", resp)
		}
		return resp.Topics[0].Partitions[0]
	}
	const noSession = -1
	if p := by(0, noSession, mine); p.ErrorCode != none {
		t.Errorf("its own topic: %+v", p)
	}
	if p := by(0, noSession, hidden); p.ErrorCode != kerr.TopicAuthorizationFailed.Code || len(p.RecordBatches) > 0 {
		t.Errorf("another one: %+v", p)
	}
	begin := at(17, get("", 0, 0))
	begin.Topics[0].TopicID, begin.SessionEpoch = mine, 0
	session := ask[*kmsg.FetchResponse](c, begin).SessionID
	if session == 0 {
		t.Fatal("there is no session")
	}
	if p := by(session, 1, hidden); p.ErrorCode != kerr.TopicAuthorizationFailed.Code || len(p.RecordBatches) > 0 {
		t.Errorf("another one in a session: %+v", p)
	}
	g.apply(meta.TopicDeleted{ID: hidden})
	g.allow(meta.Read, meta.TopicResource, hiddenTopic)
	again := g.topic(hiddenTopic, 1)
	if p := by(0, noSession, hidden); p.ErrorCode != kerr.UnknownTopicID.Code || len(p.RecordBatches) > 0 {
		t.Errorf("the id of a topic that is gone: %+v", p)
	}
	if p := by(0, noSession, again); p.ErrorCode == kerr.TopicAuthorizationFailed.Code || len(p.RecordBatches) > 0 {
		t.Errorf("a new topic of that name: %+v", p)
	}
}
