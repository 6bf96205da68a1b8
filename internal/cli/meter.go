package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what moves and shows it to a person while it moves. add may be
// called from any goroutine.
type meter struct {
	records, bytes atomic.Int64
	started        time.Time
	w              io.Writer // nil: nobody looks
	verb           string
	stop           chan struct{}
	drawing        sync.WaitGroup
}

// meterDelay is how long a transfer takes before it is worth a line, and how often
// the line is drawn.
const meterDelay = 500 * time.Millisecond

// newMeter draws on w, if that is a terminal, until finish.
func newMeter(w io.Writer, verb string) *meter {
	m := &meter{started: time.Now(), verb: verb, stop: make(chan struct{})}
	if _, ok := terminalWidth(w); ok {
		m.w = w
		m.drawing.Go(m.draw)
	}
	return m
}

func (m *meter) add(bytes int) {
	m.records.Add(1)
	m.bytes.Add(int64(bytes))
}

func (m *meter) draw() {
	tick := time.NewTicker(meterDelay)
	defer tick.Stop()
	var lastRecords, lastBytes int64
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
		}
		records, bytes := m.records.Load(), m.bytes.Load()
		perSecond := float64(time.Second / meterDelay)
		if records > 0 {
			// A terminal that cannot be written to is no reason to stop the transfer.
			_, _ = fmt.Fprintf(m.w, "\r\x1b[K%s %s records, %s; %s records/s, %s/s", m.verb, number(records), size(float64(bytes)),
				number(int64(float64(records-lastRecords)*perSecond)), size(float64(bytes-lastBytes)*perSecond))
		}
		lastRecords, lastBytes = records, bytes
	}
}

// finish ends the drawing and sums up.
func (m *meter) finish() {
	close(m.stop)
	m.drawing.Wait()
	if m.w == nil {
		return
	}
	took := time.Since(m.started)
	records, bytes := m.records.Load(), m.bytes.Load()
	_, _ = fmt.Fprintf(m.w, "\r\x1b[K%s %s records, %s in %s: %s records/s, %s/s\n", m.verb, number(records), size(float64(bytes)),
		duration(took), number(int64(float64(records)/took.Seconds())), size(float64(bytes)/took.Seconds()))
}
