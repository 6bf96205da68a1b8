package tunnel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// streamWindow is how many bytes of one stream may have come that nobody has read.
	streamWindow = 1 << 20
	// pingEvery is how often an end asks the other one whether it is there, and pingTime how long that may take.
	pingEvery = 5 * time.Second
	pingTime  = 20 * time.Second
	// openTime is how long the other end may take to accept a stream, and closeTime how long to end one that this end has ended.
	openTime  = 30 * time.Second
	closeTime = 30 * time.Second

	nodesStream = 'N'
	dialStream  = 'D'

	mostNodes   = 1 << 20 // bytes of the nodes' JSON
	mostAddress = 300     // bytes of host:port
	mostText    = 1000    // bytes of why a broker was not reached
)

// outcome says how the dial of a broker has ended.
type outcome byte

const (
	outcomeDone    outcome = 0
	outcomeRefused outcome = 1 // the agent does not dial that address
	outcomeFailed  outcome = 2 // the broker was not reached
)

var errStream = errors.New("the other end of the tunnel does not keep to the protocol")

// muxConfig is how yamux runs on both ends.
func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard // what ends a connection is returned
	c.MaxStreamWindowSize, c.KeepAliveInterval, c.ConnectionWriteTimeout = streamWindow, pingEvery, pingTime
	c.StreamOpenTimeout, c.StreamCloseTimeout = openTime, closeTime
	return c
}

// hello is what both ends say first.
type hello struct {
	Version int    `json:"version"`
	Name    string `json:"name,omitempty"` // of the agent, for people
}

// protocolVersion is the version of all that this package sends, and mostHello how many bytes a hello has.
const (
	protocolVersion = 1
	mostHello       = 1 << 10
	mostName        = 100
)

func (h *hello) encode() []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic("BUG: a hello cannot be written: " + err.Error())
	}
	return b
}

func parseHello(b []byte) (h hello, err error) {
	if len(b) > mostHello {
		return h, fmt.Errorf("%w: a hello of %d bytes", errStream, len(b))
	}
	if err := json.Unmarshal(b, &h); err != nil || h.Version != protocolVersion {
		return h, fmt.Errorf("%w: its hello is %.100q, and this end has version %d of the protocol between agents and nodes", errStream, b, protocolVersion)
	}
	h.Name = h.Name[:min(len(h.Name), mostName)]
	return h, nil
}

// Node is a node of the cluster that mirrors, as an agent reaches it.
type Node struct {
	ID        int32    `json:"id"`
	Addresses []string `json:"addresses"` // PROTOCOL://host:port
}

// writeNodes writes the nodes to a stream.
func writeNodes(w io.Writer, nodes []Node) error {
	b, err := json.Marshal(nodes)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32([]byte{nodesStream}, uint32(len(b))), b...))
	return err
}

// readNodes reads them, behind the first byte.
func readNodes(r io.Reader) (nodes []Node, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > mostNodes {
		return nil, fmt.Errorf("%w: %d bytes of nodes", errStream, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &nodes); err != nil {
		return nil, fmt.Errorf("%w: the nodes: %w", errStream, err)
	}
	return nodes, nil
}

// writeText writes a byte and a text.
func writeText(w io.Writer, first byte, text string) error {
	b := binary.BigEndian.AppendUint16([]byte{first}, uint16(len(text)))
	_, err := w.Write(append(b, text...))
	return err
}

// readText reads a text of so many bytes at most, behind its first byte.
func readText(r io.Reader, most int) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > most {
		return "", fmt.Errorf("%w: a text of %d bytes", errStream, n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return string(b), err
}

func readByte(r io.Reader) (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}
