package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
	"github.com/leatstream/leat/internal/vfs"
)

// securedVersion is the version of securedFile.
const securedVersion = "1"

// defaultSuperUser is the first user of a secured cluster, unless another one is named.
const defaultSuperUser = "admin"

// secured is what a node keeps of how it is secured. A secured node has only listeners that encrypt, but for those of the loopback addresses; clients
// log in; ACLs decide; the pages of HTTP ask for a login; and the cluster's own authority makes its certificates. It is secured at its first start,
// and for good. The steps of that start:
//
//	the sealing key is durable
//	--> node.secured is durable: from here on the node is secured, whatever its next start is told
//	--> the identity --> the authority in the metadata --> first-login.properties --> the first user --> the certificate --> it serves
//
// The next start after a kill does what is missing, and nobody is served before the last step. A node that joins a secured cluster is given
// the sealing key, and goes the same way, without the authority and the user, which are there.
type secured struct {
	// changed are the ids of the keys since sealingKeys has changed them; nil: keyID is the one, and none is to take its place.
	changed atomic.Pointer[keyIDs]

	keyFile string     // the sealing key's, with its whole path
	keyID   sealing.ID // of the key that it had: another file is not taken for it
	super   string     // the super user
	// whileRunning tells that the node was plain, and is secured while it runs, or was: the metadata say how far that is. See securing.
	whileRunning bool
}

// keyIDs are the ids of sealing keys.
type keyIDs struct {
	now  sealing.ID // of the key that the node must have
	next sealing.ID // of the key that is to take its place; zero: none is
}

// keys are the ids of the node's sealing keys.
func (s *secured) keys() keyIDs {
	if c := s.changed.Load(); c != nil {
		return *c
	}
	return keyIDs{now: s.keyID}
}

// nextKeyLine begins the line of securedFile with the id of the key that is to take the place of the one that seals. Earlier versions read past it.
const nextKeyLine = "sealing.key.next"

// plainName is a user's name that needs no quotes in any file.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,100}$`)

// whileRunningLine names the line of securedFile that says so.
const whileRunningLine = "while.running"

// encode is the text of securedFile.
func (s *secured) encode() []byte {
	text := fmt.Appendf(nil, "# This node is secured: see docs/security.md. Without this file it does not start.\nversion=%s\nsealing.key.file=%s\nsealing.key.id=%v\nsuper.user=%s\n",
		securedVersion, s.keyFile, s.keyID, s.super)
	if s.whileRunning {
		text = append(text, whileRunningLine+"=true\n"...)
	}
	return text
}

// readSecured reads how the node of a directory is secured; nil: it is not.
func readSecured(fsys vfs.FS, dir string) (*secured, error) {
	b, err := readFile(fsys, path.Join(dir, securedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if _, unlisted := fsys.ReadDir(dir); unlisted != nil {
		return nil, nil //nolint:nilerr // lockDirectory says why the directory cannot be used
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %s: %w", ErrDirectory, dir, securedFile, err)
	}
	s, err := parseSecured(b)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %s %w; restore it from a backup", ErrDirectory, dir, securedFile, err)
	}
	return s, nil
}

func parseSecured(b []byte) (*secured, error) {
	values := map[string]string{}
	for line := range bytes.Lines(b) {
		if name, value, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), "="); ok && !strings.HasPrefix(name, "#") {
			values[name] = value
		}
	}
	if v := values["version"]; v != securedVersion {
		return nil, fmt.Errorf("has version %q, and this leat reads %s: it is damaged, or a newer leat wrote it", v, securedVersion)
	}
	id, err := sealing.ParseID(values["sealing.key.id"])
	s := &secured{keyFile: values["sealing.key.file"], keyID: id, super: values["super.user"], whileRunning: values[whileRunningLine] == "true"}
	if err != nil || s.keyFile == "" || s.super == "" {
		return nil, errors.New("is damaged")
	}
	if text, ok := values[nextKeyLine]; ok {
		next, err := sealing.ParseID(text)
		if err != nil {
			return nil, errors.New("is damaged")
		}
		s.changed.Store(&keyIDs{now: id, next: next})
	}
	return s, nil
}

// write writes securedFile, and makes it durable.
func (s *secured) write(fsys vfs.FS, dir string) error {
	text := s.encode()
	if next := s.keys().next; next != (sealing.ID{}) {
		text = fmt.Appendf(text, "%s=%v\n", nextKeyLine, next)
	}
	err := writeFile(fsys, path.Join(dir, securedFile), text, vfs.Secret)
	if err == nil {
		err = syncIdentity(fsys, dir)
	}
	if err != nil {
		return fmt.Errorf("%w %s: cannot write to it: %w", ErrDirectory, dir, err)
	}
	return nil
}

// readRing reads the sealing key, and refuses another one than the node had.
func (s *secured) readRing(fsys vfs.FS) (*sealing.Ring, error) {
	ring, err := readRing(fsys, s.keyFile)
	now := s.keys().now // after the file: it is written first when a key is to be needed, and last when one is no longer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: the sealing key of this secured node is not in %s: restore the file from its backup, or copy it from another node of the cluster, or say where it is with --sealing-key FILE; nothing was changed",
			ErrConfig, s.keyFile)
	case err != nil:
		return nil, fmt.Errorf("%w: sealing key %s: %w", ErrConfig, s.keyFile, err)
	case !ring.Has(now):
		return nil, fmt.Errorf("%w: %s is the sealing key of another cluster, or lacks one of its lines: it has %v, and this node needs %v; restore the file from its backup, or copy it from another node of the cluster; nothing was changed",
			ErrConfig, s.keyFile, ring.IDs(), now)
	}
	return ring, nil
}

// readRing reads a file of sealing keys.
func readRing(fsys vfs.FS, file string) (*sealing.Ring, error) {
	b, err := readFile(fsys, file)
	if err != nil {
		return nil, err
	}
	return sealing.ParseRing(b)
}

// prepareRing reads a file of sealing keys, or makes it if it is not there. An existing file is never changed: it may be the only copy. When it
// returns the file is durable.
func prepareRing(fsys vfs.FS, file string, create func() *sealing.Ring) (*sealing.Ring, error) {
	ring, err := readRing(fsys, file)
	isNew := errors.Is(err, fs.ErrNotExist)
	if isNew {
		ring = create()
		if err = fsys.MkdirAll(path.Dir(file)); err == nil {
			err = writeFile(fsys, file, ring.Encode(), vfs.Secret)
		}
	}
	if err == nil { // also one that a start has made which was killed then; a file that the system mounts cannot be synced everywhere
		if err = syncIdentity(fsys, path.Dir(file)); !isNew {
			err = nil
		}
	}
	if err != nil {
		return nil, keyFileError(file, err)
	}
	return ring, nil
}

// keyFileError says that a file of sealing keys cannot be read or written, and what can be done about it.
func keyFileError(file string, err error) error {
	return fmt.Errorf("%w: sealing key %s: %w; name a file outside the data directory, in a directory to which the node may write, with --sealing-key FILE (LEAT_SEALING_KEY), and start the node with it", ErrConfig, file, err)
}

// checkKeyFile refuses a file of sealing keys that cannot be read, or cannot be made where there is none. It leaves nothing but the directory.
func checkKeyFile(fsys vfs.FS, file string) error {
	_, err := readRing(fsys, file)
	if errors.Is(err, fs.ErrNotExist) {
		tried := file + ".try"
		var f vfs.File
		if err = fsys.MkdirAll(path.Dir(file)); err == nil {
			f, err = fsys.Open(tried, vfs.Secret)
		}
		if err == nil {
			err = errors.Join(f.Close(), fsys.Remove(tried))
		}
	}
	if err != nil {
		return keyFileError(file, err)
	}
	return nil
}

// checkKeyOfJoiner refuses a node that is to join, and could not keep the sealing key, before the cluster is asked to admit it: an admission stays. It is
// not asked of a node that may join a cluster which is not secured.
func checkKeyOfJoiner(n *Node) error {
	token, err := credential.ParseToken(n.cfg.Token)
	isEncrypted := n.addresses.protected[n.addresses.names[0]].UsesTLS()
	needsKey := n.cfg.Secure || n.cfg.SealingKey != "" || err == nil && token.NeedsTLS() && !isEncrypted // or it is refused all the same
	if _, known := readFile(n.fs, path.Join(n.cfg.Data, identityFile)); !needsKey || known == nil || len(n.cfg.Join) == 0 || n.secured != nil {
		return nil
	}
	file, err := keyFileOf(&n.cfg)
	if err != nil {
		return err
	}
	return checkKeyFile(n.fs, file)
}

// keyFileOf is the file of the sealing key of a node that is secured now for the first time.
func keyFileOf(c *Config) (string, error) {
	file, err := filepath.Abs(cmp.Or(filepath.FromSlash(c.SealingKey), filepath.FromSlash(c.Data)+".key"))
	if err != nil {
		return "", fmt.Errorf("%w: sealing key: %w", ErrConfig, err)
	}
	file = filepath.ToSlash(file)
	if strings.ContainsAny(file, "\r\n") {
		return "", fmt.Errorf("%w: sealing key %q: the name of the file has more than one line", ErrConfig, file)
	}
	dir, err := filepath.Abs(filepath.FromSlash(c.Data))
	if err != nil {
		return "", fmt.Errorf("%w: data directory: %w", ErrConfig, err)
	}
	if inside, err := filepath.Rel(dir, filepath.FromSlash(file)); err == nil && filepath.IsLocal(inside) {
		return "", fmt.Errorf("%w: --sealing-key %s is in the data directory: name a file elsewhere, since who has a copy of the directory must not have the key", ErrConfig, c.SealingKey)
	}
	return file, nil
}

// planSecured finds out whether this node is secured, or is to be, and makes of the settings what that says. It changes nothing on the disk.
func planSecured(n *Node) (err error) {
	dir := n.cfg.Data
	if n.secured, err = readSecured(n.fs, dir); err != nil {
		return err
	}
	if n.secured != nil && n.secured.whileRunning {
		return n.securing.takeKept()
	}
	if n.secured == nil {
		if !n.cfg.Secure {
			return nil
		}
		if _, err := readFile(n.fs, path.Join(dir, identityFile)); err == nil {
			return fmt.Errorf("%w: --secure secures a cluster at its first start, and %s has a node that is not secured: start it without --secure, and secure its cluster while it runs with \"leat secure\", or choose another directory with --data, and copy the records with a client",
				ErrConfig, dir)
		}
		return applySecured(n)
	}
	if n.cfg.SealingKey != "" { // the file may have been moved
		if n.secured.keyFile, err = keyFileOf(&n.cfg); err != nil {
			return err
		}
	}
	if _, err := n.secured.readRing(n.fs); err != nil {
		return err
	}
	return applySecured(n)
}

// applySecured has the settings be those of a secured node, and refuses those that would open it.
func applySecured(n *Node) error {
	n.cfg.Secure = true
	if n.cfg.given == nil {
		n.cfg.given = map[string]string{}
		maps.Copy(n.cfg.given, n.cfg.Settings)
	}
	given := n.cfg.given // a node that joins does this twice, since only the cluster knows the super user
	if err := checkOpening(given); err != nil {
		return err
	}
	if err := n.cfg.BootstrapUser.check(); err != nil {
		return asConfigError(err)
	}
	super := cmp.Or(n.cfg.BootstrapUser.Name, defaultSuperUser)
	if n.secured != nil {
		super = n.secured.super
	}
	if !plainName.MatchString(super) {
		return fmt.Errorf("%w: the first user of a secured cluster has a name of letters, digits, dots, dashes, underscores and @, and not %q", ErrConfig, super)
	}
	settings := ownCertificates(n)
	settings["super.users"] = auth.User(super).String()
	maps.Copy(settings, given)
	n.cfg.Settings = settings
	return nil
}

// ownCertificates are the settings by which listeners have the certificate that the cluster's authority makes.
func ownCertificates(n *Node) map[string]string {
	return map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.location": pathOf(n, certificateFile),
		"ssl.truststore.type": "PEM", "ssl.truststore.location": pathOf(n, trustedFile),
	}
}

// checkOpening refuses settings that would open a secured node.
func checkOpening(given map[string]string) error {
	for _, c := range []struct{ name, instead string }{
		{"authorizer.class.name", "leave it out"}, {"allow.everyone.if.no.acl.found", "leave it out, and grant what is needed with \"leat acl grant\""},
	} {
		if value := strings.TrimSpace(given[c.name]); isGiven(given, c.name) && value != config.StandardAuthorizer && !strings.EqualFold(value, "false") {
			return fmt.Errorf("%w: this node is secured, and %s=%s would open it: %s", ErrConfig, c.name, value, c.instead)
		}
	}
	for name := range given {
		if strings.HasPrefix(name, "ssl.keystore.") || strings.HasPrefix(name, "ssl.truststore.") || name == "ssl.key.password" {
			return fmt.Errorf("%w: this node is secured, and the cluster's own authority makes its certificate: leave %s out, or set listener.name.NAME.%s for a listener that is to have another one", ErrConfig, name, name)
		}
	}
	return nil
}

func isGiven(given map[string]string, name string) bool {
	_, ok := given[name]
	return ok
}

// pathOf is the path of a file in the data directory, as the system writes it.
func pathOf(n *Node, name string) string { return filepath.FromSlash(path.Join(n.cfg.Data, name)) }

// beginSecured makes what is to be there before the identity of a secured node. It is called with the lock of the directory.
func beginSecured(n *Node) error {
	if err := checkKeyOfJoiner(n); err != nil {
		return err
	}
	switch kept := n.securing.kept.Load(); {
	case kept != nil: // it may name another file than before
		return kept.write(n.fs, n.cfg.Data)
	case !n.cfg.Secure:
		return nil
	case n.secured != nil: // it may name another file than before
		return n.secured.write(n.fs, n.cfg.Data)
	case len(n.cfg.Join) > 0: // the cluster gives the key
		return nil
	}
	file, err := keyFileOf(&n.cfg)
	if err != nil {
		return err
	}
	ring, err := prepareRing(n.fs, file, sealing.NewRing)
	if err != nil {
		return err
	}
	return keepSecured(n, &secured{keyFile: file, keyID: ring.Newest(), super: cmp.Or(n.cfg.BootstrapUser.Name, defaultSuperUser)})
}

// keepSecured has the node be secured from now on.
func keepSecured(n *Node, s *secured) error {
	if err := s.write(n.fs, n.cfg.Data); err != nil {
		return err
	}
	n.secured = s
	return nil
}

// makeAuthority makes the cluster's authority, if the node is secured and there is none. It is called on a node that is alone in its cluster.
func makeAuthority(ctx context.Context, n *Node) error {
	if n.secured == nil || n.image.Load().Authority() != nil {
		return nil
	}
	ring, err := n.secured.readRing(n.fs)
	if err != nil {
		return err
	}
	a, err := authority.Make(ring, n.id.clusterID, time.Now())
	if err != nil {
		return fmt.Errorf("cannot make the certificate authority: %w", err)
	}
	refused, err := controller.SetAuthority(ctx, n.controller, nil, &a)
	if refused != nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("cannot make the certificate authority: %w", err)
	}
	n.loggers.loggerOf(rootLogger).Info("the certificate authority of the cluster was made", "sealing_key", n.secured.keyFile)
	return nil
}

// newCertificates finds the certificate of a secured node in its directory, and the names that it is to have.
func newCertificates(n *Node, of *secured) *certificates {
	c := &certificates{
		fs: n.fs, dir: n.cfg.Data, secured: of, cluster: n.id.clusterID, node: n.id.nodeID, log: n.loggers.loggerOf(rootLogger), networks: net.InterfaceAddrs,
		hosts: []string{"localhost", "127.0.0.1", "::1"},
	}
	if name, err := os.Hostname(); err == nil {
		c.hosts = append(c.hosts, name)
	}
	for _, l := range n.addresses.listenersToRegister(n.listeners) {
		c.hosts = append(c.hosts, l.Host)
	}
	for _, l := range n.listeners {
		c.isOpen = c.isOpen || isEverywhere(l.endpoint.host)
		c.hosts = append(c.hosts, l.endpoint.host)
	}
	c.readLeaf()
	return c
}

// openCertificates prepares the certificate of a secured node from what is in its directory and in its metadata.
func openCertificates(n *Node) error {
	warnOfKeyMode(n)
	if n.secured == nil {
		if g := n.image.Load().Securing(); g != nil && n.securing.kept.Load() == nil && slices.Contains(g.Ready, n.id.nodeID) {
			return notSecuredError(n) // the others reach it with TLS alone
		}
		return n.securing.openCertificates()
	}
	n.encryption.own = newCertificates(n, n.secured)
	if n.image.Load().Authority() == nil && n.peers.isAlone() {
		return nil // it is made when the node registers
	}
	return showCertificate(n)
}

// showCertificate makes the certificate of a secured node if it needs another one, and has the listeners show it.
func showCertificate(n *Node) error {
	if n.secured == nil {
		return nil
	}
	if err := refreshOwn(n); err != nil {
		return err
	}
	return n.encryption.loadPending(n.static)
}

// refreshOwn makes the certificate of a node if it needs another one, and there is an authority.
func refreshOwn(n *Node) error {
	a := n.image.Load().Authority()
	if a == nil {
		return nil
	}
	err := n.encryption.own.refresh(a, time.Now())
	if errors.Is(err, sealing.ErrUnknownKey) && n.encryption.own.leaf != nil { // the other nodes have the key (sealingKeys.catchUp), and are reached with the old certificate
		n.loggers.loggerOf(rootLogger).Warn("the certificate of this node should be made anew, and could not yet", "err", err)
		err = nil
	}
	if err != nil {
		return fmt.Errorf("cannot make the certificate of this node: %w", err)
	}
	return nil
}

// checkIsSecured refuses a start by which a node that is not secured would serve in a cluster that is.
func checkIsSecured(n *Node) error {
	if m := n.image.Load(); n.secured == nil && m.Authority() != nil && m.Securing() == nil {
		return notSecuredError(n)
	}
	return nil
}

// notSecuredError says that a node has lost what it kept of how it is secured.
func notSecuredError(n *Node) error {
	return fmt.Errorf("%w: this cluster is secured, and this node is not: its %s is missing in %s; restore the file from a backup, or remove the node with \"leat cluster remove\" and join with another directory",
		ErrConfig, securedFile, n.cfg.Data)
}

// warnOfKeyMode warns of a sealing key that other users of the system may read. It is not refused: a system for containers may mount it so, where there are none.
func warnOfKeyMode(n *Node) {
	kept := n.keys.kept()
	if kept == nil || runtime.GOOS == "windows" { // which has no such modes
		return
	}
	file := filepath.FromSlash(kept.keyFile)
	if i, err := os.Stat(file); err == nil && i.Mode().Perm()&0o077 != 0 {
		n.loggers.loggerOf(rootLogger).Warn("other users of this machine may read the sealing key: take the right from them (chmod 600), and replace the key with \"leat cert seal-key\" if somebody may have read it",
			"file", file, "mode", fmt.Sprintf("%04o", i.Mode().Perm()))
	}
}

// dropOldLogin deletes firstLoginFile if its password is not that of the super user any more, so that nobody is told an old one. It is called when the node has
// the newest metadata.
func dropOldLogin(ctx context.Context, n *Node) {
	m := n.image.Load()
	g := m.Securing()
	if isMade := n.secured != nil && hasHadUsers(m) || g != nil && g.HasUser; !isMade {
		return // it is the login of the user that is to be made
	}
	file := path.Join(n.cfg.Data, firstLoginFile)
	login, err := readFirstLogin(n.fs, file)
	if err != nil || n.users.CheckPassword(ctx, login.Name, login.Password) || ctx.Err() != nil {
		return
	}
	if err := errors.Join(n.fs.Remove(file), syncIdentity(n.fs, n.cfg.Data)); err != nil {
		n.loggers.loggerOf(rootLogger).Warn("the file of the first login has an old password, and cannot be deleted", "file", filepath.FromSlash(file), "err", err)
		return
	}
	n.loggers.loggerOf(rootLogger).Info("the file of the first login was deleted: its password was changed since, and does not count any more", "file", filepath.FromSlash(file), "user", login.Name)
}

// warnOfBootstrapUser warns of a first user that was given to a cluster which has users, unless it is one of them, with that password.
func warnOfBootstrapUser(ctx context.Context, n *Node) {
	u := n.cfg.BootstrapUser
	if !u.IsSet() || !hasHadUsers(n.image.Load()) || n.users.CheckPassword(ctx, u.Name, u.Password) {
		return
	}
	n.loggers.loggerOf(rootLogger).Warn("--bootstrap-user makes no user and changes no password, since the cluster has had users before: leave it out, and use \"leat user create\" or \"leat user rotate\"; see docs/security.md for a password that was lost", "user", u.Name)
}

// firstUser is the user to be made if the cluster has never had one. On a secured node that was given none it has a drawn password, which is durable in
// firstLoginFile before the user is made: so it is not lost by a kill.
func firstUser(n *Node) (BootstrapUser, error) {
	u := n.cfg.BootstrapUser
	if u.IsSet() || n.secured == nil || hasHadUsers(n.image.Load()) {
		return u, nil
	}
	return keepFirstLogin(n, n.secured.super)
}

// keepFirstLogin reads the first login of a super user, or draws its password. When it returns, the file has it and is durable.
func keepFirstLogin(n *Node, super string) (BootstrapUser, error) {
	file := path.Join(n.cfg.Data, firstLoginFile)
	login, err := readFirstLogin(n.fs, file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && login.Name != super {
		login = BootstrapUser{Name: super, Password: drawPassword()}
		if err = writeFile(n.fs, file, append([]byte(firstLoginHead), clientProperties(login, clientMechanism(n), pathOf(n, trustedFile))...), vfs.Secret); err == nil {
			err = syncIdentity(n.fs, n.cfg.Data)
		}
	}
	if err != nil {
		return BootstrapUser{}, fmt.Errorf("%w %s: %s: %w", ErrDirectory, n.cfg.Data, firstLoginFile, err)
	}
	return login, nil
}

// hasHadUsers tells whether the cluster has ever had a user.
func hasHadUsers(m *meta.Image) bool {
	c := m.Credentials()
	return c.Secret != ([32]byte{}) || len(c.ByOwner) > 0
}

// drawPassword makes a password of 160 random bits.
func drawPassword() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // it never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// firstLoginHead begins firstLoginFile, which is a client.properties of Java's clients.
const firstLoginHead = "# The first login of a secured cluster. Delete this file when you have noted the password: it is not shown again.\n"

// clientProperties are the lines by which a Java client logs in.
func clientProperties(u BootstrapUser, mechanism, ca string) []byte {
	module := config.ScramLoginModule
	if mechanism == config.MechanismPlain {
		module = config.PlainLoginModule
	}
	return fmt.Appendf(nil, "security.protocol=SASL_SSL\nsasl.mechanism=%s\nsasl.jaas.config=%s required username=\"%s\" password=\"%s\";\nssl.truststore.type=PEM\nssl.truststore.location=%s\n",
		mechanism, module, u.Name, u.Password, filepath.ToSlash(ca))
}

// clientMechanism is the mechanism by which users of the cluster log in at the first listener that asks for it over TLS: SCRAM-SHA-512 if it has that.
func clientMechanism(n *Node) string {
	for _, name := range n.addresses.names {
		l, asks := n.settings[name]
		if !asks || !n.addresses.protected[name].UsesTLS() {
			continue
		}
		for _, m := range []string{config.MechanismScramSHA512, config.MechanismScramSHA256, config.MechanismPlain} {
			if slices.Contains(l.Mechanisms, m) && (m != config.MechanismPlain || l.PlainUsers == nil) {
				return m
			}
		}
	}
	return config.MechanismScramSHA512
}

// ReadFirstLogin reads the file of a first login.
func ReadFirstLogin(file string) (BootstrapUser, error) {
	return readFirstLogin(vfs.OS{}, filepath.ToSlash(file))
}

func readFirstLogin(fsys vfs.FS, file string) (BootstrapUser, error) {
	b, err := readFile(fsys, file)
	if err != nil {
		return BootstrapUser{}, err
	}
	for line := range bytes.Lines(b) {
		text, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "sasl.jaas.config=")
		if !ok {
			continue
		}
		if j, err := config.ParseJAAS(text); err == nil && j.Options["username"] != "" && j.Options["password"] != "" {
			return BootstrapUser{Name: j.Options["username"], Password: j.Options["password"]}, nil
		}
	}
	return BootstrapUser{}, errors.New("it is damaged: delete it, and start again")
}

// ReadSecured says what clients of the node of a data directory need, but for its address; nil: it is not secured. The node need not run.
func ReadSecured(dir string) (*SecuredInfo, error) {
	return describeSecured(vfs.OS{}, filepath.ToSlash(dir))
}

func describeSecured(fsys vfs.FS, dir string) (*SecuredInfo, error) {
	s, err := readSecured(fsys, dir)
	if err != nil || s == nil {
		return nil, err
	}
	pathOf := func(name string) string { return filepath.FromSlash(path.Join(dir, name)) }
	i := &SecuredInfo{CA: pathOf(trustedFile), SealingKey: filepath.FromSlash(s.keyFile), User: s.super, WhileRunning: s.whileRunning}
	if _, err := readFile(fsys, path.Join(dir, firstLoginFile)); err == nil {
		i.FirstLogin = pathOf(firstLoginFile)
	}
	return i, nil
}

// ErrNotSecured is returned where something needs a secured node.
var ErrNotSecured = errors.New("the cluster was not secured: it has no certificate authority of its own")

// ReadSealingKey reads the sealing key of the node of a data directory, which need not run.
func ReadSealingKey(dir string) (*sealing.Ring, error) {
	s, err := readSecured(vfs.OS{}, filepath.ToSlash(dir))
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, ErrNotSecured
	}
	return s.readRing(vfs.OS{})
}

// securedInfo says what clients of the node need; nil: it is not secured.
func securedInfo(n *Node) *SecuredInfo {
	i, err := describeSecured(n.fs, n.cfg.Data)
	if err != nil || i == nil {
		return nil
	}
	if i.WhileRunning && !n.securing.isFinished() {
		return nil
	}
	i.WhileRunning, i.Mechanism = false, clientMechanism(n)
	for _, l := range registeredListeners(n) {
		if config.Protocol(l.Security) == config.SASLSSL && i.Address == "" {
			i.Address = net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port)))
		}
	}
	return i
}
