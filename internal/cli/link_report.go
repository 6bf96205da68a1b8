package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
)

// shownParting is a partition that was promoted in the output: what was known of its source then. null: it is not known.
type shownParting struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Source    string `json:"source"`          // the topic's name there
	Was       string `json:"was"`             // its state until the promotion
	MirrorEnd *int64 `json:"mirrorEnd"`       // from where on records of the source are missing here
	SourceEnd *int64 `json:"sourceEnd"`       // the last end of the source that was known
	Start     *int64 `json:"writtenHereFrom"` // from where on the records are of clients here
	Records   *int64 `json:"lostRecords"`     // between MirrorEnd and SourceEnd: at least, for the source may have gone on after the last contact
	Bytes     *int64 `json:"lostBytes"`       // about
	// Seconds is for how long, at most, the source had written what is not here.
	Seconds     *float64   `json:"lostSeconds"`
	LastContact *time.Time `json:"lastContact"`
	AsOf        *time.Time `json:"completeAsOf"` // all that the source had committed by then is here
	Promoted    *time.Time `json:"promoted"`     // when the promotion began
	// Transactions are those that have not ended here as at the source, or of which that is not known.
	Transactions     []shownTransactionEnd `json:"transactions"`
	MoreTransactions int                   `json:"moreTransactions,omitempty"`
}

// shownTransactionEnd is how a transaction has ended in a partition that was promoted.
type shownTransactionEnd struct {
	ProducerID    int64  `json:"producerId"`
	ProducerEpoch int16  `json:"producerEpoch"`
	FirstOffset   *int64 `json:"firstOffset"` // of its records; null: the partition has none that were open
	Committed     bool   `json:"committed"`
	Outcome       string `json:"outcome"`
	Meaning       string `json:"meaning"`
}

// showParting is what is shown of a partition that was promoted.
func showParting(p *shownMirror) shownParting {
	s := shownParting{Topic: p.Topic, Partition: p.Partition, Source: p.Source, Was: cluster.StateUnknown, Transactions: []shownTransactionEnd{}}
	of := p.status.Parting
	if of == nil { // an older node has told of it
		return s
	}
	s.Was, s.MirrorEnd, s.SourceEnd, s.Start, s.Records, s.Bytes = of.State, knownCount(of.End), knownCount(of.SourceEnd), knownCount(of.Start), knownCount(of.Records), knownCount(of.Bytes)
	s.LastContact, s.AsOf, s.Promoted = knownTime(of.Contact), knownTime(of.AsOf), knownTime(of.Begun)
	for _, t := range of.Transactions {
		s.Transactions = append(s.Transactions, shownTransactionEnd{t.Producer, t.Epoch, knownCount(t.First), t.Commit, t.Outcome, explainOutcome(t.Outcome)})
	}
	s.MoreTransactions = of.More
	if s.AsOf != nil && s.Promoted != nil {
		s.Seconds = knownSeconds(max(0, s.Promoted.Sub(*s.AsOf)))
	}
	return s
}

func knownTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// explainOutcome says what it means that a transaction has ended in a way.
func explainOutcome(outcome string) string {
	switch outcome {
	case "COMMITTED_BY_MARKER":
		return "committed, as in another partition; records of it may be missing in partitions that nobody knows of"
	case "ABORTED_UNDECIDED":
		return "aborted here; nobody here knows whether the source has committed it"
	case "ABORTED_LACKING":
		return "aborted here in all partitions; the source has committed it, and records of it may be missing here"
	case "TORN":
		return "committed in some partitions, and aborted or missing in others, since readers had seen a part of it"
	}
	return "this version of leat does not know how it has ended"
}

// shownPartings is the output of the verb that reports.
type shownPartings struct {
	Link       string         `json:"link"`
	Partitions []shownParting `json:"partitions"`
	Pending    int            `json:"notPromoted"` // partitions that are not promoted
}

func (v *linkVerbs) newReport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report NAME [TOPIC ...]", Short: "Show what was lost when topics were promoted", Args: cobra.MinimumNArgs(1), ValidArgsFunction: v.completeMirrors,
		SuggestFor: []string{"loss", "losses"},
		Long: `Show for each partition that was promoted where the mirror ended and where the source, as far as that was known; how many records and bytes that are, at
least; as of when all that the source had committed is here, and when the source last answered. What was written at the source between that time and its end
is not here. A - is what is not known. The report is kept as long as the topic and its link are there.`,
		Example: `  leat link report north
  leat link report north orders -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := v.look(cmd, args[0], withoutRepeats(args[1:]))
			if err != nil {
				return fmt.Errorf("link %s: %w", args[0], err)
			}
			r := shownPartings{Link: args[0], Partitions: []shownParting{}}
			for i := range d.PartitionList {
				if p := &d.PartitionList[i]; p.State == statePromoted {
					r.Partitions = append(r.Partitions, showParting(p))
				} else {
					r.Pending++
				}
			}
			return v.show(r, r.text)
		},
	}
	return v.add(cmd)
}

// text is the report for people.
func (r *shownPartings) text() string {
	if len(r.Partitions) == 0 {
		return fmt.Sprintf("nothing was promoted: \"leat link describe %s\" shows how far the mirrors are behind\n", quoteWord(r.Link))
	}
	text := partingsText(r.Partitions)
	if r.Pending > 0 {
		text += fmt.Sprintf("not promoted: %s\n", formatCount(r.Pending, "partition"))
	}
	return text
}

// partingsText is a table of partitions that were promoted, and their sums.
func partingsText(list []shownParting) string {
	if len(list) == 0 {
		return ""
	}
	t := columns{head: []string{"TOPIC", ">PARTITION", "WAS", ">MIRROR END", ">SOURCE END", ">LOST", ">BYTES", ">SECONDS", "COMPLETE AS OF", "LAST CONTACT"}}
	var sum lossSum
	for i := range list {
		p := &list[i]
		size, span := "-", "-"
		if p.Bytes != nil {
			size = formatSize(float64(*p.Bytes))
		}
		if p.Seconds != nil {
			span = strconv.FormatFloat(*p.Seconds, 'f', 1, 64)
		}
		t.addRow(p.Topic, strconv.Itoa(int(p.Partition)), p.Was, countCell(p.MirrorEnd), countCell(p.SourceEnd), countCell(p.Records), size, span, timeCell(p.AsOf), timeCell(p.LastContact))
		sum.add(p)
	}
	return t.String() + sum.text() + transactionsText(list)
}

// transactionsText lists the transactions that have not ended here as at the source, those that are torn first.
func transactionsText(list []shownParting) string {
	type row struct {
		p *shownParting
		t *shownTransactionEnd
	}
	var rows []row
	more := 0
	for i := range list {
		p := &list[i]
		more += p.MoreTransactions
		for k := range p.Transactions {
			rows = append(rows, row{p, &p.Transactions[k]})
		}
	}
	if len(rows) == 0 {
		return ""
	}
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(b.t.Outcome, a.t.Outcome) })
	t := columns{head: []string{"TRANSACTION OF", ">EPOCH", "TOPIC", ">PARTITION", ">FIRST OFFSET", "OUTCOME"}}
	for _, r := range rows[:min(len(rows), mostShownPlaces)] {
		t.addRow(fmt.Sprintf("producer %d", r.t.ProducerID), strconv.Itoa(int(r.t.ProducerEpoch)), r.p.Topic, strconv.Itoa(int(r.p.Partition)), countCell(r.t.FirstOffset), r.t.Outcome)
	}
	text := "\ntransactions that have not ended here as at the source, or of which that is not known:\n" + t.String()
	if hidden := len(rows) - min(len(rows), mostShownPlaces); hidden+more > 0 {
		text += fmt.Sprintf("and %d more: -o json has them, the first thousand of each partition\n", hidden+more)
	}
	var b strings.Builder
	b.WriteString(text)
	for i, r := range rows {
		if i == 0 || rows[i-1].t.Outcome != r.t.Outcome {
			b.WriteString(r.t.Outcome + ": " + r.t.Meaning + "\n")
		}
	}
	return b.String()
}

// lossSum sums up what partitions have lost.
type lossSum struct {
	known, lossy   int // partitions of which it is known where the source ended, and those that lack some of that
	records, bytes int64
	unsized        int // partitions that lack some, of nobody knows which size
	unknown        int // partitions of which it is not known where the source ended, or as of when they are complete
	asOf           *time.Time
	seconds        float64
}

func (s *lossSum) add(p *shownParting) {
	if p.Records == nil || p.AsOf == nil {
		s.unknown++
	}
	if p.Records != nil {
		s.known++
		if *p.Records > 0 {
			s.lossy++
			s.records += *p.Records
			if p.Bytes != nil {
				s.bytes += *p.Bytes
			} else {
				s.unsized++
			}
		}
	}
	if p.AsOf != nil && (s.asOf == nil || p.AsOf.Before(*s.asOf)) {
		s.asOf = p.AsOf
	}
	if p.Seconds != nil {
		s.seconds = max(s.seconds, *p.Seconds)
	}
}

// text says it in sentences.
func (s *lossSum) text() string {
	var b strings.Builder
	switch size := "about " + formatSize(float64(s.bytes)); {
	case s.lossy > 0:
		if s.unsized == s.lossy {
			size = "of an unknown size"
		} else if s.unsized > 0 {
			size = "more than " + formatSize(float64(s.bytes))
		}
		_, _ = fmt.Fprintf(&b, "lost: at least %s, %s, in %s\n", formatCount(int(s.records), "record"), size, formatCount(s.lossy, "partition"))
	case s.known > 0:
		_, _ = fmt.Fprintf(&b, "all records are here that the source was known to have, in %s\n", formatCount(s.known, "partition"))
	}
	if s.asOf != nil {
		_, _ = fmt.Fprintf(&b, "all that the source had committed by %s is here; what was written there after that, in %s s at most, need not be\n", timeCell(s.asOf), strconv.FormatFloat(s.seconds, 'f', 1, 64))
	}
	if s.unknown > 0 {
		_, _ = fmt.Fprintf(&b, "of %s it is not known what was lost: who led here when the promotion began had not heard from the source\n", formatCount(s.unknown, "partition"))
	}
	return b.String()
}

func countCell(n *int64) string {
	if n == nil {
		return "-"
	}
	return formatNumber(*n)
}

func timeCell(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 MST")
}
