package meta

import (
	"sync/atomic"

	"github.com/leatstream/leat/internal/config"
)

// View returns the sources from which the node that static belongs to takes the values
// of its configs.
func (m *Image) View(static *config.Static) config.View {
	return config.View{
		Static: static, Brokers: len(m.Brokers),
		Own: m.Overrides(static.Broker()), All: m.Overrides(allBrokers),
	}
}

// allBrokers is the resource whose configs apply to every broker.
var allBrokers = config.Resource{Type: config.Broker}

// TopicView returns the sources from which the topic of this name takes its values, of those of a node.
func TopicView(v config.View, name string) config.View {
	v.ForCoordinators = InternalTopic(name)
	return v
}

// settingsCache keeps the last Settings of a topic together with their sources, or those of
// all topics on which no configs are set. All images that were made from one another share
// the latter.
type settingsCache struct {
	last atomic.Pointer[cachedSettings]
}

type cachedSettings struct {
	static   *config.Static
	own, all *overrides // of the broker and of all brokers; a change of the topic's own makes a new cache
	settings config.Settings
}

// TopicSettings are a topic's settings on the node that static belongs to. They are
// computed again only when one of their sources has changed, and once for all topics on
// which no configs are set, but for those of coordinators; otherwise they cost two look-ups.
func TopicSettings(m *Image, static *config.Static, t *Topic) *config.Settings {
	own, all := m.configs[static.Broker()], m.configs[allBrokers]
	cache := t.settings
	if t.overrides == nil && !t.Internal() {
		cache = m.plainSettings
	}
	if c := cache.last.Load(); c != nil && c.static == static && c.own == own && c.all == all {
		return &c.settings
	}
	c := &cachedSettings{static: static, own: own, all: all, settings: TopicView(m.View(static), t.Name).Topic(t.overrides.values())}
	cache.last.Store(c)
	return &c.settings
}

// serverCache keeps the last Server settings together with their sources. All images
// that were made from one another share it.
type serverCache struct {
	last atomic.Pointer[cachedServer]
}

type cachedServer struct {
	static   *config.Static
	own, all *overrides // of the broker and of all brokers
	brokers  int        // how many there are: some defaults depend on it
	settings config.Server
}

// ServerSettings are the settings of the broker that static belongs to. They are
// computed again only when one of their sources has changed, since some requests ask
// for them each time (BenchmarkServerSettings).
func ServerSettings(m *Image, static *config.Static) *config.Server {
	own, all := m.configs[static.Broker()], m.configs[allBrokers]
	if c := m.serverSettings.last.Load(); c != nil && c.static == static && c.own == own && c.all == all && c.brokers == len(m.Brokers) {
		return &c.settings
	}
	c := &cachedServer{static: static, own: own, all: all, brokers: len(m.Brokers), settings: m.View(static).Server()}
	m.serverSettings.last.Store(c)
	return &c.settings
}
