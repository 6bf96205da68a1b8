package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// securedNode is a node that one command has made and secured.
type securedNode struct {
	addr, shown, password string
	ca                    string // the file of certificates to trust
}

// startSecured starts a node with --secure, and more arguments, until the test ends.
func startSecured(t *testing.T, args ...string) *securedNode {
	t.Helper()
	free, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	n := &securedNode{addr: "127.0.0.1:" + strconv.Itoa(free[0]), ca: filepath.Join(data, "ca.pem")}
	said := &tail{}
	cmd := exec.CommandContext(t.Context(), leatBinary(t), append([]string{"up", "--secure", "--data", data, "--listen", n.addr, "--http", "off"}, args...)...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	})
	for until := time.Now().Add(readyTimeout); !strings.Contains(said.String(), "leat topic list"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the node does not say what to paste:\n%s", said)
		}
	}
	n.shown = said.String()
	text, err := os.ReadFile(filepath.Join(data, "first-login.properties"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`password="([^"]+)"`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no password in %s", text)
	}
	n.password = string(found[1])
	return n
}

// linesFor writes the lines that the node has shown for a kind of clients into a file, with the password in its place, and changes nothing else.
func (n *securedNode) linesFor(t *testing.T, kind string) (file string) {
	t.Helper()
	_, rest, ok := strings.Cut(n.shown, "\n"+kind)
	_, rest, ok2 := strings.Cut(rest, ":\n\n")
	block, _, ok3 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("no lines for %s in\n%s", kind, n.shown)
	}
	file = filepath.Join(t.TempDir(), "client.properties")
	text := strings.NewReplacer("    ", "", "=PASSWORD", "="+n.password, `"PASSWORD"`, `"`+n.password+`"`).Replace(block) + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSecuredNode proves that a Java client and one of librdkafka use a secured node with exactly the lines that it shows, and are let in by nothing less.
func TestSecuredNode(t *testing.T) {
	if runsKafka() {
		t.Skip("it is about what leat shows")
	}
	n := startSecured(t)
	t.Run("Java", func(t *testing.T) {
		file := n.linesFor(t, "Java")
		b := tools(t, n.addr)
		b.do(t, topicsTool, "", "--command-config", file, "--create", "--topic", "orders", "--partitions", "2")
		contains(t, b.do(t, topicsTool, "", "--command-config", file, "--list"), "orders")
		contains(t, b.do(t, aclsTool, "", "--command-config", file, "--add", "--allow-principal", "User:alice", "--operation", "Read", "--topic", "orders"), "orders")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wrong := filepath.Join(t.TempDir(), "wrong.properties")
		if err := os.WriteFile(wrong, []byte(strings.ReplaceAll(string(text), n.password, "wrong")), 0o600); err != nil {
			t.Fatal(err)
		}
		b.fails(t, "Authentication failed", topicsTool, "--command-config", wrong, "--list")
	})
	t.Run("librdkafka", func(t *testing.T) {
		kcatKit.have(t)
		file := n.linesFor(t, "librdkafka")
		run := func(input string, args ...string) (string, error) {
			cmd := exec.CommandContext(t.Context(), "kcat", append([]string{"-F", file, "-m", "10"}, args...)...)
			cmd.Stdin = strings.NewReader(input)
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		for i := range 3 {
			if out, err := run(fmt.Sprintf("record %d\n", i), "-P", "-t", "records"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		out, err := run("", "-C", "-t", "records", "-o", "beginning", "-e", "-q")
		if err != nil || strings.Count(out, "record ") != 3 {
			t.Errorf("%v: %s", err, out)
		}
		plain, err := exec.CommandContext(t.Context(), "kcat", "-b", n.addr, "-L", "-m", "3").CombinedOutput()
		if err == nil {
			t.Errorf("a client without TLS is served: %s", plain)
		}
	})
}
