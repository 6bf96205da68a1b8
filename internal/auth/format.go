package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// The names of Kafka's tools, by number.
var (
	resourceNames   = [...]string{"UNKNOWN", "ANY", "TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID", "DELEGATION_TOKEN", "USER"}
	patternNames    = [...]string{"UNKNOWN", "ANY", "MATCH", "LITERAL", "PREFIXED"}
	permissionNames = [...]string{"UNKNOWN", "ANY", "DENY", "ALLOW"}
	operationNames  = [...]string{
		"UNKNOWN", "ANY", "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "CLUSTER_ACTION",
		"DESCRIBE_CONFIGS", "ALTER_CONFIGS", "IDEMPOTENT_WRITE", "CREATE_TOKENS", "DESCRIBE_TOKENS", "TWO_PHASE_COMMIT",
	}
)

func nameOf[T ~int8](names []string, v T) string {
	if v < 0 || int(v) >= len(names) {
		return names[0]
	}
	return names[v]
}

// ResourceName is the name of a type of resources in Kafka's tools.
func ResourceName(t meta.ResourceType) string { return nameOf(resourceNames[:], t) }

// PatternName is the name of a type of patterns.
func PatternName(t meta.PatternType) string { return nameOf(patternNames[:], t) }

// OperationName is the name of an operation.
func OperationName(op meta.Operation) string {
	if at := int(op - CommitOffsets); at >= 0 && at < len(partNames) {
		return partNames[at]
	}
	if r, ok := FindRole(op); ok {
		return strings.ToUpper(r.Name)
	}
	return nameOf(operationNames[:], op)
}

// PermissionName is the name of a permission.
func PermissionName(p meta.Permission) string { return nameOf(permissionNames[:], p) }

// ParseOperation finds an operation by its name in Kafka's tools; case and dashes do not matter.
func ParseOperation(name string) (op meta.Operation, ok bool) {
	i := slices.Index(operationNames[:], toolName(name))
	return meta.Operation(i), i >= int(meta.AllOperations)
}

// ParseResourceType finds a type of resources by its name in Kafka's tools; case and dashes do not matter.
func ParseResourceType(name string) (t meta.ResourceType, ok bool) {
	i := slices.Index(resourceNames[:], toolName(name))
	return meta.ResourceType(i), i >= int(meta.TopicResource)
}

func toolName(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

// FormatACL shows an ACL, or a role, on one line.
func FormatACL(a *meta.ACL) string {
	name := a.Name
	if a.Pattern == meta.PrefixedPattern {
		name += "*"
	}
	if r, ok := FindRole(a.Operation); ok {
		return fmt.Sprintf("role %s of %s on %s %s from %s", r.Name, a.Principal, strings.ToLower(ResourceName(a.Resource)), name, a.Host)
	}
	return fmt.Sprintf("%s %s %s on %s %s from %s", PermissionName(a.Permission), a.Principal, OperationName(a.Operation),
		strings.ToLower(ResourceName(a.Resource)), name, a.Host)
}
