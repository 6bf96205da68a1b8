package node

import (
	"log/slog"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// TestOwnSettings proves that the settings which Kafka does not have reach the packages that
// use them, as do their defaults.
func TestOwnSettings(t *testing.T) {
	with := func(settings map[string]string) *Node {
		t.Helper()
		static, err := config.NewStatic(1, settings)
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{static: static, loggers: newLoggers(slog.DiscardHandler, 0)}
		n.image.Store(meta.Empty())
		return n
	}
	f := func(settings map[string]string, journal, scrub, groups int64, other, local string) {
		t.Helper()
		n := with(settings)
		sc, wc := n.storageConfig(), n.wireConfig()
		if sc.Journal != journal || sc.Scrub != scrub {
			t.Errorf("%v: journal %d, scrub %d", settings, sc.Journal, sc.Scrub)
		}
		if got := n.serverSettings().Groups.Memory; got != groups {
			t.Errorf("%v: groups' memory %d", settings, got)
		}
		if wc.Congestion != other || wc.LocalCongestion != local {
			t.Errorf("%v: congestion control %q, on this machine %q", settings, wc.Congestion, wc.LocalCongestion)
		}
	}
	f(nil, 64<<20, 8<<20, 0, "", "reno")
	f(map[string]string{
		"leat.journal.bytes": "134217728", "leat.scrub.bytes.per.second": "0", "leat.group.memory.bytes": "2097152",
		"leat.tcp.congestion.control": "cubic", "leat.tcp.congestion.control.local": "",
	}, 128<<20, -1, 2<<20, "cubic", "")
	for _, c := range []struct {
		mayDelete, retention string
		want                 time.Duration
	}{{"", "", -1}, {"", "60000", -1}, {"true", "", 7 * 24 * time.Hour}, {"true", "60000", time.Minute}, {"true", "-1", -1}} {
		settings := map[string]string{}
		if c.mayDelete != "" {
			settings["leat.stray.delete.enable"] = c.mayDelete
		}
		if c.retention != "" {
			settings["leat.stray.retention.ms"] = c.retention
		}
		if got := with(settings).storageConfig().StrayRetention; got != c.want {
			t.Errorf("%v: %v, want %v", settings, got, c.want)
		}
	}
	for name, value := range map[string]string{
		"leat.journal.bytes": "1000", "leat.scrub.bytes.per.second": "-1", "leat.group.memory.bytes": "1",
		"leat.tcp.congestion.control": "not a name", "leat.stray.retention.ms": "0",
	} {
		if err := config.Validate(config.Broker, name, value); err == nil {
			t.Errorf("%s=%s is taken", name, value)
		}
	}
}
