package mutant

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const example = `It adds.
seed 7

--- a/sum/sum.go
+++ b/sum/sum.go
@@ -3,3 +3,3 @@
 func add(a, b int) int {
-	return a + b
+	return a - b
 }
`

// TestMutant proves that a patch is applied to a copy of the file, that the package's tests see it,
// and that the seed which they name is found and can be noted.
func TestMutant(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example\n\ngo 1.26\n")
	write("sum/sum.go", "package sum\n\nfunc add(a, b int) int {\n\treturn a + b\n}\n")
	write("sum/sum_test.go", "package sum\n\nimport \"testing\"\n\nfunc TestAdd(t *testing.T) {\n\tif add(1, 2) != 3 {\n\t\tt.Fatal(\"seed 12, event 3: wrong\")\n\t}\n}\n")
	write("mutants/adds.patch", example)
	write("mutants/nothing.patch", "It changes nothing.\nseed 1\n")
	t.Chdir(filepath.Join(root, "sum"))
	list, err := List("../mutants")
	if err != nil || len(list) != 2 || list[0].Name != "adds" || list[0].Seed != 7 {
		t.Fatal(list, err)
	}
	program, err := list[0].Build(t.Context(), "..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seed, found, out := Run(t.Context(), program, "TestAdd")
	if !found || seed != 12 {
		t.Errorf("seed %d, %v: %s", seed, found, out)
	}
	if _, found, _ := Run(t.Context(), program, "TestOther"); found {
		t.Error("a test that does not fail finds it")
	}
	if err := list[0].SetSeed(12); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "mutants", "adds.patch"))
	if err != nil || !strings.Contains(string(text), "\nseed 12\n") {
		t.Errorf("%s %v", text, err)
	}
	if _, err := list[1].Build(t.Context(), "..", t.TempDir()); err == nil {
		t.Error("a patch without a file is built")
	}
}

// TestApplyDiff proves that a hunk must fit one place of the file.
func TestApplyDiff(t *testing.T) {
	const diff = "+++ b/x\n@@ -1 +1 @@\n-one\n+two\n"
	for text, want := range map[string]string{"one\n": "two\n", "zero\none\n": "zero\ntwo\n", strings.Repeat("one\n", 2): "", "three\n": ""} {
		got, err := applyDiff(text, diff)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q becomes %q, %v", text, got, err)
		}
	}
}
