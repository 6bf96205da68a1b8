package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when the checks of these tests happen.
const now = 1_700_000_000_000

func rules() *Rules {
	return &Rules{MaxBytes: 1 << 20, MaxDecompressed: 1 << 20, Now: now, Before: -1, After: 3_600_000}
}

// sample is a batch of three records that any broker takes.
func sample(tb testing.TB, c Codec) Batch {
	tb.Helper()
	bu := Builder{Codec: c}
	value := bytes.Repeat([]byte("value "), 20)
	return build(tb, &bu, []Record{
		{Timestamp: now, Key: []byte("k"), Value: value},
		{Timestamp: now + 5, Key: []byte("k"), Value: value, Headers: []Header{{Key: []byte("h"), Value: value}}},
		{Timestamp: now - 5, Key: []byte("k"), Value: value},
	})
}

// TestCheck proves the result of Check for each kind of header. Kafka 4.3.1 has the same
// results except for four headers that it accepts: with reserved attribute bits, with the
// delete horizon, with a producer epoch below 0, and with a producer id below -1.
func TestCheck(t *testing.T) {
	f := func(name string, want error, change func(b Batch)) {
		t.Helper()
		b := sample(t, None)
		change(b)
		b.writeCRC()
		if err := b.Check(rules()); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	put32 := func(at int, v int32) func(Batch) { return func(b Batch) { be.PutUint32(b[at:], uint32(v)) } }
	bits := func(v uint16) func(Batch) { return func(b Batch) { be.PutUint16(b[atAttributes:], v) } }
	producer := func(id int64, epoch int16, seq int32) func(Batch) {
		return func(b Batch) {
			be.PutUint64(b[atProducerID:], uint64(id))
			be.PutUint16(b[atProducerEpoch:], uint16(epoch))
			be.PutUint32(b[atBaseSequence:], uint32(seq))
		}
	}
	f("good", nil, func(Batch) {})
	f("leader epoch", nil, put32(atLeaderEpoch, 77))
	f("old format", ErrMagic, func(b Batch) { b[atMagic] = 1 })
	f("length", ErrCorrupt, put32(atLength, 10))
	f("base offset", ErrInvalid, func(b Batch) { b.SetBaseOffset(7) })
	f("codec 5", ErrCodec, bits(5))
	f("codec 7", ErrCodec, bits(7))
	f("log append time", nil, bits(attrLogAppendTime)) // CheckRecords refuses it
	f("control", ErrInvalid, bits(attrControl))
	f("delete horizon", ErrInvalid, bits(attrDeleteHorizon))
	f("reserved", ErrInvalid, bits(0x80))
	f("reserved high", ErrInvalid, bits(0x8000))
	f("transactional without a producer", ErrInvalid, bits(attrTransactional))
	f("last offset delta", ErrInvalid, put32(atLastOffsetDelta, 5))
	f("negative last offset delta", ErrInvalid, put32(atLastOffsetDelta, -1))
	f("no records", ErrInvalid, func(b Batch) { put32(atCount, 0)(b); put32(atLastOffsetDelta, -1)(b) })
	f("more than fit", ErrInvalid, func(b Batch) { put32(atCount, math.MaxInt32)(b); put32(atLastOffsetDelta, math.MaxInt32-1)(b) })
	f("idempotent", nil, producer(0, 0, 0))
	f("last sequence", nil, producer(0, 0, math.MaxInt32))
	f("no sequence", ErrInvalid, producer(0, 0, -1))
	f("no epoch", ErrInvalid, producer(0, -1, 0))
	f("producer id", ErrInvalid, producer(-2, 0, 0))
	f("fields without a producer", nil, producer(-1, 5, 5))

	b := sample(t, None)
	b[len(b)-1] ^= 1
	if err := b.Check(rules()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a flipped bit: %v", err)
	}
	b = sample(t, None)
	r := rules()
	r.MaxBytes = len(b) - 1
	if err := b.Check(r); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
	for n := range b {
		if err := b[:n].Check(rules()); err == nil {
			t.Errorf("a batch cut at %d passed", n)
		}
	}
}

// remake changes the uncompressed records of the sample and compresses them again.
func remake(t *testing.T, c Codec, change func(b Batch) Batch) Batch {
	t.Helper()
	b := change(sample(t, None))
	be.PutUint32(b[atLength:], uint32(len(b)-prefixLen))
	b.writeCRC()
	b, err := b.Recompress(t.Context(), nil, &Target{Codec: c})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCheckRecords proves the result of CheckRecords for each kind of records, which is
// the same for all codecs.
func TestCheckRecords(t *testing.T) {
	set := func(at int, v byte) func(b Batch) Batch {
		return func(b Batch) Batch { b[HeaderLen+at] = v; return b }
	}
	count := func(n int) func(b Batch) Batch {
		return func(b Batch) Batch {
			be.PutUint32(b[atCount:], uint32(n))
			be.PutUint32(b[atLastOffsetDelta:], uint32(n-1))
			return b
		}
	}
	// The first record: 2 bytes length, attributes, timestamp, offset, key length, key, ...
	for c := None; c <= Zstd; c++ {
		f := func(name string, want error, change func(b Batch) Batch) {
			t.Helper()
			b := remake(t, c, change)
			_, err := b.CheckRecords(t.Context(), nil, rules())
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s, %s: %v, want %v", c, name, err, want)
			}
		}
		f("good", nil, func(b Batch) Batch { return b })
		f("record attributes", nil, set(2, 0xff)) // unused; Kafka does not look at them
		f("bytes after the last", ErrInvalid, func(b Batch) Batch { return append(b, 0) })
		f("cut short", ErrInvalid, func(b Batch) Batch { return b[:len(b)-1] })
		f("one record more", ErrInvalid, count(2))
		f("one record less", ErrInvalid, count(4))
		f("no length", ErrInvalid, set(0, 0))
		f("offset delta", ErrInvalid, set(4, 2))
		f("negative offset delta", ErrInvalid, set(4, 1))
		f("key length", ErrInvalid, set(5, 4))
		f("null key", ErrInvalid, set(5, 1)) // its byte is taken as a length then
		f("key length -2", ErrInvalid, set(5, 3))
		f("late", ErrTimestamp, func(b Batch) Batch { be.PutUint64(b[atBaseTimestamp:], now+3_600_001); return b })
		f("just in time", nil, func(b Batch) Batch { be.PutUint64(b[atBaseTimestamp:], now+3_600_000-5); return b })

		b := sample(t, c)
		b[atAttributes+1] |= attrLogAppendTime
		if _, err := b.CheckRecords(t.Context(), nil, rules()); !errors.Is(err, ErrTimestamp) {
			t.Errorf("%s, log append time: %v", c, err)
		}
	}
}

// TestRecordErrors proves that the error names the records that break the rules, and that
// a record without a timestamp is never too early.
func TestRecordErrors(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		bu := Builder{Codec: c}
		b := build(t, &bu, []Record{
			{Timestamp: now, Key: []byte("k")}, {Timestamp: now - 11}, {Timestamp: NoTimestamp}, {Timestamp: now + 11},
		})
		f := func(r Rules, kind error, want ...int) {
			t.Helper()
			r.Now = now
			found, err := b.CheckRecords(t.Context(), nil, &r)
			var list *RejectedError
			if len(want) == 0 {
				if err != nil || found.MaxTimestamp != now+11 {
					t.Errorf("%s: %v, largest timestamp %d", c, err, found.MaxTimestamp)
				}
				return
			}
			if !errors.As(err, &list) || !errors.Is(err, kind) || list.Total != len(want) || list.Error() == "" {
				t.Fatalf("%s: %v", c, err)
			}
			for i, r := range list.Records {
				if r.Index != want[i] || r.Reason == "" {
					t.Errorf("%s: %+v, want %v", c, list.Records, want)
				}
			}
		}
		f(Rules{Before: -1, After: -1}, nil)
		f(Rules{Before: 11, After: 11}, nil)
		f(Rules{Before: math.MaxInt64, After: math.MaxInt64}, nil)
		f(Rules{Before: 10, After: -1}, ErrTimestamp, 1)
		f(Rules{Before: -1, After: 10}, ErrTimestamp, 3)
		f(Rules{Before: 0, After: 0}, ErrTimestamp, 1, 3)
		f(Rules{Before: 0, After: 0, TimestampType: LogAppendTime}, nil)
		f(Rules{Before: -1, After: -1, NeedKey: true}, ErrInvalid, 1, 2, 3)
	}
}

// TestBomb proves that records which decompress to more than their bound are refused in
// every codec, by the check and by the reader, and that records at the bound are not.
func TestBomb(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		bu := Builder{Codec: c}
		plain := Builder{}
		records := []Record{{Timestamp: now, Value: make([]byte, 3<<20)}}
		b, size := build(t, &bu, records), int64(len(build(t, &plain, records))-HeaderLen)
		for limit, want := range map[int64]error{size: nil, size - 1: ErrTooLarge, 1000: ErrTooLarge, 0: nil} {
			if c == None {
				want = nil
			}
			r := rules()
			r.MaxDecompressed = limit
			if _, err := b.CheckRecords(t.Context(), nil, r); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: check with %d: %v, want %v", c, limit, err, want)
			}
			if _, err := read(b, limit); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: read with %d: %v, want %v", c, limit, err, want)
			}
			to := &Target{Codec: (c + 1) % 5, Records: limit}
			if c == None {
				to.Records = 0
			}
			if _, err := b.Recompress(t.Context(), nil, to); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: recompress with %d: %v, want %v", c, limit, err, want)
			}
		}
	}
}

// TestClaims proves that no memory is allocated for a size that a few bytes claim, before
// it is checked: a raw snappy block of 2 GiB, a zstd window of 1 GiB.
func TestClaims(t *testing.T) {
	f := func(c Codec, payload []byte) {
		t.Helper()
		b := append(sample(t, None)[:HeaderLen:HeaderLen], payload...)
		b[atAttributes+1] = byte(c)
		if _, err := b.writeLengthAndCRC(); err != nil {
			t.Fatal(err)
		}
		r := rules()
		for _, r.MaxDecompressed = range []int64{0, 1 << 20} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := b.CheckRecords(t.Context(), nil, r)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: %v", c, err)
			}
			if taken := after.TotalAlloc - before.TotalAlloc; taken > 10<<20 {
				t.Errorf("%s: %d bytes of memory for %d bytes", c, taken, len(payload))
			}
		}
	}
	f(Snappy, binary.AppendUvarint(nil, 1<<31-1))
	f(Snappy, append(binary.AppendUvarint(nil, 1<<30), bytes.Repeat([]byte{0xfe, 1, 0}, 20)...))
	f(Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00}) // window 2^30
	f(Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x01, 0, 0})
	f(LZ4, []byte{4, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73, 0xff, 0xff, 0xff, 0x7f})
	f(LZ4, []byte{2, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0, 0})    // the old frame
	f(LZ4, []byte{4, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0, 0}) // dependent blocks
}

// TestXerialStreams proves that snappy is read as one bare block, in the framing of
// the Java library, and as several framed streams in a row.
func TestXerialStreams(t *testing.T) {
	records := sample(t, None).recordBytes()
	half := len(records) / 2
	f := func(payload []byte) {
		t.Helper()
		b := append(sample(t, None)[:HeaderLen:HeaderLen], payload...)
		b[atAttributes+1] = byte(Snappy)
		b, err := b.writeLengthAndCRC()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.CheckRecords(t.Context(), nil, rules()); err != nil {
			t.Error(err)
		}
		if got := mustRead(t, b); len(got) != 3 {
			t.Errorf("%d records", len(got))
		}
	}
	snappy := func(records []byte) []byte {
		b, err := appendCompressed(nil, records, Snappy, 0)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := snappy(records)
	f(one)
	f(one[xerialHeaderLen+4:])
	f(append(snappy(records[:half]), snappy(records[half:])...))
	f(append(snappy(records[:half]), snappy(records[half:])[xerialHeaderLen:]...))
}

// TestCodecNames proves that the names are Kafka's and that others are refused.
func TestCodecNames(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		if got, err := ParseCodec(c.String()); err != nil || got != c {
			t.Errorf("%s: %v %v", c, got, err)
		}
	}
	if c, err := ParseCodec("uncompressed"); c != None || err != nil {
		t.Error(c, err)
	}
	if _, err := ParseCodec("brotli"); !errors.Is(err, ErrCodec) {
		t.Error(err)
	}
	if got := Codec(6).String(); got != "codec 6" || Codec(-1).Known() {
		t.Error(got)
	}
}

// sealRaw makes the header of arbitrary bytes state their size, format and
// checksum, so that what lies behind is reached.
func sealRaw(b []byte) {
	if len(b) < HeaderLen {
		return
	}
	be.PutUint32(b[atLength:], uint32(len(b)-prefixLen))
	b[atMagic] = byte(Magic)
	be.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
}
