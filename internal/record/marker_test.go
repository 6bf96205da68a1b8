package record

import (
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"
)

// TestMarker proves that a marker is read as it was written, and that it has Kafka's bytes.
func TestMarker(t *testing.T) {
	for _, want := range []Marker{{}, {Commit: true}, {CoordinatorEpoch: 7}, {true, math.MaxInt32}, {false, -1}} {
		b, err := BuildMarker(1000, 42, 3, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadMarker(b)
		if err != nil || got != want {
			t.Errorf("%+v is read as %+v, %v", want, got, err)
		}
		if !b.Control() || !b.Transactional() || b.ProducerID() != 42 || b.ProducerEpoch() != 3 || b.BaseSequence() != NoSequence || b.LeaderEpoch() != NoEpoch {
			t.Errorf("%+v has the header %x", want, b[:HeaderLen])
		}
		if err := b.Verify(); err != nil {
			t.Error(err)
		}
	}
	b, err := BuildMarker(1000, 42, 3, Marker{Commit: true, CoordinatorEpoch: 0x01020304})
	if err != nil {
		t.Fatal(err)
	}
	// length, attributes, time and offset deltas, key with its length, value with its length, headers
	if got, want := hex.EncodeToString(b.recordBytes()), "20"+"00"+"00"+"00"+"08"+"00000001"+"0c"+"000001020304"+"00"; got != want {
		t.Errorf("the record is %s, want %s", got, want)
	}
}

// TestNoMarker proves that other batches have no marker.
func TestNoMarker(t *testing.T) {
	control := func(key, value []byte, n int) Batch {
		bu := Builder{Control: true, Transactional: true}
		bu.SetProducer(1, 1, NoSequence)
		for range n {
			bu.Append(1, key, value)
		}
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := make([]byte, markerValueLen)
	data, err := (&Builder{}).Build()
	if !errors.Is(err, ErrEmpty) || data != nil {
		t.Fatal(err)
	}
	emptied := append(Batch(nil), control([]byte{0, 0, 0, 1}, good, 1)[:HeaderLen]...)
	be.PutUint32(emptied[atCount:], 0)
	for name, b := range map[string]Batch{
		"nothing":              nil,
		"a short header":       make(Batch, HeaderLen-1),
		"data":                 sample(t, None),
		"a batch without any":  emptied,
		"two records":          control([]byte{0, 0, 0, 1}, good, 2),
		"a leader's record":    control([]byte{0, 0, 0, 2}, good, 1),
		"a negative type":      control([]byte{0, 0, 0xff, 0xff}, good, 1),
		"a negative version":   control([]byte{0x80, 0, 0, 1}, good, 1),
		"a short key":          control([]byte{0, 0, 1}, good, 1),
		"no key":               control(nil, good, 1),
		"a short value":        control([]byte{0, 0, 0, 1}, good[1:], 1),
		"no value":             control([]byte{0, 0, 0, 1}, nil, 1),
		"more than it can be":  control([]byte{0, 0, 0, 1}, make([]byte, MaxMarkerLen), 1),
		"records that are cut": control([]byte{0, 0, 0, 1}, good, 1)[:HeaderLen+5],
	} {
		if m, err := ReadMarker(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s has the marker %+v, %v", name, m, err)
		}
	}
	if m, err := ReadMarker(control([]byte{0, 9, 0, 1, 5}, slices.Concat(good, []byte{1, 2}), 1)); err != nil || !m.Commit {
		t.Errorf("a marker of a later version is read as %+v, %v", m, err)
	}
}

// FuzzMarker proves that arbitrary bytes are read as a marker or refused, and that a marker that was
// read is written with the same meaning.
func FuzzMarker(f *testing.F) {
	seeds(f)
	for _, m := range []Marker{{}, {true, 5}} {
		b, err := BuildMarker(1, 2, 3, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ReadMarker(Batch(data))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("an error without a sentinel: %v", err)
			}
			return
		}
		b, err := BuildMarker(1, 2, 3, m)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ReadMarker(b); err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}
