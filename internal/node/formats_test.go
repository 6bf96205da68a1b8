package node

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// contents are the hashes of a directory's files, by their names.
func contents(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	all := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			all[name+"/"] = [sha256.Size]byte{}
			return nil
		}
		b, err := os.ReadFile(name)
		all[name] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// change rewrites a file of a data directory.
func change(t *testing.T, name string, do func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, do(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// newerCheckpoint raises the version of a checkpoint or points file.
func newerCheckpoint(b []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	b[9]++
	end := 28 + binary.BigEndian.Uint32(b[16:])
	sum := crc32.Update(crc32.Checksum(b[8:12], table), table, b[16:end])
	binary.BigEndian.PutUint32(b[12:], sum)
	return b
}

// newerQuorumLog raises the version of a file of the metadata log.
func newerQuorumLog(b []byte) []byte {
	b[8]++
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// TestNewerDirectoriesAreRefused proves that a start refuses a directory if any of its files
// was written by a newer version, that it says which version to start, and that it changes
// nothing in the directory, so that the newer version can still use it.
func TestNewerDirectoriesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		newer func(b []byte) []byte
		want  string
	}{
		"identity": {identityFile, func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "leat.format=2", "leat.format=3", 1))
		}, "start it with the newer leat"},
		"quorum":       {"quorum/00000000000000000001.log", newerQuorumLog, "newer version of leat, start that one"},
		"checkpoint-a": {"checkpoint-a", newerCheckpoint, "newer version of leat; start that version"},
		"checkpoint-b": {"checkpoint-b", newerCheckpoint, "newer version of leat; start that version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			n := start(t, Config{Data: dir})
			cl := client(t, n, kgo.AllowAutoTopicCreation())
			if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			cl.Close()
			stop(t, n)
			change(t, filepath.Join(dir, c.file), c.newer)
			before := contents(t, dir)
			for range 2 {
				if err := startFails(t, dir); !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
					t.Errorf("the start says %v", err)
				}
				if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
					t.Errorf("the refused start changed files: %s", diff)
				}
			}
		})
	}
}

// TestLostSecretIsRefused proves that a directory whose secret is missing or too short is
// refused and left as it is.
func TestLostSecretIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	stop(t, start(t, Config{Data: dir}))
	change(t, filepath.Join(dir, secretFile), func(b []byte) []byte { return b[:secretLen-1] })
	before := contents(t, dir)
	if err := startFails(t, dir); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), "from a backup") {
		t.Errorf("the start says %v", err)
	}
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("the refused start changed files: %s", diff)
	}
}
