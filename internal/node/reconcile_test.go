package node

import (
	"log/slog"
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
	compacted := map[string]string{"cleanup.policy": "compact"}
	if warnIneffective(logger, config.Resource{Type: config.Topic, Name: group.Topic}, compacted) || log.Len() > 0 {
		t.Errorf("the log tells of the offsets topic:\n%s", log.String())
	}
	if !warnIneffective(logger, config.Resource{Type: config.Topic, Name: "orders"}, compacted) || !strings.Contains(log.String(), "name=orders") {
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
