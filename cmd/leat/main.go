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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
