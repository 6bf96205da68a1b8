package commit

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// TestRecordsAreKafkas proves that offsets are encoded as kmsg encodes them, and that all
// versions of kmsg's encoding can be decoded.
func TestRecordsAreKafkas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(0, 20, 100)
		k := kmsg.OffsetCommitKey{Version: 1, Group: name.Draw(t, "group"), Topic: name.Draw(t, "topic"), Partition: rapid.Int32().Draw(t, "p")}
		if diff := cmp.Diff(k.AppendTo(nil), AppendKey(nil, k.Group, k.Topic, k.Partition)); diff != "" {
			t.Fatal(diff)
		}
		k.Version = rapid.Int16Range(0, 1).Draw(t, "key version")
		got, err := DecodeKey(k.AppendTo(nil))
		if err != nil || got.Kind != OffsetKind || string(got.Group) != k.Group || string(got.Topic) != k.Topic || got.Partition != k.Partition {
			t.Fatalf("%+v %v", got, err)
		}
		v := kmsg.OffsetCommitValue{
			Version: rapid.Int16Range(0, 4).Draw(t, "version"), Offset: rapid.Int64().Draw(t, "offset"), LeaderEpoch: -1,
			Metadata: name.Draw(t, "metadata"), CommitTimestamp: rapid.Int64().Draw(t, "time"), ExpireTimestamp: NoExpiry,
		}
		if v.Version == 1 {
			v.ExpireTimestamp = rapid.Int64Range(0, 1<<60).Draw(t, "expires")
		}
		if v.Version >= 3 {
			v.LeaderEpoch = rapid.Int32().Draw(t, "epoch")
		}
		if v.Version >= 4 {
			v.TopicID = [16]byte{1, rapid.Byte().Draw(t, "id")}
		}
		o, err := Decode(v.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		want := Offset{
			At: record.Offset(v.Offset), Epoch: record.Epoch(v.LeaderEpoch), Time: v.CommitTimestamp, Expires: v.ExpireTimestamp, Topic: v.TopicID,
			Metadata: v.Metadata,
		}
		if o != want {
			t.Fatalf("read %+v, want %+v", o, want)
		}
		if v.Version == 0 || v.Version == 2 { // written as version 3, which holds the same
			v.Version = 3
		}
		if diff := cmp.Diff(v.AppendTo(nil), o.AppendTo(nil)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestWhatCannotBeRead proves that each record that is not an offset or a group, or is not whole, gets the error that says why.
func TestWhatCannotBeRead(t *testing.T) {
	o := Offset{At: 7, Epoch: 3, Time: 5, Expires: NoExpiry, Topic: [16]byte{1}, Metadata: "m"}
	key, value := AppendKey(nil, "a-group", "a-topic", 4), o.AppendTo(nil)
	for n := range key {
		if _, err := DecodeKey(key[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
	}
	for n := range value {
		if _, err := Decode(value[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("a value of %d bytes: %v", n, err)
		}
	}
	if k, err := DecodeKey([]byte("\x00\x02\x00\x01g")); err != nil || k.Kind != GroupKind || string(k.Group) != "g" {
		t.Errorf("a group: %+v, %v", k, err)
	}
	for name, c := range map[string]struct {
		decode func() error
		want   error
	}{
		"a key of a KIP-848 group":  {func() error { _, err := DecodeKey([]byte("\x00\x03\x00\x01g")); return err }, ErrUnknownKind},
		"a key of a negative kind":  {func() error { _, err := DecodeKey([]byte("\xff\xff\x00\x01g")); return err }, ErrUnknownKind},
		"a group that is cut short": {func() error { _, err := DecodeKey([]byte("\x00\x02\x00\x02g")); return err }, ErrShort},
		"a name of negative length": {func() error { _, err := DecodeKey([]byte("\x00\x02\xff\xffg")); return err }, ErrShort},
		"a value of version 5":      {func() error { _, err := Decode(append([]byte{0, 5}, value[2:]...)); return err }, ErrNewer},
		"a value of version -1":     {func() error { _, err := Decode(append([]byte{0xff, 0xff}, value[2:]...)); return err }, ErrUnknownKind},
		"tags of a length beyond it": {func() error {
			_, err := Decode(append(value[:len(value)-17:len(value)-17], 255, 255, 255, 255, 7))
			return err
		}, ErrShort},
	} {
		if err := c.decode(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestUnknownTagsAreSkipped proves that a value with tagged fields of a later version, or without the topic's id, is read (KIP-915).
func TestUnknownTagsAreSkipped(t *testing.T) {
	o := Offset{At: 7, Epoch: 3, Time: 5, Expires: NoExpiry, Topic: [16]byte{1, 15: 9}, Metadata: "m"}
	value := o.AppendTo(nil)
	tags := len(value) - 19
	for name, c := range map[string]struct {
		value []byte
		topic [16]byte
	}{
		"no tags":                 {append(value[:tags:tags], 0), [16]byte{}},
		"another tag":             {append(value[:tags:tags], 1, 5, 2, 'a', 'b'), [16]byte{}},
		"another tag of 16 bytes": {append(append(value[:tags:tags], 1, 5), value[tags+2:]...), [16]byte{}},
		"one more tag":            {append(append(append(value[:tags:tags], 2), value[tags+1:]...), 5, 1, 'a'), o.Topic},
		"an id of 3 bytes":        {append(value[:tags:tags], 1, 0, 3, 'a', 'b', 'c'), [16]byte{}},
	} {
		want := o
		want.Topic = c.topic
		if got, err := Decode(c.value); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// FuzzDecode proves that no bytes harm the decoder, and that what it reads is written so that it is read again.
func FuzzDecode(f *testing.F) {
	o := Offset{At: 7, Epoch: 3, Time: 5, Expires: NoExpiry, Topic: [16]byte{1}, Metadata: "m"}
	f.Add(AppendKey(nil, "g", "t", 1), o.AppendTo(nil))
	f.Add([]byte("\x00\x02\x00\x01g"), []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if k, err := DecodeKey(key); err == nil && k.Kind == OffsetKind {
			if again, err := DecodeKey(AppendKey(nil, string(k.Group), string(k.Topic), k.Partition)); err != nil || !cmp.Equal(again, k) {
				t.Errorf("%+v is read again as %+v, %v", k, again, err)
			}
		}
		if o, err := Decode(value); err == nil && len(o.Metadata) <= 1<<15-1 {
			again, err := Decode(o.AppendTo(nil))
			if o.Expires != NoExpiry {
				again.Epoch, again.Topic = o.Epoch, o.Topic // version 1 has neither
			}
			if err != nil || again != o {
				t.Errorf("%+v is read again as %+v, %v", o, again, err)
			}
		}
	})
}

// TestMarksOfLinks proves that who has made a commit is kept in a tagged field, with the topic's id and without one, that others read the record as if it were not there, and that one of another size
// does not count.
func TestMarksOfLinks(t *testing.T) {
	for _, topic := range [][16]byte{{}, {9}} {
		o := Offset{At: 7, Epoch: 3, Time: 5, Expires: NoExpiry, Topic: topic, Link: [16]byte{1, 15: 2}, Metadata: "m"}
		b := o.AppendTo(nil)
		if got, err := Decode(b); err != nil || got != o {
			t.Errorf("%+v, %v", got, err)
		}
		var k kmsg.OffsetCommitValue
		if err := k.ReadFrom(b); err != nil || k.Version != 4 || k.Offset != 7 || k.Metadata != "m" || k.CommitTimestamp != 5 || k.TopicID != topic {
			t.Errorf("kmsg reads %+v, %v", k, err)
		}
		unknown := map[uint32][]byte{}
		k.UnknownTags.Each(func(tag uint32, value []byte) { unknown[tag] = value })
		if diff := cmp.Diff(map[uint32][]byte{1000: o.Link[:]}, unknown); diff != "" {
			t.Error(diff)
		}
	}
	short := append(binary.AppendUvarint([]byte("\x00\x04\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00\x05\x01"), 1000), 2, 8, 8)
	if got, err := Decode(short); err != nil || got.Link != [16]byte{} || got.At != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}
