package cli

import "sync"

// ledger compares the records that were acknowledged with those that were read: each that was acknowledged is
// read, at its place, as it was sent. A consumer reads a partition in order, so a record that was acknowledged
// at a place which the consumer has passed, and was not read there, is lost. Any goroutine may use it.
type ledger struct {
	mu         sync.Mutex
	partitions map[int32]*partitionLedger // guarded by mu
	lost       int                        // guarded by mu
}

// partitionLedger is the ledger of a partition.
type partitionLedger struct {
	acknowledged map[int64]uint64 // and not read: when each was sent, by offset
	read         map[int64]uint64 // and not acknowledged yet: the same
	next         int64            // the offset behind the last one that was read
}

func newLedger() *ledger { return &ledger{partitions: map[int32]*partitionLedger{}} }

// partitionLocked returns the ledger of a partition. The caller holds mu.
func (l *ledger) partitionLocked(partition int32) *partitionLedger {
	p := l.partitions[partition]
	if p == nil {
		p = &partitionLedger{acknowledged: map[int64]uint64{}, read: map[int64]uint64{}}
		l.partitions[partition] = p
	}
	return p
}

// noteAcknowledged notes that a record was acknowledged. It was sent at that time.
func (l *ledger) noteAcknowledged(partition int32, offset int64, sent uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.partitionLocked(partition)
	if offset >= p.next {
		p.acknowledged[offset] = sent
		return
	}
	if was, ok := p.read[offset]; !ok || was != sent {
		l.lost++
	}
	delete(p.read, offset)
}

// noteRead notes that a record was read. It returns false for one that was read before, as the member that
// takes over a partition reads records again.
func (l *ledger) noteRead(partition int32, offset int64, sent uint64) (isNew bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.partitionLocked(partition)
	if offset < p.next {
		return false
	}
	for skipped := p.next; skipped < offset; skipped++ {
		if _, ok := p.acknowledged[skipped]; ok {
			l.lost++
			delete(p.acknowledged, skipped)
		}
	}
	p.next = offset + 1
	was, isAcknowledged := p.acknowledged[offset]
	switch {
	case !isAcknowledged:
		p.read[offset] = sent
	case was != sent:
		l.lost++
	}
	delete(p.acknowledged, offset)
	return true
}

// countLost counts the records that are lost for sure.
func (l *ledger) countLost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
