package broker

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

const (
	// mostChanges is how many changes of one request have events of their own. One event more says that there are others.
	mostChanges = 1000
	// mostParts is how many partitions of a topic an event names.
	mostParts = 64
)

// isChange tells whether an API changes something for good: those that the active controller decides, but for questions, and those
// that coordinators and leaders of partitions carry out for administrators.
func isChange(a *api) bool {
	switch a.key {
	case 55, 41: // DescribeQuorum, DescribeDelegationToken
		return false
	case 21, writeTxnMarkersKey, 42, 47, 38, 39, 40: // DeleteRecords, DeleteGroups, OffsetDelete, delegation tokens
		return true
	}
	return a.decide != nil
}

// changeEvents makes events of an answer.
type changeEvents struct {
	isSecret func(t config.ResourceType, name string) bool
	list     []audit.Event
	left     int                       // how many more may have events of their own; below 0: the last event is for all others
	had      map[string]credentialBits // the credentials of the users that the request names, before it was served
}

// credentialBits are mechanisms for which a user has a credential.
type credentialBits uint8

func bitsOf(m meta.ScramMechanism) credentialBits {
	switch m {
	case meta.ScramSHA256:
		return 1
	case meta.ScramSHA512:
		return 2
	case auth.EveryMechanism:
		return 3
	}
	return 0
}

// findCredentials finds what the users of a request have.
func findCredentials(m *meta.Image, q *kmsg.AlterUserSCRAMCredentialsRequest) map[string]credentialBits {
	had := map[string]credentialBits{}
	for _, user := range usersOf(q) {
		for _, mechanism := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
			if m.Credentials().ByOwner[meta.CredentialOwner{User: user, Mechanism: mechanism}] != nil {
				had[user] |= bitsOf(mechanism)
			}
		}
	}
	return had
}

// add adds what was done with a resource, or was not, by the code of the answer. What was denied was recorded before, with what was asked for.
func (c *changeEvents) add(t audit.Type, resourceType, resource string, code int16, details ...audit.Detail) {
	switch code {
	case kerr.TopicAuthorizationFailed.Code, kerr.GroupAuthorizationFailed.Code, kerr.ClusterAuthorizationFailed.Code,
		kerr.TransactionalIDAuthorizationFailed.Code, kerr.DelegationTokenAuthorizationFailed.Code:
		return
	}
	e := audit.Event{Type: t, ResourceType: resourceType, Resource: resource, Result: audit.Allowed, Code: code, Details: details}
	if code != none {
		e.Result = audit.Failed
		if ke := kerr.TypedErrorForCode(code); ke != nil {
			e.Error = ke.Message
		}
	}
	if c.left--; c.left >= 0 {
		c.list = append(c.list, e)
		return
	}
	if c.left == -1 {
		c.list = append(c.list, audit.Event{Type: t, ResourceType: resourceType, Result: e.Result, Reason: fmt.Sprintf("the request has more than %d changes, and the others are not listed", mostChanges)})
	}
}

// addAnswer adds what an answer to a request tells.
func (c *changeEvents) addAnswer(req kmsg.Request, resp kmsg.Response) {
	switch q := req.(type) {
	case *kmsg.CreateTopicsRequest, *kmsg.DeleteTopicsRequest, *kmsg.CreatePartitionsRequest, *kmsg.AlterPartitionAssignmentsRequest, *kmsg.ElectLeadersRequest, *kmsg.DeleteRecordsRequest:
		c.addTopics(req, resp)
	case *kmsg.AlterConfigsRequest:
		a, _ := resp.(*kmsg.AlterConfigsResponse)
		if a == nil || q.ValidateOnly {
			return
		}
		for _, r := range a.Resources {
			c.add(audit.ConfigChanged, configKind(r.ResourceType), r.ResourceName, r.ErrorCode, c.replaced(q, r.ResourceType, r.ResourceName)...)
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		a, _ := resp.(*kmsg.IncrementalAlterConfigsResponse)
		if a == nil || q.ValidateOnly {
			return
		}
		for _, r := range a.Resources {
			c.add(audit.ConfigChanged, configKind(r.ResourceType), r.ResourceName, r.ErrorCode, c.changed(q, r.ResourceType, r.ResourceName)...)
		}
	case *kmsg.CreateACLsRequest, *kmsg.DeleteACLsRequest, *kmsg.AlterUserSCRAMCredentialsRequest, *kmsg.AlterClientQuotasRequest:
		c.addSecurity(req, resp)
	case *kmsg.DeleteGroupsRequest, *kmsg.OffsetDeleteRequest, *kmsg.OffsetCommitRequest:
		c.addGroups(req, resp)
	case *kmsg.UpdateFeaturesRequest:
		a, _ := resp.(*kmsg.UpdateFeaturesResponse)
		if a == nil || q.ValidateOnly {
			return
		}
		for _, u := range q.FeatureUpdates {
			c.add(audit.FeatureChanged, "feature", u.Feature, a.ErrorCode, detail("level", u.MaxVersionLevel))
		}
	case *kmsg.UnregisterBrokerRequest:
		if a, ok := resp.(*kmsg.UnregisterBrokerResponse); ok {
			c.add(audit.BrokerUnregistered, "node", strconv.Itoa(int(q.BrokerID)), a.ErrorCode)
		}
	case *kmsg.WriteTxnMarkersRequest:
		c.addMarkers(q, resp)
	case *kmsg.CreateDelegationTokenRequest, *kmsg.RenewDelegationTokenRequest, *kmsg.ExpireDelegationTokenRequest:
		c.addToken(resp)
	default:
		c.add(audit.AdministrationServed, "", "", codeField(resp))
	}
}

// codeField is the code of an answer that is of a kind which is not known here.
func codeField(resp kmsg.Response) int16 {
	f := reflect.Indirect(reflect.ValueOf(resp)).FieldByName("ErrorCode")
	if f.IsValid() && f.Kind() == reflect.Int16 {
		return int16(f.Int())
	}
	return none
}

// addToken is addAnswer for requests about delegation tokens. Whoever knows the HMAC of one has the token, so no event has it.
func (c *changeEvents) addToken(resp kmsg.Response) {
	switch a := resp.(type) {
	case *kmsg.CreateDelegationTokenResponse:
		c.add(audit.TokenCreated, "delegation_token", a.TokenID, a.ErrorCode, detail("owner", a.PrincipalType+":"+a.PrincipalName), detail("expiresMs", a.ExpiryTimestamp))
	case *kmsg.RenewDelegationTokenResponse:
		c.add(audit.TokenRenewed, "delegation_token", "", a.ErrorCode, detail("expiresMs", a.ExpiryTimestamp))
	case *kmsg.ExpireDelegationTokenResponse:
		c.add(audit.TokenExpired, "delegation_token", "", a.ErrorCode, detail("expiresMs", a.ExpiryTimestamp))
	}
}

func detail(key string, value any) audit.Detail {
	return audit.Detail{Key: key, Value: fmt.Sprint(value)}
}

// addTopics is addAnswer for requests about topics.
func (c *changeEvents) addTopics(req kmsg.Request, resp kmsg.Response) {
	switch a := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		q, _ := req.(*kmsg.CreateTopicsRequest)
		if q == nil || q.ValidateOnly {
			return
		}
		for i := range a.Topics {
			c.add(audit.TopicCreated, "topic", a.Topics[i].Topic, a.Topics[i].ErrorCode, c.describeNew(q, a.Topics[i].Topic)...)
		}
	case *kmsg.DeleteTopicsResponse:
		for _, t := range a.Topics {
			id := meta.UUID(t.TopicID)
			name := id.String()
			if t.Topic != nil {
				name = *t.Topic
			}
			c.add(audit.TopicDeleted, "topic", name, t.ErrorCode, detail("id", id))
		}
	case *kmsg.CreatePartitionsResponse:
		q, _ := req.(*kmsg.CreatePartitionsRequest)
		if q == nil || q.ValidateOnly {
			return
		}
		for _, t := range a.Topics {
			i := slices.IndexFunc(q.Topics, func(asked kmsg.CreatePartitionsRequestTopic) bool { return asked.Topic == t.Topic })
			if i >= 0 {
				c.add(audit.PartitionsCreated, "topic", t.Topic, t.ErrorCode, detail("partitions", q.Topics[i].Count))
			}
		}
	case *kmsg.AlterPartitionAssignmentsResponse:
		q, _ := req.(*kmsg.AlterPartitionAssignmentsRequest)
		c.addReassignments(q, a)
	case *kmsg.ElectLeadersResponse:
		for _, t := range a.Topics {
			p := newParts()
			for _, rp := range t.Partitions {
				p.add(rp.ErrorCode, rp.Partition, "")
			}
			c.addParts(audit.LeaderElected, t.Topic, p)
		}
	case *kmsg.DeleteRecordsResponse:
		for _, t := range a.Topics {
			p := newParts()
			for _, rp := range t.Partitions {
				p.add(rp.ErrorCode, rp.Partition, fmt.Sprintf("below %d", rp.LowWatermark))
			}
			c.addParts(audit.RecordsDeleted, t.Topic, p)
		}
	}
}

func (c *changeEvents) addReassignments(q *kmsg.AlterPartitionAssignmentsRequest, a *kmsg.AlterPartitionAssignmentsResponse) {
	if q == nil {
		return
	}
	if a.ErrorCode != none {
		c.add(audit.ReassignmentChanged, "cluster", meta.ClusterName, a.ErrorCode)
		return
	}
	for _, t := range a.Topics {
		asked := slices.IndexFunc(q.Topics, func(x kmsg.AlterPartitionAssignmentsRequestTopic) bool { return x.Topic == t.Topic })
		p := newParts()
		for _, rp := range t.Partitions {
			to := "cancelled"
			if asked >= 0 {
				i := slices.IndexFunc(q.Topics[asked].Partitions, func(x kmsg.AlterPartitionAssignmentsRequestTopicPartition) bool { return x.Partition == rp.Partition })
				if i >= 0 && q.Topics[asked].Partitions[i].Replicas != nil {
					to = "to " + fmt.Sprint(q.Topics[asked].Partitions[i].Replicas)
				}
			}
			p.add(rp.ErrorCode, rp.Partition, to)
		}
		c.addParts(audit.ReassignmentChanged, t.Topic, p)
	}
}

// parts are the partitions of a topic in an answer, by code.
type parts struct {
	codes []int16 // in the order in which they come
	of    map[int16][]string
	count map[int16]int
}

func newParts() *parts { return &parts{of: map[int16][]string{}, count: map[int16]int{}} }

func (p *parts) add(code int16, n int32, text string) {
	if p.count[code]++; p.count[code] == 1 {
		p.codes = append(p.codes, code)
	}
	if len(p.of[code]) < mostParts {
		p.of[code] = append(p.of[code], strings.TrimSpace(fmt.Sprintf("%d %s", n, text)))
	}
}

// addParts adds an event for the partitions of a topic with each code.
func (c *changeEvents) addParts(t audit.Type, topic string, p *parts, details ...audit.Detail) {
	for _, code := range p.codes {
		c.add(t, "topic", topic, code, append(slices.Clone(details), p.details(code)...)...)
	}
}

// details are the partitions with a code: a few in each detail, since one has few bytes.
func (p *parts) details(code int16) (list []audit.Detail) {
	const each = 8
	list = append(list, detail("partitions", p.count[code]))
	n := 0
	for some := range slices.Chunk(p.of[code], each) {
		list = append(list, audit.Detail{Key: fmt.Sprintf("partitions.%d", n), Value: strings.Join(some, ", ")})
		n++
	}
	return list
}

// describeNew are the details of a topic that was asked for.
func (c *changeEvents) describeNew(q *kmsg.CreateTopicsRequest, name string) (list []audit.Detail) {
	i := slices.IndexFunc(q.Topics, func(t kmsg.CreateTopicsRequestTopic) bool { return t.Topic == name })
	if i < 0 {
		return nil
	}
	t := &q.Topics[i]
	list = append(list, detail("partitions", t.NumPartitions), detail("replicationFactor", t.ReplicationFactor))
	for _, kv := range t.Configs {
		list = append(list, c.configDetail(config.Topic, kv.Name, kv.Value))
	}
	return list
}

// configDetail is a config with its value, if that is no secret.
func (c *changeEvents) configDetail(t config.ResourceType, name string, value *string) audit.Detail {
	d := audit.Detail{Key: "config." + name, Value: "(unset)"}
	switch {
	case c.isSecret(t, name):
		d.Value = "(hidden)"
	case value != nil:
		d.Value = *value
	}
	return d
}

// configIsSecret tells whether the value of a config must not be shown: it is a secret, or it is not known what it is.
func configIsSecret(t config.ResourceType, name string) bool {
	if t == loggerType {
		return false // a level
	}
	def := config.Find(t, name)
	return def == nil || def.Sensitive()
}

const loggerType = config.ResourceType(kmsg.ConfigResourceTypeBrokerLogger)

// configKind is the name of a type of resources that have configs.
func configKind(t kmsg.ConfigResourceType) string {
	if t == kmsg.ConfigResourceTypeBroker {
		return "node"
	}
	return strings.ToLower(t.String())
}

func (c *changeEvents) replaced(q *kmsg.AlterConfigsRequest, t kmsg.ConfigResourceType, name string) (list []audit.Detail) {
	i := slices.IndexFunc(q.Resources, func(r kmsg.AlterConfigsRequestResource) bool { return r.ResourceType == t && r.ResourceName == name })
	if i < 0 {
		return nil
	}
	list = append(list, detail("replacesAll", true))
	for _, kv := range q.Resources[i].Configs {
		list = append(list, c.configDetail(config.ResourceType(t), kv.Name, kv.Value))
	}
	return list
}

func (c *changeEvents) changed(q *kmsg.IncrementalAlterConfigsRequest, t kmsg.ConfigResourceType, name string) (list []audit.Detail) {
	i := slices.IndexFunc(q.Resources, func(r kmsg.IncrementalAlterConfigsRequestResource) bool {
		return r.ResourceType == t && r.ResourceName == name
	})
	if i < 0 {
		return nil
	}
	for _, kv := range q.Resources[i].Configs {
		d := c.configDetail(config.ResourceType(t), kv.Name, kv.Value)
		switch kv.Op {
		case kmsg.IncrementalAlterConfigOpDelete:
			d.Value = "(unset)"
		case kmsg.IncrementalAlterConfigOpAppend:
			d.Key += ".append"
		case kmsg.IncrementalAlterConfigOpSubtract:
			d.Key += ".subtract"
		case kmsg.IncrementalAlterConfigOpSet:
		}
		list = append(list, d)
	}
	return list
}

// addSecurity is addAnswer for requests about users, ACLs and quotas.
func (c *changeEvents) addSecurity(req kmsg.Request, resp kmsg.Response) {
	switch a := resp.(type) {
	case *kmsg.CreateACLsResponse:
		q, _ := req.(*kmsg.CreateACLsRequest)
		for i := range a.Results {
			if q != nil && i < len(q.Creations) {
				n := &q.Creations[i]
				c.addACL(audit.ACLCreated, a.Results[i].ErrorCode, &meta.ACL{
					Principal: n.Principal, Host: n.Host, Resource: meta.ResourceType(n.ResourceType), Pattern: meta.PatternType(n.ResourcePatternType),
					Name: n.ResourceName, Operation: meta.Operation(n.Operation), Permission: meta.Permission(n.PermissionType),
				})
			}
		}
	case *kmsg.DeleteACLsResponse:
		for i := range a.Results {
			if a.Results[i].ErrorCode != none {
				c.add(audit.ACLDeleted, "cluster", meta.ClusterName, a.Results[i].ErrorCode)
			}
			for _, m := range a.Results[i].MatchingACLs {
				c.addACL(audit.ACLDeleted, m.ErrorCode, &meta.ACL{
					Principal: m.Principal, Host: m.Host, Resource: meta.ResourceType(m.ResourceType), Pattern: meta.PatternType(m.ResourcePatternType),
					Name: m.ResourceName, Operation: meta.Operation(m.Operation), Permission: meta.Permission(m.PermissionType),
				})
			}
		}
	case *kmsg.AlterUserSCRAMCredentialsResponse:
		if q, ok := req.(*kmsg.AlterUserSCRAMCredentialsRequest); ok {
			c.addUsers(q, a)
		}
	case *kmsg.AlterClientQuotasResponse:
		q, _ := req.(*kmsg.AlterClientQuotasRequest)
		if q == nil || q.ValidateOnly {
			return
		}
		for i := range a.Entries {
			c.addQuota(q, i, a.Entries[i].ErrorCode)
		}
	}
}

// addUsers adds the users whose credentials were set or deleted; of a credential only the mechanism. A user is created with the first one, and deleted
// with the last one.
func (c *changeEvents) addUsers(q *kmsg.AlterUserSCRAMCredentialsRequest, a *kmsg.AlterUserSCRAMCredentialsResponse) {
	for _, u := range a.Results {
		had := c.had[u.User]
		left, mechanisms, isSet := had, []string{}, false
		for _, gone := range q.Deletions {
			if gone.Name == u.User {
				left &^= bitsOf(meta.ScramMechanism(gone.Mechanism))
				mechanisms = append(mechanisms, "-"+scramName(gone.Mechanism))
			}
		}
		for _, set := range q.Upsertions {
			if set.Name == u.User {
				isSet = true
				mechanisms = append(mechanisms, scramName(set.Mechanism))
			}
		}
		t := audit.UserChanged
		switch {
		case isSet && had == 0:
			t = audit.UserCreated
		case !isSet && left == 0:
			t = audit.UserDeleted
		}
		c.add(t, "user", u.User, u.ErrorCode, detail("mechanisms", strings.Join(mechanisms, ", ")))
	}
}

// scramName is the name of a mechanism by its number.
func scramName(m int8) string {
	switch meta.ScramMechanism(m) {
	case meta.ScramSHA256:
		return config.MechanismScramSHA256
	case meta.ScramSHA512:
		return config.MechanismScramSHA512
	case auth.EveryMechanism:
		return "all"
	}
	return strconv.Itoa(int(m))
}

func (c *changeEvents) addACL(t audit.Type, code int16, acl *meta.ACL) {
	if role, ok := auth.FindRole(acl.Operation); ok { // a role travels as an ACL
		granted := audit.RoleGranted
		if t == audit.ACLDeleted {
			granted = audit.RoleRevoked
		}
		c.add(granted, strings.ToLower(auth.ResourceName(acl.Resource)), acl.Name, code,
			detail("principal", acl.Principal), detail("role", role.Name), detail("host", acl.Host), detail("pattern", auth.PatternName(acl.Pattern)))
		return
	}
	c.add(t, strings.ToLower(auth.ResourceName(acl.Resource)), acl.Name, code,
		detail("principal", acl.Principal), detail("host", acl.Host), detail("operation", auth.OperationName(acl.Operation)),
		detail("permission", auth.PermissionName(acl.Permission)), detail("pattern", auth.PatternName(acl.Pattern)))
}

// addQuota adds the change of an entity's quotas; the answer has them in the order of the request.
func (c *changeEvents) addQuota(q *kmsg.AlterClientQuotasRequest, i int, code int16) {
	if i >= len(q.Entries) {
		return
	}
	var entity []string
	for _, of := range q.Entries[i].Entity {
		name := "(default)"
		if of.Name != nil {
			name = *of.Name
		}
		entity = append(entity, of.Type+" "+name)
	}
	var details []audit.Detail
	for _, op := range q.Entries[i].Ops {
		if op.Remove {
			details = append(details, detail(op.Key, "(unset)"))
		} else {
			details = append(details, detail(op.Key, op.Value))
		}
	}
	c.add(audit.QuotaChanged, "quota", strings.Join(entity, ", "), code, details...)
}

// addGroups is addAnswer for requests about groups.
func (c *changeEvents) addGroups(req kmsg.Request, resp kmsg.Response) {
	switch a := resp.(type) {
	case *kmsg.DeleteGroupsResponse:
		for _, g := range a.Groups {
			c.add(audit.GroupDeleted, "group", g.Group, g.ErrorCode)
		}
	case *kmsg.OffsetDeleteResponse:
		q, _ := req.(*kmsg.OffsetDeleteRequest)
		if q == nil {
			return
		}
		if a.ErrorCode != none {
			c.add(audit.OffsetsDeleted, "group", q.Group, a.ErrorCode)
			return
		}
		for _, t := range a.Topics {
			p := newParts()
			for _, rp := range t.Partitions {
				p.add(rp.ErrorCode, rp.Partition, "")
			}
			c.addGroupParts(audit.OffsetsDeleted, q.Group, t.Topic, p)
		}
	case *kmsg.OffsetCommitResponse:
		q, _ := req.(*kmsg.OffsetCommitRequest)
		if q == nil {
			return
		}
		for _, t := range a.Topics {
			p := newParts()
			for _, rp := range t.Partitions {
				p.add(rp.ErrorCode, rp.Partition, committedText(q, &t, rp.Partition))
			}
			topic := t.Topic
			if topic == "" {
				topic = meta.UUID(t.TopicID).String()
			}
			c.addGroupParts(audit.OffsetsSet, q.Group, topic, p)
		}
	}
}

func (c *changeEvents) addGroupParts(t audit.Type, group, topic string, p *parts) {
	for _, code := range p.codes {
		c.add(t, "group", group, code, append([]audit.Detail{{Key: "topic", Value: topic}}, p.details(code)...)...)
	}
}

// committedText is the offset that a request sets for a partition of an answer.
func committedText(q *kmsg.OffsetCommitRequest, t *kmsg.OffsetCommitResponseTopic, partition int32) string {
	for i := range q.Topics {
		if asked := &q.Topics[i]; asked.Topic == t.Topic && t.Topic != "" || asked.TopicID == t.TopicID && t.TopicID != [16]byte{} {
			for _, p := range asked.Partitions {
				if p.Partition == partition {
					return fmt.Sprintf("to %d", p.Offset)
				}
			}
		}
	}
	return ""
}

// addMarkers adds transactions that an administrator has ended.
func (c *changeEvents) addMarkers(q *kmsg.WriteTxnMarkersRequest, resp kmsg.Response) {
	a, _ := resp.(*kmsg.WriteTxnMarkersResponse)
	if a == nil {
		return
	}
	for i := range a.Markers {
		if i >= len(q.Markers) {
			return
		}
		for _, t := range a.Markers[i].Topics {
			p := newParts()
			for _, rp := range t.Partitions {
				p.add(rp.ErrorCode, rp.Partition, "")
			}
			c.addParts(audit.TransactionEnded, t.Topic, p, detail("producerId", a.Markers[i].ProducerID), detail("committed", q.Markers[i].Committed))
		}
	}
}
