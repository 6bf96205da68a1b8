package cli

import (
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// versionInfo is the output of the version verb.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // the commit; empty if the Go tool did not know it, as with "go run"
	Time     string `json:"time,omitempty"`     // the time of the commit
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			return a.show(v, func() string { return v.String() + "\n" })
		},
	}
	return a.addOutputFlag(cmd)
}

// String is the version for people: a release by its number, anything else by its commit.
func (v versionInfo) String() string {
	s := "leat " + v.Version
	if v.Version == unreleased {
		s = "leat, not a release"
	}
	switch {
	case v.Revision == "":
		s += ", commit unknown"
	case v.Modified:
		s += ", commit " + v.Revision[:min(12, len(v.Revision))] + " with changes"
	default:
		s += ", commit " + v.Revision[:min(12, len(v.Revision))]
	}
	if day, _, ok := strings.Cut(v.Time, "T"); ok {
		s += " of " + day
	}
	return fmt.Sprintf("%s (%s, %s)", s, v.Go, v.Platform)
}

// unreleased stands for the version of a program that was built between releases.
const unreleased = "unreleased"

// readVersion reads the version that the Go tool wrote into the program.
func readVersion() versionInfo {
	v := versionInfo{Version: unreleased, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if isRelease(info.Main.Version) {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// isRelease tells whether a version is that of a release, and not one that the Go tool made of a commit.
func isRelease(version string) bool {
	return strings.HasPrefix(version, "v") && !strings.HasPrefix(version, "v0.0.0-") && !strings.Contains(version, "+dirty") &&
		!pseudoVersion.MatchString(version)
}

// pseudoVersion matches the end of a version that the Go tool made of a commit: its time and its hash.
var pseudoVersion = regexp.MustCompile(`[.-]\d{14}-[0-9a-f]{12}$`)
