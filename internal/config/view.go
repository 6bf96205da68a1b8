package config

import (
	"maps"
	"slices"
	"strconv"
)

// Synonym is one place where a config's value was looked for and found.
type Synonym struct {
	Name   string
	Value  string
	Source Source
}

// Entry is what a config is worth on a resource, and why.
type Entry struct {
	Def    *Def
	Value  string
	Null   bool // there is no value
	Source Source
	// Synonyms are all places that have a value, the one that counts first.
	Synonyms []Synonym
}

// View is the places in which one node finds the value of a config, but for those
// that are set on a topic, a group or a subscription itself.
type View struct {
	Static  *Static           // the node's own
	Own     map[string]string // set on this broker
	All     map[string]string // set on all brokers
	Brokers int               // how many are registered: some defaults follow their number
}

// chain looks the names up in all places, in the order in which they count: first
// by source, then by name.
func (v View) chain(names []synonym) []Synonym {
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

func (v View) lookup(src Source, name string) (value string, ok bool) {
	switch src {
	case BrokerSource:
		value, ok = v.Own[name]
	case DefaultBrokerSource:
		value, ok = v.All[name]
	case StaticSource:
		value, ok = v.Static.values[name]
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
func (v View) following(name string) (string, bool) {
	switch name {
	case "default.replication.factor", "offsets.topic.replication.factor",
		"transaction.state.log.replication.factor", "share.coordinator.state.topic.replication.factor":
		return strconv.Itoa(max(1, min(3, v.Brokers))), true
	case "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr":
		return strconv.Itoa(max(1, min(2, v.Brokers-1))), true
	}
	return "", false
}

// TopicEntries are all configs of a topic on which these are set, by name.
func (v View) TopicEntries(set map[string]string) []Entry {
	return v.entries(topicTable, set, TopicSource)
}

// GroupEntries are all configs of a group on which these are set, by name.
func (v View) GroupEntries(set map[string]string) []Entry {
	return v.entries(groupTable, set, GroupSource)
}

// ClientMetricsEntries are all configs of a metrics subscription on which these are
// set, by name.
func (v View) ClientMetricsEntries(set map[string]string) []Entry {
	return v.entries(metricsTable, set, ClientMetricsSource)
}

// BrokerEntries are all configs of this node's broker, by name.
func (v View) BrokerEntries() []Entry {
	list := make([]Entry, 0, len(brokerTable.list))
	for _, d := range brokerTable.list {
		found := v.chain(d.names())
		// A synonym's value is the value of its own name only: drop what goes before it.
		for len(found) > 0 && found[0].Name != d.Name {
			found = found[1:]
		}
		list = append(list, newEntry(d, found))
	}
	return list
}

// DefaultBrokerEntries are the configs that were set for all brokers.
func (v View) DefaultBrokerEntries() []Entry {
	list := make([]Entry, 0, len(v.All))
	for _, k := range slices.Sorted(maps.Keys(v.All)) {
		if d := brokerTable.byName[k]; d != nil {
			list = append(list, newEntry(d, []Synonym{{k, v.All[k], DefaultBrokerSource}}))
		}
	}
	return list
}

func (v View) entries(tab *table, set map[string]string, src Source) []Entry {
	list := make([]Entry, 0, len(tab.list))
	for _, d := range tab.list {
		list = append(list, v.entry(d, set, src))
	}
	return list
}

// entry is a config of something that is not a broker but may follow one.
func (v View) entry(d *Def, set map[string]string, src Source) Entry {
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

func newEntry(d *Def, found []Synonym) Entry {
	if len(found) == 0 {
		return Entry{Def: d, Value: d.Default, Null: d.Null, Source: DefaultSource}
	}
	return Entry{Def: d, Value: found[0].Value, Source: found[0].Source, Synonyms: found}
}

// names are a broker config's own name and those that speak of the same thing.
func (d *Def) names() []synonym {
	if d.synonyms != nil {
		return d.synonyms
	}
	return []synonym{{name: d.Name}}
}

// convert brings a synonym's value to the unit of d.
func (d *Def) convert(s Synonym) string {
	for _, syn := range d.synonyms {
		if syn.name == s.Name && syn.scale > 1 {
			return scaled(s.Value, syn.scale)
		}
	}
	return s.Value
}

// Check checks all the configs that a resource would have: each value, and what
// they say together. The error is ErrInvalid or ErrRefused.
func (v View) Check(t ResourceType, set map[string]string) error {
	keys := slices.Sorted(maps.Keys(set))
	for _, k := range keys { // an unknown key counts before a bad value, as in Kafka
		if Find(t, k) == nil {
			return unknownConfig(t, k)
		}
	}
	for _, k := range keys {
		if err := Validate(t, k, set[k]); err != nil {
			return err
		}
	}
	switch t {
	case Topic:
		return checkTopic(v, set)
	case Group:
		return checkGroup(v, set)
	default:
		return nil
	}
}
