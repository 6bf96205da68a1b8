package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/cluster"
)

// madeCertificate is the output of the verb that makes a client's certificate.
type madeCertificate struct {
	Name   string    `json:"name"`
	User   string    `json:"user"` // the principal, as ACLs have it
	Serial string    `json:"serial"`
	Ends   time.Time `json:"ends"`
	File   string    `json:"file,omitempty"`
	PEM    string    `json:"pem,omitempty"` // with the private key, unless it is in the file
}

// newCertClient makes the verb that makes a client's certificate.
func (a *app) newCertClient() *cobra.Command {
	var file string
	var days int
	cmd := &cobra.Command{
		Use: "client NAME", Short: "Make a private key and a certificate for a client of a secured cluster", Args: cobra.ExactArgs(1), ValidArgsFunction: completeNothing,
		Long: `Make a private key and a certificate by which a client is the user CN=NAME on a listener with ssl.client.auth, and write both as PEM to the standard output,
or with --out to a new file that only its owner may read. The key is made here, and never sent. It is the client's ssl.keystore.location, with
ssl.keystore.type=PEM. A certificate cannot be revoked alone: deny its user with "leat acl grant --deny", or replace the authority with "leat cert rotate".
The node records in the audit log that it was made, with its serial and its end; a note says so if it could not.

` + holderHelp + ` It needs the node's sealing key.`,
		Example: `  leat cert client alice --out alice.pem
  leat acl grant CN=alice read topic 'orders-*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := findDirectory(cmd, os.Environ())
			if err != nil {
				return err
			}
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error {
				text, err := n.issueClient(ctx, dir, args[0], time.Duration(days)*24*time.Hour)
				if err != nil {
					return err
				}
				return a.showCertificate(ctx, n, args[0], file, text)
			})
		},
	}
	cmd.Flags().StringVar(&file, "out", "", "the new file to write to (default: the standard output)")
	cmd.Flags().IntVar(&days, "days", int(authority.ClientLife/(24*time.Hour)), "how many days it is valid")
	return addDataFlag(cmd)
}

// issueClient makes the key and the certificate, as PEM.
func (n *heldNode) issueClient(ctx context.Context, dir, name string, life time.Duration) ([]byte, error) {
	now, err := n.authority(ctx)
	if err != nil {
		return nil, err
	}
	ring, err := readSealingKey(dir)
	if err != nil {
		return nil, err
	}
	issuer, err := authority.Open(ring, n.Cluster.String(), now)
	if err != nil {
		return nil, err
	}
	text, err := issuer.IssueClient(name, life, time.Now())
	if err != nil {
		return nil, usagef("%v", err)
	}
	return text, nil
}

// showCertificate writes a client's key and certificate to a new file, if there is a name for it, else to the output, and has the node record it.
func (a *app) showCertificate(ctx context.Context, n *heldNode, name, file string, text []byte) error {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return err
	}
	subject := pair.Leaf.Subject.String()
	made := madeCertificate{Name: name, User: "User:" + subject, Serial: pair.Leaf.SerialNumber.Text(16), Ends: pair.Leaf.NotAfter.UTC(), File: file}
	if file == "" {
		made.PEM = string(text)
	} else if err := writeSecret(file, text); err != nil {
		return err
	}
	refused, err := n.admin.NoteCertificate(ctx, &cluster.IssuedCertificate{Name: subject, Serial: made.Serial, Ends: made.Ends})
	if err := explainCommand(refused, err); err != nil { // the certificate is as good as any other one
		a.writeNote("certificate "+made.Serial, fmt.Sprintf("the audit log does not have that it was made: %v", err))
	}
	return a.show(made, func() string {
		if file == "" {
			return made.PEM
		}
		return fmt.Sprintf("wrote the key and the certificate of %s to %s; it ends on %s\n", escapeLine(made.User), escapeLine(file), made.Ends.Format(time.DateOnly))
	})
}

// writeSecret writes a new file that only its owner may read.
func writeSecret(file string, text []byte) error {
	const onlyOwner = 0o600
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, onlyOwner)
	if errors.Is(err, fs.ErrExist) {
		return usagef("--out %s: there is such a file already, and a key is not written over another one: choose another name", file)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
