package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// shownLag is a lag in the output; null: it is not known.
type shownLag struct {
	Records *int64   `json:"records"`
	Bytes   *int64   `json:"bytes"`
	Seconds *float64 `json:"seconds"` // behind the source: 0 while all that is known of is here
	RPO     *float64 `json:"rpoSeconds"`
}

func showLag(l *cluster.Lag) shownLag {
	return shownLag{Records: knownCount(l.Records), Bytes: knownCount(l.Bytes), Seconds: knownSeconds(l.Behind), RPO: knownSeconds(l.RPO)}
}

func knownCount(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func knownSeconds(d time.Duration) *float64 {
	if d < 0 {
		return nil
	}
	return new(d.Seconds())
}

// cells are the lag in a table: records, bytes, time and RPO.
func lagCells(l *cluster.Lag) []string {
	cells := []string{"-", "-", formatSpan(l.Behind), formatSpan(l.RPO)}
	if l.Records >= 0 {
		cells[0] = formatNumber(l.Records)
	}
	if l.Bytes >= 0 {
		cells[1] = formatSize(float64(l.Bytes))
	}
	return cells
}

// formatSpan is a time span in a table; -: it is not known.
func formatSpan(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	return formatDuration(d.Round(time.Millisecond))
}

// shownLink is a link in the output.
type shownLink struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Source     string            `json:"source"` // the cluster id
	Settings   map[string]string `json:"settings"`
	HasSecrets bool              `json:"hasSecrets"`
	Paused     bool              `json:"paused"`
	Topics     int               `json:"topics"`
	Partitions int               `json:"partitions"`
	States     map[string]int    `json:"states"` // partitions in each
	Lag        shownLag          `json:"lag"`    // of all partitions together, and the longest times
	UnknownLag int               `json:"unknownLag"`
	// LastContact is the latest of all partitions; null: there was none.
	LastContact *time.Time  `json:"lastContact"`
	Tasks       []shownTask `json:"tasks"`
	// Agents are those that are connected, by node, of a link that is reached by agents; AgentTokens are the tokens with which they may be.
	Agents      []cluster.AgentStatus `json:"agents,omitempty"`
	AgentTokens []cluster.AgentToken  `json:"agentTokens,omitempty"`

	status *cluster.LinkStatus
}

// shownTask is a task of a link in the output.
type shownTask struct {
	Task   string    `json:"task"`
	Node   int32     `json:"node"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Last   time.Time `json:"last,omitzero"`
	// Positions tells more of the task for positions of consumer groups; null: it is another one.
	Positions *shownPositions `json:"positions,omitempty"`
	// With describe: sentences about what a person ought to know, and the configs that are not as at the source, or were not.
	Notes       []string                   `json:"notes,omitempty"`
	Differences []cluster.ConfigDifference `json:"differences,omitempty"`
}

// shownPositions is how positions of consumer groups follow the source in the output.
type shownPositions struct {
	Mode      string         `json:"mode"` // tailed, polled, off; empty: it is not known yet
	Why       string         `json:"why,omitempty"`
	Groups    int            `json:"groups"`
	Positions int            `json:"positions"`
	Open      int            `json:"openTransactions"`
	Loading   int            `json:"loadingPartitions"`
	Ahead     float64        `json:"aheadSeconds"`
	Held      map[string]int `json:"held"` // positions that stay as they are here although the source has others, by the reason
}

func showPositions(p *cluster.PositionsStatus) *shownPositions {
	if p == nil {
		return nil
	}
	s := &shownPositions{Mode: p.Mode, Why: p.Why, Groups: p.Groups, Positions: p.Positions, Open: p.Open, Loading: p.Loading, Ahead: p.Ahead.Seconds(), Held: map[string]int{}}
	maps.Copy(s.Held, p.Held)
	return s
}

func showLink(s *cluster.LinkStatus) shownLink {
	l := shownLink{
		Name: s.Name, ID: s.ID.String(), Source: s.Source, Settings: settingsOf(s.Settings), HasSecrets: s.Secrets, Paused: s.Paused, Topics: s.Topics, States: map[string]int{},
		Lag: showLag(&s.Lag), UnknownLag: s.Unknown, Tasks: []shownTask{}, Agents: s.Agents, AgentTokens: s.Tokens, status: s,
	}
	for state, n := range s.States {
		l.States[state] = n
		l.Partitions += n
	}
	if !s.LastContact.IsZero() {
		l.LastContact = &s.LastContact
	}
	for _, t := range s.Tasks {
		l.Tasks = append(l.Tasks, shownTask{t.Task, t.Node, t.State, t.Reason, t.Last, showPositions(t.Positions), t.Notes, t.Differences})
	}
	return l
}

func settingsOf(list []meta.LinkSetting) map[string]string {
	set := map[string]string{}
	for _, s := range list {
		set[s.Key] = s.Value
	}
	return set
}

// stateOrder are the states of mirrored partitions, those first at which a person has to look.
func stateOrder() []string {
	return []string{
		stateFailed, stateTombstonesLost, stateGap, stateRecreated, stateDeleted, cluster.StateUnknown, stateWaiting, stateRestoring, stateCutting, statePreparing, stateIdle, statePaused, statePromoting,
		stateMirroring, statePromoted,
	}
}

// The states of mirrored partitions, as nodes name them.
const (
	stateIdle           = "IDLE"
	statePreparing      = "PREPARING"
	stateMirroring      = "MIRRORING"
	stateWaiting        = "WAITING"
	statePaused         = "PAUSED"
	stateCutting        = "CUTTING"
	stateRestoring      = "RESTORING"
	stateGap            = "GAP"
	stateTombstonesLost = "TOMBSTONES_LOST"
	stateDeleted        = "SOURCE_DELETED"
	stateRecreated      = "SOURCE_RECREATED"
	stateFailed         = "FAILED"
	statePromoting      = "PROMOTING"
	statePromoted       = "PROMOTED"
)

// rankOf is the place of a state in stateOrder. One that is not known, of a newer node, is looked at first.
func rankOf(state string) int { return slices.Index(stateOrder(), state) }

// statesText says how many partitions are in which state: the state alone if all are in it.
func statesText(states map[string]int) string {
	var all []string
	sorted := slices.SortedFunc(maps.Keys(states), func(a, b string) int { return cmp.Or(rankOf(a)-rankOf(b), strings.Compare(a, b)) })
	for _, state := range sorted {
		all = append(all, state+" "+formatNumber(int64(states[state])))
	}
	switch len(all) {
	case 0:
		return "-"
	case 1:
		return sorted[0]
	}
	return strings.Join(all, ", ")
}

// shownLinks is the output of the verb that lists links.
type shownLinks struct {
	Links  []shownLink          `json:"links"`
	Silent []cluster.SilentNode `json:"silentNodes"`
}

func (v *linkVerbs) newList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the links of this cluster, and how they do", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"ls"},
		Long: `List the links by which this cluster mirrors others. LAG says how far the mirrors are behind their sources, and RPO how long ago, at most, all that the
source had committed was here: a failover now would lose what was written since.`,
		Example: `  leat link list
  leat link list -o json --data /var/lib/leat`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error {
				a, err := v.ask(ctx, cmd, n, &cluster.LinkRequest{Verb: cluster.LinkList})
				if err != nil {
					return fmt.Errorf("listing links: %w", err)
				}
				return v.list(n, &a)
			})
		},
	}
	return v.add(cmd)
}

func (v *linkVerbs) list(n *linkNode, a *cluster.LinkAnswer) error {
	shown := shownLinks{Links: []shownLink{}, Silent: append([]cluster.SilentNode{}, a.Silent...)}
	for i := range a.Links {
		shown.Links = append(shown.Links, showLink(&a.Links[i]))
	}
	v.tellSilent(a.Silent)
	return v.show(shown, func() string {
		if len(shown.Links) == 0 {
			return "this cluster, " + n.cluster + ", mirrors no other one: \"leat link create NAME --from HOST:PORT\" begins that\n"
		}
		t := columns{head: []string{"LINK", "SOURCE", "FROM", ">TOPICS", ">PARTITIONS", "STATE", ">LAG", ">BYTES", ">BEHIND", ">RPO"}}
		for i := range shown.Links {
			l := &shown.Links[i]
			t.addRow(append([]string{l.Name, l.Source, l.Settings[serversKey], strconv.Itoa(l.Topics), strconv.Itoa(l.Partitions), l.stateText()}, l.lagCells()...)...)
		}
		return t.String()
	})
}

// stateText is the state of a link in a table.
func (l *shownLink) stateText() string {
	if l.Paused {
		return statePaused
	}
	return statesText(l.States)
}

// lagCells are the lag of a link in a table. A + says that there are partitions of which it is not known.
func (l *shownLink) lagCells() []string {
	if l.Partitions == l.UnknownLag {
		return []string{"-", "-", "-", "-"}
	}
	cells := lagCells(&l.status.Lag)
	if l.UnknownLag > 0 {
		for i := range cells {
			cells[i] += "+"
		}
	}
	return cells
}

// tellSilent tells of nodes that have not answered.
func (v *linkVerbs) tellSilent(list []cluster.SilentNode) {
	for _, n := range list {
		v.tellPerson(fmt.Sprintf("node %d has not told how its mirrors do (%s): of those the metadata are shown", n.Node, n.Problem))
	}
}
