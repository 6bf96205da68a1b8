package capped

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// far replaces addresses of brokers in tests.
func far(a address) (address, error) {
	if a.host == "gone" {
		return a, errors.New("nobody listens in place of it")
	}
	return address{"proxy-" + a.host, a.port + 1000}, nil
}

// frameOf is an answer with a header.
func frameOf(resp kmsg.Response, tags ...byte) []byte {
	frame := []byte{0, 0, 0, 7}
	if resp.IsFlexible() && resp.Key() != apiVersions {
		if tags == nil {
			tags = []byte{0}
		}
		frame = append(frame, tags...)
	}
	return resp.AppendTo(frame)
}

// answers has an answer of each kind that names brokers, each of them "one" or "two".
func answers() []kmsg.Response {
	broker := func(host string, port int32) (b kmsg.MetadataResponseBroker) {
		b.Default()
		b.Host, b.Port = host, port
		return b
	}
	metadata := kmsg.NewPtrMetadataResponse()
	metadata.Brokers = []kmsg.MetadataResponseBroker{broker("one", 1), broker("two", 2)}
	coordinator := kmsg.NewPtrFindCoordinatorResponse()
	coordinator.Host, coordinator.Port = "one", 1
	coordinators := kmsg.NewPtrFindCoordinatorResponse()
	coordinators.Version = 4
	coordinators.Coordinators = []kmsg.FindCoordinatorResponseCoordinator{{Host: "one", Port: 1}, {Key: "none", NodeID: -1, Port: -1}, {Host: "two", Port: 2}}
	cluster := kmsg.NewPtrDescribeClusterResponse()
	cluster.Brokers = []kmsg.DescribeClusterResponseBroker{{Host: "one", Port: 1}, {Host: "two", Port: 2}}
	produce := kmsg.NewPtrProduceResponse()
	produce.Version = 10
	produce.Brokers = []kmsg.ProduceResponseBroker{{Host: "one", Port: 1}}
	fetch := kmsg.NewPtrFetchResponse()
	fetch.Version = 16
	part := kmsg.NewFetchResponseTopicPartition()
	part.RecordBatches = []byte("batches")
	topic := kmsg.NewFetchResponseTopic()
	topic.Partitions = append(topic.Partitions, part)
	fetch.Topics, fetch.Brokers = append(fetch.Topics, topic), []kmsg.FetchResponseBroker{{Host: "two", Port: 2}}
	share := kmsg.NewPtrShareFetchResponse()
	share.Version = 1
	share.NodeEndpoints = []kmsg.ShareFetchResponseNodeEndpoint{{Host: "one", Port: 1}}
	acknowledge := kmsg.NewPtrShareAcknowledgeResponse()
	acknowledge.Version = 1
	acknowledge.NodeEndpoints = []kmsg.ShareAcknowledgeResponseNodeEndpoint{{Host: "one", Port: 1}}
	return []kmsg.Response{metadata, coordinator, coordinators, cluster, produce, fetch, share, acknowledge}
}

// TestAllAddressesAreReplaced proves that no answer that may name a broker does so past the proxy, and that nothing else of it changes.
func TestAllAddressesAreReplaced(t *testing.T) {
	for _, resp := range answers() {
		r := Request{resp.Key(), resp.GetVersion()}
		if !mayChange(r) {
			t.Errorf("%s of version %d passes unread", kmsg.NameForKey(r.Key), r.Version)
		}
		before := frameOf(resp)
		got, err := rewriteAnswer(r, bytes.Clone(before), nil, far)
		if err != nil {
			t.Errorf("%s: %v", kmsg.NameForKey(r.Key), err)
			continue
		}
		for _, a := range addressesOf(resp) {
			if *a.host != "" {
				*a.host, *a.port = "proxy-"+*a.host, *a.port+1000
			}
		}
		if want := frameOf(resp); !bytes.Equal(got, want) || bytes.Equal(got, before) {
			t.Errorf("%s: %q, not %q", kmsg.NameForKey(r.Key), got, want)
		}
		if again := strings.Count(string(got), "proxy-"); again == 0 {
			t.Errorf("%s names no proxy: %q", kmsg.NameForKey(r.Key), got)
		}
	}
	gone := kmsg.NewPtrFindCoordinatorResponse()
	gone.Host, gone.Port = "gone", 1
	if got, err := rewriteAnswer(Request{gone.Key(), 0}, frameOf(gone), nil, far); err == nil {
		t.Errorf("the address of a broker passes that has no proxy: %q", got)
	}
}

// TestHeadersKeepTheirTags proves that the tagged fields in the header of an answer pass, and that those of one which is cut off are an error.
func TestHeadersKeepTheirTags(t *testing.T) {
	m := kmsg.NewPtrMetadataResponse()
	m.Version = 12
	tags := []byte{2, 0, 3, 'a', 'b', 'c', 9, 0}
	frame := frameOf(m, tags...)
	got, err := rewriteAnswer(Request{m.Key(), m.Version}, bytes.Clone(frame), nil, far)
	if err != nil || !bytes.Equal(got, frame) {
		t.Errorf("%q, not %q: %v", got, frame, err)
	}
	for cut := range 4 + len(tags) {
		if got, err := rewriteAnswer(Request{m.Key(), m.Version}, bytes.Clone(frame[:max(4, cut)]), nil, far); err == nil {
			t.Errorf("of %d bytes comes %q", cut, got)
		}
	}
}

// TestVersionsAreLowered proves which versions of APIs an answer to ApiVersions has.
func TestVersionsAreLowered(t *testing.T) {
	key := func(key kmsg.Key, lowest, highest int16) (k kmsg.ApiVersionsResponseApiKey) {
		k.Default()
		k.ApiKey, k.MinVersion, k.MaxVersion = key.Int16(), lowest, highest
		return k
	}
	r := kmsg.NewPtrApiVersionsResponse()
	r.Version, r.FinalizedFeaturesEpoch = 3, 17
	r.ApiKeys = []kmsg.ApiVersionsResponseApiKey{key(kmsg.Produce, 3, 13), key(kmsg.Fetch, 4, 17), key(kmsg.ListOffsets, 1, 10), key(kmsg.Metadata, 0, 999), key(kmsg.DescribeTopicPartitions, 0, 0)}
	r.FinalizedFeatures = []kmsg.ApiVersionsResponseFinalizedFeature{{Name: "transaction.version", MaxVersionLevel: 2}}
	v := Versions{kmsg.Produce.Int16(): 2, kmsg.Fetch.Int16(): 11, kmsg.ListOffsets.Int16(): 20, kmsg.DescribeTopicPartitions.Int16(): -1}
	frame, err := rewriteAnswer(Request{r.Key(), 3}, frameOf(r), v, far)
	if err != nil {
		t.Fatal(err)
	}
	got := kmsg.NewPtrApiVersionsResponse()
	got.Version = 3
	if err := got.ReadFrom(frame[4:]); err != nil {
		t.Fatal(err)
	}
	newest := kmsg.NewPtrMetadataResponse().MaxVersion()
	want := []kmsg.ApiVersionsResponseApiKey{key(kmsg.Fetch, 4, 11), key(kmsg.ListOffsets, 1, 10), key(kmsg.Metadata, 0, newest)}
	for i := range max(len(want), len(got.ApiKeys)) {
		if i >= len(want) || i >= len(got.ApiKeys) || got.ApiKeys[i].ApiKey != want[i].ApiKey || got.ApiKeys[i].MinVersion != want[i].MinVersion || got.ApiKeys[i].MaxVersion != want[i].MaxVersion {
			t.Fatalf("%+v, not %+v", got.ApiKeys, want)
		}
	}
	if len(got.FinalizedFeatures) > 0 || got.FinalizedFeaturesEpoch != -1 {
		t.Errorf("there are features: %+v", got)
	}
}

// FuzzAnswer proves that no answer, however wrong, makes the proxy fail.
func FuzzAnswer(f *testing.F) {
	for _, resp := range answers() {
		f.Add(resp.Key(), resp.GetVersion(), frameOf(resp))
	}
	f.Fuzz(func(_ *testing.T, key, version int16, answer []byte) {
		if resp := rewritten(key); resp == nil || len(answer) < 4 || len(answer) > 1<<16 || version < 0 || version > resp.MaxVersion() {
			return
		}
		_, _ = rewriteAnswer(Request{key, version}, answer, Versions{1: 11}, far) // an error is right for nearly all
	})
}
