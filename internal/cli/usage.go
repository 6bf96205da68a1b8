package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the longest line of a help text.
const helpWidth = 96

// prepare gives cmd and the verbs below it what all verbs have in common: complaints about
// arguments are sentences, help fits the terminal, and the app notes when a verb begins.
func (a *app) prepare(cmd *cobra.Command) {
	cmd.Long = wrapText(cmd.Long, helpWidth)
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return explainArguments(cmd, args, err)
			}
			return nil
		}
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if fl := cmd.Flag("timeout"); fl != nil && fl.Changed && a.timeout < time.Millisecond {
				return usagef("--timeout %s: give a time such as 10s", fl.Value)
			}
			a.running = true
			return run(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.prepare(c)
	}
}

// explainArguments says which arguments a verb takes where it was given others.
func explainArguments(cmd *cobra.Command, args []string, err error) error {
	if errors.Is(err, errUsage) {
		return err
	}
	if cmd.HasAvailableSubCommands() {
		return notVerb(cmd, args[0])
	}
	given := "no argument was given"
	if len(args) > 0 {
		given = count(len(args), "argument") + " were given"
	}
	if len(args) == 1 {
		given = "1 argument was given"
	}
	return usagef("%s: write \"%s\"", given, usageLine(cmd))
}

// usageLine is how a verb is written, without the flags that may be left out.
func usageLine(cmd *cobra.Command) string {
	line := cmd.Use
	if cmd.HasParent() {
		line = cmd.Parent().CommandPath() + " " + line
	}
	return line
}

// notVerb says that a verb does not exist, and which one may have been meant.
func notVerb(cmd *cobra.Command, name string) error {
	var known []string
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		if slices.Contains(c.SuggestFor, name) || slices.Contains(c.Aliases, name) {
			return usagef("%q is not a verb of %q: did you mean %q?", name, cmd.CommandPath(), c.Name())
		}
		known = append(known, c.Name())
	}
	return usagef("%q is not a verb of %q%s", name, cmd.CommandPath(), didYouMean(name, known))
}

// explainFlag makes a sentence of a complaint of the flag parser.
func explainFlag(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &missing):
		if short := missing.GetSpecifiedShortnames(); short != "" {
			return usagef("there is no flag -%s", missing.GetSpecifiedName()[:1])
		}
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		name := "--" + missing.GetSpecifiedName()
		return usagef("there is no flag %s%s", name, didYouMean(name, known))
	case errors.As(err, &empty):
		return usagef("--%s needs a value", empty.GetFlag().Name)
	case errors.As(err, &invalid):
		return usagef("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), explainValue(invalid))
	default:
		return usagef("%s", err)
	}
}

// explainValue says which values a flag takes.
func explainValue(e *pflag.InvalidValueError) string {
	if errors.Is(e, errUsage) {
		return errors.Unwrap(e).Error()
	}
	if errors.Is(e, strconv.ErrRange) || strings.Contains(e.Error(), "value out of range") {
		return "the number is out of range"
	}
	switch kind := e.GetFlag().Value.Type(); kind {
	case "int", "int16", "int32", "int64", "uint16", "uint32", "uint64", "uint":
		return "write a whole number"
	case "intSlice", "int32Slice", "int64Slice":
		return "write whole numbers with commas between"
	case "float32", "float64":
		return "write a number"
	case "bool":
		return "write true or false"
	case "duration":
		return "write a time span such as 500ms, 30s or 2h"
	default:
		return "that is not a value for it"
	}
}

// flagRules are what cobra says about flags that belong together.
var flagRules = []struct {
	said *regexp.Regexp
	tell func(names []string) string
}{
	{regexp.MustCompile(`^required flag\(s\) (.+) not set$`), func(n []string) string {
		return joinWords(n, "and") + " must be given"
	}},
	{regexp.MustCompile(`^at least one of the flags in the group \[(.+)\] is required$`), func(n []string) string {
		return "one of " + joinWords(n, "and") + " must be given"
	}},
	{regexp.MustCompile(`^if any flags in the group \[.+\] are set none of the others can be; \[(.+)\] were all set$`), func(n []string) string {
		return joinWords(n, "and") + " cannot be given together"
	}},
	{regexp.MustCompile(`^if any flags in the group \[.+\] are set they must all be set; missing \[(.+)\]$`), func(n []string) string {
		return joinWords(n, "and") + " must be given too"
	}},
}

// explainFlagRule makes a sentence of a complaint of cobra about flags that belong together.
func explainFlagRule(err error) error {
	for _, r := range flagRules {
		if m := r.said.FindStringSubmatch(err.Error()); m != nil {
			names := strings.FieldsFunc(m[1], func(c rune) bool { return strings.ContainsRune(` ,"`, c) })
			for i := range names {
				names[i] = "--" + names[i]
			}
			return usagef("%s", r.tell(names))
		}
	}
	return err
}

// joinWords makes "a", "a and b" or "a, b and c" of words.
func joinWords(words []string, last string) string {
	n := len(words)
	if n < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
}

// choice is a flag that takes one of some words.
type choice struct {
	value *string
	words []string
}

func (c choice) String() string {
	if c.value == nil { // pflag asks an empty one for its default
		return ""
	}
	return *c.value
}

func (c choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return usagef("write %s", joinWords(c.words, "or"))
	}
	*c.value = s
	return nil
}

func (choice) Type() string { return "string" }

// wrapText breaks the lines of a text that are longer than width, and leaves the others.
// Continued lines are as far in as the one that was broken.
func wrapText(text string, width int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if len(line) <= width {
			continue
		}
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		var sb strings.Builder
		length := 0
		for word := range strings.FieldsSeq(line) {
			switch {
			case length == 0:
				sb.WriteString(indent)
				length = len(indent)
			case length+1+len(word) > width:
				sb.WriteString("\n" + indent)
				length = len(indent)
			default:
				sb.WriteString(" ")
				length++
			}
			sb.WriteString(word)
			length += len(word)
		}
		lines[i] = sb.String()
	}
	return strings.Join(lines, "\n")
}

// didYouMean is the end of a sentence about a name that does not exist: a question for
// the known names that are near to it, or nothing.
func didYouMean(name string, known []string) string {
	near := nearest(name, known)
	if len(near) == 0 {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", joinWords(near, "or"))
}

// nearest are the known names, at most three, that name may be a misspelling or the
// beginning of, the nearest first.
func nearest(name string, known []string) []string {
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

// editDistance is the number of letters that must be changed, added, left out or swapped
// with their neighbour to make b of a.
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
