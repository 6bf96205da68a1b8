// Package lastrun keeps, in the data directory, under which registration of the node the directory
// was used last, and which acknowledged records the disk may lack if that run did not end in order.
// Notes has the notes of this run, and a Run is what the one before has noted.
//
// The file last-run is a list of entries of 32 bytes, in big endian:
//
//	0   kind 4
//	4   zeros 8
//	12  value 16
//	28  checksum (CRC-32C) of the 28 bytes before 4
//
//	kind 1  run     the registration's epoch 8, the directory's generation 8; it is the first entry and no other one
//	kind 2  cached  a topic's id: records of it were committed before they were on disk
//	kind 3  clean   zeros 16: the run has ended, and everything is on disk
//	kind 4  many    zeros 16: there were more topics as of kind 2 than are noted
//
// The list ends where the file does, or before zeros. An entry is on disk before anybody acts on
// it. If an entry is neither whole nor zeros nothing of the file is believed. What is taken back, or has changed, is taken from the
// list by a new file.
//
// The generation is a number that never falls, and rises from time to time while records are written to the directory. The cluster
// knows the last one, so a copy of the directory that was made before is known by its lower one.
//
// Any goroutine may call the methods of a Notes.
package lastrun

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"path"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/vfs"
)

const fileName = "last-run"

// Kinds of entries, the length of one, and how many topics are noted in one run.
const (
	entryRun    = 1
	entryCached = 2
	entryClean  = 3
	entryMany   = 4

	entryLen  = 32
	maxCached = 1 << 16
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// Run is what is known of a run of the node.
type Run struct {
	// Epoch is that of the node's registration. It is 0 if none was noted, or if any topic may lack
	// records that were acknowledged.
	Epoch int64
	// Generation is the directory's when the run ended.
	Generation int64
	// Clean tells that everything was on disk when the run ended.
	Clean bool
	// Unsynced are topics of which records were committed before they were on disk.
	Unsynced [][16]byte
}

// Notes writes the notes about this run. Notes of several topics share one write. A nil Notes notes
// nothing.
type Notes struct {
	fs   vfs.FS
	dir  string
	last Run

	writing sync.Mutex // held during a write of the file; taken before mu

	mu sync.Mutex
	// entries is what the file is to have; nil before the run has begun. Appended to with mu held, and else changed with writing held, too.
	entries []byte
	durable int                             // guarded by mu: so many bytes of entries are on disk; 0: the file has others, and is to be replaced
	ends    map[[16]byte]int                // guarded by mu: where the entry of a topic ends
	newest  int                             // guarded by mu: where the newest of those ends
	cached  map[[16]byte]map[int32]struct{} // guarded by mu: the partitions for which a topic has its entry
	// isLess tells that entries has some of topics that have lost theirs; guarded by mu.
	isLess bool
	// generation is the directory's, which is on disk; guarded by mu.
	generation int64
}

// Open reads what the run before this one has noted. A start does not need it: if the file cannot
// be read it counts as one that says nothing.
func Open(fsys vfs.FS, dir string, log *slog.Logger) *Notes {
	n := &Notes{fs: fsys, dir: dir}
	b, err := readFile(fsys, n.name())
	ok := false
	if err == nil {
		n.last, ok = decode(b)
	}
	n.generation = n.last.Generation
	if !ok {
		log.Warn("nothing tells how the last run has ended, since a file cannot be read: the logs count as if they had lost something",
			"file", n.name(), "err", err)
	}
	return n
}

func (n *Notes) name() string { return path.Join(n.dir, fileName) }

// Last returns what the run before this one has noted.
func (n *Notes) Last() Run {
	if n == nil {
		return Run{}
	}
	return n.last
}

// Begin notes durably under which registration the node uses the directory from now on. Until
// then the directory counts as left by the run before, so the caller must call it before the first
// append. A node that registers again calls it again.
func (n *Notes) Begin(epoch int64) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.mu.Lock()
	begun := encodeRun(epoch, n.generation)
	if n.entries != nil {
		end := n.replaceRunLocked(begun)
		n.mu.Unlock()
		return n.writeUpTo(end)
	}
	n.mu.Unlock()
	if err := n.replace(begun); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.entries, n.durable = begun, len(begun)
	return nil
}

// replaceRunLocked replaces the first entry, and returns where the entries end. The caller holds writing and mu.
func (n *Notes) replaceRunLocked(run []byte) (end int) {
	n.entries, n.durable = append(run, n.entries[entryLen:]...), 0
	return len(n.entries)
}

// replace replaces the file durably.
func (n *Notes) replace(b []byte) error {
	tmp := n.name() + ".tmp"
	f, err := n.fs.Open(tmp, vfs.Fresh)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, n.fs.Remove(tmp))
	}
	if err = n.fs.Rename(tmp, n.name()); err != nil {
		return err
	}
	return n.fs.SyncDir(n.dir)
}

// Generation is the generation of the directory. It is on disk.
func (n *Notes) Generation() int64 {
	if n == nil {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.generation
}

// RaiseGeneration durably gives the directory another generation. All that is on disk when it is called is in each copy of the
// directory that has the new one. Before the run has begun it does nothing.
func (n *Notes) RaiseGeneration() error {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.mu.Lock()
	if n.entries == nil {
		n.mu.Unlock()
		return nil
	}
	generation := n.generation + 1
	end := n.replaceRunLocked(encodeRun(int64(be.Uint64(n.entries[12:])), generation))
	n.mu.Unlock()
	if err := n.writeUpTo(end); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation = generation
	return nil
}

// NoteCached notes durably that records of a topic may be committed before they are on disk, in one of its partitions.
func (n *Notes) NoteCached(topic [16]byte, partition int32) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	if n.entries == nil {
		n.mu.Unlock()
		return nil
	}
	end, known := n.ends[topic]
	if !known {
		end = n.addCachedLocked(topic)
	}
	if n.ends[topic] > 0 {
		n.addPartitionLocked(topic, partition)
	}
	written := end <= n.durable
	n.mu.Unlock()
	if written {
		return nil
	}
	n.writing.Lock()
	defer n.writing.Unlock()
	return n.writeUpTo(end)
}

func (n *Notes) addPartitionLocked(topic [16]byte, partition int32) {
	if n.cached == nil {
		n.cached = map[[16]byte]map[int32]struct{}{}
	}
	if n.cached[topic] == nil {
		n.cached[topic] = map[int32]struct{}{}
	}
	n.cached[topic][partition] = struct{}{}
}

// IsCached tells whether a topic has its entry for a partition, among others.
func (n *Notes) IsCached(topic [16]byte, partition int32) bool {
	if n == nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, is := n.cached[topic][partition]
	return is
}

// ForgetCached takes that all records of a partition are on disk, and that its next ones are committed there. Its topic loses its entry
// when that is so of all partitions for which it has one; Flush makes that durable. Of too many topics nothing is taken back.
func (n *Notes) ForgetCached(topic [16]byte, partition int32) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, is := n.cached[topic][partition]; !is {
		return
	}
	delete(n.cached[topic], partition)
	if len(n.cached[topic]) > 0 || len(n.ends) > maxCached {
		return
	}
	delete(n.cached, topic)
	delete(n.ends, topic)
	n.isLess = true
}

// dropEntriesLocked takes the entries of topics that have lost theirs from the list. The caller holds writing and mu.
func (n *Notes) dropEntriesLocked() {
	kept := slices.Clone(n.entries[:entryLen])
	for at := entryLen; at < len(n.entries); at += entryLen {
		e := n.entries[at : at+entryLen]
		topic := [16]byte(e[12:28])
		isCached := be.Uint32(e) == entryCached
		if isCached && n.ends[topic] != at+entryLen {
			continue
		}
		kept = append(kept, e...)
		if isCached {
			n.ends[topic] = len(kept)
		}
	}
	n.entries, n.durable, n.newest, n.isLess = kept, 0, len(kept), false
}

// Flush makes durable what ForgetCached has taken back.
func (n *Notes) Flush() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	end := len(n.entries)
	isDue := end > n.durable || n.isLess
	n.mu.Unlock()
	if !isDue {
		return nil
	}
	n.writing.Lock()
	defer n.writing.Unlock()
	return n.writeUpTo(end)
}

// addCachedLocked adds the entry of a topic, if there are not too many of them, and returns where
// the entries end that say so. The caller holds mu.
func (n *Notes) addCachedLocked(topic [16]byte) (end int) {
	if len(n.ends) > maxCached {
		return n.newest // the entry that there are many
	}
	if n.ends == nil {
		n.ends = map[[16]byte]int{}
	}
	kind, value := uint32(entryCached), topic[:]
	if len(n.ends) == maxCached {
		kind, value = entryMany, nil
	}
	n.entries = appendEntry(n.entries, kind, value)
	end = len(n.entries)
	n.ends[topic], n.newest = end, end
	return end
}

// NoteClean notes durably that the run has ended and everything is on disk.
func (n *Notes) NoteClean() error {
	if n == nil {
		return nil
	}
	n.writing.Lock()
	defer n.writing.Unlock()
	n.mu.Lock()
	if n.entries == nil {
		n.mu.Unlock()
		return nil
	}
	n.entries = appendEntry(n.entries, entryClean, nil)
	end := len(n.entries)
	n.mu.Unlock()
	return n.writeUpTo(end)
}

// writeUpTo makes the entries durable, at least up to end. After a failure the next call writes the
// same bytes again. An entry moves only towards the start, so an end from before still covers it. The caller holds writing.
func (n *Notes) writeUpTo(end int) error {
	n.mu.Lock()
	if n.isLess {
		n.dropEntriesLocked()
	}
	from, b := n.durable, slices.Clone(n.entries[n.durable:])
	n.mu.Unlock()
	if from >= end {
		return nil
	}
	var err error
	if from == 0 {
		err = n.replace(b)
	} else {
		err = n.extend(b, from)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.durable = from + len(b)
	return nil
}

// extend writes entries durably behind those that the file has.
func (n *Notes) extend(b []byte, from int) error {
	f, err := n.fs.Open(n.name(), vfs.Existing)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, int64(from)); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// encodeRun encodes the first entry.
func encodeRun(epoch, generation int64) []byte {
	return appendEntry(nil, entryRun, be.AppendUint64(be.AppendUint64(nil, uint64(epoch)), uint64(generation)))
}

func appendEntry(b []byte, kind uint32, value []byte) []byte {
	from := len(b)
	b = append(be.AppendUint32(b, kind), make([]byte, entryLen-4)...)
	copy(b[from+12:], value)
	be.PutUint32(b[from+28:], crc32.Checksum(b[from:from+28], castagnoli))
	return b
}

// decode decodes the contents of the file. ok is false if they are damaged. A file that is
// missing or empty is not: it says nothing.
func decode(b []byte) (last Run, ok bool) {
	many := false
	for at := 0; len(b)-at >= entryLen; at += entryLen {
		e := b[at : at+entryLen]
		if !slices.ContainsFunc(e, func(c byte) bool { return c != 0 }) {
			break
		}
		kind, isFirst := be.Uint32(e), at == 0
		isSound := be.Uint32(e[28:]) == crc32.Checksum(e[:28], castagnoli) && be.Uint64(e[4:]) == 0
		switch {
		case !isSound, last.Clean, isFirst != (kind == entryRun):
			return Run{}, false
		case kind == entryRun:
			last.Epoch, last.Generation = int64(be.Uint64(e[12:])), int64(be.Uint64(e[20:]))
		case kind == entryCached:
			last.Unsynced = append(last.Unsynced, [16]byte(e[12:28]))
		case kind == entryClean:
			last.Clean = true
		case kind == entryMany:
			many = true
		default:
			return Run{}, false
		}
	}
	if many && !last.Clean {
		return Run{}, true
	}
	return last, true
}

// maxFile bounds the file, in bytes.
const maxFile = (maxCached + 3) * entryLen

// readFile reads the file. A file that is missing is empty.
func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, maxFile))
	got, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:got], nil
}
