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
var protections = []string{"TLS", "authentication", "Kerberos", "ACLs", "delegation tokens", "policies"}

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
func (d *Def) neededFor(v value, text string) string {
	switch {
	case d.needsOf != nil:
		return d.needsOf(v)
	case d.Needs == "" || strings.TrimSpace(text) == d.harmless:
		return ""
	}
	return d.Needs
}

// needsCompaction is the need of a cleanup policy that has compact.
func needsCompaction(v value) string {
	if slices.Contains(v.l, "compact") {
		return "compaction"
	}
	return ""
}

// CheckServed refuses a value that asks for a protection that is not served, in which the
// operator would otherwise trust. The value must be valid. The error is ErrRefused.
func CheckServed(t ResourceType, key, text string) error {
	d := Find(t, key)
	if d == nil || d.supportKind() != Refused {
		return nil
	}
	v, err := d.parseValue(text)
	if err != nil {
		return nil //nolint:nilerr // Validate reports it
	}
	need := d.neededFor(v, text)
	if need == "" {
		return nil
	}
	shown := text
	if d.Sensitive() {
		shown = "[hidden]"
	}
	return refusedConfig("%s=%s asks for %s, which this version does not serve: nothing would be protected by it; leave it out", key, shown, need)
}

// Ineffective returns sentences about the configs in a set that have no effect, one for each
// reason.
func Ineffective(t ResourceType, set map[string]string) (sentences []string) {
	waiting := map[string][]string{} // names by need
	var needless []string
	for _, key := range slices.Sorted(maps.Keys(set)) {
		d := Find(t, key)
		if d == nil {
			continue
		}
		v, err := d.parseValue(set[key])
		if err != nil || strings.TrimSpace(set[key]) == d.Default {
			continue
		}
		if need := d.neededFor(v, set[key]); need != "" {
			waiting[need] = append(waiting[need], key)
		} else if d.supportKind() == Needless {
			needless = append(needless, key)
		}
	}
	for _, need := range slices.Sorted(maps.Keys(waiting)) {
		sentences = append(sentences, fmt.Sprintf("without effect until %s is served: %s", need, strings.Join(waiting[need], ", ")))
	}
	if len(needless) > 0 {
		sentences = append(sentences, "without effect here, for the reasons in docs/configs.md: "+strings.Join(needless, ", "))
	}
	return sentences
}
