package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/mirror/tunnel"
)

// probeTime is for how long an address of a source may be silent before it is taken not to answer.
const probeTime = 5 * time.Second

// Answer says whether the source of a link answers now.
type Answer struct {
	Answers bool
	Text    string // why it is taken to answer, or not to: a sentence for people
}

// Probe finds out from this node whether anybody answers at one of a link's own addresses. Who answers and does not let the link in counts, too: that is a mistake to be mended, and no source that is gone. secrets are as EncodeSecrets
// makes them.
func (s *Service) Probe(ctx context.Context, l *meta.Link, secrets []byte) (Answer, error) {
	set, err := ParseSettings(l.Settings, secrets)
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	answers := make([]Answer, len(set.Brokers))
	var asking sync.WaitGroup
	for i, address := range set.Brokers {
		asking.Go(func() {
			one := *set
			one.Brokers = []string{address}
			if answers[i] = s.probe(ctx, l, &one); answers[i].Answers {
				cancel() // one is enough
			}
		})
	}
	asking.Wait()
	var silent []string
	for _, a := range answers {
		if a.Answers {
			return a, nil
		}
		silent = append(silent, a.Text)
	}
	return Answer{Text: strings.Join(silent, " ")}, nil
}

// probe asks at the one address of settings.
func (s *Service) probe(ctx context.Context, l *meta.Link, set *Settings) Answer {
	address := set.Brokers[0]
	cfg, err := set.sourceConfig(s.clientID())
	if err != nil {
		return Answer{Text: sentence(err)}
	}
	cfg.Dial = s.dialer(l, set)
	client, err := source.New(ctx, cfg)
	var cluster *source.Cluster
	if err == nil {
		defer client.Close()
		cluster, err = client.Describe(ctx, []string{})
	}
	switch {
	case errors.Is(err, tunnel.ErrNoAgent), errors.Is(err, errNoAgents):
		return Answer{true, "No agent of the link is connected to this node, so that nobody here can know whether the source is gone."}
	case err == nil && cluster.ID != l.Source:
		return Answer{true, fmt.Sprintf("At %s another cluster answers, %s, and not %s.", address, cluster.ID, l.Source)}
	case err == nil:
		return Answer{true, fmt.Sprintf("The source answers at %s.", address)}
	case isRefusal(err):
		return Answer{true, fmt.Sprintf("The source answers at %s, and does not let this link in: %s", address, sentence(err))}
	}
	return Answer{Text: fmt.Sprintf("Nobody answers at %s: %s", address, sentence(err))}
}

// isRefusal tells whether an error is the answer of somebody.
func isRefusal(err error) bool {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.Is(err, source.ErrOld) || source.IsLoginRefused(err) || source.IsDenied(err) || errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid)
}
