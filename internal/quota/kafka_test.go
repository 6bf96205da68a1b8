package quota

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestAgainstKafka proves that clients are throttled for as long as by the quota managers of the Apache Kafka in KAFKA_HOME
// (its jars are in libs): random uses of some users and client ids, while quotas of all forms change.
func TestAgainstKafka(t *testing.T) {
	home := os.Getenv("KAFKA_HOME")
	if home == "" {
		t.Skip("KAFKA_HOME names no Kafka to compare with")
	}
	type question struct {
		text   string
		answer int64
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	var input strings.Builder
	var asked []question
	pick := func(names ...string) string { return names[rnd.IntN(len(names))] }
	for round := range 200 {
		windows := Windows{Number: 1 + rnd.IntN(12), Millis: 1000 * (1 + rnd.Int64N(3))}
		w := newWorld(Config{Windows: windows, MutationWindows: windows})
		fmt.Fprintf(&input, "N\t%d\t%d\n", windows.Number, windows.Millis/1000)
		now := int64(1_000_000_000_000) // so that Kafka's buckets begin full, too
		set := func() {
			kind, user, client := Kind(rnd.IntN(Kinds)), pick("", "*", "u", "v"), pick("", "*", "c", "d")
			if user == "" && client == "" {
				return
			}
			limit := math.Floor(math.Exp(rnd.Float64()*8)) * float64(rnd.IntN(5)/1)
			fmt.Fprintf(&input, "S\t%d\t%s\t%s\t%v\n", kind, user, client, limit)
			w.change(entityOf(user, client), kind.Key(), limit)
		}
		for range rnd.IntN(12) {
			set()
		}
		for range 60 {
			if rnd.IntN(10) == 0 {
				// What has no quota has no sensor here, so Kafka may remember more: let its windows pass.
				pass := 2 * windows.span() * 10
				fmt.Fprintf(&input, "T\t%d\n", pass)
				now += pass
				set()
			}
			if rnd.IntN(2) == 0 {
				pass := rnd.Int64N(2500)
				fmt.Fprintf(&input, "T\t%d\n", pass)
				now += pass
			}
			kind, user, client := Kind(rnd.IntN(Kinds)), pick("u", "v", "w"), pick("c", "d", "e", "")
			value := math.Floor(math.Exp(rnd.Float64() * 10))
			o, verb := w.Owner(nil, user, client), "U"
			var answer int64
			switch {
			case kind == Mutation:
				strict := rnd.IntN(2) == 0
				if verb = "P"; strict {
					verb = "M"
				}
				answer = w.Mutate(o, int(value), strict, now)
			case kind == Fetch && rnd.IntN(4) == 0:
				verb = "F"
				answer = min(w.MostFetch(o), math.MaxInt32)
			case kind == Fetch:
				value = min(value, float64(w.MostFetch(o))) // more would be sent here, and never there
				answer, _ = w.UseFetch(o, value, now)
			default:
				answer = w.Use(o, kind, value, now)
			}
			line := fmt.Sprintf("%s\t%d\t%s\t%s\t%v", verb, kind, user, client, value)
			input.WriteString(line + "\n")
			asked = append(asked, question{fmt.Sprintf("round %d, ms %d: %s", round, now, line), answer})
			if kind == Fetch && verb == "U" && answer > 0 {
				fmt.Fprintf(&input, "B\t%d\t%s\t%s\t%v\n", kind, user, client, value)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), "java", "-Xmx256m", "-cp", filepath.Join(home, "libs", "*"), filepath.Join("testdata", "Throttle.java"))
	cmd.Stdin, cmd.Stderr = strings.NewReader(input.String()), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(asked) {
		t.Fatalf("%d answers to %d questions", len(answers), len(asked))
	}
	throttled := 0
	for i, q := range asked {
		kafka, err := strconv.ParseInt(answers[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if q.answer != kafka {
			t.Errorf("%s: we say %d, Kafka %d", q.text, q.answer, kafka)
		}
		if q.answer > 0 {
			throttled++
		}
	}
	if throttled < len(asked)/10 || throttled > len(asked)*9/10 {
		t.Errorf("%d of %d are throttled", throttled, len(asked))
	}
}
