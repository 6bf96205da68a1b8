package node

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// kafkaCase is a case of testdata/kafka-4.3.1-addresses.txt.
type kafkaCase struct {
	pairs []string // names and values in turns
	kafka string   // what Kafka says of them
	leat  string   // what a node says if that is something else
	why   string   // the paragraph of docs/configs.md with the reason
}

func readKafkaCases(t *testing.T) (cases []kafkaCase) {
	t.Helper()
	b, err := os.ReadFile("testdata/kafka-4.3.1-addresses.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		last := len(cases) - 1
		if verdict, ok := strings.CutPrefix(line, "\tkafka "); ok {
			cases[last].kafka = verdict
		} else if verdict, ok := strings.CutPrefix(line, "\tleat "); ok {
			verdict, why, _ := strings.Cut(verdict, " [")
			cases[last].leat, cases[last].why = verdict, strings.TrimSuffix(why, "]")
		} else if line != "" && line[0] != '#' {
			var c kafkaCase
			for pair := range strings.SplitSeq(line, " ; ") {
				if name, value, ok := strings.Cut(pair, "="); ok {
					c.pairs = append(c.pairs, name, value)
				}
			}
			cases = append(cases, c)
		}
	}
	return cases
}

// judge is what a node says of settings, in the form of Kafka's verdicts. Only what the settings
// name is shown, since the defaults differ; all is shown if they name nothing.
func judge(pairs []string) string {
	cfg, err := combine(pairs...)
	if err != nil {
		return "refuses: " + err.Error()
	}
	a, err := planAddresses(&cfg)
	if err != nil {
		return "refuses: " + err.Error()
	}
	listen := []string{}
	for _, e := range a.listen {
		listen = append(listen, e.kafkaForm())
	}
	id := "1"
	if cfg.ID != nil {
		id = strconv.Itoa(int(*cfg.ID))
	}
	return fmt.Sprintf("accepts: listeners %s advertised %s inter %s id %s dirs %s", joinOrNone(listen), joinOrNone(cfg.Advertise), a.names[0], id, cfg.Data)
}

func joinOrNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ",")
}

// comparablePart is the part of a verdict that a node must share: whether the settings are accepted,
// and what they become, as far as they are named.
func comparablePart(verdict string, pairs []string) string {
	kind, rest, _ := strings.Cut(verdict, ": ")
	if kind == "refuses" {
		return kind
	}
	words := strings.Fields(rest)
	for i := 0; i+1 < len(words); i += 2 {
		var names []string
		switch words[i] {
		case "listeners":
			names = []string{"listeners"}
		case "advertised":
			names = []string{"advertised.listeners"}
		case "dirs":
			names = []string{"log.dir", "log.dirs"}
		case "inter", "id":
			kind += " " + words[i] + " " + words[i+1]
			continue
		}
		if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(pairs, name) }) {
			kind += " " + words[i] + " " + words[i+1]
		}
	}
	return kind
}

// TestSettingsAreJudgedAsByKafka proves that addresses, numbers and directories are accepted or
// refused as Apache Kafka does, and become the same, except where docs/configs.md has a paragraph
// with the reason.
func TestSettingsAreJudgedAsByKafka(t *testing.T) {
	page, err := os.ReadFile("../../docs/configs.md")
	if err != nil {
		t.Fatal(err)
	}
	cases := readKafkaCases(t)
	if len(cases) < 130 {
		t.Errorf("only %d cases", len(cases))
	}
	used := map[string]bool{}
	for _, c := range cases {
		if c.kafka == "" {
			t.Errorf("%q has no verdict of Kafka", c.pairs)
			continue
		}
		got := judge(c.pairs)
		want := comparablePart(c.kafka, c.pairs)
		if c.leat == "" {
			if comparablePart(got, c.pairs) != want {
				t.Errorf("%q\n\tkafka %s\n\tleat  %s", c.pairs, c.kafka, got)
			}
			continue
		}
		used[c.why] = true
		if comparablePart(got, c.pairs) == want {
			t.Errorf("%q is judged as by Kafka after all", c.pairs)
		}
		if c.why == "" || !strings.Contains(string(page), "\n- **"+c.why+".** ") {
			t.Errorf("%q: docs/configs.md has no paragraph %q", c.pairs, c.why)
		}
		if text, ok := strings.CutPrefix(c.leat, "refuses: "); ok && (!strings.HasPrefix(got, "refuses: ") || !strings.Contains(got, text)) || !ok && got != c.leat {
			t.Errorf("%q\n\twant %s\n\tgot  %s", c.pairs, c.leat, got)
		}
	}
	if len(used) < 5 {
		t.Errorf("only the reasons %v are used", used)
	}
}
