//go:build unix

package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// told asks a broker where the node is, by three APIs.
func told(t *testing.T, addr string) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	seed := cl.SeedBrokers()[0]
	join := func(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	var all []string
	for _, req := range []kmsg.Request{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrDescribeClusterRequest(), coordinatorOf("g")} {
		resp, err := seed.Request(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		switch r := resp.(type) {
		case *kmsg.MetadataResponse:
			all = append(all, join(r.Brokers[0].Host, r.Brokers[0].Port))
		case *kmsg.DescribeClusterResponse:
			all = append(all, join(r.Brokers[0].Host, r.Brokers[0].Port))
		case *kmsg.FindCoordinatorResponse:
			all = append(all, join(r.Coordinators[0].Host, r.Coordinators[0].Port))
		}
	}
	return all
}

func coordinatorOf(group string) *kmsg.FindCoordinatorRequest {
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.CoordinatorKeys = []string{group}
	return r
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// TestTwoListeners proves that the usual set-up of two listeners works by flags and by Kafka's
// configs: one listener is for containers and one for the host. A client is told the address of the
// listener that it uses, and can produce and consume there. Without an advertised address the
// client is told the address by which it came.
func TestTwoListeners(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]func(in, out string) []string{
		"flags": func(in, out string) []string {
			return []string{"--listen", "INSIDE=" + in, "--listen", "OUTSIDE=" + out, "--advertise", "OUTSIDE=localhost:" + portOf(out)}
		},
		"configs": func(in, out string) []string {
			return []string{
				"--set", "listeners=INSIDE://" + in + ",OUTSIDE://" + out, "--set", "advertised.listeners=OUTSIDE://localhost:" + portOf(out),
				"--set", "listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT", "--set", "inter.broker.listener.name=INSIDE",
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, out := freeAddr(t), freeAddr(t)
			dir := t.TempDir()
			p := &process{addr: in, cmd: exec.Command(leat, append([]string{"up", "--data", dir, "--http", "off"}, args(in, out)...)...)}
			p.start(t, dir)
			p.awaitReady(t)
			for addr, want := range map[string]string{in: in, out: "localhost:" + portOf(out)} {
				for _, got := range told(t, addr) {
					if got != want {
						t.Errorf("by %s a client is told %s, want %s", addr, got, want)
					}
				}
				cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"),
					kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
				if err != nil {
					t.Fatal(err)
				}
				if err := cl.ProduceSync(t.Context(), kgo.StringRecord("by "+addr)).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if fs := cl.PollFetches(t.Context()); fs.Err() != nil || fs.NumRecords() == 0 {
					t.Errorf("by %s nothing is read: %v", addr, fs.Err())
				}
				cl.Close()
			}
			p.stop(t)
		})
	}
}

// TestWhatRunsIsShown proves that DescribeConfigs shows the settings that the node runs with as
// static configs, by whichever name and in whichever way they were set.
func TestWhatRunsIsShown(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	addr := freeAddr(t)
	p := upAt(t, dir, addr, "--id", "7", "--rack", "r1", "--advertise", "localhost:"+portOf(addr))
	configs, err := kadm.NewClient(p.client(t)).DescribeBrokerConfigs(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, c := range configs[0].Configs {
		shown[c.Key] = c.MaybeValue() + " from " + c.Source.String()
	}
	for name, want := range map[string]string{
		"node.id": "7", "broker.id": "7", "broker.rack": "r1", "log.dirs": dir, "listeners": "PLAINTEXT://" + p.addr,
		"advertised.listeners": "PLAINTEXT://localhost:" + portOf(addr),
	} {
		if want += " from STATIC_BROKER_CONFIG"; shown[name] != want {
			t.Errorf("%s is %s, want %s", name, shown[name], want)
		}
	}
}

// TestNodeZero proves that 0 is a node id like any other, for topics and for groups, at the first
// start and at later ones.
func TestNodeZero(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 2 {
		p := up(t, dir, "--id", "0")
		cl := p.client(t, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"), kgo.ConsumerGroup(fmt.Sprint("g", i)),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		got := 0
		for got < i+1 {
			fs := cl.PollFetches(t.Context())
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			got += fs.NumRecords()
		}
		if err := cl.CommitUncommittedOffsets(t.Context()); err != nil {
			t.Error(err)
		}
		m, err := kadm.NewClient(cl).Metadata(t.Context())
		if err != nil || m.Controller != 0 || m.Brokers[0].NodeID != 0 || m.Topics["t"].Partitions[0].Leader != 0 {
			t.Errorf("%+v, %v", m, err)
		}
		cl.Close()
		p.stop(t)
	}
	p := launch(t, dir, freeAddr(t), "--http", "off", "--id", "1")
	p.awaitEnd(t)
	if !strings.Contains(p.out.String(), "it belongs to node 0, and --id asks for 1") {
		t.Error(p.out)
	}
}

// TestNothingIsFeigned proves that a node does not start with addresses that nobody can use, or
// with protections that it does not have. A running node refuses such protections, too, and logs
// which configs of a topic have no effect.
//
// No value that may be a secret is printed.
func TestNothingIsFeigned(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ arg, value, says string }{
		{"--advertise", "0.0.0.0:9092", "no client can connect to it: write the name or address by which clients reach this machine"},
		{"--advertise", "[::]:9092", "no client can connect to it"},
		{"--advertise", "localhost:0", "no client can connect to port 0"},
		{"--set", "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "authorizer.class.name needs super.users"},
		{"--set", "allow.everyone.if.no.acl.found=false", "asks for ACLs"},
		{"--set", "ssl.client.auth=required", "ssl.client.auth=required asks for TLS"},
		{"--set", "listener.name.plaintext.ssl.client.auth=requested", "asks for TLS"},
		{"--set", "sasl.enabled.mechanisms=PLAIN", "asks for a login, and no listener does"},
		{"--set", "sasl.jaas.config=" + secretValue, "sasl.jaas.config has no effect"},
		{"--bootstrap-user", ":" + secretValue, "write NAME:PASSWORD"},
		{"--bootstrap-user", "admin", "bootstrap-user has no password"},
		{"--set", "super.users=User:admin", "asks for ACLs"},
		{"--set", "sasl.oauthbearer.client.credentials.client.secret=" + secretValue, "sasl.oauthbearer.client.credentials.client.secret=[hidden] asks for authentication"},
		{"--set", "security.inter.broker.protocol=SSL", "this node has no such listener"},
		{"--set", "process.roles=controller", "a node is always a broker"},
	} {
		p := launch(t, t.TempDir(), freeAddr(t), "--http", "off", c.arg, c.value)
		p.awaitEnd(t)
		text, hint, _ := strings.Cut(strings.TrimSpace(p.out.String()), "\n")
		if hint != "Run 'leat up --help' for how to use it." {
			t.Errorf("%s %s: %s", c.arg, c.value, hint)
		}
		if p.exitCode() == 0 || !strings.Contains(text, c.says) || strings.Contains(text, secretValue) {
			t.Errorf("%s %s ends with %d: %s", c.arg, c.value, p.exitCode(), text)
		}
	}
	dir := t.TempDir()
	p := &process{cmd: exec.Command(leat, "up", "--data", dir, "--http", "off", "--set", "listener.security.protocol.map=PLAINTEXT:SSL")}
	p.start(t, dir)
	p.awaitEnd(t)
	if want := "listener PLAINTEXT: there is no key: set ssl.keystore.type=PEM"; p.exitCode() == 0 || !strings.Contains(p.out.String(), want) {
		t.Errorf("the default listener with SSL ends with %d: %s", p.exitCode(), p.out)
	}
	p = up(t, t.TempDir(), "--set", "num.io.threads=16")
	adm := kadm.NewClient(p.client(t))
	answers, err := adm.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Name: "sasl.enabled.mechanisms", Value: new("PLAIN")}}, 1)
	if err != nil || answers[0].Err == nil || !strings.Contains(answers[0].ErrMessage, "counts only when a node starts") {
		t.Errorf("while it runs: %+v, %v", answers, err)
	}
	if _, err := adm.CreateTopic(t.Context(), 1, 1, map[string]*string{"errors.deadletterqueue.group.enable": new("true")}, "letters"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"errors.deadletterqueue.group.enable has no effect yet: it needs share groups", "num.io.threads has no effect here, for the reasons in docs/configs.md"} {
		eventually(t, want, func() bool { return strings.Contains(p.out.String(), want) })
	}
}

// TestLogSettings proves that the environment sets the log's level and format, that flags override
// the environment, and that the name of a misspelt variable is printed.
func TestLogSettings(t *testing.T) {
	t.Parallel()
	run := func(env []string, args ...string) string {
		dir, addr := t.TempDir(), freeAddr(t)
		p := &process{addr: addr, cmd: exec.Command(leat, append([]string{"up", "--data", dir, "--listen", addr, "--http", "off"}, args...)...)}
		p.cmd.Env = append(os.Environ(), env...)
		p.start(t, dir)
		p.awaitReady(t)
		p.stop(t)
		return p.out.String()
	}
	misspelt := regexp.MustCompile(`(?m)^time=.*level=WARN .*LEAT_LOGLEVEL.*did you mean .*LEAT_LOG_LEVEL`)
	if text := run([]string{"LEAT_LOG_FORMAT=text", "LEAT_LOGLEVEL=debug"}); !misspelt.MatchString(text) {
		t.Errorf("a misspelt variable:\n%s", text)
	}
	if text := run([]string{"LEAT_LOG_LEVEL=error", "LEAT_NONSENSE=1"}); strings.Contains(text, "WARN") {
		t.Errorf("below the level:\n%s", text)
	}
	if text := run([]string{"LEAT_LOG_LEVEL=error", "LEAT_NONSENSE=1"}, "--log-level", "warn", "--log-format", "json"); !strings.Contains(text, `"level":"WARN"`) {
		t.Errorf("a flag over a variable:\n%s", text)
	}
}

// TestLogTellsWhatHappens proves that the log tells when a node starts and stops, which topics are
// created and deleted, and what else has records or offsets deleted.
func TestLogTellsWhatHappens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := up(t, dir)
	do(t, p.addr, "", "topic", "create", "orders", "--partitions", "3")
	do(t, p.addr, "a\nb\n", "produce", "orders")
	do(t, p.addr, "", "consume", "orders", "--group", "readers", "--exit")
	do(t, p.addr, "", "group", "delete", "readers")
	do(t, p.addr, "", "topic", "alter", "orders", "--set", "retention.ms=60000")
	do(t, p.addr, "", "topic", "add-partitions", "orders", "4")
	do(t, p.addr, "", "topic", "trim", "orders", "--before", "end")
	do(t, p.addr, "", "cluster", "log-level", "storage=ERROR")
	do(t, p.addr, "", "topic", "delete", "orders")
	p.stop(t)
	for _, want := range []string{
		`"msg":"the node has started","logger":"root","node":1,`, `"addresses":["` + p.addr + `"],"data":"` + dir + `"}`,
		`"msg":"a topic was created","logger":"root","topic":"orders","partitions":3}`, `"msg":"a topic was deleted","logger":"root","topic":"orders"}`,
		`"msg":"a group was deleted"`, `"group":"readers"`, `"msg":"configs were changed"`, `"set":["retention.ms=60000"],"unset":[]`,
		`"msg":"a topic has more partitions"`, `"partitions":7,"before":3`, `"msg":"records were deleted by a client"`, `"below":`,
		`"msg":"a log level was changed"`, `"of":"storage","level":"ERROR"`,
		`"msg":"the node is stopping"`, `"msg":"the node has stopped"`,
	} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("the log does not tell %s:\n%s", want, p.out)
		}
	}
}

// secretValue must not be printed.
const secretValue = "geheim"
