package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// formatHelp explains --format.
const formatHelp = `%v value, %k key, %t topic, %p partition, %o offset, %T timestamp in ms since 1970,
%d timestamp as a date, %h headers, %K and %V the lengths of key and value (-1: null),
%% a percent sign; %v{hex}, %v{base64}, %k{hex}, %k{base64}; \n, \t, \x1f and \\ as usual`

// formatter appends what one record is to be written as.
type formatter func(dst []byte, r *kgo.Record) []byte

// parseFormat reads what formatHelp says. Fields are written as a terminal may see them where
// forTerminal is set; the text between them is the user's own.
func parseFormat(format string, forTerminal bool) (formatter, error) {
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
			return nil, usagef("--format: there is no %%%c: there are %s", format[1], strings.ReplaceAll(formatHelp, "\n", " "))
		}
		letter := format[:2]
		format = format[2:]
		if name, rest, ok := strings.Cut(format, "}"); ok && strings.HasPrefix(name, "{") {
			if part, ok = encoded(part, letter, name[1:]); !ok {
				return nil, usagef("--format: there is no %s%s}: there are %%v{hex}, %%v{base64}, %%k{hex} and %%k{base64}", letter, name)
			}
			format = rest
		}
		if forTerminal {
			part = printable(part, `\x%02x`)
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

// encoded writes a key or value in hex or base64.
func encoded(part formatter, letter, encoding string) (formatter, bool) {
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

// printable keeps a terminal from obeying records: control characters and bytes that are no
// text are written as escapes, apart from line ends and tabs. Single bytes are escaped as the
// format asciiEscape says.
func printable(write formatter, asciiEscape string) formatter {
	return func(dst []byte, r *kgo.Record) []byte {
		from := len(dst)
		dst = write(dst, r)
		isPlain := func(b byte) bool { return b >= ' ' && b < 0x7f || b == '\n' || b == '\t' }
		if !slices.ContainsFunc(dst[from:], func(b byte) bool { return !isPlain(b) }) {
			return dst
		}
		raw := bytes.Clone(dst[from:])
		dst = dst[:from]
		for len(raw) > 0 {
			c, n := utf8.DecodeRune(raw)
			switch {
			case isPlain(raw[0]):
				dst = append(dst, raw[0])
			case n == 1: // a control character, or no text
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
}
