package broker

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/budget"
)

// manyCodes are requests whose answers have a code for each of n partitions.
func manyCodes(n int, topic string) []kmsg.Request {
	partitions := make([]int32, n)
	for i := range n {
		partitions[i] = int32(i)
	}
	move := kmsg.AlterReplicaLogDirsRequestDir{Dir: "/data", Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: topic, Partitions: partitions}}}
	return []kmsg.Request{
		at(2, &kmsg.AlterReplicaLogDirsRequest{Dirs: []kmsg.AlterReplicaLogDirsRequestDir{move}}),
		at(3, &kmsg.AddPartitionsToTxnRequest{Topics: []kmsg.AddPartitionsToTxnRequestTopic{{Topic: topic, Partitions: partitions}}}),
	}
}

// manyMessages are requests whose answers have a sentence for each of n partitions,
// entities or ACLs.
func manyMessages(n int, text string) []kmsg.Request {
	partitions, assigned := make([]int32, n), make([]kmsg.AlterPartitionAssignmentsRequestTopicPartition, n)
	entries := make([]kmsg.AlterClientQuotasRequestEntry, n)
	for i := range n {
		partitions[i], assigned[i].Partition = int32(i), int32(i)
		entries[i].Entity = []kmsg.AlterClientQuotasRequestEntryEntity{{Type: text}}
	}
	return []kmsg.Request{
		at(2, &kmsg.ElectLeadersRequest{Topics: []kmsg.ElectLeadersRequestTopic{{Topic: text, Partitions: partitions}}}),
		at(1, &kmsg.AlterPartitionAssignmentsRequest{Topics: []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: text, Partitions: assigned}}}),
		at(3, &kmsg.CreateACLsRequest{Creations: make([]kmsg.CreateACLsRequestCreation, n)}),
		at(3, &kmsg.DeleteACLsRequest{Filters: make([]kmsg.DeleteACLsRequestFilter, n)}),
		at(1, &kmsg.AlterClientQuotasRequest{Entries: entries}),
	}
}

// TestAnswersToLargeRequests proves that each of these APIs answers a large request whole, and
// that a request whose answer would take more memory than any answer may is refused by the
// code for the whole, or closes its connection where there is none. The rig checks that all memory is given back.
func TestAnswersToLargeRequests(t *testing.T) {
	g := newAdminRig(t, nil)
	for _, req := range append(manyCodes(30_000, "nowhere"), manyMessages(2000, "nowhere")...) {
		if resp := ask[kmsg.Response](dial(t, g.addr), req); len(asJSON(resp)) < 20_000 {
			t.Errorf("%s: %.300s", kmsg.NameForKey(req.Key()), asJSON(resp))
		}
	}
	for _, req := range manyMessages(50_000, strings.Repeat("n", 100)) {
		got := dial(t, g.addr).outcome(req)
		if isCommand := req.Key() == kmsg.ElectLeaders.Int16() || req.Key() == kmsg.AlterPartitionAssignments.Int16(); isCommand {
			if !strings.Contains(got, `"ErrorCode":44`) {
				t.Errorf("%s: %.100s", kmsg.NameForKey(req.Key()), got)
			}
		} else if got != closed {
			t.Errorf("%s: %.100s", kmsg.NameForKey(req.Key()), got)
		}
	}
	if resp := ask[*kmsg.ElectLeadersResponse](dial(t, g.addr), at(2, kmsg.NewPtrElectLeadersRequest())); resp.ErrorCode != none {
		t.Errorf("%+v", resp)
	}
}

// TestElectionOfAllLeaders proves that the leaders of all partitions of many topics can be
// elected with one request.
func TestElectionOfAllLeaders(t *testing.T) {
	const topics = 50_000
	g := manyTopics(t, topics)
	resp := ask[*kmsg.ElectLeadersResponse](dial(t, g.addr), at(2, kmsg.NewPtrElectLeadersRequest()))
	if len(resp.Topics) != topics || resp.ErrorCode != none {
		t.Errorf("%d topics, code %d", len(resp.Topics), resp.ErrorCode)
	}
}

// TestRunningBrokerIsNotRemoved proves that UnregisterBroker does not remove a registered
// broker.
func TestRunningBrokerIsNotRemoved(t *testing.T) {
	g := newAdminRig(t, nil)
	resp := ask[*kmsg.UnregisterBrokerResponse](dial(t, g.addr), &kmsg.UnregisterBrokerRequest{BrokerID: 1})
	if resp.ErrorCode != 44 || g.image.Load().Brokers[1] == nil {
		t.Errorf("code %d, %s", resp.ErrorCode, *resp.ErrorMessage)
	}
}

// TestClassicGroupIsNotOfNewerKinds proves that a request to describe a group of one of Kafka's
// newer kinds gets the codes and messages of Apache Kafka 4.3.1 if the group is a classic one,
// does not exist, or has no name.
func TestClassicGroupIsNotOfNewerKinds(t *testing.T) {
	g := newGroupRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	find := at(4, kmsg.NewPtrFindCoordinatorRequest())
	find.CoordinatorKeys = []string{"classic"}
	ask[*kmsg.FindCoordinatorResponse](c, find) // makes the coordinators
	commit := at(8, kmsg.NewPtrOffsetCommitRequest())
	commit.Group, commit.Generation = "classic", -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	for deadline := time.Now().Add(20 * time.Second); ask[*kmsg.OffsetCommitResponse](c, commit).Topics[0].Partitions[0].ErrorCode != none; {
		if time.Now().After(deadline) {
			t.Fatal("the coordinator does not load")
		}
	}
	ids := []string{"classic", "nowhere", "", "nowhere"}
	for kind, reqs := range map[string][]kmsg.Request{
		"consumer": {at(0, &kmsg.ConsumerGroupDescribeRequest{Groups: ids}), at(1, &kmsg.ConsumerGroupDescribeRequest{Groups: ids, IncludeAuthorizedOperations: true})},
		"share":    {at(1, &kmsg.ShareGroupDescribeRequest{GroupIDs: ids})},
		"streams":  {at(0, &kmsg.StreamsGroupDescribeRequest{Groups: ids})},
	} {
		for _, req := range reqs {
			text := plain(t, ask[kmsg.Response](c, req))
			for _, want := range []string{`"ErrorCode":24,"Group`, `"ErrorCode":69,"ErrorMessage":"Group classic is not a ` + kind + ` group.","Group`, `"ErrorCode":69,"ErrorMessage":"Group nowhere not found.","Group`} {
				if strings.Count(text, want) != 1 || strings.Count(text, "ErrorCode") != 3 {
					t.Errorf("%s v%d: no %s in %s", kmsg.NameForKey(req.Key()), req.GetVersion(), want, text)
				}
			}
		}
	}
}

// TestMissingAnswersPassTheirTurn proves that each answer of a missing feature which may be long
// passes its processor on while it is made, and that another one's work runs then.
func TestMissingAnswersPassTheirTurn(t *testing.T) {
	g := newAdminRig(t, nil)
	kinds, long := hostiles(g.topic("wide", 10)), 0
	for _, m := range missing.APIs() {
		for i := range kinds {
			a := m.Answer(g.broker.describeNode(), kinds[i].request(m.Key, m.Max, 16<<10))
			passes := 0
			bytes := len(a.Make(func() { passes++ }).AppendTo(nil))
			const each = 1 << 10 // more than an element takes that has a name of 250 letters
			if bytes > 2*each && kinds[i].name != "names of 30,000 letters" {
				if long++; passes < bytes/each {
					t.Errorf("%s, %s: an answer of %d bytes passes its turn %d times", m.Name, kinds[i].name, bytes, passes)
				}
			}
		}
	}
	if long < 8 {
		t.Errorf("only %d answers are long", long)
	}
	var others atomic.Bool
	var waiting sync.WaitGroup
	g.broker.makeInTurn(missing.Answer{Make: func(pass func()) kmsg.Response {
		waiting.Go(func() {
			g.work.Enter(budget.Codec)
			others.Store(true)
			g.work.Leave()
		})
		for g.work.WaitingTurns() == 0 {
			runtime.Gosched()
		}
		for range 2 * stretch { // commands and codecs take turns
			pass()
		}
		if !others.Load() {
			t.Error("others wait until the whole answer is made")
		}
		return nil
	}})
	waiting.Wait()
}
