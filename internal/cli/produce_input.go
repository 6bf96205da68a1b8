package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cli/format"
)

// maxPiece is the longest line, or the largest file with --whole, that is read.
const maxPiece = 1 << 30

// piece is the input for one record, or the reason why there is none.
type piece struct {
	text []byte // without the delimiter; nobody else uses its memory
	err  error
}

// cutter cuts input into pieces.
type cutter struct {
	delimiter []byte // between pieces; empty: a line end
	whole     bool   // all of an input is one piece
}

// describePlace names the n-th piece of an input.
func (c cutter) describePlace(n int) string {
	switch {
	case c.whole:
		return ""
	case len(c.delimiter) > 0:
		return fmt.Sprintf(", record %d", n)
	default:
		return fmt.Sprintf(", line %d", n)
	}
}

// splitPiece is a bufio.SplitFunc: it finds the end of a piece.
func (c cutter) splitPiece(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if len(c.delimiter) == 0 {
		return bufio.ScanLines(data, atEOF)
	}
	if i := bytes.Index(data, c.delimiter); i >= 0 {
		return i + len(c.delimiter), data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// readPieces sends the pieces of r, then an error, which is io.EOF at the end.
func readPieces(ctx context.Context, r io.Reader, c cutter, to chan<- piece) {
	send := func(p piece) bool {
		select {
		case <-ctx.Done():
			return false
		case to <- p:
			return true
		}
	}
	tooLong := fmt.Errorf("it is longer than %s", formatSize(maxPiece))
	if c.whole {
		all, err := io.ReadAll(io.LimitReader(r, maxPiece+1))
		switch {
		case err == nil && len(all) > maxPiece:
			err = tooLong
		case err == nil:
			if !send(piece{text: all}) {
				return
			}
			err = io.EOF
		}
		send(piece{err: err})
		return
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxPiece)
	sc.Split(c.splitPiece)
	for sc.Scan() {
		if !send(piece{text: bytes.Clone(sc.Bytes())}) {
			return
		}
	}
	err := sc.Err()
	switch {
	case err == nil:
		err = io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		err = tooLong
	}
	send(piece{err: err})
}

// lineReader makes a record of the text of a piece.
type lineReader func(text []byte) (*kgo.Record, error)

// chooseReader makes the cutter and the lineReader that the flags ask for.
func (f produceFlags) chooseReader() (cutter, lineReader, error) {
	c := cutter{delimiter: []byte(format.Unescape(f.delimiter)), whole: f.whole}
	common, err := f.commonHeaders()
	if err != nil {
		return c, nil, err
	}
	if f.partition < -1 {
		return c, nil, usagef("--partition %d: partitions count from 0", f.partition)
	}
	if f.json {
		return c, func(text []byte) (*kgo.Record, error) { return readJSON(text, f.partition, common) }, nil
	}
	separator := []byte(format.Unescape(f.separator))
	return c, func(text []byte) (*kgo.Record, error) {
		r := &kgo.Record{Value: text, Partition: f.partition, Headers: common}
		if f.keyGiven {
			r.Key = []byte(f.key)
		}
		if len(separator) > 0 {
			key, value, ok := bytes.Cut(text, separator)
			if !ok {
				return nil, fmt.Errorf("it has no key separator %q", separator)
			}
			r.Key, r.Value = key, value
		}
		if f.null && len(r.Value) == 0 {
			r.Value = nil
		}
		return r, nil
	}, nil
}

// commonHeaders are the headers of all records, in the order of the flags. Names may repeat.
func (f produceFlags) commonHeaders() (headers []kgo.RecordHeader, err error) {
	for _, kv := range f.headers {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, usagef("--header %q: write it as name=value", kv)
		}
		headers = append(headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	return headers, nil
}

// jsonLine is a line of produce --json. Topic and Offset are ignored: they are there so that the output
// of consume -o json can be read.
type jsonLine struct {
	Topic       json.RawMessage `json:"topic"`
	Offset      json.RawMessage `json:"offset"`
	Key         json.RawMessage `json:"key"`
	KeyBase64   []byte          `json:"key_base64"`
	Value       json.RawMessage `json:"value"`
	ValueBase64 []byte          `json:"value_base64"`
	Headers     jsonHeaders     `json:"headers"`
	Partition   *int32          `json:"partition"`
	Timestamp   *time.Time      `json:"timestamp"`
}

func readJSON(text []byte, partition int32, common []kgo.RecordHeader) (*kgo.Record, error) {
	var l jsonLine
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("it is not a JSON object that --json accepts: %w", err)
	}
	r := &kgo.Record{
		Partition: partition, Headers: common,
		Key: bytesOfJSON(l.Key, l.KeyBase64), Value: bytesOfJSON(l.Value, l.ValueBase64),
	}
	if l.Partition != nil {
		if *l.Partition < 0 {
			return nil, fmt.Errorf("partition %d: partitions count from 0", *l.Partition)
		}
		r.Partition = *l.Partition
	}
	if l.Timestamp != nil {
		r.Timestamp = *l.Timestamp
	}
	if len(l.Headers) > 0 {
		r.Headers = slices.Concat(common, l.Headers)
	}
	return r, nil
}

// jsonHeaders are headers as an object, or as a list of objects with key and value,
// which keeps order and repeated keys.
type jsonHeaders []kgo.RecordHeader

// UnmarshalJSON reads both forms.
func (h *jsonHeaders) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte("{")) {
		return h.readObject(data)
	}
	var list []struct {
		Key         string          `json:"key"`
		Value       json.RawMessage `json:"value"`
		ValueBase64 []byte          `json:"value_base64"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("headers: %w", err)
	}
	for _, e := range list {
		*h = append(*h, kgo.RecordHeader{Key: e.Key, Value: bytesOfJSON(e.Value, e.ValueBase64)})
	}
	return nil
}

// readObject reads the object's members in their order. Names may repeat.
func (h *jsonHeaders) readObject(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	_, err := d.Token() // the brace
	for err == nil && d.More() {
		var name json.Token
		var value json.RawMessage
		if name, err = d.Token(); err == nil {
			err = d.Decode(&value)
		}
		key, _ := name.(string)
		*h = append(*h, kgo.RecordHeader{Key: key, Value: bytesOfJSON(value, nil)})
	}
	if err != nil {
		return fmt.Errorf("headers: %w", err)
	}
	return nil
}

// bytesOfJSON gives the text of a JSON string, nil for null, and the JSON itself for anything else.
// If asBytes is set, it is used instead.
func bytesOfJSON(raw json.RawMessage, asBytes []byte) []byte {
	if asBytes != nil {
		return asBytes
	}
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	return raw
}
