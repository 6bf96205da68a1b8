package broker

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestProducerIDsAreNeverGivenTwice proves that many requests at once get different ids, from
// blocks that are reserved one after another, and a retriable error if no block can be
// reserved.
func TestProducerIDsAreNeverGivenTwice(t *testing.T) {
	const conns, each = 8, 25
	blocks := 0
	var down bool
	g := newRig(t, func(c *Config) {
		reserve := c.ProducerIDs
		c.ProducerIDs = func(ctx context.Context) (int64, int64, error) {
			if down {
				return 0, 0, errors.New("no controller")
			}
			blocks++ // only one may be in here at a time: -race tells
			return reserve(ctx)
		}
	})
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range conns {
		c := dial(t, g.addr)
		wg.Go(func() {
			for range each {
				r := ask[*kmsg.InitProducerIDResponse](c, initProducer(4, nil, -1, -1))
				mu.Lock()
				if r.ErrorCode != 0 || r.ProducerEpoch != 0 || seen[r.ProducerID] {
					t.Errorf("code %d, id %d", r.ErrorCode, r.ProducerID)
				}
				seen[r.ProducerID] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != conns*each || blocks != conns*each/10 {
		t.Errorf("%d ids from %d blocks", len(seen), blocks)
	}
	down = true
	c := dial(t, g.addr)
	if r := ask[*kmsg.InitProducerIDResponse](c, initProducer(4, nil, -1, -1)); r.ErrorCode != kerr.CoordinatorNotAvailable.Code {
		t.Errorf("without a controller: code %d", r.ErrorCode)
	}
	txn := "txn"
	if r := ask[*kmsg.InitProducerIDResponse](c, initProducer(4, &txn, -1, -1)); r.ErrorCode != kerr.TransactionalIDAuthorizationFailed.Code {
		t.Errorf("with a transactional id: code %d", r.ErrorCode)
	}
}

// TestApiVersions proves what clients depend on: every version of this API is answered, an
// unknown one in the form of version 0 with the versions that are served (KIP-511); invalid
// names of a client's software are refused; Produce is advertised from version 0 on; and no
// API is advertised that is not served.
func TestApiVersions(t *testing.T) {
	g := newRig(t)
	c := dial(t, g.addr)
	for v := range int16(6) {
		req := at(v, kmsg.NewPtrApiVersionsRequest())
		req.ClientSoftwareName, req.ClientSoftwareVersion = "leat-test", "1.0"
		resp := ask[*kmsg.ApiVersionsResponse](c, req)
		told := map[int16][2]int16{}
		for _, k := range resp.ApiKeys {
			told[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
		}
		if resp.ErrorCode != 0 || told[0] != [2]int16{0, 13} || told[1] != [2]int16{4, 18} || told[18] != [2]int16{0, 5} {
			t.Errorf("version %d: code %d, %v", v, resp.ErrorCode, told)
		}
		if _, ok := told[24]; ok || len(told) != len(coreAPIs()) {
			t.Errorf("version %d: told %v", v, told)
		}
		if v >= 3 && (len(resp.FinalizedFeatures) != 1 || resp.FinalizedFeatures[0].Name != "metadata.version" || resp.FinalizedFeaturesEpoch < 0) {
			t.Errorf("version %d: features %+v", v, resp.FinalizedFeatures)
		}
	}
	c.send(at(77, kmsg.NewPtrApiVersionsRequest()))
	if b, err := c.frame(); err != nil || string(b) != "\x00\x23\x00\x00\x00\x01\x00\x12\x00\x00\x00\x05" {
		t.Errorf("an unknown version: %x, %v", b, err)
	}
	bad := at(3, kmsg.NewPtrApiVersionsRequest())
	bad.ClientSoftwareName, bad.ClientSoftwareVersion = "-leat-", "1"
	if resp := ask[*kmsg.ApiVersionsResponse](c, bad); resp.ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("a bad name: code %d", resp.ErrorCode)
	}
}

// TestClientsFindThatTheyAreMisrouted proves that a client which takes the node for another one, or its cluster for
// another one, is told to begin anew (KIP-1242), and that one which does not know yet is served. The codes are those of Apache
// Kafka 4.4.0.
func TestClientsFindThatTheyAreMisrouted(t *testing.T) {
	c := dial(t, newRig(t).addr)
	ours, other := "MkU3OEVBNTcwNTJENDM2Qk", "MkU3OEVBNTcwNTJENDM2Ql"
	for _, tc := range []struct {
		cluster *string
		node    int32
		code    int16
	}{
		{nil, -1, none},
		{&ours, 1, none},
		{&ours, 2, kerr.RebootstrapRequired.Code},
		{&other, 1, kerr.RebootstrapRequired.Code},
		{&ours, -1, kerr.InvalidRequest.Code},
		{nil, 1, kerr.InvalidRequest.Code},
	} {
		req := at(5, kmsg.NewPtrApiVersionsRequest())
		req.ClientSoftwareName, req.ClientSoftwareVersion, req.ClusterID, req.NodeID = "leat-test", "1.0", tc.cluster, tc.node
		resp := ask[*kmsg.ApiVersionsResponse](c, req)
		if resp.ErrorCode != tc.code || (len(resp.ApiKeys) == 0) == (tc.code == none) {
			t.Errorf("node %d: code %d, want %d, with %d APIs", tc.node, resp.ErrorCode, tc.code, len(resp.ApiKeys))
		}
	}
}

// TestUnservedRequestsCloseTheConnection proves that a request for an API or a version that
// is not served closes the connection, after the requests before it are answered.
func TestUnservedRequestsCloseTheConnection(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	for _, bad := range []kmsg.Request{
		at(2, put("events", 0, -1, batch(t, "x"))), at(3, get("events", 0, 0)), kmsg.NewPtrEndTxnRequest(), kmsg.NewPtrLeaderAndISRRequest(),
	} {
		c := dial(t, g.addr)
		good := put("events", 0, -1, batch(t, "good"))
		c.send(good, bad)
		if p := produced(t, c.receive(good).(*kmsg.ProduceResponse)); p.ErrorCode != 0 {
			t.Errorf("before %T: code %d", bad, p.ErrorCode)
		}
		if b, err := c.frame(); err == nil {
			t.Errorf("%T v%d is answered: %x", bad, bad.GetVersion(), b)
		}
	}
}

// TestAPITableIsChecked proves that a broker cannot be built with two handlers for one API,
// or with an API without versions or handler.
func TestAPITableIsChecked(t *testing.T) {
	raw := (*session).produce
	for name, list := range map[string][]api{
		"twice":       {{key: 3, name: "A", raw: raw}, {key: 3, name: "B", raw: raw}},
		"no handler":  {{key: 3, name: "A"}},
		"no versions": {{key: 3, name: "A", min: 2, max: 1, raw: raw}},
		"no such key": {{key: 999, name: "A", raw: raw}},
	} {
		if err := new(Broker).registerAPIs(list); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
}
