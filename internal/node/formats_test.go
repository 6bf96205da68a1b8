package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/credential"
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
	b[9] = 200
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
			return []byte(strings.Replace(string(b), "leat.format=3", "leat.format=4", 1))
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

// TestLostKeyIsRefused proves that a directory whose key is missing, damaged or another one is refused
// and left as it is.
func TestLostKeyIsRefused(t *testing.T) {
	dir, another := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "another")
	stop(t, start(t, Config{Data: dir}))
	stop(t, start(t, Config{Data: another}))
	name := filepath.Join(dir, keyFile)
	key, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(another, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		b    []byte
		want string
	}{
		"missing": {nil, "node.key is missing; restore it"},
		"damaged": {key[:len(key)-9], "restore it from a backup"},
		"another": {foreign, "restore both from one backup"},
	} {
		err := os.Remove(name)
		if c.b != nil {
			err = os.WriteFile(name, c.b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := contents(t, dir)
		if err := startFails(t, dir); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the start says %v", what, err)
		}
		if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
			t.Errorf("%s: the refused start changed files: %s", what, diff)
		}
		if err := os.WriteFile(name, key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The metadata know the key as well, in case both files are of another directory.
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	without, _, _ := strings.Cut(string(text), keyProperty)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, identityFile), []byte(without), 0o600), os.WriteFile(name, foreign, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := startFails(t, dir); !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), "knows node 1 by the key") {
		t.Errorf("a key of another node: the start says %v", err)
	}
}

// TestKeyIsSecret proves that no other user of the system can read the node's key, and that the
// cluster knows the node by it.
func TestKeyIsSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, Config{Data: dir})
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	d := directory{image: n.image.Load}
	want := credential.Member{Key: n.id.key.Public()}
	if got, ok := d.FindNode(1); !ok || got != want {
		t.Errorf("the cluster knows %+v, %v", got, ok)
	}
	if _, ok := d.FindNode(2); ok {
		t.Error("the cluster knows a second node")
	}
	token, err := credential.NewToken(credential.ClusterID{}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.FindToken(token.ID()); ok {
		t.Error("a token is known that was not made")
	}
	v := token.Verifier(time.Now().Add(time.Hour).Truncate(time.Millisecond))
	if refused, err := n.controller.MakeToken(t.Context(), time.Now(), &v); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if got, ok := d.FindToken(v.ID); !ok || !got.Expires.Equal(v.Expires) || got.Key != v.Key || got.Acceptor != v.Acceptor {
		t.Errorf("the token is %+v, %v", got, ok)
	}
}
