package mirror

import (
	"errors"
	"testing"
)

// TestReasonsArePlain proves that people are told the address and the reason of a dial that has failed, in words that are no program's, and that one thing is not many.
func TestReasonsArePlain(t *testing.T) {
	for text, want := range map[string]string{
		"asking the source: unable to dial: dial tcp 127.0.0.1:1: connect: connection refused": "asking the source: 127.0.0.1:1: connection refused",
		"unable to dial: dial tcp: lookup north on 10.0.0.1:53: no such host":                  "lookup north on 10.0.0.1:53: no such host",
	} {
		if got := reasonOf(errors.New(text)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := countOf(1, "broker") + countOf(2, "broker") + countOf(0, "topic"); got != "1 broker2 brokers0 topics" {
		t.Error(got)
	}
}
