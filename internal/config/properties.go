package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Property is a line of a Java properties file.
type Property struct {
	Name, Value string
	Line        int // on which it begins, from 1 on
}

// ParseProperties parses the text of a Java properties file, such as a client.properties. Of a name that is there twice the last value
// counts. No error has a value, which may be a secret.
func ParseProperties(text string) (map[string]string, error) {
	all, err := ReadProperties(text)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, p := range all {
		values[p.Name] = p.Value
	}
	return values, nil
}

// ReadProperties reads all lines of a Java properties file, such as a server.properties, in their order.
func ReadProperties(text string) (all []Property, err error) {
	lines := strings.Split(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		at, line := i+1, strings.TrimLeft(lines[i], " \t\f")
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for endsInBackslash(line) && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + strings.TrimLeft(lines[i], " \t\f")
		}
		name, value := cutProperty(line)
		name, err := unescapeProperty(name)
		if err == nil {
			value, err = unescapeProperty(value)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at, err)
		}
		all = append(all, Property{name, value, at})
	}
	return all, nil
}

// endsInBackslash tells whether the next line continues a line: it ends in an odd number of backslashes.
func endsInBackslash(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// cutProperty cuts a line behind the name, at the first equals sign, colon or white space without a backslash.
func cutProperty(line string) (name, value string) {
	end := 0
	for end < len(line) && !strings.ContainsRune("=: \t\f", rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	value = strings.TrimLeft(line[end:], " \t\f")
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], " \t\f")
	}
	return line[:end], value
}

func unescapeProperty(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			if s[i] != '\\' {
				b.WriteByte(s[i])
			}
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			if i+5 > len(s) {
				return "", fmt.Errorf(`four hexadecimal digits follow \u`)
			}
			code, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", fmt.Errorf(`four hexadecimal digits follow \u`)
			}
			b.WriteRune(rune(code))
			i += 4
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}
