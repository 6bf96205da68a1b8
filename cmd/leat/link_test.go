//go:build unix

package main_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestLinkVerbs proves, with two nodes, that a link is checked, made once however often that is asked for, described, paused, changed and deleted, that each verb writes JSON for programs, that
// records go from one cluster to the other, that a gap is shown with the command that accepts it, and that a verb at the wrong cluster says where to run it.
func TestLinkVerbs(t *testing.T) {
	t.Parallel()
	thereData, hereData, dir := t.TempDir(), t.TempDir(), t.TempDir()
	there, here := up(t, thereData), up(t, hereData)
	at := " --bootstrap " + there.addr
	tryVerb(t, dir, "", "topic create orders --partitions 1"+at).expect(t, 0)
	tryVerb(t, dir, "a\nb\n", "produce orders"+at).expect(t, 0)
	say := func(line string, code int, wants ...string) string {
		t.Helper()
		r := tryVerb(t, dir, "", "link "+line+" --data "+hereData)
		r.expect(t, code)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s does not say %q:\n%s%s", r.line, want, r.stdout, r.stderr)
			}
		}
		return r.stdout
	}
	asJSON := func(line string, code int) map[string]any {
		t.Helper()
		var v map[string]any
		if out := say(line+" -o json", code); json.Unmarshal([]byte(out), &v) != nil {
			t.Errorf("leat link %s writes no JSON: %s", line, out)
		}
		return v
	}
	states := func(topic string) (all map[string]any) {
		all, _ = asJSON("describe north "+topic, 0)["topicList"].([]any)[0].(map[string]any)["states"].(map[string]any)
		return all
	}
	const create = "create north --prefix n. --from "
	say("doctor --from "+there.addr, 0, "kafka-acls --bootstrap-server "+there.addr, "the cluster ", ", with 1 broker\n", "1 topic: orders")
	say(create+there.addr+" --dry-run", 0, "link north would be made")
	say("list", 0, "mirrors no other one")
	if r := asJSON(create+there.addr, 0); r["changed"] != true || r["done"] != true {
		t.Errorf("%v", r)
	}
	say(create+there.addr, 0, "link north is there already, as it was asked for")
	say(create+there.addr+" --topics x", 1, "leat link alter north --topics x")
	say("create self --from "+here.addr, 1, "are of this cluster", "leat link create self --from "+here.addr)
	say("create lost --from 127.0.0.1:1", 1, "problem: 127.0.0.1:1: ", "link lost was not made: there is 1 problem")
	tryVerb(t, dir, "", "link describe north --data "+thereData).expect(t, 3)
	eventually(t, "the records are here", func() bool {
		return strings.Contains(tryVerb(t, dir, "", "topic offsets n.orders -o json --bootstrap "+here.addr).stdout, `"end": 2`)
	})
	if r := tryVerb(t, dir, "", "consume n.orders --from start --exit --bootstrap "+here.addr); r.stdout != "a\nb\n" {
		t.Errorf("the records are %q", r.stdout)
	}
	say("describe north", 0, "n.orders  orders")
	asJSON("pause north n.orders", 0)
	say("pause north n.orders", 0, "paused already")
	tryVerb(t, dir, "c\nd\n", "produce orders"+at).expect(t, 0)
	tryVerb(t, dir, "", "topic trim orders --before end"+at).expect(t, 0)
	if got := states("n.orders"); got["PAUSED"] != 1.0 {
		t.Errorf("%v", got)
	}
	asJSON("resume north n.orders", 0)
	eventually(t, "there is a gap", func() bool { return states("n.orders")["GAP"] == 1.0 })
	say("describe north", 0, "the offsets 2 to 3", `"leat link skip north n.orders 0"`)
	asJSON("skip north n.orders 0 --dry-run", 0)
	say("skip north n.orders 0", 0, "accepted that the offsets 2 to 3 are missing in partition 0 of n.orders, at most 2 records")
	eventually(t, "it mirrors", func() bool { return states("n.orders")["MIRRORING"] == 1.0 })
	say("skip north n.orders 0", 0, "waits for nothing")
	asJSON("alter north --exclude orders", 0)
	asJSON("doctor north", 0)
	if list := asJSON("list", 0)["links"].([]any); len(list) != 1 {
		t.Errorf("%v", list)
	}
	say("delete north", 1, "n.orders mirrors by the link")
	tryVerb(t, dir, "", "topic delete n.orders --bootstrap "+here.addr).expect(t, 0)
	asJSON("delete north", 0)
	say("delete north", 3, "has no link north, nor any other")
}
