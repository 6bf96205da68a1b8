package mirror

import (
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// parting tells what was known of the source when the promotion of the partition began, so that a report can say what is lost; nil: the partition is not being promoted, or this node does not lead it, or cannot use its log now.
func (p *partition) parting() *meta.Parting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parted
}

// countOpen is how many transactions are open in the log; -1: it is not known. Whoever promotes a partition with some does not know how they end at the source.
func (p *partition) countOpen() int {
	open, err := p.s.cfg.Transactions(p.id).Open()
	if err != nil {
		return -1
	}
	return len(open)
}

// part notes what is known of the source when this node learns that the partition is being promoted: later the log may end elsewhere, by the markers that a promotion writes. was is the state in the
// metadata until then; 0: it is not known, since this node did not lead. mu is held.
func (p *partition) part(was meta.PartitionMirrorState) {
	l := p.machine.Loss(p.s.now())
	r := &meta.Parting{State: was, End: int64(l.MirrorEnd), SourceEnd: -1, Bytes: -1, BegunMs: time.Now().UnixMilli()}
	if l.HighWatermark >= 0 && was != meta.PartitionRecreated { // else it may be that of another topic
		r.SourceEnd = int64(l.HighWatermark)
		if l.Lag.Records > 0 {
			r.End = r.SourceEnd - l.Lag.Records // an empty log, and one behind an accepted loss, go on beyond their ends
		}
		if l.Lag.Records == 0 || l.Lag.Bytes > 0 {
			r.Bytes = l.Lag.Bytes
		}
	}
	if start := p.at.mirror.Gap.End; was == meta.PartitionGap && start > r.SourceEnd { // the source was known to begin there, and not how far it goes
		r.End, r.SourceEnd, r.Bytes = int64(l.MirrorEnd), start, -1
	}
	if l.SinceContact >= 0 {
		r.ContactMs = max(0, r.BegunMs-l.SinceContact.Milliseconds())
	}
	if l.Lag.IsKnown {
		r.AsOfMs = max(0, r.BegunMs-l.Lag.RPO.Milliseconds())
	}
	p.parted = r
}

// followPromotion notes the parting when the partition begins to be promoted. was is what the metadata have said before; nil: this node did not lead. The machine has been told what they say now. mu is held.
func (p *partition) followPromotion(was *order) {
	switch {
	case p.at == nil || p.at.mirror.State != meta.PartitionPromoting:
		p.parted = nil
	case p.parted != nil:
	case was == nil || was.mirror.State == meta.PartitionPromoting:
		p.part(0)
	default:
		p.part(was.mirror.State)
	}
}
