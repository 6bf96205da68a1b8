package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// choiceSteps are the requests of a walk by which each choice is tried, by the key of its API.
func choiceSteps() map[int16]string {
	return map[int16]string{
		3: "metadata", 8: "commit", 16: "list groups", 19: "create topics", 20: "delete topics", 22: "producer id", 23: "epochs", 27: "markers", 34: "move replicas",
		43: "elect", 45: "reassign", 49: "alter quotas", 61: "producers",
	}
}

// TestExplainIsAsTheBroker proves for each API which accepts one of several rights that a client with none of them, with one by an ACL, and with a
// role is served exactly if auth.Authorizer, which leat acl explain asks, says so; also if the right itself is denied.
func TestExplainIsAsTheBroker(t *testing.T) {
	roles := []meta.Operation{meta.ReaderRole, meta.WriterRole, meta.OperatorRole, meta.AdminRole}
	for _, choice := range auth.Choices() {
		step := choiceSteps()[choice.Key]
		topic := hiddenTopic
		if choice.Needs.Operation == meta.Create {
			topic = absentTopic
		}
		resource := auth.Resource{Type: choice.Needs.On, Name: map[meta.ResourceType]string{meta.TopicResource: topic, meta.GroupResource: hiddenGroup, meta.ClusterResource: meta.ClusterName}[choice.Needs.On]}
		whole, _ := auth.PartOf(choice.Needs.Operation)
		var g *rig
		f := func(what string, prepare func(g *rig)) {
			t.Helper()
			if g == nil {
				g = newSecuredRig(t)
			}
			g.revokeAll()
			explainer, err := auth.New(auth.Config{Image: g.image.Load})
			if err != nil {
				t.Fatal(err)
			}
			if choice.Key == 8 { // a commit needs the group as well
				g.allow(meta.Read, meta.GroupResource, meta.AnyName)
			}
			if choice.Key == 3 { // a topic that a client may not describe is not made, either
				g.allow(meta.Describe, meta.TopicResource, topic)
			}
			prepare(g)
			client := auth.NewClient(auth.Anonymous(), "127.0.0.1")
			want := explainer.Allows(client, choice.Needs.Operation, resource) || slices.ContainsFunc(explainer.Instead(client, whole, resource), func(c auth.Chosen) bool { return c.Key == choice.Key })
			req := walk(t, topic, hiddenGroup)[step]
			versions := versionsOf(g.broker.findAPI(req.Key()), step)
			req.SetVersion(versions[len(versions)-1])
			answer := plain(t, ask[kmsg.Response](dial(t, g.addr), req))
			got := !refusals.MatchString(strings.ReplaceAll(answer, `"ConfigErrorCode":29`, "")) // the configs of a new topic need more
			if choice.Key == 16 {                                                                // a list leaves out what a client may not see
				got = strings.Contains(answer, hiddenGroup)
			}
			if got && slices.Contains([]int16{3, 19, 20}, choice.Key) { // the next one needs the topic to be as it was
				g = nil
			}
			if got != want {
				t.Errorf("%s %s: served %t, explained %t: %s", choice.API, what, got, want, answer)
			}
		}
		f("without a right", func(*rig) {})
		f("by "+choice.Needs.String(), func(g *rig) { g.allow(whole, choice.Needs.On, resource.Name) })
		if choice.Or.Operation != 0 {
			name := meta.ClusterName
			if choice.Or.OnAny {
				name = "some-topic"
			}
			f("by "+choice.Or.String(), func(g *rig) { g.allow(choice.Or.Operation, choice.Or.On, name) })
			f("by "+choice.Or.String()+" without the other one", func(g *rig) {
				g.allow(choice.Or.Operation, choice.Or.On, name)
				g.apply(meta.ACLSet{ACL: meta.ACL{
					Principal: meta.AnyPrincipal, Host: meta.AnyHost, Resource: choice.Needs.On, Pattern: meta.LiteralPattern, Name: resource.Name, Operation: whole, Permission: meta.Deny,
				}})
			})
		}
		for _, role := range roles {
			f("by role "+auth.OperationName(role), func(g *rig) { g.grantRole(role, meta.AnyPrincipal, meta.LiteralPattern, meta.AnyName) })
		}
	}
}

// TestChoicesAreInTheTable proves that each right of a choice is one of its API's in the table of permissions, that no choice is missing of an API that has one,
// and that no other API asks for the right of a choice that says so.
func TestChoicesAreInTheTable(t *testing.T) {
	all := apiPermissions()
	rights := func(key int16) []right {
		if p := all[key]; p.cluster != 0 {
			return append(slices.Clone(p.each), right{p.cluster, meta.ClusterResource})
		}
		return all[key].each
	}
	of := map[int16]bool{}
	for _, c := range auth.Choices() {
		of[c.Key] = true
		needs := right{c.Needs.Operation, c.Needs.On}
		if !slices.Contains(rights(c.Key), needs) || c.Or.Operation != 0 && !slices.Contains(rights(c.Key), right{c.Or.Operation, c.Or.On}) {
			t.Errorf("%s: the table has %v", c.API, rights(c.Key))
		}
		if name := kmsg.NameForKey(c.Key); !strings.EqualFold(name, c.API) && c.Key != 45 { // which the library names otherwise than Kafka
			t.Errorf("%s is %s", c.API, name)
		}
		for key := range all {
			if c.IsAll && slices.Contains(rights(key), needs) && !slices.ContainsFunc(auth.Choices(), func(o auth.Choice) bool { return o.Key == key && o.Needs == c.Needs && o.Or == c.Or }) {
				t.Errorf("%s asks for %s, too", kmsg.NameForKey(key), c.Needs)
			}
		}
	}
	for key := range all {
		hasPart := slices.ContainsFunc(rights(key), func(r right) bool { _, isPart := auth.PartOf(r.op); return isPart })
		if hasPart && !of[key] {
			t.Errorf("%s asks for a part of an operation, and is no choice", kmsg.NameForKey(key))
		}
	}
}
