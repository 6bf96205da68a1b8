package follow

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// Owned are the configs of topics that a link sets as they are at the source. All others are of this cluster.
type Owned struct {
	include, exclude []string // names, or prefixes with a * behind them
}

// defaultOwned are the configs that say what is in a topic, and for how long.
var defaultOwned = []string{
	"cleanup.policy", "compression.*", "delete.retention.ms", "max.compaction.lag.ms", atLeast, "message.timestamp.*", "min.compaction.lag.ms", "retention.*",
}

// neverOwned are configs that no link sets: how many replicas must be in sync, what is throttled, and when records are on disk, are matters of the cluster that has the replicas. Kafka's defaults for
// flush.messages and flush.ms would even end that an acknowledged record is on disk here.
var neverOwned = []string{
	"file.delete.delay.ms", "flush.*", "follower.replication.throttled.replicas", "leader.replication.throttled.replicas", "local.retention.*", "min.insync.replicas", "preallocate",
	"remote.*", "unclean.leader.election.enable",
}

// atLeast is the config whose value here may be larger than that of the source, but not smaller: else records of the source would be too large after a promotion.
const atLeast = "max.message.bytes"

// ParseOwned reads a list of configs, with commas between them: names, prefixes with a * behind them, "default" for the default ones, "none" for none, and what is not owned with a - before it. An empty
// list is the default.
func ParseOwned(list string) (*Owned, error) {
	o := &Owned{}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		name, isExcluded := strings.CutPrefix(item, "-")
		switch {
		case item == "" || item == "none":
		case item == "default":
			o.include = append(o.include, defaultOwned...)
		case strings.Contains(strings.TrimSuffix(name, "*"), "*"):
			return nil, fmt.Errorf("the config %q has a * that is not at its end", name)
		case isExcluded:
			o.exclude = append(o.exclude, name)
		case !strings.HasSuffix(name, "*") && hasName(neverOwned, name):
			return nil, fmt.Errorf("no link sets %s: it is a matter of the cluster that has the replicas", name)
		case !strings.HasSuffix(name, "*") && config.Find(config.Topic, name) == nil:
			return nil, fmt.Errorf("topics have no config %q", name)
		default:
			o.include = append(o.include, name)
		}
	}
	if strings.TrimSpace(list) == "" || len(o.include) == 0 && len(o.exclude) > 0 {
		o.include = append(o.include, defaultOwned...)
	}
	return o, nil
}

func hasName(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, isPrefix := strings.CutSuffix(p, "*")
		return p == name || isPrefix && strings.HasPrefix(name, prefix)
	})
}

// Has tells whether the link sets a config.
func (o *Owned) Has(name string) bool {
	return hasName(o.include, name) && !hasName(o.exclude, name) && !hasName(neverOwned, name)
}

// Value is the value of a config of a topic.
type Value struct {
	Text  string // the value that counts
	IsSet bool   // it is set for the topic, and not for all topics
	// Otherwise is the value that counts if it is not set for the topic. It must be right here, and is not looked at for the source.
	Otherwise string
}

// ConfigStep sets configs of a topic, all at once, and ends that others are set.
type ConfigStep struct {
	Topic string
	Set   map[string]string
	Unset []string // in order
}

// String is the step as a sentence.
func (s ConfigStep) String() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(s.Set)) {
		parts = append(parts, key+"="+s.Set[key])
	}
	for _, key := range s.Unset {
		parts = append(parts, key+" to its default")
	}
	return fmt.Sprintf("Set %s for topic %s.", strings.Join(parts, ", "), s.Topic)
}

// Fate is what becomes of a config that is not as at the source.
type Fate string

// The fates.
const (
	Kept    Fate = "KEPT"     // it stays as it is here
	PutBack Fate = "PUT_BACK" // somebody has changed it here, and it is set as at the source again
)

// Difference is a config of a mirror that is not as at the source, or was not.
type Difference struct {
	Topic, Key   string // the topic by its name here
	Source, Here string // the values; of Here: before it was put back
	Fate         Fate
	Why          string // with Kept: a part of a sentence
}

// ConfigPlan is what is to be done with the configs of a mirror, and in which it differs from its source.
type ConfigPlan struct {
	Plan[ConfigStep]
	Differences []Difference // in the order of the keys
}

func (p *ConfigPlan) differ(topic, key string, theirs, ours Value, why string) {
	p.Differences = append(p.Differences, Difference{Topic: topic, Key: key, Source: theirs.Text, Here: ours.Text, Fate: Kept, Why: why})
}

// Configs plans the configs of a mirror. source and here are all configs of the topic there and here, and made are the values that the link has set, by name, for those that are still set. A config that
// is owned and that somebody has changed here is set back, and the plan says so.
func Configs(topic string, o *Owned, source, here map[string]Value, made map[string]string) ConfigPlan {
	var p ConfigPlan
	step := ConfigStep{Topic: topic, Set: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(source)) {
		theirs, ours := source[key], here[key]
		def := config.Find(config.Topic, key)
		if !p.isDue(topic, key, o, def, theirs, ours) {
			continue
		}
		if was, ok := made[key]; ok && (!ours.IsSet || !isSameValue(def, was, ours.Text)) {
			p.warn("Topic %s had %s changed here from %s to %s: the link owns it, and sets it to %s, as at the source.", topic, key, was, ours.Text, theirs.Text)
			p.Differences = append(p.Differences, Difference{Topic: topic, Key: key, Source: theirs.Text, Here: ours.Text, Fate: PutBack})
		}
		if ours.IsSet && isSameValue(def, theirs.Text, ours.Otherwise) {
			step.Unset = append(step.Unset, key)
		} else {
			step.Set[key] = theirs.Text
		}
	}
	p.leaveOutConflict(&step, source, here)
	if len(step.Set)+len(step.Unset) > 0 {
		p.Steps = append(p.Steps, step)
	}
	return p
}

func whyNotOwned(key string) string {
	if hasName(neverOwned, key) {
		return "it is a matter of the cluster that has the replicas"
	}
	return "the link does not own it"
}

// isDue tells whether a config is to be set as at the source, or else what is to be known of it.
func (p *ConfigPlan) isDue(topic, key string, o *Owned, def *config.Def, theirs, ours Value) bool {
	if def == nil {
		if theirs.IsSet {
			p.differ(topic, key, theirs, ours, "there is no such config here")
		}
		if theirs.IsSet && o.Has(key) {
			p.warn("Topic %s has %s=%s at the source, a config that there is not here.", topic, key, theirs.Text)
		}
		return false
	}
	isSame := isSameValue(def, theirs.Text, ours.Text)
	if !o.Has(key) {
		if (theirs.IsSet || ours.IsSet) && !isSame {
			p.differ(topic, key, theirs, ours, whyNotOwned(key))
		}
		if theirs.IsSet && !hasName(neverOwned, key) && !isSame {
			p.warn("Topic %s has %s=%s at the source and %s here: the link does not own it.", topic, key, theirs.Text, ours.Text)
		}
		return false
	}
	if err := config.Validate(config.Topic, key, theirs.Text); err != nil {
		p.warn("Topic %s has %s=%s at the source, which is not possible here: %v.", topic, key, theirs.Text, err)
		p.differ(topic, key, theirs, ours, fmt.Sprintf("it is not possible here: %v", err))
		return false
	}
	if !isSame && key == atLeast && isLess(theirs.Text, ours.Text) {
		p.differ(topic, key, theirs, ours, "it may be larger here")
		return false
	}
	return !isSame
}

// leaveOutConflict leaves out what would be refused here with what stays: the link may own one of two configs only.
func (p *ConfigPlan) leaveOutConflict(step *ConfigStep, source, here map[string]Value) {
	const least, most = "min.compaction.lag.ms", "max.compaction.lag.ms"
	after := func(key string) string {
		if v, ok := step.Set[key]; ok {
			return v
		}
		if slices.Contains(step.Unset, key) {
			return here[key].Otherwise
		}
		return here[key].Text
	}
	lo, hi := after(least), after(most)
	if !isLess(hi, lo) || lo == here[least].Text && hi == here[most].Text {
		return
	}
	p.warn("Topic %s cannot have %s=%s and %s=%s here, so neither is set.", step.Topic, least, lo, most, hi)
	for _, key := range []string{least, most} {
		isOwned := step.Set[key] != "" || slices.Contains(step.Unset, key)
		delete(step.Set, key)
		step.Unset = slices.DeleteFunc(step.Unset, func(k string) bool { return k == key })
		if isOwned {
			p.Differences = slices.DeleteFunc(p.Differences, func(d Difference) bool { return d.Key == key })
			p.differ(step.Topic, key, source[key], here[key], fmt.Sprintf("%s=%s and %s=%s are not possible together", least, lo, most, hi))
		}
	}
	slices.SortFunc(p.Differences, func(a, b Difference) int { return strings.Compare(a.Key, b.Key) })
}

// isLess compares numbers; what is none is not less.
func isLess(a, b string) bool {
	x, errA := strconv.ParseInt(strings.TrimSpace(a), 10, 64)
	y, errB := strconv.ParseInt(strings.TrimSpace(b), 10, 64)
	return errA == nil && errB == nil && x < y
}

// isSameValue tells whether two texts are the same value of a config.
func isSameValue(def *config.Def, a, b string) bool { return canonical(def, a) == canonical(def, b) }

func canonical(def *config.Def, text string) string {
	text = strings.TrimSpace(text)
	switch def.Type {
	case config.Int, config.Long, config.Short:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return strconv.FormatInt(n, 10)
		}
	case config.Double:
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return strconv.FormatFloat(n, 'g', -1, 64)
		}
	case config.Bool:
		return strings.ToLower(text)
	case config.List:
		items := strings.Split(text, ",")
		for i := range items {
			items[i] = strings.TrimSpace(items[i])
		}
		slices.Sort(items)
		return strings.Join(slices.Compact(items), ",")
	case config.String, config.Class, config.Password:
	}
	return text
}
