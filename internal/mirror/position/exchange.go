package position

import (
	"encoding/base64"

	"github.com/leatstream/leat/internal/record"
)

// Bounds of one Question and its Answer, so that each is a small message.
const (
	// MaxAsked is how many groups a Question asks for, and MaxChanges how many changes it has.
	MaxAsked   = 500
	MaxChanges = 1_000
	// MaxMessage is about how many bytes a Question has, and an Answer.
	MaxMessage = 256 << 10
)

// Question is what a link asks a node about the groups that it coordinates, and what is to be changed there. The node changes first.
type Question struct {
	Link   [16]byte `json:"link"`
	Groups []Text   `json:"groups,omitempty"` // to be told of
	// AfterTopic and AfterPartition are, with one group, the place behind which its positions are told of; "": from the first one on.
	AfterTopic     string `json:"afterTopic,omitempty"`
	AfterPartition int32  `json:"afterPartition,omitempty"`
	// Lists asks for the names of the groups that have positions which the link has made, those behind AfterGroup in the order of names.
	Lists      bool     `json:"lists,omitempty"`
	AfterGroup Text     `json:"afterGroup,omitempty"`
	Changes    []Change `json:"changes,omitempty"`
}

// Text is a string of any bytes, which JSON keeps as they are.
type Text string

// MarshalText is of encoding.TextMarshaler.
func (t Text) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, []byte(t)), nil
}

// UnmarshalText is of encoding.TextUnmarshaler.
func (t *Text) UnmarshalText(b []byte) error {
	b, err := base64.RawStdEncoding.AppendDecode(nil, b)
	*t = Text(b)
	return err
}

// ChangeKind is what a Change does.
type ChangeKind uint8

// The kinds of changes.
const (
	Commits  ChangeKind = iota // commits a position
	Deletes                    // deletes it
	Confirms                   // says that the source has it, so that it does not expire
)

// Change is a change of a position of a group here, which is only made if the position is as it was when that was decided, and if the group has no members.
type Change struct {
	Group     Text          `json:"group"`
	Topic     string        `json:"topic"` // by its name here
	Partition int32         `json:"partition"`
	Kind      ChangeKind    `json:"kind,omitempty"`
	Offset    record.Offset `json:"offset,omitempty"`
	Epoch     record.Epoch  `json:"epoch,omitempty"`
	Metadata  Text          `json:"metadata,omitempty"`
	Was       *Stored       `json:"was,omitempty"` // nil: there was none
}

// Size is about how many bytes the change has in a message.
func (c *Change) Size() int { return 200 + 2*(len(c.Group)+len(c.Topic)+len(c.Metadata)) }

// Stored is what tells two commits of a position apart.
type Stored struct {
	Offset record.Offset `json:"offset"`
	Time   int64         `json:"time"` // of the commit, ms
	IsOurs bool          `json:"isOurs,omitempty"`
}

// Outcome is how a Change has ended.
type Outcome uint8

// The outcomes.
const (
	Done       Outcome = iota
	WasActive          // the group has members here, or a transaction has its position
	WasChanged         // the position is not as it was
	NotHere            // the topic does not mirror by the link here
	Failed             // it was not committed, or nobody knows: Answer.Problem may say why
)

// Answer is the answer to a Question.
type Answer struct {
	// Groups are those that were asked for, in their order, as far as the message has room; the first one is always there.
	Groups []ToldGroup `json:"groups,omitempty"`
	// Listed are names, in order, and IsMore tells that there are more of them.
	Listed   []Text    `json:"listed,omitempty"`
	IsMore   bool      `json:"isMore,omitempty"`
	Outcomes []Outcome `json:"outcomes,omitempty"` // of the changes, in their order
	// Problem is why some changes have failed, or why not all names were listed; "": there is no reason.
	Problem string `json:"problem,omitempty"`
}

// ToldGroup is a group here as its coordinator has it.
type ToldGroup struct {
	Name     Text `json:"name"`
	IsActive bool `json:"isActive,omitempty"`
	// Positions are those in topics that mirror by the link, in the order of their places. IsMore tells that there are more behind them.
	Positions []ToldPosition `json:"positions,omitempty"`
	IsMore    bool           `json:"isMore,omitempty"`
	// Problem is why the group is not known now: its coordinator is another node, or has to read its log. "": it is known.
	Problem string `json:"problem,omitempty"`
}

// ToldPosition is a position of a group here.
type ToldPosition struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Epoch     record.Epoch `json:"epoch"`
	Metadata  Text         `json:"metadata,omitempty"`
	Stored
	// IsAging tells that the position expires before long, unless the source still has it.
	IsAging bool `json:"isAging,omitempty"`
}

// Size is about how many bytes the position has in a message.
func (p *ToldPosition) Size() int { return 160 + 2*(len(p.Topic)+len(p.Metadata)) }

// Here is the position as Machine.Decide takes it.
func (p *ToldPosition) Here() Here {
	return Here{
		Placed: Placed{Place{p.Topic, p.Partition}, Position{Offset: p.Offset, Epoch: p.Epoch, Metadata: string(p.Metadata)}},
		Time:   p.Time, IsOurs: p.IsOurs,
	}
}
