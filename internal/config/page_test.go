package config

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var writePage = flag.Bool("write", false, "write docs/configs.md from the table")

// TestConfigsPage proves that docs/configs.md is the page made of the tables of configs. With
// -write it writes the page.
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

// addressesOnPage is the part of the page about the differences that node.TestSettingsAreJudgedAsByKafka
// finds. The test reads the names of its paragraphs.
const addressesOnPage = `
## Listeners, numbers and directories

The settings of listeners, of the node's number, of its roles and of its directory are judged as by Apache Kafka 4.3.1, with these differences:

- **Loopback by default.** Without listeners a node listens on port 9092 of the loopback addresses; Kafka listens on all addresses. Nothing is open to a network unless the operator says so.
- **No advertised address needed.** Kafka tells clients the addresses of listeners if there are no advertised.listeners, so it refuses a listener on 0.0.0.0 then. Clients of a listener without an
  advertised address are told the address to which they have connected, so any listener will do, and advertised.listeners need not name the listener for other nodes.
- **Addresses that clients can use.** An advertised address needs a host and a port from 1 to 65535, and a listener a port from 0 to 65535. Kafka puts the machine's name and the port of the listener in their
  place, which clients elsewhere cannot always reach, accepts an advertised [::], and refuses other ports only when it opens them.
- **The listener for other nodes.** Without inter.broker.listener.name and without a listener of the name PLAINTEXT Kafka refuses to start; a node takes the first listener.
- **Two addresses of one listener.** Two addresses of one listener may have the same name if one of them is an IPv4 address and the other one an IPv6 address, since clients may resolve localhost to either.
- **One port of two addresses.** Two listeners may have the same port on different addresses. Kafka allows it for an IPv4 and an IPv6 address only.
- **Names of listeners.** A name has up to 100 letters, digits, dots, dashes and underscores, so that it can be written in every form. Kafka allows any character.
- **One protocol for each listener.** A listener.security.protocol.map that has two protocols for one listener is refused; Kafka takes the last one.
- **No listeners for controllers.** Nodes and clients share their listeners, so controller.listener.names is not needed, and none of the listeners may be named there. Leave the CONTROLLER listener of a Kafka configuration out.
- **Every node is a broker.** The process.roles of a node may be left out, and must not be controller alone.
- **One data directory.** The settings log.dirs and log.dir name one directory.
- **Names that have no effect.** The listeners in early.start.listeners and the directories in cordoned.log.dirs need not exist, since these configs have no effect.
- **Set at the start.** Listeners do not change while a node runs. Kafka opens and closes them when listeners or listener.security.protocol.map are set on a broker; here that is refused.
- **Values for one listener.** The configs ssl.*, sasl.*, leat.sasl.*, principal.builder.class, connections.max.reauth.ms and max.connection.creation.rate have other values for one listener with the prefix listener.name.NAME., in small letters, and those of SASL for one
  mechanism of it with listener.name.NAME.MECHANISM. Other configs with that prefix are refused; in Kafka they have no effect, but for the limit of open connections and numbers of threads. The log warns of a listener that the node does not have.

The node's own settings --listen and --advertise also have shorter forms: HOST:PORT, :PORT, a port, and NAME=HOST:PORT; --listen NAME=PROTOCOL://HOST:PORT names the security protocol of a listener, too, so that it need not be in the map. Addresses without a name are those of listener PLAINTEXT, which may have several.
`

func configsPage() string {
	var b strings.Builder
	b.WriteString("# Configs\n\n" +
		"Configs have Kafka's names, types and meanings, except for those that begin with `leat.`, which Kafka does not have. Where a default differs from Kafka's, the text says what it means.\n\n" +
		"Set a config of a topic with `leat config set --topic NAME name=value`, and one of a broker in the file of `--config` or by `--set name=value`. Configs of brokers\n" +
		"that can change at any time can also be set with `leat config set --broker ID` or `--cluster`. Kafka's own tools work as well.\n\n" +
		"The file of `--config` has lines `name: value` (YAML), or is a `server.properties` of Kafka, with lines `name=value`, and is read as it is, by Java's rules; its first line or the end `.properties` of its name decides. Both may also have the node's own settings, such as `data`.\n" +
		"Of a `server.properties` the last line of a name counts. Names of its `controller.listener.names` are left out of `listeners` and `advertised.listeners`, since nodes and clients share their listeners. Names that Kafka had in earlier versions (`zookeeper.connect`), and\n" +
		"those that neither Kafka nor Leat knows, such as those of Kafka's plugins, have no effect, and the node's log warns of each with its line. But an unknown name is refused if it is nearly a known one, or if it is about security (`ssl.`, `sasl.`, `listener.`, `security.`, `authorizer.`, `super.`, `allow.`, `delegation.`, `leat.`), as all unknown names\n" +
		"of a YAML file are. `log.dirs` must not be a directory that Kafka has used. `controller.quorum.voters` makes no cluster: nodes [join](cluster.md) with `--join`.\n\n" +
		"The text of a config that is *not served yet* names the feature that it needs. If that is a protection, such as authentication, values that ask for it are refused, since\n" +
		"they would protect nothing. Other values, and those of configs that have no effect here, are accepted and have no effect; the node's log\nwarns of them, and so does the verb of `leat` that sets them.\n")
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
			fmt.Fprintf(&b, "| `%s` | %s | %s |%s %s |\n", d.Name, typeNames[d.Type], value, ifElse(mode, " "+whenSet(d)+" |", ""), strings.ReplaceAll(d.Doc, "|", "\\|"))
		}
	}
	section("Topics", Topic, false)
	section("Brokers", Broker, true)
	section("Groups", Group, false)
	section("Client metrics", ClientMetrics, false)
	b.WriteString(addressesOnPage + `
## Loggers

Kafka's broker loggers (` + "`kafka-configs --entity-type broker-loggers --entity-name ID`" + `) show and set the lowest level that each part of a node logs. A change lasts until the node stops.
The loggers are ` + "`audit`, `broker`, `cluster`, `group`, `mirror`, `quorum`, `replica`, `storage`, `txn`, `wire` and `root`" + `. The level of ` + "`root`" + `, at the start that of ` + "`--log-level`" + `, applies to all loggers without a level of their own. The levels
are TRACE, DEBUG, INFO, WARN, ERROR and FATAL; no line has the level FATAL, so a logger with that level is silent. Each line has the name of its logger.
Lines about clients are bounded from INFO up. At DEBUG and below there may be several for each connection and request, without a bound: use these levels while you look for something.

## Memory

Go's garbage collector runs at its own pace (GOGC=100; 33 while requests that wait for records hold much memory) and takes no noticeable time (docs/benchmarks.md). If the system limits the memory of the process, by the limit
of a container or MemoryMax of a service, three quarters of that become Go's memory limit, near which the collector runs more often; the rest is for memory of the
kernel that counts as the process's. The environment variables GOGC and GOMEMLIMIT override both.

Requests and answers of all clients hold, without other settings, at most half of the memory that the process may use, or 72 MiB if that is more: an eighth while they
are received, a sixth while they are worked on, a tenth while they wait for records, and an eighth of that sixth as answers that clients have not read yet.

A partition takes about 2 KB of memory before it has records. A cluster has as many as a quarter of the memory that the process may use has room for, at least 10,000
and at most 1 million; topics beyond that are refused with POLICY_VIOLATION. The memory that the process may use is Go's limit, and no more than half of the machine's.

A connection takes about 10 KiB while its client waits for records. Clients may have as many connections as a quarter of the memory that the process may use has room for, and at least 1,000:
6,500 with 256 MiB, 300,000 with 12 GiB. A connection beyond that is closed when it comes, and the log says what to raise.

A partition remembers each idempotent producer that writes to it, which takes at most 256 bytes, until ` + "`producer.id.expiration.ms`" + ` after its last batch. Those of all partitions together have a
sixteenth of the memory that the process may use, at most 256 MiB, which is enough for 1 million; beyond that the [longest unused ones are forgotten](guarantees.md#idempotent-producers).

All configs that are set in a cluster, on topics, brokers, groups and metrics subscriptions, have at most 32 MiB together with the names of what they are set on; more is
refused with POLICY_VIOLATION. The name of a metrics subscription has at most 249 bytes.
`)
	return b.String()
}

var typeNames = map[Type]string{
	Bool: "boolean", String: "string", Int: "int", Short: "short", Long: "long",
	Double: "double", List: "list", Class: "class", Password: "password",
}

// whenSet says when a broker config can be set, by what the broker refuses.
func whenSet(d *Def) string {
	switch {
	case CheckDynamic(d.Name, false) == nil:
		return "any time"
	case CheckDynamic(d.Name, true) == nil:
		return "any time, one broker"
	default:
		return "at the start"
	}
}

func ifElse(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// TestTextsSayWhatIsRefused proves that what the text of a config says about its effect is what the node
// does with a value: refused, without effect and noted, or acting and not noted.
func TestTextsSayWhatIsRefused(t *testing.T) {
	// These texts say in words of their own that a value is refused.
	inWords := map[string]string{"remote.storage.enable": "true"}
	// Those of leat.* say that requests, not values, are refused. node.TestSettingsAreJudgedAsByKafka proves the others.
	elsewhere := []string{"leat.group.memory.bytes", "leat.work.memory.bytes", "listener.security.protocol.map", "controller.listener.names", "process.roles"}
	for _, typ := range []ResourceType{Topic, Broker, Group, ClientMetrics} {
		tried := 0
		for _, d := range Defs(typ) {
			own := strings.TrimSuffix(d.Doc, d.supportNote())
			if value, ok := inWords[d.Name]; ok {
				if newTestBroker(t, nil).Check(typ, map[string]string{d.Name: value}) == nil {
					t.Errorf("%s=%s is accepted, though its text says that it is refused: %s", d.Name, value, d.Doc)
				}
			} else if regexp.MustCompile(`refused|may be named`).MatchString(own) && !slices.Contains(elsewhere, d.Name) {
				t.Errorf("nothing proves what the text of %s says: %s", d.Name, own)
			}
			value, ok := anotherValue(typ, d)
			if !ok {
				continue
			}
			tried++
			refused := CheckServed(typ, d.Name, value) != nil
			noted := len(Ineffective(typ, map[string]string{d.Name: value})) > 0
			saysRefused, saysNone := strings.Contains(d.Doc, "values that ask for it are refused"), regexp.MustCompile(`ha(s|ve) no effect (here|until)`).MatchString(strings.ToLower(d.Doc))
			if refused && !saysRefused || !refused && noted != (saysNone || saysRefused) {
				t.Errorf("%s=%s: refused %v, noted %v; its text: %s", d.Name, value, refused, noted, d.Doc)
			}
		}
		if tried < len(Defs(typ))/2 {
			t.Errorf("type %v: only %d of %d configs were tried", typ, tried, len(Defs(typ)))
		}
	}
}

// anotherValue finds a valid value that is not the default.
func anotherValue(typ ResourceType, d *Def) (string, bool) {
	tries := []string{"true", "false", "1", "2", "100", "1000", "65536", "0.4", "x"}
	for _, v := range tries {
		if v != d.Default && v != d.harmless && Validate(typ, d.Name, v) == nil {
			return v, true
		}
	}
	return "", false
}
