// Package names says which names of another cluster a link is for, and by which names its topics go here. A Filter chooses names by patterns, for topics, groups and principals alike.
// A Mapping gives topics other names. Both are pure, never change once they are made, and may be used concurrently.
package names

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Limits of what people write.
const (
	// MaxPatterns is how many patterns a filter may have, and how many renames a mapping.
	MaxPatterns = 10_000
	// MaxPattern is how many bytes a pattern may have.
	MaxPattern = 1_000
	// MaxTopicName is how many bytes a topic's name may have.
	MaxTopicName = 249
)

// regexpMark begins a pattern that is a regular expression.
const regexpMark = "re:"

// Filter chooses names. The zero value and nil choose none.
type Filter struct{ include, exclude []pattern }

// pattern is one of three kinds.
type pattern struct {
	text string // as it was written
	kind patternKind
	name string // the literal, or the prefix
	re   *regexp.Regexp
}

type patternKind uint8

const (
	literal patternKind = iota
	prefix              // prefix*
	search              // re:...
)

// ParseFilter makes a filter of two lists with commas between their patterns:
//
//	orders     that name
//	orders-*   all names that begin so; * alone: all names
//	re:^web-   all names in which the regular expression finds something, in RE2's syntax; ^ and $ tie it to the ends
//
// A comma inside brackets belongs to a regular expression. Spaces around a pattern do not count. A name is chosen that a pattern of the first list matches, and none of the second.
func ParseFilter(include, exclude string) (*Filter, error) {
	f := &Filter{}
	var err error
	if f.include, err = parsePatterns(include); err != nil {
		return nil, err
	}
	if f.exclude, err = parsePatterns(exclude); err != nil {
		return nil, err
	}
	return f, nil
}

func parsePatterns(list string) ([]pattern, error) {
	var all []pattern
	for _, text := range splitList(list) {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		if all = append(all, p); len(all) > MaxPatterns {
			return nil, fmt.Errorf("there are more than %d patterns", MaxPatterns)
		}
	}
	return all, nil
}

func parsePattern(text string) (pattern, error) {
	if len(text) > MaxPattern {
		return pattern{}, fmt.Errorf("the pattern %.40q... has %d bytes, more than %d", text, len(text), MaxPattern)
	}
	if expr, ok := strings.CutPrefix(text, regexpMark); ok {
		re, err := regexp.Compile(expr)
		if err != nil {
			return pattern{}, fmt.Errorf("the pattern %q: %w", text, err)
		}
		return pattern{text: text, kind: search, re: re}, nil
	}
	name, isPrefix := strings.CutSuffix(text, "*")
	if strings.Contains(name, "*") {
		return pattern{}, fmt.Errorf("the pattern %q has a * that is not at its end: write a regular expression, as in re:^a.*b$", text)
	}
	if isPrefix {
		return pattern{text: text, kind: prefix, name: name}, nil
	}
	return pattern{text: text, kind: literal, name: name}, nil
}

// splitList cuts a list at its commas, but for those inside the brackets of a regular expression, and leaves out what is empty.
func splitList(list string) []string {
	var parts []string
	for list != "" {
		end := strings.IndexByte(list, ',')
		if strings.HasPrefix(strings.TrimSpace(list), regexpMark) {
			end = findRegexpEnd(list)
		}
		part, rest := list, ""
		if end >= 0 {
			part, rest = list[:end], list[end+1:]
		}
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
		list = rest
	}
	return parts
}

// findRegexpEnd finds the comma after the regular expression with which a list begins, or -1. Brackets inside of [...] and after a \ are ordinary characters.
func findRegexpEnd(list string) int {
	depth, class := 0, -1 // class is where [ began; -1: outside of it
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\':
			i++
		case class >= 0:
			if isFirst := i == class+1 || i == class+2 && list[class+1] == '^'; c == ']' && !isFirst {
				class = -1
			}
		case c == '[':
			class = i
		case c == '(' || c == '{':
			depth++
		case c == ')' || c == '}':
			depth = max(depth-1, 0)
		case c == ',' && depth == 0:
			return i
		}
	}
	return -1
}

func (p *pattern) matches(name string) bool {
	switch p.kind {
	case literal:
		return name == p.name
	case prefix:
		return strings.HasPrefix(name, p.name)
	default:
		return p.re.MatchString(name)
	}
}

// Has tells whether a name is chosen.
func (f *Filter) Has(name string) bool {
	if f == nil {
		return false
	}
	matches := func(p pattern) bool { return p.matches(name) }
	return slices.ContainsFunc(f.include, matches) && !slices.ContainsFunc(f.exclude, matches)
}

// Names lists the names that the filter chooses by themselves, not by a prefix or a regular expression, in the order in which they were written.
func (f *Filter) Names() []string {
	if f == nil {
		return nil
	}
	var all []string
	for i := range f.include {
		if p := &f.include[i]; p.kind == literal && f.Has(p.name) {
			all = append(all, p.name)
		}
	}
	return all
}

// HasLiterally tells whether a name is chosen by itself.
func (f *Filter) HasLiterally(name string) bool { return slices.Contains(f.Names(), name) }

// Mapping gives topics of the source their names here. The zero value and nil give each its own name.
type Mapping struct {
	prefix  string
	renamed map[string]string // by the name at the source
}

// ParseMapping makes a mapping of a prefix and of a list of renames, source=here, with commas between them. A topic that is renamed does not get the prefix.
func ParseMapping(before, renames string) (*Mapping, error) {
	m := &Mapping{prefix: before, renamed: map[string]string{}}
	if before != "" && !isLegal(before) {
		return nil, fmt.Errorf("the prefix %q has characters that a topic's name cannot have: letters, digits, '.', '_' and '-' are possible", before)
	}
	taken := map[string]string{}
	for _, text := range splitList(renames) {
		from, to, ok := strings.Cut(text, "=")
		switch other, twice := m.renamed[from]; {
		case !ok:
			return nil, fmt.Errorf("the rename %.60q has to be source=here", text)
		case twice && other != to:
			return nil, fmt.Errorf("topic %q is renamed to %q and to %q", from, other, to)
		}
		if err := CheckTopic(from); err != nil {
			return nil, fmt.Errorf("no topic can be renamed from %q: %w", from, err)
		}
		if err := CheckTopic(to); err != nil {
			return nil, fmt.Errorf("topic %q cannot be renamed: %w", from, err)
		}
		if other, ok := taken[to]; ok && other != from {
			return nil, fmt.Errorf("topics %q and %q are both renamed to %q", other, from, to)
		}
		taken[to], m.renamed[from] = from, to
		if len(m.renamed) > MaxPatterns {
			return nil, fmt.Errorf("there are more than %d renames", MaxPatterns)
		}
	}
	return m, nil
}

// Here is the name here of a topic of the source. It may be longer than a topic's name can be: see CheckTopic.
func (m *Mapping) Here(topic string) string {
	if m == nil {
		return topic
	}
	if to, ok := m.renamed[topic]; ok {
		return to
	}
	return m.prefix + topic
}

// Prefix is what comes before the name of a topic that is not renamed.
func (m *Mapping) Prefix() string {
	if m == nil {
		return ""
	}
	return m.prefix
}

// IsRenamed tells whether a topic of the source is renamed, so that it has no prefix here.
func (m *Mapping) IsRenamed(topic string) bool {
	if m == nil {
		return false
	}
	_, ok := m.renamed[topic]
	return ok
}

// CheckTopic returns why a topic cannot have a name, by Kafka's rules.
func CheckTopic(name string) error {
	switch {
	case name == "":
		return errors.New("a topic needs a name")
	case name == "." || name == "..":
		return fmt.Errorf("a topic cannot have the name %q", name)
	case len(name) > MaxTopicName:
		return fmt.Errorf("the name %.40q... has %d characters, and a topic's name has at most %d", name, len(name), MaxTopicName)
	case !isLegal(name):
		return fmt.Errorf("the name %q has characters that a topic's name cannot have: letters, digits, '.', '_' and '-' are possible", name)
	}
	return nil
}

func isLegal(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}
