package meta

import (
	"sync/atomic"

	"github.com/leatstream/leat/internal/config"
)

// View is where the node that static belongs to finds the values of its configs.
func (m *Image) View(static *config.Static) config.View {
	return config.View{
		Static: static, Brokers: len(m.Brokers),
		Own: m.Overrides(static.Broker()), All: m.Overrides(allBrokers),
	}
}

// allBrokers is the resource whose configs hold for every broker.
var allBrokers = config.Resource{Type: config.Broker}

// settingsCache keeps a topic's last Settings with what they were computed from.
type settingsCache struct {
	last atomic.Pointer[cachedSettings]
}

type cachedSettings struct {
	static   *config.Static
	own, all *overrides // of the broker and of all brokers; the topic's own are the topic's
	settings config.Settings
}

// TopicSettings are a topic's settings on the node that static belongs to. They are
// computed once per change; asking again costs two look-ups.
func TopicSettings(m *Image, static *config.Static, t *Topic) *config.Settings {
	own, all := m.configs[static.Broker()], m.configs[allBrokers]
	if c := t.cache.last.Load(); c != nil && c.static == static && c.own == own && c.all == all {
		return &c.settings
	}
	c := &cachedSettings{static: static, own: own, all: all, settings: m.View(static).Topic(t.conf.values())}
	t.cache.last.Store(c)
	return &c.settings
}

// serverCache keeps the last Server with what it was computed from. The images that
// follow each other share it.
type serverCache struct {
	last atomic.Pointer[cachedServer]
}

type cachedServer struct {
	static   *config.Static
	own, all *overrides // of the broker and of all brokers
	brokers  int        // some defaults follow their number
	settings config.Server
}

// ServerSettings are the settings of the broker that static belongs to. They are
// computed once per change, since some requests ask for them each time
// (BenchmarkServerSettings: 7 us and 43 allocations become 10 ns and none).
func ServerSettings(m *Image, static *config.Static) *config.Server {
	own, all := m.configs[static.Broker()], m.configs[allBrokers]
	if c := m.server.last.Load(); c != nil && c.static == static && c.own == own && c.all == all && c.brokers == len(m.Brokers) {
		return &c.settings
	}
	c := &cachedServer{static: static, own: own, all: all, brokers: len(m.Brokers), settings: m.View(static).Server()}
	m.server.last.Store(c)
	return &c.settings
}
