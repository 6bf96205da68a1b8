package mirror

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/source"
)

// Planned is a topic that a link mirrors, or is to mirror.
type Planned struct {
	Source     string
	Here       string
	Partitions int32
}

// planTopics plans what is to be done with the topics of a source. paths are those of its topics that mirror others, as far as they are known: see pathOf.
func planTopics(img *meta.Image, link *meta.Link, set *Settings, topics []source.Topic, paths map[string][]string) follow.Plan[follow.TopicStep] {
	list := make([]follow.SourceTopic, 0, len(topics))
	for i := range topics {
		t := &topics[i]
		if t.Err != nil && source.IsTopicGone(t.Err) {
			continue
		}
		list = append(list, follow.SourceTopic{Name: t.Name, ID: t.ID, Partitions: int32(len(t.Partitions)), IsInternal: t.IsInternal, Path: paths[t.Name], Err: t.Err})
	}
	rules := &follow.TopicRules{Topics: set.Topics, Names: set.Names, Here: img.ClusterID, Source: link.Source}
	return follow.Topics(rules, list, listLocal(img, link))
}

// listLocal lists the topics here, as a link sees them.
func listLocal(img *meta.Image, link *meta.Link) []follow.LocalTopic {
	list := make([]follow.LocalTopic, 0, img.NumTopics())
	for t := range img.Topics() {
		one := follow.LocalTopic{Name: t.Name, Partitions: int32(len(t.Partitions))}
		if m := t.Mirror; m != nil {
			one.Of = &follow.Origin{IsOurs: m.Link == link.ID, Topic: m.Topic, ID: m.TopicID, IsPromoted: m.State >= meta.MirrorPromoting}
			if l := img.Links().Find(m.Link); l != nil {
				one.Of.Link = l.Name
			}
		}
		list = append(list, one)
	}
	return list
}

// mirroredBy lists the topics here that mirror by a link, by the names of those that they mirror.
func mirroredBy(img *meta.Image, link meta.UUID) map[string]*meta.Topic {
	all := map[string]*meta.Topic{}
	for t := range img.Mirrors(link) {
		if t.IsMirror() {
			all[t.Mirror.Topic] = t
		}
	}
	return all
}

// pathOf is the path of a topic of the source that mirrors another one, which a Leat tells: see meta.MirrorPathConfig. The source is the last one of it. Nil: it mirrors nothing.
func pathOf(sourceID string, values map[string]source.Value) []string {
	var path []string
	for id := range strings.SplitSeq(values[meta.MirrorPathConfig].Text, ",") {
		if id != "" {
			path = append(path, id)
		}
	}
	if len(path) == 0 {
		return nil
	}
	return append(path, sourceID)
}

// localConfigs are the configs of a topic here, as follow compares them. The topic may not be there yet.
func localConfigs(img *meta.Image, static *config.Static, topic string) map[string]follow.Value {
	set := img.Overrides(config.Resource{Type: config.Topic, Name: topic})
	entries, others := img.View(static).TopicEntries(set), img.View(static).TopicEntries(nil)
	all := make(map[string]follow.Value, len(entries))
	for i := range entries {
		_, isSet := set[entries[i].Def.Name]
		all[entries[i].Def.Name] = follow.Value{Text: entries[i].Value, IsSet: isSet, Otherwise: others[i].Value}
	}
	return all
}

// sourceConfigs are the configs of a topic of the source, as follow compares them.
func sourceConfigs(values map[string]source.Value) map[string]follow.Value {
	all := make(map[string]follow.Value, len(values))
	for key, v := range values {
		if key != meta.MirrorPathConfig {
			all[key] = follow.Value{Text: v.Text, IsSet: v.IsSet}
		}
	}
	return all
}

// changesOf are the changes of a topic's configs.
func changesOf(step *follow.ConfigStep) controller.ConfigChanges {
	c := controller.ConfigChanges{Resource: config.Resource{Type: config.Topic, Name: step.Topic}}
	for key, value := range step.Set {
		c.Changes = append(c.Changes, controller.ConfigChange{Op: controller.Set, Key: key, Value: value})
	}
	for _, key := range step.Unset {
		c.Changes = append(c.Changes, controller.ConfigChange{Op: controller.Delete, Key: key})
	}
	slices.SortFunc(c.Changes, func(a, b controller.ConfigChange) int { return strings.Compare(a.Key, b.Key) })
	return c
}
