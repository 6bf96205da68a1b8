package meta

import (
	"fmt"
	"iter"

	"github.com/leatstream/leat/internal/config"
)

// ApplyAll applies entries of the metadata log, given as index and records, in one
// step: the result is that of ApplyAt for one after another, at the cost of one image
// (BenchmarkApplyAll). The Delta is from m to the image that is returned, so that a topic
// that came and went within the step is in Deleted only. It is all or nothing: an error, which
// names the entry, leaves the image m.
func ApplyAll(m *Image, entries iter.Seq2[uint64, []byte]) (*Image, *Delta, error) {
	next := *m
	s := step{
		m:     &next,
		d:     &Delta{Topics: map[UUID]TopicChange{}, Configs: map[config.Resource]struct{}{}},
		own:   map[UUID]*owned{},
		confs: map[config.Resource]*overrides{},
	}
	for index, records := range entries {
		s.index = index
		if err := each(records, s.apply); err != nil {
			return m, nil, fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return &next, s.d, nil
}
