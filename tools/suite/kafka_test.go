package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/workload"
)

// TestKafka proves that transactions and compaction are measured with Apache Kafka as with Leat: its transactions are committed,
// and its cleaner's log is read. It needs java, and Kafka in KAFKA_HOME.
func TestKafka(t *testing.T) {
	home := os.Getenv("KAFKA_HOME")
	if why := workload.KafkaMissing(home); why != "" {
		t.Skip(why)
	}
	p := kafkaCleanerProgram(home)
	o := workload.CompactionDefaults()
	o.Topic, o.Records, o.Keys = "compaction", 120_000, 5_000
	r, err := workload.Compaction(t.Context(), p, filepath.Join(t.TempDir(), "compaction"), o)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Step(workload.CompactionClean); s == nil || s.Seconds <= 0 || s.Requests != 1 || s.Bytes < 10_000_000 || s.Bytes > 12_000_000 {
		t.Errorf("%+v", s)
	}
	srv, err := p.Start(t.Context(), filepath.Join(t.TempDir(), "transactions"))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	o = workload.Defaults()
	o.Brokers, o.PIDs, o.Topic = []string{srv.Addr}, []int{srv.PID()}, "transactions"
	o.Producers, o.Partitions, o.Batch, o.Size, o.Rate, o.Duration = 2, 2, 10, 20, 20, time.Second
	o.Configs = []string{"flush.messages=1"}
	if err := bench.MakeTopic(t.Context(), &o.Options); err != nil {
		t.Fatal(err)
	}
	if r, err = workload.Transactions(t.Context(), o); err != nil || r.Requests != 20 || r.Ack.Count != 20 {
		t.Errorf("%+v, %v", r, err)
	}
}
