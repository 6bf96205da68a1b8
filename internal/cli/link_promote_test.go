package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
)

// promotionFake is a node whose topics "orders", of two partitions, and "web", of one, are promoted when it is asked for that, partition by partition with each look.
type promotionFake struct {
	*linkFake

	states   map[cluster.PartitionPlace]string
	problems []cluster.LinkProblem // what a request for a promotion finds
	clears   int                   // after how many requests there are no problems any more; 0: never
	perLook  int                   // how many partitions a look finds promoted more
}

// begunAt is when the promotions of the tests begin.
var begunAt = time.Date(2026, 12, 1, 10, 0, 30, 0, time.UTC)

func newPromotionFake() *promotionFake {
	f := &promotionFake{states: map[cluster.PartitionPlace]string{}, perLook: 3}
	for _, p := range []cluster.PartitionPlace{{Topic: "orders", Partition: 0}, {Topic: "orders", Partition: 1}, {Topic: "web", Partition: 0}} {
		f.states[p] = "WAITING"
	}
	f.linkFake = newLinkFake(func(q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		switch q.Verb {
		case cluster.LinkPromote, cluster.LinkFailover:
			if f.clears > 0 {
				if f.clears--; f.clears == 0 {
					f.problems = nil
				}
			}
			if !q.Force && len(f.problems) > 0 {
				a.Problems = f.problems
				return a, nil, nil
			}
			for p, state := range f.states {
				if (len(q.Topics) == 0 || slices.Contains(q.Topics, p.Topic)) && state == "WAITING" {
					a.Changed = true
					if !q.DryRun {
						f.states[p] = "PROMOTING"
					}
				}
			}
			f.goOn()
			return a, nil, nil
		case cluster.LinkDescribe:
			return f.describe(q), nil, nil
		default:
			return a, nil, nil
		}
	})
	return f
}

// goOn has some partitions reach the end of their promotion.
func (f *promotionFake) goOn() {
	left := f.perLook
	for p, state := range f.states {
		if state == "PROMOTING" && left > 0 {
			f.states[p] = "PROMOTED"
			left--
		}
	}
}

func (f *promotionFake) describe(q *cluster.LinkRequest) (a cluster.LinkAnswer) {
	a.Links = []cluster.LinkStatus{{Name: "north", Source: "there"}}
	for _, p := range []cluster.PartitionPlace{{Topic: "orders", Partition: 0}, {Topic: "orders", Partition: 1}, {Topic: "web", Partition: 0}} {
		if len(q.Topics) > 0 && !slices.Contains(q.Topics, p.Topic) {
			continue
		}
		s := cluster.PartitionStatus{PartitionPlace: p, Source: "s." + p.Topic, State: f.states[p], End: 90, SourceEnd: 100, Lag: cluster.Lag{Records: 10, Bytes: 1500, Behind: 2 * time.Second, RPO: 2500 * time.Millisecond}}
		switch {
		case p.Topic == "web":
			s.SourceEnd, s.Lag = -1, cluster.UnknownLag()
		case p.Partition == 1:
			s.End, s.Lag = 100, cluster.Lag{RPO: time.Second}
		}
		if s.State == "PROMOTED" {
			s.Parting = partingOfTest(p)
		}
		a.Partitions = append(a.Partitions, s)
	}
	f.goOn()
	return a
}

// partingOfTest is what was known of a partition: orders-0 lacks records, orders-1 none, and of web nothing was known.
func partingOfTest(p cluster.PartitionPlace) *cluster.PartingStatus {
	switch {
	case p.Topic == "web":
		return &cluster.PartingStatus{State: cluster.StateUnknown, End: 7, Start: 7, SourceEnd: -1, Records: -1, Bytes: -1, Begun: begunAt}
	case p.Partition == 1:
		return &cluster.PartingStatus{State: "MIRRORING", End: 100, Start: 101, SourceEnd: 100, Contact: begunAt.Add(-time.Second), AsOf: begunAt.Add(-time.Second), Begun: begunAt}
	}
	return &cluster.PartingStatus{
		State: "GAP", End: 90, Start: 92, SourceEnd: 1100, Records: 1010, Bytes: 1500, Contact: begunAt.Add(-2 * time.Second), AsOf: begunAt.Add(-2500 * time.Millisecond), Begun: begunAt,
		Transactions: []cluster.PartedTransaction{{Producer: 7000, Epoch: 3, First: 80, Outcome: "ABORTED_UNDECIDED"}, {Producer: 7001, Epoch: 0, First: -1, Commit: true, Outcome: "TORN"}}, More: 3,
	}
}

// changes are the requests that were to change something, as "VERB TOPIC,...".
func (f *promotionFake) changes() (all []string) {
	for _, q := range f.asked {
		if (q.Verb == cluster.LinkPromote || q.Verb == cluster.LinkFailover) && !q.DryRun {
			line := string(q.Verb) + " all"
			if len(q.Topics) > 0 {
				line = string(q.Verb) + " " + strings.Join(q.Topics, ",")
			}
			if q.Force {
				line += " by force"
			}
			all = append(all, line)
		}
	}
	return all
}

// TestFailoverReports proves that a failover shows what is missing before it begins, waits until all partitions are promoted, and then reports what was lost, as a table and as JSON; that what is not known is said to
// be so; and that the report can be shown again.
func TestFailoverReports(t *testing.T) {
	f := newPromotionFake()
	f.perLook = 2
	_, out, errs := f.run(t, "failover", "north", "--yes")
	const risk = `what a failover now would lose: the records that are known to be missing here, and what was written at the source since all was here:
TOPIC   PARTITIONS  STATE    MISSING    BYTES  ALL WAS HERE
orders           2  WAITING       10  1.50 kB      2.5s ago
web              1  WAITING        -        -             -
`
	const report = `TOPIC   PARTITION  WAS        MIRROR END  SOURCE END   LOST    BYTES  SECONDS  COMPLETE AS OF               LAST CONTACT
orders          0  GAP                90       1,100  1,010  1.50 kB      2.5  2026-12-01 10:00:27.500 UTC  2026-12-01 10:00:28.000 UTC
orders          1  MIRRORING         100         100      0      0 B      1.0  2026-12-01 10:00:29.000 UTC  2026-12-01 10:00:29.000 UTC
web             0  UNKNOWN             7           -      -        -        -  -                            -
lost: at least 1,010 records, about 1.50 kB, in 1 partition
all that the source had committed by 2026-12-01 10:00:27.500 UTC is here; what was written there after that, in 2.5 s at most, need not be
of 1 partition it is not known what was lost: who led here when the promotion began had not heard from the source

transactions that have not ended here as at the source, or of which that is not known:
TRANSACTION OF  EPOCH  TOPIC   PARTITION  FIRST OFFSET  OUTCOME
producer 7001       0  orders          0             -  TORN
producer 7000       3  orders          0            80  ABORTED_UNDECIDED
and 3 more: -o json has them, the first thousand of each partition
TORN: committed in some partitions, and aborted or missing in others, since readers had seen a part of it
ABORTED_UNDECIDED: aborted here; nobody here knows whether the source has committed it
`
	if d := cmp.Diff(risk, errs); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(report+"promoted 2 topics of link north: clients can write here; \"leat link report north\" shows this report again\n", out); d != "" {
		t.Error(d)
	}
	if got := f.changes(); !slices.Equal(got, []string{"failover all"}) {
		t.Errorf("%q", got)
	}
	if out := f.expect(t, exitOK, "report north"); out != report {
		t.Error(cmp.Diff(report, out))
	}
	var again shownPartings
	if err := json.Unmarshal([]byte(f.expect(t, exitOK, "report north web -o json")), &again); err != nil || len(again.Partitions) != 1 || again.Pending != 0 {
		t.Fatalf("%v: %+v", err, again)
	}
	if p := again.Partitions[0]; p.Records != nil || p.Bytes != nil || p.Seconds != nil || p.SourceEnd != nil || p.LastContact != nil || p.AsOf != nil || *p.MirrorEnd != 7 || *p.Start != 7 || !p.Promoted.Equal(begunAt) || p.Was != "UNKNOWN" {
		t.Errorf("%+v", p)
	}
	f = newPromotionFake()
	f.expect(t, exitOK, "report north", `nothing was promoted: "leat link describe north"`)
	var r promotion
	code, out, errs := f.run(t, strings.Fields("failover north orders --yes -o json")...)
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || errs != "" || err != nil || !r.Done || !r.Changed || r.DryRun || len(r.Partitions) != 2 || !slices.Equal(r.Topics, []string{"orders"}) || len(r.Before) != 1 || r.Problems == nil {
		t.Fatalf("%d, %v: %+v\n%s", code, err, r, errs)
	}
	if p := r.Partitions[0]; *p.Records != 1010 || *p.Bytes != 1500 || *p.Seconds != 2.5 || *p.SourceEnd != 1100 || *p.MirrorEnd != 90 || *p.Start != 92 || !p.AsOf.Equal(begunAt.Add(-2500*time.Millisecond)) || p.MoreTransactions != 3 || len(p.Transactions) != 2 ||
		*p.Transactions[0].FirstOffset != 80 || p.Transactions[1].FirstOffset != nil || !p.Transactions[1].Committed || p.Transactions[0].Meaning == "" {
		t.Errorf("%+v", p)
	}
	f.expect(t, exitOK, "report north", "lost: at least 1,010 records", "not promoted: 1 partition\n")
}

// TestPromotionsAreRefused proves what is said, and with which code, when a promotion is refused: which partitions lack what, and which verb is the right one; that a dry run changes nothing and ends as the promotion would; and that
// only --force has a failover go on.
func TestPromotionsAreRefused(t *testing.T) {
	lag := []cluster.LinkProblem{{About: "orders-0", Text: "It lacks 10 records."}, {About: "web-0", Text: "It is WAITING."}}
	answers := []cluster.LinkProblem{{About: "source", Text: "The source answers at n:1."}}
	for _, c := range []struct {
		line     string
		problems []cluster.LinkProblem
		code     int
		changes  []string
		says     []string
	}{
		{"promote north --yes", lag, exitFailed, []string{"promote all"}, []string{
			"problem: orders-0: It lacks 10 records.\nproblem: web-0: It is WAITING.\n", "link north: nothing was promoted, since there are 2 problems: stop what writes to the topics at the source",
			`with --wait 10m`, `if the source is gone, "leat link failover north"`, "how far the mirrors are behind:\nTOPIC",
		}},
		{"promote north orders --dry-run", lag, exitFailed, nil, []string{"problem: orders-0", `"leat link failover north orders"`}},
		{"failover north orders --yes", answers, exitFailed, []string{"failover orders"}, []string{
			"problem: source: The source answers at n:1.\n", `since there is 1 problem: "leat link promote north orders" promotes when nothing is missing here, and --force whatever is; there is no planned switchover yet`, "MISSING",
		}},
		{"failover north --dry-run", answers, exitFailed, nil, []string{"what a failover now would lose", "problem: source"}},
		{"failover north --dry-run --force", nil, exitOK, nil, []string{"2 topics of link north would be promoted\n", "what a failover now would lose"}},
		{"promote north orders --dry-run", nil, exitOK, nil, []string{"1 topic of link north would be promoted\n"}},
	} {
		f := newPromotionFake()
		f.problems = c.problems
		f.expect(t, c.code, c.line, c.says...)
		if got := f.changes(); !slices.Equal(got, c.changes) {
			t.Errorf("%s: %q, want %q", c.line, got, c.changes)
		}
		for p, state := range f.states {
			if state != "WAITING" {
				t.Errorf("%s: %v is %s", c.line, p, state)
			}
		}
		f = newPromotionFake()
		f.problems = c.problems
		var r promotion
		if err := json.Unmarshal([]byte(f.expect(t, c.code, c.line+" -o json")), &r); err != nil || r.Done || len(r.Problems) != len(c.problems) || r.Changed != (c.code == exitOK) {
			t.Errorf("%s: %v: %+v", c.line, err, r)
		}
	}
	f := newPromotionFake()
	f.problems = answers
	f.expect(t, exitOK, "failover north --yes --force", "promoted 2 topics")
	if got := f.changes(); !slices.Equal(got, []string{"failover all by force"}) {
		t.Errorf("%q", got)
	}
	empty := answerLinks(cluster.LinkAnswer{Links: []cluster.LinkStatus{{Name: "north"}}})
	empty.expect(t, exitNotFound, "promote north --yes", "link north mirrors no topic: there is nothing to promote")
	elsewhere := newLinkFake(func(q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		if q.Verb == cluster.LinkList {
			return a, nil, nil
		}
		return a, &controller.Error{Kind: controller.UnknownLink}, nil
	})
	elsewhere.expect(t, exitNotFound, "failover north orders --yes", `run "leat link failover north orders" on the machine of a node of the other cluster`)
}

// TestPromotionsGoOn proves that the same command waits for a promotion that is under way, begins only what has not begun, and says that it was done before; that --wait waits until nothing is missing; and that a
// promotion which is not at its end in time is told with what is left.
func TestPromotionsGoOn(t *testing.T) {
	f := newPromotionFake()
	f.states[cluster.PartitionPlace{Topic: "orders"}], f.states[cluster.PartitionPlace{Topic: "orders", Partition: 1}] = "PROMOTED", "PROMOTING"
	f.expect(t, exitOK, "promote north web orders --yes", "promoted 2 topics")
	if got := f.changes(); !slices.Equal(got, []string{"promote web"}) {
		t.Errorf("%q", got)
	}
	f.asked = nil
	f.expect(t, exitOK, "promote north --yes", "2 topics of link north: promoted before, and nothing was changed\n", "LAST CONTACT")
	f.expect(t, exitOK, "failover north --dry-run", "nothing would be changed: the promotion has begun before\n")
	if got := f.changes(); len(got) > 0 {
		t.Errorf("%q", got)
	}
	f = newPromotionFake()
	f.problems, f.clears = []cluster.LinkProblem{{About: "orders-0", Text: "It lacks 10 records."}}, 2
	f.expect(t, exitOK, "promote north orders --yes --wait 1m", "promoted 1 topic")
	if got := f.changes(); !slices.Equal(got, []string{"promote orders"}) {
		t.Errorf("%q", got)
	}
	f = newPromotionFake()
	f.problems = []cluster.LinkProblem{{About: "orders-0", Text: "It lacks 10 records."}}
	f.expect(t, exitFailed, "promote north --yes --wait 1ms", "problem: orders-0", "after 1ms it is still so: stop what writes", `"leat link failover north"`)
	f = newPromotionFake()
	f.perLook = 0
	f.expect(t, exitFailed, "failover north --yes --timeout 1ms", "the promotion has begun, and goes on by itself; after ", "3 of 3 partitions not promoted yet: orders 0-1 and web 0; run this again to wait for it")
	var r promotion
	if err := json.Unmarshal([]byte(f.expect(t, exitFailed, "failover north --yes --timeout 1ms -o json")), &r); err != nil || r.Done || r.Changed {
		t.Errorf("%v: %+v", err, r)
	}
}
