package controller

import (
	"context"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
)

// Bootstrap records the cluster's id, unless the cluster has one. The cluster's tag
// (see meta.ProducerID) is drawn here and never changes. A new cluster has the latest level
// of the metadata, and clients' newer flow of transactions: no older version has to read it.
func (c *Controller) Bootstrap(ctx context.Context, clusterID string) error {
	return c.runCommand(ctx, ofCluster, func(m *meta.Image) []byte {
		if m.ClusterID != "" {
			return nil
		}
		_, tag := meta.NewClusterID()
		b := meta.Append(nil, meta.ClusterCreated{ID: clusterID, Tag: tag})
		b = meta.Append(b, meta.LevelSet{Level: meta.LatestLevel})
		b = meta.Append(b, meta.FeatureSet{Name: meta.TransactionFeature, Level: meta.TransactionLevels().Max})
		return appendConfigs(b, config.Resource{Type: config.Broker}, nil, c.cfg.Static.ForNewCluster())
	})
}

// AllocateProducerIDs reserves a block of n producer ids that nobody else gets, and
// returns the first. If it fails, the ids may be lost, but they are never given twice.
func (c *Controller) AllocateProducerIDs(ctx context.Context, n int64) (first int64, err error) {
	var full bool
	err = c.runCommand(ctx, ofClients, func(m *meta.Image) []byte {
		at := m.NextProducerID()
		if full = n < 1 || n > meta.MaxProducers-at; full {
			return nil
		}
		first = meta.ProducerID(m.Tag, at)
		return meta.Append(nil, meta.ProducerIDsGiven{Next: at + n})
	})
	if err == nil && full {
		return 0, ErrNoProducerIDs
	}
	return first, err
}

// Finalize finalizes a feature's level, if all registered brokers support it; 0 removes it.
func (c *Controller) Finalize(ctx context.Context, name string, level int16) (refused *Error, err error) {
	err = c.runCommand(ctx, ofClients, func(m *meta.Image) (records []byte) {
		r := Rules{Image: m, Static: c.cfg.Static}
		records, refused = r.Finalize(name, level)
		return records
	})
	if err != nil {
		return nil, err
	}
	return refused, nil
}
