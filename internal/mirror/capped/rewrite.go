package capped

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var errShort = errors.New("an answer is too short")

// address is where a broker is, as answers have it.
type address struct {
	host string
	port int32
}

// rewritten returns an empty answer of an API whose answers may have to be changed; nil: they pass as they are.
func rewritten(key int16) kmsg.Response {
	switch kmsg.Key(key) {
	case kmsg.ApiVersions, kmsg.Metadata, kmsg.FindCoordinator, kmsg.DescribeCluster, kmsg.Produce, kmsg.Fetch, kmsg.ShareFetch, kmsg.ShareAcknowledge:
		return kmsg.ResponseForKey(key)
	default:
		return nil
	}
}

// mayChange tells whether the answer to a request may have to be changed.
func mayChange(r Request) bool {
	switch kmsg.Key(r.Key) {
	case kmsg.Produce:
		return r.Version >= 10 // from which on it may name other leaders (KIP-951)
	case kmsg.Fetch:
		return r.Version >= 16
	default:
		return rewritten(r.Key) != nil
	}
}

// rewriteAnswer changes an answer, which begins with its correlation id.
func rewriteAnswer(r Request, answer []byte, v Versions, reach func(address) (address, error)) ([]byte, error) {
	resp := rewritten(r.Key)
	resp.SetVersion(r.Version)
	header := 4
	if resp.IsFlexible() && r.Key != kmsg.ApiVersions.Int16() {
		tags, err := skipTags(answer[header:])
		if err != nil {
			return nil, err
		}
		header += tags
	}
	if err := resp.ReadFrom(answer[header:]); err != nil {
		return nil, fmt.Errorf("an answer to %s: %w", kmsg.NameForKey(r.Key), err)
	}
	if versions, ok := resp.(*kmsg.ApiVersionsResponse); ok {
		capVersions(versions, v)
	}
	for _, a := range addressesOf(resp) {
		if *a.host == "" || *a.port <= 0 { // there is no broker
			continue
		}
		at, err := reach(address{*a.host, *a.port})
		if err != nil {
			return nil, err
		}
		*a.host, *a.port = at.host, at.port
	}
	return resp.AppendTo(slices.Clip(answer[:header])), nil
}

// skipTags is the length of the tagged fields of a header (KIP-482).
func skipTags(b []byte) (length int, err error) {
	number := func() int {
		n, size := binary.Uvarint(b[min(length, len(b)):])
		if size <= 0 || n > uint64(len(b)) {
			err = errShort
			return 0
		}
		length += size
		return int(n)
	}
	for fields := number(); fields > 0 && err == nil; fields-- {
		number() // the field's tag
		length += number()
	}
	if length > len(b) {
		err = errShort
	}
	return length, err
}

// capVersions lowers the versions of an answer, and removes what is not there.
func capVersions(r *kmsg.ApiVersionsResponse, v Versions) {
	r.ApiKeys = slices.DeleteFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return v.highest(k.ApiKey, k.MaxVersion) < k.MinVersion })
	for i := range r.ApiKeys {
		k := &r.ApiKeys[i]
		k.MaxVersion = v.highest(k.ApiKey, k.MaxVersion)
	}
	r.SupportedFeatures, r.FinalizedFeatures, r.FinalizedFeaturesEpoch = nil, nil, -1
}

// refuseVersions makes of an answer to ApiVersions of version 0 the one to a version that the broker does not know.
func refuseVersions(answer []byte) {
	binary.BigEndian.PutUint16(answer[4:], uint16(kerr.UnsupportedVersion.Code))
}

// place is where an answer has the address of a broker.
type place struct {
	host *string
	port *int32
}

// addressesOf finds all addresses in an answer.
func addressesOf(resp kmsg.Response) (all []place) {
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		for i := range r.Brokers {
			all = append(all, place{&r.Brokers[i].Host, &r.Brokers[i].Port})
		}
	case *kmsg.FindCoordinatorResponse:
		all = append(all, place{&r.Host, &r.Port}) // before version 4
		for i := range r.Coordinators {
			all = append(all, place{&r.Coordinators[i].Host, &r.Coordinators[i].Port})
		}
	case *kmsg.DescribeClusterResponse:
		for i := range r.Brokers {
			all = append(all, place{&r.Brokers[i].Host, &r.Brokers[i].Port})
		}
	case *kmsg.ProduceResponse:
		for i := range r.Brokers {
			all = append(all, place{&r.Brokers[i].Host, &r.Brokers[i].Port})
		}
	case *kmsg.FetchResponse:
		for i := range r.Brokers {
			all = append(all, place{&r.Brokers[i].Host, &r.Brokers[i].Port})
		}
	case *kmsg.ShareFetchResponse:
		for i := range r.NodeEndpoints {
			all = append(all, place{&r.NodeEndpoints[i].Host, &r.NodeEndpoints[i].Port})
		}
	case *kmsg.ShareAcknowledgeResponse:
		for i := range r.NodeEndpoints {
			all = append(all, place{&r.NodeEndpoints[i].Host, &r.NodeEndpoints[i].Port})
		}
	}
	return all
}
