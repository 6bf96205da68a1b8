package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
)

// The defaults of addresses and of the data directory.
const (
	DefaultPort = 9092
	DefaultData = "leat-data"
	DefaultHTTP = "127.0.0.1:8080"
)

// Config is what a node is started with. The zero value serves the loopback addresses, with
// the data in ./leat-data.
type Config struct {
	Data      string   // data directory
	Listen    []string // HOST:PORT or NAME=HOST:PORT for clients; none: port 9092 of the loopback addresses
	Advertise []string // as Listen, for each listener the address that its clients and other nodes are told; none: the one to which the client has connected
	HTTP      string   // host:port of health, metrics and profiles; "": DefaultHTTP or a free port, "off": none
	ID        *int32   // node id; nil: the one that the data directory has, 1 at the first start
	IDFrom    string   // who asked for ID, for messages; "": --id
	Rack      string
	// Join has the addresses of nodes, HOST:PORT, of whose cluster this node becomes a member at its first
	// start, with Token. A data directory that has a node keeps it, and needs neither; the node ends if those that answer
	// belong to another cluster.
	Join  []string
	Token string // the text of a join token, a secret
	// Secure has the first start of a cluster secure it, and a join be refused unless the cluster is secured: see secured. Later starts
	// need it no more, and what it was at the first start stays.
	Secure bool
	// SealingKey is the file of the cluster's sealing key; "": beside the data directory, with .key at the end of its name, or where it was before.
	SealingKey string
	// BootstrapUser is made when the cluster has never had a user, and is a super user of this node.
	BootstrapUser BootstrapUser
	// given are Settings before a secured node has added its own; nil: it has not.
	given map[string]string
	// Settings are Kafka's broker configs that were given, by name (static configs).
	Settings map[string]string

	// Logger writes the node's log. The node leaves out lines below LogLevel, which Kafka's
	// broker loggers can change at any time, so Logger itself should write all levels.
	Logger   *slog.Logger
	LogLevel slog.Level

	LogFormat string   // "text" or "json", for the caller, which makes Logger; "": text on a terminal, else json
	Warnings  []string // about the settings, for the log

	// KeepMonitorAwake tunes Go's scheduler for the whole process while the node runs:
	// requests that come one by one take less CPU (Linux).
	KeepMonitorAwake bool

	// Announced says that the caller shows people where the node can be reached, so the log does not.
	Announced bool
	// OwnsProcess lets the node set Go's memory limit for the whole process.
	OwnsProcess bool
}

// Info tells where a running node can be reached.
type Info struct {
	Addresses     []string // for clients
	HTTP          string   // "" if HTTP is off
	HTTPEncrypted bool     // it needs https
	HTTPElsewhere string   // why HTTP is not on DefaultHTTP, though no other address was asked for; "": it is, or one was
	Data          string
	ClusterID     string
	LoopbackOnly  bool         // no address can be reached from other machines
	Secured       *SecuredInfo // nil: the node is not secured
}

// SecuredInfo says what clients of a secured node need.
type SecuredInfo struct {
	Address    string // of a listener for clients
	CA         string // the file of the certificates to trust
	SealingKey string // its file
	User       string // the super user
	Mechanism  string // by which it logs in; "": SCRAM-SHA-512
	FirstLogin string // the file that has its first login, which nobody has seen yet; "": there is none
	// WhileRunning tells that the cluster was plain, and is secured while it runs, or was.
	WhileRunning bool
}

// Source is one source of settings. A setting has the name of one of the node's own (data,
// listen, advertise, http, id, rack, join, token, token-file, secure, sealing-key, bootstrap-user, bootstrap-password-file, log-level, log-format) or of one of Kafka's broker
// configs.
type Source struct {
	Name     string // for messages: "environment", or the file's name; "": the places of its values say enough
	Values   []Value
	Warnings []string // about parts of the source that are not used
}

// placeOf says where a value of the source stands.
func (s Source) placeOf(v Value) string {
	if s.Name == "" {
		return v.At
	}
	return s.Name + ": " + v.At
}

// Value is one setting of a source.
type Value struct {
	Name, Value string
	At          string // its place in the source, for messages: "--set x=y", "LEAT_X", "line 3, column 1"
}

// ErrConfig is wrapped by every error about a setting with which no node starts.
var ErrConfig = errors.New("bad setting")

// ErrAddress is wrapped by every error about an address on which this machine does not let the node listen.
var ErrAddress = errors.New("cannot listen")

// Combine makes a Config of the sources. Where two set the same setting, the later one wins. One source must not
// set it twice to different values, by whatever names.
func Combine(sources ...Source) (Config, error) {
	cfg := Config{Data: DefaultData, Settings: map[string]string{}}
	given := map[string]string{} // the last value of each name
	for _, src := range sources {
		cfg.Warnings = append(cfg.Warnings, src.Warnings...)
		said := map[string]statement{}
		for _, v := range src.Values {
			if err := cfg.applySetting(v.Name, v.Value); err != nil {
				return Config{}, fmt.Errorf("%s: %w", src.placeOf(v), err)
			}
			if ownSettings[v.Name] == "id" {
				cfg.IDFrom = src.placeOf(v)
			}
			if err := cfg.checkStatement(said, v); err != nil {
				return Config{}, fmt.Errorf("%s: %w", src.placeOf(v), err)
			}
			given[v.Name] = strings.TrimSpace(v.Value)
		}
	}
	if err := cfg.applyPairs(given); err != nil {
		return Config{}, err
	}
	if err := asConfigError(cfg.BootstrapUser.check()); err != nil {
		return Config{}, err
	}
	if _, err := planAddresses(&cfg); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// statement is what one source says about a setting.
type statement struct {
	by    Value
	means string // the value that the setting got by it
}

// settingNouns say what the node's own settings are that have a name of Kafka's besides ours.
var settingNouns = map[string]string{
	"data": "the data directory", "listen": "the addresses to listen on", "advertise": "the addresses that clients are told",
	"id": "the number of this node", "rack": "the rack of this node",
}

// checkStatement refuses a value of a source that contradicts an earlier one of the same source, since nobody can say
// which of them is meant. It leaves the pairs that Kafka has for one setting to applyPairs.
func (c *Config) checkStatement(said map[string]statement, v Value) error {
	setting := v.Name
	if own := ownSettings[v.Name]; own != "" {
		setting = own
	}
	now := statement{by: v, means: c.meaningOf(v)}
	before, twice := said[setting]
	if !twice {
		said[setting] = now
		return nil
	}
	ours := before.by.Name == setting || v.Name == setting
	switch {
	case before.means == now.means, before.by.Name != v.Name && !ours:
		return nil
	case before.by.Name == v.Name:
		return fmt.Errorf("%w: %s is set twice here, to different values: leave one of them out", ErrConfig, v.Name)
	case setting == "token": // a secret
		return fmt.Errorf("%w: %s and %s are both the join token: set one of them", ErrConfig, before.by.Name, v.Name)
	default:
		return fmt.Errorf("%w: %s=%s and %s=%s are both %s: set one of them, or both to the same value",
			ErrConfig, before.by.Name, before.by.Value, v.Name, v.Value, settingNouns[setting])
	}
}

// meaningOf is what a value that was just applied means, in a form in which different spellings are equal.
func (c *Config) meaningOf(v Value) string {
	switch ownSettings[v.Name] {
	case "data":
		return strings.Join(splitDistinct(v.Value), ",")
	case "listen":
		return meaningOfEndpoints(c.Listen)
	case "advertise":
		return meaningOfEndpoints(c.Advertise)
	case "id":
		return strconv.Itoa(int(*c.ID))
	case "join":
		return strings.Join(c.Join, ",")
	case "token":
		return c.Token
	case "bootstrap-user":
		return c.BootstrapUser.Name + ":" + c.BootstrapUser.Password
	default:
		return v.Value
	}
}

func meaningOfEndpoints(list []string) string {
	var forms []string
	for _, s := range list {
		if e, err := parseEndpoint(s); err == nil {
			s = e.kafkaForm()
		}
		forms = append(forms, s)
	}
	return strings.Join(forms, ",")
}

// applyPairs applies what depends on two of Kafka's names for one setting: log.dir is only heeded
// without log.dirs, and node.id and broker.id must not contradict each other.
func (c *Config) applyPairs(given map[string]string) error {
	node, hasNode := given["node.id"]
	broker, hasBroker := given["broker.id"]
	if hasNode && hasBroker && node != broker {
		return fmt.Errorf("%w: node.id=%s and broker.id=%s are both the number of this node: set one of them, or both to the same number", ErrConfig, node, broker)
	}
	dir, hasDir := given["log.dir"]
	_, hasDirs := given["log.dirs"]
	_, hasData := given["data"]
	switch {
	case hasDir && !hasDirs && !hasData:
		return c.setDirectory("log.dir", dir)
	case hasDir && dir != c.Data:
		c.Warnings = append(c.Warnings, fmt.Sprintf("log.dir=%s has no effect: the data directory is %s", dir, c.Data))
	}
	return nil
}

// ownSettings are the node's own settings, by their names and by Kafka's names for them.
var ownSettings = map[string]string{
	"data": "data", "log.dirs": "data", "log.dir": "data",
	"listen": "listen", "listeners": "listen",
	"advertise": "advertise", "advertised.listeners": "advertise",
	"http": "http",
	"id":   "id", "node.id": "id", "broker.id": "id",
	"rack": "rack", "broker.rack": "rack",
	"join": "join", "token": "token", "token-file": "token",
	"secure": "secure", "sealing-key": "sealing-key",
	"bootstrap-user": "bootstrap-user", "bootstrap-password-file": "bootstrap-password-file",
	"log-level": "log-level", "log-format": "log-format",
}

// IsOwn tells whether name is a setting of the node itself, by our name or Kafka's.
func IsOwn(name string) bool { return ownSettings[name] != "" }

func (c *Config) applySetting(name, value string) error {
	switch ownSettings[name] {
	case "data":
		before := c.Data
		err := c.setDirectory(name, value)
		if name == "log.dir" {
			c.Data = before // applyPairs decides whether it counts
		}
		return err
	case "listen":
		if name == "listeners" {
			return readKafkaEndpoints(&c.Listen, name, value, parseKafkaEndpoint)
		}
		return readEndpoints(&c.Listen, strings.Split(value, ","), parseEndpoint)
	case "advertise":
		if name == "advertised.listeners" {
			return readKafkaEndpoints(&c.Advertise, name, value, parseKafkaAdvertised)
		}
		return readEndpoints(&c.Advertise, strings.Split(value, ","), parseAdvertised)
	case "http":
		return c.setHTTP(value)
	case "id":
		id, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32)
		if err != nil || id < 0 {
			return fmt.Errorf("%w: %s=%q is not a node id: give a whole number from 0 on", ErrConfig, name, value)
		}
		c.ID = new(int32(id))
	case "rack":
		c.Rack = value
	case "join":
		return c.setJoin(value)
	case "token":
		return c.setToken(name, value)
	case "secure", "sealing-key":
		return c.setSecure(name, value)
	case "bootstrap-user":
		return asConfigError(c.BootstrapUser.set(value))
	case "bootstrap-password-file":
		return asConfigError(c.BootstrapUser.readPassword(value))
	case "log-level":
		level, ok := logLevels[strings.ToLower(value)]
		if !ok {
			return fmt.Errorf("%w: %s=%q: write debug, info, warn or error", ErrConfig, name, value)
		}
		c.LogLevel = level
	case "log-format":
		if value != "text" && value != "json" {
			return fmt.Errorf("%w: %s=%q: write text or json", ErrConfig, name, value)
		}
		c.LogFormat = value
	default:
		if err := config.Validate(config.Broker, name, value); err != nil {
			return fmt.Errorf("%w: %w%s", ErrConfig, err, suggestSetting(name))
		}
		if err := config.CheckServed(config.Broker, name, value); err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		c.Settings[name] = value
	}
	return nil
}

// setSecure sets whether the cluster is to be secured, and the file of its sealing key.
func (c *Config) setSecure(name, value string) (err error) {
	if name == "sealing-key" {
		if c.SealingKey = value; value == "" {
			return fmt.Errorf("%w: %s is empty: name the file of the sealing key, or leave it out", ErrConfig, name)
		}
		return nil
	}
	if c.Secure, err = strconv.ParseBool(strings.TrimSpace(value)); err != nil {
		return fmt.Errorf("%w: %s=%q: write true or false", ErrConfig, name, value)
	}
	return nil
}

// setHTTP sets the address of the HTTP server, or that there is none.
func (c *Config) setHTTP(value string) error {
	if value == "off" || value == "" {
		c.HTTP = "off"
		return nil
	}
	addr, err := parseAddress(value)
	if err != nil {
		return err
	}
	c.HTTP = addr
	return nil
}

// asConfigError has an error be one about a setting; nil stays nil.
func asConfigError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConfig, err)
}

// setJoin sets the addresses of nodes of the cluster that this node joins.
func (c *Config) setJoin(value string) error {
	c.Join = nil
	for _, part := range splitDistinct(value) {
		protocol := ""
		if name, rest, ok := strings.Cut(part, "://"); ok {
			p, known := config.ParseProtocol(name)
			if !known {
				return fmt.Errorf("%w: %q: %q is no security protocol: write %s", ErrConfig, part, name, protocolsOfListeners)
			}
			protocol, part = p.String()+"://", rest
		}
		if hostName.MatchString(part) && strings.Trim(part, "0123456789") != "" && !strings.Contains(part, ":") { // a host alone
			part = net.JoinHostPort(part, strconv.Itoa(DefaultPort))
		}
		addr, err := parseAddress(part)
		if err != nil {
			return err
		}
		if strings.HasPrefix(addr, ":") {
			addr = "localhost" + addr
		}
		c.Join = append(c.Join, protocol+addr)
	}
	return nil
}

// setToken sets the join token, or reads it from a file. No error has a part of it.
func (c *Config) setToken(name, value string) error {
	if name == "token-file" {
		b, err := os.ReadFile(value)
		if err != nil {
			return fmt.Errorf("%w: cannot read the join token: %w", ErrConfig, err)
		}
		value = string(b)
	}
	switch token, err := credential.ParseToken(value); {
	case err != nil:
		return fmt.Errorf("%w: %w; leat cluster token makes one, on a machine that has a node", ErrConfig, err)
	case token.IsForAgent():
		return fmt.Errorf("%w: the token is for an agent of a link, and no node joins with it; leat cluster token makes one, on a machine that has a node", ErrConfig)
	}
	c.Token = strings.TrimSpace(value)
	return nil
}

// logLevels are the values of log-level.
var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// setDirectory sets the data directory by one of its names.
func (c *Config) setDirectory(name, value string) error {
	dirs := []string{value}
	if strings.Contains(value, ",") || name != "data" {
		dirs = splitDistinct(value)
	}
	switch {
	case slices.Contains(dirs, ""):
		return fmt.Errorf("%w: %s is empty, or one of its names is; name a directory, or leave it out for ./%s", ErrConfig, name, DefaultData)
	case len(dirs) > 1:
		return fmt.Errorf("%w: one data directory is supported, %q names several", ErrConfig, value)
	}
	c.Data = dirs[0]
	return nil
}

// splitDistinct splits a value as Kafka does a list: at commas, without the blanks around them and
// without repetitions.
func splitDistinct(value string) (items []string) {
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); !slices.Contains(items, part) {
			items = append(items, part)
		}
	}
	return items
}

// readKafkaEndpoints replaces a list of endpoints by those in a value of one of Kafka's configs.
func readKafkaEndpoints(list *[]string, name, value string, parse func(string) (endpoint, error)) error {
	parts := splitDistinct(value)
	if slices.Contains(parts, "") {
		return fmt.Errorf("%w: %s=%s has an empty address: write NAME://HOST:PORT, with a comma only between two of them", ErrConfig, name, value)
	}
	return readEndpoints(list, parts, parse)
}

// readEndpoints replaces a list of endpoints.
func readEndpoints(list *[]string, parts []string, parse func(string) (endpoint, error)) error {
	*list = nil
	for _, part := range parts {
		e, err := parse(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		*list = append(*list, e.String())
	}
	return nil
}

// parseAddress reads host:port, :port, or a port alone.
func parseAddress(s string) (string, error) {
	rest := s
	if _, err := strconv.ParseUint(rest, 10, 16); err == nil {
		rest = ":" + rest
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return "", fmt.Errorf("%w: %q is not an address: write host:port or :port", ErrConfig, s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%w: %q: the port must be a number from 0 to 65535", ErrConfig, s)
	}
	return net.JoinHostPort(host, port), nil
}

// variables are the environment variables that set the node's own settings, without their
// LEAT_; otherVariables are those that the command line reads.
var (
	variables      = []string{"DATA", "LISTEN", "ADVERTISE", "HTTP", "ID", "RACK", "JOIN", "TOKEN", "TOKEN_FILE", "SECURE", "SEALING_KEY", "BOOTSTRAP_USER", "BOOTSTRAP_PASSWORD_FILE", "LOG_LEVEL", "LOG_FORMAT"}
	otherVariables = []string{"CONFIG", "BOOTSTRAP", "USER", "PASSWORD", "TLS", "CA", "CLIENT_CONFIG"}
)

// serviceVariable matches the variables that Kubernetes sets in each container for a service
// named leat, and those that the project's own tests read.
var serviceVariable = regexp.MustCompile(`^(SERVICE_(HOST|PORT.*)|PORT(_.*)?|TEST_.*|INTEROP_.*|FLOOD.*)$`)

// FromEnv reads LEAT_DATA, LEAT_LISTEN, ... and LEAT_SET_<KAFKA_NAME> (with underscores for
// dots) from an environment as os.Environ returns it. An unknown variable that begins with
// LEAT_ gets a warning and is not refused, since the operator may not have set it.
func FromEnv(environ []string) Source {
	src := Source{Name: "environment"}
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, "LEAT_")
		key, isSet := strings.CutPrefix(rest, "SET_")
		switch {
		case !ok || slices.Contains(otherVariables, rest) || serviceVariable.MatchString(rest):
		case isSet:
			src.Values = append(src.Values, Value{strings.ToLower(strings.ReplaceAll(key, "_", ".")), value, name})
		case slices.Contains(variables, rest):
			src.Values = append(src.Values, Value{strings.ToLower(strings.ReplaceAll(rest, "_", "-")), value, name})
		default:
			src.Warnings = append(src.Warnings, fmt.Sprintf("the environment variable %s is not one that Leat reads, so it has no effect%s",
				name, suggestNearest(rest, slices.Concat(variables, otherVariables), "LEAT_")))
		}
	}
	return src
}

// FromFile reads a file of settings: a flat mapping in YAML of own names and Kafka's
// broker config names, or a server.properties of Kafka. Unknown keys of the first are refused with their line and column.
func FromFile(path string) (Source, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Source{}, fmt.Errorf("%w: cannot read the config file: %w", ErrConfig, err)
	}
	return parseFile(path, b)
}

func parseFile(path string, b []byte) (Source, error) {
	src := Source{Name: path}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // some editors begin a file with a byte order mark
	if isProperties(path, b) {
		return parseServerProperties(path, b)
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return src, fmt.Errorf("%w: %s is not YAML: %w", ErrConfig, path, err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		pairs, err := listPairs(doc.Body)
		if err != nil {
			return src, fmt.Errorf("%s: %w", path, err)
		}
		for _, p := range pairs {
			v, err := parsePair(p)
			if err != nil {
				return src, fmt.Errorf("%s: %w", path, err)
			}
			src.Values = append(src.Values, v)
		}
	}
	return src, nil
}

// listPairs returns the pairs of name and value in a document.
func listPairs(n ast.Node) ([]*ast.MappingValueNode, error) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	case *ast.CommentGroupNode, *ast.NullNode:
		return nil, nil
	}
	return nil, fmt.Errorf("%w: %s: expected lines of the form name: value", ErrConfig, describePosition(n))
}

func parsePair(p *ast.MappingValueNode) (Value, error) {
	at := describePosition(p.Key)
	name := p.Key.GetToken().Value
	if !IsOwn(name) && config.Find(config.Broker, name) == nil {
		return Value{}, fmt.Errorf("%w: %s: unknown setting %q%s", ErrConfig, at, name, suggestSetting(name))
	}
	var values []string
	switch v := p.Value.(type) {
	case *ast.SequenceNode:
		for _, e := range v.Values {
			s, err := parseScalar(e)
			if err != nil {
				return Value{}, err
			}
			values = append(values, s)
		}
	default:
		s, err := parseScalar(v)
		if err != nil {
			return Value{}, err
		}
		values = []string{s}
	}
	return Value{name, strings.Join(values, ","), at}, nil
}

func parseScalar(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.NullNode:
		return "", nil
	case *ast.StringNode:
		return v.Value, nil
	case *ast.LiteralNode:
		return v.Value.Value, nil
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode, *ast.AnchorNode, *ast.AliasNode:
		return "", fmt.Errorf("%w: %s: a setting's value is a word, a number or a list of them", ErrConfig, describePosition(n))
	}
	return n.GetToken().Value, nil
}

func describePosition(n ast.Node) string {
	p := n.GetToken().Position
	return fmt.Sprintf("line %d, column %d", p.Line, p.Column)
}

// suggestSetting asks whether a known setting of a similar name was meant, if name is unknown.
func suggestSetting(name string) string {
	if IsOwn(name) || config.Find(config.Broker, name) != nil {
		return ""
	}
	names := slices.Collect(maps.Keys(ownSettings))
	for _, d := range config.Defs(config.Broker) {
		names = append(names, d.Name)
	}
	return suggestNearest(name, names, "")
}

// suggestNearest asks whether the most similar known name was meant; "": none is similar.
func suggestNearest(name string, known []string, prefix string) string {
	best, least := "", len(name)/3+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := editDistance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", prefix+best)
}

// editDistance is the Levenshtein distance of two names.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
