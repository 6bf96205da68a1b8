package admin

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// LeatLevels is the feature whose level says what the metadata of Leat may have.
const LeatLevels = "leat.metadata"

// TransactionLevels is the feature whose level says which flow of transactions clients use.
const TransactionLevels = "transaction.version"

// levelFeatures are the features whose level says what the metadata of a cluster may have: Leat's, and
// Apache Kafka's. The first one that a cluster has counts.
var levelFeatures = []string{LeatLevels, "metadata.version"}

// DescribeLevel asks for the level of the metadata that is in force, and for the feature whose level it is,
// one of Leat or of Apache Kafka; "": the cluster does not tell.
func DescribeLevel(ctx context.Context, cl *kgo.Client) (feature string, level int16, err error) {
	served, err := askAPIs(ctx, cl.Request)
	if err != nil {
		return "", unknown, fmt.Errorf("asking for API versions: %w", err)
	}
	feature, level = findLevel(served)
	return feature, level, nil
}

// findLevel finds the level of the metadata among what a node tells of its features.
func findLevel(served *kmsg.ApiVersionsResponse) (feature string, level int16) {
	for _, name := range levelFeatures {
		for _, f := range served.SupportedFeatures {
			if f.Name == name {
				return name, finalizedLevel(served, name)
			}
		}
	}
	return "", unknown
}

// finalizedLevel is the level of a feature that is in force. A feature that is not listed has none, which
// is level 0.
func finalizedLevel(served *kmsg.ApiVersionsResponse, feature string) int16 {
	for _, f := range served.FinalizedFeatures {
		if f.Name == feature {
			return f.MaxVersionLevel
		}
	}
	return 0
}

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
