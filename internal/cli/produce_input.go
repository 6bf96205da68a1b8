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
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// maxLine is the longest line that is read.
const maxLine = 64 << 20

// line is one line of input, or why there is none.
type line struct {
	text []byte // without its end, in memory of its own
	err  error
}

// readLines sends the lines of r, then an error, which is io.EOF at the end.
func readLines(ctx context.Context, r io.Reader, to chan<- line) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	next := func() line {
		if sc.Scan() {
			return line{text: bytes.Clone(sc.Bytes())}
		}
		err := sc.Err()
		switch {
		case err == nil:
			err = io.EOF
		case errors.Is(err, bufio.ErrTooLong):
			err = fmt.Errorf("it is longer than %s", size(maxLine))
		}
		return line{err: err}
	}
	for {
		l := next()
		select {
		case <-ctx.Done():
			return
		case to <- l:
		}
		if l.err != nil {
			return
		}
	}
}

// lineReader makes a record of a line.
type lineReader func(text []byte) (*kgo.Record, error)

// lineReader makes the one that the flags ask for.
func (f produceFlags) lineReader() (lineReader, error) {
	headers, err := pairs("--header ", f.headers)
	if err != nil {
		return nil, err
	}
	var common []kgo.RecordHeader
	for _, k := range sortedKeys(headers) {
		common = append(common, kgo.RecordHeader{Key: k, Value: []byte(*headers[k])})
	}
	if f.partition < -1 {
		return nil, usagef("--partition %d: partitions count from 0", f.partition)
	}
	if f.json {
		if f.separator != "" {
			return nil, usagef("--json lines hold their keys: leave --key-separator out")
		}
		return func(text []byte) (*kgo.Record, error) { return readJSON(text, f.partition, common) }, nil
	}
	separator := []byte(unescape(f.separator))
	return func(text []byte) (*kgo.Record, error) {
		r := &kgo.Record{Value: text, Partition: f.partition, Headers: common}
		if len(separator) == 0 {
			return r, nil
		}
		key, value, ok := bytes.Cut(text, separator)
		if !ok {
			return nil, fmt.Errorf("there is no key separator %q in it", separator)
		}
		r.Key, r.Value = key, value
		return r, nil
	}, nil
}

// jsonLine is a line of produce --json. Topic and Offset are there so that what
// consume -o json writes can be read; they are ignored.
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
		return nil, fmt.Errorf("it is not a JSON object as --json takes it: %w", err)
	}
	r := &kgo.Record{
		Partition: partition, Headers: common,
		Key: plain(l.Key, l.KeyBase64), Value: plain(l.Value, l.ValueBase64),
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
	var byName map[string]json.RawMessage
	if json.Unmarshal(data, &byName) == nil {
		for _, k := range sortedKeys(byName) {
			*h = append(*h, kgo.RecordHeader{Key: k, Value: plain(byName[k], nil)})
		}
		return nil
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
		*h = append(*h, kgo.RecordHeader{Key: e.Key, Value: plain(e.Value, e.ValueBase64)})
	}
	return nil
}

// plain is a JSON string's text, null's nil, and anything else's own JSON; bytes
// given as such win.
func plain(raw json.RawMessage, asBytes []byte) []byte {
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
