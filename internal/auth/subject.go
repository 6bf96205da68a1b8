package auth

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// errSubject is returned for a subject that is no distinguished name.
var errSubject = errors.New("the subject of the certificate cannot be read")

// attribute is one attribute of a distinguished name.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeSET is one part of a distinguished name, which mostly has one attribute.
type attributeSET []attribute

// keywords are the attributes that Java names; it shows others by their numbers.
var keywords = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC",
}

// shownTags are the types of values that Java shows as text; it shows others as hexadecimal numbers.
var shownTags = []int{asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String, asn1.TagGeneralString, asn1.TagBMPString, asn1.TagUTF8String}

// FormatSubject writes the subject of a certificate, in DER, as Java's X500Principal.getName does, by which Kafka knows its owner: by
// RFC 2253, the last part first.
func FormatSubject(der []byte) (string, error) {
	var parts []attributeSET
	if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("%w: %w", errSubject, err)
	}
	var b strings.Builder
	for i, part := range slices.Backward(parts) {
		if i < len(parts)-1 {
			b.WriteByte(',')
		}
		for j, a := range part {
			if j > 0 {
				b.WriteByte('+')
			}
			a.appendTo(&b)
		}
	}
	return b.String(), nil
}

func (a *attribute) appendTo(b *strings.Builder) {
	number := a.Type.String()
	keyword := keywords[number]
	if keyword == "" {
		b.WriteString(number)
	}
	b.WriteString(keyword)
	b.WriteByte('=')
	if keyword == "" || a.Value.Class != asn1.ClassUniversal || !slices.Contains(shownTags, a.Value.Tag) {
		b.WriteByte('#')
		b.WriteString(hex.EncodeToString(a.Value.FullBytes))
		return
	}
	appendValue(b, a.Value.Bytes)
}

// appendValue appends a value with a backslash before each special character, and before each blank at an end.
func appendValue(b *strings.Builder, value []byte) {
	var escaped []rune
	for _, r := range string(value) { // U+FFFD for each byte that is no UTF-8
		switch {
		case strings.ContainsRune(",=+<>#;\\\"", r):
			escaped = append(escaped, '\\', r)
		case r == 0:
			escaped = append(escaped, '\\', '0', '0')
		default:
			escaped = append(escaped, r)
		}
	}
	isBlank := func(r rune) bool { return r == ' ' || r == '\r' }
	first := 0
	for first < len(escaped) && isBlank(escaped[first]) {
		first++
	}
	last := len(escaped)
	for last > first && isBlank(escaped[last-1]) {
		last--
	}
	for i, r := range escaped {
		if i < first || i >= last {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
}
