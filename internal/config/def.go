package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid says that a config is unknown, or does not accept a value. The message is Kafka's
// sentence for the client.
var ErrInvalid = errors.New("invalid config")

// ErrRefused says the same in those cases in which Kafka calls the request invalid, and not the
// config.
var ErrRefused = errors.New("config refused")

// configError is one of the two errors above. Its text is only the message, which goes to the
// client as it is.
type configError struct {
	kind error
	text string
}

func (e configError) Error() string { return e.text }

func (e configError) Is(target error) bool { return target == e.kind }

func badConfig(format string, args ...any) error {
	return configError{ErrInvalid, fmt.Sprintf(format, args...)}
}

func refusedConfig(format string, args ...any) error {
	return configError{ErrRefused, fmt.Sprintf(format, args...)}
}

// Type is Kafka's number for the type of a config's value.
type Type int8

// The types of values.
const (
	Bool     Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

// Scope says whether a broker config can be set while brokers run, and for which of them.
type Scope uint8

// The scopes.
const (
	ReadOnly    Scope = iota // it cannot: only a node's start sets it
	ClusterWide              // for all brokers, or for one
	PerBroker                // for one broker
)

// Source is Kafka's number for the place that a config's value is from.
type Source int8

// The sources. A value that is set for a topic, a group or a subscription itself wins over those
// of brokers, and among those of brokers the one with the lowest number wins.
const (
	TopicSource         Source = 1
	BrokerSource        Source = 2
	DefaultBrokerSource Source = 3
	StaticSource        Source = 4
	DefaultSource       Source = 5
	LoggerSource        Source = 6
	ClientMetricsSource Source = 7
	GroupSource         Source = 8
)

// Def describes one config.
type Def struct {
	Name    string
	Type    Type
	Default string
	Null    bool // there is no default; Default is empty
	Scope   Scope
	Doc     string // plain text; newTable adds the sentence about its support

	Needs    string // the feature that the config needs and that is not served yet; "": none (see Support)
	Needless bool   // the config has no effect here, for the reason in Doc

	check    check
	harmless string    // the value that does not ask for Needs
	synonyms []synonym // broker configs whose value is used if this one is not set; the first one wins
}

// synonym is another config for the same thing, perhaps in another unit.
type synonym struct {
	name  string
	scale int64 // its number times scale is the value in the config's unit; 0: it is not a number
}

// Sensitive tells whether the value must not be shown.
func (d *Def) Sensitive() bool { return d.Type == Password }

// Defs lists the configs that resources of a type have, by name.
func Defs(t ResourceType) []*Def {
	if tab := tableOf(t); tab != nil {
		return tab.list
	}
	return nil
}

// Find finds a config by name; nil: there is none.
// A config that may have another value for each listener is found with its prefix, too.
func Find(t ResourceType, name string) *Def {
	tab := tableOf(t)
	switch {
	case tab == nil:
		return nil
	case tab.byName[name] == nil && t == Broker:
		return findForListener(name)
	}
	return tab.byName[name]
}

type table struct {
	list   []*Def
	byName map[string]*Def
}

// These are built once and never change.
var (
	topicTable   = newTable(topicConfigs)
	brokerTable  = newTable(slices.Concat(brokerConfigs, logConfigs, securityConfigs, coordinatorConfigs, leatConfigs))
	groupTable   = newTable(groupConfigs)
	metricsTable = newTable(clientMetricsConfigs)
)

func newTable(defs []Def) *table {
	t := &table{byName: make(map[string]*Def, len(defs))}
	for i := range defs {
		defs[i].Doc += defs[i].supportNote()
		if defs[i].harmless == "" {
			defs[i].harmless = defs[i].Default
		}
		t.list = append(t.list, &defs[i])
		t.byName[defs[i].Name] = &defs[i]
	}
	slices.SortFunc(t.list, func(a, b *Def) int { return strings.Compare(a.Name, b.Name) })
	return t
}

func tableOf(t ResourceType) *table {
	switch t {
	case Topic:
		return topicTable
	case Broker:
		return brokerTable
	case Group:
		return groupTable
	case ClientMetrics:
		return metricsTable
	default:
		return nil
	}
}

// Validate checks one value; the error is ErrInvalid or ErrRefused. It does not check whether
// the config may be set while brokers run: see CheckDynamic.
func Validate(t ResourceType, key, value string) error {
	d := Find(t, key)
	if d == nil {
		return unknownConfig(t, key)
	}
	_, err := d.parseValue(value)
	return err
}

func unknownConfig(t ResourceType, key string) error {
	switch t {
	case Topic:
		return badConfig("Unknown topic config name: %s", key)
	case Group:
		return badConfig("Unknown group config name: %s", key)
	case ClientMetrics:
		return refusedConfig("Unknown client metrics configuration: %s", key)
	default:
		return badConfig("Unknown broker config name: %s", key)
	}
}

// CheckDynamic returns an error if a broker config may not be set while brokers run, for one
// broker (perBroker) or for all.
func CheckDynamic(key string, perBroker bool) error {
	d := Find(Broker, key)
	switch {
	case d == nil:
		return unknownConfig(Broker, key)
	case d.Scope == PerBroker && strings.HasPrefix(key, "ssl."):
		return refusedConfig("These security configs can be dynamically updated only per-listener using the listener prefix: [%s]", key)
	case d.Scope == ReadOnly:
		return refusedConfig("Cannot update these configs dynamically: [%s]", key)
	case d.Scope == PerBroker && !perBroker:
		return refusedConfig("Cannot update these configs at default cluster level, broker id must be specified: [%s]", key)
	case d.Sensitive() && strings.HasPrefix(key, listenerPrefix):
		return refusedConfig("%s is a secret, and all nodes could read it in the metadata: set it where the node starts, in its file or by its environment", key)
	case isSetAtStart(key):
		return refusedConfig("%s counts only when a node starts: set it in its file or by its environment, and start the node again", key)
	case key == "listeners" || key == "listener.security.protocol.map":
		return refusedConfig("%s is read only when a node starts: set it with --listen or --set, and start the node again", key)
	}
	return nil
}
