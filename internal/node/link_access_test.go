package node

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// withAuthorizer are settings by which there are ACLs, and who does not log in administrates.
func withAuthorizer() map[string]string {
	return map[string]string{"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS"}
}

func newSiteWithACLs(t *testing.T, nodes int) *site {
	t.Helper()
	s := &site{&machines{t: t, settings: withAuthorizer()}}
	s.begin(nodes)
	return s
}

// createACLs makes ACLs as a person does.
func createACLs(t *testing.T, cl *kgo.Client, acls ...meta.ACL) {
	t.Helper()
	q := kmsg.NewPtrCreateACLsRequest()
	for _, a := range acls {
		q.Creations = append(q.Creations, kmsg.CreateACLsRequestCreation{
			Principal: a.Principal, Host: a.Host, ResourceName: a.Name, ResourceType: kmsg.ACLResourceType(a.Resource),
			ResourcePatternType: kmsg.ACLResourcePatternType(a.Pattern), Operation: kmsg.ACLOperation(a.Operation), PermissionType: kmsg.ACLPermissionType(a.Permission),
		})
	}
	r, err := q.RequestWith(deadline(t), cl)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Results {
		if err := kerr.ErrorForCode(r.Results[i].ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}

// deleteACLs removes ACLs as a person does.
func deleteACLs(t *testing.T, cl *kgo.Client, acls ...meta.ACL) {
	t.Helper()
	q := kmsg.NewPtrDeleteACLsRequest()
	for _, a := range acls {
		q.Filters = append(q.Filters, kmsg.DeleteACLsRequestFilter{
			Principal: &a.Principal, Host: &a.Host, ResourceName: &a.Name, ResourceType: kmsg.ACLResourceType(a.Resource),
			ResourcePatternType: kmsg.ACLResourcePatternType(a.Pattern), Operation: kmsg.ACLOperation(a.Operation), PermissionType: kmsg.ACLPermissionType(a.Permission),
		})
	}
	r, err := q.RequestWith(deadline(t), cl)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Results {
		if err := kerr.ErrorForCode(r.Results[i].ErrorCode); err != nil || len(r.Results[i].MatchingACLs) != 1 {
			t.Fatalf("%v: %d ACLs match", err, len(r.Results[i].MatchingACLs))
		}
	}
}

// setQuota sets a quota as a person does; 0 removes it.
func setQuota(t *testing.T, cl *kgo.Client, kind, name, key string, value float64) {
	t.Helper()
	op := kadm.AlterClientQuotaOp{Key: key, Value: value, Remove: value == 0}
	set, err := kadm.NewClient(cl).AlterClientQuotas(deadline(t), []kadm.AlterClientQuotaEntry{{Entity: kadm.ClientQuotaEntity{{Type: kind, Name: &name}}, Ops: []kadm.AlterClientQuotaOp{op}}})
	if err != nil || len(set) != 1 || set[0].Err != nil {
		t.Fatal(set, err)
	}
}

func allowance(principal string, op meta.Operation, resource meta.ResourceType, name string) meta.ACL {
	return meta.ACL{Principal: principal, Host: meta.AnyHost, Resource: resource, Pattern: meta.LiteralPattern, Name: name, Operation: op, Permission: meta.Allow}
}

// linkVerb asks a node for something about the link, which must not be refused.
func (s *site) linkVerb(verb cluster.LinkVerb, settings ...meta.LinkSetting) {
	s.t.Helper()
	a, refused, err := s.any().linking.ServeLink(deadline(s.t), &cluster.LinkRequest{Verb: verb, Name: "north", Settings: settings})
	if err != nil || refused != nil || len(a.Problems) > 0 {
		s.t.Fatalf("%s: %+v, %v, %v", verb, a, refused, err)
	}
}

// compareNow has the tasks of the link begin anew, which compare all at once then.
func (s *site) compareNow() {
	s.t.Helper()
	s.linkVerb(cluster.LinkPause)
	s.linkVerb(cluster.LinkResume)
}

// awaitAccess waits until a site has these ACLs and quotas, as texts, and no others.
func (s *site) awaitAccess(what string, acls []string, quotas map[string]float64) {
	s.t.Helper()
	var gotACLs []string
	var gotQuotas map[string]float64
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%s: %q and %v, and not %q and %v", what, gotACLs, gotQuotas, acls, quotas)
			s.logMirrors()
		}
	}()
	slices.Sort(acls)
	eventually(s.t, what, func() bool {
		img := s.any().image.Load()
		gotACLs, gotQuotas = nil, map[string]float64{}
		for a := range img.ACLs().All() {
			gotACLs = append(gotACLs, auth.FormatACL(&a))
		}
		for e, set := range img.Quotas().ByEntity {
			for key, value := range set {
				gotQuotas[e.User.Name+"/"+e.ClientID.Name+" "+string(key)] = value
			}
		}
		slices.Sort(gotACLs)
		return slices.Equal(gotACLs, acls) && maps.Equal(gotQuotas, quotas)
	})
}

// awaitAudited waits until the audit log has events of these types, of what the link has done.
func (s *site) awaitAudited(types ...audit.Type) {
	s.t.Helper()
	eventually(s.t, fmt.Sprint("the audit log has ", types, " of the link"), func() bool {
		done := map[audit.Type]bool{}
		for _, line := range readAuditTopic(s.t, s.client()) {
			if l, err := audit.ParseLine(line); err == nil && bytes.Contains(line, []byte(`"link":"north"`)) {
				done[l.Type] = true
			}
		}
		return !slices.ContainsFunc(types, func(one audit.Type) bool { return !done[one] })
	})
}

// checkAccess proves, with a source that has ACLs and quotas and the topic orders, that a link follows them by the names that there are here, and over restarts never takes or gives back what people have decided here in between.
func checkAccess(t *testing.T, ports []string, there *kgo.Client, nodes int) {
	t.Helper()
	const in, out = "producer_byte_rate", "consumer_byte_rate"
	app, group := allowance("User:app", meta.Read, meta.TopicResource, "orders"), allowance("User:app", meta.Read, meta.GroupResource, "g")
	etl := allowance("User:etl", meta.Write, meta.TopicResource, "orders")
	deny := allowance("User:app", meta.Write, meta.TopicResource, "orders")
	deny.Permission = meta.Deny
	createACLs(t, there, app, group, etl, deny, allowance("User:app", meta.Describe, meta.ClusterResource, meta.ClusterName), allowance("User:app", meta.Read, meta.TopicResource, "other"))
	setQuota(t, there, "user", "app", in, 1_000_000)
	setQuota(t, there, "client-id", "etl", out, 2_000_000)

	here := newSiteWithACLs(t, nodes)
	own := allowance("User:local", meta.Read, meta.TopicResource, "mine")
	createACLs(t, here.client(), own)
	here.linkTo(ports, map[string]string{"topics": "orders", "prefix": "north.", "acls": "on", "quotas": "on", "principals.map": "User:app=User:north-app"})
	const (
		mine, ofApp, ofGroup = "ALLOW User:local READ on topic mine from *", "ALLOW User:north-app READ on topic north.orders from *", "ALLOW User:north-app READ on group g from *"
		ofETL, denied        = "ALLOW User:etl WRITE on topic north.orders from *", "DENY User:north-app WRITE on topic north.orders from *"
	)
	here.awaitAccess("the ACLs and quotas are here", []string{mine, ofApp, ofGroup, ofETL, denied}, map[string]float64{"north-app/ " + in: 1_000_000, "/etl " + out: 2_000_000})
	eventually(t, "it is said what is not followed", func() bool {
		for i, n := range here.nodes {
			for _, task := range n.linking.ListTasks() {
				if task.Task == "acls" && strings.Contains(strings.Join(task.Notes, " "), "DESCRIBE on cluster kafka-cluster from * is about the source itself") {
					return here.nodes[i] != nil
				}
			}
		}
		return false
	})

	here.awaitAudited(audit.ACLCreated, audit.QuotaChanged) // before the node stops, which may be before it has made the topic of the audit log

	hereApp, hereETL := app, etl
	hereApp.Principal, hereApp.Name, hereETL.Name = "User:north-app", "north.orders", "north.orders"
	deleteACLs(t, here.client(), hereETL)
	createACLs(t, here.client(), hereApp) // the very same that the link has made
	setQuota(t, here.client(), "user", "north-app", in, 1_000_000)
	deleteACLs(t, there, app, group)
	createACLs(t, there, allowance("User:late", meta.Read, meta.TopicResource, "orders"))
	setQuota(t, there, "user", "app", in, 5)
	setQuota(t, there, "client-id", "etl", out, 0)
	for i := range here.nodes {
		here.stop(i)
		here.start(i, Config{})
	}
	here.compareNow()
	const late = "ALLOW User:late READ on topic north.orders from *"
	here.awaitAccess("the source's changes are here, and people's stay", []string{mine, ofApp, denied, late}, map[string]float64{"north-app/ " + in: 1_000_000})

	deleteACLs(t, there, deny)
	createACLs(t, there, app) // again, and what a person has asked for is as it was
	here.compareNow()
	here.awaitAccess("what was denied is not", []string{mine, ofApp, late}, map[string]float64{"north-app/ " + in: 1_000_000})

	here.awaitAudited(audit.ACLDeleted)

	here.linkVerb(cluster.LinkPause)
	if _, err := kadm.NewClient(here.client()).DeleteTopic(deadline(t), "north.orders"); err != nil {
		t.Fatal(err)
	}
	id := here.any().image.Load().Links().FindName("north").ID
	if here.any().image.Load().LinkAccess(id).Len() == 0 {
		t.Error("the link has made nothing")
	}
	here.linkVerb(cluster.LinkDelete)
	here.awaitAccess("the link is gone, and what it has made is not", []string{mine, ofApp, late}, map[string]float64{"north-app/ " + in: 1_000_000})
	if here.any().image.Load().LinkAccess(id) != nil {
		t.Error("something is a link's that is gone")
	}
}

// TestLinkFollowsAccess proves with two clusters that a link follows ACLs and quotas, and leaves alone what people do with them here, over restarts; and that what it has made stays when it is removed.
func TestLinkFollowsAccess(t *testing.T) {
	there := newSiteWithACLs(t, 1)
	there.create("orders", 1, nil)
	checkAccess(t, there.ports, there.client(), 1)
}

// TestLinkFollowsAccessOfKafka proves the same of an Apache Kafka as the source, in a cluster of three nodes.
func TestLinkFollowsAccessOfKafka(t *testing.T) {
	k := newKafkaWith(t, 1, "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n")
	if _, err := kadm.NewClient(k.client()).CreateTopic(deadline(t), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	checkAccess(t, k.ports, k.client(), 3)
}
