package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestForeignDirectories proves that a directory in which somebody has other things is refused with what
// was found and what to do, and is not changed; and that an empty one, also with what a file system has
// at its root, or what a start leaves that ended early, is taken.
func TestForeignDirectories(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files []string // those that end with a slash are directories
		says  string   // "": it is taken
	}{
		{"empty", nil, ""},
		{"root of a file system", []string{"lost+found/"}, ""},
		{"start that ended early", []string{".lock", "meta.properties.tmp", "node.key.tmp", "cluster.secret.tmp"}, ""},
		{"home", []string{".bashrc", "backup-2025/", "journal/", "quorum/", "thesis.tex"}, "it is not empty, and what it has is not a node's: .bashrc, backup-2025, journal and 2 more; choose a directory that is empty"},
		{"folder like a partition", []string{"backup-2025/a.txt"}, "not a node's: backup-2025;"},
		{"identity lost", []string{"quorum/00000000000000000001.log", "notes.txt"}, "meta.properties is missing, but quorum is there"},
		{"identity lost, journal", []string{"journal/00000000000000000001.ring"}, "meta.properties is missing, but journal is there"},
		{"identity lost, partition", []string{"orders-7/partition.metadata"}, "meta.properties is missing, but orders-7 is there"},
		{"identity lost, checkpoint", []string{"checkpoint-a"}, "meta.properties is missing, but checkpoint-a is there"},
		{"Kafka without identity", []string{"__cluster_metadata-0/", "bootstrap.checkpoint"}, "it was written by Apache Kafka"},
		{"Kafka", []string{"meta.properties=version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\nnode.id=1\n", "orders-0/"}, "it was written by Apache Kafka"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range tc.files {
				name, text, _ := strings.Cut(f, "=")
				full := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
					t.Fatal(err)
				}
				var err error
				if strings.HasSuffix(name, "/") {
					err = os.MkdirAll(full, 0o750)
				} else {
					err = os.WriteFile(full, []byte(text), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before := listTree(t, dir)
			n, err := Start(t.Context(), Config{Data: dir, Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
			if err == nil {
				stop(t, n)
			}
			switch {
			case tc.says == "" && err != nil:
				t.Error(err)
			case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "--data")):
				t.Errorf("%v", err)
			case tc.says != "" && !slices.Equal(listTree(t, dir), before):
				t.Errorf("it was changed: %v, %v", before, listTree(t, dir))
			}
		})
	}
}

// listTree lists all files below a directory.
func listTree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		names = append(names, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
