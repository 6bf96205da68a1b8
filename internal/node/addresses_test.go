package node

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/meta"
)

// combine combines settings of the command line, given as name, value, name, value.
func combine(pairs ...string) (Config, error) {
	src := Source{Name: "flag"}
	for i := 0; i < len(pairs); i += 2 {
		src.Values = append(src.Values, Value{pairs[i], pairs[i+1], "--" + pairs[i]})
	}
	return Combine(src)
}

// TestAddressesOfNoUseAreRefused proves that an address to which no client could connect, and
// listeners that contradict each other, are refused with a sentence that says what to write
// instead.
func TestAddressesOfNoUseAreRefused(t *testing.T) {
	f := func(want string, pairs ...string) {
		t.Helper()
		_, err := combine(pairs...)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", pairs, err, want)
		}
	}
	const instead = "write the name or address by which clients reach this machine"
	f("0.0.0.0 stands for all addresses of a machine, and no client can connect to it: "+instead, "advertise", "0.0.0.0:9092")
	f(":: stands for all addresses of a machine, and no client can connect to it: "+instead, "advertise", "[::]:9092")
	f(instead, "advertised.listeners", "PLAINTEXT://0.0.0.0:9092")
	f("needs a host that clients can reach: "+instead, "advertise", ":9092")
	f("no client can connect to port 0: write the port that clients reach", "advertise", "localhost:0")
	f("is no host", "advertise", "http//broker:9092")
	f("is no name of a listener", "listen", "two words=:9092")

	f("same port of one address", "listen", "A=:9092,B=:9092")
	f("same port of one address", "listen", "A=127.0.0.1:9092,B=0.0.0.0:9092")
	f("give each listener a name of its own", "listen", "A=:9092,A=:9093")
	f("give each listener a name of its own", "listen", "A=127.0.0.1:9092,A=127.0.0.2:9092")
	f("no security protocol is defined for listener INTERNAL: add INTERNAL:PROTOCOL", "listeners", "INTERNAL://:9092")
	f("listener.security.protocol.map has SASL_SSL for it", "listen", "OUT=SSL://:9092", "listener.security.protocol.map", "OUT:SASL_SSL")
	f("listener.security.protocol.map has PLAINTEXT for it", "listen", "PLAINTEXT=SSL://:9092")
	f("is no security protocol", "listen", "OUT=TLS://:9092")
	f("is not of the form NAME://HOST:PORT", "listeners", "OUT=PLAINTEXT://:9092")
	f("an advertised address has no security protocol", "listen", "OUT=PLAINTEXT://:9092", "advertise", "OUT=PLAINTEXT://a:9092")
	f("give each listener a name of its own", "listen", "PLAINTEXT=PLAINTEXT://127.0.0.1:1,PLAINTEXT=PLAINTEXT://127.0.0.1:2")
	f("not of the form NAME:PROTOCOL", "listener.security.protocol.map", "OUTSIDE")
	f("not of the form NAME:PROTOCOL", "listener.security.protocol.map", "OUTSIDE:PLAIN")
	f("has listener A twice", "listener.security.protocol.map", "A:PLAINTEXT,a:SSL")
	f("is for listener HOST, and this node has only PLAINTEXT", "advertise", "HOST=localhost:9092")
	f("is for listener PLAINTEXT, and this node has only A and B", "listen", "A=:1,B=:2", "advertise", "localhost:9092")
	f("two advertised addresses", "listen", "A=:1", "advertise", "A=a:1,A=a:2")
	f("this node has no such listener, only A and B", "listen", "A=:1,B=:2", "inter.broker.listener.name", "C")
	f("set one of them", "inter.broker.listener.name", "PLAINTEXT", "security.inter.broker.protocol", "PLAINTEXT")
	f("nodes and clients share their listeners", "listeners", "PLAINTEXT://:9092,CONTROLLER://:9093", "controller.listener.names", "CONTROLLER",
		"listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT")
}

// TestListenersAreRegistered proves that a node registers the addresses of its listeners, and
// shows its own settings, in whatever form they are given.
func TestListenersAreRegistered(t *testing.T) {
	kafka := []string{
		"listeners", "inside://127.0.0.1:0,OUTSIDE://127.0.0.1:0", "advertised.listeners", "INSIDE://kafka:9094,OUTSIDE://localhost:9092",
		"listener.security.protocol.map", "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT", "inter.broker.listener.name", "OUTSIDE",
	}
	flags := []string{
		"listen", "INSIDE=127.0.0.1:0,outside=127.0.0.1:0", "advertise", "INSIDE=kafka:9094,OUTSIDE=localhost:9092", "inter.broker.listener.name", "outside",
	}
	for _, pairs := range [][]string{kafka, flags} {
		cfg, err := combine(append(pairs, "rack", "r1", "id", "0")...)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Data, cfg.HTTP = t.TempDir(), "off"
		n, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, n) })
		want := []meta.Listener{{Name: "OUTSIDE", Host: "localhost", Port: 9092}, {Name: "INSIDE", Host: "kafka", Port: 9094}}
		if d := cmp.Diff(want, n.image.Load().Brokers[0].Listeners); d != "" {
			t.Error(d)
		}
		in, out := n.Info().Addresses[0], n.Info().Addresses[1]
		shown := map[string]string{}
		for _, e := range n.image.Load().View(n.static).BrokerEntries() {
			shown[e.Def.Name] = e.Value
		}
		for name, want := range map[string]string{
			"listeners": "INSIDE://" + in + ",OUTSIDE://" + out, "advertised.listeners": "OUTSIDE://localhost:9092,INSIDE://kafka:9094",
			"node.id": "0", "broker.id": "0", "broker.rack": "r1", "log.dirs": cfg.Data, "inter.broker.listener.name": pairs[len(pairs)-1],
		} {
			if shown[name] != want {
				t.Errorf("%s is shown as %q, want %q", name, shown[name], want)
			}
		}
		for _, name := range []string{"INSIDE:PLAINTEXT", "OUTSIDE:PLAINTEXT"} {
			if !strings.Contains(shown["listener.security.protocol.map"], name) {
				t.Errorf("the map is shown as %q", shown["listener.security.protocol.map"])
			}
		}
	}
}

// TestComposeFile proves that a node accepts the example of two listeners in both of its forms,
// and that the ports and the client of the example agree with it.
func TestComposeFile(t *testing.T) {
	b, err := os.ReadFile("../../docs/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var ways [2][]string // of the environment: as it is, and that in comments
	for _, m := range regexp.MustCompile(`(?m)^ +(# )?(LEAT_[A-Z_]+): (.*)$`).FindAllStringSubmatch(string(b), -1) {
		way := 0
		if m[1] != "" {
			way = 1
		}
		ways[way] = append(ways[way], m[2]+"="+m[3])
	}
	var plans []addresses
	for _, environ := range ways {
		cfg, err := Combine(FromEnv(environ))
		if err != nil || len(cfg.Warnings) > 0 {
			t.Fatalf("%q: %v, %q", environ, err, cfg.Warnings)
		}
		a, err := planAddresses(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, a)
		if a.advertise["OUTSIDE"].host != "localhost" || !slices.Equal(a.names, []string{"INSIDE", "OUTSIDE"}) {
			t.Errorf("%q: %+v", environ, a)
		}
		for _, e := range a.listen {
			if e.port != a.advertise[e.name].port {
				t.Errorf("%s is advertised as %s", e, a.advertise[e.name])
			}
		}
		if port := fmt.Sprint(a.listen[1].port); !strings.Contains(string(b), port+":"+port) || !strings.Contains(string(b), `"leat:`+fmt.Sprint(a.listen[0].port)+`"`) {
			t.Errorf("the ports of the file are not those of %q", environ)
		}
	}
	for i := range plans[0].listen {
		if a, b := plans[0].listen[i].kafkaForm(), plans[1].listen[i].kafkaForm(); a != b {
			t.Errorf("one way listens on %s, the other on %s", a, b)
		}
	}
}

// TestEnvironment proves that variables set the log's level and format, and that an unknown
// variable that begins with LEAT_ gets a warning, with the name that may have been meant.
func TestEnvironment(t *testing.T) {
	cfg, err := Combine(FromEnv([]string{
		"LEAT_LOG_LEVEL=warn", "LEAT_LOG_FORMAT=json", "LEAT_LISTN=:9092", "LEAT_ENTIRELY_OTHER=1",
		"LEAT_BOOTSTRAP=a:1", "LEAT_CONFIG=x", "LEAT_SERVICE_HOST=10.0.0.1", "LEAT_PORT_9092_TCP=tcp://10.0.0.1:9092", "OTHER=1",
	}))
	if err != nil || cfg.LogLevel.String() != "WARN" || cfg.LogFormat != "json" {
		t.Errorf("%+v, %v", cfg, err)
	}
	want := []string{
		"the environment variable LEAT_ENTIRELY_OTHER is not one that Leat reads, so it has no effect",
		`the environment variable LEAT_LISTN is not one that Leat reads, so it has no effect: did you mean "LEAT_LISTEN"?`,
	}
	if d := cmp.Diff(want, cfg.Warnings); d != "" {
		t.Error(d)
	}
	for _, wrong := range [][2]string{{"log-level", "loud"}, {"log-level", "info+2"}, {"log-format", "xml"}} {
		if _, err := combine(wrong[0], wrong[1]); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "write ") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// TestUnitFile proves that a node accepts the settings of the example for systemd, and that its data
// and its sealing key are in the directories that systemd makes for them, and those of the image in its volumes.
func TestUnitFile(t *testing.T) {
	b, err := os.ReadFile("../../docs/leat.service")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Za-z]+)=(.*)$`).FindAllStringSubmatch(string(b), -1) {
		values[m[1]] = m[2]
	}
	cfg, err := Combine(FromEnv(strings.Fields(values["Environment"])))
	if err != nil || len(cfg.Warnings) > 0 {
		t.Fatalf("%v, %q", err, cfg.Warnings)
	}
	state := strings.Fields(values["StateDirectory"])
	if len(state) != 2 || cfg.Data != "/var/lib/"+state[0] || path.Dir(cfg.SealingKey) != "/var/lib/"+state[1] || cfg.LogFormat != "json" {
		t.Errorf("%+v", cfg)
	}
	image, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	env, volumes := regexp.MustCompile(`(?m)^ENV (.*)$`).FindStringSubmatch(string(image)), regexp.MustCompile(`(?m)^VOLUME (.*)$`).FindStringSubmatch(string(image))
	inImage, err := Combine(FromEnv(strings.Fields(env[1])))
	if err != nil || len(inImage.Warnings) > 0 || volumes[1] != inImage.Data+" "+path.Dir(inImage.SealingKey) {
		t.Errorf("the image: %v, %q, volumes %q", err, inImage.Warnings, volumes[1])
	}
	for _, c := range []Config{cfg, inImage} {
		if _, err := keyFileOf(&c); err != nil {
			t.Error(err)
		}
	}
	if !strings.HasSuffix(values["ExecStart"], "/leat up") || values["RestartPreventExitStatus"] != "2 3" {
		t.Errorf("%q", values)
	}
	shown := regexp.MustCompile(`(?m)^# +Environment=(.*)$`).FindStringSubmatch(string(b))
	if cfg, err := Combine(FromEnv(strings.Fields(shown[1]))); err != nil || len(cfg.Warnings) > 0 || cfg.Settings["num.partitions"] != "3" {
		t.Errorf("the settings to add: %v, %+v", err, cfg)
	}
}
