package quota

import (
	"github.com/leatstream/leat/internal/meta"
)

// named and others are the parts of entities in tests: "" is no part, and "*" the default.
func namedPart(name string) meta.QuotaName {
	switch name {
	case "":
		return meta.QuotaName{}
	case "*":
		return meta.NamedQuota("")
	}
	return meta.NamedQuota(name)
}

func entityOf(user, client string) meta.QuotaEntity {
	return meta.QuotaEntity{User: namedPart(user), ClientID: namedPart(client)}
}

// world is a limiter with quotas that tests change.
type world struct {
	*Limiter
	set meta.Quotas
}

func newWorld(cfg Config) *world {
	return &world{Limiter: New(cfg), set: meta.Quotas{ByEntity: map[meta.QuotaEntity]map[meta.QuotaKey]float64{}}}
}

// change sets a quota; 0 removes it.
func (w *world) change(e meta.QuotaEntity, key meta.QuotaKey, value float64) {
	set := w.set.ByEntity[e]
	if set == nil {
		set = map[meta.QuotaKey]float64{}
		w.set.ByEntity[e] = set
	}
	if set[key] = value; value == 0 {
		delete(set, key)
	}
	w.SetTable(NewTable(&w.set))
}

func (w *world) use(user, client string, k Kind, value float64, now int64) int64 {
	return w.Use(w.Owner(nil, user, client), k, value, now)
}
