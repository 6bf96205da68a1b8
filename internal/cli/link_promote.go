package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/cluster"
)

// promoting is what is to be promoted.
type promoting struct {
	verb               cluster.LinkVerb
	link               string
	topics             []string // none: all of the link
	force, dryRun, yes bool
	wait               time.Duration // for how long the partitions may take until nothing is missing
}

// promotion is the output of the verbs that promote.
type promotion struct {
	Link     string                `json:"link"`
	Verb     cluster.LinkVerb      `json:"verb"`
	Topics   []string              `json:"topics"`
	Done     bool                  `json:"done"`    // all of their partitions are ordinary ones, now or before
	Changed  bool                  `json:"changed"` // the promotion was begun by this, or would be with --dry-run
	DryRun   bool                  `json:"dryRun,omitempty"`
	Problems []cluster.LinkProblem `json:"problems"` // why it was not begun
	Steps    []string              `json:"steps"`
	// Before is how the topics did before this began: their lag and RPO are what is lost.
	Before     []shownMirrorTopic `json:"before"`
	Partitions []shownParting     `json:"partitions"` // those that are promoted

	isRiskShown bool // Before was shown already
}

func (v *linkVerbs) newPromote() *cobra.Command {
	p := promoting{verb: cluster.LinkPromote}
	cmd := &cobra.Command{
		Use: "promote NAME [TOPIC ...]", Short: "Make ordinary topics of mirrors that have all of their source", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"migrate", "switchover"},
		Long: `End the mirroring of topics, by their names here, or of all topics of the link, and have clients write to them here: a migration, which goes one way and cannot
be undone. It is refused unless all that the source had when this was asked for is here, and no transaction is open; it says which partitions lack how much. So
stop what writes to the topics at the source first; nothing keeps it from writing there. --wait waits until nothing is missing.

It ends when all partitions are ordinary ones, and reports what was known of the source then. Said again it waits for a promotion that is under way, or says
that it is done. If the source is gone: leat link failover.`,
		Example: `  leat link promote north orders --dry-run
  leat link promote north orders web --wait 10m
  leat link promote north --yes -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if p.wait < 0 {
				return usagef("--wait %s: give a time span such as 10m", p.wait)
			}
			p.link, p.topics = args[0], withoutRepeats(args[1:])
			return v.promote(cmd, &p)
		},
	}
	cmd.Flags().DurationVar(&p.wait, "wait", 0, "wait so long for all that the source has to be here")
	p.addFlags(cmd)
	return v.add(cmd)
}

func (v *linkVerbs) newFailover() *cobra.Command {
	p := promoting{verb: cluster.LinkFailover}
	cmd := &cobra.Command{
		Use: "failover NAME [TOPIC ...]", Short: "Make ordinary topics of mirrors whose source is gone", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"fail-over", "takeover"},
		Long: `End the mirroring of topics, by their names here, or of all topics of the link, and have clients write to them here, since their source is gone. It cannot be
undone. What the source had and is not here is lost to those who read here; it shows how much that is, and how long ago, at most, all was here, before you
confirm. It works from every state of a mirror.

It is refused while the source answers this node or any other one, since clients could then write at both sites: leat link promote loses nothing. --force does
it all the same, for a source of which some brokers are left, or one that has deleted the topics.

It ends when all partitions are ordinary ones, and reports what was lost; "leat link report" shows that again. Said again it waits for a promotion that is
under way, or says that it is done.`,
		Example: `  leat link failover north --dry-run
  leat link failover north
  leat link failover north orders web --yes -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p.link, p.topics = args[0], withoutRepeats(args[1:])
			return v.promote(cmd, &p)
		},
	}
	cmd.Flags().BoolVar(&p.force, "force", false, "do it also if the source answers")
	p.addFlags(cmd)
	return v.add(cmd)
}

func (p *promoting) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.dryRun, "dry-run", false, "only show what is missing here, and whether it would be done")
	cmd.Flags().BoolVar(&p.yes, "yes", false, "do not ask on the terminal: for programs")
}

// promote begins a promotion, unless it has begun, and waits for its end.
func (v *linkVerbs) promote(cmd *cobra.Command, p *promoting) error {
	if !p.yes && !p.dryRun && !isTerminal(v.in) {
		return usagef("it cannot be undone, and there is no terminal on which to ask you: give --yes to do it, or --dry-run to see what would be lost")
	}
	d, err := v.look(cmd, p.link, p.topics)
	if err != nil {
		return fmt.Errorf("link %s: %w", p.link, err)
	}
	v.tellSilent(d.Silent)
	r := newPromotion(p, d)
	if len(r.Topics) == 0 {
		return notFoundf("link %s mirrors no topic: there is nothing to promote", p.link)
	}
	if begin := r.unbegun(); len(begin) > 0 {
		if err := v.begin(cmd, p, r, begin); err != nil || p.dryRun {
			return err
		}
	}
	if p.dryRun {
		r.addPartings(d)
		return v.show(r, r.text)
	}
	return v.awaitPromotion(cmd, p, r)
}

// look describes topics of a link, on a connection of its own: between two looks a person, or the source, may take any time.
func (v *linkVerbs) look(cmd *cobra.Command, link string, topics []string) (d *describedLink, err error) {
	err = v.dial(cmd, func(ctx context.Context, n *linkNode) (err error) {
		d, err = v.describe(ctx, cmd, n, link, topics)
		return err
	})
	return d, err
}

// newPromotion is a promotion of those topics that are not promoted yet; of all of them if all are.
func newPromotion(p *promoting, d *describedLink) *promotion {
	r := &promotion{Link: p.link, Verb: p.verb, DryRun: p.dryRun, Topics: []string{}, Problems: []cluster.LinkProblem{}, Steps: []string{}, Before: []shownMirrorTopic{}, Partitions: []shownParting{}}
	isLeft := func(t *shownMirrorTopic) bool { return t.States[statePromoted] < t.Partitions }
	areAllDone := !slices.ContainsFunc(d.TopicList, func(t shownMirrorTopic) bool { return isLeft(&t) })
	for i := range d.TopicList {
		if t := &d.TopicList[i]; areAllDone || isLeft(t) {
			r.Topics, r.Before = append(r.Topics, t.Topic), append(r.Before, *t)
		}
	}
	return r
}

// unbegun are the topics whose promotion has not begun: one record of the metadata begins that of all partitions.
func (r *promotion) unbegun() (topics []string) {
	for i := range r.Before {
		if t := &r.Before[i]; t.States[statePromoting]+t.States[statePromoted] == 0 {
			topics = append(topics, t.Topic)
		}
	}
	return topics
}

// begin has a node begin the promotion of topics, when a person has agreed. It shows why it was not begun, and all of a dry run.
func (v *linkVerbs) begin(cmd *cobra.Command, p *promoting, r *promotion, topics []string) error {
	q := &cluster.LinkRequest{Verb: p.verb, Name: p.link, Force: p.force, DryRun: true}
	if len(p.topics) > 0 { // a link may have more topics than a request
		q.Topics = topics
	}
	if p.dryRun || !p.yes && p.wait == 0 { // a person is not asked for what would be refused
		if err := v.request(cmd, q, r); err != nil {
			return err
		}
		if len(r.Problems) > 0 || p.dryRun {
			return v.showUnbegun(p, r)
		}
	}
	if v.output != "json" || !p.yes {
		_, _ = fmt.Fprint(v.err, escapeLines(r.riskText()))
		r.isRiskShown = true
	}
	if !p.yes {
		if err := v.confirm(p, topics); err != nil {
			return err
		}
	}
	q.DryRun = p.wait > 0 // only what is asked for in earnest is in the audit log
	for over, told := time.Now().Add(p.wait), time.Now(); ; {
		if err := v.request(cmd, q, r); err != nil {
			return err
		}
		switch {
		case len(r.Problems) == 0 && !q.DryRun:
			return nil
		case len(r.Problems) == 0:
			q.DryRun = false
			continue
		case !time.Now().Before(over):
			return v.showUnbegun(p, r)
		}
		q.DryRun = true
		if time.Since(told) >= tellEvery {
			told = time.Now()
			v.tellPerson(fmt.Sprintf("waiting for %s: %s: %s", formatCount(len(r.Problems), "partition"), r.Problems[0].About, r.Problems[0].Text))
		}
		if err := sleep(cmd.Context(), lookEvery); err != nil {
			return err
		}
	}
}

// request asks a node to promote, and takes what it says.
func (v *linkVerbs) request(cmd *cobra.Command, q *cluster.LinkRequest, r *promotion) error {
	err := v.dial(cmd, func(ctx context.Context, n *linkNode) error {
		a, err := v.ask(ctx, cmd, n, q)
		r.Changed = a.Changed
		r.Problems, r.Steps = append([]cluster.LinkProblem{}, a.Problems...), append([]string{}, a.Steps...)
		return err
	})
	if err != nil {
		return fmt.Errorf("link %s: %w", q.Name, err)
	}
	return nil
}

// showUnbegun shows a promotion that has not begun, and fails unless it would.
func (v *linkVerbs) showUnbegun(p *promoting, r *promotion) error {
	if err := v.show(r, r.text); err != nil || len(r.Problems) == 0 {
		return err
	}
	of := strings.Join(append([]string{quoteWord(p.link)}, quoteWords(p.topics)...), " ")
	var again string
	switch {
	case p.verb == cluster.LinkFailover:
		again = fmt.Sprintf("\"leat link promote %s\" promotes when nothing is missing here, and --force whatever is; there is no planned switchover yet, which would stop what writes at the source", of)
	case p.wait > 0:
		again = fmt.Sprintf("after %s it is still so: stop what writes to the topics at the source, and mend what keeps partitions from mirroring; if the source is gone, \"leat link failover %s\"", formatDuration(p.wait), of)
	default:
		again = fmt.Sprintf("stop what writes to the topics at the source, and run this again, with --wait 10m to wait until nothing is missing; if the source is gone, \"leat link failover %s\"", of)
	}
	return fmt.Errorf("link %s: nothing was promoted, since %s: %s", p.link, tellProblems(r.Problems), again)
}

func quoteWords(list []string) (quoted []string) {
	for _, word := range list {
		quoted = append(quoted, quoteWord(word))
	}
	return quoted
}

// errNotConfirmed says that a person has not agreed.
var errNotConfirmed = errors.New("it was not confirmed, and nothing was changed")

// confirm asks a person.
func (v *linkVerbs) confirm(p *promoting, topics []string) error {
	some := topics[:min(len(topics), mostShownTopics)]
	if more := len(topics) - len(some); more > 0 {
		some = append(slices.Clone(some), fmt.Sprintf("%d more", more))
	}
	_, _ = fmt.Fprintf(v.err, "It cannot be undone: %s of link %s will follow the source no more, and clients will write here.\nType yes to go on: ", escapeLine(phrase.Join(some, "and")), escapeLine(p.link))
	answer, _ := bufio.NewReader(v.in).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return errNotConfirmed
	}
	return nil
}

// awaitPromotion waits until all partitions are ordinary ones, and shows the report. It waits for as long as --timeout says.
func (v *linkVerbs) awaitPromotion(cmd *cobra.Command, p *promoting, r *promotion) error {
	began, told := time.Now(), time.Now()
	for {
		d, err := v.look(cmd, p.link, p.topics)
		left := ""
		if err == nil {
			if left = r.addPartings(d); left == "" {
				r.Done = true
				return v.show(r, r.text)
			}
		}
		isOver := time.Since(began) >= orDefault(v.timeout)
		switch {
		case errors.Is(err, errNotFound), errors.Is(err, context.Canceled):
			return fmt.Errorf("link %s: %w", r.Link, err)
		case isOver && err != nil:
			return fmt.Errorf("link %s: the promotion has begun, and goes on by itself; how far it is cannot be found out: %w", r.Link, err)
		case isOver:
			if err := v.show(r, r.text); err != nil {
				return err
			}
			return fmt.Errorf("link %s: the promotion has begun, and goes on by itself; after %s it is not at its end: %s; run this again to wait for it", r.Link, formatDuration(time.Since(began)), left)
		case time.Since(told) >= tellEvery && err == nil:
			told = time.Now()
			v.tellPerson(left)
		}
		if err := sleep(cmd.Context(), lookEvery); err != nil {
			return err
		}
	}
}

// addPartings takes those partitions that are promoted, and tells which are not; "": all are.
func (r *promotion) addPartings(d *describedLink) (left string) {
	r.Partitions = r.Partitions[:0]
	byTopic, order, count := map[string][]int32{}, []string{}, 0
	for i := range d.PartitionList {
		p := &d.PartitionList[i]
		switch {
		case !slices.Contains(r.Topics, p.Topic):
		case p.State == statePromoted:
			r.Partitions = append(r.Partitions, showParting(p))
		default:
			if byTopic[p.Topic] == nil {
				order = append(order, p.Topic)
			}
			byTopic[p.Topic] = append(byTopic[p.Topic], p.Partition)
			count++
		}
	}
	if count == 0 {
		return ""
	}
	var some []string
	for _, topic := range order[:min(len(order), mostShownTopics)] {
		some = append(some, topic+" "+formatRanges(byTopic[topic]))
	}
	if more := len(order) - len(some); more > 0 {
		some = append(some, formatCount(more, "more topic"))
	}
	return fmt.Sprintf("%s of %s not promoted yet: %s", formatNumber(int64(count)), formatCount(count+len(r.Partitions), "partition"), phrase.Join(some, "and"))
}

// text is a promotion for people.
func (r *promotion) text() string {
	var b strings.Builder
	if len(r.Partitions) == 0 && !r.isRiskShown {
		b.WriteString(r.riskText())
	}
	for _, step := range r.Steps {
		b.WriteString("  " + escapeLine(step) + "\n")
	}
	writeProblems(&b, "problem", r.Problems)
	b.WriteString(partingsText(r.Partitions))
	switch {
	case len(r.Problems) > 0:
	case r.Done && r.isDoneBefore():
		_, _ = fmt.Fprintf(&b, "%s of link %s: promoted before, and nothing was changed\n", formatCount(len(r.Topics), "topic"), escapeLine(r.Link))
	case r.Done:
		_, _ = fmt.Fprintf(&b, "promoted %s of link %s: clients can write here; \"leat link report %s\" shows this report again\n", formatCount(len(r.Topics), "topic"), escapeLine(r.Link), quoteWord(r.Link))
	case r.DryRun && len(r.unbegun()) > 0:
		_, _ = fmt.Fprintf(&b, "%s of link %s would be promoted\n", formatCount(len(r.unbegun()), "topic"), escapeLine(r.Link))
	case r.DryRun:
		_, _ = fmt.Fprintf(&b, "nothing would be changed: the promotion has begun before\n")
	}
	return b.String()
}

// isDoneBefore tells whether all was promoted before this began.
func (r *promotion) isDoneBefore() bool {
	return !slices.ContainsFunc(r.Before, func(t shownMirrorTopic) bool { return t.States[statePromoted] < t.Partitions })
}

// riskText shows what is missing here, as far as is known: what a promotion now would lose.
func (r *promotion) riskText() string {
	t := columns{head: []string{"TOPIC", ">PARTITIONS", "STATE", ">MISSING", ">BYTES", ">ALL WAS HERE"}}
	for i := range r.Before {
		of := shownLink{Partitions: r.Before[i].Partitions, UnknownLag: r.Before[i].UnknownLag, status: &cluster.LinkStatus{Lag: r.Before[i].sum}}
		cells := of.lagCells()
		ago := cells[3]
		if ago != "-" {
			ago += " ago"
		}
		t.addRow(r.Before[i].Topic, formatNumber(int64(r.Before[i].Partitions)), statesText(r.Before[i].States), cells[0], cells[1], ago)
	}
	if r.Verb == cluster.LinkPromote {
		return "how far the mirrors are behind:\n" + t.String()
	}
	return "what a failover now would lose: the records that are known to be missing here, and what was written at the source since all was here:\n" + t.String()
}

// sleep waits.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
