package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Synonym is one place that has a value for a config.
type Synonym struct {
	Name   string
	Value  string
	Source Source
}

// Entry is a config's value for a resource, and the place that it is from.
type Entry struct {
	Def    *Def
	Value  string
	Null   bool // there is no value
	Source Source
	// Synonyms are all places that have a value. The first one wins.
	Synonyms []Synonym
}

// View has the places in which one node finds the value of a config, except for those that are
// set for a topic, a group or a subscription.
type View struct {
	Static  *Static           // set when this node started
	Own     map[string]string // set for this broker
	All     map[string]string // set for all brokers
	Brokers int               // the number of registered brokers, on which some defaults depend

	// ForCoordinators tells that the view is for the topics in which coordinators keep their state: whether
	// that is on disk does not depend on the broker's log.flush configs.
	ForCoordinators bool
}

// findValues finds all places that have a value for one of the names, ordered by source, and for
// one source by name as listed. The first one wins.
func (v View) findValues(names []synonym) []Synonym {
	var found []Synonym
	for src := BrokerSource; src <= DefaultSource; src++ {
		for _, n := range names {
			if value, ok := v.lookUp(src, n.name); ok {
				found = append(found, Synonym{n.name, value, src})
			}
		}
	}
	return found
}

// minInSync is the config of which all nodes must have the same value: if a partition's leader counted by a lower number
// than the controller does, it would acknowledge what the replicas lack that the controller takes for eligible leaders.
// What is set for one node counts for the cluster that it makes, and for nothing else.
const minInSync = "min.insync.replicas"

func (v View) lookUp(src Source, name string) (value string, ok bool) {
	if name == minInSync && (src == BrokerSource || src == StaticSource) {
		return "", false
	}
	switch src {
	case BrokerSource:
		value, ok = v.Own[name]
	case DefaultBrokerSource:
		value, ok = v.All[name]
	case StaticSource:
		value, ok = v.Static.values[name]
	default:
		d := brokerTable.byName[name]
		if d == nil { // it is set for one listener
			return "", false
		}
		value, ok = d.Default, !d.Null
		if fit, follows := v.clusterDefault(name); follows {
			value = fit
		}
	}
	return value, ok
}

// clusterDefault is the default of a config whose default depends on the number of brokers; false:
// it does not.
func (v View) clusterDefault(name string) (string, bool) {
	switch name {
	case "default.replication.factor", "offsets.topic.replication.factor",
		"transaction.state.log.replication.factor", "share.coordinator.state.topic.replication.factor":
		return strconv.Itoa(max(1, min(3, v.Brokers))), true
	case "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr":
		return strconv.Itoa(max(1, min(2, v.Brokers-1))), true
	}
	return "", false
}

// TopicEntries are all configs of a topic for which these are set, by name.
func (v View) TopicEntries(set map[string]string) []Entry {
	return v.listEntries(topicTable, set, TopicSource)
}

// GroupEntries are all configs of a group for which these are set, by name.
func (v View) GroupEntries(set map[string]string) []Entry {
	return v.listEntries(groupTable, set, GroupSource)
}

// ClientMetricsEntries are all configs of a metrics subscription for which these are set, by
// name.
func (v View) ClientMetricsEntries(set map[string]string) []Entry {
	return v.listEntries(metricsTable, set, ClientMetricsSource)
}

// BrokerEntries are all configs of this node's broker, by name.
func (v View) BrokerEntries() []Entry {
	list := make([]Entry, 0, len(brokerTable.list))
	for _, d := range brokerTable.list {
		found := v.findValues(d.lookUpNames())
		// As in Kafka, a broker config does not show the value of a synonym as its own, so
		// synonyms that come before it are dropped.
		for len(found) > 0 && found[0].Name != d.Name {
			found = found[1:]
		}
		list = append(list, newEntry(d, found))
	}
	return append(list, v.listenerEntries()...)
}

// listenerEntries are the configs that are set for single listeners, by name.
func (v View) listenerEntries() (list []Entry) {
	names := map[string]bool{}
	for _, set := range []map[string]string{v.Own, v.All, v.Static.values} {
		for name := range set {
			if strings.HasPrefix(name, listenerPrefix) {
				names[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if d := findForListener(name); d != nil {
			list = append(list, newEntry(d, v.findValues([]synonym{{name: name}})))
		}
	}
	return list
}

// DefaultBrokerEntries are the configs that were set for all brokers.
func (v View) DefaultBrokerEntries() []Entry {
	list := make([]Entry, 0, len(v.All))
	for _, k := range slices.Sorted(maps.Keys(v.All)) {
		if d := Find(Broker, k); d != nil {
			list = append(list, newEntry(d, []Synonym{{k, v.All[k], DefaultBrokerSource}}))
		}
	}
	return list
}

func (v View) listEntries(tab *table, set map[string]string, src Source) []Entry {
	list := make([]Entry, 0, len(tab.list))
	for _, d := range tab.list {
		list = append(list, v.makeEntry(d, set, src))
	}
	return list
}

// makeEntry is the entry of a config of a topic, a group or a subscription, whose value may be
// from a broker config.
func (v View) makeEntry(d *Def, set map[string]string, src Source) Entry {
	var found []Synonym
	if value, ok := set[d.Name]; ok {
		found = append(found, Synonym{d.Name, value, src})
	}
	if v.ForCoordinators && (d.Name == "flush.messages" || d.Name == "flush.ms") {
		v = View{Static: &Static{}} // only the default is left
	}
	found = append(found, v.findValues(d.synonyms)...)
	if src == GroupSource && len(d.synonyms) == 0 {
		found = append(found, Synonym{d.Name, d.Default, DefaultSource})
	}
	e := newEntry(d, found)
	if len(found) > 0 {
		e.Value = d.convertUnit(found[0])
	}
	return e
}

func newEntry(d *Def, found []Synonym) Entry {
	if len(found) == 0 {
		return Entry{Def: d, Value: d.Default, Null: d.Null, Source: DefaultSource}
	}
	return Entry{Def: d, Value: found[0].Value, Source: found[0].Source, Synonyms: found}
}

// lookUpNames are the names under which a broker config's value is looked up: its own, and those
// of its synonyms.
func (d *Def) lookUpNames() []synonym {
	if d.synonyms != nil {
		return d.synonyms
	}
	return []synonym{{name: d.Name}}
}

// convertUnit converts a synonym's value to the unit of d.
func (d *Def) convertUnit(s Synonym) string {
	for _, syn := range d.synonyms {
		if syn.name == s.Name && syn.scale > 1 {
			return scaleNumber(s.Value, syn.scale)
		}
	}
	return s.Value
}

// Check checks all configs that are set for a resource: each value, and that they do not
// contradict each other. The error is ErrInvalid or ErrRefused.
func (v View) Check(t ResourceType, set map[string]string) error {
	keys := slices.Sorted(maps.Keys(set))
	for _, k := range keys { // as in Kafka, an unknown key is reported before an invalid value
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
