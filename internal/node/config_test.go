package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestCombine proves that a later source wins over an earlier one, also if one has our name for
// a setting and the other has Kafka's.
func TestCombine(t *testing.T) {
	file, err := parseFile("leat.yaml", []byte("# a comment\ndata: /from/file\nnode.id: 7\nnum.partitions: 3\nlisteners: PLAINTEXT://0.0.0.0:9092\nlog.cleanup.policy: [compact, delete]\n"))
	if err != nil {
		t.Fatal(err)
	}
	env := FromEnv([]string{"HOME=/root", "LEAT_DATA=/from/env", "LEAT_SET_NUM_PARTITIONS=4", "LEAT_BOOTSTRAP=elsewhere:1"})
	flags := Source{Name: "flag", Values: []Value{{"listen", ":9192,9193", "--listen"}, {"num.partitions", "5", "--set num.partitions=5"}}}
	got, err := Combine(file, env, flags)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Data: "/from/env", ID: new(int32(7)), IDFrom: "leat.yaml: line 3, column 1", Listen: []string{":9192", ":9193"},
		Settings: map[string]string{"num.partitions": "5", "log.cleanup.policy": "compact,delete"},
	}
	if d := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Logger" || p.Last().String() == ".Ready" }, cmp.Ignore()), cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Error(d)
	}
}

// TestContradictionsAreRefused proves that one source may set a setting twice only if both say the same, whatever names
// and spellings they use, and that a later source may contradict an earlier one.
func TestContradictionsAreRefused(t *testing.T) {
	refused := func(want string, pairs ...string) {
		t.Helper()
		if _, err := combine(pairs...); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %q", pairs, err, want)
		}
	}
	refused("data=a and log.dirs=b are both the data directory: set one of them, or both to the same value", "data", "a", "log.dirs", "b")
	refused("data=a and log.dir=b are both the data directory", "data", "a", "log.dir", "b")
	refused("listen=:1 and listeners=PLAINTEXT://:2 are both the addresses to listen on", "listen", ":1", "listeners", "PLAINTEXT://:2")
	refused("advertise=h:1 and advertised.listeners=PLAINTEXT://h:2 are both", "advertise", "h:1", "advertised.listeners", "PLAINTEXT://h:2")
	refused("id=4 and node.id=5 are both the number of this node", "id", "4", "node.id", "5")
	refused("node.id=5 and broker.id=6 are both the number of this node", "node.id", "5", "broker.id", "6")
	refused("rack=a and broker.rack=b are both the rack of this node", "rack", "a", "broker.rack", "b")
	refused("num.partitions is set twice here, to different values", "num.partitions", "1", "num.partitions", "2")
	for _, pairs := range [][]string{
		{"data", "a", "log.dirs", "a,a", "log.dir", "a"},
		{"listen", ":1", "listeners", "PLAINTEXT://:1"},
		{"advertise", "h:1", "advertised.listeners", "PLAINTEXT://h:1"},
		{"id", "4", "node.id", " 4", "broker.id", "4"},
		{"num.partitions", "2", "num.partitions", "2"},
		{"log.dirs", "a", "log.dir", "b"},
	} {
		if _, err := combine(pairs...); err != nil {
			t.Errorf("%q: %v", pairs, err)
		}
	}
	env := FromEnv([]string{"LEAT_DATA=a", "LEAT_ID=4"})
	later := Source{Values: []Value{{"log.dirs", "b", "--set log.dirs"}, {"node.id", "5", "--set node.id"}}}
	if got, err := Combine(env, later); err != nil || got.Data != "b" || *got.ID != 5 || got.IDFrom != "--set node.id" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestWrongTokenIsNamedOnce proves that the sentence about a wrong join token names its place once.
func TestWrongTokenIsNamedOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Combine(Source{Values: []Value{{"token-file", file, "--token-file"}}})
	if err == nil || !strings.HasPrefix(err.Error(), "--token-file: ") || strings.Count(err.Error(), "token-file") != 1 {
		t.Error(err)
	}
}

// TestHTTPBesideClients proves that HTTP does not get an address that is for clients.
func TestHTTPBesideClients(t *testing.T) {
	for _, pairs := range [][]string{
		{"listen", "127.0.0.1:9444", "http", "127.0.0.1:9444"}, {"listen", ":9444", "http", "127.0.0.1:9444"}, {"http", ":9092"}, {"http", "[::1]:9092"},
	} {
		if _, err := combine(pairs...); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "are the same port of one address: choose another address with --http") {
			t.Errorf("%q: %v", pairs, err)
		}
	}
	for _, pairs := range [][]string{{"listen", ":0", "http", ":0"}, {"listen", ":8080"}, {"listen", "127.0.0.1:9444", "http", "127.0.0.2:9444"}, {"http", "off"}} {
		if _, err := combine(pairs...); err != nil {
			t.Errorf("%q: %v", pairs, err)
		}
	}
}

// TestWrongSettingsAreRefused proves that a wrong setting is refused with a sentence that has
// its place and the reason.
func TestWrongSettingsAreRefused(t *testing.T) {
	f := func(yaml string, want ...string) {
		t.Helper()
		src, err := parseFile("leat.yaml", []byte(yaml))
		if err == nil {
			_, err = Combine(src)
		}
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%q: error %v, want ErrConfig", yaml, err)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %q does not say %q", yaml, err, w)
			}
		}
	}
	f("data: x\nnum.partitons: 3\n", "line 2, column 1", `"num.partitons"`, `did you mean "num.partitions"`)
	f("num.partitions: many\n", "line 1, column 1", "num.partitions")
	f("listen: nowhere\n", "host:port")
	f("listeners: KERBEROS://:9092\n", "KERBEROS", "PLAINTEXT")
	f("id: -3\n", "node id")
	f("advertise: ':9092'\n", "host that clients can reach")
	f("listen: {a: b}\n", "line 1")
	f("- a\n- b\n", "name: value")
	f("data: [a, b]\n", "one data directory")
	f("data:\n", "data is empty", "./leat-data")
	f("data: \"unclosed\n", "not YAML")
}

// TestByteOrderMark proves that a file which begins with a byte order mark can be read.
func TestByteOrderMark(t *testing.T) {
	src, err := parseFile("leat.yaml", []byte("\xef\xbb\xbfrack: r1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Value{{"rack", "r1", "line 1, column 1"}}, src.Values); d != "" {
		t.Error(d)
	}
}

// FuzzConfigFile proves that no file makes the reader panic, and that the settings which it
// reads can be combined or are refused with ErrConfig.
func FuzzConfigFile(f *testing.F) {
	f.Add([]byte("data: x\nlisten: [':1', ':2']\nnum.partitions: 3\n"))
	f.Add([]byte("&a [*a]"))
	f.Add([]byte("listeners=A://:1,B://:2\ncontroller.listener.names=B\nx=\\u0041\\\n"))
	f.Add([]byte("a: |\n  b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := parseFile("f", b)
		if err == nil {
			_, err = Combine(src)
		}
		if err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", b, err)
		}
	})
}

// TestJoinAddresses proves that a node to join can be named by its host alone, or by its port.
func TestJoinAddresses(t *testing.T) {
	for value, want := range map[string]string{
		"localhost": "localhost:9092", "host1, host2:9094": "host1:9092,host2:9094", "9094": "localhost:9094", ":9094": "localhost:9094",
		"10.0.0.7": "10.0.0.7:9092", "[::1]:9094": "[::1]:9094",
	} {
		cfg, err := Combine(Source{Values: []Value{{Name: "join", Value: value, At: "--join"}}})
		if err != nil || strings.Join(cfg.Join, ",") != want {
			t.Errorf("%s: %v, %v", value, cfg.Join, err)
		}
	}
	if _, err := Combine(Source{Values: []Value{{Name: "join", Value: "host:port", At: "--join"}}}); err == nil {
		t.Error("host:port is accepted")
	}
}
