// Package cluster carries what the packages below have to say to other nodes, over package peer.
//
// Quorum is the quorum.Transport of a node, and serves the messages of other nodes' quorums.
//
// Each type has two sides. One calls other nodes, by the Links of this one. The other one is a list of
// Handlers for its Door, which are served to proven nodes only. What may wait there has a goroutine of its
// own (worker), so that the requests behind it on the connection are read.
//
// Any goroutine may call anything here. The mutexes are leaves: none is held while another one is
// taken, and no callback, wait or system call happens under one.
package cluster
