// Package format writes records as text: by a format with a letter for each field, or as JSON.
package format

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Help explains --format.
const Help = `%v value, %k key, %t topic, %p partition, %o offset, %T timestamp in ms since 1970,
%d timestamp as a date, %h headers, %K and %V the lengths of key and value (-1: null),
%% a percent sign; %v{hex}, %v{base64}, %k{hex}, %k{base64}; \n, \t, \x1f and \\ as usual`

// Writer appends the text of a record to dst.
type Writer func(dst []byte, r *kgo.Record) []byte

// Parse makes the writer of a format as Help describes it. If forTerminal is set, fields are escaped as
// Printable does it; the text between them is the user's own, and stays as it is.
func Parse(format string, forTerminal bool) (Writer, error) {
	var parts []Writer
	for len(format) > 0 {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			i = len(format)
		}
		if text := Unescape(format[:i]); text != "" {
			parts = append(parts, func(dst []byte, _ *kgo.Record) []byte { return append(dst, text...) })
		}
		format = format[i:]
		if format == "" {
			break
		}
		if len(format) == 1 {
			return nil, fmt.Errorf("--format ends with a lone %%: write %%%% for a percent sign")
		}
		part, ok := chooseField(format[1])
		if !ok {
			return nil, fmt.Errorf("--format: there is no %%%c: there are %s", format[1], strings.ReplaceAll(Help, "\n", " "))
		}
		letter := format[:2]
		format = format[2:]
		if name, rest, ok := strings.Cut(format, "}"); ok && strings.HasPrefix(name, "{") {
			if part, ok = encodeField(part, letter, name[1:]); !ok {
				return nil, fmt.Errorf("--format: there is no %s%s}: there are %%v{hex}, %%v{base64}, %%k{hex} and %%k{base64}", letter, name)
			}
			format = rest
		}
		if forTerminal {
			part = Printable(part, `\x%02x`)
		}
		parts = append(parts, part)
	}
	return func(dst []byte, r *kgo.Record) []byte {
		for _, p := range parts {
			dst = p(dst, r)
		}
		return dst
	}, nil
}

// encodeField makes a writer of a key or value in hex or base64.
func encodeField(part Writer, letter, encoding string) (Writer, bool) {
	var encode func(dst, src []byte) []byte
	switch encoding {
	case "hex":
		encode = hex.AppendEncode
	case "base64":
		encode = base64.StdEncoding.AppendEncode
	}
	if encode == nil || letter != "%v" && letter != "%s" && letter != "%k" {
		return nil, false
	}
	return func(dst []byte, r *kgo.Record) []byte { return encode(dst, part(nil, r)) }, true
}

// chooseField makes the writer of the field that a letter stands for.
func chooseField(c byte) (Writer, bool) {
	number := func(f func(*kgo.Record) int64) (Writer, bool) {
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
		return func(dst []byte, r *kgo.Record) []byte { return append(dst, formatTime(r.Timestamp.UnixMilli())...) }, true
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
		return number(func(r *kgo.Record) int64 { return lengthOrNull(r.Key) })
	case 'V':
		return number(func(r *kgo.Record) int64 { return lengthOrNull(r.Value) })
	default:
		return nil, false
	}
}

func lengthOrNull(b []byte) int64 {
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

// jsonRecord is a line of the output of consume -o json.
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
	Transaction string       `json:"transaction,omitempty"`
}

type jsonHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 string  `json:"value_base64,omitempty"`
}

// AppendJSON writes a record as a line of JSON.
func AppendJSON(dst []byte, r *kgo.Record) []byte { return AppendStateJSON(dst, r, "") }

// AppendStateJSON is AppendJSON with the state of the record's transaction, which is left out if it is empty.
func AppendStateJSON(dst []byte, r *kgo.Record, transaction string) []byte {
	j := jsonRecord{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: formatTime(r.Timestamp.UnixMilli()), Transaction: transaction}
	j.Key, j.KeyBase64 = textOrBase64(r.Key)
	j.Value, j.ValueBase64 = textOrBase64(r.Value)
	for _, h := range r.Headers {
		jh := jsonHeader{Key: strings.ToValidUTF8(h.Key, "\uFFFD")}
		jh.Value, jh.ValueBase64 = textOrBase64(h.Value)
		j.Headers = append(j.Headers, jh)
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic("BUG: " + err.Error()) // strings and numbers only
	}
	return append(append(dst, b...), '\n')
}

// textOrBase64 gives bytes as a string if they are valid UTF-8, and in base64 otherwise.
func textOrBase64(b []byte) (s *string, inBase64 string) {
	if b == nil {
		return nil, ""
	}
	if utf8.Valid(b) {
		str := string(b)
		return &str, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}

// Printable keeps records from controlling a terminal. It writes control characters, except line ends
// and tabs, and bytes that are not UTF-8 as escapes. The format asciiEscape is that of single bytes.
func Printable(write Writer, asciiEscape string) Writer {
	return func(dst []byte, r *kgo.Record) []byte {
		from := len(dst)
		dst = write(dst, r)
		isPlain := func(b byte) bool { return b >= ' ' && b < 0x7f || b == '\n' || b == '\t' }
		if !slices.ContainsFunc(dst[from:], func(b byte) bool { return !isPlain(b) }) {
			return dst
		}
		return AppendEscaped(dst[:from], bytes.Clone(dst[from:]), "\n\t", asciiEscape)
	}
}

// AppendEscaped appends raw to dst, and writes control characters, except those in keep, and bytes that are
// not UTF-8 as escapes. The format asciiEscape is that of single bytes.
func AppendEscaped(dst, raw []byte, keep, asciiEscape string) []byte {
	for len(raw) > 0 {
		c, n := utf8.DecodeRune(raw)
		switch {
		case raw[0] >= ' ' && raw[0] < 0x7f, strings.IndexByte(keep, raw[0]) >= 0:
			dst = append(dst, raw[0])
		case n == 1: // a control character, or not UTF-8
			dst = fmt.Appendf(dst, asciiEscape, raw[0])
		case unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c):
			dst = fmt.Appendf(dst, `\u%04x`, c)
		default:
			dst = append(dst, raw[:n]...)
		}
		raw = raw[n:]
	}
	return dst
}

// Unescape replaces \t, \n, \x1f and the like by the characters that they stand for.
func Unescape(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		at := strings.IndexByte(s, '\\')
		if at < 0 || at == len(s)-1 {
			break
		}
		out.WriteString(s[:at])
		c := s[at+1]
		rest := s[at+2:]
		switch i := strings.IndexByte(`\tnr0`, c); {
		case i >= 0:
			out.WriteByte("\\\t\n\r\x00"[i])
		case c == 'x' && len(rest) >= 2:
			if n, err := strconv.ParseUint(rest[:2], 16, 8); err == nil {
				out.WriteByte(byte(n))
				rest = rest[2:]
				break
			}
			fallthrough
		default:
			out.WriteString(s[at : at+2])
		}
		s = rest
	}
	return out.String() + s
}

// formatTime writes a time in ms since 1970 as RFC 3339 in UTC.
func formatTime(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
