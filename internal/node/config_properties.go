package node

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// A file of settings may also be a server.properties of Kafka, which is read as it is: by Java's rules, the last line of a name counts, and the
// listeners of controllers are left out, since nodes and clients share theirs. Each part that has no effect gets a warning. Names that neither knows
// are for plugins of Kafka, mostly, and get one, too; but one that is nearly a name of ours is refused, and one about security, which would protect
// nothing.

// goneConfigs are names of Kafka's configs of earlier versions, by their beginnings, and why they have no effect.
var goneConfigs = []struct{ prefix, why string }{
	{"zookeeper.", "there is no ZooKeeper: the nodes keep the metadata"},
	{"inter.broker.protocol.version", "nodes agree on what all of them know, and \"leat cluster finalize\" raises the level of the metadata"},
	{"log.message.format.version", "records have the newest format"},
	{"message.format.version", "records have the newest format"},
	{"broker.id.generation.enable", "a node that joins is given its number"},
	{"reserved.broker.max.id", "a node that joins is given its number"},
	{"control.plane.listener.name", "nodes and clients share their listeners"},
	{"password.encoder.", "secrets are sealed by the sealing key"},
}

// protectedNames are the beginnings of names that ask for a protection.
var protectedNames = []string{"ssl.", "sasl.", "listener.", "security.", "authorizer.", "super.", "allow.", "leat.", "delegation."}

// mostEdits is how many letters a name may differ from a known one for it to be a slip.
const mostEdits = 2

// isProperties tells whether a file of settings has the form of a server.properties: its first line that says something has an equals sign behind the
// name, which no file of the other form has.
func isProperties(path string, b []byte) bool {
	if filepath.Ext(path) == ".properties" {
		return true
	}
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' || line[0] == '!' {
			continue
		}
		end := bytes.IndexAny(line, "=: \t")
		return end > 0 && bytes.HasPrefix(bytes.TrimLeft(line[end:], " \t"), []byte("="))
	}
	return false
}

// parseServerProperties reads a file of settings in Kafka's form.
func parseServerProperties(path string, b []byte) (Source, error) {
	src := Source{Name: path}
	lines, err := config.ReadProperties(string(b))
	if err != nil {
		return src, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	warn := func(p config.Property, format string, args ...any) {
		src.Warnings = append(src.Warnings, fmt.Sprintf("%s: line %d: %s ", path, p.Line, p.Name)+fmt.Sprintf(format, args...))
	}
	controllers := controllersOf(lines)
	for i, p := range lines {
		isLater := func(l config.Property) bool { return l.Name == p.Name }
		if slices.ContainsFunc(lines[i+1:], isLater) {
			if l := lines[i+1+slices.IndexFunc(lines[i+1:], isLater)]; l.Value != p.Value {
				warn(p, "has no effect: it is set again on line %d", l.Line)
			}
			continue
		}
		switch {
		case !IsOwn(p.Name) && config.Find(config.Broker, p.Name) == nil:
			why, err := explainUnknown(p.Name)
			if err != nil {
				return src, fmt.Errorf("%s: line %d: %w", path, p.Line, err)
			}
			warn(p, "has no effect: %s", why)
			continue
		case p.Name == controllerConfig && len(controllers) > 0:
			warn(p, "has no effect: nodes and clients share their listeners, so those for controllers are left out")
			continue
		case p.Name == "listeners" || p.Name == "advertised.listeners":
			if p.Value = withoutListeners(p.Value, controllers); p.Value == "" && len(controllers) > 0 {
				continue
			}
		}
		src.Values = append(src.Values, Value{p.Name, p.Value, fmt.Sprintf("line %d", p.Line)})
	}
	return src, nil
}

// controllersOf are the names of the listeners for controllers, in capitals.
func controllersOf(lines []config.Property) (names []string) {
	for _, p := range lines {
		if p.Name == controllerConfig {
			names = slices.DeleteFunc(strings.Split(strings.ToUpper(strings.ReplaceAll(p.Value, " ", "")), ","), func(s string) bool { return s == "" })
		}
	}
	return names
}

// withoutListeners leaves the endpoints of some listeners out of a list.
func withoutListeners(list string, names []string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(list, ","), func(e string) bool {
		name, _, ok := strings.Cut(strings.TrimSpace(e), "://")
		return ok && slices.Contains(names, strings.ToUpper(name))
	}), ",")
}

// explainUnknown says why a name that is no setting has no effect, or refuses it.
func explainUnknown(name string) (why string, err error) {
	for _, g := range goneConfigs {
		if strings.HasPrefix(name, g.prefix) {
			return g.why, nil
		}
	}
	asksForProtection := slices.ContainsFunc(protectedNames, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	if asksForProtection || isSlip(name) {
		return "", fmt.Errorf("%w: unknown setting %q%s", ErrConfig, name, suggestSetting(name))
	}
	return "neither Kafka nor Leat has such a setting; programs that Kafka loads, and Leat does not, may have", nil
}

// isSlip tells whether a name differs from a known one by a few letters.
func isSlip(name string) bool {
	for known := range ownSettings {
		if len(known) > 2*mostEdits && editDistance(name, known) <= mostEdits {
			return true
		}
	}
	return slices.ContainsFunc(config.Defs(config.Broker), func(d *config.Def) bool { return editDistance(name, d.Name) <= mostEdits })
}
