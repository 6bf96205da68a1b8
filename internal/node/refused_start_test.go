package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/storage"
)

// TestRefusedStartChangesNothing proves that a start which is refused because its metadata are
// old is refused as often as it is tried, as a supervisor does: no refused start may write to
// the metadata log.
func TestRefusedStartChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, Config{Data: dir})
	cl := client(t, n)
	if _, err := kadm.NewClient(cl).CreateTopic(deadline(t), 1, 1, nil, "precious"); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	stop(t, n)
	if err := os.RemoveAll(filepath.Join(dir, quorumDir)); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		n, err := Start(t.Context(), Config{Data: dir, Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
		if err == nil {
			stop(t, n)
			aside, _ := filepath.Glob(filepath.Join(dir, "*-stray"))
			t.Fatalf("start %d is no longer refused, and set aside %v", i+1, aside)
		}
		if !errors.Is(err, storage.ErrMetadataBehind) {
			t.Fatal(err)
		}
	}
}
