package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

func showAuthority(c *Controller) *command[none, *meta.Authority] {
	return &command[none, *meta.Authority]{
		key: peer.AuthorityShow, from: peer.Nodes | peer.Administrators,
		decide: func(context.Context, *none, bool) (*meta.Authority, *controller.Error, error) {
			return c.cfg.Image().Authority(), nil, nil
		},
	}
}

// authorityChange asks for a change of the certificate authority. The keys in it are sealed.
type authorityChange struct {
	Before *meta.Authority `json:"before"` // nil: there was none
	Next   *meta.Authority `json:"next"`
}

func setAuthority(c *Controller) *command[authorityChange, none] {
	return &command[authorityChange, none]{
		key: peer.AuthoritySet, from: peer.Nodes | peer.Administrators, isShown: true,
		check: func(_ *peer.Identity, q *authorityChange) error {
			if q.Next == nil {
				return fmt.Errorf("%w: it has no certificate authority", errRequest)
			}
			return nil
		},
		about: describeChange,
		decide: func(ctx context.Context, q *authorityChange, _ bool) (a none, refused *controller.Error, err error) {
			refused, err = controller.SetAuthority(ctx, c.cfg.Local, q.Before, q.Next)
			return a, refused, err
		},
	}
}

// SetAuthority has the active controller replace the certificate authority, if it is still that of before.
func SetAuthority(ctx context.Context, c *Controller, before, next *meta.Authority) (refused *controller.Error, err error) {
	_, refused, err = setAuthority(c).run(ctx, c, &authorityChange{before, next})
	return refused, err
}

// The changes of the certificate authority, as Given.About has them, before a space and the number of the authority.
const (
	AuthorityBegun    = "begun"    // another one takes the place of the one before, which is still trusted
	AuthorityFinished = "finished" // the one before is no longer trusted
	NodesRenewed      = "renewed"  // it stays, and all nodes replace their certificates
)

// describeChange says what kind of change it is.
func describeChange(q *authorityChange) string {
	what := NodesRenewed
	switch {
	case q.Before == nil || q.Next.Number != q.Before.Number:
		what = AuthorityBegun
	case len(q.Next.Certificates) < len(q.Before.Certificates):
		what = AuthorityFinished
	}
	return fmt.Sprintf("%s %d", what, q.Next.Number)
}

// IssuedCertificate is a certificate that the holder of a sealing key has made for a client.
type IssuedCertificate struct {
	Name   string    `json:"name"` // of its subject, as ACLs have it
	Serial string    `json:"serial"`
	Ends   time.Time `json:"ends"`
}

// noteCertificate only has the certificate be recorded: it is made where the sealing key is, by a verb, and no node need know of it.
func noteCertificate() *command[IssuedCertificate, none] {
	return &command[IssuedCertificate, none]{
		key: peer.CertificateNote, from: peer.Administrators, isLocal: true,
		about: func(i *IssuedCertificate) string {
			return fmt.Sprintf("%s %s %s", i.Serial, i.Ends.UTC().Format(time.RFC3339), i.Name)
		},
		decide: func(context.Context, *IssuedCertificate, bool) (a none, refused *controller.Error, err error) {
			return a, nil, nil
		},
	}
}

// NoteCertificate has the node at the other end of the connection record that a client's certificate was made.
func (a Administrator) NoteCertificate(ctx context.Context, i *IssuedCertificate) (refused *controller.Error, err error) {
	return askAny(ctx, a.Conn, noteCertificate(), i)
}
