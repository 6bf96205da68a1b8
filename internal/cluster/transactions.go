package cluster

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/peer"
)

// Transactions carries what the coordinators of transactions and the leaders of partitions say to each other. Those are
// requests of Kafka's protocol, which the broker of the other node serves. Each kind has connections of its own, since
// a marker may wait long for the replicas of its partition. A request that is not answered may have been carried out.
type Transactions struct{ links *peer.Links }

// NewTransactions makes the Transactions of a node.
func NewTransactions(links *peer.Links) *Transactions { return &Transactions{links} }

// AddPartitions asks the coordinators of a node about partitions of transactions, on one of the connections for that.
func (t *Transactions) AddPartitions(ctx context.Context, node int32, connection int, req *kmsg.AddPartitionsToTxnRequest) (*kmsg.AddPartitionsToTxnResponse, error) {
	resp, err := requestFrom(ctx, t.links.Get, to{node, peer.Check(connection)}, req)
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
	resp, err := requestFrom(ctx, t.links.Get, to{node, peer.Markers}, req)
	if err != nil {
		return nil, err
	}
	answer, ok := resp.(*kmsg.WriteTxnMarkersResponse)
	if !ok {
		return nil, errAnswer
	}
	return answer, nil
}

// AppendAudit has a node append events to the partition of the audit log that it leads.
func AppendAudit(ctx context.Context, links *peer.Links, node int32, req *kmsg.ProduceRequest) (*kmsg.ProduceResponse, error) {
	resp, err := requestFrom(ctx, links.Get, to{node, peer.Audit}, req)
	if err != nil {
		return nil, err
	}
	answer, ok := resp.(*kmsg.ProduceResponse)
	if !ok {
		return nil, errAnswer
	}
	return answer, nil
}

// to is a connection to a node.
type to struct {
	node    int32
	purpose peer.Purpose
}

// requestFrom sends a request of Kafka's protocol to a node, and returns its answer.
func requestFrom(ctx context.Context, connect func(ctx context.Context, node int32, p peer.Purpose) (*peer.Conn, error), t to, req kmsg.Request) (kmsg.Response, error) {
	conn, err := connect(ctx, t.node, t.purpose)
	if err != nil {
		return nil, &unansweredError{t.node, err}
	}
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), &unansweredError{t.node, err})
	}
	return resp, nil
}
