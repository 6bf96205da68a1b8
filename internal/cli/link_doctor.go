package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/names"
)

// sourceGrant is a right that a link needs at its source.
type sourceGrant struct {
	Resource   string   `json:"resource"` // topic, group or cluster
	Name       string   `json:"name,omitempty"`
	Pattern    string   `json:"pattern,omitempty"` // literal or prefixed
	Operations []string `json:"operations"`        // in the words of leat acl grant
	Needed     bool     `json:"needed"`            // nothing is mirrored without it
	Why        string   `json:"why"`
	Kafka      string   `json:"kafka"` // a command of Kafka's tool
	Leat       []string `json:"leat"`  // commands of leat
}

// diagnosis is the output of the verb that checks a link.
type diagnosis struct {
	linkResult

	Principal string        `json:"principal"` // who the link is at the source
	Grants    []sourceGrant `json:"grants"`
	Notes     []string      `json:"notes"` // about the grants
}

func (v *linkVerbs) newDoctor() *cobra.Command {
	var s linkSource
	cmd := &cobra.Command{
		Use: "doctor [NAME]", Short: "Check a link, and print the least rights that the source must grant", Args: cobra.MaximumNArgs(1), ValidArgsFunction: v.completeLinks,
		SuggestFor: []string{"check", "validate", "test"},
		Long: `Check a link that is there, by its name, or one that is not made yet, by the flags of "leat link create". It prints the least rights that the source must
grant, as commands for Kafka's kafka-acls and for leat, to be run by an administrator of the source. Then it has a node here dial each address that the source's
brokers advertise, log in, look at the topics, the versions and the clocks, and says what is wrong, and what to do about it. It changes nothing.`,
		Example: `  leat link doctor north
  leat link doctor --from k1.north:9092 --topics 'orders-*' --source-config north.properties`,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := s.readWish(cmd)
			if err != nil {
				return err
			}
			q := &cluster.LinkRequest{Verb: cluster.LinkCheck, Settings: w.settings(), Secrets: w.secrets}
			switch {
			case len(args) == 1 && len(q.Settings) > 0:
				return usagef("name a link, or say by flags what one would be, and not both: \"leat link alter %s --dry-run\" checks a change", args[0])
			case len(args) == 1:
				q.Name = args[0]
			case w.set[serversKey] == "":
				return usagef("name a link, or give --from: the addresses of brokers of the source, as host:port")
			case w.set[topicsKey] == "":
				w.set[topicsKey] = "*"
				q.Settings = w.settings()
			}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error { return v.diagnose(ctx, cmd, n, q) })
		},
	}
	s.addFlags(v.app, cmd)
	return v.add(cmd)
}

// diagnose checks a link, and shows what was found with the rights that it needs, also if it could not be checked.
func (v *linkVerbs) diagnose(ctx context.Context, cmd *cobra.Command, n *linkNode, q *cluster.LinkRequest) error {
	settings := settingsOf(q.Settings)
	if q.Name != "" {
		d, err := v.ask(ctx, cmd, n, &cluster.LinkRequest{Verb: cluster.LinkDescribe, Name: q.Name})
		if err != nil {
			return fmt.Errorf("checking the link %s: %w", q.Name, err)
		}
		for i := range d.Links {
			settings = settingsOf(d.Links[i].Settings)
		}
	}
	a, failed := v.ask(ctx, cmd, n, q)
	if a.Source != "" && a.Source == n.cluster {
		return explainOwnCluster(n, &cluster.LinkRequest{Name: "NAME"})
	}
	d := diagnosis{linkResult: *resultOf(q, &a), Principal: sourcePrincipal(settings)}
	d.Grants, d.Notes = leastGrants(settings, d.Principal, &a)
	d.Done = d.Done && failed == nil
	if err := v.show(d, d.text); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return fmt.Errorf("the link could not be checked: %w", failed)
	case !d.Done:
		return fmt.Errorf("%s, which is told above", tellProblems(a.Problems))
	}
	return nil
}

// leastGrants are the rights that a link needs, and what is to be known of them.
func leastGrants(settings map[string]string, principal string, a *cluster.LinkAnswer) (grants []sourceGrant, notes []string) {
	at, _, _ := strings.Cut(settings[serversKey], ",")
	add := func(g sourceGrant) {
		g.writeLines(strings.TrimSpace(at), principal)
		grants = append(grants, g)
	}
	filter, err := names.ParseFilter(settings[topicsKey], settings[excludeKey])
	if err != nil {
		return nil, []string{err.Error()}
	}
	const why = "to read the topics, and their configs"
	seen := map[string]bool{}
	addTopic := func(name, pattern string) {
		if key := pattern + name; !seen[key] && !seen["literal"+meta.AnyName] {
			seen[key] = true
			add(sourceGrant{Resource: "topic", Name: name, Pattern: pattern, Operations: []string{"read", "describe-configs"}, Needed: true, Why: why})
		}
	}
	hasRegexp := false
	for _, p := range filter.Included() {
		switch {
		case p.IsRegexp:
			hasRegexp = true
		case p.IsPrefix && p.Name == "":
			grants, seen = nil, map[string]bool{}
			addTopic(meta.AnyName, "literal")
		case p.IsPrefix:
			addTopic(p.Name, "prefixed")
		default:
			addTopic(p.Name, "literal")
		}
	}
	if hasRegexp && !seen["literal"+meta.AnyName] {
		notes = append(notes, "ACLs know no regular expressions: each topic that matches one has a grant of its own here, and one that comes later needs another")
		for i := range a.Topics {
			if !coveredBy(grants, a.Topics[i].Source) {
				addTopic(a.Topics[i].Source, "literal")
			}
		}
		if len(a.Topics) == 0 {
			notes = append(notes, "which topics match is not known, since the source has not told")
		}
	}
	if principal == auth.Anonymous().String() {
		notes = append(notes, "the link does not log in, so that a source that has ACLs knows it as "+principal+", as everybody who does not: --source-user and --source-password-file have it log in")
	}
	if !coveredBy(grants, transactionsTopic) && !coveredBy(grants, meta.AnyName) {
		add(sourceGrant{
			Resource: "topic", Name: transactionsTopic, Pattern: "literal", Operations: []string{"read"},
			Why: "so that a failover knows how transactions have ended; without it those are aborted, and listed, that were committed in the last moments",
		})
	}
	if settings[positionsKey] != "off" {
		if !coveredBy(grants, offsetsTopic) && !coveredBy(grants, meta.AnyName) {
			add(sourceGrant{
				Resource: "topic", Name: offsetsTopic, Pattern: "literal", Operations: []string{"read"},
				Why: "so that positions of consumer groups are here within a second, those of transactions too; without it they are polled every 5 s, for which the next right is needed",
			})
		}
		addGroupGrants(settings, add)
	}
	describe := "so that the clocks can be compared; nothing is mirrored less without it"
	if settings[aclsKey] == "on" {
		describe = "so that ACLs can be followed, and the clocks compared; without it no ACL comes here or goes, and topics are mirrored all the same"
	}
	add(sourceGrant{Resource: "cluster", Operations: []string{"describe"}, Why: describe})
	if settings[quotasKey] == "on" {
		add(sourceGrant{Resource: "cluster", Operations: []string{"describe-configs"}, Why: "so that quotas can be followed; without it no quota comes here or goes, and topics are mirrored all the same"})
	}
	return grants, notes
}

// offsetsTopic has the records of consumer groups at the source.
const offsetsTopic = "__consumer_offsets"

// transactionsTopic has those of transactions.
const transactionsTopic = "__transaction_state"

// addGroupGrants adds the rights by which positions of consumer groups are polled.
func addGroupGrants(settings map[string]string, add func(sourceGrant)) {
	filter, err := names.ParseFilter(cmp.Or(settings[groupsKey], "*"), settings[noGroupsKey])
	if err != nil {
		return
	}
	patterns := filter.Included()
	if slices.ContainsFunc(patterns, func(p names.Pattern) bool { return p.IsRegexp || p.IsPrefix && p.Name == "" }) { // ACLs know no regular expressions
		patterns = []names.Pattern{{Name: meta.AnyName}}
	}
	for _, p := range patterns {
		g := sourceGrant{
			Resource: "group", Name: p.Name, Pattern: "literal", Operations: []string{"describe"},
			Why: "so that positions can be polled where the records of __consumer_offsets may not be read; without either, groups that move here begin where they did before, or at the start or the end",
		}
		if p.IsPrefix {
			g.Pattern = "prefixed"
		}
		add(g)
	}
}

// coveredBy tells whether a topic needs no grant of its own.
func coveredBy(grants []sourceGrant, topic string) bool {
	for i := range grants {
		if g := &grants[i]; g.Pattern == "prefixed" && strings.HasPrefix(topic, g.Name) || g.Pattern == "literal" && g.Name == topic {
			return true
		}
	}
	return false
}

// writeLines writes the commands by which an administrator of the source grants the right.
func (g *sourceGrant) writeLines(at, principal string) {
	kafka := []string{"kafka-acls", "--bootstrap-server", quoteWord(at), "--add", "--allow-principal", quoteWord(principal)}
	user := principal
	if name, ok := strings.CutPrefix(user, auth.UserType+":"); ok && !strings.ContainsAny(name, ":*") {
		user = name
	}
	for _, op := range g.Operations {
		words := []string{"leat", "acl", "grant", "--bootstrap", quoteWord(at)}
		if strings.HasPrefix(user, "-") || strings.HasPrefix(g.Name, "-") {
			words = append(words, "--")
		}
		words = append(words, quoteWord(user), op, g.Resource)
		switch g.Pattern {
		case "prefixed":
			words = append(words, quoteWord(g.Name+"*"))
		case "literal":
			words = append(words, quoteWord(g.Name))
		}
		g.Leat = append(g.Leat, strings.Join(words, " "))
		kafka = append(kafka, "--operation", kafkaOperation(op))
	}
	if g.Resource == "cluster" {
		kafka = append(kafka, "--cluster")
	} else {
		kafka = append(kafka, "--"+g.Resource, quoteWord(g.Name), "--resource-pattern-type", g.Pattern)
	}
	g.Kafka = strings.Join(kafka, " ")
}

// kafkaOperation is an operation as Kafka's tool writes it, as in DescribeConfigs.
func kafkaOperation(op string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(op, "-") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// text is the diagnosis for people. All but the findings can be run by a shell.
func (d *diagnosis) text() string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "# the source must grant this to %s, with Kafka's tool; --command-config FILE has the login of an administrator there\n", escapeLine(d.Principal))
	for i := range d.Grants {
		g := &d.Grants[i]
		if !g.Needed {
			b.WriteString("# " + g.Why + ":\n")
		}
		b.WriteString(escapeLine(g.Kafka) + "\n")
	}
	b.WriteString("# the same, if the source is a Leat\n")
	for i := range d.Grants {
		for _, line := range d.Grants[i].Leat {
			b.WriteString(escapeLine(line) + "\n")
		}
	}
	for _, note := range d.Notes {
		b.WriteString("# " + escapeLine(note) + "\n")
	}
	if found := d.linkResult.text(); found != "" {
		b.WriteString("\nchecked:\n" + found)
	}
	return b.String()
}
