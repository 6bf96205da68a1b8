package coord

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// twin is a Log in memory. A Commit moves its high watermark to its end, unless the test
// holds it back. So a wait never ends if the code under test forgets to commit.
type twin struct {
	mu      sync.Mutex
	batches []record.Batch
	end     record.Offset
	hw      record.Offset
	held    bool
	fail    error // of the next appends
	unread  error // of the next reads
	gone    bool  // another node leads
	waits   []wait
	appends int
}

type wait struct {
	off   record.Offset
	limit time.Duration
	fn    func(error)
}

func (l *twin) AppendMarker(b record.Batch, e record.Epoch, _ int16) (record.Offset, error) {
	return l.AppendBatch(b, e)
}

func (l *twin) AppendBatch(b record.Batch, e record.Epoch) (record.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	b = bytes.Clone(b)
	b.SetBaseOffset(l.end)
	b.SetLeaderEpoch(e)
	l.batches = append(l.batches, b)
	l.end = b.NextOffset()
	l.appends++
	return l.end, nil
}

func (l *twin) Commit() {
	l.mu.Lock()
	held, end := l.held, l.end
	l.mu.Unlock()
	if !held {
		l.commit(end)
	}
}

func (l *twin) Await(_ record.Epoch, off record.Offset, limit time.Duration, fn func(error)) {
	l.mu.Lock()
	if l.gone {
		l.mu.Unlock()
		fn(ErrNotLeading)
		return
	}
	if l.hw < off {
		l.waits = append(l.waits, wait{off, limit, fn})
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	fn(nil)
}

// commit moves the high watermark and ends the waits for it.
func (l *twin) commit(to record.Offset) {
	l.mu.Lock()
	l.hw = to
	var due []wait
	l.waits = slices.DeleteFunc(l.waits, func(w wait) bool {
		if w.off <= to {
			due = append(due, w)
		}
		return w.off <= to
	})
	l.mu.Unlock()
	for _, w := range due {
		w.fn(nil)
	}
}

// lose ends all waits: the node leads no longer.
func (l *twin) lose(err error) {
	l.mu.Lock()
	due := l.waits
	l.waits = nil
	l.mu.Unlock()
	for _, w := range due {
		w.fn(err)
	}
}

// pass ends the waits whose limit is not more than d.
func (l *twin) pass(d time.Duration, err error) {
	l.mu.Lock()
	var due []wait
	l.waits = slices.DeleteFunc(l.waits, func(w wait) bool {
		over := w.limit != 0 && w.limit <= d
		if over {
			due = append(due, w)
		}
		return over
	})
	l.mu.Unlock()
	for _, w := range due {
		w.fn(err)
	}
}

func (l *twin) ReadBatches(off, end record.Offset, _ int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unread != nil {
		return nil, l.unread
	}
	var out []byte
	for _, b := range l.batches {
		if b.NextOffset() > off && b.NextOffset() <= end {
			out = append(out, b...)
			if len(out) > 200 { // a few batches at a time, so that loading takes several reads
				break
			}
		}
	}
	return out, nil
}

func (l *twin) IsCommitted(_ record.Epoch, off record.Offset) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return off <= l.hw && !l.gone
}

func (l *twin) End() (record.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end, l.unread
}

func (l *twin) Start() record.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.batches) > 0 {
		return l.batches[0].BaseOffset()
	}
	return 0
}

func (l *twin) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}
