package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/source"
)

// Restore is which topics here can mirror those of a cluster that has taken over from this one.
type Restore struct {
	Topics []controller.MirrorTopic // what to ask the controller for, in the order of their names here
	Names  []Planned                // the same ones
	// Problems are of topics that were asked for by their names and cannot be restored, and Warnings of others that the source has promoted and that cannot be restored.
	Problems, Warnings []Finding
}

// PlanRestore finds the topics that the source of a link has promoted, that it had from here, and that are ordinary ones here. names are those here; none: all that the link is for. A topic that mirrors by the link already is left out.
func (s *Service) PlanRestore(ctx context.Context, l *meta.Link, names []string) (*Restore, error) {
	set, err := s.settingsOf(l)
	if err != nil {
		return nil, err
	}
	c := check{s: s, link: l, set: set, r: &Report{}}
	if c.client, err = c.connect(ctx); err != nil {
		return nil, fmt.Errorf("the source cannot be reached: %w", err)
	}
	defer c.client.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cluster, err := c.client.Describe(ctx, nil)
	if err != nil {
		return nil, err
	}
	if cluster.ID != l.Source {
		return nil, fmt.Errorf("%w: it is %q, and the source is %q", errOtherCluster, cluster.ID, l.Source)
	}
	p := restorePlan{img: s.cfg.Image(), link: l, names: names, found: map[string]bool{}}
	p.choose(set, cluster.Topics)
	for some := range slices.Chunk(p.chosen, mostConfigs) {
		asked := make([]string, len(some))
		for i := range some {
			asked[i] = some[i].source.Name
		}
		configs, err := c.client.DescribeConfig(ctx, asked, meta.MirrorForksConfig)
		if err != nil {
			return nil, err
		}
		for i := range some {
			p.add(&some[i], &configs[i])
		}
	}
	p.addMissing()
	return &p.Restore, nil
}

// restorePlan is a Restore under construction.
type restorePlan struct {
	Restore

	img    *meta.Image
	link   *meta.Link
	names  []string
	chosen []restorable
	found  map[string]bool // names here
}

// restorable is a topic here, and the one of the source that may have taken over from it.
type restorable struct {
	here   *meta.Topic
	source *source.Topic
}

// choose finds topics that both clusters have, in the order of their names here.
func (p *restorePlan) choose(set *Settings, topics []source.Topic) {
	for i := range topics {
		t := &topics[i]
		here := p.img.Topic(set.Names.Here(t.Name))
		if t.Err != nil || here == nil || meta.InternalTopic(here.Name) || !set.Topics.Has(t.Name) || len(p.names) > 0 && !slices.Contains(p.names, here.Name) {
			continue
		}
		p.found[here.Name] = true
		if here.IsMirror() && here.Mirror.Link == p.link.ID {
			continue
		}
		p.chosen = append(p.chosen, restorable{here, t})
	}
	slices.SortFunc(p.chosen, func(a, b restorable) int { return strings.Compare(a.here.Name, b.here.Name) })
}

// refuse notes why a topic cannot be restored.
func (p *restorePlan) refuse(topic, do, format string, args ...any) {
	f := Finding{"topic " + topic, fmt.Sprintf(format, args...), do}
	if len(p.names) > 0 {
		p.Problems = append(p.Problems, f)
	} else {
		p.Warnings = append(p.Warnings, f)
	}
}

// add adds a topic, if what the source tells of it says that it took over from here.
func (p *restorePlan) add(r *restorable, found *source.Configs) {
	name := r.here.Name
	text := found.Values[meta.MirrorForksConfig].Text
	forks, err := meta.ParseForks(text)
	switch {
	case found.Err != nil:
		p.refuse(name, "Grant DESCRIBE_CONFIGS on it: leat link doctor.", "The source does not tell where it has taken the topic over: %v.", found.Err)
		return
	case text == "" && len(p.names) == 0: // an ordinary topic of both
		return
	case text == "":
		p.refuse(name, "Promote it there first: leat link failover, or leat link promote.", "The topic %s at the source has not taken over from a mirror.", r.source.Name)
		return
	case err != nil:
		p.refuse(name, "", "The source tells nothing useful of the topic %s: %v.", r.source.Name, err)
		return
	case r.here.IsMirror():
		p.refuse(name, "Delete it, or promote it first.", "The topic %s mirrors another one here.", name)
		return
	case len(forks) < len(r.here.Partitions):
		p.refuse(name, "Copy the records of the partitions that the source lacks elsewhere, and delete the topic here: the link copies it anew.", "The topic %s has %d partitions here, and %d at the source.", name, len(r.here.Partitions), len(forks))
		return
	}
	a := controller.MirrorTopic{ID: r.here.ID, Mirror: &meta.Mirror{Link: p.link.ID, Topic: r.source.Name, TopicID: meta.UUID(r.source.ID), Path: []string{p.link.Source}}}
	for i := range r.here.Partitions {
		if forks[i].From == p.img.ClusterID && forks[i].Topic != r.here.ID {
			p.refuse(name, "Delete the topic here, if nobody needs it, and the link copies what the source has.", "The source has mirrored another topic of the name %s, which is gone: this one was made later.", name)
			return
		}
		if forks[i].From != p.img.ClusterID {
			p.refuse(name, "Delete the topic here, and the link copies it anew.", "Partition %d of the topic %s at the source comes from the cluster %q, and not from this one.", i, r.source.Name, forks[i].From)
			return
		}
	}
	a.Forks = forks[:len(r.here.Partitions)]
	p.Topics = append(p.Topics, a)
	p.Names = append(p.Names, Planned{Source: r.source.Name, Here: name, Partitions: int32(len(r.here.Partitions))})
}

// addMissing notes topics that were asked for, and that one of the clusters does not have.
func (p *restorePlan) addMissing() {
	for _, name := range p.names {
		if !p.found[name] {
			p.refuse(name, "Check the name, and for which topics the link is.", "The topic %s is not in both clusters, or the link is not for it.", name)
		}
	}
}
