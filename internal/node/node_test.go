package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// start runs a node on free ports until the test ends.
func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	cfg.Listen, cfg.HTTP = []string{"127.0.0.1:0"}, "127.0.0.1:0"
	if cfg.Settings == nil {
		cfg.Settings = map[string]string{"group.initial.rebalance.delay.ms": "0"}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n
}

func stop(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Stop(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func client(t *testing.T, n *Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(n.Info().Addresses...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// TestRoundTrip proves that a client of another project can create a topic, produce, and
// consume with a group, and that the records and offsets are there after a restart.
func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, Config{Data: dir})
	ctx := deadline(t)
	cl := client(t, n)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 3, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	const records = 500
	for i := range records {
		cl.Produce(ctx, &kgo.Record{Topic: "orders", Key: fmt.Appendf(nil, "k%d", i%17), Value: fmt.Appendf(nil, "v%d", i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consume := func(n *Node, group string) int {
		c := client(t, n, kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		seen := 0
		for seen < records && ctx.Err() == nil {
			fs := c.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			seen += fs.NumRecords()
		}
		if err := c.CommitUncommittedOffsets(ctx); err != nil {
			t.Error(err)
		}
		c.CloseAllowingRebalance()
		return seen
	}
	if got := consume(n, "first"); got != records {
		t.Errorf("consumed %d records of %d", got, records)
	}
	stop(t, n)
	n = start(t, Config{Data: dir})
	if got := consume(n, "second"); got != records {
		t.Errorf("after a restart: consumed %d records of %d", got, records)
	}
	offsets, err := kadm.NewClient(client(t, n)).FetchOffsets(ctx, "first")
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	if sum != records {
		t.Errorf("after a restart the group's offsets add up to %d, want %d", sum, records)
	}
}

// TestForeignDirectoriesAreRefused proves that a directory which this node must not use is
// refused with a sentence that says what to do.
func TestForeignDirectoriesAreRefused(t *testing.T) {
	const cluster = "cluster.id=AAAAAAAAAAAAAAAAAAAAAA\nnode.id=1\n"
	for _, c := range []struct {
		name     string
		before   string // what used the directory: nothing, a node that "stopped" or one that "runs"
		identity string // written over what is there
		id       *int32
		want     string
	}{
		{name: "in use", before: "runs", want: "another leat is running"},
		{name: "of Apache Kafka", identity: "version=1\n" + cluster, want: "Apache Kafka"},
		{name: "of a newer version", identity: "leat.format=99\n" + cluster, want: "newer leat"},
		{name: "of an older format", identity: "leat.format=1\n" + cluster, want: "read its records out with that version"},
		{name: "of another node", identity: "leat.format=2\n" + cluster, id: new(int32(2)), want: "--id asks for 2"},
		{name: "damaged", identity: "leat.format=2\ncluster.id=x\n", want: "damaged"},
		{name: "without its key", identity: "leat.format=3\n" + cluster + keyProperty + "=ed25519:BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", want: keyFile + " is missing; restore it"},
		{name: "with half a key", identity: "leat.format=3\n" + cluster + keyProperty + "=ed25519:AAAA\n", want: "damaged"},
		{name: "with half an id", identity: "leat.format=3\n" + cluster + directoryProperty + "=AAAA\n", want: "damaged"},
		{name: "without a format", identity: "# nothing", want: "has no leat.format"},
		{name: "mixed", before: "stopped", identity: "leat.format=2\n" + cluster, want: "two clusters were mixed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.before != "" {
				if n := start(t, Config{Data: dir}); c.before == "stopped" {
					stop(t, n)
				}
			}
			if c.identity != "" {
				if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(c.identity), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n, err := Start(t.Context(), Config{Data: dir, ID: c.id, Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
			if err == nil {
				stop(t, n)
				t.Fatal("it started")
			}
			if !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
		})
	}
}

// TestTakenPort proves that the error about a port in use names the port and the flag that
// changes it.
func TestTakenPort(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().String()
	_, err = Start(t.Context(), Config{Data: t.TempDir(), Listen: []string{taken}, HTTP: "off"})
	if err == nil || !strings.Contains(err.Error(), taken) || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("error %v names not both %s and --listen", err, taken)
	}
	_, err = Start(t.Context(), Config{Data: t.TempDir(), Listen: []string{"127.0.0.1:0"}, HTTP: taken})
	if err == nil || !strings.Contains(err.Error(), taken) || !strings.Contains(err.Error(), "--http") {
		t.Errorf("error %v names not both %s and --http", err, taken)
	}
}

// TestHTTP proves that health, metrics and profiles are served.
func TestHTTP(t *testing.T) {
	n := start(t, Config{Data: t.TempDir()})
	cl := client(t, n)
	if err := cl.Ping(deadline(t)); err != nil {
		t.Fatal(err)
	}
	f := func(path, want string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.Info().HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(want)) {
			t.Errorf("%s: status %s, error %v, and the body does not say %q", path, resp.Status, err, want)
		}
	}
	f("/healthz", "ok")
	f("/readyz", "ready")
	f("/metrics", `leat_requests_total{api="ApiVersions"}`)
	f("/metrics", "leat_connections 1")
	f("/metrics", "leat_disk_full 0")
	f("/metrics", "leat_journal_damaged 0")
	f("/metrics", "leat_directories_set_aside 0")
	f("/debug/pprof/", "goroutine")
	if resp, err := http.Get("http://" + n.Info().HTTP + "/debug/pprof/cmdline"); err != nil || resp.StatusCode != http.StatusNotFound { // it may have a join token
		t.Error("the command line is told:", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}
