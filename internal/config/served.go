package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Support says what it means to set a config.
type Support uint8

// Kinds of support.
const (
	Acts     Support = iota // it does what it says
	Needless                // it changes nothing here, and nobody misses anything for that
	Awaits                  // it changes nothing yet, since Needs is not served; setting it is warned of
	Refused                 // the same, and to take it would feign a protection: values that ask for it are refused
)

// protections are what Needs may name where a config that had no effect would leave open what
// its operator believes to be closed.
var protections = []string{"TLS", "authentication", "Kerberos", "ACLs", "delegation tokens", "policies"}

// support tells what it means to set the config.
func (d *Def) support() Support {
	switch {
	case slices.Contains(protections, d.Needs):
		return Refused
	case d.Needs != "":
		return Awaits
	case d.Needless:
		return Needless
	}
	return Acts
}

// note is the sentence about a config's support that ends its documentation.
func (d *Def) note() string {
	switch d.support() {
	case Refused:
		return fmt.Sprintf(" Not served yet: it needs %s, and values that ask for it are refused.", d.Needs)
	case Awaits:
		return fmt.Sprintf(" Not served yet: it needs %s, and changes nothing until then.", d.Needs)
	default:
		return ""
	}
}

// needs names what a value needs that is not served yet; "": nothing.
func (d *Def) needs(v value, text string) string {
	switch {
	case d.partly != nil:
		return d.partly(v)
	case d.Needs == "" || strings.TrimSpace(text) == d.harmless:
		return ""
	}
	return d.Needs
}

// compaction is what cleanup.policy needs where it has compact.
func compaction(v value) string {
	if slices.Contains(v.l, "compact") {
		return "compaction"
	}
	return ""
}

// CheckServed refuses a value that asks for a protection that is not served: what is taken in
// silence would be believed in. The value must be valid. The error is ErrRefused.
func CheckServed(t ResourceType, key, text string) error {
	d := Find(t, key)
	if d == nil || d.support() != Refused {
		return nil
	}
	v, err := d.parse(text)
	if err != nil {
		return nil //nolint:nilerr // Validate says so
	}
	need := d.needs(v, text)
	if need == "" {
		return nil
	}
	shown := text
	if d.Sensitive() {
		shown = "[hidden]"
	}
	return refusedConfig("%s=%s asks for %s, which this version does not serve: nothing would be protected by it; leave it out", key, shown, need)
}

// Ineffective tells of the configs in a set that change nothing: one sentence for each reason.
func Ineffective(t ResourceType, set map[string]string) (sentences []string) {
	waiting := map[string][]string{} // names by need
	var needless []string
	for _, key := range slices.Sorted(maps.Keys(set)) {
		d := Find(t, key)
		if d == nil {
			continue
		}
		v, err := d.parse(set[key])
		if err != nil || strings.TrimSpace(set[key]) == d.Default {
			continue
		}
		if need := d.needs(v, set[key]); need != "" {
			waiting[need] = append(waiting[need], key)
		} else if d.support() == Needless {
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
