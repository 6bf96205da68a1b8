package leat

import (
	"errors"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxBackPercent      = 15 // of all arrows between the files of packages
	maxBackPercentLarge = 15 // of those of one package that has at least manyArrows
	manyArrows          = 50
)

// looseRooms are packages that have more arrows running back than the rest, and how many percent.
// A figure here may fall, not rise.
var looseRooms = map[string]int{
	"internal/config": 20, // its tables are files of their own, which use the kind of entry that lists them
}

// TestArrowsBetweenFiles proves that the files of a package stand in an order in which most of
// them use only what those before them declare, so that a reader can begin somewhere. An arrow is
// a pair of files of which one uses a function, type, variable or constant that the other one
// declares; it runs back if it is against the best order that is found. With -v the test says how
// many do in each package.
func TestArrowsBetweenFiles(t *testing.T) {
	all, allBack := 0, 0
	for _, root := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			path = filepath.ToSlash(path)
			arrows := findArrows(t, path)
			back := findArrowsBack(arrows)
			all, allBack = all+len(arrows), allBack+len(back)
			if len(arrows) > 0 {
				t.Logf("%s: %d of %d", path, len(back), len(arrows))
			}
			if most := max(maxBackPercentLarge, looseRooms[path]); len(arrows) >= manyArrows && 100*len(back) > most*len(arrows) {
				t.Errorf("%s: %d of %d arrows between its files run back, more than %d %%: %v", path, len(back), len(arrows), most, back)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if all < 500 {
		t.Fatalf("only %d arrows were found", all)
	}
	t.Logf("all packages: %d of %d", allBack, all)
	if 100*allBack > maxBackPercent*all {
		t.Errorf("%d of %d arrows between the files of packages run back, more than %d %%", allBack, all, maxBackPercent)
	}
}

// arrow says that a file uses a name that another one declares.
type arrow struct{ from, to string }

// findArrows finds the arrows of the package in a directory, as it is built here. It does not look
// up names of other packages, which would take much longer.
func findArrows(t *testing.T, dir string) []arrow {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		if ok, err := build.Default.MatchFile(dir, e.Name()); err != nil {
			t.Fatal(err)
		} else if !ok {
			continue
		}
		file, err := parser.ParseFile(set, filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if len(files) < 2 {
		return nil
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}}
	pkg, _ := conf.Check(dir, set, files, &info) // the imports are missing: that is an error
	seen := map[arrow]bool{}
	for id, obj := range info.Uses {
		if obj.Parent() != pkg.Scope() { // of another package, local, a method or a field
			continue
		}
		a := arrow{filepath.Base(set.Position(id.Pos()).Filename), filepath.Base(set.Position(obj.Pos()).Filename)}
		if a.from != a.to {
			seen[a] = true
		}
	}
	var arrows []arrow
	for a := range seen {
		arrows = append(arrows, a)
	}
	slices.SortFunc(arrows, func(a, b arrow) int { return strings.Compare(a.from+" "+a.to, b.from+" "+b.to) })
	return arrows
}

// noImports finds no package.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) {
	return nil, errors.New("imports are not looked up")
}

// findArrowsBack finds the arrows that run back in the best order of the files that is found. Each
// file in turn is moved to the place where the fewest arrows run back, until no move helps.
func findArrowsBack(arrows []arrow) []arrow {
	uses := map[arrow]int{}
	var order []string
	for _, a := range arrows {
		uses[a] = 1
		for _, f := range []string{a.from, a.to} {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	for moved := true; moved; {
		moved = false
		for _, f := range slices.Clone(order) {
			at := slices.Index(order, f)
			best, least := at, 0
			for _, step := range []int{1, -1} {
				cost := 0
				for i := at + step; i >= 0 && i < len(order); i += step {
					// Behind another file: the arrow to it is right, the one from it runs back.
					cost += step * (uses[arrow{order[i], f}] - uses[arrow{f, order[i]}])
					if cost < least {
						best, least = i, cost
					}
				}
			}
			if best != at {
				order = slices.Insert(slices.Delete(order, at, at+1), best, f)
				moved = true
			}
		}
	}
	var back []arrow
	for _, a := range arrows {
		if slices.Index(order, a.to) > slices.Index(order, a.from) {
			back = append(back, a)
		}
	}
	return back
}
