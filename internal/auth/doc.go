// Package auth answers two questions about a client: who are you (Mechanism, Exchange, Principal), and may you
// (Authorizer, Session). Its facts are the users and the ACLs of the metadata image.
//
// A Mechanism is one way to log in, with SASL. It starts an Exchange for each login, which goes step by step:
//
//	started --Step--> going on --Step--> ended with a Login, or with an error, which ends the connection
//
// An Authorizer decides by the rules of Kafka's StandardAuthorizer: a super user may do everything; for everybody else a
// matching ACL that denies comes before all that allow, and nothing is allowed that no ACL allows. ACLs match by the
// principal, a group that the client is in, or User:*, the host or *, and the resource: by its name, by *, or by a prefix of its name. Some operations that
// are allowed imply others.
//
// A Role is a set of operations that is granted as one ACL, to a user or to the users in a group, and stands for several ACLs.
//
// The rules of a principal are compiled when they are first needed, and again when its ACLs have changed. A Session remembers
// what its client was allowed, so that a request about a known resource costs one look-up (BenchmarkSession).
//
// Mechanisms and Authorizers may be used by any goroutine; an Exchange and a Session by one at a time.
package auth
