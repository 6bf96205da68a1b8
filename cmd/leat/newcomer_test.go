//go:build unix

package main_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHTTPPortTaken proves that a node whose usual HTTP port is taken starts nevertheless, and says on
// which address health and metrics are and why; and that one that was asked for that port refuses to
// start, and leaves nothing behind.
func TestHTTPPortTaken(t *testing.T) {
	t.Parallel()
	if taken, err := net.Listen("tcp", node8080); err == nil { // else another program has it, which is as good
		defer taken.Close()
	}
	p := launch(t, t.TempDir(), freeAddr(t))
	p.awaitReady(t)
	eventually(t, "the address line", func() bool { return strings.Contains(p.out.String(), "data in") })
	why := node8080 + " is taken by another program"
	m := regexp.MustCompile(`metrics on (http://\S+)/metrics \(since ` + regexp.QuoteMeta(why) + `; --http HOST:PORT chooses an address\)`).FindStringSubmatch(p.out.String())
	if m == nil {
		t.Fatalf("it does not say where it serves HTTP:\n%s", p.out)
	}
	eventually(t, m[1], func() bool { return httpOK(m[1]+"/readyz") && httpOK(m[1]+"/metrics") })
	if !strings.Contains(p.out.String(), `"why":"`+why) {
		t.Errorf("the log does not say it:\n%s", p.out)
	}
	for _, args := range [][]string{{"--http", node8080}, {"--config", filepath.Join(t.TempDir(), "leat.yaml")}} {
		if args[0] == "--config" {
			write(t, args[1], "http: "+node8080+"\n")
		}
		dir := filepath.Join(t.TempDir(), "data")
		p := launch(t, dir, freeAddr(t), args...)
		p.awaitEnd(t)
		if out := p.out.String(); p.exitCode() == 0 || !strings.Contains(out, why) || !strings.Contains(out, "--http") {
			t.Errorf("leat up %q: exit code %d, %s", args, p.exitCode(), out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("leat up %q has made the data directory", args)
		}
	}
}

// node8080 is the usual address of health and metrics.
const node8080 = "127.0.0.1:8080"

// TestForeignDirectory proves that a directory in which somebody has other things is no data directory,
// and stays as it is.
func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write(t, filepath.Join(home, "thesis.tex"), "precious")
	for dir, says := range map[string]string{home: "thesis.tex", "/": "bin"} {
		p := launch(t, dir, freeAddr(t), "--http", "off")
		p.awaitEnd(t)
		if out := p.out.String(); p.exitCode() == 0 || !strings.Contains(out, says) || !strings.Contains(out, "--data, such as "+filepath.Join(dir, "leat-data")) {
			t.Errorf("leat up --data %s: exit code %d, %s", dir, p.exitCode(), out)
		}
		for _, made := range []string{".lock", "meta.properties"} {
			if _, err := os.Stat(filepath.Join(dir, made)); err == nil {
				t.Errorf("%s has %s now", dir, made)
			}
		}
	}
}

// TestForeignFolderBesideTopics proves that a folder among the topics' that nobody has made for Leat stays
// as it is, and that one whose name a partition needs is set aside with the true reason.
func TestForeignFolderBesideTopics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	up(t, dir).stop(t)
	for _, folder := range []string{"backup-2025", "thesis-0"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, folder, "a.txt"), "precious")
	}
	p := up(t, dir)
	tryVerb(t, dir, "", "topic create thesis --bootstrap "+p.addr).expect(t, 0)
	tryVerb(t, dir, "x\n", "produce thesis --bootstrap "+p.addr).expect(t, 0)
	p.stop(t)
	if _, err := os.Stat(filepath.Join(dir, "backup-2025", "a.txt")); err != nil {
		t.Error(err)
	}
	if moved, _ := filepath.Glob(filepath.Join(dir, "thesis-0.*-stray", "a.txt")); len(moved) != 1 {
		t.Errorf("set aside: %q", moved)
	}
	for _, says := range []string{"move it out of the data directory, remove it", "a partition has this name now, and the directory is of none"} {
		if !strings.Contains(p.out.String(), says) {
			t.Errorf("the log does not say %q:\n%s", says, p.out)
		}
	}
}

// TestLostFileIsNamed proves that the log of a node names a file that is missing, or too short, by its
// path, so that an operator can put it back without knowing how files are named.
func TestLostFileIsNamed(t *testing.T) {
	t.Parallel()
	for what, harm := range map[string]func(string) error{
		"missing":   os.Remove,
		"too short": func(path string) error { return os.Truncate(path, 1) },
	} {
		dir := t.TempDir()
		p := up(t, dir)
		tryVerb(t, dir, "", "topic create t --bootstrap "+p.addr).expect(t, 0)
		tryVerb(t, dir, "x\n", "produce t --bootstrap "+p.addr).expect(t, 0)
		p.stop(t)
		file := filepath.Join(dir, "t-0", "00000000000000000000.log")
		if err := harm(file); err != nil {
			t.Fatal(err)
		}
		p = up(t, dir)
		tryVerb(t, dir, "", "topic offsets t --bootstrap "+p.addr)
		eventually(t, "the file's path in the log, "+what, func() bool { return strings.Contains(p.out.String(), file) })
		p.stop(t)
	}
}
