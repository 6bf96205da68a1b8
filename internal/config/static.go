package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
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

// ForNewCluster are the settings that a cluster gets, for all of its nodes, if this node makes it.
func (s *Static) ForNewCluster() map[string]string {
	if value, ok := s.given[minInSync]; ok {
		return map[string]string{minInSync: value}
	}
	return nil
}

// Warnings are sentences about the settings that have no effect.
func (s *Static) Warnings() []string {
	sentences := Ineffective(Broker, s.given)
	for key := range s.ForNewCluster() {
		sentences = append(sentences, key+" of a node counts only when it makes a cluster, since all nodes must have the same: change it with leat config set --cluster "+key+"=NUMBER")
	}
	return sentences
}

// Authorization is what the operator has set. haveLogins tells that clients of a listener must log in, and superUser is another super
// user; "": there is none. The error refuses settings that protect less than they say.
func (s *Static) Authorization(haveLogins bool, superUser string) (Authorization, error) {
	a := readAuthorization(s.given, haveLogins)
	if superUser != "" && a.On {
		a.SuperUsers = strings.TrimPrefix(a.SuperUsers+";"+superUser, ";")
	}
	return a, checkAuthorization(s.given, a)
}

// Dangers are sentences about settings that leave the cluster open, though they name its protection.
func (s *Static) Dangers(a Authorization) []string { return findDangers(s.given, a) }

// ForListener are the values for a listener that were set when the node started.
func (s *Static) ForListener(name string) ListenerConfigs {
	return View{Static: s}.ForListener(name)
}

// GivenWith are the configs that the operator has set whose names begin with a prefix, in order.
func (s *Static) GivenWith(prefix string) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(s.given)) {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}

// UnknownListeners are the configs that the operator has set for listeners which the node does not have, in order.
func (s *Static) UnknownListeners(names []string) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(s.given)) {
		k, ok := ParseListenerKey(key)
		if ok && !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, k.Listener) }) {
			keys = append(keys, key)
		}
	}
	return keys
}
