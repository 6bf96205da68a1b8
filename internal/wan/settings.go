package wan

import (
	"fmt"
	"time"
)

const (
	// leastQueue is how many bytes may at least wait for a rate if Settings.Queue does not say so.
	leastQueue = 64 << 10
	// defaultQueueTime is how long a packet may wait for a rate if Settings.Queue does not say so.
	defaultQueueTime = 100 * time.Millisecond
	// coarseRate is the rate from which on the largest packet of the kernel, of 64 KiB, is sent within a millisecond. So it need not be parted to be fair to others.
	coarseRate = 64 << 20
	// maxRate is the highest rate: with it, the time that any queue takes fits into an int64 of nanoseconds.
	maxRate = 1 << 40
	// maxQueue is the largest Settings.Queue.
	maxQueue = 1 << 32
)

// Settings says how packets get from one site to another, in this direction. The zero value is a path without fault that is as fast as the machine.
//
// The fallback carries the bytes of TCP connections in place of packets, so it can lose none: the fields say what it does instead.
type Settings struct {
	// Delay is how long each packet is under way. A round trip takes the delays of both directions.
	Delay time.Duration
	// Jitter is the most by which the delay of a packet is longer, at random and evenly spread. Packets keep their order.
	Jitter time.Duration
	// Loss is the share of the packets that are lost, from 0 to 1. Fallback: what TCP would send again comes later by the time that TCP takes to notice.
	Loss float64
	// Duplicate is the share of the packets that come twice. Fallback: none, since a reader of a connection sees no difference.
	Duplicate float64
	// Reorder is the share of the packets that are not delayed, and so overtake others. Fallback: none, as with Duplicate.
	Reorder float64
	// Rate is how many bytes of IP packets are carried in a second; 0: any number. It is shared by all connections between the two sites.
	Rate int64
	// Queue is how many bytes may wait for the rate; 0: those of 100 ms, at least 64 KiB. A packet that finds the queue full is lost. Fallback: the sender waits.
	Queue int64
	// Up and Down, both set, have the path work for Up and be cut for Down, in turns. It begins with Up when the settings are set.
	Up, Down time.Duration
	// Cut has all packets be lost that are sent from now on; those under way arrive. Fallback: bytes wait until the path works again, and so do new connections.
	Cut bool
	// Reset answers each packet of a TCP connection with a reset, to its sender. So connections are refused, and those that send something end.
	Reset bool
}

// validate says what is impossible in the settings.
func (s *Settings) validate() error {
	for name, share := range map[string]float64{"Loss": s.Loss, "Duplicate": s.Duplicate, "Reorder": s.Reorder} {
		if !(share >= 0 && share <= 1) { // also false for NaN
			return fmt.Errorf("%s is %v, which is no share from 0 to 1", name, share)
		}
	}
	switch {
	case s.Delay < 0 || s.Jitter < 0 || s.Up < 0 || s.Down < 0:
		return fmt.Errorf("a time is negative: delay %v, jitter %v, up %v, down %v", s.Delay, s.Jitter, s.Up, s.Down)
	case (s.Up == 0) != (s.Down == 0):
		return fmt.Errorf("a path that flaps has both times: up %v, down %v", s.Up, s.Down)
	case s.Rate < 0 || s.Rate > maxRate:
		return fmt.Errorf("the rate is %d: it has to be from 0 to %d", s.Rate, maxRate)
	case s.Queue < 0 || s.Queue > maxQueue:
		return fmt.Errorf("the queue is %d: it has to be from 0 to %d", s.Queue, maxQueue)
	}
	return nil
}

// sendingTime is how long the line sends so many bytes.
func (s *Settings) sendingTime(bytes int64) time.Duration {
	if s.Rate == 0 {
		return 0
	}
	return time.Duration(float64(bytes) * float64(time.Second) / float64(s.Rate))
}

// longestWait is how long a packet may wait for the rate, its own sending included.
func (s *Settings) longestWait() time.Duration {
	if s.Queue > 0 {
		return s.sendingTime(s.Queue)
	}
	return max(defaultQueueTime, s.sendingTime(leastQueue))
}

// needsSinglePackets tells whether the settings treat packets one by one, so that none may come as a part of a larger one.
func (s *Settings) needsSinglePackets() bool {
	return s.Loss > 0 || s.Duplicate > 0 || s.Reorder > 0 || s.Rate > 0 && s.Rate < coarseRate
}

// Counters counts what one direction did since the network was made. Always
// Packets + Duplicated = Delivered + Lost + Cut + Overflowed + Refused + UnderWay. The fallback counts pieces of a connection's bytes as packets, Lost those
// that came later instead, and Cut and Overflowed the waits of senders, so there Packets + Duplicated = Delivered + Refused + UnderWay.
type Counters struct {
	Packets, Bytes            int64 // of IP, that were sent into this direction
	Delivered, DeliveredBytes int64 // that arrived; a duplicate arrives too
	Lost                      int64 // packets, by Settings.Loss
	Cut                       int64 // packets, by Settings.Cut, or while a flapping path was down
	Overflowed                int64 // packets that found a queue full
	Refused                   int64 // packets that were answered with a reset
	Duplicated, Overtaking    int64 // packets
	UnderWay                  int64 // packets, now
	// Shortest and Longest are the least and the most time that a packet was under way since the settings were set, by the clock of the network;
	// 0: none has arrived. Packets that overtook others do not count.
	Shortest, Longest time.Duration
}
