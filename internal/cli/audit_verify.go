package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/audit"
)

func (a *app) newAuditVerify() *cobra.Command {
	var file string
	var anchors []string
	cmd := &cobra.Command{
		Use: "verify", Short: "Check that no event was removed, changed, added or moved", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Check the chain of hashes of an audit log. For each node it says how many events there are, from when to
when, and every event that is missing, changed, added or in another place; then it fails.

Events that retention or rotation has deleted at the beginning are no fault. The newest events have
no others behind them that vouch for them: the lines "the audit log has an anchor" of the nodes'
logs do, with --anchor.`,
		Example: `  leat audit verify
  leat audit verify --file /var/log/leat/audit.log
  leat audit verify --anchor 1001:5f1c...`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			places, err := parseAnchors(anchors)
			if err != nil {
				return err
			}
			v := audit.NewVerifier(places...)
			if err := a.readAudit(cmd.Context(), file, v.Add); err != nil {
				return err
			}
			return a.showReports(v.Reports())
		},
	}
	auditFileFlag(cmd, &file)
	cmd.Flags().StringArrayVar(&anchors, "anchor", nil, "an anchor of a node's log, as `SEQUENCE:HASH`, which must be in the audit log; may be given several times")
	return cmd
}

func parseAnchors(texts []string) (places []audit.Place, err error) {
	const hexDigits = 64
	for _, s := range texts {
		number, hash, found := strings.Cut(s, ":")
		n, err := strconv.ParseUint(number, 10, 64)
		if !found || err != nil || len(hash) != hexDigits || strings.Trim(hash, "0123456789abcdef") != "" {
			return nil, usagef("--anchor %s: write the sequence and the hash of the line in the node's log, with a colon between them", s)
		}
		places = append(places, audit.Place{Sequence: n, Hash: hash})
	}
	return places, nil
}

// showReports shows what a check has found. The error says that there are faults.
func (a *app) showReports(reports []audit.Report) error {
	if reports == nil {
		reports = []audit.Report{}
	}
	faults := int64(0)
	for i := range reports {
		faults += reports[i].FaultCount
	}
	if err := a.show(reports, func() string { return reportsText(reports) }); err != nil || faults == 0 {
		return err
	}
	if faults == 1 {
		return errors.New("the audit log is not as the nodes have written it: it has a fault")
	}
	return fmt.Errorf("the audit log is not as the nodes have written it: it has %s faults", formatNumber(faults))
}

func reportsText(reports []audit.Report) string {
	if len(reports) == 0 {
		return "the audit log has no events\n"
	}
	var b strings.Builder
	const layout = "2006-01-02 15:04:05"
	for i := range reports {
		r := &reports[i]
		if r.Source == "" {
			b.WriteString("not of any node:\n")
		} else {
			fmt.Fprintf(&b, "node %d (%s): %s from %s to %s", r.Node, escapeLine(r.Source), formatCount(int(r.Events), "event"), r.First.UTC().Format(layout), r.Last.UTC().Format(layout))
			if r.FaultCount == 0 {
				b.WriteString(", without a fault")
			}
			fmt.Fprintf(&b, "\n  last: event %d of the start %s, hash %s\n", r.Head.Sequence, escapeLine(r.Start), r.Head.Hash)
		}
		if r.CutAt > 0 {
			fmt.Fprintf(&b, "  the log begins with event %d of a start: those before are not there any more, by retention or rotation\n", r.CutAt)
		}
		if r.Lost > 0 {
			fmt.Fprintf(&b, "  the node says that it had no room for %s\n", formatCount(int(r.Lost), "event"))
		}
		if r.Repeated > 0 {
			fmt.Fprintf(&b, "  %s twice, as they were: the node did not hear that they were stored\n", formatCount(int(r.Repeated), "event"))
		}
		for _, f := range r.Faults {
			fmt.Fprintf(&b, "  %s: %s\n", escapeLine(f.At), escapeLine(f.Text))
		}
		if more := r.FaultCount - int64(len(r.Faults)); more > 0 {
			fmt.Fprintf(&b, "  and %s more\n", formatNumber(more))
		}
	}
	return b.String()
}
