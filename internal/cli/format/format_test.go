package format

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// TestParse proves what each letter of a format writes, and that nulls differ from
// empty fields.
func TestParse(t *testing.T) {
	r := &kgo.Record{
		Topic: "t", Partition: 2, Offset: 7, Timestamp: time.UnixMilli(1779015600123), Key: []byte("k"), Value: []byte("v\n"),
		Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b"}},
	}
	f := func(text, want string) {
		t.Helper()
		write, err := Parse(text, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(write(nil, r)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	f(`%t/%p/%o\t%k=%v`, "t/2/7\tk=v\n")
	f(`%T %d`, "1779015600123 2026-05-17T11:00:00.123Z")
	f(`%h|%K,%V|100%%\\n`, `a=1,b=|1,2|100%\n`)
	f(`%v{hex} %k{base64}%v{base64}\x41\x4g`, `760a aw==dgo=A\x4g`)
	f("", "")
	r.Key, r.Value = nil, []byte{}
	f(`%K %V`, "-1 0")
}

// TestParseRefuses proves that a format with a letter or an encoding that does not exist, or that
// ends in the middle of one, is refused with a sentence.
func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"%v%":        "ends with a lone %",
		"%x":         "there is no %x",
		"%v{rot13}":  "there is no %v{rot13}",
		"%t{hex}":    "there is no %t{hex}",
		"%%{base64}": "there is no %%{base64}",
	} {
		if _, err := Parse(text, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestUnescape proves which escapes are replaced, and that all others stay as they are.
func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{
		`a\tb\\n\0`: "a\tb\\n\x00",
		`\r\n`:      "\r\n",
		`\x1f\xfg`:  "\x1f\\xfg",
		`\q\x4`:     `\q\x4`,
		`\`:         `\`,
	} {
		if got := Unescape(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestAppendJSON proves that null, empty, text and binary fields differ in the JSON, and that
// header names that are not UTF-8 do not break it.
func TestAppendJSON(t *testing.T) {
	r := &kgo.Record{
		Topic: "t", Partition: 2, Offset: 7, Timestamp: time.UnixMilli(1779015600123), Value: []byte{},
		Headers: []kgo.RecordHeader{{Key: "a\xff", Value: []byte("\xff\xfe")}, {Key: "n"}},
	}
	want := `{"topic":"t","partition":2,"offset":7,"timestamp":"2026-05-17T11:00:00.123Z","key":null,"value":"",` +
		`"headers":[{"key":"a\ufffd","value":null,"value_base64":"//4="},{"key":"n","value":null}]}` + "\n"
	got := string(AppendJSON(nil, r))
	if strings.ReplaceAll(got, "\uFFFD", `\ufffd`) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Errorf("%s is not JSON", got)
	}
}

// TestPrintable proves that no bytes of a record can control a terminal, and that plain text
// stays as it is.
func TestPrintable(t *testing.T) {
	write := Printable(func(dst []byte, r *kgo.Record) []byte { return append(dst, r.Value...) }, `\x%02x`)
	for value, want := range map[string]string{
		"plain text\n\tand groß": "plain text\n\tand groß",
		"\x1b[2J":                `\x1b[2J`,
		"\x9b":                   `\x9b`,
		"\u009b31m":              `\u009b31m`,
		"a\u202eb":               `a\u202eb`,
	} {
		if got := string(write([]byte("> "), &kgo.Record{Value: []byte(value)})); got != "> "+want {
			t.Errorf("%q: %q, want %q", value, got, "> "+want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.SliceOf(rapid.Byte()).Draw(rt, "value")
		for _, b := range write(nil, &kgo.Record{Value: value}) {
			if b < ' ' && b != '\n' && b != '\t' || b == 0x7f {
				rt.Fatalf("%q leaves the control character %#x", value, b)
			}
		}
	})
}
