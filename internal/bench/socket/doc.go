// Package socket is the connection of a load generator, which must cost little. On Linux a
// Socket is a blocking one; a thread serves one Socket, or many with Watch. On other systems
// it is a connection of package net. A Socket has at most one goroutine that reads and one
// that writes, at the same time; any goroutine may call Shutdown.
package socket
