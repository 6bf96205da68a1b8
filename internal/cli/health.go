package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/node"
)

// nodeHealth is the output of the health verb.
type nodeHealth struct {
	Node      int32  `json:"node,omitempty"` // 0: it was asked by its address, which does not tell
	Addresses string `json:"addresses"`      // separated by commas; one of them has answered
}

func (a *app) newHealth() *cobra.Command {
	cmd := &cobra.Command{
		Use: "health", Short: "Tell whether the node on this machine answers clients", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Ask the node on this machine, and no other one, whether it answers clients: for a check that restarts what does not.
What else is wrong, such as a full disk or a lost controller, is on its page /readyz and in "leat cluster".

It finds the node by --bootstrap, else by what its data directory says of its address (--data, LEAT_DATA or LEAT_CONFIG), else by
LEAT_BOOTSTRAP, else by the directory ./` + node.DefaultData + `. By a directory it is asked without a login, unless flags give one.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.checkHealth(cmd) },
	}
	return addDataFlag(a.addOutputFlag(a.addClientFlags(cmd)))
}

// checkHealth asks the node whose data directory is on this machine, or the one that --bootstrap names.
func (a *app) checkHealth(cmd *cobra.Command) error {
	health := nodeHealth{}
	namesDirectory := cmd.Flag("data").Changed || os.Getenv("LEAT_DATA") != "" || os.Getenv("LEAT_CONFIG") != ""
	if !cmd.Flag("bootstrap").Changed && (namesDirectory || os.Getenv("LEAT_BOOTSTRAP") == "") {
		if err := a.findHolder(cmd, &health); err != nil {
			return err
		}
	}
	health.Addresses = a.bootstrap
	show := func() error {
		return a.show(health, func() string {
			if health.Node == 0 {
				return fmt.Sprintf("the node on %s answers clients\n", health.Addresses)
			}
			return fmt.Sprintf("node %d answers clients on %s\n", health.Node, health.Addresses)
		})
	}
	err := a.withClient(cmd.Context(), func(context.Context, *kgo.Client) error { return show() }) // it has answered
	if by, _ := a.identity.readAccess(); errors.Is(err, errUnreachable) && by.mechanism == nil && a.answersVersions(cmd.Context(), &by) {
		return show() // it answers those who log in
	}
	return err
}

// findHolder has the app ask the node of the data directory on this machine, by what the directory says of it. Variables are for clients of a cluster,
// which may be another one; they count where the node needs TLS and its directory does not say whom to trust.
func (a *app) findHolder(cmd *cobra.Command, health *nodeHealth) error {
	dir, h, err := readHolder(cmd)
	if err != nil {
		return err
	}
	health.Node = h.NodeID
	if len(h.Addresses) > 0 {
		a.bootstrap = strings.Join(h.Addresses, ",")
	}
	byVariables := a.identity
	a.identity.dropVariables()
	secured, err := node.ReadSecured(dir)
	switch {
	case err == nil && secured != nil && a.identity.clientConfig == "" && a.identity.ca == "":
		a.identity.ca = secured.CA
	case secured == nil && (byVariables.tls || byVariables.ca != ""):
		by, err := a.identity.readAccess()
		if err == nil && !a.answersVersions(cmd.Context(), &by) {
			a.identity.tls, a.identity.ca = byVariables.tls, byVariables.ca
		}
	}
	return nil
}

// answersVersions tells whether a broker answers the first request of a client, which it does also where clients must log in.
func (a *app) answersVersions(ctx context.Context, by *access) bool {
	addrs, err := splitAddresses(a.bootstrap)
	return err == nil && slices.ContainsFunc(addrs, func(addr string) bool {
		conn, err := by.dial(ctx, addr)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }() // nothing depends on it
		if err := conn.SetDeadline(time.Now().Add(min(maxDial, orDefault(a.timeout)))); err != nil {
			return false
		}
		if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, kmsg.NewPtrApiVersionsRequest(), 1)); err != nil {
			return false
		}
		var head [8]byte // the length, and the number of the request
		_, err = io.ReadFull(conn, head[:])
		return err == nil && head[7] == 1
	})
}
