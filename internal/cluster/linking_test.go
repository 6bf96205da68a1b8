package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/peer"
)

// linkRig is a LinkServer that answers as a test says, and keeps what it was asked.
type linkRig struct {
	list   func(link meta.UUID) []PartitionStatus // nil: it mirrors nothing
	tasks  []TaskStatus
	agents []AgentStatus
	serve  func(q *LinkRequest) (LinkAnswer, *controller.Error, error)

	mu    sync.Mutex // guards asked
	asked []LinkRequest
}

func (r *linkRig) ListMirrors(link meta.UUID) []PartitionStatus {
	if r.list == nil {
		return nil
	}
	return r.list(link)
}

func (*linkRig) AnswerClaims(question json.RawMessage) (json.RawMessage, error) {
	if string(question) == `"bad"` {
		return nil, errors.New("a bad question")
	}
	return json.Marshal(fmt.Sprintf("answer to %s", question))
}

func (r *linkRig) ListTasks() []TaskStatus {
	all := slices.Clone(r.tasks)
	for i := range all {
		all[i].Notes, all[i].Differences = slices.Clone(all[i].Notes), slices.Clone(all[i].Differences)
	}
	return all
}

func (r *linkRig) ListAgents() []AgentStatus { return slices.Clone(r.agents) }

func (r *linkRig) ServeLink(_ context.Context, q *LinkRequest) (LinkAnswer, *controller.Error, error) {
	r.mu.Lock()
	r.asked = append(r.asked, *q)
	r.mu.Unlock()
	if r.serve == nil {
		return LinkAnswer{}, nil, nil
	}
	return r.serve(q)
}

// administratorOf connects to a member as the holder of its data directory does.
func administratorOf(t *testing.T, m *member) Administrator {
	t.Helper()
	d := credential.DialAsAdministrator(m.w.self(m.id), credential.Target{Nodes: m.w, NodeID: m.id}, rand.Reader)
	conn, err := peer.Dial(t.Context(), m.listener.Addr().String(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return Administrator{conn}
}

// north is a link of the tests, with a secret that is sealed.
func north() *meta.Link {
	return &meta.Link{
		ID: meta.UUID{1, 15: 2}, Name: "north", Source: "BBBBBBBBBBBBBBBBBBBBBB", Secret: []byte("sealed"),
		Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: "h:1"}, {Key: "ssl.truststore.certificates", Value: "PEM"}, {Key: "topics", Value: "*"}},
	}
}

// makeMirrors makes a link and topics that mirror by it.
func makeMirrors(t *testing.T, m *member, l *meta.Link, partitions int32, topics ...string) {
	t.Helper()
	q := &controller.LinksChange{Kind: controller.CreateMirrors}
	for _, name := range topics {
		q.Topics = append(q.Topics, controller.MirrorTopic{Name: name, Partitions: partitions, ReplicationFactor: 1, Mirror: &meta.Mirror{Link: l.ID, Topic: "s-" + name, Path: []string{l.Source}}})
	}
	for _, q := range []*controller.LinksChange{{Kind: controller.CreateLink, Link: l}, q} {
		results, refused, err := ChangeLinks(t.Context(), m.ctl, q)
		if refused != nil || err != nil || slices.ContainsFunc(results, func(e *controller.Error) bool { return e != nil }) {
			t.Fatal(results, refused, err)
		}
	}
}

// startLinked starts members whose nodes have a linkRig each.
func startLinked(t *testing.T, count int) (all []*member, rigs []*linkRig) {
	t.Helper()
	w := newWorld(t)
	all = w.startMembers(count, 1, func(m *member, _ context.Context) []peer.Handler {
		r := new(linkRig)
		rigs = append(rigs, r)
		m.ctl.cfg.Linking = r
		return nil
	})
	return all, rigs
}

// TestLinksAreDescribedByAllNodes proves that the node that is asked tells of the partitions that all nodes lead: their states and lags, in the order of topics and partitions; the sums of a link;
// and what the metadata say where no node has told anything.
func TestLinksAreDescribedByAllNodes(t *testing.T) {
	all, rigs := startLinked(t, 3)
	l := north()
	makeMirrors(t, all[0], l, 3, "b", "a")
	for _, m := range all[1:] {
		eventually(t, "the mirrors are known", func() bool { return m.meta.image.Load().Topic("a") != nil && m.meta.image.Load().Topic("b") != nil })
	}
	contact := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for i, r := range rigs {
		r.list = func(link meta.UUID) (list []PartitionStatus) {
			for _, topic := range []string{"a", "b", "gone"} {
				for n := range int32(3) { // also of what other nodes lead, of which it must not tell
					list = append(list, PartitionStatus{
						PartitionPlace: PartitionPlace{topic, n}, Source: "s-" + topic, State: "MIRRORING", End: 90, SourceEnd: 100, LastContact: contact.Add(time.Duration(i) * time.Second),
						Lag: Lag{10, 1000, time.Second, time.Duration(i+1) * time.Second}, Reason: strings.Repeat("x", 2*mostReason),
					})
				}
			}
			if link != l.ID {
				t.Errorf("node %d was asked for the link %v", i+1, link)
			}
			return list
		}
	}
	other := TaskStatus{Link: meta.UUID{9}, Task: "topics", State: "RUNNING", Notes: []string{"Not told."}}
	differences := []ConfigDifference{{Topic: "a", Key: "k", Source: "1", Here: "2", Fate: "KEPT", Why: "w"}, {Topic: "b", Key: "k", Source: "1", Here: "2", Fate: "PUT_BACK", At: contact}}
	rigs[1].tasks = []TaskStatus{{Link: l.ID, Task: "topics", State: "RUNNING", Notes: []string{"A sentence."}, Differences: differences}, other}
	rigs[2].agents = []AgentStatus{{Link: l.ID, Token: "ab", Name: "first", Problem: strings.Repeat("x", 2*mostReason)}, {Link: meta.UUID{9}}}
	if _, refused, err := ChangeLinks(t.Context(), all[1].ctl, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: l.ID, Change: &controller.LinkChange{
		Agent: &controller.AgentChange{Made: &meta.LinkAgent{Token: [8]byte{0xab}, Expires: 1000}},
	}}); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	ask := administratorOf(t, all[1])
	serve := func(q *LinkRequest) LinkAnswer {
		t.Helper()
		a, refused, err := ask.ServeLinks(t.Context(), q)
		if refused != nil || err != nil {
			t.Fatal(refused, err)
		}
		return a
	}
	a := serve(&LinkRequest{Verb: LinkDescribe, Name: "north"})
	if len(a.Partitions) != 6 || a.More != 0 || len(a.Silent) != 0 || len(a.Links) != 1 {
		t.Fatalf("%+v", a)
	}
	leaders := map[int32]bool{}
	for i, p := range a.Partitions {
		want := PartitionPlace{[]string{"a", "b"}[i/3], int32(i % 3)}
		lead := all[0].meta.image.Load().Topic(want.Topic).Partitions[want.Partition].Leader
		leaders[lead] = true
		if p.PartitionPlace != want || p.State != "MIRRORING" || p.Node != lead || p.Link != l.ID || p.Lag.RPO != time.Duration(lead)*time.Second || len(p.Reason) > mostReason+3 {
			t.Errorf("%d: %+v", i, p)
		}
	}
	if len(leaders) < 2 {
		t.Fatalf("only %v lead", leaders)
	}
	want := LinkStatus{
		ID: l.ID, Name: "north", Source: l.Source, Settings: l.Settings, Secrets: true, Topics: 2, States: map[string]int{"MIRRORING": 6}, LastContact: contact.Add(2 * time.Second),
		Lag: Lag{60, 6000, time.Second, 3 * time.Second}, Tasks: []TaskStatus{{Link: l.ID, Task: "topics", Node: 2, State: "RUNNING", Notes: []string{"A sentence."}, Differences: differences}},
		Tokens: []AgentToken{{ID: "ab00000000000000", Expires: time.UnixMilli(1000).UTC()}},
		Agents: []AgentStatus{{Link: l.ID, Token: "ab", Name: "first", Node: 3, Problem: strings.Repeat("x", mostReason) + "..."}},
	}
	if d := cmp.Diff(want, a.Links[0]); d != "" {
		t.Error(d)
	}
	if a := serve(&LinkRequest{Verb: LinkDescribe, Name: "north", Topics: []string{"b"}}); !slices.Equal(a.Links[0].Tasks[0].Differences, differences[1:]) {
		t.Errorf("%+v", a.Links[0].Tasks)
	}
	want.Settings, want.Tasks[0].Notes, want.Tasks[0].Differences = l.Settings[:1], nil, nil
	if d := cmp.Diff([]LinkStatus{want}, serve(&LinkRequest{Verb: LinkList}).Links); d != "" {
		t.Error(d)
	}
	if a := serve(&LinkRequest{Verb: LinkDescribe, Name: "north", Topics: []string{"b"}, After: &PartitionPlace{"b", 1}}); len(a.Partitions) != 1 || a.Partitions[0].PartitionPlace != (PartitionPlace{"b", 2}) || len(a.Links[0].Tasks[0].Notes) > 0 {
		t.Errorf("%+v", a)
	}
	if _, refused, err := ask.ServeLinks(t.Context(), &LinkRequest{Verb: LinkDescribe, Name: "north", Topics: []string{"c"}}); err != nil || refused == nil || refused.Kind != controller.UnknownTopic {
		t.Error(refused, err)
	}
	// Node 3 tells nothing of a partition that it leads, and has a gap in another one.
	gap := slices.IndexFunc(a.Partitions, func(p PartitionStatus) bool { return p.Node == 3 })
	if gap < 0 {
		t.Fatal("node 3 leads nothing")
	}
	topic := all[0].meta.image.Load().Topic(a.Partitions[gap].Topic)
	n := a.Partitions[gap].Partition
	if results, refused, err := ChangeLinks(t.Context(), all[1].ctl, &controller.LinksChange{Kind: controller.SetMirrorStates, Partitions: []controller.MirrorPartition{
		{Topic: topic.ID, Number: n, LeaderEpoch: topic.Partitions[n].LeaderEpoch, State: meta.PartitionGap, Gap: meta.OffsetRange{Start: 5, End: 9}, Reason: "retention"},
	}}); refused != nil || err != nil || results[0] != nil {
		t.Fatal(results, refused, err)
	}
	all[2].kill()
	a = serve(&LinkRequest{Verb: LinkDescribe, Name: "north"})
	if p := a.Partitions[gap]; p.State != "GAP" || p.From != 5 || p.To != 9 || p.Reason != "retention" || p.Lag != UnknownLag() || p.End != -1 {
		t.Errorf("%+v", p)
	}
	if len(a.Silent) != 1 || a.Silent[0].Node != 3 || a.Links[0].States["GAP"] != 1 || a.Links[0].Unknown == 0 {
		t.Errorf("%+v %+v", a.Silent, a.Links[0])
	}
}

// TestNodesAskForClaims proves that a node has another one, or itself, answer what it asks for a promotion, that an error of that one comes back, and that a node that does not run is no answer.
func TestNodesAskForClaims(t *testing.T) {
	all, _ := startLinked(t, 3)
	for node := int32(1); node <= 3; node++ {
		if a, err := AskClaims(t.Context(), all[0].ctl, node, json.RawMessage(`{"link":7}`)); err != nil || string(a) != `"answer to {\"link\":7}"` {
			t.Errorf("node %d: %s, %v", node, a, err)
		}
		if a, err := AskClaims(t.Context(), all[0].ctl, node, json.RawMessage(`"bad"`)); err == nil {
			t.Errorf("node %d: %s", node, a)
		}
	}
	all[2].kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if a, err := AskClaims(ctx, all[0].ctl, 3, json.RawMessage(`{}`)); err == nil {
		t.Errorf("it was killed: %s", a)
	}
}

// TestLinkPages proves that a link with more partitions than an answer has is described in pages, that together have each partition once.
func TestLinkPages(t *testing.T) {
	all, rigs := startLinked(t, 1)
	makeMirrors(t, all[0], north(), mostDescribed+50, "a", "b")
	rigs[0].list = func(meta.UUID) (list []PartitionStatus) {
		for n := range int32(mostDescribed + 50) {
			list = append(list, PartitionStatus{PartitionPlace: PartitionPlace{"b", n}, State: "WAITING", RetryIn: time.Second}, PartitionStatus{PartitionPlace: PartitionPlace{"a", n}, State: "WAITING", RetryIn: time.Second})
		}
		return list
	}
	ask := administratorOf(t, all[0])
	var seen []PartitionPlace
	q := &LinkRequest{Verb: LinkDescribe, Name: "north"}
	for {
		a, refused, err := ask.ServeLinks(t.Context(), q)
		if refused != nil || err != nil {
			t.Fatal(refused, err)
		}
		for _, p := range a.Partitions {
			if p.State != "WAITING" {
				t.Fatalf("%+v", p)
			}
			seen = append(seen, p.PartitionPlace)
		}
		if got := len(seen) + a.More; got != 2*(mostDescribed+50) {
			t.Fatalf("%d partitions", got)
		}
		if a.More == 0 {
			break
		}
		q.After = &seen[len(seen)-1]
	}
	if len(seen) != 2*(mostDescribed+50) || !slices.IsSortedFunc(seen, func(x, y PartitionPlace) int {
		if y.isBehind(&x) {
			return -1
		}
		return 1
	}) {
		t.Errorf("%d partitions: %v", len(seen), seen)
	}
}

// TestLinkRequestsAreChecked proves that what cannot be served is refused with a sentence before the node's LinkServer sees it, that other requests reach it, with their secrets, and that changes
// alone are recorded, without the secrets.
func TestLinkRequestsAreChecked(t *testing.T) {
	all, rigs := startLinked(t, 1)
	makeMirrors(t, all[0], north(), 1, "a")
	var mu sync.Mutex
	var given []Given
	all[0].ctl.cfg.Record = func(g *Given) {
		mu.Lock()
		defer mu.Unlock()
		given = append(given, *g)
	}
	ask := administratorOf(t, all[0])
	many := make([]meta.LinkSetting, meta.MaxLinkSettings+1)
	const secret = "correct horse"
	secrets := LinkSecrets{{Key: PasswordKey, Value: secret}}
	for name, c := range map[string]struct {
		q    LinkRequest
		says string
	}{
		"an unknown verb":        {LinkRequest{Verb: "melt", Name: "north"}, `does not know "melt"`},
		"no name":                {LinkRequest{Verb: LinkDelete}, `cannot have the name ""`},
		"a name":                 {LinkRequest{Verb: LinkCreate, Name: "a b"}, `cannot have the name "a b"`},
		"another cluster":        {LinkRequest{Verb: LinkPause, Name: "south"}, `no link "south" in this cluster, which is AAAAAAAAAAAAAAAAAAAAAA`},
		"too many settings":      {LinkRequest{Verb: LinkCreate, Name: "x", Settings: many}, "at most 128 settings"},
		"too long settings":      {LinkRequest{Verb: LinkCreate, Name: "x", Settings: []meta.LinkSetting{{Key: "k", Value: strings.Repeat("x", meta.MaxLinkSettingBytes)}}}, "at most 128 settings"},
		"settings in no order":   {LinkRequest{Verb: LinkCreate, Name: "x", Settings: []meta.LinkSetting{{Key: "b"}, {Key: "a"}}}, "not in the order"},
		"a setting without key":  {LinkRequest{Verb: LinkCreate, Name: "x", Settings: []meta.LinkSetting{{Value: "a"}}}, "not in the order"},
		"a secret as a setting":  {LinkRequest{Verb: LinkCreate, Name: "x", Settings: []meta.LinkSetting{{Key: PasswordKey, Value: secret}}}, "sasl.password is a secret"},
		"a setting as a secret":  {LinkRequest{Verb: LinkAlter, Name: "north", Secrets: LinkSecrets{{Key: "topics", Value: secret}}}, `"topics" is not one of the secrets`},
		"too long secrets":       {LinkRequest{Verb: LinkCreate, Name: "x", Secrets: LinkSecrets{{Key: KeyKey, Value: strings.Repeat("x", mostLinkSecrets)}}}, "The secrets of a link have at most"},
		"too many topics":        {LinkRequest{Verb: LinkPause, Name: "north", Topics: make([]string, controller.MaxLinkItems+1)}, "at most 1000 topics"},
		"an empty topic":         {LinkRequest{Verb: LinkPause, Name: "north", Topics: []string{""}}, "A name is empty"},
		"losses of no topic":     {LinkRequest{Verb: LinkSkip, Name: "north"}, "Name one topic"},
		"a negative partition":   {LinkRequest{Verb: LinkSkip, Name: "north", Topics: []string{"a"}, Partitions: []int32{-1}}, "negative"},
		"an agent without token": {LinkRequest{Verb: LinkAgentToken, Name: "north"}, "The token for an agent lacks something"},
		"an agent without end":   {LinkRequest{Verb: LinkAgentToken, Name: "north", Agent: &meta.LinkAgent{Key: [32]byte{1}}}, "lacks something"},
		"an agent with a holder": {LinkRequest{Verb: LinkAgentToken, Name: "north", Agent: &meta.LinkAgent{Key: [32]byte{1}, Expires: 1, Holder: [32]byte{1}}}, "lacks something"},
		"a check without a link": {LinkRequest{Verb: LinkCheck}, "cannot have the name"},
	} {
		_, refused, err := ask.ServeLinks(t.Context(), &c.q)
		if err != nil || refused == nil || !strings.Contains(refused.Message, c.says) || !strings.HasSuffix(refused.Message, ".") || strings.Contains(refused.Message, secret) {
			t.Errorf("%s: %v, %v", name, refused, err)
		}
	}
	if len(rigs[0].asked) != 0 {
		t.Errorf("they were served: %v", rigs[0].asked)
	}
	given = nil
	refusal := &controller.Error{Kind: controller.PolicyViolation, Message: "No."}
	rigs[0].serve = func(q *LinkRequest) (LinkAnswer, *controller.Error, error) {
		switch q.Verb {
		case LinkDelete:
			return LinkAnswer{Source: "s"}, refusal, nil
		case LinkAlter:
			return LinkAnswer{Problems: []LinkProblem{{Text: "It is away."}}}, nil, nil
		default:
			return LinkAnswer{Changed: q.Verb != LinkPause}, nil, nil
		}
	}
	for i, q := range []LinkRequest{
		{Verb: LinkCreate, Name: "new", Secrets: secrets, Settings: []meta.LinkSetting{{Key: "topics", Value: "*"}}},
		{Verb: LinkCreate, Name: "new", Secrets: secrets, DryRun: true},
		{Verb: LinkCheck, Settings: []meta.LinkSetting{{Key: "topics", Value: "*"}}},
		{Verb: LinkCheck, Name: "north"},
		{Verb: LinkSkip, Name: "north", Topics: []string{"a"}, Partitions: []int32{0, 7}},
		{Verb: LinkAgentToken, Name: "north", Agent: &meta.LinkAgent{Token: [8]byte{1}, Key: [32]byte{1}, Expires: 1}},
		{Verb: LinkAgentRevoke, Name: "north", Token: [8]byte{2}},
		{Verb: LinkPause, Name: "north"}, // it is paused
		{Verb: LinkPromote, Name: "north", Topics: []string{"a"}},
		{Verb: LinkFailover, Name: "north", Force: true},
		{Verb: LinkFailover, Name: "north", DryRun: true},
		{Verb: LinkAlter, Name: "north"},
		{Verb: LinkDelete, Name: "north"},
	} {
		a, refused, err := ask.ServeLinks(t.Context(), &q)
		if isDeleted := q.Verb == LinkDelete; err != nil || isDeleted != (refused != nil) || isDeleted != (a.Source == "s") {
			t.Errorf("%v: %+v, %v, %v", q.Verb, a, refused, err)
		}
		if d := cmp.Diff(q, rigs[0].asked[i]); d != "" {
			t.Error(d)
		}
	}
	var about []string
	for _, g := range given {
		about = append(about, fmt.Sprintf("%s %d %v %v", g.About, g.From, g.Refused, g.Err))
	}
	want := []string{"create new 1 <nil> <nil>", "skip north a 0 7 1 <nil> <nil>", "agent-token north 0100000000000000 1 <nil> <nil>", "agent-revoke north 0200000000000000 1 <nil> <nil>", "promote north a 1 <nil> <nil>", "failover north by force 1 <nil> <nil>", "alter north 1 <nil> nothing was changed, since the check found problems: 1, of which the first is: It is away.", "delete north 1 No. <nil>"}
	if !slices.Equal(about, want) {
		t.Errorf("%q", about)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", rigs[0].asked, rigs[0].asked, rigs[0].asked, rigs[0].asked[0].Secrets); strings.Contains(text, secret) || !strings.Contains(text, "1 secrets") {
		t.Errorf("it prints %s", text)
	}
	all[0].ctl.cfg.Linking = nil
	if _, _, err := ask.ServeLinks(t.Context(), &LinkRequest{Verb: LinkDelete, Name: "north"}); !errors.Is(err, ErrFailed) {
		t.Errorf("a node without links: %v", err)
	}
}

// TestLinkAnswersFit proves that the longest answers are shorter than what is read of one, whatever a LinkServer returns.
func TestLinkAnswersFit(t *testing.T) {
	fits := func(what string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil || len(b) > maxCommand {
			t.Errorf("%s has %d bytes: %v", what, len(b), err)
		}
	}
	name, worst := strings.Repeat("x", mostLinkText), strings.Repeat("\x01", mostReason+3) // JSON needs six bytes for one
	var shown nodeLinks
	for range mostDescribed {
		shown.Partitions = append(shown.Partitions, PartitionStatus{
			PartitionPlace: PartitionPlace{name, 1 << 30}, Source: name, State: "SOURCE_RECREATED", Reason: strings.Repeat("x", mostReason), From: 1 << 60, To: 1 << 60, End: 1 << 60, SourceEnd: 1 << 60, LastContact: time.Now(), Lag: Lag{1 << 60, 1 << 60, 1 << 60, 1 << 60},
			Parting: &PartingStatus{State: "SOURCE_RECREATED", End: 1 << 60, Start: 1 << 60, SourceEnd: 1 << 60, Records: 1 << 60, Bytes: 1 << 60, Contact: time.Now(), AsOf: time.Now(), Begun: time.Now(), Transactions: slices.Repeat([]PartedTransaction{{1 << 60, 1 << 14, 1 << 60, true, "COMMITTED_BY_MARKER"}}, 2*mostTransactions/mostDescribed)},
		})
	}
	told := TaskStatus{Task: "topics", Notes: slices.Repeat([]string{strings.Repeat("x", 2*mostReason)}, 2*mostNotes)}
	long := strings.Repeat("x", 2*mostValue)
	told.Differences = slices.Repeat([]ConfigDifference{{Topic: name, Key: long, Source: long, Here: long, Fate: "PUT_BACK", Why: long, At: time.Now()}}, 2*mostDifferences)
	told.fit(nil)
	if len(told.Notes) != mostNotes || told.Notes[mostNotes-1] != fmt.Sprintf("There are %d more.", mostNotes+1) || len(told.Differences) != mostDifferences {
		t.Errorf("%d notes, %d differences", len(told.Notes), len(told.Differences))
	}
	tasks := slices.Repeat([]TaskStatus{told}, 4)
	for i := range tasks[1:] {
		tasks[i+1].Differences = nil // of one task alone
	}
	fits("a page", LinkAnswer{Partitions: shown.Partitions, Links: []LinkStatus{{Tasks: tasks}}})
	shown.Tasks = tasks
	for range meta.MaxLinks {
		shown.Shares = append(shown.Shares, linkShare{States: map[string]int{"MIRRORING": 1, "PAUSED": 1, "GAP": 1, "WAITING": 1, StateUnknown: 1}, LastContact: time.Now()})
		shown.Tasks = append(shown.Tasks, TaskStatus{Reason: cutText(worst, 100)})
	}
	fits("a node's answer", shown)
	var a LinkAnswer
	for range 3 * MaxLinkTopics {
		a.Topics = append(a.Topics, LinkTopic{name, name, 1 << 30})
		a.Problems = append(a.Problems, LinkProblem{"a", "b" + strings.Repeat("\u20ac", mostSentence), ""})
		a.Warnings = append(a.Warnings, LinkProblem{"a", "b", strings.Repeat("x", 2*mostSentence)})
		a.Steps = append(a.Steps, strings.Repeat("x", 2*mostSentence))
	}
	a.fit()
	fits("a check", outcome[LinkAnswer]{Answer: a})
	if len(a.Topics) != MaxLinkTopics || a.More != 2*MaxLinkTopics || len(a.Problems) != mostSentences || a.Problems[mostSentences-1].Text != fmt.Sprintf("There are %d more.", 3*MaxLinkTopics-mostSentences+1) ||
		!strings.HasSuffix(a.Problems[0].Text, "\u20ac...") {
		t.Errorf("%d topics, %d more, %d problems: %v", len(a.Topics), a.More, len(a.Problems), a.Problems[0])
	}
}

// FuzzLinkRequest proves that no bytes make the decoding of a request, its check or what is recorded of it panic, that those which pass keep all limits, and that they are the same
// when they are sent again. The answers of other nodes do not panic, either.
func FuzzLinkRequest(f *testing.F) {
	for _, q := range []LinkRequest{
		{Verb: LinkCreate, Name: "north", Settings: north().Settings, Secrets: LinkSecrets{{Key: PasswordKey, Value: "p"}}, Within: time.Second},
		{Verb: LinkDescribe, Name: "north", Topics: []string{"a"}, After: &PartitionPlace{"a", 3}},
		{Verb: LinkSkip, Name: "north", Topics: []string{"a"}, Partitions: []int32{1}},
	} {
		b, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"answer":{"shares":[{"states":{"GAP":1}}],"partitions":[{"topic":"a","lag":{"rpo":-1}}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := (&command[linkQuestion, nodeLinks]{}).decodeOutcome(b); err == nil {
			all := linkAnswers{byNode: map[int32]nodeLinks{1: o.Answer}}
			all.sumUp(meta.Empty(), north())
		}
		var q LinkRequest
		if len(b) > maxCommand || json.Unmarshal(b, &q) != nil || checkLinkRequest(&q) != nil {
			return
		}
		if len(q.Settings) > meta.MaxLinkSettings || len(q.Topics) > controller.MaxLinkItems || len(q.Name) > meta.MaxLinkName && q.Verb != LinkList && q.Verb != LinkCheck {
			t.Errorf("%+v passes", q)
		}
		for _, s := range q.Secrets {
			if len(s.Value) > 20 && strings.Contains(fmt.Sprintf("%+v", q)+describeLinkChange(&q), s.Value) {
				t.Errorf("%+v shows a secret", q)
			}
		}
		again, err := json.Marshal(&q)
		var same LinkRequest
		if err != nil || json.Unmarshal(again, &same) != nil || !cmp.Equal(q, same, cmpopts.EquateEmpty()) || (q.Secrets == nil) != (same.Secrets == nil) {
			t.Errorf("%+v becomes %+v: %v", q, same, err)
		}
	})
}

// TestPartingsAreDescribed proves that any node tells of each partition that was promoted what was known of its source then, and what was not known as that.
func TestPartingsAreDescribed(t *testing.T) {
	all, _ := startLinked(t, 2)
	l := north()
	makeMirrors(t, all[0], l, 3, "a")
	topic := all[0].meta.image.Load().Topic("a")
	change := func(q *controller.LinksChange) {
		t.Helper()
		results, refused, err := ChangeLinks(t.Context(), all[0].ctl, q)
		if refused != nil || err != nil || slices.ContainsFunc(results, func(e *controller.Error) bool { return e != nil }) {
			t.Fatal(results, refused, err)
		}
	}
	change(&controller.LinksChange{Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: topic.ID}}})
	promote := func(number int32, start, end int64, p *meta.Parting, decisions ...meta.MirrorDecision) {
		t.Helper()
		part := func() controller.MirrorPartition {
			now := all[0].meta.image.Load().Topic("a").Partitions[number]
			return controller.MirrorPartition{Topic: topic.ID, Number: number, LeaderEpoch: now.LeaderEpoch, End: start}
		}
		one := part()
		one.Decisions = decisions
		change(&controller.LinksChange{Kind: controller.DecidePromotions, LinkID: l.ID, Decided: controller.DecidedSum(all[0].meta.image.Load(), l.ID), Partitions: []controller.MirrorPartition{one}})
		one = part()
		one.End, one.Parting = end, p
		change(&controller.LinksChange{Kind: controller.FinishPromotions, Partitions: []controller.MirrorPartition{one}})
	}
	promote(0, 90, 92, &meta.Parting{State: meta.PartitionGap, End: 90, SourceEnd: 100, Bytes: 1000, ContactMs: 3000, AsOfMs: 2000, BegunMs: 4000},
		meta.MirrorDecision{Producer: 7, Epoch: 3, MarkerEpoch: 4, First: 80, Commit: true}, meta.MirrorDecision{Producer: 8, Epoch: 3, MarkerEpoch: 4, First: 81, Outcome: 3}, meta.MirrorDecision{Producer: 9, Epoch: 3, MarkerEpoch: 4, First: -1, Commit: true, Outcome: 5},
		meta.MirrorDecision{Producer: 10, First: 82, Outcome: 77})
	promote(1, 5, 5, &meta.Parting{SourceEnd: -1, Bytes: -1, End: 5})
	first := all[0].meta.image.Load().Topic("a").Partitions
	eventually(t, "the promotions are known", func() bool {
		m := all[1].meta.image.Load()
		return m.Topic("a") != nil && m.Topic("a").Partitions[0].Mirror.Equal(first[0].Mirror) && m.Topic("a").Partitions[1].Mirror.Equal(first[1].Mirror)
	})
	want := []*PartingStatus{
		{
			State: "GAP", End: 90, Start: 90, SourceEnd: 100, Records: 10, Bytes: 1000, Contact: time.UnixMilli(3000).UTC(), AsOf: time.UnixMilli(2000).UTC(), Begun: time.UnixMilli(4000).UTC(),
			Transactions: []PartedTransaction{{8, 3, 81, false, "ABORTED_UNDECIDED"}, {9, 3, -1, true, "TORN"}, {10, 0, 82, false, StateUnknown}},
		},
		{State: StateUnknown, End: 5, Start: 5, SourceEnd: -1, Records: -1, Bytes: -1},
		nil, // it is being promoted
	}
	for _, m := range all {
		a, refused, err := administratorOf(t, m).ServeLinks(t.Context(), &LinkRequest{Verb: LinkDescribe, Name: "north"})
		if refused != nil || err != nil || len(a.Partitions) != 3 {
			t.Fatal(a, refused, err)
		}
		for i, p := range a.Partitions {
			if d := cmp.Diff(want[i], p.Parting); d != "" {
				t.Errorf("node %d, partition %d: %s", m.id, i, d)
			}
		}
		if states := a.Links[0].States; states["PROMOTED"] != 2 || states["PROMOTING"] != 1 {
			t.Error(states)
		}
	}
	var many []meta.MirrorDecision
	for n := range int64(mostTransactions + 5) {
		many = append(many, meta.MirrorDecision{Producer: n, MarkerEpoch: 1, First: n, Outcome: 4})
	}
	promote(2, 7, 7, nil, many...)
	list, silent, err := DescribeMirrors(t.Context(), all[0].ctl, l, []string{"a"})
	if err != nil || len(silent) > 0 || len(list) != 3 {
		t.Fatal(list, silent, err)
	}
	last := *list[2].Parting
	if len(last.Transactions) != mostTransactions || last.More != 5 || last.Transactions[mostTransactions-1].Producer != mostTransactions-1 {
		t.Errorf("%d transactions, and %d more", len(last.Transactions), last.More)
	}
	last.Transactions, last.More = nil, 0
	if d := cmp.Diff(PartingStatus{State: StateUnknown, End: 7, Start: 7, SourceEnd: -1, Records: -1, Bytes: -1}, last); d != "" {
		t.Errorf("its leader has told nothing: %s", d)
	}
}

// TestPagesHaveFewTransactions proves that a page ends when it has many transactions, and that the pages together have all partitions.
func TestPagesHaveFewTransactions(t *testing.T) {
	all, _ := startLinked(t, 1)
	l := north()
	makeMirrors(t, all[0], l, 3, "a")
	ask := func(q *controller.LinksChange) {
		t.Helper()
		results, refused, err := ChangeLinks(t.Context(), all[0].ctl, q)
		if refused != nil || err != nil || slices.ContainsFunc(results, func(e *controller.Error) bool { return e != nil }) {
			t.Fatal(results, refused, err)
		}
	}
	topic := func() *meta.Topic { return all[0].meta.image.Load().Topic("a") }
	ask(&controller.LinksChange{Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: topic().ID}}})
	var many []meta.MirrorDecision
	for n := range int64(mostTransactions - 1) {
		many = append(many, meta.MirrorDecision{Producer: n, MarkerEpoch: 1, First: n, Outcome: 4})
	}
	for n := range int32(3) {
		decide := controller.MirrorPartition{Topic: topic().ID, Number: n, LeaderEpoch: topic().Partitions[n].LeaderEpoch, Decisions: many}
		ask(&controller.LinksChange{Kind: controller.DecidePromotions, LinkID: l.ID, Decided: controller.DecidedSum(all[0].meta.image.Load(), l.ID), Partitions: []controller.MirrorPartition{decide}})
		ask(&controller.LinksChange{Kind: controller.FinishPromotions, Partitions: []controller.MirrorPartition{{Topic: topic().ID, Number: n, LeaderEpoch: topic().Partitions[n].LeaderEpoch}}})
	}
	q := &LinkRequest{Verb: LinkDescribe, Name: "north"}
	var pages []int
	for {
		a, refused, err := administratorOf(t, all[0]).ServeLinks(t.Context(), q)
		if refused != nil || err != nil || len(a.Partitions) == 0 {
			t.Fatal(a, refused, err)
		}
		pages = append(pages, len(a.Partitions))
		if a.More == 0 {
			break
		}
		q.After = &a.Partitions[len(a.Partitions)-1].PartitionPlace
	}
	if !slices.Equal(pages, []int{2, 1}) {
		t.Errorf("the pages have %v partitions", pages)
	}
}

// TestOutcomesHaveNames proves that exactly those ends of transactions are told of that people are to know, each by its own name.
func TestOutcomesHaveNames(t *testing.T) {
	for o, want := range map[progress.Outcome]string{
		progress.CommitWhole: "", progress.AbortWhole: "", progress.CommitByMarker: "COMMITTED_BY_MARKER", progress.AbortUndecided: "ABORTED_UNDECIDED", progress.AbortLacking: "ABORTED_LACKING", progress.Torn: "TORN",
		progress.Torn + 1: StateUnknown,
	} {
		if got := outcomeName(uint8(o)); got != want || (got != "") != o.IsListed() {
			t.Errorf("outcome %d is %q, want %q", o, got, want)
		}
	}
}
