//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/node"
)

// The archives of secured nodes have the data directory "data" and the file "data.key" of the sealing key. All keys and passwords in them are of these tests
// alone, and protect nothing. Their certificate authorities are good until December 2036.

// securedFormats are the settings of the nodes. Their tokens do not end before the tests do.
var securedFormats = append([]string{
	"--http", "off", "--set", "delegation.token.secret.key=a key of the tests of formats",
	"--set", "delegation.token.max.lifetime.ms=3153600000000", "--set", "delegation.token.expiry.time.ms=3153600000000",
}, formatSettings...)

// securedSight is what an administrator sees of a secured node, and with what clients log in.
type securedSight struct {
	Shown     map[string]json.RawMessage // by the verb, with -o json
	Authority string                     // the certificates to trust, as PEM
	Records   []string
	Password  string // of alice
	Token     string // the lines of a client.properties, without those about addresses and certificates
}

// securedVerbs show all that a secured node keeps of security.
func securedVerbs() []string {
	return []string{"user list", "acl list", "role list", "quota list", "token list"}
}

// securedFormat is a secured node of an archive.
type securedFormat struct {
	t    *testing.T
	root string
	p    *process
}

func (f *securedFormat) data() string { return filepath.Join(f.root, "data") }

// up starts the node, and writes how its administrator logs in to admin.properties.
func (f *securedFormat) up(args ...string) {
	f.t.Helper()
	f.p = launch(f.t, f.data(), freeAddr(f.t), append(args, securedFormats...)...)
	eventually(f.t, "the node says that it is secured", func() bool { return strings.Contains(f.p.out.String(), "his cluster is secured") })
	login, err := node.ReadFirstLogin(filepath.Join(f.data(), "first-login.properties"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.writeLogin("admin", fmt.Sprintf("sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=%q password=%q;\n", login.Name, login.Password))
}

// writeLogin writes a client.properties.
func (f *securedFormat) writeLogin(name, lines string) {
	f.t.Helper()
	write(f.t, filepath.Join(f.root, name+".properties"), "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\nssl.truststore.location="+filepath.Join(f.data(), "ca.pem")+"\n"+lines)
}

// as runs a verb as a user who has a client.properties.
func (f *securedFormat) as(user, line string, code int) string {
	f.t.Helper()
	r := tryVerb(f.t, f.root, "k", line+" --client-config "+user+".properties -b "+f.p.addr)
	r.expect(f.t, code)
	return r.stdout
}

// look reads all that an administrator sees.
func (f *securedFormat) look() (s securedSight) {
	f.t.Helper()
	s.Shown = map[string]json.RawMessage{}
	for _, verb := range securedVerbs() {
		s.Shown[verb] = json.RawMessage(f.as("admin", verb+" -o json", 0))
	}
	s.Authority = readText(f.t, filepath.Join(f.data(), "ca.pem"))
	login, err := node.ReadFirstLogin(filepath.Join(f.data(), "first-login.properties"))
	if err != nil {
		f.t.Fatal(err)
	}
	cl := securedClient(f.t, filepath.Join(f.data(), "ca.pem"), login, f.p.addr)
	ends, err := kadm.NewClient(cl).ListEndOffsets(f.t.Context(), "orders")
	if err != nil {
		f.t.Fatal(err)
	}
	end, _ := ends.Lookup("orders", 0)
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().At(0)}})
	for int64(len(s.Records)) < end.Offset {
		fetches := cl.PollFetches(f.t.Context())
		if err := fetches.Err(); err != nil {
			f.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { s.Records = append(s.Records, string(r.Value)) })
	}
	return s
}

// onlyAs leaves out of what is shown now the fields that were not shown then.
func onlyAs(then, now any) any {
	switch then := then.(type) {
	case map[string]any:
		of, _ := now.(map[string]any)
		kept := map[string]any{}
		for name, value := range then {
			if is, ok := of[name]; ok {
				kept[name] = onlyAs(value, is)
			}
		}
		return kept
	case []any:
		of, _ := now.([]any)
		if len(of) != len(then) {
			return now
		}
		kept := make([]any, len(of))
		for i := range of {
			kept[i] = onlyAs(then[i], of[i])
		}
		return kept
	}
	return now
}

// TestWriteSecuredDirectories writes the directories that TestEarlierSecuredDirectories reads. It does so only if the environment asks for it, as
// TestWriteDirectories does.
func TestWriteSecuredDirectories(t *testing.T) {
	version := os.Getenv("LEAT_TEST_WRITE_FORMATS")
	if version == "" {
		t.Skip("LEAT_TEST_WRITE_FORMATS names no version to write")
	}
	for _, how := range []string{"stopped", "killed"} {
		name := filepath.Join(formats, "secured", version+"-"+how)
		if _, err := os.Stat(name + ".json"); err == nil {
			t.Fatalf("%s is there: a directory of an earlier version is never written anew", name)
		}
		f := &securedFormat{t: t, root: t.TempDir()}
		f.up("--secure")
		const password = "a password of the tests of formats"
		write(t, filepath.Join(f.root, "password"), password+"\n")
		f.as("admin", "topic create orders --partitions 1 --config retention.ms=-1", 0)
		for range 3 {
			f.as("admin", "produce orders", 0)
		}
		f.as("admin", "user create alice --password-file password", 0)
		f.as("admin", "acl grant alice read topic ord*", 0)
		f.as("admin", "acl grant bob write topic orders --deny --host 10.0.0.1", 0)
		f.as("admin", "role grant alice writer pay-*", 0)
		f.as("admin", "role grant group:team operator *", 0)
		f.as("admin", "quota set --user alice producer_byte_rate=1000000", 0)
		f.as("admin", "quota set --client-default controller_mutation_rate=100", 0)
		made := f.as("admin", "token create --owner alice --renewer bob --renewer carol", 0)
		f.as("admin", "token create", 0)
		seen := f.look()
		seen.Password = password
		for line := range strings.Lines(made) {
			if strings.HasPrefix(line, "sasl.jaas.config=") {
				seen.Token = line
			}
		}
		if how == "killed" {
			f.p.kill()
		} else {
			f.p.stop(t)
		}
		for _, scratch := range []string{"password", "admin.properties"} {
			if err := os.Remove(filepath.Join(f.root, scratch)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := json.MarshalIndent(seen, "", " ")
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(name+".json", append(b, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		pack(t, f.root, name+".tar.gz")
	}
}

// TestEarlierSecuredDirectories proves the promise about formats for what a secured cluster keeps, from level 6 of the metadata on: a node with the directory and the sealing
// key that an earlier version has left, by a clean stop or by a kill, has its users, ACLs, roles, quotas, delegation tokens and records; a user and a token log
// in; and the certificate authority is the same, and signs.
func TestEarlierSecuredDirectories(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob(filepath.Join(formats, "secured", "*.tar.gz"))
	if err != nil || len(names) < 2 {
		t.Fatalf("%d directories: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			var want securedSight
			if err := json.Unmarshal([]byte(readText(t, strings.TrimSuffix(name, ".tar.gz")+".json")), &want); err != nil {
				t.Fatal(err)
			}
			f := &securedFormat{t: t, root: t.TempDir()}
			unpack(t, name, f.root)
			f.up("--sealing-key", filepath.Join(f.root, "data.key")) // it was elsewhere
			check := func(when string) {
				t.Helper()
				got := f.look()
				for verb, shown := range want.Shown {
					var a, b any
					if err := json.Unmarshal(shown, &a); err != nil {
						t.Fatal(err)
					}
					if err := json.Unmarshal(got.Shown[verb], &b); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(a, onlyAs(a, b)); diff != "" {
						t.Errorf("%s, leat %s: (-was +is)\n%s", when, verb, diff)
					}
				}
				if diff := cmp.Diff(want.Records, got.Records); diff != "" || got.Authority != want.Authority {
					t.Errorf("%s: authority\n%s\nand was\n%s\nrecords: (-was +is)\n%s", when, got.Authority, want.Authority, diff)
				}
			}
			check("at the first start")
			f.writeLogin("alice", fmt.Sprintf("sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"alice\" password=%q;\n", want.Password))
			f.writeLogin("token", want.Token)
			for _, user := range []string{"alice", "token"} {
				if said := f.as(user, "topic list", 0); !strings.Contains(said, "orders") {
					t.Errorf("%s sees %s", user, said)
				}
				f.as(user, "topic delete orders", 1)
			}
			tryVerb(t, f.root, "", "cert client alice --out alice.pem --data "+f.data()).expect(t, 0)
			verifyChain(t, filepath.Join(f.data(), "ca.pem"), filepath.Join(f.root, "alice.pem"), "sslclient")
			f.p.kill()
			f.up()
			check("after a kill")
			f.as("admin", "role revoke group:team operator *", 0)
			f.as("admin", "user delete alice", 0)
			tryVerb(t, f.root, "", "cert rotate --data "+f.data()).expect(t, 0)
			f.p.stop(t)
			f.up()
			if said := f.as("admin", "role list", 0); strings.Contains(said, "team") || !strings.Contains(said, "User:alice") {
				t.Errorf("the roles are %s", said)
			}
			f.as("alice", "topic list", 1)
		})
	}
}
