package config

import (
	"maps"
	"slices"
	"strconv"
)

// Static has the broker configs that a node's file, flags and environment set. It never
// changes.
type Static struct {
	broker Resource
	values map[string]string
	given  map[string]string // those of values that the operator has set
}

// Broker is the broker whose configs these are.
func (s *Static) Broker() Resource { return s.broker }

// NewStatic checks the broker configs of a node. It refuses invalid values, values that
// contradict each other, and those that ask for a protection that is not served.
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

// With returns another Static that has also the configs that the node itself determines at its
// start, such as its id and the addresses on which it listens.
func (s *Static) With(own map[string]string) *Static {
	values := make(map[string]string, len(s.values)+len(own))
	maps.Copy(values, s.values)
	maps.Copy(values, own)
	return &Static{broker: s.broker, values: values, given: s.given}
}

// Warnings are sentences about the settings that have no effect.
func (s *Static) Warnings() []string { return Ineffective(Broker, s.given) }
