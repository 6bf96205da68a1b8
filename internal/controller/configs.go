package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// Limits of the configs that a cluster keeps.
const (
	maxConfigValue  = 64 << 10 // bytes
	maxResourceName = 32 << 10 // bytes of a group's name
	maxMetricsName  = 249      // bytes of the name of a metrics subscription, as of a topic
	// maxConfigBytes bounds the configs of the whole cluster, as meta.ConfigBytes counts them.
	maxConfigBytes = 32 << 20
	// maxConfiguredResources is how many groups, and how many metrics subscriptions, can
	// have configs. They need not exist, so nothing else bounds them.
	maxConfiguredResources = 10_000
)

// Op is Kafka's number for how a config is changed.
type Op int8

// Ops. Append and Subtract are for lists.
const (
	Set Op = iota
	Delete
	Append
	Subtract
)

// String is Kafka's name of the operation.
func (o Op) String() string {
	switch o {
	case Set:
		return "SET"
	case Delete:
		return "DELETE"
	case Append:
		return "APPEND"
	case Subtract:
		return "SUBTRACT"
	default:
		return "UNKNOWN"
	}
}

// ConfigChange changes one config.
type ConfigChange struct {
	Op    Op
	Key   string
	Value string
}

// ConfigChanges change the configs of one resource, all of them or none.
type ConfigChanges struct {
	Resource config.Resource
	Changes  []ConfigChange
	// Replace removes the configs of the resource that are not among the changes.
	Replace bool
}

// AlterConfigs changes configs. The errors are in the order of the requests; nil means
// that all changes of the resource were made. Neither a resource nor a key of one may
// be there twice.
func (c *Controller) AlterConfigs(ctx context.Context, asked []ConfigChanges, validateOnly bool) ([]*Error, error) {
	var results []*Error
	_, err := c.runParts(ctx, ofClients, func(r *Rules) (d Part, _ *Error) {
		d, results = r.AlterConfigs(asked)
		if validateOnly {
			return Part{}, nil
		}
		return d, nil
	})
	return results, err
}

// AlterConfigs decides changes of configs, with the changes of partitions that follow from them.
func (r *Rules) AlterConfigs(asked []ConfigChanges) (d Part, results []*Error) {
	records, results := decideAlterConfigs(r.Image, r.Static, asked)
	if mayChangeMinISR(asked) {
		return clearEligible(r, records), results
	}
	return Part{Records: records}, results
}

const minISRKey = "min.insync.replicas"

// mayChangeMinISR tells whether min.insync.replicas may have another value after the changes.
func mayChangeMinISR(asked []ConfigChanges) bool {
	return slices.ContainsFunc(asked, func(a ConfigChanges) bool { return a.Replace || namesMinISR(&a) })
}

func namesMinISR(a *ConfigChanges) bool {
	return slices.ContainsFunc(a.Changes, func(c ConfigChange) bool { return c.Key == minISRKey })
}

// clearEligible returns the records of a change of configs with those that it takes along:
// where the in-sync set is large enough to commit after it, no replica stays eligible. If
// these are too many for one entry, they come first, without the change.
func clearEligible(r *Rules, configs []byte) Part {
	next, _, err := meta.Apply(r.Image, configs)
	if err != nil {
		return Part{Records: configs} // decideCommand reports it
	}
	after := Rules{Image: next, Static: r.Static, Limit: r.Limit}
	d := r.newPart()
	for _, t := range after.concerned(func(p *meta.Partition) bool { return len(p.Eligible) > 0 }) {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if len(p.Eligible) == 0 || len(p.ISR) < after.minISR(t, p) {
				continue
			}
			rec := meta.PartitionChanged{
				Topic: t.ID, Partition: int32(i), ISR: p.ISR, Leader: p.Leader,
				LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch + 1, LastEligible: p.LastEligible,
			}
			if !d.add(meta.Append(nil, rec)) {
				return d
			}
		}
	}
	d.Records = append(d.Records, configs...)
	return d
}

func decideAlterConfigs(m *meta.Image, static *config.Static, asked []ConfigChanges) ([]byte, []*Error) {
	var records []byte
	results := make([]*Error, len(asked))
	d := configsDecision{m: m, static: static, room: map[config.ResourceType]int{}, bytes: m.ConfigBytes()}
	for i := range asked {
		a := &asked[i]
		old := m.Overrides(a.Resource)
		set, err := applyChanges(old, a)
		if err == nil {
			err = d.checkChanges(a, set)
		}
		if err == nil {
			err = d.takeBytes(a.Resource, old, set)
		}
		if results[i] = err; err == nil {
			records = appendConfigs(records, a.Resource, old, set)
		}
	}
	return records, results
}

// configsDecision decides the changes of configs of one request.
type configsDecision struct {
	m      *meta.Image
	static *config.Static
	room   map[config.ResourceType]int // how many more resources of a type may get configs; see takeRoom
	bytes  int                         // of all configs after the changes that were decided
}

// takeBytes counts the bytes of a resource's configs, and refuses more than the cluster may
// have. Changes that make them smaller are always possible.
func (d *configsDecision) takeBytes(r config.Resource, old, set map[string]string) *Error {
	more := meta.ConfigBytes(r, set) - meta.ConfigBytes(r, old)
	if more > 0 && d.bytes+more > maxConfigBytes {
		return refuseConfigBytes()
	}
	d.bytes += more
	return nil
}

func refuseConfigBytes() *Error {
	return refuse(PolicyViolation, "All configs of the cluster together have at most %d MiB: remove those that are not used, or ask for shorter ones.",
		maxConfigBytes>>20)
}

// applyChanges returns the configs of a resource after the changes.
func applyChanges(old map[string]string, a *ConfigChanges) (map[string]string, *Error) {
	set := make(map[string]string, len(old)+len(a.Changes))
	if !a.Replace {
		maps.Copy(set, old)
	}
	for _, ch := range a.Changes {
		switch ch.Op {
		case Set:
			set[ch.Key] = ch.Value
		case Delete:
			delete(set, ch.Key)
		case Append, Subtract:
			v, err := changeList(a.Resource.Type, set, ch)
			if err != nil {
				return nil, err
			}
			set[ch.Key] = v
		default:
			return nil, refuse(InvalidRequest, "Unknown operations type %d", ch.Op)
		}
	}
	return set, nil
}

// changeList returns the value of a list after items were appended or removed.
func changeList(typ config.ResourceType, set map[string]string, ch ConfigChange) (string, *Error) {
	d := config.Find(typ, ch.Key)
	if d == nil || d.Type != config.List {
		if typ == config.Broker {
			return "", refuse(InvalidConfig, "Config value %s is not allowed for config key: %s", strings.ToLower(ch.Op.String()), ch.Key)
		}
		return "", refuse(InvalidConfig, "Can't %v to key %s because its type is not LIST.", ch.Op, ch.Key)
	}
	have, ok := set[ch.Key]
	if !ok {
		have = d.Default
	}
	list := slices.DeleteFunc(strings.Split(have, ","), func(s string) bool { return s == "" })
	for item := range strings.SplitSeq(ch.Value, ",") {
		at := slices.Index(list, item)
		switch {
		case ch.Op == Append && at < 0:
			list = append(list, item)
		case ch.Op == Subtract && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return strings.Join(list, ","), nil
}

// checkChanges refuses configs that the resource may not have; set is all that it
// would have.
func (d *configsDecision) checkChanges(a *ConfigChanges, set map[string]string) *Error {
	switch a.Resource.Type {
	case config.Topic:
		if a.Resource.Name == "" {
			return refuse(InvalidRequest, "Default topic resources are not allowed.")
		}
		if err := CheckTopicName(a.Resource.Name); err != nil {
			return err
		}
	case config.Group:
		if a.Resource.Name == "" {
			return refuse(InvalidRequest, "Default group resources are not allowed.")
		}
		if err := d.takeRoom(a.Resource); err != nil {
			return err
		}
	case config.ClientMetrics:
		if a.Resource.Name == "" {
			return refuse(InvalidRequest, "Subscription name can't be empty")
		}
		if len(a.Resource.Name) > maxMetricsName {
			return refuse(InvalidRequest, "The name of a subscription has at most %d bytes.", maxMetricsName)
		}
		if err := d.takeRoom(a.Resource); err != nil {
			return err
		}
	case config.Broker:
		if err := checkBrokerConfigs(a, set); err != nil {
			return err
		}
		if a.Resource.Name != "" && d.m.Level() >= meta.LevelCluster && namesMinISR(a) {
			return refuse(InvalidConfig, "Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
		}
	default:
		return refuse(InvalidRequest, "Unknown resource type %d", a.Resource.Type)
	}
	if err := checkConfigs(d.m, d.static, a.Resource.Type, set); err != nil {
		e := configRefusal(err)
		if a.Resource.Type == config.Broker {
			e.Kind = InvalidRequest // as in Kafka, for a broker's configs only
		}
		return e
	}
	if a.Resource.Type == config.Topic && d.m.Topic(a.Resource.Name) == nil {
		return refuse(UnknownTopic, "The topic '%s' does not exist.", a.Resource.Name)
	}
	return nil
}

// takeRoom counts a resource that has no configs yet, and refuses it if as many as
// possible have some.
func (d *configsDecision) takeRoom(r config.Resource) *Error {
	if len(r.Name) > maxResourceName {
		return refuse(InvalidRequest, "The name of a resource has at most %d bytes.", maxResourceName)
	}
	if d.m.Overrides(r) != nil {
		return nil
	}
	room, counted := d.room[r.Type]
	if !counted {
		room = maxConfiguredResources
		for range d.m.Configured(r.Type) {
			room--
		}
	}
	d.room[r.Type] = room - 1
	if room < 1 {
		return refuse(PolicyViolation, "At most %d resources of type %v can have configs: remove those of some that are not used.", maxConfiguredResources, r.Type)
	}
	return nil
}

// checkConfigs is config.View.Check, with a limit on the length of values.
func checkConfigs(m *meta.Image, static *config.Static, t config.ResourceType, set map[string]string) error {
	if err := m.View(static).Check(t, set); err != nil {
		return err
	}
	for k, v := range set {
		if len(v) > maxConfigValue {
			return fmt.Errorf("%w: the value of %s has %d bytes, at most %d are kept", config.ErrInvalid, k, len(v), maxConfigValue)
		}
	}
	return nil
}

// checkBrokerConfigs refuses configs that cannot be changed while a broker runs.
func checkBrokerConfigs(a *ConfigChanges, set map[string]string) *Error {
	if name := a.Resource.Name; name != "" {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			return refuse(InvalidRequest, "Node id must be an integer, but it is: %s", name)
		}
		if id < 0 {
			return refuse(InvalidRequest, "Invalid negative broker ID.")
		}
	}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if err := config.CheckDynamic(k, a.Resource.Name != ""); err != nil {
			return configRefusal(err)
		}
		if err := config.CheckServed(config.Broker, k, set[k]); err != nil && config.Validate(config.Broker, k, set[k]) == nil {
			return configRefusal(err)
		}
	}
	return nil
}

func configRefusal(err error) *Error {
	if errors.Is(err, config.ErrRefused) {
		return refuse(InvalidRequest, "%v", err)
	}
	return refuse(InvalidConfig, "%v", err)
}

// appendConfigs appends the records that lead from one set of configs to another.
func appendConfigs(records []byte, r config.Resource, from, to map[string]string) []byte {
	for _, k := range slices.Sorted(maps.Keys(from)) {
		if _, ok := to[k]; !ok {
			records = meta.Append(records, meta.ConfigUnset{Resource: r, Key: k})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(to)) {
		if v, ok := from[k]; !ok || v != to[k] {
			records = meta.Append(records, meta.ConfigSet{Resource: r, Key: k, Value: to[k]})
		}
	}
	return records
}
