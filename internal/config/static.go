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
}

// Broker is the node that the settings are of, as what configs are set on.
func (s *Static) Broker() Resource { return s.broker }

// NewStatic checks the settings of a node: each value, and what they say together.
// Keys are broker configs.
func NewStatic(node int32, values map[string]string) (*Static, error) {
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if err := Validate(Broker, k, values[k]); err != nil {
			return nil, err
		}
	}
	s := &Static{broker: Resource{Broker, strconv.Itoa(int(node))}, values: maps.Clone(values)}
	if err := checkBroker(View{Static: s}); err != nil {
		return nil, err
	}
	return s, nil
}
