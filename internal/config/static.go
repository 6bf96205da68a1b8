package config

import (
	"maps"
	"slices"
	"strconv"
)

// Static is what a node's own file, flags and environment set: the configs that
// this broker has from its start. It never changes.
type Static struct {
	broker Resource
	values map[string]string
	given  map[string]string // those of values that somebody has set
}

// Broker is the node that the settings are of, as what configs are set on.
func (s *Static) Broker() Resource { return s.broker }

// NewStatic checks the settings of a node: each value, what they say together, and that none
// asks for a protection that is not served. Keys are broker configs.
func NewStatic(node int32, values map[string]string) (*Static, error) {
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if err := Validate(Broker, k, values[k]); err != nil {
			return nil, err
		}
		if err := CheckServed(Broker, k, values[k]); err != nil {
			return nil, err
		}
	}
	s := &Static{broker: Resource{Broker, strconv.Itoa(int(node))}, values: maps.Clone(values), given: values}
	if err := checkBroker(View{Static: s}); err != nil {
		return nil, err
	}
	return s, nil
}

// With adds what the node itself found out at its start, such as its id and the addresses on
// which it listens. The result is another Static.
func (s *Static) With(own map[string]string) *Static {
	values := make(map[string]string, len(s.values)+len(own))
	maps.Copy(values, s.values)
	maps.Copy(values, own)
	return &Static{broker: s.broker, values: values, given: s.given}
}

// Warnings tells of the settings that change nothing, in sentences.
func (s *Static) Warnings() []string { return Ineffective(Broker, s.given) }
