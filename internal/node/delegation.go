package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// delegation is how delegation tokens are made and known on this node. Only complained changes after a start.
type delegation struct {
	settings config.DelegationSettings
	key      *auth.TokenKey // nil: there are no tokens on this node
	commands *controller.Delegations

	complained keyComplaint // the applier's
}

// keyComplaint is what the log says of keys.
type keyComplaint uint8

// The log has a line when one of these begins, and one when all keys are right again:
//
//	keysRight <--> otherKey     some tokens were made with another key than this node's
//	keysRight <--> lacksKey     there are tokens, and this node has no key
const (
	keysRight keyComplaint = iota
	otherKey
	lacksKey
)

// leastTokenKey is the length in bytes below which a key is easily guessed by who has listened to a login.
const leastTokenKey = 16

// prepareDelegation makes the key of the settings.
func prepareDelegation(n *Node) (d delegation, err error) {
	d.settings = n.static.DelegationTokens()
	secret := string(d.settings.Key)
	if secret == "" {
		return d, nil
	}
	if d.key, err = auth.NewTokenKey(secret, n.id.clusterID); err != nil {
		return d, fmt.Errorf("%w: delegation.token.secret.key: %w", ErrConfig, err)
	}
	if len(secret) < leastTokenKey {
		n.loggers.loggerOf(rootLogger).Warn("delegation.token.secret.key is short, and who guesses it can log in as every owner of a delegation token: choose a long random one for all nodes",
			"bytes", len(secret), "least", leastTokenKey)
	}
	return d, nil
}

func (d *delegation) controllerConfig() controller.DelegationConfig {
	return controller.DelegationConfig{Key: d.key, MaxLifetime: d.settings.MaxLifetime, ExpiryTime: d.settings.ExpiryTime}
}

// checkKeys tells the operator when this node cannot know tokens that other nodes, or this one before, have made. The metadata tell
// keys apart, not what they are.
func (d *delegation) checkKeys(log *slog.Logger, all *meta.DelegationTokens) {
	foreign := 0
	for t := range all.All() {
		if d.key == nil || !d.key.Made(t) {
			foreign++
		}
	}
	now := keysRight
	switch {
	case foreign > 0 && d.key == nil:
		now = lacksKey
	case foreign > 0:
		now = otherKey
	}
	if now == d.complained {
		return
	}
	switch d.complained = now; now {
	case lacksKey:
		log.Warn("nobody can log in on this node with the cluster's delegation tokens, since it has no delegation.token.secret.key: set that of the other nodes, and start this node again", "tokens", foreign)
	case otherKey:
		log.Warn("nobody can log in on this node with some delegation tokens, since they were made with another delegation.token.secret.key: all nodes must have the same key; if it was changed on purpose, have those tokens made again",
			"tokens", foreign, "of", all.Len())
	case keysRight:
		log.Info("all delegation tokens were made with this node's delegation.token.secret.key")
	}
}

// removeEndedTokens has the controller on this node, if it is the active one, remove tokens that have ended, until the node stops.
func removeEndedTokens(n *Node) {
	tick := time.NewTicker(n.delegation.settings.CheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(n.ctx, removeTokensTime)
		err := n.delegation.commands.RemoveEnded(ctx, time.Now())
		cancel()
		if err != nil && !errors.Is(err, quorum.ErrNotLeader) && n.ctx.Err() == nil {
			n.loggers.loggerOf(rootLogger).Warn("delegation tokens that have ended were not removed; nobody can log in with them, and it is tried again", "err", err)
		}
	}
}

// removeTokensTime is how long the removal of all tokens that have ended may take.
const removeTokensTime = time.Minute
