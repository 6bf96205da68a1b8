// Vulndb makes a database that govulncheck reads (-db file:///OUT) of a folder of entries, as the module
// golang.org/x/vulndb has them in data/osv. The form is that of https://go.dev/security/vuln/database#api.
//
//	go run ./tools/vulndb FOLDER OUT
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is what the indexes need of an entry.
type entry struct {
	ID       string    `json:"id"`
	Modified time.Time `json:"modified"`
	Aliases  []string  `json:"aliases"`
	Affected []struct {
		Package struct {
			Name string `json:"name"` // a module, "stdlib" or "toolchain"
		} `json:"package"`
	} `json:"affected"`
}

// version is an entry in an index.
type version struct {
	ID       string    `json:"id"`
	Modified time.Time `json:"modified"`
	Aliases  []string  `json:"aliases,omitempty"`
}

// module is a line of the index by modules.
type module struct {
	Path  string    `json:"path"`
	Vulns []version `json:"vulns"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./tools/vulndb FOLDER OUT")
		os.Exit(2) //nolint:forbidigo // this is a main
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "vulndb:", err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

func run(folder, out string) error {
	names, err := filepath.Glob(filepath.Join(folder, "GO-*.json"))
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s has no entries", folder)
	}
	for _, dir := range []string{"ID", "index"} {
		if err := os.MkdirAll(filepath.Join(out, dir), 0o750); err != nil {
			return err
		}
	}
	all, modules := []version{}, map[string]*module{}
	var last time.Time
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if e.ID != strings.TrimSuffix(filepath.Base(name), ".json") {
			return fmt.Errorf("%s has the id %q", name, e.ID)
		}
		if err := os.WriteFile(filepath.Join(out, "ID", e.ID+".json"), text, 0o600); err != nil {
			return err
		}
		all = append(all, version{e.ID, e.Modified, e.Aliases})
		if e.Modified.After(last) {
			last = e.Modified
		}
		for _, a := range e.Affected {
			m := modules[a.Package.Name]
			if m == nil {
				m = &module{Path: a.Package.Name}
				modules[a.Package.Name] = m
			}
			if !slices.ContainsFunc(m.Vulns, func(v version) bool { return v.ID == e.ID }) {
				m.Vulns = append(m.Vulns, version{ID: e.ID, Modified: e.Modified})
			}
		}
	}
	byPath := []*module{}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		byPath = append(byPath, modules[path])
	}
	for name, index := range map[string]any{"db": map[string]time.Time{"modified": last}, "modules": byPath, "vulns": all} {
		text, err := json.Marshal(index)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, "index", name+".json"), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
