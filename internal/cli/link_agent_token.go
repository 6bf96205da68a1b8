package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// madeAgentToken is the output of the verb that makes a token for an agent.
type madeAgentToken struct {
	Token   string    `json:"token"`
	ID      string    `json:"id"`
	Link    string    `json:"link"`
	Expires time.Time `json:"expires"` // until when it can be used first
}

func (v *linkVerbs) newAgentToken() *cobra.Command {
	var life time.Duration
	var revoked string
	cmd := &cobra.Command{
		Use: "agent-token NAME", Short: "Make a token for an agent of a link, or revoke one", Args: cobra.ExactArgs(1), ValidArgsFunction: v.completeLinks,
		Long: `Make a token for an agent of a link, and write it alone to the standard output. The agent runs beside the source, "leat link agent", and carries the connections of
the nodes here to the source's brokers, which cannot be dialled from here. The token is for this link alone, and for one agent: the first one that uses it, within
--for, keeps it until it is revoked. Two agents, so that one can fail, have two tokens. "leat link describe NAME" shows the tokens and the agents.

Who has the token before the agent has used it can be the agent, so keep it as a password. If the nodes here talk to each other with TLS, the token says so: it is used
over TLS only, and not over a connection that somebody stands between.`,
		Example: `  leat link agent-token north > token
  leat link agent-token north --for 10m
  leat link agent-token north --revoke 0123456789abcdef`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if life < time.Second {
				return usagef("--for %s: give a time span such as 10m or 2h", life)
			}
			if !cmd.Flags().Changed("revoke") {
				return v.dial(cmd, func(ctx context.Context, n *linkNode) error { return v.makeAgentToken(ctx, cmd, n, args[0], life) })
			}
			id, err := parseTokenID(revoked)
			if err != nil {
				return err
			}
			return v.dial(cmd, func(ctx context.Context, n *linkNode) error { return v.revokeAgentToken(ctx, cmd, n, args[0], id) })
		},
	}
	cmd.Flags().DurationVar(&life, "for", defaultTokenLife, "until when an agent must have used the token first")
	cmd.Flags().StringVar(&revoked, "revoke", "", "the id of a token, or the token, whose agent is to be let in no more")
	cmd.MarkFlagsMutuallyExclusive("for", "revoke")
	v.completeFlag(cmd, "for", completeNothing)
	v.completeFlag(cmd, "revoke", completeNothing)
	return v.add(cmd)
}

// makeAgentToken makes a token, has the link know it, and shows it. The secret in it is never sent.
func (v *linkVerbs) makeAgentToken(ctx context.Context, cmd *cobra.Command, n *linkNode, link string, life time.Duration) error {
	id, err := credential.ParseClusterID(n.cluster)
	if err != nil {
		return err
	}
	token, err := credential.NewToken(id, rand.Reader)
	if err != nil {
		return err
	}
	if token = token.ForAgent(); n.needsTLS {
		token = token.WithTLS()
	}
	k := token.Verifier(time.Now().Add(life))
	q := &cluster.LinkRequest{
		Verb: cluster.LinkAgentToken, Name: link, Agent: &meta.LinkAgent{Token: k.ID, Key: k.Key, Acceptor: k.Acceptor, Expires: k.Expires.UnixMilli()},
	}
	if _, err := v.ask(ctx, cmd, n, q); err != nil {
		return fmt.Errorf("making a token for an agent of the link %s: %w", link, err)
	}
	made := madeAgentToken{Token: token.Text(), ID: k.ID.String(), Link: link, Expires: k.Expires.UTC().Truncate(time.Millisecond)}
	if err := v.show(made, func() string { return made.Token + "\n" }); err != nil {
		return err
	}
	to := "HOST:PORT"
	if len(n.addresses) > 0 {
		to = n.addresses[0]
	}
	v.tellPerson(fmt.Sprintf("one agent can use this token for the first time until %s: leat link agent --to %s --token-file FILE --from BROKER:PORT, on a machine beside the source; \"leat link agent-token %s --revoke %s\" ends it",
		made.Expires.Format("2006-01-02 15:04:05 MST"), to, quoteWord(link), made.ID))
	return nil
}

func (v *linkVerbs) revokeAgentToken(ctx context.Context, cmd *cobra.Command, n *linkNode, link string, id credential.TokenID) error {
	if _, err := v.ask(ctx, cmd, n, &cluster.LinkRequest{Verb: cluster.LinkAgentRevoke, Name: link, Token: id}); err != nil {
		return fmt.Errorf("revoking a token for an agent of the link %s: %w", link, err)
	}
	revoked := revokedToken{ID: id.String(), Revoked: true}
	return v.show(revoked, func() string {
		return fmt.Sprintf("revoked the token %s of the link %s: its agent is let in no more\n", revoked.ID, link)
	})
}
