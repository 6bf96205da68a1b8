package wan

import "encoding/binary"

// A frame is what a TUN device with IFF_VNET_HDR reads and writes: a header of virtio, then an IP packet.
//
//	0  flags     what of the checksum is still to be computed
//	1  gso type  1: TCP over IPv4, in segments of which the last may be shorter
//	2  length of the headers of IP and TCP (2 bytes, of this machine's order, as are those below)
//	4  gso size  bytes of payload in each segment (2)
//	6  where the checksum begins, and where it is put (2, 2)
//
// The header that one device wrote is right for another one, since both ends are of one kernel. So the kernel hands over large segments, and
// checksums that nobody has computed, from one site to the other.
const (
	virtioLen   = 10
	maxPacket   = 65535 // bytes of IP
	leastIPv4   = 20    // bytes of the header
	leastTCP    = 20
	gsoTCP4     = 1
	gsoECN      = 0x80 // a flag of the type
	protocolTCP = 6
	tcpFIN      = 1
	tcpSYN      = 2
	tcpRST      = 4
	tcpACK      = 16
)

// destination is the last byte of the address to which a frame is sent; false: it is no IPv4 packet, such as when the kernel looks for neighbours.
func destination(frame []byte) (last byte, ok bool) {
	if len(frame) < virtioLen+leastIPv4 || frame[virtioLen]>>4 != 4 {
		return 0, false
	}
	return frame[virtioLen+19], true
}

// measure says how many packets a frame is, and how many bytes of IP they have.
func measure(frame []byte) size {
	whole := int64(len(frame) - virtioLen)
	segment := int64(binary.NativeEndian.Uint16(frame[4:]))
	_, headers, ok := findTCP(frame[virtioLen:])
	payload := whole - int64(headers)
	if frame[1]&^gsoECN != gsoTCP4 || segment == 0 || !ok || payload <= segment {
		return size{1, whole}
	}
	packets := (payload + segment - 1) / segment
	return size{packets, whole + (packets-1)*int64(headers)}
}

// findTCP finds the TCP header of an IPv4 packet, and where the payload begins; false: there is none.
func findTCP(packet []byte) (tcp []byte, headers int, ok bool) {
	begin := int(packet[0]&0xf) * 4
	if packet[9] != protocolTCP || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 || begin < leastIPv4 || len(packet) < begin+leastTCP {
		return nil, 0, false
	}
	tcp = packet[begin:]
	headers = begin + int(tcp[12]>>4)*4
	return tcp, headers, headers >= begin+leastTCP && headers <= len(packet)
}

// makeReset makes the frame that tells the sender of a frame that its connection is reset (RFC 9293, 3.10.7.1); nil: it is of no connection.
func makeReset(frame []byte) []byte {
	packet := frame[virtioLen:]
	tcp, headers, ok := findTCP(packet)
	if !ok || tcp[13]&tcpRST != 0 {
		return nil
	}
	answer := make([]byte, virtioLen+leastIPv4+leastTCP)
	ip := answer[virtioLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, protocolTCP
	binary.BigEndian.PutUint16(ip[2:], leastIPv4+leastTCP)
	copy(ip[12:], packet[16:20])
	copy(ip[16:], packet[12:16])
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:leastIPv4]))

	reset := ip[leastIPv4:]
	copy(reset, tcp[2:4])
	copy(reset[2:], tcp[:2])
	reset[12] = leastTCP / 4 << 4
	if tcp[13]&tcpACK != 0 {
		reset[13] = tcpRST
		copy(reset[4:], tcp[8:12]) // the sequence number that the sender waits for
	} else {
		reset[13] = tcpRST | tcpACK
		length := uint32(len(packet) - headers)
		for _, flag := range []byte{tcpSYN, tcpFIN} {
			if tcp[13]&flag != 0 {
				length++
			}
		}
		binary.BigEndian.PutUint32(reset[8:], binary.BigEndian.Uint32(tcp[4:])+length)
	}
	var pseudo [12]byte // RFC 9293, 3.1
	copy(pseudo[:], ip[12:20])
	pseudo[9], pseudo[11] = protocolTCP, leastTCP
	binary.BigEndian.PutUint16(reset[16:], checksum(sumWords(0, pseudo[:]), reset))
	return answer
}

// checksum is the Internet checksum (RFC 1071) of bytes, an even number of them, after a sum of others.
func checksum(sum uint32, b []byte) uint16 {
	sum = sumWords(sum, b)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func sumWords(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}
