package compact

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// TestMapHasTheLatestOffsets compares Maps of several sizes with a Go map, and proves that they never have
// more memory than they may, nor much more than their keys need.
func TestMapHasTheLatestOffsets(t *testing.T) {
	for _, size := range []int64{MinMapBytes, 50 << 10, 130 << 10, 1 << 20, 5 << 20} {
		m, err := NewMap(size)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time after Reset
			m.Reset(7)
			if m.Len() != 0 || m.End() != 7 {
				t.Fatalf("%d keys after Reset, up to %d", m.Len(), m.End())
			}
			want := map[string]record.Offset{}
			at := record.Offset(7)
			for ; ; at++ {
				key := fmt.Sprintf("key %d", int64(at)*int64(at)%100_003)
				if !m.Put([]byte(key), at) {
					break
				}
				want[key] = at
				if int64(len(want)) > size/EntryBytes {
					t.Fatalf("%d keys in %d bytes", len(want), size)
				}
				if at > 300_000 { // all keys have come
					break
				}
			}
			if least := size / EntryBytes / 2; int64(len(want)) < min(least, 40_000) {
				t.Errorf("a map of %d bytes has only %d keys", size, len(want))
			}
			if m.Len() != int64(len(want)) || m.Bytes() > size {
				t.Errorf("%d keys of %d, %d bytes of %d", m.Len(), len(want), m.Bytes(), size)
			}
			for key, at := range want {
				if got, ok := m.Latest([]byte(key)); !ok || got != at {
					t.Fatalf("%s: %d, %v instead of %d", key, got, ok, at)
				}
			}
			if _, ok := m.Latest([]byte("none")); ok {
				t.Error("a key that was never there")
			}
			if m.Put([]byte("key 49"), at) != (want["key 49"] != 0) {
				t.Error("a full map takes other keys, or does not take its own")
			}
		}
	}
}

func TestLargeMapIsSmallWithFewKeys(t *testing.T) {
	m, err := NewMap(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bytes() != 0 {
		t.Errorf("%d bytes without a key", m.Bytes())
	}
	for i := range 1000 {
		m.Put(fmt.Appendf(nil, "%d", i), record.Offset(i))
	}
	if most := int64(maxParts * firstSlots * EntryBytes); m.Bytes() > most {
		t.Errorf("%d bytes for 1000 keys", m.Bytes())
	}
	m.Reset(0)
	if _, ok := m.Latest([]byte("1")); ok || m.Len() != 0 {
		t.Error("a key is left")
	}
}

func TestSmallMapIsRefused(t *testing.T) {
	if _, err := NewMap(MinMapBytes - 1); err == nil {
		t.Error("it was made")
	}
}

// TestKeysInPieces proves that a key has one hash however it comes, and that maps have seeds of their own.
func TestKeysInPieces(t *testing.T) {
	var a, b hasher
	a.init()
	b.init()
	rapid.Check(t, func(t *rapid.T) {
		key := bytes.Repeat([]byte("k"), rapid.IntRange(0, 2*shortKey).Draw(t, "length"))
		a.write(key)
		whole := a.sum()
		for rest := key; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			a.write(rest[:n])
			rest = rest[n:]
		}
		if a.sum() != whole {
			t.Fatal("another hash in pieces")
		}
		a.write(append(key, 'x'))
		if a.sum() == whole {
			t.Fatal("another key has the same hash")
		}
		b.write(key)
		if b.sum() == whole {
			t.Fatal("two maps have the same seed")
		}
	})
}
