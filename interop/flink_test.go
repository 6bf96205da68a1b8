package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// flinkKit holds Apache Flink with its connector, and our job.
var flinkKit = jarsKit("flink", "java/flink", "FlinkCopy.java")

// TestFlink proves that a job of Flink with its exactly-once sink copies each record once, although its process is
// killed and starts again from its newest checkpoint, whose transactions it resumes, and although a node is killed.
// Flink knows two ways to name its transactions, and asks the broker for those that are left by the second one.
func TestFlink(t *testing.T) {
	needsApps(t)
	flinkKit.have(t)
	for _, naming := range []string{"INCREMENTING", "POOLING"} {
		t.Run(strings.ToLower(naming), func(t *testing.T) {
			onClusters(t, func(t *testing.T, c *cluster) {
				t.Helper()
				flinkCopies(t, c, naming)
			})
		})
	}
}

func flinkCopies(t *testing.T, c *cluster, naming string) {
	t.Helper()
	kit := flinkKit.have(t)
	input, output := fmt.Sprintf("flink.%d.input", names.Add(1)), fmt.Sprintf("flink.%d.output", names.Add(1))
	createTopic(t, c.nodes[0], input, 4, nil)
	createTopic(t, c.nodes[0], output, 4, nil)
	f := startFeeder(t, c.addrs(), func(i int) *kgo.Record {
		key := strconv.Itoa(i % 97)
		return &kgo.Record{Topic: input, Key: []byte(key), Value: fmt.Appendf(nil, "%s %d", key, i)}
	})
	w := watch(t, c.addrs(), output, 4)
	checkpoints := t.TempDir()
	app := startApplication(t, "flink", func() *exec.Cmd {
		args := []string{c.addrs(), input, output, checkpoints, naming}
		if newest := newestCheckpoint(t, checkpoints); newest != "" {
			args = append(args, newest)
		}
		return jvm(512, []string{kit, filepath.Join(kit, "libs", "*")}, "FlinkCopy", args...)
	})
	w.awaitMore(t, 200, app)
	app.kill(t)
	app.start(t)
	w.awaitMore(t, 200, app)
	c.killEach(t, func() { w.awaitMore(t, 200, app) })
	w.awaitMore(t, 200, app)
	app.kill(t)
	app.start(t)
	w.awaitMore(t, 200, app)

	want, newest := []string{}, map[string]int{}
	for _, r := range f.stop(t) {
		want = append(want, string(r.Value))
	}
	w.await(t, len(want), app)
	var got []string
	for _, r := range w.records() {
		got = append(got, string(r.Value))
		n, err := strconv.Atoi(strings.Fields(string(r.Value))[1])
		if before, ok := newest[string(r.Key)]; err != nil || ok && n <= before {
			t.Errorf("%q comes after record %d", r.Value, before)
		}
		newest[string(r.Key)] = n
	}
	eachOnce(t, want, got)
	t.Logf("%d records were copied", len(want))
}

// newestCheckpoint returns the folder of the newest complete checkpoint, "" if there is none.
func newestCheckpoint(t *testing.T, dir string) string {
	t.Helper()
	complete, err := filepath.Glob(filepath.Join(dir, "*", "chk-*", "_metadata"))
	if err != nil {
		t.Fatal(err)
	}
	newest, at := "", time.Time{}
	for _, path := range complete {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(at) {
			newest, at = filepath.Dir(path), info.ModTime()
		}
	}
	return newest
}
