package node

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/vfs"
)

// TestHolder proves that the holder of a data directory finds the node that runs in it, and can prove to it
// what he holds; and that he proves nothing to another node of the cluster, nor to one of another cluster.
func TestHolder(t *testing.T) {
	m := newCluster(t, 2)
	h, err := ReadHolder(m.dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if h.NodeID != 1 || h.Cluster.String() != m.nodes[0].Info().ClusterID {
		t.Errorf("%+v", h)
	}
	if diff := cmp.Diff(m.nodes[0].Info().Addresses, h.Addresses); diff != "" {
		t.Error(diff)
	}
	conn, err := h.Dial(t.Context(), h.Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	if id := conn.Session().Peer.NodeID; id != 1 {
		t.Errorf("node %d", id)
	}
	conn.Close()
	if _, err := h.Dial(t.Context(), m.ports[1]); !errors.Is(err, credential.ErrWrongNode) {
		t.Errorf("node 2 answered, and it says %v", err)
	}
	other := start(t, Config{Data: t.TempDir(), Listen: []string{"127.0.0.1:0"}})
	if _, err := h.Dial(t.Context(), other.Info().Addresses[0]); !errors.Is(err, credential.ErrForeignCluster) {
		t.Errorf("a node of another cluster answered, and it says %v", err)
	}
}

// TestNoHolder proves that a directory that lacks anything is refused with a sentence that says what, and
// that one whose addresses are lost is not.
func TestNoHolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadHolder(dir); !errors.Is(err, ErrNoNode) {
		t.Errorf("of an empty directory it says %v", err)
	}
	if _, err := ReadHolder(filepath.Join(dir, "missing")); !errors.Is(err, ErrNoNode) {
		t.Errorf("of a missing directory it says %v", err)
	}
	stop(t, start(t, Config{Data: dir}))
	lose := func(name, says string) {
		t.Helper()
		from, to := filepath.Join(dir, name), filepath.Join(t.TempDir(), name)
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		_, err := ReadHolder(dir)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("without %s it says %v", name, err)
		}
		if err := os.Rename(to, from); err != nil {
			t.Fatal(err)
		}
	}
	lose(keyFile, "node.key is missing; restore it from a backup")
	lose(addressesFile, "")

	old, err := vfs.NewMem(), error(nil)
	write := func(name, text string) {
		err = errors.Join(err, writeFile(old, name, []byte(text), vfs.Fresh))
	}
	err = old.MkdirAll("d")
	write("d/"+identityFile, "version=1\nleat.format=2\ncluster.id=QIN6y7bAYBMbloIGjikRcQ\nnode.id=1\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readHolder(old, "d"); err == nil || !strings.Contains(err.Error(), "start it once with this version") {
		t.Errorf("of a directory that no version with keys has used it says %v", err)
	}
}

// TestAddressesThatCanBeDialled proves what is noted of each kind of listener.
func TestAddressesThatCanBeDialled(t *testing.T) {
	f := func(ip, want string) {
		t.Helper()
		if got := dialableAddress(&net.TCPAddr{IP: net.ParseIP(ip), Port: 9092}); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
	f("0.0.0.0", "localhost:9092")
	f("::", "localhost:9092")
	f("127.0.0.1", "127.0.0.1:9092")
	f("::1", "[::1]:9092")
	f("10.1.2.3", "10.1.2.3:9092")
}
