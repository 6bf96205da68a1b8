package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// connectKit holds Kafka Connect's worker, its connectors of files, and MirrorMaker 2.
var connectKit = jarsKit("connect", "java/connect", "")

// connectJVM returns a function that makes the command of a class of Connect with a file of settings.
func connectJVM(t *testing.T, class string, settings map[string]string) func() *exec.Cmd {
	t.Helper()
	kit := connectKit.have(t)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s=%s\n", name, settings[name])
	}
	path := file(t, text.String())
	return func() *exec.Cmd { return jvm(384, []string{filepath.Join(kit, "libs", "*")}, class, path) }
}

// connectWorker is a distributed worker, with the address of its REST API.
type connectWorker struct {
	*application
	url string
}

// startWorker starts a worker of a group whose internal topics bear its name.
func startWorker(t *testing.T, c *cluster, group string) connectWorker {
	t.Helper()
	port, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	url := "http://127.0.0.1:" + strconv.Itoa(port[0])
	factor := strconv.Itoa(c.nodes[0].factor)
	run := connectJVM(t, "org.apache.kafka.connect.cli.ConnectDistributed", map[string]string{
		"bootstrap.servers":                 c.addrs(),
		"group.id":                          group,
		"listeners":                         url,
		"exactly.once.source.support":       "enabled",
		"offset.storage.topic":              group + ".offsets",
		"config.storage.topic":              group + ".configs",
		"status.storage.topic":              group + ".status",
		"offset.storage.replication.factor": factor,
		"config.storage.replication.factor": factor,
		"status.storage.replication.factor": factor,
		"offset.storage.partitions":         "4",
		"offset.flush.interval.ms":          "1000",
		// A worker that starts reads the topic of the offsets to its end, and so waits for what a killed one has left open.
		"producer.transaction.timeout.ms":  "10000",
		"scheduled.rebalance.max.delay.ms": "0",
		"session.timeout.ms":               "6000",
		"heartbeat.interval.ms":            "500",
		"key.converter":                    "org.apache.kafka.connect.storage.StringConverter",
		"value.converter":                  "org.apache.kafka.connect.storage.StringConverter",
	})
	return connectWorker{startApplication(t, "connect", run), url}
}

// create makes a connector; the worker may still be starting.
func (w connectWorker) create(t *testing.T, name string, config map[string]string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"name": name, "config": config})
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	eventually(t, appTimeout, "the connector is created", func() bool {
		w.mustRun(t)
		time.Sleep(50 * time.Millisecond)
		resp, err := http.Post(w.url+"/connectors", "application/json", bytes.NewReader(body))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if newSaid := string(answer); err == nil && newSaid != said {
			said = newSaid
			t.Logf("%s: %s", resp.Status, said)
		}
		return resp.StatusCode == http.StatusCreated
	})
}

// runner returns the address of the worker that runs the only task of a connector, as this worker knows it, and "" while
// it knows none.
func (w connectWorker) runner(t *testing.T, connector string) string {
	t.Helper()
	w.mustRun(t)
	time.Sleep(50 * time.Millisecond)
	resp, err := http.Get(w.url + "/connectors/" + connector + "/status")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var status struct {
		Tasks []struct {
			State  string `json:"state"`
			Worker string `json:"worker_id"`
		} `json:"tasks"`
	}
	if json.NewDecoder(resp.Body).Decode(&status) != nil || len(status.Tasks) != 1 || status.Tasks[0].State != "RUNNING" {
		return ""
	}
	return status.Tasks[0].Worker
}

// lineWriter appends numbered lines to a file until it is told to stop.
type lineWriter struct {
	stop atomic.Bool
	done chan int // gets the number of lines
}

func startLineWriter(t *testing.T, path string) *lineWriter {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &lineWriter{done: make(chan int, 1)}
	go func() {
		n := 0
		for ; !l.stop.Load() && t.Context().Err() == nil; time.Sleep(feedPause) {
			var lines bytes.Buffer
			for range feedBatch {
				fmt.Fprintf(&lines, "line number %d\n", n)
				n++
			}
			if _, err := f.Write(lines.Bytes()); err != nil {
				t.Errorf("write the input of the connector: %v", err)
				break
			}
		}
		_ = f.Close()
		l.done <- n
	}()
	return l
}

// finish stops the writer and returns how many lines it has written.
func (l *lineWriter) finish() int {
	l.stop.Store(true)
	return <-l.done
}

// TestConnect proves that a distributed worker of Kafka Connect with exactly.once.source.support brings each line of a
// file into a topic once and in order, and each record of it into another file at least once, although a worker is killed
// and started again, or stands still until a second one takes over and then goes on, and although nodes are killed.
func TestConnect(t *testing.T) {
	needsApps(t)
	connectKit.have(t)
	onClusters(t, func(t *testing.T, c *cluster) {
		t.Helper()
		group := fmt.Sprintf("connect.%d", names.Add(1))
		topic := group + ".lines"
		createTopic(t, c.nodes[0], topic, 1, nil)
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		lines := startLineWriter(t, from)
		w := watch(t, c.addrs(), topic, 1)
		worker := startWorker(t, c, group)
		worker.create(t, "source", map[string]string{
			"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "tasks.max": "1",
			// The task keeps the lines beyond a full batch until the file grows again, and so the last ones for ever.
			"batch.size": "1000000",
			"file":       from, "topic": topic, "exactly.once.support": "required", "transaction.boundary": "poll",
		})
		worker.create(t, "sink", map[string]string{
			"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1", "file": to, "topics": topic,
			"consumer.override.isolation.level": "read_committed",
		})
		w.awaitMore(t, 1000, worker.application)
		worker.kill(t)
		worker.start(t)
		w.awaitMore(t, 1000, worker.application)
		c.killEach(t, func() { w.awaitMore(t, 1000, worker.application) })
		w.awaitMore(t, 1000, worker.application)
		second := startWorker(t, c, group)
		first, other := worker, second // the one that has the task of the source now, and the other one
		eventually(t, appTimeout, "the second worker knows who reads the file", func() bool {
			return second.runner(t, "source") != ""
		})
		if second.runner(t, "source") == strings.TrimPrefix(second.url, "http://") {
			first, other = second, worker
		}
		first.pause(t)
		w.awaitMore(t, 1000, other.application)
		first.resume(t)
		w.awaitMore(t, 1000, first.application, other.application)
		first.kill(t)
		w.awaitMore(t, 1000, other.application)

		n := lines.finish()
		w.await(t, n, other.application)
		w.mustBeAll(t, c.addrs(), topic)
		for i, r := range w.records() {
			if want := fmt.Sprintf("line number %d", i); string(r.Value) != want {
				t.Fatalf("record %d is %q, not %q", i, r.Value, want)
			}
		}
		if got := len(w.records()); got != n {
			t.Errorf("%d records of %d lines", got, n)
		}
		eventually(t, appTimeout, "every line is in the file of the sink", func() bool {
			other.mustRun(t)
			time.Sleep(100 * time.Millisecond)
			content, err := os.ReadFile(to)
			if err != nil {
				t.Fatal(err)
			}
			there := map[string]bool{}
			for line := range strings.Lines(string(content)) {
				there[strings.TrimSpace(line)] = true
			}
			for i := range n {
				if !there[fmt.Sprintf("line number %d", i)] {
					return false
				}
			}
			return true
		})
		t.Logf("%d lines became records", n)
	})
}

// TestMirrorMaker proves that MirrorMaker 2 copies a topic from one cluster to another exactly once, although it is killed
// and started again and the nodes of both clusters are killed, and that a group goes on in the other cluster where it stood.
func TestMirrorMaker(t *testing.T) {
	needsApps(t)
	connectKit.have(t)
	onClusters(t, func(t *testing.T, to *cluster) {
		t.Helper()
		mirrors(t, ownCluster(t, 1, quick), to)
	})
}

func mirrors(t *testing.T, from, to *cluster) {
	t.Helper()
	topic := fmt.Sprintf("mirrored.%d", names.Add(1))
	createTopic(t, from.nodes[0], topic, 2, nil)
	f := startFeeder(t, from.addrs(), func(i int) *kgo.Record {
		return &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(i % 97)), Value: []byte(strconv.Itoa(i))}
	})
	port, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	group, factor := topic+".readers", strconv.Itoa(to.nodes[0].factor)
	settings := map[string]string{
		"clusters":                                 "from,to",
		"from.bootstrap.servers":                   from.addrs(),
		"to.bootstrap.servers":                     to.addrs(),
		"from->to.enabled":                         "true",
		"from->to.topics":                          topic,
		"from->to.groups":                          group,
		"to->from.enabled":                         "false",
		"to->from.emit.heartbeats.enabled":         "false",
		"to.exactly.once.source.support":           "enabled",
		"to.producer.transaction.timeout.ms":       "10000",
		"dedicated.mode.enable.internal.rest":      "true",
		"listeners":                                "http://127.0.0.1:" + strconv.Itoa(port[0]),
		"replication.factor":                       factor,
		"sync.group.offsets.enabled":               "true",
		"sync.group.offsets.interval.seconds":      "1",
		"emit.checkpoints.interval.seconds":        "1",
		"refresh.groups.interval.seconds":          "1",
		"offset.lag.max":                           "0", // a sync for each record: offsets are translated exactly
		"offset.flush.interval.ms":                 "1000",
		"session.timeout.ms":                       "6000",
		"heartbeat.interval.ms":                    "500",
		"scheduled.rebalance.max.delay.ms":         "0",
		"offset.storage.replication.factor":        factor,
		"config.storage.replication.factor":        factor,
		"status.storage.replication.factor":        factor,
		"checkpoints.topic.replication.factor":     factor,
		"heartbeats.topic.replication.factor":      factor,
		"offset-syncs.topic.replication.factor":    "1",
		"from->to.consumer.auto.offset.reset":      "earliest",
		"from->to.emit.heartbeats.enabled":         "true",
		"from->to.sync.topic.acls.enabled":         "false",
		"from->to.refresh.topics.interval.seconds": "2",
	}
	mirror := startApplication(t, "mirror maker", connectJVM(t, "org.apache.kafka.connect.mirror.MirrorMaker", settings))
	mirrored := "from." + topic
	w := watch(t, to.addrs(), mirrored, 2)
	w.awaitMore(t, 200, mirror)
	mirror.kill(t)
	mirror.start(t)
	w.awaitMore(t, 200, mirror)
	to.killEach(t, func() { w.awaitMore(t, 200, mirror) })
	w.awaitMore(t, 200, mirror)
	from.killEach(t, nil)
	w.awaitMore(t, 200, mirror)

	sent := f.stop(t)
	w.await(t, len(sent), mirror)
	w.mustBeAll(t, to.addrs(), mirrored)
	want, got := valuesOf(sent), valuesOf(w.records())
	for p := range int32(2) {
		if !slices.Equal(want[p], got[p]) {
			t.Errorf("partition %d: %d records were written and %d mirrored; they differ at %d", p, len(want[p]), len(got[p]), differAt(want[p], got[p]))
		}
	}
	t.Logf("%d records were mirrored", len(sent))

	// A group reads all there is, and later goes on in the other cluster with what came since.
	consumeAsGroup(t, from.addrs(), group, topic, len(sent))
	adm := admin(t, to.nodes[0])
	ends := map[int32]int64{}
	for _, r := range w.records() {
		ends[r.Partition] = r.Offset + 1
	}
	eventually(t, appTimeout, "the group's offsets are at the end in the other cluster", func() bool {
		mirror.mustRun(t)
		time.Sleep(50 * time.Millisecond)
		for p := range int32(2) {
			if at, ok := fetchCommitted(t, adm, group, mirrored, p); !ok || at != ends[p] {
				return false
			}
		}
		return true
	})
	more := startFeeder(t, from.addrs(), func(i int) *kgo.Record {
		return &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(i % 97)), Value: fmt.Appendf(nil, "later %d", i)}
	})
	w.awaitMore(t, 50, mirror)
	late := more.stop(t)
	w.await(t, len(sent)+len(late), mirror)
	mirror.end() // it syncs only the offsets of groups without members
	gotLate := valuesOf(consumeAsGroup(t, to.addrs(), group, mirrored, len(late)))
	if wantLate := valuesOf(late); !maps.EqualFunc(wantLate, gotLate, slices.Equal) {
		t.Errorf("the group went on with other records than those that came since: %d and %d", len(late), len(gotLate[0])+len(gotLate[1]))
	}
}

// consumeAsGroup reads n records as the only member of a group, commits, and returns them.
func consumeAsGroup(t *testing.T, addrs, group, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addrs, ",")...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var all []*kgo.Record
	eventually(t, appTimeout, fmt.Sprintf("the group reads %d records", n), func() bool {
		fetches := cl.PollFetches(t.Context())
		all = append(all, fetches.Records()...)
		return len(all) >= n
	})
	if err := cl.CommitRecords(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	return all
}
