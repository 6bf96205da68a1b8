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
	Features    []FeatureRange // what this node's version supports
}

// BrokerState says what a registered node is used for:
//
//	registration -> fenced <-> active -> leaving
//	                  ^                     |
//	                  +---------------------+
type BrokerState uint8

// States of a broker.
const (
	// BrokerFenced is a node that has not caught up yet, or is not heard of any more:
	// it leads nothing and gets no replicas.
	BrokerFenced BrokerState = iota
	// BrokerActive is a node that serves.
	BrokerActive
	// BrokerLeaving is a node that shuts down: it serves, but gets no leadership.
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

// Listener is an address on which a node is reached where the asking client's own
// address for it is not ours.
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

// Address is where other nodes reach the broker; "" and 0: it registered no listener.
func (b *Broker) Address() (host string, port int32) {
	if len(b.Listeners) == 0 {
		return "", 0
	}
	return b.Listeners[0].Host, b.Listeners[0].Port
}

func (b *Broker) equal(c *Broker) bool {
	return b.ID == c.ID && b.Epoch == c.Epoch && b.Incarnation == c.Incarnation && b.State == c.State && b.Rack == c.Rack &&
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
	for _, f := range b.Features {
		if f.Min > f.Max {
			return fmt.Errorf("broker %d supports levels %d to %d of %q", b.ID, f.Min, f.Max, f.Name)
		}
	}
	return nil
}
