package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/auth"
)

// Delegation tokens are those of KIP-48 and KIP-373. A token's HMAC is its password: it is written once, when the token is made. The verbs
// that change a token are given its id, and ask the broker for the HMAC, so that it is in no list of processes.

func (a *app) newToken() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("token", "Create, list, renew and expire delegation tokens, by which programs log in as a user",
		a.newTokenCreate(), a.newTokenList(), a.newTokenRenew(), a.newTokenExpire())))
}

// shownDelegation is a delegation token in the output.
type shownDelegation struct {
	TokenID   string    `json:"tokenId"`
	HMAC      string    `json:"hmac,omitempty"` // base64, of a new token alone
	Owner     string    `json:"owner"`
	Requester string    `json:"requester"`
	Renewers  []string  `json:"renewers"`
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	MaxTime   time.Time `json:"maxTime"` // no renewal has it end later
}

// showDelegation makes the output for a token, without its HMAC.
func showDelegation(t *kadm.DelegationToken) shownDelegation {
	shown := shownDelegation{
		TokenID: t.TokenID, Owner: showTokenUser(t.Owner), Requester: showTokenUser(t.TokenRequesterPrincipal), Renewers: []string{},
		Issued: t.IssueTimestamp, Expires: t.ExpiryTimestamp, MaxTime: t.MaxTimestamp,
	}
	for _, r := range t.Renewers {
		shown.Renewers = append(shown.Renewers, showTokenUser(r))
	}
	return shown
}

func showTokenUser(p kadm.Principal) string {
	return auth.Principal{Type: p.Type, Name: p.Name}.String()
}

// parseTokenUser reads the name of a user, or TYPE:NAME.
func parseTokenUser(user string) (kadm.Principal, error) {
	text, err := principalOf(user)
	if err != nil {
		return kadm.Principal{}, err
	}
	p, err := auth.ParsePrincipal(text)
	return kadm.Principal{Type: p.Type, Name: p.Name}, err
}

func parseTokenUsers(users []string) (all []kadm.Principal, err error) {
	for _, user := range withoutRepeats(users) {
		p, err := parseTokenUser(user)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// formatTokenTime writes a time for people.
func formatTokenTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// checkTokenTime refuses a time span of --for that the protocol, which counts milliseconds, cannot say.
func checkTokenTime(cmd *cobra.Command, span time.Duration) error {
	if cmd.Flags().Changed("for") && span < time.Millisecond {
		return usagef("--for %s: give a time span such as 30m or 24h", span)
	}
	return nil
}

// findTokens looks up the tokens of some ids among those that the client may see, in the order of the ids.
func findTokens(ctx context.Context, adm *kadm.Client, ids []string) (found []kadm.DelegationToken, failed []error, err error) {
	all, err := adm.DescribeDelegationTokens(ctx)
	if err != nil {
		return nil, nil, explainDelegation("delegation tokens", err)
	}
	for _, id := range withoutRepeats(ids) {
		i := slices.IndexFunc(all, func(t kadm.DelegationToken) bool { return t.TokenID == id })
		switch {
		case i < 0:
			failed = append(failed, notFoundf("delegation token %s does not exist, or you may not see it: \"leat token list\" lists those that you may see", id))
		case len(all[i].HMAC) == 0:
			failed = append(failed, fmt.Errorf("delegation token %s was made with another delegation.token.secret.key than the node has: nobody can log in with it, and it is removed when its time is over", id))
		default:
			found = append(found, all[i])
		}
	}
	return found, failed, nil
}

// explainDelegation makes a sentence of a broker's error about delegation tokens.
func explainDelegation(of string, err error) error {
	var sentence string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.DelegationTokenAuthDisabled):
		sentence = "the cluster has none: set delegation.token.secret.key to the same value on all nodes"
	case errors.Is(err, kerr.DelegationTokenRequestNotAllowed):
		sentence = "they are for users who have logged in by a password or a certificate, not for those without a login or with a token: see --user and --client-config"
	case errors.Is(err, kerr.DelegationTokenAuthorizationFailed):
		sentence = "a token of another user needs CREATE_TOKENS on that user: \"leat acl grant YOU create-tokens user User:NAME\""
	case errors.Is(err, kerr.DelegationTokenOwnerMismatch):
		sentence = "only its owner and its renewers may renew or expire it"
	case errors.Is(err, kerr.DelegationTokenExpired):
		sentence = "it has ended"
	case errors.Is(err, kerr.UnsupportedVersion):
		sentence = "the cluster has none yet: its metadata have an older level, which \"leat cluster finalize\" raises when all nodes run this version"
	case errors.Is(err, kerr.PolicyViolation):
		sentence = "the cluster, or the user who asks, has as many as there may be: expire those that are not used"
	case errors.Is(err, kerr.DelegationTokenNotFound):
		return notFoundf("%s does not exist any more", of)
	default:
		return answerError(of, err, "")
	}
	return &sentenceError{kind: err, sentence: of + ": " + sentence}
}

// listNames joins names for a table.
func listNames(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}
