// Package phrase helps to write sentences for people: lists of words, paragraphs that fit a terminal,
// and suggestions for names that do not exist.
package phrase

import (
	"fmt"
	"slices"
	"strings"
)

// Join writes a list of words as "a", "a and b" or "a, b and c"; last is the word before the last one.
func Join(list []string, last string) string {
	n := len(list)
	if n < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:n-1], ", ") + " " + last + " " + list[n-1]
}

// Wrap breaks the lines of a text at width. It changes only paragraphs that have a longer line, and none
// that has indented lines.
func Wrap(text string, width int) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		tooLong := slices.ContainsFunc(strings.Split(p, "\n"), func(l string) bool { return len(l) > width })
		if tooLong && !strings.HasPrefix(p, " ") && !strings.Contains(p, "\n ") {
			paragraphs[i] = fillLines(p, width)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// fillLines breaks a paragraph into lines of at most width.
func fillLines(paragraph string, width int) string {
	var sb strings.Builder
	length := 0
	for word := range strings.FieldsSeq(paragraph) {
		switch {
		case length == 0:
		case length+1+len(word) > width:
			sb.WriteString("\n")
			length = 0
		default:
			sb.WriteString(" ")
			length++
		}
		sb.WriteString(word)
		length += len(word)
	}
	return sb.String()
}

// DidYouMean is the end of a sentence about a name that does not exist. It asks for the known names that
// are similar to it, and is empty if there are none.
func DidYouMean(name string, known []string) string {
	near := Nearest(name, known)
	if len(near) == 0 {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", Join(near, "or"))
}

// Nearest lists at most three known names of which name may be a misspelling or the beginning, the most
// similar one first.
func Nearest(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	const limit = 3
	var all []candidate
	lower := strings.ToLower(name)
	for _, k := range known {
		d := editDistance(lower, strings.ToLower(k))
		beginning := len(name) >= limit && strings.HasPrefix(strings.ToLower(k), lower)
		if d <= max(1, min(len(name), len(k))/limit) || beginning {
			all = append(all, candidate{k, d})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	var names []string
	for _, c := range all[:min(limit, len(all))] {
		names = append(names, c.name)
	}
	return names
}

// editDistance is how many letters must be changed, added, removed or swapped with their neighbour to turn
// a into b.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(x)][len(y)]
}
