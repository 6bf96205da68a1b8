package storage

import (
	"math"
	"time"

	"github.com/leatstream/leat/internal/storage/producer"
)

// Producer is one idempotent producer's state in a log.
type Producer = producer.Description

// CountProducers counts a log's active producers.
func CountProducers(l *Log) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := prepareProducersLocked(l); err != nil {
		return 0, err
	}
	return l.writer.producers.Len(), nil
}

// Producers lists the active producers (DescribeProducers), at most so many. It copies them in
// pieces, so that appends need not wait until all are copied.
func (l *Log) Producers(most int) ([]Producer, error) {
	var d describer
	for {
		if done, err := d.copyMore(l, most); done || err != nil {
			return d.list, err
		}
	}
}

const (
	// describedAtOnce is how many producers are copied while appends wait. It takes less than a
	// tenth of a millisecond.
	describedAtOnce = 1024
	// describeRestarts is how often a list begins again because producers were removed while it
	// was made. Then the rest is copied at once, so that the list has an end.
	describeRestarts = 3
)

// describer makes a list of a log's producers in pieces.
type describer struct {
	list     []Producer
	from     *writer // that has the producers
	removals int     // of its producers when the list began
	starts   int
}

// copyMore copies the next producers. It tells whether the list is complete.
func (d *describer) copyMore(l *Log, most int) (done bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := prepareProducersLocked(l); err != nil {
		return false, err
	}
	w := l.writer
	most = min(most, w.producers.Len())
	if d.from != w || d.removals != w.producers.Removals() { // the places of producers have changed
		d.list, d.from, d.removals = make([]Producer, 0, most), w, w.producers.Removals()
		d.starts++
	}
	n := describedAtOnce
	if d.starts > describeRestarts {
		n = math.MaxInt
	}
	d.list = w.producers.DescribeMore(d.list, min(n, most-len(d.list)))
	return len(d.list) >= most, nil
}

// prepareProducersLocked sees to it that the log's producers are known, and forgets those that
// have expired.
func prepareProducersLocked(l *Log) error {
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	if err := l.prepareWriterLocked(); err != nil {
		return err
	}
	l.writer.boundProducers(time.Now().UnixMilli())
	return nil
}
