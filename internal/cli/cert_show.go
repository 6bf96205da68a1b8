package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// shownCertificate is the output for the certificate that a node shows.
type shownCertificate struct {
	Node     int32      `json:"node"`
	Address  string     `json:"address"`
	Names    []string   `json:"names"`
	Ends     *time.Time `json:"ends"`
	DaysLeft *int       `json:"daysLeft"` // below 0: it has ended
	Serial   string     `json:"serial,omitempty"`
	Problem  string     `json:"problem,omitempty"` // why clients do not trust it, or why nobody knows
}

// shownCertificates is the output of the verb.
type shownCertificates struct {
	Authorities []shownAuthority   `json:"authorities"`
	Nodes       []shownCertificate `json:"nodes"`
}

// shownAuthority is the output for a certificate that clients trust.
type shownAuthority struct {
	Subject  string    `json:"subject"`
	Ends     time.Time `json:"ends"`
	DaysLeft int       `json:"daysLeft"`
}

// newCertShow makes the verb that shows the certificates of all nodes.
func (a *app) newCertShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show the certificates of all nodes of a secured cluster, and the days left", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Show which certificate each node shows to its clients: its names, when it ends, and whether clients trust it that trust what "leat cert ca" prints.
Each node is asked at the address at which other nodes reach it.

` + holderHelp,
		Example: `  leat cert show
  leat cert show -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := findDirectory(cmd, os.Environ())
			if err != nil {
				return err
			}
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error {
				if _, err := n.authority(ctx); err != nil {
					return err
				}
				text, err := readTrusted(dir)
				if err != nil {
					return err
				}
				shown, err := n.lookAtCertificates(ctx, text, time.Now())
				if err != nil {
					return err
				}
				return a.show(shown, func() string { return tableCertificates(&shown) })
			})
		},
	}
	return addDataFlag(cmd)
}

// lookTime is how long a node may take to show its certificate.
const lookTime = 5 * time.Second

// lookAtCertificates connects to all nodes, and looks at what they show.
func (n *heldNode) lookAtCertificates(ctx context.Context, trusted []byte, now time.Time) (shown shownCertificates, err error) {
	roots := x509.NewCertPool()
	if shown.Authorities, err = listAuthorities(roots, trusted, now); err != nil {
		return shown, err
	}
	members := n.conn.Welcome().Members
	shown.Nodes = make([]shownCertificate, len(members))
	var looking sync.WaitGroup
	for i, m := range members {
		s := &shown.Nodes[i]
		s.Node = m.NodeID
		if len(m.Addresses) == 0 {
			s.Problem = "its address is not known"
			continue
		}
		if s.Address = m.Addresses[0]; strings.Contains(s.Address, "://") {
			_, s.Address, _ = strings.Cut(s.Address, "://")
		}
		looking.Go(func() { s.look(ctx, roots, now) })
	}
	looking.Wait()
	slices.SortFunc(shown.Nodes, func(a, b shownCertificate) int { return int(a.Node) - int(b.Node) })
	return shown, nil
}

// listAuthorities reads the certificates to trust, and adds them to roots.
func listAuthorities(roots *x509.CertPool, trusted []byte, now time.Time) (list []shownAuthority, err error) {
	certs, err := parseCertificates(trusted)
	for _, c := range certs {
		roots.AddCert(c)
		list = append(list, shownAuthority{c.Subject.CommonName, c.NotAfter.UTC(), daysUntil(c.NotAfter, now)})
	}
	return list, err
}

// parseCertificates reads the certificates of a text of PEM.
func parseCertificates(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// look connects to the node, and looks at its certificate.
func (s *shownCertificate) look(ctx context.Context, roots *x509.CertPool, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // nothing is sent; the certificate is verified below, so that it is shown also if it is not trusted
	conn, err := d.DialContext(ctx, "tcp", s.Address)
	if err != nil {
		if s.Problem = describeNetwork(err); errors.As(err, new(tls.RecordHeaderError)) {
			s.Problem = "it does not speak TLS"
		}
		return
	}
	state := conn.(*tls.Conn).ConnectionState() //nolint:forcetypeassert,errcheck // as documented
	_ = conn.Close()                            // nothing was sent
	leaf := state.PeerCertificates[0]
	s.Names = slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	s.Ends, s.DaysLeft, s.Serial = new(leaf.NotAfter.UTC()), new(daysUntil(leaf.NotAfter, now)), leaf.SerialNumber.Text(16)
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	host, _, _ := net.SplitHostPort(s.Address) // it was dialled
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, CurrentTime: now}); err != nil {
		s.Problem = oneLine(err)
	}
}

// daysUntil is how many whole days are left; below 0: it is over.
func daysUntil(end, now time.Time) int { return int(math.Floor(end.Sub(now).Hours() / 24)) }

func tableCertificates(shown *shownCertificates) string {
	t := columns{head: []string{">NODE", "ADDRESS", ">DAYS LEFT", "ENDS", "STATE", "NAMES"}}
	for i := range shown.Nodes {
		s := &shown.Nodes[i]
		days, ends, state := "-", "-", "trusted"
		if s.Ends != nil {
			days, ends = fmt.Sprint(*s.DaysLeft), s.Ends.Format(time.DateOnly)
		}
		if s.Problem != "" {
			state = s.Problem
		}
		t.addRow(fmt.Sprint(s.Node), s.Address, days, ends, state, strings.Join(s.Names, " "))
	}
	var text strings.Builder
	text.WriteString(t.String())
	for _, a := range shown.Authorities {
		_, _ = fmt.Fprintf(&text, "\n%s is trusted, and ends on %s (%s left)\n", escapeLine(a.Subject), a.Ends.Format(time.DateOnly), formatCount(a.DaysLeft, "day"))
	}
	return text.String()
}
