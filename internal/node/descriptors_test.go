package node

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// TestShareDescriptors proves that with every limit the shares leave a reserve, that with the
// lowest one each part has descriptors, and that a limit below that is refused with a sentence
// that says how to raise it.
func TestShareDescriptors(t *testing.T) {
	for _, tc := range []struct{ limit, logs, connections, peers, waiting, http, reserve int }{
		{48, 8, 4, 0, 0, 4, 32},
		{63, 8, 18, 1, 0, 4, 32}, // ulimit -n 64, of which Go's runtime leaves one
		{200, 43, 88, 9, 4, 6, 50},
		{256, 56, 112, 11, 5, 8, 64},
		{1024, 264, 530, 54, 16, 32, 128},
		{4096, 1274, 2550, 64, 16, 64, 128},
		{1 << 20, 8192, 1040112, 64, 16, 64, 128},
		{math.MaxInt32, 8192, math.MaxInt32 - 8464, 64, 16, 64, 128},
	} {
		d, err := shareDescriptors(tc.limit)
		if want := (descriptors{tc.limit, tc.logs, tc.connections, tc.peers, tc.waiting, tc.http}); err != nil || d != want {
			t.Errorf("%d: %+v, %v, want %+v", tc.limit, d, err, want)
		}
		if reserve := d.limit - d.logs - d.connections - d.peers - d.waiting - d.http; reserve != tc.reserve {
			t.Errorf("%d: %d are in reserve, want %d", tc.limit, reserve, tc.reserve)
		}
	}
	for _, limit := range []int{minDescriptors - 1, 0} {
		if _, err := shareDescriptors(limit); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "ulimit -n") {
			t.Errorf("%d: %v", limit, err)
		}
	}
}

// TestPeersAreExpectedInAClusterOnly proves that a node alone has no waiting room for others, and that
// it has one as soon as the metadata have another node; and that nothing but the handshake is
// admitted to it.
func TestPeersAreExpectedInAClusterOnly(t *testing.T) {
	n := &peers{self: credential.Self{NodeID: 1}}
	var img atomic.Pointer[meta.Image]
	n.image = img.Load
	img.Store(meta.Empty())
	p := limitPeers(&descriptors{peers: 3, waiting: 2}, &sizes{peers: 1}, n)
	entry := meta.AppendLevel(nil, meta.LevelFeature, meta.LevelCluster)
	for id := range int32(2) {
		if p.Expected() {
			t.Errorf("%d nodes expect others", id)
		}
		entry = meta.Append(entry, meta.NodeAdmitted{ID: id + 1, Key: credential.PublicKey{byte(id) + 1}})
		image, _, err := meta.Apply(n.image(), entry)
		if err != nil {
			t.Fatal(err)
		}
		img.Store(image)
		entry = nil
	}
	if !p.Expected() {
		t.Error("a node of two does not expect the other one")
	}
	if !slices.Equal(p.Handshake, []int16{peer.PeerHello, peer.PeerProve}) || p.Conns != 3 || p.Waiting != 2 || p.Memory != 1 {
		t.Errorf("%+v", p)
	}
}
