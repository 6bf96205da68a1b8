package cli

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// formatHelp explains --format.
const formatHelp = `%v value, %k key, %t topic, %p partition, %o offset, %T timestamp in ms since 1970,
%d timestamp as a date, %h headers, %K and %V the lengths of key and value (-1: null),
%% a percent sign; \n, \t and \\ as usual`

// formatter appends what one record is to be written as.
type formatter func(dst []byte, r *kgo.Record) []byte

// parseFormat reads what formatHelp says.
func parseFormat(format string) (formatter, error) {
	var parts []formatter
	for len(format) > 0 {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			i = len(format)
		}
		if text := unescape(format[:i]); text != "" {
			parts = append(parts, func(dst []byte, _ *kgo.Record) []byte { return append(dst, text...) })
		}
		format = format[i:]
		if format == "" {
			break
		}
		if len(format) == 1 {
			return nil, usagef("--format ends with a lone %%: write %%%% for a percent sign")
		}
		part, ok := verb(format[1])
		if !ok {
			return nil, usagef("--format: there is no %%%c: there are\n%s", format[1], formatHelp)
		}
		parts = append(parts, part)
		format = format[2:]
	}
	return func(dst []byte, r *kgo.Record) []byte {
		for _, p := range parts {
			dst = p(dst, r)
		}
		return dst
	}, nil
}

// verb is what one letter of a format writes.
func verb(c byte) (formatter, bool) {
	number := func(f func(*kgo.Record) int64) (formatter, bool) {
		return func(dst []byte, r *kgo.Record) []byte { return strconv.AppendInt(dst, f(r), 10) }, true
	}
	switch c {
	case 'v', 's':
		return func(dst []byte, r *kgo.Record) []byte { return append(dst, r.Value...) }, true
	case 'k':
		return func(dst []byte, r *kgo.Record) []byte { return append(dst, r.Key...) }, true
	case 't':
		return func(dst []byte, r *kgo.Record) []byte { return append(dst, r.Topic...) }, true
	case 'd':
		return func(dst []byte, r *kgo.Record) []byte { return append(dst, stamp(r.Timestamp.UnixMilli())...) }, true
	case 'h':
		return appendHeaders, true
	case '%':
		return func(dst []byte, _ *kgo.Record) []byte { return append(dst, '%') }, true
	case 'p':
		return number(func(r *kgo.Record) int64 { return int64(r.Partition) })
	case 'o':
		return number(func(r *kgo.Record) int64 { return r.Offset })
	case 'T':
		return number(func(r *kgo.Record) int64 { return r.Timestamp.UnixMilli() })
	case 'K':
		return number(func(r *kgo.Record) int64 { return lengthOf(r.Key) })
	case 'V':
		return number(func(r *kgo.Record) int64 { return lengthOf(r.Value) })
	default:
		return nil, false
	}
}

func lengthOf(b []byte) int64 {
	if b == nil {
		return -1
	}
	return int64(len(b))
}

// appendHeaders writes name=value with commas between.
func appendHeaders(dst []byte, r *kgo.Record) []byte {
	for i, h := range r.Headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, h.Key...), '='), h.Value...)
	}
	return dst
}

// jsonRecord is a line of consume -o json.
type jsonRecord struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   string       `json:"timestamp"`
	Key         *string      `json:"key"`
	KeyBase64   string       `json:"key_base64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 string       `json:"value_base64,omitempty"`
	Headers     []jsonHeader `json:"headers,omitempty"`
}

type jsonHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 string  `json:"value_base64,omitempty"`
}

// appendJSON writes a record as a line of JSON.
func appendJSON(dst []byte, r *kgo.Record) []byte {
	j := jsonRecord{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: stamp(r.Timestamp.UnixMilli())}
	j.Key, j.KeyBase64 = text(r.Key)
	j.Value, j.ValueBase64 = text(r.Value)
	for _, h := range r.Headers {
		jh := jsonHeader{Key: strings.ToValidUTF8(h.Key, "\uFFFD")}
		jh.Value, jh.ValueBase64 = text(h.Value)
		j.Headers = append(j.Headers, jh)
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic("BUG: " + err.Error()) // strings and numbers only
	}
	return append(append(dst, b...), '\n')
}

// text is bytes as a string where they are one, or else in base64.
func text(b []byte) (s *string, inBase64 string) {
	if b == nil {
		return nil, ""
	}
	if utf8.Valid(b) {
		str := string(b)
		return &str, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}
