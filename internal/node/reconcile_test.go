package node

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
)

// TestIneffectiveConfigsAreLogged proves that the log tells of a topic's config without effect, and
// is silent about the offsets topic, whose configs nobody has chosen.
func TestIneffectiveConfigsAreLogged(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	pending := map[string]string{"errors.deadletterqueue.group.enable": "true"}
	if warnIneffective(logger, config.Resource{Type: config.Topic, Name: group.Topic}, pending) || log.Len() > 0 {
		t.Errorf("the log tells of the offsets topic:\n%s", log.String())
	}
	if !warnIneffective(logger, config.Resource{Type: config.Topic, Name: "orders"}, pending) || !strings.Contains(log.String(), "name=orders") {
		t.Errorf("the log does not tell of topic orders:\n%s", log.String())
	}
}

// TestManyTopicsAreCounted proves that a change of many topics has a bounded number of log lines.
func TestManyTopicsAreCounted(t *testing.T) {
	var log strings.Builder
	d := &meta.Delta{Topics: map[meta.UUID]meta.TopicChange{}}
	for i := range maxLoggedTopics + 7 {
		d.Topics[meta.UUID{byte(i)}] = meta.TopicChange{New: &meta.Topic{Name: "t"}}
	}
	logTopics(slog.New(slog.NewTextHandler(&log, nil)), d)
	if n := strings.Count(log.String(), "\n"); n != maxLoggedTopics+1 || !strings.Contains(log.String(), "topics=7") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// TestChangesOfConfigsAreLogged proves that the log names the configs that a change has set and
// unset, hides secret values, cuts long ones, and has a bounded number of lines.
func TestChangesOfConfigsAreLogged(t *testing.T) {
	set := func(r config.Resource, kv ...string) []byte {
		var b []byte
		for i := 0; i < len(kv); i += 2 {
			b = meta.Append(b, meta.ConfigSet{Resource: r, Key: kv[i], Value: kv[i+1]})
		}
		return b
	}
	topic, broker := config.Resource{Type: config.Topic, Name: "orders"}, config.Resource{Type: config.Broker}
	apply := func(m *meta.Image, records []byte) (*meta.Image, *meta.Delta) {
		next, d, err := meta.Apply(m, records)
		if err != nil {
			t.Fatal(err)
		}
		return next, d
	}
	before, _ := apply(meta.Empty(), append(meta.Append(nil, meta.TopicCreated{ID: meta.UUID{1}, Name: "orders"}), set(topic, "retention.bytes", "1")...))
	records := set(topic, "retention.ms", "5")
	records = append(records, meta.Append(nil, meta.ConfigUnset{Resource: topic, Key: "retention.bytes"})...)
	records = append(records, set(broker, "sasl.jaas.config", "secret", "log.cleanup.policy", strings.Repeat("x", 3*maxLoggedValue))...)
	after, d := apply(before, records)
	var log strings.Builder
	logConfigs(slog.New(slog.NewTextHandler(&log, nil)), d, before, after)
	for _, want := range []string{`type=TOPIC name=orders set="[retention.ms=5]" unset=[retention.bytes]`, "sasl.jaas.config=[hidden]", strings.Repeat("x", maxLoggedValue) + "..."} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("a secret is in\n%s", log.String())
	}
	records = nil
	for i := range maxLoggedTopics + 7 {
		records = append(records, set(config.Resource{Type: config.Group, Name: strconv.Itoa(i)}, "consumer.session.timeout.ms", "5")...)
	}
	many, d := apply(after, records)
	log.Reset()
	logConfigs(slog.New(slog.NewTextHandler(&log, nil)), d, after, many)
	if n := strings.Count(log.String(), "\n"); n != maxLoggedTopics+1 || !strings.Contains(log.String(), "resources=7") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}
