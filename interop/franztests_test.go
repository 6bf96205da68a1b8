package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// franzSkips are the tests of franz-go that ask for what is not served yet.
// They are matched as go test -skip matches: by element of the name.
var franzSkips = []struct{ name, reason string }{
	{"TestGroupETL/.*/848", "next-generation groups (KIP-848)"},
	{"Test848RegexBrokerResolves", "next-generation groups (KIP-848)"},
	{"TestShareGroup", "share groups (KIP-932)"},
	{"TestShareGroupETL", "share groups (KIP-932)"},
	{"TestShareGroupAckOnClose", "share groups (KIP-932)"},
	{"TestShareGroupOffsetsAdmin", "share groups (KIP-932)"},
	{"TestConsumeRegexShareSkipsInternal", "share groups (KIP-932)"},
}

// franzRecords is how many records each of its pipelines moves; its own default
// of 500,000 takes minutes on two cores.
const franzRecords = 30_000

// franzKit holds the source of franz-go as the module proxy serves it, in a
// place of its own: its tests write into their folder.
var franzKit = kit{
	name:   "franz-go-source",
	inputs: []string{"go.mod"},
	fill: func(ctx context.Context, dir string) error {
		return copyModule(ctx, "github.com/twmb/franz-go", filepath.Join(dir, "src"))
	},
}

// TestFranzOwnTests proves that the tests by which franz-go's authors check
// their client against Kafka pass against this broker.
func TestFranzOwnTests(t *testing.T) {
	t.Parallel()
	src := filepath.Join(franzKit.have(t), "src")
	b := ownCluster(t, sharedNodes(t)).nodes[0]
	var skips []string
	for _, s := range franzSkips {
		skips = append(skips, strings.ReplaceAll("^"+s.name+"$", "/", "$/^"))
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-count=1", "-vet=off", "-timeout=8m", "-skip", strings.Join(skips, "|"), "./pkg/kgo")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "KGO_SEEDS="+b.addr, "KGO_LOG_LEVEL=none", "GOWORK=off",
		fmt.Sprintf("KGO_TEST_RF=%d", b.factor), fmt.Sprintf("KGO_TEST_RECORDS=%d", franzRecords), "KGO_TEST_MAX_TOPIC_PARTS=11")
	out, err := cmd.CombinedOutput()
	if err != nil {
		var failed strings.Builder
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "--- FAIL") {
				failed.WriteString(line)
			}
		}
		t.Fatalf("go test ./pkg/kgo of franz-go: %v\n%s\n%s", err, failed.String(), out[max(0, len(out)-10_000):])
	}
	// A test that found no broker, or was renamed, would have proved nothing.
	contains(t, string(out), "--- PASS: TestGroupETL/", "--- PASS: TestTxnEtl/", "--- PASS: TestClient_Produce", "--- PASS: TestPauseIssue489")
}
