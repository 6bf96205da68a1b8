package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// join registers a broker and has it become active.
func join(tb testing.TB, ctl *Controller, id int32) (epoch int64) {
	tb.Helper()
	epoch, err := tryToJoin(tb.Context(), ctl, id)
	if err != nil {
		tb.Fatal(err)
	}
	return epoch
}

func tryToJoin(ctx context.Context, ctl *Controller, id int32) (epoch int64, err error) {
	g := Registration{Broker: meta.Broker{
		ID: id, Incarnation: meta.UUID{1, byte(id)}, Listeners: []meta.Listener{{Host: "h", Port: 9092}}, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()},
	}}
	epoch, refused, err := ctl.RegisterBroker(ctx, 0, &g)
	if err == nil && refused == nil {
		applied := uint64(0)
		if ctl.cfg.Applied != nil {
			applied = ctl.cfg.Applied()
		}
		_, refused, err = ctl.Heartbeat(ctx, 0, &Beat{Registered: Registered{id, epoch}, Applied: applied, Caught: true})
	}
	if refused != nil {
		err = refused
	}
	return epoch, err
}

// runCluster runs the scripts' commands about several nodes. Options are key=value.
func (s *script) runCluster(out *strings.Builder, f []string) {
	options := map[string]string{}
	words := slices.DeleteFunc(slices.Clone(f), func(w string) bool {
		k, v, isOption := strings.Cut(w, "=")
		if isOption {
			options[k] = v
		}
		return isOption
	})
	has := func(w string) bool { return slices.Contains(words, w) }
	ctx := s.t.Context()
	switch f[0] {
	case "register":
		s.register(out, number(s.t, words[1]), options, has("clean"))
	case "beat":
		s.beat(out, number(s.t, words[1]), options, words)
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now += d
		fmt.Fprintln(out, s.ctl.Tick(ctx, s.now))
	case "closed":
		s.ctl.PeerClosed(s.now, number(s.t, words[1]))
		fmt.Fprintln(out, s.ctl.Tick(ctx, s.now))
	case "refuses":
		s.ctl.PeerRefused(s.now, number(s.t, words[1]))
		fmt.Fprintln(out, s.ctl.Tick(ctx, s.now))
	case "term":
		s.c.term++
	case "isr":
		s.isr(out, words[1], words[2], options)
	case "elect":
		s.elect(out, words[1], has("unclean"))
	case "reassign":
		s.reassign(out, words[1:], has("keep"))
	case "unregister":
		e, err := s.ctl.UnregisterBroker(ctx, number(s.t, words[1]))
		fmt.Fprintln(out, outcome(e), err)
	case "move":
		_, err := s.ctl.runParts(ctx, ofCluster, func(r *Rules) (Part, *Error) {
			return r.MoveReplicas(number(s.t, words[1]), ReplicaMoves{Most: 10}), nil
		})
		fmt.Fprintln(out, err)
	case "maintain":
		most := number(s.t, options["moves"])
		fmt.Fprintln(out, s.ctl.Maintain(ctx, s.now, Upkeep{Elections: int(number(s.t, options["elections"])), Moves: int(most)}))
	case "finalize":
		e, err := s.ctl.Finalize(ctx, words[1], int16(number(s.t, words[2])))
		fmt.Fprintln(out, outcome(e), err)
	case "nodes":
		s.nodes(out)
	case "parts":
		for _, name := range words[1:] {
			s.parts(out, name)
		}
	default:
		s.t.Fatalf("unknown command: %v", f)
	}
}

// register takes a node, dir=x, process=x, prev=epoch, gen=generation, rack=x, cluster=x, levels=min-max, unsynced=topic, clean.
func (s *script) register(out *strings.Builder, id int32, o map[string]string, clean bool) {
	g := Registration{ClusterID: o["cluster"], Clean: clean, Broker: meta.Broker{ID: id, Rack: o["rack"], Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()}}}
	copy(g.Broker.Directory[:], o["dir"])
	copy(g.Broker.Incarnation[:], fmt.Sprint(id, o["process"]))
	if p, ok := o["prev"]; ok {
		g.PreviousEpoch = int64(number(s.t, p))
	}
	if n, ok := o["gen"]; ok {
		g.Generation = int64(number(s.t, n))
	}
	if l, ok := o["levels"]; ok {
		lo, hi, _ := strings.Cut(l, "-")
		g.Broker.Features[0].Min, g.Broker.Features[0].Max = int16(number(s.t, lo)), int16(number(s.t, hi))
	}
	if t := s.c.Image().Topic(o["unsynced"]); t != nil {
		g.Unsynced = append(g.Unsynced, t.ID)
	}
	epoch, e, err := s.ctl.RegisterBroker(s.t.Context(), s.now, &g)
	fmt.Fprintln(out, "epoch", epoch, outcome(e), err)
}

// beat takes a node, epoch=n, applied=n, gen=generation, and early, fence, stop, full.
func (s *script) beat(out *strings.Builder, id int32, o map[string]string, words []string) {
	b := Beat{
		Registered: Registered{ID: id}, Applied: s.c.applied(), Caught: !slices.Contains(words, "early"),
		WantsFence: slices.Contains(words, "fence"), WantsStop: slices.Contains(words, "stop"), NoRoom: slices.Contains(words, "full"),
	}
	if r := s.c.Image().Brokers[id]; r != nil {
		b.Epoch = r.Epoch
	}
	if e, ok := o["epoch"]; ok {
		b.Epoch = int64(number(s.t, e))
	}
	if a, ok := o["applied"]; ok {
		b.Applied = uint64(number(s.t, a))
	}
	if n, ok := o["gen"]; ok {
		b.Generation = int64(number(s.t, n))
	}
	a, e, err := s.ctl.Heartbeat(s.t.Context(), s.now, &b)
	fmt.Fprintf(out, "fenced %v, leaving %v, may stop %v, %s %v\n", a.Fenced, a.Leaving, a.MayStop, outcome(e), err)
}

func (s *script) partition(name string) (Partition, *meta.Topic) {
	at := strings.LastIndexByte(name, '-')
	return Partition{name[:at], number(s.t, name[at+1:])}, s.c.Image().Topic(name[:at])
}

// isr takes partition id+id:epoch, from=node, broker=epoch, leader=epoch, epoch=partition epoch, successor=node, damaged=node.
func (s *script) isr(out *strings.Builder, name, members string, o map[string]string) {
	p, t := s.partition(name)
	a := InSyncChange{Partition: p.Number}
	from, brokerEpoch := int32(0), int64(0)
	if t != nil {
		a.Topic = t.ID
		if int(p.Number) < len(t.Partitions) {
			is := &t.Partitions[p.Number]
			a.LeaderEpoch, a.PartitionEpoch, from = is.LeaderEpoch, is.PartitionEpoch, is.Leader
		}
	}
	set := func(key string, to *int32) {
		if v, ok := o[key]; ok {
			*to = number(s.t, v)
		}
	}
	set("from", &from)
	set("leader", &a.LeaderEpoch)
	set("epoch", &a.PartitionEpoch)
	set("successor", &a.Successor)
	_, a.GivesUp = o["successor"]
	if v, ok := o["damaged"]; ok {
		a.Damaged = []int32{number(s.t, v)}
	}
	if b := s.c.Image().Brokers[from]; b != nil {
		brokerEpoch = b.Epoch
	}
	if v, ok := o["broker"]; ok {
		brokerEpoch = int64(number(s.t, v))
	}
	for m := range strings.SplitSeq(members, "+") {
		if m == "nobody" {
			break
		}
		id, epoch, given := strings.Cut(m, ":")
		member := Member{ID: number(s.t, id)}
		if b := s.c.Image().Brokers[member.ID]; b != nil {
			member.Epoch = b.Epoch
		}
		if given {
			member.Epoch = int64(number(s.t, epoch))
		}
		a.ISR = append(a.ISR, member)
	}
	results, e, err := s.ctl.AlterPartitions(s.t.Context(), from, brokerEpoch, []InSyncChange{a})
	if e != nil || err != nil {
		fmt.Fprintln(out, "all:", outcome(e), err)
		return
	}
	fmt.Fprintln(out, outcome(results[0].Err))
	if results[0].Err == nil {
		fmt.Fprintln(out, describe(&results[0].After))
	}
}

func (s *script) elect(out *strings.Builder, name string, unclean bool) {
	var asked []Partition
	if name != "all" {
		p, _ := s.partition(name)
		asked = []Partition{p, p} // one that is there twice is elected once
	} else {
		rules := Rules{Image: s.c.Image()}
		for _, t := range rules.concerned(func(*meta.Partition) bool { return true }) {
			for i := range t.Partitions {
				asked = append(asked, Partition{t.Name, int32(i)})
			}
		}
	}
	results, err := s.ctl.ElectLeaders(s.t.Context(), asked, unclean)
	if err != nil {
		s.t.Fatal(err)
	}
	if name != "all" {
		if outcome(results[0].Err) != outcome(results[1].Err) {
			s.t.Errorf("%v and %v", results[0], results[1])
		}
		results = results[:1]
	}
	for _, r := range results {
		if name != "all" || r.Err == nil || r.Err.Kind != ElectionNotNeeded {
			fmt.Fprintf(out, "%s-%d: %s\n", r.Topic, r.Number, outcome(r.Err))
		}
	}
}

// reassign takes partition, id+id or cancel, and keep if the number of replicas must stay.
func (s *script) reassign(out *strings.Builder, words []string, keep bool) {
	p, _ := s.partition(words[0])
	a := Reassignment{Partition: p}
	if words[1] != "cancel" {
		a.Replicas = replicas(s.t, words[1])
		if a.Replicas == nil {
			a.Replicas = []int32{}
		}
	}
	results, err := s.ctl.AlterReassignments(s.t.Context(), []Reassignment{a}, !keep)
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintln(out, outcome(results[0]))
	rules := Rules{Image: s.c.Image(), Static: s.c.static}
	for _, r := range rules.ListReassignments(nil) {
		fmt.Fprintf(out, "under way: %s-%d: %v, adding %v, removing %v\n", r.Topic, r.Number, r.Replicas, r.Adding, r.Removing)
	}
}

func (s *script) nodes(out *strings.Builder) {
	m := s.c.Image()
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		b := m.Brokers[id]
		state := [...]string{"fenced", "active", "leaving"}[b.State]
		fmt.Fprintf(out, "%d: %s in epoch %d, recorded %d, directory %q", id, state, b.Epoch, b.RecordedEpoch, strings.TrimRight(string(b.Directory[:]), "\x00"))
		if b.Generation > 0 {
			fmt.Fprintf(out, ", generation %d", b.Generation)
		}
		fmt.Fprintln(out)
	}
}

func (s *script) parts(out *strings.Builder, name string) {
	t := s.c.Image().Topic(name)
	if t.Follows {
		fmt.Fprintf(out, "%s follows the cluster\n", name)
	}
	for i := range t.Partitions {
		fmt.Fprintf(out, "%s-%d: %s\n", name, i, describe(&t.Partitions[i]))
	}
}

func describe(p *meta.Partition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "leader %d in %d.%d of %v, in sync %v", p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.Replicas, p.ISR)
	for _, l := range []struct {
		name string
		ids  []int32
	}{{"adding", p.Adding}, {"removing", p.Removing}, {"eligible", p.Eligible}, {"last", p.LastEligible}} {
		if len(l.ids) > 0 {
			fmt.Fprintf(&b, ", %s %v", l.name, l.ids)
		}
	}
	return b.String()
}
