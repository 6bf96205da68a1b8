package entry

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEntriesAreRead proves that records as Apache Kafka 4.3 and, in the older version, Kafka before 4.0 write them are read, and that unknown tags are handed out.
func TestEntriesAreRead(t *testing.T) {
	orders := []Partitions{{"orders", []int32{3}}}
	for value, want := range map[string]Transaction{
		"0001000000000000000700010000ea600202076f72646572730200000003000000000000000bb800000000000007d0020008000000000000000702020002": {
			Producer: 7, Epoch: 1, Timeout: 60_000, Status: PrepareCommit, Topics: orders, Updated: 3000, Start: 2000, Previous: 7, Next: -1, Version: 2,
		},
		"000100000000000000077fff0000ea600302076f72646572730200000003000000000000000bb800000000000007d00300080000000000000007010800000000000003ef02020002": {
			Producer: 7, Epoch: 32767, Timeout: 60_000, Status: PrepareAbort, Topics: orders, Updated: 3000, Start: 2000, Previous: 7, Next: 1007, Version: 2,
		},
		"0000000000000000000700000000ea60010000000100066f72646572730000000100000003" + "00000000000007d0" + "00000000000007d0": {
			Producer: 7, Timeout: 60_000, Status: Ongoing, Topics: orders, Updated: 2000, Start: 2000, Previous: -1, Next: -1,
		},
	} {
		got, err := Decode(fromHex(t, value), nil)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", value, err, d)
		}
	}
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.ProducerID, v.ProducerEpoch = 1, 9, 3
	v.UnknownTags.Set(1000, []byte{7})
	var told []byte
	if got, err := Decode(v.AppendTo(nil), func(tag uint32, value []byte) { told = append(told, byte(tag-1000), value[0]) }); err != nil || got.Producer != 9 || string(told) != "\x00\x07" {
		t.Errorf("%+v, %v, %v", got, told, err)
	}
	if id, err := DecodeKey((&kmsg.TxnMetadataKey{TransactionalID: "a"}).AppendTo(nil)); err != nil || id != "a" {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := DecodeKey([]byte{0, 1, 0, 1, 'a'}); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("a key of another kind: %v", err)
	}
	if _, err := Decode([]byte{0, 2}, nil); !errors.Is(err, ErrNewer) {
		t.Errorf("a later version: %v", err)
	}
}

// FuzzDecode proves that no bytes make the decoders panic, or take memory that the bytes do not account for.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 7})
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.Topics = 1, []kmsg.TxnMetadataValueTopic{{Topic: "t", Partitions: []int32{1, 2}}}
	f.Add(v.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodeKey(b)
		got, err := Decode(b, nil)
		for _, p := range got.Topics {
			if len(p.Partitions)*4 > len(b) || len(p.Topic) > len(b) {
				t.Errorf("%d partitions of %d bytes, %v", len(p.Partitions), len(b), err)
			}
		}
	})
}
