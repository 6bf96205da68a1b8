package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// record is one record as it travels between the suite and the drivers. Byte
// fields are base64 in JSON and null is not empty.
type record struct {
	Key       []byte   `json:"k"`
	Value     []byte   `json:"v"`
	Headers   []header `json:"h"`
	Timestamp int64    `json:"ts,omitempty"` // milliseconds, 0: the client's clock
	Offset    int64    `json:"o,omitempty"`  // filled when consumed
}

type header struct {
	Name  string `json:"n"`
	Value []byte `json:"v"`
}

// largeBytes is the size of the large record: under the 1,000,000 that
// librdkafka allows a request by default, and close to Kafka's 1,048,588.
const largeBytes = 900_000

// sample returns the records of one produce run. They differ by seed, hold
// every kind of key, value and headers that the client can express, and a
// large record.
func sample(seed uint64, can abilities, large bool) []record {
	rng := rand.New(rand.NewPCG(seed, 7))
	text := func(n int) []byte {
		var b strings.Builder
		for b.Len() < n {
			fmt.Fprintf(&b, "GET /item/%04d 200 - ", rng.IntN(10_000))
		}
		return []byte(b.String()[:n])
	}
	headers := []header{{"trace", []byte("a1b2c3")}, {"kind", []byte("order")}}
	var all []record
	for i := range 40 {
		all = append(all, record{Key: fmt.Appendf(nil, "key-%d", i%7), Value: text(200 + rng.IntN(300))})
	}
	all = append(all,
		record{Value: []byte("no key")},
		record{Key: []byte("tombstone")},
		record{Key: []byte("with headers"), Value: text(64), Headers: headers},
	)
	if !can.textOnly {
		noise := make([]byte, 4096)
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		all = append(all,
			record{Key: []byte{0, 0xff, 0xfe, '\n', 0x80}, Value: noise},
			record{Key: []byte("grüße, 世界"), Value: []byte("ünïcödé"), Headers: []header{{"größe", []byte("XL")}, {"bin", []byte{0, 1, 0xff}}}},
		)
		if !can.noRepeatedHeaders {
			all = append(all, record{Key: []byte("twice"), Value: text(10), Headers: []header{{"h", []byte("1")}, {"h", []byte("2")}}})
		}
		if !can.noNullHeaders {
			all = append(all, record{Key: []byte("null header"), Value: text(10), Headers: []header{{"null", nil}}})
		}
		if !can.noEmpty {
			all = append(all,
				record{Key: []byte{}, Value: []byte("empty key")},
				record{Key: []byte("empty value"), Value: []byte{}},
				record{Key: []byte("empty header"), Value: text(10), Headers: []header{{"empty", []byte{}}}},
			)
		}
	}
	if large {
		// Noise, but each kilobyte twice: a client may leave a batch that gains
		// nothing uncompressed.
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
		value := make([]byte, largeBytes)
		for i := range value {
			if i%2048 < 1024 {
				value[i] = letters[rng.IntN(len(letters))]
			} else {
				value[i] = value[i-1024]
			}
		}
		all = append(all, record{Key: []byte("large"), Value: value})
	}
	return append(all, record{Key: []byte("last"), Value: text(100)})
}

// writeRecords puts records into a new file of the test's directory.
func writeRecords(t *testing.T, all []record) string {
	t.Helper()
	var b bytes.Buffer
	for _, r := range all {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	path := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readRecords reads a file of records; drivers use it too.
func readRecords(path string) ([]record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []record
	lines := json.NewDecoder(bufio.NewReaderSize(f, 1<<20))
	for lines.More() {
		var r record
		if err := lines.Decode(&r); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// saveRecords is what drivers in Go call with what they consumed.
func saveRecords(path string, all []record) (response, error) {
	f, err := os.Create(path)
	if err != nil {
		return response{}, err
	}
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, r := range all {
		if err := lines.Encode(r); err != nil {
			return response{}, err
		}
	}
	if err := w.Flush(); err != nil {
		return response{}, err
	}
	return response{Count: len(all)}, f.Close()
}

// compare fails the test when got is not want, record by record. Offsets must
// rise by one from first; timestamps are compared where want has one, and
// must else be of the last hour.
func compare(t *testing.T, who string, want, got []record, first int64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d records, want %d", who, len(got), len(want))
	}
	hour := time.Now().Add(-time.Hour).UnixMilli()
	for i := range min(len(want), len(got)) {
		w, g := want[i], got[i]
		if g.Offset != first+int64(i) {
			t.Fatalf("%s: record %d has offset %d, want %d", who, i, g.Offset, first+int64(i))
		}
		if w.Timestamp == 0 && g.Timestamp < hour || w.Timestamp != 0 && g.Timestamp != w.Timestamp {
			t.Errorf("%s: record %d has timestamp %d, want %d", who, i, g.Timestamp, w.Timestamp)
		}
		w.Offset, w.Timestamp, g.Offset, g.Timestamp = 0, 0, 0, 0
		if diff := cmp.Diff(brief(w), brief(g)); diff != "" {
			t.Fatalf("%s: record %d differs (-want +got):\n%s", who, i, diff)
		}
	}
}

// emptyToNull returns the records as a client sees them that knows no difference.
func emptyToNull(all []record) []record {
	null := func(b []byte) []byte {
		if len(b) == 0 {
			return nil
		}
		return b
	}
	var out []record
	for _, r := range all {
		r.Key, r.Value, r.Headers = null(r.Key), null(r.Value), slices.Clone(r.Headers)
		for i := range r.Headers {
			r.Headers[i].Value = null(r.Headers[i].Value)
		}
		out = append(out, r)
	}
	return out
}

// brief is a record in a form that a person can read in a diff, null apart from
// empty, and no headers the same as none.
func brief(r record) map[string]string {
	show := func(b []byte) string {
		if b == nil {
			return "null"
		}
		if len(b) > 200 {
			return fmt.Sprintf("%d bytes, hash %x", len(b), hash(b))
		}
		return fmt.Sprintf("%q", b)
	}
	out := map[string]string{"key": show(r.Key), "value": show(r.Value)}
	for i, h := range r.Headers {
		out[fmt.Sprintf("header %d %q", i, h.Name)] = show(h.Value)
	}
	return out
}
