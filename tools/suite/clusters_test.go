package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/tools/suite/server"
)

// TestKafkaProperties proves that the nodes of Kafka's cluster know of each other, and that each has a
// directory, an id and ports of its own.
func TestKafkaProperties(t *testing.T) {
	places := []server.Place{{Dir: "/a", Addr: "127.0.0.1:1"}, {Dir: "/b", Addr: "127.0.0.1:2"}, {Dir: "/c", Addr: "127.0.0.1:3"}}
	files, err := kafkaProperties(places)
	if err != nil {
		t.Fatal(err)
	}
	voters := regexp.MustCompile(`(?m)^controller\.quorum\.voters=1@(\S+),2@(\S+),3@(\S+)$`).FindStringSubmatch(files[0])
	if len(files) != 3 || len(voters) != 4 || len(slices.Compact(slices.Sorted(slices.Values(voters[1:])))) != 3 {
		t.Fatal(files)
	}
	for i, text := range files {
		for _, want := range []string{
			"node.id=" + string(rune('1'+i)), voters[0], "listeners=PLAINTEXT://" + places[i].Addr + ",CONTROLLER://" + voters[i+1],
			"log.dirs=" + places[i].Dir + "/log",
		} {
			if !slices.Contains(strings.Split(text, "\n"), want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
	}
}

// TestClusterOptions proves how often faults are injected: less often into Apache Kafka, and a fifth as often by
// the quick suite, but once at least; in one round, whatever the suite's rounds are.
func TestClusterOptions(t *testing.T) {
	at := func(name string) *row {
		all := rows()
		return &all[slices.IndexFunc(all, func(w row) bool { return w.name == name })]
	}
	for _, test := range []struct {
		row, program string
		quick        bool
		faults       int
	}{
		{row: clusterKill, program: programLeatThree, faults: 20},
		{row: clusterKill, program: programKafkaThree, faults: 10},
		{row: clusterKill, program: programLeatThree, quick: true, faults: 4},
		{row: clusterKill, program: programKafkaThree, quick: true, faults: 2},
		{row: clusterSilence, program: programLeatThree, quick: true, faults: 1},
	} {
		w := at(test.row)
		s := &suite{rounds: 5, bytes: 1 << 30, quick: test.quick}
		o := s.options(w, nil, &contender{program: test.program})
		if o.Faults != test.faults || o.Replication != 3 || !slices.Contains(o.Configs, "min.insync.replicas=2") {
			t.Errorf("%+v: %+v", test, o)
		}
		if first, last := s.roundsOf(w); first != 1 || last != 1 {
			t.Errorf("rounds %d to %d", first, last)
		}
	}
	if o := (&suite{bytes: 1 << 30, quick: true}).options(at(clusterCatchUp), nil, &contender{}); o.Records != 4<<20/5 {
		t.Errorf("the quick suite catches up %d records", o.Records)
	}
}
