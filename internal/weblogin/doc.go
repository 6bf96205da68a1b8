// Package weblogin decides who sees a page of HTTP: who are you, by HTTP Basic or by a session, and may you, by the ACLs and roles of the cluster.
//
// A Login is the one door of all pages. It admits a Visitor to a page, which names the Right that it needs, and serves the pages by which browsers log
// in and out:
//
//	GET  /login                 the form, or who is logged in
//	POST /login                 a user and a password
//	GET  /login/oidc            sends the browser to the issuer of OpenID Connect
//	GET  /login/oidc/callback   where the issuer sends it back
//	POST /logout                ends the session
//
// A session is kept in the memory of this node, under a hash of the random id that the browser has in a cookie:
//
//	login --> open --a request, each time--> open
//	           '--idle, too old, token over, password changed, user deleted, logged out, too many--> gone
//
// A restart ends all sessions, and no other node knows them. A login by OpenID Connect is kept by the browser alone until it comes back, sealed by a key of
// this process, so that visitors who only begin logins take no memory.
//
// Every change by a session needs a form token, which is made of the session's id, and no change is taken from a page of another origin.
//
// Any goroutine may use a Login. sessions.mu and logins.mu are never held together, and nothing waits under them.
package weblogin
