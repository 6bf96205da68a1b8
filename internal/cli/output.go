package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
)

// columns is a table for people. A column whose heading begins with ">" is aligned to the right.
type columns struct {
	head []string
	rows [][]string
}

func (t *columns) addRow(cells ...string) { t.rows = append(t.rows, cells) }

// String writes the table with two spaces between columns. Cells must not contain line breaks.
func (t *columns) String() string {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = lipgloss.Width(strings.TrimPrefix(h, ">"))
	}
	for _, row := range t.rows {
		for i, c := range row {
			width[i] = max(width[i], lipgloss.Width(c))
		}
	}
	var sb strings.Builder
	line := func(cells []string) {
		var l strings.Builder
		for i, c := range cells {
			c = strings.TrimPrefix(c, ">")
			pad := strings.Repeat(" ", width[i]-lipgloss.Width(c))
			if strings.HasPrefix(t.head[i], ">") {
				l.WriteString(pad + c)
			} else {
				l.WriteString(c + pad)
			}
			l.WriteString("  ")
		}
		sb.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	line(t.head)
	for _, row := range t.rows {
		line(row)
	}
	return sb.String()
}

// show writes v as JSON for programs, or the text for people, as --output says.
func (a *app) show(v any, text func() string) error {
	var err error
	switch a.output {
	case "json":
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(v)
	case "table", "":
		_, err = fmt.Fprint(a.out, text())
	default:
		return usagef("--output %s: write table or json", a.output)
	}
	return err
}

// showEach writes a list as JSON for programs, or a line for each element for people.
func showEach[T any](a *app, all []T, line func(i int) string) error {
	return a.show(all, func() string {
		var sb strings.Builder
		for i := range all {
			sb.WriteString(line(i) + "\n")
		}
		return sb.String()
	})
}

// formatNumber writes n with commas between the thousands.
func formatNumber(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// formatSize writes a number of bytes with about three digits.
func formatSize(n float64) string {
	const units = "kMGTP"
	if n < 1000 {
		return strconv.FormatFloat(n, 'f', 0, 64) + " B"
	}
	i := -1
	for n >= 999.5 && i < len(units)-1 {
		n /= 1000
		i++
	}
	digits := 0
	switch {
	case n < 9.995:
		digits = 2
	case n < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(n, 'f', digits, 64) + " " + units[i:i+1] + "B"
}

// formatDuration writes a time span with about three digits.
func formatDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(10 * time.Millisecond).String()
	}
}

// formatIDs writes broker ids, as in 1,2,3.
func formatIDs(list []int32) string {
	s := make([]string, len(list))
	for i, id := range list {
		s[i] = strconv.Itoa(int(id))
	}
	return strings.Join(s, ",")
}
