package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shownPassword finds the password that a node shows on a terminal.
var shownPassword = regexp.MustCompile(`password +([a-z2-7]{32}) `)

// TestSecureOnTerminal proves that a person sees the first password once, with lines that can be pasted as they are; that it is kept until he has seen it; and
// that it is in no file afterwards.
func TestSecureOnTerminal(t *testing.T) {
	t.Parallel()
	data, addr := filepath.Join(t.TempDir(), "data"), freeAddr(t)
	args := []string{"up", "--data", data, "--listen", addr, "--http", "off"}
	tt := newTerminal(t, 250, 60)
	p := tt.run(t, append(args, "--secure")...)
	eventually(t, "the lines are shown", func() bool { return strings.Contains(tt.written(), "leat topic list") })
	shown := strings.ReplaceAll(tt.written(), "\r\n", "\n")
	found := shownPassword.FindStringSubmatch(shown)
	if found == nil {
		t.Fatalf("there is no password:\n%s", shown)
	}
	first := filepath.Join(data, "first-login.properties")
	eventually(t, "the file is gone", func() bool { _, err := os.Stat(first); return os.IsNotExist(err) })
	file := filepath.Join(t.TempDir(), "client.properties")
	write(t, file, strings.ReplaceAll(linesFor(t, shown, "Java", "not there"), "bootstrap.servers="+addr+"\n", ""))
	tryVerb(t, t.TempDir(), "", "topic create t --client-config "+file+" -b "+addr).expect(t, 0)
	p.stop(t)

	// The log and the output of later starts do not have it, nor does any file.
	tt = newTerminal(t, 250, 60)
	p = tt.run(t, args...)
	eventually(t, "it says that it is secured", func() bool { return strings.Contains(tt.written(), "this cluster is secured") })
	tryVerb(t, t.TempDir(), "", "topic list --client-config "+file+" -b "+addr).expect(t, 0)
	p.stop(t)
	if strings.Contains(tt.written(), found[1]) {
		t.Error("the password is shown again")
	}
	err := filepath.WalkDir(filepath.Dir(data), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.Contains(readText(t, path), found[1]) {
			t.Errorf("the password is in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
