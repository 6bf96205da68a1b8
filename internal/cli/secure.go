package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/peer"
)

// defaultQuiet is for how long nobody must have come without TLS before that ends.
const defaultQuiet = 10 * time.Minute

// securedCluster is the output of the verb.
type securedCluster struct {
	// State is plain, open, observed or finished; secured, since its first start by leat up --secure; or custom, with listeners or an authorizer that
	// were set up by hand.
	State     string `json:"state"`
	Plain     bool   `json:"plain"`     // connections without TLS are taken
	Encrypted bool   `json:"encrypted"` // connections with TLS are taken by all nodes
	User      string `json:"user"`      // the administrator
	// FirstLogin is the file that has the password of the administrator, until it was shown.
	FirstLogin string                 `json:"firstLogin,omitempty"`
	Address    string                 `json:"address"`
	CA         string                 `json:"ca,omitempty"`
	SealingKey string                 `json:"sealingKey,omitempty"`
	Nodes      []cluster.NodeSecuring `json:"nodes"`
	// Of the state custom: the protocols of all listeners, and whether ACLs decide on the node that was asked.
	Listeners []cluster.ListenerSecurity `json:"listeners,omitempty"`
	HasACLs   bool                       `json:"hasAcls,omitempty"`
}

// secureFlags are the flags of the verb.
type secureFlags struct {
	observes, shows, finishes, force bool
	admin                            string
	quiet                            time.Duration
}

func (a *app) newSecure() *cobra.Command {
	var f secureFlags
	cmd := &cobra.Command{
		Use: "secure", Short: "Secure a plain cluster while it runs, without locking anybody out", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Secure a cluster that is plain, while its nodes and clients run. The first run makes what "leat up --secure" makes: a sealing key, a certificate
authority, a certificate for each node, and an administrator, whose password is shown once, with the lines for clients. From then on all nodes take
clients with TLS, who log in, on the same port as clients without, who go on as before, and nothing is denied, but to change ACLs and users. A
node that is down gets what it needs when it comes back. The verb can be run again, and does what is missing.

With --observe the nodes note what ACLs would deny, and "leat acl suggest" prints the grants for it. --status says who still comes without TLS. --finish
ends that: connections without TLS are closed and refused, join tokens of before are revoked, ACLs decide, and the pages of HTTP ask for a login. It is
refused while clients are connected without TLS, or have come so in the last ten minutes, and until all nodes have noted for ten minutes who does. They
do from the first run on, and begin anew when they are started again.

` + holderHelp,
		Example: `  leat secure --observe
  leat secure --status
  leat acl suggest
  leat secure --finish`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.makeRequest(cmd)
			if err != nil {
				return err
			}
			if !cmd.Flag("timeout").Changed { // nodes make keys, and look at the metadata every two seconds
				a.timeout = time.Minute
			}
			q.Within = a.timeout / 2
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error { return a.secure(ctx, cmd, n, q) })
		},
	}
	cmd.Flags().BoolVar(&f.observes, "observe", false, "note what ACLs would deny; --observe=false ends that")
	cmd.Flags().BoolVar(&f.shows, "status", false, "say how far it is, and who comes without TLS; change nothing")
	cmd.Flags().BoolVar(&f.finishes, "finish", false, "take connections with TLS only, and have ACLs decide")
	cmd.Flags().StringVar(&f.admin, "admin", "", "the name of the administrator to make (default: admin)")
	cmd.Flags().DurationVar(&f.quiet, "quiet-for", defaultQuiet, "with --finish: for how long nobody must have come without TLS")
	cmd.Flags().BoolVar(&f.force, "force", false, "with --finish: whoever comes without TLS, and whichever node cannot be asked")
	cmd.MarkFlagsMutuallyExclusive("observe", "status", "finish")
	cmd.MarkFlagsMutuallyExclusive("admin", "status")
	cmd.MarkFlagsMutuallyExclusive("admin", "finish")
	return addDataFlag(a.addOutputFlag(a.addClientFlags(cmd)))
}

// makeRequest makes the request that the flags ask for.
func (f *secureFlags) makeRequest(cmd *cobra.Command) (*cluster.SecureRequest, error) {
	for _, name := range []string{"quiet-for", "force"} {
		if cmd.Flag(name).Changed && !f.finishes {
			return nil, usagef("--%s is for --finish", name)
		}
	}
	if f.quiet < 0 {
		return nil, usagef("--quiet-for %s: give a time span such as 10m", f.quiet)
	}
	q := &cluster.SecureRequest{Verb: cluster.SecureBegin, User: f.admin, Quiet: f.quiet, Force: f.force}
	switch {
	case f.shows:
		q.Verb = cluster.SecureStatus
	case f.finishes:
		q.Verb = cluster.SecureFinish
	case cmd.Flag("observe").Changed:
		q.Observe = &f.observes
	}
	return q, nil
}

// secure has the node do what is asked for, and shows how far it is.
func (a *app) secure(ctx context.Context, cmd *cobra.Command, n *heldNode, q *cluster.SecureRequest) error {
	answer, refused, err := n.admin.Secure(ctx, q)
	if errors.Is(err, peer.ErrClosedByPeer) {
		return errors.New("the node has closed the connection before it was done: look at its log, and run this again, which does what is missing")
	}
	if err := explainCommand(refused, err); err != nil {
		return fmt.Errorf("securing the cluster: %w", err)
	}
	shown := summarize(&answer)
	dir, err := findDirectory(cmd, os.Environ())
	if err == nil {
		dir, err = filepath.Abs(dir) // a client may run elsewhere
	}
	if err != nil {
		return err
	}
	info, err := node.ReadSecured(dir)
	if err != nil {
		return explainDirectory(cmd, dir, err)
	}
	if info != nil {
		shown.CA, shown.SealingKey = info.CA, info.SealingKey
		if info.Address = answer.Address; answer.HasLogin {
			shown.FirstLogin = info.FirstLogin
		} else {
			info.FirstLogin = ""
		}
	}
	if q.Verb == cluster.SecureBegin && info != nil && info.FirstLogin != "" && a.output != "json" {
		if err := announceSecured(a.out, info, false); err != nil {
			return err
		}
	}
	if err := a.show(shown, func() string { return securedStatus(&shown, time.Now()) }); err != nil {
		return err
	}
	if problems := describeProblems(shown.Nodes); q.Verb == cluster.SecureBegin && problems != "" {
		return fmt.Errorf("not all nodes can be secured: %s; the others are, and these try again until they can", problems)
	}
	return nil
}

// summarize makes the output of what a node has answered, but for what is in its directory.
func summarize(answer *cluster.SecureAnswer) securedCluster {
	c := securedCluster{State: stateText(answer.State), User: answer.User, Address: answer.Address, Nodes: answer.Nodes, Encrypted: answer.State != 0}
	c.Plain = answer.State != meta.SecuringFinished
	for i := range answer.Nodes {
		c.Encrypted = c.Encrypted && answer.Nodes[i].Ready
	}
	switch answer.Otherwise {
	case cluster.AtFirstStart:
		c.State, c.Plain, c.Encrypted = "secured", false, true
	case cluster.ByHand:
		c.State, c.Plain, c.Listeners, c.HasACLs = "custom", false, answer.Listeners, answer.HasACLs
		encrypted := map[int32]bool{}
		for _, l := range answer.Listeners {
			p, ok := config.ParseProtocol(l.Protocol)
			hasTLS := ok && p.UsesTLS()
			c.Plain = c.Plain || !hasTLS
			encrypted[l.Node] = encrypted[l.Node] || hasTLS
		}
		c.Encrypted = !slices.Contains(slices.Collect(maps.Values(encrypted)), false)
	case cluster.NotOtherwise:
	}
	return c
}

// describeProblems names the nodes that run and cannot be secured, with their problems; "": there are none.
func describeProblems(nodes []cluster.NodeSecuring) string {
	var list []string
	for i := range nodes {
		if at := &nodes[i]; !at.Ready && at.Answers && at.Problem != "" {
			list = append(list, fmt.Sprintf("node %d: %s", at.Node, at.Problem))
		}
	}
	return strings.Join(list, "; ")
}

// waitsFor says what the last step waits for, in a line: nodes that cannot be secured, or are away, or clients.
func waitsFor(nodes []cluster.NodeSecuring) string {
	if problems := describeProblems(nodes); problems != "" {
		return "these nodes cannot be secured yet, and all must be before \"leat secure --finish\": " + problems
	}
	var away []string
	for i := range nodes {
		if at := &nodes[i]; !at.Ready && !at.Answers {
			away = append(away, strconv.Itoa(int(at.Node)))
		}
	}
	if len(away) > 0 {
		return "before \"leat secure --finish\" these nodes must run, or be removed: " + strings.Join(away, ", ")
	}
	return "when no client comes without TLS any more: leat secure --finish" + earliestFinish(nodes)
}

// describeCustom says what security a cluster has that was set up by hand.
func describeCustom(c *securedCluster) string {
	t := columns{head: []string{"NODE", "LISTENER", "PROTOCOL"}}
	for _, l := range c.Listeners {
		t.addRow(strconv.Itoa(int(l.Node)), l.Listener, l.Protocol)
	}
	decides := "ACLs do not decide what clients may do, on the node that was asked"
	if c.HasACLs {
		decides = "ACLs decide what clients may do, on the node that was asked"
	}
	return "this cluster has security that was set up by hand, and \"leat secure\" is for clusters that have none: docs/security.md says what else there is\n\n" + t.String() + "\n" + decides + "\n"
}

// stateText names a state.
func stateText(s meta.SecuringState) string {
	switch s {
	case meta.SecuringOpen:
		return "open"
	case meta.SecuringObserved:
		return "observed"
	case meta.SecuringFinished:
		return "finished"
	}
	return "plain"
}

// securedStatus says how far a cluster is.
func securedStatus(c *securedCluster, now time.Time) string {
	var b strings.Builder
	switch c.State {
	case "plain":
		return "this cluster is plain: clients come without TLS and without a login; \"leat secure\" begins to secure it\n"
	case "secured":
		return "this cluster is secured, since its first start (leat up --secure): clients log in over TLS, and ACLs decide what they may do\n"
	case "custom":
		return describeCustom(c)
	case "finished":
		b.WriteString("this cluster is secured: clients log in over TLS, and ACLs decide what they may do\n")
	case "observed":
		b.WriteString("clients come with TLS and a login, or without; nothing is denied, and what ACLs would deny is noted: \"leat acl suggest\" prints the grants\n")
	default:
		b.WriteString("clients come with TLS and a login, or without; nothing is denied: \"leat secure --observe\" notes what ACLs would deny\n")
	}
	t := columns{head: []string{"NODE", "TLS", "NOTES CLIENTS SINCE", "PROBLEM"}}
	clients := columns{head: []string{"CLIENT WITHOUT TLS", "ADDRESS", "NODE", "CONNECTIONS", "LAST"}}
	forgotten := int64(0)
	for i := range c.Nodes {
		at := &c.Nodes[i]
		takes, since := "no", "-"
		if at.Ready {
			takes = "yes"
		}
		if !at.Since.IsZero() {
			since = at.Since.Format("2006-01-02 15:04:05 MST")
		}
		id := strconv.Itoa(int(at.Node))
		t.addRow(id, takes, since, at.Problem)
		for _, p := range at.Plain {
			last := "nothing noted"
			if !p.Last.IsZero() {
				last = max(now.Sub(p.Last), 0).Round(time.Second).String() + " ago"
			}
			clients.addRow(p.ClientID, p.Host, id, strconv.Itoa(p.Open), last)
		}
		forgotten += at.Forgotten
	}
	b.WriteString("\n" + t.String() + "\n")
	switch {
	case len(clients.rows) > 0:
		b.WriteString(clients.String())
	default:
		b.WriteString("no client is connected without TLS, and none has come so since the nodes note that\n")
	}
	if forgotten > 0 {
		_, _ = fmt.Fprintf(&b, "%d more have come before, and are not remembered\n", forgotten)
	}
	if c.State != "finished" {
		_, _ = fmt.Fprintf(&b, "\n%s\n", waitsFor(c.Nodes))
	}
	return b.String()
}

// earliestFinish says, in words that follow the command, when the last step is not refused any more since nodes do not note for long enough who comes
// without TLS; "": that is now, or it cannot be known.
func earliestFinish(nodes []cluster.NodeSecuring) string {
	missing := time.Duration(0)
	for i := range nodes {
		at := &nodes[i]
		if at.Since.IsZero() || at.At.IsZero() {
			return ""
		}
		missing = max(missing, defaultQuiet-at.At.Sub(at.Since))
	}
	if missing <= 0 {
		return ""
	}
	return fmt.Sprintf(" (in %v: all nodes must have noted for %v who does)", missing.Truncate(time.Second)+time.Second, defaultQuiet)
}
