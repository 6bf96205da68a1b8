package cli

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/leatstream/leat/internal/cli/format"
)

// escapeLines writes control characters in a text, except line ends and tabs, as escapes such as \x1b. Names of
// groups and clients are chosen by others, and a name must not control the terminal of a person who reads it.
func escapeLines(text string) string { return escapeControls(text, "\n\t") }

// escapeLine is escapeLines for a text that is a part of a line.
func escapeLine(text string) string { return escapeControls(text, "") }

func escapeControls(text, keep string) string {
	return string(format.AppendEscaped(nil, []byte(text), keep, `\x%02x`))
}

// columns is a table for people. A column whose heading begins with ">" is aligned to the right.
type columns struct {
	head []string
	rows [][]string
}

// addRow adds a row, with escapes for control characters.
func (t *columns) addRow(cells ...string) {
	for i, c := range cells {
		cells[i] = escapeLine(c)
	}
	t.rows = append(t.rows, cells)
}

// String writes the table with two spaces between columns.
func (t *columns) String() string {
	width := make([]int, len(t.head))
	headings := make([]string, len(t.head))
	for i, h := range t.head {
		headings[i] = strings.TrimPrefix(h, ">")
		width[i] = lipgloss.Width(headings[i])
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
	line(headings)
	for _, row := range t.rows {
		line(row)
	}
	return sb.String()
}

// show writes v as JSON for programs, or the text for people, as --output says. On a terminal both have escapes for
// control characters; elsewhere names stay as they are, so that a script can use them.
func (a *app) show(v any, text func() string) error {
	var shown, asciiEscape string
	switch a.output {
	case "json":
		var sb strings.Builder
		e := json.NewEncoder(&sb)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
		shown, asciiEscape = sb.String(), `\u%04x`
	case "table", "":
		shown, asciiEscape = text(), `\x%02x`
	default:
		return usagef("--output %s: write table or json", a.output)
	}
	return a.writeText(shown, asciiEscape)
}

// writeText writes a text, on a terminal with escapes for control characters. The format asciiEscape is that of single
// bytes.
func (a *app) writeText(text, asciiEscape string) error {
	if isTerminal(a.out) {
		text = string(format.AppendEscaped(nil, []byte(text), "\n\t", asciiEscape))
	}
	_, err := io.WriteString(a.out, text)
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
