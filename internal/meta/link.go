package meta

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/credential"
)

// Limits of links. They are checked before memory is allocated for what a record has.
const (
	// MaxLinks is how many links a cluster may have.
	MaxLinks = 64
	// MaxLinkName is how many characters the name of a link may have.
	MaxLinkName = 64
	// MaxLinkSettings is how many settings a link may have, and MaxLinkSettingBytes how many bytes their keys and values may have together.
	MaxLinkSettings     = 128
	MaxLinkSettingBytes = 64 << 10

	// MaxLinkAgents is how many agents, and tokens for agents, a link may have.
	MaxLinkAgents = 16

	maxLinkSecret  = 16 << 10 // bytes
	maxClusterID   = 249      // bytes; clusters of other makes have ids of any form
	maxSourceTopic = 249      // bytes of the name of a topic at the source, as in Kafka
)

// Link tells of another cluster, the source, of which topics are mirrored here. It never changes: a link that is changed is another one of the same id.
type Link struct {
	ID       UUID // for ever; a name can be used again
	Name     string
	Source   string        // the cluster id of the source, which a link keeps; "" until it is known, with a link that is reached by agents
	Settings []LinkSetting // in the order of their keys
	// Secret is what a login at the source needs, sealed by package sealing; empty: it needs none. The key is not in the metadata.
	Secret []byte
	Paused bool // no partition of the link fetches
	// Agents are the tokens with which agents connect that carry the link's connections, in the order of their ids.
	Agents []LinkAgent
}

// LinkAgent is a token for an agent of a link, and the agent that has used it. From it nobody can be the agent: see credential.Verifier.
type LinkAgent struct {
	Token    credential.TokenID
	Key      credential.PublicKey
	Acceptor [32]byte
	Expires  int64 // until when it can be used first, in ms since 1970
	// Holder is the key of the agent that has used it first, after which it has no end; zero: none has.
	Holder credential.PublicKey
}

// Verifier is the token as handshakes need it.
func (a *LinkAgent) Verifier() credential.Verifier {
	return credential.Verifier{ID: a.Token, Key: a.Key, Acceptor: a.Acceptor, Expires: time.UnixMilli(a.Expires), Holder: a.Holder}
}

// IsUsed tells whether an agent has used the token.
func (a *LinkAgent) IsUsed() bool { return a.Holder != credential.PublicKey{} }

// ViaSetting is the setting of a link that says how the nodes reach its source, and ViaAgent the value with which agents carry the connections.
const (
	ViaSetting = "via"
	ViaAgent   = "agent"
)

// IsViaAgent tells whether the source is reached by agents.
func (l *Link) IsViaAgent() bool {
	via, _ := l.Setting(ViaSetting)
	return via == ViaAgent
}

// FindAgent finds a token for an agent; nil: the link has none of the id.
func (l *Link) FindAgent(token credential.TokenID) *LinkAgent {
	if at, found := l.searchAgent(token); found {
		return &l.Agents[at]
	}
	return nil
}

func (l *Link) searchAgent(token credential.TokenID) (at int, found bool) {
	return slices.BinarySearchFunc(l.Agents, token, func(a LinkAgent, token credential.TokenID) int { return bytes.Compare(a.Token[:], token[:]) })
}

// LinkSetting is a setting of a link.
type LinkSetting struct{ Key, Value string }

// Setting returns the value of a setting, and whether it is set.
func (l *Link) Setting(key string) (value string, isSet bool) {
	at, found := slices.BinarySearchFunc(l.Settings, key, func(s LinkSetting, key string) int { return cmp.Compare(s.Key, key) })
	if !found {
		return "", false
	}
	return l.Settings[at].Value, true
}

// Equal tells whether two links are the same in everything.
func (l *Link) Equal(o *Link) bool {
	if l == nil || o == nil {
		return l == o
	}
	return l.ID == o.ID && l.Name == o.Name && l.Source == o.Source && l.Paused == o.Paused && slices.Equal(l.Settings, o.Settings) && bytes.Equal(l.Secret, o.Secret) && slices.Equal(l.Agents, o.Agents)
}

// IsLinkName tells whether a link can have this name: 1 to MaxLinkName characters, of those that a topic's name may have.
func IsLinkName(name string) bool {
	for i := range len(name) {
		c := name[i]
		isLetter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !isLetter && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return name != "" && name != "." && name != ".." && len(name) <= MaxLinkName
}

// Check returns what a link lacks, or has too much of.
func (l *Link) Check() error {
	size := 0
	for i := range l.Settings {
		s := &l.Settings[i]
		if size += len(s.Key) + len(s.Value); s.Key == "" || i > 0 && s.Key <= l.Settings[i-1].Key {
			return fmt.Errorf("link %q: setting %q is not in the order of the keys", l.Name, s.Key)
		}
	}
	switch {
	case l.ID == UUID{}:
		return fmt.Errorf("link %q has no id", l.Name)
	case !IsLinkName(l.Name):
		return fmt.Errorf("a link cannot have the name %.100q", l.Name)
	case !isClusterID(l.Source) && (l.Source != "" || !l.IsViaAgent()):
		return fmt.Errorf("link %q has the cluster id %.100q of its source", l.Name, l.Source)
	case len(l.Settings) > MaxLinkSettings || size > MaxLinkSettingBytes:
		return fmt.Errorf("link %q has %d settings of %d bytes", l.Name, len(l.Settings), size)
	case len(l.Agents) > MaxLinkAgents:
		return fmt.Errorf("link %q has %d tokens for agents", l.Name, len(l.Agents))
	case !slices.IsSortedFunc(l.Agents, func(a, b LinkAgent) int { return bytes.Compare(a.Token[:], b.Token[:]) }):
		return fmt.Errorf("link %q: the tokens for agents are not in the order of their ids", l.Name)
	case len(l.Secret) > maxLinkSecret:
		return fmt.Errorf("link %q has a secret of %d bytes", l.Name, len(l.Secret))
	}
	return nil
}

func isClusterID(id string) bool { return id != "" && len(id) <= maxClusterID }

// Links are the links of an image, in the order of their names. They never change.
type Links struct{ list []*Link }

// Len counts the links.
func (l *Links) Len() int { return len(l.All()) }

// All lists the links in the order of their names. The list never changes.
func (l *Links) All() []*Link {
	if l == nil {
		return nil
	}
	return l.list
}

// Find finds the link of an id; nil: there is none.
func (l *Links) Find(id UUID) *Link {
	for _, k := range l.All() {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// FindName finds the link of a name; nil: there is none.
func (l *Links) FindName(name string) *Link {
	if at, found := l.search(name); found {
		return l.list[at]
	}
	return nil
}

// FindAgent finds a token for an agent, and the link that it is for; nil: no link has it.
func (l *Links) FindAgent(token credential.TokenID) (*Link, *LinkAgent) {
	for _, k := range l.All() {
		if a := k.FindAgent(token); a != nil {
			return k, a
		}
	}
	return nil, nil
}

func (l *Links) search(name string) (at int, found bool) {
	return slices.BinarySearchFunc(l.All(), name, func(k *Link, name string) int { return cmp.Compare(k.Name, name) })
}

// without is the links but that of an id.
func (l *Links) without(id UUID) []*Link {
	return slices.DeleteFunc(slices.Clone(l.All()), func(k *Link) bool { return k.ID == id })
}

// LinkSet makes a link, or replaces the one of its id. It needs LevelLinks, as all records of links and mirrors.
type LinkSet struct{ Link }

// LinkRemoved removes a link. There must be no topic that mirrors by it, and those that were promoted forget it.
type LinkRemoved struct{ ID UUID }

// LinkChange is a link before and after a change. Old is nil if the link was made, New is nil if it was removed.
type LinkChange struct{ Old, New *Link }
