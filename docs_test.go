package leat

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
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
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/storage"
)

// TestGuaranteesAreTested proves that every test that docs/guarantees.md,
// docs/formats.md, docs/compatibility.md, docs/security.md and docs/data-centres.md name exists in its package.
func TestGuaranteesAreTested(t *testing.T) {
	var text []byte
	for _, page := range []string{"docs/guarantees.md", "docs/formats.md", "docs/compatibility.md", "docs/security.md", "docs/data-centres.md"} {
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
		if !strings.Contains(dir, "/") && dir != "interop" {
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

// promises are the sentences of the documents that have a number of the code, made of it. A
// sentence that is not in its document has another number than the code, or was written anew.
func promises(t *testing.T) map[string][]string {
	t.Helper()
	number := func(dir, name string) int64 { return readConstant(t, dir, name) }
	setting := func(name string) int64 {
		n, err := strconv.ParseInt(config.Find(config.Broker, name).Default, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	flush := config.Find(config.Topic, "flush.messages").Default
	stray := int64(config.Millis(setting("leat.stray.retention.ms")) / (24 * time.Hour))
	scrub := map[int64]string{24: "once a day"}[number("internal/storage", "scrubEvery")/int64(time.Hour)]
	return map[string][]string{
		"docs/guarantees.md": {
			fmt.Sprintf("`flush.messages=%s`, and it is the default here", flush),
			fmt.Sprintf("[about %d million](configs.md#memory)", number("internal/node", "maxProducers")/number("internal/storage/producer", "EntryBytes")/1_000_000),
			fmt.Sprintf("after %d seconds or %d MiB", int(storage.PageCacheAge.Seconds()), storage.PageCacheBytes>>20),
			fmt.Sprintf("`leat.stray.retention.ms`, %d days unless set", stray),
			fmt.Sprintf("checks everything %s", scrub),
			fmt.Sprintf("a difference above %d s from the active controller's", number("internal/node", "clockTolerance")/int64(time.Second)),
		},
		"docs/configs.md": {
			fmt.Sprintf("A partition takes about %d KB of memory", number("internal/node", "partitionBytes")>>10),
			fmt.Sprintf("at least %s and at most %d million; topics beyond that", thousands(number("internal/node", "minPartitions")),
				controller.MaxPartitions/1_000_000),
			fmt.Sprintf("which takes at most %d bytes, until", number("internal/storage/producer", "EntryBytes")),
			fmt.Sprintf("sixteenth of the memory that the process may use, at most %d MiB, which is enough for %d million",
				number("internal/node", "maxProducers")>>20, number("internal/node", "maxProducers")/number("internal/storage/producer", "EntryBytes")/1_000_000),
			fmt.Sprintf("have at most %d MiB together", number("internal/controller", "maxConfigBytes")>>20),
			fmt.Sprintf("a metrics subscription has at most %d bytes", number("internal/controller", "maxMetricsName")),
			fmt.Sprintf("less up to %d MiB for other nodes", number("internal/node", "maxPeerMemory")>>20),
		},
		"docs/formats.md": {
			fmt.Sprintf("it was set aside, %d days unless set", stray),
			fmt.Sprintf("the metadata records, of %d kinds", number("internal/meta", "lastTag")),
			fmt.Sprintf("A new directory has level %d", number("internal/meta", "LatestLevel")),
		},
		"docs/monitoring.md": {
			fmt.Sprintf("answers HTTP on `%s`", node.DefaultHTTP),
			fmt.Sprintf("`LEAT_HTTP=%s` lets", strings.TrimPrefix(node.DefaultHTTP, "127.0.0.1")),
			fmt.Sprintf("With fewer than %s connections the node says so at its start; with a limit below %d it does not start",
				thousands(number("internal/node", "fewConnections")), number("internal/node", "minDescriptors")),
			map[int64]string{int64(time.Minute): "begins a minute after the start"}[number("internal/storage", "scrubDelay")] + " and then " + scrub,
			fmt.Sprintf("beyond %[1]d or below -%[1]d |", number("internal/node", "clockTolerance")/int64(time.Second)),
			fmt.Sprintf("(%d MiB a second unless set", setting("leat.scrub.bytes.per.second")>>20),
		},
		"docs/exactly-once.md": {
			fmt.Sprintf("producer may ask for, %d minutes unless set", setting("transaction.max.timeout.ms")/time.Minute.Milliseconds()),
		},
		"ARCHITECTURE.md": {
			fmt.Sprintf("`flush.messages` is %s unless a topic says otherwise", flush),
		},
		"README.md": {
			fmt.Sprintf("a broker on localhost:%d with its data in ./%s", node.DefaultPort, node.DefaultData),
			fmt.Sprintf("--listen :%d opens it to the network", node.DefaultPort),
			fmt.Sprintf("`http://%s`", node.DefaultHTTP),
			fmt.Sprintf("You need Go %s or newer", goVersion(t)),
		},
		"docs/cluster.md": {
			fmt.Sprintf("less than a tenth free, or %d GiB,", number("internal/node", "keptRoom")>>30),
			map[bool]string{true: "A disk is full"}[number("internal/node", "keptRoom") == number("internal/cli", "keptBytes")], // the drain's bound is the cluster's
			map[int64]string{int64(5 * time.Minute / time.Millisecond): "`leat.quorum.voter.away.ms`, five minutes unless set"}[setting("leat.quorum.voter.away.ms")],
		},
		"docs/data-centres.md": {
			fmt.Sprintf("at most %d links, with names of %d characters, %d settings each and %d KiB of settings", number("internal/meta", "MaxLinks"), number("internal/meta", "MaxLinkName"),
				number("internal/meta", "MaxLinkSettings"), number("internal/meta", "MaxLinkSettingBytes")>>10),
			fmt.Sprintf("at most %d tokens for agents", number("internal/meta", "MaxLinkAgents")),
			fmt.Sprintf("given up after %d seconds at most", (number("internal/mirror/tunnel", "pingEvery")+number("internal/mirror/tunnel", "pingTime"))/int64(time.Second)),
			map[int64]string{1 << 20: "a window of its own, a mebibyte"}[number("internal/mirror/tunnel", "streamWindow")],
			map[int64]string{int64(time.Hour): "within `--for`, an hour unless set"}[number("internal/cli", "defaultTokenLife")],
		},
		"docs/commands.md": {
			fmt.Sprintf("| %d | done |", number("internal/cli", "exitOK")),
			fmt.Sprintf("| %d | failed", number("internal/cli", "exitFailed")),
			fmt.Sprintf("| %d | wrong usage", number("internal/cli", "exitUsage")),
			fmt.Sprintf("| %d | a topic, partition, group, config, broker or file that was named does not exist |", number("internal/cli", "exitNotFound")),
			fmt.Sprintf("| %d | no broker could be reached", number("internal/cli", "exitUnreachable")),
			map[int64]string{int64(time.Hour): "It ends after an hour"}[number("internal/cli", "defaultTokenLife")] +
				fmt.Sprintf(", or after the time that `--for` says, up to %d days", number("internal/controller", "maxTokenLife")/int64(24*time.Hour)),
		},
	}
}

// otherNumbers are numbers in the documents that no constant has: values of Kafka's settings and
// protocol, HTTP codes, thresholds of alerts and examples.
var otherNumbers = regexp.MustCompile("`acks=[01]`|`flush.messages` above 1|KIP-[0-9]+|Kafka [0-9.]+|kill -9|\\| (above )?[01] \\||" +
	"\\b(200|503)\\b|ext4")

// TestDocumentsHaveTheCodesNumbers proves that each number which a document promises is that of
// the code, and that the pages with guarantees and alerts have no number that is not read from it.
func TestDocumentsHaveTheCodesNumbers(t *testing.T) {
	all := promises(t)
	for page, sentences := range all {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(string(b)), " ")
		for _, want := range sentences {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q", page, want)
			}
			text = strings.ReplaceAll(text, want, "")
		}
		if page != "docs/guarantees.md" && page != "docs/monitoring.md" {
			continue
		}
		text = regexp.MustCompile("`[a-z/]+\\.(Test|Fuzz)[A-Za-z0-9]+`").ReplaceAllString(text, "")
		text = otherNumbers.ReplaceAllString(text, "")
		if at := regexp.MustCompile(`[0-9]`).FindStringIndex(text); at != nil {
			t.Errorf("%s has a number that promises does not read from the code: ... %s ...", page, text[max(0, at[0]-60):min(len(text), at[1]+60)])
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

// readConstant reads a constant from the source of a package: a number, or a time in nanoseconds.
func readConstant(t *testing.T, dir, name string) int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, id := range v.Names {
					if id.Name == name && i < len(v.Values) {
						return evaluate(t, dir, v.Values[i])
					}
				}
			}
		}
	}
	t.Fatalf("%s has no constant %s", dir, name)
	return 0
}

// evaluate computes a constant expression as they stand in this house.
func evaluate(t *testing.T, dir string, e ast.Expr) int64 {
	t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.ParseInt(e.Value, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	case *ast.Ident:
		return readConstant(t, dir, e.Name)
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}
		if n := units[e.Sel.Name]; n > 0 {
			return int64(n)
		}
	case *ast.BinaryExpr:
		x, y := evaluate(t, dir, e.X), evaluate(t, dir, e.Y)
		switch e.Op {
		case token.MUL:
			return x * y
		case token.SHL:
			return x << y
		case token.ADD:
			return x + y
		default: // not in a constant that a document names
		}
	}
	t.Fatalf("%s: %T is more than this test can compute", dir, e)
	return 0
}

// TestProgramsAreAsShown proves that the code in docs/exactly-once.md is in the programs that the page names, which
// interop.TestExactlyOncePrograms runs.
func TestProgramsAreAsShown(t *testing.T) {
	page, err := os.ReadFile("docs/exactly-once.md")
	if err != nil {
		t.Fatal(err)
	}
	withoutIndents := func(text []byte) string {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		return strings.Join(lines, "\n")
	}
	shown := regexp.MustCompile("(?s)\\]\\(\\.\\./(interop/examples/[^)]+)\\).*?```[a-z]+\n(.*?)```").FindAllSubmatch(page, -1)
	if len(shown) != 3 {
		t.Fatalf("%d programs are shown", len(shown))
	}
	for _, m := range shown {
		program, err := os.ReadFile(string(m[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(withoutIndents(program), withoutIndents(m[2])) {
			t.Errorf("%s does not have the code that is shown", m[1])
		}
	}
}

// thousands writes a number below a million as documents do.
func thousands(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// goVersion is the Go release that go.mod asks for, without the patch.
func goVersion(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(b))[1]
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
	_, walks, _ := strings.Cut(string(b), "## Eight walks")
	walks, _, _ = strings.Cut(walks, "\n## ")
	dirs := map[string]string{"journal": "internal/storage/journal", "segment": "internal/storage/segment", "progress": "internal/replica/progress"}
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
