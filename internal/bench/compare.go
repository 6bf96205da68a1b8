package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// LoadResult reads a result that "leat bench" wrote with -o json.
func LoadResult(name string) (*Result, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if err := json.Unmarshal(b, r); err != nil || !slices.Contains([]Kind{KindProduce, KindConsume, KindLatency}, r.Kind) {
		return nil, fmt.Errorf("%s is not a result: write one with \"leat bench produce -o json > %s\"", name, name)
	}
	return r, nil
}

// Compare writes a table of the metrics that both results have.
func Compare(w io.Writer, before, after *Result) error {
	if before.Kind != after.Kind {
		return fmt.Errorf("a %s run cannot be compared with a %s run", before.Kind, after.Kind)
	}
	var notes, rows strings.Builder
	for _, d := range listDifferences(&before.Options, &after.Options) {
		fmt.Fprintln(&notes, "note: the runs differ in", d)
	}
	old := map[string]metric{}
	for _, m := range before.listMetrics() {
		old[m.name] = m
	}
	fmt.Fprintln(&rows, strings.ToUpper(string(before.Kind))+"\tBEFORE\tAFTER\tCHANGE")
	for _, m := range after.listMetrics() {
		if b, ok := old[m.name]; ok {
			fmt.Fprintf(&rows, "%s\t%s\t%s\t%s\n", m.name, b.format(b.value), m.format(m.value), formatChange(b.value, m.value, m.better))
		}
	}
	if _, err := io.WriteString(w, notes.String()); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(t, rows.String()); err != nil {
		return err
	}
	return t.Flush()
}

// formatChange says by which factor a metric has changed, and whether it is better. A change
// of less than 3 % counts as noise.
func formatChange(before, after float64, better judgement) string {
	if before == 0 || after == 0 {
		return "-"
	}
	ratio := after / before
	s := fmt.Sprintf("x %.2f", ratio)
	switch {
	case ratio > 0.97 && ratio < 1.03 || better == neither:
		return s
	case ratio > 1 == (better == more):
		return s + "  better"
	default:
		return s + "  worse"
	}
}

// listDifferences names the differing settings that make a comparison unfair.
func listDifferences(a, b *Options) (names []string) {
	for _, d := range []struct {
		name string
		a, b any
	}{
		{"partitions", a.Partitions, b.Partitions},
		{"connections", a.Connections, b.Connections},
		{"size", a.Size, b.Size},
		{"batch", a.Batch, b.Batch},
		{"in-flight", a.InFlight, b.InFlight},
		{"acks", a.Acks, b.Acks},
		{"compression", a.Compression, b.Compression},
		{"config", strings.Join(a.Configs, " "), strings.Join(b.Configs, " ")},
		{"fetch-bytes", a.FetchBytes, b.FetchBytes},
		{"rate", a.Rate, b.Rate},
	} {
		if d.a != d.b {
			names = append(names, fmt.Sprintf("%s (%v and %v)", d.name, d.a, d.b))
		}
	}
	return names
}
