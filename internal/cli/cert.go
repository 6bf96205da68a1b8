package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/sealing"
)

func (a *app) newCert() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("cert", "Show, make, renew and replace the certificates of a secured cluster",
		a.newCertCA(), a.newCertShow(), a.newCertClient(), a.newCertRenew(), a.newCertRotate(), a.newCertSealKey())))
}

// changedAuthority is the output of the verbs that change the certificate authority.
type changedAuthority struct {
	Number   uint32 `json:"number"`   // of the authority
	Round    uint32 `json:"round"`    // of the certificates
	Rotating bool   `json:"rotating"` // an older authority is trusted, too
}

// newCertCA makes the verb that prints the certificates to trust.
func (a *app) newCertCA() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Print the certificates that clients of a secured cluster trust, as PEM", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Print the certificates that clients are to trust, as PEM: that of the cluster's certificate authority, and while another one takes its place, both.
They are public. The verb reads them in the data directory of a node on this machine, which it finds by --data, LEAT_DATA or LEAT_CONFIG, else it
is ./` + node.DefaultData + `. The node need not run.`,
		Example: `  leat cert ca > ca.pem
  leat cert ca --data /var/lib/leat`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := findDirectory(cmd, os.Environ())
			if err != nil {
				return err
			}
			text, err := readTrusted(dir)
			if err != nil {
				return explainDirectory(cmd, dir, err)
			}
			return a.show(map[string]string{"pem": string(text)}, func() string { return string(text) })
		},
	}
	return addDataFlag(cmd)
}

// readTrusted reads the certificates to trust of the node of a directory.
func readTrusted(dir string) ([]byte, error) {
	info, err := node.ReadSecured(dir)
	switch {
	case err != nil:
		return nil, err
	case info == nil:
		if _, err := node.ReadHolder(dir); err != nil {
			return nil, err
		}
		return nil, node.ErrNotSecured
	}
	return readFile(info.CA)
}

// newCertRenew makes the verb by which all nodes make new certificates.
func (a *app) newCertRenew() *cobra.Command {
	cmd := &cobra.Command{
		Use: "renew", Short: "Have all nodes of a secured cluster replace their keys and certificates now", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Have all nodes replace their private keys and certificates now, without dropping a connection. Nodes do so by themselves a month before a
certificate ends, and when they get another name.

` + holderHelp,
		Example: `  leat cert renew
  leat cert renew --data /var/lib/leat`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changeAuthority(cmd, "all nodes replace their certificates within seconds: \"leat cert show\" shows them",
				func(_ *heldNode, now *meta.Authority) (meta.Authority, error) { return authority.Renew(now), nil })
		},
	}
	return addDataFlag(cmd)
}

// newCertRotate makes the verb that replaces the authority.
func (a *app) newCertRotate() *cobra.Command {
	var finishes bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the certificate authority of a secured cluster", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Replace the certificate authority by a new one, in two steps. First the new one is made, and all nodes get certificates of it within seconds, without
dropping a connection. The old one stays trusted, and has signed the new one, so clients that know either of them go on. Give all clients the certificates
that "leat cert ca" prints. Then --finish ends the trust in the old one: clients that know only that, and client certificates of it, are refused.

` + holderHelp + ` It needs the node's sealing key.`,
		Example: `  leat cert rotate
  leat cert ca > ca.pem
  leat cert rotate --finish`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if finishes {
				return a.changeAuthority(cmd, "only the new certificate authority is trusted from now on", func(_ *heldNode, now *meta.Authority) (meta.Authority, error) {
					if !authority.IsRotating(now) {
						return meta.Authority{}, errors.New("no other certificate authority is trusted: there is nothing to finish; \"leat cert rotate\" begins a change")
					}
					return authority.Finish(now), nil
				})
			}
			dir, err := findDirectory(cmd, os.Environ())
			if err != nil {
				return err
			}
			return a.changeAuthority(cmd, "there is a new certificate authority, and the old one is trusted beside it: give all clients what \"leat cert ca\" prints, then run \"leat cert rotate --finish\"",
				func(n *heldNode, now *meta.Authority) (meta.Authority, error) {
					ring, err := readSealingKey(dir)
					if err != nil {
						return meta.Authority{}, err
					}
					return authority.Rotate(ring, n.Cluster.String(), now, time.Now())
				})
		},
	}
	cmd.Flags().BoolVar(&finishes, "finish", false, "end the trust in the old certificate authority")
	return addDataFlag(cmd)
}

// readSealingKey reads the sealing key of the node of a directory.
func readSealingKey(dir string) (*sealing.Ring, error) {
	ring, err := node.ReadSealingKey(dir)
	if errors.Is(err, node.ErrConfig) {
		return nil, explainSettings(err)
	}
	return ring, err
}

// changeAuthority changes the certificate authority to what change makes of the present one.
func (a *app) changeAuthority(cmd *cobra.Command, done string, change func(n *heldNode, now *meta.Authority) (meta.Authority, error)) error {
	return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error {
		now, err := n.authority(ctx)
		if err != nil {
			return err
		}
		next, err := change(n, now)
		if errors.Is(err, authority.ErrRotating) {
			return errors.New("another certificate authority is taking the place of the old one already: \"leat cert rotate --finish\" ends that")
		}
		if err != nil {
			return err
		}
		if err := explainCommand(n.admin.SetAuthority(ctx, now, &next)); err != nil {
			return fmt.Errorf("changing the certificate authority: %w", err)
		}
		changed := changedAuthority{next.Number, next.Round, authority.IsRotating(&next)}
		return a.show(changed, func() string { return done + "\n" })
	})
}

// authority is the certificate authority of the cluster.
func (n *heldNode) authority(ctx context.Context) (*meta.Authority, error) {
	a, err := n.admin.Authority(ctx)
	if err := explainCommand(nil, err); err != nil {
		return nil, fmt.Errorf("asking for the certificate authority: %w", err)
	}
	if a == nil {
		return nil, node.ErrNotSecured
	}
	return a, nil
}
