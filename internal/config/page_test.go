package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var writePage = flag.Bool("write", false, "write docs/configs.md from the table")

// TestConfigsPage proves that docs/configs.md is what the table of configs says; with
// -write it makes it so.
func TestConfigsPage(t *testing.T) {
	const path = "../../docs/configs.md"
	want := configsPage()
	if *writePage {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("run: go test ./internal/config -run TestConfigsPage -write\n%s", d)
	}
}

func configsPage() string {
	var b strings.Builder
	b.WriteString("# Configs\n\nEvery config has Kafka's name, type and meaning, but for those that begin with `leat.`; where Leat's default is another one than Kafka's, its sentence says what it gives. " +
		"Set a topic's with\n`leat config set --topic NAME name=value`, a broker's in the file of `--config`, by `--set name=value`, or, where it can be changed while " +
		"brokers\nrun, with `leat config set --broker ID` or `--cluster`. Kafka's own tools work as well.\n\n" +
		"A config that is *not served yet* says what it needs. Where that is a protection, such as TLS or ACLs, a value that asks for it is refused, at the start and while the\n" +
		"node runs, since nothing would be protected; other values are taken and change nothing, which the node's log says. The same goes for configs that have no effect here.\n")
	section := func(title string, typ ResourceType, mode bool) {
		fmt.Fprintf(&b, "\n## %s\n\n| name | type | default |%s what it does |\n|---|---|---|%s---|\n", title, ifElse(mode, " set |", ""), ifElse(mode, "---|", ""))
		for _, d := range Defs(typ) {
			value := "`" + d.Default + "`"
			switch {
			case d.Null:
				value = "none"
			case d.Default == "":
				value = "empty"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |%s %s |\n", d.Name, typeNames[d.Type], value, ifElse(mode, " "+scopeNames[d.Scope]+" |", ""), strings.ReplaceAll(d.Doc, "|", "\\|"))
		}
	}
	section("Topics", Topic, false)
	section("Brokers", Broker, true)
	section("Groups", Group, false)
	section("Client metrics", ClientMetrics, false)
	b.WriteString(`
## Loggers

Kafka's broker loggers (` + "`kafka-configs --entity-type broker-loggers --entity-name ID`" + `) show and set from which level on the parts of a node log, while it runs
and until it stops: ` + "`broker`, `group`, `quorum`, `storage` and `wire`" + `, and ` + "`root`" + `, whose level those have that were given none: that of ` + "`--log-level`" + ` at the start. The levels
are TRACE, DEBUG, INFO, WARN, ERROR and FATAL; nothing is logged as FATAL, so a part with that level is silent. Each line says which logger wrote it.

## Memory

Go's collector runs at its own pace, GOGC=100: it takes no noticeable time here (docs/benchmarks.md). Where the system limits the memory of the process, by a
container's limit or MemoryMax of a service, three quarters of that become Go's memory limit, before which it collects more often; the rest is for what the kernel
charges to the process. The variables GOGC and GOMEMLIMIT of the environment go before both.
`)
	return b.String()
}

var typeNames = map[Type]string{
	Bool: "boolean", String: "string", Int: "int", Short: "short", Long: "long",
	Double: "double", List: "list", Class: "class", Password: "password",
}

var scopeNames = map[Scope]string{ReadOnly: "at the start", ClusterWide: "any time", PerBroker: "any time, one broker"}

func ifElse(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
