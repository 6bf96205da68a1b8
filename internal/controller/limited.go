package controller

import (
	"context"

	"github.com/leatstream/leat/internal/meta"
)

// Permit tells whether so many partitions may be created or deleted for a client. It counts them, if they may.
type Permit func(partitions int) bool

// Limited are the commands of a client that has a quota of changes (KIP-599). The quota is asked once for each topic that nothing
// else refuses, in the order of the request, also if the request is only validated; as in Kafka.
type Limited struct {
	*Controller

	Permit Permit
}

// permitOnce remembers the answers for the topics of one command, which may be decided several times.
func permitOnce[K comparable](permit Permit) func(topic K, partitions int) *Error {
	asked := map[K]bool{}
	return func(topic K, partitions int) *Error {
		if permit == nil {
			return nil
		}
		may, again := asked[topic]
		if !again {
			may = permit(partitions)
			asked[topic] = may
		}
		if !may {
			return refuse(ThrottlingQuotaExceeded, "")
		}
		return nil
	}
}

// CreateTopics is Controller.CreateTopics within the quota.
func (l Limited) CreateTopics(ctx context.Context, topics []NewTopic, validateOnly bool) ([]CreatedTopic, error) {
	var results []CreatedTopic
	permit := permitOnce[string](l.Permit)
	err := l.runCommand(ctx, ofClients, func(m *meta.Image) (records []byte) {
		d := topicsDecision{m: m, static: l.cfg.Static, newID: l.cfg.NewID, maxPartitions: l.cfg.MaxPartitions, permit: permit}
		records = d.decideTopics(topics)
		if results = d.results; validateOnly {
			return nil
		}
		return records
	})
	return results, err
}

// DeleteTopics is Controller.DeleteTopics within the quota.
func (l Limited) DeleteTopics(ctx context.Context, ids []meta.UUID) ([]*Error, error) {
	var results []*Error
	permit := permitOnce[meta.UUID](l.Permit)
	err := l.runCommand(ctx, ofClients, func(m *meta.Image) []byte {
		records, errs := decideDeleteTopics(m, ids, permit)
		results = errs
		return records
	})
	return results, err
}

// CreatePartitions is Controller.CreatePartitions within the quota.
func (l Limited) CreatePartitions(ctx context.Context, asked []MorePartitions, validateOnly bool) ([]*Error, error) {
	var results []*Error
	permit := permitOnce[string](l.Permit)
	err := l.runCommand(ctx, ofClients, func(m *meta.Image) []byte {
		records, errs := decideCreatePartitions(m, l.cfg.MaxPartitions, asked, permit)
		results = errs
		if validateOnly {
			return nil
		}
		return records
	})
	return results, err
}
