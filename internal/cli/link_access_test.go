package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
)

// TestLinkAccessRequests proves which settings the flags about ACLs and quotas become, and what is refused.
func TestLinkAccessRequests(t *testing.T) {
	for _, c := range []struct{ line, settings, unset string }{
		{
			"create north --from n:1 --acls on --quotas on --principals User:app-* --principals User:etl --exclude-principals User:root --map-principal alice=north-alice --map-principal User:CN=x,O=y=User:z --map-principal a=User:CN=b",
			"acls=on;bootstrap.servers=n:1;principals=User:app-*,User:etl;principals.exclude=User:root;principals.map=User:alice=User:north-alice;User:CN=x,O=y=User:z;User:a=User:CN=b;quotas=on;topics=*", "",
		},
		{
			"create north --from n:1 --acls on --acl-groups a --acl-exclude-groups b --acl-transactional-ids c --acl-exclude-transactional-ids d --acl-all-names --quota-client-ids e --quota-exclude-client-ids f --quota-defaults",
			"acls=on;acls.all.names=true;acls.groups=a;acls.groups.exclude=b;acls.transactional.ids=c;acls.transactional.ids.exclude=d;bootstrap.servers=n:1;quotas.client.ids=e;quotas.client.ids.exclude=f;quotas.defaults=true;topics=*", "",
		},
		{"alter north --acls off --acl-all-names=false --unset principals", "acls=off;acls.all.names=false", "principals"},
	} {
		f := answerLinks(cluster.LinkAnswer{Source: "there"})
		f.expect(t, exitOK, c.line)
		if q := &f.asked[0]; textOf(q.Settings) != c.settings || strings.Join(q.Unset, ",") != c.unset {
			t.Errorf("leat link %s:\n%s, %v; want\n%s, %s", c.line, textOf(q.Settings), q.Unset, c.settings, c.unset)
		}
	}
	for line, want := range map[string]string{
		"create north --from n:1 --acls yes":                  "--acls yes: write on or off",
		"create north --from n:1 --quotas 5":                  "--quotas 5: write on or off",
		"create north --from n:1 --principals a*b":            `--principals: the pattern "a*b"`,
		"create north --from n:1 --acl-exclude-groups re:(":   "--acl-exclude-groups: ",
		"create north --from n:1 --map-principal alice":       "alice=north-alice",
		"create north --from n:1 --map-principal *=a":         "all users are all users",
		"create north --from n:1 --map-principal a=":          "--map-principal: ",
		"alter north --acls on --unset acls":                  "--unset acls and --acls cannot be used together",
		"alter north --map-principal a=b --map-principal a=c": "to User:b and to User:c",
	} {
		answerLinks(cluster.LinkAnswer{}).expect(t, exitUsage, line, want)
	}
	on, off := "on", "true"
	answerLinks(cluster.LinkAnswer{Existed: true, Differences: []cluster.LinkDifference{{Key: "acls", Asked: &on}, {Key: "acls.all.names", Asked: &off}, {Key: "principals", Has: &on}}}).
		expect(t, exitFailed, "create north --from n:1", "leat link alter north --acls on --acl-all-names=true --unset principals")
}

// TestLinkAccessGrants proves which rights the doctor prints for a link that follows ACLs and quotas, with what is lost without them, and none for one that does not.
func TestLinkAccessGrants(t *testing.T) {
	const describe, describeConfigs = "--operation Describe --cluster\n", "--operation DescribeConfigs --cluster\n"
	f := answerLinks(cluster.LinkAnswer{Source: "there"})
	out := f.expect(t, exitOK, "doctor --from n:1 --topics a --acls on --quotas on", describe, describeConfigs, "leat acl grant --bootstrap n:1 ANONYMOUS describe cluster\n", "leat acl grant --bootstrap n:1 ANONYMOUS describe-configs cluster\n",
		"# so that ACLs can be followed, and the clocks compared; without it no ACL comes here or goes, and topics are mirrored all the same:\n",
		"# so that quotas can be followed; without it no quota comes here or goes, and topics are mirrored all the same:\n")
	if strings.Count(out, "--cluster") != 2 {
		t.Error(out)
	}
	if out := f.expect(t, exitOK, "doctor --from n:1 --topics a", describe, "nothing is mirrored less without it"); strings.Contains(out, describeConfigs) || strings.Contains(out, "ACLs can be followed") {
		t.Error(out)
	}
}

// TestLinkDescribeShowsNotes proves that all notes of tasks are shown, and the configs that are not as at the source, on the first page of a long answer.
func TestLinkDescribeShowsNotes(t *testing.T) {
	a := described()
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	a.Links[0].Tasks = []cluster.TaskStatus{
		{Task: "acls", State: "RUNNING", Reason: "The first. The second.", Notes: []string{"The first.", "The second."}},
		{Task: "quotas", State: "WAITING", Reason: "no such host", Notes: []string{"The third."}},
		{Task: "configs", State: "RUNNING", Differences: []cluster.ConfigDifference{
			{Topic: "orders", Key: "min.insync.replicas", Source: "2", Here: "1", Fate: "KEPT", Why: "it is a matter of the cluster that has the replicas"},
			{Topic: "web", Key: "retention.ms", Source: "5", Here: "8", Fate: "PUT_BACK", At: at},
		}},
	}
	out := answerLinks(a).expect(t, exitOK, "describe north", "acls:\n  The first.\n  The second.\n", "quotas:\n  The third.\n")
	text := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"acls RUNNING 0 - 2 notes, below", "quotas WAITING 0 - no such host", "TOPIC CONFIG AT THE SOURCE HERE WHAT IS DONE orders min.insync.replicas 2 1 kept: it is a matter of the cluster that has the replicas",
		"web retention.ms 5 8 put back as at the source, 2026-12-01 10:00:00 UTC",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var d describedLink
	if err := json.Unmarshal([]byte(answerLinks(a).expect(t, exitOK, "describe north -o json")), &d); err != nil || len(d.Tasks[0].Notes) != 2 || d.Tasks[2].Differences[1].Fate != "PUT_BACK" {
		t.Errorf("%v: %+v", err, d.Tasks)
	}
}
