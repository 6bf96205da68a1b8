package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
)

// defaultTokenLife is how long nodes can join with a token, unless --for says otherwise.
const defaultTokenLife = time.Hour

// madeToken is the output of the verb that makes a join token.
type madeToken struct {
	Token   string    `json:"token"`
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

// revokedToken is the output of the verb that revokes one.
type revokedToken struct {
	ID      string `json:"id"`
	Revoked bool   `json:"revoked"`
}

func (a *app) newClusterToken() *cobra.Command {
	var life time.Duration
	var revoked string
	var list bool
	cmd := &cobra.Command{
		Use: "token", Short: "Make a token with which nodes join, list the tokens, or revoke one", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Make a join token, and write it alone to the standard output. Any number of nodes can join with it, until it
ends or is revoked: leat up --join HOST:9092 --token-file FILE. Who has the token can join, so keep it as a password.
If the nodes talk to each other with TLS, the token says so: a node joins with it over TLS only, needs no certificate of an
authority to know the cluster by, and is let in by nobody who stands between.

` + holderHelp + ` The secret in the token is made here, and never sent.`,
		Example: `  leat cluster token > token
  leat cluster token --for 10m --data /var/lib/leat
  leat cluster token --list
  leat cluster token --revoke 0123456789abcdef`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if life < time.Second {
				return usagef("--for %s: give a time span such as 10m or 2h", life)
			}
			switch {
			case list:
				return a.withHolder(cmd, a.listTokens)
			case !cmd.Flags().Changed("revoke"):
				return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error { return a.makeToken(ctx, n, life) })
			}
			id, err := parseTokenID(revoked)
			if err != nil {
				return err
			}
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error { return a.revokeToken(ctx, n, id) })
		},
	}
	cmd.Flags().DurationVar(&life, "for", defaultTokenLife, "how long nodes can join with the token")
	cmd.Flags().StringVar(&revoked, "revoke", "", "the id of a token, or the token, with which no node is to join any more")
	cmd.Flags().BoolVar(&list, "list", false, "show the tokens that were made, until a day after their end; their secrets are not known to the cluster")
	cmd.MarkFlagsMutuallyExclusive("for", "revoke", "list")
	return addDataFlag(cmd)
}

// parseTokenID reads the id of a token, or the token itself.
func parseTokenID(text string) (id credential.TokenID, err error) {
	if t, err := credential.ParseToken(text); err == nil {
		return t.ID(), nil
	}
	b, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != len(id) {
		return id, usagef("--revoke: give the id of a token, which has %d digits and letters and was told when the token was made, or the whole token", 2*len(id))
	}
	return credential.TokenID(b), nil
}

// makeToken makes a token, has the cluster know it, and shows it.
func (a *app) makeToken(ctx context.Context, n *heldNode, life time.Duration) error {
	token, err := credential.NewToken(n.Cluster, rand.Reader)
	if err != nil {
		return err
	}
	if w := n.conn.Welcome(); n.IsReachedWithTLS(&w) {
		token = token.WithTLS()
	}
	verifier := token.Verifier(time.Now().Add(life))
	if err := explainCommand(n.admin.MakeToken(ctx, &verifier)); err != nil {
		return fmt.Errorf("making a join token: %w", err)
	}
	made := madeToken{Token: token.Text(), ID: token.ID().String(), Expires: verifier.Expires.UTC().Truncate(time.Millisecond)}
	if err := a.show(made, func() string { return made.Token + "\n" }); err != nil {
		return err
	}
	a.tellPerson(tokenUse(&made, n.addresses()))
	return nil
}

// tokenUse says how to use a token.
func tokenUse(made *madeToken, addresses []string) string {
	join := "HOST:PORT"
	if len(addresses) > 0 {
		join = addresses[0]
	}
	sentence := fmt.Sprintf("nodes can join with this token until %s: leat up --join %s --token-file FILE; \"leat cluster token --revoke %s\" ends it before",
		made.Expires.Format("2006-01-02 15:04:05 MST"), join, made.ID)
	if len(addresses) > 0 && !slices.ContainsFunc(addresses, isReachable) {
		sentence += "; so far this node can be reached from this machine only: to let other machines in, start it with --listen :9092"
	}
	return sentence
}

// isReachable tells whether an address may be reached from another machine.
func isReachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && host != "localhost" && (ip == nil || !ip.IsLoopback())
}

func (a *app) revokeToken(ctx context.Context, n *heldNode, id credential.TokenID) error {
	if err := explainCommand(n.admin.RevokeToken(ctx, id)); err != nil {
		return fmt.Errorf("revoking a join token: %w", err)
	}
	revoked := revokedToken{ID: id.String(), Revoked: true}
	return a.show(revoked, func() string {
		return fmt.Sprintf("revoked the join token %s: no node can join with it any more\n", revoked.ID)
	})
}

// listedToken is the output of the verb that lists tokens.
type listedToken struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Usable  bool      `json:"usable"`
	Revoked bool      `json:"revoked"`
}

func (a *app) listTokens(ctx context.Context, n *heldNode) error {
	tokens, err := n.admin.ListTokens(ctx)
	if err := explainCommand(nil, err); err != nil {
		return fmt.Errorf("listing the join tokens: %w", err)
	}
	listed := describeTokens(tokens, time.Now())
	return a.show(listed, func() string { return tableTokens(listed) })
}

// describeTokens makes the output for tokens. The time is that of this machine; the controller has a clock of its own.
func describeTokens(tokens []controller.ListedToken, now time.Time) []listedToken {
	listed := make([]listedToken, 0, len(tokens))
	for _, t := range tokens {
		ends := time.UnixMilli(t.Expires).UTC()
		listed = append(listed, listedToken{ID: t.ID.String(), Expires: ends, Usable: !t.Revoked && now.Before(ends), Revoked: t.Revoked})
	}
	return listed
}

func tableTokens(listed []listedToken) string {
	if len(listed) == 0 {
		return "there is no join token; leat cluster token makes one\n"
	}
	t := columns{head: []string{"TOKEN", "ENDS", "STATE"}}
	for _, l := range listed {
		state := "ended"
		switch {
		case l.Revoked:
			state = "revoked"
		case l.Usable:
			state = "usable"
		}
		t.addRow(l.ID, l.Expires.Format("2006-01-02 15:04:05 MST"), state)
	}
	return t.String()
}
