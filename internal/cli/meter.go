package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// meter counts records and shows the user how many have passed so far. addRecord and tellPerson may
// be called from any goroutine.
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

// meterShows is how much a meter shows on a terminal.
type meterShows int8

const (
	showNothing meterShows = iota
	showSum                // a line at the end
	showLive               // also a line that is drawn anew while records pass
)

// meterDelay is how long a transfer runs before its line is drawn, and how often the line is drawn
// anew.
const meterDelay = 500 * time.Millisecond

// newMeter starts a meter, which draws on w until stopAndSumUp is called. If w is not a terminal it shows
// nothing.
func newMeter(w io.Writer, verb string, shows meterShows) *meter {
	m := &meter{started: time.Now(), verb: verb, stop: make(chan struct{}), w: w, shows: shows}
	if _, ok := terminalWidth(w); !ok {
		m.shows = showNothing
	}
	if m.shows == showLive {
		m.drawing.Go(m.drawUntilStopped)
	}
	return m
}

func (m *meter) addRecord(bytes int) {
	m.records.Add(1)
	m.bytes.Add(int64(bytes))
}

// tellPerson writes a line for the user. The meter's own line moves below it.
func (m *meter) tellPerson(sentence string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = fmt.Fprintf(m.w, "%sleat: %s\n", m.clearLine(), escapeLines(sentence))
}

// clearLine gives the text that clears the meter's line.
func (m *meter) clearLine() string {
	if m.shows == showLive {
		return "\r\x1b[K"
	}
	return ""
}

func (m *meter) drawUntilStopped() {
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
			line := fmt.Sprintf("%s %s, %s; %s records/s, %s/s", m.verb, formatCount(int(records), "record"), formatSize(float64(bytes)),
				formatNumber(int64(float64(records-lastRecords)*perSecond)), formatSize(float64(bytes-lastBytes)*perSecond))
			width, _ := terminalWidth(m.w)
			m.mu.Lock()
			// A terminal that cannot be written to is no reason to stop the transfer.
			_, _ = fmt.Fprint(m.w, m.clearLine(), line[:min(len(line), max(width-1, 0))])
			m.mu.Unlock()
		}
		lastRecords, lastBytes = records, bytes
	}
}

// stopAndSumUp stops the drawing and writes the sum.
func (m *meter) stopAndSumUp() {
	close(m.stop)
	m.drawing.Wait()
	if m.shows == showNothing {
		return
	}
	took := time.Since(m.started)
	records, bytes := m.records.Load(), m.bytes.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = fmt.Fprintf(m.w, "%s%s %s, %s in %s: %s records/s, %s/s\n", m.clearLine(), m.verb, formatCount(int(records), "record"), formatSize(float64(bytes)),
		formatDuration(took), formatNumber(int64(float64(records)/took.Seconds())), formatSize(float64(bytes)/took.Seconds()))
}
