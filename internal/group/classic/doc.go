// Package classic is the classic protocol of consumer groups: members join, one of them
// leads and computes the assignment, and the coordinator gives each member its part.
// Group is the state machine of one group; Host is shared by all groups of a machine.
//
//	         a member joins               all have joined,
//	Empty ------------------> Preparing ------------------> Completing
//	  ^                        |  ^  ^     or the time ends      |  |
//	  |    nobody has joined   |  |  |                           |  | the assignment
//	  +------------------------+  |  +---------------------------+  | is recorded
//	                              |     a member joins or leaves    v
//	                              +------------------------------ Stable
//
// A group only computes: it takes the time from a coord.Step, and puts records and
// answers into it. Its record has the last complete generation; a generation that is
// being formed is only in memory. The record is Kafka's own (GroupMetadataKey and
// GroupMetadataValue). The lock of the machine guards its groups.
package classic
