package missing

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// UpdateFeatures, key 57, versions 0 to 2 (KIP-584).
//
// 1: kinds of changes, and validation without a change (KIP-778). 2: no results of features.
//
// This version supports only one level of each feature, the one that is in force, so a
// valid change has no effect. A request with one invalid change is refused as a whole.

func updateFeatures(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.UpdateFeaturesRequest)
	const messageText = 320
	var size Memory
	for i := range req.FeatureUpdates {
		size.Add(1, 2*len(req.FeatureUpdates[i].Feature))
	}
	size.Add(1, messageText)
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrUpdateFeaturesResponse()
		last := make(map[string]int, len(req.FeatureUpdates)) // the last update of a feature counts
		for i := range req.FeatureUpdates {
			pass()
			last[req.FeatureUpdates[i].Feature] = i
		}
		for i := range req.FeatureUpdates {
			pass()
			u := &req.FeatureUpdates[i]
			if last[u.Feature] != i {
				continue
			}
			if reason := n.judgeFeature(u, req.Version); reason != "" {
				resp.ErrorCode = kerr.InvalidUpdateVersion.Code
				resp.ErrorMessage = new(fmt.Sprintf("The update failed for all features since the following feature had an error: "+
					"Invalid update version %d for feature %s. %s", u.MaxVersionLevel, u.Feature, reason))
				return resp
			}
		}
		if req.Version <= 1 {
			for i := range req.FeatureUpdates {
				pass()
				resp.Results = append(resp.Results, kmsg.UpdateFeaturesResponseResult{Feature: req.FeatureUpdates[i].Feature, ErrorMessage: new("NONE")})
			}
		}
		return resp
	}}
}

// The kinds of changes of a feature's level.
const (
	upgrade         = 1
	safeDowngrade   = 2
	unsafeDowngrade = 3
)

// judgeFeature returns why a feature cannot have a level; "": it can.
func (n Node) judgeFeature(u *kmsg.UpdateFeaturesRequestFeatureUpdate, version int16) string {
	kind := u.UpgradeType
	if version == 0 {
		kind = upgrade // the field for a downgrade is not read, as in Kafka
	}
	level, known := n.featureLevel(u.Feature)
	switch {
	case kind < upgrade || kind > unsafeDowngrade:
		return "The controller does not support the given upgrade type."
	case u.MaxVersionLevel < 0:
		return "A feature version cannot be less than 0."
	case !known && u.MaxVersionLevel == 0:
		return "Feature " + u.Feature + " not found."
	case !known:
		return fmt.Sprintf("Local controller %d does not support this feature.", n.Controller)
	case u.MaxVersionLevel != level:
		return fmt.Sprintf("Local controller %d only supports versions %d-%d", n.Controller, level, level)
	}
	return ""
}

// featureLevel is the level of a feature that is in force.
func (n Node) featureLevel(name string) (level int16, known bool) {
	if name == "metadata.version" {
		return n.MetadataVersion, true
	}
	for feature, l := range n.Image.Features() {
		if feature == name {
			return l, true
		}
	}
	return 0, false
}
