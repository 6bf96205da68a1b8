package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// ListOffsets, key 2, versions 1 to 11.
//
// 2: isolation level. 4: leader epoch (KIP-320). 6: flexible. 7: the largest
// timestamp (KIP-734). 8: earliest local (KIP-405). 9: latest tiered (KIP-1005).
// 10: time-out for tiers (KIP-1075). 11: earliest pending upload (KIP-1023).
//
// Nothing is tiered yet: the earliest local offset is the earliest one, and nothing
// was uploaded or waits for it.

// The timestamps that stand for something else.
const (
	latestOffset          = -1
	earliestOffset        = -2
	maxTimestampOffset    = -3
	earliestLocalOffset   = -4
	latestTieredOffset    = -5
	earliestPendingOffset = -6
)

// specialSince is the version in which a special timestamp came; 0: there is none such.
func specialSince(timestamp int64) int16 {
	switch timestamp {
	case latestOffset, earliestOffset:
		return 1
	case maxTimestampOffset:
		return 7
	case earliestLocalOffset:
		return 8
	case latestTieredOffset:
		return 9
	case earliestPendingOffset:
		return 11
	}
	return 0
}

func (s *session) listOffsets(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListOffsetsRequest)
	resp := kmsg.NewPtrListOffsetsResponse()
	times := make(map[int32]int) // how often a partition of one topic is named: more than once is an error
	for _, t := range req.Topics {
		clear(times)
		for _, q := range t.Partitions {
			times[q.Partition]++
		}
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for _, q := range t.Partitions {
			if times[q.Partition] == 0 {
				continue // answered
			}
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition = q.Partition
			if times[q.Partition] > 1 {
				rp.Offset, rp.Timestamp, rp.LeaderEpoch = -1, -1, -1
				rp.ErrorCode = kerr.InvalidRequest.Code
			} else {
				s.b.listOffset(t.Topic, &q, r.Version, &rp)
			}
			times[q.Partition] = 0
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.Reply(resp)
	return nil
}

func (b *Broker) listOffset(topic string, q *kmsg.ListOffsetsRequestTopicPartition, version int16, rp *kmsg.ListOffsetsResponseTopicPartition) {
	rp.Offset, rp.Timestamp, rp.LeaderEpoch = -1, -1, -1
	if since := specialSince(q.Timestamp); q.Timestamp < 0 && (since == 0 || version < since) {
		rp.ErrorCode = kerr.UnsupportedVersion.Code
		return
	}
	p, code := b.find([]byte(topic), [16]byte{}, q.Partition, false)
	if p == nil {
		rp.ErrorCode = code
		return
	}
	at, err := findOffset(p, q)
	if err != nil {
		rp.ErrorCode = codeOf(err)
		return
	}
	rp.Offset, rp.Timestamp, rp.LeaderEpoch = int64(at.offset), at.time, int32(at.epoch)
}

// place is an answer of ListOffsets; nowhere stands for "there is no such record".
type place struct {
	offset record.Offset
	time   int64
	epoch  record.Epoch
}

func nowhere() place { return place{offset: -1, time: -1, epoch: record.NoEpoch} }

func findOffset(p *replica.Partition, q *kmsg.ListOffsetsRequestTopicPartition) (place, error) {
	if err := p.Leads(record.Epoch(q.CurrentLeaderEpoch)); err != nil {
		return place{}, err
	}
	log, end := p.Log(), p.LastStableOffset()
	at := nowhere()
	switch q.Timestamp {
	case latestOffset:
		at.offset, at.epoch = end, p.Leadership().Epoch
		return at, nil
	case earliestOffset, earliestLocalOffset:
		start, err := log.Start()
		at.offset, at.epoch = start, log.EpochAt(start)
		return at, err
	case latestTieredOffset, earliestPendingOffset:
		return at, nil
	}
	find := func() (place, bool, error) {
		s, ok, err := log.FindTime(q.Timestamp)
		return place{s.Offset, s.Time, s.Epoch}, ok, err
	}
	if q.Timestamp == maxTimestampOffset {
		find = func() (place, bool, error) {
			s, ok, err := log.MaxTime()
			return place{s.Offset, s.Time, s.Epoch}, ok, err
		}
	}
	found, ok, err := find()
	if err != nil || !ok || found.offset >= end {
		return at, err
	}
	return found, nil
}
