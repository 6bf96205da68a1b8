package meta

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ErrInvalidConfig is returned for a config that is not known or a value that its
// key does not take. The message is a sentence for people, as Kafka words it.
var ErrInvalidConfig = errors.New("invalid config")

// ErrRefusedConfig is returned instead where Kafka calls the request invalid, not
// the config.
var ErrRefusedConfig = errors.New("config refused")

// configError is one of the two errors above whose text is the message alone: it
// goes to the client as it is.
type configError struct {
	kind error
	text string
}

func (e configError) Error() string { return e.text }

func (e configError) Is(target error) bool { return target == e.kind }

func badConfig(format string, args ...any) error {
	return configError{ErrInvalidConfig, fmt.Sprintf(format, args...)}
}

func refusedConfig(format string, args ...any) error {
	return configError{ErrRefusedConfig, fmt.Sprintf(format, args...)}
}

// ConfigType is Kafka's number for the type of a config's value.
type ConfigType int8

// Types of values.
const (
	BoolConfig     ConfigType = 1
	StringConfig   ConfigType = 2
	IntConfig      ConfigType = 3
	ShortConfig    ConfigType = 4
	LongConfig     ConfigType = 5
	DoubleConfig   ConfigType = 6
	ListConfig     ConfigType = 7
	ClassConfig    ConfigType = 8
	PasswordConfig ConfigType = 9
)

// Scope says where a broker's config can be set while it runs.
type Scope uint8

// Scopes.
const (
	ReadOnly    Scope = iota // in the node's own file only
	ClusterWide              // for all brokers, or for one
	PerBroker                // for one broker
)

// Source is Kafka's number for where a config's value comes from.
type Source int8

// Sources, and among those of one resource the lower number goes first.
const (
	TopicSource          Source = 1
	BrokerSource         Source = 2
	DefaultBrokerSource  Source = 3
	StaticSource         Source = 4
	DefaultSource        Source = 5
	LoggerSource         Source = 6
	ClientMetricsSource  Source = 7
	GroupSource          Source = 8
	sourcesOfBrokerChain        = 4 // BrokerSource to DefaultSource
)

// ConfigDef describes one config.
type ConfigDef struct {
	Name    string
	Type    ConfigType
	Default string
	Null    bool // there is no default; Default is empty
	Scope   Scope
	Doc     string // one sentence of our own, plain text

	check    check
	synonyms []synonym // broker configs that give the value where it is not set here, first one first
}

// synonym is another config that speaks of the same thing, perhaps in another unit.
type synonym struct {
	name  string
	scale int64 // what its number is multiplied with; 0: not a number
}

// Sensitive tells whether the value must not be shown.
func (d *ConfigDef) Sensitive() bool { return d.Type == PasswordConfig }

// Defs lists the configs that resources of a type have, by name.
func Defs(t ResourceType) []*ConfigDef {
	if tab := tableOf(t); tab != nil {
		return tab.list
	}
	return nil
}

// Def finds a config by name; nil: there is none.
func Def(t ResourceType, name string) *ConfigDef {
	if tab := tableOf(t); tab != nil {
		return tab.byName[name]
	}
	return nil
}

type table struct {
	list   []*ConfigDef
	byName map[string]*ConfigDef
}

// The tables. They are built once and never change.
var (
	topicTable   = newTable(topicConfigs)
	brokerTable  = newTable(slices.Concat(brokerConfigs, logConfigs, securityConfigs, coordinatorConfigs, leatConfigs))
	groupTable   = newTable(groupConfigs)
	metricsTable = newTable(clientMetricsConfigs)
)

func newTable(defs []ConfigDef) *table {
	t := &table{byName: make(map[string]*ConfigDef, len(defs))}
	for i := range defs {
		t.list = append(t.list, &defs[i])
		t.byName[defs[i].Name] = &defs[i]
	}
	slices.SortFunc(t.list, func(a, b *ConfigDef) int { return strings.Compare(a.Name, b.Name) })
	return t
}

func tableOf(t ResourceType) *table {
	switch t {
	case TopicResource:
		return topicTable
	case BrokerResource:
		return brokerTable
	case GroupResource:
		return groupTable
	case ClientMetricsResource:
		return metricsTable
	default:
		return nil
	}
}

// Validate checks one value; the error is ErrInvalidConfig. It does not ask whether
// the key may be set while a broker runs: see CheckDynamic.
func Validate(t ResourceType, key, value string) error {
	d := Def(t, key)
	if d == nil {
		return unknownConfig(t, key)
	}
	_, err := d.parse(value)
	return err
}

func unknownConfig(t ResourceType, key string) error {
	switch t {
	case TopicResource:
		return badConfig("Unknown topic config name: %s", key)
	case GroupResource:
		return badConfig("Unknown group config name: %s", key)
	case ClientMetricsResource:
		return refusedConfig("Unknown client metrics configuration: %s", key)
	default:
		return badConfig("Unknown broker config name: %s", key)
	}
}

// CheckDynamic tells whether a broker's config may be set on a running cluster, for
// all brokers or for one.
func CheckDynamic(key string, perBroker bool) error {
	d := Def(BrokerResource, key)
	switch {
	case d == nil:
		return unknownConfig(BrokerResource, key)
	case d.Scope == PerBroker && strings.HasPrefix(key, "ssl."):
		return refusedConfig("These security configs can be dynamically updated only per-listener using the listener prefix: [%s]", key)
	case d.Scope == ReadOnly:
		return refusedConfig("Cannot update these configs dynamically: [%s]", key)
	case d.Scope == PerBroker && !perBroker:
		return refusedConfig("Cannot update these configs at default cluster level, broker id must be specified: [%s]", key)
	}
	return nil
}

// Static is what a node's own file, flags and environment set: the configs that
// this broker has from its start. It never changes.
type Static struct {
	resource Resource // the broker
	values   map[string]string
}

// NewStatic checks the settings of a node. Keys are broker configs.
func NewStatic(node int32, values map[string]string) (*Static, error) {
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if err := Validate(BrokerResource, k, values[k]); err != nil {
			return nil, err
		}
	}
	return &Static{resource: Resource{BrokerResource, strconv.Itoa(int(node))}, values: maps.Clone(values)}, nil
}

// Synonym is one place where a config's value was looked for and found.
type Synonym struct {
	Name   string
	Value  string
	Source Source
}

// Entry is what a config is worth on a resource, and why.
type Entry struct {
	Def    *ConfigDef
	Value  string
	Null   bool // there is no value
	Source Source
	// Synonyms are all places that have a value, the one that counts first.
	Synonyms []Synonym
}

// view is an image as one node sees it.
type view struct {
	image  *Image
	static *Static
	own    map[string]string // set on this broker
	all    map[string]string // set on all brokers
}

func newView(m *Image, s *Static) view {
	return view{
		image: m, static: s,
		own: m.Overrides(s.resource),
		all: m.Overrides(Resource{BrokerResource, ""}),
	}
}

// chain looks the names up in all places, in the order in which they count: first
// by source, then by name.
func (v view) chain(names []synonym) []Synonym {
	var found []Synonym
	for src := BrokerSource; src <= DefaultSource; src++ {
		for _, n := range names {
			if value, ok := v.lookup(src, n.name); ok {
				found = append(found, Synonym{n.name, value, src})
			}
		}
	}
	return found
}

func (v view) lookup(src Source, name string) (value string, ok bool) {
	switch src {
	case BrokerSource:
		value, ok = v.own[name]
	case DefaultBrokerSource:
		value, ok = v.all[name]
	case StaticSource:
		value, ok = v.static.values[name]
	default:
		d := brokerTable.byName[name]
		value, ok = d.Default, !d.Null
		if fit, follows := v.following(name); follows {
			value = fit
		}
	}
	return value, ok
}

// following are the defaults that follow the cluster's size (D11).
func (v view) following(name string) (string, bool) {
	switch name {
	case "default.replication.factor", "offsets.topic.replication.factor",
		"transaction.state.log.replication.factor", "share.coordinator.state.topic.replication.factor":
		return strconv.Itoa(max(1, min(3, len(v.image.Brokers)))), true
	case "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr":
		return strconv.Itoa(max(1, min(2, len(v.image.Brokers)-1))), true
	}
	return "", false
}

// TopicEntry is what a topic's config is worth on this node.
func TopicEntry(m *Image, s *Static, t *Topic, d *ConfigDef) Entry {
	return newView(m, s).entry(d, t.overrides(), TopicSource)
}

// TopicEntries are all configs of a topic, by name.
func TopicEntries(m *Image, s *Static, t *Topic) []Entry {
	return newView(m, s).entries(topicTable, t.overrides(), TopicSource)
}

// NewTopicEntries are all configs that a topic would have with these set, by name.
func NewTopicEntries(m *Image, s *Static, set map[string]string) []Entry {
	return newView(m, s).entries(topicTable, set, TopicSource)
}

// GroupEntries are all configs of a group, by name.
func GroupEntries(m *Image, s *Static, group string) []Entry {
	return newView(m, s).entries(groupTable, m.Overrides(Resource{GroupResource, group}), GroupSource)
}

// ClientMetricsEntries are all configs of a metrics subscription, by name.
func ClientMetricsEntries(m *Image, s *Static, name string) []Entry {
	return newView(m, s).entries(metricsTable, m.Overrides(Resource{ClientMetricsResource, name}), ClientMetricsSource)
}

// BrokerEntries are all configs of this node's broker, by name.
func BrokerEntries(m *Image, s *Static) []Entry {
	v := newView(m, s)
	list := make([]Entry, 0, len(brokerTable.list))
	for _, d := range brokerTable.list {
		found := v.chain(d.names())
		// What a synonym says is the value of its own name only: drop what goes before it.
		for len(found) > 0 && found[0].Name != d.Name {
			found = found[1:]
		}
		list = append(list, newEntry(d, found))
	}
	return list
}

// DefaultBrokerEntries are the configs that were set for all brokers.
func DefaultBrokerEntries(m *Image) []Entry {
	set := m.Overrides(Resource{BrokerResource, ""})
	list := make([]Entry, 0, len(set))
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if d := brokerTable.byName[k]; d != nil {
			list = append(list, newEntry(d, []Synonym{{k, set[k], DefaultBrokerSource}}))
		}
	}
	return list
}

func (t *Topic) overrides() map[string]string {
	if t.conf == nil {
		return nil
	}
	return t.conf.m
}

func (v view) entries(tab *table, set map[string]string, src Source) []Entry {
	list := make([]Entry, 0, len(tab.list))
	for _, d := range tab.list {
		list = append(list, v.entry(d, set, src))
	}
	return list
}

// entry is a config of something that is not a broker but may follow one.
func (v view) entry(d *ConfigDef, set map[string]string, src Source) Entry {
	var found []Synonym
	if value, ok := set[d.Name]; ok {
		found = append(found, Synonym{d.Name, value, src})
	}
	found = append(found, v.chain(d.synonyms)...)
	if src == GroupSource && len(d.synonyms) == 0 {
		found = append(found, Synonym{d.Name, d.Default, DefaultSource})
	}
	e := newEntry(d, found)
	if len(found) > 0 {
		e.Value = d.convert(found[0])
	}
	return e
}

func newEntry(d *ConfigDef, found []Synonym) Entry {
	if len(found) == 0 {
		return Entry{Def: d, Value: d.Default, Null: d.Null, Source: DefaultSource}
	}
	return Entry{Def: d, Value: found[0].Value, Source: found[0].Source, Synonyms: found}
}

// names are a broker config's own name and those that speak of the same thing.
func (d *ConfigDef) names() []synonym {
	if d.synonyms != nil {
		return d.synonyms
	}
	return []synonym{{name: d.Name}}
}

// convert brings a synonym's value to the unit of d.
func (d *ConfigDef) convert(s Synonym) string {
	for _, syn := range d.synonyms {
		if syn.name == s.Name && syn.scale > 1 {
			return scaled(s.Value, syn.scale)
		}
	}
	return s.Value
}

// Check checks all the configs that a resource would have: each value, and what
// they say together. The error is ErrInvalidConfig or ErrRefusedConfig.
func Check(m *Image, s *Static, t ResourceType, set map[string]string) error {
	keys := slices.Sorted(maps.Keys(set))
	for _, k := range keys { // an unknown key counts before a bad value, as in Kafka
		if Def(t, k) == nil {
			return unknownConfig(t, k)
		}
	}
	for _, k := range keys {
		if err := Validate(t, k, set[k]); err != nil {
			return err
		}
	}
	switch t {
	case TopicResource:
		return checkTopic(newView(m, s), set)
	case GroupResource:
		return checkGroup(newView(m, s), set)
	default:
		return nil
	}
}
