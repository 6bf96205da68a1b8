// Package wan emulates wide area networks, for tests and measurements. A Network has sites, and between each two of them a path in each direction, whose Settings
// (delay, jitter, loss, rate, cuts, flapping) can be changed while it is used, and whose Counters are exact. Processes run in a Site, and the test
// listens and dials there. The package is for tests and tools only.
//
// # Namespaces
//
// Each site is a network namespace of Linux. Its only device is a TUN device whose other end is this process: the router reads every packet that leaves a
// site, decides about it, and writes it to the device of the site that it is for. So everything between two sites is that of the kernel (windows, retransmissions, congestion
// control), and nothing needs to be asked of the traffic control of the kernel, which not every kernel has.
//
//	site A: process -> TCP -> device -> carry -> path A-B: line -> device -> TCP -> process: site B
//
// The namespaces have no names, and all devices and namespaces end with the process that made them, however it ends. So networks of different tests do not meet, though their
// sites have the same addresses (10.78.0.1 and on) and devices (leat-wan-0 and on), and nothing is left behind.
//
// Unless some path from a site treats packets one by one (loss, duplicates, reordering, a rate below 64 MiB a second), the kernel hands over up to 64 KiB of a connection as one packet with its checksum still
// to be computed, since most of the costs are those of a packet, however large it is (BenchmarkStream). Counters tell the packets of the MTU that these are.
//
// # Proxies
//
// Where there are no namespaces, each site is an address of 127.0.0.0/8, and connections between sites go through links: pairs of connections whose bytes are carried
// by the same paths. It has no packets to lose, so Settings says what is done in their place. What the kernel does between two ends of a connection is not seen then, above all
// its congestion control. In-process clients use Site.Dial; processes have to be given the addresses of Site.Reach.
//
// # Cutting single nodes
//
// A site is what can be cut off. Nodes that share a rate and a cut are in one site, on ports of its address; a node that is to be cut from its neighbours is a site of its own, as
// all are in the chaos tests of cmd/leat.
//
// # Locks
//
// A path has a mutex, under which nothing waits. The mutexes of proxies and pumps are taken before it, never after.
package wan
