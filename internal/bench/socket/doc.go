// Package socket is the connection of a load generator, made to cost little. On Linux
// a Socket is a blocking one, which a thread of its own serves, or one thread serves
// many (Watch); elsewhere Go's sockets serve. One goroutine may write while another
// one reads; each socket has at most one of both.
package socket
