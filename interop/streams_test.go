package interop

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// streamsKit holds Kafka Streams and our applications of it.
var streamsKit = jarsKit("streams", "java/streams", "StreamsApps.java")

// streamsApp is an application of Kafka Streams and the topics that it reads and writes.
type streamsApp struct {
	topology string
	c        *cluster
	id       string
	output   string
	inputs   []string
	more     []string
}

const streamsPartitions = 4

// newStreamsApp creates the topics of an application.
func newStreamsApp(t *testing.T, c *cluster, topology string, inputs int) streamsApp {
	t.Helper()
	s := streamsApp{topology: topology, c: c, id: fmt.Sprintf("streams.%s.%d", topology, names.Add(1))}
	s.output = s.id + ".output"
	createTopic(t, c.nodes[0], s.output, streamsPartitions, nil)
	for i := range inputs {
		s.inputs = append(s.inputs, fmt.Sprintf("%s.input.%d", s.id, i))
		createTopic(t, c.nodes[0], s.inputs[i], streamsPartitions, nil)
	}
	return s
}

// start starts an instance of the application, whose state is in a folder.
func (s streamsApp) start(t *testing.T, state string) *application {
	t.Helper()
	kit := streamsKit.have(t)
	args := append([]string{s.topology, s.c.addrs(), s.id, state, s.output}, s.inputs...)
	return startApplication(t, s.id, func() *exec.Cmd {
		return jvm(256, []string{kit, filepath.Join(kit, "libs", "*")}, "StreamsApps", append(args, s.more...)...)
	})
}

// TestStreamsCopy proves that a Kafka Streams application with exactly_once_v2 writes each record of its input exactly
// once and in order, although it is killed in mid-flight and continued by a new process, and the broker is killed, too.
func TestStreamsCopy(t *testing.T) {
	t.Parallel()
	streamsKit.have(t)
	c := ownCluster(t, 1, quick)
	s := newStreamsApp(t, c, "copy", 1)
	f := startFeeder(t, c.addrs(), func(i int) *kgo.Record {
		return &kgo.Record{Topic: s.inputs[0], Key: []byte(strconv.Itoa(i % 97)), Value: []byte(strconv.Itoa(i))}
	})
	w := watch(t, c.addrs(), s.output, streamsPartitions)
	state := t.TempDir()
	app := s.start(t, state)
	w.await(t, 500, app)
	app.kill(t) // the same state has the next process take over the transactional id and fence the killed one
	app.start(t)
	w.awaitMore(t, 50, app)
	c.killEach(t, nil)
	w.awaitMore(t, 50, app)
	app.kill(t)
	app = s.start(t, t.TempDir()) // another transactional id: what the killed one had open is aborted by its timeout
	w.awaitMore(t, 50, app)
	s.mustHaveCopied(t, f.stop(t), w, app)
}

// mustHaveCopied returns when the output has as many records as the input, and proves that it is the input.
func (s streamsApp) mustHaveCopied(t *testing.T, sent []*kgo.Record, w *watcher, app *application) {
	t.Helper()
	w.await(t, len(sent), app)
	w.mustBeAll(t, s.c.addrs(), s.output)
	want, got := valuesOf(sent), valuesOf(w.records())
	for p := range int32(streamsPartitions) {
		if !slices.Equal(want[p], got[p]) {
			t.Errorf("partition %d: %d records were written and %d copied; they differ at %d", p, len(want[p]), len(got[p]), differAt(want[p], got[p]))
		}
	}
	t.Logf("%d records were copied", len(sent))
}

func valuesOf(records []*kgo.Record) map[int32][]string {
	all := map[int32][]string{}
	for _, r := range records {
		all[r.Partition] = append(all[r.Partition], string(r.Value))
	}
	return all
}

func differAt(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestStreamsCount proves that a word count counts each word of its input once, through a repartition topic and a
// store whose changelog is a compacted topic, with two instances. One is killed, the other one stands still until it is
// taken for dead, and goes on as a zombie; at last both are killed, and the store is made again from the changelog.
func TestStreamsCount(t *testing.T) {
	needsApps(t)
	t.Parallel()
	streamsKit.have(t)
	onClusters(t, func(t *testing.T, c *cluster) {
		t.Helper()
		s := newStreamsApp(t, c, "count", 1)
		words := make([]string, 50) // enough for each partition to have some
		for i := range words {
			words[i] = "word" + strconv.Itoa(i)
		}
		f := startFeeder(t, c.addrs(), func(i int) *kgo.Record {
			line := []string{anyOf(words, 3*i), anyOf(words, 3*i+1), anyOf(words, 3*i+2)}
			return &kgo.Record{Topic: s.inputs[0], Key: []byte(strconv.Itoa(i)), Value: []byte(strings.Join(line, " "))}
		})
		w := watch(t, c.addrs(), s.output, streamsPartitions)
		first, second := s.start(t, t.TempDir()), s.start(t, t.TempDir())
		w.awaitMore(t, 100, first, second)
		first.kill(t)
		w.awaitMore(t, 100, second)
		first.start(t)
		w.awaitMore(t, 100, first, second)
		second.pause(t)
		w.awaitMore(t, 100, first) // what the second one had is the first one's now
		second.resume(t)
		w.awaitMore(t, 100, first, second)
		c.killEach(t, func() { w.awaitMore(t, 100, first, second) })
		w.awaitMore(t, 100, first, second)
		first.kill(t)
		second.kill(t)
		third := s.start(t, t.TempDir()) // all stores come from the changelog
		w.awaitMore(t, 100, third)

		count := map[string]int{}
		var want []string
		for _, r := range f.stop(t) {
			for word := range strings.FieldsSeq(string(r.Value)) {
				count[word]++
				want = append(want, fmt.Sprintf("%s %d", word, count[word]))
			}
		}
		w.await(t, len(want), third)
		w.mustBeAll(t, c.addrs(), s.output)
		// The records of a word are in one partition, in which its count must rise one by one.
		newest := map[string]int{}
		for _, r := range w.records() {
			if n, err := strconv.Atoi(string(r.Value)); err != nil || n != newest[string(r.Key)]+1 {
				t.Fatalf("%q was counted as %q after %d", r.Key, r.Value, newest[string(r.Key)])
			}
			newest[string(r.Key)]++
		}
		for word, n := range count {
			if newest[word] != n {
				t.Errorf("%q was counted %d times of %d", word, newest[word], n)
			}
		}
		t.Logf("%d words were counted", len(want))
	})
}

// joinWindow is the time between two records within which the application joins them.
const joinWindow = 10 * time.Second

// TestStreamsJoin proves that a windowed join of two topics finds each pair once, although the application is killed
// and goes on with its window stores, and with those that are made again from their changelogs.
func TestStreamsJoin(t *testing.T) {
	needsApps(t)
	t.Parallel()
	streamsKit.have(t)
	onClusters(t, func(t *testing.T, c *cluster) {
		t.Helper()
		s := newStreamsApp(t, c, "join", 2)
		begin := time.Now().Truncate(time.Millisecond)
		f := startFeeder(t, c.addrs(), func(i int) *kgo.Record {
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			at := begin.Add(time.Duration(i)*20*time.Millisecond + time.Duration(rng.IntN(8000))*time.Millisecond)
			return &kgo.Record{
				Topic: s.inputs[rng.IntN(2)], Key: []byte(strconv.Itoa(rng.IntN(200))), Value: []byte(strconv.Itoa(i)), Timestamp: at,
			}
		})
		w := watch(t, c.addrs(), s.output, streamsPartitions)
		app := s.start(t, t.TempDir())
		w.await(t, 1000, app)
		app.kill(t)
		app.start(t)
		w.awaitMore(t, 100, app)
		c.killEach(t, func() { w.awaitMore(t, 100, app) })
		w.awaitMore(t, 100, app)
		app.kill(t)
		app = s.start(t, t.TempDir())
		w.awaitMore(t, 100, app)

		sides := [2]map[string][]*kgo.Record{{}, {}}
		for _, r := range f.stop(t) {
			side := sides[slices.Index(s.inputs, r.Topic)]
			side[string(r.Key)] = append(side[string(r.Key)], r)
		}
		var want, got []string
		for key, left := range sides[0] {
			for _, l := range left {
				for _, r := range sides[1][key] {
					if apart := l.Timestamp.Sub(r.Timestamp).Abs(); apart <= joinWindow {
						want = append(want, fmt.Sprintf("%s %s+%s", key, l.Value, r.Value))
					}
				}
			}
		}
		w.await(t, len(want), app)
		w.mustBeAll(t, c.addrs(), s.output)
		for _, r := range w.records() {
			got = append(got, fmt.Sprintf("%s %s", r.Key, r.Value))
		}
		eachOnce(t, want, got)
		t.Logf("%d pairs were joined", len(want))
	})
}

// onClusters runs a test of an application against one node and against three.
func onClusters(t *testing.T, test func(t *testing.T, c *cluster)) {
	t.Helper()
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			test(t, ownCluster(t, nodes, quick))
		})
	}
}

// killEach kills one node after the other and starts it again. In a cluster of several, goesOn must return while it is away.
func (c *cluster) killEach(t *testing.T, goesOn func()) {
	t.Helper()
	for _, b := range c.nodes {
		b.kill(t)
		if len(c.nodes) > 1 {
			goesOn()
		}
		b.startAgain(t)
		c.mustBeComplete(t)
	}
}
