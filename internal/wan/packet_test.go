package wan

import (
	"encoding/binary"
	"testing"
)

// makeFrame makes a frame with a TCP packet.
func makeFrame(payload, segment int, flags byte, seq, ack uint32) []byte {
	f := make([]byte, virtioLen+leastIPv4+32+payload)
	if segment > 0 {
		f[1] = gsoTCP4
		binary.NativeEndian.PutUint16(f[4:], uint16(segment))
	}
	ip := f[virtioLen:]
	ip[0], ip[9] = 0x45, protocolTCP
	copy(ip[12:], []byte{10, 78, 0, 1, 10, 78, 0, 2})
	tcp := ip[leastIPv4:]
	binary.BigEndian.PutUint16(tcp, 1000)
	binary.BigEndian.PutUint16(tcp[2:], 9092)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13] = 32/4<<4, flags
	return f
}

// TestPacketsAreCountedAsOnTheWire proves that a frame which the kernel has not yet parted counts as the packets that it would be.
func TestPacketsAreCountedAsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		payload, segment int
		want             size
	}{
		{0, 0, size{1, 52}},
		{1448, 0, size{1, 1500}},
		{1448, 1448, size{1, 1500}},
		{1449, 1448, size{2, 1449 + 2*52}},
		{10 * 1448, 1448, size{10, 10 * 1500}},
		{60_000, 1448, size{42, 60_000 + 42*52}},
	} {
		f := makeFrame(c.payload, c.segment, tcpACK, 1, 2)
		if got := measure(f); got != c.want {
			t.Errorf("%d bytes in segments of %d: %v, not %v", c.payload, c.segment, got, c.want)
		}
		if last, ok := destination(f); !ok || last != 2 {
			t.Errorf("it is sent to %d, %v", last, ok)
		}
	}
	for _, f := range [][]byte{nil, make([]byte, virtioLen), make([]byte, 100)} { // the last one is of IP version 0
		if last, ok := destination(f); ok {
			t.Errorf("%d bytes are sent to %d", len(f), last)
		}
	}
}

// TestResetsAreOfTheConnection proves which sequence numbers a reset has, and that its checksums are right. The kernel takes them in TestResetEndsConnections.
func TestResetsAreOfTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		frame    []byte
		flags    byte
		seq, ack uint32
	}{
		"a SYN":           {makeFrame(0, 0, tcpSYN, 7, 0), tcpRST | tcpACK, 0, 8},
		"data":            {makeFrame(100, 0, tcpACK, 7, 99), tcpRST, 99, 0},
		"a FIN, no ACK":   {makeFrame(10, 0, tcpFIN, 7, 99), tcpRST | tcpACK, 0, 18},
		"the last number": {makeFrame(0, 0, tcpSYN, 1<<32-1, 0), tcpRST | tcpACK, 0, 0},
	} {
		r := makeReset(c.frame)
		if r == nil {
			t.Errorf("%s: no reset", name)
			continue
		}
		ip, tcp := r[virtioLen:], r[virtioLen+leastIPv4:]
		if tcp[13] != c.flags || binary.BigEndian.Uint32(tcp[4:]) != c.seq || binary.BigEndian.Uint32(tcp[8:]) != c.ack {
			t.Errorf("%s: % x", name, tcp)
		}
		if string(ip[12:20]) != string([]byte{10, 78, 0, 2, 10, 78, 0, 1}) || binary.BigEndian.Uint16(tcp) != 9092 || binary.BigEndian.Uint16(tcp[2:]) != 1000 {
			t.Errorf("%s is of another connection: % x", name, ip)
		}
		pseudo := sumWords(0, append(append([]byte(nil), ip[12:20]...), 0, protocolTCP, 0, leastTCP))
		if checksum(0, ip[:leastIPv4]) != 0 || checksum(pseudo, tcp) != 0 {
			t.Errorf("%s: a checksum is wrong: % x", name, ip)
		}
	}
	notTCP := makeFrame(10, 0, tcpACK, 1, 1)
	notTCP[virtioLen+9] = 17
	if makeReset(notTCP) != nil || makeReset(makeFrame(0, 0, tcpRST, 1, 1)) != nil {
		t.Error("what is no packet of a connection, or resets it, is answered")
	}
}

// FuzzFrame proves that no frame, however wrong, makes the router fail, and that no packet counts for nothing.
func FuzzFrame(f *testing.F) {
	f.Add(makeFrame(10_000, 1448, tcpACK, 1, 1))
	f.Add(makeFrame(0, 0, tcpSYN, 1, 1)[:virtioLen+leastIPv4])
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, ok := destination(frame); !ok {
			return
		}
		if z := measure(frame); z.packets < 1 || z.bytes < int64(len(frame)-virtioLen) {
			t.Errorf("%d bytes are %v", len(frame), z)
		}
		if r := makeReset(frame); r != nil && len(r) != virtioLen+leastIPv4+leastTCP {
			t.Errorf("a reset of %d bytes", len(r))
		}
	})
}
