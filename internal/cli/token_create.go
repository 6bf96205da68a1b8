package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/config"
)

func (a *app) newTokenCreate() *cobra.Command {
	var owner string
	var renewers []string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Create a delegation token, and write what a client logs in with", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"make", "new", "add"},
		Long: `Create a delegation token of the user who is logged in, or of another one, and write the lines of a Java client.properties with which a program
logs in as that user, without a password. They have the token's HMAC, which is not shown again, so keep them as a password. A token ends after
a day, unless it is renewed, and a week after it was made at the latest; the nodes have settings for both times.`,
		Example: `  leat token create > job.properties
  leat token create --renewer scheduler --for 48h > job.properties
  leat token create --owner alice -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask := kadm.CreateDelegationToken{MaxLifetime: -time.Millisecond} // as long as the nodes' settings allow
			err := checkTokenTime(cmd, life)
			if err == nil && cmd.Flags().Changed("for") {
				ask.MaxLifetime = life
			}
			if err == nil && owner != "" {
				var p kadm.Principal
				p, err = parseTokenUser(owner)
				ask.Owner = &p
			}
			if err == nil {
				ask.Renewers, err = parseTokenUsers(renewers)
			}
			if err != nil {
				return err
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error { return a.createToken(ctx, adm, &ask) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&owner, "owner", "", "the user whose token it is, by its name or TYPE:NAME (default: who is logged in)")
	f.StringArrayVar(&renewers, "renewer", nil, "a `user` who may renew and expire the token beside its owner; may be repeated")
	f.DurationVar(&life, "for", 0, "how long the token can be renewed after it was made (default: as long as the nodes allow)")
	return cmd
}

func (a *app) createToken(ctx context.Context, adm *kadm.Client, ask *kadm.CreateDelegationToken) error {
	access, err := a.identity.readAccess()
	if err != nil {
		return err
	}
	t, err := adm.CreateDelegationToken(ctx, *ask)
	if err != nil {
		return explainDelegation("delegation tokens", err)
	}
	made := showDelegation(&t)
	made.HMAC = base64.StdEncoding.EncodeToString(t.HMAC)
	if err := a.show(made, func() string { return a.tokenProperties(&made, &access) }); err != nil {
		return err
	}
	if ask.Owner != nil && t.Owner != *ask.Owner { // as brokers before KIP-373 do
		return fmt.Errorf("the broker knows no tokens of other users, and has made one of %s: end it with \"leat token expire %s\"", escapeLine(made.Owner), made.TokenID)
	}
	return nil
}

// tokenProperties are the lines of a client.properties that logs in with a new token where this client has logged in.
func (a *app) tokenProperties(t *shownDelegation, c *access) string {
	mechanism := c.name
	if !slices.Contains([]string{config.MechanismScramSHA256, config.MechanismScramSHA512}, mechanism) {
		mechanism = defaultMechanism
	}
	lines := []string{
		fmt.Sprintf("# A delegation token of %s. It ends on %s unless it is renewed (leat token renew %s),", escapeLine(t.Owner), formatTokenTime(t.Expires), t.TokenID),
		fmt.Sprintf("# and on %s at the latest. Its HMAC, the password, is not shown again.", formatTokenTime(t.MaxTime)),
		"bootstrap.servers=" + a.bootstrap,
	}
	if c.tls == nil {
		lines = append(lines, "security.protocol="+config.SASLPlaintext.String())
	} else {
		lines = append(lines, "security.protocol="+config.SASLSSL.String())
	}
	lines = append(lines, "sasl.mechanism="+mechanism,
		fmt.Sprintf("sasl.jaas.config=%s required username=%q password=%q tokenauth=\"true\";", config.ScramLoginModule, t.TokenID, t.HMAC))
	return strings.Join(append(lines, trustProperties(c)...), "\n") + "\n"
}

// trustProperties are the lines of a client.properties for whom this client trusts. The certificates are in them, so that the file can be taken elsewhere.
func trustProperties(c *access) (lines []string) {
	if c.tls == nil {
		return nil
	}
	if c.trusted != "" {
		text := strings.ReplaceAll(strings.TrimSpace(c.trusted), "\n", "\\n\\\n")
		lines = append(lines, "ssl.truststore.type=PEM", "ssl.truststore.certificates="+text)
	}
	if c.tls.InsecureSkipVerify { // a file has said so, and the chain is verified all the same
		lines = append(lines, "ssl.endpoint.identification.algorithm=")
	}
	if len(c.tls.Certificates) > 0 {
		lines = append(lines, "# If the listener asks for a certificate, too, add the lines of one that begin with ssl.keystore.")
	}
	return lines
}
