package auth

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestAgainstKafka proves that the authorizer decides as the StandardAuthorizer of the Apache Kafka in KAFKA_HOME (its jars are in
// libs), for a resource and for any resource of a type. An address in an ACL has Java's form.
func TestAgainstKafka(t *testing.T) {
	home := os.Getenv("KAFKA_HOME")
	if home == "" {
		t.Skip("KAFKA_HOME names no Kafka to compare with")
	}
	type question struct {
		text   string
		answer bool
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	var input strings.Builder
	var asked []question
	for round := range 300 {
		allowUnruled := round%3 == 0
		w := newWorld(t, func(c *Config) { c.SuperUsers, c.AllowUnruled = []Principal{User("root")}, allowUnruled })
		fmt.Fprintf(&input, "R\t%v\n", allowUnruled)
		for range rnd.IntN(12) {
			a := randomACL(rnd)
			if a.Host == "::1" {
				a.Host = "0:0:0:0:0:0:0:1"
			}
			if w.image.ACLs().Has(a) {
				continue
			}
			w.apply(meta.ACLSet{ACL: a})
			fmt.Fprintf(&input, "A\t%s\t%s\t%d\t%d\t%s\t%d\t%d\n", a.Principal, a.Host, a.Resource, a.Pattern, a.Name, a.Operation, a.Permission)
		}
		for range 40 {
			principal := []string{"User:a", "User:b", "User:c", "Group:a", "User:root"}[rnd.IntN(5)]
			p, _ := ParsePrincipal(principal)
			host := []string{"10.0.0.1", "10.0.0.2", "::1"}[rnd.IntN(3)]
			typ := []meta.ResourceType{meta.TopicResource, meta.GroupResource}[rnd.IntN(2)]
			op := meta.Read + meta.Operation(rnd.IntN(13))
			c, name := NewClient(p, host), randomName(rnd, true)
			line := fmt.Sprintf("Q\t%s\t%s\t%d\t%d\t%s", principal, host, op, typ, name)
			answer := w.Allows(c, op, Resource{typ, name})
			if rnd.IntN(3) == 0 {
				line = fmt.Sprintf("T\t%s\t%s\t%d\t%d", principal, host, op, typ)
				answer = w.AllowsAny(c, op, typ)
			}
			input.WriteString(line + "\n")
			asked = append(asked, question{fmt.Sprintf("round %d: %s", round, line), answer})
		}
	}
	cmd := exec.CommandContext(t.Context(), "java", "-Xmx256m", "-cp", filepath.Join(home, "libs", "*"), filepath.Join("testdata", "Authorize.java"))
	cmd.Stdin, cmd.Stderr = strings.NewReader(input.String()), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(asked) {
		t.Fatalf("%d answers to %d questions", len(answers), len(asked))
	}
	allowed := 0
	for i, q := range asked {
		if q.answer != (answers[i] == "1") {
			t.Errorf("%s: we say %v, Kafka %s", q.text, q.answer, answers[i])
		}
		if q.answer {
			allowed++
		}
	}
	if allowed < len(asked)/10 || allowed > len(asked)*9/10 {
		t.Errorf("%d of %d are allowed", allowed, len(asked))
	}
}
