package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// leastForPrefix is how many names must begin alike before one grant for all that begin so is suggested.
const leastForPrefix = 5

// suggestion is a grant that would allow what was observed.
type suggestion struct {
	Principal string `json:"principal"`
	Operation string `json:"operation"`
	Resource  string `json:"resource"`
	Name      string `json:"name"`
	Pattern   string `json:"pattern"` // literal or prefixed
	// Observed are the names that a prefix stands for. It allows more than these.
	Observed []string `json:"observed,omitempty"`
	Count    int64    `json:"count"`
	Line     string   `json:"line"` // "": it cannot be written as a line, for the reason in Why
	Why      string   `json:"why,omitempty"`

	op meta.Operation
	on meta.ResourceType
}

// suggestions are the output of the verb.
type suggestions struct {
	State     string       `json:"state"`
	Grants    []suggestion `json:"grants"`
	Uncounted int64        `json:"uncounted"` // what would have been denied, and was too much to be noted
}

func (a *app) newACLSuggest() *cobra.Command {
	var exact bool
	var anonymousAs string
	cmd := &cobra.Command{
		Use: "suggest", Short: "Print the grants for what ACLs would have denied (leat secure --observe)", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Print the "leat acl grant" lines that would allow what ACLs would have denied on any node, since it has started and "leat secure --observe" was run. Read
them before you run them: whoever reached the cluster in that time has caused them.

They allow what was observed and no more, unless five names or more begin alike: then one line stands for all that begin so, and a line before it says that it
allows more. --exact prints a line for each name. What clients without TLS do is that of User:ANONYMOUS: it is printed as comments, or
for the user of --anonymous-as, who is the one that these clients will log in as.

` + holderHelp,
		Example: `  leat acl suggest
  leat acl suggest --exact --anonymous-as billing
  leat acl suggest > grants.sh`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			as := ""
			if anonymousAs != "" {
				var err error
				if as, err = principalOf(anonymousAs); err != nil {
					return err
				}
			}
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error {
				answer, refused, err := n.admin.Secure(ctx, &cluster.SecureRequest{Verb: cluster.SecureSuggest})
				if err := explainCommand(refused, err); err != nil {
					return fmt.Errorf("asking what was observed: %w", err)
				}
				s := suggestions{State: stateText(answer.State), Grants: suggestGrants(answer.Denied, as, exact), Uncounted: answer.Uncounted}
				return a.show(s, func() string { return suggestedLines(&s) })
			})
		},
	}
	cmd.Flags().BoolVar(&exact, "exact", false, "print a line for each name, and none for all that begin alike")
	cmd.Flags().StringVar(&anonymousAs, "anonymous-as", "", "the user as whom clients without TLS will log in")
	return addDataFlag(cmd)
}

// suggestGrants makes grants of what was observed.
func suggestGrants(observed []cluster.WouldDeny, anonymousAs string, exact bool) []suggestion {
	var list []suggestion
	for _, w := range observed {
		op, known := auth.ParseOperation(w.Operation)
		on, ok := auth.ParseResourceType(w.ResourceType)
		if !known || !ok {
			continue
		}
		s := suggestion{Principal: w.Principal, Name: w.Resource, Pattern: "literal", Count: w.Count, op: op, on: on}
		if s.Principal == auth.Anonymous().String() && anonymousAs != "" {
			s.Principal = anonymousAs
		}
		at := slices.IndexFunc(list, func(o suggestion) bool {
			return o.Principal == s.Principal && o.op == op && o.on == on && o.Name == s.Name
		})
		if at >= 0 { // the user and ANONYMOUS have done it
			list[at].Count += s.Count
			continue
		}
		list = append(list, s)
	}
	list = dropImplied(list)
	if !exact {
		list = foldPrefixes(list)
	}
	slices.SortStableFunc(list, func(a, b suggestion) int {
		return cmp.Or(cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.on, b.on), cmp.Compare(a.Name, b.Name), cmp.Compare(a.op, b.op))
	})
	for i := range list {
		list[i].write()
	}
	return list
}

// dropImplied leaves out what another grant of the list implies.
func dropImplied(list []suggestion) []suggestion {
	has := func(s *suggestion, ops ...meta.Operation) bool {
		return slices.ContainsFunc(list, func(o suggestion) bool {
			return o.Principal == s.Principal && o.on == s.on && o.Name == s.Name && slices.Contains(ops, o.op)
		})
	}
	var kept []suggestion
	for i := range list {
		s := &list[i]
		isImplied := s.op == meta.Describe && has(s, meta.Read, meta.Write, meta.DeleteOperation, meta.Alter) ||
			s.op == meta.DescribeConfigs && has(s, meta.AlterConfigs) ||
			s.op == meta.IdempotentWrite && slices.ContainsFunc(list, func(o suggestion) bool {
				return o.Principal == s.Principal && o.on == meta.TopicResource && o.op == meta.Write
			})
		if !isImplied {
			kept = append(kept, *s)
		}
	}
	return kept
}

// foldPrefixes replaces grants on names that begin alike, up to a dot, a dash or an underscore, by one.
func foldPrefixes(list []suggestion) []suggestion {
	type group struct {
		principal, prefix string
		op                meta.Operation
		on                meta.ResourceType
	}
	groupOf := func(s *suggestion) (g group, ok bool) {
		at := strings.IndexAny(s.Name, ".-_")
		if at < 1 || s.on == meta.ClusterResource || strings.HasSuffix(s.Name, "*") {
			return g, false
		}
		return group{s.Principal, s.Name[:at+1], s.op, s.on}, true
	}
	members := map[group][]int{}
	for i := range list {
		if g, ok := groupOf(&list[i]); ok {
			members[g] = append(members[g], i)
		}
	}
	var kept []suggestion
	for i := range list {
		g, ok := groupOf(&list[i])
		all := members[g]
		switch {
		case !ok || len(all) < leastForPrefix:
			kept = append(kept, list[i])
		case all[0] == i:
			s := list[i]
			s.Name, s.Pattern, s.Count = g.prefix, "prefixed", 0
			for _, j := range all {
				s.Observed, s.Count = append(s.Observed, list[j].Name), s.Count+list[j].Count
			}
			kept = append(kept, s)
		}
	}
	return kept
}

// write makes the line of a grant. Clients choose names, so that each is quoted, and one that could not be shown as it is has no line.
func (s *suggestion) write() {
	s.Operation = strings.ToLower(strings.ReplaceAll(auth.OperationName(s.op), "_", "-"))
	s.Resource = strings.ToLower(strings.ReplaceAll(auth.ResourceName(s.on), "_", "-"))
	user := s.Principal
	if name, ok := strings.CutPrefix(user, auth.UserType+":"); ok && !strings.Contains(name, ":") && name != "*" {
		user = name
	}
	isUnseen := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case s.Principal == auth.Anonymous().String():
		s.Why = "clients without TLS did it: name the user as whom they will log in by --anonymous-as"
	case strings.ContainsFunc(user+s.Name, isUnseen):
		s.Why = "the name has characters that cannot be shown"
	case s.Pattern == "literal" && strings.HasSuffix(s.Name, "*"):
		s.Why = "the name ends with *, which would stand for all that begin like it"
	}
	words := []string{"leat", "acl", "grant"}
	if strings.HasPrefix(user, "-") || strings.HasPrefix(s.Name, "-") {
		words = append(words, "--")
	}
	words = append(words, quoteWord(user), s.Operation, s.Resource)
	switch {
	case s.on == meta.ClusterResource:
	case s.Pattern == "prefixed":
		words = append(words, quoteWord(s.Name+"*"))
	default:
		words = append(words, quoteWord(s.Name))
	}
	if line := strings.Join(words, " "); s.Why == "" {
		s.Line = line
	}
}

// quoteWord is a word as a shell takes it.
func quoteWord(word string) string {
	isPlain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:@,=/", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !isPlain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// suggestedLines are the lines of grants, which a shell can run.
func suggestedLines(s *suggestions) string {
	var b strings.Builder
	switch s.State {
	case stateText(meta.SecuringObserved):
	case stateText(meta.SecuringOpen):
		b.WriteString("# nobody notes what ACLs would deny: \"leat secure --observe\" begins that\n")
	default:
		b.WriteString("# nobody notes what ACLs would deny: that is for a cluster which is being secured (\"leat secure --observe\"); where ACLs decide, \"leat audit list --type access.denied\" has what they have denied\n")
	}
	for i := range s.Grants {
		g := &s.Grants[i]
		switch {
		case g.Line == "":
			_, _ = fmt.Fprintf(&b, "# %s %s %s %s: %s\n", escapeLine(g.Principal), g.Operation, g.Resource, escapeLine(g.Name), g.Why)
			continue
		case g.Pattern == "prefixed":
			_, _ = fmt.Fprintf(&b, "# this allows more than was observed: all that begin with %s, and not only %s\n", escapeLine(g.Name), escapeLine(strings.Join(g.Observed, ", ")))
		}
		b.WriteString(g.Line + "\n")
	}
	if s.Uncounted > 0 {
		_, _ = fmt.Fprintf(&b, "# %d more would have been denied, and could not be noted, since there were too many different ones: look into the audit log\n", s.Uncounted)
	}
	if len(s.Grants) == 0 && s.Uncounted == 0 && s.State == stateText(meta.SecuringObserved) {
		b.WriteString("# nothing would have been denied\n")
	}
	return b.String()
}
