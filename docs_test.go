package leat

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/storage"
)

// TestGuaranteesAreTested proves that every test that docs/guarantees.md names
// exists in its package.
func TestGuaranteesAreTested(t *testing.T) {
	text, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
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
	want := fmt.Sprintf("after %d seconds or %d MiB", int(storage.PageCacheAge.Seconds()), storage.PageCacheBytes>>20)
	if !strings.Contains(text, want) {
		t.Errorf("docs/guarantees.md does not say %q", want)
	}
}
