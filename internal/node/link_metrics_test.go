package node

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// TestLinkMetrics proves what the metrics tell of a link that mirrors, of one whose source is away, and of a check; that they are by the link and not by its partitions; and that the page about monitoring has all of them.
func TestLinkMetrics(t *testing.T) {
	there := newSite(t, 1)
	there.create("orders", 2, nil)
	there.produce("orders", 20)
	here := start(t, Config{Data: filepath.Join(t.TempDir(), "data"), HTTP: "127.0.0.1:0"})
	if _, body := get(t, here, "/metrics"); strings.Contains(body, "leat_link_") {
		t.Error("there are metrics of links, and no link")
	}
	serve := func(verb cluster.LinkVerb, settings ...meta.LinkSetting) cluster.LinkAnswer {
		t.Helper()
		a, refused, err := here.linking.ServeLink(deadline(t), &cluster.LinkRequest{Verb: verb, Name: "north", Settings: settings})
		if err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		return a
	}
	if a := serve(cluster.LinkCreate, meta.LinkSetting{Key: "bootstrap.servers", Value: there.ports[0]}, meta.LinkSetting{Key: "topics", Value: "*"}); !a.Changed {
		t.Fatalf("%+v", a)
	}
	body := ""
	await := func(what string, lines ...string) {
		t.Helper()
		missing := ""
		defer func() {
			if t.Failed() {
				t.Logf("no %s in\n%s", missing, strings.Join(slices.DeleteFunc(strings.Split(body, "\n"), func(l string) bool { return !strings.HasPrefix(l, "leat_link_") }), "\n"))
			}
		}()
		eventually(t, what, func() bool {
			_, body = get(t, here, "/metrics")
			for _, l := range lines {
				if missing = l; !regexp.MustCompile(`(?m)^` + l + `$`).MatchString(body) {
					return false
				}
			}
			return true
		})
	}
	const of, some = `{link="north"}`, `[1-9][0-9.e+]*`
	await("it mirrors", `leat_link_partitions{link="north",state="MIRRORING"} 2`, `leat_link_partitions{link="north",state="GAP"} 0`, "leat_link_lag_records"+of+" 0", "leat_link_lag_bytes"+of+" 0", "leat_link_lag_seconds"+of+" 0",
		"leat_link_lag_unknown_partitions"+of+" 0", "leat_link_mirrored_records_total"+of+" 40", "leat_link_mirrored_bytes_total"+of+" "+some, "leat_link_connections_total"+of+" "+some, "leat_link_cuts_total"+of+" 0",
		"leat_link_configs_put_back_total"+of+" 0", "leat_link_access_changes_total"+of+" 0", "leat_link_unusable"+of+" 0", `leat_link_task_failing{link="north",task="topics"} 0`, `leat_link_task_failing{link="north",task="configs"} 0`,
		"leat_link_rpo_seconds"+of+` [0-9.e-]+`, "leat_link_connection_failures_total"+of+" 0")
	if strings.Contains(body, "leat_link_check_problems") || strings.Contains(body, `partition="`) {
		t.Error("a check that was not made, or partitions, have metrics")
	}
	if len(serve(cluster.LinkCheck).Problems) > 0 {
		t.Error("the check finds problems")
	}
	await("a check was made", "leat_link_check_problems"+of+" 0")
	there.stop(0)
	await("the source is away", `leat_link_partitions{link="north",state="WAITING"} 2`, `leat_link_task_failing{link="north",task="topics"} 1`, "leat_link_connection_failures_total"+of+" "+some, "leat_link_failed_requests_total"+of+" "+some)
	serve(cluster.LinkCheck)
	await("a check has failed", "leat_link_check_problems"+of+" 1")
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`(?m)^# TYPE (leat_link_[a-z_]+)`).FindAllStringSubmatch(body, -1) {
		if !strings.Contains(string(page), "`"+name[1]+"`") {
			t.Errorf("docs/monitoring.md does not tell of %s", name[1])
		}
	}
}
