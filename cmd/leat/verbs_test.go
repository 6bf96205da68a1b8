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
	"txn list":             {"--older-than soon", ""},
	"txn describe":         {"", "app"},
	"txn abort":            {"app --topic t", "app"},
	"config get":           {"", "--topic t"},
	"config set":           {"--topic t retention.ms", "--topic t retention.ms=1"},
	"config unset":         {"--broker many retention.ms", "--topic t retention.ms"},
	"cluster":              {"nope", "-o json"},
	"cluster apis":         {"extra", "-o json"},
	"cluster drain":        {"two", "2"},
	"cluster finalize":     {"extra", "-o json"},
	"cluster log-dirs":     {"extra", "-o json"},
	"cluster log-level":    {"root", "-o json"},
	"cluster quorum":       {"extra", "-o json"},
	"cluster recover":      {"extra", ""},
	"cluster remove":       {"two", ""},
	"cluster token":        {"--for 0s", ""},
	"user create":          {"", "alice"},
	"user rotate":          {"", "alice"},
	"user delete":          {"", "alice"},
	"user list":            {"extra", "-o json"},
	"token create":         {"--for 0s", "-o json"},
	"token list":           {"extra", "-o json"},
	"token renew":          {"", "abc"},
	"token expire":         {"abc --for 0s", "abc"},
	"quota set":            {"--user a producer_byte_rate=fast", "--user a producer_byte_rate=1000"},
	"quota delete":         {"producer_byte_rate", "--user a"},
	"quota list":           {"--user a --user-default", "-o json"},
	"acl grant":            {"alice fly topic t", "alice read topic t*"},
	"acl revoke":           {"alice read sky t", "alice read topic t"},
	"acl list":             {"--resource sky", "--user alice"},
	"acl explain":          {"alice read topic t*", "alice read topic t"},
	"acl suggest":          {"extra", ""},
	"audit list":           {"extra", "-o json"},
	"audit tail":           {"extra", "--since 1h"},
	"audit verify":         {"--anchor 5", "-o json"},
	"role grant":           {"alice king orders*", "alice reader orders*"},
	"role revoke":          {"alice writer group g", "alice reader orders*"},
	"role list":            {"extra", "--user alice"},
	"role describe":        {"king", ""},
	"cert ca":              {"extra", ""},
	"cert client":          {"", ""},
	"cert renew":           {"extra", ""},
	"cert rotate":          {"extra", ""},
	"cert seal-key":        {"extra", ""},
	"cert show":            {"extra", ""},
	"secure":               {"--quiet-for 5m", ""},
	"link create":          {"north", ""},
	"link alter":           {"north", ""},
	"link list":            {"extra", ""},
	"link describe":        {"", ""},
	"link pause":           {"", ""},
	"link resume":          {"", ""},
	"link skip":            {"north orders", ""},
	"link promote":         {"", ""},
	"link failover":        {"", ""},
	"link report":          {"", ""},
	"link restore":         {"", ""},
	"link agent":           {"", ""},
	"link delete":          {"", ""},
	"link doctor":          {"", ""},
	"link tail list":       {"a 0 extra", ""},
	"link tail export":     {"a 0", ""},
	"link tail replay":     {"a 0 --cut 1", ""},
	"link tail discard":    {"a 0", ""},
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
	return tryVerbIn(t, nil, dir, stdin, line)
}

// tryVerbIn is tryVerb with more variables in the environment, as NAME=VALUE.
func tryVerbIn(t *testing.T, variables []string, dir, stdin, line string) ran {
	t.Helper()
	cmd := exec.Command(leat, strings.Fields(line)...)
	cmd.Env = append(os.Environ(), variables...)
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
	return slices.Contains([]string{"topic", "group", "txn", "config", "bench", "user", "token", "quota", "acl", "audit", "role", "cert", "link", "link tail"}, verb)
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
		if use.right != "" || verb == "group list" || verb == "txn list" {
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
	txnClient(t, p.addr, "app", "orders")
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
		"group delete billing", "cluster", "cluster apis", "cluster log-dirs", "cluster log-level", "cluster log-level root=WARN", "cluster quorum", "cluster finalize", "txn list", "txn list -q", "txn describe app", "txn abort app --dry-run", "txn abort app", "health", "cluster token --data " + data, "consume orders --from start --exit",
		"bench produce --records 1 --batch 1", "bench consume --records 1 --batch 1", "bench latency --duration 1100ms --rate 100",
		"secure --status --data " + data, "user create alice", "user rotate alice", "user list", "user delete alice", "quota set --user alice --client-default producer_byte_rate=1000000", "quota list", "quota list --user alice",
		"quota delete --user alice --client-default producer_byte_rate", "topic delete payments", "version",
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
		if slices.Contains([]string{"cluster drain", "cluster remove", "cluster recover"}, verb) || strings.HasPrefix(verb, "acl ") || strings.HasPrefix(verb, "role ") || strings.HasPrefix(verb, "audit ") || strings.HasPrefix(verb, "cert ") || strings.HasPrefix(verb, "token ") || strings.HasPrefix(verb, "link ") { // TestDrainNode, TestRemoveNode, TestRecoverCluster, TestACLVerbs, TestAuditLog, TestSecure, TestTokenVerbs and TestLinkVerbs try them, with other nodes
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

// TestACLVerbs proves that ACLs are granted, explained, listed and revoked, that they decide, and that users are
// managed, also after a restart of the node; and that a node whose settings would protect nothing does not start.
func TestACLVerbs(t *testing.T) {
	t.Parallel()
	const class = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
	data, dir := t.TempDir(), t.TempDir()
	args := []string{"--set", class, "--set", "super.users=User:ANONYMOUS"}
	p := up(t, data, args...)
	at := func() string { return " --bootstrap " + p.addr }
	say := func(line string, code int, wants ...string) {
		t.Helper()
		r := tryVerb(t, dir, "", line+at())
		r.expect(t, code)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s says %q, want %q", r.line, r.stdout+r.stderr, want)
			}
		}
	}
	write(t, filepath.Join(dir, "password"), "secret\nmore\n")
	say("user create alice --password-file password", 0, "created user alice\n")
	say("user create alice", 1, "user alice exists")
	say("user create bob", 0, "not shown again: ")
	say("user create carol --password-file nofile", 3, "nofile does not exist")
	say("user rotate carol", 3, "user carol does not exist")
	say("user delete bob bob", 0, "deleted user bob\n") //nolint:dupword // the second one finds it deleted
	say("user delete bob", 3, "user bob does not exist")
	say("acl grant alice read topic orders*", 0, "ALLOW User:alice READ on topic orders*")
	say("acl grant alice read topic orders-secret --deny --host 10.0.0.1", 0, "DENY User:alice READ")
	say("acl grant Group:staff all cluster -o json", 0, `"principal": "Group:staff"`, `"name": "kafka-cluster"`)
	say("acl explain alice read topic orders-1", 0, "allowed by ALLOW User:alice READ on topic orders*")
	say("acl explain alice describe topic orders-1", 0, "allowed by ALLOW User:alice READ")
	say("acl explain alice read topic orders-secret --host 10.0.0.1", 0, "denied by DENY User:alice")
	say("acl explain alice write topic orders-1 -o json", 0, `"allowed": false`, "no ACL allows it")
	say("acl explain ANONYMOUS write topic orders-1", 0, "super user")
	say("role grant alice writer orders-*", 0, "there is now: role writer of User:alice on topic orders-* from *\n")
	say("role grant group:team-a reader group team-* -o json", 0, `"principal": "Group:team-a"`, `"role": "reader"`, `"resource": "group"`)
	say("acl explain alice write topic orders-1", 0, "allowed by role writer of User:alice on topic orders-* from *")
	say("acl explain alice write topic orders-1 -o json", 0, `"allowed": true`, `"role": "writer"`)
	say("acl explain bob read group team-1", 0, "denied: no ACL")
	say("acl explain bob read group team-1 --group team-a --group x", 0, "allowed by role reader of Group:team-a on group team-*")
	say("acl list --user alice", 0, "orders-secret")
	say("role list", 0, "Group:team-a  reader  group", "User:alice    writer  topic     orders-*")
	say("role list --user alice -o json", 0, `"pattern": "prefixed"`)
	say("role list --topic orders-7", 0, "writer")
	say("role describe", 0, "reader    topic             read, describe", "roles on all topics (*)")
	say("role describe Operator -o json", 0, `"role": "operator"`, `"commit_offsets"`, `"only_for_all_topics": true`)
	say("role list --topic payments -o json", 0, "[]")
	say("role grant alice writer group g", 2, "the role writer has nothing to do with a group by its name")
	say("role grant other:x writer t", 2, "no client is of the type other")
	for line, want := range map[string]string{
		"alice read topic t --host 127.0.0.0/8":          "neither names of hosts nor ranges",
		"alice read topic t --host banana":               "--host banana: write the address",
		"alice read topic ord*ers":                       "a * is only at the end",
		"alice read topic ord*ers*":                      "a * is only at the end",
		"alice read topic a/b":                           "no topic can be called so",
		"User:alice,User:bob read topic t":               "name one user",
		"alice,bob read topic t":                         "name one user",
		"robot:x read topic t":                           "no client is of the type robot",
		"alice read topic t --host 10.0.0.1,::1 -o json": "write the address",
		"alice write group g":                            "write on a group counts for nothing: no request needs it; what counts there is read, delete, describe, describe-configs, alter-configs or all",
		"alice read user bob --deny":                     "what counts there is create-tokens, describe-tokens or all",
	} {
		say("acl grant "+line, 2, want)
	}
	say("role grant alice reader ord*ers", 2, "a * is only at the end")
	say("acl grant olga create cluster", 0)
	say("acl explain olga create topic new", 0, "allowed: CREATE on cluster is enough, which is allowed", "note: User:olga: no such user has a password here")
	say("acl explain olga create topic new -o json", 0, `"allowed": true`, `"api": "CreateTopics"`)
	say("acl grant olga delete cluster", 0)
	say("acl explain olga delete topic t", 0, "denied: no ACL allows it; but DELETE on cluster is enough for DeleteTopics, and is allowed")
	say("role grant olga operator *", 0)
	say("acl explain olga alter-configs cluster", 0, "denied: no ACL allows it; but ALTER_QUOTAS on cluster is enough for AlterClientQuotas, and is allowed")
	say("acl explain olga reassign cluster", 0, "allowed by role operator")
	say("acl explain alice reassign cluster", 0, "denied: no ACL allows it")
	say("acl grant olga reassign cluster", 2, "only roles give alone")
	say("acl grant user:alice create-tokens user two2", 0, "User:alice CREATE_TOKENS on user User:two2 from *")
	say("acl list --resource user --name two2 -o json", 0, `"name": "User:two2"`)
	say("acl revoke alice create-tokens user user:two2", 0, "there is no longer")
	say("acl grant CN=a,OU=b read topic t --host fd00::7", 0, "User:CN=a,OU=b READ on topic t from fd00::7")
	say("acl revoke CN=a,OU=b read topic t --host fd00::7", 0)
	say("acl grant ANONYMOUS read topic t --deny", 0, "note: User:ANONYMOUS: it is in super.users")
	say("acl revoke ANONYMOUS read topic t --deny", 0)
	say("role revoke alice writer orders", 3, "nobody was granted that", "leat role list")
	say("user create dora --password-file password", 0, "created user dora\n")
	say("role grant dora admin *", 0)
	say("user delete dora", 0, "deleted user dora", "note: user dora: the name has 0 ACLs and 1 role")
	say("user create dora --password-file password", 0, "created user dora", "note: user dora: the name has 0 ACLs and 1 role")
	say("user delete dora --revoke -o json", 0, `"revoked": 1`)
	say("role list --user dora -o json", 0, "[]")
	say("acl revoke alice read topic orders", 3, "there is no such ACL")
	say("acl revoke Group:staff all cluster", 0, "there is no longer: ALLOW Group:staff ALL on cluster")
	p.stop(t)
	p = up(t, data, args...)
	say("user list", 0, "alice  SCRAM-SHA-256, SCRAM-SHA-512")
	say("acl list --user alice", 0, "orders*", "orders-secret")
	say("acl list --resource group -o json", 0, "[]")
	say("acl list --name orders-9", 0, "orders*")
	say("role list --user alice", 0, "writer")

	// Now nobody is who may do everything.
	p.stop(t)
	p = up(t, data, "--set", class, "--set", "super.users=User:admin")
	say("topic create orders", 1, "uthorization failed")
	say("acl list", 1, "Cluster authorization failed")
	say("role list", 1, "Cluster authorization failed")
	p.stop(t)
	p = up(t, data)
	say("acl list", 1, "this cluster has no ACLs")
	p.stop(t)
	for _, set := range []string{class, "super.users=User:admin"} {
		r := tryVerb(t, dir, "", "up --http off --data "+data+" --listen "+freeAddr(t)+" --set "+set)
		r.expect(t, 2)
	}
}

// TestProduceToCompactedTopic proves that a record without a key that a compacted topic refuses is reported with the
// reason, that one with a key is accepted, and that the topic is described as a compacted one.
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
	if r := tryVerb(t, t.TempDir(), "", "topic describe c --bootstrap "+p.addr); !strings.Contains(r.stdout, "it is compacted") {
		t.Errorf("topic describe does not tell that the topic is compacted: %s", r.stdout)
	}
	r = tryVerb(t, t.TempDir(), "", "topic trim c --before end --bootstrap "+p.addr)
	r.expect(t, 1)
	if want := `topic c is compacted only, so its records cannot be deleted: write tombstones, or run "leat topic alter c --set cleanup.policy=compact,delete" first`; !strings.Contains(r.stderr, want) {
		t.Errorf("it says %q, want %q", r.stderr, want)
	}
}

// TestVerbsNoteIneffectiveConfigs proves that verbs that set configs report which of them have no
// effect, and what a change to a compacted topic takes away, in one line and in the JSON, also in a dry run, and that they
// report nothing otherwise.
func TestVerbsNoteIneffectiveConfigs(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	for _, c := range []struct{ args, says string }{
		{"topic create plain --config retention.ms=100000", ""},
		{"topic create letters --config errors.deadletterqueue.group.enable=true", "topic letters: errors.deadletterqueue.group.enable has no effect yet: it needs share groups"},
		{"topic create compacted --config cleanup.policy=compact", ""},
		{"topic alter plain --set cleanup.policy=compact,delete --dry-run", "topic plain: records without a key, which it may have, go when it is compacted, and are refused from now on"},
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
