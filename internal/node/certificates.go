package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/vfs"
)

// lookAtNames is how often a node looks at the addresses of its machine, and tries again to make a certificate that it could not make.
const lookAtNames = time.Minute

// certificates keep the certificate of a secured node, which the cluster's authority signs, in its file, and the certificates to trust. Whoever reads these
// files sees the old or the new ones: encryption does, and gives new connections the new ones. The goroutine of the start owns it, and then the one that
// watches the files.
type certificates struct {
	fs       vfs.FS
	dir      string
	secured  *secured
	cluster  string
	node     int32
	hosts    []string // the names and addresses of the node, without those of its machine's interfaces
	isOpen   bool     // it listens on all addresses of its machine
	log      *slog.Logger
	networks func() ([]net.Addr, error) // the addresses of the machine's interfaces

	trusted *meta.Authority   // whose certificates trustedFile has; nil: that is not known
	leaf    *x509.Certificate // that of certificateFile; nil: there is none that can be read
	looked  time.Time         // when names, or a failed attempt, were looked at
	failed  string            // why the last attempt failed; "": it has not
}

func (c *certificates) readLeaf() {
	c.leaf = nil
	b, err := readFile(c.fs, path.Join(c.dir, certificateFile))
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.X509KeyPair(b, b); err == nil {
			c.leaf = pair.Leaf
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("the certificate of this node cannot be read: another one is made", "file", certificateFile, "err", err)
	}
}

// names are those that the certificate is to have.
func (c *certificates) names() authority.Names {
	hosts := c.hosts
	if addrs, err := c.networks(); err == nil && c.isOpen {
		hosts = slices.Clip(hosts)
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && (n.IP.IsGlobalUnicast() || n.IP.IsLoopback()) {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	return authority.MakeNames(hosts...)
}

// keep makes the certificate anew when it is time for it. It says once what does not work, and tries it again. A nil c does nothing.
func (c *certificates) keep(a *meta.Authority, now time.Time) {
	if c == nil || a == nil || a == c.trusted && now.Sub(c.looked) < lookAtNames && !now.Before(c.looked) {
		return
	}
	before := c.failed
	err := c.refresh(a, now)
	switch {
	case err == nil:
		c.failed = ""
	case err.Error() != before:
		c.failed = err.Error()
		c.log.Warn("the certificate of this node should be made anew, and could not: the old one stays in use; it is tried again each minute", "err", err)
	}
}

// refresh brings both files up to date. Certificates to trust come first, since other nodes may show what they sign already.
func (c *certificates) refresh(a *meta.Authority, now time.Time) error {
	c.looked = now
	if a != c.trusted {
		if err := c.writeTrusted(a); err != nil {
			return err
		}
		c.trusted = a
	}
	names := c.names()
	why := "there is none"
	if c.leaf != nil {
		why = authority.FindRenewal(c.leaf, a, &names, now)
	}
	if why == "" {
		return nil
	}
	ring, err := c.secured.readRing(c.fs)
	if err != nil {
		return err
	}
	issuer, err := authority.Open(ring, c.cluster, a)
	if err != nil {
		return err
	}
	text, err := issuer.IssueNode(c.node, names, now)
	if err != nil {
		return err
	}
	if err := writeFile(c.fs, path.Join(c.dir, certificateFile), text, vfs.Secret); err != nil {
		return fmt.Errorf("%s: %w", certificateFile, err)
	}
	if err := c.fs.SyncDir(c.dir); err != nil {
		return fmt.Errorf("%s: %w", certificateFile, err)
	}
	if c.readLeaf(); c.leaf == nil {
		return fmt.Errorf("%s cannot be read after it was written", certificateFile)
	}
	c.log.Info("a certificate was made for this node", "why", why, "ends", c.leaf.NotAfter, "serial", c.leaf.SerialNumber.Text(16), "names", c.leaf.DNSNames, "addresses", fmt.Sprint(c.leaf.IPAddresses))
	return nil
}

// writeTrusted writes the certificates to trust, if the file has others.
func (c *certificates) writeTrusted(a *meta.Authority) error {
	name, text := path.Join(c.dir, trustedFile), authority.Bundle(a)
	if b, err := readFile(c.fs, name); err == nil && string(b) == string(text) {
		return nil
	}
	if err := writeFile(c.fs, name, text, vfs.Fresh); err != nil {
		return fmt.Errorf("%s: %w", trustedFile, err)
	}
	return nil
}
