package txn

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

var rewrite = flag.Bool("rewrite", false, "write what the machine says into testdata; read the difference before you commit it")

// TestScripts proves the machine's answers, step by step, in the situations that testdata
// describes. A script is a list of blocks: a command, and below it the answers. See stage.run for the
// commands.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newStage(t)
	var got strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(string(b), "\n"), "\n\n") {
		var head []string
		for line := range strings.SplitSeq(block, "\n") {
			if strings.HasPrefix(line, "  ") {
				break
			}
			head = append(head, line)
		}
		got.WriteString(strings.Join(head, "\n") + "\n")
		if cmd := head[len(head)-1]; !strings.HasPrefix(cmd, "#") {
			for _, line := range w.run(cmd) {
				got.WriteString("  " + line + "\n")
			}
		}
		got.WriteString("\n")
	}
	w.checkMemory()
	text := strings.TrimRight(got.String(), "\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.TrimRight(string(b), "\n")+"\n", text); diff != "" {
		t.Errorf("%s (-script +machine):\n%s", file, diff)
	}
}

// blockOfIDs gives producer ids from first on, below end.
type blockOfIDs struct{ next, end int64 }

func (b *blockOfIDs) Take() (int64, bool) {
	if b.next >= b.end {
		return 0, false
	}
	b.next++
	return b.next - 1, true
}

// stage is a machine with a clock and a log in memory.
type stage struct {
	t     *testing.T
	m     *Machine
	tm    *coord.Timers
	total *memory.Budget // of all machines that the stage has had
	other *memory.Account
	ids   blockOfIDs
	set   Settings
	now   time.Time
	start time.Time
	epoch record.Epoch
	log   []coord.Record
	one   *coord.Step // used again and again, as a shard does: what is kept must be a copy
	shown int         // records of the log that were printed
	sent  []Decision
	fail  error
	late  bool // replies are told that the high watermark did not come in time
	out   []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	w := &stage{t: t, now: time.UnixMilli(1_000_000), epoch: 1, ids: blockOfIDs{1000, 2000}, set: Settings{AddWait: -1}}
	w.start = w.now
	w.total = memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0)
	w.other = memory.NewAccount(w.total)
	w.other.JoinBudget()
	w.fresh()
	w.step(w.m.Loaded)
	return w
}

func (w *stage) fresh() {
	w.tm = new(coord.Timers)
	w.m = New(Config{
		Settings: func() Settings { return w.set }, IDs: &w.ids, Memory: w.total,
		Send: func(d Decision) {
			w.sent = append(w.sent, d)
			what := "abort"
			if d.Commit {
				what = "commit"
			}
			w.say("send %d: %s %s of %d/%d version %d, coordinator %d: %s", len(w.sent), what, d.TransactionalID, d.ProducerID, d.ProducerEpoch,
				d.Version, d.CoordinatorEpoch, list(d.Partitions))
		},
	}, w.tm)
}

func list(set []TopicPartitions) string {
	var words []string
	for _, t := range set {
		for _, p := range t.Partitions {
			words = append(words, fmt.Sprintf("%s/%d", t.Topic, p))
		}
	}
	return strings.Join(words, " ")
}

// Apply keeps the records, so that the stage is a log with the machine behind it.
func (w *stage) Apply(s *coord.Step, r coord.Record) error {
	w.log = append(w.log, coord.Record{Key: append([]byte{}, r.Key...), Value: slices.Clone(r.Value)})
	return w.m.Apply(s, r)
}

func (w *stage) Loaded(s *coord.Step) { w.m.Loaded(s) }
func (w *stage) Unload(s *coord.Step) { w.m.Unload(s) }

// step runs one step on the machine.
func (w *stage) step(op func(s *coord.Step)) {
	if w.one == nil {
		w.one = coord.NewStep(w.now)
	}
	w.one.Now = w.now
	w.one.InEpoch(w.epoch)
	op(w.one)
	_, _, reply := w.one.RunUncommitted(w, record.Offset(len(w.log)), w.fail)
	if w.late {
		reply(replica.ErrTimedOut)
	} else {
		reply(nil)
	}
	b := w.one.Buffer()
	for i := range b[:cap(b)] {
		b[:cap(b)][i] = 0xff
	}
}

func (w *stage) say(format string, args ...any) { w.out = append(w.out, fmt.Sprintf(format, args...)) }

// pass lets time go by, running what becomes due at its time.
func (w *stage) pass(d time.Duration) {
	end := w.now.Add(d)
	for {
		at, ok := w.tm.Next()
		if !ok || at.After(end) {
			break
		}
		if at.After(w.now) {
			w.now = at
		}
		before := len(w.out)
		w.step(func(s *coord.Step) { w.tm.Due(w.now).Fire(s) })
		for i := before; i < len(w.out); i++ {
			w.out[i] = fmt.Sprintf("%v: %s", w.now.Sub(w.start), w.out[i])
		}
	}
	w.now = end
}

// words are a command's words of the form name=value.
type words map[string]string

func (a words) text(name, otherwise string) string {
	if v, ok := a[name]; ok {
		return v
	}
	return otherwise
}

func (a words) number(name string, otherwise int) int {
	if v, ok := a[name]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			panic(err)
		}
		return n
	}
	return otherwise
}

func (a words) duration(name string, otherwise time.Duration) time.Duration {
	if v, ok := a[name]; ok {
		d, err := time.ParseDuration(v)
		if err != nil {
			panic(err)
		}
		return d
	}
	return otherwise
}

// producer is that of p=ID/EPOCH.
func (a words) producer() (int64, int16) {
	if a["p"] == "" {
		return -1, -1
	}
	var id int64
	var epoch int16
	if _, err := fmt.Sscanf(a["p"], "%d/%d", &id, &epoch); err != nil {
		panic(err)
	}
	return id, epoch
}

// run runs a command; the transactional id is x unless id= names another one:
//
//	init [p=ID/EPOCH] [timeout=] [v=]      add p=ID/EPOCH [v=] T/P ...    verify p=ID/EPOCH T/P ...
//	offsets p=ID/EPOCH partition           end p=ID/EPOCH [v=] commit|abort
//	marker [n=] written|gone|again|fenced [T/P ...]    the results of a decision; the last one and all of it if not said
//	describe   list [states=] [producers=] [older=] [pattern=] [v=]
//	pass DURATION   set name=value   disk full|ok   watermark late|ok   ids left|COUNT   room BYTES   log   reload
//	record ID/EPOCH STATE [v=] [ahead=DURATION]    a record that another version or Kafka has written
func (w *stage) run(cmd string) []string {
	w.out = nil
	all := strings.Fields(cmd)
	a, rest := words{}, []string{}
	for _, word := range all[1:] {
		if name, value, ok := strings.Cut(word, "="); ok {
			a[name] = value
		} else {
			rest = append(rest, word)
		}
	}
	ops := map[string]func(words, []string){
		"init": w.init, "add": w.add, "verify": w.verify, "offsets": w.offsets, "end": w.end, "marker": w.marker,
		"describe": w.describe, "list": w.list, "set": w.change, "log": w.printLog, "reload": w.reload, "record": w.record,
		"disk": func(_ words, rest []string) {
			w.fail = nil
			if rest[0] == "full" {
				w.fail = replica.ErrDiskFull
			}
		},
		"watermark": func(_ words, rest []string) { w.late = rest[0] == "late" },
		"ids": func(_ words, rest []string) {
			n, err := strconv.ParseInt(rest[0], 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			w.ids.end = w.ids.next + n
		},
		"room": func(_ words, rest []string) {
			n, err := strconv.ParseInt(rest[0], 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			w.other.Add(w.total.Free() - n)
		},
		"pass": func(_ words, rest []string) {
			d, err := time.ParseDuration(rest[0])
			if err != nil {
				w.t.Fatal(err)
			}
			w.pass(d)
		},
	}
	op := ops[all[0]]
	if op == nil {
		w.t.Fatalf("unknown command %q", cmd)
	}
	op(a, rest)
	return w.out
}

func name(c int16) string {
	if c == 0 {
		return "ok"
	}
	return kerr.TypedErrorForCode(c).Message
}

// partitions parses words of the form T/P.
func (w *stage) partitions(rest []string) (set []TopicPartitions) {
	for _, word := range rest {
		topic, n, _ := strings.Cut(word, "/")
		p, err := strconv.Atoi(n)
		if err != nil {
			w.t.Fatal(err)
		}
		set = append(set, TopicPartitions{topic, []int32{int32(p)}})
	}
	return set
}

func (w *stage) init(a words, _ []string) {
	req := kmsg.NewPtrInitProducerIDRequest()
	id := a.text("id", "x")
	req.Version, req.TransactionalID = int16(a.number("v", 5)), &id
	req.TransactionTimeoutMillis = int32(a.duration("timeout", time.Minute) / time.Millisecond)
	req.ProducerID, req.ProducerEpoch = a.producer()
	w.step(func(s *coord.Step) {
		w.m.InitProducerID(s, req, func(r *kmsg.InitProducerIDResponse) {
			w.say("%s %d/%d", name(r.ErrorCode), r.ProducerID, r.ProducerEpoch)
		})
	})
}

func (w *stage) add(a words, rest []string) {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = int16(a.number("v", 3))
	req.TransactionalID = a.text("id", "x")
	req.ProducerID, req.ProducerEpoch = a.producer()
	for _, p := range w.partitions(rest) {
		req.Topics = append(req.Topics, kmsg.AddPartitionsToTxnRequestTopic{Topic: p.Topic, Partitions: p.Partitions})
	}
	w.step(func(s *coord.Step) {
		w.m.AddPartitions(s, req.Version, SingleTransaction(req), func(x *kmsg.AddPartitionsToTxnResponseTransaction) {
			for _, t := range SingleAnswer(x) {
				w.say("%s/%d: %s", t.Topic, t.Partitions[0].Partition, name(t.Partitions[0].ErrorCode))
			}
		})
	})
}

func (w *stage) verify(a words, rest []string) {
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.VerifyOnly = a.text("id", "x"), true
	x.ProducerID, x.ProducerEpoch = a.producer()
	for _, p := range w.partitions(rest) {
		x.Topics = append(x.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: p.Topic, Partitions: p.Partitions})
	}
	w.step(func(s *coord.Step) {
		w.m.AddPartitions(s, 5, &x, func(x *kmsg.AddPartitionsToTxnResponseTransaction) {
			for _, t := range x.Topics {
				w.say("%s/%d: %s", t.Topic, t.Partitions[0].Partition, name(t.Partitions[0].ErrorCode))
			}
		})
	})
}

func (w *stage) offsets(a words, rest []string) {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.Version, req.TransactionalID, req.Group = int16(a.number("v", 4)), a.text("id", "x"), "g"
	req.ProducerID, req.ProducerEpoch = a.producer()
	p, err := strconv.Atoi(rest[0])
	if err != nil {
		w.t.Fatal(err)
	}
	w.step(func(s *coord.Step) {
		w.m.AddOffsets(s, req, int32(p), func(r *kmsg.AddOffsetsToTxnResponse) { w.say("%s", name(r.ErrorCode)) })
	})
}

func (w *stage) end(a words, rest []string) {
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.Commit = int16(a.number("v", 4)), a.text("id", "x"), rest[0] == "commit"
	req.ProducerID, req.ProducerEpoch = a.producer()
	w.step(func(s *coord.Step) {
		w.m.EndTxn(s, req, func(r *kmsg.EndTxnResponse) {
			if req.Version < 5 {
				w.say("%s", name(r.ErrorCode))
				return
			}
			w.say("%s %d/%d", name(r.ErrorCode), r.ProducerID, r.ProducerEpoch)
		})
	})
}

func (w *stage) marker(a words, rest []string) {
	d := w.sent[a.number("n", len(w.sent))-1]
	what := map[string]Outcome{"written": MarkerWritten, "gone": PartitionGone, "again": AskAgain, "fenced": CoordinatorFenced}
	outcome, ok := what[rest[0]]
	if !ok {
		w.t.Fatal(rest)
	}
	set := d.Partitions
	if len(rest) > 1 {
		set = w.partitions(rest[1:])
	}
	var results []MarkerResult
	for _, t := range set {
		for _, p := range t.Partitions {
			results = append(results, MarkerResult{t.Topic, p, outcome})
		}
	}
	w.step(func(s *coord.Step) { w.m.ReportMarkers(s, d.TransactionalID, d.Offset, results) })
}

func (w *stage) describe(a words, _ []string) {
	w.step(func(s *coord.Step) {
		d := w.m.Describe(s, a.text("id", "x"))
		if d.ErrorCode != 0 {
			w.say("%s", name(d.ErrorCode))
			return
		}
		var set []TopicPartitions
		for _, t := range d.Topics {
			set = append(set, TopicPartitions{t.Topic, t.Partitions})
		}
		w.say("%s %d/%d timeout=%v start=%d [%s]", d.State, d.ProducerID, d.ProducerEpoch, time.Duration(d.TimeoutMillis)*time.Millisecond, d.StartTimestamp, list(set))
	})
}

func (w *stage) list(a words, _ []string) {
	req := kmsg.NewPtrListTransactionsRequest()
	req.Version = int16(a.number("v", 2))
	if a["states"] != "" {
		req.StateFilters = strings.Split(a["states"], ",")
	}
	if a["producers"] != "" {
		for p := range strings.SplitSeq(a["producers"], ",") {
			n, _ := strconv.ParseInt(p, 10, 64)
			req.ProducerIDFilters = append(req.ProducerIDFilters, n)
		}
	}
	if a["older"] != "" {
		req.DurationFilterMillis = a.duration("older", 0).Milliseconds()
	}
	if v, ok := a["pattern"]; ok {
		req.TransactionalIDPattern = &v
	}
	f, unknown, code := NewFilter(req)
	if code != 0 {
		w.say("%s", name(code))
		return
	}
	if len(unknown) > 0 {
		w.say("unknown: %v", unknown)
	}
	w.step(func(s *coord.Step) {
		var lines []string
		for _, x := range f.KeepMatching(w.m.List(s, f)) {
			lines = append(lines, fmt.Sprintf("%s %d %s", x.TransactionalID, x.ProducerID, x.TransactionState))
		}
		slices.Sort(lines)
		w.out = append(w.out, lines...)
	})
}

func (w *stage) change(a words, _ []string) {
	for name := range a {
		switch name {
		case "max":
			w.set.MaxTimeout = a.duration(name, 0)
		case "expiration":
			w.set.Expiration = a.duration(name, 0)
		case "wait":
			w.set.AddWait = a.duration(name, 0)
		case "scan":
			w.set.ExpirationScan = a.duration(name, 0)
		default:
			w.t.Fatalf("unknown setting %s", name)
		}
	}
}

// printLog prints the records that came since it was last printed.
func (w *stage) printLog(words, []string) {
	var gone []string // a scan deletes ids in any order
	defer func() { w.out = append(w.out, gone...) }()
	for _, r := range w.log[w.shown:] {
		id, err := decodeKey(r.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Value == nil {
			gone = append(gone, id+": gone")
			slices.Sort(gone)
			continue
		}
		w.out, gone = append(w.out, gone...), nil
		st, err := decodeValue(r.Value)
		if err != nil {
			w.t.Fatal(err)
		}
		w.say("%s: %v %d/%d previous=%d next=%d last=%d version=%d [%s]", id, st.status, st.producer, st.epoch, st.previous, st.next, st.last, st.version, list(st.partitions))
	}
	w.shown = len(w.log)
}

// reload is a failover: another machine reads the log, in the next epoch.
func (w *stage) reload(words, []string) {
	log := w.log
	w.log = nil
	w.step(w.m.Unload)
	w.fresh()
	fail, late := w.fail, w.late
	w.fail, w.late = nil, false
	for _, r := range log {
		w.step(func(s *coord.Step) { s.Put(r.Key, r.Value) })
	}
	w.fail, w.late = fail, late
	if n := w.total.Used() - w.other.Held(); n != 0 {
		w.t.Errorf("%d bytes are taken for a machine that may never be opened", n)
	}
	w.epoch++
	w.step(w.m.Loaded)
}

// record puts a record into the log, as another version may have.
func (w *stage) record(a words, rest []string) {
	st := newState(0, 60_000, w.now.UnixMilli())
	if _, err := fmt.Sscanf(rest[0], "%d/%d", &st.producer, &st.epoch); err != nil {
		w.t.Fatal(err)
	}
	st.previous = st.producer
	st.status = status(slices.Index(statusNames(), rest[1]))
	st.version = int16(a.number("v", 0))
	if st.status != empty {
		st.start = w.now.Add(a.duration("ahead", 0)).UnixMilli()
		st.partitions = makeSet(w.partitions(rest[2:]))
	}
	st.last = derivedLast(&st)
	w.step(func(s *coord.Step) { putState(s, a.text("id", "x"), &st) })
}

// checkMemory proves that the account of the machine has what its ids take.
func (w *stage) checkMemory() {
	var want int64
	for id, t := range w.m.ids {
		want += sizeOf(id, &t.state)
	}
	if got := w.m.memory.Held(); got != want {
		w.t.Errorf("the account has %d bytes, the ids take %d", got, want)
	}
	w.step(w.m.Unload)
	if n := w.total.Used() - w.other.Held(); n != 0 {
		w.t.Errorf("%d bytes are held after the end", n)
	}
}
