package config

import (
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The configs of the audit log that are named in messages.
const (
	auditDestinationsKey = "leat.audit.destinations"
	auditFileKey         = "leat.audit.file"
)

// Audit says where a node records who did what, and what.
type Audit struct {
	Topic, File bool     // the destinations
	Events      []string // login, denied, change, read, write
	Excluded    []string // principals, TYPE:NAME
	Path        string   // of the file
	FileBytes   int64
	Files       int
	Interval    time.Duration // over which events that repeat are summed up
	UseInterval time.Duration // the same for reads and writes
}

// IsOn tells whether anything is recorded.
func (a *Audit) IsOn() bool { return a.Topic || a.File }

// Audit reads how the node records who did what. isAuthorized tells that ACLs decide what clients may do. The error refuses settings by which
// less would be recorded than they say.
func (s *Static) Audit(isAuthorized bool) (Audit, error) {
	r := newReader(View{Static: s}, brokerTable, nil)
	a := Audit{
		Events: r.readList("leat.audit.events"), Path: strings.TrimSpace(r.readString(auditFileKey)),
		FileBytes: r.readInt("leat.audit.file.bytes"), Files: int(r.readInt("leat.audit.file.count")),
		Interval: r.readMillis("leat.audit.interval.ms"), UseInterval: r.readMillis("leat.audit.use.interval.ms"),
	}
	for one := range strings.SplitSeq(r.readString("leat.audit.excluded.principals"), ";") {
		if one = strings.TrimSpace(one); one != "" {
			a.Excluded = append(a.Excluded, one)
		}
	}
	to := r.readList(auditDestinationsKey)
	a.File = slices.Contains(to, "file")
	a.Topic = slices.Contains(to, "topic") || slices.Contains(to, "auto") && isAuthorized
	switch {
	case a.File && a.Path == "":
		return a, refusedConfig("%s has file, and %s is not set: name the file, as in %s=/var/log/leat/audit.log", auditDestinationsKey, auditFileKey, auditFileKey)
	case a.File && !filepath.IsAbs(a.Path):
		return a, refusedConfig("%s=%s: write the whole path of the file, which begins with /", auditFileKey, a.Path)
	case !a.File && a.Path != "":
		return a, refusedConfig("%s is set, and nothing would be written there: set %s=file, or topic,file, too", auditFileKey, auditDestinationsKey)
	case a.IsOn() && len(a.Events) == 0:
		return a, refusedConfig("leat.audit.events is empty, so that nothing would be recorded: set %s=none if that is meant", auditDestinationsKey)
	}
	return a, nil
}

// auditDestinations accepts auto or none alone, or any of the others.
func auditDestinations(v value) string {
	const words = "auto, file, none, topic"
	if wrong := listOf("auto", "file", "none", "topic")(v); wrong != "" {
		return wrong
	}
	if len(v.l) != 1 && (len(v.l) == 0 || slices.Contains(v.l, "auto") || slices.Contains(v.l, "none")) {
		return "Value must be auto, none, topic, file, or topic,file; not a mixture of " + words
	}
	return ""
}
