package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
)

// maxKeySet is how many bytes the keys of an issuer of tokens may have.
const maxKeySet = 1 << 20

// newOAuth makes OAUTHBEARER of a listener's settings.
func newOAuth(s *config.OAuthSettings) (*auth.OAuth, error) {
	fetch, err := fetcherOf(s.JWKS, s.CA)
	if err != nil {
		return nil, err
	}
	return auth.NewOAuth(auth.OAuthConfig{
		Fetch: fetch, Audience: s.Audience, Issuer: s.Issuer, SubClaim: s.SubClaim, ScopeClaim: s.ScopeClaim, GroupClaim: s.GroupClaim, ClockSkew: s.ClockSkew,
		Refresh: s.Refresh, RetryBackoff: s.RetryBackoff, MostRetrying: s.MostRetrying,
	})
}

// fetcherOf is a function that reads what is at a URL, which is https or of a file. The file of certificates is that of clientTrusting.
func fetcherOf(text, ca string) (func(ctx context.Context) ([]byte, error), error) {
	at, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: sasl.oauthbearer.jwks.endpoint.url is no URL", ErrConfig)
	}
	if at.Scheme == "file" {
		return func(context.Context) ([]byte, error) { return readKeyFile(at.Path) }, nil
	}
	if _, err := clientTrusting(ca); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return func(ctx context.Context) ([]byte, error) {
		cl, err := clientTrusting(ca)
		if err != nil {
			return nil, err
		}
		return readHTTPS(ctx, text, cl)
	}, nil
}

// clientTrusting is a client of HTTP for few requests, which trusts the certificates in a file, or those of the system if there is no name. The file is read each
// time, so that it can be replaced. The client keeps no connection.
func clientTrusting(ca string) (*http.Client, error) {
	t, _ := http.DefaultTransport.(*http.Transport)
	t = t.Clone()
	t.DisableKeepAlives = true
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("leat.sasl.oauthbearer.ca.location: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("leat.sasl.oauthbearer.ca.location: %s has no certificate in PEM form", ca)
		}
	}
	return &http.Client{Transport: t}, nil
}

// readHTTPS reads what is at an https URL. It follows redirections to https only.
func readHTTPS(ctx context.Context, at string, cl *http.Client) ([]byte, error) {
	cl.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		const most = 3
		if r.URL.Scheme != "https" || len(via) > most {
			return errors.New("it is redirected to another protocol than https, or too often")
		}
		return nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := cl.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", r.URL.Host, answer.Status)
	}
	return readBounded(answer.Body)
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxKeySet+1))
	if err == nil && len(b) > maxKeySet {
		err = fmt.Errorf("the keys have more than %d bytes", maxKeySet)
	}
	return b, err
}
