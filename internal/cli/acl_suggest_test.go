package cli

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

func observedOf(lines ...string) (list []cluster.WouldDeny) {
	for _, l := range lines {
		w := strings.SplitN(l, " ", 4)
		list = append(list, cluster.WouldDeny{Principal: w[0], Operation: w[1], ResourceType: w[2], Resource: w[3], Count: 2})
	}
	return list
}

// TestSuggestWithoutObserving proves that where nobody looks on the verb says so, and not that nothing would have been denied.
func TestSuggestWithoutObserving(t *testing.T) {
	for _, state := range []meta.SecuringState{0, meta.SecuringOpen, meta.SecuringFinished} {
		got := suggestedLines(&suggestions{State: stateText(state)})
		if !strings.HasPrefix(got, "# nobody notes what ACLs would deny") || strings.Contains(got, "nothing would have been denied") {
			t.Errorf("state %s: %s", stateText(state), got)
		}
	}
	if got := suggestedLines(&suggestions{State: stateText(meta.SecuringObserved)}); got != "# nothing would have been denied\n" {
		t.Errorf("observed: %s", got)
	}
}

// TestSuggestGrants proves that the lines allow what was observed and no more, that they say so where they do, and that names which clients have chosen
// run nothing in a shell.
func TestSuggestGrants(t *testing.T) {
	many := []string{"User:a READ TOPIC x"}
	for i := range leastForPrefix {
		many = append(many, fmt.Sprintf("User:a READ TOPIC orders-%d", i))
	}
	for _, c := range []struct {
		name     string
		observed []string
		as       string
		exact    bool
		want     string
	}{
		{"nothing", nil, "", false, "# nothing would have been denied\n"},
		{"what others imply", []string{
			"User:a DESCRIBE TOPIC t", "User:a WRITE TOPIC t", "User:a IDEMPOTENT_WRITE CLUSTER kafka-cluster", "User:b DESCRIBE TOPIC t", "User:b IDEMPOTENT_WRITE CLUSTER kafka-cluster",
			"User:a DESCRIBE_CONFIGS TOPIC t",
		}, "", false, "leat acl grant a write topic t\nleat acl grant a describe-configs topic t\nleat acl grant b describe topic t\nleat acl grant b idempotent-write cluster\n"},
		{"names that begin alike", many, "", false, "# this allows more than was observed: all that begin with orders-, and not only orders-0, orders-1, orders-2, orders-3, orders-4\n" +
			"leat acl grant a read topic 'orders-*'\nleat acl grant a read topic x\n"},
		{"too few that begin alike", many[:leastForPrefix], "", false, "leat acl grant a read topic orders-0\nleat acl grant a read topic orders-1\nleat acl grant a read topic orders-2\nleat acl grant a read topic orders-3\nleat acl grant a read topic x\n"},
		{"each name", many[1:], "", true, "leat acl grant a read topic orders-0\nleat acl grant a read topic orders-1\nleat acl grant a read topic orders-2\nleat acl grant a read topic orders-3\nleat acl grant a read topic orders-4\n"},
		{"without TLS", []string{"User:ANONYMOUS READ GROUP g"}, "", false, "# User:ANONYMOUS read group g: clients without TLS did it: name the user as whom they will log in by --anonymous-as\n"},
		{"without TLS, for a user", []string{"User:ANONYMOUS READ GROUP g", "User:a READ GROUP g"}, "User:a", false, "leat acl grant a read group g\n"},
		{"other words", []string{"User:CN=a,O=b WRITE TRANSACTIONAL_ID t 1", "Group:team ALTER CLUSTER kafka-cluster"}, "", false, "leat acl grant Group:team alter cluster\nleat acl grant CN=a,O=b write transactional-id 't 1'\n"},
		{"a star", []string{"User:a READ TOPIC all*"}, "", false, "# User:a read topic all*: the name ends with *, which would stand for all that begin like it\n"},
		{"a line end", []string{"User:a READ GROUP g\nrm -rf /"}, "", false, "# User:a read group g\\x0arm -rf /: the name has characters that cannot be shown\n"},
		{"a dash", []string{"User:a READ GROUP --deny"}, "", false, "leat acl grant -- a read group --deny\n"},
	} {
		s := suggestions{State: "observed", Grants: suggestGrants(observedOf(c.observed...), c.as, c.exact)}
		if got := suggestedLines(&s); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
	}
	evil := []string{"$(touch /tmp/x)", "`id`", "a'b", "a\\", "; echo no", "\"", "a\tb", "${HOME}", "a b  c", "*", "~", "!x", "#c", "|&<>()"}
	for _, name := range evil {
		s := suggestions{State: "observed", Grants: suggestGrants([]cluster.WouldDeny{{Principal: "User:" + name, Operation: "READ", ResourceType: "GROUP", Resource: name + "x"}}, "", true)}
		out, err := exec.Command("sh", "-c", "leat() { for w; do printf '%s\\n' \"$w\"; done; }\n"+suggestedLines(&s)).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Join([]string{"acl", "grant", s.Grants[0].Principal[len("User:"):], "read", "group", name + "x", ""}, "\n")
		if s.Grants[0].Line == "" {
			want = ""
		}
		if name == "*" {
			want = strings.Replace(want, "*\n", "User:*\n", 1)
		}
		if string(out) != want {
			t.Errorf("%q runs as %q", name, out)
		}
	}
}
