package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Probe asks one broker, at the address by which it is reached, for the versions that it speaks: it answers if it can be reached, and accepts the login. The error is ErrOld for one that is too old.
func (s *Client) Probe(ctx context.Context, broker int32) error {
	q := kmsg.NewPtrApiVersionsRequest()
	q.ClientSoftwareName, q.ClientSoftwareVersion = "leat-link", "1" // without which it is refused (KIP-511)
	resp, err := s.cl.Broker(int(broker)).Request(ctx, q)
	if err != nil {
		return err
	}
	r, ok := resp.(*kmsg.ApiVersionsResponse)
	switch {
	case !ok:
		return fmt.Errorf("source: the answer to ApiVersions is a %T", resp)
	case r.ErrorCode != 0:
		return errorOf(r.ErrorCode)
	}
	return checkVersions(r)
}

// ErrNoClock says that a source does not tell what time it is.
var ErrNoClock = errors.New("the source does not tell its time")

// Ahead is by how much a source's clock is ahead of the one here, at least and at most. A source whose metadata are kept by KRaft tells when its quorum's leader was last up to date, by its clock. The
// error is ErrNoClock for others, and for those that do not let the client ask.
func (s *Client) Ahead(ctx context.Context) (least, most time.Duration, err error) {
	q := kmsg.NewPtrDescribeQuorumRequest()
	p := kmsg.NewDescribeQuorumRequestTopicPartition()
	q.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{p}}}
	before := time.Now()
	r, err := ask[*kmsg.DescribeQuorumResponse](ctx, s, anyBroker, q)
	after := time.Now()
	if err != nil || r.ErrorCode != 0 || len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		return 0, 0, fmt.Errorf("%w: %w", ErrNoClock, errors.Join(err, errorOf(codeOf(r))))
	}
	d := &r.Topics[0].Partitions[0]
	for i := range d.CurrentVoters {
		if v := &d.CurrentVoters[i]; v.ReplicaID == d.LeaderID && v.LastCaughtUpTimestamp > 0 {
			theirs := time.UnixMilli(v.LastCaughtUpTimestamp)
			return theirs.Sub(after), theirs.Add(time.Millisecond).Sub(before), nil
		}
	}
	return 0, 0, ErrNoClock
}

func codeOf(r *kmsg.DescribeQuorumResponse) int16 {
	if r == nil {
		return 0
	}
	return r.ErrorCode
}

// IsDenied tells whether an error says that the client has no right to something.
func IsDenied(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed)
}

// IsLoginRefused tells whether an error says that the login was refused.
func IsLoginRefused(err error) bool {
	return errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.IllegalSaslState)
}

// IsOutOfRange tells whether an error says that the log has no such offset.
func IsOutOfRange(err error) bool { return errors.Is(err, kerr.OffsetOutOfRange) }
