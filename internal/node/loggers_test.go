package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// lines keeps the lines of a log, and signals each new one.
type lines struct {
	mu    sync.Mutex
	b     bytes.Buffer // guarded by mu
	wrote chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// has waits until a line with this text was written.
func (l *lines) has(t *testing.T, text string) {
	t.Helper()
	for ctx := deadline(t); ; {
		if strings.Contains(l.String(), text) {
			return
		}
		select {
		case <-l.wrote:
		case <-ctx.Done():
			t.Fatalf("no line says %q", text)
		}
	}
}

// TestLoggers proves that a logger without a level of its own has the root's, that one of its
// own comes before that, and that it can be taken away again.
func TestLoggers(t *testing.T) {
	var b bytes.Buffer
	ls := newLoggers(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.LevelWarn)
	storage, wire := ls.loggerOf("storage").With("dir", "d").WithGroup("g"), ls.loggerOf("wire")
	f := func(want string) {
		t.Helper()
		b.Reset()
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			storage.Log(t.Context(), l, "s")
			wire.Log(t.Context(), l, "w")
		}
		var got []string
		for line := range strings.Lines(b.String()) {
			_, rest, _ := strings.Cut(line, " ")
			got = append(got, strings.TrimSpace(rest))
		}
		if got := strings.Join(got, "; "); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	s, w := " msg=s logger=storage dir=d", " msg=w logger=wire"
	f("level=WARN" + s + "; level=WARN" + w + "; level=ERROR" + s + "; level=ERROR" + w)
	info, silent := slog.LevelInfo, slog.LevelError+4
	ls.setLevel("storage", &info)
	ls.setLevel("wire", &silent)
	f("level=INFO" + s + "; level=WARN" + s + "; level=ERROR" + s)
	ls.setLevel("wire", nil)
	ls.setLevel(rootLogger, &silent)
	f("level=INFO" + s + "; level=WARN" + s + "; level=ERROR" + s)
	ls.setLevel("storage", nil)
	f("")
	if got := ls.effectiveLevels()["storage"]; got != silent {
		t.Errorf("storage's level is %v", got)
	}
}

// TestBrokerLoggers proves that a client can set the levels of a running node's loggers, which
// takes effect and is shown, and that limits of connections take effect while the node runs.
func TestBrokerLoggers(t *testing.T) {
	out := &lines{wrote: make(chan struct{}, 1)}
	n := start(t, Config{Data: t.TempDir(), Logger: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	ctx := deadline(t)
	cl := client(t, n)
	set := func(kind kmsg.ConfigResourceType, config, value string) {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kind, "1"
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Value = config, &value
		r.Configs = append(r.Configs, c)
		req.Resources = append(req.Resources, r)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil || resp.Resources[0].ErrorCode != 0 {
			t.Fatalf("%s=%s: %v, %+v", config, value, err, resp)
		}
	}
	set(kmsg.ConfigResourceTypeBrokerLogger, "wire", "DEBUG")
	conn, err := net.Dial("tcp", n.Info().Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	out.has(t, "level=DEBUG msg=\"connection ended\" logger=wire")
	set(kmsg.ConfigResourceTypeBrokerLogger, "storage", "TRACE")
	out.has(t, "msg=\"a log level was changed\" logger=root of=storage level=TRACE") // in the words of the request
	set(kmsg.ConfigResourceTypeBrokerLogger, "storage", "INFO")
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBrokerLogger, "1"
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	shown := ""
	for _, c := range resp.Resources[0].Configs {
		shown += c.Name + "=" + *c.Value + " "
	}
	if want := "audit=INFO broker=INFO cluster=INFO group=INFO mirror=INFO quorum=INFO replica=INFO root=INFO storage=INFO txn=INFO wire=DEBUG "; shown != want {
		t.Errorf("levels are %s, want %s", shown, want)
	}
	set(kmsg.ConfigResourceTypeBroker, "max.connections.per.ip.overrides", "127.0.0.1:1")
	if conn, err = net.Dial("tcp", n.Info().Addresses[0]); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the node has closed it
	out.has(t, "max.connections.per.ip allows")
}

// TestWarningsAreBounded proves that however often clients cause a warning, it is not written
// more often than it may, that other warnings and errors are written beside it, and that a later
// line tells how many were dropped.
func TestWarningsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		broker := newLoggers(slog.NewTextHandler(&b, nil), slog.LevelInfo).loggerOf("broker")
		for i := range 1000 {
			broker.With("i", i).Warn("often", "topic", i)
			broker.Error("bad")
		}
		broker.Warn("once")
		often, bad, once := strings.Count(b.String(), "msg=often"), strings.Count(b.String(), "msg=bad"), strings.Count(b.String(), "msg=once")
		if often != lineBurst || bad != 1000 || once != 1 {
			t.Errorf("%d, %d and %d lines", often, bad, once)
		}
		time.Sleep(linePeriod)
		b.Reset()
		broker.Warn("often")
		if want := fmt.Sprintf("lines_dropped=%d", 1000-lineBurst); !strings.Contains(b.String(), want) {
			t.Errorf("%q does not say %s", b.String(), want)
		}
	})
}
