package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ApiVersions, key 18, versions 0 to 5.
//
// 1: throttle time. 3: flexible, the client's software (KIP-511), features
// (KIP-584). 4: features may begin at level 0. 5: the cluster and the node for which the client takes this one
// (KIP-1242).
//
// A request in a version that is not served is answered in the form of version 0, with the
// versions of this API, so that a newer client can ask again in one of them.

const apiVersionsKey = 18

func (s *session) apiVersions(r *wire.Request) error {
	_, err := answerAPIVersions(s, r)
	return err
}

// answerAPIVersions tells whether the client was told the versions, and not an error.
func answerAPIVersions(s *session, r *wire.Request) (isTold bool, err error) {
	a := s.b.apis[apiVersionsKey]
	if r.Version < a.min || r.Version > a.max {
		replyUnknownVersion(r, a)
		return false, nil
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if r.Version >= 3 {
		d := reader{b: r.Body()}
		name, version := d.readName(true), d.readName(true)
		misrouted := int16(none)
		if r.Version >= 5 {
			cluster, isAny := d.readString(true)
			misrouted = s.b.checkRoute(cluster, isAny, d.readInt32())
		}
		d.readTags(true, nil)
		if !d.isValid() {
			return false, wire.ErrMalformed
		}
		if resp.ErrorCode = misrouted; !isSoftwareName(name) || !isSoftwareName(version) {
			resp.ErrorCode = kerr.InvalidRequest.Code
		}
		if resp.ErrorCode != none {
			r.Reply(resp)
			return false, nil
		}
	}
	for _, a := range s.b.apis {
		if a != nil && a.from == 0 {
			resp.ApiKeys = append(resp.ApiKeys, a.advertise())
		}
	}
	s.b.addFeatures(resp, r.Version)
	r.Reply(resp)
	return true, nil
}

// checkRoute is the code for a client that takes this node for one of a cluster. A client that has lost its way, since an
// address has got another owner, begins anew with the addresses that it was given. One that does not know yet whom
// it has reached names neither.
func (b *Broker) checkRoute(cluster []byte, isAnyCluster bool, node int32) int16 {
	const anyNode = -1
	switch {
	case isAnyCluster != (node == anyNode):
		return kerr.InvalidRequest.Code
	case isAnyCluster, string(cluster) == b.cfg.Image().ClusterID && node == b.cfg.NodeID:
		return none
	}
	return kerr.RebootstrapRequired.Code
}

// advertise is the API's entry in the answer.
func (a *api) advertise() kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
	if a.key == 0 {
		k.MinVersion = produceAdvertisedMin
	}
	return k
}

// replyUnknownVersion answers a request in a version that is not served.
func replyUnknownVersion(r *wire.Request, a *api) {
	resp := r.Begin()
	resp.B = be.AppendUint16(resp.B, uint16(kerr.UnsupportedVersion.Code))
	resp.B = appendLen(resp.B, false, 1)
	for _, v := range [...]int16{a.key, a.min, a.max} {
		resp.B = be.AppendUint16(resp.B, uint16(v))
	}
	r.Send(resp)
}

// metadataVersion is the level of metadata.version, which tools show as the cluster's
// version: that of Kafka 4.3. This broker does not use it.
const (
	metadataVersionFeature = "metadata.version"
	metadataVersion        = 30
)

// SupportedFeatures are the levels of features that this version serves. A node is
// registered with them.
func SupportedFeatures() []meta.FeatureRange {
	return []meta.FeatureRange{{Name: metadataVersionFeature, Min: metadataVersion, Max: metadataVersion}, meta.SupportedLevels(), meta.TransactionLevels()}
}

// addFeatures adds the features of the cluster to an answer. A client does not use a feature that
// is not listed: without transaction.version, it does not use the second part of KIP-890.
func (b *Broker) addFeatures(resp *kmsg.ApiVersionsResponse, version int16) {
	m := b.cfg.Image()
	resp.FinalizedFeaturesEpoch = int64(m.FeaturesEpoch())
	add := func(name string, level int16) {
		f := kmsg.NewApiVersionsResponseSupportedFeature()
		f.Name = name
		if f.MinVersion, f.MaxVersion, _ = featureLevels(m, name); version < 4 {
			f.MinVersion = max(1, f.MinVersion) // clients of these versions refuse an answer with 0
		}
		resp.SupportedFeatures = append(resp.SupportedFeatures, f)
		if level == 0 {
			return
		}
		g := kmsg.NewApiVersionsResponseFinalizedFeature()
		g.Name, g.MinVersionLevel, g.MaxVersionLevel = name, level, level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, g)
	}
	add(metadataVersionFeature, metadataVersion)
	add(meta.LevelFeature, m.Level())
	add(meta.TransactionFeature, m.Feature(meta.TransactionFeature))
	for name, level := range m.Features() {
		if name != metadataVersionFeature && name != meta.LevelFeature && name != meta.TransactionFeature {
			add(name, level)
		}
	}
}

// isSoftwareName tells whether KIP-511 allows the name or the version of a client's software:
// letters and digits, and between them dots and dashes.
func isSoftwareName(s []byte) bool {
	for i, c := range s {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || i == len(s)-1 || c != '-' && c != '.') {
			return false
		}
	}
	return len(s) > 0
}
