package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Type is the type of an event, as CloudEvents has it.
type Type string

// The types of events.
const (
	LoginSucceeded Type = "leat.login.succeeded"
	LoginFailed    Type = "leat.login.failed"
	Denied         Type = "leat.access.denied"
	WouldDeny      Type = "leat.access.would.be.denied"
	Read           Type = "leat.topic.read"
	Written        Type = "leat.topic.written"

	TopicCreated         Type = "leat.topic.created"
	TopicDeleted         Type = "leat.topic.deleted"
	PartitionsCreated    Type = "leat.partitions.created"
	ConfigChanged        Type = "leat.config.changed"
	ACLCreated           Type = "leat.acl.created"
	ACLDeleted           Type = "leat.acl.deleted"
	RoleGranted          Type = "leat.role.granted"
	RoleRevoked          Type = "leat.role.revoked"
	UserCreated          Type = "leat.user.created"
	UserChanged          Type = "leat.user.changed"
	UserDeleted          Type = "leat.user.deleted"
	QuotaChanged         Type = "leat.quota.changed"
	FeatureChanged       Type = "leat.feature.changed"
	ReassignmentChanged  Type = "leat.reassignment.changed"
	LeaderElected        Type = "leat.leader.elected"
	GroupDeleted         Type = "leat.group.deleted"
	OffsetsDeleted       Type = "leat.offsets.deleted"
	OffsetsSet           Type = "leat.offsets.set"
	RecordsDeleted       Type = "leat.records.deleted"
	TransactionEnded     Type = "leat.transaction.ended"
	BrokerUnregistered   Type = "leat.broker.unregistered"
	TokenCreated         Type = "leat.delegation.token.created"
	TokenRenewed         Type = "leat.delegation.token.renewed"
	TokenExpired         Type = "leat.delegation.token.expired"
	JoinTokenMade        Type = "leat.join.token.made"
	JoinTokenRevoked     Type = "leat.join.token.revoked"
	NodeRemoved          Type = "leat.node.removed"
	NodeAdmitted         Type = "leat.node.admitted"
	ClusterRecovered     Type = "leat.cluster.recovered"
	ClusterSecured       Type = "leat.cluster.secured"
	CertificateIssued    Type = "leat.certificate.issued"
	CertificatesRenewed  Type = "leat.certificates.renewed"
	AuthorityReplaced    Type = "leat.authority.replaced"
	SealingKeyReplaced   Type = "leat.sealing.key.replaced"
	LinkCreated          Type = "leat.link.created"
	LinkChanged          Type = "leat.link.changed" // its settings, or what it does: paused, resumed, a loss accepted, topics promoted
	LinkDeleted          Type = "leat.link.deleted"
	AdministrationServed Type = "leat.administration" // a change of a kind that has no type of its own

	// Started is the first event of a node's start, and names the last one before.
	Started Type = "leat.audit.started"
	// Anchor has the number of events and the hash at some point.
	Anchor Type = "leat.audit.anchor"
	// Lost says how many events there was no room for.
	Lost Type = "leat.audit.lost"
)

// Types are all types of events.
func Types() []Type {
	return []Type{
		LoginSucceeded, LoginFailed, Denied, WouldDeny, Read, Written, TopicCreated, TopicDeleted, PartitionsCreated, ConfigChanged, ACLCreated,
		ACLDeleted, RoleGranted, RoleRevoked, UserCreated, UserChanged, UserDeleted, QuotaChanged, FeatureChanged, ReassignmentChanged, LeaderElected,
		GroupDeleted, OffsetsDeleted, OffsetsSet, RecordsDeleted, TransactionEnded, BrokerUnregistered, TokenCreated, TokenRenewed, TokenExpired,
		JoinTokenMade, JoinTokenRevoked, NodeRemoved, NodeAdmitted, ClusterRecovered, ClusterSecured, CertificateIssued, CertificatesRenewed,
		AuthorityReplaced, SealingKeyReplaced, LinkCreated, LinkChanged, LinkDeleted, AdministrationServed, Started, Anchor, Lost,
	}
}

// Kind is a group of types, by which an operator chooses what is recorded.
type Kind string

// The kinds.
const (
	Logins   Kind = "login"
	Denials  Kind = "denied"
	Changes  Kind = "change"
	Reads    Kind = "read"
	Writes   Kind = "write"
	ofTrails Kind = "" // what a trail says of itself
)

// Kind is the kind of a type.
func (t Type) Kind() Kind {
	switch t {
	case LoginSucceeded, LoginFailed:
		return Logins
	case Denied, WouldDeny:
		return Denials
	case Read:
		return Reads
	case Written:
		return Writes
	case Started, Anchor, Lost:
		return ofTrails
	default:
		return Changes
	}
}

// Result is how it ended.
type Result string

// The results.
const (
	Allowed Result = "allowed"
	Refused Result = "denied"
	Failed  Result = "failed"
)

// Who is a client.
type Who struct {
	Principal string // TYPE:NAME; "": nobody has logged in
	Address   string // host:port
	Listener  string
	ClientID  string
}

// Event is one thing that somebody did.
type Event struct {
	Type Type
	Time time.Time
	Who
	API          string // of Kafka's protocol, or a command between nodes
	Operation    string // in the words of Kafka's ACLs
	ResourceType string // topic, group, cluster, transactional_id, user, ...
	Resource     string
	Result       Result
	Code         int16  // of Kafka's protocol; 0: none
	Error        string // the code's name
	Reason       string
	Details      []Detail // at most mostDetails count
	// Count is how many such events First and Last are around; 0: it is one.
	Count       int64
	First, Last time.Time
}

// Detail is something more about an event.
type Detail struct{ Key, Value string }

const (
	// mostText is how many bytes of a text an event has; see clip.
	mostText = 256
	// mostDetails is how many details an event has.
	mostDetails = 24
	// MostLine bounds a line, in bytes: JSON may need six bytes for one.
	MostLine = 256 << 10
)

// clip makes a text valid UTF-8 of at most about mostText bytes. Of a longer one it has the beginning, and the length and a hash
// by which it is told from others. A byte that is no UTF-8 becomes its number, with a backslash and an x before it.
func clip(s string) string {
	if len(s) <= mostText {
		return makeValid(s)
	}
	sum := sha256.Sum256([]byte(s))
	cut := mostText
	for cut > mostText-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s... (%d bytes, sha256 %s)", makeValid(s[:cut]), len(s), hex.EncodeToString(sum[:8]))
}

func makeValid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// bound makes all texts of an event short, and has it own them.
func (e *Event) bound() {
	for _, s := range []*string{
		&e.Principal, &e.Address, &e.Listener, &e.ClientID, &e.API, &e.Operation, &e.ResourceType, &e.Resource, &e.Error, &e.Reason,
	} {
		*s = clip(*s)
	}
	if len(e.Details) == 0 {
		return
	}
	details := make([]Detail, 0, min(len(e.Details), mostDetails+1))
	for i, d := range e.Details {
		if i == mostDetails {
			details = append(details, Detail{"more", fmt.Sprint(len(e.Details) - i)})
			break
		}
		details = append(details, Detail{clip(d.Key), clip(d.Value)})
	}
	e.Details = details
}

// size is about how many bytes an event takes in memory.
func (e *Event) size() int64 {
	n := 320 + len(e.Principal) + len(e.Address) + len(e.Listener) + len(e.ClientID) + len(e.API) + len(e.Operation) +
		len(e.ResourceType) + len(e.Resource) + len(e.Error) + len(e.Reason)
	for i := range e.Details {
		n += 32 + len(e.Details[i].Key) + len(e.Details[i].Value)
	}
	return int64(n)
}

// Line is an event as it is written, and read.
type Line struct {
	SpecVersion  string    `json:"specversion"`
	ID           string    `json:"id"`
	Source       string    `json:"source"`
	Type         Type      `json:"type"`
	Subject      string    `json:"subject,omitempty"`
	Time         time.Time `json:"time"`
	ContentType  string    `json:"datacontenttype"`
	Start        string    `json:"start"`
	Sequence     uint64    `json:"sequence,string"`
	PreviousHash string    `json:"previoushash"`
	Data         Data      `json:"data"`
}

// Data is what an event says.
type Data struct {
	Node         int32             `json:"node"`
	Principal    string            `json:"principal,omitempty"`
	Address      string            `json:"address,omitempty"`
	Listener     string            `json:"listener,omitempty"`
	ClientID     string            `json:"clientId,omitempty"`
	API          string            `json:"api,omitempty"`
	Operation    string            `json:"operation,omitempty"`
	ResourceType string            `json:"resourceType,omitempty"`
	Resource     string            `json:"resource,omitempty"`
	Result       Result            `json:"result,omitempty"`
	Code         int16             `json:"errorCode,omitempty"`
	Error        string            `json:"error,omitempty"`
	Reason       string            `json:"reason,omitempty"`
	Count        int64             `json:"count,omitempty"`
	FirstTime    *time.Time        `json:"firstTime,omitempty"`
	LastTime     *time.Time        `json:"lastTime,omitempty"`
	Details      map[string]string `json:"details,omitempty"`

	Previous *Previous `json:"previous,omitempty"` // of Started
	Events   uint64    `json:"events,omitempty"`   // of Anchor: the lines of this start before it
	Hash     string    `json:"hash,omitempty"`     // of Anchor: of the line before it
}

// makeLine makes a line of an event; the chain's fields are missing.
func makeLine(e *Event) Line {
	l := Line{SpecVersion: "1.0", Type: e.Type, Time: e.Time.UTC(), ContentType: "application/json", Data: Data{
		Principal: e.Principal, Address: e.Address, Listener: e.Listener, ClientID: e.ClientID, API: e.API, Operation: e.Operation,
		ResourceType: e.ResourceType, Resource: e.Resource, Result: e.Result, Code: e.Code, Error: e.Error, Reason: e.Reason, Count: e.Count,
	}}
	if e.ResourceType != "" {
		l.Subject = strings.TrimSuffix(e.ResourceType+"/"+e.Resource, "/")
	}
	if e.Count > 0 {
		first, last := e.First.UTC(), e.Last.UTC()
		l.Data.FirstTime, l.Data.LastTime = &first, &last
	}
	if len(e.Details) > 0 {
		l.Data.Details = make(map[string]string, len(e.Details))
		for _, d := range e.Details {
			l.Data.Details[d.Key] = d.Value
		}
	}
	return l
}

// encode makes the bytes of a line, without the end of line.
func (l *Line) encode() []byte {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	if err := to.Encode(l); err != nil { // it has only strings, numbers and times of this century
		panic("BUG: an event is no JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// ErrLine says that bytes are no line of an audit log.
var ErrLine = fmt.Errorf("not an event of an audit log")

// ParseLine reads a line, without its end.
func ParseLine(b []byte) (*Line, error) {
	if len(b) > MostLine {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrLine, len(b))
	}
	l := new(Line)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLine, err)
	}
	switch {
	case l.SpecVersion != "1.0":
		return nil, fmt.Errorf("%w: its specversion is %.20q", ErrLine, l.SpecVersion)
	case l.Sequence == 0 || l.Start == "" || len(l.Start) > mostText || l.Source == "" || len(l.Source) > mostText || l.Type == "":
		return nil, fmt.Errorf("%w: it lacks a sequence, a start, a source or a type", ErrLine)
	}
	if _, err := parseHash(l.PreviousHash); err != nil {
		return nil, err
	}
	return l, nil
}
