package broker

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/wire"
)

// A link commits the positions of groups as they are at its source, and the mirror may not have all of these records yet. A consumer that began beyond the end of the log would be told that its offset
// is out of range, and would begin at the start or the end, whatever it is set to. So an answer to OffsetFetch has the end of the mirror in place of what is beyond it, as the partition's leader knows it.

// MirrorPlace is a partition that mirrors.
type MirrorPlace struct {
	Topic  *meta.Topic
	Number int32
}

func (p *MirrorPlace) leader() int32 { return p.Topic.Partitions[p.Number].Leader }

// endsTime is how long the leaders of mirrors may take to tell where these end.
const endsTime = 5 * time.Second

// mirroredOffset is a committed offset in an answer, of a partition that mirrors.
type mirroredOffset struct {
	group *kmsg.OffsetFetchResponseGroup
	at    *kmsg.OffsetFetchResponseGroupTopicPartition
}

// boundOffsets bounds the offsets of an answer that are of mirrors, and then calls done: at once, unless other nodes are to be asked.
func (b *Broker) boundOffsets(r *wire.Request, image *meta.Image, groups []kmsg.OffsetFetchResponseGroup, done func()) {
	if b.cfg.MirrorEnds == nil || image.Links().Len() == 0 {
		done()
		return
	}
	places, offsets := findMirrored(image, groups)
	if !slices.ContainsFunc(places, func(p MirrorPlace) bool { return p.leader() != b.cfg.NodeID }) {
		b.boundMirrored(b.cfg.Context(), places, offsets)
		done()
		return
	}
	conn := r.Conn // an answered request belongs to others
	b.done.Go(func() {
		defer conn.Contain()
		ctx, cancel := context.WithTimeout(b.cfg.Context(), endsTime)
		defer cancel()
		b.boundMirrored(ctx, places, offsets)
		done()
	})
}

// findMirrored finds the offsets of an answer that are of mirrors.
func findMirrored(image *meta.Image, groups []kmsg.OffsetFetchResponseGroup) (places []MirrorPlace, offsets []mirroredOffset) {
	for i := range groups {
		g := &groups[i]
		for j := range g.Topics {
			t := image.Topic(g.Topics[j].Topic)
			if t == nil || t.Mirror == nil {
				continue
			}
			list := g.Topics[j].Partitions
			for k := range list {
				p := &list[k]
				if p.ErrorCode == none && p.Offset > 0 && int(p.Partition) < len(t.Partitions) && t.Partitions[p.Partition].IsMirror() {
					places, offsets = append(places, MirrorPlace{t, p.Partition}), append(offsets, mirroredOffset{g, p})
				}
			}
		}
	}
	return places, offsets
}

// boundMirrored bounds offsets. A group that has one in a partition whose leader does not tell gets a code by which its consumers ask again: they could not read the partition either.
func (b *Broker) boundMirrored(ctx context.Context, places []MirrorPlace, offsets []mirroredOffset) {
	ends, known := b.cfg.MirrorEnds(ctx, places)
	for i, o := range offsets {
		if !known[i] {
			o.group.ErrorCode = kerr.CoordinatorLoadInProgress.Code
			continue
		}
		given, _ := position.Position{Offset: record.Offset(o.at.Offset), Epoch: record.Epoch(o.at.LeaderEpoch), Metadata: *o.at.Metadata}.Within(ends[i])
		o.at.Offset, o.at.LeaderEpoch, o.at.Metadata = int64(given.Offset), int32(given.Epoch), &given.Metadata
	}
	for _, o := range offsets {
		if o.group.ErrorCode != none {
			o.group.Topics = nil
		}
	}
}
