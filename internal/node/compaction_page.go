package node

import (
	"bufio"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leatstream/leat/internal/storage"
)

// compactionPage shows how far each compacted partition of a node is compacted, the one with the most new bytes first. With
// ?topic=NAME it shows those of one topic.
type compactionPage struct {
	store *storage.Store
}

// mostShown is how many partitions the page shows.
const mostShown = 1000

// ServeHTTP writes the page.
func (p compactionPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	logs := storage.DescribeCompaction(p.store)
	if topic := r.URL.Query().Get("topic"); topic != "" {
		logs = slices.DeleteFunc(logs, func(s storage.CompactionState) bool {
			at := strings.LastIndexByte(s.Log, '-')
			return at < 0 || s.Log[:at] != topic
		})
	}
	slices.SortStableFunc(logs, func(a, b storage.CompactionState) int { return cmp.Compare(b.Dirty+b.Held, a.Dirty+a.Held) })
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := bufio.NewWriter(w)
	writeCompaction(out, logs, time.Now())
	_ = out.Flush() // fails only if the client is gone
}

// writeCompaction writes a line for each partition. A failure shows when out is flushed.
func writeCompaction(out *bufio.Writer, logs []storage.CompactionState, now time.Time) {
	if len(logs) == 0 {
		_, _ = fmt.Fprintln(out, "This node has no replica of such a compacted partition.")
		return
	}
	more := len(logs) - mostShown
	logs = logs[:min(len(logs), mostShown)]
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "PARTITION\tCLEAN\tNEW\tRATIO\tHELD BACK\tACTIVE\tLAST ROUND\tBEFORE\tAFTER\tWHY NOT NOW")
	for _, s := range logs {
		last := "none since the start\t-\t-"
		if r := &s.Last; !r.At.IsZero() {
			last = fmt.Sprintf("%v ago\t%d\t%d", now.Sub(r.At).Truncate(time.Second), r.Before, r.After)
		}
		reason := s.Reason
		if s.Last.Whole > 0 {
			reason += fmt.Sprintf("; the last round left %s as they are, which would have grown", formatCount(int(s.Last.Whole), "batch", "batches"))
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%d\t%d\t%s\t%s\n", s.Log, s.Clean, s.Dirty, s.DirtyRatio, s.Held, s.Active, last, reason)
	}
	_ = t.Flush()
	if more > 0 {
		_, _ = fmt.Fprintf(out, "and %s with fewer new bytes: /compaction?topic=NAME shows those of a topic\n", formatCount(more, "partition", "partitions"))
	}
}
