package node

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// TestShareDescriptors proves that with every limit the shares leave a reserve, that with the
// lowest one each part has descriptors, and that a limit below that is refused with a sentence
// that says how to raise it.
func TestShareDescriptors(t *testing.T) {
	for _, tc := range []struct{ limit, logs, connections, http, reserve int }{
		{48, 8, 4, 4, 32},
		{63, 9, 18, 4, 32}, // ulimit -n 64, of which Go's runtime leaves one
		{200, 48, 96, 6, 50},
		{256, 61, 123, 8, 64},
		{1024, 288, 576, 32, 128},
		{4096, 1301, 2603, 64, 128},
		{1 << 20, 8192, 1040192, 64, 128},
		{math.MaxInt32, 8192, math.MaxInt32 - 8384, 64, 128},
	} {
		d, err := shareDescriptors(tc.limit)
		if want := (descriptors{tc.limit, tc.logs, tc.connections, tc.http}); err != nil || d != want {
			t.Errorf("%d: %+v, %v, want %+v", tc.limit, d, err, want)
		}
		if reserve := d.limit - d.logs - d.connections - d.http; reserve != tc.reserve {
			t.Errorf("%d: %d are in reserve, want %d", tc.limit, reserve, tc.reserve)
		}
	}
	for _, limit := range []int{minDescriptors - 1, 0} {
		if _, err := shareDescriptors(limit); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "ulimit -n") {
			t.Errorf("%d: %v", limit, err)
		}
	}
}
