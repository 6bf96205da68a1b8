package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what the version verb tells.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) version() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Tell which leat this is", Args: cobra.NoArgs, ValidArgsFunction: none,
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			return a.show(v, func() string {
				s := "leat " + v.Version
				if v.Revision != "" {
					s += " (" + v.Revision[:min(12, len(v.Revision))] + ")"
				}
				return fmt.Sprintf("%s, %s, %s\n", s, v.Go, v.Platform)
			})
		},
	}
	return a.withOutput(cmd)
}

// readVersion reads what the Go tool wrote into the program.
func readVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
