// Package tunnel carries the connections of links whose source cannot be dialled, since it is behind a NAT or a firewall. An Agent runs beside the source. It dials
// the nodes of the cluster that mirrors, on the port that clients use, proves itself by a token for its link, and dials the brokers of the source when a node asks for that.
//
// Hub is the node's side: it has the agents that are connected to this node, and dials by one of them (Hub.Dial). Agent is the other side, which dials all nodes, so that no node
// needs another one to reach the source. Reach says which brokers an agent dials: those that are named, and those that the source's own metadata name.
//
// # One connection
//
//	broker <--> agent: stream  == yamux ==  stream: node <--> client of the source
//	                     agentEnd -- requests and answers of Kafka's protocol (peer.AgentBytes) -- nodeEnd
//
// The agent proves itself by the handshake of package credential, as one of the kind KindAgent. After that all bytes go over one kind of request, so that a node's server has nothing to
// know of it. The first request has a hello and its answer another one, in JSON. The body of each other request has bytes of the agent, and its answer bytes of the node; either may have none. A node can only send when a
// request of the agent waits for its answer. So the agent sees to it that parkedRequests always do, and the node answers the oldest one when there are more, once it has read what came with it:
//
//	agent  -- request: bytes ----------->  node reads them; it answers the oldest request when it has bytes, or more than parkedRequests wait
//	       <- answer: bytes, or none ----
//
// At most mostRequests are not answered, of mostBytes each, which bounds what either end holds of the connection. The order of requests is that of the bytes.
//
// On these bytes yamux runs, with the node as its client: only nodes open streams. Each stream has a window of its own (streamWindow), so that one which is not read holds that much at most and stalls no other one.
// A ping each pingEvery finds an end that is dead while its system answers; a dead system is found by TCP (wire.WatchPeer).
//
// # Streams
//
//	nodes   'N' | length u32 | JSON: the nodes of the cluster, with the addresses at which an agent dials them; then the stream ends
//	dial    'D' | length u16 | host:port     answered by: outcome u8 | length u16 | text, and if the outcome is 0, all else is that of the connection to the broker
//
// # Concurrency
//
// All exported methods may be called by any goroutine. The mutexes of Hub, nodeEnd, agentEnd, Agent and Reach are leaves. Each goroutine ends with its connection, its Hub or its Agent.
package tunnel
