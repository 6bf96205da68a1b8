package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ApiVersions, key 18, versions 0 to 4.
//
// 1: throttle time. 3: flexible, the client's software (KIP-511), features
// (KIP-584). 4: features may begin at level 0.
//
// A version that is not served is answered in the form of version 0, with the
// versions of this API: a newer client tries again with what it finds there.

const apiVersionsKey = 18

func (s *session) apiVersions(r *wire.Request) error {
	a := s.b.apis[apiVersionsKey]
	if r.Version < a.min || r.Version > a.max {
		unknownVersion(r, a)
		return nil
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if r.Version >= 3 {
		d := reader{b: r.Body}
		name, version := d.name(true), d.name(true)
		d.tags(true, nil)
		if !d.end() {
			return wire.ErrMalformed
		}
		if !softwareName(name) || !softwareName(version) {
			resp.ErrorCode = kerr.InvalidRequest.Code
			r.Reply(resp)
			return nil
		}
	}
	for _, a := range s.b.apis {
		if a != nil {
			resp.ApiKeys = append(resp.ApiKeys, a.versions())
		}
	}
	s.b.features(resp)
	r.Reply(resp)
	return nil
}

func (a *api) versions() kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
	if a.key == 0 {
		k.MinVersion = produceAdvertisedMin
	}
	return k
}

// unknownVersion answers a version from the future.
func unknownVersion(r *wire.Request, a *api) {
	resp := r.Begin()
	resp.B = be.AppendUint16(resp.B, uint16(kerr.UnsupportedVersion.Code))
	resp.B = appendLen(resp.B, false, 1)
	for _, v := range [...]int16{a.key, a.min, a.max} {
		resp.B = be.AppendUint16(resp.B, uint16(v))
	}
	r.Send(resp)
}

// metadataVersion is the level of metadata.version that tools show as the cluster's
// version: that of Kafka 4.3. Nothing here depends on it.
const metadataVersion = 30

// SupportedFeatures are the levels of features that this version serves, which a node
// registers with.
func SupportedFeatures() []meta.FeatureRange {
	return []meta.FeatureRange{{Name: "metadata.version", Min: metadataVersion, Max: metadataVersion}}
}

// features lists what the cluster has agreed on. A level is both what is supported
// and what is in force, since nothing here serves two of them. What is missing is
// not served: without transaction.version a client leaves out KIP-890's second part.
func (b *Broker) features(resp *kmsg.ApiVersionsResponse) {
	m := b.cfg.Image()
	resp.FinalizedFeaturesEpoch = int64(m.FeaturesEpoch())
	add := func(name string, level int16) {
		f := kmsg.NewApiVersionsResponseSupportedFeature()
		f.Name, f.MinVersion, f.MaxVersion = name, level, level
		resp.SupportedFeatures = append(resp.SupportedFeatures, f)
		g := kmsg.NewApiVersionsResponseFinalizedFeature()
		g.Name, g.MinVersionLevel, g.MaxVersionLevel = name, level, level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, g)
	}
	add("metadata.version", metadataVersion)
	for name, level := range m.Features() {
		if name != "metadata.version" {
			add(name, level)
		}
	}
}

// softwareName tells whether a client's name or version is one that KIP-511 allows:
// letters, digits, and inside of it dots and dashes.
func softwareName(s []byte) bool {
	for i, c := range s {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || i == len(s)-1 || c != '-' && c != '.') {
			return false
		}
	}
	return len(s) > 0
}
