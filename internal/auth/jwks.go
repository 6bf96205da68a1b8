package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// mostKeys bounds the keys of an issuer.
	mostKeys = 128
	// fetchTime is how long reading the keys may take.
	fetchTime = 5 * time.Second
	// unknownPause is the shortest time between two reads of the keys because a token names one that is not known: anybody can send
	// such a token.
	unknownPause = 10 * time.Second
)

// errNoKeys says that the keys of the issuer could not be read yet.
var errNoKeys = errors.New("the keys of the issuer cannot be read")

// keyCache has the keys of an issuer. They are read by the first login that needs them, again after the refresh time, and when a
// token names one that is not known. A login never waits for keys that are only old, unless it is the one that reads them; and
// if they cannot be read, the old ones go on to count. Any goroutine may use it.
type keyCache struct {
	cfg *OAuthConfig

	mu      sync.Mutex
	keys    []jose.JSONWebKey // guarded by mu
	readAt  time.Time         // guarded by mu: when the keys were read; zero: they were not
	triedAt time.Time         // guarded by mu: when that was tried last
	pause   time.Duration     // guarded by mu: after the last try, before the next one; 0: it did not fail
	err     error             // guarded by mu: of the last try
	reading chan struct{}     // guarded by mu: closed when the read that is under way ends; nil: none is
}

// find finds the keys of an id; without an id it returns all.
func (k *keyCache) find(ctx context.Context, id string, now time.Time) ([]jose.JSONWebKey, error) {
	for {
		k.mu.Lock()
		found := k.selectLocked(id)
		isOld := now.Sub(k.readAt) >= k.cfg.Refresh
		mayTry := now.Sub(k.triedAt) >= k.pause && (isOld || len(found) == 0 && now.Sub(k.triedAt) >= unknownPause)
		reading := k.reading
		isMine := reading == nil && mayTry
		if isMine {
			k.triedAt, k.reading = now, make(chan struct{})
		}
		hasNone, failed := k.readAt.IsZero(), k.err
		k.mu.Unlock()
		switch {
		case isMine:
			k.read(ctx)
		case len(found) > 0:
			return found, nil
		case reading != nil: // perhaps it brings the key
			select {
			case <-reading:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case hasNone:
			return nil, fmt.Errorf("%w: %w", errNoKeys, failed)
		default:
			return nil, errors.New("the issuer has no key of the id that it names")
		}
	}
}

func (k *keyCache) selectLocked(id string) (found []jose.JSONWebKey) {
	for i := range k.keys {
		if id == "" || k.keys[i].KeyID == id {
			found = append(found, k.keys[i])
		}
	}
	return found
}

// read reads the keys. A client that goes away does not end it.
func (k *keyCache) read(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer cancel()
	text, err := k.cfg.Fetch(ctx)
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = parseKeys(text)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err == nil {
		k.keys, k.readAt, k.pause = keys, k.triedAt, 0
	} else {
		k.pause = min(max(2*k.pause, k.cfg.RetryBackoff, time.Millisecond), max(k.cfg.MostRetrying, time.Millisecond))
	}
	close(k.reading)
	k.reading = nil
}

// parseKeys reads the public keys for signatures of a JSON Web Key Set, and skips all others, such as those of kinds that are
// not known.
func parseKeys(text []byte) (keys []jose.JSONWebKey, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("it is no JSON Web Key Set: %w", err)
	}
	if len(set.Keys) > mostKeys {
		return nil, fmt.Errorf("it has %d keys, more than %d", len(set.Keys), mostKeys)
	}
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && key.Valid() && key.IsPublic() && key.Use != "enc" {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no public key for signatures")
	}
	return keys, nil
}
