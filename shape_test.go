package leat

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// Measures of the binary's code. They are limits that a reader feels: a package that
// has grown too large to know, a file too long to read at once, a type that does
// everything, names that must be decoded. When one fails, look for the seam; do not
// chop a file to please it.
const (
	maxPackagePercent = 12 // of all lines
	maxFileLines      = 400
	maxLongFiles      = 10 // percent of the files that may be longer
	maxFields         = 30
	maxMethods        = 40
	maxOneWordPercent = 30 // of the names of unexported functions
	minTestsPercent   = 80 // lines of tests, of those of the code, in storage
)

// manyMethods names the types that may have more methods than the rest, and how many.
// A figure here may fall, not rise.
var manyMethods = map[string]int{
	"internal/broker.Broker":           1000, // one for each API, in a file of its own
	"internal/cli.app":                 1000, // one for each verb, in files of their own
	"internal/storage.Log":             58,   // all of a partition's storage is asked of it
	"internal/storage/segment.Segment": 65,   // it owns the file of the records and those of their indexes
	"internal/group/classic.Group":     65,   // each of Kafka's requests meets each of a group's states
	"internal/replica.Partition":       45,
}

// TestShape holds the code of the binary against the measures.
func TestShape(t *testing.T) {
	s := measureShape(t)
	for name, lines := range s.packages {
		if 100*lines > maxPackagePercent*s.lines {
			t.Errorf("%s has %d of %d lines: more than %d %%", name, lines, s.lines, maxPackagePercent)
		}
	}
	if 100*s.long > maxLongFiles*s.files {
		t.Errorf("%d of %d files have more than %d lines", s.long, s.files, maxFileLines)
	}
	for name, fields := range s.fields {
		if fields > maxFields {
			t.Errorf("%s has %d fields, more than %d", name, fields, maxFields)
		}
	}
	for name, methods := range s.methods {
		if methods > max(maxMethods, manyMethods[name]) {
			t.Errorf("%s has %d methods, more than %d", name, methods, max(maxMethods, manyMethods[name]))
		}
	}
	if 100*s.oneWord > maxOneWordPercent*s.unexported {
		t.Errorf("%d of %d unexported functions have a name of one word: more than %d %%", s.oneWord, s.unexported, maxOneWordPercent)
	}
}

// TestStorageIsTested proves that storage, where a fault loses records, has nearly as many lines
// of tests as of code.
func TestStorageIsTested(t *testing.T) {
	var code, tests int
	err := filepath.WalkDir("internal/storage", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.HasSuffix(path, "_test.go") {
			tests += bytes.Count(text, []byte("\n"))
		} else {
			code += bytes.Count(text, []byte("\n"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d lines of tests, %d of code", tests, code)
	if 100*tests < minTestsPercent*code || code == 0 {
		t.Errorf("storage has %d lines of tests for %d of code, less than %d %%", tests, code, minTestsPercent)
	}
}

// shape is what was counted. Tests do not count, nor do the modules beside the binary's.
type shape struct {
	lines, files, long  int
	unexported, oneWord int
	packages            map[string]int // lines
	fields, methods     map[string]int // by "package.Type"
}

func measureShape(t *testing.T) *shape {
	t.Helper()
	s := &shape{packages: map[string]int{}, fields: map[string]int{}, methods: map[string]int{}}
	for _, root := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			s.add(filepath.ToSlash(filepath.Dir(path)), file, set.File(file.Pos()).LineCount())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.files < 100 || s.unexported < 500 {
		t.Fatalf("only %d files with %d functions were found", s.files, s.unexported)
	}
	return s
}

// add counts one file of a package.
func (s *shape) add(pkg string, file *ast.File, lines int) {
	s.files++
	s.lines += lines
	s.packages[pkg] += lines
	if lines > maxFileLines {
		s.long++
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			s.addFunc(pkg, d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if typ, ok := spec.(*ast.TypeSpec); ok {
					if st, ok := typ.Type.(*ast.StructType); ok {
						s.fields[pkg+"."+typ.Name.Name] = st.Fields.NumFields()
					}
				}
			}
		}
	}
}

func (s *shape) addFunc(pkg string, d *ast.FuncDecl) {
	if d.Recv != nil {
		s.methods[pkg+"."+receiverName(d.Recv.List[0].Type)]++
	}
	name := d.Name.Name
	if d.Name.IsExported() || name == "main" || name == "_" {
		return
	}
	s.unexported++
	if !slices.ContainsFunc([]rune(name), func(r rune) bool { return unicode.IsUpper(r) || unicode.IsDigit(r) }) {
		s.oneWord++
	}
}

// receiverName is the name of a receiver's type, such as Log for *Log[T].
func receiverName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiverName(e.X)
	case *ast.IndexExpr:
		return receiverName(e.X)
	case *ast.IndexListExpr:
		return receiverName(e.X)
	case *ast.Ident:
		return e.Name
	default:
		return "?"
	}
}

// camelCase matches a word that can only be an identifier.
var camelCase = regexp.MustCompile(`(?:^|[^\w./-])([a-z]+[A-Z]\w*)`)

// TestCommentsNameWhatExists proves that each identifier that a comment names is in the code: after a
// renaming a comment must not send its reader after a name that is gone.
func TestCommentsNameWhatExists(t *testing.T) {
	known := map[string]bool{}
	named := map[string]token.Position{} // the last place of each
	for _, root := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Ident:
					known[n.Name] = true
				case *ast.BasicLit: // names of other systems are in texts
					for _, word := range regexp.MustCompile(`\w+`).FindAllString(n.Value, -1) {
						known[word] = true
					}
				}
				return true
			})
			for _, group := range file.Comments {
				for _, m := range camelCase.FindAllStringSubmatch(group.Text(), -1) {
					named[m[1]] = set.Position(group.Pos())
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(named) < 500 {
		t.Fatalf("only %d names were found in comments", len(named))
	}
	for name, at := range named {
		if !known[name] {
			t.Errorf("%v: the comment names %s, which is not in the code", at, name)
		}
	}
}
