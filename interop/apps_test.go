package interop

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// appsEnv has the tests of whole applications run that take minutes: make test-apps.
const appsEnv = "LEAT_INTEROP_APPS"

// appTimeout is how long an application may take to reach what is expected of it, restarts of its JVM, session
// timeouts and transaction timeouts included.
const appTimeout = 3 * time.Minute

// needsApps skips a test that is not of the gate.
func needsApps(t *testing.T) {
	t.Helper()
	if os.Getenv(appsEnv) == "" {
		t.Skip(appsEnv + " is not set: applications take minutes (make test-apps)")
	}
}

// application is a program of others in a process of its own, which a test kills and starts again.
type application struct {
	name    string
	command func() *exec.Cmd

	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when the process has been waited for
}

// startApplication starts a program, and ends it with the test.
func startApplication(t *testing.T, name string, command func() *exec.Cmd) *application {
	t.Helper()
	a := &application{name: name, command: command}
	a.start(t)
	t.Cleanup(func() {
		a.end()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, a.log)
		}
	})
	return a
}

func (a *application) start(t *testing.T) {
	t.Helper()
	a.cmd, a.log, a.done = a.command(), &tail{}, make(chan struct{})
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", a.name, err)
	}
	go func() {
		defer close(a.done)
		_ = a.cmd.Wait()
	}()
}

// end ends the process as kill -9 does.
func (a *application) end() {
	_ = a.cmd.Process.Kill() // an error means that it has ended
	<-a.done
}

// kill is end for a process that must still run.
func (a *application) kill(t *testing.T) {
	t.Helper()
	a.mustRun(t)
	a.end()
}

// pause stops the process without its knowledge until resume: others take it for dead, and it wakes as a zombie.
func (a *application) pause(t *testing.T) {
	t.Helper()
	a.signal(t, syscall.SIGSTOP)
}

func (a *application) resume(t *testing.T) {
	t.Helper()
	a.signal(t, syscall.SIGCONT)
}

func (a *application) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	a.mustRun(t)
	if err := a.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v: %v", a.name, s, err)
	}
}

func (a *application) mustRun(t *testing.T) {
	t.Helper()
	if closed(a.done) {
		t.Fatalf("%s has ended by itself", a.name)
	}
}

// feeder writes records into topics at a steady pace until it is told to stop. It is safe for concurrent use.
type feeder struct {
	cl     *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	sent []*kgo.Record // acknowledged, in order of their acknowledgement; guarded by mu
	err  error         // guarded by mu
}

// feedBatch is how many records are written every feedPause.
const (
	feedBatch = 20
	feedPause = 20 * time.Millisecond
)

// startFeeder writes the records that next makes, which is called with 0, 1, 2 and so on.
func startFeeder(t *testing.T, addrs string, next func(i int) *kgo.Record) *feeder {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addrs, ",")...), kgo.RequiredAcks(kgo.AllISRAcks()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := &feeder{cl: cl, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		tick := time.NewTicker(feedPause)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			// Only its stop ends the feeder: the records that are under way are still sent.
			cl.Produce(context.Background(), next(i), f.note)
			if i%feedBatch == feedBatch-1 {
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-f.done
		cl.Close()
	})
	return f
}

func (f *feeder) note(r *kgo.Record, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.err = err
		return
	}
	f.sent = append(f.sent, r)
}

// stop ends the feeder and returns all records that it has written, each partition's in order.
func (f *feeder) stop(t *testing.T) []*kgo.Record {
	t.Helper()
	f.cancel()
	<-f.done
	if err := f.cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		t.Fatalf("a record was refused: %v", f.err)
	}
	return f.sent
}

// watcher reads the committed records of a topic from its beginning on while a test goes on. It is safe for concurrent use.
type watcher struct {
	partitions int

	mu  sync.Mutex
	got []*kgo.Record // guarded by mu
}

func watch(t *testing.T, addrs, topic string, partitions int) *watcher {
	t.Helper()
	w := &watcher{partitions: partitions}
	cl := committedReader(t, addrs, topic)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			records := cl.PollFetches(t.Context()).Records() // kgo itself tries again after errors
			w.mu.Lock()
			w.got = append(w.got, records...)
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() { <-done }) // the test's context ends before this
	return w
}

func committedReader(t *testing.T, addrs, topic string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addrs, ",")...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func (w *watcher) records() []*kgo.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

// counts returns how many records of each partition have been read.
func (w *watcher) counts() map[int32]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[int32]int{}
	for _, r := range w.got {
		counts[r.Partition]++
	}
	return counts
}

// await returns when n records have been read in all; the applications must run until then.
func (w *watcher) await(t *testing.T, n int, apps ...*application) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("%d of %d records are committed", len(w.records()), n)
		}
	}()
	awaitThat(t, fmt.Sprintf("%d records are committed", n), func() bool { return len(w.records()) >= n }, apps)
}

// awaitMore returns when n more records of each partition have been read than there are now: whoever has died or stands
// still, others go on with what it had.
func (w *watcher) awaitMore(t *testing.T, n int, apps ...*application) {
	t.Helper()
	before := w.counts()
	awaitThat(t, fmt.Sprintf("%d more records of each partition are committed", n), func() bool {
		now := w.counts()
		for p := range int32(w.partitions) {
			if now[p] < before[p]+n {
				return false
			}
		}
		return true
	}, apps)
}

// awaitThat returns when ok is true, and tells how long that took.
func awaitThat(t *testing.T, what string, ok func() bool, apps []*application) {
	t.Helper()
	began := time.Now()
	eventually(t, appTimeout, what, func() bool {
		for _, a := range apps {
			a.mustRun(t)
		}
		time.Sleep(20 * time.Millisecond)
		return ok()
	})
	t.Logf("%s after %v", what, time.Since(began).Round(100*time.Millisecond))
}

// mustBeAll proves that a reader who comes later sees the same records as this one, and nothing after them: the
// newest offsets of committed records are those of the end.
func (w *watcher) mustBeAll(t *testing.T, addrs, topic string) {
	t.Helper()
	cl := committedReader(t, addrs, topic)
	var ends kadm.ListedOffsets
	eventually(t, appTimeout, "all transactions have ended", func() bool {
		time.Sleep(20 * time.Millisecond)
		var latest kadm.ListedOffsets
		var err error
		adm := kadm.NewClient(cl)
		if latest, err = adm.ListEndOffsets(t.Context(), topic); err == nil {
			ends, err = adm.ListCommittedOffsets(t.Context(), topic)
		}
		if err != nil {
			t.Fatal(err)
		}
		same := true
		ends.Each(func(o kadm.ListedOffset) {
			end, ok := latest.Lookup(o.Topic, o.Partition)
			same = same && ok && end.Offset == o.Offset
		})
		return same
	})
	var again []*kgo.Record
	eventually(t, appTimeout, "a second reader gets as many records as the first", func() bool {
		again = append(again, cl.PollFetches(t.Context()).Records()...)
		return len(again) >= len(w.records())
	})
	if first, second := byPartition(w.records()), byPartition(again); !maps.EqualFunc(first, second, slices.Equal) {
		t.Errorf("a second reader of %s sees other committed records than the first", topic)
	}
}

// byPartition returns the records of each partition, as text, in the order in which they were read.
func byPartition(records []*kgo.Record) map[int32][]string {
	all := map[int32][]string{}
	for _, r := range records {
		all[r.Partition] = append(all[r.Partition], fmt.Sprintf("%d %s %s", r.Offset, r.Key, r.Value))
	}
	return all
}

// eachOnce fails the test unless got has each text of want once, and nothing besides.
func eachOnce(t *testing.T, want, got []string) {
	t.Helper()
	count := map[string]int{}
	for _, s := range got {
		count[s]++
	}
	for _, s := range want {
		if count[s] != 1 {
			t.Errorf("%q was written %d times", s, count[s])
		}
		delete(count, s)
	}
	for s, n := range count {
		t.Errorf("%q should not be there, and was written %d times", s, n)
	}
}

// anyOf picks one of the words by the number of a record, the same in each run.
func anyOf(words []string, i int) string {
	return words[rand.New(rand.NewPCG(uint64(i), 11)).IntN(len(words))]
}
