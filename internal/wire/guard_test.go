package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// each calls f for every version of every request that kmsg knows.
func each(f func(key, version int16)) {
	for key := range int16(kmsg.MaxKey + 1) {
		if r := kmsg.RequestForKey(key); r != nil {
			for version := range r.MaxVersion() + 1 {
				f(key, version)
			}
		}
	}
}

// fill gives every field of a request some value.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Uint64()) >> (64 - v.Type().Bits()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.String:
		b := make([]byte, r.IntN(20))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v.SetString(string(b))
	case reflect.Pointer:
		v.SetZero()
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Slice:
		v.SetZero()
		if n := r.IntN(4); n < 3 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(r, v.Index(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Struct:
		if isTags(v.Type()) {
			for range r.IntN(3) {
				tags, _ := reflect.TypeAssert[*kmsg.Tags](v.Addr())
				tags.Set(uint32(1000+r.IntN(100)), make([]byte, r.IntN(5)))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" {
				fill(r, v.Field(i))
			}
		}
	default:
		panic("kmsg has a new kind of field: " + v.Kind().String())
	}
}

func randomRequest(r *rand.Rand, key, version int16) []byte {
	q := kmsg.RequestForKey(key)
	fill(r, reflect.ValueOf(q).Elem())
	q.SetVersion(version)
	return q.AppendTo(nil)
}

func decode(key, version int16, b []byte) (kmsg.Request, error) {
	q := kmsg.RequestForKey(key)
	q.SetVersion(version)
	return q, q.ReadFrom(b)
}

// TestGuardAccepts proves that every request which kmsg encodes, of every API and
// version, is accepted, to its last byte, with bytes behind it or without.
func TestGuardAccepts(t *testing.T) {
	g := newGuard()
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	each(func(key, version int16) {
		for range 100 {
			b := randomRequest(r, key, version)
			if _, err := decode(key, version, b); err != nil {
				continue // a random value that cannot be encoded
			}
			accepted++
			for _, behind := range []int{0, 3} {
				shape, err := g.checkBody(key, version, append(b, make([]byte, behind)...), 1<<30)
				if err != nil || shape.size != len(b) {
					t.Fatalf("%s v%d of %d bytes: %+v, %v", kmsg.NameForKey(key), version, len(b), shape, err)
				}
			}
		}
	})
	if accepted < 20_000 {
		t.Errorf("only %d messages were tried", accepted)
	}
}

// TestDecodeAliases proves that what is decoded stays as it is when the receive
// buffer is used for something else.
func TestDecodeAliases(t *testing.T) {
	s := NewServer(Config{}, nil)
	c := &Conn{srv: s}
	r := rand.New(rand.NewPCG(5, 6))
	each(func(key, version int16) {
		for range 20 {
			b := randomRequest(r, key, version)
			want, err := decode(key, version, bytes.Clone(b))
			if err != nil {
				continue
			}
			c.lease = &buffer{bytes: b}
			req := &Request{Conn: c, Key: key, Version: version, to: len(b)}
			got, err := req.Decode()
			if err != nil {
				t.Fatal(err)
			}
			for i := range b {
				b[i] ^= 0xff
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s v%d changed with the buffer: %s", kmsg.NameForKey(key), version, cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)))
			}
		}
	})
}

// spoilBody changes a body in one of the ways that decoders often do not expect.
func spoilBody(r *rand.Rand, b []byte) []byte {
	i := r.IntN(len(b))
	switch r.IntN(5) {
	case 0:
		b[i] ^= byte(1 << r.IntN(8))
		return b
	case 1: // a huge count somewhere
		return append(append(bytes.Clone(b[:i]), 0xff, 0xff, 0xff, 0xff, byte(r.IntN(16))), b[i:]...)
	case 2:
		return b[:i]
	case 3: // at the end: where the outermost tagged fields are
		return append(b[:len(b)-1], 0xff, 0xff, 0xff, 0xff, 7)
	default:
		return append(append(bytes.Clone(b[:i]), b...), b[i:]...)
	}
}

// TestGuardHostile proves that whatever spoilt body the guard accepts, kmsg
// decodes quickly and within the budget; and that known bombs are refused.
func TestGuardHostile(t *testing.T) {
	g := newGuard()
	const budget = 1 << 20
	r := rand.New(rand.NewPCG(3, 4))
	accepted, refused := 0, 0
	each(func(key, version int16) {
		for range 100 {
			b := randomRequest(r, key, version)
			if len(b) == 0 {
				continue
			}
			b = spoilBody(r, b)
			shape, err := g.checkBody(key, version, b, budget)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("the error is %v", err)
				}
				refused++
				continue
			}
			accepted++
			checkHarmless(t, key, version, b, shape)
		}
	})
	if accepted < 1000 || refused < 10_000 {
		t.Errorf("%d were accepted, %d refused: the test lost its sense", accepted, refused)
	}
	many := make([]byte, 1<<20)
	copy(many, []byte{0, 0x10, 0, 0}) // 1 Mi empty topics
	for _, bomb := range []struct {
		key, version int16
		body         []byte
	}{
		{0, 11, []byte{0, 0, 1, 0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x07}},
		{18, 3, []byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}},
		{18, 3, []byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
		{3, 1, many},
		{3, 1, []byte{0x7f, 0xff, 0xff, 0xff}},
		{19, 0, []byte{0x7f, 0xff, 0xff, 0xff}},
		{3, 99, nil},
		{-1, 0, nil},
		{3, -1, nil},
		{500, 0, nil},
	} {
		if _, err := g.checkBody(bomb.key, bomb.version, bomb.body, budget); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s v%d %.20x: %v", kmsg.NameForKey(bomb.key), bomb.version, bomb.body, err)
		}
	}
}

// checkHarmless checks that decoding an accepted body takes no longer, and no more memory,
// than the guard has said.
func checkHarmless(t *testing.T, key, version int16, b []byte, s shape) {
	t.Helper()
	var before, after runtime.MemStats
	big := len(b) > 4096
	if big {
		runtime.ReadMemStats(&before)
	}
	began := time.Now()
	_, _ = decode(key, version, b)                  // an error is fine
	if d := time.Since(began); d > 10*time.Second { // counts that are believed spin for 20 s and more; all else takes microseconds
		t.Fatalf("%s v%d: %d bytes took %v", kmsg.NameForKey(key), version, len(b), d)
	}
	if !big {
		return
	}
	runtime.ReadMemStats(&after)
	// Half as much again, since memory comes in sizes of its own. The copy of the body,
	// which the guard counts, is not made here.
	most := uint64(s.memory + s.memory/2 + 64<<10)
	if raceEnabled {
		most += uint64(s.memory) // slices that grow are made twice
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > most {
		t.Fatalf("%s v%d: %d bytes allocated %d, not %d", kmsg.NameForKey(key), version, len(b), n, s.memory)
	}
}

// TestGuardLimits proves that Kafka's limits of array lengths and of tagged fields hold
// to the element, and that the memory which a request takes is what is refused.
func TestGuardLimits(t *testing.T) {
	g := newGuard()
	offsets := func(partitions int) []byte {
		q := kmsg.NewPtrOffsetFetchRequest()
		q.Version = 1
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Partitions = make([]int32, partitions)
		q.Topics = append(q.Topics, topic)
		return q.AppendTo(nil)
	}
	tags := func(n int) []byte {
		q := kmsg.NewPtrApiVersionsRequest()
		q.Version = 3
		for key := range uint32(n) {
			q.UnknownTags.Set(1000+key, nil)
		}
		return q.AppendTo(nil)
	}
	f := func(key, version int16, body []byte, limit int, ok bool) {
		t.Helper()
		shape, err := g.checkBody(key, version, body, limit)
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want it accepted: %v", kmsg.NameForKey(key), err, ok)
		}
		if err == nil {
			checkHarmless(t, key, version, body, shape)
			if _, err := g.checkBody(key, version, body, shape.memory); err != nil {
				t.Errorf("%s: %v in the memory that it takes", kmsg.NameForKey(key), err)
			}
			if _, err := g.checkBody(key, version, body, shape.memory-1); !errors.Is(err, errBudget) {
				t.Errorf("%s: %v in less memory than it takes", kmsg.NameForKey(key), err)
			}
		}
	}
	f(9, 1, offsets(maxElements), 1<<30, true)
	f(9, 1, offsets(maxElements+1), 1<<30, false)
	f(18, 3, tags(maxTags), 1<<30, true)
	f(18, 3, tags(maxTags+1), 1<<30, false)
}

// FuzzGuard proves for all APIs that the guard neither panics nor lets through
// what kmsg decodes slowly or to much memory, and that it accepts what kmsg writes.
func FuzzGuard(f *testing.F) {
	r := rand.New(rand.NewPCG(8, 9))
	each(func(key, version int16) { f.Add(key, version, randomRequest(r, key, version)) })
	g := newGuard()
	const budget = 4 << 20
	f.Fuzz(func(t *testing.T, key, version int16, b []byte) {
		shape, err := g.checkBody(key, version, b, budget)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if shape.size < 0 || shape.size > len(b) {
			t.Fatalf("%d bytes of %d", shape.size, len(b))
		}
		checkHarmless(t, key, version, b, shape)
		q, err := decode(key, version, b)
		if err != nil {
			return
		}
		again := q.AppendTo(nil)
		if _, err := g.checkBody(key, version, again, 1<<30); err != nil {
			t.Fatalf("%s v%d: what kmsg writes is refused: %v", kmsg.NameForKey(key), version, err)
		}
	})
}

// FuzzHeader proves that a header is parsed without a panic, points into its
// frame only, and is what kmsg's formatter wrote.
func FuzzHeader(f *testing.F) {
	g := newGuard()
	f.Add([]byte{}, int16(0), int16(0), "")
	f.Add(frame(18, 3, 1, "\x00")[4:], int16(18), int16(3), "client")
	f.Add(frame(18, 99, 1, "\xff\xff")[4:], int16(3), int16(1), "a client")
	f.Add(frame(3, 12, 1, "\x01\x05\x01x")[4:], int16(3), int16(12), "x")
	f.Fuzz(func(t *testing.T, b []byte, key, version int16, id string) {
		h, body, err := g.parseHeader(b)
		if err == nil && len(h.clientID)+len(body)+10 > len(b) {
			t.Fatalf("%d bytes have a client id of %d and a body of %d", len(b), len(h.clientID), len(body))
		}
		if !g.knowsVersion(key, version) || len(id) > math.MaxInt16 {
			return
		}
		q := kmsg.RequestForKey(key)
		q.SetVersion(version)
		whole := kmsg.NewRequestFormatter(kmsg.FormatterClientID(id)).AppendRequest(nil, q, 9)
		h, body, err = g.parseHeader(whole[4:])
		if key == 7 && version == 0 {
			return // ControlledShutdown v0 has a header of its own
		}
		if err != nil || h.key != key || h.version != version || h.correlationID != 9 || string(h.clientID) != id[:min(len(id), maxClientID)] || !bytes.Equal(body, q.AppendTo(nil)) {
			t.Fatalf("%s v%d: %+v, %v", kmsg.NameForKey(key), version, h, err)
		}
	})
}

// BenchmarkGuard measures the check of a Metadata request for 100 topics, and
// what decoding it takes besides.
func BenchmarkGuard(b *testing.B) {
	q := kmsg.NewPtrMetadataRequest()
	q.Version = 12
	for range 100 {
		x := kmsg.NewMetadataRequestTopic()
		x.Topic = new("some-topic-name")
		q.Topics = append(q.Topics, x)
	}
	body := q.AppendTo(nil)
	g := newGuard()
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.checkBody(3, 12, body, 1<<20); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decode(3, 12, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkNewGuard measures what the guard adds to the start.
func BenchmarkNewGuard(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		newGuard()
	}
}
