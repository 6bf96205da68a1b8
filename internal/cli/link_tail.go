package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/peer"
)

// A tail is what a cut has taken from a partition that mirrors, on one replica: its records are not the source's any more. Replicas that were behind have shorter ones.

// tailVerbs are the verbs about what cuts have taken.
type tailVerbs struct{ *linkVerbs }

func (v tailVerbs) newTail() *cobra.Command {
	return newParent("tail", "Show, save, write again or discard records that a mirror has lost", v.newTailList(), v.newTailExport(), v.newTailReplay(), v.newTailDiscard())
}

// busyPause is the pause before a node is asked again that serves as many as it may.
const busyPause = 200 * time.Millisecond

// askTails asks a node about tails, and waits no longer than --timeout.
func (v tailVerbs) askTails(ctx context.Context, n *linkNode, q *cluster.TailRequest) (cluster.TailAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(v.timeout))
	defer cancel()
	for {
		a, refused, err := n.tails(ctx, q)
		switch {
		case errors.Is(err, cluster.ErrBusy):
			select {
			case <-ctx.Done():
			case <-time.After(busyPause):
				continue
			}
		case errors.Is(err, peer.ErrClosedByPeer):
			return a, errors.New("the node has closed the connection before it was done: look at its log, and run this again; what cuts have taken can be seen by nodes of the newest version only")
		case errors.Is(err, context.DeadlineExceeded):
			return a, fmt.Errorf("the node has not answered for %s: try again, with a longer --timeout if the disks are slow", formatDuration(orDefault(v.timeout)))
		case refused != nil && refused.Kind == controller.UnknownTopic:
			return a, notFoundf("%s: \"leat topic list\" lists all topics", strings.TrimSuffix(refused.Message, "."))
		}
		return a, explainCommand(refused, err)
	}
}

// listTails lists tails, page by page.
func (v tailVerbs) listTails(ctx context.Context, n *linkNode, q cluster.TailRequest) (all cluster.TailAnswer, err error) {
	q.Verb = cluster.TailList
	for {
		a, err := v.askTails(ctx, n, &q)
		if err != nil {
			return all, err
		}
		tails := append(all.Tails, a.Tails...)
		all = a // what the nodes say beside the tails is the same each time
		all.Tails = tails
		if !a.HasMore || len(a.Tails) == 0 {
			return all, nil
		}
		place := tails[len(tails)-1].TailPlace
		if q.After != nil && *q.After == place {
			return all, errors.New("the node lists the same again and again: look at its log")
		}
		q.After = &place
	}
}

// tailArguments are the arguments of the verbs about one cut.
type tailArguments struct {
	topic     string
	partition int32
	cut       int32
	node      int32 // -1: any
}

func (t *tailArguments) String() string {
	return fmt.Sprintf("cut %d of %s %d", t.cut, t.topic, t.partition)
}

// addFlags gives a verb the flags that name a cut.
func (t *tailArguments) addFlags(cmd *cobra.Command) {
	cmd.Flags().Int32Var(&t.cut, "cut", 0, `the number of the cut, as "leat link tail list" shows it`)
}

// read reads the arguments TOPIC PARTITION.
func (t *tailArguments) read(args []string) error {
	partitions, err := parsePartitions(args[1:2])
	if err != nil {
		return err
	}
	if t.cut < 1 {
		return usagef("name a cut with --cut: \"leat link tail list %s %s\" shows which there are", quoteWord(args[0]), args[1])
	}
	t.topic, t.partition = args[0], partitions[0]
	return nil
}

// findTails finds the tails of a cut.
func (v tailVerbs) findTails(ctx context.Context, n *linkNode, t *tailArguments, into string) (list []cluster.TailStatus, a cluster.TailAnswer, err error) {
	a, err = v.listTails(ctx, n, cluster.TailRequest{Topic: t.topic, Partition: &t.partition, Into: into})
	if err != nil {
		return nil, a, err
	}
	var cuts []string
	for _, of := range a.Tails {
		switch {
		case of.Topic != t.topic || of.Partition != t.partition: // it was not asked for
		case of.Cut == t.cut:
			list = append(list, of)
		case !slices.Contains(cuts, strconv.Itoa(int(of.Cut))):
			cuts = append(cuts, strconv.Itoa(int(of.Cut)))
		}
	}
	return list, a, nil
}

// notKept says that nothing is kept of a cut, as far as the nodes have answered.
func notKept(t *tailArguments, a *cluster.TailAnswer) error {
	var cuts []string
	for i := range a.Tails {
		cuts = append(cuts, strconv.Itoa(int(a.Tails[i].Cut)))
	}
	slices.Sort(cuts)
	has := "and nothing of any other cut"
	if cuts = slices.Compact(cuts); len(cuts) > 0 {
		has = "only of cut " + phrase.Join(cuts, "and")
	}
	if len(a.Silent) > 0 {
		has += "; " + silentNodes(a.Silent) + " not answered, and may have kept something"
	}
	return notFoundf("nothing is kept of %v, %s", t, has)
}

// silentNodes names nodes that have not answered, with the verb.
func silentNodes(list []cluster.SilentNode) string {
	var ids []string
	for _, n := range list {
		ids = append(ids, strconv.Itoa(int(n.Node)))
	}
	if len(ids) == 1 {
		return "node " + ids[0] + " has"
	}
	return "nodes " + phrase.Join(ids, "and") + " have"
}

// chooseTail chooses the tail with the most records, or that of the node that was asked for. It says whether others have records that it lacks.
func chooseTail(list []cluster.TailStatus, node int32) (best *cluster.TailStatus, others []cluster.TailStatus) {
	for i := range list {
		switch t := &list[i]; {
		case node >= 0 && t.Node != node:
		case best == nil || t.Last-t.First > best.Last-best.First || t.Last-t.First == best.Last-best.First && t.Bytes > best.Bytes:
			best = t
		}
	}
	for i := range list {
		if t := &list[i]; best != nil && (t.First < best.First || t.Last > best.Last) {
			others = append(others, *t)
		}
	}
	return best, others
}

// pickTail finds the tails of a cut, and chooses one. What others have beside it is told.
func (v tailVerbs) pickTail(ctx context.Context, n *linkNode, t *tailArguments, into string) (*cluster.TailStatus, error) {
	list, a, err := v.findTails(ctx, n, t, into)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, notKept(t, &a)
	}
	best, others := chooseTail(list, t.node)
	if best == nil {
		var nodes []string
		for i := range list {
			nodes = append(nodes, strconv.Itoa(int(list[i].Node)))
		}
		return nil, notFoundf("node %d has kept nothing of %v: name one of %s with --node", t.node, t, phrase.Join(nodes, "or"))
	}
	for i := range others {
		o := &others[i]
		v.tellPerson(fmt.Sprintf("node %d has kept the offsets %d to %d of %v, of which node %d, whose records these are, has %d to %d: see also --node %d", o.Node, o.First, o.Last, t, best.Node, best.First, best.Last, o.Node))
	}
	for _, s := range a.Silent {
		v.tellPerson(fmt.Sprintf("node %d has not answered (%s), and may have kept more of %v", s.Node, s.Problem, t))
	}
	return best, nil
}

// keptTail is a tail in the output.
type keptTail struct {
	Topic      string    `json:"topic"`
	Partition  int32     `json:"partition"`
	Cut        int32     `json:"cut"`
	Node       int32     `json:"node"`
	First      int64     `json:"first"` // offset of the first record that was cut
	Last       int64     `json:"last"`
	FirstEpoch int32     `json:"firstEpoch"`
	LastEpoch  int32     `json:"lastEpoch"`
	Kept       time.Time `json:"kept"`
	Bytes      int64     `json:"bytes"`
	HasMoved   bool      `json:"hasMoved,omitempty"` // the partition is on other nodes by now
}

func showTail(t *cluster.TailStatus) keptTail {
	return keptTail{t.Topic, t.Partition, t.Cut, t.Node, t.First, t.Last, t.FirstEpoch, t.LastEpoch, t.Kept(), t.Bytes, t.HasMoved}
}

// keptTails is the output of the verb that lists tails.
type keptTails struct {
	Tails    []keptTail             `json:"tails"`
	Uncut    []cluster.UncutReplica `json:"uncut"` // replicas that cannot make a cut
	Problems []cluster.TailProblem  `json:"problems"`
	Silent   []cluster.SilentNode   `json:"silentNodes"`
}

func (v tailVerbs) newTailList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [TOPIC] [PARTITION]", Short: "List the records that mirrors have lost, and that are kept", Args: cobra.MaximumNArgs(2),
		SuggestFor: []string{"ls", "show"},
		Long: `List what cuts have taken from partitions that mirror, and each replica has kept: after an unclean election at the source, its records are not those that were copied before,
and all replicas drop these from an offset on. Each replica has what it had, so one that was behind has less. It is kept until somebody discards it, or deletes the topic.`,
		Example: `  leat link tail list
  leat link tail list orders 0 -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := cluster.TailRequest{}
			if len(args) > 0 {
				q.Topic = args[0]
			}
			if len(args) > 1 {
				partitions, err := parsePartitions(args[1:])
				if err != nil {
					return err
				}
				q.Partition = &partitions[0]
			}
			return v.dial(cmd, func(_ context.Context, n *linkNode) error {
				a, err := v.listTails(cmd.Context(), n, q)
				if err != nil {
					return fmt.Errorf("listing what cuts have taken: %w", err)
				}
				l := &keptTails{[]keptTail{}, append([]cluster.UncutReplica{}, a.Uncut...), append([]cluster.TailProblem{}, a.Problems...), append([]cluster.SilentNode{}, a.Silent...)}
				for i := range a.Tails {
					l.Tails = append(l.Tails, showTail(&a.Tails[i]))
				}
				for _, s := range a.Silent {
					v.tellPerson(fmt.Sprintf("node %d has not told what it has kept (%s)", s.Node, s.Problem))
				}
				for _, p := range a.Problems {
					v.tellPerson(fmt.Sprintf("node %d: %s", p.Node, p.Text))
				}
				return v.show(l, l.text)
			})
		},
	}
	return v.add(cmd)
}

// text is the list for people.
func (l *keptTails) text() string {
	t := columns{head: []string{"TOPIC", ">PARTITION", ">CUT", ">NODE", ">FIRST", ">LAST", "EPOCHS", ">BYTES", "KEPT", ""}}
	for i := range l.Tails {
		of, epochs, note := &l.Tails[i], strconv.Itoa(int(l.Tails[i].FirstEpoch)), ""
		if of.LastEpoch != of.FirstEpoch {
			epochs += "-" + strconv.Itoa(int(of.LastEpoch))
		}
		if of.HasMoved {
			note = "the partition is on other nodes now"
		}
		t.addRow(of.Topic, strconv.Itoa(int(of.Partition)), strconv.Itoa(int(of.Cut)), strconv.Itoa(int(of.Node)), strconv.FormatInt(of.First, 10), strconv.FormatInt(of.Last, 10), epochs,
			formatSize(float64(of.Bytes)), of.Kept.Format("2006-01-02 15:04:05 MST"), note)
	}
	text := "nothing is kept: no cut has taken any records, or what they have taken was discarded\n"
	if len(l.Tails) > 0 {
		text = t.String()
	}
	return text + uncutText(l.Uncut)
}

// uncutText says which replicas cannot make a cut, a line for each, and what to do about it.
func uncutText(list []cluster.UncutReplica) string {
	var b strings.Builder
	for _, r := range list {
		_, _ = fmt.Fprintf(&b, "\nthe replica of %s %d on node %d cannot be cut, and neither leads nor follows until it can: %s\n    free some space there, or discard what nobody needs: \"leat link tail list\" shows what is kept\n",
			escapeLine(r.Topic), r.Partition, r.Node, escapeLine(r.Problem))
	}
	return b.String()
}

// discardedTails is the output of the verb that discards tails.
type discardedTails struct {
	Topic     string                `json:"topic"`
	Partition int32                 `json:"partition"`
	Cut       int32                 `json:"cut"`
	Done      bool                  `json:"done"` // no node has anything of it any more
	Kept      []keptTail            `json:"kept"` // what there was
	Discarded []int32               `json:"discarded"`
	HadNone   []int32               `json:"hadNone"`
	Problems  []cluster.TailProblem `json:"problems"`
	Silent    []cluster.SilentNode  `json:"silentNodes"`
}

func (v tailVerbs) newTailDiscard() *cobra.Command {
	var t tailArguments
	var isMeant bool
	cmd := &cobra.Command{
		Use: "discard TOPIC PARTITION", Short: "Discard for good what a cut has taken, on all nodes", Args: cobra.ExactArgs(2),
		SuggestFor: []string{"delete", "remove", "rm", "drop"},
		Long: `Discard what a cut has taken from a partition, on all nodes that answer. These records are nowhere else: without --yes the verb only says what would be lost. It can be run again, and
has to be if some nodes have not answered.`,
		Example: `  leat link tail discard orders 0 --cut 3
  leat link tail discard orders 0 --cut 3 --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.read(args); err != nil {
				return err
			}
			return v.dial(cmd, func(_ context.Context, n *linkNode) error { return v.discardTails(cmd.Context(), n, &t, isMeant) })
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&isMeant, "yes", false, "do it; without it the verb only says what would be lost")
	return v.add(cmd)
}

// discardTails discards the tails of a cut, if that is meant.
func (v tailVerbs) discardTails(ctx context.Context, n *linkNode, t *tailArguments, isMeant bool) error {
	list, a, err := v.findTails(ctx, n, t, "")
	if err != nil {
		return fmt.Errorf("%v: %w", t, err)
	}
	d := &discardedTails{Topic: t.topic, Partition: t.partition, Cut: t.cut, Kept: []keptTail{}, Discarded: []int32{}, HadNone: []int32{}, Problems: []cluster.TailProblem{}, Silent: append([]cluster.SilentNode{}, a.Silent...)}
	for i := range list {
		d.Kept = append(d.Kept, showTail(&list[i]))
	}
	switch {
	case len(list) == 0 && isMeant && len(a.Silent) == 0 && len(a.Problems) == 0: // it was discarded before
		d.Done = true
		return v.show(d, func() string { return fmt.Sprintf("nothing is kept of %v: there is nothing to discard\n", t) })
	case len(list) == 0:
		return notKept(t, &a)
	case !isMeant:
		return v.show(d, func() string { return d.text(t) + "nothing was discarded: --yes discards it for good\n" })
	}
	a, err = v.askTails(ctx, n, &cluster.TailRequest{Verb: cluster.TailDiscard, Topic: t.topic, TopicID: list[0].TopicID, Partition: &t.partition, Cut: t.cut})
	if err != nil {
		return fmt.Errorf("discarding %v, which may be done on some nodes: %w", t, err)
	}
	d.Discarded, d.HadNone, d.Problems, d.Silent = append(d.Discarded, a.Discarded...), append(d.HadNone, a.HadNone...), append(d.Problems, a.Problems...), append(d.Silent[:0], a.Silent...)
	d.Done = len(d.Problems)+len(d.Silent) == 0
	if err := v.show(d, func() string {
		if len(d.Discarded) == 0 {
			return ""
		}
		return fmt.Sprintf("discarded %v on %s\n", t, nodeNames(d.Discarded))
	}); err != nil {
		return err
	}
	for _, p := range d.Problems {
		v.tellPerson(fmt.Sprintf("node %d has not discarded %v: %s", p.Node, t, p.Text))
	}
	switch {
	case len(d.Silent) > 0:
		return fmt.Errorf("%s not answered, and may keep %v: run this again when it runs", silentNodes(d.Silent), t)
	case len(d.Problems) > 0:
		return fmt.Errorf("not all nodes have discarded %v: run this again when they can", t)
	}
	return nil
}

// text says what would be lost.
func (d *discardedTails) text(t *tailArguments) string {
	var b strings.Builder
	for i := range d.Kept {
		_, _ = fmt.Fprintf(&b, "node %d has kept %s of %v: the offsets %d to %d\n", d.Kept[i].Node, formatSize(float64(d.Kept[i].Bytes)), t, d.Kept[i].First, d.Kept[i].Last)
	}
	for _, s := range d.Silent {
		_, _ = fmt.Fprintf(&b, "node %d has not answered (%s), and may have kept some, too\n", s.Node, escapeLine(s.Problem))
	}
	return b.String()
}

// nodeNames names nodes.
func nodeNames(ids []int32) string {
	var list []string
	for _, id := range ids {
		list = append(list, strconv.Itoa(int(id)))
	}
	return cmp.Or(map[bool]string{true: "node "}[len(list) == 1], "nodes ") + phrase.Join(list, "and")
}
