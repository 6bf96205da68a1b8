package replica

import (
	"math"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// transactionAges remembers since when transactions are open in the partitions that this node leads. The records'
// timestamps do not tell it, since producers choose them.
type transactionAges struct {
	mu    sync.Mutex
	since map[openTransaction]time.Duration // a time of Now; guarded by mu
}

type openTransaction struct {
	p     *Partition
	first record.Offset
}

// OpenTransactions counts the transactions that are open in partitions which this node leads, one in several partitions in each, and
// says for how long the oldest of them is open; 0: none is. That counts from the first call that has found the transaction, so that
// it is to be called now and then. It opens no log.
func OpenTransactions(s *Set) (count int, oldest time.Duration) {
	a, now := &s.ages, s.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.since
	a.since = map[openTransaction]time.Duration{}
	for p := range s.Partitions() {
		if !p.IsOpen() || p.CheckLeader(record.NoEpoch) != nil || !storage.HasTransactions(p.log.Load(), math.MaxInt64) {
			continue
		}
		open, err := storage.OpenTransactions(p.log.Load())
		if err != nil {
			continue // the log has a metric of its own for that
		}
		for i := range open {
			x := openTransaction{p, open[i].First}
			since, isKnown := before[x]
			if !isKnown {
				since = now
			}
			a.since[x] = since
			oldest = max(oldest, now-since)
		}
	}
	return len(a.since), oldest
}
