package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/record"
)

const (
	// tailBytes is how many bytes of the source's records are read at a time, and tailShare how many of one partition.
	tailBytes = 2 << 20
	tailShare = 512 << 10
	// leadersEvery is how often it is looked who leads the partitions, if nothing hints at a change.
	leadersEvery = 10 * time.Second
	// tailPause is the pause after a fetch that has failed.
	tailPause = 200 * time.Millisecond
)

// errRecordsGone says that the source has other records of groups than before.
var errRecordsGone = errors.New("the source has another " + offsetsTopic + " now, which is read from its start")

// tail reads the records of the source's groups, one goroutine for each broker that leads some of their partitions.
type tail struct {
	p     *positions
	topic *source.Topic
	hint  chan struct{} // of size 1; filled: somebody else may lead
	end   context.CancelCauseFunc

	parts    []tailPart // guarded by positions.mu
	compares bool       // the brokers compare epochs; guarded by positions.mu
}

// tailPart is where a partition is read.
type tailPart struct {
	leader, epoch int32 // as the source has last told; -1: none, or not known
	isBegun       bool  // offset is known
	offset        int64
	lastEpoch     int32 // of the record before the offset; -1: not known
}

// tail reads until the context ends, or the records cannot be read by this machine any more.
func (p *positions) tail(ctx context.Context, topic *source.Topic) error {
	t := &tail{p: p, topic: topic, hint: make(chan struct{}, 1)}
	ctx, t.end = context.WithCancelCause(ctx)
	defer t.end(nil)
	p.mu.Lock()
	p.mode = PositionsTailed
	p.mu.Unlock()
	var reading sync.WaitGroup
	defer reading.Wait()
	defer t.end(nil)
	readers := map[int32]bool{}
	for {
		for _, broker := range t.lead(topic) {
			if !readers[broker] {
				readers[broker] = true
				reading.Go(func() { t.read(ctx, broker) })
			}
		}
		timer := time.NewTimer(leadersEvery)
		select {
		case <-t.hint:
			timer.Reset(tailPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next, err := p.findRecords(ctx)
		switch {
		case err != nil:
			p.note(ctx, err)
			fill(t.hint)
		case next == nil || next.ID != t.topic.ID || len(next.Partitions) < len(t.topic.Partitions):
			return errRecordsGone
		default:
			topic = next
		}
	}
}

// lead takes who leads the partitions, and returns the brokers.
func (t *tail) lead(topic *source.Topic) (brokers []int32) {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	t.topic = topic
	t.p.machine.SetPartitions(len(topic.Partitions))
	for i := range topic.Partitions {
		of := &topic.Partitions[i]
		if i == len(t.parts) {
			t.parts = append(t.parts, tailPart{leader: of.Leader, epoch: of.LeaderEpoch, lastEpoch: -1})
		}
		part := &t.parts[i]
		if part.leader != of.Leader || part.epoch != of.LeaderEpoch {
			if !t.compares && part.isBegun {
				t.restart(int32(i))
			}
			part.leader, part.epoch = of.Leader, of.LeaderEpoch
		}
		if of.Leader >= 0 {
			brokers = append(brokers, of.Leader)
		}
	}
	return brokers
}

// restart reads a partition from its start. The caller has positions.mu.
func (t *tail) restart(number int32) {
	part := &t.parts[number]
	part.isBegun, part.offset, part.lastEpoch = false, 0, -1
	t.p.machine.Restart(number)
}

// read reads what one broker leads, until the context ends.
func (t *tail) read(ctx context.Context, broker int32) {
	for first := 0; ctx.Err() == nil; first++ {
		err := t.findStarts(ctx, broker)
		if err == nil {
			err = t.fetch(ctx, broker, first)
		}
		if err != nil && ctx.Err() == nil {
			t.p.note(ctx, err)
			fill(t.hint)
			sleep(ctx, tailPause)
		}
	}
}

// findStarts finds the starts of partitions that are not read yet.
func (t *tail) findStarts(ctx context.Context, broker int32) error {
	var places []source.Place
	var epochs []int32
	t.p.mu.Lock()
	for i := range t.parts {
		if part := &t.parts[i]; part.leader == broker && !part.isBegun {
			places, epochs = append(places, source.Place{Topic: t.topic.Name, ID: t.topic.ID, Number: int32(i)}), append(epochs, part.epoch)
		}
	}
	t.p.mu.Unlock()
	if len(places) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	found, err := t.p.client.FindOffsets(ctx, broker, places, epochs, source.Earliest)
	if err != nil {
		return err
	}
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	for i := range found {
		if found[i].Err != nil {
			err = found[i].Err
			continue
		}
		part := &t.parts[found[i].Number]
		part.isBegun, part.offset, part.lastEpoch = true, found[i].Offset, -1
	}
	return err
}

// fetch reads once from all partitions that a broker leads, beginning with another one each time: an answer that is full may lack the last ones.
func (t *tail) fetch(ctx context.Context, broker int32, first int) error {
	s := t.p.s
	list := t.places(broker, first)
	if len(list) == 0 {
		sleep(ctx, positionsTick)
		return nil
	}
	if err := s.rate.wait(ctx, s.s.now, true); err != nil {
		return errSessionEnded
	}
	bytes := min(s.rate.bound(tailBytes), s.s.cfg.Memory.Most(budget.Mirror)/16)
	memory, err := s.s.cfg.Memory.Reserve(ctx, budget.Mirror, bytes)
	if err != nil {
		return err
	}
	defer memory.Release()
	for i := range list {
		list[i].MaxBytes = int32(min(bytes, tailShare))
	}
	answerBy, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	sent := time.Now()
	f, err := t.p.client.Fetch(answerBy, broker, list, source.Bounds{MaxBytes: int32(bytes), MinBytes: 1, Wait: tipWait})
	if err != nil {
		return err
	}
	size := 0
	for i := range f.Batches {
		size += len(f.Batches[i].Raw)
	}
	s.rate.spend(s.s.now(), size)
	err = t.take(broker, list, f, sent)
	fill(t.p.wake)
	return err
}

// places are where the partitions of a broker are read.
func (t *tail) places(broker int32, first int) (list []source.Position) {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	for k := range t.parts {
		i := (k + first) % len(t.parts)
		if part := &t.parts[i]; part.leader == broker && part.isBegun {
			at := source.Place{Topic: t.topic.Name, ID: t.topic.ID, Number: int32(i)}
			list = append(list, source.Position{Place: at, Offset: part.offset, Leader: part.epoch, LastEpoch: part.lastEpoch})
		}
	}
	return list
}

// take takes an answer. The error is one of its partitions'.
func (t *tail) take(broker int32, list []source.Position, f *source.Fetched, sent time.Time) (err error) {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	t.compares = f.ComparesEpochs()
	for i := range f.Batches {
		b := &f.Batches[i]
		part := &t.parts[b.Number]
		if part.leader != broker || !part.isBegun || part.offset != list[i].Offset {
			continue // it is read by somebody else, or from its start
		}
		switch {
		case source.IsOutOfRange(b.Err) || b.Diverged != nil:
			t.restart(b.Number)
			continue
		case source.IsDenied(b.Err):
			t.p.tailAt = time.Time{}
			t.end(errRecordsGone) // it is found out anew how positions can be followed
		}
		if b.Err != nil {
			err = b.Err
			continue
		}
		if e := t.apply(b.Number, part, b.Raw); e != nil {
			err = e
			continue
		}
		if part.offset >= b.HighWatermark {
			t.p.machine.CaughtUp(b.Number, sent.UnixMilli())
		}
	}
	if err == nil {
		t.p.trouble = nil
	}
	return err
}

// apply applies the batches of one partition, of which the last one may be cut. The caller has positions.mu.
func (t *tail) apply(number int32, part *tailPart, raw []byte) error {
	for rest := raw; len(rest) > 0; {
		b, next, err := record.Next(rest)
		if err != nil {
			if len(rest) == len(raw) {
				return fmt.Errorf("the source sends no whole batch of %s-%d at offset %d: %w", offsetsTopic, number, part.offset, err)
			}
			return nil
		}
		if err = b.Verify(); err == nil {
			err = t.p.machine.Read(number, b, time.Now().UnixMilli())
		}
		switch {
		case errors.Is(err, position.ErrFull):
			t.end(err)
			return err
		case errors.Is(err, position.ErrNewer):
			t.p.refuseTailLocked(tailAgain, "the source has records of its groups that this version of Leat does not know")
			t.end(errRecordsGone)
			return err
		case err != nil:
			return fmt.Errorf("%s-%d of the source at offset %d: %w", offsetsTopic, number, part.offset, err)
		}
		part.offset, part.lastEpoch = int64(b.NextOffset()), int32(b.LeaderEpoch())
		rest = next
	}
	return nil
}
