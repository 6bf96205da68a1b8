package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid is returned for a config that is not known or a value that its
// key does not take. The message is a sentence for people, as Kafka words it.
var ErrInvalid = errors.New("invalid config")

// ErrRefused is returned instead where Kafka calls the request invalid, not
// the config.
var ErrRefused = errors.New("config refused")

// configError is one of the two errors above whose text is the message alone: it
// goes to the client as it is.
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

// Types of values.
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

// Def describes one config.
type Def struct {
	Name    string
	Type    Type
	Default string
	Null    bool // there is no default; Default is empty
	Scope   Scope
	Doc     string // one sentence of our own, plain text, and one about its support

	Needs    string // what the config needs that is not served yet; "": nothing (see Support)
	Needless bool   // the config changes nothing here, for the reason in Doc

	check    check
	harmless string               // the value that asks for nothing, for those with Needs
	partly   func(v value) string // what some values of a config that acts need; nil: none does
	synonyms []synonym            // broker configs that give the value where it is not set here, first one first
}

// synonym is another config that speaks of the same thing, perhaps in another unit.
type synonym struct {
	name  string
	scale int64 // what its number is multiplied with; 0: not a number
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
func Find(t ResourceType, name string) *Def {
	if tab := tableOf(t); tab != nil {
		return tab.byName[name]
	}
	return nil
}

type table struct {
	list   []*Def
	byName map[string]*Def
}

// The tables. They are built once and never change.
var (
	topicTable   = newTable(topicConfigs)
	brokerTable  = newTable(slices.Concat(brokerConfigs, logConfigs, securityConfigs, coordinatorConfigs, leatConfigs))
	groupTable   = newTable(groupConfigs)
	metricsTable = newTable(clientMetricsConfigs)
)

func newTable(defs []Def) *table {
	t := &table{byName: make(map[string]*Def, len(defs))}
	for i := range defs {
		defs[i].Doc += defs[i].note()
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

// Validate checks one value; the error is ErrInvalid. It does not ask whether
// the key may be set while a broker runs: see CheckDynamic.
func Validate(t ResourceType, key, value string) error {
	d := Find(t, key)
	if d == nil {
		return unknownConfig(t, key)
	}
	_, err := d.parse(value)
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

// CheckDynamic tells whether a broker's config may be set on a running cluster, for
// all brokers or for one.
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
	case key == "listeners" || key == "listener.security.protocol.map":
		return refusedConfig("%s is read when a node starts: set it there, by --listen or --set", key)
	}
	return nil
}
