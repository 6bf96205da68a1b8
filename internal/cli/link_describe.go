package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
)

// describedLink is the output of the verb that describes a link.
type describedLink struct {
	shownLink

	TopicList     []shownMirrorTopic   `json:"topicList"`
	PartitionList []shownMirror        `json:"partitionList"`
	Silent        []cluster.SilentNode `json:"silentNodes"`

	now time.Time

	Tails cluster.TailSum        `json:"tails"` // what cuts have taken from replicas of these topics, and is kept
	Uncut []cluster.UncutReplica `json:"uncut"` // replicas of these topics that cannot make a cut
}

// shownMirrorTopic is a topic that mirrors in the output, over all of its partitions.
type shownMirrorTopic struct {
	Topic      string         `json:"topic"`
	Source     string         `json:"source"` // its name there
	Partitions int            `json:"partitions"`
	States     map[string]int `json:"states"`
	Lag        shownLag       `json:"lag"`
	UnknownLag int            `json:"unknownLag"`

	sum cluster.Lag
}

// shownMirror is a partition that mirrors in the output.
type shownMirror struct {
	Topic       string     `json:"topic"`
	Partition   int32      `json:"partition"`
	Source      string     `json:"source"`
	Node        int32      `json:"node"`
	State       string     `json:"state"`
	Reason      string     `json:"reason,omitempty"`
	From        *int64     `json:"from,omitempty"` // what is lost, or may be, with GAP and TOMBSTONES_LOST
	To          *int64     `json:"to,omitempty"`   // the offset after it
	End         *int64     `json:"end"`
	SourceEnd   *int64     `json:"sourceEnd"`
	Lag         shownLag   `json:"lag"`
	LastContact *time.Time `json:"lastContact"`
	Open        *int64     `json:"openTransactions"` // null: not known
	RetryIn     float64    `json:"retrySeconds,omitempty"`
	Meaning     string     `json:"meaning,omitempty"` // of the state, unless all is well
	Do          string     `json:"do,omitempty"`      // about it

	status *cluster.PartitionStatus
}

func (v *linkVerbs) newDescribe() *cobra.Command {
	cmd := &cobra.Command{
		// A space before the dots: a topic may have the name of the link, so that arguments may be equal.
		Use: "describe NAME [TOPIC ...]", Short: "Show how a link and its topics do, and what to do", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"show", "status", "get"},
		Long: `Show a link: its settings, and for each topic the states of its partitions, how far it is behind the source in records, bytes and time, and the RPO: how
long ago, at most, all that the source had committed was here. A failover now would lose what was written since. For each partition that does not mirror there
is the reason, and what to do about it. With topics, by their names here, those alone are shown; -o json has all partitions.`,
		Example: `  leat link describe north
  leat link describe north orders -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error {
				d, err := v.describe(ctx, cmd, n, args[0], withoutRepeats(args[1:]))
				if err != nil {
					return fmt.Errorf("describing the link %s: %w", args[0], err)
				}
				v.tellSilent(d.Silent)
				return v.show(d, d.text)
			})
		},
	}
	return v.add(cmd)
}

// describe asks for a link and its partitions, page by page.
func (v *linkVerbs) describe(ctx context.Context, cmd *cobra.Command, n *linkNode, name string, topics []string) (*describedLink, error) {
	d := &describedLink{TopicList: []shownMirrorTopic{}, PartitionList: []shownMirror{}, Silent: []cluster.SilentNode{}, Uncut: []cluster.UncutReplica{}, now: time.Now()}
	q := &cluster.LinkRequest{Verb: cluster.LinkDescribe, Name: name, Topics: topics}
	for {
		a, err := v.ask(ctx, cmd, n, q)
		if err != nil {
			return nil, err
		}
		if len(a.Links) == 1 && q.After == nil { // the first page alone has the notes of tasks
			d.shownLink = showLink(&a.Links[0])
			d.Tails, d.Uncut = a.Tails, append(d.Uncut[:0], a.Uncut...)
		}
		d.Silent = append(d.Silent[:0], a.Silent...)
		for i := range a.Partitions {
			d.add(&a.Partitions[i])
		}
		if a.More == 0 || len(a.Partitions) == 0 {
			return d, nil
		}
		q.After = &a.Partitions[len(a.Partitions)-1].PartitionPlace
	}
}

// add adds a partition. They come in the order of their topics.
func (d *describedLink) add(p *cluster.PartitionStatus) {
	if n := len(d.TopicList); n == 0 || d.TopicList[n-1].Topic != p.Topic {
		d.TopicList = append(d.TopicList, shownMirrorTopic{Topic: p.Topic, Source: p.Source, States: map[string]int{}})
	}
	t := &d.TopicList[len(d.TopicList)-1]
	t.Partitions++
	t.States[p.State]++
	switch isKnown := p.Lag.Records >= 0 && p.Lag.RPO >= 0; {
	case p.State == statePromoted:
	case !isKnown:
		t.UnknownLag++
		fallthrough
	default:
		t.sum.Add(&p.Lag)
	}
	t.Lag = showLag(&t.sum)
	d.PartitionList = append(d.PartitionList, showMirror(d.Name, p))
}

func showMirror(link string, p *cluster.PartitionStatus) shownMirror {
	s := shownMirror{
		Topic: p.Topic, Partition: p.Partition, Source: p.Source, Node: p.Node, State: p.State, Reason: p.Reason, End: knownCount(p.End), SourceEnd: knownCount(p.SourceEnd), Lag: showLag(&p.Lag),
		RetryIn: p.RetryIn.Seconds(), Open: knownCount(int64(p.Open)), status: p,
	}
	if !p.LastContact.IsZero() {
		s.LastContact = &p.LastContact
	}
	if p.To > p.From {
		s.From, s.To = &p.From, &p.To
	}
	s.Meaning, s.Do = explainMirror(link, p, p.Partition)
	return s
}

// explainMirror says what the state of a partition, and of others that are as it is, means, and what to do about it. Both are empty while all is well.
func explainMirror(link string, p *cluster.PartitionStatus, alike ...int32) (meaning, do string) {
	name, topic := quoteWord(link), quoteWord(p.Topic)
	words := []string{"leat link skip", name, topic}
	for _, n := range alike {
		words = append(words, strconv.Itoa(int(n)))
	}
	skip := strings.Join(words, " ")
	lost := fmt.Sprintf("the offsets %d to %d", p.From, p.To-1)
	anew := fmt.Sprintf("\"leat topic delete %s\" drops what is here, and the link copies the topic anew from its start", topic)
	ordinary := fmt.Sprintf("\"leat link failover %s %s --force\" makes an ordinary topic of it", name, topic)
	switch p.State {
	case stateMirroring, statePromoted:
		return "", ""
	case stateIdle, statePreparing:
		return "it is found out where the source's leader is, and that what is here is the source's", "nothing: it goes on by itself"
	case stateCutting:
		return "what is here from an offset on is not the source's, and all replicas drop it", "nothing: it goes on by itself when all replicas that are in sync have"
	case stateRestoring:
		return "it was written here, and is to mirror the cluster that has taken over: the offset is looked for up to which both have the same records", "nothing: it goes on by itself when the other cluster answers"
	case stateWaiting:
		return "the last try has failed", fmt.Sprintf("nothing if the reason passes: it is tried again by itself; \"leat link doctor %s\" finds out what is wrong; if the source is gone for good, \"leat link failover %s\"", name, name)
	case statePaused:
		return "a person has paused it", fmt.Sprintf("\"leat link resume %s %s\" has it go on, and \"leat link resume %s\" the whole link, if that is paused", name, topic, name)
	case stateGap:
		return "the source has deleted records before they were copied: " + lost, fmt.Sprintf("\"%s\" accepts that they are missing here, and goes on at %d; other partitions go on meanwhile", skip, p.To)
	case stateTombstonesLost:
		return "it was behind for longer than the source keeps tombstones, so that keys which were deleted there may live on here: " + lost,
			fmt.Sprintf("\"%s\" accepts that, and goes on; or %s", skip, anew)
	case stateDeleted:
		return "the source does not have the topic any more; what is here stays, and can be read", fmt.Sprintf("\"leat topic delete %s\" if nobody needs it here; or %s", topic, ordinary)
	case stateRecreated:
		return "the source has another topic of the same name; what is here is the old one's, and can be read", anew + "; leave it as it is to keep the old one; or " + ordinary
	case stateFailed:
		return "what the source sends cannot be mirrored", fmt.Sprintf("mend it at the source; then \"%s\" tries again", skip)
	case statePromoting:
		return "it becomes an ordinary partition", "nothing: it goes on by itself"
	case cluster.StateUnknown:
		return "no node has told how it does: it has no leader, or its leader has not answered", fmt.Sprintf("\"leat topic describe %s\" and \"leat cluster\" show who leads, and which nodes are away", topic)
	}
	return "this version of leat does not know the state", "use that of the nodes"
}

// mostShownPlaces is how many lines about partitions that do not mirror a person gets.
const mostShownPlaces = 20

// text is the link for people.
func (d *describedLink) text() string {
	var b strings.Builder
	of := "cluster " + escapeLine(d.Source)
	if d.Source == "" {
		of = "a cluster that is not known before an agent is connected"
	}
	_, _ = fmt.Fprintf(&b, "link %s: %s of %s\n", escapeLine(d.Name), formatCount(d.Topics, "topic"), of)
	if d.Paused {
		_, _ = fmt.Fprintf(&b, "it is paused: \"leat link resume %s\" has it go on\n", quoteWord(d.Name))
	}
	settings := columns{head: []string{"SETTING", "VALUE"}}
	for _, key := range slices.Sorted(maps.Keys(d.Settings)) {
		settings.addRow(key, shortSetting(key, d.Settings[key]))
	}
	if d.HasSecrets {
		settings.addRow("(secrets)", "set, and never shown")
	}
	b.WriteString("\n" + settings.String())
	topics := columns{head: []string{"TOPIC", "OF", ">PARTITIONS", "STATE", ">LAG", ">BYTES", ">BEHIND", ">RPO"}}
	for i := range d.TopicList {
		t := &d.TopicList[i]
		of := shownLink{Partitions: t.Partitions, UnknownLag: t.UnknownLag, status: &cluster.LinkStatus{Lag: t.sum}}
		topics.addRow(append([]string{t.Topic, t.Source, strconv.Itoa(t.Partitions), statesText(t.States)}, of.lagCells()...)...)
	}
	if len(d.TopicList) > 0 {
		b.WriteString("\n" + topics.String())
	}
	d.writeTasks(&b)
	d.writeDifferences(&b)
	d.writeAgents(&b)
	d.writePlaces(&b)
	b.WriteString(uncutText(d.Uncut))
	if d.Tails.Tails > 0 {
		_, _ = fmt.Fprintf(&b, "\n%s of records that cuts have taken are kept, by all replicas together: \"leat link tail list\" shows them\n", formatSize(float64(d.Tails.Bytes)))
	}
	return b.String()
}

// writeTasks writes how the tasks do that run for the whole link.
func (d *describedLink) writeTasks(b *strings.Builder) {
	if len(d.Tasks) == 0 {
		return
	}
	t := columns{head: []string{"TASK", "STATE", ">NODE", "LAST WELL", "REASON"}}
	for _, of := range d.Tasks {
		last := "-"
		if !of.Last.IsZero() {
			last = of.Last.UTC().Format("2006-01-02 15:04:05 MST")
		}
		reason := of.Reason
		if len(of.Notes) > 0 && of.State != "WAITING" {
			reason = formatCount(len(of.Notes), "note") + ", below"
		}
		t.addRow(of.Task, of.State, strconv.Itoa(int(of.Node)), last, reason)
	}
	b.WriteString("\n" + t.String())
	for i := range d.Tasks {
		if p := d.Tasks[i].Positions; p != nil {
			b.WriteString("\n" + d.explainPositions(&d.Tasks[i]))
		}
	}
	for _, of := range d.Tasks {
		for i, note := range of.Notes {
			if i == 0 {
				b.WriteString("\n" + of.Task + ":\n")
			}
			b.WriteString("  " + escapeLine(note) + "\n")
		}
	}
}

// explainPositions says in sentences how positions of consumer groups follow the source.
func (d *describedLink) explainPositions(t *shownTask) string {
	p := t.Positions
	var b strings.Builder
	name := quoteWord(d.Name)
	switch p.Mode {
	case "off":
		return fmt.Sprintf("positions of consumer groups do not follow the source: \"leat link alter %s --positions on\" has them follow\n", name)
	case "tailed":
		b.WriteString("positions of consumer groups are tailed from the source's __consumer_offsets: ")
	case "polled":
		b.WriteString("positions of consumer groups are polled every 5 s, since " + escapeLine(p.Why) + ": ")
	default:
		b.WriteString("it is not known yet how positions of consumer groups can follow the source: ")
	}
	_, _ = fmt.Fprintf(&b, "%s of %s\n", formatCount(p.Positions, "position"), formatCount(p.Groups, "group"))
	switch {
	case t.Last.IsZero():
		b.WriteString("    not all that the source has is here yet\n")
	default:
		_, _ = fmt.Fprintf(&b, "    what the source had %s ago is here\n", formatDuration(max(d.now.Sub(t.Last), 0).Round(100*time.Millisecond)))
	}
	if p.Loading > 0 {
		_, _ = fmt.Fprintf(&b, "    %s of the source's records still to be read to the end\n", formatCount(p.Loading, "partition"))
	}
	if p.Open > 0 {
		_, _ = fmt.Fprintf(&b, "    %s at the source, whose positions wait for the end\n", formatCount(p.Open, "open transaction"))
	}
	if p.Mode == "polled" {
		_, _ = fmt.Fprintf(&b, "    \"leat link doctor %s\" prints the right by which they are tailed\n", name)
	}
	for _, why := range slices.Sorted(maps.Keys(p.Held)) {
		_, _ = fmt.Fprintf(&b, "    %s left as here: %s\n", formatCount(p.Held[why], "position"), escapeLine(why))
	}
	if p.Ahead > 0 {
		_, _ = fmt.Fprintf(&b, "    the source's clock was ahead by up to %s: commits there count as that much older where they are compared with commits here\n", formatDuration(time.Duration(p.Ahead*float64(time.Second))))
	}
	return b.String()
}

// writeDifferences writes which configs are not as at the source, and which were not.
func (d *describedLink) writeDifferences(b *strings.Builder) {
	t := columns{head: []string{"TOPIC", "CONFIG", "AT THE SOURCE", "HERE", "WHAT IS DONE"}}
	n := 0
	for _, of := range d.Tasks {
		for _, c := range of.Differences {
			done := "kept: " + c.Why
			if c.Fate == "PUT_BACK" {
				done = "put back as at the source, " + c.At.UTC().Format("2006-01-02 15:04:05 MST")
			}
			t.addRow(c.Topic, c.Key, c.Source, c.Here, done)
			n++
		}
	}
	if n > 0 {
		b.WriteString("\n" + t.String())
	}
}

// writePlaces writes which partitions do not mirror, why, and what to do. Those of a topic that are alike are one line.
func (d *describedLink) writePlaces(b *strings.Builder) {
	type key struct{ topic, state, reason, meaning string }
	var order []key
	members, first := map[key][]int32{}, map[key]*cluster.PartitionStatus{}
	for i := range d.PartitionList {
		p := &d.PartitionList[i]
		if p.Meaning == "" {
			continue
		}
		k := key{p.Topic, p.State, p.Reason, p.Meaning}
		if len(members[k]) == 0 {
			order = append(order, k)
			first[k] = p.status
		}
		members[k] = append(members[k], p.Partition)
	}
	slices.SortStableFunc(order, func(x, y key) int { return rankOf(x.state) - rankOf(y.state) })
	for i, k := range order {
		if i == mostShownPlaces {
			_, _ = fmt.Fprintf(b, "\nand %d more: -o json has all\n", len(order)-i)
			return
		}
		reason := ""
		if k.reason != "" {
			reason = " (" + k.reason + ")"
		}
		_, do := explainMirror(d.Name, first[k], members[k]...)
		_, _ = fmt.Fprintf(b, "\n%s %s is %s: %s%s\n    %s\n", escapeLine(k.topic), formatRanges(members[k]), k.state, k.meaning, escapeLine(reason), do)
	}
}

// formatRanges writes numbers that ascend, as in 0-3,7.
func formatRanges(list []int32) string {
	var all []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		text := strconv.Itoa(int(list[i]))
		if j > i {
			text += "-" + strconv.Itoa(int(list[j]))
		}
		all = append(all, text)
		i = j + 1
	}
	return strings.Join(all, ",")
}
