package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Support is the effect of setting a config.
type Support uint8

// The kinds of support.
const (
	Served   Support = iota // the effect that its documentation says
	Needless                // none, and none is needed here
	Pending                 // none yet, since Needs is not served; the node's log warns of it
	Refused                 // values that ask for Needs, a protection that is not served, are refused
)

// protections are the values of Needs for which a config without effect would be dangerous: its
// operator would believe that the cluster is protected.
var protections = []string{"TLS", "authentication", "Kerberos", "ACLs", "policies"}

// supportKind is the effect of setting the config.
func (d *Def) supportKind() Support {
	switch {
	case slices.Contains(protections, d.Needs):
		return Refused
	case d.Needs != "":
		return Pending
	case d.Needless:
		return Needless
	}
	return Served
}

// supportNote is the sentence about a config's support that ends its documentation.
func (d *Def) supportNote() string {
	switch d.supportKind() {
	case Refused:
		return fmt.Sprintf(" Not served yet: it needs %s, and values that ask for it are refused.", d.Needs)
	case Pending:
		return fmt.Sprintf(" Not served yet: it needs %s, and has no effect until then.", d.Needs)
	default:
		return ""
	}
}

// neededFor names the feature that a value needs and that is not served yet; "": none.
func (d *Def) neededFor(text string) string {
	if d.Needs == "" || strings.TrimSpace(text) == d.harmless {
		return ""
	}
	return d.Needs
}

// CheckServed refuses a value that asks for a protection that is not served, in which the
// operator would otherwise trust. The value must be valid. The error is ErrRefused.
func CheckServed(t ResourceType, key, text string) error {
	d := Find(t, key)
	if d == nil || d.supportKind() != Refused {
		return nil
	}
	if _, err := d.parseValue(text); err != nil {
		return nil //nolint:nilerr // Validate reports it
	}
	need := d.neededFor(text)
	if need == "" {
		return nil
	}
	shown := text
	if d.Sensitive() {
		shown = "[hidden]"
	}
	return refusedConfig("%s=%s asks for %s, which this version does not serve: nothing would be protected by it; leave it out", key, shown, need)
}

// NoteTag is the number of the tagged field in which the answer to a request that sets configs
// carries the Note about them. Clients skip tagged fields that they do not know (KIP-482). The
// error message of an answer is no place for it: Sarama takes a message for a failure, whatever
// the code beside it.
const NoteTag = 10_000

// VotersTag is the number of the tagged field in which DescribeQuorum tells how many nodes are to vote on the metadata, as an unsigned varint, while fewer
// do. Kafka has no such field: there a person chooses the voters.
const VotersTag = 10_001

// LeavingNote is the note in the answer to DescribeCluster about a broker whose leaders are moving to
// other brokers, since it is about to stop.
const LeavingNote = "leaving"

// maxNoted is how many configs a note names for each reason; it counts the others.
const maxNoted = 3

// Note is one line about the configs in a set that change nothing, for the client that sets them.
// It is "" if all of them act. Its length is bounded, however many configs there are.
func Note(t ResourceType, set map[string]string) string {
	return strings.Join(explainIneffective(t, set, maxNoted), "; ")
}

// Ineffective returns sentences about the configs in a set that have no effect, one for each
// reason.
func Ineffective(t ResourceType, set map[string]string) (sentences []string) {
	return explainIneffective(t, set, len(set))
}

// explainIneffective is Ineffective, with at most limit names in each sentence.
func explainIneffective(t ResourceType, set map[string]string, limit int) (sentences []string) {
	waiting := map[string][]string{} // names by need
	var needless []string
	for _, key := range slices.Sorted(maps.Keys(set)) {
		d := Find(t, key)
		if d == nil {
			continue
		}
		_, err := d.parseValue(set[key])
		if err != nil || strings.TrimSpace(set[key]) == d.Default {
			continue
		}
		need := d.neededFor(set[key])
		switch {
		case need != "":
			waiting[need] = append(waiting[need], key)
		case d.supportKind() == Needless:
			needless = append(needless, key)
		}
	}
	for _, need := range slices.Sorted(maps.Keys(waiting)) {
		it := "it needs"
		if len(waiting[need]) > 1 {
			it = "they need"
		}
		sentences = append(sentences, fmt.Sprintf("%s no effect yet: %s %s", namesHave(waiting[need], limit), it, need))
	}
	if len(needless) > 0 {
		sentences = append(sentences, namesHave(needless, limit)+" no effect here, for the reasons in docs/configs.md")
	}
	return sentences
}

// namesHave begins a sentence about configs: "a has", "a, b have" or "a, b and 3 more have".
func namesHave(names []string, limit int) string {
	if len(names) == 1 {
		return names[0] + " has"
	}
	listed := strings.Join(names[:min(limit, len(names))], ", ")
	if more := len(names) - limit; more > 0 {
		listed += fmt.Sprintf(" and %d more", more)
	}
	return listed + " have"
}
