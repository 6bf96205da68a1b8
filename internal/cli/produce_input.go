package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cli/format"
	"github.com/leatstream/leat/internal/cli/phrase"
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

// jsonMembers are the members of a line of produce --json. The topic and the offset are ignored: they are there so that
// the output of consume -o json can be read.
var jsonMembers = []string{"topic", "offset", "key", "key_base64", "value", "value_base64", "headers", "partition", "timestamp"}

// readJSON makes a record of a line of produce --json. Its errors name the member and say what it must be.
func readJSON(text []byte, partition int32, common []kgo.RecordHeader) (*kgo.Record, error) {
	l, err := readJSONObject(text, jsonMembers)
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{Partition: partition, Headers: common}
	if r.Key, err = l.readBytes("key"); err != nil {
		return nil, err
	}
	if r.Value, err = l.readBytes("value"); err != nil {
		return nil, err
	}
	if raw, ok := l.findMember("partition"); ok {
		if json.Unmarshal(raw, &r.Partition) != nil || r.Partition < 0 {
			return nil, fmt.Errorf("partition is %s: it must be the number of a partition, counted from 0", shortenJSON(raw))
		}
	}
	if raw, ok := l.findMember("timestamp"); ok {
		if json.Unmarshal(raw, &r.Timestamp) != nil {
			return nil, fmt.Errorf(`timestamp is %s: it must be a string with date and time, such as "2026-05-17T10:05:03Z"`, shortenJSON(raw))
		}
	}
	if raw, ok := l.findMember("headers"); ok {
		headers, err := readJSONHeaders(raw)
		if err != nil {
			return nil, err
		}
		r.Headers = slices.Concat(common, headers)
	}
	return r, nil
}

// jsonObject holds the members of a JSON object.
type jsonObject map[string]json.RawMessage

// readJSONObject reads an object all of whose members are known.
func readJSONObject(text []byte, known []string) (jsonObject, error) {
	const wanted = `an object such as {"key":"k","value":"v"} is wanted`
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty: " + wanted)
	}
	var all jsonObject
	if d := json.NewDecoder(bytes.NewReader(text)); json.Valid(text) {
		if err := d.Decode(&all); err != nil || all == nil {
			return nil, fmt.Errorf("it is %s: %s", shortenJSON(text), wanted)
		}
	} else if first := new(json.RawMessage); d.Decode(first) == nil {
		return nil, errors.New("there is more after the JSON object: write one object in each line")
	} else {
		return nil, errors.New("it is not JSON: " + wanted)
	}
	for _, name := range sortedKeys(all) {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no member %s%s", name, cmp.Or(phrase.DidYouMean(name, known), ": write "+phrase.Join(known, "or")))
		}
	}
	return all, nil
}

// findMember finds a member that is there and not null.
func (o jsonObject) findMember(name string) (json.RawMessage, bool) {
	raw, ok := o[name]
	return raw, ok && string(raw) != "null"
}

// readBytes reads a key or a value: the bytes of the member NAME_base64 if there is one, else those of the member NAME.
func (o jsonObject) readBytes(name string) ([]byte, error) {
	raw, ok := o.findMember(name + "_base64")
	if !ok {
		return bytesOfJSON(o[name]), nil
	}
	if _, both := o.findMember(name); both {
		return nil, fmt.Errorf("%s and %s_base64 are both there: leave one of them out", name, name)
	}
	var inBase64 []byte
	if !bytes.HasPrefix(raw, []byte(`"`)) || json.Unmarshal(raw, &inBase64) != nil {
		return nil, fmt.Errorf("%s_base64 is %s: it must be a string in base64, such as \"aGVsbG8=\"", name, shortenJSON(raw))
	}
	return inBase64, nil
}

// readJSONHeaders reads headers: an object, or a list of objects with key and value, which keeps order and repeated keys.
func readJSONHeaders(raw json.RawMessage) (headers []kgo.RecordHeader, err error) {
	if bytes.HasPrefix(raw, []byte("{")) {
		return readHeaderMembers(raw)
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil, fmt.Errorf(`headers is %s: it must be an object such as {"name":"value"}, or a list of objects with key and value`, shortenJSON(raw))
	}
	for i, text := range list {
		e, err := readJSONObject(text, []string{"key", "value", "value_base64"})
		if err != nil {
			return nil, fmt.Errorf("headers, number %d: %w", i+1, err)
		}
		var h kgo.RecordHeader
		if key, ok := e.findMember("key"); ok && json.Unmarshal(key, &h.Key) != nil {
			return nil, fmt.Errorf("headers, number %d: key is %s: it must be a string", i+1, shortenJSON(key))
		}
		if h.Value, err = e.readBytes("value"); err != nil {
			return nil, fmt.Errorf("headers, number %d: %w", i+1, err)
		}
		headers = append(headers, h)
	}
	return headers, nil
}

// readHeaderMembers reads the members of an object of headers in their order. Names may repeat.
func readHeaderMembers(raw json.RawMessage) (headers []kgo.RecordHeader, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	_, err = d.Token() // the brace
	for err == nil && d.More() {
		var name json.Token
		var value json.RawMessage
		if name, err = d.Token(); err == nil {
			err = d.Decode(&value)
		}
		key, _ := name.(string)
		headers = append(headers, kgo.RecordHeader{Key: key, Value: bytesOfJSON(value)})
	}
	return headers, err
}

// shortenJSON shows a value that is not as it must be, or its beginning.
func shortenJSON(raw []byte) string {
	const most = 40
	text := []rune(string(bytes.TrimSpace(raw)))
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}

// bytesOfJSON gives the text of a JSON string, nil for null, and the JSON itself for anything else.
func bytesOfJSON(raw json.RawMessage) []byte {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	return raw
}
