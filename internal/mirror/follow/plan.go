package follow

import (
	"fmt"
	"strings"
)

// Plan is what is to be done, in this order, and what a person should know. All of it are sentences.
type Plan[S fmt.Stringer] struct {
	Steps    []S
	Warnings []string
}

func (p *Plan[S]) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// Sentences are the steps as sentences, for a dry run.
func (p *Plan[S]) Sentences() []string {
	list := make([]string, len(p.Steps))
	for i, s := range p.Steps {
		list[i] = s.String()
	}
	return list
}

// maxListed is how many names a sentence has; it counts the others.
const maxListed = 10

// listNames joins names for a sentence.
func listNames(names []string) string {
	text := strings.Join(names[:min(maxListed, len(names))], ", ")
	if more := len(names) - maxListed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// warnOf warns of several things by one sentence, which has one verb for one of them and another one for more.
func (p *Plan[S]) warnOf(names []string, one, more string) {
	switch len(names) {
	case 0:
	case 1:
		p.warn("%s %s.", names[0], one)
	default:
		p.warn("%s %s.", listNames(names), more)
	}
}
