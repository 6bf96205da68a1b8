// Package cluster carries what the packages below have to say to other nodes, over package peer.
//
//	Quorum         is the quorum.Transport of this node, and serves the messages of other nodes' quorums
//	Controller     is the active controller, on whatever node it is: commands of this node, of others, and
//	               of administrators reach it, and requests of clients
//	Administrator  gives commands over a connection to any node
//	Transactions   carries markers of transactions, and questions to their coordinators, as requests of Kafka's protocol
//
// Each has two sides. One calls other nodes, by the Links of this one. The other one is a list of
// Handlers for its Door, which are served to those only who have proven themselves. What may wait there
// has a goroutine of its own (worker), so that the requests behind it on the connection are read.
//
// # Who is asked
//
// The messages of the quorum name members by raft's ids, which the metadata map to nodes. A node whose
// metadata are behind also remembers who has sent messages with which id (names).
//
// A command goes to the node that leads the quorum. One that is asked and does not lead says who does.
// An attempt that fails, or has no answer, is made again until the context of the caller ends, and one
// that waits for an answer is given up when another node leads. So a command may be decided twice. Each
// says what that does; none does harm:
//
//	RegisterBroker       a process has one registration, whose epoch is returned again
//	Heartbeat            is as one
//	AllocateProducerIDs  the block of the lost answer is given to nobody
//	EnsureTopics         a topic that is there is left as it is
//	AdmitNode            a key has one node id, which is returned again
//	MakeToken            a token that is there already, with the same keys, is the one that was made
//	RevokeToken, RemoveNode, Finalize   find it done
//	ChangeLinks          finds it done
//	AskPositions         finds the positions changed, and changes none again
//	SetAuthority         is made once: the second time it is that one already
//	NoteCertificate      is served by the node that is asked, and only recorded
//	Forward              a client's request is carried out twice, as in Kafka: the topic that it makes exists
//
// An answer names the entry of the metadata log that the controller's node has applied. Where the caller
// looks for the effect on the node that it has asked, the answer waits until that node has applied the
// entry, too.
//
// # What clients cause
//
// The messages that keep a cluster alive, which are those of the quorum, heartbeats, registrations and proposals
// for in-sync sets, wait for nothing that clients cause. Those commands (command.isForClients) and forwarded
// requests have a connection of their own (peer.Clients), and workers of their own; the controller gives its
// turn to the cluster's commands first. The asking node bounds what its clients cause: it asks for one block of
// producer ids at a time, and for one round of topics (topicWishes).
//
// # Who can be reached
//
// A node becomes active only when the active controller's node has reached it at the address that it has registered: see reaches.
//
// # Concurrency
//
// Any goroutine may call anything here. The mutexes are leaves: none is held while another one is
// taken, and no callback, wait or system call happens under one.
package cluster
