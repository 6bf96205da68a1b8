package cli

import (
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The flags --user and --password-file say who logs in. A few verbs have one of these names for something else, as the user whose ACLs are listed, or
// the password of a new user. There the two together could be read in two ways, and are refused, and --login-user and --login-password-file, which
// all verbs have, say who logs in.

// loginFlag is the annotation of the flags of a login.
const loginFlag = "leat_login"

// addLoginFlags gives a verb and those below it the flags of a login.
func (a *app) addLoginFlags(cmd *cobra.Command) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	user := os.Getenv("LEAT_USER")
	own.StringVar(&a.identity.user, "user", user, "the user to log in as (also LEAT_USER)")
	own.StringVar(&a.identity.passwordFile, "password-file", "", "file whose first line is the user's password (or LEAT_PASSWORD)")
	own.StringVar(&a.identity.user, "login-user", user, "the same as --user, also where that means something else")
	own.StringVar(&a.identity.passwordFile, "login-password-file", "", "the same as --password-file, also where that means something else")
	own.StringVar(&a.identity.mechanism, "mechanism", "", "SASL mechanism: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN, or OAUTHBEARER, with a token for a password (default "+defaultMechanism+")")
	encrypts, wrong := readTLSVariable()
	a.identity.wrongTLS = wrong
	own.BoolVar(&a.identity.tls, "tls", encrypts, "encrypt, and check the broker's certificate (also LEAT_TLS)")
	own.StringVar(&a.identity.ca, "ca", os.Getenv("LEAT_CA"), "PEM file of the certificates to trust, in place of those that the system trusts; implies --tls (also LEAT_CA)")
	own.StringVar(&a.identity.clientConfig, "client-config", os.Getenv("LEAT_CLIENT_CONFIG"), "a Java client.properties: brokers, how to log in, what to trust (also LEAT_CLIENT_CONFIG)")
	own.BoolVar(&a.identity.allowsPlainText, "allow-plain-text-password", false, "let PLAIN and OAUTHBEARER send a password or a token without TLS to other machines")
	own.VisitAll(func(f *pflag.Flag) {
		f.Annotations = map[string][]string{loginFlag: {}}
		cmd.PersistentFlags().AddFlag(f)
	})
	a.completeFlag(cmd, "mechanism", completeWords("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"))
}

// readTLSVariable reads LEAT_TLS. What is neither true nor false is returned, too.
func readTLSVariable() (encrypts bool, wrong string) {
	text := os.Getenv("LEAT_TLS")
	if text == "" {
		return false, ""
	}
	encrypts, err := strconv.ParseBool(text)
	if err != nil {
		return false, text
	}
	return encrypts, ""
}

// isOfLogin tells whether a flag of a verb is one of a login, not one of the verb's own that has the same name.
func isOfLogin(f *pflag.Flag) bool {
	_, is := f.Annotations[loginFlag]
	return is
}

// readFlags notes which flags of a login a verb was given, and refuses those whose meaning is not clear.
func (i *identity) readFlags(cmd *cobra.Command) error {
	i.given = map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { i.given[f.Name] = isOfLogin(f) })
	user, password := cmd.Flag("user"), cmd.Flag("password-file")
	i.userFlag, i.passwordFlag = "--user", "--password-file"
	own := ""
	if !isOfLogin(user) {
		i.userFlag, own = "--login-user", `--user names the user whom "`+cmd.CommandPath()+`" is about`
	}
	if !isOfLogin(password) {
		i.passwordFlag, own = "--login-password-file", `--password-file has the password that "`+cmd.CommandPath()+`" gives to NAME`
	}
	switch {
	case own != "" && user.Changed && password.Changed:
		return usagef("%s, so that --user and --password-file do not go together here: say who logs in by --login-user NAME --login-password-file FILE, by LEAT_USER and LEAT_PASSWORD, or by --client-config FILE", own)
	case i.given["user"] && i.given["login-user"]:
		return usagef("--user and --login-user both name the user who logs in: leave out one of them")
	case i.given["password-file"] && i.given["login-password-file"]:
		return usagef("--password-file and --login-password-file both have the password of the user who logs in: leave out one of them")
	}
	return nil
}

// isAsked tells whether a flag asks for a login or for TLS.
func (i *identity) isAsked() bool {
	for _, is := range i.given {
		if is {
			return true
		}
	}
	return false
}

// dropVariables leaves of a login what flags say.
func (i *identity) dropVariables() {
	if i.givenOf("user", "login-user", "password-file", "login-password-file", "mechanism") == "" {
		i.user = ""
	}
	if !i.given["tls"] {
		i.tls, i.wrongTLS = false, ""
	}
	if !i.given["ca"] {
		i.ca = ""
	}
	if !i.given["client-config"] {
		i.clientConfig = ""
	}
}
