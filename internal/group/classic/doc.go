// Package classic is the classic protocol of consumer groups: members join, one of them
// leads and computes who gets what, and the coordinator hands that out. Group is the
// state machine of one group; Host is what the groups of a machine share.
//
//	         a member joins               all have joined,
//	Empty ------------------> Preparing ------------------> Completing
//	  ^                        |  ^  ^     or the time ends      |  |
//	  |    nobody has joined   |  |  |                           |  | the assignment
//	  +------------------------+  |  +---------------------------+  | is recorded
//	                              |     a member joins or leaves    v
//	                              +------------------------------ Stable
//
// A group is pure: time comes with a coord.Step, records and answers go into it, and
// nothing that a record holds changes but by Apply. It is guarded by what guards its
// machine. The record is Kafka's own (GroupMetadataKey and GroupMetadataValue).
package classic
