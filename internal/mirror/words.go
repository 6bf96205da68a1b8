package mirror

import (
	"fmt"
	"strings"
)

// countOf counts something, for a sentence.
func countOf(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// lowerFirst makes a sentence a part of another one.
func lowerFirst(sentence string) string {
	sentence = strings.TrimSuffix(sentence, ".")
	return strings.ToLower(sentence[:min(1, len(sentence))]) + sentence[min(1, len(sentence)):]
}

// dialWords are what Go, and the client of a source, put before the address and the reason of a dial that has failed. They mean nothing to people.
var dialWords = strings.NewReplacer("unable to dial: ", "", "dial tcp: ", "", "dial tcp ", "", "connect: ", "")

// reasonOf is the reason of an error, for people.
func reasonOf(err error) string { return dialWords.Replace(err.Error()) }
