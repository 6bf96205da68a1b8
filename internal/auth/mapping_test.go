package auth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// subjectOf makes a subject of parts, each of which has attributes: a number, a type, and a value.
func subjectOf(tb testing.TB, parts ...[]attribute) []byte {
	tb.Helper()
	var seq []attributeSET
	for _, p := range parts {
		seq = append(seq, p)
	}
	der, err := asn1.Marshal(seq)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func attributeOf(oid []int, tag int, value string) attribute {
	return attribute{oid, asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(value)}}
}

var (
	cn    = []int{2, 5, 4, 3}
	ou    = []int{2, 5, 4, 11}
	dc    = []int{0, 9, 2342, 19200300, 100, 1, 25}
	uid   = []int{0, 9, 2342, 19200300, 100, 1, 1}
	mail  = []int{1, 2, 840, 113549, 1, 9, 1}
	other = []int{2, 5, 4, 5}
)

// TestFormatSubject proves that subjects are written as Java does. TestNamesAgainstKafka compares many with Java itself.
func TestFormatSubject(t *testing.T) {
	f := func(want string, parts ...[]attribute) {
		t.Helper()
		if got, err := FormatSubject(subjectOf(t, parts...)); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	one := func(oid []int, tag int, value string) []attribute { return []attribute{attributeOf(oid, tag, value)} }
	f("CN=alice,OU=people,DC=example,DC=com",
		one(dc, asn1.TagIA5String, "com"), one(dc, asn1.TagIA5String, "example"), one(ou, asn1.TagUTF8String, "people"), one(cn, asn1.TagPrintableString, "alice"))
	f("CN=b+UID=a", []attribute{attributeOf(uid, asn1.TagUTF8String, "a"), attributeOf(cn, asn1.TagUTF8String, "b")})
	f(`CN=\ a\,b\+c\"d\\e\<f\>g\;h\#i\=j\ \ `, one(cn, asn1.TagUTF8String, ` a,b+c"d\e<f>g;h#i=j  `))
	f(`CN=Zo\00ë`, one(cn, asn1.TagUTF8String, "Zo\x00ë"))
	f("1.2.840.113549.1.9.1=#16046140622e", one(mail, asn1.TagIA5String, "a@b."))
	f("2.5.4.5=#130137", one(other, asn1.TagPrintableString, "7"))
	f("CN=#020107", one(cn, asn1.TagInteger, "\x07"))
	f("")
	for _, bad := range []string{"", "x", "\x30\x01", "\x30\x00\x00", "\x30\x02\x31\x00\x05"} {
		if got, err := FormatSubject([]byte(bad)); bad != "" && err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
	name := pkix.Name{CommonName: "alice", Organization: []string{"Leat"}, Country: []string{"AT"}}
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := FormatSubject(der); err != nil || got != "CN=alice,O=Leat,C=AT" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNameRules proves what rules make of names, as Kafka's do. TestNamesAgainstKafka compares many with Kafka itself.
func TestNameRules(t *testing.T) {
	f := func(rules, subject, want string) {
		t.Helper()
		n, err := ParseNameRules(rules)
		if err != nil {
			t.Errorf("%s: %v", rules, err)
			return
		}
		got, err := n.Map(subject)
		if got != want || (want == "") != errors.Is(err, ErrNoRule) {
			t.Errorf("%s of %s: %q, %v; want %q", rules, subject, got, err, want)
		}
	}
	const several = `RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/, RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L, RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U,DEFAULT`
	f(several, "CN=Duke,OU=ServiceUsers,O=Org,C=US", "Duke")
	f(several, "CN=Duke,OU=SME,O=mycp,L=Fulton,ST=MD,C=US", "duke@sme")
	f(several, "cn=duke,OU=JavaSoft,O=Sun Microsystems", "DUKE")
	f(several, "OU=JavaSoft,O=Sun Microsystems,C=US", "OU=JavaSoft,O=Sun Microsystems,C=US")
	f("DEFAULT", "CN=a", "CN=a")
	f("RULE:^CN=(.*)$/$1_svc/", "CN=a", "a_svc")
	f("RULE:^CN=(.*)$/$1/", "OU=a", "")
	f("", "CN=a", "")
	f(`RULE:CN=(.*)/$1@$4/`, "CN=a", "a@$4")
	f(`RULE:CN=(.*)/\$1\//`, "CN=a", "$1/")
	f("RULE:(.*)/u-$1/", "x", "u-xu-") // Java finds the end of the text, too
	f("RULE:^(.*)$/u-$1/", "x", "u-x")
	f("RULE:CN=(?<who>.*)/${who}/", "CN=a", "a")
	f(`RULE:CN=(\w+),O=a\/b/$1/`, "CN=a,O=a/b", "a")
	g := func(rules, want string) {
		t.Helper()
		if _, err := ParseNameRules(rules); !errors.Is(err, errMapping) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", rules, err, want)
		}
	}
	for _, bad := range []string{
		"default", "DEFAUL", "DEFAULT/L", "DEFAULT/U", "RULE:CN=(.*?),OU=ServiceUsers.*/$1", "rule:^CN=(.*?),OU=ServiceUsers.*$/$1/", "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L/U",
		"RULE:^CN=(.*?),OU=ServiceUsers.*$/L", "RULE:^CN=(.*?),OU=ServiceUsers.*$/U", "RULE:^CN=(.*?),OU=ServiceUsers.*$/LU",
	} {
		g(bad, "is no rule")
	}
	g("RULE:CN=(?!admin).*/x/", "look-ahead")
	g("RULE:[a-z&&[^b]]/x/", "intersections")
	g("RULE:CN=(.*)/$/", "without the number of a group")
	g("RULE:CN=.*/$1/", "no group")
	g("RULE:CN=.*/${x}/", "no group of that name")
}

// randomSubject makes a subject of all kinds of attributes and characters.
func randomSubject(tb testing.TB, rnd *rand.Rand) []byte {
	tb.Helper()
	oids := [][]int{cn, cn, ou, dc, uid, mail, other, {2, 5, 4, 6}, {2, 5, 4, 7}, {2, 5, 4, 8}, {2, 5, 4, 9}, {2, 5, 4, 10}, {2, 5, 4, 4}, {1, 2, 3}}
	values := []string{"alice", "Alice B", " x ", "a,b", `a+b"c`, `\`, "#x", "=", "<a>;", "ë", "日本", "a  b", "", " ", "\r", "a\nb", "a/b", "*", "x" + strings.Repeat("y", 40), "a\x00b", "\xff\xfe", "\x00a\x00b"}
	tags := []int{asn1.TagPrintableString, asn1.TagUTF8String, asn1.TagUTF8String, asn1.TagIA5String, asn1.TagT61String, asn1.TagBMPString, asn1.TagGeneralString, 28, asn1.TagNumericString}
	var parts [][]attribute
	for range 1 + rnd.IntN(4) {
		var part []attribute
		for range 1 + rnd.IntN(5)/4 {
			part = append(part, attributeOf(oids[rnd.IntN(len(oids))], tags[rnd.IntN(len(tags))], values[rnd.IntN(len(values))]))
		}
		parts = append(parts, part)
	}
	return subjectOf(tb, parts...)
}

// randomRules makes rules, most of which can be read.
func randomRules(rnd *rand.Rand) string {
	patterns := []string{"^CN=(.*?),.*$", "CN=([^,]+)", ".*", "(.*)", "(.*?)", "^.*CN=([a-zA-Z ]*).*$", "^(CN|OU)=(.*?)(,.*)?$", `.*\/.*`, "(?i)cn=(.*)", "[A-Z]+=(.).*", "(x)?.*", `CN=(\w+)\b.*`, "^$", `.*[+\-].*`, ".*=(.*)"}
	replacements := []string{"$1", "$1@$2", "$2", "x", "", "$0", `\$1`, "$1$1", "$12", "a-$1-b", "$3/", "$", `\`, "${1}", `x\/y`}
	var rules []string
	for range 1 + rnd.IntN(3) {
		if rnd.IntN(6) == 0 {
			rules = append(rules, []string{"DEFAULT", "", "DEFAULT/L", "RULE:x"}[rnd.IntN(4)])
			continue
		}
		rules = append(rules, "RULE:"+patterns[rnd.IntN(len(patterns))]+"/"+replacements[rnd.IntN(len(replacements))]+"/"+[]string{"", "L", "U", "", "X"}[rnd.IntN(5)])
	}
	return strings.Join(rules, []string{",", ", ", " , "}[rnd.IntN(3)])
}

// TestNamesAgainstKafka proves that subjects are written as Java writes them, and that rules make of them what those of the Apache Kafka in
// KAFKA_HOME make.
func TestNamesAgainstKafka(t *testing.T) {
	home := os.Getenv("KAFKA_HOME")
	if home == "" {
		t.Skip("KAFKA_HOME names no Kafka to compare with")
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	type question struct {
		rules   string
		subject []byte
	}
	var asked []question
	var input strings.Builder
	b64 := base64.StdEncoding
	for range 20_000 {
		q := question{randomRules(rnd), randomSubject(t, rnd)}
		asked = append(asked, q)
		input.WriteString(b64.EncodeToString([]byte(q.rules)) + "\t" + b64.EncodeToString(q.subject) + "\n")
	}
	cmd := exec.CommandContext(t.Context(), "java", "-Xmx256m", "-cp", filepath.Join(home, "libs", "*"), filepath.Join("testdata", "Names.java"))
	cmd.Stdin, cmd.Stderr = strings.NewReader(input.String()), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(asked) {
		t.Fatalf("%d answers to %d questions", len(lines), len(asked))
	}
	named := 0
	for i, q := range asked {
		wantSubject, wantName, _ := strings.Cut(lines[i], "\t")
		subject, err := FormatSubject(q.subject)
		got := b64.EncodeToString([]byte(subject))
		if err != nil {
			got = "!"
		}
		if got != wantSubject {
			want, _ := b64.DecodeString(wantSubject)
			t.Errorf("subject %x: %q (%v), Java writes %q", q.subject, subject, err, want)
			continue
		}
		name, got := "", "!"
		n, err := ParseNameRules(q.rules)
		switch {
		case err != nil && (strings.Contains(err.Error(), "the replacement") || strings.Contains(err.Error(), "the pattern")), strings.Contains(subject, "\r"):
			continue // Kafka says so when the rule is used; and no dot of Java's matches a carriage return
		case err == nil:
			if name, err = n.Map(subject); err == nil {
				got = b64.EncodeToString([]byte(name))
				named++
			}
		}
		if got != wantName {
			want, _ := b64.DecodeString(wantName)
			t.Errorf("rules %q of %q: %q (%v), Kafka makes %q", q.rules, subject, name, err, want)
		}
	}
	t.Logf("%d of %d subjects got a name", named, len(asked))
}

// FuzzNameRules proves that no rules and no subject do harm.
func FuzzNameRules(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 50 {
		f.Add(randomRules(rnd), randomSubject(f, rnd))
	}
	f.Fuzz(func(t *testing.T, rules string, der []byte) {
		if len(rules) > 1<<10 || len(der) > 1<<12 {
			return
		}
		subject, err := FormatSubject(der)
		if err != nil {
			subject = string(der)
		}
		n, err := ParseNameRules(rules)
		if err != nil {
			return
		}
		if name, err := n.Map(subject); err == nil && len(name) > mostMappedBytes {
			t.Errorf("a name of %d bytes", len(name))
		}
	})
}
