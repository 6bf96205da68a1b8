package meta

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// QuotaKey says what a quota bounds. The names are Kafka's.
type QuotaKey string

// The quotas. ConnectionRate is for addresses, and all others are for users and client ids.
const (
	ProducerByteRate       QuotaKey = "producer_byte_rate"       // bytes of Produce requests a second
	ConsumerByteRate       QuotaKey = "consumer_byte_rate"       // bytes of the answers to Fetch requests a second
	RequestPercentage      QuotaKey = "request_percentage"       // time for requests, in percent of a processor
	ControllerMutationRate QuotaKey = "controller_mutation_rate" // partitions that are created or deleted a second
	ConnectionRate         QuotaKey = "connection_creation_rate" // connections a second
)

// QuotaName is the part of an entity that stands for one of its types. The zero value is that of a type which the entity
// does not have.
type QuotaName struct {
	Is   bool   // the entity has the type
	Name string // "": the default, for all names without a quota of their own
}

// NamedQuota is the part of an entity with a name; "" is the default.
func NamedQuota(name string) QuotaName { return QuotaName{Is: true, Name: name} }

// QuotaEntity is whom a quota is for: a user, a client id, a user's client id, or an address.
type QuotaEntity struct{ User, ClientID, IP QuotaName }

// IsComplete tells whether the entity is one that can have quotas.
func (e *QuotaEntity) IsComplete() bool {
	return e.IP.Is != (e.User.Is || e.ClientID.Is)
}

// HasKey tells whether a quota may be set for the entity.
func (e *QuotaEntity) HasKey(key QuotaKey) bool {
	switch key {
	case ProducerByteRate, ConsumerByteRate, RequestPercentage, ControllerMutationRate:
		return e.IsComplete() && !e.IP.Is
	case ConnectionRate:
		return e.IsComplete() && e.IP.Is
	}
	return false
}

func compareQuotaEntities(a, b QuotaEntity) int {
	return cmp.Or(compareQuotaNames(a.User, b.User), compareQuotaNames(a.ClientID, b.ClientID), compareQuotaNames(a.IP, b.IP))
}

func compareQuotaNames(a, b QuotaName) int {
	if a.Is != b.Is {
		if a.Is {
			return 1
		}
		return -1
	}
	return strings.Compare(a.Name, b.Name)
}

// Quotas are the quotas of all entities that have any. They never change, so that an equal pointer means equal quotas.
type Quotas struct {
	ByEntity map[QuotaEntity]map[QuotaKey]float64
}

// Sorted lists the entities, in an order that is always the same.
func (q *Quotas) Sorted() []QuotaEntity {
	return slices.SortedFunc(maps.Keys(q.ByEntity), compareQuotaEntities)
}

func (q *Quotas) equal(o *Quotas) bool {
	return q == o || maps.EqualFunc(q.ByEntity, o.ByEntity, maps.Equal)
}
