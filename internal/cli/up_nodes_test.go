package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/node"
)

// TestSettingsOfNodes proves which settings several nodes on one machine share, and that those of one node are
// refused.
func TestSettingsOfNodes(t *testing.T) {
	parse := func(args, environ string) (dir, given string, err error) {
		t.Helper()
		cmd := new(app).newUp()
		if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		cfg, err := readSettings(cmd, strings.Fields(environ))
		if err != nil {
			t.Fatal(err)
		}
		count, _ := cmd.Flags().GetInt("nodes")
		return directoryOfNodes(cmd, &cfg), strings.Join(argumentsOfNodes(cmd, &cfg), " "), checkNodes(count, &cfg)
	}
	f := func(args, environ, wantDir, wantGiven, refused string) {
		t.Helper()
		dir, given, err := parse(args, environ)
		if refused != "" {
			if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), refused) {
				t.Errorf("%s: %v, want %q", args, err, refused)
			}
			return
		}
		if diff := cmp.Diff([]string{wantDir, wantGiven}, []string{dir, given}); diff != "" || err != nil {
			t.Errorf("%s: %v %s", args, err, diff)
		}
	}
	f("--nodes 3", "", defaultCluster, "--log-format text", "")
	f("--nodes 3 --data "+node.DefaultData, "", node.DefaultData, "--log-format text", "")
	f("--nodes 3", "LEAT_DATA=d LEAT_LOG_FORMAT=json", "d", "--log-format json", "")
	f("--nodes 9 --set num.partitions=3 --set log.retention.hours=2 --rack r --log-level warn", "", defaultCluster,
		"--log-level warn --rack r --set num.partitions=3 --set log.retention.hours=2 --log-format text", "")
	f("--nodes 10", "", "", "", "from 1 to 9")
	f("--nodes 3 --advertise a:1", "LEAT_ID=4", "", "", "leave out advertise and id")
	f("--nodes 3", "LEAT_LISTEN=:9092 LEAT_JOIN=a:1", "", "", "leave out listen and join")
}
