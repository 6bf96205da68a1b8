package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/peer"
)

// A link belongs to the cluster that mirrors. All verbs about links are asked of a node of that cluster, by who holds its data directory, as those about other secrets of
// the cluster are.

// linkTimeout is how long a verb about links waits unless --timeout says otherwise: a source may be far away, and each of its brokers is dialled.
const linkTimeout = time.Minute

// linkHelp is the part of a verb's help that says where it is run.
const linkHelp = "A link belongs to the cluster that mirrors, and this is asked of a node there. " + holderHelp

// linkNode is a node of the cluster that mirrors.
type linkNode struct {
	cluster   string   // its id
	addresses []string // at which others are told to reach the node
	// keepsSecrets tells that nobody can read what is sent to the node.
	keepsSecrets bool
	needsTLS     bool // all nodes are reached with TLS, so that a token is to be used over TLS alone
	serve        func(ctx context.Context, q *cluster.LinkRequest) (cluster.LinkAnswer, *controller.Error, error)
	tails        func(ctx context.Context, q *cluster.TailRequest) (cluster.TailAnswer, *controller.Error, error)
	clients      []string // addresses at which clients on this machine reach it
	authority    string   // the file with the certificates of the cluster's authority; "": it has none
}

// linkDialer runs fn with the node that the flags of a verb name.
type linkDialer func(cmd *cobra.Command, fn func(ctx context.Context, n *linkNode) error) error

// linkVerbs are the verbs about links, which all ask a node.
type linkVerbs struct {
	*app

	dial linkDialer
}

func (a *app) newLink(dial linkDialer) *cobra.Command {
	v := &linkVerbs{a, dial}
	return newParent("link", "Mirror topics of other clusters", v.newCreate(), v.newAlter(), v.newList(), v.newDescribe(), v.newPause(), v.newResume(), v.newSkip(), v.newPromote(), v.newFailover(), v.newRestore(), v.newReport(),
		tailVerbs{v}.newTail(), v.newDelete(), v.newDoctor(), v.newAgentToken(), v.newAgent())
}

// add gives a verb what all verbs about links have.
func (v *linkVerbs) add(cmd *cobra.Command) *cobra.Command {
	cmd.Long += "\n\n" + linkHelp
	f, def := cmd.Flags(), os.Getenv("LEAT_BOOTSTRAP") // all verbs share the variable, so that it has one default
	if def == "" {
		def = defaultBootstrap
	}
	// The flags of a client's login would have no effect: who holds the directory needs none, and --source-user is another user.
	f.StringVarP(&v.bootstrap, "bootstrap", "b", def, "the address of the node whose data directory it is, as host:port")
	f.DurationVar(&v.timeout, "timeout", defaultTimeout, "how long to wait for the node, which may have to wait for the source")
	f.Lookup("timeout").DefValue = linkTimeout.String() // dialLinks takes that, since all verbs share the variable
	f.Lookup("bootstrap").DefValue = ""
	return addDataFlag(v.addOutputFlag(cmd))
}

// dialLinks finds the node whose data directory is on this machine.
func (a *app) dialLinks(cmd *cobra.Command, fn func(ctx context.Context, n *linkNode) error) error {
	if !cmd.Flag("timeout").Changed {
		a.timeout = linkTimeout
	}
	return a.withHolder(cmd, func(ctx context.Context, h *heldNode) error {
		at := a.addressesOf(cmd, h)
		isLocal := !slices.ContainsFunc(at, func(address string) bool { return !isLoopback(address) })
		w := h.conn.Welcome()
		n := &linkNode{
			cluster: h.Cluster.String(), addresses: h.addresses(), keepsSecrets: isLocal || h.conn.Session().IsBound, needsTLS: h.IsReachedWithTLS(&w),
			serve: h.admin.ServeLinks, tails: h.admin.ServeTails, clients: at,
		}
		if dir, err := findDirectory(cmd, os.Environ()); err == nil {
			if secured, err := node.ReadSecured(dir); err == nil && secured != nil {
				n.authority = secured.CA
			}
		}
		return fn(ctx, n)
	})
}

// addressesOf are those at which withHolder looks for a node.
func (a *app) addressesOf(cmd *cobra.Command, h *heldNode) []string {
	if cmd.Flag("bootstrap").Changed || len(h.Addresses) == 0 {
		return strings.Split(a.bootstrap, ",")
	}
	return h.Addresses
}

// ask asks a node. What the node refuses is an error, with what to do about it; the answer has what is known all the same.
func (v *linkVerbs) ask(ctx context.Context, cmd *cobra.Command, n *linkNode, q *cluster.LinkRequest) (cluster.LinkAnswer, error) {
	if len(q.Secrets) > 0 && !n.keepsSecrets {
		return cluster.LinkAnswer{}, errors.New("the password and the key for the source would be sent to the node so that others could read them: its connections have no TLS, and it is not asked by an address of this machine alone; run this beside the node with --bootstrap localhost:PORT, or secure the cluster (\"leat secure\")")
	}
	q.Within = v.timeout / 4 * 3
	a, refused, err := n.serve(ctx, q)
	switch {
	case errors.Is(err, peer.ErrClosedByPeer):
		return a, errors.New("the node has closed the connection before it was done: look at its log, and run this again; links need a node of the newest version")
	case refused != nil && refused.Kind == controller.UnknownLink:
		return a, explainUnknownLink(ctx, cmd, n, q.Name)
	case refused != nil && refused.Kind == controller.UnknownTopic:
		return a, notFoundf("%s: \"leat link describe %s\" shows its topics", strings.TrimSuffix(refused.Message, "."), q.Name)
	}
	return a, explainCommand(refused, err)
}

// explainUnknownLink says that this cluster does not have a link, which one may have been meant, and where links are.
func explainUnknownLink(ctx context.Context, cmd *cobra.Command, n *linkNode, name string) error {
	var known []string
	if list, _, err := n.serve(ctx, &cluster.LinkRequest{Verb: cluster.LinkList}); err == nil {
		for i := range list.Links {
			known = append(known, list.Links[i].Name)
		}
	}
	if hint := phrase.DidYouMean(name, known); hint != "" {
		return notFoundf("this cluster, %s, has no link %s%s", n.cluster, name, hint)
	}
	has := "has no link " + name + ", nor any other"
	if len(known) > 0 {
		has = "has the links " + phrase.Join(known, "and") + ", and not " + name
	}
	return notFoundf("this cluster, %s, %s; a link belongs to the cluster that mirrors, and its source does not know of it: if this is the source, run \"%s\" on the machine of a node of the other cluster",
		n.cluster, has, strings.Join(append([]string{cmd.CommandPath()}, quoteWords(cmd.Flags().Args())...), " "))
}

// completeLinks proposes the names of links for the first argument.
func (v *linkVerbs) completeLinks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return v.completeBy(cmd, args, prefix, &cluster.LinkRequest{Verb: cluster.LinkList})
}

// completeMirrors proposes the names of links for the first argument, and of the link's topics for the others.
func (v *linkVerbs) completeMirrors(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) == 0:
		return v.completeLinks(cmd, args, prefix)
	case len(args) > 1 && cmd.Name() == "skip": // partitions are next
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return v.completeBy(cmd, args[1:], prefix, &cluster.LinkRequest{Verb: cluster.LinkDescribe, Name: args[0]})
}

// completeBy proposes the links or topics in the answer to a request that are not among the arguments yet.
func (v *linkVerbs) completeBy(cmd *cobra.Command, args []string, prefix string, q *cluster.LinkRequest) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	cmd.SetContext(ctx)
	var found []string
	err := v.dial(cmd, func(ctx context.Context, n *linkNode) error {
		a, _, err := n.serve(ctx, q)
		for i := range a.Links {
			if q.Verb == cluster.LinkList {
				found = append(found, a.Links[i].Name)
			}
		}
		for i := range a.Partitions {
			if q.Verb == cluster.LinkDescribe {
				found = append(found, a.Partitions[i].Topic)
			}
		}
		return err
	})
	if err != nil {
		found = nil // a shell has no place for an error
	}
	return slices.DeleteFunc(slices.Compact(found), func(name string) bool { return !strings.HasPrefix(name, prefix) || slices.Contains(args, name) }), cobra.ShellCompDirectiveNoFileComp
}

// linkResult is the output of the verbs that change or check a link.
type linkResult struct {
	Link        string                   `json:"link"`
	Verb        cluster.LinkVerb         `json:"verb"`
	Done        bool                     `json:"done"` // it is as it was asked for, now or before
	Changed     bool                     `json:"changed"`
	DryRun      bool                     `json:"dryRun,omitempty"`
	Source      string                   `json:"source,omitempty"` // the cluster id
	Differences []cluster.LinkDifference `json:"differences,omitempty"`
	Problems    []cluster.LinkProblem    `json:"problems"`
	Warnings    []cluster.LinkProblem    `json:"warnings"`
	Steps       []string                 `json:"steps"`
	Topics      []cluster.LinkTopic      `json:"topics,omitempty"`
	MoreTopics  int                      `json:"moreTopics,omitempty"`
}

// resultOf is what an answer says of a request.
func resultOf(q *cluster.LinkRequest, a *cluster.LinkAnswer) *linkResult {
	r := &linkResult{
		Link: q.Name, Verb: q.Verb, Changed: a.Changed, DryRun: q.DryRun, Source: a.Source, Differences: a.Differences, Problems: []cluster.LinkProblem{}, Warnings: []cluster.LinkProblem{}, Steps: []string{},
		Topics: a.Topics, MoreTopics: a.More,
	}
	r.Problems, r.Warnings, r.Steps = append(r.Problems, a.Problems...), append(r.Warnings, a.Warnings...), append(r.Steps, a.Steps...)
	r.Done = len(a.Differences) == 0 && (len(a.Problems) == 0 || q.Force)
	return r
}

// mostShownTopics is how many topics a line names.
const mostShownTopics = 10

// text says for people what was found and done.
func (r *linkResult) text() string {
	var b strings.Builder
	for _, step := range r.Steps {
		b.WriteString("  " + escapeLine(step) + "\n")
	}
	if n := len(r.Topics) + r.MoreTopics; n > 0 {
		var some []string
		for i := range r.Topics[:min(len(r.Topics), mostShownTopics)] {
			name := r.Topics[i].Source
			if here := r.Topics[i].Name; here != name {
				name += " as " + here
			}
			some = append(some, name)
		}
		if more := n - len(some); more > 0 {
			some = append(some, fmt.Sprintf("%d more", more))
		}
		_, _ = fmt.Fprintf(&b, "  %s: %s\n", formatCount(n, "topic"), escapeLine(phrase.Join(some, "and")))
	}
	writeProblems(&b, "warning", r.Warnings)
	writeProblems(&b, "problem", r.Problems)
	return b.String()
}

// writeProblems writes a line for each problem, and one for what to do about it.
func writeProblems(b *strings.Builder, kind string, list []cluster.LinkProblem) {
	for _, p := range list {
		about := ""
		if p.About != "" {
			about = p.About + ": "
		}
		_, _ = fmt.Fprintf(b, "%s: %s%s\n", kind, escapeLine(about), escapeLine(p.Text))
		if p.Do != "" {
			_, _ = fmt.Fprintf(b, "    %s\n", escapeLine(p.Do))
		}
	}
}

// tellProblems counts problems, in a part of a sentence.
func tellProblems(list []cluster.LinkProblem) string {
	if len(list) == 1 {
		return "there is 1 problem"
	}
	return "there are " + formatCount(len(list), "problem")
}
