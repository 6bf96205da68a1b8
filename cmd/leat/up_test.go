//go:build unix

package main_test

import (
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestVersion proves that the binary tells its version to people and to programs. It tells the
// commit, too, if the Go tool knows it, as in a clone.
func TestVersion(t *testing.T) {
	t.Parallel()
	var versions [2]string
	for i, args := range []string{"version", "--version"} {
		out, err := exec.Command(leat, args).Output()
		if err != nil {
			t.Fatal(err)
		}
		versions[i] = string(out)
	}
	out, err := exec.Command(leat, "version", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Version, Revision, Go string }
	if err := json.Unmarshal(out, &v); err != nil || v.Version == "" || v.Go == "" {
		t.Errorf("leat version -o json: %v, %s", err, out)
	}
	commit := "commit unknown"
	if info, err := buildinfo.ReadFile(leat); err != nil {
		t.Fatal(err)
	} else if i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" }); i >= 0 {
		commit = "commit " + info.Settings[i].Value[:12]
		if v.Revision != info.Settings[i].Value {
			t.Errorf("the revision is %s, want %s", v.Revision, info.Settings[i].Value)
		}
	}
	if versions[0] != versions[1] || !strings.HasPrefix(versions[0], "leat") || !strings.Contains(versions[0], commit) {
		t.Errorf("leat version and leat --version say %q; want one sentence with %q", versions, commit)
	}
}

// TestUnknownVerb proves that a misspelt verb ends with an exit status that scripts see.
func TestUnknownVerb(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(leat, "tpoic", "list").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "tpoic") {
		t.Errorf("leat tpoic: error %v, output %q; want a failure that names it", err, out)
	}
}

// TestFirstStart proves that a node can start on a directory that does not exist. It serves, says
// where, and does not show the secret of the cluster.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "data")
	p := up(t, dir)
	cl := p.client(t)
	if err := cl.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address line", func() bool { return strings.Contains(p.out.String(), "data in") })
	for _, want := range []string{p.addr, dir, "this machine only"} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, p.out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "meta.properties")); err != nil {
		t.Error(err)
	}
	p.stop(t)
	text, err := os.ReadFile(filepath.Join(dir, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "private=")
	line, _, _ = strings.Cut(line, "\n")
	secret, err := base64.RawURLEncoding.DecodeString(line)
	if err != nil || len(secret) != 32 {
		t.Fatalf("%d bytes, %v", len(secret), err)
	}
	for i := range 3 { // the text in base64 depends on where the key begins within three bytes
		text := base64.RawURLEncoding.EncodeToString(secret[i:])
		if out := p.out.String(); strings.Contains(out, text[:16]) || strings.Contains(out, hex.EncodeToString(secret[:8])) {
			t.Error("the node's key is shown")
		}
	}
}

// TestHTTPPort proves that health and metrics are served beside Kafka's port.
func TestHTTPPort(t *testing.T) {
	t.Parallel()
	web := freeAddr(t)
	p := launch(t, t.TempDir(), freeAddr(t), "--http", web)
	p.awaitReady(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/"} {
		eventually(t, path, func() bool { return httpOK("http://" + web + path) })
	}
	resp, err := http.Get("http://" + web + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/"} {
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(page), path) {
			t.Errorf("the page / does not name %s: %v, %v, %q", path, err, resp.Status, page)
		}
	}
	if httpOK("http://" + web + "/nothing") {
		t.Error("a path that does not exist is answered with success")
	}
}

// TestRefusals proves that a node that cannot start says in one sentence why, and what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().String()
	used := t.TempDir()
	first := up(t, used)
	web, once := freeAddr(t), t.TempDir()
	up(t, once).stop(t)
	kafka := t.TempDir()
	write(t, filepath.Join(kafka, "meta.properties"), "version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\nnode.id=1\n")
	newer := t.TempDir()
	old := up(t, newer)
	old.stop(t)
	change(t, filepath.Join(newer, "meta.properties"), "leat.format=", "leat.format=9")
	config := filepath.Join(t.TempDir(), "leat.yaml")
	write(t, config, "num.partitions: 3\nnum.partitoins: 4\n")

	for _, tc := range []struct {
		name string
		dir  string
		addr string
		args []string
		code int
		says []string
	}{
		{"port taken", t.TempDir(), port, []string{"--http", "off"}, 1, []string{port, "--listen"}},
		{"http port taken", t.TempDir(), freeAddr(t), []string{"--http", port}, 1, []string{port, "--http"}},
		{"directory in use", used, freeAddr(t), []string{"--http", "off"}, 1, []string{used, "another leat", "--data"}},
		{"directory of Apache Kafka", kafka, freeAddr(t), []string{"--http", "off"}, 1, []string{kafka, "Kafka", "--data"}},
		{"directory of a newer version", newer, freeAddr(t), []string{"--http", "off"}, 1, []string{newer, "newer"}},
		{"unknown config", t.TempDir(), freeAddr(t), []string{"--http", "off", "--set", "no.such.config=1"}, 2, []string{"no.such.config"}},
		{"bad config", t.TempDir(), freeAddr(t), []string{"--http", "off", "--set", "num.partitions=many"}, 2, []string{"num.partitions", "many"}},
		{"config file", t.TempDir(), freeAddr(t), []string{"--http", "off", "--config", config}, 2, []string{config, "num.partitoins", "2"}},
		{"address of another machine", t.TempDir(), "192.0.2.1:9092", []string{"--http", "off"}, 1, []string{"cannot listen on 192.0.2.1:9092: this machine does not have the address 192.0.2.1", "--listen"}},
		{"HTTP address of another machine", t.TempDir(), freeAddr(t), []string{"--http", "192.0.2.1:8080"}, 1, []string{"this machine does not have the address 192.0.2.1", "--http"}},
		{"one port for clients and HTTP", t.TempDir(), web, []string{"--http", web}, 2, []string{web, "for clients", "for health and metrics", "--http"}},
		{"two directories", t.TempDir(), freeAddr(t), []string{"--http", "off", "--set", "log.dirs=b"}, 2, []string{"--set log.dirs: data=/", "and log.dirs=b are both the data directory"}},
		{"two lists of addresses", t.TempDir(), "127.0.0.1:9444", []string{"--http", "off", "--set", "listeners=PLAINTEXT://:9447"}, 2, []string{"listen=127.0.0.1:9444 and listeners=PLAINTEXT://:9447 are both the addresses to listen on"}},
		{"two ids", t.TempDir(), freeAddr(t), []string{"--http", "off", "--id", "4", "--set", "node.id=5"}, 2, []string{"id=4 and node.id=5 are both the number of this node"}},
		{"id of another node", once, freeAddr(t), []string{"--http", "off", "--set", "node.id=7"}, 1, []string{"it belongs to node 1, and --set node.id asks for 7; leave --set node.id out"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := launch(t, tc.dir, tc.addr, tc.args...)
			p.awaitEnd(t)
			text := p.out.String()
			if p.exitCode() != tc.code {
				t.Errorf("exit status %d, want %d", p.exitCode(), tc.code)
			}
			if strings.Contains(text, "bad setting") || strings.Contains(text, "listen tcp") {
				t.Errorf("it has words that mean nothing to people:\n%s", text)
			}
			for _, want := range tc.says {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
			if lines := strings.Count(strings.TrimSpace(text), "\n") + 1; lines > 2 {
				t.Errorf("it says it in %d lines:\n%s", lines, text)
			}
		})
	}
	if err := ping(first.addr); err != nil {
		t.Errorf("the node whose directory others wanted does not serve any more: %v", err)
	}
}

// TestStopAndStart proves that SIGTERM ends a node within seconds, even while clients wait for
// records, and that a second start has all data.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := up(t, dir)
	const records = 1000
	adm := kadm.NewClient(p.client(t))
	if _, err := adm.CreateTopic(t.Context(), 3, 1, map[string]*string{"retention.ms": new("-1")}, "kept"); err != nil {
		t.Fatal(err)
	}
	producer := p.client(t, kgo.DefaultProduceTopic("kept"))
	for i := range records {
		producer.Produce(t.Context(), kgo.StringRecord(fmt.Sprint(i)), nil)
	}
	if err := producer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	member := p.client(t, kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("kept"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	for got := 0; got < records; {
		fetches := member.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if err := member.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.stop(t) // the member's next fetch is waiting at the broker
	t.Logf("stopped %v after SIGTERM", time.Since(began))

	began = time.Now()
	p = upAt(t, dir, freeAddr(t))
	t.Logf("the second start answered after %v", time.Since(began))
	adm = kadm.NewClient(p.client(t))
	offsets, err := adm.FetchOffsets(t.Context(), "readers")
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	if sum != records {
		t.Errorf("the group's offsets add up to %d, want %d", sum, records)
	}
	if got := readAll(t, p, "kept", records); len(got) != records {
		t.Errorf("%d records after the restart, want %d", len(got), records)
	}
	configs, err := adm.DescribeTopicConfigs(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "retention.ms" && c.MaybeValue() != "-1" {
			t.Errorf("retention.ms is %s after the restart, want -1", c.MaybeValue())
		}
	}
	p.stop(t)
}
