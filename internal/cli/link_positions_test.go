package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// TestLinkDescribeShowsPositions proves that a person is told in sentences how positions of groups follow the source, how old what is here is, what is left alone and why, and what to do.
func TestLinkDescribeShowsPositions(t *testing.T) {
	of := func(p *cluster.PositionsStatus, last time.Time) cluster.LinkAnswer {
		task := cluster.TaskStatus{Task: "positions", State: "RUNNING", Node: 2, Last: last, Positions: p}
		return cluster.LinkAnswer{Links: []cluster.LinkStatus{{Name: "north", States: map[string]int{}, Tasks: []cluster.TaskStatus{task}}}}
	}
	for _, c := range []struct {
		p    *cluster.PositionsStatus
		last time.Time
		want []string
	}{
		{
			&cluster.PositionsStatus{Mode: "tailed", Groups: 1, Positions: 240, Open: 2, Loading: 3, Ahead: 2 * time.Second, Held: map[string]int{"the group has members here": 5}}, time.Now().Add(-time.Hour),
			[]string{
				"positions of consumer groups are tailed from the source's __consumer_offsets: 240 positions of 1 group\n", "what the source had 1h", "3 partitions of the source's records still to be read",
				"2 open transactions at the source", "5 positions left as here: the group has members here\n", "the source's clock was ahead by up to 2s",
			},
		},
		{
			&cluster.PositionsStatus{Mode: "polled", Why: "the link may not read __consumer_offsets of the source"},
			time.Time{},
			[]string{"are polled every 5 s, since the link may not read __consumer_offsets of the source: 0 positions of 0 groups\n", "not all that the source has is here yet", `"leat link doctor north" prints the right`},
		},
		{&cluster.PositionsStatus{Mode: "off"}, time.Now(), []string{`"leat link alter north --positions on"`}},
		{&cluster.PositionsStatus{}, time.Time{}, []string{"it is not known yet how"}},
	} {
		answerLinks(of(c.p, c.last)).expect(t, exitOK, "describe north", c.want...)
	}
	var d describedLink
	out := answerLinks(of(&cluster.PositionsStatus{Mode: "polled", Why: "w", Groups: 3, Ahead: 1500 * time.Millisecond}, time.Time{})).expect(t, exitOK, "describe north -o json")
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Tasks) != 1 {
		t.Fatal(err, out)
	}
	if p := d.Tasks[0].Positions; p.Mode != "polled" || p.Why != "w" || p.Groups != 3 || p.Ahead != 1.5 {
		t.Errorf("%+v", p)
	}
}

// TestLinkPositionFlags proves that the flags about groups become settings, and that what no link can have is refused before a node is asked.
func TestLinkPositionFlags(t *testing.T) {
	f := answerLinks(cluster.LinkAnswer{Source: "there", Changed: true})
	f.expect(t, exitUsage, "create north --from n:1 --positions perhaps", "write on or off")
	f.expect(t, exitUsage, "create north --from n:1 --groups a*b", "--groups and --exclude-groups")
	if len(f.asked) > 0 {
		t.Errorf("a node was asked for %+v", f.asked)
	}
	f.expect(t, exitOK, "create north --from n:1 --groups a --groups b-* --exclude-groups b-1 --positions off")
	got := settingsOf(f.asked[0].Settings)
	if got[groupsKey] != "a,b-*" || got[noGroupsKey] != "b-1" || got[positionsKey] != "off" {
		t.Errorf("%q", got)
	}
}

// TestLinkDoctorOfPositions proves that the further rights for positions are printed, each with what is lost without it, and none that is covered or not needed.
func TestLinkDoctorOfPositions(t *testing.T) {
	for _, c := range []struct {
		settings []meta.LinkSetting
		want     []string
	}{
		{[]meta.LinkSetting{{Key: topicsKey, Value: "*"}}, []string{"--operation Describe --group '*' --resource-pattern-type literal"}},
		{[]meta.LinkSetting{{Key: topicsKey, Value: "a"}}, []string{"--operation Read --topic __consumer_offsets --resource-pattern-type literal", "--operation Describe --group '*' --resource-pattern-type literal"}},
		{
			[]meta.LinkSetting{{Key: topicsKey, Value: "a"}, {Key: groupsKey, Value: "g-*,h"}},
			[]string{
				"--operation Read --topic __consumer_offsets --resource-pattern-type literal", "--operation Describe --group g- --resource-pattern-type prefixed", "--operation Describe --group h --resource-pattern-type literal",
			},
		},
		{[]meta.LinkSetting{{Key: topicsKey, Value: "a"}, {Key: groupsKey, Value: "g-*,re:x"}, {Key: noGroupsKey, Value: "y"}}, []string{"--operation Read --topic __consumer_offsets --resource-pattern-type literal", "--operation Describe --group '*' --resource-pattern-type literal"}},
		{[]meta.LinkSetting{{Key: topicsKey, Value: "a"}, {Key: positionsKey, Value: "off"}}, nil},
	} {
		settings := settingsOf(append(c.settings, meta.LinkSetting{Key: serversKey, Value: "n:1"}))
		grants, _ := leastGrants(settings, "User:mirror", &cluster.LinkAnswer{})
		var got []string
		for _, g := range grants {
			if g.Needed || g.Resource == "cluster" || g.Name == transactionsTopic {
				continue
			}
			if g.Why == "" || len(g.Leat) != 1 {
				t.Errorf("%+v", g)
			}
			got = append(got, strings.TrimPrefix(g.Kafka, "kafka-acls --bootstrap-server n:1 --add --allow-principal User:mirror "))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%v:\n%q, want\n%q", c.settings, got, c.want)
		}
	}
}
