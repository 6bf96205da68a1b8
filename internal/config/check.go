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

// value is a parsed value of a config. The config's type decides which field has it.
type value struct {
	b bool
	n int64
	f float64
	s string
	l []string
}

// check returns the reason why a parsed value is refused, or "". The reason may begin with one
// of the marks below.
type check func(v value) string

// parseValue parses a value as Kafka does, and checks it. The error is ErrInvalid or
// ErrRefused.
func (d *Def) parseValue(text string) (v value, err error) {
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
	if whole, ok := strings.CutPrefix(wrong, refusedMessage); ok {
		return v, refusedConfig("%s", strings.ReplaceAll(whole, "{}", d.Name))
	}
	if whole, ok := strings.CutPrefix(wrong, wholeMessage); ok {
		return v, badConfig("%s", strings.ReplaceAll(whole, "{}", d.Name))
	}
	if d.Type == List && strings.HasPrefix(wrong, aboutItem) {
		item, rest, _ := strings.Cut(wrong[len(aboutItem):], "\x00")
		return v, badConfig("Invalid value %s for configuration %s: %s", item, d.Name, rest)
	}
	if d.Type == List {
		shown = "[" + strings.Join(v.l, ", ") + "]"
	}
	return v, badConfig("Invalid value %s for configuration %s: %s", shown, d.Name, strings.ReplaceAll(wrong, "{}", d.Name))
}

// These are marks at the beginning of a check's result. Without one, the message is made of the
// value, the config's name, and the result. In all results {} stands for the config's name.
const (
	wholeMessage   = "\x01" // the rest is the whole message
	aboutItem      = "\x02" // the rest is an item of a list, a zero byte, and the reason why the item is refused
	refusedMessage = "\x03" // the rest is the whole message, and the error is ErrRefused
)

func parseNumber(s string, bits int, name string) (int64, string) {
	n, err := strconv.ParseInt(s, 10, bits)
	if err != nil {
		return 0, "Not a number of type " + name
	}
	return n, ""
}

// javaDouble is a number as Kafka shows it: 2.0, 0.5, 1.7976931348623157E308.
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
		return m + "E" + sign + strings.TrimLeft(e[1:], "0") // Java has no plus and no leading zeros there
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// splitList splits a text at commas, and trims blanks; an empty text is an empty list.
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

// scaleNumber multiplies a number; the product is at most the largest int64.
func scaleNumber(text string, by int64) string {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return text // -1 means "for ever" in every unit
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

// zeroOrAtLeast accepts 0 and numbers from lo on; why says what a number between them would do.
func zeroOrAtLeast(lo int64, why string) check {
	return func(v value) string {
		if v.n != 0 && v.n < lo {
			return fmt.Sprintf("Value must be 0, which is no limit, or at least %d: %s", lo, why)
		}
		return ""
	}
}

// ipCounts accepts pairs of an address and a number, as in 10.0.0.1:20,[::1]:5.
func ipCounts(v value) string {
	for _, pair := range splitList(v.s) {
		if _, _, ok := parseIPCount(pair); !ok {
			return fmt.Sprintf("%q is not a client's IP address and its number of connections, as in 10.0.0.1:20", pair)
		}
	}
	return ""
}

func parseIPCount(pair string) (ip netip.Addr, n int, ok bool) {
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

// parseIPCounts parses a value that ipCounts has accepted.
func parseIPCounts(text string) map[netip.Addr]int {
	var counts map[netip.Addr]int
	for _, pair := range splitList(text) {
		if ip, n, ok := parseIPCount(pair); ok {
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
	case v.f < 0 || v.f != v.f: // the latter is true for NaN
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

// voters accepts the numbers of voters that survive more failures than one voter less.
func voters(v value) string {
	if v.n != 1 && v.n != 3 && v.n != 5 {
		return "Value must be 1, 3 or 5"
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

// listOf accepts lists whose items are all among the words.
func listOf(words ...string) check {
	one := oneOf(words...)
	return func(v value) string {
		if wrong := noEmptyItem(v); wrong != "" {
			return wrong
		}
		for _, item := range v.l {
			if wrong := one(value{s: item}); wrong != "" {
				return aboutItem + item + "\x00" + wrong
			}
		}
		return ""
	}
}

// rolesOfBroker accepts the roles of a node that is a broker.
func rolesOfBroker(v value) string {
	switch wrong := listOf("broker", "controller")(v); {
	case wrong != "":
		return wrong
	case len(v.l) == 0:
		return wholeMessage + "Configuration '{}' must not be empty. Valid values include: [broker, controller]"
	case !slices.Contains(v.l, "broker"):
		return wholeMessage + "{}: a node is always a broker: add broker, or leave the config out"
	}
	return ""
}

func noEmptyItem(v value) string {
	if slices.Contains(v.l, "") {
		return wholeMessage + "Configuration '{}' values must not be empty."
	}
	return ""
}

var replicaPair = regexp.MustCompile(`^[0-9]+:[0-9]+$`)

// replicaPairs accepts a list of partition:broker pairs, or a star for all.
func replicaPairs(v value) string {
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

// offsetReset accepts the strategies by which a share group finds where to begin.
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

// matchers are the properties by which a metrics subscription can select clients.
var matchers = []string{
	"client_instance_id", "client_id", "client_software_name", "client_software_version",
	"client_source_address", "client_source_port",
}

// clientMatch accepts property=pattern pairs.
func clientMatch(v value) string {
	for _, item := range v.l {
		name, pattern, ok := strings.Cut(item, "=")
		if _, err := regexp.Compile(pattern); !ok || !slices.Contains(matchers, name) || err != nil {
			return wholeMessage + "Illegal client matching pattern: " + item
		}
	}
	return ""
}

func pushInterval(v value) string {
	if v.n < 100 || v.n > 3_600_000 {
		return refusedMessage + fmt.Sprintf("Invalid value %d for {}, interval must be between 100 and 3600000 (1 hour)", v.n)
	}
	return ""
}
