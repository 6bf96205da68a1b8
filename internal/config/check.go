package config

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// value is a config's value, parsed. Which field is set depends on the type.
type value struct {
	b bool
	n int64
	f float64
	s string
	l []string
}

// check looks at a parsed value and returns what is wrong with it, or "".
type check func(v value) string

// parse reads a value as Kafka does, and checks it. The error is ErrInvalid.
func (d *Def) parse(text string) (v value, err error) {
	trimmed := strings.TrimSpace(text)
	shown := text
	var wrong string
	switch d.Type {
	case Bool:
		v.b = strings.EqualFold(trimmed, "true")
		if !v.b && !strings.EqualFold(trimmed, "false") {
			wrong = "Expected value to be either true or false"
		}
	case Int:
		v.n, wrong = parseNumber(trimmed, 32, "INT")
	case Short:
		v.n, wrong = parseNumber(trimmed, 16, "SHORT")
	case Long:
		v.n, wrong = parseNumber(trimmed, 64, "LONG")
	case Double:
		if v.f, err = strconv.ParseFloat(trimmed, 64); err != nil {
			wrong = "Not a number of type DOUBLE"
		} else {
			shown = javaDouble(v.f)
		}
	case List:
		v.l = splitList(trimmed)
	case String, Class, Password:
		v.s = trimmed
		if d.Type == Password {
			shown = "[hidden]"
		}
	}
	if wrong == "" && d.check != nil {
		wrong = d.check(v)
	}
	if wrong == "" {
		return v, nil
	}
	if whole, ok := strings.CutPrefix(wrong, refused); ok {
		return v, refusedConfig("%s", strings.ReplaceAll(whole, "{}", d.Name))
	}
	if whole, ok := strings.CutPrefix(wrong, alone); ok {
		return v, badConfig("%s", strings.ReplaceAll(whole, "{}", d.Name))
	}
	if d.Type == List && strings.HasPrefix(wrong, inList) {
		item, rest, _ := strings.Cut(wrong[len(inList):], "\x00")
		return v, badConfig("Invalid value %s for configuration %s: %s", item, d.Name, rest)
	}
	if d.Type == List {
		shown = "[" + strings.Join(v.l, ", ") + "]"
	}
	return v, badConfig("Invalid value %s for configuration %s: %s", shown, d.Name, strings.ReplaceAll(wrong, "{}", d.Name))
}

// What a check returns begins with alone where it is the whole message ({} stands
// for the key), with refused where besides the error is ErrRefused, and with
// inList where it is about one item of a list: the item, a zero byte, what is wrong.
const (
	alone   = "\x01"
	inList  = "\x02"
	refused = "\x03"
)

func parseNumber(s string, bits int, name string) (int64, string) {
	n, err := strconv.ParseInt(s, 10, bits)
	if err != nil {
		return 0, "Not a number of type " + name
	}
	return n, ""
}

// javaDouble writes a number as Kafka shows it: 2.0, 0.5, 1.7976931348623157E308.
func javaDouble(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strings.Replace(strconv.FormatFloat(f, 'f', -1, 64), "Inf", "Infinity", 1)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-3 || a >= 1e7) {
		m, e, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
		if !strings.Contains(m, ".") {
			m += ".0"
		}
		sign := strings.TrimLeft(e[:1], "+")
		return m + "E" + sign + strings.TrimLeft(e[1:], "0") // Java writes no plus and no leading zeros
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// splitList splits at commas with blanks around them; an empty text is an empty list.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	items := strings.Split(s, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// scaled multiplies a number, without passing the largest one.
func scaled(text string, by int64) string {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return text // -1 is "for ever" in every unit
	}
	if n > math.MaxInt64/by {
		n = math.MaxInt64 / by
	}
	return strconv.FormatInt(n*by, 10)
}

func atLeast(lo int64) check {
	return func(v value) string {
		if v.n < lo {
			return fmt.Sprintf("Value must be at least %d", lo)
		}
		return ""
	}
}

// countsOfIPs wants pairs of an address and a number, as in 10.0.0.1:20,[::1]:5.
func countsOfIPs(v value) string {
	for _, pair := range splitList(v.s) {
		if _, _, ok := countOfIP(pair); !ok {
			return fmt.Sprintf("%q is not a client's IP address and its number of connections, as in 10.0.0.1:20", pair)
		}
	}
	return ""
}

func countOfIP(pair string) (ip netip.Addr, n int, ok bool) {
	at := strings.LastIndexByte(pair, ':')
	if at < 0 {
		return ip, 0, false
	}
	ip, err := netip.ParseAddr(strings.Trim(pair[:at], "[]"))
	if err != nil {
		return ip, 0, false
	}
	n, err = strconv.Atoi(pair[at+1:])
	return ip.Unmap(), n, err == nil && n >= 0
}

// parseIPs reads what countsOfIPs accepted.
func parseIPs(text string) map[netip.Addr]int {
	var counts map[netip.Addr]int
	for _, pair := range splitList(text) {
		if ip, n, ok := countOfIP(pair); ok {
			if counts == nil {
				counts = map[netip.Addr]int{}
			}
			counts[ip] = n
		}
	}
	return counts
}

func between(lo, hi int64) check {
	return func(v value) string {
		if v.n > hi {
			return fmt.Sprintf("Value must be no more than %d", hi)
		}
		return atLeast(lo)(v)
	}
}

func ratio(v value) string {
	switch {
	case v.f > 1:
		return "Value must be no more than 1"
	case v.f < 0 || v.f != v.f: // or no number at all
		return "Value must be at least 0"
	}
	return ""
}

func positive(v value) string {
	if v.f > 0 {
		return ""
	}
	return "Value must be greater than 0"
}

func gzipLevel(v value) string {
	if v.n != -1 && (v.n < 1 || v.n > 9) {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}

func oneOf(words ...string) check {
	return func(v value) string {
		if slices.Contains(words, v.s) {
			return ""
		}
		return "String must be one of: " + strings.Join(words, ", ")
	}
}

// listOf wants every item to be one of the words.
func listOf(words ...string) check {
	one := oneOf(words...)
	return func(v value) string {
		if wrong := noEmptyItem(v); wrong != "" {
			return wrong
		}
		for _, item := range v.l {
			if wrong := one(value{s: item}); wrong != "" {
				return inList + item + "\x00" + wrong
			}
		}
		return ""
	}
}

func noEmptyItem(v value) string {
	if slices.Contains(v.l, "") {
		return alone + "Configuration '{}' values must not be empty."
	}
	return ""
}

var replicaPair = regexp.MustCompile(`^[0-9]+:[0-9]+$`)

// throttled wants a list of partition:broker pairs, or a star for all.
func throttled(v value) string {
	if len(v.l) == 1 && v.l[0] == "*" {
		return ""
	}
	for _, item := range v.l {
		if !replicaPair.MatchString(item) {
			return "{} must be the literal '*' or a list of replicas in the following format: " +
				"[partitionId]:[brokerId],[partitionId]:[brokerId],..."
		}
	}
	return ""
}

var isoDuration = regexp.MustCompile(`^by_duration:(?i:P(?:[0-9]+D)?(?:T(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]{0,9})?S)?)?)$`)

// offsetReset wants a strategy of where a share group begins.
func offsetReset(v value) string {
	last := v.s
	if last != "" {
		last = last[len(last)-1:]
	}
	if v.s == "earliest" || v.s == "latest" || isoDuration.MatchString(v.s) && !strings.EqualFold(last, "T") && !strings.EqualFold(last, "P") {
		return ""
	}
	return fmt.Sprintf("Invalid value `%s` for configuration {}. The value must be either 'earliest', 'latest' or "+
		"of the format 'by_duration:<PnDTnHnMn.nS>'.", v.s)
}

// matchers are what a metrics subscription can select clients by.
var matchers = []string{
	"client_instance_id", "client_id", "client_software_name", "client_software_version",
	"client_source_address", "client_source_port",
}

// clientMatch wants selector=pattern pairs.
func clientMatch(v value) string {
	for _, item := range v.l {
		name, pattern, ok := strings.Cut(item, "=")
		if _, err := regexp.Compile(pattern); !ok || !slices.Contains(matchers, name) || err != nil {
			return alone + "Illegal client matching pattern: " + item
		}
	}
	return ""
}

func pushInterval(v value) string {
	if v.n < 100 || v.n > 3_600_000 {
		return refused + fmt.Sprintf("Invalid value %d for {}, interval must be between 100 and 3600000 (1 hour)", v.n)
	}
	return ""
}
