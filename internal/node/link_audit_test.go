package node

import (
	"fmt"
	"testing"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// TestLinkAccessIsRecorded proves what the audit log has of an ACL, a role and a quota that a link makes or removes.
func TestLinkAccessIsRecorded(t *testing.T) {
	role := allowance("User:a", meta.ReaderRole, meta.TopicResource, "t")
	for _, c := range []struct {
		action controller.AccessAction
		acl    meta.ACL
		want   string
	}{
		{controller.AddAccess, allowance("User:a", meta.Read, meta.GroupResource, "g"), "leat.acl.created group/g [{principal User:a} {operation READ} {permission ALLOW} {host *} {pattern LITERAL}]"},
		{controller.RemoveAccess, allowance("User:a", meta.Read, meta.GroupResource, "g"), "leat.acl.deleted group/g [{principal User:a} {operation READ} {permission ALLOW} {host *} {pattern LITERAL}]"},
		{controller.AddAccess, role, "leat.role.granted topic/t [{principal User:a} {role reader} {host *} {pattern LITERAL}]"},
		{controller.RemoveAccess, role, "leat.role.revoked topic/t [{principal User:a} {role reader} {host *} {pattern LITERAL}]"},
	} {
		var e audit.Event
		describeACL(&e, c.action, &c.acl)
		if got := fmt.Sprintf("%s %s/%s %v", e.Type, e.ResourceType, e.Resource, e.Details); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	entity := meta.QuotaEntity{User: meta.NamedQuota("a"), ClientID: meta.NamedQuota("")}
	for action, want := range map[controller.AccessAction]string{
		controller.AddAccess:    "leat.quota.changed quota/user a, client-id (default) [{producer_byte_rate 5}]",
		controller.RemoveAccess: "leat.quota.changed quota/user a, client-id (default) [{producer_byte_rate (unset)}]",
	} {
		var e audit.Event
		describeQuota(&e, &controller.LinkQuota{Action: action, Quota: meta.QuotaID{Entity: entity, Key: meta.ProducerByteRate}, Value: 5})
		if got := fmt.Sprintf("%s %s/%s %v", e.Type, e.ResourceType, e.Resource, e.Details); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
