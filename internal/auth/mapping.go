package auth

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrNoRule is wrapped by the errors about subjects of certificates to which no rule applies.
var ErrNoRule = errors.New("no rule of ssl.principal.mapping.rules applies")

// errMapping is wrapped by errors about rules.
var errMapping = errors.New("ssl.principal.mapping.rules")

// NameRules make the names of users of the subjects of their certificates (KIP-371). They never change.
type NameRules struct{ rules []nameRule }

// nameRule is one rule. The first one whose pattern matches a whole subject makes the name.
type nameRule struct {
	isDefault   bool // the name is the subject
	whole       *regexp.Regexp
	part        *regexp.Regexp
	atEnd       *regexp.Regexp // matches the last character of a text behind which the pattern matches nothing at all
	replacement []namePart
	letters     string // "L": small letters, "U": capitals
}

// namePart is a part of what a rule makes.
type namePart struct {
	text    string
	group   int // of the pattern, if isGroup is set
	isGroup bool
}

// mostMappedBytes bounds the name that rules may make.
const mostMappedBytes = 8 << 10

// rulePattern is a rule as Kafka's SslPrincipalMapper reads it. Patterns may have commas, and slashes behind a backslash.
const rulePattern = `(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?).*?|(.*?)`

var (
	ruleSplitter = regexp.MustCompile(`\s*(` + rulePattern + `)\s*(,\s*|$)`)
	ruleParser   = regexp.MustCompile(`\A(?:` + rulePattern + `)`)
)

// ParseNameRules reads the value of ssl.principal.mapping.rules.
func ParseNameRules(text string) (*NameRules, error) {
	n := &NameRules{}
	for _, match := range ruleSplitter.FindAllStringSubmatch(strings.TrimSpace(text), -1) {
		one := match[1]
		m := ruleParser.FindStringSubmatch(one)
		switch {
		case m == nil || len(m[0]) != len(one):
			return nil, fmt.Errorf("%w: %q is no rule: write RULE:pattern/replacement/, with L or U behind it for small letters or capitals, or DEFAULT", errMapping, one)
		case m[1] != "":
			n.rules = append(n.rules, nameRule{isDefault: true})
		case strings.HasPrefix(one, "RULE:"):
			r, err := parseNameRule(m[2], m[3], m[4])
			if err != nil {
				return nil, fmt.Errorf("%w: %q: %w", errMapping, one, err)
			}
			n.rules = append(n.rules, r)
		}
	}
	return n, nil
}

// otherInJava finds what Go's patterns take for something else than Java's do.
var otherInJava = regexp.MustCompile(`&&|\(\?[a-zA-Z-]*U|\[[^\]\\]*\[`)

func parseNameRule(pattern, replacement, letters string) (r nameRule, err error) {
	r.letters = letters
	if found := otherInJava.FindString(pattern); found != "" {
		return r, fmt.Errorf("the pattern has %s, which is not served here: classes within classes, intersections and the flag U", found)
	}
	if r.part, err = regexp.Compile(pattern); err != nil {
		return r, fmt.Errorf("the pattern is not served here (look-ahead, look-behind, references to groups and possessive repetitions are not): %w", err)
	}
	r.whole = regexp.MustCompile(`\A(?:` + pattern + `)\z`)
	r.atEnd = regexp.MustCompile(`\A(?s:.)(?:` + pattern + `)\z`)
	r.replacement, err = parseReplacement(replacement, r.part.NumSubexp(), r.part.SubexpIndex)
	return r, err
}

// parseReplacement reads what Java puts in place of a match: text, $1 or ${name} for a group, and a backslash before a character that
// means itself. A number of which no group has even the first digit is text.
func parseReplacement(s string, groups int, indexOf func(name string) int) (parts []namePart, err error) {
	text := ""
	add := func(group int) {
		if text != "" {
			parts = append(parts, namePart{text: text})
			text = ""
		}
		parts = append(parts, namePart{group: group, isGroup: true})
	}
	for s != "" {
		switch {
		case s[0] == '\\' && len(s) == 1:
			return nil, errors.New("the replacement ends with a backslash")
		case s[0] == '\\':
			_, size := utf8.DecodeRuneInString(s[1:])
			text, s = text+s[1:1+size], s[1+size:]
		case strings.HasPrefix(s, "${"):
			name, rest, found := strings.Cut(s[2:], "}")
			i := indexOf(name)
			if !found || i < 0 {
				return nil, fmt.Errorf("the replacement has ${%s, and the pattern no group of that name", name)
			}
			add(i)
			s = rest
		case s[0] == '$':
			group, size := parseReference(s[1:], groups)
			switch {
			case size == 0:
				return nil, errors.New(`the replacement has a $ without the number of a group behind it: write \$ for a $`)
			case group > groups && groups == 0:
				return nil, fmt.Errorf("the replacement has %s, and the pattern no group", s[:1+size])
			case group > groups:
				text += s[:1+size]
			default:
				add(group)
			}
			s = s[1+size:]
		default:
			_, size := utf8.DecodeRuneInString(s)
			text, s = text+s[:size], s[size:]
		}
	}
	if text != "" {
		parts = append(parts, namePart{text: text})
	}
	return parts, nil
}

// parseReference reads as many digits as there are in the number of a group.
func parseReference(s string, groups int) (group, size int) {
	for size < len(s) && size < 4 && s[size] >= '0' && s[size] <= '9' {
		next := 10*group + int(s[size]-'0')
		if size > 0 && next > groups {
			break
		}
		group, size = next, size+1
	}
	return group, size
}

// Map makes the name of a user of the subject of his certificate, as FormatSubject has written it.
func (n *NameRules) Map(subject string) (string, error) {
	for i := range n.rules {
		if name, ok := n.rules[i].apply(subject); ok {
			if len(name) > mostMappedBytes {
				return "", fmt.Errorf("the rules make a name of %d bytes of the subject, at most %d are served", len(name), mostMappedBytes)
			}
			return name, nil
		}
	}
	return "", fmt.Errorf("%w to %s", ErrNoRule, strconv.QuoteToGraphic(subject))
}

func (r *nameRule) apply(subject string) (name string, ok bool) {
	switch {
	case r.isDefault:
		return subject, true
	case !r.whole.MatchString(subject):
		return "", false
	}
	name = r.replaceAll(subject)
	switch r.letters {
	case "L":
		name = strings.ToLower(name)
	case "U":
		name = strings.ToUpper(name)
	}
	return name, true
}

// replaceAll replaces all matches of the pattern in a subject, as Java's String.replaceAll does. Unlike Go, Java finds an empty match
// at the end of the text, too, right behind another match.
func (r *nameRule) replaceAll(subject string) string {
	var b strings.Builder
	at := 0
	matches := r.part.FindAllStringSubmatchIndex(subject, -1)
	for _, m := range matches {
		b.WriteString(subject[at:m[0]])
		r.appendReplacement(&b, subject, m)
		at = m[1]
		if b.Len() > mostMappedBytes {
			return b.String()
		}
	}
	if n := len(matches); n > 0 && at == len(subject) && matches[n-1][0] < at {
		_, size := utf8.DecodeLastRuneInString(subject)
		if m := r.atEnd.FindStringSubmatchIndex(subject[at-size:]); m != nil {
			for i := range m {
				if m[i] >= 0 {
					m[i] = at
				}
			}
			r.appendReplacement(&b, subject, m)
		}
	}
	b.WriteString(subject[at:])
	return b.String()
}

func (r *nameRule) appendReplacement(b *strings.Builder, subject string, match []int) {
	for _, p := range r.replacement {
		b.WriteString(p.text)
		if p.isGroup && match[2*p.group] >= 0 {
			b.WriteString(subject[match[2*p.group]:match[2*p.group+1]])
		}
	}
}
