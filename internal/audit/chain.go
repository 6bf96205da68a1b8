package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Hash is the SHA-256 of a line.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

func parseHash(s string) (h Hash, err error) {
	if n, err := hex.Decode(h[:], []byte(s[:min(len(s), 2*len(h))])); err != nil || n != len(h) || len(s) != 2*len(h) {
		return h, fmt.Errorf("%w: %.20q is no hash", ErrLine, s)
	}
	return h, nil
}

// Place is a line of a start: its sequence and its hash. The zero value is before the first line.
type Place struct {
	Sequence uint64 `json:"sequence"`
	Hash     string `json:"hash"`
}

// Previous is what a trail has noted of the start before. The log must have its lines up to Confirmed, and none beyond Written.
type Previous struct {
	Start     string `json:"start"`
	Confirmed Place  `json:"confirmed"`
	Written   Place  `json:"written"`
}

// Head is what a trail notes before it appends lines.
type Head struct {
	Previous

	// Left are events that there was no time to write when the node stopped.
	Left int64 `json:"left,omitempty"`
}

// Encode makes the bytes of a note.
func (h *Head) Encode() []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic("BUG: a note of an audit trail is no JSON: " + err.Error())
	}
	return append(b, '\n')
}

// ErrHead says that a note of a trail cannot be read.
var ErrHead = errors.New("the note about the audit log cannot be read")

// ParseHead reads a note.
func ParseHead(b []byte) (*Head, error) {
	h := new(Head)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHead, err)
	}
	for _, p := range []Place{h.Confirmed, h.Written} {
		if _, err := parseHash(p.Hash); err != nil || h.Start == "" || h.Confirmed.Sequence > h.Written.Sequence {
			return nil, fmt.Errorf("%w: it lacks a start or a hash", ErrHead)
		}
	}
	return h, nil
}

// Chain makes lines of events. It belongs to one goroutine.
type Chain struct {
	source string
	node   int32
	start  string
	seq    uint64
	last   Hash
}

// NewChain begins the chain of a start.
func NewChain(cluster string, node int32, start string) *Chain {
	return &Chain{source: fmt.Sprintf("/clusters/%s/nodes/%d", cluster, node), node: node, start: start}
}

// Place is the last line.
func (c *Chain) Place() Place { return Place{c.seq, c.last.String()} }

// Append makes the next line.
func (c *Chain) Append(e *Event) []byte {
	l := makeLine(e)
	return c.add(&l)
}

// Begin makes the first line: prev is what was noted of the start before; nil: nothing.
func (c *Chain) Begin(now time.Time, prev *Head, reason string) []byte {
	l := makeLine(&Event{Type: Started, Time: now, Reason: clip(reason)})
	if prev != nil {
		p := prev.Previous
		l.Data.Previous = &p
		if prev.Left > 0 {
			l.Data.Details = map[string]string{"lostWhenStopped": fmt.Sprint(prev.Left)}
		}
		if h, err := parseHash(p.Written.Hash); err == nil {
			c.last = h
		}
	}
	return c.add(&l)
}

// Anchor makes a line with the number of lines before it and the hash of the last one.
func (c *Chain) Anchor(now time.Time) []byte {
	l := makeLine(&Event{Type: Anchor, Time: now})
	l.Data.Events, l.Data.Hash = c.seq, c.last.String()
	return c.add(&l)
}

func (c *Chain) add(l *Line) []byte {
	c.seq++
	l.Source, l.Start, l.Sequence, l.PreviousHash = c.source, c.start, c.seq, c.last.String()
	l.ID = fmt.Sprintf("%d.%s.%d", c.node, c.start, c.seq)
	l.Data.Node = c.node
	b := l.encode()
	c.last = sha256.Sum256(b)
	return b
}
