package storage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// keptCuts is a data directory with logs that were cut, as the first version that knew cuts left it when it was killed, and what it
// must hold.
const keptCuts = "testdata/cuts-v4"

// keptCut is what a log of keptCuts must hold.
type keptCut struct {
	Number     int32
	Start, End record.Offset
	Values     []int           // of its records
	Tails      map[int32][]int // the values that cuts have taken
}

// describeKept is what a log holds.
func describeKept(t *testing.T, l *Log) (k keptCut) {
	t.Helper()
	var err error
	if k.Number, err = l.CutNumber(); err != nil {
		t.Fatal(err)
	}
	k.Start, _ = l.Start()
	k.End = mustEnd(t, l)
	k.Values = values(t, readAllWith(t, l, k.Start, 1<<20, true))
	k.Tails = map[int32][]int{}
	list, err := Tails(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range list {
		var batches []record.Batch
		for b := readTail(t, l, tail.Number); len(b) > 0; {
			one, rest, err := record.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			batches, b = append(batches, one), rest
		}
		k.Tails[tail.Number] = values(t, batches)
	}
	return k
}

// TestCutsFormat proves that a directory with logs that were cut, which an earlier version has left, is read with the numbers of their cuts
// and their tails. The journal has the cut of one of them below its start.
func TestCutsFormat(t *testing.T) {
	if os.Getenv("LEAT_TEST_WRITE_FORMATS") == "v4" {
		writeKeptCuts(t)
	}
	var kept []keptCut
	text, err := os.ReadFile(keptCuts + ".json")
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := quietStore(t, testConfig(unpackKept(t, keptCuts), "data"))
	for i, want := range kept {
		l := testLog(s, i, cutOptions())
		if d := cmp.Diff(want, describeKept(t, l)); d != "" {
			t.Errorf("log %d: %s", i, d)
		}
		if err := l.Cut(want.Number, 0); err != nil || mustEnd(t, l) != want.End {
			t.Errorf("log %d makes cut %d once more: %v", i, want.Number, err)
		}
		if err := l.Cut(want.Number+1, want.Start+1); err != nil || mustEnd(t, l) > want.Start+1 {
			t.Errorf("log %d does not make cut %d: %v", i, want.Number+1, err)
		}
	}
	if len(kept) != 3 || !s.keeper.cuts.isSaved.Load() {
		t.Error("the directory is not what it should be")
	}
}

// writeKeptCuts writes keptCuts, unless it is there.
func writeKeptCuts(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(keptCuts + ".json"); err == nil {
		t.Fatal("the directory of an earlier version is never written anew")
	}
	dir := t.TempDir()
	cfg := testConfig(vfs.OS{}, filepath.ToSlash(dir))
	cfg.Journal = 1 << 16
	s := quietStore(t, cfg)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	several, below, empty := testLog(s, 0, cutOptions()), testLog(s, 1, cutOptions()), testLog(s, 2, cutOptions())
	for _, l := range []*Log{several, below} {
		appendEpochs(t, l, 300, 2, 2, 3, 3, 5, 5, 5, 7, 7, 7)
	}
	must(several.Cut(1, 26))
	appendEpochs(t, several, 300, 7, 8)
	must(below.SetStart(16))
	s.keeper.checkpointNow()
	s.keeper.checkpointNow()
	must(several.Cut(4, 7))
	appendEpochs(t, several, 300, 4)
	must(below.Cut(2, 5))
	appendEpochs(t, below, 300, 1, 1) // these, and the cut before, are in the journal
	must(empty.Cut(3, 9))
	var kept []keptCut
	for _, l := range []*Log{several, below, empty} {
		kept = append(kept, describeKept(t, l))
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	archive := tar.NewWriter(z)
	text, err := json.Marshal(kept)
	if err := errors.Join(err, archive.AddFS(os.DirFS(dir)), archive.Close(), z.Close(),
		os.WriteFile(keptCuts+".tar.gz", b.Bytes(), 0o600), os.WriteFile(keptCuts+".json", text, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the archive has %d bytes", b.Len())
}
