package controller

import (
	"math"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

func quotaPart(typ, name string) QuotaPart {
	if name == "" {
		return QuotaPart{Type: typ}
	}
	return QuotaPart{typ, &name}
}

func setQuota(key string, value float64, parts ...QuotaPart) QuotaChange {
	return QuotaChange{Entity: parts, Ops: []QuotaOp{{Key: key, Value: value}}}
}

// TestQuotasAreAltered proves that quotas are set, changed and removed, each entity wholly or not at all, that what Kafka refuses is
// refused in its words without harm to the others, and that a cluster of an earlier level has none.
func TestQuotasAreAltered(t *testing.T) {
	r, apply := securedRules(t)
	alice := meta.QuotaEntity{User: meta.NamedQuota("alice")}
	records, results := alterQuotas(r.Image, []QuotaChange{
		{Entity: []QuotaPart{quotaPart("user", "alice")}, Ops: []QuotaOp{{Key: "producer_byte_rate", Value: 10}, {Key: "request_percentage", Value: 0.5}}},
		{Entity: []QuotaPart{quotaPart("user", "bob")}, Ops: []QuotaOp{{Key: "producer_byte_rate", Value: 10}, {Key: "nonsense", Value: 1}}},
		setQuota("consumer_byte_rate", 7, quotaPart("user", "alice")),
		setQuota("connection_creation_rate", 3, quotaPart("ip", "0:0::1")),
		setQuota("controller_mutation_rate", 2.5, quotaPart("client-id", ""), quotaPart("user", "")),
	})
	for i, bad := range []string{"", "Invalid configuration key nonsense", "The request names an entity twice, and its first change of it counts.", "", ""} {
		if (results[i] != nil) != (bad != "") || bad != "" && results[i].Message != bad {
			t.Errorf("change %d: %v", i, results[i])
		}
	}
	apply(records)
	q := r.Image.Quotas()
	if len(q.ByEntity) != 3 || q.ByEntity[alice][meta.ProducerByteRate] != 10 || q.ByEntity[alice][meta.RequestPercentage] != 0.5 ||
		q.ByEntity[meta.QuotaEntity{IP: meta.NamedQuota("::1")}][meta.ConnectionRate] != 3 ||
		q.ByEntity[meta.QuotaEntity{User: meta.NamedQuota(""), ClientID: meta.NamedQuota("")}][meta.ControllerMutationRate] != 2.5 {
		t.Errorf("%v", q.ByEntity)
	}
	records, _ = alterQuotas(r.Image, []QuotaChange{
		{Entity: []QuotaPart{quotaPart("user", "alice")}, Ops: []QuotaOp{
			{Key: "producer_byte_rate", Remove: true}, {Key: "request_percentage", Value: 0.5}, {Key: "consumer_byte_rate", Remove: true},
		}},
	})
	apply(records)
	if set := r.Image.Quotas().ByEntity[alice]; len(set) != 1 || set[meta.RequestPercentage] != 0.5 {
		t.Errorf("%v", set)
	}
	for want, c := range map[string]QuotaChange{
		"Invalid empty client quota entity":                                                        setQuota("producer_byte_rate", 1),
		"Unhandled client quota entity type: host":                                                 setQuota("producer_byte_rate", 1, quotaPart("host", "a")),
		"Empty user not supported":                                                                 {Entity: []QuotaPart{{"user", new("")}}},
		"Invalid client quota entity, duplicate entity entry user":                                 setQuota("producer_byte_rate", 1, quotaPart("user", "a"), quotaPart("user", "b")),
		"Invalid quota entity combination, IP entity should not be combined with User or ClientId": setQuota("producer_byte_rate", 1, quotaPart("user", "a"), quotaPart("ip", "::1")),
		"example.org is not an IP address, and host names are not resolved.":                       setQuota("connection_creation_rate", 1, quotaPart("ip", "example.org")),
		"A name of an entity has at most 1024 bytes.":                                              setQuota("producer_byte_rate", 1, quotaPart("user", strings.Repeat("a", 1025))),
		"Invalid configuration key connection_creation_rate":                                       setQuota("connection_creation_rate", 1, quotaPart("user", "a")),
		"Quota producer_byte_rate must be greater than 0":                                          setQuota("producer_byte_rate", math.NaN(), quotaPart("user", "a")),
		"Quota request_percentage must be greater than 0":                                          setQuota("request_percentage", 0, quotaPart("user", "a")),
		"producer_byte_rate cannot be a fractional value.":                                         setQuota("producer_byte_rate", 1.5, quotaPart("user", "a")),
		"Proposed value for producer_byte_rate is too large for a LONG.":                           setQuota("producer_byte_rate", 1e30, quotaPart("user", "a")),
		"Proposed value for connection_creation_rate is too large for an INT.":                     setQuota("connection_creation_rate", 1e10, quotaPart("ip", "")),
		"Proposed value for request_percentage is infinite: remove the quota in place of that.":    setQuota("request_percentage", math.Inf(1), quotaPart("user", "a")),
		"Duplicate quota key producer_byte_rate":                                                   {Entity: []QuotaPart{quotaPart("user", "a")}, Ops: []QuotaOp{{Key: "producer_byte_rate", Value: 1}, {Key: "producer_byte_rate", Remove: true}}},
	} {
		if records, results := alterQuotas(r.Image, []QuotaChange{c}); len(records) > 0 || results[0] == nil || results[0].Message != want || results[0].Kind != InvalidRequest {
			t.Errorf("%v, and not %s", results[0], want)
		}
	}

	old := &Rules{Image: meta.Empty()}
	one := []QuotaChange{setQuota("producer_byte_rate", 1, quotaPart("user", "a"))}
	if records, results := alterQuotas(old.Image, one); len(records) > 0 || results[0] == nil || results[0].Kind != UnsupportedFeature || !strings.Contains(results[0].Message, "leat cluster finalize") {
		t.Errorf("at an earlier level: %v", results[0])
	}
}

// TestQuotaEntitiesAreBounded proves that a cluster has no more entities with quotas than the limit, and that those that have some can
// be changed at the limit.
func TestQuotaEntitiesAreBounded(t *testing.T) {
	r, apply := securedRules(t)
	var all []QuotaChange
	for i := range maxQuotaEntities + 1 {
		name := "user " + string(rune('a'+i%26)) + strings.Repeat("x", i/26%40) + strings.Repeat("y", i/1040)
		all = append(all, setQuota("producer_byte_rate", 1, quotaPart("user", name)))
	}
	records, results := alterQuotas(r.Image, all)
	if results[maxQuotaEntities] == nil || results[maxQuotaEntities].Kind != PolicyViolation || results[maxQuotaEntities-1] != nil {
		t.Errorf("%v, %v", results[maxQuotaEntities-1], results[maxQuotaEntities])
	}
	apply(records)
	all[0].Ops[0].Value = 2
	if _, results := alterQuotas(r.Image, all[:1]); results[0] != nil {
		t.Errorf("%v", results[0])
	}
}

// TestChangesWithinAQuota proves that a quota is asked once for each topic, also if the command is decided again, with the number
// of partitions that change, and that topics which it refuses are not changed.
func TestChangesWithinAQuota(t *testing.T) {
	var asked []int
	permit := func(n int) bool {
		asked = append(asked, n)
		return n < 5
	}
	once := permitOnce[string](permit)
	for range 2 {
		if err := once("a", 3); err != nil {
			t.Error(err)
		}
		if err := once("b", 5); err == nil || err.Kind != ThrottlingQuotaExceeded {
			t.Error(err)
		}
	}
	if len(asked) != 2 {
		t.Errorf("asked for %v", asked)
	}
	c := newCluster(t, nil)
	ctl := c.controller()
	if err := ctl.Bootstrap(t.Context(), "MkU3OEVBNTcwNTJENDM2Qk"); err != nil {
		t.Fatal(err)
	}
	join(t, ctl, 1)
	asked = nil
	limited := Limited{Controller: ctl, Permit: permit}
	made, err := limited.CreateTopics(t.Context(), []NewTopic{
		{Name: "few", Partitions: 2, ReplicationFactor: 1}, {Name: "many", Partitions: 6, ReplicationFactor: 1}, {Name: "bad name", Partitions: 1, ReplicationFactor: 1},
	}, false)
	if err != nil || made[0].Err != nil || made[1].Err == nil || made[1].Err.Kind != ThrottlingQuotaExceeded || made[2].Err == nil || made[2].Err.Kind != InvalidTopic {
		t.Fatalf("%v, %v", made, err)
	}
	errs, err := limited.CreatePartitions(t.Context(), []MorePartitions{{Topic: "few", Count: 5}}, false)
	if err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	errs, err = limited.DeleteTopics(t.Context(), []meta.UUID{made[0].ID})
	if err != nil || errs[0] == nil || errs[0].Kind != ThrottlingQuotaExceeded || c.Image().Topic("few") == nil {
		t.Errorf("%v, %v", errs, err)
	}
	if want := []int{2, 6, 3, 5}; len(asked) != len(want) || asked[0] != 2 || asked[1] != 6 || asked[2] != 3 || asked[3] != 5 {
		t.Errorf("asked for %v, and not %v", asked, want)
	}
}
