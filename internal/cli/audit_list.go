package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// auditChoice says which events to show.
type auditChoice struct {
	user, typ, resource string
	since               time.Duration

	principal string    // of user
	from      time.Time // of since
}

func (c *auditChoice) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.user, "by", "", "only what a user did, by its name or TYPE:NAME, and failed logins in that name")
	f.StringVar(&c.typ, "type", "", "only events whose type begins so, such as login or topic.deleted")
	f.StringVar(&c.resource, "resource", "", "only what was done with a resource, by its name or TYPE/NAME, such as topic/orders")
	f.DurationVar(&c.since, "since", 0, "only the events of so long until now, such as 24h")
}

// directoryType is the type of those who have proven to hold a node's data directory.
const directoryType = "Directory"

// complete finds what the flags mean.
func (c *auditChoice) complete(now time.Time) (err error) {
	if c.user != "" {
		if c.principal, err = principalOf(c.user); err != nil {
			return err
		}
		typ, name, _ := strings.Cut(c.principal, ":")
		switch {
		case strings.EqualFold(typ, directoryType):
			c.principal = directoryType + ":" + name
		case typ != auth.UserType:
			return usagef("--by %s: nothing is done by a %s: write the name of a user, or \"Directory:node N\" for who holds the data directory of a node", c.user, typ)
		}
	}
	if c.since != 0 {
		c.from = now.Add(-c.since)
	}
	const prefix = "leat."
	c.typ = prefix + strings.TrimPrefix(c.typ, prefix)
	var known []string
	for _, t := range audit.Types() {
		if strings.HasPrefix(string(t), c.typ) {
			return nil
		}
		known = append(known, strings.TrimPrefix(string(t), prefix))
	}
	slices.Sort(known)
	return usagef("--type %s: no type of events begins so; the types are %s", strings.TrimPrefix(c.typ, prefix), strings.Join(known, ", "))
}

func (c *auditChoice) has(l *audit.Line) bool {
	d := &l.Data
	isOfUser := c.principal == "" || d.Principal == c.principal || l.Type == audit.LoginFailed && d.ResourceType == "user" && "User:"+d.Resource == c.principal
	isOfResource := c.resource == "" || d.Resource == c.resource || l.Subject == c.resource
	return isOfUser && isOfResource && strings.HasPrefix(string(l.Type), c.typ) && !l.Time.Before(c.from)
}

func (a *app) newAuditList() *cobra.Command {
	var c auditChoice
	var file string
	cmd := &cobra.Command{
		Use: "list", Short: "List who did what", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `List the events of the audit log up to now, a line each, in the order in which they were written:
when, the node, who, from where, what, about what, and how it ended. With -o json each line is the
event as it is kept.`,
		Example: `  leat audit list --by alice --since 24h
  leat audit list --type access.denied
  leat audit list --resource topic/orders
  leat audit list --file /var/log/leat/audit.log -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(time.Now()); err != nil {
				return err
			}
			return a.readAudit(cmd.Context(), file, func(line []byte, at string) error { return a.showEvent(&c, line, at) })
		},
	}
	c.addFlags(cmd)
	auditFileFlag(cmd, &file)
	return cmd
}

func (a *app) newAuditTail() *cobra.Command {
	var c auditChoice
	cmd := &cobra.Command{
		Use: "tail", Short: "Show events as they come", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Show the events that come into the topic of the audit log from now on, until Ctrl-C; with --since those
of some time before, too. For a file, use "tail -F".`,
		Example: `  leat audit tail
  leat audit tail --type login.failed --since 1h`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(time.Now()); err != nil {
				return err
			}
			return a.tailAudit(cmd.Context(), &c)
		},
	}
	c.addFlags(cmd)
	return cmd
}

func (a *app) tailAudit(ctx context.Context, c *auditChoice) error {
	if _, _, err := a.findAuditOffsets(ctx); err != nil {
		return err
	}
	from := kgo.NewOffset().AtEnd()
	if !c.from.IsZero() {
		from = kgo.NewOffset().AfterMilli(c.from.UnixMilli())
	}
	opts := []kgo.Opt{kgo.ConsumeTopics(meta.AuditTopic), kgo.ConsumeResetOffset(from), kgo.FetchMaxWait(time.Second)}
	return a.withBroker(ctx, a.tellPerson, opts, func(ctx context.Context, b *broker) error {
		for {
			fetches := b.cl.PollFetches(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := findFailure(fetches); err != nil {
				return err
			}
			for _, r := range fetches.Records() {
				if err := a.showEvent(c, r.Value, placeOfRecord(r)); err != nil {
					return err
				}
			}
		}
	})
}

// showEvent writes an event, if it is one of those that are wanted.
func (a *app) showEvent(c *auditChoice, line []byte, at string) error {
	l, err := audit.ParseLine(line)
	if err != nil {
		a.tellPerson(escapeLine(fmt.Sprintf("%s: %v", at, err)))
		return nil
	}
	if !c.has(l) {
		return nil
	}
	if a.output == "json" {
		return a.writeText(string(line)+"\n", `\u%04x`)
	}
	return a.writeText(escapeLine(describeEvent(l))+"\n", `\x%02x`)
}

// describeEvent is an event on one line, for people.
func describeEvent(l *audit.Line) string {
	d := &l.Data
	words := []string{
		l.Time.UTC().Format("2006-01-02 15:04:05.000"), fmt.Sprintf("node %d", d.Node), textOrDash(d.Principal), textOrDash(d.Address),
		strings.TrimPrefix(string(l.Type), "leat."), textOrDash(l.Subject), textOrDash(string(d.Result)),
	}
	if l.Type == audit.AdministrationServed {
		words = append(words, "api="+d.API)
	}
	if d.Operation != "" {
		words = append(words, "operation="+d.Operation)
	}
	if d.Error != "" {
		words = append(words, "error="+d.Error)
	}
	if d.Count > 0 {
		words = append(words, fmt.Sprintf("count=%d", d.Count))
	}
	for _, key := range slices.Sorted(maps.Keys(d.Details)) {
		words = append(words, fmt.Sprintf("%s=%s", key, d.Details[key]))
	}
	if d.Hash != "" {
		words = append(words, fmt.Sprintf("events=%d hash=%s", d.Events, d.Hash))
	}
	if d.Reason != "" {
		words = append(words, "("+d.Reason+")")
	}
	return strings.Join(words, "  ")
}
