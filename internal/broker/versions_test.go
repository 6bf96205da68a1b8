package broker

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/txn"
)

var writeProtocol = flag.Bool("write", false, "write docs/protocol.md from the table of APIs")

const (
	goldenVersions = "testdata/kafka-4.4.0-versions.txt"
	protocolPage   = "../../docs/protocol.md"
)

// The reasons why an API of Kafka's is not served.
const (
	noNextGroups  = "The next generation of groups (KIP-848) comes later. A client that may choose finds it missing and uses a classic group."
	noShareGroups = "Share groups (KIP-932) come later."
	noStreams     = "Groups of Kafka Streams (KIP-1071) come later. Streams uses a classic group unless it is told otherwise."
)

// unserved are the APIs that Kafka 4.4.0 advertises and we do not, with the reasons.
func unserved() map[int16]string {
	return map[int16]string{
		68: noNextGroups,
		76: noShareGroups, 78: noShareGroups, 79: noShareGroups,
		83: noShareGroups, 84: noShareGroups, 85: noShareGroups, 86: noShareGroups, 87: noShareGroups,
		90: noShareGroups, 91: noShareGroups, 92: noShareGroups,
		88: noStreams, 93: noStreams,
	}
}

// remarks say for served APIs what they do not do.
func remarks() map[int16]string {
	empty := "There are no groups of this kind yet: GROUP_ID_NOT_FOUND."
	return map[int16]string{
		10: "Coordinators of groups and of transactions; others are refused with INVALID_REQUEST.",
		17: "ILLEGAL_SASL_STATE on a listener that asks for no login, and after a login that has no end, as in Kafka.",
		22: "Two-phase commits (KIP-939) are not served.",
		27: "Coordinators of transactions use it, and administrators, who end transactions that hang.",
		29: "SECURITY_DISABLED without an authorizer, as in Kafka.", 30: "SECURITY_DISABLED without an authorizer.", 31: "SECURITY_DISABLED without an authorizer. A request has at most 1,000 filters.",
		34: "A node has one data directory; any other is LOG_DIR_NOT_FOUND.",
		38: "For clients that have logged in, and not with a token. Needs `delegation.token.secret.key`, else DELEGATION_TOKEN_AUTH_DISABLED, and level 6 of `leat.metadata`. An owner who is no user is refused with INVALID_PRINCIPAL_TYPE. [Limits](security.md#delegation-tokens).",
		39: "As CreateDelegationToken.", 40: "As CreateDelegationToken.", 41: "As CreateDelegationToken. A token that was made with another key than the node's has no secret.",
		48: "[Quotas](quotas.md).", 49: "Addresses of hosts are not resolved: an `ip` entity is an IP address, in whatever form. Needs level 5 of `leat.metadata`.",
		57: "Raises the level of leat.metadata, and changes that of transaction.version; there is one level of each other feature.",
		64: "A broker that is running is not taken out: POLICY_VIOLATION. Kafka 4.3 takes it out of all in-sync sets without a look, and it registers again: nothing is won, and partitions lose a replica, or their leader, meanwhile.",
		66: "A pattern that is very long when its repeats are written out is refused with INVALID_REGULAR_EXPRESSION.",
		69: empty, 77: empty, 89: empty,
		80: "The cluster itself chooses the voters of its metadata: UNSUPPORTED_VERSION, as in Kafka where they are fixed.", 81: "UNSUPPORTED_VERSION.",
	}
}

// kafkasVersions are the APIs that Apache Kafka 4.4.0 advertises. With LEAT_TEST_KAFKA
// they are asked of it.
func kafkasVersions(t *testing.T) []kmsg.ApiVersionsResponseApiKey {
	t.Helper()
	if addr := os.Getenv("LEAT_TEST_KAFKA"); addr != "" {
		keys := ask[*kmsg.ApiVersionsResponse](dial(t, addr), at(0, kmsg.NewPtrApiVersionsRequest())).ApiKeys
		slices.SortFunc(keys, func(a, b kmsg.ApiVersionsResponseApiKey) int { return int(a.ApiKey) - int(b.ApiKey) })
		var b strings.Builder
		for _, k := range keys {
			fmt.Fprintln(&b, k.ApiKey, k.MinVersion, k.MaxVersion)
		}
		if *recordKafka {
			if err := os.WriteFile(goldenVersions, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return keys
	}
	text, err := os.ReadFile(goldenVersions)
	if err != nil {
		t.Fatal(err)
	}
	var keys []kmsg.ApiVersionsResponseApiKey
	for line := range strings.Lines(string(text)) {
		var k kmsg.ApiVersionsResponseApiKey
		if _, err := fmt.Sscan(line, &k.ApiKey, &k.MinVersion, &k.MaxVersion); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		keys = append(keys, k)
	}
	return keys
}

// everyAPI are the APIs of a node that serves all that this version can, by their keys.
func everyAPI() map[int16]api {
	b := &Broker{cfg: Config{Groups: &group.Service{}, Txns: &txn.Service{}, Controller: &controller.Controller{}}}
	all := map[int16]api{}
	for _, list := range [][]api{coreAPIs(), groupAPIs(b), txnAPIs(b), adminAPIs(b), missingAPIs(b)} {
		for _, a := range list {
			all[a.key] = a
		}
	}
	return all
}

// TestAPIsAreKafkas proves that we advertise the APIs and the versions that Apache Kafka
// 4.4.0 advertises, that each difference has a reason, and that docs/protocol.md lists them.
// With -write it writes the list.
func TestAPIsAreKafkas(t *testing.T) {
	theirs, ours := kafkasVersions(t), everyAPI()
	var known []int16
	for _, k := range theirs {
		known = append(known, k.ApiKey)
		a, served := ours[k.ApiKey]
		why := unserved()[k.ApiKey]
		switch {
		case !served && why == "":
			t.Errorf("%s (%d) is not served, without a reason", kmsg.NameForKey(k.ApiKey), k.ApiKey)
		case served && why != "":
			t.Errorf("%s is served, but has a reason for which it is not: %s", a.name, why)
		case served && (a.advertise().MinVersion != k.MinVersion || a.max != k.MaxVersion):
			t.Errorf("%s: versions %d to %d, Kafka has %d to %d", a.name, a.advertise().MinVersion, a.max, k.MinVersion, k.MaxVersion)
		}
	}
	for key, a := range ours {
		if !slices.Contains(known, key) {
			t.Errorf("Kafka has no %s (%d)", a.name, key)
		}
	}
	for key := range unserved() {
		if !slices.Contains(known, key) {
			t.Errorf("Kafka has no API %d either", key)
		}
	}
	want := protocolText(theirs, ours)
	if *writeProtocol {
		if err := os.WriteFile(protocolPage, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("run: go test ./internal/broker -run TestAPIsAreKafkas -write\n%s", d)
	}
}

func protocolText(theirs []kmsg.ApiVersionsResponseApiKey, ours map[int16]api) string {
	var b strings.Builder
	b.WriteString(`# The protocol

A client of Apache Kafka 2.1 or later can use Leat: it speaks the versions of Kafka's protocol that Apache Kafka 4.4 speaks, and advertises the same
APIs to its clients but for those that the second table names. An API of something that Leat does not have yet, such as several data directories, is answered as
Apache Kafka answers it where that is not set up, and never pretends to have done something.

## What is served

| key | API | versions | remarks |
|---|---|---|---|
`)
	for _, k := range theirs {
		if a, ok := ours[k.ApiKey]; ok {
			v := a.advertise()
			fmt.Fprintf(&b, "| %d | %s | %d to %d | %s |\n", a.key, a.name, v.MinVersion, v.MaxVersion, remarks()[a.key])
		}
	}
	b.WriteString("\n## Requests that change the cluster\n\n" +
		"Any node of a cluster serves them. A node that is not the active controller sends such a request on to the one that is, and answers when it shows the change itself: a topic that was\n" +
		"created is in the answer to a request for metadata that follows. If nobody decides within the time-out of the request, and at most in a minute, its answer has REQUEST_TIMED_OUT: the change\n" +
		"may have been made all the same. A request whose answer is lost when the active controller ends is decided again by the next one, as in Kafka, and may find that it was carried out\n" +
		"(TOPIC_ALREADY_EXISTS). A request is refused with POLICY_VIOLATION, before anything is done, if its answer might have no room in the memory of the node that was asked.\n")
	b.WriteString("\n## What Apache Kafka 4.4 serves and Leat does not\n\n| key | API | reason |\n|---|---|---|\n")
	for _, k := range theirs {
		if why, ok := unserved()[k.ApiKey]; ok {
			fmt.Fprintf(&b, "| %d | %s | %s |\n", k.ApiKey, kmsg.NameForKey(k.ApiKey), why)
		}
	}
	fmt.Fprintf(&b, "\nThe keys %d to %d are for the nodes of a cluster among each other. They, and the requests that only brokers send in Apache Kafka, are advertised to nobody,\n"+
		"and end a connection that has not proven to be a node's as an unknown key does.\n", peer.FirstKey, peer.LastKey)
	b.WriteString("\nGetTelemetrySubscriptions and PushTelemetry (71, 72) are advertised by neither, as long as nothing collects clients' metrics.\n")
	fmt.Fprintf(&b, "\n## Notes about configs\n\nThe answer to CreateTopics, AlterConfigs or IncrementalAlterConfigs has a tagged field of its own, number %d, in a topic or resource for which a\n"+
		"config was set that has no effect here: a line of text in UTF-8. It comes with the versions that have tagged fields (5, 2 and 1 on). Clients skip it; the verbs of\n"+
		"`leat` print it.\n", config.NoteTag)
	fmt.Fprintf(&b, "\nThe answer to DescribeCluster (2) has a field of the same number in a broker that is about to stop, whose leaders are moving to other brokers: the text `%s`.\n"+
		"The answer itself has one, a sentence, if nodes belong to the cluster that are not registered.\n", config.LeavingNote)
	return b.String()
}
