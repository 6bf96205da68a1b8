package interop

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// exactlyOncePrograms are the programs of docs/exactly-once.md. Each takes the addresses of brokers and a transactional id, and bills
// orders until it is killed.
var exactlyOncePrograms = []struct {
	name  string
	kits  []*kit
	start func(t *testing.T) *exec.Cmd
}{
	{"franz-go", nil, func(t *testing.T) *exec.Cmd {
		t.Helper()
		program := filepath.Join(t.TempDir(), "franz")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./examples/franz").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return exec.Command(program)
	}},
	{"kafka-clients", []*kit{&javaKit}, func(t *testing.T) *exec.Cmd {
		t.Helper()
		return exec.Command("java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", filepath.Join(javaKit.have(t), "libs", "*"), filepath.Join("examples", "ExactlyOnce.java"))
	}},
	{"confluent-kafka", []*kit{&pythonKit}, func(t *testing.T) *exec.Cmd {
		t.Helper()
		return exec.Command(filepath.Join(pythonKit.have(t), "venv", "bin", "python"), "-u", "-B", filepath.Join("examples", "exactly_once.py"))
	}},
}

// TestExactlyOncePrograms proves that each of the programs bills each order once, as readers of committed records see it, though it is
// killed in the midst of its work and started again.
func TestExactlyOncePrograms(t *testing.T) {
	for _, p := range exactlyOncePrograms {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, k := range p.kits {
				k.have(t)
			}
			w := newBilling(t)
			program := p.start(t)
			for round := range 3 {
				w.order(t, 500)
				end := w.run(t, program)
				w.awaitInvoices(t, 500*round+1)
				if round == 2 {
					w.awaitInvoices(t, w.orders)
				}
				end()
			}
			w.checkAll(t)
		})
	}
}

const invoicePartitions = 3

// billing is a broker with the topics of the programs.
type billing struct {
	addr   string
	cl     *kgo.Client
	reader *kgo.Client
	orders int            // so many were made
	seen   map[string]int // how often each invoice was read
}

func newBilling(t *testing.T) *billing {
	t.Helper()
	w := &billing{addr: ownBroker(t, quick).addr, seen: map[string]int{}}
	client := func(opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(w.addr))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	w.cl = client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	made, err := kadm.NewClient(w.cl).CreateTopics(t.Context(), invoicePartitions, 1, nil, "orders", "invoices")
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.reader = client(kgo.ConsumeTopics("invoices"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	return w
}

// order makes more orders.
func (w *billing) order(t *testing.T, count int) {
	t.Helper()
	var all []*kgo.Record
	for range count {
		all = append(all, &kgo.Record{Topic: "orders", Partition: int32(w.orders % invoicePartitions), Value: fmt.Appendf(nil, "order %d", w.orders)})
		w.orders++
	}
	if err := w.cl.ProduceSync(t.Context(), all...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// run starts the program. end kills it.
func (w *billing) run(t *testing.T, program *exec.Cmd) (end func()) {
	t.Helper()
	cmd, said := exec.Command(program.Path, append(program.Args[1:], w.addr, "billing-1")...), &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, unless the test has failed
		if t.Failed() {
			t.Logf("the program said:\n%s", said)
		}
	})
	return func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("the program has ended: %v\n%s", err, said)
		}
		_ = cmd.Wait() // it was killed
	}
}

// awaitInvoices reads until there are so many different invoices.
func (w *billing) awaitInvoices(t *testing.T, count int) {
	t.Helper()
	w.read(t, func() bool { return len(w.seen) >= count })
}

func (w *billing) read(t *testing.T, isEnough func() bool) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); !isEnough(); {
		if time.Now().After(until) {
			t.Fatalf("%d of %d orders have invoices", len(w.seen), w.orders)
		}
		fetches := w.reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { w.seen[string(r.Value)]++ })
	}
}

// checkAll reads to the ends of all partitions, and checks that each order has one invoice. A transaction that the last kill has left
// open is aborted when the next producer of the transactional id begins.
func (w *billing) checkAll(t *testing.T) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.addr), kgo.TransactionalID("billing-1"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for p := range int32(invoicePartitions) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "invoices", Partition: p, Value: []byte("the end")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	w.read(t, func() bool { return w.seen["the end"] == invoicePartitions })
	delete(w.seen, "the end")
	for i := range w.orders {
		invoice := fmt.Sprintf("invoice for order %d", i)
		if n := w.seen[invoice]; n != 1 {
			t.Errorf("there are %d of %q", n, invoice)
		}
		delete(w.seen, invoice)
	}
	if len(w.seen) != 0 {
		t.Errorf("there are invoices without an order: %v", w.seen)
	}
}
