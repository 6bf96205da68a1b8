package meta

import (
	"fmt"
	"slices"
)

// Broker is a registered node.
type Broker struct {
	ID          int32
	Epoch       int64 // of this registration; a later registration has a larger one
	Incarnation UUID  // the process that registered it: drawn at each start
	State       BrokerState
	Rack        string
	Listeners   []Listener     // the first one is for other nodes
	Features    []FeatureRange // that this node's version supports
	// Directory is the id of the node's data directory. It is zero if the registration was
	// written below LevelCluster.
	Directory UUID
	// RecordedEpoch is the epoch of the last registration after which the node became active.
	// Its data directory has recorded that epoch, since a node does so before it asks to serve.
	// Apply keeps it from LevelCluster on; 0 stands for none.
	RecordedEpoch int64
	// RaftID is raft's id of the node's part of the metadata quorum, by which other nodes send it
	// messages. It is 0 if the registration was written below LevelCluster.
	RaftID uint64
	// Generation is a number that the node's data directory has noted: it never has a lower one, and a copy of it that was
	// made before has. Apply keeps it from LevelGeneration on; 0 stands for none.
	Generation int64
}

// BrokerState says whether a registered node serves:
//
//	registration -> fenced <-> active -> leaving
//	                  ^                     |
//	                  +---------------------+
type BrokerState uint8

// States of a broker.
const (
	// BrokerFenced is a node that has not caught up yet, or that is no longer heard
	// from: it leads no partition and gets no replicas.
	BrokerFenced BrokerState = iota
	// BrokerActive is a node that serves.
	BrokerActive
	// BrokerLeaving is a node that is shutting down: it serves, but becomes the leader
	// of no further partition.
	BrokerLeaving
)

// SecurityProtocol is Kafka's number for how a listener is protected.
type SecurityProtocol int16

// Security protocols.
const (
	Plaintext     SecurityProtocol = 0
	SSL           SecurityProtocol = 1
	SASLPlaintext SecurityProtocol = 2
	SASLSSL       SecurityProtocol = 3
)

// Listener is an address that a node has registered, for clients that ask another node
// where it is.
type Listener struct {
	Name     string
	Host     string
	Port     int32
	Security SecurityProtocol
}

// FeatureRange is which levels of a feature a node supports.
type FeatureRange struct {
	Name     string
	Min, Max int16
}

// Address returns the host and the port at which other nodes reach the broker; they
// are "" and 0 if it registered no listener.
func (b *Broker) Address() (host string, port int32) {
	if len(b.Listeners) == 0 {
		return "", 0
	}
	return b.Listeners[0].Host, b.Listeners[0].Port
}

// FindListener finds the listener of a name; nil: the broker has not registered it.
func (b *Broker) FindListener(name string) *Listener {
	for i := range b.Listeners {
		if b.Listeners[i].Name == name {
			return &b.Listeners[i]
		}
	}
	return nil
}

// AddressFor returns the host and the port of the listener of a name, or Address if there is none.
func (b *Broker) AddressFor(listener string) (host string, port int32) {
	if l := b.FindListener(listener); l != nil {
		return l.Host, l.Port
	}
	return b.Address()
}

// equal leaves out the generation, which only the next registration looks at.
func (b *Broker) equal(c *Broker) bool {
	return b.ID == c.ID && b.Epoch == c.Epoch && b.Incarnation == c.Incarnation && b.State == c.State && b.Rack == c.Rack && b.Directory == c.Directory && b.RecordedEpoch == c.RecordedEpoch && b.RaftID == c.RaftID &&
		slices.Equal(b.Listeners, c.Listeners) && slices.Equal(b.Features, c.Features)
}

// check returns what is wrong with a registration.
func (b *Broker) check() error {
	if b.ID < 0 {
		return fmt.Errorf("broker %d", b.ID)
	}
	if len(b.Listeners) > maxListeners || len(b.Features) > maxFeatures {
		return fmt.Errorf("broker %d with %d listeners and %d features", b.ID, len(b.Listeners), len(b.Features))
	}
	for _, l := range b.Listeners {
		if l.Port < 0 || l.Port > 65535 {
			return fmt.Errorf("broker %d on port %d", b.ID, l.Port)
		}
	}
	if b.Generation < 0 {
		return fmt.Errorf("broker %d has a directory of generation %d", b.ID, b.Generation)
	}
	for _, f := range b.Features {
		if f.Min > f.Max {
			return fmt.Errorf("broker %d supports levels %d to %d of %q", b.ID, f.Min, f.Max, f.Name)
		}
	}
	return nil
}
