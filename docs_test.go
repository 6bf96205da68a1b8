package leat

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/storage"
)

// TestGuaranteesAreTested proves that every test that docs/guarantees.md and
// docs/formats.md name exists in its package.
func TestGuaranteesAreTested(t *testing.T) {
	var text []byte
	for _, page := range []string{"docs/guarantees.md", "docs/formats.md"} {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z]+)`").FindAllSubmatch(text, -1)
	if len(named) < 20 {
		t.Fatalf("only %d tests are named", len(named))
	}
	for _, m := range named {
		dir, test := string(m[1]), string(m[2])
		if !strings.Contains(dir, "/") {
			dir = filepath.Join("internal", dir)
		}
		if !declares(t, dir, test) {
			t.Errorf("%s declares no %s", dir, test)
		}
	}
}

// declares tells whether a test file in dir has the test.
func declares(t *testing.T, dir, test string) bool {
	t.Helper()
	files, err := fs.Glob(os.DirFS(dir), "*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "func "+test+"(") {
			return true
		}
	}
	return false
}

// TestGuaranteesHaveTheCodesNumbers proves that the numbers which docs/guarantees.md
// promises are those of the code.
func TestGuaranteesHaveTheCodesNumbers(t *testing.T) {
	b, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	stray, err := strconv.ParseInt(config.Find(config.Broker, "leat.stray.retention.ms").Default, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("after %d seconds or %d MiB", int(storage.PageCacheAge.Seconds()), storage.PageCacheBytes>>20),
		fmt.Sprintf("`leat.stray.retention.ms`: %d days unless set", config.Millis(stray)/(24*time.Hour)),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/guarantees.md does not say %q", want)
		}
	}
}

// TestConfigsSayWhatTheyDo proves that no config promises what a version to come does: its sentence
// says what it does today, or that it is not served yet.
func TestConfigsSayWhatTheyDo(t *testing.T) {
	promise := regexp.MustCompile(`(?i)\b(acts|set|served|works?) from the version|from the version with|in a (later|future) version|accepted for compatibility`)
	for _, typ := range []config.ResourceType{config.Topic, config.Broker, config.Group, config.ClientMetrics} {
		for _, d := range config.Defs(typ) {
			if found := promise.FindString(d.Doc); found != "" {
				t.Errorf("%v %s: %q says %q", typ, d.Name, d.Doc, found)
			}
		}
	}
}

// TestFormatsHaveEveryFile proves that docs/formats.md names every file of the data
// directories that are kept for TestEarlierDirectories.
func TestFormatsHaveEveryFile(t *testing.T) {
	page, err := os.ReadFile("docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(page, -1) {
		known[regexp.MustCompile("<[a-z]+>").ReplaceAllString(string(m[1]), "*")] = true
	}
	// A name without what differs from one directory, or file, to another.
	general := func(name string) string {
		name = regexp.MustCompile(`^[^/]+-[0-9]+/`).ReplaceAllString(name, "*-*/")
		return regexp.MustCompile(`[0-9]{4,}`).ReplaceAllString(name, "*")
	}
	archives, _ := filepath.Glob("cmd/leat/testdata/formats/*.tar.gz")
	if len(archives) == 0 {
		t.Fatal("there are no directories")
	}
	for _, archive := range archives {
		for _, name := range listArchive(t, archive) {
			if !known[general(name)] {
				t.Errorf("%s: %s is not in docs/formats.md", archive, name)
			}
		}
	}
}

// listArchive lists the files of an archive, and its directories with a slash at the end.
func listArchive(t *testing.T, archive string) (names []string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// TestWalksAreTrue proves that every function that the walks in ARCHITECTURE.md name with its
// package is there.
func TestWalksAreTrue(t *testing.T) {
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, walks, _ := strings.Cut(string(b), "## Four walks")
	walks, _, _ = strings.Cut(walks, "\n## ")
	dirs := map[string]string{"journal": "internal/storage/journal", "segment": "internal/storage/segment"}
	named := regexp.MustCompile("`([a-z]+)\\.([A-Za-z]+)`").FindAllStringSubmatch(walks, -1)
	if len(named) < 30 {
		t.Fatalf("only %d functions are named", len(named))
	}
	for _, m := range named {
		pkg, name := m[1], m[2]
		if name == "go" { // a file
			continue
		}
		dir := dirs[pkg]
		if dir == "" {
			dir = filepath.Join("internal", pkg)
		}
		if !defines(t, dir, name) {
			t.Errorf("%s has no %s", dir, name)
		}
	}
}

// defines tells whether a package has a function, method or type of a name.
func defines(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type )` + name + `\b`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") && wanted.Match(text) {
			return true
		}
	}
	return false
}
