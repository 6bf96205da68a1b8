package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// The login modules whose entries are read.
const (
	PlainLoginModule = "org.apache.kafka.common.security.plain.PlainLoginModule"
	ScramLoginModule = "org.apache.kafka.common.security.scram.ScramLoginModule"
	OAuthLoginModule = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
)

// JAAS is the entry of one login module, as a sasl.jaas.config has it (KIP-85):
//
//	CLASS required name="value" ... ;
//
// Its values are secrets. No error of this package has one of them.
type JAAS struct {
	Module  string
	Options map[string]string
}

// ParseJAAS parses the entry of one login module.
func ParseJAAS(text string) (JAAS, error) {
	r := jaasReader{rest: text}
	j := JAAS{Options: map[string]string{}}
	j.Module = r.readWord()
	flag := strings.ToLower(r.readWord())
	switch {
	case r.err != nil:
	case flag != "required" && flag != "requisite" && flag != "sufficient" && flag != "optional":
		r.fail("after the class comes required")
	}
	for r.err == nil && !r.skipMark(';') {
		name := r.readWord()
		if r.err == nil && !r.skipMark('=') {
			r.fail("after the name of an option comes an equals sign")
		}
		value := r.readValue()
		if _, twice := j.Options[name]; twice && r.err == nil {
			r.fail("an option is given twice")
		}
		j.Options[name] = value
	}
	if r.skipSpace(); r.err == nil && r.rest != "" {
		r.fail("nothing may follow the semicolon: it is the entry of one login module")
	}
	return j, r.err
}

// jaasReader reads an entry from its beginning.
type jaasReader struct {
	rest string
	err  error
}

func (r *jaasReader) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("it is not of the form CLASS required name=\"value\" ... ; : %w", errors.New(why))
	}
	r.rest = ""
}

// skipSpace skips white space and comments.
func (r *jaasReader) skipSpace() {
	for {
		r.rest = strings.TrimLeftFunc(r.rest, unicode.IsSpace)
		switch {
		case strings.HasPrefix(r.rest, "//"):
			_, r.rest, _ = strings.Cut(r.rest, "\n")
		case strings.HasPrefix(r.rest, "/*"):
			_, after, closed := strings.Cut(r.rest[2:], "*/")
			if r.rest = after; !closed {
				r.fail("a comment has no end")
			}
		default:
			return
		}
	}
}

// skipMark skips a character, and tells whether it was there.
func (r *jaasReader) skipMark(mark byte) bool {
	r.skipSpace()
	if r.rest == "" || r.rest[0] != mark {
		if r.rest == "" {
			r.fail("a semicolon ends it")
		}
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// readWord reads a name without quotes.
func (r *jaasReader) readWord() string {
	r.skipSpace()
	end := strings.IndexFunc(r.rest, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("._-$", c)
	})
	if end < 0 {
		end = len(r.rest)
	}
	word := r.rest[:end]
	if word == "" {
		r.fail("a name is missing, or a value has no quotes around it")
		return ""
	}
	r.rest = r.rest[end:]
	return word
}

// readValue reads a value in quotes, or a word.
func (r *jaasReader) readValue() string {
	r.skipSpace()
	if r.rest == "" || r.rest[0] != '"' && r.rest[0] != '\'' {
		return r.readWord()
	}
	quote := r.rest[0]
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == quote:
			r.rest = r.rest[i+1:]
			return b.String()
		case c == '\n' || c == '\r':
			r.fail("a value in quotes ends on its line")
			return ""
		case c == '\\' && i+1 < len(r.rest):
			i++
			b.WriteByte(unescapeJAAS(r.rest[i]))
		default:
			b.WriteByte(c)
		}
	}
	r.fail("a value has no closing quote")
	return ""
}

// unescapeJAAS is the character that stands behind a backslash for another one.
func unescapeJAAS(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}
