package broker

import (
	"fmt"

	"github.com/leatstream/leat/internal/auth"
)

// logInByCertificate has the client be whom its certificate names, on a listener with TLS that asks for no other login. A client
// without a certificate stays anonymous. If no rule makes a name of the certificate, the connection ends, as in Kafka.
func (s *session) logInByCertificate() {
	state := s.conn.TLS()
	if state == nil || s.conn.AsksForLogin() || len(state.PeerCertificates) == 0 {
		return
	}
	subject, err := auth.FormatSubject(state.PeerCertificates[0].RawSubject)
	if err == nil && s.b.cfg.NameRules != nil {
		subject, err = s.b.cfg.NameRules(s.conn.ListenerName()).Map(subject)
	}
	if err == nil && subject == "" {
		err = auth.ErrNoRule
	}
	if err != nil {
		s.audit.noteLogin("certificate", false, subject, err)
		s.conn.Close(fmt.Errorf("the certificate of the client names no user: %w", err))
		return
	}
	s.logIn(auth.User(subject))
	s.audit.noteLogin("certificate", false, "", nil)
}
