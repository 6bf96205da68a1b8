// Command leat is a stream platform that speaks Kafka's protocol, and its tools.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/leatstream/leat/internal/cli"
)

func main() {
	// A write to a pipe that nobody reads any more fails, and the verb ends in its own way. By default the signal would
	// end the process in the middle of something.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(cli.Main(contextUntilSignal(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// contextUntilSignal makes a context that ends at Ctrl-C, at SIGTERM, and at the SIGHUP of a terminal that is closed.
// A second Ctrl-C or SIGTERM ends the process at once. A second SIGHUP does nothing, since shell and terminal may
// each send one. Under nohup SIGHUP does nothing at all.
func contextUntilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	came := make(chan os.Signal, 1)
	signal.Notify(came, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(came, syscall.SIGHUP)
	}
	go func() {
		<-came
		signal.Ignore(syscall.SIGHUP)
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		cancel()
	}()
	return ctx
}
