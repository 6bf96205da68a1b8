package meta

import (
	"fmt"
	"iter"

	"github.com/leatstream/leat/internal/config"
)

// ApplyAll applies several entries of the metadata log, each given as its index and
// its records. The result is that of ApplyAt for one after another, at the cost of one
// image (BenchmarkApplyAll). The Delta leads from m to the image that is returned, so
// that a topic which was both made and deleted by these entries is in Deleted only.
// ApplyAll applies all entries or none: with an error, which names the entry, it
// returns m.
func ApplyAll(m *Image, entries iter.Seq2[uint64, []byte]) (*Image, *Delta, error) {
	next := *m
	s := step{
		m:         &next,
		delta:     &Delta{Topics: map[UUID]TopicChange{}, Configs: map[config.Resource]struct{}{}},
		topics:    map[UUID]*topicCopy{},
		overrides: map[config.Resource]*overrides{},
	}
	for index, records := range entries {
		s.index = index
		if err := decodeEach(records, s.applyRecord); err != nil {
			return m, nil, fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return &next, s.delta, nil
}
