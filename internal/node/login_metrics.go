package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/weblogin"
)

// loginMetrics are the metrics of logins, by listener and mechanism. None of them has the name of a user.
type loginMetrics struct{ logins, sessionsEnded, httpSessions *prometheus.Desc }

func newLoginMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) loginMetrics {
	return loginMetrics{
		logins: desc("logins_total", "Logins of clients, by listener (http: at the pages of HTTP, by BASIC, FORM or OIDC), SASL mechanism (\"\": the client has named none that there is) and result: success, again (a further one on the same connection) or failure.",
			"listener", "mechanism", "result"),
		sessionsEnded: desc("login_sessions_ended_total", "Connections that were closed since their client has not logged in again in time.", "listener", "mechanism"),
		httpSessions:  desc("http_sessions", "Sessions of browsers that have logged in at the pages of HTTP."),
	}
}

// collectLogins sends the metrics of logins, also of those at the pages of HTTP if there are any.
func (m *loginMetrics) collectLogins(logins []broker.LoginStats, pages *admin, out chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for i := range logins {
		l := &logins[i]
		count(m.logins, l.Succeeded, l.Listener, l.Mechanism, "success")
		count(m.logins, l.Repeated, l.Listener, l.Mechanism, "again")
		count(m.logins, l.Failed, l.Listener, l.Mechanism, "failure")
		count(m.sessionsEnded, l.Ended, l.Listener, l.Mechanism)
	}
	if pages != nil {
		m.collectHTTPLogins(pages.login.Load(), out)
	}
}

// collectHTTPLogins sends the metrics of logins at the pages of HTTP.
func (m *loginMetrics) collectHTTPLogins(l *weblogin.Login, out chan<- prometheus.Metric) {
	stats, open := l.Stats()
	for _, s := range stats {
		for result, n := range map[string]int64{"success": s.Succeeded, "failure": s.Failed} {
			out <- prometheus.MustNewConstMetric(m.logins, prometheus.CounterValue, float64(n), weblogin.Listener, string(s.Mechanism), result)
		}
	}
	if l.IsSecured() {
		out <- prometheus.MustNewConstMetric(m.httpSessions, prometheus.GaugeValue, float64(open))
	}
}
