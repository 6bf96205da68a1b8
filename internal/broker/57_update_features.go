package broker

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// UpdateFeatures, key 57, versions 0 to 2 (KIP-584).
//
// 1: kinds of changes, and validation without a change (KIP-778). 2: no results of features.
//
// Only the levels of leat.metadata, and only upwards, and of transaction.version can change; of each other feature the level
// that is in force is the only one. A request with one invalid change is refused as a whole.

func (b *Broker) updateFeatures(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.UpdateFeaturesRequest)
	last := map[string]int{} // the last update of a feature counts
	resp := kmsg.NewPtrUpdateFeaturesResponse()
	run := func() error {
		for i := range req.FeatureUpdates {
			last[req.FeatureUpdates[i].Feature] = i
		}
		m := b.cfg.Image()
		for i := range req.FeatureUpdates {
			u := &req.FeatureUpdates[i]
			if last[u.Feature] != i {
				continue
			}
			if reason := judgeFeature(m, u, req.Version, b.controllerID()); reason != "" {
				refuseFeature(resp, u, reason)
				return nil
			}
		}
		for _, feature := range []string{meta.LevelFeature, meta.TransactionFeature} {
			if i, ok := last[feature]; ok && !req.ValidateOnly && resp.ErrorCode == none {
				if err := finalizeLevel(d, req.TimeoutMillis, resp, &req.FeatureUpdates[i]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfFeatures(req), Make: func(pass func()) kmsg.Response {
		if resp.ErrorCode != none || req.Version > 1 {
			return resp
		}
		for i := range req.FeatureUpdates {
			pass()
			resp.Results = append(resp.Results, kmsg.UpdateFeaturesResponseResult{Feature: req.FeatureUpdates[i].Feature, ErrorMessage: new("NONE")})
		}
		return resp
	}})
}

func sizeOfFeatures(req *kmsg.UpdateFeaturesRequest) (size missing.Memory) {
	const messageText = 320
	for i := range req.FeatureUpdates {
		size.Add(1, 2*len(req.FeatureUpdates[i].Feature))
	}
	size.Add(1, messageText)
	return size
}

// finalizeLevel has the level of a feature be in force.
func finalizeLevel(d *decision, timeoutMillis int32, resp *kmsg.UpdateFeaturesResponse, u *kmsg.UpdateFeaturesRequestFeatureUpdate) error {
	ctx, cancel := d.withTimeout(timeoutMillis)
	defer cancel()
	refused, err := d.Finalize(ctx, u.Feature, u.MaxVersionLevel)
	switch {
	case d.isElsewhere(err):
		return err
	case err != nil:
		resp.ErrorCode, resp.ErrorMessage = outcomeOf(nil, err)
	case refused != nil:
		refuseFeature(resp, u, refused.Message)
	}
	return nil
}

func refuseFeature(resp *kmsg.UpdateFeaturesResponse, u *kmsg.UpdateFeaturesRequestFeatureUpdate, reason string) {
	resp.ErrorCode = kerr.InvalidUpdateVersion.Code
	resp.ErrorMessage = new(fmt.Sprintf("The update failed for all features since the following feature had an error: "+
		"Invalid update version %d for feature %s. %s", u.MaxVersionLevel, u.Feature, reason))
}

// The kinds of changes of a feature's level.
const (
	upgrade         = 1
	safeDowngrade   = 2
	unsafeDowngrade = 3
)

// judgeFeature returns why a feature cannot have a level; "": it can.
func judgeFeature(m *meta.Image, u *kmsg.UpdateFeaturesRequestFeatureUpdate, version int16, controllerID int32) string {
	kind := u.UpgradeType
	if version == 0 {
		kind = upgrade // the field for a downgrade is not read, as in Kafka
	}
	lowest, highest, known := featureLevels(m, u.Feature)
	switch {
	case kind < upgrade || kind > unsafeDowngrade:
		return "The controller does not support the given upgrade type."
	case u.MaxVersionLevel < 0:
		return "A feature version cannot be less than 0."
	case !known && u.MaxVersionLevel == 0:
		return "Feature " + u.Feature + " not found."
	case !known:
		return fmt.Sprintf("Local controller %d does not support this feature.", controllerID)
	case u.MaxVersionLevel < lowest || u.MaxVersionLevel > highest:
		return fmt.Sprintf("Local controller %d only supports versions %d-%d", controllerID, lowest, highest)
	}
	if u.Feature == meta.LevelFeature || u.Feature == meta.TransactionFeature {
		if level := m.Feature(u.Feature); kind == upgrade && u.MaxVersionLevel < level {
			return fmt.Sprintf("Can not downgrade the version of this feature from %d to %d with an upgrade.", level, u.MaxVersionLevel)
		}
		rules := controller.Rules{Image: m}
		if _, refused := rules.Finalize(u.Feature, u.MaxVersionLevel); refused != nil {
			return refused.Message
		}
	}
	return ""
}

// featureLevels are the levels that a feature may have on this version.
func featureLevels(m *meta.Image, name string) (lowest, highest int16, known bool) {
	switch name {
	case metadataVersionFeature:
		return metadataVersion, metadataVersion, true
	case meta.LevelFeature:
		levels := meta.SupportedLevels()
		return levels.Min, levels.Max, true
	case meta.TransactionFeature:
		levels := meta.TransactionLevels()
		return levels.Min, levels.Max, true
	}
	for feature, level := range m.Features() {
		if feature == name {
			return level, level, true
		}
	}
	return 0, 0, false
}
