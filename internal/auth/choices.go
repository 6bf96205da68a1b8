package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// Right is an operation on a kind of resource.
type Right struct {
	Operation meta.Operation
	On        meta.ResourceType
	// OnAny tells that one resource of the kind is enough, whichever it is.
	OnAny bool
}

// String is the right in words.
func (r Right) String() string {
	text := OperationName(r.Operation) + " on "
	if r.OnAny {
		text += "any "
	}
	return text + strings.ToLower(ResourceName(r.On))
}

// Choice is what an API does for which another right is enough than the one that it asks for otherwise, or a part of it (PartOf).
type Choice struct {
	Key   int16  // of the API
	API   string // its name in Kafka
	Needs Right
	Or    Right // is enough, too; the zero value: nothing else
	// IsAll tells that no API asks for Needs without this choice.
	IsAll bool
}

// Choices are all of them. The broker asks them by InsteadOf, and its tests compare what it does with what Instead says.
//
// DescribeDelegationToken, for which DESCRIBE_TOKENS on the owner of a token is enough, is not among them: only the broker knows whose a token is.
func Choices() []Choice { return slices.Clone(choices) }

// choices never changes.
var choices = makeChoices()

func makeChoices() []Choice {
	const topic, cluster = meta.TopicResource, meta.ClusterResource
	on := func(op meta.Operation, of meta.ResourceType) Right { return Right{Operation: op, On: of} }
	part := func(key int16, name string, needs Right) Choice { return Choice{Key: key, API: name, Needs: needs} }
	return []Choice{
		{3, "Metadata", on(meta.Create, topic), on(meta.Create, cluster), true},
		{19, "CreateTopics", on(meta.Create, topic), on(meta.Create, cluster), true},
		{20, "DeleteTopics", on(meta.DeleteOperation, topic), on(meta.DeleteOperation, cluster), false},
		{16, "ListGroups", on(meta.Describe, meta.GroupResource), on(meta.Describe, cluster), false},
		{22, "InitProducerId", on(meta.IdempotentWrite, cluster), Right{meta.Write, topic, true}, true},
		{23, "OffsetForLeaderEpoch", on(meta.Describe, topic), on(meta.ClusterAction, cluster), false},
		{27, "WriteTxnMarkers", on(meta.Alter, cluster), on(meta.ClusterAction, cluster), false},
		part(8, "OffsetCommit", on(CommitOffsets, topic)),
		part(61, "DescribeProducers", on(DescribeProducers, topic)),
		part(34, "AlterReplicaLogDirs", on(Reassign, cluster)),
		part(43, "ElectLeaders", on(Reassign, cluster)),
		part(45, "AlterPartitionReassignments", on(Reassign, cluster)),
		part(49, "AlterClientQuotas", on(AlterQuotas, cluster)),
	}
}

// InsteadOf is the operation on the cluster that is enough for an API instead of one for each thing that a request names.
func InsteadOf(key int16) meta.Operation {
	i := slices.IndexFunc(choices, func(c Choice) bool { return c.Key == key && c.Or.On == meta.ClusterResource })
	if i < 0 {
		panic(fmt.Sprintf("BUG: no operation on the cluster is enough for API %d", key))
	}
	return choices[i].Or.Operation
}

// Chosen is a choice by which a client may do what it is denied otherwise.
type Chosen struct {
	Choice
	By Right // that the client has
}

// Instead tells what a client may do although it may not do op with a resource: what the APIs do for which it has another right that is enough.
func (a *Authorizer) Instead(c Client, op meta.Operation, r Resource) (list []Chosen) {
	for _, choice := range choices {
		whole, _ := PartOf(choice.Needs.Operation)
		if choice.Needs.On != r.Type || choice.Needs.Operation != op && whole != op {
			continue
		}
		switch {
		case choice.Needs.Operation != op && a.Allows(c, choice.Needs.Operation, r):
			list = append(list, Chosen{choice, choice.Needs})
		case choice.Or.Operation != 0 && a.has(c, choice.Or):
			list = append(list, Chosen{choice, choice.Or})
		}
	}
	return list
}

// has tells whether a client has a right on the cluster, or on any resource.
func (a *Authorizer) has(c Client, r Right) bool {
	if r.OnAny {
		return a.AllowsAny(c, r.Operation, r.On)
	}
	return a.Allows(c, r.Operation, Resource{Type: r.On, Name: meta.ClusterName})
}

// ParsePart finds a part of an operation by its name; case and dashes do not matter.
func ParsePart(name string) (op meta.Operation, ok bool) {
	i := slices.Index(partNames[:], toolName(name))
	return CommitOffsets + meta.Operation(i), i >= 0
}
