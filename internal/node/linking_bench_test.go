package node

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

const (
	// sourceEnv has TestBenchmarkSource be the source of BenchmarkMirror, with its data in that directory.
	sourceEnv = "LEAT_BENCHMARK_SOURCE"
	// mirroredTopic has mirroredPartitions partitions.
	mirroredTopic      = "mirrored"
	mirroredPartitions = 8
)

// TestBenchmarkSource is the source of BenchmarkMirror, in a process of its own, so that the costs of the mirror are those of the other process. It prints its address, and for each line "BATCHES BYTES" that it reads it writes so
// many batches into the topic, each of one record of so many bytes, and prints a line.
func TestBenchmarkSource(t *testing.T) {
	dir := os.Getenv(sourceEnv)
	if dir == "" {
		t.Skip(sourceEnv + " is not set: only BenchmarkMirror needs it")
	}
	n := start(t, Config{Data: dir, Logger: slog.New(slog.DiscardHandler)})
	cl := client(t, n, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(1<<20), kgo.ProducerLinger(0))
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), mirroredPartitions, 1, nil, mirroredTopic); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stdout, "source "+n.Info().Addresses[0])
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var batches, size int
		if _, err := fmt.Sscan(lines.Text(), &batches, &size); err != nil {
			t.Fatal(err)
		}
		value := make([]byte, size)
		fillRandom(value)
		for i := range batches {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: mirroredTopic, Partition: int32(i % mirroredPartitions), Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintln(os.Stdout, "source has written")
	}
}

func fillRandom(b []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// benchmarkedSource is the process of TestBenchmarkSource.
type benchmarkedSource struct {
	b       *testing.B
	in      io.Writer
	out     *bufio.Scanner
	address string
	ends    int64 // how many records the topic has
}

func startBenchmarkedSource(b *testing.B) *benchmarkedSource {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBenchmarkSource$")
	cmd.Env = append(os.Environ(), sourceEnv+"="+b.TempDir())
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &benchmarkedSource{b: b, in: in, out: bufio.NewScanner(out)}
	b.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out) // else it could not end
		if err := cmd.Wait(); err != nil {
			b.Errorf("the source: %v\n%s", err, said.String())
		}
	})
	s.address = s.await()
	return s
}

// await waits for a line of the source, and returns what it tells.
func (s *benchmarkedSource) await() string {
	s.b.Helper()
	for s.out.Scan() {
		if text, ok := strings.CutPrefix(s.out.Text(), "source "); ok {
			return text
		}
	}
	s.b.Fatal("the source has ended")
	return ""
}

// write has the source write batches.
func (s *benchmarkedSource) write(batches, size int) {
	s.b.Helper()
	if _, err := io.WriteString(s.in, strconv.Itoa(batches)+" "+strconv.Itoa(size)+"\n"); err != nil {
		s.b.Fatal(err)
	}
	s.await()
	s.ends += int64(batches)
}

// BenchmarkMirror measures what a node uses that mirrors, whose source is another process: "behind" reads 64 MiB in batches of 1 MiB that are there already, and "tip" each of 2,000 batches of 1 KiB as it is
// written, one after the other. It reports the CPU seconds of this process for each GB, and for each byte the bytes that it allocates.
//
//	go test -run '^$' -bench Mirror -benchtime 5x ./internal/node
func BenchmarkMirror(b *testing.B) {
	for _, c := range []struct {
		name          string
		batches, size int
		isTip         bool
	}{{"behind", 64, 1<<20 - 200, false}, {"tip", 2000, 1 << 10, true}} {
		b.Run(c.name, func(b *testing.B) {
			there := startBenchmarkedSource(b)
			here := startBenchmarkedMirror(b, there.address)
			there.write(mirroredPartitions, 100)
			here.awaitMirrored(there.ends)
			b.SetBytes(int64(c.batches * c.size))
			b.ReportAllocs()
			var cpu time.Duration
			var allocated uint64
			for b.Loop() {
				b.StopTimer()
				if !c.isTip {
					here.change(cluster.LinkPause)
					there.write(c.batches, c.size)
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				used := process.OwnCPU()
				b.StartTimer()
				if c.isTip {
					there.write(c.batches, c.size)
				} else {
					here.change(cluster.LinkResume)
				}
				here.awaitMirrored(there.ends)
				b.StopTimer()
				cpu += process.OwnCPU() - used
				runtime.ReadMemStats(&after)
				allocated += after.TotalAlloc - before.TotalAlloc
				b.StartTimer()
			}
			all := float64(b.N) * float64(c.batches*c.size)
			b.ReportMetric(cpu.Seconds()/all*1e9, "cpu-s/GB")
			b.ReportMetric(float64(allocated)/all, "allocated-B/B")
		})
	}
}

// benchmarkedMirror is a node that mirrors.
type benchmarkedMirror struct {
	b *testing.B
	n *Node
}

func startBenchmarkedMirror(b *testing.B, from string) *benchmarkedMirror {
	b.Helper()
	n, err := Start(b.Context(), Config{Data: b.TempDir(), Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Stop(ctx)
	})
	m := &benchmarkedMirror{b, n}
	m.change(cluster.LinkCreate, meta.LinkSetting{Key: "bootstrap.servers", Value: from}, meta.LinkSetting{Key: "topics", Value: "*"})
	return m
}

// change changes the link.
func (m *benchmarkedMirror) change(verb cluster.LinkVerb, settings ...meta.LinkSetting) {
	m.b.Helper()
	a, refused, err := m.n.linking.ServeLink(m.b.Context(), &cluster.LinkRequest{Verb: verb, Name: "north", Settings: settings})
	if refused != nil || err != nil || len(a.Problems) > 0 || !a.Changed {
		m.b.Fatalf("%+v, %v, %v", a, refused, err)
	}
}

// awaitMirrored waits until so many records are here, and durable.
func (m *benchmarkedMirror) awaitMirrored(records int64) {
	m.b.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		sum := int64(0)
		for i := range int32(mirroredPartitions) {
			if p := m.n.set.Partition(mirroredTopic, i); p != nil {
				sum += int64(p.HighWatermark())
			}
		}
		if sum == records {
			return
		}
		if time.Now().After(limit) {
			m.b.Fatalf("%d records of %d are here", sum, records)
		}
	}
}
