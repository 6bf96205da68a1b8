package mirror_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
)

// fakeAccess is the ACLs and quotas of a fakeCluster, guarded by its mutex.
type fakeAccess struct {
	acls       func() []meta.ACL // nil: none
	aclError   int16
	quotas     map[meta.QuotaID]float64
	ofUnknown  bool // there is a quota of a kind that nobody knows
	quotaError int16
}

func (c *fakeCluster) describeACLs(q *kmsg.DescribeACLsRequest) *kmsg.DescribeACLsResponse {
	r := kmsg.NewPtrDescribeACLsResponse()
	if r.ErrorCode = c.aclError; r.ErrorCode != 0 || c.acls == nil {
		return r
	}
	wantsRoles := meta.Operation(q.Operation) == meta.AnyRole
	for _, a := range c.acls() {
		if a.Operation.IsRole() != wantsRoles {
			continue
		}
		one := kmsg.NewDescribeACLsResponseResourceACL()
		one.Principal, one.Host, one.Operation, one.PermissionType = a.Principal, a.Host, kmsg.ACLOperation(a.Operation), kmsg.ACLPermissionType(a.Permission)
		of := kmsg.NewDescribeACLsResponseResource()
		of.ResourceType, of.ResourcePatternType, of.ResourceName = kmsg.ACLResourceType(a.Resource), kmsg.ACLResourcePatternType(a.Pattern), a.Name
		of.ACLs = append(of.ACLs, one)
		r.Resources = append(r.Resources, of)
	}
	return r
}

func (c *fakeCluster) describeQuotas() *kmsg.DescribeClientQuotasResponse {
	r := kmsg.NewPtrDescribeClientQuotasResponse()
	if r.ErrorCode = c.quotaError; r.ErrorCode != 0 {
		return r
	}
	add := func(key string, value float64, parts ...kmsg.DescribeClientQuotasResponseEntryEntity) {
		r.Entries = append(r.Entries, kmsg.DescribeClientQuotasResponseEntry{Entity: parts, Values: []kmsg.DescribeClientQuotasResponseEntryValue{{Key: key, Value: value}}})
	}
	for id, value := range c.quotas {
		var parts []kmsg.DescribeClientQuotasResponseEntryEntity
		for kind, n := range map[string]meta.QuotaName{"user": id.Entity.User, "client-id": id.Entity.ClientID, "ip": id.Entity.IP} {
			part := kmsg.DescribeClientQuotasResponseEntryEntity{Type: kind}
			if n.Name != "" {
				part.Name = &n.Name
			}
			if n.Is {
				parts = append(parts, part)
			}
		}
		add(string(id.Key), value, parts...)
	}
	if c.ofUnknown {
		add("producer_byte_rate", 1, kmsg.DescribeClientQuotasResponseEntryEntity{Type: "team"})
	}
	return r
}

// setACLs sets the ACLs of the source.
func (r *rig) setACLs(acls ...meta.ACL) {
	r.source.change(func() { r.source.acls = func() []meta.ACL { return acls } })
}

func aclOf(permission meta.Permission, principal string, op meta.Operation, resource meta.ResourceType, name string) meta.ACL {
	a := meta.ACL{Principal: principal, Host: meta.AnyHost, Resource: resource, Pattern: meta.LiteralPattern, Name: name, Operation: op, Permission: permission}
	if text, isPrefix := strings.CutSuffix(name, "-*"); isPrefix {
		a.Pattern, a.Name = meta.PrefixedPattern, text+"-"
	}
	return a
}

func allows(principal string, resource meta.ResourceType, name string) meta.ACL {
	return aclOf(meta.Allow, principal, meta.Read, resource, name)
}

// aclsHere are the ACLs here as sentences, in order.
func (r *rig) aclsHere() (list []string) {
	for a := range r.image.Load().ACLs().All() {
		list = append(list, auth.FormatACL(&a))
	}
	slices.Sort(list)
	return list
}

// awaitACLs waits until these are all ACLs here, and stay so.
func (r *rig) awaitACLs(want ...string) {
	r.Helper()
	last := []string(nil)
	defer func() {
		if r.Failed() {
			r.Logf("the ACLs are %q, and not %q; %+v", last, want, r.task("acls"))
		}
	}()
	r.await("the ACLs are here", func() bool { last = r.aclsHere(); return slices.Equal(last, want) })
	time.Sleep(3 * time.Minute)
	synctest.Wait()
	if last = r.aclsHere(); !slices.Equal(last, want) {
		r.Fatalf("the ACLs are %q, and not %q", last, want)
	}
}

// pairsOf are settings of a link.
func pairsOf(pairs ...string) (list []meta.LinkSetting) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, meta.LinkSetting{Key: pairs[i], Value: pairs[i+1]})
	}
	return list
}

// alter changes settings of the link; "" unsets one.
func (r *rig) alter(pairs ...string) {
	r.Helper()
	c := &controller.LinkChange{Settings: map[string]*string{}}
	for i := 0; i < len(pairs); i += 2 {
		if c.Settings[pairs[i]] = nil; pairs[i+1] != "" {
			c.Settings[pairs[i]] = &pairs[i+1]
		}
	}
	r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: c})
}

// TestACLsFollowTheSource proves that ACLs of a source for mirrored topics and for groups are here, by the names that topics and principals have here, that those which the source drops are removed, unless one
// of its brokers still tells of them, that those of others are not touched, and that without an answer nothing changes.
func TestACLsFollowTheSource(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.create("web", 1, 2)
		r.source.create("secret", 1, 3)
		own := allows("User:local", meta.TopicResource, "mine")
		r.apply(meta.Append(nil, meta.ACLSet{ACL: own}))
		mine := auth.FormatACL(&own)
		orders, group := allows("User:app", meta.TopicResource, "orders"), allows("User:app", meta.GroupResource, "g")
		role := aclOf(meta.Allow, "User:ops", meta.ReaderRole, meta.TopicResource, "web")
		r.setACLs(orders, group, role, allows("User:app", meta.TopicResource, "secret"), allows("User:root", meta.TopicResource, "orders"), allows("User:app", meta.GroupResource, "other"),
			aclOf(meta.Deny, "User:app", meta.Write, meta.TopicResource, "web"), aclOf(meta.Allow, "User:app", meta.Create, meta.ClusterResource, meta.ClusterName), aclOf(meta.Allow, "User:app", 16, meta.TopicResource, "web"))
		r.link(pairsOf("topics", "*", "exclude", "secret", "prefix", "x.", "rename", "web=www", mirror.TagSetting, "7", "acls", "on", "principals", "User:*", "principals.exclude", "User:root",
			"principals.map", "User:app=User:north-app", "acls.groups", "*", "acls.groups.exclude", "other")...)
		deny, first := "DENY User:north-app WRITE on topic www from *", "ALLOW User:north-app READ on topic x.orders from *"
		ofGroup, ofRole := "ALLOW User:north-app READ on group g from *", "role reader of User:ops on topic www from *"
		r.awaitACLs(mine, ofGroup, first, deny, ofRole)
		if s := r.task("acls"); s.State != mirror.TaskRunning || len(s.Notes) != 2 || !strings.Contains(s.Notes[0], "CREATE on cluster kafka-cluster from * is about the source itself") || !strings.Contains(s.Notes[1], "operation 16") {
			r.Errorf("%+v", s)
		}
		ofCluster := aclOf(meta.Allow, "User:app", meta.Create, meta.ClusterResource, meta.ClusterName)
		all, few, asked := []meta.ACL{orders, group, role, ofCluster}, []meta.ACL{group, role, ofCluster}, 0 // asked is guarded by the source's mutex
		r.source.change(func() {
			r.source.acls = func() []meta.ACL { // one of two brokers is behind
				if asked++; asked%4 < 2 { // ACLs and roles
					return few
				}
				return all
			}
		})
		r.awaitACLs(mine, ofGroup, first, ofRole)
		if s := r.task("acls"); len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "is about the source itself") {
			r.Errorf("%q", s.Notes)
		}
		r.setACLs(few...)
		r.awaitACLs(mine, ofGroup, ofRole)

		r.source.change(func() { r.source.aclError = kerr.SecurityDisabled.Code })
		r.await("there is no authorizer", func() bool { return strings.Contains(r.task("acls").Reason, "no authorizer") })
		r.source.change(func() { r.source.aclError = kerr.ClusterAuthorizationFailed.Code })
		r.await("the right is missing", func() bool {
			s := r.task("acls")
			return s.State == mirror.TaskWaiting && strings.Contains(s.Reason, "lacks the right DESCRIBE of the cluster")
		})
		r.awaitACLs(mine, ofGroup, ofRole)
		r.source.change(func() { r.source.aclError = 0 })
		r.alter("acls", "")
		r.setACLs(orders)
		r.awaitACLs(mine, ofGroup, ofRole) // off: what is here stays
		if s := r.task("acls"); s.Task != "" || r.task("topics").State != mirror.TaskRunning {
			r.Errorf("%+v", s)
		}
		r.alter("acls", "on")
		r.awaitACLs(mine, first) // and is the link's again
	})
}

// TestACLsOfPeopleStay proves that an ACL that a person has removed is not made again, that one that a person has asked for, too, is not removed, and that those for topics that were promoted stay.
func TestACLsOfPeopleStay(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.create("web", 1, 2)
		a, b, c := allows("User:a", meta.TopicResource, "orders"), allows("User:b", meta.TopicResource, "orders"), allows("User:c", meta.TopicResource, "web")
		r.setACLs(a, b, c, allows("User:d", meta.TopicResource, "orders"))
		r.link(pairsOf("topics", "*", "acls", "on")...)
		texts := []string{auth.FormatACL(&a), auth.FormatACL(&b), auth.FormatACL(&c), "ALLOW User:d READ on topic orders from *"}
		r.awaitACLs(texts...)
		r.apply(meta.Append(meta.Append(nil, meta.ACLUnset{ACL: a}), meta.LinkACLSet{Link: linkID, LinkACL: meta.LinkACL{ACL: b, IsShared: true}}))
		r.awaitACLs(texts[1:]...)
		if s := r.task("acls"); !strings.Contains(s.Reason, texts[0]+" was removed here, and the link does not add it again.") {
			r.Errorf("%+v", s)
		}
		web := r.image.Load().Topic("web")
		promoted := *web.Mirror
		promoted.State = meta.MirrorPromoting
		p := meta.PartitionMirrorSet{Topic: web.ID, PartitionMirror: *web.Partitions[0].Mirror}
		p.State = meta.PartitionPromoted
		r.apply(meta.Append(meta.Append(nil, meta.MirrorSet{Topic: web.ID, Mirror: &promoted}), p))
		promoted.State = meta.MirrorPromoted
		r.apply(meta.Append(nil, meta.MirrorSet{Topic: web.ID, Mirror: &promoted}))
		r.setACLs(allows("User:other", meta.TopicResource, "web"), allows("User:e", meta.TopicResource, "orders"))
		r.awaitACLs(texts[1], texts[2], "ALLOW User:e READ on topic orders from *")
		if n := r.image.Load().LinkAccess(linkID).Len(); n != 1 {
			r.Errorf("the link has %d ACLs", n)
		}
		r.apply(meta.Append(meta.Append(nil, meta.TopicDeleted{ID: r.image.Load().Topic("orders").ID}), meta.LinkRemoved{ID: linkID}))
		time.Sleep(time.Minute)
		if synctest.Wait(); len(r.aclsHere()) != 3 {
			r.Errorf("%q", r.aclsHere())
		}
	})
}

// TestNothingMoreIsAllowed proves that no ACL that allows something is made while one that denies cannot be.
func TestNothingMoreIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refuses atomic.Bool
		refuses.Store(true)
		r := newRig(t, func(c *mirror.Config) {
			c.IsController = func() bool { return true }
			ask := c.ChangeLinks
			c.ChangeLinks = func(ctx context.Context, q *controller.LinksChange) ([]*controller.Error, *controller.Error, error) {
				if refuses.Load() && len(q.ACLs) > 0 && q.ACLs[0].ACL.Permission == meta.Deny {
					return []*controller.Error{{Kind: controller.PolicyViolation, Message: "No room."}}, nil, nil
				}
				return ask(ctx, q)
			}
		})
		r.source.create("orders", 1, 1)
		r.setACLs(allows("User:a", meta.TopicResource, "orders"), aclOf(meta.Deny, "User:a", meta.Write, meta.TopicResource, "orders"))
		r.link(pairsOf("topics", "*", "acls", "on")...)
		r.await("it is refused", func() bool { return strings.Contains(r.task("acls").Reason, "It is refused to add DENY User:a") })
		r.awaitACLs()
		refuses.Store(false)
		r.awaitACLs("ALLOW User:a READ on topic orders from *", "DENY User:a WRITE on topic orders from *")
	})
}

// TestLinksShareACLs proves that an ACL that two links make stays until neither source has it.
func TestLinksShareACLs(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		other := meta.UUID{15: 78}
		a := allows("User:a", meta.TopicResource, "orders")
		r.must(&controller.LinksChange{Kind: controller.CreateLink, Link: &meta.Link{ID: other, Name: "other", Source: "elsewhere", Paused: true}})
		r.must(&controller.LinksChange{Kind: controller.ChangeLinkACLs, LinkID: other, ACLs: []controller.LinkACL{{Action: controller.AddAccess, ACL: a}}})
		r.setACLs(a)
		r.link(pairsOf("topics", "*", "acls", "on")...)
		r.await("both have it", func() bool { return r.image.Load().LinkAccess(linkID).Len() == 1 })
		r.must(&controller.LinksChange{Kind: controller.ChangeLinkACLs, LinkID: other, ACLs: []controller.LinkACL{{Action: controller.RemoveAccess, ACL: a}}})
		r.awaitACLs(auth.FormatACL(&a))
		r.setACLs(allows("User:b", meta.TopicResource, "orders"))
		r.awaitACLs("ALLOW User:b READ on topic orders from *")
	})
}

// TestQuotasFollowTheSource proves that quotas of users and client ids are as at the source, that what a person has set here stays, and what is said of those that are not followed.
func TestQuotasFollowTheSource(t *testing.T) {
	withTasks(t, func(r *rig) {
		ofUser := func(name string) meta.QuotaID {
			return meta.QuotaID{Entity: meta.QuotaEntity{User: meta.NamedQuota(name)}, Key: meta.ProducerByteRate}
		}
		ofClient := meta.QuotaID{Entity: meta.QuotaEntity{ClientID: meta.NamedQuota("c")}, Key: meta.ConsumerByteRate}
		here := func(id meta.QuotaID) float64 { return r.image.Load().Quotas().ByEntity[id.Entity][id.Key] }
		set := func(change func(all map[meta.QuotaID]float64)) { r.source.change(func() { change(r.source.quotas) }) }
		r.source.change(func() {
			r.source.quotas = map[meta.QuotaID]float64{ofUser("a"): 10, ofUser("b"): 20, ofUser("root"): 30, ofClient: 40, ofUser(""): 50}
			r.source.ofUnknown = true
		})
		r.source.create("orders", 1, 1)
		r.link(pairsOf("topics", "*", "quotas", "on", "principals.exclude", "User:root", "principals.map", "User:b=User:x")...)
		r.await("the quotas are here", func() bool { return here(ofUser("a")) == 10 && here(ofUser("x")) == 20 && here(ofClient) == 40 })
		if n := len(r.image.Load().Quotas().ByEntity); n != 3 {
			r.Errorf("%d entities have quotas", n)
		}
		r.await("the task tells", func() bool { return r.task("quotas").State == mirror.TaskRunning })
		if s := r.task("quotas"); len(s.Notes) != 2 || !strings.Contains(s.Notes[1], "1 quota of a kind that this version does not know") || !strings.Contains(s.Notes[0], "of each user is not followed") {
			r.Errorf("%q", s.Notes)
		}
		r.apply(meta.Append(nil, meta.QuotaSet{Entity: ofUser("x").Entity, Key: meta.ProducerByteRate, Value: 25}))
		set(func(all map[meta.QuotaID]float64) { all[ofUser("a")], all[ofUser("b")] = 11, 21; delete(all, ofClient) })
		r.await("they follow", func() bool { return here(ofUser("a")) == 11 && here(ofClient) == 0 })
		if s := r.task("quotas"); here(ofUser("x")) != 25 || !strings.Contains(s.Reason+strings.Join(s.Notes, " "), "of user x was set, changed or removed here by somebody else") {
			r.Errorf("%v, %+v", here(ofUser("x")), s)
		}
		set(func(all map[meta.QuotaID]float64) { delete(all, ofUser("b")) })
		r.await("it is forgotten", func() bool { return len(r.image.Load().LinkAccess(linkID).Quotas()) == 1 })
		if here(ofUser("x")) != 25 {
			r.Error("a person's quota is gone")
		}
		r.source.change(func() { r.source.quotaError = kerr.ClusterAuthorizationFailed.Code })
		r.await("the right is missing", func() bool {
			s := r.task("quotas")
			return s.State == mirror.TaskWaiting && strings.Contains(s.Reason, "lacks the right DESCRIBE_CONFIGS of the cluster")
		})
		r.alter("quotas", "off")
		r.await("it is off", func() bool { return r.task("quotas").Task == "" && r.task("topics").State == mirror.TaskRunning })
		if here(ofUser("a")) != 11 {
			r.Error("what the link has set is gone")
		}
	})
}

// TestAccessSettingsAreChecked proves that wrong settings of ACLs and quotas are refused, that those without an effect are warned of, and that a check says which right is missing.
func TestAccessSettingsAreChecked(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"acls", "yes", "neither on nor off"},
		{"quotas", "true", "neither on nor off"},
		{"acls.all.names", "on", "neither true nor false"},
		{"quotas.defaults", "1", "neither true nor false"},
		{"principals", "a*b", `principals: the pattern "a*b"`},
		{"acls.groups.exclude", "re:(", "acls.groups: "},
		{"principals.map", "a=b", "principals.map: "},
	} {
		if _, err := mirror.ParseSettings(pairsOf("bootstrap.servers", "h:1", c.key, c.value), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v", c.key, c.value, err)
		}
	}
	inBubble(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.change(func() {
			r.source.aclError, r.source.quotaError = kerr.ClusterAuthorizationFailed.Code, kerr.ClusterAuthorizationFailed.Code
		})
		check := func(pairs ...string) (problems, warnings string) {
			report := r.service.Check(r.Context(), &meta.Link{Name: "north", Settings: pairsOf(append([]string{"bootstrap.servers", "b1:9092", "topics", "*"}, pairs...)...)}, nil)
			for _, f := range report.Problems {
				problems += f.About + " " + f.Text + f.Do + "\n"
			}
			for _, f := range report.Warnings {
				warnings += f.About + " " + f.Text + f.Do + "\n"
			}
			return problems, warnings
		}
		problems, _ := check("acls", "on", "quotas", "on")
		for _, want := range []string{"acls The login lacks the right DESCRIBE of the cluster", "--operation DESCRIBE --cluster", "quotas The login lacks the right DESCRIBE_CONFIGS of the cluster", "--operation DESCRIBE_CONFIGS --cluster"} {
			if !strings.Contains(problems, want) {
				r.Errorf("no %q in %s", want, problems)
			}
		}
		r.source.change(func() {
			r.source.aclError, r.source.quotaError = 0, 0
			r.source.quotas = map[meta.QuotaID]float64{{Entity: meta.QuotaEntity{User: meta.NamedQuota("a")}, Key: meta.ProducerByteRate}: 5}
		})
		r.setACLs(allows("User:a", meta.TopicResource, "orders"), allows("User:a", meta.TopicResource, "other"), allows("User:a", meta.GroupResource, "*"))
		report := r.service.Check(r.Context(), &meta.Link{Name: "north", Settings: pairsOf("bootstrap.servers", "b1:9092", "topics", "*", "prefix", "x.", "acls", "on", "quotas", "on")}, nil)
		steps := strings.Join(report.Steps, "\n")
		for _, want := range []string{
			"its ACLs, of which there are 3; to follow them now takes 1 change\nwould add ALLOW User:a READ on topic x.orders from *\n", "its quotas, of which there are 1; to follow them now takes 1 change\nwould set producer_byte_rate of user a to 5",
		} {
			if !strings.Contains(steps, want) {
				r.Errorf("no %q in %s", want, steps)
			}
		}
		if w := report.Warnings[len(report.Warnings)-1]; w.About != "acls" || !strings.Contains(w.Text, "group *") || r.image.Load().ACLs().Len() > 0 {
			r.Errorf("%+v", report.Warnings)
		}
		if problems, warnings := check("acls.groups", "a", "principals", "User:a"); problems != "" || strings.Count(warnings, "has no effect") != 2 {
			r.Errorf("%s%s", problems, warnings)
		}
		r.source.change(func() { r.source.aclError, r.source.quotaError = kerr.SecurityDisabled.Code, 0 })
		if problems, warnings := check("acls", "on", "quotas", "on", "principals", "User:a", "quotas.client.ids", "a"); problems != "" || strings.Contains(warnings, "has no effect") || !strings.Contains(warnings, "no authorizer") {
			r.Errorf("%s%s", problems, warnings)
		}
	})
}

// TestDifferencesAreTold proves that the configs of mirrors which are not as at the source are told of, with those that were put back.
func TestDifferencesAreTold(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.change(func() {
			c := r.source.topics["orders"].configs
			c["retention.ms"], c["min.insync.replicas"] = "700000", "2"
		})
		r.link(pairsOf("topics", "*")...)
		kept := func() string {
			var list []string
			for _, d := range r.task("configs").Differences {
				list = append(list, strings.Join([]string{d.Topic, d.Key, d.Source, d.Here, string(d.Fate)}, " "))
			}
			return strings.Join(list, ", ")
		}
		const always = "orders min.insync.replicas 2 1 KEPT"
		r.await("what differs is told", func() bool { return kept() == always })
		_, _ = r.alterConfigs(r.Context(), []controller.ConfigChanges{{Resource: config.Resource{Type: config.Topic, Name: "orders"}, Changes: []controller.ConfigChange{{Op: controller.Set, Key: "retention.ms", Value: "1"}}}})
		const putBack = always + ", orders retention.ms 700000 1 PUT_BACK"
		r.await("what was put back is told", func() bool { return kept() == putBack })
		time.Sleep(10 * time.Minute)
		if synctest.Wait(); kept() != putBack || r.configOf("orders", "retention.ms") != "700000" {
			r.Errorf("%s", kept())
		}
		r.source.change(func() { r.source.denies[32] = true })
		r.await("they cannot be read", func() bool { return strings.Contains(r.task("configs").Reason, "cannot be read") })
	})
}

// TestACLsComeWithTheirTopics proves that the ACLs of a topic that is new are here as soon as its mirror, and not only with the next comparison.
func TestACLsComeWithTheirTopics(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.setACLs(allows("User:a", meta.TopicResource, "orders"), allows("User:a", meta.TopicResource, "web"))
		r.link(pairsOf("topics", "*", "acls", "on")...)
		r.await("the first is here", func() bool { return len(r.aclsHere()) == 1 })
		began := time.Now()
		r.source.create("web", 1, 2)
		r.await("the second is here", func() bool { return len(r.aclsHere()) == 2 })
		if took := time.Since(began); took > 10*time.Second { // by the clock of the bubble, which waits for nobody
			r.Errorf("it has taken %v", took)
		}
	})
}
