package leat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestVulnerabilitiesFailTheGate proves what scripts/vuln.sh makes of what govulncheck says: a vulnerability that is called, and an error,
// fail; a database that cannot be reached is said, replaced by the module that it is made of, and does not fail if that is not to be
// had either, unless somebody has named the database.
func TestVulnerabilitiesFailTheGate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the script needs bash")
	}
	const away = `echo "govulncheck: fetching vulnerabilities: no such host" >&2; exit 1`
	// An entry of the module, as far as the indexes need it.
	module := t.TempDir()
	if err := os.MkdirAll(filepath.Join(module, "data", "osv"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(module, "data", "osv", "GO-2026-1.json"), 0o644,
		`{"id":"GO-2026-1","modified":"2026-01-02T03:04:05Z","affected":[{"package":{"name":"example.com/m"}}]}`)
	program, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	proxy := fmt.Sprintf(`case $1 in run) exec %s "$@";; env|version) echo go1.99.1; exit;; esac; printf '{\n\t"Version": "v0.0.0-2026",\n\t"Dir": "%s",\n\t"Sum": ""\n}\n'`, program, module)
	const noProxy = `[ "$1" = env ] && echo go1.98.7; exit 1`
	for name, test := range map[string]struct {
		tool, golang, db string
		want             bool
		says             string
	}{
		"nothing found":       {`exit 0`, proxy, "", true, "built by go1.99.1, by https://vuln.go.dev"},
		"no newer Go":         {`exit 0`, noProxy, "", true, "the one of this machine is judged.\nvulnerabilities of ., built by go1.98.7"},
		"called":              {`echo "Vulnerability #1: GO-2026-1"; exit 3`, proxy, "", false, "GO-2026-1"},
		"code does not build": {`echo "govulncheck: loading packages: " >&2; exit 1`, proxy, "", false, "loading packages"},
		"no network at all":   {away, noProxy, "", true, "NOT CHECKED"},
		"named database away": {away, proxy, "https://vuln.example.com", false, "no such host"},
		"copy, nothing found": {`case $2 in file:*) grep -q '"path":"example.com/m","vulns":\[{"id":"GO-2026-1"' "${2#file://}/index/modules.json";; *) ` + away + `;; esac`, proxy, "", true, "by golang.org/x/vulndb v0.0.0-2026"},
		"copy, called":        {`case $2 in file:*) exit 3;; *) ` + away + `;; esac`, proxy, "", false, "status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tool, golang := filepath.Join(dir, "govulncheck"), filepath.Join(dir, "go")
			write(t, tool, 0o755, "#!/bin/bash\n"+test.tool+"\n")
			write(t, golang, 0o755, "#!/bin/bash\n"+test.golang+"\n")
			cmd := exec.CommandContext(t.Context(), "scripts/vuln.sh", tool, ".")
			cmd.Env = append(os.Environ(), "GO="+golang, "LEAT_VULNDB="+test.db)
			out, err := cmd.CombinedOutput()
			if (err == nil) != test.want || !strings.Contains(string(out), test.says) {
				t.Errorf("%v, and said:\n%s", err, out)
			}
		})
	}
}

func write(t *testing.T, name string, mode os.FileMode, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
