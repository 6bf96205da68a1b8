package node

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/vfs"
)

// The files of a data directory that belong to the node itself.
const (
	lockFile     = ".lock"
	identityFile = "meta.properties" // has Kafka's name and form, with further keys
	keyFile      = "node.key"        // the private key of the node
	membersFile  = "cluster.members" // whom a node that joined has met at first
	secretFile   = "cluster.secret"  // of directories that earlier versions made; it has no use
	quorumDir    = "quorum"
	// formatVersion is the version of a directory that this binary makes. Those of version 2 have a
	// cluster.secret, and are read, too. Version 1 was that of development versions, whose formats
	// were not promised.
	formatVersion = 3
	oldestFormat  = 2
)

// The files of a secured node, in its data directory.
const (
	securedFile     = "node.secured"           // says that the node is secured, and how
	certificateFile = "node.tls.pem"           // its private key and certificate
	trustedFile     = "ca.pem"                 // the certificates to trust, for clients, too
	firstLoginFile  = "first-login.properties" // the first user's login, until somebody has seen it
)

// Properties of the identity that directories of version 2 did not have at first. They are added
// at the next start.
const (
	directoryProperty = "directory.id"  // as in Kafka
	keyProperty       = "leat.node.key" // the public half of the node's key
)

// joinedProperty is true in the identity of a node that has joined a cluster that was there. Without it
// the node has begun its cluster.
const joinedProperty = "leat.joined"

// epochProperty is the cluster's epoch in the identity of a node whose cluster was recovered from a lost majority,
// or that has joined such a cluster. Without it the epoch is firstEpoch.
const epochProperty = "leat.cluster.epoch"

// firstEpoch is the epoch of a cluster that was never recovered. Nodes of different epochs refuse each other.
const firstEpoch uint32 = 1

// ErrDirectory is wrapped by every refusal of a data directory.
var ErrDirectory = errors.New("cannot use the data directory")

// identity identifies the node, its cluster and its data directory. It is made at the first start
// and never changes, but for the epoch: see RecoverCluster.
type identity struct {
	clusterID string
	nodeID    int32
	directory meta.UUID            // drawn once for this data directory
	public    credential.PublicKey // of the node's key
	key       credential.NodeKey   // proves to other nodes which node this is
	joined    bool                 // the cluster was there before this node
	epoch     uint32               // of the cluster
}

// lockDirectory keeps other processes out of the directory until the closer is closed.
func lockDirectory(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("%w %s: cannot create it: %w", ErrDirectory, dir, err)
	}
	locker, ok := fsys.(vfs.Locker)
	if !ok {
		return io.NopCloser(nil), nil
	}
	lock, err := locker.Lock(path.Join(dir, lockFile))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w %s: another leat is running in it; stop that one, or choose another directory with --data", ErrDirectory, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	return lock, nil
}

// loadIdentity reads the directory's identity, or makes one if the directory is new. wantID is
// the node id that the operator wants, by the setting wantedBy; nil: the one that the directory has, 1 in a new one.
//
// The identity file is written before any metadata or log, by one rename. So a directory
// without it that has metadata or logs has lost its identity, and must not get another one.
// When loadIdentity returns, the identity and all names on the way to it are durable, also those
// that an earlier process made which was killed before it could do that.
func loadIdentity(fsys vfs.FS, dir string, wantID *int32, wantedBy string) (identity, error) {
	id, err := findIdentity(fsys, dir, wantID, wantedBy)
	if err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	return id, nil
}

func findIdentity(fsys vfs.FS, dir string, wantID *int32, wantedBy string) (identity, error) {
	b, err := readFile(fsys, path.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := inspectDirectory(fsys, dir); err != nil {
			return identity{}, err
		}
		return makeIdentity(fsys, dir, wantID)
	}
	if err != nil {
		return identity{}, err
	}
	id, err := parseIdentity(b)
	if err != nil {
		return identity{}, err
	}
	if wantID != nil && *wantID != id.nodeID {
		return identity{}, fmt.Errorf("it belongs to node %d, and %s asks for %d; leave %s out, or choose another directory with --data",
			id.nodeID, wantedBy, *wantID, wantedBy)
	}
	if id.directory == (meta.UUID{}) || id.public == (credential.PublicKey{}) {
		return completeIdentity(fsys, dir, id, b)
	}
	if id.key, err = readKey(fsys, dir); err != nil {
		return identity{}, err
	}
	if id.key.Public() != id.public {
		return identity{}, fmt.Errorf("%s is the key %v, and %s says that the node has %v; restore both from one backup",
			keyFile, id.key.Public(), identityFile, id.public)
	}
	return id, syncIdentity(fsys, dir)
}

// completeIdentity gives an identity that an earlier version made what it lacks; text is what its
// file has.
func completeIdentity(fsys vfs.FS, dir string, id identity, text []byte) (identity, error) {
	if err := id.complete(fsys, dir); err != nil {
		return identity{}, err
	}
	name := path.Join(dir, identityFile)
	if err := writeFile(fsys, name, addProperties(text, id), vfs.Fresh); err != nil {
		return identity{}, fmt.Errorf("cannot write to it: %w", err)
	}
	if err := syncIdentity(fsys, dir); err != nil {
		// A later sync would not make a name durable that a failed one has lost: the next start
		// does all of this again.
		return identity{}, errors.Join(err, writeFile(fsys, name, text, vfs.Fresh))
	}
	return id, nil
}

// complete draws the directory's id and the node's key, if there are none. A key that is there is
// kept, since it may be the only copy.
func (id *identity) complete(fsys vfs.FS, dir string) error {
	if id.directory == (meta.UUID{}) {
		id.directory = meta.NewUUID()
	}
	key, err := readKey(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) && id.public == (credential.PublicKey{}) {
		key, err = credential.NewNodeKey(rand.Reader)
	}
	if err != nil {
		return err
	}
	if err := writeFile(fsys, path.Join(dir, keyFile), key.Encode(), vfs.Secret); err != nil { // a kept one, too, whose name a failed sync may have lost
		return fmt.Errorf("cannot write to it: %w", err)
	}
	id.key, id.public = key, key.Public()
	return nil
}

// addProperties adds those properties of an identity that the text of its file does not have.
func addProperties(text []byte, id identity) []byte {
	b := slices.Clone(text)
	if !bytes.HasSuffix(b, []byte("\n")) {
		b = append(b, '\n')
	}
	for _, line := range []string{fmt.Sprintf("%s=%v\n", directoryProperty, id.directory), fmt.Sprintf("%s=%v\n", keyProperty, id.public)} {
		if !bytes.Contains(b, []byte(line)) {
			b = append(b, line...)
		}
	}
	return b
}

// readKey reads the node's key.
func readKey(fsys vfs.FS, dir string) (credential.NodeKey, error) {
	b, err := readFile(fsys, path.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return credential.NodeKey{}, fmt.Errorf("%w: %s is missing; restore it from a backup, or choose another directory with --data", err, keyFile)
	}
	if err != nil {
		return credential.NodeKey{}, err
	}
	key, err := credential.ParseNodeKey(b)
	if err != nil {
		return credential.NodeKey{}, fmt.Errorf("%s: %w", keyFile, err)
	}
	return key, nil
}

func parseIdentity(b []byte) (identity, error) {
	props := map[string]string{}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			props[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	if props["leat.format"] == "" {
		if props["cluster.id"] != "" {
			return identity{}, errKafkaDirectory
		}
		return identity{}, fmt.Errorf("%s has no leat.format: it is damaged, or not a file of Leat; restore it from a backup, or choose another directory with --data",
			identityFile)
	}
	format, err := strconv.Atoi(props["leat.format"])
	if err != nil || format < 1 {
		return identity{}, fmt.Errorf("%s has leat.format=%q, which no version writes; restore it from a backup", identityFile, props["leat.format"])
	}
	if format > formatVersion {
		return identity{}, fmt.Errorf("it has format %d, which a newer leat wrote, and this one reads up to %d; start it with the newer leat", format, formatVersion)
	}
	if format < oldestFormat {
		return identity{}, fmt.Errorf("it has format %d, which a development version of leat wrote, and this one reads %d to %d; "+
			"read its records out with that version, or choose another directory with --data", format, oldestFormat, formatVersion)
	}
	nodeID, err := strconv.ParseInt(props["node.id"], 10, 32)
	if err != nil || nodeID < 0 || len(props["cluster.id"]) != 22 {
		return identity{}, fmt.Errorf("%s is damaged (cluster.id=%q, node.id=%q); restore it from a backup", identityFile, props["cluster.id"], props["node.id"])
	}
	id := identity{clusterID: props["cluster.id"], nodeID: int32(nodeID), epoch: firstEpoch}
	if text, ok := props[epochProperty]; ok {
		epoch, err := strconv.ParseUint(text, 10, 32)
		if err != nil || uint32(epoch) < firstEpoch {
			return identity{}, fmt.Errorf("%s is damaged (%s=%q); restore it from a backup", identityFile, epochProperty, text)
		}
		id.epoch = uint32(epoch)
	}
	if text, ok := props[directoryProperty]; ok {
		if id.directory, ok = meta.ParseUUID(text); !ok || id.directory == (meta.UUID{}) {
			return identity{}, fmt.Errorf("%s is damaged (%s=%q); restore it from a backup", identityFile, directoryProperty, text)
		}
	}
	id.joined = props[joinedProperty] == "true"
	if text, ok := props[keyProperty]; ok {
		if id.public, err = credential.ParsePublicKey(text); err != nil {
			return identity{}, fmt.Errorf("%s is damaged (%s=%q): %w; restore it from a backup", identityFile, keyProperty, text, err)
		}
	}
	return id, nil
}

// inspectDirectory refuses a directory that is not a node's, before anything is written into it: a node
// that takes somebody's home for its data directory would mix its files with theirs. A directory is a
// node's if it has an identity, which is checked when it is read, and may become one if it is empty. One
// that cannot be listed is refused when it is locked.
func inspectDirectory(fsys vfs.FS, dir string) error {
	infos, err := fsys.ReadDir(dir)
	if err != nil {
		return nil //nolint:nilerr // it does not exist yet, or lockDirectory says why it cannot be used
	}
	b, err := readFile(fsys, path.Join(dir, identityFile))
	switch {
	case err == nil:
		_, err = parseIdentity(b)
	case errors.Is(err, fs.ErrNotExist):
		err = refuseForeign(fsys, dir, infos)
	}
	return err
}

// unusedNames are the names that a directory may have although no node has used it: those of files that a first
// start writes before the identity, and that of a folder which a file system has at its root.
var unusedNames = []string{
	lockFile, keyFile, keyFile + ".tmp", membersFile, membersFile + ".tmp", secretFile, secretFile + ".tmp", identityFile + ".tmp",
	securedFile, securedFile + ".tmp", certificateFile, certificateFile + ".tmp", trustedFile, trustedFile + ".tmp", "lost+found",
}

// refuseForeign returns an error if a directory without an identity has anything in it, and says what it is.
func refuseForeign(fsys vfs.FS, dir string, infos []vfs.Info) error {
	var foreign []string
	for _, i := range infos {
		switch {
		case i.Name == "__cluster_metadata-0", i.Name == "replication-offset-checkpoint", i.Name == "recovery-point-offset-checkpoint":
			return errKafkaDirectory
		case isMadeByNode(fsys, dir, i):
			return fmt.Errorf("%s is missing, but %s is there, so a node has used it; restore %s and %s from a backup, or choose another directory with --data",
				identityFile, i.Name, identityFile, keyFile)
		case !slices.Contains(unusedNames, i.Name):
			foreign = append(foreign, i.Name)
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	const most = 3
	listed := strings.Join(foreign[:min(most, len(foreign))], ", ")
	if n := len(foreign) - most; n > 0 {
		listed += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("it is not empty, and what it has is not a node's: %s; choose a directory that is empty or does not exist with --data, such as %s",
		listed, path.Join(dir, DefaultData))
}

// errKafkaDirectory says that a directory is one of Apache Kafka's.
var errKafkaDirectory = errors.New("it was written by Apache Kafka, whose directories Leat does not take over; choose another directory with --data, and copy the records with a client")

// partitionDir is the name of a partition's directory.
var partitionDir = regexp.MustCompile(`^[a-zA-Z0-9._-]+-[0-9]+$`)

// isMadeByNode tells whether only a node with an identity makes such an entry of a directory. A name
// alone says little: somebody's folder may be called journal, or backup-2025.
func isMadeByNode(fsys vfs.FS, dir string, i vfs.Info) bool {
	var isNodeFile func(name string) bool
	switch {
	case !i.Dir:
		return slices.Contains([]string{"checkpoint-a", "checkpoint-b", "points-a", "points-b", "sync-failed", "last-run", addressesFile}, i.Name)
	case i.Name == quorumDir:
		isNodeFile = func(name string) bool { return strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".snapshot") }
	case i.Name == "journal":
		isNodeFile = func(name string) bool { return strings.HasSuffix(name, ".ring") }
	case partitionDir.MatchString(i.Name):
		isNodeFile = func(name string) bool { return name == "partition.metadata" }
	default:
		return false
	}
	inside, err := fsys.ReadDir(path.Join(dir, i.Name))
	return err == nil && slices.ContainsFunc(inside, func(f vfs.Info) bool { return isNodeFile(f.Name) })
}

// makeIdentity makes a new identity and writes it.
func makeIdentity(fsys vfs.FS, dir string, wantID *int32) (identity, error) {
	id := identity{nodeID: 1, epoch: firstEpoch}
	if wantID != nil {
		id.nodeID = *wantID
	}
	var cluster [16]byte
	// crypto/rand returns no errors: it ends the program if it has no random bytes.
	_, _ = rand.Read(cluster[:])
	// An id must not start with a dash: command lines would take it for a flag.
	cluster[0] &= 0x7f
	id.clusterID = base64.RawURLEncoding.EncodeToString(cluster[:])
	if err := id.complete(fsys, dir); err != nil {
		return identity{}, err
	}
	return id, writeIdentity(fsys, dir, id)
}

// writeIdentity writes a new identity.
func writeIdentity(fsys vfs.FS, dir string, id identity) error {
	text := fmt.Appendf(nil, "version=1\nleat.format=%d\ncluster.id=%s\nnode.id=%d\n", formatVersion, id.clusterID, id.nodeID)
	if id.joined {
		text = append(text, joinedProperty+"=true\n"...)
	}
	if id.epoch != firstEpoch {
		text = fmt.Appendf(text, "%s=%d\n", epochProperty, id.epoch)
	}
	name := path.Join(dir, identityFile)
	err := writeFile(fsys, name, addProperties(text, id), vfs.Fresh)
	if err == nil {
		err = syncIdentity(fsys, dir)
	}
	if err != nil {
		// A later sync would not make names durable that a failed one has lost: the next start makes
		// them again.
		return fmt.Errorf("cannot write to it: %w", errors.Join(err, fsys.Remove(name)))
	}
	return nil
}

// syncIdentity makes the names of the identity's files durable, and those on the way to them.
func syncIdentity(fsys vfs.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("making the names in it durable: %w", err)
	}
	return vfs.SyncPath(fsys, dir)
}

// writeFile replaces a file by one rename, so that a power cut leaves the old or the new one. mode
// is Fresh or Secret. The caller must sync the directory.
func writeFile(fsys vfs.FS, name string, b []byte, mode vfs.Mode) error {
	f, err := fsys.Open(name+".tmp", mode)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.Rename(name+".tmp", name)
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	const limit = 1 << 20 // the node's own files are far smaller
	b := make([]byte, min(size, limit))
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
