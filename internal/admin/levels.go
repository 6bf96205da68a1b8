package admin

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// RaiseLevel has a level of the metadata be in force from now on. The cluster refuses one that a node of it
// does not know, whether or not that node runs.
func RaiseLevel(ctx context.Context, cl *kgo.Client, feature string, level int16) error {
	const upgrade = 1
	req := kmsg.NewPtrUpdateFeaturesRequest()
	update := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	update.Feature, update.MaxVersionLevel, update.UpgradeType = feature, level, upgrade
	req.FeatureUpdates = append(req.FeatureUpdates, update)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("raising the level of %s: %w", feature, err)
	}
	if err := refusal("the level of "+feature, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return err
	}
	for i := range resp.Results {
		if r := &resp.Results[i]; r.ErrorCode != 0 {
			return refusal("the level of "+feature, r.ErrorCode, r.ErrorMessage)
		}
	}
	return nil
}
