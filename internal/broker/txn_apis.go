package broker

import (
	"log/slog"

	"github.com/leatstream/leat/internal/meta"
)

// txnAPIs are the APIs of transactions' coordinators, beside InitProducerId and FindCoordinator.
func txnAPIs(b *Broker) []api {
	if b.cfg.Txns == nil {
		return nil
	}
	return []api{
		{key: 24, name: "AddPartitionsToTxn", min: 0, max: 5, serve: b.addPartitionsToTxn},
		{key: 25, name: "AddOffsetsToTxn", min: 0, max: 4, serve: b.addOffsetsToTxn},
		{key: 26, name: "EndTxn", min: 0, max: 5, serve: b.endTxn},
		{key: 65, name: "DescribeTransactions", min: 0, max: 0, serve: b.describeTransactions},
		{key: 66, name: "ListTransactions", min: 0, max: 2, serve: b.listTransactions},
	}
}

// hasTransactions tells whether all nodes of the cluster know transactions, those also that do not run. Until the last
// one is upgraded, its partitions could not take markers, so nobody begins a transaction.
func hasTransactions(m *meta.Image) bool {
	for _, b := range m.Brokers {
		if !supportsFeature(b, meta.TransactionFeature, meta.TransactionLevels().Max) {
			return false
		}
	}
	return true
}

func supportsFeature(b *meta.Broker, name string, level int16) bool {
	for _, f := range b.Features {
		if f.Name == name {
			return f.Min <= level && level <= f.Max
		}
	}
	return false
}

// ensureTopic creates a coordinator's topic if there is none, and waits for it. A failure is logged: the client is
// told that there is no coordinator, and asks again.
func (b *Broker) ensureTopic(name string) {
	if b.cfg.Image().Topic(name) != nil {
		return
	}
	ctx, cancel := b.withinServerTime(serverTimeShare)
	defer cancel()
	if err := b.cfg.EnsureTopic(ctx, name); err != nil {
		b.cfg.Logger.Warn("cannot create a topic that coordinators need", slog.String("topic", name), slog.Any("err", err))
	}
}
