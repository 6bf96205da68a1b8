package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// TestSecured proves that the rows of security measure what they say, of Leat, and of Apache Kafka where KAFKA_HOME names one: clients log in by each
// mechanism and show certificates, sessions of TLS are resumed where they should be and nowhere else, and a client without a login may use its
// topics and no others.
func TestSecured(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	leat := filepath.Join(t.TempDir(), "leat")
	build := exec.Command("go", "build", "-o", leat, "./cmd/leat")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	programs := map[string]*server.Program{"leat": leatSecuredProgram(leat)}
	if home := os.Getenv("KAFKA_HOME"); workload.KafkaMissing(home) == "" {
		programs["Apache Kafka"] = kafkaSecuredProgram(home)
	}
	for name, p := range programs {
		t.Run(name, func(t *testing.T) { testSecured(t, p) })
	}
}

func testSecured(t *testing.T, p *server.Program) {
	t.Helper()
	srv, err := p.Start(t.Context(), filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	for _, w := range securityRows() {
		o := workload.Defaults()
		w.set(&o)
		o.Brokers, o.Data, o.PIDs, o.Topic, o.Duration = []string{srv.Addr}, srv.Dir, []int{srv.PID()}, "bench-1", 300*time.Millisecond
		switch {
		case w.topic != fresh || w.name == securityProduce || w.name == securityProduceFew || w.name == securityFranz:
			continue
		case w.name == securityIdle:
			o.Connections, o.Settle = 20, 0
		}
		r, err := w.run(t.Context(), o)
		if err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if s := r.Step(workload.ConnectionsResumed); s != nil && (s.Requests > 0) != (w.name == securityResumed) {
			t.Errorf("%s: %d of %d sessions were resumed", w.name, s.Requests, r.Requests)
		}
		if r.Requests < 1 || r.Server == nil || r.Server.CPU <= 0 && w.name != securityIdle {
			t.Errorf("%s: %+v", w.name, r)
		}
	}
	o := workload.Defaults()
	o.Brokers, o.Topic, o.Partitions, o.Replication, o.Records, o.Duration = []string{srv.Addr}, "bench-1", 1, 1, 1000, 0
	if err := bench.MakeTopic(t.Context(), &o.Options); err != nil {
		t.Fatal(err)
	}
	if r, err := workload.Produce(t.Context(), o); err != nil || r.Records < 1000 { // batches are whole
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := workload.Consume(t.Context(), o); err != nil || r.Records < 1000 {
		t.Errorf("%+v, %v", r, err)
	}
	o.Data, o.Entry = srv.Dir, workload.EntryTLS
	if r, err := workload.FranzClient(t.Context(), o); err != nil || r.Records != 1000 || r.Step(workload.ClientConsume).Records != 1000 {
		t.Errorf("over TLS: %+v, %v", r, err)
	}
	o.Entry, o.Topic = workload.EntryOpen, "other"
	if err := bench.MakeTopic(t.Context(), &o.Options); err == nil || !strings.Contains(err.Error(), "AUTHORIZATION_FAILED") {
		t.Errorf("a topic of others: %v", err)
	}
	// A wrong password, and a wrong certificate, must not be measured as logins.
	s, err := workload.ReadSecured(srv.Dir)
	if err != nil {
		t.Fatal(err)
	}
	good := *s
	s.Password, s.TokenHMAC, s.JWT = "wrong", "wrong", strings.TrimSuffix(s.JWT, s.JWT[len(s.JWT)-20:])
	if err := s.Write(srv.Dir); err != nil {
		t.Fatal(err)
	}
	o.Data, o.Entry, o.Duration = srv.Dir, workload.EntryLogin, 300*time.Millisecond // so that at least one connection is made
	for _, o.Mechanism = range []string{workload.ByPlain, workload.BySHA256, workload.BySHA512, workload.ByOAuth, workload.ByDelegation} {
		if r, err := workload.Connections(t.Context(), o); err == nil {
			t.Errorf("%s with a wrong secret: %+v", o.Mechanism, r)
		}
	}
	if err := good.Write(srv.Dir); err != nil {
		t.Fatal(err)
	}
}
