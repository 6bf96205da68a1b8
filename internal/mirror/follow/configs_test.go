package follow_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/mirror/follow"
)

// owned are configs by a list that is right.
func owned(list string) *follow.Owned {
	o, err := follow.ParseOwned(list)
	if err != nil {
		panic(err)
	}
	return o
}

// TestOwned proves which configs a link owns by default and by setting, and that some are never owned: those of replicas, and those that say when a record is on disk.
func TestOwned(t *testing.T) {
	for _, c := range []struct{ list, has, hasNot string }{
		{
			"", "cleanup.policy compression.type compression.zstd.level delete.retention.ms max.message.bytes message.timestamp.type min.compaction.lag.ms retention.bytes retention.ms",
			"segment.bytes segment.ms min.insync.replicas unclean.leader.election.enable flush.messages flush.ms leader.replication.throttled.replicas",
		},
		{"default,segment.*", "retention.ms segment.ms segment.bytes", "index.interval.bytes"},
		{"retention.ms", "retention.ms", "retention.bytes cleanup.policy"},
		{"default,-retention.*", "cleanup.policy", "retention.ms retention.bytes"},
		{"-cleanup.policy", "retention.ms", "cleanup.policy"},
		{"none", "", "retention.ms cleanup.policy"},
		{"*", "segment.ms index.interval.bytes", "min.insync.replicas flush.messages follower.replication.throttled.replicas remote.storage.enable preallocate"},
	} {
		o := owned(c.list)
		for key := range strings.FieldsSeq(c.has) {
			if !o.Has(key) {
				t.Errorf("%q does not own %s", c.list, key)
			}
		}
		for key := range strings.FieldsSeq(c.hasNot) {
			if o.Has(key) {
				t.Errorf("%q owns %s", c.list, key)
			}
		}
	}
	for list, want := range map[string]string{"min.insync.replicas": "a matter of the cluster", "a*b": "not at its end", "retention": `no config "retention"`} {
		if _, err := follow.ParseOwned(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// set and unset are values of configs.
func set(text, otherwise string) follow.Value {
	return follow.Value{Text: text, IsSet: true, Otherwise: otherwise}
}

func unset(text string) follow.Value { return follow.Value{Text: text, Otherwise: text} }

// TestConfigs proves what is set here for a topic of the source, and what a person is told.
func TestConfigs(t *testing.T) {
	type values = map[string]follow.Value
	for _, c := range []struct {
		name         string
		owned        string
		source, here values
		made         map[string]string
		steps, warns []string
	}{
		{
			name:   "values that are set at the source, and defaults of the source that are others",
			source: values{"cleanup.policy": set("compact", ""), "retention.ms": unset("86400000"), "retention.bytes": unset("-1")},
			here:   values{"cleanup.policy": unset("delete"), "retention.ms": unset("604800000"), "retention.bytes": unset("-1")},
			steps:  []string{"Set cleanup.policy=compact, retention.ms=86400000 for topic orders."},
		},
		{
			name:   "the same values in other words",
			source: values{"cleanup.policy": set("delete, compact", ""), "retention.ms": set(" 5", ""), "min.cleanable.dirty.ratio": set("0.50", "")},
			here:   values{"cleanup.policy": set("compact,delete", "delete"), "retention.ms": set("5", "7"), "min.cleanable.dirty.ratio": unset("0.5")},
		},
		{
			name:   "back to the default here",
			source: values{"retention.ms": unset("604800000")}, here: values{"retention.ms": set("5", "604800000")}, made: map[string]string{"retention.ms": "5"},
			steps: []string{"Set retention.ms to its default for topic orders."},
		},
		{
			name:   "configs of replicas and of the disk stay",
			source: values{"min.insync.replicas": set("2", ""), "flush.messages": unset("9223372036854775807"), "unclean.leader.election.enable": set("true", "")},
			here:   values{"min.insync.replicas": unset("1"), "flush.messages": unset("1"), "unclean.leader.election.enable": unset("false")},
			owned:  "*",
		},
		{
			name:   "a larger max.message.bytes here stays",
			source: values{"max.message.bytes": unset("1048588")}, here: values{"max.message.bytes": set("9000000", "1048588")},
		},
		{
			name:   "a smaller one does not",
			source: values{"max.message.bytes": set("9000000", "")}, here: values{"max.message.bytes": unset("1048588")},
			steps: []string{"Set max.message.bytes=9000000 for topic orders."},
		},
		{
			name:   "one that was changed here",
			source: values{"retention.ms": set("5", "")}, here: values{"retention.ms": set("8", "7")}, made: map[string]string{"retention.ms": "5"},
			steps: []string{"Set retention.ms=5 for topic orders."},
			warns: []string{"Topic orders had retention.ms changed here from 5 to 8: the link owns it, and sets it to 5, as at the source."},
		},
		{
			name:   "one that was unset here",
			source: values{"retention.ms": set("5", "")}, here: values{"retention.ms": unset("7")}, made: map[string]string{"retention.ms": "5"},
			steps: []string{"Set retention.ms=5 for topic orders."},
			warns: []string{"Topic orders had retention.ms changed here from 5 to 7: the link owns it, and sets it to 5, as at the source."},
		},
		{
			name:   "one that was changed at the source",
			source: values{"retention.ms": set("6", "")}, here: values{"retention.ms": set("5", "7")}, made: map[string]string{"retention.ms": "5"},
			steps: []string{"Set retention.ms=6 for topic orders."},
		},
		{
			name:   "what is not owned, not known here, or not possible here",
			source: values{"segment.ms": set("5", ""), "message.timestamp.kafka9": set("x", ""), "other.config": set("x", ""), "compression.type": set("brotli", ""), "index.interval.bytes": unset("9")},
			here:   values{"segment.ms": unset("604800000"), "compression.type": unset("producer"), "index.interval.bytes": unset("4096")},
			warns: []string{
				"Topic orders has compression.type=brotli at the source, which is not possible here: ",
				"Topic orders has message.timestamp.kafka9=x at the source, a config that there is not here.",
				"Topic orders has segment.ms=5 at the source and 604800000 here: the link does not own it.",
			},
		},
		{
			name: "two that do not fit together here", owned: "min.compaction.lag.ms",
			source: values{"min.compaction.lag.ms": set("10", ""), "max.compaction.lag.ms": set("20", "")},
			here:   values{"min.compaction.lag.ms": unset("0"), "max.compaction.lag.ms": set("5", "9223372036854775807")},
			warns: []string{
				"Topic orders has max.compaction.lag.ms=20 at the source and 5 here: the link does not own it.",
				"Topic orders cannot have min.compaction.lag.ms=10 and max.compaction.lag.ms=5 here, so neither is set.",
			},
		},
	} {
		p := follow.Configs("orders", owned(c.owned), c.source, c.here, c.made)
		if diff := cmp.Diff(append([]string{}, c.steps...), p.Sentences()); diff != "" {
			t.Errorf("%s: steps: %s", c.name, diff)
		}
		isSame := len(p.Warnings) == len(c.warns)
		for i := range min(len(p.Warnings), len(c.warns)) {
			isSame = isSame && strings.HasPrefix(p.Warnings[i], c.warns[i])
		}
		if !isSame {
			t.Errorf("%s: warnings: %q", c.name, p.Warnings)
		}
	}
}

// applyConfigs does the steps of a plan.
func applyConfigs(here map[string]follow.Value, made map[string]string, steps []follow.ConfigStep) {
	for _, s := range steps {
		for key, text := range s.Set {
			here[key], made[key] = set(text, here[key].Otherwise), text
		}
		for _, key := range s.Unset {
			here[key] = unset(here[key].Otherwise)
			delete(made, key)
		}
	}
}

// TestConfigsSettle proves for random configs that after the steps there are no more, and that all that is owned is then as at the source, or larger if it may be.
func TestConfigsSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SampledFrom([]string{"1", "2", "3", " 2"})
		draws := map[string]*rapid.Generator[string]{
			"retention.ms": numbers, "max.message.bytes": numbers, "min.compaction.lag.ms": numbers, "max.compaction.lag.ms": numbers, "segment.ms": numbers, "min.insync.replicas": numbers,
			"cleanup.policy": rapid.SampledFrom([]string{"delete", "compact", "compact,delete", "delete, compact", "shred"}),
		}
		there, local, made := map[string]follow.Value{}, map[string]follow.Value{}, map[string]string{}
		for _, key := range slices.Sorted(maps.Keys(draws)) {
			draw := draws[key]
			there[key] = follow.Value{Text: draw.Draw(t, key), IsSet: rapid.Bool().Draw(t, "set")}
			otherwise := draw.Draw(t, key)
			if local[key] = unset(otherwise); rapid.Bool().Draw(t, "set here") {
				local[key] = set(draw.Draw(t, key), otherwise)
			}
			if rapid.Bool().Draw(t, "made") {
				made[key] = draw.Draw(t, key)
			}
		}
		o := rapid.SampledFrom([]*follow.Owned{owned(""), owned("*"), owned("retention.ms,min.compaction.lag.ms")}).Draw(t, "owned")
		before := maps.Clone(local)
		p := follow.Configs("t", o, there, local, made)
		applyConfigs(local, made, p.Steps)
		if again := follow.Configs("t", o, there, local, made); len(again.Steps) > 0 {
			t.Fatalf("then there is more to do: %v", again.Steps)
		}
		for key, now := range local {
			want := strings.TrimSpace(there[key].Text)
			switch {
			case !o.Has(key) && now != before[key]:
				t.Fatalf("%s is not owned, and was changed to %+v", key, now)
			case o.Has(key) && key == "retention.ms" && strings.TrimSpace(now.Text) != want,
				o.Has(key) && key == "max.message.bytes" && strings.TrimSpace(now.Text) < want:
				t.Fatalf("%s is owned, and is %+v, at the source %s", key, now, want)
			}
		}
	})
}

// TestConfigDifferences proves that each config which is not as at the source is told of, with what becomes of it, and no other one.
func TestConfigDifferences(t *testing.T) {
	source := map[string]follow.Value{
		"retention.ms": set("5", ""), "retention.bytes": set("6", ""), "segment.ms": set("7", ""), "segment.bytes": unset("8"), "min.insync.replicas": set("2", ""), "max.message.bytes": unset("1048588"),
		"compression.type": set("brotli", ""), "other.config": set("x", ""), "default.there": unset("x"), "min.compaction.lag.ms": set("10", ""), "max.compaction.lag.ms": set("20", ""), "delete.retention.ms": set("3", ""),
		"index.interval.bytes": unset("9"),
	}
	here := map[string]follow.Value{
		"retention.ms": set("8", "7"), "retention.bytes": unset("-1"), "segment.ms": unset("604800000"), "segment.bytes": unset("1073741824"), "min.insync.replicas": unset("1"), "max.message.bytes": set("9000000", "1048588"),
		"compression.type": unset("producer"), "min.compaction.lag.ms": unset("0"), "max.compaction.lag.ms": set("5", "9223372036854775807"), "delete.retention.ms": set("3", ""), "index.interval.bytes": set("10", ""),
	}
	p := follow.Configs("orders", owned("default,-max.compaction.lag.ms"), source, here, map[string]string{"retention.ms": "5"})
	got := []string{}
	for _, d := range p.Differences {
		if why, _, ok := strings.Cut(d.Why, ": compression"); ok {
			d.Why = why
		}
		got = append(got, strings.TrimSpace(strings.Join([]string{d.Topic, d.Key, d.Source, d.Here, string(d.Fate), strings.Split(d.Why, ":")[0]}, " ")))
	}
	want := []string{
		"orders compression.type brotli producer KEPT it is not possible here",
		"orders index.interval.bytes 9 10 KEPT the link does not own it",
		"orders max.compaction.lag.ms 20 5 KEPT the link does not own it",
		"orders max.message.bytes 1048588 9000000 KEPT it may be larger here",
		"orders min.compaction.lag.ms 10 0 KEPT min.compaction.lag.ms=10 and max.compaction.lag.ms=5 are not possible together",
		"orders min.insync.replicas 2 1 KEPT it is a matter of the cluster that has the replicas",
		"orders other.config x  KEPT there is no such config here",
		"orders retention.ms 5 8 PUT_BACK",
		"orders segment.ms 7 604800000 KEPT the link does not own it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
