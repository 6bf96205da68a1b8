package txn

import (
	"time"

	"github.com/leatstream/leat/internal/coord"
)

// A batch of one scan has at most about this many tombstones.
const (
	maxBatchRecords = 10_000
	maxBatchBytes   = 256 << 10
)

// scanPause is the time between two batches of one scan.
const scanPause = time.Millisecond

// expireIDs deletes transactional ids that were not used for long and have no transaction. A
// producer that comes back gets another producer id. The timer scan calls it.
func (m *Machine) expireIDs(s *coord.Step) {
	set := m.settings()
	before := s.Now.Add(-set.Expiration).UnixMilli()
	for id, t := range m.ids {
		if len(s.Records()) >= maxBatchRecords || len(s.Buffer()) >= maxBatchBytes {
			m.timers.Set(&m.scan, s.Now.Add(scanPause))
			return
		}
		if t.isIdle() && t.updated <= before {
			putTombstone(s, id)
		}
	}
	m.timers.Set(&m.scan, s.Now.Add(set.ExpirationScan))
}
