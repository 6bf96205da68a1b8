package meta

import (
	"maps"
	"math"
	"math/rand/v2"
	"testing"
)

// TestQuotas proves that quotas are what the records of them have set and unset, that an image never changes, and that a
// snapshot keeps all of them.
func TestQuotas(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	m := secured(t)
	name := func() QuotaName {
		return []QuotaName{{}, NamedQuota(""), NamedQuota("a"), NamedQuota("b")}[rnd.IntN(4)]
	}
	type place struct {
		e   QuotaEntity
		key QuotaKey
	}
	want := map[place]float64{}
	flat := func(m *Image) map[place]float64 {
		got := map[place]float64{}
		for e, set := range m.Quotas().ByEntity {
			for key, value := range set {
				got[place{e, key}] = value
			}
		}
		return got
	}
	for range 300 {
		var entry []byte
		before, had := m, maps.Clone(want)
		for range 1 + rnd.IntN(4) {
			p := place{QuotaEntity{User: name(), ClientID: name()}, ProducerByteRate}
			if rnd.IntN(4) == 0 {
				p = place{QuotaEntity{IP: name()}, ConnectionRate}
			} else if rnd.IntN(2) == 0 {
				p.key = RequestPercentage
			}
			if !p.e.HasKey(p.key) {
				continue
			}
			if _, ok := want[p]; ok && rnd.IntN(2) == 0 {
				delete(want, p)
				entry = Append(entry, QuotaUnset{p.e, p.key})
			} else {
				want[p] = 1 + rnd.Float64()
				entry = Append(entry, QuotaSet{p.e, p.key, want[p]})
			}
		}
		var delta *Delta
		m, delta = applyStep(t, m, entry)
		if got := flat(m); !maps.Equal(got, want) || delta.Quotas != (len(entry) > 0) || (m.Quotas() == before.Quotas()) != (len(entry) == 0) {
			t.Fatalf("there are %v, and not %v", got, want)
		}
		if !maps.Equal(flat(before), had) {
			t.Fatal("the image before has changed")
		}
		if Diff(before, m).Quotas == maps.Equal(had, want) {
			t.Fatal("the difference of the images is not that of their quotas")
		}
	}
	checkRefused(t, m,
		QuotaSet{QuotaEntity{}, ProducerByteRate, 1},
		QuotaSet{QuotaEntity{User: NamedQuota("a"), IP: NamedQuota("")}, ProducerByteRate, 1},
		QuotaSet{QuotaEntity{User: NamedQuota("a")}, ConnectionRate, 1},
		QuotaSet{QuotaEntity{IP: NamedQuota("a")}, ProducerByteRate, 1},
		QuotaSet{QuotaEntity{User: NamedQuota("a")}, "other", 1},
		QuotaSet{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate, 0},
		QuotaSet{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate, math.NaN()},
		QuotaSet{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate, math.Inf(1)},
		QuotaUnset{QuotaEntity{User: NamedQuota("nobody")}, ProducerByteRate},
	)
}
