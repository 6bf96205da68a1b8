package cli

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/node"
)

// helpWidth is the longest line of a help text.
const helpWidth = 96

// prepareVerb gives cmd and the verbs below it what all verbs have in common: errors about arguments
// are sentences, help texts fit a terminal, and the app notes when a verb begins to run.
func (a *app) prepareVerb(cmd *cobra.Command) {
	cmd.Long = phrase.Wrap(cmd.Long, helpWidth)
	cmd.Flags().VisitAll(nameFlagValue)
	cmd.PersistentFlags().VisitAll(nameFlagValue)
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return explainArguments(cmd, args, err)
			}
			return nil
		}
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := a.checkFlags(cmd, args); err != nil {
				return err
			}
			if takesNames(cmd) {
				args = withoutRepeats(args)
			}
			a.running = true
			if cmd.Flag("bootstrap") != nil { // the node logs them itself
				for _, w := range node.FromEnv(os.Environ()).Warnings {
					a.tellPerson(w)
				}
			}
			return run(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.prepareVerb(c)
	}
}

// checkFlags refuses values of flags with which no verb runs, and has the app know what they say of a login.
func (a *app) checkFlags(cmd *cobra.Command, args []string) error {
	if fl := cmd.Flag("timeout"); fl != nil && fl.Changed && a.timeout < time.Millisecond {
		return usagef("--timeout %s: give a time such as 10s", fl.Value)
	}
	if err := refuseEmpty(cmd, args); err != nil || cmd.Flag("client-config") == nil {
		return err
	}
	if err := a.identity.readFlags(cmd); err != nil {
		return err
	}
	if servers := a.identity.readServers(); servers != "" && !cmd.Flag("bootstrap").Changed && os.Getenv("LEAT_BOOTSTRAP") == "" {
		a.bootstrap = servers
	}
	return nil
}

// flagsWithEmptyValues are the flags for which an empty value means something: an empty key, and records of which
// nothing is written.
var flagsWithEmptyValues = []string{"key", "format"}

// refuseEmpty refuses an empty argument, and an empty value of a flag. In a script it is mostly a variable that is not
// set, and the verb must not take it for something else, such as all topics, no group, or no end.
func refuseEmpty(cmd *cobra.Command, args []string) error {
	if slices.Contains(args, "") && !cmd.HasAvailableSubCommands() {
		return usagef("an argument is empty, as a variable that is not set would be: write \"%s\"", usageLine(cmd))
	}
	var failed error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if slices.Contains(flagsWithEmptyValues, f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if failed == nil && (len(values) == 0 || slices.Contains(values, "")) {
			failed = usagef("--%s is empty, or one of its values is, as a variable that is not set would be", f.Name)
		}
	})
	return failed
}

// takesNames tells whether the arguments of a verb are names of things, as its usage line says. Each of them counts
// once, however often it is given.
func takesNames(cmd *cobra.Command) bool {
	for _, list := range []string{"TOPIC...", "GROUP...", "NAME...", "NAME=VALUE..."} {
		if strings.Contains(cmd.Use, list) {
			return true
		}
	}
	return false
}

// nameFlagValue names the value of a flag in the help by a plain word instead of Go's type.
func nameFlagValue(f *pflag.Flag) {
	switch f.Value.Type() {
	case "int16", "int32":
		f.Value = plainValue{f.Value, "int"}
	case "int32Slice":
		f.Value, f.DefValue = plainValue{f.Value, "ints"}, ""
	case "stringArray":
		for _, form := range []string{"name=value", "host:port"} {
			if !strings.Contains(f.Usage, "`") {
				f.Usage = strings.Replace(f.Usage, form, "`"+form+"`", 1)
			}
		}
	}
}

// plainValue is the value of a flag, with another name for its type.
type plainValue struct {
	pflag.Value
	kind string
}

func (v plainValue) Type() string { return v.kind }

// explainArguments says which arguments a verb takes, after it was given others.
func explainArguments(cmd *cobra.Command, args []string, err error) error {
	if errors.Is(err, errUsage) {
		return err
	}
	if cmd.HasAvailableSubCommands() {
		return noSuchVerbError(cmd, args[0])
	}
	given := "no argument was given"
	if len(args) > 0 {
		given = formatCount(len(args), "argument") + " were given"
	}
	if len(args) == 1 {
		given = "1 argument was given"
		if user := cmd.Flag("user"); user != nil && !isOfLogin(user) {
			return usagef("%s: write \"%s --user %s\" if that is a user", given, usageLine(cmd), args[0])
		}
	}
	return usagef("%s: write \"%s\"", given, usageLine(cmd))
}

// usageLine shows how to write a verb, without its optional flags.
func usageLine(cmd *cobra.Command) string {
	line := cmd.Use
	if cmd.HasParent() {
		line = cmd.Parent().CommandPath() + " " + line
	}
	return line
}

// noSuchVerbError says that a verb does not exist, and which ones may have been meant.
func noSuchVerbError(cmd *cobra.Command, name string) error {
	var known []string
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		if slices.Contains(c.SuggestFor, name) || slices.Contains(c.Aliases, name) {
			return usagef("%q is not a verb of %q: did you mean %q?", name, cmd.CommandPath(), c.Name())
		}
		known = append(known, c.Name())
	}
	return usagef("%q is not a verb of %q%s", name, cmd.CommandPath(), phrase.DidYouMean(name, known))
}

// explainFlag makes a sentence of an error of the flag parser.
func explainFlag(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &missing):
		if short := missing.GetSpecifiedShortnames(); short != "" {
			return usagef("there is no flag -%s", missing.GetSpecifiedName()[:1])
		}
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		name := "--" + missing.GetSpecifiedName()
		other := otherFlag(missing.GetSpecifiedName())
		if flag, _, _ := strings.Cut(other, " "); slices.Contains(known, flag) {
			return usagef("there is no flag %s: it is %s here", name, other)
		}
		return usagef("there is no flag %s%s", name, phrase.DidYouMean(name, known))
	case errors.As(err, &empty):
		return usagef("--%s needs a value", empty.GetFlag().Name)
	case errors.As(err, &invalid):
		return usagef("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), explainValue(invalid))
	default:
		return usagef("%s", err)
	}
}

// otherFlag is the flag that means what one of another verb or of Apache Kafka's tools does, perhaps with its value; "":
// there is none. A verb need not have it.
func otherFlag(name string) string {
	switch name {
	case "set":
		return "--config"
	case "isolation", "isolation-level":
		return "--read-committed"
	case "bootstrap-server", "bootstrap-servers", "broker-list", "brokers":
		return "--bootstrap"
	case "from-beginning":
		return "--from start"
	case "max-messages":
		return "--count"
	case "client-config":
		return "--source-config"
	case "user", "password-file", "mechanism", "tls", "ca", "allow-plain-text-password":
		return "--source-" + name
	}
	return ""
}

// explainValue says which values a flag takes.
func explainValue(e *pflag.InvalidValueError) string {
	if errors.Is(e, errUsage) {
		return errors.Unwrap(e).Error()
	}
	if errors.Is(e, strconv.ErrRange) || strings.Contains(e.Error(), "value out of range") {
		return "the number is out of range"
	}
	switch kind := e.GetFlag().Value.Type(); kind {
	case "int", "int16", "int32", "int64", "uint16", "uint32", "uint64", "uint":
		return "write a whole number"
	case "ints", "intSlice", "int32Slice", "int64Slice":
		return "write whole numbers, separated by commas"
	case "float32", "float64":
		return "write a number"
	case "bool":
		return "write true or false"
	case "duration":
		return "write a time span such as 500ms, 30s or 2h"
	default:
		return "it is not a value for this flag"
	}
}

// flagRules match the errors of cobra about flags that belong together.
var flagRules = []struct {
	said *regexp.Regexp
	tell func(names []string) string
}{
	{regexp.MustCompile(`^required flag\(s\) (.+) not set$`), func(n []string) string {
		return phrase.Join(n, "and") + " must be given"
	}},
	{regexp.MustCompile(`^at least one of the flags in the group \[(.+)\] is required$`), func(n []string) string {
		return "one of " + phrase.Join(n, "and") + " must be given"
	}},
	{regexp.MustCompile(`^if any flags in the group \[.+\] are set none of the others can be; \[(.+)\] were all set$`), func(n []string) string {
		return phrase.Join(n, "and") + " cannot be used together"
	}},
	{regexp.MustCompile(`^if any flags in the group \[.+\] are set they must all be set; missing \[(.+)\]$`), func(n []string) string {
		return phrase.Join(n, "and") + " must be given too"
	}},
}

// explainFlagRule makes a sentence of an error of cobra about flags that belong together.
func explainFlagRule(err error) error {
	for _, r := range flagRules {
		if m := r.said.FindStringSubmatch(err.Error()); m != nil {
			names := strings.FieldsFunc(m[1], func(c rune) bool { return strings.ContainsRune(` ,"`, c) })
			for i := range names {
				names[i] = "--" + names[i]
			}
			return usagef("%s", r.tell(names))
		}
	}
	return err
}

// choice is the value of a flag that takes one of several words.
type choice struct {
	value *string
	words []string
}

func (c choice) String() string {
	if c.value == nil { // pflag asks an empty one for its default
		return ""
	}
	return *c.value
}

func (c choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return usagef("write %s", phrase.Join(c.words, "or"))
	}
	*c.value = s
	return nil
}

func (choice) Type() string { return "string" }
