package broker

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/wire"
)

// TestMutationQuota proves that creating, deleting and adding partitions counts by the number of partitions; that versions which know
// THROTTLING_QUOTA_EXCEEDED get it, and the throttle time, when the quota is used up; and that earlier ones are carried out and throttled.
func TestMutationQuota(t *testing.T) {
	now := &clock{}
	l := quota.New(quota.Config{Now: now.Now})
	g := newAdminRig(t, nil, func(c *Config) { c.Quotas = l })
	setQuotas(l, map[meta.QuotaKey]float64{meta.ControllerMutationRate: 1}) // eleven are saved up
	topic := func(version int16, name string, partitions int32) (code int16, millis int32) {
		t.Helper()
		resp := ask[*kmsg.CreateTopicsResponse](dial(t, g.addr), createTopics(version, false, topicOf(name, partitions, 1)))
		return resp.Topics[0].ErrorCode, resp.ThrottleMillis
	}
	if code, millis := topic(7, "first", 10); code != 0 || millis != 0 {
		t.Fatalf("code %d, throttled for %d ms", code, millis)
	}
	if code, millis := topic(7, "second", 5); code != 0 || millis != 0 { // beyond what is left, which is admitted once
		t.Fatalf("code %d, throttled for %d ms", code, millis)
	}
	exceeded := kerr.ThrottlingQuotaExceeded.Code
	if code, millis := topic(6, "third", 1); code != exceeded || millis != 4000 {
		t.Errorf("code %d, throttled for %d ms", code, millis)
	}
	if code, millis := topic(5, "fourth", 1); code != 0 || millis != 5000 {
		t.Errorf("permissive: code %d, throttled for %d ms", code, millis)
	}
	more := at(3, kmsg.NewPtrCreatePartitionsRequest())
	more.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "fourth", Count: 2}}
	if resp := ask[*kmsg.CreatePartitionsResponse](dial(t, g.addr), more); resp.Topics[0].ErrorCode != exceeded || resp.ThrottleMillis != 5000 {
		t.Errorf("code %d, throttled for %d ms", resp.Topics[0].ErrorCode, resp.ThrottleMillis)
	}
	gone := at(5, kmsg.NewPtrDeleteTopicsRequest())
	gone.TopicNames = []string{"fourth"}
	if resp := ask[*kmsg.DeleteTopicsResponse](dial(t, g.addr), gone); resp.Topics[0].ErrorCode != exceeded || resp.ThrottleMillis != 5000 {
		t.Errorf("code %d, throttled for %d ms", resp.Topics[0].ErrorCode, resp.ThrottleMillis)
	}
	gone.Version = 4
	if resp := ask[*kmsg.DeleteTopicsResponse](dial(t, g.addr), gone); resp.Topics[0].ErrorCode != 0 || resp.ThrottleMillis != 6000 {
		t.Errorf("permissive: code %d, throttled for %d ms", resp.Topics[0].ErrorCode, resp.ThrottleMillis)
	}
	now.pass(6 * 1e9)
	if code, millis := topic(7, "third", 1); code != 0 || millis != 0 {
		t.Errorf("when there are tokens again: code %d, throttled for %d ms", code, millis)
	}
	if st := l.Stats(quota.Mutation); st.Used != 18 || st.Throttled != 5 {
		t.Errorf("%+v", st)
	}
}

// TestQuotasAreDescribed proves that quotas which a client has set are described by filters: by exact names, by defaults, by parts
// that an entity must have, and strictly; and that addresses are found in any form.
func TestQuotasAreDescribed(t *testing.T) {
	g := newAdminRig(t, nil)
	g.apply(meta.LevelSet{Level: meta.LevelQuotas})
	type entity = kmsg.AlterClientQuotasRequestEntryEntity
	set := kmsg.NewPtrAlterClientQuotasRequest()
	for key, of := range map[string][]entity{
		"producer_byte_rate":       {{Type: "user", Name: new("alice")}},
		"consumer_byte_rate":       {{Type: "user", Name: new("alice")}, {Type: "client-id"}},
		"request_percentage":       {{Type: "client-id", Name: new("app")}},
		"connection_creation_rate": {{Type: "ip", Name: new("0:0:0:0:0:0:0:1")}},
	} {
		set.Entries = append(set.Entries, kmsg.AlterClientQuotasRequestEntry{Entity: of, Ops: []kmsg.AlterClientQuotasRequestEntryOp{{Key: key, Value: 7}}})
	}
	c := dial(t, g.addr)
	for _, e := range ask[*kmsg.AlterClientQuotasResponse](c, at(1, set)).Entries {
		if e.ErrorCode != 0 {
			t.Fatal(*e.ErrorMessage)
		}
	}
	user := kmsg.DescribeClientQuotasRequestComponent{EntityType: "user", Match: new("alice")}
	anyClient := kmsg.DescribeClientQuotasRequestComponent{EntityType: "client-id", MatchType: kmsg.QuotasMatchTypeAny}
	defaultClient := kmsg.DescribeClientQuotasRequestComponent{EntityType: "client-id", MatchType: kmsg.QuotasMatchTypeDefault}
	ip := kmsg.DescribeClientQuotasRequestComponent{EntityType: "ip", Match: new("::1")}
	nobody := kmsg.DescribeClientQuotasRequestComponent{EntityType: "client-id", Match: new("")}
	type filter []kmsg.DescribeClientQuotasRequestComponent
	for i, tc := range []struct {
		filter filter
		strict bool
		want   int
	}{
		{nil, false, 4},
		{nil, true, 0},
		{filter{user}, false, 2},
		{filter{user}, true, 1},
		{filter{user, anyClient}, true, 1},
		{filter{user, defaultClient}, true, 1},
		{filter{anyClient}, false, 2},
		{filter{anyClient}, true, 1},
		{filter{defaultClient}, true, 0},
		{filter{ip}, true, 1},
		{filter{nobody}, false, 0},
	} {
		req := at(1, kmsg.NewPtrDescribeClientQuotasRequest(), func(r *kmsg.DescribeClientQuotasRequest) { r.Components, r.Strict = tc.filter, tc.strict })
		resp := ask[*kmsg.DescribeClientQuotasResponse](c, req)
		if resp.ErrorCode != 0 || len(resp.Entries) != tc.want {
			t.Errorf("filter %d: code %d, %d entities, not %d", i, resp.ErrorCode, len(resp.Entries), tc.want)
		}
		for _, e := range resp.Entries {
			if len(e.Values) != 1 || e.Values[0].Value != 7 {
				t.Errorf("filter %d: %+v", i, e)
			}
		}
	}
}

// TestMetadataCounts proves that the topics which a Metadata request makes count against the client's quota of changes, on the active controller's node and by way
// of another one, as the client's own request; that a topic for which there is no room is not made, and the client is told that there is none, without being
// throttled; and that clients without such a quota share requests for topics, which do not count.
func TestMetadataCounts(t *testing.T) {
	now := &clock{}
	l := quota.New(quota.Config{Now: now.Now})
	g := newAdminRig(t, nil, func(c *Config) { c.Quotas = l })
	g.topic("before", 1)
	setQuotas(l, map[meta.QuotaKey]float64{meta.ControllerMutationRate: 1}) // eleven are saved up
	c := dial(t, g.addr)
	create := func(names ...string) (codes []int16) {
		t.Helper()
		req := at(12, kmsg.NewPtrMetadataRequest(), func(r *kmsg.MetadataRequest) { r.AllowAutoTopicCreation = true })
		for _, name := range names {
			req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
		}
		resp := ask[*kmsg.MetadataResponse](c, req)
		for i := range resp.Topics {
			codes = append(codes, resp.Topics[i].ErrorCode)
			if is := g.image.Load().Topic(*resp.Topics[i].Topic) != nil; is != (resp.Topics[i].ErrorCode == none) {
				t.Errorf("topic %s: code %d, and it exists: %v", *resp.Topics[i].Topic, resp.Topics[i].ErrorCode, is)
			}
		}
		if resp.ThrottleMillis != 0 {
			t.Errorf("throttled for %d ms", resp.ThrottleMillis)
		}
		return codes
	}
	used := func(want float64) {
		t.Helper()
		if st := l.Stats(quota.Mutation); st.Used != want {
			t.Errorf("%v changes count, want %v", st.Used, want)
		}
	}
	create("before")
	used(0)
	if codes := create("one", "before"); !slices.Equal(codes, []int16{0, 0}) {
		t.Errorf("codes %v", codes)
	}
	used(1)

	// Another node leads.
	var sent []*wire.Carried
	other := &reached{leader: 2}
	other.forward = func(_ context.Context, q *wire.Carried, _ func(context.Context) error) ([]byte, error) {
		sent = append(sent, q)
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version = q.Version
		if err := req.ReadFrom(q.Body); err != nil {
			t.Fatal(err)
		}
		resp := kmsg.NewPtrCreateTopicsResponse()
		resp.Version, resp.ThrottleMillis = q.Version, 5000
		for i := range req.Topics {
			rt := kmsg.NewCreateTopicsResponseTopic()
			if rt.Topic = req.Topics[i].Topic; rt.Topic == "full" {
				rt.ErrorCode = kerr.ThrottlingQuotaExceeded.Code
			} else {
				g.topic(rt.Topic, 1)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp.AppendTo(nil), nil
	}
	g.broker.cfg.Cluster = other
	if codes := create("two", "full"); !slices.Equal(codes, []int16{0, kerr.UnknownTopicOrPartition.Code}) {
		t.Errorf("codes %v", codes)
	}
	if len(sent) != 1 || sent[0].Principal != "User:ANONYMOUS" || sent[0].ClientID != c.id || sent[0].Key != 19 || len(other.ensured) != 0 {
		t.Errorf("sent %+v, and %v", sent, other.ensured)
	}
	setQuotas(l, nil)
	create("three")
	if len(sent) != 1 || len(other.ensured) != 1 {
		t.Errorf("without a quota: sent %+v, and %v", sent, other.ensured)
	}

	g.broker.cfg.Cluster = nil
	setQuotas(l, map[meta.QuotaKey]float64{meta.ControllerMutationRate: 1})
	now.pass(time.Hour)
	before := l.Stats(quota.Mutation).Used
	ask[*kmsg.CreateTopicsResponse](c, createTopics(7, false, topicOf("many", 20, 1))) // more than there is, which is admitted once
	if codes := create("four"); !slices.Equal(codes, []int16{kerr.UnknownTopicOrPartition.Code}) {
		t.Errorf("codes %v", codes)
	}
	used(before + 20)
	now.pass(time.Hour)
	if codes := create("four"); !slices.Equal(codes, []int16{0}) {
		t.Errorf("codes %v when there is room again", codes)
	}
	used(before + 21)
}
