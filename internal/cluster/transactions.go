package cluster

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/peer"
)

// Transactions carries what the coordinators of transactions and the leaders of partitions say to each other. Those are
// requests of Kafka's protocol, which the broker of the other node serves. Each kind has a connection of its own, since
// a marker may wait long for the replicas of its partition. A request that is not answered may have been carried out.
type Transactions struct{ links *peer.Links }

// NewTransactions makes the Transactions of a node.
func NewTransactions(links *peer.Links) *Transactions { return &Transactions{links} }

// AddPartitions asks the coordinators of a node about partitions of transactions.
func (t *Transactions) AddPartitions(ctx context.Context, node int32, req *kmsg.AddPartitionsToTxnRequest) (*kmsg.AddPartitionsToTxnResponse, error) {
	resp, err := t.request(ctx, node, peer.Checks, req)
	if err != nil {
		return nil, err
	}
	answer, ok := resp.(*kmsg.AddPartitionsToTxnResponse)
	if !ok {
		return nil, errAnswer
	}
	return answer, nil
}

// WriteMarkers has a node write markers into the partitions that it leads.
func (t *Transactions) WriteMarkers(ctx context.Context, node int32, req *kmsg.WriteTxnMarkersRequest) (*kmsg.WriteTxnMarkersResponse, error) {
	resp, err := t.request(ctx, node, peer.Markers, req)
	if err != nil {
		return nil, err
	}
	answer, ok := resp.(*kmsg.WriteTxnMarkersResponse)
	if !ok {
		return nil, errAnswer
	}
	return answer, nil
}

func (t *Transactions) request(ctx context.Context, node int32, p peer.Purpose, req kmsg.Request) (kmsg.Response, error) {
	conn, err := t.links.Get(ctx, node, p)
	if err != nil {
		return nil, &unansweredError{node, err}
	}
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), &unansweredError{node, err})
	}
	return resp, nil
}
