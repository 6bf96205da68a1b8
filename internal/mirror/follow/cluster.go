package follow

import (
	"errors"
	"fmt"
)

var (
	// ErrSameCluster is returned for a link of a cluster with itself.
	ErrSameCluster = errors.New("the source is this cluster")
	// ErrSameTag is returned for a link with a cluster that gives the same producer ids as this one, or as another source.
	ErrSameTag = errors.New("the clusters give the same producer ids")
)

// Cluster is what must be known of a cluster before there is a link.
type Cluster struct {
	Name string // for sentences: of the link
	ID   string
	Tag  uint32 // the cluster's part of producer ids; 0: it has none, as Apache Kafka, whose ids count from 0
}

// CheckClusters returns why there cannot be a link from a source to this cluster, which has links from others, and what a person should know. Two clusters with one tag give the same producer ids to
// different producers. After a promotion the records of one would be taken for those of the other, sent twice.
func CheckClusters(here, source Cluster, others []Cluster) (warnings []string, err error) {
	switch {
	case source.ID == here.ID:
		return nil, fmt.Errorf("%w: both have the cluster id %s", ErrSameCluster, here.ID)
	case source.Tag != 0 && source.Tag == here.Tag:
		return nil, fmt.Errorf("%w: the source and this cluster both have the tag %d; make one of them anew", ErrSameTag, here.Tag)
	}
	for _, other := range others {
		switch {
		case other.ID == source.ID: // several links from one source are no trouble
		case source.Tag != 0 && source.Tag == other.Tag:
			return nil, fmt.Errorf("%w: the source and that of link %s both have the tag %d; make one of them anew", ErrSameTag, other.Name, source.Tag)
		case source.Tag == 0 && other.Tag == 0:
			warnings = append(warnings, fmt.Sprintf("The source and that of link %s both count producer ids from 0, so a promotion forgets their producers: a producer that repeats a request across it may write it twice.", other.Name))
		}
	}
	return warnings, nil
}
