package mirror_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
)

// check checks a link to the source of a rig.
func (r *rig) check(settings ...meta.LinkSetting) *mirror.Report {
	return r.service.Check(r.Context(), &meta.Link{Name: "north", Settings: append([]meta.LinkSetting{{Key: "bootstrap.servers", Value: "b1:9092"}}, settings...)}, nil)
}

// has tells whether a list has a finding about something, with words in it.
func has(list []mirror.Finding, about, words string) bool {
	for _, f := range list {
		if f.About == about && strings.Contains(f.Text+" "+f.Do, words) {
			return true
		}
	}
	return false
}

// TestChecks proves that a check of a link finds what would keep it from mirroring, says what to do about it, and changes nothing.
func TestChecks(t *testing.T) {
	all := meta.LinkSetting{Key: "topics", Value: "*"}
	for what, c := range map[string]struct {
		prepare      func(r *rig)
		settings     []meta.LinkSetting
		about, words string
	}{
		"a setting that is none":             {nil, []meta.LinkSetting{{Key: "no.such", Value: "x"}}, "settings", `A link has no setting "no.such".`},
		"nobody is there":                    {func(r *rig) { r.source.stop(1) }, nil, "b1:9092", "cannot be reached"},
		"nothing":                            {nil, []meta.LinkSetting{all}, "", ""},
		"it is this cluster":                 {func(r *rig) { r.source.id = "here" }, nil, "cluster", "lead to this cluster itself"},
		"it has no id":                       {func(r *rig) { r.source.id = "" }, nil, "cluster", "does not tell its cluster id"},
		"topics cannot be read":              {func(r *rig) { r.source.denies[1] = true }, []meta.LinkSetting{all}, "rights", "lacks the right READ for orders, payments"},
		"configs cannot be read":             {func(r *rig) { r.source.denies[32] = true }, []meta.LinkSetting{all}, "rights", "--operation DESCRIBE_CONFIGS"},
		"a source that is too old":           {func(r *rig) { r.source.fetchMax = 9 }, nil, "b1:9092", "too old"},
		"a login where there is none":        {nil, []meta.LinkSetting{{Key: "sasl.username", Value: "u"}}, "settings", "which has none"},
		"an address that is not reachable":   {func(r *rig) { r.source.unreachable = "b2:9092" }, nil, "b2:9092", "--map b2:9092=HOST:PORT"},
		"agents, of which none can be there": {func(r *rig) { r.source.stop(1) }, []meta.LinkSetting{all, {Key: "via", Value: "agent"}}, "", ""},
		"another address for that of above":  {func(r *rig) { r.source.unreachable = "b2:9092" }, []meta.LinkSetting{{Key: "map", Value: "b2:9092=b2.here:9092"}}, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.source.create("orders", 2, 1)
				r.source.create("payments", 1, 2)
				if c.prepare != nil {
					c.prepare(r)
				}
				before := r.image.Load()
				rep := r.check(c.settings...)
				if c.about == "" && len(rep.Problems) > 0 || c.about != "" && !has(rep.Problems, c.about, c.words) {
					r.Errorf("%+v", rep.Problems)
				}
				if r.image.Load() != before {
					r.Error("the check has changed something")
				}
			})
		})
	}
}

// TestCheckIsWell proves that a check of a link without problems says what it has found in order, which topics the link would mirror, and what a person ought to know.
func TestCheckIsWell(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.source.create("orders", 2, 1)
		r.source.create("app-repartition", 1, 2)
		r.source.create("back", 1, 3)
		r.source.change(func() { r.source.topics["back"].configs[meta.MirrorPathConfig] = "here" })
		r.link()
		rep := r.check(meta.LinkSetting{Key: "topics", Value: "*"}, meta.LinkSetting{Key: "prefix", Value: "north."})
		if len(rep.Problems) > 0 || rep.Source != "there" || len(rep.Steps) < 3 {
			r.Errorf("%+v", rep)
		}
		if len(rep.Topics) != 2 || rep.Topics[1].Source != "orders" || rep.Topics[1].Here != "north.orders" || rep.Topics[1].Partitions != 2 {
			r.Errorf("%+v", rep.Topics)
		}
		if !has(rep.Warnings, "topics", "app-repartition is not mirrored") || !has(rep.Warnings, "cluster", "The link north is from the same cluster.") || !has(rep.Warnings, "back", "comes from this cluster") {
			r.Errorf("%+v", rep.Warnings)
		}
		r.source.ahead = -time.Minute
		if rep := r.check(); !has(rep.Warnings, "clock", "at least 59.99") || !has(rep.Warnings, "clock", "behind that of this node") {
			r.Errorf("%+v", rep.Warnings)
		}
		r.source.ahead = time.Minute
		if rep := r.check(); !has(rep.Warnings, "clock", "1m0s ahead of") {
			r.Errorf("%+v", rep.Warnings)
		}
		r.source.denies[55] = true
		if rep := r.check(); !slices.ContainsFunc(rep.Steps, func(s string) bool { return strings.Contains(s, "does not tell its time") }) {
			r.Errorf("%q", rep.Steps)
		}
		if rep := r.check(meta.LinkSetting{Key: "topics", Value: "none-*"}); len(rep.Problems) > 0 || !has(rep.Warnings, "topics", "no topic now") {
			r.Errorf("%+v", rep)
		}
	})
}
