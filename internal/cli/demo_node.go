package cli

import (
	"context"
	"log/slog"
	"net"
	"strconv"

	"github.com/leatstream/leat/internal/node"
)

// startLocalNode runs a node in this process, on the usual port where that is free.
func startLocalNode(ctx context.Context, o nodeOptions) (addr string, stop func() error, err error) {
	// What goes wrong comes back as an error; a log would run through the picture.
	n, err := node.Start(ctx, node.Config{
		Data: o.data, Listen: []string{demoAddress(ctx)}, HTTP: "off", Logger: slog.New(slog.DiscardHandler),
		// The group has one member: nobody else is worth waiting for.
		Settings: map[string]string{"group.initial.rebalance.delay.ms": "0"},
	})
	if err != nil {
		return "", nil, err
	}
	return n.Info().Addresses[0], func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return n.Stop(ctx)
	}, nil
}

// demoAddress is the usual port, or any where something listens there.
func demoAddress(ctx context.Context) string {
	usual := net.JoinHostPort("127.0.0.1", strconv.Itoa(node.DefaultPort))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", usual)
	if err != nil {
		return "127.0.0.1:0"
	}
	// A port that is not given back is found out by the node.
	_ = l.Close()
	return usual
}
