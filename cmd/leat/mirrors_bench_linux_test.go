package main_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	meter "github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/wan"
)

const (
	mirrorDelay      = 40 * time.Millisecond // each way
	mirrorPartitions = 8
	mirrorPort       = 9092
	mirrorWithin     = 5 * time.Minute // for anything
	caughtUpBytes    = 128 << 20       // that are written as fast as possible, in batches of recordsOfBatch records of 1 KiB
	recordsOfBatch   = 500
	staleRecords     = 2000 // that are written one by one
	staleEvery       = 5 * time.Millisecond
)

// BenchmarkMirrors compares what it costs to mirror a topic from one site to another one at 80 ms of round trip: by a link, and by MirrorMaker 2, which needs Java and the jars of Apache Kafka and its connect-mirror in
// KAFKA_HOME. Source and target are the same nodes of Leat in both cases. It reports the CPU seconds for each GB, at the site that mirrors (the node, and MirrorMaker's process) and at the source, how many bytes a second
// come, and how long after its writer had made it a record could be read at the other site. It needs root and /dev/net/tun, and a machine that does nothing else:
//
//	KAFKA_HOME=... go test -run '^$' -bench Mirrors -benchtime 3x ./cmd/leat
func BenchmarkMirrors(b *testing.B) {
	for name, start := range map[string]func(m *mirrorBench){"link": (*mirrorBench).startLink, "MirrorMaker 2": (*mirrorBench).startMirrorMaker} {
		b.Run(name, func(b *testing.B) {
			m := newMirrorBench(b)
			start(m)
			m.produce(1, 1)
			m.await()
			var cost, there, rate float64
			var stale []time.Duration
			for b.Loop() {
				c, t, r := m.catchUp()
				cost, there, rate = cost+c, there+t, rate+r
				stale = append(stale, m.readStale()...)
			}
			n := float64(b.N)
			b.ReportMetric(cost/n, "mirror-cpu-s/GB")
			b.ReportMetric(there/n, "source-cpu-s/GB")
			b.ReportMetric(rate/n/1e6, "MB/s")
			slices.Sort(stale)
			b.ReportMetric(float64(stale[len(stale)/2].Microseconds())/1000, "p50-stale-ms")
			b.ReportMetric(float64(stale[len(stale)*99/100].Microseconds())/1000, "p99-stale-ms")
			if k := m.network.Counters(m.there.site, m.here.site); k.Overflowed > 0 {
				b.Errorf("the emulator was too slow: %+v", k)
			}
		})
	}
}

// mirrorBench is two sites with a node each.
type mirrorBench struct {
	b           *testing.B
	network     *wan.Network
	there, here *mirrorNode
	topic       string // of the mirror
	pids        []int  // of all that mirrors
	written     int64  // records
}

type mirrorNode struct {
	site   *wan.Site
	data   string
	addr   string
	pid    int
	client *kgo.Client
}

func newMirrorBench(b *testing.B) *mirrorBench {
	b.Helper()
	network, err := wan.New(b.Context(), wan.Config{Sites: []string{"north", "south"}, Kind: wan.Namespaces})
	if errors.Is(err, wan.ErrUnavailable) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := network.Close(); err != nil {
			b.Error(err)
		}
	})
	m := &mirrorBench{b: b, network: network}
	m.there, m.here = m.startNode("north"), m.startNode("south")
	m.pids = []int{m.here.pid}
	network.SetBetween(m.there.site, network.Sites(), wan.Settings{Delay: mirrorDelay})
	if _, err := kadm.NewClient(m.there.client).CreateTopic(b.Context(), mirrorPartitions, 1, nil, "load"); err != nil {
		b.Fatal(err)
	}
	return m
}

func (m *mirrorBench) startNode(name string) *mirrorNode {
	m.b.Helper()
	site := m.network.Site(name)
	n := &mirrorNode{site: site, data: m.b.TempDir(), addr: site.At(mirrorPort)}
	n.pid = m.run(site, "leat up", exec.Command(leat, "up", "--data", n.data, "--listen", n.addr, "--http", "off"))
	var err error
	n.client, err = kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.Dialer(site.Dial), kgo.MetadataMinAge(20*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0))
	if err != nil {
		m.b.Fatal(err)
	}
	m.b.Cleanup(n.client.Close)
	m.eventually("the node answers", func() bool { return n.client.Ping(m.b.Context()) == nil })
	return n
}

// run starts a command in a site, which ends with the benchmark, and returns its process id.
func (m *mirrorBench) run(site *wan.Site, name string, cmd *exec.Cmd) int {
	m.b.Helper()
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := site.Start(cmd); err != nil {
		m.b.Fatal(err)
	}
	m.b.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
		if m.b.Failed() {
			text := said.String()
			m.b.Logf("%s said:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return cmd.Process.Pid
}

func (m *mirrorBench) eventually(what string, is func() bool) {
	m.b.Helper()
	for limit := time.Now().Add(mirrorWithin); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			m.b.Fatalf("not within %v: %s", mirrorWithin, what)
		}
	}
}

// startLink makes a link.
func (m *mirrorBench) startLink() {
	m.b.Helper()
	m.topic = "load"
	cmd := exec.CommandContext(m.b.Context(), leat, "link", "create", "north", "--from", m.there.addr, "--data", m.here.data, "--bootstrap", m.here.addr)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := m.here.site.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		m.b.Fatalf("%v: %s", err, said.String())
	}
}

// startMirrorMaker starts MirrorMaker 2 near the target, with the settings that its documentation advises for long distances: buffers that grow with the delay, and large batches.
func (m *mirrorBench) startMirrorMaker() {
	m.b.Helper()
	home := os.Getenv("KAFKA_HOME")
	if found, err := filepath.Glob(filepath.Join(home, "libs", "connect-mirror-*.jar")); err != nil || len(found) == 0 {
		m.b.Skip("KAFKA_HOME names no Apache Kafka with connect-mirror")
	}
	m.topic = "north.load"
	settings := []string{
		"clusters=north,south", "north.bootstrap.servers=" + m.there.addr, "south.bootstrap.servers=" + m.here.addr,
		"north->south.enabled=true", "north->south.topics=load", "south->north.enabled=false", "tasks.max=8",
		"replication.factor=1", "offset-syncs.topic.replication.factor=1", "offset.storage.replication.factor=1", "config.storage.replication.factor=1", "status.storage.replication.factor=1",
		"emit.heartbeats.enabled=false", "emit.checkpoints.enabled=false", "sync.topic.acls.enabled=false", "refresh.topics.interval.seconds=5",
		"north.consumer.receive.buffer.bytes=-1", "north.consumer.fetch.max.bytes=16777216", "north.consumer.max.partition.fetch.bytes=4194304", "north.consumer.max.poll.records=5000",
		"south.producer.batch.size=524288", "south.producer.linger.ms=0", "south.producer.send.buffer.bytes=-1",
	}
	path := filepath.Join(m.b.TempDir(), "mm2.properties")
	if err := os.WriteFile(path, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		m.b.Fatal(err)
	}
	m.pids = append(m.pids, m.run(m.here.site, "MirrorMaker 2", exec.Command("java", "-Xmx1g", "-cp", filepath.Join(home, "libs", "*"), "org.apache.kafka.connect.mirror.MirrorMaker", path)))
}

// produce writes batches at the source, which need not be here yet.
func (m *mirrorBench) produce(batches, records int) {
	m.b.Helper()
	value := make([]byte, 1<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range value {
		value[i] = byte(r.Uint32())
	}
	failed := make(chan error, 1)
	for i := range batches {
		for range records {
			m.there.client.Produce(m.b.Context(), &kgo.Record{Topic: "load", Partition: int32(i % mirrorPartitions), Value: value}, func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}
	err := m.there.client.Flush(m.b.Context())
	select {
	case err = <-failed:
	default:
	}
	if err != nil {
		m.b.Fatal(err)
	}
	m.written += int64(batches * records)
}

// await waits until all that was written is here.
func (m *mirrorBench) await() {
	m.b.Helper()
	adm := kadm.NewClient(m.here.client)
	m.eventually("all records are here", func() bool {
		ctx, cancel := context.WithTimeout(m.b.Context(), time.Minute)
		defer cancel()
		ends, err := adm.ListEndOffsets(ctx, m.topic)
		sum := int64(0)
		ends.Each(func(o kadm.ListedOffset) { sum += max(o.Offset, 0) })
		return err == nil && sum >= m.written // MirrorMaker may write some twice
	})
}

// catchUp writes as fast as possible, waits until all is here, and returns the CPU seconds for each GB, of who mirrors and of the source, and the bytes a second.
func (m *mirrorBench) catchUp() (here, there, rate float64) {
	m.b.Helper()
	mirror, err := meter.Start(m.pids)
	if err != nil {
		m.b.Fatal(err)
	}
	source, err := meter.Start([]int{m.there.pid})
	if err != nil {
		m.b.Fatal(err)
	}
	mirror.Begin()
	source.Begin()
	m.produce(caughtUpBytes/1024/recordsOfBatch, recordsOfBatch)
	m.await()
	mirror.End()
	source.End()
	a, err := mirror.Usage()
	if err != nil {
		m.b.Fatal(err)
	}
	z, err := source.Usage()
	if err != nil {
		m.b.Fatal(err)
	}
	const gigabytes = caughtUpBytes / 1e9
	return a.CPU / gigabytes, z.CPU / gigabytes, caughtUpBytes / mirror.Seconds
}

// readStale writes records one by one, reads them here, and returns how old each one is then.
func (m *mirrorBench) readStale() (all []time.Duration) {
	m.b.Helper()
	ends, err := kadm.NewClient(m.here.client).ListEndOffsets(m.b.Context(), m.topic)
	if err != nil {
		m.b.Fatal(err)
	}
	from := map[string]map[int32]kgo.Offset{m.topic: {}}
	ends.Each(func(o kadm.ListedOffset) { from[m.topic][o.Partition] = kgo.NewOffset().At(o.Offset) })
	cl, err := kgo.NewClient(kgo.SeedBrokers(m.here.addr), kgo.Dialer(m.here.site.Dial), kgo.ConsumePartitions(from))
	if err != nil {
		m.b.Fatal(err)
	}
	defer cl.Close()
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(staleEvery)
		defer tick.Stop()
		for i := range staleRecords {
			<-tick.C
			value, err := time.Now().MarshalBinary()
			if err == nil {
				m.there.client.Produce(m.b.Context(), &kgo.Record{Topic: "load", Partition: int32(i % mirrorPartitions), Value: value}, nil)
			}
		}
		done <- m.there.client.Flush(m.b.Context())
	}()
	for len(all) < staleRecords {
		fs := cl.PollFetches(m.b.Context())
		if err := fs.Err(); err != nil {
			m.b.Fatal(err)
		}
		now := time.Now()
		fs.EachRecord(func(r *kgo.Record) {
			var made time.Time
			if err := made.UnmarshalBinary(r.Value); err != nil {
				m.b.Fatal(err)
			}
			all = append(all, now.Sub(made))
		})
	}
	if err := <-done; err != nil {
		m.b.Fatal(err)
	}
	m.written += staleRecords
	return all
}
