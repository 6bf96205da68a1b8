package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what moves and shows it to a person while it moves. add and notice may be
// called from any goroutine.
type meter struct {
	records, bytes atomic.Int64
	started        time.Time
	verb           string
	shows          meterShows
	stop           chan struct{}
	drawing        sync.WaitGroup

	mu sync.Mutex // guards the last line of w
	w  io.Writer
}

// meterShows is how much a meter shows, if w is a terminal.
type meterShows int8

const (
	showNothing meterShows = iota
	showSum                // at the end
	showLive               // a line while things move, too
)

// meterDelay is how long a transfer takes before it is worth a line, and how often
// the line is drawn.
const meterDelay = 500 * time.Millisecond

// newMeter draws on w, if that is a terminal, until finish.
func newMeter(w io.Writer, verb string, shows meterShows) *meter {
	m := &meter{started: time.Now(), verb: verb, stop: make(chan struct{}), w: w, shows: shows}
	if _, ok := terminalWidth(w); !ok {
		m.shows = showNothing
	}
	if m.shows == showLive {
		m.drawing.Go(m.draw)
	}
	return m
}

func (m *meter) add(bytes int) {
	m.records.Add(1)
	m.bytes.Add(int64(bytes))
}

// notice writes a line for people; the meter's own line is drawn anew below it.
func (m *meter) notice(sentence string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = fmt.Fprintf(m.w, "%sleat: %s\n", m.wipe(), sentence)
}

// wipe is what clears the meter's line.
func (m *meter) wipe() string {
	if m.shows == showLive {
		return "\r\x1b[K"
	}
	return ""
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
			line := fmt.Sprintf("%s %s, %s; %s records/s, %s/s", m.verb, count(int(records), "record"), size(float64(bytes)),
				number(int64(float64(records-lastRecords)*perSecond)), size(float64(bytes-lastBytes)*perSecond))
			width, _ := terminalWidth(m.w)
			m.mu.Lock()
			// A terminal that cannot be written to is no reason to stop the transfer.
			_, _ = fmt.Fprint(m.w, m.wipe(), line[:min(len(line), max(width-1, 0))])
			m.mu.Unlock()
		}
		lastRecords, lastBytes = records, bytes
	}
}

// finish ends the drawing and sums up.
func (m *meter) finish() {
	close(m.stop)
	m.drawing.Wait()
	if m.shows == showNothing {
		return
	}
	took := time.Since(m.started)
	records, bytes := m.records.Load(), m.bytes.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = fmt.Fprintf(m.w, "%s%s %s, %s in %s: %s records/s, %s/s\n", m.wipe(), m.verb, count(int(records), "record"), size(float64(bytes)),
		duration(took), number(int64(float64(records)/took.Seconds())), size(float64(bytes)/took.Seconds()))
}
