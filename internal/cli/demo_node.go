package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"

	"github.com/leatstream/leat/internal/node"
)

// startLocalNode runs a node in this process, on the usual port if that is free.
func startLocalNode(ctx context.Context, o nodeOptions) (addr string, stop func() error, err error) {
	listen, err := demoAddress(ctx, o.port)
	if err != nil {
		return "", nil, err
	}
	// The log is discarded, because it would disturb the picture. A failure to start is returned.
	n, err := node.Start(ctx, node.Config{
		Data: o.data, Listen: []string{listen}, HTTP: "off", Logger: slog.New(slog.DiscardHandler),
		// The group has one member, so it need not wait for others.
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

// demoAddress is the address with the port that the user asked for. Otherwise it has the usual port,
// or any free one if something listens there.
func demoAddress(ctx context.Context, port int) (string, error) {
	asked := port != 0
	if !asked {
		port = node.DefaultPort
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		// If the port stays taken nevertheless, the node fails to listen and says so.
		_ = l.Close()
		return addr, nil
	case asked && errors.Is(err, syscall.EADDRINUSE):
		return "", fmt.Errorf("port %d is taken by another program: name another with --port", port)
	case asked:
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno // without the names of Go's operations
		}
		return "", fmt.Errorf("port %d cannot be used (%w): name another with --port", port, err)
	default:
		return "127.0.0.1:0", nil
	}
}
