package group

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

var rewrite = flag.Bool("rewrite", false, "write what the machine says into testdata; read the difference before you commit it")

// TestScripts proves the machine's answers, step by step, in the situations that testdata
// describes. A script is a list of blocks: a command, and below it the answers, each with
// the name of the client that asked. See world.run for the commands.
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
	w := newWorld(t)
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

// world is a machine with a clock, a log in memory and one group, g.
type world struct {
	t     *testing.T
	m     *Machine
	tm    *coord.Timers
	total *memory.Budget  // of all machines that the world has had
	other *memory.Account // what somebody else takes of it
	taken int64
	set   Settings
	now   time.Time
	start time.Time
	log   []coord.Record
	one   *coord.Step // used again and again, as a shard does: what is kept must be a copy
	shown int         // records of the log that were printed
	ids   int
	fail  error
	out   []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, set: DefaultSettings(), now: time.UnixMilli(1_000_000)}
	w.start = w.now
	w.total = memory.NewBudget(slog.New(slog.DiscardHandler), 0)
	w.other = memory.NewAccount(w.total)
	w.other.JoinBudget()
	w.set.MaxMetadata = 8
	w.fresh()
	w.step(w.m.Loaded)
	return w
}

// room leaves so many bytes of the budget to the machine.
func (w *world) room(n int64) {
	w.other.Add(w.total.Free() - n)
	w.taken = w.other.Held()
}

func (w *world) fresh() {
	w.tm = new(coord.Timers)
	w.m = NewMachine(w.tm, w.total, w.total, func() Settings { return w.set }, func() string {
		w.ids++
		return strconv.Itoa(w.ids)
	})
}

// Apply keeps the records, so that the world is a log with the machine behind it.
func (w *world) Apply(s *coord.Step, r coord.Record) error {
	w.log = append(w.log, coord.Record{Key: append([]byte{}, r.Key...), Value: cloneValue(r.Value)})
	return w.m.Apply(s, r)
}

func cloneValue(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

func (w *world) Loaded(s *coord.Step) { w.m.Loaded(s) }
func (w *world) Unload(s *coord.Step) { w.m.Unload(s) }

// step runs one step on the machine.
func (w *world) step(op func(s *coord.Step)) {
	if w.one == nil {
		w.one = coord.NewStep(w.now)
	}
	w.one.Now = w.now
	op(w.one)
	w.one.Run(w, record.Offset(len(w.log)), w.fail)
	b := w.one.Buffer()
	for i := range b[:cap(b)] {
		b[:cap(b)][i] = 0xff
	}
}

func (w *world) say(format string, args ...any) {
	w.out = append(w.out, fmt.Sprintf(format, args...))
}

// pass lets time go by, running what becomes due at its time.
func (w *world) pass(d time.Duration) {
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

// args are a command's words of the form name=value.
type args map[string]string

func (a args) int(name string, or int) int {
	if v, ok := a[name]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			panic(err)
		}
		return n
	}
	return or
}

func (a args) ms(name string, or time.Duration) int32 {
	if v, ok := a[name]; ok {
		d, err := time.ParseDuration(v)
		if err != nil {
			panic(err)
		}
		or = d
	}
	return int32(or / time.Millisecond)
}

func (a args) opt(name string) *string {
	if v, ok := a[name]; ok {
		return &v
	}
	return nil
}

// run runs a command:
//
//	join WHO [id=] [v=] [static=] [session=] [rebalance=] [type=] [range=topics] [sticky=topics]
//	sync WHO id= gen= [v=] [static=] [protocol=] [give=id:what,...]
//	beat id= gen= [static=]          leave id=... | static=...
//	commit [id=] [gen=] [v=] [static=] [retain=] T/P=offset[@epoch][:metadata] ...
//	fetch [T/P ...]                  drop-offsets T/P ...     topic-gone T
//	describe [v=]   list [states=] [types=]   delete   members
//	pass DURATION   set name=value   disk full|ok   log   reload   unload
func (w *world) run(cmd string) []string {
	w.out = nil
	words := strings.Fields(cmd)
	a, rest := args{}, []string{}
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if ok && !strings.Contains(name, "/") && name != "range" && name != "sticky" {
			a[name] = value
		} else {
			rest = append(rest, word)
		}
	}
	ops := map[string]func(args, []string){
		"join": w.join, "sync": w.sync, "beat": w.beat, "leave": w.leave, "commit": w.commit, "fetch": w.fetch,
		"drop-offsets": w.dropOffsets, "topic-gone": w.topicGone, "describe": w.describe, "list": w.list,
		"delete": w.delete, "set": w.change, "disk": w.disk, "log": w.printLog, "reload": w.reload, "unload": w.unload,
		"pass": func(_ args, rest []string) {
			d, err := time.ParseDuration(rest[0])
			if err != nil {
				w.t.Fatal(err)
			}
			w.pass(d)
		},
	}
	op := ops[words[0]]
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

func text(p *string) string {
	if p == nil {
		return "-"
	}
	return *p
}

// metadata is a consumer's, subscribed to topics written t1+t2.
func metadata(topics string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	if topics != "" {
		m.Topics = strings.Split(topics, "+")
	}
	return m.AppendTo(nil)
}

func (w *world) join(a args, rest []string) {
	who := rest[0]
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version = int16(a.int("v", 9))
	req.Group, req.MemberID, req.InstanceID = "g", a["id"], a.opt("static")
	req.SessionTimeoutMillis = a.ms("session", 10*time.Second)
	req.RebalanceTimeoutMillis = a.ms("rebalance", time.Minute)
	req.ProtocolType = "consumer"
	if v, ok := a["type"]; ok {
		req.ProtocolType = v
	}
	for _, p := range rest[1:] {
		name, topics, _ := strings.Cut(p, "=")
		req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: name, Metadata: metadata(topics)})
	}
	w.step(func(s *coord.Step) {
		w.m.Join(s, Client{ID: who, Host: "/127.0.0.1"}, req, func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode != 0 {
				w.say("%s joins: %s id=%s", who, name(r.ErrorCode), r.MemberID)
				return
			}
			var ids []string
			for _, mb := range r.Members {
				ids = append(ids, mb.MemberID)
			}
			skip := ""
			if r.SkipAssignment {
				skip = " skip"
			}
			w.say("%s joins: gen=%d %s/%s id=%s leader=%s members=%v%s", who, r.Generation,
				text(r.ProtocolType), text(r.Protocol), r.MemberID, r.LeaderID, ids, skip)
		})
	})
}

func (w *world) sync(a args, rest []string) {
	who := rest[0]
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version = int16(a.int("v", 5))
	req.Group, req.MemberID, req.InstanceID = "g", a["id"], a.opt("static")
	req.Generation = int32(a.int("gen", -1))
	req.Protocol = a.opt("protocol")
	if give := a["give"]; give != "" {
		for part := range strings.SplitSeq(give, ",") {
			id, what, _ := strings.Cut(part, ":")
			req.GroupAssignment = append(req.GroupAssignment,
				kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte(what)})
		}
	}
	w.step(func(s *coord.Step) {
		w.m.Sync(s, req, func(r *kmsg.SyncGroupResponse) {
			if r.ErrorCode != 0 {
				w.say("%s syncs: %s", who, name(r.ErrorCode))
				return
			}
			w.say("%s syncs: %s/%s %q", who, text(r.ProtocolType), text(r.Protocol), r.MemberAssignment)
		})
	})
}

func (w *world) beat(a args, _ []string) {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = "g", a["id"], a.opt("static"), int32(a.int("gen", -1))
	w.step(func(s *coord.Step) {
		c := w.m.Heartbeat(s, req)
		s.Reply(func(err error) { w.say("%s", name(codeOr(err, c))) })
	})
}

func (w *world) leave(a args, _ []string) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = "g"
	for id := range strings.SplitSeq(a["id"], ",") {
		req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{MemberID: id, InstanceID: a.opt("static")})
	}
	w.step(func(s *coord.Step) {
		resp := w.m.Leave(s, req)
		s.Reply(func(err error) {
			if err != nil {
				w.say("left: %s", name(codeOf(err)))
			}
			for _, r := range resp {
				w.say("left %s %s: %s", r.MemberID, text(r.InstanceID), name(r.ErrorCode))
			}
		})
	})
}

func partition(t *testing.T, s string) (topic string, p int32) {
	t.Helper()
	topic, n, _ := strings.Cut(s, "/")
	i, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	return topic, int32(i)
}

func (w *world) commit(a args, rest []string) {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version = int16(a.int("v", 9))
	req.Group, req.MemberID, req.InstanceID, req.Generation = "g", a["id"], a.opt("static"), int32(a.int("gen", -1))
	if _, ok := a["retain"]; ok {
		req.RetentionTimeMillis = int64(a.ms("retain", 0))
	}
	for _, word := range rest {
		where, what, _ := strings.Cut(word, "=")
		what, meta, _ := strings.Cut(what, ":")
		at, epoch, _ := strings.Cut(what, "@")
		topic, n := partition(w.t, where)
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Metadata = n, &meta
		p.Offset, _ = strconv.ParseInt(at, 10, 64)
		if e, err := strconv.Atoi(epoch); err == nil {
			p.LeaderEpoch = int32(e)
		}
		req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{
			Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p},
		})
	}
	w.step(func(s *coord.Step) {
		topics, c := w.m.Commit(s, req)
		s.Reply(func(err error) {
			if c = codeOr(err, c); c != 0 {
				w.say("%s", name(c))
				return
			}
			for _, t := range topics {
				w.say("%s/%d: %s", t.Topic, t.Partitions[0].Partition, name(t.Partitions[0].ErrorCode))
			}
		})
	})
}

func (w *world) fetch(_ args, rest []string) {
	req := kmsg.NewOffsetFetchRequestGroup()
	req.Group = "g"
	for _, word := range rest {
		topic, n := partition(w.t, word)
		req.Topics = append(req.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: topic, Partitions: []int32{n}})
	}
	w.step(func(s *coord.Step) {
		resp := w.m.Fetch(s, &req, false)
		s.Reply(func(error) {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					w.say("%s/%d = %d@%d %q %s", t.Topic, p.Partition, p.Offset, p.LeaderEpoch, *p.Metadata, name(p.ErrorCode))
				}
			}
		})
	})
}

func (w *world) dropOffsets(_ args, rest []string) {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = "g"
	for _, word := range rest {
		topic, n := partition(w.t, word)
		req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{
			Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: n}},
		})
	}
	w.step(func(s *coord.Step) {
		topics, c := w.m.DeleteOffsets(s, req)
		s.Reply(func(error) {
			if c != 0 {
				w.say("%s", name(c))
			}
			for _, t := range topics {
				w.say("%s/%d: %s", t.Topic, t.Partitions[0].Partition, name(t.Partitions[0].ErrorCode))
			}
		})
	})
}

func (w *world) topicGone(_ args, rest []string) {
	w.step(func(s *coord.Step) { w.m.TopicsDeleted(s, goneTopics{rest[0]: {{}}}) })
}

func (w *world) describe(a args, _ []string) {
	w.step(func(s *coord.Step) {
		d := w.m.Describe(s, "g", int16(a.int("v", 6)))
		w.say("%s %s type=%q protocol=%q", name(d.ErrorCode), d.State, d.ProtocolType, d.Protocol)
		for _, mb := range d.Members {
			w.say("%s static=%s client=%s host=%s metadata=%d bytes assignment=%q", mb.MemberID, text(mb.InstanceID),
				mb.ClientID, mb.ClientHost, len(mb.ProtocolMetadata), mb.MemberAssignment)
		}
	})
}

func (w *world) list(a args, _ []string) {
	split := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(s, ",")
	}
	w.step(func(s *coord.Step) {
		for _, g := range w.m.List(s, split(a["states"]), split(a["types"])) {
			w.say("%s %s %s type=%q", g.Group, g.GroupState, g.GroupType, g.ProtocolType)
		}
	})
}

func (w *world) delete(args, []string) {
	w.step(func(s *coord.Step) {
		c := w.m.Delete(s, "g")
		s.Reply(func(error) { w.say("%s", name(c)) })
	})
}

func (w *world) change(a args, _ []string) {
	for name := range a {
		switch name {
		case "size":
			w.set.MaxSize = a.int(name, 0)
		case "retention":
			w.set.Retention = time.Duration(a.ms(name, 0)) * time.Millisecond
		case "delay":
			w.set.InitialDelay = time.Duration(a.ms(name, 0)) * time.Millisecond
		default:
			w.t.Fatalf("unknown setting %s", name)
		}
	}
}

func (w *world) disk(_ args, rest []string) {
	w.fail = nil
	if rest[0] == "full" {
		w.fail = replica.ErrDiskFull
	}
}

// printLog prints the records that came since it was last printed.
func (w *world) printLog(args, []string) {
	for _, r := range w.log[w.shown:] {
		k, err := commit.DecodeKey(r.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		switch {
		case k.Kind == commit.GroupKind && r.Value == nil:
			w.say("group %s: gone", k.Group)
		case k.Kind == commit.GroupKind:
			var v kmsg.GroupMetadataValue
			if err := v.ReadFrom(r.Value); err != nil {
				w.t.Fatal(err)
			}
			var ids []string
			for _, mb := range v.Members {
				ids = append(ids, fmt.Sprintf("%s:%s", mb.MemberID, mb.Assignment))
			}
			w.say("group %s v%d: gen=%d type=%q protocol=%s leader=%s members=%v", k.Group, v.Version,
				v.Generation, v.ProtocolType, text(v.Protocol), text(v.Leader), ids)
		case r.Value == nil:
			w.say("offset %s %s/%d: gone", k.Group, k.Topic, k.Partition)
		default:
			o, err := decodeOffset(r.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			w.say("offset %s v%d %s/%d = %d@%d %q expires=%d", k.Group, o.Version(), k.Topic, k.Partition,
				o.At, o.Epoch, o.Metadata, o.Expires)
		}
	}
	w.shown = len(w.log)
}

// reload is a failover: another machine reads the log.
func (w *world) reload(args, []string) {
	log := w.log
	w.log = nil
	w.m.members.LeaveBudget() // its node is gone
	w.m.memory.LeaveBudget()
	w.fresh()
	for _, r := range log {
		w.step(func(s *coord.Step) { s.Put(r.Key, r.Value) })
	}
	if n := w.total.Used() - w.taken; n != 0 {
		w.t.Errorf("%d bytes are taken for a machine that may never be opened", n)
	}
	w.step(w.m.Loaded)
}

func (w *world) unload(args, []string) { w.step(w.m.Unload) }

// newTestMachine makes a machine with a budget of its own.
func newTestMachine(settings func() Settings, newID func() string) *Machine {
	total := memory.NewBudget(slog.New(slog.DiscardHandler), 0)
	return NewMachine(new(coord.Timers), total, total, settings, newID)
}
