package storage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// keptTransactions is a data directory with transactions, as the first version that knew them left it
// when it was killed, and what it must hold.
const keptTransactions = "testdata/transactions-v3"

// keptBatch is a batch of keptTransactions.
type keptBatch struct {
	Producer   int64
	Base, Next record.Offset
	End        bool
	Commit     bool
}

// TestTransactionsFormat proves that a directory with transactions that an earlier version has left is
// read, with the same open transactions and the same aborted ones, and that its files of the latter are
// used as they are.
func TestTransactionsFormat(t *testing.T) {
	if os.Getenv("LEAT_TEST_WRITE_FORMATS") == "v3" {
		writeKeptTransactions(t)
	}
	var kept []keptBatch
	text, err := os.ReadFile(keptTransactions + ".json")
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := newTransactionWorld(t, 4)
	for _, b := range kept {
		w.m.txns = append(w.m.txns, modelTxn{b.Producer, b.Base, b.Next, b.End, b.Commit})
		w.m.records = make([]int64, b.Next)
	}
	mem := unpackKept(t, keptTransactions)
	before := logFiles(t, mem, segment.TxnSuffix)
	if len(before) < 5 {
		t.Fatalf("it has %d files of aborted transactions", len(before))
	}
	s := quietStore(t, testConfig(mem, "data"))
	l := testLog(s, 0, transactionOptions())
	w.expect(l)
	for name, b := range before {
		if got := logFiles(t, mem, segment.TxnSuffix)[name]; !bytes.Equal(got, b) {
			t.Errorf("%s was made anew: %x, was %x", name, got, b)
		}
	}
	if open, err := OpenTransactions(l); err != nil || len(open) == 0 {
		t.Errorf("open are %v, %v", open, err)
	}
	w.fill(l, 20)
	w.expect(l)
}

// unpackKept reads the archive of a directory that an earlier version has left.
func unpackKept(t *testing.T, name string) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	f, err := os.Open(name + ".tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return mem
		}
		if err != nil {
			t.Fatal(err)
		}
		name := "data/" + strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeDir {
			err = mem.MkdirAll(name)
		} else if err = mem.MkdirAll(name[:strings.LastIndexByte(name, '/')]); err == nil {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				put(t, mem, name, b)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// writeKeptTransactions writes keptTransactions, unless it is there.
func writeKeptTransactions(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(keptTransactions + ".json"); err == nil {
		t.Fatal("the directory of an earlier version is never written anew")
	}
	dir := t.TempDir()
	cfg := testConfig(vfs.OS{}, filepath.ToSlash(dir))
	cfg.Journal = 1 << 16
	w := newTransactionWorld(t, 11)
	s := quietStore(t, cfg)
	allow(s)
	l := testLog(s, 0, transactionOptions())
	for range 4 {
		w.fill(l, 40)
		s.Commit()
		s.keeper.checkpointNow()
	}
	l.mu.Lock()
	l.writer.producers.SetChanged(true)
	l.mu.Unlock()
	l.pub.Lock()
	l.due.snapshot = true
	l.listLocked()
	l.pub.Unlock()
	s.keeper.checkpointNow()
	w.fill(l, 15) // these are in the journal
	s.Commit()
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	archive := tar.NewWriter(z)
	kept := make([]keptBatch, 0, len(w.m.txns))
	for _, x := range w.m.txns {
		kept = append(kept, keptBatch{x.producer, x.base, x.next, x.isEnd, x.isCommitted})
	}
	text, err := json.Marshal(kept)
	if err := errors.Join(err, archive.AddFS(os.DirFS(dir)), archive.Close(), z.Close(), os.MkdirAll("testdata", 0o755),
		os.WriteFile(keptTransactions+".tar.gz", b.Bytes(), 0o600), os.WriteFile(keptTransactions+".json", text, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the archive has %d bytes", b.Len())
}
