//go:build unix

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// verbUse has a wrong and a right use of a verb.
type verbUse struct {
	wrong string // arguments that are wrong
	right string // arguments with which it asks a broker; empty if it asks none
}

// verbUses has every verb that does something.
var verbUses = map[string]verbUse{
	"up":                   {"--id many", ""},
	"demo":                 {"--rate many", ""},
	"produce":              {"t --partition many", "t"},
	"consume":              {"t --count many", "t --exit"},
	"bench produce":        {"--duration long", "--duration 1s"},
	"bench consume":        {"--passes many", "--passes 1"},
	"bench latency":        {"--rate many", "--duration 1s"},
	"bench compare":        {"one.json", ""},
	"topic create":         {"t --partitions many", "t"},
	"topic list":           {"--match (", "-q"},
	"topic describe":       {"", "t"},
	"topic alter":          {"t --set retention.ms", "t --set retention.ms=1"},
	"topic delete":         {"t --output xml", "t"},
	"topic add-partitions": {"t many", "t 1"},
	"topic trim":           {"t --before yesterday", "t --before end"},
	"topic offsets":        {"t --at yesterday", "t"},
	"group list":           {"--state Foo", ""},
	"group describe":       {"g --all-groups", "g"},
	"group reset":          {"g --to start --by 1", "g --to start"},
	"group export":         {"", "g"},
	"group delete":         {"", "g"},
	"group delete-offsets": {"g", "g --topic t"},
	"config get":           {"", "--topic t"},
	"config set":           {"--topic t retention.ms", "--topic t retention.ms=1"},
	"config unset":         {"--broker many retention.ms", "--topic t retention.ms"},
	"cluster":              {"nope", "-o json"},
	"cluster apis":         {"extra", "-o json"},
	"cluster finalize":     {"extra", "-o json"},
	"cluster log-dirs":     {"extra", "-o json"},
	"cluster log-level":    {"root", "-o json"},
	"cluster quorum":       {"extra", "-o json"},
	"cluster recover":      {"extra", ""},
	"cluster remove":       {"two", ""},
	"cluster token":        {"--for 0s", ""},
	"health":               {"extra", "-o json"},
	"completion":           {"ksh", ""},
	"help":                 {"nope", ""},
	"version":              {"extra", ""},
}

// goWords are words from the insides of Go and its libraries, which mean nothing to people.
var goWords = regexp.MustCompile(`strconv\.|parsing "|invalid syntax|%!|context (deadline|canceled)|deadline exceeded|<nil>|\bEOF\b|\bpanic\b|` +
	`goroutine|runtime error|\*errors|kmsg|kadm|kgo\b|shard|unable to |\b1 (argument|broker|group|member|message|partition|record|replica|topic)s\b|` +
	`int32Slice|stringArray`)

// ran is a run of the binary that has ended.
type ran struct {
	line           string
	code           int
	stdout, stderr string
}

// tryVerb runs the binary with the arguments in line, and checks that its output is fit for people.
func tryVerb(t *testing.T, dir, stdin, line string) ran {
	t.Helper()
	cmd := exec.Command(leat, strings.Fields(line)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = strings.NewReader(stdin), &stdout, &stderr, dir
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	r := ran{line: line, code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	if strings.Contains(r.stderr, "%v") {
		t.Errorf("leat %s says %s", line, r.stderr)
	}
	for _, text := range []string{r.stdout, r.stderr} {
		if found := goWords.FindString(text); found != "" {
			t.Errorf("leat %s says %q:\n%s", line, found, text)
		}
	}
	return r
}

// expect checks the exit code, and that a failure is reported in a sentence.
func (r ran) expect(t *testing.T, code int) {
	t.Helper()
	if r.code != code {
		t.Errorf("leat %s: exit code %d, want %d\n%s%s", r.line, r.code, code, r.stdout, r.stderr)
	}
	if code != 0 && !strings.HasPrefix(r.stderr, "leat: ") && !strings.Contains(r.stderr, "\nleat: ") {
		t.Errorf("leat %s fails without a sentence: %q", r.line, r.stderr)
	}
}

// findVerbs reads the verbs from the help texts. Each comes with the verbs above it.
func findVerbs(t *testing.T, above string) []string {
	t.Helper()
	var all []string
	help := tryVerb(t, t.TempDir(), "", above+" --help").stdout
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+) {2,}\S`).FindAllStringSubmatch(help, -1) {
		verb := strings.TrimSpace(above + " " + m[1])
		all = append(append(all, verb), findVerbs(t, verb)...)
	}
	return all
}

// isParent tells whether a verb only has other verbs below it.
func isParent(verb string) bool {
	return slices.Contains([]string{"topic", "group", "config", "bench"}, verb)
}

// TestEveryVerbsExitCodes proves that every verb ends with the exit code that docs/commands.md
// promises for a wrong flag, for wrong arguments, and for a broker that cannot be reached. It also
// proves that the verb is in that document, and that its help fits a terminal.
func TestEveryVerbsExitCodes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "commands.md"))
	if err != nil {
		t.Fatal(err)
	}
	verbs := findVerbs(t, "")
	if len(verbs) < len(verbUses) {
		t.Fatalf("only %d verbs are in the help: %q", len(verbs), verbs)
	}
	dir := t.TempDir()
	for _, verb := range verbs {
		help := tryVerb(t, dir, "", verb+" --help")
		help.expect(t, 0)
		for line := range strings.Lines(help.stdout) {
			if len(line) > 101 {
				t.Errorf("leat %s --help has a line of %d columns: %s", verb, len(line)-1, line)
			}
		}
		if !bytes.Contains(page, []byte("`leat "+verb+"`")) {
			t.Errorf("docs/commands.md does not have leat %s", verb)
		}
		tryVerb(t, dir, "", verb+" --no-such-flag").expect(t, 2)
		if isParent(verb) {
			tryVerb(t, dir, "", verb+" nope").expect(t, 2)
			continue
		}
		use, ok := verbUses[verb]
		if !ok {
			t.Errorf("leat %s has no line in verbUses", verb)
			continue
		}
		tryVerb(t, dir, "", verb+" "+use.wrong).expect(t, 2)
		if use.right != "" || verb == "group list" {
			r := tryVerb(t, dir, "", verb+" "+use.right+" --bootstrap 127.0.0.1:1")
			r.expect(t, 4)
			if !strings.Contains(r.stderr, "127.0.0.1:1") {
				t.Errorf("leat %s does not say who cannot be reached: %s", r.line, r.stderr)
			}
		}
	}
}

// TestBadInputs proves that common mistakes are refused with the right exit code, in a sentence
// without the insides of Go, and that they change nothing.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	dir := t.TempDir()
	at := " --bootstrap " + p.addr
	tryVerb(t, dir, "", "topic create orders --partitions 2"+at).expect(t, 0)
	tryVerb(t, dir, "a\nb\n", "produce orders --partition 0"+at).expect(t, 0)
	tryVerb(t, dir, "", "consume orders --group billing --exit"+at).expect(t, 0)
	write(t, filepath.Join(dir, "bad.csv"), "orders,0,1\n\"orders,0\n")
	write(t, filepath.Join(dir, "short.csv"), "orders\n")
	for _, c := range []struct {
		line string
		code int
	}{
		{"topic create orders", 1},
		{"topic create bad/name", 1},
		{"topic create x --partitions 0", 1},
		{"topic create x --replication 5", 1},
		{"topic create x --config retention.ms=abc", 1},
		{"topic create x --config retentoin.ms=1", 3},
		{"topic create x --config retention.ms", 2},
		{"topic describe ordesr", 3},
		{"topic delete ordesr", 3},
		{"topic list ordesr", 3},
		{"topic offsets ordesr", 3},
		{"topic alter ordesr --set retention.ms=1", 3},
		{"topic alter orders --set retention.ms=abc", 1},
		{"topic alter orders --set retentoin.ms=1", 3},
		{"topic alter orders --unset retentoin.ms", 3},
		{"topic add-partitions orders 0", 2},
		{"topic add-partitions orders 1 --total", 1},
		{"topic add-partitions ordesr 1", 3},
		{"topic trim orders --before 1000", 1},
		{"topic trim orders --before 1000 --dry-run", 1},
		{"topic trim orders --before end --partition 7", 3},
		{"topic trim ordesr --before end", 3},
		{"group describe bililng", 3},
		{"group delete bililng", 3},
		{"group export bililng", 3},
		{"group reset bililng --to end", 3},
		{"group reset billing --to nowhere", 2},
		{"group reset billing --topic ordesr --to end", 3},
		{"group reset billing --from-file missing.csv", 3},
		{"group reset billing --from-file bad.csv", 1},
		{"group reset billing --from-file short.csv", 1},
		{"group delete-offsets billing --topic ordesr", 3},
		{"group delete-offsets billing --topic orders --partition 9", 3},
		{"config get --topic ordesr", 3},
		{"config get --topic orders retentoin.ms", 3},
		{"config get --broker 77", 3},
		{"config set --topic orders retentoin.ms=1", 3},
		{"config set --topic orders retention.ms=abc", 1},
		{"config set --broker 77 log.retention.ms=1", 3},
		{"config unset --topic orders nosuch", 3},
		{"config unset --cluster nosuch", 3},
		{"consume ordesr", 3},
		{"consume orders --from nowhere", 2},
		{"consume orders --exit --partition 9", 3},
		{"produce ordesr", 3},
		{"cluster log-level --broker 77", 3},
		{"cluster log-level rot=DEBUG", 3},
		{"cluster log-level root=LOUD", 1},
		{"cluster --bootstrap nonsense:1:2", 2},
		{"cluster --bootstrap ,", 2},
	} {
		line := c.line
		if !strings.Contains(line, "--bootstrap") {
			line += at
		}
		tryVerb(t, dir, "", line).expect(t, c.code)
	}
	if r := tryVerb(t, dir, "", "topic offsets orders -o json"+at); strings.Count(r.stdout, `"end": 2`) != 1 || strings.Contains(r.stdout, `"start": 1`) {
		t.Errorf("the records have changed: %s", r.stdout)
	}
}

// TestEveryVerbAnswersJSON proves that every verb with -o json writes JSON, even if it changes
// something, or only says what it would do.
func TestEveryVerbAnswersJSON(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := up(t, data)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "offsets.csv"), "orders,0,1\n")
	at := " --bootstrap " + p.addr
	tryVerb(t, dir, "", "topic create orders --partitions 1"+at).expect(t, 0)
	tryVerb(t, dir, "a\nb\n", "produce orders"+at).expect(t, 0)
	tryVerb(t, dir, "", "consume orders --group billing --exit"+at).expect(t, 0)
	lines := []string{
		"topic create payments", "topic create payments --if-not-exists", "topic list", "topic list -q", "topic describe orders",
		"topic alter orders --set retention.ms=1000000", "topic alter orders --unset retention.ms --dry-run",
		"topic add-partitions orders 1", "topic offsets orders --at -1h", "topic trim orders --before 1 --partition 0 --dry-run",
		"topic trim orders --before 1 --partition 0", "config get --topic orders", "config get --broker 1", "config get --cluster",
		"config set --topic orders retention.ms=5000000", "config set --cluster log.retention.ms=5000000 --dry-run",
		"config set --broker 1 log.retention.ms=5000000", "config unset --topic orders retention.ms", "config unset --broker 1 log.retention.ms",
		"group list", "group list -q", "group describe billing", "group describe --all-groups", "group export billing",
		"group reset billing --to end --dry-run", "group reset billing --to end", "group reset billing --from-file offsets.csv",
		"group delete-offsets billing --topic orders --partition 0 --dry-run", "group delete-offsets billing --topic orders --partition 0",
		"group delete billing", "cluster", "cluster apis", "cluster log-dirs", "cluster log-level", "cluster log-level root=WARN", "cluster quorum", "cluster finalize", "health", "cluster token --data " + data, "consume orders --from start --exit",
		"bench produce --records 1 --batch 1", "bench consume --records 1 --batch 1", "bench latency --duration 1100ms --rate 100",
		"topic delete payments", "version",
	}
	for _, line := range lines {
		withAt := line + " -o json"
		if line != "version" {
			withAt += at
		}
		r := tryVerb(t, dir, "", withAt)
		r.expect(t, 0)
		values := 0
		for d := json.NewDecoder(strings.NewReader(r.stdout)); ; values++ {
			var v any
			if err := d.Decode(&v); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("leat %s writes no JSON: %v\n%s", r.line, err, r.stdout)
				break
			}
		}
		if values == 0 {
			t.Errorf("leat %s writes nothing", r.line)
		}
	}
	for verb := range verbUses {
		if verb == "cluster remove" || verb == "cluster recover" { // TestRemoveNode and TestRecoverCluster try them, with other nodes
			continue
		}
		if help := tryVerb(t, dir, "", verb+" --help").stdout; !strings.Contains(help, "--output ") {
			continue
		}
		if !slices.ContainsFunc(lines, func(l string) bool { return l == verb || strings.HasPrefix(l, verb+" ") }) {
			t.Errorf("leat %s has --output, but is not tried with it", verb)
		}
	}
}

// TestProduceToCompactedTopic proves that a record without a key that a compacted topic refuses is reported with the
// reason, and that one with a key is accepted.
func TestProduceToCompactedTopic(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	tryVerb(t, t.TempDir(), "", "topic create c --config cleanup.policy=compact --bootstrap "+p.addr).expect(t, 0)
	r := tryVerb(t, t.TempDir(), "no key\n", "produce c --bootstrap "+p.addr)
	r.expect(t, 1)
	if want := "topic c is compacted, so it refuses records without a key: give keys with --key-separator, --key or --json; no record was acknowledged, 1 record was not"; !strings.Contains(r.stderr, want) {
		t.Errorf("it says %q, want %q", r.stderr, want)
	}
	tryVerb(t, t.TempDir(), "k:v\n", "produce c --key-separator : --bootstrap "+p.addr).expect(t, 0)
}

// TestVerbsNoteIneffectiveConfigs proves that verbs that set configs report which of them have no
// effect, in one line and in the JSON, also in a dry run, and that they report nothing otherwise.
func TestVerbsNoteIneffectiveConfigs(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	for _, c := range []struct{ args, says string }{
		{"topic create plain --config retention.ms=100000", ""},
		{"topic create compacted --config cleanup.policy=compact", "topic compacted: compact in cleanup.policy refuses records without a key, and has no other effect yet: it needs compaction"},
		{"topic alter plain --set cleanup.policy=compact,delete --dry-run", "topic plain: compact in cleanup.policy refuses records without a key, and has no other effect yet: it needs compaction"},
		{"topic alter plain --unset cleanup.policy --set segment.bytes=2000000", ""},
		{"config set --topic plain local.retention.ms=5 retention.ms=10", "topic plain: local.retention.ms has no effect yet: it needs tiered storage"},
		{"config set --cluster background.threads=11", "all brokers: background.threads has no effect here, for the reasons in docs/configs.md"},
	} {
		for _, output := range []string{"table", "json"} {
			args := c.args
			if output == "json" {
				args = strings.Replace(args, "create ", "create json-", 1)
			}
			says := c.says
			if strings.Contains(args, "json-") {
				says = strings.Replace(says, "topic ", "topic json-", 1)
			}
			v := runVerb(t, p.addr, append(strings.Fields(args), "-o", output)...)
			if code := v.await(t); code != 0 {
				t.Fatalf("leat %s: exit code %d: %s", args, code, v.err)
			}
			want := ""
			if says != "" {
				want = "note: " + says + "\n"
			}
			if got := v.err.String(); got != want {
				t.Errorf("leat %s says %q, want %q", args, got, want)
			}
			if output == "table" {
				continue
			}
			var got []struct{ Note string }
			if err := json.Unmarshal([]byte(v.out.String()), &got); err != nil || len(got) != 1 || (got[0].Note == "") != (says == "") || !strings.HasSuffix(says, got[0].Note) {
				t.Errorf("leat %s writes %s, %v", args, v.out, err)
			}
		}
	}
}
