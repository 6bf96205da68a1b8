package cli

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runOn runs the program with the node at an address, and checks with which code it ends.
func runOn(t *testing.T, address, data, line, input string, code int) (out, errs string) {
	t.Helper()
	var o, e strings.Builder
	args := append(strings.Fields(line), "--bootstrap", address)
	if data != "" {
		args = append(args, "--data", data)
	}
	if got := Main(t.Context(), args, strings.NewReader(input), &o, &e); got != code {
		t.Fatalf("leat %s ends with %d, want %d:\n%s%s", line, got, code, o.String(), e.String())
	}
	return o.String(), e.String()
}

// TestSitesArePromoted proves with two real clusters that a topic is promoted without a loss while its source answers, and that a failover works when the source was killed: clients then write here what continues the
// records of the source, the report says what was known of it, and the link can be deleted.
func TestSitesArePromoted(t *testing.T) {
	dir := t.TempDir()
	there, stopThere, err := startLocalNode(t.Context(), nodeOptions{data: filepath.Join(dir, "there")})
	if err != nil {
		t.Fatal(err)
	}
	isThere := true
	killThere := func() {
		if isThere {
			isThere = false
			if err := stopThere(); err != nil {
				t.Error(err)
			}
		}
	}
	defer killThere()
	data := filepath.Join(dir, "here")
	here, stopHere, err := startLocalNode(t.Context(), nodeOptions{data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stopHere(); err != nil {
			t.Error(err)
		}
	}()
	for _, topic := range []string{"orders", "web"} {
		runOn(t, there, "", "topic create "+topic+" --partitions 2", "", exitOK)
		runOn(t, there, "", "produce "+topic, strings.Repeat("a line\n", 50), exitOK)
	}
	runOn(t, here, data, "link create north --from "+there+" --topics orders --topics web", "", exitOK)
	describe := func() (d describedLink) {
		t.Helper()
		out, _ := runOn(t, here, data, "link describe north -o json", "", exitOK)
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	ends := func() (sum int64) {
		for _, p := range describe().PartitionList {
			if p.End != nil && p.State == stateMirroring {
				sum += *p.End
			}
		}
		return sum
	}
	for limit := time.Now().Add(2 * time.Minute); ends() != 100; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%+v", describe().PartitionList)
		}
	}
	if _, errs := runOn(t, here, "", "produce web", "not here\n", exitFailed); !strings.Contains(errs, "policy") {
		t.Errorf("a mirror takes a record: %s", errs)
	}
	if _, errs := runOn(t, here, data, "link failover north web --yes", "", exitFailed); !strings.Contains(errs, `"leat link promote north web"`) {
		t.Errorf("the source answers: %s", errs)
	}
	check := func(out string, topics int) {
		t.Helper()
		var r promotion
		if err := json.Unmarshal([]byte(out), &r); err != nil || !r.Done || len(r.Topics) != topics || len(r.Partitions) != 2*topics {
			t.Fatalf("%v: %s", err, out)
		}
		for _, p := range r.Partitions {
			if p.Records == nil || *p.Records != 0 || p.Bytes == nil || *p.Bytes != 0 || p.SourceEnd == nil || *p.SourceEnd != *p.MirrorEnd || p.Seconds == nil || p.LastContact == nil || p.AsOf == nil || p.Was != stateMirroring {
				t.Errorf("%+v", p)
			}
			if p.AsOf != nil && p.LastContact != nil && p.AsOf.After(*p.LastContact) {
				t.Errorf("it is complete as of %v, and has heard last at %v", p.AsOf, p.LastContact)
			}
		}
	}
	out, _ := runOn(t, here, data, "link promote north web --yes --wait 2m --timeout 2m -o json", "", exitOK)
	check(out, 1)
	runOn(t, here, "", "produce web", "here\nhere, too\n", exitOK)
	killThere()
	gone := time.Now()
	out, _ = runOn(t, here, data, "link failover north --yes --timeout 2m -o json", "", exitOK)
	check(out, 1)
	var r promotion
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Topics[0] != "orders" || r.Partitions[0].LastContact == nil || r.Partitions[0].LastContact.After(gone.Add(time.Second)) {
		t.Errorf("the source was gone at %v: %s", gone, out)
	}
	runOn(t, here, "", "produce orders", "here\n", exitOK)
	for topic, want := range map[string]int{"orders": 51, "web": 52} {
		if out, _ := runOn(t, here, "", "consume "+topic+" --from start --exit", "", exitOK); strings.Count(out, "\n") != want {
			t.Errorf("%s has %d records, want %d", topic, strings.Count(out, "\n"), want)
		}
	}
	if out, _ := runOn(t, here, data, "link failover north --yes", "", exitOK); !strings.Contains(out, "2 topics of link north: promoted before, and nothing was changed") {
		t.Errorf("said again: %s", out)
	}
	if out, _ := runOn(t, here, data, "link report north orders", "", exitOK); !strings.Contains(out, "all records are here that the source was known to have, in 2 partitions") {
		t.Error(out)
	}
	runOn(t, here, data, "link delete north", "", exitOK)
}
