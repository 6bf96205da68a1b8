package leat

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the plan of the house, the ground first. A package may import only
// packages of a lower floor, and the apps wing may not import the engine wing.
//
// Do not edit this table to make a build pass: a wrong arrow means that code
// stands in the wrong room. Change it only together with ARCHITECTURE.md.
var floors = []struct{ wing, packages string }{
	{"ground", "internal/budget internal/config internal/credential internal/keystore internal/mutant internal/sealing internal/mirror/names internal/wan"},
	{"ground", "internal/record internal/vfs internal/wire internal/meta"},
	{"ground", "internal/peer internal/authority internal/mirror/source internal/mirror/capped internal/group/commit internal/txn/entry"},
	{"ground", "internal/mirror/tunnel"},
	{"engine", "internal/storage/transaction internal/auth internal/quota internal/audit"},
	{"engine", "internal/storage/segment internal/storage/producer internal/storage/epoch internal/storage/space internal/storage/compact internal/storage/checkpoint internal/storage/aside internal/storage/lastrun internal/replica/progress/memlog"},
	{"engine", "internal/storage/journal internal/weblogin"},
	{"engine", "internal/storage internal/quorum internal/replica/progress internal/mirror/progress internal/mirror/position internal/mirror/follow internal/place"},
	{"engine", "internal/controller"},
	{"engine", "internal/replica"},
	{"engine", "internal/coord internal/cluster"},
	{"engine", "internal/errcode"},
	{"engine", "internal/group/memory"},
	{"engine", "internal/group/classic"},
	{"engine", "internal/group internal/txn internal/mirror"},
	{"engine", "internal/broker/missing"},
	{"engine", "internal/broker"},
	{"apps", "internal/bench/client internal/bench/socket internal/bench/process"},
	{"apps", "internal/bench"},
	{"apps", "internal/admin"},
	{"apps", "tools/suite/server"},
	{"apps", "tools/suite/workload"},
	{"apps", "tools/suite/nats tools/suite/cluster"},
	{"apps", "tools/suite tools/suite/floor tools/vulndb"},
	{"roof", "internal/node internal/sim internal/cli/phrase internal/cli/format"},
	{"roof", "internal/cli/local"},
	{"roof", "internal/cli"},
	{"roof", "cmd/leat"},
}

// doors are packages that only the named others may import: who wants something of a log
// asks the partition.
var doors = map[string]string{
	"internal/storage":            "internal/replica internal/node internal/sim",
	"internal/storage/segment":    "internal/storage",
	"internal/storage/producer":   "internal/storage internal/sim",
	"internal/storage/epoch":      "internal/storage",
	"internal/storage/space":      "internal/storage",
	"internal/storage/compact":    "internal/storage",
	"internal/storage/checkpoint": "internal/storage internal/storage/journal",
	"internal/storage/journal":    "internal/storage",
	"internal/storage/aside":      "internal/storage",
	"internal/storage/lastrun":    "internal/storage internal/node",
	// Floor 1a knows what readers must know of transactions.
	"internal/storage/transaction": "internal/storage internal/storage/segment internal/storage/producer internal/sim",
	"internal/replica/progress":    "internal/replica internal/sim",
	// The log in memory, and the mutants, are for tests and simulations.
	"internal/replica/progress/memlog": "internal/sim",
	"internal/mutant":                  "",
	"internal/broker/missing":          "internal/broker",
	// Networks and brokers that are emulated are for tests and measurements.
	"internal/wan":           "tools/suite tools/suite/cluster",
	"internal/mirror/capped": "",
	// The records of committed offsets are written by groups, and read by links, too.
	"internal/group/commit": "internal/group internal/mirror/position",
	// So it is with those of transactions.
	"internal/txn/entry": "internal/txn internal/mirror",
}

// TestFloors proves that imports run down only, that nobody goes around a door, and that
// every package is on the plan.
func TestFloors(t *testing.T) {
	const module = "github.com/leatstream/leat/"
	floor, wing := map[string]int{}, map[string]string{}
	for i, f := range floors {
		for p := range strings.FieldsSeq(f.packages) {
			floor[p], wing[p] = i, f.wing
		}
	}
	// The files are parsed here, not by "go list": go test caches by the files
	// that the test itself opens, and a cached pass would hide a new arrow.
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (path == "interop" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return fs.SkipDir // interop is a module of its own: black-box tests only
		}
		from := filepath.ToSlash(filepath.Dir(path))
		if err != nil || from == "." || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		if _, ok := floor[from]; !ok {
			t.Errorf("%s has no floor: add it to the plan", from)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			to, ok := strings.CutPrefix(imp, module)
			if !ok {
				continue // libraries are depguard's
			}
			if floor[to] >= floor[from] {
				t.Errorf("%s: floor %d must not import %s on floor %d", path, floor[from], to, floor[to])
			}
			if allowed, door := doors[to]; door && !slices.Contains(strings.Fields(allowed), from) {
				t.Errorf("%s: must not import %s, which is behind the door of %s", path, to, allowed)
			}
			if wing[from] == "apps" && wing[to] == "engine" {
				t.Errorf("%s: must not import %s: apps know the engine only by the Kafka protocol", path, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
