package weblogin

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/leatstream/leat/internal/auth"
)

// style is all that a page has besides its text. It names nothing that a browser would load.
const style = `body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1c2733;background:#f3f5f7}
main{max-width:21rem;margin:12vh auto 0;padding:1.5rem 2rem 2rem;background:#fff;border:1px solid #d5dbe1;border-radius:6px}
h1{font-size:1.25rem;margin:0 0 1rem}label{display:block;margin:.75rem 0 .25rem}
input{font:inherit;width:100%;box-sizing:border-box;padding:.45rem .6rem;border:1px solid #8795a3;border-radius:4px}
button,.button{font:inherit;display:block;width:100%;box-sizing:border-box;margin-top:1.25rem;padding:.5rem;border:1px solid #14538f;border-radius:4px;background:#14538f;color:#fff;text-align:center;text-decoration:none;cursor:pointer}
.button{background:#fff;color:#14538f}.wrong{padding:.5rem .75rem;background:#fdecea;border:1px solid #b3261e;border-radius:4px}
:focus-visible{outline:3px solid #e6a100;outline-offset:2px}
@media(prefers-color-scheme:dark){body{color:#dde4ea;background:#12171c}main{background:#1c232a;border-color:#37424d}input{background:#12171c;color:inherit}.button{background:#1c232a;color:#8fc1f2;border-color:#8fc1f2}.wrong{background:#3b1512;border-color:#f2958c}}`

const pageText = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leat: {{if .User}}logged in{{else}}log in{{end}}</title>
<style>` + style + `</style>
</head>
<body>
<main>
<h1>Leat</h1>
{{with .Wrong}}<p class="wrong" role="alert">{{.}}</p>
{{end}}{{if .User}}<p>You are logged in as <strong>{{.User}}</strong>.</p>
<p><a href="{{.Next}}">Go on</a></p>
<form method="post" action="/logout">
<input type="hidden" name="token" value="{{.Token}}">
<button>Log out</button>
</form>
{{else}}<form method="post" action="/login">
<input type="hidden" name="token" value="{{.Token}}">
<input type="hidden" name="next" value="{{.Next}}">
<label for="user">User</label>
<input id="user" name="user" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Log in</button>
</form>
{{if .Issuer}}<a class="button" href="/login/oidc?next={{.Next}}">Log in with OIDC</a>
<p>You are sent to {{.Issuer}}.</p>
{{end}}{{end}}</main>
</body>
</html>
`

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pagePolicy lets the page have its own style, which its hash names, and forms of its own.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}()

// loginPage is what the page shows.
type loginPage struct {
	User   string // who is logged in; "": nobody
	Token  string // of the form
	Next   string // where a login leads
	Wrong  string // what has failed
	Issuer string // its host; "": there is none
}

func (p *loginPage) write(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = pageTemplate.Execute(w, p) // fails only if the client is gone
}

// showLogin shows the form of a login, or who is logged in.
func (l *Login) showLogin(w http.ResponseWriter, r *http.Request) {
	next := safeTarget(r.URL.Query().Get("next"))
	if v := l.findVisitor(r); v != nil {
		(&loginPage{User: v.name, Token: v.FormToken(), Next: next}).write(w, http.StatusOK)
		return
	}
	l.writeForm(w, r, next, "")
}

// writeForm writes the form of a login, perhaps after one that has failed.
func (l *Login) writeForm(w http.ResponseWriter, r *http.Request, next, wrong string) {
	id := l.cookie(r, formCookie)
	if b, err := base64.RawURLEncoding.DecodeString(id); err != nil || len(b) != idBytes {
		id = randomText()
		l.setCookie(w, r, formCookie, id)
	}
	p := loginPage{Token: l.tokenFor(id), Next: next, Wrong: wrong}
	if l.provider != nil {
		if u, err := url.Parse(l.cfg.OIDC.Issuer); err == nil {
			p.Issuer = u.Host
		}
	}
	status := http.StatusOK
	if wrong != "" {
		status = http.StatusForbidden
	}
	p.write(w, status)
}

// takePassword takes the form of a login.
func (l *Login) takePassword(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, mostFormBytes)
	if err := r.ParseForm(); err != nil {
		writeText(w, http.StatusBadRequest, "this is no form of a login")
		return
	}
	next := safeTarget(r.PostForm.Get("next"))
	if !l.isToken(r.PostForm.Get(tokenField), l.cookie(r, formCookie)) {
		l.writeForm(w, r, next, "The form was too old, or your browser takes no cookies. Try again.")
		return
	}
	name := r.PostForm.Get("user")
	mark, isRight := l.checkPassword(r, Form, name, r.PostForm.Get("password"))
	if !isRight {
		l.writeForm(w, r, next, "The user or the password is wrong.")
		return
	}
	l.beginSession(w, r, session{principal: auth.User(name), how: Form, mark: mark}, 0)
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// beginSession begins a session with a new id, and ends the one that the browser had, so that nobody knows the id from before the login.
func (l *Login) beginSession(w http.ResponseWriter, r *http.Request, s session, lifetime time.Duration) {
	l.sessions.end(l.cookie(r, sessionCookie))
	l.setCookie(w, r, sessionCookie, l.sessions.begin(s, lifetime, time.Now()))
	l.setCookie(w, r, formCookie, "")
}

// logOut ends the session.
func (l *Login) logOut(w http.ResponseWriter, r *http.Request) {
	if v := l.findVisitor(r); v != nil {
		if !l.checkToken(w, r, v) {
			return
		}
		l.sessions.end(v.session)
	}
	l.setCookie(w, r, sessionCookie, "")
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
